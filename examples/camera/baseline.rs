//! What restores pictures without a model of them. Values are from 0 to 1, pictures square and [`SIDE`] wide.

use crate::SIDE;
use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Luma};

/// The pixels that touch one, up to four.
fn neighbours(i: usize) -> impl Iterator<Item = usize> {
    let (y, x) = ((i / SIDE) as isize, (i % SIDE) as isize);
    let inside = |v: isize| (0..SIDE as isize).contains(&v);
    [(-1, 0), (1, 0), (0, -1), (0, 1)]
        .into_iter()
        .map(move |(dy, dx)| (y + dy, x + dx))
        .filter(move |(y, x)| inside(*y) && inside(*x))
        .map(|(y, x)| y as usize * SIDE + x as usize)
}

/// Fills what is not known with the solution of Laplace's equation: every pixel the mean of its neighbours.
pub fn harmonic(y: &[f32], known: &[bool]) -> Vec<f32> {
    let mut x = nearest(y, known);
    for _ in 0..2000 {
        for i in (0..x.len()).filter(|i| !known[*i]) {
            let count = neighbours(i).count() as f32;
            x[i] = neighbours(i).map(|n| x[n]).sum::<f32>() / count;
        }
    }
    x
}

/// Fills what is not known with the nearest pixel that is.
pub fn nearest(y: &[f32], known: &[bool]) -> Vec<f32> {
    let apart = |a: usize, b: usize| (a / SIDE).abs_diff(b / SIDE).pow(2) + (a % SIDE).abs_diff(b % SIDE).pow(2);
    let of = |i: usize| (0..y.len()).filter(|j| known[*j]).min_by_key(|j| apart(i, *j)).map_or(0.5, |j| y[j]);
    (0..y.len()).map(of).collect()
}

/// The median of the 3×3 pixels around, the border repeated.
pub fn median(y: &[f32]) -> Vec<f32> {
    let at = |row: isize, column: isize| {
        let [row, column] = [row, column].map(|v| v.clamp(0, SIDE as isize - 1) as usize);
        y[row * SIDE + column]
    };
    let of = |i: usize| {
        let (row, column) = ((i / SIDE) as isize, (i % SIDE) as isize);
        let mut around: Vec<f32> = (0..9).map(|k| at(row + k / 3 - 1, column + k % 3 - 1)).collect();
        around.sort_by(f32::total_cmp);
        around[4]
    };
    (0..y.len()).map(of).collect()
}

/// A Gaussian blur of this standard deviation in pixels, the border repeated.
pub fn gaussian(y: &[f32], spread: f32) -> Vec<f32> {
    let weight: Vec<f32> = (-4..=4).map(|d: i32| (-(d as f32 / spread).powi(2) / 2.0).exp()).collect();
    let total: f32 = weight.iter().sum();
    let along = |y: &[f32], step: usize, place: fn(usize) -> usize| -> Vec<f32> {
        let of = |i: usize| {
            let here = place(i) as isize;
            let near = |d: usize| (here + d as isize - 4).clamp(0, SIDE as isize - 1);
            let at = |d: usize| (i as isize + (near(d) - here) * step as isize) as usize;
            (0..9).map(|d| weight[d] * y[at(d)]).sum::<f32>() / total
        };
        (0..y.len()).map(of).collect()
    };
    along(&along(y, 1, |i| i % SIDE), SIDE, |i| i / SIDE)
}

/// A small square picture enlarged.
pub fn enlarge(y: &[f32], filter: FilterType) -> Vec<f32> {
    let side = y.len().isqrt() as u32;
    let small: ImageBuffer<Luma<f32>, Vec<f32>> = ImageBuffer::from_vec(side, side, y.to_vec()).expect("it is square");
    resize(&small, SIDE as u32, SIDE as u32, filter).into_vec()
}
