//! What runs the solver.

use super::settings::Settings;
use crate::model::Model;
use crate::sampler::{AdaptiveSampler, Sampler};
use crate::schedule::{Grid, Level, Schedule, Start};
use crate::solver::{Prediction, Resample, Solver};
use crate::{Error, Result};

/// What runs the solver.
pub(super) enum Driver {
    Table(Sampler),
    Adaptive(AdaptiveSampler),
}

impl Settings {
    /// What runs the solver from where `start` says.
    pub(super) fn driver(&self, model: &Model, schedule: &Schedule, start: Start, len: usize) -> Result<Driver> {
        let config = model.scheduler_config();
        let prediction = Prediction { kind: config.prediction(), threshold: self.threshold };
        match self.solver {
            Solver::Adaptive(_) if self.mu.is_some() => {
                Err(Error::invalid("a sampler that chooses its own steps has none for mu to shift"))
            }
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
