//! A scheduler's whole configuration: read, checked, and what it says.

use super::fields::{self, ClassFields};
use super::kinds::{BetaSchedule, PredictionType, Spacing, TimestepType};
use super::options::ClassOptions;
use super::settings::{FlowTime, Preconditioning, Sigmas, Threshold};
use crate::{Error, ErrorKind, Result, file};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

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
        let class = fields.get("_class_name").and_then(Value::as_str).unwrap_or_default().to_string();
        let class = class.as_str();
        let unknown = match ClassFields::of(class) {
            Some(lists) => lists.keep(&mut fields, |name| default_of(class, name)).map_err(invalid)?,
            None if class.is_empty() => Map::new(),
            None => return Err(Error::new(ErrorKind::InvalidArgument, fields::refusal(class))),
        };
        let betas = ["beta_schedule", "beta_start", "beta_end", "trained_betas"];
        let in_sigma = fields.get("prediction_type").is_some_and(|p| p == "denoised")
            && !betas.iter().any(|b| fields.contains_key(*b));
        // a flow is not clipped unless it says so
        let flow = fields.get("prediction_type").is_some_and(|p| p == "flow_prediction" || p == "flow_to_data");
        let own = match (in_sigma, flow) {
            (true, _) => denoised_defaults(),
            (_, true) => vec![("clip_sample", json!(false)), ("timestep_spacing", json!("trailing"))],
            _ => vec![],
        };
        for (name, value) in class_defaults(class).into_iter().chain(own) {
            fields.entry(name).or_insert(value);
        }
        let mut config = SchedulerConfig::deserialize(Value::Object(fields.clone())).map_err(|e| {
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
        config.other.extend(unknown);
        config.check().map_err(invalid)?;
        Ok(config)
    }

    /// Whether the model is a rectified flow: by the scheduler's class, by `use_flow_sigmas`, or by what it predicts
    /// where no class is named.
    pub fn is_flow(&self) -> bool {
        let velocity = matches!(self.prediction_type, PredictionType::Flow | PredictionType::FlowToData);
        match self.class.class_name.as_deref() {
            Some(class) if FLOW_CLASSES.contains(&class) => true,
            None if velocity => true,
            _ => self.class.use_flow_sigmas == Some(true),
        }
    }

    /// What the network calls its times, if the model is a rectified flow.
    pub fn flow_time(&self) -> Option<FlowTime> {
        let scale = self.class.time_scale.unwrap_or(self.num_train_timesteps as f64);
        self.is_flow().then(|| match self.prediction() {
            PredictionType::FlowToData => FlowTime::Signal(scale),
            _ => FlowTime::Noise(scale),
        })
    }

    /// Whether the network takes the angle of (γ, σ), from 0 to 1, for the time: the class IPNDMScheduler's.
    pub fn is_angular(&self) -> bool {
        self.class.class_name.as_deref() == Some("IPNDMScheduler")
    }

    /// β at the times 0 and 1 of the class ScoreSdeVpScheduler, whose network takes a time from 0 to 1.
    pub fn sde_betas(&self) -> Option<(f64, f64)> {
        let class = &self.class;
        let is_sde = class.class_name.as_deref() == Some("ScoreSdeVpScheduler");
        is_sde.then(|| (class.beta_min.unwrap_or(0.1), class.beta_max.unwrap_or(20.0)))
    }

    /// By how much the signal-to-noise ratio of the schedule of β is divided.
    pub fn snr_shift(&self) -> f64 {
        match self.class.class_name.as_deref() {
            Some("CogVideoXDDIMScheduler" | "CogVideoXDPMScheduler") => self.class.snr_shift_scale.unwrap_or(3.0),
            _ => 1.0,
        }
    }

    /// Whether the network takes ¼ ln(σ/γ) for the time.
    pub fn is_continuous(&self) -> bool {
        // as in diffusers, for no other prediction
        self.class.timestep_type == Some(TimestepType::Continuous) && self.prediction_type == PredictionType::V
    }

    /// The same configuration for samples of this shape, by whose size the steps of some flows are shifted: the number of
    /// tokens is that of a sequence's times, or of a picture's or a film's patches of 2×2.
    #[must_use]
    pub fn for_samples(mut self, shape: &[usize]) -> Self {
        let class = &mut self.class;
        if class.use_dynamic_shifting == Some(true) && class.mu.is_none() {
            let tokens = match shape {
                [_, frames @ .., height, width] => frames.iter().product::<usize>() * (height / 2) * (width / 2),
                [times, _] => *times,
                _ => 1,
            };
            let (base, most) = (class.base_image_seq_len.unwrap_or(256), class.max_image_seq_len.unwrap_or(4096));
            let (low, high) = (class.base_shift.unwrap_or(0.5), class.max_shift.unwrap_or(1.15));
            let slope = (high - low) / (most as f64 - base as f64);
            class.mu = Some(tokens as f64 * slope + (low - slope * base as f64));
        }
        self
    }

    /// The same configuration with this μ, by which the steps of a flow with `use_dynamic_shifting` are shifted.
    ///
    /// # Errors
    /// When it is no such flow, or μ is out of range.
    pub fn with_mu(mut self, mu: f64) -> Result<Self> {
        if !self.is_flow() || self.class.use_dynamic_shifting != Some(true) {
            return Err(Error::invalid(
                "mu is for a flow whose scheduler configuration has use_dynamic_shifting true, which this has not",
            ));
        }
        self.class.mu = Some(mu);
        self.check().map_err(Error::invalid)?;
        Ok(self)
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
            Some("ScoreSdeVeScheduler") => Preconditioning::Score,
            _ => Preconditioning::None,
        }
    }

    /// What the network predicts, once it is wrapped in its [`preconditioning`](Self::preconditioning).
    pub fn prediction(&self) -> PredictionType {
        match self.preconditioning() {
            Preconditioning::None if self.class.invert_sigmas == Some(true) => PredictionType::FlowToData,
            Preconditioning::None => self.prediction_type,
            Preconditioning::Score => PredictionType::Score,
            _ => PredictionType::Denoised,
        }
    }

    /// The fields that nothing here reads, but for those that diffusers keeps for itself.
    pub fn unknown_fields(&self) -> impl Iterator<Item = &str> {
        self.other.keys().map(String::as_str).filter(|k| !k.starts_with('_'))
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

/// The range of EDM and consistency models whose configuration does not give one.
const SIGMA_RANGE: (f64, f64) = (0.002, 80.0);

/// What a field of a configuration without it is, for a class.
fn default_of(class: &str, name: &str) -> Option<Value> {
    let own = class_defaults(class).into_iter().find(|(field, _)| *field == name).map(|(_, value)| value);
    let all = || serde_json::to_value(SchedulerConfig::default()).ok()?.get(name).cloned();
    own.or_else(all)
}

/// The classes of rectified flows; the last is our own.
const FLOW_CLASSES: [&str; 4] =
    ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler", "RectifiedFlow"];

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
        ""
        | "DDIMScheduler"
        | "DDPMScheduler"
        | "DDIMParallelScheduler"
        | "DDPMParallelScheduler"
        | "DDIMInverseScheduler" => vec![],
        "LCMScheduler" | "TCDScheduler" | "CogVideoXDDIMScheduler" | "CogVideoXDPMScheduler" => vec![
            ("clip_sample", json!(false)),
            ("beta_schedule", json!("scaled_linear")),
            ("beta_start", json!(0.00085)),
            ("beta_end", json!(0.012)),
        ],
        "IPNDMScheduler" => vec![("clip_sample", json!(false)), ("prediction_type", json!("v_prediction"))],
        "PNDMScheduler" => vec![("clip_sample", json!(false)), ("set_alpha_to_one", json!(false))],
        class if FLOW_CLASSES.contains(&class) => {
            vec![("clip_sample", json!(false)), ("prediction_type", json!("flow_prediction"))]
        }
        "ScoreSdeVeScheduler" => vec![
            ("clip_sample", json!(false)),
            ("num_train_timesteps", json!(2000)),
            ("sigma_min", json!(0.01)),
            ("sigma_max", json!(1348.0)),
        ],
        "ScoreSdeVpScheduler" => vec![("clip_sample", json!(false)), ("num_train_timesteps", json!(2000))],
        "CMStochasticIterativeScheduler" => vec![("clip_sample", json!(false)), ("num_train_timesteps", json!(40))],
        "HeunDiscreteScheduler" | "KDPM2DiscreteScheduler" | "KDPM2AncestralDiscreteScheduler" => vec![
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
            (
                r#"{"_class_name": "DDIMScheduler", "prediction_type": "flow_prediction"}"#,
                "set use_flow_sigmas to true",
            ),
            (r#"{"use_flow_sigmas": true, "prediction_type": "v_prediction"}"#, "a rectified flow has no v_prediction"),
            (r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}"#, "shift must be positive, not 0"),
            (r#"{"use_flow_sigmas": true, "shift_terminal": 1}"#, "shift_terminal must lie between 0 and 1, not 1"),
            (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps must be at least 1"),
            (r#"{"dynamic_thresholding_ratio": 0}"#, "dynamic_thresholding_ratio must be above 0"),
            (r#"{"clip_sample_range": -1}"#, "clip_sample_range must be positive"),
            (r#"{"use_karras_sigmas": true, "use_lu_lambdas": true}"#, "only one can be true"),
            (r#"{"sigma_max": 1, "sigma_min": 2}"#, "sigma_min must be less than sigma_max, but 2 is not less than 1"),
            (r#"{"rho": 0}"#, "rho must be positive, not 0"),
            (
                r#"{"_class_name": "CMStochasticIterativeScheduler", "s_noise": 2}"#,
                "s_noise is 2: noise of another size",
            ),
            (r#"{"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}"#, "epsilon or v_prediction"),
            (
                r#"{"_class_name": "SASolverScheduler", "corrector_order": 0}"#,
                "corrector_order must be 1, 2, 3 or 4, not 0",
            ),
            (r#"{"_class_name": "SASolverScheduler", "tau_func": "t"}"#, "a function cannot be read from a file"),
            (
                r#"{"_class_name": "SASolverScheduler", "algorithm_type": "dpmsolver"}"#,
                "must be data_prediction or noise_prediction",
            ),
            (
                r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "data_prediction"}"#,
                "must be that of a DPM-Solver",
            ),
            (r#"{"_class_name": "ScoreSdeVeScheduler", "snr": 0}"#, "snr must be positive, not 0"),
            (r#"{"_class_name": "ScoreSdeVeScheduler", "correct_steps": 5000}"#, "correct_steps must be at most 1000"),
            (r#"{"_class_name": "ScoreSdeVeScheduler", "sampling_eps": 1}"#, "sampling_eps must lie between 0 and 1"),
            (r#"{"_class_name": "ScoreSdeVpScheduler", "beta_max": 0.05}"#, "beta_min must be less than beta_max"),
            (r#"{"sigma_max": -3}"#, "sigma_max must be positive, not -3"),
            (r#"{"tuned_timesteps": {"2": [900]}}"#, "tuned_timesteps of 2 steps must be as many times that fall"),
            (r#"{"tuned_timesteps": {"2": [100, 900]}}"#, "from 999 to 0, not [100.0, 900.0]"),
            (r#"{"tuned_timesteps": {"1": [1000]}}"#, "from 999 to 0, not [1000.0]"),
            (
                r#"{"prediction_type": "flow_prediction", "tuned_timesteps": {"1": [1001]}}"#,
                "from 1000 to 0, not [1001.0]",
            ),
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
