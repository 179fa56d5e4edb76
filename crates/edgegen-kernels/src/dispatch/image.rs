//! Other operators on images.

use crate::arena::{ImageView, Precision};
use crate::isa::Kind;
use crate::{Isa, Memory, Part, attention, dense, grid, simd};
use half::f16;

dispatched! {
    /// Makes a number of every window of each channel.
    ///
    /// # Panics
    /// As [`convolve`](crate::convolve), and when a window has nothing of its picture.
    pool[_s](sides: [crate::pool::Side; 2], f: crate::pool::Pooling, input: ImageView, output: ImageView, part: Part, memory: Memory)
        crate::pool::run(sides, f, input, output, part, memory)
}

dispatched! {
    /// Makes a picture of another size.
    ///
    /// # Panics
    /// As [`convolve`](crate::convolve).
    resample[_s](rows: &crate::resample::Taps, columns: &crate::resample::Taps, input: ImageView, output: ImageView, part: Part, memory: Memory)
        crate::resample::run(rows, columns, input, output, part, memory)
}

dispatched! {
    /// Makes a picture of another one, read where a grid of coordinates says.
    ///
    /// # Panics
    /// As [`convolve`](crate::convolve).
    sample_grid[_s](sampling: grid::Sampling, input: ImageView, at: usize, output: ImageView, part: Part, memory: Memory)
        grid::run(sampling, input, at, output, part, memory)
}

dispatched! {
    /// Makes every pixel a square of four.
    ///
    /// # Panics
    /// As [`convolve`](crate::convolve).
    upsample[s](input: ImageView, output: ImageView, part: Part, memory: Memory) match input.precision {
        Precision::F32 => dense::upsample::<_, f32>(s, input, output, part, memory),
        Precision::F16 => dense::upsample::<_, f16>(s, input, output, part, memory),
    }
}

dispatched! {
    /// Runs an attention, with `work` of its [`work_len`](attention::Attention::work_len).
    ///
    /// # Panics
    /// As [`convolve`](crate::convolve).
    attend[s](a: &attention::Attention, mask: Option<&[f32]>, part: Part, work: &mut [f32], memory: Memory)
        match a.query().precision {
            Precision::F32 => attention::run::<_, f32>(s, a, mask, part, work, memory),
            Precision::F16 => attention::run::<_, f16>(s, a, mask, part, work, memory),
        }
}
