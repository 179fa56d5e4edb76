//! What works on values of any shape and strides, in plain loops that compilers turn into vectors: each is inlined into
//! an entry point that enables the CPU's features.

use super::memory::{Memory, Part};
use super::pointer::{Source, Target};
use super::simd::{Simd, WIDEST};
use crate::arena::apart;

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
    Ceil,
    Truncate,
    /// To the nearest whole number, ties to even.
    Round,
    Clamp(f32, f32),
    /// -1, 0 or 1.
    Sign,
    /// α (eˣ - 1) below 0.
    Elu(f32),
    /// α (e^(x/α) - 1) below 0.
    Celu(f32),
    /// γ α (eˣ - 1) below 0, and γ x from there.
    Selu(f32, f32),
    /// α x below 0.
    LeakyRelu(f32),
    /// 0 up to α.
    ThresholdedRelu(f32),
    /// α x + β within 0 to 1.
    HardSigmoid(f32, f32),
    /// x times x / 6 + 1/2 within 0 to 1.
    HardSwish,
    Softsign,
    /// The bias taken from what is greater than λ, added to what is less than -λ, and 0 between them.
    Shrink {
        bias: f32,
        lambda: f32,
    },
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    /// 1 for what is no number.
    IsNan,
    /// 1 for what is infinite: above, and below, if that is asked for.
    IsInf {
        above: bool,
        below: bool,
    },
    /// 1 for 0, and 0 for all else.
    Not,
    /// 0 for 0, and 1 for all else.
    Truth,
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
    Power,
    /// The remainder of a division, with the sign of the first number.
    Remainder,
    /// The product where the first number is below 0, else the first.
    PRelu,
    /// 1 where it holds, 0 where not.
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

/// The most dimensions that loops have, once those that lie together are one.
pub const RANK: usize = 6;

/// StridedLoops over the numbers of N values of one shape, the first being the result; a stride may be 0.
///
/// All numbers that they visit have places that a `usize` can count. Whether these lie in a certain buffer is for the
/// kernels to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StridedLoops<const N: usize> {
    starts: [usize; N],
    dims: [usize; RANK],
    strides: [[usize; RANK]; N],
}

impl<const N: usize> StridedLoops<N> {
    /// Over `dims`, with a start and strides for each value; `None` if that takes more loops than there are, if a value
    /// has not as many strides, or if its last number lies further than can be counted.
    pub fn new(dims: &[usize], values: [(usize, &[usize]); N]) -> Option<Self> {
        if values.iter().any(|(_, strides)| strides.len() != dims.len()) {
            return None;
        }
        let mut order: Vec<usize> = (0..dims.len()).filter(|d| dims[*d] != 1).collect();
        // the result's numbers that lie together come last
        order.sort_by_key(|d| std::cmp::Reverse(values.first().map(|v| v.1[*d])));
        let mut merged: Vec<(usize, [usize; N])> = Vec::new();
        for d in order {
            let strides: [usize; N] = values.map(|(_, s)| s[d]);
            match merged.last_mut() {
                Some((n, outer)) if (0..N).all(|v| strides[v].checked_mul(dims[d]) == Some(outer[v])) => {
                    *n = n.checked_mul(dims[d])?;
                    *outer = strides;
                }
                _ => merged.push((dims[d], strides)),
            }
        }
        let first = RANK.checked_sub(merged.len())?;
        let mut loops = StridedLoops { starts: values.map(|v| v.0), dims: [1; RANK], strides: [[0; RANK]; N] };
        for (i, (n, strides)) in merged.into_iter().enumerate() {
            loops.dims[first + i] = n;
            (0..N).for_each(|v| loops.strides[v][first + i] = strides[v]);
        }
        loops.counted()
    }

    /// Where each value starts.
    pub fn starts(&self) -> [usize; N] {
        self.starts
    }

    /// The same loops with values that start elsewhere; none if one then reaches further than can be counted.
    pub fn with_starts(mut self, starts: [usize; N]) -> Option<Self> {
        self.starts = starts;
        self.counted()
    }

    /// These loops, if all that they visit can be counted.
    fn counted(self) -> Option<Self> {
        self.dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        (0..N).all(|v| self.end(v).is_some()).then_some(self)
    }

    /// The dimensions, and for each value where it starts and its strides.
    pub fn parts(&self) -> ([usize; RANK], [(usize, [usize; RANK]); N]) {
        (self.dims, std::array::from_fn(|v| (self.starts[v], self.strides[v])))
    }

