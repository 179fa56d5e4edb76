//! Winograd's filtering of pictures in f32.

use super::super::conv::{Block, Run, Shape, accumulate};
use super::super::memory::{Memory, Part};
use super::super::simd::{Simd, inlined};
use super::{Sizes, Square, Way, transform_weights};
use std::marker::PhantomData;

/// Windows that the larger square is for, as measured.
pub const MANY: usize = 48;

/// Transforms the weights `[C_out, C_in, 3, 3]`, and arranges them by blocks of output channels, positions and input channels.
pub fn pack(square: Square, weights: &[f32], blocks: &[Block], lanes: usize, c_in: usize) -> Vec<f32> {
    fn of<T: Transform<N, M>, const N: usize, const M: usize>(kernel: [f32; 9]) -> [[f32; N]; N] {
        transform_weights(kernel.map(f64::from), T::weights).map(|line| line.map(|v| v as f32))
    }
    let (kernels, to) = (weights.as_chunks().0, (blocks, lanes, 1));
    match square {
        Square::Two => super::pack(kernels, to, c_in, of::<Two, 4, 2>),
        Square::Four => super::pack(kernels, to, c_in, of::<Four, 6, 4>),
    }
}

/// How windows of N×N make squares of M×M, a line at a time.
trait Transform<const N: usize, const M: usize>: Copy {
    /// `G g`.
    fn weights(g: [f64; 3]) -> [f64; N];
    /// `Bᵀ d`.
    ///
    /// # Safety
    /// The CPU must have the features of `S`.
    unsafe fn line_in<S: Simd>(d: [S::F; N]) -> [S::F; N];
    /// `Aᵀ m`.
    ///
    /// # Safety
    /// The CPU must have the features of `S`.
    unsafe fn line_out<S: Simd>(m: [S::F; N]) -> [S::F; M];
}

/// By polynomials' values at 0, 1, -1 and infinity.
#[derive(Clone, Copy)]
struct Two;

impl Transform<4, 2> for Two {
    fn weights([a, b, c]: [f64; 3]) -> [f64; 4] {
        [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c]
    }

    #[inline(always)]
    unsafe fn line_in<S: Simd>([a, b, c, d]: [S::F; 4]) -> [S::F; 4] {
        // SAFETY: the caller's promise.
        unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
    }

    #[inline(always)]
    unsafe fn line_out<S: Simd>([a, b, c, d]: [S::F; 4]) -> [S::F; 2] {
        // SAFETY: the caller's promise.
        unsafe { [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)] }
    }
}

/// At 0, ±[`A`], ±[`B`] and infinity: these rounded errors' greatest and their rms are a quarter and half of those of
/// ±1 and ±2, and all constants are exact.
#[derive(Clone, Copy)]
struct Four;

const A: f32 = 0.625;
const B: f32 = 1.5;

impl Transform<6, 4> for Four {
    fn weights([a, b, c]: [f64; 3]) -> [f64; 6] {
        let value = |p: f64, other: f64| (a + p * b + p * p * c) / (2.0 * p * p * (p * p - other * other));
        let (p, q) = (f64::from(A), f64::from(B));
        [a / (p * p * q * q), value(p, q), value(-p, q), value(q, p), value(-q, p), c]
    }

