//! Convolution of unsigned 8-bit pictures with signed 8-bit weights, summed exactly in 32 bits.
//!
//! As in `conv.rs`, a tile is a few output pixels times a few vectors of output channels; four input channels are
//! multiplied at a time. Around a picture, and in it where channels are padded to a multiple of four, lies its zero
//! point.

use super::Isa;
use super::conv::{Block, Method, Shape, fetch_ahead};
use super::memory::{Memory, Part};
use super::pointer::{Plain, Source, Target};
use super::simd::{Dot, Order8, Simd, WIDEST, Words};
use super::weights::Stored;
use super::winograd::{self, Square};
use crate::arena::ImageView;
use std::ops::Range;

/// Where levels lie: a value is `(level - zero) · scale`, levels are from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantParams {
    scale: f32,
    zero_point: u8,
}

impl QuantParams {
    /// QuantParams `scale` from one another, of which `zero_point` is that of 0; none if the scale or its reciprocal is 0, or is not a
    /// finite number.
    pub fn new(scale: f32, zero_point: u8) -> Option<Self> {
        let usable = |v: f32| v != 0.0 && v.is_finite();
        (usable(scale) && usable(1.0 / scale)).then_some(QuantParams { scale, zero_point })
    }

    /// The distance of two levels.
    pub fn scale(self) -> f32 {
        self.scale
    }

    /// The level of 0.
    pub fn zero_point(self) -> u8 {
        self.zero_point
    }

    /// Values rounded to levels.
    #[inline(always)]
    pub(super) fn round_all<S: Simd>(self, s: S, value: S::F) -> S::F {
        let low = -f32::from(self.zero_point);
        // between whole bounds, rounding is the same before and after clamping
        let level = s.max(s.mul(value, s.splat(1.0 / self.scale)), s.splat(low));
        s.mul(s.round(s.min(level, s.splat(255.0 + low))), s.splat(self.scale))
    }

    /// Vectors of values as levels, in the form that `D` reads, to where they lie from `at` on.
    ///
    /// # Safety
    /// There must be room, which no other thread reads or writes.
    #[inline(always)]
    pub(super) unsafe fn store<D: Dot, const V: usize>(
        self,
        d: D,
        to: Target<u8>,
        at: usize,
        values: [<D::S as Simd>::F; V],
    ) {
        // SAFETY: the caller's promise.
        unsafe { d.simd().store_levels(to, at, values, (1.0 / self.scale, self.zero_point, D::FLIP)) }
    }

    /// As [`store`](Self::store), for the first `n` < `LANES` values.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn store_part<D: Dot>(self, d: D, to: Target<u8>, at: usize, value: <D::S as Simd>::F, n: usize) {
        let mut whole = [0; WIDEST];
        // SAFETY: no vector is wider.
        unsafe { self.store(d, Target::of(&mut whole), 0, [value]) };
        for (i, v) in whole.iter().enumerate().take(n) {
            // SAFETY: the caller's promise.
            unsafe { to.store(at + i, *v) }
        }
    }
}

/// 8-bit weights in the order in which the kernel reads them.
#[derive(Clone, Debug)]
pub struct Packed8 {
    shape: Shape,
    /// What it is packed for.
    tile: Tile8,
    blocks: Vec<Block>,
    /// Whether any weight is -128.
    least: bool,
    weights: Weights8,
    /// What the sums start from: it takes the input's zero point away.
    start: Vec<i32>,
    /// What a sum is multiplied with.
    scale: Vec<f32>,
    bias: Vec<f32>,
    /// The sums of each output channel's weights, where the input's levels are not known before it is there.
    columns: Vec<f32>,
    /// What each output channel's weights are around, unless all are around zero.
    zeros: Vec<f32>,
}

/// Input channels that are multiplied at a time.
pub const CHANNELS: usize = 4;

/// Products that a sum may have. It starts from at most 255 · 128 for each, and each adds at most as much.
const MOST: usize = i32::MAX as usize / (2 * 255 * 128);

