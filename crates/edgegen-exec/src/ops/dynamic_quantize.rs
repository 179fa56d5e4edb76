//! DynamicQuantizeLinear with the DequantizeLinear that follows: a value rounded to 8 bits by the range of its numbers, and
//! read as numbers again.

use super::image_map::same_size;
use super::zeros::image_size;
use super::{Fusion, Operation, Operator};
use crate::compile::{Compiler, Layout8};
use crate::lower::{Lowered, Lowering};
use crate::place::{Access, Handle, PROVEN, Places, Slice, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen};
use kernels::arena::ImageView;
use kernels::conv8::QuantParams;
use kernels::dense;
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

    fn fusion(&self) -> Fusion<'_, 'a> {
        Fusion::RoundByRange
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (input, readers) = (c.value(self.x)?, c.readers(out));
        if readers.rows_8bit {
            let rows = c.as_rows(&input)?;
            // the levels are not known yet, and nothing lies around rows
            let any = QuantParams::new(1.0, 0).ok_or("no levels")?;
            let view = *c.place_8bit(out, any, Layout8::Rows)?.first().ok_or("no rows")?;
            // the distance and the zero point, and the sum of each row
            let len = rows.w.checked_add(2).ok_or("too many rows")?;
            let levels = Slice { start: c.row_major(&[len])?.start, len };
            let mut places = Places::default();
            let (from, to) = (places.image(Access::Read, rows), places.quantized(view));
            let step = LevelsStep { from, to, levels: places.slice(Access::Write, levels) };
            c.push(step, places);
            c.put_by_range(out, view, levels);
        }
        if readers.float {
            let output = c.like(out, &input)?;
            let [to, from] = c.strided([&output, &input])?;
            let mut places = Places::default();
            let (to, from) = (places.strided(Access::Write, to), places.strided(Access::Read, from));
            c.push(DynamicRoundingStep { to, from }, places);
            c.put(out, output);
        }
        Ok(())
    }
}

/// The least and the greatest of some numbers and 0; no number if one of them is none.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    least: f32,
    greatest: f32,
}

impl Range {
    fn add(&mut self, numbers: &[f32]) {
        // several at a time
        const LANES: usize = 16;
        let (mut least, mut greatest, mut odd) = ([self.least; LANES], [self.greatest; LANES], [0f32; LANES]);
        let mut add = |i: usize, v: f32| {
            least[i] = if v < least[i] { v } else { least[i] };
            greatest[i] = if v > greatest[i] { v } else { greatest[i] };
            // nothing, but for what is no number
            odd[i] += v * 0.0;
        };
        let (whole, rest) = numbers.as_chunks::<LANES>();
        for chunk in whole {
            for (i, v) in chunk.iter().enumerate() {
                add(i, *v);
            }
        }
        rest.iter().enumerate().for_each(|(i, v)| add(i, *v));
        let odd: f32 = odd.into_iter().sum();
        self.least = least.into_iter().fold(self.least, f32::min) + odd;
        self.greatest = greatest.into_iter().fold(self.greatest, f32::max) + odd;
    }
}

/// The levels that 8 bits have for the numbers of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Levels {
    scale: f32,
    zero: f32,
}

impl Levels {
    fn of(Range { least, greatest }: Range) -> Self {
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

/// A value as levels of its range, in 8 bits, with the distance and the zero point of the levels.
#[derive(Debug)]
struct LevelsStep {
    from: Handle<ImageView>,
    to: Handle<ImageView>,
    levels: Handle<Slice>,
}

impl Kernel for LevelsStep {
    fn name(&self, _: &Places) -> &'static str {
        "rounding by range to 8 bits"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.from)), 0)
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        ScratchLen { work: places.get(self.from).c, copied: 0 }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (from, to) = (places.get(self.from), places.get(self.to));
        let fits = same_size(&from, &to) && from.h == 1 && from.w.checked_add(2) == Some(places.get(self.levels).len);
        if fits { Ok(()) } else { Err("levels of another size".into()) }
    }

    fn run(&self, Call { isa, places, memory, part }: Call<'_>, scratch: &mut Scratch) {
        let (from, to) = (places.get(self.from), places.get(self.to));
        let pixel = scratch.work.get_mut(..from.c).expect(PROVEN);
        let mut range = Range::default();
        for start in from.pixels() {
            memory.read(start, pixel);
            range.add(pixel);
        }
        let Levels { scale, zero } = Levels::of(range);
        let start = places.get(self.levels).start;
        memory.write(start, &[scale, zero]);
        // of numbers without a range there are no levels, and what is made of them is no number either
        if let Some(levels) = QuantParams::new(scale, zero as u8) {
            kernels::map(isa, dense::Map::Copy, from, dense::Output::Quantized(to, levels), part, memory);
        }
        kernels::conv8::sum_levels(isa, to, zero as u8, start + 2, memory);
    }
}

#[derive(Debug)]
struct DynamicRoundingStep {
    to: Handle<Strided>,
    from: Handle<Strided>,
}

/// Goes over the lines of a region: where each starts in both of two regions.
fn lines([to, from]: [Strided; 2], mut each: impl FnMut(usize, usize)) {
    let length = to.dims[RANK - 1];
    for line in 0..to.outer_len() / length.max(1) {
        let [to, from] = Strided::starts([&to, &from], line * length);
        each(to, from);
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
        let mut range = Range::default();
        lines([to, from], |_, start| {
            read(line, start);
            range.add(line);
        });
        let levels = Levels::of(range);
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