    /// StridedLoops over these dimensions, with a start and strides for each value; `None` if a value's last number lies further
    /// than can be counted.
    pub fn from_parts(dims: [usize; RANK], values: [(usize, [usize; RANK]); N]) -> Option<Self> {
        StridedLoops { starts: values.map(|v| v.0), dims, strides: values.map(|v| v.1) }.counted()
    }

    /// How many numbers the result has.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// One past the last number of value `v`, or 0 if there is none; none if it cannot be counted.
    pub(super) fn end(&self, v: usize) -> Option<usize> {
        if self.dims.contains(&0) {
            return Some(0);
        }
        let mut sides = self.dims.iter().zip(&self.strides[v]);
        let last = sides.try_fold(self.starts[v], |at, (d, s)| at.checked_add((d - 1).checked_mul(*s)?))?;
        last.checked_add(1).filter(|end| *end <= isize::MAX as usize)
    }

    /// Whether value `v` lies within a buffer of `len` numbers.
    pub(super) fn fits(&self, v: usize, len: usize) -> bool {
        self.end(v).is_some_and(|end| end <= len)
    }

    /// Whether no number of the result lies where another one does, where each is a run of `length` numbers: threads may
    /// then each write some of them.
    pub(super) fn is_apart(&self, length: usize) -> bool {
        let mut sides = [(1, length); RANK + 1];
        for (side, (stride, n)) in sides.iter_mut().zip(self.strides[0].iter().zip(&self.dims)) {
            *side = (*stride, *n);
        }
        self.dims.contains(&0) || apart(sides)
    }

    /// The loops, and which part of their runs, that make this part: where there is but one run, some of its numbers,
    /// in groups of `together`.
    #[inline(always)]
    pub(super) fn part(&self, part: Part, together: usize) -> (Self, Part) {
        let n = self.dims[RANK - 1];
        if part.is_whole() || self.dims[..RANK - 1].iter().any(|d| *d != 1) {
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
    pub(super) fn runs(&self, part: Part) -> Runs<'_, N> {
        let left = part.range(self.dims[..RANK - 1].iter().product());
        // where the first run of the part is
        let (mut rest, mut index, mut at) = (left.start, [0; RANK - 1], self.starts);
        for d in (0..RANK - 1).rev().filter(|d| self.dims[*d] > 0) {
            index[d] = rest % self.dims[d];
            rest /= self.dims[d];
            for (at, strides) in at.iter_mut().zip(&self.strides) {
                *at += index[d] * strides[d];
            }
        }
        Runs { loops: self, left: left.len(), index, at }
    }

    pub(super) fn last(&self) -> (usize, [usize; N]) {
        (self.dims[RANK - 1], std::array::from_fn(|v| self.strides[v][RANK - 1]))
    }
}

/// See [`StridedLoops::runs`]. Not a function that calls a closure: one that is not compiled into its caller lacks the CPU's
/// features.
pub(super) struct Runs<'a, const N: usize> {
    loops: &'a StridedLoops<N>,
    left: usize,
    index: [usize; RANK - 1],
    at: [usize; N],
}

impl<const N: usize> Iterator for Runs<'_, N> {
    type Item = [usize; N];

    #[inline(always)]
    fn next(&mut self) -> Option<[usize; N]> {
        self.left = self.left.checked_sub(1)?;
        let now = self.at;
        if self.left == 0 {
            return Some(now);
        }
        // on to the next index, as a counter goes on: mostly in the last of its places
        const LAST: usize = RANK - 2;
        self.index[LAST] += 1;
        if self.index[LAST] < self.loops.dims[LAST] {
            for (at, strides) in self.at.iter_mut().zip(&self.loops.strides) {
                *at += strides[LAST];
            }
        } else {
            self.carry();
        }
        Some(now)
    }
}

impl<const N: usize> Runs<'_, N> {
    /// Goes on to the next index where the last of its places is full.
    #[inline(never)]
    fn carry(&mut self) {
        for d in (0..RANK - 1).rev() {
            if d < RANK - 2 {
                self.index[d] += 1;
            }
            if self.index[d] < self.loops.dims[d] {
                break;
            }
            self.index[d] = 0;
        }
        for (v, at) in self.at.iter_mut().enumerate() {
            let strides = &self.loops.strides[v];
            *at = self.loops.starts[v] + self.index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>();
        }
    }
}

