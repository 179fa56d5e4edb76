//! The noise that samples are trained at: which path it lies on, and how often each level of it is seen.

use anyhow::{Result, ensure};
use edgegen::config::{PredictionType, SchedulerConfig};
use edgegen::schedule::{Level, Path, Schedule};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// The path from data to noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NoisePath {
    /// Variance-preserving, by a schedule of β: `x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε`.
    Vp,
    /// A rectified flow: `x_t = (1 - t) x_0 + t ε`, t from 0 to 1 (arXiv 2209.03003, 2210.02747).
    Flow,
}

impl NoisePath {
    /// The path of a configuration.
    pub fn of(config: &SchedulerConfig) -> Self {
        if config.is_flow() { NoisePath::Flow } else { NoisePath::Vp }
    }
}

/// How the times t of a rectified flow are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TimeSampling {
    /// Every t as often.
    #[default]
    Uniform,
    /// t = 1/(1 + e^-z), z standard normal: the middle more often than the ends (arXiv 2403.03206, section 3.1, which
    /// trains Stable Diffusion 3 so, with m = 0 and s = 1).
    LogitNormal,
}

impl TimeSampling {
    /// The share of the way from data to noise of sample `j` of a batch of `batch`, from 0 to 1.
    pub fn share(self, j: usize, batch: usize, rng: &mut impl Rng) -> f64 {
        match self {
            // one in each of `batch` equal parts: less variance than independent ones
            TimeSampling::Uniform => (j as f64 + rng.random::<f64>()) / batch as f64,
            TimeSampling::LogitNormal => {
                let z: f64 = StandardNormal.sample(rng);
                1.0 / (1.0 + (-z).exp())
            }
        }
    }
}

/// The configuration of a rectified flow that tells its network t times `steps`, as diffusers has it.
pub fn flow_config(steps: usize) -> SchedulerConfig {
    let mut config = SchedulerConfig {
        num_train_timesteps: steps,
        prediction_type: PredictionType::Flow,
        // the class does not clip
        clip_sample: false,
        ..SchedulerConfig::default()
    };
    config.class.class_name = Some("FlowMatchEulerDiscreteScheduler".into());
    config
}

/// The level at this share of the way from data to noise: of a schedule of β that of a training step, of a flow of any time
/// between.
pub fn level_at(schedule: &Schedule, share: f64) -> Level {
    let place = share * schedule.len() as f64;
    match schedule.path() {
        Path::RectifiedFlow => schedule.level(place),
        _ => schedule.level((place as usize).min(schedule.len() - 1) as f64),
    }
}

/// Checks that what is predicted is of the path.
///
/// # Errors
/// One line that says what is not.
pub fn check(config: &SchedulerConfig) -> Result<()> {
    let (flow, kind) = (config.is_flow(), config.prediction_type);
    ensure!(
        kind != PredictionType::Sample,
        "networks that predict the clean sample are not trained here: use epsilon or v, or flow of a rectified flow"
    );
    ensure!(
        flow == (kind == PredictionType::Flow),
        "a network of a rectified flow predicts its velocity, and no other does, but this one predicts {kind:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_pcg::Pcg64;

    fn shares(sampling: TimeSampling) -> Vec<f64> {
        let mut rng = Pcg64::new(5, 0);
        let batch = 100;
        (0..400).flat_map(|_| (0..batch).map(|j| sampling.share(j, batch, &mut rng)).collect::<Vec<_>>()).collect()
    }

    /// The quantiles of a logistic function of a normal number are those of the normal number.
    #[test]
    fn times_are_distributed_as_they_say() {
        let below = |shares: &[f64], t: f64| shares.iter().filter(|s| **s < t).count() as f64 / shares.len() as f64;
        let uniform = shares(TimeSampling::Uniform);
        for t in [0.1, 0.5, 0.77] {
            assert!((below(&uniform, t) - t).abs() < 0.005, "{t}");
        }
        let logit_normal = shares(TimeSampling::LogitNormal);
        // Φ(-1), Φ(0), Φ(2); of 40,000 numbers, within five standard deviations
        for (z, of_normal) in [(-1.0f64, 0.158_655), (0.0, 0.5), (2.0, 0.977_25)] {
            let found = below(&logit_normal, 1.0 / (1.0 + (-z).exp()));
            assert!((found - of_normal).abs() < 0.0125, "{z}: {found}");
        }
        assert!(uniform.iter().chain(&logit_normal).all(|t| (0.0..=1.0).contains(t)));
    }

    #[test]
    fn a_flow_goes_straight_from_data_to_noise() {
        let schedule = Schedule::from_config(&flow_config(100)).unwrap();
        for t in [0.0, 0.013, 0.5, 0.999, 1.0] {
            let level = level_at(&schedule, t);
            let errors = [level.gamma - (1.0 - t), level.sigma - t, level.time / 100.0 - t];
            assert!(errors.iter().all(|e| e.abs() < 1e-12), "{t}: {level:?}");
        }
        let vp = Schedule::from_config(&SchedulerConfig::default()).unwrap();
        assert_eq!([0.0, 0.4999, 1.0].map(|share| level_at(&vp, share).time), [0.0, 499.0, 999.0]);
    }
}
