//! Each rule refuses what it is for, and nothing beside it.

use super::*;
use crate::model::Role;
use ::onnx::pb::tensor_proto::DataType;
use ::onnx::pb::{self, AttributeProto, TensorProto};

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
    let cases = [
        (said((0..10_001).map(|i| node("Elu", &["x"], &i.to_string())).collect(), vec![]), "is too large"),
        (said(vec![node("Elu", &["x"], "y")], vec![]), "nothing"),
        (said(vec![node("Loop", &["x"], "y")], vec![]), "not supported: Loop"),
        (said(vec![with(conv(), ints("pads", &[1025; 4]))], vec![weights()]), "has 1025 among its pads"),
        (said(vec![node("Transpose", &["x"], "y")], vec![]), "nothing"),
        (said(vec![node("Elu", &["x"], "n"), node("Tile", &["x", "n"], "y")], vec![]), "cannot be told"),
        (said(vec![node("Tile", &["x", "l"], "y")], vec![list("l", &[1, 1, 100, 300])]), "takes more than"),
        (said(vec![conv(), node("Sub", &["a", "b"], "y")], vec![weights(), floats("b", &[4, 1, 1])]), "nothing"),
        (said(vec![node("Gather", &["w", "x"], "y")], vec![floats("w", &[0, 4])]), "its table is empty"),
        (
            said(
                vec![node("Clip", &["x", "", "b"], "a"), with(node("Gather", &["a", "l"], "y"), axis(1))],
                vec![floats("b", &[]), list("l", &[-3, -2])],
            ),
            "nothing",
        ),
    ];
    let wrong = cases.iter().enumerate().filter(|(_, (said, words))| !said.contains(words));
    let wrong: Vec<_> = wrong.map(|(i, (said, words))| format!("case {i}: {said:?}, not {words:?}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is said of the numbers of a node, the last one of these, in a graph over `x` of floats, `i` and `s` of integers.
/// Stored are `half`, `two` and `zero` of floats, `minus`, `one` and `three` of integers.
fn otherwise(opset: i64, node: Vec<NodeProto>) -> String {
    let of = |name: &str, dims: &[usize], element| Input {
        name: name.into(),
        role: Role::Condition,
        shape: dims.into(),
        element,
    };
    let inputs = [
        of("x", &[1, 4, 8, 8], DataType::Float),
        of("i", &[1, 4, 8, 8], DataType::Int64),
        of("s", &[1], DataType::Int64),
        of("r", &[4], DataType::Float),
    ];
    let info = |input: &Input| {
        let tensor = pb::type_proto::Tensor { elem_type: input.element as i32, shape: None };
        let value = Some(pb::type_proto::Value::TensorType(tensor));
        pb::ValueInfoProto { name: input.name.clone(), r#type: Some(pb::TypeProto { value }) }
    };
    let scales =
        |name: &str, scale: f32| TensorProto { float_data: vec![1.0, 1.0, scale, scale], ..floats(name, &[4]) };
    let graph = GraphProto {
        node,
        input: inputs.iter().map(info).collect(),
        initializer: vec![
            floats("w", &[4, 4, 3, 3]),
            scales("half", 1.5),
            scales("two", 2.0),
            TensorProto { float_data: vec![0.0; 4], ..floats("zero", &[4, 1, 1]) },
            list("minus", &[-1]),
            list("one", &[1]),
            list("three", &[3]),
            list("many", &[3, 1, 1, 1]),
        ],
        ..Default::default()
    };
    let budget = Budget::new(1 << 24);
    let said = Seen::of(&graph, opset, &inputs, &budget).and_then(|seen| numbers::are_as_onnx_says(&seen));
    said.map_or_else(|e| e.to_string(), |()| "nothing".into())
}

#[test]
fn what_gives_other_numbers_is_refused_and_nothing_beside_it() {
    let int = |name: &str, i: i64| AttributeProto { name: name.into(), i, ..Default::default() };
    let alpha = |f: f32| AttributeProto { name: "alpha".into(), f, ..Default::default() };
    let corners = |word: &str| self::word("coordinate_transformation_mode", word);
    let resize = |inputs: &[&str], mode: &str| with(node("Resize", inputs, "y"), corners(mode));
    let slice = |steps: &str| node("Slice", &["x", "three", "one", "three", steps], "y");
    let conv = || node("Conv", &["x", "w"], "a");
    let mean = || with(node("ReduceMean", &["x"], "m"), ints("axes", &[0, 1, 2, 3]));
    let dropout = || NodeProto { output: vec!["y".into(), "mask".into()], ..node("Dropout", &["x"], "y") };
    let cast = |from: &str| with(node("Cast", &[from], "y"), int("to", DataType::Uint8 as i64));
    let fmod = |inputs: &[&str]| with(node("Mod", inputs, "y"), int("fmod", 1));
    let lstm = |direction: &str| with(node("LSTM", &["x", "w", "w"], "y"), word("direction", direction));
    let cases: Vec<(i64, Vec<NodeProto>, &str)> = vec![
        (13, vec![cast("x")], "out of the range"),
        (13, vec![cast("i")], "nothing"),
        (13, vec![with(node("ConvTranspose", &["x", "w"], "y"), ints("output_shape", &[8, 8]))], "an output_shape"),
        (13, vec![dropout(), node("Not", &["mask"], "z")], "its mask"),
        (13, vec![dropout()], "nothing"),
        (13, vec![mean(), node("Expand", &["m", "many"], "y")], "one number"),
        (13, vec![mean(), node("Tile", &["m", "many"], "y")], "one number"),
        (13, vec![node("Tile", &["x", "many"], "y")], "nothing"),
        (13, vec![lstm("reverse")], "backward"),
        (13, vec![lstm("forward")], "nothing"),
        (13, vec![node("LogSoftmax", &["x"], "y")], "far from each other"),
        (13, vec![node("Mod", &["i", "minus"], "y")], "may be negative"),
        (13, vec![node("Mod", &["i", "s"], "y")], "may be negative"),
        (13, vec![node("Mod", &["i", "three"], "y")], "nothing"),
        (13, vec![fmod(&["i", "minus"])], "nothing"),
        (13, vec![fmod(&["three", "i"])], "no constant"),
        (13, vec![node("Mul", &["zero", "x"], "y")], "a stored zero"),
        (13, vec![node("Mul", &["x", "two"], "y")], "nothing"),
        (21, vec![with(node("QuantizeLinear", &["x", "half"], "y"), int("output_dtype", 3))], "output_dtype"),
        (10, vec![node("Resize", &["x", "r"], "y")], "below 1 in opset 10"),
        (10, vec![node("Resize", &["x", "half"], "y")], "nothing"),
        (13, vec![resize(&["x", "", "half"], "align_corners")], "not whole"),
        (13, vec![resize(&["x", "", "two"], "align_corners")], "nothing"),
        (13, vec![resize(&["x", "", "half"], "half_pixel")], "nothing"),
        (13, vec![resize(&["x", "", "half"], "tf_crop_and_resize")], "region"),
        (13, vec![conv(), slice("three")], "in a graph with convolutions"),
        (13, vec![conv(), slice("one")], "nothing"),
        (13, vec![slice("minus")], "go backward"),
        (24, vec![with(node("Swish", &["x"], "y"), alpha(1.5))], "alpha other than 1"),
        (24, vec![with(node("Swish", &["x"], "y"), alpha(1.0))], "nothing"),
    ];
    let said = cases.iter().map(|(opset, nodes, words)| (otherwise(*opset, nodes.clone()), words));
    let wrong = said.enumerate().filter(|(_, (said, words))| !said.contains(*words));
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
