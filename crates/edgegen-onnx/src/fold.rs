//! Folding an int8 (QDQ) graph to float before it is loaded.
//!
//! In a QDQ file every quantized activation passes through QuantizeLinear and DequantizeLinear. tract 0.23
//! runs such pairs around float kernels, which costs more than it saves, and where several meet it does not
//! give what they say (0.06 off on the shipped network, where onnxruntime is 0.01 off its float form). With
//! the pairs gone, the weights are dequantized once at load and the float kernels run alone; where the
//! rounding itself is wanted, each pair becomes plain float operators that round alike.

use crate::pb::tensor_proto::DataType;
use crate::pb::{GraphProto, NodeProto, TensorProto};
use std::collections::{HashMap, HashSet};

/// Removes every QuantizeLinear → DequantizeLinear pair on an activation, and returns how many there were.
/// DequantizeLinear on stored weights stays: it is a constant, folded at load.
pub fn drop_activation_quantization(graph: &mut GraphProto) -> usize {
    keep_bounds(graph, |_, _| true);
    drop_pairs(graph, |_, _| true)
}

/// The same, and of the pairs that make the graph's outputs too: what they round is called as the output is.
pub fn drop_all_quantization(graph: &mut GraphProto) -> usize {
    let dropped = drop_activation_quantization(graph);
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let made: HashSet<String> = graph.node.iter().flat_map(|n| n.output.iter().cloned()).collect();
    let rounded: HashMap<String, String> = graph
        .node
        .iter()
        .filter(|n| n.op_type == "QuantizeLinear")
        .filter_map(|n| Some((n.output.first()?.clone(), n.given(0)?.to_string())))
        // what no node makes, and what is an output itself, keeps its name
        .filter(|(_, from)| made.contains(from) && !outputs.contains(from))
        .collect();
    // by what is rounded: what it is called from now on
    let mut called: HashMap<String, String> = HashMap::new();
    for node in graph.node.iter().filter(|n| n.op_type == "DequantizeLinear") {
        let Some((output, from)) = node.output.first().zip(node.given(0).and_then(|q| rounded.get(q))) else {
            continue;
        };
        if outputs.contains(output) {
            called.entry(from.clone()).or_insert_with(|| output.clone());
        }
    }
    let renamed: HashSet<String> = called.values().cloned().collect();
    graph.node.retain(|n| n.op_type != "DequantizeLinear" || !n.output.iter().any(|o| renamed.contains(o)));
    for name in graph.node.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)) {
        if let Some(output) = called.get(name) {
            *name = output.clone();
        }
    }
    drop_unread_levels(graph);
    dropped + called.len()
}

/// The same as [`drop_activation_quantization`], but for what a convolution made or reads in 8 bits, and what is multiplied so
/// with a stored 8-bit matrix. Of pairs of 16 bits the bounds stay: their steps are finer than anything that is computed here,
/// but what lies beyond is cut off. So do those of 8 bits that begin at 0, which stand for a ReLU that quantizers take out.
pub fn drop_quantization_but_of_weighted(graph: &mut GraphProto) -> usize {
    let first = |names: &[String]| names.first().cloned();
    let is = |node: &&NodeProto, op: &str| node.op_type == op;
    let made: HashSet<String> = graph.node.iter().filter(|n| is(n, "Conv")).flat_map(|n| first(&n.output)).collect();
    let stored: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let weights: HashSet<&str> = graph
        .node
        .iter()
        .filter(|n| is(n, "DequantizeLinear") && n.input.first().is_some_and(|i| stored.contains(i.as_str())))
        .filter_map(|n| n.output.first().map(String::as_str))
        .collect();
    let weighted = |n: &&NodeProto| n.input.get(1).is_some_and(|w| weights.contains(w.as_str()));
    let read: HashSet<String> = graph
        .node
        .iter()
        .filter(|n| is(n, "Conv") || ((is(n, "MatMul") || is(n, "Gemm")) && weighted(n)))
        .flat_map(|n| first(&n.input))
        .collect();
    let unwanted = |from: &str, to: &str| !made.contains(from) && !read.contains(to);
    keep_bounds(graph, unwanted);
    drop_pairs(graph, unwanted)
}

/// Operators whose results are never below 0.
const NEVER_NEGATIVE: [&str; 9] =
    ["Abs", "Exp", "HardSigmoid", "ReduceL1", "ReduceL2", "Relu", "Sigmoid", "Softmax", "Softplus"];

/// Nodes that only move numbers about.
const MOVES: [&str; 6] = ["Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"];

/// How many of those are looked through.
const MOST_MOVES: usize = 16;

