//! What a network is told of the noise in its sample.

use super::input::Input;
use crate::config::{PredictionType, SchedulerConfig};
use crate::error::Hint;
use crate::schedule::Level;
use crate::{Error, ErrorKind, Result};

/// What a network is told of the noise in its sample, by its input of the time. At a level, `x_t = γ x_0 + σ ε`, and
/// ᾱ = γ².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeAs {
    /// The training step t, from 0.
    Step,
    /// ᾱ, as in SR3 and Palette.
    AlphaBar,
    /// γ = √ᾱ, as in WaveGrad.
    Gamma,
    /// σ, the noise's standard deviation in x_t; for a variance-preserving schedule, √(1 - ᾱ). A network that takes σ in
    /// EDM's sense also takes another sample, and is said to be one by its prediction type.
    Sigma,
    /// The logarithm of the signal-to-noise ratio, ln(γ²/σ²).
    LogSnr,
    /// (t + 1)/T, the share of the T training steps, as in score-based SDEs.
    Unit,
    /// ¼ ln(σ/γ), EDM's c_noise: diffusers' `timestep_type` of `continuous`.
    QuarterLogSigma,
}

impl TimeAs {
    /// Every one, in the order in which they are listed.
    pub const ALL: [TimeAs; 7] = [
        TimeAs::Step,
        TimeAs::AlphaBar,
        TimeAs::Gamma,
        TimeAs::Sigma,
        TimeAs::LogSnr,
        TimeAs::Unit,
        TimeAs::QuarterLogSigma,
    ];

    /// The name on the command line and in a model's metadata.
    pub fn name(self) -> &'static str {
        match self {
            TimeAs::Step => "step",
            TimeAs::AlphaBar => "alpha-bar",
            TimeAs::Gamma => "gamma",
            TimeAs::Sigma => "sigma",
            TimeAs::LogSnr => "log-snr",
            TimeAs::Unit => "unit",
            TimeAs::QuarterLogSigma => "quarter-log-sigma",
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    /// When there is none: the names that there are.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.map(TimeAs::name).into();
            Error::invalid(format!(
                "there is no '{name}' to tell a network of its noise: give one of {}",
                names.join(", ")
            ))
        })
    }

    /// What the network is told at `level` of a schedule of `steps` training steps.
    pub fn of(self, level: Level, steps: usize) -> f64 {
        match self {
            TimeAs::Step => level.time,
            TimeAs::AlphaBar => level.gamma * level.gamma,
            TimeAs::Gamma => level.gamma,
            TimeAs::Sigma => level.sigma,
            TimeAs::LogSnr => level.log_snr(),
            TimeAs::Unit => (level.time + 1.0) / steps as f64,
            TimeAs::QuarterLogSigma => 0.25 * libm::log(level.edm_sigma()),
        }
    }
}

/// What the name of an input of floats says of the time that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// It is a time as any other.
    Any,
    /// This and nothing else.
    Plain(TimeAs),
    /// Not the training step, but a number that goes by several definitions.
    Noise,
}

/// What the name of an input of floats says of the time that it takes.
fn meaning(name: &str) -> Meaning {
    const PLAIN: &[(&str, TimeAs)] = &[
        ("alphabar", TimeAs::AlphaBar),
        ("alphabars", TimeAs::AlphaBar),
        ("alphascumprod", TimeAs::AlphaBar),
        ("alphacumprod", TimeAs::AlphaBar),
        ("sqrtalphabar", TimeAs::Gamma),
        ("sqrtalphabars", TimeAs::Gamma),
        ("sqrtalphascumprod", TimeAs::Gamma),
        ("sqrtalphacumprod", TimeAs::Gamma),
        ("sqrtoneminusalphascumprod", TimeAs::Sigma),
        ("logsnr", TimeAs::LogSnr),
        ("logsnrs", TimeAs::LogSnr),
    ];
    /// What such a number is called by; the first three words have more than one definition in the papers themselves.
    const NOISE: &[&str] =
        &["sigma", "gamma", "noise", "lambda", "lmbda", "snr", "alpha", "beta", "std", "variance", "logvar"];
    let letters: String = name.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let bare = letters.strip_suffix('t').filter(|bare| PLAIN.iter().any(|(known, _)| known == bare));
    if let Some((_, time)) = PLAIN.iter().find(|(known, _)| *known == letters || Some(*known) == bare) {
        return Meaning::Plain(*time);
    }
    if NOISE.iter().any(|word| letters.contains(word)) { Meaning::Noise } else { Meaning::Any }
}

