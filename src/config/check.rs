//! What a configuration's values must be.

use super::kinds::{AlgorithmType, PredictionType, TimeShift};
use super::scheduler::SchedulerConfig;
use super::settings::{FlowTime, Preconditioning};

/// The most training steps of a schedule, which keeps numbers for each. Models have a thousand, and none has a million.
const MOST_TRAIN_TIMESTEPS: usize = 1_000_000;

impl SchedulerConfig {
    /// What is wrong with the values, if anything is.
    pub(super) fn check(&self) -> Result<(), String> {
        let class = &self.class;
        if !(1..=MOST_TRAIN_TIMESTEPS).contains(&self.num_train_timesteps) {
            let steps = self.num_train_timesteps;
            return Err(format!(
                "num_train_timesteps must be at least 1 and at most {MOST_TRAIN_TIMESTEPS}, not {steps}"
            ));
        }
        if !(self.clip_sample_range > 0.0 && self.clip_sample_range.is_finite()) {
            return Err(format!("clip_sample_range must be positive, not {}", self.clip_sample_range));
        }
        if let Some(order) = class.solver_order.filter(|o| !(1..=3).contains(o)) {
            return Err(format!("solver_order must be 1, 2 or 3, not {order}"));
        }
        if let Some(ratio) = class.dynamic_thresholding_ratio.filter(|r| !(*r > 0.0 && *r <= 1.0)) {
            return Err(format!("dynamic_thresholding_ratio must be above 0 and at most 1, not {ratio}"));
        }
        if let Some(max) = class.sample_max_value.filter(|m| !(*m >= 1.0 && m.is_finite())) {
            return Err(format!("sample_max_value must be at least 1, not {max}"));
        }
        // a flow begins at pure noise, whose time is all of the scale
        let last = match self.flow_time() {
            Some(FlowTime::Noise(scale)) => scale,
            _ => self.num_train_timesteps as f64 - 1.0,
        };
        let check_times = |name: &str, steps: usize, times: &[f64]| {
            let falls = times.windows(2).all(|t| t[0] > t[1]);
            if steps == 0 || times.len() != steps || !falls || !times.iter().all(|t| (0.0..=last).contains(t)) {
                return Err(format!(
                    "{name} of {steps} steps must be as many times that fall, from {last} to 0, not {times:?}"
                ));
            }
            Ok(())
        };
        for (steps, times) in &self.tuned_timesteps {
            check_times("tuned_timesteps", *steps, times)?;
        }
        for (n, steps) in &self.fitted_steps {
            check_times("fitted_steps", *n, &steps.iter().map(|s| s.time).collect::<Vec<_>>())?;
            if let Some((i, step)) = steps.iter().enumerate().find(|(i, s)| s.x0.len() != i + 1) {
                return Err(format!("fitted_steps of {n} steps must have {} x0 in step {i}, not {:?}", i + 1, step.x0));
            }
        }
        let ends = [("sigma_min", class.sigma_min), ("sigma_max", class.sigma_max)];
        if let Some((name, Some(end))) = ends.into_iter().find(|(_, s)| s.is_some_and(|s| !(s > 0.0 && s.is_finite())))
        {
            return Err(format!("{name} must be positive, not {end}"));
        }
        if let (Some(min), Some(max)) = (class.sigma_min, class.sigma_max)
            && min >= max
        {
            return Err(format!("sigma_min must be less than sigma_max, but {min} is not less than {max}"));
        }
        for (name, value) in [("rho", class.rho), ("sigma_data", class.sigma_data)] {
            if let Some(value) = value.filter(|v| !(*v > 0.0 && v.is_finite())) {
                return Err(format!("{name} must be positive, not {value}"));
            }
        }
        if matches!(self.preconditioning(), Preconditioning::Edm { .. })
            && self.prediction_type == PredictionType::Sample
        {
            return Err("the EDM classes take a prediction_type of epsilon or v_prediction, or denoised for a network that has its scalings in it, not sample".into());
        }
        let spacings =
            [class.use_karras_sigmas, class.use_exponential_sigmas, class.use_beta_sigmas, class.use_lu_lambdas];
        if spacings.into_iter().flatten().filter(|on| *on).count() > 1 {
            return Err(
                "of use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas and use_lu_lambdas only one can be true"
                    .into(),
            );
        }
        self.check_stochastic()?;
        self.check_flow()
    }

