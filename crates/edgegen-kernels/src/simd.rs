//! Vectors of each kind of CPU, behind three traits, so that a kernel is written once.

use half::f16;

/// 1.5 · 2²³: adding it to a number of less than 2²² rounds it to an integer, ties to even, kept in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// The most numbers that a vector holds, so that what is a multiple of this is one of whole vectors of every kind.
pub(super) const WIDEST: usize = 16;

/// Functions of one expression, each inlined into an entry point that enables the CPU's features.
macro_rules! inlined {
    ($($(#[$doc:meta])* fn $name:ident $(<const $n:ident: $of:ty>)? ($($arg:ident: $t:ty),*) $(-> $result:ty)? { $body:expr })*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            unsafe fn $name $(<const $n: $of>)? ($($arg: $t),*) $(-> $result)? {
                // SAFETY: the caller's promise, passed on.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }
        )*
    };
}

pub(super) use inlined;

/// A vector of `LANES` f32. Every function is inlined into an entry point that enables the CPU feature.
///
/// # Safety
/// Of every function: the CPU must have the feature. Pointers must be good for what is said of them.
pub(super) trait Simd: Copy {
    const LANES: usize;
    /// The pixels that a convolution's tile of 1, 2, … vectors of output channels may have without spilling registers.
    const PIXELS: &'static [usize];
    /// Numbers of a pixel that are loaded together and then multiplied one by one: 1, or 4 where an instruction
    /// multiplies with one lane of a vector.
    const GROUP: usize;
    type F: Copy;
    /// `GROUP` numbers of a pixel, ready to be multiplied with vectors.
    type X: Copy;
    /// What this kind of CPU multiplies words with.
    type Words: Words;

    /// `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self::F;
    /// `LANES` numbers of 16 bits.
    unsafe fn load_f16(from: *const f16) -> Self::F;
    /// `LANES` whole numbers of 8 bits.
    unsafe fn load_i8(from: *const i8) -> Self::F;
    /// To `LANES` numbers.
    unsafe fn store(to: *mut f32, v: Self::F);
    /// The same number in every lane.
    unsafe fn splat(v: f32) -> Self::F;
    /// `GROUP` numbers of a pixel.
    unsafe fn group(from: *const f32) -> Self::X;
    /// One number of a pixel, for `fma_lane` of lane 0 alone.
    unsafe fn one(from: *const f32) -> Self::X;
    /// `x[L] · w + sum`.
    unsafe fn fma_lane<const L: usize>(x: Self::X, w: Self::F, sum: Self::F) -> Self::F;
    /// `a · b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `1 / a`, correctly rounded, for a from 1 to 2¹²⁶.
    unsafe fn reciprocal(a: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// v · 2ⁿ of n + [`ROUND`], where v and the result are normal numbers.
    unsafe fn times_power_of_two(v: Self::F, shifted: Self::F) -> Self::F;
    /// `values · inverse`, rounded to the nearest integer, ties to even, plus `zero`, within 0 to 255, plus `flip` modulo
    /// 256, to a byte each.
    unsafe fn store_levels<const V: usize>(to: *mut u8, values: [Self::F; V], inverse: f32, zero: u8, flip: u8);

    /// Asks for the cache line of an address, which need not be valid, if that is worth it on this kind of CPU.
    #[inline(always)]
    fn prefetch<T>(_: *const T) {}
    /// The nearest integer, ties to even, for numbers of less than 2²².
    #[inline(always)]
    unsafe fn round(v: Self::F) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { Self::sub(Self::add(v, Self::splat(ROUND)), Self::splat(ROUND)) }
    }
    /// The first `n` < `LANES` numbers, with zeros after them.
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self::F {
        let mut whole = [0f32; 16];
        // SAFETY: the caller's promise; a vector has at most 16 lanes.
        unsafe {
            for (i, v) in whole.iter_mut().enumerate().take(n.min(Self::LANES)) {
                *v = *from.add(i);
            }
            Self::load(whole.as_ptr())
        }
    }
    /// To the first `n` < `LANES` numbers.
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, v: Self::F, n: usize) {
        let mut whole = [0f32; 16];
        // SAFETY: as above.
        unsafe {
            Self::store(whole.as_mut_ptr(), v);
            for (i, v) in whole.iter().enumerate().take(n.min(Self::LANES)) {
                *to.add(i) = *v;
            }
        }
    }
}

/// `value · inverse` within -`zero` and 255 - `zero`, plus [`ROUND`]: the low byte of its bits plus `zero` is its level.
/// Between whole bounds, rounding is the same before and after clamping.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
unsafe fn level<S: Simd>(value: S::F, inverse: f32, zero: u8) -> S::F {
    let low = -f32::from(zero);
    // SAFETY: the caller's promise.
    unsafe {
        let bounded = S::min(S::max(S::mul(value, S::splat(inverse)), S::splat(low)), S::splat(255.0 + low));
        S::add(bounded, S::splat(ROUND))
    }
}

