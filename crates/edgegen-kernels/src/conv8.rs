//! Convolution of unsigned 8-bit pictures with signed 8-bit weights, summed exactly in 32 bits.
//!
//! As in `conv.rs`, a tile is a few output pixels times a few vectors of output channels; four input channels are
//! multiplied at a time. Around a picture, and in it where channels are padded to a multiple of four, lies its zero
//! point.

use super::Isa;
use super::conv::{Block, Method, Shape, fetch_ahead};
use super::memory::{Memory, Part};
use super::simd::{Dot, Order8, Simd, WIDEST, Words};
use super::winograd::{self, Square};
use crate::arena::View;
use std::ops::Range;

/// Where levels lie: a value is `(level - zero) · scale`, levels are from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The distance of two levels.
    pub scale: f32,
    /// The level of 0.
    pub zero: u8,
}

impl Levels {
    /// Values rounded to levels.
    ///
    /// # Safety
    /// The CPU must have the features of `S`.
    #[inline(always)]
    pub(super) unsafe fn round_all<S: Simd>(self, value: S::F) -> S::F {
        let low = -f32::from(self.zero);
        // SAFETY: the caller's promise.
        unsafe {
            // between whole bounds, rounding is the same before and after clamping
            let level = S::max(S::mul(value, S::splat(1.0 / self.scale)), S::splat(low));
            S::mul(S::round(S::min(level, S::splat(255.0 + low))), S::splat(self.scale))
        }
    }

    /// Vectors of values as levels, in the form that `D` reads.
    ///
    /// # Safety
    /// The CPU must have the features of `D`; `to` must have room.
    #[inline(always)]
    pub(super) unsafe fn store<D: Dot, const V: usize>(self, to: *mut u8, values: [<D::S as Simd>::F; V]) {
        // SAFETY: the caller's promise.
        unsafe { D::S::store_levels(to, values, 1.0 / self.scale, self.zero, D::FLIP) }
    }

    /// As [`store`](Self::store), for the first `n` < `LANES` values.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn store_part<D: Dot>(self, to: *mut u8, value: <D::S as Simd>::F, n: usize) {
        let mut whole = [0; WIDEST];
        // SAFETY: the caller's promise; no vector is wider.
        unsafe {
            self.store::<D, 1>(whole.as_mut_ptr(), [value]);
            for (i, v) in whole.iter().enumerate().take(n) {
                *to.add(i) = *v;
            }
        }
    }
}

/// 8-bit weights in the order in which the kernel reads them.
#[derive(Clone, Debug)]
pub struct Packed8 {
    /// The sizes.
    pub shape: Shape,
    blocks: Vec<Block>,
    /// Whether any weight is -128.
    least: bool,
    weights: Weights8,
    /// What the sums start from: it takes the input's zero point away.
    start: Vec<i32>,
    /// What a sum is multiplied with.
    scale: Vec<f32>,
    bias: Vec<f32>,
}

/// Input channels that are multiplied at a time.
pub const CHANNELS: usize = 4;

/// Products that a sum may have. It starts from at most 255 · 128 for each, and each adds at most as much.
const MOST: usize = i32::MAX as usize / (2 * 255 * 128);

