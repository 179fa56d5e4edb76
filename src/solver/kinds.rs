//! Every solver, with its options, and how each is compiled.

use super::adams::{self, DeisVariable};
use super::adaptive::Adaptive;
use super::ancestral::{self, Variance};
use super::dpm_solver::{self, DpmSolver};
use super::runge_kutta::{self, Churn};
use super::sa_solver::{self, SaSolver, Tau};
use super::stochastic::{self, Langevin};
use super::table::{Prediction, Program, Table};
use super::unipc::{self, UniPc};
use super::{consistency, ddim, distilled, fitted, score_sde};
use crate::schedule::{Grid, Marginal, VpSde};
use crate::{Error, Result};

/// A solver of the reverse process. [`SOLVERS`](super::SOLVERS) lists them under their names.
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
    /// The classical Runge–Kutta method: four evaluations a step, one in a last step that ends clean.
    RungeKutta4,
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
    /// Consistency sampling with the boundary condition of latent consistency models (arXiv 2310.04378).
    LatentConsistency {
        /// What times are multiplied by in the boundary condition.
        scaling: f64,
    },
    /// Sampling for trajectory consistency distillation (arXiv 2402.19159).
    TrajectoryConsistency {
        /// How much of each step is given back to fresh noise, from 0 to 1.
        eta: f64,
    },
    /// Improved pseudo linear multistep: Adams–Bashforth's even-step weights of order 1 to 4, as the steps before allow.
    ImprovedPndm,
    /// The midpoint method in s to less noise than is wanted, and noise added to make up for it (k-diffusion).
    Dpm2Ancestral,
    /// SA-Solver (arXiv 2309.05019).
    SaSolver(SaSolver),
    /// Predictor–corrector sampling where variance explodes (arXiv 2011.13456, algorithms 2 and 4) as diffusers has it: of its
    /// class's steps alone.
    ScoreSdeVe {
        /// The signal-to-noise ratio of a Langevin step.
        ratio: f64,
        /// How many at each level.
        corrections: usize,
    },
    /// Euler and Maruyama's method on the reverse of this SDE (arXiv 2011.13456) in even steps of time, as diffusers has it:
    /// of its class's steps alone.
    ScoreSdeVp(VpSde),
    /// A solver that chooses its own steps.
    Adaptive(Adaptive),
    /// A solver from outside.
    Own(OwnSolver),
}

/// A fixed-step solver from outside: it fills a table as those of this library do, and runs wherever they run.
#[derive(Clone, Copy)]
pub struct OwnSolver {
    /// What it is called; two of one name are the same.
    pub name: &'static str,
    /// Fills in what is to be done for the steps of the grid. A solver that evaluates the network inside a step asks the
    /// marginal for the level there.
    pub fill: fn(&mut Table, &Grid, &dyn Marginal) -> Result<()>,
}

impl std::fmt::Debug for OwnSolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnSolver").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for OwnSolver {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Solver {
    /// The same solver with another η.
    ///
    /// # Errors
    /// When it has none.
    pub fn with_eta(self, eta: f64) -> Result<Self> {
        match self {
            Solver::Ddim { .. } => Ok(Solver::Ddim { eta }),
            Solver::TrajectoryConsistency { .. } => Ok(Solver::TrajectoryConsistency { eta }),
            Solver::SaSolver(options) => Ok(Solver::SaSolver(SaSolver { tau: Tau::Constant(eta), ..options })),
            _ => Err(Error::invalid("eta is for the samplers ddim and sa-solver alone")),
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
            Solver::SaSolver(options) => {
                Ok(Solver::SaSolver(SaSolver { predictor: order, corrector: order, ..options }))
            }
            _ => Err(Error::invalid(
                "this sampler's order is fixed: order is for lms, deis, dpm-solver, unipc and sa-solver",
            )),
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
        let (mut table, path) = (Table::default(), marginal.path());
        match *self {
            Solver::Ddim { eta } => ddim::ddim(&mut table, grid, path, eta)?,
            Solver::Ddpm(variance) => ancestral::ddpm(&mut table, grid, path, variance),
            Solver::EulerAncestral => ancestral::euler_ancestral(&mut table, grid),
            Solver::EulerMaruyama => stochastic::euler_maruyama(&mut table, grid, path),
            Solver::PredictorCorrector(langevin) => stochastic::predictor_corrector(&mut table, grid, path, langevin)?,
            Solver::AnnealedLangevin(langevin) => stochastic::annealed_langevin(&mut table, grid, langevin)?,
            Solver::Euler => runge_kutta::euler(&mut table, grid),
            Solver::EulerOde => runge_kutta::euler_ode(&mut table, grid, path),
            Solver::Heun(churn) => runge_kutta::heun(&mut table, grid, marginal, churn)?,
            Solver::Dpm2 => runge_kutta::dpm2(&mut table, grid, marginal),
            Solver::RungeKutta4 => runge_kutta::classical(&mut table, grid, marginal),
            Solver::Lms { order } => adams::lms(&mut table, grid, path, order)?,
            Solver::Pndm { warm_up } => adams::pndm(&mut table, grid, marginal, warm_up),
            Solver::Deis { order, variable, lower_order_final } => {
                adams::deis(&mut table, grid, marginal, order, variable, lower_order_final)?;
            }
            Solver::DpmSolver(options) => dpm_solver::dpm_solver(&mut table, grid, options)?,
            Solver::UniPc(options) => unipc::unipc(&mut table, grid, options)?,
            Solver::Fitted => fitted::fitted(&mut table, grid)?,
            Solver::Consistency { sigma_min } => consistency::consistency(&mut table, grid, sigma_min),
            Solver::LatentConsistency { scaling } => distilled::latent_consistency(&mut table, grid, scaling),
            Solver::TrajectoryConsistency { eta } => {
                distilled::trajectory_consistency(&mut table, grid, marginal, eta)?;
            }
            Solver::ImprovedPndm => adams::improved_pndm(&mut table, grid, path),
            Solver::Dpm2Ancestral => ancestral::dpm2(&mut table, grid, marginal),
            Solver::SaSolver(options) => sa_solver::sa_solver(&mut table, grid, options)?,
            Solver::ScoreSdeVe { ratio, corrections } => {
                score_sde::variance_exploding(&mut table, grid, ratio, corrections)?;
            }
            Solver::ScoreSdeVp(sde) => score_sde::variance_preserving(&mut table, grid, sde),
            Solver::Own(own) => (own.fill)(&mut table, grid, marginal)?,
            Solver::Adaptive(_) => {
                return Err(Error::invalid("a sampler that chooses its own steps has no table: run it by itself"));
            }
        }
        table.finish(grid, prediction)
    }
}
