//! What sampling costs: noise, solvers without a network, the shipped model.
//!
//! ```text
//! cargo bench --bench sampling
//! ```

use edgegen::config::{PredictionType, SchedulerConfig, Spacing, Threshold};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::Schedule;
use edgegen::solver::{Prediction, SOLVERS};
use edgegen::{Condition, Model, Network, Request};

fn main() {
    divan::main();
}

/// The size of the shipped model's samples.
const LEN: usize = 28 * 28;

#[divan::bench]
fn noise(bencher: divan::Bencher) {
    let mut x = vec![0.0; LEN];
    let mut index = 0;
    bencher.bench_local(|| {
        index += 1;
        Noise::new(0, index).fill(&mut x);
    });
}

/// Predicts what it is given: what is left is the solver's own cost.
struct Echo;

impl Network for Echo {
    fn sample_shape(&self) -> &[usize] {
        &[LEN]
    }

    fn predict(&mut self, x: &[f32], _: f64, _: usize, out: &mut [f32]) -> edgegen::Result<()> {
        out.copy_from_slice(x);
        Ok(())
    }
}

/// Ten steps of each solver, without a network.
#[divan::bench(args = SOLVERS.iter().map(|s| s.name))]
fn solver(bencher: divan::Bencher, name: &str) {
    let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
    let grid = schedule.grid(10, Spacing::Trailing, 0, true).unwrap();
    let solver = edgegen::solver::Solver::from_name(name).unwrap();
    let prediction = Prediction { kind: PredictionType::Epsilon, threshold: Threshold::Static(1.0) };
    let program = solver.compile(&grid, &schedule, prediction).unwrap();
    let mut sampler = Sampler::new(program, LEN);
    let mut x = vec![0.5; LEN];
    bencher.bench_local(|| {
        let mut noise = Noise::new(0, 0);
        x.fill(0.5);
        sampler.run(&mut Echo, &Condition::default(), &mut noise, &mut x, &mut Control::default()).unwrap()
    });
}

/// One call of the shipped network.
#[divan::bench]
fn network_call(bencher: divan::Bencher) {
    let model = Model::embedded().unwrap();
    let mut network = model.network().unwrap();
    let (x, mut out) = (vec![0.5; LEN], vec![0.0; LEN]);
    network.bind(0, &Condition::class(3)).unwrap();
    bencher.bench_local(|| network.predict(&x, 500.0, 0, &mut out).unwrap());
}

/// One picture with the model's own settings.
#[divan::bench]
fn picture(bencher: divan::Bencher) {
    let model = Model::embedded().unwrap();
    let mut generator = model.generator().build().unwrap();
    bencher.bench_local(|| generator.run(&Request::new(0, 0).class(3)).unwrap().outcome);
}

/// Reading and preparing the shipped model.
#[divan::bench(sample_count = 10)]
fn load() -> Model {
    Model::embedded().unwrap()
}
