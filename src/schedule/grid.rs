//! The steps of a run.

use super::level::{Level, Transition};
use super::marginal::Marginal;
use crate::config::FittedStep;
use crate::{Error, Result};
use std::cmp::Ordering;

/// Where a run begins.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// At pure noise.
    #[default]
    Noise,
    /// At a given sample that was noised part of the way (SDEdit, arXiv 2108.01073): the last share of the steps is
    /// run, above 0 and at most 1. Near 0 the sample stays what it is; at 1 nothing is left of it, and the run is
    /// that from pure noise.
    Strength(f64),
    /// At a given sample that has noise of this standard deviation, in the network's units, above 0: what the run gives
    /// is that sample without the noise.
    Sigma(f64),
}

/// The steps of a run, from the noisiest on.
///
/// Each step begins where the last ended, except that diffusers' DDIM and PNDM label the levels of some
/// spacings so that a step may begin a little away from there (see [`Grid::of_scheduler`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    pub(crate) steps: Vec<Transition>,
    /// What x_T, standard normal, is multiplied by.
    pub(crate) start: f64,
    /// The linear combinations that were fitted for these steps, or none.
    pub(crate) fitted: Vec<FittedStep>,
}

impl Grid {
    /// The steps through `levels`: at each but the last the network is evaluated, and at the last the run ends.
    ///
    /// # Errors
    /// When there are fewer than two levels, or the noise does not fall from each to the next.
    pub fn new(levels: &[Level]) -> Result<Self> {
        if levels.len() < 2 {
            return Err(Error::invalid("a run needs a level to begin at and one to end at"));
        }
        for pair in levels.windows(2) {
            if pair[1].log_snr().partial_cmp(&pair[0].log_snr()) != Some(Ordering::Greater) {
                return Err(Error::invalid(format!(
                    "the noise must fall from step to step, but does not from time {} to {}: use fewer steps or another spacing",
                    pair[0].time, pair[1].time
                )));
            }
        }
        Ok(Self::chain(levels))
    }

    /// The steps through `levels`, unchecked.
    pub(crate) fn chain(levels: &[Level]) -> Self {
        Grid {
            steps: levels.windows(2).map(|pair| Transition { from: pair[0], to: pair[1] }).collect(),
            start: 1.0,
            fitted: vec![],
        }
    }

    /// The steps that were fitted to a model, the last of them to the clean sample:
    /// [`Solver::Fitted`](crate::solver::Solver::Fitted) takes them.
    ///
    /// # Errors
    /// When there are none, or their times do not fall.
    pub fn of_fitted(steps: &[FittedStep], marginal: &dyn Marginal) -> Result<Self> {
        let levels: Vec<Level> = steps.iter().map(|s| marginal.level(s.time)).chain([Level::CLEAN]).collect();
        Ok(Grid { fitted: steps.to_vec(), ..Self::new(&levels)? })
    }

    /// The same steps from noise of the standard deviation that the first level says, rather than from x_T as it is.
    pub(crate) fn with_scaled_noise(mut self) -> Self {
        self.start = self.steps[0].from.sigma;
        self
    }

    /// The part of the steps that `start` says. Where it begins between two levels, the first step is the shorter.
    ///
    /// # Errors
    /// When the strength or σ is out of range.
    pub fn starting(&self, start: Start, marginal: &dyn Marginal) -> Result<Grid> {
        let level = match start {
            Start::Noise => return Ok(self.clone()),
            Start::Strength(strength) if !(strength > 0.0 && strength <= 1.0) => {
                return Err(Error::invalid(format!("the strength must be above 0 and at most 1, not {strength}")));
            }
            Start::Strength(1.0) => return Ok(self.clone()),
            Start::Strength(strength) => self.level_at(strength, marginal),
            Start::Sigma(sigma) => {
                let most = self.steps[0].from.edm_sigma();
                if !(sigma > 0.0 && sigma <= most) {
                    return Err(Error::invalid(format!(
                        "the noise to start from must be above 0 and at most {most:.4}, where the run's steps begin, not {sigma}"
                    )));
                }
                marginal.level_of_edm_sigma(sigma)
            }
        };
        let mut steps: Vec<Transition> =
            self.steps.iter().filter(|s| s.to.log_snr() > level.log_snr()).copied().collect();
        match steps.first_mut() {
            Some(first) => first.from = level,
            None => return Err(Error::invalid("the run's steps end before there is so little noise")),
        }
        Ok(Grid { steps, start: 1.0, fitted: vec![] })
    }

    /// The level from which the last share `strength` of the steps leads on.
    fn level_at(&self, strength: f64, marginal: &dyn Marginal) -> Level {
        // 0.3 of 10 steps are 3, though 0.7 · 10 may be a little more than 7
        let place = ((1.0 - strength) * self.steps.len() as f64 * 1e9).round() / 1e9;
        let (step, share) = (self.steps[(place as usize).min(self.steps.len() - 1)], place.fract());
        let Transition { from, to } = step;
        if share == 0.0 {
            from
        } else if to.sigma > 0.0 {
            marginal.level(from.time + share * (to.time - from.time))
        } else if from.gamma > 0.0 {
            marginal.level_of_edm_sigma((1.0 - share) * from.edm_sigma())
        } else {
            marginal.level((1.0 - share) * from.time)
        }
    }

    /// The way back, from a clean sample to noise: any solver of the ODE run on it encodes what it decodes. A
    /// last step to the clean sample has no way back; in its place the sample is scaled to that step's level.
    ///
    /// # Errors
    /// When nothing is left of the way, or it has gaps (see [`Grid`]).
    pub fn reversed(&self) -> Result<Grid> {
        let steps = match self.steps.split_last() {
            Some((last, rest)) if last.to.sigma == 0.0 => rest,
            _ => &self.steps,
        };
        if steps.is_empty() {
            return Err(Error::invalid("a run of one step to the clean sample has no way back: use more steps"));
        }
        if self.start != 1.0 || steps.windows(2).any(|pair| pair[0].to != pair[1].from) {
            return Err(Error::invalid("this scheduler's steps have no way back: name a spacing"));
        }
        let mut steps: Vec<Transition> = steps.iter().rev().map(|s| Transition { from: s.to, to: s.from }).collect();
        // a variance-preserving run that ends in y = x/γ: the network is to see x
        let Transition { from, to } = steps[0];
        if from.gamma == 1.0 && (to.gamma.powi(2) + to.sigma.powi(2) - 1.0).abs() < 1e-6 {
            steps[0].from = Level::from_edm_sigma(from.time, from.edm_sigma());
        }
        let start = steps[0].from.gamma;
        Ok(Grid { steps, start, fitted: vec![] })
    }

    /// The steps.
    pub fn steps(&self) -> &[Transition] {
        &self.steps
    }

    /// The levels at which the network is evaluated at the beginning of each step, and the level at which the run ends.
    pub fn levels(&self) -> impl Iterator<Item = Level> + '_ {
        self.steps.iter().map(|s| s.from).chain(self.steps.last().map(|s| s.to))
    }
}
