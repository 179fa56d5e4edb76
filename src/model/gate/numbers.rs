//! What tract gives other numbers for than ONNX says.

use super::seen::{Seen, attribute, input, text};
use crate::Result;
use crate::error::model_error;
use ::onnx::pb::tensor_proto::DataType;
use ::onnx::pb::{NodeProto, TensorProto};
use ::onnx::signature::called;
use std::collections::HashSet;

/// What of a node it gives other numbers for, if there is such a thing.
type Otherwise = fn(&Seen, &NodeProto) -> Option<&'static str>;

/// By operator. An operator may be there more than once.
const OTHERWISE: &[(&str, Otherwise)] = &[
    // what is out of the range of a narrow integer
    ("Cast", |seen, node| {
        let narrow = NARROW.contains(&int(node, "to")) && is_float(seen, input(node, 0)?);
        narrow.then_some("floats that may be out of the range of its type")
    }),
    // nothing is known of what it makes of these
    ("Col2Im", |_, _| Some("a graph that has no plan")),
    ("GridSample", |_, _| Some("a graph that has no plan")),
    ("Shrink", |_, _| Some("a graph that has no plan")),
    // it works out other pads
    ("ConvTranspose", |_, node| attribute(node, "output_shape").map(|_| "an output_shape")),
    ("Dropout", |seen, node| {
        node.output.get(1).is_some_and(|mask| seen.read.contains(mask.as_str())).then_some("its mask")
    }),
    ("Expand", one_number_spread),
    ("Tile", one_number_spread),
    // it gives the results in another order
    ("GRU", backward),
    ("LSTM", backward),
    ("RNN", backward),
    ("LogSoftmax", |_, _| Some("numbers that are far from each other")),
    // it swaps the operands where the divisor is no constant, and gives the remainder another sign
    ("Mod", |seen, node| {
        let constant = seen.shapes.is_constant(input(node, 1)?);
        let positive = || stored(seen, node, 1).is_some_and(|divisor| all_integers(divisor, |v| v > 0));
        let right = if int(node, "fmod") == 0 { positive() } else { constant };
        (!right).then_some("a divisor that may be negative, or is no constant,")
    }),
    // it takes the product for zero
    ("Mul", |seen, node| {
        let zero = |i| stored(seen, node, i).and_then(floats).is_some_and(|all| all.iter().all(|v| *v == 0.0));
        (zero(0) || zero(1)).then_some("a stored zero, which need not make zero of what is infinite,")
    }),
    ("QuantizeLinear", |_, node| {
        let lacks = input(node, 2).is_none() && int(node, "output_dtype") != 0;
        lacks.then_some("an output_dtype without a zero point")
    }),
    ("Resize", |seen, node| {
        let below = || !stored(seen, node, 1).and_then(floats).is_some_and(|all| all.iter().all(|s| *s >= 1.0));
        (seen.opset == 10 && below()).then_some("scales below 1 in opset 10")
    }),
    // it rounds the sizes of the result otherwise
    ("Resize", |seen, node| match text(node, "coordinate_transformation_mode")? {
        "tf_crop_and_resize" => Some("a region of its own"),
        "align_corners" if input(node, 3).is_none() => {
            let whole = stored(seen, node, 2).and_then(floats).is_some_and(|all| all.iter().all(|s| s.fract() == 0.0));
            (!whole).then_some("align_corners and scales that are not whole")
        }
        _ => None,
    }),
    // it moves the steps into a convolution before the slice, and does not begin where that does
    ("Slice", |seen, node| {
        let ones = || stored(seen, node, 4).is_some_and(|steps| all_integers(steps, |v| v == 1));
        (seen.convolves && input(node, 4).is_some() && !ones()).then_some("steps, in a graph with convolutions,")
    }),
    ("Slice", |seen, node| {
        let forward = || seen.shapes.integers(node, 4).is_some_and(|steps| steps.iter().all(|step| *step >= 0));
        (input(node, 4).is_some() && !seen.is_folded(node) && !forward()).then_some("steps that go backward")
    }),
    ("Swish", |_, node| attribute(node, "alpha").filter(|a| a.f != 1.0).map(|_| "an alpha other than 1")),
];

/// No node is one that tract gives other numbers for.
pub(super) fn are_as_onnx_says(seen: &Seen) -> Result<()> {
    let known: HashSet<&str> = OTHERWISE.iter().map(|(op, _)| *op).collect();
    for node in seen.graph.node.iter().filter(|node| known.contains(node.op_type.as_str())) {
        let of_node = OTHERWISE.iter().filter(|(op, _)| *op == node.op_type);
        if let Some(why) = of_node.filter_map(|(_, why)| why(seen, node)).next() {
            return Err(model_error(format!("{} with {why} is not supported", called(node))));
        }
    }
    Ok(())
}

/// It takes one number that stands for many for one again, where a product sums over these.
fn one_number_spread(seen: &Seen, node: &NodeProto) -> Option<&'static str> {
    let one = seen.shape(node, 0)?.iter().all(|d| *d == 1);
    let many = seen.shapes.of(&node.output[0])?.iter().any(|d| *d > 1);
    (one && many && !seen.is_folded(node)).then_some("one number spread over many")
}

fn backward(_: &Seen, node: &NodeProto) -> Option<&'static str> {
    (text(node, "direction")? == "reverse").then_some("a layer that goes backward")
}

/// Integers, by ONNX's numbers of them, that floats are commonly too large for: of less than 32 bits, and unsigned ones.
const NARROW: [i64; 6] = [
    DataType::Uint8 as i64,
    DataType::Int8 as i64,
    DataType::Uint16 as i64,
    DataType::Int16 as i64,
    DataType::Uint32 as i64,
    DataType::Uint64 as i64,
];

fn is_float(seen: &Seen, name: &str) -> bool {
    matches!(seen.types.get(name), Some(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16))
}

fn int(node: &NodeProto, name: &str) -> i64 {
    attribute(node, name).map_or(0, |a| a.i)
}

fn stored<'a>(seen: &Seen<'a>, node: &NodeProto, i: usize) -> Option<&'a TensorProto> {
    seen.stored.get(input(node, i)?).copied()
}

/// Whether a stored tensor is of integers that all fit.
fn all_integers(tensor: &TensorProto, fits: impl Fn(i64) -> bool) -> bool {
    let all = |mut values: Box<dyn Iterator<Item = i64> + '_>| values.all(&fits);
    let raw = &tensor.raw_data;
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) if raw.is_empty() => all(Box::new(tensor.int64_data.iter().copied())),
        Ok(DataType::Int64) => all(Box::new(raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)))),
        Ok(DataType::Int32) if raw.is_empty() => all(Box::new(tensor.int32_data.iter().map(|v| i64::from(*v)))),
        Ok(DataType::Int32) => all(Box::new(raw.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))))),
        _ => false,
    }
}

/// The numbers of a stored float tensor.
fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    (tensor.data_type == DataType::Float as i32).then(|| match tensor.raw_data.as_ref() {
        [] => tensor.float_data.clone(),
        raw => raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    })
}
