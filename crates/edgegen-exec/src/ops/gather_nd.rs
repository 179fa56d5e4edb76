//! GatherND and GatherElements, by stored and by computed indices.

use super::Operator;
use super::by_index::{Addressed, Take, TakeParts, Taken};
use super::gather::index_within;
use super::pick::Picks;
use crate::constant::{Constant, made};
use crate::graph::Inference;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, int};
use crate::reason::Reason;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    Operator::new("GatherND").attributes(&["batch_dims"]).any_type().infer(infer).fold(fold).lower(lower),
    Operator::new("GatherElements").attributes(&["axis"]).any_type().infer(infer).fold(fold).lower(lower),
];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    if let Some(index) = n.stored(1) {
        return Ok(vec![picks(n.node, x, index)?.dims]);
    }
    let index = n.shape(1)?;
    if n.node.op_type == "GatherElements" {
        Addressed::elements(x, index, axis(int(n.node, "axis").unwrap_or(0), x.len())?).ok_or_else(unfit)?;
        return Ok(vec![index.to_vec()]);
    }
    let batch = batch_dims(n.node)?;
    Addressed::parts(x, index, batch).ok_or_else(unfit)?;
    let (depth, outer) = index.split_last().ok_or_else(unfit)?;
    Ok(vec![[outer, &x[batch + depth..]].concat()])
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(x), Some(index)] = input else { return Ok(None) };
    Ok(Some(vec![picks(node, &x.dims, index)?.fold(x, None)]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let (x, dims) = (l.operand(node, 0)?, l.dims(&node.input[0])?);
    if let Some(index) = l.value(node, 1) {
        return match node.op_type.as_str() {
            "GatherND" => {
                let addressed = Addressed::parts(dims, l.dims(index)?, batch_dims(node).ok()?)?;
                l.one(i, TakeParts { x, index, addressed })
            }
            _ => {
                let axis = axis(int(node, "axis").unwrap_or(0), dims.len()).ok()?;
                l.one(i, Take { x, index, axis, how: Taken::Elements })
            }
        };
    }
    let index = l.constant(node, 1)?;
    picks(node, dims, index).ok()?.lower(l, i, vec![x])
}

fn picks(node: &NodeProto, dims: &[usize], index: &Constant) -> Result<Picks, Reason> {
    if node.op_type == "GatherND" { of_nd(node, dims, index) } else { of_elements(node, dims, index) }
}

fn unfit() -> Reason {
    Reason::Malformed("its indices do not fit".into())
}

/// How many of the first dimensions are the value's and the index's alike.
fn batch_dims(node: &NodeProto) -> Result<usize, Reason> {
    usize::try_from(int(node, "batch_dims").unwrap_or(0)).map_err(|_| unfit())
}

fn outside() -> Reason {
    Reason::Malformed("its index is out of range".into())
}

/// The last dimension of the index holds places of parts, within those of the same index of the first dimensions.
fn of_nd(node: &NodeProto, dims: &[usize], index: &Constant) -> Result<Picks, Reason> {
    let batch = batch_dims(node)?;
    let (depth, outer) = index.dims.split_last().ok_or_else(unfit)?;
    let end = batch.checked_add(*depth).filter(|end| *end <= dims.len()).ok_or_else(unfit)?;
    if *depth == 0 || batch > outer.len() || dims[..batch] != outer[..batch] {
        return Err(unfit());
    }
    let result = [outer, &dims[end..]].concat();
    let count = made(&result, index.len())?;
    let each: usize = dims[end..].iter().product();
    // how many places there are for each index of the first dimensions
    let of_batch: usize = outer[batch..].iter().product();
    let mut from = Vec::with_capacity(count);
    for (i, place) in index.integers().chunks_exact(*depth).enumerate() {
        let mut at = i.checked_div(of_batch).unwrap_or(0);
        for (index, length) in place.iter().zip(&dims[batch..end]) {
            at = at * length + index_within(*index, *length).ok_or_else(outside)?;
        }
        from.extend((0..each).map(|k| at * each + k));
    }
    Ok(Picks { dims: result, from })
}

/// Each number of the index is the place along one dimension; along the others it is the number's own.
fn of_elements(node: &NodeProto, dims: &[usize], index: &Constant) -> Result<Picks, Reason> {
    let along = axis(int(node, "axis").unwrap_or(0), dims.len())?;
    Ok(Picks { dims: index.dims.clone(), from: places_along(dims, index, along)? })
}

/// Where in a value each number of an index points that is a place along one dimension.
///
/// # Errors
/// When the index does not fit the value.
pub fn places_along(dims: &[usize], index: &Constant, along: usize) -> Result<Vec<usize>, Reason> {
    let within = (0..dims.len()).all(|d| d == along || index.dims.get(d).is_some_and(|n| *n <= dims[d]));
    if index.dims.len() != dims.len() || !within {
        return Err(unfit());
    }
    let places = index.integers().into_iter().enumerate().map(|(i, index_along)| {
        let (mut rest, mut at, mut stride) = (i, 0, 1);
        for d in (0..dims.len()).rev() {
            let own = rest % index.dims[d];
            rest /= index.dims[d];
            let place = if d == along { index_within(index_along, dims[d]).ok_or_else(outside)? } else { own };
            at += place * stride;
            stride *= dims[d];
        }
        Ok(at)
    });
    places.collect()
}
