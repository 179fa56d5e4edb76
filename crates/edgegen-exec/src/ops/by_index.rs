//! What is taken from a value, or written into it, at places that a run computes: Gather, GatherElements, GatherND,
//! ScatterElements and ScatterND by computed indices. An index that points at nothing makes what depends on it no number:
//! it must not become the numbers of another place.

use super::Operation;
use super::gather::index_within;
use crate::compile::Compiler;
use crate::constant::count;
use crate::lower::Operand;
use crate::place::{Access, Handle, Places, Slice, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::{StridedView, row_major};
use kernels::general::RANK;

/// The place that a computed index says, of so many.
fn place_of(index: f32, length: usize) -> Option<usize> {
    // whole, but for what is no number at all
    if index.is_nan() { None } else { index_within(index as i64, length) }
}

/// How an index says what is taken along a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its numbers are indices of whole parts (Gather).
    Parts,
    /// Each of its numbers is the index of one number, whose other indices are its own (GatherElements).
    Elements,
}

/// What is taken from `x` along dimension `axis`.
pub struct Take<'a> {
    pub x: Operand<'a>,
    pub index: &'a str,
    pub axis: usize,
    pub how: Taken,
}

impl<'a> Operation<'a> for Take<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        self.x.value().into_iter().chain([self.index]).collect()
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (x, index) = (c.operand(&self.x)?, c.value(self.index)?);
        let output = c.row_major(c.dims(out)?)?;
        let (mut first, along) = x.without(self.axis);
        // all as wide as the result: what has no say in a dimension has a stride of zero there
        let rank = output.dims.len();
        let mut indices = StridedView { dims: output.dims.clone(), ..index.clone() };
        match self.how {
            Taken::Elements => {
                first.dims = output.dims.clone();
                first.strides.insert(self.axis, 0);
            }
            Taken::Parts => {
                let of_index = index.dims.len();
                let (before, after) = (self.axis, rank - self.axis - of_index);
                indices.strides = [vec![0; before], index.strides.clone(), vec![0; after]].concat();
                first.strides.splice(self.axis..self.axis, vec![0; of_index]);
                first.dims = output.dims.clone();
            }
        }
        let [to, at, from] =
            c.strided_with([&output, &indices, &first], [[(1, 0); 2], [(1, 0); 2], [(1, 0), along]])?;
        let mut places = Places::default();
        let to = places.strided(Access::Write, to);
        let [at, from] = [at, from].map(|x| places.strided(Access::Read, x));
        c.push(TakeStep { to, at, from }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct TakeStep {
    to: Handle<Strided>,
    at: Handle<Strided>,
    /// For each number of the result those that it may be, as the columns of a matrix of one row.
    from: Handle<Strided>,
}

impl Kernel for TakeStep {
    fn name(&self, _: &Places) -> &'static str {
        "numbers by computed places"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len().to_string(), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[40, places.get(self.to).len()]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let [to, at, from] = [self.to, self.at, self.from].map(|place| places.get(place));
        let alike = to.dims[..RANK] == at.dims[..RANK] && to.dims[..RANK] == from.dims[..RANK];
        let [(rows, _), (n, _)] = from.matrix();
        let single = to.matrix() == [(1, 0); 2] && at.matrix() == [(1, 0); 2] && rows == 1 && n > 0;
        if alike && single { Ok(()) } else { Err("indices that do not fit".into()) }
    }

    fn run(&self, Call { part, places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let [to, at, from] = [self.to, self.at, self.from].map(|place| places.get(place));
        let [_, (n, apart)] = from.matrix();
        for i in part.range(to.outer_len()) {
            let [to, at, first] = Strided::starts([&to, &at, &from], i);
            let place = place_of(memory.get(at), n);
            memory.set(to, place.map_or(f32::NAN, |place| memory.get(first + place * apart)));
        }
    }
}

/// What is done to a number that something is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Replace,
    Add,
    Multiply,
    Least,
    Greatest,
}

impl Reduction {
    /// As a node's attribute names it.
    pub fn named(name: Option<&str>) -> Option<Self> {
        Some(match name {
            None | Some("none") => Reduction::Replace,
            Some("add") => Reduction::Add,
            Some("mul") => Reduction::Multiply,
            Some("min") => Reduction::Least,
            Some("max") => Reduction::Greatest,
            Some(_) => return None,
        })
    }

    fn of(self, old: f32, new: f32) -> f32 {
        match self {
            Reduction::Replace => new,
            Reduction::Add => old + new,
            Reduction::Multiply => old * new,
            Reduction::Least => old.min(new),
            Reduction::Greatest => old.max(new),
        }
    }
}

