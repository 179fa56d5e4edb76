//! Values that are others read anew: without a step where strides can do it, else copied.

use super::{Fusion, InHalves, Operation};
use crate::compile::Compiler;
use crate::constant::broadcast_strides;
use crate::lower::{Lowered, Lowering};
use crate::reason::Reason;
use kernels::arena::StridedView;

/// How the numbers of a value are read anew.
#[derive(Clone, Debug)]
pub enum Rearrange {
    /// With the dimensions of the result, in the same order.
    Reshape,
    /// With its dimensions in this order.
    Permute(Vec<usize>),
    /// Some of them: for each dimension the first and the step.
    Slice(Vec<(usize, usize)>),
    /// One index of a dimension, which is left out.
    Pick { axis: usize, index: usize },
    /// With numbers that stand for many.
    Expand,
    /// Each dimension so many times.
    Tile(Vec<usize>),
    /// Channels of a pixel as squares of pixels: the side, and whether channels come first (CRD).
    DepthToSpace { block: usize, channels_first: bool },
}

/// A value read anew.
pub struct Rearranged<'a> {
    pub x: &'a str,
    pub how: Rearrange,
}

/// Node `i` as its first input read anew.
pub fn view<'a>(l: &Lowering<'a>, i: usize, how: Rearrange) -> Option<Lowered<'a>> {
    l.one(i, Rearranged { x: l.value(l.node(i), 0)?, how })
}

impl<'a> Operation<'a> for Rearranged<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn fusion(&self) -> Fusion<'_, 'a> {
        Fusion::Reread
    }

    fn in_halves(&self, _: &Compiler<'_, 'a>, _: &str) -> InHalves {
        InHalves::LikeItsInputs
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (place, dims) = (c.value(self.x)?, c.dims(out)?);
        let plain = |start: usize, dims: &[usize], strides: Vec<usize>| {
            StridedView::strided(start, dims.to_vec(), strides).of(place.precision)
        };
        let result = match &self.how {
            Rearrange::Permute(perm) => place.permuted(perm),
            Rearrange::Slice(parts) => place.sliced(parts, dims),
            Rearrange::Pick { axis, index } => {
                let (mut first, (_, apart)) = place.without(*axis);
                first.start += index * apart;
                first
            }
            Rearrange::Expand => plain(place.start, dims, broadcast_strides(&place.dims, &place.strides, dims)),
            Rearrange::Tile(times) => {
                let (mut split, mut strides) = (Vec::new(), Vec::new());
                for ((d, s), t) in place.dims.iter().zip(&place.strides).zip(times) {
                    split.extend([*t, *d]);
                    strides.extend([0, *s]);
                }
                let all = plain(place.start, &split, strides);
                c.contiguous(&all, |_| false)?.reshaped(dims).ok_or("a value that cannot be repeated")?
            }
            Rearrange::Reshape => reshape(c, &place, dims)?,
            Rearrange::DepthToSpace { block, channels_first } => {
                let squares = squares(&place, *block, *channels_first)?;
                if c.is_only_result(out) { squares } else { reshape_contiguous(c, &squares, dims)? }
            }
        };
        if result.len() != dims.iter().product::<usize>() {
            return Err("a value that does not fit the shape that it is read in".into());
        }
        c.put(out, result);
        Ok(())
    }
}

fn reshape(c: &mut Compiler, place: &StridedView, dims: &[usize]) -> Result<StridedView, Reason> {
    if place.len() != dims.iter().product::<usize>() {
        return Err("a shape that does not fit".into());
    }
    match place.reshaped(dims) {
        Some(place) => Ok(place),
        None => reshape_contiguous(c, place, dims),
    }
}

fn reshape_contiguous(c: &mut Compiler, place: &StridedView, dims: &[usize]) -> Result<StridedView, Reason> {
    Ok(c.contiguous(place, |_| false)?.reshaped(dims).ok_or("a shape that does not fit")?)
}

/// Channels of `[1, C, H, W]` as squares of `block` by `block` pixels, with the squares' rows and columns as dimensions.
fn squares(place: &StridedView, block: usize, channels_first: bool) -> Result<StridedView, Reason> {
    let [1, c, h, w] = *place.dims.as_slice() else { return Err("squares of what is no image".into()) };
    let c = c / (block * block);
    let (split, turn) = match channels_first {
        true => ([c, block, block, h, w], [0, 3, 1, 4, 2]),
        false => ([block, block, c, h, w], [2, 3, 0, 4, 1]),
    };
    Ok(place.reshaped(&split).ok_or("channels that are not together")?.permuted(&turn))
}
