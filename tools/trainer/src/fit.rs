//! Fitting the steps of short runs to a model: their times, and the weights of each step's linear combination.
//!
//! Times and weights together are moved by Gauss and Newton's method, damped as Levenberg and Marquardt have it, to
//! where samples lie nearest to those of many steps from the same x_T. (The family is that of arXiv 2305.14677, which
//! fits each step by itself; fitting the end of a run is the idea of arXiv 2310.19075 and 2502.17423.) Nothing but the
//! model and noise is seen.

use crate::tune::Tuner;
use anyhow::{Result, bail};
use edgegen::Network;
use edgegen::config::{FittedStep, PredictionType, Threshold};
use edgegen::schedule::Level;
use nalgebra::{DMatrix, DVector};

/// Fits runs on a tuner's samples.
pub struct Fitter<'a> {
    tuner: &'a Tuner<'a>,
    /// x_0 is clipped to ± this.
    bound: f32,
}

/// A run's samples x before each step and at the end, and the estimates of x_0 in each.
struct Trace {
    x: Vec<Vec<f32>>,
    x0: Vec<Vec<f32>>,
}

/// One number of a run.
#[derive(Clone, Copy)]
enum Parameter {
    Time(usize),
    X(usize),
    X0(usize, usize),
}

/// The normal equations `H Δ = -g` of a step from a run, and its mean square error.
struct Equations {
    h: DMatrix<f64>,
    g: DVector<f64>,
    error: f64,
}

/// How far a time (in training steps) and a weight are moved to see what that does: far enough to rise above the
/// rounding of 8-bit networks.
const TIME_CHANGE: f64 = 2.0;
const WEIGHT_CHANGE: f64 = 0.02;
/// The most steps of Gauss and Newton's method.
const ITERATIONS: usize = 12;
/// The least distance between two times.
const GAP: f64 = 1.0;

impl<'a> Fitter<'a> {
    /// Fits on the samples of `tuner`.
    ///
    /// # Errors
    /// When the model is one whose steps are not linear combinations.
    pub fn new(tuner: &'a Tuner<'a>) -> Result<Self> {
        if tuner.model.scheduler_config().prediction().takes_sigma() {
            bail!("the steps of a network in the EDM form cannot be fitted: name a sampler to tune the times alone");
        }
        let bound = match tuner.settings.threshold {
            Threshold::None => f32::INFINITY,
            Threshold::Static(bound) => bound as f32,
            _ => bail!("a run with dynamic thresholding cannot be fitted: name a sampler to tune the times alone"),
        };
        Ok(Fitter { tuner, bound })
    }

    /// The best run that is found from DPM-Solver++(2M) through each of `starts`.
    ///
    /// # Errors
    /// When the network fails.
    pub fn fit(&self, starts: &[Vec<f64>]) -> Result<Vec<FittedStep>> {
        let mut best: Option<(Vec<FittedStep>, f64)> = None;
        for times in starts {
            let (run, error) = self.descend(self.start(times))?;
            if best.as_ref().is_none_or(|(_, least)| error < *least) {
                best = Some((run, error));
            }
        }
        Ok(best.map(|(run, _)| run).unwrap_or_default())
    }

    /// DPM-Solver++(2M) through these times (arXiv 2211.01095, algorithm 2).
    pub fn start(&self, times: &[f64]) -> Vec<FittedStep> {
        let levels: Vec<Level> = times.iter().map(|t| self.tuner.schedule.level(*t)).chain([Level::CLEAN]).collect();
        let lambda = |level: &Level| 0.5 * level.log_snr();
        let step = |i: usize| {
            let (from, to) = (levels[i], levels[i + 1]);
            let h = lambda(&to) - lambda(&from);
            let whole = -to.gamma * (-h).exp_m1();
            let mut x0 = vec![0.0; i + 1];
            x0[i] = whole;
            if i > 0 && h.is_finite() {
                let half = 0.5 * whole * h / (lambda(&from) - lambda(&levels[i - 1]));
                x0[i] += half;
                x0[i - 1] -= half;
            }
            FittedStep { time: times[i], x: to.sigma / from.sigma, x0 }
        };
        (0..times.len()).map(step).collect()
    }

