//! Where each class puts its steps.

use super::class::{Class, class};
use super::flow;
use super::score;
use super::sigmas::{TrainingSigmas, beta_quantile, line};
use crate::config::{FinalSigmas, Interpolation, SchedulerConfig, SigmaSchedule, Spacing};
use crate::schedule::{Grid, Level, Schedule, Transition};
use crate::{Error, Result};

impl Grid {
    /// The steps that the class which the configuration names takes in a run of `steps` steps.
    ///
    /// # Errors
    /// When `steps` is 0 or more than the schedule's, the configuration names no class or one that is not
    /// known, or asks for a spacing that the class has not.
    pub fn of_scheduler(config: &SchedulerConfig, schedule: &Schedule, steps: usize) -> Result<Grid> {
        let class = class(config)?.ok_or_else(|| {
            Error::invalid("the scheduler configuration names no class: add _class_name, or name a spacing")
        })?;
        match class {
            Class::ScoreSdeVe => return score::variance_exploding(config, schedule, steps),
            Class::ScoreSdeVp => return score::variance_preserving(config, schedule, steps),
            _ => {}
        }
        if let Some(range) = config.sigma_range() {
            return in_range(config, schedule, class, range, steps);
        }
        let n = schedule.len();
        if steps == 0 || steps > n {
            return Err(Error::invalid(format!("the number of steps must be from 1 to {n}, not {steps}")));
        }
        if config.is_flow() {
            return flow::steps(config, schedule, class, steps);
        }
        if class != Class::DpmSinglestep
            && !matches!(config.timestep_spacing, Spacing::Leading | Spacing::Trailing | Spacing::Linspace)
        {
            return Err(Error::invalid(
                "with a scheduler class timestep_spacing must be leading, trailing or linspace",
            ));
        }
        let clips =
            matches!(class, Class::DpmMultistep | Class::DpmSinglestep | Class::DpmMultistepInverse | Class::SaSolver);
        if let Some(least) = config.class.lambda_min_clipped.filter(|_| clips)
            && schedule.level(0.0).lambda() < least
        {
            return Err(Error::invalid(format!("lambda_min_clipped is {least}, which leaves no training step")));
        }
        let betas = if config.is_continuous() { &Schedule::of_betas(config)? } else { schedule };
        let run = GridMaker { config, schedule: betas, steps, sigmas: TrainingSigmas::new(config, betas) };
        Ok(match class {
            Class::Ddim | Class::Pndm | Class::CogDdim | Class::CogDpm => run.by_training_steps(),
            Class::Lcm | Class::Tcd => run.distilled(class)?,
            Class::DdimInverse => run.inverse_by_training_steps()?,
            Class::DpmMultistepInverse => run.inverse_multistep()?,
            Class::Ipndm => run.angles(),
            Class::Ddpm => run.ancestral(),
            Class::DpmMultistep | Class::DpmSinglestep | Class::UniPc | Class::Deis | Class::SaSolver => {
                run.multistep(class)
            }
            Class::Euler | Class::EulerAncestral | Class::Heun | Class::Lms | Class::Dpm2 | Class::Dpm2Ancestral => {
                run.in_sigma(class)
            }
            Class::EdmEuler
            | Class::EdmDpmMultistep
            | Class::Consistency
            | Class::FlowEuler
            | Class::FlowHeun
            | Class::FlowLcm
            | Class::RectifiedFlow
            | Class::ScoreSdeVe
            | Class::ScoreSdeVp => {
                return Err(Error::invalid(
                    "this scheduler class is for networks that are trained on a range of sigma",
                ));
            }
        })
    }
}

