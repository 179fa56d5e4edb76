//! Batches of a distillation: noised samples with the levels that the teacher leads them through, and what heads judge by.

use super::{CALLS, DistillConfig, last_time, times};
use crate::checkpoint::Header;
use crate::data::{Condition, Samples};
use crate::network::Given;
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use edgegen::schedule::{Level, Path, Schedule};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

/// The share of a batch at the times of the runs that the student is made for.
const OF_RUNS: f64 = 0.3;
/// The share of the way from data to noise up to which a sample counts as clean.
const CLEAN: f64 = 0.002;
/// The mean of the logistic normal share of noise under which samples are judged.
const JUDGED: f64 = -1.0;

/// The levels of a batch's samples.
pub struct At {
    /// What the network is told, `[B]`.
    pub time: Tensor,
    /// γ, `[B, 1, …]`.
    pub gamma: Tensor,
    /// σ, likewise.
    pub sigma: Tensor,
}

impl At {
    pub(super) fn of(levels: &[Level], dims: usize, device: &Device) -> Result<Self> {
        let shape: Vec<usize> = std::iter::once(levels.len()).chain((0..dims).map(|_| 1)).collect();
        let of = |value: fn(&Level) -> f64| levels.iter().map(|l| value(l) as f32).collect::<Vec<_>>();
        Ok(At {
            // where there is no noise, what is said of it does not matter, but must be a number
            time: Tensor::from_vec(of(|l| l.time.max(0.0)), levels.len(), device)?,
            gamma: Tensor::from_vec(of(|l| l.gamma), shape.as_slice(), device)?,
            sigma: Tensor::from_vec(of(|l| l.sigma), shape, device)?,
        })
    }
}

/// A batch of a distillation.
pub struct Batch {
    /// Noised samples x_t, `[B, …]`.
    pub x: Tensor,
    /// Their levels, at t.
    pub from: At,
    /// The levels half of the way to those of `to`.
    pub between: At,
    /// The levels at t/2.
    pub to: At,
    /// What they are conditioned on.
    pub given: Given,
    /// The levels at which estimates are judged.
    pub judged: At,
    /// The noise that they are judged under, `[B, …]`.
    pub noise: Tensor,
    /// Other samples of the data, noised to those levels, `[B, …]`.
    pub real: Tensor,
    /// What these are conditioned on.
    pub real_given: Given,
}

impl Batch {
    /// The batch of the samples `indices`.
    ///
    /// # Errors
    /// When the data does not fit the network.
    pub fn draw(
        header: &Header,
        config: &DistillConfig,
        data: &dyn Samples,
        indices: &[usize],
        rng: &mut impl Rng,
        device: &Device,
    ) -> Result<Self> {
        let shape = data.sample_shape();
        ensure!(
            shape == header.network.shape(),
            "the data's samples have shape {shape:?}, but the network was made for {:?}",
            header.network.shape()
        );
        let schedule = Schedule::from_config(&header.scheduler)?;
        let from: Vec<Level> =
            (0..indices.len()).map(|j| schedule.level(draw_time(config, &schedule, j, indices.len(), rng))).collect();
        let half = |level: &Level| level_at(&schedule, level.time / 2.0);
        let to: Vec<Level> = from.iter().map(half).collect();
        let middle = |(from, to): (&Level, &Level)| schedule.level((from.time + to.time.max(0.0)) / 2.0);
        let between: Vec<Level> = from.iter().zip(&to).map(middle).collect();
        let others: Vec<usize> = indices.iter().map(|_| rng.random_range(0..data.count())).collect();
        let judged: Vec<Level> = indices
            .iter()
            .map(|_| {
                let z: f64 = StandardNormal.sample(rng);
                schedule.level(last_time(&schedule) / (1.0 + (-(z + JUDGED)).exp()))
            })
            .collect();
        let dims: Vec<usize> = std::iter::once(indices.len()).chain(shape.iter().copied()).collect();
        let (x, given) = noised(header, data, indices, &from, rng, device)?;
        let (real, real_given) = noised(header, data, &others, &judged, rng, device)?;
        let noise: Vec<f32> = (0..dims.iter().product()).map(|_| StandardNormal.sample(rng)).collect();
        let at = |levels: &[Level]| At::of(levels, shape.len(), device);
        Ok(Batch {
            x,
            given,
            from: at(&from)?,
            between: at(&between)?,
            to: at(&to)?,
            judged: at(&judged)?,
            noise: Tensor::from_vec(noise, dims, device)?,
            real,
            real_given,
        })
    }
}

/// The level at a time, or the clean one where there is hardly any noise.
fn level_at(schedule: &Schedule, time: f64) -> Level {
    if time > CLEAN * last_time(schedule) {
        return schedule.level(time);
    }
    if schedule.path() == Path::RectifiedFlow { schedule.level(0.0) } else { Level::CLEAN }
}

/// The time of sample `j` of a batch: of the runs that the student is made for, or one in each of `batch` equal parts.
fn draw_time(config: &DistillConfig, schedule: &Schedule, j: usize, batch: usize, rng: &mut impl Rng) -> f64 {
    let least = CLEAN * last_time(schedule);
    let anywhere = last_time(schedule) * (j as f64 + rng.random::<f64>()) / batch as f64;
    if rng.random::<f64>() >= OF_RUNS {
        return anywhere.max(least);
    }
    let runs = CALLS.iter().filter(|n| **n <= config.calls).count();
    let run = times(schedule, CALLS[rng.random_range(0..runs)]);
    run[rng.random_range(0..run.len())]
}

/// Samples of the data at these levels, and what they are conditioned on.
fn noised(
    header: &Header,
    data: &dyn Samples,
    indices: &[usize],
    levels: &[Level],
    rng: &mut impl Rng,
    device: &Device,
) -> Result<(Tensor, Given)> {
    let shape = data.sample_shape();
    let (len, width) = (shape.iter().product::<usize>(), shape[shape.len() - 1]);
    let (mut x, mut labels, mut numbers) = (Vec::with_capacity(indices.len() * len), Vec::new(), Vec::new());
    let mut sample: Vec<f32> = Vec::with_capacity(len);
    for (&i, level) in indices.iter().zip(levels) {
        sample.clear();
        data.append(i, &mut sample);
        if header.train.flip && rng.random::<bool>() {
            sample.chunks_mut(width).for_each(<[f32]>::reverse);
        }
        let (gamma, sigma) = (level.gamma as f32, level.sigma as f32);
        x.extend(sample.iter().map(|x0| {
            let eps: f32 = StandardNormal.sample(rng);
            gamma * x0 + sigma * eps
        }));
        match data.given(i) {
            Condition::Label(label) => {
                let dropped = rng.random::<f64>() < header.train.label_dropout;
                labels.push(if dropped { header.network.classes() } else { label } as u32);
            }
            Condition::Numbers(given) => numbers.extend_from_slice(given),
        }
    }
    let batch = indices.len();
    let given = match (labels.is_empty(), numbers.len() / batch) {
        (false, _) => Given::Labels(Tensor::from_vec(labels, batch, device)?),
        (true, 0) => Given::Nothing,
        (true, conditions) => Given::Numbers(Tensor::from_vec(numbers, (batch, conditions), device)?),
    };
    let dims: Vec<usize> = std::iter::once(batch).chain(shape.iter().copied()).collect();
    Ok((Tensor::from_vec(x, dims, device)?, given))
}
