//! Sampling by solvers that choose their own steps.

use super::control::{Control, Ending, Outcome, Progress};
use super::evaluator::{Evaluator, SLOT};
use super::integrate::{DormandPrince, Reached};
use crate::condition::Condition;
use crate::network::Network;
use crate::noise::Noise;
use crate::schedule::{Level, Marginal};
use crate::solver::{Adaptive, Method, Prediction};
use crate::{Error, Result};

/// The most evaluations of a run: a tolerance that needs more is a mistake.
const MOST_EVALUATIONS: usize = 20_000;

/// A solver that chooses its own steps, and the buffers to run it in.
///
/// It goes from one level to another with less noise and ends with the estimate of x_0 there. A run from pure noise, as of
/// a rectified flow, first takes one step of DDIM's to where there is a little signal.
pub struct AdaptiveSampler {
    options: Adaptive,
    prediction: Prediction,
    ends: (Level, Level),
    len: usize,
}

/// The σ/γ that a run from pure noise first goes to: near enough for an error of a millionth.
pub(crate) const FIRST_RATIO: f64 = 1e3;

impl AdaptiveSampler {
    /// For samples of `len` numbers, from one level to another.
    ///
    /// # Errors
    /// When a tolerance is not positive, the noise does not fall from the first level to the second, the second has no
    /// noise, or the first no signal and the network's prediction needs some.
    pub fn new(options: Adaptive, prediction: Prediction, ends: (Level, Level), len: usize) -> Result<Self> {
        options.check()?;
        let [from, to] = [ends.0.lambda(), ends.1.lambda()];
        let starts = from.is_finite() || (ends.0.gamma == 0.0 && !prediction.needs_signal());
        if !(starts && to.is_finite()) {
            return Err(Error::invalid(
                "a sampler that chooses its own steps cannot end at zero noise, nor start from zero SNR with a network that predicts the noise",
            ));
        }
        if from >= to {
            return Err(Error::invalid("the noise must fall from where a run starts to where it ends"));
        }
        Ok(AdaptiveSampler { options, prediction, ends, len })
    }

    /// The levels that it goes from and to.
    pub fn ends(&self) -> (Level, Level) {
        self.ends
    }

    /// Turns the noise `x` (x_T, standard normal) into a sample, in place; see
    /// [`Sampler::run`](crate::sampler::Sampler::run).
    ///
    /// # Errors
    /// As there, and when the tolerance cannot be met.
    pub fn run(
        &mut self,
        network: &mut dyn Network,
        marginal: &dyn Marginal,
        condition: &Condition,
        noise: &mut Noise,
        x: &mut [f32],
        control: &mut Control,
    ) -> Result<Outcome> {
        super::check_noise(x, self.len)?;
        if control.constraint.is_some() {
            return Err(Error::invalid(
                "a sampler that chooses its own steps cannot keep to what is known of a sample: use one with fixed steps",
            ));
        }
        network.bind(SLOT, condition)?;
        let mut state: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        let mut run = AdaptiveRun {
            network,
            marginal,
            control,
            evaluator: Evaluator::new(self.prediction, self.len),
            input: vec![0.0; self.len],
            x0: vec![0.0; self.len],
            eps: vec![0.0; self.len],
            outcome: Outcome { ending: Ending::Complete, steps: 0, nfe: 0 },
            evaluations: 0,
        };
        let tolerance = (self.options.rtol, self.options.atol);
        let reached = match run.first_step(&mut state, self.ends.0)? {
            None => Reached::Stopped,
            Some(from) => {
                let ends = (from.lambda(), self.ends.1.lambda());
                match self.options.method {
                    Method::RungeKutta45 => run.runge_kutta(&mut state, ends, tolerance)?,
                    Method::DpmSolver12 => run.dpm_solver(&mut state, ends, tolerance, 2)?,
                    Method::DpmSolver23 => run.dpm_solver(&mut state, ends, tolerance, 3)?,
                    Method::Sde => run.sde(&mut state, (from, self.ends.1), tolerance, noise)?,
                }
            }
        };
        if reached == Reached::End {
            run.evaluate(self.ends.1, &state)?;
        }
        if run.evaluations > 0 {
            x.copy_from_slice(&run.x0);
        }
        Ok(run.outcome)
    }
}

/// A run under way.
struct AdaptiveRun<'a, 'c> {
    network: &'a mut dyn Network,
    marginal: &'a dyn Marginal,
    control: &'a mut Control<'c>,
    evaluator: Evaluator,
    input: Vec<f32>,
    x0: Vec<f32>,
    eps: Vec<f32>,
    outcome: Outcome,
    evaluations: usize,
}

impl AdaptiveRun<'_, '_> {
    /// Evaluates the network: x_0 and ε are then in their buffers. False if the run is to end.
    fn evaluate(&mut self, level: Level, x: &[f64]) -> Result<bool> {
        self.evaluate_times(level, x, 1.0)
    }