impl Grid {
    /// The steps through these times of the network's, from the noisiest on, and from the last to where a run of the
    /// configuration's class ends: to the clean sample, unless it says otherwise.
    ///
    /// # Errors
    /// When there are none, the noise does not fall from one to the next, the network knows no such time, or the class goes
    /// from the data to noise.
    pub fn of_times(config: &SchedulerConfig, schedule: &Schedule, times: &[f64]) -> Result<Grid> {
        let class = class(config)?;
        let places_its_own =
            [Class::DdimInverse, Class::DpmMultistepInverse, Class::ScoreSdeVe, Class::ScoreSdeVp].map(Some);
        if places_its_own.contains(&class) {
            return Err(Error::invalid("this scheduler class places its times itself: give a number of steps"));
        }
        if let Some(range) = config.sigma_range() {
            return in_range_at(config, schedule, class, range, times);
        }
        times.iter().try_for_each(|time| schedule.check_time(*time))?;
        let by_training_steps =
            matches!(class, None | Some(Class::Ddim | Class::Pndm | Class::CogDdim | Class::CogDpm));
        let stays_noisy = match class {
            Some(Class::Tcd | Class::Deis | Class::SaSolver) => !config.is_flow(),
            _ if by_training_steps => !config.set_alpha_to_one,
            _ => config.class.final_sigmas_type == Some(FinalSigmas::SigmaMin) && !config.is_flow(),
        };
        let in_sigma = matches!(
            class,
            Some(Class::Euler | Class::EulerAncestral | Class::Heun | Class::Lms | Class::Dpm2 | Class::Dpm2Ancestral)
        );
        let multistep = matches!(
            class,
            Some(Class::DpmMultistep | Class::DpmSinglestep | Class::UniPc | Class::Deis | Class::SaSolver)
        );
        // these go by σ/γ, which is linear between training steps
        let sigmas = (in_sigma || multistep) && !config.is_flow() && !config.is_continuous();
        let sigmas = sigmas.then(|| TrainingSigmas::new(config, schedule));
        let level = |time: f64| match &sigmas {
            Some(sigmas) => Level::from_edm_sigma(time, sigmas.at(time)),
            None => schedule.level(time),
        };
        let end = match &sigmas {
            _ if !stays_noisy => schedule.clean(),
            Some(sigmas) if in_sigma => unscaled(sigmas.min()),
            Some(_) => level(0.0),
            None => schedule.level_at_step(0.0),
        };
        let mut levels: Vec<Level> = times.iter().map(|time| level(*time)).collect();
        // a last time that is where the run ends needs no step
        if stays_noisy {
            levels.pop_if(|last| last.log_snr() == end.log_snr());
        }
        levels.push(end);
        let grid = Grid::new(&levels)?;
        let scaled = in_sigma && config.timestep_spacing != Spacing::Leading && !config.is_flow();
        Ok(if scaled { grid.with_scaled_noise() } else { grid })
    }
}

/// Where a run ends of those classes whose samples are y = x/γ: what is left of the noise is left in that.
fn unscaled(sigma: f64) -> Level {
    Level { time: 0.0, gamma: 1.0, sigma }
}

/// The σ of a range at the place `u`, from 0 at the greatest to 1 at the least.
fn sigma_at(config: &SchedulerConfig, (min, max): (f64, f64), u: f64) -> f64 {
    if config.class.sigma_schedule == Some(SigmaSchedule::Exponential) {
        return max * libm::pow(min / max, u);
    }
    let rho = config.class.rho.unwrap_or(7.0);
    let [high, low] = [max, min].map(|s| libm::pow(s, 1.0 / rho));
    libm::pow(high + u * (low - high), rho)
}

/// The steps through σ that are given, of a network that takes σ; or of the consistency class through training steps, which it
/// counts from the least noise, as diffusers does: from the last of them on, it has as many to go as they say.
fn in_range_at(
    config: &SchedulerConfig,
    schedule: &Schedule,
    class: Option<Class>,
    range: (f64, f64),
    times: &[f64],
) -> Result<Grid> {
    let counts = class == Some(Class::Consistency);
    let most = config.num_train_timesteps.max(2) - 1;
    let falls = times.windows(2).all(|pair| pair[0] > pair[1]);
    let within = |time: &f64| match counts {
        true => (0.0..=most as f64).contains(time) && time.fract() == 0.0,
        false => *time > 0.0 && time.is_finite(),
    };
    if times.is_empty() || !falls || !times.iter().all(within) {
        return Err(Error::invalid(if counts {
            format!(
                "the times of this class are training steps that fall, whole numbers from {most} to 0, not {times:?}"
            )
        } else {
            format!("the times of a network that takes sigma are sigmas that fall, above 0, not {times:?}")
        }));
    }
    let sigmas: Vec<f64> = match counts {
        true => times.iter().rev().map(|time| sigma_at(config, range, time / most as f64)).collect(),
        false => times.to_vec(),
    };
    let level = |sigma: f64| Level::from_edm_sigma(schedule.time_of_log_snr(-2.0 * libm::log(sigma)), sigma);
    let end = match config.class.final_sigmas_type {
        Some(FinalSigmas::SigmaMin) => unscaled(range.0),
        _ => Level::CLEAN,
    };
    let grid = Grid::new(&sigmas.into_iter().map(level).chain([end]).collect::<Vec<_>>())?;
    Ok(if matches!(class, Some(Class::EdmEuler | Class::EdmDpmMultistep)) { grid } else { grid.with_scaled_noise() })
}

