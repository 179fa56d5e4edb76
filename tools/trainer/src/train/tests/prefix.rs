//! Networks that are given the first steps of a sequence clean.

use super::*;
use crate::export::{Recommendation, to_onnx};
use edgegen::config::{BetaSchedule, Spacing};
use edgegen::constraint::Prefix;
use edgegen::noise::Noise;
use edgegen::policy::{Joint, Timing};
use edgegen::schedule::Level;
use edgegen::{Model, Request};
use prost::Message;

const STEPS: usize = 8;
const MOST: usize = 3;

/// How far a sequence has come at step `k`.
fn along(k: usize) -> f32 {
    0.4 + 0.6 * k as f32 / (STEPS - 1) as f32
}

/// Sequences that go one of two ways, up or down, each by a little more or less.
struct Ways(Vec<f32>);

impl Ways {
    fn new(count: usize) -> Self {
        let slope = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 } * (0.8 + 0.2 * (i as f32 / count as f32));
        Ways((0..count).flat_map(|i| (0..STEPS).map(move |k| slope(i) * along(k))).collect())
    }
}

impl Samples for Ways {
    fn count(&self) -> usize {
        self.0.len() / STEPS
    }

    fn sample_shape(&self) -> &[usize] {
        &[STEPS, 1]
    }

    fn append(&self, i: usize, out: &mut Vec<f32>) {
        out.extend_from_slice(&self.0[i * STEPS..][..STEPS]);
    }

    fn given(&self, _: usize) -> Condition<'_> {
        Condition::Numbers(&[])
    }
}

fn network(prefix: usize) -> NetworkConfig {
    NetworkConfig::Sequence(SequenceConfig {
        shape: [STEPS, 1],
        conditions: 0,
        base: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        kernel: 5,
        groups: 4,
        prefix,
    })
}

fn schedulers() -> [SchedulerConfig; 2] {
    let vp = SchedulerConfig {
        num_train_timesteps: 100,
        beta_schedule: BetaSchedule::SquaredCosine,
        prediction_type: PredictionType::V,
        clip_sample: false,
        ..SchedulerConfig::default()
    };
    [vp, flow_config(100)]
}

fn prefix_trainer(scheduler: SchedulerConfig, train: TrainConfig) -> Trainer {
    let train = TrainConfig { flip: false, label_dropout: 0.0, ..train };
    Trainer::new(network(MOST), scheduler, train, Vec::new(), Device::Cpu).unwrap()
}

/// A batch and its loss, number by number from the data and the definition alone: the first steps are the data's own and count
/// for nothing, the others are noised.
#[test]
fn what_is_clean_is_no_part_of_the_loss() {
    let data = Ways::new(24);
    for scheduler in schedulers() {
        let mut trainer = prefix_trainer(scheduler.clone(), TrainConfig { batch: 24, ..options() });
        for _ in 0..3 {
            trainer.step(&data).unwrap();
        }
        let mut lengths = [0; MOST + 1];
        for step in 3..43 {
            let indices = trainer.indices(data.count(), step);
            let batch = trainer.batch(&data, step).unwrap();
            let rows = |t: &Tensor| t.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
            let output = trainer.header.network.forward(&tensors(&trainer.variables), &batch.x, &batch.t, &batch.given);
            let [x, t, target, output] = [&batch.x, &batch.t, &batch.target, &output.unwrap()].map(rows);
            let (mut sum, mut counted) = (0.0, 0.0);
            for (j, i) in indices.into_iter().enumerate() {
                let clean = (0..STEPS).take_while(|k| x[j][*k] == data.0[i * STEPS + k]).count();
                assert!(clean <= MOST, "{clean} steps are clean");
                lengths[clean] += 1;
                let time = t[j][STEPS - 1];
                for k in 0..STEPS {
                    assert_eq!(t[j][k], if k < clean { 0.0 } else { time }, "step {k} of {clean} clean ones");
                    if k >= clean {
                        let level = trainer.schedule.level(f64::from(time));
                        let (gamma, sigma) = (level.gamma as f32, level.sigma as f32);
                        // the clean sample that x and the target stand for
                        let x0 = match scheduler.prediction_type {
                            PredictionType::V => gamma * x[j][k] - sigma * target[j][k],
                            _ => x[j][k] - sigma * target[j][k],
                        };
                        assert!((x0 - data.0[i * STEPS + k]).abs() < 1e-5, "{x0}");
                        sum += f64::from(output[j][k] - target[j][k]).powi(2);
                        counted += 1.0;
                    }
                }
            }
            if step == 3 {
                let loss = trainer.step(&data).unwrap().loss;
                assert!((loss - sum / counted).abs() < 1e-5 * loss, "the loss is {loss}, not {}", sum / counted);
            }
        }
        // 960 beginnings, each length as often: five standard deviations of 13.4
        assert!(lengths.iter().all(|n: &i32| (n - 240).abs() < 67), "{lengths:?}");
    }
}

