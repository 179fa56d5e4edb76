//! Stored tensors.

use crate::reason::Reason;
use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use kernels::arena::row_major;
use onnx::pb::TensorProto;
use onnx::pb::tensor_proto::DataType;
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// A stored tensor, or one that depends on stored ones alone.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its numbers.
    pub values: Values,
    /// Whether the values are those of the file, which integers beyond 2^24 need not be. Nothing computes with such: they are
    /// ends of slices, or are converted to floats.
    pub exact: bool,
    /// What it is stored as.
    pub kind: DataType,
    /// If it was stored in 8 bits: those.
    pub levels: Option<Arc<Stored8>>,
}

/// Numbers as f32, worked out of what a file has once they are read: weights, most of which are only arranged anew and
/// need not be there twice, are not, where [`decoded`](Self::decoded) is what reads them.
#[derive(Clone, Debug, Default)]
pub struct Values {
    ready: OnceLock<Vec<f32>>,
    source: Option<Source>,
}

#[derive(Clone, Debug)]
enum Source {
    /// A tensor's bytes.
    Raw(Bytes, DataType),
    /// 8-bit numbers, and how many follow each other with the same scale.
    Quantized(Arc<Stored8>, usize),
}

impl Source {
    fn decode(&self) -> Vec<f32> {
        match self {
            Source::Raw(raw, kind) => from_bytes(raw, *kind).unwrap_or_default(),
            Source::Quantized(levels, each) => {
                let Stored8 { scales, zeros, .. } = &**levels;
                let values = levels.values();
                let runs = values.chunks((*each).max(1)).enumerate();
                let zero = |i: usize| if zeros.is_empty() { 0.0 } else { zeros[i % zeros.len()] };
                let number = |i: usize, v: &i8| (f32::from(*v) - zero(i)) * scales[i % scales.len()];
                runs.flat_map(|(i, run)| run.iter().map(move |v| number(i, v))).collect()
            }
        }
    }
}

impl Values {
    fn of(values: Vec<f32>) -> Self {
        Values { ready: values.into(), source: None }
    }

    /// The numbers, kept only if they have been read otherwise.
    pub fn decoded(&self) -> Cow<'_, [f32]> {
        match (self.ready.get(), &self.source) {
            (Some(ready), _) => ready.into(),
            (None, Some(source)) => source.decode().into(),
            (None, None) => Cow::default(),
        }
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[f32] {
        self.ready.get_or_init(|| self.source.as_ref().map(Source::decode).unwrap_or_default())
    }

    /// As whole numbers of 8 bits, which they are.
    pub fn levels(&self) -> Levels {
        match (self.ready.get(), &self.source) {
            (None, Some(Source::Raw(raw, DataType::Int8))) => Levels::Raw(raw.clone()),
            _ => Levels::Here(self.iter().map(|v| *v as i8).collect()),
        }
    }

    /// The bytes of numbers of 4 bits that were not worked out.
    pub fn of_4_bits(&self) -> Option<&Bytes> {
        match &self.source {
            Some(Source::Raw(raw, DataType::Int4)) => Some(raw),
            _ => None,
        }
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.as_slice()
    }
}

/// The most numbers that a value of a plan may have: beyond, a file is damaged, or not for small machines.
const MOST: usize = 1 << 28;
/// The most that operators on stored tensors may make of fewer.
const MOST_MADE: usize = 1 << 24;

/// The most dimensions that a value may have, which is numpy's limit, too.
pub const MOST_DIMENSIONS: usize = 64;

/// How many numbers a value has.
///
/// # Errors
/// When there are more than a plan is made for. A dimension of zero does not make up for the others: code that goes over
/// these would take as long.
pub fn count(dims: &[usize]) -> Result<usize, Reason> {
    if dims.len() > MOST_DIMENSIONS {
        return Err(Reason::TooLarge(format!("a value of {} dimensions is too large", dims.len())));
    }
    let all = dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1))).filter(|n| *n <= MOST);
    let all = all.ok_or_else(|| Reason::TooLarge(format!("a value of shape {dims:?} is too large")))?;
    Ok(if dims.contains(&0) { 0 } else { all })
}

