//! The table of operators, and how it is read.

use super::is_standard;
use crate::pb::NodeProto;
use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use std::collections::HashMap;

/// An input or output of an operator.
#[derive(Debug)]
pub(super) struct Parameter {
    /// A variable of the form, or an element type.
    pub of: &'static str,
    pub optional: bool,
    pub variadic: bool,
}

#[derive(Debug)]
pub(super) struct Attribute {
    pub name: &'static str,
    pub kind: AttributeType,
    pub required: bool,
    pub default: Option<&'static str>,
}

/// An operator from some opset on, until its next form.
#[derive(Debug)]
pub(super) struct Form {
    pub since: i64,
    pub inputs: Vec<Parameter>,
    pub outputs: Vec<Parameter>,
    pub variables: HashMap<&'static str, Vec<DataType>>,
    pub attributes: Vec<Attribute>,
}

/// The operators of ONNX, in the order of their names, each form on a line of its own. It is read where it is asked for: a
/// table in memory would take as long to make as a small model takes to load.
const SIGNATURES: &str = include_str!("../signatures.txt");

/// The operators that onnxruntime adds to them, in the same form.
const ADDED: &str = include_str!("../signatures_onnxruntime.txt");

/// The first and the last opset that the table knows.
pub(super) fn opsets() -> [i64; 2] {
    let line = SIGNATURES.lines().find_map(|line| line.strip_prefix("opsets "));
    let ends = line.and_then(|line| line.split_once(" to ")).map(|(a, b)| [a, b].map(|n| n.parse().unwrap_or(0)));
    ends.unwrap_or([0, 0])
}

/// The lines of an operator in a table, the oldest form first: each opset that a form is from, and the rest of the line.
fn lines_of(table: &'static str, op: &str) -> impl Iterator<Item = (i64, &'static str)> {
    let body = table.find("opsets ").and_then(|at| Some(&table[at + table[at..].find('\n')? + 1..]));
    let body = body.unwrap_or_default();
    let name = |line: &'static str| line.split(' ').next().unwrap_or_default();
    // the first line whose name is not less, between two starts of lines
    let (mut low, mut high) = (0, body.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = body[..middle].rfind('\n').map_or(0, |at| at + 1);
        let line = body[start..].lines().next().unwrap_or_default();
        if name(line) < op {
            low = start + line.len() + 1;
        } else {
            high = start;
        }
    }
    let lines = body.get(low..).unwrap_or_default().lines();
    let op = op.to_string();
    lines.take_while(move |line| name(line) == op).filter_map(|line| {
        let (operator, rest) = line.split_once('|')?;
        Some((operator.split(' ').nth(1)?.parse().ok()?, rest))
    })
}

/// The line of the form that a node's operator has in an opset; `None` where there is no such operator.
pub(super) fn line_of(node: &NodeProto, opset: i64) -> Option<(i64, &'static str)> {
    let newest = |table, op: &str| {
        let newest = lines_of(table, op).take_while(|(since, _)| *since <= opset).last()?;
        Some(newest).filter(|(_, line)| line.trim() != "none")
    };
    if is_standard(&node.domain) {
        newest(SIGNATURES, &node.op_type).or_else(|| newest(ADDED, &node.op_type))
    } else {
        newest(ADDED, &format!("{}.{}", node.domain, node.op_type))
    }
}

fn parse((since, line): (i64, &'static str)) -> Option<Form> {
    let mut columns = line.split('|').map(str::trim);
    let [inputs, outputs, variables, attributes] = std::array::from_fn(|_| columns.next().unwrap_or_default());
    Some(Form {
        since,
        inputs: inputs.split_whitespace().map(parameter).collect(),
        outputs: outputs.split_whitespace().map(parameter).collect(),
        variables: variables.split(';').filter(|v| !v.is_empty()).map(variable).collect::<Option<_>>()?,
        attributes: attributes.split_whitespace().map(attribute).collect::<Option<_>>()?,
    })
}

fn parameter(text: &'static str) -> Parameter {
    let of = text.trim_end_matches(['?', '*']);
    Parameter { of, optional: text.ends_with('?'), variadic: text.ends_with('*') }
}

fn variable(text: &'static str) -> Option<(&'static str, Vec<DataType>)> {
    let (name, types) = text.split_once(':')?;
    Some((name.trim(), types.split_whitespace().map(element_type).collect::<Option<_>>()?))
}

pub(super) fn element_type(name: &str) -> Option<DataType> {
    Some(match name {
        "f32" => DataType::Float,
        "f16" => DataType::Float16,
        "f64" => DataType::Double,
        "bf16" => DataType::Bfloat16,
        "bool" => DataType::Bool,
        "i8" => DataType::Int8,
        "i16" => DataType::Int16,
        "i32" => DataType::Int32,
        "i64" => DataType::Int64,
        "u8" => DataType::Uint8,
        "u16" => DataType::Uint16,
        "u32" => DataType::Uint32,
        "u64" => DataType::Uint64,
        "i2" => DataType::Int2,
        "u2" => DataType::Uint2,
        "i4" => DataType::Int4,
        "u4" => DataType::Uint4,
        _ => return None,
    })
}

fn attribute(text: &'static str) -> Option<Attribute> {
    let (name, kind) = text.split_once(':')?;
    let (kind, default) = kind.split_once('=').map_or((kind, None), |(kind, default)| (kind, Some(default)));
    let required = kind.ends_with('!');
    let kind = match kind.trim_end_matches('!') {
        "int" => AttributeType::Int,
        "float" => AttributeType::Float,
        "string" => AttributeType::String,
        "tensor" => AttributeType::Tensor,
        "ints" => AttributeType::Ints,
        "floats" => AttributeType::Floats,
        "strings" => AttributeType::Strings,
        "sparse" => AttributeType::SparseTensor,
        "graph" => AttributeType::Graph,
        _ => return None,
    };
    Some(Attribute { name, kind, required, default })
}

/// The form that a node's operator has in this opset.
pub(super) fn form(node: &NodeProto, opset: i64) -> Option<Form> {
    parse(line_of(node, opset)?)
}
