//! Guidance towards known values, with a weight for each element.

use super::{Constraint, Probe, check_finite};
use crate::schedule::Level;
use crate::{Error, ErrorKind, Result};

/// How guidance takes an error of the estimate back through the network: `Jᵀ e`, with J the derivative of the estimate of
/// the clean sample with respect to the noisy one, and e the weighted error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jacobian {
    /// J is taken to be what it is for independent elements of variance 1, a multiple of the identity. An element is then
    /// drawn to its own value alone, and the others follow by what the network sees in the next step. Costs nothing.
    Diagonal,
    /// `J e`, by a second network call at a sample that is moved a little along e. The best estimate of the clean sample is
    /// the mean of what it may be, and the derivative of that mean is a covariance, `J = (γ/σ²) Cov(x_0 | x)`, which is
    /// symmetric: so `Jᵀ e = J e`, up to what the network has not learnt, and elements of which nothing is known follow
    /// those of which something is. Doubles the network calls. Not for networks that round to 8 bits, whose steps are
    /// greater than the difference.
    #[default]
    Difference,
}

/// Guidance towards known values (ΠGDM, Song et al., ICLR 2023) with a weight from 0 to 1 for each element, as real-time
/// chunking has it (arXiv 2506.07339, eq. 2 to 4).
///
/// With Y the values, W the weights and s = σ/γ, a step's velocity is corrected by `k Jᵀ W (Y - x_0)` with
/// `k = min(β, (1 + s²)/s)`. That is the paper's `min(β, (1-τ)/(τ r²))` at τ = 1/(1 + s), where a rectified flow has the
/// noise-to-signal ratio s; a level of another path is taken for the flow's of the same ratio. Here the estimate of the
/// clean sample is what is corrected, which comes to the same: by `(1-τ) k`.
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance {
    values: Vec<f32>,
    weights: Vec<f32>,
    most: f64,
    jacobian: Jacobian,
    /// The weighted error, and then the sample moved along it.
    near: Vec<f32>,
    /// What the network makes of that sample.
    estimate: Vec<f32>,
    /// The length of the move; 0 where there was none.
    step: f32,
}

/// The length of the move of a finite difference, as a part of the noise's σ: so small that the estimate is linear there, and
/// so large that f32 tells the difference.
const MOVE: f64 = 0.005;

impl Guidance {
    /// Guidance towards `values`, with at most β of the `weights`' errors in the velocity: `most`, 5 in the paper.
    ///
    /// # Errors
    /// When the two are not of one length, a value is not finite, a weight is not from 0 to 1, or β is not positive.
    pub fn new(values: &[f32], weights: &[f32], most: f64, jacobian: Jacobian) -> Result<Self> {
        if !(most > 0.0 && most.is_finite()) {
            return Err(Error::invalid(format!("the greatest guidance weight must be a number above 0, not {most}")));
        }
        let len = values.len();
        let of_probe = || vec![0.0; if jacobian == Jacobian::Difference { len } else { 0 }];
        let (near, estimate) = (of_probe(), of_probe());
        let mut guidance =
            Guidance { values: vec![0.0; len], weights: vec![0.0; len], most, jacobian, near, estimate, step: 0.0 };
        guidance.set(values, weights)?;
        Ok(guidance)
    }

    /// Guidance towards other values, in the same memory.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when they are not of the same length as before.
    pub fn set(&mut self, values: &[f32], weights: &[f32]) -> Result<()> {
        let len = self.values.len();
        if values.len() != len || weights.len() != len {
            let message = format!(
                "guidance of a sample of {len} needs as many values and weights, not {} and {}",
                values.len(),
                weights.len()
            );
            return Err(Error::new(ErrorKind::WrongSize, message));
        }
        if let Some(weight) = weights.iter().find(|w| !(0.0..=1.0).contains(*w)) {
            return Err(Error::invalid(format!("a weight of guidance must be from 0 to 1, not {weight}")));
        }
        let known = weights.iter().enumerate().filter(|(_, w)| **w > 0.0);
        check_finite(known.map(|(i, _)| (i, values[i])))?;
        self.weights.copy_from_slice(weights);
        // what has no weight must not count, whatever it is
        let of = |(value, weight): (&f32, &f32)| if *weight > 0.0 { *value } else { 0.0 };
        self.values.iter_mut().zip(values.iter().zip(weights)).for_each(|(to, from)| *to = of(from));
        Ok(())
    }

    /// `(1-τ) k`, what the estimate is corrected by for each of `Jᵀ W (Y - x_0)`, with J in the flow's units.
    fn strength(&self, Level { gamma, sigma, .. }: Level) -> f64 {
        let free = (gamma * gamma + sigma * sigma) / (gamma * sigma);
        // at pure noise, and without any, it is infinite
        sigma / (gamma + sigma) * if free < self.most { free } else { self.most }
    }

    /// The weighted error of element i.
    fn error(&self, i: usize, x0: f32) -> f32 {
        self.weights[i] * (self.values[i] - x0)
    }
}

