//! Conv, in f32 and in 8 bits; linear layers over rows are convolutions of one row with a kernel of 1×1.

use super::batch_norm::{self, Affine};
use super::window::{self, WINDOW};
use super::{InHalves, Operation, Operator, computed_conv, depthwise};
use crate::compile::{Compiler, Layout8, Readers, stored_8bit};
use crate::constant::{Constant, Stored8, Values};
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::pair;
use crate::place::{Access, Buffer, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen, product};
use kernels::arena::{Extent, ImageView, Precision, StridedView};
use kernels::conv::{self, Method, Shape};
use kernels::conv8::{self, QuantParams, Packed8};
use kernels::weights::Stored;
use kernels::winograd;
use kernels::pool::Side;
use onnx::pb::tensor_proto::DataType;
use std::borrow::Cow;
use std::sync::Arc;

pub static OPERATORS: &[Operator] = &[Operator::new("Conv").attributes(WINDOW).infer(infer).lower(lower)];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let (x, weights) = (n.shape(0)?, n.shape(1)?);
    let groups = window::groups(n.node).ok_or_else(unknown_form)?;
    let channels = weights.get(1).and_then(|c| c.checked_mul(groups));
    if x.len() != weights.len() || x.len() < 3 || Some(x[1]) != channels || !weights[0].is_multiple_of(groups) {
        return Err(unknown_form());
    }
    let sides = window::sides(n.node, Some(&weights[2..]), &x[2..]).ok_or_else(unknown_form)?;
    let results = sides.iter().zip(&x[2..]).map(|(side, n)| side.results(*n, false));
    let dims: Option<Vec<usize>> = [Some(x[0]), Some(weights[0])].into_iter().chain(results).collect();
    Ok(vec![dims.ok_or_else(unknown_form)?])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let (Some(x), Some(weights)) = (l.value(node, 0), l.constant(node, 1)) else { return computed_conv::lower(l, i, false) };
    let (from, to) = (l.dims(x)?, l.dims(&node.output[0])?);
    let sides = window::rows_and_columns(&window::sides(node, Some(weights.dims.get(2..)?), from.get(2..)?)?)?;
    let Some(bias) = l.optional(node, 2) else { return computed_conv::lower(l, i, false) };
    let bias = bias.map(|b| Cow::from(b.values.as_slice()));
    if bias.as_ref().is_some_and(|b| b.len() != weights.dims[0]) {
        return None;
    }
    let (from, to) = (pair(&from[2..], 1)?, pair(&to[2..], 1)?);
    let border: Vec<usize> = (0..2).map(|i| border(&sides[i], from[i], to[i])).collect::<Option<_>>()?;
    let border = pair(&border, 0)?;
    let conv = Conv { x, weights: Cow::Borrowed(weights), bias, sides, border, groups: window::groups(node)? };
    match l.then(node, "BatchNormalization").and_then(|(j, norm)| Some((j, norm, batch_norm::affine(l, norm)?))) {
        Some((j, norm, affine)) if affine.scale.len() == weights.dims[0] => {
            l.fused(conv.then(&affine), &norm.output, vec![i, j])
        }
        _ => l.one(i, conv),
    }
}

/// Whether 16 bits hold weights, and twice as much, which no transformed ones exceed.
pub fn fits_halves(weights: &[f32]) -> bool {
    weights.iter().all(|w| w.abs() < 32_752.0)
}

/// The zeros that a side of `n` numbers needs at each end for so many results.
pub fn border(side: &Side, n: usize, results: usize) -> Option<usize> {
    let reach = results.checked_sub(1)?.checked_mul(side.stride)?.checked_add(side.extent()?)?;
    Some(side.before.max(reach.saturating_sub(n.checked_add(side.before)?)))
}

/// A convolution with weights `[C_out, C_in / groups, kernel…]`.
struct Conv<'a> {
    x: &'a str,
    weights: Cow<'a, Constant>,
    bias: Option<Cow<'a, [f32]>>,
    sides: [Side; 2],
    /// The zeros that it reads around its input.
    border: [usize; 2],
    groups: usize,
}

