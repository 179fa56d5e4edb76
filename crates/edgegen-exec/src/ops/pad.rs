//! Pad: around a value zeros, another number, or what the value has.

use super::indexed::{Indexed, Table};
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::constant::{Constant, count};
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, float, ints, text};
use crate::reason::Reason;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] =
    &[Operator::new("Pad").attributes(&["mode", "pads", "value"]).infer(infer).lower(lower)];

/// What is added before and after each dimension; what is negative is taken away.
fn pads(node: &NodeProto, given: Option<&Constant>, axes: Option<&Constant>, rank: usize) -> Option<Vec<[i64; 2]>> {
    let pads = given.map(Constant::integers).or_else(|| ints(node, "pads").map(<[i64]>::to_vec))?;
    let axes: Vec<usize> = match axes {
        Some(axes) => axes.integers().into_iter().map(|a| axis(a, rank).ok()).collect::<Option<_>>()?,
        None => (0..rank).collect(),
    };
    let mut all = vec![[0, 0]; rank];
    for (i, a) in axes.iter().enumerate() {
        all[*a] = [*pads.get(i)?, *pads.get(axes.len() + i)?];
    }
    (pads.len() == 2 * axes.len()).then_some(all)
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    // what is there must be known
    for k in [1, 3] {
        if n.node.input.get(k).is_some_and(|name| !name.is_empty()) {
            n.required(k)?;
        }
    }
    let pads = pads(n.node, n.stored(1), n.stored(3), x.len()).ok_or_else(unknown_form)?;
    let side = |(n, [before, after]): (&usize, &[i64; 2])| {
        usize::try_from(i64::try_from(*n).ok()?.checked_add(*before)?.checked_add(*after)?).ok()
    };
    Ok(vec![x.iter().zip(&pads).map(side).collect::<Option<_>>().ok_or_else(unknown_form)?])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let dims = l.dims(x)?;
    let pads = pads(node, l.constant(node, 1), l.optional(node, 3)?, dims.len())?;
    let fill = match l.optional(node, 2)? {
        Some(c) => c.values.first().copied().unwrap_or(0.0),
        None => float(node, "value").unwrap_or(0.0),
    };
    let mode = text(node, "mode").unwrap_or("constant");
    let before: Option<Vec<usize>> = pads.iter().map(|[before, _]| usize::try_from(*before).ok()).collect();
    let grows = pads.iter().all(|[_, after]| *after >= 0);
    match before.filter(|_| mode == "constant" && fill == 0.0 && grows) {
        Some(before) => l.one(i, Pad { x, before }),
        None => {
            let tables = dims.iter().zip(&pads).map(|(n, pads)| table(*n, *pads, mode)).collect::<Option<_>>()?;
            l.one(i, Indexed { x, tables, fill })
        }
    }
}

/// Where a dimension of `n` is read from, with so much before and after it.
fn table(n: usize, [before, after]: [i64; 2], mode: &str) -> Option<Table> {
    let n = i64::try_from(n).ok()?;
    let len = n.checked_add(before)?.checked_add(after)?;
    count(&[usize::try_from(len).ok()?]).ok()?;
    // a reflection reaches no further than the other end
    if mode == "reflect" && (before.max(after) >= n) {
        return None;
    }
    let source = |i: i64| match mode {
        "constant" => (0..n).contains(&i).then_some(i),
        "edge" => Some(i.clamp(0, n - 1)),
        "wrap" => Some(i.rem_euclid(n)),
        "reflect" => Some(if i < 0 { -i } else if i >= n { 2 * (n - 1) - i } else { i }),
        _ => Some(-1),
    };
    (0..len).map(|i| match source(i - before) {
        Some(i) => usize::try_from(i).ok().map(Some),
        None => Some(None),
    }).collect()
}

/// Zeros around a value: how many before each dimension.
struct Pad<'a> {
    x: &'a str,
    before: Vec<usize>,
}

impl<'a> Operation<'a> for Pad<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        // what lies in the place of a concatenation is not cleared alone
        let output = if c.is_part(out) { c.row_major(c.dims(out)?)? } else { c.like(out, &input)? };
        let parts: Vec<(usize, usize)> = self.before.iter().map(|b| (*b, 1)).collect();
        c.clear(output.start);
        c.copy(&input, &output.sliced(&parts, &input.dims))?;
        c.put(out, output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Attribute, Builder, steps_and_result};

    /// The numbers 0 1 2 with two before and two after: each is the first of as many as the sample has.
    fn padded(mode: &str) -> Vec<f32> {
        let first = |start: i64| {
            let mut b = Builder::new(0);
            let pads = b.list(&[0, 0, 2, 0, 0, 2]);
            let padded = b.op("Pad", &["x", &pads], &[Attribute::Text("mode", mode)]);
            let (start, end, axis) = (b.list(&[start]), b.list(&[start + 3]), b.list(&[2]));
            let part = b.op("Slice", &[&padded, &start, &end, &axis], &[]);
            steps_and_result(&mut b, &[1, 1, 3], &part).1
        };
        [first(0), first(3), first(4)[2..].to_vec()].concat()
    }

    #[test]
    fn what_is_around_comes_from_within() {
        assert_eq!(padded("constant"), [0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
        assert_eq!(padded("edge"), [0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(padded("reflect"), [2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0]);
        assert_eq!(padded("wrap"), [1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0]);
    }
}
