//! Sampling from a network in training, a whole batch at a time, to see how it does.

use crate::checkpoint::Header;
use crate::distill::times;
use crate::network::{Given, Tensors};
use anyhow::Result;
use candle_core::{Device, Tensor};
use edgegen::config::{PredictionType, Spacing};
use edgegen::schedule::{Level, Path, Schedule};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

/// What to sample.
pub struct Request<'a> {
    /// The class of each sample.
    pub labels: &'a [usize],
    /// DDIM steps; of a student for few calls its network calls.
    pub steps: usize,
    /// The weight of classifier-free guidance; 1 is none.
    pub guidance: f64,
    /// What the noise comes from.
    pub seed: u64,
}

/// Deterministic DDIM samples (arXiv 2010.02502) with x_0 clipped to [-1, 1], one after the other. On a rectified flow DDIM
/// is Euler's method. A student for few calls goes from each estimate of x_0 to the next level by fresh noise.
///
/// # Errors
/// When the parameters do not fit the configuration, or it is not one of pictures.
pub fn samples(header: &Header, parameters: &Tensors, device: &Device, request: &Request) -> Result<Vec<Vec<f32>>> {
    let Header { network, scheduler, .. } = header;
    let schedule = Schedule::from_config(scheduler)?;
    let config = network.unet()?;
    let (n, [c, h, w]) = (request.labels.len(), config.shape);
    let mut rng = Pcg64::new(u128::from(request.seed), 17);
    let mut noise = || {
        let noise: Vec<f32> = (0..n * c * h * w).map(|_| StandardNormal.sample(&mut rng)).collect();
        Tensor::from_vec(noise, (n, c, h, w), device)
    };
    let mut x = noise()?;
    let labels: Vec<u32> = request.labels.iter().map(|l| *l as u32).collect();
    let labels = Given::Labels(Tensor::from_vec(labels, n, device)?);
    let no_class = Given::Labels(Tensor::full(config.classes as u32, n, device)?);
    let levels = match header.distill {
        Some(_) => times(&schedule, request.steps).iter().map(|t| schedule.level(*t)).chain([Level::CLEAN]).collect(),
        None => levels(&schedule, request.steps)?,
    };
    for step in levels.windows(2) {
        let Level { time, gamma, sigma } = step[0];
        let time = Tensor::full(time as f32, n, device)?;
        let mut output = network.forward(parameters, &x, &time, &labels)?.detach();
        if request.guidance != 1.0 {
            let without = network.forward(parameters, &x, &time, &no_class)?.detach();
            output = (&without + ((output - &without)? * request.guidance)?)?;
        }
        let x0 = match scheduler.prediction_type {
            PredictionType::Epsilon => ((&x - (output * sigma)?)? / gamma)?,
            PredictionType::V => ((&x * gamma)? - (output * sigma)?)?,
            PredictionType::Flow => (&x - (output * sigma)?)?,
            _ => output,
        }
        .clamp(-1f32, 1f32)?;
        let eps = if header.distill.is_some() { noise()? } else { ((&x - (&x0 * gamma)?)? / sigma)? };
        x = ((x0 * step[1].gamma)? + (eps * step[1].sigma)?)?;
    }
    Ok(x.flatten_from(1)?.to_vec2::<f32>()?)
}

/// The levels that the steps lead through, evenly in the training steps or the time of a flow, from noise to none.
fn levels(schedule: &Schedule, steps: usize) -> Result<Vec<Level>> {
    if schedule.path() == Path::RectifiedFlow {
        return Ok(schedule.levels(steps, Spacing::Trailing, 0, true)?);
    }
    let training_steps = schedule.len() as f64;
    let level = |i: usize| schedule.level((training_steps * (1.0 - i as f64 / steps as f64)).round() - 1.0);
    Ok((0..steps).map(level).chain([Level::CLEAN]).collect())
}
