//! What the solvers themselves cost: microseconds of a run of ten steps with a network that costs nothing, for
//! every solver with fixed steps. `tools/bench/vs_diffusers.py` sets diffusers' schedulers beside it.
//!
//! ```text
//! cargo run --release --example solver_overhead --no-default-features -- 784
//! ```

use edgegen::config::{PredictionType, SchedulerConfig, Spacing, Threshold};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::Schedule;
use edgegen::solver::{Prediction, SOLVERS};
use edgegen::{Condition, Network};
use std::time::Instant;

/// Predicts what it is given.
struct Echo([usize; 1]);

impl Network for Echo {
    fn sample_shape(&self) -> &[usize] {
        &self.0
    }

    fn predict(&mut self, x: &[f32], _: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        out.copy_from_slice(x);
        Ok(())
    }
}

const RUNS: usize = 400;

fn main() -> edgegen::Result<()> {
    let len = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(28 * 28);
    let schedule = Schedule::from_config(&SchedulerConfig::default())?;
    let grid = schedule.grid(10, Spacing::Trailing, 0, true)?;
    let prediction = Prediction { kind: PredictionType::Epsilon, threshold: Threshold::None };
    for info in SOLVERS {
        let mut sampler = Sampler::new(info.solver.compile(&grid, &schedule, prediction)?, len);
        let (mut network, condition) = (Echo([len]), Condition::default());
        let mut noise = Noise::new(0, 0);
        let mut x = vec![0.0; len];
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            x.fill(0.5);
            let start = Instant::now();
            sampler.run(&mut network, &condition, &mut noise, &mut x, &mut Control::default())?;
            times.push(start.elapsed());
        }
        times.sort();
        println!("{:<16} {:>9.1}", info.name, times[RUNS / 2].as_secs_f64() * 1e6);
    }
    Ok(())
}
