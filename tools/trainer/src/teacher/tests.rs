use super::*;
use crate::export::{Recommendation, calibrate, float_layers, quantize, to_onnx};
use crate::noise_path::flow_config;
use edgegen::config::BetaSchedule;
use edgegen::noise::Noise;

fn train() -> TrainConfig {
    serde_json::from_value(serde_json::json!({
        "steps": 10, "batch": 2, "rate": 1e-3, "warm_up": 1, "weight_decay": 0.0, "clip": 1.0, "ema": 0.9,
        "label_dropout": 0.1, "flip": false, "weighting": "simple", "seed": 7
    }))
    .unwrap()
}

fn header(network: NetworkConfig, scheduler: SchedulerConfig) -> Header {
    let class_names = (0..network.classes()).map(|i| format!("class {i}")).collect();
    Header {
        network,
        scheduler,
        train: train(),
        class_names,
        normalization: None,
        distill: None,
        step: 9,
        seconds: 0.0,
    }
}

fn v() -> SchedulerConfig {
    SchedulerConfig {
        beta_schedule: BetaSchedule::SquaredCosine,
        prediction_type: PredictionType::V,
        ..SchedulerConfig::default()
    }
}

fn unet(shape: [usize; 3], patch: usize, multipliers: &[usize], blocks: usize, attention: bool) -> NetworkConfig {
    NetworkConfig::Unet(UnetConfig {
        shape,
        classes: 3,
        patch,
        base: 8,
        multipliers: multipliers.to_vec(),
        blocks,
        middle_blocks: blocks,
        attention,
        groups: 4,
    })
}

fn sequence(conditions: usize, prefix: usize) -> NetworkConfig {
    NetworkConfig::Sequence(SequenceConfig {
        shape: [8, 3],
        conditions,
        base: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        kernel: 5,
        groups: 2,
        prefix,
    })
}

fn weights(network: &NetworkConfig) -> Tensors {
    let mut noise = Noise::new(3, 0);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| 0.2 * noise.sample()).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    network.shapes().map(tensor).collect()
}

fn exported(header: &Header, weights: &Tensors) -> ModelProto {
    let recommendation = Recommendation { sampler: "ddim".into(), steps: 5, guidance: 1.0, spacing: "trailing".into() };
    to_onnx(header, weights, &recommendation).unwrap()
}

/// What is read from an exported file is what was exported.
#[test]
fn a_file_gives_back_the_network_and_its_weights() {
    let networks = [
        unet([1, 8, 8], 2, &[1, 2], 1, true),
        unet([3, 8, 4], 1, &[1, 1, 2], 2, false),
        sequence(4, 0),
        sequence(0, 0),
    ];
    for network in networks {
        for scheduler in [v(), flow_config(100)] {
            let header = header(network.clone(), scheduler);
            let weights = weights(&network);
            let read = from_onnx(&exported(&header, &weights).encode_to_vec(), &Device::Cpu).unwrap();
            assert_eq!((&read.header.network, &read.header.train), (&header.network, &header.train));
            assert_eq!((&read.header.class_names, read.header.step), (&header.class_names, 9));
            let [a, b] =
                [&read.header, &header].map(|h| edgegen::schedule::Schedule::from_config(&h.scheduler).unwrap());
            for t in [0.0, 33.0, 99.0] {
                assert_eq!((a.level(t).sigma, a.level(t).gamma), (b.level(t).sigma, b.level(t).gamma));
            }
            assert_eq!(read.header.scheduler.prediction_type, header.scheduler.prediction_type);
            for (name, weight) in &weights {
                let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (got, want) in values(&read.weights[name]).iter().zip(values(weight)) {
                    // the queries are scaled there and back
                    assert!((got - want).abs() <= 2e-7 * want.abs(), "{name}: {got} should be {want}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_teach_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let line = format!("{:#}", Teacher::open(&path, &Device::Cpu).err().expect("it was taken for a teacher"));
        assert!(line.contains(name) && !line.contains('\n'), "{line}");
        line
    };
    let network = unet([1, 8, 8], 2, &[1, 2], 1, true);
    let whole = exported(&header(network.clone(), v()), &weights(&network));

    assert!(error("text.onnx", b"hello, I am a text").contains("not an ONNX file"));
    let mut foreign = whole.clone();
    foreign.metadata_props.clear();
    assert!(error("foreign.onnx", &foreign.encode_to_vec()).contains("was not exported by this trainer"));
    let mut less = whole.clone();
    less.graph.as_mut().unwrap().initializer.retain(|t| t.name != "m0.c1.w");
    assert!(error("less.onnx", &less.encode_to_vec()).contains("m0.c1.w"));

    let epsilon = header(network.clone(), SchedulerConfig { prediction_type: PredictionType::Epsilon, ..v() });
    let line = error("epsilon.onnx", &exported(&epsilon, &weights(&network)).encode_to_vec());
    assert!(line.contains("predicts Epsilon") && line.contains("--prediction v"), "{line}");

    let mut broken = weights(&network);
    broken.insert("out.b".into(), Tensor::new(&[f32::NAN, 0.0, 0.0, 0.0], &Device::Cpu).unwrap());
    let line = error("nan.onnx", &exported(&header(network.clone(), v()), &broken).encode_to_vec());
    assert!(line.contains("not finite, in out.b"), "{line}");

    let prefixed = sequence(2, 3);
    let line = error("prefix.onnx", &exported(&header(prefixed.clone(), v()), &weights(&prefixed)).encode_to_vec());
    assert!(line.contains("--prefix"), "{line}");

    let data = crate::data::Dataset {
        pixels: vec![100; 4 * 64],
        shape: [1, 8, 8],
        labels: vec![0, 1, 2, 0],
        class_names: ["a", "b", "c"].map(String::from).to_vec(),
    };
    let float = header(network.clone(), v());
    let ranges = calibrate(&whole, &float, &data, 4).unwrap();
    let int8 = quantize(&whole, &ranges, &float_layers(&network)).unwrap();
    assert!(error("int8.onnx", &int8.encode_to_vec()).contains("give the float one"));

    let distill = crate::distill::DistillConfig { calls: 2, adversarial: 0.0 };
    let student = Header { distill: Some(distill), ..header(network.clone(), v()) };
    let recommendation =
        Recommendation { sampler: "consistency".into(), steps: 2, guidance: 1.0, spacing: "tuned".into() };
    let student = Header { scheduler: crate::distill::scheduler(&student.scheduler).unwrap(), ..student };
    let student = to_onnx(&student, &weights(&network), &recommendation).unwrap();
    assert!(error("student.onnx", &student.encode_to_vec()).contains("a student itself"));
}
