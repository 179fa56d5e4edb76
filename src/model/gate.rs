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
    nothing_is_gathered_from_nothing,
    no_convolution_is_taken_from_a_constant,
    nothing_is_taken_modulo_but_by_a_constant,
    only_constant_padding_has_a_value,
    one_number_is_not_spread,
    resize_does_not_align_corners_by_fractions,
    slices_go_forward,
    no_transposed_convolution_is_given_its_output_shape,
    nothing_recurs_backward,
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

/// tract finds out while it runs.
fn nothing_is_gathered_from_nothing(seen: &Seen) -> Result<()> {
    let empty = |node: &&NodeProto| seen.shape(node, 0).is_some_and(|dims| dims.contains(&0));
    match seen.nodes(&["Gather"]).find(empty) {
        Some(node) => Err(refused(node, "its table is empty")),
        None => Ok(()),
    }
}

/// tract swaps the operands of a difference or a quotient of a constant for each channel and a convolution.
fn no_convolution_is_taken_from_a_constant(seen: &Seen) -> Result<()> {
    // what is a convolution, also after nodes that change nothing
    let mut convolved: HashSet<&str> = HashSet::new();
    for node in &seen.graph.node {
        let second = input(node, 1).is_some_and(|name| convolved.contains(name));
        let from_constant = input(node, 0).is_some_and(|name| seen.shapes.is_constant(name));
        match node.op_type.as_str() {
            "Sub" | "Div" if second && from_constant => {
                return Err(refused(node, "of a constant and a convolution, for which the engine gives wrong numbers"));
            }
            "Conv" | "ConvTranspose" => convolved.extend(node.output.iter().map(String::as_str)),
            "Identity" | "Dropout" | "Cast" if input(node, 0).is_some_and(|name| convolved.contains(name)) => {
                convolved.extend(node.output.iter().map(String::as_str));
            }
            _ => {}
        }
    }
    Ok(())
}

