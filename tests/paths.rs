//! What starts from a sample, keeps to what is known of one, or goes back to noise, on every path: against the closed forms that
//! Gaussian data has, and loops in f64.

use edgegen::config::{PredictionType, Threshold};
use edgegen::constraint::{Constraint, Degradation, NullSpace, Replacement};
use edgegen::likelihood::{Flow, Trace, slerp};
use edgegen::noise::Noise;
use edgegen::sampler::{AdaptiveSampler, Control, Sampler};
use edgegen::schedule::{Grid, Level, Marginal, RectifiedFlow, Start, VeSde, VpSde};
use edgegen::solver::{Adaptive, Method, Prediction, Resample, Solver};
use edgegen::{Condition, Network};

/// Pairs of elements around a mean, with this variance and correlation: their sums and differences are independent.
const MEAN: f64 = 0.2;
const VARIANCE: f64 = 0.5;
const CORRELATION: f64 = 0.6;

/// The halves of a pair's sum and difference, and back: the same function times 2.
fn turned([a, b]: [f64; 2]) -> [f64; 2] {
    [(a + b) / 2.0, (a - b) / 2.0]
}

/// The variances of the elements that a pair is turned into, as shares of VARIANCE.
const SHARES: [f64; 2] = [1.0 + CORRELATION, 1.0 - CORRELATION];

/// The standard deviation of x along the turned element `k`, in the pair's own units.
fn spread(level: Level, k: usize) -> f64 {
    (level.gamma.powi(2) * VARIANCE * SHARES[k] + level.sigma.powi(2)).sqrt()
}

/// The best estimate of the clean sample, of a whole sample.
fn x0_of(x: &[f64], level: Level) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for pair in x.chunks(2) {
        let of = turned([pair[0] - level.gamma * MEAN, pair[1] - level.gamma * MEAN]);
        let scaled: [f64; 2] =
            std::array::from_fn(|k| of[k] * level.gamma * VARIANCE * SHARES[k] / spread(level, k).powi(2));
        out.extend([MEAN + scaled[0] + scaled[1], MEAN + scaled[0] - scaled[1]]);
    }
    out
}

/// Where the probability-flow ODE leads from one level to another: it stretches each turned element by its spread.
fn along_the_flow(x: &[f64], from: Level, to: Level) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for pair in x.chunks(2) {
        let of = turned([pair[0] - from.gamma * MEAN, pair[1] - from.gamma * MEAN]);
        let scaled: [f64; 2] = std::array::from_fn(|k| of[k] * spread(to, k) / spread(from, k));
        out.extend([to.gamma * MEAN + scaled[0] + scaled[1], to.gamma * MEAN + scaled[0] - scaled[1]]);
    }
    out
}

/// The logarithm of the clean samples' density.
fn log_density(x: &[f64]) -> f64 {
    let of_pair = |pair: &[f64]| {
        let of = turned([pair[0] - MEAN, pair[1] - MEAN]);
        let ln_of = |k: usize| {
            // of the element over √2, whose length the turn keeps
            let variance = VARIANCE * SHARES[k];
            -0.5 * (2.0 * of[k] * of[k] / variance + (2.0 * std::f64::consts::PI * variance).ln())
        };
        ln_of(0) + ln_of(1)
    };
    x.chunks(2).map(of_pair).sum()
}

/// The exact network of this data on a path.
struct Pairs<M> {
    marginal: M,
    kind: PredictionType,
    len: [usize; 1],
}

impl<M: Marginal> Network for Pairs<M> {
    fn sample_shape(&self) -> &[usize] {
        &self.len
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let level = self.marginal.level(t);
        let x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        for ((out, x), x0) in out.iter_mut().zip(&x).zip(x0_of(&x, level)) {
            let eps = (x - level.gamma * x0) / level.sigma;
            *out = if self.kind == PredictionType::Flow { eps - x0 } else { eps } as f32;
        }
        Ok(())
    }
}

