//! Guidance towards the last plan, against real-time chunking as its paper has it, on a network whose derivative is known.
//! `tools/fixtures/rtc.py` wrote the reference by automatic differentiation.

mod common;

use common::fixture;
use edgegen::Condition;
use edgegen::Network;
use edgegen::config::{PredictionType, Threshold};
use edgegen::constraint::{Constraint, Guidance, Jacobian, Replacement};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::{Grid, Level, Marginal, RectifiedFlow, VpSde};
use edgegen::solver::{Prediction, Solver};
use serde::Deserialize;
use std::f64::consts::PI;

/// The actions of a plan, of one number each.
const LEN: usize = 12;

/// The exact estimate of the clean sample for two modes of smooth paths, whose covariance is diagonal in a basis of cosines.
/// It is told the levels by their numbers.
struct Paths(Vec<Level>);

fn basis(k: usize, i: usize) -> f64 {
    let scale = if k == 0 { 1.0 / LEN as f64 } else { 2.0 / LEN as f64 };
    scale.sqrt() * (PI * (i as f64 + 0.5) * k as f64 / LEN as f64).cos()
}

fn variance(k: usize) -> f64 {
    0.4 / (1.0 + k as f64).powi(3) + 1e-3
}

fn mean(mode: usize, i: usize) -> f64 {
    [0.8, -0.8][mode] * (PI * (i as f64 + 0.5) / LEN as f64).sin()
}

type Path = [f64; LEN];

/// A path multiplied by a function of the covariance.
fn filtered(x: &Path, factor: impl Fn(f64) -> f64) -> Path {
    let coefficient = |k: usize| (0..LEN).map(|i| basis(k, i) * x[i]).sum::<f64>() * factor(variance(k));
    let all: Path = std::array::from_fn(coefficient);
    std::array::from_fn(|i| (0..LEN).map(|k| basis(k, i) * all[k]).sum())
}

fn dot(a: &Path, b: &Path) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Of each mode its probability, its estimate, and the derivative of the logarithm of its density.
fn modes(x: &Path, Level { gamma, sigma, .. }: Level) -> [(f64, Path, Path); 2] {
    let marginal = |v: f64| gamma * gamma * v + sigma * sigma;
    let all = [0, 1].map(|mode| {
        let away: Path = std::array::from_fn(|i| x[i] - gamma * mean(mode, i));
        let slope = filtered(&away, |v| -1.0 / marginal(v));
        let moved = filtered(&away, |v| gamma * v / marginal(v));
        (0.5 * dot(&away, &slope), std::array::from_fn(|i| mean(mode, i) + moved[i]), slope)
    });
    let most = all[0].0.max(all[1].0);
    let sum: f64 = all.iter().map(|(log, ..)| (log - most).exp()).sum();
    all.map(|(log, estimate, slope)| ((log - most).exp() / sum, estimate, slope))
}

fn estimate(x: &Path, level: Level) -> Path {
    let modes = modes(x, level);
    std::array::from_fn(|i| modes.iter().map(|(p, estimate, _)| p * estimate[i]).sum())
}

/// `Jᵀ e` by its closed form.
fn backwards(x: &Path, level: Level, e: &Path) -> Path {
    let Level { gamma, sigma, .. } = level;
    let modes = modes(x, level);
    let mean_slope: Path = std::array::from_fn(|i| modes.iter().map(|(p, _, slope)| p * slope[i]).sum());
    let within = filtered(e, |v| gamma * v / (gamma * gamma * v + sigma * sigma));
    let between =
        |i: usize| modes.iter().map(|(p, x0, slope)| dot(x0, e) * p * (slope[i] - mean_slope[i])).sum::<f64>();
    std::array::from_fn(|i| within[i] + between(i))
}

/// The distance to the nearer mode in standard deviations, as the root mean square over all directions: 1 on average for a
/// path that is drawn from it.
fn strangeness(x: &[f32]) -> f64 {
    let of = |mode: usize| {
        let away: Path = std::array::from_fn(|i| f64::from(x[i]) - mean(mode, i));
        (dot(&away, &filtered(&away, |v| 1.0 / v)) / LEN as f64).sqrt()
    };
    of(0).min(of(1))
}

fn wide(x: &[f32]) -> Path {
    std::array::from_fn(|i| f64::from(x[i]))
}

impl Network for Paths {
    fn sample_shape(&self) -> &[usize] {
        &[LEN]
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let x0 = estimate(&wide(x), self.0[t as usize]);
        out.iter_mut().zip(x0).for_each(|(out, x0)| *out = x0 as f32);
        Ok(())
    }
}

