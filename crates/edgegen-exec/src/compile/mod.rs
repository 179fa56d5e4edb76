//! From operations to a plan: which stage makes every value and where the inputs lie (here), where values lie (`places.rs`) and
//! in what form steps read them (`forms.rs`, in 8 bits `eight.rs`), which operations become one step (`fuse.rs`), and what shares
//! room and threads (`layout.rs`). What a single operator needs is in its file in `ops/`.

mod eight;
mod forms;
mod fuse;
mod layout;
mod places;

pub use eight::{Layout8, stored_8bit, stored_around};
pub use fuse::Readers;
pub use places::{inverse, sides};

use crate::graph::{Graph, GraphInput};
use crate::lower::{Named, Operand, lower, resolve};
use crate::ops::{Fusion, InHalves};
use crate::place::{Access, Buffer, Handle, Places, Slice};
use crate::plan::{Plan, Tables};
use crate::reason::Reason;
use crate::step::{Boundary, Kernel, Step};
use kernels::Isa;
use kernels::arena::{ImageView, Layout, Precision, StridedView};
use kernels::conv8::QuantParams;
use onnx::budget::Budget;
use onnx::pb::GraphProto;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Why a graph is refused whose values have no place.
const NO_PLACE: &str = "a value that is empty, or of more numbers than can be counted";

/// What the inputs of a graph are called, and their shapes.
pub struct Inputs<'a> {
    /// The version of ONNX's operators that the graph is of.
    pub opset: i64,
    /// The noisy sample.
    pub sample: GraphInput<'a>,
    /// The time, if there is one.
    pub time: Option<GraphInput<'a>>,
    /// The time that the step leads to, if there is one.
    pub next: Option<GraphInput<'a>>,
    /// The class, if there is one.
    pub class: Option<GraphInput<'a>>,
    /// The conditions.
    pub conditions: Vec<GraphInput<'a>>,
    /// The shape of the graph's first output.
    pub result: ResultShape,
}

/// The shape of a graph's first output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultShape {
    /// That of the sample; or, with twice as many channels (the second dimension), the prediction and as much again, which is
    /// observed as if it were an output of its own ([`Workspace::observed`](crate::Workspace::observed)), the first of these.
    OfSample,
    /// Any.
    Any,
}

/// What values that depend on the sample are kept in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The numbers that are asked for.
    pub precision: Precision,
    /// Values that are kept in 32 bits all the same, since they are too large for 16.
    pub in_f32: Vec<String>,
}

impl Numbers {
    /// Such numbers for all values.
    pub fn of(precision: Precision) -> Self {
        Numbers { precision, in_f32: Vec::new() }
    }
}

impl<'a> Inputs<'a> {
    fn all(&self) -> impl Iterator<Item = &GraphInput<'a>> {
        [&self.sample].into_iter().chain(&self.time).chain(&self.next).chain(&self.class).chain(&self.conditions)
    }
}

/// A plan for `graph` on a CPU of this kind, or what in it there is no kernel for. The graph's first output is the prediction;
/// others are values that are to be observed ([`Workspace::observed`](crate::Workspace::observed)). All that loading it and running it on one
/// thread takes is taken from the budget.
///
/// Where numbers of 16 bits are asked for, values that depend on the sample are kept in as many if there are kernels for it,
/// but for the results; an int8 network stays as it is.
///
/// # Errors
/// The first thing that is not known, or that the budget has no room for.
pub fn compile(
    isa: Isa,
    graph: &GraphProto,
    inputs: &Inputs,
    numbers: &Numbers,
    budget: &Budget,
) -> Result<Plan, Reason> {
    let output = graph.output.first().ok_or("the graph has no output")?;
    let all: Vec<GraphInput> =
        inputs.all().map(|i| GraphInput { name: i.name, dims: i.dims.clone(), integer: i.integer }).collect();
    let read = Graph::new(graph, inputs.opset, &all, budget)?;
    let dims = read.dims(&output.name).ok_or("the shape of the result is not known")?;
    let halves = inputs.result == ResultShape::OfSample && dims != inputs.sample.dims;
    if halves && !is_twice(dims, &inputs.sample.dims) {
        return Err("the result is not of the sample's shape".into());
    }
    let ops = lower(&read)?;
    let results = graph.output.iter().map(|output| resolve(&read, &output.name)).collect();
    let mut compiler = Compiler::new(isa, &read, &ops, results);
    compiler.twice = halves;
    compiler.inputs(inputs)?;
    if numbers.precision == Precision::F16 {
        compiler.choose_halves(&numbers.in_f32);
    }
    for before_sample in [true, false] {
        for (i, named) in ops.iter().enumerate() {
            if !compiler.done[i] && (compiler.stages[named.out] < Stage::Sample) == before_sample {
                compiler.done[i] = true;
                compiler.stage = compiler.stages[named.out];
                compiler.precision = compiler.precision_of(named.out);
                compiler.made_for = Some(named.out);
                for input in named.op.inputs() {
                    compiler.bring(input)?;
                }
                named.op.compile(&mut compiler, named.out).map_err(|e| e.context(named.out))?;
            }
        }
    }
    Ok(compiler.finish()?.keeping(&numbers.in_f32))
}