/// tract swaps the operands, too.
fn nothing_is_taken_modulo_but_by_a_constant(seen: &Seen) -> Result<()> {
    let by_value =
        |node: &&NodeProto| !seen.is_folded(node) && !input(node, 1).is_some_and(|name| seen.shapes.is_constant(name));
    match seen.nodes(&["Mod"]).find(by_value) {
        Some(node) => Err(refused(node, "by what is no constant, for which the engine gives wrong numbers")),
        None => Ok(()),
    }
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

/// tract takes one number that stands for many for one again, where a product sums over these.
fn one_number_is_not_spread(seen: &Seen) -> Result<()> {
    let wrong = |node: &&NodeProto| {
        let one = seen.shape(node, 0).is_some_and(|dims| dims.iter().all(|d| *d == 1));
        let many = seen.shapes.of(&node.output[0]).is_some_and(|dims| dims.iter().any(|d| *d > 1));
        one && many && !seen.is_folded(node)
    };
    match seen.nodes(&["Expand", "Tile"]).find(wrong) {
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

/// tract works out other pads than ONNX.
fn no_transposed_convolution_is_given_its_output_shape(seen: &Seen) -> Result<()> {
    match seen.nodes(&["ConvTranspose"]).find(|node| attribute(node, "output_shape").is_some()) {
        Some(node) => Err(refused(node, "an output_shape, for which the engine gives wrong numbers")),
        None => Ok(()),
    }
}

/// tract gives the results of such a layer in another order.
fn nothing_recurs_backward(seen: &Seen) -> Result<()> {
    let backward = |node: &&NodeProto| text(node, "direction").is_some_and(|direction| direction == "reverse");
    match seen.nodes(&["LSTM", "GRU", "RNN"]).find(backward) {
        Some(node) => Err(refused(node, "a layer that goes backward, for which the engine gives wrong numbers")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;
    use ::onnx::pb::TensorProto;
    use ::onnx::pb::tensor_proto::DataType;

    fn node(op_type: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op_type.into(),
            input: input.iter().map(|s| s.to_string()).collect(),
            output: vec![output.into()],
            ..Default::default()
        }
    }

    fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
        node.attribute.push(attribute);
        node
    }

    fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        AttributeProto { name: name.into(), ints: ints.to_vec(), ..Default::default() }
    }

    fn axis(i: i64) -> AttributeProto {
        AttributeProto { name: "axis".into(), i, ..Default::default() }
    }

    fn word(name: &str, text: &str) -> AttributeProto {
        AttributeProto { name: name.into(), s: text.as_bytes().to_vec(), ..Default::default() }
    }

    fn floats(name: &str, dims: &[i64]) -> TensorProto {
        let count = dims.iter().product::<i64>() as usize;
        let float_data = vec![1.5; count];
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            float_data,
            ..Default::default()
        }
    }

    fn list(name: &str, all: &[i64]) -> TensorProto {
        TensorProto {
            name: name.into(),
            dims: vec![all.len() as i64],
            data_type: DataType::Int64 as i32,
            int64_data: all.to_vec(),
            ..Default::default()
        }
    }

    /// What the gate says of a graph over `x [1, 4, 8, 8]`.
    fn said(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> String {
        let input = Input { name: "x".into(), role: Role::Sample, shape: vec![1, 4, 8, 8], element: DataType::Float };
        let graph = GraphProto { node, initializer, ..Default::default() };
        check(&graph, 17, &[input], &Budget::new(1 << 24)).map_or_else(|e| e.to_string(), |()| "nothing".into())
    }

    #[test]
    fn each_rule_refuses_what_it_is_for_and_nothing_beside_it() {
        let weights = || floats("w", &[4, 4, 3, 3]);
        let conv = || with(node("Conv", &["x", "w"], "a"), ints("dilations", &[2, 2]));
        let resize = |scale: f32, mode: &str| {
            let scales = TensorProto { float_data: vec![1.0, 1.0, scale, scale], ..floats("s", &[4]) };
            said(
                vec![with(node("Resize", &["x", "", "s"], "y"), word("coordinate_transformation_mode", mode))],
                vec![scales],
            )
        };
        let slice = |step: i64| {
            let lists = [list("f", &[6]), list("e", &[1]), list("ax", &[3]), list("st", &[step])];
            said(vec![node("Slice", &["x", "f", "e", "ax", "st"], "y")], lists.into())
        };
        let mean = || with(node("ReduceMean", &["x"], "m"), ints("axes", &[0, 1, 2, 3]));
        let cases = [
            (said((0..10_001).map(|i| node("Elu", &["x"], &i.to_string())).collect(), vec![]), "is too large"),
            (said(vec![node("Elu", &["x"], "y")], vec![]), "nothing"),
            (said(vec![node("Loop", &["x"], "y")], vec![]), "not supported: Loop"),
            (said(vec![with(conv(), ints("pads", &[1025; 4]))], vec![weights()]), "has 1025 among its pads"),
            (said(vec![node("Transpose", &["x"], "y")], vec![]), "nothing"),
            (said(vec![node("Elu", &["x"], "n"), node("Tile", &["x", "n"], "y")], vec![]), "cannot be told"),
            (said(vec![node("Tile", &["x", "l"], "y")], vec![list("l", &[1, 1, 100, 300])]), "takes more than"),
            (
                said(vec![conv(), node("Sub", &["b", "a"], "y")], vec![weights(), floats("b", &[4, 1, 1])]),
                "a convolution",
            ),
            (said(vec![conv(), node("Sub", &["a", "b"], "y")], vec![weights(), floats("b", &[4, 1, 1])]), "nothing"),
            (
                said(
                    vec![conv(), node("Identity", &["a"], "i"), node("Div", &["b", "i"], "y")],
                    vec![weights(), floats("b", &[4, 1, 1])],
                ),
                "a convolution",
            ),
            (said(vec![node("Gather", &["w", "x"], "y")], vec![floats("w", &[0, 4])]), "its table is empty"),
            (
                said(
                    vec![node("Clip", &["x", "", "b"], "a"), with(node("Gather", &["a", "l"], "y"), axis(1))],
                    vec![floats("b", &[]), list("l", &[-3, -2])],
                ),
                "nothing",
            ),
            (said(vec![node("Mod", &["b", "x"], "y")], vec![floats("b", &[1])]), "no constant"),
            (said(vec![node("Mod", &["x", "b"], "y")], vec![floats("b", &[1])]), "nothing"),
            (
                said(
                    vec![with(node("Pad", &["x", "p", "v"], "y"), word("mode", "edge"))],
                    vec![list("p", &[0, 0, 1, 1, 0, 0, 1, 1]), floats("v", &[])],
                ),
                "not constant has a value",
            ),
            (said(vec![mean(), node("Expand", &["m", "l"], "y")], vec![list("l", &[3, 1, 1, 1])]), "one number"),
            (said(vec![mean(), node("Tile", &["m", "l"], "y")], vec![list("l", &[3, 1, 1, 1])]), "one number"),
            (said(vec![node("Tile", &["x", "l"], "y")], vec![list("l", &[3, 1, 1, 1])]), "nothing"),
            (resize(1.3, "align_corners"), "corners aligned"),
            (resize(2.0, "align_corners"), "nothing"),
            (resize(1.3, "half_pixel"), "nothing"),
            (slice(-1), "goes backward"),
            (
                said(
                    vec![with(node("ConvTranspose", &["x", "w"], "y"), ints("output_shape", &[8, 8]))],
                    vec![weights()],
                ),
                "an output_shape",
            ),
            (
                said(vec![with(node("LSTM", &["x", "w", "w"], "y"), word("direction", "reverse"))], vec![weights()]),
                "backward",
            ),
        ];
        let wrong = cases.iter().enumerate().filter(|(_, (said, words))| !said.contains(words));
        let wrong: Vec<_> = wrong.map(|(i, (said, words))| format!("case {i}: {said:?}, not {words:?}")).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn values_of_one_time_are_summed() {
        // 64 values of 64 KiB each, all of which are needed until the end, do not fit; one after the other they do
        let tile = |i: usize| node("Tile", &["x", "l"], &format!("t{i}"));
        let twice = || list("l", &[64, 1, 1, 1]);
        let together: Vec<String> = (0..512).map(|i| format!("t{i}")).collect();
        let names: Vec<&str> = together.iter().map(String::as_str).collect();
        let all = with(node("Concat", &names, "y"), axis(0));
        let one_by_one = (0..512).flat_map(|i| [tile(i), node("Elu", &[&format!("t{i}")], &format!("e{i}"))]).collect();
        assert!(said((0..512).map(tile).chain([all]).collect(), vec![twice()]).contains("takes more than"));
        assert_eq!(said(one_by_one, vec![twice()]), "nothing");
    }
}