impl StridedLoops<2> {
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

/// 1 - erf(x), within 3e-6 of itself: e^(-x²) times a polynomial of t = 1 / (1 + |x| / 2), whose greatest relative error up to
/// 23 is least among those of this degree without a constant: 9.8e-8.
#[inline(always)]
fn erfc(x: f32) -> f32 {
    const POLYNOMIAL: [f32; 9] = [
        -0.055_672_098,
        0.270_122_9,
        -0.461_623_5,
        0.253_671_7,
        -0.013_046_183,
        0.198_228_31,
        0.243_932_08,
        0.282_297_8,
        0.282_089_08,
    ];
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let mut p = 0.0;
    for c in POLYNOMIAL {
        p = p * t + c;
    }
    let of_positive = p * t * exp(-x * x);
    if x < 0.0 { 2.0 - of_positive } else { of_positive }
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
pub(super) fn unary(f: Unary, loops: &StridedLoops<2>, part: Part, memory: Memory) {
    assert!(loops.fits(0, memory.len()) && loops.fits(1, memory.len()) && loops.is_apart(1));
    let root_half = std::f32::consts::FRAC_1_SQRT_2;
    match f {
        Unary::Copy => each(loops, part, memory, |x| x),
        Unary::Silu => each(loops, part, memory, |x| x * sigmoid(x)),
        Unary::Sigmoid => each(loops, part, memory, sigmoid),
        Unary::Tanh => each(loops, part, memory, tanh),
        // what is no number stays so
        Unary::Relu => each(loops, part, memory, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::Gelu => each(loops, part, memory, |x| 0.5 * x * erfc(-x * root_half)),
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
        Unary::Ceil => each(loops, part, memory, f32::ceil),
        Unary::Round => each(loops, part, memory, f32::round_ties_even),
        _ => more(f, loops, part, memory),
    }
}

/// As [`unary`], the less common functions, of loops that it has checked.
#[inline(always)]
fn more(f: Unary, loops: &StridedLoops<2>, part: Part, memory: Memory) {
    let truth = |v: bool| if v { 1.0 } else { 0.0 };
    match f {
        Unary::Truncate => each(loops, part, memory, f32::trunc),
        Unary::Clamp(least, most) => each(loops, part, memory, |x| {
            let x = if x < least { least } else { x };
            if x > most { most } else { x }
        }),
        // what is no number stays so
        Unary::Sign => each(loops, part, memory, |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x * 0.0
            }
        }),
        Unary::Elu(a) => each(loops, part, memory, |x| if x < 0.0 { a * libm::expm1f(x) } else { x }),
        Unary::Celu(a) => each(loops, part, memory, |x| if x < 0.0 { a * libm::expm1f(x / a) } else { x }),
        Unary::Selu(a, g) => each(loops, part, memory, |x| g * if x < 0.0 { a * libm::expm1f(x) } else { x }),
        Unary::LeakyRelu(a) => each(loops, part, memory, |x| if x < 0.0 { a * x } else { x }),
        Unary::ThresholdedRelu(a) => each(loops, part, memory, |x| if x > a { x } else { 0.0 }),
        Unary::HardSigmoid(a, b) => each(loops, part, memory, |x| (a * x + b).clamp(0.0, 1.0)),
        Unary::HardSwish => each(loops, part, memory, |x| x * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0)),
        Unary::Softsign => each(loops, part, memory, |x| x / (1.0 + x.abs())),
        Unary::Shrink { bias, lambda } => each(loops, part, memory, |x| {
            if x < -lambda {
                x + bias
            } else if x > lambda {
                x - bias
            } else {
                x * 0.0
            }
        }),
        Unary::Tan => each(loops, part, memory, libm::tanf),
        Unary::Asin => each(loops, part, memory, libm::asinf),
        Unary::Acos => each(loops, part, memory, libm::acosf),
        Unary::Atan => each(loops, part, memory, libm::atanf),
        Unary::Sinh => each(loops, part, memory, libm::sinhf),
        Unary::Cosh => each(loops, part, memory, libm::coshf),
        Unary::Asinh => each(loops, part, memory, libm::asinhf),
        // below 1 there is none, whatever libm makes of it
        Unary::Acosh => each(loops, part, memory, |x| if x < 1.0 { f32::NAN } else { libm::acoshf(x) }),
        Unary::Atanh => each(loops, part, memory, libm::atanhf),
        Unary::IsNan => each(loops, part, memory, |x| truth(x.is_nan())),
        Unary::IsInf { above, below } => {
            each(loops, part, memory, |x| truth((above && x == f32::INFINITY) || (below && x == f32::NEG_INFINITY)))
        }
        Unary::Not => each(loops, part, memory, |x| truth(x == 0.0)),
        Unary::Truth => each(loops, part, memory, |x| truth(x != 0.0)),
        // `unary` has all others
        _ => unreachable!("{f:?}"),
    }
}

