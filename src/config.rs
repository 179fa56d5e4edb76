//! The scheduler's configuration, in diffusers' own `scheduler_config.json` format, so that a model
//! exported from there runs with its own file.

use crate::{Error, ErrorKind, Result, file};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

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
    /// The clean sample, by a network that takes `s = σ/γ` instead of the time (arXiv 2206.00364):
    /// [`Preconditioned`](crate::network::Preconditioned) scales its samples. Not one of diffusers' values.
    #[serde(rename = "denoised")]
    Denoised,
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
    /// The spacing with this name, as configurations spell it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        serde_json::from_value(serde_json::Value::String(name.into())).map_err(|_| {
            Error::invalid(format!(
                "unknown spacing '{name}': give leading, trailing, linspace, karras, log-snr or tuned"
            ))
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

/// A range of noise levels in σ/γ, to be put in place of a configuration's: what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sigmas {
    /// The least σ.
    pub min: Option<f64>,
    /// The greatest σ.
    pub max: Option<f64>,
    /// Karras's ρ (arXiv 2206.00364, eq. 5).
    pub rho: Option<f64>,
}

/// What is done to the estimate of the clean sample after each evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Threshold {
    /// Nothing.
    #[default]
    None,
    /// It is clipped to ± this bound, which is positive.
    Static(f64),
    /// Dynamic thresholding (arXiv 2205.11487, section 2.3): with s the given quantile of |x_0|, but from
    /// 1 to `max`, x_0 is clipped to ±s and divided by s.
    Dynamic {
        /// Which quantile, in (0, 1].
        ratio: f64,
        /// The most that s may be, at least 1.
        max: f64,
    },
}

/// How a network takes the noise level, and what its prediction is of: for [`Preconditioned`], the one place where
/// samples are scaled for networks that take σ. The samplers know such a network as its denoiser `D(y; σ)`, where
/// `y = x/γ` and σ stands for σ/γ (arXiv 2206.00364, eq. 7: `D(y; σ) = c_skip y + c_out F(c_in y, c_noise)` with
/// `c_in = 1/√(σ² + σ_data²)` and F the network).
///
/// [`Preconditioned`]: crate::network::Preconditioned
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Preconditioning {
    /// It takes x and the time of a schedule of β, as they are.
    #[default]
    None,
    /// It is D itself: it takes y and σ.
    Denoiser,
    /// EDM's: `c_skip = σ_data²/(σ² + σ_data²)`, `c_out = ±σ σ_data/√(σ² + σ_data²)`, `c_noise = ln(σ)/4`.
    Edm {
        /// The data's standard deviation.
        sigma_data: f64,
        /// Whether c_out is negative: diffusers' `v_prediction`.
        negative: bool,
    },
    /// A consistency model's (arXiv 2303.01469, appendix C), which leave y as it is at σ_min:
    /// `c_skip = σ_data²/((σ - σ_min)² + σ_data²)`, `c_out = (σ - σ_min) σ_data/√(σ² + σ_data²)`, `c_noise = 250 ln σ`.
    Consistency {
        /// The data's standard deviation.
        sigma_data: f64,
        /// The least σ.
        sigma_min: f64,
    },
}

/// The range of EDM and consistency models whose configuration does not give one.
const SIGMA_RANGE: (f64, f64) = (0.002, 80.0);

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
    /// Whether σ/γ is spaced as by [`Spacing::Karras`].
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
    /// Whether the model is a flow: not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_flow_sigmas: Option<bool>,
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
    /// DDPM's variance, `fixed_small` or `fixed_large`; others are for networks that predict it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance_type: Option<String>,
}

/// A step whose linear combination was fitted to the model: from the time where the network is evaluated,
/// `x' = x · x_t + Σ_j x0[j] · x_0(j)`, with x_0(j) the estimate of the clean sample in step j of the run, from the
/// first to this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FittedStep {
    /// The time.
    pub time: f64,
    /// The weight of the sample.
    pub x: f64,
    /// The weights of the estimates so far.
    pub x0: Vec<f64>,
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
    /// Which times [`Spacing::Tuned`] visits, for some numbers of steps: an addition to diffusers' format.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tuned_timesteps: BTreeMap<usize, Vec<f64>>,
    /// The runs of [`Solver::Fitted`](crate::solver::Solver::Fitted), by the number of steps: another addition.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fitted_steps: BTreeMap<usize, Vec<FittedStep>>,
    /// What the scheduler's class has beyond that.
    #[serde(flatten)]
    pub class: ClassOptions,
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
            tuned_timesteps: BTreeMap::new(),
            fitted_steps: BTreeMap::new(),
            class: ClassOptions::default(),
            other: BTreeMap::new(),
        }
    }
}

