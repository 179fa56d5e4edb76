//! Convolution over pictures whose channels lie together, straight from the padded picture: nothing is unfolded.
//!
//! A tile is a few output pixels of one row times a few vectors of output channels, kept in registers while the
//! kernel's taps and the input channels pass by: each input number is broadcast and multiplied with the weights of
//! all the tile's output channels.

use super::super::arena::View;
use super::simd::Simd;
use super::winograd;

/// Output channels that a tile works on, and where their weights are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The first output channel.
    pub first: usize,
    /// Output channels.
    channels: usize,
    /// Vectors that hold them.
    pub vectors: usize,
    /// Where its weights start.
    pub weights: usize,
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Output channels.
    pub c_out: usize,
    /// Input channels.
    pub c_in: usize,
    /// The side of the kernel.
    pub kernel: usize,
    /// The stride.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: usize,
}

/// How a convolution is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As it is defined.
    Direct,
    /// By [`winograd`].
    Winograd,
}

/// A convolution's weights in the order in which the kernel reads them.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The sizes.
    pub shape: Shape,
    /// How it is worked out.
    pub method: Method,
    blocks: Vec<Block>,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Packed {
    /// Packs weights `[C_out, C_in, k, k]` for vectors of `lanes` numbers, at most `vectors` a tile.
    pub fn new(
        shape: Shape,
        method: Method,
        weights: &[f32],
        bias: Option<&[f32]>,
        (lanes, vectors): (usize, usize),
    ) -> Self {
        let Shape { c_out, c_in, kernel, .. } = shape;
        assert_eq!(weights.len(), c_out * c_in * kernel * kernel);
        // the taps of a kernel, or what they are transformed into
        let (taps, of) = match method {
            Method::Direct => (kernel * kernel, weights.to_vec()),
            Method::Winograd => {
                let transform = |g: &[f32; 9]| winograd::transform_weights(g.map(f64::from)).map(|v| v as f32);
                (16, weights.as_chunks::<9>().0.iter().flat_map(transform).collect())
            }
        };
        let (mut blocks, mut packed) = (Vec::new(), Vec::new());
        let mut first = 0;
        while first < c_out {
            let channels = (c_out - first).min(lanes * vectors);
            let vectors = channels.div_ceil(lanes);
            blocks.push(Block { first, channels, vectors, weights: packed.len() });
            for tap in 0..taps {
                for c in 0..c_in {
                    let weight = |i: usize| of[((first + i) * c_in + c) * taps + tap];
                    packed.extend((0..vectors * lanes).map(|i| if i < channels { weight(i) } else { 0.0 }));
                }
            }
            first += channels;
        }
        let mut padded = bias.map_or_else(|| vec![0.0; c_out], <[f32]>::to_vec);
        // so that a whole vector may be read at the last channel
        padded.resize(c_out + lanes * vectors, 0.0);
        Packed { shape, method, blocks, weights: packed, bias: padded }
    }

    /// The bias, with zeros after it.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        4 * (self.weights.len() + self.bias.len())
    }
}

/// One run of a convolution.
pub struct Run<'a> {
    /// The weights.
    pub packed: &'a Packed,
    /// What is added to each output channel, with zeros after it as in [`Packed::bias`].
    pub bias: &'a [f32],
    /// The input, with at least the padding of zeros around it.
    pub input: View,
    /// The output.
    pub output: View,
    /// A picture that is added to the output.
    pub residual: Option<View>,
}

/// What stays the same over the tiles of one row.
#[derive(Clone, Copy)]
struct Row<'a> {
    weights: *const f32,
    bias: *const f32,
    input: *const f32,
    output: *mut f32,
    residual: *const f32,
    /// Numbers between the inputs of neighbouring output pixels.
    step: usize,
    channels: usize,
    run: &'a Run<'a>,
}

