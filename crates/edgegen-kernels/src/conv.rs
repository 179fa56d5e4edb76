//! Convolution over pictures whose channels lie together, straight from the padded picture: nothing is unfolded.
//!
//! A tile is a few output pixels of one row times a few vectors of output channels, kept in registers while the
//! kernel's taps and the input channels pass by: each input number is broadcast and multiplied with the weights of
//! all the tile's output channels.

use super::dense::{load, store};
use super::memory::{Memory, Part};
use super::simd::Simd;
use super::weights::{Number, Order, Stored, Weights};
use super::winograd::{self, Square};
use crate::arena::View;
use half::f16;
use std::ops::Range;

/// Output channels that a tile works on, and where their weights are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The first output channel.
    pub first: usize,
    /// Output channels.
    pub channels: usize,
    /// Vectors that hold them.
    pub vectors: usize,
    /// Where its weights start.
    pub weights: usize,
}

impl Block {
    /// Output channels in blocks of about as many vectors, at most `most`; `weights` is how many there are for each
    /// lane.
    pub(super) fn split(c_out: usize, (lanes, most): (usize, usize), weights: usize) -> Vec<Self> {
        let vectors = c_out.div_ceil(lanes);
        let count = vectors.div_ceil(most);
        let first = |i: usize| (vectors * i / count) * lanes;
        let block = |i: usize| {
            let channels = first(i + 1).min(c_out) - first(i);
            Block { first: first(i), channels, vectors: channels.div_ceil(lanes), weights: first(i) * weights }
        };
        (0..count).map(block).collect()
    }

    /// The pixels of a tile, of those that a tile of so many vectors [may have](Simd::PIXELS): all of a row of `w` about
    /// as many.
    #[inline(always)]
    pub(super) fn pixels(blocks: &[Self], most: &[usize], w: usize) -> usize {
        let vectors = blocks.iter().map(|b| b.vectors).max().unwrap_or(1);
        w.div_ceil(w.div_ceil(most[vectors - 1]))
    }
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Output channels.
    pub c_out: usize,
    /// Input channels.
    pub c_in: usize,
    /// The kernel's rows and columns.
    pub kernel: [usize; 2],
    /// The stride.
    pub stride: usize,
    /// Zeros around the input: rows above and below, and pixels left and right.
    pub padding: [usize; 2],
}

/// How a convolution is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As it is defined.
    Direct,
    /// By [`winograd`], in such squares.
    Winograd(Square),
}

impl Method {
    /// The numbers of 32 bits that a run works with, for an output of `h` by `w`.
    pub fn work_len(self, shape: &Shape, h: usize, w: usize) -> usize {
        match self {
            Method::Direct => 0,
            Method::Winograd(square) => square.work_len(shape, h, w),
        }
    }
}

/// A convolution's weights in the order in which the kernel reads them.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The sizes.
    pub shape: Shape,
    /// How it is worked out.
    pub method: Method,
    blocks: Vec<Block>,
    weights: Weights,
    bias: Vec<f32>,
}

/// A convolution's weights `[C_out, C_in, k, k]` by blocks of output channels, taps and input channels.
pub(super) struct ByTap<'a> {
    pub(super) blocks: &'a [Block],
    pub(super) lanes: usize,
    pub(super) c_in: usize,
    pub(super) taps: usize,
}

impl Order for ByTap<'_> {
    fn arrange<T: Copy + Default>(&self, weights: &[T]) -> Vec<T> {
        let ByTap { blocks, lanes, c_in, taps } = *self;
        let count: usize = blocks.iter().map(|b| b.vectors * lanes * taps * c_in).sum();
        let mut all = vec![T::default(); count];
        for block in blocks {
            let width = block.vectors * lanes;
            let to = &mut all[block.weights..][..width * taps * c_in];
            for (line, to) in to.chunks_exact_mut(width).enumerate() {
                let (tap, c) = (line / c_in, line % c_in);
                for (i, to) in to[..block.channels].iter_mut().enumerate() {
                    *to = weights[((block.first + i) * c_in + c) * taps + tap];
                }
            }
        }
        all
    }
}