/// The steps through a range of σ: of the EDM classes, of the consistency class, or for a network that takes σ of any.
fn in_range(
    config: &SchedulerConfig,
    schedule: &Schedule,
    class: Class,
    (min, max): (f64, f64),
    steps: usize,
) -> Result<Grid> {
    let most = if class == Class::Consistency { config.num_train_timesteps } else { schedule.len() };
    if steps == 0 || steps > most {
        return Err(Error::invalid(format!("the number of steps must be from 1 to {most}, not {steps}")));
    }
    let place = |i: usize| match class {
        // every so many of the training steps
        Class::Consistency => (i * (most / steps)) as f64 / (most.max(2) - 1) as f64,
        _ => i as f64 / (steps.max(2) - 1) as f64,
    };
    let level = |sigma: f64| Level::from_edm_sigma(schedule.time_of_log_snr(-2.0 * libm::log(sigma)), sigma);
    let mut levels: Vec<Level> = (0..steps).map(|i| level(sigma_at(config, (min, max), place(i)))).collect();
    levels.push(match config.class.final_sigmas_type {
        Some(FinalSigmas::SigmaMin) => unscaled(min),
        _ => Level::CLEAN,
    });
    let grid = Grid::chain(&levels);
    // The EDM classes start from the standard deviation √(σ_max² + 1), as they stand for VP ones; others from σ_max.
    Ok(if matches!(class, Class::EdmEuler | Class::EdmDpmMultistep) { grid } else { grid.with_scaled_noise() })
}

/// What a class's levels depend on.
pub(super) struct GridMaker<'a> {
    pub config: &'a SchedulerConfig,
    pub schedule: &'a Schedule,
    pub steps: usize,
    pub sigmas: TrainingSigmas,
}

