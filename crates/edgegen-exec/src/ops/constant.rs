//! Tensors that nodes store or make of nothing: Constant, ConstantOfShape and Range.

use super::Operator;
use crate::constant::{Constant, made};
use crate::node::{float, int, lengths};
use crate::reason::Reason;
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Constant")
        .attributes(&["value", "value_float", "value_floats", "value_int", "value_ints"])
        .fold(|node, _| Ok(value(node).map(|c| vec![c]))),
    Operator::new("ConstantOfShape").attributes(&["value"]).fold(of_shape),
    Operator::new("Range").fold(range),
];

fn value(node: &NodeProto) -> Option<Constant> {
    let attribute = node.attribute.first()?;
    match attribute.name.as_str() {
        "value" => Constant::read(attribute.t.as_ref()?),
        "value_float" => Some(Constant::of(vec![], vec![float(node, "value_float")?], DataType::Float)),
        "value_int" => Some(Constant::whole(vec![], int(node, "value_int"), DataType::Int64)),
        "value_floats" => Some(Constant::of(vec![attribute.floats.len()], attribute.floats.clone(), DataType::Float)),
        "value_ints" => Some(Constant::list(attribute.ints.iter().copied())),
        _ => None,
    }
}

fn of_shape(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(shape)] = input else { return Ok(None) };
    let dims = lengths(&shape.integers())?;
    let value = node.attribute.iter().find(|t| t.name == "value").and_then(|t| t.t.as_ref());
    let value = value.and_then(Constant::read).unwrap_or_else(|| Constant::of(vec![1], vec![0.0], DataType::Float));
    let len = made(&dims, 0)?;
    Ok(Some(vec![Constant::of(dims, vec![value.values.first().copied().unwrap_or(0.0); len], value.kind)]))
}

fn range(_: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(start), Some(limit), Some(step)] = input else { return Ok(None) };
    let [&[first], &[limit], &[step]] = [start, limit, step].map(|c| c.values.as_slice()) else {
        return Err("a range is of numbers".into());
    };
    if start.kind == DataType::Int32 || start.kind == DataType::Int64 {
        let [first, limit, step] = [first, limit, step].map(|v| v as i64);
        if step == 0 {
            return Err(Reason::Malformed("its step is zero".into()));
        }
        let (way, stride) = if step > 0 { (limit - first, step) } else { (first - limit, -step) };
        let count = usize::try_from(way.max(0).unsigned_abs().div_ceil(stride.unsigned_abs())).unwrap_or(usize::MAX);
        made(&[count], 0)?;
        let all = (0..count).map(|i| first + i as i64 * step);
        return Ok(Some(vec![Constant::whole(vec![count], all, start.kind)]));
    }
    let count = ((limit - first) / step).ceil().max(0.0) as usize;
    made(&[count], 0)?;
    Ok(Some(vec![Constant::of(vec![count], (0..count).map(|i| first + i as f32 * step).collect(), start.kind)]))
}
