//! Convolutions of images whose channels come last, and convolutions with what follows them in one node.

use super::writer::{float, stored};
use super::{Known, Writer, unknown};
use crate::Result;
use crate::pb::tensor_proto::DataType;
use crate::pb::{AttributeProto, NodeProto};

/// NhwcConv and FusedConv.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let mut w = Writer::new(node, known);
    let input = |i: usize| node.given(i).unwrap_or_default();
    let attributes = of_convolution(node);
    if node.op_type == "NhwcConv" {
        // the weights lie as the image does, its channels last
        let (x, weights) = (w.transpose(input(0), &[0, 3, 1, 2]), w.transpose(input(1), &[0, 3, 1, 2]));
        let inputs: Vec<&str> = [x.as_str(), &weights].into_iter().chain(node.given(2)).collect();
        let y = w.with("Conv", &inputs, attributes);
        let result = w.transpose(&y, &[0, 2, 3, 1]);
        return Ok(Some(w.finish_one(node, result)));
    }
    let inputs: Vec<&str> = [input(0), input(1)].into_iter().chain(node.given(2)).collect();
    let mut y = w.with("Conv", &inputs, attributes);
    if let Some(sum) = node.given(3) {
        y = w.op("Add", &[&y, sum]);
    }
    let parameters = node.attribute("activation_params").map(|a| a.floats.clone()).unwrap_or_default();
    let result = activated(&mut w, node, known, y, &parameters)?;
    Ok(Some(w.finish_one(node, result)))
}

/// The attributes that a Conv has.
pub fn of_convolution(node: &NodeProto) -> Vec<AttributeProto> {
    let kept = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    node.attribute.iter().filter(|a| kept.contains(&a.name.as_str())).cloned().collect()
}

/// The activation that a node names, if it names one, of what it makes without.
pub fn activated(w: &mut Writer, node: &NodeProto, known: &dyn Known, x: String, parameters: &[f32]) -> Result<String> {
    let name = node.text("activation").unwrap_or_default();
    let expected = match name {
        "LeakyRelu" => 1,
        "Clip" | "HardSigmoid" => 2,
        _ => 0,
    };
    if parameters.len() < expected {
        return Err(format!("the activation {name} takes {expected} parameters"));
    }
    Ok(match name {
        "" => x,
        "Relu" | "Tanh" | "Sigmoid" => w.op(name, &[&x]),
        "LeakyRelu" => w.with(name, &[&x], vec![float("alpha", parameters[0])]),
        "HardSigmoid" => w.with(name, &[&x], vec![float("alpha", parameters[0]), float("beta", parameters[1])]),
        "Clip" if known.opset() < 11 => {
            w.with(name, &[&x], vec![float("min", parameters[0]), float("max", parameters[1])])
        }
        "Clip" => {
            let bound = |v: f32| stored(&[], DataType::Float, v.to_le_bytes().to_vec());
            let [least, greatest] = [parameters[0], parameters[1]].map(|v| w.tensor(bound(v)));
            w.op(name, &[&x, &least, &greatest])
        }
        _ => return Err(unknown("its activation")),
    })
}