/// A path with what its networks predict, where its runs begin, and how little noise they end with.
#[derive(Clone, Copy)]
struct Case<M> {
    name: &'static str,
    marginal: M,
    kind: PredictionType,
    /// The time of the noisiest level, and of the cleanest before none.
    ends: [f64; 2],
}

const FLOW: Case<RectifiedFlow> =
    Case { name: "flow", marginal: RectifiedFlow, kind: PredictionType::Flow, ends: [1.0, 1e-3] };
const EXPLODING: Case<VeSde> =
    Case { name: "exploding", marginal: VeSde, kind: PredictionType::Epsilon, ends: [50.0, 1e-3] };

fn preserving() -> Case<VpSde> {
    Case { name: "preserving", marginal: VpSde::default(), kind: PredictionType::Epsilon, ends: [1.0, 1e-5] }
}

impl<M: Marginal + Copy> Case<M> {
    fn prediction(&self) -> Prediction {
        Prediction { kind: self.kind, threshold: Threshold::None }
    }

    fn network(&self, len: usize) -> Pairs<M> {
        Pairs { marginal: self.marginal, kind: self.kind, len: [len] }
    }

    /// From the noisiest level to none: evenly in ln(σ/γ), but for the first where that is infinite.
    fn grid(&self, steps: usize) -> Grid {
        let [first, last] = self.ends.map(|time| self.marginal.level(time));
        let begin = if first.gamma == 0.0 { 200.0f64 } else { first.edm_sigma() };
        let inner = if first.gamma == 0.0 { steps - 1 } else { steps };
        let line = |i: usize| begin.ln() + (last.edm_sigma() / begin).ln() * i as f64 / (inner - 1) as f64;
        let mut levels: Vec<Level> = (0..inner).map(|i| self.marginal.level_of_edm_sigma(line(i).exp())).collect();
        if first.gamma == 0.0 {
            levels.insert(0, first);
        }
        levels.push(Level::CLEAN);
        Grid::new(&levels).unwrap()
    }

    fn run(&self, solver: &str, grid: &Grid, x: &mut [f32], noise: &mut Noise, known: Option<&mut dyn Constraint>) {
        self.run_resampled(Solver::from_name(solver).unwrap(), grid, Resample::NONE, x, noise, known);
    }

    fn run_resampled(
        &self,
        solver: Solver,
        grid: &Grid,
        resample: Resample,
        x: &mut [f32],
        noise: &mut Noise,
        constraint: Option<&mut dyn Constraint>,
    ) {
        let program = solver.compile_resampled(grid, &self.marginal, self.prediction(), resample).unwrap();
        let mut control = Control { constraint, ..Control::default() };
        let mut network = self.network(x.len());
        Sampler::new(program, x.len()).run(&mut network, &Condition::default(), noise, x, &mut control).unwrap();
    }
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|v| *v as f32).collect()
}

#[track_caller]
fn close(what: &str, a: &[f32], b: &[f64], bound: f64) {
    let worst = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    println!("{what}: {worst:.1e}");
    assert!(worst < bound && a.len() == b.len(), "{what} is off by {worst:.1e}: {a:?} for {b:?}");
}

const SAMPLE: [f64; 4] = [0.9, -0.4, 0.3, 1.2];

/// The clean end of the flow, where the last step's estimate is too.
const CLEAN: Level = Level::CLEAN;

