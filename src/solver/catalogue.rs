//! The solvers by name.

use super::adams::DeisVariable;
use super::adaptive::ADAPTIVE_SOLVERS;
use super::ancestral::Variance;
use super::dpm_solver::{DpmSolver, Form, Stepping};
use super::kinds::Solver;
use super::runge_kutta::Churn;
use super::sa_solver::SaSolver;
use super::stochastic::Langevin;
use super::unipc::UniPc;
use crate::{Error, Result, suggest};

/// What is known of a solver, for people to choose by.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SolverInfo {
    /// The name on the command line.
    pub name: &'static str,
    /// The solver, with its usual options.
    pub solver: Solver,
    /// The order of convergence on the probability-flow ODE; `None` for stochastic solvers.
    pub order: Option<usize>,
    /// Network evaluations a step.
    pub nfe_per_step: usize,
    /// Where it comes from.
    pub paper: &'static str,
}

const fn deterministic(name: &'static str, solver: Solver, order: usize, paper: &'static str) -> SolverInfo {
    SolverInfo { name, solver, order: Some(order), nfe_per_step: 1, paper }
}

const fn stochastic(name: &'static str, solver: Solver, paper: &'static str) -> SolverInfo {
    SolverInfo { name, solver, order: None, nfe_per_step: 1, paper }
}

const fn two_calls(info: SolverInfo) -> SolverInfo {
    SolverInfo { nfe_per_step: 2, ..info }
}

const fn dpm(form: Form, order: usize, stepping: Stepping) -> Solver {
    Solver::DpmSolver(DpmSolver::new(form, order, stepping))
}

const fn deis(order: usize, variable: DeisVariable) -> Solver {
    Solver::Deis { order, variable, lower_order_final: true }
}

const DDPM: &str = "arXiv 2006.11239";
const DDIM: &str = "arXiv 2010.02502";
const SDE: &str = "arXiv 2011.13456";
const PNDM: &str = "arXiv 2202.09778";
const DEIS: &str = "arXiv 2204.13902";
const EDM: &str = "arXiv 2206.00364";
const DPM: &str = "arXiv 2206.00927";
const DPM_PLUS: &str = "arXiv 2211.01095";
const UNIPC: &str = "arXiv 2302.04867";
const SA_SOLVER: &str = "arXiv 2309.05019";
const OLSS: &str = "arXiv 2305.14677";
const CONSISTENCY: &str = "arXiv 2303.01469";
const K_DIFFUSION: &str = "k-diffusion";

use Stepping::{Multistep, Singlestep};