    #[inline(always)]
    unsafe fn line_in<S: Simd>([a, b, c, d, e, f]: [S::F; 6]) -> [S::F; 6] {
        // SAFETY: the caller's promise.
        unsafe {
            let both = S::splat(-(A * A + B * B));
            let all = S::splat(A * A * B * B);
            let (even_a, odd_a) = (S::fma(c, S::splat(-B * B), e), S::fma(b, S::splat(-B * B), d));
            let (even_b, odd_b) = (S::fma(c, S::splat(-A * A), e), S::fma(b, S::splat(-A * A), d));
            [
                S::fma(a, all, S::fma(c, both, e)),
                S::fma(odd_a, S::splat(A), even_a),
                S::fma(odd_a, S::splat(-A), even_a),
                S::fma(odd_b, S::splat(B), even_b),
                S::fma(odd_b, S::splat(-B), even_b),
                S::fma(b, all, S::fma(d, both, f)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn line_out<S: Simd>([a, b, c, d, e, f]: [S::F; 6]) -> [S::F; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let (even_a, odd_a) = (S::add(b, c), S::sub(b, c));
            let (even_b, odd_b) = (S::add(d, e), S::sub(d, e));
            [
                S::add(a, S::add(even_a, even_b)),
                S::fma(odd_b, S::splat(B), S::mul(odd_a, S::splat(A))),
                S::fma(even_b, S::splat(B * B), S::mul(even_a, S::splat(A * A))),
                S::fma(odd_b, S::splat(B * B * B), S::fma(odd_a, S::splat(A * A * A), f)),
            ]
        }
    }
}

/// Runs a convolution that [`suits`](super::suits) this square. The caller has checked that input, output and residual lie
/// within the arena.
///
/// # Safety
/// The CPU must have the features of `S`, and the views must lie within the arena.
#[inline(always)]
pub(in super::super) unsafe fn run<S: Simd>(
    square: Square,
    run: &Run,
    weights: (&[f32], &[Block]),
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    let (Shape { c_in, c_out, .. }, output) = (run.packed.shape, run.output);
    let input = (run.input, Sizes { h: output.h, w: output.w, c_in, c_out });
    // SAFETY: the caller's promise.
    unsafe {
        match square {
            Square::Two => super::run(Floats::<S, Two> { run, of: PhantomData }, input, weights, part, work, memory),
            Square::Four => super::run(Floats::<S, Four> { run, of: PhantomData }, input, weights, part, work, memory),
        }
    }
}

#[derive(Clone, Copy)]
struct Floats<'a, S, T> {
    run: &'a Run<'a>,
    of: PhantomData<(S, T)>,
}

// SAFETY of every body: the caller's promise.
impl<S: Simd, T: Transform<N, M>, const N: usize, const M: usize> Way<N, M> for Floats<'_, S, T> {
    type Number = f32;
    type Window = S::F;
    type Sum = f32;
    type Sums = S::F;
    type Start = S::F;
    const CHANNELS: usize = S::LANES;
    const LANES: usize = S::LANES;
    const PIXELS: &'static [usize] = S::PIXELS;

    inlined! {
        fn read(memory: Memory, at: usize) -> S::F { S::load(memory.arena().add(at)) }
        fn write(to: *mut f32, v: S::F) { S::store(to, v) }
        fn line_in(d: [S::F; N]) -> [S::F; N] { T::line_in::<S>(d) }
    }
    #[inline(always)]
    unsafe fn multiply<const V: usize, const P: usize>(
        weights: *const f32,
        from: *const f32,
        c_in: usize,
    ) -> [[S::F; V]; P] {
        unsafe {
            let mut sums = [[S::splat(0.0); V]; P];
            accumulate::<S, f32, V, P>(&mut sums, weights, from, c_in, c_in);
            sums
        }
    }
    inlined! {
        fn store(to: *mut f32, v: S::F) { S::store(to, v) }
        fn load(from: *const f32) -> S::F { S::load(from) }
        fn line_out(m: [S::F; N]) -> [S::F; M] { T::line_out::<S>(m) }
    }
    #[inline(always)]
    unsafe fn start(self, block: Block, v: usize) -> S::F {
        unsafe { self.run.start::<S>(block, v) }
    }
    #[inline(always)]
    unsafe fn finish(self, start: S::F, sum: S::F, (y, x, c): (usize, usize, usize), memory: Memory) {
        let at = |v: super::View| v.start + y * v.row + x * v.pixel + c;
        unsafe {
            let mut sum = S::add(sum, start);
            if let Some(residual) = self.run.residual {
                sum = S::add(sum, S::load(memory.arena().add(at(residual))));
            }
            S::store(memory.arena().add(at(self.run.output)), sum);
        }
    }
}
