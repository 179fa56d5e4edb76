//! Fixed-step solvers, compiled to a table.
//!
//! With the schedule known, every fixed-step solver is a sequence of stages: evaluate the network on
//! some register at some level, split its prediction into an estimate of the clean sample x_0 and of the
//! noise ε, then form linear combinations of registers, whose coefficients depend on the schedule alone.
//! [`Solver::compile`] computes them all once, in f64. [`Sampler`](crate::sampler::Sampler) runs any of
//! them in fixed buffers.
//!
//! In the solvers' formulas γ and σ are a level's scales of signal and noise, primes mark the level that
//! a step leads to, `λ = ln(γ/σ)`, `s = σ/γ` and `y = x/γ`. In y and s the probability-flow ODE is
//! `dy/ds = ε` (arXiv 2206.00364, eq. 1 and 3).

mod adams;
mod adaptive;
mod ancestral;
mod catalogue;
mod consistency;
mod ddim;
mod dpm_solver;
mod fitted;
mod lagrange;
mod resample;
mod runge_kutta;
mod stochastic;
mod unipc;

pub use adaptive::{ADAPTIVE_SOLVERS, Adaptive, AdaptiveInfo, Method};
pub use ancestral::Variance;
pub use catalogue::{SOLVERS, SolverInfo};
pub use dpm_solver::{Curvature, DpmSolver, Form, SecondOrder, Stepping};
pub use resample::Resample;
pub use runge_kutta::Churn;
pub use stochastic::Langevin;
pub use unipc::{BFunction, UniPc};

use crate::config::PredictionType;
use crate::schedule::{Grid, Level, Marginal};
use crate::{Error, Result};

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
    /// Where the estimate of the clean sample goes, after thresholding.
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
    pub(crate) prediction: Prediction,
    /// Whether ε follows the thresholding of x_0, or stays what the network says.
    pub(crate) eps_follows_x0: bool,
    /// What x_T, standard normal, is multiplied by.
    pub(crate) start: f32,
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

    /// The level at which a run begins.
    pub fn first_level(&self) -> Level {
        self.stages[0].level
    }

    /// The times at which the network is evaluated.
    pub fn times(&self) -> impl Iterator<Item = f64> + '_ {
        self.stages.iter().map(|s| s.level.time)
    }
}

/// What is done to the estimate of the clean sample after each evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Threshold {
    /// Nothing.
    #[default]
    None,
    /// It is clipped to ± this bound, which is positive.
    Static(f64),
    /// Dynamic thresholding (arXiv 2205.11487, section 2.3): with s the given quantile of |x_0|, but from
    /// 1 to `max`, x_0 is clipped to ±s and divided by s.
    Dynamic {
        /// Which quantile, in (0, 1].
        ratio: f64,
        /// The most that s may be, at least 1.
        max: f64,
    },
}

/// What a solver makes of the network's prediction before it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// What the network predicts.
    pub kind: PredictionType,
    /// What is done to the estimate of x_0.
    pub threshold: Threshold,
}

impl Prediction {
    fn check(&self, grid: &Grid) -> Result<()> {
        let needs_signal = matches!(self.kind, PredictionType::Epsilon | PredictionType::Denoised);
        if needs_signal && grid.steps[0].from.gamma == 0.0 {
            return Err(Error::invalid(
                "a network that predicts the noise, or takes x/γ, cannot start from zero SNR: use a v-prediction network, or a spacing that leaves the last step out",
            ));
        }
        match self.threshold {
            Threshold::Static(bound) if !(bound > 0.0 && bound.is_finite()) => {
                Err(Error::invalid(format!("the bound that x_0 is clipped to must be positive, not {bound}")))
            }
            Threshold::Dynamic { ratio, .. } if !(ratio > 0.0 && ratio <= 1.0) => Err(Error::invalid(format!(
                "the ratio of dynamic thresholding must be above 0 and at most 1, not {ratio}"
            ))),
            Threshold::Dynamic { max, .. } if !(max >= 1.0 && max.is_finite()) => {
                Err(Error::invalid(format!("the greatest threshold must be at least 1, not {max}")))
            }
            _ => Ok(()),
        }
    }
}

