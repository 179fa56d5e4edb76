//! The fields that the classes of schedulers have beyond the noise schedule.

use super::kinds::{
    AlgorithmType, FinalSigmas, Integration, Interpolation, SigmaSchedule, SolverType, TimeShift, TimestepType,
};
use serde::{Deserialize, Serialize};

/// What the classes of diffusers' schedulers have beyond the noise schedule. What a file leaves out is
/// `None` and takes its class's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassOptions {
    /// The class: `DDIMScheduler`, `DPMSolverMultistepScheduler`, …
    #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// The order of a method of the DPM-Solver kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_order: Option<usize>,
    /// What is integrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm_type: Option<AlgorithmType>,
    /// The variant of the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_type: Option<SolverType>,
    /// Whether the last steps of a short run are of lower order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_order_final: Option<bool>,
    /// Whether the last step is of first order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euler_at_final: Option<bool>,
    /// Whether σ/γ is spaced as by [`Spacing::Karras`](crate::config::Spacing::Karras).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_karras_sigmas: Option<bool>,
    /// Whether σ/γ goes down geometrically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_exponential_sigmas: Option<bool>,
    /// The same, with whole times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_lu_lambdas: Option<bool>,
    /// Whether σ/γ is spaced by the quantiles of a beta distribution (arXiv 2407.12173).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_beta_sigmas: Option<bool>,
    /// Whether the model is a rectified flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_flow_sigmas: Option<bool>,
    /// Of a flow, how much nearer to noise its steps lie than even ones: 1 if left out. The FlowMatch classes call it `shift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_shift: Option<f64>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<f64>,
    /// Whether that follows from the sample's size instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_dynamic_shifting: Option<bool>,
    /// μ of a sample of `base_image_seq_len` tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_shift: Option<f64>,
    /// μ of a sample of `max_image_seq_len` tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_shift: Option<f64>,
    /// See `base_shift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_image_seq_len: Option<usize>,
    /// See `max_shift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_image_seq_len: Option<usize>,
    /// μ itself, which diffusers takes from its caller: an addition to its format. If left out, it follows from the
    /// sample's size ([`SchedulerConfig::for_samples`](super::SchedulerConfig::for_samples)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mu: Option<f64>,
    /// How μ shifts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_shift_type: Option<TimeShift>,
    /// The σ of a flow's last step, to which all are stretched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift_terminal: Option<f64>,
    /// Whether the network's time runs from noise to data, and its velocity with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invert_sigmas: Option<bool>,
    /// Whether each step of a flow goes to x_0 and back by fresh noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stochastic_sampling: Option<bool>,
    /// What a network of a flow calls pure noise, or the data if its time runs there: the number of training steps if left
    /// out. An addition to diffusers' format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_scale: Option<f64>,
    /// How the class `RectifiedFlow`, of our own, follows the flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration_method: Option<Integration>,
    /// How many steps suit the model: LeRobot's, and an addition to diffusers' format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_inference_steps: Option<usize>,
    /// What the network is told of the noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_type: Option<TimestepType>,
    /// Where the run ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_sigmas_type: Option<FinalSigmas>,
    /// The least λ = ln(γ/σ) that is visited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda_min_clipped: Option<f64>,
    /// The least σ/γ of Karras or exponential spacing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// The greatest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    /// Karras's ρ, by which the steps of a range of σ lie closer together where there is less noise: 7 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho: Option<f64>,
    /// The standard deviation of the data, in the scalings of EDM and consistency models: 0.5 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_data: Option<f64>,
    /// How many steps a consistency model was distilled from: the class LCMScheduler's, and TCDScheduler's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_inference_steps: Option<usize>,
    /// What times are multiplied by in LCMScheduler's boundary condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_scaling: Option<f64>,
    /// By how much CogVideoX's classes divide the signal-to-noise ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snr_shift_scale: Option<f64>,
    /// How the EDM classes space σ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_schedule: Option<SigmaSchedule>,
    /// Whether a consistency model's estimates are clipped to ±1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_denoised: Option<bool>,
    /// What a consistency model's noise is scaled by: 1, and nothing else is supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s_noise: Option<f64>,
    /// How σ/γ is interpolated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation_type: Option<Interpolation>,
    /// Whether PNDM starts without Runge–Kutta steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_prk_steps: Option<bool>,
    /// Whether UniPC expands x_0 rather than ε.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predict_x0: Option<bool>,
    /// UniPC's steps without corrector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_corrector: Option<Vec<usize>>,
    /// Whether x_0 is thresholded dynamically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholding: Option<bool>,
    /// The quantile of dynamic thresholding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_thresholding_ratio: Option<f64>,
    /// The greatest threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_max_value: Option<f64>,
    /// The order of SA-Solver's predictor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predictor_order: Option<usize>,
    /// The order of its corrector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrector_order: Option<usize>,
    /// The signal-to-noise ratio of a Langevin step: the class ScoreSdeVeScheduler's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snr: Option<f64>,
    /// How many such steps it takes at each level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correct_steps: Option<usize>,
    /// Where the time of score-based SDEs ends, which runs from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_eps: Option<f64>,
    /// β at time 0 of the class ScoreSdeVpScheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_min: Option<f64>,
    /// β at time 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_max: Option<f64>,
    /// DDPM's variance: `fixed_small` or `fixed_large`, or `learned` or `learned_range` of a network that gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance_type: Option<String>,
}
