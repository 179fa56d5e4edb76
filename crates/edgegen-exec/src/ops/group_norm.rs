//! GroupNormalization, and group norm as exporters write it with InstanceNormalization.

use super::image_map::{Output, same_size};
use super::zeros::image_size;
use super::{InHalves, Operation, Operator, same_shape};
use crate::compile::{Compiler, Layout8, Readers};
use crate::constant::Constant;
use crate::lower::{Lowered, Lowering};
use crate::node::{float, int};
use crate::place::{Access, Handle, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen, product};
use kernels::arena::ImageView;
use kernels::dense::{self, Output as Target};
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    Operator::new("GroupNormalization")
        .attributes(&["num_groups", "epsilon", "stash_type"]).infer(same_shape).lower(lower),
    // a group for each channel; with a Reshape before and after it, see `group_norm`
    Operator::new("InstanceNormalization").attributes(&["epsilon"]).infer(same_shape).lower(|l, i| {
        let node = l.node(i);
        let x = l.value(node, 0)?;
        let groups = *l.dims(x)?.get(1)?;
        let weights = |k: usize| l.constant(node, k).map(|c| c.values.to_vec()).filter(|v| v.len() == groups);
        let epsilon = float(node, "epsilon").unwrap_or(1e-5);
        l.one(i, GroupNorm { x, groups, epsilon, scale: weights(1)?, shift: weights(2)? })
    }),
];

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let channels = *l.dims(x)?.get(1)?;
    let groups = usize::try_from(int(node, "num_groups")?).ok()?;
    let groups = Some(groups).filter(|g| *g > 0 && channels.is_multiple_of(*g))?;
    // one for each channel, or, before opset 21, for each group
    let each = |k: usize| -> Option<Vec<f32>> {
        let values = &l.constant(node, k)?.values;
        match values.len() {
            n if n == channels && (groups == channels || l.graph.opset >= 21) => Some(values.to_vec()),
            n if n == groups && l.graph.opset < 21 => Some((0..channels).map(|c| values[c / (channels / groups)]).collect()),
            _ => None,
        }
    };
    let epsilon = float(node, "epsilon").unwrap_or(1e-5);
    l.one(i, GroupNorm { x, groups, epsilon, scale: each(1)?, shift: each(2)? })
}

/// Reshape to `[1, groups, …]`, InstanceNormalization, Reshape back, and the Mul and Add of a number a channel
/// that may follow.
pub fn group_norm<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let reshape = l.node(i);
    let x = l.value(reshape, 0)?;
    let (dims, cut) = (l.dims(x)?, l.dims(&reshape.output[0])?);
    let (j, unit) = l.then(reshape, "InstanceNormalization")?;
    let (k, back) = l.then(unit, "Reshape")?;
    let (channels, groups) = (*dims.get(1)?, *cut.get(1)?);
    let fits = dims[0] == cut[0] && groups > 0 && channels.is_multiple_of(groups);
    if !fits || l.dims(&back.output[0])? != dims {
        return None;
    }
    let of_group = |k: usize| -> Option<Vec<f32>> {
        let values = &l.constant(unit, k)?.values;
        (values.len() == groups).then(|| (0..channels).map(|c| values[c / (channels / groups)]).collect())
    };
    let (mut scale, mut shift) = (of_group(1)?, of_group(2)?);
    let (mut covered, mut last) = (vec![i, j, k], back);
    if let Some((m, node)) = l.then(last, "Mul")
        && let Some(c) = of_channel(l, node, dims, channels)
    {
        scale.iter_mut().zip(c.values.iter()).for_each(|(s, c)| *s *= c);
        shift.iter_mut().zip(c.values.iter()).for_each(|(s, c)| *s *= c);
        covered.push(m);
        last = node;
    }
    if let Some((m, node)) = l.then(last, "Add")
        && let Some(c) = of_channel(l, node, dims, channels)
    {
        shift.iter_mut().zip(c.values.iter()).for_each(|(s, c)| *s += c);
        covered.push(m);
        last = node;
    }
    let epsilon = float(unit, "epsilon").unwrap_or(1e-5);
    l.fused(GroupNorm { x, groups, epsilon, scale, shift }, &last.output, covered)
}

