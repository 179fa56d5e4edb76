//! The scheduler's configuration, in diffusers' own `scheduler_config.json` format, so that a model
//! exported from there runs with its own file.

use crate::solver::Threshold;
use crate::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How β runs from `beta_start` to `beta_end` over the training steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BetaSchedule {
    /// β linear in t (DDPM, arXiv 2006.11239).
    #[default]
    #[serde(rename = "linear")]
    Linear,
    /// √β linear in t (latent diffusion).
    #[serde(rename = "scaled_linear")]
    ScaledLinear,
    /// ᾱ a squared cosine, β at most 0.999 (arXiv 2102.09672, eq. 17).
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
    /// β a sigmoid in t (GeoDiff).
    #[serde(rename = "sigmoid")]
    Sigmoid,
}

/// What the network's output means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PredictionType {
    /// The noise ε.
    #[default]
    #[serde(rename = "epsilon")]
    Epsilon,
    /// `v = γ ε - σ x_0` (arXiv 2202.00512).
    #[serde(rename = "v_prediction")]
    V,
    /// The clean sample x_0.
    #[serde(rename = "sample")]
    Sample,
}

/// Which training steps a run with fewer steps visits (arXiv 2305.08891, table 2; Karras: arXiv 2206.00364, eq. 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Spacing {
    /// 0, T/n, 2T/n, …, plus `steps_offset`: never visits the last, noisiest step.
    #[default]
    #[serde(rename = "leading")]
    Leading,
    /// T, T - T/n, …, minus one: begins at the noisiest step.
    #[serde(rename = "trailing")]
    Trailing,
    /// n points from 0 to T-1, both ends included.
    #[serde(rename = "linspace")]
    Linspace,
    /// Uniform in log-SNR.
    #[serde(rename = "log-snr")]
    LogSnr,
    /// Uniform in `(σ/γ)^{1/ρ}`, ρ = 7.
    #[serde(rename = "karras")]
    Karras,
}

/// A scheduler's configuration. Field names and meanings are diffusers'; what a file leaves out takes the value given here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// The number of training steps T.
    pub num_train_timesteps: usize,
    /// How β runs.
    pub beta_schedule: BetaSchedule,
    /// β of the first training step, in (0, 1).
    pub beta_start: f64,
    /// β of the last training step, in (0, 1).
    pub beta_end: f64,
    /// β of every training step; overrides the three fields above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    /// What the network's output means.
    pub prediction_type: PredictionType,
    /// Whether the estimate of x_0 is clipped to `±clip_sample_range` after every evaluation.
    pub clip_sample: bool,
    /// Where x_0 is clipped.
    pub clip_sample_range: f64,
    /// Which training steps a run visits.
    pub timestep_spacing: Spacing,
    /// Added to every training step of [`Spacing::Leading`].
    pub steps_offset: usize,
    /// Whether the step after the last one ends at ᾱ = 1 rather than at the ᾱ of training step 0.
    pub set_alpha_to_one: bool,
    /// Whether β is rescaled so that the last training step is pure noise (arXiv 2305.08891, algorithm 1).
    pub rescale_betas_zero_snr: bool,
    /// Fields that are not read here, kept as they are.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        SchedulerConfig {
            num_train_timesteps: 1000,
            beta_schedule: BetaSchedule::Linear,
            beta_start: 1e-4,
            beta_end: 0.02,
            trained_betas: None,
            prediction_type: PredictionType::Epsilon,
            clip_sample: true,
            clip_sample_range: 1.0,
            timestep_spacing: Spacing::Leading,
            steps_offset: 0,
            set_alpha_to_one: true,
            rescale_betas_zero_snr: false,
            other: BTreeMap::new(),
        }
    }
}

impl SchedulerConfig {
    /// Reads the JSON text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// When the text is not JSON, or a field's value is not one that is known.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|e| Error::new(ErrorKind::InvalidArgument, format!("scheduler configuration: {e}")))
    }

    /// What is done to the estimate of x_0.
    pub fn threshold(&self) -> Threshold {
        if self.clip_sample { Threshold::Static(self.clip_sample_range) } else { Threshold::None }
    }

    /// The configuration as JSON text that diffusers reads too.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data serialises")
    }
}
