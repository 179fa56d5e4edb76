//! What goes along the probability-flow ODE: solvers that choose their own steps, encoding and decoding,
//! likelihood, energy. The reference is the exact density and the ODE's solution in f64.

mod mixture;

use edgegen::config::{Preconditioning, PredictionType, Threshold};
use edgegen::likelihood::{Flow, Trace, log_density_difference};
use edgegen::network::Preconditioned;
use edgegen::noise::Noise;
use edgegen::sampler::{AdaptiveSampler, Control, Sampler};
use edgegen::schedule::{Grid, Level, Marginal, RectifiedFlow, VpSde};
use edgegen::solver::{Adaptive, Method, Prediction, Solver};
use edgegen::{Condition, Ending, Network};
use mixture::{DIM, Mixture, flow, log_density_and_score};
use std::ops::ControlFlow;

const EPSILON: PredictionType = PredictionType::Epsilon;
const PREDICTION: Prediction = Prediction { kind: EPSILON, threshold: Threshold::None };

fn level(log_snr: f64) -> Level {
    VpSde::default().level_of_edm_sigma((-0.5 * log_snr).exp())
}

/// From the SDE's end to almost no noise.
fn ends() -> (Level, Level) {
    (VpSde::default().level(1.0), level(10.0))
}

fn normal(index: u64) -> [f32; DIM] {
    let mut x = [0.0; DIM];
    Noise::new(3, index).fill(&mut x);
    x
}

/// The estimate of x_0 where the exact flow ends.
fn reference(x: [f32; DIM]) -> [f64; DIM] {
    let (from, to) = ends();
    let x = flow(x.map(f64::from), from, to, 4000);
    let eps = mixture::eps(&x, to);
    std::array::from_fn(|i| (x[i] - to.sigma * eps[i]) / to.gamma)
}

/// The root mean square of the error, and the network calls of a sample.
fn adaptive_error(method: Method, tolerance: f64) -> (f64, usize) {
    let options = Adaptive { method, rtol: tolerance, atol: tolerance };
    let mut sampler = AdaptiveSampler::new(options, PREDICTION, ends(), DIM).unwrap();
    let (mut square, mut nfe, starts) = (0.0, 0, 20);
    for start in 0..starts {
        let mut x = normal(start);
        let expected = reference(x);
        let (mut network, mut noise) = (Mixture(VpSde::default()), Noise::new(0, 0));
        let condition = Condition::default();
        let mut control = Control::default();
        let outcome =
            sampler.run(&mut network, &VpSde::default(), &condition, &mut noise, &mut x, &mut control).unwrap();
        assert_eq!(outcome.ending, Ending::Complete);
        square += (0..DIM).map(|i| (f64::from(x[i]) - expected[i]).powi(2)).sum::<f64>();
        nfe += outcome.nfe;
    }
    ((square / (starts * DIM as u64) as f64).sqrt(), nfe / starts as usize)
}

/// A tolerance is for each step, and errors add up over steps: what is met in the end is within a few of it.
#[test]
fn solvers_that_choose_their_steps_meet_their_tolerance() {
    for (method, tolerances, times) in [
        (Method::RungeKutta45, [1e-3, 1e-4, 1e-5], 10.0),
        (Method::DpmSolver12, [1e-2, 1e-3, 1e-4], 1.0),
        (Method::DpmSolver23, [1e-2, 1e-3, 1e-4], 1.0),
    ] {
        for tolerance in tolerances {
            let (error, nfe) = adaptive_error(method, tolerance);
            println!("{method:?} at {tolerance:e}: error {error:.1e}, {nfe} calls");
            assert!(error < times * tolerance, "{method:?} at {tolerance:e}: error {error:e}");
        }
    }
}

#[test]
fn a_run_of_chosen_steps_can_be_ended() {
    let options = Adaptive { method: Method::DpmSolver23, rtol: 1e-3, atol: 1e-3 };
    let mut sampler = AdaptiveSampler::new(options, PREDICTION, ends(), DIM).unwrap();
    let (mut network, mut noise) = (Mixture(VpSde::default()), Noise::new(0, 0));
    let mut on_step = |progress: edgegen::Progress<'_>| {
        if progress.step == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut control = Control { on_step: Some(&mut on_step), ..Control::default() };
    let mut x = normal(0);
    let outcome =
        sampler.run(&mut network, &VpSde::default(), &Condition::default(), &mut noise, &mut x, &mut control).unwrap();
    assert_eq!((outcome.ending, outcome.steps), (Ending::Callback, 3));
    assert!(x != normal(0) && x.iter().all(|v| v.abs() < 3.0), "the estimate of x_0: {x:?}");
}

