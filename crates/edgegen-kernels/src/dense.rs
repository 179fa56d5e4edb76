//! What is done to pictures number by number, group normalisation, and matrices times vectors.

use super::conv8::Levels;
use super::memory::{Memory, Part};
use super::simd::{Dot, ROUND, Simd, WIDEST};
use super::weights::{Number, Order, Stored, Weights};
use crate::arena::View;
use half::f16;

/// e^x, with x brought within -87 to 87, to two units in the last place: 2ⁿ times a polynomial of the rest.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        let x = S::min(S::max(x, S::splat(-87.0)), S::splat(87.0));
        let shifted = S::fma(x, S::splat(std::f32::consts::LOG2_E), S::splat(ROUND));
        let n = S::sub(shifted, S::splat(ROUND));
        // ln 2 in two parts, so that the rest is exact
        let r = S::fma(n, S::splat(-0.693_145_75), x);
        let r = S::fma(n, S::splat(-1.428_606_8e-6), r);
        // the polynomial of this degree, with 1 for 0, whose greatest relative error within ± ln 2 / 2 is least: 9.2e-8
        let mut p = S::splat(0.008_290_306);
        for c in [0.041_897_976, 0.166_676_37, 0.499_991_5, 0.999_999_7, 1.0] {
            p = S::fma(p, r, S::splat(c));
        }
        S::times_power_of_two(p, shifted)
    }
}

/// x / (1 + e^-x).
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
unsafe fn silu<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        let e = exp::<S>(S::sub(S::splat(0.0), x));
        S::mul(x, S::reciprocal(S::add(S::splat(1.0), e)))
    }
}

/// A vector of numbers of which `left` are there.
///
/// # Safety
/// The CPU must have the features of `S`; as many numbers must be there.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(from: *const f32, left: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { if left >= S::LANES { S::load(from) } else { S::load_part(from, left) } }
}

/// A vector to where there is room for `left` numbers.
///
/// # Safety
/// As [`load`]'s.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(to: *mut f32, left: usize, v: S::F) {
    // SAFETY: the caller's promise.
    unsafe { if left >= S::LANES { S::store(to, v) } else { S::store_part(to, v, left) } }
}

/// A matrix that is multiplied with vectors, plus a vector.
#[derive(Clone, Debug)]
pub struct Matrix {
    rows: usize,
    /// By columns, each padded to whole vectors.
    weights: Weights,
    /// Padded alike.
    bias: Vec<f32>,
}

/// The numbers of `[rows, columns]`, or of `[columns, rows]`, by columns.
struct ByColumn {
    rows: usize,
    columns: usize,
    by_column: bool,
}

impl Order for ByColumn {
    fn arrange<T: Copy + Default>(&self, weights: &[T]) -> Vec<T> {
        let (rows, columns) = (self.rows, self.columns);
        let padded = rows.next_multiple_of(WIDEST);
        let mut all = vec![T::default(); columns * padded];
        for (c, column) in all.chunks_exact_mut(padded).enumerate() {
            for (r, to) in column[..rows].iter_mut().enumerate() {
                *to = weights[if self.by_column { c * rows + r } else { r * columns + c }];
            }
        }
        all
    }
}

impl Matrix {
    /// Of `[rows, columns]` numbers, or `[columns, rows]` if they are `by_column`.
    pub fn new(stored: Stored, rows: usize, columns: usize, by_column: bool, bias: Option<&[f32]>) -> Self {
        assert!(stored.len() == rows * columns && bias.is_none_or(|b| b.len() == rows));
        let padded = rows.next_multiple_of(WIDEST);
        let mut bias = bias.map_or_else(Vec::new, <[f32]>::to_vec);
        bias.resize(padded, 0.0);
        Matrix { rows, weights: Weights::new(stored, &ByColumn { rows, columns, by_column }, padded), bias }
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + size_of_val(self.bias.as_slice())
    }
}

/// Vectors of a matrix's rows that are added up together.
const ROWS: usize = 4;

/// `out = a x + b`.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(super) unsafe fn matrix_vector<S: Simd>(matrix: &Matrix, x: &[f32], out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match &matrix.weights {
            Weights::F32(columns) | Weights::Whole(columns, _) => rows_of::<S, f32>(columns, matrix, x, out),
            Weights::F16(columns) => rows_of::<S, f16>(columns, matrix, x, out),
            Weights::I8(columns, _) => rows_of::<S, i8>(columns, matrix, x, out),
        }
    }
}

