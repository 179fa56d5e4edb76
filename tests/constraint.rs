//! Runs that keep to what is known, on data whose posterior is known.

use edgegen::config::{PredictionType, SchedulerConfig, Spacing, Threshold};
use edgegen::constraint::{Constraint, Degradation, LUMA, NullSpace, Replacement};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::{Grid, Schedule, Start};
use edgegen::solver::{Prediction, Resample, SOLVERS, Solver};
use edgegen::{Condition, Network, Result};

const PREDICTION: Prediction = Prediction { kind: PredictionType::Epsilon, threshold: Threshold::None };

/// The exact ε of Gaussian data: pairs of elements with variance `v` and correlation `rho`, around `mean`.
struct Pairs {
    schedule: Schedule,
    shape: Vec<usize>,
    mean: f64,
    v: f64,
    rho: f64,
}

impl Network for Pairs {
    fn sample_shape(&self) -> &[usize] {
        &self.shape
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> Result<()> {
        let level = self.schedule.level(t);
        // the sum and the difference of a pair are independent
        let scale = |share: f64| level.sigma / (level.gamma.powi(2) * self.v * share + level.sigma.powi(2));
        let (sum, difference) = (scale(1.0 + self.rho), scale(1.0 - self.rho));
        for (x, out) in x.chunks(2).zip(out.chunks_mut(2)) {
            let [a, b] = [0, 1].map(|i| f64::from(x[i]) - level.gamma * self.mean);
            let (s, d) = (sum * (a + b) / 2.0, difference * (a - b) / 2.0);
            (out[0], out[1]) = ((s + d) as f32, (s - d) as f32);
        }
        Ok(())
    }
}

fn schedule() -> Schedule {
    Schedule::from_config(&SchedulerConfig::default()).unwrap()
}

fn pairs(shape: &[usize], mean: f64, v: f64, rho: f64) -> Pairs {
    Pairs { schedule: schedule(), shape: shape.to_vec(), mean, v, rho }
}

fn grid(steps: usize) -> Grid {
    schedule().grid(steps, Spacing::LogSnr, 0, true).unwrap()
}

/// One sample under a constraint.
fn sample(
    network: &mut Pairs,
    solver: Solver,
    grid: &Grid,
    resample: Resample,
    constraint: Option<&mut dyn Constraint>,
    seed: u64,
) -> Vec<f32> {
    let program = solver.compile_resampled(grid, &schedule(), PREDICTION, resample).unwrap();
    let mut noise = Noise::new(seed, 0);
    let mut x = vec![0.0; network.sample_len()];
    noise.fill(&mut x);
    let mut sampler = Sampler::new(program, x.len());
    let mut control = Control { constraint, ..Control::default() };
    sampler.run(network, &Condition::default(), &mut noise, &mut x, &mut control).unwrap();
    x
}

fn ddim(eta: f64) -> Solver {
    Solver::Ddim { eta }
}

/// Mean and variance.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, values.map(|v| (v - mean).powi(2)).sum::<f64>() / n)
}

#[test]
fn every_solver_keeps_to_what_was_measured_without_noise() {
    let shape = [3, 4, 4];
    let known: Vec<bool> = (0..48).map(|i| i % 3 != 0).collect();
    let degradations = [
        Degradation::mask(&shape, &known).unwrap(),
        Degradation::box_average(&shape, 2).unwrap(),
        Degradation::grey(&shape).unwrap(),
        Degradation::identity(&shape),
    ];
    let truth: Vec<f32> = (0..48).map(|i| (i as f32).sin()).collect();
    // annealed Langevin dynamics is far off after so few steps
    for info in SOLVERS.iter().filter(|s| s.name != "langevin") {
        for degradation in &degradations {
            let y = degradation.apply(&truth);
            let mut constraint = NullSpace::new(degradation.clone(), &y, 0.0).unwrap();
            let mut network = pairs(&shape, 0.1, 0.3, 0.5);
            let x = sample(&mut network, info.solver, &grid(10), Resample::NONE, Some(&mut constraint), 3);
            let again = sample(&mut network, info.solver, &grid(10), Resample::NONE, Some(&mut constraint), 3);
            assert_eq!(x, again, "{}", info.name);
            let error = degradation.apply(&x).iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-6, "{} {:?}: {error}", info.name, degradation.measured_shape());
            assert!(x.iter().all(|v| v.abs() < 10.0), "{}: {x:?}", info.name);
        }
        let mut constraint = Replacement::new(&truth, &known).unwrap();
        let mut network = pairs(&shape, 0.1, 0.3, 0.5);
        let x = sample(&mut network, info.solver, &grid(10), Resample::NONE, Some(&mut constraint), 3);
        assert!((0..48).all(|i| !known[i] || x[i] == truth[i]), "{}", info.name);
        assert!(x.iter().all(|v| v.abs() < 10.0), "{}: {x:?}", info.name);
    }
}

