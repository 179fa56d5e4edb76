//! Convolution over pictures whose channels lie together, straight from the padded picture: nothing is unfolded.
//!
//! A tile is a few output pixels of one row times a few vectors of output channels, kept in registers while the
//! kernel's taps and the input channels pass by: each input number is broadcast and multiplied with the weights of
//! all the tile's output channels.

use super::memory::{Memory, Part};
use super::pointer::{Plain, Source, Target};
use super::simd::{Vector, WIDEST};
use super::weights::{Number, Order, Real, Stored, Weights};
use super::winograd::{self, Square};
use crate::Isa;
use crate::arena::{ImageView, Precision};
use half::f16;
use std::ops::Range;

/// Output channels that a tile works on, and where their weights are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Block {
    /// The first output channel.
    pub(super) first: usize,
    /// Output channels.
    pub(super) channels: usize,
    /// Vectors that hold them.
    pub(super) vectors: usize,
    /// Where its weights start.
    pub(super) weights: usize,
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

    /// The pixels of a tile, of those that a tile of so many vectors [may have](Vector::PIXELS): all of a row of `w` about
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
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Rows and columns of the input from one tap of the kernel to the next: 1 where they are neighbours.
    pub dilation: [usize; 2],
    /// Rows above and pixels left of the input where the first window begins: zeros of its border.
    pub padding: [usize; 2],
}

impl Shape {
    /// The sizes of a convolution whose windows are neighbours and whose taps are too.
    pub fn plain(c_out: usize, c_in: usize, kernel: [usize; 2], padding: [usize; 2]) -> Self {
        Shape { c_out, c_in, kernel, stride: [1, 1], dilation: [1, 1], padding }
    }

    /// Makes sure that none of the sizes is 0 but the padding, and that the weights and a tile's numbers can be counted.
    pub(super) fn check(&self) -> Result<(), String> {
        let Shape { c_out, c_in, kernel: [rows, columns], stride, dilation, padding } = *self;
        if [c_out, c_in, rows, columns].iter().chain(&stride).chain(&dilation).any(|n| *n == 0) {
            return Err(format!("a convolution with a size of 0: {self:?}"));
        }
        // whole vectors of channels, of the widest kind, times the most numbers that a tap is transformed into
        let padded = |c: usize| c.checked_next_multiple_of(WIDEST)?.checked_add(4 * WIDEST);
        let taps = || rows.checked_mul(columns)?.checked_mul(padded(c_in)?)?.checked_mul(36);
        let all =
            taps().and_then(|taps| taps.checked_mul(padded(c_out)?)).filter(|all| *all <= isize::MAX as usize / 4);
        if all.is_none() || padding.iter().any(|p| *p > isize::MAX as usize / 4) {
            return Err(format!("a convolution of more weights than can be counted: {self:?}"));
        }
        Ok(())
    }

    /// The rows and columns of the padded input that an output of `h` by `w` reads.
    pub fn window(&self, [h, w]: [usize; 2]) -> Option<[usize; 2]> {
        let side = |n: usize, i: usize| {
            let taps = self.kernel[i].checked_sub(1)?.checked_mul(self.dilation[i])?.checked_add(1)?;
            n.checked_sub(1)?.checked_mul(self.stride[i])?.checked_add(taps)
        };
        Some([side(h, 0)?, side(w, 1)?])
    }
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
    /// The numbers of 32 bits that a run works with, for an output of `h` by `w`; none if that is more than can be counted.
    pub fn work_len(self, shape: &Shape, h: usize, w: usize) -> Option<usize> {
        match self {
            Method::Direct => Some(0),
            Method::Winograd(square) => square.work_len(shape, h, w),
        }
    }
}

/// A convolution's weights in the order in which the kernel of one kind of CPU reads them.
#[derive(Clone, Debug)]
pub struct Packed {
    shape: Shape,
    method: Method,
    /// What inputs and outputs are in.
    precision: Precision,
    /// The numbers of a vector, and the most vectors a tile: what the blocks are made for.
    tile: (usize, usize),
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
    /// Packs weights `[C_out, C_in, k, k]` for pictures in 32 bits on this kind of CPU.
    ///
    /// # Errors
    /// When there are not as many weights, scales or biases as the shape says, when a size is 0 or more than can be
    /// counted, or when the weights cannot be transformed as the method wants.
    pub fn new(shape: Shape, method: Method, weights: Stored, bias: Option<&[f32]>, isa: Isa) -> Result<Self, String> {
        Packed::of(Precision::F32, shape, method, weights, bias, isa)
    }

