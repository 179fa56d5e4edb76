//! The buffers that kernels work in, and how threads share them.

use super::pointer::Target;
use super::weights::Real;
use crate::arena::ImageView;
use half::f16;
use std::ops::Range;

/// The part of a step's output that one call makes: number `index` of `of`.
///
/// Every kernel that takes a part splits its output so that parts never overlap and nothing is read that another part
/// writes, and so that what it computes is the same bits for any number of parts. Parts may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: usize,
    of: usize,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Part { index: 0, of: 1 };

    /// Part number `index`, from 0, out of `of`; none if there are not as many, or more than a `u32` counts.
    pub fn new(index: usize, of: usize) -> Option<Self> {
        (index < of && u32::try_from(of).is_ok()).then_some(Part { index, of })
    }

    /// Which part this is, from 0.
    pub fn index(self) -> usize {
        self.index
    }

    /// Whether it is all of it.
    pub(super) fn is_whole(self) -> bool {
        self.of == 1
    }

    /// Which of `count` things belong to this part.
    pub fn range(self, count: usize) -> Range<usize> {
        // `count · index / of`, rounded down, with no product that is greater than can be counted
        let (each, rest) = (count / self.of, count % self.of);
        let start = |index: usize| each * index + rest * index / self.of;
        start(self.index)..start(self.index + 1)
    }

    /// Which of `lines` lines of `each` things belong to this part: for each line that has any, its number and which of
    /// its things.
    #[inline(always)]
    pub fn lines(self, lines: usize, each: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let Range { start, end } = self.range(lines * each);
        let mut at = start;
        std::iter::from_fn(move || {
            let (line, first) = (at.checked_div(each)?, at.checked_rem(each)?);
            let last = each.min(first + (end - at));
            at += last - first;
            (first < last).then_some((line, first..last))
        })
    }
}

/// The arenas of values in 32, in 16 and in 8 bits. Copies stand for the same buffers, which kernels reach
/// through pointers after they have checked that their views lie within.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    arena: Target<'a, f32>,
    len: usize,
    halves: Target<'a, f16>,
    halves_len: usize,
    bytes: Target<'a, u8>,
    bytes_len: usize,
}

impl<'a> Memory<'a> {
    /// Of these buffers, and none of 16 bits.
    pub fn new(arena: &'a mut [f32], bytes: &'a mut [u8]) -> Self {
        Memory::with_halves(arena, &mut [], bytes)
    }

    /// Of these buffers.
    pub fn with_halves(arena: &'a mut [f32], halves: &'a mut [f16], bytes: &'a mut [u8]) -> Self {
        let (len, halves_len, bytes_len) = (arena.len(), halves.len(), bytes.len());
        let (arena, halves, bytes) = (Target::of(arena), Target::of(halves), Target::of(bytes));
        Memory { arena, len, halves, halves_len, bytes, bytes_len }
    }

    /// Numbers in the arena.
    pub fn len(self) -> usize {
        self.len
    }

    /// Numbers in the arena of those of 16 bits.
    pub fn halves_len(self) -> usize {
        self.halves_len
    }

    /// Whether a picture lies within the arena of such numbers, and is of them.
    pub(super) fn holds<T: Real>(self, view: ImageView) -> bool {
        view.precision == T::PRECISION && view.fits(T::len(self))
    }

    /// Bytes in the arena of 8-bit pictures.
    pub fn bytes_len(self) -> usize {
        self.bytes_len
    }

