//! The model contract, on small networks that `tools/fixtures/models.py` wrote. What they should give is
//! onnxruntime's output.

use edgegen::model::Role;
use edgegen::{Condition, ErrorKind, Model, ModelOptions, Network};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(format!("{name}.onnx"))
}

fn open(name: &str) -> edgegen::Result<Model> {
    Model::open(path(name))
}

/// One call, and what onnxruntime gave.
#[derive(Deserialize)]
struct Expected {
    time: f64,
    class: Option<usize>,
    sample: Vec<f32>,
    condition: Option<Vec<f32>>,
    output: Vec<f32>,
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_str(include_str!("fixtures/models/expected.json")).unwrap()
}

#[test]
fn every_form_of_input_gives_what_onnxruntime_gives() {
    let expected = expected();
    assert_eq!(expected.len(), 8);
    for (name, call) in expected {
        let model = open(&name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut network = model.network().unwrap();
        let mut condition = call.class.map_or_else(Condition::default, Condition::class);
        condition.named = call.condition.into_iter().map(|c| ("global_cond".to_string(), c)).collect();
        let mut out = vec![0.0; call.output.len()];
        // twice: the second call must not depend on the first
        for _ in 0..2 {
            network.bind(0, &condition).unwrap();
            network.predict(&call.sample, call.time, 0, &mut out).unwrap();
            let worst = out.iter().zip(&call.output).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let bound = if name == "half_precision" { 2e-3 } else { 1e-6 };
            assert!(worst <= bound, "{name}: off by {worst}");
        }
    }
}

#[test]
fn names_shapes_and_types_are_reported() {
    let model = open("sequence").unwrap();
    let inputs: Vec<_> =
        model.inputs().iter().map(|i| (i.name.as_str(), i.role, i.shape.clone(), i.element_type())).collect();
    assert_eq!(
        inputs,
        [
            ("timestep", Role::Time, vec![], "I64".to_string()),
            ("class_labels", Role::Class, vec![1], "I64".into()),
            ("global_cond", Role::Condition, vec![1, 3], "F32".into()),
            ("sample", Role::Sample, vec![1, 5, 2], "F32".into()),
        ]
    );
    assert_eq!(model.sample_shape(), [5, 2]);
    assert_eq!((model.num_classes(), model.class("PULL").unwrap(), model.class("2").unwrap()), (Some(3), 1, 2));
    assert_eq!(model.scheduler_config().num_train_timesteps, 100);
}

#[test]
fn without_a_class_the_null_class_is_asked_for() {
    let model = open("sequence").unwrap();
    let mut network = model.network().unwrap();
    let call = &expected()["sequence"];
    let mut predict = |class: Option<usize>| {
        let mut out = vec![0.0; 10];
        let condition = class.map_or_else(Condition::default, Condition::class);
        network.bind(0, &condition.with("global_cond", call.condition.clone().unwrap())).unwrap();
        network.predict(&call.sample, 5.0, 0, &mut out).unwrap();
        out
    };
    // the class table has the null class as its row 3
    assert_eq!(predict(None), predict(Some(3)));
    assert_ne!(predict(None), predict(Some(0)));
}

#[track_caller]
fn refused(result: edgegen::Result<Model>, kind: ErrorKind, words: &str) {
    let error = result.expect_err("should be refused");
    let text = error.to_string();
    assert!(text.contains(words), "{text:?} does not say {words:?}");
    assert!(!text.contains('\n'), "{text:?} is not one line");
    assert_eq!(error.kind(), kind, "{text}");
}

#[test]
fn what_is_no_diffusion_network_is_refused_with_its_reason() {
    refused(open("missing"), ErrorKind::Io, "missing.onnx");
    refused(open("classifier"), ErrorKind::Model, "[1, 10]");
    refused(open("unsupported"), ErrorKind::Model, "WarpField");
    refused(open("two_samples"), ErrorKind::Model, "ModelOptions::input (role sample)");
    refused(open("open_shape"), ErrorKind::Model, "ModelOptions::sample_shape");
    refused(open("no_schedule"), ErrorKind::Model, "ModelOptions::scheduler_config");
    refused(Model::from_bytes(b"I am text, not ONNX."), ErrorKind::Model, "not an ONNX model");
    refused(Model::from_bytes(b""), ErrorKind::Model, "not an ONNX model");
}

#[test]
fn options_settle_what_the_file_leaves_open() {
    let with_shape = ModelOptions::new().sample_shape([3]);
    assert_eq!(with_shape.open(path("open_shape")).unwrap().sample_shape(), [3]);
    let model = ModelOptions::new().input(Role::Sample, "q").open(path("two_samples")).unwrap();
    let roles: Vec<Role> = model.inputs().iter().map(|i| i.role).collect();
    assert_eq!(roles, [Role::Condition, Role::Sample, Role::Time]);
    refused(with_shape.open(path("picture")), ErrorKind::InvalidArgument, "[3]");
}

#[test]
fn a_schedule_beside_the_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("model.onnx");
    std::fs::copy(path("no_schedule"), &copy).unwrap();
    let config = folder.path().join("scheduler_config.json");
    std::fs::write(&config, r#"{"num_train_timesteps": 50, "prediction_type": "sample"}"#).unwrap();
    assert_eq!(Model::open(&copy).unwrap().scheduler_config().num_train_timesteps, 50);
    std::fs::write(&config, r#"{"prediction_type": "guess"}"#).unwrap();
    refused(Model::open(&copy), ErrorKind::InvalidArgument, "scheduler_config.json");
}

/// A file cut anywhere, or with any byte changed, is refused or read: nothing panics.
#[test]
fn damaged_files_do_no_harm() {
    let whole = std::fs::read(path("picture")).unwrap();
    for end in 0..whole.len() {
        let _ = Model::from_bytes(&whole[..end]);
    }
    for i in 0..whole.len() {
        let mut changed = whole.clone();
        changed[i] ^= 0x15;
        let _ = Model::from_bytes(&changed);
    }
}

#[test]
fn wrong_calls_are_refused() {
    let model = open("sequence").unwrap();
    let mut network = model.network().unwrap();
    let (x, mut out) = ([0.0; 10], [0.0; 10]);
    let unbound = network.predict(&x, 1.0, 0, &mut out).unwrap_err().to_string();
    assert_eq!(unbound, "no condition is bound to slot 0: call Network::bind first");
    let mut call = |x: &[f32], condition: &Condition, out: &mut [f32]| {
        network.bind(0, condition)?;
        network.predict(x, 1.0, 0, out)
    };
    let cond = |name: &str, n: usize| Condition::class(0).with(name, vec![0.5; n]);
    assert!(call(&x, &cond("global_cond", 3), &mut out).is_ok());
    let message = |r: edgegen::Result<()>| r.unwrap_err().to_string();
    assert!(message(call(&x, &cond("global_cond", 4), &mut out)).contains("has 4 numbers"));
    assert!(message(call(&x, &Condition::class(0), &mut out)).contains("global_cond"));
    assert!(message(call(&x[..9], &cond("global_cond", 3), &mut out)).contains("10 numbers"));
}
