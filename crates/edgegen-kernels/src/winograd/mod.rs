//! 3×3 convolution by Winograd's minimal filtering (arXiv 1509.09308): a square of 2×2 outputs takes 16 multiplications
//! instead of 36 for each pair of channels, F(2×2, 3×3), and one of 4×4 outputs 36 instead of 144, F(4×4, 3×3).
//!
//! The picture is cut into windows that overlap by two pixels. Each window is transformed into as many numbers a channel;
//! for each of these, windows times weights is a matrix product; and the results are transformed into the square of
//! outputs. Windows are worked on in bands, so that what lies between stays in the cache.
//!
//! That is here; with what numbers, in a `Way`: of floats (`float.rs`), or exactly, of integers (`exact.rs`).

pub mod exact;
pub mod float;

use super::conv::{Block, Shape};
use super::memory::{Memory, Part};
use super::simd::WIDEST;
use crate::arena::View;

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

    /// The numbers of 32 bits that a run works with, for an output of `h` by `w`.
    pub fn work_len(self, shape: &Shape, h: usize, w: usize) -> usize {
        let (rows, columns) = self.windows(h, w);
        self.positions() * band(columns).min(rows) * columns * (shape.c_in + shape.c_out)
    }
}

/// The squares to make for a convolution with an output of `h` by `w`, the better one first, if this is the way for it:
/// the channels are whole vectors, even of the widest, and less than two thirds of the multiplications are left. The
/// larger square is for pictures of as `many` windows, which share the loading of its weights, four times as many as there
/// were. The shape alone decides, so that every CPU rounds alike.
pub fn suits(shape: &Shape, h: usize, w: usize, many: usize) -> impl Iterator<Item = Square> {
    let whole = shape.c_in.is_multiple_of(WIDEST) && shape.c_out.is_multiple_of(WIDEST);
    let fits = whole && (shape.kernel, shape.stride, shape.padding) == ([3, 3], 1, [1, 1]);
    let count = move |s: Square| s.windows(h, w).0 * s.windows(h, w).1;
    let saves = move |s: Square| 3 * s.positions() * count(s) < 2 * 9 * h * w;
    let many = count(Square::Four) >= many;
    [many.then_some(Square::Four), Some(Square::Two)].into_iter().flatten().filter(move |s| fits && saves(*s))
}

/// The rows of windows of a band.
fn band(columns: usize) -> usize {
    WINDOWS.div_ceil(columns)
}

/// Transforms a 3×3 kernel, `G g Gᵀ`, given what `G` makes of a line.
fn transform_weights<G: Copy, const N: usize>(g: [G; 9], line: impl Fn([G; 3]) -> [G; N]) -> [[G; N]; N] {
    let [a, b, c]: [[G; N]; 3] = std::array::from_fn(|x| line([g[x], g[3 + x], g[6 + x]]));
    std::array::from_fn(|y| line([a[y], b[y], c[y]]))
}

/// What is made of kernels, by blocks of output channels, positions and input channels, of which `pair` lie together for
/// each output channel. `transform` gives the numbers of all positions of a kernel.
fn pack<K: Copy, T: Copy + Default, const N: usize>(
    kernels: &[K],
    (blocks, lanes, pair): (&[Block], usize, usize),
    c_in: usize,
    transform: impl Fn(K) -> [[T; N]; N],
) -> Vec<T> {
    let positions = N * N;
    let mut packed = vec![T::default(); blocks.iter().map(|b| b.vectors * lanes * positions * c_in).sum()];
    let mut lines = Vec::new();
    for block in blocks {
        let width = block.vectors * lanes;
        let packed = &mut packed[block.weights..][..width * positions * c_in];
        lines.clear();
        lines.resize(positions * width, T::default());
        for c in 0..c_in {
            // an input channel's numbers for all of the block, then a line of them for each position
            for i in 0..block.channels {
                let numbers = transform(kernels[(block.first + i) * c_in + c]);
                let to = lines.iter_mut().skip(i).step_by(width);
                to.zip(numbers.as_flattened()).for_each(|(to, v)| *to = *v);
            }
            for (position, line) in lines.chunks_exact(width).enumerate() {
                let to = &mut packed[(position * c_in + c / pair * pair) * width..][..pair * width];
                to.iter_mut().skip(c % pair).step_by(pair).zip(line).for_each(|(to, v)| *to = *v);
            }
        }
    }
    packed
}

/// The arithmetic for windows of N×N that make squares of M×M, and where a run's results go.
///
/// # Safety
/// Of every function: the CPU must have the features of the vectors. Pointers and places must be good for what is said
/// of them.
trait Way<const N: usize, const M: usize>: Copy {
    /// A number of a transformed window, or of the weights, and a vector of [`CHANNELS`](Self::CHANNELS) of them.
    type Number;
    type Window: Copy;
    /// A sum of products, and a vector of [`LANES`](Self::LANES) of them.
    type Sum;
    type Sums: Copy;
    /// What is added to a vector of output channels.
    type Start: Copy;
    const CHANNELS: usize;
    const LANES: usize;
    /// The windows that a tile of 1, 2, … vectors of output channels may have without spilling registers.
    const PIXELS: &'static [usize];