/// Replaces each pair of 16 bits with a single scale by the bounds of its levels, and each unwanted one of 8 bits whose levels
/// begin at 0 where what is rounded does not.
fn keep_bounds(graph: &mut GraphProto, unwanted: impl Fn(&str, &str) -> bool) {
    let made: HashMap<&str, &NodeProto> =
        graph.node.iter().flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n))).collect();
    let may_be_negative = |name: &str| {
        let (mut at, mut left) = (name, MOST_MOVES);
        loop {
            match made.get(at) {
                Some(node) if MOVES.contains(&node.op_type.as_str()) && left > 0 => {
                    (at, left) = (node.given(0).unwrap_or_default(), left - 1);
                }
                Some(node) => break !NEVER_NEGATIVE.contains(&node.op_type.as_str()),
                None => break true,
            }
        }
    };
    let stored: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    // by the quantized value: the value, and the bounds
    let bounds = |n: &NodeProto| {
        let scale = stored.get(n.given(1)?).filter(|scale| scale.dims.iter().all(|d| *d == 1))?;
        let scale =
            scale.float_data.first().copied().or_else(|| Some(f32::from_le_bytes(*scale.raw_data.first_chunk()?)))?;
        // without a zero point they are bytes from 0
        let levels = n.given(2).map_or(Some([0.0, 255.0]), |zero| levels_around_zero(stored.get(zero)?))?;
        let wide = levels[1] - levels[0] > 255.0;
        let from = n.given(0)?;
        let kept = wide || (levels[0] == 0.0 && may_be_negative(from));
        kept.then(|| Some((n.output.first()?.clone(), (from.to_string(), levels.map(|level| level * scale), wide))))?
    };
    let quantize = graph.node.iter().filter(|n| n.op_type == "QuantizeLinear");
    let wide: HashMap<String, (String, [f32; 2], bool)> = quantize.filter_map(bounds).collect();
    if wide.is_empty() {
        return;
    }
    let mut within: HashMap<String, [f32; 2]> = HashMap::new();
    for node in &mut graph.node {
        let Some(to) = node.output.first().cloned() else { continue };
        let found = node.input.first().and_then(|q| wide.get(q)).filter(|_| node.op_type == "DequantizeLinear");
        let Some((from, bounds, _)) = found.filter(|(from, _, wide)| *wide || unwanted(from, &to)) else {
            if let Some(bounds) = node.input.first().and_then(|x| within.get(x)).copied()
                && MOVES.contains(&node.op_type.as_str())
            {
                within.insert(to, bounds);
            }
            continue;
        };
        node.attribute.clear();
        if within.get(from) == Some(bounds) {
            (node.op_type, node.input) = ("Identity".into(), vec![from.clone()]);
        } else {
            let names = ["least", "greatest"].map(|part| format!("{to}/{part}"));
            for (name, value) in names.iter().zip(bounds) {
                let raw_data = value.to_le_bytes().to_vec().into();
                let data_type = DataType::Float as i32;
                graph.initializer.push(TensorProto { name: name.clone(), data_type, raw_data, ..Default::default() });
            }
            let [least, greatest] = names;
            (node.op_type, node.input) = ("Clip".into(), vec![from.clone(), least, greatest]);
        }
        within.insert(to, *bounds);
    }
    drop_unread_levels(graph);
}

/// Removes the pairs that `unwanted` says, by the name of the tensor before and the one after.
fn drop_pairs(graph: &mut GraphProto, unwanted: impl Fn(&str, &str) -> bool) -> usize {
    let is = |node: &NodeProto, op: &str| node.op_type == op && !node.input.is_empty() && node.output.len() == 1;
    let quantized: HashMap<String, String> = graph
        .node
        .iter()
        .filter(|n| is(n, "QuantizeLinear"))
        .map(|n| (n.output[0].clone(), n.input[0].clone()))
        .collect();
    // What each dropped DequantizeLinear's output is instead.
    let mut instead: HashMap<String, String> = graph
        .node
        .iter()
        .filter(|n| is(n, "DequantizeLinear"))
        .filter_map(|n| Some((n.output[0].clone(), quantized.get(&n.input[0])?.clone())))
        .filter(|(to, from)| unwanted(from, to))
        .collect();
    // A graph output keeps its name, so the pair that makes it stays.
    for output in &graph.output {
        instead.remove(&output.name);
    }
    // A pair may feed a pair: the float tensor at the head of the chain stands for all of it.
    let mut heads: HashMap<&str, &str> = HashMap::new();
    for name in instead.keys() {
        let (mut at, mut chain) = (name.as_str(), HashSet::new());
        // (in a damaged file a chain may lead back into itself)
        while let Some(next) = instead.get(at).filter(|_| !heads.contains_key(at) && chain.insert(at)) {
            at = next;
        }
        let head = heads.get(at).copied().unwrap_or(at);
        heads.extend(chain.into_iter().map(|name| (name, head)));
    }
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(head) = heads.get(input.as_str()) {
            *input = head.to_string();
        }
    }
    graph.node.retain(|n| !n.output.iter().any(|o| instead.contains_key(o)));
    drop_unread_levels(graph);
    instead.len()
}

