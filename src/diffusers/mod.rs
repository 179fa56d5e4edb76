//! What the classes of diffusers' schedulers do: which solver each is, and where it puts its steps.
//!
//! A `scheduler_config.json` names a class (`_class_name`), and each class places its levels in a way of
//! its own: rounded or not, ending clean or not, with σ interpolated or taken as it is. [`Solver::of_scheduler`](crate::solver::Solver::of_scheduler) and
//! [`Grid::of_scheduler`](crate::schedule::Grid::of_scheduler) follow diffusers 0.42 to the letter, so that the same noise and network give the same
//! sample.

mod class;
mod flow;
mod grid;
mod other;
mod score;
mod sigmas;
mod solver;

#[cfg(test)]
mod tests {
    use super::class::CLASSES;
    use super::sigmas::beta_quantile;
    use crate::config::{BetaSchedule, PredictionType, SchedulerConfig, Threshold};
    use crate::schedule::{Grid, Schedule};
    use crate::solver::{Prediction, Solver};

    /// Every class, at every number of steps that a schedule has, or has not.
    #[test]
    fn no_configuration_is_a_panic() {
        let (mut runs, mut refused) = (0, 0);
        for (name, _) in CLASSES {
            for options in [
                "",
                r#""use_karras_sigmas": true"#,
                r#""use_exponential_sigmas": true, "final_sigmas_type": "sigma_min""#,
                r#""use_beta_sigmas": true"#,
                r#""solver_order": 3, "rescale_betas_zero_snr": true"#,
                r#""algorithm_type": "dpmsolver", "solver_order": 3"#,
                r#""steps_offset": 7, "timestep_spacing": "leading""#,
                r#""timestep_spacing": "trailing", "lambda_min_clipped": -1.0"#,
                r#""lambda_min_clipped": 9.0"#,
                r#""disable_corrector": [3]"#,
            ] {
                for (t, schedule) in [(1, "linear"), (2, "linear"), (10, "squaredcos_cap_v2"), (1000, "scaled_linear")]
                {
                    let comma = if options.is_empty() { "" } else { "," };
                    let text = format!(
                        r#"{{"_class_name": "{name}", "num_train_timesteps": {t}, "beta_schedule": "{schedule}" {comma} {options}}}"#
                    );
                    let config = SchedulerConfig::from_json(&text).unwrap();
                    for steps in [0, 1, 2, 3, 7, t / 2, t, t + 1] {
                        let program = || {
                            let schedule = Schedule::from_config(&config)?;
                            let grid = Grid::of_scheduler(&config, &schedule, steps)?;
                            let prediction = Prediction { kind: PredictionType::V, threshold: Threshold::None };
                            Solver::of_scheduler(&config)?
                                .expect("a class is named")
                                .compile(&grid, &schedule, prediction)
                        };
                        match program() {
                            Ok(program) => {
                                runs += 1;
                                assert!(program.nfe() >= program.steps() && program.steps() > 0, "{text}");
                                assert!(program.times().all(|t| t.is_finite()), "{text}, {steps} steps");
                            }
                            Err(_) => refused += 1,
                        }
                    }
                }
            }
        }
        assert!(runs > 1500 && refused > 500, "{runs} ran, {refused} were refused");
    }

    /// By scipy.stats.beta.ppf(p, 0.6, 0.6), version 1.17.
    #[test]
    fn beta_quantiles_are_those_of_scipy() {
        for (probability, expected) in [
            (0.0, 0.0),
            (0.001, 1.855873851745199e-05),
            (0.125, 0.05715636362241408),
            (0.5, 0.5),
            (0.8, 0.8770782495416671),
            (0.99, 0.9991387611784571),
            (1.0, 1.0),
        ] {
            let found = beta_quantile(probability);
            assert!((found - expected).abs() < 1e-13, "{probability}: {found} is not {expected}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
        for (text, part) in [
            ("{}", "names no class"),
            (r#"{"_class_name": "DDIMScheduler", "timestep_spacing": "karras"}"#, "timestep_spacing must be leading"),
            (r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": 99}"#, "leaves no training step"),
        ] {
            let config = SchedulerConfig::from_json(text).unwrap();
            assert!(Grid::of_scheduler(&config, &schedule, 5).unwrap_err().to_string().contains(part), "{text}");
        }
        let other = r#"{"_class_name": "DDPMScheduler", "variance_type": "guessed"}"#;
        let other = SchedulerConfig::from_json(other).unwrap();
        let error = Solver::of_scheduler(&other).unwrap_err().to_string();
        assert!(error.contains("variance_type guessed is not known"), "{error}");
        let cosine = SchedulerConfig { beta_schedule: BetaSchedule::SquaredCosine, ..SchedulerConfig::default() };
        assert_eq!(Solver::of_scheduler(&cosine).unwrap(), None);
    }
}
