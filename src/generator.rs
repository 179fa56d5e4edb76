//! The whole way from a seed to a sample, for ONNX models.

use crate::condition::Condition;
use crate::config::{PredictionType, SchedulerConfig, Spacing, Threshold};
use crate::likelihood::Flow;
use crate::model::{Model, ModelNetwork, Normalizer, Role, no_condition};
use crate::network::{Guided, Network, Preconditioned, Tiled, Tiling};
use crate::noise::Noise;
use crate::request::{From, Request};
use crate::sampler::{AdaptiveSampler, Control, Outcome, Progress, SLOT, Sampler};
use crate::schedule::{Grid, Level, Schedule, Start};
use crate::solver::{Adaptive, Method, Prediction, Program, Resample, Solver};
use crate::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// How samples are made. [`Settings::of`] gives what suits a model; [`Model::generator`] builds a generator without one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// The number of solver steps.
    pub steps: usize,
    /// The solver.
    pub solver: Solver,
    /// Which noise levels the steps visit; `None` for those that the scheduler class in the model's
    /// configuration would (see [`Grid::of_scheduler`]).
    pub spacing: Option<Spacing>,
    /// The times that the steps visit, as the network counts them, from the noisiest on: as many as there are steps, in
    /// place of those that `spacing` would choose (see [`Grid::of_times`]).
    pub timesteps: Option<Vec<f64>>,
    /// The weight of classifier-free guidance: 1 is none, and any other doubles the network calls.
    pub guidance: f32,
    /// What is done to the estimate of the clean sample.
    pub threshold: Threshold,
    /// The named conditions of guidance's unconditional half, where they are not zeros (see [`Guided`]), in the units of
    /// the model's data.
    pub unconditional: BTreeMap<String, Vec<f32>>,
    /// Whether steps are taken again, for what is known of a sample to reach the rest.
    pub resample: Resample,
    /// For pictures larger than the model's: their size, and how its tiles overlap.
    pub tiling: Option<Tiling>,
    /// The threads that share each network call: see [`Model::network_with_threads`].
    pub threads: usize,
}

impl Settings {
    /// What suits `model`: the sampler that it names, else that of its scheduler's class, else
    /// DPM-Solver++(2M); 10 steps and no guidance if it does not say otherwise.
    ///
    /// # Errors
    /// When the model asks for a sampler or a scheduler class that there is not.
    pub fn of(model: &Model) -> Result<Self> {
        let (metadata, config) = (model.metadata(), model.scheduler_config());
        if let Some(name) = &metadata.sampler {
            return Ok(Self::with_solver(model, Solver::from_name(name)?));
        }
        match Solver::of_scheduler(config)? {
            Some(solver) => Ok(Settings { spacing: metadata.spacing, ..Self::with_solver(model, solver) }),
            None => Ok(Self::with_solver(model, Solver::from_name("dpm++2m")?)),
        }
    }

    /// The steps of a fixed-step solver.
    ///
    /// # Errors
    /// When there are too many or too few, or they do not fit the configuration.
    pub fn grid(&self, config: &SchedulerConfig, schedule: &Schedule) -> Result<Grid> {
        if let Some(times) = &self.timesteps {
            if times.len() != self.steps {
                let (given, steps) = (times.len(), self.steps);
                return Err(Error::invalid(format!("{given} times are no run of {steps} steps: give as many")));
            }
            return Grid::of_times(config, schedule, times);
        }
        if (self.solver, self.spacing) == (Solver::Fitted, Some(Spacing::Tuned))
            && let Some(steps) = config.fitted_steps.get(&self.steps)
        {
            return Grid::of_fitted(steps, schedule);
        }
        match self.spacing {
            None => Grid::of_scheduler(config, schedule, self.steps),
            Some(spacing) => {
                let grid = schedule.grid(self.steps, spacing, config.steps_offset, config.set_alpha_to_one)?;
                // a network that takes σ starts from σ_max z
                Ok(if config.sigma_range().is_some() { grid.with_scaled_noise() } else { grid })
            }
        }
    }

