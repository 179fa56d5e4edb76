//! A LeRobot policy's `config.json`, put beside its network, gives the actions that the policy's own loop makes, with its
//! own number of steps. The fixtures are made by `tools/fixtures/lerobot_loops.py`.

mod common;

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

/// A tensor of `weights.bin`: its place in the stream, its length, its factor, one for all or one for each row, and its shape
/// where it is stored with rows and columns exchanged.
#[derive(Deserialize)]
struct Weight {
    start: u64,
    count: usize,
    factors: Vec<f32>,
    turned: Option<[usize; 2]>,
}

impl Weight {
    /// -1, 0 or 1 by the mixing function of splitmix64, as `tools/fixtures/lerobot_policies.py` has it.
    fn sign(counter: u64) -> f32 {
        let mut z = (counter + 1).wrapping_mul(0x9E3779B97F4A7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
        z ^= z >> 31;
        ((z >> 33) % 3) as f32 - 1.0
    }

    fn bytes(&self) -> Vec<u8> {
        let row = self.count / self.factors.len();
        let value = |i: usize| Self::sign(self.start + i as u64) * self.factors[i / row];
        let at = |i: usize| match self.turned {
            Some([_, columns]) => value(i % columns * (self.count / columns) + i / columns),
            None => value(i),
        };
        (0..self.count).flat_map(|i| at(i).to_le_bytes()).collect()
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
    let weights: Vec<Weight> = serde_json::from_slice(&std::fs::read(folder.path("weights.json")).unwrap()).unwrap();
    let bytes: Vec<u8> = weights.iter().flat_map(Weight::bytes).collect();
    std::fs::write(folder.path("weights.bin"), bytes).unwrap();
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
