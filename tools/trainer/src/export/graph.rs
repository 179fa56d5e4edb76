//! Writing an ONNX graph node by node.

use onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

/// An attribute's value.
pub enum Attribute<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f32),
    Text(&'a str),
}

impl Attribute<'_> {
    fn proto(&self, name: &str) -> AttributeProto {
        let mut a = AttributeProto { name: name.into(), ..Default::default() };
        match self {
            Attribute::Int(i) => (a.r#type, a.i) = (AttributeType::Int as i32, *i),
            Attribute::Ints(i) => (a.r#type, a.ints) = (AttributeType::Ints as i32, i.to_vec()),
            Attribute::Float(f) => (a.r#type, a.f) = (AttributeType::Float as i32, *f),
            Attribute::Text(s) => (a.r#type, a.s) = (AttributeType::String as i32, s.as_bytes().to_vec()),
        }
        a
    }
}

/// A node. Its name and its outputs' names come from `output`.
pub fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> NodeProto {
    NodeProto {
        name: output.into(),
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        attribute: attributes.iter().map(|(name, value)| value.proto(name)).collect(),
        ..Default::default()
    }
}

/// A stored tensor.
pub fn tensor(name: &str, data_type: DataType, shape: &[usize], raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: data_type as i32,
        dims: shape.iter().map(|d| *d as i64).collect(),
        raw_data: raw_data.into(),
        ..Default::default()
    }
}

/// A stored f32 tensor.
pub fn tensor_f32(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    tensor(name, DataType::Float, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A graph's input or output; `None` is the batch.
pub fn value_info(name: &str, element: DataType, shape: &[Option<usize>]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = shape
        .iter()
        .map(|d| {
            let value = d.map_or_else(|| Value::DimParam("N".into()), |d| Value::DimValue(d as i64));
            Dimension { value: Some(value) }
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: element as i32, shape: Some(TensorShapeProto { dim }) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: name.into(), r#type: Some(r#type) }
}

/// A graph being written.
#[derive(Default)]
pub struct GraphBuilder {
    graph: GraphProto,
}

impl GraphBuilder {
    /// Adds a node and returns its output's name.
    pub fn add(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> String {
        self.graph.node.push(node(op, inputs, output, attributes));
        output.into()
    }

    /// Adds a node with several outputs.
    pub fn add_many(&mut self, op: &str, inputs: &[&str], outputs: &[String], attributes: &[(&str, Attribute)]) {
        let mut node = node(op, inputs, &outputs[0], attributes);
        node.output = outputs.to_vec();
        self.graph.node.push(node);
    }

    /// Stores an f32 tensor and returns its name.
    pub fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.graph.initializer.push(tensor_f32(name, shape, values));
        name.into()
    }

    /// Whether a tensor of this name is stored.
    pub fn has(&self, name: &str) -> bool {
        self.graph.initializer.iter().any(|t| t.name == name)
    }

    /// Stores a vector of i64, such as a shape, once, and returns its name.
    pub fn i64(&mut self, values: &[i64]) -> String {
        let words: Vec<String> = values.iter().map(i64::to_string).collect();
        let name = format!("const/{}", words.join("_"));
        if !self.has(&name) {
            let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.graph.initializer.push(tensor(&name, DataType::Int64, &[values.len()], raw));
        }
        name
    }

    /// The finished graph.
    pub fn finish(mut self, name: &str, inputs: Vec<ValueInfoProto>, outputs: Vec<ValueInfoProto>) -> GraphProto {
        self.graph.name = name.into();
        self.graph.input = inputs;
        self.graph.output = outputs;
        self.graph
    }
}
