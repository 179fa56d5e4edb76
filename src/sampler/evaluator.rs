//! One evaluation: the network called, and its prediction split into estimates of x_0 and ε.

use crate::config::{PredictionType, Threshold};
use crate::constraint::{Constraint, Probe};
use crate::network::Network;
use crate::schedule::Level;
use crate::solver::Prediction;
use crate::{Error, ErrorKind, Result};

/// The slot that a run binds its condition to.
pub(crate) const SLOT: usize = 0;

/// Calls a network and splits its prediction into estimates of x_0 and ε, in buffers of its own.
pub(crate) struct Evaluator {
    prediction: Prediction,
    output: Vec<f32>,
    /// Room for the magnitudes of x_0, to find their quantile in.
    magnitudes: Vec<f32>,
}

impl Evaluator {
    pub fn new(prediction: Prediction, len: usize) -> Self {
        let dynamic = matches!(prediction.threshold, Threshold::Dynamic { .. });
        let buffer = |needed: bool| vec![0.0; if needed { len } else { 0 }];
        Evaluator { prediction, output: buffer(true), magnitudes: buffer(dynamic) }
    }

    #[cfg(feature = "onnx")]
    pub fn touch(&mut self) {
        [&mut self.output, &mut self.magnitudes].into_iter().for_each(|b| b.fill(1.0));
    }

    #[cfg(feature = "onnx")]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.output) + size_of_val(&*self.magnitudes)
    }

    /// The estimates at `level`, under the condition that the network holds in [`SLOT`]: x_0 after thresholding, and ε, which follows it there or not, and then what the
    /// constraint makes of x_0, which ε always follows. Gives how many predictions that took.
    pub fn evaluate(
        &mut self,
        network: &mut dyn Network,
        level: Level,
        x: &[f32],
        x0: &mut [f32],
        eps: Option<(&mut [f32], bool)>,
        constraint: Option<&mut (dyn Constraint + '_)>,
    ) -> Result<usize> {
        let time = match self.prediction.kind {
            kind if kind.takes_sigma() => level.edm_sigma(),
            _ => network.time_of(level),
        };
        network.predict(x, time, SLOT, &mut self.output)?;
        check_finite(&self.output, level)?;
        Split::new(self.prediction.kind, level).x0.combine(x, &self.output, x0);
        self.threshold(x0);
        let mut predictions = 1;
        let constrained = constraint.is_some();
        if let Some(constraint) = constraint {
            if let Some(Probe { x, x0 }) = constraint.probe(level, x, x0) {
                network.predict(x, time, SLOT, x0)?;
                check_finite(x0, level)?;
                Split::new(self.prediction.kind, level).x0.combine_in_place(x, x0);
                self.threshold(x0);
                predictions += 1;
            }
            constraint.correct(level, x0);
        }
        if let Some((eps, follows_x0)) = eps {
            if constrained || (follows_x0 && self.prediction.threshold != Threshold::None) {
                Split::new(PredictionType::Sample, level).eps.combine(x, x0, eps);
            } else {
                Split::new(self.prediction.kind, level).eps.combine(x, &self.output, eps);
            }
        }
        Ok(predictions)
    }

    fn threshold(&mut self, x0: &mut [f32]) {
        match self.prediction.threshold {
            Threshold::None => {}
            Threshold::Static(bound) => {
                let bound = bound as f32;
                x0.iter_mut().for_each(|v| *v = v.clamp(-bound, bound));
            }
            Threshold::Dynamic { ratio, max } => {
                self.magnitudes.iter_mut().zip(&*x0).for_each(|(m, v)| *m = v.abs());
                let s = quantile(&mut self.magnitudes, ratio).clamp(1.0, max as f32);
                x0.iter_mut().for_each(|v| *v = v.clamp(-s, s) / s);
            }
        }
    }
}

fn check_finite(prediction: &[f32], level: Level) -> Result<()> {
    let Some(i) = prediction.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let (time, value) = (level.time, prediction[i]);
    let message = format!("the network's prediction at time {time} is not finite: element {i} is {value}");
    Err(Error::new(ErrorKind::NotFinite, message))
}

/// The quantile of `values`, interpolated linearly between them in order; reorders them.
fn quantile(values: &mut [f32], ratio: f64) -> f32 {
    let place = ratio * (values.len() - 1) as f64;
    let (_, &mut low, above) = values.select_nth_unstable_by(place as usize, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    low + (place.fract() as f32) * (high - low)
}

/// x_0 and ε as linear functions of (x, prediction) at one level, from `x = γ x_0 + σ ε`.
struct Split {
    x0: Pair,
    eps: Pair,
}

/// The coefficients of x and of the prediction.
struct Pair([f32; 2]);

impl Split {
    fn new(kind: PredictionType, level: Level) -> Self {
        let Level { gamma, sigma, .. } = level;
        let (x0, eps) = match kind {
            PredictionType::Epsilon => ([1.0 / gamma, -sigma / gamma], [0.0, 1.0]),
            PredictionType::V => {
                // 1 for a variance-preserving level
                let square = gamma * gamma + sigma * sigma;
                ([gamma / square, -sigma / square], [sigma / square, gamma / square])
            }
            PredictionType::Flow => velocity(level, 1.0),
            PredictionType::FlowToData => velocity(level, -1.0),
            PredictionType::Sample | PredictionType::Denoised => ([0.0, 1.0], [1.0 / sigma, -gamma / sigma]),
            PredictionType::Score => {
                let s = sigma / gamma;
                ([1.0 / gamma, s * s], [0.0, -s])
            }
        };
        let pair = |c: [f64; 2]| Pair(c.map(|c| c as f32));
        Split { x0: pair(x0), eps: pair(eps) }
    }
}

/// x_0 and ε of a velocity that is `sign (ε - x_0)`: `x = (γ + σ) x_0 + σ (ε - x_0)`.
fn velocity(Level { gamma, sigma, .. }: Level, sign: f64) -> ([f64; 2], [f64; 2]) {
    let sum = gamma + sigma;
    ([1.0 / sum, -sign * sigma / sum], [1.0 / sum, sign * gamma / sum])
}

impl Pair {
    fn combine(self, x: &[f32], prediction: &[f32], out: &mut [f32]) {
        let Pair([a, b]) = self;
        for ((out, x), p) in out.iter_mut().zip(x).zip(prediction) {
            *out = a * x + b * p;
        }
    }

    /// The same, over the prediction.
    fn combine_in_place(self, x: &[f32], prediction: &mut [f32]) {
        let Pair([a, b]) = self;
        prediction.iter_mut().zip(x).for_each(|(p, x)| *p = a * x + b * *p);
    }
}
