//! Training a noise predictor: algorithm 1 of DDPM (arXiv 2006.11239), or flow matching (arXiv 2210.02747).
//!
//! A sample x_0, a training step t and noise ε give `x_t = γ_t x_0 + σ_t ε`; the network learns ε, or
//! `v = γ_t ε - σ_t x_0` (arXiv 2202.00512), from (x_t, t, label). The loss of ε is
//! `λ(t)/σ_t² ‖ε - ε_θ‖²`: λ = σ_t² is L_simple, λ = β_t the negative ELBO (arXiv 2101.09258). An error
//! of v is an error of ε divided by γ_t. On a rectified flow, where γ_t = 1 - t and σ_t = t, it learns the velocity
//! `ε - x_0`.
//!
//! A network of prefixes (arXiv 2512.05964) sees the first d steps of each sequence as they are and is told so, d even from 0
//! to its most; the loss is of the others.

mod batch;

pub use batch::Batch;

use crate::checkpoint::{Checkpoint, Header};
use crate::data::Samples;
use crate::distill::{self, DistillConfig, Distillation, Student};
use crate::network::{Given, NetworkConfig, Tensors};
use crate::noise_path::{self, TimeSampling};
use crate::ops::mix;
use crate::optimizer::{AdamW, BETAS, tensors};
use crate::teacher::Teacher;
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use edgegen::config::{PredictionType, SchedulerConfig};
use edgegen::model::Normalization;
use edgegen::schedule::Schedule;
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the loss of each training step t is weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// Every t counts the same for what the network predicts (L_simple): the better pictures.
    Simple,
    /// λ = β_t, the negative evidence lower bound: the better likelihood.
    Likelihood,
}

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Steps in all; the learning rate falls to its least at the last.
    pub steps: u64,
    /// Samples a step.
    pub batch: usize,
    /// The greatest learning rate.
    pub rate: f64,
    /// Steps over which the learning rate rises to its greatest.
    pub warm_up: u64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// The greatest norm of the gradient.
    pub clip: f64,
    /// The decay of the weights' moving average.
    pub ema: f64,
    /// The share of samples whose label is dropped, for guidance.
    pub label_dropout: f64,
    /// Whether samples are mirrored at random.
    pub flip: bool,
    /// How the loss of each t is weighted.
    pub weighting: Weighting,
    /// How the times of a rectified flow are drawn.
    #[serde(default)]
    pub time_sampling: TimeSampling,
    /// What all random numbers come from.
    pub seed: u64,
    /// With a teacher, the guidance weight of its prediction that is learnt; 1 without.
    #[serde(default = "no_guidance")]
    pub guidance: f64,
}

fn no_guidance() -> f64 {
    1.0
}

/// The last learning rate, as a share of the greatest.
const LAST_RATE: f64 = 0.02;

