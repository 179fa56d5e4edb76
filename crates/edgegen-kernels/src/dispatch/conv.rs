//! Convolutions.

use super::conv_half::convolve_halves;
use crate::arena::Precision;
use crate::isa::Kind;
use crate::{Isa, Memory, Part, conv, simd};

/// Runs a convolution, with as much `work` as its [`method`](conv::Packed::method) wants.
///
/// # Panics
/// When a picture does not lie within the memory, when sizes do not fit one another, or when `work` is too small.
pub fn convolve(isa: Isa, run: &conv::Run, part: Part, work: &mut [f32], memory: Memory) {
    match run.packed.precision() {
        Precision::F32 => convolve_floats(isa, run, part, work, memory),
        Precision::F16 => convolve_halves(isa, run, part, work, memory),
    }
}

dispatched! {
    convolve_floats[s](run: &conv::Run, part: Part, work: &mut [f32], memory: Memory)
        conv::run(s, run, part, work, memory)
}
