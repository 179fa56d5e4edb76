//! LayerNormalization and RMSNormalization over the last dimensions.

use super::row_op::RowOperation;
use super::{Operator, same_shape};
use crate::graph::unknown_form;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, float, int};
use kernels::general::RowOp;

pub static OPERATORS: &[Operator] = &[
    Operator::new("LayerNormalization")
        // statistics are f32 whatever they are kept in
        .attributes(&["axis", "epsilon", "stash_type"])
        .infer(|n| if n.node.output.len() == 1 { same_shape(n) } else { Err(unknown_form()) })
        .lower(|l, i| lower(l, i, true)),
    Operator::new("RMSNormalization")
        .attributes(&["axis", "epsilon", "stash_type"])
        .infer(same_shape)
        .lower(|l, i| lower(l, i, false)),
];

fn lower<'a>(l: &Lowering<'a>, i: usize, centred: bool) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let dims = l.dims(x)?;
    let first = axis(int(node, "axis").unwrap_or(-1), dims.len()).ok()?;
    let length = dims[first..].iter().try_fold(1, |n: usize, d| n.checked_mul(*d))?;
    // one for each number of a row, which a tensor of fewer is repeated to
    let weights = |k: usize, default: f32| match l.optional(node, k)? {
        Some(c) => {
            let fits = c.dims.len() <= dims.len() - first;
            let spread = fits.then(|| crate::constant::broadcast(&c.dims, &dims[first..]).ok()).flatten();
            spread.filter(|all| *all == dims[first..]).map(|all| c.expanded(&all).values.to_vec())
        }
        None => Some(vec![default; length]),
    };
    let epsilon = float(node, "epsilon").unwrap_or(1e-5);
    let scale = weights(1, 1.0)?;
    let function = if centred {
        RowOp::LayerNorm { epsilon, scale, shift: weights(2, 0.0)? }
    } else {
        RowOp::RmsNorm { epsilon, scale }
    };
    l.one(i, RowOperation { x, function, axes: (first..dims.len()).collect() })
}
