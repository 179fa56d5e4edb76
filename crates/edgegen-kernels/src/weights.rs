//! Weights as they are kept: in f32, or smaller and widened as a kernel reads them. A large network whose weights do not
//! stay in the cache waits for them, the less the smaller they are.

use super::memory::Memory;
use super::pointer::{Plain, Source, Target};
use super::simd::{Vector, WIDEST};
use crate::arena::Precision;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Weights as a file has them.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// Numbers.
    Float(&'a [f32]),
    /// 8-bit numbers, and what those of each output channel are multiplied with, or all.
    Eight(&'a [i8], &'a [f32]),
}

impl Stored<'_> {
    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Stored::Float(all) => all.len(),
            Stored::Eight(all, _) => all.len(),
        }
    }
}

impl Stored<'_> {
    /// Makes sure that there are `count` of them, and a scale for each of `channels`, or one for all.
    pub(super) fn check(self, count: usize, channels: usize) -> Result<(), String> {
        if self.len() != count {
            return Err(format!("{} weights where there should be {count}", self.len()));
        }
        match self {
            Stored::Eight(_, scales) if scales.len() != 1 && scales.len() != channels => {
                Err(format!("{} scales of weights for {channels} channels", scales.len()))
            }
            _ => Ok(()),
        }
    }
}

/// Weights in the order in which a kernel reads them.
#[derive(Clone, Debug)]
pub(super) enum Weights {
    /// In 32 bits.
    F32(Vec<f32>),
    /// In 16 bits: those that lose nothing by it.
    F16(Vec<f16>),
    /// In 8 bits; results are multiplied with the scale of their channel.
    I8(Vec<i8>, Vec<f32>),
    /// Numbers of 8 bits in 32, with the same scales.
    Whole(Vec<f32>, Vec<f32>),
}

/// So few 8-bit weights stay in the nearest cache in 32 bits, too: there is no need to widen them in each call.
pub(super) const FEW: usize = 8192;

impl Weights {
    /// Arranges weights in as few bits as keep them. `order` gives, for numbers of any type, those that it gets in the order
    /// of the kernel, with zeros where there are none; scales are padded to `channels`.
    pub(super) fn new(stored: Stored, order: &impl Order, channels: usize) -> Self {
        match stored {
            Stored::Eight(all, scales) => {
                let one = if scales.len() == 1 { scales[0] } else { 0.0 };
                let mut scales = if scales.len() == 1 { Vec::new() } else { scales.to_vec() };
                scales.resize(channels, one);
                if all.len() > FEW {
                    return Weights::I8(order.arrange(all), scales);
                }
                let whole: Vec<f32> = all.iter().map(|v| f32::from(*v)).collect();
                Weights::Whole(order.arrange(&whole), scales)
            }
            Stored::Float(all) if all.iter().all(|v| is_half(*v)) => Weights::F16(halves(&order.arrange(all))),
            Stored::Float(all) => Weights::F32(order.arrange(all)),
        }
    }

    /// Those that are arranged already, rounded to 16 bits.
    ///
    /// # Errors
    /// When one is too large for that.
    pub(super) fn halves(arranged: &[f32]) -> Result<Self, String> {
        let halves = halves(arranged);
        let finite = halves.iter().all(|v| v.is_finite());
        if finite { Ok(Weights::F16(halves)) } else { Err("a weight that is more than 16 bits hold, 65,504".into()) }
    }

    /// What results are multiplied with, if they are.
    pub(super) fn scales(&self) -> Option<&[f32]> {
        if let Weights::I8(_, scales) | Weights::Whole(_, scales) = self { Some(scales) } else { None }
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Weights::F32(all) => size_of_val(all.as_slice()),
            Weights::F16(all) => size_of_val(all.as_slice()),
            Weights::I8(all, scales) => size_of_val(all.as_slice()) + size_of_val(scales.as_slice()),
            Weights::Whole(all, scales) => size_of_val(all.as_slice()) + size_of_val(scales.as_slice()),
        }
    }
}

/// The nearest numbers of 16 bits.
fn halves(all: &[f32]) -> Vec<f16> {
    let mut halves = vec![f16::ZERO; all.len()];
    halves.convert_from_f32_slice(all);
    halves
}

