//! σ/γ of the training steps, and the numbers between two ends.

use crate::config::SchedulerConfig;
use crate::schedule::Schedule;

/// σ/γ of every training step.
pub(super) struct TrainingSigmas(pub Vec<f64>);

impl TrainingSigmas {
    pub fn new(config: &SchedulerConfig, schedule: &Schedule) -> Self {
        // diffusers puts the least half-precision number for a last ᾱ of zero, which would make σ/γ infinite
        let least = if config.rescale_betas_zero_snr { 2f64.powi(-24) } else { 0.0 };
        // and its α are float32, which shows where they are near 1: in the least σ/γ, which spacings start from
        let alphas = (0..schedule.len()).map(|t| 1.0 - schedule.beta(t) as f32);
        let sigma = |alpha_bar: f64| ((1.0 - alpha_bar) / alpha_bar).sqrt();
        let products = alphas.scan(1.0, |product, alpha| {
            *product *= f64::from(alpha);
            Some(f64::from(*product as f32).max(least))
        });
        TrainingSigmas(products.map(sigma).collect())
    }

    pub fn min(&self) -> f64 {
        self.0[0]
    }

    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// Between training steps, linear in time.
    pub fn at(&self, time: f64) -> f64 {
        let below = (time.max(0.0) as usize).min(self.0.len() - 1);
        let above = (below + 1).min(self.0.len() - 1);
        self.0[below] + (self.0[above] - self.0[below]) * (time - below as f64)
    }

    /// Between training steps, linear in ln σ.
    pub fn time_of(&self, sigma: f64) -> f64 {
        let below = self.0.partition_point(|&s| s <= sigma).clamp(1, (self.0.len() - 1).max(1)) - 1;
        let Some(above) = self.0.get(below + 1) else { return below as f64 };
        let (low, high) = (libm::log(self.0[below]), libm::log(*above));
        below as f64 + ((libm::log(sigma) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// The quantile of the beta distribution with both parameters 0.6, for probabilities from 0 to 1.
pub(super) fn beta_quantile(probability: f64) -> f64 {
    const A: f64 = 0.6;
    // ∫_0^x u^{a-1} (1 - u)^{a-1} du for x ≤ ½, by the binomial series, whose terms fall by x or faster
    let integral = |x: f64| {
        let (mut sum, mut term) = (0.0, libm::pow(x, A));
        for k in 0..64 {
            sum += term / (A + f64::from(k));
            term *= x * (1.0 - A + f64::from(k)) / f64::from(k + 1);
        }
        sum
    };
    if probability > 0.5 {
        return 1.0 - beta_quantile(1.0 - probability);
    }
    let wanted = 2.0 * probability * integral(0.5);
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if integral(middle) < wanted { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// As numpy's `linspace` computes it, so that what is rounded down from it is the same.
pub(super) fn numpy_line(a: f64, b: f64, count: usize) -> impl Iterator<Item = f64> {
    let step = (b - a) / (count.max(2) - 1) as f64;
    (0..count).map(move |i| if i > 0 && i + 1 == count { b } else { i as f64 * step + a })
}

/// `count` numbers from `a` to `b`, both included.
pub(super) fn line(a: f64, b: f64, count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| if count == 1 { a } else { a + (b - a) * i as f64 / (count - 1) as f64 })
}
