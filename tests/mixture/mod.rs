//! A distribution whose ε, density and moments are known: a mixture of Gaussians.
#![allow(dead_code, reason = "each test uses a part of it")]

use edgegen::Network;
use edgegen::schedule::{Level, Marginal, VpSde};

pub const DIM: usize = 3;

/// Weight, mean, and variance of every component.
const COMPONENTS: [(f64, [f64; DIM], f64); 3] =
    [(0.5, [0.8, -0.4, 0.1], 0.04), (0.3, [-0.6, 0.5, -0.2], 0.09), (0.2, [0.1, 0.9, 0.7], 0.02)];

/// ln of the marginal density at `x` and its gradient, the score.
pub fn log_density_and_score(x: &[f64; DIM], level: Level) -> (f64, [f64; DIM]) {
    let Level { gamma, sigma, .. } = level;
    let log_weight = |&(w, mean, v): &(f64, [f64; DIM], f64)| {
        let variance = gamma * gamma * v + sigma * sigma;
        let square: f64 = (0..DIM).map(|i| (x[i] - gamma * mean[i]).powi(2)).sum();
        w.ln() - 0.5 * square / variance - 0.5 * DIM as f64 * (2.0 * std::f64::consts::PI * variance).ln()
    };
    let logs = COMPONENTS.each_ref().map(log_weight);
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|l| (l - most).exp()).sum();
    let mut score = [0.0; DIM];
    for ((_, mean, v), log) in COMPONENTS.iter().zip(logs) {
        let responsibility = (log - most).exp() / sum;
        let variance = gamma * gamma * v + sigma * sigma;
        (0..DIM).for_each(|i| score[i] -= responsibility * (x[i] - gamma * mean[i]) / variance);
    }
    (most + sum.ln(), score)
}

/// ε = -σ times the score.
pub fn eps(x: &[f64; DIM], level: Level) -> [f64; DIM] {
    log_density_and_score(x, level).1.map(|s| -level.sigma * s)
}

/// Mean and covariance of the clean samples.
pub fn moments() -> ([f64; DIM], [[f64; DIM]; DIM]) {
    let mut mean = [0.0; DIM];
    COMPONENTS.iter().for_each(|(w, m, _)| (0..DIM).for_each(|i| mean[i] += w * m[i]));
    let mut covariance = [[0.0; DIM]; DIM];
    for (w, m, v) in COMPONENTS {
        for i in 0..DIM {
            for j in 0..DIM {
                let own = if i == j { v } else { 0.0 };
                covariance[i][j] += w * (own + (m[i] - mean[i]) * (m[j] - mean[j]));
            }
        }
    }
    (mean, covariance)
}

/// The exact ε as a network over a continuous or discrete schedule.
pub struct Mixture<M = VpSde>(pub M);

impl<M: Marginal> Network for Mixture<M> {
    fn sample_shape(&self) -> &[usize] {
        &[DIM]
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let wide = std::array::from_fn(|i| f64::from(x[i]));
        let eps = eps(&wide, self.0.level(t));
        out.iter_mut().zip(eps).for_each(|(o, e)| *o = e as f32);
        Ok(())
    }
}

/// The probability-flow ODE from `x` at one level to another, by `steps` classical Runge–Kutta steps in
/// `λ = ln(γ/σ)`, in f64: with `y = x/γ` and `s = σ/γ = e^{-λ}`, `dy/dλ = -s ε`.
pub fn flow(x: [f64; DIM], from: Level, to: Level, steps: usize) -> [f64; DIM] {
    let lambda = |l: Level| 0.5 * l.log_snr();
    let h = (lambda(to) - lambda(from)) / steps as f64;
    let slope = |y: [f64; DIM], lambda: f64| {
        let level = Level::from_edm_sigma(0.0, (-lambda).exp());
        eps(&y.map(|v| v * level.gamma), level).map(|e| -e * (-lambda).exp())
    };
    let along = |y: [f64; DIM], k: [f64; DIM], h: f64| -> [f64; DIM] { std::array::from_fn(|i| y[i] + h * k[i]) };
    let mut y = x.map(|v| v / from.gamma);
    for step in 0..steps {
        let l = lambda(from) + h * step as f64;
        let k1 = slope(y, l);
        let k2 = slope(along(y, k1, h / 2.0), l + h / 2.0);
        let k3 = slope(along(y, k2, h / 2.0), l + h / 2.0);
        let k4 = slope(along(y, k3, h), l + h);
        y = std::array::from_fn(|i| y[i] + h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]));
    }
    y.map(|v| v * to.gamma)
}
