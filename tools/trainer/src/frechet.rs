//! The Fréchet distance between Gaussians fitted to two sets of features (Dowson and Landau 1982; arXiv 1706.08500).

use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// The mean and the covariance of a set of features.
#[derive(Clone, Debug)]
pub struct Moments {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Moments {
    /// Of at least two feature vectors of `width` numbers each, one after the other.
    ///
    /// # Panics
    /// With fewer.
    pub fn of(features: &[f32], width: usize) -> Self {
        let n = features.len() / width;
        assert!(n >= 2, "a covariance needs two vectors");
        let rows = || features.chunks_exact(width);
        let mut mean = DVector::zeros(width);
        rows().for_each(|row| mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v)));
        mean /= n as f64;
        let mut covariance = DMatrix::zeros(width, width);
        let mut centred = DVector::zeros(width);
        for row in rows() {
            centred.iter_mut().zip(row).zip(&mean).for_each(|((c, v), m)| *c = f64::from(*v) - m);
            covariance.ger(1.0, &centred, &centred, 1.0);
        }
        covariance /= (n - 1) as f64;
        Moments { mean, covariance }
    }
}

/// `|μ_a - μ_b|² + tr(A + B - 2 (A B)^½)`; `tr (A B)^½` is taken as `tr (A^½ B A^½)^½`, which is symmetric.
pub fn distance(a: &Moments, b: &Moments) -> f64 {
    let root = {
        let SymmetricEigen { eigenvectors, eigenvalues } = a.covariance.clone().symmetric_eigen();
        let roots = DMatrix::from_diagonal(&eigenvalues.map(|v| v.max(0.0).sqrt()));
        &eigenvectors * roots * eigenvectors.transpose()
    };
    let product = &root * &b.covariance * &root;
    // symmetric but for rounding
    let cross: f64 = ((&product + product.transpose()) * 0.5).symmetric_eigenvalues().map(|v| v.max(0.0).sqrt()).sum();
    (&a.mean - &b.mean).norm_squared() + a.covariance.trace() + b.covariance.trace() - 2.0 * cross
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mean: &[f64], covariance: DMatrix<f64>) -> Moments {
        Moments { mean: DVector::from_row_slice(mean), covariance }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-10 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn diagonal_covariances_have_a_closed_form() {
        let a = moments(&[1.0, 2.0, 3.0], DMatrix::from_diagonal(&DVector::from_row_slice(&[1.0, 4.0, 0.25])));
        let b = moments(&[0.0, 2.5, 3.0], DMatrix::from_diagonal(&DVector::from_row_slice(&[9.0, 4.0, 2.25])));
        // Σ (μ - μ')² + (s - s')²
        close(distance(&a, &b), 1.0 + 0.25 + (1.0 - 3.0f64).powi(2) + (0.5 - 1.5f64).powi(2));
        close(distance(&a, &a), 0.0);
    }

    #[test]
    fn rotating_both_changes_nothing() {
        let (sin, cos) = 0.7f64.sin_cos();
        let r = DMatrix::from_row_slice(2, 2, &[cos, -sin, sin, cos]);
        let turned = |d: [f64; 2]| &r * DMatrix::from_diagonal(&DVector::from_row_slice(&d)) * r.transpose();
        let (a, b) = (moments(&[0.0; 2], turned([4.0, 1.0])), moments(&[0.0; 2], turned([1.0, 16.0])));
        close(distance(&a, &b), 1.0 + 9.0);
    }

    /// For 2×2 matrices `tr (AB)^½ = √(tr AB + 2 √det AB)`.
    #[test]
    fn covariances_that_do_not_commute_have_a_closed_form_in_two_dimensions() {
        let a = DMatrix::from_row_slice(2, 2, &[2.0, 0.6, 0.6, 1.0]);
        let b = DMatrix::from_row_slice(2, 2, &[1.0, -0.4, -0.4, 3.0]);
        let product: DMatrix<f64> = &a * &b;
        let cross = (product.trace() + 2.0 * product.determinant().sqrt()).sqrt();
        let expected = 1.0 + a.trace() + b.trace() - 2.0 * cross;
        close(distance(&moments(&[1.0, 0.0], a.clone()), &moments(&[0.0, 0.0], b.clone())), expected);
        close(distance(&moments(&[0.0, 0.0], b), &moments(&[1.0, 0.0], a)), expected);
    }

    #[test]
    fn a_direction_without_variance_does_no_harm() {
        let a = moments(&[0.0; 2], DMatrix::from_diagonal(&DVector::from_row_slice(&[1.0, 0.0])));
        close(distance(&a, &a), 0.0);
    }

    #[test]
    fn moments_are_the_sample_mean_and_covariance() {
        let m = Moments::of(&[1.0, 10.0, 2.0, 14.0, 3.0, 12.0], 2);
        assert_eq!(m.mean.as_slice(), [2.0, 12.0]);
        assert_eq!(m.covariance.as_slice(), [1.0, 1.0, 1.0, 4.0]);
    }
}
