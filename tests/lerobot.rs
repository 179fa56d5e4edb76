//! A LeRobot policy's `config.json`, put beside its network, gives the actions that the policy's own loop makes, with its
//! own number of steps. The fixtures are made by `tools/fixtures/lerobot.py`.

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
