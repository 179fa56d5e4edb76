//! The order of a graph's nodes.

use crate::Result;
use crate::pb::GraphProto;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Puts nodes after those whose results they read, and changes nothing else about their order: converters append nodes
/// that belong before. Takes linear time where nodes are in order.
///
/// # Errors
/// When nodes read each other's results in a circle.
pub fn sort(graph: &mut GraphProto) -> Result<()> {
    let mut maker = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            maker.entry(name.as_str()).or_insert(i);
        }
    }
    let mut readers = vec![Vec::new(); graph.node.len()];
    let mut missing = vec![0usize; graph.node.len()];
    for (i, node) in graph.node.iter().enumerate() {
        for made in node.input.iter().filter_map(|name| maker.get(name.as_str())) {
            readers[*made].push(i);
            missing[i] += 1;
        }
    }
    // of the nodes that can run, the first in the file is next
    let mut ready: BinaryHeap<Reverse<usize>> = (0..missing.len()).filter(|i| missing[*i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(missing.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for reader in &readers[i] {
            missing[*reader] -= 1;
            if missing[*reader] == 0 {
                ready.push(Reverse(*reader));
            }
        }
    }
    if order.len() < graph.node.len() {
        return Err("the graph's nodes read each other's results in a circle".into());
    }
    if !order.is_sorted() {
        let mut nodes: Vec<_> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
        graph.node = order.into_iter().filter_map(|i| nodes[i].take()).collect();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::NodeProto;

    fn node(input: &str, output: &str) -> NodeProto {
        NodeProto { input: vec![input.into()], output: vec![output.into()], ..Default::default() }
    }

    fn sorted(nodes: Vec<NodeProto>) -> Result<Vec<String>> {
        let mut graph = GraphProto { node: nodes, ..Default::default() };
        sort(&mut graph)?;
        Ok(graph.node.into_iter().map(|mut n| n.output.remove(0)).collect())
    }

    #[test]
    fn nodes_come_after_what_they_read_and_stay_otherwise() {
        let nodes = vec![node("c", "d"), node("x", "a"), node("a", "c"), node("x", "b")];
        assert_eq!(sorted(nodes).unwrap(), ["a", "c", "d", "b"]);
        let nodes = vec![node("x", "b"), node("x", "a"), node("b", "c")];
        assert_eq!(sorted(nodes).unwrap(), ["b", "a", "c"]);
    }

    #[test]
    fn circles_are_refused() {
        assert!(sorted(vec![node("b", "a"), node("a", "b")]).is_err());
        assert!(sorted(vec![node("a", "a")]).is_err());
    }

    #[test]
    fn a_long_graph_in_reverse_takes_no_time() {
        let nodes = (0..100_000).rev().map(|i| node(&format!("v{i}"), &format!("v{}", i + 1))).collect();
        assert_eq!(sorted(nodes).unwrap()[0], "v1");
    }
}
