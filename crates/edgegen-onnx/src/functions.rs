//! Functions of a model's own, written out where they are called.
//!
//! A function may be called like an operator of ONNX, or call others, so this comes before anything that goes by
//! operators' names.

use crate::Result;
use crate::pb::{AttributeProto, FunctionProto, ModelProto, NodeProto};
use crate::signature::{is_standard, shown};
use std::collections::{HashMap, HashSet};

/// The most nodes that calls may make: functions that call functions make many of few.
const MOST_NODES: usize = 1 << 17;

/// What a function is called by: domain, name, overload.
type Name = (String, String, String);

/// A call that is being written out.
struct Call {
    /// What makes its names unlike all others.
    prefix: String,
    /// The values of the graph that stand for the function's own.
    names: HashMap<String, String>,
    /// What the caller says, by name.
    attributes: HashMap<String, AttributeProto>,
    /// The function's nodes that are left, the last first.
    left: Vec<NodeProto>,
    function: Option<Name>,
}

/// Replaces every call of a function of the model's own by the function's nodes.
///
/// # Errors
/// When a function calls itself, is written in another opset than the model, or holds graphs, and when there would be too
/// many nodes.
pub fn inline(model: &mut ModelProto) -> Result<()> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let functions: HashMap<Name, FunctionProto> =
        std::mem::take(&mut model.functions).into_iter().map(|f| (name_of(&f), f)).collect();
    let opsets = model.opset_import.iter().map(|o| (domain(&o.domain), o.version)).collect();
    let Some(graph) = model.graph.as_mut() else { return Ok(()) };
    let mut made = Vec::with_capacity(graph.node.len());
    let left = std::mem::take(&mut graph.node).into_iter().rev().collect();
    // calls in calls, the innermost last: not on the stack, which a file could make overflow
    let mut calls =
        vec![Call { prefix: String::new(), names: HashMap::new(), attributes: HashMap::new(), left, function: None }];
    let (mut running, mut count) = (HashSet::new(), 0);
    while let Some(call) = calls.last_mut() {
        let Some(node) = call.left.pop() else {
            calls.pop().and_then(|call| call.function).inspect(|name| _ = running.remove(name));
            continue;
        };
        let node = call.written_out(node)?;
        let name = (domain(&node.domain), node.op_type.clone(), node.overload.clone());
        let Some(function) = functions.get(&name) else {
            made.push(node);
            if made.len() > MOST_NODES && calls.len() > 1 {
                return Err(format!("the model's functions make more than {MOST_NODES} nodes"));
            }
            continue;
        };
        if !running.insert(name.clone()) {
            return Err(format!("the model's function {} calls itself", shown(&function.name)));
        }
        count += 1;
        if count > MOST_NODES {
            return Err(format!("the model's functions are called more than {MOST_NODES} times"));
        }
        check_opsets(function, &opsets)?;
        let (call, passed_on) = Call::of(function, &node, name, format!("{}/{count}/", function.name))?;
        made.extend(passed_on);
        calls.push(call);
    }
    graph.node = made;
    Ok(())
}

fn domain(given: &str) -> String {
    if is_standard(given) { String::new() } else { given.into() }
}

fn name_of(function: &FunctionProto) -> Name {
    (domain(&function.domain), function.name.clone(), function.overload.clone())
}

/// A function written in another version of ONNX means other things by the same nodes.
fn check_opsets(function: &FunctionProto, model: &HashMap<String, i64>) -> Result<()> {
    for import in &function.opset_import {
        if model.get(&domain(&import.domain)).is_some_and(|version| *version != import.version) {
            let (name, version) = (shown(&function.name), import.version);
            return Err(format!("the model's function {name} is written in opset {version}, unlike the model"));
        }
    }
    Ok(())
}