/// What a CPU's 8-bit convolutions want of weights and pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile8 {
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
    /// When a sum might not fit 32 bits.
    ///
    /// # Panics
    /// When there are not as many weights, or this kind of CPU has no Winograd's way.
    pub fn new(
        shape: Shape,
        method: Method,
        (weights, scales): (&[i8], &[f32]),
        bias: Option<&[f32]>,
        input: Levels,
        isa: Isa,
    ) -> Result<Self, String> {
        let Shape { c_out, c_in, kernel, .. } = shape;
        let taps = kernel[0] * kernel[1];
        assert_eq!(weights.len(), c_out * c_in * taps);
        if c_in.next_multiple_of(CHANNELS) * taps > MOST {
            return Err(format!("8-bit sums of {} products do not fit 32 bits", c_in * taps));
        }
        let Tile8 { lanes, vectors, flip, order } = isa.tile8();
        let (blocks, packed) = match method {
            Method::Direct => {
                let rooms = order.rooms(c_in);
                let blocks = Block::split(c_out, (lanes, vectors), taps * rooms.len() * CHANNELS);
                let packed = by_rooms(&shape, weights, (&blocks, lanes), order, &rooms);
                (blocks, Weights8::Bytes(packed))
            }
            Method::Winograd(square) => {
                let (vectors, pair) = isa.tile_of_words().expect("a kind of CPU that multiplies words");
                let blocks = Block::split(c_out, (lanes, vectors), square.positions() * c_in);
                let packed = winograd::exact::pack(square, weights, (&blocks, lanes, pair), c_in);
                (blocks, Weights8::Words(square, packed))
            }
        };
        let sum = |o: usize| weights[o * c_in * taps..][..c_in * taps].iter().map(|w| i32::from(*w)).sum::<i32>();
        // so that whole vectors may be read at the last channel
        let padded = c_out + lanes * vectors;
        let zero = i32::from(input.zero) - i32::from(flip);
        let mut start: Vec<i32> = (0..c_out).map(|o| -zero * sum(o)).collect();
        let mut scale: Vec<f32> =
            (0..c_out).map(|o| input.scale * scales[if scales.len() == 1 { 0 } else { o }]).collect();
        let mut bias = bias.map_or_else(|| vec![0.0; c_out], <[f32]>::to_vec);
        start.resize(padded, 0);
        scale.resize(padded, 0.0);
        bias.resize(padded, 0.0);
        Ok(Packed8 { shape, blocks, least: weights.contains(&i8::MIN), weights: packed, start, scale, bias })
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
        weights + 12 * self.start.len()
    }

    /// What the sums of vector `v` of a block start from.
    ///
    /// # Safety
    /// The CPU must have the features of `D`.
    #[inline(always)]
    pub(super) unsafe fn start<D: Dot>(&self, block: Block, v: usize) -> D::I {
        // SAFETY: the caller's promise; the start is padded.
        unsafe { D::load_sums(self.start.as_ptr().add(block.first + v * D::LANES)) }
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
    pub round: Option<Levels>,
    /// What is added to each channel, one a channel.
    pub extra: Option<&'a [f32]>,
    /// The input, among the 8-bit pictures.
    pub input: View,
    /// Where the result goes in f32.
    pub output: Option<View>,
    /// Where it goes in 8 bits, rounded to these levels; unless they are those of `round`, after the sums.
    pub output8: Option<(View, Levels)>,
    /// A picture that is added to the output.
    pub residual: Option<View>,
}

#[derive(Clone, Copy)]
struct Row<'a> {
    weights: *const i8,
    input: *const u8,
    block: Block,
    y: usize,
    run: &'a Run8<'a>,
    memory: Memory<'a>,
}

/// Runs an 8-bit convolution as it is defined.
///
/// # Safety
/// The CPU must have the features of `D`.
#[inline(always)]
pub(super) unsafe fn run<D: Dot>(run: &Run8, part: Part, memory: Memory) {
    // SAFETY: the caller's promise.
    unsafe { if run.packed.least { run_all::<D::Wide>(run, part, memory) } else { run_all::<D>(run, part, memory) } }
}

/// Runs an 8-bit convolution by [`winograd`].
///
/// # Safety
/// The CPU must have the features of `W`.
#[inline(always)]
pub(super) unsafe fn run_words<W: Words>(run: &Run8, part: Part, work: &mut [f32], memory: Memory) {
    let sides = run.check(memory);
    let Weights8::Words(square, weights) = &run.packed.weights else { panic!("weights that are not transformed") };
    let weights = (weights.as_slice(), run.packed.blocks.as_slice());
    // SAFETY: the caller's promise, and the check.
    unsafe { winograd::exact::run::<W>(*square, run, weights, sides, part, work, memory) }
}