/// What a CPU's 8-bit convolutions want of weights and pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile8 {
    /// Lanes of a vector.
    pub lanes: usize,
    /// Vectors of output channels a tile.
    pub vectors: usize,
    /// What is added to levels where they are stored, modulo 256.
    pub flip: u8,
    /// How weights lie.
    pub order: Order8,
}

/// What fills a vector's room: input channels from `c` on, of the lanes from `lane` on.
#[derive(Clone, Copy)]
struct Room {
    c: usize,
    channels: usize,
    lane: usize,
}

impl Order8 {
    /// What fills the rooms of a tap, in order.
    fn rooms(self, c_in: usize) -> Vec<Room> {
        let fours = (0..c_in).step_by(CHANNELS);
        if self != Order8::Eights {
            return fours.map(|c| Room { c, channels: CHANNELS, lane: 0 }).collect();
        }
        let sixteens = c_in / 16 * 16;
        let eights = (0..sixteens).step_by(8).map(|c| (c, 8));
        let last = fours.skip(sixteens / CHANNELS).map(|c| (c, CHANNELS));
        eights.chain(last).flat_map(|(c, channels)| [0, 2].map(|lane| Room { c, channels, lane })).collect()
    }

    /// The lane and the input channel of byte `i` of a vector's room; none for a zero.
    fn place(self, room: Room, i: usize, lanes: usize) -> Option<(usize, usize)> {
        let half = lanes * CHANNELS / 2;
        let (lane, k) = match self {
            Order8::Fours => (i / CHANNELS, i % CHANNELS),
            Order8::Pairs => (i % half / 2, 2 * (i / half) + i % 2),
            Order8::Eights => (i / 8, i % 8),
        };
        (k < room.channels).then_some((room.lane + lane, room.c + k))
    }
}

/// 8-bit weights in the order in which a kernel reads them.
#[derive(Clone, Debug)]
enum Weights8 {
    /// As they are.
    Bytes(Vec<i8>),
    /// Transformed for [`winograd`].
    Words(Square, Vec<i16>),
}

/// How an 8-bit convolution with an output of `h` by `w` is best worked out. The sums are the same in either way.
pub fn method(isa: Isa, shape: &Shape, weights: &[i8], [h, w]: [usize; 2]) -> Method {
    let holds = |square: &Square| winograd::exact::holds(*square, weights, shape.c_out);
    if isa.tile_of_words().is_none() {
        return Method::Direct;
    }
    winograd::suits(shape, h, w, winograd::exact::MANY).find(holds).map_or(Method::Direct, Method::Winograd)
}

