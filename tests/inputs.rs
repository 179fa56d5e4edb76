//! Networks whose inputs and outputs are as people have them. `tools/fixtures/inputs.py` wrote them, and the samples that
//! its own DDIM loop makes of them with onnxruntime's predictions.

mod common;

use common::fixtures;
use edgegen::model::TimeAs;
use edgegen::{Error, ErrorKind, Model, ModelOptions, Request};
use serde::Deserialize;
use std::path::PathBuf;

/// A run of a network, and the sample that it makes.
#[derive(Deserialize)]
struct Run {
    model: String,
    time_as: Option<String>,
    noise: Vec<f32>,
    expected: Vec<f32>,
}

impl Run {
    fn options(&self) -> ModelOptions {
        let mut options = ModelOptions::new();
        if let Some(name) = &self.time_as {
            options = options.time_as(TimeAs::from_name(name).unwrap());
        }
        options
    }

    fn sample(&self) -> edgegen::Result<Vec<f32>> {
        let model = self.options().open(path(&self.model))?;
        let mut generator = model.generator().sampler("ddim").steps(4).build()?;
        let request = Request::new(0, 0).from_noise(&self.noise);
        Ok(generator.run(&request)?.sample.to_vec())
    }
}

fn path(name: &str) -> PathBuf {
    fixtures().join("inputs").join(format!("{name}.onnx"))
}

fn runs(about: &str) -> Vec<Run> {
    let all: Vec<Run> = serde_json::from_str(include_str!("fixtures/inputs/expected.json")).unwrap();
    all.into_iter().filter(|run| run.model.starts_with(about)).collect()
}

/// Whether the samples of all runs about this are the loop's.
#[track_caller]
fn agree(about: &str, count: usize) {
    let runs = runs(about);
    assert_eq!(runs.len(), count);
    for run in runs {
        let sample = run.sample().unwrap_or_else(|e| panic!("{}: {e}", run.model));
        let scale = run.expected.iter().fold(1.0, |most: f32, v| most.max(v.abs()));
        let worst = sample.iter().zip(&run.expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(sample.len() == run.expected.len() && worst / scale < 1e-5, "{}: off by {worst}", run.model);
    }
}

#[track_caller]
fn told<T>(result: edgegen::Result<T>, kind: ErrorKind, words: &str) -> Error {
    let error = result.err().expect("it is refused");
    assert!(error.to_string().contains(words) && error.kind() == kind, "{error}");
    error
}

#[test]
fn a_network_is_told_of_its_noise_as_it_was_trained() {
    agree("time_", 8);
}

#[test]
fn what_a_name_does_not_define_is_asked_about() {
    for name in ["time_gammas", "time_noise_level", "time_sigma"] {
        let model = Model::open(path(name)).unwrap();
        let error = told(model.generator().build(), ErrorKind::Model, "that its name does not define");
        assert_eq!(error.hint(), Some(&edgegen::Hint::TimeAs));
        told(model.network(), ErrorKind::Model, "say which by ModelOptions::time_as");
    }
    let whole = ModelOptions::new().time_as(TimeAs::AlphaBar).open(path("time_gammas_in_integers"));
    told(whole, ErrorKind::InvalidArgument, "gammas takes whole numbers, and so the training step, and not alpha-bar");
    let takes_sigma = ModelOptions::new()
        .scheduler_config(edgegen::config::SchedulerConfig::denoised())
        .time_as(TimeAs::LogSnr)
        .open(path("time_sigma"));
    told(takes_sigma, ErrorKind::InvalidArgument, "is told its sigma, and not log-snr");
}
