//! ConvTranspose: what falls on a pixel of the result comes from as many pixels of the input as the stride leaves taps. Results
//! whose places leave the same rest by the stride have the same taps, so each such set is a convolution of the input.

use super::conv::{Floats, Made, Weights, convolve, convolve_groups, convolve_images};
use super::window;
use super::{Operation, Operator, computed_conv};
use crate::compile::{Compiler, sides};
use crate::constant::Constant;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::pair;
use crate::reason::Reason;
use kernels::arena::{Extent, ImageView, StridedView};
use kernels::conv::Shape;
use kernels::pool::Side;

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
    let groups = window::groups(n.node).ok_or_else(unknown_form)?;
    if x.len() != weights.len() || x.len() < 3 || x[1] != weights[0] || !x[1].is_multiple_of(groups) {
        return Err(unknown_form());
    }
    let (sides, added) = window::transposed(n.node, &weights[2..], &x[2..]).ok_or_else(unknown_form)?;
    let results = (0..sides.len()).map(|i| window::transposed_results(&sides[i], added[i], x[2 + i]).filter(|n| *n > 0));
    let dims: Option<Vec<usize>> = [Some(x[0]), weights[1].checked_mul(groups)].into_iter().chain(results).collect();
    Ok(vec![dims.ok_or_else(unknown_form)?])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let (Some(x), Some(weights)) = (l.value(node, 0), l.constant(node, 1)) else { return computed_conv::lower(l, i, true) };
    let from = l.dims(x)?.get(2..)?;
    let (sides, _) = window::transposed(node, weights.dims.get(2..)?, from)?;
    let sides = window::rows_and_columns(&sides)?;
    let (from, to) = (pair(from, 1)?, pair(l.dims(&node.output[0])?.get(2..)?, 1)?);
    let Some(bias) = l.optional(node, 2) else { return computed_conv::lower(l, i, true) };
    let bias = bias.map(|b| b.values.as_slice());
    let groups = window::groups(node)?;
    if bias.is_some_and(|b| Some(b.len()) != weights.dims[1].checked_mul(groups)) {
        return None;
    }
    let phases = |i: usize| phases(&sides[i], from[i], to[i]);
    match phases(0).zip(phases(1)).filter(|_| groups == 1) {
        Some((rows, columns)) => l.one(i, InPhases { x, weights, bias, phases: [rows, columns] }),
        None => l.one(i, Spread { x, weights, bias, sides, groups }),
    }
}

/// What results have in common whose places along a side leave the same rest by the stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    /// The first of them; the others follow by the stride.
    result: usize,
    /// The first tap that falls on them; the others follow by the stride.
    tap: usize,
    taps: usize,
    /// Zeros before the input that the first window begins with.
    padding: usize,
    /// Numbers of the input that it leaves out.
    skipped: usize,
    stride: usize,
    /// The zeros that windows reach beyond the input's end.
    beyond: usize,
}

/// The phases of a side of `n` numbers with so many results, if each has a tap that falls on the input.
fn phases(side: &Side, n: usize, results: usize) -> Option<Vec<Phase>> {
    let stride = side.stride;
    let phase = |result: usize| {
        // tap k of number i falls on result i · stride + k - before
        let place = result.checked_add(side.before)?;
        let tap = place % stride;
        let taps = side.kernel.checked_sub(tap)?.div_ceil(stride);
        // the first result of the phase has its first tap from this number, and each further tap from the one before
        let latest = place / stride;
        let (padding, skipped) = (taps.checked_sub(1)?.saturating_sub(latest), latest.saturating_sub(taps - 1));
        let last = latest.checked_add((results - result).div_ceil(stride) - 1)?;
        let beyond = (last + 1).saturating_sub(n);
        (skipped < n).then_some(Phase { result, tap, taps, padding, skipped, stride, beyond })
    };
    if side.dilation == 1 { (0..stride.min(results)).map(phase).collect() } else { None }
}

/// A transposed convolution with weights `[C_in, C_out, kernel…]`, a convolution for each phase of rows and of columns.
struct InPhases<'a> {
    x: &'a str,
    weights: &'a Constant,
    bias: Option<&'a [f32]>,
    phases: [Vec<Phase>; 2],
}