impl Conv<'_> {
    /// With a scale and a shift of each channel of the result.
    fn then(mut self, affine: &Affine) -> Self {
        let weights = self.weights.values.decoded();
        let each = (weights.len() / affine.scale.len()).max(1);
        let scaled = weights.chunks(each).zip(&affine.scale).flat_map(|(w, a)| w.iter().map(move |w| w * a)).collect();
        let bias = self.bias.unwrap_or_else(|| vec![0.0; affine.scale.len()].into());
        let shifted = bias.iter().zip(affine.scale.iter().zip(&affine.shift)).map(|(b, (scale, shift))| b * scale + shift);
        self.bias = Some(shifted.collect());
        self.weights = Cow::Owned(Constant::of(self.weights.dims.clone(), scaled, DataType::Float));
        self
    }

    /// The sizes of one group.
    fn shape(&self) -> Result<Shape, Reason> {
        let dims = &self.weights.dims;
        let of = |f: fn(&Side) -> usize| [f(&self.sides[0]), f(&self.sides[1])];
        Ok(Shape {
            c_out: dims[0] / self.groups,
            c_in: dims[1],
            kernel: pair(&dims[2..], 1).ok_or("a kernel of more than two dimensions")?,
            stride: of(|s| s.stride),
            dilation: of(|s| s.dilation),
            padding: of(|s| s.before),
        })
    }

    /// Weights and scales, if they are stored in 8 bits and there are kernels for this form.
    fn stored_8bit(&self) -> Option<&Stored8> {
        if self.groups == 1 { stored_8bit(&self.weights, 0) } else { None }
    }
}

impl<'a> Operation<'a> for Conv<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn border(&self) -> Option<(&'a str, [usize; 2])> {
        Some((self.x, self.border))
    }

    fn in_halves(&self, _: &Compiler<'_, 'a>, _: &str) -> InHalves {
        if fits_halves(&self.weights.values.decoded()) { InHalves::Always } else { InHalves::Never }
    }

    fn reads_8bit(&self, c: &Compiler<'_, 'a>, name: &str) -> Option<Layout8> {
        let reads = self.x == name && c.is_rounded(name) && self.stored_8bit().is_some();
        reads.then_some(Layout8::Image)
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (shape, bias) = (self.shape()?, self.bias.as_deref());
        let stored = self.stored_8bit();
        if let Some((stored, (params, inputs))) = stored.zip(c.value_8bit(self.x, Layout8::Image)) {
            let values = stored.values();
            return convolve_8bit(c, out, shape, (&values, &stored.scales), bias, (params, &inputs, Layout8::Image));
        }
        let inputs = c.images(self.x, self.border)?;
        if self.groups == 1 {
            let weights = Weights { float: Floats::Stored(&self.weights.values), stored };
            convolve_images(c, out, shape, weights, bias, &inputs)
        } else {
            convolve_groups(c, out, (shape, self.groups), &self.weights.values.decoded(), bias, &inputs)
        }
    }
}

/// A convolution's weights, as numbers and, if they are stored so, in 8 bits with their scales.
#[derive(Clone, Copy)]
pub struct Weights<'w> {
    pub float: Floats<'w>,
    pub stored: Option<&'w Stored8>,
}

/// Weights as numbers, which may have to be worked out, and are only where they are read.
#[derive(Clone, Copy)]
pub enum Floats<'w> {
    Here(&'w [f32]),
    Stored(&'w Values),
}

impl<'w> Floats<'w> {
    fn numbers(self) -> Cow<'w, [f32]> {
        match self {
            Floats::Here(numbers) => numbers.into(),
            Floats::Stored(values) => values.decoded(),
        }
    }
}

/// The images that a convolution makes, and what is added to them.
pub struct Made<'a> {
    pub out: &'a str,
    pub place: StridedView,
    pub images: Vec<ImageView>,
    /// What is added to each channel, and what to each number.
    pub sums: (Option<Slice>, Option<ImageView>),
}

impl<'a> Made<'a> {
    /// The places of so many images `out`, with the sums that alone read the result, if it is one.
    pub fn new(c: &mut Compiler<'_, 'a>, out: &'a str, count: usize) -> Result<Self, Reason> {
        let (mut last, mut sums) = (out, (None, None));
        if count == 1 {
            let fused = c.fuse_sums(out, 1)?;
            (last, sums) = (fused.out, (fused.bias, fused.residual.map(|r| c.as_view(&r)).transpose()?));
        }
        let (place, images) = c.results(last)?;
        Ok(Made { out: last, place, images, sums })
    }
}

/// Convolutions of images, with the sums that alone read the result.
pub fn convolve_images<'a>(
    c: &mut Compiler<'_, 'a>,
    out: &'a str,
    shape: Shape,
    weights: Weights,
    bias: Option<&[f32]>,
    inputs: &[ImageView],
) -> Result<(), Reason> {
    let made = Made::new(c, out, inputs.len())?;
    convolve(c, shape, weights, bias, (inputs, &made.images), made.sums)?;
    c.put(made.out, made.place);
    Ok(())
}

