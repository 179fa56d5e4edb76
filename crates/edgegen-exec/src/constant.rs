//! Stored tensors, and the operators that are worked out on them once, while a graph is read.

use super::graph::{Reason, float, int, ints, text};
use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use kernels::arena::row_major;
use onnx::pb::tensor_proto::DataType;
use onnx::pb::{NodeProto, TensorProto};
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// A stored tensor, or one that depends on stored ones alone.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its numbers; whole numbers, which are shapes and indices, are exact up to 2^24.
    pub values: Values,
    /// What it is stored as.
    pub kind: DataType,
    /// If it was stored in 8 bits around zero: those.
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
    Levels(Arc<Stored8>, usize),
}

impl Source {
    fn decode(&self) -> Vec<f32> {
        match self {
            Source::Raw(raw, kind) => from_bytes(raw, *kind).unwrap_or_default(),
            Source::Levels(levels, each) => {
                let Stored8 { values, scales, .. } = &**levels;
                let runs = values.chunks((*each).max(1)).enumerate();
                runs.flat_map(|(i, run)| run.iter().map(move |v| f32::from(*v) * scales[i % scales.len()])).collect()
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
    fn to_i8(&self) -> Vec<i8> {
        match (self.ready.get(), &self.source) {
            (None, Some(Source::Raw(raw, DataType::Int8))) => raw.iter().map(|b| *b as i8).collect(),
            _ => self.iter().map(|v| *v as i8).collect(),
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
/// What the reason says of what has more.
pub const TOO_LARGE: &str = "is too large";

/// How many numbers a value has.
///
/// # Errors
/// When there are more than a plan is made for.
pub fn count(dims: &[usize]) -> Result<usize, Reason> {
    let all = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST);
    all.ok_or_else(|| format!("a value of shape {dims:?} {TOO_LARGE}"))
}

/// The same, of what is made of stored tensors of `given` numbers: a small file must not become large in memory.
fn made(dims: &[usize], given: usize) -> Result<usize, Reason> {
    let all = count(dims)?;
    if all <= MOST_MADE.max(given) { Ok(all) } else { Err(format!("a stored value of shape {dims:?} {TOO_LARGE}")) }
}

/// Lengths as a file gives them.
pub fn lengths(given: &[i64]) -> Result<Vec<usize>, Reason> {
    given.iter().map(|d| usize::try_from(*d).map_err(|_| format!("{given:?} are no lengths"))).collect()
}

/// Weights in 8 bits around zero.
#[derive(Clone, Debug)]
pub struct Stored8 {
    /// The weights.
    pub values: Vec<i8>,
    /// One scale, or one for each index of `axis`.
    pub scales: Vec<f32>,
    /// The dimension that scales are for.
    pub axis: usize,
}

impl Constant {
    fn of(dims: Vec<usize>, values: Vec<f32>, kind: DataType) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Constant { dims, values: Values::of(values), kind, levels: None }
    }

    /// A list of whole numbers.
    pub fn list(values: impl IntoIterator<Item = i64>) -> Self {
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        Constant::of(vec![values.len()], values, DataType::Int64)
    }

    /// Reads a stored tensor, if it holds numbers of a kind that weights and shapes are made of.
    pub fn read(tensor: &TensorProto) -> Option<Self> {
        let dims = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<_>>>()?;
        let stored = DataType::try_from(tensor.data_type).ok()?;
        // what is stored in 16 bits is computed with in 32
        let kind = if is_integer(stored) { stored } else { DataType::Float };
        let count = count(&dims).ok()?;
        if bytes_of(stored).is_some_and(|bytes| count >= LARGE && tensor.raw_data.len() == bytes * count) {
            let source = Some(Source::Raw(tensor.raw_data.clone(), stored));
            return Some(Constant { dims, values: Values { source, ..Values::default() }, kind, levels: None });
        }
        let values = numbers(tensor, stored)?;
        (values.len() == count).then(|| Constant::of(dims, values, kind))
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
    fn strided(&self, dims: Vec<usize>, start: usize, strides: &[isize]) -> Self {
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
        Constant::of(dims, values, self.kind)
    }

    fn transposed(&self, perm: &[usize]) -> Self {
        let strides = row_major(&self.dims);
        let strides: Vec<isize> = perm.iter().map(|p| strides[*p] as isize).collect();
        self.strided(perm.iter().map(|p| self.dims[*p]).collect(), 0, &strides)
    }

    fn expanded(&self, dims: &[usize]) -> Self {
        let strides = broadcast_strides(&self.dims, &row_major(&self.dims), dims);
        self.strided(dims.to_vec(), 0, &strides.iter().map(|s| *s as isize).collect::<Vec<_>>())
    }
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
            _ => Err(format!("shapes {a:?} and {b:?} do not go together")),
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

/// An axis of a tensor of this rank, which may be counted from the end.
pub fn axis(value: i64, rank: usize) -> Result<usize, Reason> {
    let rank = rank as i64;
    let a = if value < 0 { value + rank } else { value };
    if (0..rank).contains(&a) { Ok(a as usize) } else { Err(format!("there is no dimension {value}")) }
}

/// Where the parts of a Slice lie: for each dimension the first index, the step, and how many there are.
pub fn slice(
    node: &NodeProto,
    dims: &[usize],
    input: &[Option<&Constant>],
) -> Result<Vec<(usize, isize, usize)>, Reason> {
    let list = |i: usize, name: &str| {
        input.get(i).copied().flatten().map(Constant::integers).or_else(|| ints(node, name).map(<[i64]>::to_vec))
    };
    let unknown = || format!("the slice {} is not known", node.name);
    let (starts, ends) = (list(1, "starts").ok_or_else(unknown)?, list(2, "ends").ok_or_else(unknown)?);
    let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps").unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(unknown());
    }
    let mut all: Vec<(usize, isize, usize)> = dims.iter().map(|d| (0, 1, *d)).collect();
    for i in 0..starts.len() {
        let a = axis(axes[i], dims.len())?;
        let n = dims[a] as i64;
        if n == 0 {
            continue;
        }
        // a step past everything is as long as any other
        let step = steps[i].clamp(-n, n);
        let bound = |v: i64, least: i64, most: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(least, most);
        all[a] = match step {
            1.. => {
                let (first, end) = (bound(starts[i], 0, n), bound(ends[i], 0, n));
                (first as usize, step as isize, (end - first).max(0).div_ceil_signed(step))
            }
            ..=-1 => {
                let (first, end) = (bound(starts[i], 0, n - 1), bound(ends[i], -1, n - 1));
                (first as usize, step as isize, (first - end).max(0).div_ceil_signed(-step))
            }
            0 => return Err(unknown()),
        };
    }
    Ok(all)
}

trait DivCeil {
    fn div_ceil_signed(self, by: i64) -> usize;
}

impl DivCeil for i64 {
    fn div_ceil_signed(self, by: i64) -> usize {
        ((self + by - 1) / by) as usize
    }
}

/// The lengths of a Split's parts.
pub fn split(node: &NodeProto, length: usize, given: Option<&Constant>) -> Result<Vec<usize>, Reason> {
    let sizes = given.map(Constant::integers).or_else(|| ints(node, "split").map(<[i64]>::to_vec));
    let sizes: Vec<usize> = match sizes {
        Some(sizes) => lengths(&sizes)?,
        None => {
            let parts = node.output.len().max(1);
            let each = length.div_ceil(parts);
            (0..parts).map(|i| each.min(length - (i * each).min(length))).collect()
        }
    };
    if sizes.iter().try_fold(0usize, |n, s| n.checked_add(*s)) == Some(length) && sizes.len() == node.output.len() {
        Ok(sizes)
    } else {
        Err(format!("the parts of {} do not fit", node.name))
    }
}

/// The axes of Unsqueeze, Squeeze and reductions: an attribute once, an input now.
pub fn axes(node: &NodeProto, given: Option<&Constant>) -> Option<Vec<i64>> {
    given.map(Constant::integers).or_else(|| ints(node, "axes").map(<[i64]>::to_vec))
}

/// The dimensions that a Reshape asks for.
pub fn reshape(node: &NodeProto, dims: &[usize], to: &[i64]) -> Result<Vec<usize>, Reason> {
    let zero_is_zero = int(node, "allowzero") == Some(1);
    let mut result = Vec::with_capacity(to.len());
    for (i, d) in to.iter().enumerate() {
        result.push(match d {
            0 if !zero_is_zero => *dims.get(i).ok_or_else(|| format!("the shape of {} does not fit", node.name))?,
            -1 => 0,
            d => lengths(&[*d])?[0],
        });
    }
    let total = count(dims)?;
    if let Some(open) = to.iter().position(|d| *d == -1) {
        let others: Vec<usize> = result.iter().enumerate().filter(|(i, _)| *i != open).map(|(_, d)| *d).collect();
        let others = count(&others)?;
        result[open] = total.checked_div(others).unwrap_or(0);
    }
    if count(&result)? == total { Ok(result) } else { Err(format!("{dims:?} cannot be reshaped to {to:?}")) }
}

/// What `node` makes of stored tensors alone; `None` if that is not worked out here.
///
/// # Errors
/// When the tensors do not go together.
pub fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let first = input.first().copied().flatten();
    let second = input.get(1).copied().flatten();
    let one = |c: Constant| Ok(Some(vec![c]));
    if node.op_type == "Constant" {
        return Ok(constant_node(node).map(|c| vec![c]));
    }
    let Some(a) = first else { return Ok(None) };
    let rank = a.dims.len();
    let each =
        |f: &dyn Fn(f32) -> f32| one(Constant::of(a.dims.clone(), a.values.iter().map(|v| f(*v)).collect(), a.kind));
    match (node.op_type.as_str(), second) {
        ("Identity" | "Dropout", _) => one(a.clone()),
        ("DequantizeLinear", Some(_)) => one(dequantize(node, input)?),
        ("QuantizeLinear", Some(scale)) => {
            let zero = input.get(2).copied().flatten();
            let (kind, bounds) = match zero.map(|z| z.kind) {
                Some(DataType::Int8) => (DataType::Int8, (-128.0, 127.0)),
                None | Some(DataType::Uint8) => (DataType::Uint8, (0.0, 255.0)),
                _ => return Ok(None),
            };
            let zero = zero.map_or(&[0.0][..], |z| &z.values);
            let ([scale], [zero]) = (scale.values.as_slice(), zero) else { return Ok(None) };
            let level = |v: &f32| ((v / scale).round_ties_even() + zero).clamp(bounds.0, bounds.1);
            one(Constant::of(a.dims.clone(), a.values.iter().map(level).collect(), kind))
        }
        ("Cast", _) => {
            let kind = int(node, "to").and_then(|k| DataType::try_from(k as i32).ok()).unwrap_or(DataType::Float);
            if !is_integer(kind) && !a.is_integer() {
                return one(Constant { kind, levels: None, ..a.clone() });
            }
            let convert = |v: f32| if is_integer(kind) && !a.is_integer() { v.trunc() } else { v };
            one(Constant::of(a.dims.clone(), a.values.iter().map(|v| convert(*v)).collect(), kind))
        }
        ("CastLike", Some(b)) => one(Constant { kind: b.kind, ..a.clone() }),
        ("ConstantOfShape", _) => {
            let dims = lengths(&a.integers())?;
            let value = node.attribute.iter().find(|t| t.name == "value").and_then(|t| t.t.as_ref());
            let value =
                value.and_then(Constant::read).unwrap_or_else(|| Constant::of(vec![1], vec![0.0], DataType::Float));
            let len = made(&dims, 0)?;
            one(Constant::of(dims, vec![value.values.first().copied().unwrap_or(0.0); len], value.kind))
        }
        ("Neg", _) => each(&|v| -v),
        ("Sqrt", _) => each(&f32::sqrt),
        ("Reciprocal", _) => each(&|v| 1.0 / v),
        ("Exp", _) => each(&libm::expf),
        ("Log", _) => each(&libm::logf),
        ("Sin", _) => each(&libm::sinf),
        ("Cos", _) => each(&libm::cosf),
        ("Abs", _) => each(&f32::abs),
        ("Floor", _) => each(&f32::floor),
        ("Ceil", _) => each(&f32::ceil),
        ("Not", _) => each(&|v| f32::from(v == 0.0)),
        (
            op @ ("Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Mod" | "Equal" | "Less" | "Greater" | "And"
            | "Or"),
            Some(b),
        ) => {
            let whole = a.is_integer() && b.is_integer();
            let f = |x: f32, y: f32| match op {
                "Add" => x + y,
                "Sub" => x - y,
                "Mul" => x * y,
                "Div" if whole => (x / y).trunc(),
                "Div" => x / y,
                "Pow" => libm::powf(x, y),
                "Min" => x.min(y),
                "Max" => x.max(y),
                "Mod" => x - y * (x / y).floor(),
                "Equal" => f32::from(x == y),
                "Less" => f32::from(x < y),
                "Greater" => f32::from(x > y),
                "And" => f32::from(x != 0.0 && y != 0.0),
                _ => f32::from(x != 0.0 || y != 0.0),
            };
            let dims = broadcast(&a.dims, &b.dims)?;
            made(&dims, a.values.len() + b.values.len())?;
            let (x, y) = (a.expanded(&dims), b.expanded(&dims));
            let kind = if matches!(op, "Equal" | "Less" | "Greater" | "And" | "Or") { DataType::Bool } else { a.kind };
            one(Constant::of(dims, x.values.iter().zip(y.values.iter()).map(|(x, y)| f(*x, *y)).collect(), kind))
        }
        ("Where", Some(b)) => {
            let Some(c) = input.get(2).copied().flatten() else { return Ok(None) };
            let dims = broadcast(&broadcast(&a.dims, &b.dims)?, &c.dims)?;
            made(&dims, b.values.len() + c.values.len())?;
            let (test, b, c) = (a.expanded(&dims), b.expanded(&dims), c.expanded(&dims));
            let chosen = test.values.iter().zip(b.values.iter().zip(c.values.iter()));
            one(Constant::of(dims, chosen.map(|(t, (b, c))| if *t != 0.0 { *b } else { *c }).collect(), b.kind))
        }
        ("Reshape", Some(to)) => {
            one(Constant { dims: reshape(node, &a.dims, &to.integers())?, levels: None, ..a.clone() })
        }
        ("Flatten", _) => {
            let at = axis(int(node, "axis").unwrap_or(1), rank + 1)?;
            let dims = vec![a.dims[..at].iter().product(), a.dims[at..].iter().product()];
            one(Constant { dims, levels: None, ..a.clone() })
        }
        ("Unsqueeze", _) => one(Constant { dims: unsqueeze(node, &a.dims, second)?, levels: None, ..a.clone() }),
        ("Squeeze", _) => one(Constant { dims: squeeze(node, &a.dims, second)?, levels: None, ..a.clone() }),
        ("Transpose", _) => one(a.transposed(&permutation(node, rank)?)),
        ("Expand", Some(to)) => {
            let dims = broadcast(&a.dims, &lengths(&to.integers())?)?;
            made(&dims, a.values.len())?;
            one(a.expanded(&dims))
        }
        ("Gather", Some(index)) => {
            let at = axis(int(node, "axis").unwrap_or(0), rank)?;
            let (outer, inner): (usize, usize) = (a.dims[..at].iter().product(), a.dims[at + 1..].iter().product());
            let length = a.dims[at];
            let dims = [&a.dims[..at], &index.dims, &a.dims[at + 1..]].concat();
            made(&dims, a.values.len())?;
            let mut values = Vec::new();
            for o in 0..outer {
                for i in index.integers() {
                    let i = if i < 0 { i + length as i64 } else { i } as usize;
                    if i >= length {
                        return Err(format!("the index of {} is out of range", node.name));
                    }
                    values.extend_from_slice(&a.values[(o * length + i) * inner..][..inner]);
                }
            }
            one(Constant::of(dims, values, a.kind))
        }
        ("Slice", _) => {
            let parts = slice(node, &a.dims, input)?;
            let strides = row_major(&a.dims);
            let start = parts.iter().zip(&strides).map(|(p, s)| p.0 * s).sum();
            let steps: Vec<isize> = parts.iter().zip(&strides).map(|(p, s)| p.1 * *s as isize).collect();
            one(a.strided(parts.iter().map(|p| p.2).collect(), start, &steps))
        }
        ("Split", _) => {
            let at = axis(int(node, "axis").unwrap_or(0), rank)?;
            let strides = row_major(&a.dims);
            let steps: Vec<isize> = strides.iter().map(|s| *s as isize).collect();
            let mut first = 0;
            let part = |size: usize| {
                let mut dims = a.dims.clone();
                dims[at] = size;
                let part = a.strided(dims, first * strides[at], &steps);
                first += size;
                part
            };
            Ok(Some(split(node, a.dims[at], second)?.into_iter().map(part).collect()))
        }
        ("Concat", _) => {
            let all: Option<Vec<&Constant>> = input.iter().copied().collect();
            let Some(all) = all else { return Ok(None) };
            let at = axis(int(node, "axis").unwrap_or(0), rank)?;
            let alike = |c: &&Constant| c.dims.len() == rank && (0..rank).all(|k| k == at || c.dims[k] == a.dims[k]);
            if !all.iter().all(alike) {
                return Err("a concatenation does not fit".into());
            }
            let outer: usize = a.dims[..at].iter().product();
            let mut values = Vec::new();
            for o in 0..outer {
                for c in &all {
                    let each: usize = c.dims[at..].iter().product();
                    values.extend_from_slice(&c.values[o * each..(o + 1) * each]);
                }
            }
            let mut dims = a.dims.clone();
            dims[at] = all.iter().map(|c| c.dims[at]).sum();
            one(Constant::of(dims, values, a.kind))
        }
        ("Range", Some(limit)) => {
            let Some(step) = input.get(2).copied().flatten() else { return Ok(None) };
            let [&[start], &[limit], &[step]] = [a, limit, step].map(|c| c.values.as_slice()) else {
                return Err("a range is of numbers".into());
            };
            let count = ((limit - start) / step).ceil().max(0.0) as usize;
            made(&[count], 0)?;
            one(Constant::of(vec![count], (0..count).map(|i| start + i as f32 * step).collect(), a.kind))
        }
        ("ReduceProd", _) => one(Constant::of(vec![], vec![a.values.iter().product()], a.kind)),
        ("ScatterND", Some(index)) if text(node, "reduction").is_none_or(|r| r == "none") => {
            let Some(updates) = input.get(2).copied().flatten() else { return Ok(None) };
            let unfit = || format!("ScatterND {}: the indices do not fit", node.name);
            let depth = index.dims.last().copied().filter(|d| (1..=rank).contains(d)).ok_or_else(unfit)?;
            let each: usize = a.dims[depth..].iter().product();
            let mut values = a.values.to_vec();
            let places = index.integers();
            if updates.values.len() != places.len() / depth * each {
                return Err(unfit());
            }
            for (i, place) in places.chunks_exact(depth).enumerate() {
                let mut at = 0;
                for (p, d) in place.iter().zip(&a.dims) {
                    let p = usize::try_from(if *p < 0 { p + *d as i64 } else { *p }).ok().filter(|p| p < d);
                    at = at * d + p.ok_or_else(unfit)?;
                }
                values[at * each..][..each].copy_from_slice(&updates.values[i * each..][..each]);
            }
            one(Constant::of(a.dims.clone(), values, a.kind))
        }
        ("Tile", Some(times)) if times.values.iter().all(|t| *t == 1.0) => one(a.clone()),
        _ => Ok(None),
    }
}

/// The dimensions with those of length one that are put in.
pub fn unsqueeze(node: &NodeProto, dims: &[usize], given: Option<&Constant>) -> Result<Vec<usize>, Reason> {
    let new = axes(node, given).ok_or_else(|| format!("the axes of {} are not known", node.name))?;
    let rank = dims.len() + new.len();
    let new = new.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut rest = dims.iter();
    let fill = |i: usize| if new.contains(&i) { Some(1) } else { rest.next().copied() };
    (0..rank).map(fill).collect::<Option<_>>().ok_or_else(|| format!("the axes of {} are doubled", node.name))
}

/// The dimensions without those of length one that are taken out.
pub fn squeeze(node: &NodeProto, dims: &[usize], given: Option<&Constant>) -> Result<Vec<usize>, Reason> {
    let gone = match axes(node, given) {
        Some(all) => all.into_iter().map(|a| axis(a, dims.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).filter(|i| dims[*i] == 1).collect(),
    };
    Ok(dims.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, d)| *d).collect())
}

/// The order that a Transpose puts the dimensions in.
pub fn permutation(node: &NodeProto, rank: usize) -> Result<Vec<usize>, Reason> {
    let perm: Vec<usize> = match ints(node, "perm") {
        Some(perm) => perm.iter().map(|p| *p as usize).collect(),
        None => (0..rank).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted == (0..rank).collect::<Vec<_>>() { Ok(perm) } else { Err(format!("{} is no permutation", node.name)) }
}

fn constant_node(node: &NodeProto) -> Option<Constant> {
    let attribute = node.attribute.first()?;
    match attribute.name.as_str() {
        "value" => Constant::read(attribute.t.as_ref()?),
        "value_float" => Some(Constant::of(vec![], vec![float(node, "value_float")?], DataType::Float)),
        "value_int" => Some(Constant::of(vec![], vec![int(node, "value_int")? as f32], DataType::Int64)),
        "value_floats" => Some(Constant::of(vec![attribute.floats.len()], attribute.floats.clone(), DataType::Float)),
        "value_ints" => Some(Constant::list(attribute.ints.iter().copied())),
        _ => None,
    }
}

fn dequantize(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Constant, Reason> {
    let unknown = || format!("DequantizeLinear {} of an unknown form", node.name);
    let of = |i: usize| input.get(i).copied().flatten();
    let (stored, scale) = (of(0).ok_or_else(unknown)?, of(1).ok_or_else(unknown)?);
    let axis = int(node, "axis").unwrap_or(1);
    let axis = if axis < 0 { axis + stored.dims.len() as i64 } else { axis };
    let groups = scale.values.len();
    let axis = usize::try_from(axis).ok().filter(|a| groups == 1 || *a < stored.dims.len()).ok_or_else(unknown)?;
    if (groups != 1 && stored.dims[axis] != groups) || text(node, "block_size").is_some() {
        return Err(unknown());
    }
    let each: usize = stored.dims.iter().skip(axis + 1).product();
    let zeros: Vec<f32> = of(2).map_or_else(|| vec![0.0], |z| z.values.to_vec());
    if zeros.len() != 1 && zeros.len() != groups {
        return Err(unknown());
    }
    let around_zero = stored.kind == DataType::Int8 && zeros.iter().all(|z| *z == 0.0);
    if around_zero {
        let levels = Arc::new(Stored8 { values: stored.values.to_i8(), scales: scale.values.to_vec(), axis });
        let each = if groups == 1 { levels.values.len() } else { each };
        let source = Some(Source::Levels(levels.clone(), each));
        let values = Values { source, ..Values::default() };
        return Ok(Constant { dims: stored.dims.clone(), values, kind: DataType::Float, levels: Some(levels) });
    }
    let mut values = stored.values.to_vec();
    for (i, run) in values.chunks_mut(if groups == 1 { stored.values.len().max(1) } else { each.max(1) }).enumerate() {
        let (scale, zero) = (scale.values[i % groups], zeros[i % zeros.len()]);
        run.iter_mut().for_each(|v| *v = (*v - zero) * scale);
    }
    Ok(Constant::of(stored.dims.clone(), values, DataType::Float))
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

#[cfg(test)]
mod tests {
    use super::*;
    use onnx::pb::AttributeProto;

    fn node(op: &str, outputs: usize, ints: &[(&str, i64)]) -> NodeProto {
        let attribute = |(name, i): &(&str, i64)| AttributeProto { name: (*name).into(), i: *i, ..Default::default() };
        NodeProto {
            op_type: op.into(),
            output: (0..outputs).map(|i| i.to_string()).collect(),
            attribute: ints.iter().map(attribute).collect(),
            ..Default::default()
        }
    }

    fn counted(dims: &[usize]) -> Constant {
        let len: usize = dims.iter().product();
        Constant::of(dims.to_vec(), (0..len).map(|i| i as f32).collect(), DataType::Float)
    }

    fn folded(node: &NodeProto, input: &[&Constant]) -> Vec<Constant> {
        let input: Vec<Option<&Constant>> = input.iter().map(|c| Some(*c)).collect();
        fold(node, &input).unwrap().expect("this is worked out")
    }

    #[test]
    fn slices_go_forward_backward_and_to_the_end() {
        let x = counted(&[2, 5]);
        let lists = |v: [[i64; 1]; 4]| v.map(Constant::list);
        let cases: [([[i64; 1]; 4], &[f32]); 4] = [
            ([[1], [i64::MAX], [1], [2]], &[1., 3., 6., 8.]),
            ([[-2], [5], [-1], [1]], &[3., 4., 8., 9.]),
            ([[-1], [i64::MIN], [1], [-1]], &[4., 3., 2., 1., 0., 9., 8., 7., 6., 5.]),
            ([[4], [0], [1], [-3]], &[4., 1., 9., 6.]),
        ];
        for (numbers, expected) in cases {
            let [starts, ends, axes, steps] = &lists(numbers);
            assert_eq!(
                folded(&node("Slice", 1, &[]), &[&x, starts, ends, axes, steps])[0].values.as_slice(),
                expected,
                "{numbers:?}"
            );
        }
    }

    #[test]
    fn shapes_are_worked_out_as_graphs_do_it() {
        let (a, b) = (counted(&[2, 1]), counted(&[3]));
        let sum = &folded(&node("Add", 1, &[]), &[&a, &b])[0];
        assert_eq!((sum.dims.as_slice(), sum.values.as_slice()), (&[2, 3][..], &[0., 1., 2., 1., 2., 3.][..]));
        let seven = Constant::list([-7, 7]);
        assert_eq!(folded(&node("Div", 1, &[]), &[&seven, &Constant::list([2])])[0].values.as_slice(), [-3., 3.]);
        let parts = folded(&node("Split", 2, &[("axis", 1)]), &[&counted(&[2, 3])]);
        assert_eq!((parts[0].values.as_slice(), parts[1].values.as_slice()), (&[0., 1., 3., 4.][..], &[2., 5.][..]));
        let joined = &folded(&node("Concat", 1, &[("axis", -1)]), &[&parts[0], &parts[1]])[0];
        assert_eq!(joined.values.as_slice(), counted(&[2, 3]).values.as_slice());
        assert_eq!(
            folded(&node("Transpose", 1, &[]), &[&counted(&[2, 3])])[0].values.as_slice(),
            [0., 3., 1., 4., 2., 5.]
        );
        let to = Constant::list([0, -1, 2]);
        assert_eq!(folded(&node("Reshape", 1, &[]), &[&counted(&[2, 6]), &to])[0].dims, [2, 3, 2]);
        assert!(fold(&node("Reshape", 1, &[]), &[Some(&counted(&[2, 2])), Some(&Constant::list([3]))]).is_err());
    }
}
