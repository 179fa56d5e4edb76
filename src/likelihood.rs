//! The model as a map and a density: encoding by the probability-flow ODE, and log-likelihood along it
//! (arXiv 2011.13456, section 4.3 and appendix D).
//!
//! In `λ = ln(γ/σ)` the ODE is `dx/dλ = v = f x - σ ε`, with f that of the schedule's [path](crate::schedule::Path), and
//! along it `d ln p/dλ = -div v` with `div v = f d - σ tr ∂ε/∂x`.

use crate::condition::Condition;
use crate::config::{PredictionType, Threshold};
use crate::network::Network;
use crate::noise::Noise;
use crate::sampler::{DormandPrince, Evaluator, FIRST_RATIO, SLOT};
use crate::schedule::{Level, Marginal};
use crate::solver::{Adaptive, Method, Prediction};
use crate::{Error, ErrorKind, Result};

/// How the trace of ∂ε/∂x is had from a network that gives no gradients: by central differences along
/// some directions, two calls each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trace {
    /// Hutchinson's estimate: the mean over so many directions of random signs, at least 1.
    Hutchinson(usize),
    /// The sum over every coordinate: exact, at two calls a coordinate.
    Exact,
}

/// More directions than are of use: the error falls with the root of their number.
const MOST_DIRECTIONS: usize = 1 << 16;

/// A log-likelihood.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LogLikelihood {
    /// ln p(x), in nats, of the sample as the network is trained on it.
    pub nats: f64,
    /// The standard error of Hutchinson's estimate: from two directions on, and 0 for the exact trace.
    pub standard_error: Option<f64>,
    /// What the sample is encoded as.
    pub latent: Vec<f32>,
    /// Network calls made.
    pub nfe: usize,
}

impl LogLikelihood {
    /// -log2 of the probability of the sample's bins of this width, over the number of elements. For
    /// pictures of 256 values from -1 to 1 the width is 2/256; the sample should have been spread over its bin.
    pub fn bits_per_dim(&self, bin: f64) -> f64 {
        -self.nats / (self.latent.len() as f64 * std::f64::consts::LN_2) - bin.log2()
    }
}

/// The probability-flow ODE of a model, between a level next to clean and one of almost nothing but noise, or of nothing
/// else: then it is followed to a little signal, and the rest of the way is one step of DDIM's.
#[derive(Clone, Copy)]
pub struct Flow<'a> {
    marginal: &'a dyn Marginal,
    prediction: PredictionType,
    data: Level,
    noise: Level,
    /// Whether the way leads on from there to pure noise.
    pure: bool,
    rtol: f64,
    atol: f64,
}

impl<'a> Flow<'a> {
    /// The flow between the levels `data` and `noise`.
    ///
    /// # Errors
    /// When the noise does not rise from the first to the second, the first has no noise, or the second no signal and the
    /// network's prediction needs some.
    pub fn new(marginal: &'a dyn Marginal, prediction: PredictionType, data: Level, noise: Level) -> Result<Self> {
        let pure = noise.gamma == 0.0;
        let noise = if pure { marginal.level_of_edm_sigma(FIRST_RATIO) } else { noise };
        let [high, low] = [data.lambda(), noise.lambda()];
        let needs_signal = Prediction { kind: prediction, threshold: Threshold::None }.needs_signal();
        if !(high.is_finite() && low.is_finite() && low < high) || (pure && needs_signal) {
            return Err(Error::invalid(
                "a flow needs a level with little noise and one with more, both with some signal",
            ));
        }
        Ok(Flow { marginal, prediction, data, noise, pure, rtol: 1e-5, atol: 1e-5 })
    }

    /// The same flow followed within these tolerances, relative and absolute, instead of 1e-5.
    ///
    /// # Errors
    /// When one is not positive.
    pub fn with_tolerance(self, rtol: f64, atol: f64) -> Result<Self> {
        Adaptive { method: Method::RungeKutta45, rtol, atol }.check()?;
        Ok(Flow { rtol, atol, ..self })
    }

