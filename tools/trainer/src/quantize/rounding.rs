//! Rounding of a layer's weights so that its results, rather than the weights, err least.
//!
//! For rows x of what the layer sees and H = E[x x^T], rounded weights ŵ err by (w - ŵ)^T H (w - ŵ). The weights of an output are
//! rounded one after the other, each after the errors of those before it have been made up for by it (GPTQ, arXiv 2210.17323;
//! the same as Babai's nearest plane, which needs but a Cholesky factor of H).

use super::matrix::{Factor, dot, product_of_columns};
use anyhow::Result;
use rayon::prelude::*;

/// Levels of an output's weights, and their scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// The levels, row by row.
    pub levels: Vec<i8>,
    /// The scale of each block of each row.
    pub scales: Vec<f32>,
}

/// What weights are rounded to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// The least level, whose scale is for the greatest number.
    pub low: i32,
    /// The greatest level.
    pub high: i32,
    /// How many weights that follow each other share a scale.
    pub block: usize,
}

impl Format {
    /// Signed 8 bits, -127 to 127, with a scale for each row of `k` numbers.
    pub fn eight(k: usize) -> Self {
        Format { low: -127, high: 127, block: k }
    }
}

/// Second moments of what a layer sees, ready to round by.
pub struct Moments {
    factor: Factor,
    /// The columns in the order in which they are rounded, the last first: those that vary most come first.
    order: Vec<usize>,
    diagonal: Vec<f32>,
}

/// The share of the mean second moment that is added to each: as in GPTQ.
const DAMPING: f32 = 0.01;
/// The shares of the greatest weight that scales are tried for.
const SHARES: [f32; 7] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6];

impl Moments {
    /// Of rows of `k` numbers.
    ///
    /// # Errors
    /// When they are not finite.
    pub fn of(rows: &[f32], k: usize) -> Result<Self> {
        let mut h = product_of_columns(rows, k, rows, k)?;
        let n = (rows.len() / k).max(1) as f32;
        h.iter_mut().for_each(|v| *v /= n);
        let diagonal: Vec<f32> = (0..k).map(|i| h[i * k + i]).collect();
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|a, b| diagonal[*a].total_cmp(&diagonal[*b]));
        let sorted: Vec<f32> = order.iter().flat_map(|i| order.iter().map(|j| h[*i * k + *j])).collect();
        Ok(Moments { factor: Factor::damped(&sorted, k, DAMPING)?, order, diagonal })
    }

    /// The weights that make of what a layer sees what others make of what it should see: `w + w (x - x̂)^T x̂ h^-1`, for rows x̂
    /// that these moments are of, and x.
    pub fn refit(&self, weights: &[f32], rows: &[f32], exact: &[f32]) -> Result<Vec<f32>> {
        let (k, n) = (self.order.len(), (rows.len() / self.order.len()).max(1) as f32);
        let off: Vec<f32> = exact.iter().zip(rows).map(|(x, r)| (x - r) / n).collect();
        let cross = product_of_columns(rows, k, &off, k)?;
        let wanted = super::matrix::product(weights, &cross, k)?;
        let mut fitted = weights.to_vec();
        fitted.par_chunks_mut(k).zip(wanted.par_chunks(k)).for_each(|(row, g)| {
            let mut sorted: Vec<f32> = self.order.iter().map(|i| g[*i]).collect();
            self.factor.solve(&mut sorted);
            self.order.iter().zip(&sorted).for_each(|(i, change)| row[*i] += change);
        });
        Ok(fitted)
    }

    /// Weights, row by row, rounded so that results err little.
    pub fn round(&self, weights: &[f32], format: Format, scales: &[f32]) -> Rounded {
        let k = self.order.len();
        let blocks = k.div_ceil(format.block);
        let mut levels = vec![0i8; weights.len()];
        levels.par_chunks_mut(k).enumerate().for_each(|(o, levels)| {
            let row = &weights[o * k..][..k];
            let mut errors = vec![0.0; k];
            for at in (0..k).rev() {
                let column = self.order[at];
                let r = self.factor.row(at);
                let wanted = row[column] + dot(&r[1..], &errors[at + 1..]) / r[0];
                let scale = scales[o * blocks + column / format.block];
                let level = (wanted / scale).round().clamp(format.low as f32, format.high as f32);
                levels[column] = level as i8;
                errors[at] = row[column] - level * scale;
            }
        });
        Rounded { levels, scales: scales.to_vec() }
    }

    /// The mean square of each column.
    pub fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }
}