    /// As [`new`](Self::new), for pictures in such numbers. Weights for those in 16 bits are rounded to as many.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when a weight is too large for 16 bits.
    pub fn of(
        precision: Precision,
        shape: Shape,
        method: Method,
        weights: Stored,
        bias: Option<&[f32]>,
        isa: Isa,
    ) -> Result<Self, String> {
        shape.check()?;
        let Shape { c_out, c_in, kernel, .. } = shape;
        let side = kernel[0] * kernel[1];
        weights.check(c_out * c_in * side, c_out)?;
        if bias.is_some_and(|b| b.len() != c_out) {
            return Err(format!("a convolution with {c_out} output channels and another number of biases"));
        }
        let (lanes, vectors) = isa.tile_of(precision);
        // the taps of a kernel, or what they are transformed into
        let taps = match method {
            Method::Direct => side,
            Method::Winograd(square) => square.positions(),
        };
        let blocks = Block::split(c_out, (lanes, vectors), taps * c_in);
        // so that a whole vector may be read at the last channel
        let padded = c_out + lanes * vectors;
        let by_tap = ByTap { blocks: &blocks, lanes, c_in, taps };
        let weights = match (method, weights, precision) {
            (Method::Direct, stored, Precision::F32) => Weights::new(stored, &by_tap, padded),
            (Method::Direct, Stored::Float(weights), Precision::F16) => Weights::halves(&by_tap.arrange(weights))?,
            (Method::Winograd(square), Stored::Float(weights), _) if winograd::can(&shape) => {
                let all = winograd::float::pack(square, weights, &blocks, lanes, c_in);
                if precision == Precision::F16 { Weights::halves(&all)? } else { Weights::F32(all) }
            }
            _ => return Err(format!("weights that are not transformed by Winograd's method: {shape:?}")),
        };
        let mut bias = bias.map_or_else(|| vec![0.0; c_out], <[f32]>::to_vec);
        bias.resize(padded, 0.0);
        Ok(Packed { shape, method, precision, tile: (lanes, vectors), blocks, weights, bias })
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How it is worked out.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The numbers of 32 bits that a run works with, for an output of `h` by `w`; none if that is more than can be counted.
    pub fn work_len(&self, h: usize, w: usize) -> Option<usize> {
        let numbers = self.method.work_len(&self.shape, h, w)?;
        // those of 16 bits take half the room; each of two arrays may end with half a number
        Some(if self.precision == Precision::F16 { numbers.div_ceil(2) + 1 } else { numbers })
    }

    /// What inputs and outputs are in.
    pub fn precision(&self) -> Precision {
        self.precision
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
    pub input: ImageView,
    /// The output.
    pub output: ImageView,
    /// A picture that is added to the output.
    pub residual: Option<ImageView>,
}

/// A run that was found to read and write within the memory and the weights alone. Only [`Run::check`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) memory: Memory<'a>,
}

impl<'a> Run<'a> {
    /// Makes sure that all pictures lie within the arena, the input with what windows reach of its border, and that the
    /// weights are packed for these vectors.
    ///
    /// # Panics
    /// When that is not so, or a picture is of other sizes.
    fn check<S: Vector, T: Real>(&'a self, memory: Memory<'a>) -> Checked<'a> {
        let shape = self.packed.shape;
        let Shape { c_out, c_in, .. } = shape;
        let (input, output) = (self.input, self.output);
        assert!(self.packed.tile == (S::LANES, S::PIXELS.len()), "weights packed for another kind of CPU");
        assert!(input.c == c_in && output.c == c_out && self.extra.is_none_or(|e| e.len() >= c_out));
        // windows of Winograd's method may reach further than the outputs that are wanted
        assert!(self.packed.method == Method::Direct || (output.h, output.w) == (input.h, input.w));
        let window = shape.window([output.h, output.w]);
        assert!(self.packed.precision == T::PRECISION && input.precision == T::PRECISION);
        assert!(window.is_some_and(|window| input.reaches(shape.padding, window, c_in, T::len(memory))));
        assert!(memory.holds::<T>(output) && output.is_apart());
        let like = |r: ImageView| memory.holds::<T>(r) && (r.c, r.h, r.w) == (c_out, output.h, output.w);
        assert!(self.residual.is_none_or(like));
        Checked { run: self, memory }
    }

