//! From operations to a plan: where every value lies, and which operations become one step.

use super::arena::{Layout, Place, View, room, share};
use super::constant::{Constant, broadcast_strides};
use super::graph::{Graph, GraphInput, Reason};
use super::kernels::attention::Attention;
use super::kernels::dense::{self, Map};
use super::kernels::general::{Binary, Loops, Product, Rows, Unary};
use super::kernels::{Isa, conv, conv8, winograd};
use super::lower::{Matrices, Named, Op, Operand, Rearrange, lower, pair, resolve};
use super::plan::{Plan, Share, Slot, Step};
use crate::network::pb::GraphProto;
use std::collections::{HashMap, HashSet};

/// What the inputs of a graph are called, and their shapes.
pub struct Inputs<'a> {
    /// The noisy sample.
    pub sample: GraphInput<'a>,
    /// The time.
    pub time: GraphInput<'a>,
    /// The class, if there is one.
    pub class: Option<GraphInput<'a>>,
    /// The conditions.
    pub conditions: Vec<GraphInput<'a>>,
}

impl<'a> Inputs<'a> {
    fn all(&self) -> impl Iterator<Item = &GraphInput<'a>> {
        [&self.sample, &self.time].into_iter().chain(&self.class).chain(&self.conditions)
    }
}

/// A plan for `graph` on a CPU of this kind, or what in it there is no kernel for.
///
/// # Errors
/// The first thing that is not known.
pub fn compile(isa: Isa, graph: &GraphProto, inputs: &Inputs) -> Result<Plan, Reason> {
    let [output] = graph.output.as_slice() else { return Err("the graph has several outputs".into()) };
    let all: Vec<GraphInput> =
        inputs.all().map(|i| GraphInput { name: i.name, dims: i.dims.clone(), integer: i.integer }).collect();
    let read = Graph::new(graph, &all)?;
    if read.dims(&output.name) != Some(&inputs.sample.dims) {
        return Err("the result is not of the sample's shape".into());
    }
    let ops = lower(&read)?;
    let mut compiler = Compiler::new(isa, &read, &ops, resolve(&read, &output.name));
    compiler.inputs(inputs)?;
    for (i, named) in ops.iter().enumerate() {
        if !compiler.done[i] && compiler.stages[named.out] < Stage::Sample {
            compiler.emit(i, named).map_err(|e| format!("{}: {e}", named.out))?;
        }
    }
    for (i, named) in ops.iter().enumerate() {
        if !compiler.done[i] {
            compiler.emit(i, named).map_err(|e| format!("{}: {e}", named.out))?;
        }
    }
    compiler.finish()
}

/// What a value depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// On conditions alone: worked out once for a sample.
    Conditions,
    /// On time or class too: once for each time that a run visits.
    Time,
    /// On the sample: in each call.
    Sample,
}

/// In which of a workspace's buffers a storage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Memory,
    Bytes,
}

struct Compiler<'a> {
    isa: Isa,
    graph: &'a Graph<'a>,
    ops: &'a [Named<'a>],
    /// The graph's result.
    result: &'a str,
    consumers: HashMap<&'a str, Vec<usize>>,
    /// The values that an operation makes in a place of their own: others may be parts of what they read, or of a
    /// concatenation.
    owners: HashSet<&'a str>,
    stages: HashMap<&'a str, Stage>,
    /// The borders that pictures need.
    borders: HashMap<&'a str, [usize; 2]>,
    /// Pictures that lie within a concatenation: its name, and their first channel in it.
    parts: HashMap<&'a str, (&'a str, usize)>,
    /// The levels that values are rounded to.
    levels: HashMap<&'a str, conv8::Levels>,
    memory: Layout,
    bytes: Layout,
    places: HashMap<&'a str, Place>,
    /// Copies of values as pictures.
    pictures: HashMap<&'a str, View>,
    /// Values in 8 bits.
    views8: HashMap<&'a str, View>,
    constants: Vec<(usize, Vec<f32>)>,
    classes: Option<usize>,
    conditions: Vec<usize>,
    class: Option<&'a str>,
    work_len: usize,
    extra_len: usize,
    /// The stage of what is being emitted, and the steps of each.
    stage: Stage,
    steps: [Vec<Step>; 3],
    done: Vec<bool>,
}