#[test]
fn impossible_options_are_told() {
    let make = |rtol, ends| {
        let options = Adaptive { method: Method::RungeKutta45, rtol, atol: 1e-3 };
        AdaptiveSampler::new(options, PREDICTION, ends, DIM).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for rtol in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(make(rtol, ends()).contains("rtol must be positive"));
    }
    assert!(make(1e-3, (ends().0, Level::CLEAN)).contains("end at zero noise"));
    assert!(make(1e-3, (ends().1, ends().0)).contains("the noise must fall"));
    assert!(make(1e-3, ends()).is_empty());
    let eta = Solver::Ddim { eta: 1.0 }.compile(&grid(5).reversed().unwrap(), &VpSde::default(), PREDICTION);
    assert!(eta.unwrap_err().to_string().contains("a sampler that adds noise cannot go back"));

    let sde = VpSde::default();
    let flow = Flow::new(&sde, EPSILON, ends().1, ends().0).unwrap();
    let mut network = Mixture(sde);
    let error = flow.encode(&mut network, &Condition::default(), &[0.0; 5]).unwrap_err();
    assert_eq!(error.to_string(), "a sample must have 3 numbers, in the shape [3], but has 5");
    assert!(Flow::new(&sde, EPSILON, ends().0, ends().1).is_err());
}

/// The same distribution as an EDM denoiser D(y; s).
struct Denoiser;

impl Network for Denoiser {
    fn sample_shape(&self) -> &[usize] {
        &[DIM]
    }

    fn predict(&mut self, y: &[f32], s: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let level = Level::from_edm_sigma(f64::NAN, s);
        let x = std::array::from_fn(|i| f64::from(y[i]) * level.gamma);
        let eps = mixture::eps(&x, level);
        out.iter_mut().enumerate().for_each(|(i, o)| *o = ((x[i] - level.sigma * eps[i]) / level.gamma) as f32);
        Ok(())
    }
}

#[test]
fn a_denoiser_of_the_edm_form_gives_the_same_samples() {
    for name in ["heun", "dpm++2m", "deis-2"] {
        let run = |network: &mut dyn Network, kind| {
            let prediction = Prediction { kind, ..PREDICTION };
            let solver = Solver::from_name(name).unwrap();
            let program = solver.compile(&grid(12), &VpSde::default(), prediction).unwrap();
            let mut x = normal(4);
            let (mut noise, mut control) = (Noise::new(0, 0), Control::default());
            Sampler::new(program, DIM).run(network, &Condition::default(), &mut noise, &mut x, &mut control).unwrap();
            x
        };
        let [a, b] = [
            run(&mut Mixture(VpSde::default()), EPSILON),
            run(&mut Preconditioned::new(Denoiser, Preconditioning::Denoiser), PredictionType::Denoised),
        ];
        (0..DIM).for_each(|i| assert!((a[i] - b[i]).abs() < 1e-4, "{name}: {a:?}, {b:?}"));
    }
}

/// The root mean square difference of samples that were encoded and decoded, over clean samples.
fn round_trip(through: impl Fn(&[f32; DIM]) -> Vec<f32>) -> f64 {
    let samples = 20;
    let square: f64 = (0..samples)
        .map(|index| {
            let x = reference(normal(index)).map(|v| v as f32);
            let back = through(&x);
            (0..DIM).map(|i| f64::from(x[i] - back[i]).powi(2)).sum::<f64>()
        })
        .sum();
    (square / (samples as usize * DIM) as f64).sqrt()
}

/// Levels uniform in log-SNR, then clean.
fn grid(steps: usize) -> Grid {
    let (from, to) = ends();
    let line = |i: usize| from.log_snr() + (to.log_snr() - from.log_snr()) * i as f64 / (steps - 1) as f64;
    let levels: Vec<Level> = (0..steps).map(|i| level(line(i))).chain([Level::CLEAN]).collect();
    Grid::new(&levels).unwrap()
}

fn with_table(solver: Solver, grid: &Grid, x: &mut [f32]) {
    let program = solver.compile(grid, &VpSde::default(), PREDICTION).unwrap();
    let (mut network, mut noise) = (Mixture(VpSde::default()), Noise::new(0, 0));
    let mut control = Control::default();
    Sampler::new(program, DIM).run(&mut network, &Condition::default(), &mut noise, x, &mut control).unwrap();
}