    /// What is added to the output channels of vector `v` of a block: those beyond the last get zeros.
    #[inline(always)]
    pub(super) fn start<S: Vector>(&self, s: S, block: Block, v: usize) -> S::F {
        let first = block.first + v * S::LANES;
        let bias = s.read(&self.packed.bias, first);
        let Some(extra) = self.extra else { return bias };
        let left = block.channels - v * S::LANES;
        // the last vector may be a part
        let extra = &extra[first..first + left.min(S::LANES)];
        // SAFETY: the slice has as many.
        s.add(bias, unsafe { f32::get_some(s, Source::of(extra), 0, extra.len()) })
    }
}

/// What stays the same over the tiles of one row of the output: a row that there is, since [`new`](Self::new) makes it of a
/// checked run.
#[derive(Clone, Copy)]
struct Row<'a, W, T> {
    weights: Source<'a, W>,
    block: Block,
    /// The input from the window of the first pixel on.
    input: Source<'a, T>,
    /// The block's channels of the output, and of the residual, from the first pixel on.
    output: Target<'a, T>,
    residual: Option<Source<'a, T>>,
    /// Numbers between the inputs of neighbouring output pixels.
    step: usize,
    run: &'a Run<'a>,
}

impl<'a, W: Number, T: Real> Row<'a, W, T> {
    #[inline(always)]
    fn new(Checked { run, memory }: Checked<'a>, weights: &'a [W], block: Block, y: usize) -> Self {
        let (Shape { stride, padding, .. }, input) = (run.packed.shape, run.input);
        assert!(y < run.output.h);
        // the border lies before the first row, and padding within it
        let first = input.start + y * stride[0] * input.row - padding[0] * input.row - padding[1] * input.pixel;
        let (at, arena) = (|v: ImageView| v.start + y * v.row + block.first, T::arena(memory));
        Row {
            weights: Source::of(weights).skip(block.weights),
            block,
            input: arena.source().skip(first),
            output: arena.skip(at(run.output)),
            residual: run.residual.map(|r| arena.source().skip(at(r))),
            step: stride[1] * input.pixel,
            run,
        }
    }
}

/// Runs a convolution.
///
/// # Panics
/// When a picture does not lie within the memory, or is of other sizes, or the work space is too small.
#[inline(always)]
pub(super) fn run<S: Vector>(s: S, run: &Run, part: Part, work: &mut [f32], memory: Memory) {
    let checked = run.check::<S, f32>(memory);
    match (run.packed.method, &run.packed.weights) {
        (Method::Winograd(square), Weights::F32(weights)) => {
            winograd::float::run(s, square, checked, (weights, &run.packed.blocks), part, work);
        }
        (_, Weights::F32(weights) | Weights::Whole(weights, _)) => direct::<S, _, f32>(s, checked, weights, part),
        (_, Weights::F16(weights)) => direct::<S, _, f32>(s, checked, weights, part),
        (_, Weights::I8(weights, _)) => direct::<S, _, f32>(s, checked, weights, part),
    }
}

/// Runs a convolution of pictures in 16 bits.
///
/// # Panics
/// As [`run`].
#[inline(always)]
pub(super) fn run_halves<S: Vector>(s: S, run: &Run, part: Part, work: &mut [f32], memory: Memory) {
    let checked = run.check::<S, f16>(memory);
    match (run.packed.method, &run.packed.weights) {
        (Method::Winograd(square), Weights::F16(weights)) => {
            winograd::float::run(s, square, checked, (weights, &run.packed.blocks), part, work);
        }
        (_, Weights::F16(weights)) => direct::<S, _, f16>(s, checked, weights, part),
        _ => unreachable!("weights for pictures in 16 bits are in as many"),
    }
}