impl Packed {
    /// Packs weights `[C_out, C_in, k, k]` for vectors of `lanes` numbers, at most `vectors` a tile.
    ///
    /// # Panics
    /// When there are not as many, or 8-bit ones are to be transformed.
    pub fn new(
        shape: Shape,
        method: Method,
        weights: Stored,
        bias: Option<&[f32]>,
        (lanes, vectors): (usize, usize),
    ) -> Self {
        let Shape { c_out, c_in, kernel, .. } = shape;
        let side = kernel[0] * kernel[1];
        assert_eq!(weights.len(), c_out * c_in * side);
        // the taps of a kernel, or what they are transformed into
        let taps = match method {
            Method::Direct => side,
            Method::Winograd(square) => square.positions(),
        };
        let blocks = Block::split(c_out, (lanes, vectors), taps * c_in);
        // so that a whole vector may be read at the last channel
        let padded = c_out + lanes * vectors;
        let weights = match (method, weights) {
            (Method::Direct, stored) => Weights::new(stored, &ByTap { blocks: &blocks, lanes, c_in, taps }, padded),
            (Method::Winograd(square), Stored::Float(weights)) => {
                Weights::F32(winograd::float::pack(square, weights, &blocks, lanes, c_in))
            }
            (Method::Winograd(_), Stored::Eight(..)) => panic!("8-bit weights are not transformed"),
        };
        let mut bias = bias.map_or_else(|| vec![0.0; c_out], <[f32]>::to_vec);
        bias.resize(padded, 0.0);
        Packed { shape, method, blocks, weights, bias }
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + size_of_val(self.bias.as_slice())
    }
}

/// One run of a convolution.
pub struct Run<'a> {
    /// The weights.
    pub packed: &'a Packed,
    /// What is added to each output channel beside the bias.
    pub extra: Option<&'a [f32]>,
    /// The input, with at least the padding of zeros around it.
    pub input: View,
    /// The output.
    pub output: View,
    /// A picture that is added to the output.
    pub residual: Option<View>,
}

impl Run<'_> {
    /// What is added to the output channels of vector `v` of a block: those beyond the last get zeros.
    ///
    /// # Safety
    /// The CPU must have the features of `S`.
    #[inline(always)]
    pub(super) unsafe fn start<S: Simd>(&self, block: Block, v: usize) -> S::F {
        let first = block.first + v * S::LANES;
        // SAFETY: the bias is padded to whole vectors; `extra` has a number for each output channel, as `run` checked.
        unsafe {
            let bias = S::load(self.packed.bias.as_ptr().add(first));
            let left = block.channels - v * S::LANES;
            match self.extra {
                None => bias,
                Some(extra) if left >= S::LANES => S::add(bias, S::load(extra.as_ptr().add(first))),
                Some(extra) => S::add(bias, S::load_part(extra.as_ptr().add(first), left)),
            }
        }
    }
}

/// What stays the same over the tiles of one row.
#[derive(Clone, Copy)]
struct Row<'a, W> {
    weights: *const W,
    block: Block,
    input: *const f32,
    output: *mut f32,
    residual: *const f32,
    /// Numbers between the inputs of neighbouring output pixels.
    step: usize,
    run: &'a Run<'a>,
}

/// Runs a convolution.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(run: &Run, part: Part, work: &mut [f32], memory: Memory) {
    let Shape { c_out, c_in, stride, padding, kernel } = run.packed.shape;
    let (input, output) = (run.input, run.output);
    assert!(input.c == c_in && output.c == c_out && run.extra.is_none_or(|e| e.len() >= c_out));
    let (height, width) = ((output.h - 1) * stride + kernel[0], (output.w - 1) * stride + kernel[1]);
    assert!(input.reaches(padding, height, width, memory.len()));
    assert!(output.fits(memory.len()));
    assert!(run.residual.is_none_or(|r| r.fits(memory.len()) && (r.c, r.h, r.w) == (c_out, output.h, output.w)));
    // SAFETY: the assertions above.
    unsafe {
        match (run.packed.method, &run.packed.weights) {
            (Method::Winograd(square), Weights::F32(weights)) => {
                winograd::float::run::<S>(square, run, (weights, &run.packed.blocks), part, work, memory);
            }
            (_, Weights::F32(weights) | Weights::Whole(weights, _)) => direct::<S, f32>(run, weights, part, memory),
            (_, Weights::F16(weights)) => direct::<S, f16>(run, weights, part, memory),
            (_, Weights::I8(weights, _)) => direct::<S, i8>(run, weights, part, memory),
        }
    }
}