/// Runs a convolution.
///
/// # Safety
/// The CPU must have the features of `S`, and the views must lie within `arena`.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(run: &Run, work: &mut [f32], arena: &mut [f32]) {
    let Shape { c_out, c_in, stride, padding, kernel } = run.packed.shape;
    let (input, output) = (run.input, run.output);
    assert!(input.c == c_in && output.c == c_out && run.bias.len() >= c_out + S::LANES * S::TILE.0);
    assert!(input.reaches(padding, (output.h - 1) * stride + kernel, (output.w - 1) * stride + kernel, arena.len()));
    assert!(output.fits(arena.len()) && run.residual.is_none_or(|r| r.fits(arena.len()) && r.c == c_out));
    if run.packed.method == Method::Winograd {
        // SAFETY: the assertions above.
        return unsafe { winograd::run::<S>(run, &run.packed.weights, &run.packed.blocks, work, arena) };
    }
    let base = arena.as_mut_ptr();
    for block in &run.packed.blocks {
        for y in 0..output.h {
            // SAFETY: the assertions above: all rows of input, output and residual lie within the arena, the
            // weights and the bias are padded to whole vectors.
            unsafe {
                let row = Row {
                    weights: run.packed.weights.as_ptr().add(block.weights),
                    bias: run.bias.as_ptr().add(block.first),
                    input: base.add(input.start + y * stride * input.row - padding * (input.row + input.pixel)),
                    output: base.add(output.start + y * output.row + block.first),
                    residual: match run.residual {
                        Some(r) => base.add(r.start + y * r.row + block.first),
                        None => std::ptr::null(),
                    },
                    step: stride * input.pixel,
                    channels: block.channels,
                    run,
                };
                match block.vectors {
                    1 => row_of::<S, 1>(row),
                    2 => row_of::<S, 2>(row),
                    _ => row_of::<S, 3>(row),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn row_of<S: Simd, const V: usize>(row: Row) {
    let width = row.run.output.w;
    let pixels = width.div_ceil(width.div_ceil(S::TILE.1));
    let mut x = 0;
    while x < width {
        // SAFETY: the caller's promise, for the pixels that are left.
        unsafe {
            match pixels.min(width - x) {
                1 => tile::<S, V, 1>(row, x),
                2 => tile::<S, V, 2>(row, x),
                3 => tile::<S, V, 3>(row, x),
                4 => tile::<S, V, 4>(row, x),
                5 => tile::<S, V, 5>(row, x),
                6 => tile::<S, V, 6>(row, x),
                7 => tile::<S, V, 7>(row, x),
                _ => tile::<S, V, 8>(row, x),
            }
        }
        x += pixels;
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const V: usize, const P: usize>(row: Row, x: usize) {
    let Run { packed, input, output, residual, .. } = row.run;
    let Shape { c_in, kernel, .. } = packed.shape;
    // SAFETY: the caller's promise: pixels x to x + P of the row are within the views.
    unsafe {
        let mut sums: [[S::F; V]; P] = [std::array::from_fn(|v| S::load(row.bias.add(v * S::LANES))); P];
        let mut weights = row.weights;
        let first = row.input.add(x * row.step);
        for ky in 0..kernel {
            for kx in 0..kernel {
                let from = first.add(ky * input.row + kx * input.pixel);
                for c in 0..c_in {
                    let w: [S::F; V] = std::array::from_fn(|v| S::load(weights.add(v * S::LANES)));
                    weights = weights.add(V * S::LANES);
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let value = S::splat(*from.add(p * row.step + c));
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = S::fma(value, w, *sum);
                        }
                    }
                }
            }
        }
        for (p, sums) in sums.into_iter().enumerate() {
            let to = row.output.add((x + p) * output.pixel);
            let add = residual.map(|r| row.residual.add((x + p) * r.pixel));
            if row.channels == V * S::LANES {
                for (v, sum) in sums.into_iter().enumerate() {
                    let sum = add.map_or(sum, |add| S::add(sum, S::load(add.add(v * S::LANES))));
                    S::store(to.add(v * S::LANES), sum);
                }
            } else {
                // not all of the last vector is the picture's
                let mut whole = [0f32; 64];
                (0..V).for_each(|v| S::store(whole.as_mut_ptr().add(v * S::LANES), sums[v]));
                for (i, sum) in whole[..row.channels].iter().enumerate() {
                    *to.add(i) = sum + add.map_or(0.0, |add| *add.add(i));
                }
            }
        }
    }
}
