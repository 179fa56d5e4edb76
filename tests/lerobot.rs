//! A LeRobot policy's `config.json`, put beside its network, gives the actions that the policy's own loop makes, with its
//! own number of steps. The fixtures are made by `tools/fixtures/lerobot_loops.py`.

mod common;

use common::hashed::write_weights;
use common::{Folder, fixture};
use edgegen::{Model, Request};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Policies {
    noise: Vec<f32>,
    policies: BTreeMap<String, Policy>,
}

#[derive(Deserialize)]
struct Policy {
    config: String,
    actions: Vec<f32>,
}

#[test]
fn policies_make_the_actions_of_their_own_loops() {
    let Policies { noise, policies } = serde_json::from_slice(&fixture("lerobot/policies.json")).unwrap();
    assert_eq!(policies.len(), 6);
    for (name, policy) in policies {
        let folder = Folder::new();
        std::fs::write(folder.path("model.onnx"), fixture("lerobot/model.onnx")).unwrap();
        std::fs::write(folder.path("config.json"), &policy.config).unwrap();
        let model = Model::open(folder.path("model.onnx")).unwrap();
        let mut generator = model.generator().build().unwrap();
        let made = generator.run(&Request::new(0, 0).from_noise(&noise)).unwrap();
        let size = policy.actions.iter().fold(1f32, |most, a| most.max(a.abs()));
        let error = made.sample.iter().zip(&policy.actions).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size;
        println!("{name}: error {error:.1e} in {} calls", made.outcome.nfe);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

/// What a policy's own `select_action` gives for one observation, seen for the first time.
#[derive(Deserialize)]
struct Expected {
    states: BTreeMap<String, Vec<f32>>,
    tokens: Vec<f32>,
    /// Bytes of pixels, in hexadecimal, `[3, H, W]`.
    images: BTreeMap<String, String>,
    n_obs_steps: usize,
    noise: Vec<f32>,
    actions: Vec<Vec<f32>>,
}

impl Expected {
    /// The conditions: every feature, repeated for as many moments as the policy looks back; and the words.
    fn conditions(&self) -> BTreeMap<String, Vec<f32>> {
        let pixels = |hex: &String| -> Vec<f32> {
            let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            pairs.map(|pair| f32::from(u8::from_str_radix(pair, 16).unwrap()) / 255.0).collect()
        };
        let images = self.images.iter().map(|(name, hex)| (name.clone(), pixels(hex)));
        let seen = images.chain(self.states.iter().map(|(name, state)| (name.clone(), state.clone())));
        let mut all: BTreeMap<_, _> = seen.map(|(name, values)| (name, values.repeat(self.n_obs_steps))).collect();
        if !self.tokens.is_empty() {
            all.insert("observation.language.tokens".into(), self.tokens.clone());
            all.insert("observation.language.attention_mask".into(), vec![1.0; self.tokens.len()]);
        }
        all
    }
}

/// The folder of a saved policy, its weights made.
fn policy_folder(name: &str) -> Folder {
    let folder = Folder::new();
    let from = format!("{}/tests/fixtures/lerobot/whole/{name}", env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    write_weights(&std::fs::read(folder.path("weights.json")).unwrap(), &folder);
    folder
}

#[test]
fn policies_that_see_images_make_the_actions_of_their_own_loops() {
    for name in ["camera", "cameras", "states", "dit", "dit_flow"] {
        let folder = policy_folder(name);
        let expected: Expected = serde_json::from_slice(&std::fs::read(folder.path("expected.json")).unwrap()).unwrap();
        let model = Model::open(folder.path("model.onnx")).unwrap();
        assert!(model.has_plan(), "{name} runs by {}", model.engine());
        let conditions = expected.conditions();
        let mut request = Request::new(0, 0).from_noise(&expected.noise);
        for (name, values) in &conditions {
            request = request.condition(name, values);
        }
        let mut generator = model.generator().build().unwrap();
        let made = generator.run(&request).unwrap();
        let width = expected.actions[0].len();
        let actions = expected.actions.concat();
        let executed = &made.sample[(expected.n_obs_steps - 1) * width..][..actions.len()];
        let size = actions.iter().fold(1f32, |most, a| most.max(a.abs()));
        let error = executed.iter().zip(&actions).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size;
        println!("{name}: error {error:.1e} in {} calls", made.outcome.nfe);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

#[test]
fn processors_that_cannot_be_followed_are_refused_by_name() {
    let folder = policy_folder("states");
    let before = std::fs::read_to_string(folder.path("policy_preprocessor.json")).unwrap();
    for (from, to, words) in [
        ("to_batch_processor", "image_crop_resize_processor", "the step 'image_crop_resize_processor'"),
        ("\"float_dtype\": null", "\"float_dtype\": \"float16\"", "rounds to float16"),
        ("\"STATE\": \"MIN_MAX\"", "\"STATE\": \"MEDIAN\"", "the normalization mode MEDIAN of observation.state"),
        ("\"STATE\": \"MIN_MAX\"", "\"STATE\": \"QUANTILES\"", "observation.state.q01 is missing"),
        ("policy_preprocessor_step_3", "../policy_preprocessor_step_3", "is not in the policy's folder"),
        ("policy_preprocessor_step_3", "missing", "cannot read"),
        ("policy_preprocessor_step_3_normalizer_processor.safetensors", "model.onnx", "is not a safetensors file"),
        ("\"steps\"", "\"parts\"", "not a processor of LeRobot's"),
    ] {
        assert!(before.contains(from), "{from}");
        std::fs::write(folder.path("policy_preprocessor.json"), before.replace(from, to)).unwrap();
        let error = Model::open(folder.path("model.onnx")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("policy_preprocessor.json"), "{from}: {error}");
    }
}
