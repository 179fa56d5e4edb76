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
use super::memory::Part;
use super::pointer::{Plain, Source, Target};
use super::simd::{Outline, Vector, WIDEST};
use crate::arena::ImageView;

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

    /// The numbers of 32 bits that a run works with, for an output of `h` by `w`; none if that is more than can be counted.
    pub fn work_len(self, shape: &Shape, h: usize, w: usize) -> Option<usize> {
        let (rows, columns) = self.windows(h, w);
        let windows = band(columns).min(rows).checked_mul(columns)?;
        windows.checked_mul(self.positions())?.checked_mul(shape.c_in.checked_add(shape.c_out)?)
    }
}

/// The squares to make for a convolution with an output of `h` by `w`, the better one first, if this is the way for it:
/// the channels are whole vectors, even of the widest, and less than two thirds of the multiplications are left. The
/// larger square is for pictures of as `many` windows, which share the loading of its weights, four times as many as there
/// were. The shape alone decides, so that every CPU rounds alike.
pub fn suits(shape: &Shape, h: usize, w: usize, many: usize) -> impl Iterator<Item = Square> {
    let fits = can(shape);
    let count = move |s: Square| s.windows(h, w).0.saturating_mul(s.windows(h, w).1);
    let saves =
        move |s: Square| (3 * s.positions()).saturating_mul(count(s)) < 18usize.saturating_mul(h).saturating_mul(w);
    let many = count(Square::Four) >= many;
    [many.then_some(Square::Four), Some(Square::Two)].into_iter().flatten().filter(move |s| fits && saves(*s))
}

/// Whether a convolution can be worked out so: the kernel is 3×3 with the border that this needs, and the channels are
/// whole vectors, even of the widest.
pub(super) fn can(shape: &Shape) -> bool {
    let whole = shape.c_in.is_multiple_of(WIDEST) && shape.c_out.is_multiple_of(WIDEST);
    whole && *shape == Shape::plain(shape.c_out, shape.c_in, [3, 3], [1, 1])
}

/// The rows of windows of a band.
fn band(columns: usize) -> usize {
    WINDOWS.div_ceil(columns.max(1))
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
trait Way<const N: usize, const M: usize>: Copy {
    /// A number of a transformed window, or of the weights, and a vector of [`CHANNELS`](Self::CHANNELS) of them.
    type Number: Plain;
    type Window: Plain;
    /// A sum of products, and a vector of [`LANES`](Self::LANES) of them.
    type Sum: Plain;
    type Sums: Plain;
    /// Both as they lie in the work space.
    type StoredWindow: Plain;
    type StoredSums: Plain;
    /// What is added to a vector of output channels.
    type Start: Copy;
    /// The vectors of this kind of CPU.
    type Simd: Vector;
    const CHANNELS: usize;
    const LANES: usize;
    /// The windows that a tile of 1, 2, … vectors of output channels may have without spilling registers.
    const PIXELS: &'static [usize];

    fn simd(self) -> Self::Simd;
    fn store_window(self, window: Self::Window) -> Self::StoredWindow;
    fn store_sums(self, sums: Self::Sums) -> Self::StoredSums;
    fn load_sums(self, stored: Self::StoredSums) -> Self::Sums;
    /// Channels of the input, from number `at` of the memory on.
    ///
    /// # Safety
    /// They must be there.
    unsafe fn read(self, at: usize) -> Self::Window;
    /// `Bᵀ d`.
    fn line_in(self, d: [Self::Window; N]) -> [Self::Window; N];
    /// The sums of `c_in` products for V vectors of output channels and P windows, which lie one after the other.
    ///
    /// # Safety
    /// All of these weights and windows must be there.
    unsafe fn multiply<const V: usize, const P: usize>(
        self,
        weights: Source<Self::Number>,
        from: Source<Self::Number>,
        c_in: usize,
    ) -> [[Self::Sums; V]; P];
    /// `Aᵀ m`.
    fn line_out(self, m: [Self::Sums; N]) -> [Self::Sums; M];
    /// For vector `v` of a block.
    fn start(self, block: Block, v: usize) -> Self::Start;
    /// Makes a vector of output channels, from `c` on, of the pixel at (y, x).
    ///
    /// # Safety
    /// The output must have that pixel, with as many channels.
    unsafe fn finish(self, start: Self::Start, sums: Self::Sums, at: (usize, usize, usize));
}

/// The sizes of a run: of its output in pixels, and of its channels.
#[derive(Clone, Copy)]
struct Sizes {
    h: usize,
    w: usize,
    c_in: usize,
    c_out: usize,
}

/// The windows of a band, and where their transformed numbers and the sums of products lie in the work space: by position,
/// and in each of them by window, of which there is room for `windows`.
#[derive(Clone, Copy)]
struct Band<'a, Y: Way<N, M>, const N: usize, const M: usize> {
    way: Y,
    /// The first window, and how many there are.
    first: usize,
    count: usize,
    /// Windows of a row of them.
    columns: usize,
    windows: usize,
    sizes: Sizes,
    inputs: Target<'a, Y::Number>,
    results: Target<'a, Y::Sum>,
}

