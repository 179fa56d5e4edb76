//! Every deterministic solver converges to the probability-flow ODE's solution at the order it claims, on every path.

mod mixture;

use edgegen::Condition;
use edgegen::config::{PredictionType, Threshold};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::{Grid, Level, Marginal, RectifiedFlow, VeSde, VpSde};
use edgegen::solver::{
    BFunction, Curvature, DpmSolver, Form, Prediction, SOLVERS, SaSolver, SecondOrder, Solver, Stepping, Tau, UniPc,
};
use mixture::{DIM, Mixture, flow};

/// Levels uniform in log-SNR.
fn levels(marginal: &dyn Marginal, steps: usize, log_snr: (f64, f64)) -> Vec<Level> {
    (0..=steps)
        .map(|i| log_snr.0 + (log_snr.1 - log_snr.0) * i as f64 / steps as f64)
        .map(|l| marginal.level_of_edm_sigma((-0.5 * l).exp()))
        .collect()
}

const STARTS: usize = 16;

/// A stretch of log-SNR and two numbers of steps.
///
/// The stretch begins in all but pure noise, where a multistep method's first steps of lower order do
/// little harm. The more steps the nearer the slope is to the order, until the error drowns in the
/// rounding of f32, about 4e-7; for methods of order 4 that leaves little room.
struct Window {
    log_snr: (f64, f64),
    steps: [usize; 2],
}

const WINDOW: Window = Window { log_snr: (-8.0, 1.0), steps: [48, 96] };

fn window(name: &str) -> Window {
    match name {
        "lms" | "deis-3" => Window { log_snr: (-10.0, 2.0), ..WINDOW },
        "unipc-3" => Window { log_snr: (-10.0, 1.0), steps: [64, 128] },
        "rk4" => Window { steps: [12, 24], ..WINDOW },
        _ => WINDOW,
    }
}

/// The root mean square of the error at the end of the stretch.
fn error<M: Marginal + Copy>(marginal: M, solver: Solver, steps: usize, log_snr: (f64, f64)) -> f64 {
    let levels = levels(&marginal, steps, log_snr);
    let prediction = Prediction { kind: PredictionType::Epsilon, threshold: Threshold::None };
    let program = solver.compile(&Grid::new(&levels).unwrap(), &marginal, prediction).unwrap();
    let mut sampler = Sampler::new(program, DIM);
    let mut square = 0.0;
    for start in 0..STARTS {
        let mut noise = Noise::new(3, start as u64);
        let mut x = [0.0; DIM];
        noise.fill(&mut x);
        // where γ stays 1, noise is as large as σ
        if levels[0].gamma == 1.0 {
            x.iter_mut().for_each(|v| *v *= levels[0].sigma as f32);
        }
        let expected = flow(x.map(f64::from), levels[0], levels[steps], 4000);
        let mut network = Mixture(marginal);
        sampler.run(&mut network, &Condition::default(), &mut noise, &mut x, &mut Control::default()).unwrap();
        square += (0..DIM).map(|i| (f64::from(x[i]) - expected[i]).powi(2)).sum::<f64>();
    }
    (square / (STARTS * DIM) as f64).sqrt()
}

fn slope<M: Marginal + Copy>(marginal: M, solver: Solver, Window { log_snr, steps }: Window) -> f64 {
    let [coarse, fine] = steps.map(|n| error(marginal, solver, n, log_snr));
    (coarse / fine).ln() / (steps[1] as f64 / steps[0] as f64).ln()
}

/// Every step at the solver's own order.
fn without_lower_order_final(solver: Solver) -> Solver {
    match solver {
        Solver::DpmSolver(options) => Solver::DpmSolver(DpmSolver { lower_order_final: false, ..options }),
        Solver::UniPc(options) => Solver::UniPc(UniPc { lower_order_final: false, ..options }),
        // where nothing is fitted
        Solver::Fitted => without_lower_order_final(Solver::UniPc(UniPc::new(2))),
        Solver::Deis { order, variable, .. } => Solver::Deis { order, variable, lower_order_final: false },
        other => other,
    }
}

