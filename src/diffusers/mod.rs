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
                r#""predictor_order": 4, "corrector_order": 3, "correct_steps": 2"#,
                r#""algorithm_type": "dpmsolver", "solver_order": 3"#,
                r#""steps_offset": 7, "timestep_spacing": "leading""#,
                r#""timestep_spacing": "trailing", "lambda_min_clipped": -1.0"#,
                r#""lambda_min_clipped": 9.0"#,
                r#""disable_corrector": [3]"#,
            ] {
                for (t, schedule) in [(1, "linear"), (2, "linear"), (10, "squaredcos_cap_v2"), (1000, "scaled_linear")]
                {
                    let comma = if options.is_empty() { "" } else { "," };
                    // which has algorithms of its own
                    let options = match *name {
                        "SASolverScheduler" => options.replace("dpmsolver", "noise_prediction"),
                        _ => options.to_string(),
                    };
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

    fn at_times(text: &str, times: &[f64]) -> crate::Result<Vec<f64>> {
        let config = SchedulerConfig::from_json(text).unwrap();
        let grid = Grid::of_times(&config, &Schedule::from_config(&config)?, times)?;
        Ok(grid.levels().map(|level| level.edm_sigma()).collect())
    }

    /// A network that takes σ counts in σ, and the consistency class in training steps, from the least noise on.
    #[test]
    fn times_of_networks_that_take_sigma_are_sigmas() {
        let near = |found: Vec<f64>, expected: &[f64]| {
            assert!(found.len() == expected.len(), "{found:?}");
            found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-9, "{found:?} {expected:?}"));
        };
        let edm = r#"{"_class_name": "EDMEulerScheduler"}"#;
        near(at_times(edm, &[80.0, 10.0, 0.5]).unwrap(), &[80.0, 10.0, 0.5, 0.0]);
        near(at_times(r#"{"prediction_type": "denoised"}"#, &[3.0]).unwrap(), &[3.0, 0.0]);
        for times in [&[0.0][..], &[1.0, 2.0], &[2.0, 2.0], &[f64::NAN], &[]] {
            let error = at_times(edm, times).unwrap_err().to_string();
            assert!(error.contains("the times of a network that takes sigma are sigmas that fall"), "{error}");
        }
        // diffusers' example of two steps
        let consistency = r#"{"_class_name": "CMStochasticIterativeScheduler"}"#;
        let place = |u: f64| (80f64.powf(1.0 / 7.0) + u * (0.002f64.powf(1.0 / 7.0) - 80f64.powf(1.0 / 7.0))).powi(7);
        near(at_times(consistency, &[22.0, 0.0]).unwrap(), &[80.0, place(22.0 / 39.0), 0.0]);
        for times in [&[0.0, 22.0][..], &[40.0, 0.0], &[1.5], &[-1.0], &[]] {
            let error = at_times(consistency, times).unwrap_err().to_string();
            assert!(error.contains("training steps that fall, whole numbers from 39 to 0"), "{error}");
        }
    }

    /// Where noise is left of the classes whose samples are y = x/γ, the sample is that y; on the way back it is x again.
    #[test]
    fn runs_that_end_with_noise_end_in_the_classes_own_scale() {
        let text = r#"{"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "sigma_min", "timestep_spacing": "leading"}"#;
        let config = SchedulerConfig::from_json(text).unwrap();
        let schedule = Schedule::from_config(&config).unwrap();
        let grid = Grid::of_scheduler(&config, &schedule, 5).unwrap();
        let last = grid.levels().last().unwrap();
        assert!(last.gamma == 1.0 && (last.sigma / schedule.level(0.0).edm_sigma() - 1.0).abs() < 1e-3, "{last:?}");
        let back = grid.reversed().unwrap().levels().next().unwrap();
        assert!((back.edm_sigma() / last.sigma - 1.0).abs() < 1e-12);
        assert!((back.gamma.powi(2) + back.sigma.powi(2) - 1.0).abs() < 1e-12, "{back:?}");
        // a last time that is where the run ends needs no step
        let with = at_times(text, &[960.0, 610.0, 240.0, 0.0]).unwrap();
        assert_eq!(with, at_times(text, &[960.0, 610.0, 240.0]).unwrap());
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
