//! 3×3 convolution by Winograd's F(2×2, 3×3) (arXiv 1509.09308): a 2×2 square of outputs takes 16 multiplications
//! instead of 36 for each pair of channels.
//!
//! The picture is cut into 4×4 windows that overlap by two. Each window is transformed into 16 numbers a channel, by
//! additions alone; for each of the 16, windows times weights is a matrix product; and the 16 results are transformed
//! into the four outputs. Windows are worked on in bands, so that what lies between stays in the cache.

use super::super::arena::View;
use super::conv::{Block, Run, Shape, accumulate};
use super::memory::{Memory, Part};
use super::simd::{Simd, WIDEST};

/// Numbers of a transformed window.
const POSITIONS: usize = 16;
/// About as many windows are worked on together.
const WINDOWS: usize = 48;

/// Whether this is the way for a convolution with an output of `h` by `w`: the channels are whole vectors, even of the
/// widest, and less than two thirds of the multiplications are left. The shape alone decides, so that every CPU rounds
/// alike.
pub fn suits(shape: &Shape, h: usize, w: usize) -> bool {
    let whole = shape.c_in.is_multiple_of(WIDEST) && shape.c_out.is_multiple_of(WIDEST);
    let fits = (shape.kernel, shape.stride, shape.padding) == ([3, 3], 1, [1, 1]);
    whole && fits && 3 * POSITIONS * h.div_ceil(2) * w.div_ceil(2) < 2 * 9 * h * w
}

/// The tile rows of a band.
fn band(columns: usize) -> usize {
    WINDOWS.div_ceil(columns)
}

/// The numbers that a run works with.
pub fn work_len(shape: &Shape, h: usize, w: usize) -> usize {
    let columns = w.div_ceil(2);
    let windows = band(columns).min(h.div_ceil(2)) * columns;
    POSITIONS * windows * (shape.c_in + shape.c_out)
}

/// Transforms a 3×3 kernel: `G g Gᵀ`.
pub fn transform_weights(g: [f64; 9]) -> [f64; POSITIONS] {
    let line = |a: f64, b: f64, c: f64| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
    let columns: [[f64; 4]; 3] = std::array::from_fn(|x| line(g[x], g[3 + x], g[6 + x]));
    std::array::from_fn(|i| {
        let y = i / 4;
        line(columns[0][y], columns[1][y], columns[2][y])[i % 4]
    })
}

/// Runs a convolution that [`suits`]. The caller has checked that input, output and residual lie within the arena.
///
/// # Safety
/// The CPU must have the features of `S`, and the views must lie within the arena.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(
    run: &Run,
    weights: &[f32],
    blocks: &[Block],
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    let (Shape { c_in, c_out, .. }, output) = (run.packed.shape, run.output);
    let (rows, columns) = (output.h.div_ceil(2), output.w.div_ceil(2));
    let band = band(columns).min(rows);
    let windows = band * columns;
    assert!(
        c_in.is_multiple_of(S::LANES) && c_out.is_multiple_of(S::LANES) && run.input.border.iter().all(|b| *b >= 1)
    );
    assert!(weights.len() >= POSITIONS * c_in * c_out && work.len() >= POSITIONS * windows * (c_in + c_out));
    let (inputs, results) = work.split_at_mut(POSITIONS * windows * c_in);
    let mine = part.range(rows * columns);
    for first in mine.clone().step_by(windows) {
        let count = windows.min(mine.end - first);
        // SAFETY: the assertions and the caller's promise: all windows of the band lie within the picture and its
        // border, and `inputs` and `results` have room for as many.
        unsafe {
            for i in 0..count {
                let (y, x) = (2 * ((first + i) / columns), 2 * ((first + i) % columns));
                window::<S>(run.input, (y, x), memory, inputs.as_mut_ptr().add(i * c_in), windows * c_in, c_in);
            }
            for position in 0..POSITIONS {
                let from = inputs.as_ptr().add(position * windows * c_in);
                let to = results.as_mut_ptr().add(position * windows * c_out);
                for block in blocks {
                    let lanes = block.vectors * S::LANES;
                    let weights = weights.as_ptr().add(block.weights + position * c_in * lanes);
                    let to = to.add(block.first);
                    match block.vectors {
                        1 => products::<S, 1>(weights, from, to, (count, c_in, c_out)),
                        2 => products::<S, 2>(weights, from, to, (count, c_in, c_out)),
                        3 => products::<S, 3>(weights, from, to, (count, c_in, c_out)),
                        _ => products::<S, 4>(weights, from, to, (count, c_in, c_out)),
                    }
                }
            }
            for block in blocks {
                for v in 0..block.vectors {
                    let start = run.start::<S>(*block, v);
                    let c = block.first + v * S::LANES;
                    for i in 0..count {
                        let (y, x) = (2 * ((first + i) / columns), 2 * ((first + i) % columns));
                        let from = results.as_ptr().add(i * c_out + c);
                        square::<S>(run, (y, x, c), start, from, windows * c_out, memory);
                    }
                }
            }
        }
    }
}

