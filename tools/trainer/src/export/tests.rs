use super::{Recommendation, calibrate, float_layers, quantize, to_onnx};
use crate::checkpoint::Header;
use crate::data::Dataset;
use crate::train::{TrainConfig, Weighting};
use crate::unet::{Tensors, Unet, UnetConfig};
use candle_core::{Device, Tensor};
use edgegen::condition::Condition;
use edgegen::config::{BetaSchedule, PredictionType, SchedulerConfig, Spacing};
use edgegen::network::{Model, ModelOptions, Network};
use edgegen::noise::Noise;
use edgegen::{Settings, solver::Solver};
use prost::Message;
use tract_onnx::pb::ModelProto;

fn header(unet: UnetConfig) -> Header {
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
        seed: 1,
        guidance: 1.0,
    };
    let scheduler = SchedulerConfig {
        beta_schedule: BetaSchedule::SquaredCosine,
        prediction_type: PredictionType::V,
        ..SchedulerConfig::default()
    };
    let class_names = (0..unet.classes).map(|c| format!("class {c}")).collect();
    Header { unet, scheduler, train, class_names, step: 5, seconds: 1.0 }
}

fn unet(shape: [usize; 3], patch: usize, multipliers: &[usize], middle_blocks: usize, attention: bool) -> UnetConfig {
    UnetConfig {
        shape,
        classes: 3,
        patch,
        base: 8,
        multipliers: multipliers.to_vec(),
        blocks: multipliers.len().min(2),
        middle_blocks,
        attention,
        groups: 4,
    }
}

/// Random parameters, none of them left at zero or one as a fresh network's are.
fn parameters(unet: &UnetConfig) -> Tensors {
    let mut noise = Noise::new(3, 0);
    unet.shapes()
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
    let options = ModelOptions { exact_quantization, ..Default::default() };
    Model::from_bytes(&model.encode_to_vec(), &options).unwrap()
}

/// The predictions of the exported model for three calls, one after the other.
fn predictions(model: &Model, calls: &[(Vec<f32>, f64, usize)]) -> Vec<f32> {
    let mut network = model.network().unwrap();
    let mut all = Vec::new();
    for (x, t, class) in calls {
        let mut out = vec![0.0; x.len()];
        network.predict(x, *t, &Condition::class(*class), &mut out).unwrap();
        all.extend(out);
    }
    all
}

fn calls(shape: [usize; 3]) -> Vec<(Vec<f32>, f64, usize)> {
    let call = |(i, t): (usize, f64)| {
        let mut x = vec![0.0; shape.iter().product()];
        Noise::new(9, i as u64).fill(&mut x);
        (x, t, i)
    };
    [0.0, 421.0, 999.0].into_iter().enumerate().map(call).collect()
}

fn candles(unet: &UnetConfig, parameters: &Tensors, calls: &[(Vec<f32>, f64, usize)]) -> Vec<f32> {
    let [c, h, w] = unet.shape;
    let x: Vec<f32> = calls.iter().flat_map(|c| c.0.clone()).collect();
    let t: Vec<f32> = calls.iter().map(|c| c.1 as f32).collect();
    let y: Vec<u32> = calls.iter().map(|c| c.2 as u32).collect();
    let (n, device) = (calls.len(), &Device::Cpu);
    let x = Tensor::from_vec(x, (n, c, h, w), device).unwrap();
    let (t, y) = (Tensor::from_vec(t, n, device).unwrap(), Tensor::from_vec(y, n, device).unwrap());
    let out = Unet::new(unet, parameters).forward(&x, &t, &y).unwrap();
    out.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_float_model_predicts_what_the_trained_network_does() {
    for config in [
        unet([1, 8, 8], 1, &[1, 2], 1, true),
        unet([3, 16, 8], 2, &[1, 2], 2, true),
        unet([2, 16, 16], 2, &[1, 2, 2], 2, false),
        unet([1, 9, 9], 3, &[2], 1, true),
    ] {
        let (parameters, calls) = (parameters(&config), calls(config.shape));
        let model = open(&to_onnx(&header(config.clone()), &parameters, &recommendation()).unwrap(), false);
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
    let (parameters, calls) = (parameters(&config), calls(config.shape));
    let header = header(config.clone());
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
    let header = header(config.clone());
    let model = open(&to_onnx(&header, &parameters(&config), &recommendation()).unwrap(), false);
    assert_eq!(model.metadata().classes, header.class_names);
    assert_eq!(model.metadata().null_class, Some(3));
    assert_eq!(model.metadata().value_range, Some((-1.0, 1.0)));
    assert_eq!((model.num_classes(), model.class("class 2").unwrap()), (Some(3), 2));
    assert_eq!(model.scheduler().prediction_type, PredictionType::V);
    assert_eq!(model.scheduler().beta_schedule, BetaSchedule::SquaredCosine);
    let settings = Settings::of(&model).unwrap();
    assert_eq!((settings.steps, settings.solver), (7, Solver::from_name("heun").unwrap()));
    assert_eq!((settings.spacing, settings.guidance), (Some(Spacing::LogSnr), 1.5));
    let wrong = Recommendation { spacing: "diagonal".into(), ..recommendation() };
    assert!(to_onnx(&header, &parameters(&config), &wrong).is_err());
}
