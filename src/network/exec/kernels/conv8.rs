//! Convolution of unsigned 8-bit pictures with signed 8-bit weights, summed exactly in 32 bits.
//!
//! As in `conv.rs`, a tile is a few output pixels times a few vectors of output channels; four input channels are
//! multiplied at a time. Around a picture, and in it where channels are padded to a multiple of four, lies its zero
//! point.

use super::super::arena::View;
use super::conv::Shape;
use super::simd::Dot;

/// Where levels lie: a value is `(level - zero) · scale`, levels are from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The distance of two levels.
    pub scale: f32,
    /// The level of 0.
    pub zero: u8,
}

impl Levels {
    /// The nearest level, ties to even.
    #[inline(always)]
    pub fn level(self, inverse_scale: f32, value: f32) -> f32 {
        ((value * inverse_scale).round_ties_even() + f32::from(self.zero)).clamp(0.0, 255.0)
    }

    /// The nearest level as a byte: [`level`](Self::level) in fewer instructions. Adding 1.5 · 2²³ rounds to an
    /// integer, ties to even, kept in the low bits; between whole bounds that is the same before and after clamping.
    #[inline(always)]
    pub fn level_bits(self, inverse_scale: f32, value: f32) -> u8 {
        const ROUND: f32 = 12_582_912.0;
        let zero = f32::from(self.zero);
        let bounded = (value * inverse_scale).clamp(-zero, 255.0 - zero);
        ((bounded + ROUND).to_bits() as u8).wrapping_add(self.zero)
    }

    /// The value rounded to a level.
    #[inline(always)]
    pub fn round(self, inverse_scale: f32, value: f32) -> f32 {
        (self.level(inverse_scale, value) - f32::from(self.zero)) * self.scale
    }
}

/// 8-bit weights in the order in which the kernel reads them.
#[derive(Clone, Debug)]
pub struct Packed8 {
    /// The sizes.
    pub shape: Shape,
    blocks: Vec<Block>,
    weights: Vec<i8>,
    /// What the sums start from: it takes the input's zero point away.
    start: Vec<i32>,
    /// What a sum is multiplied with.
    scale: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    first: usize,
    channels: usize,
    vectors: usize,
    weights: usize,
}

/// Input channels that are multiplied at a time.
pub const CHANNELS: usize = 4;

impl Packed8 {
    /// Packs weights `[C_out, C_in, k, k]` with a scale an output channel, for inputs of these levels.
    pub fn new(
        shape: Shape,
        (weights, scales): (&[i8], &[f32]),
        bias: Option<&[f32]>,
        input: Levels,
        (lanes, vectors): (usize, usize),
    ) -> Self {
        let Shape { c_out, c_in, kernel, .. } = shape;
        let taps = kernel * kernel;
        assert_eq!(weights.len(), c_out * c_in * taps);
        let (mut blocks, mut packed) = (Vec::new(), Vec::new());
        let mut first = 0;
        while first < c_out {
            let channels = (c_out - first).min(lanes * vectors);
            let vectors = channels.div_ceil(lanes);
            blocks.push(Block { first, channels, vectors, weights: packed.len() });
            for tap in 0..taps {
                for c in (0..c_in).step_by(CHANNELS) {
                    for i in 0..vectors * lanes {
                        packed.extend((c..c + CHANNELS).map(|c| {
                            let inside = i < channels && c < c_in;
                            if inside { weights[((first + i) * c_in + c) * taps + tap] } else { 0 }
                        }));
                    }
                }
            }
            first += channels;
        }
        let sum = |o: usize| weights[o * c_in * taps..][..c_in * taps].iter().map(|w| i32::from(*w)).sum::<i32>();
        // so that whole vectors may be read at the last channel
        let padded = c_out + lanes * vectors;
        let mut start: Vec<i32> = (0..c_out).map(|o| -i32::from(input.zero) * sum(o)).collect();
        let mut scale: Vec<f32> =
            (0..c_out).map(|o| input.scale * scales[if scales.len() == 1 { 0 } else { o }]).collect();
        let mut bias = bias.map_or_else(|| vec![0.0; c_out], <[f32]>::to_vec);
        start.resize(padded, 0);
        scale.resize(padded, 0.0);
        bias.resize(padded, 0.0);
        Packed8 { shape, blocks, weights: packed, start, scale, bias }
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.weights.len() + 12 * self.start.len()
    }
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
    /// The output.
    pub output: View,
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
}

