//! NonZero of stored tensors: where their numbers are not zero.

use super::Operator;
use crate::constant::Constant;

pub static OPERATORS: &[Operator] = &[Operator::new("NonZero").any_type().fold(|_, input| {
    let Some(x) = input.first().copied().flatten() else { return Ok(None) };
    let found: Vec<usize> = (0..x.len()).filter(|i| x.values[*i] != 0.0).collect();
    // a row for each dimension, or one for a number
    let dims = if x.dims.is_empty() { vec![1] } else { x.dims.clone() };
    let mut places = Vec::with_capacity(dims.len() * found.len());
    for d in 0..dims.len() {
        let stride: usize = dims[d + 1..].iter().product();
        places.extend(found.iter().map(|i| (i / stride % dims[d]) as i64));
    }
    let kind = onnx::pb::tensor_proto::DataType::Int64;
    Ok(Some(vec![Constant::whole(vec![dims.len(), found.len()], places, kind)]))
})];
