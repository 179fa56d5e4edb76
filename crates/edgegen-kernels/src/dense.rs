//! What is done to pictures number by number, group normalization, and matrices times vectors.

use super::conv8::QuantParams;
use super::memory::{Memory, Part};
use super::pointer::{Source, Target};
use super::simd::{Dot, ROUND, Simd, WIDEST};
use super::weights::{Number, Order, Stored, Weights};
use crate::arena::ImageView;

/// e^x, with x brought within -87 to 87, to two units in the last place: 2ⁿ times a polynomial of the rest.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.min(s.max(x, s.splat(-87.0)), s.splat(87.0));
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    // ln 2 in two parts, so that the rest is exact
    let r = s.fma(n, s.splat(-0.693_145_75), x);
    let r = s.fma(n, s.splat(-1.428_606_8e-6), r);
    // the polynomial of this degree, with 1 for 0, whose greatest relative error within ± ln 2 / 2 is least: 9.2e-8
    let mut p = s.splat(0.008_290_306);
    for c in [0.041_897_976, 0.166_676_37, 0.499_991_5, 0.999_999_7, 1.0] {
        p = s.fma(p, r, s.splat(c));
    }
    s.times_power_of_two(p, shifted)
}

/// x / (1 + e^-x).
#[inline(always)]
fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.mul(x, s.reciprocal(s.add(s.splat(1.0), e)))
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
    ///
    /// # Errors
    /// When there are not as many weights, scales or biases, none at all, or more than can be counted.
    pub fn new(
        stored: Stored,
        rows: usize,
        columns: usize,
        by_column: bool,
        bias: Option<&[f32]>,
    ) -> Result<Self, String> {
        let padded = rows.checked_next_multiple_of(WIDEST).filter(|padded| padded.checked_mul(columns).is_some());
        let Some(padded) = padded.filter(|_| rows > 0 && columns > 0) else {
            return Err(format!("a matrix of {rows} rows and {columns} columns"));
        };
        stored.check(rows * columns, rows)?;
        if bias.is_some_and(|b| b.len() != rows) {
            return Err(format!("a matrix of {rows} rows and another number of biases"));
        }
        let mut bias = bias.map_or_else(Vec::new, <[f32]>::to_vec);
        bias.resize(padded, 0.0);
        Ok(Matrix { rows, weights: Weights::new(stored, &ByColumn { rows, columns, by_column }, padded), bias })
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
/// # Panics
/// When the vectors are not of the matrix's sizes.
#[inline(always)]
pub(super) fn matrix_vector<S: Simd>(s: S, matrix: &Matrix, x: &[f32], out: &mut [f32]) {
    match &matrix.weights {
        Weights::F32(columns) | Weights::Whole(columns, _) => rows_of(s, columns, matrix, x, out),
        Weights::F16(columns) => rows_of(s, columns, matrix, x, out),
        Weights::I8(columns, _) => rows_of(s, columns, matrix, x, out),
    }
}

#[inline(always)]
fn rows_of<S: Simd, W: Number>(s: S, columns: &[W], matrix: &Matrix, x: &[f32], out: &mut [f32]) {
    let padded = matrix.bias.len();
    assert!(out.len() == matrix.rows && Some(columns.len()) == padded.checked_mul(x.len()));
    let (vectors, mut v) = (matrix.rows.div_ceil(S::LANES), 0);
    while v < vectors {
        if vectors - v >= ROWS {
            some_rows::<S, W, ROWS>(s, columns, matrix, x, v * S::LANES, out);
            v += ROWS;
        } else {
            some_rows::<S, W, 1>(s, columns, matrix, x, v * S::LANES, out);
            v += 1;
        }
    }
}

/// V vectors of rows from `first` on.
#[inline(always)]
fn some_rows<S: Simd, W: Number, const V: usize>(
    s: S,
    columns: &[W],
    matrix: &Matrix,
    x: &[f32],
    first: usize,
    out: &mut [f32],
) {
    let padded = matrix.bias.len();
    assert!(first + V * S::LANES <= padded && columns.len() == padded * x.len());
    let mut bias = [s.splat(0.0); V];
    for (v, bias) in bias.iter_mut().enumerate() {
        *bias = s.read(&matrix.bias, first + v * S::LANES);
    }
    let scales = matrix.weights.scales();
    let mut sums = if scales.is_some() { [s.splat(0.0); V] } else { bias };
    for (k, x) in x.iter().enumerate() {
        // SAFETY: the assertion: column k is there, with these rows.
        let column: [S::F; V] = unsafe { W::load(s, Source::of(columns), k * padded + first) };
        for (sum, w) in sums.iter_mut().zip(column) {
            *sum = s.fma(s.splat(*x), w, *sum);
        }
    }
    if let Some(scales) = scales {
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = s.fma(*sum, s.read(scales, first + v * S::LANES), bias[v]);
        }
    }
    for (v, &sum) in sums.iter().enumerate() {
        let out = &mut out[first + v * S::LANES..];
        let left = out.len();
        // SAFETY: the slice has as many.
        unsafe { s.store_some(Target::of(out), 0, left, sum) }
    }
}