    /// What suits `model` with this solver, whatever it says of solvers.
    pub fn with_solver(model: &Model, solver: Solver) -> Self {
        let (metadata, config) = (model.metadata(), model.scheduler_config());
        let solver = match (solver, config.sigma_range()) {
            (Solver::Consistency { .. }, Some((sigma_min, _))) => Solver::Consistency { sigma_min },
            _ => solver,
        };
        Settings {
            steps: metadata.steps.or(config.class.num_inference_steps).unwrap_or(10),
            solver,
            // the steps of a flow's class are its own, whatever the solver
            spacing: metadata
                .spacing
                .or((!config.is_flow() || config.class.class_name.is_none()).then(|| config.spacing())),
            timesteps: None,
            guidance: metadata.guidance.unwrap_or(1.0),
            threshold: config.threshold(),
            unconditional: BTreeMap::new(),
            resample: Resample::NONE,
            tiling: None,
            threads: 1,
        }
    }

    fn network(&self, model: &Model) -> Result<GuidedNetwork> {
        let network =
            Preconditioned::new(model.network_with_threads(self.threads)?, model.scheduler_config().preconditioning());
        Ok(Guided::new(network, self.guidance)?.with_unconditional(self.unconditional(model)?))
    }

    /// The conditions of the unconditional half in the network's units.
    fn unconditional(&self, model: &Model) -> Result<BTreeMap<String, Vec<f32>>> {
        if self.guidance == 1.0 && !self.unconditional.is_empty() {
            return Err(Error::invalid(
                "unconditional conditions are for guidance: give a guidance weight other than 1",
            ));
        }
        for (name, values) in &self.unconditional {
            let input = model.inputs().iter().find(|i| i.role == Role::Condition && i.name == *name);
            input.ok_or_else(|| no_condition(model.inputs(), name))?.check_len(values.len())?;
        }
        let mut scaled = Condition { class: None, named: self.unconditional.clone() };
        model.normalizer().normalize_conditions(&mut scaled.named);
        Ok(std::mem::take(&mut scaled.named))
    }

    /// What runs the solver from where `start` says.
    fn driver(&self, model: &Model, schedule: &Schedule, start: Start, len: usize) -> Result<Driver> {
        let config = model.scheduler_config();
        let prediction = Prediction { kind: config.prediction(), threshold: self.threshold };
        match self.solver {
            Solver::Adaptive(options) => {
                let ends = adaptive_ends(self, schedule, start)?;
                Ok(Driver::Adaptive(AdaptiveSampler::new(options, prediction, ends, len)?))
            }
            solver => {
                let grid = self.grid(config, schedule)?.starting(start, schedule)?;
                let program = solver.compile_resampled(&grid, schedule, prediction, self.resample)?;
                Ok(Driver::Table(Sampler::new(program, len)))
            }
        }
    }
}

/// Makes a [`Generator`], or an [`Encoder`]: what is not given is what suits the model. [`Model::generator`] begins one.
#[derive(Clone, Debug)]
#[must_use = "`build` makes the generator"]
pub struct GeneratorBuilder {
    model: Model,
    solver: Option<Result<Solver>>,
    steps: Option<usize>,
    spacing: Option<Spacing>,
    timesteps: Option<Vec<f64>>,
    guidance: Option<f32>,
    threshold: Option<Threshold>,
    unconditional: BTreeMap<String, Vec<f32>>,
    resample: Resample,
    tiling: Option<Tiling>,
    threads: usize,
}

impl Model {
    /// Begins a generator for this model.
    pub fn generator(&self) -> GeneratorBuilder {
        GeneratorBuilder {
            model: self.clone(),
            solver: None,
            steps: None,
            spacing: None,
            timesteps: None,
            guidance: None,
            threshold: None,
            unconditional: BTreeMap::new(),
            resample: Resample::NONE,
            tiling: None,
            threads: 1,
        }
    }
}