#[test]
fn what_is_encoded_comes_back() {
    // Fifty calls each way, ninety-nine for heun. DDIM, of first order, needs more than this.
    for (name, bound) in [("dpm++2m", 1e-3), ("unipc-2", 1e-3), ("heun", 1e-3), ("ddim", 0.05)] {
        let solver = Solver::from_name(name).unwrap();
        let error = round_trip(|x| {
            let (mut x, grid) = (x.to_vec(), grid(50));
            with_table(solver, &grid.reversed().unwrap(), &mut x);
            with_table(solver, &grid, &mut x);
            x
        });
        println!("{name}: {error:.1e}");
        assert!(error < bound, "{name}: {error:e}");
    }
    let error = round_trip(|x| {
        let sde = VpSde::default();
        let flow = Flow::new(&sde, EPSILON, ends().1, ends().0).unwrap();
        let mut network = Mixture(sde);
        let z = flow.encode(&mut network, &Condition::default(), x).unwrap();
        flow.decode(&mut network, &Condition::default(), &z).unwrap()
    });
    println!("rk45: {error:.1e}");
    assert!(error < 1e-3, "{error}");
}

#[test]
fn likelihoods_are_those_of_the_density() {
    let sde = VpSde::default();
    let flow = Flow::new(&sde, EPSILON, ends().1, ends().0).unwrap();
    let mut network = Mixture(sde);
    for index in 0..8 {
        let x = reference(normal(index)).map(|v| v as f32);
        let (exact, _) = log_density_and_score(&x.map(f64::from), Level::CLEAN);
        let mut found = |trace| {
            flow.log_likelihood(&mut network, &Condition::default(), &x, trace, &mut Noise::new(1, index)).unwrap()
        };
        let of_all = found(Trace::Exact);
        println!("{exact:.4}, found {:.4} in {} calls", of_all.nats, of_all.nfe);
        assert!((of_all.nats - exact).abs() < 0.005 * DIM as f64, "{} instead of {exact}", of_all.nats);
        assert_eq!(of_all.standard_error, Some(0.0));

        let estimate = found(Trace::Hutchinson(32));
        let (error, standard) = (estimate.nats - exact, estimate.standard_error.unwrap());
        println!("  estimated {:.4} ± {standard:.4}", estimate.nats);
        assert!(error.abs() < 4.0 * standard + 0.005 * DIM as f64, "{error} with a standard error of {standard}");
        assert!(standard < 0.6, "{standard}");
        assert_eq!(estimate.latent.len(), DIM);
    }
}

#[test]
fn energies_differ_as_the_density_does() {
    let (a, b) = ([0.8f32, -0.4, 0.1], [-0.6f32, 0.5, -0.2]);
    for log_snr in [-2.0, 1.0, 4.0] {
        let level = level(log_snr);
        let mut network = Mixture(VpSde::default());
        let found = log_density_difference(&mut network, EPSILON, level, &Condition::default(), [&a, &b], 8).unwrap();
        let exact = |x: [f32; DIM]| log_density_and_score(&x.map(f64::from), level).0;
        assert!((found - (exact(b) - exact(a))).abs() < 1e-3, "{found} at {log_snr}");
    }
}

/// The exact velocity of a rectified flow, from pure noise on.
struct Velocity;

impl Network for Velocity {
    fn sample_shape(&self) -> &[usize] {
        &[DIM]
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let (level, x) = (RectifiedFlow.level(t), std::array::from_fn(|i| f64::from(x[i])));
        let eps = mixture::eps(&x, level);
        // of pure noise, the best guess of the sample is the mean of all
        let mean = mixture::moments().0;
        let x0 = |i: usize| if t == 1.0 { mean[i] } else { (x[i] - level.sigma * eps[i]) / level.gamma };
        out.iter_mut().enumerate().for_each(|(i, o)| *o = (eps[i] - x0(i)) as f32);
        Ok(())
    }
}

/// From pure noise to almost none.
fn flow_ends() -> (Level, Level) {
    (RectifiedFlow.level(1.0), RectifiedFlow.level(1e-3))
}

/// Where the exact flow leads from pure noise: so near to it that the error is far below f32's.
fn flow_reference(x: [f32; DIM]) -> [f64; DIM] {
    let (from, to) = (RectifiedFlow.level_of_edm_sigma(1e8), flow_ends().1);
    let x = flow(x.map(f64::from), from, to, 8000);
    let eps = mixture::eps(&x, to);
    std::array::from_fn(|i| (x[i] - to.sigma * eps[i]) / to.gamma)
}