/// How parts of a value are addressed by an index: by how many of its numbers, which are indices of these lengths and strides
/// of the value, and where the numbers of a part lie from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressed {
    /// An index for one dimension, of this length and stride, of each number; the others are its own, of these strides: the
    /// dimensions of the index, too (ScatterElements).
    Element { along: (usize, usize), dims: Vec<usize>, strides: Vec<usize> },
    /// As many indices as there are lengths and strides, and so many numbers from there on (GatherND, ScatterND). Those of
    /// so many indices each lie in the same part of so many numbers of the first dimensions.
    Part { along: Vec<(usize, usize)>, each: usize, of_batch: usize, batch: usize },
}

impl Addressed {
    /// As ScatterElements does along `axis` of a value of these dimensions.
    pub fn elements(dims: &[usize], index: &[usize], axis: usize) -> Option<Self> {
        let within = dims.len() == index.len() && (0..dims.len()).all(|d| d == axis || index[d] <= dims[d]);
        let mut strides = row_major(dims);
        let along = (dims[axis], std::mem::replace(&mut strides[axis], 0));
        within.then(|| Addressed::Element { along, dims: index.to_vec(), strides })
    }

    /// As GatherND and ScatterND do whose index has these dimensions, of which the first `batch` are the value's.
    pub fn parts(dims: &[usize], index: &[usize], batch: usize) -> Option<Self> {
        let (depth, outer) = index.split_last()?;
        let end = batch.checked_add(*depth).filter(|end| *depth > 0 && *end <= dims.len())?;
        if batch > outer.len() || dims[..batch] != outer[..batch] {
            return None;
        }
        let strides = row_major(dims);
        let along = dims[batch..end].iter().copied().zip(strides[batch..end].iter().copied()).collect();
        let each = dims[end..].iter().product();
        let (of_batch, batch) = (outer[batch..].iter().product(), dims[batch..].iter().product());
        Some(Addressed::Part { along, each, of_batch, batch })
    }

    /// How many numbers of the index say a place, and how many numbers lie there.
    fn sizes(&self) -> (usize, usize) {
        match self {
            Addressed::Element { .. } => (1, 1),
            Addressed::Part { along, each, .. } => (along.len(), *each),
        }
    }

    /// Where the numbers lie that entry `i` of the index says; `None` if it points at nothing.
    fn place(&self, i: usize, index: impl Fn(usize) -> f32) -> Option<usize> {
        match self {
            Addressed::Element { along, dims, strides } => {
                let (mut rest, mut at) = (i, place_of(index(i), along.0)? * along.1);
                for (n, stride) in dims.iter().zip(strides).rev() {
                    at += rest % n * stride;
                    rest /= n;
                }
                Some(at)
            }
            Addressed::Part { along, of_batch, batch, .. } => {
                let mut at = i / of_batch * batch;
                for (k, (n, stride)) in along.iter().enumerate() {
                    at += place_of(index(i * along.len() + k), *n)? * stride;
                }
                Some(at)
            }
        }
    }

    /// Whether all places of so many entries lie within so many numbers.
    fn fits(&self, entries: usize, len: usize) -> bool {
        let last = |n: usize, stride: usize| n.checked_sub(1).and_then(|n| n.checked_mul(stride));
        let add = |sum: Option<usize>, next: Option<usize>| sum.zip(next).and_then(|(a, b)| a.checked_add(b));
        match self {
            Addressed::Element { along, dims, strides } => {
                let others = dims.iter().zip(strides).map(|(n, stride)| last(*n, *stride)).fold(Some(0), add);
                let all = count(dims).is_ok_and(|n| n == entries);
                all && add(others, last(along.0, along.1)).is_some_and(|last| last < len)
            }
            Addressed::Part { along, each, of_batch, batch } => {
                let within = along.iter().map(|(n, stride)| last(*n, *stride)).fold(Some(0), add);
                let batches = entries.checked_div(*of_batch).and_then(|n| last(n, *batch));
                let end = add(add(within, batches), Some(*each));
                *of_batch > 0 && entries.is_multiple_of(*of_batch) && end.is_some_and(|end| end <= len)
            }
        }
    }
}

/// A value into which others are written.
pub struct Scatter<'a> {
    pub x: Operand<'a>,
    pub index: Operand<'a>,
    pub updates: Operand<'a>,
    pub addressed: Addressed,
    pub reduction: Reduction,
}

