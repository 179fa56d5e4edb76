//! Convolutions of images in 16 bits.

use crate::isa::{Halves, Kind};
use crate::{Isa, Memory, Part, conv, simd};

dispatched_in_halves! {
    convolve_halves[_s: h](isa: Isa, run: &conv::Run, part: Part, work: &mut [f32], memory: Memory)
        conv::run_halves(h, run, part, work, memory);
    else convolve_widened(isa, run, part, work, memory)
}

dispatched! {
    convolve_widened[s](run: &conv::Run, part: Part, work: &mut [f32], memory: Memory)
        conv::run_halves(s, run, part, work, memory)
}
