//! The steps of the classes of score-based SDEs.

use crate::config::SchedulerConfig;
use crate::schedule::{Grid, Level, Schedule, Transition};
use crate::{Error, Result};

/// More steps than are of use.
const MOST_STEPS: usize = 100_000;

fn check_steps(steps: usize, least: usize) -> Result<()> {
    if (least..=MOST_STEPS).contains(&steps) {
        return Ok(());
    }
    Err(Error::invalid(format!("the number of steps of this class must be from {least} to {MOST_STEPS}, not {steps}")))
}

/// The i-th of so many times from 1 to `sampling_eps`.
fn time(i: usize, steps: usize, end: f64) -> f64 {
    1.0 - i as f64 * (1.0 - end) / (steps.max(2) - 1) as f64
}

/// Where variance explodes: the network is told of σ at times from 1 to `sampling_eps`, and the steps lead to those of times from
/// 1 to 0, the last of them to the clean sample. One step would end where it begins.
pub(super) fn variance_exploding(config: &SchedulerConfig, schedule: &Schedule, steps: usize) -> Result<Grid> {
    check_steps(steps, 2)?;
    let range = config.sigma_range();
    let (min, max) = range.ok_or_else(|| Error::invalid("this scheduler class needs a sigma_min and a sigma_max"))?;
    let level = |time: f64| {
        let sigma = min * libm::pow(max / min, time);
        Level::from_edm_sigma(schedule.time_of_log_snr(-2.0 * libm::log(sigma)), sigma)
    };
    let end = config.class.sampling_eps.unwrap_or(1e-5);
    let step = |i: usize| Transition {
        from: level(time(i, steps, end)),
        to: if i + 1 < steps { level(time(i + 1, steps, 0.0)) } else { Level::CLEAN },
    };
    Ok(Grid { steps: (0..steps).map(step).collect(), start: 1.0, fitted: vec![] }.with_scaled_noise())
}

/// Where it is preserved: times from 1 to `sampling_eps`. The last step is as long as the others, and its mean the result.
pub(super) fn variance_preserving(config: &SchedulerConfig, schedule: &Schedule, steps: usize) -> Result<Grid> {
    check_steps(steps, 1)?;
    let end = config.class.sampling_eps.unwrap_or(1e-3);
    let levels = (0..steps).map(|i| schedule.level(time(i, steps, end))).chain([Level::CLEAN]);
    Ok(Grid::chain(&levels.collect::<Vec<_>>()))
}
