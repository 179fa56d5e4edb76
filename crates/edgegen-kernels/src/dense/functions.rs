//! Functions of vectors of numbers.

use crate::simd::{ROUND, Simd};

/// e^x, with x brought within -87 to 87, to two units in the last place: 2ⁿ times a polynomial of the rest.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.min(s.max(x, s.splat(-87.0)), s.splat(87.0));
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    // ln 2 in two parts, so that the rest is exact
    let r = s.fma(n, s.splat(-0.693_145_75), x);
    let r = s.fma(n, s.splat(-1.428_606_8e-6), r);
    // the polynomial of this degree, with 1 for 0, whose greatest relative error within ± ln 2 / 2 is least: 9.2e-8
    let mut p = s.splat(0.008_290_306);
    for c in [0.041_897_976, 0.166_676_37, 0.499_991_5, 0.999_999_7, 1.0] {
        p = s.fma(p, r, s.splat(c));
    }
    s.times_power_of_two(p, shifted)
}

/// x / (1 + e^-x).
#[inline(always)]
pub(super) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.mul(x, s.reciprocal(s.add(s.splat(1.0), e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn exp_and_silu_are_close_to_the_exact_ones() {
        let of = |x: f32| (exp(Portable, [x; 4])[0], silu(Portable, [x; 4])[0]);
        for i in (-8700..8700).step_by(if cfg!(miri) { 1001 } else { 1 }) {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(of(x).0) - exact).abs() <= 3e-7 * exact, "{x}");
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(of(x).1) - exact).abs() <= 5e-7 * exact.abs() + 1e-35, "silu {x}");
        }
        assert!(of(-1000.0).1.abs() < 1e-34 && of(1000.0).1 == 1000.0);
    }
}