/// Transforms the window whose outputs begin at (y, x): `Bᵀ d B`, its numbers `apart` from one another.
///
/// # Safety
/// The CPU must have the features of `S`; the window must lie within the picture and its border, and `to` have room.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "k is a column, and the lines are rows")]
unsafe fn window<S: Simd>(
    input: View,
    (y, x): (usize, usize),
    memory: Memory,
    to: *mut f32,
    apart: usize,
    c_in: usize,
) {
    // one row and one column of the border are zeros: they stand for all beyond
    let row: [usize; 4] = std::array::from_fn(|i| (y + i).min(input.h + 1));
    let column: [usize; 4] = std::array::from_fn(|i| (x + i).min(input.w + 1));
    let corner = input.start - input.row - input.pixel;
    // SAFETY: the caller's promise.
    unsafe {
        for c in (0..c_in).step_by(S::LANES) {
            let mut lines = [[S::splat(0.0); 4]; 4];
            for (r, line) in lines.iter_mut().enumerate() {
                for (k, d) in line.iter_mut().enumerate() {
                    *d = S::load(memory.arena().add(corner + row[r] * input.row + column[k] * input.pixel + c));
                }
                *line = line_in::<S>(*line);
            }
            for k in 0..4 {
                let done = line_in::<S>([lines[0][k], lines[1][k], lines[2][k], lines[3][k]]);
                for (r, v) in done.into_iter().enumerate() {
                    S::store(to.add((4 * r + k) * apart + c), v);
                }
            }
        }
    }
}

// Not closures: compilers leave those out of line, where vectors go through memory.

/// `Bᵀ d`.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
unsafe fn line_in<S: Simd>([a, b, c, d]: [S::F; 4]) -> [S::F; 4] {
    // SAFETY: the caller's promise.
    unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
}

/// `Aᵀ m`.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
unsafe fn line_out<S: Simd>([a, b, c, d]: [S::F; 4]) -> [S::F; 2] {
    // SAFETY: the caller's promise.
    unsafe { [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)] }
}

/// Windows times weights, for V vectors of output channels.
///
/// # Safety
/// The CPU must have the features of `S`; all of the weights, windows and results must be there.
#[inline(always)]
unsafe fn products<S: Simd, const V: usize>(
    weights: *const f32,
    from: *const f32,
    to: *mut f32,
    (count, c_in, c_out): (usize, usize, usize),
) {
    if V > S::PIXELS.len() {
        return;
    }
    let mut first = 0;
    let each = count.div_ceil(count.div_ceil(S::PIXELS[V - 1]));
    while first < count {
        // SAFETY: the caller's promise, for the windows that are left.
        unsafe {
            let (from, to) = (from.add(first * c_in), to.add(first * c_out));
            match each.min(count - first) {
                1 => tile::<S, V, 1>(weights, from, to, c_in, c_out),
                2 => tile::<S, V, 2>(weights, from, to, c_in, c_out),
                3 => tile::<S, V, 3>(weights, from, to, c_in, c_out),
                4 => tile::<S, V, 4>(weights, from, to, c_in, c_out),
                5 => tile::<S, V, 5>(weights, from, to, c_in, c_out),
                6 => tile::<S, V, 6>(weights, from, to, c_in, c_out),
                7 => tile::<S, V, 7>(weights, from, to, c_in, c_out),
                _ => tile::<S, V, 8>(weights, from, to, c_in, c_out),
            }
        }
        first += each;
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const V: usize, const P: usize>(
    weights: *const f32,
    from: *const f32,
    to: *mut f32,
    c_in: usize,
    c_out: usize,
) {
    if V > S::PIXELS.len() || P > S::PIXELS[V - 1] {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; P];
        accumulate::<S, V, P>(&mut sums, weights, from, c_in, c_in);
        for (p, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                S::store(to.add(p * c_out + v * S::LANES), sum);
            }
        }
    }
}

/// The outputs at (y, x) and beside and below it, as far as there are any, of a vector of channels from c: `Aᵀ m A`,
/// plus `start` and the residual.
///
/// # Safety
/// The CPU must have the features of `S`; `from` must hold the results, and the views lie within the arena.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "k is a column, and the lines are rows")]
unsafe fn square<S: Simd>(
    run: &Run,
    (y, x, c): (usize, usize, usize),
    start: S::F,
    from: *const f32,
    apart: usize,
    memory: Memory,
) {
    let (output, base) = (run.output, memory.arena());
    let (height, width) = ((output.h - y).min(2), (output.w - x).min(2));
    // SAFETY: the caller's promise.
    unsafe {
        let mut lines = [[S::splat(0.0); 2]; 4];
        for (r, line) in lines.iter_mut().enumerate() {
            let at = from.add(4 * r * apart);
            let of = [S::load(at), S::load(at.add(apart)), S::load(at.add(2 * apart)), S::load(at.add(3 * apart))];
            *line = line_out::<S>(of);
        }
        for k in 0..width {
            let done = line_out::<S>([lines[0][k], lines[1][k], lines[2][k], lines[3][k]]);
            for (r, sum) in done.into_iter().enumerate().take(height) {
                let (row, pixel) = (y + r, x + k);
                let mut sum = S::add(sum, start);
                if let Some(v) = run.residual {
                    sum = S::add(sum, S::load(base.add(v.start + row * v.row + pixel * v.pixel + c)));
                }
                S::store(base.add(output.start + row * output.row + pixel * output.pixel + c), sum);
            }
        }
    }
}
