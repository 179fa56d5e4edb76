//! A model's own schedule: its training steps, or the times of a rectified flow.

use super::clock::Clock;
use super::grid::Grid;
use super::level::Level;
use super::marginal::{Marginal, VpSde};
use super::path::Path;
use crate::config::{BetaSchedule, FlowTime, SchedulerConfig, Sigmas, Spacing};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// The schedule that a model was trained on: a path, and β, ᾱ and what follows from them at each of its training steps
/// `t = 0..len`. A rectified flow of T training steps has σ = (t + 1)/T at step t, so that the last is pure noise; its β and
/// ᾱ are those of the variance-preserving schedule of the same σ/γ.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    path: Path,
    clock: Clock,
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
        let flow = config.flow_time().map(|time| match time {
            FlowTime::Signal(scale) => Clock::Signal(scale),
            FlowTime::Noise(scale) => Clock::Sigma(scale),
        });
        if let Some(clock) = flow {
            let schedule = Self::of_flow(config.num_train_timesteps, clock);
            return Ok(Schedule { tuned: config.tuned_timesteps.clone(), ..schedule });
        }
        if config.is_angular() {
            let n = config.num_train_timesteps;
            let angle = |t: usize| (t + 1) as f64 / n as f64 * std::f64::consts::FRAC_PI_2;
            let mut alpha_bar: Vec<f64> = (0..n).map(|t| libm::cos(angle(t)).powi(2)).collect();
            alpha_bar[n - 1] = 0.0;
            return Ok(Schedule { clock: Clock::Angle, ..Self::from_alpha_bar(alpha_bar) });
        }
        if let Some((beta_min, beta_max)) = config.sde_betas() {
            let (sde, n) = (VpSde { beta_min, beta_max }, config.num_train_timesteps);
            let alpha_bar = (0..n).map(|t| sde.level((t + 1) as f64 / n as f64).gamma.powi(2));
            return Ok(Schedule { clock: Clock::Sde(sde), ..Self::from_alpha_bar(alpha_bar.collect()) });
        }
        let sigmas = Sigmas { min: config.class.sigma_min, max: config.class.sigma_max, rho: config.class.rho };
        if let Some((min, max)) = config.sigma_range() {
            return Ok(Schedule { sigmas, ..Self::from_edm_sigmas(min, max)? });
        }
        let schedule = Schedule { tuned: config.tuned_timesteps.clone(), sigmas, ..Self::of_betas(config)? };
        if !config.is_continuous() {
            return Ok(schedule);
        }
        let [min, max] = [0, schedule.len() - 1].map(|t| libm::exp(-0.5 * schedule.log_snr_bound(t)));
        let range = Self::from_edm_sigmas(sigmas.min.unwrap_or(min), sigmas.max.unwrap_or(max))?;
        Ok(Schedule { clock: Clock::QuarterLogRatio, sigmas, ..range })
    }

    /// The variance-preserving schedule of the configuration's β.
    pub(crate) fn of_betas(config: &SchedulerConfig) -> Result<Self> {
        let (n, start, end) = (config.num_train_timesteps, config.beta_start, config.beta_end);
        let lerp = |a: f64, b: f64, i: usize| a + (b - a) * i as f64 / (n.max(2) - 1) as f64;
        let beta: Vec<f64> = match (&config.trained_betas, config.beta_schedule) {
            (Some(trained), _) => trained.clone(),
            (None, BetaSchedule::Linear) => (0..n).map(|i| lerp(start, end, i)).collect(),
            (None, BetaSchedule::ScaledLinear) => (0..n).map(|i| lerp(start.sqrt(), end.sqrt(), i).powi(2)).collect(),
            (None, BetaSchedule::SquaredCosine) => {
                capped(n, |u| libm::cos((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).powi(2))
            }
            (None, BetaSchedule::Exponential) => capped(n, |u| libm::exp(-12.0 * u)),
            (None, BetaSchedule::Laplace) => capped(n, |u| {
                let place = 0.5 - u;
                let sign = if place < 0.0 { -1.0 } else { 1.0 };
                let snr = libm::exp(-0.5 * sign * libm::log(1.0 - 2.0 * place.abs() + 1e-6));
                (snr / (1.0 + snr)).sqrt()
            }),
            (None, BetaSchedule::Sigmoid) => {
                let sigmoid = |u: f64| 1.0 / (1.0 + libm::exp(-u));
                (0..n).map(|i| start + (end - start) * sigmoid(lerp(-6.0, 6.0, i))).collect()
            }
        };
        let mut schedule = Self::from_betas(beta)?;
        let shift = config.snr_shift();
        if shift != 1.0 {
            let shifted = schedule.alpha_bar.iter().map(|a| a / (shift + (1.0 - shift) * a));
            schedule = Self::from_alpha_bar(shifted.collect());
        }
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
        Ok(Self::new(beta, alpha_bar))
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
        Ok(Self::from_alpha_bar(alpha_bar))
    }

    /// The rectified flow of so many training steps, which calls its times by `clock`.
    fn of_flow(steps: usize, clock: Clock) -> Self {
        let ratio = |t: usize| (t + 1) as f64 / (steps - t - 1) as f64;
        let alpha_bar = (0..steps).map(|t| 1.0 / (1.0 + ratio(t).powi(2))).collect();
        Schedule { path: Path::RectifiedFlow, clock, ..Self::from_alpha_bar(alpha_bar) }
    }

    fn from_alpha_bar(alpha_bar: Vec<f64>) -> Self {
        let before = |t: usize| if t == 0 { 1.0 } else { alpha_bar[t - 1] };
        let beta = (0..alpha_bar.len()).map(|t| 1.0 - alpha_bar[t] / before(t)).collect();
        Self::new(beta, alpha_bar)
    }

    fn new(beta: Vec<f64>, alpha_bar: Vec<f64>) -> Self {
        let (path, clock) = (Path::VariancePreserving, Clock::Step);
        Schedule { path, clock, beta, alpha_bar, tuned: BTreeMap::new(), sigmas: Sigmas::default() }
    }

    /// The path that its levels lie on.
    pub fn path(&self) -> Path {
        self.path
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

    /// γ_t = √ᾱ_t of a variance-preserving schedule, the scale of the signal.
    pub fn gamma(&self, t: usize) -> f64 {
        match self.path {
            Path::RectifiedFlow => (self.len() - t - 1) as f64 / self.len() as f64,
            _ => self.alpha_bar(t).sqrt(),
        }
    }

    /// σ_t = √(1 - ᾱ_t) of a variance-preserving schedule, the scale of the noise.
    pub fn sigma(&self, t: usize) -> f64 {
        match self.path {
            Path::RectifiedFlow => (t + 1) as f64 / self.len() as f64,
            _ => (1.0 - self.alpha_bar(t)).sqrt(),
        }
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
        Ok(Schedule { tuned: self.tuned.clone(), sigmas: self.sigmas, ..Self::from_alpha_bar(alpha_bar) })
    }

    /// ln(γ²/σ²) at training step `t`: it falls as t grows.
    ///
    /// # Panics
    /// When `t >= len`.
    pub fn log_snr(&self, t: usize) -> f64 {
        libm::log(self.alpha_bar(t) / (1.0 - self.alpha_bar(t)))
    }

    /// The level without noise, with the time that tells a network of it where parts of its sample are clean
    /// ([`Prefix`](crate::constraint::Prefix)): 0 of training steps, of a flow the end where the data is.
    pub fn told_clean(&self) -> Level {
        Level { gamma: 1.0, sigma: 0.0, ..self.level_of_edm_sigma(0.0) }
    }

    /// The level at a time of the network's: a training step from 0 to `len - 1`, between which log-SNR is interpolated
    /// linearly, unless the network counts otherwise.
    pub fn level(&self, time: f64) -> Level {
        match self.clock {
            Clock::Step => self.level_of_betas(time),
            clock => self.path.level(time, clock.ratio(time)),
        }
    }

    /// The level at a training step, which may be fractional.
    pub(crate) fn level_at_step(&self, step: f64) -> Level {
        match (self.path, self.clock) {
            (_, Clock::Step) => self.level_of_betas(step),
            (Path::RectifiedFlow, clock) => clock.flow_level(((step + 1.0) / self.len() as f64).clamp(0.0, 1.0)),
            (path, clock) => {
                let s = self.level_of_betas(step).edm_sigma();
                path.level(clock.time(s), s)
            }
        }
    }

    fn level_of_betas(&self, time: f64) -> Level {
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

    /// The time at which the log-SNR is `log_snr`, the inverse of [`level`](Self::level); where times are training steps,
    /// those outside the schedule become its ends.
    pub fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        match self.clock {
            Clock::Step => self.step_of_log_snr(log_snr),
            clock => clock.time(libm::exp(-0.5 * log_snr)),
        }
    }

    fn step_of_log_snr(&self, log_snr: f64) -> f64 {
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
    /// [`Spacing::Leading`]; the last level is clean, or without `to_clean` training step 0.
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
        // a network that does not count in training steps takes times between them as well
        let whole = |step: f64| if self.clock == Clock::Step { step.round_ties_even() } else { step };
        let of_ratio = |s: f64| self.level(self.time_of_log_snr(-2.0 * libm::log(s)));
        let level = |i: usize| -> Level {
            match spacing {
                Spacing::Tuned => self.level(tuned[i]),
                Spacing::Leading => {
                    self.level_at_step((((steps - 1 - i) * (n / steps)) + steps_offset).min(n - 1) as f64)
                }
                Spacing::Trailing => self.level_at_step(whole(n as f64 * (count - i as f64) / count) - 1.0),
                Spacing::Linspace => self.level_at_step(whole(between(last, 0.0, i))),
                Spacing::LogSnr => {
                    let ln = between(libm::log(ends.0), libm::log(ends.1), i);
                    self.level(self.time_of_log_snr(-2.0 * ln))
                }
                Spacing::Karras => {
                    let rho = self.sigmas.rho.unwrap_or(7.0);
                    of_ratio(libm::pow(between(libm::pow(ends.0, 1.0 / rho), libm::pow(ends.1, 1.0 / rho), i), rho))
                }
            }
        };
        let end = if to_clean { self.clean() } else { self.level_at_step(0.0) };
        Ok((0..steps).map(level).chain([end]).collect())
    }

    /// The level without noise. Only a rectified flow has a time for it.
    pub(crate) fn clean(&self) -> Level {
        match self.path {
            Path::RectifiedFlow => self.clock.flow_level(0.0),
            _ => Level::CLEAN,
        }
    }

    /// Whether a network was trained at this time.
    ///
    /// # Errors
    /// When it was not: at which it was.
    pub(crate) fn check_time(&self, time: f64) -> Result<()> {
        let (low, high) = match self.clock {
            Clock::Step => (0.0, (self.len() - 1) as f64),
            Clock::Sigma(scale) | Clock::Signal(scale) => (0.0, scale),
            Clock::Angle | Clock::Sde(_) => (0.0, 1.0),
            Clock::QuarterLogRatio => (f64::MIN, f64::MAX),
        };
        if (low..=high).contains(&time) {
            return Ok(());
        }
        Err(Error::invalid(format!("the network's times are from {low} to {high}: {time} is not one")))
    }

    /// The level of a rectified flow with this σ.
    pub(crate) fn flow_level(&self, sigma: f64) -> Level {
        self.clock.flow_level(sigma)
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

    /// The noisiest level that still has signal, or of a rectified flow pure noise; and that of training step 0.
    pub fn ends(&self) -> (Level, Level) {
        if self.path == Path::RectifiedFlow {
            return (self.level_at_step((self.len() - 1) as f64), self.level_at_step(0.0));
        }
        let last = self.len() - 1;
        let noisiest = if self.alpha_bar(last) == 0.0 && last > 0 { last - 1 } else { last };
        (self.level_at_step(noisiest as f64), self.level_at_step(0.0))
    }

    /// The log-SNR of training step `t`, or of the step before where that one has no signal at all.
    fn log_snr_bound(&self, t: usize) -> f64 {
        let log_snr = self.log_snr(t);
        if log_snr.is_finite() || t == 0 { log_snr } else { self.log_snr(t - 1) }
    }
}

impl Marginal for Schedule {
    fn path(&self) -> Path {
        self.path
    }

    fn level(&self, time: f64) -> Level {
        Schedule::level(self, time)
    }

    fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        Schedule::time_of_log_snr(self, log_snr)
    }
}

/// The β, at most 0.999, that make ᾱ this function of t/T.
fn capped(n: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f64> {
    let at = |i: usize| alpha_bar(i as f64 / n as f64);
    (0..n).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999)).collect()
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
