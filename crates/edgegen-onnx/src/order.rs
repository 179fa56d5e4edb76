//! The order of a graph's nodes, and which of them anything depends on.

use crate::Result;
use crate::pb::{GraphProto, NodeProto};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// The names that a node reads: its inputs, and what the graphs inside it read of those around them.
pub fn reads(node: &NodeProto) -> Vec<&str> {
    let mut all: Vec<&str> = node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    // graphs that are left, with the names that those around them make
    fn inside_of(node: &NodeProto) -> Vec<&GraphProto> {
        node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)).collect()
    }
    let mut left: Vec<(&GraphProto, HashSet<&str>)> =
        inside_of(node).into_iter().map(|graph| (graph, HashSet::new())).collect();
    while let Some((graph, mut own)) = left.pop() {
        own.extend(graph.input.iter().map(|input| input.name.as_str()));
        own.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
        own.extend(graph.node.iter().flat_map(|node| &node.output).map(String::as_str));
        let read = graph.node.iter().flat_map(|node| &node.input).chain(graph.output.iter().map(|output| &output.name));
        all.extend(read.map(String::as_str).filter(|name| !name.is_empty() && !own.contains(name)));
        for node in &graph.node {
            left.extend(inside_of(node).into_iter().map(|graph| (graph, own.clone())));
        }
    }
    all
}

/// Takes out the nodes that no result of the graph depends on, whatever they are.
pub fn drop_dead(graph: &mut GraphProto) {
    let mut maker = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        maker.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), i)));
    }
    let mut alive = vec![false; graph.node.len()];
    let mut wanted: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    while let Some(name) = wanted.pop() {
        if let Some(i) = maker.get(name)
            && !std::mem::replace(&mut alive[*i], true)
        {
            wanted.extend(reads(&graph.node[*i]));
        }
    }
    let mut alive = alive.into_iter();
    graph.node.retain(|_| alive.next() == Some(true));
}

/// Puts nodes after those whose results they read, and changes nothing else about their order: converters append nodes
/// that belong before. Takes linear time where nodes are in order.
///
/// # Errors
/// When nodes read each other's results in a circle, or two make a value of one name.
pub fn sort(graph: &mut GraphProto) -> Result<()> {
    let mut maker = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if maker.insert(name.as_str(), i).is_some() {
                return Err(format!("the graph makes '{}' twice", crate::signature::shown(name)));
            }
        }
    }
    let mut readers = vec![Vec::new(); graph.node.len()];
    let mut missing = vec![0usize; graph.node.len()];
    for (i, node) in graph.node.iter().enumerate() {
        for made in reads(node).into_iter().filter_map(|name| maker.get(name)) {
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

/// Whether no node reads what only nodes after it make.
pub fn is_sorted(graph: &GraphProto) -> bool {
    let mut maker = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        node.output.iter().filter(|name| !name.is_empty()).for_each(|name| _ = maker.entry(name.as_str()).or_insert(i));
    }
    let mut nodes = graph.node.iter().enumerate();
    nodes.all(|(i, node)| reads(node).into_iter().all(|name| maker.get(name).is_none_or(|made| *made < i)))
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
        assert!(is_sorted(&graph));
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
    fn what_graphs_inside_of_nodes_read_comes_before_them_and_is_needed() {
        let branch = GraphProto {
            node: vec![node("outside", "inside"), node("inside", "result")],
            output: vec![crate::pb::ValueInfoProto { name: "result".into(), ..Default::default() }],
            ..Default::default()
        };
        let attribute = crate::pb::AttributeProto { g: Some(branch), ..Default::default() };
        let choice = NodeProto { attribute: vec![attribute], ..node("test", "y") };
        assert_eq!(reads(&choice), ["test", "outside"]);
        let nodes = vec![choice, node("x", "outside"), node("x", "unused"), node("unused", "inside")];
        let output = vec![crate::pb::ValueInfoProto { name: "y".into(), ..Default::default() }];
        let mut graph = GraphProto { node: nodes, output, ..Default::default() };
        assert!(!is_sorted(&graph));
        sort(&mut graph).unwrap();
        drop_dead(&mut graph);
        let left: Vec<&str> = graph.node.iter().map(|n| n.output[0].as_str()).collect();
        assert_eq!(left, ["outside", "y"]);
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