#[inline(always)]
unsafe fn rows_of<S: Simd, W: Number>(columns: &[W], matrix: &Matrix, x: &[f32], out: &mut [f32]) {
    let padded = matrix.bias.len();
    assert!(out.len() == matrix.rows && columns.len() == padded * x.len());
    let (vectors, mut v) = (matrix.rows.div_ceil(S::LANES), 0);
    while v < vectors {
        // SAFETY: the caller's promise; columns, bias and scales are padded to whole vectors.
        unsafe {
            if vectors - v >= ROWS {
                some_rows::<S, W, ROWS>(columns, matrix, x, v * S::LANES, out);
                v += ROWS;
            } else {
                some_rows::<S, W, 1>(columns, matrix, x, v * S::LANES, out);
                v += 1;
            }
        }
    }
}

/// V vectors of rows from `first` on.
///
/// # Safety
/// The CPU must have the features of `S`; the rows must be there, padded to whole vectors.
#[inline(always)]
unsafe fn some_rows<S: Simd, W: Number, const V: usize>(
    columns: &[W],
    matrix: &Matrix,
    x: &[f32],
    first: usize,
    out: &mut [f32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let bias = <f32 as Number>::load::<S, V>(matrix.bias.as_ptr().add(first));
        let mut sums = if matrix.weights.scales().is_some() { [S::splat(0.0); V] } else { bias };
        for (k, x) in x.iter().enumerate() {
            let column = W::load::<S, V>(columns.as_ptr().add(k * matrix.bias.len() + first));
            for (sum, w) in sums.iter_mut().zip(column) {
                *sum = S::fma(S::splat(*x), w, *sum);
            }
        }
        if let Some(scales) = matrix.weights.scales() {
            let scales = <f32 as Number>::load::<S, V>(scales.as_ptr().add(first));
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(*sum, scales[v], bias[v]);
            }
        }
        for (v, &sum) in sums.iter().enumerate() {
            let at = first + v * S::LANES;
            store::<S>(out.as_mut_ptr().add(at), out.len() - at, sum);
        }
    }
}

/// Group normalisation, then scale and shift a channel, then SiLU if asked for.
pub struct Norm<'a> {
    /// The groups.
    pub groups: usize,
    /// What is added to the variance.
    pub epsilon: f32,
    /// The scale of each channel.
    pub scale: &'a [f32],
    /// The shift of each channel.
    pub shift: &'a [f32],
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Where a result goes: as it is, or rounded to levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// A picture in f32.
    Float(View),
    /// A picture in 8 bits.
    Levels(View, Levels),
}

impl Output {
    /// The picture.
    pub fn view(self) -> View {
        let (Output::Float(view) | Output::Levels(view, _)) = self;
        view
    }

    fn fits(self, memory: Memory) -> bool {
        match self {
            Output::Float(view) => view.fits(memory.len()),
            Output::Levels(view, _) => view.fits(memory.bytes_len()),
        }
    }

    /// Whole vectors of channels to number `at`.
    ///
    /// # Safety
    /// The CPU must have the features of `D`, and the numbers lie within the memory.
    #[inline(always)]
    unsafe fn put<D: Dot, const V: usize>(self, memory: Memory, at: usize, values: [<D::S as Simd>::F; V]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Output::Float(_) => {
                    let to = memory.arena().add(at);
                    for (v, &value) in values.iter().enumerate() {
                        D::S::store(to.add(v * D::LANES), value);
                    }
                }
                Output::Levels(_, levels) => levels.store::<D, V>(memory.bytes().add(at), values),
            }
        }
    }

    /// The first `n` < `LANES` channels of a vector to number `at`.
    ///
    /// # Safety
    /// As [`put`](Self::put)'s.
    #[inline(always)]
    unsafe fn put_part<D: Dot>(self, memory: Memory, at: usize, value: <D::S as Simd>::F, n: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Output::Float(_) => D::S::store_part(memory.arena().add(at), value, n),
                Output::Levels(_, levels) => levels.store_part::<D>(memory.bytes().add(at), value, n),
            }
        }
    }
}

