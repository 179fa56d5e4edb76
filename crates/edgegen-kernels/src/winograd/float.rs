//! Winograd's filtering of pictures in 32 and in 16 bits.

use super::super::conv::{Block, Checked, Shape, accumulate};
use super::super::memory::Part;
use super::super::pointer::Source;
use super::super::simd::Vector;
use super::super::weights::Real;
use super::{Sizes, Square, Way, transform_weights};
use crate::arena::Precision;
use std::marker::PhantomData;

/// Windows that the larger square is for in such numbers: as measured in 32 bits, and as counted in 16.
pub fn many(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 48,
        // weights take half the room, so that even those of four windows are loaded in the time of their products
        Precision::F16 => 4,
    }
}

/// Transforms the weights `[C_out, C_in, 3, 3]`, and arranges them by blocks of output channels, positions and input channels.
pub(in super::super) fn pack(square: Square, weights: &[f32], blocks: &[Block], lanes: usize, c_in: usize) -> Vec<f32> {
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
    fn line_in<S: Vector>(s: S, d: [S::F; N]) -> [S::F; N];
    /// `Aᵀ m`.
    fn line_out<S: Vector>(s: S, m: [S::F; N]) -> [S::F; M];
}

/// By polynomials' values at 0, 1, -1 and infinity.
#[derive(Clone, Copy)]
struct Two;

impl Transform<4, 2> for Two {
    fn weights([a, b, c]: [f64; 3]) -> [f64; 4] {
        [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c]
    }

    #[inline(always)]
    fn line_in<S: Vector>(s: S, [a, b, c, d]: [S::F; 4]) -> [S::F; 4] {
        [s.sub(a, c), s.add(b, c), s.sub(c, b), s.sub(b, d)]
    }

    #[inline(always)]
    fn line_out<S: Vector>(s: S, [a, b, c, d]: [S::F; 4]) -> [S::F; 2] {
        [s.add(s.add(a, b), c), s.sub(s.sub(b, c), d)]
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
    fn line_in<S: Vector>(s: S, [a, b, c, d, e, f]: [S::F; 6]) -> [S::F; 6] {
        let both = s.splat(-(A * A + B * B));
        let all = s.splat(A * A * B * B);
        let (even_a, odd_a) = (s.fma(c, s.splat(-B * B), e), s.fma(b, s.splat(-B * B), d));
        let (even_b, odd_b) = (s.fma(c, s.splat(-A * A), e), s.fma(b, s.splat(-A * A), d));
        [
            s.fma(a, all, s.fma(c, both, e)),
            s.fma(odd_a, s.splat(A), even_a),
            s.fma(odd_a, s.splat(-A), even_a),
            s.fma(odd_b, s.splat(B), even_b),
            s.fma(odd_b, s.splat(-B), even_b),
            s.fma(b, all, s.fma(d, both, f)),
        ]
    }

    #[inline(always)]
    fn line_out<S: Vector>(s: S, [a, b, c, d, e, f]: [S::F; 6]) -> [S::F; 4] {
        let (even_a, odd_a) = (s.add(b, c), s.sub(b, c));
        let (even_b, odd_b) = (s.add(d, e), s.sub(d, e));
        [
            s.add(a, s.add(even_a, even_b)),
            s.fma(odd_b, s.splat(B), s.mul(odd_a, s.splat(A))),
            s.fma(even_b, s.splat(B * B), s.mul(even_a, s.splat(A * A))),
            s.fma(odd_b, s.splat(B * B * B), s.fma(odd_a, s.splat(A * A * A), f)),
        ]
    }
}

/// Runs a convolution that [`suits`](super::suits) this square.
///
/// # Panics
/// When the work space is too small.
#[inline(always)]
pub(in super::super) fn run<S: Vector, R: Real>(
    s: S,
    square: Square,
    checked: Checked,
    weights: (&[R], &[Block]),
    part: Part,
    work: &mut [f32],
) {
    let (Shape { c_in, c_out, .. }, output) = (*checked.run.packed.shape(), checked.run.output);
    let input = (checked.run.input, Sizes { h: output.h, w: output.w, c_in, c_out });
    match square {
        Square::Two => super::run(Floats { s, checked, of: PhantomData::<(Two, R)> }, input, weights, part, work),
        Square::Four => super::run(Floats { s, checked, of: PhantomData::<(Four, R)> }, input, weights, part, work),
    }
}

#[derive(Clone, Copy)]
struct Floats<'a, S, T> {
    s: S,
    checked: Checked<'a>,
    of: PhantomData<T>,
}

impl<S: Vector, T: Transform<N, M>, R: Real, const N: usize, const M: usize> Way<N, M> for Floats<'_, S, (T, R)> {
    type Number = R;
    type Window = S::F;
    type Sum = R;
    type Sums = S::F;
    type StoredWindow = R::Vector<S>;
    type StoredSums = R::Vector<S>;
    type Start = S::F;
    type Simd = S;
    const CHANNELS: usize = S::LANES;
    const LANES: usize = S::LANES;
    const PIXELS: &'static [usize] = S::PIXELS;

    #[inline(always)]
    fn simd(self) -> Self::Simd {
        self.s
    }
    #[inline(always)]
    fn store_window(self, window: S::F) -> R::Vector<S> {
        R::narrow(self.s, window)
    }
    #[inline(always)]
    fn store_sums(self, sums: S::F) -> R::Vector<S> {
        R::narrow(self.s, sums)
    }
    #[inline(always)]
    fn load_sums(self, stored: R::Vector<S>) -> S::F {
        R::widen(self.s, stored)
    }
    #[inline(always)]
    unsafe fn read(self, at: usize) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { R::get(self.s, R::arena(self.checked.memory).source(), at) }
    }
    #[inline(always)]
    fn line_in(self, d: [S::F; N]) -> [S::F; N] {
        T::line_in(self.s, d)
    }
    #[inline(always)]
    unsafe fn multiply<const V: usize, const P: usize>(
        self,
        weights: Source<R>,
        from: Source<R>,
        c_in: usize,
    ) -> [[S::F; V]; P] {
        let mut sums = [[self.s.splat(0.0); V]; P];
        // SAFETY: the caller's promise.
        unsafe { accumulate::<S, R, R, V, P>(self.s, &mut sums, weights, from, c_in, c_in) };
        sums
    }
    #[inline(always)]
    fn line_out(self, m: [S::F; N]) -> [S::F; M] {
        T::line_out(self.s, m)
    }
    #[inline(always)]
    fn start(self, block: Block, v: usize) -> S::F {
        self.checked.run.start(self.s, block, v)
    }
    #[inline(always)]
    unsafe fn finish(self, start: S::F, sum: S::F, (y, x, c): (usize, usize, usize)) {
        let Checked { run, memory } = self.checked;
        let at = |v: super::ImageView| v.start + y * v.row + x * v.pixel + c;
        let mut sum = self.s.add(sum, start);
        if let Some(residual) = run.residual {
            // SAFETY: the caller's promise: a checked run has the pixel within the arena.
            sum = self.s.add(sum, unsafe { R::get(self.s, R::arena(memory).source(), at(residual)) });
        }
        // SAFETY: as above; the pixels of other parts are others.
        unsafe { R::put(self.s, R::arena(memory), at(run.output), sum) }
    }
}