/// Runs a convolution as it is defined.
#[inline(always)]
fn direct<S: Vector, W: Number, T: Real>(s: S, checked: Checked, weights: &[W], part: Part) {
    let (packed, output) = (checked.run.packed, checked.run.output);
    let pixels = Block::pixels(&packed.blocks, S::PIXELS, output.w);
    for (line, tiles) in part.lines(packed.blocks.len() * output.h, output.w.div_ceil(pixels)) {
        let (block, y) = (packed.blocks[line / output.h], line % output.h);
        let pixels = (pixels, tiles.start * pixels..output.w.min(tiles.end * pixels));
        let row = Row::<W, T>::new(checked, weights, block, y);
        match block.vectors {
            1 => row_of::<S, W, T, 1>(s, row, pixels),
            2 => row_of::<S, W, T, 2>(s, row, pixels),
            3 => row_of::<S, W, T, 3>(s, row, pixels),
            _ => row_of::<S, W, T, 4>(s, row, pixels),
        }
    }
}

#[inline(always)]
fn row_of<S: Vector, W: Number, T: Real, const V: usize>(
    s: S,
    row: Row<W, T>,
    (pixels, Range { start, end }): (usize, Range<usize>),
) {
    if V > S::PIXELS.len() {
        return;
    }
    let mut x = start;
    while x < end {
        match pixels.min(end - x) {
            1 => tile::<S, W, T, V, 1>(s, row, x),
            2 => tile::<S, W, T, V, 2>(s, row, x),
            3 => tile::<S, W, T, V, 3>(s, row, x),
            4 => tile::<S, W, T, V, 4>(s, row, x),
            5 => tile::<S, W, T, V, 5>(s, row, x),
            6 => tile::<S, W, T, V, 6>(s, row, x),
            7 => tile::<S, W, T, V, 7>(s, row, x),
            _ => tile::<S, W, T, V, 8>(s, row, x),
        }
        x += pixels;
    }
}

/// Works out P pixels from `x` on, of V vectors of output channels, which are the row's block.
#[inline(always)]
fn tile<S: Vector, W: Number, T: Real, const V: usize, const P: usize>(s: S, row: Row<W, T>, x: usize) {
    if V > S::PIXELS.len() || P > S::PIXELS[V - 1] {
        return;
    }
    let Run { packed, input, output, .. } = row.run;
    assert!(V == row.block.vectors && x + P <= output.w);
    let Shape { c_in, kernel, dilation, .. } = packed.shape;
    let mut start = [s.splat(0.0); V];
    for (v, start) in start.iter_mut().enumerate() {
        *start = row.run.start(s, row.block, v);
    }
    let scales = packed.weights.scales();
    let mut sums = [if scales.is_some() { [s.splat(0.0); V] } else { start }; P];
    let mut weights = row.weights;
    let first = row.input.skip(x * row.step);
    // taps of a row whose channels lie together are as one
    let together = input.pixel == c_in && dilation[1] == 1;
    let (taps, count) = if together { (1, kernel[1] * c_in) } else { (kernel[1], c_in) };
    for ky in 0..kernel[0] {
        for kx in 0..taps {
            let from = first.skip(ky * dilation[0] * input.row + kx * dilation[1] * input.pixel);
            // SAFETY: a checked run has the windows of all pixels of the row within the arena, and these are some of
            // them; the weights are packed in this order, for as many vectors.
            weights = unsafe { accumulate::<S, W, T, V, P>(s, &mut sums, weights, from, row.step, count) };
        }
    }
    if let Some(scales) = scales {
        let mut scale = [s.splat(0.0); V];
        for (v, scale) in scale.iter_mut().enumerate() {
            *scale = s.read(scales, row.block.first + v * S::LANES);
        }
        for sums in &mut sums {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = s.fma(*sum, scale[v], start[v]);
            }
        }
    }
    put::<S, W, T, V, P>(s, row, x, sums);
}

