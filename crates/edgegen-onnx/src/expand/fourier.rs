//! The discrete Fourier transform, as a product by the matrix of its waves.

use super::normalization::from_the_start;
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;

/// The most numbers of a matrix of waves.
const MOST: usize = 1 << 22;

/// DFT: the last dimension holds real parts, or real and imaginary ones.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let dims = shape(node, known, 0)?;
    let (&parts, axes) = dims.split_last().ok_or("its input is a number")?;
    let number = |i: usize| {
        node.given(i).map(|name| known.integers(name).filter(|all| all.len() == 1).ok_or("a number is not known"))
    };
    let axis = match number(2).transpose()? {
        Some(axis) => axis[0],
        None if known.opset() < 20 => node.int("axis").unwrap_or(1),
        None => -2,
    };
    let axis = from_the_start(axis, dims.len())?;
    let (inverse, onesided) = (node.int("inverse").unwrap_or(0) == 1, node.int("onesided").unwrap_or(0) == 1);
    if axis >= axes.len()
        || !(1..=2).contains(&parts)
        || (onesided && !inverse && parts != 1)
        || (inverse && parts != 2)
    {
        return Err(unknown("a transform of that form"));
    }
    let given = dims[axis];
    let length = match number(1).transpose()? {
        Some(length) => usize::try_from(length[0]).map_err(|_| "its length is none")?,
        None if onesided && inverse => given.saturating_sub(1).saturating_mul(2),
        None => given,
    };
    // what it gives along the dimension, and the parts of each number
    let (made, parts_made) = match (onesided, inverse) {
        (true, false) => (length / 2 + 1, 2),
        (true, true) => (length, 1),
        _ => (length, 2),
    };
    let sizes = [given, parts, made, parts_made].iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    if length == 0 || sizes.is_none_or(|n| n > MOST) {
        return Err(unknown("a transform of that length"));
    }
    let waves = waves([given, parts, made, parts_made], length, inverse, onesided);
    let mut w = Writer::new(node, known);
    // the dimension last but for the parts
    let rank = dims.len();
    let order: Vec<usize> = (0..rank).filter(|d| *d != axis && *d != rank - 1).chain([axis, rank - 1]).collect();
    let turned = w.transpose(node.given(0).unwrap_or_default(), &order);
    let outer: Vec<usize> = order[..rank - 2].iter().map(|d| dims[*d]).collect();
    let rows = w.reshape(&turned, &[outer.iter().product(), given * parts]);
    let matrix = w.floats(&[given * parts, made * parts_made], &waves);
    let product = w.op("MatMul", &[&rows, &matrix]);
    let apart = w.reshape(&product, &[outer.as_slice(), &[made, parts_made]].concat());
    let mut back = vec![0; rank];
    order.iter().enumerate().for_each(|(i, d)| back[*d] = i);
    let result = w.transpose(&apart, &back);
    Ok(Some(w.finish_one(node, result)))
}

/// What each part of each number adds to each part of each that is made.
fn waves([given, parts, made, parts_made]: [usize; 4], length: usize, inverse: bool, onesided: bool) -> Vec<f32> {
    let mut all = Vec::with_capacity(given * parts * made * parts_made);
    for (j, part) in (0..given).flat_map(|j| (0..parts).map(move |part| (j, part))) {
        for (k, part_made) in (0..made).flat_map(|k| (0..parts_made).map(move |part| (k, part))) {
            let angle = std::f64::consts::TAU * ((j * k) % length) as f64 / length as f64;
            let (sin, cos) = if inverse { angle.sin_cos() } else { (-angle).sin_cos() };
            // (a + bi)(cos + i sin)
            let factor = match (part, part_made) {
                (0, 0) | (1, 1) => cos,
                (0, _) => sin,
                _ => -sin,
            };
            // the other half of a spectrum mirrors the one that is there
            let mirrored = inverse && onesided && j != 0 && 2 * j != length;
            let weight = if mirrored { 2.0 } else { 1.0 } / if inverse { length as f64 } else { 1.0 };
            // what lies beyond the length is left out
            let last = if inverse && onesided { length / 2 + 1 } else { length };
            all.push(if j < last { (factor * weight) as f32 } else { 0.0 });
        }
    }
    all
}
