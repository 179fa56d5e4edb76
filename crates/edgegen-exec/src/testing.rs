//! Small graphs for tests: made node by node, or at random.

use crate::{At, GraphInput, Inputs, Numbers, Plan, Reason, ResultShape, compile};
use kernels::Isa;
use kernels::arena::Precision;
use onnx::budget::Budget;
use onnx::pb::tensor_proto::DataType;
use onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// An attribute of a node.
#[derive(Clone, Copy)]
pub enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),

    Text(&'a str, &'a str),
}

/// A graph that is being made.
pub struct Builder {
    pub graph: GraphProto,
    pub random: Pcg64Mcg,
    names: usize,
}

impl Builder {
    /// An empty graph; its weights depend on the seed.
    pub fn new(seed: u64) -> Self {
        Builder { graph: GraphProto::default(), random: Pcg64Mcg::seed_from_u64(seed), names: 0 }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.random.random_range(0..n)
    }

    /// A stored tensor of random numbers from -½ to ½.
    pub fn weights(&mut self, dims: &[usize]) -> String {
        let count: usize = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|_| self.random.random::<f32>() - 0.5).collect();
        self.stored(dims, &values)
    }

    /// A stored tensor.
    pub fn stored(&mut self, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        self.tensor(dims, DataType::Float, raw)
    }

    /// A stored list of whole numbers.
    pub fn list(&mut self, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        self.tensor(&[values.len()], DataType::Int64, raw)
    }

    /// A stored tensor of any type, by its bytes.
    pub fn tensor(&mut self, dims: &[usize], kind: DataType, raw: Vec<u8>) -> String {
        let name = self.name();
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: dims.iter().map(|d| *d as i64).collect(),
            data_type: kind as i32,
            raw_data: raw.into(),
            ..Default::default()
        });
        name
    }

    /// A node, and the name of its result.
    pub fn op(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let name = self.name();
        let attribute = |a: &Attribute| match a {
            Attribute::Int(name, i) => AttributeProto { name: (*name).into(), i: *i, ..Default::default() },
            Attribute::Ints(name, all) => {
                AttributeProto { name: (*name).into(), ints: all.to_vec(), ..Default::default() }
            }

            Attribute::Text(name, s) => {
                AttributeProto { name: (*name).into(), s: s.as_bytes().to_vec(), ..Default::default() }
            }
        };
        self.graph.node.push(NodeProto {
            op_type: op.into(),
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: vec![name.clone()],
            attribute: attributes.iter().map(attribute).collect(),
            ..Default::default()
        });
        name
    }

    /// Another result of the latest node.
    pub fn further_result(&mut self) -> String {
        let name = self.name();
        self.graph.node.last_mut().expect("there is a node").output.push(name.clone());
        name
    }

    /// The plan in 32 bits of a graph of the sample `x` of this shape, the time `t` and the condition `c` of `condition`
    /// numbers, whose result is `result`.
    pub fn plan(&mut self, isa: Isa, dims: &[usize], condition: usize, result: &str) -> Result<Plan, Reason> {
        self.plan_in(&Numbers::default(), isa, dims, condition, result)
    }

    /// The same in such numbers.
    pub fn plan_in(
        &mut self,
        numbers: &Numbers,
        isa: Isa,
        dims: &[usize],
        condition: usize,
        result: &str,
    ) -> Result<Plan, Reason> {
        self.graph.output = vec![ValueInfoProto { name: result.into(), ..Default::default() }];
        let input = |name, dims: &[usize]| GraphInput { name, dims: dims.to_vec(), integer: false };
        let inputs = Inputs {
            sample: input("x", dims),
            time: Some(input("t", &[1])),
            next: None,
            class: None,
            conditions: vec![input("c", &[1, condition])],
            opset: 21,
            result: ResultShape::OfSample,
        };
        compile(isa, &self.graph, &inputs, numbers, &Budget::new(if cfg!(miri) { 1 << 22 } else { 1 << 28 }))
    }

    /// x · sigmoid(x).
    fn silu(&mut self, x: &str) -> String {
        let sigmoid = self.op("Sigmoid", &[x], &[]);
        self.op("Mul", &[x, &sigmoid], &[])
    }

    /// A convolution of an image of `from` channels, with a kernel of `k` by `k` and the padding that keeps its sides.
    fn conv(&mut self, x: &str, from: usize, to: usize, k: usize) -> String {
        let (weights, bias) = (self.weights(&[to, from, k, k]), self.weights(&[to]));
        let pad = (k / 2) as i64;
        self.op("Conv", &[x, &weights, &bias], &[Attribute::Ints("pads", &[pad; 4])])
    }

    /// A convolution in 8 bits of what is rounded before.
    fn quantized_conv(&mut self, x: &str, from: usize, to: usize) -> String {
        let scale = self.stored(&[], &[0.03]);
        let zero = self.tensor(&[], DataType::Uint8, vec![120]);
        let q = self.op("QuantizeLinear", &[x, &scale, &zero], &[]);
        let x = self.op("DequantizeLinear", &[&q, &scale, &zero], &[]);
        let raw: Vec<u8> = (0..to * from * 9).map(|_| self.random.random()).collect();
        let stored = self.tensor(&[to, from, 3, 3], DataType::Int8, raw);
        let scales = self.stored(&[to], &vec![0.01; to]);
        let zeros = self.tensor(&[to], DataType::Int8, vec![0; to]);
        let weights = self.op("DequantizeLinear", &[&stored, &scales, &zeros], &[Attribute::Int("axis", 0)]);
        self.op("Conv", &[&x, &weights], &[Attribute::Ints("pads", &[1; 4])])
    }

    /// Attention of an image's pixels to each other.
    fn attention(&mut self, x: &str, [c, h, w]: [usize; 3]) -> String {
        let rows = self.list(&[1, c as i64, (h * w) as i64]);
        let flat = self.op("Reshape", &[x, &rows], &[]);
        let flat = self.op("Transpose", &[&flat], &[Attribute::Ints("perm", &[0, 2, 1])]);
        let [q, k, v] = [0; 3].map(|_| {
            let weights = self.weights(&[c, c]);
            self.op("MatMul", &[&flat, &weights], &[])
        });
        let k = self.op("Transpose", &[&k], &[Attribute::Ints("perm", &[0, 2, 1])]);
        let scores = self.op("MatMul", &[&q, &k], &[]);
        let weights = self.op("Softmax", &[&scores], &[Attribute::Int("axis", -1)]);
        let mixed = self.op("MatMul", &[&weights, &v], &[]);
        let mixed = self.op("Transpose", &[&mixed], &[Attribute::Ints("perm", &[0, 2, 1])]);
        let image = self.list(&[1, c as i64, h as i64, w as i64]);
        self.op("Reshape", &[&mixed, &image], &[])
    }

    /// A number for each channel, of time or of the condition.
    fn embedding(&mut self, from: &str, len: usize, c: usize) -> String {
        let weights = self.weights(&[len, c]);
        let shape = self.list(&[1, len as i64]);
        let from = self.op("Reshape", &[from, &shape], &[]);
        let e = self.op("MatMul", &[&from, &weights], &[]);
        let e = self.silu(&e);
        let shape = self.list(&[1, c as i64, 1, 1]);
        self.op("Reshape", &[&e, &shape], &[])
    }

    /// One of many things that networks do to an image of `c` channels; the result has as many.
    #[allow(clippy::too_many_lines, reason = "a list of fragments, each a few lines long")]
    fn block(&mut self, x: &str, [c, h, w]: [usize; 3], earlier: &[String]) -> String {
        let other = earlier[self.below(earlier.len())].clone();
        match self.below(24) {
            0 => self.conv(x, c, c, 3),
            1 => self.conv(x, c, c, 1),
            2 => {
                let (scale, shift) = (self.weights(&[c]), self.weights(&[c]));
                let norm = self.op("GroupNormalization", &[x, &scale, &shift], &[Attribute::Int("num_groups", 2)]);
                let norm = self.silu(&norm);
                self.conv(&norm, c, c, 3)
            }
            3 => self.silu(x),
            4 => self.op("Add", &[x, &other], &[]),
            5 => {
                let both = self.op("Concat", &[x, &other], &[Attribute::Int("axis", 1)]);
                self.conv(&both, 2 * c, c, 3)
            }
            6 => {
                let (from, len) = if self.below(2) == 0 { ("t", 1) } else { ("c", 5) };
                let (conv, e) = (self.conv(x, c, c, 3), self.embedding(from, len, c));
                self.op("Add", &[&conv, &e], &[])
            }
            7 => self.attention(x, [c, h, w]),
            8 if h % 2 == 0 && w % 2 == 0 => {
                let (pooled, empty) = (
                    self.op("AveragePool", &[x], &[kernel(&[2, 2]), Attribute::Ints("strides", &[2, 2])]),
                    String::new(),
                );
                let scales = self.stored(&[4], &[1.0, 1.0, 2.0, 2.0]);
                let mode = Attribute::Text("coordinate_transformation_mode", "asymmetric");
                self.op("Resize", &[&pooled, &empty, &scales], &[mode, Attribute::Text("nearest_mode", "floor")])
            }
            9 => {
                let pads = self.list(&[0, 0, 1, 0, 0, 0, 0, 2]);
                let wide = self.op("Pad", &[x, &pads], &[]);
                let (starts, ends, axes) =
                    (self.list(&[1, 0]), self.list(&[h as i64 + 1, w as i64]), self.list(&[2, 3]));
                self.op("Slice", &[&wide, &starts, &ends, &axes], &[])
            }
            10 => {
                let axes = self.list(&[2, 3]);
                let mean = self.op("ReduceMean", &[x, &axes], &[]);
                self.op("Sub", &[x, &mean], &[])
            }
            11 if h % 2 == 0 && w % 2 == 0 => {
                let (down, up) = (self.weights(&[c, c, 3, 3]), self.weights(&[c, c, 4, 4]));
                let (strides, pads) = (Attribute::Ints("strides", &[2, 2]), Attribute::Ints("pads", &[1; 4]));
                let small = self.op("Conv", &[x, &down], &[strides, pads]);
                let (strides, pads) = (Attribute::Ints("strides", &[2, 2]), Attribute::Ints("pads", &[1; 4]));
                self.op("ConvTranspose", &[&small, &up], &[strides, pads])
            }
            12 => self.window_block(x, [c, h, w]),
            13 => {
                let axis = Attribute::Int("axis", [1, 2, 3, -1][self.below(4)]);
                let by = self.op("Softmax", &[x], &[axis]);
                let large = self.op("Greater", &[&by, &other], &[]);
                self.op("Where", &[&large, x, &by], &[])
            }
            14 => {
                let axes = [&[1][..], &[2, 3], &[1, 3], &[0, 1, 2, 3]][self.below(4)];
                let axes = self.list(axes);
                let kind = ["ReduceMax", "ReduceSumSquare", "ReduceL1", "ReduceLogSumExp"][self.below(4)];
                let one = self.op(kind, &[x, &axes], &[]);
                self.op("Max", &[x, &one], &[])
            }
            15 => {
                let pads = self.list(&[0, 0, 1, 2, 0, 0, 0, 1]);
                let wide = self.op("Pad", &[x, &pads], &[Attribute::Text("mode", "edge")]);
                let (starts, ends, axes) =
                    (self.list(&[0, 1]), self.list(&[h as i64, w as i64 + 1]), self.list(&[2, 3]));
                self.op("Slice", &[&wide, &starts, &ends, &axes], &[])
            }
            16 => {
                let (empty, sizes) = (String::new(), self.list(&[1, c as i64, 2 * h as i64 + 1, w as i64 + 2]));
                let mode = ["linear", "cubic", "nearest"][self.below(3)];
                let larger = self.op("Resize", &[x, &empty, &empty, &sizes], &[Attribute::Text("mode", mode)]);
                let sizes = self.list(&[1, c as i64, h as i64, w as i64]);
                self.op("Resize", &[&larger, &empty, &empty, &sizes], &[Attribute::Text("mode", "linear")])
            }
            17 => {
                let [scale, shift, mean] = [0; 3].map(|_| self.weights(&[c]));
                let variance = self.stored(&[c], &vec![1.5; c]);
                let from = if self.below(2) == 0 { x.to_string() } else { self.conv(x, c, c, 3) };
                self.op("BatchNormalization", &[&from, &scale, &shift, &mean, &variance], &[])
            }
            18 => {
                let (scale, shift) = (self.weights(&[c]), self.weights(&[c]));
                self.op("InstanceNormalization", &[x, &scale, &shift], &[])
            }
            19 => {
                // two images at once
                let two = self.op("Concat", &[x, &other], &[Attribute::Int("axis", 0)]);
                let made = self.conv(&two, c, c, 3);
                let made = self.op("MaxPool", &[&made], &[kernel(&[3, 3]), Attribute::Ints("pads", &[1; 4])]);
                let axes = self.list(&[0]);
                self.op("ReduceMean", &[&made, &axes], &[])
            }
            20 => {
                let slope = self.weights(&[c, 1, 1]);
                self.op("PRelu", &[x, &slope], &[])
            }
            _ => self.quantized_conv(x, c, c),
        }
    }

    /// A convolution, or a pool, with a window that is not the plain one: grouped, dilated, transposed, padded on one side.
    fn window_block(&mut self, x: &str, [c, h, w]: [usize; 3]) -> String {
        match self.below(6) {
            0 => {
                let weights = self.weights(&[c, 1, 3, 3]);
                self.op("Conv", &[x, &weights], &[Attribute::Int("group", c as i64), Attribute::Ints("pads", &[1; 4])])
            }
            1 => {
                let weights = self.weights(&[c, c / 2, 3, 3]);
                self.op("Conv", &[x, &weights], &[Attribute::Int("group", 2), Attribute::Ints("pads", &[1; 4])])
            }
            2 => {
                let weights = self.weights(&[c, c, 3, 2]);
                let dilations = Attribute::Ints("dilations", &[2, 3]);
                self.op("Conv", &[x, &weights], &[dilations, Attribute::Ints("pads", &[1, 0, 3, 3])])
            }
            3 => {
                let weights = self.weights(&[c, c / 2, 2, 3]);
                let (strides, pads) = (Attribute::Ints("strides", &[1, 1]), Attribute::Ints("pads", &[0, 1, 1, 1]));
                self.op("ConvTranspose", &[x, &weights], &[strides, pads, Attribute::Int("group", 2)])
            }
            4 if h % 2 == 0 && w % 2 == 0 => {
                let pooled = self.op("MaxPool", &[x], &[kernel(&[2, 2]), Attribute::Ints("strides", &[2, 2])]);
                let weights = self.weights(&[c, c, 2, 2]);
                self.op("ConvTranspose", &[&pooled, &weights], &[Attribute::Ints("strides", &[2, 2])])
            }
            _ => {
                let whole = self.op("GlobalAveragePool", &[x], &[]);
                self.op("Mul", &[x, &whole], &[])
            }
        }
    }
}