impl InPhases<'_> {
    /// The zeros that they read around the input.
    fn zeros(&self) -> [usize; 2] {
        let of = |phases: &[Phase]| phases.iter().map(|p| p.padding.max(p.beyond)).max().unwrap_or(0);
        [of(&self.phases[0]), of(&self.phases[1])]
    }

    /// The weights `[C_out, C_in, …]` of the taps of a phase, those that fall on the earliest numbers first.
    fn turned(&self, values: &[f32], [rows, columns]: [Phase; 2]) -> Vec<f32> {
        let dims = &self.weights.dims;
        let (c_in, c_out) = (dims[0], dims[1]);
        let [kh, kw] = [dims[2..dims.len() - 1].iter().product(), dims[dims.len() - 1]];
        let taps = |p: Phase| (0..p.taps).rev().map(move |k| p.tap + k * p.stride);
        let mut turned = Vec::with_capacity(c_out * c_in * rows.taps * columns.taps);
        for (o, i) in (0..c_out).flat_map(|o| (0..c_in).map(move |i| (o, i))) {
            let kernel = &values[(i * c_out + o) * kh * kw..][..kh * kw];
            turned.extend(taps(rows).flat_map(|ky| taps(columns).map(move |kx| kernel[ky * kw + kx])));
        }
        turned
    }
}

/// Every so many of the pixels of an image, from one on, without a border.
fn every(view: ImageView, [rows, columns]: [Phase; 2]) -> Option<ImageView> {
    let side = |n: usize, p: Phase| n.checked_sub(p.result).map(|n| n.div_ceil(p.stride));
    let start = view.start + rows.result * view.row + columns.result * view.pixel;
    let (row, pixel) = (view.row.checked_mul(rows.stride)?, view.pixel.checked_mul(columns.stride)?);
    let (h, w) = (side(view.h, rows)?, side(view.w, columns)?);
    ImageView::new(Extent { h, w, start, pixel, row, border: [0, 0], ..*view })
}

/// An image without its first rows and columns.
fn without(view: ImageView, [rows, columns]: [Phase; 2]) -> Option<ImageView> {
    let start = view.start + rows.skipped * view.row + columns.skipped * view.pixel;
    let (h, w) = (view.h.checked_sub(rows.skipped)?, view.w.checked_sub(columns.skipped)?);
    ImageView::new(Extent { h, w, start, ..*view })
}

impl<'a> Operation<'a> for InPhases<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn border(&self) -> Option<(&'a str, [usize; 2])> {
        Some((self.x, self.zeros()))
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let inputs = c.images(self.x, self.zeros())?;
        let made = Made::new(c, out, inputs.len())?;
        let values = self.weights.values.decoded();
        let (c_in, c_out) = (self.weights.dims[0], self.weights.dims[1]);
        let [rows, columns] = &self.phases;
        for phases in rows.iter().flat_map(|y| columns.iter().map(move |x| [*y, *x])) {
            let turned = self.turned(&values, phases);
            let shape = Shape::plain(c_out, c_in, phases.map(|p| p.taps), phases.map(|p| p.padding));
            let some = |views: &[ImageView], f: fn(ImageView, [Phase; 2]) -> Option<ImageView>| {
                views.iter().map(|view| f(*view, phases)).collect::<Option<Vec<_>>>().ok_or(UNKNOWN)
            };
            let views = (&*some(&inputs, without)?, &*some(&made.images, every)?);
            let residual = made.sums.1.map(|r| every(r, phases).ok_or(UNKNOWN)).transpose()?;
            let weights = Weights { float: Floats::Here(&turned), stored: None };
            convolve(c, shape, weights, self.bias, views, (made.sums.0, residual))?;
        }
        c.put(made.out, made.place);
        Ok(())
    }
}

const UNKNOWN: &str = "a transposed convolution of an unknown form";

/// A transposed convolution with weights `[C_in, C_out / groups, kernel…]`: the input with zeros between its pixels, convolved
/// with the turned kernel.
struct Spread<'a> {
    x: &'a str,
    weights: &'a Constant,
    bias: Option<&'a [f32]>,
    sides: [Side; 2],
    groups: usize,
}