/// The most training steps of a schedule, which keeps numbers for each. Models have a thousand, and none has a million.
const MOST_TRAIN_TIMESTEPS: usize = 1_000_000;

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`: see [`from_json`](Self::from_json).
    ///
    /// # Errors
    /// When the file cannot be read, and as there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = file::read_text(path)
            .map_err(|e| Error::new(ErrorKind::Io, format!("cannot read {}: {e}", path.display())))?;
        Self::from_json(&text).map_err(|e| e.context(path.display()))
    }

    /// Reads the JSON text of a `scheduler_config.json`. What it leaves out takes the default of the class
    /// that it names, as in diffusers.
    ///
    /// # Errors
    /// When the text is not a JSON object, or a field's value is not one that is known.
    pub fn from_json(text: &str) -> Result<Self> {
        let invalid = |what: String| Error::new(ErrorKind::InvalidArgument, format!("scheduler configuration: {what}"));
        let mut fields: Map<String, Value> =
            serde_json::from_str(&without_infinities(text)).map_err(|e| invalid(e.to_string()))?;
        fields.retain(|_, value| !value.is_null());
        let class = fields.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        let betas = ["beta_schedule", "beta_start", "beta_end", "trained_betas"];
        let in_sigma = fields.get("prediction_type").is_some_and(|p| p == "denoised")
            && !betas.iter().any(|b| fields.contains_key(*b));
        for (name, value) in
            class_defaults(class).into_iter().chain(if in_sigma { denoised_defaults() } else { vec![] })
        {
            fields.entry(name).or_insert(value);
        }
        let config = SchedulerConfig::deserialize(Value::Object(fields.clone())).map_err(|e| {
            // serde does not say where in a flattened structure it was
            let alone = |(name, value): &(&String, &Value)| {
                SchedulerConfig::deserialize(Value::Object(Map::from_iter([(name.to_string(), (*value).clone())])))
                    .is_err()
            };
            invalid(match fields.iter().find(alone) {
                Some((name, value)) => format!("{name} is {value}: {e}"),
                None => e.to_string(),
            })
        })?;
        config.check().map_err(invalid)?;
        Ok(config)
    }

    /// What is wrong with the values, if anything is.
    fn check(&self) -> std::result::Result<(), String> {
        let class = &self.class;
        if !(1..=MOST_TRAIN_TIMESTEPS).contains(&self.num_train_timesteps) {
            let steps = self.num_train_timesteps;
            return Err(format!(
                "num_train_timesteps must be at least 1 and at most {MOST_TRAIN_TIMESTEPS}, not {steps}"
            ));
        }
        if !(self.clip_sample_range > 0.0 && self.clip_sample_range.is_finite()) {
            return Err(format!("clip_sample_range must be positive, not {}", self.clip_sample_range));
        }
        if let Some(order) = class.solver_order.filter(|o| !(1..=3).contains(o)) {
            return Err(format!("solver_order must be 1, 2 or 3, not {order}"));
        }
        if let Some(ratio) = class.dynamic_thresholding_ratio.filter(|r| !(*r > 0.0 && *r <= 1.0)) {
            return Err(format!("dynamic_thresholding_ratio must be above 0 and at most 1, not {ratio}"));
        }
        if let Some(max) = class.sample_max_value.filter(|m| !(*m >= 1.0 && m.is_finite())) {
            return Err(format!("sample_max_value must be at least 1, not {max}"));
        }
        let last = self.num_train_timesteps as f64 - 1.0;
        let check_times = |name: &str, steps: usize, times: &[f64]| {
            let falls = times.windows(2).all(|t| t[0] > t[1]);
            if steps == 0 || times.len() != steps || !falls || !times.iter().all(|t| (0.0..=last).contains(t)) {
                return Err(format!(
                    "{name} of {steps} steps must be as many times that fall, from {last} to 0, not {times:?}"
                ));
            }
            Ok(())
        };
        for (steps, times) in &self.tuned_timesteps {
            check_times("tuned_timesteps", *steps, times)?;
        }
        for (n, steps) in &self.fitted_steps {
            check_times("fitted_steps", *n, &steps.iter().map(|s| s.time).collect::<Vec<_>>())?;
            if let Some((i, step)) = steps.iter().enumerate().find(|(i, s)| s.x0.len() != i + 1) {
                return Err(format!("fitted_steps of {n} steps must have {} x0 in step {i}, not {:?}", i + 1, step.x0));
            }
        }
        let ends = [("sigma_min", class.sigma_min), ("sigma_max", class.sigma_max)];
        if let Some((name, Some(end))) = ends.into_iter().find(|(_, s)| s.is_some_and(|s| !(s > 0.0 && s.is_finite())))
        {
            return Err(format!("{name} must be positive, not {end}"));
        }
        if let (Some(min), Some(max)) = (class.sigma_min, class.sigma_max)
            && min >= max
        {
            return Err(format!("sigma_min must be less than sigma_max, but {min} is not less than {max}"));
        }
        for (name, value) in [("rho", class.rho), ("sigma_data", class.sigma_data)] {
            if let Some(value) = value.filter(|v| !(*v > 0.0 && v.is_finite())) {
                return Err(format!("{name} must be positive, not {value}"));
            }
        }
        if let Some(s_noise) = class.s_noise.filter(|s| *s != 1.0) {
            return Err(format!("s_noise {s_noise} is not supported: give 1"));
        }
        if matches!(self.preconditioning(), Preconditioning::Edm { .. })
            && self.prediction_type == PredictionType::Sample
        {
            return Err("the EDM classes take a prediction_type of epsilon or v_prediction, or denoised for a network that has its scalings in it, not sample".into());
        }
        let spacings =
            [class.use_karras_sigmas, class.use_exponential_sigmas, class.use_beta_sigmas, class.use_lu_lambdas];
        if spacings.into_iter().flatten().filter(|on| *on).count() > 1 {
            return Err(
                "of use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas and use_lu_lambdas only one can be true"
                    .into(),
            );
        }
        if class.use_flow_sigmas == Some(true) {
            return Err("use_flow_sigmas is not supported: give false".into());
        }
        Ok(())
    }

    /// The configuration of a network that gives the denoised sample D(x; σ), trained on σ from 0.002 to 80.
    pub fn denoised() -> Self {
        Self::from_json(r#"{"prediction_type": "denoised"}"#).expect("the defaults are valid")
    }

    /// The same configuration with another range of σ.
    ///
    /// # Errors
    /// When it is none.
    pub fn with_sigmas(mut self, sigmas: Sigmas) -> Result<Self> {
        let class = &mut self.class;
        class.sigma_min = sigmas.min.or(class.sigma_min);
        class.sigma_max = sigmas.max.or(class.sigma_max);
        class.rho = sigmas.rho.or(class.rho);
        self.check().map_err(Error::invalid)?;
        Ok(self)
    }

    /// The least and the greatest σ of a model that is trained on a range of σ; `None` for one with a schedule of β.
    pub fn sigma_range(&self) -> Option<(f64, f64)> {
        let class = &self.class;
        match self.preconditioning() {
            Preconditioning::None => None,
            Preconditioning::Denoiser => class.sigma_min.zip(class.sigma_max),
            _ => Some((class.sigma_min.unwrap_or(SIGMA_RANGE.0), class.sigma_max.unwrap_or(SIGMA_RANGE.1))),
        }
    }

    /// How the network takes the noise level: by the prediction type, and by the scheduler's class.
    pub fn preconditioning(&self) -> Preconditioning {
        let sigma_data = self.class.sigma_data.unwrap_or(0.5);
        match self.class.class_name.as_deref() {
            // one whose scalings are in the file, and the class names the solver alone
            _ if self.prediction_type == PredictionType::Denoised => Preconditioning::Denoiser,
            Some("EDMEulerScheduler" | "EDMDPMSolverMultistepScheduler") => {
                Preconditioning::Edm { sigma_data, negative: self.prediction_type == PredictionType::V }
            }
            Some("CMStochasticIterativeScheduler") => {
                let sigma_min = self.class.sigma_min.unwrap_or(SIGMA_RANGE.0);
                Preconditioning::Consistency { sigma_data, sigma_min }
            }
            _ => Preconditioning::None,
        }
    }

    /// What the network predicts, once it is wrapped in its [`preconditioning`](Self::preconditioning).
    pub fn prediction(&self) -> PredictionType {
        match self.preconditioning() {
            Preconditioning::None => self.prediction_type,
            _ => PredictionType::Denoised,
        }
    }

    /// Whether the network is told ¼ ln(σ/γ) in place of the training step: `timestep_type` of `continuous`.
    pub fn is_continuous(&self) -> bool {
        self.other.get("timestep_type").and_then(Value::as_str) == Some("continuous")
    }

    /// The fields that nothing here reads, but for those that diffusers keeps for itself.
    pub fn unknown_fields(&self) -> impl Iterator<Item = &str> {
        /// Of flow models, and of no effect where they are not used.
        const WITHOUT_EFFECT: &[&str] = &["flow_shift", "use_dynamic_shifting", "time_shift_type", "timestep_type"];
        self.other.keys().map(String::as_str).filter(|k| !k.starts_with('_') && !WITHOUT_EFFECT.contains(k))
    }

    /// What is done to the estimate of x_0.
    pub fn threshold(&self) -> Threshold {
        let class = &self.class;
        if class.thresholding == Some(true) {
            let ratio = class.dynamic_thresholding_ratio.unwrap_or(0.995);
            Threshold::Dynamic { ratio, max: class.sample_max_value.unwrap_or(1.0) }
        } else if matches!(self.preconditioning(), Preconditioning::Consistency { .. }) {
            if class.clip_denoised.unwrap_or(true) { Threshold::Static(1.0) } else { Threshold::None }
        } else if self.clip_sample {
            Threshold::Static(self.clip_sample_range)
        } else {
            Threshold::None
        }
    }

    /// The spacing for a solver that is not the class's own.
    pub fn spacing(&self) -> Spacing {
        let on = |option: Option<bool>| option == Some(true);
        if on(self.class.use_karras_sigmas) || (self.sigma_range().is_some() && self.class.class_name.is_some()) {
            Spacing::Karras
        } else if on(self.class.use_exponential_sigmas) || on(self.class.use_lu_lambdas) {
            Spacing::LogSnr
        } else {
            self.timestep_spacing
        }
    }

    /// The configuration as JSON text that diffusers reads too.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data serialises")
    }
}

/// The defaults of a network that takes σ and is trained on a range of σ rather than on a schedule of β.
fn denoised_defaults() -> Vec<(&'static str, Value)> {
    vec![
        ("prediction_type", json!("denoised")),
        ("sigma_min", json!(SIGMA_RANGE.0)),
        ("sigma_max", json!(SIGMA_RANGE.1)),
        ("timestep_spacing", json!("karras")),
        ("clip_sample", json!(false)),
    ]
}

/// Where the defaults of one of diffusers' classes differ from those of [`SchedulerConfig`], which are DDIM's.
fn class_defaults(class: &str) -> Vec<(&'static str, Value)> {
    match class {
        "" | "DDIMScheduler" | "DDPMScheduler" => vec![],
        "PNDMScheduler" => vec![("clip_sample", json!(false)), ("set_alpha_to_one", json!(false))],
        "CMStochasticIterativeScheduler" => vec![("clip_sample", json!(false)), ("num_train_timesteps", json!(40))],
        "HeunDiscreteScheduler" | "KDPM2DiscreteScheduler" => vec![
            ("clip_sample", json!(false)),
            ("timestep_spacing", json!("linspace")),
            ("beta_start", json!(0.00085)),
            ("beta_end", json!(0.012)),
        ],
        _ => vec![("clip_sample", json!(false)), ("timestep_spacing", json!("linspace"))],
    }
}

/// The text with null for the numbers that Python writes and JSON does not have.
fn without_infinities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !in_string && rest.starts_with(w));
        let taken = match (word, c) {
            (Some(word), _) => {
                out.push_str("null");
                word.len()
            }
            // the character after a backslash never ends the string
            (None, '\\') if in_string => {
                let len = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..len]);
                len
            }
            (None, _) => {
                in_string ^= c == '"';
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_infinities_are_read_as_left_out() {
        let text = r#"{"lambda_min_clipped": -Infinity, "sigma_max": NaN, "note": "-Infinity \" NaN"}"#;
        assert_eq!(
            without_infinities(text),
            r#"{"lambda_min_clipped": null, "sigma_max": null, "note": "-Infinity \" NaN"}"#
        );
        let config = SchedulerConfig::from_json(text).unwrap();
        assert_eq!(config.class.lambda_min_clipped, None);
        assert_eq!(config.unknown_fields().collect::<Vec<_>>(), ["note"]);
    }

    #[test]
    fn what_a_class_leaves_out_is_its_own_default() {
        let read = |text| SchedulerConfig::from_json(text).unwrap();
        let dpm = read(r#"{"_class_name": "DPMSolverMultistepScheduler"}"#);
        assert_eq!((dpm.clip_sample, dpm.timestep_spacing), (false, Spacing::Linspace));
        assert_eq!(read(r#"{"_class_name": "HeunDiscreteScheduler"}"#).beta_end, 0.012);
        assert!(read(r#"{"_class_name": "DDIMScheduler"}"#).clip_sample);
        assert_eq!(read("{}"), SchedulerConfig::default());
        assert_eq!(SchedulerConfig::from_json(&dpm.to_json()).unwrap(), dpm);
    }

    #[test]
    fn impossible_values_are_told_with_their_field() {
        for (text, part) in [
            (r#"{"beta_schedule": "cubic"}"#, "beta_schedule is \"cubic\": unknown variant"),
            (r#"{"solver_order": 4}"#, "solver_order must be 1, 2 or 3, not 4"),
            (r#"{"solver_type": "trapezoid"}"#, "solver_type is \"trapezoid\""),
            (r#"{"prediction_type": "flow_prediction"}"#, "prediction_type is \"flow_prediction\""),
            (r#"{"use_flow_sigmas": true}"#, "use_flow_sigmas is not supported"),
            (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps must be at least 1"),
            (r#"{"dynamic_thresholding_ratio": 0}"#, "dynamic_thresholding_ratio must be above 0"),
            (r#"{"clip_sample_range": -1}"#, "clip_sample_range must be positive"),
            (r#"{"use_karras_sigmas": true, "use_lu_lambdas": true}"#, "only one can be true"),
            (r#"{"sigma_max": 1, "sigma_min": 2}"#, "sigma_min must be less than sigma_max, but 2 is not less than 1"),
            (r#"{"rho": 0}"#, "rho must be positive, not 0"),
            (r#"{"_class_name": "CMStochasticIterativeScheduler", "s_noise": 2}"#, "s_noise 2 is not supported"),
            (r#"{"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}"#, "epsilon or v_prediction"),
            (r#"{"sigma_max": -3}"#, "sigma_max must be positive, not -3"),
            (r#"{"tuned_timesteps": {"2": [900]}}"#, "tuned_timesteps of 2 steps must be as many times that fall"),
            (r#"{"tuned_timesteps": {"2": [100, 900]}}"#, "from 999 to 0, not [100.0, 900.0]"),
            (r#"{"tuned_timesteps": {"1": [1000]}}"#, "from 999 to 0, not [1000.0]"),
            (r#"{"tuned_timesteps": {"0": []}}"#, "tuned_timesteps of 0 steps"),
            (r#"{"fitted_steps": {"1": [{"time": 1000, "x": 0, "x0": [1]}]}}"#, "fitted_steps of 1 steps must be"),
            (r#"{"fitted_steps": {"1": [{"time": 9, "x": 0, "x0": []}]}}"#, "must have 1 x0 in step 0, not []"),
            ("[]", "expected a map"),
        ] {
            let error = SchedulerConfig::from_json(text).unwrap_err().to_string();
            assert!(error.starts_with("scheduler configuration: ") && error.contains(part), "{error}");
        }
    }
}
