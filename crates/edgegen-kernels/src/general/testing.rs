//! What the tests of several kernels need.

use super::StridedLoops;
use crate::arena::StridedView;
use crate::tests::Noise;

pub fn loops<const N: usize>(places: [&StridedView; N]) -> StridedLoops<N> {
    StridedLoops::new(&places[0].dims, places.map(|p| (p.start, p.strides.as_slice()))).unwrap()
}

/// Every number of a place, in the order of its indices.
pub fn read(place: &StridedView, memory: &[f32]) -> Vec<f32> {
    let mut all = vec![place.start];
    for (d, s) in place.dims.iter().zip(&place.strides) {
        all = all.iter().flat_map(|at| (0..*d).map(move |i| at + i * s)).collect();
    }
    all.into_iter().map(|at| memory[at]).collect()
}

pub fn noisy(len: usize) -> Vec<f32> {
    let mut memory = vec![0.0; len];
    Noise::new(3, 1).fill(&mut memory);
    memory
}
