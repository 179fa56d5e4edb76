//! Conversions between types. All numbers are f32 here: what is left of a conversion is that fractions are cut off.

use super::unary::UnaryOperation;
use super::{Operator, same_shape};
use crate::constant::{Constant, is_integer};
use crate::graph::Graph;
use crate::lower::{Lowered, Lowering};
use crate::node::int;
use crate::reason::Reason;
use kernels::general::Unary;
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Cast")
        // the others are of types that are not read here
        .attributes(&["to", "saturate", "round_mode"])
        .any_type()
        .infer(same_shape)
        .fold(fold)
        .lower(truncate),
];

/// The type that a Cast makes.
fn target(node: &NodeProto) -> Option<DataType> {
    int(node, "to").and_then(|kind| DataType::try_from(i32::try_from(kind).ok()?).ok())
}

/// Whether a Cast of `x` leaves its numbers as they are.
pub fn changes_nothing(graph: &Graph, node: &NodeProto, x: &str) -> bool {
    let Some(to) = target(node) else { return false };
    match graph.type_of(x) {
        // those of a run are small: times, labels, and floats that were cut off
        Some(from) if is_integer(from) => !is_integer(to) || from == to || is_wide(to),
        // a truth is 1 or 0 already
        _ => !is_integer(to),
    }
}

/// Integers that hold all that a run has of such.
fn is_wide(kind: DataType) -> bool {
    matches!(kind, DataType::Int32 | DataType::Int64)
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a)] = input else { return Ok(None) };
    let kind = target(node).ok_or("of an unknown type")?;
    // a float is the nearest one, as a conversion of an integer gives it
    let exact = a.exact || !is_integer(kind);
    let kept = || Ok(Some(vec![Constant { kind, exact, levels: None, ..a.clone() }]));
    if !is_integer(kind) || kind == a.kind {
        return kept();
    }
    if kind == DataType::Bool {
        return Ok(Some(vec![Constant { kind, exact: true, ..a.map(|v| f32::from(v != 0.0)) }]));
    }
    // beyond the range of their type integers wrap, and what floats become is left open
    let [least, greatest] = match kind {
        DataType::Int64 if a.is_integer() => return kept(),
        DataType::Int64 => [-(2f32.powi(62)), 2f32.powi(62)],
        DataType::Int32 => [-(2f32.powi(30)), 2f32.powi(30)],
        DataType::Int16 => [-32768.0, 32767.0],
        DataType::Int8 => [-128.0, 127.0],
        DataType::Uint8 => [0.0, 255.0],
        _ => return Err("integers of an unknown type".into()),
    };
    let cut = a.map(f32::trunc);
    if !a.exact || !cut.values.iter().all(|v| (least..=greatest).contains(v)) {
        return Err("it converts numbers beyond the range of their type".into());
    }
    Ok(Some(vec![Constant { kind, ..cut }]))
}

/// Floats to whole numbers, and numbers to what is true of all but 0: other conversions are no steps.
fn truncate<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let float = l.graph.type_of(x) == Some(DataType::Float);
    match target(node)? {
        DataType::Bool => l.one(i, UnaryOperation { f: Unary::Truth, x }),
        to if float && is_wide(to) => l.one(i, UnaryOperation { f: Unary::Truncate, x }),
        _ => None,
    }
}
