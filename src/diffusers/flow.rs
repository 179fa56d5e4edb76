//! The steps of the classes of rectified flows.

use super::class::Class;
use super::sigmas::{TrainingSigmas, beta_quantile, numpy_line};
use crate::config::{FinalSigmas, PredictionType, SchedulerConfig, TimeShift};
use crate::schedule::{Grid, Level, Schedule};
use crate::{Error, Result};

/// The steps that a class takes on a rectified flow. As everywhere here, σ are rounded to f32 where diffusers keeps them
/// in that: next to pure noise, where γ = 1 - σ is small, it shows.
pub(super) fn steps(config: &SchedulerConfig, schedule: &Schedule, class: Class, steps: usize) -> Result<Grid> {
    match class {
        Class::FlowEuler | Class::FlowHeun | Class::FlowLcm => Ok(flow_match(config, schedule, class, steps)),
        Class::UniPc => unipc(config, schedule, steps),
        Class::DpmMultistep | Class::DpmSinglestep | Class::Deis | Class::SaSolver => {
            dpm_solver(config, schedule, class, steps)
        }
        Class::RectifiedFlow => {
            let levels = (0..=steps).map(|i| schedule.flow_level(1.0 - i as f64 / steps as f64));
            Ok(Grid::chain(&levels.collect::<Vec<_>>()))
        }
        _ => Err(Error::invalid("this scheduler class does not run rectified flows: drop use_flow_sigmas")),
    }
}

/// `s σ/(1 + (s - 1) σ)`: nearer to noise for s above 1.
fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// As the configuration shifts σ: by the sample's size, or by a number.
fn shift(config: &SchedulerConfig, sigma: f64) -> f64 {
    let class = &config.class;
    match class.mu.filter(|_| class.use_dynamic_shifting == Some(true)) {
        Some(mu) => {
            let m = if class.time_shift_type == Some(TimeShift::Linear) { mu } else { libm::exp(mu) };
            m / (m + (1.0 / sigma - 1.0))
        }
        None => shifted(sigma, class.shift.or(class.flow_shift).unwrap_or(1.0)),
    }
}

/// Stretches the σ so that the last is the configuration's, if it gives one.
fn stretch(config: &SchedulerConfig, sigmas: &mut [f64]) {
    let (Some(end), Some(&last)) = (config.class.shift_terminal, sigmas.last()) else { return };
    let scale = (1.0 - last) / (1.0 - end);
    sigmas.iter_mut().for_each(|s| *s = 1.0 - (1.0 - *s) / scale);
}

/// Karras's, exponential or beta spacing between the first and the last of these σ, if the configuration asks for one.
fn spaced(config: &SchedulerConfig, sigmas: &mut [f64]) {
    let (options, count) = (&config.class, sigmas.len());
    let on = |option: Option<bool>| option == Some(true);
    let (max, min) = (sigmas[0], sigmas[count - 1]);
    let new: Vec<f64> = if on(options.use_karras_sigmas) {
        const RHO: f64 = 7.0;
        let [max, min] = [max, min].map(|s| libm::pow(s, 1.0 / RHO));
        numpy_line(0.0, 1.0, count).map(|u| libm::pow(max + u * (min - max), RHO)).collect()
    } else if on(options.use_exponential_sigmas) {
        numpy_line(libm::log(max), libm::log(min), count).map(libm::exp).collect()
    } else if on(options.use_beta_sigmas) {
        numpy_line(0.0, 1.0, count).map(|u| min + beta_quantile(1.0 - u) * (max - min)).collect()
    } else {
        return;
    };
    sigmas.copy_from_slice(&new);
}

fn f32_of(value: f64) -> f64 {
    f64::from(value as f32)
}

/// The FlowMatch classes. They shift the least σ twice: once for itself, once with all.
fn flow_match(config: &SchedulerConfig, schedule: &Schedule, class: Class, steps: usize) -> Grid {
    let total = schedule.len() as f64;
    let dynamic = config.class.use_dynamic_shifting == Some(true);
    let end = |sigma: f64| if dynamic { sigma } else { f32_of(shifted(sigma, config.class.shift.unwrap_or(1.0))) };
    let [max, min] = [1.0, f32_of(1.0 / total)].map(end);
    let mut sigmas: Vec<f64> =
        numpy_line(max * total, min * total, steps).map(|time| shift(config, time / total)).collect();
    if class != Class::FlowHeun {
        stretch(config, &mut sigmas);
        spaced(config, &mut sigmas);
    }
    let inverted = config.prediction() == PredictionType::FlowToData;
    let level = |sigma: f64| {
        let sigma = sigma as f32;
        // time is what diffusers makes of it in f32
        let counted = if inverted { 1.0 - sigma } else { sigma };
        let time = f64::from(counted * total as f32) * config.class.time_scale.unwrap_or(total) / total;
        let sigma = if inverted { 1.0 - f64::from(counted) } else { f64::from(sigma) };
        Level { time, gamma: 1.0 - sigma, sigma }
    };
    let levels = sigmas.into_iter().map(level).chain([schedule.clean()]);
    Grid::chain(&levels.collect::<Vec<_>>())
}