/// What the network is told of the noise: what is `given`, else what its configuration or the name of its input says, else
/// the training step.
///
/// # Errors
/// When what is given is not for this network. Within, when it must be given: a network may be looked at without it.
pub(super) fn told(given: Option<TimeAs>, config: &SchedulerConfig, input: Option<&Input>) -> Result<Result<TimeAs>> {
    let Some(input) = input else { return Ok(Ok(TimeAs::Step)) };
    let takes_sigma = config.prediction() == PredictionType::Denoised;
    match given {
        Some(time) if takes_sigma && time != TimeAs::Step => Err(Error::invalid(format!(
            "a network whose prediction is of the denoised sample is told its sigma, and not {}",
            time.name()
        ))),
        Some(time) if input.is_whole() && time != TimeAs::Step => Err(Error::invalid(format!(
            "the network's input {} takes whole numbers, and so the training step, and not {}",
            input.name,
            time.name()
        ))),
        Some(time) => Ok(Ok(time)),
        None if takes_sigma || input.is_whole() => Ok(Ok(TimeAs::Step)),
        None if config.is_continuous() => Ok(Ok(TimeAs::QuarterLogSigma)),
        None => Ok(match meaning(&input.name) {
            Meaning::Any => Ok(TimeAs::Step),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    #[test]
    fn numbers_of_a_level_are_those_of_their_definitions() {
        let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
        let level = schedule.level(400.0);
        let alpha_bar: f64 = (0..=400).map(|t| 1.0 - (1e-4 + (0.02 - 1e-4) * f64::from(t) / 999.0)).product();
        let told = |time: TimeAs| time.of(level, schedule.len());
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(told(TimeAs::Step), 400.0);
        near(told(TimeAs::AlphaBar), alpha_bar);
        near(told(TimeAs::Gamma), alpha_bar.sqrt());
        near(told(TimeAs::Sigma), (1.0 - alpha_bar).sqrt());
        near(told(TimeAs::LogSnr), (alpha_bar / (1.0 - alpha_bar)).ln());
        near(told(TimeAs::Unit), 0.401);
        near(told(TimeAs::QuarterLogSigma), 0.25 * ((1.0 - alpha_bar) / alpha_bar).sqrt().ln());
        for time in TimeAs::ALL {
            assert_eq!(TimeAs::from_name(time.name()).unwrap(), time);
        }
        assert!(TimeAs::from_name("lambda").unwrap_err().to_string().contains("alpha-bar, gamma, sigma"));
    }

    #[test]
    fn names_that_say_what_they_are_are_understood_and_others_asked_about() {
        for name in ["t", "timestep", "time", "timesteps", "onnx::Mul_1", "step"] {
            assert_eq!(meaning(name), Meaning::Any, "{name}");
        }
        for (name, time) in [
            ("log_snr", TimeAs::LogSnr),
            ("logSNR_t", TimeAs::LogSnr),
            ("alpha_bar", TimeAs::AlphaBar),
            ("alphas_cumprod", TimeAs::AlphaBar),
            ("sqrt_alpha_bar", TimeAs::Gamma),
        ] {
            assert_eq!(meaning(name), Meaning::Plain(time), "{name}");
        }
        for name in ["gammas", "noise_level", "sigma", "sigmas", "lambda_t", "snr", "alpha", "noise_std"] {
            assert_eq!(meaning(name), Meaning::Noise, "{name}");
        }
    }
}