/// The levels of a run, and the network's prediction at each: a plain loop over candle's network.
fn plain(trainer: &Trainer, noise: &[f32], known: &[f32], steps: usize) -> Vec<f32> {
    let Trainer { header, schedule, ema, .. } = trainer;
    let mut x = noise.to_vec();
    for step in schedule.levels(steps, Spacing::Trailing, 0, true).unwrap().windows(2) {
        let [Level { time, gamma, sigma }, to] = step else { unreachable!() };
        x[..known.len()].copy_from_slice(known);
        let times = (0..STEPS).map(|k| if k < known.len() { 0.0 } else { *time as f32 }).collect();
        let times = Tensor::from_vec(times, (1, STEPS), &Device::Cpu).unwrap();
        let sample = Tensor::from_slice(&x, (1, STEPS, 1), &Device::Cpu).unwrap();
        let output = header.network.forward(ema, &sample, &times, &Given::Nothing).unwrap();
        let output: Vec<f32> = output.flatten_all().unwrap().to_vec1().unwrap();
        for (x, output) in x.iter_mut().zip(output) {
            let (value, output) = (f64::from(*x), f64::from(output));
            let (x0, eps) = match header.scheduler.prediction_type {
                PredictionType::V => (gamma * value - sigma * output, sigma * value + gamma * output),
                _ => (value - sigma * output, value + gamma * output),
            };
            *x = (to.gamma * x0 + to.sigma * eps) as f32;
        }
    }
    x[..known.len()].copy_from_slice(known);
    x
}

/// Trained on sequences that go up or down, a network goes on the way that it is shown the beginning of. Exported and run by the
/// library, it does the same as here.
#[test]
fn a_trained_network_goes_on_as_it_begins() {
    let data = Ways::new(40);
    for scheduler in schedulers() {
        let train = TrainConfig { steps: 800, batch: 16, rate: 5e-3, ema: 0.98, ..options() };
        let mut trainer = prefix_trainer(scheduler, train);
        for _ in 0..800 {
            trainer.step(&data).unwrap();
        }
        let recommended =
            Recommendation { sampler: "ddim".into(), steps: 8, guidance: 1.0, spacing: "trailing".into() };
        let bytes = to_onnx(&trainer.header, &trainer.ema, &recommended).unwrap().encode_to_vec();
        let model = Model::from_bytes(&bytes).unwrap();
        assert_eq!(model.metadata().prefix, Some(MOST));
        let mut generator = model.generator().build().unwrap();
        let (mut up, mut right, mut worst) = (0, 0, 0.0);
        for index in 0..40 {
            let (known, way) = if index % 2 == 0 { (MOST, 1.0) } else { (MOST - 1, -1.0) };
            let last: Vec<f32> = (0..STEPS).map(|k| way * 0.9 * along(k)).collect();
            let mut noise = vec![0.0; STEPS];
            Noise::new(5, index).fill(&mut noise);
            let mut prefix = Prefix::new(&last, 1, known, trainer.schedule.told_clean()).unwrap();
            let asked = Request::new(5, index).constraint(&mut prefix);
            let held = generator.run(&asked).unwrap().sample.to_vec();
            assert_eq!(held[..known], last[..known]);
            // the other way ends at 0.8 or more on the other side
            right += usize::from(held[STEPS - 1] * way > 0.3);
            let free = generator.run(&Request::new(5, index)).unwrap().sample.to_vec();
            up += usize::from(free[STEPS - 1] > 0.0);
            for (ours, theirs) in
                [(held, plain(&trainer, &noise, &last[..known], 8)), (free, plain(&trainer, &noise, &[], 8))]
            {
                let off = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                worst = f32::max(worst, off);
            }
        }
        // by itself it goes either way
        assert!(right >= 36, "{right} of 40 go on as they begin");
        assert!((8..=32).contains(&up), "{up} of 40 go up");
        assert!(worst < 1e-4, "off by {worst}");
    }
}

#[test]
fn more_clean_steps_than_were_trained_are_refused() {
    let trainer = prefix_trainer(flow_config(100), options());
    let recommended = Recommendation { sampler: "ddim".into(), steps: 2, guidance: 1.0, spacing: "trailing".into() };
    let read = |network: NetworkConfig| {
        let header = Header { network, ..trainer.header.clone() };
        let fresh = header.network.init(&mut rng(1, Stream::Init, 0), &Device::Cpu).unwrap();
        Model::from_bytes(&to_onnx(&header, &fresh, &recommended).unwrap().encode_to_vec()).unwrap()
    };
    let model = read(network(MOST));
    let mut prefix = Prefix::new(&[0.0; STEPS], 1, MOST + 1, Level::CLEAN).unwrap();
    let error = model.generator().build().unwrap().run(&Request::new(0, 0).constraint(&mut prefix)).unwrap_err();
    assert_eq!(error.to_string(), "the network was trained with at most 3 clean rows at its sample's beginning, not 4");
    let late = |model: &Model, delay| {
        model.generator().policy().joint(Joint::Prefix).timing(Timing::Simulated { delay }).build().map(drop)
    };
    late(&model, MOST).unwrap();
    assert!(late(&model, MOST + 1).unwrap_err().to_string().contains("at most 3 clean rows"));
    // one that was trained without is told apart by its time
    let error = late(&read(network(0)), 1).unwrap_err().to_string();
    assert!(error.contains("does not take a time for each token"), "{error}");
    let error = network(STEPS).check().unwrap_err().to_string();
    assert_eq!(error, "--prefix 8 leaves nothing of sequences of 8 steps to learn: give at most 7");
}