impl TrainConfig {
    /// The learning rate of `step`, counting from 0: a linear warm-up, then a cosine.
    pub fn rate_at(&self, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let progress = (step as f64 / self.steps.max(1) as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.rate * warm * (LAST_RATE + (1.0 - LAST_RATE) * cosine)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// One line naming the option that is out of range.
    pub fn check(&self) -> Result<()> {
        ensure!(self.steps > 0, "--steps must be at least 1");
        ensure!(self.batch > 0, "--batch must be at least 1");
        ensure!(self.rate > 0.0 && self.rate.is_finite(), "--rate must be a positive number, not {}", self.rate);
        ensure!((0.0..1.0).contains(&self.ema), "--ema must lie in [0, 1), not {}", self.ema);
        ensure!(
            (0.0..=1.0).contains(&self.label_dropout),
            "--label-dropout must lie in [0, 1], not {}",
            self.label_dropout
        );
        ensure!(self.guidance.is_finite(), "--guidance must be a finite number, not {}", self.guidance);
        ensure!(self.clip > 0.0, "--clip must be positive, not {}", self.clip);
        ensure!(self.weight_decay >= 0.0, "--weight-decay must not be negative, but is {}", self.weight_decay);
        Ok(())
    }
}

/// A model in training.
pub struct Trainer {
    header: Header,
    schedule: Schedule,
    /// The loss's weight at each training step, one on average.
    weights: Vec<f64>,
    variables: BTreeMap<String, Var>,
    ema: Tensors,
    optimizer: AdamW,
    /// The trained network whose guided prediction is learnt instead of the noise itself.
    teacher: Option<Tensors>,
    /// What is learnt instead of denoising, if this is a student for few calls.
    distillation: Option<Distillation>,
    /// The epoch, and its order of the samples.
    order: (u64, Vec<usize>),
    device: Device,
}

/// What one training step came to.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// The mean loss over the batch.
    pub loss: f64,
    /// The norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub rate: f64,
}

/// What the random numbers of a stream are for, so that no two uses share a stream.
#[derive(Clone, Copy)]
enum Stream {
    Init,
    Order,
    Step,
    Critic,
}

fn rng(seed: u64, stream: Stream, index: u64) -> Pcg64 {
    Pcg64::new(u128::from(seed) << 64 | u128::from(index), stream as u128)
}

impl Trainer {
    /// A fresh model.
    ///
    /// # Errors
    /// When a size or an option does not fit, or the device fails.
    pub fn new(
        network: NetworkConfig,
        scheduler: SchedulerConfig,
        train: TrainConfig,
        class_names: Vec<String>,
        device: Device,
    ) -> Result<Self> {
        network.check()?;
        let initial = network.init(&mut rng(train.seed, Stream::Init, 0), &device)?;
        let zeros = initial.iter().map(|(n, t)| Ok((n.clone(), t.zeros_like()?))).collect::<Result<Tensors>>()?;
        let header = Header {
            network,
            scheduler,
            train,
            class_names,
            normalization: None,
            distill: None,
            step: 0,
            seconds: 0.0,
        };
        let checkpoint = Checkpoint {
            header,
            ema: initial.clone(),
            model: initial,
            adam_mean: zeros.clone(),
            adam_square: zeros,
            distillation: distill::State::default(),
        };
        Self::from_checkpoint(checkpoint, device)
    }

    /// The model that a checkpoint holds, to be trained on.
    ///
    /// # Errors
    /// When its parts do not fit together.
    pub fn from_checkpoint(checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let Checkpoint { header, model, ema, adam_mean, adam_square, distillation } = checkpoint;
        header.train.check()?;
        let schedule = Schedule::from_config(&header.scheduler)?;
        noise_path::check(&header.scheduler)?;
        ensure!(
            header.scheduler.is_flow() || header.train.time_sampling == TimeSampling::Uniform,
            "--time-sampling logit-normal is of a rectified flow: give --path flow too, or leave it out"
        );
        ensure!(
            !header.scheduler.is_flow() || header.train.weighting == Weighting::Simple,
            "--weighting likelihood is of a schedule of beta: a rectified flow is trained with --weighting simple"
        );
        let variables =
            model.into_iter().map(|(n, t)| Ok((n, Var::from_tensor(&t)?))).collect::<Result<BTreeMap<_, _>>>()?;
        // copies: training changes them in place
        let copy = |tensors: Tensors| -> Result<Tensors> {
            tensors.into_iter().map(|(name, t)| Ok((name, t.copy()?))).collect()
        };
        let (weight_decay, clip) = (header.train.weight_decay, header.train.clip);
        let betas = header.distill.map_or(BETAS, |config| config.betas());
        let optimizer = AdamW { mean: copy(adam_mean)?, square: copy(adam_square)?, weight_decay, clip, betas };
        let weights = loss_weights(&schedule, header.train.weighting, header.scheduler.prediction_type);
        let ema = copy(ema)?;
        let distillation = header.distill.map(|config| Distillation::new(config, distillation)).transpose()?;
        let (teacher, order) = (None, (0, Vec::new()));
        Ok(Trainer { header, schedule, weights, variables, ema, optimizer, teacher, distillation, order, device })
    }