/// Something that is done to numbers one by one.
trait Each<S: Simd>: Copy {
    /// To a vector of channels from `c` on, of which `part` are there, or all.
    ///
    /// # Safety
    /// The CPU must have the features of `S`, and what else is read of those channels must be there.
    unsafe fn each(self, x: S::F, c: usize, part: Option<usize>) -> S::F;
}

/// Does `f` to the `count` channels of a pixel, the first of which is number `from`, into those from number `to` on.
///
/// # Safety
/// The CPU must have the features of `D`; both must lie within the memory, and what `f` reads be there.
#[inline(always)]
unsafe fn channels<D: Dot>(
    f: impl Each<D::S>,
    from: usize,
    (output, to): (Output, usize),
    count: usize,
    memory: Memory,
) {
    let mut c = 0;
    // SAFETY: the caller's promise.
    unsafe {
        let from = memory.arena().cast_const().add(from);
        while c + 4 * D::LANES <= count {
            let mut values = f32::load::<D::S, 4>(from.add(c));
            for (v, value) in values.iter_mut().enumerate() {
                *value = f.each(*value, c + v * D::LANES, None);
            }
            output.put::<D, 4>(memory, to + c, values);
            c += 4 * D::LANES;
        }
        while c + D::LANES <= count {
            output.put::<D, 1>(memory, to + c, [f.each(D::S::load(from.add(c)), c, None)]);
            c += D::LANES;
        }
        if c < count {
            let left = count - c;
            let value = f.each(D::S::load_part(from.add(c), left), c, Some(left));
            output.put_part::<D>(memory, to + c, value, left);
        }
    }
}

/// What is done to every number of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Map {
    /// Nothing.
    Copy,
    /// SiLU.
    Silu,
    /// Rounding to levels.
    Round(Levels),
    /// The number of another picture is added.
    Add(View),
}

#[derive(Clone, Copy)]
struct Copied;
#[derive(Clone, Copy)]
struct Silu;
#[derive(Clone, Copy)]
struct Rounded(Levels);
/// The numbers from here on are added.
#[derive(Clone, Copy)]
struct Added(*const f32);
/// `x · factor + offset` of each channel, then SiLU if that is asked for.
#[derive(Clone, Copy)]
struct Scaled<const SILU: bool> {
    factor: *const f32,
    offset: *const f32,
}

impl<S: Simd> Each<S> for Copied {
    #[inline(always)]
    unsafe fn each(self, x: S::F, _: usize, _: Option<usize>) -> S::F {
        x
    }
}

impl<S: Simd> Each<S> for Silu {
    #[inline(always)]
    unsafe fn each(self, x: S::F, _: usize, _: Option<usize>) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { silu::<S>(x) }
    }
}

impl<S: Simd> Each<S> for Rounded {
    #[inline(always)]
    unsafe fn each(self, x: S::F, _: usize, _: Option<usize>) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { self.0.round_all::<S>(x) }
    }
}

impl<S: Simd> Each<S> for Added {
    #[inline(always)]
    unsafe fn each(self, x: S::F, c: usize, part: Option<usize>) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::add(x, load::<S>(self.0.add(c), part.unwrap_or(S::LANES))) }
    }
}

impl<S: Simd, const SILU: bool> Each<S> for Scaled<SILU> {
    #[inline(always)]
    unsafe fn each(self, x: S::F, c: usize, part: Option<usize>) -> S::F {
        // SAFETY: the caller's promise.
        unsafe {
            let count = part.unwrap_or(S::LANES);
            let y = S::fma(x, load::<S>(self.factor.add(c), count), load::<S>(self.offset.add(c), count));
            if SILU { silu::<S>(y) } else { y }
        }
    }
}

/// Numbers of a picture into another, which may be the same one.
///
/// # Safety
/// The CPU must have the features of `D`.
#[inline(always)]
pub(super) unsafe fn map<D: Dot>(op: Map, input: View, output: Output, part: Part, memory: Memory) {
    let view = output.view();
    let like = |v: View| (v.c, v.h, v.w) == (view.c, view.h, view.w) && v.fits(memory.len());
    assert!(like(input) && output.fits(memory));
    if let Map::Add(other) = op {
        assert!(like(other));
    }
    // SAFETY: the caller's promise; the assertions.
    unsafe {
        match op {
            Map::Copy => every::<D, _>(|_, _| Copied, input, output, part, memory),
            Map::Silu => every::<D, _>(|_, _| Silu, input, output, part, memory),
            Map::Round(levels) => every::<D, _>(|_, _| Rounded(levels), input, output, part, memory),
            Map::Add(v) => {
                let other = |y, x| Added(memory.arena().cast_const().add(v.start + y * v.row + x * v.pixel));
                every::<D, _>(other, input, output, part, memory);
            }
        }
    }
}

