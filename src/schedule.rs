//! The variance-preserving noise schedule.
//!
//! The marginal of the forward process is `q_t(x_t | x_0) = N(γ_t x_0, σ_t² I)` with `γ_t² + σ_t² = 1`.
//! In discrete time `alpha_bar_t = Π_{s≤t} (1 - β_s) = γ_t²`. All arithmetic is f64.

use crate::config::{BetaSchedule, FittedStep, SchedulerConfig, Sigmas, Spacing};
use crate::{Error, Result};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// One noise level: a time as the network counts it, and the marginal `N(γ x_0, σ² I)` there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The network's time: for a discrete schedule the training step, which may be fractional.
    pub time: f64,
    /// γ, the scale of the signal.
    pub gamma: f64,
    /// σ, the scale of the noise; `γ² + σ² = 1`.
    pub sigma: f64,
}

impl Level {
    /// No noise at all: where sampling ends. It has no time, since no network is evaluated there.
    pub const CLEAN: Level = Level { time: f64::NAN, gamma: 1.0, sigma: 0.0 };

    /// The logarithm of the signal-to-noise ratio, `ln(γ²/σ²)`; +∞ without noise, -∞ without signal.
    pub fn log_snr(&self) -> f64 {
        2.0 * libm::log(self.gamma / self.sigma)
    }

    /// σ/γ, the noise's scale where the signal's is 1: the σ of the EDM paper (arXiv 2206.00364).
    pub fn edm_sigma(&self) -> f64 {
        self.sigma / self.gamma
    }

    /// The level with this σ/γ, not negative.
    pub fn from_edm_sigma(time: f64, edm_sigma: f64) -> Level {
        let gamma = 1.0 / libm::hypot(edm_sigma, 1.0);
        Level { time, gamma, sigma: edm_sigma * gamma }
    }

    /// Noises a clean sample to this level: `x ← γ x_0 + σ x`, where `x` was standard normal.
    ///
    /// # Panics
    /// When the two are not of one length.
    pub fn noise(&self, x0: &[f32], x: &mut [f32]) {
        assert_eq!(x0.len(), x.len());
        let (gamma, sigma) = (self.gamma as f32, self.sigma as f32);
        x.iter_mut().zip(x0).for_each(|(x, x0)| *x = gamma * x0 + sigma * *x);
    }

    /// λ = ln(γ/σ), half the log-SNR: the variable that DPM-Solver's papers write λ.
    pub(crate) fn lambda(&self) -> f64 {
        libm::log(self.gamma / self.sigma)
    }
}

/// Noise levels as a function of the network's time. Solvers that evaluate the network between the
/// levels of their [`Grid`] ask it for the levels there.
pub trait Marginal {
    /// The level at `time`.
    fn level(&self, time: f64) -> Level;

    /// The time at which the log-SNR is `log_snr`.
    fn time_of_log_snr(&self, log_snr: f64) -> f64;

    /// The level with this σ/γ; its time is the nearest that there is.
    fn level_of_edm_sigma(&self, edm_sigma: f64) -> Level {
        Level::from_edm_sigma(self.time_of_log_snr(-2.0 * libm::log(edm_sigma)), edm_sigma)
    }
}

/// One step of a run: the network is evaluated at `from`, and the sample taken to `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Where the network is evaluated.
    pub from: Level,
    /// Where the step leads.
    pub to: Level,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// At pure noise.
    #[default]
    Noise,
    /// At a given sample that was noised part of the way (SDEdit, arXiv 2108.01073): the last share of the steps is
    /// run, above 0 and at most 1. Near 0 the sample stays what it is; at 1 nothing is left of it, and the run is
    /// that from pure noise.
    Strength(f64),
    /// At a given sample that has noise of this standard deviation, in the network's units, above 0: what the run gives
    /// is that sample without the noise.
    Sigma(f64),
}

/// The steps of a run, from the noisiest on.
///
/// Each step begins where the last ended, except that diffusers' DDIM and PNDM label the levels of some
/// spacings so that a step may begin a little away from there (see [`Grid::of_scheduler`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    pub(crate) steps: Vec<Transition>,
    /// What x_T, standard normal, is multiplied by.
    pub(crate) start: f64,
    /// The linear combinations that were fitted for these steps, or none.
    pub(crate) fitted: Vec<FittedStep>,
}

