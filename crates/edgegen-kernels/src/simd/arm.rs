//! The vectors of 64-bit ARM.

use super::{Dot, Half, INVERSE, Order8, Simd, Source, Vector, Words};
use crate::pointer::Target;
use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;

/// NEON, which every 64-bit ARM CPU has that std runs on.
#[derive(Clone, Copy)]
pub(in super::super) struct Neon(());

impl Neon {
    /// The token, where the CPU's features are known.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn new() -> Self {
        Neon(())
    }
}

impl Vector for Neon {
    const LANES: usize = 4;
    const PIXELS: &'static [usize] = &[8, 8, 7, 5];
    const GROUP: usize = 4;
    type F = float32x4_t;
    type Floats = float32x4_t;
    type Halves = float16x4_t;
    type Bytes = u32;
    type Group = float32x4_t;
    type HalfGroup = float16x4_t;
    type X = float32x4_t;

    with_features! { "neon",
        fn of_floats(floats: float32x4_t) -> float32x4_t { floats }
        fn to_floats(v: float32x4_t) -> float32x4_t { v }
        fn widen_halves(halves: float16x4_t) -> float32x4_t { vcvt_f32_f16(halves) }
        fn narrow_to_halves(v: float32x4_t) -> float16x4_t { vcvt_f16_f32(v) }
        fn widen_bytes(bytes: u32) -> float32x4_t {
            let four = vreinterpret_s8_u32(vdup_n_u32(bytes));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(four))))
        }
        fn splat(v: f32) -> float32x4_t { vdupq_n_f32(v) }
        fn group(group: float32x4_t) -> float32x4_t { group }
        fn one(v: f32) -> float32x4_t { vdupq_n_f32(v) }
        fn group_of_halves(group: float16x4_t) -> float32x4_t { vcvt_f32_f16(group) }
        fn one_half(v: f16) -> float32x4_t { vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(v.to_bits()))) }
        fn fma_lane<const L: usize>(x: float32x4_t, w: float32x4_t, sum: float32x4_t) -> float32x4_t {
            match L {
                0 => vfmaq_laneq_f32::<0>(sum, w, x),
                1 => vfmaq_laneq_f32::<1>(sum, w, x),
                2 => vfmaq_laneq_f32::<2>(sum, w, x),
                _ => vfmaq_laneq_f32::<3>(sum, w, x),
            }
        }
        fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
    }
}

impl Simd for Neon {
    type Words = Self;

    #[inline(always)]
    fn words(self) -> Self {
        self
    }

    with_features! { "neon",
        fn reciprocal(a: float32x4_t) -> float32x4_t { vdivq_f32(vdupq_n_f32(1.0), a) }
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmaxq_f32(a, b) }
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vminq_f32(a, b) }
        fn times_power_of_two(v: float32x4_t, shifted: float32x4_t) -> float32x4_t {
            let n = vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted));
            vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(v), n))
        }
        fn round(v: float32x4_t) -> float32x4_t { vrndnq_f32(v) }
        fn levels(value: float32x4_t, inverse: f32, zero: u8, flip: u8) -> u32 {
            // conversions that saturate bring numbers within the bounds
            let near = vcvtnq_s32_f32(vmulq_f32(value, vdupq_n_f32(inverse)));
            let low = vcombine_s16(vqmovn_s32(near), vcreate_s16(0));
            let bytes = vqmovun_s16(vqaddq_s16(low, vdupq_n_s16(i16::from(zero))));
            vget_lane_u32::<0>(vreinterpret_u32_u8(vadd_u8(bytes, vdup_n_u8(flip))))
        }
    }

    #[inline(always)]
    unsafe fn store_levels<const V: usize>(
        self,
        to: Target<u8>,
        at: usize,
        values: [float32x4_t; V],
        (inverse, zero, flip): (f32, u8, u8),
    ) {
        let (to, (fours, rest)) = (to.skip(at), values.as_chunks::<4>());
        for (i, four) in fours.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.store(16 * i, self.levels_of_four(*four, inverse, zero, flip)) }
        }
        for (v, value) in rest.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.store(16 * fours.len() + 4 * v, self.levels(*value, inverse, zero, flip)) }
        }
    }
}

/// Sums and products of 16 bits (FEAT_FP16).
#[derive(Clone, Copy)]
pub(in super::super) struct NeonHalf(());