#[inline(always)]
fn each(loops: &StridedLoops<2>, part: Part, memory: Memory, f: impl Fn(f32) -> f32) {
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, from]) = loops.last();
    let base = memory.arena();
    for [o, x] in loops.runs(part) {
        let mut i = 0;
        if (to, from) == (1, 1) {
            while i + CHUNK <= n {
                // SAFETY: `unary` made sure that the values lie within the memory. A chunk is read before it is written,
                // since the values may be one.
                let mut values: [f32; CHUNK] = unsafe { base.source().load(x + i) };
                for v in &mut values {
                    *v = f(*v);
                }
                // SAFETY: as above; other parts write elsewhere.
                unsafe { base.store(o + i, values) }
                i += CHUNK;
            }
        }
        while i < n {
            // SAFETY: as above.
            let v = unsafe { base.source().load(x + i * from) };
            // SAFETY: as above.
            unsafe { base.store(o + i * to, f(v)) }
            i += 1;
        }
    }
}

/// Something of every two numbers. Parts are of the runs of numbers that lie together, or of the one that there is.
#[inline(always)]
pub(super) fn binary(f: Binary, loops: &StridedLoops<3>, part: Part, memory: Memory) {
    assert!((0..3).all(|v| loops.fits(v, memory.len())) && loops.is_apart(1));
    let truth = |v: bool| if v { 1.0 } else { 0.0 };
    match f {
        Binary::Add => both(loops, part, memory, |a, b| a + b),
        Binary::Subtract => both(loops, part, memory, |a, b| a - b),
        Binary::Multiply => both(loops, part, memory, |a, b| a * b),
        Binary::Divide => both(loops, part, memory, |a, b| a / b),
        Binary::Least => both(loops, part, memory, |a, b| if a < b || a.is_nan() { a } else { b }),
        Binary::Greatest => both(loops, part, memory, |a, b| if a > b || a.is_nan() { a } else { b }),
        Binary::Power => both(loops, part, memory, libm::powf),
        Binary::Remainder => both(loops, part, memory, libm::fmodf),
        Binary::PRelu => both(loops, part, memory, |a, b| if a < 0.0 { a * b } else { a }),
        Binary::Equal => both(loops, part, memory, |a, b| truth(a == b)),
        Binary::Less => both(loops, part, memory, |a, b| truth(a < b)),
        Binary::LessOrEqual => both(loops, part, memory, |a, b| truth(a <= b)),
        Binary::Greater => both(loops, part, memory, |a, b| truth(a > b)),
        Binary::GreaterOrEqual => both(loops, part, memory, |a, b| truth(a >= b)),
        Binary::And => both(loops, part, memory, |a, b| truth(a != 0.0 && b != 0.0)),
        Binary::Or => both(loops, part, memory, |a, b| truth(a != 0.0 || b != 0.0)),
        Binary::Xor => both(loops, part, memory, |a, b| truth((a != 0.0) != (b != 0.0))),
    }
}

/// The number of the third value where that of the second is not 0, else that of the fourth. Parts are of the runs of numbers
/// that lie together, or of the one that there is.
#[inline(always)]
pub(super) fn choose(loops: &StridedLoops<4>, part: Part, memory: Memory) {
    assert!((0..4).all(|v| loops.fits(v, memory.len())) && loops.is_apart(1));
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, test, a, b]) = loops.last();
    let (base, from) = (memory.arena(), memory.arena().source());
    for [o, t, x, y] in loops.runs(part) {
        for i in 0..n {
            // SAFETY: the assertion.
            let chosen: f32 = unsafe { from.load(t + i * test) };
            // SAFETY: the assertion.
            let v: f32 = unsafe { from.load(if chosen != 0.0 { x + i * a } else { y + i * b }) };
            // SAFETY: the assertion; other parts write elsewhere.
            unsafe { base.store(o + i * to, v) }
        }
    }
}

#[inline(always)]
fn both(loops: &StridedLoops<3>, part: Part, memory: Memory, f: impl Fn(f32, f32) -> f32) {
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, sa, sb]) = loops.last();
    let base = memory.arena();
    for [o, a, b] in loops.runs(part) {
        let mut i = 0;
        if to == 1 && sa <= 1 && sb <= 1 {
            while i + CHUNK <= n {
                // SAFETY: `binary` made sure that the values lie within the memory.
                let mut x = unsafe { chunk(base.source(), a + i * sa, sa) };
                // SAFETY: as above.
                let y = unsafe { chunk(base.source(), b + i * sb, sb) };
                for (x, y) in x.iter_mut().zip(y) {
                    *x = f(*x, y);
                }
                // SAFETY: as above; other parts write elsewhere.
                unsafe { base.store(o + i, x) }
                i += CHUNK;
            }
        }
        while i < n {
            // SAFETY: as above.
            let x = unsafe { base.source().load(a + i * sa) };
            // SAFETY: as above.
            let y = unsafe { base.source().load(b + i * sb) };
            // SAFETY: as above.
            unsafe { base.store(o + i * to, f(x, y)) }
            i += 1;
        }
    }
}