fn starts_near_a_sample<M: Marginal + Copy>(case: Case<M>) {
    let steps = 400;
    let whole = case.grid(steps);
    for strength in [0.25, 0.5, 0.75] {
        // the last share of the steps
        let level = whole.steps()[(steps as f64 * (1.0 - strength)) as usize].from;
        let grid = whole.starting(Start::Strength(strength), &case.marginal).unwrap();
        assert_eq!((grid.steps()[0].from, grid.steps().len()), (level, (steps as f64 * strength) as usize));
        let mut noise = Noise::new(5, 1);
        let mut z = [0f32; 4];
        noise.fill(&mut z);
        let noisy: Vec<f64> = (0..4).map(|i| level.gamma * SAMPLE[i] + level.sigma * f64::from(z[i])).collect();
        let expected = along_the_flow(&noisy, level, CLEAN);
        let mut x = z;
        level.noise(&narrow(&SAMPLE), &mut x);
        let mut by_heun = x;
        case.run("heun", &grid, &mut by_heun, &mut noise, None);
        close(&format!("{} near, strength {strength}", case.name), &by_heun, &expected, 2e-4);
        // a solver that chooses its steps, from the same place
        let ends = (level, case.marginal.level(case.ends[1]));
        let options = Adaptive { method: Method::RungeKutta45, rtol: 1e-6, atol: 1e-6 };
        let mut sampler = AdaptiveSampler::new(options, case.prediction(), ends, 4).unwrap();
        let (mut network, condition) = (case.network(4), Condition::default());
        sampler.run(&mut network, &case.marginal, &condition, &mut noise, &mut x, &mut Control::default()).unwrap();
        close(&format!("{} near by rk45, strength {strength}", case.name), &x, &expected, 5e-5);
    }
}

#[test]
fn a_run_near_a_sample_is_the_flow_from_where_it_starts() {
    starts_near_a_sample(preserving());
    starts_near_a_sample(FLOW);
    starts_near_a_sample(EXPLODING);
}

fn takes_known_noise<M: Marginal + Copy>(case: Case<M>) {
    for sigma in [0.1, 0.5, 2.0] {
        let grid = case.grid(400).starting(Start::Sigma(sigma), &case.marginal).unwrap();
        let level = grid.steps()[0].from;
        // y = x_0 + σ z, whatever the path: its level is where σ/γ is that
        assert!((level.edm_sigma() / sigma - 1.0).abs() < 1e-9, "{}: {level:?}", case.name);
        let scaled: Vec<f64> = SAMPLE.iter().map(|y| level.gamma * y).collect();
        let mut x = narrow(&scaled);
        case.run("heun", &grid, &mut x, &mut Noise::new(0, 0), None);
        close(&format!("{} from sigma {sigma}", case.name), &x, &along_the_flow(&scaled, level, CLEAN), 2e-4);
    }
    let none = case.grid(10).starting(Start::Sigma(1e6), &case.marginal);
    assert_eq!(none.is_ok(), case.ends[0] == 1.0 && case.name == "flow", "{}", case.name);
}

#[test]
fn noise_that_a_sample_has_is_taken_from_it() {
    takes_known_noise(preserving());
    takes_known_noise(FLOW);
    takes_known_noise(EXPLODING);
}

/// DDIM with η, in f64: before each evaluation what is known is put in with fresh noise, and after it the estimate is projected.
fn ddim_by_hand(
    grid: &Grid,
    x: &mut [f64],
    noise: &mut Noise,
    (values, known, replaces, eta): (&[f32], &[bool], bool, f64),
) {
    for step in grid.steps() {
        let (from, to) = (step.from, step.to);
        for i in (0..x.len()).filter(|i| replaces && known[*i]) {
            x[i] = from.gamma * f64::from(values[i]) + from.sigma * f64::from(noise.sample());
        }
        let raw = x0_of(x, from);
        let project = |i: usize, x0: f64| if !replaces && known[i] { f64::from(values[i]) } else { x0 };
        // of the variance that the step takes away, the posterior's share
        let added = from.sigma.powi(2) - (from.gamma / to.gamma * to.sigma).powi(2);
        let s = eta * to.sigma / from.sigma * added.max(0.0).sqrt();
        for (i, x) in x.iter_mut().enumerate() {
            let x0 = project(i, raw[i]);
            let eps = (*x - from.gamma * x0) / from.sigma;
            let z = if s == 0.0 { 0.0 } else { f64::from(noise.sample()) };
            *x = to.gamma * x0 + (to.sigma.powi(2) - s * s).max(0.0).sqrt() * eps + s * z;
        }
    }
    (0..x.len()).filter(|i| known[*i]).for_each(|i| x[i] = f64::from(values[i]));
}

