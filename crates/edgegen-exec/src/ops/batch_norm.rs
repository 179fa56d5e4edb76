//! BatchNormalization with stored statistics: a scale and a shift of each channel.

use super::image_map::same_size;
use super::zeros::image_size;
use super::{Operation, Operator, same_shape};
use crate::compile::Compiler;
use crate::graph::unknown_form;
use crate::lower::{Lowered, Lowering};
use crate::node::{float, int};
use crate::place::{Handle, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::ImageView;
use kernels::dense;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("BatchNormalization")
    // what it does in training, with momentum, is another operator
    .attributes(&["epsilon", "momentum", "spatial", "training_mode"])
    .infer(|n| if n.node.output.len() == 1 { same_shape(n) } else { Err(unknown_form()) })
    .lower(lower)];

/// A scale and a shift for each channel.
pub struct Affine {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

/// What a node makes of each channel: the mean taken away, over the standard deviation, times a scale plus a shift.
pub fn affine(l: &Lowering, node: &NodeProto) -> Option<Affine> {
    let plain = int(node, "training_mode").unwrap_or(0) == 0 && int(node, "spatial").unwrap_or(1) == 1;
    let channels = *l.dims(node.input.first()?)?.get(1)?;
    let stored = |k: usize| l.constant(node, k).map(|c| c.values.as_slice()).filter(|v| v.len() == channels);
    let (scale, shift, mean, variance) = (stored(1)?, stored(2)?, stored(3)?, stored(4)?);
    let epsilon = float(node, "epsilon").unwrap_or(1e-5);
    let scale: Vec<f32> = scale.iter().zip(variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let shift = shift.iter().zip(mean.iter().zip(&scale)).map(|(b, (m, s))| b - m * s).collect();
    plain.then_some(Affine { scale, shift })
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    l.one(i, BatchNorm { x: l.value(node, 0)?, affine: affine(l, node)? })
}

struct BatchNorm<'a> {
    x: &'a str,
    affine: Affine,
}

impl<'a> Operation<'a> for BatchNorm<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    /// With the SiLU that may follow.
    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let dims = c.dims(self.x)?;
        let after_silu = c.fuse_silu(out);
        let out = after_silu.unwrap_or(out);
        // rows of channels are an image of one row
        let (inputs, (place, outputs)) = if dims.len() == 2 {
            let (from, to) = (c.value(self.x)?, c.row_major(dims)?);
            let rows = to.rows().ok_or("no rows")?;
            (vec![c.as_rows(&from)?], (to, vec![rows]))
        } else {
            (c.images(self.x, [0, 0])?, c.results(out)?)
        };
        c.push_each(inputs, outputs, |input, output| AffineStep {
            scale: self.affine.scale.clone(),
            shift: self.affine.shift.clone(),
            silu: after_silu.is_some(),
            input,
            output,
        });
        c.put(out, place);
        Ok(())
    }
}

#[derive(Debug)]
struct AffineStep {
    scale: Vec<f32>,
    shift: Vec<f32>,
    silu: bool,
    input: Handle<ImageView>,
    output: Handle<ImageView>,
}

impl Kernel for AffineStep {
    fn name(&self, _: &Places) -> &'static str {
        if self.silu { "batch norm + SiLU" } else { "batch norm" }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.input)), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let v = places.get(self.input);
        Some(product(&[if self.silu { 30 } else { 15 }, v.c, v.h, v.w]))
    }

    fn bytes(&self) -> usize {
        4 * (self.scale.len() + self.shift.len())
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output) = (places.get(self.input), places.get(self.output));
        let weights = self.scale.len() == input.c && self.shift.len() == input.c;
        let fits = same_size(&input, &output) && weights;
        if fits { Ok(()) } else { Err("a batch norm that does not fit its input".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let affine = dense::Affine { scale: &self.scale, shift: &self.shift, silu: self.silu };
        kernels::scale_channels(isa, &affine, places.get(self.input), places.get(self.output), part, memory);
    }
}
