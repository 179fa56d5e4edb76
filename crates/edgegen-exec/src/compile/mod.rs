//! From operations to a plan: where every value lies (here), which operations become one step (`fuse.rs`), and what shares
//! room and threads (`layout.rs`). What a single operator needs is in its file in `ops/`.

mod fuse;
mod layout;

pub use fuse::Readers;

use crate::constant::{self, Constant, broadcast_strides};
use crate::graph::{Graph, GraphInput};
use crate::lower::{Named, Operand, lower, resolve};
use crate::ops::{Fusion, unary, zeros};
use crate::place::{Access, Buffer, Handle, Places, Slice, Strided};
use crate::plan::{Plan, Tables};
use crate::reason::Reason;
use crate::step::{Boundary, Kernel, Step};
use kernels::Isa;
use kernels::arena::{ImageView, Layout, StridedView};
use kernels::conv8::{self, QuantParams};
use kernels::general::StridedLoops;
use onnx::budget::Budget;
use onnx::pb::GraphProto;
use std::collections::{HashMap, HashSet};

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

impl<'a> Inputs<'a> {
    fn all(&self) -> impl Iterator<Item = &GraphInput<'a>> {
        [&self.sample].into_iter().chain(&self.time).chain(&self.next).chain(&self.class).chain(&self.conditions)
    }
}

/// A plan for `graph` on a CPU of this kind, or what in it there is no kernel for. The graph's first output is the prediction;
/// others are values that are to be observed ([`Workspace::observed`](crate::Workspace::observed)). All that loading it and running it on one
/// thread takes is taken from the budget.
///
/// # Errors
/// The first thing that is not known, or that the budget has no room for.
pub fn compile(isa: Isa, graph: &GraphProto, inputs: &Inputs, budget: &Budget) -> Result<Plan, Reason> {
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
    compiler.halves = halves;
    compiler.inputs(inputs)?;
    for before_sample in [true, false] {
        for (i, named) in ops.iter().enumerate() {
            if !compiler.done[i] && (compiler.stages[named.out] < Stage::Sample) == before_sample {
                compiler.done[i] = true;
                compiler.stage = compiler.stages[named.out];
                named.op.compile(&mut compiler, named.out).map_err(|e| e.context(named.out))?;
            }
        }
    }
    compiler.finish()
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

/// How a value lies that is read in 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout8 {
    /// As an image, its channels the second dimension.
    Image,
    /// As one row of pixels, its channels the last dimension.
    Rows,
}

