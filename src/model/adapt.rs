//! What is changed about a graph for a network to be one of a sample, a time and conditions at a batch of one, whatever it
//! was exported as.

use super::join::Joined;
use ::onnx::order;
use ::onnx::pb::attribute_proto::AttributeType;
use ::onnx::pb::tensor_proto::DataType;
use ::onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use std::collections::HashSet;

/// Makes output number `index` the graph's only one; what nothing depends on then is left out.
pub(super) fn keep_output(graph: &mut GraphProto, index: usize) {
    if graph.output.len() > 1 {
        graph.output = vec![graph.output.swap_remove(index)];
        order::drop_dead(graph);
    }
}

/// Makes these values outputs of the graph, after those that it has.
///
/// # Errors
/// When the graph makes no value of a name.
pub(super) fn give_too(graph: &mut GraphProto, names: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    let made: HashSet<&str> = graph
        .node
        .iter()
        .flat_map(|n| &n.output)
        .chain(graph.input.iter().map(|i| &i.name))
        .map(String::as_str)
        .collect();
    if let Some(name) = names.iter().find(|name| !made.contains(name.as_str())) {
        return Err(format!("the graph has no value {name} that could be observed"));
    }
    graph.output.extend(names.iter().map(|name| ValueInfoProto { name: name.clone(), ..Default::default() }));
    Ok(())
}

/// Makes of the input `sample` one for each of the parts that it is joined of, and the joining a node of the graph.
///
/// # Errors
/// When the graph has a value of a part's name.
pub(super) fn split_input(graph: &mut GraphProto, sample: &str, joined: &Joined) -> Result<(), String> {
    let mut names = names(graph);
    let whole = free_name(&names, format!("{sample}/joined"));
    rename_reads(graph, sample, &whole);
    names.insert(whole.clone());
    let element = graph.input.iter().find(|input| input.name == sample).cloned().unwrap_or_default();
    let mut parts = Vec::new();
    for (name, _) in &joined.parts {
        let name = name.clone().unwrap_or_else(|| sample.into());
        if name != sample {
            if !names.insert(name.clone()) {
                return Err(format!(
                    "the model has a value called {name} already: call what is joined with the sample otherwise"
                ));
            }
            graph.input.push(ValueInfoProto { name: name.clone(), ..element.clone() });
        }
        parts.push(name);
    }
    let axis = AttributeProto {
        name: "axis".into(),
        r#type: AttributeType::Int as i32,
        i: joined.axis as i64,
        ..Default::default()
    };
    graph.node.insert(0, node("Concat", parts, whole, vec![axis]));
    Ok(())
}

/// Gives a graph that was exported at a fixed batch what it takes: every input with a place for each sample, here by its name and its number of dimensions, is repeated, and of the
/// result the first is taken.
pub(super) fn repeat<'a>(graph: &mut GraphProto, inputs: impl Iterator<Item = (&'a str, usize)>, batch: usize) {
    let mut names = names(graph);
    let mut nodes = Vec::new();
    for (input, rank) in inputs {
        let [repeated, shape] = ["repeated", "batch"].map(|what| {
            let name = free_name(&names, format!("{input}/{what}"));
            names.insert(name.clone());
            name
        });
        rename_reads(graph, input, &repeated);
        let mut sizes = vec![1i64; rank];
        sizes[0] = batch as i64;
        graph.initializer.push(integers(&shape, &sizes));
        nodes.push(node("Expand", vec![input.to_string(), shape], repeated, vec![]));
    }
    graph.node.splice(..0, nodes);
    for output in &mut graph.output {
        let first = free_name(&names, format!("{}/first", output.name));
        names.insert(first.clone());
        let bounds = [("starts", 0), ("ends", 1), ("axes", 0)].map(|(what, value)| {
            let name = free_name(&names, format!("{}/{what}", output.name));
            names.insert(name.clone());
            graph.initializer.push(integers(&name, &[value]));
            name
        });
        let read = std::iter::once(output.name.clone()).chain(bounds).collect();
        graph.node.push(node("Slice", read, first.clone(), vec![]));
        output.name = first;
    }
}

fn node(op: &str, input: Vec<String>, output: String, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto { op_type: op.into(), name: output.clone(), input, output: vec![output], attribute, ..Default::default() }
}

fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: DataType::Int64 as i32,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
        ..Default::default()
    }
}

/// Every name in a graph.
fn names(graph: &GraphProto) -> HashSet<String> {
    let nodes = graph.node.iter().flat_map(|node| node.input.iter().chain(&node.output));
    let stored = graph.initializer.iter().map(|tensor| &tensor.name);
    nodes.chain(stored).chain(graph.input.iter().map(|input| &input.name)).cloned().collect()
}

/// The name, or one with a mark after it if that is taken.
fn free_name(taken: &HashSet<String>, name: String) -> String {
    let mut name = name;
    while taken.contains(&name) {
        name.push('\'');
    }
    name
}

/// Has everything that reads one value read another, in graphs inside of nodes too.
fn rename_reads(graph: &mut GraphProto, from: &str, to: &str) {
    let mut left: Vec<&mut GraphProto> = vec![graph];
    while let Some(graph) = left.pop() {
        for node in &mut graph.node {
            node.input.iter_mut().filter(|name| *name == from).for_each(|name| *name = to.into());
            left.extend(node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs)));
        }
    }
}