    /// A copy of the averaged network of `teacher`, which is to learn `teacher`'s prediction under guidance
    /// (`train.guidance`), so that one call says what takes the teacher two (arXiv 2210.03142, stage one, for
    /// one weight).
    ///
    /// # Errors
    /// As [`new`](Trainer::new).
    pub fn student(teacher: &Checkpoint, train: TrainConfig, device: Device) -> Result<Self> {
        let zeros = teacher.ema.iter().map(|(n, t)| Ok((n.clone(), t.zeros_like()?))).collect::<Result<Tensors>>()?;
        let copy = Checkpoint {
            header: Header { train, step: 0, seconds: 0.0, ..teacher.header.clone() },
            model: teacher.ema.clone(),
            ema: teacher.ema.clone(),
            adam_mean: zeros.clone(),
            adam_square: zeros,
            distillation: distill::State::default(),
        };
        let mut trainer = Self::from_checkpoint(copy, device)?;
        trainer.set_teacher(teacher)?;
        Ok(trainer)
    }

    /// A copy of `teacher` that is to need fewer network calls than it: see [`distill`].
    ///
    /// # Errors
    /// As [`new`](Trainer::new), and when what it is distilled for is out of range.
    pub fn distilled(teacher: Teacher, train: TrainConfig, config: DistillConfig, device: Device) -> Result<Self> {
        config.check()?;
        let Teacher { header, weights } = teacher;
        let zeros = weights.iter().map(|(n, t)| Ok((n.clone(), t.zeros_like()?))).collect::<Result<Tensors>>()?;
        let mut rng = rng(train.seed, Stream::Critic, 0);
        let distillation = distill::State::new(&config, &header.network, weights.clone(), &mut rng, &device)?;
        let scheduler = distill::scheduler(&header.scheduler)?;
        let header = Header { train, scheduler, distill: Some(config), step: 0, seconds: 0.0, ..header };
        let (adam_mean, adam_square) = (zeros.clone(), zeros);
        let model = weights.clone();
        Self::from_checkpoint(Checkpoint { header, model, ema: weights, adam_mean, adam_square, distillation }, device)
    }

    /// Remembers what the data was scaled by.
    pub fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.header.normalization = Some(normalization);
        self
    }

    /// Learns from the averaged network of `teacher` from here on.
    ///
    /// # Errors
    /// When it is another kind of network.
    pub fn set_teacher(&mut self, teacher: &Checkpoint) -> Result<()> {
        let same = teacher.header.network == self.header.network && teacher.header.scheduler == self.header.scheduler;
        ensure!(same, "the teacher is a network of other sizes, or of another schedule");
        self.header.network.unet()?;
        self.teacher = Some(teacher.ema.clone());
        Ok(())
    }

    /// What training has come to, to be saved. It shares its numbers with the trainer: save it before the next
    /// step.
    ///
    /// # Errors
    /// When the device fails.
    pub fn checkpoint(&self, seconds: f64) -> Result<Checkpoint> {
        let header = Header { seconds, ..self.header.clone() };
        Ok(Checkpoint {
            header,
            model: tensors(&self.variables),
            ema: self.ema.clone(),
            adam_mean: self.optimizer.mean.clone(),
            adam_square: self.optimizer.square.clone(),
            distillation: self.distillation.as_ref().map(Distillation::state).unwrap_or_default(),
        })
    }

    /// What it is and how far it is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The moving average of the weights.
    pub fn ema(&self) -> &Tensors {
        &self.ema
    }

    /// Takes one step on `data`. What it does depends on the weights, the options and the step's number alone.
    ///
    /// # Errors
    /// When the data does not fit the network, or the loss is no longer finite.
    pub fn step(&mut self, data: &dyn Samples) -> Result<StepReport> {
        // on one of the pool's own threads, which saves handing every operator over to them
        rayon::scope(|_| self.step_on_this_thread(data))
    }

    fn step_on_this_thread(&mut self, data: &dyn Samples) -> Result<StepReport> {
        let step = self.header.step;
        let (loss, reported) = match &self.distillation {
            Some(_) => self.distillation_loss(data, step)?,
            None => {
                let loss = self.denoising_loss(data, step)?;
                (loss.clone(), loss)
            }
        };
        let value = f64::from(reported.to_scalar::<f32>()?);
        let finite = value.is_finite() && loss.to_scalar::<f32>()?.is_finite();
        ensure!(finite, "the loss is no longer finite at step {step}: lower --rate");
        let rate = self.header.train.rate_at(step);
        let gradients = loss.backward()?;
        let gradient_norm = self.optimizer.step(&self.variables, &gradients, step + 1, rate)?;
        self.update_ema(step)?;
        self.header.step = step + 1;
        Ok(StepReport { loss: value, gradient_norm, rate })
    }

