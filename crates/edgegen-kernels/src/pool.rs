//! Pooling: the greatest number or the mean of a window of pixels, of each channel. Plain loops over channels that lie together,
//! which compilers turn into vectors.

use super::memory::{Memory, Part};
use crate::arena::ImageView;
use std::ops::Range;

/// A window along one side of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// How many taps it has.
    pub kernel: usize,
    /// How far it moves from one result to the next.
    pub stride: usize,
    /// How far one tap is from the next.
    pub dilation: usize,
    /// How far before the picture the first one begins.
    pub before: usize,
    /// How far beyond the picture's end taps count in means that count what is around the picture.
    pub after: usize,
}

impl Side {
    /// From the first tap to the last, both included.
    pub fn extent(&self) -> Option<usize> {
        self.kernel.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)
    }

    /// The results along a side of `n` numbers. With `ceil`, a window that reaches beyond the end has a result too, if it begins
    /// before that.
    pub fn results(&self, n: usize, ceil: bool) -> Option<usize> {
        let begins = n.checked_add(self.before)?;
        let left = begins.checked_add(self.after)?.checked_sub(self.extent()?)?;
        let within = left.checked_div(self.stride)? + 1;
        if !ceil {
            return Some(within);
        }
        let count = left.div_ceil(self.stride) + 1;
        let last_begins = (count - 1).checked_mul(self.stride)?;
        Some(if last_begins >= begins { count - 1 } else { count })
    }

    /// The taps of window `i` that lie within a side of `n` numbers.
    #[inline(always)]
    fn taps(&self, i: usize, n: usize) -> Range<usize> {
        let begins = i * self.stride;
        let low = self.before.saturating_sub(begins).div_ceil(self.dilation);
        let high = (n + self.before).saturating_sub(begins).div_ceil(self.dilation).min(self.kernel);
        low.min(high)..high
    }

    /// How many taps of window `i` lie within a side of `n` numbers or what counts around it.
    #[inline(always)]
    fn counted(&self, i: usize, n: usize) -> usize {
        (self.before + n + self.after).saturating_sub(i * self.stride).div_ceil(self.dilation).min(self.kernel)
    }

    /// Whether each of `count` windows has a tap within a side of `n` numbers, and all that is computed of them can be counted.
    pub fn fits(&self, count: usize, n: usize) -> bool {
        let Side { kernel, stride, dilation, before, after } = *self;
        let whole = || {
            let last = count.checked_sub(1)?.checked_mul(stride)?;
            last.checked_add(kernel.checked_mul(dilation)?)?.checked_add(n)?.checked_add(before)?.checked_add(after)
        };
        let sound = kernel > 0 && stride > 0 && dilation > 0 && whole().is_some_and(|n| n <= isize::MAX as usize / 2);
        sound && (0..count).all(|i| !self.taps(i, n).is_empty())
    }
}

/// What is made of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The greatest number; one that is not a number stays.
    Max,
    /// The mean of what lies within the picture.
    Average,
    /// The mean with zeros for what lies around the picture.
    AverageWithPadding,
}

/// Channels that are worked on at a time.
const CHUNK: usize = 16;

/// Makes a number of every window of each channel. Parts are of chunks of channels of the output's pixels.
///
/// # Panics
/// When a picture does not lie within the memory, or a window has nothing of its picture.
#[inline(always)]
pub(super) fn run(sides: [Side; 2], f: Pooling, input: ImageView, output: ImageView, part: Part, memory: Memory) {
    assert!(input.fits(memory.len()) && output.fits(memory.len()) && output.is_apart() && input.c == output.c);
    let [rows, columns] = sides;
    assert!(rows.fits(output.h, input.h) && columns.fits(output.w, input.w));
    let chunks = output.c.div_ceil(CHUNK);
    for (pixel, chunks) in part.lines(output.h * output.w, chunks) {
        let (y, x) = (pixel / output.w, pixel % output.w);
        let (ys, xs) = (rows.taps(y, input.h), columns.taps(x, input.w));
        let count = match f {
            Pooling::AverageWithPadding => rows.counted(y, input.h) * columns.counted(x, input.w),
            Pooling::Average | Pooling::Max => ys.len() * xs.len(),
        };
        let first = |side: Side, i: usize, tap: usize| i * side.stride + tap * side.dilation - side.before;
        let corner = input.start + first(rows, y, ys.start) * input.row + first(columns, x, xs.start) * input.pixel;
        let window = Window {
            corner,
            taps: [ys.len(), xs.len()],
            steps: [rows.dilation * input.row, columns.dilation * input.pixel],
            share: 1.0 / count as f32,
        };
        let to = output.start + y * output.row + x * output.pixel;
        for c in chunks.map(|chunk| chunk * CHUNK) {
            if c + CHUNK <= output.c {
                // SAFETY: the assertions: these taps lie within the input, which has so many channels, as the output's pixel has.
                unsafe { window.make::<CHUNK>(f, c, to, memory) }
            } else {
                for c in c..output.c {
                    // SAFETY: as above.
                    unsafe { window.make::<1>(f, c, to, memory) }
                }
            }
        }
    }
}

/// The taps of a window that lie within the picture.
struct Window {
    /// Channel 0 of the first one.
    corner: usize,
    taps: [usize; 2],
    steps: [usize; 2],
    /// What a sum is multiplied with for a mean.
    share: f32,
}

impl Window {
    /// Makes N channels from `c` on of the pixel whose channel 0 is number `to`.
    ///
    /// # Safety
    /// All taps and the pixel must lie within the memory with those channels, and no other thread read or write these of the
    /// pixel.
    #[inline(always)]
    unsafe fn make<const N: usize>(&self, f: Pooling, c: usize, to: usize, memory: Memory) {
        let base = memory.arena();
        let from = base.source().skip(self.corner + c);
        let mut all = [if f == Pooling::Max { f32::NEG_INFINITY } else { 0.0 }; N];
        for y in 0..self.taps[0] {
            let mut row = all;
            if f != Pooling::Max {
                row = [0.0; N];
            }
            for x in 0..self.taps[1] {
                // SAFETY: the caller's promise.
                let v: [f32; N] = unsafe { from.load(y * self.steps[0] + x * self.steps[1]) };
                for (row, v) in row.iter_mut().zip(v) {
                    if f == Pooling::Max {
                        *row = if v > *row || v.is_nan() { v } else { *row };
                    } else {
                        *row += v;
                    }
                }
            }
            // sums of rows are added up apart, so that those of large pictures round less
            for (all, row) in all.iter_mut().zip(row) {
                *all = if f == Pooling::Max { row } else { *all + row };
            }
        }
        if f != Pooling::Max {
            all.iter_mut().for_each(|v| *v *= self.share);
        }
        // SAFETY: the caller's promise.
        unsafe { base.store(to + c, all) }
    }
}