/// How the weights of a vector of output channels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order8 {
    /// Four input channels of each lane.
    Fours,
    /// Pairs of four input channels: the first ones of all lanes before the second ones.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    Pairs,
    /// Eight input channels of each lane, with zeros for those that are not there. Vectors are of four lanes; what a vector's
    /// room holds is of two. Of sixteen channels, the first eight come first; what is left comes four at a time.
    Eights,
}

/// Sums of products of 8-bit numbers of pixels and of weights, four at a time in each 32-bit lane.
///
/// # Safety
/// As [`Simd`]'s.
pub(super) trait Dot: Copy {
    /// The vectors of f32 with as many lanes.
    type S: Simd;
    /// What multiplies with weights of -128, where this cannot.
    type Wide: Dot;
    const LANES: usize = Self::S::LANES;
    /// As [`Simd::PIXELS`].
    const PIXELS: &'static [usize];
    /// Fours of a pixel's numbers that are loaded together and then multiplied one by one.
    const GROUP: usize;
    /// What is added to a level, modulo 256, where it is stored: 128 makes signed numbers of levels, for instructions
    /// that multiply those.
    const FLIP: u8;
    /// How weights lie.
    const ORDER: Order8 = Order8::Fours;
    /// Sums, weights, and `GROUP` fours of numbers of a pixel.
    type I: Copy;
    type W: Copy;
    type X: Copy;
    /// `LANES` sums.
    unsafe fn load_sums(from: *const i32) -> Self::I;
    /// The sums as f32.
    unsafe fn to_float(sums: Self::I) -> <Self::S as Simd>::F;
    /// Four bytes a lane.
    unsafe fn load_weights(from: *const i8) -> Self::W;
    /// `4 · GROUP` bytes of a pixel.
    unsafe fn group(from: *const u8) -> Self::X;
    /// Four bytes of a pixel, for `dot` of four 0 alone.
    unsafe fn four(from: *const u8) -> Self::X;
    /// What `dot` multiplies with for four L.
    #[inline(always)]
    unsafe fn spread<const L: usize>(x: Self::X) -> Self::X {
        x
    }
    /// `sums` plus the products of four L of `x`, which has been [spread](Self::spread), and `w`.
    unsafe fn dot<const L: usize>(sums: Self::I, x: Self::X, w: Self::W) -> Self::I;
    /// Brings numbers of P pixels into the form that [`add`](Self::add) takes.
    #[inline(always)]
    unsafe fn pair<const P: usize>(_: &mut [Self::X; P]) {}
    /// Brings sums of P pixels into the form that [`add`](Self::add) adds to, and back.
    #[inline(always)]
    unsafe fn pair_sums<const V: usize, const P: usize>(_: &mut [[Self::I; V]; P]) {}
    /// The products of four L of P pixels and weights, to their sums.
    #[inline(always)]
    unsafe fn add<const V: usize, const P: usize, const L: usize>(
        sums: &mut [[Self::I; V]; P],
        x: &[Self::X; P],
        w: &[Self::W; V],
    ) {
        for (sums, x) in sums.iter_mut().zip(x) {
            // SAFETY: the caller's promise.
            unsafe {
                let x = Self::spread::<L>(*x);
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = Self::dot::<L>(*sum, x, *w);
                }
            }
        }
    }
}

