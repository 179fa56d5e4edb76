//! What works on values of any shape and strides, in plain loops that compilers turn into vectors: each is inlined into
//! an entry point that enables the CPU's features.

use super::memory::{Memory, Part};
use std::ops::Range;

/// What is done to each number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Copy,
    Silu,
    Sigmoid,
    Tanh,
    Relu,
    Gelu,
    GeluTanh,
    Mish,
    Softplus,
    Erf,
    Exp,
    Log,
    Sqrt,
    Square,
    Cube,
    Reciprocal,
    Sin,
    Cos,
    Negate,
    Absolute,
    Floor,
    Truncate,
    Clamp(f32, f32),
}

/// What is made of each two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Least,
    Greatest,
}

/// What is made of many numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Mean,
}

/// The most dimensions that loops have, once those that lie together are one.
pub const RANK: usize = 6;

/// Loops over the numbers of N values of one shape, the first being the result; a stride may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loops<const N: usize> {
    /// Where each value starts.
    pub starts: [usize; N],
    dims: [usize; RANK],
    strides: [[usize; RANK]; N],
}

impl<const N: usize> Loops<N> {
    /// Over `dims`, with a start and strides for each value; `None` if that takes more loops than there are.
    pub fn new(dims: &[usize], values: [(usize, &[usize]); N]) -> Option<Self> {
        let mut order: Vec<usize> = (0..dims.len()).filter(|d| dims[*d] != 1).collect();
        // the result's numbers that lie together come last
        order.sort_by_key(|d| std::cmp::Reverse(values[0].1[*d]));
        let mut merged: Vec<(usize, [usize; N])> = Vec::new();
        for d in order {
            let strides: [usize; N] = values.map(|(_, s)| s[d]);
            match merged.last_mut() {
                Some((n, outer)) if (0..N).all(|v| outer[v] == strides[v] * dims[d]) => {
                    *n *= dims[d];
                    *outer = strides;
                }
                _ => merged.push((dims[d], strides)),
            }
        }
        let first = RANK.checked_sub(merged.len())?;
        let mut loops = Loops { starts: values.map(|v| v.0), dims: [1; RANK], strides: [[0; RANK]; N] };
        for (i, (n, strides)) in merged.into_iter().enumerate() {
            loops.dims[first + i] = n;
            (0..N).for_each(|v| loops.strides[v][first + i] = strides[v]);
        }
        Some(loops)
    }

    /// The dimensions, and for each value where it starts and its strides.
    pub fn parts(&self) -> ([usize; RANK], [(usize, [usize; RANK]); N]) {
        (self.dims, std::array::from_fn(|v| (self.starts[v], self.strides[v])))
    }

    /// Loops over these dimensions, with a start and strides for each value.
    pub fn from_parts(dims: [usize; RANK], values: [(usize, [usize; RANK]); N]) -> Self {
        Loops { starts: values.map(|v| v.0), dims, strides: values.map(|v| v.1) }
    }

    /// How many numbers the result has.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether value `v` lies within a buffer of `len` numbers.
    fn fits(&self, v: usize, len: usize) -> bool {
        let mut sides = self.dims.iter().zip(&self.strides[v]);
        let mut last = || sides.try_fold(self.starts[v], |at, (d, s)| at.checked_add((d - 1).checked_mul(*s)?));
        self.dims.contains(&0) || last().is_some_and(|last| last < len)
    }

    /// The loops, and which part of their runs, that make this part: where there is but one run, some of its numbers,
    /// in groups of `together`.
    #[inline(always)]
    fn part(&self, part: Part, together: usize) -> (Self, Part) {
        let n = self.dims[RANK - 1];
        if part.of == 1 || self.dims[..RANK - 1].iter().any(|d| *d != 1) {
            return (*self, part);
        }
        let groups = part.range(n.div_ceil(together));
        let (first, end) = (n.min(groups.start * together), n.min(groups.end * together));
        let mut loops = *self;
        loops.dims[RANK - 1] = end - first;
        loops.starts.iter_mut().zip(&self.strides).for_each(|(start, s)| *start += first * s[RANK - 1]);
        (loops, Part::WHOLE)
    }

    /// Where each value's run starts, for each run of the last dimension. Parts are of the runs.
    #[inline(always)]
    fn runs(&self, part: Part) -> Runs<'_, N> {
        Runs { loops: self, left: part.range(self.dims[..RANK - 1].iter().product()) }
    }

    fn last(&self) -> (usize, [usize; N]) {
        (self.dims[RANK - 1], std::array::from_fn(|v| self.strides[v][RANK - 1]))
    }
}

