//! A noise level, and the step from one to the next.

/// One noise level: a time as the network counts it, and the marginal `N(γ x_0, σ² I)` there.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// The network's time: for a discrete schedule the training step, which may be fractional.
    pub time: f64,
    /// γ, the scale of the signal.
    pub gamma: f64,
    /// σ, the scale of the noise.
    pub sigma: f64,
}

/// Levels without a time are alike if their scales are.
impl PartialEq for Level {
    fn eq(&self, other: &Self) -> bool {
        let same_time = self.time == other.time || (self.time.is_nan() && other.time.is_nan());
        same_time && (self.gamma, self.sigma) == (other.gamma, other.sigma)
    }
}

impl Level {
    /// No noise at all: where sampling ends. It has no time, since no network is evaluated there.
    pub const CLEAN: Level = Level { time: f64::NAN, gamma: 1.0, sigma: 0.0 };

    /// The logarithm of the signal-to-noise ratio, `ln(γ²/σ²)`; +∞ without noise, -∞ without signal.
    pub fn log_snr(&self) -> f64 {
        2.0 * libm::log(self.gamma / self.sigma)
    }

    /// σ/γ, the noise's scale where the signal's is 1: the σ of the EDM paper (arXiv 2206.00364).
    pub fn edm_sigma(&self) -> f64 {
        self.sigma / self.gamma
    }

    /// The variance-preserving level with this σ/γ, not negative.
    pub fn from_edm_sigma(time: f64, edm_sigma: f64) -> Level {
        let gamma = 1.0 / libm::hypot(edm_sigma, 1.0);
        Level { time, gamma, sigma: edm_sigma * gamma }
    }

    /// Noises a clean sample to this level: `x ← γ x_0 + σ x`, where `x` was standard normal.
    ///
    /// # Panics
    /// When the two are not of one length.
    pub fn noise(&self, x0: &[f32], x: &mut [f32]) {
        assert_eq!(x0.len(), x.len());
        let (gamma, sigma) = (self.gamma as f32, self.sigma as f32);
        x.iter_mut().zip(x0).for_each(|(x, x0)| *x = gamma * x0 + sigma * *x);
    }

    /// λ = ln(γ/σ), half the log-SNR: the variable that DPM-Solver's papers write λ.
    pub(crate) fn lambda(&self) -> f64 {
        libm::log(self.gamma / self.sigma)
    }
}

/// One step of a run: the network is evaluated at `from`, and the sample taken to `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Where the network is evaluated.
    pub from: Level,
    /// Where the step leads.
    pub to: Level,
}
