//! Vectors of f32 of each kind of CPU, behind one trait, so that a kernel is written once.

/// A vector of `LANES` f32. Every function is inlined into an entry point that enables the CPU feature.
pub(super) trait Simd: Copy {
    const LANES: usize;
    /// Vectors of output channels, and pixels, that a convolution's tile may have without spilling registers.
    const TILE: (usize, usize);
    type F: Copy;
    /// # Safety
    /// The CPU must have the feature; `from` must be readable for `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self::F;
    /// # Safety
    /// The CPU must have the feature; `to` must be writable for `LANES` numbers.
    unsafe fn store(to: *mut f32, v: Self::F);
    /// # Safety
    /// The CPU must have the feature.
    unsafe fn splat(v: f32) -> Self::F;
    /// `a · b + c`.
    /// # Safety
    /// The CPU must have the feature.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// # Safety
    /// The CPU must have the feature.
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
}

/// Sums of products of unsigned and signed 8-bit numbers, four at a time in each 32-bit lane.
pub(super) trait Dot: Copy {
    const LANES: usize;
    const TILE: (usize, usize);
    /// Sums, weights, and four numbers of a pixel in every lane.
    type I: Copy;
    type W: Copy;
    type X: Copy;
    /// # Safety
    /// The CPU must have the feature; `from` must be readable for `LANES` numbers.
    unsafe fn load_sums(from: *const i32) -> Self::I;
    /// # Safety
    /// The CPU must have the feature; `to` must be writable for `LANES` numbers.
    unsafe fn store_sums(to: *mut i32, v: Self::I);
    /// # Safety
    /// The CPU must have the feature; `from` must be readable for four bytes a lane.
    unsafe fn load_weights(from: *const i8) -> Self::W;
    /// # Safety
    /// The CPU must have the feature; `from` must be readable for four bytes.
    unsafe fn splat(from: *const u8) -> Self::X;
    /// # Safety
    /// The CPU must have the feature.
    unsafe fn dot(sums: Self::I, x: Self::X, w: Self::W) -> Self::I;
}

impl Dot for Portable {
    const LANES: usize = 4;
    const TILE: (usize, usize) = (2, 4);
    type I = [i32; 4];
    type W = [[i8; 4]; 4];
    type X = [u8; 4];
    #[inline(always)]
    unsafe fn load_sums(from: *const i32) -> [i32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_sums(to: *mut i32, v: [i32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[i32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> [[i8; 4]; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[[i8; 4]; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat(from: *const u8) -> [u8; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u8; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn dot(sums: [i32; 4], x: [u8; 4], w: [[i8; 4]; 4]) -> [i32; 4] {
        std::array::from_fn(|i| sums[i] + (0..4).map(|k| i32::from(x[k]) * i32::from(w[i][k])).sum::<i32>())
    }
}

/// Any CPU: four numbers at a time, which compilers turn into the vectors that every CPU of the target has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    const LANES: usize = 4;
    const TILE: (usize, usize) = (2, 4);
    type F = [f32; 4];
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> [f32; 4] {
        [v; 4]
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Vnni};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Dot, Simd};
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512;

    // SAFETY of every body: the caller's promise, passed on to the intrinsic.
    impl Simd for Avx512 {
        const LANES: usize = 16;
        const TILE: (usize, usize) = (3, 8);
        type F = __m512;
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m512) {
            unsafe { _mm512_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn splat(v: f32) -> __m512 {
            unsafe { _mm512_set1_ps(v) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
    }

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2;

    // SAFETY of every body: the caller's promise, passed on to the intrinsic.
    impl Simd for Avx2 {
        const LANES: usize = 8;
        const TILE: (usize, usize) = (2, 6);
        type F = __m256;
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m256) {
            unsafe { _mm256_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn splat(v: f32) -> __m256 {
            unsafe { _mm256_set1_ps(v) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
    }

    /// AVX-512 with VNNI.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Vnni;

    // SAFETY of every body: the caller's promise, passed on to the intrinsic.
    impl Dot for Vnni {
        const LANES: usize = 16;
        const TILE: (usize, usize) = (3, 8);
        type I = __m512i;
        type W = __m512i;
        type X = __m512i;
        #[inline(always)]
        unsafe fn load_sums(from: *const i32) -> __m512i {
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store_sums(to: *mut i32, v: __m512i) {
            unsafe { _mm512_storeu_si512(to.cast(), v) }
        }
        #[inline(always)]
        unsafe fn load_weights(from: *const i8) -> __m512i {
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const u8) -> __m512i {
            unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn dot(sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
            unsafe { _mm512_dpbusd_epi32(sums, x, w) }
        }
    }

    // SAFETY of every body: the caller's promise, passed on to the intrinsic. The even and the odd bytes are
    // multiplied as 16-bit numbers, since `maddubs` saturates.
    impl Dot for Avx2 {
        const LANES: usize = 8;
        const TILE: (usize, usize) = (2, 4);
        type I = __m256i;
        type W = [__m256i; 2];
        type X = [__m256i; 2];
        #[inline(always)]
        unsafe fn load_sums(from: *const i32) -> __m256i {
            unsafe { _mm256_loadu_si256(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store_sums(to: *mut i32, v: __m256i) {
            unsafe { _mm256_storeu_si256(to.cast(), v) }
        }
        #[inline(always)]
        unsafe fn load_weights(from: *const i8) -> [__m256i; 2] {
            unsafe {
                let w = _mm256_loadu_si256(from.cast());
                [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w)]
            }
        }
        #[inline(always)]
        unsafe fn splat(from: *const u8) -> [__m256i; 2] {
            unsafe {
                let x = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
                [_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x)]
            }
        }
        #[inline(always)]
        unsafe fn dot(sums: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
            unsafe {
                let even = _mm256_madd_epi16(x[0], w[0]);
                let odd = _mm256_madd_epi16(x[1], w[1]);
                _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Simd;
    use std::arch::aarch64::*;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Neon;

    // SAFETY of every body: every 64-bit ARM CPU has NEON; pointers are the caller's promise.
    impl Simd for Neon {
        const LANES: usize = 4;
        const TILE: (usize, usize) = (3, 8);
        type F = float32x4_t;
        #[inline(always)]
        unsafe fn load(from: *const f32) -> float32x4_t {
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: float32x4_t) {
            unsafe { vst1q_f32(to, v) }
        }
        #[inline(always)]
        unsafe fn splat(v: f32) -> float32x4_t {
            unsafe { vdupq_n_f32(v) }
        }
        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vaddq_f32(a, b) }
        }
    }
}