impl Packed8 {
    /// Packs weights `[C_out, C_in, k, k]` with a scale an output channel, for inputs of these levels.
    ///
    /// # Errors
    /// When a sum might not fit 32 bits; when there are not as many weights, scales or biases as the shape says; when a
    /// size is 0 or more than can be counted; or when the weights cannot be transformed as the method wants.
    pub fn new(
        shape: Shape,
        method: Method,
        (weights, scales): (&[i8], &[f32]),
        bias: Option<&[f32]>,
        input: QuantParams,
        isa: Isa,
    ) -> Result<Self, String> {
        shape.check()?;
        let Shape { c_out, c_in, kernel, .. } = shape;
        let taps = kernel[0] * kernel[1];
        Stored::Eight(weights, scales).check(c_out * c_in * taps, c_out)?;
        if bias.is_some_and(|b| b.len() != c_out) {
            return Err(format!("a convolution with {c_out} output channels and another number of biases"));
        }
        if c_in.next_multiple_of(CHANNELS) * taps > MOST {
            return Err(format!("8-bit sums of {} products do not fit 32 bits", c_in * taps));
        }
        let tile = isa.tile8();
        let Tile8 { lanes, vectors, flip, order } = tile;
        let (blocks, packed) = match method {
            Method::Direct => {
                let rooms = order.rooms(c_in);
                let blocks = Block::split(c_out, (lanes, vectors), taps * rooms.len() * CHANNELS);
                let packed = by_rooms(&shape, weights, (&blocks, lanes), order, &rooms);
                (blocks, Weights8::Bytes(packed))
            }
            Method::Winograd(square) => {
                let tile = isa
                    .tile_of_words()
                    .filter(|_| winograd::can(&shape) && winograd::exact::holds(square, weights, c_out));
                let Some((vectors, pair)) = tile else {
                    return Err(format!("weights that are not transformed by Winograd's method: {shape:?}"));
                };
                let blocks = Block::split(c_out, (lanes, vectors), square.positions() * c_in);
                let packed = winograd::exact::pack(square, weights, (&blocks, lanes, pair), c_in);
                (blocks, Weights8::Words(square, packed))
            }
        };
        let sum = |o: usize| weights[o * c_in * taps..][..c_in * taps].iter().map(|w| i32::from(*w)).sum::<i32>();
        // so that whole vectors may be read at the last channel
        let padded = c_out + lanes * vectors;
        let zero = i32::from(input.zero_point) - i32::from(flip);
        let mut start: Vec<i32> = (0..c_out).map(|o| -zero * sum(o)).collect();
        let mut scale: Vec<f32> =
            (0..c_out).map(|o| input.scale * scales[if scales.len() == 1 { 0 } else { o }]).collect();
        let mut bias = bias.map_or_else(|| vec![0.0; c_out], <[f32]>::to_vec);
        start.resize(padded, 0);
        scale.resize(padded, 0.0);
        bias.resize(padded, 0.0);
        let (least, columns, zeros) = (weights.contains(&i8::MIN), Vec::new(), Vec::new());
        Ok(Packed8 { shape, tile, blocks, least, weights: packed, start, scale, bias, columns, zeros })
    }

    /// Packs weights for inputs whose levels come with each [run](super::convolve8_by_range). The weights are around `zeros`,
    /// one an output channel or one for all; around zero if there are none.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when there are zeros of another number.
    pub fn by_range(
        shape: Shape,
        (weights, scales, zeros): (&[i8], &[f32], &[f32]),
        bias: Option<&[f32]>,
        isa: Isa,
    ) -> Result<Self, String> {
        // sums of the levels themselves, of which the zero point's part is taken away in the end
        let levels = QuantParams { scale: 1.0, zero_point: 0 };
        let mut packed = Packed8::new(shape, Method::Direct, (weights, scales), bias, levels, isa)?;
        let sum = |all: &[i8]| all.iter().map(|w| i32::from(*w)).sum::<i32>() as f32;
        packed.columns = weights.chunks(weights.len() / packed.shape.c_out).map(sum).collect();
        packed.columns.resize(packed.scale.len(), 0.0);
        packed.zeros = match *zeros {
            [] => Vec::new(),
            [zero] => vec![zero; packed.scale.len()],
            _ if zeros.len() == packed.shape.c_out => zeros.to_vec(),
            _ => return Err(format!("weights around {} numbers", zeros.len())),
        };
        if !packed.zeros.is_empty() {
            packed.zeros.resize(packed.scale.len(), 0.0);
        }
        Ok(packed)
    }

