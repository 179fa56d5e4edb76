//! Depthwise convolutions.

use crate::arena::Precision;
use crate::isa::{Halves, Kind};
use crate::{Isa, Memory, Part, depthwise, simd};
use half::f16;

/// Runs a depthwise convolution.
///
/// # Panics
/// As [`convolve`](crate::convolve).
pub fn convolve_depthwise(isa: Isa, run: &depthwise::Run, part: Part, memory: Memory) {
    match run.input.precision {
        Precision::F32 => depthwise_floats(isa, run, part, memory),
        Precision::F16 => depthwise_halves(isa, run, part, memory),
    }
}

dispatched! {
    depthwise_floats[s](run: &depthwise::Run, part: Part, memory: Memory) depthwise::run::<_, f32>(s, run, part, memory)
}

dispatched_in_halves! {
    depthwise_halves[_s: h](isa: Isa, run: &depthwise::Run, part: Part, memory: Memory)
        depthwise::run::<_, f16>(h, run, part, memory);
    else depthwise_widened(isa, run, part, memory)
}

dispatched! {
    depthwise_widened[s](run: &depthwise::Run, part: Part, memory: Memory)
        depthwise::run::<_, f16>(s, run, part, memory)
}