impl Run8<'_> {
    /// Makes sure that all pictures lie within the memory: every row of the input, rounded up to whole groups of channels,
    /// within the bytes, and the other pictures within theirs. Returns the output's rows and columns.
    ///
    /// # Panics
    /// When one does not, or is of other sizes.
    fn check(&self, memory: Memory) -> [usize; 2] {
        let Shape { c_out, c_in, stride, padding, kernel } = self.packed.shape;
        let input = self.input;
        let side = |n: usize, i: usize| (n + 2 * padding[i] - kernel[i]) / stride + 1;
        let (h, w) = (side(input.h, 0), side(input.w, 1));
        assert!(input.c == c_in && input.pixel.is_multiple_of(CHANNELS) && input.start.is_multiple_of(CHANNELS));
        assert!(input.pixel >= c_in.next_multiple_of(CHANNELS) && self.extra.is_none_or(|e| e.len() >= c_out));
        let (height, width) = ((h - 1) * stride + kernel[0], (w - 1) * stride + kernel[1]);
        assert!(input.reaches(padding, height, width, memory.bytes_len()));
        let fits = |v: View, len: usize| v.fits(len) && (v.c, v.h, v.w) == (c_out, h, w);
        assert!(
            self.output.is_none_or(|v| fits(v, memory.len())) && self.residual.is_none_or(|v| fits(v, memory.len()))
        );
        assert!(self.output8.is_none_or(|(v, _)| fits(v, memory.bytes_len())));
        [h, w]
    }
}

#[inline(always)]
unsafe fn run_all<D: Dot>(run: &Run8, part: Part, memory: Memory) {
    let Shape { stride, padding, .. } = run.packed.shape;
    let input = run.input;
    let [h, w] = run.check(memory);
    let Weights8::Bytes(weights) = &run.packed.weights else { panic!("weights that are transformed") };
    let pixels = Block::pixels(&run.packed.blocks, D::PIXELS, w);
    for (line, tiles) in part.lines(run.packed.blocks.len() * h, w.div_ceil(pixels)) {
        let (block, y) = (run.packed.blocks[line / h], line % h);
        let pixels = (pixels, tiles.start * pixels..w.min(tiles.end * pixels));
        let at = input.start + y * stride * input.row - padding[0] * input.row - padding[1] * input.pixel;
        // SAFETY: the caller's promise, and the check.
        unsafe {
            let weights = weights.as_ptr().add(block.weights);
            let row = Row { weights, input: memory.bytes().add(at), block, y, run, memory };
            match block.vectors {
                1 => row_of::<D, 1>(row, pixels),
                2 => row_of::<D, 2>(row, pixels),
                3 => row_of::<D, 3>(row, pixels),
                _ => row_of::<D, 4>(row, pixels),
            }
        }
    }
}

#[inline(always)]
unsafe fn row_of<D: Dot, const V: usize>(row: Row, (pixels, Range { start, end }): (usize, Range<usize>)) {
    if V > D::PIXELS.len() {
        return;
    }
    let mut x = start;
    while x < end {
        // SAFETY: the caller's promise, for the pixels that are left.
        unsafe {
            match pixels.min(end - x) {
                1 => tile::<D, V, 1>(row, x),
                2 => tile::<D, V, 2>(row, x),
                3 => tile::<D, V, 3>(row, x),
                4 => tile::<D, V, 4>(row, x),
                5 => tile::<D, V, 5>(row, x),
                6 => tile::<D, V, 6>(row, x),
                7 => tile::<D, V, 7>(row, x),
                _ => tile::<D, V, 8>(row, x),
            }
        }
        x += pixels;
    }
}

