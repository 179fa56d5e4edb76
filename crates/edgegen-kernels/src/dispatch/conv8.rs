//! Convolutions in 8 bits.

use super::words::convolve_words;
use crate::conv::Method;
use crate::isa::Kind;
use crate::{Isa, Memory, Part, conv8, simd};

/// Runs an 8-bit convolution, with as much `work` as its [`method`](conv8::Packed8::method) wants.
pub fn convolve8(isa: Isa, run: &conv8::Run8, part: Part, work: &mut [f32], memory: Memory) {
    match run.packed.method() {
        Method::Direct => convolve_bytes(isa, run, None, part, memory),
        Method::Winograd(_) => convolve_words(isa, run, part, work, memory),
    }
}

/// Runs an 8-bit convolution of an input of these levels, with weights that are packed for [any](conv8::Packed8::by_range).
///
/// # Panics
/// As [`convolve8`], and when the weights are packed for others.
pub fn convolve8_by_range(isa: Isa, run: &conv8::Run8, levels: conv8::ByRange, part: Part, memory: Memory) {
    convolve_bytes(isa, run, Some(levels), part, memory);
}

dispatched! {
    /// Runs an 8-bit convolution as it is defined.
    convolve_bytes[8: d](run: &conv8::Run8, levels: Option<conv8::ByRange>, part: Part, memory: Memory)
        conv8::run(d, run, levels, part, memory)
}
