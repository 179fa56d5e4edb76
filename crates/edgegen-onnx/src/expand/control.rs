//! If whose condition is known, and Loop and Scan whose turns can be counted: their graphs' nodes, written out.

use super::normalization::from_the_start;
use super::writer::{int, stored};
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use crate::pb::{AttributeProto, GraphProto, NodeProto};
use crate::signature::{called, nested};
use std::collections::HashMap;

/// The most turns of a loop.
const MOST_TURNS: i64 = 1 << 12;

/// A Loop that is being written out, turn by turn: whether there is another turn may depend on the one before.
pub struct Turns {
    node: NodeProto,
    /// How many turns there are at most.
    most: Option<i64>,
    turn: i64,
    /// The values that the next turn gets: the condition, and those that are handed on.
    condition: Option<String>,
    carried: Vec<String>,
    /// What each turn gave, result by result.
    gathered: Vec<Vec<String>>,
}

/// What stands for a node that holds graphs.
pub enum Written {
    /// These nodes.
    Nodes(Vec<NodeProto>),
    /// These nodes, and what comes after them is known once they are read.
    Turn(Vec<NodeProto>, Box<Turns>),
}

/// What stands for an If, a Loop or a Scan; `None` for any other node. `number` makes names unlike all others.
///
/// # Errors
/// When a condition or the number of turns is not known before anything runs.
pub fn expansion(node: &NodeProto, known: &dyn Known, number: usize) -> Result<Option<Written>> {
    if !nested::is_control_flow(node) {
        return Ok(None);
    }
    let written = match node.op_type.as_str() {
        "If" => branch(node, known, number).map(Written::Nodes),
        "Scan" => scan(node, known, number).map(Written::Nodes),
        _ => Turns::new(node, known).and_then(|turns| turns.next(known, number)),
    };
    written.map(Some).map_err(|reason| format!("{}: {reason}", called(node)))
}

fn graph<'n>(node: &'n NodeProto, name: &str) -> Result<&'n GraphProto> {
    node.attribute(name).and_then(|a| a.g.as_ref()).ok_or_else(|| format!("it has no {name}"))
}

fn identity(from: &str, to: &str) -> NodeProto {
    NodeProto {
        op_type: "Identity".into(),
        name: to.into(),
        input: vec![from.into()],
        output: vec![to.into()],
        ..Default::default()
    }
}

/// The nodes of a graph with names of their own, where its inputs are these values; and what its results are called.
fn spliced(graph: &GraphProto, prefix: &str, inputs: &[String]) -> Result<(Vec<NodeProto>, Vec<String>)> {
    if graph.input.len() != inputs.len() {
        return Err(format!("its graph takes {} values, and is given {}", graph.input.len(), inputs.len()));
    }
    let mut names: HashMap<String, String> =
        graph.input.iter().map(|input| input.name.clone()).zip(inputs.iter().cloned()).collect();
    let own = graph.initializer.iter().map(|tensor| &tensor.name).chain(graph.node.iter().flat_map(|n| &n.output));
    for name in own.filter(|name| !name.is_empty()) {
        names.insert(name.clone(), format!("{prefix}{name}"));
    }
    let mut nodes = Vec::with_capacity(graph.initializer.len() + graph.node.len());
    for tensor in &graph.initializer {
        let name = names[&tensor.name].clone();
        nodes.push(constant(&name, tensor.clone()));
    }
    for node in &graph.node {
        let mut node = node.clone();
        node.name = format!("{prefix}{}", node.name);
        rename(&mut node, &names)?;
        nodes.push(node);
    }
    let results = graph.output.iter().map(|o| names.get(&o.name).unwrap_or(&o.name).clone()).collect();
    Ok((nodes, results))
}