/// The same, of what is made of stored tensors of `given` numbers: a small file must not become large in memory.
pub fn made(dims: &[usize], given: usize) -> Result<usize, Reason> {
    let all = count(dims)?;
    let fits = all <= MOST_MADE.max(given);
    if fits { Ok(all) } else { Err(Reason::TooLarge(format!("a stored value of shape {dims:?} is too large"))) }
}

/// Weights in 8 bits.
#[derive(Clone, Debug)]
pub struct Stored8 {
    /// The weights.
    pub levels: Levels,
    /// What they are around, as scales are given; nothing if all are around zero.
    pub zeros: Vec<f32>,
    /// One scale, or one for each index of `axis`.
    pub scales: Vec<f32>,
    /// The dimension that scales are for.
    pub axis: usize,
}

/// Where weights of 8 bits are: those of a file are not there twice.
#[derive(Clone, Debug)]
pub enum Levels {
    /// Here.
    Here(Vec<i8>),
    /// A tensor's bytes.
    Raw(Bytes),
    /// A tensor of 4 bits, whose blocks are multiplied with whole numbers.
    Blocks(Blocks),
}

/// Signed numbers of 4 bits `[out, in, taps]`, blocks of which along the second dimension are multiplied with whole numbers.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Two numbers a byte, the first in the low bits.
    pub bytes: Bytes,
    /// The multiples, `[out, blocks, taps]`.
    pub multiples: Vec<i8>,
    /// How many inputs an output has.
    pub length: usize,
    /// How many of them are a block.
    pub block: usize,
    /// How many numbers each input has.
    pub taps: usize,
}

impl Blocks {
    /// The numbers that they come to.
    fn values(&self) -> Vec<i8> {
        let of_output = self.length * self.taps;
        let blocks = self.length.div_ceil(self.block);
        let nibble = |at: usize| (self.bytes[at / 2] << (4 - at % 2 * 4)) as i8 >> 4;
        let outputs = self.multiples.len() / (blocks * self.taps).max(1);
        let number = |at: usize| {
            let (output, input, tap) = (at / of_output, at % of_output / self.taps, at % self.taps);
            nibble(at).wrapping_mul(self.multiples[(output * blocks + input / self.block) * self.taps + tap])
        };
        (0..outputs * of_output).map(number).collect()
    }
}

impl Stored8 {
    /// The weights, worked out if a file has them in another form.
    pub fn values(&self) -> Cow<'_, [i8]> {
        match &self.levels {
            Levels::Here(values) => values.into(),
            Levels::Raw(bytes) => bytes.iter().map(|b| *b as i8).collect(),
            Levels::Blocks(blocks) => blocks.values().into(),
        }
    }
}

