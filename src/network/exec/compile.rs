//! From operations to a plan: where every value lies, and which operations become one step.

use super::arena::{Layout, View};
use super::graph::{Graph, Reason};
use super::kernels::{Isa, attention::Attention, conv, conv8, dense, winograd};
use super::lower::{Named, Op, lower};
use super::plan::{Operand, Plan, Slot, Step, VectorOp};
use std::collections::HashMap;
use tract_onnx::pb::GraphProto;

/// What the inputs of a graph are called, and one sample's shape.
pub struct Inputs<'a> {
    /// The noisy sample's name.
    pub sample: &'a str,
    /// The time's.
    pub time: &'a str,
    /// The class's, if there is one.
    pub class: Option<&'a str>,
    /// `[C, H, W]`.
    pub shape: [usize; 3],
}

/// A plan for `graph`, or what in it there is no kernel for.
///
/// # Errors
/// The first thing that is not known.
pub fn compile(graph: &GraphProto, inputs: &Inputs) -> Result<Plan, Reason> {
    compile_for(Isa::detect(), graph, inputs)
}

/// A plan for a CPU of this kind.
///
/// # Errors
/// As [`compile`].
pub fn compile_for(isa: Isa, graph: &GraphProto, inputs: &Inputs) -> Result<Plan, Reason> {
    let [output] = graph.output.as_slice() else { return Err("the graph has several outputs".into()) };
    let read = Graph::new(graph)?;
    let ops = lower(&read)?;
    let mut compiler = Compiler::new(isa, &ops, inputs)?;
    // what depends on time and class alone comes first
    for (i, named) in ops.iter().enumerate() {
        compiler.embed(i, named)?;
    }
    for (i, named) in ops.iter().enumerate() {
        if !compiler.done[i] {
            compiler.emit(i, named)?;
        }
    }
    let result = compiler.picture(&output.name)?;
    let (from, block) = compiler.squares.unwrap_or((result, 1));
    if [from.c / (block * block), from.h * block, from.w * block] != inputs.shape {
        return Err("the result is not of the sample's shape".into());
    }
    compiler.steps.push(Step::Output { from, block });
    Ok(Plan {
        isa,
        steps: compiler.steps,
        arena_len: compiler.layout.len(),
        pictures8: compiler.pictures8,
        vectors_len: compiler.vectors_len,
        work_len: compiler.work_len,
        classes: compiler.classes,
    })
}

type Shape = [usize; 3];

struct Compiler<'a> {
    isa: Isa,
    ops: &'a [Named<'a>],
    consumers: HashMap<&'a str, Vec<usize>>,
    shapes: HashMap<&'a str, Shape>,
    borders: HashMap<&'a str, usize>,
    /// Pictures that lie within a concatenation: its name, and their first channel in it.
    parts: HashMap<&'a str, (&'a str, usize)>,
    /// The levels that values are rounded to.
    levels: HashMap<&'a str, conv8::Levels>,
    layout: Layout,
    pictures: HashMap<&'a str, View>,
    layout8: Layout,
    pictures8: Vec<(usize, u8)>,
    views8: HashMap<&'a str, View>,
    vectors: HashMap<&'a str, Slot>,
    class: Option<&'a str>,
    classes: Option<usize>,
    squares: Option<(View, usize)>,
    vectors_len: usize,
    work_len: usize,
    steps: Vec<Step>,
    done: Vec<bool>,
}

