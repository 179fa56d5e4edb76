//! What a network calls a noise level.

use super::level::Level;
use super::marginal::VpSde;
use std::f64::consts::FRAC_PI_2;

/// What a network calls a level's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Clock {
    /// The training step, from 0.
    Step,
    /// σ of a rectified flow, times this.
    Sigma(f64),
    /// 1 - σ of a rectified flow, times this: time runs from noise to data.
    Signal(f64),
    /// ¼ ln s, with s = σ/γ: the c_noise of EDM.
    QuarterLogRatio,
    /// The angle of (γ, σ), from 0 without noise to 1 without signal.
    Angle,
    /// The time of an SDE, from 0 to 1.
    Sde(VpSde),
}

impl Clock {
    /// σ/γ at a time; not for training steps, whose schedule knows.
    pub fn ratio(self, time: f64) -> f64 {
        let of_sigma = |sigma: f64| sigma / (1.0 - sigma);
        match self {
            Clock::Step => f64::NAN,
            Clock::Sigma(scale) => of_sigma((time / scale).clamp(0.0, 1.0)),
            Clock::Signal(scale) => of_sigma((1.0 - time / scale).clamp(0.0, 1.0)),
            Clock::QuarterLogRatio => libm::exp(4.0 * time),
            Clock::Sde(sde) => sde.level(time.clamp(0.0, 1.0)).edm_sigma(),
            Clock::Angle => libm::tan(time.clamp(0.0, 1.0) * FRAC_PI_2),
        }
    }

    /// The time at which σ/γ is `s`; not for training steps.
    pub fn time(self, s: f64) -> f64 {
        match self {
            Clock::Step => f64::NAN,
            Clock::Sigma(scale) => scale / (1.0 + 1.0 / s),
            Clock::Signal(scale) => scale / (1.0 + s),
            Clock::QuarterLogRatio => 0.25 * libm::log(s),
            Clock::Sde(sde) => sde.time_of_log_snr(-2.0 * libm::log(s)),
            Clock::Angle => libm::atan(s) / FRAC_PI_2,
        }
    }

    /// The level of a rectified flow with this σ.
    pub fn flow_level(self, sigma: f64) -> Level {
        let time = match self {
            Clock::Sigma(scale) => scale * sigma,
            Clock::Signal(scale) => scale * (1.0 - sigma),
            other => other.time(sigma / (1.0 - sigma)),
        };
        Level { time, gamma: 1.0 - sigma, sigma }
    }
}
