//! Quantized networks as onnxruntime's tools write them, in both of their forms, made by `tools/fixtures/quantized.py`:
//! edgegen is as near to what a file says, step by step, as the rounding that it leaves out makes it.

mod common;

use common::fixture;
use edgegen::config::SchedulerConfig;
use edgegen::{Condition, ModelOptions, Network};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Inputs {
    sample: Vec<f32>,
    time: f64,
    conditions: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct Expected {
    /// What the float network gives.
    float: Vec<f32>,
    /// What the files say, by their form.
    outputs: BTreeMap<String, Vec<f32>>,
}

fn rms(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / a.len() as f32).sqrt()
}

#[test]
fn quantized_networks_give_what_their_files_say() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = std::fs::read_to_string(fixtures.join("quantized/quantized.json")).unwrap();
    let all: BTreeMap<String, Expected> = serde_json::from_str(&text).unwrap();
    assert!(all.len() >= 6);
    let mut wrong = Vec::new();
    for (name, expected) in &all {
        let text = std::fs::read_to_string(fixtures.join(format!("exports/{name}.json"))).unwrap();
        let inputs: Inputs = serde_json::from_str(&text).unwrap();
        let mut condition = Condition::default();
        for (name, values) in inputs.conditions {
            if name == "class_labels" {
                condition.class = Some(values[0] as usize);
            } else {
                condition.named.insert(name, values);
            }
        }
        for (form, output) in &expected.outputs {
            let bytes = fixture(&format!("quantized/{name}.{form}.onnx.gz"));
            let run = |exact_quantization: bool| {
                let options = ModelOptions::new().scheduler_config(SchedulerConfig::default());
                let options = options.exact_quantization(exact_quantization);
                let model = options.read(&bytes).unwrap_or_else(|e| panic!("{name}.{form}: {e}"));
                assert!(model.has_plan(), "{name}.{form}");
                let mut out = vec![0.0; output.len()];
                let mut network = model.network().unwrap();
                network.bind(0, &condition).unwrap();
                network.predict(&inputs.sample, inputs.time, 0, &mut out).unwrap();
                out
            };
            let (exact, usual, quantization) = (run(true), run(false), rms(&expected.float, output));
            let (off, from_float) = (rms(&exact, output) / quantization, rms(&usual, &expected.float) / quantization);
            let line = format!("{name}.{form}: {off:.4} off, {from_float:.2} from float, of {quantization:.1e}");
            println!("{line}");
            if off > 0.01 || from_float > 1.0 {
                wrong.push(line);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