/// A chunk of numbers from `at` on, or of the one there if the stride is 0.
///
/// # Safety
/// They must be there.
#[inline(always)]
unsafe fn chunk(from: Source<f32>, at: usize, stride: usize) -> [f32; CHUNK] {
    if stride == 1 {
        // SAFETY: the caller's promise.
        unsafe { from.load(at) }
    } else {
        // SAFETY: the caller's promise.
        [unsafe { from.load(at) }; CHUNK]
    }
}

/// What is done to each row of numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum RowOp {
    /// e^x over its sum.
    Softmax,
    /// The logarithm of that.
    LogSoftmax,
    /// The mean taken away, over the standard deviation, times a scale plus a shift.
    LayerNorm { epsilon: f32, scale: Vec<f32>, shift: Vec<f32> },
    /// Over the root of the mean of squares, times a scale (arXiv 1910.07467).
    RmsNorm { epsilon: f32, scale: Vec<f32> },
    /// Over the root of the sum of squares, or over `least` if that is greater, times a scale.
    L2Norm { least: f32, scale: Vec<f32> },
}

impl RowOp {
    /// Whether there are as many weights as a row of `length` numbers needs.
    pub fn fits(&self, length: usize) -> bool {
        match self {
            RowOp::Softmax | RowOp::LogSoftmax => true,
            RowOp::LayerNorm { scale, shift, .. } => scale.len() == length && shift.len() == length,
            RowOp::RmsNorm { scale, .. } | RowOp::L2Norm { scale, .. } => scale.len() == length,
        }
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        match self {
            RowOp::Softmax | RowOp::LogSoftmax => 0,
            RowOp::LayerNorm { scale, shift, .. } => 4 * (scale.len() + shift.len()),
            RowOp::RmsNorm { scale, .. } | RowOp::L2Norm { scale, .. } => 4 * scale.len(),
        }
    }
}

