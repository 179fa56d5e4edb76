//! The variance-preserving noise schedule.
//!
//! The marginal of the forward process is `q_t(x_t | x_0) = N(γ_t x_0, σ_t² I)` with `γ_t² + σ_t² = 1`.
//! In discrete time `alpha_bar_t = Π_{s≤t} (1 - β_s) = γ_t²`. All arithmetic is f64.

use crate::config::{BetaSchedule, SchedulerConfig};
use crate::{Error, Result};

/// A discrete VP schedule: β, ᾱ and what follows from them at each training step `t = 0..len`.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    beta: Vec<f64>,
    alpha_bar: Vec<f64>,
}

impl Schedule {
    /// The schedule that `config` describes.
    ///
    /// # Errors
    /// When the configuration has no steps, or a β outside (0, 1).
    pub fn from_config(config: &SchedulerConfig) -> Result<Self> {
        let (n, start, end) = (config.num_train_timesteps, config.beta_start, config.beta_end);
        let lerp = |a: f64, b: f64, i: usize| a + (b - a) * i as f64 / (n.max(2) - 1) as f64;
        let beta: Vec<f64> = match (&config.trained_betas, config.beta_schedule) {
            (Some(trained), _) => trained.clone(),
            (None, BetaSchedule::Linear) => (0..n).map(|i| lerp(start, end, i)).collect(),
            (None, BetaSchedule::ScaledLinear) => (0..n).map(|i| lerp(start.sqrt(), end.sqrt(), i).powi(2)).collect(),
            (None, BetaSchedule::SquaredCosine) => {
                let alpha_bar = |u: f64| ((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let at = |i: usize| alpha_bar(i as f64 / n as f64);
                (0..n).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999)).collect()
            }
            (None, BetaSchedule::Sigmoid) => {
                let sigmoid = |u: f64| 1.0 / (1.0 + (-u).exp());
                (0..n).map(|i| start + (end - start) * sigmoid(lerp(-6.0, 6.0, i))).collect()
            }
        };
        Self::from_betas(beta)
    }

    /// The schedule with these β.
    ///
    /// # Errors
    /// When there are none, or one is outside (0, 1).
    pub fn from_betas(beta: Vec<f64>) -> Result<Self> {
        if beta.is_empty() {
            return Err(Error::invalid("a schedule needs at least one training step, got none"));
        }
        if let Some((t, b)) = beta.iter().enumerate().find(|(_, b)| !(**b > 0.0 && **b < 1.0)) {
            return Err(Error::invalid(format!("beta must lie between 0 and 1, but at training step {t} it is {b}")));
        }
        let alpha_bar = beta
            .iter()
            .scan(1.0, |product, b| {
                *product *= 1.0 - b;
                Some(*product)
            })
            .collect();
        Ok(Schedule { beta, alpha_bar })
    }

    /// The number of training steps T.
    #[allow(clippy::len_without_is_empty, reason = "a schedule is never empty")]
    pub fn len(&self) -> usize {
        self.beta.len()
    }

    /// β_t.
    ///
    /// # Panics
    /// When `t >= len`.
    pub fn beta(&self, t: usize) -> f64 {
        self.beta[t]
    }

    /// ᾱ_t = Π (1 - β_s).
    ///
    /// # Panics
    /// When `t >= len`.
    pub fn alpha_bar(&self, t: usize) -> f64 {
        self.alpha_bar[t]
    }

    /// γ_t = √ᾱ_t, the scale of the signal.
    pub fn gamma(&self, t: usize) -> f64 {
        self.alpha_bar(t).sqrt()
    }

    /// σ_t = √(1 - ᾱ_t), the scale of the noise.
    pub fn sigma(&self, t: usize) -> f64 {
        (1.0 - self.alpha_bar(t)).sqrt()
    }
}