    /// Copies the numbers from `start` on to where there is room for them.
    ///
    /// # Panics
    /// When they do not lie within.
    pub fn read(self, start: usize, to: &mut [f32]) {
        assert!(start <= self.len() && to.len() <= self.len() - start);
        let from = self.arena.source();
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: the assertion; threads that share the arena do not write what this one reads.
            *to = unsafe { from.load(start + i) };
        }
    }

    /// Copies numbers to those from `start` on.
    ///
    /// # Panics
    /// When they do not lie within.
    pub fn write(self, start: usize, from: &[f32]) {
        assert!(start <= self.len && from.len() <= self.len - start);
        for (i, from) in from.iter().enumerate() {
            // SAFETY: the assertion; threads that share the arena write elsewhere.
            unsafe { self.arena.store(start + i, *from) }
        }
    }

    /// The number at `at`.
    ///
    /// # Panics
    /// When it does not lie within.
    pub fn get(self, at: usize) -> f32 {
        assert!(at < self.len);
        // SAFETY: the assertion; threads that share the arena do not write what this one reads.
        unsafe { self.arena.source().load(at) }
    }

    /// Makes the number at `at` another.
    ///
    /// # Panics
    /// When it does not lie within.
    pub fn set(self, at: usize, value: f32) {
        assert!(at < self.len);
        // SAFETY: the assertion; threads that share the arena write elsewhere.
        unsafe { self.arena.store(at, value) }
    }

    /// Makes so many numbers from `start` on the same.
    ///
    /// # Panics
    /// When they do not lie within.
    pub fn fill(self, start: usize, len: usize, value: f32) {
        assert!(start <= self.len && len <= self.len - start);
        for i in start..start + len {
            // SAFETY: the assertion; threads that share the arena write elsewhere.
            unsafe { self.arena.store(i, value) }
        }
    }

    /// Makes so many numbers of 16 bits from `start` on zeros.
    ///
    /// # Panics
    /// When they do not lie within.
    pub fn clear_halves(self, start: usize, len: usize) {
        assert!(start <= self.halves_len && len <= self.halves_len - start);
        for i in start..start + len {
            // SAFETY: the assertion; threads that share the arena write elsewhere.
            unsafe { self.halves.store(i, f16::ZERO) }
        }
    }

    /// The greatest absolute value of so many numbers of 16 bits from `start` on: infinite if one is no number.
    ///
    /// # Panics
    /// When they do not lie within.
    pub fn greatest_half(self, start: usize, len: usize) -> f32 {
        assert!(start <= self.halves_len && len <= self.halves_len - start);
        let from = self.halves.source();
        (start..start + len).fold(0.0, |greatest, i| {
            // SAFETY: the assertion; threads that share the arena do not write what this one reads.
            let v = unsafe { from.load::<f16>(i) }.to_f32().abs();
            if v.is_nan() { f32::INFINITY } else { greatest.max(v) }
        })
    }

    /// Makes so many bytes from `start` on the same.
    ///
    /// # Panics
    /// When they do not lie within.
    pub fn fill_bytes(self, start: usize, len: usize, value: u8) {
        assert!(start <= self.bytes_len && len <= self.bytes_len - start);
        for i in start..start + len {
            // SAFETY: the assertion; threads that share the bytes write elsewhere.
            unsafe { self.bytes.store(i, value) }
        }
    }

    /// The numbers of the arena.
    #[inline(always)]
    pub(super) fn arena(self) -> Target<'a, f32> {
        self.arena
    }

    /// Those of the arena of 16 bits.
    #[inline(always)]
    pub(super) fn halves(self) -> Target<'a, f16> {
        self.halves
    }

    /// Those of the arena of 8-bit pictures.
    #[inline(always)]
    pub(super) fn bytes(self) -> Target<'a, u8> {
        self.bytes
    }

    /// The same buffers, for other threads.
    ///
    /// # Safety
    /// At any time, all threads that run kernels on these buffers must run different parts of one step, out of the same
    /// number of parts; what one of them does to the buffers in other ways must not meet what the others do.
    pub unsafe fn share(self) -> Shared<'a> {
        Shared(self)
    }
}

/// [`Memory`] that threads may share.
#[derive(Clone, Copy)]
pub struct Shared<'a>(Memory<'a>);

// SAFETY: `Memory::share`'s caller promised that threads work on different parts.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// The buffers.
    pub fn memory(self) -> Memory<'a> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole() {
        for (count, of) in [(0, 1), (1, 3), (7, 2), (14, 4), (100, 7)] {
            let all: Vec<usize> = (0..of).flat_map(|index| Part::new(index, of).unwrap().range(count)).collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert_eq!(Part::WHOLE.range(9), 0..9);
        assert_eq!(Part::new(2, 3).unwrap().range(usize::MAX).end, usize::MAX);
        assert!(Part::new(0, 0).is_none() && Part::new(3, 3).is_none() && Part::new(0, usize::MAX).is_none());
        for (lines, each, of) in [(3, 5, 2), (1, 7, 3), (4, 1, 3), (2, 3, 9), (0, 3, 2), (3, 0, 2)] {
            let all: Vec<usize> = (0..of)
                .flat_map(|index| Part::new(index, of).unwrap().lines(lines, each))
                .flat_map(|(line, things)| things.map(move |i| line * each + i))
                .collect();
            assert_eq!(all, (0..lines * each).collect::<Vec<_>>());
        }
    }
}
