//! What the classes of diffusers' schedulers do: which solver each is, and where it puts its steps.
//!
//! A `scheduler_config.json` names a class (`_class_name`), and each class places its levels in a way of
//! its own: rounded or not, ending clean or not, with σ interpolated or taken as it is. [`Solver::of_scheduler`] and
//! [`Grid::of_scheduler`] follow diffusers 0.42 to the letter, so that the same noise and network give the same
//! sample.

use crate::config::{
    AlgorithmType, ClassOptions, FinalSigmas, Interpolation, SchedulerConfig, SigmaSchedule, SolverType, Spacing,
};
use crate::schedule::{Grid, Level, Schedule, Transition};
use crate::solver::{
    BFunction, Churn, Curvature, DeisVariable, DpmSolver, Form, SecondOrder, Solver, Stepping, UniPc, Variance,
};
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Ddim,
    Ddpm,
    Pndm,
    DpmMultistep,
    DpmSinglestep,
    UniPc,
    Deis,
    Euler,
    EulerAncestral,
    Heun,
    Lms,
    Dpm2,
    EdmEuler,
    EdmDpmMultistep,
    Consistency,
}

const CLASSES: [(&str, Class); 15] = [
    ("DDIMScheduler", Class::Ddim),
    ("DDPMScheduler", Class::Ddpm),
    ("PNDMScheduler", Class::Pndm),
    ("DPMSolverMultistepScheduler", Class::DpmMultistep),
    ("DPMSolverSinglestepScheduler", Class::DpmSinglestep),
    ("UniPCMultistepScheduler", Class::UniPc),
    ("DEISMultistepScheduler", Class::Deis),
    ("EulerDiscreteScheduler", Class::Euler),
    ("EulerAncestralDiscreteScheduler", Class::EulerAncestral),
    ("HeunDiscreteScheduler", Class::Heun),
    ("LMSDiscreteScheduler", Class::Lms),
    ("KDPM2DiscreteScheduler", Class::Dpm2),
    ("EDMEulerScheduler", Class::EdmEuler),
    ("EDMDPMSolverMultistepScheduler", Class::EdmDpmMultistep),
    ("CMStochasticIterativeScheduler", Class::Consistency),
];

fn class(config: &SchedulerConfig) -> Result<Option<Class>> {
    let Some(name) = &config.class.class_name else { return Ok(None) };
    match CLASSES.iter().find(|(known, _)| known == name) {
        Some((_, class)) => Ok(Some(*class)),
        None => {
            let known: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
            Err(Error::invalid(format!(
                "the scheduler class {name} is not supported: name a sampler, or a class of {}",
                known.join(", ")
            )))
        }
    }
}

impl Solver {
    /// The solver of the class that the configuration names, or `None` if it names none.
    ///
    /// # Errors
    /// When the class is not known, or an option is one that is not supported.
    pub fn of_scheduler(config: &SchedulerConfig) -> Result<Option<Solver>> {
        let Some(class) = class(config)? else { return Ok(None) };
        let options = &config.class;
        Ok(Some(match class {
            Class::Ddim => Solver::Ddim { eta: 0.0 },
            Class::Ddpm => Solver::Ddpm(variance(options)?),
            Class::Pndm => Solver::Pndm { warm_up: !options.skip_prk_steps.unwrap_or(false) },
            Class::DpmMultistep | Class::EdmDpmMultistep => dpm_solver(options, Stepping::Multistep),
            Class::DpmSinglestep => dpm_solver(options, Stepping::Singlestep),
            Class::UniPc => unipc(options)?,
            Class::Deis => Solver::Deis {
                order: options.solver_order.unwrap_or(2),
                variable: DeisVariable::LogRho,
                lower_order_final: options.lower_order_final.unwrap_or(true),
            },
            Class::Euler | Class::EdmEuler => Solver::Euler,
            Class::EulerAncestral => Solver::EulerAncestral,
            Class::Heun => Solver::Heun(Churn::NONE),
            Class::Lms => Solver::Lms { order: 4 },
            Class::Dpm2 => Solver::Dpm2,
            Class::Consistency => Solver::Consistency { sigma_min: config.sigma_range().map_or(0.0, |(min, _)| min) },
        }))
    }
}