/// Guidance with the exact derivative.
struct Exact {
    values: Path,
    weights: Path,
    x: Path,
}

impl Constraint for Exact {
    fn len(&self) -> usize {
        LEN
    }

    fn enter(&mut self, _: Level, x: &mut [f32], _: &mut Noise) {
        self.x = wide(x);
    }

    fn correct(&mut self, level: Level, x0: &mut [f32]) {
        let Level { gamma, sigma, .. } = level;
        let tau = gamma / (gamma + sigma);
        let r2 = (1.0 - tau).powi(2) / (tau.powi(2) + (1.0 - tau).powi(2));
        let weight = if tau == 0.0 { 5.0 } else { ((1.0 - tau) / (tau * r2)).min(5.0) };
        let error: Path = std::array::from_fn(|i| self.weights[i] * (self.values[i] - f64::from(x0[i])));
        let moved = backwards(&self.x, level, &error);
        // of x / (γ + σ), the flow's sample
        let scale = (1.0 - tau) * weight * (gamma + sigma);
        x0.iter_mut().zip(moved).for_each(|(x0, moved)| *x0 += (scale * moved) as f32);
    }
}

/// Runs DDIM, which for a flow is Euler's method, from this noise.
fn run(levels: &[Level], noise: &[f32], constraint: Option<&mut dyn Constraint>) -> (Vec<f32>, usize) {
    let is_flow = levels[1].gamma + levels[1].sigma < 1.0 + 1e-9;
    let marginal: &dyn Marginal = if is_flow { &RectifiedFlow } else { &VpSde::default() };
    let prediction = Prediction { kind: PredictionType::Sample, threshold: Threshold::None };
    let program =
        Solver::from_name("ddim").unwrap().compile(&Grid::new(levels).unwrap(), marginal, prediction).unwrap();
    let mut sampler = Sampler::new(program, LEN);
    let mut x = noise.to_vec();
    let mut control = Control { constraint, ..Control::default() };
    let (mut network, mut noise) = (Paths(levels.to_vec()), Noise::new(0, 0));
    let outcome = sampler.run(&mut network, &Condition::default(), &mut noise, &mut x, &mut control).unwrap();
    (x, outcome.nfe)
}

fn flow_levels(steps: usize) -> Vec<Level> {
    let level = |i: usize| {
        let tau = i as f64 / steps as f64;
        Level { time: i as f64, gamma: tau, sigma: 1.0 - tau }
    };
    (0..=steps).map(level).collect()
}

fn preserving_levels(angles: &[f64]) -> Vec<Level> {
    let level = |(i, angle): (usize, &f64)| Level { time: i as f64, gamma: angle.cos(), sigma: angle.sin() };
    angles.iter().enumerate().map(level).collect()
}

#[derive(Deserialize)]
struct Reference {
    delay: usize,
    executed: usize,
    most: f64,
    steps: usize,
    angles: Vec<f64>,
    weights: Vec<f64>,
    cases: Vec<Case>,
    prefix: Vec<Beginning>,
}

/// A plan of `prefix.onnx` that begins with what is known.
#[derive(Deserialize)]
struct Beginning {
    known: usize,
    steps: usize,
    noise: Vec<f32>,
    last: Vec<f32>,
    sample: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    last: Vec<f64>,
    noise: Vec<f64>,
    flow: Vec<f64>,
    preserving: Vec<f64>,
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|v| *v as f32).collect()
}