impl GeneratorBuilder {
    /// The number of solver steps.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = Some(steps);
        self
    }

    /// The solver of this name, as [`Solver::from_name`] knows it.
    pub fn sampler(mut self, name: &str) -> Self {
        self.solver = Some(Solver::from_name(name));
        self
    }

    /// The solver.
    pub fn solver(mut self, solver: Solver) -> Self {
        self.solver = Some(Ok(solver));
        self
    }

    /// Which noise levels the steps visit.
    pub fn spacing(mut self, spacing: Spacing) -> Self {
        self.spacing = Some(spacing);
        self
    }

    /// The times that the steps visit: see [`Settings::timesteps`]. There are then as many steps.
    pub fn timesteps(mut self, times: impl Into<Vec<f64>>) -> Self {
        self.timesteps = Some(times.into());
        self
    }

    /// The weight of classifier-free guidance: see [`Settings::guidance`].
    pub fn guidance(mut self, weight: f32) -> Self {
        self.guidance = Some(weight);
        self
    }

    /// What is done to the estimate of the clean sample.
    pub fn threshold(mut self, threshold: Threshold) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// A condition of guidance's unconditional half: see [`Settings`]'s `unconditional`.
    pub fn unconditional(mut self, name: impl Into<String>, values: impl Into<Vec<f32>>) -> Self {
        self.unconditional.insert(name.into(), values.into());
        self
    }

    /// Whether steps are taken again: see [`Settings::resample`].
    pub fn resample(mut self, resample: Resample) -> Self {
        self.resample = resample;
        self
    }

    /// For pictures larger than the model's: see [`Settings::tiling`].
    pub fn tiling(mut self, tiling: Tiling) -> Self {
        self.tiling = Some(tiling);
        self
    }

    /// The threads that share each network call: see [`Model::network_with_threads`].
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The settings that this comes to.
    ///
    /// # Errors
    /// When there is no such solver, or a number of steps or a spacing is given for one that chooses its own.
    pub fn settings(&self) -> Result<Settings> {
        let model = &self.model;
        let base = match &self.solver {
            Some(solver) => Settings::with_solver(model, solver.clone()?),
            None => Settings::of(model)?,
        };
        let places_steps = self.steps.is_some() || self.spacing.is_some() || self.timesteps.is_some();
        if matches!(base.solver, Solver::Adaptive(_)) && places_steps {
            return Err(Error::invalid("a sampler that chooses its own steps takes no number of steps and no spacing"));
        }
        if self.timesteps.is_some() && self.spacing.is_some() {
            return Err(Error::invalid("a run's steps are placed by a spacing or by times, not by both"));
        }
        let count = self.timesteps.as_ref().map(Vec::len);
        Ok(Settings {
            steps: self.steps.or(count).unwrap_or(base.steps),
            spacing: self.spacing.or(base.spacing),
            timesteps: self.timesteps.clone(),
            guidance: self.guidance.unwrap_or(base.guidance),
            threshold: self.threshold.unwrap_or(base.threshold),
            unconditional: self.unconditional.clone(),
            resample: self.resample,
            tiling: self.tiling,
            threads: self.threads,
            ..base
        })
    }

    /// The generator.
    ///
    /// # Errors
    /// As [`settings`](Self::settings) and [`Generator::new`].
    pub fn build(&self) -> Result<Generator> {
        Generator::new(&self.model, &self.settings()?)
    }

    /// The way back: what finds the noise that a sample comes from.
    ///
    /// # Errors
    /// As [`settings`](Self::settings) and [`Encoder::new`].
    pub fn build_encoder(&self) -> Result<Encoder> {
        Encoder::new(&self.model, &self.settings()?)
    }
}

/// The network that samplers run: a model's, with its scalings, guided.
type GuidedNetwork = Guided<Preconditioned<ModelNetwork>>;

/// Makes samples from a model, one after the other, in buffers made once. For several threads, make one
/// a thread: they share the model.
///
/// Conditions are taken, and samples given, in the units of the model's data ([`Model::normalizer`]). What a request's
/// callback sees on the way, and what its constraint keeps to, is in the network's.
///
/// ```
/// # #[cfg(feature = "embedded-model")] {
/// use edgegen::{Model, Request};
///
/// let model = Model::embedded()?;
/// let mut generator = model.generator().steps(4).build()?;
/// let boot = Request::new(7, 0).class(model.class("Ankle boot")?);
/// let run = generator.run(&boot)?;
/// assert_eq!(run.sample.len(), 28 * 28);
/// assert_eq!(run.outcome.steps, 4);
/// # }
/// # Ok::<(), edgegen::Error>(())
/// ```
pub struct Generator {
    model: Model,
    settings: Settings,
    network: Box<dyn Network + Send>,
    network_bytes: usize,
    schedule: Schedule,
    driver: Driver,
    /// Where the driver's runs begin.
    start: Start,
    /// The condition in the network's units.
    condition: Condition,
    /// The sample to start from in the network's units.
    init: Vec<f32>,
    x: Vec<f32>,
}