/// The scales of each block of each row with the least squared error, where the error of a column counts as `columns` says.
pub fn scales(weights: &[f32], k: usize, format: Format, columns: &[f32]) -> Vec<f32> {
    let of_block = |block: &[f32], columns: &[f32]| {
        let greatest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
        let whole = (greatest / format.high.max(-format.low) as f32).max(1e-12);
        let error = |scale: f32| -> f32 {
            let off = |w: &f32| (w / scale).round().clamp(format.low as f32, format.high as f32) * scale - w;
            block.iter().zip(columns).map(|(w, c)| off(w).powi(2) * c).sum()
        };
        let tried = SHARES.iter().map(|share| whole * share).map(|scale| (error(scale), scale));
        tried.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(whole, |best| best.1)
    };
    let rows = weights.par_chunks(k);
    rows.flat_map_iter(|row| row.chunks(format.block).zip(columns.chunks(format.block)).map(|(b, c)| of_block(b, c)))
        .collect()
}

/// Weights rounded each to the nearest level.
pub fn nearest(weights: &[f32], k: usize, format: Format, scales: &[f32]) -> Rounded {
    let blocks = k.div_ceil(format.block);
    let level = |(i, w): (usize, &f32)| {
        let scale = scales[i / k * blocks + i % k / format.block];
        (w / scale).round().clamp(format.low as f32, format.high as f32) as i8
    };
    Rounded { levels: weights.iter().enumerate().map(level).collect(), scales: scales.to_vec() }
}

impl Rounded {
    /// The weights that these levels stand for.
    pub fn values(&self, k: usize, block: usize) -> Vec<f32> {
        let blocks = k.div_ceil(block);
        let value = |(i, level): (usize, &i8)| f32::from(*level) * self.scales[i / k * blocks + i % k / block];
        self.levels.iter().enumerate().map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::product;
    use super::*;

    /// Rows whose columns go together, as those of a network do.
    fn rows(n: usize, k: usize, seed: u64) -> Vec<f32> {
        let mut noise = vec![0.0; n * k + n];
        edgegen::noise::Noise::new(seed, 0).fill(&mut noise);
        (0..n * k).map(|i| 0.5 * noise[i] + noise[n * k + i / k]).collect()
    }

    fn error(rows: &[f32], weights: &[f32], other: &[f32], k: usize) -> f64 {
        let off: Vec<f32> = weights.iter().zip(other).map(|(a, b)| a - b).collect();
        product(rows, &off, k).unwrap().iter().map(|v| f64::from(*v).powi(2)).sum()
    }

    #[test]
    fn making_up_for_errors_makes_results_err_less() {
        let (n, k, o) = (600, 96, 8);
        let x = rows(n, k, 1);
        let weights = rows(o, k, 2);
        let format = Format { low: -8, high: 7, block: 32 };
        let moments = Moments::of(&x, k).unwrap();
        let scales = scales(&weights, k, format, moments.diagonal());
        let plain = nearest(&weights, k, format, &scales).values(k, 32);
        let made_up = moments.round(&weights, format, &scales).values(k, 32);
        // on rows that it has not seen
        let other = rows(n, k, 3);
        let (plain, made_up) = (error(&other, &weights, &plain, k), error(&other, &weights, &made_up, k));
        assert!(made_up < 0.5 * plain, "{made_up} after {plain}");
    }

    #[test]
    fn weights_are_fitted_to_what_is_seen_of_their_input() {
        let (n, k, o) = (600, 40, 4);
        let exact = rows(n, k, 1);
        // an input of which a tenth is lost
        let seen: Vec<f32> = exact.iter().map(|v| 0.9 * v).collect();
        let weights = rows(o, k, 2);
        let fitted = Moments::of(&seen, k).unwrap().refit(&weights, &seen, &exact).unwrap();
        let wanted = product(&exact, &weights, k).unwrap();
        let off = |w: &[f32]| -> f64 {
            let made = product(&seen, w, k).unwrap();
            made.iter().zip(&wanted).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        assert!(off(&fitted) < 0.1 * off(&weights), "{} after {}", off(&fitted), off(&weights));
    }

    #[test]
    fn eight_bits_err_by_at_most_half_a_level_where_nothing_is_clipped() {
        let weights = rows(3, 50, 4);
        let format = Format::eight(50);
        let scales: Vec<f32> = weights.chunks(50).map(|r| r.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0).collect();
        let rounded = nearest(&weights, 50, format, &scales).values(50, 50);
        for ((a, b), i) in weights.iter().zip(&rounded).zip(0..) {
            assert!((a - b).abs() <= 0.5001 * scales[i / 50]);
        }
    }
}
