//! How samples are made, and what suits a model.

use crate::condition::Condition;
use crate::config::{SchedulerConfig, Spacing, Threshold};
use crate::model::{Model, ModelNetwork, Role, no_condition};
use crate::network::{Guided, Preconditioned, Tiling};
use crate::schedule::{Grid, Schedule};
use crate::solver::{Resample, Solver};
use crate::{Error, Result};
use std::collections::BTreeMap;

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
    /// μ of a flow whose configuration says `use_dynamic_shifting`, by which its class shifts the steps, where it is not to
    /// follow from the sample's size ([`SchedulerConfig::for_samples`]).
    pub mu: Option<f64>,
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
        if let Some(mu) = self.mu {
            if self.timesteps.is_some() || self.spacing.is_some() {
                return Err(Error::invalid(
                    "mu shifts the steps of the scheduler's class, and not those of a spacing or of times that are given",
                ));
            }
            return Grid::of_scheduler(&config.clone().with_mu(mu)?, schedule, self.steps);
        }
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
            mu: None,
            guidance: metadata.guidance.unwrap_or(1.0),
            threshold: config.threshold(),
            unconditional: BTreeMap::new(),
            resample: Resample::NONE,
            tiling: None,
            threads: 1,
        }
    }

    pub(super) fn network(&self, model: &Model) -> Result<GuidedNetwork> {
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
}

/// The network that samplers run: a model's, with its scalings, guided.
pub(super) type GuidedNetwork = Guided<Preconditioned<ModelNetwork>>;
