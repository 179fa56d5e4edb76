//! Distilling a trained network into one of its own size for a few calls: a consistency model (arXiv 2303.01469), which says
//! from any level at once where the teacher's ODE ends.
//!
//! The student begins as the teacher, and its estimate of x_0 at a time t is its consistency function `f(x_t, t)`: at no noise it
//! is x itself. It learns to say at t what its moving average says at t/2, where two DDIM steps of the teacher lead from
//! x_t; the loss is pseudo-Huber, as in arXiv 2310.14189. (Learning from the network itself, while the gap shrinks, diverged in a
//! prototype.)
//!
//! Such a loss alone leaves estimates too alike: a mean of what x_t may have come from. So heads over the teacher's features
//! ([`CriticConfig`]) tell estimates from the data under noise of every level, with the hinge loss of arXiv 1802.05957, and
//! the student learns to pass (as in arXiv 2310.02279 and 2403.12015).
//!
//! A run goes from x_T to an estimate, and from each estimate to a lower level by fresh noise: the sampler `consistency`, at the
//! times that [`times`] gives, which the exported file holds.

mod batch;

pub use batch::Batch;

use crate::network::{CriticConfig, Encoded, Given, NetworkConfig, Tensors};
use crate::optimizer::{AdamW, tensors};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor, Var};
use edgegen::config::{PredictionType, SchedulerConfig};
use edgegen::schedule::{Path, Schedule};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a student is distilled for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistillConfig {
    /// The most network calls that the student is made for; those runs' times are seen more often.
    pub calls: usize,
    /// The weight of the heads that tell estimates from the data; 0 leaves them out.
    pub adversarial: f64,
}

/// The network calls of runs that a student is made for.
pub const CALLS: [usize; 3] = [1, 2, 4];
/// The numbers of steps that an exported file holds times for.
const STEPS: [usize; 8] = [1, 2, 3, 4, 5, 6, 8, 10];
/// Pseudo-Huber's c, of the norm of numbers of this size each.
const HUBER: f64 = 0.03;
/// The learning rate of the heads.
const CRITIC_RATE: f64 = 1e-3;
/// AdamW's β of an adversarial game, and without one.
const BETAS: [[f64; 2]; 2] = [[0.5, 0.99], [0.9, 0.99]];

impl DistillConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// One line naming the option that is out of range.
    pub fn check(&self) -> Result<()> {
        ensure!(CALLS.contains(&self.calls), "--calls must be 1, 2 or 4, not {}", self.calls);
        ensure!(
            self.adversarial >= 0.0 && self.adversarial.is_finite(),
            "--adversarial must be 0 or a positive number, not {}",
            self.adversarial
        );
        Ok(())
    }

    /// AdamW's β for the student.
    pub fn betas(&self) -> [f64; 2] {
        BETAS[usize::from(self.adversarial == 0.0)]
    }
}

/// The greatest time, as the network counts.
fn last_time(schedule: &Schedule) -> f64 {
    schedule.len() as f64 - if schedule.path() == Path::RectifiedFlow { 0.0 } else { 1.0 }
}

/// The times of a run of `steps` network calls: that of pure noise times √(1 - i/n). Fresh noise of a high level washes out
/// more of what is wrong with an estimate than evenly spaced times would.
pub fn times(schedule: &Schedule, steps: usize) -> Vec<f64> {
    let share = |i: usize| (1.0 - i as f64 / steps as f64).sqrt();
    (0..steps).map(|i| (last_time(schedule) * share(i) * 1e3).round() / 1e3).collect()
}

/// The student's configuration: the teacher's, with the times of its own runs.
///
/// # Errors
/// When it is no configuration of a schedule.
pub fn scheduler(teacher: &SchedulerConfig) -> Result<SchedulerConfig> {
    let schedule = Schedule::from_config(teacher)?;
    let tuned_timesteps = STEPS.iter().map(|n| (*n, times(&schedule, *n))).collect();
    Ok(SchedulerConfig { tuned_timesteps, fitted_steps: BTreeMap::new(), ..teacher.clone() })
}

/// What a checkpoint holds of a distillation beside the student.
#[derive(Clone, Default)]
pub struct State {
    /// The teacher's weights.
    pub teacher: Tensors,
    /// The heads' weights, and their optimizer's means.
    pub critic: Tensors,
    pub critic_mean: Tensors,
    pub critic_square: Tensors,
}

impl State {
    /// A teacher and fresh heads.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(
        config: &DistillConfig,
        network: &NetworkConfig,
        teacher: Tensors,
        rng: &mut impl Rng,
        device: &Device,
    ) -> Result<Self> {
        if config.adversarial == 0.0 {
            return Ok(State { teacher, ..Default::default() });
        }
        let critic = CriticConfig::of(network).init(rng, device)?;
        let zeros = || critic.iter().map(|(n, t)| Ok((n.clone(), t.zeros_like()?))).collect::<Result<Tensors>>();
        Ok(State { teacher, critic_mean: zeros()?, critic_square: zeros()?, critic })
    }
}

/// A distillation under way.
pub struct Distillation {
    config: DistillConfig,
    teacher: Tensors,
    critic: BTreeMap<String, Var>,
    optimizer: AdamW,
}

/// The network that learns.
pub struct Student<'a> {
    pub network: &'a NetworkConfig,
    pub scheduler: &'a SchedulerConfig,
    pub parameters: &'a Tensors,
    /// The moving average of its weights.
    pub average: &'a Tensors,
}

