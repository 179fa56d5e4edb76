//! Conv, in f32 and in 8 bits; linear layers over rows are convolutions of one row with a kernel of 1×1.

use super::{Operation, Operator};
use crate::compile::{Compiler, Layout8, Readers, stored_8bit};
use crate::constant::Constant;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::{int, ints, pair, text};
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen, product};
use kernels::arena::{Extent, ImageView};
use kernels::conv::{self, Method, Shape};
use kernels::conv8::{self, QuantParams, Packed8};
use kernels::weights::Stored;
use kernels::winograd;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("Conv").attributes(WINDOW).infer(infer).lower(lower)];

/// The attributes that a convolution's window is read from.
const WINDOW: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// The moving window of a convolution or pooling, without dilation.
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
    /// The window of a convolution with weights of these dimensions, whose sides it has: kernels read as many weights as the
    /// window has places.
    pub fn of_weights(node: &NodeProto, weights: &[usize]) -> Option<Self> {
        let sides = weights.get(2..).filter(|sides| !sides.is_empty())?;
        let kernel = given_kernel(node).unwrap_or_else(|| Some(sides.to_vec()))?;
        Self::of(node, kernel).filter(|window| window.kernel == sides)
    }

    /// The window of a pooling of an input of this rank.
    pub fn of_pool(node: &NodeProto, rank: usize) -> Option<Self> {
        let kernel = given_kernel(node)??;
        Self::of(node, kernel).filter(|window| rank.checked_sub(2) == Some(window.kernel.len()))
    }

    fn of(node: &NodeProto, kernel: Vec<usize>) -> Option<Self> {
        let sides = kernel.len();
        let list = |name: &str, default: i64, len: usize| -> Option<Vec<usize>> {
            let given = ints(node, name).map_or_else(|| vec![default; len], <[i64]>::to_vec);
            (given.len() == len).then(|| given.into_iter().map(|v| usize::try_from(v).ok()).collect())?
        };
        let pads = list("pads", 0, 2 * sides)?;
        let plain = list("dilations", 1, sides)?.iter().all(|d| *d == 1)
            && text(node, "auto_pad").is_none_or(|p| p == "NOTSET" || p.is_empty())
            && int(node, "ceil_mode").unwrap_or(0) == 0
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

    /// The output's side `i` for an input's side of `n`.
    pub fn side(&self, i: usize, n: usize) -> Option<usize> {
        let padded = n.checked_add(self.before[i])?.checked_add(self.after[i])?;
        Some(padded.checked_sub(self.kernel[i])? / self.strides[i] + 1)
    }
}

/// The kernel's sides that a node names: none, or some that may not be lengths.
fn given_kernel(node: &NodeProto) -> Option<Option<Vec<usize>>> {
    ints(node, "kernel_shape").map(|k| k.iter().map(|v| usize::try_from(*v).ok()).collect())
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let (x, weights) = (n.shape(0)?, n.shape(1)?);
    let window = Window::of_weights(n.node, weights).ok_or_else(unknown_form)?;
    if x.len() != weights.len() || Some(x[1]) != weights[1].checked_mul(window.group) {
        return Err(unknown_form());
    }
    let sides = (0..window.kernel.len()).map(|i| window.side(i, x[2 + i]));
    let dims: Option<Vec<usize>> = [Some(x[0]), Some(weights[0])].into_iter().chain(sides).collect();
    Ok(vec![dims.ok_or_else(unknown_form)?])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let weights = l.constant(node, 1)?;
    let window = Window::of_weights(node, &weights.dims)?;
    let stride = *window.strides.first()?;
    let even = window.strides.iter().all(|s| *s == stride);
    let plain = window.group == 1 && window.before == window.after && window.kernel.len() <= 2 && even;
    let bias = l.optional(node, 2)?;
    let x = l.value(node, 0)?;
    let fits = bias.is_none_or(|b| b.values.len() == weights.dims[0]);
    let padding = pair(&window.before, 0)?;
    if plain && fits { l.one(i, Conv { x, weights, bias, stride, padding }) } else { None }
}

/// A convolution with weights `[C_out, C_in, kernel…]`.
struct Conv<'a> {
    x: &'a str,
    weights: &'a Constant,
    bias: Option<&'a Constant>,
    stride: usize,
    padding: [usize; 2],
}

