//! Gather: rows of a stored table by a computed index, a part of a value by a stored one, or parts by computed ones.

use super::by_index::{Take, Taken};
use super::pick::Picks;
use super::rearrange::{Rearrange, view};
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::constant::{Constant, count, made};
use crate::graph::Inference;
use crate::lower::{Lowered, Lowering, Operand};
use crate::node::{axis, int};
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch};
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("Gather").attributes(&["axis"]).any_type().infer(infer).fold(fold).lower(lower)];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    let at = axis(int(n.node, "axis").unwrap_or(0), x.len())?;
    Ok(vec![[&x[..at], n.shape(1)?, &x[at + 1..]].concat()])
}

/// An index, which may be counted from the end, into so many.
pub fn index_within(index: i64, length: usize) -> Option<usize> {
    let signed = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { index.checked_add(signed)? } else { index }).ok().filter(|i| *i < length)
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a), Some(index)] = input else { return Ok(None) };
    let at = axis(int(node, "axis").unwrap_or(0), a.dims.len())?;
    let (outer, inner): (usize, usize) = (a.dims[..at].iter().product(), a.dims[at + 1..].iter().product());
    let length = a.dims[at];
    let dims = [&a.dims[..at], &index.dims, &a.dims[at + 1..]].concat();
    made(&dims, a.values.len())?;
    let mut values = Vec::new();
    for o in 0..outer {
        for i in index.integers() {
            let i = index_within(i, length).ok_or_else(|| Reason::Malformed("its index is out of range".into()))?;
            values.extend_from_slice(&a.values[(o * length + i) * inner..][..inner]);
        }
    }
    Ok(Some(vec![Constant { exact: a.exact, ..Constant::of(dims, values, a.kind) }]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let rank = l.dims(&node.input[0])?.len();
    let axis = axis(int(node, "axis").unwrap_or(0), rank).ok()?;
    if let (Some(table), Some(index)) = (l.constant(node, 0), l.value(node, 1)) {
        let rows = axis == 0 && !table.values.is_empty();
        let taken = || l.one(i, Take { x: Operand::Stored(table), index, axis, how: Taken::Parts });
        return if rows { l.one(i, Rows { table, index }) } else { taken() };
    }
    if let Some(index) = l.value(node, 1) {
        return l.one(i, Take { x: l.operand(node, 0)?, index, axis, how: Taken::Parts });
    }
    let (x, index) = (l.value(node, 0)?, l.constant(node, 1)?);
    let [at] = index.integers()[..] else { return parts(l.dims(x)?, axis, index)?.lower(l, i, vec![l.operand(node, 0)?]) };
    let at = index_within(at, l.dims(x)?[axis])?;
    if index.dims.is_empty() {
        return view(l, i, Rearrange::Pick { axis, index: at });
    }
    let mut parts = vec![(0, 1); rank];
    parts[axis].0 = at;
    view(l, i, Rearrange::Slice(parts))
}

/// The parts of a value along a dimension that a stored index names, be it several times.
fn parts(dims: &[usize], axis: usize, index: &Constant) -> Option<Picks> {
    let (outer, inner): (usize, usize) = (dims[..axis].iter().product(), dims[axis + 1..].iter().product());
    let length = dims[axis];
    let result = [&dims[..axis], &index.dims, &dims[axis + 1..]].concat();
    let mut from = Vec::with_capacity(count(&result).ok()?);
    let places = index.integers().into_iter().map(|at| index_within(at, length)).collect::<Option<Vec<_>>>()?;
    for (o, place) in (0..outer).flat_map(|o| places.iter().map(move |place| (o, place))) {
        let start = (o * length + place) * inner;
        from.extend(start..start + inner);
    }
    Some(Picks { dims: result, from })
}

/// Rows of a stored table.
struct Rows<'a> {
    table: &'a Constant,
    index: &'a str,
}

impl<'a> Operation<'a> for Rows<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.index]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let index = c.value(self.index)?;
        let index = c.contiguous(&index, |p| p.run().is_some())?;
        let output = c.row_major(c.dims(out)?)?;
        c.table(self.index, self.table.dims[0]);
        c.graph.take_numbers(self.table.len())?;
        let mut places = Places::default();
        let row = self.table.values.len() / self.table.dims[0];
        let index = places.slice(Access::Read, Slice { start: index.start, len: index.len() });
        let to = places.slice(Access::Write, Slice { start: output.start, len: output.len() });
        c.push(GatherRows { table: self.table.values.to_vec(), row, index, to }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct GatherRows {
    table: Vec<f32>,
    /// The numbers of a row.
    row: usize,
    index: Handle<Slice>,
    to: Handle<Slice>,
}

impl Kernel for GatherRows {
    fn name(&self, _: &Places) -> &'static str {
        "embedding"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len.to_string(), 0)
    }

    fn bytes(&self) -> usize {
        4 * self.table.len()
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (index, to) = (places.get(self.index), places.get(self.to));
        let whole = self.row > 0 && !self.table.is_empty() && self.table.len().is_multiple_of(self.row);
        let fits = index.len.checked_mul(self.row) == Some(to.len);
        if whole && fits { Ok(()) } else { Err("rows that do not fit their table".into()) }
    }

    fn run(&self, Call { places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let (index, to) = (places.get(self.index), places.get(self.to));
        let rows = self.table.len() / self.row;
        for i in 0..index.len {
            let to = to.start + i * self.row;
            // whole, but for what is no number at all
            let index = memory.get(index.start + i);
            let row = if index.is_nan() { None } else { index_within(index as i64, rows) };
            match row {
                Some(row) => memory.write(to, &self.table[row * self.row..][..self.row]),
                // what there is no row for must not become the numbers of another
                None => (to..to + self.row).for_each(|place| memory.write(place, &[f32::NAN])),
            }
        }
    }
}