/// Group normalization, then scale and shift a channel, then SiLU if asked for.
pub struct GroupNorm<'a> {
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
    Float(ImageView),
    /// A picture in 8 bits.
    Quantized(ImageView, QuantParams),
}

impl Output {
    /// The picture.
    pub fn view(self) -> ImageView {
        let (Output::Float(view) | Output::Quantized(view, _)) = self;
        view
    }

    fn fits(self, memory: Memory) -> bool {
        match self {
            Output::Float(view) => view.fits(memory.len()),
            Output::Quantized(view, _) => view.fits(memory.bytes_len()),
        }
    }

    /// Whole vectors of channels to number `at`.
    ///
    /// # Safety
    /// They must lie within the memory, and no other thread read or write them.
    #[inline(always)]
    unsafe fn put<D: Dot, const V: usize>(self, d: D, memory: Memory, at: usize, values: [<D::S as Simd>::F; V]) {
        match self {
            Output::Float(_) => {
                let to = memory.arena().skip(at);
                for (v, &value) in values.iter().enumerate() {
                    // SAFETY: the caller's promise.
                    unsafe { to.store(v * D::LANES, value) }
                }
            }
            // SAFETY: the caller's promise.
            Output::Quantized(_, levels) => unsafe { levels.store(d, memory.bytes(), at, values) },
        }
    }

    /// The first `n` < `LANES` channels of a vector to number `at`.
    ///
    /// # Safety
    /// As [`put`](Self::put)'s.
    #[inline(always)]
    unsafe fn put_part<D: Dot>(self, d: D, memory: Memory, at: usize, value: <D::S as Simd>::F, n: usize) {
        match self {
            // SAFETY: the caller's promise.
            Output::Float(_) => unsafe { d.simd().store_part(memory.arena(), at, value, n) },
            // SAFETY: the caller's promise.
            Output::Quantized(_, levels) => unsafe { levels.store_part(d, memory.bytes(), at, value, n) },
        }
    }
}

/// Something that is done to numbers one by one.
trait Each<S: Simd>: Copy {
    /// What is done to the pixel at (y, x).
    #[inline(always)]
    fn at(self, _y: usize, _x: usize) -> Self {
        self
    }

    /// To a vector of channels from `c` on, of which `part` are there, or all.
    ///
    /// # Safety
    /// What else is read of those channels must be there.
    unsafe fn each(self, s: S, v: S::F, c: usize, part: Option<usize>) -> S::F;
}

/// Does `f` to the `count` channels of a pixel, the first of which is number `from`, into those from number
/// `to` on.
///
/// # Safety
/// Both must lie within the memory, what `f` reads be there, and no other thread read or write the result.
#[inline(always)]
unsafe fn channels<D: Dot>(
    d: D,
    f: impl Each<D::S>,
    from: usize,
    (output, to): (Output, usize),
    count: usize,
    memory: Memory,
) {
    let (s, from, mut c) = (d.simd(), memory.arena().source().skip(from), 0);
    while c + 4 * D::LANES <= count {
        // SAFETY: the caller's promise: so many channels are left.
        let mut values: [<D::S as Simd>::F; 4] = unsafe { f32::load(s, from, c) };
        for (v, value) in values.iter_mut().enumerate() {
            // SAFETY: as above.
            *value = unsafe { f.each(s, *value, c + v * D::LANES, None) };
        }
        // SAFETY: as above.
        unsafe { output.put(d, memory, to + c, values) }
        c += 4 * D::LANES;
    }
    while c + D::LANES <= count {
        // SAFETY: as above.
        let value = unsafe { from.load(c) };
        // SAFETY: as above.
        let value = unsafe { f.each(s, value, c, None) };
        // SAFETY: as above.
        unsafe { output.put(d, memory, to + c, [value]) }
        c += D::LANES;
    }
    if c < count {
        let left = count - c;
        // SAFETY: as above.
        let value = unsafe { s.load_part(from, c, left) };
        // SAFETY: as above.
        let value = unsafe { f.each(s, value, c, Some(left)) };
        // SAFETY: as above.
        unsafe { output.put_part(d, memory, to + c, value, left) }
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
    Round(QuantParams),
    /// The number of another picture is added.
    Add(ImageView),
}

#[derive(Clone, Copy)]
struct Copied;
#[derive(Clone, Copy)]
struct Silu;
#[derive(Clone, Copy)]
struct Rounded(QuantParams);
/// The numbers of this picture are added, from its pixel on.
#[derive(Clone, Copy)]
struct Added<'a>(Source<'a, f32>, ImageView);
/// `x · factor + offset` of each channel, then SiLU if that is asked for.
#[derive(Clone, Copy)]
struct Scaled<'a, const SILU: bool> {
    factor: Source<'a, f32>,
    offset: Source<'a, f32>,
}