impl Grid {
    /// The steps through `levels`: at each but the last the network is evaluated, and at the last the run ends.
    ///
    /// # Errors
    /// When there are fewer than two levels, or the noise does not fall from each to the next.
    pub fn new(levels: &[Level]) -> Result<Self> {
        if levels.len() < 2 {
            return Err(Error::invalid("a run needs a level to begin at and one to end at"));
        }
        for pair in levels.windows(2) {
            if pair[1].log_snr().partial_cmp(&pair[0].log_snr()) != Some(Ordering::Greater) {
                return Err(Error::invalid(format!(
                    "the noise must fall from step to step, but does not from time {} to {}: use fewer steps or another spacing",
                    pair[0].time, pair[1].time
                )));
            }
        }
        Ok(Self::chain(levels))
    }

    /// The steps through `levels`, unchecked.
    pub(crate) fn chain(levels: &[Level]) -> Self {
        Grid {
            steps: levels.windows(2).map(|pair| Transition { from: pair[0], to: pair[1] }).collect(),
            start: 1.0,
            fitted: vec![],
        }
    }

    /// The steps that were fitted to a model, the last of them to the clean sample:
    /// [`Solver::Fitted`](crate::solver::Solver::Fitted) takes them.
    ///
    /// # Errors
    /// When there are none, or their times do not fall.
    pub fn of_fitted(steps: &[FittedStep], marginal: &dyn Marginal) -> Result<Self> {
        let levels: Vec<Level> = steps.iter().map(|s| marginal.level(s.time)).chain([Level::CLEAN]).collect();
        Ok(Grid { fitted: steps.to_vec(), ..Self::new(&levels)? })
    }

    /// The same steps from noise of the standard deviation that the first level says, rather than from x_T as it is.
    pub(crate) fn with_scaled_noise(mut self) -> Self {
        self.start = self.steps[0].from.sigma;
        self
    }

    /// The part of the steps that `start` says. Where it begins between two levels, the first step is the shorter.
    ///
    /// # Errors
    /// When the strength or σ is out of range.
    pub fn starting(&self, start: Start, marginal: &dyn Marginal) -> Result<Grid> {
        let level = match start {
            Start::Noise => return Ok(self.clone()),
            Start::Strength(strength) if !(strength > 0.0 && strength <= 1.0) => {
                return Err(Error::invalid(format!("the strength must be above 0 and at most 1, not {strength}")));
            }
            Start::Strength(1.0) => return Ok(self.clone()),
            Start::Strength(strength) => self.level_at(strength, marginal),
            Start::Sigma(sigma) => {
                let most = self.steps[0].from.edm_sigma();
                if !(sigma > 0.0 && sigma <= most) {
                    return Err(Error::invalid(format!(
                        "the noise to start from must be above 0 and at most {most:.4}, where the run's steps begin, not {sigma}"
                    )));
                }
                marginal.level_of_edm_sigma(sigma)
            }
        };
        let mut steps: Vec<Transition> =
            self.steps.iter().filter(|s| s.to.log_snr() > level.log_snr()).copied().collect();
        match steps.first_mut() {
            Some(first) => first.from = level,
            None => return Err(Error::invalid("the run's steps end before there is so little noise")),
        }
        Ok(Grid { steps, start: 1.0, fitted: vec![] })
    }

    /// The level from which the last share `strength` of the steps leads on.
    fn level_at(&self, strength: f64, marginal: &dyn Marginal) -> Level {
        // 0.3 of 10 steps are 3, though 0.7 · 10 may be a little more than 7
        let place = ((1.0 - strength) * self.steps.len() as f64 * 1e9).round() / 1e9;
        let (step, share) = (self.steps[(place as usize).min(self.steps.len() - 1)], place.fract());
        let Transition { from, to } = step;
        if share == 0.0 {
            from
        } else if to.sigma > 0.0 {
            marginal.level(from.time + share * (to.time - from.time))
        } else if from.gamma > 0.0 {
            marginal.level_of_edm_sigma((1.0 - share) * from.edm_sigma())
        } else {
            marginal.level((1.0 - share) * from.time)
        }
    }

