//! An ONNX graph as the plan's compiler reads it: what depends on stored tensors alone is worked out, and every other
//! value has a known shape.

use crate::constant::{Constant, LARGEST_WHOLE, count};
use crate::ops::{Operator, operator};
use crate::reason::Reason;
use onnx::budget::Budget;
use onnx::order;
use onnx::pb::tensor_proto::DataType;
use onnx::pb::{GraphProto, NodeProto};
use onnx::signature::{called, is_default, types_as_computed};
use std::collections::{HashMap, HashSet};

/// What is known of an input of the graph.
pub struct GraphInput<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Whether it holds whole numbers.
    pub integer: bool,
}

/// A graph with its constants folded and its shapes known.
pub struct Graph<'a> {
    /// The nodes that are left, in an order in which they can run.
    pub nodes: Vec<&'a NodeProto>,
    constants: HashMap<&'a str, Constant>,
    shapes: HashMap<&'a str, Vec<usize>>,
    /// What values are made of, computed ones too.
    types: HashMap<&'a str, DataType>,
    /// The version of ONNX's operators that the nodes are of.
    pub opset: i64,
    consumers: HashMap<&'a str, Vec<usize>>,
    /// What the caller gets.
    results: HashSet<&'a str>,
    /// The node that makes a value.
    makers: HashMap<&'a str, usize>,
    /// How many nodes and results have yet to read a value.
    readers: HashMap<&'a str, usize>,
    budget: &'a Budget,
    /// How many numbers may still be made of stored tensors.
    foldable: usize,
    /// Whether nodes of which nothing is known are passed over.
    partial: bool,
    /// Nodes that read larger stored tensors are not worked out.
    largest_folded: usize,
    /// How large values of whole numbers become at most.
    whole: HashMap<&'a str, f64>,
}

/// How many numbers all operators on stored tensors alone may make at least, and how many for each that is stored: a small
/// file must not become large in memory, nor take long to read. A causal mask of 4096 by 4096 has the first number.
const FOLDABLE: usize = 1 << 24;
const FOLDABLE_TIMES: usize = 8;

/// The largest whole number that an input is taken to have where whole numbers are computed with: no time, label or token
/// has a larger one.
const LARGEST_GIVEN: f64 = 65536.0;

/// What a shape rule is told.
pub struct Inference<'n> {
    /// The node.
    pub node: &'n NodeProto,
    graph: &'n Graph<'n>,
}

impl<'n> Inference<'n> {
    /// The shape of input `i`.
    ///
    /// # Errors
    /// When it is not known.
    pub fn shape(&self, i: usize) -> Result<&'n [usize], Reason> {
        let name = self.node.input.get(i).map(String::as_str).unwrap_or_default();
        self.graph.dims(name).ok_or_else(|| format!("the shape of its input '{name}' is not known").into())
    }

    /// The version of ONNX's operators that the node is of.
    pub fn opset(&self) -> i64 {
        self.graph.opset
    }

    /// Input `i`, if it is a stored tensor.
    pub fn stored(&self, i: usize) -> Option<&'n Constant> {
        self.graph.constant_input(self.node, i)
    }

    /// Input `i`, which must be a stored tensor.
    ///
    /// # Errors
    /// When it is none.
    pub fn required(&self, i: usize) -> Result<&'n Constant, Reason> {
        self.stored(i).ok_or_else(|| format!("its input {i} is not a stored tensor").into())
    }

    /// All inputs, as far as they are stored tensors.
    pub fn all_stored(&self) -> Vec<Option<&'n Constant>> {
        (0..self.node.input.len()).map(|i| self.stored(i)).collect()
    }
}

/// What is said of a form of an operator for which there is no rule.
pub fn unknown_form() -> Reason {
    "of an unknown form".into()
}

