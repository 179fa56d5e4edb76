//! Depthwise convolution: each channel by itself, with a kernel of its own.
//!
//! Channels lie together, so a vector holds some of them; a few neighbouring pixels share the loading of the weights.

use super::conv::Shape;
use super::memory::{Memory, Part};
use super::pointer::Source;
use super::simd::{Vector, WIDEST};
use super::weights::Real;
use crate::arena::ImageView;

/// Pixels that are worked out together: their sums stay in registers on every kind of CPU.
const PIXELS: usize = 4;

/// Weights by taps, each with its channels padded to whole vectors of the widest kind.
#[derive(Clone, Debug)]
pub struct Packed {
    shape: Shape,
    padded: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Packed {
    /// Packs weights `[C, 1, k, k]` of a shape with `c_out` channels and one input channel for each.
    ///
    /// # Errors
    /// When there are not as many weights or biases as the shape says, or when a size is 0 or more than can be counted.
    pub fn new(shape: Shape, weights: &[f32], bias: Option<&[f32]>) -> Result<Self, String> {
        shape.check()?;
        let (channels, taps) = (shape.c_out, shape.kernel[0] * shape.kernel[1]);
        if shape.c_in != 1 || weights.len() != channels * taps || bias.is_some_and(|b| b.len() != channels) {
            return Err(format!("a depthwise convolution with other weights than its shape says: {shape:?}"));
        }
        let padded = channels.next_multiple_of(WIDEST);
        let mut by_tap = vec![0.0; taps * padded];
        for (tap, to) in by_tap.chunks_exact_mut(padded).enumerate() {
            to[..channels].iter_mut().enumerate().for_each(|(c, to)| *to = weights[c * taps + tap]);
        }
        let mut bias = bias.map_or_else(|| vec![0.0; channels], <[f32]>::to_vec);
        bias.resize(padded, 0.0);
        Ok(Packed { shape, padded, weights: by_tap, bias })
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice()) + size_of_val(self.bias.as_slice())
    }
}

/// One run of a depthwise convolution.
pub struct Run<'a> {
    /// The weights.
    pub packed: &'a Packed,
    /// What is added to each channel beside the bias.
    pub extra: Option<&'a [f32]>,
    /// The input, with at least the padding of zeros around it.
    pub input: ImageView,
    /// The output.
    pub output: ImageView,
    /// A picture that is added to the output.
    pub residual: Option<ImageView>,
}

impl Run<'_> {
    /// Makes sure that all pictures lie within the memory, the input with what windows reach of its border.
    ///
    /// # Panics
    /// When that is not so, or a picture is of other sizes.
    fn check<T: Real>(&self, memory: Memory) {
        let (shape, input, output) = (self.packed.shape, self.input, self.output);
        let channels = shape.c_out;
        assert!(input.c == channels && output.c == channels && self.extra.is_none_or(|e| e.len() >= channels));
        let window = shape.window([output.h, output.w]);
        assert!(window.is_some_and(|window| input.reaches(shape.padding, window, channels, T::len(memory))));
        assert!(input.precision == T::PRECISION);
        assert!(memory.holds::<T>(output) && output.is_apart());
        let like = |r: ImageView| memory.holds::<T>(r) && (r.c, r.h, r.w) == (channels, output.h, output.w);
        assert!(self.residual.is_none_or(like));
    }
}

/// Runs a depthwise convolution.
///
/// # Panics
/// When a picture does not lie within the memory, or is of other sizes.
#[inline(always)]
pub(super) fn run<S: Vector, T: Real>(s: S, run: &Run, part: Part, memory: Memory) {
    run.check::<T>(memory);
    let output = run.output;
    for (y, tiles) in part.lines(output.h, output.w.div_ceil(PIXELS)) {
        for tile in tiles {
            let x = tile * PIXELS;
            for c in (0..output.c).step_by(S::LANES) {
                if x + PIXELS <= output.w {
                    // SAFETY: the pictures were checked; row `y` has these pixels, and they have a channel `c`.
                    unsafe { pixels::<S, T, PIXELS>(s, run, [y, x], c, memory) }
                } else {
                    for x in x..output.w {
                        // SAFETY: as above.
                        unsafe { pixels::<S, T, 1>(s, run, [y, x], c, memory) }
                    }
                }
            }
        }
    }
}

