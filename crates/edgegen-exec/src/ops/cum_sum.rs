//! CumSum: running sums along a dimension.

use super::{Operation, Operator, same_shape};
use crate::compile::Compiler;
use crate::constant::Constant;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, int};
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch};
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] =
    &[Operator::new("CumSum").attributes(&["exclusive", "reverse"]).infer(same_shape).fold(fold).lower(lower)];

/// Lines of so many numbers, which lie so far apart.
#[derive(Clone, Copy, Debug)]
struct Lines {
    length: usize,
    stride: usize,
    /// Without the number itself.
    exclusive: bool,
    /// From the end.
    reverse: bool,
}

impl Lines {
    fn of(node: &NodeProto, dims: &[usize], along: &Constant) -> Result<Self, Reason> {
        let &[along] = along.integers().as_slice() else { return Err("its dimension is not known".into()) };
        let along = axis(along, dims.len())?;
        let flag = |name: &str| int(node, name).unwrap_or(0) == 1;
        let (length, stride) = (dims[along], dims[along + 1..].iter().product());
        Ok(Lines { length, stride, exclusive: flag("exclusive"), reverse: flag("reverse") })
    }

    /// The sums of all lines among so many numbers.
    fn run(self, count: usize, get: impl Fn(usize) -> f32, mut set: impl FnMut(usize, f32)) {
        for line in 0..count.checked_div(self.length).unwrap_or(0) {
            let start = line / self.stride * self.stride * self.length + line % self.stride;
            let mut sum = 0.0;
            for i in 0..self.length {
                let i = if self.reverse { self.length - 1 - i } else { i };
                let at = start + i * self.stride;
                let before = sum;
                sum += get(at);
                set(at, if self.exclusive { before } else { sum });
            }
        }
    }
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(x), Some(along)] = input else { return Ok(None) };
    let lines = Lines::of(node, &x.dims, along)?;
    let mut sums = vec![0.0; x.len()];
    lines.run(x.len(), |at| x.values[at], |at, sum| sums[at] = sum);
    Ok(Some(vec![Constant::computed(x.dims.clone(), sums, x.kind)?]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let lines = Lines::of(node, l.dims(x)?, l.constant(node, 1)?).ok()?;
    l.one(i, CumSum { x, lines })
}

struct CumSum<'a> {
    x: &'a str,
    lines: Lines,
}

impl<'a> Operation<'a> for CumSum<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        let input = c.contiguous(&input, |p| p.run().is_some())?;
        let output = c.row_major(c.dims(out)?)?;
        let mut places = Places::default();
        let from = places.slice(Access::Read, Slice { start: input.start, len: input.len() });
        let to = places.slice(Access::Write, Slice { start: output.start, len: output.len() });
        c.push(CumSumStep { lines: self.lines, from, to }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct CumSumStep {
    lines: Lines,
    from: Handle<Slice>,
    to: Handle<Slice>,
}

impl Kernel for CumSumStep {
    fn name(&self, _: &Places) -> &'static str {
        "running sums"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len.to_string(), 0)
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (from, to) = (places.get(self.from), places.get(self.to));
        let block = self.lines.length.checked_mul(self.lines.stride).filter(|block| *block > 0);
        let fits = from.len == to.len && block.is_some_and(|block| from.len.is_multiple_of(block));
        if fits { Ok(()) } else { Err("lines that do not fit their value".into()) }
    }

    fn run(&self, Call { places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let (from, to) = (places.get(self.from), places.get(self.to));
        self.lines.run(from.len, |at| memory.get(from.start + at), |at, sum| memory.set(to.start + at, sum));
    }
}