/// A sample that was made.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generated<'a> {
    /// The sample, in the units of the model's data. It stays until the generator's next run.
    pub sample: &'a [f32],
    /// What the run came to.
    pub outcome: Outcome,
}

/// What runs the solver.
enum Driver {
    Table(Sampler),
    Adaptive(AdaptiveSampler),
}

impl Generator {
    /// A generator for `model` with these settings: see [`Model::generator`].
    ///
    /// # Errors
    /// When the settings are out of range or do not fit the model.
    pub fn new(model: &Model, settings: &Settings) -> Result<Self> {
        let schedule = Schedule::from_config(model.scheduler_config())?;
        let mut network = settings.network(model)?;
        // so that every buffer is there: runs under other conditions need no more
        let condition = model.blank_condition();
        network.bind(SLOT, &condition)?;
        let wrapped = network.inner();
        let network_bytes = network.memory_bytes() + wrapped.memory_bytes() + wrapped.inner().memory_bytes();
        let network: Box<dyn Network + Send> = match settings.tiling {
            None => Box::new(network),
            Some(_) if model.normalizer().sample.is_some() => {
                return Err(Error::invalid("a model with a normalization of its samples cannot be run on tiles"));
            }
            Some(tiling) => Box::new(Tiled::new(network, tiling)?),
        };
        let len = network.sample_len();
        Ok(Generator {
            driver: settings.driver(model, &schedule, Start::Noise, len)?,
            model: model.clone(),
            settings: settings.clone(),
            network,
            network_bytes,
            schedule,
            start: Start::Noise,
            condition,
            init: vec![0.0; len],
            x: vec![0.0; len],
        })
    }

