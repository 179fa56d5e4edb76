//! Convolutions and pools over channels in blocks, as onnxruntime writes for one kind of CPU: a pixel's channels lie in
//! blocks of 8 or of 16, padded with zeros to whole ones, and so do the weights that a file stores.
//!
//! Here images have all of the padded channels, in the usual order; what leaves the blocks is cut to its real channels.

use super::convolution::{activated, of_convolution};
use super::writer::{int, stored, text};
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;
use crate::pb::tensor_proto::DataType;

/// The operators of the domain `com.microsoft.nchwc`.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let mut w = Writer::new(node, known);
    let x = node.given(0).unwrap_or_default();
    if node.int("channels_last").unwrap_or(0) != 0 {
        return Err(unknown("channels that come last"));
    }
    let result = match node.op_type.as_str() {
        // blocks of zeros are added by the convolution, where it is known what a block is
        "ReorderInput" => x.to_string(),
        "ReorderOutput" => {
            let real = node.int("channels").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            let channels = *shape(node, known, 0)?.get(1).ok_or("its input has no channels")?;
            match real {
                real if real > channels || real == 0 => return Err(format!("{real} of {channels} channels")),
                real if real == channels => x.to_string(),
                real => w.slice(x, 1, 0, real),
            }
        }
        "Conv" => convolution(&mut w, node, known)?,
        "Upsample" => upsampled(&mut w, node, x)?,
        "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" => {
            let attributes = node.attribute.iter().filter(|a| a.name != "storage_order").cloned().collect();
            w.with(&node.op_type, &[x], attributes)
        }
        _ => return Err(unknown("this operator")),
    };
    Ok(Some(w.finish_one(node, result)))
}

/// A picture of a multiple of its size.
fn upsampled(w: &mut Writer, node: &NodeProto, x: &str) -> Result<String> {
    let scales = node.ints("scales").unwrap_or_default();
    if scales.len() != 4 || scales[..2] != [1, 1] || w.opset() < 11 {
        return Err(unknown("scales of other than rows and columns"));
    }
    let scales = w.floats(&[4], &scales.iter().map(|scale| *scale as f32).collect::<Vec<_>>());
    let mode = node.text("mode").unwrap_or("nearest");
    // each pixel stands for those of its square
    let coordinates = match mode {
        "nearest" => "asymmetric",
        _ => node.text("coordinate_transformation_mode").unwrap_or("asymmetric"),
    };
    let attributes = [("mode", mode), ("coordinate_transformation_mode", coordinates), ("nearest_mode", "floor")];
    Ok(w.with("Resize", &[x, "", &scales], attributes.map(|(name, value)| text(name, value)).to_vec()))
}

fn convolution(w: &mut Writer, node: &NodeProto, known: &dyn Known) -> Result<String> {
    let x = node.given(0).unwrap_or_default();
    let channels = *shape(node, known, 0)?.get(1).ok_or("its input has no channels")?;
    let name = node.given(1).unwrap_or_default();
    let tensor = known.stored(name).ok_or("its weights are not stored")?;
    let block = known.block().ok_or("nothing tells how many channels a block of them has")?;
    let dims: Vec<usize> = tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    let &[outputs, inputs, height, width] = dims.as_slice() else { return Err(unknown("weights of that rank")) };
    let all = [outputs, inputs, height, width].iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let whole = outputs.is_multiple_of(block) && all.and_then(|n| n.checked_mul(4)) == Some(tensor.raw_data.len());
    if !whole || tensor.data_type != DataType::Float as i32 || all == Some(0) {
        return Err("its weights are no blocks of floats".into());
    }
    let group = node.int("group").unwrap_or(1);
    let of_group = if group == 1 { channels } else { 1 };
    // an image that is not in blocks is read as it is, and so are the inputs of a group of one channel
    let in_blocks = inputs.is_multiple_of(block);
    if inputs < of_group || (group != 1 && (inputs != 1 || usize::try_from(group) != Ok(outputs))) {
        return Err("its weights do not fit its input".into());
    }
    let window = height * width;
    let at = |o: usize, i: usize, p: usize| {
        let (outer, inner) = (o / block, o % block);
        if in_blocks {
            (((outer * (inputs / block) + i / block) * window + p) * block + i % block) * block + inner
        } else {
            ((outer * inputs + i) * window + p) * block + inner
        }
    };
    let mut raw = Vec::with_capacity(4 * outputs * of_group * window);
    for (o, i) in (0..outputs).flat_map(|o| (0..of_group).map(move |i| (o, i))) {
        for p in 0..window {
            raw.extend_from_slice(&tensor.raw_data[4 * at(o, i, p)..][..4]);
        }
    }
    let weights = w.tensor(stored(&[outputs, of_group, height, width], DataType::Float, raw));
    let inputs: Vec<&str> = [x, weights.as_str()].into_iter().chain(node.given(2)).collect();
    let mut attributes = of_convolution(node);
    if group != 1 {
        attributes.retain(|a| a.name != "group");
        attributes.push(int("group", group));
        if channels != outputs {
            return Err(unknown("a depthwise convolution of padded channels"));
        }
    }
    let mut y = w.with("Conv", &inputs, attributes);
    if let Some(sum) = node.given(3) {
        y = w.op("Add", &[&y, sum]);
    }
    let parameters = node.attribute("activation_params").map(|a| a.floats.clone()).unwrap_or_default();
    activated(w, node, known, y, &parameters)
}

/// How many channels lie together in a graph's blocks, as far as its convolutions tell: the numbers of their channels are
/// whole blocks, the least that hold the real ones.
pub fn block_of(graph: &crate::pb::GraphProto) -> Option<usize> {
    let of_domain = |node: &&NodeProto, op: &str| node.domain == "com.microsoft.nchwc" && node.op_type == op;
    let padded = |node: &NodeProto| {
        let weights = graph.initializer.iter().find(|t| Some(t.name.as_str()) == node.given(1))?;
        usize::try_from(*weights.dims.first()?).ok()
    };
    let convolutions: Vec<(&str, usize)> = graph
        .node
        .iter()
        .filter(|node| of_domain(node, "Conv"))
        .filter_map(|node| Some((node.result(0)?, padded(node)?)))
        .collect();
    let leaving = graph.node.iter().filter(|node| of_domain(node, "ReorderOutput"));
    let real: Vec<(usize, usize)> = leaving
        .filter_map(|node| {
            let (_, padded) = convolutions.iter().find(|(name, _)| Some(*name) == node.given(0))?;
            Some((usize::try_from(node.int("channels")?).ok()?, *padded))
        })
        .collect();
    let fits = |block: usize| {
        let whole = convolutions.iter().all(|(_, padded)| padded.is_multiple_of(block));
        whole && real.iter().all(|(channels, padded)| channels.checked_next_multiple_of(block) == Some(*padded))
    };
    match [8, 16].map(fits) {
        [true, false] => Some(8),
        [false, true] => Some(16),
        _ => None,
    }
}
