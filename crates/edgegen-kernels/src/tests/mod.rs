//! Tests of the kernels against plain loops.

mod halves;
mod kinds;
mod shapes;

use super::*;
use crate::arena::{ImageView, Precision};
use rand::RngExt;
use rand_pcg::Pcg64;
use winograd::Square;

/// Normal noise that is the same every time.
pub(crate) struct Noise(Pcg64);

impl Noise {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Noise(Pcg64::new(seed.into(), stream.into()))
    }

    fn sample(&mut self) -> f32 {
        self.0.sample(rand_distr::StandardNormal)
    }

    pub(crate) fn fill(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|x| *x = self.sample());
    }
}

/// Runs all parts, as two threads might.
fn in_parts(mut run: impl FnMut(Part)) {
    [1, 0].into_iter().for_each(|index| run(Part::new(index, 2).unwrap()));
}

/// Whether a case of so many multiply-adds is run. Miri takes a second for some thousand of them, so there larger ones are left
/// to tests of drawn shapes, which draw smaller ones.
fn is_run(multiply_adds: usize) -> bool {
    !cfg!(miri) || multiply_adds <= 20_000
}

/// A convolution as it is defined, in f64.
fn reference(
    shape: conv::Shape,
    weights: &[f32],
    bias: &[f32],
    input: ImageView,
    output: ImageView,
    arena: &[f32],
) -> Vec<f64> {
    let mut all = Vec::new();
    for y in 0..output.h {
        for x in 0..output.w {
            for o in 0..shape.c_out {
                let mut sum = f64::from(bias[o]);
                for ky in 0..shape.kernel[0] {
                    for kx in 0..shape.kernel[1] {
                        let (iy, ix) = (
                            y * shape.stride[0] + ky * shape.dilation[0],
                            x * shape.stride[1] + kx * shape.dilation[1],
                        );
                        let inside = |i: usize, n: usize, p: usize| i >= p && i < n + p;
                        let [rows, pixels] = shape.padding;
                        if !inside(iy, input.h, rows) || !inside(ix, input.w, pixels) {
                            continue;
                        }
                        let at = input.start + (iy - rows) * input.row + (ix - pixels) * input.pixel;
                        for c in 0..shape.c_in {
                            let w = weights[((o * shape.c_in + c) * shape.kernel[0] + ky) * shape.kernel[1] + kx];
                            sum += f64::from(w) * f64::from(arena[at + c]);
                        }
                    }
                }
                all.push(sum);
            }
        }
    }
    all
}

/// The ways of an 8-bit convolution, for every kind of CPU.
fn methods(shape: &conv::Shape, weights: &[i8], [h, w]: [usize; 2]) -> Vec<(Isa, conv::Method)> {
    let squares = [Square::Two, Square::Four].into_iter();
    let right = squares.filter(|square| winograd::exact::holds(*square, weights, shape.c_out));
    let right: Vec<conv::Method> = right.map(conv::Method::Winograd).collect();
    let winograd = if winograd::suits(shape, h, w, 0).next().is_some() { &*right } else { &[] };
    let of = |isa: Isa| {
        let winograd = if isa.tile_of_words().is_some() { winograd } else { &[] };
        [conv::Method::Direct].into_iter().chain(winograd.iter().copied()).map(move |method| (isa, method))
    };
    Isa::available().into_iter().flat_map(of).collect()
}

/// The sums of an 8-bit convolution, in the order of pixels and then of channels: products of weights and of the input's levels
/// less their zero point, which lies around the input too.
fn exact_sums(
    shape: &conv::Shape,
    weights: &[i8],
    input: ImageView,
    (bytes, zero_point): (&[u8], u8),
    [oh, ow]: [usize; 2],
) -> Vec<i32> {
    let conv::Shape { c_out, c_in, kernel, stride, dilation, padding } = *shape;
    let taps = kernel[0] * kernel[1];
    let mut sums = Vec::with_capacity(oh * ow * c_out);
    for (y, x, o) in (0..oh).flat_map(|y| (0..ow).flat_map(move |x| (0..c_out).map(move |o| (y, x, o)))) {
        let mut sum = 0i32;
        for (ky, kx) in (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| (ky, kx))) {
            let at = input.start
                + (y * stride[0] + ky * dilation[0]) * input.row
                + (x * stride[1] + kx * dilation[1]) * input.pixel
                - padding[0] * input.row
                - padding[1] * input.pixel;
            for c in 0..c_in {
                let weight = i32::from(weights[(o * c_in + c) * taps + ky * kernel[1] + kx]);
                sum += weight * (i32::from(bytes[at + c]) - i32::from(zero_point));
            }
        }
        sums.push(sum);
    }
    sums
}
