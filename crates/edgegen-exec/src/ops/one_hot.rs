//! OneHot: for each index a row of one number that is on, at that place, and others that are off.

use super::gather::index_within;
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::constant::{Constant, made};
use crate::graph::Inference;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, int};
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] =
    &[Operator::new("OneHot").attributes(&["axis"]).any_type().infer(infer).fold(fold).lower(lower)];

/// The length of a row.
fn depth(given: &Constant) -> Result<usize, Reason> {
    let depth = given.values.first().filter(|_| given.len() == 1).map(|depth| *depth as i64);
    let depth = depth.and_then(|depth| usize::try_from(depth).ok()).filter(|depth| *depth > 0);
    depth.ok_or_else(|| Reason::Malformed("its depth is no length".into()))
}

/// The dimensions of the result, and which of them the rows are along.
fn result(node: &NodeProto, index: &[usize], depth: usize) -> Result<(Vec<usize>, usize), Reason> {
    let along = axis(int(node, "axis").unwrap_or(-1), index.len() + 1)?;
    Ok(([&index[..along], &[depth], &index[along..]].concat(), along))
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    Ok(vec![result(n.node, n.shape(0)?, depth(n.required(1)?)?)?.0])
}

/// Which number of a row is on.
fn on(index: f32, depth: usize) -> Option<usize> {
    if index.is_nan() { None } else { index_within(index as i64, depth) }
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(index), Some(length), Some(values)] = input else { return Ok(None) };
    let depth = depth(length)?;
    let (dims, along) = result(node, &index.dims, depth)?;
    let count = made(&dims, index.len())?;
    let [off, value] = values.values[..] else { return Err("it has not two values".into()) };
    let inner: usize = index.dims[along..].iter().product();
    let at = |i: usize| {
        let (outer, place, within) = (i / inner / depth, i / inner % depth, i % inner);
        if on(index.values[outer * inner + within], depth) == Some(place) { value } else { off }
    };
    Ok(Some(vec![Constant::of(dims.clone(), (0..count).map(at).collect(), values.kind)]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let (index, depth) = (l.value(node, 0)?, depth(l.constant(node, 1)?).ok()?);
    let [off, on] = l.constant(node, 2)?.values[..] else { return None };
    let (_, along) = result(node, l.dims(index)?, depth).ok()?;
    let inner = l.dims(index)?[along..].iter().product();
    l.one(i, OneHot { index, depth, inner, values: [off, on] })
}

struct OneHot<'a> {
    index: &'a str,
    depth: usize,
    /// How many numbers there are for each place of a row.
    inner: usize,
    values: [f32; 2],
}

impl<'a> Operation<'a> for OneHot<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.index]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let index = c.value(self.index)?;
        let index = c.contiguous(&index, |p| p.run().is_some())?;
        let output = c.row_major(c.dims(out)?)?;
        c.table(self.index, self.depth);
        let mut places = Places::default();
        let index = places.slice(Access::Read, Slice { start: index.start, len: index.len() });
        let to = places.slice(Access::Write, Slice { start: output.start, len: output.len() });
        c.push(OneHotStep { depth: self.depth, inner: self.inner, values: self.values, index, to }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct OneHotStep {
    depth: usize,
    inner: usize,
    values: [f32; 2],
    index: Handle<Slice>,
    to: Handle<Slice>,
}

impl Kernel for OneHotStep {
    fn name(&self, _: &Places) -> &'static str {
        "one-hot rows"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len.to_string(), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[15, places.get(self.to).len]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (index, to) = (places.get(self.index), places.get(self.to));
        let fits = self.inner > 0 && self.depth > 0 && index.len.checked_mul(self.depth) == Some(to.len);
        if fits && index.len.is_multiple_of(self.inner) { Ok(()) } else { Err("rows that do not fit their indices".into()) }
    }

    fn run(&self, Call { places, memory, part, .. }: Call<'_>, _: &mut Scratch) {
        let (index, to) = (places.get(self.index), places.get(self.to));
        for i in part.range(to.len) {
            let (outer, place, within) = (i / self.inner / self.depth, i / self.inner % self.depth, i % self.inner);
            let index = memory.get(index.start + outer * self.inner + within);
            let [off, value] = self.values;
            memory.set(to.start + i, if on(index, self.depth) == Some(place) { value } else { off });
        }
    }
}