    /// Whether the weights are around other numbers than zero, so that a run needs the sums of its input's levels.
    pub fn needs_sums(&self) -> bool {
        !self.zeros.is_empty()
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How it is worked out.
    pub fn method(&self) -> Method {
        match self.weights {
            Weights8::Bytes(_) => Method::Direct,
            Weights8::Words(square, _) => Method::Winograd(square),
        }
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        let weights = match &self.weights {
            Weights8::Bytes(all) => size_of_val(all.as_slice()),
            Weights8::Words(_, all) => size_of_val(all.as_slice()),
        };
        weights + 12 * self.start.len() + 4 * (self.columns.len() + self.zeros.len())
    }

    /// What the sums of vector `v` of a block start from.
    #[inline(always)]
    pub(super) fn start<D: Dot>(&self, block: Block, v: usize) -> D::I {
        let start = &self.start[block.first + v * D::LANES..][..D::LANES];
        // SAFETY: the slice has as many.
        unsafe { Source::of(start).load(0) }
    }
}

/// Weights by blocks of output channels, taps and rooms.
fn by_rooms(
    shape: &Shape,
    weights: &[i8],
    (blocks, lanes): (&[Block], usize),
    order: Order8,
    rooms: &[Room],
) -> Vec<i8> {
    let Shape { c_in, kernel, .. } = *shape;
    let taps = kernel[0] * kernel[1];
    let mut packed = Vec::new();
    for block in blocks {
        let weight = |i: usize, c: usize, tap: usize| {
            let inside = i < block.channels && c < c_in;
            if inside { weights[((block.first + i) * c_in + c) * taps + tap] } else { 0 }
        };
        for (tap, room) in (0..taps).flat_map(|tap| rooms.iter().map(move |room| (tap, *room))) {
            for v in 0..block.vectors {
                let byte = |i| order.place(room, i, lanes).map_or(0, |(lane, c)| weight(v * lanes + lane, c, tap));
                packed.extend((0..lanes * CHANNELS).map(byte));
            }
        }
    }
    packed
}

/// One run of an 8-bit convolution: `round(sums · scale + bias) + extra + residual`.
pub struct Run8<'a> {
    /// The weights.
    pub packed: &'a Packed8,
    /// The levels that the result is rounded to.
    pub round: Option<QuantParams>,
    /// What is added to each channel, one a channel.
    pub extra: Option<&'a [f32]>,
    /// The input, among the 8-bit pictures.
    pub input: ImageView,
    /// Where the result goes in f32.
    pub output: Option<ImageView>,
    /// Where it goes in 8 bits, rounded to these levels; unless they are those of `round`, after the sums.
    pub output8: Option<(ImageView, QuantParams)>,
    /// A picture that is added to the output.
    pub residual: Option<ImageView>,
}

/// A run that was found to read and write within the memory alone. Only [`Run8::check`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Checked8<'a> {
    pub(super) run: &'a Run8<'a>,
    pub(super) memory: Memory<'a>,
    /// The output's rows and columns.
    pub(super) sides: [usize; 2],
    /// The input's levels, where the weights are not packed for them.
    range: Option<ByRange>,
}

/// Levels of an input that are known when it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByRange {
    /// The levels.
    pub levels: QuantParams,
    /// Where in the arena the sums of the levels less their zero point begin, one a pixel, if the weights need them.
    pub sums: Option<usize>,
}

impl<'a> Run8<'a> {
    /// Makes sure that all pictures lie within the memory: every row of the input, rounded up to whole groups of channels,
    /// within the bytes, and the other pictures within theirs; and that the weights are packed for this kind of CPU.
    ///
    /// # Panics
    /// When that is not so, or a picture is of other sizes.
    fn check<D: Dot>(&'a self, range: Option<ByRange>, memory: Memory<'a>) -> Checked8<'a> {
        let shape = self.packed.shape;
        let Shape { c_out, c_in, padding, .. } = shape;
        let input = self.input;
        let output = self.output.or(self.output8.map(|(view, _)| view)).expect("an output");
        let sides = [output.h, output.w];
        // windows of Winograd's method may reach further than the outputs that are wanted
        assert!(self.packed.method() == Method::Direct || sides == [input.h, input.w]);
        let read = c_in.next_multiple_of(CHANNELS);
        let Tile8 { lanes, flip, order, .. } = self.packed.tile;
        assert!((lanes, flip, order) == (D::LANES, D::FLIP, D::ORDER), "weights packed for another kind of CPU");
        assert!(input.c == c_in && input.pixel.is_multiple_of(CHANNELS) && input.start.is_multiple_of(CHANNELS));
        assert!(input.pixel >= read && self.extra.is_none_or(|e| e.len() >= c_out));
        let window = shape.window(sides);
        assert!(window.is_some_and(|window| input.reaches(padding, window, read, memory.bytes_len())));
        let fits = |v: ImageView, len: usize| v.fits(len) && (v.c, v.h, v.w) == (c_out, sides[0], sides[1]);
        assert!(self.residual.is_none_or(|v| fits(v, memory.len())));
        assert!(self.output.is_none_or(|v| fits(v, memory.len()) && v.is_apart()));
        assert!(self.output8.is_none_or(|(v, _)| fits(v, memory.bytes_len()) && v.is_apart()));
        let columns = if range.is_some() { self.packed.scale.len() } else { 0 };
        assert!(self.packed.columns.len() == columns, "weights packed for other levels");
        let sums = range.and_then(|range| range.sums).filter(|_| self.packed.needs_sums());
        let pixels = sides[0].checked_mul(sides[1]);
        let within = |start: usize| pixels.and_then(|n| n.checked_add(start)).is_some_and(|end| end <= memory.len());
        assert!(sums.is_some() == self.packed.needs_sums() && sums.is_none_or(within));
        // a sum of a pixel is one of a window only if that is the pixel
        assert!(sums.is_none() || (shape.kernel, shape.stride, shape.padding) == ([1, 1], [1, 1], [0, 0]));
        Checked8 { run: self, memory, sides, range }
    }
}