/// Runs a convolution as it is defined.
///
/// # Safety
/// The CPU must have the features of `S`; the views must lie within the arena.
#[inline(always)]
unsafe fn direct<S: Simd, W: Number>(run: &Run, weights: &[W], part: Part, memory: Memory) {
    let Shape { stride, padding, .. } = run.packed.shape;
    let (input, output) = (run.input, run.output);
    let base = memory.arena();
    let pixels = Block::pixels(&run.packed.blocks, S::PIXELS, output.w);
    for (line, tiles) in part.lines(run.packed.blocks.len() * output.h, output.w.div_ceil(pixels)) {
        let (block, y) = (run.packed.blocks[line / output.h], line % output.h);
        let pixels = (pixels, tiles.start * pixels..output.w.min(tiles.end * pixels));
        // SAFETY: the assertions above: all rows of input, output and residual lie within the arena; the weights are
        // padded to whole vectors.
        unsafe {
            let row = Row {
                weights: weights.as_ptr().add(block.weights),
                block,
                input: base
                    .add(input.start + y * stride * input.row - padding[0] * input.row - padding[1] * input.pixel),
                output: base.add(output.start + y * output.row + block.first),
                residual: match run.residual {
                    Some(r) => base.add(r.start + y * r.row + block.first),
                    None => std::ptr::null(),
                },
                step: stride * input.pixel,
                run,
            };
            match block.vectors {
                1 => row_of::<S, W, 1>(row, pixels),
                2 => row_of::<S, W, 2>(row, pixels),
                3 => row_of::<S, W, 3>(row, pixels),
                _ => row_of::<S, W, 4>(row, pixels),
            }
        }
    }
}

#[inline(always)]
unsafe fn row_of<S: Simd, W: Number, const V: usize>(
    row: Row<W>,
    (pixels, Range { start, end }): (usize, Range<usize>),
) {
    if V > S::PIXELS.len() {
        return;
    }
    let mut x = start;
    while x < end {
        // SAFETY: the caller's promise, for the pixels that are left.
        unsafe {
            match pixels.min(end - x) {
                1 => tile::<S, W, V, 1>(row, x),
                2 => tile::<S, W, V, 2>(row, x),
                3 => tile::<S, W, V, 3>(row, x),
                4 => tile::<S, W, V, 4>(row, x),
                5 => tile::<S, W, V, 5>(row, x),
                6 => tile::<S, W, V, 6>(row, x),
                7 => tile::<S, W, V, 7>(row, x),
                _ => tile::<S, W, V, 8>(row, x),
            }
        }
        x += pixels;
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, W: Number, const V: usize, const P: usize>(row: Row<W>, x: usize) {
    if V > S::PIXELS.len() || P > S::PIXELS[V - 1] {
        return;
    }
    let Run { packed, input, .. } = row.run;
    let Shape { c_in, kernel, .. } = packed.shape;
    // SAFETY: the caller's promise: pixels x to x + P of the row are within the views.
    unsafe {
        let mut start = [S::splat(0.0); V];
        for (v, start) in start.iter_mut().enumerate() {
            *start = row.run.start::<S>(row.block, v);
        }
        let scales = packed.weights.scales();
        let mut sums = [if scales.is_some() { [S::splat(0.0); V] } else { start }; P];
        let mut weights = row.weights;
        let first = row.input.add(x * row.step);
        // taps of a row whose channels lie together are as one
        let (taps, count) = if input.pixel == c_in { (1, kernel[1] * c_in) } else { (kernel[1], c_in) };
        for ky in 0..kernel[0] {
            for kx in 0..taps {
                let from = first.add(ky * input.row + kx * input.pixel);
                weights = accumulate::<S, W, V, P>(&mut sums, weights, from, row.step, count);
            }
        }
        if let Some(scales) = scales {
            let scales = <f32 as Number>::load::<S, V>(scales.as_ptr().add(row.block.first));
            for sums in &mut sums {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(*sum, scales[v], start[v]);
                }
            }
        }
        put::<S, W, V, P>(row, x, sums);
    }
}

/// Writes a tile's sums, plus the residual. It takes them by value: what is read by a running index lies in memory, where it
/// must not keep the sums while they are made.
///
/// # Safety
/// As [`tile`]'s.
#[inline(always)]
unsafe fn put<S: Simd, W: Number, const V: usize, const P: usize>(row: Row<W>, x: usize, sums: [[S::F; V]; P]) {
    let Run { output, residual, .. } = row.run;
    for (p, sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let to = row.output.add((x + p) * output.pixel);
            let add = residual.map(|r| row.residual.add((x + p) * r.pixel));
            for (v, mut sum) in sums.iter().copied().enumerate() {
                let (at, left) = (v * S::LANES, row.block.channels - v * S::LANES);
                if let Some(add) = add {
                    sum = S::add(sum, load::<S>(add.add(at), left));
                }
                store::<S>(to.add(at), left, sum);
            }
        }
    }
}