impl<S: Simd> Each<S> for Copied {
    #[inline(always)]
    unsafe fn each(self, _: S, v: S::F, _: usize, _: Option<usize>) -> S::F {
        v
    }
}

impl<S: Simd> Each<S> for Silu {
    #[inline(always)]
    unsafe fn each(self, s: S, v: S::F, _: usize, _: Option<usize>) -> S::F {
        silu(s, v)
    }
}

impl<S: Simd> Each<S> for Rounded {
    #[inline(always)]
    unsafe fn each(self, s: S, v: S::F, _: usize, _: Option<usize>) -> S::F {
        self.0.round_all(s, v)
    }
}

impl<S: Simd> Each<S> for Added<'_> {
    #[inline(always)]
    fn at(self, y: usize, x: usize) -> Self {
        Added(self.0.skip(self.1.start + y * self.1.row + x * self.1.pixel), self.1)
    }

    #[inline(always)]
    unsafe fn each(self, s: S, v: S::F, c: usize, part: Option<usize>) -> S::F {
        // SAFETY: the caller's promise.
        s.add(v, unsafe { s.load_some(self.0, c, part.unwrap_or(S::LANES)) })
    }
}

impl<S: Simd, const SILU: bool> Each<S> for Scaled<'_, SILU> {
    #[inline(always)]
    unsafe fn each(self, s: S, v: S::F, c: usize, part: Option<usize>) -> S::F {
        let count = part.unwrap_or(S::LANES);
        // SAFETY: the caller's promise.
        let factor = unsafe { s.load_some(self.factor, c, count) };
        // SAFETY: the caller's promise.
        let offset = unsafe { s.load_some(self.offset, c, count) };
        let y = s.fma(v, factor, offset);
        if SILU { silu(s, y) } else { y }
    }
}

/// Numbers of a picture into another, which may be the same one.
///
/// # Panics
/// When a picture does not lie within the memory, or is of other sizes.
#[inline(always)]
pub(super) fn map<D: Dot>(d: D, op: Map, input: ImageView, output: Output, part: Part, memory: Memory) {
    let view = output.view();
    let like = |v: ImageView| (v.c, v.h, v.w) == (view.c, view.h, view.w) && v.fits(memory.len());
    assert!(like(input) && output.fits(memory) && view.is_apart());
    match op {
        // SAFETY: the assertion.
        Map::Copy => unsafe { every(d, Copied, input, output, part, memory) },
        // SAFETY: the assertion.
        Map::Silu => unsafe { every(d, Silu, input, output, part, memory) },
        // SAFETY: the assertion.
        Map::Round(levels) => unsafe { every(d, Rounded(levels), input, output, part, memory) },
        Map::Add(other) => {
            assert!(like(other));
            let added = Added(memory.arena().source(), other);
            // SAFETY: the assertions.
            unsafe { every(d, added, input, output, part, memory) }
        }
    }
}

/// Does `f` to each pixel.
///
/// # Safety
/// Both pictures must lie within the memory and be of one size, and what `f` reads must be there. No other thread may read
/// or write this part of the output.
#[inline(always)]
unsafe fn every<D: Dot>(d: D, f: impl Each<D::S>, input: ImageView, output: Output, part: Part, memory: Memory) {
    let view = output.view();
    for (y, columns) in part.lines(view.h, view.w) {
        for x in columns {
            let at = |v: ImageView| v.start + y * v.row + x * v.pixel;
            // SAFETY: the caller's promise.
            unsafe { channels(d, f.at(y, x), at(input), (output, at(view)), view.c, memory) }
        }
    }
}

