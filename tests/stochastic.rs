//! Stochastic solvers sample the distribution: mean and covariance of 20,000 samples are those of the data,
//! to within the sampling error.

mod mixture;

use edgegen::config::{PredictionType, Threshold};
use edgegen::noise::Noise;
use edgegen::sampler::{AdaptiveSampler, Control, Sampler};
use edgegen::schedule::{Grid, Level, Marginal, VpSde};
use edgegen::solver::{Adaptive, Churn, Langevin, Method, Prediction, SOLVERS, Solver, SolverInfo};
use edgegen::{Condition, Network};
use mixture::{DIM, eps, moments};

const SAMPLES: usize = 20_000;
const STEPS: usize = 500;

/// All samples at once: one sample of the sampler is all of them, one after the other.
struct Many(VpSde);

impl Network for Many {
    fn sample_shape(&self) -> &[usize] {
        &[SAMPLES, DIM]
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let level = self.0.level(t);
        for (x, out) in x.chunks_exact(DIM).zip(out.chunks_exact_mut(DIM)) {
            let wide = std::array::from_fn(|i| f64::from(x[i]));
            out.iter_mut().zip(eps(&wide, level)).for_each(|(o, e)| *o = e as f32);
        }
        Ok(())
    }
}

/// From the SDE's end to almost no noise, evenly in log-SNR, and then to none.
fn grid() -> Grid {
    let sde = VpSde::default();
    let (first, last) = (sde.level(1.0).log_snr(), 10.0);
    let level = |i: usize| first + (last - first) * i as f64 / (STEPS - 1) as f64;
    let levels = (0..STEPS).map(|i| sde.level_of_edm_sigma((-0.5 * level(i)).exp())).chain([Level::CLEAN]);
    Grid::new(&levels.collect::<Vec<_>>()).unwrap()
}

fn samples(solver: Solver) -> Vec<f64> {
    let prediction = Prediction { kind: PredictionType::Epsilon, threshold: Threshold::None };
    let program = solver.compile(&grid(), &VpSde::default(), prediction).unwrap();
    assert!(program.is_stochastic());
    let mut sampler = Sampler::new(program, SAMPLES * DIM);
    let mut noise = Noise::new(5, 0);
    let mut x = vec![0.0; SAMPLES * DIM];
    noise.fill(&mut x);
    let mut network = Many(VpSde::default());
    sampler.run(&mut network, &Condition::default(), &mut noise, &mut x, &mut Control::default()).unwrap();
    x.into_iter().map(f64::from).collect()
}

/// Mean and standard error of `f` over the samples.
fn mean(x: &[f64], f: impl Fn(&[f64]) -> f64) -> (f64, f64) {
    let values: Vec<f64> = x.chunks_exact(DIM).map(f).collect();
    let mean = values.iter().sum::<f64>() / SAMPLES as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / SAMPLES as f64;
    (mean, (variance / SAMPLES as f64).sqrt())
}

/// How many standard errors the moments are off, at most.
fn deviation(x: &[f64]) -> f64 {
    let (expected_mean, covariance) = moments();
    let mut most = 0.0f64;
    for i in 0..DIM {
        let (found, error) = mean(x, |v| v[i]);
        most = most.max((found - expected_mean[i]).abs() / error);
        for j in 0..=i {
            let (found, error) = mean(x, |v| (v[i] - expected_mean[i]) * (v[j] - expected_mean[j]));
            most = most.max((found - covariance[i][j]).abs() / error);
        }
    }
    most
}

/// The adaptive SDE solver, whose steps here suit all samples at once.
#[test]
fn the_moments_are_those_of_the_data_if_steps_are_chosen_too() {
    let sde = VpSde::default();
    let options = Adaptive { method: Method::Sde, rtol: 2e-3, atol: 2e-3 };
    let prediction = Prediction { kind: PredictionType::Epsilon, threshold: Threshold::None };
    let ends = (sde.level(1.0), sde.level_of_edm_sigma((-5.0f64).exp()));
    let mut sampler = AdaptiveSampler::new(options, prediction, ends, SAMPLES * DIM).unwrap();
    let mut noise = Noise::new(5, 0);
    let mut x = vec![0.0; SAMPLES * DIM];
    noise.fill(&mut x);
    let (mut network, mut control) = (Many(sde), Control::default());
    let outcome = sampler.run(&mut network, &sde, &Condition::default(), &mut noise, &mut x, &mut control).unwrap();
    let x: Vec<f64> = x.into_iter().map(f64::from).collect();
    let most = deviation(&x);
    println!("sde: {most:.1} standard errors, {} calls", outcome.nfe);
    assert!(most < 4.0, "a moment is {most:.1} standard errors off");
}

/// Langevin dynamics follow the fall of the noise with a lag, which is the less the more they correct.
#[test]
fn langevin_dynamics_come_near_the_moments() {
    let off = |corrections| deviation(&samples(Solver::AnnealedLangevin(Langevin { ratio: 0.3, corrections })));
    let (one, four) = (off(1), off(4));
    println!("langevin: {one:.1} standard errors with one correction a level, {four:.1} with four");
    assert!(four < 6.0 && four < 0.5 * one, "{four:.1} after {one:.1} standard errors");
}

#[test]
fn the_moments_are_those_of_the_data() {
    // consistency sampling is for networks that jump to a sample at once; of this one's posterior means it makes others
    let exact = |s: &&SolverInfo| {
        s.order.is_none() && !matches!(s.solver, Solver::AnnealedLangevin(_) | Solver::Consistency { .. })
    };
    let named = SOLVERS.iter().filter(exact).map(|s| (s.name, s.solver));
    let churn = Solver::Heun(Churn { churn: 40.0, ..Churn::NONE });
    let solvers: Vec<_> =
        named.chain([("ddim, eta 1", Solver::Ddim { eta: 1.0 }), ("heun with churn", churn)]).collect();
    std::thread::scope(|scope| {
        for part in solvers.chunks(solvers.len().div_ceil(2)) {
            scope.spawn(move || {
                for (name, solver) in part {
                    let most = deviation(&samples(*solver));
                    println!("{name}: {most:.1} standard errors");
                    assert!(most < 4.0, "{name}: a moment is {most:.1} standard errors off");
                }
            });
        }
    });
}