impl<'a> Compiler<'a> {
    fn new(isa: Isa, graph: &'a Graph<'a>, ops: &'a [Named<'a>], result: &'a str) -> Self {
        let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, named) in ops.iter().enumerate() {
            named.op.inputs().into_iter().for_each(|name| consumers.entry(name).or_default().push(i));
        }
        let owns = |named: &&Named| !matches!(named.op, Op::Alias { .. } | Op::Concat { .. });
        Compiler {
            isa,
            graph,
            ops,
            result,
            consumers,
            owners: ops.iter().filter(owns).map(|named| named.out).collect(),
            stages: HashMap::new(),
            borders: HashMap::new(),
            parts: HashMap::new(),
            levels: HashMap::new(),
            memory: Layout::default(),
            bytes: Layout::default(),
            places: HashMap::new(),
            pictures: HashMap::new(),
            views8: HashMap::new(),
            constants: Vec::new(),
            classes: None,
            conditions: Vec::new(),
            class: None,
            work_len: 0,
            extra_len: 0,
            stage: Stage::Sample,
            steps: [Vec::new(), Vec::new(), Vec::new()],
            done: vec![false; ops.len()],
        }
    }

    /// Places the inputs, and finds out what depends on what, which pictures need borders, and which lie in others.
    fn inputs(&mut self, inputs: &Inputs<'a>) -> Result<(), Reason> {
        self.stages.insert(inputs.sample.name, Stage::Sample);
        self.stages.insert(inputs.time.name, Stage::Time);
        inputs.class.iter().for_each(|i| _ = self.stages.insert(i.name, Stage::Time));
        inputs.conditions.iter().for_each(|i| _ = self.stages.insert(i.name, Stage::Conditions));
        for named in self.ops {
            let stage = named.op.inputs().into_iter().filter_map(|n| self.stages.get(n)).max();
            self.stages.insert(named.out, stage.copied().unwrap_or(Stage::Conditions));
            match &named.op {
                Op::Convolution { x, padding, .. } => self.border(x, *padding),
                Op::Round { levels, .. } => _ = self.levels.insert(named.out, *levels),
                _ => (),
            }
        }
        for named in self.ops {
            let Op::Concat { parts, axis: 1 } = &named.op else { continue };
            let dims = self.dims(named.out)?;
            if self.stages[named.out] != Stage::Sample || dims[0] != 1 || !(3..=4).contains(&dims.len()) {
                continue;
            }
            let mut first = 0;
            for part in parts {
                let Operand::Value(part) = part else { continue };
                self.parts.entry(part).or_insert((named.out, first));
                first += self.dims(part)?[1];
                if let Some(border) = self.borders.get(part).copied() {
                    self.border(named.out, border);
                }
            }
        }
        self.stage = Stage::Time;
        for input in [Some(&inputs.time), inputs.class.as_ref()].into_iter().flatten() {
            let place = self.row_major(&input.dims);
            let to = Slot { start: place.start, len: place.len() };
            if to.len != 1 {
                return Err(format!("{} has several numbers", input.name));
            }
            let is_time = input.name == inputs.time.name;
            self.push(if is_time { Step::Time { to, whole: input.integer } } else { Step::Class { to } });
            self.places.insert(input.name, place);
        }
        self.class = inputs.class.as_ref().map(|i| i.name);
        self.stage = Stage::Conditions;
        for (index, input) in inputs.conditions.iter().enumerate() {
            let place = self.row_major(&input.dims);
            self.conditions.push(place.len());
            self.push(Step::Condition { index, to: Slot { start: place.start, len: place.len() } });
            self.places.insert(input.name, place);
        }
        self.stage = Stage::Sample;
        let (name, dims) = (inputs.sample.name, &inputs.sample.dims);
        let place = if dims.len() == 4 { self.picture(name)? } else { self.row_major(dims) };
        let source = Place::row_major(0, dims);
        let loops = self.loops([&place, &source])?;
        self.push(Step::Input { loops });
        self.places.insert(name, place);
        Ok(())
    }

    fn border(&mut self, name: &'a str, [rows, pixels]: [usize; 2]) {
        let border = self.borders.entry(name).or_default();
        *border = [border[0].max(rows), border[1].max(pixels)];
    }

    fn push(&mut self, step: Step) {
        self.steps[self.stage as usize].push(step);
    }

    fn dims(&self, name: &str) -> Result<&'a [usize], Reason> {
        self.graph.dims(name).ok_or_else(|| format!("the shape of {name} is not known"))
    }

    /// Where the value of this name lies.
    fn value(&self, name: &str) -> Result<Place, Reason> {
        self.places.get(name).cloned().ok_or_else(|| format!("{name} is not made before"))
    }

    /// A new place whose numbers lie together.
    fn row_major(&mut self, dims: &[usize]) -> Place {
        Place::row_major(self.memory.storage(dims.iter().product()), dims)
    }

    /// A place for a value whose dimensions lie in the order that those of `like` do.
    fn like(&mut self, name: &'a str, like: &Place) -> Result<Place, Reason> {
        let dims = self.dims(name)?;
        let is_picture = self.stage == Stage::Sample && dims.len() == like.dims.len() && like.view().is_some();
        if is_picture && dims[0] == 1 {
            return self.picture(name);
        }
        let mut order: Vec<usize> = (0..dims.len()).collect();
        if dims.len() == like.dims.len() {
            order.sort_by_key(|d| std::cmp::Reverse(like.strides[*d]));
        }
        let place = self.row_major(&order.iter().map(|d| dims[*d]).collect::<Vec<_>>());
        let mut back = vec![0; dims.len()];
        order.iter().enumerate().for_each(|(i, d)| back[*d] = i);
        Ok(place.permuted(&back))
    }

    /// A place for the picture of this name, `[1, C, H, W]` or `[1, C, W]`.
    fn picture(&mut self, name: &'a str) -> Result<Place, Reason> {
        let dims = self.dims(name)?;
        let view = match self.parts.get(name).copied() {
            Some((whole, first)) => {
                if !self.places.contains_key(whole) {
                    let place = self.picture(whole)?;
                    self.places.insert(whole, place);
                }
                self.places[whole].view().ok_or("a concatenation that is no picture")?.channels(first, dims[1])
            }
            None => {
                let border = self.borders.get(name).copied().unwrap_or_default();
                let view = self.memory.place(sides(dims)?, border);
                self.clear_border(view, None);
                view
            }
        };
        Ok(Place::of_view(view, dims))
    }

    fn clear_border(&mut self, view: View, levels: Option<u8>) {
        if view.border != [0, 0] || (levels.is_some() && view.c < view.pixel) {
            self.push(Step::Border { view, levels });
        }
    }

    /// A stored tensor among the values.
    fn stored(&mut self, constant: &Constant) -> Place {
        let place = self.row_major(&constant.dims);
        self.constants.push((place.start, constant.values.clone()));
        place
    }

    fn operand(&mut self, operand: &Operand<'a>) -> Result<Place, Reason> {
        match operand {
            Operand::Value(name) => self.value(name),
            Operand::Stored(constant) => Ok(self.stored(constant)),
        }
    }

    /// Loops over the numbers of the first place; the others are broadcast to it.
    fn loops<const N: usize>(&self, places: [&Place; N]) -> Result<Loops<N>, Reason> {
        let dims = &places[0].dims;
        let strides = places.map(|p| broadcast_strides(&p.dims, &p.strides, dims));
        let values = std::array::from_fn(|i| (places[i].start, strides[i].as_slice()));
        Loops::new(dims, values).ok_or_else(|| "more dimensions than there are loops".into())
    }

    fn copy(&mut self, from: &Place, to: &Place) -> Result<(), Reason> {
        let loops = self.loops([to, from])?;
        self.push(Step::Unary { f: Unary::Copy, loops });
        Ok(())
    }

    /// The value as it is, or else a copy of it whose numbers lie together.
    fn together(&mut self, place: &Place, fits: impl Fn(&Place) -> bool) -> Result<Place, Reason> {
        if fits(place) {
            return Ok(place.clone());
        }
        let copy = self.row_major(&place.dims);
        self.copy(place, &copy)?;
        Ok(copy)
    }

    /// The value of this name as a picture with at least this border.
    fn view(&mut self, name: &'a str, [rows, pixels]: [usize; 2]) -> Result<View, Reason> {
        let place = self.value(name)?;
        let fits = |v: &View| v.border[0] >= rows && v.border[1] >= pixels;
        if let Some(view) = place.view().filter(fits) {
            return Ok(view);
        }
        if let Some(view) = self.pictures.get(name).copied().filter(fits) {
            return Ok(view);
        }
        let dims = self.dims(name)?;
        let view = self.memory.place(sides(dims)?, [rows, pixels]);
        self.clear_border(view, None);
        self.copy(&place, &Place::of_view(view, dims))?;
        self.pictures.insert(name, view);
        Ok(view)
    }

    /// A place for the value of this name in 8 bits: the channels of a pixel are padded to whole groups of those that
    /// are multiplied at a time.
    fn place8(&mut self, name: &'a str, levels: conv8::Levels) -> Result<View, Reason> {
        let [c, h, w] = sides(self.dims(name)?)?;
        let border = self.borders.get(name).copied().unwrap_or_default();
        let view = self.bytes.place([c.next_multiple_of(conv8::CHANNELS), h, w], border).channels(0, c);
        self.clear_border(view, Some(self.isa.byte(levels.zero)));
        self.views8.insert(name, view);
        Ok(view)
    }

    /// Whether an operation is a convolution that reads `name` in 8 bits.
    fn is_8bit(&self, op: &Op, name: &str) -> bool {
        matches!(op, Op::Convolution { x, weights, .. } if *x == name && stored8(weights).is_some() && self.levels.contains_key(x))
    }

    /// Whether `name` is read in 8 bits by some, and whether in f32 by others.
    fn readers(&self, name: &str) -> (bool, bool) {
        let Some(readers) = self.consumers.get(name) else { return (false, true) };
        let eight = readers.iter().filter(|j| self.is_8bit(&self.ops[**j].op, name)).count();
        (eight > 0, eight < readers.len() || name == self.result)
    }

    /// The rounding that alone reads `name`.
    fn sole_rounding(&self, name: &str) -> Option<(usize, conv8::Levels)> {
        let j = self.sole_consumer(name)?;
        let Op::Round { levels, .. } = &self.ops[j].op else { return None };
        Some((j, *levels))
    }

    /// The operation that alone reads `name`.
    fn sole_consumer(&self, name: &str) -> Option<usize> {
        match self.consumers.get(name)?.as_slice() {
            [one] if !self.done[*one] && name != self.result => Some(*one),
            _ => None,
        }
    }

    /// Whether the value `x` is read for the last time now, and may make room for `out` in its place.
    fn yields(&self, x: &str, out: &str, place: &Place) -> bool {
        let readers = self.consumers.get(x).map_or(0, Vec::len);
        let border = self.borders.get(out).copied().unwrap_or_default();
        let owner = self.owners.contains(x) && !self.parts.contains_key(x);
        let fits = place.border[0] >= border[0] && place.border[1] >= border[1] && !self.parts.contains_key(out);
        readers == 1 && x != self.result && owner && fits && self.stages.get(x) == Some(&Stage::Sample)
    }

    /// Emits an operation.
    fn emit(&mut self, i: usize, named: &'a Named<'a>) -> Result<(), Reason> {
        self.done[i] = true;
        self.stage = self.stages[named.out];
        let place = match &named.op {
            Op::Convolution { x, weights, bias, stride, padding } => {
                let kernel = pair(&weights.dims[2..], 1).ok_or("a kernel of more than two dimensions")?;
                let shape = conv::Shape {
                    c_out: weights.dims[0],
                    c_in: weights.dims[1],
                    kernel,
                    stride: *stride,
                    padding: *padding,
                };
                if let Some((stored, (levels, input))) =
                    stored8(weights).zip(self.levels.get(x).copied().zip(self.views8.get(x).copied()))
                {
                    return self.convolution8(named.out, shape, stored, *bias, levels, input);
                }
                let input = self.view(x, *padding)?;
                return self.convolution(named.out, shape, &weights.values, *bias, input);
            }
            Op::Transposed { x, weights, bias, stride, padding } => {
                return self.transposed(named.out, x, weights, *bias, *stride, *padding);
            }
            Op::Linear { x, weights, by_column, bias } => return self.linear(named.out, x, weights, *by_column, *bias),
            Op::Norm { x, groups, epsilon, scale, shift } => {
                return self.norm(named.out, x, (*groups, *epsilon), (scale, shift));
            }
            Op::Layer { x, epsilon, scale, shift } => {
                let f = Rows::Layer { epsilon: *epsilon, scale: scale.clone(), shift: shift.clone() };
                self.each_row(f, x)?
            }
            Op::Softmax { x } => self.each_row(Rows::Softmax, x)?,
            Op::Unary { f, x } => {
                let input = self.value(x)?;
                let output =
                    if self.yields(x, named.out, &input) { input.clone() } else { self.like(named.out, &input)? };
                match (f, input.view(), output.view()) {
                    (Unary::Silu, Some(input), Some(to)) => {
                        self.push(Step::Map { op: Map::Silu, input, output: dense::Output::Float(to) });
                    }
                    _ => {
                        let loops = self.loops([&output, &input])?;
                        self.push(Step::Unary { f: *f, loops });
                    }
                }
                output
            }
            Op::Binary { f, a, b } => {
                let inputs = [self.operand(a)?, self.operand(b)?];
                let dims = self.dims(named.out)?;
                let whole = |k: usize| inputs[k].dims == dims;
                let yields = |k: usize, o: &Operand| {
                    let Operand::Value(name) = o else { return false };
                    whole(k) && self.yields(name, named.out, &inputs[k])
                };
                let output = match () {
                    () if yields(0, a) => inputs[0].clone(),
                    () if yields(1, b) => inputs[1].clone(),
                    () => self.like(named.out, &inputs[usize::from(!whole(0) && whole(1))])?,
                };
                let views = [inputs[0].view(), inputs[1].view(), output.view()];
                match (f, views) {
                    (Binary::Add, [Some(input), Some(other), Some(to)]) if whole(0) && whole(1) => {
                        self.push(Step::Map { op: Map::Add(other), input, output: dense::Output::Float(to) });
                    }
                    _ => {
                        let loops = self.loops([&output, &inputs[0], &inputs[1]])?;
                        self.push(Step::Binary { f: *f, loops });
                    }
                }
                output
            }
            Op::Product { a, b, order } => self.product(named.out, a, b, order)?,
            Op::Attention { q, k, v, scale, mask, order } => {
                self.attention(named.out, [q, k, v], *scale, mask.as_deref(), order)?
            }
            Op::Alias { x, how } => self.alias(named.out, x, how)?,
            Op::Concat { parts, axis } => self.concat(named.out, parts, *axis)?,
            Op::Rows { table, index } => {
                let index_place = self.value(index)?;
                let index_place = self.together(&index_place, |p| p.run().is_some())?;
                let output = self.row_major(self.dims(named.out)?);
                let len = table.dims[1..].iter().product::<usize>().max(1);
                if self.class == Some(*index) {
                    self.classes = Some(self.classes.map_or(table.dims[0], |c| c.min(table.dims[0])));
                }
                self.push(Step::Rows {
                    table: table.values.clone(),
                    len,
                    index: Slot { start: index_place.start, len: index_place.len() },
                    to: Slot { start: output.start, len: output.len() },
                });
                output
            }
            Op::Reduce { x, f, axes } => {
                let input = self.value(x)?;
                let mut dims = input.dims.clone();
                axes.iter().for_each(|a| dims[*a] = 1);
                let output = self.row_major(&dims);
                let mut spread = output.clone();
                spread.dims.clone_from(&input.dims);
                axes.iter().for_each(|a| spread.strides[*a] = 0);
                let (loops, out) = (self.loops([&spread, &input])?, self.loops([&output])?);
                self.push(Step::Reduce { f: *f, loops, out });
                output.reshaped(self.dims(named.out)?).ok_or("a reduction's result")?
            }
            Op::Upsample { x, factors: [fy, fx] } => {
                let (input, output) = (self.view(x, [0, 0])?, self.picture(named.out)?);
                let to = output.view().ok_or("no picture")?;
                if (*fy, *fx) == (2, 2) {
                    self.push(Step::Upsample { input, output: to });
                    self.places.insert(named.out, output);
                    return Ok(());
                }
                let dims = vec![input.h, *fy, input.w, *fx, input.c];
                let strides = vec![fy * to.row, to.row, fx * to.pixel, to.pixel, 1];
                let to = Place { start: to.start, dims: dims.clone(), strides, border: [0, 0] };
                let strides = vec![input.row, 0, input.pixel, 0, 1];
                self.copy(&Place { start: input.start, dims, strides, border: [0, 0] }, &to)?;
                output
            }
            Op::Pool { x, kernel, stride } => {
                let (input, output) = (self.view(x, [0, 0])?, self.picture(named.out)?);
                let to = output.view().ok_or("no picture")?;
                self.push(Step::Pool { kernel: *kernel, stride: *stride, input, output: to });
                output
            }
            Op::Pad { x, before } => {
                let input = self.value(x)?;
                let output = self.like(named.out, &input)?;
                let parts: Vec<(usize, usize)> = before.iter().map(|b| (*b, 1)).collect();
                let inside = output.sliced(&parts, &input.dims);
                let storage = self.memory.storages()[self.memory.storage_at(output.start)];
                if self.parts.contains_key(named.out) {
                    return Err("a padded value in a concatenation".into());
                }
                self.push(Step::Clear { to: Slot { start: storage.start, len: storage.len } });
                self.copy(&input, &inside)?;
                output
            }
            Op::Round { x, levels } => return self.round(named.out, x, *levels),
        };
        self.places.insert(named.out, place);
        Ok(())
    }

    /// Adds of what is known already, that alone read the result of a convolution or linear layer: the name of what is
    /// left then, what is added to each channel, and what to each number. Channels are dimension `axis`.
    fn sums(&mut self, mut out: &'a str, axis: usize) -> Result<(&'a str, Option<Slot>, Option<Place>), Reason> {
        let (mut extra, mut residual) = (None, None);
        while let Some(j) = self.sole_consumer(out) {
            let Op::Binary { f: Binary::Add, a: Operand::Value(a), b: Operand::Value(b) } = &self.ops[j].op else {
                break;
            };
            let other = if *a == out { b } else { a };
            let (dims, place) = (self.dims(out)?, self.places.get(other));
            let Some(place) = place.filter(|_| self.dims(self.ops[j].out).is_ok_and(|d| d == dims) && a != b) else {
                break;
            };
            let from_end = dims.len() - axis;
            let of_channel = place.len() == dims[axis]
                && place.dims.len() >= from_end
                && place.dims[place.dims.len() - from_end] == dims[axis];
            match place.run() {
                Some(start) if of_channel && extra.is_none() && self.stages[other] < Stage::Sample => {
                    extra = Some(Slot { start, len: dims[axis] });
                }
                _ if place.dims == dims && residual.is_none() => residual = Some(place.clone()),
                _ => break,
            }
            self.done[j] = true;
            out = self.ops[j].out;
        }
        if let Some(slot) = extra {
            self.extra_len = self.extra_len.max(slot.len);
        }
        Ok((out, extra, residual))
    }

    /// A convolution, with the sums that alone read its result.
    fn convolution(
        &mut self,
        out: &'a str,
        shape: conv::Shape,
        weights: &[f32],
        bias: Option<&Constant>,
        input: View,
    ) -> Result<(), Reason> {
        let (out, extra, residual) = self.sums(out, 1)?;
        let residual = residual.map(|r| self.as_view(&r)).transpose()?;
        let place = self.picture(out)?;
        let output = place.view().ok_or("no picture")?;
        self.convolve(shape, weights, bias, (input, output), extra, residual)?;
        self.places.insert(out, place);
        Ok(())
    }

    /// A value as a picture, copied if it does not lie as one.
    fn as_view(&mut self, place: &Place) -> Result<View, Reason> {
        if let Some(view) = place.view() {
            return Ok(view);
        }
        let view = self.memory.place(sides(&place.dims)?, [0, 0]);
        self.copy(place, &Place::of_view(view, &place.dims))?;
        Ok(view)
    }

    fn convolve(
        &mut self,
        shape: conv::Shape,
        weights: &[f32],
        bias: Option<&Constant>,
        (input, output): (View, View),
        extra: Option<Slot>,
        residual: Option<View>,
    ) -> Result<(), Reason> {
        if bias.is_some_and(|b| b.values.len() != shape.c_out) {
            return Err("the bias does not fit".into());
        }
        let tile = self.isa.tile();
        let method = if winograd::suits(&shape, output.h, output.w) {
            self.work_len = self.work_len.max(winograd::work_len(&shape, output.h, output.w));
            conv::Method::Winograd
        } else {
            conv::Method::Direct
        };
        let packed = conv::Packed::new(shape, method, weights, bias.map(|b| b.values.as_slice()), tile);
        self.push(Step::Convolution { packed, extra, input, output, residual });
        Ok(())
    }

    /// An 8-bit convolution, with the rounding and the sums that alone read its result.
    fn convolution8(
        &mut self,
        out: &'a str,
        shape: conv::Shape,
        (weights, scales): (&[i8], &[f32]),
        bias: Option<&Constant>,
        levels: conv8::Levels,
        input: View,
    ) -> Result<(), Reason> {
        if bias.is_some_and(|b| b.values.len() != shape.c_out) {
            return Err("the bias does not fit".into());
        }
        let mut out = out;
        let rounding = self.sole_rounding(out);
        if let Some((j, _)) = rounding {
            self.done[j] = true;
            out = self.ops[j].out;
        }
        let round = rounding.map(|(_, levels)| levels);
        let (rounded, (eight, float)) = (out, self.readers(out));
        let (mut extra, mut residual) = (None, None);
        if !eight {
            (out, extra, residual) = self.sums(out, 1)?;
        }
        let residual = residual.map(|r| self.as_view(&r)).transpose()?;
        // what only 8-bit convolutions read needs no f32
        let output = (float || !eight).then(|| self.picture(out)).transpose()?;
        let output8 = match (eight, round) {
            (true, Some(levels)) => Some((self.place8(rounded, levels)?, levels)),
            _ => None,
        };
        let packed =
            conv8::Packed8::new(shape, (weights, scales), bias.map(|b| b.values.as_slice()), levels, self.isa)?;
        let view = output.as_ref().and_then(Place::view);
        self.push(Step::Convolution8 { packed, round, extra, input, output: view, output8, residual });
        self.places.extend(output.map(|place| (out, place)));
        Ok(())
    }

    /// A transposed convolution: the input with zeros between its pixels, convolved with the turned kernel.
    fn transposed(
        &mut self,
        out: &'a str,
        x: &'a str,
        weights: &Constant,
        bias: Option<&Constant>,
        [sy, sx]: [usize; 2],
        padding: [usize; 2],
    ) -> Result<(), Reason> {
        let (c_in, c_out, kernel) = (
            weights.dims[0],
            weights.dims[1],
            pair(&weights.dims[2..], 1).ok_or("a kernel of more than two dimensions")?,
        );
        let input = self.view(x, [0, 0])?;
        let [_, h, w] = sides(self.dims(out)?)?;
        let border = [kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1]];
        // as many pixels as give the result's sides, some of them beyond the last of the input
        let wide =
            self.memory.place([c_in, h + kernel[0] - 1 - 2 * border[0], w + kernel[1] - 1 - 2 * border[1]], border);
        let storage = self.memory.storages()[self.memory.storage_at(wide.start)];
        self.push(Step::Clear { to: Slot { start: storage.start, len: storage.len } });
        let dims = vec![input.h, input.w, c_in];
        let strides = vec![sy * wide.row, sx * wide.pixel, 1];
        let to = Place { start: wide.start, dims: dims.clone(), strides, border: [0, 0] };
        let strides = vec![input.row, input.pixel, 1];
        self.copy(&Place { start: input.start, dims, strides, border: [0, 0] }, &to)?;
        let taps = kernel[0] * kernel[1];
        let turned = |o: usize, c: usize, tap: usize| weights.values[(c * c_out + o) * taps + taps - 1 - tap];
        let turned: Vec<f32> = (0..c_out)
            .flat_map(|o| (0..c_in).flat_map(move |c| (0..taps).map(move |tap| (o, c, tap))))
            .map(|(o, c, tap)| turned(o, c, tap))
            .collect();
        let shape = conv::Shape { c_out, c_in, kernel, stride: 1, padding: border };
        self.convolution(out, shape, &turned, bias, wide)
    }

    /// A linear layer: a matrix times a vector, or a convolution of pixels that stand in a row.
    fn linear(
        &mut self,
        out: &'a str,
        x: &'a str,
        weights: &Constant,
        by_column: bool,
        bias: Option<&Constant>,
    ) -> Result<(), Reason> {
        let (k, n) = if by_column { (weights.dims[0], weights.dims[1]) } else { (weights.dims[1], weights.dims[0]) };
        let at = |r: usize, c: usize| weights.values[if by_column { c * n + r } else { r * k + c }];
        let input = self.value(x)?;
        if input.dims.last() != Some(&k) || bias.is_some_and(|b| b.values.len() != n) {
            return Err("a linear layer that does not fit its input".into());
        }
        if input.len() == k {
            let input = self.together(&input, |p| p.run().is_some())?;
            let output = self.row_major(self.dims(out)?);
            self.push(Step::Matrix {
                columns: (0..k).flat_map(|c| (0..n).map(move |r| (r, c))).map(|(r, c)| at(r, c)).collect(),
                bias: bias.map_or_else(|| vec![0.0; n], |b| b.values.clone()),
                from: Slot { start: input.start, len: k },
                to: Slot { start: output.start, len: n },
            });
            self.places.insert(out, output);
            return Ok(());
        }
        let input = self.together(&input, |p| p.rows().is_some())?.rows().ok_or("no rows")?;
        let axis = self.dims(out)?.len() - 1;
        let (out, extra, residual) = self.sums(out, axis)?;
        let residual = match residual {
            Some(place) => Some(self.together(&place, |p| p.rows().is_some())?.rows().ok_or("no rows")?),
            None => None,
        };
        let output = self.row_major(self.dims(out)?);
        let rows: Vec<f32> = (0..n).flat_map(|r| (0..k).map(move |c| (r, c))).map(|(r, c)| at(r, c)).collect();
        let shape = conv::Shape { c_out: n, c_in: k, kernel: [1, 1], stride: 1, padding: [0, 0] };
        let views = (input, output.rows().ok_or("no rows")?);
        self.convolve(shape, &rows, bias, views, extra, residual)?;
        self.places.insert(out, output);
        Ok(())
    }

    /// Group normalisation, with the SiLU and the rounding that may follow.
    fn norm(
        &mut self,
        out: &'a str,
        x: &'a str,
        (groups, epsilon): (usize, f32),
        (scale, shift): (&[f32], &[f32]),
    ) -> Result<(), Reason> {
        let input = self.view(x, [0, 0])?;
        if scale.len() != input.c || shift.len() != input.c || groups == 0 || !input.c.is_multiple_of(groups) {
            return Err("a group norm that does not fit its input".into());
        }
        let mut out = out;
        let silu = self.sole_consumer(out).filter(|j| matches!(self.ops[*j].op, Op::Unary { f: Unary::Silu, .. }));
        if let Some(j) = silu {
            self.done[j] = true;
            out = self.ops[j].out;
        }
        let rounding = self.sole_rounding(out).filter(|(j, _)| self.readers(self.ops[*j].out) == (true, false));
        let output = match rounding {
            Some((j, levels)) => {
                self.done[j] = true;
                dense::Output::Levels(self.place8(self.ops[j].out, levels)?, levels)
            }
            None => {
                let place = self.picture(out)?;
                let view = place.view().ok_or("no picture")?;
                self.places.insert(out, place);
                dense::Output::Float(view)
            }
        };
        self.work_len = self.work_len.max(2 * input.c);
        let (scale, shift) = (scale.to_vec(), shift.to_vec());
        self.push(Step::Norm { groups, epsilon, scale, shift, silu: silu.is_some(), input, output });
        Ok(())
    }

    /// A value rounded to levels: in 8 bits for those who read it so, and in f32 for others.
    fn round(&mut self, out: &'a str, x: &'a str, levels: conv8::Levels) -> Result<(), Reason> {
        let (eight, float) = self.readers(out);
        if sides(self.dims(out)?).is_err() {
            return Err("rounding of what is no picture".into());
        }
        let input = self.view(x, [0, 0])?;
        if eight {
            let output = dense::Output::Levels(self.place8(out, levels)?, levels);
            self.push(Step::Map { op: Map::Copy, input, output });
        }
        if float {
            let place = self.picture(out)?;
            let output = dense::Output::Float(place.view().ok_or("no picture")?);
            self.push(Step::Map { op: Map::Round(levels), input, output });
            self.places.insert(out, place);
        }
        Ok(())
    }

    /// Something to each run of the last dimension.
    fn each_row(&mut self, f: Rows, x: &'a str) -> Result<Place, Reason> {
        let input = self.value(x)?;
        let length = *input.dims.last().ok_or("a number has no rows")?;
        let together = |p: &Place| length == 1 || p.strides.last() == Some(&1);
        let input = self.together(&input, together)?;
        let output = self.row_major(&input.dims);
        let first = |p: &Place| p.leading(p.dims.len() - 1);
        let loops = self.loops([&first(&output), &first(&input)])?;
        self.push(Step::EachRow { f, loops, length });
        Ok(output)
    }

    /// The dimensions of stacked matrices, in the order batch…, row, column.
    fn matrices(&mut self, m: &Matrices<'a>) -> Result<Place, Reason> {
        Ok(self.operand(&m.x)?.permuted(&m.order))
    }

    fn product(&mut self, out: &'a str, a: &Matrices<'a>, b: &Matrices<'a>, order: &[usize]) -> Result<Place, Reason> {
        let (a, b) = (self.matrices(a)?, self.matrices(b)?);
        let dims = self.dims(out)?;
        let ordered: Vec<usize> = order.iter().map(|o| dims[*o]).collect();
        let output = self.row_major(&ordered);
        let split = |p: &Place| {
            let n = p.dims.len() - 2;
            (p.leading(n), [p.strides[n], p.strides[n + 1]], [p.dims[n], p.dims[n + 1]])
        };
        let ((o, so, [rows, columns]), (a, sa, [_, inner]), (b, sb, _)) = (split(&output), split(&a), split(&b));
        let product =
            Product { batch: self.loops([&o, &a, &b])?, sizes: [rows, columns, inner], strides: [so, sa, sb] };
        self.work_len = self.work_len.max(product.work_len());
        self.push(Step::Product(product));
        Ok(output.permuted(&inverse(order)))
    }

    fn attention(
        &mut self,
        out: &'a str,
        operands: [&Matrices<'a>; 3],
        scale: f32,
        mask: Option<&[f32]>,
        order: &[usize],
    ) -> Result<Place, Reason> {
        let mut views = Vec::new();
        let mut sizes = Vec::new();
        for m in operands {
            let place = self.matrices(m)?;
            let n = place.dims.len() - 2;
            let heads: usize = place.dims[..n].iter().product();
            let [rows, c] = [place.dims[n], place.dims[n + 1]];
            let as_view = |p: &Place| {
                let stride = p.leading(n).reshaped(&[heads])?.strides[0];
                let together = (heads == 1 || stride == c) && (c == 1 || p.strides[n + 1] == 1);
                let pixel = p.strides[n];
                together.then_some(View {
                    c: heads * c,
                    h: 1,
                    w: rows,
                    start: p.start,
                    pixel,
                    row: rows * pixel,
                    border: [0, 0],
                })
            };
            let view = match as_view(&place) {
                Some(view) => view,
                None => {
                    // rows first, then heads
                    let turned: Vec<usize> = [n].into_iter().chain(0..n).chain([n + 1]).collect();
                    let from = place.permuted(&turned);
                    let copy = self.row_major(&from.dims);
                    self.copy(&from, &copy)?;
                    as_view(&copy.permuted(&inverse(&turned))).ok_or("heads that are not together")?
                }
            };
            views.push(view);
            sizes.push((heads, place.dims[..n].to_vec()));
        }
        if sizes.iter().any(|s| *s != sizes[0]) {
            return Err("an attention of unlike heads".into());
        }
        let (heads, batch) = sizes.swap_remove(0);
        let [query, key, value] = views[..] else { return Err("an attention of three".into()) };
        let c = value.c / heads;
        let dims: Vec<usize> = [query.w].into_iter().chain(batch.iter().copied()).chain([c]).collect();
        let place = self.row_major(&dims);
        let output = View {
            c: heads * c,
            h: 1,
            w: query.w,
            start: place.start,
            pixel: heads * c,
            row: place.len(),
            border: [0, 0],
        };
        let attention = Attention { query, key, value, output, heads, scale };
        self.work_len = self.work_len.max(attention.work_len());
        if mask.is_some_and(|m| m.len() != query.w * key.w) {
            return Err("a mask that does not fit".into());
        }
        self.push(Step::Attention { attention, mask: mask.map(<[f32]>::to_vec) });
        let n = batch.len();
        let ordered = place.permuted(&(1..=n).chain([0, n + 1]).collect::<Vec<_>>());
        let place = ordered.permuted(&inverse(order));
        if place.dims == self.dims(out)? { Ok(place) } else { Err("an attention of an unknown form".into()) }
    }

    /// A value read anew, where that needs no copy, or else a copy.
    fn alias(&mut self, out: &'a str, x: &'a str, how: &Rearrange) -> Result<Place, Reason> {
        let (place, dims) = (self.value(x)?, self.dims(out)?);
        Ok(match how {
            Rearrange::Permute(perm) => place.permuted(perm),
            Rearrange::Slice(parts) => place.sliced(parts, dims),
            Rearrange::Pick(axis, index) => {
                let Place { start, mut dims, mut strides, .. } = place;
                dims.remove(*axis);
                let start = start + index * strides.remove(*axis);
                Place { start, dims, strides, border: [0, 0] }
            }
            Rearrange::Expand => {
                let strides = broadcast_strides(&place.dims, &place.strides, dims);
                Place { start: place.start, dims: dims.to_vec(), strides, border: [0, 0] }
            }
            Rearrange::Reshape => match place.reshaped(dims) {
                Some(place) => place,
                None => self.together(&place, |_| false)?.reshaped(dims).ok_or("a shape that does not fit")?,
            },
            Rearrange::Squares(b, channels_first) => {
                let [_, c, h, w] = *place.dims.as_slice() else { return Err("squares of what is no picture".into()) };
                let c = c / (b * b);
                let (split, turn) = match channels_first {
                    true => ([c, *b, *b, h, w], [0, 3, 1, 4, 2]),
                    false => ([*b, *b, c, h, w], [2, 3, 0, 4, 1]),
                };
                let squares = place.reshaped(&split).ok_or("channels that are not together")?.permuted(&turn);
                if out == self.result && !self.consumers.contains_key(out) {
                    return Ok(squares);
                }
                self.together(&squares, |_| false)?.reshaped(dims).ok_or("squares that do not fit")?
            }
        })
    }

    fn concat(&mut self, out: &'a str, parts: &[Operand<'a>], axis: usize) -> Result<Place, Reason> {
        let dims = self.dims(out)?;
        let whole = match self.places.get(out) {
            // made with the first of its parts
            Some(place) => place.clone(),
            None if axis == 1 && dims[0] == 1 && (3..=4).contains(&dims.len()) && self.stage == Stage::Sample => {
                self.picture(out)?
            }
            None => self.row_major(dims),
        };
        let mut first = 0;
        for part in parts {
            let from = self.operand(part)?;
            let mut slices = vec![(0, 1); dims.len()];
            slices[axis].0 = first;
            let to = whole.sliced(&slices, &from.dims);
            let there =
                from.start == to.start && (0..dims.len()).all(|d| dims[d] == 1 || from.strides[d] == to.strides[d]);
            if !there {
                self.copy(&from, &to)?;
            }
            first += from.dims[axis];
        }
        Ok(whole)
    }

    /// Lays out what is needed at the same time apart, and the rest over one another.
    fn finish(mut self) -> Result<Plan, Reason> {
        let place = self.value(self.result)?;
        let target = Place::row_major(0, &place.dims);
        self.stage = Stage::Sample;
        let loops = self.loops([&target, &place])?;
        self.push(Step::Output { loops });
        let [conditions, time, sample] = std::mem::take(&mut self.steps);
        let stages = [conditions.len(), conditions.len() + time.len()];
        let mut steps: Vec<Step> = conditions.into_iter().chain(time).chain(sample).collect();

        let mut uses = [vec![None; self.memory.storages().len()], vec![None; self.bytes.storages().len()]];
        for (i, step) in steps.iter_mut().enumerate() {
            step.places(&mut |space, start| {
                let layout = if space == Space::Memory { &self.memory } else { &self.bytes };
                let (first, _) = uses[space as usize][layout.storage_at(*start)].unwrap_or((i, i));
                uses[space as usize][layout.storage_at(*start)] = Some((first, i));
            });
        }
        // the borders of a picture are its first use, and what lies in it is written before it is read: the next step
        // does not read it; and nothing that the next step uses lies where the picture does, if that is needed after it
        let mut shares: Vec<Share> = steps.iter().map(Step::share).collect();
        for (i, step) in steps.iter().enumerate().rev() {
            let Step::Border { view, levels } = step else { continue };
            if stages.contains(&(i + 1)) {
                continue;
            }
            let space = if levels.is_some() { Space::Bytes } else { Space::Memory };
            let layout = if space == Space::Memory { &self.memory } else { &self.bytes };
            let until = (i + 1..shares.len()).find(|j| shares[*j] != Share::BesideNext).unwrap_or(i);
            let used = uses[space as usize][layout.storage_at(view.start)];
            if used.is_some_and(|(first, last)| first == i && last >= until) && shares[until] != Share::Among(1) {
                shares[i] = Share::BesideNext;
            }
        }
        let [uses, uses8] = uses;
        // what one stage makes for another stays; what depends on the sample shares room
        let storages = self.memory.storages();
        let kept = |i: usize| uses[i].is_none_or(|(first, _)| first < stages[1]);
        let handed = |i: usize| {
            uses[i].is_some_and(|(first, last)| (stages[0]..stages[1]).contains(&first) && last >= stages[1])
        };
        let is_constant = |i: usize| self.constants.iter().any(|(start, _)| self.memory.storage_at(*start) == i);
        let constant: Vec<bool> = (0..storages.len()).map(is_constant).collect();
        let mut starts = vec![0; storages.len()];
        let mut end = 0;
        let mut lay = |i: usize| {
            starts[i] = end;
            end += room(storages[i].len);
            end
        };
        let of_time_start = 0;
        let of_time_end = (0..storages.len()).filter(|i| handed(*i) && !constant[*i]).map(&mut lay).last().unwrap_or(0);
        let fixed = (0..storages.len()).filter(|i| constant[*i] || (kept(*i) && !handed(*i)));
        let fixed_end = fixed.map(&mut lay).last().unwrap_or(of_time_end);
        let shared: Vec<_> =
            (0..storages.len()).map(|i| (storages[i].len, uses[i].filter(|_| !kept(i) && !constant[i]))).collect();
        let (low, memory_end) = share(&shared);
        (0..storages.len()).filter(|i| shared[*i].1.is_some()).for_each(|i| starts[i] = fixed_end + low[i]);
        let storages8 = self.bytes.storages();
        let shared8: Vec<_> = storages8.iter().zip(&uses8).map(|(s, u)| (s.len, *u)).collect();
        let (starts8, bytes_len) = share(&shared8);

        let moved = |space: Space, at: usize| match space {
            Space::Memory => {
                let i = self.memory.storage_at(at);
                at - storages[i].start + starts[i]
            }
            Space::Bytes => {
                let i = self.bytes.storage_at(at);
                at - storages8[i].start + starts8[i]
            }
        };
        for step in &mut steps {
            step.places(&mut |space, start| *start = moved(space, *start));
        }
        let constants = self.constants.iter().map(|(start, v)| (moved(Space::Memory, *start), v.clone())).collect();
        Ok(Plan {
            isa: self.isa,
            steps,
            shares,
            stages,
            memory_len: fixed_end + memory_end + SLACK,
            bytes_len: bytes_len + SLACK,
            constants,
            of_time: Slot { start: of_time_start, len: of_time_end },
            work_len: self.work_len,
            extra_len: self.extra_len,
            classes: self.classes,
            conditions: self.conditions,
        })
    }
}

