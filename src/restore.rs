//! Pictures restored from what was measured of them, with a diffusion model as the prior.
//!
//! [`Restorer`] puts together what the library has for this: the null-space projection of
//! [`NullSpace`], the run that starts from a noisy sample ([`Request::from_noisy`]), tiles for large pictures
//! ([`Settings::tiling`]), and the mean over several samples. `docs/restoration.md` measures it.

use crate::condition::Condition;
use crate::config::Spacing;
use crate::constraint::{Degradation, NullSpace};
use crate::generator::{Generated, Generator, Settings};
use crate::model::Model;
use crate::request::Request;
use crate::solver::{Resample, Solver};
use crate::{Error, Result};

/// What happened to a picture.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Damage {
    /// Parts of it, or sums of its elements, are all that was measured.
    Linear {
        /// What is measured of a picture.
        degradation: Degradation,
        /// The standard deviation of the noise in each number measured, in the samples' units; 0 where there is none.
        noise: f32,
    },
    /// Every number has noise of this standard deviation, in the samples' units, above 0.
    Noise(f32),
}

/// Restores pictures that were all damaged in the same way, in buffers made once.
///
/// ```
/// use edgegen::Condition;
/// use edgegen::constraint::Degradation;
/// use edgegen::Model;
/// use edgegen::restore::{Damage, Restorer};
///
/// let model = Model::embedded()?;
/// // the upper half is lost
/// let known: Vec<bool> = (0..28 * 28).map(|i| i >= 14 * 28).collect();
/// let degradation = Degradation::mask(model.sample_shape(), &known)?;
/// let damage = Damage::Linear { degradation, noise: 0.0 };
/// let settings = Restorer::settings(&model, &damage);
/// let mut restorer = Restorer::new(&model, &settings, damage, 1)?;
/// let (restored, _) = restorer.restore(&[-1.0; 28 * 28], 0, &Condition::default())?;
/// assert_eq!(restored[20 * 28], -1.0);
/// # Ok::<(), edgegen::Error>(())
/// ```
pub struct Restorer {
    generator: Generator,
    damage: Damage,
    average: usize,
}

impl Restorer {
    /// What suits `model` and `damage`, of those that `docs/restoration.md` compares: where something was measured, DDIM with
    /// all of DDPM's noise and every step taken four times (RePaint's resampling); of a noisy picture, DDIM from there. No
    /// guidance.
    pub fn settings(model: &Model, damage: &Damage) -> Settings {
        let of = |eta, steps, resample| Settings {
            steps,
            spacing: Some(Spacing::LogSnr),
            guidance: 1.0,
            resample,
            ..Settings::with_solver(model, Solver::Ddim { eta })
        };
        match damage {
            Damage::Linear { .. } => of(1.0, 10, Resample { times: 4, jump: 1 }),
            Damage::Noise(_) => of(0.0, 5, Resample::NONE),
        }
    }

    /// A restorer that gives the mean of `average` samples (1 or more): the more there are, the nearer the result is to
    /// the posterior mean, which has the least square error and the least detail.
    ///
    /// # Errors
    /// When the settings do not fit the model or the damage, `average` is 0, or the model scales its samples
    /// ([`Model::normalizer`]): what is measured must be in the network's units.
    pub fn new(model: &Model, settings: &Settings, damage: Damage, average: usize) -> Result<Self> {
        if average == 0 {
            return Err(Error::invalid("the number of samples to average must be 1 or more"));
        }
        if model.normalizer().sample.is_some() {
            return Err(Error::invalid("a model with a normalization of its samples cannot restore pictures"));
        }
        let generator = Generator::new(model, settings)?;
        let len = generator.sample_shape().iter().product::<usize>();
        if let Damage::Linear { degradation, .. } = &damage
            && degradation.len() != len
        {
            return Err(Error::invalid(format!(
                "the degradation is of pictures of {} numbers, but these have {len}",
                degradation.len()
            )));
        }
        Ok(Restorer { generator, damage, average })
    }

    /// The picture that `measured` was made from, as far as the model can tell, and the network calls that it took. It is
    /// sample `(seed, 0)`, or the mean of those from there on.
    ///
    /// # Errors
    /// When `measured` does not fit the damage or is not finite, the condition does not fit the model, or the network
    /// fails.
    pub fn restore(&mut self, measured: &[f32], seed: u64, condition: &Condition) -> Result<(Vec<f32>, usize)> {
        let mut constraint = match &self.damage {
            Damage::Linear { degradation, noise } => Some(NullSpace::new(degradation.clone(), measured, *noise)?),
            Damage::Noise(_) => None,
        };
        let mut calls = 0;
        let mut mean = vec![0.0; self.generator.sample_shape().iter().product()];
        let share = 1.0 / self.average as f32;
        for index in 0..self.average as u64 {
            let mut request = Request::new(seed, index).without_class().conditions(condition);
            if let Damage::Noise(sigma) = self.damage {
                request = request.from_noisy(measured, f64::from(sigma));
            }
            if let Some(constraint) = &mut constraint {
                request = request.constraint(constraint);
            }
            let Generated { sample, outcome } = self.generator.run(&request)?;
            calls += outcome.nfe;
            mean.iter_mut().zip(sample).for_each(|(m, s)| *m += share * s);
        }
        Ok((mean, calls))
    }
}