/// Parts of a value, by computed indices.
pub struct TakeParts<'a> {
    pub x: Operand<'a>,
    pub index: &'a str,
    pub addressed: Addressed,
}

/// An operand as numbers that lie together, which a step reads.
fn run_of<'a>(c: &mut Compiler<'_, 'a>, x: &Operand<'a>, places: &mut Places) -> Result<Handle<Slice>, Reason> {
    let place = c.operand(x)?;
    let place = c.contiguous(&place, |p| p.run().is_some())?;
    Ok(places.slice(Access::Read, Slice { start: place.run().unwrap_or(place.start), len: place.len() }))
}

impl<'a> Operation<'a> for Scatter<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        [&self.x, &self.index, &self.updates].into_iter().filter_map(Operand::value).collect()
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let mut places = Places::default();
        let x = run_of(c, &self.x, &mut places)?;
        let index = run_of(c, &self.index, &mut places)?;
        let updates = run_of(c, &self.updates, &mut places)?;
        let output = c.row_major(c.dims(out)?)?;
        let to = places.slice(Access::Write, Slice { start: output.start, len: output.len() });
        let (addressed, reduction) = (self.addressed.clone(), self.reduction);
        c.push(ScatterStep { x, index, updates, to, addressed, reduction }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct ScatterStep {
    x: Handle<Slice>,
    index: Handle<Slice>,
    updates: Handle<Slice>,
    to: Handle<Slice>,
    addressed: Addressed,
    reduction: Reduction,
}

impl Kernel for ScatterStep {
    fn name(&self, _: &Places) -> &'static str {
        "numbers to computed places"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (format!("{} into {}", places.get(self.updates).len, places.get(self.to).len), 0)
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let [x, index, updates, to] = [self.x, self.index, self.updates, self.to].map(|place| places.get(place).len);
        let (depth, each) = self.addressed.sizes();
        let entries = index.checked_div(depth).filter(|_| index.is_multiple_of(depth));
        let fits =
            x == to && entries.is_some_and(|n| n.checked_mul(each) == Some(updates) && self.addressed.fits(n, to));
        if fits { Ok(()) } else { Err("indices that do not fit".into()) }
    }

    fn run(&self, Call { places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let [x, index, updates, to] = [self.x, self.index, self.updates, self.to].map(|place| places.get(place));
        (0..x.len).for_each(|i| memory.set(to.start + i, memory.get(x.start + i)));
        let (depth, each) = self.addressed.sizes();
        for i in 0..index.len / depth {
            let Some(at) = self.addressed.place(i, |k| memory.get(index.start + k)) else {
                return (0..to.len).for_each(|i| memory.set(to.start + i, f32::NAN));
            };
            for k in 0..each {
                let at = to.start + at + k;
                memory.set(at, self.reduction.of(memory.get(at), memory.get(updates.start + i * each + k)));
            }
        }
    }
}

impl<'a> Operation<'a> for TakeParts<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        self.x.value().into_iter().chain([self.index]).collect()
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let mut places = Places::default();
        let x = run_of(c, &self.x, &mut places)?;
        let index = run_of(c, &Operand::Value(self.index), &mut places)?;
        let output = c.row_major(c.dims(out)?)?;
        let to = places.slice(Access::Write, Slice { start: output.start, len: output.len() });
        c.push(TakePartsStep { x, index, to, addressed: self.addressed.clone() }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct TakePartsStep {
    x: Handle<Slice>,
    index: Handle<Slice>,
    to: Handle<Slice>,
    addressed: Addressed,
}

impl Kernel for TakePartsStep {
    fn name(&self, _: &Places) -> &'static str {
        "numbers by computed places"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len.to_string(), 0)
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let [x, index, to] = [self.x, self.index, self.to].map(|place| places.get(place).len);
        let (depth, each) = self.addressed.sizes();
        let entries = index.checked_div(depth).filter(|_| index.is_multiple_of(depth));
        let fits = entries.is_some_and(|n| n.checked_mul(each) == Some(to) && self.addressed.fits(n, x));
        if fits { Ok(()) } else { Err("indices that do not fit".into()) }
    }

    fn run(&self, Call { places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let [x, index, to] = [self.x, self.index, self.to].map(|place| places.get(place));
        let (depth, each) = self.addressed.sizes();
        for i in 0..index.len / depth {
            let at = self.addressed.place(i, |k| memory.get(index.start + k));
            for k in 0..each {
                let value = at.map_or(f32::NAN, |at| memory.get(x.start + at + k));
                memory.set(to.start + i * each + k, value);
            }
        }
    }
}