impl Call {
    /// The call that `node` is, and nodes for inputs that are results as they are.
    fn of(function: &FunctionProto, node: &NodeProto, name: Name, prefix: String) -> Result<(Self, Vec<NodeProto>)> {
        let shown = shown(&function.name);
        if node.input.len() > function.input.len() || node.output.len() > function.output.len() {
            return Err(format!("the model's function {shown} is called with more than it takes or gives"));
        }
        let mut names = HashMap::new();
        for (i, formal) in function.input.iter().enumerate() {
            names.insert(formal.clone(), node.input.get(i).cloned().unwrap_or_default());
        }
        let mut passed_on = Vec::new();
        for (formal, actual) in function.output.iter().zip(&node.output).filter(|(_, actual)| !actual.is_empty()) {
            match names.get(formal) {
                Some(input) => passed_on.push(NodeProto {
                    op_type: "Identity".into(),
                    name: actual.clone(),
                    input: vec![input.clone()],
                    output: vec![actual.clone()],
                    ..Default::default()
                }),
                None => _ = names.insert(formal.clone(), actual.clone()),
            }
        }
        let mut attributes: HashMap<_, _> =
            function.attribute_proto.iter().map(|a| (a.name.clone(), a.clone())).collect();
        for given in &node.attribute {
            if !attributes.contains_key(&given.name) && !function.attribute.contains(&given.name) {
                return Err(format!("the model's function {shown} has no attribute {}", self::shown(&given.name)));
            }
            attributes.insert(given.name.clone(), given.clone());
        }
        let left = function.node.iter().rev().cloned().collect();
        Ok((Call { prefix, names, attributes, left, function: Some(name) }, passed_on))
    }

