//! From a pixel's sums to its results.

use super::run::{ByRange, Checked8, Run8};
use crate::arena::ImageView;
use crate::pointer::Source;
use crate::simd::{Dot, Vector};
use crate::weights::Real;

/// The results of the pixel at (y, x): of V whole vectors of channels from `first` on, or of a `part` of one.
///
/// # Safety
/// The pixel must be one of the output, and the channels some of those that the weights are of.
#[inline(always)]
pub(crate) unsafe fn finish<D: Dot, const V: usize>(
    d: D,
    Checked8 { run, memory, range, sides }: Checked8,
    (y, x, first): (usize, usize, usize),
    sums: [D::I; V],
    part: Option<usize>,
) {
    let Run8 { packed, output, output8, residual, round, extra, .. } = run;
    let s = d.simd();
    let count = part.unwrap_or(V * D::LANES);
    let at = |view: &ImageView| view.start + y * view.row + x * view.pixel + first;
    let mut values = [s.splat(0.0); V];
    for (v, value) in values.iter_mut().enumerate() {
        let at = first + v * D::LANES;
        // SAFETY: there is a scale for each channel, padded to whole vectors.
        let scale = unsafe { Source::of(&packed.scale).load(at) };
        // SAFETY: so is there a bias.
        let bias = unsafe { Source::of(&packed.bias).load(at) };
        let (mut sum, mut scale) = (d.to_float(sums[v]), scale);
        if let Some(ByRange { levels, sums }) = range {
            let column = s.read(&packed.columns, at);
            sum = s.fma(column, s.splat(-f32::from(levels.zero_point)), sum);
            if let Some(start) = sums.filter(|_| packed.needs_sums()) {
                // SAFETY: a checked run has a sum for each pixel.
                let of_pixel: f32 = unsafe { memory.arena().source().load(start + y * sides[1] + x) };
                let zero = s.read(&packed.zeros, at);
                sum = s.fma(zero, s.splat(-of_pixel), sum);
            }
            scale = s.mul(scale, s.splat(levels.scale));
        }
        *value = s.fma(sum, scale, bias);
    }
    if let Some(levels) = round {
        for value in &mut values {
            *value = levels.round_all(s, *value);
        }
    }
    if let Some(extra) = extra {
        // SAFETY: a checked run has one for each channel.
        unsafe { add::<D, V>(d, &mut values, Source::of(extra).skip(first), part) }
    }
    if let Some(view) = residual {
        // SAFETY: a checked run has the pixel within the arena.
        unsafe { add::<D, V>(d, &mut values, memory.arena().source().skip(at(view)), part) }
    }
    if let Some(view) = output {
        for (v, &value) in values.iter().enumerate() {
            let left = count - v * D::LANES;
            // SAFETY: a checked run has the pixel within the arena; those of other parts are others.
            unsafe { f32::put_some(s, memory.arena(), at(view) + v * D::LANES, left, value) }
        }
    }
    if let Some((view, levels)) = output8 {
        match part {
            // SAFETY: as above.
            None => unsafe { levels.store(d, memory.bytes(), at(view), values) },
            // SAFETY: as above.
            Some(part) => unsafe { levels.store_part(d, memory.bytes(), at(view), values[0], part) },
        }
    }
}

/// Adds numbers to vectors, or to a `part` of one.
///
/// # Safety
/// As many must be there.
#[inline(always)]
unsafe fn add<D: Dot, const V: usize>(
    d: D,
    values: &mut [<D::S as Vector>::F; V],
    from: Source<f32>,
    part: Option<usize>,
) {
    let s = d.simd();
    for (v, value) in values.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let other = unsafe { f32::get_some(s, from, v * D::LANES, part.unwrap_or(D::LANES)) };
        *value = s.add(*value, other);
    }
}
