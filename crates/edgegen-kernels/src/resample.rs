//! Pictures at other sizes: each pixel is a weighted sum of some rows and columns of another picture. Plain loops over channels
//! that lie together, which compilers turn into vectors.

use super::memory::{Memory, Part};
use crate::arena::ImageView;

/// For each row, or each column, of a result: which ones of the input it is made of, and their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    each: usize,
    taps: Vec<(usize, f32)>,
    /// One past the greatest index.
    reach: usize,
}

impl Taps {
    /// As many `(index, weight)` for each one of the result.
    ///
    /// # Errors
    /// When there are none, or not as many for each.
    pub fn new(each: usize, taps: Vec<(usize, f32)>) -> Result<Self, String> {
        if each == 0 || taps.is_empty() || !taps.len().is_multiple_of(each) {
            return Err(format!("{} weights for results of {each} each", taps.len()));
        }
        let reach = taps.iter().map(|(i, _)| i.saturating_add(1)).max().unwrap_or(0);
        Ok(Taps { each, taps, reach })
    }

    /// How many results there are.
    pub fn len(&self) -> usize {
        self.taps.len() / self.each
    }

    /// How many weights each has.
    pub fn each(&self) -> usize {
        self.each
    }

    /// Whether all indices are less than `n`.
    pub fn fits(&self, n: usize) -> bool {
        self.reach <= n
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        size_of_val(self.taps.as_slice())
    }

    #[inline(always)]
    fn of(&self, i: usize) -> &[(usize, f32)] {
        &self.taps[i * self.each..][..self.each]
    }
}

/// Channels that are worked on at a time.
const CHUNK: usize = 16;

/// Makes the output of the input's rows and columns. Parts are of the output's pixels.
///
/// # Panics
/// When a picture does not lie within the memory, or has not as many rows and columns as the taps say.
#[inline(always)]
pub(super) fn run(rows: &Taps, columns: &Taps, input: ImageView, output: ImageView, part: Part, memory: Memory) {
    assert!(input.fits(memory.len()) && output.fits(memory.len()) && output.is_apart() && input.c == output.c);
    assert!(rows.fits(input.h) && columns.fits(input.w) && [rows.len(), columns.len()] == [output.h, output.w]);
    for (y, xs) in part.lines(output.h, output.w) {
        for x in xs {
            let to = output.start + y * output.row + x * output.pixel;
            // SAFETY: the assertions: the taps are pixels of the input, and this is one of the output's.
            unsafe { pixel(rows.of(y), columns.of(x), (input, to), output.c, memory) }
        }
    }
}

/// Makes all channels of the pixel whose channel 0 is number `to`.
///
/// # Safety
/// The taps must be rows and columns of the input, it and the pixel lie within the memory with so many channels, and no other
/// thread read or write those of the pixel.
#[inline(always)]
pub(super) unsafe fn pixel(
    rows: &[(usize, f32)],
    columns: &[(usize, f32)],
    (input, to): (ImageView, usize),
    channels: usize,
    memory: Memory,
) {
    let mut c = 0;
    while c < channels {
        if c + CHUNK <= channels {
            // SAFETY: the caller's promise.
            unsafe { some::<CHUNK>(rows, columns, (input, to), c, memory) }
            c += CHUNK;
        } else {
            // SAFETY: as above.
            unsafe { some::<1>(rows, columns, (input, to), c, memory) }
            c += 1;
        }
    }
}

/// Makes N channels from `c` on of the pixel whose channel 0 is number `to`.
///
/// # Safety
/// The taps must be rows and columns of the input, it and the pixel lie within the memory with those channels, and no other
/// thread read or write these of the pixel.
#[inline(always)]
unsafe fn some<const N: usize>(
    rows: &[(usize, f32)],
    columns: &[(usize, f32)],
    (input, to): (ImageView, usize),
    c: usize,
    memory: Memory,
) {
    let base = memory.arena();
    let from = base.source().skip(input.start + c);
    let mut all = [0f32; N];
    for &(y, of_row) in rows {
        let mut row = [0f32; N];
        for &(x, of_column) in columns {
            // SAFETY: the caller's promise.
            let v: [f32; N] = unsafe { from.load(y * input.row + x * input.pixel) };
            for (row, v) in row.iter_mut().zip(v) {
                *row += of_column * v;
            }
        }
        for (all, row) in all.iter_mut().zip(row) {
            *all += of_row * row;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { base.store(to + c, all) }
}
