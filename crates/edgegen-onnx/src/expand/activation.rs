//! GELU in its variants, and what onnxruntime adds before and after it.

use super::writer::text;
use super::{Known, Writer, shape};
use crate::Result;
use crate::pb::NodeProto;

/// Gelu, FastGelu, BiasGelu, QuickGelu, BiasSplitGelu and BiasAdd.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let mut w = Writer::new(node, known);
    let x = node.given(0).unwrap_or_default();
    let result = match node.op_type.as_str() {
        "Gelu" => w.gelu(x),
        "BiasGelu" => {
            let sum = w.op("Add", &[x, node.given(1).unwrap_or_default()]);
            w.gelu(&sum)
        }
        "FastGelu" => {
            let sum = node.given(1).map(|bias| w.op("Add", &[x, bias]));
            w.with("Gelu", &[sum.as_deref().unwrap_or(x)], vec![text("approximate", "tanh")])
        }
        "QuickGelu" => w.swish(x, node.float("alpha").unwrap_or(1.702)),
        "BiasSplitGelu" => {
            let dims = shape(node, known, 0)?;
            let last = dims.len().checked_sub(1).ok_or("its input is a number")?;
            let half = dims[last] / 2;
            let sum = w.op("Add", &[x, node.given(1).unwrap_or_default()]);
            let [left, right] = [0, half].map(|start| w.slice(&sum, last, start, start + half));
            let right = w.gelu(&right);
            w.op("Mul", &[&left, &right])
        }
        _ => {
            let sum = w.op("Add", &[x, node.given(1).unwrap_or_default()]);
            w.op("Add", &[&sum, node.given(2).unwrap_or_default()])
        }
    };
    Ok(Some(w.finish_one(node, result)))
}
