//! The pass over a graph that writes nodes out as those that they stand for ([`onnx::expand`]). Some stand for others by the
//! shapes of what they read, so nodes are written out while the graph is read.

use crate::graph::{Graph, GraphInput};
use crate::reason::Reason;
use onnx::budget::Budget;
use onnx::expand::control::{self, Turns, Written};
use onnx::expand::nchwc::block_of;
use onnx::expand::sequence::Sequences;
use onnx::expand::{Known, expansion, has_candidates};
use onnx::order;
use onnx::pb::tensor_proto::DataType;
use onnx::pb::{GraphProto, NodeProto, TensorProto};
use onnx::signature::computed_types;
use std::cell::OnceCell;
use std::collections::HashMap;

/// The most nodes that a graph may become.
const MOST_NODES: usize = 1 << 17;

/// Writes out all nodes of a graph of this opset that stand for others, where its inputs are of these shapes. What no result
/// depends on then is taken out.
///
/// # Errors
/// When a node must be written out and it is not known how, and when the graph contradicts itself or becomes too large.
pub fn write_out(graph: &mut GraphProto, opset: i64, inputs: &[GraphInput], budget: &Budget) -> Result<(), Reason> {
    if !has_candidates(graph) {
        return Ok(());
    }
    // what is read here is dropped, and read again
    let budget = budget.rest();
    let made = Made::default();
    let written = Pass::new(graph, opset, inputs, &budget)?.run(&made)?;
    graph.node = written.into_iter().cloned().collect();
    order::drop_dead(graph);
    Ok(())
}

/// Nodes that live as long as the pass, each with those that come after it.
#[derive(Default)]
struct Made {
    node: NodeProto,
    next: OnceCell<Box<Made>>,
}

impl Drop for Made {
    /// One after the other: each within the one before would take as much stack as there are nodes.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut made) = next {
            next = made.next.take();
        }
    }
}

/// What is still to be read, the last first.
enum Work<'a> {
    /// A node of the file's, or one that was written.
    Node(&'a NodeProto),
    /// What follows a turn of a loop.
    Turns(Box<Turns>),
}

/// A graph that is read, and what was written of it.
struct Pass<'a> {
    file: &'a GraphProto,
    graph: Graph<'a>,
    stored: HashMap<&'a str, &'a TensorProto>,
    types: HashMap<&'a str, DataType>,
    makers: HashMap<&'a str, &'a NodeProto>,
    block: Option<usize>,
    written: Vec<&'a NodeProto>,
}

impl<'a> Pass<'a> {
    fn new(
        file: &'a GraphProto,
        opset: i64,
        inputs: &[GraphInput<'a>],
        budget: &'a Budget,
    ) -> Result<Self, Reason> {
        let mut graph = Graph::before_nodes(file, opset, inputs, budget, true)?;
        graph.fold_small_ones();
        Ok(Pass {
            stored: file.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
            types: onnx::signature::types_as_computed(file, opset),
            makers: HashMap::new(),
            block: block_of(file),
            written: Vec::new(),
            file,
            graph,
        })
    }

    /// The nodes in their order, written out.
    fn run(mut self, made: &'a Made) -> Result<Vec<&'a NodeProto>, Reason> {
        let mut last = made;
        let mut left: Vec<Work> = self.file.node.iter().rev().map(Work::Node).collect();
        let (mut sequences, mut number) = (Sequences::default(), 0usize);
        while let Some(work) = left.pop() {
            number += 1;
            let (nodes, after) = match work {
                Work::Turns(turns) => match turns.next(&self, number)? {
                    Written::Nodes(nodes) => (nodes, None),
                    Written::Turn(nodes, turns) => (nodes, Some(turns)),
                },
                Work::Node(node) => match self.stands_for(node, &mut sequences, number)? {
                    Some(Written::Nodes(nodes)) => (nodes, None),
                    Some(Written::Turn(nodes, turns)) => (nodes, Some(turns)),
                    None => {
                        self.keep(node)?;
                        continue;
                    }
                },
            };
            if self.written.len().saturating_add(left.len()).saturating_add(nodes.len()) > MOST_NODES {
                return Err(Reason::TooLarge(format!("the graph becomes one of more than {MOST_NODES} nodes")));
            }
            left.extend(after.map(Work::Turns));
            let mut kept = Vec::with_capacity(nodes.len());
            for node in nodes {
                last = last.next.get_or_init(|| Box::new(Made { node, next: OnceCell::new() }));
                kept.push(&last.node);
            }
            left.extend(kept.into_iter().rev().map(Work::Node));
        }
        Ok(self.written)
    }

    /// What stands for a node, if anything does.
    fn stands_for(
        &self,
        node: &NodeProto,
        sequences: &mut Sequences,
        number: usize,
    ) -> Result<Option<Written>, Reason> {
        if let Some(written) = control::expansion(node, self, number)? {
            return Ok(Some(written));
        }
        if let Some(nodes) = sequences.expansion(node, self)? {
            return Ok(Some(Written::Nodes(nodes)));
        }
        Ok(expansion(node, self)?.map(Written::Nodes))
    }

    /// A node that stays as it is.
    fn keep(&mut self, node: &'a NodeProto) -> Result<(), Reason> {
        match self.graph.read(node) {
            // of some nodes no shapes are known: what needs them says so
            Ok(()) | Err(Reason::Unsupported(_)) => {}
            Err(reason) => return Err(reason),
        }
        let types = computed_types(node, self.graph.opset, &|name| self.types.get(name).copied());
        self.types.extend(types);
        self.makers.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), node)));
        self.written.push(node);
        Ok(())
    }
}

impl Known for Pass<'_> {
    fn opset(&self) -> i64 {
        self.graph.opset
    }

    fn dims(&self, name: &str) -> Option<&[usize]> {
        self.graph.dims(name)
    }

    fn element(&self, name: &str) -> Option<DataType> {
        self.graph.constant(name).map(|constant| constant.kind).or_else(|| self.types.get(name).copied())
    }

    fn stored(&self, name: &str) -> Option<&TensorProto> {
        if let Some(tensor) = self.stored.get(name) {
            return Some(tensor);
        }
        let constant = self.makers.get(name).filter(|maker| maker.op_type == "Constant")?;
        constant.attribute("value")?.t.as_ref()
    }

    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let constant = self.graph.constant(name).filter(|constant| constant.is_integer() && constant.exact)?;
        Some(constant.integers())
    }

    fn block(&self) -> Option<usize> {
        self.block
    }

    fn maker(&self, name: &str) -> Option<&NodeProto> {
        self.makers.get(name).copied()
    }
}