fn keeps_to_what_is_known<M: Marginal + Copy>(case: Case<M>) {
    let (values, known) = ([0.8f32, f32::NAN, f32::NAN, -0.3], [true, false, false, true]);
    let grid = case.grid(30);
    for (replaces, eta) in [(true, 0.0), (true, 1.0), (false, 0.0), (false, 1.0)] {
        let mut noise = Noise::new(3, 0);
        let mut z = [0f32; 4];
        noise.fill(&mut z);
        let start = grid.steps()[0].from;
        // where γ stays 1, noise is as large as σ
        let scale = if case.name == "exploding" { start.sigma } else { 1.0 };
        let mut expected: Vec<f64> = z.iter().map(|z| scale * f64::from(*z)).collect();
        let mut x = narrow(&expected);
        let (mut replacement, mut projection);
        let constraint: &mut dyn Constraint = if replaces {
            replacement = Replacement::new(&values, &known).unwrap();
            &mut replacement
        } else {
            let degradation = Degradation::mask(&[4], &known).unwrap();
            projection = NullSpace::new(degradation, &values, 0.0).unwrap();
            &mut projection
        };
        ddim_by_hand(&grid, &mut expected, &mut Noise::new(3, 0).skipping(4), (&values, &known, replaces, eta));
        let solver = Solver::Ddim { eta };
        case.run_resampled(solver, &grid, Resample::NONE, &mut x, &mut noise, Some(constraint));
        close(&format!("{} known, replaced {replaces}, eta {eta}", case.name), &x, &expected, 2e-5);
        assert!((0..4).all(|i| !known[i] || x[i] == values[i]), "{x:?}");
    }
}

/// A stream from further on.
trait Skip {
    fn skipping(self, count: usize) -> Self;
}

impl Skip for Noise {
    fn skipping(mut self, count: usize) -> Self {
        (0..count).for_each(|_| _ = self.sample());
        self
    }
}

#[test]
fn runs_that_keep_to_what_is_known_are_those_of_a_loop_in_f64() {
    keeps_to_what_is_known(preserving());
    keeps_to_what_is_known(FLOW);
    keeps_to_what_is_known(EXPLODING);
}

/// Mean and variance of a pair's second element, whose first is known to be `a` and is put in before each evaluation, in f64: all
/// that DDIM with η = 1 and RePaint's resampling in blocks of one step do to them is linear.
fn moments_by_hand(grid: &Grid, a: f64, times: usize, start: f64) -> (f64, f64) {
    let (mut mean, mut variance) = (0.0, start * start);
    let steps = grid.steps();
    for (i, step) in steps.iter().enumerate() {
        let (from, to) = (step.from, step.to);
        let times = if i + 1 == steps.len() { 1 } else { times };
        for time in 0..times {
            // x_0 of the second element as a function of both
            let at = |pair: [f64; 2]| x0_of(&pair, from)[1];
            let (zero, by_a, by_b) = (at([0.0; 2]), at([1.0, 0.0]) - at([0.0; 2]), at([0.0, 1.0]) - at([0.0; 2]));
            let added = from.sigma.powi(2) - (from.gamma / to.gamma * to.sigma).powi(2);
            let s = to.sigma / from.sigma * added.max(0.0).sqrt();
            let of_eps = (to.sigma.powi(2) - s * s).max(0.0).sqrt() / from.sigma;
            let of_x0 = to.gamma - of_eps * from.gamma;
            mean = of_x0 * (zero + by_a * from.gamma * a + by_b * mean) + of_eps * mean;
            variance = (of_x0 * by_b + of_eps).powi(2) * variance + (of_x0 * by_a * from.sigma).powi(2) + s * s;
            if time + 1 < times {
                let back = from.gamma / to.gamma;
                mean *= back;
                variance = back * back * variance + from.sigma.powi(2) - (back * to.sigma).powi(2);
            }
        }
    }
    (mean, variance)
}