/// Sums of products of 16-bit numbers. They wrap, as do sums and differences.
///
/// # Safety
/// As [`Simd`]'s.
pub(super) trait Words: Dot {
    /// Words in a vector of them.
    const COUNT: usize;
    /// As [`Simd::PIXELS`].
    const PIXELS_OF_WORDS: &'static [usize];
    /// Input channels whose weights lie together for each lane.
    const PAIR: usize;
    /// Input channels that are multiplied at a time.
    const STEP: usize;
    type Words: Copy;
    /// `COUNT` bytes of a picture, of the sign that they have there.
    unsafe fn widen(from: *const u8) -> Self::Words;
    unsafe fn store_words(to: *mut i16, v: Self::Words);
    unsafe fn add_words(a: Self::Words, b: Self::Words) -> Self::Words;
    unsafe fn sub_words(a: Self::Words, b: Self::Words) -> Self::Words;
    /// `v · 2ᴺ`.
    unsafe fn shift_words<const N: i32>(v: Self::Words) -> Self::Words;
    unsafe fn no_sums() -> Self::I;
    unsafe fn store_sums(to: *mut i32, v: Self::I);
    unsafe fn add_sums(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn sub_sums(a: Self::I, b: Self::I) -> Self::I;
    /// `v · 2ᴺ`.
    unsafe fn shift_sums<const N: i32>(v: Self::I) -> Self::I;
    /// `v / 2ᴺ`, rounded down.
    unsafe fn shift_sums_down<const N: i32>(v: Self::I) -> Self::I;
    unsafe fn multiply_sums(v: Self::I, by: i32) -> Self::I;
    /// The products of `STEP` numbers of P pixels, `step` from one another, and weights of V vectors of output channels,
    /// to their sums.
    unsafe fn add_products<const V: usize, const P: usize>(
        sums: &mut [[Self::I; V]; P],
        weights: *const i16,
        from: *const i16,
        step: usize,
    );
}

/// Any CPU: four numbers at a time, which compilers turn into the vectors that every CPU of the target has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

// SAFETY of every body: the caller's promise.
impl Simd for Portable {
    const LANES: usize = 4;
    const PIXELS: &'static [usize] = &[4, 4];
    const GROUP: usize = 1;
    type F = [f32; 4];
    type X = f32;
    type Words = Self;
    inlined! {
        fn load(from: *const f32) -> [f32; 4] { from.cast::<[f32; 4]>().read_unaligned() }
        fn load_f16(from: *const f16) -> [f32; 4] { from.cast::<[f16; 4]>().read_unaligned().map(f16::to_f32) }
        fn load_i8(from: *const i8) -> [f32; 4] { from.cast::<[i8; 4]>().read_unaligned().map(f32::from) }
        fn store(to: *mut f32, v: [f32; 4]) { to.cast::<[f32; 4]>().write_unaligned(v) }
        fn splat(v: f32) -> [f32; 4] { [v; 4] }
        fn group(from: *const f32) -> f32 { *from }
        fn one(from: *const f32) -> f32 { *from }
        fn fma_lane<const L: usize>(x: f32, w: [f32; 4], sum: [f32; 4]) -> [f32; 4] {
            std::array::from_fn(|i| x * w[i] + sum[i])
        }
        fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| a[i] * b[i] + c[i]) }
        fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| a[i] + b[i]) }
        fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| a[i] - b[i]) }
        fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| a[i] * b[i]) }
        fn reciprocal(a: [f32; 4]) -> [f32; 4] { a.map(|a| 1.0 / a) }
        fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] }) }
        fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] }) }
        fn times_power_of_two(v: [f32; 4], shifted: [f32; 4]) -> [f32; 4] {
            std::array::from_fn(|i| f32::from_bits(v[i].to_bits().wrapping_add(shifted[i].to_bits() << 23)))
        }
    }
    #[inline(always)]
    unsafe fn store_levels<const V: usize>(to: *mut u8, values: [[f32; 4]; V], inverse: f32, zero: u8, flip: u8) {
        for (v, value) in values.into_iter().enumerate() {
            unsafe {
                let shifted = level::<Self>(value, inverse, zero);
                let bytes = shifted.map(|v| (v.to_bits() as u8).wrapping_add(zero).wrapping_add(flip));
                to.add(4 * v).cast::<[u8; 4]>().write_unaligned(bytes);
            }
        }
    }
}

// SAFETY of every body: the caller's promise.
impl Dot for Portable {
    type S = Portable;
    type Wide = Self;
    const PIXELS: &'static [usize] = &[4, 4];
    const GROUP: usize = 1;
    const FLIP: u8 = 0;
    type I = [i32; 4];
    type W = [[i8; 4]; 4];
    type X = [u8; 4];
    inlined! {
        fn load_sums(from: *const i32) -> [i32; 4] { from.cast::<[i32; 4]>().read_unaligned() }
        fn to_float(sums: [i32; 4]) -> [f32; 4] { sums.map(|v| v as f32) }
        fn load_weights(from: *const i8) -> [[i8; 4]; 4] { from.cast::<[[i8; 4]; 4]>().read_unaligned() }
        fn group(from: *const u8) -> [u8; 4] { from.cast::<[u8; 4]>().read_unaligned() }
        fn four(from: *const u8) -> [u8; 4] { from.cast::<[u8; 4]>().read_unaligned() }
        fn dot<const L: usize>(sums: [i32; 4], x: [u8; 4], w: [[i8; 4]; 4]) -> [i32; 4] {
            std::array::from_fn(|i| sums[i] + (0..4).map(|k| i32::from(x[k]) * i32::from(w[i][k])).sum::<i32>())
        }
    }
}

