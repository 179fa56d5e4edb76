//! Concatenation. Images that alone are made for one are made in its place.

use super::{Fusion, InHalves, Operation, Operator};
use crate::compile::{Compiler, Stage};
use crate::constant::{Constant, made};
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering, Operand};
use crate::node::{axis, int};
use crate::reason::Reason;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("Concat").attributes(&["axis"]).any_type().infer(infer).fold(fold).lower(lower)];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    let at = axis(int(n.node, "axis").unwrap_or(0), x.len())?;
    let mut dims = x.to_vec();
    for i in 1..n.node.input.len() {
        let other = n.shape(i)?;
        let alike = other.len() == x.len() && (0..x.len()).all(|k| k == at || other[k] == x[k]);
        let sum = if alike { dims[at].checked_add(other[at]) } else { None };
        dims[at] = sum.ok_or_else(unknown_form)?;
    }
    Ok(vec![dims])
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let Some(all) = input.iter().copied().collect::<Option<Vec<&Constant>>>() else { return Ok(None) };
    let Some(a) = all.first() else { return Ok(None) };
    let rank = a.dims.len();
    let at = axis(int(node, "axis").unwrap_or(0), rank)?;
    let alike = |c: &&Constant| c.dims.len() == rank && (0..rank).all(|k| k == at || c.dims[k] == a.dims[k]);
    if !all.iter().all(alike) {
        return Err("a concatenation does not fit".into());
    }
    let mut dims = a.dims.clone();
    dims[at] = all.iter().try_fold(0usize, |n, c| n.checked_add(c.dims[at])).ok_or("a concatenation does not fit")?;
    made(&dims, all.iter().fold(0, |n, c| n.max(c.values.len()).saturating_add(c.values.len())))?;
    let outer: usize = a.dims[..at].iter().product();
    let mut values = Vec::new();
    for o in 0..outer {
        for c in &all {
            let each: usize = c.dims[at..].iter().product();
            values.extend_from_slice(&c.values[o * each..(o + 1) * each]);
        }
    }
    let exact = all.iter().all(|c| c.exact);
    Ok(Some(vec![Constant { exact, ..Constant::of(dims, values, a.kind) }]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let parts = (0..node.input.len()).map(|k| l.operand(node, k)).collect::<Option<Vec<_>>>()?;
    let axis = axis(int(node, "axis")?, l.dims(&node.output[0])?.len()).ok()?;
    l.one(i, Concat { parts, axis })
}

/// A concatenation of values and stored tensors.
struct Concat<'a> {
    parts: Vec<Operand<'a>>,
    axis: usize,
}

impl<'a> Operation<'a> for Concat<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        self.parts.iter().filter_map(Operand::value).collect()
    }

    fn fusion(&self) -> Fusion<'_, 'a> {
        Fusion::Concat { parts: &self.parts, axis: self.axis }
    }

    fn in_halves(&self, _: &Compiler<'_, 'a>, _: &str) -> InHalves {
        let stored = self.parts.iter().any(|part| part.value().is_none());
        if stored { InHalves::Never } else { InHalves::LikeItsInputs }
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let dims = c.dims(out)?;
        let is_image = self.axis == 1 && dims[0] == 1 && (3..=4).contains(&dims.len());
        let whole = match c.made(out) {
            // made with the first of its parts
            Some(place) => place.clone(),
            None if is_image && c.stage() == Stage::Sample => c.image(out)?,
            None => c.row_major(dims)?,
        };
        let mut first = 0;
        for part in &self.parts {
            let from = c.operand(part)?;
            let mut slices = vec![(0, 1); dims.len()];
            slices[self.axis].0 = first;
            let to = whole.sliced(&slices, &from.dims);
            let there =
                from.start == to.start && (0..dims.len()).all(|d| dims[d] == 1 || from.strides[d] == to.strides[d]);
            if !there {
                c.copy(&from, &to)?;
            }
            first += from.dims[self.axis];
        }
        c.put(out, whole);
        Ok(())
    }
}