/// Does what `f` gives for a row and a column to each pixel.
///
/// # Safety
/// As [`map`]'s; what `f` reads must be there.
#[inline(always)]
unsafe fn every<D: Dot, E: Each<D::S>>(
    f: impl Fn(usize, usize) -> E,
    input: View,
    output: Output,
    part: Part,
    memory: Memory,
) {
    let view = output.view();
    for (y, columns) in part.lines(view.h, view.w) {
        for x in columns {
            let at = |v: View| v.start + y * v.row + x * v.pixel;
            // SAFETY: the caller's promise.
            unsafe { channels::<D>(f(y, x), at(input), (output, at(view)), view.c, memory) };
        }
    }
}

/// Every pixel as a square of four.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(super) unsafe fn upsample<S: Simd>(input: View, output: View, part: Part, memory: Memory) {
    assert!((output.c, output.h, output.w) == (input.c, 2 * input.h, 2 * input.w));
    assert!(input.fits(memory.len()) && output.fits(memory.len()));
    for (y, x) in part.lines(output.h, output.w).flat_map(|(y, x)| x.map(move |x| (y, x))) {
        let from = input.start + y / 2 * input.row + x / 2 * input.pixel;
        let to = output.start + y * output.row + x * output.pixel;
        for c in (0..output.c).step_by(S::LANES) {
            // SAFETY: the caller's promise; the assertions.
            unsafe {
                let v = load::<S>(memory.arena().add(from + c), output.c - c);
                store::<S>(memory.arena().add(to + c), output.c - c, v);
            }
        }
    }
}

/// For every channel from `first` to `end`, as far from the first pixel's: the sums over all pixels, of the distances
/// and of their squares. Rows are added up by themselves, so that the sums of many pixels keep their digits.
///
/// # Safety
/// The CPU must have the features of `S`; the picture must lie within the arena.
#[inline(always)]
unsafe fn distances<S: Simd>(
    input: View,
    first: usize,
    end: usize,
    memory: Memory,
    sums: &mut [f32],
    squares: &mut [f32],
) {
    assert!(end <= input.c && sums.len() >= end - first && squares.len() >= end - first);
    let mut c = first;
    while c < end {
        // SAFETY: the caller's promise; the assertion.
        unsafe {
            let from = memory.arena().add(input.start + c).cast_const();
            let to = [sums.as_mut_ptr().add(c - first), squares.as_mut_ptr().add(c - first)];
            c += match (end - c) / S::LANES {
                0 => {
                    distances_of::<S, 1>(input, from, to, Some(end - c));
                    end - c
                }
                1 => distances_of::<S, 1>(input, from, to, None),
                2 => distances_of::<S, 2>(input, from, to, None),
                3 => distances_of::<S, 3>(input, from, to, None),
                _ => distances_of::<S, 4>(input, from, to, None),
            };
        }
    }
}

/// Those of V vectors of channels, or of as many of the first as are `part`. Returns how many channels V vectors are.
#[inline(always)]
unsafe fn distances_of<S: Simd, const V: usize>(
    input: View,
    from: *const f32,
    to: [*mut f32; 2],
    part: Option<usize>,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = [S::splat(0.0); V];
        let origin = load_some::<S, V>(from, part);
        let (mut sums, mut squares) = (zero, zero);
        for y in 0..input.h {
            let (mut row_sums, mut row_squares) = (zero, zero);
            for x in 0..input.w {
                let pixel = load_some::<S, V>(from.add(y * input.row + x * input.pixel), part);
                for v in 0..V {
                    let d = S::sub(pixel[v], origin[v]);
                    row_sums[v] = S::add(row_sums[v], d);
                    row_squares[v] = S::fma(d, d, row_squares[v]);
                }
            }
            for v in 0..V {
                sums[v] = S::add(sums[v], row_sums[v]);
                squares[v] = S::add(squares[v], row_squares[v]);
            }
        }
        for v in 0..V {
            let at = v * S::LANES;
            store::<S>(to[0].add(at), part.unwrap_or(S::LANES), sums[v]);
            store::<S>(to[1].add(at), part.unwrap_or(S::LANES), squares[v]);
        }
    }
    V * S::LANES
}

