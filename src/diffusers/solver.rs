//! Which solver each class is.

use super::class::{Class, class};
use crate::config::{AlgorithmType, ClassOptions, Integration, SchedulerConfig, SolverType};
use crate::schedule::VpSde;
use crate::solver::{
    BFunction, Churn, Curvature, DeisVariable, DpmSolver, Form, SaSolver, SecondOrder, Solver, Stepping, Tau, UniPc,
    Variance,
};
use crate::{Error, Result};

impl Solver {
    /// The solver of the class that the configuration names, or `None` if it names none.
    ///
    /// # Errors
    /// When the class is not known, or an option is one that is not supported.
    pub fn of_scheduler(config: &SchedulerConfig) -> Result<Option<Solver>> {
        let Some(class) = class(config)? else { return Ok(None) };
        let options = &config.class;
        Ok(Some(match class {
            Class::Ddim => Solver::Ddim { eta: 0.0 },
            Class::Ddpm => Solver::Ddpm(variance(options)?),
            Class::Pndm => Solver::Pndm { warm_up: !options.skip_prk_steps.unwrap_or(false) },
            Class::DpmMultistep | Class::EdmDpmMultistep => dpm_solver(options, Stepping::Multistep),
            Class::DpmSinglestep => dpm_solver(options, Stepping::Singlestep),
            Class::UniPc => unipc(options)?,
            Class::Deis => Solver::Deis {
                order: options.solver_order.unwrap_or(2),
                variable: DeisVariable::LogRho,
                lower_order_final: options.lower_order_final.unwrap_or(true),
            },
            Class::Euler | Class::EdmEuler => Solver::Euler,
            Class::FlowEuler if options.stochastic_sampling == Some(true) => Solver::Consistency { sigma_min: 0.0 },
            Class::FlowEuler => Solver::Euler,
            Class::FlowHeun => Solver::Heun(Churn::NONE),
            Class::FlowLcm => Solver::Consistency { sigma_min: 0.0 },
            Class::RectifiedFlow if options.integration_method == Some(Integration::Rk4) => Solver::RungeKutta4,
            Class::RectifiedFlow => Solver::Euler,
            Class::Lcm => Solver::LatentConsistency { scaling: options.timestep_scaling.unwrap_or(10.0) },
            Class::Tcd => Solver::TrajectoryConsistency { eta: 0.3 },
            Class::DdimInverse | Class::CogDdim => Solver::Ddim { eta: 0.0 },
            Class::DpmMultistepInverse => dpm_solver(options, Stepping::Multistep),
            Class::Ipndm => Solver::ImprovedPndm,
            Class::Dpm2Ancestral => Solver::Dpm2Ancestral,
            Class::CogDpm => Solver::DpmSolver(DpmSolver {
                lower_order_final: false,
                euler_at_final: true,
                discards_noise: true,
                ..DpmSolver::new(Form::DataSde, 2, Stepping::Multistep)
            }),
            Class::SaSolver => sa_solver(options),
            Class::ScoreSdeVe => Solver::ScoreSdeVe {
                ratio: options.snr.unwrap_or(0.15),
                corrections: options.correct_steps.unwrap_or(1),
            },
            Class::ScoreSdeVp => {
                let (beta_min, beta_max) = config.sde_betas().expect("it is this class");
                Solver::ScoreSdeVp(VpSde { beta_min, beta_max })
            }
            Class::EulerAncestral => Solver::EulerAncestral,
            Class::Heun => Solver::Heun(Churn::NONE),
            Class::Lms => Solver::Lms { order: 4 },
            Class::Dpm2 => Solver::Dpm2,
            Class::Consistency => Solver::Consistency { sigma_min: config.sigma_range().map_or(0.0, |(min, _)| min) },
        }))
    }
}

fn variance(options: &ClassOptions) -> Result<Variance> {
    match options.variance_type.as_deref() {
        None | Some("fixed_small" | "fixed_small_log") => Ok(Variance::Small),
        Some("fixed_large" | "fixed_large_log") => Ok(Variance::Large),
        Some("learned") => Ok(Variance::Learned),
        Some("learned_range") => Ok(Variance::LearnedRange),
        Some(other) => Err(Error::invalid(format!(
            "variance_type {other} is not known: give fixed_small, fixed_large, learned or learned_range"
        ))),
    }
}

fn dpm_solver(options: &ClassOptions, stepping: Stepping) -> Solver {
    Solver::DpmSolver(DpmSolver {
        form: match options.algorithm_type {
            Some(AlgorithmType::DpmSolver) => Form::Noise,
            Some(AlgorithmType::SdeDpmSolver) => Form::NoiseSde,
            Some(AlgorithmType::SdeDpmSolverPlusPlus) => Form::DataSde,
            // those of SA-Solver are refused when the configuration is read
            None
            | Some(
                AlgorithmType::DpmSolverPlusPlus | AlgorithmType::Deis | AlgorithmType::Data | AlgorithmType::Noise,
            ) => Form::Data,
        },
        order: options.solver_order.unwrap_or(2),
        stepping,
        second_order: match options.solver_type {
            Some(SolverType::Heun) => SecondOrder::Heun,
            _ => SecondOrder::Midpoint,
        },
        curvature: Curvature::Diffusers,
        lower_order_final: options.lower_order_final.unwrap_or(stepping == Stepping::Multistep),
        euler_at_final: options.euler_at_final.unwrap_or(false),
        discards_noise: false,
    })
}

/// SA-Solver, with noise where diffusers has it unless a program gives it another function of the time.
fn sa_solver(options: &ClassOptions) -> Solver {
    Solver::SaSolver(SaSolver {
        predictor: options.predictor_order.unwrap_or(2),
        corrector: options.corrector_order.unwrap_or(2),
        predict_x0: options.algorithm_type != Some(AlgorithmType::Noise),
        tau: Tau::Between(200.0, 800.0),
        lower_order_final: options.lower_order_final.unwrap_or(true),
    })
}

fn unipc(options: &ClassOptions) -> Result<Solver> {
    let disabled = options.disable_corrector.as_deref().unwrap_or_default();
    let uncorrected = disabled.len();
    if !(0..uncorrected).all(|step| disabled.contains(&step)) {
        return Err(Error::invalid(format!(
            "disable_corrector must name the first steps, such as [0, 1], not {disabled:?}"
        )));
    }
    Ok(Solver::UniPc(UniPc {
        order: options.solver_order.unwrap_or(2),
        b: if options.solver_type == Some(SolverType::Bh1) { BFunction::Bh1 } else { BFunction::Bh2 },
        predict_x0: options.predict_x0.unwrap_or(true),
        lower_order_final: options.lower_order_final.unwrap_or(true),
        uncorrected,
    }))
}