/// Works out a vector of channels from `c` on, or as many as there are, of P pixels from column `x` of row `y` on.
///
/// # Safety
/// The run must have been checked, and the output have those pixels and channel `c`, which no other thread reads or writes.
#[inline(always)]
unsafe fn pixels<S: Vector, T: Real, const P: usize>(s: S, run: &Run, [y, x]: [usize; 2], c: usize, memory: Memory) {
    let Run { packed, input, output, .. } = run;
    let Shape { kernel, stride, dilation, padding, .. } = packed.shape;
    let left = output.c - c;
    let mut start = s.read(&packed.bias, c);
    if let Some(extra) = run.extra {
        // SAFETY: a checked run has as many for all channels.
        start = s.add(start, unsafe { f32::get_some(s, Source::of(extra), c, left) });
    }
    let mut sums = [start; P];
    let corner = input.start - padding[0] * input.row - padding[1] * input.pixel;
    let first = corner + y * stride[0] * input.row + x * stride[1] * input.pixel + c;
    let (from, step) = (T::arena(memory).source(), stride[1] * input.pixel);
    for ky in 0..kernel[0] {
        for kx in 0..kernel[1] {
            let weights = s.read(&packed.weights, (ky * kernel[1] + kx) * packed.padded + c);
            let at = first + ky * dilation[0] * input.row + kx * dilation[1] * input.pixel;
            for (p, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a checked run has the windows of all pixels within the arena, with their channels.
                let v = unsafe { T::get_some(s, from, at + p * step, left) };
                *sum = s.fma(v, weights, *sum);
            }
        }
    }
    for (p, mut sum) in sums.into_iter().enumerate() {
        if let Some(view) = run.residual {
            let at = view.start + y * view.row + (x + p) * view.pixel + c;
            // SAFETY: a checked run has the residual within the arena.
            sum = s.add(sum, unsafe { T::get_some(s, from, at, left) });
        }
        let at = output.start + y * output.row + (x + p) * output.pixel + c;
        // SAFETY: a checked run has the output within the arena; other parts write other pixels.
        unsafe { T::put_some(s, T::arena(memory), at, left, sum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::arena::Layout;
    use crate::tests::Noise;

    #[test]
    fn every_channel_has_its_own_kernel() {
        // channels, kernel, stride, dilation, padding, rows and columns
        let cases = [
            (1, [3, 3], [1, 1], [1, 1], [1, 1], [5, 9]),
            (37, [3, 3], [2, 1], [1, 2], [1, 2], [6, 11]),
            (16, [1, 7], [1, 1], [1, 3], [0, 9], [1, 23]),
            (70, [5, 2], [1, 3], [2, 1], [4, 0], [9, 8]),
        ];
        for (channels, kernel, stride, dilation, padding, [h, w]) in cases {
            let shape = Shape { c_out: channels, c_in: 1, kernel, stride, dilation, padding };
            let side = |n: usize, i: usize| (n + 2 * padding[i] - (kernel[i] - 1) * dilation[i] - 1) / stride[i] + 1;
            let (oh, ow) = (side(h, 0), side(w, 1));
            let mut layout = Layout::default();
            let input = layout.place([channels + 2, h, w], padding).unwrap().channels(1, channels).unwrap();
            let output = layout.place([channels, oh, ow], [1, 1]).unwrap();
            let other = layout.place([channels, oh, ow], [0, 0]).unwrap();
            let mut before = vec![0.0; layout.len()];
            let mut noise = Noise::new(5, channels as u64);
            for view in [input, other] {
                view.pixels().for_each(|at| noise.fill(&mut before[at..at + channels]));
            }
            let (mut weights, mut bias, mut extra) =
                (vec![0.0; channels * kernel[0] * kernel[1]], vec![0.0; channels], vec![0.0; channels]);
            [&mut weights, &mut bias, &mut extra].into_iter().for_each(|all| noise.fill(all));
            let packed = Packed::new(shape, &weights, Some(&bias)).unwrap();
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                let mut memory = before.clone();
                let run = Run { packed: &packed, extra: Some(&extra), input, output, residual: Some(other) };
                for index in 0..3 {
                    let part = Part::new(index, 3).unwrap();
                    crate::convolve_depthwise(isa, &run, part, Memory::new(&mut memory, &mut []));
                }
                for (i, at) in output.pixels().enumerate() {
                    for c in 0..channels {
                        let mut exact = f64::from(bias[c]) + f64::from(extra[c]);
                        for (ky, kx) in (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| (ky, kx))) {
                            let y = i / ow * stride[0] + ky * dilation[0];
                            let x = i % ow * stride[1] + kx * dilation[1];
                            if y >= padding[0] && x >= padding[1] && y < h + padding[0] && x < w + padding[1] {
                                let (y, x) = (y - padding[0], x - padding[1]);
                                let v = before[input.start + y * input.row + x * input.pixel + c];
                                let weight = weights[(c * kernel[0] + ky) * kernel[1] + kx];
                                exact += f64::from(v) * f64::from(weight);
                            }
                        }
                        exact += f64::from(before[other.at(i) + c]);
                        assert!((f64::from(memory[at + c]) - exact).abs() < 1e-4, "{isa:?} {shape:?} {i} {c}");
                    }
                }
                // the same bits on every kind of CPU that fuses products and sums
                if !isa.is_portable() {
                    let bits = first.get_or_insert_with(|| memory.clone());
                    assert_eq!(bits, &memory, "{isa:?} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let shape = Shape::plain(5, 1, [1, 3], [0, 1]);
        assert!(Packed::new(shape, &[0.0; 15], None).is_ok());
        assert!(Packed::new(shape, &[0.0; 14], None).is_err());
        assert!(Packed::new(shape, &[0.0; 15], Some(&[0.0; 4])).is_err());
        assert!(Packed::new(Shape { c_in: 2, ..shape }, &[0.0; 30], None).is_err());
        assert!(Packed::new(Shape { stride: [0, 1], ..shape }, &[0.0; 15], None).is_err());
    }
}