/// Runs a convolution that [`suits`] such squares. `way` is of a checked run, whose input is this one.
///
/// # Panics
/// When the work space is too small.
#[inline(always)]
fn run<Y: Way<N, M>, const N: usize, const M: usize>(
    way: Y,
    (input, sizes): (ImageView, Sizes),
    (weights, blocks): (&[Y::Number], &[Block]),
    part: Part,
    work: &mut [f32],
) {
    let Sizes { h, w, c_in, c_out } = sizes;
    let (rows, columns) = (h.div_ceil(M), w.div_ceil(M));
    let windows = band(columns).min(rows) * columns;
    // numbers of 32 bits that those of the work space take
    let words = |numbers: usize, bytes: usize| Some(numbers.checked_mul(bytes)?.div_ceil(4));
    let room = windows.checked_mul(N * N).and_then(|all| {
        let inputs = words(all.checked_mul(c_in)?, size_of::<Y::Number>())?;
        Some((inputs, words(all.checked_mul(c_out)?, size_of::<Y::Sum>())?))
    });
    let (of_inputs, of_results) = room.expect("sizes that can be counted");
    assert!(c_in.is_multiple_of(WIDEST) && c_out.is_multiple_of(WIDEST) && input.border.iter().all(|b| *b >= 1));
    assert!(c_in.is_multiple_of(Y::CHANNELS) && c_out.is_multiple_of(Y::LANES));
    assert!(weights.len() / c_in / c_out >= N * N && of_results <= work.len() && of_inputs <= work.len() - of_results);
    let (inputs, results) = work.split_at_mut(of_inputs);
    let (inputs, results) = (Target::of(inputs).cast(), Target::of(results).cast());
    let mine = part.range(rows * columns);
    for first in mine.clone().step_by(windows) {
        let count = windows.min(mine.end - first);
        let band = Band { way, first, count, columns, windows, sizes, inputs, results };
        for i in 0..count {
            // SAFETY: a checked run has its input within the memory, with a border; window `i` is one of the band.
            unsafe { band.transform(input, i) }
        }
        // a block's weights lie in this order, so that fetching them ahead pays
        for (block, position) in blocks.iter().flat_map(|b| (0..N * N).map(move |p| (b, p))) {
            let weights = Source::of(weights).skip(block.weights + position * c_in * block.vectors * Y::LANES);
            way.simd().outline(Product { band: &band, weights, block: *block, position });
        }
        for block in blocks {
            for v in 0..block.vectors {
                let start = way.start(*block, v);
                for i in 0..count {
                    // SAFETY: window `i` is one of the band, and the block has as many whole vectors, since channels are
                    // such.
                    unsafe { band.outputs(i, block.first + v * Y::LANES, start) }
                }
            }
        }
    }
}

/// The windows of a band times the weights of a position, for the output channels of a block.
struct Product<'a, Y: Way<N, M>, const N: usize, const M: usize> {
    band: &'a Band<'a, Y, N, M>,
    weights: Source<'a, Y::Number>,
    block: Block,
    position: usize,
}

impl<Y: Way<N, M>, const N: usize, const M: usize> Outline for Product<'_, Y, N, M> {
    #[inline(always)]
    fn run(self) {
        let Product { band, weights, block, position } = self;
        match block.vectors {
            1 => band.products::<1>(weights, block, position),
            2 => band.products::<2>(weights, block, position),
            3 => band.products::<3>(weights, block, position),
            _ => band.products::<4>(weights, block, position),
        }
    }
}