/// Runs an 8-bit convolution as it is defined.
///
/// # Panics
/// When a picture does not lie within the memory, or is of other sizes.
#[inline(always)]
pub(super) fn run<D: Dot>(d: D, run: &Run8, range: Option<ByRange>, part: Part, memory: Memory) {
    if run.packed.least { run_all(d.wide(), run, range, part, memory) } else { run_all(d, run, range, part, memory) }
}

/// The sum of each pixel's levels less their zero point, to the arena from `to` on.
///
/// # Panics
/// When the picture does not lie within the memory, or the sums do not.
pub fn sum_levels(isa: Isa, view: ImageView, zero_point: u8, to: usize, memory: Memory) {
    assert!(view.fits(memory.bytes_len()));
    let (bytes, flip) = (memory.bytes().source(), isa.tile8().flip);
    for (i, start) in view.pixels().enumerate() {
        let mut sum = 0;
        for at in start..start + view.c {
            // SAFETY: the picture fits.
            let byte: u8 = unsafe { bytes.load(at) };
            sum += i32::from(byte.wrapping_sub(flip));
        }
        memory.set(to + i, (sum - i32::from(zero_point) * view.c as i32) as f32);
    }
}

/// Runs an 8-bit convolution by [`winograd`].
///
/// # Panics
/// As [`run`], and when the work space is too small.
#[inline(always)]
pub(super) fn run_words<W: Words>(w: W, run: &Run8, part: Part, work: &mut [f32], memory: Memory) {
    let Weights8::Words(square, weights) = &run.packed.weights else { panic!("weights that are not transformed") };
    let weights = (weights.as_slice(), run.packed.blocks.as_slice());
    winograd::exact::run(w, *square, run.check::<W>(None, memory), weights, part, work);
}

/// A row of the output that there is, since [`new`](Self::new) makes it of a checked run.
#[derive(Clone, Copy)]
struct Row<'a> {
    weights: Source<'a, i8>,
    /// The input from the window of the first pixel on.
    input: Source<'a, u8>,
    block: Block,
    y: usize,
    checked: Checked8<'a>,
}

impl<'a> Row<'a> {
    #[inline(always)]
    fn new(checked: Checked8<'a>, weights: &'a [i8], block: Block, y: usize) -> Self {
        let (Shape { stride, padding, .. }, input) = (checked.run.packed.shape, checked.run.input);
        assert!(y < checked.sides[0]);
        // the border lies before the first row, and padding within it
        let first = input.start + y * stride[0] * input.row - padding[0] * input.row - padding[1] * input.pixel;
        let (weights, from) = (Source::of(weights).skip(block.weights), checked.memory.bytes().source());
        Row { weights, input: from.skip(first), block, y, checked }
    }
}

