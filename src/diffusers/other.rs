//! The steps of the classes that go about it in ways of their own.

use super::class::Class;
use super::grid::GridMaker;
use super::sigmas::line;
use crate::config::Spacing;
use crate::schedule::{Grid, Level, Transition};
use crate::{Error, Result};

impl GridMaker<'_> {
    /// LCM's and TCD's: so many of the times that the model was distilled from, and for TCD training step 0.
    pub(super) fn distilled(&self, class: Class) -> Result<Grid> {
        let original = self.config.class.original_inference_steps.unwrap_or(50).min(self.len());
        if self.steps > original {
            return Err(Error::invalid(format!(
                "the number of steps must be at most original_inference_steps, {original}, not {}",
                self.steps
            )));
        }
        let width = self.len() / original;
        let time = |i: usize| (original - (i * original) / self.steps) * width - 1;
        let end = if class == Class::Tcd { self.schedule.level(0.0) } else { Level::CLEAN };
        let levels = (0..self.steps).map(|i| self.schedule.level(time(i) as f64)).chain([end]);
        Ok(Grid::chain(&levels.collect::<Vec<_>>()))
    }

    /// DDIM's steps the other way. The network is told the time that each step leads to.
    pub(super) fn inverse_by_training_steps(&self) -> Result<Grid> {
        if self.config.timestep_spacing == Spacing::Linspace {
            return Err(Error::invalid("timestep_spacing of this class must be leading or trailing"));
        }
        let forward = self.by_training_steps();
        let back = |step: &Transition| Transition { from: Level { time: step.from.time, ..step.to }, to: step.from };
        Ok(Grid { steps: forward.steps.iter().rev().map(back).collect(), start: 1.0, fitted: vec![] })
    }

    /// DPM-Solver's steps from the least noise to the most.
    pub(super) fn inverse_multistep(&self) -> Result<Grid> {
        let (n, most) = (self.len(), self.len() - 1 - self.clipped());
        let count = self.steps;
        let level = |sigma: f64, time: f64| Level::from_edm_sigma(time, sigma);
        // the other way round than the classes that go down
        let mut levels: Vec<Level> = match self.spaced(self.sigmas.min(), self.sigmas.max()) {
            Some(sigmas) => {
                let whole = self.config.class.use_karras_sigmas == Some(true);
                let time = |sigma: f64| {
                    let time = self.sigmas.time_of(sigma);
                    if whole { time.round_ties_even() } else { (time + 1e-3).floor() }
                };
                let mut levels: Vec<Level> = sigmas.map(|sigma| level(sigma, time(sigma))).collect();
                levels.push(levels[count - 1]);
                levels
            }
            None => {
                let times: Vec<f64> = match self.config.timestep_spacing {
                    Spacing::Leading => {
                        let width = (most + 1) / (count + 1);
                        (0..count).map(|i| (i * width + self.config.steps_offset).min(n - 1) as f64).collect()
                    }
                    Spacing::Trailing => {
                        let width = n as f64 / count as f64;
                        let down = (0..count).map(|i| ((most + 1) as f64 - width * i as f64).round_ties_even() - 1.0);
                        let mut times: Vec<f64> = down.filter(|time| *time >= 0.0).collect();
                        times.reverse();
                        times
                    }
                    _ => line(0.0, most as f64, count + 1).take(count).map(f64::round_ties_even).collect(),
                };
                let end = self.sigmas.0[most];
                times.iter().map(|time| level(self.sigmas.at(*time), *time)).chain([level(end, most as f64)]).collect()
            }
        };
        let times: Vec<f64> = levels[..levels.len() - 1].iter().map(|level| level.time).collect();
        if times.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid("the run's steps are too close together for this class: use fewer steps"));
        }
        if let Some(last) = levels.last_mut() {
            last.time = last.time.min((n - 1) as f64);
        }
        Ok(Grid::chain(&levels))
    }

    /// How many training steps are noisier than `lambda_min_clipped` allows.
    pub(super) fn clipped(&self) -> usize {
        match self.config.class.lambda_min_clipped {
            Some(least) => self.sigmas.0.iter().filter(|s| -libm::log(**s) < least).count(),
            None => 0,
        }
    }

    /// IPNDM's: σ goes down as the square of a sine, and the time is the angle that it stands for.
    pub(super) fn angles(&self) -> Grid {
        let half = std::f64::consts::FRAC_PI_2;
        let levels = (0..=self.steps).map(|i| {
            let sigma = libm::sin((1.0 - i as f64 / self.steps as f64) * half).powi(2);
            let gamma = (1.0 - sigma * sigma).sqrt();
            Level { time: libm::atan2(sigma, gamma) / half, gamma, sigma }
        });
        Grid::chain(&levels.collect::<Vec<_>>())
    }
}