/// A solver of the reverse process. [`SOLVERS`] lists them under their names.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Solver {
    /// DDIM (arXiv 2010.02502, eq. 12): deterministic at η = 0, DDPM-like at η = 1.
    Ddim {
        /// How much of the posterior's noise is drawn, from 0 to 1.
        eta: f64,
    },
    /// Ancestral sampling (arXiv 2006.11239, algorithm 2).
    Ddpm(Variance),
    /// Ancestral sampling as an Euler step in s to less noise than is wanted, and noise added to make up for it (k-diffusion).
    EulerAncestral,
    /// Euler–Maruyama on the reverse SDE `dx = -½ β [x + 2 s_θ] dt + √β dW` (arXiv 2011.13456, eq. 6), time measured in ln γ.
    EulerMaruyama,
    /// Predictor–corrector sampling (arXiv 2011.13456, algorithm 3): Euler–Maruyama with Langevin corrections.
    PredictorCorrector(Langevin),
    /// Annealed Langevin dynamics (arXiv 1907.05600, algorithm 1).
    AnnealedLangevin(Langevin),
    /// Euler's method on the probability-flow ODE in s (arXiv 2206.00364, with no correction).
    Euler,
    /// Euler's method on `dx = -½ β [x + s_θ] dt` (arXiv 2011.13456, eq. 13), time measured in ln γ.
    EulerOde,
    /// Heun's second-order method in s (arXiv 2206.00364, algorithm 2): two evaluations a step, one in the last.
    Heun(Churn),
    /// The midpoint method in s, with the middle at the geometric mean (DPM2 of k-diffusion): two evaluations a step, one in the last.
    Dpm2,
    /// Linear multistep in s (k-diffusion): Adams–Bashforth on uneven steps.
    Lms {
        /// From 1 to 4.
        order: usize,
    },
    /// Pseudo linear multistep (arXiv 2202.09778): Adams–Bashforth's even-step weights on ε, carried over by DDIM's step.
    Pndm {
        /// Whether the first three steps are pseudo Runge–Kutta steps of four evaluations (F-PNDM), or lower-order multistep ones.
        warm_up: bool,
    },
    /// DEIS (arXiv 2204.13902): ε extrapolated by a polynomial and integrated exactly.
    Deis {
        /// How many values of ε the polynomial goes through, from 1 to 4.
        order: usize,
        /// What it is a polynomial in.
        variable: DeisVariable,
        /// Whether the last two steps of fewer than 15 are of order 2 and 1.
        lower_order_final: bool,
    },
    /// DPM-Solver, DPM-Solver++ and their SDE forms.
    DpmSolver(DpmSolver),
    /// UniPC (arXiv 2302.04867).
    UniPc(UniPc),
    /// The steps that were fitted to the model (arXiv 2305.14677; see [`Grid::of_fitted`]), or on a grid without any
    /// UniPC of order 2.
    Fitted,
    /// Consistency sampling (arXiv 2303.01469, algorithm 1): to x_0, and back to the next level by fresh noise.
    Consistency {
        /// The level in σ/γ at which the network's estimates are, the least that it was trained on; 0 for clean ones.
        sigma_min: f64,
    },
    /// A solver that chooses its own steps.
    Adaptive(Adaptive),
}

/// The variable of DEIS's extrapolating polynomial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeisVariable {
    /// The network's time: tAB-DEIS, the paper's choice.
    Time,
    /// ln s: what diffusers does.
    LogRho,
}

impl Solver {
    /// The solver of this name, as [`SOLVERS`] and [`ADAPTIVE_SOLVERS`] list them.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn from_name(name: &str) -> Result<Self> {
        let adaptive = ADAPTIVE_SOLVERS.iter().map(|s| (s.name, Solver::Adaptive(s.solver)));
        let mut all = SOLVERS.iter().map(|s| (s.name, s.solver)).chain(adaptive);
        all.clone().find(|(known, _)| *known == name).map(|(_, solver)| solver).ok_or_else(|| {
            let names = all.by_ref().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
            Error::invalid(format!("unknown sampler '{name}': give one of {names}"))
        })
    }

    /// The same solver with another η.
    ///
    /// # Errors
    /// When it has none.
    pub fn with_eta(self, eta: f64) -> Result<Self> {
        match self {
            Solver::Ddim { .. } => Ok(Solver::Ddim { eta }),
            _ => Err(Error::invalid("eta is for the sampler ddim alone")),
        }
    }

    /// The same solver with so much churn.
    ///
    /// # Errors
    /// When it has none.
    pub fn with_churn(self, churn: f64) -> Result<Self> {
        match self {
            Solver::Heun(options) => Ok(Solver::Heun(Churn { churn, ..options })),
            _ => Err(Error::invalid("churn is for the sampler heun alone")),
        }
    }

    /// The same solver at another order.
    ///
    /// # Errors
    /// When its order is fixed.
    pub fn with_order(self, order: usize) -> Result<Self> {
        match self {
            Solver::Lms { .. } => Ok(Solver::Lms { order }),
            Solver::Deis { variable, lower_order_final, .. } => Ok(Solver::Deis { order, variable, lower_order_final }),
            Solver::DpmSolver(options) => Ok(Solver::DpmSolver(DpmSolver { order, ..options })),
            Solver::UniPc(options) => Ok(Solver::UniPc(UniPc { order, ..options })),
            _ => Err(Error::invalid("this sampler's order is fixed: order is for lms, deis, dpm-solver and unipc")),
        }
    }

    /// The same solver with these tolerances, where given.
    ///
    /// # Errors
    /// When it chooses no steps of its own, or a tolerance is not positive.
    pub fn with_tolerance(self, rtol: Option<f64>, atol: Option<f64>) -> Result<Self> {
        let Solver::Adaptive(options) = self else {
            return Err(Error::invalid(
                "tolerances are for samplers that choose their own steps: rk45, dpm-12, dpm-23, sde",
            ));
        };
        let options = Adaptive { rtol: rtol.unwrap_or(options.rtol), atol: atol.unwrap_or(options.atol), ..options };
        options.check()?;
        Ok(Solver::Adaptive(options))
    }

    /// Computes every coefficient for a run through the steps of `grid`. Solvers that evaluate the network
    /// inside a step ask `marginal` for the level there.
    ///
    /// # Errors
    /// When an option is out of range, or the solver cannot start from zero SNR.
    pub fn compile(&self, grid: &Grid, marginal: &dyn Marginal, prediction: Prediction) -> Result<Program> {
        prediction.check(grid)?;
        let mut table = Table::default();
        match *self {
            Solver::Ddim { eta } => ddim::ddim(&mut table, grid, eta)?,
            Solver::Ddpm(variance) => ancestral::ddpm(&mut table, grid, variance),
            Solver::EulerAncestral => ancestral::euler_ancestral(&mut table, grid),
            Solver::EulerMaruyama => stochastic::euler_maruyama(&mut table, grid),
            Solver::PredictorCorrector(langevin) => stochastic::predictor_corrector(&mut table, grid, langevin)?,
            Solver::AnnealedLangevin(langevin) => stochastic::annealed_langevin(&mut table, grid, langevin)?,
            Solver::Euler => runge_kutta::euler(&mut table, grid),
            Solver::EulerOde => runge_kutta::euler_ode(&mut table, grid),
            Solver::Heun(churn) => runge_kutta::heun(&mut table, grid, marginal, churn)?,
            Solver::Dpm2 => runge_kutta::dpm2(&mut table, grid, marginal),
            Solver::Lms { order } => adams::lms(&mut table, grid, order)?,
            Solver::Pndm { warm_up } => adams::pndm(&mut table, grid, marginal, warm_up),
            Solver::Deis { order, variable, lower_order_final } => {
                adams::deis(&mut table, grid, marginal, order, variable, lower_order_final)?;
            }
            Solver::DpmSolver(options) => dpm_solver::dpm_solver(&mut table, grid, options)?,
            Solver::UniPc(options) => unipc::unipc(&mut table, grid, options)?,
            Solver::Fitted => fitted::fitted(&mut table, grid)?,
            Solver::Consistency { sigma_min } => consistency::consistency(&mut table, grid, sigma_min),
            Solver::Adaptive(_) => {
                return Err(Error::invalid("a sampler that chooses its own steps has no table: run it by itself"));
            }
        }
        table.finish(grid, prediction)
    }
}