    /// Makes the sample that is asked for.
    ///
    /// A run allocates nothing where a plan runs the network ([`Model::has_plan`]) and the solver is one of fixed steps;
    /// but the first that starts from a sample, at each strength or σ, compiles the solver for where it starts.
    ///
    /// # Errors
    /// When the request contradicts itself, the settings or the model: two starts, a class for a model without classes, a
    /// condition that is missing, unknown or not of its length; when a number is not finite; when the network fails.
    pub fn run(&mut self, request: &Request) -> Result<Generated<'_>> {
        if request.several_starts {
            return Err(Error::invalid(
                "a run has one start: noise, a sample near which to make another, or a noisy one",
            ));
        }
        self.take_condition(request)?;
        let mut noise = Noise::new(request.seed, request.index);
        self.take_start(&request.start, &mut noise)?;
        // given back after the run, so that a request may be run again
        let (mut on_step, mut constraint) = (request.on_step.take(), request.constraint.take());
        let mut control = Control {
            on_step: on_step.as_deref_mut().map(|f| f as _),
            cancel: request.cancel,
            deadline: request.deadline,
            constraint: constraint.as_deref_mut().map(|c| c as _),
        };
        let outcome = self.drive(&mut noise, &mut control);
        request.on_step.replace(on_step);
        request.constraint.replace(constraint);
        let outcome = outcome?;
        self.model.normalizer().unnormalize(&mut self.x);
        Ok(Generated { sample: &self.x, outcome })
    }

    /// As [`run`](Generator::run), into `out`, which holds a sample's numbers.
    ///
    /// # Errors
    /// As there, and when `out` is of the wrong length; it is then as it was.
    pub fn run_into(&mut self, request: &Request, out: &mut [f32]) -> Result<Outcome> {
        if out.len() != self.x.len() {
            let message = format!("a sample has {} numbers, but there is room for {}", self.x.len(), out.len());
            return Err(Error::new(ErrorKind::WrongSize, message));
        }
        let Generated { sample, outcome } = self.run(request)?;
        out.copy_from_slice(sample);
        Ok(outcome)
    }

    /// Takes a request's class and conditions, in the network's units. The network checks the rest when they are bound.
    fn take_condition(&mut self, request: &Request) -> Result<()> {
        let inputs = self.model.inputs();
        let one_hot = || inputs.iter().filter(|i| i.is_one_hot());
        let is_known = |name: &str| self.condition.named.contains_key(name) || one_hot().any(|i| i.name == name);
        if let Some((unknown, _)) = request.conditions.iter().find(|(name, _)| !is_known(name)) {
            return Err(no_condition(inputs, unknown));
        }
        for input in inputs.iter().filter(|i| i.role == Role::Condition) {
            let values = request.conditions.get(&input.name)?.ok_or_else(|| input.missing())?;
            input.check_len(values.len())?;
            let held = self.condition.named.get_mut(&input.name).expect("a blank condition has every name");
            held.copy_from_slice(values);
        }
        // a class may be given as its numbers too
        for input in one_hot() {
            match request.conditions.get(&input.name)? {
                Some(values) => _ = self.condition.named.insert(input.name.clone(), values.to_vec()),
                None => _ = self.condition.named.remove(&input.name),
            }
        }
        self.condition.class = request.class;
        self.model.normalizer().normalize_conditions(&mut self.condition.named);
        Ok(())
    }

    /// Fills x with what the run starts from, and sees that the driver starts there.
    fn take_start(&mut self, from: &From, noise: &mut Noise) -> Result<()> {
        let (start, given) = match *from {
            From::Seed => (Start::Noise, None),
            From::Noise(z) => (Start::Noise, Some((z, "noise"))),
            From::Sample(sample, strength) => (Start::Strength(strength), Some((sample, "sample to start from"))),
            From::Noisy(sample, sigma) => (Start::Sigma(sigma), Some((sample, "sample to start from"))),
        };
        if let Some((values, what)) = given
            && values.len() != self.x.len()
        {
            let (len, found) = (self.x.len(), values.len());
            let message = format!("the {what} must have {len} numbers, but has {found}");
            return Err(Error::new(ErrorKind::WrongSize, message));
        }
        // all of the noise, and nothing of the sample
        let start = if start == Start::Strength(1.0) { Start::Noise } else { start };
        if start != self.start {
            self.driver = self.settings.driver(&self.model, &self.schedule, start, self.x.len())?;
            self.start = start;
        }
        // even where it is not used: what a stochastic solver draws comes after it
        noise.fill(&mut self.x);
        match *from {
            From::Noise(z) => self.x.copy_from_slice(z),
            From::Sample(sample, _) | From::Noisy(sample, _) if start != Start::Noise => {
                self.init.copy_from_slice(sample);
                self.model.normalizer().normalize(&mut self.init);
                let level = self.first_level();
                // a noisy sample has its noise already
                let sigma = if matches!(from, From::Noisy(..)) { 0.0 } else { level.sigma };
                Level { sigma, ..level }.noise(&self.init, &mut self.x);
            }
            _ => {}
        }
        Ok(())
    }

    fn drive(&mut self, noise: &mut Noise, control: &mut Control) -> Result<Outcome> {
        let (network, condition, x) = (&mut *self.network, &self.condition, &mut self.x);
        match &mut self.driver {
            Driver::Table(sampler) => sampler.run(network, condition, noise, x, control),
            Driver::Adaptive(sampler) => sampler.run(network, &self.schedule, condition, noise, x, control),
        }
    }

    fn first_level(&self) -> Level {
        match &self.driver {
            Driver::Table(sampler) => sampler.program().first_level(),
            Driver::Adaptive(sampler) => sampler.ends().0,
        }
    }

    /// The shape of a sample: the model's, or with [`Settings::tiling`] a larger picture's.
    pub fn sample_shape(&self) -> &[usize] {
        self.network.sample_shape()
    }

    /// Does beforehand what a first run would: touches every buffer, so that the system has given all its pages, and
    /// takes one step, so that the code and the weights are in memory. After this, runs neither allocate nor call the
    /// system, where [`run`](Self::run) says so.
    ///
    /// # Errors
    /// When the network fails.
    pub fn prepare(&mut self) -> Result<()> {
        if let Driver::Table(sampler) = &mut self.driver {
            sampler.touch();
        }
        let blank = self.model.blank_condition();
        let mut stop = |_: Progress<'_>| ControlFlow::Break(());
        let request = Request::new(0, 0).conditions(&blank).on_step(&mut stop);
        self.run(&request)?;
        Ok(())
    }

    /// The bytes of the buffers that this has beside the model: the solver's registers and the network's work space,
    /// as far as it is known (not of networks that tract runs).
    pub fn memory_bytes(&self) -> usize {
        let driver = match &self.driver {
            Driver::Table(sampler) => sampler.memory_bytes(),
            // made anew in each run
            Driver::Adaptive(_) => 0,
        };
        size_of_val(&*self.x) + size_of_val(&*self.init) + driver + self.network_bytes
    }

    /// The table that is run, unless the solver chooses its own steps.
    pub fn program(&self) -> Option<&Program> {
        match &self.driver {
            Driver::Table(sampler) => Some(sampler.program()),
            Driver::Adaptive(_) => None,
        }
    }
}

