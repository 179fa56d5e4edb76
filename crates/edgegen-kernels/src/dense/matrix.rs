//! Matrices times vectors.

use crate::pointer::{Source, Target};
use crate::simd::{Simd, WIDEST};
use crate::weights::{Number, Order, Real, Stored, Weights};

/// A matrix that is multiplied with vectors, plus a vector.
#[derive(Clone, Debug)]
pub struct Matrix {
    rows: usize,
    /// By columns, each padded to whole vectors.
    weights: Weights,
    /// Padded alike.
    bias: Vec<f32>,
}

/// The numbers of `[rows, columns]`, or of `[columns, rows]`, by columns.
struct ByColumn {
    rows: usize,
    columns: usize,
    by_column: bool,
}

impl Order for ByColumn {
    fn arrange<T: Copy + Default>(&self, weights: &[T]) -> Vec<T> {
        let (rows, columns) = (self.rows, self.columns);
        let padded = rows.next_multiple_of(WIDEST);
        let mut all = vec![T::default(); columns * padded];
        for (c, column) in all.chunks_exact_mut(padded).enumerate() {
            for (r, to) in column[..rows].iter_mut().enumerate() {
                *to = weights[if self.by_column { c * rows + r } else { r * columns + c }];
            }
        }
        all
    }
}

impl Matrix {
    /// Of `[rows, columns]` numbers, or `[columns, rows]` if they are `by_column`.
    ///
    /// # Errors
    /// When there are not as many weights, scales or biases, none at all, or more than can be counted.
    pub fn new(
        stored: Stored,
        rows: usize,
        columns: usize,
        by_column: bool,
        bias: Option<&[f32]>,
    ) -> Result<Self, String> {
        let padded = rows.checked_next_multiple_of(WIDEST).filter(|padded| padded.checked_mul(columns).is_some());
        let Some(padded) = padded.filter(|_| rows > 0 && columns > 0) else {
            return Err(format!("a matrix of {rows} rows and {columns} columns"));
        };
        stored.check(rows * columns, rows)?;
        if bias.is_some_and(|b| b.len() != rows) {
            return Err(format!("a matrix of {rows} rows and another number of biases"));
        }
        let mut bias = bias.map_or_else(Vec::new, <[f32]>::to_vec);
        bias.resize(padded, 0.0);
        Ok(Matrix { rows, weights: Weights::new(stored, &ByColumn { rows, columns, by_column }, padded), bias })
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + size_of_val(self.bias.as_slice())
    }
}

/// Vectors of a matrix's rows that are added up together.
const ROWS: usize = 4;

/// `out = a x + b`.
///
/// # Panics
/// When the vectors are not of the matrix's sizes.
#[inline(always)]
pub(crate) fn matrix_vector<S: Simd>(s: S, matrix: &Matrix, x: &[f32], out: &mut [f32]) {
    match &matrix.weights {
        Weights::F32(columns) | Weights::Whole(columns, _) => rows_of(s, columns, matrix, x, out),
        Weights::F16(columns) => rows_of(s, columns, matrix, x, out),
        Weights::I8(columns, _) => rows_of(s, columns, matrix, x, out),
    }
}

#[inline(always)]
fn rows_of<S: Simd, W: Number>(s: S, columns: &[W], matrix: &Matrix, x: &[f32], out: &mut [f32]) {
    let padded = matrix.bias.len();
    assert!(out.len() == matrix.rows && Some(columns.len()) == padded.checked_mul(x.len()));
    let (vectors, mut v) = (matrix.rows.div_ceil(S::LANES), 0);
    while v < vectors {
        if vectors - v >= ROWS {
            some_rows::<S, W, ROWS>(s, columns, matrix, x, v * S::LANES, out);
            v += ROWS;
        } else {
            some_rows::<S, W, 1>(s, columns, matrix, x, v * S::LANES, out);
            v += 1;
        }
    }
}

/// V vectors of rows from `first` on.
#[inline(always)]
fn some_rows<S: Simd, W: Number, const V: usize>(
    s: S,
    columns: &[W],
    matrix: &Matrix,
    x: &[f32],
    first: usize,
    out: &mut [f32],
) {
    let padded = matrix.bias.len();
    assert!(first + V * S::LANES <= padded && columns.len() == padded * x.len());
    let mut bias = [s.splat(0.0); V];
    for (v, bias) in bias.iter_mut().enumerate() {
        *bias = s.read(&matrix.bias, first + v * S::LANES);
    }
    let scales = matrix.weights.scales();
    let mut sums = if scales.is_some() { [s.splat(0.0); V] } else { bias };
    for (k, x) in x.iter().enumerate() {
        // SAFETY: the assertion: column k is there, with these rows.
        let column: [S::F; V] = unsafe { W::load(s, Source::of(columns), k * padded + first) };
        for (sum, w) in sums.iter_mut().zip(column) {
            *sum = s.fma(s.splat(*x), w, *sum);
        }
    }
    if let Some(scales) = scales {
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = s.fma(*sum, s.read(scales, first + v * S::LANES), bias[v]);
        }
    }
    for (v, &sum) in sums.iter().enumerate() {
        let out = &mut out[first + v * S::LANES..];
        let left = out.len();
        // SAFETY: the slice has as many.
        unsafe { f32::put_some(s, Target::of(out), 0, left, sum) }
    }
}
