//! ConvTranspose: the input with zeros between its pixels, convolved with the turned kernel.

use super::conv::{Weights, Window, convolve_image};
use super::{Operation, Operator};
use crate::compile::{Compiler, sides};
use crate::constant::Constant;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::{ints, pair};
use crate::reason::Reason;
use kernels::arena::StridedView;
use kernels::conv::Shape;

pub static OPERATORS: &[Operator] = &[Operator::new("ConvTranspose")
    .attributes(&[
        "auto_pad",
        "dilations",
        "group",
        "kernel_shape",
        "output_padding",
        "output_shape",
        "pads",
        "strides",
    ])
    .infer(infer)
    .lower(lower)];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let (x, weights) = (n.shape(0)?, n.shape(1)?);
    let window = Window::of_weights(n.node, weights).ok_or_else(unknown_form)?;
    if x.len() != weights.len() || x[1] != weights[0] || ints(n.node, "output_shape").is_some() {
        return Err(unknown_form());
    }
    let side = |i: usize| {
        let pads = window.before[i].checked_add(window.after[i])?;
        let far = x[2 + i].checked_sub(1)?.checked_mul(window.strides[i])?.checked_add(window.kernel[i])?;
        far.checked_add(window.output_padding[i])?.checked_sub(pads)
    };
    let channels = weights[1].checked_mul(window.group);
    let sides = (0..window.kernel.len()).map(side);
    let dims: Option<Vec<usize>> = [Some(x[0]), channels].into_iter().chain(sides).collect();
    Ok(vec![dims.ok_or_else(unknown_form)?])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let weights = l.constant(node, 1)?;
    let window = Window::of_weights(node, &weights.dims)?;
    let inside = window.before.iter().zip(&window.kernel).all(|(p, k)| p < k);
    let plain = window.group == 1
        && window.before == window.after
        && window.output_padding.iter().zip(&window.before).all(|(o, p)| o <= p)
        && inside;
    let bias = l.optional(node, 2)?;
    let (stride, padding) = (pair(&window.strides, 1)?, pair(&window.before, 0)?);
    let fits = bias.is_none_or(|b| b.values.len() == weights.dims[1]);
    let x = l.value(node, 0)?;
    if plain && fits { l.one(i, ConvTranspose { x, weights, bias, stride, padding }) } else { None }
}

/// A transposed convolution, with weights `[C_in, C_out, kernel…]`.
struct ConvTranspose<'a> {
    x: &'a str,
    weights: &'a Constant,
    bias: Option<&'a Constant>,
    stride: [usize; 2],
    padding: [usize; 2],
}

impl<'a> Operation<'a> for ConvTranspose<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let dims = &self.weights.dims;
        let (c_in, c_out) = (dims[0], dims[1]);
        let kernel = pair(&dims[2..], 1).ok_or("a kernel of more than two dimensions")?;
        let ([sy, sx], padding) = (self.stride, self.padding);
        let input = c.view(self.x, [0, 0])?;
        let [_, h, w] = sides(c.dims(out)?)?;
        // as many pixels as give the result's sides, some of them beyond the last of the input
        let sides = |i: usize, n: usize| {
            let border = kernel[i].checked_sub(1)?.checked_sub(padding[i])?;
            let twice = border.checked_mul(2)?;
            Some((border, n.checked_add(kernel[i] - 1)?.checked_sub(twice)?))
        };
        let too_small = "a transposed convolution of an unknown form";
        let ((rows, wide_h), (columns, wide_w)) = sides(0, h).zip(sides(1, w)).ok_or(too_small)?;
        let border = [rows, columns];
        // all of the input, with zeros between its pixels
        let spread = |n: usize, stride: usize| n.checked_sub(1)?.checked_mul(stride)?.checked_add(1);
        let fits = |n: usize, stride: usize, wide: usize| spread(n, stride).is_some_and(|n| n <= wide);
        if input.c != c_in || !fits(input.h, sy, wide_h) || !fits(input.w, sx, wide_w) {
            return Err(too_small.into());
        }
        let wide = c.cleared_image([c_in, wide_h, wide_w], border)?;
        let pixels = |start: usize, strides: [usize; 2]| StridedView {
            start,
            dims: vec![input.h, input.w, c_in],
            strides: vec![strides[0], strides[1], 1],
            border: [0, 0],
        };
        // where there is but one row or pixel, how far the next would be is of no matter
        let to = pixels(wide.start, [sy.saturating_mul(wide.row), sx.saturating_mul(wide.pixel)]);
        c.copy(&pixels(input.start, [input.row, input.pixel]), &to)?;
        let taps = kernel[0] * kernel[1];
        let values = self.weights.values.decoded();
        let turned = |o: usize, i: usize, tap: usize| values[(i * c_out + o) * taps + taps - 1 - tap];
        let turned: Vec<f32> = (0..c_out)
            .flat_map(|o| (0..c_in).flat_map(move |i| (0..taps).map(move |tap| (o, i, tap))))
            .map(|(o, i, tap)| turned(o, i, tap))
            .collect();
        let shape = Shape { c_out, c_in, kernel, stride: 1, padding: border };
        convolve_image(c, out, shape, Weights { float: &turned, stored: None }, self.bias, wide)
    }
}
