//! The vectors of x86-64.

use super::{Dot, Outline, Simd, Source, Vector, Words, level};
use crate::pointer::Target;
use half::f16;
use std::arch::x86_64::*;

/// AVX-512. Its token stands for AVX2, FMA and F16C too.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(());

impl Avx512 {
    /// The token, where the CPU's features are known.
    #[inline]
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    pub(in super::super) fn new() -> Self {
        Avx512(())
    }
}

impl Vector for Avx512 {
    const LANES: usize = 16;
    const PIXELS: &'static [usize] = &[8, 8, 8];
    const GROUP: usize = 1;
    type F = __m512;
    type Floats = __m512;
    type Halves = __m256i;
    type Bytes = __m128i;
    type Group = f32;
    type HalfGroup = f16;
    type X = __m512;

    with_features! { "avx512f,avx2,fma,f16c",
        fn of_floats(floats: __m512) -> __m512 { floats }
        fn to_floats(v: __m512) -> __m512 { v }
        fn widen_halves(halves: __m256i) -> __m512 { _mm512_cvtph_ps(halves) }
        fn narrow_to_halves(v: __m512) -> __m256i { _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v) }
        fn widen_bytes(bytes: __m128i) -> __m512 { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)) }
        fn splat(v: f32) -> __m512 { _mm512_set1_ps(v) }
        fn group(group: f32) -> __m512 { _mm512_set1_ps(group) }
        fn one(v: f32) -> __m512 { _mm512_set1_ps(v) }
        fn group_of_halves(group: f16) -> __m512 { _mm512_cvtph_ps(_mm256_set1_epi16(group.to_bits() as i16)) }
        fn one_half(v: f16) -> __m512 { _mm512_cvtph_ps(_mm256_set1_epi16(v.to_bits() as i16)) }
        fn fma_lane<const L: usize>(x: __m512, w: __m512, sum: __m512) -> __m512 { _mm512_fmadd_ps(x, w, sum) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        prefetch(at);
    }

    #[inline(always)]
    unsafe fn load_part(self, from: Source<f32>, at: usize, n: usize) -> __m512 {
        // SAFETY: the CPU has the features; only the first `n` are read, which are there by the caller's promise.
        unsafe { _mm512_maskz_loadu_ps((1u16 << n).wrapping_sub(1), from.skip(at).address()) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: Target<f32>, at: usize, v: __m512, n: usize) {
        // SAFETY: the CPU has the features; only the first `n` are written, which are there by the caller's promise.
        unsafe { _mm512_mask_storeu_ps(to.skip(at).address(), (1u16 << n).wrapping_sub(1), v) }
    }
}

impl Simd for Avx512 {
    type Words = Avx2;

    #[inline(always)]
    fn words(self) -> Avx2 {
        Avx2(())
    }

    with_features! { "avx512f,avx2,fma,f16c",
        fn reciprocal(a: __m512) -> __m512 {
            // A step of Newton's method doubles the 14 bits that are right; after the second one the result is that
            // of a division, which takes three times as long.
            let one = _mm512_set1_ps(1.0);
            let r = _mm512_rcp14_ps(a);
            let r = _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, one), r);
            _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, one), r)
        }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn times_power_of_two(v: __m512, shifted: __m512) -> __m512 {
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), n))
        }
    }

    #[inline(always)]
    fn levels(self, value: __m512, inverse: f32, zero: u8, flip: u8) -> __m128i {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn low_bytes(shifted: __m512, plus: u8) -> __m128i {
            let plus = _mm512_set1_epi32(i32::from(plus));
            _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_castps_si512(shifted), plus))
        }
        // SAFETY: there is a token, so the CPU has the features.
        unsafe { low_bytes(level(self, value, inverse, zero), zero.wrapping_add(flip)) }
    }
}

/// Asks for the cache line of an address.
#[inline(always)]
fn prefetch<T>(at: *const T) {
    // SAFETY: every x86-64 CPU has the instruction, which does not fault.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2(());

impl Avx2 {
    /// The token, where the CPU's features are known.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn new() -> Self {
        Avx2(())
    }
}