/// Runs a convolution.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(super) unsafe fn run<S: Dot>(run: &Run8, bytes: &[u8], arena: &mut [f32]) {
    let Shape { c_out, c_in, stride, padding, kernel } = run.packed.shape;
    let (input, output) = (run.input, run.output);
    assert!(input.c == c_in && input.pixel.is_multiple_of(CHANNELS) && output.c == c_out);
    assert!(input.pixel >= c_in.next_multiple_of(CHANNELS) && run.extra.is_none_or(|e| e.len() >= c_out));
    assert!(input.reaches(padding, (output.h - 1) * stride + kernel, (output.w - 1) * stride + kernel, bytes.len()));
    assert!(input.start.is_multiple_of(CHANNELS) && run.residual.is_none_or(|r| r.c == c_out));
    for block in &run.packed.blocks {
        for y in 0..output.h {
            let at = input.start + y * stride * input.row - padding * (input.row + input.pixel);
            // SAFETY: the assertions above: all rows of the input lie within `bytes`, rounded up to four channels.
            unsafe {
                let weights = run.packed.weights.as_ptr().add(block.weights);
                let row = Row { weights, input: bytes.as_ptr().add(at), block: *block, y, run };
                match block.vectors {
                    1 => row_of::<S, 1>(row, arena),
                    2 => row_of::<S, 2>(row, arena),
                    _ => row_of::<S, 3>(row, arena),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn row_of<S: Dot, const V: usize>(row: Row, arena: &mut [f32]) {
    let width = row.run.output.w;
    let pixels = width.div_ceil(width.div_ceil(S::TILE.1));
    let mut x = 0;
    while x < width {
        // SAFETY: the caller's promise, for the pixels that are left.
        unsafe {
            match pixels.min(width - x) {
                1 => tile::<S, V, 1>(row, x, arena),
                2 => tile::<S, V, 2>(row, x, arena),
                3 => tile::<S, V, 3>(row, x, arena),
                4 => tile::<S, V, 4>(row, x, arena),
                5 => tile::<S, V, 5>(row, x, arena),
                6 => tile::<S, V, 6>(row, x, arena),
                7 => tile::<S, V, 7>(row, x, arena),
                _ => tile::<S, V, 8>(row, x, arena),
            }
        }
        x += pixels;
    }
}

#[inline(always)]
unsafe fn tile<S: Dot, const V: usize, const P: usize>(row: Row, x: usize, arena: &mut [f32]) {
    let Run8 { packed, input, output, residual, round, extra } = row.run;
    let Shape { c_in, kernel, stride, .. } = packed.shape;
    let step = stride * input.pixel;
    let first = row.block.first;
    let mut sums = [[0i32; 48]; P];
    // SAFETY: the caller's promise: pixels x to x + P of the row are within the input; the start is padded.
    unsafe {
        let start = packed.start.as_ptr().add(first);
        let mut acc: [[S::I; V]; P] = [std::array::from_fn(|v| S::load_sums(start.add(v * S::LANES))); P];
        let mut weights = row.weights;
        let from = row.input.add(x * step);
        for ky in 0..kernel {
            for kx in 0..kernel {
                let from = from.add(ky * input.row + kx * input.pixel);
                for c in (0..c_in).step_by(CHANNELS) {
                    let w: [S::W; V] = std::array::from_fn(|v| S::load_weights(weights.add(v * S::LANES * CHANNELS)));
                    weights = weights.add(V * S::LANES * CHANNELS);
                    for (p, acc) in acc.iter_mut().enumerate() {
                        let value = S::splat(from.add(p * step + c));
                        for (acc, w) in acc.iter_mut().zip(w) {
                            *acc = S::dot(*acc, value, w);
                        }
                    }
                }
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            (0..V).for_each(|v| S::store_sums(sums.as_mut_ptr().add(v * S::LANES), acc[v]));
        }
    }
    let channels = row.block.channels;
    let (scale, bias) = (&packed.scale[first..][..channels], &packed.bias[first..][..channels]);
    for (p, sums) in sums.iter().enumerate() {
        let mut line = [0f32; 48];
        let line = &mut line[..channels];
        for (((o, sum), scale), bias) in line.iter_mut().zip(sums).zip(scale).zip(bias) {
            *o = *sum as f32 * scale + bias;
        }
        if let Some(levels) = round {
            let inverse = 1.0 / levels.scale;
            line.iter_mut().for_each(|o| *o = levels.round(inverse, *o));
        }
        if let Some(extra) = extra {
            line.iter_mut().zip(&extra[first..][..channels]).for_each(|(o, e)| *o += e);
        }
        if let Some(r) = residual {
            let at = r.start + row.y * r.row + (x + p) * r.pixel + first;
            line.iter_mut().zip(&arena[at..][..channels]).for_each(|(o, r)| *o += r);
        }
        arena[output.start + row.y * output.row + (x + p) * output.pixel + first..][..channels].copy_from_slice(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_a_level_are_the_same() {
        for zero in [0, 1, 77, 128, 254, 255] {
            let levels = Levels { scale: 0.25, zero };
            for i in -100_000..100_000 {
                // halves and quarters of a level, far beyond both ends
                let value = i as f32 / 64.0;
                assert_eq!(f32::from(levels.level_bits(4.0, value)), levels.level(4.0, value), "{zero} {value}");
            }
            for value in [f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE] {
                assert_eq!(f32::from(levels.level_bits(4.0, value)), levels.level(4.0, value), "{zero} {value}");
            }
        }
    }
}
