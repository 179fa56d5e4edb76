//! Puts right, before a graph is read, what exporters write and the engines do not take.

use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use crate::pb::type_proto::Value;
use crate::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use half::{bf16, f16};

/// Mends a graph and the graphs inside its nodes.
pub fn mend(graph: &mut GraphProto) {
    let half = |element: i32| element == DataType::Float16 as i32 || element == DataType::Bfloat16 as i32;
    // Exporters leave stale notes of shapes and types, at odds with a concrete batch. Nothing needs them.
    graph.value_info.clear();
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(Value::TensorType(t)) = value.r#type.as_mut().and_then(|t| t.value.as_mut())
            && half(t.elem_type)
        {
            t.elem_type = DataType::Float as i32;
        }
    }
    for node in &mut graph.node {
        give_constant_of_shape_its_value(node);
        for attribute in &mut node.attribute {
            // Half precision saves room, and no time here: what is computed is in single precision.
            if ["to", "dtype", "output_dtype"].contains(&attribute.name.as_str()) && half(attribute.i as i32) {
                attribute.i = DataType::Float as i64;
            }
            attribute.g.iter_mut().for_each(mend);
        }
    }
}

/// Stores a graph's numbers of 16 bits as f32, which its nodes compute in once they are [mended](mend).
pub fn widen(graph: &mut GraphProto) {
    graph.initializer.iter_mut().for_each(widen_tensor);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().for_each(widen_tensor);
        attribute.g.iter_mut().for_each(widen);
    }
}

/// ConstantOfShape makes float zeros if it does not say what; tract would make them of type f64.
fn give_constant_of_shape_its_value(node: &mut NodeProto) {
    if node.op_type != "ConstantOfShape" || node.attribute.iter().any(|a| a.name == "value") {
        return;
    }
    let zero = TensorProto {
        dims: vec![1],
        data_type: DataType::Float as i32,
        raw_data: vec![0; 4].into(),
        ..Default::default()
    };
    node.attribute.push(AttributeProto {
        name: "value".into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(zero),
        ..Default::default()
    });
}

fn widen_tensor(tensor: &mut TensorProto) {
    let of: fn(u16) -> f32 = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float16) => |bits| f16::from_bits(bits).to_f32(),
        Ok(DataType::Bfloat16) => |bits| bf16::from_bits(bits).to_f32(),
        _ => return,
    };
    let bits: Vec<u16> = if tensor.raw_data.is_empty() {
        // each in the low half of an int32
        tensor.int32_data.iter().map(|v| *v as u16).collect()
    } else {
        tensor.raw_data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
    };
    tensor.raw_data = bits.into_iter().flat_map(|b| of(b).to_le_bytes()).collect();
    tensor.int32_data.clear();
    tensor.data_type = DataType::Float as i32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_becomes_single_precision() {
        let values = [1.5f32, -0.25, 65504.0];
        let raw = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let stored =
            TensorProto { data_type: DataType::Float16 as i32, dims: vec![3], raw_data: raw, ..Default::default() };
        let in_ints = TensorProto {
            data_type: DataType::Bfloat16 as i32,
            dims: vec![1],
            int32_data: vec![i32::from(bf16::from_f32(-3.0).to_bits())],
            ..Default::default()
        };
        let cast = NodeProto {
            op_type: "Cast".into(),
            attribute: vec![AttributeProto { name: "to".into(), i: DataType::Float16 as i64, ..Default::default() }],
            ..Default::default()
        };
        let mut graph = GraphProto { initializer: vec![stored, in_ints], node: vec![cast], ..Default::default() };
        mend(&mut graph);
        widen(&mut graph);
        let read = |t: &TensorProto| -> Vec<f32> {
            assert_eq!(t.data_type, DataType::Float as i32);
            t.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        assert_eq!(read(&graph.initializer[0]), values);
        assert_eq!(read(&graph.initializer[1]), [-3.0]);
        assert_eq!(graph.node[0].attribute[0].i, DataType::Float as i64);
    }
}