    /// The loss of a prediction.
    fn denoising_loss(&mut self, data: &dyn Samples, step: u64) -> Result<Tensor> {
        let batch = self.batch(data, step)?;
        let parameters = tensors(&self.variables);
        let output = self.header.network.forward(&parameters, &batch.x, &batch.t, &batch.given)?;
        let target = match &self.teacher {
            Some(teacher) => self.guided(teacher, &batch)?,
            None => batch.target,
        };
        let error = (output - target)?.sqr()?;
        Ok(error.broadcast_mul(&batch.weight)?.mean_all()?)
    }

    /// The loss of a student for few calls, and the part of it that says how far it is.
    fn distillation_loss(&mut self, data: &dyn Samples, step: u64) -> Result<(Tensor, Tensor)> {
        let indices = self.indices(data.count(), step);
        let mut rng = rng(self.header.train.seed, Stream::Step, step);
        let (Some(distillation), Some(config)) = (&mut self.distillation, &self.header.distill) else {
            anyhow::bail!("this is no student for few calls");
        };
        let batch = distill::Batch::draw(&self.header, config, data, &indices, &mut rng, &self.device)?;
        let parameters = &tensors(&self.variables);
        let Header { network, scheduler, .. } = &self.header;
        let student = Student { network, scheduler, parameters, average: &self.ema };
        let losses = distillation.losses(&student, &batch, step + 1)?;
        Ok((losses.total, losses.consistency))
    }

    /// The teacher's prediction for a batch under guidance; without a class it is its plain one.
    fn guided(&self, teacher: &Tensors, batch: &Batch) -> Result<Tensor> {
        let network = &self.header.network;
        let without = Tensor::full(network.classes() as u32, batch.t.shape(), &self.device)?;
        let conditional = network.forward(teacher, &batch.x, &batch.t, &batch.given)?;
        let unconditional = network.forward(teacher, &batch.x, &batch.t, &Given::Labels(without))?;
        Ok((&unconditional + ((conditional - &unconditional)? * self.header.train.guidance)?)?)
    }

    fn update_ema(&mut self, step: u64) -> Result<()> {
        let decay = self.header.train.ema.min((1 + step) as f64 / (10 + step) as f64);
        for (name, variable) in &self.variables {
            let mean = self.ema.get_mut(name).with_context(|| format!("there is no moving average of {name}"))?;
            mix(mean, variable.as_tensor(), decay, 1.0 - decay)?;
        }
        Ok(())
    }

    /// Changes the number of steps in all, and with it the learning rate's course.
    ///
    /// # Errors
    /// When training is already past it.
    pub fn set_steps(&mut self, steps: u64) -> Result<()> {
        ensure!(
            steps >= self.header.step,
            "{} steps are done already: --steps must be at least that",
            self.header.step
        );
        self.header.train.steps = steps;
        Ok(())
    }
}

/// The weight of each training step's loss of what the network predicts, one on average.
fn loss_weights(schedule: &Schedule, weighting: Weighting, prediction: PredictionType) -> Vec<f64> {
    let weight = |t: usize| match weighting {
        Weighting::Simple => 1.0,
        Weighting::Likelihood => {
            let of_eps = schedule.beta(t) / schedule.sigma(t).powi(2);
            match prediction {
                PredictionType::V => of_eps * schedule.alpha_bar(t),
                _ => of_eps,
            }
        }
    };
    let weights: Vec<f64> = (0..schedule.len()).map(weight).collect();
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    weights.into_iter().map(|w| w / mean).collect()
}

/// The device to train on.
///
/// # Errors
/// When a GPU is asked for and this build has none, or none is there.
pub fn device(gpu: bool) -> Result<Device> {
    if !gpu {
        return Ok(Device::Cpu);
    }
    Device::new_cuda(0)
        .context("no CUDA device can be used: build with --features cuda on a machine with one, or leave --gpu out")
}

#[cfg(test)]
mod tests;