/// Of each pair the first is known: the second comes near to N(mean + ρ (a - mean), v (1 - ρ²)), the posterior.
fn fills_in_by_the_posterior<M: Marginal + Copy>(case: Case<M>) {
    let (n, first) = (8000, 1.1f32);
    let values: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { first } else { f32::NAN }).collect();
    let known: Vec<bool> = (0..n).map(|i| i % 2 == 0).collect();
    let grid = case.grid(60);
    let scale = if case.name == "exploding" { case.ends[0] } else { 1.0 };
    let posterior = (MEAN + CORRELATION * (f64::from(first) - MEAN), VARIANCE * (1.0 - CORRELATION.powi(2)));
    let mut before = f64::INFINITY;
    for times in [1, 5, 25] {
        let mut noise = Noise::new(9, 0);
        let mut x = vec![0.0; n];
        noise.fill(&mut x);
        x.iter_mut().for_each(|v| *v *= scale as f32);
        let mut constraint = Replacement::new(&values, &known).unwrap();
        let resample = Resample { times, jump: 1 };
        case.run_resampled(Solver::Ddim { eta: 1.0 }, &grid, resample, &mut x, &mut noise, Some(&mut constraint));
        let others: Vec<f64> = x.chunks(2).map(|pair| f64::from(pair[1])).collect();
        let count = others.len() as f64;
        let mean = others.iter().sum::<f64>() / count;
        let variance = others.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let expected = moments_by_hand(&grid, f64::from(first), times, scale);
        println!("{}, {times} times: {mean:.4} {variance:.4} for {expected:.4?}, {posterior:.4?}", case.name);
        // four standard errors
        assert!((mean - expected.0).abs() < 4.0 * (expected.1 / count).sqrt(), "{}: {mean} {expected:?}", case.name);
        assert!(
            (variance / expected.1 - 1.0).abs() < 4.0 * (2.0 / count).sqrt(),
            "{}: {variance} {expected:?}",
            case.name
        );
        let off = (expected.0 - posterior.0).abs() + (expected.1 - posterior.1).abs();
        assert!(off < 0.6 * before, "{}: {off} with {times} times, after {before}", case.name);
        before = off;
    }
}

#[test]
fn what_is_unknown_follows_from_what_is_known() {
    fills_in_by_the_posterior(preserving());
    fills_in_by_the_posterior(FLOW);
    fills_in_by_the_posterior(EXPLODING);
}

