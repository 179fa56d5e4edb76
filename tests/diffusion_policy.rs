//! Whole policies of the kinds that real-stanford/diffusion_policy trains, cameras to actions, as `docs/models.md` says how to
//! export them: they run by the plan, and give what onnxruntime and PyTorch's own loop give. The fixtures are made by
//! `tools/fixtures/diffusion_policy.py`.

mod common;

use common::hashed::write_weights;
use common::{Folder, fixture};
use edgegen::model::Normalization;
use edgegen::{Condition, ModelOptions, Network, Request};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Expected {
    noise: Vec<f32>,
    states: BTreeMap<String, Vec<f32>>,
    /// A digit of sixteen levels for each pixel, `[moments, 3, H, W]`.
    images: BTreeMap<String, String>,
    time: f64,
    /// What onnxruntime gives for one call.
    output: Vec<f32>,
    steps: usize,
    /// The plan that so many steps of DDIM around the PyTorch network make, in the robot's units.
    actions: Vec<f32>,
}

fn off(ours: &[f32], theirs: &[f32]) -> f32 {
    let size = theirs.iter().fold(1f32, |most, a| most.max(a.abs()));
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
}

#[test]
fn policies_run_by_the_plan_and_make_the_actions_of_pytorch() {
    for name in ["unet_lowdim", "unet_hybrid", "unet_cameras", "transformer", "transformer_encoder", "siglip_dit"] {
        let of = |file: &str| fixture(&format!("diffusion_policy/{name}/{file}"));
        let folder = Folder::new();
        std::fs::write(folder.path("model.onnx"), of("model.onnx.gz")).unwrap();
        std::fs::write(folder.path("scheduler_config.json"), of("scheduler_config.json")).unwrap();
        write_weights(&of("weights.json"), &folder);
        let expected: Expected = serde_json::from_slice(&of("expected.json")).unwrap();
        let normalization = Normalization::from_json(std::str::from_utf8(&of("normalization.json")).unwrap()).unwrap();
        let model = ModelOptions::new().normalization(normalization).open(folder.path("model.onnx")).unwrap();
        assert!(model.has_plan(), "{name} runs by {}", model.engine());

        let pixel = |digit: char| digit.to_digit(16).unwrap() as f32 / 15.0;
        let images = expected.images.iter().map(|(name, digits)| (name, digits.chars().map(pixel).collect()));
        let states = expected.states.iter().map(|(name, values)| (name, values.clone()));
        let given: Vec<(&String, Vec<f32>)> = images.chain(states).collect();
        let condition = given.iter().fold(Condition::default(), |all, (name, values)| all.with(*name, values.clone()));
        let (mut network, mut output) = (model.network().unwrap(), vec![0.0; expected.noise.len()]);
        network.bind(0, &condition).unwrap();
        network.predict(&expected.noise, expected.time, 0, &mut output).unwrap();
        let from_onnxruntime = off(&output, &expected.output);

        let mut generator = model.generator().steps(expected.steps).build().unwrap();
        let request = Request::new(0, 0).from_noise(&expected.noise).conditions(&condition);
        let from_pytorch = off(generator.run(&request).unwrap().sample, &expected.actions);
        println!("{name}: a call {from_onnxruntime:.1e} from onnxruntime, a plan {from_pytorch:.1e} from PyTorch");
        assert!(from_onnxruntime < 1e-5 && from_pytorch < 1e-5, "{name}: {from_onnxruntime:e}, {from_pytorch:e}");
    }
}