#[inline(always)]
fn run_all<D: Dot>(d: D, run: &Run8, range: Option<ByRange>, part: Part, memory: Memory) {
    let checked = run.check::<D>(range, memory);
    let [h, w] = checked.sides;
    let Weights8::Bytes(weights) = &run.packed.weights else { panic!("weights that are transformed") };
    let pixels = Block::pixels(&run.packed.blocks, D::PIXELS, w);
    for (line, tiles) in part.lines(run.packed.blocks.len() * h, w.div_ceil(pixels)) {
        let (block, y) = (run.packed.blocks[line / h], line % h);
        let pixels = (pixels, tiles.start * pixels..w.min(tiles.end * pixels));
        let row = Row::new(checked, weights, block, y);
        match block.vectors {
            1 => row_of::<D, 1>(d, row, pixels),
            2 => row_of::<D, 2>(d, row, pixels),
            3 => row_of::<D, 3>(d, row, pixels),
            _ => row_of::<D, 4>(d, row, pixels),
        }
    }
}

#[inline(always)]
fn row_of<D: Dot, const V: usize>(d: D, row: Row, (pixels, Range { start, end }): (usize, Range<usize>)) {
    if V > D::PIXELS.len() {
        return;
    }
    let mut x = start;
    while x < end {
        match pixels.min(end - x) {
            1 => tile::<D, V, 1>(d, row, x),
            2 => tile::<D, V, 2>(d, row, x),
            3 => tile::<D, V, 3>(d, row, x),
            4 => tile::<D, V, 4>(d, row, x),
            5 => tile::<D, V, 5>(d, row, x),
            6 => tile::<D, V, 6>(d, row, x),
            7 => tile::<D, V, 7>(d, row, x),
            _ => tile::<D, V, 8>(d, row, x),
        }
        x += pixels;
    }
}

/// Works out P pixels from `x` on, of V vectors of output channels, which are the row's block.
#[inline(always)]
fn tile<D: Dot, const V: usize, const P: usize>(d: D, row: Row, x: usize) {
    if V > D::PIXELS.len() || P > D::PIXELS[V - 1] {
        return;
    }
    let Run8 { packed, input, .. } = row.checked.run;
    assert!(V == row.block.vectors && x + P <= row.checked.sides[1]);
    let Shape { c_in, kernel, stride, dilation, .. } = packed.shape;
    let step = stride[1] * input.pixel;
    let mut sums = [packed.start::<D>(row.block, 0); V];
    for (v, sum) in sums.iter_mut().enumerate() {
        *sum = packed.start::<D>(row.block, v);
    }
    let mut sums = [sums; P];
    let mut weights = row.weights;
    let first = row.input.skip(x * step);
    d.pair_sums(&mut sums);
    // taps of a row whose channels lie together, in whole groups, are as one
    let together = input.pixel == c_in && c_in.is_multiple_of(4 * CHANNELS) && dilation[1] == 1;
    let (taps, count) = if together { (1, kernel[1] * c_in) } else { (kernel[1], c_in) };
    for ky in 0..kernel[0] {
        for kx in 0..taps {
            let from = first.skip(ky * dilation[0] * input.row + kx * dilation[1] * input.pixel);
            // SAFETY: a checked run has the windows of all pixels of the row within the memory, with their channels
            // rounded up to whole groups, and these are some of them; the weights are packed in this order, for as many
            // vectors.
            weights = unsafe { accumulate::<D, V, P>(d, &mut sums, weights, from, step, count) };
        }
    }
    d.pair_sums(&mut sums);
    store::<D, V, P>(d, row, x, sums);
}