#[test]
fn the_pseudo_inverse_is_one() {
    let shape = [3, 4, 6];
    let known: Vec<bool> = (0..72).map(|i| i % 5 > 1).collect();
    let x: Vec<f32> = (0..72).map(|i| (i as f32 * 0.7).cos()).collect();
    for (degradation, measured) in [
        (Degradation::mask(&shape, &known).unwrap(), vec![3, 4, 6]),
        (Degradation::box_average(&shape, 2).unwrap(), vec![3, 2, 3]),
        (Degradation::grey(&shape).unwrap(), vec![1, 4, 6]),
        (Degradation::identity(&shape), vec![3, 4, 6]),
    ] {
        assert_eq!(degradation.measured_shape(), measured);
        let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        // A A⁺ A = A, A⁺ A A⁺ = A⁺, and A⁺ A is a symmetric projection
        let y = degradation.apply(&x);
        let back = degradation.pseudo_inverse(&y);
        assert!(close(&degradation.apply(&back), &y));
        assert!(close(&degradation.pseudo_inverse(&degradation.apply(&back)), &back));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        assert!((dot(&x, &back) - dot(&back, &back)).abs() < 1e-4);
    }
    // by hand: the mean of a box, and the brightness of a colour
    let box_average = Degradation::box_average(&[1, 2, 2], 2).unwrap();
    assert_eq!(box_average.apply(&[1.0, 2.0, 3.0, 6.0]), [3.0]);
    assert_eq!(box_average.pseudo_inverse(&[3.0]), [3.0; 4]);
    assert_eq!(Degradation::grey(&[3, 1, 1]).unwrap().apply(&[0.0, 1.0, 0.0]), [LUMA[1]]);
}

#[test]
fn a_noisy_measurement_gives_the_exact_posterior_of_gaussian_data() {
    // independent elements of mean 0.2 and variance 0.5, each measured with noise of variance 0.04
    let (n, mean, v, noise) = (8192, 0.2, 0.5f64, 0.2f64);
    let mut draw = Noise::new(77, 0);
    let truth: Vec<f64> = (0..n).map(|_| mean + v.sqrt() * f64::from(draw.sample())).collect();
    let y: Vec<f32> = truth.iter().map(|x| (x + noise * f64::from(draw.sample())) as f32).collect();
    let weight = v / (v + noise * noise);
    for solver in [ddim(0.0), ddim(1.0), Solver::from_name("dpm++2m").unwrap(), Solver::from_name("heun").unwrap()] {
        let mut constraint = NullSpace::new(Degradation::identity(&[n]), &y, noise as f32).unwrap();
        let mut network = pairs(&[n], mean, v, 0.0);
        let x = sample(&mut network, solver, &grid(200), Resample::NONE, Some(&mut constraint), 5);
        let off = (0..n).map(|i| f64::from(x[i]) - (mean + weight * (f64::from(y[i]) - mean)));
        let (bias, variance) = moments(off.clone());
        let expected = weight * noise * noise;
        // five standard errors, and a little for the steps
        assert!(bias.abs() < 5.0 * (expected / n as f64).sqrt(), "{solver:?}: {bias}");
        assert!((variance / expected - 1.0).abs() < 0.1, "{solver:?}: {variance} is not {expected}");
        // nor does what is left depend on y
        let slope = off.zip(&y).map(|(o, y)| o * (f64::from(*y) - mean)).sum::<f64>() / n as f64 / (v + noise * noise);
        assert!(slope.abs() < 0.01, "{solver:?}: {slope}");
    }
}

