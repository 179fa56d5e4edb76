//! Group normalization where the CPU computes in 16 bits.

use super::functions::silu_halves;
use super::map::Output;
use super::norm::{Centered, GroupNorm, centered};
use crate::arena::ImageView;
use crate::memory::{Memory, Part};
use crate::pointer::{Source, Target};
use crate::simd::{Half, Vector};
use crate::weights::{Number, Real};
use half::f16;

/// Normalizes a picture in 16 bits into another one, with `work` of four times the channels. The mean and the variance are in 32
/// bits, what is done with them in 16.
///
/// # Panics
/// As [`norm`](super::norm).
#[inline(always)]
pub(crate) fn norm_half<S: Vector, H: Half>(
    (s, h): (S, H),
    n: &GroupNorm,
    (input, output): (ImageView, ImageView),
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    assert!(work.len() / 4 >= input.c);
    let (work, of_halves) = work.split_at_mut(2 * input.c);
    let pictures = (input, Output::Float(output));
    let Some(centered) = centered::<_, f16>(s, n, pictures, part, work, memory) else { return };
    let Centered { input, output, mean, factor, shift } = centered;
    // (x - m) · factor + offset: m is the mean, rounded, and the offset has what that is off by. Both differences are small
    // where the mean is not, so that 11 bits do
    let c = output.c;
    let halves = Target::of(of_halves).cast::<f16>();
    for i in 0..c {
        let m = f16::from_f32(mean[i]);
        let offset = shift[i] + (m.to_f32() - mean[i]) * factor[i];
        for (k, v) in [m, f16::from_f32(factor[i]), f16::from_f32(offset)].into_iter().enumerate() {
            // SAFETY: the assertion: there is room for four numbers of 16 bits a channel.
            unsafe { halves.store(k * c + i, v) }
        }
    }
    let constants = [0, 1, 2].map(|k| halves.source().skip(k * c));
    let (from, to) = (f16::arena(memory).source(), f16::arena(memory));
    for (at, to_at) in input.pixels().zip(output.pixels()) {
        let mut i = 0;
        // several vectors that do not wait for one another
        while i + 4 * H::LANES <= c {
            // SAFETY: `centered` checked the pictures: the pixel has so many channels left.
            let mut values: [H::F; 4] = unsafe { f16::load(h, from, at + i) };
            for (v, value) in values.iter_mut().enumerate() {
                // SAFETY: there are as many of each as channels.
                *value = unsafe { scaled(h, *value, constants, i + v * H::LANES, H::LANES) };
            }
            if n.silu {
                values = silu_halves(h, values);
            }
            for (v, &value) in values.iter().enumerate() {
                // SAFETY: as above; other parts have other channels.
                unsafe { f16::put(h, to, to_at + i + v * H::LANES, value) }
            }
            i += 4 * H::LANES;
        }
        while i < c {
            // SAFETY: as above.
            let x = unsafe { f16::get_some(h, from, at + i, c - i) };
            // SAFETY: as above.
            let y = unsafe { scaled(h, x, constants, i, c - i) };
            let y = if n.silu { silu_halves(h, [y])[0] } else { y };
            // SAFETY: as above.
            unsafe { f16::put_some(h, to, to_at + i, c - i, y) }
            i += H::LANES;
        }
    }
}

/// `(x - m) · factor + offset` of a vector of channels from number `i` on, of which `left` are there, or all.
///
/// # Safety
/// There must be as many of each.
#[inline(always)]
unsafe fn scaled<H: Half>(h: H, x: H::F, constants: [Source<f16>; 3], i: usize, left: usize) -> H::F {
    let [m, factor, offset] = constants;
    // SAFETY: the caller's promise.
    let d = h.sub(x, unsafe { f16::get_some(h, m, i, left) });
    // SAFETY: the caller's promise.
    let factor = unsafe { f16::get_some(h, factor, i, left) };
    // SAFETY: the caller's promise.
    h.fma(d, factor, unsafe { f16::get_some(h, offset, i, left) })
}
