//! ScatterND and ScatterElements: by stored indices and by computed ones, written over or added up.

use super::by_index::{Addressed, Reduction, Scatter};
use super::gather::index_within;
use super::gather_nd::places_along;
use super::pick::Picks;
use super::{Operator, same_shape};
use crate::constant::{Constant, count};
use crate::lower::{Lowered, Lowering, Operand};
use crate::node::{axis, int, text};
use crate::reason::Reason;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    Operator::new("ScatterND").attributes(&["reduction"]).any_type().infer(same_shape).fold(fold).lower(lower),
    Operator::new("ScatterElements").attributes(&["axis", "reduction"]).any_type().infer(same_shape).fold(fold).lower(lower),
];

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(x), Some(index), Some(updates)] = input else { return Ok(None) };
    Ok(Some(vec![picks(node, &x.dims, index, &updates.dims)?.fold(x, Some(updates))]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let operands = vec![l.operand(node, 0)?, l.operand(node, 2)?];
    let (dims, updates) = (l.dims(&node.input[0])?, l.dims(&node.input[2])?);
    let reduction = Reduction::named(text(node, "reduction"))?;
    if let Some(index) = l.constant(node, 1).filter(|_| reduction == Reduction::Replace) {
        return picks(node, dims, index, updates).ok()?.lower(l, i, operands);
    }
    let index = l.dims(&node.input[1])?;
    let addressed = match node.op_type.as_str() {
        "ScatterElements" if index == updates => {
            Addressed::elements(dims, index, axis(int(node, "axis").unwrap_or(0), dims.len()).ok()?)?
        }
        "ScatterND" => Addressed::parts(dims, index, 0)?,
        _ => return None,
    };
    let [x, updates] = <[Operand; 2]>::try_from(operands).ok()?;
    l.one(i, Scatter { x, index: l.operand(node, 1)?, updates, addressed, reduction })
}

fn picks(node: &NodeProto, dims: &[usize], index: &Constant, updates: &[usize]) -> Result<Picks, Reason> {
    if text(node, "reduction").is_some_and(|reduction| reduction != "none") {
        return Err("it adds to what it writes over".into());
    }
    let all = count(dims)?;
    let mut from: Vec<usize> = (0..all).collect();
    let written = if node.op_type == "ScatterND" {
        places_of_parts(dims, index, updates)?
    } else {
        if index.dims != updates {
            return Err(Reason::Malformed("its indices do not fit its updates".into()));
        }
        places_along(dims, index, axis(int(node, "axis").unwrap_or(0), dims.len())?)?
    };
    // the last of several has its way, as onnxruntime does it
    written.into_iter().enumerate().for_each(|(i, at)| from[at] = all + i);
    Ok(Picks { dims: dims.to_vec(), from })
}

/// Where the numbers of each part that is written come to lie.
fn places_of_parts(dims: &[usize], index: &Constant, updates: &[usize]) -> Result<Vec<usize>, Reason> {
    let unfit = || Reason::Malformed("its indices do not fit".into());
    let (depth, outer) = index.dims.split_last().ok_or_else(unfit)?;
    if *depth == 0 || *depth > dims.len() || *updates != [outer, &dims[*depth..]].concat() {
        return Err(unfit());
    }
    let each: usize = dims[*depth..].iter().product();
    let mut written = Vec::with_capacity(count(updates)?);
    for place in index.integers().chunks_exact(*depth) {
        let mut at = 0;
        for (index, length) in place.iter().zip(dims) {
            at = at * length + index_within(*index, *length).ok_or_else(unfit)?;
        }
        written.extend((0..each).map(|k| at * each + k));
    }
    Ok(written)
}
