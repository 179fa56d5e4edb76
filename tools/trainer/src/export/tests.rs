use super::{Recommendation, calibrate, float_layers, quantize, to_onnx};
use crate::checkpoint::Header;
use crate::data::Dataset;
use crate::distill::DistillConfig;
use crate::network::{Given, NetworkConfig, SequenceConfig, Tensors, UnetConfig};
use crate::noise_path::{TimeSampling, flow_config};
use crate::train::{TrainConfig, Weighting};
use candle_core::{Device, Tensor};
use edgegen::config::{BetaSchedule, PredictionType, SchedulerConfig, Spacing};
use edgegen::noise::Noise;
use edgegen::schedule::Schedule;
use edgegen::solver::Solver;
use edgegen::{Condition, Model, ModelOptions, Network, Settings};
use onnx::pb::ModelProto;
use prost::Message;

fn header(network: &NetworkConfig) -> Header {
    let train = TrainConfig {
        steps: 10,
        batch: 2,
        rate: 1e-3,
        warm_up: 1,
        weight_decay: 0.0,
        clip: 1.0,
        ema: 0.9,
        label_dropout: 0.1,
        flip: false,
        weighting: Weighting::Simple,
        time_sampling: TimeSampling::Uniform,
        seed: 1,
        guidance: 1.0,
    };
    let scheduler = SchedulerConfig {
        beta_schedule: BetaSchedule::SquaredCosine,
        prediction_type: PredictionType::V,
        ..SchedulerConfig::default()
    };
    let class_names = (0..network.classes()).map(|c| format!("class {c}")).collect();
    Header {
        network: network.clone(),
        scheduler,
        train,
        class_names,
        normalization: None,
        distill: None,
        step: 5,
        seconds: 1.0,
    }
}

fn unet(
    shape: [usize; 3],
    patch: usize,
    multipliers: &[usize],
    middle_blocks: usize,
    attention: bool,
) -> NetworkConfig {
    NetworkConfig::Unet(UnetConfig {
        shape,
        classes: 3,
        patch,
        base: 8,
        multipliers: multipliers.to_vec(),
        blocks: multipliers.len().min(2),
        middle_blocks,
        attention,
        groups: 4,
    })
}

/// Random parameters, none of them left at zero or one as a fresh network's are.
fn parameters(network: &NetworkConfig) -> Tensors {
    let mut noise = Noise::new(3, 0);
    network
        .shapes()
        .map(|(name, shape)| {
            let len: usize = shape.iter().product();
            let fan_in = if shape.len() > 1 { len / shape[0] } else { 1 };
            let base = if shape.len() == 1 && name.ends_with(".w") { 1.0 } else { 0.0 };
            let scale = if shape.len() > 1 { 1.0 / (fan_in as f32).sqrt() } else { 0.2 };
            let values: Vec<f32> = (0..len).map(|_| base + scale * noise.sample()).collect();
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        })
        .collect()
}

fn recommendation() -> Recommendation {
    Recommendation { sampler: "heun".into(), steps: 7, guidance: 1.5, spacing: "log-snr".into() }
}

fn open(model: &ModelProto, exact_quantization: bool) -> Model {
    ModelOptions::new().exact_quantization(exact_quantization).read(&model.encode_to_vec()).unwrap()
}

/// The predictions of the exported model for three calls, one after the other.
fn predictions(model: &Model, calls: &[Call]) -> Vec<f32> {
    let mut network = model.network().unwrap();
    let mut all = Vec::new();
    for call in calls {
        let mut out = vec![0.0; call.x.len()];
        let mut condition = if model.takes_class() { Condition::class(call.class) } else { Condition::default() };
        if model.inputs().iter().any(|i| i.name == "global_cond") {
            condition.named.insert("global_cond".into(), call.numbers.clone());
        }
        network.bind(0, &condition).unwrap();
        network.predict(&call.x, call.t, 0, &mut out).unwrap();
        all.extend(out);
    }
    all
}

/// One call, under a class or under numbers.
struct Call {
    x: Vec<f32>,
    t: f64,
    class: usize,
    numbers: Vec<f32>,
}

fn calls(network: &NetworkConfig) -> Vec<Call> {
    let call = |(i, t): (usize, f64)| {
        let mut x = vec![0.0; network.shape().iter().product()];
        Noise::new(9, i as u64).fill(&mut x);
        let mut numbers = vec![0.0; if let NetworkConfig::Sequence(c) = network { c.conditions } else { 0 }];
        Noise::new(10, i as u64).fill(&mut numbers);
        Call { x, t, class: i, numbers }
    };
    [0.0, 421.0, 999.0].into_iter().enumerate().map(call).collect()
}