/// The names of the steps of a graph whose sample is of this shape, and what it makes of 0, 1, 2, …: for tests of how a
/// fragment of a graph is recognised and compiled.
pub fn steps_and_result(b: &mut Builder, dims: &[usize], result: &str) -> (Vec<&'static str>, Vec<f32>) {
    let plan = b.plan(Isa::detect(), dims, 1, result).unwrap_or_else(|e| panic!("{e}"));
    let x: Vec<f32> = (0..dims.iter().product()).map(|i: usize| i as f32).collect();
    let (mut w, mut out) = (plan.workspace(), vec![f32::NAN; x.len()]);
    plan.bind(&mut w, 0, std::iter::once(&[0.5][..]));
    plan.run(&mut w, At { x: &x, t: 3.0, ..At::default() }, &mut out);
    let ours = |name: &&str| !["input", "output", "embedding", "zeros"].contains(name);
    (plan.kernels().filter(ours).collect(), out)
}

/// The sides of a window.
pub fn kernel(sides: &[i64]) -> Attribute<'_> {
    Attribute::Ints("kernel_shape", sides)
}

/// The sample's shape and the plan of a random network in such numbers.
pub fn random_plan(precision: Precision, isa: Isa, seed: u64) -> (Vec<usize>, Plan) {
    let mut b = Builder::new(seed);
    // Miri takes a thousand times as long
    let [channels, rows, columns, blocks] = if cfg!(miri) { [2, 3, 3, 3] } else { [6, 6, 9, 7] };
    let (c, h, w) = (2 * (1 + b.below(channels)), 1 + b.below(rows), 1 + b.below(columns));
    let mut all = vec!["x".to_string()];
    for _ in 0..2 + b.below(blocks) {
        let x = all[all.len() - 1 - b.below(2).min(all.len() - 1)].clone();
        let block = b.block(&x, [c, h, w], &all);
        all.push(block);
    }
    let last = all[all.len() - 1].clone();
    let result = b.conv(&last, c, c, 1);
    let dims = vec![1, c, h, w];
    let plan = b.plan_in(&Numbers::of(precision), isa, &dims, 5, &result);
    let plan = plan.unwrap_or_else(|e| panic!("the network of seed {seed}: {e}"));
    (dims, plan)
}

/// Random numbers from -1 to 1.
pub fn noise(random: &mut impl Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| 2.0 * random.random::<f32>() - 1.0).collect()
}