impl<'a> Graph<'a> {
    /// Reads `graph` of this opset, whose nodes are [in order](order::sort) and whose inputs are of these shapes, in time that grows
    /// with its size. Stored tensors, and those that are made of them, are taken from the budget.
    ///
    /// # Errors
    /// The first node whose result's shape cannot be told.
    pub fn new(
        graph: &'a GraphProto,
        opset: i64,
        inputs: &[GraphInput<'a>],
        budget: &'a Budget,
    ) -> Result<Self, Reason> {
        Self::read_all(graph, opset, inputs, budget, false)
    }

    /// The same of a graph with nodes of which nothing is known: the shapes of their results, and of what depends on these,
    /// are not known either.
    ///
    /// # Errors
    /// When the graph contradicts itself, or makes too much of its stored tensors.
    pub fn known_part(
        graph: &'a GraphProto,
        opset: i64,
        inputs: &[GraphInput<'a>],
        budget: &'a Budget,
    ) -> Result<Self, Reason> {
        Self::read_all(graph, opset, inputs, budget, true)
    }

    fn read_all(
        graph: &'a GraphProto,
        opset: i64,
        inputs: &[GraphInput<'a>],
        budget: &'a Budget,
        partial: bool,
    ) -> Result<Self, Reason> {
        let mut all = Self::before_nodes(graph, opset, inputs, budget, partial)?;
        debug_assert!(order::is_sorted(graph), "nodes are put in order where a file is read, and passes keep it");
        for node in &graph.node {
            match all.read(node) {
                Err(Reason::Unsupported(_)) if partial => {}
                read => read?,
            }
        }
        for (i, node) in all.nodes.iter().enumerate() {
            node.input.iter().for_each(|name| all.consumers.entry(name).or_default().push(i));
            node.output.iter().for_each(|name| _ = all.makers.insert(name, i));
        }
        Ok(all)
    }

    /// The graph's inputs and stored tensors, before any node is [read](Self::read).
    ///
    /// # Errors
    /// When they are too large.
    pub fn before_nodes(
        graph: &'a GraphProto,
        opset: i64,
        inputs: &[GraphInput<'a>],
        budget: &'a Budget,
        partial: bool,
    ) -> Result<Self, Reason> {
        let mut all = Graph {
            nodes: Vec::new(),
            constants: HashMap::new(),
            shapes: inputs.iter().map(|i| (i.name, i.dims.clone())).collect(),
            types: types_as_computed(graph, opset),
            opset,
            consumers: HashMap::new(),
            results: graph.output.iter().map(|output| output.name.as_str()).collect(),
            makers: HashMap::new(),
            readers: HashMap::new(),
            budget,
            foldable: FOLDABLE,
            partial,
            largest_folded: usize::MAX,
            whole: inputs.iter().filter(|i| i.integer).map(|i| (i.name, LARGEST_GIVEN)).collect(),
        };
        inputs.iter().try_for_each(|i| count(&i.dims).map(|_| ()))?;
        for tensor in &graph.initializer {
            if let Some(constant) = Constant::read(tensor) {
                let numbers = constant.len();
                all.take_numbers(numbers)?;
                all.foldable = all.foldable.saturating_add(numbers.saturating_mul(FOLDABLE_TIMES));
                all.constants.insert(tensor.name.as_str(), constant);
            }
        }
        let results = graph.output.iter().map(|o| &o.name);
        for name in graph.node.iter().flat_map(|n| &n.input).chain(results) {
            *all.readers.entry(name).or_default() += 1;
        }
        Ok(all)
    }

    /// Leaves what is made of large stored tensors to be: for who asks for shapes, and for what shapes are made of.
    pub fn fold_small_ones(&mut self) {
        self.largest_folded = 1 << 16;
    }

    /// Works a node out, or tells its results' shapes.
    ///
    /// # Errors
    /// When neither is known, or the node contradicts what it reads.
    pub fn read(&mut self, node: &'a NodeProto) -> Result<(), Reason> {
        let named = |e: Reason| e.context(called(node));
        // each value is made once, so that following a value never comes back to it
        let known = |name: &String| !name.is_empty() && self.dims(name).is_some();
        let mut names = HashSet::new();
        let doubled = node.output.iter().any(|name| !name.is_empty() && !names.insert(name));
        if doubled || node.output.iter().any(known) {
            return Err(named(Reason::Malformed("its results have no names of their own".into())));
        }
        if node.output.first().is_none_or(String::is_empty) {
            return Err(named("it has no first result".into()));
        }
        let operator = operator(&node.op_type).ok_or_else(|| named("there is no kernel for this operator".into()))?;
        self.check_attributes(operator, node).map_err(named)?;
        if let Some(results) = self.fold(operator, node).map_err(named)? {
            let numbers = results.iter().map(Constant::len).sum();
            self.take_numbers(numbers).map_err(named)?;
            let left = self.foldable.checked_sub(numbers);
            self.foldable = left.ok_or_else(|| named(Reason::TooLarge("its result is too large".into())))?;
            self.constants.extend(node.output.iter().map(String::as_str).zip(results));
            // where only shapes are asked for, they are asked for of every value
            if !self.partial {
                self.forget_inputs(node);
            }
            return Ok(());
        }
        let inference = Inference { node, graph: self };
        if let Some(constant) = (operator.known_from_shapes)(&inference).map_err(named)? {
            self.constants.insert(&node.output[0], constant);
            return Ok(());
        }
        let shapes = (operator.infer)(&inference).map_err(named)?;
        if !self.partial {
            self.check_types(operator, node).map_err(named)?;
        }
        for dims in &shapes {
            if count(dims).map_err(named)? == 0 {
                return Err(named("its result is empty".into()));
            }
        }
        for (name, dims) in node.output.iter().zip(shapes) {
            self.shapes.insert(name, dims);
        }
        if let Some(most) = self.most(node) {
            self.whole.insert(&node.output[0], most);
        }
        self.nodes.push(node);
        Ok(())
    }

    /// Whether the operator's file reads all that the node's attributes say: one that it does not know of might mean
    /// anything, unless it says what would hold without it.
    fn check_attributes(&self, operator: &Operator, node: &NodeProto) -> Result<(), Reason> {
        let unread = node
            .attribute
            .iter()
            .find(|given| !operator.attributes.contains(&given.name.as_str()) && !is_default(node, given, self.opset));
        match unread {
            Some(given) => Err(format!("its attribute {} is not supported", given.name).into()),
            None => Ok(()),
        }
    }

    /// Whether the node's values may be computed with as f32: integers and doubles may not, but where they are only moved
    /// or converted, and stored integers that f32 does not hold.
    fn check_types(&self, operator: &Operator, node: &NodeProto) -> Result<(), Reason> {
        // as exporters give a time the batch's length
        let by_one = |i: usize| self.constant_input(node, i).and_then(Constant::uniform) == Some(1.0);
        if operator.any_type || (node.op_type == "Mul" && (by_one(0) || by_one(1))) || self.computes_small(node) {
            return Ok(());
        }
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            match (self.constant(name), self.types.get(name.as_str())) {
                (Some(stored), _) if !stored.exact => {
                    return Err("it computes with integers beyond 2^24".into());
                }
                // whole numbers of a run are exact: nothing computes with them
                (None, Some(DataType::Bool | DataType::Int32 | DataType::Int64)) if operator.truths => {}
                (None, Some(element)) if *element != DataType::Float => {
                    return Err(format!("it computes with values of the type {element:?}").into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a node computes with whole numbers that stay so small that f32 holds them, in a way that gives whole ones.
    fn computes_small(&self, node: &NodeProto) -> bool {
        let whole = |name: &String| matches!(self.type_of(name), Some(DataType::Int32 | DataType::Int64));
        node.input.iter().filter(|name| !name.is_empty()).all(whole)
            && self.most(node).is_some_and(|most| most <= LARGEST_WHOLE)
    }

    /// The largest whole number, of either sign, that a node makes of what is known of those that it reads; `None` where this
    /// is not followed.
    fn most(&self, node: &NodeProto) -> Option<f64> {
        let of = |i: usize| {
            let name = node.input.get(i)?;
            match self.constant(name) {
                Some(stored) => Some(stored.values.iter().fold(0.0, |most, v| f64::from(v.abs()).max(most))),
                None => self.whole.get(name.as_str()).copied(),
            }
        };
        // what divides may not be zero
        let divisor = || self.constant_input(node, 1).filter(|by| by.exact && by.values.iter().all(|v| *v != 0.0));
        let lengths = |name: &String| self.dims(name).map(|dims| dims.iter().product::<usize>() as f64);
        match (node.op_type.as_str(), node.input.len()) {
            ("Add" | "Sub", 2) => Some(of(0)? + of(1)?),
            ("Mul", 2) => Some(of(0)? * of(1)?),
            ("Div", 2) => divisor().and(of(0)),
            ("Mod", 2) => divisor().and(of(0)).and(of(1)),
            ("Min" | "Max", 2) => Some(of(0)?.max(of(1)?)),
            ("Where", 3) => Some(of(1)?.max(of(2)?)),
            ("Neg" | "Abs" | "Sign" | "Clip", 1..) => of(0),
            ("ReduceMax" | "ReduceMin", 1..) => of(0),
            // of as many as each is made of
            ("ReduceSum" | "CumSum", 1..) => Some(of(0)? * lengths(node.input.first()?)?),
            ("Concat", 1..) => (0..node.input.len()).map(of).try_fold(0.0, |most: f64, next| Some(most.max(next?))),
            ("Reshape" | "Unsqueeze" | "Squeeze" | "Expand" | "Transpose" | "Identity" | "Flatten", 1..) => of(0),
            ("Slice" | "Gather" | "GatherElements" | "GatherND" | "Split" | "Tile", 1..) => of(0),
            ("ArgMax" | "ArgMin", 1) => lengths(node.input.first()?),
            ("Cast", 1) if self.type_of(node.input.first()?) == Some(DataType::Bool) => Some(1.0),
            // times and labels, which come from outside
            ("Cast", 1) => Some(of(0).unwrap_or(LARGEST_GIVEN)),
            _ => None,
        }
    }

    /// What a node makes of stored tensors, if all that it reads are such.
    fn fold(&self, operator: &Operator, node: &NodeProto) -> Result<Option<Vec<Constant>>, Reason> {
        let input: Vec<Option<&Constant>> = node.input.iter().map(|n| self.constants.get(n.as_str())).collect();
        if input.iter().zip(&node.input).any(|(stored, name)| stored.is_none() && !name.is_empty()) {
            return Ok(None);
        }
        // operators make no more of stored tensors than they have, but for a bounded number (`made`)
        let largest = input.iter().flatten().map(|stored| stored.len()).max().unwrap_or(0);
        if largest > self.largest_folded {
            return Ok(None);
        }
        self.budget.fits(largest.saturating_mul(4)).map_err(Reason::TooLarge)?;
        if !operator.any_type {
            if input.iter().flatten().any(|stored| !stored.exact) {
                return Err("it computes with integers beyond 2^24".into());
            }
            if input.iter().flatten().any(|stored| stored.kind == DataType::Double) {
                return Err("it computes with doubles".into());
            }
        }
        (operator.fold)(node, &input)
    }

    /// Takes the memory of so many numbers from the model's budget.
    ///
    /// # Errors
    /// When there is not as much left.
    pub fn take_numbers(&self, count: usize) -> Result<(), Reason> {
        self.budget.take_numbers(count).map_err(Reason::TooLarge)
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// As [`take_numbers`](Self::take_numbers).
    pub fn take_bytes(&self, count: usize) -> Result<(), Reason> {
        self.budget.take(count).map_err(Reason::TooLarge)
    }

    /// How many bytes are left of the budget, of which so many are about to be needed.
    ///
    /// # Errors
    /// When there is not as much left.
    pub fn room_for(&self, bytes: usize) -> Result<usize, Reason> {
        self.budget.fits(bytes).map_err(Reason::TooLarge)?;
        Ok(self.budget.left())
    }

    /// What was worked out from a large tensor alone is all that is needed of it.
    fn forget_inputs(&mut self, node: &'a NodeProto) {
        for name in &node.input {
            let count = self.readers.entry(name).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.constants.remove(name.as_str());
            }
        }
    }

    /// The stored tensor of this name.
    pub fn constant(&self, name: &str) -> Option<&Constant> {
        self.constants.get(name)
    }

    /// The stored tensor that is input `i` of `node`.
    pub fn constant_input(&self, node: &NodeProto, i: usize) -> Option<&Constant> {
        self.constant(node.input.get(i)?)
    }

    /// The dimensions of the value of this name.
    pub fn dims(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).or_else(|| self.constants.get(name).map(|c| &c.dims)).map(Vec::as_slice)
    }

    /// What the value of this name is made of.
    pub fn type_of(&self, name: &str) -> Option<DataType> {
        self.constants.get(name).map(|c| c.kind).or_else(|| self.types.get(name).copied())
    }

    /// The node that makes the value of this name.
    pub fn maker(&self, name: &str) -> Option<&'a NodeProto> {
        self.makers.get(name).map(|i| self.nodes[*i])
    }

    /// Whether the caller gets the value of this name.
    pub fn is_result(&self, name: &str) -> bool {
        self.results.contains(name)
    }

    /// The nodes that read `name`.
    pub fn consumers(&self, name: &str) -> &[usize] {
        self.consumers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The one node that reads `name`, if it is one, and the caller does not get the value too.
    pub fn sole_consumer(&self, name: &str) -> Option<(usize, &'a NodeProto)> {
        match self.consumers(name) {
            [one] if !self.results.contains(name) => Some((*one, self.nodes[*one])),
            _ => None,
        }
    }
}