/// As [`accumulate`](super::conv::accumulate), of bytes.
///
/// # Safety
/// As there; pixels must have their channels padded to a multiple of four.
#[inline(always)]
unsafe fn accumulate<'a, D: Dot, const V: usize, const P: usize>(
    d: D,
    sums: &mut [[D::I; V]; P],
    weights: Source<'a, i8>,
    from: Source<u8>,
    step: usize,
    count: usize,
) -> Source<'a, i8> {
    let (mut weights, mut c) = (weights, 0);
    if D::GROUP == 4 {
        while c + 4 * CHANNELS <= count {
            let mut x = [d.four([0; 4]); P];
            for (p, x) in x.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *x = d.group(unsafe { from.load(p * step + c) });
            }
            d.pair(&mut x);
            macro_rules! add_fours {
                // SAFETY: the caller's promise: the weights of sixteen channels are there.
                ($($l:literal)*) => { $(weights = unsafe { add_four::<D, V, P, $l>(d, sums, weights, &x) };)* };
            }
            add_fours!(0 1 2 3);
            c += 4 * CHANNELS;
        }
    }
    while c < count {
        let mut x = [d.four([0; 4]); P];
        for (p, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *x = d.four(unsafe { from.load(p * step + c) });
        }
        d.pair(&mut x);
        // SAFETY: the caller's promise.
        weights = unsafe { add_four::<D, V, P, 0>(d, sums, weights, &x) };
        if D::ORDER == Order8::Eights {
            // SAFETY: the caller's promise: in this order, four channels have two rooms.
            weights = unsafe { add_four::<D, V, P, 1>(d, sums, weights, &x) };
        }
        c += CHANNELS;
    }
    weights
}

/// Adds the products of four L of P pixels and the next V vectors of weights. What lies after those is returned.
///
/// # Safety
/// The weights must be there.
#[inline(always)]
unsafe fn add_four<'a, D: Dot, const V: usize, const P: usize, const L: usize>(
    d: D,
    sums: &mut [[D::I; V]; P],
    weights: Source<'a, i8>,
    x: &[D::X; P],
) -> Source<'a, i8> {
    let mut w = [d.weights(D::Stored::zeroed()); V];
    for (v, w) in w.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *w = d.weights(unsafe { weights.load(v * D::LANES * CHANNELS) });
    }
    fetch_ahead(d.simd(), weights, V * D::LANES * CHANNELS);
    d.add::<V, P, L>(sums, x, &w);
    weights.skip(V * D::LANES * CHANNELS)
}

/// The results of a tile, from its sums.
#[inline(always)]
fn store<D: Dot, const V: usize, const P: usize>(d: D, row: Row, x: usize, sums: [[D::I; V]; P]) {
    let whole = row.block.channels >= V * D::LANES;
    for (p, &sums) in sums.iter().enumerate() {
        let (y, x, first) = (row.y, x + p, row.block.first);
        if whole {
            // SAFETY: `tile` made sure that the pixel is there, and the block has as many channels.
            unsafe { finish::<D, V>(d, row.checked, (y, x, first), sums, None) }
        } else {
            for (v, &sum) in sums.iter().enumerate() {
                let (c, left) = (v * D::LANES, row.block.channels - v * D::LANES);
                let part = (left < D::LANES).then_some(left);
                // SAFETY: as above; so many channels are left.
                unsafe { finish::<D, 1>(d, row.checked, (y, x, first + c), [sum], part) }
            }
        }
    }
}

