//! The whole way from a seed to a sample, for ONNX models.

use crate::adaptive::AdaptiveSampler;
use crate::condition::Condition;
use crate::config::{PredictionType, SchedulerConfig, Spacing};
use crate::likelihood::Flow;
use crate::model::{Model, OnnxNetwork};
use crate::network::Guided;
use crate::network::Network;
use crate::network::Preconditioned;
use crate::network::{Tiled, Tiling};
use crate::noise::Noise;
use crate::normalization::Scalings;
use crate::sampler::{Control, Outcome, Progress, Sampler};
use crate::schedule::{Grid, Level, Schedule, Start};
use crate::scheduler;
use crate::solver::{Adaptive, Method, Prediction, Program, Resample, Solver, Threshold};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// How samples are made. [`Settings::of`] gives what suits a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The number of solver steps.
    pub steps: usize,
    /// The solver.
    pub solver: Solver,
    /// Which noise levels the steps visit; `None` for those that the scheduler class in the model's
    /// configuration would (see [`crate::scheduler`]).
    pub spacing: Option<Spacing>,
    /// The weight of classifier-free guidance: 1 is none, and any other doubles the network calls.
    pub guidance: f32,
    /// What is done to the estimate of the clean sample.
    pub threshold: Threshold,
    /// The named conditions of guidance's unconditional half, where they are not zeros (see [`Guided`]).
    pub unconditional: BTreeMap<String, Vec<f32>>,
    /// Where a run begins: at noise, or at a given sample.
    pub start: Start,
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
        let (metadata, config) = (model.metadata(), model.scheduler());
        if let Some(name) = &metadata.sampler {
            return Ok(Self::with_solver(model, Solver::from_name(name)?));
        }
        match scheduler::solver(config)? {
            Some(solver) => Ok(Settings { spacing: metadata.spacing, ..Self::with_solver(model, solver) }),
            None => Ok(Self::with_solver(model, Solver::from_name("dpm++2m")?)),
        }
    }

    /// The steps of a fixed-step solver.
    ///
    /// # Errors
    /// When there are too many or too few, or they do not fit the configuration.
    pub fn grid(&self, config: &SchedulerConfig, schedule: &Schedule) -> Result<Grid> {
        if (self.solver, self.spacing) == (Solver::Fitted, Some(Spacing::Tuned))
            && let Some(steps) = config.fitted_steps.get(&self.steps)
        {
            return Grid::of_fitted(steps, schedule);
        }
        match self.spacing {
            None => scheduler::grid(config, schedule, self.steps),
            Some(spacing) => {
                let grid = schedule.grid(self.steps, spacing, config.steps_offset, config.set_alpha_to_one)?;
                // a network that takes σ starts from σ_max z
                Ok(if config.sigma_range().is_some() { grid.with_scaled_noise() } else { grid })
            }
        }
    }

    /// What suits `model` with this solver, whatever it says of solvers.
    pub fn with_solver(model: &Model, solver: Solver) -> Self {
        let (metadata, config) = (model.metadata(), model.scheduler());
        let solver = match (solver, config.sigma_range()) {
            (Solver::Consistency { .. }, Some((sigma_min, _))) => Solver::Consistency { sigma_min },
            _ => solver,
        };
        Settings {
            steps: metadata.steps.unwrap_or(10),
            solver,
            spacing: Some(metadata.spacing.unwrap_or(config.spacing())),
            guidance: metadata.guidance.unwrap_or(1.0),
            threshold: config.threshold(),
            unconditional: BTreeMap::new(),
            start: Start::Noise,
            resample: Resample::NONE,
            tiling: None,
            threads: 1,
        }
    }

    fn network(&self, model: &Model) -> Result<ModelNetwork> {
        let network = Preconditioned::new(model.network_with_threads(self.threads)?, model.scheduler().scalings());
        Ok(Guided::new(network, self.guidance)?.with_unconditional(self.unconditional.clone()))
    }
}

/// The network that samplers run: a model's, with its scalings, guided.
type ModelNetwork = Guided<Preconditioned<OnnxNetwork>>;

/// Makes samples from a model, one after the other, in buffers made once. For several threads, make one
/// a thread: they share the model.
///
/// Conditions are taken, and samples given, in the units of the model's data ([`Model::scalings`]). What
/// `control` sees on the way, and what its constraint keeps to, is in the network's.
///
/// ```
/// use edgegen::Condition;
/// use edgegen::Model;
/// use edgegen::sampler::Control;
/// use edgegen::{Generator, Settings};
///
/// let model = Model::embedded()?;
/// let settings = Settings { steps: 4, ..Settings::of(&model)? };
/// let mut generator = Generator::new(&model, &settings)?;
/// let boot = Condition::class(model.class("Ankle boot")?);
/// let (sample, outcome) = generator.generate(7, 0, &boot, &mut Control::default())?;
/// assert_eq!(sample.len(), 28 * 28);
/// assert_eq!(outcome.steps, 4);
/// # Ok::<(), edgegen::Error>(())
/// ```
pub struct Generator {
    network: Box<dyn Network + Send>,
    network_bytes: usize,
    schedule: Schedule,
    driver: Driver,
    scalings: Scalings,
    /// The condition in the network's units.
    condition: Condition,
    start: Start,
    /// The sample to start from in the network's units.
    init: Vec<f32>,
    x: Vec<f32>,
}

