//! What is not sent to tract.
//!
//! tract 0.23.9 runs what a plan does not cover, and trusts the graphs that it gets: a few numbers of an attribute can make
//! it take all memory or never end, and some graphs give other numbers than ONNX says. So a graph goes there only if no
//! rule of this file speaks against it. A rule is a function; what it knows of a graph is in [`Seen`].

use super::input::Input;
use crate::error::{Hint, model_error};
use crate::{Error, Result};
use ::onnx::budget::Budget;
use ::onnx::pb::{AttributeProto, GraphProto, NodeProto};
use exec::{GraphInput, Shapes};
use std::collections::{HashMap, HashSet};

/// The rules. Those on the form of a graph come first: later ones may rely on it.
const RULES: &[fn(&Seen) -> Result<()>] = &[
    the_graph_is_not_too_large,
    every_operator_is_known_to_do_no_harm,
    windows_are_of_a_networks_size,
    what_makes_more_of_less_is_of_a_known_size,
    all_values_that_are_needed_at_a_time_fit_the_budget,
    nothing_is_taken_from_a_constant_after_a_dilated_convolution,
    only_constant_padding_has_a_value,
    one_number_is_not_spread_by_expand,
    resize_does_not_align_corners_by_fractions,
    slices_go_forward,
];

/// A graph, and what is known of its values.
struct Seen<'a> {
    graph: &'a GraphProto,
    shapes: Shapes<'a>,
    budget: &'a Budget,
}

/// Refuses a graph that tract is not to get.
///
/// # Errors
/// What in it speaks against it.
pub(super) fn check(graph: &GraphProto, opset: i64, inputs: &[Input], budget: &Budget) -> Result<()> {
    let shaped: Vec<GraphInput> =
        inputs.iter().map(|i| GraphInput { name: &i.name, dims: i.shape.clone(), integer: i.is_whole() }).collect();
    let shapes = Shapes::new(graph, opset, &shaped, budget).map_err(|reason| match reason {
        exec::Reason::TooLarge(_) => model_error(reason.to_string()).with_hint(Hint::MaxMemory),
        _ => model_error(format!("the graph is malformed: {reason}")),
    })?;
    let seen = Seen { graph, shapes, budget };
    RULES.iter().try_for_each(|rule| rule(&seen))
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// A text attribute.
fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    attribute(node, name).and_then(|a| std::str::from_utf8(&a.s).ok())
}

fn input(node: &NodeProto, i: usize) -> Option<&str> {
    node.input.get(i).map(String::as_str).filter(|name| !name.is_empty())
}

impl<'a> Seen<'a> {
    fn nodes(&self, op_types: &'a [&'a str]) -> impl Iterator<Item = &'a NodeProto> {
        self.graph.node.iter().filter(|n| op_types.contains(&n.op_type.as_str()))
    }

    /// The shape of a node's input.
    fn shape(&self, node: &NodeProto, i: usize) -> Option<&[usize]> {
        self.shapes.of(input(node, i)?)
    }

    /// Whether a node's results are worked out by now.
    fn is_folded(&self, node: &NodeProto) -> bool {
        node.output.iter().all(|name| self.shapes.is_constant(name))
    }
}

fn refused(node: &NodeProto, what: &str) -> Error {
    model_error(format!("{} {}: {what}", node.op_type, node.name))
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
    "Celu",
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
    "LogSoftmax",
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
                let (op, node) = (&node.op_type, &node.name);
                return Err(model_error(format!("the graph is malformed: {op} {node} has {size} among its {name}")));
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

/// tract swaps the operands of a difference or a quotient that follows a dilated convolution.
fn nothing_is_taken_from_a_constant_after_a_dilated_convolution(seen: &Seen) -> Result<()> {
    let dilated = |node: &NodeProto| {
        matches!(node.op_type.as_str(), "Conv" | "ConvTranspose")
            && attribute(node, "dilations").is_some_and(|a| a.ints.iter().any(|d| *d != 1))
    };
    let swapped = ["Sub", "Div", "Pow", "Mod", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "PRelu", "Where"];
    let mut after: HashSet<&str> = HashSet::new();
    for node in &seen.graph.node {
        let follows = node.input.iter().any(|name| after.contains(name.as_str()));
        let from_constant = input(node, 0).is_some_and(|name| seen.shapes.is_constant(name));
        if follows && from_constant && swapped.contains(&node.op_type.as_str()) {
            return Err(refused(
                node,
                "it comes after a dilated convolution, where the engine for it gives wrong numbers",
            ));
        }
        if follows || dilated(node) {
            after.extend(node.output.iter().map(String::as_str));
        }
    }
    Ok(())
}

/// tract takes the value, which only constant padding has, for something else.
fn only_constant_padding_has_a_value(seen: &Seen) -> Result<()> {
    let wrong =
        |node: &&NodeProto| text(node, "mode").is_some_and(|mode| mode != "constant") && input(node, 2).is_some();
    match seen.nodes(&["Pad"]).find(wrong) {
        Some(node) => {
            Err(refused(node, "padding that is not constant has a value, for which the engine gives wrong numbers"))
        }
        None => Ok(()),
    }
}

/// tract leaves it as one number.
fn one_number_is_not_spread_by_expand(seen: &Seen) -> Result<()> {
    let wrong = |node: &&NodeProto| {
        let one = seen.shape(node, 0).is_some_and(|dims| dims.iter().all(|d| *d == 1));
        let many = seen.shapes.of(&node.output[0]).is_some_and(|dims| dims.iter().any(|d| *d > 1));
        one && many && !seen.is_folded(node)
    };
    match seen.nodes(&["Expand"]).find(wrong) {
        Some(node) => Err(refused(node, "one number spread over many, for which the engine gives wrong numbers")),
        None => Ok(()),
    }
}

/// tract rounds the sizes of the result otherwise than ONNX.
fn resize_does_not_align_corners_by_fractions(seen: &Seen) -> Result<()> {
    let wrong = |node: &&NodeProto| {
        let fractions = seen.shapes.floats(node, 2).is_some_and(|scales| scales.iter().any(|s| s.fract() != 0.0));
        text(node, "coordinate_transformation_mode") == Some("align_corners") && fractions
    };
    match seen.nodes(&["Resize"]).find(wrong) {
        Some(node) => {
            Err(refused(node, "corners aligned by fractional scales, for which the engine gives wrong numbers"))
        }
        None => Ok(()),
    }
}

/// tract reads a slice that goes backward wrongly.
fn slices_go_forward(seen: &Seen) -> Result<()> {
    let backward = |node: &&NodeProto| {
        !seen.is_folded(node)
            && input(node, 4).is_some()
            && seen.shapes.integers(node, 4).is_none_or(|s| s.iter().any(|s| *s < 0))
    };
    match seen.nodes(&["Slice"]).find(backward) {
        Some(node) => Err(refused(node, "a slice that goes backward, for which the engine gives wrong numbers")),
        None => Ok(()),
    }
}
