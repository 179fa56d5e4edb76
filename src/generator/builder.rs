//! Settings one by one, and what is made with them.

use super::Generator;
use super::encoder::Encoder;
use super::settings::Settings;
use crate::config::{Spacing, Threshold};
use crate::model::Model;
use crate::network::Tiling;
use crate::solver::{Resample, Solver};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Makes a [`Generator`], or an [`Encoder`]: what is not given is what suits the model. [`Model::generator`] begins one.
#[derive(Clone, Debug)]
#[must_use = "`build` makes the generator"]
pub struct GeneratorBuilder {
    model: Model,
    solver: Option<Result<Solver>>,
    steps: Option<usize>,
    spacing: Option<Spacing>,
    timesteps: Option<Vec<f64>>,
    mu: Option<f64>,
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
            mu: None,
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
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

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

    /// By how much the steps of some flows are shifted: see [`Settings::mu`].
    pub fn mu(mut self, mu: f64) -> Self {
        self.mu = Some(mu);
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
            mu: self.mu,
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