/// Every fixed-step solver.
pub const SOLVERS: &[SolverInfo] = &[
    deterministic("ddim", Solver::Ddim { eta: 0.0 }, 1, DDIM),
    stochastic("ddpm", Solver::Ddpm(Variance::Small), DDPM),
    stochastic("ddpm-large", Solver::Ddpm(Variance::Large), DDPM),
    deterministic("euler", Solver::Euler, 1, EDM),
    deterministic("euler-ode", Solver::EulerOde, 1, SDE),
    stochastic("euler-maruyama", Solver::EulerMaruyama, SDE),
    two_calls(stochastic("pc", Solver::PredictorCorrector(Langevin { ratio: 0.16, corrections: 1 }), SDE)),
    stochastic("langevin", Solver::AnnealedLangevin(Langevin { ratio: 0.3, corrections: 1 }), "arXiv 1907.05600"),
    stochastic("euler-ancestral", Solver::EulerAncestral, K_DIFFUSION),
    two_calls(deterministic("heun", Solver::Heun(Churn::NONE), 2, EDM)),
    two_calls(deterministic("dpm2", Solver::Dpm2, 2, K_DIFFUSION)),
    SolverInfo { nfe_per_step: 4, ..deterministic("rk4", Solver::RungeKutta4, 4, "Kutta 1901") },
    deterministic("lms", Solver::Lms { order: 4 }, 4, K_DIFFUSION),
    deterministic("plms", Solver::Pndm { warm_up: false }, 2, PNDM),
    deterministic("pndm", Solver::Pndm { warm_up: true }, 2, PNDM),
    deterministic("deis-1", deis(2, DeisVariable::Time), 2, DEIS),
    deterministic("deis-2", deis(3, DeisVariable::Time), 3, DEIS),
    deterministic("deis-3", deis(4, DeisVariable::Time), 4, DEIS),
    deterministic("deis-log-rho", deis(3, DeisVariable::LogRho), 3, DEIS),
    deterministic("dpm-1", dpm(Form::Noise, 1, Multistep), 1, DPM),
    deterministic("dpm-2s", dpm(Form::Noise, 2, Singlestep), 2, DPM),
    deterministic("dpm-3s", dpm(Form::Noise, 3, Singlestep), 3, DPM),
    deterministic("dpm-2m", dpm(Form::Noise, 2, Multistep), 2, DPM_PLUS),
    deterministic("dpm-3m", dpm(Form::Noise, 3, Multistep), 3, DPM_PLUS),
    deterministic("dpm++2s", dpm(Form::Data, 2, Singlestep), 2, DPM_PLUS),
    deterministic("dpm++3s", dpm(Form::Data, 3, Singlestep), 3, DPM_PLUS),
    deterministic("dpm++2m", dpm(Form::Data, 2, Multistep), 2, DPM_PLUS),
    deterministic("dpm++3m", dpm(Form::Data, 3, Multistep), 3, DPM_PLUS),
    stochastic("dpm++1-sde", dpm(Form::DataSde, 1, Multistep), DPM_PLUS),
    stochastic("dpm++2m-sde", dpm(Form::DataSde, 2, Multistep), DPM_PLUS),
    stochastic("dpm++3m-sde", dpm(Form::DataSde, 3, Multistep), K_DIFFUSION),
    deterministic("unipc-1", Solver::UniPc(UniPc::new(1)), 2, UNIPC),
    deterministic("unipc-2", Solver::UniPc(UniPc::new(2)), 3, UNIPC),
    deterministic("unipc-3", Solver::UniPc(UniPc::new(3)), 4, UNIPC),
    stochastic("sa-solver", Solver::SaSolver(SaSolver::new(2)), SA_SOLVER),
    deterministic("fitted", Solver::Fitted, 3, OLSS),
    stochastic("consistency", Solver::Consistency { sigma_min: 0.0 }, CONSISTENCY),
];

impl Solver {
    /// The solver of this name, as [`SOLVERS`] and [`ADAPTIVE_SOLVERS`] list them, in any case of letters.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn from_name(name: &str) -> Result<Self> {
        let adaptive = ADAPTIVE_SOLVERS.iter().map(|s| (s.name, Solver::Adaptive(s.solver)));
        let mut all = SOLVERS.iter().map(|s| (s.name, s.solver)).chain(adaptive);
        all.clone().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, solver)| solver).ok_or_else(|| {
            let names: Vec<&str> = all.by_ref().map(|(name, _)| name).collect();
            let usage = format!("give one of {}", names.join(", "));
            Error::invalid(format!("unknown sampler '{name}': {}", suggest::advice(name, names, &usage)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_solver_is_documented_as_it_is() {
        let text = include_str!("../../docs/samplers.md");
        for s in SOLVERS {
            let order = s.order.map_or("–".into(), |o| o.to_string());
            let row = text.lines().find(|line| line.starts_with(&format!("| `{}` | {order} |", s.name)));
            let row = row.unwrap_or_else(|| panic!("{} of order {order} is not in docs/samplers.md", s.name));
            assert!(
                row.contains(&format!(" | {} | ", s.nfe_per_step)) && row.ends_with(&format!("{} |", s.paper)),
                "{row}"
            );
        }
        for s in ADAPTIVE_SOLVERS {
            assert!(text.contains(&format!("| `{}` |", s.name)), "{}", s.name);
        }
    }

    #[test]
    fn names_are_found_and_options_go_where_they_belong() {
        for s in SOLVERS {
            assert_eq!(Solver::from_name(s.name).unwrap(), s.solver);
        }
        let named = |name| Solver::from_name(name).unwrap();
        assert_eq!(named("ddim").with_eta(0.5).unwrap(), Solver::Ddim { eta: 0.5 });
        assert_eq!(named("lms").with_order(2).unwrap(), Solver::Lms { order: 2 });
        assert!(named("heun").with_churn(40.0).is_ok());
        assert!(named("rk45").with_tolerance(Some(1e-3), None).is_ok());
        for error in [
            named("heun").with_eta(0.5),
            named("ddim").with_churn(1.0),
            named("ddim").with_order(2),
            named("ddim").with_tolerance(Some(1.0), None),
            named("rk45").with_tolerance(Some(0.0), None),
            Solver::from_name("magic"),
        ] {
            assert!(error.is_err(), "{error:?}");
        }
    }
}