impl<'a> Operation<'a> for Conv<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn border(&self) -> Option<(&'a str, [usize; 2])> {
        Some((self.x, self.padding))
    }

    fn reads_8bit(&self, c: &Compiler<'_, 'a>, name: &str) -> Option<Layout8> {
        let reads = self.x == name && c.is_rounded(name) && stored_8bit(self.weights, 0).is_some();
        reads.then_some(Layout8::Image)
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let dims = &self.weights.dims;
        let kernel = pair(&dims[2..], 1).ok_or("a kernel of more than two dimensions")?;
        let shape =
            Shape { c_out: dims[0], c_in: dims[1], kernel, stride: self.stride, padding: self.padding };
        let stored = stored_8bit(self.weights, 0);
        if let Some((stored, (params, input))) = stored.zip(c.value_8bit(self.x, Layout8::Image)) {
            return convolve_8bit(c, out, shape, stored, self.bias, (params, input, Layout8::Image));
        }
        let input = c.view(self.x, self.padding)?;
        convolve_image(c, out, shape, Weights { float: &self.weights.values.decoded(), stored }, self.bias, input)
    }
}

/// A convolution's weights, as numbers and, if they are stored so, in 8 bits with their scales.
#[derive(Clone, Copy)]
pub struct Weights<'w> {
    pub float: &'w [f32],
    pub stored: Option<(&'w [i8], &'w [f32])>,
}

/// A convolution of an image, with the sums that alone read its result.
pub fn convolve_image<'a>(
    c: &mut Compiler<'_, 'a>,
    out: &'a str,
    shape: Shape,
    weights: Weights,
    bias: Option<&Constant>,
    input: ImageView,
) -> Result<(), Reason> {
    let sums = c.fuse_sums(out, 1)?;
    let residual = sums.residual.map(|r| c.as_view(&r)).transpose()?;
    let place = c.image(sums.out)?;
    let output = place.view().ok_or("no image")?;
    convolve(c, shape, weights, bias, (input, output), (sums.bias, residual))?;
    c.put(sums.out, place);
    Ok(())
}

/// Pushes a convolution in f32; `sums` is what is added to each channel and what to each number.
pub fn convolve(
    c: &mut Compiler,
    shape: Shape,
    weights: Weights,
    bias: Option<&Constant>,
    (input, output): (ImageView, ImageView),
    sums: (Option<Slice>, Option<ImageView>),
) -> Result<(), Reason> {
    if bias.is_some_and(|b| b.values.len() != shape.c_out) {
        return Err("the bias does not fit".into());
    }
    let (method, weights) = match winograd::suits(&shape, output.h, output.w, winograd::float::MANY).next() {
        Some(square) => (Method::Winograd(square), Stored::Float(weights.float)),
        None => {
            let eight = weights.stored.map(|(all, scales)| Stored::Eight(all, scales));
            (Method::Direct, eight.unwrap_or(Stored::Float(weights.float)))
        }
    };
    if product(&[shape.c_out, shape.c_in, shape.kernel[0], shape.kernel[1]]) != weights.len() {
        return Err("weights of another number".into());
    }
    take_packed(c, &shape, method, (c.isa.tile().0, 1), 4)?;
    let packed = conv::Packed::new(shape, method, weights, bias.map(|b| b.values.as_slice()), c.isa)?;
    let mut places = Places::default();
    let step = ConvStep {
        packed,
        bias: sums.0.map(|slice| places.slice(Access::Read, slice)),
        input: places.bordered(input),
        output: places.image(Access::Write, output),
        residual: sums.1.map(|view| places.image(Access::Read, view)),
    };
    c.push(step, places);
    Ok(())
}

