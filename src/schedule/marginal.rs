//! Noise levels as a function of time.

use super::level::Level;
use super::path::Path;

/// Noise levels as a function of the network's time. Solvers that evaluate the network between the
/// levels of their [`Grid`](crate::schedule::Grid) ask it for the levels there.
pub trait Marginal {
    /// The path that its levels lie on; variance-preserving where this is not written.
    fn path(&self) -> Path {
        Path::VariancePreserving
    }

    /// The level at `time`.
    fn level(&self, time: f64) -> Level;

    /// The time at which the log-SNR is `log_snr`.
    fn time_of_log_snr(&self, log_snr: f64) -> f64;

    /// The level with this σ/γ; its time is the nearest that there is.
    fn level_of_edm_sigma(&self, edm_sigma: f64) -> Level {
        self.path().level(self.time_of_log_snr(-2.0 * libm::log(edm_sigma)), edm_sigma)
    }
}

/// The continuous VP-SDE `dx = -½ β(t) x dt + √β(t) dW` with β linear in t from 0 to 1 (arXiv 2011.13456).
///
/// `γ_t = exp(-½ ∫β)` and `σ_t² = 1 - exp(-∫β)`. (One prints `1 - exp(-½ ∫β)` now and then; variance
/// preservation, `γ² + σ² = 1`, shows that for a slip.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VpSde {
    /// β(0).
    pub beta_min: f64,
    /// β(1).
    pub beta_max: f64,
}

impl Default for VpSde {
    /// β from 0.1 to 20, the usual choice.
    fn default() -> Self {
        VpSde { beta_min: 0.1, beta_max: 20.0 }
    }
}

impl VpSde {
    /// β(t).
    pub fn beta(&self, t: f64) -> f64 {
        self.beta_min + (self.beta_max - self.beta_min) * t
    }

    /// ∫β from 0 to t.
    pub fn beta_integral(&self, t: f64) -> f64 {
        self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t
    }

    /// The level at time `t`, in [0, 1].
    pub fn level(&self, t: f64) -> Level {
        let integral = self.beta_integral(t);
        Level { time: t, gamma: libm::exp(-0.5 * integral), sigma: (-libm::expm1(-integral)).sqrt() }
    }

    /// The time at which the log-SNR is `log_snr`: the inverse of `level(t).log_snr()`.
    pub fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        // log-SNR = -ln(e^B - 1), and B is quadratic in t
        let integral = libm::log1p(libm::exp(-log_snr));
        let slope = self.beta_max - self.beta_min;
        2.0 * integral / (self.beta_min + (self.beta_min * self.beta_min + 2.0 * slope * integral).sqrt())
    }
}

impl Marginal for VpSde {
    fn level(&self, time: f64) -> Level {
        VpSde::level(self, time)
    }

    fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        VpSde::time_of_log_snr(self, log_snr)
    }
}

/// Rectified flow, whose time is σ from 0 to 1: `x = (1 - t) x_0 + t ε`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RectifiedFlow;

impl Marginal for RectifiedFlow {
    fn path(&self) -> Path {
        Path::RectifiedFlow
    }

    fn level(&self, time: f64) -> Level {
        Level { time, gamma: 1.0 - time, sigma: time }
    }

    fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        1.0 / (1.0 + libm::exp(0.5 * log_snr))
    }
}

/// The variance-exploding SDE `dx = g(t) dW`, whose time is σ itself: `x = x_0 + t ε` (arXiv 2011.13456, 2206.00364).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VeSde;

impl Marginal for VeSde {
    fn path(&self) -> Path {
        Path::VarianceExploding
    }

    fn level(&self, time: f64) -> Level {
        Level { time, gamma: 1.0, sigma: time }
    }

    fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        libm::exp(-0.5 * log_snr)
    }
}
