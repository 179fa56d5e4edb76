//! Winograd's filtering of 8-bit pictures, in integers and thus exactly: the same sums as those of `conv8`, to the last
//! bit. It is for CPUs that multiply bytes no faster than words of 16 bits.
//!
//! The constants are scaled to whole numbers, so what comes out is a multiple of the sum: 4 times, or 576 times. Windows and
//! weights fit 16 bits. Sums of their products may overflow 32 bits, but wrapped numbers still add up to the right ones
//! where the multiple itself, but for what divides out, fits; [`holds`] tells from the weights.

use super::super::conv::{Block, Shape, fetch_ahead};
use super::super::conv8::{Checked8, finish};
use super::super::memory::Part;
use super::super::pointer::Source;
use super::super::simd::Words;
use super::{Sizes, Square, Way, transform_weights};
use std::marker::PhantomData;

/// Windows that the larger square is for, as measured: weights are half as long as those of floats.
pub const MANY: usize = 16;

/// Whether the sums of pictures of any bytes and these kernels come out right: `weights` are `[C_out, C_in, 3, 3]`.
pub fn holds(square: Square, weights: &[i8], c_out: usize) -> bool {
    let bits = match square {
        Square::Two => Two::BITS,
        Square::Four => Four::BITS,
    };
    // from the least to the greatest sum of bytes of either sign
    let greatest = |weights: &[i8]| {
        let of = |sign: i32| weights.iter().map(|w| (sign * i32::from(*w)).max(0)).sum::<i32>();
        256 * i64::from(of(1).max(of(-1)))
    };
    let each = weights.len().checked_div(c_out).unwrap_or(usize::MAX).max(1);
    // as many as these sums hold
    each < 1 << 22 && weights.chunks(each).all(|of| greatest(of) < 1 << (bits - 1))
}

/// Transforms the weights `[C_out, C_in, 3, 3]`, and arranges them by blocks of output channels, positions and input channels,
/// of which `pair` lie together for each output channel.
pub(in super::super) fn pack(
    square: Square,
    weights: &[i8],
    (blocks, lanes, pair): (&[Block], usize, usize),
    c_in: usize,
) -> Vec<i16> {
    fn of<T: Transform<N, M>, const N: usize, const M: usize>(kernel: [i8; 9]) -> [[i16; N]; N] {
        transform_weights(kernel.map(i16::from), T::weights)
    }
    let (kernels, to) = (weights.as_chunks().0, (blocks, lanes, pair));
    match square {
        Square::Two => super::pack(kernels, to, c_in, of::<Two, 4, 2>),
        Square::Four => super::pack(kernels, to, c_in, of::<Four, 6, 4>),
    }
}

/// How windows of N×N make squares of M×M, a line at a time.
trait Transform<const N: usize, const M: usize>: Copy {
    /// Bits of a sum that are left.
    const BITS: u32;
    /// `G g`, each number times another constant, which `line_out` makes up for. Of 8 bits, these are 49 · 128 at most.
    fn weights(g: [i16; 3]) -> [i16; N];
    /// `Bᵀ d`. Of bytes, these are 68 · 255 at most.
    fn line_in<W: Words>(w: W, d: [W::Words; N]) -> [W::Words; N];
    /// `Aᵀ m`, times a constant.
    fn line_out<W: Words>(w: W, m: [W::I; N]) -> [W::I; M];
    /// What is left of a sum by the square of that constant.
    fn divide<W: Words>(w: W, sum: W::I) -> W::I;
}

/// By polynomials' values at 0, 1, -1 and infinity; times 2.
#[derive(Clone, Copy)]
struct Two;

impl Transform<4, 2> for Two {
    const BITS: u32 = 30;

    fn weights([a, b, c]: [i16; 3]) -> [i16; 4] {
        [a, a + b + c, a - b + c, c]
    }

    #[inline(always)]
    fn line_in<W: Words>(w: W, [a, b, c, d]: [W::Words; 4]) -> [W::Words; 4] {
        [w.sub_words(a, c), w.add_words(b, c), w.sub_words(c, b), w.sub_words(b, d)]
    }