    /// The root mean square distance of a run's samples from the ODE's ends.
    ///
    /// # Errors
    /// When the network fails.
    pub fn error(&self, run: &[FittedStep]) -> Result<f64> {
        let sums = self.tuner.each(|network, i, sum: &mut f64| {
            *sum += f64::from(self.run(network, i, run)?.1.norm_squared());
            Ok(())
        })?;
        Ok((sums.iter().sum::<f64>() * self.scale()).sqrt())
    }

    /// Goes downhill from `run`: to the run where that ends, and its error.
    fn descend(&self, mut run: Vec<FittedStep>) -> Result<(Vec<FittedStep>, f64)> {
        let (mut damping, mut error) = (1e-2, f64::INFINITY);
        for _ in 0..ITERATIONS {
            let equations = self.equations(&run)?;
            error = equations.error;
            for _ in 0..4 {
                let Some(moved) = self.moved(&run, &equations, damping) else { break };
                let there = self.error(&moved)?;
                if there < error {
                    (run, error) = (moved, there);
                    damping /= 4.0;
                    break;
                }
                damping *= 5.0;
            }
            // no further, or hardly
            if error > 0.998 * equations.error {
                break;
            }
        }
        Ok((run, error))
    }

    /// One over the count of numbers in all samples.
    fn scale(&self) -> f64 {
        1.0 / self.tuner.ends.iter().map(Vec::len).sum::<usize>() as f64
    }

    /// Sample `i` of a run, and its distance from the ODE's end.
    fn run(&self, network: &mut dyn Network, i: usize, run: &[FittedStep]) -> Result<(Trace, DVector<f32>)> {
        let (x, condition) = self.tuner.case(i);
        let mut trace = Trace::new(run.len(), x.len());
        trace.x[0] = x;
        // it stays bound for what is carried on from this run
        network.bind(0, &condition)?;
        self.go_on(network, run, &mut trace, 0)?;
        let residual = DVector::from_column_slice(trace.end()) - DVector::from_column_slice(&self.tuner.ends[i]);
        Ok((trace, residual))
    }

    /// Carries on the run in `trace` from step `from`, whose x is there.
    fn go_on(&self, network: &mut dyn Network, run: &[FittedStep], trace: &mut Trace, from: usize) -> Result<()> {
        for (i, step) in run.iter().enumerate().skip(from) {
            self.estimate(network, step.time, &trace.x[i], &mut trace.x0[i])?;
            let (before, after) = trace.x.split_at_mut(i + 1);
            after[0].fill(0.0);
            for (weight, term) in [(&step.x, &before[i])].into_iter().chain(step.x0.iter().zip(&trace.x0)) {
                let weight = *weight as f32;
                after[0].iter_mut().zip(term).for_each(|(sum, v)| *sum += weight * v);
            }
        }
        Ok(())
    }

    /// The estimate of x_0 at `time`.
    fn estimate(&self, network: &mut dyn Network, time: f64, x: &[f32], x0: &mut [f32]) -> Result<()> {
        let Level { time, gamma, sigma } = self.tuner.schedule.level(time);
        network.predict(x, time, 0, x0)?;
        let (a, b) = match self.tuner.model.scheduler_config().prediction() {
            PredictionType::Epsilon => (1.0 / gamma, -sigma / gamma),
            PredictionType::V => (gamma, -sigma),
            PredictionType::Flow => (1.0, -sigma),
            PredictionType::FlowToData => (1.0, sigma),
            _ => (0.0, 1.0),
        };
        let (a, b) = (a as f32, b as f32);
        x0.iter_mut().zip(x).for_each(|(p, x)| *p = (a * x + b * *p).clamp(-self.bound, self.bound));
        Ok(())
    }

