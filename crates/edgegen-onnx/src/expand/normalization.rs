//! Normalization with what onnxruntime puts before it (a sum) or after it (an activation), in the forms in which exporters
//! write it.

use super::writer::{float, int};
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;

/// GroupNorm, SkipGroupNorm, SkipLayerNormalization, SkipSimplifiedLayerNormalization and SimplifiedLayerNormalization.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    if node.op_type.starts_with("Skip") && node.op_type.ends_with("LayerNormalization") {
        return skip_layer_norm(node, known).map(Some);
    }
    match node.op_type.as_str() {
        "GroupNorm" | "SkipGroupNorm" => group_norm(node, known).map(Some),
        _ => rms_norm(node).map(Some),
    }
}

/// What onnxruntime called by another name before ONNX had it.
fn rms_norm(node: &NodeProto) -> Result<Vec<NodeProto>> {
    if node.result(1).is_some() {
        return Err(unknown("its second result"));
    }
    Ok(vec![NodeProto { op_type: "RMSNormalization".into(), output: node.output[..1].to_vec(), ..node.clone() }])
}

/// The sum of the input, what skips a block, and a bias, and what is normalized of that.
fn skip_layer_norm(node: &NodeProto, known: &dyn Known) -> Result<Vec<NodeProto>> {
    if node.result(1).is_some() || node.result(2).is_some() {
        return Err(unknown("its mean or its variance as a result"));
    }
    let simplified = node.op_type == "SkipSimplifiedLayerNormalization";
    let mut w = Writer::new(node, known);
    let input = |i: usize| node.given(i).unwrap_or_default();
    let mut sum = w.op("Add", &[input(0), input(1)]);
    if let Some(bias) = node.given(if simplified { 3 } else { 4 }) {
        sum = w.op("Add", &[&sum, bias]);
    }
    let epsilon = node.float("epsilon").unwrap_or(1e-12);
    let result = if simplified {
        w.with("RMSNormalization", &[&sum, input(2)], vec![int("axis", -1), float("epsilon", epsilon)])
    } else {
        let beta = node.given(3);
        let inputs: Vec<&str> = [sum.as_str(), input(2)].into_iter().chain(beta).collect();
        w.with("LayerNormalization", &inputs, vec![int("axis", -1), float("epsilon", epsilon)])
    };
    Ok(w.finish(node, &[(3, sum), (0, result)]))
}

fn group_norm(node: &NodeProto, known: &dyn Known) -> Result<Vec<NodeProto>> {
    let last = node.int("channels_last").unwrap_or(1) == 1;
    let dims = shape(node, known, 0)?;
    let &[batch, .., at_end] = dims else { return Err("its input has no channels".into()) };
    if dims.len() != 4 {
        return Err(unknown("an input that is no image"));
    }
    let channels = if last { at_end } else { dims[1] };
    let groups = node.int("groups").and_then(|g| usize::try_from(g).ok()).unwrap_or(0);
    let activation = node.int("activation").unwrap_or(0);
    if groups == 0 || channels % groups != 0 || !(0..=1).contains(&activation) {
        return Err(format!("{groups} groups of {channels} channels, or activation {activation}, are not known"));
    }
    let mut w = Writer::new(node, known);
    let input = |i: usize| node.given(i).unwrap_or_default();
    let image = |w: &mut Writer, name: &str| if last { w.transpose(name, &[0, 3, 1, 2]) } else { name.to_string() };
    let back = |w: &mut Writer, name: &str| if last { w.transpose(name, &[0, 2, 3, 1]) } else { name.to_string() };
    let mut x = image(&mut w, input(0));
    let mut results = Vec::new();
    if node.op_type == "SkipGroupNorm" {
        let of_skip = shape(node, known, 3)?;
        let skip = match of_skip.len() {
            2 => w.reshape(input(3), &[batch, channels, 1, 1]),
            4 => image(&mut w, input(3)),
            _ => return Err(unknown("a skip of that shape")),
        };
        x = w.op("Add", &[&x, &skip]);
        if let Some(bias) = node.given(4) {
            let bias = w.reshape(bias, &[channels, 1, 1]);
            x = w.op("Add", &[&x, &bias]);
        }
        if node.result(1).is_some() {
            let sum = back(&mut w, &x);
            results.push((1, sum));
        }
    }
    let image_dims: Vec<usize> = if last { vec![batch, channels, dims[1], dims[2]] } else { dims.to_vec() };
    let per_group = image_dims.iter().skip(1).product::<usize>() / groups;
    let cut = w.reshape(&x, &[batch, groups, per_group]);
    let (one, zero) = (w.floats(&[groups], &vec![1.0; groups]), w.floats(&[groups], &vec![0.0; groups]));
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let unit = w.with("InstanceNormalization", &[&cut, &one, &zero], vec![float("epsilon", epsilon)]);
    let whole = w.reshape(&unit, &image_dims);
    let [gamma, beta] = [1, 2].map(|i| w.reshape(input(i), &[channels, 1, 1]));
    let scaled = w.op("Mul", &[&whole, &gamma]);
    let mut y = w.op("Add", &[&scaled, &beta]);
    if activation == 1 {
        y = w.swish(&y, 1.0);
    }
    let result = back(&mut w, &y);
    results.push((0, result));
    Ok(w.finish(node, &results))
}

/// A dimension, which may be counted from the end.
pub fn from_the_start(axis: i64, rank: usize) -> Result<usize> {
    let from_start = if axis < 0 { axis.saturating_add(i64::try_from(rank).unwrap_or(i64::MAX)) } else { axis };
    let found = usize::try_from(from_start).ok().filter(|axis| *axis < rank);
    found.ok_or_else(|| format!("there is no dimension {axis}"))
}
