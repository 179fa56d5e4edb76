//! What the rules know of a graph.

use super::super::input::Input;
use crate::Result;
use crate::error::{Hint, model_error};
use ::onnx::budget::Budget;
use ::onnx::pb::tensor_proto::DataType;
use ::onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use ::onnx::signature::types_as_computed;
use exec::{GraphInput, Shapes};
use std::collections::{HashMap, HashSet};

/// A graph, and what is known of its values.
pub(super) struct Seen<'a> {
    pub(super) graph: &'a GraphProto,
    pub(super) opset: i64,
    pub(super) shapes: Shapes<'a>,
    /// Stored tensors, and those of Constant nodes.
    pub(super) stored: HashMap<&'a str, &'a TensorProto>,
    pub(super) types: HashMap<&'a str, DataType>,
    /// What nodes read.
    pub(super) read: HashSet<&'a str>,
    /// Whether there is a convolution.
    pub(super) convolves: bool,
    pub(super) budget: &'a Budget,
}

impl<'a> Seen<'a> {
    pub(super) fn of(graph: &'a GraphProto, opset: i64, inputs: &'a [Input], budget: &'a Budget) -> Result<Self> {
        let shaped: Vec<GraphInput> =
            inputs.iter().map(|i| GraphInput { name: &i.name, dims: i.shape.clone(), integer: i.is_whole() }).collect();
        let shapes = Shapes::new(graph, opset, &shaped, budget).map_err(|reason| match reason {
            exec::Reason::TooLarge(_) => model_error(reason.to_string()).with_hint(Hint::MaxMemory),
            _ => model_error(format!("the graph is malformed: {reason}")),
        })?;
        let of_nodes = graph.node.iter().filter(|n| n.op_type == "Constant").filter_map(|n| {
            let tensor = n.attribute.first()?.t.as_ref()?;
            Some((n.output.first()?.as_str(), tensor))
        });
        Ok(Seen {
            graph,
            opset,
            shapes,
            stored: graph.initializer.iter().map(|t| (t.name.as_str(), t)).chain(of_nodes).collect(),
            types: types_as_computed(graph, opset),
            read: graph.node.iter().flat_map(|n| &n.input).map(String::as_str).collect(),
            convolves: graph.node.iter().any(|n| n.op_type == "Conv"),
            budget,
        })
    }

    pub(super) fn nodes(&self, op_types: &'a [&'a str]) -> impl Iterator<Item = &'a NodeProto> {
        self.graph.node.iter().filter(|n| op_types.contains(&n.op_type.as_str()))
    }

    /// The shape of a node's input.
    pub(super) fn shape(&self, node: &NodeProto, i: usize) -> Option<&[usize]> {
        self.shapes.of(input(node, i)?)
    }

    /// Whether a node's results are worked out by now.
    pub(super) fn is_folded(&self, node: &NodeProto) -> bool {
        node.output.iter().all(|name| self.shapes.is_constant(name))
    }
}

/// An attribute, if the node says it.
pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// A text attribute.
pub(super) fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    attribute(node, name).and_then(|a| std::str::from_utf8(&a.s).ok())
}

/// The name of input `i`, if it is given.
pub(super) fn input(node: &NodeProto, i: usize) -> Option<&str> {
    node.input.get(i).map(String::as_str).filter(|name| !name.is_empty())
}
