//! What a network is told of the noise in its sample.

use crate::schedule::Level;
use crate::{Error, Result};

/// What a network is told of the noise in its sample, by its input of the time. At a level, `x_t = γ x_0 + σ ε`, and
/// ᾱ = γ².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeAs {
    /// The training step t, from 0.
    Step,
    /// ᾱ, as in SR3 and Palette.
    AlphaBar,
    /// γ = √ᾱ, as in WaveGrad.
    Gamma,
    /// σ, the noise's standard deviation in x_t; for a variance-preserving schedule, √(1 - ᾱ). A network that takes σ in
    /// EDM's sense also takes another sample, and is said to be one by its prediction type.
    Sigma,
    /// The logarithm of the signal-to-noise ratio, ln(γ²/σ²).
    LogSnr,
    /// (t + 1)/T, the share of the T training steps, as in score-based SDEs.
    Unit,
    /// ¼ ln(σ/γ), EDM's c_noise: diffusers' `timestep_type` of `continuous`.
    QuarterLogSigma,
    /// The time rounded down, as PyTorch makes a whole number of it: of a rectified flow whose network takes one.
    RoundedDown,
}

impl TimeAs {
    /// Every one that can be asked for, in the order in which they are listed.
    pub const ALL: [TimeAs; 7] = [
        TimeAs::Step,
        TimeAs::AlphaBar,
        TimeAs::Gamma,
        TimeAs::Sigma,
        TimeAs::LogSnr,
        TimeAs::Unit,
        TimeAs::QuarterLogSigma,
    ];

    /// The name on the command line and in a model's metadata.
    pub fn name(self) -> &'static str {
        match self {
            TimeAs::Step => "step",
            TimeAs::AlphaBar => "alpha-bar",
            TimeAs::Gamma => "gamma",
            TimeAs::Sigma => "sigma",
            TimeAs::LogSnr => "log-snr",
            TimeAs::Unit => "unit",
            TimeAs::QuarterLogSigma => "quarter-log-sigma",
            TimeAs::RoundedDown => "rounded-down",
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    /// When there is none: the names that there are.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.map(TimeAs::name).into();
            Error::invalid(format!(
                "there is no '{name}' to tell a network of its noise: give one of {}",
                names.join(", ")
            ))
        })
    }

    /// What the network is told at `level` of a schedule of `steps` training steps.
    pub fn of(self, level: Level, steps: usize) -> f64 {
        match self {
            TimeAs::Step => level.time,
            TimeAs::AlphaBar => level.gamma * level.gamma,
            TimeAs::Gamma => level.gamma,
            TimeAs::Sigma => level.sigma,
            TimeAs::LogSnr => level.log_snr(),
            TimeAs::Unit => (level.time + 1.0) / steps as f64,
            TimeAs::RoundedDown => level.time.floor(),
            TimeAs::QuarterLogSigma => 0.25 * libm::log(level.edm_sigma()),
        }
    }

    /// The same where a step leads: the end of a run, where the sample is clean, has no time and counts as 0.
    pub(super) fn of_end(self, level: Level, steps: usize) -> f64 {
        match self {
            TimeAs::Step | TimeAs::Unit if level.time.is_nan() => 0.0,
            _ => self.of(level, steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SchedulerConfig;
    use crate::schedule::Schedule;

    #[test]
    fn numbers_of_a_level_are_those_of_their_definitions() {
        let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
        let level = schedule.level(400.0);
        let alpha_bar: f64 = (0..=400).map(|t| 1.0 - (1e-4 + (0.02 - 1e-4) * f64::from(t) / 999.0)).product();
        let told = |time: TimeAs| time.of(level, schedule.len());
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(told(TimeAs::Step), 400.0);
        near(told(TimeAs::AlphaBar), alpha_bar);
        near(told(TimeAs::Gamma), alpha_bar.sqrt());
        near(told(TimeAs::Sigma), (1.0 - alpha_bar).sqrt());
        near(told(TimeAs::LogSnr), (alpha_bar / (1.0 - alpha_bar)).ln());
        near(told(TimeAs::Unit), 0.401);
        near(told(TimeAs::QuarterLogSigma), 0.25 * ((1.0 - alpha_bar) / alpha_bar).sqrt().ln());
        for time in TimeAs::ALL {
            assert_eq!(TimeAs::from_name(time.name()).unwrap(), time);
        }
        assert!(TimeAs::from_name("lambda").unwrap_err().to_string().contains("alpha-bar, gamma, sigma"));
    }
}