/// Numbers after the last, which kernels that read whole vectors may read.
const SLACK: usize = 64;

impl Step {
    /// Calls `f` with every place in a workspace that the step reads or writes.
    fn places(&mut self, f: &mut impl FnMut(Space, &mut usize)) {
        use Space::{Bytes, Memory};
        let output = |o: &mut dense::Output, f: &mut dyn FnMut(Space, &mut usize)| match o {
            dense::Output::Float(view) => f(Memory, &mut view.start),
            dense::Output::Levels(view, _) => f(Bytes, &mut view.start),
        };
        match self {
            Step::Input { loops } => f(Memory, &mut loops.starts[0]),
            Step::Time { to, .. } | Step::Class { to } | Step::Condition { to, .. } | Step::Clear { to } => {
                f(Memory, &mut to.start);
            }
            Step::Border { view, levels } => f(if levels.is_some() { Bytes } else { Memory }, &mut view.start),
            Step::Rows { index, to, .. } => [index, to].into_iter().for_each(|s| f(Memory, &mut s.start)),
            Step::Unary { loops, .. } | Step::EachRow { loops, .. } => {
                loops.starts.iter_mut().for_each(|s| f(Memory, s));
            }
            Step::Binary { loops, .. } => loops.starts.iter_mut().for_each(|s| f(Memory, s)),
            Step::Reduce { loops, out, .. } => {
                loops.starts.iter_mut().chain(&mut out.starts).for_each(|s| f(Memory, s));
            }
            Step::Product(product) => product.batch.starts.iter_mut().for_each(|s| f(Memory, s)),
            Step::Matrix { from, to, .. } => [from, to].into_iter().for_each(|s| f(Memory, &mut s.start)),
            Step::Convolution { extra, input, output, residual, .. } => {
                extra.iter_mut().for_each(|s| f(Memory, &mut s.start));
                [input, output].into_iter().chain(residual).for_each(|v| f(Memory, &mut v.start));
            }
            Step::Convolution8 { extra, input, output, output8, residual, .. } => {
                extra.iter_mut().for_each(|s| f(Memory, &mut s.start));
                output.iter_mut().chain(residual).for_each(|v| f(Memory, &mut v.start));
                f(Bytes, &mut input.start);
                output8.iter_mut().for_each(|(v, _)| f(Bytes, &mut v.start));
            }
            Step::Map { op, input, output: to } => {
                if let Map::Add(other) = op {
                    f(Memory, &mut other.start);
                }
                f(Memory, &mut input.start);
                output(to, f);
            }
            Step::Norm { input, output: to, .. } => {
                f(Memory, &mut input.start);
                output(to, f);
            }
            Step::Attention { attention: a, .. } => {
                [&mut a.query, &mut a.key, &mut a.value, &mut a.output]
                    .into_iter()
                    .for_each(|v| f(Memory, &mut v.start));
            }
            Step::Pool { input, output, .. } | Step::Upsample { input, output } => {
                [input, output].into_iter().for_each(|v| f(Memory, &mut v.start))
            }
            Step::Output { loops } => f(Memory, &mut loops.starts[1]),
        }
    }
}

/// Channels, rows and columns of `[1, C, H, W]` or `[1, C, W]`.
fn sides(dims: &[usize]) -> Result<[usize; 3], Reason> {
    match *dims {
        [1, c, w] => Ok([c, 1, w]),
        [1, c, h, w] => Ok([c, h, w]),
        _ => Err(format!("{dims:?} is no picture")),
    }
}

/// The weights in 8 bits, with a scale an output channel or one for all, if they are stored so.
fn stored8(weights: &Constant) -> Option<(&[i8], &[f32])> {
    let stored = weights.levels.as_ref().filter(|s| s.scales.len() == 1 || s.axis == 0)?;
    Some((&stored.values, &stored.scales))
}

/// The order that undoes an order.
fn inverse(order: &[usize]) -> Vec<usize> {
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, o)| back[*o] = i);
    back
}