impl NeonHalf {
    /// The token, where the CPU's features are known.
    #[inline]
    #[target_feature(enable = "neon,fp16")]
    pub(in super::super) fn new() -> Self {
        NeonHalf(())
    }
}

impl Vector for NeonHalf {
    const LANES: usize = 8;
    const PIXELS: &'static [usize] = &[8, 8, 7, 5];
    const GROUP: usize = 8;
    type F = float16x8_t;
    type Floats = [float32x4_t; 2];
    type Halves = float16x8_t;
    type Bytes = int8x8_t;
    type Group = [float32x4_t; 2];
    type HalfGroup = float16x8_t;
    type X = float16x8_t;

    with_features! { "neon,fp16",
        fn of_floats(floats: [float32x4_t; 2]) -> float16x8_t { vcvt_high_f16_f32(vcvt_f16_f32(floats[0]), floats[1]) }
        fn to_floats(v: float16x8_t) -> [float32x4_t; 2] { [vcvt_f32_f16(vget_low_f16(v)), vcvt_high_f32_f16(v)] }
        fn widen_halves(halves: float16x8_t) -> float16x8_t { halves }
        fn narrow_to_halves(v: float16x8_t) -> float16x8_t { v }
        fn widen_bytes(bytes: int8x8_t) -> float16x8_t { vcvtq_f16_s16(vmovl_s8(bytes)) }
        fn splat(v: f32) -> float16x8_t {
            let four = vcvt_f16_f32(vdupq_n_f32(v));
            vcombine_f16(four, four)
        }
        fn group(group: [float32x4_t; 2]) -> float16x8_t { vcvt_high_f16_f32(vcvt_f16_f32(group[0]), group[1]) }
        fn group_of_halves(group: float16x8_t) -> float16x8_t { group }
        fn one(v: f32) -> float16x8_t {
            let four = vcvt_f16_f32(vdupq_n_f32(v));
            vcombine_f16(four, four)
        }
        fn one_half(v: f16) -> float16x8_t { vreinterpretq_f16_u16(vdupq_n_u16(v.to_bits())) }
        fn fma_lane<const L: usize>(x: float16x8_t, w: float16x8_t, sum: float16x8_t) -> float16x8_t {
            match L {
                0 => vfmaq_laneq_f16::<0>(sum, w, x),
                1 => vfmaq_laneq_f16::<1>(sum, w, x),
                2 => vfmaq_laneq_f16::<2>(sum, w, x),
                3 => vfmaq_laneq_f16::<3>(sum, w, x),
                4 => vfmaq_laneq_f16::<4>(sum, w, x),
                5 => vfmaq_laneq_f16::<5>(sum, w, x),
                6 => vfmaq_laneq_f16::<6>(sum, w, x),
                _ => vfmaq_laneq_f16::<7>(sum, w, x),
            }
        }
        fn fma(a: float16x8_t, b: float16x8_t, c: float16x8_t) -> float16x8_t { vfmaq_f16(c, a, b) }
        fn add(a: float16x8_t, b: float16x8_t) -> float16x8_t { vaddq_f16(a, b) }
        fn sub(a: float16x8_t, b: float16x8_t) -> float16x8_t { vsubq_f16(a, b) }
        fn mul(a: float16x8_t, b: float16x8_t) -> float16x8_t { vmulq_f16(a, b) }
    }
}

impl Half for NeonHalf {
    with_features! { "neon,fp16",
        fn max(a: float16x8_t, b: float16x8_t) -> float16x8_t { vmaxq_f16(a, b) }
        fn min(a: float16x8_t, b: float16x8_t) -> float16x8_t { vminq_f16(a, b) }
        fn round(v: float16x8_t) -> float16x8_t { vrndnq_f16(v) }
        fn fnma(a: float16x8_t, b: float16x8_t, c: float16x8_t) -> float16x8_t { vfmsq_f16(c, a, b) }
        fn about_inverse(v: float16x8_t) -> float16x8_t {
            vreinterpretq_f16_u16(vsubq_u16(vdupq_n_u16(INVERSE), vreinterpretq_u16_f16(v)))
        }
        fn over_power_of_two(v: float16x8_t, n: float16x8_t) -> float16x8_t {
            let n = vshlq_n_s16::<10>(vcvtq_s16_f16(n));
            vreinterpretq_f16_s16(vsubq_s16(vreinterpretq_s16_f16(v), n))
        }
    }
}

