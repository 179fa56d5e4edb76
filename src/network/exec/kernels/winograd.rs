//! 3×3 convolution by Winograd's minimal filtering (arXiv 1509.09308): a square of 2×2 outputs takes 16 multiplications
//! instead of 36 for each pair of channels, F(2×2, 3×3), and one of 4×4 outputs 36 instead of 144, F(4×4, 3×3).
//!
//! The picture is cut into windows that overlap by two pixels. Each window is transformed into as many numbers a channel;
//! for each of these, windows times weights is a matrix product; and the results are transformed into the square of
//! outputs. Windows are worked on in bands, so that what lies between stays in the cache.

use super::super::arena::View;
use super::conv::{Block, Run, Shape, accumulate};
use super::memory::{Memory, Part};
use super::simd::{Simd, WIDEST};

/// About as many windows are worked on together.
const WINDOWS: usize = 48;

/// The side of the square of outputs that one window makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Square {
    /// 2×2, from windows of 4×4.
    Two,
    /// 4×4, from windows of 6×6.
    Four,
}

impl Square {
    fn side(self) -> usize {
        match self {
            Square::Two => 2,
            Square::Four => 4,
        }
    }

    /// Numbers of a transformed window.
    pub fn positions(self) -> usize {
        (self.side() + 2).pow(2)
    }

    /// Rows and columns of windows for an output of `h` by `w`.
    fn windows(self, h: usize, w: usize) -> (usize, usize) {
        (h.div_ceil(self.side()), w.div_ceil(self.side()))
    }

    /// Transforms a 3×3 kernel: `G g Gᵀ`.
    fn weights(self, g: [f64; 9], put: impl FnMut(usize, f64)) {
        match self {
            Square::Two => transform_weights::<Two, 4, 2>(g, put),
            Square::Four => transform_weights::<Four, 6, 4>(g, put),
        }
    }

    /// The numbers that a run works with, for an output of `h` by `w`.
    pub fn work_len(self, shape: &Shape, h: usize, w: usize) -> usize {
        let (rows, columns) = self.windows(h, w);
        self.positions() * band(columns).min(rows) * columns * (shape.c_in + shape.c_out)
    }
}

/// The square to make for a convolution with an output of `h` by `w`, if this is the way for it: the channels are whole
/// vectors, even of the widest, and less than two thirds of the multiplications are left. The larger square is for
/// pictures of many windows, which share the loading of its weights, four times as many as there were. The shape alone
/// decides, so that every CPU rounds alike.
pub fn suits(shape: &Shape, h: usize, w: usize) -> Option<Square> {
    let whole = shape.c_in.is_multiple_of(WIDEST) && shape.c_out.is_multiple_of(WIDEST);
    let fits = (shape.kernel, shape.stride, shape.padding) == ([3, 3], 1, [1, 1]);
    let count = |s: Square| s.windows(h, w).0 * s.windows(h, w).1;
    let saves = |s: Square| 3 * s.positions() * count(s) < 2 * 9 * h * w;
    let many = count(Square::Four) >= MANY;
    [many.then_some(Square::Four), Some(Square::Two)].into_iter().flatten().find(|s| whole && fits && saves(*s))
}

/// Windows that the larger square is for, as measured.
const MANY: usize = 48;

/// Transforms the weights `[C_out, C_in, 3, 3]`, and arranges them by blocks of output channels, positions and input channels.
pub fn pack(square: Square, weights: &[f32], blocks: &[Block], lanes: usize, c_in: usize) -> Vec<f32> {
    let positions = square.positions();
    let mut packed = vec![0.0; blocks.iter().map(|b| b.vectors * lanes * positions * c_in).sum()];
    let kernels = weights.as_chunks::<9>().0;
    let mut lines = Vec::new();
    for block in blocks {
        let width = block.vectors * lanes;
        let packed = &mut packed[block.weights..][..width * positions * c_in];
        lines.clear();
        lines.resize(positions * width, 0.0);
        for c in 0..c_in {
            // an input channel's numbers for all of the block, then a line of them for each position
            for i in 0..block.channels {
                let kernel = kernels[(block.first + i) * c_in + c].map(f64::from);
                square.weights(kernel, |position, v| lines[position * width + i] = v as f32);
            }
            for (position, line) in lines.chunks_exact(width).enumerate() {
                packed[(position * c_in + c) * width..][..width].copy_from_slice(line);
            }
        }
    }
    packed
}

/// The rows of windows of a band.
fn band(columns: usize) -> usize {
    WINDOWS.div_ceil(columns)
}