/// Pushes an 8-bit convolution, or linear layer, with the rounding and the sums that alone read its result, which lies as
/// the input does.
pub fn convolve_8bit<'a>(
    c: &mut Compiler<'_, 'a>,
    out: &'a str,
    shape: Shape,
    (weights, scales): (&[i8], &[f32]),
    bias: Option<&Constant>,
    (params, input, layout): (QuantParams, ImageView, Layout8),
) -> Result<(), Reason> {
    let right = product(&[shape.c_out, shape.c_in, shape.kernel[0], shape.kernel[1]]) == weights.len();
    if !right || bias.is_some_and(|b| b.values.len() != shape.c_out) || ![1, shape.c_out].contains(&scales.len()) {
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
    if quantized.is_none() {
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
    let output_8bit = match quantized {
        Some(params) => Some((c.place_8bit(rounded, params, layout)?, params)),
        None => None,
    };
    let view = output.as_ref().and_then(|place| if layout == Layout8::Image { place.view() } else { place.rows() });
    let to = view.or(output_8bit.map(|(view, _)| view)).ok_or("a convolution without a result")?;
    let method = conv8::method(c.isa, &shape, weights, [to.h, to.w]);
    let bias = bias.map(|b| b.values.as_slice());
    let bytes = if method == Method::Direct { 1 } else { 2 };
    take_packed(c, &shape, method, (c.isa.lanes_of_bytes(), conv8::CHANNELS), bytes)?;
    let packed = Packed8::new(shape, method, (weights, scales), bias, params, c.isa)?;
    let mut places = Places::default();
    let step = QuantizedConvStep {
        packed,
        round,
        bias: extra.map(|slice| places.slice(Access::Read, slice)),
        input: places.quantized_bordered(input),
        output: view.map(|view| places.image(Access::Write, view)),
        output_8bit: output_8bit.map(|(view, params)| (places.quantized(view), params)),
        residual: residual.map(|view| places.image(Access::Read, view)),
    };
    c.push(step, places);
    if let Some(place) = output {
        c.put(last, place);
    }
    Ok(())
}

/// Takes what the weights of a convolution become from the budget: packed in whole vectors of output channels and in whole
/// groups of input channels, of so many bytes each, for the taps of the kernel or what they are transformed into.
fn take_packed(
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

/// Whether an input with its border has all windows of an output of `h` by `w`.
fn reaches(shape: &Shape, input: &ImageView, h: usize, w: usize) -> bool {
    let Shape { kernel, stride, padding, .. } = *shape;
    let side = |n: usize, kernel: usize| n.checked_sub(1)?.checked_mul(stride)?.checked_add(kernel);
    let sides = side(h, kernel[0]).zip(side(w, kernel[1]));
    sides.is_some_and(|(height, width)| input.reaches(padding, [height, width], input.c, usize::MAX))
}

/// What is said of a convolution's sizes, and its multiply-adds.
fn describe(shape: &Shape, input: &ImageView, output: &ImageView) -> (String, u64) {
    let ([kh, kw], Extent { h, w, .. }) = (shape.kernel, **output);
    let text = format!(
        "{}×{}×{} → {}×{h}×{w}, {kh}×{kw}, stride {}",
        input.c, input.h, input.w, shape.c_out, shape.stride
    );
    (text, product(&[shape.c_in, shape.c_out, kh, kw, h, w]) as u64)
}

fn work(shape: &Shape, output: &ImageView) -> usize {
    product(&[shape.c_in, shape.kernel[0], shape.kernel[1], output.c, output.h, output.w])
}

#[derive(Debug)]
struct ConvStep {
    packed: conv::Packed,
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

    fn scratch(&self, places: &Places) -> ScratchLen {
        let output = places.get(self.output);
        let work = self.packed.method().work_len(self.packed.shape(), output.h, output.w).unwrap_or(usize::MAX);
        ScratchLen { work, copied: self.bias.map_or(0, |bias| places.get(bias).len) }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (shape, input, output) = (self.packed.shape(), places.get(self.input), places.get(self.output));
        let right = input.c == shape.c_in
            && output.c == shape.c_out
            && reaches(shape, &input, output.h, output.w)
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
fn copy_bias<'s>(
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
    packed: Packed8,
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
        // the output has all the pixels that the kernel makes of the input
        let side = |i: usize, n: usize| {
            let padded = shape.padding[i].checked_mul(2)?.checked_add(n)?;
            padded.checked_sub(shape.kernel[i])?.checked_div(shape.stride)?.checked_add(1)
        };
        let all = [self.output, self.output_8bit.map(|(view, _)| view), self.residual];
        let alike = |view: Handle<ImageView>| super::image_map::same_size(&places.get(view), &to);
        let right = input.c == shape.c_in
            && to.c == shape.c_out
            && (side(0, input.h), side(1, input.w)) == (Some(to.h), Some(to.w))
            && input.pixel.is_multiple_of(conv8::CHANNELS)
            && input.start.is_multiple_of(conv8::CHANNELS)
            && shape.c_in.checked_next_multiple_of(conv8::CHANNELS).is_some_and(|c| c <= input.pixel)
            && reaches(shape, &input, to.h, to.w)
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
