//! Scales of channels before they are rounded, made up for in the weights that read them (SmoothQuant, arXiv 2211.10438), and
//! where in the graph the division may be done at no cost.

use onnx::pb::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// How the channels of a value are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fold {
    /// By a step of its own.
    Step,
    /// By dividing what the value is made of, which is stored or depends on time and conditions alone.
    Into(Vec<Edit>),
}

/// What is divided in the place of a value: input `input` of node `node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The node's number.
    pub node: usize,
    /// Its input.
    pub input: usize,
}

/// What channels are divided by, for the greatest numbers of a value's channels and of the weights that read them.
pub fn scales(values: &[f32], weights: &[f32], exponent: f32) -> Vec<f32> {
    let plain: Vec<f32> = values.iter().zip(weights).map(|(v, w)| v.powf(exponent) / w.powf(1.0 - exponent)).collect();
    let mean = plain.iter().map(|s| s.ln()).sum::<f32>() / plain.len().max(1) as f32;
    plain.iter().map(|s| (s / mean.exp()).clamp(1.0 / 64.0, 64.0)).collect()
}

/// Finds where values can be divided.
pub struct Folder<'g> {
    graph: &'g GraphProto,
    shapes: &'g HashMap<String, Vec<usize>>,
    makers: HashMap<&'g str, usize>,
    readers: HashMap<&'g str, usize>,
    stored: HashMap<&'g str, &'g [i64]>,
    /// The values that depend on the sample.
    of_sample: HashSet<&'g str>,
}

impl<'g> Folder<'g> {
    /// Of a graph whose values are of these shapes, and whose input of the sample is called so.
    pub fn new(graph: &'g GraphProto, shapes: &'g HashMap<String, Vec<usize>>, sample: &'g str) -> Self {
        let makers = graph.node.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i)));
        let mut readers: HashMap<&str, usize> = HashMap::new();
        graph.node.iter().flat_map(onnx::order::reads).for_each(|name| *readers.entry(name).or_default() += 1);
        graph.output.iter().for_each(|o| *readers.entry(&o.name).or_default() += 1);
        let mut of_sample = HashSet::from([sample]);
        for node in &graph.node {
            if onnx::order::reads(node).iter().any(|name| of_sample.contains(name)) {
                of_sample.extend(node.output.iter().map(String::as_str));
            }
        }
        let stored = graph.initializer.iter().map(|t| (t.name.as_str(), t.dims.as_slice())).collect();
        Folder { graph, shapes, makers: makers.collect(), readers, stored, of_sample }
    }

    /// How a value of `k` channels, its last dimension, that `readers` nodes read is divided.
    pub fn fold(&self, name: &str, k: usize, readers: usize) -> Fold {
        let mut edits = Vec::new();
        let all_read_it_so = self.readers.get(name) == Some(&readers);
        if all_read_it_so && self.divide(name, k, &mut edits) { Fold::Into(edits) } else { Fold::Step }
    }

    fn divide(&self, name: &str, k: usize, edits: &mut Vec<Edit>) -> bool {
        let Some(&i) = self.makers.get(name) else { return false };
        let node = &self.graph.node[i];
        let mut all = |inputs: &[usize]| inputs.iter().all(|input| self.divide_input((i, node), *input, k, edits));
        match node.op_type.as_str() {
            "Add" => all(&[0, 1]),
            "Mul" => {
                // the one that costs nothing to divide
                let of_run =
                    |input: &&usize| node.input.get(**input).is_some_and(|n| self.of_sample.contains(n.as_str()));
                let input = [0, 1].iter().find(|input| !of_run(input)).copied().unwrap_or(0);
                all(&[input])
            }
            "LayerNormalization" => node.input.len() == 3 && all(&[1, 2]),
            _ => false,
        }
    }

    fn divide_input(&self, (i, node): (usize, &NodeProto), input: usize, k: usize, edits: &mut Vec<Edit>) -> bool {
        let Some(name) = node.input.get(input).map(String::as_str) else { return false };
        let fits = |last: Option<usize>| last == Some(k);
        let direct = match self.stored.get(name) {
            // a number for each channel: one for all is part of a function that is recognised as a whole, such as GELU
            Some(dims) => dims.last() == Some(&(k as i64)),
            None => !self.of_sample.contains(name) && fits(self.shapes.get(name).and_then(|s| s.last().copied())),
        };
        if direct {
            edits.push(Edit { node: i, input });
            return true;
        }
        self.of_sample.contains(name) && self.readers.get(name) == Some(&1) && self.divide(name, k, edits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::graph::{node, tensor_f32};

    /// LN(x) (1 + scale) + shift, of which scale and shift are made of the time, as a DiT has it; then a product by one number.
    fn graph() -> (GraphProto, HashMap<String, Vec<usize>>) {
        let graph = GraphProto {
            node: vec![
                node("LayerNormalization", &["x", "ones"], "normed", &[]),
                node("Add", &["scale", "one"], "more", &[]),
                node("Mul", &["normed", "more"], "scaled", &[]),
                node("Add", &["scaled", "shift"], "y", &[]),
                node("Mul", &["y", "half"], "z", &[]),
                node("Identity", &["z"], "out", &[]),
            ],
            initializer: vec![
                tensor_f32("ones", &[3], &[1.0; 3]),
                tensor_f32("one", &[], &[1.0]),
                tensor_f32("half", &[], &[0.5]),
            ],
            ..Default::default()
        };
        let shapes = ["scale", "shift", "more"].map(|name| (name.to_string(), vec![1, 1, 3]));
        (graph, HashMap::from(shapes))
    }

    #[test]
    fn what_time_makes_is_divided_in_the_place_of_the_value() {
        let (graph, shapes) = graph();
        let folder = Folder::new(&graph, &shapes, "x");
        let (scale, shift) = (Edit { node: 2, input: 1 }, Edit { node: 3, input: 1 });
        assert_eq!(folder.fold("y", 3, 1), Fold::Into(vec![scale, shift]));
        // somebody else reads it, too
        assert_eq!(folder.fold("y", 3, 0), Fold::Step);
        // by one number for all channels nothing can be divided
        assert_eq!(folder.fold("z", 3, 1), Fold::Step);
        assert_eq!(folder.fold("x", 3, 1), Fold::Step);
    }

    #[test]
    fn scales_go_from_those_of_values_to_those_of_weights() {
        let of = |exponent| scales(&[4.0, 1.0], &[1.0, 1.0], exponent);
        assert!((of(0.5)[0] / of(0.5)[1] - 2.0).abs() < 1e-5);
        assert!((of(1.0)[0] / of(1.0)[1] - 4.0).abs() < 1e-5);
    }
}
