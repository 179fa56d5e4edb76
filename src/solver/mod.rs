//! Fixed-step solvers, compiled to a table.
//!
//! With the schedule known, every fixed-step solver is a sequence of stages: evaluate the network on
//! some register at some level, split its prediction into an estimate of the clean sample x_0 and of the
//! noise ε, then form linear combinations of registers, whose coefficients depend on the schedule alone.
//! [`Solver::compile`] computes them all once, in f64. [`Sampler`](crate::sampler::Sampler) runs any of
//! them in fixed buffers.

mod ancestral;
mod ddim;
mod exponential;
mod runge_kutta;

use crate::config::PredictionType;
use crate::schedule::Level;
use crate::{Error, Result};
use std::cmp::Ordering;

/// Register 0 is the sample itself; the others are scratch.
pub(crate) type Register = usize;
pub(crate) const SAMPLE: Register = 0;

/// A term `coefficient · register` of a linear combination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Term {
    pub register: Register,
    pub coefficient: f32,
}

/// `dest ← Σ terms + noise · z` with z a fresh standard normal number for each element.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub dest: Register,
    pub terms: Vec<Term>,
    pub noise: f32,
}

/// One network evaluation and what is made of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stage {
    /// Where the network is evaluated.
    pub level: Level,
    /// On what.
    pub input: Register,
    /// Where the estimate of the clean sample goes, clipped if the program clips.
    pub x0: Register,
    /// Where the estimate of the noise goes, if anything reads it.
    pub eps: Option<Register>,
    /// What is then formed, in this order.
    pub updates: Vec<Update>,
    /// Whether this is the last stage of a solver's step.
    pub ends_step: bool,
}

/// A solver compiled for a schedule: the table that [`Sampler`](crate::sampler::Sampler) runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub(crate) stages: Vec<Stage>,
    pub(crate) registers: usize,
    pub(crate) prediction: PredictionType,
    pub(crate) clip: Option<f32>,
}

impl Program {
    /// The number of network evaluations.
    pub fn nfe(&self) -> usize {
        self.stages.len()
    }

    /// The number of solver steps.
    pub fn steps(&self) -> usize {
        self.stages.iter().filter(|s| s.ends_step).count()
    }

    /// Whether the program draws noise of its own, beyond x_T.
    pub fn is_stochastic(&self) -> bool {
        self.stages.iter().flat_map(|s| &s.updates).any(|u| u.noise != 0.0)
    }

    /// The times at which the network is evaluated.
    pub fn times(&self) -> impl Iterator<Item = f64> + '_ {
        self.stages.iter().map(|s| s.level.time)
    }
}

/// What a solver makes of the network's prediction before it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// What the network predicts.
    pub kind: PredictionType,
    /// The bound that the estimate of x_0 is clipped to, if it is.
    pub clip: Option<f64>,
}

/// A solver of the reverse process.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Solver {
    /// DDIM (arXiv 2010.02502, eq. 12): deterministic at η = 0, DDPM-like at η = 1.
    Ddim {
        /// How much of the posterior's noise is drawn, from 0 to 1.
        eta: f64,
    },
    /// Ancestral sampling (arXiv 2006.11239, algorithm 2) with the posterior's own, smaller variance.
    Ddpm,
    /// Ancestral sampling with the larger variance, β.
    DdpmLarge,
    /// Euler's method on the probability-flow ODE in σ/γ (arXiv 2206.00364, with no correction).
    Euler,
    /// Euler's method on `dx = -½ β [x + s] dt` (arXiv 2011.13456, eq. 13), time measured in ln γ.
    EulerOde,
    /// Heun's second-order method in σ/γ (arXiv 2206.00364, algorithm 1): two evaluations a step, one in the last.
    Heun,
    /// DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): second order at one evaluation a step.
    DpmSolverPp2M,
}

/// What is known of a solver, for people to choose by.
#[derive(Clone, Copy, Debug, PartialEq)]
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