#[test]
fn a_sample_with_known_noise_loses_it() {
    // from x_t = γ y the ODE is exact to the end: (y - mean) shrinks by √(v / (v + σ²)), and one step gives the
    // posterior's mean
    let (mean, v, noise) = (0.2, 0.5f64, 0.3f64);
    let y = [1.0f32, -0.7];
    let mut network = pairs(&[2], mean, v, 0.0);
    for (steps, shrink) in [(1, v / (v + noise * noise)), (400, (v / (v + noise * noise)).sqrt())] {
        let grid = grid(steps).starting(Start::Sigma(noise), &schedule()).unwrap();
        let first = grid.steps()[0].from;
        assert!((first.edm_sigma() - noise).abs() < 1e-12);
        let mut sampler = Sampler::new(ddim(0.0).compile(&grid, &schedule(), PREDICTION).unwrap(), 2);
        let mut x = y.map(|y| first.gamma as f32 * y);
        let mut noise = Noise::new(0, 0);
        sampler.run(&mut network, &Condition::default(), &mut noise, &mut x, &mut Control::default()).unwrap();
        for (x, y) in x.iter().zip(y) {
            let expected = mean + shrink * (f64::from(y) - mean);
            assert!(
                (f64::from(*x) - expected).abs() < 5e-3 * if steps == 1 { 0.01 } else { 1.0 },
                "{steps}: {x} {expected}"
            );
        }
    }
}

#[test]
fn resampling_lets_the_unknown_settle_to_the_known() {
    // pairs with correlation 0.9, of which the first is known to be 1.5: the second is N(1.35, 0.19)
    let (n, rho) = (4000, 0.9);
    let values: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { 1.5 } else { f32::NAN }).collect();
    let known: Vec<bool> = (0..n).map(|i| i % 2 == 0).collect();
    let mut found = Vec::new();
    for times in [1, 5, 25] {
        let mut constraint = Replacement::new(&values, &known).unwrap();
        let mut network = pairs(&[n], 0.0, 1.0, rho);
        let resample = Resample { times, jump: 10 };
        let x = sample(&mut network, ddim(1.0), &grid(100), resample, Some(&mut constraint), 9);
        assert!(x.iter().step_by(2).all(|v| *v == 1.5));
        let (mean, variance) = moments(x.iter().skip(1).step_by(2).map(|v| f64::from(*v)));
        found.push((mean, variance, (mean - 1.35).abs()));
    }
    assert!(found[0].2 > 0.3 && found[1].2 < 0.5 * found[0].2 && found[2].2 < 0.5 * found[1].2, "{found:?}");
    assert!(found[2].2 < 0.04 && (found[2].1 - 0.19).abs() < 0.02, "{found:?}");
}

#[test]
fn resampling_takes_blocks_again_and_keeps_the_distribution() {
    let program = |resample| ddim(0.0).compile_resampled(&grid(7), &schedule(), PREDICTION, resample);
    // 6 steps in blocks of 4, from the end on: 2 and 4; and the last one
    assert_eq!(program(Resample { times: 3, jump: 4 }).unwrap().steps(), 3 * 2 + 3 * 4 + 1);
    let once = ddim(0.0).compile(&grid(7), &schedule(), PREDICTION).unwrap();
    assert_eq!(program(Resample { times: 1, jump: 4 }).unwrap(), once);
    assert!(program(Resample { times: 0, jump: 4 }).is_err() && program(Resample { times: 2, jump: 0 }).is_err());
    // without anything known, samples have the data's moments all the same, by any solver
    let n = 20_000;
    for solver in [ddim(0.0), Solver::from_name("dpm++2m").unwrap(), Solver::from_name("heun").unwrap()] {
        let mut network = pairs(&[n], 0.3, 0.25, 0.0);
        let x = sample(&mut network, solver, &grid(100), Resample { times: 3, jump: 10 }, None, 1);
        let (mean, variance) = moments(x.iter().map(|v| f64::from(*v)));
        assert!((mean - 0.3).abs() < 0.02 && (variance / 0.25 - 1.0).abs() < 0.05, "{solver:?}: {mean} {variance}");
    }
}