fn candles(network: &NetworkConfig, parameters: &Tensors, calls: &[Call]) -> Vec<f32> {
    let (n, device) = (calls.len(), &Device::Cpu);
    let x: Vec<f32> = calls.iter().flat_map(|c| c.x.clone()).collect();
    let t: Vec<f32> = calls.iter().map(|c| c.t as f32).collect();
    let dims: Vec<usize> = std::iter::once(n).chain(network.shape().iter().copied()).collect();
    let given = match network {
        NetworkConfig::Unet(_) => {
            let y: Vec<u32> = calls.iter().map(|c| c.class as u32).collect();
            Given::Labels(Tensor::from_vec(y, n, device).unwrap())
        }
        NetworkConfig::Sequence(config) if config.conditions > 0 => {
            let numbers: Vec<f32> = calls.iter().flat_map(|c| c.numbers.clone()).collect();
            Given::Numbers(Tensor::from_vec(numbers, (n, config.conditions), device).unwrap())
        }
        NetworkConfig::Sequence(_) => Given::Nothing,
    };
    let x = Tensor::from_vec(x, dims, device).unwrap();
    let t = Tensor::from_vec(t, n, device).unwrap();
    let out = network.forward(parameters, &x, &t, &given).unwrap();
    out.flatten_all().unwrap().to_vec1().unwrap()
}

fn sequence(shape: [usize; 2], conditions: usize, multipliers: &[usize], blocks: usize) -> NetworkConfig {
    let multipliers = multipliers.to_vec();
    NetworkConfig::Sequence(SequenceConfig {
        shape,
        conditions,
        base: 8,
        multipliers,
        blocks,
        kernel: 5,
        groups: 4,
        prefix: 0,
    })
}

#[test]
fn the_float_model_predicts_what_the_trained_network_does() {
    for config in [
        unet([1, 8, 8], 1, &[1, 2], 1, true),
        unet([3, 16, 8], 2, &[1, 2], 2, true),
        unet([2, 16, 16], 2, &[1, 2, 2], 2, false),
        unet([1, 9, 9], 3, &[2], 1, true),
        sequence([16, 2], 4, &[1, 2], 1),
        sequence([8, 3], 0, &[2], 2),
        sequence([12, 1], 1, &[1, 2, 2], 2),
    ] {
        let (parameters, calls) = (parameters(&config), calls(&config));
        let model = open(&to_onnx(&header(&config), &parameters, &recommendation()).unwrap(), false);
        let (ours, theirs) = (predictions(&model, &calls), candles(&config, &parameters, &calls));
        let spread = theirs.iter().map(|v| v * v).sum::<f32>() / theirs.len() as f32;
        assert!(spread > 0.1, "a network that says nothing proves nothing: {spread}");
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{config:?}: off by {worst}");
    }
}