    /// The same, of x times a factor.
    fn evaluate_times(&mut self, level: Level, x: &[f64], factor: f64) -> Result<bool> {
        if self.outcome.ending == Ending::Complete {
            self.outcome.ending = self.control.ending().unwrap_or(Ending::Complete);
        }
        if self.outcome.ending != Ending::Complete {
            return Ok(false);
        }
        if self.evaluations == MOST_EVALUATIONS {
            return Err(Error::invalid(format!(
                "the tolerance was not met in {MOST_EVALUATIONS} evaluations: give greater rtol and atol"
            )));
        }
        self.input.iter_mut().zip(x).for_each(|(i, x)| *i = (x * factor) as f32);
        let eps = Some((&mut self.eps[..], true));
        self.evaluator.evaluate(self.network, level, &self.input, &mut self.x0, eps, None)?;
        self.evaluations += 1;
        self.outcome.nfe += self.network.calls(SLOT);
        Ok(true)
    }

    /// From pure noise to where there is some signal, and the level that it came to; `None` if the run is to end.
    fn first_step(&mut self, x: &mut [f64], from: Level) -> Result<Option<Level>> {
        if from.gamma > 0.0 {
            return Ok(Some(from));
        }
        if !self.evaluate(from, x)? {
            return Ok(None);
        }
        let to = self.marginal.level_of_edm_sigma(FIRST_RATIO);
        for ((x, x0), eps) in x.iter_mut().zip(&self.x0).zip(&self.eps) {
            *x = to.gamma * f64::from(*x0) + to.sigma * f64::from(*eps);
        }
        Ok(Some(to))
    }

    fn level(&self, lambda: f64) -> Level {
        self.marginal.level_of_edm_sigma(libm::exp(-lambda))
    }

    /// Counts a step that was accepted and shows it.
    fn accept(&mut self, x: &[f64]) {
        self.outcome.steps += 1;
        if let Some(on_step) = &mut self.control.on_step {
            self.input.iter_mut().zip(x).for_each(|(i, x)| *i = *x as f32);
            let progress = Progress { step: self.outcome.steps, steps: 0, x: &self.input, x0: &self.x0 };
            if on_step(progress).is_break() {
                self.outcome.ending = Ending::Callback;
            }
        }
    }

    /// The probability-flow ODE in λ, where it is `dx/dλ = f x - σ ε` with f the path's.
    fn runge_kutta(&mut self, x: &mut [f64], ends: (f64, f64), (rtol, atol): (f64, f64)) -> Result<Reached> {
        let mut integrator = DormandPrince::new(x.len(), rtol, atol);
        let path = self.marginal.path();
        let run = std::cell::RefCell::new(self);
        let slope = |lambda: f64, x: &[f64], dx: &mut [f64]| {
            let run = &mut **run.borrow_mut();
            let level = run.level(lambda);
            let goes_on = run.evaluate(level, x)?;
            let f = path.drift_over_sigma(level);
            for ((dx, x), eps) in dx.iter_mut().zip(x).zip(&run.eps) {
                *dx = level.sigma * (f * x - f64::from(*eps));
            }
            Ok(goes_on)
        };
        integrator.integrate(slope, |_, x| run.borrow_mut().accept(x), ends, x)
    }

    /// DPM-Solver-12 or -23: the error is the difference of two orders that share their evaluations.
    fn dpm_solver(
        &mut self,
        x: &mut [f64],
        (from, to): (f64, f64),
        (rtol, atol): (f64, f64),
        order: usize,
    ) -> Result<Reached> {
        let (mut lambda, mut h) = (from, 0.05f64);
        let (mut lower, mut higher, mut inner) = (x.to_vec(), x.to_vec(), x.to_vec());
        let (mut eps, mut eps_1) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let mut previous = x.to_vec();
        // the inner level's place in the step, for order 2 and for order 3
        let r1 = if order == 2 { 0.5 } else { 1.0 / 3.0 };
        let mut fresh = true;
        while lambda < to {
            h = h.min(to - lambda);
            let (start, end) = (self.level(lambda), self.level(lambda + h));
            if fresh {
                if !self.evaluate(start, x)? {
                    return Ok(Reached::Stopped);
                }
                eps.copy_from_slice(&self.eps);
            }
            let middle = self.level(lambda + r1 * h);
            let x_1 = |x: f64, e: f64| scale(middle, start) * x - middle.sigma * libm::expm1(r1 * h) * e;
            (0..x.len()).for_each(|i| inner[i] = x_1(x[i], f64::from(eps[i])));
            if !self.evaluate(middle, &inner)? {
                return Ok(Reached::Stopped);
            }
            eps_1.copy_from_slice(&self.eps);
            let phi = end.sigma * libm::expm1(h);
            let first = |x: f64, e: f64| scale(end, start) * x - phi * e;
            let second = |x: f64, e: f64, d: f64| first(x, e) - phi / (2.0 * r1) * d;
            if order == 2 {
                for i in 0..x.len() {
                    let [e, e_1] = [eps[i], eps_1[i]].map(f64::from);
                    (lower[i], higher[i]) = (first(x[i], e), second(x[i], e, e_1 - e));
                }
            } else {
                let r2 = 2.0 / 3.0;
                let farther = self.level(lambda + r2 * h);
                let phi_2 = farther.sigma * libm::expm1(r2 * h);
                let slope = farther.sigma * r2 / r1 * (libm::expm1(r2 * h) / (r2 * h) - 1.0);
                for i in 0..x.len() {
                    let [e, e_1] = [eps[i], eps_1[i]].map(f64::from);
                    lower[i] = second(x[i], e, e_1 - e);
                    inner[i] = scale(farther, start) * x[i] - phi_2 * e - slope * (e_1 - e);
                }
                if !self.evaluate(farther, &inner)? {
                    return Ok(Reached::Stopped);
                }
                let weight = end.sigma / r2 * (libm::expm1(h) / h - 1.0);
                for i in 0..x.len() {
                    let [e, e_2] = [eps[i], self.eps[i]].map(f64::from);
                    higher[i] = first(x[i], e) - weight * (e_2 - e);
                }
            }
            let error = error(&lower, &higher, &previous, (rtol, atol));
            fresh = error <= 1.0;
            if fresh {
                lambda = if to - lambda <= h { to } else { lambda + h };
                x.copy_from_slice(&higher);
                previous.copy_from_slice(&lower);
                self.accept(x);
            }
            h *= (0.9 * libm::pow(error.max(1e-10), -1.0 / order as f64)).min(20.0);
        }
        Ok(Reached::End)
    }