/// Removes each QuantizeLinear whose result nothing reads.
fn drop_unread_levels(graph: &mut GraphProto) {
    let read: HashSet<String> = graph.node.iter().flat_map(|n| n.input.iter().cloned()).collect();
    let outputs: HashSet<&String> = graph.output.iter().map(|o| &o.name).collect();
    graph
        .node
        .retain(|n| n.op_type != "QuantizeLinear" || n.output.iter().any(|o| read.contains(o) || outputs.contains(o)));
}

/// Rewrites every QuantizeLinear → DequantizeLinear pair on an activation with a single scale as float operators
/// of the same values: `clip(round(x / scale), least - zero, greatest - zero) · scale`.
pub fn round_activations_in_float(graph: &mut GraphProto) {
    round_in_float(graph, |_| true);
}

/// The same of those of 16 bits alone.
pub fn round_16_bits_in_float(graph: &mut GraphProto) {
    round_in_float(graph, |levels| levels[1] - levels[0] > 255.0);
}

fn round_in_float(graph: &mut GraphProto, wanted: impl Fn([f32; 2]) -> bool) {
    let stored: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    // by the quantized tensor's name: the least and the greatest level, less the zero point
    let levels: HashMap<String, [f32; 2]> = graph
        .node
        .iter()
        .filter(|n| n.op_type == "QuantizeLinear")
        .filter_map(|n| {
            stored.get(n.input.get(1)?.as_str()).filter(|scale| scale.dims.iter().all(|d| *d == 1))?;
            let levels = levels_around_zero(stored.get(n.input.get(2)?.as_str())?).filter(|levels| wanted(*levels))?;
            Some((n.output.first()?.clone(), levels))
        })
        .collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let made = |op: &str, input: &[&str], output: &str| NodeProto {
            op_type: op.into(),
            name: output.into(),
            input: input.iter().map(|s| s.to_string()).collect(),
            output: vec![output.into()],
            ..Default::default()
        };
        match node.op_type.as_str() {
            "QuantizeLinear" if node.output.first().is_some_and(|q| levels.contains_key(q)) => {
                let out = &node.output[0];
                let [divided, rounded, least, greatest] =
                    ["divided", "rounded", "least", "greatest"].map(|part| format!("{out}/{part}"));
                for (name, value) in [&least, &greatest].into_iter().zip(levels[out]) {
                    graph.initializer.push(TensorProto {
                        name: name.clone(),
                        data_type: DataType::Float as i32,
                        raw_data: value.to_le_bytes().to_vec().into(),
                        ..Default::default()
                    });
                }
                nodes.push(made("Div", &[&node.input[0], &node.input[1]], &divided));
                nodes.push(made("Round", &[&divided], &rounded));
                // not Clip, whose form depends on the opset
                let above = format!("{out}/above");
                nodes.push(made("Max", &[&rounded, &least], &above));
                nodes.push(made("Min", &[&above, &greatest], out));
            }
            "DequantizeLinear"
                if node.input.len() > 1 && !node.output.is_empty() && levels.contains_key(&node.input[0]) =>
            {
                nodes.push(made("Mul", &[&node.input[0], &node.input[1]], &node.output[0]));
            }
            _ => nodes.push(node),
        }
    }
    graph.node = nodes;
}