/// Whether a shape is another with twice as many channels.
fn is_twice(dims: &[usize], of: &[usize]) -> bool {
    dims.len() == of.len()
        && of.len() >= 2
        && of[0] == 1
        && of[1].checked_mul(2) == Some(dims[1])
        && dims.iter().zip(of).enumerate().all(|(i, (a, b))| i == 1 || a == b)
}

/// What a value depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// On conditions alone: worked out once for those that are bound.
    Conditions,
    /// On time or class too: once for each time that a run visits.
    Time,
    /// On the sample: in each call.
    Sample,
}

/// Makes a plan of operations.
pub struct Compiler<'c, 'a> {
    pub isa: Isa,
    pub graph: &'a Graph<'a>,
    ops: &'c [Named<'a>],
    /// The graph's results: the prediction, and values that are to be observed.
    results: Vec<&'a str>,
    /// Whether the first result is two of the sample's shape, one after the other.
    twice: bool,
    consumers: HashMap<&'a str, Vec<usize>>,
    /// The values that an operation makes in a place of their own: others may be parts of what they read, or of a
    /// concatenation.
    owners: HashSet<&'a str>,
    stages: HashMap<&'a str, Stage>,
    /// The borders that images need.
    borders: HashMap<&'a str, [usize; 2]>,
    /// Images that lie within a concatenation: its name, and their first channel in it.
    parts: HashMap<&'a str, (&'a str, usize)>,
    /// What values are rounded to.
    rounded: HashMap<&'a str, QuantParams>,
    /// The values that are rounded by their range.
    ranged: HashSet<&'a str>,
    /// Those of them that are there in 8 bits, as rows: the stage that makes them, and where they and their levels are.
    by_range: HashMap<&'a str, (Stage, ImageView, Slice)>,
    memory: Layout,
    bytes: Layout,
    halves: Layout,
    /// Where values lie, in each kind of numbers that they are there in.
    places: [HashMap<&'a str, StridedView>; 2],
    /// Copies of values as images.
    images: [HashMap<&'a str, ImageView>; 2],
    /// The values that are made in 16 bits.
    in_halves: HashSet<&'a str>,
    /// What the operation that is being compiled reads and writes.
    precision: Precision,
    /// What that operation makes.
    made_for: Option<&'a str>,
    /// Values in 8 bits.
    quantized: HashMap<(&'a str, Layout8), Vec<ImageView>>,
    constants: Vec<(usize, Vec<f32>)>,
    /// The tables that rows are read of.
    tables: Tables,
    conditions: Vec<usize>,
    class: Option<&'a str>,
    /// The stage of what is being compiled, and the steps of each.
    stage: Stage,
    steps: [Vec<Step>; 3],
    done: Vec<bool>,
}

impl<'c, 'a> Compiler<'c, 'a> {
    fn new(isa: Isa, graph: &'a Graph<'a>, ops: &'c [Named<'a>], results: Vec<&'a str>) -> Self {
        let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, named) in ops.iter().enumerate() {
            named.op.inputs().into_iter().for_each(|name| consumers.entry(name).or_default().push(i));
        }
        let owns = |named: &&Named| !matches!(named.op.fusion(), Fusion::Reread | Fusion::Concat { .. });
        Compiler {
            isa,
            graph,
            ops,
            results,
            twice: false,
            consumers,
            owners: ops.iter().filter(owns).map(|named| named.out).collect(),
            stages: HashMap::new(),
            borders: HashMap::new(),
            parts: HashMap::new(),
            rounded: HashMap::new(),
            ranged: HashSet::new(),
            by_range: HashMap::new(),
            memory: Layout::default(),
            bytes: Layout::default(),
            halves: Layout::of(Precision::F16),
            places: Default::default(),
            images: Default::default(),
            in_halves: HashSet::new(),
            precision: Precision::F32,
            made_for: None,
            quantized: HashMap::new(),
            constants: Vec::new(),
            tables: Tables::default(),
            conditions: Vec::new(),
            class: None,
            stage: Stage::Sample,
            steps: [Vec::new(), Vec::new(), Vec::new()],
            done: vec![false; ops.len()],
        }
    }

    /// Places the inputs, and finds out what depends on what, which images need borders, and which lie in others.
    fn inputs(&mut self, inputs: &Inputs<'a>) -> Result<(), Reason> {
        self.stages.insert(inputs.sample.name, Stage::Sample);
        inputs
            .time
            .iter()
            .chain(&inputs.next)
            .chain(&inputs.class)
            .for_each(|i| _ = self.stages.insert(i.name, Stage::Time));
        inputs.conditions.iter().for_each(|i| _ = self.stages.insert(i.name, Stage::Conditions));
        for named in self.ops {
            let stage = named.op.inputs().into_iter().filter_map(|n| self.stages.get(n)).max();
            self.stages.insert(named.out, stage.copied().unwrap_or(Stage::Conditions));
            if let Some((x, border)) = named.op.border() {
                self.need_border(x, border);
            }
            match named.op.fusion() {
                Fusion::Round(params) => _ = self.rounded.insert(named.out, params),
                Fusion::RoundByRange => _ = self.ranged.insert(named.out),
                _ => {}
            }
        }
        self.place_parts()?;
        self.stage = Stage::Time;
        for (input, next) in [(&inputs.time, false), (&inputs.next, true)] {
            let Some(input) = input else { continue };
            let (place, whole) = (self.row_major(&input.dims)?, input.integer);
            self.boundary(|to| Boundary::Time { to, whole, next }, &place);
            self.put(input.name, place);
        }
        if let Some(input) = &inputs.class {
            let place = self.row_major(&input.dims)?;
            if place.len() != 1 {
                return Err(format!("{} has several numbers", input.name).into());
            }
            self.boundary(|to| Boundary::Class { to }, &place);
            self.put(input.name, place);
        }
        self.class = inputs.class.as_ref().map(|i| i.name);
        self.stage = Stage::Conditions;
        for (index, input) in inputs.conditions.iter().enumerate() {
            let place = self.row_major(&input.dims)?;
            self.conditions.push(place.len());
            self.boundary(|to| Boundary::Condition { to, index }, &place);
            self.put(input.name, place);
        }
        self.stage = Stage::Sample;
        let (name, dims) = (inputs.sample.name, &inputs.sample.dims);
        let place = if dims.len() == 4 { self.image(name)? } else { self.row_major(dims)? };
        let [to, from] = self.strided([&place, &StridedView::row_major(0, dims)])?;
        let mut places = Places::default();
        let to = places.strided(Access::Write, to);
        self.push_step(Step::boundary(Boundary::Sample { to, from }, places));
        self.put(name, place);
        Ok(())
    }

    /// Chooses the values that are made in 16 bits.
    fn choose_halves(&mut self, in_f32: &[String]) {
        if !self.rounded.is_empty() || !self.ranged.is_empty() {
            return;
        }
        for named in self.ops {
            let made_in_halves = |name: &&str| self.in_halves.contains(*name);
            let can = match named.op.in_halves(self, named.out) {
                InHalves::Never => false,
                InHalves::Always => true,
                InHalves::LikeItsInputs => named.op.inputs().iter().all(made_in_halves),
            };
            let asked = in_f32.iter().any(|name| name == named.out);
            if can && !asked && self.stages[named.out] == Stage::Sample && !self.is_result(named.out) {
                self.in_halves.insert(named.out);
            }
        }
    }

    /// Finds out which images are made in the place of a concatenation of channels that they go into.
    fn place_parts(&mut self) -> Result<(), Reason> {
        for named in self.ops {
            let Fusion::Concat { parts, axis: 1 } = named.op.fusion() else { continue };
            let dims = self.dims(named.out)?;
            if self.stages[named.out] != Stage::Sample || dims[0] != 1 || !(3..=4).contains(&dims.len()) {
                continue;
            }
            let mut first = 0;
            for part in parts {
                let of_part = match part {
                    Operand::Value(name) => self.dims(name)?,
                    Operand::Stored(constant) => &constant.dims,
                };
                // what is made before the sample is known is copied into what depends on it
                if let Operand::Value(part) = part
                    && self.stages.get(part) == Some(&Stage::Sample)
                {
                    self.parts.entry(part).or_insert((named.out, first));
                    if let Some(border) = self.borders.get(part).copied() {
                        self.need_border(named.out, border);
                    }
                }
                first += of_part[1];
            }
        }
        Ok(())
    }

    /// A step at the border of the plan, whose place is one number or a run of them.
    fn boundary(&mut self, at: impl FnOnce(Handle<Slice>) -> Boundary, place: &StridedView) {
        let mut places = Places::default();
        let to = places.slice(Access::Write, Slice { start: place.start, len: place.len() });
        self.push_step(Step::boundary(at(to), places));
    }

    fn need_border(&mut self, name: &'a str, [rows, pixels]: [usize; 2]) {
        let border = self.borders.entry(name).or_default();
        *border = [border[0].max(rows), border[1].max(pixels)];
    }

    fn push_step(&mut self, step: Step) {
        let made_for = self.made_for.filter(|_| step.places.iter().any(|place| place.buffer == Buffer::Halves));
        self.steps[self.stage as usize].push(Step { made_for: made_for.map(Arc::from), ..step });
    }

    /// Adds a step.
    pub fn push(&mut self, kernel: impl Kernel + 'static, places: Places) {
        self.push_step(Step::new(kernel, places));
    }

    /// The dimensions of the value of this name.
    pub fn dims(&self, name: &str) -> Result<&'a [usize], Reason> {
        self.graph.dims(name).ok_or_else(|| format!("the shape of {name} is not known").into())
    }

    /// The stage of what is being compiled.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Where the value of this name lies.
    pub fn value(&self, name: &str) -> Result<StridedView, Reason> {
        self.made(name).cloned().ok_or_else(|| format!("{name} is not made before").into())
    }

    /// Where the value of this name lies, if it has been made in the numbers of the operation that is being compiled.
    pub fn made(&self, name: &str) -> Option<&StridedView> {
        self.places[self.precision as usize].get(name)
    }

    /// Where a value lies that does not depend on the sample: those are in 32 bits.
    fn made_before(&self, name: &str) -> Option<&StridedView> {
        self.places[Precision::F32 as usize].get(name).filter(|_| self.is_before_sample(name))
    }

    /// Says where a value lies.
    pub fn put(&mut self, name: &'a str, place: StridedView) {
        self.places[place.precision as usize].insert(name, place);
    }

    /// Whether a value does not depend on the sample.
    pub fn is_before_sample(&self, name: &str) -> bool {
        self.stages.get(name).is_some_and(|stage| *stage < Stage::Sample)
    }

    /// The operation that is being compiled reads these and writes in 32 bits, though it was thought to in 16.
    pub fn in_floats(&mut self, inputs: &[&'a str]) -> Result<(), Reason> {
        self.precision = Precision::F32;
        inputs.iter().try_for_each(|name| self.bring(name))
    }

    /// What a value is made in.
    pub fn precision_of(&self, name: &str) -> Precision {
        if self.in_halves.contains(name) { Precision::F16 } else { Precision::F32 }
    }

    /// Notes a table of so many rows, which `index` says the rows of.
    pub fn table(&mut self, index: &str, rows: usize) {
        if self.class == Some(index) {
            self.tables.classes = Some(self.tables.classes.map_or(rows, |classes| classes.min(rows)));
        } else {
            self.tables.looks_up = true;
        }
    }

    /// Makes the images of a value, one by one: `step` is pushed for each image of `x` and that of the result.
    pub fn image_by_image<K: Kernel + 'static>(
        &mut self,
        x: &'a str,
        out: &'a str,
        step: impl Fn(Handle<ImageView>, Handle<ImageView>) -> K,
    ) -> Result<(), Reason> {
        let (inputs, (place, outputs)) = (self.images(x, [0, 0])?, self.results(out)?);
        self.push_each(inputs, outputs, step);
        self.put(out, place);
        Ok(())
    }

    /// Pushes a step for each image that is read and the one that is written.
    pub fn push_each<K: Kernel + 'static>(
        &mut self,
        inputs: Vec<ImageView>,
        outputs: Vec<ImageView>,
        step: impl Fn(Handle<ImageView>, Handle<ImageView>) -> K,
    ) {
        for (input, output) in inputs.into_iter().zip(outputs) {
            let mut places = Places::default();
            let (input, output) = (places.image(Access::Read, input), places.image(Access::Write, output));
            self.push(step(input, output), places);
        }
    }

    /// Whether a value is made in the place of a concatenation.
    pub fn is_part(&self, name: &str) -> bool {
        self.parts.contains_key(name)
    }

    fn is_result(&self, name: &str) -> bool {
        self.results.contains(&name)
    }

    /// Whether nothing but the caller reads a value.
    pub fn is_only_result(&self, name: &str) -> bool {
        self.is_result(name) && !self.consumers.contains_key(name)
    }
}
