//! Conv and ConvTranspose of weights that a run computes, such as those that a style or a time modulates; of stored images, too.
//! A convolution is a product of the image's windows with the weights; a transposed one folds what each pixel becomes.

use super::Operation;
use super::binary::add_to;
use super::col2im::fold;
use super::conv::border;
use super::matmul::multiply;
use super::window;
use crate::compile::Compiler;
use crate::lower::{Lowered, Lowering, Operand};
use crate::node::pair;
use crate::reason::Reason;
use kernels::arena::{ImageView, StridedView};
use kernels::pool::Side;

/// Node `i`, a Conv or, if it is `transposed`, a ConvTranspose.
pub fn lower<'a>(l: &Lowering<'a>, i: usize, transposed: bool) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let (x, weights) = (l.operand(node, 0)?, l.operand(node, 1)?);
    let bias = if node.given(2).is_some() { Some(l.operand(node, 2)?) } else { None };
    let image = l.dims(&node.input[0])?.get(2..)?;
    let kernel = l.dims(&node.input[1])?.get(2..)?;
    let sides = match transposed {
        true => window::transposed(node, kernel, image)?.0,
        false => window::sides(node, Some(kernel), image)?,
    };
    let sides = window::rows_and_columns(&sides)?;
    let groups = window::groups(node)?;
    let channels = l.dims(&node.output[0])?.get(1).copied()?;
    let fits = node.given(2).is_none_or(|name| l.dims(name).is_some_and(|dims| *dims == [channels]));
    if fits { l.one(i, Computed { x, weights, bias, sides, groups, transposed }) } else { None }
}

/// A convolution whose weights are a value like any other.
struct Computed<'a> {
    x: Operand<'a>,
    weights: Operand<'a>,
    bias: Option<Operand<'a>>,
    sides: [Side; 2],
    groups: usize,
    transposed: bool,
}

impl<'a> Operation<'a> for Computed<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        [Some(&self.x), Some(&self.weights), self.bias.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(Operand::value)
            .collect()
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let weights = c.operand(&self.weights)?;
        let weights = split(c, &weights, self.groups)?;
        let (place, images) = c.results(out)?;
        let x = c.operand(&self.x)?;
        for (i, image) in images.iter().enumerate() {
            let (mut of_image, (_, apart)) = x.without(0);
            of_image.start += i * apart;
            match self.transposed {
                true => self.fold(c, &of_image, &weights, *image)?,
                false => self.multiply(c, &of_image, &weights, *image)?,
            }
        }
        if let Some(bias) = &self.bias {
            let bias = c.operand(bias)?;
            let mut wide = vec![1; place.dims.len()];
            wide[1] = bias.len();
            add_to(c, &place, &bias.reshaped(&wide).ok_or("a bias that does not fit")?)?;
        }
        c.put(out, place);
        Ok(())
    }
}

/// Weights `[first channels, second channels, kernel…]` with the groups, of which the first channels are, as a dimension of
/// their own, and a kernel of two dimensions.
fn split(c: &mut Compiler, weights: &StridedView, groups: usize) -> Result<StridedView, Reason> {
    let [kh, kw] = pair(&weights.dims[2..], 1).ok_or("a kernel of more than two dimensions")?;
    let dims = [groups, weights.dims[0] / groups, weights.dims[1], kh, kw];
    let split = match weights.reshaped(&dims) {
        Some(split) => Some(split),
        None => c.contiguous(weights, |_| false)?.reshaped(&dims),
    };
    Ok(split.ok_or("weights that are no groups")?)
}

/// `[C, H, W]` or `[C, W]` as `[groups, C / groups, H, W]`.
fn grouped(c: &mut Compiler, x: &StridedView, groups: usize) -> Result<StridedView, Reason> {
    let [h, w] = pair(&x.dims[1..], 1).ok_or("an image of more than two dimensions")?;
    let dims = [groups, x.dims[0] / groups, h, w];
    let split = match x.reshaped(&dims) {
        Some(split) => Some(split),
        None => c.contiguous(x, |_| false)?.reshaped(&dims),
    };
    Ok(split.ok_or("channels that are no groups")?)
}