impl<Y: Way<N, M>, const N: usize, const M: usize> Band<'_, Y, N, M> {
    /// Where the outputs of window `i` begin.
    #[inline(always)]
    fn corner(&self, i: usize) -> (usize, usize) {
        (M * ((self.first + i) / self.columns), M * ((self.first + i) % self.columns))
    }

    /// Transforms a window: `Bᵀ d B`.
    ///
    /// # Safety
    /// The input must lie within the memory, with a border; the window must be one of the band.
    #[inline(always)]
    unsafe fn transform(&self, input: ImageView, i: usize) {
        let (way, Sizes { c_in, .. }) = (self.way, self.sizes);
        let ((y, x), to, apart) = (self.corner(i), self.inputs.skip(i * c_in), self.windows * c_in);
        // one row and one column of the border are zeros: they stand for all beyond
        let row: [usize; N] = std::array::from_fn(|i| (y + i).min(input.h + 1));
        let column: [usize; N] = std::array::from_fn(|i| (x + i).min(input.w + 1));
        let corner = input.start - input.row - input.pixel;
        for c in (0..c_in).step_by(Y::CHANNELS) {
            let mut lines = [[Y::Window::zeroed(); N]; N];
            for (r, line) in lines.iter_mut().enumerate() {
                for (k, d) in line.iter_mut().enumerate() {
                    // SAFETY: the caller's promise; channels are whole vectors.
                    *d = unsafe { way.read(corner + row[r] * input.row + column[k] * input.pixel + c) };
                }
                *line = way.line_in(*line);
            }
            for k in 0..N {
                let mut of = [lines[0][k]; N];
                for (v, line) in of.iter_mut().zip(&lines) {
                    *v = line[k];
                }
                for (r, &v) in way.line_in(of).iter().enumerate() {
                    // SAFETY: the work space has room for all positions of all windows of the band.
                    unsafe { to.store((N * r + k) * apart + c, way.store_window(v)) }
                }
            }
        }
    }

    /// As [`Product`], for the V vectors of output channels of a block.
    #[inline(always)]
    fn products<const V: usize>(&self, weights: Source<Y::Number>, block: Block, position: usize) {
        if V > Y::PIXELS.len() {
            return;
        }
        let Sizes { c_in, c_out, .. } = self.sizes;
        assert!(V == block.vectors && position < N * N);
        let from = self.inputs.source().skip(position * self.windows * c_in);
        let to = self.results.skip(position * self.windows * c_out + block.first);
        let mut first = 0;
        let each = self.count.div_ceil(self.count.div_ceil(Y::PIXELS[V - 1]));
        while first < self.count {
            let (from, to) = (from.skip(first * c_in), to.skip(first * c_out));
            match each.min(self.count - first) {
                // SAFETY: so many windows of the band are left, and the block has V vectors.
                1 => unsafe { self.tile::<V, 1>(weights, from, to) },
                // SAFETY: so many windows of the band are left, and the block has V vectors.
                2 => unsafe { self.tile::<V, 2>(weights, from, to) },
                // SAFETY: so many windows of the band are left, and the block has V vectors.
                3 => unsafe { self.tile::<V, 3>(weights, from, to) },
                // SAFETY: so many windows of the band are left, and the block has V vectors.
                4 => unsafe { self.tile::<V, 4>(weights, from, to) },
                // SAFETY: so many windows of the band are left, and the block has V vectors.
                5 => unsafe { self.tile::<V, 5>(weights, from, to) },
                // SAFETY: so many windows of the band are left, and the block has V vectors.
                6 => unsafe { self.tile::<V, 6>(weights, from, to) },
                // SAFETY: so many windows of the band are left, and the block has V vectors.
                7 => unsafe { self.tile::<V, 7>(weights, from, to) },
                // SAFETY: so many windows of the band are left, and the block has V vectors.
                _ => unsafe { self.tile::<V, 8>(weights, from, to) },
            }
            first += each;
        }
    }

    /// As [`products`](Self::products), for P windows, whose numbers begin at `from` and whose sums go to `to`.
    ///
    /// # Safety
    /// So many windows must be there, and the weights of as many vectors.
    #[inline(always)]
    unsafe fn tile<const V: usize, const P: usize>(
        &self,
        weights: Source<Y::Number>,
        from: Source<Y::Number>,
        to: Target<Y::Sum>,
    ) {
        if V > Y::PIXELS.len() || P > Y::PIXELS[V - 1] {
            return;
        }
        let Sizes { c_in, c_out, .. } = self.sizes;
        // SAFETY: the caller's promise.
        let sums = unsafe { self.way.multiply::<V, P>(weights, from, c_in) };
        for (p, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: the work space has room for all positions of all windows of the band.
                unsafe { to.store(p * c_out + v * Y::LANES, self.way.store_sums(sum)) }
            }
        }
    }

    /// The outputs of window `i`, as far as there are any, of a vector of channels from c on: `Aᵀ m A`.
    ///
    /// # Safety
    /// The window must be one of the band, and the output must have so many channels.
    #[inline(always)]
    unsafe fn outputs(&self, i: usize, c: usize, start: Y::Start) {
        let (way, Sizes { h, w, c_out, .. }) = (self.way, self.sizes);
        let (y, x) = self.corner(i);
        let [height, width] = [(h - y).min(M), (w - x).min(M)];
        let (from, apart) = (self.results.source().skip(i * c_out + c), self.windows * c_out);
        let mut lines = [[Y::Sums::zeroed(); M]; N];
        for (r, line) in lines.iter_mut().enumerate() {
            let mut of = [Y::Sums::zeroed(); N];
            for (k, v) in of.iter_mut().enumerate() {
                // SAFETY: the work space has the sums of all positions of all windows of the band.
                *v = way.load_sums(unsafe { from.load((N * r + k) * apart) });
            }
            *line = way.line_out(of);
        }
        for k in 0..width {
            let mut of = [lines[0][k]; N];
            for (v, line) in of.iter_mut().zip(&lines) {
                *v = line[k];
            }
            for (r, &sum) in way.line_out(of).iter().enumerate().take(height) {
                // SAFETY: the output reaches so far, by its height and width.
                unsafe { way.finish(start, sum, (y + r, x + k, c)) }
            }
        }
    }
}
