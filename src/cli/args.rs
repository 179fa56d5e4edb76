//! Arguments that several commands take.

use super::conditions::{self, Given};
use super::stdout::warn;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use edgegen::config::{SchedulerConfig, Sigmas, Spacing, Threshold};
use edgegen::model::{Normalization, Role, TimeAs};
use edgegen::solver::Solver;
use edgegen::{Model, ModelOptions, Precision, Settings};
use std::path::{Path, PathBuf};

/// Which model to use, and how to read it.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// The noise schedule, as diffusers' scheduler_config.json, instead of the model's own
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub scheduler_config: Option<PathBuf>,
    /// Say which input is the sample, time, class or a condition, or which is the time that a step leads to (next), if it
    /// cannot be told; time=none if it takes none (repeatable)
    #[arg(long = "input", value_name = "ROLE=NAME", value_parser = parse_role, help_heading = "Model")]
    pub inputs: Vec<(Role, String)>,
    /// Which output is the prediction, of a network that has several
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub output: Option<String>,
    /// What the network is told of the noise: step, alpha-bar, gamma (its root), sigma, log-snr, unit (t+1 of T) or
    /// quarter-log-sigma [default: what the model or the input's name says, else step]
    #[arg(long, value_name = "NAME", value_parser = parse_time, help_heading = "Model")]
    pub time_as: Option<TimeAs>,
    /// One sample's shape, such as 3,32,32, if the model leaves it open
    #[arg(long, value_name = "DIMS", value_delimiter = ',', help_heading = "Model")]
    pub shape: Option<Vec<usize>>,
    /// The units of samples and conditions, instead of the model's own: {"sample": {"min": […], "max": […]}, …} in
    /// JSON, or mean and std, or LeRobot's stats.json
    #[arg(long, value_name = "FILE.json", help_heading = "Model")]
    pub normalization: Option<PathBuf>,
    /// The least sigma, of a network that takes sigma (EDM, consistency) or of Karras's steps [default: its schedule's, else 0.002]
    #[arg(long, value_name = "X", help_heading = "Model")]
    pub sigma_min: Option<f64>,
    /// The greatest sigma; noise is scaled by it for a network that takes sigma [default: its schedule's, else 80]
    #[arg(long, value_name = "X", help_heading = "Model")]
    pub sigma_max: Option<f64>,
    /// How much closer the steps lie where there is less noise: Karras's rho [default: the schedule's, else 7]
    #[arg(long, value_name = "X", help_heading = "Model")]
    pub rho: Option<f64>,
    /// Round every activation exactly as an int8 model says, slowly, to compare with other runtimes
    #[arg(long, help_heading = "Model")]
    pub exact_quantization: bool,
    /// What the model computes in: 16 bits are faster on 64-bit ARM with FEAT_FP16 (Raspberry Pi 5, Jetson), and values
    /// take half the room; auto takes them on such a CPU alone
    #[arg(long, value_name = "f32|f16|auto", value_parser = parse_precision, default_value = "f32", help_heading = "Model")]
    pub precision: Precision,
    /// The SHA-256 that the model's file must have, as sha256sum prints it: any other file is refused
    #[arg(long, value_name = "HEX", help_heading = "Model")]
    pub sha256: Option<String>,
    /// The most memory that the model may take, such as 500M or 4G [default: 16 times its files, and at least 1 GiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Model")]
    pub max_memory: Option<usize>,
}

impl ModelArgs {
    /// The model, with what is given of its conditions.
    pub fn open(&self, path: Option<&Path>, given: &Given) -> Result<Model> {
        self.open_as(path, given.tell(ModelOptions::new()))
    }

    /// The same, where what a model can be looked at or timed without is made up.
    pub fn open_made_up(&self, path: Option<&Path>, given: &Given) -> Result<Model> {
        self.open_as(path, given.tell(ModelOptions::new()).make_up(true))
    }