/// How windows of N×N make squares of M×M, a line at a time.
trait Transform<const N: usize, const M: usize> {
    /// `G g`.
    fn weights(g: [f64; 3]) -> [f64; N];
    /// `Bᵀ d`.
    ///
    /// # Safety
    /// The CPU must have the features of `S`.
    unsafe fn line_in<S: Simd>(d: [S::F; N]) -> [S::F; N];
    /// `Aᵀ m`.
    ///
    /// # Safety
    /// The CPU must have the features of `S`.
    unsafe fn line_out<S: Simd>(m: [S::F; N]) -> [S::F; M];
}

/// By polynomials' values at 0, 1, -1 and infinity.
struct Two;

impl Transform<4, 2> for Two {
    fn weights([a, b, c]: [f64; 3]) -> [f64; 4] {
        [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c]
    }

    #[inline(always)]
    unsafe fn line_in<S: Simd>([a, b, c, d]: [S::F; 4]) -> [S::F; 4] {
        // SAFETY: the caller's promise.
        unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
    }

    #[inline(always)]
    unsafe fn line_out<S: Simd>([a, b, c, d]: [S::F; 4]) -> [S::F; 2] {
        // SAFETY: the caller's promise.
        unsafe { [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)] }
    }
}

/// At 0, ±[`A`], ±[`B`] and infinity: these rounded errors' greatest and their rms are a quarter and half of those of
/// ±1 and ±2, and all constants are exact.
struct Four;

const A: f32 = 0.625;
const B: f32 = 1.5;

impl Transform<6, 4> for Four {
    fn weights([a, b, c]: [f64; 3]) -> [f64; 6] {
        let value = |p: f64, other: f64| (a + p * b + p * p * c) / (2.0 * p * p * (p * p - other * other));
        let (p, q) = (f64::from(A), f64::from(B));
        [a / (p * p * q * q), value(p, q), value(-p, q), value(q, p), value(-q, p), c]
    }