fn distance(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_finite_difference_is_the_papers_vector_jacobian_product() {
    let reference: Reference = serde_json::from_slice(&fixture("rtc/reference.json")).unwrap();
    assert_eq!((reference.weights.len(), reference.delay + reference.executed), (LEN, 7));
    let weights = narrow(&reference.weights);
    let (flow, preserving) = (flow_levels(reference.steps), preserving_levels(&reference.angles));
    // what guidance changes is no small thing
    let mut change: f64 = 0.0;
    for case in &reference.cases {
        let (last, noise) = (narrow(&case.last), narrow(&case.noise));
        for (levels, expected) in [(&flow, &case.flow), (&preserving, &case.preserving)] {
            let mut exact = Exact { values: wide(&last), weights: wide(&weights), x: [0.0; LEN] };
            let (sample, nfe) = run(levels, &noise, Some(&mut exact));
            assert!(distance(&sample, expected) < 1e-5, "exact: {:e}", distance(&sample, expected));
            assert_eq!(nfe, reference.steps);
            let mut guidance = Guidance::new(&last, &weights, reference.most, Jacobian::Difference).unwrap();
            let (sample, nfe) = run(levels, &noise, Some(&mut guidance));
            let error = distance(&sample, expected);
            println!("difference: {error:.1e}");
            assert!(error < 1e-2, "difference: {error:e}");
            assert_eq!(nfe, 2 * reference.steps);
            change = change.max(distance(&run(levels, &noise, None).0, expected));
        }
    }
    assert!(change > 0.5, "{change}");
}

#[cfg(feature = "onnx")]
#[test]
fn a_network_of_a_time_for_each_action_is_given_the_first_ones_clean() {
    use edgegen::constraint::Prefix;
    use edgegen::{Model, Request};
    let reference: Reference = serde_json::from_slice(&fixture("rtc/reference.json")).unwrap();
    let model = Model::open(common::fixtures().join("rtc/prefix.onnx")).unwrap();
    let clean = Level { time: 1.0, gamma: 1.0, sigma: 0.0 };
    for case in &reference.prefix {
        let mut generator = model.generator().sampler("ddim").steps(case.steps).build().unwrap();
        let mut prefix = Prefix::new(&case.last, 2, case.known, clean).unwrap();
        let asked = || Request::new(0, 0).from_noise(&case.noise);
        let sample = generator.run(&asked().constraint(&mut prefix)).unwrap().sample.to_vec();
        assert!(distance(&sample, &case.sample) < 1e-5, "{}: {:e}", case.known, distance(&sample, &case.sample));
        // and none is clean after that
        let free = generator.run(&asked()).unwrap().sample.to_vec();
        assert_eq!(case.known == 0, distance(&free, &case.sample) < 1e-5);
    }
    let other = Model::open(common::fixtures().join("lerobot/model.onnx"));
    let other = other
        .or_else(|_| {
            edgegen::ModelOptions::new()
                .scheduler_config(Default::default())
                .open(common::fixtures().join("lerobot/model.onnx"))
        })
        .unwrap();
    let mut prefix = Prefix::new(&[0.0; 16], 2, 1, clean).unwrap();
    let mut generator = other.generator().sampler("ddim").steps(2).build().unwrap();
    let error = generator.run(&Request::new(0, 0).constraint(&mut prefix)).unwrap_err().to_string();
    assert!(error.contains("does not take a time for each token"), "{error}");
    use edgegen::policy::Joint;
    let error = other.generator().policy().joint(Joint::Prefix).build().err().unwrap().to_string();
    assert!(error.contains("does not take a time for each token"), "{error}");
    let mut policy = model.generator().steps(2).policy().joint(Joint::Prefix).n_action_steps(2);
    policy = policy.timing(edgegen::policy::Timing::Simulated { delay: 2 });
    let mut policy = policy.build().unwrap();
    let mut last: Option<(u64, Vec<f32>)> = None;
    for _ in 0..12 {
        let acted = policy.act(&edgegen::policy::Observation::new()).unwrap();
        last = Some((acted.plan.unwrap(), acted.values.to_vec()));
    }
    assert!(last.unwrap().0 >= 4);
}

/// How far the derivative of a trained network is from that of the best estimate, which is symmetric: `‖J - Jᵀ‖ / ‖J‖` of
/// `push.onnx` at its own plans, by central differences.
#[cfg(feature = "onnx")]
#[test]
fn a_trained_networks_derivative_is_as_far_from_symmetric_as_is_documented() {
    use edgegen::schedule::Schedule;
    use edgegen::{Model, Request};
    let model =
        Model::open(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy/push.onnx")).unwrap();
    let schedule = Schedule::from_config(model.scheduler_config()).unwrap();
    assert_eq!(model.scheduler_config().prediction(), PredictionType::V);
    let seen = [0.15, 0.0, 0.6, 0.0, 0.15, 0.0, 0.6, 0.0];
    let condition = Condition::default().with("global_cond", seen);
    let mut scaled = condition.named.clone();
    model.normalizer().normalize_conditions(&mut scaled);
    let mut network = model.network().unwrap();
    network.bind(0, &Condition::default().with("global_cond", scaled["global_cond"].clone())).unwrap();
    let mut generator = model.generator().steps(10).build().unwrap();
    let mut ratios: Vec<f64> = Vec::new();
    for time in [10.0, 30.0, 50.0, 70.0, 90.0] {
        let (mut asymmetric, mut all) = (0.0, 0.0);
        for index in 0..8 {
            let mut plan = generator.run(&Request::new(3, index).conditions(&condition)).unwrap().sample.to_vec();
            model.normalizer().normalize(&mut plan);
            let level = schedule.level(time);
            let mut x = vec![0.0; plan.len()];
            Noise::new(4, index).fill(&mut x);
            level.noise(&plan, &mut x);
            let mut clean = |x: &[f32]| -> Vec<f64> {
                let mut v = vec![0.0; x.len()];
                network.predict(x, level.time, 0, &mut v).unwrap();
                x.iter().zip(v).map(|(x, v)| level.gamma * f64::from(*x) - level.sigma * f64::from(v)).collect()
            };
            let len = x.len();
            let columns: Vec<Vec<f64>> = (0..len)
                .map(|j| {
                    let step = 0.01 * level.sigma as f32;
                    let mut moved = [x.clone(), x.clone()];
                    (moved[0][j], moved[1][j]) = (x[j] + step, x[j] - step);
                    let ends = moved.map(|x| clean(&x));
                    (0..len).map(|i| (ends[0][i] - ends[1][i]) / (2.0 * f64::from(step))).collect()
                })
                .collect();
            for (i, column) in columns.iter().enumerate() {
                for (j, value) in column.iter().enumerate() {
                    asymmetric += (value - columns[j][i]).powi(2);
                    all += value.powi(2);
                }
            }
        }
        let ratio = (asymmetric / all).sqrt();
        println!("time {time}: {ratio:.2}");
        ratios.push(ratio);
    }
    // √2 is that of a derivative without any symmetry
    let documented = [0.86, 0.83, 0.86, 1.00, 1.19];
    assert!(ratios.iter().zip(documented).all(|(a, b)| (a - b).abs() < 0.05), "{ratios:?}");
}

/// The table of docs/policy.md.
#[test]
fn what_each_way_of_joining_plans_comes_to() {
    let reference: Reference = serde_json::from_slice(&fixture("rtc/reference.json")).unwrap();
    let weights = narrow(&reference.weights);
    let levels = flow_levels(reference.steps);
    let count = 400;
    let mut rows: Vec<(&str, [f64; 4])> = Vec::new();
    for name in ["none", "inpainted", "diagonal", "difference", "exact"] {
        // of the frozen actions, of the step after them, in standard deviations, from the exact form
        let mut sums = [0.0; 4];
        for index in 0..count {
            let mut random = Noise::new(11, index);
            let coefficients: Path = std::array::from_fn(|k| variance(k).sqrt() * f64::from(random.sample()));
            let away = |i: usize| (0..LEN).map(|k| basis(k, i) * coefficients[k]).sum::<f64>();
            let last: Vec<f32> = (0..LEN).map(|i| (mean(index as usize % 2, i) + away(i)) as f32).collect();
            let mut noise = vec![0.0; LEN];
            random.fill(&mut noise);
            let mut exact = Exact { values: wide(&last), weights: wide(&weights), x: [0.0; LEN] };
            let (expected, _) = run(&levels, &noise, Some(&mut exact));
            let d = reference.delay;
            let known: Vec<bool> = (0..LEN).map(|i| i < d).collect();
            let mut replacement = Replacement::new(&last, &known).unwrap();
            let guidance = |jacobian| Guidance::new(&last, &weights, reference.most, jacobian).unwrap();
            let (mut diagonal, mut difference) = (guidance(Jacobian::Diagonal), guidance(Jacobian::Difference));
            let constraint: Option<&mut dyn Constraint> = match name {
                "inpainted" => Some(&mut replacement),
                "diagonal" => Some(&mut diagonal),
                "difference" => Some(&mut difference),
                "exact" => Some(&mut exact),
                _ => None,
            };
            let (sample, _) = run(&levels, &noise, constraint);
            let off = |range: std::ops::Range<usize>| -> f64 {
                range.clone().map(|i| f64::from(sample[i] - last[i]).powi(2)).sum::<f64>() / range.len() as f64
            };
            sums[0] += off(0..d);
            // where the robot goes from the last plan's action to the new one's
            sums[1] += f64::from(sample[d] - last[d - 1]).powi(2);
            sums[2] += strangeness(&sample).powi(2);
            sums[3] += sample.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / LEN as f64;
        }
        let means = sums.map(|sum| (sum / count as f64).sqrt());
        println!("| {name} | {:.3} | {:.3} | {:.2} | {:.3} |", means[0], means[1], means[2], means[3]);
        rows.push((name, means));
    }
    let of = |name: &str| rows.iter().find(|row| row.0 == name).unwrap().1;
    let (none, diagonal, difference, exact) = (of("none"), of("diagonal"), of("difference"), of("exact"));
    assert!(difference[3] < 0.01 && exact[3] == 0.0, "{rows:?}");
    assert!(exact[1] < 0.7 * none[1] && diagonal[1] < 0.8 * none[1], "{rows:?}");
}