    /// Channels of the input, from number `at` on.
    unsafe fn read(memory: Memory, at: usize) -> Self::Window;
    unsafe fn write(to: *mut Self::Number, v: Self::Window);
    /// `Bᵀ d`.
    unsafe fn line_in(d: [Self::Window; N]) -> [Self::Window; N];
    /// The sums of `c_in` products for V vectors of output channels and P windows, which lie one after the other.
    unsafe fn multiply<const V: usize, const P: usize>(
        weights: *const Self::Number,
        from: *const Self::Number,
        c_in: usize,
    ) -> [[Self::Sums; V]; P];
    unsafe fn store(to: *mut Self::Sum, v: Self::Sums);
    unsafe fn load(from: *const Self::Sum) -> Self::Sums;
    /// `Aᵀ m`.
    unsafe fn line_out(m: [Self::Sums; N]) -> [Self::Sums; M];
    /// For vector `v` of a block.
    unsafe fn start(self, block: Block, v: usize) -> Self::Start;
    /// Makes a vector of output channels, from `c` on, of the pixel at (y, x).
    unsafe fn finish(self, start: Self::Start, sums: Self::Sums, at: (usize, usize, usize), memory: Memory);
}

/// The sizes of a run: of its output in pixels, and of its channels.
#[derive(Clone, Copy)]
struct Sizes {
    h: usize,
    w: usize,
    c_in: usize,
    c_out: usize,
}

/// Runs a convolution that [`suits`] such squares.
///
/// # Safety
/// The CPU must have the features of the vectors; `input` must lie within the memory, as must what `way` writes to.
#[inline(always)]
unsafe fn run<Y: Way<N, M>, const N: usize, const M: usize>(
    way: Y,
    (input, Sizes { h, w, c_in, c_out }): (View, Sizes),
    (weights, blocks): (&[Y::Number], &[Block]),
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    let (rows, columns) = (h.div_ceil(M), w.div_ceil(M));
    let windows = band(columns).min(rows) * columns;
    let positions = N * N;
    assert!(c_in.is_multiple_of(WIDEST) && c_out.is_multiple_of(WIDEST) && input.border.iter().all(|b| *b >= 1));
    assert!(c_in.is_multiple_of(Y::CHANNELS) && c_out.is_multiple_of(Y::LANES));
    assert!(weights.len() >= positions * c_in * c_out && work.len() >= positions * windows * (c_in + c_out));
    assert!(size_of::<Y::Number>() <= 4 && size_of::<Y::Sum>() == 4);
    let (inputs, results) = work.split_at_mut(positions * windows * c_in);
    let (inputs, results) = (inputs.as_mut_ptr().cast::<Y::Number>(), results.as_mut_ptr().cast::<Y::Sum>());
    let mine = part.range(rows * columns);
    for first in mine.clone().step_by(windows) {
        let count = windows.min(mine.end - first);
        // SAFETY: the assertions and the caller's promise: all windows of the band lie within the picture and its
        // border, and `inputs` and `results` have room for as many.
        unsafe {
            for i in 0..count {
                let (y, x) = (M * ((first + i) / columns), M * ((first + i) % columns));
                window::<Y, N, M>(input, (y, x), memory, inputs.add(i * c_in), windows * c_in, c_in);
            }
            // a block's weights lie in this order, so that fetching them ahead pays
            for (block, position) in blocks.iter().flat_map(|b| (0..positions).map(move |p| (b, p))) {
                let lanes = block.vectors * Y::LANES;
                let weights = weights.as_ptr().add(block.weights + position * c_in * lanes);
                let from = inputs.add(position * windows * c_in);
                let to = results.add(position * windows * c_out + block.first);
                match block.vectors {
                    1 => products::<Y, N, M, 1>(weights, from, to, (count, c_in, c_out)),
                    2 => products::<Y, N, M, 2>(weights, from, to, (count, c_in, c_out)),
                    3 => products::<Y, N, M, 3>(weights, from, to, (count, c_in, c_out)),
                    _ => products::<Y, N, M, 4>(weights, from, to, (count, c_in, c_out)),
                }
            }
            for block in blocks {
                for v in 0..block.vectors {
                    let start = way.start(*block, v);
                    let c = block.first + v * Y::LANES;
                    for i in 0..count {
                        let (y, x) = (M * ((first + i) / columns), M * ((first + i) % columns));
                        let sides = [(h - y).min(M), (w - x).min(M)];
                        outputs::<Y, N, M>(
                            way,
                            (y, x, c),
                            sides,
                            start,
                            results.add(i * c_out + c),
                            windows * c_out,
                            memory,
                        );
                    }
                }
            }
        }
    }
}