    /// The latent x_T of the clean sample `x`.
    ///
    /// # Errors
    /// When `x` does not fit the network or is not finite, the network fails, or the tolerance cannot be met.
    pub fn encode(&self, network: &mut dyn Network, condition: &Condition, x: &[f32]) -> Result<Vec<f32>> {
        let mut state = self.at_data(network, x)?;
        self.follow(network, condition, &mut state, &[], (self.data, self.noise))?;
        self.end_at_noise(network, condition, &mut state)?;
        Ok(narrow(&state))
    }

    /// The clean sample of the latent `z`.
    ///
    /// # Errors
    /// As [`encode`](Flow::encode).
    pub fn decode(&self, network: &mut dyn Network, condition: &Condition, z: &[f32]) -> Result<Vec<f32>> {
        let mut state = wide(network, z)?;
        self.begin_at_noise(network, condition, &mut state)?;
        self.follow(network, condition, &mut state, &[], (self.noise, self.data))?;
        state.iter_mut().for_each(|v| *v /= self.data.gamma);
        Ok(narrow(&state))
    }

    /// ln p(x) of the clean sample `x`; random directions come from `noise`.
    ///
    /// # Errors
    /// As [`encode`](Flow::encode), and when there is no direction.
    pub fn log_likelihood(
        &self,
        network: &mut dyn Network,
        condition: &Condition,
        x: &[f32],
        trace: Trace,
        noise: &mut Noise,
    ) -> Result<LogLikelihood> {
        let mut state = self.at_data(network, x)?;
        let d = state.len();
        let (directions, sums) = match trace {
            Trace::Hutchinson(0) => return Err(Error::invalid("Hutchinson's estimate needs at least one direction")),
            Trace::Hutchinson(count) => {
                let numbers = count.checked_mul(d).filter(|n| Vec::<f32>::new().try_reserve_exact(*n).is_ok());
                if count > MOST_DIRECTIONS || numbers.is_none() {
                    return Err(Error::invalid(format!(
                        "Hutchinson's estimate takes at most {MOST_DIRECTIONS} directions that fit the memory, not {count}"
                    )));
                }
                let mut sign = |_| if noise.sample() < 0.0 { -1.0 } else { 1.0 };
                ((0..count).map(|_| (0..d).map(&mut sign).collect()).collect::<Vec<Vec<f32>>>(), count)
            }
            Trace::Exact => {
                let unit = |i: usize| (0..d).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
                ((0..d).map(unit).collect(), 1)
            }
        };
        state.resize(d + sums, 0.0);
        let nfe = self.follow(network, condition, &mut state, &directions, (self.data, self.noise))?;
        let (latent, changes) = state.split_at_mut(d);
        // ln p at the noisy end, less what it changed on the way there, and the change of scale to x itself
        let spread = self.marginal.path().spread(self.noise);
        let square: f64 = latent.iter().map(|v| (v / spread).powi(2)).sum();
        let normal = -0.5 * (square + d as f64 * (2.0 * std::f64::consts::PI).ln()) - d as f64 * spread.ln();
        let nfe = nfe + self.end_at_noise(network, condition, latent)?;
        let mean = changes.iter().sum::<f64>() / sums as f64;
        let variance = changes.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / (sums.max(2) - 1) as f64;
        Ok(LogLikelihood {
            nats: normal - mean + d as f64 * self.data.gamma.ln(),
            standard_error: match trace {
                Trace::Exact => Some(0.0),
                Trace::Hutchinson(1) => None,
                Trace::Hutchinson(_) => Some((variance / sums as f64).sqrt()),
            },
            latent: narrow(latent),
            nfe,
        })
    }

    /// From a little signal to none, if the way leads there. The number of network calls.
    fn end_at_noise(&self, network: &mut dyn Network, condition: &Condition, state: &mut [f64]) -> Result<usize> {
        if !self.pure {
            return Ok(0);
        }
        let mut field = Field::new(network, condition, self.prediction)?;
        let eps = field.eps(self.noise, state)?;
        state.iter_mut().zip(eps).for_each(|(x, eps)| *x = f64::from(*eps));
        Ok(field.nfe)
    }

