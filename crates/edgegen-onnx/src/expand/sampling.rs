//! AffineGrid: the coordinates that an affine transformation moves the pixels of an image to.

use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;

/// The most numbers of a grid that is stored.
const MOST: usize = 1 << 24;

/// The pixels' own coordinates, times the transformation.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let theta = node.given(0).unwrap_or_default();
    let sizes = node.given(1).and_then(|size| known.integers(size)).ok_or("its size is not known before it runs")?;
    let sizes: Option<Vec<usize>> = sizes.into_iter().map(|n| usize::try_from(n).ok().filter(|n| *n > 0)).collect();
    let sizes = sizes.ok_or("its size is none")?;
    let image = sizes.get(2..).filter(|image| (2..=3).contains(&image.len())).ok_or("its size is that of no image")?;
    let coordinates = image.len();
    if *shape(node, known, 0)? != [sizes[0], coordinates, coordinates + 1] {
        return Err(unknown("a transformation of that shape"));
    }
    let pixels = image.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST);
    let pixels = pixels.ok_or("its grid is too large")?;
    let corners = node.int("align_corners").unwrap_or(0) != 0;
    let along = |i: usize, n: usize| match (corners, n) {
        (true, 1) => -1.0,
        (true, n) => -1.0 + 2.0 * i as f64 / (n - 1) as f64,
        (false, n) => (2.0 * i as f64 + 1.0) / n as f64 - 1.0,
    };
    // for each pixel its coordinates, those of the last dimension first, and 1
    let mut own = Vec::with_capacity(pixels * (coordinates + 1));
    for i in 0..pixels {
        let mut rest = i;
        for n in image.iter().rev() {
            own.push(along(rest % n, *n) as f32);
            rest /= n;
        }
        own.push(1.0);
    }
    let mut w = Writer::new(node, known);
    let own = w.floats(&[1, pixels, coordinates + 1], &own);
    let turned = w.transpose(theta, &[0, 2, 1]);
    let moved = w.op("MatMul", &[&own, &turned]);
    let grid = w.reshape(&moved, &[&[sizes[0]], image, &[coordinates]].concat());
    Ok(Some(w.finish_one(node, grid)))
}
