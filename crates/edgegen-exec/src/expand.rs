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
    fn new(file: &'a GraphProto, opset: i64, inputs: &[GraphInput<'a>], budget: &'a Budget) -> Result<Self, Reason> {
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

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let constant = self.graph.constant(name).filter(|constant| constant.kind == DataType::Float)?;
        Some(constant.values.to_vec())
    }

    fn block(&self) -> Option<usize> {
        self.block
    }

    fn maker(&self, name: &str) -> Option<&NodeProto> {
        self.makers.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnx::pb::attribute_proto::AttributeType;
    use onnx::pb::{AttributeProto, ValueInfoProto};

    fn node(op: &str, input: &[&str], output: &[&str]) -> NodeProto {
        let texts = |all: &[&str]| all.iter().map(|s| s.to_string()).collect();
        NodeProto { op_type: op.into(), input: texts(input), output: texts(output), ..Default::default() }
    }

    fn values(names: &[&str]) -> Vec<ValueInfoProto> {
        names.iter().map(|name| ValueInfoProto { name: (*name).into(), ..Default::default() }).collect()
    }

    fn holding(mut node: NodeProto, name: &str, graph: GraphProto) -> NodeProto {
        let r#type = AttributeType::Graph as i32;
        node.attribute.push(AttributeProto { name: name.into(), g: Some(graph), r#type, ..Default::default() });
        node
    }

    fn number(name: &str, value: i64) -> TensorProto {
        let data_type = DataType::Int64 as i32;
        TensorProto { name: name.into(), data_type, int64_data: vec![value], ..Default::default() }
    }

    /// A Loop that turns so often, whose body hands on what it gets through so many functions.
    fn turning(turns: i64, functions: usize) -> GraphProto {
        let mut body = GraphProto {
            node: vec![node("Identity", &["go"], &["on"])],
            input: values(&["i", "go", "v0"]),
            ..Default::default()
        };
        for i in 0..functions {
            body.node.push(node("Tanh", &[&format!("v{i}")], &[&format!("v{}", i + 1)]));
        }
        body.output = values(&["on", &format!("v{functions}")]);
        GraphProto {
            node: vec![holding(node("Loop", &["n", "", "x"], &["y"]), "body", body), node("Relu", &["x"], &["unread"])],
            initializer: vec![number("n", turns)],
            output: values(&["y"]),
            ..Default::default()
        }
    }

    fn written(graph: &mut GraphProto) -> Result<usize, Reason> {
        let x = GraphInput { name: "x", dims: vec![1, 4], integer: false };
        write_out(graph, 17, &[x], &Budget::new(1 << 24))?;
        Ok(graph.node.iter().filter(|node| node.op_type == "Tanh").count())
    }

    #[test]
    fn loops_become_their_turns_and_what_nothing_reads_goes() {
        let mut graph = turning(5, 3);
        assert_eq!(written(&mut graph), Ok(15));
        assert!(graph.node.iter().all(|node| !["Loop", "Relu"].contains(&node.op_type.as_str())));
        assert_eq!(written(&mut turning(0, 3)), Ok(0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes long there, and there is no unsafe code to look at")]
    fn loops_that_turn_too_often_or_make_too_much_are_refused() {
        let refused = |turns, functions| written(&mut turning(turns, functions)).unwrap_err().to_string();
        assert!(refused(100_000, 1).contains("turns more than 4096 times"));
        assert!(refused(4000, 1000).contains("more than 131072 nodes"));
    }

    #[test]
    fn a_branch_that_is_not_known_before_a_run_is_refused() {
        let branch =
            |op| GraphProto { node: vec![node(op, &["x"], &["z"])], output: values(&["z"]), ..Default::default() };
        let choice = holding(node("If", &["c"], &["y"]), "then_branch", branch("Tanh"));
        let choice = holding(choice, "else_branch", branch("Relu"));
        let graph = |condition: Vec<NodeProto>, stored| GraphProto {
            node: [condition, vec![choice.clone()]].concat(),
            initializer: vec![stored],
            output: values(&["y"]),
            ..Default::default()
        };
        assert_eq!(written(&mut graph(vec![], number("c", 1))), Ok(1));
        assert_eq!(written(&mut graph(vec![], number("c", 0))), Ok(0));
        let computed = graph(vec![node("Cast", &["x"], &["c"])], number("n", 0));
        let line = written(&mut computed.clone()).unwrap_err().to_string();
        assert!(line.contains("cannot be told before it is run"), "{line}");
    }
}
