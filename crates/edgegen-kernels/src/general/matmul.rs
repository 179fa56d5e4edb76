//! Products of matrices.

use super::{CHUNK, RANK, StridedLoops};
use crate::arena::apart;
use crate::memory::{Memory, Part};
use crate::pointer::{Source, Target};
use crate::simd::{Simd, WIDEST};
use crate::weights::Real;

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
        let (dims, [(_, along), ..]) = batch.parts();
        for (side, n) in sides[2..].iter_mut().zip(along.into_iter().zip(dims)) {
            *side = n;
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
        self.batch.starts()
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
pub(crate) fn matmul<S: Simd>(s: S, p: &MatMul, part: Part, work: &mut [f32], memory: Memory) {
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
                    unsafe { f32::put_some(s, to, at, left, *sum) }
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
    use super::super::testing::{loops, noisy, read};
    use super::*;
    use crate::Isa;
    use crate::arena::StridedView;

    #[test]
    fn products_are_right() {
        let before = noisy(4000);
        // the second factor transposed, and one of the first for all
        let a = StridedView::strided(1, vec![3, 7, 19], vec![0, 25, 1]);
        let b = StridedView::strided(300, vec![3, 19, 21], vec![500, 1, 20]);
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
