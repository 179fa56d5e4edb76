//! Weights as they are kept: in f32, or smaller and widened as a kernel reads them. A large network whose weights do not
//! stay in the cache waits for them, the less the smaller they are.

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

/// Weights in the order in which a kernel reads them.
#[derive(Clone, Debug)]
pub enum Weights {
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
    pub fn new(stored: Stored, order: &impl Order, channels: usize) -> Self {
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
    pub fn scales(&self) -> Option<&[f32]> {
        if let Weights::I8(_, scales) | Weights::Whole(_, scales) = self { Some(scales) } else { None }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
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
pub trait Order {
    /// The weights in this order.
    fn arrange<T: Copy + Default>(&self, weights: &[T]) -> Vec<T>;
}

/// A type that weights are kept in.
pub(super) trait Number: Copy {
    /// A vector of them as f32.
    ///
    /// # Safety
    /// The CPU must have the features of `S`, and so many numbers must be there.
    unsafe fn vector<S: Simd>(from: *const Self) -> S::F;

    /// V vectors of them that lie together.
    ///
    /// # Safety
    /// As [`vector`](Self::vector)'s.
    #[inline(always)]
    unsafe fn load<S: Simd, const V: usize>(from: *const Self) -> [S::F; V] {
        // SAFETY: the caller's promise. No closure: one that is not compiled into its caller lacks the CPU's features.
        unsafe {
            let mut values = [S::splat(0.0); V];
            for (v, value) in values.iter_mut().enumerate() {
                *value = Self::vector::<S>(from.add(v * S::LANES));
            }
            values
        }
    }
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn vector<S: Simd>(from: *const f32) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::load(from) }
    }
}

impl Number for f16 {
    #[inline(always)]
    unsafe fn vector<S: Simd>(from: *const f16) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(from) }
    }
}

impl Number for i8 {
    #[inline(always)]
    unsafe fn vector<S: Simd>(from: *const i8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { S::load_i8(from) }
    }
}