#[inline(always)]
unsafe fn tile<D: Dot, const V: usize, const P: usize>(row: Row, x: usize) {
    if V > D::PIXELS.len() || P > D::PIXELS[V - 1] {
        return;
    }
    let Run8 { packed, input, .. } = row.run;
    let Shape { c_in, kernel, stride, .. } = packed.shape;
    let step = stride * input.pixel;
    // SAFETY: the caller's promise: pixels x to x + P of the row are within the input; the start is padded.
    unsafe {
        let mut sums = [packed.start::<D>(row.block, 0); V];
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = packed.start::<D>(row.block, v);
        }
        let mut sums = [sums; P];
        let mut weights = row.weights;
        let from = row.input.add(x * step);
        D::pair_sums(&mut sums);
        // taps of a row whose channels lie together, in whole groups, are as one
        let together = input.pixel == c_in && c_in.is_multiple_of(4 * CHANNELS);
        let (taps, count) = if together { (1, kernel[1] * c_in) } else { (kernel[1], c_in) };
        for ky in 0..kernel[0] {
            for kx in 0..taps {
                let from = from.add(ky * input.row + kx * input.pixel);
                weights = accumulate::<D, V, P>(&mut sums, weights, from, step, count);
            }
        }
        D::pair_sums(&mut sums);
        store::<D, V, P>(row, x, sums);
    }
}

/// As [`accumulate`](super::conv::accumulate), of bytes.
///
/// # Safety
/// As there; pixels must have their channels padded to a multiple of four.
#[inline(always)]
unsafe fn accumulate<D: Dot, const V: usize, const P: usize>(
    sums: &mut [[D::I; V]; P],
    weights: *const i8,
    from: *const u8,
    step: usize,
    count: usize,
) -> *const i8 {
    let (mut weights, mut c) = (weights, 0);
    // SAFETY: the caller's promise.
    unsafe {
        if D::GROUP == 4 {
            while c + 4 * CHANNELS <= count {
                let mut x = [D::group(from.add(c)); P];
                for (p, x) in x.iter_mut().enumerate() {
                    *x = D::group(from.add(p * step + c));
                }
                D::pair(&mut x);
                weights = add_four::<D, V, P, 0>(sums, weights, &x);
                weights = add_four::<D, V, P, 1>(sums, weights, &x);
                weights = add_four::<D, V, P, 2>(sums, weights, &x);
                weights = add_four::<D, V, P, 3>(sums, weights, &x);
                c += 4 * CHANNELS;
            }
        }
        while c < count {
            let mut x = [D::four(from.add(c)); P];
            for (p, x) in x.iter_mut().enumerate() {
                *x = D::four(from.add(p * step + c));
            }
            D::pair(&mut x);
            weights = add_four::<D, V, P, 0>(sums, weights, &x);
            if D::ORDER == Order8::Eights {
                weights = add_four::<D, V, P, 1>(sums, weights, &x);
            }
            c += CHANNELS;
        }
    }
    weights
}

#[inline(always)]
unsafe fn add_four<D: Dot, const V: usize, const P: usize, const L: usize>(
    sums: &mut [[D::I; V]; P],
    weights: *const i8,
    x: &[D::X; P],
) -> *const i8 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut w = [D::load_weights(weights); V];
        for (v, w) in w.iter_mut().enumerate() {
            *w = D::load_weights(weights.add(v * D::LANES * CHANNELS));
        }
        fetch_ahead::<D::S, i8>(weights, V * D::LANES * CHANNELS);
        D::add::<V, P, L>(sums, x, &w);
        weights.add(V * D::LANES * CHANNELS)
    }
}

/// The results of a tile, from its sums.
///
/// # Safety
/// As the tile's.
#[inline(always)]
unsafe fn store<D: Dot, const V: usize, const P: usize>(row: Row, x: usize, sums: [[D::I; V]; P]) {
    let whole = row.block.channels >= V * D::LANES;
    for (p, &sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let (y, x, first) = (row.y, x + p, row.block.first);
            if whole {
                finish::<D, V>(row.run, (y, x, first), sums, None, row.memory);
            } else {
                for (v, &sum) in sums.iter().enumerate() {
                    let (c, left) = (v * D::LANES, row.block.channels - v * D::LANES);
                    let part = (left < D::LANES).then_some(left);
                    finish::<D, 1>(row.run, (y, x, first + c), [sum], part, row.memory);
                }
            }
        }
    }
}