    /// The way back.
    fn begin_at_noise(&self, network: &mut dyn Network, condition: &Condition, state: &mut [f64]) -> Result<()> {
        if !self.pure {
            return Ok(());
        }
        let mut field = Field::new(network, condition, self.prediction)?;
        let pure = self.marginal.path().level(self.marginal.time_of_log_snr(f64::NEG_INFINITY), f64::INFINITY);
        field.eps(pure, state)?;
        for ((x, x0), eps) in state.iter_mut().zip(&field.x0).zip(&field.eps[0]) {
            *x = self.noise.gamma * f64::from(*x0) + self.noise.sigma * f64::from(*eps);
        }
        Ok(())
    }

    /// The clean sample scaled to the level next to clean.
    fn at_data(&self, network: &dyn Network, x: &[f32]) -> Result<Vec<f64>> {
        let mut state = wide(network, x)?;
        state.iter_mut().for_each(|v| *v *= self.data.gamma);
        Ok(state)
    }

    /// Takes `state` along the flow: first the sample, then the changes of ln p, one for each direction, or
    /// one for all of them if there is only room for one. The number of network calls.
    fn follow(
        &self,
        network: &mut dyn Network,
        condition: &Condition,
        state: &mut [f64],
        directions: &[Vec<f32>],
        (from, to): (Level, Level),
    ) -> Result<usize> {
        let d = network.sample_len();
        let path = self.marginal.path();
        let exact = directions.len() > 1 && state.len() == d + 1;
        let mut field = Field::new(network, condition, self.prediction)?;
        let slope = |lambda: f64, state: &[f64], out: &mut [f64]| {
            let level = self.marginal.level_of_edm_sigma((-lambda).exp());
            let (x, (dx, dl)) = (&state[..d], out.split_at_mut(d));
            let eps = field.eps(level, x)?;
            let f = path.drift_over_sigma(level);
            for ((dx, x), eps) in dx.iter_mut().zip(x).zip(eps) {
                *dx = level.sigma * (f * x - f64::from(*eps));
            }
            dl.fill(-level.sigma * f * d as f64);
            for (i, direction) in directions.iter().enumerate() {
                dl[if exact { 0 } else { i }] += level.sigma * field.curvature(level, x, direction)?;
            }
            Ok(true)
        };
        let mut integrator = DormandPrince::new(state.len(), self.rtol, self.atol);
        integrator.integrate(slope, |_, _| (), (from.lambda(), to.lambda()), state)?;
        Ok(field.nfe)
    }
}

/// `ln p(b) - ln p(a)` of the density at one level, the energy of `a` less that of `b`: the integral of
/// the score along the straight line between them, by Gauss and Legendre's rule of five points on each of
/// `pieces` pieces.
///
/// # Errors
/// When a sample does not fit the network or is not finite, there are no pieces, or the network fails.
pub fn log_density_difference(
    network: &mut dyn Network,
    prediction: PredictionType,
    level: Level,
    condition: &Condition,
    [a, b]: [&[f32]; 2],
    pieces: usize,
) -> Result<f64> {
    /// Places from -1 to 1, and their weights.
    const RULE: [(f64, f64); 5] = [
        (-0.906_179_845_938_664, 0.236_926_885_056_189_1),
        (-0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
        (0.0, 0.568_888_888_888_888_9),
        (0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
        (0.906_179_845_938_664, 0.236_926_885_056_189_1),
    ];
    if pieces == 0 {
        return Err(Error::invalid("an integral needs at least one piece"));
    }
    let [a, b] = [wide(network, a)?, wide(network, b)?];
    let mut field = Field::new(network, condition, prediction)?;
    let mut sum = 0.0;
    for piece in 0..pieces {
        for (place, weight) in RULE {
            let u = (piece as f64 + 0.5 * (1.0 + place)) / pieces as f64;
            let x: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + u * (b - a)).collect();
            let eps = field.eps(level, &x)?;
            let along: f64 = a.iter().zip(&b).zip(eps).map(|((a, b), e)| (b - a) * f64::from(*e)).sum();
            sum -= 0.5 * weight / pieces as f64 * along / level.sigma;
        }
    }
    Ok(sum)
}

/// Spherical interpolation from `a` (at `w` = 0) to `b` (at 1): the way between two latents, whose norm and
/// with it their noise level it keeps.
pub fn slerp(a: &[f32], b: &[f32], w: f32) -> Vec<f32> {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).clamp(-1.0, 1.0);
    let (angle, w) = (cosine.acos(), f64::from(w));
    let (of_a, of_b) = match angle.sin() {
        // all but parallel: a straight line
        sine if sine < 1e-6 || !sine.is_finite() => (1.0 - w, w),
        sine => (((1.0 - w) * angle).sin() / sine, (w * angle).sin() / sine),
    };
    a.iter().zip(b).map(|(a, b)| (of_a * f64::from(*a) + of_b * f64::from(*b)) as f32).collect()
}