fn expect_slope<M: Marginal + Copy>(marginal: M, name: &str, solver: Solver, order: usize, window: Window) {
    let slope = slope(marginal, without_lower_order_final(solver), window);
    println!("{name:16} order {order}, measured {slope:.2}");
    assert!(
        (slope - order as f64).abs() < 0.2,
        "{name} claims order {order}, but its error falls with order {slope:.2}"
    );
}

#[test]
fn every_deterministic_solver_has_the_order_it_claims() {
    for info in SOLVERS {
        if let Some(order) = info.order {
            expect_slope(VpSde::default(), info.name, info.solver, order, window(info.name));
        }
    }
}

#[test]
fn every_deterministic_solver_has_its_order_on_a_rectified_flow() {
    for info in SOLVERS {
        if let Some(order) = info.order {
            let window = match info.name {
                "lms" => Window { log_snr: (-10.0, 2.0), steps: [32, 64] },
                // their weights are for even steps, which these are not: of order 2, but with small errors
                "plms" | "pndm" => {
                    let slope = slope(RectifiedFlow, info.solver, WINDOW);
                    println!("{:16} order {order}, measured {slope:.2}", info.name);
                    assert!(slope > 1.8, "{} claims order {order}, but its error falls with {slope:.2}", info.name);
                    continue;
                }
                name => window(name),
            };
            expect_slope(RectifiedFlow, info.name, info.solver, order, window);
        }
    }
}

#[test]
fn every_deterministic_solver_has_its_order_where_variance_explodes() {
    for info in SOLVERS {
        if let Some(order) = info.order {
            // the greater σ is where a run begins, the greater the rounding
            let window = match info.name {
                "unipc-3" => WINDOW,
                name => window(name),
            };
            expect_slope(VeSde, info.name, info.solver, order, window);
        }
    }
}

#[test]
fn the_variants_have_the_order_of_their_kind() {
    use Stepping::{Multistep, Singlestep};
    for (form, order, stepping) in [
        (Form::Data, 2, Multistep),
        (Form::Noise, 2, Multistep),
        (Form::Data, 3, Singlestep),
        (Form::Noise, 3, Singlestep),
    ] {
        let solver = DpmSolver { second_order: SecondOrder::Heun, ..DpmSolver::new(form, order, stepping) };
        expect_slope(
            VpSde::default(),
            &format!("{form:?} {order} {stepping:?}"),
            Solver::DpmSolver(solver),
            order,
            WINDOW,
        );
    }
    for predict_x0 in [true, false] {
        for b in [BFunction::Bh1, BFunction::Bh2] {
            let solver = UniPc { predict_x0, b, ..UniPc::new(2) };
            expect_slope(VpSde::default(), &format!("unipc {b:?} {predict_x0}"), Solver::UniPc(solver), 3, WINDOW);
        }
    }
}

/// SA-Solver without noise is the Adams methods of its orders, of which the corrector's counts.
#[test]
fn sa_solver_has_its_order_where_it_adds_no_noise() {
    for predict_x0 in [true, false] {
        // by ε the error of order 4 drowns in the rounding of f32
        for order in 2..=if predict_x0 { 4 } else { 3 } {
            let predictor = order - 1;
            let solver = SaSolver {
                predictor,
                predict_x0,
                tau: Tau::Constant(0.0),
                lower_order_final: false,
                ..SaSolver::new(order)
            };
            let window = if order == 4 { window("unipc-3") } else { WINDOW };
            let name = format!("sa-solver {predictor}/{order} {predict_x0}");
            expect_slope(VpSde::default(), &name, Solver::SaSolver(solver), order, window);
        }
    }
    let tau = Tau::Constant(0.0);
    let solver = Solver::SaSolver(SaSolver { predictor: 2, tau, lower_order_final: false, ..SaSolver::new(3) });
    expect_slope(RectifiedFlow, "sa-solver on a flow", solver, 3, WINDOW);
    expect_slope(VeSde, "sa-solver where variance explodes", solver, 3, WINDOW);
}

/// What diffusers computes under the name of a third order is of second.
#[test]
fn half_the_curvature_costs_an_order() {
    let solver = DpmSolver { curvature: Curvature::Diffusers, ..DpmSolver::new(Form::Noise, 3, Stepping::Multistep) };
    expect_slope(
        VpSde::default(),
        "diffusers' third",
        Solver::DpmSolver(solver),
        2,
        Window { steps: [96, 192], ..WINDOW },
    );
}