#[test]
fn the_quantized_model_predicts_nearly_that() {
    let config = unet([1, 8, 8], 2, &[1, 2], 1, true);
    let (parameters, calls) = (parameters(&config), calls(&config));
    let header = header(&config);
    let float = to_onnx(&header, &parameters, &recommendation()).unwrap();
    let pixels = (0..30 * 64).map(|i: usize| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    let labels = (0..30).map(|i| i % 3).collect();
    let data = Dataset { pixels, shape: [1, 8, 8], labels, class_names: header.class_names.clone() };
    let ranges = calibrate(&float, &header, &data, 64).unwrap();
    let int8 = quantize(&float, &ranges, &float_layers(&config)).unwrap();
    assert!(int8.encoded_len() < float.encoded_len());
    let expected = candles(&config, &parameters, &calls);
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>().sqrt();
    for exact in [false, true] {
        let ours = predictions(&open(&int8, exact), &calls);
        let error = norm(&mut ours.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
        // random weights are harder on 8 bits than trained ones; what matters is judged by `eval`
        assert!(error < 0.1, "exact {exact}: relative error {error}");
        assert!(error > 1e-5, "nothing was rounded");
    }
}

#[test]
fn the_metadata_come_back() {
    let config = unet([1, 8, 8], 2, &[1, 2], 1, false);
    let header = header(&config);
    let model = open(&to_onnx(&header, &parameters(&config), &recommendation()).unwrap(), false);
    assert_eq!(model.metadata().classes, header.class_names);
    assert_eq!(model.metadata().null_class, Some(3));
    assert_eq!(model.metadata().value_range, Some((-1.0, 1.0)));
    assert_eq!((model.num_classes(), model.class("class 2").unwrap()), (Some(3), 2));
    assert_eq!(model.scheduler_config().prediction_type, PredictionType::V);
    assert_eq!(model.scheduler_config().beta_schedule, BetaSchedule::SquaredCosine);
    let settings = Settings::of(&model).unwrap();
    assert_eq!((settings.steps, settings.solver), (7, Solver::from_name("heun").unwrap()));
    assert_eq!((settings.spacing, settings.guidance), (Some(Spacing::LogSnr), 1.5));
    let wrong = Recommendation { spacing: "diagonal".into(), ..recommendation() };
    assert!(to_onnx(&header, &parameters(&config), &wrong).is_err());
}

/// A network of a rectified flow, followed by the library's Euler method and by a plain loop over candle's network: x goes
/// along the velocity from t = 1 to 0.
#[test]
fn an_exported_flow_is_followed_as_it_was_trained() {
    for config in [unet([1, 8, 8], 2, &[1, 2], 1, true), sequence([8, 3], 0, &[2], 1)] {
        let trained = Header { scheduler: flow_config(100), ..header(&config) };
        let parameters = parameters(&config);
        let recommendation =
            Recommendation { sampler: "euler".into(), steps: 8, guidance: 1.0, spacing: "trailing".into() };
        let model = open(&to_onnx(&trained, &parameters, &recommendation).unwrap(), false);
        let read = model.scheduler_config();
        assert_eq!(read.class.class_name.as_deref(), Some("FlowMatchEulerDiscreteScheduler"));
        assert_eq!((read.is_flow(), read.prediction(), read.clip_sample), (true, PredictionType::Flow, false));
        assert_eq!(read.unknown_fields().count(), 0);
        assert_eq!(Schedule::from_config(read).unwrap(), Schedule::from_config(&trained.scheduler).unwrap());

        let mut x = vec![0.0; config.shape().iter().product()];
        Noise::new(7, 2).fill(&mut x);
        let mut generator = model.generator().build().unwrap();
        let request = edgegen::Request::new(7, 2);
        let request = if model.takes_class() { request.class(1) } else { request };
        let made = generator.run(&request).unwrap();
        assert_eq!(made.outcome.nfe, 8);
        for i in 0..8 {
            let call = Call { x: x.clone(), t: 100.0 * (1.0 - f64::from(i) / 8.0), class: 1, numbers: Vec::new() };
            let velocity = candles(&config, &parameters, &[call]);
            x.iter_mut().zip(velocity).for_each(|(x, v)| *x -= v / 8.0);
        }
        let worst = made.sample.iter().zip(&x).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let size = x.iter().map(|v| v.abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4 * size && size > 0.5, "{config:?}: off by {worst} of {size}");
    }
}

/// A student's file says by itself how it is run: from each estimate to the next level by fresh noise, at its own times.
#[test]
fn a_students_file_runs_in_few_calls_by_default() {
    let distill = Some(DistillConfig { calls: 2, adversarial: 0.05 });
    let vp = SchedulerConfig {
        beta_schedule: BetaSchedule::SquaredCosine,
        prediction_type: PredictionType::V,
        ..SchedulerConfig::default()
    };
    for network in [unet([1, 8, 8], 2, &[1, 2], 1, true), sequence([8, 3], 2, &[1, 2], 1)] {
        for scheduler in [vp.clone(), flow_config(100)] {
            let scheduler = crate::distill::scheduler(&scheduler).unwrap();
            let header = Header { scheduler, distill, ..header(&network) };
            let recommendation =
                Recommendation { sampler: "consistency".into(), steps: 2, guidance: 1.0, spacing: "tuned".into() };
            let float = to_onnx(&header, &parameters(&network), &recommendation).unwrap();
            let model = open(&float, false);
            let settings = Settings::of(&model).unwrap();
            assert_eq!((settings.steps, settings.spacing), (2, Some(Spacing::Tuned)));
            let schedule = Schedule::from_config(model.scheduler_config()).unwrap();
            for steps in [1, 2, 4, 7, 10, 20] {
                let mut settings = settings.clone();
                settings.steps = steps;
                let grid = settings.grid(model.scheduler_config(), &schedule).unwrap();
                let found: Vec<f64> = grid.steps().iter().map(|s| s.from.time).collect();
                assert_eq!((found.len(), found[0]), (steps, header.scheduler.tuned_timesteps[&1][0]));
                if [1, 2, 4, 10].contains(&steps) {
                    assert_eq!(found, crate::distill::times(&schedule, steps));
                }
            }
            let (hand, own) = (by_hand(&model, &header, &schedule), by_default(&model));
            let worst = hand.iter().zip(&own).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{:?}: off by {worst}", header.scheduler.prediction_type);
        }
    }
}

/// A sample of one class or one vector of numbers at the defaults.
fn by_default(model: &Model) -> Vec<f32> {
    let mut generator = model.generator().build().unwrap();
    generator.run(&edgegen::Request::new(4, 0).conditions(&condition(model))).unwrap().sample.to_vec()
}

fn condition(model: &Model) -> Condition {
    if model.takes_class() {
        return Condition::class(1);
    }
    let mut condition = Condition::default();
    condition.named.insert("global_cond".into(), vec![0.3, -0.2]);
    condition
}

/// The same, two calls one after the other.
fn by_hand(model: &Model, header: &Header, schedule: &Schedule) -> Vec<f32> {
    let mut network = model.network().unwrap();
    network.bind(0, &condition(model)).unwrap();
    let len = header.network.shape().iter().product();
    let mut noise = Noise::new(4, 0);
    let (mut x, mut out) = (vec![0.0; len], vec![0.0; len]);
    noise.fill(&mut x);
    let times = crate::distill::times(schedule, 2);
    for (i, time) in times.iter().enumerate() {
        let level = schedule.level(*time);
        network.predict(&x, *time, 0, &mut out).unwrap();
        let flow = header.scheduler.is_flow();
        for (x, out) in x.iter_mut().zip(&out) {
            let kept = if flow { 1.0 } else { level.gamma };
            let x0 = kept * f64::from(*x) - level.sigma * f64::from(*out);
            *x = if header.scheduler.clip_sample { x0.clamp(-1.0, 1.0) } else { x0 } as f32;
        }
        if let Some(next) = times.get(i + 1) {
            let next = schedule.level(*next);
            let mut fresh = vec![0.0; len];
            noise.fill(&mut fresh);
            x.iter_mut()
                .zip(fresh)
                .for_each(|(x, z)| *x = (next.gamma * f64::from(*x) + next.sigma * f64::from(z)) as f32);
        }
    }
    x
}

/// Calibrated along its own runs, a student in 8 bits makes nearly what it makes in float.
#[test]
fn a_student_is_quantized_along_its_own_runs() {
    let network = unet([1, 8, 8], 2, &[1, 2], 1, true);
    let scheduler = SchedulerConfig {
        beta_schedule: BetaSchedule::SquaredCosine,
        prediction_type: PredictionType::V,
        ..SchedulerConfig::default()
    };
    let scheduler = crate::distill::scheduler(&scheduler).unwrap();
    let distill = Some(DistillConfig { calls: 2, adversarial: 0.0 });
    let header = Header { scheduler, distill, ..header(&network) };
    let recommendation =
        Recommendation { sampler: "consistency".into(), steps: 2, guidance: 1.0, spacing: "tuned".into() };
    let float = to_onnx(&header, &parameters(&network), &recommendation).unwrap();
    let data = Dataset {
        pixels: vec![30; 6 * 64],
        shape: [1, 8, 8],
        labels: vec![0, 1, 2, 0, 1, 2],
        class_names: (0..3).map(|c| format!("class {c}")).collect(),
    };
    let ranges = calibrate(&float, &header, &data, 64).unwrap();
    // ranges are those of runs from noise, not of the data, which is nearly all one grey
    let of_data = calibrate(&float, &Header { distill: None, ..header.clone() }, &data, 64).unwrap();
    assert_ne!(ranges, of_data);
    let int8 = quantize(&float, &ranges, &float_layers(&network)).unwrap();
    let samples = |model: &ModelProto, steps: usize| {
        let model = open(model, false);
        let mut generator = model.generator().steps(steps).build().unwrap();
        let sample = |i| generator.run(&edgegen::Request::new(8, i).class(i as usize % 3)).unwrap().sample.to_vec();
        (0..12).flat_map(sample).collect::<Vec<f32>>()
    };
    for steps in [1, 2, 4] {
        let (a, b) = (samples(&float, steps), samples(&int8, steps));
        let rms = |v: &mut dyn Iterator<Item = f32>| (v.map(|v| v * v).sum::<f32>() / a.len() as f32).sqrt();
        let error = rms(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / rms(&mut a.iter().copied());
        assert!(error < 0.08, "{steps} calls: off by {error}");
    }
}