fn variance(options: &ClassOptions) -> Result<Variance> {
    match options.variance_type.as_deref() {
        None | Some("fixed_small" | "fixed_small_log") => Ok(Variance::Small),
        Some("fixed_large" | "fixed_large_log") => Ok(Variance::Large),
        Some(other) => {
            Err(Error::invalid(format!("variance_type {other} is not supported: give fixed_small or fixed_large")))
        }
    }
}

fn dpm_solver(options: &ClassOptions, stepping: Stepping) -> Solver {
    Solver::DpmSolver(DpmSolver {
        form: match options.algorithm_type {
            Some(AlgorithmType::DpmSolver) => Form::Noise,
            Some(AlgorithmType::SdeDpmSolver) => Form::NoiseSde,
            Some(AlgorithmType::SdeDpmSolverPlusPlus) => Form::DataSde,
            None | Some(AlgorithmType::DpmSolverPlusPlus | AlgorithmType::Deis) => Form::Data,
        },
        order: options.solver_order.unwrap_or(2),
        stepping,
        second_order: match options.solver_type {
            Some(SolverType::Heun) => SecondOrder::Heun,
            _ => SecondOrder::Midpoint,
        },
        curvature: Curvature::Diffusers,
        lower_order_final: options.lower_order_final.unwrap_or(stepping == Stepping::Multistep),
        euler_at_final: options.euler_at_final.unwrap_or(false),
    })
}

fn unipc(options: &ClassOptions) -> Result<Solver> {
    let disabled = options.disable_corrector.as_deref().unwrap_or_default();
    let uncorrected = disabled.len();
    if !(0..uncorrected).all(|step| disabled.contains(&step)) {
        return Err(Error::invalid(format!(
            "disable_corrector must name the first steps, such as [0, 1], not {disabled:?}"
        )));
    }
    Ok(Solver::UniPc(UniPc {
        order: options.solver_order.unwrap_or(2),
        b: if options.solver_type == Some(SolverType::Bh1) { BFunction::Bh1 } else { BFunction::Bh2 },
        predict_x0: options.predict_x0.unwrap_or(true),
        lower_order_final: options.lower_order_final.unwrap_or(true),
        uncorrected,
    }))
}

impl Grid {
    /// The steps that the class which the configuration names takes in a run of `steps` steps.
    ///
    /// # Errors
    /// When `steps` is 0 or more than the schedule's, the configuration names no class or one that is not
    /// known, or asks for a spacing that the class has not.
    pub fn of_scheduler(config: &SchedulerConfig, schedule: &Schedule, steps: usize) -> Result<Grid> {
        let class = class(config)?.ok_or_else(|| {
            Error::invalid("the scheduler configuration names no class: add _class_name, or name a spacing")
        })?;
        if let Some(range) = config.sigma_range() {
            return in_range(config, schedule, class, range, steps);
        }
        let n = schedule.len();
        if steps == 0 || steps > n {
            return Err(Error::invalid(format!("the number of steps must be from 1 to {n}, not {steps}")));
        }
        if class != Class::DpmSinglestep
            && !matches!(config.timestep_spacing, Spacing::Leading | Spacing::Trailing | Spacing::Linspace)
        {
            return Err(Error::invalid(
                "with a scheduler class timestep_spacing must be leading, trailing or linspace",
            ));
        }
        let clips = matches!(class, Class::DpmMultistep | Class::DpmSinglestep);
        if let Some(least) = config.class.lambda_min_clipped.filter(|_| clips)
            && schedule.level(0.0).lambda() < least
        {
            return Err(Error::invalid(format!("lambda_min_clipped is {least}, which leaves no training step")));
        }
        let run = GridMaker { config, schedule, steps, sigmas: TrainingSigmas::new(config, schedule) };
        Ok(match class {
            Class::Ddim | Class::Pndm => run.by_training_steps(),
            Class::Ddpm => run.ancestral(),
            Class::DpmMultistep | Class::DpmSinglestep | Class::UniPc | Class::Deis => run.multistep(class),
            Class::Euler | Class::EulerAncestral | Class::Heun | Class::Lms | Class::Dpm2 => run.in_sigma(class),
            Class::EdmEuler | Class::EdmDpmMultistep | Class::Consistency => {
                return Err(Error::invalid(
                    "this scheduler class is for networks that are trained on a range of sigma",
                ));
            }
        })
    }
}

