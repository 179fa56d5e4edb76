//! Comparisons, logic and choices: worked out of stored tensors alone; of other values the shapes are known.

use super::{Operator, same_shape};
use super::binary::zip;
use crate::constant::{Constant, broadcast, made};
use crate::graph::Inference;
use crate::reason::Reason;
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Equal").infer(infer).fold(compare),
    Operator::new("Less").infer(infer).fold(compare),
    Operator::new("Greater").infer(infer).fold(compare),
    Operator::new("And").infer(infer).fold(compare),
    Operator::new("Or").infer(infer).fold(compare),
    Operator::new("Not").infer(same_shape).fold(|_, input| {
        let x = input.first().copied().flatten();
        Ok(x.map(|x| vec![x.map(|v| f32::from(v == 0.0))]))
    }),
    Operator::new("Where")
        .infer(|n| Ok(vec![broadcast(n.shape(0)?, &broadcast(n.shape(1)?, n.shape(2)?)?)?]))
        .fold(choose),
];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    Ok(vec![broadcast(n.shape(0)?, n.shape(1)?)?])
}

fn compare(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a), Some(b)] = input else { return Ok(None) };
    let f = |x: f32, y: f32| match node.op_type.as_str() {
        "Equal" => x == y,
        "Less" => x < y,
        "Greater" => x > y,
        "And" => x != 0.0 && y != 0.0,
        _ => x != 0.0 || y != 0.0,
    };
    Ok(Some(vec![zip(a, b, DataType::Bool, |x, y| f32::from(f(x, y)))?]))
}

fn choose(_: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(test), Some(a), Some(b)] = input else { return Ok(None) };
    let dims = broadcast(&broadcast(&test.dims, &a.dims)?, &b.dims)?;
    made(&dims, a.values.len().saturating_add(b.values.len()))?;
    let (test, x, y) = (test.expanded(&dims), a.expanded(&dims), b.expanded(&dims));
    let chosen = test.values.iter().zip(x.values.iter().zip(y.values.iter()));
    let values = chosen.map(|(t, (x, y))| if *t != 0.0 { *x } else { *y }).collect();
    Ok(Some(vec![Constant::of(dims, values, a.kind)]))
}