impl Neon {
    with_features! { "neon",
        // the levels of four vectors
        fn levels_of_four(values: [float32x4_t; 4], inverse: f32, zero: u8, flip: u8) -> uint8x16_t {
            let inverse = vdupq_n_f32(inverse);
            let zero = vdupq_n_s16(i16::from(zero));
            let [a, b, c, d] = values;
            let low = vqmovn_s32(vcvtnq_s32_f32(vmulq_f32(a, inverse)));
            let low = vqmovn_high_s32(low, vcvtnq_s32_f32(vmulq_f32(b, inverse)));
            let high = vqmovn_s32(vcvtnq_s32_f32(vmulq_f32(c, inverse)));
            let high = vqmovn_high_s32(high, vcvtnq_s32_f32(vmulq_f32(d, inverse)));
            let bytes = vqmovun_high_s16(vqmovun_s16(vqaddq_s16(low, zero)), vqaddq_s16(high, zero));
            vaddq_u8(bytes, vdupq_n_u8(flip))
        }
        // sums plus products of four or eight words and word L of `x`
        fn add_lane<const L: i32>(sum: int32x4_t, x: int16x8_t, w: int16x4_t) -> int32x4_t {
            vmlal_laneq_s16::<L>(sum, w, x)
        }
        fn low_words(w: int16x8_t) -> int16x4_t { vget_low_s16(w) }
        fn add_high_lane<const L: i32>(sum: int32x4_t, x: int16x8_t, w: int16x8_t) -> int32x4_t {
            vmlal_high_laneq_s16::<L>(sum, w, x)
        }
        // words 0 to 3 of a tile's odd last vector
        fn four_words(bits: i64) -> int16x4_t { vreinterpret_s16_s64(vdup_n_s64(bits)) }
        // two rows of eight numbers, the first and the second halves of two vectors
        fn halves(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
            let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
            [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
        }
        fn halves_of_sums(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
            let (a, b) = (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
            [vreinterpretq_s32_s64(vzip1q_s64(a, b)), vreinterpretq_s32_s64(vzip2q_s64(a, b))]
        }
        fn zeros() -> int8x16_t { vdupq_n_s8(0) }
    }
}

/// What every [`Dot`] of signed bytes in NEON's vectors has: four fours of a pixel's numbers at a time.
macro_rules! signed_bytes {
    () => {
        type S = Neon;
        const GROUP: usize = 4;
        const FLIP: u8 = 128;
        type I = int32x4_t;
        type Stored = int8x16_t;
        type W = int8x16_t;
        type Group = int8x16_t;
        type X = int8x16_t;
        with_features! { "neon",
            fn to_float(sums: int32x4_t) -> float32x4_t { vcvtq_f32_s32(sums) }
            fn weights(stored: int8x16_t) -> int8x16_t { stored }
            fn group(group: int8x16_t) -> int8x16_t { group }
        }
    };
}

/// The bytes of four L of a pixel, twice as often as they are multiplied.
const fn pairs(four: u64) -> [u64; 2] {
    let first = 0x0100_0100_0100_0100 + four * 4 * 0x0101_0101_0101_0101;
    [first, first + 2 * 0x0101_0101_0101_0101]
}

/// Multiplies pairs of bytes into 16 bits, adds pairs of those there, and adds the results to the sums in pairs.
/// Two products of bytes fit 16 bits together unless all four are -128: for weights with that there is [`Wide`].
impl Dot for Neon {
    type Wide = Wide;
    const PIXELS: &'static [usize] = &[8, 6, 5, 4];
    const ORDER: Order8 = Order8::Pairs;
    signed_bytes!();

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn wide(self) -> Wide {
        Wide(self)
    }

    with_features! { "neon",
        fn four(bytes: [u8; 4]) -> int8x16_t { vreinterpretq_s8_u32(vdupq_n_u32(u32::from_ne_bytes(bytes))) }
        fn spread<const L: usize>(x: int8x16_t) -> int8x16_t {
            let [low, high] = const { pairs(L as u64) };
            vqtbl1q_s8(x, vcombine_u8(vcreate_u8(low), vcreate_u8(high)))
        }
        fn dot<const L: usize>(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
            let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
            vpadalq_s16(sums, vmlal_high_s8(low, x, w))
        }
    }
}

impl Words for Neon {
    const COUNT: usize = 8;
    const PIXELS_OF_WORDS: &'static [usize] = &[8, 8, 7, 5];
    const PAIR: usize = 1;
    const STEP: usize = 8;
    type Words = int16x8_t;
    type Bytes = uint8x8_t;

    with_features! { "neon",
        fn widen(bytes: uint8x8_t) -> int16x8_t { vmovl_s8(vreinterpret_s8_u8(bytes)) }
        fn add_words(a: int16x8_t, b: int16x8_t) -> int16x8_t { vaddq_s16(a, b) }
        fn sub_words(a: int16x8_t, b: int16x8_t) -> int16x8_t { vsubq_s16(a, b) }
        fn shift_words<const N: i32>(v: int16x8_t) -> int16x8_t { vshlq_n_s16::<N>(v) }
        fn no_sums() -> int32x4_t { vdupq_n_s32(0) }
        fn add_sums(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
        fn sub_sums(a: int32x4_t, b: int32x4_t) -> int32x4_t { vsubq_s32(a, b) }
        fn shift_sums<const N: i32>(v: int32x4_t) -> int32x4_t { vshlq_n_s32::<N>(v) }
        fn shift_sums_down<const N: i32>(v: int32x4_t) -> int32x4_t { vshrq_n_s32::<N>(v) }
        fn multiply_sums(v: int32x4_t, by: i32) -> int32x4_t { vmulq_n_s32(v, by) }
    }

    #[inline(always)]
    unsafe fn add_products<const V: usize, const P: usize>(
        self,
        sums: &mut [[int32x4_t; V]; P],
        weights: Source<i16>,
        from: Source<i16>,
        step: usize,
    ) {
        let mut x = [self.zero_words(); P];
        for (p, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *x = unsafe { from.load(p * step) };
        }
        macro_rules! add_channels {
            // SAFETY: the caller's promise: the weights of eight channels are there.
            ($($l:literal)*) => { $(unsafe { add_channel::<V, P, $l>(self, sums, weights, &x) })* };
        }
        add_channels!(0 1 2 3 4 5 6 7);
    }
}

impl Neon {
    with_features! { "neon",
        fn zero_words() -> int16x8_t { vdupq_n_s16(0) }
    }
}

/// The products of number L of P pixels and weights, to their sums.
///
/// # Safety
/// The weights of channel L must be there.
#[inline(always)]
unsafe fn add_channel<const V: usize, const P: usize, const L: i32>(
    s: Neon,
    sums: &mut [[int32x4_t; V]; P],
    weights: Source<i16>,
    x: &[int16x8_t; P],
) {
    let weights = weights.skip(L as usize * 4 * V);
    // two vectors of output channels at a time, then one that is left
    for pair in 0..V / 2 {
        // SAFETY: the caller's promise.
        let w: int16x8_t = unsafe { weights.load(8 * pair) };
        for (sums, x) in sums.iter_mut().zip(x) {
            sums[2 * pair] = s.add_lane::<L>(sums[2 * pair], *x, s.low_words(w));
            sums[2 * pair + 1] = s.add_high_lane::<L>(sums[2 * pair + 1], *x, w);
        }
    }
    if V % 2 == 1 {
        // SAFETY: the caller's promise.
        let w = s.four_words(unsafe { weights.load(4 * (V - 1)) });
        for (sums, x) in sums.iter_mut().zip(x) {
            sums[V - 1] = s.add_lane::<L>(sums[V - 1], *x, w);
        }
    }
}

/// As [`Neon`], for weights that may be -128.
#[derive(Clone, Copy)]
pub(in super::super) struct Wide(Neon);

impl Dot for Wide {
    type Wide = Wide;
    const PIXELS: &'static [usize] = &[8, 6, 5, 4];
    const ORDER: Order8 = Order8::Pairs;
    signed_bytes!();

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    #[inline(always)]
    fn four(self, bytes: [u8; 4]) -> int8x16_t {
        self.0.four(bytes)
    }

    #[inline(always)]
    fn spread<const L: usize>(self, x: int8x16_t) -> int8x16_t {
        self.0.spread::<L>(x)
    }

    with_features! { "neon",
        fn dot<const L: usize>(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
            let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
            vpadalq_s16(vpadalq_s16(sums, low), vmull_high_s8(x, w))
        }
    }
}

/// The dot-product instructions of ARMv8.2 (FEAT_DotProd). Stable Rust has no intrinsics for them.
#[derive(Clone, Copy)]
pub(in super::super) struct Sdot(Neon);

impl Sdot {
    /// The token, where the CPU's features are known.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub(in super::super) fn new() -> Self {
        Sdot(Neon::new())
    }
}

impl Dot for Sdot {
    type Wide = Sdot;
    const PIXELS: &'static [usize] = &[8, 8, 7, 5];
    signed_bytes!();

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    #[inline(always)]
    fn four(self, bytes: [u8; 4]) -> int8x16_t {
        self.0.four(bytes)
    }

    #[inline(always)]
    fn dot<const L: usize>(self, sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        let mut sums = sums;
        // SAFETY: there is a token, so the CPU has the instruction; it touches no memory.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
                sums = inout(vreg) sums,
                w = in(vreg) w,
                x = in(vreg) x,
                lane = const L,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }
}

/// The matrix products of FEAT_I8MM. Stable Rust has no intrinsics for them.
///
/// Each multiplies eight channels of two pixels with those of two output channels, and adds to four sums. Two vectors of
/// sums of a pair of pixels, one of each pixel, thus become one of both pixels' first two channels and one of their
/// others. An odd last pixel keeps its own: it is multiplied beside zeros.
#[derive(Clone, Copy)]
pub(in super::super) struct I8mm(Neon);

impl I8mm {
    /// The token, where the CPU's features are known.
    #[inline]
    #[target_feature(enable = "neon,i8mm")]
    pub(in super::super) fn new() -> Self {
        I8mm(Neon::new())
    }
}

impl Dot for I8mm {
    type Wide = I8mm;
    const PIXELS: &'static [usize] = &[8, 8, 6, 4];
    const ORDER: Order8 = Order8::Eights;
    signed_bytes!();

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    with_features! { "neon",
        // with zeros after them
        fn four(bytes: [u8; 4]) -> int8x16_t {
            vreinterpretq_s8_u32(vsetq_lane_u32::<0>(u32::from_ne_bytes(bytes), vdupq_n_u32(0)))
        }
    }

    /// Two rows of eight numbers times two others.
    #[inline(always)]
    fn dot<const L: usize>(self, sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        let mut sums = sums;
        // SAFETY: there is a token, so the CPU has the instruction; it touches no memory.
        unsafe {
            asm!(
                "smmla {sums:v}.4s, {x:v}.16b, {w:v}.16b",
                sums = inout(vreg) sums,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }

    #[inline(always)]
    fn pair<const P: usize>(self, x: &mut [int8x16_t; P]) {
        for pair in x.as_chunks_mut::<2>().0 {
            *pair = self.0.halves(pair[0], pair[1]);
        }
    }

    #[inline(always)]
    fn pair_sums<const V: usize, const P: usize>(self, sums: &mut [[int32x4_t; V]; P]) {
        for [first, second] in sums.as_chunks_mut::<2>().0 {
            for (first, second) in first.iter_mut().zip(second) {
                [*first, *second] = self.0.halves_of_sums(*first, *second);
            }
        }
    }

    #[inline(always)]
    fn add<const V: usize, const P: usize, const L: usize>(
        self,
        sums: &mut [[int32x4_t; V]; P],
        x: &[int8x16_t; P],
        w: &[int8x16_t; V],
    ) {
        let (pairs, last) = sums.as_chunks_mut::<2>();
        for (sums, x) in pairs.iter_mut().zip(x.as_chunks::<2>().0) {
            for (sum, w) in sums[L % 2].iter_mut().zip(w) {
                *sum = self.dot::<L>(*sum, x[L / 2], *w);
            }
        }
        for sums in last {
            let zero = self.0.zeros();
            let x = if L.is_multiple_of(2) { self.0.halves(x[P - 1], zero) } else { self.0.halves(zero, x[P - 1]) };
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = self.dot::<L>(*sum, x[L / 2], *w);
            }
        }
    }
}
