//! An ONNX graph as the plan's compiler reads it: what depends on stored tensors alone is worked out, and every other
//! value has a known shape.

use super::constant::{self, Constant, broadcast, count, is_integer, lengths};
use onnx::pb::tensor_proto::DataType;
use onnx::pb::{AttributeProto, GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// Why a graph has no plan: what in it is not known.
pub type Reason = String;

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
    integers: HashSet<&'a str>,
    consumers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Graph<'a> {
    /// Reads `graph`, whose inputs are of these shapes.
    ///
    /// # Errors
    /// The first node whose result's shape cannot be told.
    pub fn new(graph: &'a GraphProto, inputs: &[GraphInput<'a>]) -> Result<Self, Reason> {
        let mut all = Graph {
            nodes: Vec::new(),
            constants: HashMap::new(),
            shapes: inputs.iter().map(|i| (i.name, i.dims.clone())).collect(),
            integers: inputs.iter().filter(|i| i.integer).map(|i| i.name).collect(),
            consumers: HashMap::new(),
        };
        inputs.iter().try_for_each(|i| count(&i.dims).map(|_| ()))?;
        for tensor in &graph.initializer {
            if let Some(constant) = Constant::read(tensor) {
                all.constants.insert(tensor.name.as_str(), constant);
            }
        }
        let mut readers: HashMap<&str, usize> = HashMap::new();
        let results = graph.output.iter().map(|o| &o.name);
        for name in graph.node.iter().flat_map(|n| &n.input).chain(results) {
            *readers.entry(name).or_default() += 1;
        }
        // in the file's order, but for what reads results of nodes further on: converters append nodes that belong before
        let mut left: Vec<&NodeProto> = graph.node.iter().collect();
        while !left.is_empty() {
            let mut later = Vec::new();
            for node in &left {
                if node.input.iter().all(|name| name.is_empty() || all.dims(name).is_some()) {
                    if all.read(node)? {
                        // what was worked out from it alone is all that is needed of a large tensor
                        for name in &node.input {
                            let count = readers.entry(name).or_default();
                            *count = count.saturating_sub(1);
                            if *count == 0 {
                                all.constants.remove(name.as_str());
                            }
                        }
                    }
                } else {
                    later.push(*node);
                }
            }
            if later.len() == left.len() {
                // says what is missing, or can do without
                all.read(later.remove(0))?;
            }
            left = later;
        }
        for (i, node) in all.nodes.iter().enumerate() {
            node.input.iter().for_each(|name| all.consumers.entry(name).or_default().push(i));
        }
        Ok(all)
    }

    /// Works a node out, or tells its results' shapes; says whether it was worked out.
    fn read(&mut self, node: &'a NodeProto) -> Result<bool, Reason> {
        let input: Vec<Option<&Constant>> = node.input.iter().map(|n| self.constants.get(n.as_str())).collect();
        let missing = |i: usize| input[i].is_none() && !node.input[i].is_empty();
        let named = |e: Reason| format!("{} {}: {e}", node.op_type, node.name);
        // each value is made once, so that following a value never comes back to it
        let known = |name: &String| !name.is_empty() && self.dims(name).is_some();
        let doubled =
            (1..node.output.len()).any(|i| !node.output[i].is_empty() && node.output[..i].contains(&node.output[i]));
        if node.output.first().is_none_or(String::is_empty) || doubled || node.output.iter().any(known) {
            return Err(named("its results have no names of their own".into()));
        }
        if !(0..input.len()).any(missing)
            && let Some(results) = constant::fold(node, &input).map_err(named)?
        {
            self.constants.extend(node.output.iter().map(String::as_str).zip(results));
            return Ok(true);
        }
        if node.op_type == "Shape" {
            let x = node.input.first().map(String::as_str).unwrap_or_default();
            let dims = self.dims(x).ok_or_else(|| named("of an unknown shape".into()))?;
            let rank = dims.len() as i64;
            let bound = |v: i64| (if v < 0 { v + rank } else { v }).clamp(0, rank) as usize;
            let (start, end) = (bound(int(node, "start").unwrap_or(0)), bound(int(node, "end").unwrap_or(rank)));
            let list = Constant::list(dims[start..end.max(start)].iter().map(|d| *d as i64));
            self.constants.insert(&node.output[0], list);
            return Ok(false);
        }
        let shapes = self.infer(node, &input).map_err(named)?;
        for dims in &shapes {
            if count(dims).map_err(named)? == 0 {
                return Err(named("its result is empty".into()));
            }
        }
        let whole = match node.op_type.as_str() {
            "Cast" => int(node, "to").and_then(|k| DataType::try_from(k as i32).ok()).is_some_and(is_integer),
            "Reshape" | "Unsqueeze" | "Squeeze" | "Identity" | "Expand" => {
                self.integers.contains(node.input[0].as_str())
            }
            _ => false,
        };
        for (name, dims) in node.output.iter().zip(shapes) {
            self.shapes.insert(name, dims);
            if whole {
                self.integers.insert(name);
            }
        }
        self.nodes.push(node);
        Ok(false)
    }

    /// The shapes of a node's results.
    fn infer(&self, node: &NodeProto, input: &[Option<&Constant>]) -> Result<Vec<Vec<usize>>, Reason> {
        let shape = |i: usize| -> Result<&[usize], Reason> {
            let name = node.input.get(i).map(String::as_str).unwrap_or_default();
            self.dims(name).ok_or_else(|| format!("the shape of its input '{name}' is not known"))
        };
        let stored = |i: usize| input.get(i).copied().flatten();
        let unknown = || "of an unknown form".to_string();
        let x = shape(0)?;
        let one = |dims: Vec<usize>| Ok(vec![dims]);
        match node.op_type.as_str() {
            "Sigmoid"
            | "Tanh"
            | "Relu"
            | "Erf"
            | "Sqrt"
            | "Exp"
            | "Log"
            | "Sin"
            | "Cos"
            | "Neg"
            | "Reciprocal"
            | "Abs"
            | "Softmax"
            | "Cast"
            | "Identity"
            | "Clip"
            | "Gelu"
            | "Softplus"
            | "HardSwish"
            | "Mish"
            | "LeakyRelu"
            | "Swish"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "QuantizeLinear"
            | "DequantizeLinear"
            | "Floor"
            | "HardSigmoid"
            | "Elu"
            | "Round" => one(x.to_vec()),
            "LayerNormalization" if node.output.len() == 1 => one(x.to_vec()),
            "Dropout" => Ok(vec![x.to_vec(); node.output.len()]),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" if node.input.len() == 2 => {
                one(broadcast(x, shape(1)?)?)
            }
            "Where" => one(broadcast(x, &broadcast(shape(1)?, shape(2)?)?)?),
            "MatMul" => {
                let y = shape(1)?;
                if x.len() < 2 || y.len() < 2 || x[x.len() - 1] != y[y.len() - 2] {
                    return Err(unknown());
                }
                let mut dims = broadcast(&x[..x.len() - 2], &y[..y.len() - 2])?;
                dims.extend([x[x.len() - 2], y[y.len() - 1]]);
                one(dims)
            }
            "Gemm" => {
                let y = shape(1)?;
                let side = |d: &[usize], name: &str, i: usize| if int(node, name) == Some(1) { d[1 - i] } else { d[i] };
                if x.len() != 2 || y.len() != 2 || side(x, "transA", 1) != side(y, "transB", 0) {
                    return Err(unknown());
                }
                one(vec![side(x, "transA", 0), side(y, "transB", 1)])
            }
            "Conv" | "ConvTranspose" => {
                let window = Window::of(node, shape(1)?).ok_or_else(unknown)?;
                let (transposed, weights) = (node.op_type == "ConvTranspose", shape(1)?);
                let read = weights[usize::from(!transposed)].checked_mul(window.groups(transposed));
                if x.len() != weights.len() || Some(x[1]) != read {
                    return Err(unknown());
                }
                let channels = if transposed { weights[1].checked_mul(window.group) } else { Some(weights[0]) };
                let sides = (0..window.kernel.len()).map(|i| window.side(i, x[2 + i], transposed));
                one([Some(x[0]), channels].into_iter().chain(sides).collect::<Option<_>>().ok_or_else(unknown)?)
            }
            "AveragePool" | "MaxPool" if node.output.len() == 1 => {
                let window = Window::of(node, x).ok_or_else(unknown)?;
                let sides = (0..window.kernel.len()).map(|i| window.side(i, x[2 + i], false));
                one(x[..2].iter().copied().map(Some).chain(sides).collect::<Option<_>>().ok_or_else(unknown)?)
            }
            "Reshape" => one(constant::reshape(node, x, &stored(1).ok_or_else(unknown)?.integers())?),
            "Flatten" => {
                let at = constant::axis(int(node, "axis").unwrap_or(1), x.len() + 1)?;
                one(vec![x[..at].iter().product(), x[at..].iter().product()])
            }
            "Unsqueeze" => one(constant::unsqueeze(node, x, stored(1))?),
            "Squeeze" => one(constant::squeeze(node, x, stored(1))?),
            "Transpose" => one(constant::permutation(node, x.len())?.into_iter().map(|p| x[p]).collect()),
            "Tile" => {
                let times = lengths(&stored(1).ok_or_else(unknown)?.integers())?;
                if times.len() != x.len() {
                    return Err(unknown());
                }
                one(x.iter().zip(times).map(|(d, t)| d.saturating_mul(t)).collect())
            }
            "Expand" => one(broadcast(x, &lengths(&stored(1).ok_or_else(unknown)?.integers())?)?),
            "Gather" => {
                let at = constant::axis(int(node, "axis").unwrap_or(0), x.len())?;
                one([&x[..at], shape(1)?, &x[at + 1..]].concat())
            }
            "Slice" => one(constant::slice(node, x, input)?.into_iter().map(|p| p.2).collect()),
            "Split" => {
                let at = constant::axis(int(node, "axis").unwrap_or(0), x.len())?;
                let part = |size| [&x[..at], &[size], &x[at + 1..]].concat();
                Ok(constant::split(node, x[at], stored(1))?.into_iter().map(part).collect())
            }
            "Concat" => {
                let at = constant::axis(int(node, "axis").unwrap_or(0), x.len())?;
                let mut dims = x.to_vec();
                for i in 1..node.input.len() {
                    let other = shape(i)?;
                    let alike = other.len() == x.len() && (0..x.len()).all(|k| k == at || other[k] == x[k]);
                    dims[at] += if alike { other[at] } else { return Err(unknown()) };
                }
                one(dims)
            }
            "ReduceMean" | "ReduceSum" | "ReduceMax" => {
                let axes = constant::axes(node, stored(1)).unwrap_or_else(|| (0..x.len() as i64).collect());
                let axes = axes.into_iter().map(|a| constant::axis(a, x.len())).collect::<Result<Vec<_>, _>>()?;
                let keep = int(node, "keepdims") != Some(0);
                let dims = x.iter().enumerate();
                one(dims.filter_map(|(i, d)| if axes.contains(&i) { keep.then_some(1) } else { Some(*d) }).collect())
            }
            "Pad" => {
                let pads = stored(1).map(Constant::integers).or_else(|| ints(node, "pads").map(<[i64]>::to_vec));
                let pads = pads.filter(|p| p.len() == 2 * x.len()).ok_or_else(unknown)?;
                let side = |i: usize| {
                    let side = (x[i] as i64).checked_add(pads[i])?.checked_add(pads[x.len() + i])?;
                    usize::try_from(side).ok()
                };
                one((0..x.len()).map(side).collect::<Option<_>>().ok_or_else(unknown)?)
            }
            "Resize" | "Upsample" => {
                let sizes = stored(3).filter(|s| !s.values.is_empty());
                let scales = stored(if node.op_type == "Upsample" { 1 } else { 2 }).filter(|s| !s.values.is_empty());
                match (sizes, scales) {
                    (Some(s), _) if s.values.len() == x.len() => one(lengths(&s.integers())?),
                    (_, Some(s)) if s.values.len() == x.len() => {
                        one(x.iter().zip(s.values.iter()).map(|(d, s)| (*d as f32 * s).floor() as usize).collect())
                    }
                    _ => Err(unknown()),
                }
            }
            "DepthToSpace" => {
                let b = usize::try_from(int(node, "blocksize").unwrap_or(0)).map_err(|_| unknown())?;
                match *x {
                    [n, c, h, w] if (1..=1024).contains(&b) && c % (b * b) == 0 => {
                        one(vec![n, c / (b * b), h * b, w * b])
                    }
                    _ => Err(unknown()),
                }
            }
            "Einsum" => {
                let (terms, result) = einsum(node).ok_or_else(unknown)?;
                let mut sizes = HashMap::new();
                for (i, term) in terms.iter().enumerate() {
                    let dims = shape(i)?;
                    if dims.len() != term.len() {
                        return Err(unknown());
                    }
                    sizes.extend(term.iter().copied().zip(dims.iter().copied()));
                }
                one(result.iter().map(|c| sizes.get(c).copied()).collect::<Option<_>>().ok_or_else(unknown)?)
            }
            _ => Err("there is no kernel for this operator".into()),
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

    /// Whether the value of this name holds whole numbers.
    pub fn is_integer(&self, name: &str) -> bool {
        self.integers.contains(name) || self.constants.get(name).is_some_and(Constant::is_integer)
    }

    /// The nodes that read `name`.
    pub fn consumers(&self, name: &str) -> &[usize] {
        self.consumers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The one node that reads `name`, if it is one.
    pub fn sole_consumer(&self, name: &str) -> Option<(usize, &'a NodeProto)> {
        match self.consumers(name) {
            [one] => Some((*one, self.nodes[*one])),
            _ => None,
        }
    }
}

/// The moving window of a convolution or pooling.
pub struct Window {
    /// Its sides.
    pub kernel: Vec<usize>,
    /// How far it moves.
    pub strides: Vec<usize>,
    /// Zeros before each side.
    pub before: Vec<usize>,
    /// Zeros after each side.
    pub after: Vec<usize>,
    /// What a transposed convolution adds to each side.
    pub output_padding: Vec<usize>,
    /// Groups of channels.
    pub group: usize,
}

impl Window {
    /// The window of a node without dilation, with weights (or an input, for pooling) of these dimensions.
    pub fn of(node: &NodeProto, dims: &[usize]) -> Option<Self> {
        let sides = dims.len().checked_sub(2)?;
        let weighted = matches!(node.op_type.as_str(), "Conv" | "ConvTranspose");
        let list = |name: &str, default: i64, len: usize| -> Option<Vec<usize>> {
            let given = ints(node, name).map_or_else(|| vec![default; len], <[i64]>::to_vec);
            (given.len() == len).then(|| given.into_iter().map(|v| usize::try_from(v).ok()).collect())?
        };
        let kernel = match ints(node, "kernel_shape") {
            Some(k) => k.iter().map(|v| usize::try_from(*v).ok()).collect::<Option<Vec<_>>>()?,
            None if weighted => dims[2..].to_vec(),
            None => return None,
        };
        // kernels read as many weights as the window has places
        if weighted && kernel != dims[2..] {
            return None;
        }
        let pads = list("pads", 0, 2 * sides)?;
        let plain = list("dilations", 1, sides)?.iter().all(|d| *d == 1)
            && text(node, "auto_pad").is_none_or(|p| p == "NOTSET" || p.is_empty())
            && int(node, "ceil_mode").unwrap_or(0) == 0
            && kernel.len() == sides
            && kernel.iter().all(|k| *k > 0)
            // more would be windows of zeros alone
            && pads.iter().enumerate().all(|(i, p)| *p <= kernel[i % sides]);
        let strides = list("strides", 1, sides)?;
        (plain && strides.iter().all(|s| *s > 0)).then_some(Window {
            kernel,
            strides,
            before: pads[..sides].to_vec(),
            after: pads[sides..].to_vec(),
            output_padding: list("output_padding", 0, sides)?,
            group: usize::try_from(int(node, "group").unwrap_or(1)).ok()?,
        })
    }

    fn groups(&self, transposed: bool) -> usize {
        if transposed { 1 } else { self.group }
    }

    /// The output's side `i` for an input's side of `n`.
    fn side(&self, i: usize, n: usize, transposed: bool) -> Option<usize> {
        let (k, s, pads) = (self.kernel[i], self.strides[i], self.before[i].checked_add(self.after[i])?);
        if transposed {
            let far = n.checked_sub(1)?.checked_mul(s)?.checked_add(k)?;
            far.checked_add(self.output_padding[i])?.checked_sub(pads)
        } else {
            Some(n.checked_add(pads)?.checked_sub(k)? / s + 1)
        }
    }
}

/// The letters of an Einsum's operands and of its result.
pub fn einsum(node: &NodeProto) -> Option<(Vec<Vec<char>>, Vec<char>)> {
    let equation: String = text(node, "equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (terms, result) = equation.split_once("->")?;
    let terms: Vec<Vec<char>> = terms.split(',').map(|t| t.chars().collect()).collect();
    let plain = |t: &Vec<char>| t.iter().enumerate().all(|(i, c)| c.is_alphabetic() && !t[..i].contains(c));
    let result = result.chars().collect();
    (terms.iter().all(plain) && plain(&result) && terms.len() == node.input.len()).then_some((terms, result))
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// An integer attribute.
pub fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|a| a.i)
}

/// A float attribute.
pub fn float(node: &NodeProto, name: &str) -> Option<f32> {
    attribute(node, name).map(|a| a.f)
}

/// A list of integers.
pub fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|a| a.ints.as_slice())
}

/// A text attribute.
pub fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    attribute(node, name).and_then(|a| std::str::from_utf8(&a.s).ok())
}