    /// The way back, from a clean sample to noise: any solver of the ODE run on it encodes what it decodes. A
    /// last step to the clean sample has no way back; in its place the sample is scaled to that step's level.
    ///
    /// # Errors
    /// When nothing is left of the way, or it has gaps (see [`Grid`]).
    pub fn reversed(&self) -> Result<Grid> {
        let steps = match self.steps.split_last() {
            Some((last, rest)) if last.to.sigma == 0.0 => rest,
            _ => &self.steps,
        };
        let Some(last) = steps.last() else {
            return Err(Error::invalid("a run of one step to the clean sample has no way back: use more steps"));
        };
        if self.start != 1.0 || steps.windows(2).any(|pair| pair[0].to != pair[1].from) {
            return Err(Error::invalid("this scheduler's steps have no way back: name a spacing"));
        }
        let start = last.to.gamma;
        let steps = steps.iter().rev().map(|s| Transition { from: s.to, to: s.from }).collect();
        Ok(Grid { steps, start, fitted: vec![] })
    }

    /// The steps.
    pub fn steps(&self) -> &[Transition] {
        &self.steps
    }

    /// The levels at which the network is evaluated at the beginning of each step, and the level at which the run ends.
    pub fn levels(&self) -> impl Iterator<Item = Level> + '_ {
        self.steps.iter().map(|s| s.from).chain(self.steps.last().map(|s| s.to))
    }
}

/// A discrete VP schedule: β, ᾱ and what follows from them at each training step `t = 0..len`.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    beta: Vec<f64>,
    alpha_bar: Vec<f64>,
    /// The times of [`Spacing::Tuned`], by the number of steps.
    tuned: BTreeMap<usize, Vec<f64>>,
    /// The ends of [`Spacing::Karras`] and [`Spacing::LogSnr`] in σ/γ, where they are not the schedule's, and ρ.
    sigmas: Sigmas,
}