fn goes_back_and_has_its_density<M: Marginal + Copy>(case: Case<M>) {
    let [noise, data] = case.ends.map(|time| case.marginal.level(time));
    let flow = Flow::new(&case.marginal, case.kind, data, noise).unwrap().with_tolerance(1e-6, 1e-6).unwrap();
    let (mut network, condition) = (case.network(4), Condition::default());
    let scaled: Vec<f64> = SAMPLE.iter().map(|v| data.gamma * v).collect();
    let latent = along_the_flow(&scaled, data, noise);
    let scale = noise.sigma;
    let z = flow.encode(&mut network, &condition, &narrow(&SAMPLE)).unwrap();
    close(&format!("{} encoded", case.name), &z, &latent, 2e-5 * scale.max(1.0));
    let back = flow.decode(&mut network, &condition, &narrow(&latent)).unwrap();
    close(&format!("{} decoded", case.name), &back, &SAMPLE, 2e-5);
    // between the latents of two samples
    let other = [-0.5, 0.6, 1.0, 0.1];
    let other_latent = along_the_flow(&other.map(|v| data.gamma * v), data, noise);
    let middle = slerp(&narrow(&latent), &narrow(&other_latent), 0.3);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let angle =
        (dot(&latent, &other_latent) / (dot(&latent, &latent) * dot(&other_latent, &other_latent)).sqrt()).acos();
    let of = [0.7, 0.3].map(|w| (w * angle).sin() / angle.sin());
    let by_hand: Vec<f64> = latent.iter().zip(&other_latent).map(|(a, b)| of[0] * a + of[1] * b).collect();
    close(&format!("{} between", case.name), &middle, &by_hand, 1e-5 * scale.max(1.0));
    let between = flow.decode(&mut network, &condition, &middle).unwrap();
    let expected = along_the_flow(&by_hand, noise, data).iter().map(|v| v / data.gamma).collect::<Vec<_>>();
    close(&format!("{} interpolated", case.name), &between, &expected, 2e-5);
    // the density of the latent, taken to be the path's noise, and what the way stretches
    let deviation = noise.gamma.hypot(noise.sigma);
    let stretched: f64 = (0..2).map(|k| 2.0 * (spread(noise, k) / spread(data, k) * data.gamma).ln()).sum();
    let of_noise = |z: &f64| -0.5 * ((z / deviation).powi(2) + (2.0 * std::f64::consts::PI * deviation.powi(2)).ln());
    let expected = latent.iter().map(of_noise).sum::<f64>() + stretched;
    // which is the data's, but for what is left of the data in the latent
    assert!((expected - log_density(&SAMPLE)).abs() < 6e-3, "{}: {expected} {}", case.name, log_density(&SAMPLE));
    for trace in [Trace::Exact, Trace::Hutchinson(400)] {
        let found =
            flow.log_likelihood(&mut network, &condition, &narrow(&SAMPLE), trace, &mut Noise::new(1, 0)).unwrap();
        let error = found.standard_error.unwrap();
        println!("{}: ln p {:.5} ± {error:.5} for {expected:.5}", case.name, found.nats);
        assert!((found.nats - expected).abs() < 4.0 * error + 3e-4, "{}: {} for {expected}", case.name, found.nats);
        close(&format!("{} encoded on the way", case.name), &found.latent, &latent, 2e-5 * scale.max(1.0));
    }
}

#[test]
fn samples_go_back_to_their_noise_and_have_their_density() {
    goes_back_and_has_its_density(preserving());
    goes_back_and_has_its_density(FLOW);
    goes_back_and_has_its_density(EXPLODING);
}

/// Tables there and back.
fn tables_go_back<M: Marginal + Copy>(case: Case<M>) {
    let grid = case.grid(300);
    let levels: Vec<Level> = grid.levels().collect();
    let (noise, data) = (levels[0], levels[levels.len() - 2]);
    let scaled: Vec<f64> = SAMPLE.iter().map(|v| data.gamma * v).collect();
    let latent = along_the_flow(&scaled, data, noise);
    for solver in ["heun", "dpm++2m", "unipc-2", "rk4"] {
        let mut z = narrow(&SAMPLE);
        case.run(solver, &grid.reversed().unwrap(), &mut z, &mut Noise::new(0, 0), None);
        let unit: Vec<f32> = z.iter().map(|v| v / noise.sigma as f32).collect();
        let expected: Vec<f64> = latent.iter().map(|v| v / noise.sigma).collect();
        close(&format!("{} back by {solver}", case.name), &unit, &expected, 2e-3);
        let mut x = narrow(&latent);
        case.run(solver, &grid, &mut x, &mut Noise::new(0, 0), None);
        close(&format!("{} there by {solver}", case.name), &x, &SAMPLE, 2e-3);
    }
}

#[test]
fn tables_lead_to_the_noise_of_a_sample_and_back() {
    tables_go_back(preserving());
    tables_go_back(FLOW);
    tables_go_back(EXPLODING);
}