impl Computed<'_> {
    /// Windows of the image, times the weights.
    fn multiply(&self, c: &mut Compiler, x: &StridedView, weights: &StridedView, to: ImageView) -> Result<(), Reason> {
        let [h, w] = pair(&x.dims[1..], 1).ok_or("an image of more than two dimensions")?;
        let results = [to.h, to.w];
        let borders = [0, 1].map(|i| border(&self.sides[i], [h, w][i], results[i]));
        let [Some(rows), Some(columns)] = borders else { return Err("windows beyond what can be counted".into()) };
        let image = c.cleared_image([x.dims[0], h, w], [rows, columns])?;
        let [_, of_group, channels, kh, kw] = *weights.dims.as_slice() else {
            return Err("weights of another rank".into());
        };
        let pixels = grouped(c, x, 1)?;
        c.copy(&pixels, &view(image, 1, [h, w]))?;
        let [first, across] = self.sides;
        let corner = image.start - first.before * image.row - across.before * image.pixel;
        // every window of a group, its rows and columns of taps, and the channels of each
        let dims = vec![self.groups, to.h, to.w, kh, kw, channels];
        let [down, right] =
            [(first, image.row), (across, image.pixel)].map(|(side, n)| [side.stride * n, side.dilation * n]);
        let strides = vec![channels, down[0], right[0], down[1], right[1], 1];
        let windows = StridedView::strided(corner, dims, strides);
        let taps = kh * kw * channels;
        let windows = c.contiguous(&windows, |_| false)?.reshaped(&[self.groups, to.h * to.w, taps]);
        let weights = c.contiguous(&weights.permuted(&[0, 1, 3, 4, 2]), |_| false)?;
        let weights = weights.reshaped(&[self.groups, of_group, taps]).ok_or("weights that are not together")?;
        let weights = weights.permuted(&[0, 2, 1]);
        let windows = windows.ok_or("windows that are not together")?;
        // a border of the result lies between its rows
        let made = view(to, self.groups, results).permuted(&[0, 2, 3, 1]);
        match made.reshaped(&[self.groups, to.h * to.w, of_group]) {
            Some(made) => multiply(c, &made, [&windows, &weights]),
            None => {
                let windows = windows.reshaped(&[self.groups, to.h, to.w, taps]).ok_or("windows that are not rows")?;
                let weights = weights.permuted(&[0, 1, 2]);
                let stacked = StridedView {
                    dims: vec![self.groups, 1, taps, of_group],
                    strides: vec![weights.strides[0], 0, weights.strides[1], weights.strides[2]],
                    ..weights
                };
                multiply(c, &made, [&windows, &stacked])
            }
        }
    }

    /// What each pixel becomes, folded to the result.
    fn fold(&self, c: &mut Compiler, x: &StridedView, weights: &StridedView, to: ImageView) -> Result<(), Reason> {
        let [groups, from, of_group, kh, kw] = *weights.dims.as_slice() else {
            return Err("weights of another rank".into());
        };
        let pixels = grouped(c, x, groups)?;
        let [h, w] = [pixels.dims[2], pixels.dims[3]];
        let pixels = c.contiguous(&pixels, |place| place.reshaped(&[groups, from, h * w]).is_some())?;
        let pixels = pixels.reshaped(&[groups, from, h * w]).ok_or("pixels that are not together")?;
        // for each tap the columns of every group
        let columns = c.row_major(&[1, kh, kw, h, w, groups * of_group])?;
        let made = columns.reshaped(&[kh, kw, h * w, groups, of_group]).ok_or("columns that are not together")?;
        let taps = weights.permuted(&[3, 4, 0, 1, 2]);
        let pixels = pixels.permuted(&[0, 2, 1]);
        multiply(c, &made.permuted(&[0, 1, 3, 2, 4]), [&pixels, &taps])?;
        fold(c, self.sides, [h, w], &columns, &[to])
    }
}

/// An image as `[groups, C / groups, H, W]`.
fn view(image: ImageView, groups: usize, [h, w]: [usize; 2]) -> StridedView {
    let of_group = image.c / groups;
    StridedView::strided(image.start, vec![groups, of_group, h, w], vec![of_group, 1, image.row, image.pixel])
}
