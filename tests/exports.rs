//! Networks as PyTorch's two exporters write them, made by `tools/fixtures/exports.py`: each file gives what
//! onnxruntime gives, and a whole sample is what the scheduler's loop of diffusers makes around the PyTorch network.

mod common;

use common::fixture;
use edgegen::config::SchedulerConfig;
use edgegen::model::{Stage, TimeAs};
use edgegen::{Condition, Model, ModelOptions, Network, Request};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The seed and index whose noise the script's loops start from.
const SEED: u64 = 5;
const INDEX: u64 = 2;

#[derive(Deserialize)]
struct Expected {
    sample: Vec<f32>,
    time: f64,
    conditions: BTreeMap<String, Vec<f32>>,
    /// onnxruntime's output for each file.
    outputs: BTreeMap<String, Vec<f32>>,
    #[serde(default)]
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    /// The scheduler's configuration, as diffusers writes it.
    scheduler: String,
    /// The sampler, where the configuration names no class.
    #[serde(default)]
    sampler: Option<String>,
    steps: usize,
    sample: Vec<f32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exports")
}

/// The file, and the folder of its weights if they lie in another.
fn open(architecture: &str, export: &str, options: &ModelOptions) -> edgegen::Result<Model> {
    match export.split_once('/') {
        Some((place, export)) => options.open(folder().join(place).join(format!("{architecture}.{export}.onnx"))),
        None => options.read(&fixture(&format!("exports/{architecture}.{export}.onnx.gz"))),
    }
}

/// The greatest difference, in units of the reference's size where that is above 1.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let size = (theirs.iter().map(|v| v * v).sum::<f32>() / theirs.len() as f32).sqrt().max(1.0);
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
}

fn condition(expected: &Expected) -> Condition {
    let mut condition = Condition::default();
    for (name, values) in &expected.conditions {
        if name == "class_labels" {
            condition.class = Some(values[0] as usize);
        } else {
            condition.named.insert(name.clone(), values.clone());
        }
    }
    condition
}

fn check(architecture: &str) {
    let text = std::fs::read_to_string(folder().join(format!("{architecture}.json"))).unwrap();
    let expected: Expected = serde_json::from_str(&text).unwrap();
    let condition = condition(&expected);
    let mut failures = Vec::new();
    for (export, output) in &expected.outputs {
        let name = format!("{architecture}.{export}");
        // one call, of the number that was written down
        let options = ModelOptions::new().scheduler_config(SchedulerConfig::default()).time_as(TimeAs::Step);
        let model = match open(architecture, export, &options) {
            Ok(model) => model,
            Err(e) => {
                failures.push(format!("{name}: {e}"));
                continue;
            }
        };
        let mut network = model.network().unwrap();
        let mut out = vec![0.0; output.len()];
        // twice: the second call must not depend on the first
        for _ in 0..2 {
            network.bind(0, &condition).unwrap();
            network.predict(&expected.sample, expected.time, 0, &mut out).unwrap();
        }
        let off = difference(&out, output);
        let mut line = format!("{name}: {off:.1e} from onnxruntime");
        // onnxruntime rounds to 11 bits on the way, which we do not
        let half = export.contains("f16");
        let mut right = off < if half { 5e-3 } else { 1e-4 };
        for run in expected.runs.iter().filter(|_| !half) {
            let config = SchedulerConfig::from_json(&run.scheduler).unwrap();
            let class = config.class.class_name.clone().or(run.sampler.clone()).unwrap_or_default();
            let options = ModelOptions::new().scheduler_config(config);
            let model = open(architecture, export, &options).unwrap();
            let mut builder = model.generator().steps(run.steps);
            if let Some(name) = &run.sampler {
                builder = builder.sampler(name);
            }
            let mut generator = builder.build().unwrap();
            let made = generator.run(&Request::new(SEED, INDEX).conditions(&condition)).unwrap();
            let off = difference(made.sample, &run.sample);
            line += &format!(", {off:.1e} from {class} in {} steps", run.steps);
            right &= off < 1e-3;
        }
        println!("{line} ({})", model.engine());
        // all but what pads by reflection have a plan
        right &= model.has_plan() || architecture == "unet1d_audio";
        if !right {
            failures.push(line);
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(!expected.outputs.is_empty());
}

macro_rules! architectures {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}

architectures! {
    unet2d
    unet2d_class
    unet1d_temporal
    unet1d_audio
    unet2d_condition
    conditional_unet1d
    vision_policy
    vision_policy_bn
    transformer
    dit
    edm
    edm_raw
    consistency
}

#[test]
fn pictures_are_encoded_once_a_run() {
    for export in ["vision_policy.ts17", "vision_policy.dy18", "vision_policy_bn.dy18"] {
        let bytes = fixture(&format!("exports/{export}.onnx.gz"));
        let model = ModelOptions::new().scheduler_config(SchedulerConfig::default()).read(&bytes).unwrap();
        let steps = model.steps(0);
        let of = |stage: Stage| steps.iter().filter(|s| s.stage == stage).map(|s| s.multiply_adds).sum::<u64>();
        let pictures = steps.iter().filter(|s| s.stage == Stage::Conditions && s.kernel.contains("onvolution")).count();
        // four pictures, of which each takes the stem, two blocks and the maps
        assert!(pictures >= 4, "{export}: {pictures} convolutions of pictures");
        assert!(
            of(Stage::Conditions) > 10 * of(Stage::Sample),
            "{export}: {} of {}",
            of(Stage::Conditions),
            of(Stage::Sample)
        );
        let pools: Vec<Stage> = steps.iter().filter(|s| s.kernel == "max pooling").map(|s| s.stage).collect();
        assert!(!pools.is_empty() && pools.iter().all(|stage| *stage == Stage::Conditions), "{export}: {pools:?}");
    }
}
