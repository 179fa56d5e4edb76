//! What each operator of ONNX takes in each opset, and the check of every node of a model against it.
//!
//! The table is `signatures.txt`: for each operator the forms that it has had since opset 7, with inputs, outputs, element
//! types and attributes. A node that does not fit its form, or that is of no operator of the table, is refused, since
//! whatever ran it could only guess what it means.

pub mod nested;
mod node;
mod table;

pub use node::{is_default, result_types};

use crate::Result;
use crate::pb::tensor_proto::DataType;
use crate::pb::type_proto::Value;
use crate::pb::{GraphProto, ModelProto, NodeProto, TensorProto};
use node::result_type;
use std::collections::{HashMap, HashSet};
use table::{form, line_of, opsets};

/// What tells the element type of a value.
pub type TypeOf<'f> = &'f dyn Fn(&str) -> Option<DataType>;

/// A name from a file as a part of a line: short, and without line breaks.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(60).flat_map(char::escape_default).collect();
    if name.chars().nth(60).is_some() {
        text.push('…');
    }
    text
}

/// A node as errors call it: its operator, and its name if it has one.
pub fn called(node: &NodeProto) -> String {
    match node.name.as_str() {
        "" => shown(&node.op_type),
        name => format!("{} '{}'", shown(&node.op_type), shown(name)),
    }
}

/// The version of ONNX's own operators that a model is written in.
///
/// # Errors
/// When it says none, or one that is not known here.
pub fn opset(model: &ModelProto) -> Result<i64> {
    let mut versions = model.opset_import.iter().filter(|o| is_standard(&o.domain)).map(|o| o.version);
    let version = versions.next().ok_or("the model does not say which opset of ONNX it is written in")?;
    if versions.any(|other| other != version) {
        return Err("the model says two opsets of ONNX that it is written in".into());
    }
    let [first, last] = opsets();
    if (first..=last).contains(&version) {
        Ok(version)
    } else {
        Err(format!("the model is written in opset {version} of ONNX, but those from {first} to {last} are supported"))
    }
}

pub(crate) fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Checks every node of a model whose functions are inlined and whose nodes are in order: that its operator is known, that
/// it has the inputs, outputs and attributes that the opset gives it, and that element types go together.
///
/// # Errors
/// When one does not: which, and what is wrong with it.
pub fn check(model: &mut ModelProto) -> Result<()> {
    let opset = opset(model)?;
    let graph = model.graph.as_mut().ok_or("the model holds no graph")?;
    check_operators(graph, opset)?;
    nested::mark_unknown_branches(graph, opset)?;
    let known = types(graph, opset)?;
    if let Some(output) = graph.output.iter().find(|o| !known.contains_key(o.name.as_str())) {
        return Err(format!("nothing in the graph makes its output '{}'", shown(&output.name)));
    }
    graph.node.iter().filter(|n| n.op_type == "Dropout").try_for_each(|n| check_dropout(n, graph))
}

/// The element type of every value of a graph whose nodes are in order and of this opset.
///
/// # Errors
/// When a node is not as the opset says.
pub fn types(graph: &GraphProto, opset: i64) -> Result<HashMap<&str, DataType>> {
    types_within(graph, opset, &|_| None)
}

/// The same of a graph inside a node, which may read values of the graphs around it.
fn types_within<'g>(graph: &'g GraphProto, opset: i64, around: TypeOf) -> Result<HashMap<&'g str, DataType>> {
    let mut types = stored_types(graph)?;
    for node in &graph.node {
        let results = result_types(node, opset, &|name| types.get(name).copied().or_else(|| around(name)))?;
        for (name, element) in node.output.iter().zip(results).filter(|(name, _)| !name.is_empty()) {
            if types.insert(name, element).is_some() {
                return Err(format!("the graph makes '{}' twice", shown(name)));
            }
        }
    }
    Ok(types)
}

/// Refuses a Dropout that trains, or whose word on that is not known.
fn check_dropout(node: &NodeProto, graph: &GraphProto) -> Result<()> {
    let Some(mode) = node.input.get(2).filter(|name| !name.is_empty()) else { return Ok(()) };
    let stored = graph.initializer.iter().find(|t| t.name == *mode);
    let made = || graph.node.iter().find(|n| n.op_type == "Constant" && n.output.first() == Some(mode));
    let tensor = stored.or_else(|| made()?.attribute.first()?.t.as_ref());
    let off = |t: &TensorProto| {
        let numbers = t.raw_data.iter().map(|b| i32::from(*b)).chain(t.int32_data.iter().copied());
        t.dims.is_empty() && numbers.eq([0])
    };
    match tensor.is_some_and(off) {
        true => Ok(()),
        false => Err(format!("{}: its training mode must be a stored false", called(node))),
    }
}

/// Whether all operators are known: all that are not, in one line, since that is what a user has to change.
fn check_operators(graph: &GraphProto, opset: i64) -> Result<()> {
    let mut unknown: Vec<String> = Vec::new();
    for node in &graph.node {
        if line_of(node, opset).is_none() {
            let domain = if is_standard(&node.domain) { String::new() } else { format!("{}.", shown(&node.domain)) };
            let name = format!("{domain}{}", shown(&node.op_type));
            if !unknown.contains(&name) && unknown.len() < 10 {
                unknown.push(name);
            }
        }
    }
    unknown.sort_unstable();
    match unknown.as_slice() {
        [] => Ok(()),
        names => Err(format!("the model uses operators that are not supported in opset {opset}: {}", names.join(", "))),
    }
}

