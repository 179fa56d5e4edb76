//! Normalizations, functions of each number, and a matrix with a vector.

use crate::arena::{ImageView, Precision};
use crate::isa::{Halves, Kind};
use crate::{Isa, Memory, Part, dense, simd};
use half::f16;

/// Runs a group normalization, with `work` of four times the channels.
///
/// # Panics
/// As [`convolve`](crate::convolve).
pub fn normalize(
    isa: Isa,
    n: &dense::GroupNorm,
    input: ImageView,
    output: dense::Output,
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    match (input.precision, output) {
        (Precision::F16, dense::Output::Float(output)) => normalize_halves(isa, n, input, output, part, work, memory),
        _ => normalize_any(isa, n, input, output, part, work, memory),
    }
}

dispatched! {
    normalize_any[8: d](n: &dense::GroupNorm, input: ImageView, output: dense::Output, part: Part, work: &mut [f32], memory: Memory)
        match input.precision {
            Precision::F32 => dense::norm::<_, f32>(d, n, input, output, part, work, memory),
            Precision::F16 => dense::norm::<_, f16>(d, n, input, output, part, work, memory),
        }
}

dispatched_in_halves! {
    normalize_halves[s: h](isa: Isa, n: &dense::GroupNorm, input: ImageView, output: ImageView, part: Part, work: &mut [f32], memory: Memory)
        dense::norm_half((s, h), n, (input, output), part, work, memory);
    else normalize_any(isa, n, input, dense::Output::Float(output), part, work, memory)
}

dispatched! {
    /// Scales and shifts every channel of a picture.
    ///
    /// # Panics
    /// As [`convolve`](crate::convolve).
    scale_channels[8: d](a: &dense::Affine, input: ImageView, output: ImageView, part: Part, memory: Memory)
        match input.precision {
            Precision::F32 => dense::scale::<_, f32>(d, a, input, output, part, memory),
            Precision::F16 => dense::scale::<_, f16>(d, a, input, output, part, memory),
        }
}

dispatched! {
    /// Does something to every number of a picture.
    ///
    /// # Panics
    /// As [`convolve`](crate::convolve).
    map[8: d](op: dense::Map, input: ImageView, output: dense::Output, part: Part, memory: Memory)
        match input.precision {
            Precision::F32 => dense::map::<_, f32>(d, op, input, output, part, memory),
            Precision::F16 => dense::map::<_, f16>(d, op, input, output, part, memory),
        }
}

dispatched! {
    /// Multiplies a matrix with a vector.
    ///
    /// # Panics
    /// When the vectors are not of the matrix's sizes.
    multiply[s](matrix: &dense::Matrix, x: &[f32], out: &mut [f32]) dense::matrix_vector(s, matrix, x, out)
}
