//! The step of a depthwise convolution, whose channels are each convolved by themselves.

use super::conv::{copy_bias, moves, reaches};
use super::image_map::same_size;
use crate::compile::Compiler;
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen, product};
use kernels::arena::ImageView;
use kernels::conv::Shape;
use kernels::depthwise::{Packed, Run};
use std::sync::Arc;

/// Pushes a depthwise convolution; `sums` is what is added to each channel and what to each number.
pub fn convolve(
    c: &mut Compiler,
    shape: Shape,
    weights: &[f32],
    bias: Option<&[f32]>,
    (inputs, outputs): (&[ImageView], &[ImageView]),
    sums: (Option<Slice>, Option<ImageView>),
) -> Result<(), Reason> {
    c.graph.take_numbers(weights.len().saturating_mul(2))?;
    let packed = Arc::new(Packed::new(shape, weights, bias)?);
    for (input, output) in inputs.iter().zip(outputs) {
        let mut places = Places::default();
        let step = DepthwiseStep {
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

#[derive(Debug)]
struct DepthwiseStep {
    packed: Arc<Packed>,
    /// What is added to each channel beside the stored bias.
    bias: Option<Handle<Slice>>,
    input: Handle<ImageView>,
    output: Handle<ImageView>,
    residual: Option<Handle<ImageView>>,
}

impl Kernel for DepthwiseStep {
    fn name(&self, _: &Places) -> &'static str {
        if self.residual.is_some() { "depthwise convolution + residual" } else { "depthwise convolution" }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let (shape, from, to) = (self.packed.shape(), places.get(self.input), places.get(self.output));
        let [kh, kw] = shape.kernel;
        let text = format!("{}×{}×{} → {}×{}, {kh}×{kw}{}", from.c, from.h, from.w, to.h, to.w, moves(shape));
        (text, product(&[to.c, to.h, to.w, kh, kw]) as u64)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let to = places.get(self.output);
        let [kh, kw] = self.packed.shape().kernel;
        // each number is loaded for one multiplication
        Some(product(&[4, to.c, to.h, to.w, kh, kw]))
    }

    fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        ScratchLen { work: 0, copied: self.bias.map_or(0, |bias| places.get(bias).len) }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (shape, input, output) = (self.packed.shape(), places.get(self.input), places.get(self.output));
        let right = [input.c, output.c] == [shape.c_out; 2]
            && reaches(shape, &input, &output)
            && self.bias.is_none_or(|bias| places.get(bias).len == shape.c_out)
            && self.residual.is_none_or(|r| same_size(&places.get(r), &output));
        if right { Ok(()) } else { Err("a depthwise convolution that does not fit its input or its output".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, scratch: &mut Scratch) {
        let run = Run {
            packed: &self.packed,
            extra: copy_bias(self.bias, places, memory, &mut scratch.copied),
            input: places.get(self.input),
            output: places.get(self.output),
            residual: self.residual.map(|view| places.get(view)),
        };
        kernels::convolve_depthwise(isa, &run, part, memory);
    }
}