impl Constant {
    /// Of these numbers.
    pub fn of(dims: Vec<usize>, values: Vec<f32>, kind: DataType) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Constant { dims, values: Values::of(values), exact: true, kind, levels: None }
    }

    /// Of numbers that f32 arithmetic made of others of this kind.
    ///
    /// # Errors
    /// When they are whole and so large that some may have been rounded.
    pub fn computed(dims: Vec<usize>, values: Vec<f32>, kind: DataType) -> Result<Self, Reason> {
        if is_integer(kind) && values.iter().any(|v| f64::from(v.abs()) >= LARGEST_WHOLE) {
            return Err("it computes with integers beyond 2^24".into());
        }
        Ok(Constant::of(dims, values, kind))
    }

    /// Of these integers.
    pub fn whole(dims: Vec<usize>, integers: impl IntoIterator<Item = i64>, kind: DataType) -> Self {
        let mut exact = true;
        let values = integers.into_iter().map(|v| {
            exact &= is_exact(v);
            v as f32
        });
        let values = values.collect();
        Constant { exact, ..Constant::of(dims, values, kind) }
    }

    /// A list of whole numbers.
    pub fn list(values: impl IntoIterator<Item = i64>) -> Self {
        let values: Vec<i64> = values.into_iter().collect();
        Constant::whole(vec![values.len()], values, DataType::Int64)
    }

    /// Reads a stored tensor, if it holds numbers of a kind that weights and shapes are made of.
    pub fn read(tensor: &TensorProto) -> Option<Self> {
        let dims = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<_>>>()?;
        let stored = DataType::try_from(tensor.data_type).ok()?;
        // what is stored in 16 bits is computed with in 32
        let kind = if is_integer(stored) || stored == DataType::Double { stored } else { DataType::Float };
        let count = count(&dims).ok()?;
        // an odd number of them would end within a byte
        if stored == DataType::Int4 && count % 2 == 0 && tensor.raw_data.len() == count / 2 {
            let values = Values { source: Some(Source::Raw(tensor.raw_data.clone(), stored)), ..Values::default() };
            return Some(Constant { dims, values, exact: true, kind, levels: None });
        }
        if bytes_of(stored).is_some_and(|bytes| count >= LARGE && tensor.raw_data.len() == bytes * count) {
            let source = Some(Source::Raw(tensor.raw_data.clone(), stored));
            let values = Values { source, ..Values::default() };
            return Some(Constant { dims, values, exact: true, kind, levels: None });
        }
        let values = numbers(tensor, stored)?;
        let exact = match stored {
            DataType::Int64 if tensor.raw_data.is_empty() => tensor.int64_data.iter().all(|v| is_exact(*v)),
            DataType::Int64 => tensor.raw_data.as_chunks().0.iter().all(|b| is_exact(i64::from_le_bytes(*b))),
            DataType::Int32 if tensor.raw_data.is_empty() => tensor.int32_data.iter().all(|v| is_exact(i64::from(*v))),
            DataType::Int32 => tensor.raw_data.as_chunks().0.iter().all(|b| is_exact(i32::from_le_bytes(*b).into())),
            _ => true,
        };
        (values.len() == count).then(|| Constant { exact, ..Constant::of(dims, values, kind) })
    }

    /// The same numbers with other dimensions.
    pub fn reshaped(&self, dims: Vec<usize>) -> Self {
        Constant { dims, levels: None, ..self.clone() }
    }

    /// A number a number of it, of the same kind.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        Constant::of(self.dims.clone(), self.values.iter().map(|v| f(*v)).collect(), self.kind)
    }

    /// 8-bit weights, of which as many as `each` follow each other with the same scale.
    pub fn of_levels(dims: Vec<usize>, levels: Stored8, each: usize) -> Self {
        let levels = Arc::new(levels);
        let source = Some(Source::Quantized(levels.clone(), each));
        let values = Values { source, ..Values::default() };
        Constant { dims, values, exact: true, kind: DataType::Float, levels: Some(levels) }
    }

    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether it holds whole numbers.
    pub fn is_integer(&self) -> bool {
        is_integer(self.kind)
    }

    /// Its numbers as whole ones. (Casts saturate, so that the greatest i64, "to the end", stays far beyond any size.)
    pub fn integers(&self) -> Vec<i64> {
        self.values.iter().map(|v| *v as i64).collect()
    }

    /// The number, if all are the same.
    pub fn uniform(&self) -> Option<f32> {
        let first = *self.values.first()?;
        self.values.iter().all(|v| *v == first).then_some(first)
    }

    /// Its numbers at places `start + Σ index · stride`.
    pub fn strided(&self, dims: Vec<usize>, start: usize, strides: &[isize]) -> Self {
        let mut values = Vec::with_capacity(dims.iter().product());
        let mut index = vec![0; dims.len()];
        if !dims.contains(&0) {
            loop {
                let at: isize = index.iter().zip(strides).map(|(i, s)| *i as isize * s).sum();
                values.push(self.values[(start as isize + at) as usize]);
                let Some(axis) = (0..dims.len()).rev().find(|a| index[*a] + 1 < dims[*a]) else { break };
                index[axis] += 1;
                index[axis + 1..].fill(0);
            }
        }
        Constant { exact: self.exact, ..Constant::of(dims, values, self.kind) }
    }

    /// With its dimensions in the order `perm`.
    pub fn transposed(&self, perm: &[usize]) -> Self {
        let strides = row_major(&self.dims);
        let strides: Vec<isize> = perm.iter().map(|p| strides[*p] as isize).collect();
        self.strided(perm.iter().map(|p| self.dims[*p]).collect(), 0, &strides)
    }

    /// Broadcast to `dims`.
    pub fn expanded(&self, dims: &[usize]) -> Self {
        let strides = broadcast_strides(&self.dims, &row_major(&self.dims), dims);
        self.strided(dims.to_vec(), 0, &strides.iter().map(|s| *s as isize).collect::<Vec<_>>())
    }
}