impl Schedule {
    /// The schedule that `config` describes.
    ///
    /// # Errors
    /// When the configuration has no steps, or a β outside (0, 1).
    pub fn from_config(config: &SchedulerConfig) -> Result<Self> {
        let sigmas = Sigmas { min: config.class.sigma_min, max: config.class.sigma_max, rho: config.class.rho };
        if let Some((min, max)) = config.sigma_range() {
            return Ok(Schedule { sigmas, ..Self::from_edm_sigmas(min, max)? });
        }
        let (n, start, end) = (config.num_train_timesteps, config.beta_start, config.beta_end);
        let lerp = |a: f64, b: f64, i: usize| a + (b - a) * i as f64 / (n.max(2) - 1) as f64;
        let beta: Vec<f64> = match (&config.trained_betas, config.beta_schedule) {
            (Some(trained), _) => trained.clone(),
            (None, BetaSchedule::Linear) => (0..n).map(|i| lerp(start, end, i)).collect(),
            (None, BetaSchedule::ScaledLinear) => (0..n).map(|i| lerp(start.sqrt(), end.sqrt(), i).powi(2)).collect(),
            (None, BetaSchedule::SquaredCosine) => {
                let alpha_bar = |u: f64| libm::cos((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).powi(2);
                let at = |i: usize| alpha_bar(i as f64 / n as f64);
                (0..n).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999)).collect()
            }
            (None, BetaSchedule::Sigmoid) => {
                let sigmoid = |u: f64| 1.0 / (1.0 + libm::exp(-u));
                (0..n).map(|i| start + (end - start) * sigmoid(lerp(-6.0, 6.0, i))).collect()
            }
        };
        let schedule = Schedule { tuned: config.tuned_timesteps.clone(), sigmas, ..Self::from_betas(beta)? };
        if config.rescale_betas_zero_snr { schedule.with_zero_terminal_snr() } else { Ok(schedule) }
    }

    /// The schedule with these β.
    ///
    /// # Errors
    /// When there are none, or one is outside (0, 1).
    pub fn from_betas(beta: Vec<f64>) -> Result<Self> {
        if beta.is_empty() {
            return Err(Error::invalid("a schedule needs at least one training step, got none"));
        }
        if let Some((t, b)) = beta.iter().enumerate().find(|(_, b)| !(**b > 0.0 && **b < 1.0)) {
            return Err(Error::invalid(format!("beta must lie between 0 and 1, but at training step {t} it is {b}")));
        }
        let alpha_bar = beta
            .iter()
            .scan(1.0, |product, b| {
                *product *= 1.0 - b;
                Some(*product)
            })
            .collect();
        Ok(Schedule { beta, alpha_bar, tuned: BTreeMap::new(), sigmas: Sigmas::default() })
    }

    /// A schedule for a network that takes σ: σ/γ from `min` to `max`, even in its logarithm over 1000 training
    /// steps, between which it is even too, so that any σ in the range is a level of it.
    ///
    /// # Errors
    /// When `min` is not positive and less than `max`.
    pub fn from_edm_sigmas(min: f64, max: f64) -> Result<Self> {
        if !(min > 0.0 && min < max && max.is_finite()) {
            return Err(Error::invalid(format!(
                "sigma must go from a positive least to a greater value, not {min} to {max}"
            )));
        }
        const LEN: usize = 1000;
        let sigma = |t: usize| min * libm::pow(max / min, t as f64 / (LEN - 1) as f64);
        let alpha_bar: Vec<f64> = (0..LEN).map(|t| 1.0 / (1.0 + sigma(t).powi(2))).collect();
        let beta = (0..LEN).map(|t| 1.0 - alpha_bar[t] / if t == 0 { 1.0 } else { alpha_bar[t - 1] }).collect();
        Ok(Schedule { beta, alpha_bar, tuned: BTreeMap::new(), sigmas: Sigmas::default() })
    }

    /// The number of training steps T.
    #[allow(clippy::len_without_is_empty, reason = "a schedule is never empty")]
    pub fn len(&self) -> usize {
        self.beta.len()
    }

    /// β_t.
    ///
    /// # Panics
    /// When `t >= len`.
    pub fn beta(&self, t: usize) -> f64 {
        self.beta[t]
    }

    /// ᾱ_t = Π (1 - β_s).
    ///
    /// # Panics
    /// When `t >= len`.
    pub fn alpha_bar(&self, t: usize) -> f64 {
        self.alpha_bar[t]
    }

    /// γ_t = √ᾱ_t, the scale of the signal.
    pub fn gamma(&self, t: usize) -> f64 {
        self.alpha_bar(t).sqrt()
    }

    /// σ_t = √(1 - ᾱ_t), the scale of the noise.
    pub fn sigma(&self, t: usize) -> f64 {
        (1.0 - self.alpha_bar(t)).sqrt()
    }

    /// The same schedule with √ᾱ shifted and scaled so that the last training step is pure noise and the
    /// first is as it was (arXiv 2305.08891, algorithm 1).
    ///
    /// # Errors
    /// When the schedule has only one step.
    pub fn with_zero_terminal_snr(&self) -> Result<Self> {
        let n = self.len();
        if n < 2 {
            return Err(Error::invalid("a schedule of one step cannot be rescaled to zero terminal SNR"));
        }
        let (first, last) = (self.gamma(0), self.gamma(n - 1));
        let alpha_bar: Vec<f64> = (0..n).map(|t| ((self.gamma(t) - last) * first / (first - last)).powi(2)).collect();
        let beta = (0..n).map(|t| 1.0 - alpha_bar[t] / if t == 0 { 1.0 } else { alpha_bar[t - 1] }).collect();
        Ok(Schedule { beta, alpha_bar, tuned: self.tuned.clone(), sigmas: self.sigmas })
    }

    /// ln(γ²/σ²) at training step `t`: it falls as t grows.
    ///
    /// # Panics
    /// When `t >= len`.
    pub fn log_snr(&self, t: usize) -> f64 {
        libm::log(self.alpha_bar(t) / (1.0 - self.alpha_bar(t)))
    }

    /// The level at a time from 0 to `len - 1`; between training steps log-SNR is interpolated linearly.
    pub fn level(&self, time: f64) -> Level {
        let last = (self.len() - 1) as f64;
        let time = time.clamp(0.0, last);
        let (below, fraction) = (time.floor() as usize, time.fract());
        let alpha_bar = if fraction == 0.0 {
            self.alpha_bar(below)
        } else {
            let log_snr = self.log_snr(below) * (1.0 - fraction) + self.log_snr(below + 1) * fraction;
            1.0 / (1.0 + libm::exp(-log_snr))
        };
        Level { time, gamma: alpha_bar.sqrt(), sigma: (1.0 - alpha_bar).sqrt() }
    }

    /// The time at which the log-SNR is `log_snr`, the inverse of [`level`](Self::level); times outside
    /// the schedule become its ends.
    pub fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        // the first training step whose log-SNR is below; ᾱ falls with t
        let alpha_bar = 1.0 / (1.0 + libm::exp(-log_snr));
        match self.alpha_bar.partition_point(|&a| a >= alpha_bar) {
            0 => 0.0,
            t if t == self.len() => (self.len() - 1) as f64,
            t => {
                let (high, low) = (self.log_snr(t - 1), self.log_snr(t));
                let fraction = ((high - log_snr) / (high - low)).clamp(0.0, 1.0);
                if low == f64::NEG_INFINITY { t as f64 } else { (t - 1) as f64 + fraction }
            }
        }
    }

    /// The levels that a run of `steps` steps visits, from the noisiest on, and the level at which it
    /// ends: `steps + 1` in all. `spacing` chooses the times; `steps_offset` shifts those of
    /// [`Spacing::Leading`]; the last level is [`Level::CLEAN`], or without `to_clean` training step 0.
    ///
    /// # Errors
    /// When `steps` is 0 or more than the schedule's, or when nothing is known for [`Spacing::Tuned`].
    pub fn levels(&self, steps: usize, spacing: Spacing, steps_offset: usize, to_clean: bool) -> Result<Vec<Level>> {
        let n = self.len();
        if steps == 0 || steps > n {
            return Err(Error::invalid(format!("the number of steps must be from 1 to {n}, not {steps}")));
        }
        let count = steps as f64;
        let last = (n - 1) as f64;
        let between = |a: f64, b: f64, i: usize| if steps == 1 { a } else { a + (b - a) * i as f64 / (count - 1.0) };
        let tuned = if spacing == Spacing::Tuned { self.tuned_times(steps)? } else { Vec::new() };
        let end_of = |own: Option<f64>, t: usize| own.unwrap_or_else(|| libm::exp(-0.5 * self.log_snr_bound(t)));
        let ends = (end_of(self.sigmas.max, n - 1), end_of(self.sigmas.min, 0));
        let time = |i: usize| -> f64 {
            match spacing {
                Spacing::Tuned => tuned[i],
                Spacing::Leading => (((steps - 1 - i) * (n / steps)) + steps_offset).min(n - 1) as f64,
                Spacing::Trailing => (n as f64 * (count - i as f64) / count).round_ties_even() - 1.0,
                Spacing::Linspace => between(last, 0.0, i).round_ties_even(),
                Spacing::LogSnr => {
                    let ln = between(libm::log(ends.0), libm::log(ends.1), i);
                    self.time_of_log_snr(-2.0 * ln)
                }
                Spacing::Karras => {
                    let rho = self.sigmas.rho.unwrap_or(7.0);
                    let sigma = libm::pow(between(libm::pow(ends.0, 1.0 / rho), libm::pow(ends.1, 1.0 / rho), i), rho);
                    self.time_of_log_snr(-2.0 * libm::log(sigma))
                }
            }
        };
        let end = if to_clean { Level::CLEAN } else { self.level(0.0) };
        Ok((0..steps).map(|i| self.level(time(i))).chain([end]).collect())
    }

    /// The times tuned for so many steps, or for the nearest number that there are times for, with those in
    /// between interpolated.
    fn tuned_times(&self, steps: usize) -> Result<Vec<f64>> {
        let nearest = self.tuned.iter().min_by_key(|(n, _)| n.abs_diff(steps));
        let Some((_, times)) = nearest.filter(|(_, times)| !times.is_empty()) else {
            return Err(Error::invalid("the model has no tuned steps: choose another step spacing"));
        };
        let at = |i: usize| {
            let place = i as f64 * (times.len() - 1) as f64 / (steps.max(2) - 1) as f64;
            let (below, fraction) = (place.floor() as usize, place.fract());
            times[below] + fraction * (times[(below + 1).min(times.len() - 1)] - times[below])
        };
        Ok((0..steps).map(at).collect())
    }

    /// The steps through these [`levels`](Self::levels).
    ///
    /// # Errors
    /// As [`levels`](Self::levels), and when the noise does not fall from each level to the next.
    pub fn grid(&self, steps: usize, spacing: Spacing, steps_offset: usize, to_clean: bool) -> Result<Grid> {
        Grid::new(&self.levels(steps, spacing, steps_offset, to_clean)?)
    }

    /// The noisiest level that still has signal, and that of training step 0.
    pub fn ends(&self) -> (Level, Level) {
        let last = self.len() - 1;
        let noisiest = if self.alpha_bar(last) == 0.0 && last > 0 { last - 1 } else { last };
        (self.level(noisiest as f64), self.level(0.0))
    }

    /// The log-SNR of training step `t`, or of the step before where that one has no signal at all.
    fn log_snr_bound(&self, t: usize) -> f64 {
        let log_snr = self.log_snr(t);
        if log_snr.is_finite() || t == 0 { log_snr } else { self.log_snr(t - 1) }
    }
}