/// Gives what a node, and the graphs inside it, read and make the names that it has outside.
fn rename(node: &mut NodeProto, names: &HashMap<String, String>) -> Result<()> {
    for name in node.input.iter_mut().chain(&mut node.output) {
        if let Some(new) = names.get(name) {
            *name = new.clone();
        }
    }
    for graph in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
        let mut own = graph.input.iter().map(|i| &i.name).chain(graph.initializer.iter().map(|t| &t.name));
        if own.any(|name| names.contains_key(name)) {
            return Err("a graph inside it calls a value as one around it is called".into());
        }
        for inner in &mut graph.node {
            rename(inner, names)?;
        }
        for output in &mut graph.output {
            if let Some(new) = names.get(&output.name) {
                output.name = new.clone();
            }
        }
    }
    Ok(())
}

/// The branch of an If that is taken.
fn branch(node: &NodeProto, known: &dyn Known, number: usize) -> Result<Vec<NodeProto>> {
    let condition = node.given(0).and_then(|name| known.integers(name)).filter(|c| c.len() == 1);
    let condition = condition.ok_or("which branch is taken cannot be told before it is run")?;
    let taken = graph(node, if condition[0] != 0 { "then_branch" } else { "else_branch" })?;
    if let Some(reason) = nested::refusal(taken) {
        return Err(format!("it takes a branch that cannot be run: {reason}"));
    }
    let (mut nodes, results) = spliced(taken, &format!("{number}/"), &[])?;
    nodes
        .extend(results.iter().zip(&node.output).filter(|(_, to)| !to.is_empty()).map(|(from, to)| identity(from, to)));
    Ok(nodes)
}

impl Turns {
    fn new(node: &NodeProto, known: &dyn Known) -> Result<Self> {
        let most = match node.given(0) {
            None => None,
            Some(name) => {
                let most = known.integers(name).filter(|most| most.len() == 1);
                Some(most.ok_or("how often it turns cannot be told before it is run")?[0])
            }
        };
        let body = graph(node, "body")?;
        let carried: Vec<String> = node.input.iter().skip(2).cloned().collect();
        // the condition comes first
        let gathered = body.output.len().checked_sub(1 + carried.len()).ok_or("its graph gives too little")?;
        Ok(Turns {
            node: node.clone(),
            most,
            turn: 0,
            condition: node.given(1).map(str::to_string),
            carried,
            gathered: vec![Vec::new(); gathered],
        })
    }

    /// The nodes of the next turn; or, if there is none, those that make the results. `number` makes names unlike all others.
    ///
    /// # Errors
    /// When it is not known whether there is a next turn.
    pub fn next(mut self, known: &dyn Known, number: usize) -> Result<Written> {
        let holds = match &self.condition {
            None => true,
            Some(name) => {
                let holds = known.integers(name).filter(|c| c.len() == 1);
                holds.ok_or("whether it goes on cannot be told before it is run")?[0] != 0
            }
        };
        if !holds || self.most.is_some_and(|most| self.turn >= most) {
            return Ok(Written::Nodes(self.results(known)));
        }
        if self.turn >= MOST_TURNS {
            return Err(format!("it turns more than {MOST_TURNS} times"));
        }
        let prefix = format!("{number}/");
        let number_of = |name: &str, tensor| constant(&format!("{prefix}{name}"), tensor);
        let turn = number_of("turn", stored(&[], DataType::Int64, self.turn.to_le_bytes().to_vec()));
        let mut nodes = vec![turn];
        let condition = match self.condition.take() {
            Some(name) => name,
            None => {
                nodes.push(number_of("condition", stored(&[], DataType::Bool, vec![1])));
                nodes[1].output[0].clone()
            }
        };
        let inputs: Vec<String> =
            [nodes[0].output[0].clone(), condition].into_iter().chain(self.carried.iter().cloned()).collect();
        let (body, mut results) = spliced(graph(&self.node, "body")?, &format!("{prefix}body/"), &inputs)?;
        nodes.extend(body);
        let gathered = results.split_off(1 + self.carried.len());
        self.gathered.iter_mut().zip(gathered).for_each(|(all, one)| all.push(one));
        self.carried = results.split_off(1);
        self.condition = results.pop();
        self.turn += 1;
        Ok(Written::Turn(nodes, Box::new(self)))
    }