    /// A node of the function with the values and attributes of this call.
    fn written_out(&mut self, mut node: NodeProto) -> Result<NodeProto> {
        if self.function.is_none() {
            return Ok(node);
        }
        for name in node.input.iter_mut().chain(&mut node.output).filter(|name| !name.is_empty()) {
            let own = format!("{}{name}", self.prefix);
            *name = self.names.entry(std::mem::take(name)).or_insert(own).clone();
        }
        node.name = format!("{}{}", self.prefix, node.name);
        let mut attributes = Vec::with_capacity(node.attribute.len());
        for given in node.attribute {
            if given.g.is_some() || !given.graphs.is_empty() {
                return Err(format!("{}: a graph in a function is not supported", shown(&node.name)));
            }
            if given.ref_attr_name.is_empty() {
                attributes.push(given);
            } else if let Some(value) = self.attributes.get(&given.ref_attr_name) {
                // what the call does not say is left out: the operator's default holds
                attributes.push(AttributeProto { name: given.name, ..value.clone() });
            }
        }
        node.attribute = attributes;
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::attribute_proto::AttributeType;
    use crate::pb::{GraphProto, OperatorSetIdProto};

    fn node(op: &str, input: &[&str], output: &[&str]) -> NodeProto {
        let texts = |all: &[&str]| all.iter().map(|s| s.to_string()).collect();
        NodeProto { op_type: op.into(), input: texts(input), output: texts(output), ..Default::default() }
    }

    fn own(node: NodeProto) -> NodeProto {
        NodeProto { domain: "own".into(), ..node }
    }

    fn function(name: &str, input: &[&str], output: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
        let call = node(name, input, output);
        let (input, output) = (call.input, call.output);
        FunctionProto { name: name.into(), domain: "own".into(), input, output, node: nodes, ..Default::default() }
    }

    fn inlined(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Result<Vec<String>> {
        let import = OperatorSetIdProto { domain: String::new(), version: 17 };
        let graph = Some(GraphProto { node: nodes, ..Default::default() });
        let mut model = ModelProto { graph, functions, opset_import: vec![import], ..Default::default() };
        inline(&mut model)?;
        let text = |n: &NodeProto| {
            let attributes: Vec<String> = n.attribute.iter().map(|a| format!("{}={}", a.name, a.f)).collect();
            format!("{} = {}({}){}", n.output.join(" "), n.op_type, n.input.join(" "), attributes.join(" "))
        };
        Ok(model.graph.unwrap().node.iter().map(text).collect())
    }

    #[test]
    fn calls_become_the_nodes_of_their_functions() {
        let twice = function(
            "twice",
            &["a"],
            &["c"],
            vec![own(node("once", &["a"], &["b"])), own(node("once", &["b"], &["c"]))],
        );
        let once =
            function("once", &["a"], &["b"], vec![node("Tanh", &["a"], &["h"]), node("Add", &["a", "h"], &["b"])]);
        let nodes = vec![own(node("twice", &["x"], &["y"])), node("Relu", &["y"], &["z"])];
        let expected = [
            "once/2/h = Tanh(x)",
            "twice/1/b = Add(x once/2/h)",
            "once/3/h = Tanh(twice/1/b)",
            "y = Add(twice/1/b once/3/h)",
            "z = Relu(y)",
        ];
        assert_eq!(inlined(nodes, vec![twice, once]).unwrap(), expected);
    }

    #[test]
    fn inputs_may_be_left_out_and_passed_on() {
        let clip = function("clip", &["a", "l", "h"], &["b", "a"], vec![node("Clip", &["a", "l", "h"], &["b"])]);
        let nodes = vec![own(node("clip", &["x", "", "m"], &["y", "z"])), own(node("clip", &["y"], &["w"]))];
        let expected = ["z = Identity(x)", "y = Clip(x  m)", "w = Clip(y  )"];
        assert_eq!(inlined(nodes, vec![clip]).unwrap(), expected);
    }

    #[test]
    fn attributes_come_from_the_call_then_from_the_function() {
        let float = |name: &str, f: f32| AttributeProto {
            name: name.into(),
            f,
            r#type: AttributeType::Float as i32,
            ..Default::default()
        };
        let refers = AttributeProto { ref_attr_name: "slope".into(), ..float("alpha", 0.0) };
        let body = NodeProto { attribute: vec![refers], ..node("LeakyRelu", &["a"], &["b"]) };
        let leaky = function("leaky", &["a"], &["b"], vec![body]);
        let call = own(node("leaky", &["x"], &["y"]));
        let with = NodeProto { attribute: vec![float("slope", 0.25)], ..call.clone() };
        let by_default = FunctionProto { attribute_proto: vec![float("slope", 0.5)], ..leaky.clone() };
        let named = FunctionProto { attribute: vec!["slope".into()], ..leaky.clone() };
        let cases = [
            (&call, &by_default, Ok("y = LeakyRelu(x)alpha=0.5")),
            (&with, &by_default, Ok("y = LeakyRelu(x)alpha=0.25")),
            (&with, &named, Ok("y = LeakyRelu(x)alpha=0.25")),
            (&call, &named, Ok("y = LeakyRelu(x)")),
            (&with, &leaky, Err("has no attribute slope")),
        ];
        for (call, function, expected) in cases {
            match (inlined(vec![call.clone()], vec![function.clone()]), expected) {
                (Ok(nodes), Ok(text)) => assert_eq!(nodes, [text]),
                (Err(line), Err(words)) => assert!(line.contains(words), "{line}"),
                (other, expected) => panic!("{other:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn what_would_not_end_is_refused() {
        let again = function("again", &["a"], &["b"], vec![own(node("again", &["a"], &["b"]))]);
        let line = inlined(vec![own(node("again", &["x"], &["y"]))], vec![again]).unwrap_err();
        assert!(line.contains("again calls itself"), "{line}");
        // each calls the next ten times: 10^20 nodes
        let level = |i: usize| {
            let nodes = (0..10).map(|_| own(node(&format!("f{}", i + 1), &["a"], &["b"]))).collect();
            function(&format!("f{i}"), &["a"], &["b"], nodes)
        };
        let functions = (0..20).map(level).chain([function("f20", &["a"], &["b"], vec![node("Neg", &["a"], &["b"])])]);
        let line = inlined(vec![own(node("f0", &["x"], &["y"]))], functions.collect()).unwrap_err();
        assert!(line.contains("more than"), "{line}");
        // a long chain of functions is no deep stack
        let link = |i: usize| {
            function(&format!("f{i}"), &["a"], &["b"], vec![own(node(&format!("f{}", i + 1), &["a"], &["b"]))])
        };
        let nodes = inlined(vec![own(node("f0", &["x"], &["y"]))], (0..1000).map(link).collect()).unwrap();
        assert_eq!(nodes, ["y = f1000(x)"]);
    }
}