/// What runs the solver.
enum Driver {
    Table(Sampler),
    Adaptive(AdaptiveSampler),
}

impl Generator {
    /// A generator for `model`.
    ///
    /// # Errors
    /// When the settings are out of range or do not fit the model.
    pub fn new(model: &Model, settings: &Settings) -> Result<Self> {
        let config = model.scheduler();
        let schedule = Schedule::from_config(config)?;
        let prediction = Prediction { kind: config.prediction(), threshold: settings.threshold };
        let network = settings.network(model)?;
        let wrapped = network.inner();
        let network_bytes = network.memory_bytes() + wrapped.memory_bytes() + wrapped.inner().memory_bytes();
        let network: Box<dyn Network + Send> = match settings.tiling {
            None => Box::new(network),
            Some(_) if model.scalings().sample.is_some() => {
                return Err(Error::invalid("a model with a normalization of its samples cannot be run on tiles"));
            }
            Some(tiling) => Box::new(Tiled::new(network, tiling)?),
        };
        let len = network.sample_len();
        let driver = match settings.solver {
            Solver::Adaptive(options) => {
                let ends = adaptive_ends(settings, &schedule)?;
                Driver::Adaptive(AdaptiveSampler::new(options, prediction, ends, len)?)
            }
            solver => {
                let grid = settings.grid(config, &schedule)?.starting(settings.start, &schedule)?;
                let program = solver.compile_resampled(&grid, &schedule, prediction, settings.resample)?;
                Driver::Table(Sampler::new(program, len))
            }
        };
        let (scalings, condition) = (model.scalings().clone(), Condition::default());
        // all of the noise, and nothing of the sample
        let start = if settings.start == Start::Strength(1.0) { Start::Noise } else { settings.start };
        Ok(Generator {
            network,
            network_bytes,
            schedule,
            driver,
            scalings,
            condition,
            start,
            init: vec![0.0; len],
            x: vec![0.0; len],
        })
    }

    /// Makes sample `index` of the run with this `seed`. It depends on (seed, index), the model, the
    /// settings and the condition alone.
    ///
    /// # Errors
    /// When the condition does not fit the model, or the network fails.
    pub fn generate(
        &mut self,
        seed: u64,
        index: u64,
        condition: &Condition,
        control: &mut Control,
    ) -> Result<(&[f32], Outcome)> {
        self.starts_from_noise()?;
        let mut noise = Noise::new(seed, index);
        noise.fill(&mut self.x);
        self.run(noise, condition, control)
    }

    /// Makes a sample from `init`, a sample of the same shape, instead of from noise alone: where the settings
    /// say [`Start::Strength`], `init` is noised with the noise of (seed, index) to where the run begins, which
    /// gives another sample near it (SDEdit), or renews a plan; where they say [`Start::Sigma`], it has that noise
    /// already, and loses it.
    ///
    /// # Errors
    /// As [`generate`](Generator::generate), and when `init` is of the wrong length or not finite.
    pub fn generate_near(
        &mut self,
        init: &[f32],
        seed: u64,
        index: u64,
        condition: &Condition,
        control: &mut Control,
    ) -> Result<(&[f32], Outcome)> {
        if init.len() != self.x.len() {
            return Err(Error::invalid(format!(
                "the sample to start from must have {} numbers, but has {}",
                self.x.len(),
                init.len()
            )));
        }
        let mut noise = Noise::new(seed, index);
        noise.fill(&mut self.x);
        let level = self.first_level();
        match self.start {
            Start::Noise => {}
            Start::Strength(_) | Start::Sigma(_) => {
                self.init.copy_from_slice(init);
                self.scalings.normalise(&mut self.init);
                // with Sigma the noise is in it already
                let sigma = if matches!(self.start, Start::Sigma(_)) { 0.0 } else { level.sigma };
                Level { sigma, ..level }.noise(&self.init, &mut self.x);
            }
        }
        self.run(noise, condition, control)
    }

    fn starts_from_noise(&self) -> Result<()> {
        if self.start == Start::Noise {
            return Ok(());
        }
        Err(Error::invalid("these settings start from a given sample: use generate_near"))
    }

    /// The level at which runs begin.
    pub fn first_level(&self) -> Level {
        match &self.driver {
            Driver::Table(sampler) => sampler.program().first_level(),
            Driver::Adaptive(sampler) => sampler.ends().0,
        }
    }