/// Transforms the window whose outputs begin at (y, x): `Bᵀ d B`, its numbers `apart` from one another.
///
/// # Safety
/// As [`run`]'s; the window must lie within the picture and its border, and `to` have room.
#[inline(always)]
unsafe fn window<Y: Way<N, M>, const N: usize, const M: usize>(
    input: View,
    (y, x): (usize, usize),
    memory: Memory,
    to: *mut Y::Number,
    apart: usize,
    c_in: usize,
) {
    // one row and one column of the border are zeros: they stand for all beyond
    let row: [usize; N] = std::array::from_fn(|i| (y + i).min(input.h + 1));
    let column: [usize; N] = std::array::from_fn(|i| (x + i).min(input.w + 1));
    let corner = input.start - input.row - input.pixel;
    // SAFETY: the caller's promise.
    unsafe {
        for c in (0..c_in).step_by(Y::CHANNELS) {
            let mut lines = [[Y::read(memory, corner + row[0] * input.row + column[0] * input.pixel + c); N]; N];
            for (r, line) in lines.iter_mut().enumerate() {
                for (k, d) in line.iter_mut().enumerate() {
                    *d = Y::read(memory, corner + row[r] * input.row + column[k] * input.pixel + c);
                }
                *line = Y::line_in(*line);
            }
            for k in 0..N {
                let mut of = [lines[0][k]; N];
                for (v, line) in of.iter_mut().zip(&lines) {
                    *v = line[k];
                }
                for (r, &v) in Y::line_in(of).iter().enumerate() {
                    Y::write(to.add((N * r + k) * apart + c), v);
                }
            }
        }
    }
}

/// Windows times weights, for V vectors of output channels.
///
/// # Safety
/// As [`run`]'s; all of the weights, windows and results must be there.
#[inline(always)]
unsafe fn products<Y: Way<N, M>, const N: usize, const M: usize, const V: usize>(
    weights: *const Y::Number,
    from: *const Y::Number,
    to: *mut Y::Sum,
    (count, c_in, c_out): (usize, usize, usize),
) {
    if V > Y::PIXELS.len() {
        return;
    }
    let mut first = 0;
    let each = count.div_ceil(count.div_ceil(Y::PIXELS[V - 1]));
    while first < count {
        // SAFETY: the caller's promise, for the windows that are left.
        unsafe {
            let (from, to) = (from.add(first * c_in), to.add(first * c_out));
            match each.min(count - first) {
                1 => tile::<Y, N, M, V, 1>(weights, from, to, c_in, c_out),
                2 => tile::<Y, N, M, V, 2>(weights, from, to, c_in, c_out),
                3 => tile::<Y, N, M, V, 3>(weights, from, to, c_in, c_out),
                4 => tile::<Y, N, M, V, 4>(weights, from, to, c_in, c_out),
                5 => tile::<Y, N, M, V, 5>(weights, from, to, c_in, c_out),
                6 => tile::<Y, N, M, V, 6>(weights, from, to, c_in, c_out),
                7 => tile::<Y, N, M, V, 7>(weights, from, to, c_in, c_out),
                _ => tile::<Y, N, M, V, 8>(weights, from, to, c_in, c_out),
            }
        }
        first += each;
    }
}

#[inline(always)]
unsafe fn tile<Y: Way<N, M>, const N: usize, const M: usize, const V: usize, const P: usize>(
    weights: *const Y::Number,
    from: *const Y::Number,
    to: *mut Y::Sum,
    c_in: usize,
    c_out: usize,
) {
    if V > Y::PIXELS.len() || P > Y::PIXELS[V - 1] {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        for (p, sums) in Y::multiply::<V, P>(weights, from, c_in).iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                Y::store(to.add(p * c_out + v * Y::LANES), sum);
            }
        }
    }
}

/// The outputs at (y, x) and beside and below it, as far as there are any, of a vector of channels from c: `Aᵀ m A`.
///
/// # Safety
/// As [`run`]'s; `from` must hold the results.
#[inline(always)]
unsafe fn outputs<Y: Way<N, M>, const N: usize, const M: usize>(
    way: Y,
    (y, x, c): (usize, usize, usize),
    [height, width]: [usize; 2],
    start: Y::Start,
    from: *const Y::Sum,
    apart: usize,
    memory: Memory,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut lines = [[Y::load(from); M]; N];
        for (r, line) in lines.iter_mut().enumerate() {
            let mut of = [Y::load(from.add(N * r * apart)); N];
            for (k, v) in of.iter_mut().enumerate() {
                *v = Y::load(from.add((N * r + k) * apart));
            }
            *line = Y::line_out(of);
        }
        for k in 0..width {
            let mut of = [lines[0][k]; N];
            for (v, line) in of.iter_mut().zip(&lines) {
                *v = line[k];
            }
            for (r, &sum) in Y::line_out(of).iter().enumerate().take(height) {
                way.finish(start, sum, (y + r, x + k, c), memory);
            }
        }
    }
}
