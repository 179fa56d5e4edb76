//! The whole way from a seed to a sample, for ONNX models.

use crate::condition::{Condition, Guided};
use crate::config::Spacing;
use crate::network::{Model, OnnxNetwork};
use crate::noise::Noise;
use crate::sampler::{Control, Outcome, Sampler};
use crate::schedule::Schedule;
use crate::scheduler;
use crate::solver::{Prediction, Solver, Threshold};
use crate::{Error, Result};

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

    /// What suits `model` with this solver, whatever it says of solvers.
    pub fn with_solver(model: &Model, solver: Solver) -> Self {
        let (metadata, config) = (model.metadata(), model.scheduler());
        Settings {
            steps: metadata.steps.unwrap_or(10),
            solver,
            spacing: Some(metadata.spacing.unwrap_or(config.spacing())),
            guidance: metadata.guidance.unwrap_or(1.0),
            threshold: config.threshold(),
        }
    }
}

/// Makes samples from a model, one after the other, in buffers made once. For several threads, make one
/// a thread: they share the model.
///
/// ```
/// use edgegen::condition::Condition;
/// use edgegen::network::Model;
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
    network: Guided<OnnxNetwork>,
    sampler: Sampler,
    x: Vec<f32>,
}

impl Generator {
    /// A generator for `model`.
    ///
    /// # Errors
    /// When the settings are out of range or do not fit the model.
    pub fn new(model: &Model, settings: &Settings) -> Result<Self> {
        let config = model.scheduler();
        let schedule = Schedule::from_config(config)?;
        let grid = match settings.spacing {
            None => scheduler::grid(config, &schedule, settings.steps)?,
            Some(spacing) => schedule.grid(settings.steps, spacing, config.steps_offset, config.set_alpha_to_one)?,
        };
        let prediction = Prediction { kind: config.prediction_type, threshold: settings.threshold };
        let program = settings.solver.compile(&grid, &schedule, prediction)?;
        let len = model.sample_shape().iter().product();
        Ok(Generator {
            network: Guided::new(model.network()?, settings.guidance)?,
            sampler: Sampler::new(program, len),
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
        let mut noise = Noise::new(seed, index);
        noise.fill(&mut self.x);
        self.run(noise, condition, control)
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
        // past the numbers that would have been x_T
        let mut noise = Noise::new(seed, index);
        noise.fill(&mut self.x);
        self.x.copy_from_slice(x_t);
        self.run(noise, condition, control)
    }

    fn run(&mut self, mut noise: Noise, condition: &Condition, control: &mut Control) -> Result<(&[f32], Outcome)> {
        let outcome = self.sampler.run(&mut self.network, condition, &mut noise, &mut self.x, control)?;
        Ok((&self.x, outcome))
    }

    /// The sampler, with the table that it runs.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }
}