/// A level whose time is a whole number, rounded down.
fn whole(schedule: &Schedule, sigma: f64) -> Level {
    let time = (sigma * schedule.len() as f64).floor();
    let sigma = f32_of(sigma);
    Level { time, gamma: 1.0 - sigma, sigma }
}

fn unipc(config: &SchedulerConfig, schedule: &Schedule, steps: usize) -> Result<Grid> {
    let options = &config.class;
    let on = |option: Option<bool>| option == Some(true);
    if on(options.use_exponential_sigmas) || on(options.use_beta_sigmas) {
        return Err(Error::invalid(
            "use_exponential_sigmas and use_beta_sigmas of this class are of σ/γ, which no flow has: with use_flow_sigmas give use_karras_sigmas or neither",
        ));
    }
    let sigmas: Vec<f64> = if on(options.use_karras_sigmas) {
        // of the σ/γ of a schedule of β
        let training = TrainingSigmas::new(config, &Schedule::of_betas(config)?);
        let ends = [options.sigma_max.unwrap_or(training.max()), options.sigma_min.unwrap_or(training.min())];
        let [max, min] = ends.map(|s| libm::pow(s, 1.0 / 7.0));
        let ratios = numpy_line(0.0, 1.0, steps).map(|u| libm::pow(max + u * (min - max), 7.0));
        ratios.map(|s| s / (s + 1.0)).collect()
    } else {
        let line = numpy_line(1.0, 1.0 / schedule.len() as f64, steps + 1).take(steps);
        let mut sigmas: Vec<f64> = line.map(|sigma| shift(config, sigma)).collect();
        stretch(config, &mut sigmas);
        if (sigmas[0] - 1.0).abs() < 1e-6 {
            // where there is some signal
            sigmas[0] -= 1e-6;
        }
        sigmas
    };
    let mut levels: Vec<Level> = sigmas.iter().map(|&sigma| whole(schedule, sigma)).collect();
    levels.push(match options.final_sigmas_type {
        Some(FinalSigmas::SigmaMin) => levels[steps - 1],
        _ => schedule.clean(),
    });
    Ok(Grid::chain(&levels))
}

/// Those of the DPM-Solver kind, and DEIS.
fn dpm_solver(config: &SchedulerConfig, schedule: &Schedule, class: Class, steps: usize) -> Result<Grid> {
    let options = &config.class;
    let spacings =
        [options.use_karras_sigmas, options.use_exponential_sigmas, options.use_beta_sigmas, options.use_lu_lambdas];
    if spacings.contains(&Some(true)) {
        return Err(Error::invalid(
            "use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas and use_lu_lambdas of this class are of σ/γ, which no flow has: with use_flow_sigmas give none",
        ));
    }
    let by = match options.mu.filter(|_| options.use_dynamic_shifting == Some(true)) {
        Some(mu) => libm::exp(mu),
        None => options.flow_shift.unwrap_or(1.0),
    };
    let sigmas = numpy_line(1.0, 1.0 / schedule.len() as f64, steps + 1).map(|signal| shifted(1.0 - signal, by));
    let mut levels: Vec<Level> =
        sigmas.collect::<Vec<_>>().into_iter().rev().take(steps).map(|sigma| whole(schedule, sigma)).collect();
    levels.push(match options.final_sigmas_type {
        // these stay where their last step begins
        _ if matches!(class, Class::Deis | Class::SaSolver) => levels[steps - 1],
        // and the others go to the σ/γ of training step 0, taken for a σ
        Some(FinalSigmas::SigmaMin) => {
            let sigma = f32_of(TrainingSigmas::new(config, &Schedule::of_betas(config)?).min());
            Level { sigma, gamma: 1.0 - sigma, ..levels[steps - 1] }
        }
        _ => schedule.clean(),
    });
    Ok(Grid::chain(&levels))
}
