//! Forms of operators that later opsets of ONNX do not have.

use super::normalization::from_the_start;
use super::writer::int;
use super::{Known, Writer, shape};
use crate::Result;
use crate::pb::NodeProto;

/// Softmax, LogSoftmax and Hardmax over several dimensions at once: before opset 13 they are over a dimension and all that
/// follow it.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let dims = shape(node, known, 0)?;
    let axis = from_the_start(node.int("axis").unwrap_or(1), dims.len())?;
    // where one of the dimensions is longer than 1, it is that alone
    if dims[axis..].iter().filter(|d| **d != 1).count() < 2 {
        return Ok(None);
    }
    let mut w = Writer::new(node, known);
    let [rows, length] = [&dims[..axis], &dims[axis..]].map(|all| all.iter().product::<usize>());
    let flat = w.reshape(node.given(0).unwrap_or_default(), &[rows, length]);
    let done = w.with(&node.op_type, &[&flat], vec![int("axis", 1)]);
    let result = w.reshape(&done, dims);
    Ok(Some(w.finish_one(node, result)))
}
