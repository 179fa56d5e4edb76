//! Pointers into buffers that other threads may use at the same time: kernels read vectors from anywhere, and several
//! threads write one buffer in different places, which slices cannot say. All that the kernels read and write unchecked
//! goes through here.

use half::f16;
use std::marker::PhantomData;

/// Numbers, vectors of them, and arrays of these.
///
/// # Safety
/// Every pattern of bits must be a value, and all of them be bits of the value.
pub(super) unsafe trait Plain: Copy {
    /// All bits 0.
    #[inline(always)]
    fn zeroed() -> Self {
        // SAFETY: every pattern of bits is a value.
        unsafe { std::mem::zeroed() }
    }
}

macro_rules! plain {
    ($($t:ty),*) => {
        // SAFETY: these are numbers and vectors of them, without padding.
        $(unsafe impl Plain for $t {})*
    };
}

plain!(f32, f16, i8, u8, i16, i32, u32, i64);
// SAFETY: an array has no padding between its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use super::Plain;
    use std::arch::x86_64::*;
    plain!(__m128i, __m256, __m256i, __m512, __m512i);
}

#[cfg(target_arch = "aarch64")]
mod vectors {
    use super::Plain;
    use std::arch::aarch64::*;
    plain!(float16x4_t, float16x8_t, float32x4_t, int16x8_t, int32x4_t, int8x16_t, int8x8_t, uint8x16_t, uint8x8_t);
}

/// Numbers that can be read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, T> {
    from: *const T,
    owner: PhantomData<&'a T>,
}

impl<'a, T: Plain> Source<'a, T> {
    /// Those of a slice.
    #[inline(always)]
    pub(super) fn of(slice: &'a [T]) -> Self {
        Source { from: slice.as_ptr(), owner: PhantomData }
    }

    /// Those but the first `n`.
    #[inline(always)]
    pub(super) fn skip(self, n: usize) -> Self {
        Source { from: self.from.wrapping_add(n), owner: PhantomData }
    }

    /// Where they are.
    #[inline(always)]
    pub(super) fn address(self) -> *const T {
        self.from
    }

    /// Those from `at` on, as many as make a value of this type.
    ///
    /// # Safety
    /// There must be as many, which no other thread writes.
    #[inline(always)]
    pub(super) unsafe fn load<V: Plain>(self, at: usize) -> V {
        // SAFETY: the caller's promise.
        let from = unsafe { self.from.add(at) };
        // SAFETY: the caller's promise; any bits are a value.
        unsafe { from.cast::<V>().read_unaligned() }
    }
}

/// Numbers that can be read and written.
#[derive(Clone, Copy)]
pub(super) struct Target<'a, T> {
    to: *mut T,
    owner: PhantomData<&'a mut T>,
}

impl<'a, T: Plain> Target<'a, T> {
    /// Those of a slice.
    #[inline(always)]
    pub(super) fn of(slice: &'a mut [T]) -> Self {
        Target { to: slice.as_mut_ptr(), owner: PhantomData }
    }

    /// The same ones, to be read.
    #[inline(always)]
    pub(super) fn source(self) -> Source<'a, T> {
        Source { from: self.to, owner: PhantomData }
    }

    /// Those but the first `n`.
    #[inline(always)]
    pub(super) fn skip(self, n: usize) -> Self {
        Target { to: self.to.wrapping_add(n), owner: PhantomData }
    }

    /// Where they are.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    #[inline(always)]
    pub(super) fn address(self) -> *mut T {
        self.to
    }

    /// The same room for numbers of another type.
    #[inline(always)]
    pub(super) fn cast<U: Plain>(self) -> Target<'a, U> {
        Target { to: self.to.cast(), owner: PhantomData }
    }

    /// Writes a value from number `at` on.
    ///
    /// # Safety
    /// There must be as many numbers as the value takes, which no other thread reads or writes.
    #[inline(always)]
    pub(super) unsafe fn store<V: Plain>(self, at: usize, value: V) {
        // SAFETY: the caller's promise.
        let to = unsafe { self.to.add(at) };
        // SAFETY: the caller's promise; any bits are numbers.
        unsafe { to.cast::<V>().write_unaligned(value) }
    }

    /// Copies `len` numbers from number `from` on to those from `to` on; they may overlap.
    ///
    /// # Safety
    /// All of these must be there; no other thread may write the former, nor read or write the latter.
    #[inline(always)]
    pub(super) unsafe fn copy_within(self, from: usize, to: usize, len: usize) {
        // SAFETY: the caller's promise.
        let source = unsafe { self.to.add(from) };
        // SAFETY: the caller's promise.
        let target = unsafe { self.to.add(to) };
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy(source, target, len) }
    }

    /// `len` numbers from `at` on.
    ///
    /// # Safety
    /// They must be there, and nothing else may read or write them for as long as the slice lives.
    #[inline(always)]
    pub(super) unsafe fn slice(self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        let from = unsafe { self.to.add(at) };
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(from, len) }
    }
}
