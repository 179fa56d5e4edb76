//! Shape, which is known before anything runs, and products over such shapes.

use super::Operator;
use crate::constant::{Constant, count};
use crate::node::{int, ints};
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Shape").attributes(&["start", "end"]).any_type().known_from_shapes(|n| {
        let dims = n.shape(0)?;
        let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
        let bound = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
        let (start, end) = (bound(int(n.node, "start").unwrap_or(0)), bound(int(n.node, "end").unwrap_or(rank)));
        Ok(Some(Constant::list(dims[start..end.max(start)].iter().map(|d| *d as i64))))
    }),
    Operator::new("Size").any_type().known_from_shapes(|n| {
        Ok(Some(Constant::whole(vec![], [count(n.shape(0)?)? as i64], DataType::Int64)))
    }),
    // of all numbers alone: how many a shape has
    Operator::new("ReduceProd").attributes(&["axes", "keepdims"]).fold(|node, input| {
        let &[Some(x)] = input else { return Ok(None) };
        let all = ints(node, "axes").is_none_or(|axes| x.dims.len() == 1 && matches!(axes, [0 | -1]));
        if !all || x.kind != DataType::Int64 {
            return Ok(None);
        }
        let product = x.integers().into_iter().try_fold(1i64, i64::checked_mul);
        let dims = if int(node, "keepdims") == Some(0) { vec![] } else { vec![1; x.dims.len()] };
        let product = product.ok_or("its result is too large")?;
        Ok(Some(vec![Constant::whole(dims, [product], x.kind)]))
    }),
];