/// Whether 16 bits hold a number exactly.
fn is_half(v: f32) -> bool {
    let (exponent, rest) = (v.to_bits() >> 23 & 0xff, v.to_bits() & 0x1fff);
    // those of full precision by their bits, which is quick
    if (113..=142).contains(&exponent) { rest == 0 } else { f16::from_f32(v).to_f32().to_bits() == v.to_bits() }
}

/// An order of weights, whatever their type.
pub(super) trait Order {
    /// The weights in this order.
    fn arrange<T: Copy + Default>(&self, weights: &[T]) -> Vec<T>;
}

/// A type that weights are kept in.
pub(super) trait Number: Plain {
    /// A vector of them as they are loaded.
    type Vector<S: Vector>: Plain;

    /// A vector of them as numbers that are computed with.
    fn widen<S: Vector>(s: S, vector: Self::Vector<S>) -> S::F;

    /// V vectors that lie together from `at` on, as numbers that are computed with.
    ///
    /// # Safety
    /// As many numbers must be there.
    #[inline(always)]
    unsafe fn load<S: Vector, const V: usize>(s: S, from: Source<Self>, at: usize) -> [S::F; V] {
        // no closure: one that is not compiled into its caller lacks the CPU's features
        let (from, mut values) = (from.skip(at), [s.splat(0.0); V]);
        for (v, value) in values.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *value = Self::widen(s, unsafe { from.load(v * S::LANES) });
        }
        values
    }
}

impl Number for f32 {
    type Vector<S: Vector> = S::Floats;

    #[inline(always)]
    fn widen<S: Vector>(s: S, vector: S::Floats) -> S::F {
        s.of_floats(vector)
    }
}

impl Number for f16 {
    type Vector<S: Vector> = S::Halves;

    #[inline(always)]
    fn widen<S: Vector>(s: S, vector: S::Halves) -> S::F {
        s.widen_halves(vector)
    }
}

impl Number for i8 {
    type Vector<S: Vector> = S::Bytes;

    #[inline(always)]
    fn widen<S: Vector>(s: S, vector: S::Bytes) -> S::F {
        s.widen_bytes(vector)
    }
}

/// A type that values are kept in: that of the numbers of an arena.
pub(super) trait Real: Number {
    const PRECISION: Precision;
    const ZERO: Self;
    /// `GROUP` numbers of a pixel, as they are loaded.
    type Group<S: Vector>: Plain;

