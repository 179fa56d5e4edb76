//! Reshape, Flatten, Squeeze and Unsqueeze: the same numbers with other dimensions.

use super::group_norm::group_norm;
use super::rearrange::{Rearrange, view};
use super::Operator;
use crate::constant::{Constant, count};
use crate::graph::Inference;
use crate::node::{axis, int, ints, lengths};
use crate::reason::Reason;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Reshape")
        .attributes(&["allowzero"])
        .infer(|n| Ok(vec![reshape(n.node, n.shape(0)?, &n.required(1)?.integers())?]))
        .any_type()
        .fold(|node, input| match *input {
            [Some(a), Some(to)] => Ok(Some(vec![a.reshaped(reshape(node, &a.dims, &to.integers())?)])),
            _ => Ok(None),
        })
        .lower(|l, i| group_norm(l, i).or_else(|| view(l, i, Rearrange::Reshape))),
    Operator::new("Flatten")
        .attributes(&["axis"])
        .any_type()
        .infer(|n| Ok(vec![flatten(n.node, n.shape(0)?)?]))
        .fold(|node, input| fold(input, |dims, _| flatten(node, dims)))
        .lower(|l, i| view(l, i, Rearrange::Reshape)),
    Operator::new("Unsqueeze")
        .attributes(&["axes"])
        .infer(|n| Ok(vec![unsqueeze(n.node, n.shape(0)?, axes_input(n))?]))
        .any_type()
        .fold(|node, input| fold(input, |dims, axes| unsqueeze(node, dims, axes)))
        .lower(|l, i| view(l, i, Rearrange::Reshape)),
    Operator::new("Squeeze")
        .attributes(&["axes"])
        .infer(|n| Ok(vec![squeeze(n.node, n.shape(0)?, axes_input(n))?]))
        .any_type()
        .fold(|node, input| fold(input, |dims, axes| squeeze(node, dims, axes)))
        .lower(|l, i| view(l, i, Rearrange::Reshape)),
];

type Dims = Result<Vec<usize>, Reason>;

fn axes_input<'n>(n: &Inference<'n>) -> Option<&'n Constant> {
    n.stored(1)
}

fn fold(
    input: &[Option<&Constant>],
    dims: impl Fn(&[usize], Option<&Constant>) -> Dims,
) -> Result<Option<Vec<Constant>>, Reason> {
    let Some(a) = input.first().copied().flatten() else { return Ok(None) };
    let dims = dims(&a.dims, input.get(1).copied().flatten())?;
    if count(&dims)? != a.values.len() {
        return Err(Reason::Malformed("a shape of another number of numbers".into()));
    }
    Ok(Some(vec![a.reshaped(dims)]))
}

/// The dimensions that a Reshape asks for.
fn reshape(node: &NodeProto, dims: &[usize], to: &[i64]) -> Dims {
    let zero_is_zero = int(node, "allowzero") == Some(1);
    let mut result = Vec::with_capacity(to.len());
    for (i, d) in to.iter().enumerate() {
        result.push(match d {
            0 if !zero_is_zero => *dims.get(i).ok_or("the shape does not fit")?,
            -1 => 0,
            d => lengths(&[*d])?[0],
        });
    }
    let total = count(dims)?;
    if let Some(open) = to.iter().position(|d| *d == -1) {
        let others: Vec<usize> = result.iter().enumerate().filter(|(i, _)| *i != open).map(|(_, d)| *d).collect();
        let others = count(&others)?;
        result[open] = total.checked_div(others).unwrap_or(0);
    }
    let same = count(&result)? == total;
    if same { Ok(result) } else { Err(Reason::Malformed(format!("{dims:?} cannot be reshaped to {to:?}"))) }
}

fn flatten(node: &NodeProto, x: &[usize]) -> Dims {
    // before the first and after the last dimension, too; from the end it is counted without that
    let at = match int(node, "axis").unwrap_or(1) {
        at if at < 0 => axis(at, x.len())?,
        at => axis(at, x.len() + 1)?,
    };
    Ok(vec![count(&x[..at])?, count(&x[at..])?])
}

/// The axes of Unsqueeze, Squeeze and reductions: an attribute once, an input now.
pub fn axes(node: &NodeProto, given: Option<&Constant>) -> Option<Vec<i64>> {
    given.map(Constant::integers).or_else(|| ints(node, "axes").map(<[i64]>::to_vec))
}

/// The dimensions with those of length one that are put in.
fn unsqueeze(node: &NodeProto, dims: &[usize], given: Option<&Constant>) -> Dims {
    let new = axes(node, given).ok_or("the axes are not known")?;
    let rank = dims.len() + new.len();
    let new = new.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut rest = dims.iter();
    let fill = |i: usize| if new.contains(&i) { Some(1) } else { rest.next().copied() };
    let result: Option<Vec<usize>> = (0..rank).map(fill).collect();
    result.filter(|_| rest.next().is_none()).ok_or_else(|| Reason::Malformed("an axis is named twice".into()))
}

/// The dimensions without those of length one that are taken out.
fn squeeze(node: &NodeProto, dims: &[usize], given: Option<&Constant>) -> Dims {
    let gone = match axes(node, given) {
        Some(all) => all.into_iter().map(|a| axis(a, dims.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).filter(|i| dims[*i] == 1).collect(),
    };
    if let Some(i) = gone.iter().find(|i| dims[**i] != 1) {
        return Err(Reason::Malformed(format!("dimension {i} of {dims:?} cannot be taken out: it is not 1")));
    }
    Ok(dims.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, d)| *d).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{attributes, counted};

    #[test]
    fn shapes_are_worked_out_as_graphs_ask_for_them() {
        let node = attributes(&[]);
        assert_eq!(reshape(&node, &[2, 6], &[0, -1, 2]).unwrap(), [2, 3, 2]);
        assert!(reshape(&node, &[2, 2], &[3]).is_err());
        assert_eq!(reshape(&attributes(&[("allowzero", 1)]), &[0, 2], &[0, 5]).unwrap(), [0, 5]);
        for (axis, dims) in [(1, [2, 12]), (0, [1, 24]), (3, [24, 1]), (-1, [6, 4]), (-3, [1, 24])] {
            assert_eq!(flatten(&attributes(&[("axis", axis)]), &[2, 3, 4]).unwrap(), dims, "{axis}");
        }
        assert!(flatten(&attributes(&[("axis", 4)]), &[2, 3, 4]).is_err());
        let at = |axes: [i64; 2]| Constant::list(axes);
        assert_eq!(unsqueeze(&node, &[3], Some(&at([0, -1]))).unwrap(), [1, 3, 1]);
        assert!(unsqueeze(&node, &[3], Some(&at([0, 0]))).is_err());
        assert_eq!(squeeze(&node, &[1, 3, 1], Some(&at([0, -1]))).unwrap(), [3]);
        assert!(squeeze(&node, &[1, 3, 2], Some(&at([0, 1]))).is_err());
        assert_eq!(squeeze(&node, &[1, 3, 1], None).unwrap(), [3]);
    }

    #[test]
    fn stored_tensors_keep_their_numbers() {
        let x = counted(&[1, 2, 1]);
        let folded = fold(&[Some(&x)], |dims, axes| squeeze(&attributes(&[]), dims, axes)).unwrap().unwrap();
        assert_eq!((folded[0].dims.as_slice(), folded[0].values.as_slice()), (&[2][..], x.values.as_slice()));
    }
}
