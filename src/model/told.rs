//! How it is settled what a network is told of the noise in its sample.

use super::input::Input;
use super::names::{self, Meaning};
use super::time::TimeAs;
use crate::config::SchedulerConfig;
use crate::error::Hint;
use crate::{Error, ErrorKind, Result};

/// What the network is told of the noise: what is `given`, else what its configuration or the name of its input says, else
/// the training step.
///
/// # Errors
/// When what is given is not for this network. Within, when it must be given: a network may be looked at without it.
pub(super) fn told(given: Option<TimeAs>, config: &SchedulerConfig, input: Option<&Input>) -> Result<Result<TimeAs>> {
    let Some(input) = input else { return Ok(Ok(TimeAs::Step)) };
    let takes_sigma = config.prediction().takes_sigma();
    let counts_to_one = config.is_angular() || config.sde_betas().is_some();
    match given {
        None | Some(TimeAs::Step) if input.is_whole() && counts_to_one => Err(Error::invalid(format!(
            "the network's input {} takes whole numbers, and the times of this scheduler class lie between 0 and 1",
            input.name
        ))),
        Some(time) if takes_sigma && time != TimeAs::Step => Err(Error::invalid(format!(
            "a network whose prediction is of the denoised sample, or of the score, is told its sigma, and not {}",
            time.name()
        ))),
        Some(time) if input.is_whole() && time != TimeAs::Step => Err(Error::invalid(format!(
            "the network's input {} takes whole numbers, and so the training step, and not {}",
            input.name,
            time.name()
        ))),
        // pure noise is 1
        Some(TimeAs::Unit) if config.is_flow() => Ok(Ok(TimeAs::Sigma)),
        // whose times are that
        Some(TimeAs::Unit) if counts_to_one => Ok(Ok(TimeAs::Step)),
        Some(time) => Ok(Ok(time)),
        None if input.is_whole() && config.is_continuous() => Err(Error::invalid(format!(
            "the network's input {} takes whole numbers, and not a quarter of the logarithm of sigma, which timestep_type continuous says",
            input.name
        ))),
        None if input.is_whole() && config.is_flow() => Ok(Ok(TimeAs::RoundedDown)),
        // of such a configuration, times are what the network is told
        None if takes_sigma || input.is_whole() || config.is_continuous() => Ok(Ok(TimeAs::Step)),
        None => Ok(match names::meaning(&input.name) {
            Meaning::Any => Ok(TimeAs::Step),
            Meaning::Plain(TimeAs::Unit) if counts_to_one => Ok(TimeAs::Step),
            Meaning::Plain(time) => Ok(time),
            Meaning::Noise => Err(unclear(&input.name)),
        }),
    }
}

/// That the name of the time's input says that it is no training step, and not which of the others it is.
fn unclear(name: &str) -> Error {
    Error::new(
        ErrorKind::Model,
        format!(
            "the network's input {name} takes a number of the noise that its name does not define, and no training step"
        ),
    )
    .with_hint(Hint::TimeAs)
}