/// See [`Loops::runs`]. Not a function that calls a closure: one that is not compiled into its caller lacks the CPU's
/// features.
struct Runs<'a, const N: usize> {
    loops: &'a Loops<N>,
    left: Range<usize>,
}

impl<const N: usize> Iterator for Runs<'_, N> {
    type Item = [usize; N];

    #[inline(always)]
    fn next(&mut self) -> Option<[usize; N]> {
        let mut rest = self.left.next()?;
        let mut at = self.loops.starts;
        for d in (0..RANK - 1).rev() {
            let i = rest % self.loops.dims[d];
            rest /= self.loops.dims[d];
            for (at, strides) in at.iter_mut().zip(&self.loops.strides) {
                *at += i * strides[d];
            }
        }
        Some(at)
    }
}

impl Loops<2> {
    /// Copies numbers of one buffer, the loops' second value, to another, their first.
    ///
    /// # Panics
    /// When they do not lie within.
    pub fn gather(&self, from: &[f32], to: &mut [f32]) {
        let (n, [o, x]) = self.last();
        for [to_start, start] in self.runs(Part::WHOLE) {
            (0..n).for_each(|i| to[to_start + i * o] = from[start + i * x]);
        }
    }
}

/// Numbers that are worked on at a time: a length known when compiled is what makes loops whole vectors.
const CHUNK: usize = 16;

/// e^x for x from -87 to 88, within two units in the last place: 2^n times a polynomial of the rest.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = super::simd::ROUND;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, so that the rest is exact
    let r = x - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    p * power
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // for small x the quotient would lose digits
    let (square, e) = (x * x, exp(-2.0 * x.abs()));
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    let near = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    if x.abs() < 0.1 { near } else { far }
}

/// tanh(ln(1 + e^x)), without the logarithm: with n = e^x (e^x + 2) it is n / (n + 2).
#[inline(always)]
fn mish(x: f32) -> f32 {
    let e = exp(x.min(20.0));
    let n = e * (e + 2.0);
    x * (n / (n + 2.0))
}

#[inline(always)]
fn softplus(x: f32) -> f32 {
    x.max(0.0) + libm::log1pf(exp(-x.abs()))
}

/// Something to every number. Parts are of the runs of numbers that lie together, or of the one that there is.
#[inline(always)]
pub(super) fn unary(f: Unary, loops: &Loops<2>, part: Part, memory: Memory) {
    assert!(loops.fits(0, memory.len()) && loops.fits(1, memory.len()));
    let root_half = std::f32::consts::FRAC_1_SQRT_2;
    match f {
        Unary::Copy => each(loops, part, memory, |x| x),
        Unary::Silu => each(loops, part, memory, |x| x * sigmoid(x)),
        Unary::Sigmoid => each(loops, part, memory, sigmoid),
        Unary::Tanh => each(loops, part, memory, tanh),
        Unary::Relu => each(loops, part, memory, |x| x.max(0.0)),
        Unary::Gelu => each(loops, part, memory, |x| 0.5 * x * libm::erfcf(-x * root_half)),
        Unary::GeluTanh => {
            let scale = (2.0 / std::f32::consts::PI).sqrt();
            // ½ (1 + tanh z) is the logistic function of 2 z
            each(loops, part, memory, |x| x * sigmoid(2.0 * scale * (x + 0.044_715 * x * x * x)))
        }
        Unary::Mish => each(loops, part, memory, mish),
        Unary::Softplus => each(loops, part, memory, softplus),
        Unary::Erf => each(loops, part, memory, libm::erff),
        // beyond the vectors' range it would be cut short
        Unary::Exp => each(loops, part, memory, libm::expf),
        Unary::Log => each(loops, part, memory, libm::logf),
        Unary::Sqrt => each(loops, part, memory, f32::sqrt),
        Unary::Square => each(loops, part, memory, |x| x * x),
        Unary::Cube => each(loops, part, memory, |x| x * x * x),
        Unary::Reciprocal => each(loops, part, memory, |x| 1.0 / x),
        Unary::Sin => each(loops, part, memory, libm::sinf),
        Unary::Cos => each(loops, part, memory, libm::cosf),
        Unary::Negate => each(loops, part, memory, |x| -x),
        Unary::Absolute => each(loops, part, memory, f32::abs),
        Unary::Floor => each(loops, part, memory, f32::floor),
        Unary::Truncate => each(loops, part, memory, f32::trunc),
        Unary::Clamp(least, most) => each(loops, part, memory, |x| x.max(least).min(most)),
    }
}