const VELOCITY: Prediction = Prediction { kind: PredictionType::Flow, threshold: Threshold::None };

#[test]
fn solvers_that_choose_their_steps_run_on_a_rectified_flow_from_pure_noise() {
    for (method, tolerance, bound) in
        [(Method::RungeKutta45, 1e-6, 1e-4), (Method::DpmSolver12, 3e-5, 1e-4), (Method::DpmSolver23, 1e-4, 1e-4)]
    {
        let options = Adaptive { method, rtol: tolerance, atol: tolerance };
        let mut sampler = AdaptiveSampler::new(options, VELOCITY, flow_ends(), DIM).unwrap();
        for start in 0..8 {
            let mut x = normal(start);
            let expected = flow_reference(x);
            let (mut noise, mut control) = (Noise::new(0, 0), Control::default());
            let condition = Condition::default();
            sampler.run(&mut Velocity, &RectifiedFlow, &condition, &mut noise, &mut x, &mut control).unwrap();
            let error = (0..DIM).map(|i| (f64::from(x[i]) - expected[i]).abs()).fold(0.0, f64::max);
            assert!(error < bound, "{method:?} from {start}: {error:e}");
        }
    }
    let epsilon = AdaptiveSampler::new(
        Adaptive { method: Method::RungeKutta45, rtol: 1e-3, atol: 1e-3 },
        PREDICTION,
        flow_ends(),
        DIM,
    );
    assert!(epsilon.err().unwrap().to_string().contains("zero SNR"));
}

#[test]
fn samples_of_a_rectified_flow_are_encoded_and_have_their_density() {
    let (noise, data) = flow_ends();
    let flow = Flow::new(&RectifiedFlow, PredictionType::Flow, data, noise).unwrap();
    for index in 0..6 {
        let x = flow_reference(normal(index)).map(|v| v as f32);
        let z = flow.encode(&mut Velocity, &Condition::default(), &x).unwrap();
        // the noise that it was made of
        let error = z.iter().zip(normal(index)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 0.02, "{index}: {error}");
        let back = flow.decode(&mut Velocity, &Condition::default(), &z).unwrap();
        let error = back.iter().zip(x).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 2e-3, "{index}: {error}");
        let (exact, _) = log_density_and_score(&x.map(f64::from), Level::CLEAN);
        let found = flow
            .log_likelihood(&mut Velocity, &Condition::default(), &x, Trace::Exact, &mut Noise::new(1, index))
            .unwrap();
        println!("{exact:.4}, found {:.4} in {} calls", found.nats, found.nfe);
        assert!((found.nats - exact).abs() < 0.01 * DIM as f64, "{} instead of {exact}", found.nats);
    }
}

/// A table there and back, the way back ending in pure noise.
#[test]
fn tables_lead_from_a_flows_data_to_pure_noise_and_back() {
    let steps = 60;
    // even in log-SNR but for the ends
    let level = |i: usize| RectifiedFlow.level_of_edm_sigma((5.0 - 13.0 * i as f64 / steps as f64).exp());
    let noise = RectifiedFlow.level(1.0);
    let levels: Vec<Level> = [noise].into_iter().chain((0..=steps).map(level)).chain([Level::CLEAN]).collect();
    let grid = Grid::new(&levels).unwrap();
    for (name, bound) in
        [("heun", 1e-3), ("rk4", 1e-4), ("dpm++2m", 5e-3), ("unipc-2", 0.01), ("lms", 0.01), ("ddim", 0.3)]
    {
        let solver = Solver::from_name(name).unwrap();
        let run = |grid: &Grid, x: &mut [f32]| {
            let program = solver.compile(grid, &RectifiedFlow, VELOCITY).unwrap();
            let (mut noise, mut control) = (Noise::new(0, 0), Control::default());
            Sampler::new(program, DIM).run(&mut Velocity, &Condition::default(), &mut noise, x, &mut control).unwrap();
        };
        let mut worst = 0f32;
        for index in 0..8 {
            let z = normal(index);
            let mut x = z;
            run(&grid, &mut x);
            run(&grid.reversed().unwrap(), &mut x);
            worst = x.iter().zip(z).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
        }
        println!("{name}: {worst:.1e}");
        assert!(worst < bound, "{name}: {worst:e}");
    }
}