    fn open_as(&self, path: Option<&Path>, options: ModelOptions) -> Result<Model> {
        let sigmas = Sigmas { min: self.sigma_min, max: self.sigma_max, rho: self.rho };
        let options = options.sigmas(sigmas).exact_quantization(self.exact_quantization);
        let mut options = options.precision(self.precision);
        if let Some(digits) = &self.sha256 {
            options = options.sha256(digits)?;
        }
        for (role, name) in &self.inputs {
            options = options.input(*role, name);
        }
        if let Some(name) = &self.output {
            options = options.output(name);
        }
        if let Some(time) = self.time_as {
            options = options.time_as(time);
        }
        if let Some(path) = &self.scheduler_config {
            options = options.scheduler_config(read_scheduler(path)?);
        }
        if let Some(shape) = &self.shape {
            options = options.sample_shape(shape.as_slice());
        }
        if let Some(path) = &self.normalization {
            options = options.normalization(Normalization::open(path)?);
        }
        if let Some(bytes) = self.max_memory {
            options = options.max_memory(bytes);
        }
        match path {
            Some(path) => Ok(options.open(path)?),
            #[cfg(feature = "embedded-model")]
            None => Ok(options.embedded()?),
            #[cfg(not(feature = "embedded-model"))]
            None => anyhow::bail!("this build has no model in it: give one with --model FILE"),
        }
    }
}

fn parse_precision(name: &str) -> Result<Precision, String> {
    Precision::from_name(name).map_err(|e| e.to_string())
}

fn read_scheduler(path: &Path) -> Result<SchedulerConfig> {
    let config = SchedulerConfig::open(path)?;
    // one line for each of the first, however many there are
    const MOST_LINES: usize = 8;
    let unknown = config.unknown_fields();
    for (i, field) in unknown.enumerate() {
        if i == MOST_LINES {
            warn(format!("{}: other fields are not known either", path.display()));
            break;
        }
        warn(format!("{}: the field {field} is not known and has no effect", path.display()));
    }
    Ok(config)
}

/// A number of bytes, or of so many times 2^10, 2^20 or 2^30 of them by the suffix K, M or G.
fn parse_bytes(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give a number of bytes, such as 500M or 4G".into())
}

fn parse_time(name: &str) -> Result<TimeAs, String> {
    TimeAs::from_name(name).map_err(|e| e.to_string())
}

fn parse_role(text: &str) -> Result<(Role, String), String> {
    let usage = "give ROLE=NAME with ROLE one of sample, time, next, class, condition";
    let (role, name) = text.split_once('=').ok_or(usage)?;
    Ok((Role::from_name(role).ok_or(usage)?, name.to_string()))
}

/// How to sample.
#[derive(Args, Clone, Debug)]
pub struct SamplingArgs {
    /// Solver steps [default: the model's choice, else 10]
    #[arg(short = 'n', long, value_name = "N", help_heading = "Sampling")]
    pub steps: Option<usize>,
    /// The sampler: `edgegen samplers` lists them [default: the model's choice, else its scheduler class's, else dpm++2m]
    #[arg(short, long, value_name = "NAME", help_heading = "Sampling")]
    pub sampler: Option<String>,
    /// Which noise levels are visited: leading, trailing, linspace, karras, log-snr or tuned [default: the model's]
    #[arg(long, value_name = "NAME", value_parser = parse_spacing, help_heading = "Sampling")]
    pub spacing: Option<Spacing>,
    /// The times that the steps visit, as the network counts them, in place of --steps and --spacing: 999,749,499,249
    #[arg(long, value_name = "T,…", value_delimiter = ',', conflicts_with_all = ["spacing"], help_heading = "Sampling")]
    pub timesteps: Option<Vec<f64>>,
    /// By how much the steps of a flow with use_dynamic_shifting are shifted to noise: mu [default: by the sample's size, as
    /// Flux's pipeline has it]
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Sampling")]
    pub mu: Option<f64>,
    /// How random ddim is, from 0 (not at all) to 1 (as DDPM); and sa-solver, from 0 on (its tau)
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Sampling")]
    pub eta: Option<f64>,
    /// How much noise heun adds on its way (S_churn), from 0 on
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Sampling")]
    pub churn: Option<f64>,
    /// The order of lms, deis, dpm, unipc and sa-solver, if not the usual or the one in its name
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    pub order: Option<usize>,
    /// The relative tolerance of samplers that choose their own steps: rk45, dpm-12, dpm-23, sde
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Sampling")]
    pub rtol: Option<f64>,
    /// Their absolute tolerance
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Sampling")]
    pub atol: Option<f64>,
    /// The weight of classifier-free guidance: 1 is none, others call the network twice [default: the model's choice, else 1]
    #[arg(long, value_name = "W", allow_negative_numbers = true, help_heading = "Sampling")]
    pub guidance: Option<f32>,
    /// A condition of guidance's unconditional half (repeatable) [default: as given where there is a class, else zeros]
    #[arg(long = "uncond", value_name = "NAME=VALUE|FILE.npy", value_parser = conditions::parse, help_heading = "Sampling")]
    pub unconditional: Vec<(String, String)>,
    /// Clip the estimate of the clean sample to ±X, or `none`, or `dynamic` [default: the schedule's]
    #[arg(long, value_name = "X", value_parser = parse_clip, help_heading = "Sampling")]
    pub clip: Option<Clip>,
}