/// Pushes a convolution of groups of channels: of each channel by itself, or of as many groups at a time as fill a vector of the
/// widest kind with their results, with zeros for what a group has not to do with another. `shape` is that of one group.
pub fn convolve_groups<'a>(
    c: &mut Compiler<'_, 'a>,
    out: &'a str,
    (shape, groups): (Shape, usize),
    weights: &[f32],
    bias: Option<&[f32]>,
    inputs: &[ImageView],
) -> Result<(), Reason> {
    let Made { out, place, images, sums } = Made::new(c, out, inputs.len())?;
    if (shape.c_out, shape.c_in) == (1, 1) {
        let shape = Shape { c_out: groups, ..shape };
        depthwise::convolve(c, shape, weights, bias, (inputs, &images), sums)?;
        c.put(out, place);
        return Ok(());
    }
    let enough = |n: &usize| groups.is_multiple_of(*n) && n * shape.c_out >= FILLED;
    let together = (1..=groups).find(enough).unwrap_or(groups);
    let (c_out, c_in) = (shape.c_out * together, shape.c_in * together);
    let of_these = Shape { c_out, c_in, ..shape };
    let each = product(&[shape.c_in, shape.kernel[0], shape.kernel[1]]);
    let method = if together == 1 { None } else { Some(Method::Direct) };
    for (i, weights) in weights.chunks(c_out * each).enumerate() {
        let float = side_by_side(weights, together, each);
        let channels = |view: &ImageView, n: usize| view.channels(i * n, n).ok_or("a group of channels that are not there");
        let all = |views: &[ImageView], n: usize| views.iter().map(|v| channels(v, n)).collect::<Result<Vec<_>, _>>();
        let sums_of_these = (
            sums.0.map(|slice| Slice { start: slice.start + i * c_out, len: c_out }),
            sums.1.map(|view| channels(&view, c_out)).transpose()?,
        );
        let views = (&*all(inputs, c_in)?, &*all(&images, c_out)?);
        let bias = bias.map(|all| &all[i * c_out..][..c_out]);
        convolve_by(c, of_these, method, Weights { float: Floats::Here(&float), stored: None }, bias, views, sums_of_these)?;
    }
    c.put(out, place);
    Ok(())
}

/// The results that groups have together if that can be: as many as the widest vectors have numbers, on every CPU, so that all
/// of them add up the same numbers.
const FILLED: usize = 16;

/// Weights of groups, `each` for a result, as those of one convolution: each result has zeros for the inputs of other groups.
fn side_by_side(weights: &[f32], groups: usize, each: usize) -> Cow<'_, [f32]> {
    if groups == 1 || each == 0 {
        return weights.into();
    }
    let results = weights.len() / groups / each;
    let mut all = vec![0.0; weights.len() * groups];
    for (o, of_result) in weights.chunks(each).enumerate() {
        let first = (o * groups + o / results.max(1)) * each;
        all[first..first + each].copy_from_slice(of_result);
    }
    all.into()
}

/// Pushes a convolution in f32; `sums` is what is added to each channel and what to each number.
pub fn convolve(
    c: &mut Compiler,
    shape: Shape,
    weights: Weights,
    bias: Option<&[f32]>,
    views: (&[ImageView], &[ImageView]),
    sums: (Option<Slice>, Option<ImageView>),
) -> Result<(), Reason> {
    convolve_by(c, shape, None, weights, bias, views, sums)
}