/// ε of the network and its derivatives.
struct Field<'a> {
    network: &'a mut dyn Network,
    evaluator: Evaluator,
    input: Vec<f32>,
    x0: Vec<f32>,
    eps: [Vec<f32>; 2],
    nfe: usize,
}

impl<'a> Field<'a> {
    fn new(network: &'a mut dyn Network, condition: &Condition, kind: PredictionType) -> Result<Self> {
        network.bind(SLOT, condition)?;
        let d = network.sample_len();
        let buffer = || vec![0.0; d];
        let evaluator = Evaluator::new(Prediction { kind, threshold: Threshold::None }, d);
        Ok(Field { network, evaluator, input: buffer(), x0: buffer(), eps: [buffer(), buffer()], nfe: 0 })
    }

    /// ε of the input into the first or second buffer.
    fn evaluate(&mut self, level: Level, buffer: usize) -> Result<()> {
        let eps = Some((&mut self.eps[buffer][..], true));
        self.evaluator.evaluate(self.network, level, &self.input, &mut self.x0, eps, None)?;
        self.nfe += self.network.calls(SLOT);
        Ok(())
    }

    fn eps(&mut self, level: Level, x: &[f64]) -> Result<&[f32]> {
        self.input.iter_mut().zip(x).for_each(|(i, x)| *i = *x as f32);
        self.evaluate(level, 0)?;
        Ok(&self.eps[0])
    }

    /// `v · ∂ε/∂x v`. ε changes over lengths of σ, so the difference is taken over a part of that: small
    /// enough for its third derivative, large enough for f32.
    fn curvature(&mut self, level: Level, x: &[f64], direction: &[f32]) -> Result<f64> {
        let delta = 0.02 * level.sigma;
        for (buffer, sign) in [(0, 1.0), (1, -1.0)] {
            for ((input, x), v) in self.input.iter_mut().zip(x).zip(direction) {
                *input = (x + sign * delta * f64::from(*v)) as f32;
            }
            self.evaluate(level, buffer)?;
        }
        let [plus, minus] = &self.eps;
        let differences = plus.iter().zip(minus).zip(direction);
        let sum: f64 = differences.map(|((p, m), v)| f64::from(*v) * (f64::from(*p) - f64::from(*m))).sum();
        Ok(sum / (2.0 * delta))
    }
}

fn wide(network: &dyn Network, x: &[f32]) -> Result<Vec<f64>> {
    if x.len() != network.sample_len() {
        return Err(Error::invalid(format!(
            "a sample must have {} numbers, in the shape {:?}, but has {}",
            network.sample_len(),
            network.sample_shape(),
            x.len()
        )));
    }
    match x.iter().position(|v| !v.is_finite()) {
        Some(i) => {
            Err(Error::new(ErrorKind::NotFinite, format!("a sample must be finite, but element {i} is {}", x[i])))
        }
        None => Ok(x.iter().map(|v| f64::from(*v)).collect()),
    }
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|v| *v as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_between_latents_keeps_their_norm() {
        let (a, b) = ([3.0, 0.0, 4.0], [0.0, 5.0, 0.0]);
        let norm = |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert_eq!((slerp(&a, &b, 0.0), slerp(&a, &b, 1.0)), (a.to_vec(), b.to_vec()));
        assert!((norm(&slerp(&a, &b, 0.3)) - 5.0).abs() < 1e-5);
        assert_eq!(slerp(&a, &a, 0.5), a);
        assert_eq!(slerp(&[0.0], &[1.0], 0.25), [0.25]);
    }
}