#[inline(always)]
fn each(loops: &Loops<2>, part: Part, memory: Memory, f: impl Fn(f32) -> f32) {
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, from]) = loops.last();
    let base = memory.arena();
    for [o, x] in loops.runs(part) {
        // SAFETY: the values lie within the memory; a chunk is read before it is written, since they may be one.
        unsafe {
            let mut i = 0;
            if (to, from) == (1, 1) {
                while i + CHUNK <= n {
                    let mut values: [f32; CHUNK] = base.add(x + i).cast::<[f32; CHUNK]>().read_unaligned();
                    for v in &mut values {
                        *v = f(*v);
                    }
                    base.add(o + i).cast::<[f32; CHUNK]>().write_unaligned(values);
                    i += CHUNK;
                }
            }
            while i < n {
                *base.add(o + i * to) = f(*base.add(x + i * from));
                i += 1;
            }
        }
    }
}

/// Something of every two numbers. Parts are of the runs of numbers that lie together, or of the one that there is.
#[inline(always)]
pub(super) fn binary(f: Binary, loops: &Loops<3>, part: Part, memory: Memory) {
    assert!((0..3).all(|v| loops.fits(v, memory.len())));
    match f {
        Binary::Add => both(loops, part, memory, |a, b| a + b),
        Binary::Subtract => both(loops, part, memory, |a, b| a - b),
        Binary::Multiply => both(loops, part, memory, |a, b| a * b),
        Binary::Divide => both(loops, part, memory, |a, b| a / b),
        Binary::Least => both(loops, part, memory, f32::min),
        Binary::Greatest => both(loops, part, memory, f32::max),
    }
}

#[inline(always)]
fn both(loops: &Loops<3>, part: Part, memory: Memory, f: impl Fn(f32, f32) -> f32) {
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, sa, sb]) = loops.last();
    let base = memory.arena();
    for [o, a, b] in loops.runs(part) {
        // SAFETY: as in `each`.
        unsafe {
            let mut i = 0;
            if to == 1 && sa <= 1 && sb <= 1 {
                let chunk = |at: usize, stride: usize| -> [f32; CHUNK] {
                    if stride == 1 {
                        base.add(at).cast::<[f32; CHUNK]>().read_unaligned()
                    } else {
                        [*base.add(at); CHUNK]
                    }
                };
                while i + CHUNK <= n {
                    let (mut x, y) = (chunk(a + i * sa, sa), chunk(b + i * sb, sb));
                    for (x, y) in x.iter_mut().zip(y) {
                        *x = f(*x, y);
                    }
                    base.add(o + i).cast::<[f32; CHUNK]>().write_unaligned(x);
                    i += CHUNK;
                }
            }
            while i < n {
                *base.add(o + i * to) = f(*base.add(a + i * sa), *base.add(b + i * sb));
                i += 1;
            }
        }
    }
}

/// Sums or means: the result's stride is 0 where numbers are made one.
#[inline(always)]
pub(super) fn reduce(f: Reduction, loops: &Loops<2>, out: &Loops<1>, memory: Memory) {
    assert!(loops.fits(0, memory.len()) && loops.fits(1, memory.len()) && out.fits(0, memory.len()));
    let (n, [to, from]) = loops.last();
    let base = memory.arena();
    let factor = if f == Reduction::Mean { out.len() as f32 / loops.len() as f32 } else { 1.0 };
    let each_result = |f: &dyn Fn(f32) -> f32| {
        let (n, [step]) = out.last();
        for [at] in out.runs(Part::WHOLE) {
            // SAFETY: the values lie within the memory.
            (0..n).for_each(|i| unsafe { *base.add(at + i * step) = f(*base.add(at + i * step)) });
        }
    };
    each_result(&|_| 0.0);
    for [o, x] in loops.runs(Part::WHOLE) {
        // SAFETY: as above.
        unsafe {
            if to == 0 {
                let mut sums = [0f32; CHUNK];
                for i in 0..n {
                    sums[i % CHUNK] += *base.add(x + i * from);
                }
                *base.add(o) += sums.iter().sum::<f32>();
            } else {
                (0..n).for_each(|i| *base.add(o + i * to) += *base.add(x + i * from));
            }
        }
    }
    each_result(&|sum| sum * factor);
}