/// Every pixel as a square of four.
///
/// # Panics
/// When a picture does not lie within the memory, or is of other sizes.
#[inline(always)]
pub(super) fn upsample<S: Simd>(s: S, input: ImageView, output: ImageView, part: Part, memory: Memory) {
    let halves = |n: usize, half: usize| n.is_multiple_of(2) && n / 2 == half;
    assert!(output.c == input.c && halves(output.h, input.h) && halves(output.w, input.w));
    assert!(input.fits(memory.len()) && output.fits(memory.len()) && output.is_apart());
    for (y, x) in part.lines(output.h, output.w).flat_map(|(y, x)| x.map(move |x| (y, x))) {
        let from = input.start + y / 2 * input.row + x / 2 * input.pixel;
        let to = output.start + y * output.row + x * output.pixel;
        for c in (0..output.c).step_by(S::LANES) {
            // SAFETY: the assertions: the pixel has so many channels left.
            let v = unsafe { s.load_some(memory.arena().source(), from + c, output.c - c) };
            // SAFETY: as above; other parts have other pixels.
            unsafe { s.store_some(memory.arena(), to + c, output.c - c, v) }
        }
    }
}

/// For every channel from `first` to `end`, as far from the first pixel's: the sums over all pixels, of the distances
/// and of their squares. Rows are added up by themselves, so that the sums of many pixels keep their digits.
///
/// # Panics
/// When the picture does not lie within the memory, or there is no room for the sums.
#[inline(always)]
fn distances<S: Simd>(
    s: S,
    input: ImageView,
    (first, end): (usize, usize),
    memory: Memory,
    sums: &mut [f32],
    squares: &mut [f32],
) {
    assert!(input.fits(memory.len()) && first <= end && end <= input.c);
    assert!(sums.len() >= end - first && squares.len() >= end - first);
    let (mut c, sums, squares) = (first, Target::of(sums), Target::of(squares));
    while c < end {
        let from = memory.arena().source().skip(input.start + c);
        let to = [sums.skip(c - first), squares.skip(c - first)];
        let left = end - c;
        c += match left / S::LANES {
            // SAFETY: the assertions: the channels that are left are there, and there is room for them.
            0 => unsafe { distances_of::<S, 1>(s, input, from, to, Some(left)) },
            // SAFETY: as above.
            1 => unsafe { distances_of::<S, 1>(s, input, from, to, None) },
            // SAFETY: as above.
            2 => unsafe { distances_of::<S, 2>(s, input, from, to, None) },
            // SAFETY: as above.
            3 => unsafe { distances_of::<S, 3>(s, input, from, to, None) },
            // SAFETY: as above.
            _ => unsafe { distances_of::<S, 4>(s, input, from, to, None) },
        };
    }
}

/// Those of V vectors of channels, or of as many of the first as are `part`. Returns how many channels these are.
///
/// # Safety
/// The picture must have these channels, from `from` on, and there must be room for the sums.
#[inline(always)]
unsafe fn distances_of<S: Simd, const V: usize>(
    s: S,
    input: ImageView,
    from: Source<f32>,
    to: [Target<f32>; 2],
    part: Option<usize>,
) -> usize {
    let zero = [s.splat(0.0); V];
    // SAFETY: the caller's promise.
    let origin = unsafe { load_all::<S, V>(s, from, part) };
    let (mut sums, mut squares) = (zero, zero);
    for y in 0..input.h {
        let (mut row_sums, mut row_squares) = (zero, zero);
        for x in 0..input.w {
            // SAFETY: the caller's promise.
            let pixel = unsafe { load_all::<S, V>(s, from.skip(y * input.row + x * input.pixel), part) };
            for v in 0..V {
                let d = s.sub(pixel[v], origin[v]);
                row_sums[v] = s.add(row_sums[v], d);
                row_squares[v] = s.fma(d, d, row_squares[v]);
            }
        }
        for v in 0..V {
            sums[v] = s.add(sums[v], row_sums[v]);
            squares[v] = s.add(squares[v], row_squares[v]);
        }
    }
    for (to, values) in to.into_iter().zip([sums, squares]) {
        for (v, &value) in values.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { s.store_some(to, v * S::LANES, part.unwrap_or(S::LANES), value) }
        }
    }
    part.unwrap_or(V * S::LANES)
}

/// V vectors that lie together, or the first `part` numbers of one.
///
/// # Safety
/// The numbers must be there.
#[inline(always)]
unsafe fn load_all<S: Simd, const V: usize>(s: S, from: Source<f32>, part: Option<usize>) -> [S::F; V] {
    match part {
        // SAFETY: the caller's promise.
        None => unsafe { f32::load(s, from, 0) },
        // SAFETY: the caller's promise.
        Some(count) => [unsafe { s.load_part(from, 0, count) }; V],
    }
}