/// The continuous VP-SDE `dx = -½ β(t) x dt + √β(t) dW` with β linear in t from 0 to 1 (arXiv 2011.13456).
///
/// `γ_t = exp(-½ ∫β)` and `σ_t² = 1 - exp(-∫β)`. (One prints `1 - exp(-½ ∫β)` now and then; variance
/// preservation, `γ² + σ² = 1`, shows that for a slip.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VpSde {
    /// β(0).
    pub beta_min: f64,
    /// β(1).
    pub beta_max: f64,
}

impl Default for VpSde {
    /// β from 0.1 to 20, the usual choice.
    fn default() -> Self {
        VpSde { beta_min: 0.1, beta_max: 20.0 }
    }
}

impl VpSde {
    /// β(t).
    pub fn beta(&self, t: f64) -> f64 {
        self.beta_min + (self.beta_max - self.beta_min) * t
    }

    /// ∫β from 0 to t.
    pub fn beta_integral(&self, t: f64) -> f64 {
        self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t
    }

    /// The level at time `t`, in [0, 1].
    pub fn level(&self, t: f64) -> Level {
        let integral = self.beta_integral(t);
        Level { time: t, gamma: libm::exp(-0.5 * integral), sigma: (-libm::expm1(-integral)).sqrt() }
    }