impl Vector for Avx2 {
    const LANES: usize = 8;
    const PIXELS: &'static [usize] = &[8, 6];
    const GROUP: usize = 1;
    type F = __m256;
    type Floats = __m256;
    type Halves = __m128i;
    type Bytes = i64;
    type Group = f32;
    type HalfGroup = f16;
    type X = __m256;

    with_features! { "avx2,fma,f16c",
        fn of_floats(floats: __m256) -> __m256 { floats }
        fn to_floats(v: __m256) -> __m256 { v }
        fn widen_halves(halves: __m128i) -> __m256 { _mm256_cvtph_ps(halves) }
        fn narrow_to_halves(v: __m256) -> __m128i { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v) }
        fn widen_bytes(bytes: i64) -> __m256 { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_set_epi64x(0, bytes))) }
        fn splat(v: f32) -> __m256 { _mm256_set1_ps(v) }
        fn group(group: f32) -> __m256 { _mm256_set1_ps(group) }
        fn one(v: f32) -> __m256 { _mm256_set1_ps(v) }
        fn group_of_halves(group: f16) -> __m256 { _mm256_cvtph_ps(_mm_set1_epi16(group.to_bits() as i16)) }
        fn one_half(v: f16) -> __m256 { _mm256_cvtph_ps(_mm_set1_epi16(v.to_bits() as i16)) }
        fn fma_lane<const L: usize>(x: __m256, w: __m256, sum: __m256) -> __m256 { _mm256_fmadd_ps(x, w, sum) }
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn outline(self, part: impl Outline) {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn outlined(part: impl Outline) {
            part.run();
        }
        // SAFETY: there is a token, so the CPU has the features.
        unsafe { outlined(part) }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        prefetch(at);
    }
}

impl Simd for Avx2 {
    type Words = Self;

    #[inline(always)]
    fn words(self) -> Self {
        self
    }

    with_features! { "avx2,fma,f16c",
        fn reciprocal(a: __m256) -> __m256 { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn times_power_of_two(v: __m256, shifted: __m256) -> __m256 {
            let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), n))
        }
    }

    #[inline(always)]
    fn levels(self, value: __m256, inverse: f32, zero: u8, flip: u8) -> i64 {
        #[inline]
        #[target_feature(enable = "avx2")]
        fn low_bytes(shifted: __m256, plus: u8) -> i64 {
            let bits = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(i32::from(plus)));
            let bits = _mm256_and_si256(bits, _mm256_set1_epi32(255));
            let words = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits));
            _mm_cvtsi128_si64(_mm_packus_epi16(words, words))
        }
        // SAFETY: there is a token, so the CPU has the features.
        unsafe { low_bytes(level(self, value, inverse, zero), zero.wrapping_add(flip)) }
    }
}

/// AVX-512 with VNNI.
#[derive(Clone, Copy)]
pub(in super::super) struct Vnni(Avx512);

impl Vnni {
    /// The token, where the CPU's features are known.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni,avx2,fma,f16c")]
    pub(in super::super) fn new() -> Self {
        Vnni(Avx512::new())
    }
}

impl Dot for Vnni {
    type S = Avx512;
    type Wide = Self;
    const PIXELS: &'static [usize] = &[8, 8, 8];
    const GROUP: usize = 1;
    const FLIP: u8 = 0;
    type I = __m512i;
    type Stored = __m512i;
    type W = __m512i;
    type Group = i32;
    type X = __m512i;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    with_features! { "avx512f,avx512vnni",
        fn to_float(sums: __m512i) -> __m512 { _mm512_cvtepi32_ps(sums) }
        fn weights(stored: __m512i) -> __m512i { stored }
        fn group(group: i32) -> __m512i { _mm512_set1_epi32(group) }
        fn four(bytes: [u8; 4]) -> __m512i { _mm512_set1_epi32(i32::from_ne_bytes(bytes)) }
        fn dot<const L: usize>(sums: __m512i, x: __m512i, w: __m512i) -> __m512i { _mm512_dpbusd_epi32(sums, x, w) }
    }
}

/// AVX2 with VNNI.
#[derive(Clone, Copy)]
pub(in super::super) struct AvxVnni(Avx2);

impl AvxVnni {
    /// The token, where the CPU's features are known.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(in super::super) fn new() -> Self {
        AvxVnni(Avx2::new())
    }
}