/// The largest up to which f32 holds all whole numbers.
pub const LARGEST_WHOLE: f64 = 16_777_216.0;

/// Whether f32 holds this integer.
fn is_exact(integer: i64) -> bool {
    (integer as f32) as i128 == i128::from(integer)
}

/// Whether numbers of this kind are whole (or true or false).
pub fn is_integer(kind: DataType) -> bool {
    !matches!(kind, DataType::Float | DataType::Float16 | DataType::Double | DataType::Bfloat16)
}

/// The dimensions that two tensors take together.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Reason> {
    let rank = a.len().max(b.len());
    let at = |d: &[usize], i: usize| (i + d.len()).checked_sub(rank).map_or(1, |i| d[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(format!("shapes {a:?} and {b:?} do not go together").into()),
        })
        .collect()
}

/// The strides by which a tensor of `from` is read as one of `to`: 0 where one number stands for all.
pub fn broadcast_strides(from: &[usize], strides: &[usize], to: &[usize]) -> Vec<usize> {
    let new = to.len() - from.len();
    (0..to.len())
        .map(|i| match i.checked_sub(new) {
            Some(k) if from[k] == to[i] => strides[k],
            _ => 0,
        })
        .collect()
}

/// Stored tensors of fewer numbers are read at once.
const LARGE: usize = 1024;

/// The bytes of a number of those kinds that are read late.
fn bytes_of(kind: DataType) -> Option<usize> {
    match kind {
        DataType::Float => Some(4),
        DataType::Float16 | DataType::Bfloat16 => Some(2),
        DataType::Int8 => Some(1),
        _ => None,
    }
}

/// Numbers as f32, from the bytes of a tensor of this kind.
fn from_bytes(raw: &[u8], kind: DataType) -> Option<Vec<f32>> {
    macro_rules! read {
        ($t:ty, $size:literal) => {
            raw.as_chunks::<$size>().0.iter().map(|b| <$t>::from_le_bytes(*b) as f32).collect()
        };
    }
    Some(match kind {
        DataType::Float => read!(f32, 4),
        DataType::Double => read!(f64, 8),
        DataType::Float16 => {
            let halves: Vec<f16> = raw.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
            // with the CPU's own conversions
            halves.to_f32_vec()
        }
        DataType::Bfloat16 => raw.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        DataType::Int64 => read!(i64, 8),
        DataType::Int32 => read!(i32, 4),
        DataType::Int8 => raw.iter().map(|b| f32::from(*b as i8)).collect(),
        DataType::Int4 => raw.iter().flat_map(|b| [(b << 4) as i8 >> 4, *b as i8 >> 4]).map(f32::from).collect(),
        DataType::Uint8 | DataType::Bool => raw.iter().map(|b| f32::from(*b)).collect(),
        _ => return None,
    })
}

/// A stored tensor's numbers as f32.
fn numbers(tensor: &TensorProto, kind: DataType) -> Option<Vec<f32>> {
    let raw = &tensor.raw_data;
    if !raw.is_empty() {
        return from_bytes(raw, kind);
    }
    Some(match kind {
        DataType::Float => tensor.float_data.clone(),
        DataType::Double => tensor.double_data.iter().map(|v| *v as f32).collect(),
        DataType::Float16 => tensor.int32_data.iter().map(|v| f16::from_bits(*v as u16).to_f32()).collect(),
        DataType::Bfloat16 => tensor.int32_data.iter().map(|v| bf16::from_bits(*v as u16).to_f32()).collect(),
        DataType::Int64 => tensor.int64_data.iter().map(|v| *v as f32).collect(),
        DataType::Int32 | DataType::Int8 | DataType::Uint8 | DataType::Bool => {
            tensor.int32_data.iter().map(|v| *v as f32).collect()
        }
        _ => return None,
    })
}