/// Makes a plan of operations.
pub struct Compiler<'c, 'a> {
    pub isa: Isa,
    pub graph: &'a Graph<'a>,
    ops: &'c [Named<'a>],
    /// The graph's results: the prediction, and values that are to be observed.
    results: Vec<&'a str>,
    /// Whether the first result is two of the sample's shape, one after the other.
    halves: bool,
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
    places: HashMap<&'a str, StridedView>,
    /// Copies of values as images.
    images: HashMap<&'a str, ImageView>,
    /// Values in 8 bits.
    quantized: HashMap<(&'a str, Layout8), ImageView>,
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
            halves: false,
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
            places: HashMap::new(),
            images: HashMap::new(),
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
            self.places.insert(input.name, place);
        }
        if let Some(input) = &inputs.class {
            let place = self.row_major(&input.dims)?;
            if place.len() != 1 {
                return Err(format!("{} has several numbers", input.name).into());
            }
            self.boundary(|to| Boundary::Class { to }, &place);
            self.places.insert(input.name, place);
        }
        self.class = inputs.class.as_ref().map(|i| i.name);
        self.stage = Stage::Conditions;
        for (index, input) in inputs.conditions.iter().enumerate() {
            let place = self.row_major(&input.dims)?;
            self.conditions.push(place.len());
            self.boundary(|to| Boundary::Condition { to, index }, &place);
            self.places.insert(input.name, place);
        }
        self.stage = Stage::Sample;
        let (name, dims) = (inputs.sample.name, &inputs.sample.dims);
        let place = if dims.len() == 4 { self.image(name)? } else { self.row_major(dims)? };
        let [to, from] = self.strided([&place, &StridedView::row_major(0, dims)])?;
        let mut places = Places::default();
        let to = places.strided(Access::Write, to);
        self.push_step(Step::boundary(Boundary::Sample { to, from }, places));
        self.places.insert(name, place);
        Ok(())
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
        self.steps[self.stage as usize].push(step);
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
        self.places.get(name).cloned().ok_or_else(|| format!("{name} is not made before").into())
    }

    /// Where the value of this name lies, if it has been made.
    pub fn made(&self, name: &str) -> Option<&StridedView> {
        self.places.get(name)
    }

    /// Says where a value lies.
    pub fn put(&mut self, name: &'a str, place: StridedView) {
        self.places.insert(name, place);
    }

    /// Notes a table of so many rows, which `index` says the rows of.
    pub fn table(&mut self, index: &str, rows: usize) {
        if self.class == Some(index) {
            self.tables.classes = Some(self.tables.classes.map_or(rows, |classes| classes.min(rows)));
        } else {
            self.tables.looks_up = true;
        }
    }

    /// A new place whose numbers lie together.
    pub fn row_major(&mut self, dims: &[usize]) -> Result<StridedView, Reason> {
        let start = self.memory.storage(constant::count(dims)?).ok_or(NO_PLACE)?;
        Ok(StridedView::row_major(start, dims))
    }

    /// A place for a value whose dimensions lie in the order that those of `like` do.
    pub fn like(&mut self, name: &'a str, like: &StridedView) -> Result<StridedView, Reason> {
        let dims = self.dims(name)?;
        let images = like.views().filter(|_| self.stage == Stage::Sample && dims.len() == like.dims.len());
        if images.is_some_and(|images| images.len() == dims[0]) {
            return self.image(name);
        }
        let mut order: Vec<usize> = (0..dims.len()).collect();
        if dims.len() == like.dims.len() {
            order.sort_by_key(|d| std::cmp::Reverse(like.strides[*d]));
        }
        let place = self.row_major(&order.iter().map(|d| dims[*d]).collect::<Vec<_>>())?;
        Ok(place.permuted(&inverse(&order)))
    }

    /// A place for the images of this name, `[N, C, H, W]` or `[N, C, W]`: its own, or one within the concatenation that it is
    /// a part of, or that within one that the other is a part of.
    pub fn image(&mut self, name: &'a str) -> Result<StridedView, Reason> {
        // from the value to the outermost whole that it lies in, or the first that has a place
        let (mut chain, mut outermost) = (Vec::new(), name);
        while let Some((whole, first)) =
            self.parts.get(outermost).copied().filter(|_| !chain_has_place(self, outermost, name))
        {
            chain.push((outermost, first));
            outermost = whole;
        }
        if outermost == name || !self.places.contains_key(outermost) {
            let dims = self.dims(outermost)?;
            let border = self.borders.get(outermost).copied().unwrap_or_default();
            let place = self.new_images(dims, border)?;
            if outermost == name {
                return Ok(place);
            }
            self.places.insert(outermost, place);
        }
        let mut whole = self.value(outermost)?;
        for (part, first) in chain.into_iter().rev() {
            let dims = self.dims(part)?;
            let view = whole.view().ok_or("a concatenation that is no image")?;
            let part_of = view.channels(first, dims[1]).ok_or("a part that is not within its concatenation")?;
            whole = StridedView::of_view(part_of, dims);
            if part != name {
                self.places.insert(part, whole.clone());
            }
        }
        Ok(whole)
    }

    /// A new image in f32 with a border of zeros, which a step clears.
    fn new_image(&mut self, sides: [usize; 3], border: [usize; 2]) -> Result<ImageView, Reason> {
        check_image(sides, border)?;
        let view = self.memory.place(sides, border).ok_or(NO_PLACE)?;
        self.clear_border(view, None);
        Ok(view)
    }

    /// New images in f32, `[N, C, H, W]` or `[N, C, W]`, with a border of zeros around each.
    fn new_images(&mut self, dims: &[usize], border: [usize; 2]) -> Result<StridedView, Reason> {
        let (count, sides) = (*dims.first().ok_or("a number is no image")?, sides(&[&[1], &dims[1..]].concat())?);
        check_image(sides, border)?;
        let views = self.memory.places(count, sides, border).ok_or(NO_PLACE)?;
        views.iter().for_each(|view| self.clear_border(*view, None));
        Ok(StridedView::of_views(&views, dims).ok_or(NO_PLACE)?)
    }

    /// A place for images, and the images.
    pub fn results(&mut self, name: &'a str) -> Result<(StridedView, Vec<ImageView>), Reason> {
        let place = self.image(name)?;
        let views = place.views().ok_or("no image")?;
        Ok((place, views))
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

    /// A new image in f32 without a border.
    pub fn plain_image(&mut self, sides: [usize; 3]) -> Result<ImageView, Reason> {
        self.new_image(sides, [0, 0])
    }

    /// A new image all of which is cleared, with a border around it.
    pub fn cleared_image(&mut self, sides: [usize; 3], border: [usize; 2]) -> Result<ImageView, Reason> {
        check_image(sides, border)?;
        let view = self.memory.place(sides, border).ok_or(NO_PLACE)?;
        self.clear(view.start);
        Ok(view)
    }

    /// Pushes a step that makes all of the storage that has this number in it zeros.
    pub fn clear(&mut self, start: usize) {
        let storage = self.memory.storages()[self.memory.storage_at(start)];
        let mut places = Places::default();
        let to = places.slice(Access::Write, Slice { start: storage.start, len: storage.len });
        self.push(zeros::Clear { to }, places);
    }

    fn clear_border(&mut self, view: ImageView, zero_point: Option<u8>) {
        if view.border != [0, 0] || (zero_point.is_some() && view.c < view.pixel) {
            let mut places = Places::default();
            let buffer = if zero_point.is_some() { Buffer::Bytes } else { Buffer::Floats };
            let view = places.edges(buffer, view);
            self.push(zeros::Border { view, zero_point }, places);
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

    /// A stored tensor among the values.
    pub fn operand(&mut self, operand: &Operand<'a>) -> Result<StridedView, Reason> {
        match operand {
            Operand::Value(name) => self.value(name),
            Operand::Stored(constant) => {
                let place = self.row_major(&constant.dims)?;
                self.graph.take_numbers(constant.len())?;
                self.constants.push((place.start, constant.values.to_vec()));
                Ok(place)
            }
        }
    }

    fn loops<const N: usize>(&self, places: [&StridedView; N]) -> Result<StridedLoops<N>, Reason> {
        let dims = &places[0].dims;
        let strides = places.map(|p| broadcast_strides(&p.dims, &p.strides, dims));
        let values = std::array::from_fn(|i| (places[i].start, strides[i].as_slice()));
        StridedLoops::new(dims, values).ok_or_else(|| "more dimensions than there are loops".into())
    }

    /// Values as regions that are gone over together: the others are broadcast to the first.
    pub fn strided<const N: usize>(&self, places: [&StridedView; N]) -> Result<[Strided; N], Reason> {
        Ok(Strided::of_loops(&self.loops(places)?))
    }

    /// As [`strided`](Self::strided), with a matrix of its own for each index of each value: the lengths and strides of its rows
    /// and columns.
    pub fn strided_with<const N: usize>(
        &self,
        places: [&StridedView; N],
        sides: [[(usize, usize); 2]; N],
    ) -> Result<[Strided; N], Reason> {
        Ok(Strided::of_matrices(&self.loops(places)?, sides))
    }

    /// Stacked matrices as regions: the last two dimensions of each value are the matrices', the others are broadcast to those
    /// of the first.
    pub fn matrices<const N: usize>(&self, places: [&StridedView; N]) -> Result<[Strided; N], Reason> {
        let outer = places.map(|p| p.leading(p.dims.len() - 2));
        let loops = self.loops(std::array::from_fn(|v| &outer[v]))?;
        let sides = places.map(|p| {
            let n = p.dims.len() - 2;
            [(p.dims[n], p.strides[n]), (p.dims[n + 1], p.strides[n + 1])]
        });
        Ok(Strided::of_matrices(&loops, sides))
    }

    /// Pushes a step that copies a value.
    pub fn copy(&mut self, from: &StridedView, to: &StridedView) -> Result<(), Reason> {
        let regions = self.strided([to, from])?;
        self.push_copy(regions);
        Ok(())
    }

    fn push_copy(&mut self, regions: [Strided; 2]) {
        let (kernel, places) = unary::Function::new(kernels::general::Unary::Copy, regions);
        self.push(kernel, places);
    }

    /// The value as it is, or else a copy of it whose numbers lie together.
    pub fn contiguous(
        &mut self,
        place: &StridedView,
        fits: impl Fn(&StridedView) -> bool,
    ) -> Result<StridedView, Reason> {
        if fits(place) {
            return Ok(place.clone());
        }
        let copy = self.row_major(&place.dims)?;
        self.copy(place, &copy)?;
        Ok(copy)
    }

    /// The value of this name as an image with at least this border.
    pub fn view(&mut self, name: &'a str, [rows, pixels]: [usize; 2]) -> Result<ImageView, Reason> {
        let place = self.value(name)?;
        let fits = |v: &ImageView| v.border[0] >= rows && v.border[1] >= pixels;
        if let Some(view) = place.view().filter(fits) {
            return Ok(view);
        }
        if let Some(view) = self.images.get(name).copied().filter(fits) {
            return Ok(view);
        }
        let dims = self.dims(name)?;
        let view = self.new_image(sides(dims)?, [rows, pixels])?;
        self.copy(&place, &StridedView::of_view(view, dims))?;
        self.images.insert(name, view);
        Ok(view)
    }

    /// The value of this name as images `[N, C, H, W]` or `[N, C, W]`, each with at least this border.
    pub fn images(&mut self, name: &'a str, [rows, pixels]: [usize; 2]) -> Result<Vec<ImageView>, Reason> {
        let place = self.value(name)?;
        if place.dims.first() == Some(&1) {
            return Ok(vec![self.view(name, [rows, pixels])?]);
        }
        let fits = place.border[0] >= rows && place.border[1] >= pixels;
        if let Some(views) = place.views().filter(|_| fits) {
            return Ok(views);
        }
        let copy = self.new_images(self.dims(name)?, [rows, pixels])?;
        self.copy(&place, &copy)?;
        Ok(copy.views().ok_or(NO_PLACE)?)
    }

    /// A value as an image, copied if it does not lie as one.
    pub fn as_view(&mut self, place: &StridedView) -> Result<ImageView, Reason> {
        if let Some(view) = place.view() {
            return Ok(view);
        }
        let view = self.plain_image(sides(&place.dims)?)?;
        self.copy(place, &StridedView::of_view(view, &place.dims))?;
        Ok(view)
    }

    /// A value as rows of its last dimension, copied if it does not lie so.
    pub fn as_rows(&mut self, place: &StridedView) -> Result<ImageView, Reason> {
        Ok(self.contiguous(place, |p| p.rows().is_some())?.rows().ok_or("no rows")?)
    }

    /// A place for the value of this name in 8 bits: the channels of a pixel are padded to whole groups of those that
    /// are multiplied at a time.
    pub fn place_8bit(&mut self, name: &'a str, params: QuantParams, layout: Layout8) -> Result<ImageView, Reason> {
        let dims = self.dims(name)?;
        let ([c, h, w], border) = match layout {
            Layout8::Image => (sides(dims)?, self.borders.get(name).copied().unwrap_or_default()),
            Layout8::Rows => {
                let c = dims.last().copied().filter(|c| *c > 0).ok_or("a number has no rows")?;
                ([c, 1, dims.iter().product::<usize>() / c], [0, 0])
            }
        };
        let padded = c.checked_next_multiple_of(conv8::CHANNELS).ok_or("too many channels")?;
        check_image([padded, h, w], border)?;
        let whole = self.bytes.place([padded, h, w], border);
        let view = whole.and_then(|whole| whole.channels(0, c)).ok_or(NO_PLACE)?;
        self.clear_border(view, Some(self.isa.byte(params.zero_point())));
        self.quantized.insert((name, layout), view);
        Ok(view)
    }

    /// What a value is rounded to, and where it is in 8 bits, if it is there.
    pub fn value_8bit(&self, name: &'a str, layout: Layout8) -> Option<(QuantParams, ImageView)> {
        self.rounded.get(name).copied().zip(self.quantized.get(&(name, layout)).copied())
    }

    /// Whether a value is rounded to 8 bits by its range.
    pub fn is_rounded_by_range(&self, name: &str) -> bool {
        self.ranged.contains(name)
    }

    /// Says where a value is in 8 bits, as rows, and where its levels are.
    pub fn put_by_range(&mut self, name: &'a str, view: ImageView, levels: Slice) {
        self.by_range.insert(name, (self.stage, view, levels));
    }

    /// Where a value is in 8 bits, as rows, and where its levels are, if it is there in this stage.
    pub fn value_by_range(&self, name: &str) -> Option<(ImageView, Slice)> {
        let (_, view, levels) = self.by_range.get(name).copied().filter(|(stage, ..)| *stage == self.stage)?;
        Some((view, levels))
    }

    /// Whether a value is rounded to 8 bits.
    pub fn is_rounded(&self, name: &str) -> bool {
        self.rounded.contains_key(name)
    }
}

/// Whether `name`, which is not the value that a place is sought for, has one already.
fn chain_has_place(compiler: &Compiler, name: &str, sought: &str) -> bool {
    name != sought && compiler.places.contains_key(name)
}

/// Makes sure that an image is not larger than a value may be.
fn check_image([c, h, w]: [usize; 3], [rows, pixels]: [usize; 2]) -> Result<(), Reason> {
    let side = |n: usize, border: usize| border.checked_mul(2).and_then(|b| b.checked_add(n)).unwrap_or(usize::MAX);
    constant::count(&[c, side(h, rows), side(w, pixels)]).map(|_| ())
}

/// Channels, rows and columns of `[1, C, H, W]` or `[1, C, W]`.
pub fn sides(dims: &[usize]) -> Result<[usize; 3], Reason> {
    match *dims {
        [1, c, w] => Ok([c, 1, w]),
        [1, c, h, w] => Ok([c, h, w]),
        _ => Err(format!("{dims:?} is no image").into()),
    }
}

/// The weights in 8 bits, with a scale for each of what lies along dimension `axis` or one for all, if they are stored so.
pub fn stored_8bit(weights: &Constant, axis: usize) -> Option<(&[i8], &[f32])> {
    let (values, scales, zeros) = stored_around(weights, axis)?;
    zeros.is_empty().then_some((values, scales))
}

/// The same, with what they are around: nothing if all are around zero.
pub fn stored_around(weights: &Constant, axis: usize) -> Option<(&[i8], &[f32], &[f32])> {
    let stored = weights.levels.as_ref().filter(|s| s.scales.len() == 1 || s.axis == axis)?;
    Some((&stored.values, &stored.scales, &stored.zeros))
}

/// The order that undoes an order.
pub fn inverse(order: &[usize]) -> Vec<usize> {
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, o)| back[*o] = i);
    back
}
