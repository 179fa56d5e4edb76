//! Convolutions in 8 bits by Winograd's filtering.

use crate::isa::Kind;
use crate::simd::Simd;
use crate::{Isa, Memory, Part, conv8, simd};

dispatched! {
    /// Runs an 8-bit convolution by Winograd's filtering.
    convolve_words[s](run: &conv8::Run8, part: Part, work: &mut [f32], memory: Memory)
        conv8::run_words(s.words(), run, part, work, memory)
}
