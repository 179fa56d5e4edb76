//! What the fields of a configuration can be.

use crate::{Error, Result, suggest};
use serde::{Deserialize, Serialize};

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
    /// The signal's share by the quantiles of a Laplace distribution (arXiv 2407.03297), as diffusers has it.
    #[serde(rename = "laplace")]
    Laplace,
    /// ᾱ exponential in t.
    #[serde(rename = "exp")]
    Exponential,
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
    /// The velocity of a rectified flow, `ε - x_0` (arXiv 2209.03003).
    #[serde(rename = "flow_prediction")]
    Flow,
    /// The velocity in a time that runs from noise to data, `x_0 - ε`. Not one of diffusers' values.
    #[serde(rename = "flow_to_data")]
    FlowToData,
    /// The clean sample, by a network that takes `s = σ/γ` instead of the time (arXiv 2206.00364):
    /// [`Preconditioned`](crate::network::Preconditioned) scales its samples. Not one of diffusers' values.
    #[serde(rename = "denoised")]
    Denoised,
    /// The score of the density of `y = x/γ`, by a network that takes y and `s = σ/γ` (arXiv 2011.13456): `ε = -s · score`. That
    /// of the class ScoreSdeVeScheduler, and no configuration's own.
    #[serde(rename = "score", skip_deserializing)]
    Score,
}

impl PredictionType {
    /// Whether the network is told `s = σ/γ`.
    pub fn takes_sigma(self) -> bool {
        matches!(self, PredictionType::Denoised | PredictionType::Score)
    }
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
    /// The steps that were found best for this model: `tuned_timesteps` in its configuration.
    #[serde(rename = "tuned")]
    Tuned,
}

impl Spacing {
    const NAMES: [&str; 6] = ["leading", "trailing", "linspace", "karras", "log-snr", "tuned"];

    /// The spacing with this name, as configurations spell it, in any case of letters.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_lowercase())).map_err(|_| {
            let [most @ .., last] = Self::NAMES;
            let usage = format!("give {} or {last}", most.join(", "));
            Error::invalid(format!("unknown spacing '{name}': {}", suggest::advice(name, Self::NAMES, &usage)))
        })
    }
}

/// What a scheduler's class integrates (`algorithm_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AlgorithmType {
    /// DPM-Solver.
    #[serde(rename = "dpmsolver")]
    DpmSolver,
    /// DPM-Solver++.
    #[serde(rename = "dpmsolver++")]
    DpmSolverPlusPlus,
    /// SDE-DPM-Solver.
    #[serde(rename = "sde-dpmsolver")]
    SdeDpmSolver,
    /// SDE-DPM-Solver++.
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPlusPlus,
    /// DEIS.
    #[serde(rename = "deis")]
    Deis,
    /// SA-Solver on x_0.
    #[serde(rename = "data_prediction")]
    Data,
    /// SA-Solver on ε.
    #[serde(rename = "noise_prediction")]
    Noise,
}

/// A variant of a scheduler's method (`solver_type`); what it means depends on the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SolverType {
    /// Of DPM-Solver.
    Midpoint,
    /// Of DPM-Solver.
    Heun,
    /// Of UniPC.
    Bh1,
    /// Of UniPC.
    Bh2,
    /// Of DEIS.
    LogRho,
}

/// Where a run in σ/γ ends (`final_sigmas_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FinalSigmas {
    /// At no noise.
    #[serde(rename = "zero")]
    Zero,
    /// At training step 0.
    #[serde(rename = "sigma_min")]
    SigmaMin,
}

/// How σ goes from its greatest to its least value (`sigma_schedule`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SigmaSchedule {
    /// As by [`Spacing::Karras`].
    Karras,
    /// Geometrically.
    Exponential,
}

/// How diffusers' Euler scheduler interpolates σ/γ between training steps (`interpolation_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Interpolation {
    /// Linearly.
    #[serde(rename = "linear")]
    Linear,
    /// Not at all: σ/γ goes down geometrically from the schedule's end to its beginning.
    #[serde(rename = "log_linear")]
    LogLinear,
}

/// How the times of a rectified flow are shifted by the sample's size (`time_shift_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TimeShift {
    /// By e^μ.
    Exponential,
    /// By μ.
    Linear,
}

/// What diffusers' Euler scheduler tells the network of the noise (`timestep_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TimestepType {
    /// The training step.
    Discrete,
    /// ¼ ln(σ/γ).
    Continuous,
}

/// How LeRobot's policies follow a flow (`integration_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Integration {
    /// Euler's method.
    Euler,
    /// The classical Runge–Kutta method.
    Rk4,
}