/// The element types of inputs and stored tensors.
fn stored_types(graph: &GraphProto) -> Result<HashMap<&str, DataType>> {
    if let Some(tensor) = graph.sparse_initializer.first() {
        let name = tensor.values.as_ref().map(|v| shown(&v.name)).unwrap_or_default();
        return Err(format!("the stored tensor '{name}' is sparse, which is not supported"));
    }
    let mut types = HashMap::new();
    for tensor in &graph.initializer {
        let element = DataType::try_from(tensor.data_type).unwrap_or_default();
        if types.insert(tensor.name.as_str(), element).is_some() {
            return Err(format!("the graph stores two tensors as '{}'", shown(&tensor.name)));
        }
    }
    let mut inputs = HashSet::new();
    for input in &graph.input {
        let value = input.r#type.as_ref().and_then(|t| t.value.as_ref());
        if let Some(Value::TensorType(tensor)) = value {
            // a stored tensor of that name is the input's default, which nobody can override here
            types.entry(&input.name).or_insert(DataType::try_from(tensor.elem_type).unwrap_or_default());
        }
        if !inputs.insert(&input.name) {
            return Err(format!("the graph has two inputs '{}'", shown(&input.name)));
        }
    }
    Ok(types)
}

/// The element types of a graph's values, as far as they are known, once [passes](crate::mend) have rewritten it: its nodes
/// are then of no single opset any more, and numbers of 16 bits are computed with in 32.
pub fn types_as_computed(graph: &GraphProto, opset: i64) -> HashMap<&str, DataType> {
    let single = |element| match element {
        DataType::Float16 | DataType::Bfloat16 => DataType::Float,
        other => other,
    };
    let mut types = stored_types(graph).unwrap_or_default();
    types.values_mut().for_each(|element| *element = single(*element));
    for node in &graph.node {
        for (name, element) in computed_types(node, opset, &|name| types.get(name).copied()) {
            types.insert(name, single(element));
        }
    }
    types
}

/// The element types of a node's results, as far as they follow from what is known of its inputs'.
pub fn computed_types<'n>(node: &'n NodeProto, opset: i64, type_of: TypeOf) -> Vec<(&'n str, DataType)> {
    let newest = || form(node, opsets()[1]);
    let Some(form) = form(node, opset).or_else(newest) else { return Vec::new() };
    let mut known = HashMap::new();
    for (i, name) in node.input.iter().enumerate() {
        let parameter = form.inputs.get(i).or(form.inputs.last());
        if let Some((parameter, element)) = parameter.zip(type_of(name)) {
            known.entry(parameter.of).or_insert(element);
        }
    }
    let named = node.output.iter().enumerate().filter(|(_, name)| !name.is_empty());
    named.filter_map(|(i, name)| Some((name.as_str(), result_type(node, &form, i, &known).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::node::tests::node;
    use super::*;
    use crate::pb::OperatorSetIdProto;

    fn model(opsets: &[(&str, i64)], nodes: &[NodeProto], stored: &[&str]) -> ModelProto {
        let tensor = |name: &&str| TensorProto { name: (*name).into(), data_type: 1, ..Default::default() };
        let import =
            |(domain, version): &(&str, i64)| OperatorSetIdProto { domain: (*domain).into(), version: *version };
        let graph = GraphProto {
            node: nodes.to_vec(),
            initializer: stored.iter().map(tensor).collect(),
            output: vec![crate::pb::ValueInfoProto { name: "y".into(), ..Default::default() }],
            ..Default::default()
        };
        ModelProto { graph: Some(graph), opset_import: opsets.iter().map(import).collect(), ..Default::default() }
    }

    #[test]
    fn models_are_checked_as_a_whole() {
        let relu = node("Relu(f)");
        let elsewhere = NodeProto { domain: "nowhere".into(), ..relu.clone() };
        let unknown = node("Unique(f)");
        // opsets, nodes, stored tensors, and what is said of them
        type Case<'a> = (&'a [(&'a str, i64)], &'a [NodeProto], &'a [&'a str], &'a str);
        let cases: &[Case] = &[
            (&[("", 17)], std::slice::from_ref(&relu), &["f"], ""),
            (&[("ai.onnx", 17), ("com.microsoft", 1)], std::slice::from_ref(&relu), &["f"], ""),
            (&[], std::slice::from_ref(&relu), &["f"], "does not say which opset"),
            (&[("", 17), ("ai.onnx", 18)], std::slice::from_ref(&relu), &["f"], "two opsets"),
            (&[("", 6)], std::slice::from_ref(&relu), &["f"], "opset 6"),
            (&[("", 99)], std::slice::from_ref(&relu), &["f"], "opset 99"),
            (&[("", 17)], std::slice::from_ref(&relu), &["f", "f"], "stores two tensors as 'f'"),
            (&[("", 17)], std::slice::from_ref(&relu), &["f", "y"], "makes 'y' twice"),
            (&[("", 17)], &[relu.clone(), relu.clone()], &["f"], "makes 'y' twice"),
            (&[("", 17)], &[], &["f"], "nothing in the graph makes its output 'y'"),
            (&[("", 17)], std::slice::from_ref(&relu), &[], "makes its input 'f'"),
            (&[("", 17)], &[elsewhere, unknown], &["f"], "not supported in opset 17: Unique, nowhere.Relu"),
        ];
        for (opsets, nodes, stored, words) in cases {
            match check(&mut model(opsets, nodes, stored)) {
                Ok(()) => assert!(words.is_empty(), "is not refused: {words}"),
                Err(line) => assert!(!words.is_empty() && line.contains(words), "{line} is not {words}"),
            }
        }
    }

    #[test]
    fn names_stay_short_and_on_the_line() {
        let bad = NodeProto { op_type: "Bad\n".into(), name: "n".repeat(10_000), ..Default::default() };
        let line = check(&mut model(&[("", 17)], &[bad], &[])).unwrap_err();
        assert!(!line.contains('\n') && line.len() < 200, "{line}");
    }
}