impl Constraint for Guidance {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn probe(&mut self, level: Level, x: &[f32], x0: &[f32]) -> Option<Probe<'_>> {
        self.step = 0.0;
        if self.jacobian != Jacobian::Difference {
            return None;
        }
        let square: f64 = x0.iter().enumerate().map(|(i, x0)| f64::from(self.error(i, *x0)).powi(2)).sum();
        let size = (square / x0.len().max(1) as f64).sqrt();
        let step = (MOVE * level.sigma / size) as f32;
        if !(step.is_finite() && step > 0.0) {
            return None;
        }
        self.step = step;
        for (i, (x, x0)) in x.iter().zip(x0).enumerate() {
            self.near[i] = x + step * self.error(i, *x0);
        }
        Some(Probe { x: &self.near, x0: &mut self.estimate })
    }

    fn correct(&mut self, level: Level, x0: &mut [f32]) {
        let Level { gamma, sigma, .. } = level;
        let strength = self.strength(level);
        match self.jacobian {
            Jacobian::Diagonal => {
                // of elements of variance 1: τ / (τ² + (1-τ)²)
                let derivative = gamma * (gamma + sigma) / (gamma * gamma + sigma * sigma);
                let scale = (strength * derivative) as f32;
                x0.iter_mut().enumerate().for_each(|(i, x0)| *x0 += scale * self.error(i, *x0));
            }
            Jacobian::Difference if self.step > 0.0 => {
                // the flow's sample is x / (γ + σ)
                let scale = (strength * (gamma + sigma)) as f32 / self.step;
                x0.iter_mut().zip(&self.estimate).for_each(|(x0, moved)| *x0 += scale * (moved - *x0));
            }
            Jacobian::Difference => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strength_is_the_papers_at_every_level() {
        let guidance = Guidance::new(&[0.0], &[1.0], 5.0, Jacobian::Diagonal).unwrap();
        for tau in [0.0f64, 0.05, 0.3, 0.5, 0.9, 0.99, 1.0] {
            let r2 = (1.0 - tau).powi(2) / (tau.powi(2) + (1.0 - tau).powi(2));
            let weight = ((1.0 - tau) / (tau * r2)).min(5.0);
            let weight = if weight.is_nan() { 5.0 } else { weight };
            let expected = (1.0 - tau) * weight;
            let flow = Level { time: 0.0, gamma: tau, sigma: 1.0 - tau };
            assert!((guidance.strength(flow) - expected).abs() < 1e-12, "flow at {tau}");
            // the same noise-to-signal ratio on the variance-preserving path
            let square = tau.hypot(1.0 - tau);
            let preserving = Level { time: 0.0, gamma: tau / square, sigma: (1.0 - tau) / square };
            assert!((guidance.strength(preserving) - expected).abs() < 1e-12, "VP at {tau}");
        }
    }

    /// Of independent elements of variance 1 the estimate is `γ x / (γ² + σ²)`, and both ways are exact.
    #[test]
    fn both_ways_are_exact_where_elements_are_independent() {
        let (values, weights) = ([0.5, -1.0, f32::NAN], [1.0, 0.25, 0.0]);
        for level in [(0.6, 0.8), (0.3, 0.7), (1.0, 3.0)] {
            let level = Level { time: 0.0, gamma: level.0, sigma: level.1 };
            let slope = (level.gamma / (level.gamma.powi(2) + level.sigma.powi(2))) as f32;
            let x = [0.4f32, -0.2, 0.9];
            let of = |jacobian| {
                let mut guidance = Guidance::new(&values, &weights, 5.0, jacobian).unwrap();
                let mut x0 = x.map(|x| slope * x);
                if let Some(probe) = guidance.probe(level, &x, &x0) {
                    probe.x0.iter_mut().zip(probe.x).for_each(|(x0, x)| *x0 = slope * x);
                }
                guidance.correct(level, &mut x0);
                x0
            };
            let (diagonal, difference) = (of(Jacobian::Diagonal), of(Jacobian::Difference));
            assert_eq!(diagonal[2], slope * x[2], "of a weight of 0 nothing is known");
            assert!(diagonal[0] != slope * x[0]);
            for (a, b) in diagonal.iter().zip(difference) {
                assert!((a - b).abs() < 1e-4, "{diagonal:?} {difference:?}");
            }
        }
    }

    #[test]
    fn what_is_no_guidance_is_refused() {
        let refused = |values: &[f32], weights: &[f32], most, words: &str| {
            let error = Guidance::new(values, weights, most, Jacobian::Diagonal).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(&[0.0], &[1.0, 0.0], 5.0, "1 needs as many values and weights, not 1 and 2");
        refused(&[0.0], &[1.5], 5.0, "from 0 to 1, not 1.5");
        refused(&[0.0], &[f32::NAN], 5.0, "from 0 to 1");
        refused(&[f32::NAN], &[1.0], 5.0, "element 0 is NaN");
        refused(&[0.0], &[1.0], 0.0, "above 0, not 0");
    }
}