#[test]
fn strength_cuts_the_steps() {
    let (schedule, whole) = (schedule(), grid(10));
    // but the last, which has no time to compare
    let before_clean = |grid: Grid| -> Vec<_> { grid.steps().iter().map(|s| s.from).collect() };
    let levels = |strength| before_clean(whole.starting(Start::Strength(strength), &schedule).unwrap());
    let all = before_clean(whole.clone());
    assert_eq!(levels(1.0), all);
    for steps in 1..10 {
        assert_eq!(levels(steps as f64 / 10.0), all[10 - steps..], "{steps}");
    }
    let between = levels(0.35);
    assert_eq!(between[1..], all[7..]);
    assert!((between[0].time - (all[6].time + all[7].time) / 2.0).abs() < 1e-9);
    let least = levels(1e-4);
    assert!(least.len() == 1 && least[0].edm_sigma() < 1e-3 * all[9].edm_sigma() + 1e-12, "{least:?}");
    for bad in [0.0, -0.5, 1.01, f64::NAN] {
        let error = whole.starting(Start::Strength(bad), &schedule).unwrap_err().to_string();
        assert_eq!(error, format!("the strength must be above 0 and at most 1, not {bad}"));
    }
    for bad in [0.0, -1.0, 1e6, f64::NAN] {
        assert!(
            whole.starting(Start::Sigma(bad), &schedule).unwrap_err().to_string().starts_with("the noise to start")
        );
    }
    let every = schedule.ends().0.edm_sigma();
    assert_eq!(whole.starting(Start::Sigma(every), &schedule).unwrap().steps().len(), 10);
}

#[test]
fn what_does_not_fit_is_said() {
    let error = |r: Result<NullSpace>| r.unwrap_err().to_string();
    let mask = Degradation::mask(&[4], &[false; 4]).unwrap();
    assert_eq!(error(NullSpace::new(mask, &[0.0; 4], 0.0)), "nothing is known of the sample: the mask leaves nothing");
    let all = || Degradation::identity(&[4]);
    assert!(error(NullSpace::new(all(), &[0.0; 3], 0.0)).contains("must have 4 numbers, of shape [4], but has 3"));
    assert!(error(NullSpace::new(all(), &[0.0; 4], -0.1)).contains("0 or more, not -0.1"));
    assert!(error(NullSpace::new(all(), &[0.0, f32::NAN, 0.0, 0.0], 0.0)).contains("element 1 is NaN"));
    let box_average = Degradation::box_average(&[1, 28, 30], 4).unwrap_err().to_string();
    assert!(box_average.contains("30x28 cannot be made of boxes of 4x4"), "{box_average}");
    assert!(Degradation::grey(&[1, 2, 2]).is_err() && Degradation::mask(&[3], &[true; 2]).is_err());
    assert!(Replacement::new(&[1.0], &[true, false]).is_err());
    let mut network = pairs(&[2], 0.0, 1.0, 0.0);
    let mut constraint = Replacement::new(&[1.0; 3], &[true; 3]).unwrap();
    let mut sampler = Sampler::new(ddim(0.0).compile(&grid(3), &schedule(), PREDICTION).unwrap(), 2);
    let mut control = Control { constraint: Some(&mut constraint), ..Control::default() };
    let run = sampler.run(&mut network, &Condition::default(), &mut Noise::new(0, 0), &mut [0.0; 2], &mut control);
    assert_eq!(run.unwrap_err().to_string(), "the constraint is for samples of 3 numbers, but these have 2");
}