// SAFETY of every body: the caller's promise.
impl Words for Portable {
    const COUNT: usize = 8;
    const PIXELS_OF_WORDS: &'static [usize] = &[4, 4];
    const PAIR: usize = 2;
    const STEP: usize = 2;
    type Words = [i16; 8];
    inlined! {
        fn widen(from: *const u8) -> [i16; 8] { from.cast::<[u8; 8]>().read_unaligned().map(i16::from) }
        fn store_words(to: *mut i16, v: [i16; 8]) { to.cast::<[i16; 8]>().write_unaligned(v) }
        fn add_words(a: [i16; 8], b: [i16; 8]) -> [i16; 8] { std::array::from_fn(|i| a[i].wrapping_add(b[i])) }
        fn sub_words(a: [i16; 8], b: [i16; 8]) -> [i16; 8] { std::array::from_fn(|i| a[i].wrapping_sub(b[i])) }
        fn shift_words<const N: i32>(v: [i16; 8]) -> [i16; 8] { v.map(|v| v << N) }
        fn no_sums() -> [i32; 4] { [0; 4] }
        fn store_sums(to: *mut i32, v: [i32; 4]) { to.cast::<[i32; 4]>().write_unaligned(v) }
        fn add_sums(a: [i32; 4], b: [i32; 4]) -> [i32; 4] { std::array::from_fn(|i| a[i].wrapping_add(b[i])) }
        fn sub_sums(a: [i32; 4], b: [i32; 4]) -> [i32; 4] { std::array::from_fn(|i| a[i].wrapping_sub(b[i])) }
        fn shift_sums<const N: i32>(v: [i32; 4]) -> [i32; 4] { v.map(|v| v << N) }
        fn shift_sums_down<const N: i32>(v: [i32; 4]) -> [i32; 4] { v.map(|v| v >> N) }
        fn multiply_sums(v: [i32; 4], by: i32) -> [i32; 4] { v.map(|v| v.wrapping_mul(by)) }
    }
    #[inline(always)]
    unsafe fn add_products<const V: usize, const P: usize>(
        sums: &mut [[[i32; 4]; V]; P],
        weights: *const i16,
        from: *const i16,
        step: usize,
    ) {
        for (p, sums) in sums.iter_mut().enumerate() {
            unsafe {
                let x = from.add(p * step).cast::<[i16; 2]>().read_unaligned().map(i32::from);
                for (v, sum) in sums.iter_mut().enumerate() {
                    let w = weights.add(8 * v).cast::<[[i16; 2]; 4]>().read_unaligned();
                    *sum = std::array::from_fn(|i| {
                        sum[i].wrapping_add(x[0] * i32::from(w[i][0])).wrapping_add(x[1] * i32::from(w[i][1]))
                    });
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, AvxVnni, Vnni};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Dot, Simd, Words, level};
    use half::f16;
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512;

    // SAFETY of every body: the caller's promise, passed on to the intrinsic.
    impl Simd for Avx512 {
        const LANES: usize = 16;
        const PIXELS: &'static [usize] = &[8, 8, 8];
        const GROUP: usize = 1;
        type F = __m512;
        type X = __m512;
        type Words = Avx2;
        inlined! {
            fn load(from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
            fn load_f16(from: *const f16) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
            fn load_i8(from: *const i8) -> __m512 {
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))
            }
            fn store(to: *mut f32, v: __m512) { _mm512_storeu_ps(to, v) }
            fn splat(v: f32) -> __m512 { _mm512_set1_ps(v) }
            fn group(from: *const f32) -> __m512 { _mm512_set1_ps(*from) }
            fn one(from: *const f32) -> __m512 { _mm512_set1_ps(*from) }
            fn fma_lane<const L: usize>(x: __m512, w: __m512, sum: __m512) -> __m512 { _mm512_fmadd_ps(x, w, sum) }
            fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
            fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
            fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
            fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn reciprocal(a: __m512) -> __m512 {
            // A step of Newton's method doubles the 14 bits that are right; after the second one the result is that
            // of a division, which takes three times as long.
            unsafe {
                let step = |r| _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0)), r);
                step(step(_mm512_rcp14_ps(a)))
            }
        }
        inlined! {
            fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
            fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn times_power_of_two(v: __m512, shifted: __m512) -> __m512 {
            unsafe {
                let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
                _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), n))
            }
        }
        #[inline(always)]
        unsafe fn store_levels<const V: usize>(to: *mut u8, values: [__m512; V], inverse: f32, zero: u8, flip: u8) {
            for (v, value) in values.into_iter().enumerate() {
                unsafe {
                    let bits = _mm512_castps_si512(level::<Self>(value, inverse, zero));
                    let bits = _mm512_add_epi32(bits, _mm512_set1_epi32(i32::from(zero.wrapping_add(flip))));
                    _mm_storeu_si128(to.add(16 * v).cast(), _mm512_cvtepi32_epi8(bits));
                }
            }
        }
        #[inline(always)]
        fn prefetch<T>(at: *const T) {
            // SAFETY: every x86-64 CPU has the instruction, which does not fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
        inlined! {
            fn load_part(from: *const f32, n: usize) -> __m512 {
                _mm512_maskz_loadu_ps((1u16 << n).wrapping_sub(1), from)
            }
            fn store_part(to: *mut f32, v: __m512, n: usize) {
                _mm512_mask_storeu_ps(to, (1u16 << n).wrapping_sub(1), v)
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2;

    // SAFETY of every body: the caller's promise, passed on to the intrinsic.
    impl Simd for Avx2 {
        const LANES: usize = 8;
        const PIXELS: &'static [usize] = &[8, 6];
        const GROUP: usize = 1;
        type F = __m256;
        type X = __m256;
        type Words = Self;
        inlined! {
            fn load(from: *const f32) -> __m256 { _mm256_loadu_ps(from) }
            fn load_f16(from: *const f16) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
            fn load_i8(from: *const i8) -> __m256 {
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())))
            }
            fn store(to: *mut f32, v: __m256) { _mm256_storeu_ps(to, v) }
            fn splat(v: f32) -> __m256 { _mm256_set1_ps(v) }
            fn group(from: *const f32) -> __m256 { _mm256_set1_ps(*from) }
            fn one(from: *const f32) -> __m256 { _mm256_set1_ps(*from) }
            fn fma_lane<const L: usize>(x: __m256, w: __m256, sum: __m256) -> __m256 { _mm256_fmadd_ps(x, w, sum) }
            fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
            fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
            fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
            fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
            fn reciprocal(a: __m256) -> __m256 { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
            fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
            fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn times_power_of_two(v: __m256, shifted: __m256) -> __m256 {
            unsafe {
                let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), n))
            }
        }
        #[inline(always)]
        fn prefetch<T>(at: *const T) {
            // SAFETY: every x86-64 CPU has the instruction, which does not fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
        #[inline(always)]
        unsafe fn store_levels<const V: usize>(to: *mut u8, values: [__m256; V], inverse: f32, zero: u8, flip: u8) {
            for (v, value) in values.into_iter().enumerate() {
                unsafe {
                    let bits = _mm256_castps_si256(level::<Self>(value, inverse, zero));
                    let bits = _mm256_add_epi32(bits, _mm256_set1_epi32(i32::from(zero.wrapping_add(flip))));
                    let bits = _mm256_and_si256(bits, _mm256_set1_epi32(255));
                    let words = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits));
                    _mm_storel_epi64(to.add(8 * v).cast(), _mm_packus_epi16(words, words));
                }
            }
        }
    }

    /// AVX-512 with VNNI.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Vnni;

    // SAFETY of every body: the caller's promise, passed on to the intrinsic.
    impl Dot for Vnni {
        type S = Avx512;
        type Wide = Self;
        const PIXELS: &'static [usize] = &[8, 8, 8];
        const GROUP: usize = 1;
        const FLIP: u8 = 0;
        type I = __m512i;
        type W = __m512i;
        type X = __m512i;
        inlined! {
            fn load_sums(from: *const i32) -> __m512i { _mm512_loadu_si512(from.cast()) }
            fn to_float(sums: __m512i) -> __m512 { _mm512_cvtepi32_ps(sums) }
            fn load_weights(from: *const i8) -> __m512i { _mm512_loadu_si512(from.cast()) }
            fn group(from: *const u8) -> __m512i { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
            fn four(from: *const u8) -> __m512i { Self::group(from) }
            fn dot<const L: usize>(sums: __m512i, x: __m512i, w: __m512i) -> __m512i { _mm512_dpbusd_epi32(sums, x, w) }
        }
    }

    /// AVX2 with VNNI.
    #[derive(Clone, Copy)]
    pub(in super::super) struct AvxVnni;

    // SAFETY of every body: the caller's promise, passed on to the intrinsic.
    impl Dot for AvxVnni {
        type S = Avx2;
        type Wide = Self;
        const PIXELS: &'static [usize] = &[8, 6];
        const GROUP: usize = 1;
        const FLIP: u8 = 0;
        type I = __m256i;
        type W = __m256i;
        type X = __m256i;
        inlined! {
            fn load_sums(from: *const i32) -> __m256i { _mm256_loadu_si256(from.cast()) }
            fn to_float(sums: __m256i) -> __m256 { _mm256_cvtepi32_ps(sums) }
            fn load_weights(from: *const i8) -> __m256i { _mm256_loadu_si256(from.cast()) }
            fn group(from: *const u8) -> __m256i { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
            fn four(from: *const u8) -> __m256i { Self::group(from) }
            fn dot<const L: usize>(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
                _mm256_dpbusd_avx_epi32(sums, x, w)
            }
        }
    }

    // SAFETY of every body: the caller's promise, passed on to the intrinsic. The even and the odd bytes are
    // multiplied as 16-bit numbers, since `maddubs` saturates.
    impl Dot for Avx2 {
        type S = Avx2;
        type Wide = Self;
        const PIXELS: &'static [usize] = &[4, 4];
        const GROUP: usize = 1;
        const FLIP: u8 = 0;
        type I = __m256i;
        type W = [__m256i; 2];
        type X = [__m256i; 2];
        inlined! {
            fn load_sums(from: *const i32) -> __m256i { _mm256_loadu_si256(from.cast()) }
            fn to_float(sums: __m256i) -> __m256 { _mm256_cvtepi32_ps(sums) }
        }
        #[inline(always)]
        unsafe fn load_weights(from: *const i8) -> [__m256i; 2] {
            unsafe {
                let w = _mm256_loadu_si256(from.cast());
                [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w)]
            }
        }
        #[inline(always)]
        unsafe fn group(from: *const u8) -> [__m256i; 2] {
            unsafe {
                let x = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
                [_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x)]
            }
        }
        #[inline(always)]
        unsafe fn four(from: *const u8) -> [__m256i; 2] {
            unsafe { <Self as Dot>::group(from) }
        }
        #[inline(always)]
        unsafe fn dot<const L: usize>(sums: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
            unsafe {
                let even = _mm256_madd_epi16(x[0], w[0]);
                let odd = _mm256_madd_epi16(x[1], w[1]);
                _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
            }
        }
    }

    // SAFETY of every body: the caller's promise, passed on to the intrinsic.
    impl Words for Avx2 {
        const COUNT: usize = 16;
        const PIXELS_OF_WORDS: &'static [usize] = &[8, 6];
        const PAIR: usize = 2;
        const STEP: usize = 2;
        type Words = __m256i;
        inlined! {
            fn widen(from: *const u8) -> __m256i { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
            fn store_words(to: *mut i16, v: __m256i) { _mm256_storeu_si256(to.cast(), v) }
            fn add_words(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi16(a, b) }
            fn sub_words(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi16(a, b) }
            fn shift_words<const N: i32>(v: __m256i) -> __m256i { _mm256_slli_epi16::<N>(v) }
            fn no_sums() -> __m256i { _mm256_setzero_si256() }
            fn store_sums(to: *mut i32, v: __m256i) { _mm256_storeu_si256(to.cast(), v) }
            fn add_sums(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
            fn sub_sums(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
            fn shift_sums<const N: i32>(v: __m256i) -> __m256i { _mm256_slli_epi32::<N>(v) }
            fn shift_sums_down<const N: i32>(v: __m256i) -> __m256i { _mm256_srai_epi32::<N>(v) }
            fn multiply_sums(v: __m256i, by: i32) -> __m256i { _mm256_mullo_epi32(v, _mm256_set1_epi32(by)) }
        }
        #[inline(always)]
        unsafe fn add_products<const V: usize, const P: usize>(
            sums: &mut [[__m256i; V]; P],
            weights: *const i16,
            from: *const i16,
            step: usize,
        ) {
            unsafe {
                let mut w = [_mm256_loadu_si256(weights.cast()); V];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = _mm256_loadu_si256(weights.add(16 * v).cast());
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_epi32(from.add(p * step).cast::<i32>().read_unaligned());
                    for (sum, w) in sums.iter_mut().zip(&w) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, *w));
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) use arm::{I8mm, Neon, Sdot};

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Dot, Order8, Simd, Words};
    use half::f16;
    use std::arch::aarch64::*;
    use std::arch::asm;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Neon;

    // SAFETY of every body: every 64-bit ARM CPU has NEON; pointers are the caller's promise.
    impl Simd for Neon {
        const LANES: usize = 4;
        const PIXELS: &'static [usize] = &[8, 8, 7, 5];
        const GROUP: usize = 4;
        type F = float32x4_t;
        type X = float32x4_t;
        type Words = Self;
        #[inline(always)]
        unsafe fn load(from: *const f32) -> float32x4_t {
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const f16) -> float32x4_t {
            // every 64-bit ARM CPU converts them; stable Rust has no intrinsic for it
            let wide: float32x4_t;
            unsafe {
                asm!(
                    "fcvtl {wide:v}.4s, {narrow:v}.4h",
                    wide = lateout(vreg) wide,
                    narrow = in(vreg) vld1_u16(from.cast()),
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            wide
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> float32x4_t {
            unsafe {
                let four = vreinterpret_s8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(four))))
            }
        }
        inlined! {
            fn store(to: *mut f32, v: float32x4_t) { vst1q_f32(to, v) }
            fn splat(v: f32) -> float32x4_t { vdupq_n_f32(v) }
            fn group(from: *const f32) -> float32x4_t { vld1q_f32(from) }
            fn one(from: *const f32) -> float32x4_t { vld1q_dup_f32(from) }
        }
        #[inline(always)]
        unsafe fn fma_lane<const L: usize>(x: float32x4_t, w: float32x4_t, sum: float32x4_t) -> float32x4_t {
            unsafe {
                match L {
                    0 => vfmaq_laneq_f32::<0>(sum, w, x),
                    1 => vfmaq_laneq_f32::<1>(sum, w, x),
                    2 => vfmaq_laneq_f32::<2>(sum, w, x),
                    _ => vfmaq_laneq_f32::<3>(sum, w, x),
                }
            }
        }
        inlined! {
            fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
            fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
            fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
            fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
            fn reciprocal(a: float32x4_t) -> float32x4_t { vdivq_f32(vdupq_n_f32(1.0), a) }
            fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmaxq_f32(a, b) }
            fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vminq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn times_power_of_two(v: float32x4_t, shifted: float32x4_t) -> float32x4_t {
            unsafe {
                let n = vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted));
                vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(v), n))
            }
        }
        #[inline(always)]
        unsafe fn round(v: float32x4_t) -> float32x4_t {
            unsafe { vrndnq_f32(v) }
        }
        #[inline(always)]
        unsafe fn store_levels<const V: usize>(
            to: *mut u8,
            values: [float32x4_t; V],
            inverse: f32,
            zero: u8,
            flip: u8,
        ) {
            // SAFETY of the closures too: the caller's promise. Conversions that saturate bring numbers within the bounds.
            unsafe {
                let near = |v: float32x4_t| vcvtnq_s32_f32(vmulq_f32(v, vdupq_n_f32(inverse)));
                let zero = vdupq_n_s16(i16::from(zero));
                let mut v = 0;
                while v + 4 <= V {
                    let low = vqmovn_high_s32(vqmovn_s32(near(values[v])), near(values[v + 1]));
                    let high = vqmovn_high_s32(vqmovn_s32(near(values[v + 2])), near(values[v + 3]));
                    let bytes = vqmovun_high_s16(vqmovun_s16(vqaddq_s16(low, zero)), vqaddq_s16(high, zero));
                    vst1q_u8(to.add(4 * v), vaddq_u8(bytes, vdupq_n_u8(flip)));
                    v += 4;
                }
                while v < V {
                    let low = vcombine_s16(vqmovn_s32(near(values[v])), vcreate_s16(0));
                    let bytes = vadd_u8(vqmovun_s16(vqaddq_s16(low, zero)), vdup_n_u8(flip));
                    to.add(4 * v).cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
                    v += 1;
                }
            }
        }
    }

    /// What every [`Dot`] of signed bytes in NEON's vectors has: four fours of a pixel's numbers at a time.
    macro_rules! signed_bytes {
        () => {
            type S = Neon;
            const GROUP: usize = 4;
            const FLIP: u8 = 128;
            type I = int32x4_t;
            type W = int8x16_t;
            type X = int8x16_t;
            inlined! {
                fn load_sums(from: *const i32) -> int32x4_t { vld1q_s32(from) }
                fn to_float(sums: int32x4_t) -> float32x4_t { vcvtq_f32_s32(sums) }
                fn load_weights(from: *const i8) -> int8x16_t { vld1q_s8(from) }
                fn group(from: *const u8) -> int8x16_t { vld1q_s8(from.cast()) }
            }
        };
    }

    /// Multiplies pairs of bytes into 16 bits, adds pairs of those there, and adds the results to the sums in pairs.
    /// Two products of bytes fit 16 bits together unless all four are -128: for weights with that there is [`Wide`].
    impl Dot for Neon {
        type Wide = Wide;
        const PIXELS: &'static [usize] = &[8, 6, 5, 4];
        const ORDER: Order8 = Order8::Pairs;
        signed_bytes!();
        #[inline(always)]
        unsafe fn four(from: *const u8) -> int8x16_t {
            unsafe { vreinterpretq_s8_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned())) }
        }
        #[inline(always)]
        unsafe fn spread<const L: usize>(x: int8x16_t) -> int8x16_t {
            const fn pairs(four: u64) -> [u64; 2] {
                let first = 0x0100_0100_0100_0100 + four * 4 * 0x0101_0101_0101_0101;
                [first, first + 2 * 0x0101_0101_0101_0101]
            }
            unsafe {
                let at: [u64; 2] = const { pairs(L as u64) };
                vqtbl1q_s8(x, vld1q_u8(at.as_ptr().cast()))
            }
        }
        #[inline(always)]
        unsafe fn dot<const L: usize>(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
            unsafe {
                let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
                let both = vmlal_high_s8(low, x, w);
                vpadalq_s16(sums, both)
            }
        }
    }

    // SAFETY of every body: every 64-bit ARM CPU has NEON; pointers are the caller's promise.
    impl Words for Neon {
        const COUNT: usize = 8;
        const PIXELS_OF_WORDS: &'static [usize] = &[8, 8, 7, 5];
        const PAIR: usize = 1;
        const STEP: usize = 8;
        type Words = int16x8_t;
        inlined! {
            fn widen(from: *const u8) -> int16x8_t { vmovl_s8(vld1_s8(from.cast())) }
            fn store_words(to: *mut i16, v: int16x8_t) { vst1q_s16(to, v) }
            fn add_words(a: int16x8_t, b: int16x8_t) -> int16x8_t { vaddq_s16(a, b) }
            fn sub_words(a: int16x8_t, b: int16x8_t) -> int16x8_t { vsubq_s16(a, b) }
            fn shift_words<const N: i32>(v: int16x8_t) -> int16x8_t { vshlq_n_s16::<N>(v) }
            fn no_sums() -> int32x4_t { vdupq_n_s32(0) }
            fn store_sums(to: *mut i32, v: int32x4_t) { vst1q_s32(to, v) }
            fn add_sums(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
            fn sub_sums(a: int32x4_t, b: int32x4_t) -> int32x4_t { vsubq_s32(a, b) }
            fn shift_sums<const N: i32>(v: int32x4_t) -> int32x4_t { vshlq_n_s32::<N>(v) }
            fn shift_sums_down<const N: i32>(v: int32x4_t) -> int32x4_t { vshrq_n_s32::<N>(v) }
            fn multiply_sums(v: int32x4_t, by: i32) -> int32x4_t { vmulq_n_s32(v, by) }
        }
        #[inline(always)]
        unsafe fn add_products<const V: usize, const P: usize>(
            sums: &mut [[int32x4_t; V]; P],
            weights: *const i16,
            from: *const i16,
            step: usize,
        ) {
            unsafe {
                let mut x = [vld1q_s16(from); P];
                for (p, x) in x.iter_mut().enumerate() {
                    *x = vld1q_s16(from.add(p * step));
                }
                add_channel::<V, P, 0>(sums, weights, &x);
                add_channel::<V, P, 1>(sums, weights, &x);
                add_channel::<V, P, 2>(sums, weights, &x);
                add_channel::<V, P, 3>(sums, weights, &x);
                add_channel::<V, P, 4>(sums, weights, &x);
                add_channel::<V, P, 5>(sums, weights, &x);
                add_channel::<V, P, 6>(sums, weights, &x);
                add_channel::<V, P, 7>(sums, weights, &x);
            }
        }
    }

    /// The products of number L of P pixels and weights, to their sums.
    #[inline(always)]
    unsafe fn add_channel<const V: usize, const P: usize, const L: i32>(
        sums: &mut [[int32x4_t; V]; P],
        weights: *const i16,
        x: &[int16x8_t; P],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let weights = weights.add(L as usize * 4 * V);
            // two vectors of output channels at a time, then one that is left
            for pair in 0..V / 2 {
                let w = vld1q_s16(weights.add(8 * pair));
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[2 * pair] = vmlal_laneq_s16::<L>(sums[2 * pair], vget_low_s16(w), *x);
                    sums[2 * pair + 1] = vmlal_high_laneq_s16::<L>(sums[2 * pair + 1], w, *x);
                }
            }
            if V % 2 == 1 {
                let w = vld1_s16(weights.add(4 * (V - 1)));
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[V - 1] = vmlal_laneq_s16::<L>(sums[V - 1], w, *x);
                }
            }
        }
    }

    /// As [`Neon`], for weights that may be -128.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Wide;

    impl Dot for Wide {
        type Wide = Wide;
        const PIXELS: &'static [usize] = &[8, 6, 5, 4];
        const ORDER: Order8 = Order8::Pairs;
        signed_bytes!();
        inlined! {
            fn four(from: *const u8) -> int8x16_t { Neon::four(from) }
            fn spread<const L: usize>(x: int8x16_t) -> int8x16_t { Neon::spread::<L>(x) }
        }
        #[inline(always)]
        unsafe fn dot<const L: usize>(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
            unsafe {
                let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
                vpadalq_s16(vpadalq_s16(sums, low), vmull_high_s8(x, w))
            }
        }
    }

    /// The dot-product instructions of ARMv8.2 (FEAT_DotProd). Stable Rust has no intrinsics for them.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Sdot;

    impl Dot for Sdot {
        type Wide = Sdot;
        const PIXELS: &'static [usize] = &[8, 8, 7, 5];
        signed_bytes!();
        #[inline(always)]
        unsafe fn four(from: *const u8) -> int8x16_t {
            unsafe { Neon::four(from) }
        }
        #[inline(always)]
        unsafe fn dot<const L: usize>(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
            let mut sums = sums;
            // SAFETY: the CPU has the instruction, the caller's promise; it touches no memory.
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
    pub(in super::super) struct I8mm;

    /// The first and the second halves of two vectors.
    #[inline(always)]
    unsafe fn halves(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
            [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
        }
    }

    impl Dot for I8mm {
        type Wide = I8mm;
        const PIXELS: &'static [usize] = &[8, 8, 6, 4];
        const ORDER: Order8 = Order8::Eights;
        signed_bytes!();
        /// With zeros after them.
        #[inline(always)]
        unsafe fn four(from: *const u8) -> int8x16_t {
            unsafe { vreinterpretq_s8_u32(vsetq_lane_u32::<0>(from.cast::<u32>().read_unaligned(), vdupq_n_u32(0))) }
        }
        /// Two rows of eight numbers times two others.
        #[inline(always)]
        unsafe fn dot<const L: usize>(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
            let mut sums = sums;
            // SAFETY: the CPU has the instruction, the caller's promise; it touches no memory.
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
        unsafe fn pair<const P: usize>(x: &mut [int8x16_t; P]) {
            for pair in x.as_chunks_mut::<2>().0 {
                // SAFETY: the caller's promise.
                *pair = unsafe { halves(pair[0], pair[1]) };
            }
        }
        #[inline(always)]
        unsafe fn pair_sums<const V: usize, const P: usize>(sums: &mut [[int32x4_t; V]; P]) {
            for [first, second] in sums.as_chunks_mut::<2>().0 {
                for (first, second) in first.iter_mut().zip(second) {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let both = halves(vreinterpretq_s8_s32(*first), vreinterpretq_s8_s32(*second));
                        (*first, *second) = (vreinterpretq_s32_s8(both[0]), vreinterpretq_s32_s8(both[1]));
                    }
                }
            }
        }
        #[inline(always)]
        unsafe fn add<const V: usize, const P: usize, const L: usize>(
            sums: &mut [[int32x4_t; V]; P],
            x: &[int8x16_t; P],
            w: &[int8x16_t; V],
        ) {
            // SAFETY: the caller's promise.
            unsafe {
                let (pairs, last) = sums.as_chunks_mut::<2>();
                for (sums, x) in pairs.iter_mut().zip(x.as_chunks::<2>().0) {
                    for (sum, w) in sums[L % 2].iter_mut().zip(w) {
                        *sum = Self::dot::<L>(*sum, x[L / 2], *w);
                    }
                }
                for sums in last {
                    let zero = vdupq_n_s8(0);
                    let x = if L % 2 == 0 { halves(x[P - 1], zero) } else { halves(zero, x[P - 1]) };
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = Self::dot::<L>(*sum, x[L / 2], *w);
                    }
                }
            }
        }
    }
}
