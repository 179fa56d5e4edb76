//! The moving window of convolutions and pools, as ONNX's attributes say it.

use crate::node::{int, ints, text};
use kernels::pool::Side;
use onnx::pb::NodeProto;

/// The attributes that a window is read from.
pub const WINDOW: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// How a node says what lies around its image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AutoPad {
    NotSet,
    Valid,
    SameUpper,
    SameLower,
}

impl AutoPad {
    fn of(node: &NodeProto) -> Option<Self> {
        match text(node, "auto_pad") {
            None | Some("" | "NOTSET") => Some(AutoPad::NotSet),
            Some("VALID") => Some(AutoPad::Valid),
            Some("SAME_UPPER") => Some(AutoPad::SameUpper),
            Some("SAME_LOWER") => Some(AutoPad::SameLower),
            Some(_) => None,
        }
    }

    /// `total` zeros, as many before as after; where their number is odd, the end or the beginning has one more.
    fn split(self, total: usize) -> (usize, usize) {
        let less = total / 2;
        if self == AutoPad::SameLower { (total - less, less) } else { (less, total - less) }
    }
}

/// The sides of a window that a convolution or a pool moves over an image of these sides, which has weights of these sides or
/// names its own. `None` for what contradicts itself.
pub fn sides(node: &NodeProto, weights: Option<&[usize]>, image: &[usize]) -> Option<Vec<Side>> {
    let mut sides = without_pads(node, weights, image.len())?;
    let auto = AutoPad::of(node)?;
    if auto == AutoPad::NotSet {
        put_pads(&mut sides, node)?;
    } else if auto != AutoPad::Valid {
        for (side, n) in sides.iter_mut().zip(image) {
            // as many results as the stride leaves of the image
            let last = n.div_ceil(side.stride).checked_sub(1)?.checked_mul(side.stride)?;
            (side.before, side.after) = auto.split(last.checked_add(side.extent()?)?.saturating_sub(*n));
        }
    }
    Some(sides)
}

/// As [`sides`], of a transposed convolution, with what is added to the end of each side of the result.
pub fn transposed(node: &NodeProto, weights: &[usize], image: &[usize]) -> Option<(Vec<Side>, Vec<usize>)> {
    let mut sides = without_pads(node, Some(weights), image.len())?;
    let added = lengths(node, "output_padding", 0, sides.len())?;
    let auto = AutoPad::of(node)?;
    let wanted = match ints(node, "output_shape") {
        // some say the batch and the channels too
        Some(given) => {
            let given = given.get(given.len().checked_sub(sides.len())?..)?;
            Some(given.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<_>>>()?)
        }
        None if matches!(auto, AutoPad::SameUpper | AutoPad::SameLower) => {
            Some(sides.iter().zip(image).map(|(side, n)| n.checked_mul(side.stride)).collect::<Option<Vec<_>>>()?)
        }
        None => None,
    };
    match wanted {
        Some(wanted) => {
            for (i, side) in sides.iter_mut().enumerate() {
                let whole = image[i].checked_sub(1)?.checked_mul(side.stride)?.checked_add(side.extent()?)?;
                let total = whole.checked_add(added[i])?.checked_sub(wanted[i])?;
                (side.before, side.after) =
                    if auto == AutoPad::SameUpper { auto.split(total) } else { AutoPad::SameLower.split(total) };
            }
        }
        None if auto == AutoPad::NotSet => put_pads(&mut sides, node)?,
        None => {}
    }
    Some((sides, added))
}

/// The results of a transposed convolution along a side of `n` numbers.
pub fn transposed_results(side: &Side, added: usize, n: usize) -> Option<usize> {
    let far = n.checked_sub(1)?.checked_mul(side.stride)?.checked_add(side.extent()?)?;
    far.checked_add(added)?.checked_sub(side.before.checked_add(side.after)?)
}

fn lengths(node: &NodeProto, name: &str, default: i64, len: usize) -> Option<Vec<usize>> {
    let given = ints(node, name).map_or_else(|| vec![default; len], <[i64]>::to_vec);
    (given.len() == len).then(|| given.into_iter().map(|v| usize::try_from(v).ok()).collect())?
}

fn without_pads(node: &NodeProto, weights: Option<&[usize]>, count: usize) -> Option<Vec<Side>> {
    let named = ints(node, "kernel_shape").map(|_| lengths(node, "kernel_shape", 0, count));
    let kernel = match (named, weights) {
        (Some(named), Some(weights)) => named.filter(|named| named == weights)?,
        (Some(named), None) => named?,
        (None, Some(weights)) => weights.to_vec(),
        (None, None) => return None,
    };
    let (strides, dilations) = (lengths(node, "strides", 1, count)?, lengths(node, "dilations", 1, count)?);
    let sizes = kernel.iter().chain(&strides).chain(&dilations);
    if count == 0 || kernel.len() != count || sizes.into_iter().any(|n| *n == 0) {
        return None;
    }
    let side = |i: usize| Side { kernel: kernel[i], stride: strides[i], dilation: dilations[i], before: 0, after: 0 };
    Some((0..count).map(side).collect())
}

fn put_pads(sides: &mut [Side], node: &NodeProto) -> Option<()> {
    let count = sides.len();
    let pads = lengths(node, "pads", 0, 2 * count)?;
    for (i, side) in sides.iter_mut().enumerate() {
        (side.before, side.after) = (pads[i], pads[count + i]);
    }
    Some(())
}

/// The groups of channels.
pub fn groups(node: &NodeProto) -> Option<usize> {
    usize::try_from(int(node, "group").unwrap_or(1)).ok().filter(|g| *g > 0)
}

/// One or two sides as rows and columns: a sequence is an image of one row.
pub fn rows_and_columns(sides: &[Side]) -> Option<[Side; 2]> {
    const ONE: Side = Side { kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 };
    match *sides {
        [columns] => Some([ONE, columns]),
        [rows, columns] => Some([rows, columns]),
        _ => None,
    }
}