    /// How the samples move with each number of the run, by differences, as normal equations.
    fn equations(&self, run: &[FittedStep]) -> Result<Equations> {
        let parameters = parameters(run);
        let p = parameters.len();
        type Sums = Option<(DMatrix<f64>, DVector<f64>, f64)>;
        let sums = self.tuner.each(|network, i, sums: &mut Sums| {
            let (h, g, square) = sums.get_or_insert_with(|| (DMatrix::zeros(p, p), DVector::zeros(p), 0.0));
            let (trace, residual) = self.run(network, i, run)?;
            let mut moved = Trace::new(run.len(), residual.len());
            let mut changed = run.to_vec();
            let mut columns = DMatrix::<f32>::zeros(residual.len(), p);
            for (parameter, mut column) in parameters.iter().zip(columns.column_iter_mut()) {
                let before = *value(&mut changed, *parameter);
                let change = match parameter {
                    Parameter::Time(_) if before > TIME_CHANGE => -TIME_CHANGE,
                    Parameter::Time(_) => TIME_CHANGE,
                    _ => WEIGHT_CHANGE,
                };
                *value(&mut changed, *parameter) += change;
                // all before the change is as it was
                let (from, added) = match *parameter {
                    Parameter::Time(step) => (step, None),
                    Parameter::X(step) => (step + 1, Some(&trace.x[step])),
                    Parameter::X0(step, j) => (step + 1, Some(&trace.x0[j])),
                };
                moved.x[from].copy_from_slice(&trace.x[from]);
                for (x, term) in moved.x[from].iter_mut().zip(added.into_iter().flatten()) {
                    *x += change as f32 * term;
                }
                moved.x0[..from].clone_from_slice(&trace.x0[..from]);
                self.go_on(network, &changed, &mut moved, from)?;
                for (c, (a, b)) in column.iter_mut().zip(moved.end().iter().zip(trace.end())) {
                    *c = (a - b) / change as f32;
                }
                *value(&mut changed, *parameter) = before;
            }
            *h += (columns.transpose() * &columns).map(f64::from);
            *g += (columns.transpose() * &residual).map(f64::from);
            *square += f64::from(residual.norm_squared());
            Ok(())
        })?;
        let (mut h, mut g, mut square) = (DMatrix::zeros(p, p), DVector::zeros(p), 0.0);
        for sums in sums.into_iter().flatten() {
            h += sums.0;
            g += sums.1;
            square += sums.2;
        }
        Ok(Equations { h, g, error: (square * self.scale()).sqrt() })
    }

    /// The run moved by the solution of the damped equations, if they have one.
    fn moved(&self, run: &[FittedStep], equations: &Equations, damping: f64) -> Option<Vec<FittedStep>> {
        let mut damped = equations.h.clone();
        let diagonal = damped.diagonal();
        // a number without effect, such as the weight of an x that is all but clean, stays where it is
        let least = 1e-9 * diagonal.max();
        damped.set_diagonal(&diagonal.map(|d| d * (1.0 + damping) + least));
        let change = damped.cholesky()?.solve(&-&equations.g);
        let mut run = run.to_vec();
        for (parameter, change) in parameters(&run).into_iter().zip(change.iter()) {
            *value(&mut run, parameter) += change;
        }
        let ((first, mut above), n) = (self.tuner.times(), run.len());
        for (i, step) in run.iter_mut().enumerate() {
            step.time = step.time.clamp(first + (n - 1 - i) as f64 * GAP, above);
            above = step.time - GAP;
        }
        Some(run)
    }
}

impl Trace {
    fn new(steps: usize, len: usize) -> Self {
        Trace { x: vec![vec![0.0; len]; steps + 1], x0: vec![vec![0.0; len]; steps] }
    }

    fn end(&self) -> &[f32] {
        self.x.last().expect("a run has a beginning")
    }
}

fn parameters(run: &[FittedStep]) -> Vec<Parameter> {
    let of = |(i, step): (usize, &FittedStep)| {
        let weights = (0..step.x0.len()).map(move |j| Parameter::X0(i, j));
        [Parameter::Time(i), Parameter::X(i)].into_iter().chain(weights)
    };
    run.iter().enumerate().flat_map(of).collect()
}

fn value(run: &mut [FittedStep], parameter: Parameter) -> &mut f64 {
    match parameter {
        Parameter::Time(i) => &mut run[i].time,
        Parameter::X(i) => &mut run[i].x,
        Parameter::X0(i, j) => &mut run[i].x0[j],
    }
}
