//! Softmax over the last dimension.

use super::row_op::RowOperation;
use super::{Operator, same_shape};
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, int};
use kernels::general::Rows as RowFunction;

pub static OPERATORS: &[Operator] = &[Operator::new("Softmax").infer(same_shape).lower(lower)];

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let rank = l.dims(x)?.len();
    let last = axis(int(node, "axis").unwrap_or(-1), rank).ok()? + 1 == rank;
    if last { l.one(i, RowOperation { x, function: RowFunction::Softmax }) } else { None }
}
