//! Transpose.

use super::rearrange::{Rearrange, view};
use super::Operator;
use crate::constant::Constant;
use crate::lower::{Lowered, Lowering};
use crate::node::ints;
use crate::reason::Reason;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("Transpose")
    .attributes(&["perm"])
    .any_type()
    .infer(|n| {
        let x = n.shape(0)?;
        Ok(vec![permutation(n.node, x.len())?.into_iter().map(|p| x[p]).collect()])
    })
    .fold(fold)
    .lower(lower)];

/// The order that a Transpose puts the dimensions in.
///
/// # Errors
/// When it is no order of them: the graph is malformed.
pub fn permutation(node: &NodeProto, rank: usize) -> Result<Vec<usize>, Reason> {
    let malformed = || Reason::Malformed("its perm is no permutation of the dimensions".into());
    let perm: Vec<usize> = match ints(node, "perm") {
        Some(perm) => perm.iter().map(|p| usize::try_from(*p).map_err(|_| malformed())).collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted == (0..rank).collect::<Vec<_>>() { Ok(perm) } else { Err(malformed()) }
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a)] = input else { return Ok(None) };
    Ok(Some(vec![a.transposed(&permutation(node, a.dims.len())?)]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let perm = permutation(node, l.dims(&node.input[0])?.len()).ok()?;
    view(l, i, Rearrange::Permute(perm))
}