/// How many of the latest evaluations a multistep method of this order can use in each step: those that
/// there are, leaving out one where there was no signal, and, if asked to, two and one in the last steps
/// of a run of fewer than 15, as diffusers does.
fn multistep_orders(grid: &Grid, order: usize, lower_order_final: bool) -> impl Iterator<Item = usize> + '_ {
    let n = grid.steps.len();
    let without_signal = grid.steps.iter().take_while(|s| s.from.gamma == 0.0).count();
    (0..n).map(move |i| {
        let there_are = (i + 1).saturating_sub(without_signal).max(1);
        let remaining = if lower_order_final && n < 15 { n - i } else { order };
        order.min(there_are).min(remaining)
    })
}

/// The registers of the latest `order` evaluations, the newest first, after evaluation `i` of a run whose
/// evaluations go round `order` registers from `first` on.
fn ring(first: Register, order: usize, i: usize) -> impl Iterator<Item = Register> {
    (0..order).map(move |back| first + (i + order - back) % order)
}

fn check_order(name: &str, order: usize, highest: usize) -> Result<()> {
    if (1..=highest).contains(&order) {
        return Ok(());
    }
    Err(Error::invalid(format!("the order of {name} must be from 1 to {highest}, not {order}")))
}

/// A table being filled.
struct Table {
    stages: Vec<Stage>,
    registers: usize,
    eps_follows_x0: bool,
}

impl Default for Table {
    fn default() -> Self {
        Table { stages: Vec::new(), registers: 1, eps_follows_x0: true }
    }
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

    fn finish(self, grid: &Grid, prediction: Prediction) -> Result<Program> {
        let mut updates = self.stages.iter().flat_map(|s| &s.updates);
        let rises = grid.steps.iter().any(|s| s.to.sigma > s.from.sigma);
        if rises && updates.clone().any(|u| u.noise != 0.0) {
            return Err(Error::invalid("a sampler that adds noise cannot go back from a sample to noise"));
        }
        if !updates.all(|u| u.noise.is_finite() && u.terms.iter().all(|t| t.coefficient.is_finite())) {
            return Err(Error::invalid(if grid.steps[0].from.gamma == 0.0 {
                "this sampler cannot start from zero SNR: use ddim, or a spacing that leaves the last step out"
            } else {
                "the run's steps are too close together for this sampler: use fewer steps"
            }));
        }
        Ok(Program {
            stages: self.stages,
            registers: self.registers,
            prediction,
            eps_follows_x0: self.eps_follows_x0,
            start: grid.start as f32,
        })
    }
}
