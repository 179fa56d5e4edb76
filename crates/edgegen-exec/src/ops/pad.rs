//! Pad with zeros.

use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::constant::Constant;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::{ints, text};
use crate::reason::Reason;

pub static OPERATORS: &[Operator] = &[Operator::new("Pad").attributes(&["mode", "pads"]).infer(infer).lower(lower)];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    let pads = n.stored(1).map(Constant::integers).or_else(|| ints(n.node, "pads").map(<[i64]>::to_vec));
    let pads = pads.filter(|p| p.len() == 2 * x.len()).ok_or_else(unknown_form)?;
    let side = |i: usize| {
        let side = i64::try_from(x[i]).ok()?.checked_add(pads[i])?.checked_add(pads[x.len() + i])?;
        usize::try_from(side).ok()
    };
    Ok(vec![(0..x.len()).map(side).collect::<Option<_>>().ok_or_else(unknown_form)?])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let zero = text(node, "mode").is_none_or(|m| m == "constant")
        && l.optional(node, 2)?.is_none_or(|c| c.uniform() == Some(0.0))
        && node.input.get(3).is_none_or(String::is_empty);
    let pads = l.constant(node, 1)?.integers();
    let pads = pads.iter().map(|p| usize::try_from(*p).ok()).collect::<Option<Vec<_>>>()?;
    if zero { l.one(i, Pad { x: l.value(node, 0)?, before: pads[..pads.len() / 2].to_vec() }) } else { None }
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
        if c.is_part(out) {
            return Err("a padded value in a concatenation".into());
        }
        let output = c.like(out, &input)?;
        let parts: Vec<(usize, usize)> = self.before.iter().map(|b| (*b, 1)).collect();
        c.clear(output.start);
        c.copy(&input, &output.sliced(&parts, &input.dims))?;
        c.put(out, output);
        Ok(())
    }
}
