//! Every scheduler class, told by the very `scheduler_config.json` that diffusers saves, gives the sample that
//! diffusers gives. The fixtures are made by `tools/fixtures/diffusers_schedulers.py`.

use edgegen::config::{PredictionType, SchedulerConfig};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::{Grid, Schedule};
use edgegen::solver::{Prediction, Solver};
use edgegen::{Condition, Network};
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
}

impl Network for Mixture {
    fn sample_shape(&self) -> &[usize] {
        &[DIM]
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let level = self.schedule.level(t);
        let (gamma, sigma) = (level.gamma, level.sigma);
        let x: [f64; DIM] = std::array::from_fn(|i| f64::from(x[i]));
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
                PredictionType::Epsilon => eps,
                PredictionType::V => gamma * eps - sigma * x0,
                PredictionType::Sample => x0,
                other => panic!("no fixture has {other:?}"),
            } as f32;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Case {
    config: String,
    steps: usize,
    options: BTreeMap<String, f64>,
    calls: usize,
    sample: Vec<f64>,
}

/// The relative error of our sample, and how often the network was called.
fn run(case: &Case) -> (f64, usize) {
    let config = SchedulerConfig::from_json(&case.config).unwrap();
    assert_eq!(config.unknown_fields().collect::<Vec<_>>(), [""; 0], "{}", case.config);
    let schedule = Schedule::from_config(&config).unwrap();
    let mut solver = Solver::of_scheduler(&config).unwrap().unwrap();
    if let (Solver::Ddim { eta }, Some(given)) = (&mut solver, case.options.get("eta")) {
        *eta = *given;
    }
    let grid = Grid::of_scheduler(&config, &schedule, case.steps).unwrap();
    let prediction = Prediction { kind: config.prediction_type, threshold: config.threshold() };
    let mut sampler = Sampler::new(solver.compile(&grid, &schedule, prediction).unwrap(), DIM);
    let mut noise = Noise::new(11, 0);
    let mut x = [0.0; DIM];
    noise.fill(&mut x);
    let mut network = Mixture { schedule, kind: config.prediction_type };
    let outcome =
        sampler.run(&mut network, &Condition::default(), &mut noise, &mut x, &mut Control::default()).unwrap();
    let difference: f64 = x.iter().zip(&case.sample).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let size: f64 = case.sample.iter().map(|b| b * b).sum();
    ((difference / size).sqrt(), outcome.nfe)
}

fn check(name: &str, text: &str, at_least: usize) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    assert!(cases.len() >= at_least, "{name} has only {} cases", cases.len());
    let mut failed = 0;
    for (i, case) in cases.iter().enumerate() {
        let (error, calls) = run(case);
        println!("{name} {i}: error {error:.1e}, {calls} calls");
        if !(error < 1e-4 && calls == case.calls) {
            failed += 1;
            println!("  diffusers made {} calls in {} steps with {}", case.calls, case.steps, case.config);
        }
    }
    assert_eq!(failed, 0, "of {} cases of {name}", cases.len());
}

macro_rules! classes {
    ($($test:ident $name:literal $at_least:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            check($name, include_str!(concat!("fixtures/diffusers/", $name, ".json")), $at_least);
        }
    )*};
}

classes! {
    ddim "DDIMScheduler" 9,
    ddpm "DDPMScheduler" 3,
    pndm "PNDMScheduler" 8,
    dpm_solver_multistep "DPMSolverMultistepScheduler" 20,
    dpm_solver_singlestep "DPMSolverSinglestepScheduler" 10,
    unipc "UniPCMultistepScheduler" 11,
    deis "DEISMultistepScheduler" 7,
    euler "EulerDiscreteScheduler" 8,
    euler_ancestral "EulerAncestralDiscreteScheduler" 3,
    heun "HeunDiscreteScheduler" 6,
    lms "LMSDiscreteScheduler" 5,
    dpm2 "KDPM2DiscreteScheduler" 5,
}