/// The steps through a range of σ: of the EDM classes, of the consistency class, or for a network that takes σ of any.
fn in_range(
    config: &SchedulerConfig,
    schedule: &Schedule,
    class: Class,
    (min, max): (f64, f64),
    steps: usize,
) -> Result<Grid> {
    let most = if class == Class::Consistency { config.num_train_timesteps } else { schedule.len() };
    if steps == 0 || steps > most {
        return Err(Error::invalid(format!("the number of steps must be from 1 to {most}, not {steps}")));
    }
    let rho = config.class.rho.unwrap_or(7.0);
    let karras = |u: f64| {
        libm::pow(libm::pow(max, 1.0 / rho) + u * (libm::pow(min, 1.0 / rho) - libm::pow(max, 1.0 / rho)), rho)
    };
    let exponential = |u: f64| max * libm::pow(min / max, u);
    let place = |i: usize| match class {
        // every so many of the training steps
        Class::Consistency => (i * (most / steps)) as f64 / (most.max(2) - 1) as f64,
        _ => i as f64 / (steps.max(2) - 1) as f64,
    };
    let level = |sigma: f64| Level::from_edm_sigma(schedule.time_of_log_snr(-2.0 * libm::log(sigma)), sigma);
    let sigmas = (0..steps).map(|i| match config.class.sigma_schedule {
        Some(SigmaSchedule::Exponential) => exponential(place(i)),
        _ => karras(place(i)),
    });
    let mut levels: Vec<Level> = sigmas.map(level).collect();
    levels.push(match config.class.final_sigmas_type {
        Some(FinalSigmas::SigmaMin) => level(min),
        _ => Level::CLEAN,
    });
    let grid = Grid::chain(&levels);
    // The EDM classes start from the standard deviation √(σ_max² + 1), as they stand for VP ones; others from σ_max.
    Ok(if matches!(class, Class::EdmEuler | Class::EdmDpmMultistep) { grid } else { grid.with_scaled_noise() })
}

/// σ/γ of every training step.
struct TrainingSigmas(Vec<f64>);

impl TrainingSigmas {
    fn new(config: &SchedulerConfig, schedule: &Schedule) -> Self {
        // diffusers puts the least half-precision number for a last ᾱ of zero, which would make σ/γ infinite
        let least = if config.rescale_betas_zero_snr { 2f64.powi(-24) } else { 0.0 };
        // and its α are float32, which shows where they are near 1: in the least σ/γ, which spacings start from
        let alphas = (0..schedule.len()).map(|t| 1.0 - schedule.beta(t) as f32);
        let sigma = |alpha_bar: f64| ((1.0 - alpha_bar) / alpha_bar).sqrt();
        let products = alphas.scan(1.0, |product, alpha| {
            *product *= f64::from(alpha);
            Some(f64::from(*product as f32).max(least))
        });
        TrainingSigmas(products.map(sigma).collect())
    }

    fn min(&self) -> f64 {
        self.0[0]
    }

    fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// Between training steps, linear in time.
    fn at(&self, time: f64) -> f64 {
        let below = (time.max(0.0) as usize).min(self.0.len() - 1);
        let above = (below + 1).min(self.0.len() - 1);
        self.0[below] + (self.0[above] - self.0[below]) * (time - below as f64)
    }

