//! From operations to a plan: where every value lies (here), which operations become one step (`emit.rs`), and what
//! shares room and threads (`layout.rs`).

mod emit;
mod layout;

use super::constant::{Constant, broadcast_strides};
use super::graph::{Graph, GraphInput, Reason};
use super::lower::{Named, Op, Operand, lower, resolve};
use super::plan::{Plan, Slot, Step};
use kernels::arena::{Layout, Place, View};
use kernels::general::{Loops, Unary};
use kernels::{Isa, conv8};
use onnx::pb::GraphProto;
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

/// How a value lies that is read in 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lie {
    /// As a picture, its channels the second dimension.
    Picture,
    /// As one row of pixels, its channels the last dimension.
    Rows,
}

/// Who reads a value: convolutions in 8 bits, linear layers in 8 bits, and others in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Readers {
    picture8: bool,
    rows8: bool,
    float: bool,
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
    views8: HashMap<(&'a str, Lie), View>,
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
        self.constants.push((place.start, constant.values.to_vec()));
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
    fn place8(&mut self, name: &'a str, levels: conv8::Levels, lie: Lie) -> Result<View, Reason> {
        let dims = self.dims(name)?;
        let ([c, h, w], border) = match lie {
            Lie::Picture => (sides(dims)?, self.borders.get(name).copied().unwrap_or_default()),
            Lie::Rows => {
                let c = dims.last().copied().unwrap_or(1);
                ([c, 1, dims.iter().product::<usize>() / c], [0, 0])
            }
        };
        let view = self.bytes.place([c.next_multiple_of(conv8::CHANNELS), h, w], border).channels(0, c);
        self.clear_border(view, Some(self.isa.byte(levels.zero)));
        self.views8.insert((name, lie), view);
        Ok(view)
    }

    /// How an operation reads `name` in 8 bits, if it does.
    fn reads8(&self, op: &Op, name: &str) -> Option<Lie> {
        match op {
            _ if !self.levels.contains_key(name) => None,
            Op::Convolution { x, weights, .. } if *x == name => stored8(weights, 0).map(|_| Lie::Picture),
            // one row is multiplied in f32
            Op::Linear { x, weights, by_column, .. } if *x == name => {
                let rows = self.dims(name).is_ok_and(|d| d[..d.len() - 1].iter().any(|n| *n > 1));
                stored8(weights, usize::from(*by_column)).filter(|_| rows).map(|_| Lie::Rows)
            }
            _ => None,
        }
    }

    /// How `name` is read.
    fn readers(&self, name: &str) -> Readers {
        let Some(readers) = self.consumers.get(name) else { return Readers { float: true, ..Readers::default() } };
        let mut all = Readers { float: name == self.result, ..Readers::default() };
        for j in readers {
            match self.reads8(&self.ops[*j].op, name) {
                Some(Lie::Picture) => all.picture8 = true,
                Some(Lie::Rows) => all.rows8 = true,
                None => all.float = true,
            }
        }
        all
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
}

/// Channels, rows and columns of `[1, C, H, W]` or `[1, C, W]`.
fn sides(dims: &[usize]) -> Result<[usize; 3], Reason> {
    match *dims {
        [1, c, w] => Ok([c, 1, w]),
        [1, c, h, w] => Ok([c, h, w]),
        _ => Err(format!("{dims:?} is no picture")),
    }
}

/// The weights in 8 bits, with a scale for each of what lies along dimension `axis` or one for all, if they are stored so.
fn stored8(weights: &Constant, axis: usize) -> Option<(&[i8], &[f32])> {
    let stored = weights.levels.as_ref().filter(|s| s.scales.len() == 1 || s.axis == axis)?;
    Some((&stored.values, &stored.scales))
}
