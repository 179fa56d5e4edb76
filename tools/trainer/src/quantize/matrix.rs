//! Products and factors of matrices, which lie row by row.

use anyhow::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// `a b^T` of matrices whose rows have `k` numbers.
pub fn product(a: &[f32], b: &[f32], k: usize) -> Result<Vec<f32>> {
    if a.is_empty() || b.is_empty() {
        return Ok(Vec::new());
    }
    let of = |m: &[f32]| Tensor::from_slice(m, (m.len() / k, k), &Device::Cpu);
    Ok(of(a)?.matmul(&of(b)?.t()?)?.flatten_all()?.to_vec1()?)
}

/// `a^T b` of matrices of as many rows, which have `ka` and `kb` numbers.
pub fn product_of_columns(a: &[f32], ka: usize, b: &[f32], kb: usize) -> Result<Vec<f32>> {
    let of = |m: &[f32], k: usize| Tensor::from_slice(m, (m.len() / k, k), &Device::Cpu);
    Ok(of(a, ka)?.t()?.matmul(&of(b, kb)?)?.flatten_all()?.to_vec1()?)
}

/// The sum of products, in an order that vectors of any width share.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a16, a_rest) = a.as_chunks::<16>();
    let (b16, b_rest) = b.as_chunks::<16>();
    let mut sums = [0f32; 16];
    for (a, b) in a16.iter().zip(b16) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// A Cholesky factor: `h = l l^T`.
pub struct Factor {
    /// The lower factor, row by row.
    lower: Vec<f32>,
    /// The same turned.
    upper: Vec<f32>,
    k: usize,
}

/// Columns that are worked out together.
const BLOCK: usize = 64;

impl Factor {
    /// Of a symmetric matrix to whose diagonal as much is added as it takes to be positive, at least this share of its mean.
    ///
    /// # Errors
    /// When the matrix has numbers that are not finite.
    pub fn damped(h: &[f32], k: usize, share: f32) -> Result<Self> {
        let mean = (0..k).map(|i| h[i * k + i]).sum::<f32>() / k.max(1) as f32;
        let mut damping = share * mean.max(1e-12);
        for _ in 0..8 {
            let mut lower = h.to_vec();
            (0..k).for_each(|i| lower[i * k + i] += damping);
            if factor(&mut lower, k)? {
                let mut upper = vec![0.0; k * k];
                upper.par_chunks_mut(k).enumerate().for_each(|(i, row)| {
                    (i..k).for_each(|j| row[j] = lower[j * k + i]);
                });
                return Ok(Factor { lower, upper, k });
            }
            damping *= 10.0;
        }
        anyhow::bail!("second moments that no damping makes positive")
    }

    /// Row `i` of the upper factor from its diagonal on.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.upper[i * self.k + i..][..self.k - i]
    }

    /// Puts `h^-1 g` in the place of `g`.
    pub fn solve(&self, g: &mut [f32]) {
        for i in 0..self.k {
            let row = &self.lower[i * self.k..][..=i];
            g[i] = (g[i] - dot(&row[..i], &g[..i])) / row[i];
        }
        for i in (0..self.k).rev() {
            let row = self.row(i);
            g[i] = (g[i] - dot(&row[1..], &g[i + 1..])) / row[0];
        }
    }
}

/// Makes a lower factor of a matrix, block of columns by block; `false` if it is not positive.
fn factor(h: &mut [f32], k: usize) -> Result<bool> {
    for first in (0..k).step_by(BLOCK) {
        let last = (first + BLOCK).min(k);
        if first > 0 {
            let below: Vec<f32> = (first..k).flat_map(|i| h[i * k..][..first].iter().copied()).collect();
            let block = &below[..(last - first) * first];
            let done = product(&below, block, first)?;
            for (i, row) in (first..k).zip(done.chunks(last - first)) {
                h[i * k + first..i * k + last].iter_mut().zip(row).for_each(|(h, d)| *h -= d);
            }
        }
        for j in first..last {
            let (above, from_j) = h.split_at_mut((j + 1) * k);
            let row_j = &mut above[j * k..];
            let square = row_j[j] - dot(&row_j[first..j], &row_j[first..j]);
            if !(square.is_finite() && square > 0.0) {
                return Ok(false);
            }
            let diagonal = square.sqrt();
            row_j[j] = diagonal;
            let of_j = &row_j[first..j];
            from_j.par_chunks_mut(k).with_min_len(64).for_each(|row| {
                row[j] = (row[j] - dot(&row[first..j], of_j)) / diagonal;
            });
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; n];
        edgegen::noise::Noise::new(seed, 0).fill(&mut values);
        values
    }

    #[test]
    fn a_factor_solves_what_it_was_made_of() {
        // more than two blocks, and a part of one
        let (k, n) = (150, 400);
        let x = noise(n * k, 1);
        let h = product_of_columns(&x, k, &x, k).unwrap();
        let factor = Factor::damped(&h, k, 1e-6).unwrap();
        let expected = noise(k, 2);
        let mut g: Vec<f32> = h
            .chunks(k)
            .map(|row| row.iter().zip(&expected).map(|(a, b)| f64::from(a * b)).sum::<f64>() as f32)
            .collect();
        factor.solve(&mut g);
        let worst = g.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "{worst}");
    }

    #[test]
    fn a_singular_matrix_is_damped() {
        let h = vec![1.0; 9];
        assert!(Factor::damped(&h, 3, 0.01).is_ok());
        assert!(Factor::damped(&[f32::NAN; 9], 3, 0.01).is_err());
    }
}