    /// The reverse SDE, in `u = ∫β dt = -2 ln γ`, where it is `dx = -½ [x + 2 s_θ] du + dW`: an
    /// Euler–Maruyama step, another with the same noise from its end, and their mean. Of another path than the
    /// variance-preserving one x is here what it is on that, over its spread.
    fn sde(
        &mut self,
        x: &mut [f64],
        (from, to): (Level, Level),
        (rtol, atol): (f64, f64),
        noise: &mut Noise,
    ) -> Result<Reached> {
        let (marginal, path) = (self.marginal, self.marginal.path());
        let u_of = |level: Level| -2.0 * libm::log(level.gamma / path.spread(level));
        x.iter_mut().for_each(|x| *x /= path.spread(from));
        let (mut u, end) = (u_of(from), u_of(to));
        let mut h = 0.01f64;
        let (mut first, mut mean, mut previous) = (x.to_vec(), x.to_vec(), x.to_vec());
        let mut drift = vec![0.0; x.len()];
        let mut z = vec![0.0f32; x.len()];
        let mut fresh = true;
        while u > end {
            h = h.min(u - end);
            let [start, next] = [u, u - h].map(|u| marginal.level_of_edm_sigma(libm::expm1(u).sqrt()));
            let [sigma, sigma_next] = [start, next].map(|level| level.sigma / path.spread(level));
            if fresh {
                if !self.evaluate_times(start, x, path.spread(start))? {
                    return Ok(Reached::Stopped);
                }
                (0..x.len()).for_each(|i| drift[i] = 0.5 * x[i] - f64::from(self.eps[i]) / sigma);
            }
            noise.fill(&mut z);
            for i in 0..x.len() {
                first[i] = x[i] + h * drift[i] + h.sqrt() * f64::from(z[i]);
            }
            if !self.evaluate_times(next, &first, path.spread(next))? {
                return Ok(Reached::Stopped);
            }
            for i in 0..x.len() {
                let drift = 0.5 * first[i] - f64::from(self.eps[i]) / sigma_next;
                let second = x[i] + h * drift + h.sqrt() * f64::from(z[i]);
                mean[i] = 0.5 * (first[i] + second);
            }
            let error = error(&first, &mean, &previous, (rtol, atol));
            fresh = error <= 1.0;
            if fresh {
                u = if u - end <= h { end } else { u - h };
                x.copy_from_slice(&mean);
                previous.copy_from_slice(&first);
                self.accept(x);
            }
            h *= 0.9 * libm::pow(error.max(1e-4), -0.9);
        }
        x.iter_mut().for_each(|x| *x *= path.spread(to));
        Ok(Reached::End)
    }
}

/// γ'/γ.
fn scale(to: Level, from: Level) -> f64 {
    to.gamma / from.gamma
}

/// The root mean square of the difference over the tolerance, the greater of the absolute and the relative one.
fn error(lower: &[f64], higher: &[f64], previous: &[f64], (rtol, atol): (f64, f64)) -> f64 {
    let ratio = |i: usize| (higher[i] - lower[i]) / atol.max(rtol * lower[i].abs().max(previous[i].abs()));
    ((0..lower.len()).map(|i| ratio(i).powi(2)).sum::<f64>() / lower.len().max(1) as f64).sqrt()
}