/// The least and the greatest level of 8 or 16 bits, less the zero point.
fn levels_around_zero(zero: &TensorProto) -> Option<[f32; 2]> {
    let kind = DataType::try_from(zero.data_type).ok()?;
    let wide = matches!(kind, DataType::Uint16 | DataType::Int16);
    let raw = match (zero.raw_data.as_ref(), wide) {
        ([], _) => *zero.int32_data.first()? as u16,
        ([low, high, ..], true) => u16::from_le_bytes([*low, *high]),
        ([low, ..], _) => u16::from(*low),
    };
    let (levels, zero) = match kind {
        DataType::Uint8 => ([0.0, 255.0], f32::from(raw as u8)),
        DataType::Int8 => ([-128.0, 127.0], f32::from(raw as i8)),
        DataType::Uint16 => ([0.0, 65535.0], f32::from(raw)),
        DataType::Int16 => ([-32768.0, 32767.0], f32::from(raw as i16)),
        _ => return None,
    };
    Some(levels.map(|level| level - zero))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::ValueInfoProto;

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.into(),
            input: input.iter().map(|s| s.to_string()).collect(),
            output: vec![output.into()],
            ..Default::default()
        }
    }

    #[test]
    fn pairs_on_activations_go_and_weights_stay() {
        let mut graph = GraphProto {
            node: vec![
                node("QuantizeLinear", &["x", "s", "z"], "xq"),
                node("DequantizeLinear", &["xq", "s", "z"], "xd"),
                node("DequantizeLinear", &["wq", "ws"], "w"),
                node("Conv", &["xd", "w"], "y"),
                node("QuantizeLinear", &["y", "s", "z"], "yq"),
                node("DequantizeLinear", &["yq", "s", "z"], "out"),
            ],
            output: vec![ValueInfoProto { name: "out".into(), ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(drop_activation_quantization(&mut graph), 1);
        let left: Vec<(&str, &str)> = graph.node.iter().map(|n| (n.op_type.as_str(), n.input[0].as_str())).collect();
        assert_eq!(
            left,
            [("DequantizeLinear", "wq"), ("Conv", "x"), ("QuantizeLinear", "y"), ("DequantizeLinear", "yq")]
        );
    }

    #[test]
    fn the_pair_that_makes_the_output_goes_with_the_others() {
        let rounding = || {
            vec![
                node("Conv", &["x", "w"], "y"),
                node("Relu", &["y"], "z"),
                node("QuantizeLinear", &["y", "s"], "yq"),
                node("DequantizeLinear", &["yq", "s"], "out"),
            ]
        };
        let output = |name: &str| ValueInfoProto { name: name.into(), ..Default::default() };
        let mut graph = GraphProto { node: rounding(), output: vec![output("out"), output("z")], ..Default::default() };
        assert_eq!(drop_all_quantization(&mut graph), 1);
        let left: Vec<(&str, &str)> = graph.node.iter().map(|n| (n.input[0].as_str(), n.output[0].as_str())).collect();
        assert_eq!(left, [("x", "out"), ("out", "z")]);
        // of an input, or of another output, the rounding stays
        for outputs in [vec![output("out"), output("y")], vec![output("out")]] {
            let node = if outputs.len() == 1 { rounding().split_off(2) } else { rounding() };
            let mut graph = GraphProto { node, output: outputs, ..Default::default() };
            let before = graph.node.len();
            assert_eq!((drop_all_quantization(&mut graph), graph.node.len()), (0, before));
        }
    }

    #[test]
    fn pairs_that_feed_pairs_go_in_linear_time() {
        const PAIRS: usize = 100_000;
        let name = |i: usize| if i == 0 { "x".to_string() } else { i.to_string() };
        let pair = |i: usize| {
            let q = format!("q{i}");
            [node("QuantizeLinear", &[&name(i), "s"], &q), node("DequantizeLinear", &[&q, "s"], &name(i + 1))]
        };
        // in an order that follows the chain from its end
        let mut all: Vec<NodeProto> = (0..PAIRS).rev().flat_map(pair).collect();
        all.push(node("Conv", &[&name(PAIRS)], "out"));
        let mut graph = GraphProto { node: all, ..Default::default() };
        assert_eq!(drop_activation_quantization(&mut graph), PAIRS);
        assert_eq!((graph.node.len(), graph.node[0].input[0].as_str()), (1, "x"));
        // a chain without a head
        let [a, b] = [node("QuantizeLinear", &["y", "s"], "q"), node("DequantizeLinear", &["q", "s"], "y")];
        let mut graph = GraphProto { node: vec![a, b], ..Default::default() };
        drop_activation_quantization(&mut graph);
    }

    #[test]
    fn rounding_in_float_keeps_the_levels() {
        let zero = TensorProto {
            name: "z".into(),
            data_type: DataType::Uint8 as i32,
            raw_data: vec![100].into(),
            ..Default::default()
        };
        let scale = TensorProto { name: "s".into(), data_type: DataType::Float as i32, ..Default::default() };
        let mut graph = GraphProto {
            node: vec![
                node("QuantizeLinear", &["x", "s", "z"], "q"),
                node("DequantizeLinear", &["q", "s", "z"], "d"),
                node("DequantizeLinear", &["wq", "s", "z"], "w"),
            ],
            initializer: vec![zero, scale],
            ..Default::default()
        };
        round_activations_in_float(&mut graph);
        let ops: Vec<&str> = graph.node.iter().map(|n| n.op_type.as_str()).collect();
        assert_eq!(ops, ["Div", "Round", "Max", "Min", "Mul", "DequantizeLinear"]);
        let bounds: Vec<f32> = graph.initializer[2..]
            .iter()
            .map(|t| f32::from_le_bytes(t.raw_data.as_ref().try_into().unwrap()))
            .collect();
        assert_eq!(bounds, [-100.0, 155.0]);
    }
}