/// Writes a tile's sums, plus the residual. It takes them by value: what is read by a running index lies in memory, where it
/// must not keep the sums while they are made.
#[inline(always)]
fn put<S: Vector, W: Number, T: Real, const V: usize, const P: usize>(
    s: S,
    row: Row<W, T>,
    x: usize,
    sums: [[S::F; V]; P],
) {
    let Run { output, residual, .. } = row.run;
    assert!(V == row.block.vectors && x + P <= output.w);
    for (p, sums) in sums.iter().enumerate() {
        let to = row.output.skip((x + p) * output.pixel);
        let add = row.residual.zip(*residual).map(|(from, view)| from.skip((x + p) * view.pixel));
        for (v, mut sum) in sums.iter().copied().enumerate() {
            let (at, left) = (v * S::LANES, row.block.channels - v * S::LANES);
            if let Some(add) = add {
                // SAFETY: a checked run has the row within the residual, and this pixel is one of it, with so many
                // channels left.
                sum = s.add(sum, unsafe { T::get_some(s, add, at, left) });
            }
            // SAFETY: as above, of the output; the pixels of other parts are others.
            unsafe { T::put_some(s, to, at, left, sum) }
        }
    }
}

/// Adds to the sums of P pixels, `step` numbers apart, their `count` channels times the weights. What lies after those
/// weights is returned.
///
/// # Safety
/// All of the weights and pixels must be there.
#[inline(always)]
pub(super) unsafe fn accumulate<'a, S: Vector, W: Number, T: Real, const V: usize, const P: usize>(
    s: S,
    sums: &mut [[S::F; V]; P],
    weights: Source<'a, W>,
    from: Source<T>,
    step: usize,
    count: usize,
) -> Source<'a, W> {
    // pixels and weights pass by, so that as few numbers as can be say where the next ones are: with the channel counted
    // beside them, a tile of six pixels has more of these than AVX2 has registers left
    let (mut weights, mut from, mut left) = (weights, from, count);
    while S::GROUP > 1 && left >= S::GROUP {
        let mut x = [s.one(0.0); P];
        for (p, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *x = T::group(s, unsafe { from.load(p * step) });
        }
        macro_rules! add_lanes {
            // SAFETY: the caller's promise: the weights of a group of channels are there.
            ($($l:literal)*) => { $(weights = unsafe { add_lane::<S, W, V, P, $l>(s, sums, weights, &x) };)* };
        }
        add_lanes!(0 1 2 3);
        if S::GROUP == 8 {
            add_lanes!(4 5 6 7);
        }
        (from, left) = (from.skip(S::GROUP), left - S::GROUP);
    }
    while left > 0 {
        let mut x = [s.one(0.0); P];
        for (p, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *x = T::one(s, unsafe { from.load(p * step) });
        }
        // SAFETY: the caller's promise.
        weights = unsafe { add_lane::<S, W, V, P, 0>(s, sums, weights, &x) };
        (from, left) = (from.skip(1), left - 1);
    }
    weights
}

/// So many bytes ahead, weights are fetched into the cache: those of large networks do not stay there from call to call.
/// Measured: 4 to 8 kB take a fifth off a call of 1.4·10⁹ multiply-adds.
const AHEAD: usize = 8192;

/// Asks for the cache lines that lie so far ahead of the next `count` weights.
#[inline(always)]
pub(super) fn fetch_ahead<S: Vector, W: Plain>(s: S, weights: Source<W>, count: usize) {
    for line in 0..(count * size_of::<W>()).div_ceil(64) {
        s.prefetch(weights.address().cast::<u8>().wrapping_add(64 * line + AHEAD));
    }
}

/// Adds the products of number L of P pixels and the next V vectors of weights. What lies after those is returned.
///
/// # Safety
/// The weights must be there.
#[inline(always)]
unsafe fn add_lane<'a, S: Vector, W: Number, const V: usize, const P: usize, const L: usize>(
    s: S,
    sums: &mut [[S::F; V]; P],
    weights: Source<'a, W>,
    x: &[S::X; P],
) -> Source<'a, W> {
    // SAFETY: the caller's promise.
    let w: [S::F; V] = unsafe { W::load(s, weights, 0) };
    fetch_ahead(s, weights, V * S::LANES);
    for (sums, x) in sums.iter_mut().zip(x) {
        for (sum, w) in sums.iter_mut().zip(w) {
            *sum = s.fma_lane::<L>(*x, w, *sum);
        }
    }
    weights.skip(V * S::LANES)
}