/// V vectors that lie together, or the first `part` numbers of one.
///
/// # Safety
/// The CPU must have the features of `S`; the numbers must be there.
#[inline(always)]
unsafe fn load_some<S: Simd, const V: usize>(from: *const f32, part: Option<usize>) -> [S::F; V] {
    // SAFETY: the caller's promise.
    unsafe {
        match part {
            None => f32::load::<S, V>(from),
            Some(count) => [S::load_part(from, count); V],
        }
    }
}

/// Normalises `input` into `output`, with `work` of twice the channels. Parts are of groups.
///
/// # Safety
/// The CPU must have the features of `D`.
#[inline(always)]
pub(super) unsafe fn norm<D: Dot>(n: &Norm, input: View, output: Output, part: Part, work: &mut [f32], memory: Memory) {
    let (c, view) = (input.c, output.view());
    assert!((view.c, view.h, view.w) == (c, input.h, input.w) && input.fits(memory.len()) && output.fits(memory));
    assert!(n.scale.len() == c && n.shift.len() == c && c.is_multiple_of(n.groups));
    let each = c / n.groups;
    let groups = part.range(n.groups);
    let (start, end) = (groups.start * each, groups.end * each);
    let (factor, offset) = work[..2 * c].split_at_mut(c);
    let (factor, offset) = (&mut factor[..end - start], &mut offset[..end - start]);
    // SAFETY: the caller's promise, and the assertions.
    unsafe { distances::<D::S>(input, start, end, memory, offset, factor) };
    let pixels = (input.h * input.w) as f32;
    for (g, (means, squares)) in offset.chunks_exact_mut(each).zip(factor.chunks_exact_mut(each)).enumerate() {
        let first = start + g * each;
        // each channel's mean, and the squares of the distances from it
        let mut around = 0.0;
        for (i, (mean, square)) in means.iter_mut().zip(squares.iter()).enumerate() {
            let sum = *mean;
            // SAFETY: the first pixel lies within the arena.
            *mean = unsafe { *memory.arena().add(input.start + first + i) } + sum / pixels;
            around += (square - sum * (sum / pixels)).max(0.0);
        }
        let mean = means.iter().sum::<f32>() / each as f32;
        let between: f32 = means.iter().map(|m| (m - mean) * (m - mean)).sum();
        let variance = (around + between * pixels) / (pixels * each as f32);
        let root = 1.0 / (variance + n.epsilon).sqrt();
        // y = x · factor + offset
        for (i, (factor, offset)) in squares.iter_mut().zip(means).enumerate() {
            *factor = n.scale[first + i] * root;
            *offset = n.shift[first + i] - mean * *factor;
        }
    }
    // the channels of these groups alone
    let (input, view) = (input.channels(start, end - start), view.channels(start, end - start));
    let output = match output {
        Output::Float(_) => Output::Float(view),
        Output::Levels(_, levels) => Output::Levels(view, levels),
    };
    let (factor, offset) = (factor.as_ptr(), offset.as_ptr());
    // SAFETY: the caller's promise, and the assertions.
    unsafe {
        if n.silu {
            every::<D, _>(|_, _| Scaled::<true> { factor, offset }, input, output, Part::WHOLE, memory);
        } else {
            every::<D, _>(|_, _| Scaled::<false> { factor, offset }, input, output, Part::WHOLE, memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;
    use super::*;

    #[test]
    fn exp_and_silu_are_close_to_the_exact_ones() {
        // SAFETY: every CPU has the portable vectors.
        let of = |x: f32| unsafe { (exp::<Portable>([x; 4])[0], silu::<Portable>([x; 4])[0]) };
        for i in -8700..8700 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(of(x).0) - exact).abs() <= 3e-7 * exact, "{x}");
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(of(x).1) - exact).abs() <= 5e-7 * exact.abs() + 1e-35, "silu {x}");
        }
        assert!(of(-1000.0).1.abs() < 1e-34 && of(1000.0).1 == 1000.0);
    }
}
