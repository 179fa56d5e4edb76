//! LayerNormalization over the last dimension.

use super::row_op::RowOperation;
use super::{Operator, same_shape};
use crate::graph::unknown_form;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, float, int};
use kernels::general::RowOp;

pub static OPERATORS: &[Operator] = &[Operator::new("LayerNormalization")
    // statistics are f32 whatever they are kept in
    .attributes(&["axis", "epsilon", "stash_type"])
    .infer(|n| if n.node.output.len() == 1 { same_shape(n) } else { Err(unknown_form()) })
    .lower(lower)];

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let dims = l.dims(x)?;
    let last = axis(int(node, "axis").unwrap_or(-1), dims.len()).ok()? + 1 == dims.len();
    let length = *dims.last()?;
    let weights = |k: usize, default: f32| match l.optional(node, k)? {
        Some(c) => Some(c.values.to_vec()).filter(|v| v.len() == length),
        None => Some(vec![default; length]),
    };
    let epsilon = float(node, "epsilon").unwrap_or(1e-5);
    let function = RowOp::LayerNorm { epsilon, scale: weights(1, 1.0)?, shift: weights(2, 0.0)? };
    if last { l.one(i, RowOperation { x, function }) } else { None }
}