/// The results of the pixel at (y, x): of V whole vectors of channels from `first` on, or of a `part` of one.
///
/// # Safety
/// The pixel must be one of the output, and the channels some of those that the weights are of.
#[inline(always)]
pub(super) unsafe fn finish<D: Dot, const V: usize>(
    d: D,
    Checked8 { run, memory, range, sides }: Checked8,
    (y, x, first): (usize, usize, usize),
    sums: [D::I; V],
    part: Option<usize>,
) {
    let Run8 { packed, output, output8, residual, round, extra, .. } = run;
    let s = d.simd();
    let count = part.unwrap_or(V * D::LANES);
    let at = |view: &ImageView| view.start + y * view.row + x * view.pixel + first;
    let mut values = [s.splat(0.0); V];
    for (v, value) in values.iter_mut().enumerate() {
        let at = first + v * D::LANES;
        // SAFETY: there is a scale for each channel, padded to whole vectors.
        let scale = unsafe { Source::of(&packed.scale).load(at) };
        // SAFETY: so is there a bias.
        let bias = unsafe { Source::of(&packed.bias).load(at) };
        let (mut sum, mut scale) = (d.to_float(sums[v]), scale);
        if let Some(ByRange { levels, sums }) = range {
            // SAFETY: a checked run has a sum for each scale.
            let column = unsafe { Source::of(&packed.columns).load(at) };
            sum = s.fma(column, s.splat(-f32::from(levels.zero_point)), sum);
            if let Some(start) = sums.filter(|_| packed.needs_sums()) {
                // SAFETY: a checked run has a sum for each pixel, and a zero for each scale.
                let of_pixel: f32 = unsafe { memory.arena().source().load(start + y * sides[1] + x) };
                // SAFETY: as above.
                let zero = unsafe { Source::of(&packed.zeros).load(at) };
                sum = s.fma(zero, s.splat(-of_pixel), sum);
            }
            scale = s.mul(scale, s.splat(levels.scale));
        }
        *value = s.fma(sum, scale, bias);
    }
    if let Some(levels) = round {
        for value in &mut values {
            *value = levels.round_all(s, *value);
        }
    }
    if let Some(extra) = extra {
        // SAFETY: a checked run has one for each channel.
        unsafe { add::<D, V>(d, &mut values, Source::of(extra).skip(first), part) }
    }
    if let Some(view) = residual {
        // SAFETY: a checked run has the pixel within the arena.
        unsafe { add::<D, V>(d, &mut values, memory.arena().source().skip(at(view)), part) }
    }
    if let Some(view) = output {
        for (v, &value) in values.iter().enumerate() {
            let left = count - v * D::LANES;
            // SAFETY: a checked run has the pixel within the arena; those of other parts are others.
            unsafe { s.store_some(memory.arena(), at(view) + v * D::LANES, left, value) }
        }
    }
    if let Some((view, levels)) = output8 {
        match part {
            // SAFETY: as above.
            None => unsafe { levels.store(d, memory.bytes(), at(view), values) },
            // SAFETY: as above.
            Some(part) => unsafe { levels.store_part(d, memory.bytes(), at(view), values[0], part) },
        }
    }
}

/// Adds numbers to vectors, or to a `part` of one.
///
/// # Safety
/// As many must be there.
#[inline(always)]
unsafe fn add<D: Dot, const V: usize>(
    d: D,
    values: &mut [<D::S as Simd>::F; V],
    from: Source<f32>,
    part: Option<usize>,
) {
    let s = d.simd();
    for (v, value) in values.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let other = unsafe { s.load_some(from, v * D::LANES, part.unwrap_or(D::LANES)) };
        *value = s.add(*value, other);
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;
    use super::*;

    #[test]
    fn levels_are_the_nearest_ones() {
        for zero in [0, 1, 77, 128, 254, 255] {
            let levels = QuantParams::new(0.25, zero).unwrap();
            let check = |value: f32| {
                let level = ((value * 4.0).round_ties_even() + f32::from(zero)).clamp(0.0, 255.0);
                let mut bytes = [0; 4];
                // SAFETY: a vector has four numbers.
                unsafe { levels.store(Portable, Target::of(&mut bytes), 0, [[value; 4]]) };
                let rounded = levels.round_all(Portable, [value; 4]);
                assert_eq!(bytes, [level as u8; 4], "{zero} {value}");
                assert_eq!(rounded, [(level - f32::from(zero)) * 0.25; 4], "{zero} {value}");
            };
            // halves and quarters of a level, far beyond both ends
            let step = if cfg!(miri) { 10_001 } else { 1 };
            (-100_000..100_000).step_by(step).for_each(|i| check(i as f32 / 64.0));
            [f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE].into_iter().for_each(check);
        }
    }
}
