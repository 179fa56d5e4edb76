//! The sums of tiles.

use super::CHANNELS;
use super::finish::finish;
use super::packed::Weights8;
use super::run::{ByRange, Checked8, Run8};
use crate::conv::{Block, Shape, fetch_ahead};
use crate::memory::{Memory, Part};
use crate::pointer::{Plain, Source};
use crate::simd::{Dot, Order8, Words};
use crate::winograd;
use std::ops::Range;

/// Runs an 8-bit convolution as it is defined.
///
/// # Panics
/// When a picture does not lie within the memory, or is of other sizes.
#[inline(always)]
pub(crate) fn run<D: Dot>(d: D, run: &Run8, range: Option<ByRange>, part: Part, memory: Memory) {
    if run.packed.least { run_all(d.wide(), run, range, part, memory) } else { run_all(d, run, range, part, memory) }
}

/// Runs an 8-bit convolution by [`winograd`].
///
/// # Panics
/// As [`run`], and when the work space is too small.
#[inline(always)]
pub(crate) fn run_words<W: Words>(w: W, run: &Run8, part: Part, work: &mut [f32], memory: Memory) {
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

/// As [`accumulate`](crate::conv::accumulate), of bytes.
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