impl<'a> Compiler<'a> {
    fn new(isa: Isa, ops: &'a [Named<'a>], inputs: &Inputs<'a>) -> Result<Self, Reason> {
        let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, named) in ops.iter().enumerate() {
            named.op.inputs().into_iter().for_each(|name| consumers.entry(name).or_default().push(i));
        }
        let mut compiler = Compiler {
            isa,
            ops,
            consumers,
            shapes: HashMap::from([(inputs.sample, inputs.shape)]),
            borders: HashMap::new(),
            parts: HashMap::new(),
            levels: HashMap::new(),
            layout: Layout::default(),
            pictures: HashMap::new(),
            layout8: Layout::default(),
            pictures8: Vec::new(),
            views8: HashMap::new(),
            vectors: HashMap::new(),
            class: inputs.class,
            classes: None,
            squares: None,
            vectors_len: 0,
            work_len: 0,
            steps: Vec::new(),
            done: vec![false; ops.len()],
        };
        compiler.infer()?;
        let to = compiler.place(inputs.sample)?;
        compiler.steps.push(Step::Input { to });
        let to = compiler.slot(1);
        compiler.vectors.insert(inputs.time, to);
        compiler.steps.push(Step::Time { to });
        Ok(compiler)
    }

    /// The shape of every picture, the border that it needs, and which lie within another.
    fn infer(&mut self) -> Result<(), Reason> {
        for named in self.ops {
            let shape = |name: &str| self.shapes.get(name).copied();
            let result = match &named.op {
                Op::Convolution { x, weights, stride, padding, .. } => {
                    let [c, h, w] = shape(x).ok_or("a convolution of what is no picture")?;
                    let (k, fits) = (weights.dims[2], weights.dims[1] == c);
                    if !fits || h + 2 * padding < k || w + 2 * padding < k || *stride == 0 {
                        return Err(format!("the convolution {} does not fit its input", named.out));
                    }
                    let border = self.borders.entry(x).or_default();
                    *border = (*border).max(*padding);
                    let side = |n: usize| (n + 2 * padding - k) / stride + 1;
                    Some([weights.dims[0], side(h), side(w)])
                }
                Op::Norm { x, .. } | Op::Silu { x } | Op::Same { x } => shape(x),
                Op::Round { x, levels } => {
                    self.levels.insert(named.out, *levels);
                    shape(x)
                }
                Op::Add { a, b } => shape(a).or(shape(b)),
                Op::Upsample { x } => shape(x).map(|[c, h, w]| [c, 2 * h, 2 * w]),
                Op::Attention { x } => shape(x).map(|[c, h, w]| [c / 3, h, w]),
                Op::Squares { x, .. } => shape(x),
                Op::Concat { parts } => {
                    let shapes: Option<Vec<Shape>> = parts.iter().map(|p| shape(p)).collect();
                    shapes.map(|all| [all.iter().map(|s| s[0]).sum(), all[0][1], all[0][2]])
                }
                Op::Scale { .. } | Op::Sin { .. } | Op::Cos { .. } | Op::Matrix { .. } | Op::Row { .. } => None,
            };
            if let Some(result) = result {
                self.shapes.insert(named.out, result);
            }
        }
        for named in self.ops {
            let Op::Concat { parts } = &named.op else { continue };
            let mut first = 0;
            for part in parts {
                let Some([c, ..]) = self.shapes.get(part) else { continue };
                self.parts.entry(part).or_insert((named.out, first));
                first += c;
                let border = self.borders.get(part).copied().unwrap_or(0);
                let whole = self.borders.entry(named.out).or_default();
                *whole = (*whole).max(border);
            }
        }
        Ok(())
    }

    fn slot(&mut self, len: usize) -> Slot {
        let start = self.vectors_len;
        self.vectors_len += len;
        Slot { start, len }
    }

    /// Where the picture of this name is to lie.
    fn place(&mut self, name: &'a str) -> Result<View, Reason> {
        if let Some(view) = self.pictures.get(name) {
            return Ok(*view);
        }
        let shape = *self.shapes.get(name).ok_or_else(|| format!("{name} is no picture"))?;
        let view = match self.parts.get(name).copied() {
            Some((whole, first)) if whole != name => self.place(whole)?.channels(first, shape[0]),
            _ => self.layout.place(shape, [self.borders.get(name).copied().unwrap_or(0); 2]),
        };
        self.pictures.insert(name, view);
        Ok(view)
    }

    /// Where the picture of this name is to lie in 8 bits: its channels padded to whole groups of those that are
    /// multiplied at a time.
    fn place8(&mut self, name: &'a str, levels: conv8::Levels) -> Result<View, Reason> {
        let [c, h, w] = *self.shapes.get(name).ok_or_else(|| format!("{name} is no picture"))?;
        let border = self.borders.get(name).copied().unwrap_or(0);
        let before = self.layout8.len();
        let view = self.layout8.place([c.next_multiple_of(conv8::CHANNELS), h, w], [border; 2]).channels(0, c);
        self.pictures8.push((self.layout8.len() - before, self.isa.byte(levels.zero)));
        self.views8.insert(name, view);
        Ok(view)
    }

    /// Whether an operation is a convolution that reads `name` in 8 bits.
    fn is_8bit(&self, op: &Op, name: &str) -> bool {
        matches!(op, Op::Convolution { x, weights, .. }
            if *x == name && weights.levels.is_some() && self.levels.contains_key(x))
    }

    /// Whether `name` is read in 8 bits by some, and whether in f32 by others.
    fn readers(&self, name: &str) -> (bool, bool) {
        let Some(readers) = self.consumers.get(name) else { return (false, true) };
        let eight = readers.iter().filter(|j| self.is_8bit(&self.ops[**j].op, name)).count();
        (eight > 0, eight < readers.len())
    }

    /// The rounding that alone reads `name`.
    fn sole_rounding(&self, name: &str) -> Option<(usize, conv8::Levels)> {
        let j = self.sole_consumer(name)?;
        let Op::Round { levels, .. } = &self.ops[j].op else { return None };
        Some((j, *levels))
    }

    /// Where the picture of this name lies.
    fn picture(&self, name: &str) -> Result<View, Reason> {
        self.pictures.get(name).copied().ok_or_else(|| format!("{name} is no picture that is made before"))
    }

    /// The operation that alone reads `name`.
    fn sole_consumer(&self, name: &str) -> Option<usize> {
        match self.consumers.get(name)?.as_slice() {
            [one] if !self.done[*one] => Some(*one),
            _ => None,
        }
    }

    /// Emits an operation on vectors, if it is one.
    fn embed(&mut self, i: usize, named: &'a Named<'a>) -> Result<(), Reason> {
        let known = |name: &&str| self.vectors.contains_key(*name) || Some(*name) == self.class;
        if !named.op.inputs().iter().all(known) {
            return Ok(());
        }
        let of = |name: &str| self.vectors.get(name).copied().ok_or_else(|| format!("{name} is no vector"));
        let to = match &named.op {
            Op::Same { x } if Some(*x) != self.class => of(x)?,
            Op::Row { table, index } if Some(*index) == self.class => {
                let [rows, len] = *table.dims.as_slice() else { return Err("a table of no rows".into()) };
                self.classes = Some(rows);
                let to = self.slot(len);
                self.steps.push(Step::Row { table: table.values.clone(), to });
                to
            }
            Op::Matrix { x, weights, bias } => {
                let from = of(x)?;
                let [rows, len] = *weights.dims.as_slice() else { return Err("a matrix of no rows".into()) };
                if from.len != len || bias.is_some_and(|b| b.values.len() != rows) {
                    return Err(format!("the matrix {} does not fit its vector", named.out));
                }
                let columns = (0..len).flat_map(|c| (0..rows).map(move |r| weights.values[r * len + c])).collect();
                let bias = bias.map_or_else(|| vec![0.0; rows], |b| b.values.clone());
                let to = self.slot(rows);
                self.steps.push(Step::Matrix { columns, bias, from, to });
                to
            }
            Op::Scale { x, by } => {
                self.vector(VectorOp::Multiply, of(x)?, Some(Operand::Constant(by.values.clone())))?
            }
            Op::Add { a, b } => self.vector(VectorOp::Add, of(a)?, Some(Operand::Slot(of(b)?)))?,
            Op::Sin { x } => self.vector(VectorOp::Sin, of(x)?, None)?,
            Op::Cos { x } => self.vector(VectorOp::Cos, of(x)?, None)?,
            Op::Silu { x } => self.vector(VectorOp::Silu, of(x)?, None)?,
            Op::Concat { parts } => {
                let parts = parts.iter().map(|p| of(p)).collect::<Result<Vec<_>, _>>()?;
                let to = self.slot(parts.iter().map(|p| p.len).sum());
                let mut start = to.start;
                for a in parts {
                    let to = Slot { start, len: a.len };
                    self.steps.push(Step::Vector { op: VectorOp::Copy, a, b: None, to });
                    start += a.len;
                }
                to
            }
            _ => return Err(format!("{} is of a form that is not known", named.out)),
        };
        self.vectors.insert(named.out, to);
        self.done[i] = true;
        Ok(())
    }

    fn vector(&mut self, op: VectorOp, a: Slot, b: Option<Operand>) -> Result<Slot, Reason> {
        let second = match &b {
            Some(Operand::Slot(s)) => s.len,
            Some(Operand::Constant(v)) => v.len(),
            None => a.len,
        };
        let len = a.len.max(second);
        if (a.len != len && a.len != 1) || (second != len && second != 1) {
            return Err("vectors of different lengths".into());
        }
        let to = self.slot(len);
        self.steps.push(Step::Vector { op, a, b, to });
        Ok(to)
    }

    /// Emits an operation on pictures.
    fn emit(&mut self, i: usize, named: &'a Named<'a>) -> Result<(), Reason> {
        self.done[i] = true;
        match &named.op {
            Op::Convolution { .. } => self.convolution(named)?,
            Op::Norm { x, groups, epsilon, scale, shift } => {
                let input = self.picture(x)?;
                let fits = scale.values.len() == input.c && shift.values.len() == input.c;
                if !fits || *groups == 0 || !input.c.is_multiple_of(*groups) {
                    return Err(format!("the group norm {} does not fit its input", named.out));
                }
                let next = self.sole_consumer(named.out).filter(|j| matches!(self.ops[*j].op, Op::Silu { .. }));
                let mut out = named.out;
                if let Some(j) = next {
                    self.done[j] = true;
                    out = self.ops[j].out;
                }
                let rounding = self.sole_rounding(out).filter(|(j, _)| self.readers(self.ops[*j].out) == (true, false));
                let output = match rounding {
                    Some((j, levels)) => {
                        self.done[j] = true;
                        dense::Output::Levels(self.place8(self.ops[j].out, levels)?, levels)
                    }
                    None => dense::Output::Float(self.place(out)?),
                };
                self.work_len = self.work_len.max(2 * input.c);
                self.steps.push(Step::Norm {
                    groups: *groups,
                    epsilon: *epsilon,
                    scale: scale.values.clone(),
                    shift: shift.values.clone(),
                    silu: next.is_some(),
                    input,
                    output,
                });
            }
            Op::Silu { x } => {
                let (input, output) = (self.picture(x)?, self.place(named.out)?);
                self.map(dense::Map::Silu, input, output);
            }
            Op::Add { a, b } => {
                let (a, b, output) = (self.picture(a)?, self.picture(b)?, self.place(named.out)?);
                if [a.c, a.h, a.w] != [b.c, b.h, b.w] {
                    return Err(format!("the sum {} is of unlike pictures", named.out));
                }
                self.map(dense::Map::Add(b), a, output);
            }
            Op::Concat { parts } => {
                let whole = self.place(named.out)?;
                let mut first = 0;
                for part in parts {
                    let input = self.picture(part)?;
                    let output = whole.channels(first, input.c);
                    if input != output {
                        self.map(dense::Map::Copy, input, output);
                    }
                    first += input.c;
                }
            }
            Op::Upsample { x } => {
                let (input, output) = (self.picture(x)?, self.place(named.out)?);
                self.steps.push(Step::Upsample { input, output });
            }
            Op::Attention { x } => {
                let (input, output) = (self.picture(x)?, self.place(named.out)?);
                let [query, key, value] = [0, 1, 2].map(|i| input.channels(i * output.c, output.c));
                let attention = Attention { query, key, value, output, heads: 1, scale: 1.0 };
                self.work_len = self.work_len.max(attention.work_len());
                self.steps.push(Step::Attention(attention));
            }
            Op::Squares { x, block } => {
                let input = self.picture(x)?;
                if self.consumers.contains_key(named.out) || *block == 0 {
                    return Err("DepthToSpace before the end".into());
                }
                self.squares = Some((input, *block));
                self.pictures.insert(named.out, input);
            }
            Op::Same { x } => {
                let input = self.picture(x)?;
                self.pictures.insert(named.out, input);
            }
            Op::Round { x, levels } => {
                let input = self.picture(x)?;
                let (eight, float) = self.readers(named.out);
                if eight {
                    let output = self.place8(named.out, *levels)?;
                    let output = dense::Output::Levels(output, *levels);
                    self.steps.push(Step::Map { op: dense::Map::Copy, input, output });
                }
                if float {
                    let output = self.place(named.out)?;
                    self.map(dense::Map::Round(*levels), input, output);
                }
            }
            Op::Scale { .. } | Op::Sin { .. } | Op::Cos { .. } | Op::Matrix { .. } | Op::Row { .. } => {
                return Err(format!("{} is of a form that is not known", named.out));
            }
        }
        Ok(())
    }

    fn map(&mut self, op: dense::Map, input: View, output: View) {
        self.steps.push(Step::Map { op, input, output: dense::Output::Float(output) });
    }

    /// A convolution, with the sums that alone read its result.
    fn convolution(&mut self, named: &'a Named<'a>) -> Result<(), Reason> {
        let Op::Convolution { x, weights, bias, stride, padding } = &named.op else { return Ok(()) };
        let c_out = weights.dims[0];
        let (mut out, mut extra, mut residual) = (named.out, None, None);
        let eight = weights.levels.as_ref().zip(self.views8.get(x).copied().zip(self.levels.get(x).copied()));
        // an 8-bit convolution rounds its result itself
        let rounding = eight.and_then(|_| self.sole_rounding(out));
        let mut quantized = None;
        if let Some((j, levels)) = rounding {
            self.done[j] = true;
            out = self.ops[j].out;
            if self.readers(out).0 {
                quantized = Some((self.place8(out, levels)?, levels));
            }
        }
        let only_quantized = quantized.is_some() && !self.readers(out).1;
        while let Some(j) = self.sole_consumer(out) {
            let Op::Add { a, b } = &self.ops[j].op else { break };
            let other = if *a == out { b } else { a };
            match (self.vectors.get(other), self.pictures.get(other)) {
                (Some(slot), _) if extra.is_none() && slot.len == c_out => extra = Some(*slot),
                (None, Some(view)) if residual.is_none() && view.c == c_out => residual = Some(*view),
                _ => break,
            }
            self.done[j] = true;
            out = self.ops[j].out;
        }
        let output = self.place(out)?;
        if residual.is_some_and(|r| (r.h, r.w) != (output.h, output.w)) {
            return Err(format!("the sum {out} is of unlike pictures"));
        }
        if bias.is_some_and(|b| b.values.len() != c_out) {
            return Err(format!("the bias of {} does not fit", named.out));
        }
        let c_in = weights.dims[1];
        let shape = conv::Shape { c_out, c_in, kernel: [weights.dims[2]; 2], stride: *stride, padding: [*padding; 2] };
        if let Some(((levels, scales), (input, of_input))) = eight {
            let bias = bias.map(|b| b.values.as_slice());
            let packed = conv8::Packed8::new(shape, (levels, scales), bias, of_input, self.isa);
            let round = rounding.map(|(_, levels)| levels);
            let (output, output8) = ((!only_quantized).then_some(output), quantized);
            self.steps.push(Step::Convolution8 { packed, round, extra, input, output, output8, residual });
            return Ok(());
        }
        let input = self.picture(x)?;
        let tile = self.isa.tile();
        let method = if winograd::suits(&shape, output.h, output.w, tile.0) {
            self.work_len = self.work_len.max(winograd::work_len(&shape, output.h, output.w));
            conv::Method::Winograd
        } else {
            conv::Method::Direct
        };
        let packed = conv::Packed::new(shape, method, &weights.values, bias.map(|b| b.values.as_slice()), tile);
        self.steps.push(Step::Convolution { packed, extra, input, output, residual });
        Ok(())
    }
}
