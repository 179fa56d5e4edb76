//! What the shape rules of the operators tell of a graph that a plan does not cover whole.

use crate::constant::Constant;
use crate::graph::{Graph, GraphInput};
use crate::ops::operator;
use crate::reason::Reason;
use onnx::budget::Budget;
use onnx::pb::{GraphProto, NodeProto};

/// The shapes of a graph's values, as far as they are known.
pub struct Shapes<'a>(Graph<'a>);

impl<'a> Shapes<'a> {
    /// Those of `graph` of this opset, whose inputs are of these shapes. What is made of stored tensors is taken from the budget.
    ///
    /// # Errors
    /// When the graph contradicts itself, when a value is too large, or when too much is made of stored tensors.
    pub fn new(
        graph: &'a GraphProto,
        opset: i64,
        inputs: &[GraphInput<'a>],
        budget: &'a Budget,
    ) -> Result<Self, Reason> {
        Graph::known_part(graph, opset, inputs, budget).map(Shapes)
    }

    /// The shape of the value of this name.
    pub fn of(&self, name: &str) -> Option<&[usize]> {
        self.0.dims(name)
    }

    /// Whether the value of this name does not depend on the inputs, as far as that is known.
    pub fn is_constant(&self, name: &str) -> bool {
        self.0.constant(name).is_some()
    }

    /// The whole numbers of a stored tensor that is input `i` of a node.
    pub fn integers(&self, node: &NodeProto, i: usize) -> Option<Vec<i64>> {
        self.0.constant_input(node, i).map(Constant::integers)
    }

    /// The floats of one.
    pub fn floats(&self, node: &NodeProto, i: usize) -> Option<&[f32]> {
        self.0.constant_input(node, i).map(|constant| constant.values.as_slice())
    }
}

/// Whether there are rules for the operator of this name.
pub fn has_rules(op_type: &str) -> bool {
    operator(op_type).is_some()
}