#[derive(Clone, Copy, Debug)]
pub struct Clip(Threshold);

fn parse_clip(text: &str) -> Result<Clip, String> {
    match text {
        "none" => Ok(Clip(Threshold::None)),
        // the paper's quantile
        "dynamic" => Ok(Clip(Threshold::Dynamic { ratio: 0.995, max: f64::from(f32::MAX) })),
        _ => match text.parse::<f64>() {
            Ok(x) if x > 0.0 && x.is_finite() => Ok(Clip(Threshold::Static(x))),
            _ => Err("give a positive number, none or dynamic".into()),
        },
    }
}

fn parse_spacing(name: &str) -> Result<Spacing, String> {
    Spacing::from_name(name).map_err(|e| e.to_string())
}

impl SamplingArgs {
    pub fn settings(&self, model: &Model) -> Result<Settings> {
        let base = match &self.sampler {
            Some(name) => Settings::with_solver(model, Solver::from_name(name)?),
            None => Settings::of(model)?,
        };
        self.over(base, model)
    }

    /// What is given, and the rest from `base`.
    pub fn over(&self, base: Settings, model: &Model) -> Result<Settings> {
        let mut settings = match &self.sampler {
            Some(name) => {
                let mut own = Settings::with_solver(model, Solver::from_name(name)?);
                (own.steps, own.guidance) = (base.steps, base.guidance);
                own
            }
            None => base,
        };
        let places_steps = self.steps.is_some() || self.spacing.is_some() || self.timesteps.is_some();
        if matches!(settings.solver, Solver::Adaptive(_)) && places_steps {
            bail!("--steps, --spacing and --timesteps are not for samplers that choose their own steps");
        }
        if let Some(times) = &self.timesteps {
            settings.steps = times.len();
            settings.timesteps = Some(times.clone());
        }
        if let Some(steps) = self.steps {
            settings.steps = steps;
        }
        if let Some(spacing) = self.spacing {
            settings.spacing = Some(spacing);
        }
        settings.mu = self.mu;
        if let Some(guidance) = self.guidance {
            settings.guidance = guidance;
        }
        settings.unconditional = conditions::values(model, &self.unconditional)?;
        if let Some(Clip(threshold)) = self.clip {
            settings.threshold = threshold;
        }
        if let Some(eta) = self.eta {
            settings.solver = settings.solver.with_eta(eta)?;
        }
        if let Some(churn) = self.churn {
            settings.solver = settings.solver.with_churn(churn)?;
        }
        if let Some(order) = self.order {
            settings.solver = settings.solver.with_order(order)?;
        }
        if self.rtol.is_some() || self.atol.is_some() {
            settings.solver = settings.solver.with_tolerance(self.rtol, self.atol)?;
        }
        Ok(settings)
    }
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}