    /// Between training steps, linear in ln σ.
    fn time_of(&self, sigma: f64) -> f64 {
        let below = self.0.partition_point(|&s| s <= sigma).clamp(1, (self.0.len() - 1).max(1)) - 1;
        let Some(above) = self.0.get(below + 1) else { return below as f64 };
        let (low, high) = (libm::log(self.0[below]), libm::log(*above));
        below as f64 + ((libm::log(sigma) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// What a class's levels depend on.
struct GridMaker<'a> {
    config: &'a SchedulerConfig,
    schedule: &'a Schedule,
    steps: usize,
    sigmas: TrainingSigmas,
}

impl GridMaker<'_> {
    fn len(&self) -> usize {
        self.schedule.len()
    }

    /// T - T/n, T - 2 T/n, …, rounded, less one.
    fn trailing(&self, last: usize) -> Vec<f64> {
        let ratio = self.len() as f64 / self.steps as f64;
        (0..self.steps)
            .map(|i| (last as f64 - ratio * i as f64).round_ties_even() - 1.0)
            .take_while(|t| *t >= 0.0)
            .collect()
    }

    /// Multiples of T/n from `times` down to 0, plus the offset.
    fn leading(&self, ratio: usize, from: usize) -> Vec<f64> {
        let (last, offset) = (self.len() - 1, self.config.steps_offset);
        (0..self.steps).map(|i| ((from - i) * ratio + offset).min(last) as f64).collect()
    }

    /// DDIM's and PNDM's: from each time to T/n before it, rounded down, wherever the next time is.
    fn by_training_steps(&self) -> Grid {
        let times: Vec<f64> = match self.config.timestep_spacing {
            Spacing::Trailing => self.trailing(self.len()),
            Spacing::Linspace => line((self.len() - 1) as f64, 0.0, self.steps).map(f64::round_ties_even).collect(),
            _ => self.leading(self.len() / self.steps, self.steps - 1),
        };
        let width = (self.len() / self.steps) as f64;
        let end = if self.config.set_alpha_to_one { Level::CLEAN } else { self.schedule.level(0.0) };
        let step = |time: f64| {
            let to = if time >= width { self.schedule.level(time - width) } else { end };
            Transition { from: self.schedule.level(time), to }
        };
        Grid { steps: times.into_iter().map(step).collect(), start: 1.0, fitted: vec![] }
    }

    /// DDPM's: from each time to the next, and then to the clean sample.
    fn ancestral(&self) -> Grid {
        let froms: Vec<Level> = self.by_training_steps().steps.iter().map(|s| s.from).collect();
        let levels: Vec<Level> = froms.into_iter().chain([Level::CLEAN]).collect();
        Grid::chain(&levels)
    }

    /// Those of the DPM-Solver kind: levels in σ/γ, whole times.
    fn multistep(&self, class: Class) -> Grid {
        let options = &self.config.class;
        let clipped = match options.lambda_min_clipped {
            Some(least) if matches!(class, Class::DpmMultistep | Class::DpmSinglestep) => {
                self.sigmas.0.iter().filter(|s| -libm::log(**s) < least).count()
            }
            _ => 0,
        };
        let last = self.len() - clipped;
        let round_down = |time: f64| (time + 1e-3).floor();
        let spaced = self.spaced(self.sigmas.max(), self.sigmas.min());
        let levels: Vec<Level> = match spaced {
            Some(sigmas) => sigmas
                .map(|sigma| {
                    let time = self.sigmas.time_of(sigma);
                    let rounds = match class {
                        _ if [options.use_exponential_sigmas, options.use_beta_sigmas].contains(&Some(true)) => false,
                        Class::DpmMultistep => self.config.beta_schedule != crate::config::BetaSchedule::SquaredCosine,
                        _ => true,
                    };
                    let time = if rounds { time.round_ties_even() } else { round_down(time) };
                    Level::from_edm_sigma(time, sigma)
                })
                .collect(),
            None => {
                let spacing =
                    if class == Class::DpmSinglestep { Spacing::Linspace } else { self.config.timestep_spacing };
                let times = match spacing {
                    Spacing::Leading => self.leading(last / (self.steps + 1), self.steps),
                    Spacing::Trailing => self.trailing(last),
                    _ => {
                        let roots = line((last - 1) as f64, 0.0, self.steps + 1);
                        roots.take(self.steps).map(f64::round_ties_even).collect()
                    }
                };
                times.into_iter().map(|time| Level::from_edm_sigma(time, self.sigmas.at(time))).collect()
            }
        };
        let is_spaced = levels.len() == self.steps && self.spaced(1.0, 1.0).is_some();
        // DEIS never ends clean; it and UniPC end spaced levels where these end.
        let own_end = is_spaced && matches!(class, Class::Deis | Class::UniPc);
        let default = if class == Class::Deis { FinalSigmas::SigmaMin } else { FinalSigmas::Zero };
        let end = match options.final_sigmas_type.unwrap_or(default) {
            FinalSigmas::Zero => Level::CLEAN,
            FinalSigmas::SigmaMin if own_end => levels[levels.len() - 1],
            FinalSigmas::SigmaMin => Level::from_edm_sigma(0.0, self.sigmas.min()),
        };
        Grid::chain(&levels.into_iter().chain([end]).collect::<Vec<_>>())
    }

    /// Those of the k-diffusion kind: levels in σ/γ, fractional times, scaled noise to start from.
    fn in_sigma(&self, class: Class) -> Grid {
        let (last, options) = ((self.len() - 1) as f64, &self.config.class);
        let times = match self.config.timestep_spacing {
            Spacing::Leading => self.leading(self.len() / self.steps, self.steps - 1),
            Spacing::Trailing => self.trailing(self.len()),
            _ => line(last, 0.0, self.steps).collect(),
        };
        let mut levels: Vec<Level> =
            times.iter().map(|&time| Level::from_edm_sigma(time, self.sigmas.at(time))).collect();
        let mut end = match options.final_sigmas_type {
            Some(FinalSigmas::SigmaMin) => Level::from_edm_sigma(0.0, self.sigmas.min()),
            _ => Level::CLEAN,
        };
        if options.interpolation_type == Some(Interpolation::LogLinear) {
            let sigmas = line(libm::log(self.sigmas.max()), libm::log(self.sigmas.min()), self.steps + 1).map(f64::exp);
            levels = times.iter().zip(sigmas).map(|(&time, sigma)| Level::from_edm_sigma(time, sigma)).collect();
            end = Level::from_edm_sigma(0.0, self.sigmas.min());
        }
        if let Some(sigmas) = self.spaced(levels[0].edm_sigma(), levels[levels.len() - 1].edm_sigma()) {
            let rounds = class == Class::Dpm2 && options.use_karras_sigmas == Some(true);
            let level = |sigma: f64| {
                let time = self.sigmas.time_of(sigma);
                Level::from_edm_sigma(if rounds { time.round_ties_even() } else { time }, sigma)
            };
            levels = sigmas.map(level).collect();
        }
        let grid = Grid::chain(&levels.into_iter().chain([end]).collect::<Vec<_>>());
        if self.config.timestep_spacing == Spacing::Leading { grid } else { grid.with_scaled_noise() }
    }

    /// Karras's, exponential or beta spacing, if the configuration asks for one, between these ends.
    fn spaced(&self, max: f64, min: f64) -> Option<Box<dyn Iterator<Item = f64>>> {
        let options = &self.config.class;
        let on = |option: Option<bool>| option == Some(true);
        let (max, min) = (options.sigma_max.unwrap_or(max), options.sigma_min.unwrap_or(min));
        if on(options.use_karras_sigmas) {
            const RHO: f64 = 7.0;
            let roots = line(libm::pow(max, 1.0 / RHO), libm::pow(min, 1.0 / RHO), self.steps);
            Some(Box::new(roots.map(|root| libm::pow(root, RHO))))
        } else if on(options.use_exponential_sigmas) || on(options.use_lu_lambdas) {
            Some(Box::new(line(libm::log(max), libm::log(min), self.steps).map(f64::exp)))
        } else if on(options.use_beta_sigmas) {
            Some(Box::new(line(1.0, 0.0, self.steps).map(move |p| min + beta_quantile(p) * (max - min))))
        } else {
            None
        }
    }
}

/// The quantile of the beta distribution with both parameters 0.6, for probabilities from 0 to 1.
fn beta_quantile(probability: f64) -> f64 {
    const A: f64 = 0.6;
    // ∫_0^x u^{a-1} (1 - u)^{a-1} du for x ≤ ½, by the binomial series, whose terms fall by x or faster
    let integral = |x: f64| {
        let (mut sum, mut term) = (0.0, libm::pow(x, A));
        for k in 0..64 {
            sum += term / (A + f64::from(k));
            term *= x * (1.0 - A + f64::from(k)) / f64::from(k + 1);
        }
        sum
    };
    if probability > 0.5 {
        return 1.0 - beta_quantile(1.0 - probability);
    }
    let wanted = 2.0 * probability * integral(0.5);
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if integral(middle) < wanted { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// `count` numbers from `a` to `b`, both included.
fn line(a: f64, b: f64, count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| if count == 1 { a } else { a + (b - a) * i as f64 / (count - 1) as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Threshold;
    use crate::config::{BetaSchedule, PredictionType};
    use crate::solver::Prediction;

    /// Every class, at every number of steps that a schedule has, or has not.
    #[test]
    fn no_configuration_is_a_panic() {
        let (mut runs, mut refused) = (0, 0);
        for (name, _) in CLASSES {
            for options in [
                "",
                r#""use_karras_sigmas": true"#,
                r#""use_exponential_sigmas": true, "final_sigmas_type": "sigma_min""#,
                r#""use_beta_sigmas": true"#,
                r#""solver_order": 3, "rescale_betas_zero_snr": true"#,
                r#""algorithm_type": "dpmsolver", "solver_order": 3"#,
                r#""steps_offset": 7, "timestep_spacing": "leading""#,
                r#""timestep_spacing": "trailing", "lambda_min_clipped": -1.0"#,
                r#""lambda_min_clipped": 9.0"#,
                r#""disable_corrector": [3]"#,
            ] {
                for (t, schedule) in [(1, "linear"), (2, "linear"), (10, "squaredcos_cap_v2"), (1000, "scaled_linear")]
                {
                    let comma = if options.is_empty() { "" } else { "," };
                    let text = format!(
                        r#"{{"_class_name": "{name}", "num_train_timesteps": {t}, "beta_schedule": "{schedule}" {comma} {options}}}"#
                    );
                    let config = SchedulerConfig::from_json(&text).unwrap();
                    for steps in [0, 1, 2, 3, 7, t / 2, t, t + 1] {
                        let program = || {
                            let schedule = Schedule::from_config(&config)?;
                            let grid = Grid::of_scheduler(&config, &schedule, steps)?;
                            let prediction = Prediction { kind: PredictionType::V, threshold: Threshold::None };
                            Solver::of_scheduler(&config)?
                                .expect("a class is named")
                                .compile(&grid, &schedule, prediction)
                        };
                        match program() {
                            Ok(program) => {
                                runs += 1;
                                assert!(program.nfe() >= program.steps() && program.steps() > 0, "{text}");
                                assert!(program.times().all(|t| t.is_finite()), "{text}, {steps} steps");
                            }
                            Err(_) => refused += 1,
                        }
                    }
                }
            }
        }
        assert!(runs > 1500 && refused > 500, "{runs} ran, {refused} were refused");
    }

    /// By scipy.stats.beta.ppf(p, 0.6, 0.6), version 1.17.
    #[test]
    fn beta_quantiles_are_those_of_scipy() {
        for (probability, expected) in [
            (0.0, 0.0),
            (0.001, 1.855873851745199e-05),
            (0.125, 0.05715636362241408),
            (0.5, 0.5),
            (0.8, 0.8770782495416671),
            (0.99, 0.9991387611784571),
            (1.0, 1.0),
        ] {
            let found = beta_quantile(probability);
            assert!((found - expected).abs() < 1e-13, "{probability}: {found} is not {expected}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
        for (text, part) in [
            (r#"{"_class_name": "LCMScheduler"}"#, "the scheduler class LCMScheduler is not supported"),
            ("{}", "names no class"),
            (r#"{"_class_name": "DDIMScheduler", "timestep_spacing": "karras"}"#, "timestep_spacing must be leading"),
            (r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": 99}"#, "leaves no training step"),
        ] {
            let config = SchedulerConfig::from_json(text).unwrap();
            assert!(Grid::of_scheduler(&config, &schedule, 5).unwrap_err().to_string().contains(part), "{text}");
        }
        let learned = r#"{"_class_name": "DDPMScheduler", "variance_type": "learned_range"}"#;
        let learned = SchedulerConfig::from_json(learned).unwrap();
        assert!(
            Solver::of_scheduler(&learned)
                .unwrap_err()
                .to_string()
                .contains("variance_type learned_range is not supported")
        );
        let cosine = SchedulerConfig { beta_schedule: BetaSchedule::SquaredCosine, ..SchedulerConfig::default() };
        assert_eq!(Solver::of_scheduler(&cosine).unwrap(), None);
    }
}