impl Dot for AvxVnni {
    type S = Avx2;
    type Wide = Self;
    const PIXELS: &'static [usize] = &[8, 6];
    const GROUP: usize = 1;
    const FLIP: u8 = 0;
    type I = __m256i;
    type Stored = __m256i;
    type W = __m256i;
    type Group = i32;
    type X = __m256i;

    #[inline(always)]
    fn simd(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    with_features! { "avx2,avxvnni",
        fn to_float(sums: __m256i) -> __m256 { _mm256_cvtepi32_ps(sums) }
        fn weights(stored: __m256i) -> __m256i { stored }
        fn group(group: i32) -> __m256i { _mm256_set1_epi32(group) }
        fn four(bytes: [u8; 4]) -> __m256i { _mm256_set1_epi32(i32::from_ne_bytes(bytes)) }
        fn dot<const L: usize>(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
            _mm256_dpbusd_avx_epi32(sums, x, w)
        }
    }
}

/// The even and the odd bytes are multiplied as 16-bit numbers, since `maddubs` saturates.
impl Dot for Avx2 {
    type S = Avx2;
    type Wide = Self;
    const PIXELS: &'static [usize] = &[4, 4];
    const GROUP: usize = 1;
    const FLIP: u8 = 0;
    type I = __m256i;
    type Stored = __m256i;
    type W = [__m256i; 2];
    type Group = i32;
    type X = [__m256i; 2];

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    #[inline(always)]
    fn four(self, bytes: [u8; 4]) -> [__m256i; 2] {
        <Self as Dot>::group(self, i32::from_ne_bytes(bytes))
    }

    with_features! { "avx2",
        fn to_float(sums: __m256i) -> __m256 { _mm256_cvtepi32_ps(sums) }
        fn weights(stored: __m256i) -> [__m256i; 2] {
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(stored)), _mm256_srai_epi16::<8>(stored)]
        }
        fn group(group: i32) -> [__m256i; 2] {
            let x = _mm256_set1_epi32(group);
            [_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x)]
        }
        fn dot<const L: usize>(sums: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
            let even = _mm256_madd_epi16(x[0], w[0]);
            let odd = _mm256_madd_epi16(x[1], w[1]);
            _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
        }
    }
}

impl Avx2 {
    with_features! { "avx2",
        // the sum, plus products of pairs of words
        fn add_pairs(sum: __m256i, x: i32, w: __m256i) -> __m256i {
            _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_set1_epi32(x), w))
        }
    }
}

impl Words for Avx2 {
    const COUNT: usize = 16;
    const PIXELS_OF_WORDS: &'static [usize] = &[8, 6];
    const PAIR: usize = 2;
    const STEP: usize = 2;
    type Words = __m256i;
    type Bytes = __m128i;

    with_features! { "avx2",
        fn widen(bytes: __m128i) -> __m256i { _mm256_cvtepu8_epi16(bytes) }
        fn add_words(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi16(a, b) }
        fn sub_words(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi16(a, b) }
        fn shift_words<const N: i32>(v: __m256i) -> __m256i { _mm256_slli_epi16::<N>(v) }
        fn no_sums() -> __m256i { _mm256_setzero_si256() }
        fn add_sums(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn sub_sums(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn shift_sums<const N: i32>(v: __m256i) -> __m256i { _mm256_slli_epi32::<N>(v) }
        fn shift_sums_down<const N: i32>(v: __m256i) -> __m256i { _mm256_srai_epi32::<N>(v) }
        fn multiply_sums(v: __m256i, by: i32) -> __m256i { _mm256_mullo_epi32(v, _mm256_set1_epi32(by)) }
    }

    #[inline(always)]
    unsafe fn add_products<const V: usize, const P: usize>(
        self,
        sums: &mut [[__m256i; V]; P],
        weights: Source<i16>,
        from: Source<i16>,
        step: usize,
    ) {
        let mut w = [self.no_sums(); V];
        for (v, w) in w.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *w = unsafe { weights.load(16 * v) };
        }
        for (p, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let x = unsafe { from.load::<i32>(p * step) };
            for (sum, w) in sums.iter_mut().zip(&w) {
                *sum = self.add_pairs(*sum, x, *w);
            }
        }
    }
}
