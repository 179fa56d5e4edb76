//! What is not sent to tract.
//!
//! tract 0.23.9 runs what a plan does not cover, and trusts the graphs that it gets: a few numbers of an attribute can make
//! it take all memory or never end, and some graphs give other numbers than ONNX says. So a graph goes there only if no
//! rule of this module speaks against it. A rule is a function; what it knows of a graph is in [`Seen`]. What gives other
//! numbers in one form and the right ones in another is written in that first (`onnx::for_tract`), so that no rule is needed.

mod numbers;
mod seen;

use super::input::Input;
use crate::error::{Hint, model_error};
use crate::{Error, Result};
use ::onnx::budget::Budget;
use ::onnx::pb::{GraphProto, NodeProto};
use ::onnx::signature::called;
use seen::Seen;
use std::collections::{HashMap, HashSet};

/// The rules. Those on the form of a graph come first: later ones may rely on it.
const RULES: &[fn(&Seen) -> Result<()>] = &[
    the_graph_is_not_too_large,
    every_operator_is_known_to_do_no_harm,
    windows_are_of_a_networks_size,
    what_makes_more_of_less_is_of_a_known_size,
    all_values_that_are_needed_at_a_time_fit_the_budget,
    nothing_is_gathered_from_nothing,
    numbers::are_as_onnx_says,
];

/// Refuses a graph that tract is not to get.
///
/// # Errors
/// What in it speaks against it.
pub(super) fn check(graph: &GraphProto, opset: i64, inputs: &[Input], budget: &Budget) -> Result<()> {
    let seen = Seen::of(graph, opset, inputs, budget)?;
    RULES.iter().try_for_each(|rule| rule(&seen))
}

fn refused(node: &NodeProto, what: &str) -> Error {
    model_error(format!("{}: {what}", called(node)))
}

/// tract takes time by more than the number of nodes.
fn the_graph_is_not_too_large(seen: &Seen) -> Result<()> {
    const MOST_NODES: usize = 10_000;
    let nodes = seen.graph.node.len();
    if nodes <= MOST_NODES {
        return Ok(());
    }
    Err(model_error(format!(
        "a graph of {nodes} operators that has no plan is too large for the other engine, which takes {MOST_NODES}"
    )))
}

/// Operators without rules here whose results are no larger than what they read, which end, and which tract computes as
/// ONNX says.
const HARMLESS: &[&str] = &[
    "Acos",
    "Acosh",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BatchNormalization",
    "Ceil",
    "Cosh",
    "CumSum",
    "Elu",
    "Equal",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "LRN",
    "LSTM",
    "GRU",
    "RNN",
    "MaxPool",
    "Mean",
    "Not",
    "Or",
    "PRelu",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
    "Round",
    "Selu",
    "Sign",
    "Sinh",
    "Size",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Sum",
    "Tan",
    "ThresholdedRelu",
    "Trilu",
    "Xor",
    "Where",
];

/// Graphs inside of nodes are loops and branches, whose time and memory nothing tells.
fn every_operator_is_known_to_do_no_harm(seen: &Seen) -> Result<()> {
    let unknown = |node: &&NodeProto| {
        let known = exec::has_rules(&node.op_type) || HARMLESS.contains(&node.op_type.as_str());
        !known || node.attribute.iter().any(|a| a.g.is_some())
    };
    let names: std::collections::BTreeSet<&str> =
        seen.graph.node.iter().filter(unknown).map(|n| n.op_type.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = names.into_iter().collect();
    Err(model_error(format!("the model uses operators that are not supported: {}", names.join(", "))))
}

/// Refuses windows that no network has: tract takes memory by their sizes.
fn windows_are_of_a_networks_size(seen: &Seen) -> Result<()> {
    const MOST: i64 = 1 << 10;
    let names = ["pads", "kernel_shape", "strides", "dilations", "output_padding", "output_shape"];
    for node in &seen.graph.node {
        let windows = node.attribute.iter().filter(|a| names.contains(&a.name.as_str()));
        for (name, size) in windows.flat_map(|a| a.ints.iter().map(|i| (&a.name, *i))) {
            if !(-MOST..=MOST).contains(&size) {
                let node = called(node);
                return Err(model_error(format!("the graph is malformed: {node} has {size} among its {name}")));
            }
        }
    }
    Ok(())
}

/// tract makes what it is asked for, be it a million times as much as there is.
fn what_makes_more_of_less_is_of_a_known_size(seen: &Seen) -> Result<()> {
    let growing = ["ConstantOfShape", "DepthToSpace", "Expand", "Gather", "Pad", "Range", "Resize", "Tile", "Upsample"];
    match seen.nodes(&growing).find(|node| node.output.iter().any(|name| seen.shapes.of(name).is_none())) {
        Some(node) => Err(refused(node, "the size of its result cannot be told before it is run")),
        None => Ok(()),
    }
}

/// The values that are live at one node, in the order of the file, are in memory together; the weights always are, and
/// tract has them two or three times while it loads.
fn all_values_that_are_needed_at_a_time_fit_the_budget(seen: &Seen) -> Result<()> {
    let bytes = |name: &str| 4 * seen.shapes.of(name).map_or(0, |dims| dims.iter().product::<usize>());
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (i, node) in seen.graph.node.iter().enumerate() {
        node.input.iter().chain(&node.output).for_each(|name| _ = last.insert(name, i));
    }
    let (mut live, mut most) = (0usize, 0usize);
    for (i, node) in seen.graph.node.iter().enumerate() {
        live = node.output.iter().fold(live, |live, name| live.saturating_add(bytes(name)));
        most = most.max(live);
        let made: HashSet<&str> = node.input.iter().chain(&node.output).map(String::as_str).collect();
        let gone = made.into_iter().filter(|name| last[name] == i);
        live = gone.fold(live, |live, name| live.saturating_sub(bytes(name)));
    }
    seen.budget.fits(most).map_err(|e| model_error(e).with_hint(Hint::MaxMemory))
}

/// tract finds out while it runs.
fn nothing_is_gathered_from_nothing(seen: &Seen) -> Result<()> {
    let empty = |node: &&NodeProto| seen.shape(node, 0).is_some_and(|dims| dims.contains(&0));
    match seen.nodes(&["Gather"]).find(empty) {
        Some(node) => Err(refused(node, "its table is empty")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