/// From where to where a solver that chooses its own steps goes.
fn adaptive_ends(settings: &Settings, schedule: &Schedule, start: Start) -> Result<(Level, Level)> {
    if settings.resample != Resample::NONE {
        return Err(Error::invalid("a sampler that chooses its own steps has none to take again"));
    }
    let (noisiest, data) = schedule.ends();
    // one step through all of the time
    let grid = Grid::new(&[noisiest, data])?.starting(start, schedule)?;
    Ok((grid.steps()[0].from, data))
}

/// Finds the noise that a sample comes from: what a run [from that noise](Request::from_noise) makes that sample of
/// again, with the same settings and no thresholding, which has no way back.
///
/// Fixed-step solvers run their table for the steps in reverse, and those that choose their own steps follow
/// the ODE by Runge–Kutta within their tolerance.
pub struct Encoder {
    network: GuidedNetwork,
    schedule: Schedule,
    prediction: PredictionType,
    normalizer: Normalizer,
    way: Way,
    /// What the end of the way is multiplied by, to be standard normal noise.
    scale: f32,
}

enum Way {
    Table(Sampler),
    Ode(Adaptive),
}

impl Encoder {
    /// An encoder for `model`.
    ///
    /// # Errors
    /// When the settings are out of range or do not fit the model, or the sampler adds noise.
    pub fn new(model: &Model, settings: &Settings) -> Result<Self> {
        let config = model.scheduler_config();
        let schedule = Schedule::from_config(config)?;
        let prediction = Prediction { kind: config.prediction(), threshold: Threshold::None };
        let mut scale = 1.0;
        let way = match settings.solver {
            Solver::Adaptive(Adaptive { method: Method::Sde, .. }) => {
                return Err(Error::invalid("a sampler that adds noise cannot go back from a sample to noise"));
            }
            Solver::Adaptive(options) => Way::Ode(options),
            solver => {
                let mut grid = settings.grid(config, &schedule)?;
                // a network that takes σ starts from σ_max z: the way back ends there, and z is that over σ_max
                if config.sigma_range().is_some() {
                    scale = 1.0 / std::mem::replace(&mut grid.start, 1.0) as f32;
                }
                let program = solver.compile(&grid.reversed()?, &schedule, prediction)?;
                Way::Table(Sampler::new(program, model.sample_shape().iter().product()))
            }
        };
        let network = settings.network(model)?;
        let normalizer = model.normalizer().clone();
        Ok(Encoder { network, schedule, prediction: config.prediction(), normalizer, way, scale })
    }

    /// The noise that `sample` comes from under `condition`, both in the units of the model's data.
    ///
    /// # Errors
    /// When the sample or the condition does not fit the model, or the network fails.
    pub fn encode(&mut self, sample: &[f32], condition: &Condition) -> Result<Vec<f32>> {
        let mut x = sample.to_vec();
        self.normalizer.normalize(&mut x);
        let mut scaled = condition.clone();
        self.normalizer.normalize_conditions(&mut scaled.named);
        let condition = &scaled;
        match &mut self.way {
            Way::Table(sampler) => {
                // no noise is drawn on the way
                let mut noise = Noise::new(0, 0);
                sampler.run(&mut self.network, condition, &mut noise, &mut x, &mut Control::default())?;
                x.iter_mut().for_each(|v| *v *= self.scale);
                Ok(x)
            }
            Way::Ode(options) => {
                let (noise, data) = self.schedule.ends();
                let flow = Flow::new(&self.schedule, self.prediction, data, noise)?;
                flow.with_tolerance(options.rtol, options.atol)?.encode(&mut self.network, condition, &x)
            }
        }
    }
}