/// What is done to each row of numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// e^x over its sum.
    Softmax,
    /// The mean taken away, over the standard deviation, times a scale plus a shift.
    Layer { epsilon: f32, scale: Vec<f32>, shift: Vec<f32> },
}

/// Something to each run of `length` numbers that lie together. Parts are of the runs.
#[inline(always)]
pub(super) fn rows(f: &Rows, loops: &Loops<2>, length: usize, part: Part, memory: Memory) {
    // the loops are over the rows' first numbers; the others follow them
    let left = length.checked_sub(1).and_then(|rest| memory.len().checked_sub(rest));
    assert!(left.is_some_and(|left| loops.fits(0, left) && loops.fits(1, left)));
    let (loops, part) = loops.part(part, 1);
    let (n, [to, from]) = loops.last();
    let base = memory.arena();
    for [o, x] in loops.runs(part) {
        for i in 0..n {
            // SAFETY: the assertion; input and result are different values, or the same.
            let out = unsafe {
                let o = base.add(o + i * to);
                std::ptr::copy(base.add(x + i * from), o, length);
                std::slice::from_raw_parts_mut(o, length)
            };
            match f {
                Rows::Softmax => {
                    let greatest = out.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
                    for v in &mut *out {
                        *v = exp(*v - greatest);
                    }
                    let total = 1.0 / sum(out, |v| v);
                    for v in out {
                        *v *= total;
                    }
                }
                Rows::Layer { epsilon, scale, shift } => {
                    let mean = sum(out, |v| v) / length as f32;
                    let variance = sum(out, |v| (v - mean) * (v - mean)) / length as f32;
                    let root = 1.0 / (variance + epsilon).sqrt();
                    for ((v, a), b) in out.iter_mut().zip(scale).zip(shift) {
                        *v = (*v - mean) * root * a + b;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    let mut sums = [0f32; CHUNK];
    for chunk in chunks {
        for (sum, v) in sums.iter_mut().zip(chunk) {
            *sum += f(*v);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|v| f(*v)).sum::<f32>()
}

/// Products of matrices, one for each index of the batch: where those of the result, of the first and of the second
/// factor start is looped over, and their strides by row and column are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub batch: Loops<3>,
    /// Rows of the result, columns of it, and what is summed over.
    pub sizes: [usize; 3],
    /// For the result, the first and the second factor: from a row to the next, and from a column to the next.
    pub strides: [[usize; 2]; 3],
}

/// Rows of the result that are worked out together.
const TOGETHER: usize = 4;

impl Product {
    /// The numbers that it works with.
    pub fn work_len(&self) -> usize {
        self.sizes[2] * self.sizes[1].next_multiple_of(CHUNK)
    }
}

/// Multiplies matrices. Parts are of the rows of each.
#[inline(always)]
pub(super) fn product(p: &Product, part: Part, work: &mut [f32], memory: Memory) {
    let [rows, columns, inner] = p.sizes;
    let ends = |v: usize, [r, c]: [usize; 2]| {
        let [row, column] = p.strides[v];
        r.checked_sub(1)?.checked_mul(row)?.checked_add(c.checked_sub(1)?.checked_mul(column)?)
    };
    for (v, size) in [[rows, columns], [rows, inner], [inner, columns]].into_iter().enumerate() {
        let left = ends(v, size).and_then(|ends| memory.len().checked_sub(ends));
        assert!(left.is_some_and(|left| p.batch.fits(v, left)));
    }
    let width = columns.next_multiple_of(CHUNK);
    let packed = &mut work[..inner * width];
    let base = memory.arena();
    let (n, steps) = p.batch.last();
    let mine = part.range(rows.div_ceil(TOGETHER));
    if mine.is_empty() {
        return;
    }
    for starts in p.batch.runs(Part::WHOLE) {
        for i in 0..n {
            let [o, a, b]: [usize; 3] = std::array::from_fn(|v| starts[v] + i * steps[v]);
            // SAFETY: the assertions.
            unsafe {
                for (k, line) in packed.chunks_exact_mut(width).enumerate() {
                    let from = base.add(b + k * p.strides[2][0]);
                    for (c, v) in line[..columns].iter_mut().enumerate() {
                        *v = *from.add(c * p.strides[2][1]);
                    }
                    line[columns..].fill(0.0);
                }
                for first in mine.clone().map(|i| i * TOGETHER) {
                    // the last row stands in for those beyond it
                    let row: [usize; TOGETHER] = std::array::from_fn(|r| (first + r).min(rows - 1));
                    for column in (0..columns).step_by(CHUNK) {
                        let mut sums = [[0f32; CHUNK]; TOGETHER];
                        for (k, line) in packed.chunks_exact(width).enumerate() {
                            let line: &[f32; CHUNK] = line[column..column + CHUNK].try_into().expect("whole chunks");
                            for (sums, row) in sums.iter_mut().zip(row) {
                                let x = *base.add(a + row * p.strides[1][0] + k * p.strides[1][1]);
                                for (sum, v) in sums.iter_mut().zip(line) {
                                    *sum += x * v;
                                }
                            }
                        }
                        for (sums, row) in sums.iter().zip(row) {
                            let to = base.add(o + row * p.strides[0][0]);
                            let used = (columns - column).min(CHUNK);
                            for (c, sum) in sums[..used].iter().enumerate() {
                                *to.add((column + c) * p.strides[0][1]) = *sum;
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::arena::Place;
    use crate::tests::Noise;

    fn loops<const N: usize>(places: [&Place; N]) -> Loops<N> {
        Loops::new(&places[0].dims, places.map(|p| (p.start, p.strides.as_slice()))).unwrap()
    }

    /// Every number of a place, in the order of its indices.
    fn read(place: &Place, memory: &[f32]) -> Vec<f32> {
        let mut all = vec![place.start];
        for (d, s) in place.dims.iter().zip(&place.strides) {
            all = all.iter().flat_map(|at| (0..*d).map(move |i| at + i * s)).collect();
        }
        all.into_iter().map(|at| memory[at]).collect()
    }

    fn noisy(len: usize) -> Vec<f32> {
        let mut memory = vec![0.0; len];
        Noise::new(3, 1).fill(&mut memory);
        memory
    }

    #[test]
    fn functions_are_close_to_the_exact_ones() {
        let erf = |x: f64| libm::erf(x);
        let cases: [(Unary, &dyn Fn(f64) -> f64); 10] = [
            (Unary::Silu, &|x| x / (1.0 + (-x).exp())),
            (Unary::Sigmoid, &|x| 1.0 / (1.0 + (-x).exp())),
            (Unary::Tanh, &f64::tanh),
            (Unary::Mish, &|x| x * x.exp().ln_1p().tanh()),
            (Unary::Softplus, &|x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            (Unary::Gelu, &|x| 0.5 * x * libm::erfc(-x / 2f64.sqrt())),
            (Unary::GeluTanh, &|x| {
                x / (1.0 + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).exp())
            }),
            (Unary::Erf, &erf),
            (Unary::Exp, &f64::exp),
            (Unary::Clamp(-0.5, 0.25), &|x| x.clamp(-0.5, 0.25)),
        ];
        let x: Vec<f32> = (-3000..3000).map(|i| i as f32 / 100.0).collect();
        for isa in Isa::available() {
            for (f, exact) in &cases {
                let mut memory = [x.clone(), vec![0.0; x.len()]].concat();
                let (from, to) = (Place::row_major(0, &[x.len()]), Place::row_major(x.len(), &[x.len()]));
                for index in 0..3 {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::unary(isa, *f, &loops([&to, &from]), Part { index, of: 3 }, m);
                }
                for (x, y) in x.iter().zip(&memory[x.len()..]) {
                    let exact = exact(f64::from(*x));
                    let bound = 2e-6 * exact.abs() + 1e-7;
                    assert!((f64::from(*y) - exact).abs() <= bound, "{isa:?} {f:?} {x}: {y}, {exact}");
                }
            }
        }
    }

    #[test]
    fn strides_broadcasts_and_parts_are_right() {
        // a picture with channels last and a row of 3 more, a vector over channels, and a transposed one
        let a = Place { start: 5, dims: vec![1, 20, 3, 4], strides: vec![0, 1, 92, 22], border: [0, 0] };
        let b = Place { start: 700, dims: vec![1, 20, 3, 4], strides: vec![0, 1, 0, 0], border: [0, 0] };
        let o = Place::row_major(800, &[1, 20, 3, 4]);
        let before = noisy(1100);
        let (x, y) = (read(&a, &before), read(&b, &before));
        for isa in Isa::available() {
            for of in [1, 2, 5] {
                let mut memory = before.clone();
                for index in 0..of {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::binary(isa, Binary::Subtract, &loops([&o, &a, &b]), Part { index, of }, m);
                }
                let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
                assert_eq!(read(&o, &memory), expected, "{isa:?}");
                // in place
                for index in 0..of {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::binary(isa, Binary::Multiply, &loops([&a, &a, &b]), Part { index, of }, m);
                }
                let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x * y).collect();
                assert_eq!(read(&a, &memory), expected, "{isa:?}");
            }
        }
    }

    #[test]
    fn reductions_and_rows_are_right() {
        let x = Place { start: 3, dims: vec![2, 5, 37], strides: vec![300, 40, 1], border: [0, 0] };
        let before = noisy(1200);
        let values = read(&x, &before);
        for isa in Isa::available() {
            // over the first and last dimension
            let mut memory = before.clone();
            let out = Place::row_major(700, &[1, 5, 1]);
            let wide = Place { strides: vec![0, 1, 0], dims: x.dims.clone(), ..out.clone() };
            let all = loops([&wide, &x]);
            crate::reduce(isa, Reduction::Mean, &all, &loops([&out]), Memory::new(&mut memory, &mut []));
            for (i, mean) in read(&out, &memory).into_iter().enumerate() {
                let of = |b: usize| values[(b * 5 + i) * 37..][..37].iter().map(|v| f64::from(*v)).sum::<f64>();
                assert!((f64::from(mean) - (of(0) + of(1)) / 74.0).abs() < 1e-6);
            }
            let out = Place::row_major(700, &[2, 5, 37]);
            let first = |p: &Place| Place { dims: vec![2, 5], strides: p.strides[..2].to_vec(), ..p.clone() };
            let (scale, shift) = ((0..37).map(|i| i as f32).collect::<Vec<_>>(), vec![0.5; 37]);
            for f in [Rows::Softmax, Rows::Layer { epsilon: 1e-5, scale: scale.clone(), shift }] {
                let mut memory = before.clone();
                let m = Memory::new(&mut memory, &mut []);
                for index in 0..2 {
                    crate::rows(isa, &f, &loops([&first(&out), &first(&x)]), 37, Part { index, of: 2 }, m);
                }
                for (x, y) in values.chunks(37).zip(read(&out, &memory).chunks(37)) {
                    let x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                    let mean = x.iter().sum::<f64>() / 37.0;
                    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 37.0;
                    let total: f64 = x.iter().map(|v| v.exp()).sum();
                    for (i, (x, y)) in x.iter().zip(y).enumerate() {
                        let exact = match f {
                            Rows::Softmax => x.exp() / total,
                            _ => (x - mean) / (variance + 1e-5).sqrt() * i as f64 + 0.5,
                        };
                        assert!((f64::from(*y) - exact).abs() < 1e-5 * exact.abs().max(1.0), "{isa:?} {f:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_right() {
        let before = noisy(4000);
        // the second factor transposed, and one of the first for all
        let a = Place { start: 1, dims: vec![3, 7, 19], strides: vec![0, 25, 1], border: [0, 0] };
        let b = Place { start: 300, dims: vec![3, 19, 21], strides: vec![500, 1, 20], border: [0, 0] };
        let o = Place::row_major(3000, &[3, 7, 21]);
        let head = |p: &Place| Place { dims: vec![3], strides: vec![p.strides[0]], ..p.clone() };
        let product = Product {
            batch: loops([&head(&o), &head(&a), &head(&b)]),
            sizes: [7, 21, 19],
            strides: [&o, &a, &b].map(|p| [p.strides[1], p.strides[2]]),
        };
        let (x, y) = (read(&a, &before), read(&b, &before));
        for isa in Isa::available() {
            let mut memory = before.clone();
            let mut work = vec![f32::NAN; product.work_len()];
            for index in 0..2 {
                let part = Part { index, of: 2 };
                crate::product(isa, &product, part, &mut work, Memory::new(&mut memory, &mut []));
            }
            for (i, got) in read(&o, &memory).into_iter().enumerate() {
                let (n, r, c) = (i / 147, i / 21 % 7, i % 21);
                let term = |k: usize| f64::from(x[(n * 7 + r) * 19 + k]) * f64::from(y[(n * 19 + k) * 21 + c]);
                let exact: f64 = (0..19).map(term).sum();
                assert!((f64::from(got) - exact).abs() < 1e-5, "{isa:?} {i}");
            }
        }
    }
}