/// The results of the pixel at (y, x): of V whole vectors of channels from `first` on, or of a `part` of one.
///
/// # Safety
/// As the tile's; those channels must be there.
#[inline(always)]
pub(super) unsafe fn finish<D: Dot, const V: usize>(
    run: &Run8,
    (y, x, first): (usize, usize, usize),
    sums: [D::I; V],
    part: Option<usize>,
    memory: Memory,
) {
    let Run8 { packed, output, output8, residual, round, extra, .. } = run;
    let at = |view: &View| view.start + y * view.row + x * view.pixel + first;
    // SAFETY: the caller's promise; scale and bias are padded to whole vectors.
    unsafe {
        let (scale, bias) = (packed.scale.as_ptr().add(first), packed.bias.as_ptr().add(first));
        let mut values = [D::S::splat(0.0); V];
        for (v, value) in values.iter_mut().enumerate() {
            let at = v * D::LANES;
            *value = D::S::fma(D::to_float(sums[v]), D::S::load(scale.add(at)), D::S::load(bias.add(at)));
        }
        if let Some(levels) = round {
            for value in &mut values {
                *value = levels.round_all::<D::S>(*value);
            }
        }
        if let Some(extra) = extra {
            add::<D, V>(&mut values, extra.as_ptr().add(first), part);
        }
        if let Some(view) = residual {
            add::<D, V>(&mut values, memory.arena().add(at(view)), part);
        }
        if let Some(view) = output {
            let to = memory.arena().add(at(view));
            for (v, &value) in values.iter().enumerate() {
                match part {
                    None => D::S::store(to.add(v * D::LANES), value),
                    Some(part) => D::S::store_part(to, value, part),
                }
            }
        }
        if let Some((view, levels)) = output8 {
            let to = memory.bytes().add(at(view));
            match part {
                None => levels.store::<D, V>(to, values),
                Some(part) => levels.store_part::<D>(to, values[0], part),
            }
        }
    }
}

/// Adds the numbers from `from` on to vectors, or a `part` of one.
///
/// # Safety
/// The CPU must have the features of `D`; the numbers must be there.
#[inline(always)]
unsafe fn add<D: Dot, const V: usize>(values: &mut [<D::S as Simd>::F; V], from: *const f32, part: Option<usize>) {
    for (v, value) in values.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let other = match part {
                None => D::S::load(from.add(v * D::LANES)),
                Some(part) => D::S::load_part(from, part),
            };
            *value = D::S::add(*value, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;
    use super::*;

    #[test]
    fn levels_are_the_nearest_ones() {
        for zero in [0, 1, 77, 128, 254, 255] {
            let levels = Levels { scale: 0.25, zero };
            let check = |value: f32| {
                let level = ((value * 4.0).round_ties_even() + f32::from(zero)).clamp(0.0, 255.0);
                let mut bytes = [0; 4];
                // SAFETY: every CPU has the portable vectors.
                let rounded = unsafe {
                    levels.store::<Portable, 1>(bytes.as_mut_ptr(), [[value; 4]]);
                    levels.round_all::<Portable>([value; 4])
                };
                assert_eq!(bytes, [level as u8; 4], "{zero} {value}");
                assert_eq!(rounded, [(level - f32::from(zero)) * 0.25; 4], "{zero} {value}");
            };
            // halves and quarters of a level, far beyond both ends
            (-100_000..100_000).for_each(|i| check(i as f32 / 64.0));
            [f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE].into_iter().for_each(check);
        }
    }
}
