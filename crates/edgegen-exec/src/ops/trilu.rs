//! Trilu: what lies above or below a diagonal of matrices, and zeros; and EyeLike, a matrix of ones on a diagonal.

use super::pick::Picks;
use super::{Operator, same_shape};
use crate::constant::{Constant, count, made};
use crate::lower::{Lowered, Lowering, Operand};
use crate::node::int;
use crate::reason::Reason;
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;
use std::sync::LazyLock;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Trilu").attributes(&["upper"]).any_type().infer(same_shape).fold(fold).lower(lower),
    Operator::new("EyeLike").attributes(&["dtype", "k"]).any_type().known_from_shapes(|n| {
        let (&[rows, columns], k) = (n.shape(0)?, i128::from(int(n.node, "k").unwrap_or(0))) else {
            return Err(Reason::Malformed("its input is no matrix".into()));
        };
        let all = made(&[rows, columns], 0)?;
        let on = |i: usize| (i % columns) as i128 - (i / columns) as i128 == k;
        let kind = int(n.node, "dtype").and_then(|kind| DataType::try_from(i32::try_from(kind).ok()?).ok());
        let values = (0..all).map(|i| f32::from(on(i))).collect();
        Ok(Some(Constant::of(vec![rows, columns], values, kind.unwrap_or(DataType::Float))))
    }),
];

/// What is taken of the matrices, or of a zero after them.
fn picks(node: &NodeProto, dims: &[usize], diagonal: i64) -> Result<Picks, Reason> {
    let &[.., rows, columns] = dims else { return Err(Reason::Malformed("its input is no matrix".into())) };
    let (all, upper) = (count(dims)?, int(node, "upper").unwrap_or(1) == 1);
    let from = (0..all).map(|i| {
        let above = (i % columns) as i128 - (i / columns % rows) as i128;
        let kept = if upper { above >= i128::from(diagonal) } else { above <= i128::from(diagonal) };
        if kept { i } else { all }
    });
    Ok(Picks { dims: dims.to_vec(), from: from.collect() })
}

/// The number that stands where nothing is taken.
static ZERO: LazyLock<Constant> = LazyLock::new(|| Constant::of(vec![], vec![0.0], DataType::Float));

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let Some(x) = input.first().copied().flatten() else { return Ok(None) };
    let diagonal = match input.get(1).copied().flatten() {
        Some(diagonal) => *diagonal.integers().first().ok_or("its diagonal is not known")?,
        None => 0,
    };
    Ok(Some(vec![picks(node, &x.dims, diagonal)?.fold(x, Some(&ZERO))]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let diagonal = match l.optional(node, 1)? {
        Some(diagonal) => *diagonal.integers().first()?,
        None => 0,
    };
    let x = l.operand(node, 0)?;
    picks(node, l.dims(&node.input[0])?, diagonal).ok()?.lower(l, i, vec![x, Operand::Stored(&ZERO)])
}