/// The stored tensor that a node reads, if it has a number for each channel.
fn of_channel<'a>(l: &Lowering<'a>, node: &NodeProto, dims: &[usize], channels: usize) -> Option<&'a Constant> {
    let c = l.constant(node, 1).or_else(|| l.constant(node, 0))?;
    // its first dimension but those of one is the channels', and the others are one
    let place = c.dims.len() + 1 == dims.len() || c.dims.len() == dims.len();
    let at = c.dims.len().checked_sub(dims.len() - 1)?;
    (place && c.values.len() == channels && c.dims.get(at) == Some(&channels)).then_some(c)
}

/// Group normalization with a scale and a shift for each channel.
struct GroupNorm<'a> {
    x: &'a str,
    groups: usize,
    epsilon: f32,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl<'a> Operation<'a> for GroupNorm<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn in_halves(&self, _: &Compiler<'_, 'a>, _: &str) -> InHalves {
        InHalves::LikeItsInputs
    }

    /// With the SiLU and the rounding that may follow.
    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let inputs = c.images(self.x, [0, 0])?;
        // a group of one number is its own mean: nothing of it is left, nor of what a product with the scale is rounded by
        let alone = inputs.first().is_some_and(|image| product(&[image.c, image.h, image.w]) == self.groups);
        let scale = if alone { vec![0.0; self.scale.len()] } else { self.scale.clone() };
        let after_silu = c.fuse_silu(out);
        let out = after_silu.unwrap_or(out);
        let only_8bit = Readers { image_8bit: true, ..Readers::default() };
        let rounding = c.sole_rounding(out).filter(|(_, rounded, _)| c.readers(rounded) == only_8bit);
        let (place, outputs): (_, Vec<_>) = match rounding {
            Some((j, rounded, params)) => {
                c.fuse(j);
                let views = c.place_8bit(rounded, params, Layout8::Image)?;
                (None, views.into_iter().map(|view| Target::Quantized(view, params)).collect())
            }
            None => {
                let (place, views) = c.results(out)?;
                (Some(place), views.into_iter().map(Target::Float).collect())
            }
        };
        for (input, target) in inputs.into_iter().zip(outputs) {
            let mut places = Places::default();
            let output = match target {
                Target::Float(view) => Output::Float(places.image(Access::Write, view)),
                Target::Quantized(view, params) => Output::Quantized(places.quantized(view), params),
            };
            let step = GroupNormStep {
                groups: self.groups,
                epsilon: self.epsilon,
                scale: scale.clone(),
                shift: self.shift.clone(),
                silu: after_silu.is_some(),
                input: places.image(Access::Read, input),
                output,
            };
            c.push(step, places);
        }
        if let Some(place) = place {
            c.put(out, place);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct GroupNormStep {
    groups: usize,
    epsilon: f32,
    scale: Vec<f32>,
    shift: Vec<f32>,
    silu: bool,
    input: Handle<ImageView>,
    output: Output,
}

impl Kernel for GroupNormStep {
    fn name(&self, _: &Places) -> &'static str {
        match (self.silu, self.output) {
            (false, _) => "group norm",
            (true, Output::Quantized(..)) => "group norm + SiLU to 8 bits",
            (true, Output::Float(_)) => "group norm + SiLU",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.input)), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let v = places.get(self.input);
        Some(product(&[40, v.c, v.h, v.w]))
    }

    fn bytes(&self) -> usize {
        4 * (self.scale.len() + self.shift.len())
    }

    fn scratch(&self, _: &Places) -> ScratchLen {
        ScratchLen { work: 4 * self.scale.len(), copied: 0 }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output) = (places.get(self.input), self.output.get(places).view());
        let groups = self.groups > 0 && input.c.is_multiple_of(self.groups);
        let weights = self.scale.len() == input.c && self.shift.len() == input.c;
        let fits = same_size(&input, &output) && groups && weights;
        if fits { Ok(()) } else { Err("a group norm that does not fit its input".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, scratch: &mut Scratch) {
        let norm = dense::GroupNorm {
            groups: self.groups,
            epsilon: self.epsilon,
            scale: &self.scale,
            shift: &self.shift,
            silu: self.silu,
        };
        let (input, output) = (places.get(self.input), self.output.get(places));
        kernels::normalize(isa, &norm, input, output, part, &mut scratch.work, memory);
    }
}