#[cfg(all(test, feature = "embedded-model"))]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::constraint::Replacement;

    fn refused(generator: &mut Generator, request: &Request, kind: ErrorKind, words: &str) {
        let error = generator.run(request).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }

    #[test]
    fn what_a_request_contradicts_is_refused() {
        use ErrorKind::{InvalidArgument, NotFinite, WrongSize};
        let model = Model::embedded().unwrap();
        let mut generator = model.generator().sampler("ddim").steps(2).build().unwrap();
        let len = generator.sample_shape().iter().product();
        fn asked<'a>() -> Request<'a> {
            Request::new(1, 0).class(3)
        }
        let (sample, infinite) = (vec![0.25f32; len], vec![f32::INFINITY; len]);
        let wrong = &mut generator;
        refused(wrong, &asked().from_noise(&sample).near(&sample, 0.5), InvalidArgument, "one start");
        refused(wrong, &asked().from_noise(&sample[1..]), WrongSize, "784 numbers, but has 783");
        refused(wrong, &asked().near(&sample[1..], 0.5), WrongSize, "784 numbers, but has 783");
        refused(wrong, &asked().near(&sample, 1.5), InvalidArgument, "strength");
        refused(wrong, &asked().from_noisy(&sample, 0.0), InvalidArgument, "noise to start from");
        refused(wrong, &asked().condition("goal", &[0.0]), InvalidArgument, "no condition 'goal'");
        refused(wrong, &Request::new(1, 0).class(99), InvalidArgument, "labels below");
        refused(wrong, &asked().from_noise(&infinite), NotFinite, "finite");
        assert_eq!(wrong.run_into(&asked(), &mut [0.0; 3]).unwrap_err().kind(), WrongSize);
        let error = model.generator().sampler("rk45").steps(5).build().err().unwrap().to_string();
        assert!(error.contains("chooses its own steps"), "{error}");
        let error = model.generator().unconditional("goal", [0.0]).guidance(2.0).build().err().unwrap().to_string();
        assert!(error.contains("no condition 'goal'"), "{error}");
        // none of these is left behind
        let clean = model.generator().sampler("ddim").steps(2).build().unwrap().run(&asked()).unwrap().sample.to_vec();
        assert_eq!(generator.run(&asked()).unwrap().sample, clean);
    }

    #[test]
    fn a_request_says_where_a_run_starts_and_may_be_run_again() {
        let model = Model::embedded().unwrap();
        let mut generator = model.generator().sampler("ddim").steps(4).build().unwrap();
        fn asked<'a>() -> Request<'a> {
            Request::new(5, 2).class(8)
        }
        let plain = generator.run(&asked()).unwrap().sample.to_vec();
        let mut noise = vec![0.0; plain.len()];
        Noise::new(5, 2).fill(&mut noise);
        assert_eq!(generator.run(&asked().from_noise(&noise)).unwrap().sample, plain);
        let (steps, known) = (std::cell::Cell::new(0), vec![true; plain.len()]);
        let mut count = |_: Progress<'_>| {
            steps.set(steps.get() + 1);
            ControlFlow::Continue(())
        };
        let mut kept = Replacement::new(&plain, &known).unwrap();
        // at strength 1 nothing is left of the sample
        let whole = asked().near(&plain, 1.0).on_step(&mut count);
        for _ in 0..2 {
            assert_eq!(generator.run(&whole).unwrap().sample, plain);
        }
        assert_eq!(steps.get(), 8);
        let half = generator.run(&asked().near(&plain, 0.5)).unwrap();
        assert_eq!(half.outcome.steps, 2);
        assert_ne!(half.sample, plain);
        let clean = generator.run(&asked().from_noisy(&plain, 0.1)).unwrap();
        assert!(clean.outcome.steps < 4);
        assert_eq!(generator.run(&asked().constraint(&mut kept)).unwrap().sample, plain);
        assert_eq!(generator.run(&asked()).unwrap().sample, plain);
    }
}