/// Every solver.
pub const SOLVERS: &[SolverInfo] = &[
    SolverInfo {
        name: "ddim",
        solver: Solver::Ddim { eta: 0.0 },
        order: Some(1),
        nfe_per_step: 1,
        paper: "arXiv 2010.02502",
    },
    SolverInfo { name: "ddpm", solver: Solver::Ddpm, order: None, nfe_per_step: 1, paper: "arXiv 2006.11239" },
    SolverInfo {
        name: "ddpm-large",
        solver: Solver::DdpmLarge,
        order: None,
        nfe_per_step: 1,
        paper: "arXiv 2006.11239",
    },
    SolverInfo { name: "euler", solver: Solver::Euler, order: Some(1), nfe_per_step: 1, paper: "arXiv 2206.00364" },
    SolverInfo {
        name: "euler-ode",
        solver: Solver::EulerOde,
        order: Some(1),
        nfe_per_step: 1,
        paper: "arXiv 2011.13456",
    },
    SolverInfo { name: "heun", solver: Solver::Heun, order: Some(2), nfe_per_step: 2, paper: "arXiv 2206.00364" },
    SolverInfo {
        name: "dpm++2m",
        solver: Solver::DpmSolverPp2M,
        order: Some(2),
        nfe_per_step: 1,
        paper: "arXiv 2211.01095",
    },
];

impl Solver {
    /// The solver of this name, as [`SOLVERS`] lists them.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn from_name(name: &str) -> Result<Self> {
        SOLVERS.iter().find(|s| s.name == name).map(|s| s.solver).ok_or_else(|| {
            let names: Vec<&str> = SOLVERS.iter().map(|s| s.name).collect();
            Error::invalid(format!("unknown sampler '{name}': give one of {}", names.join(", ")))
        })
    }

    /// Computes every coefficient for a run through `levels`: at each but the last the network is
    /// evaluated, and at the last the run ends (see [`Schedule::levels`](crate::schedule::Schedule::levels)).
    ///
    /// # Errors
    /// When there are fewer than two levels, the noise does not fall from each to the next, an option is
    /// out of range, or a network that predicts ε is to start from pure noise.
    pub fn compile(&self, levels: &[Level], prediction: Prediction) -> Result<Program> {
        if levels.len() < 2 {
            return Err(Error::invalid("a run needs a level to begin at and one to end at"));
        }
        for pair in levels.windows(2) {
            if pair[1].log_snr().partial_cmp(&pair[0].log_snr()) != Some(Ordering::Greater) {
                return Err(Error::invalid(format!(
                    "the noise must fall from step to step, but does not from time {} to {}: use fewer steps or another spacing",
                    pair[0].time, pair[1].time
                )));
            }
        }
        if prediction.kind == PredictionType::Epsilon && levels[0].gamma == 0.0 {
            return Err(Error::invalid(
                "a network that predicts the noise cannot start from zero SNR: use a v-prediction network, or a spacing that leaves the last step out",
            ));
        }
        let mut table = Table::default();
        match *self {
            Solver::Ddim { eta } => ddim::ddim(&mut table, levels, eta)?,
            Solver::Ddpm => ancestral::ddpm(&mut table, levels, ancestral::Variance::Small),
            Solver::DdpmLarge => ancestral::ddpm(&mut table, levels, ancestral::Variance::Large),
            Solver::Euler => runge_kutta::euler(&mut table, levels),
            Solver::EulerOde => runge_kutta::euler_ode(&mut table, levels),
            Solver::Heun => runge_kutta::heun(&mut table, levels),
            Solver::DpmSolverPp2M => exponential::dpm_solver_pp_2m(&mut table, levels),
        }
        Ok(Program {
            stages: table.stages,
            registers: table.registers,
            prediction: prediction.kind,
            clip: prediction.clip.map(|c| c as f32),
        })
    }
}

/// A table being filled.
#[derive(Default)]
struct Table {
    stages: Vec<Stage>,
    registers: usize,
}

impl Table {
    /// Adds the evaluation of `input` at `level`, and its estimates into `x0` and, if wanted, `eps`.
    fn evaluate(&mut self, input: Register, level: Level, x0: Register, eps: Option<Register>) {
        self.registers = self.registers.max(input.max(x0).max(eps.unwrap_or(0)) + 1);
        self.stages.push(Stage { level, input, x0, eps, updates: Vec::new(), ends_step: false });
    }

    /// Adds `dest ← Σ coefficient · register + noise · z` after the last evaluation.
    fn update(&mut self, dest: Register, terms: &[(Register, f64)], noise: f64) {
        self.registers = self.registers.max(dest + 1);
        let terms = terms
            .iter()
            .filter(|(_, c)| *c != 0.0)
            .map(|&(register, c)| Term { register, coefficient: c as f32 })
            .collect();
        let stage = self.stages.last_mut().expect("an update follows an evaluation");
        stage.updates.push(Update { dest, terms, noise: noise as f32 });
    }

    /// Marks the last evaluation as the end of a step.
    fn end_step(&mut self) {
        self.stages.last_mut().expect("a step has an evaluation").ends_step = true;
    }
}
