//! Slice.

use super::Operator;
use super::indexed::Indexed;
use super::rearrange::{Rearrange, view};
use crate::constant::Constant;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, ints};
use crate::reason::Reason;
use kernels::arena::row_major;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("Slice")
    .attributes(&["starts", "ends", "axes"])
    .any_type()
    .infer(|n| Ok(vec![slice(n.node, n.shape(0)?, &n.all_stored())?.into_iter().map(|p| p.count).collect()]))
    .fold(fold)
    .lower(lower)];

/// What a Slice takes of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    first: usize,
    step: isize,
    count: usize,
}

fn slice(node: &NodeProto, dims: &[usize], input: &[Option<&Constant>]) -> Result<Vec<Part>, Reason> {
    let list = |i: usize, name: &str| {
        input.get(i).copied().flatten().map(Constant::integers).or_else(|| ints(node, name).map(<[i64]>::to_vec))
    };
    let unknown = || Reason::from("what it takes is not known");
    let (starts, ends) = (list(1, "starts").ok_or_else(unknown)?, list(2, "ends").ok_or_else(unknown)?);
    let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps").unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(unknown());
    }
    let mut all: Vec<Part> = dims.iter().map(|d| Part { first: 0, step: 1, count: *d }).collect();
    for i in 0..starts.len() {
        let a = axis(axes[i], dims.len())?;
        let n = i64::try_from(dims[a]).map_err(|_| unknown())?;
        if n == 0 {
            continue;
        }
        // a step past everything is as long as any other
        let step = steps[i].clamp(-n, n);
        let bound = |v: i64, least: i64, most: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(least, most);
        let (first, distance) = match step {
            1.. => {
                let first = bound(starts[i], 0, n);
                (first, bound(ends[i], 0, n) - first)
            }
            ..=-1 => {
                let first = bound(starts[i], 0, n - 1);
                (first, first - bound(ends[i], -1, n - 1))
            }
            0 => return Err(Reason::Malformed("its step is 0".into())),
        };
        let count = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize;
        all[a] = Part { first: first as usize, step: step as isize, count };
    }
    Ok(all)
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let Some(a) = input.first().copied().flatten() else { return Ok(None) };
    let (parts, strides) = (slice(node, &a.dims, input)?, row_major(&a.dims));
    let start = parts.iter().zip(&strides).map(|(p, s)| p.first * s).sum();
    let steps: Vec<isize> = parts.iter().zip(&strides).map(|(p, s)| p.step * *s as isize).collect();
    Ok(Some(vec![a.strided(parts.iter().map(|p| p.count).collect(), start, &steps)]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let input: Vec<Option<&Constant>> = (0..node.input.len()).map(|k| l.constant(node, k)).collect();
    let parts = slice(node, l.dims(&node.input[0])?, &input).ok()?;
    let forward = parts.iter().map(|p| Some((p.first, usize::try_from(p.step).ok()?)));
    match forward.collect::<Option<_>>() {
        Some(forward) => view(l, i, Rearrange::Slice(forward)),
        // numbers that lie backward are no view
        None => {
            let at = |part: &Part, i: usize| part.first.checked_add_signed(i as isize * part.step);
            let tables = parts.iter().map(|part| (0..part.count).map(|i| at(part, i)).collect()).collect();
            l.one(i, Indexed { x: l.value(node, 0)?, tables, fill: 0.0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{attributes, counted};

    #[test]
    fn slices_go_forward_backward_and_to_the_end() {
        let x = counted(&[2, 5]);
        let cases: [([[i64; 1]; 4], &[f32]); 4] = [
            ([[1], [i64::MAX], [1], [2]], &[1., 3., 6., 8.]),
            ([[-2], [5], [-1], [1]], &[3., 4., 8., 9.]),
            ([[-1], [i64::MIN], [1], [-1]], &[4., 3., 2., 1., 0., 9., 8., 7., 6., 5.]),
            ([[4], [0], [1], [-3]], &[4., 1., 9., 6.]),
        ];
        for (numbers, expected) in cases {
            let [starts, ends, axes, steps] = &numbers.map(Constant::list);
            let input = [&x, starts, ends, axes, steps].map(Some);
            let folded = fold(&attributes(&[]), &input).unwrap().unwrap();
            assert_eq!(folded[0].values.as_slice(), expected, "{numbers:?}");
        }
    }
}