    #[inline(always)]
    fn line_out<W: Words>(w: W, [a, b, c, d]: [W::I; 4]) -> [W::I; 2] {
        let (a, d) = (w.shift_sums::<1>(a), w.shift_sums::<1>(d));
        [w.add_sums(a, w.add_sums(b, c)), w.sub_sums(w.sub_sums(b, c), d)]
    }

    #[inline(always)]
    fn divide<W: Words>(w: W, sum: W::I) -> W::I {
        w.shift_sums_down::<2>(sum)
    }
}

/// At 0, ±1, ±2 and infinity; times 24.
#[derive(Clone, Copy)]
struct Four;

impl Transform<6, 4> for Four {
    const BITS: u32 = 26;

    fn weights([a, b, c]: [i16; 3]) -> [i16; 6] {
        [a, a + b + c, a - b + c, a + 2 * b + 4 * c, a - 2 * b + 4 * c, c]
    }

    #[inline(always)]
    fn line_in<W: Words>(w: W, [a, b, c, d, e, f]: [W::Words; 6]) -> [W::Words; 6] {
        let (four_b, four_c) = (w.shift_words::<2>(b), w.shift_words::<2>(c));
        let (even_1, odd_1) = (w.sub_words(e, four_c), w.sub_words(d, four_b));
        let (even_2, odd_2) = (w.sub_words(e, c), w.shift_words::<1>(w.sub_words(d, b)));
        let four_a = w.shift_words::<2>(a);
        [
            w.add_words(w.sub_words(four_a, c), even_1),
            w.add_words(even_1, odd_1),
            w.sub_words(even_1, odd_1),
            w.add_words(even_2, odd_2),
            w.sub_words(even_2, odd_2),
            w.add_words(w.sub_words(four_b, d), w.sub_words(f, w.shift_words::<2>(d))),
        ]
    }

    #[inline(always)]
    fn line_out<W: Words>(w: W, [a, b, c, d, e, f]: [W::I; 6]) -> [W::I; 4] {
        // 6 a, 24 f, and the values at ±1 times -4
        let a = w.add_sums(w.shift_sums::<2>(a), w.shift_sums::<1>(a));
        let f = w.add_sums(w.shift_sums::<4>(f), w.shift_sums::<3>(f));
        let (even_1, odd_1) = (w.shift_sums::<2>(w.add_sums(b, c)), w.shift_sums::<2>(w.sub_sums(b, c)));
        let (even_2, odd_2) = (w.add_sums(d, e), w.shift_sums::<1>(w.sub_sums(d, e)));
        [
            w.add_sums(w.sub_sums(a, even_1), even_2),
            w.sub_sums(odd_2, odd_1),
            w.sub_sums(w.shift_sums::<2>(even_2), even_1),
            w.add_sums(w.sub_sums(w.shift_sums::<2>(odd_2), odd_1), f),
        ]
    }

    /// 576 = 64 · 9: the 26 bits that 64 leaves are multiplied with what is the inverse of 9 modulo 2³².
    #[inline(always)]
    fn divide<W: Words>(w: W, sum: W::I) -> W::I {
        const INVERSE: i32 = 0x38e3_8e39;
        const { assert!(INVERSE.wrapping_mul(9) == 1) };
        let bits = w.multiply_sums(w.shift_sums_down::<6>(sum), INVERSE);
        w.shift_sums_down::<6>(w.shift_sums::<6>(bits))
    }
}

/// Runs a convolution that [`suits`](super::suits) this square.
///
/// # Panics
/// When the work space is too small.
#[inline(always)]
pub(in super::super) fn run<W: Words>(
    w: W,
    square: Square,
    checked: Checked8,
    weights: (&[i16], &[Block]),
    part: Part,
    work: &mut [f32],
) {
    let Shape { c_in, c_out, .. } = *checked.run.packed.shape();
    let [height, width] = checked.sides;
    let input = (checked.run.input, Sizes { h: height, w: width, c_in, c_out });
    match square {
        Square::Two => super::run(Integers { w, checked, of: PhantomData::<Two> }, input, weights, part, work),
        Square::Four => super::run(Integers { w, checked, of: PhantomData::<Four> }, input, weights, part, work),
    }
}

