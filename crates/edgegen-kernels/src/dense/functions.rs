//! Functions of vectors of numbers.

#[cfg(any(target_arch = "aarch64", test, feature = "emulate-halves"))]
use crate::simd::Half;
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

/// x / (1 + e^-x) in 16 bits, to 2.8e-3 of the result or 6.1e-4: e^-x is 2 to a fraction within ±½, by a polynomial, over a
/// power of two, and the inverse is found by Newton's method, since a division takes as long as all of that.
#[cfg(any(target_arch = "aarch64", test, feature = "emulate-halves"))]
#[inline(always)]
pub(super) fn silu_halves<H: Half, const N: usize>(h: H, x: [H::F; N]) -> [H::F; N] {
    let mut y = x;
    for y in &mut y {
        // beyond these, 1 over 1 + e^-x is less than a normal number, or 1
        let x = h.max(*y, h.splat(-9.6875));
        let bounded = h.min(x, h.splat(10.0));
        // log₂ e in two parts
        let n = h.round(h.mul(bounded, h.splat(1.442_382_8)));
        let rest = h.fnma(bounded, h.splat(1.442_382_8), n);
        let rest = h.fnma(bounded, h.splat(3.123_283_4e-4), rest);
        // the polynomial of this degree, with 1 for 0, whose greatest relative error within ±½ is least: 1.0e-4
        let high = h.fma(rest, h.splat(0.055_023_19), h.splat(0.242_187_5));
        let low = h.fma(rest, h.splat(0.693_359_4), h.splat(1.0));
        let e = h.over_power_of_two(h.fma(high, h.mul(rest, rest), low), n);
        let (one, d) = (h.splat(1.0), h.add(h.splat(1.0), e));
        let r = h.about_inverse(d);
        let r = h.fma(r, h.fnma(d, r, one), r);
        let r = h.fma(r, h.fnma(d, r, one), r);
        *y = h.mul(x, r);
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Portable, PortableHalf};
    use half::f16;

    #[test]
    fn silu_in_16_bits_is_as_close_as_it_is_said_to_be() {
        for bits in (0..=u16::MAX).step_by(if cfg!(miri) { 997 } else { 1 }) {
            let x = f16::from_bits(bits);
            let y = silu_halves(PortableHalf, [[x; 8]])[0][0].to_f64();
            if x.is_nan() || x == f16::INFINITY {
                continue;
            }
            let (x, e) = (x.to_f64(), (-x.to_f64()).exp());
            let exact = if e.is_finite() { x / (1.0 + e) } else { 0.0 };
            assert!((y - exact).abs() <= (2.8e-3 * exact.abs()).max(6.1e-4), "{x}: {y}, not {exact}");
        }
    }

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