/// What a batch came to.
pub struct Losses {
    /// What the student is to lower.
    pub total: Tensor,
    /// The part of it that is the distance from the average's estimates.
    pub consistency: Tensor,
}

impl Distillation {
    /// Goes on from a state.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(config: DistillConfig, state: State) -> Result<Self> {
        let copy = |tensors: Tensors| -> Result<Tensors> {
            tensors.into_iter().map(|(name, t)| Ok((name, t.copy()?))).collect()
        };
        let critic = state.critic.into_iter().map(|(n, t)| Ok((n, Var::from_tensor(&t)?))).collect::<Result<_>>()?;
        let (mean, square) = (copy(state.critic_mean)?, copy(state.critic_square)?);
        let optimizer = AdamW { mean, square, weight_decay: 0.0, clip: 1.0, betas: BETAS[0] };
        Ok(Distillation { config, teacher: state.teacher, critic, optimizer })
    }

    /// What it has come to, sharing its numbers.
    pub fn state(&self) -> State {
        State {
            teacher: self.teacher.clone(),
            critic: tensors(&self.critic),
            critic_mean: self.optimizer.mean.clone(),
            critic_square: self.optimizer.square.clone(),
        }
    }

    /// The losses of a batch. The heads take their step, the `step`-th counting from 1, on the way.
    ///
    /// # Errors
    /// When the data does not fit the network.
    pub fn losses(&mut self, student: &Student, batch: &Batch, step: u64) -> Result<Losses> {
        let estimate = student.estimate(student.parameters, &batch.x, &batch.from, &batch.given)?;
        let target = self.target(student, batch)?;
        let consistency = pseudo_huber(&(&estimate - target)?)?;
        if self.config.adversarial == 0.0 {
            return Ok(Losses { total: consistency.clone(), consistency });
        }
        let passing = self.passing(student, batch, &estimate, step)?;
        let total = (&consistency + (passing * self.config.adversarial)?)?;
        Ok(Losses { total, consistency })
    }

    /// What the average says where two DDIM steps of the teacher lead.
    fn target(&self, student: &Student, batch: &Batch) -> Result<Tensor> {
        let mut x = batch.x.clone();
        for (from, to) in [(&batch.from, &batch.between), (&batch.between, &batch.to)] {
            let mut x0 = student.estimate(&self.teacher, &x, from, &batch.given)?;
            if student.scheduler.clip_sample {
                let range = student.scheduler.clip_sample_range;
                x0 = x0.clamp(-range, range)?;
            }
            let ratio = (&to.sigma / &from.sigma)?;
            let weight = (&to.gamma - (&from.gamma * &ratio)?)?;
            x = (x0.broadcast_mul(&weight)? + x.broadcast_mul(&ratio)?)?;
        }
        Ok(student.estimate(student.average, &x, &batch.to, &batch.given)?.detach())
    }

    /// How far the estimates are from passing for data. The heads learn first.
    fn passing(&mut self, student: &Student, batch: &Batch, estimate: &Tensor, step: u64) -> Result<Tensor> {
        let judged = &batch.judged;
        let made = (estimate.broadcast_mul(&judged.gamma)? + batch.noise.broadcast_mul(&judged.sigma)?)?;
        let made = student.network.encode(&self.teacher, &made, &judged.time, &batch.given)?;
        let real = student.network.encode(&self.teacher, &batch.real, &judged.time, &batch.real_given)?;
        let heads = CriticConfig::of(student.network);
        let parameters = tensors(&self.critic);
        let of_made = heads.forward(&parameters, &detached(&made))?;
        let of_real = heads.forward(&parameters, &real)?;
        let hinge = ((of_made + 1.0)?.relu()?.mean_all()? + (1.0 - of_real)?.relu()?.mean_all()?)?;
        self.optimizer.step(&self.critic, &hinge.backward()?, step, CRITIC_RATE)?;
        let as_they_are = self.critic.iter().map(|(n, v)| (n.clone(), v.as_tensor().detach())).collect();
        Ok(heads.forward(&as_they_are, &made)?.mean_all()?.neg()?)
    }
}

impl Student<'_> {
    /// The estimate of x_0 from x at its levels by the network with these parameters.
    fn estimate(&self, parameters: &Tensors, x: &Tensor, at: &batch::At, given: &Given) -> Result<Tensor> {
        let output = self.network.forward(parameters, x, &at.time, given)?.broadcast_mul(&at.sigma)?;
        Ok(match self.scheduler.prediction_type {
            PredictionType::Flow => (x - output)?,
            _ => (x.broadcast_mul(&at.gamma)? - output)?,
        })
    }
}

fn detached(features: &Encoded) -> Encoded {
    Encoded {
        embedding: features.embedding.detach(),
        skips: features.skips.iter().map(Tensor::detach).collect(),
        middle: features.middle.detach(),
    }
}

/// The mean over a batch of `√(‖d‖² + c²) - c`, of the size of one number of d.
fn pseudo_huber(difference: &Tensor) -> Result<Tensor> {
    let difference = difference.flatten_from(1)?;
    let len = difference.dim(1)? as f64;
    let c = HUBER * len.sqrt();
    let norm = (difference.sqr()?.sum(1)? + c * c)?.sqrt()?;
    Ok(((norm - c)?.mean_all()? / len.sqrt())?)
}

#[cfg(test)]
mod tests;
