//! Expand and Tile: numbers that stand for many.

use super::rearrange::{Rearrange, view};
use super::Operator;
use crate::constant::{Constant, broadcast, made};
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::lengths;
use crate::reason::Reason;
use kernels::arena::row_major;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Expand")
        .infer(|n| Ok(vec![broadcast(n.shape(0)?, &lengths(&n.required(1)?.integers())?)?]))
        .any_type()
        .fold(expand)
        .lower(|l, i| view(l, i, Rearrange::Expand)),
    Operator::new("Tile").any_type().infer(infer_tile).fold(tile).lower(lower_tile),
];

fn expand(_: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a), Some(to)] = input else { return Ok(None) };
    let dims = broadcast(&a.dims, &lengths(&to.integers())?)?;
    made(&dims, a.values.len())?;
    Ok(Some(vec![a.expanded(&dims)]))
}

fn infer_tile(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let (x, times) = (n.shape(0)?, lengths(&n.required(1)?.integers())?);
    if times.len() != x.len() {
        return Err(unknown_form());
    }
    Ok(vec![x.iter().zip(times).map(|(d, t)| d.saturating_mul(t)).collect()])
}

fn tile(_: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    match *input {
        [Some(a), Some(times)] if times.values.iter().all(|t| *t == 1.0) => Ok(Some(vec![a.clone()])),
        [Some(a), Some(times)] => {
            let times = lengths(&times.integers())?;
            if times.len() != a.dims.len() {
                return Err(unknown_form());
            }
            let dims: Vec<usize> = a.dims.iter().zip(&times).map(|(d, t)| d.saturating_mul(*t)).collect();
            made(&dims, a.len())?;
            // each dimension as two, of which the first stands still
            let split: Vec<usize> = a.dims.iter().zip(&times).flat_map(|(d, t)| [*t, *d]).collect();
            let strides = row_major(&a.dims).into_iter().flat_map(|s| [0, s as isize]).collect::<Vec<_>>();
            Ok(Some(vec![a.strided(split, 0, &strides).reshaped(dims)]))
        }
        _ => Ok(None),
    }
}

fn lower_tile<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let times = l.constant(l.node(i), 1)?.integers();
    let times = times.into_iter().map(|t| usize::try_from(t).ok()).collect::<Option<_>>()?;
    view(l, i, Rearrange::Tile(times))
}
