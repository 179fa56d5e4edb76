//! Batches: samples of the data, noised, as the network sees them.

use super::{Stream, Trainer, rng};
use crate::checkpoint::Header;
use crate::data::{Condition, Samples};
use crate::network::Given;
use crate::noise_path::level_at;
use anyhow::{Result, ensure};
use candle_core::Tensor;
use edgegen::config::PredictionType;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, StandardNormal};

/// A batch as the network sees it.
pub struct Batch {
    /// Noised samples x_t, `[B, …]`.
    pub x: Tensor,
    /// Training steps, `[B]`; of a network of prefixes `[B, T]`, one for each step of a sequence.
    pub t: Tensor,
    /// What they are conditioned on.
    pub given: Given,
    /// What the network should say, `[B, …]`.
    pub target: Tensor,
    /// The loss's weight of each sample, `[B, 1, …]`; of a network of prefixes `[B, T, 1]`, 0 for what is clean.
    pub weight: Tensor,
}

impl Trainer {
    /// The samples of step `step`: each epoch visits every sample once, in an order of its own.
    pub(super) fn indices(&mut self, len: usize, step: u64) -> Vec<usize> {
        let batch = self.header.train.batch;
        let steps_an_epoch = (len / batch).max(1) as u64;
        let epoch = step / steps_an_epoch;
        if self.order.0 != epoch || self.order.1.len() != len {
            self.order = (epoch, (0..len).collect());
            self.order.1.shuffle(&mut rng(self.header.train.seed, Stream::Order, epoch));
        }
        let start = (step % steps_an_epoch) as usize * batch;
        (start..start + batch).map(|i| self.order.1[i % len]).collect()
    }

    /// The batch of step `step`.
    ///
    /// # Errors
    /// When the data does not fit the network.
    pub fn batch(&mut self, data: &dyn Samples, step: u64) -> Result<Batch> {
        let shape = data.sample_shape();
        ensure!(
            shape == self.header.network.shape(),
            "the data's samples have shape {shape:?}, but the network was made for {:?}",
            self.header.network.shape()
        );
        let indices = self.indices(data.count(), step);
        let Header { network, train, scheduler, .. } = &self.header;
        let mut rng = rng(train.seed, Stream::Step, step);
        let (batch, len, width) = (indices.len(), shape.iter().product(), shape[shape.len() - 1]);
        let (longest, clean_time) = (network.prefix(), self.schedule.told_clean().time as f32);
        // how many times a sample has, each with a weight of its own
        let rows = if longest > 0 { shape[0] } else { 1 };
        let (mut x, mut target) = (Vec::with_capacity(batch * len), Vec::with_capacity(batch * len));
        let (mut times, mut labels, mut numbers, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut sample: Vec<f32> = Vec::with_capacity(len);
        for (j, &i) in indices.iter().enumerate() {
            let share = train.time_sampling.share(j, batch, &mut rng);
            let level = level_at(&self.schedule, share);
            let (gamma, sigma) = (level.gamma as f32, level.sigma as f32);
            let mirrored = train.flip && rng.random::<bool>();
            let prefix = if longest > 0 { rng.random_range(0..=longest) } else { 0 };
            sample.clear();
            data.append(i, &mut sample);
            for place in 0..len {
                let k = if mirrored { place - place % width + (width - 1 - place % width) } else { place };
                let x0 = sample[k];
                let eps: f32 = StandardNormal.sample(&mut rng);
                x.push(if place < prefix * width { x0 } else { gamma * x0 + sigma * eps });
                target.push(match scheduler.prediction_type {
                    PredictionType::V => gamma * eps - sigma * x0,
                    PredictionType::Flow => eps - x0,
                    _ => eps,
                });
            }
            match data.given(i) {
                Condition::Label(label) => {
                    let dropped = rng.random::<f64>() < train.label_dropout;
                    labels.push(if dropped { network.classes() } else { label } as u32);
                }
                Condition::Numbers(given) => numbers.extend_from_slice(given),
            }
            let step = (share * self.weights.len() as f64) as usize;
            let weight = self.weights[step.min(self.weights.len() - 1)] as f32;
            for row in 0..rows {
                let (time, weight) = if row < prefix { (clean_time, 0.0) } else { (level.time as f32, weight) };
                times.push(time);
                weights.push(weight);
            }
        }
        let device = &self.device;
        let dims: Vec<usize> = std::iter::once(batch).chain(shape.iter().copied()).collect();
        let mut ones: Vec<usize> = std::iter::once(batch).chain(shape.iter().map(|_| 1)).collect();
        ones[1] = rows;
        let time_dims = if longest > 0 { vec![batch, rows] } else { vec![batch] };
        // the loss is the mean over what is not clean
        let counted = weights.iter().filter(|weight| **weight > 0.0).count().max(1);
        let scale = if longest > 0 { weights.len() as f32 / counted as f32 } else { 1.0 };
        weights.iter_mut().for_each(|weight| *weight *= scale);
        let given = match (labels.is_empty(), numbers.len() / batch) {
            (false, _) => Given::Labels(Tensor::from_vec(labels, batch, device)?),
            (true, 0) => Given::Nothing,
            (true, conditions) => Given::Numbers(Tensor::from_vec(numbers, (batch, conditions), device)?),
        };
        Ok(Batch {
            x: Tensor::from_vec(x, dims.as_slice(), device)?,
            target: Tensor::from_vec(target, dims, device)?,
            t: Tensor::from_vec(times, time_dims, device)?,
            given,
            weight: Tensor::from_vec(weights, ones, device)?,
        })
    }
}
