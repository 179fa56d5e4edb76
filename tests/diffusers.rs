//! Every scheduler class, told by the very `scheduler_config.json` that diffusers saves, gives the sample that
//! diffusers gives. The fixtures are made by `tools/fixtures/diffusers_schedulers.py` and `diffusers_special.py`.

use edgegen::config::{Preconditioning, PredictionType, SchedulerConfig};
use edgegen::network::Preconditioned;
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::{Grid, Schedule};
use edgegen::solver::{Prediction, Solver};
use edgegen::{Condition, Model, Network, Settings};
use serde::Deserialize;
use std::collections::BTreeMap;

const DIM: usize = 4;
const WEIGHTS: [f64; 3] = [0.5, 0.3, 0.2];
const MEANS: [[f64; DIM]; 3] = [[0.9, -0.5, 0.2, 0.4], [-0.7, 0.6, -0.3, 0.1], [0.1, 1.0, 0.8, -0.9]];
const VARIANCES: [f64; 3] = [0.04, 0.09, 0.02];

/// The script's network: the exact prediction for a mixture of Gaussians.
struct Mixture {
    schedule: Schedule,
    kind: PredictionType,
    /// Whether it is told σ, takes y = x/γ and gives the score.
    scores: bool,
    /// Which variance it gives, and the latest.
    variance_type: Option<String>,
    variance: [f32; DIM],
}

impl Mixture {
    fn new(config: &SchedulerConfig, schedule: Schedule) -> Self {
        let scores = config.preconditioning() == Preconditioning::Score;
        let variance_type = config.class.variance_type.clone().filter(|v| v.starts_with("learned"));
        Mixture { schedule, kind: config.prediction(), scores, variance_type, variance: [0.0; DIM] }
    }
}

impl Network for Mixture {
    fn sample_shape(&self) -> &[usize] {
        &[DIM]
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let level = self.schedule.level(t);
        let (gamma, sigma) = if self.scores { (1.0, t) } else { (level.gamma, level.sigma) };
        let x: [f64; DIM] = std::array::from_fn(|i| f64::from(x[i]));
        let wave = |i: usize| (3.0 * x[i] + i as f64).sin();
        self.variance = std::array::from_fn(|i| match self.variance_type.as_deref() {
            Some("learned") => (0.002 * (1.5 + wave(i))) as f32,
            _ => wave(i) as f32,
        });
        let variance = VARIANCES.map(|v| gamma * gamma * v + sigma * sigma);
        let logs: [f64; 3] = std::array::from_fn(|k| {
            let square: f64 = (0..DIM).map(|i| (x[i] - gamma * MEANS[k][i]).powi(2)).sum();
            WEIGHTS[k].ln() - square / (2.0 * variance[k]) - 0.5 * DIM as f64 * variance[k].ln()
        });
        let most = logs.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logs.iter().map(|l| (l - most).exp()).sum();
        for i in 0..DIM {
            let of = |k: usize| MEANS[k][i] + gamma * VARIANCES[k] / variance[k] * (x[i] - gamma * MEANS[k][i]);
            let x0: f64 = (0..3).map(|k| (logs[k] - most).exp() / sum * of(k)).sum();
            let eps = (x[i] - gamma * x0) / sigma;
            out[i] = match self.kind {
                _ if self.scores => -eps / sigma,
                PredictionType::Epsilon => eps,
                PredictionType::V => gamma * eps - sigma * x0,
                PredictionType::Sample => x0,
                PredictionType::Flow => eps - x0,
                PredictionType::FlowToData => x0 - eps,
                other => panic!("no fixture has {other:?}"),
            } as f32;
        }
        Ok(())
    }

    fn variance(&self) -> Option<&[f32]> {
        self.variance_type.is_some().then_some(&self.variance)
    }
}

#[derive(Deserialize)]
struct Case {
    config: String,
    steps: usize,
    options: BTreeMap<String, f64>,
    /// The times that the steps visit, if they are given.
    times: Option<Vec<f64>>,
    calls: usize,
    sample: Vec<f64>,
}

/// Settings that give the times of the steps.
fn at_times(times: &[f64]) -> Settings {
    let mut settings = Settings::of(&Model::embedded().unwrap()).unwrap();
    settings.steps = times.len();
    settings.timesteps = Some(times.to_vec());
    settings
}

/// The relative error of our sample, and how often the network was called.
fn run(case: &Case) -> (f64, usize) {
    let mut config = SchedulerConfig::from_json(&case.config).unwrap();
    config.class.mu = case.options.get("mu").copied();
    assert_eq!(config.unknown_fields().collect::<Vec<_>>(), [""; 0], "{}", case.config);
    let schedule = Schedule::from_config(&config).unwrap();
    let mut solver = Solver::of_scheduler(&config).unwrap().unwrap();
    if let Some(eta) = case.options.get("eta") {
        solver = solver.with_eta(*eta).unwrap();
    }
    let grid = match &case.times {
        None => Grid::of_scheduler(&config, &schedule, case.steps).unwrap(),
        Some(times) => at_times(times).grid(&config, &schedule).unwrap(),
    };
    let prediction = Prediction { kind: config.prediction(), threshold: config.threshold() };
    let mut sampler = Sampler::new(solver.compile(&grid, &schedule, prediction).unwrap(), DIM);
    let mut noise = Noise::new(11, 0);
    let mut x = [0.0; DIM];
    noise.fill(&mut x);
    let mut network = Preconditioned::new(Mixture::new(&config, schedule), config.preconditioning());
    let outcome =
        sampler.run(&mut network, &Condition::default(), &mut noise, &mut x, &mut Control::default()).unwrap();
    let difference: f64 = x.iter().zip(&case.sample).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let size: f64 = case.sample.iter().map(|b| b * b).sum();
    ((difference / size).sqrt(), outcome.nfe)
}