    /// The time at which the log-SNR is `log_snr`: the inverse of `level(t).log_snr()`.
    pub fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        // log-SNR = -ln(e^B - 1), and B is quadratic in t
        let integral = libm::log1p(libm::exp(-log_snr));
        let slope = self.beta_max - self.beta_min;
        2.0 * integral / (self.beta_min + (self.beta_min * self.beta_min + 2.0 * slope * integral).sqrt())
    }
}

impl Marginal for Schedule {
    fn level(&self, time: f64) -> Level {
        Schedule::level(self, time)
    }

    fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        Schedule::time_of_log_snr(self, log_snr)
    }
}

impl Marginal for VpSde {
    fn level(&self, time: f64) -> Level {
        VpSde::level(self, time)
    }

    fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        VpSde::time_of_log_snr(self, log_snr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(beta_schedule: BetaSchedule) -> Schedule {
        Schedule::from_config(&SchedulerConfig { beta_schedule, ..SchedulerConfig::default() }).unwrap()
    }

    fn close(a: f64, b: f64, relative: f64) {
        assert!((a - b).abs() <= relative * b.abs().max(1e-300), "{a} is not {b}");
    }

    #[test]
    fn linear_betas_have_the_known_closed_form() {
        let s = schedule(BetaSchedule::Linear);
        close(s.beta(0), 1e-4, 1e-14);
        close(s.beta(999), 0.02, 1e-14);
        // Σ ln(1 - β), summed from the formula for β rather than step by step
        let expected: f64 = (0..1000).map(|t| (-(1e-4 + (0.02 - 1e-4) * t as f64 / 999.0)).ln_1p()).sum();
        close(s.alpha_bar(999).ln(), expected, 1e-12);
    }

    #[test]
    fn scaled_linear_betas_are_squares_of_a_line() {
        let s = schedule(BetaSchedule::ScaledLinear);
        let middle = (s.beta(499).sqrt() + s.beta(500).sqrt()) / 2.0;
        close(middle, (1e-4f64.sqrt() + 0.02f64.sqrt()) / 2.0, 1e-12);
    }

    #[test]
    fn squared_cosine_alpha_bar_is_a_squared_cosine_until_beta_is_capped() {
        let s = schedule(BetaSchedule::SquaredCosine);
        let f = |u: f64| ((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        for t in [0, 10, 500, 900, 997] {
            close(s.alpha_bar(t), f((t + 1) as f64 / 1000.0) / f(0.0), 1e-9);
        }
        assert_eq!(s.beta(999), 0.999);
    }

    #[test]
    fn variance_is_preserved_and_noise_only_grows() {
        for kind in
            [BetaSchedule::Linear, BetaSchedule::ScaledLinear, BetaSchedule::SquaredCosine, BetaSchedule::Sigmoid]
        {
            let s = schedule(kind);
            for t in 0..s.len() {
                close(s.gamma(t).powi(2) + s.sigma(t).powi(2), 1.0, 1e-14);
                assert!(t == 0 || s.log_snr(t) < s.log_snr(t - 1), "{kind:?} at {t}");
            }
        }
    }

    #[test]
    fn zero_terminal_snr_ends_in_pure_noise_and_begins_as_before() {
        let plain = schedule(BetaSchedule::ScaledLinear);
        let s = plain.with_zero_terminal_snr().unwrap();
        assert_eq!((s.alpha_bar(999), s.beta(999)), (0.0, 1.0));
        close(s.alpha_bar(0), plain.alpha_bar(0), 1e-14);
        let product: f64 = (0..500).map(|t| 1.0 - s.beta(t)).product();
        close(product, s.alpha_bar(499), 1e-10);
    }

    #[test]
    fn time_is_the_inverse_of_log_snr() {
        let s = schedule(BetaSchedule::SquaredCosine);
        for time in [0.0, 0.25, 17.5, 400.0, 998.75, 999.0] {
            let level = s.level(time);
            close(level.gamma.powi(2) + level.sigma.powi(2), 1.0, 1e-14);
            assert!((s.time_of_log_snr(level.log_snr()) - time).abs() < 1e-6, "{time}");
        }
        let sde = VpSde::default();
        for t in [1e-5, 0.1, 0.5, 1.0] {
            close(sde.time_of_log_snr(sde.level(t).log_snr()), t, 1e-9);
        }
    }

    #[test]
    fn the_continuous_sde_is_the_limit_of_the_discrete_schedule() {
        let (sde, n) = (VpSde::default(), 100_000);
        let beta = (0..n).map(|i| sde.beta((i as f64 + 0.5) / n as f64) / n as f64).collect();
        let s = Schedule::from_betas(beta).unwrap();
        for t in [0.1, 0.5, 0.9] {
            let i = (t * n as f64) as usize - 1;
            assert!((s.gamma(i) - sde.level(t).gamma).abs() < 1e-3 * sde.level(t).gamma, "{t}");
        }
        let level = sde.level(1.0);
        close(level.gamma, (-0.25f64 * 20.1).exp(), 1e-12);
        close(level.sigma.powi(2), 1.0 - (-0.5f64 * 20.1).exp(), 1e-12);
    }

    #[test]
    fn spacings_visit_the_times_that_the_papers_give() {
        let s = schedule(BetaSchedule::Linear);
        let times = |spacing, offset| -> Vec<f64> {
            s.levels(4, spacing, offset, true).unwrap()[..4].iter().map(|l| l.time).collect()
        };
        assert_eq!(times(Spacing::Leading, 0), [750.0, 500.0, 250.0, 0.0]);
        assert_eq!(times(Spacing::Leading, 1), [751.0, 501.0, 251.0, 1.0]);
        assert_eq!(times(Spacing::Trailing, 0), [999.0, 749.0, 499.0, 249.0]);
        assert_eq!(times(Spacing::Linspace, 0), [999.0, 666.0, 333.0, 0.0]);
        for (spacing, measure) in [
            (Spacing::LogSnr, (|l: &Level| l.log_snr()) as fn(&Level) -> f64),
            (Spacing::Karras, |l: &Level| l.edm_sigma().powf(1.0 / 7.0)),
        ] {
            let levels = s.levels(5, spacing, 0, false).unwrap();
            let ends = [levels[0].time - 999.0, levels[4].time, levels[5].time];
            assert!(ends.iter().all(|d| d.abs() < 1e-9), "{ends:?}");
            let steps: Vec<f64> = levels[..5].windows(2).map(|w| measure(&w[1]) - measure(&w[0])).collect();
            steps.iter().for_each(|d| close(*d, steps[0], 1e-9));
        }
    }

    #[test]
    fn a_range_of_sigma_is_stepped_through_as_in_edm() {
        let text = r#"{"prediction_type": "denoised", "sigma_min": 0.01, "sigma_max": 50, "rho": 5}"#;
        let config = SchedulerConfig::from_json(text).unwrap();
        let s = Schedule::from_config(&config).unwrap();
        let levels = s.levels(6, config.spacing(), 0, true).unwrap();
        for (i, level) in levels[..6].iter().enumerate() {
            // arXiv 2206.00364, eq. 5
            let (max, min) = (50f64.powf(0.2), 0.01f64.powf(0.2));
            close(level.edm_sigma(), (max + i as f64 / 5.0 * (min - max)).powi(5), 1e-9);
        }
        assert_eq!((levels.len(), levels[6].sigma), (7, 0.0));
        let plain = SchedulerConfig::denoised();
        assert_eq!((plain.sigma_range(), plain.spacing()), (Some((0.002, 80.0)), Spacing::Karras));
        // with a schedule of β it stays one of β
        let vp = SchedulerConfig::from_json(r#"{"prediction_type": "denoised", "beta_schedule": "linear"}"#).unwrap();
        assert_eq!(vp.sigma_range(), None);
        assert!(Schedule::from_edm_sigmas(1.0, 1.0).is_err());
    }

    #[test]
    fn tuned_steps_are_the_models_own_or_lie_between_them() {
        let tuned_timesteps = [(3, vec![990.0, 500.0, 100.0]), (5, vec![999.0, 800.0, 400.5, 200.0, 20.0])].into();
        let s = Schedule::from_config(&SchedulerConfig { tuned_timesteps, ..SchedulerConfig::default() }).unwrap();
        let times = |steps| -> Vec<f64> {
            let levels = s.levels(steps, Spacing::Tuned, 0, true).unwrap();
            assert_eq!((levels.len(), levels[steps].sigma), (steps + 1, 0.0));
            levels[..steps].iter().map(|l| l.time).collect()
        };
        assert_eq!(times(3), [990.0, 500.0, 100.0]);
        assert_eq!(times(5), [999.0, 800.0, 400.5, 200.0, 20.0]);
        // the nearest that there is, thinned or with the times between
        assert_eq!(times(2), [990.0, 100.0]);
        assert_eq!(times(1), [990.0]);
        assert_eq!(times(9), [999.0, 899.5, 800.0, 600.25, 400.5, 300.25, 200.0, 110.0, 20.0]);
        let error = schedule(BetaSchedule::Linear).levels(3, Spacing::Tuned, 0, true).unwrap_err().to_string();
        assert_eq!(error, "the model has no tuned steps: choose another step spacing");
    }

    #[test]
    fn impossible_numbers_are_named() {
        let s = schedule(BetaSchedule::Linear);
        for steps in [0, 1001, 1_000_000_000] {
            let error = s.levels(steps, Spacing::Trailing, 0, true).unwrap_err().to_string();
            assert_eq!(error, format!("the number of steps must be from 1 to 1000, not {steps}"));
        }
        for bad in [0.0, 1.0, f64::NAN, -0.1] {
            assert!(Schedule::from_betas(vec![0.1, bad]).unwrap_err().to_string().contains("training step 1"));
        }
        assert!(Schedule::from_betas(vec![]).is_err());
    }
}
