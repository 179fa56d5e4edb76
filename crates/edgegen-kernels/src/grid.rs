//! Pictures read at places that a grid of coordinates says, by the nearest pixels, or by linear or cubic interpolation.

use super::memory::{Memory, Part};
use super::resample;
use crate::arena::ImageView;

/// How what lies between pixels is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    Nearest,
    Linear,
    /// Of four pixels each way, with α = -3/4.
    Cubic,
}

/// What lies around a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    Zeros,
    /// Its outermost pixels.
    Border,
    /// The picture, reflected.
    Reflection,
}

/// How a picture is read at coordinates from -1 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    pub interpolation: Interpolation,
    pub padding: Padding,
    /// Whether -1 and 1 are the middles of the outermost pixels, and not their outer edges.
    pub align_corners: bool,
}

/// The pixels of a row or a column that a result is made of, and their weights.
struct Taps {
    all: [(usize, f32); 4],
    count: usize,
}

impl Sampling {
    /// Where a coordinate is along a side of `n` pixels, and the least and the greatest place that are not outside.
    fn place(self, coordinate: f32, n: usize) -> (f32, [f32; 2]) {
        let n = n as f32;
        let (place, bounds) = if self.align_corners {
            ((coordinate + 1.0) / 2.0 * (n - 1.0), [0.0, n - 1.0])
        } else {
            (((coordinate + 1.0) * n - 1.0) / 2.0, [-0.5, n - 0.5])
        };
        (if self.interpolation == Interpolation::Nearest { place.round_ties_even() } else { place }, bounds)
    }

    /// The place that stands for one of which either coordinate is outside.
    fn brought_within(self, place: f32, n: usize, bounds: [f32; 2]) -> f32 {
        match self.padding {
            // of four pixels each way, each is held within the picture by itself
            Padding::Border if self.interpolation != Interpolation::Cubic => place.clamp(0.0, (n - 1) as f32),
            Padding::Zeros | Padding::Border => place,
            Padding::Reflection => reflect(place, bounds),
        }
    }

    /// The pixel that stands for pixel `i` of a side of `n`, and its weight: none for zeros.
    fn pixel(self, i: f32, n: usize, bounds: [f32; 2], weight: f32) -> (usize, f32) {
        let last = (n - 1) as f32;
        match self.padding {
            // what is no number stays none
            Padding::Zeros if i < 0.0 || i > last => (0, 0.0),
            Padding::Zeros | Padding::Border => (i.clamp(0.0, last) as usize, weight),
            Padding::Reflection => (reflect(i, bounds).clamp(0.0, last) as usize, weight),
        }
    }

    /// What a result at this place of a side is made of.
    fn taps(self, place: f32, n: usize, bounds: [f32; 2]) -> Taps {
        let mut all = [(0, 0.0); 4];
        let first = place.floor();
        let d = place - first;
        let (weights, before, count) = match self.interpolation {
            Interpolation::Nearest => ([if place.is_finite() { 1.0 } else { f32::NAN }, 0.0, 0.0, 0.0], 0.0, 1),
            Interpolation::Linear => ([1.0 - d, d, 0.0, 0.0], 0.0, 2),
            Interpolation::Cubic => (cubic(d), 1.0, 4),
        };
        for (k, tap) in all[..count].iter_mut().enumerate() {
            *tap = self.pixel(first - before + k as f32, n, bounds, weights[k]);
        }
        Taps { all, count }
    }
}

/// A place between two bounds that a place beyond them is reflected to, as often as it takes.
fn reflect(place: f32, [low, high]: [f32; 2]) -> f32 {
    let range = high - low;
    let beyond = if place < low { low - place } else { place - high };
    if beyond <= 0.0 || range <= 0.0 {
        return place.clamp(low, high);
    }
    let turns = (beyond / range).trunc();
    let rest = beyond - turns * range;
    // an even number of turns ends where it began
    if (place < low) == (turns % 2.0 == 0.0) { low + rest } else { high - rest }
}

/// The weights of the pixels before a place, and of those after it, which is `d` after the second.
fn cubic(d: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    [far(d + 1.0), near(d), near(1.0 - d), far(2.0 - d)]
}

/// Makes each pixel of the output of the input where the grid says, whose pairs of coordinates, x and y, lie together from
/// `grid` on in the order of the pixels. Parts are of the output's pixels.
///
/// # Panics
/// When a picture or the grid does not lie within the memory, or the pictures have not as many channels.
#[inline(always)]
pub(super) fn run(sampling: Sampling, input: ImageView, grid: usize, output: ImageView, part: Part, memory: Memory) {
    assert!(input.fits(memory.len()) && output.fits(memory.len()) && output.is_apart() && input.c == output.c);
    let pairs = output.h.checked_mul(output.w).and_then(|pixels| pixels.checked_mul(2)?.checked_add(grid));
    assert!(pairs.is_some_and(|end| end <= memory.len()));
    for (y, xs) in part.lines(output.h, output.w) {
        for x in xs {
            let at = grid + 2 * (y * output.w + x);
            let (across, of_columns) = sampling.place(memory.get(at), input.w);
            let (down, of_rows) = sampling.place(memory.get(at + 1), input.h);
            let outside = |place: f32, [low, high]: [f32; 2]| place < low || place > high;
            let (mut across, mut down) = (across, down);
            if outside(across, of_columns) || outside(down, of_rows) {
                across = sampling.brought_within(across, input.w, of_columns);
                down = sampling.brought_within(down, input.h, of_rows);
            }
            let (rows, columns) = (sampling.taps(down, input.h, of_rows), sampling.taps(across, input.w, of_columns));
            let to = output.start + y * output.row + x * output.pixel;
            // SAFETY: the assertions: taps are pixels of the input, and this is one of the output's.
            unsafe {
                resample::pixel(&rows.all[..rows.count], &columns.all[..columns.count], (input, to), output.c, memory);
            }
        }
    }
}