/// As [`convolve`], by a method if one is named.
fn convolve_by(
    c: &mut Compiler,
    shape: Shape,
    method: Option<Method>,
    weights: Weights,
    bias: Option<&[f32]>,
    (inputs, outputs): (&[ImageView], &[ImageView]),
    sums: (Option<Slice>, Option<ImageView>),
) -> Result<(), Reason> {
    if bias.is_some_and(|b| b.len() != shape.c_out) {
        return Err("the bias does not fit".into());
    }
    // all images are of one size
    let [input, output] = [inputs, outputs].map(|images| images.first().ok_or("a convolution of nothing"));
    let (input, output) = (input?, output?);
    let as_large = (input.h, input.w) == (output.h, output.w);
    let square = winograd::suits(&shape, output.h, output.w, winograd::float::many(input.precision)).next().filter(|_| as_large);
    let method = method.or(square.map(Method::Winograd)).unwrap_or(Method::Direct);
    let eight = weights.stored.filter(|_| method == Method::Direct && input.precision == Precision::F32);
    let (levels, floats) = match eight {
        Some(stored) => (stored.values(), Cow::default()),
        None => (Cow::default(), weights.float.numbers()),
    };
    let weights = eight.map_or(Stored::Float(&floats), |stored| Stored::Eight(&levels, &stored.scales));
    if product(&[shape.c_out, shape.c_in, shape.kernel[0], shape.kernel[1]]) != weights.len() {
        return Err("weights of another number".into());
    }
    let precision = input.precision;
    take_packed(c, &shape, method, (c.isa.tile_of(precision).0, 1), Buffer::of(precision).size())?;
    let packed = Arc::new(conv::Packed::of(precision, shape, method, weights, bias, c.isa)?);
    for (input, output) in inputs.iter().zip(outputs) {
        let mut places = Places::default();
        let step = ConvStep {
            packed: packed.clone(),
            bias: sums.0.map(|slice| places.slice(Access::Read, slice)),
            input: places.bordered(*input),
            output: places.image(Access::Write, *output),
            residual: sums.1.map(|view| places.image(Access::Read, view)),
        };
        c.push(step, places);
    }
    Ok(())
}

/// Pushes 8-bit convolutions of images, or a linear layer, with the rounding and, of one image, the sums that alone read the
/// result, which lies as the input does.
pub fn convolve_8bit<'a>(
    c: &mut Compiler<'_, 'a>,
    out: &'a str,
    shape: Shape,
    (weights, scales): (&[i8], &[f32]),
    bias: Option<&[f32]>,
    (params, inputs, layout): (QuantParams, &[ImageView], Layout8),
) -> Result<(), Reason> {
    let right = product(&[shape.c_out, shape.c_in, shape.kernel[0], shape.kernel[1]]) == weights.len();
    if !right || bias.is_some_and(|b| b.len() != shape.c_out) || ![1, shape.c_out].contains(&scales.len()) {
        return Err("the weights, their scales or the bias do not fit".into());
    }
    let alike = |r: Readers| if layout == Layout8::Image { !r.rows_8bit } else { !r.image_8bit };
    let rounding = c.sole_rounding(out).filter(|(_, rounded, _)| alike(c.readers(rounded)));
    let round = rounding.map(|(_, _, params)| params);
    let rounded = rounding.map_or(out, |(j, rounded, _)| {
        c.fuse(j);
        rounded
    });
    let readers = c.readers(rounded);
    let quantized = round.filter(|_| readers.image_8bit || readers.rows_8bit);
    let (mut last, mut extra, mut residual) = (rounded, None, None);
    if quantized.is_none() && inputs.len() == 1 {
        let axis = if layout == Layout8::Image { 1 } else { c.dims(rounded)?.len() - 1 };
        let sums = c.fuse_sums(rounded, axis)?;
        (last, extra) = (sums.out, sums.bias);
        let lying = |r| if layout == Layout8::Image { c.as_view(&r) } else { c.as_rows(&r) };
        residual = sums.residual.map(lying).transpose()?;
    }
    // what is only read in 8 bits needs no f32
    let output = match layout {
        _ if !readers.float && quantized.is_some() => None,
        Layout8::Image => Some(c.image(last)?),
        Layout8::Rows => Some(c.row_major(c.dims(last)?)?),
    };
    let outputs_8bit = quantized.map(|params| c.place_8bit(rounded, params, layout)).transpose()?;
    let outputs = output.as_ref().and_then(|place| match layout {
        Layout8::Image => place.views(),
        Layout8::Rows => place.rows().map(|rows| vec![rows]),
    });
    // all images are of one size
    let input = inputs.first().ok_or("a convolution of nothing")?;
    let to = outputs.iter().chain(&outputs_8bit).flatten().next().ok_or("a convolution without a result")?;
    let as_large = (input.h, input.w) == (to.h, to.w);
    let method = if as_large { conv8::method(c.isa, &shape, weights, [to.h, to.w]) } else { Method::Direct };
    let bytes = if method == Method::Direct { 1 } else { 2 };
    take_packed(c, &shape, method, (c.isa.lanes_of_bytes(), conv8::CHANNELS), bytes)?;
    let packed = Arc::new(Packed8::new(shape, method, (weights, scales), bias, params, c.isa)?);
    let of = |views: &Option<Vec<ImageView>>, i: usize| views.as_ref().and_then(|views| views.get(i).copied());
    for (i, input) in inputs.iter().enumerate() {
        let mut places = Places::default();
        let step = QuantizedConvStep {
            packed: packed.clone(),
            round,
            bias: extra.map(|slice| places.slice(Access::Read, slice)),
            input: places.quantized_bordered(*input),
            output: of(&outputs, i).map(|view| places.image(Access::Write, view)),
            output_8bit: of(&outputs_8bit, i).zip(quantized).map(|(view, params)| (places.quantized(view), params)),
            residual: residual.map(|view| places.image(Access::Read, view)),
        };
        c.push(step, places);
    }
    if let Some(place) = output {
        c.put(last, place);
    }
    Ok(())
}