/// Normalizes `input` into `output`, with `work` of twice the channels. Parts are of groups.
///
/// # Panics
/// When a picture does not lie within the memory or is of other sizes, or when scale, shift or work space are of another
/// length.
#[inline(always)]
pub(super) fn norm<D: Dot>(
    d: D,
    n: &GroupNorm,
    input: ImageView,
    output: Output,
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    let (c, view) = (input.c, output.view());
    assert!((view.c, view.h, view.w) == (c, input.h, input.w) && input.fits(memory.len()) && output.fits(memory));
    assert!(view.is_apart() && n.groups > 0 && work.len() / 2 >= c);
    assert!(n.scale.len() == c && n.shift.len() == c && c.is_multiple_of(n.groups));
    let each = c / n.groups;
    let groups = part.range(n.groups);
    let (start, end) = (groups.start * each, groups.end * each);
    let (factor, offset) = work[..2 * c].split_at_mut(c);
    let (factor, offset) = (&mut factor[..end - start], &mut offset[..end - start]);
    distances(d.simd(), input, (start, end), memory, offset, factor);
    let pixels = (input.h * input.w) as f32;
    for (g, (means, squares)) in offset.chunks_exact_mut(each).zip(factor.chunks_exact_mut(each)).enumerate() {
        let first = start + g * each;
        // each channel's mean, and the squares of the distances from it
        let mut around = 0.0;
        for (i, (mean, square)) in means.iter_mut().zip(squares.iter()).enumerate() {
            let sum = *mean;
            // SAFETY: the first pixel lies within the arena.
            *mean = unsafe { memory.arena().source().load::<f32>(input.start + first + i) } + sum / pixels;
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
    let channels = |view: ImageView| view.channels(start, end - start);
    let Some((input, view)) = channels(input).zip(channels(view)) else { return };
    let output = match output {
        Output::Float(_) => Output::Float(view),
        Output::Quantized(_, levels) => Output::Quantized(view, levels),
    };
    let (factor, offset) = (Source::of(factor), Source::of(offset));
    if n.silu {
        // SAFETY: the assertions; there are a factor and an offset for each channel.
        unsafe { every(d, Scaled::<true> { factor, offset }, input, output, Part::WHOLE, memory) }
    } else {
        // SAFETY: as above.
        unsafe { every(d, Scaled::<false> { factor, offset }, input, output, Part::WHOLE, memory) }
    }
}

/// A scale and a shift for each channel, then SiLU if asked for.
pub struct Affine<'a> {
    /// The scale of each channel.
    pub scale: &'a [f32],
    /// The shift of each channel.
    pub shift: &'a [f32],
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Scales and shifts the channels of a picture into another, which may be the same one.
///
/// # Panics
/// When a picture does not lie within the memory, is of other sizes, or there are not as many scales and shifts as channels.
#[inline(always)]
pub(super) fn scale<D: Dot>(d: D, a: &Affine, input: ImageView, view: ImageView, part: Part, memory: Memory) {
    let like = |v: ImageView| (v.c, v.h, v.w) == (view.c, view.h, view.w) && v.fits(memory.len());
    assert!(like(input) && like(view) && view.is_apart() && [a.scale.len(), a.shift.len()] == [view.c; 2]);
    let (factor, offset, output) = (Source::of(a.scale), Source::of(a.shift), Output::Float(view));
    if a.silu {
        // SAFETY: the assertions; there are a factor and an offset for each channel.
        unsafe { every(d, Scaled::<true> { factor, offset }, input, output, part, memory) }
    } else {
        // SAFETY: as above.
        unsafe { every(d, Scaled::<false> { factor, offset }, input, output, part, memory) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;
    use super::*;

    #[test]
    fn exp_and_silu_are_close_to_the_exact_ones() {
        let of = |x: f32| (exp(Portable, [x; 4])[0], silu(Portable, [x; 4])[0]);
        for i in (-8700..8700).step_by(if cfg!(miri) { 1001 } else { 1 }) {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(of(x).0) - exact).abs() <= 3e-7 * exact, "{x}");
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(of(x).1) - exact).abs() <= 5e-7 * exact.abs() + 1e-35, "silu {x}");
        }
        assert!(of(-1000.0).1.abs() < 1e-34 && of(1000.0).1 == 1000.0);
    }
}