fn check(name: &str, text: &str, at_least: usize, bound: f64) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    assert!(cases.len() >= at_least, "{name} has only {} cases", cases.len());
    let mut failed = 0;
    for (i, case) in cases.iter().enumerate() {
        let (error, calls) = run(case);
        println!("{name} {i}: error {error:.1e}, {calls} calls");
        if !(error < bound && calls == case.calls) {
            failed += 1;
            println!("  diffusers made {} calls in {} steps with {}", case.calls, case.steps, case.config);
        }
    }
    assert_eq!(failed, 0, "of {} cases of {name}", cases.len());
}

macro_rules! classes {
    ($bound:literal: $($test:ident $name:literal $at_least:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            check($name, include_str!(concat!("fixtures/diffusers/", $name, ".json")), $at_least, $bound);
        }
    )*};
}

classes! {
    1e-4:
    ddim "DDIMScheduler" 9,
    ddpm "DDPMScheduler" 5,
    pndm "PNDMScheduler" 8,
    dpm_solver_multistep "DPMSolverMultistepScheduler" 20,
    dpm_solver_singlestep "DPMSolverSinglestepScheduler" 10,
    unipc "UniPCMultistepScheduler" 11,
    deis "DEISMultistepScheduler" 7,
    euler "EulerDiscreteScheduler" 10,
    euler_ancestral "EulerAncestralDiscreteScheduler" 3,
    heun "HeunDiscreteScheduler" 7,
    lms "LMSDiscreteScheduler" 5,
    dpm2 "KDPM2DiscreteScheduler" 5,
    dpm2_ancestral "KDPM2AncestralDiscreteScheduler" 4,
    ddim_parallel "DDIMParallelScheduler" 2,
    ddpm_parallel "DDPMParallelScheduler" 2,
    lcm "LCMScheduler" 5,
    tcd "TCDScheduler" 5,
    ddim_inverse "DDIMInverseScheduler" 3,
    dpm_solver_multistep_inverse "DPMSolverMultistepInverseScheduler" 7,
    ipndm "IPNDMScheduler" 2,
    cog_video_x_ddim "CogVideoXDDIMScheduler" 3,
    cog_video_x_dpm "CogVideoXDPMScheduler" 3,
}

classes! {
    5e-6:
    sa_solver "SASolverScheduler" 15,
}

// with a variance that the network gives; the predictor and corrector of score-based SDEs
classes! {
    2e-6:
    ddpm_learned "DDPMScheduler.learned" 5,
    ddpm_parallel_learned "DDPMParallelScheduler.learned" 2,
    score_sde_ve "ScoreSdeVeScheduler" 4,
    score_sde_vp "ScoreSdeVpScheduler" 3,
}

// through times that are given
classes! {
    1e-6:
    ddpm_at_times "DDPMScheduler.timesteps" 2,
    ddpm_parallel_at_times "DDPMParallelScheduler.timesteps" 1,
    lcm_at_times "LCMScheduler.timesteps" 2,
    tcd_at_times "TCDScheduler.timesteps" 2,
    dpm_solver_singlestep_at_times "DPMSolverSinglestepScheduler.timesteps" 2,
    heun_at_times "HeunDiscreteScheduler.timesteps" 2,
    flow_match_euler_at_times "FlowMatchEulerDiscreteScheduler.timesteps" 2,
    flow_match_lcm_at_times "FlowMatchLCMScheduler.timesteps" 1,
}

// whose samples diffusers has in float32
classes! {
    2e-6:
    dpm_solver_multistep_at_times "DPMSolverMultistepScheduler.timesteps" 4,
    euler_at_times "EulerDiscreteScheduler.timesteps" 3,
}

// on rectified flows
classes! {
    2e-6:
    flow_match_euler "FlowMatchEulerDiscreteScheduler" 14,
    flow_match_heun "FlowMatchHeunDiscreteScheduler" 3,
    flow_match_lcm "FlowMatchLCMScheduler" 5,
    flow_dpm_solver_multistep "DPMSolverMultistepScheduler.flow" 10,
    flow_dpm_solver_singlestep "DPMSolverSinglestepScheduler.flow" 4,
    flow_unipc "UniPCMultistepScheduler.flow" 10,
}

// whose coefficients diffusers computes in f32, as differences of nearly the same numbers
classes! {
    1e-4:
    flow_deis "DEISMultistepScheduler.flow" 3,
}