    /// The arena of such numbers, and how many it has.
    fn arena(memory: Memory<'_>) -> Target<'_, Self>;
    fn len(memory: Memory<'_>) -> usize;
    fn to_f32(self) -> f32;
    fn from_f32(v: f32) -> Self;
    /// A vector of them of numbers that were computed.
    fn narrow<S: Vector>(s: S, v: S::F) -> Self::Vector<S>;
    /// `GROUP` numbers of a pixel, ready to be multiplied with vectors; and one of them.
    fn group<S: Vector>(s: S, group: Self::Group<S>) -> S::X;
    fn one<S: Vector>(s: S, v: Self) -> S::X;

    /// A vector from `at` on.
    ///
    /// # Safety
    /// As many numbers must be there.
    #[inline(always)]
    unsafe fn get<S: Vector>(s: S, from: Source<Self>, at: usize) -> S::F {
        // SAFETY: the caller's promise.
        Self::widen(s, unsafe { from.load(at) })
    }

    /// A vector to number `at`.
    ///
    /// # Safety
    /// There must be room for as many, which no other thread reads or writes.
    #[inline(always)]
    unsafe fn put<S: Vector>(s: S, to: Target<Self>, at: usize, v: S::F) {
        // SAFETY: the caller's promise.
        unsafe { to.store(at, Self::narrow(s, v)) }
    }

    /// The first `n` < `LANES` numbers from `at` on, with zeros after them.
    ///
    /// # Safety
    /// There must be as many.
    #[inline(always)]
    unsafe fn get_part<S: Vector>(s: S, from: Source<Self>, at: usize, n: usize) -> S::F {
        let mut whole = [Self::ZERO; WIDEST];
        for (i, v) in whole.iter_mut().enumerate().take(n.min(S::LANES)) {
            // SAFETY: the caller's promise.
            *v = unsafe { from.load(at + i) };
        }
        // SAFETY: no vector is wider.
        unsafe { Self::get(s, Source::of(&whole), 0) }
    }

    /// To the first `n` < `LANES` numbers from `at` on.
    ///
    /// # Safety
    /// There must be as many, which no other thread reads or writes.
    #[inline(always)]
    unsafe fn put_part<S: Vector>(s: S, to: Target<Self>, at: usize, v: S::F, n: usize) {
        let mut whole = [Self::ZERO; WIDEST];
        // SAFETY: no vector is wider.
        unsafe { Self::put(s, Target::of(&mut whole), 0, v) }
        for (i, v) in whole.iter().enumerate().take(n.min(S::LANES)) {
            // SAFETY: the caller's promise.
            unsafe { to.store(at + i, *v) }
        }
    }

    /// A vector of numbers of which `left` are there, or all.
    ///
    /// # Safety
    /// As many numbers must be there from `at` on.
    #[inline(always)]
    unsafe fn get_some<S: Vector>(s: S, from: Source<Self>, at: usize, left: usize) -> S::F {
        if left >= S::LANES {
            // SAFETY: the caller's promise: there is room for a whole vector.
            unsafe { Self::get(s, from, at) }
        } else {
            // SAFETY: the caller's promise.
            unsafe { Self::get_part(s, from, at, left) }
        }
    }

    /// A vector to where there is room for `left` numbers, or more.
    ///
    /// # Safety
    /// As many numbers must be there from `at` on, which no other thread reads or writes.
    #[inline(always)]
    unsafe fn put_some<S: Vector>(s: S, to: Target<Self>, at: usize, left: usize, v: S::F) {
        if left >= S::LANES {
            // SAFETY: the caller's promise: there is room for a whole vector.
            unsafe { Self::put(s, to, at, v) }
        } else {
            // SAFETY: the caller's promise.
            unsafe { Self::put_part(s, to, at, v, left) }
        }
    }
}

impl Real for f32 {
    const PRECISION: Precision = Precision::F32;
    const ZERO: Self = 0.0;
    type Group<S: Vector> = S::Group;

    #[inline(always)]
    fn arena(memory: Memory<'_>) -> Target<'_, Self> {
        memory.arena()
    }
    #[inline(always)]
    fn len(memory: Memory<'_>) -> usize {
        memory.len()
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(v: f32) -> Self {
        v
    }
    #[inline(always)]
    fn narrow<S: Vector>(s: S, v: S::F) -> S::Floats {
        s.to_floats(v)
    }
    #[inline(always)]
    fn group<S: Vector>(s: S, group: S::Group) -> S::X {
        s.group(group)
    }
    #[inline(always)]
    fn one<S: Vector>(s: S, v: f32) -> S::X {
        s.one(v)
    }
    #[inline(always)]
    unsafe fn get_part<S: Vector>(s: S, from: Source<f32>, at: usize, n: usize) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_part(from, at, n) }
    }
    #[inline(always)]
    unsafe fn put_part<S: Vector>(s: S, to: Target<f32>, at: usize, v: S::F, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { s.store_part(to, at, v, n) }
    }
}

impl Real for f16 {
    const PRECISION: Precision = Precision::F16;
    const ZERO: Self = f16::ZERO;
    type Group<S: Vector> = S::HalfGroup;

    #[inline(always)]
    fn arena(memory: Memory<'_>) -> Target<'_, Self> {
        memory.halves()
    }
    #[inline(always)]
    fn len(memory: Memory<'_>) -> usize {
        memory.halves_len()
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(v: f32) -> Self {
        f16::from_f32(v)
    }
    #[inline(always)]
    fn narrow<S: Vector>(s: S, v: S::F) -> S::Halves {
        s.narrow_to_halves(v)
    }
    #[inline(always)]
    fn group<S: Vector>(s: S, group: S::HalfGroup) -> S::X {
        s.group_of_halves(group)
    }
    #[inline(always)]
    fn one<S: Vector>(s: S, v: f16) -> S::X {
        s.one_half(v)
    }
}
