//! What is read of an ONNX node.

use crate::reason::Reason;
use onnx::pb::{AttributeProto, NodeProto};

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// An integer attribute.
pub fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|a| a.i)
}

/// A float attribute.
pub fn float(node: &NodeProto, name: &str) -> Option<f32> {
    attribute(node, name).map(|a| a.f)
}

/// A list of integers.
pub fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|a| a.ints.as_slice())
}

/// A text attribute.
pub fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    attribute(node, name).and_then(|a| std::str::from_utf8(&a.s).ok())
}

/// An axis of a tensor of this rank, which may be counted from the end.
///
/// # Errors
/// When the tensor has no such dimension.
pub fn axis(value: i64, rank: usize) -> Result<usize, Reason> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let a = if value < 0 { value.saturating_add(signed) } else { value };
    usize::try_from(a)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| Reason::Malformed(format!("there is no dimension {value}")))
}

/// Lengths as a file gives them.
///
/// # Errors
/// When one is negative.
pub fn lengths(given: &[i64]) -> Result<Vec<usize>, Reason> {
    given.iter().map(|d| usize::try_from(*d).map_err(|_| format!("{given:?} are no lengths").into())).collect()
}

/// One or two sides as two; a sequence is an image of one row.
pub fn pair(sides: &[usize], row: usize) -> Option<[usize; 2]> {
    match *sides {
        [w] => Some([row, w]),
        [h, w] => Some([h, w]),
        _ => None,
    }
}
