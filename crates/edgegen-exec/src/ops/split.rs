//! Split.

use super::Operator;
use super::rearrange::{Rearrange, Rearranged};
use crate::constant::Constant;
use crate::lower::{Lowered, Lowering, Named};
use crate::node::{axis, int, ints, lengths};
use crate::reason::Reason;
use kernels::arena::row_major;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("Split")
    .attributes(&["axis", "split", "num_outputs"])
    .any_type()
    .infer(|n| {
        let x = n.shape(0)?;
        let at = axis(int(n.node, "axis").unwrap_or(0), x.len())?;
        let part = |size| [&x[..at], &[size], &x[at + 1..]].concat();
        Ok(split(n.node, x[at], n.stored(1))?.into_iter().map(part).collect())
    })
    .fold(fold)
    .lower(lower)];

/// The lengths of a Split's parts.
fn split(node: &NodeProto, length: usize, given: Option<&Constant>) -> Result<Vec<usize>, Reason> {
    let sizes = given.map(Constant::integers).or_else(|| ints(node, "split").map(<[i64]>::to_vec));
    let sizes: Vec<usize> = match sizes {
        Some(sizes) => lengths(&sizes)?,
        None => {
            let parts = node.output.len().max(1);
            let each = length.div_ceil(parts);
            (0..parts).map(|i| each.min(length.saturating_sub(i.saturating_mul(each)))).collect()
        }
    };
    let total = sizes.iter().try_fold(0usize, |n, s| n.checked_add(*s));
    if total == Some(length) && sizes.len() == node.output.len() { Ok(sizes) } else { Err("its parts do not fit".into()) }
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let Some(a) = input.first().copied().flatten() else { return Ok(None) };
    let at = axis(int(node, "axis").unwrap_or(0), a.dims.len())?;
    let strides = row_major(&a.dims);
    let steps: Vec<isize> = strides.iter().map(|s| *s as isize).collect();
    let mut first = 0;
    let part = |size: usize| {
        let mut dims = a.dims.clone();
        dims[at] = size;
        let part = a.strided(dims, first * strides[at], &steps);
        first += size;
        part
    };
    Ok(Some(split(node, a.dims[at], input.get(1).copied().flatten())?.into_iter().map(part).collect()))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let dims = l.dims(x)?;
    let axis = axis(int(node, "axis").unwrap_or(0), dims.len()).ok()?;
    let (mut first, mut ops) = (0, Vec::new());
    for (out, size) in node.output.iter().zip(split(node, dims[axis], l.constant(node, 1)).ok()?) {
        let mut parts = vec![(0, 1); dims.len()];
        parts[axis].0 = first;
        ops.push(Named { op: Box::new(Rearranged { x, how: Rearrange::Slice(parts) }), out });
        first += size;
    }
    Some(Lowered { ops, covered: vec![i] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{attributes, counted};

    #[test]
    fn parts_are_of_equal_lengths_but_for_the_last() {
        let node = NodeProto { output: vec!["a".into(), "b".into()], ..attributes(&[("axis", 1)]) };
        let parts = fold(&node, &[Some(&counted(&[2, 3]))]).unwrap().unwrap();
        assert_eq!((parts[0].values.as_slice(), parts[1].values.as_slice()), (&[0., 1., 3., 4.][..], &[2., 5.][..]));
        assert!(fold(&node, &[Some(&counted(&[2, 3])), Some(&Constant::list([1, 1]))]).is_err());
    }
}
