//! Graphs inside nodes: the branches of If and the bodies of Loop and Scan.

use super::{TypeOf, result_types as of_node, shown, types_within};
use crate::Result;
use crate::pb::tensor_proto::DataType;
use crate::pb::{GraphProto, NodeProto};
use std::collections::HashMap;

/// The most graphs that may lie inside one another.
const DEEPEST: usize = 16;

/// Whether a node is of an operator that holds graphs.
pub fn is_control_flow(node: &NodeProto) -> bool {
    super::is_standard(&node.domain) && ["If", "Loop", "Scan"].contains(&node.op_type.as_str())
}

/// The element types of the results of a node that holds graphs: an If's are those of a branch that is known.
///
/// # Errors
/// When what it holds is not as the opset says.
pub fn result_types(node: &NodeProto, opset: i64, type_of: TypeOf) -> Result<Vec<DataType>> {
    let graph = |name: &str| node.attribute(name).and_then(|a| a.g.as_ref()).ok_or_else(|| format!("it has no {name}"));
    if node.op_type == "If" {
        let branches = [graph("then_branch")?, graph("else_branch")?];
        let known = branches.into_iter().find(|branch| refusal(branch).is_none());
        let known = known.ok_or_else(|| refusal(branches[0]).unwrap_or_default().to_string())?;
        return outputs(known, node, opset, type_of, 0);
    }
    // a Loop's body gives its condition first
    outputs(graph("body")?, node, opset, type_of, usize::from(node.op_type == "Loop"))
}

/// The element types of a graph's results from result `first` on, which are the node's.
fn outputs(graph: &GraphProto, node: &NodeProto, opset: i64, type_of: TypeOf, first: usize) -> Result<Vec<DataType>> {
    let types = types_within(graph, opset, type_of)?;
    let results = graph.output.get(first..).unwrap_or_default();
    if results.len() != node.output.len() {
        return Err(format!("its graph has {} results for {} outputs", results.len(), node.output.len()));
    }
    let type_of_result = |name: &str| types.get(name).copied().or_else(|| type_of(name));
    let of = |name: &str| type_of_result(name).ok_or_else(|| format!("nothing makes '{}'", shown(name)));
    results.iter().map(|result| of(&result.name)).collect()
}

/// What is wrong with a branch, if it was [marked](mark_unknown_branches) as one that cannot be run.
pub fn refusal(branch: &GraphProto) -> Option<&str> {
    branch.name.strip_prefix(REFUSED)
}

/// How the name of a branch begins that is not to be run.
const REFUSED: &str = "refused: ";

/// Empties the branches of If nodes that are not as the opset says, and notes what is wrong with them: this matters only if
/// the branch is taken, and exporters leave much in branches that never are.
///
/// # Errors
/// When graphs lie too deep inside one another.
pub fn mark_unknown_branches(graph: &mut GraphProto, opset: i64) -> Result<()> {
    mark_within(graph, opset, &|_| None, 0)
}

fn mark_within(graph: &mut GraphProto, opset: i64, around: TypeOf, depth: usize) -> Result<()> {
    if !graph.node.iter().any(is_control_flow) {
        return Ok(());
    }
    if depth >= DEEPEST {
        return Err(format!("more than {DEEPEST} graphs of the model lie inside one another"));
    }
    let mut types: HashMap<String, DataType> =
        super::stored_types(graph)?.into_iter().map(|(name, element)| (name.to_string(), element)).collect();
    for node in &mut graph.node {
        let type_of = |name: &str| types.get(name).copied().or_else(|| around(name));
        let is_if = is_control_flow(node) && node.op_type == "If";
        for inner in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
            mark_within(inner, opset, &type_of, depth + 1)?;
            if is_if && let Err(reason) = types_within(inner, opset, &type_of) {
                *inner = GraphProto { name: format!("{REFUSED}{reason}"), ..GraphProto::default() };
            }
        }
        // what is wrong with the node itself is said when all nodes are checked
        let Ok(results) = of_node(node, opset, &type_of) else { continue };
        types.extend(node.output.iter().cloned().zip(results));
    }
    Ok(())
}
