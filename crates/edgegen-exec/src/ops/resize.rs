//! Resize and Upsample: every pixel as several, the nearest ones.

use super::zeros::image_size;
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::constant::Constant;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::{lengths, pair, text};
use crate::place::{Access, Handle, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::{StridedView, ImageView};

pub static OPERATORS: &[Operator] = &[
    Operator::new("Resize")
        .attributes(&["mode", "coordinate_transformation_mode", "nearest_mode"])
        .infer(|n| if n.opset() < 11 { Err(unknown_form()) } else { infer(n, 2) }).lower(lower),
    Operator::new("Upsample").attributes(&["mode"]).infer(|n| infer(n, 1)).lower(lower),
];

fn infer(n: &Inference, scales: usize) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    let given = |i: usize| n.stored(i).filter(|s: &&Constant| !s.values.is_empty());
    match (given(3), given(scales)) {
        (Some(s), _) if s.values.len() == x.len() => Ok(vec![lengths(&s.integers())?]),
        (_, Some(s)) if s.values.len() == x.len() => {
            Ok(vec![x.iter().zip(s.values.iter()).map(|(d, s)| (*d as f32 * s).floor() as usize).collect()])
        }
        _ => Err(unknown_form()),
    }
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let (from, to) = (l.dims(x)?, l.dims(&node.output[0])?);
    if from.len() < 3 || to.len() != from.len() {
        return None;
    }
    let whole = from.iter().zip(to).all(|(f, t)| *f > 0 && t.is_multiple_of(*f)) && from[..2] == to[..2];
    let factors = pair(&from[2..].iter().zip(&to[2..]).map(|(f, t)| t / f).collect::<Vec<_>>(), 1)?;
    let coordinates = text(node, "coordinate_transformation_mode").unwrap_or("half_pixel");
    let rounding = text(node, "nearest_mode").unwrap_or("round_prefer_floor");
    let floors = match (coordinates, rounding) {
        ("asymmetric", "floor") => true,
        // for a factor of two both come to the same
        ("half_pixel", "round_prefer_floor") => factors.iter().all(|f| *f <= 2),
        _ => node.op_type == "Upsample",
    };
    let nearest = text(node, "mode").unwrap_or("nearest") == "nearest";
    if whole && nearest && floors { l.one(i, Nearest { x, factors }) } else { None }
}

/// Every pixel as many times.
struct Nearest<'a> {
    x: &'a str,
    factors: [usize; 2],
}

impl<'a> Operation<'a> for Nearest<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (input, output) = (c.view(self.x, [0, 0])?, c.image(out)?);
        let to = output.view().ok_or("no image")?;
        let [fy, fx] = self.factors;
        if (fy, fx) == (2, 2) {
            let mut places = Places::default();
            let input = places.image(Access::Read, input);
            let output = places.image(Access::Write, to);
            c.push(Double { input, output }, places);
        } else {
            let dims = vec![input.h, fy, input.w, fx, input.c];
            let spread = |start: usize, strides: Vec<usize>| StridedView {
                start,
                dims: dims.clone(),
                strides,
                border: [0, 0],
            };
            let to = spread(to.start, vec![fy * to.row, to.row, fx * to.pixel, to.pixel, 1]);
            c.copy(&spread(input.start, vec![input.row, 0, input.pixel, 0, 1]), &to)?;
        }
        c.put(out, output);
        Ok(())
    }
}

/// Every pixel as a square of four.
#[derive(Debug)]
struct Double {
    input: Handle<ImageView>,
    output: Handle<ImageView>,
}

impl Kernel for Double {
    fn name(&self, _: &Places) -> &'static str {
        "upsample"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.input)), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let v = places.get(self.output);
        Some(product(&[8, v.c, v.h, v.w]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output) = (places.get(self.input), places.get(self.output));
        let doubled = input.h.checked_mul(2).zip(input.w.checked_mul(2));
        let fits = doubled == Some((output.h, output.w)) && input.c == output.c;
        if fits { Ok(()) } else { Err("images of unlike sizes".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        kernels::upsample(isa, places.get(self.input), places.get(self.output), part, memory);
    }
}