    #[inline(always)]
    unsafe fn line_in<S: Simd>([a, b, c, d, e, f]: [S::F; 6]) -> [S::F; 6] {
        // SAFETY: the caller's promise.
        unsafe {
            let both = S::splat(-(A * A + B * B));
            let all = S::splat(A * A * B * B);
            let (even_a, odd_a) = (S::fma(c, S::splat(-B * B), e), S::fma(b, S::splat(-B * B), d));
            let (even_b, odd_b) = (S::fma(c, S::splat(-A * A), e), S::fma(b, S::splat(-A * A), d));
            [
                S::fma(a, all, S::fma(c, both, e)),
                S::fma(odd_a, S::splat(A), even_a),
                S::fma(odd_a, S::splat(-A), even_a),
                S::fma(odd_b, S::splat(B), even_b),
                S::fma(odd_b, S::splat(-B), even_b),
                S::fma(b, all, S::fma(d, both, f)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn line_out<S: Simd>([a, b, c, d, e, f]: [S::F; 6]) -> [S::F; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let (even_a, odd_a) = (S::add(b, c), S::sub(b, c));
            let (even_b, odd_b) = (S::add(d, e), S::sub(d, e));
            [
                S::add(a, S::add(even_a, even_b)),
                S::fma(odd_b, S::splat(B), S::mul(odd_a, S::splat(A))),
                S::fma(even_b, S::splat(B * B), S::mul(even_a, S::splat(A * A))),
                S::fma(odd_b, S::splat(B * B * B), S::fma(odd_a, S::splat(A * A * A), f)),
            ]
        }
    }
}

fn transform_weights<T: Transform<N, M>, const N: usize, const M: usize>(g: [f64; 9], mut put: impl FnMut(usize, f64)) {
    let [a, b, c]: [[f64; N]; 3] = std::array::from_fn(|x| T::weights([g[x], g[3 + x], g[6 + x]]));
    for (y, ((a, b), c)) in a.into_iter().zip(b).zip(c).enumerate() {
        T::weights([a, b, c]).into_iter().enumerate().for_each(|(x, v)| put(N * y + x, v));
    }
}

/// Runs a convolution that [`suits`] this square. The caller has checked that input, output and residual lie within the
/// arena.
///
/// # Safety
/// The CPU must have the features of `S`, and the views must lie within the arena.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(
    square: Square,
    run: &Run,
    (weights, blocks): (&[f32], &[Block]),
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match square {
            Square::Two => run_of::<S, Two, 4, 2>(square, run, (weights, blocks), part, work, memory),
            Square::Four => run_of::<S, Four, 6, 4>(square, run, (weights, blocks), part, work, memory),
        }
    }
}

#[inline(always)]
unsafe fn run_of<S: Simd, T: Transform<N, M>, const N: usize, const M: usize>(
    square: Square,
    run: &Run,
    (weights, blocks): (&[f32], &[Block]),
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    let (Shape { c_in, c_out, .. }, output) = (run.packed.shape, run.output);
    let (rows, columns) = square.windows(output.h, output.w);
    let windows = band(columns).min(rows) * columns;
    let positions = N * N;
    assert!(
        c_in.is_multiple_of(S::LANES) && c_out.is_multiple_of(S::LANES) && run.input.border.iter().all(|b| *b >= 1)
    );
    assert!(weights.len() >= positions * c_in * c_out && work.len() >= positions * windows * (c_in + c_out));
    let (inputs, results) = work.split_at_mut(positions * windows * c_in);
    let mine = part.range(rows * columns);
    for first in mine.clone().step_by(windows) {
        let count = windows.min(mine.end - first);
        // SAFETY: the assertions and the caller's promise: all windows of the band lie within the picture and its
        // border, and `inputs` and `results` have room for as many.
        unsafe {
            for i in 0..count {
                let (y, x) = (M * ((first + i) / columns), M * ((first + i) % columns));
                let to = inputs.as_mut_ptr().add(i * c_in);
                window::<S, T, N, M>(run.input, (y, x), memory, to, windows * c_in, c_in);
            }
            // a block's weights lie in this order, so that fetching them ahead pays
            for (block, position) in blocks.iter().flat_map(|b| (0..positions).map(move |p| (b, p))) {
                let lanes = block.vectors * S::LANES;
                let weights = weights.as_ptr().add(block.weights + position * c_in * lanes);
                let from = inputs.as_ptr().add(position * windows * c_in);
                let to = results.as_mut_ptr().add(position * windows * c_out + block.first);
                match block.vectors {
                    1 => products::<S, 1>(weights, from, to, (count, c_in, c_out)),
                    2 => products::<S, 2>(weights, from, to, (count, c_in, c_out)),
                    3 => products::<S, 3>(weights, from, to, (count, c_in, c_out)),
                    _ => products::<S, 4>(weights, from, to, (count, c_in, c_out)),
                }
            }
            for block in blocks {
                for v in 0..block.vectors {
                    let start = run.start::<S>(*block, v);
                    let c = block.first + v * S::LANES;
                    for i in 0..count {
                        let (y, x) = (M * ((first + i) / columns), M * ((first + i) % columns));
                        let from = results.as_ptr().add(i * c_out + c);
                        outputs::<S, T, N, M>(run, (y, x, c), start, from, windows * c_out, memory);
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
unsafe fn window<S: Simd, T: Transform<N, M>, const N: usize, const M: usize>(
    input: View,
    (y, x): (usize, usize),
    memory: Memory,
    to: *mut f32,
    apart: usize,
    c_in: usize,
) {
    // one row and one column of the border are zeros: they stand for all beyond
    let row: [usize; N] = std::array::from_fn(|i| (y + i).min(input.h + 1));
    let column: [usize; N] = std::array::from_fn(|i| (x + i).min(input.w + 1));
    let corner = input.start - input.row - input.pixel;
    // SAFETY: the caller's promise.
    unsafe {
        for c in (0..c_in).step_by(S::LANES) {
            let mut lines = [[S::splat(0.0); N]; N];
            for (r, line) in lines.iter_mut().enumerate() {
                for (k, d) in line.iter_mut().enumerate() {
                    *d = S::load(memory.arena().add(corner + row[r] * input.row + column[k] * input.pixel + c));
                }
                *line = T::line_in::<S>(*line);
            }
            for k in 0..N {
                let mut of = [S::splat(0.0); N];
                for (v, line) in of.iter_mut().zip(&lines) {
                    *v = line[k];
                }
                for (r, &v) in T::line_in::<S>(of).iter().enumerate() {
                    S::store(to.add((N * r + k) * apart + c), v);
                }
            }
        }
    }
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
        accumulate::<S, f32, V, P>(&mut sums, weights, from, c_in, c_in);
        for (p, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
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
unsafe fn outputs<S: Simd, T: Transform<N, M>, const N: usize, const M: usize>(
    run: &Run,
    (y, x, c): (usize, usize, usize),
    start: S::F,
    from: *const f32,
    apart: usize,
    memory: Memory,
) {
    let (output, base) = (run.output, memory.arena());
    let (height, width) = ((output.h - y).min(M), (output.w - x).min(M));
    // SAFETY: the caller's promise.
    unsafe {
        let mut lines = [[S::splat(0.0); M]; N];
        for (r, line) in lines.iter_mut().enumerate() {
            let mut of = [S::splat(0.0); N];
            for (k, v) in of.iter_mut().enumerate() {
                *v = S::load(from.add((N * r + k) * apart));
            }
            *line = T::line_out::<S>(of);
        }
        for k in 0..width {
            let mut of = [S::splat(0.0); N];
            for (v, line) in of.iter_mut().zip(&lines) {
                *v = line[k];
            }
            for (r, &sum) in T::line_out::<S>(of).iter().enumerate().take(height) {
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