impl Spread<'_> {
    /// The weights `[C_out, C_in / groups, …]`, turned around.
    fn turned(&self) -> Vec<f32> {
        let dims = &self.weights.dims;
        let (c_in, c_out) = (dims[0] / self.groups, dims[1]);
        let taps: usize = dims[2..].iter().product();
        let values = self.weights.values.decoded();
        let mut turned = Vec::with_capacity(values.len());
        for (o, i) in (0..self.groups * c_out).flat_map(|o| (0..c_in).map(move |i| (o, i))) {
            let (group, o) = (o / c_out, o % c_out);
            let kernel = ((group * c_in + i) * c_out + o) * taps;
            turned.extend(values[kernel..kernel + taps].iter().rev());
        }
        turned
    }
}

impl<'a> Operation<'a> for Spread<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let inputs = c.images(self.x, [0, 0])?;
        let input = *inputs.first().ok_or(UNKNOWN)?;
        let [_, h, w] = sides(&[&[1], &c.dims(out)?[1..]].concat())?;
        // from the first tap of the first result on: zeros, the input with zeros between its numbers, and zeros again
        let side = |i: usize, n: usize, results: usize| {
            let side = &self.sides[i];
            let padding = side.extent()?.checked_sub(1)?.checked_sub(side.before)?;
            let spread = n.checked_sub(1)?.checked_mul(side.stride)?.checked_add(1)?;
            let reach = results.checked_add(side.before)?;
            Some((padding, spread.max(reach.saturating_sub(padding))))
        };
        let (rows, columns) = side(0, input.h, h).zip(side(1, input.w, w)).ok_or(UNKNOWN)?;
        let padding = [rows.0, columns.0];
        let pixels = |start: usize, strides: [usize; 2]| {
            StridedView::strided(start, vec![input.h, input.w, input.c], vec![strides[0], strides[1], 1])
        };
        let mut spread = Vec::with_capacity(inputs.len());
        for input in &inputs {
            let wide = c.cleared_image([input.c, rows.1, columns.1], padding)?;
            // where there is but one row or pixel, how far the next would be is of no matter
            let apart =
                [self.sides[0].stride.saturating_mul(wide.row), self.sides[1].stride.saturating_mul(wide.pixel)];
            c.copy(&pixels(input.start, [input.row, input.pixel]), &pixels(wide.start, apart))?;
            spread.push(wide);
        }
        let dims = &self.weights.dims;
        let shape = Shape {
            c_out: dims[1],
            c_in: dims[0] / self.groups,
            kernel: pair(&dims[2..], 1).ok_or(UNKNOWN)?,
            stride: [1, 1],
            dilation: [self.sides[0].dilation, self.sides[1].dilation],
            padding,
        };
        let turned = self.turned();
        if self.groups > 1 {
            return convolve_groups(c, out, (shape, self.groups), &turned, self.bias, &spread);
        }
        convolve_images(c, out, shape, Weights { float: Floats::Here(&turned), stored: None }, self.bias, &spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_those_of_the_definition() {
        for (kernel, stride, before, n) in [(4, 2, 1, 5), (3, 2, 1, 4), (2, 2, 0, 3), (2, 2, 1, 3), (5, 3, 2, 4), (3, 1, 2, 6)] {
            for added in 0..stride {
                let side = Side { kernel, stride, dilation: 1, before, after: before };
                let results = window::transposed_results(&side, added, n).unwrap();
                let Some(phases) = phases(&side, n, results) else { continue };
                // which taps of which numbers fall on each result, by the definition and by the phases
                for result in 0..results {
                    let mut exact: Vec<(usize, usize)> = (0..n)
                        .flat_map(|i| (0..kernel).map(move |k| (i, k)))
                        .filter(|(i, k)| i * stride + k == result + before)
                        .collect();
                    exact.sort_unstable();
                    let phase = phases[result % stride];
                    let window = (result - phase.result) / stride + phase.skipped;
                    let found = (0..phase.taps).map(|t| (window + t, phase.tap + (phase.taps - 1 - t) * stride));
                    let found: Vec<(usize, usize)> = found
                        .filter(|(i, _)| (phase.padding..n + phase.padding).contains(i))
                        .map(|(i, k)| (i - phase.padding, k))
                        .collect();
                    assert_eq!(found, exact, "{side:?}, result {result}");
                    assert!(window + phase.taps <= n + phase.padding + phase.beyond);
                }
            }
        }
    }
}
