//! ScatterND of stored tensors.

use super::Operator;
use crate::constant::Constant;
use crate::node::text;
use crate::reason::Reason;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("ScatterND").attributes(&["reduction"]).fold(fold)];

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a), Some(index), Some(updates)] = input else { return Ok(None) };
    if text(node, "reduction").is_some_and(|r| r != "none") {
        return Ok(None);
    }
    let unfit = || Reason::from("the indices do not fit");
    let depth = index.dims.last().copied().filter(|d| (1..=a.dims.len()).contains(d)).ok_or_else(unfit)?;
    let each: usize = a.dims[depth..].iter().product();
    let mut values = a.values.to_vec();
    let places = index.integers();
    if Some(updates.values.len()) != (places.len() / depth).checked_mul(each) {
        return Err(unfit());
    }
    for (i, place) in places.chunks_exact(depth).enumerate() {
        let mut at = 0;
        for (p, d) in place.iter().zip(&a.dims) {
            let p = usize::try_from(if *p < 0 { p.saturating_add(*d as i64) } else { *p }).ok().filter(|p| p < d);
            at = at * d + p.ok_or_else(unfit)?;
        }
        values[at * each..][..each].copy_from_slice(&updates.values[i * each..][..each]);
    }
    Ok(Some(vec![Constant::of(a.dims.clone(), values, a.kind)]))
}