#[derive(Clone, Copy)]
struct Integers<'a, W, T> {
    w: W,
    checked: Checked8<'a>,
    of: PhantomData<T>,
}

impl<W: Words, T: Transform<N, M>, const N: usize, const M: usize> Way<N, M> for Integers<'_, W, T> {
    type Number = i16;
    type Window = W::Words;
    type Sum = i32;
    type Sums = W::I;
    type StoredWindow = W::Words;
    type StoredSums = W::I;
    type Start = W::I;
    type Simd = W::S;
    const CHANNELS: usize = W::COUNT;
    const LANES: usize = W::LANES;
    const PIXELS: &'static [usize] = W::PIXELS_OF_WORDS;

    #[inline(always)]
    fn simd(self) -> Self::Simd {
        self.w.simd()
    }
    #[inline(always)]
    fn store_window(self, window: W::Words) -> W::Words {
        window
    }
    #[inline(always)]
    fn store_sums(self, sums: W::I) -> W::I {
        sums
    }
    #[inline(always)]
    fn load_sums(self, stored: W::I) -> W::I {
        stored
    }
    #[inline(always)]
    unsafe fn read(self, at: usize) -> W::Words {
        // SAFETY: the caller's promise.
        self.w.widen(unsafe { self.checked.memory.bytes().source().load(at) })
    }
    #[inline(always)]
    fn line_in(self, d: [W::Words; N]) -> [W::Words; N] {
        T::line_in(self.w, d)
    }
    #[inline(always)]
    unsafe fn multiply<const V: usize, const P: usize>(
        self,
        weights: Source<i16>,
        from: Source<i16>,
        c_in: usize,
    ) -> [[W::I; V]; P] {
        let mut sums = [[self.w.no_sums(); V]; P];
        for c in (0..c_in).step_by(W::STEP) {
            let weights = weights.skip(c * V * W::LANES);
            fetch_ahead(self.w.simd(), weights, W::STEP * V * W::LANES);
            // SAFETY: the caller's promise: `STEP` channels are left, since channels are whole vectors.
            unsafe { self.w.add_products(&mut sums, weights, from.skip(c), c_in) };
        }
        sums
    }
    #[inline(always)]
    fn line_out(self, m: [W::I; N]) -> [W::I; M] {
        T::line_out(self.w, m)
    }
    #[inline(always)]
    fn start(self, block: Block, v: usize) -> W::I {
        self.checked.run.packed.start::<W>(block, v)
    }
    #[inline(always)]
    unsafe fn finish(self, start: W::I, sum: W::I, at: (usize, usize, usize)) {
        let sum = self.w.add_sums(start, T::divide(self.w, sum));
        // SAFETY: the caller's promise.
        unsafe { finish::<W, 1>(self.w, self.checked, at, [sum], None) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::simd::Portable;
    use super::*;

    #[test]
    fn multiples_are_divided_exactly_as_far_as_kernels_hold() {
        // a kernel of as many of the greatest weights as hold, and one more
        let most = |bits: u32| ((1 << (bits - 1)) - 1) / (256 * 128);
        for (square, bits) in [(Square::Two, Two::BITS), (Square::Four, Four::BITS)] {
            let weights = vec![-128; most(bits) + 1];
            assert!(holds(square, &weights[1..], 1) && !holds(square, &weights, 1));
        }
        for k in (0..1000).chain((1 << 25) - 1000..1 << 25) {
            for y in [k, -k] {
                let divided = [Two::divide(Portable, [4 * y; 4]), Four::divide(Portable, [576i32.wrapping_mul(y); 4])];
                assert_eq!(divided, [[y; 4]; 2]);
            }
        }
    }
}
