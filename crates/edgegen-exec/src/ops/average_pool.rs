//! AveragePool.

use super::conv::Window;
use super::zeros::image_size;
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::pair;
use crate::place::{Access, Handle, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch};
use kernels::arena::ImageView;

pub static OPERATORS: &[Operator] = &[Operator::new("AveragePool")
    // without pads it is one whether zeros count
    .attributes(&["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"])
    .infer(infer)
    .lower(lower)];

/// The shape of what windows make of an image: the rule of every pooling.
pub fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    let window = Window::of_pool(n.node, x.len()).filter(|_| n.node.output.len() == 1).ok_or_else(unknown_form)?;
    let sides = (0..window.kernel.len()).map(|i| window.side(i, x[2 + i]));
    Ok(vec![x[..2].iter().copied().map(Some).chain(sides).collect::<Option<_>>().ok_or_else(unknown_form)?])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let window = Window::of_pool(node, l.dims(x)?.len())?;
    let plain = window.before.iter().chain(&window.after).all(|p| *p == 0);
    let (kernel, stride) = (pair(&window.kernel, 1)?, pair(&window.strides, 1)?);
    if plain { l.one(i, AveragePool { x, kernel, stride }) } else { None }
}

/// Means of windows of pixels.
struct AveragePool<'a> {
    x: &'a str,
    kernel: [usize; 2],
    stride: [usize; 2],
}

impl<'a> Operation<'a> for AveragePool<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (input, output) = (c.view(self.x, [0, 0])?, c.image(out)?);
        let mut places = Places::default();
        let input = places.image(Access::Read, input);
        let to = places.image(Access::Write, output.view().ok_or("no image")?);
        c.push(AveragePoolStep { kernel: self.kernel, stride: self.stride, input, output: to }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct AveragePoolStep {
    kernel: [usize; 2],
    stride: [usize; 2],
    input: Handle<ImageView>,
    output: Handle<ImageView>,
}

impl Kernel for AveragePoolStep {
    fn name(&self, _: &Places) -> &'static str {
        "pooling"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.input)), 0)
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output) = (places.get(self.input), places.get(self.output));
        let inside = windows_fit(self.kernel, self.stride, &input, &output);
        if input.c == output.c && inside { Ok(()) } else { Err("windows beyond their image".into()) }
    }

    fn run(&self, Call { places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let (input, output) = (places.get(self.input), places.get(self.output));
        let ([kh, kw], [sy, sx]) = (self.kernel, self.stride);
        for (i, to) in output.pixels().enumerate() {
            let (y, x) = (i / output.w * sy, i % output.w * sx);
            for c in 0..output.c {
                let at = |ky: usize, kx: usize| input.start + (y + ky) * input.row + (x + kx) * input.pixel + c;
                let window = (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx)));
                let sum: f32 = window.map(|(ky, kx)| memory.get(at(ky, kx))).sum();
                memory.set(to + c, sum / (kh * kw) as f32);
            }
        }
    }
}

/// Whether every window of an output's pixels lies within an input.
pub fn windows_fit(kernel: [usize; 2], stride: [usize; 2], input: &ImageView, output: &ImageView) -> bool {
    let sides = [(input.h, output.h), (input.w, output.w)];
    sides.into_iter().zip(kernel.into_iter().zip(stride)).all(|((from, to), (kernel, stride))| {
        let reach = to.checked_sub(1).and_then(|last| last.checked_mul(stride)?.checked_add(kernel));
        kernel > 0 && reach.is_some_and(|reach| reach <= from)
    })
}