    /// What is wrong with the values of a rectified flow, if anything is.
    fn check_flow(&self) -> Result<(), String> {
        let class = &self.class;
        for (name, value) in [
            ("shift", class.shift),
            ("snr_shift_scale", class.snr_shift_scale),
            ("flow_shift", class.flow_shift),
            ("time_scale", class.time_scale),
        ] {
            if let Some(value) = value.filter(|v| !(*v > 0.0 && v.is_finite())) {
                return Err(format!("{name} must be positive, not {value}"));
            }
        }
        for (name, value) in [("base_shift", class.base_shift), ("max_shift", class.max_shift), ("mu", class.mu)] {
            if let Some(value) = value.filter(|v| !v.is_finite() || v.abs() > 100.0) {
                return Err(format!("{name} must be a number from -100 to 100, not {value}"));
            }
        }
        if class.original_inference_steps.is_some_and(|n| n == 0 || n > self.num_train_timesteps) {
            return Err(format!(
                "original_inference_steps must be at least 1 and at most num_train_timesteps, {}",
                self.num_train_timesteps
            ));
        }
        if let (base, Some(most)) = (class.base_image_seq_len.unwrap_or(256), class.max_image_seq_len.or(Some(4096)))
            && base >= most
        {
            return Err(format!(
                "base_image_seq_len must be less than max_image_seq_len, but {base} is not less than {most}"
            ));
        }
        if let Some(end) = class.shift_terminal.filter(|s| !(*s > 0.0 && *s < 1.0)) {
            return Err(format!("shift_terminal must lie between 0 and 1, not {end}"));
        }
        let name = class.class_name.as_deref().unwrap_or_default();
        if class.time_shift_type == Some(TimeShift::Linear) && (name.starts_with("DPM") || name.starts_with("DEIS")) {
            return Err("time_shift_type of this class must be exponential".into());
        }
        let velocity = matches!(self.prediction_type, PredictionType::Flow | PredictionType::FlowToData);
        if !self.is_flow() {
            return if velocity {
                Err("prediction_type flow_prediction is of a rectified flow: set use_flow_sigmas to true as well"
                    .into())
            } else if class.shift_terminal.is_some() {
                Err("shift_terminal is of a rectified flow: set use_flow_sigmas to true as well".into())
            } else {
                Ok(())
            };
        }
        if matches!(self.prediction_type, PredictionType::V | PredictionType::Denoised) {
            return Err(
                "a rectified flow has no v_prediction and no denoised: give flow_prediction, epsilon or sample".into(),
            );
        }
        Ok(())
    }

    /// What is wrong with the values of SA-Solver and of score-based SDEs, if anything is.
    fn check_stochastic(&self) -> Result<(), String> {
        let class = &self.class;
        for (name, order) in [("predictor_order", class.predictor_order), ("corrector_order", class.corrector_order)] {
            if let Some(order) = order.filter(|o| !(1..=4).contains(o)) {
                return Err(format!("{name} must be 1, 2, 3 or 4, not {order}"));
            }
        }
        let is_sa_solver = class.class_name.as_deref() == Some("SASolverScheduler");
        let of_sa_solver = matches!(class.algorithm_type, Some(AlgorithmType::Data | AlgorithmType::Noise));
        if class.class_name.is_some() && class.algorithm_type.is_some() && is_sa_solver != of_sa_solver {
            let names = if is_sa_solver { "data_prediction or noise_prediction" } else { "that of a DPM-Solver" };
            return Err(format!("algorithm_type of this class must be {names}"));
        }
        let (beta_min, beta_max) = self.sde_betas().unwrap_or((0.1, 20.0));
        for (name, value) in [("snr", class.snr), ("beta_min", Some(beta_min)), ("beta_max", Some(beta_max))] {
            if let Some(value) = value.filter(|v| !(*v > 0.0 && v.is_finite())) {
                return Err(format!("{name} must be positive, not {value}"));
            }
        }
        if beta_min >= beta_max {
            return Err(format!("beta_min must be less than beta_max, but {beta_min} is not less than {beta_max}"));
        }
        if let Some(end) = class.sampling_eps.filter(|t| !(*t > 0.0 && *t < 1.0)) {
            return Err(format!("sampling_eps must lie between 0 and 1, not {end}"));
        }
        const MOST_CORRECTIONS: usize = 1000;
        if let Some(steps) = class.correct_steps.filter(|n| *n > MOST_CORRECTIONS) {
            return Err(format!("correct_steps must be at most {MOST_CORRECTIONS}, not {steps}"));
        }
        Ok(())
    }
}
