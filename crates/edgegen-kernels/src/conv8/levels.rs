//! The levels that numbers are rounded to.

use crate::pointer::Target;
use crate::simd::{Dot, Simd, Vector, WIDEST};

/// Where levels lie: a value is `(level - zero) · scale`, levels are from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantParams {
    pub(super) scale: f32,
    pub(super) zero_point: u8,
}

impl QuantParams {
    /// QuantParams `scale` from one another, of which `zero_point` is that of 0; none if the scale or its reciprocal is 0, or is not a
    /// finite number.
    pub fn new(scale: f32, zero_point: u8) -> Option<Self> {
        let usable = |v: f32| v != 0.0 && v.is_finite();
        (usable(scale) && usable(1.0 / scale)).then_some(QuantParams { scale, zero_point })
    }

    /// The distance of two levels.
    pub fn scale(self) -> f32 {
        self.scale
    }

    /// The level of 0.
    pub fn zero_point(self) -> u8 {
        self.zero_point
    }

    /// Values rounded to levels.
    #[inline(always)]
    pub(crate) fn round_all<S: Simd>(self, s: S, value: S::F) -> S::F {
        let low = -f32::from(self.zero_point);
        // between whole bounds, rounding is the same before and after clamping
        let level = s.max(s.mul(value, s.splat(1.0 / self.scale)), s.splat(low));
        s.mul(s.round(s.min(level, s.splat(255.0 + low))), s.splat(self.scale))
    }

    /// Vectors of values as levels, in the form that `D` reads, to where they lie from `at` on.
    ///
    /// # Safety
    /// There must be room, which no other thread reads or writes.
    #[inline(always)]
    pub(crate) unsafe fn store<D: Dot, const V: usize>(
        self,
        d: D,
        to: Target<u8>,
        at: usize,
        values: [<D::S as Vector>::F; V],
    ) {
        // SAFETY: the caller's promise.
        unsafe { d.simd().store_levels(to, at, values, (1.0 / self.scale, self.zero_point, D::FLIP)) }
    }

    /// As [`store`](Self::store), for the first `n` < `LANES` values.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(crate) unsafe fn store_part<D: Dot>(
        self,
        d: D,
        to: Target<u8>,
        at: usize,
        value: <D::S as Vector>::F,
        n: usize,
    ) {
        let mut whole = [0; WIDEST];
        // SAFETY: no vector is wider.
        unsafe { self.store(d, Target::of(&mut whole), 0, [value]) };
        for (i, v) in whole.iter().enumerate().take(n) {
            // SAFETY: the caller's promise.
            unsafe { to.store(at + i, *v) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn levels_are_the_nearest_ones() {
        for zero in [0, 1, 77, 128, 254, 255] {
            let levels = QuantParams::new(0.25, zero).unwrap();
            let check = |value: f32| {
                let level = ((value * 4.0).round_ties_even() + f32::from(zero)).clamp(0.0, 255.0);
                let mut bytes = [0; 4];
                // SAFETY: a vector has four numbers.
                unsafe { levels.store(Portable, Target::of(&mut bytes), 0, [[value; 4]]) };
                let rounded = levels.round_all(Portable, [value; 4]);
                assert_eq!(bytes, [level as u8; 4], "{zero} {value}");
                assert_eq!(rounded, [(level - f32::from(zero)) * 0.25; 4], "{zero} {value}");
            };
            // halves and quarters of a level, far beyond both ends
            let step = if cfg!(miri) { 10_001 } else { 1 };
            (-100_000..100_000).step_by(step).for_each(|i| check(i as f32 / 64.0));
            [f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE].into_iter().for_each(check);
        }
    }
}