/// Takes what the weights of a convolution become from the budget: packed in whole vectors of output channels and in whole
/// groups of input channels, of so many bytes each, for the taps of the kernel or what they are transformed into.
pub fn take_packed(
    c: &Compiler,
    shape: &Shape,
    method: Method,
    (lanes, group): (usize, usize),
    bytes: usize,
) -> Result<(), Reason> {
    let taps = match method {
        Method::Direct => shape.kernel[0].saturating_mul(shape.kernel[1]),
        Method::Winograd(square) => square.positions(),
    };
    let channels = [(shape.c_out, lanes), (shape.c_in, group)];
    let sizes = channels.map(|(n, of)| n.checked_next_multiple_of(of).unwrap_or(usize::MAX));
    c.graph.take_bytes(sizes.into_iter().fold(taps.saturating_mul(bytes), usize::saturating_mul))
}

/// Whether an input with its border has all windows of an output.
pub fn reaches(shape: &Shape, input: &ImageView, output: &ImageView) -> bool {
    let window = shape.window([output.h, output.w]);
    window.is_some_and(|window| input.reaches(shape.padding, window, input.c, usize::MAX))
}

/// Whether the method makes outputs of this size: Winograd's only those as large as their input.
fn makes(method: Method, input: &ImageView, output: &ImageView) -> bool {
    method == Method::Direct || (input.h, input.w) == (output.h, output.w)
}

/// How a convolution's windows and taps move, as text.
pub fn moves(shape: &Shape) -> String {
    let text = |name: &str, [y, x]: [usize; 2]| match (y, x) {
        _ if y == x => format!(", {name} {x}"),
        _ => format!(", {name} {y}×{x}"),
    };
    let dilation = if shape.dilation == [1, 1] { String::new() } else { text("dilation", shape.dilation) };
    text("stride", shape.stride) + &dilation
}

/// What is said of a convolution's sizes, and its multiply-adds.
fn describe(shape: &Shape, input: &ImageView, output: &ImageView) -> (String, u64) {
    let ([kh, kw], Extent { h, w, .. }) = (shape.kernel, **output);
    let text = format!(
        "{}×{}×{} → {}×{h}×{w}, {kh}×{kw}{}",
        input.c,
        input.h,
        input.w,
        shape.c_out,
        moves(shape)
    );
    (text, product(&[shape.c_in, shape.c_out, kh, kw, h, w]) as u64)
}

fn work(shape: &Shape, output: &ImageView) -> usize {
    product(&[shape.c_in, shape.kernel[0], shape.kernel[1], output.c, output.h, output.w])
}

#[derive(Debug)]
struct ConvStep {
    packed: Arc<conv::Packed>,
    /// What is added to each channel beside the stored bias.
    bias: Option<Handle<Slice>>,
    input: Handle<ImageView>,
    output: Handle<ImageView>,
    residual: Option<Handle<ImageView>>,
}

impl Kernel for ConvStep {
    fn name(&self, _: &Places) -> &'static str {
        match (self.packed.method(), self.residual) {
            (Method::Direct, None) => "convolution",
            (Method::Direct, Some(_)) => "convolution + residual",
            (Method::Winograd(_), None) => "Winograd convolution",
            (Method::Winograd(_), Some(_)) => "Winograd convolution + residual",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        describe(self.packed.shape(), &places.get(self.input), &places.get(self.output))
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(work(self.packed.shape(), &places.get(self.output)))
    }

    fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    fn shared_weights(&self) -> Option<usize> {
        Some(Arc::as_ptr(&self.packed).addr())
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        let output = places.get(self.output);
        let work = self.packed.work_len(output.h, output.w).unwrap_or(usize::MAX);
        ScratchLen { work, copied: self.bias.map_or(0, |bias| places.get(bias).len) }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (shape, input, output) = (self.packed.shape(), places.get(self.input), places.get(self.output));
        let right = input.c == shape.c_in
            && output.c == shape.c_out
            && reaches(shape, &input, &output)
            && makes(self.packed.method(), &input, &output)
            && [input.precision, output.precision] == [self.packed.precision(); 2]
            && self.bias.is_none_or(|bias| places.get(bias).len == shape.c_out)
            && self.residual.is_none_or(|r| super::image_map::same_size(&places.get(r), &output));
        if right { Ok(()) } else { Err("a convolution that does not fit its input or its output".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, scratch: &mut Scratch) {
        let Scratch { work, copied } = scratch;
        let extra = copy_bias(self.bias, places, memory, copied);
        let run = conv::Run {
            packed: &self.packed,
            extra,
            input: places.get(self.input),
            output: places.get(self.output),
            residual: self.residual.map(|view| places.get(view)),
        };
        kernels::convolve(isa, &run, part, work, memory);
    }
}

/// Copies what is added to each channel out of the arena.
pub fn copy_bias<'s>(
    bias: Option<Handle<Slice>>,
    places: &Places,
    memory: kernels::Memory,
    to: &'s mut [f32],
) -> Option<&'s [f32]> {
    let slice = places.get(bias?);
    let to = &mut to[..slice.len];
    memory.read(slice.start, to);
    Some(to)
}

#[derive(Debug)]
struct QuantizedConvStep {
    packed: Arc<Packed8>,
    /// What the result is rounded to.
    round: Option<QuantParams>,
    /// What is added to each channel after that.
    bias: Option<Handle<Slice>>,
    input: Handle<ImageView>,
    output: Option<Handle<ImageView>>,
    output_8bit: Option<(Handle<ImageView>, QuantParams)>,
    residual: Option<Handle<ImageView>>,
}

impl QuantizedConvStep {
    /// An output: both are of one size.
    fn result(&self, places: &Places) -> Option<ImageView> {
        self.output.or(self.output_8bit.map(|(view, _)| view)).map(|view| places.get(view))
    }
}

impl Kernel for QuantizedConvStep {
    fn name(&self, _: &Places) -> &'static str {
        match (self.packed.method(), self.residual) {
            (Method::Direct, None) => "8-bit convolution",
            (Method::Direct, Some(_)) => "8-bit convolution + residual",
            (Method::Winograd(_), None) => "8-bit Winograd convolution",
            (Method::Winograd(_), Some(_)) => "8-bit Winograd convolution + residual",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let input = places.get(self.input);
        describe(self.packed.shape(), &input, &self.result(places).unwrap_or(input))
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(work(self.packed.shape(), &self.result(places)?) / 4)
    }

    fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    fn shared_weights(&self) -> Option<usize> {
        Some(Arc::as_ptr(&self.packed).addr())
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        let work = self.result(places).map_or(0, |to| {
            self.packed.method().work_len(self.packed.shape(), to.h, to.w).unwrap_or(usize::MAX)
        });
        ScratchLen { work, copied: self.bias.map_or(0, |bias| places.get(bias).len) }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (shape, input) = (self.packed.shape(), places.get(self.input));
        let unfit = || Reason::from("an 8-bit convolution that does not fit its input or its output");
        let to = self.result(places).ok_or_else(unfit)?;
        let all = [self.output, self.output_8bit.map(|(view, _)| view), self.residual];
        let alike = |view: Handle<ImageView>| super::image_map::same_size(&places.get(view), &to);
        let right = input.c == shape.c_in
            && to.c == shape.c_out
            && makes(self.packed.method(), &input, &to)
            && input.pixel.is_multiple_of(conv8::CHANNELS)
            && input.start.is_multiple_of(conv8::CHANNELS)
            && shape.c_in.checked_next_multiple_of(conv8::CHANNELS).is_some_and(|c| c <= input.pixel)
            && reaches(shape, &input, &to)
            && self.bias.is_none_or(|bias| places.get(bias).len == shape.c_out)
            && all.into_iter().flatten().all(alike);
        if right { Ok(()) } else { Err(unfit()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, scratch: &mut Scratch) {
        let Scratch { work, copied } = scratch;
        let extra = copy_bias(self.bias, places, memory, copied);
        let run = conv8::Run8 {
            packed: &self.packed,
            round: self.round,
            extra,
            input: places.get(self.input),
            output: self.output.map(|view| places.get(view)),
            output8: self.output_8bit.map(|(view, params)| (places.get(view), params)),
            residual: self.residual.map(|view| places.get(view)),
        };
        kernels::convolve8(isa, &run, part, work, memory);
    }
}