/// Something to each run of `length` numbers that lie together. Parts are of the runs.
#[inline(always)]
pub(super) fn rows(f: &RowOp, loops: &StridedLoops<2>, length: usize, part: Part, memory: Memory) {
    // the loops are over the rows' first numbers; the others follow them
    let left = length.checked_sub(1).and_then(|rest| memory.len().checked_sub(rest));
    assert!(left.is_some_and(|left| loops.fits(0, left) && loops.fits(1, left)) && loops.is_apart(length));
    assert!(f.fits(length));
    let (loops, part) = loops.part(part, 1);
    let (n, [to, from]) = loops.last();
    let base = memory.arena();
    for [o, x] in loops.runs(part) {
        for i in 0..n {
            let o = o + i * to;
            // SAFETY: the assertion; other parts write other rows.
            unsafe { base.copy_within(x + i * from, o, length) };
            // SAFETY: as above; nothing else uses the row until the next one.
            let out = unsafe { base.slice(o, length) };
            match f {
                RowOp::Softmax => {
                    let greatest = out.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
                    for v in &mut *out {
                        *v = exp(*v - greatest);
                    }
                    let total = 1.0 / sum(out, |v| v);
                    for v in out {
                        *v *= total;
                    }
                }
                RowOp::LogSoftmax => {
                    let greatest = out.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
                    let total = greatest + libm::logf(sum(out, |v| exp(v - greatest)));
                    for v in out {
                        *v -= total;
                    }
                }
                RowOp::RmsNorm { epsilon, scale } => {
                    let root = 1.0 / (sum(out, |v| v * v) / length as f32 + epsilon).sqrt();
                    for (v, a) in out.iter_mut().zip(scale) {
                        *v = *v * root * a;
                    }
                }
                RowOp::L2Norm { least, scale } => {
                    let norm = sum(out, |v| v * v).sqrt();
                    // what is no number stays so
                    let share = 1.0 / if norm < *least { *least } else { norm };
                    for (v, a) in out.iter_mut().zip(scale) {
                        *v = *v * share * a;
                    }
                }
                RowOp::LayerNorm { epsilon, scale, shift } => {
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
pub struct MatMul {
    batch: StridedLoops<3>,
    sizes: [usize; 3],
    strides: [[usize; 2]; 3],
    /// From the first to the last number of each matrix.
    reach: [usize; 3],
}

/// Rows of the result that are worked out together.
const TOGETHER: usize = 4;

impl MatMul {
    /// Products of `sizes`: rows of the result, columns of it, and what is summed over. `strides` are, for the result, the
    /// first and the second factor, from a row to the next, and from a column to the next. None if a matrix is empty, if
    /// it lies further than can be counted, or if numbers of the result would lie in the same place.
    pub fn new(batch: StridedLoops<3>, sizes: [usize; 3], strides: [[usize; 2]; 3]) -> Option<Self> {
        let [rows, columns, inner] = sizes;
        let mut reach = [0; 3];
        let shapes = [[rows, columns], [rows, inner], [inner, columns]];
        for ((reach, [r, c]), [row, column]) in reach.iter_mut().zip(shapes).zip(strides) {
            *reach = r.checked_sub(1)?.checked_mul(row)?.checked_add(c.checked_sub(1)?.checked_mul(column)?)?;
        }
        let mut sides = [(strides[0][0], rows); RANK + 2];
        sides[1] = (strides[0][1], columns);
        for (side, (stride, n)) in sides[2..].iter_mut().zip(batch.strides[0].iter().zip(&batch.dims)) {
            *side = (*stride, *n);
        }
        inner.checked_mul(columns.checked_next_multiple_of(CHUNK)?)?;
        batch.len().checked_mul(rows)?.checked_mul(columns)?.checked_mul(inner)?;
        let product = MatMul { batch, sizes, strides, reach };
        (apart(sides) && product.ends().is_some()).then_some(product)
    }

    /// The same products with matrices that start elsewhere; none if one then reaches further than can be counted.
    pub fn with_starts(self, starts: [usize; 3]) -> Option<Self> {
        let product = MatMul { batch: self.batch.with_starts(starts)?, ..self };
        product.ends().map(|_| product)
    }

    /// Where the first matrices start.
    pub fn starts(&self) -> [usize; 3] {
        self.batch.starts
    }

    /// How many products there are.
    pub fn count(&self) -> usize {
        self.batch.len()
    }

    /// Rows of the result, columns of it, and what is summed over.
    pub fn sizes(&self) -> [usize; 3] {
        self.sizes
    }

    /// The numbers that it works with.
    pub fn work_len(&self) -> usize {
        self.sizes[2] * self.sizes[1].next_multiple_of(CHUNK)
    }

    /// One past the last number of each value.
    fn ends(&self) -> Option<[usize; 3]> {
        let mut ends = self.reach;
        for (v, end) in ends.iter_mut().enumerate() {
            *end = end.checked_add(self.batch.end(v)?)?;
        }
        Some(ends)
    }
}

/// Multiplies matrices. Parts are of the rows of each.
#[inline(always)]
pub(super) fn matmul<S: Simd>(s: S, p: &MatMul, part: Part, work: &mut [f32], memory: Memory) {
    let [rows, columns, inner] = p.sizes;
    assert!(p.ends().is_some_and(|ends| ends.iter().all(|end| *end <= memory.len())));
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
            // SAFETY: the assertion: the second factors lie within the memory.
            unsafe { pack(p, base.source().skip(b), packed) }
            for first in mine.clone().map(|i| i * TOGETHER) {
                let tile = Tile { p, packed, width, first, rows: (rows - first).min(TOGETHER) };
                let (from, to) = (base.source().skip(a), base.skip(o));
                let mut column = 0;
                while column < columns {
                    if column + 2 * S::LANES <= width {
                        // SAFETY: the assertion: the first factors and the results lie within the memory; other parts write
                        // other rows.
                        unsafe { tile.multiply::<S, 2>(s, column, from, to) }
                        column += 2 * S::LANES;
                    } else {
                        // SAFETY: as above.
                        unsafe { tile.multiply::<S, 1>(s, column, from, to) }
                        column += S::LANES;
                    }
                }
            }
        }
    }
}

/// Puts the rows of a second factor into lines of whole chunks, with zeros after them.
///
/// # Safety
/// All of the factor must be there.
#[inline(always)]
unsafe fn pack(p: &MatMul, from: Source<f32>, packed: &mut [f32]) {
    let ([_, columns, inner], [row, column]) = (p.sizes, p.strides[2]);
    let width = columns.next_multiple_of(CHUNK);
    for (k, line) in packed.chunks_exact_mut(width).take(inner).enumerate() {
        let (from, mut c) = (from.skip(k * row), 0);
        while column == 1 && c + CHUNK <= columns {
            // SAFETY: the caller's promise.
            let chunk: [f32; CHUNK] = unsafe { from.load(c) };
            line[c..c + CHUNK].copy_from_slice(&chunk);
            c += CHUNK;
        }
        for (c, v) in line[..columns].iter_mut().enumerate().skip(c) {
            // SAFETY: the caller's promise.
            *v = unsafe { from.load(c * column) };
        }
        line[columns..].fill(0.0);
    }
}

/// Some rows of a product.
struct Tile<'a> {
    p: &'a MatMul,
    packed: &'a [f32],
    width: usize,
    first: usize,
    rows: usize,
}

impl Tile<'_> {
    /// Makes V vectors of columns from `column` on.
    ///
    /// # Safety
    /// The first factor and the result must be there, and no other thread read or write these rows of it.
    #[inline(always)]
    unsafe fn multiply<S: Simd, const V: usize>(&self, s: S, column: usize, from: Source<f32>, to: Target<f32>) {
        let ([_, columns, inner], [result, factor, _]) = (self.p.sizes, self.p.strides);
        // the last row stands in for those beyond it
        let row: [usize; TOGETHER] = std::array::from_fn(|r| (self.first + r.min(self.rows - 1)) * factor[0]);
        let mut sums = [[s.splat(0.0); V]; TOGETHER];
        for (k, line) in self.packed.chunks_exact(self.width).take(inner).enumerate() {
            let mut w = [s.splat(0.0); V];
            for (v, w) in w.iter_mut().enumerate() {
                *w = s.read(line, column + v * S::LANES);
            }
            for (sums, row) in sums.iter_mut().zip(row) {
                // SAFETY: the caller's promise.
                let x = s.one(unsafe { from.load(row + k * factor[1]) });
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = s.fma_lane::<0>(x, w, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate().take(self.rows) {
            let to = to.skip((self.first + r) * result[0]);
            for (v, sum) in sums.iter().enumerate() {
                let at = column + v * S::LANES;
                let left = columns.saturating_sub(at).min(S::LANES);
                if result[1] == 1 && left > 0 {
                    // SAFETY: the caller's promise: so many columns are left.
                    unsafe { s.store_some(to, at, left, *sum) }
                    continue;
                }
                let mut all = [0.0; WIDEST];
                s.write(&mut all, 0, *sum);
                for (i, sum) in all.iter().enumerate().take(left) {
                    // SAFETY: as above.
                    unsafe { to.store((at + i) * result[1], *sum) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::arena::StridedView;
    use crate::tests::Noise;

    fn loops<const N: usize>(places: [&StridedView; N]) -> StridedLoops<N> {
        StridedLoops::new(&places[0].dims, places.map(|p| (p.start, p.strides.as_slice()))).unwrap()
    }

    /// Every number of a place, in the order of its indices.
    fn read(place: &StridedView, memory: &[f32]) -> Vec<f32> {
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
        let cases: [(Unary, &dyn Fn(f64) -> f64); 33] = [
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
            (Unary::Ceil, &f64::ceil),
            (Unary::Round, &f64::round_ties_even),
            (Unary::Sign, &|x| if x == 0.0 { 0.0 } else { x.signum() }),
            (Unary::Elu(0.75), &|x| if x < 0.0 { 0.75 * x.exp_m1() } else { x }),
            (Unary::Celu(2.0), &|x| x.max(0.0) + (2.0 * (x / 2.0).exp_m1()).min(0.0)),
            (Unary::Selu(1.5, 1.25), &|x| 1.25 * if x < 0.0 { 1.5 * x.exp_m1() } else { x }),
            (Unary::LeakyRelu(0.25), &|x| if x < 0.0 { 0.25 * x } else { x }),
            (Unary::ThresholdedRelu(0.5), &|x| if x > 0.5 { x } else { 0.0 }),
            (Unary::HardSigmoid(0.25, 0.5), &|x| (0.25 * x + 0.5).clamp(0.0, 1.0)),
            (Unary::HardSwish, &|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            (Unary::Softsign, &|x| x / (1.0 + x.abs())),
            (Unary::Shrink { bias: 0.25, lambda: 0.5 }, &|x| {
                if x < -0.5 {
                    x + 0.25
                } else if x > 0.5 {
                    x - 0.25
                } else {
                    0.0
                }
            }),
            (Unary::Tan, &|x| f64::from(x as f32).tan()),
            (Unary::Atan, &f64::atan),
            (Unary::Sinh, &f64::sinh),
            (Unary::Cosh, &f64::cosh),
            (Unary::Asinh, &f64::asinh),
            (Unary::IsNan, &|_| 0.0),
            (Unary::IsInf { above: true, below: true }, &|_| 0.0),
            (Unary::Not, &|x| f64::from(u8::from(x == 0.0))),
            (Unary::Truth, &|x| f64::from(u8::from(x != 0.0))),
            (Unary::Absolute, &f64::abs),
            (Unary::Floor, &f64::floor),
        ];
        let step = if cfg!(miri) { 31 } else { 1 };
        let x: Vec<f32> = (-3000..3000).step_by(step).map(|i| i as f32 / 100.0).collect();
        for isa in Isa::available() {
            for (f, exact) in &cases {
                let mut memory = [x.clone(), vec![0.0; x.len()]].concat();
                let (from, to) = (StridedView::row_major(0, &[x.len()]), StridedView::row_major(x.len(), &[x.len()]));
                for index in 0..3 {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::unary(isa, *f, &loops([&to, &from]), Part::new(index, 3).unwrap(), m);
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
        let a = StridedView { start: 5, dims: vec![1, 20, 3, 4], strides: vec![0, 1, 92, 22], border: [0, 0] };
        let b = StridedView { start: 700, dims: vec![1, 20, 3, 4], strides: vec![0, 1, 0, 0], border: [0, 0] };
        let o = StridedView::row_major(800, &[1, 20, 3, 4]);
        let before = noisy(1100);
        let (x, y) = (read(&a, &before), read(&b, &before));
        for isa in Isa::available() {
            for of in [1, 2, 5] {
                let mut memory = before.clone();
                for index in 0..of {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::binary(isa, Binary::Subtract, &loops([&o, &a, &b]), Part::new(index, of).unwrap(), m);
                }
                let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
                assert_eq!(read(&o, &memory), expected, "{isa:?}");
                // in place
                for index in 0..of {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::binary(isa, Binary::Multiply, &loops([&a, &a, &b]), Part::new(index, of).unwrap(), m);
                }
                let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x * y).collect();
                assert_eq!(read(&a, &memory), expected, "{isa:?}");
            }
        }
    }

    #[test]
    fn rows_are_right() {
        let x = StridedView { start: 3, dims: vec![2, 5, 37], strides: vec![300, 40, 1], border: [0, 0] };
        let before = noisy(1200);
        let values = read(&x, &before);
        for isa in Isa::available() {
            let out = StridedView::row_major(700, &[2, 5, 37]);
            let first =
                |p: &StridedView| StridedView { dims: vec![2, 5], strides: p.strides[..2].to_vec(), ..p.clone() };
            let (scale, shift) = ((0..37).map(|i| i as f32).collect::<Vec<_>>(), vec![0.5; 37]);
            let kinds = [
                RowOp::Softmax,
                RowOp::LogSoftmax,
                RowOp::LayerNorm { epsilon: 1e-5, scale: scale.clone(), shift },
                RowOp::RmsNorm { epsilon: 1e-3, scale: scale.clone() },
                RowOp::L2Norm { least: 1e-12, scale: scale.clone() },
            ];
            for f in kinds {
                let mut memory = before.clone();
                let m = Memory::new(&mut memory, &mut []);
                for index in 0..2 {
                    crate::rows(isa, &f, &loops([&first(&out), &first(&x)]), 37, Part::new(index, 2).unwrap(), m);
                }
                for (x, y) in values.chunks(37).zip(read(&out, &memory).chunks(37)) {
                    let x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                    let mean = x.iter().sum::<f64>() / 37.0;
                    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 37.0;
                    let total: f64 = x.iter().map(|v| v.exp()).sum();
                    let squares: f64 = x.iter().map(|v| v * v).sum();
                    for (i, (x, y)) in x.iter().zip(y).enumerate() {
                        let exact = match f {
                            RowOp::Softmax => x.exp() / total,
                            RowOp::LogSoftmax => x - total.ln(),
                            RowOp::RmsNorm { .. } => x / (squares / 37.0 + 1e-3).sqrt() * i as f64,
                            RowOp::L2Norm { .. } => x / squares.sqrt() * i as f64,
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
        let a = StridedView { start: 1, dims: vec![3, 7, 19], strides: vec![0, 25, 1], border: [0, 0] };
        let b = StridedView { start: 300, dims: vec![3, 19, 21], strides: vec![500, 1, 20], border: [0, 0] };
        let o = StridedView::row_major(3000, &[3, 7, 21]);
        let head = |p: &StridedView| StridedView { dims: vec![3], strides: vec![p.strides[0]], ..p.clone() };
        let strides = [&o, &a, &b].map(|p| [p.strides[1], p.strides[2]]);
        let product = MatMul::new(loops([&head(&o), &head(&a), &head(&b)]), [7, 21, 19], strides).unwrap();
        let (x, y) = (read(&a, &before), read(&b, &before));
        for isa in Isa::available() {
            let mut memory = before.clone();
            let mut work = vec![f32::NAN; product.work_len()];
            for index in 0..2 {
                let part = Part::new(index, 2).unwrap();
                crate::matmul(isa, &product, part, &mut work, Memory::new(&mut memory, &mut []));
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