    /// The shape of a sample: the model's, or with [`Settings::tiling`] a larger picture's.
    pub fn sample_shape(&self) -> &[usize] {
        self.network.sample_shape()
    }

    /// Makes a sample from the noise `x_t` (standard normal) instead of the seed's. Noise that a
    /// stochastic solver adds still comes from (seed, index).
    ///
    /// # Errors
    /// As [`generate`](Generator::generate), and when `x_t` is of the wrong length or not finite.
    pub fn generate_from(
        &mut self,
        x_t: &[f32],
        seed: u64,
        index: u64,
        condition: &Condition,
        control: &mut Control,
    ) -> Result<(&[f32], Outcome)> {
        if x_t.len() != self.x.len() {
            return Err(Error::invalid(format!(
                "the noise must have {} numbers a sample, but has {}",
                self.x.len(),
                x_t.len()
            )));
        }
        self.starts_from_noise()?;
        // past the numbers that would have been x_T
        let mut noise = Noise::new(seed, index);
        noise.fill(&mut self.x);
        self.x.copy_from_slice(x_t);
        self.run(noise, condition, control)
    }

    /// As [`generate`](Generator::generate), into `out`, which holds a sample's numbers.
    ///
    /// # Errors
    /// As there, and when `out` is of the wrong length; it is then as it was.
    pub fn generate_into(
        &mut self,
        seed: u64,
        index: u64,
        condition: &Condition,
        control: &mut Control,
        out: &mut [f32],
    ) -> Result<Outcome> {
        if out.len() != self.x.len() {
            return Err(Error::invalid(format!(
                "a sample has {} numbers, but there is room for {}",
                self.x.len(),
                out.len()
            )));
        }
        let (sample, outcome) = self.generate(seed, index, condition, control)?;
        out.copy_from_slice(sample);
        Ok(outcome)
    }

    /// Does beforehand what a first run would: touches every buffer, so that the system has given all its pages, and
    /// takes one step under `condition`, so that the code and the weights are in memory. After this, runs under
    /// conditions of that form neither allocate nor call the system, if a plan runs the network
    /// ([`Model::engine`]) and the solver is one of fixed steps.
    ///
    /// # Errors
    /// When the condition does not fit the model, or the network fails.
    pub fn prepare(&mut self, condition: &Condition) -> Result<()> {
        if let Driver::Table(sampler) = &mut self.driver {
            sampler.touch();
        }
        let mut stop = |_: Progress<'_>| ControlFlow::Break(());
        let control = &mut Control { on_step: Some(&mut stop), ..Default::default() };
        // what it starts from does not matter
        let init = vec![0.0; self.x.len()];
        self.generate_near(&init, 0, 0, condition, control)?;
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
        size_of_val(&*self.x) + driver + self.network_bytes
    }

    fn run(&mut self, mut noise: Noise, condition: &Condition, control: &mut Control) -> Result<(&[f32], Outcome)> {
        let condition = self.scalings.condition(condition, &mut self.condition);
        let (network, x) = (&mut *self.network, &mut self.x);
        let outcome = match &mut self.driver {
            Driver::Table(sampler) => sampler.run(network, condition, &mut noise, x, control)?,
            Driver::Adaptive(sampler) => sampler.run(network, &self.schedule, condition, &mut noise, x, control)?,
        };
        self.scalings.restore(&mut self.x);
        Ok((&self.x, outcome))
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
fn adaptive_ends(settings: &Settings, schedule: &Schedule) -> Result<(Level, Level)> {
    if settings.resample != Resample::NONE {
        return Err(Error::invalid("a sampler that chooses its own steps has none to take again"));
    }
    let (noisiest, data) = schedule.ends();
    // one step through all of the time
    let grid = Grid::new(&[noisiest, data])?.starting(settings.start, schedule)?;
    Ok((grid.steps()[0].from, data))
}

/// Finds the noise that a sample comes from: what [`Generator::generate_from`] makes that sample of again,
/// with the same settings and no thresholding, which has no way back.
///
/// Fixed-step solvers run their table for the steps in reverse, and those that choose their own steps follow
/// the ODE by Runge–Kutta within their tolerance.
pub struct Encoder {
    network: ModelNetwork,
    schedule: Schedule,
    prediction: PredictionType,
    scalings: Scalings,
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
        let config = model.scheduler();
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
        let scalings = model.scalings().clone();
        Ok(Encoder { network, schedule, prediction: config.prediction(), scalings, way, scale })
    }

    /// The noise that `sample` comes from under `condition`, both in the units of the model's data.
    ///
    /// # Errors
    /// When the sample or the condition does not fit the model, or the network fails.
    pub fn encode(&mut self, sample: &[f32], condition: &Condition) -> Result<Vec<f32>> {
        let mut x = sample.to_vec();
        self.scalings.normalise(&mut x);
        let mut room = Condition::default();
        let condition = self.scalings.condition(condition, &mut room);
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
