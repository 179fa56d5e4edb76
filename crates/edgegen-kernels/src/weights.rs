//! Weights as they are kept: in f32, or smaller and widened as a kernel reads them. A large network whose weights do not
//! stay in the cache waits for them, the less the smaller they are.

use super::pointer::{Plain, Source};
use super::simd::Simd;
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
            Stored::Float(all) if all.iter().all(|v| is_half(*v)) => {
                let arranged = order.arrange(all);
                let mut halves = vec![f16::ZERO; arranged.len()];
                halves.convert_from_f32_slice(&arranged);
                Weights::F16(halves)
            }
            Stored::Float(all) => Weights::F32(order.arrange(all)),
        }
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
    type Vector<S: Simd>: Plain;

    /// A vector of them as f32.
    fn widen<S: Simd>(s: S, vector: Self::Vector<S>) -> S::F;

    /// V vectors that lie together from `at` on, as f32.
    ///
    /// # Safety
    /// As many numbers must be there.
    #[inline(always)]
    unsafe fn load<S: Simd, const V: usize>(s: S, from: Source<Self>, at: usize) -> [S::F; V] {
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
    type Vector<S: Simd> = S::F;

    #[inline(always)]
    fn widen<S: Simd>(_: S, vector: S::F) -> S::F {
        vector
    }
}

impl Number for f16 {
    type Vector<S: Simd> = S::Halves;

    #[inline(always)]
    fn widen<S: Simd>(s: S, vector: S::Halves) -> S::F {
        s.widen_halves(vector)
    }
}

impl Number for i8 {
    type Vector<S: Simd> = S::Bytes;

    #[inline(always)]
    fn widen<S: Simd>(s: S, vector: S::Bytes) -> S::F {
        s.widen_bytes(vector)
    }
}
