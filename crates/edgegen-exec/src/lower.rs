//! From ONNX nodes to the operations that a plan is made of. What each operator is recognised by is in its file in `ops/`;
//! this is what they have in common.

use crate::constant::Constant;
use crate::graph::Graph;
use crate::ops::{self, Operation};
use crate::reason::Reason;
use onnx::pb::NodeProto;
use onnx::signature::called;
use std::collections::HashMap;

/// What an operation reads: a value, or a stored tensor.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// A value that a run computes.
    Value(&'a str),
    /// A stored tensor.
    Stored(&'a Constant),
}

impl<'a> Operand<'a> {
    /// The value's name, if it is one.
    pub fn value(&self) -> Option<&'a str> {
        if let Operand::Value(name) = self { Some(name) } else { None }
    }
}

/// A value read as a stack of matrices: its dimensions in the order batch…, row, column.
#[derive(Clone, Debug)]
pub struct Matrices<'a> {
    pub x: Operand<'a>,
    pub order: Vec<usize>,
}

/// An operation and the name of its result.
pub struct Named<'a> {
    pub op: Box<dyn Operation<'a> + 'a>,
    pub out: &'a str,
}

/// What some nodes stand for.
pub struct Lowered<'a> {
    pub ops: Vec<Named<'a>>,
    /// The nodes, by their numbers.
    pub covered: Vec<usize>,
}

/// The operations of a graph, in an order in which they can run.
///
/// # Errors
/// The first node that is not known.
pub fn lower<'a>(graph: &'a Graph<'a>) -> Result<Vec<Named<'a>>, Reason> {
    let mut lowering = Lowering { graph, same: HashMap::new() };
    let mut done = vec![false; graph.nodes.len()];
    // an operation takes the place of the last of the nodes that it stands for, after all that it reads
    let mut waiting: HashMap<usize, Vec<Named>> = HashMap::new();
    let mut all = Vec::new();
    for i in 0..graph.nodes.len() {
        if !done[i] {
            let node = graph.nodes[i];
            if let Some(x) = lowering.unchanged(node) {
                lowering.same.insert(&node.output[0], x);
                continue;
            }
            let lower = ops::operator(&node.op_type).map(|operator| operator.lower);
            let lowered = lower
                .and_then(|lower| lower(&lowering, i))
                .ok_or_else(|| format!("{} is of a form that is not known", called(node)))?;
            let last = lowered.covered.iter().copied().max().unwrap_or(i);
            lowered.covered.iter().for_each(|j| done[*j] = true);
            waiting.entry(last).or_default().extend(lowered.ops);
        }
        all.extend(waiting.remove(&i).unwrap_or_default());
    }
    Ok(all)
}

/// The name that a graph's output is known by after nodes that change nothing.
pub fn resolve<'a>(graph: &'a Graph<'a>, name: &'a str) -> &'a str {
    let lowering = Lowering { graph, same: HashMap::new() };
    let mut name = name;
    while let Some(x) = graph.maker(name).and_then(|node| lowering.unchanged(node)) {
        name = x;
    }
    name
}

/// What recognition looks at.
pub struct Lowering<'a> {
    pub graph: &'a Graph<'a>,
    /// Values that are others unchanged.
    same: HashMap<&'a str, &'a str>,
}

impl<'a> Lowering<'a> {
    /// Node number `i`.
    pub fn node(&self, i: usize) -> &'a NodeProto {
        self.graph.nodes[i]
    }

    /// The name that a value is known by.
    pub fn same(&self, name: &'a str) -> &'a str {
        self.same.get(name).copied().unwrap_or(name)
    }

    /// The value that a node passes on as it is.
    fn unchanged(&self, node: &'a NodeProto) -> Option<&'a str> {
        let x = node.input.first().map(String::as_str).filter(|n| self.graph.constant(n).is_none())?;
        ops::passes_on(self.graph, node, x).then(|| self.same(x))
    }

    /// The value that is input `k` of a node; `None` for a stored tensor.
    pub fn value(&self, node: &'a NodeProto, k: usize) -> Option<&'a str> {
        let name = node.input.get(k).map(String::as_str).filter(|n| !n.is_empty())?;
        self.graph.constant(name).is_none().then(|| self.same(name))
    }

    /// The stored tensor that is input `k` of a node.
    pub fn constant(&self, node: &NodeProto, k: usize) -> Option<&'a Constant> {
        self.graph.constant_input(node, k)
    }

    /// The stored tensor that is input `k` of a node, which may be left out.
    pub fn optional(&self, node: &NodeProto, k: usize) -> Option<Option<&'a Constant>> {
        match node.input.get(k).filter(|n| !n.is_empty()) {
            Some(_) => self.constant(node, k).map(Some),
            None => Some(None),
        }
    }

    /// The number that a stored tensor, input 1 or 0 of a node, has throughout.
    pub fn number(&self, node: &NodeProto) -> Option<f32> {
        self.constant(node, 1).or_else(|| self.constant(node, 0)).and_then(Constant::uniform)
    }

    /// Input `k` of a node.
    pub fn operand(&self, node: &'a NodeProto, k: usize) -> Option<Operand<'a>> {
        match self.constant(node, k) {
            Some(c) => Some(Operand::Stored(c)),
            None => self.value(node, k).map(Operand::Value),
        }
    }

    /// The dimensions of a value.
    pub fn dims(&self, name: &str) -> Option<&'a [usize]> {
        self.graph.dims(name)
    }

    /// The node that alone reads the result of `node`, if it is of this kind.
    pub fn then(&self, node: &NodeProto, op: &str) -> Option<(usize, &'a NodeProto)> {
        self.graph.sole_consumer(node.output.first()?).filter(|(_, n)| n.op_type == op)
    }

    /// The nodes that read `name`, by their numbers; `None` if the caller gets the value too.
    pub fn readers(&self, name: &str) -> Option<Vec<(usize, &'a NodeProto)>> {
        let all = self.graph.consumers(name).iter().map(|j| (*j, self.graph.nodes[*j])).collect();
        (!self.graph.is_result(name)).then_some(all)
    }

    /// An operation for node `i` alone.
    pub fn one(&self, i: usize, op: impl Operation<'a> + 'a) -> Option<Lowered<'a>> {
        self.fused(op, &self.node(i).output, vec![i])
    }

    /// An operation for several nodes, of which the last makes `output`.
    pub fn fused(&self, op: impl Operation<'a> + 'a, output: &'a [String], covered: Vec<usize>) -> Option<Lowered<'a>> {
        Some(Lowered { ops: vec![Named { op: Box::new(op), out: output.first()? }], covered })
    }
}