    fn results(self, known: &dyn Known) -> Vec<NodeProto> {
        let mut w = Writer::new(&self.node, known);
        let mut results: Vec<(usize, String)> = self.carried.into_iter().enumerate().collect();
        for all in self.gathered {
            let i = results.len();
            let value = if self.node.result(i).is_some() { together(&mut w, &all, 0) } else { String::new() };
            results.push((i, value));
        }
        w.finish(&self.node, &results)
    }
}

fn constant(name: &str, tensor: crate::pb::TensorProto) -> NodeProto {
    let value = AttributeProto {
        name: "value".into(),
        t: Some(tensor),
        r#type: AttributeType::Tensor as i32,
        ..Default::default()
    };
    NodeProto {
        op_type: "Constant".into(),
        name: name.into(),
        output: vec![name.into()],
        attribute: vec![value],
        ..Default::default()
    }
}

/// Values as one, along a dimension of its own; none of no values.
fn together(w: &mut Writer, all: &[String], axis: usize) -> String {
    if all.is_empty() {
        return String::new();
    }
    let parts: Vec<String> = all.iter().map(|name| w.unsqueeze(name, axis)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    w.with("Concat", &parts, vec![int("axis", axis as i64)])
}

/// A Scan: one turn for each index of a dimension of what it goes over.
fn scan(node: &NodeProto, known: &dyn Known, number: usize) -> Result<Vec<NodeProto>> {
    if known.opset() < 9 {
        return Err(unknown("its form before opset 9"));
    }
    let body = graph(node, "body")?;
    let over = node.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok());
    let over = over.filter(|n| (1..=node.input.len()).contains(n)).ok_or("it goes over nothing")?;
    let states = node.input.len() - over;
    let gathered = body.output.len().checked_sub(states).ok_or("its graph gives too little")?;
    let listed = |name: &str, i: usize, len: usize| match node.ints(name) {
        None => Ok(0),
        Some(all) if all.len() == len => Ok(all[i]),
        Some(_) => Err(format!("its {name} are not {len}")),
    };
    let (mut axes, mut turns) = (Vec::new(), None);
    for i in 0..over {
        let dims = shape(node, known, states + i)?;
        let axis = from_the_start(listed("scan_input_axes", i, over)?, dims.len())?;
        if *turns.get_or_insert(dims[axis]) != dims[axis] {
            return Err("what it goes over is not of one length".into());
        }
        axes.push(axis);
    }
    let turns = turns.unwrap_or(0);
    if turns as i64 > MOST_TURNS {
        return Err(format!("it turns more than {MOST_TURNS} times"));
    }
    let mut w = Writer::new(node, known);
    let mut state: Vec<String> = node.input[..states].to_vec();
    let mut given: Vec<Vec<String>> = vec![Vec::new(); gathered];
    let mut nodes = Vec::new();
    for turn in 0..turns {
        let mut inputs = state;
        for (i, axis) in axes.iter().enumerate() {
            let backward = listed("scan_input_directions", i, over)? == 1;
            let index = w.integers(&[], &[if backward { turns - 1 - turn } else { turn } as i64]);
            let name = node.given(states + i).unwrap_or_default();
            inputs.push(w.with("Gather", &[name, &index], vec![int("axis", *axis as i64)]));
        }
        let (body, mut results) = spliced(body, &format!("{number}/{turn}/"), &inputs)?;
        nodes.extend(body);
        let gave = results.split_off(states);
        given.iter_mut().zip(gave).for_each(|(all, one)| all.push(one));
        state = results;
    }
    // what is gathered is of the rank that its graph's results have, which is not known yet: axes count from the front
    let taken = w.take();
    let mut results: Vec<(usize, String)> = state.into_iter().enumerate().collect();
    for (i, mut all) in given.into_iter().enumerate() {
        let axis = listed("scan_output_axes", i, gathered)?;
        let axis = usize::try_from(axis).map_err(|_| unknown("a result along a dimension counted from the end"))?;
        if listed("scan_output_directions", i, gathered)? == 1 {
            all.reverse();
        }
        let value = if node.result(states + i).is_some() { together(&mut w, &all, axis) } else { String::new() };
        results.push((states + i, value));
    }
    let after = w.finish(node, &results);
    Ok(taken.into_iter().chain(nodes).chain(after).collect())
}
