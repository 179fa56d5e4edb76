//! The way back from a sample to the noise that it comes from.

use super::settings::{GuidedNetwork, Settings};
use crate::condition::Condition;
use crate::config::{PredictionType, Threshold};
use crate::likelihood::Flow;
use crate::model::{Model, Normalizer};
use crate::noise::Noise;
use crate::sampler::{Control, Sampler};
use crate::schedule::Schedule;
use crate::solver::{Adaptive, Method, Prediction, Solver};
use crate::{Error, Result};

/// Finds the noise that a sample comes from: what a run [from that noise](crate::Request::from_noise) makes that sample of
/// again, with the same settings and no thresholding, which has no way back.
///
/// Fixed-step solvers run their table for the steps in reverse, and those that choose their own steps follow
/// the ODE by Runge–Kutta within their tolerance.
pub struct Encoder {
    network: GuidedNetwork,
    schedule: Schedule,
    prediction: PredictionType,
    normalizer: Normalizer,
    way: Way,
    /// What the end of the way is multiplied by, to be standard normal noise.
    scale: f32,
}

enum Way {
    Table(Sampler),
    Ode(Adaptive),
}

impl Encoder {
    /// An encoder for `model`.
    ///
    /// # Errors
    /// When the settings are out of range or do not fit the model, or the sampler adds noise.
    pub fn new(model: &Model, settings: &Settings) -> Result<Self> {
        let config = model.scheduler_config();
        let schedule = Schedule::from_config(config)?;
        let prediction = Prediction { kind: config.prediction(), threshold: Threshold::None };
        let mut scale = 1.0;
        let way = match settings.solver {
            Solver::Adaptive(Adaptive { method: Method::Sde, .. }) => {
                return Err(Error::invalid("a sampler that adds noise cannot go back from a sample to noise"));
            }
            Solver::Adaptive(options) => Way::Ode(options),
            solver => {
                let mut grid = settings.grid(config, &schedule)?;
                // a network that takes σ starts from σ_max z: the way back ends there, and z is that over σ_max
                if config.sigma_range().is_some() {
                    scale = 1.0 / std::mem::replace(&mut grid.start, 1.0) as f32;
                }
                let program = solver.compile(&grid.reversed()?, &schedule, prediction)?;
                Way::Table(Sampler::new(program, model.sample_shape().iter().product()))
            }
        };
        let network = settings.network(model)?;
        let normalizer = model.normalizer().clone();
        Ok(Encoder { network, schedule, prediction: config.prediction(), normalizer, way, scale })
    }

    /// The noise that `sample` comes from under `condition`, both in the units of the model's data.
    ///
    /// # Errors
    /// When the sample or the condition does not fit the model, or the network fails.
    pub fn encode(&mut self, sample: &[f32], condition: &Condition) -> Result<Vec<f32>> {
        let mut x = sample.to_vec();
        self.normalizer.normalize(&mut x);
        let mut scaled = condition.clone();
        self.normalizer.normalize_conditions(&mut scaled.named);
        let condition = &scaled;
        match &mut self.way {
            Way::Table(sampler) => {
                // no noise is drawn on the way
                let mut noise = Noise::new(0, 0);
                sampler.run(&mut self.network, condition, &mut noise, &mut x, &mut Control::default())?;
                x.iter_mut().for_each(|v| *v *= self.scale);
                Ok(x)
            }
            Way::Ode(options) => {
                let (noise, data) = self.schedule.ends();
                let flow = Flow::new(&self.schedule, self.prediction, data, noise)?;
                flow.with_tolerance(options.rtol, options.atol)?.encode(&mut self.network, condition, &x)
            }
        }
    }
}