impl GridMaker<'_> {
    pub fn len(&self) -> usize {
        self.schedule.len()
    }

    /// T - T/n, T - 2 T/n, …, rounded, less one.
    fn trailing(&self, last: usize) -> Vec<f64> {
        let ratio = self.len() as f64 / self.steps as f64;
        (0..self.steps)
            .map(|i| (last as f64 - ratio * i as f64).round_ties_even() - 1.0)
            .take_while(|t| *t >= 0.0)
            .collect()
    }

    /// Multiples of T/n from `times` down to 0, plus the offset.
    fn leading(&self, ratio: usize, from: usize) -> Vec<f64> {
        let (last, offset) = (self.len() - 1, self.config.steps_offset);
        (0..self.steps).map(|i| ((from - i) * ratio + offset).min(last) as f64).collect()
    }

    /// DDIM's and PNDM's: from each time to T/n before it, rounded down, wherever the next time is.
    pub fn by_training_steps(&self) -> Grid {
        let times: Vec<f64> = match self.config.timestep_spacing {
            Spacing::Trailing => self.trailing(self.len()),
            Spacing::Linspace => line((self.len() - 1) as f64, 0.0, self.steps).map(f64::round_ties_even).collect(),
            _ => self.leading(self.len() / self.steps, self.steps - 1),
        };
        let width = (self.len() / self.steps) as f64;
        let end = if self.config.set_alpha_to_one { Level::CLEAN } else { self.schedule.level(0.0) };
        let step = |time: f64| {
            let to = if time >= width { self.schedule.level(time - width) } else { end };
            Transition { from: self.schedule.level(time), to }
        };
        Grid { steps: times.into_iter().map(step).collect(), start: 1.0, fitted: vec![] }
    }

    /// DDPM's: from each time to the next, and then to the clean sample.
    fn ancestral(&self) -> Grid {
        let froms: Vec<Level> = self.by_training_steps().steps.iter().map(|s| s.from).collect();
        let levels: Vec<Level> = froms.into_iter().chain([Level::CLEAN]).collect();
        Grid::chain(&levels)
    }

    /// Those of the DPM-Solver kind: levels in σ/γ, whole times.
    fn multistep(&self, class: Class) -> Grid {
        let options = &self.config.class;
        let clipped = match options.lambda_min_clipped {
            Some(_) if matches!(class, Class::DpmMultistep | Class::DpmSinglestep | Class::SaSolver) => self.clipped(),
            _ => 0,
        };
        let last = self.len() - clipped;
        let round_down = |time: f64| (time + 1e-3).floor();
        let spaced = self.spaced(self.sigmas.max(), self.sigmas.min());
        let levels: Vec<Level> = match spaced {
            Some(sigmas) => sigmas
                .map(|sigma| {
                    let time = self.sigmas.time_of(sigma);
                    let rounds = match class {
                        _ if [options.use_exponential_sigmas, options.use_beta_sigmas].contains(&Some(true)) => false,
                        Class::DpmMultistep => self.config.beta_schedule != crate::config::BetaSchedule::SquaredCosine,
                        _ => true,
                    };
                    let time = if rounds { time.round_ties_even() } else { round_down(time) };
                    Level::from_edm_sigma(time, sigma)
                })
                .collect(),
            None => {
                let spacing =
                    if class == Class::DpmSinglestep { Spacing::Linspace } else { self.config.timestep_spacing };
                let times = match spacing {
                    Spacing::Leading => self.leading(last / (self.steps + 1), self.steps),
                    Spacing::Trailing => self.trailing(last),
                    _ => {
                        let roots = line((last - 1) as f64, 0.0, self.steps + 1);
                        roots.take(self.steps).map(f64::round_ties_even).collect()
                    }
                };
                times.into_iter().map(|time| Level::from_edm_sigma(time, self.sigmas.at(time))).collect()
            }
        };
        let is_spaced = levels.len() == self.steps && self.spaced(1.0, 1.0).is_some();
        // DEIS and SA-Solver never end clean; they and UniPC end spaced levels where these end.
        let own_end = is_spaced && matches!(class, Class::Deis | Class::UniPc | Class::SaSolver);
        let noisy = matches!(class, Class::Deis | Class::SaSolver);
        let default = if noisy { FinalSigmas::SigmaMin } else { FinalSigmas::Zero };
        let end = match options.final_sigmas_type.unwrap_or(default) {
            FinalSigmas::Zero => Level::CLEAN,
            FinalSigmas::SigmaMin if own_end => levels[levels.len() - 1],
            FinalSigmas::SigmaMin => Level::from_edm_sigma(0.0, self.sigmas.min()),
        };
        Grid::chain(&levels.into_iter().chain([end]).collect::<Vec<_>>())
    }

    /// Those of the k-diffusion kind: levels in σ/γ, fractional times, scaled noise to start from.
    fn in_sigma(&self, class: Class) -> Grid {
        let (last, options) = ((self.len() - 1) as f64, &self.config.class);
        let times = match self.config.timestep_spacing {
            Spacing::Leading => self.leading(self.len() / self.steps, self.steps - 1),
            Spacing::Trailing => self.trailing(self.len()),
            _ => line(last, 0.0, self.steps).collect(),
        };
        let mut levels: Vec<Level> =
            times.iter().map(|&time| Level::from_edm_sigma(time, self.sigmas.at(time))).collect();
        let mut end = match options.final_sigmas_type {
            Some(FinalSigmas::SigmaMin) => unscaled(self.sigmas.min()),
            _ => Level::CLEAN,
        };
        if options.interpolation_type == Some(Interpolation::LogLinear) {
            let sigmas = line(libm::log(self.sigmas.max()), libm::log(self.sigmas.min()), self.steps + 1).map(f64::exp);
            levels = times.iter().zip(sigmas).map(|(&time, sigma)| Level::from_edm_sigma(time, sigma)).collect();
            end = unscaled(self.sigmas.min());
        }
        if let Some(sigmas) = self.spaced(levels[0].edm_sigma(), levels[levels.len() - 1].edm_sigma()) {
            let rounds = matches!(class, Class::Dpm2 | Class::Dpm2Ancestral) && options.use_karras_sigmas == Some(true);
            let level = |sigma: f64| {
                let time = self.sigmas.time_of(sigma);
                Level::from_edm_sigma(if rounds { time.round_ties_even() } else { time }, sigma)
            };
            levels = sigmas.map(level).collect();
        }
        if self.config.is_continuous() {
            levels.iter_mut().for_each(|level| level.time = 0.25 * libm::log(level.edm_sigma()));
        }
        let grid = Grid::chain(&levels.into_iter().chain([end]).collect::<Vec<_>>());
        if self.config.timestep_spacing == Spacing::Leading { grid } else { grid.with_scaled_noise() }
    }

    /// Karras's, exponential or beta spacing, if the configuration asks for one, between these ends.
    pub fn spaced(&self, max: f64, min: f64) -> Option<Box<dyn Iterator<Item = f64>>> {
        let options = &self.config.class;
        let on = |option: Option<bool>| option == Some(true);
        let (max, min) = (options.sigma_max.unwrap_or(max), options.sigma_min.unwrap_or(min));
        if on(options.use_karras_sigmas) {
            const RHO: f64 = 7.0;
            let roots = line(libm::pow(max, 1.0 / RHO), libm::pow(min, 1.0 / RHO), self.steps);
            Some(Box::new(roots.map(|root| libm::pow(root, RHO))))
        } else if on(options.use_exponential_sigmas) || on(options.use_lu_lambdas) {
            Some(Box::new(line(libm::log(max), libm::log(min), self.steps).map(f64::exp)))
        } else if on(options.use_beta_sigmas) {
            Some(Box::new(line(1.0, 0.0, self.steps).map(move |p| min + beta_quantile(p) * (max - min))))
        } else {
            None
        }
    }
}
