//! Loops over values of any shape and strides.

use crate::arena::apart;
use crate::memory::Part;

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
    pub(crate) fn end(&self, v: usize) -> Option<usize> {
        if self.dims.contains(&0) {
            return Some(0);
        }
        let mut sides = self.dims.iter().zip(&self.strides[v]);
        let last = sides.try_fold(self.starts[v], |at, (d, s)| at.checked_add((d - 1).checked_mul(*s)?))?;
        last.checked_add(1).filter(|end| *end <= isize::MAX as usize)
    }

    /// Whether value `v` lies within a buffer of `len` numbers.
    pub(crate) fn fits(&self, v: usize, len: usize) -> bool {
        self.end(v).is_some_and(|end| end <= len)
    }

    /// Whether no number of the result lies where another one does, where each is a run of `length` numbers: threads may
    /// then each write some of them.
    pub(crate) fn is_apart(&self, length: usize) -> bool {
        let mut sides = [(1, length); RANK + 1];
        for (side, (stride, n)) in sides.iter_mut().zip(self.strides[0].iter().zip(&self.dims)) {
            *side = (*stride, *n);
        }
        self.dims.contains(&0) || apart(sides)
    }

    /// The loops, and which part of their runs, that make this part: where there is but one run, some of its numbers,
    /// in groups of `together`.
    #[inline(always)]
    pub(crate) fn part(&self, part: Part, together: usize) -> (Self, Part) {
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
    pub(crate) fn runs(&self, part: Part) -> Runs<'_, N> {
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

    pub(crate) fn last(&self) -> (usize, [usize; N]) {
        (self.dims[RANK - 1], std::array::from_fn(|v| self.strides[v][RANK - 1]))
    }
}

/// See [`StridedLoops::runs`]. Not a function that calls a closure: one that is not compiled into its caller lacks the CPU's
/// features.
pub(crate) struct Runs<'a, const N: usize> {
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