/// Adds to the sums of P pixels, `step` numbers apart, their `count` channels times the weights. What lies after those
/// weights is returned.
///
/// # Safety
/// The CPU must have the features of `S`; all of the weights and pixels must be there.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, W: Number, const V: usize, const P: usize>(
    sums: &mut [[S::F; V]; P],
    weights: *const W,
    from: *const f32,
    step: usize,
    count: usize,
) -> *const W {
    let (mut weights, mut c) = (weights, 0);
    // SAFETY: the caller's promise.
    unsafe {
        if S::GROUP == 4 {
            while c + 4 <= count {
                let mut x = [S::group(from.add(c)); P];
                for (p, x) in x.iter_mut().enumerate() {
                    *x = S::group(from.add(p * step + c));
                }
                weights = add_lane::<S, W, V, P, 0>(sums, weights, &x);
                weights = add_lane::<S, W, V, P, 1>(sums, weights, &x);
                weights = add_lane::<S, W, V, P, 2>(sums, weights, &x);
                weights = add_lane::<S, W, V, P, 3>(sums, weights, &x);
                c += 4;
            }
        }
        while c < count {
            let mut x = [S::one(from.add(c)); P];
            for (p, x) in x.iter_mut().enumerate() {
                *x = S::one(from.add(p * step + c));
            }
            weights = add_lane::<S, W, V, P, 0>(sums, weights, &x);
            c += 1;
        }
    }
    weights
}

/// So many bytes ahead, weights are fetched into the cache: those of large networks do not stay there from call to call.
/// Measured: 4 to 8 kB take a fifth off a call of 1.4·10⁹ multiply-adds.
const AHEAD: usize = 8192;

/// Asks for the cache lines that lie so far ahead of the next `count` weights.
#[inline(always)]
pub(super) fn fetch_ahead<S: Simd, W>(weights: *const W, count: usize) {
    for line in 0..(count * size_of::<W>()).div_ceil(64) {
        S::prefetch(weights.cast::<u8>().wrapping_add(64 * line + AHEAD));
    }
}

#[inline(always)]
unsafe fn add_lane<S: Simd, W: Number, const V: usize, const P: usize, const L: usize>(
    sums: &mut [[S::F; V]; P],
    weights: *const W,
    x: &[S::X; P],
) -> *const W {
    // SAFETY: the caller's promise.
    unsafe {
        let w = W::load::<S, V>(weights);
        fetch_ahead::<S, W>(weights, V * S::LANES);
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = S::fma_lane::<L>(*x, w, *sum);
            }
        }
        weights.add(V * S::LANES)
    }
}
