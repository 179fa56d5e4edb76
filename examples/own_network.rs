//! The samplers on a network of one's own, without ONNX: the exact noise prediction for data on a circle.
//!
//! ```text
//! cargo run --release --example own_network --no-default-features
//! ```

use edgegen::config::{SchedulerConfig, Spacing, Threshold};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::Schedule;
use edgegen::solver::{Prediction, Solver};
use edgegen::{Condition, Network};

/// Data: 64 points on the unit circle. With γ and σ of the time, the posterior mean of x_0 is known.
struct Circle(Schedule);

impl Network for Circle {
    fn sample_shape(&self) -> &[usize] {
        &[2]
    }

    fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        let level = self.0.level(t);
        let x = [f64::from(x[0]), f64::from(x[1])];
        let (mut total, mut mean) = (0.0, [0.0; 2]);
        for i in 0..64 {
            let (sin, cos) = (i as f64 / 64.0 * std::f64::consts::TAU).sin_cos();
            let d = [x[0] - level.gamma * cos, x[1] - level.gamma * sin];
            let weight = (-(d[0] * d[0] + d[1] * d[1]) / (2.0 * level.sigma * level.sigma)).exp() + 1e-300;
            total += weight;
            mean = [mean[0] + weight * cos, mean[1] + weight * sin];
        }
        for i in 0..2 {
            out[i] = ((x[i] - level.gamma * mean[i] / total) / level.sigma) as f32;
        }
        Ok(())
    }
}

fn main() -> edgegen::Result<()> {
    let config = SchedulerConfig::default();
    let schedule = Schedule::from_config(&config)?;
    let grid = schedule.grid(10, Spacing::Trailing, 0, true)?;
    let prediction = Prediction { kind: config.prediction_type, threshold: Threshold::None };
    let program = Solver::from_name("dpm++2m")?.compile(&grid, &schedule, prediction)?;
    let (mut sampler, mut network) = (Sampler::new(program, 2), Circle(schedule));
    for index in 0..5 {
        let mut noise = Noise::new(1, index);
        let mut x = [0.0; 2];
        noise.fill(&mut x);
        sampler.run(&mut network, &Condition::default(), &mut noise, &mut x, &mut Control::default())?;
        println!("{:>7.4} {:>7.4}   radius {:.4}", x[0], x[1], x[0].hypot(x[1]));
    }
    Ok(())
}
