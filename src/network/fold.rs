//! Folding an int8 (QDQ) graph to float before it is loaded.
//!
//! In a QDQ file every quantized activation passes through QuantizeLinear and DequantizeLinear. Stock
//! tract runs that pair as it stands, around float kernels, which costs more than it saves; with the
//! pairs gone, the weights are dequantized once at load and the float kernels run alone.

use std::collections::HashMap;
use tract_onnx::pb::{GraphProto, NodeProto};

/// Removes every QuantizeLinear → DequantizeLinear pair on an activation, and returns how many there were.
/// DequantizeLinear on stored weights stays: it is a constant, folded at load.
pub(super) fn drop_activation_quantization(graph: &mut GraphProto) -> usize {
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
        .collect();
    // A graph output keeps its name, so the pair that makes it stays.
    for output in &graph.output {
        instead.remove(&output.name);
    }
    // A pair may feed a pair: follow the chain to the float tensor at its head.
    let head = |name: &str| {
        let mut name = name;
        for _ in 0..instead.len() {
            match instead.get(name) {
                Some(next) => name = next,
                None => break,
            }
        }
        name.to_string()
    };
    for node in &mut graph.node {
        for input in &mut node.input {
            if instead.contains_key(input.as_str()) {
                *input = head(input);
            }
        }
    }
    graph.node.retain(|n| !n.output.iter().any(|o| instead.contains_key(o)));
    // A QuantizeLinear that nothing reads any more goes too.
    let read: std::collections::HashSet<String> = graph.node.iter().flat_map(|n| n.input.iter().cloned()).collect();
    let outputs: Vec<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    graph
        .node
        .retain(|n| n.op_type != "QuantizeLinear" || n.output.iter().any(|o| read.contains(o) || outputs.contains(o)));
    instead.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::ValueInfoProto;

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
}
