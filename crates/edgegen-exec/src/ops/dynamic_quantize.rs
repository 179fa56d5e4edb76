//! DynamicQuantizeLinear with the DequantizeLinear that follows: a value rounded to 8 bits by the range of its numbers, and
//! read as numbers again.

use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::lower::{Lowered, Lowering};
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen};
use kernels::general::RANK;

pub static OPERATORS: &[Operator] = &[Operator::new("DynamicQuantizeLinear")
    .infer(|n| Ok(vec![n.shape(0)?.to_vec(), vec![], vec![]]))
    .lower(lower)];

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let (j, back) = l.then(node, "DequantizeLinear").filter(|(_, back)| back.input == node.output)?;
    // nobody else may read the scale and the zero point
    let alone = node.output[1..].iter().all(|name| l.graph.sole_consumer(name).is_some_and(|(k, _)| k == j));
    if alone { l.fused(DynamicRounding { x: l.value(node, 0)? }, &back.output, vec![i, j]) } else { None }
}

struct DynamicRounding<'a> {
    x: &'a str,
}

impl<'a> Operation<'a> for DynamicRounding<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        let output = c.like(out, &input)?;
        let [to, from] = c.strided([&output, &input])?;
        let mut places = Places::default();
        let (to, from) = (places.strided(Access::Write, to), places.strided(Access::Read, from));
        c.push(DynamicRoundingStep { to, from }, places);
        c.put(out, output);
        Ok(())
    }
}

/// The levels that 8 bits have for numbers from `least` to `greatest` and 0.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Levels {
    scale: f32,
    zero: f32,
}

impl Levels {
    fn of(least: f32, greatest: f32) -> Self {
        let (least, greatest) = (least.min(0.0), greatest.max(0.0));
        let scale = if least == greatest { 1.0 } else { (greatest - least) / 255.0 };
        Levels { scale, zero: (-least / scale).clamp(0.0, 255.0).round_ties_even() }
    }

    /// The value of the level that is nearest to a number.
    fn round(self, value: f32) -> f32 {
        // beyond, f32 has no fractions: what is added rounds, to the even one of two, without a call for each number
        const WHOLE: f32 = 12_582_912.0;
        let level = (((value / self.scale) + WHOLE) - WHOLE + self.zero).clamp(0.0, 255.0);
        (level - self.zero) * self.scale
    }
}

#[derive(Debug)]
struct DynamicRoundingStep {
    to: Handle<Strided>,
    from: Handle<Strided>,
}

/// Goes over the lines of a region: where each starts in both of two regions.
fn lines([to, from]: [Strided; 2], mut each: impl FnMut(usize, usize)) {
    let mut index = [0; RANK];
    loop {
        let at = |region: &Strided| region.start + (0..RANK - 1).map(|d| index[d] * region.strides[d]).sum::<usize>();
        each(at(&to), at(&from));
        let Some(d) = (0..RANK - 1).rev().find(|d| index[*d] + 1 < to.dims[*d]) else { return };
        index[d] += 1;
        index[d + 1..].fill(0);
    }
}

impl Kernel for DynamicRoundingStep {
    fn name(&self, _: &Places) -> &'static str {
        "rounding by range"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len().to_string(), 0)
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        ScratchLen { work: places.get(self.from).dims[RANK - 1], copied: 0 }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let fits = to.dims == from.dims && to.matrix() == [(1, 0); 2] && from.len() > 0;
        if fits { Ok(()) } else { Err("values of unlike shapes".into()) }
    }

    fn run(&self, Call { places, memory, .. }: Call<'_>, scratch: &mut Scratch) {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let (length, [of_to, of_from]) = (from.dims[RANK - 1], [to, from].map(|region| region.strides[RANK - 1]));
        let line = scratch.work.get_mut(..length).expect(PROVEN);
        let read = |line: &mut [f32], start: usize| match of_from {
            1 => memory.read(start, line),
            stride => line.iter_mut().enumerate().for_each(|(i, v)| *v = memory.get(start + i * stride)),
        };
        let (mut least, mut greatest) = (0f32, 0f32);
        lines([to, from], |_, start| {
            read(line, start);
            for v in line.iter() {
                least = if *v < least { *v } else { least };
                greatest = if *v > greatest { *v } else { greatest };
            }
        });
        let levels = Levels::of(least, greatest);
        lines([to, from], |to, start| {
            read(line, start);
            line.iter_mut().for_each(|v| *v = levels.round(*v));
            match of_to {
                1 => memory.write(to, line),
                stride => line.iter().enumerate().for_each(|(i, v)| memory.set(to + i * stride, *v)),
            }
        });
    }
}
