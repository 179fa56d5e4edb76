//! Networks whose inputs and outputs are as people have them. `tools/fixtures/inputs.py` wrote them, and the samples that
//! its own DDIM loop makes of them with onnxruntime's predictions.

mod common;

use common::fixtures;
use edgegen::model::{Decoder, Role, Scaling, TimeAs};
use edgegen::{Condition, Error, ErrorKind, Model, ModelOptions, Network, Request};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A run of a network, and the sample that it makes.
#[derive(Deserialize)]
struct Run {
    model: String,
    time_as: Option<String>,
    shape: Option<Vec<usize>>,
    #[serde(default)]
    conditions: BTreeMap<String, Array>,
    /// What is joined with the sample, in its order.
    #[serde(default)]
    joins: Vec<String>,
    class: Option<usize>,
    #[serde(default)]
    no_time: bool,
    named_output: Option<String>,
    next: Option<String>,
    noise: Vec<f32>,
    expected: Vec<f32>,
}

/// What is given for a condition.
#[derive(Deserialize)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Run {
    fn options(&self) -> ModelOptions {
        let mut options = ModelOptions::new();
        if let Some(name) = &self.time_as {
            options = options.time_as(TimeAs::from_name(name).unwrap());
        }
        if let Some(shape) = &self.shape {
            options = options.sample_shape(shape.as_slice());
        }
        if self.no_time {
            options = options.without(Role::Time);
        }
        if let Some(name) = &self.next {
            options = options.input(Role::Next, name);
        }
        if let Some(name) = &self.named_output {
            options = options.output(name);
        }
        for name in &self.joins {
            options = match self.conditions.get(name) {
                Some(array) => options.join(name, array.shape.as_slice()),
                None => options.join_sample(),
            };
        }
        for (name, array) in self.conditions.iter().filter(|(name, _)| !self.joins.contains(name)) {
            options = options.condition_shape(name, array.shape.as_slice());
        }
        options
    }

    fn sample(&self) -> edgegen::Result<Vec<f32>> {
        let model = self.options().open(path(&self.model))?;
        let mut generator = model.generator().sampler("ddim").steps(4).build()?;
        let mut request = Request::new(0, 0).from_noise(&self.noise);
        for (name, array) in &self.conditions {
            request = request.condition(name, &array.values);
        }
        if let Some(class) = self.class {
            request = request.class(class);
        }
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
fn conditions_are_of_any_type_and_bind_what_the_file_leaves_open() {
    agree("condition_", 8);
}

#[test]
fn what_is_joined_with_the_sample_is_given_by_its_name() {
    agree("join_", 4);
}

#[test]
fn a_time_has_any_shape_and_a_class_may_be_a_number_for_each() {
    agree("shape_", 10);
}

#[test]
fn the_numbers_of_a_class_may_be_given_too() {
    let model = Model::open(path("shape_one_hot")).unwrap();
    let mut generator = model.generator().sampler("ddim").steps(4).build().unwrap();
    let runs = runs("shape_one_hot");
    let [one, other, soft] = runs.as_slice() else { panic!("three runs") };
    let near = |sample: &[f32], run: &Run| sample.iter().zip(&run.expected).all(|(a, b)| (a - b).abs() < 1e-4);
    for _ in 0..2 {
        for run in [one, other] {
            let request = Request::new(0, 0).from_noise(&run.noise).class(run.class.unwrap());
            assert!(near(generator.run(&request).unwrap().sample, run));
        }
        let request = Request::new(0, 0).from_noise(&soft.noise).condition("y", &soft.conditions["y"].values);
        assert!(near(generator.run(&request).unwrap().sample, soft));
        assert!(!near(generator.run(&Request::new(0, 0).from_noise(&soft.noise)).unwrap().sample, soft), "no class");
    }
    let twice = Request::new(0, 0).class(1).condition("y", &soft.conditions["y"].values);
    told(generator.run(&twice), ErrorKind::InvalidArgument, "the class is given twice");
    told(generator.run(&Request::new(0, 0).class(4)), ErrorKind::InvalidArgument, "classes below 4");
    told(generator.run(&Request::new(0, 0).condition("y", &[1.0])), ErrorKind::WrongSize, "y has 1 numbers");
}

#[test]
fn a_fixed_batch_has_the_sample_in_every_place() {
    agree("batch_", 1);
}

#[test]
fn a_network_may_take_the_times_of_both_ends_of_a_step() {
    agree("next_", 2);
    let model = Model::open(path("next_by_name")).unwrap();
    let mut generator = model.generator().sampler("rk45").build().unwrap();
    told(generator.run(&Request::new(0, 0)), ErrorKind::InvalidArgument, "t_next takes the time that a step leads to");
    // as a condition, it is a number that is given
    let options = ModelOptions::new().input(Role::Condition, "t_next");
    let mut generator = options.open(path("next_by_name")).unwrap().generator().sampler("rk45").build().unwrap();
    assert!(generator.run(&Request::new(0, 0).condition("t_next", &[3.0])).is_ok());
}

#[test]
fn a_learned_variance_comes_beside_the_prediction_and_is_that_under_the_condition() {
    let model = Model::open(path("output_with_variance")).unwrap();
    assert!(model.has_plan());
    let mut network = model.network().unwrap();
    let (x, mut out) = (vec![0.5; 40], vec![0.0; 40]);
    network.bind(0, &Condition::default()).unwrap();
    network.predict(&x, 7.0, 0, &mut out).unwrap();
    let variance = network.variance().unwrap().to_vec();
    assert!(variance.len() == 40 && variance != out);
    // the first half of the channels is that of a network whose output is cut
    let run = runs("output_with_variance").remove(0);
    assert_eq!(run.sample().unwrap().len(), 40);
    assert!(Model::open(path("output_of_two")).unwrap().network().unwrap().variance().is_none());
}

#[derive(Deserialize)]
struct Decoded {
    latents: Vec<f32>,
    by_config: Vec<f32>,
    by_2_and_1: Vec<f32>,
}

#[test]
fn a_decoder_makes_pictures_of_latents() {
    let expected: Decoded = serde_json::from_str(include_str!("fixtures/inputs/decoded.json")).unwrap();
    let folder = fixtures().join("inputs/vae_decoder");
    let near = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    for (scaling, pictures) in
        [(Scaling::new(), &expected.by_config), (Scaling::new().factor(2.0).shift(1.0), &expected.by_2_and_1)]
    {
        let mut decoder = Decoder::open(&folder, &[2, 3, 3], scaling).unwrap();
        assert!(decoder.engine().starts_with("plan"), "{}", decoder.engine());
        assert_eq!(decoder.picture_shape(), [3, 6, 6]);
        let mut picture = vec![0.0; decoder.picture_len()];
        for _ in 0..2 {
            decoder.decode(&expected.latents, &mut picture).unwrap();
            assert!(near(&picture, pictures));
        }
        told(decoder.decode(&expected.latents, &mut picture[1..]), ErrorKind::WrongSize, "108");
    }
    let wrong = |shape: &[usize], scaling: Scaling, words: &str| {
        let error = Decoder::open(folder.join("model.onnx"), shape, scaling).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    };
    wrong(
        &[3, 3, 3],
        Scaling::new(),
        "samples of shape [3, 3, 3] do not fit the decoder's input latent_sample (float, [?, 2, ?, ?])",
    );
    wrong(&[2, 3, 3], Scaling::new().factor(0.0), "a finite number that is not 0");
    let error = Decoder::open(path("output_of_two"), &[2, 5, 4], Scaling::new().factor(1.0)).err().unwrap();
    assert!(error.to_string().contains("takes the latents alone, but this takes sample"), "{error}");
    let error = Decoder::open(path("shape_none"), &[2, 5, 4], Scaling::new()).err().unwrap();
    assert!(error.to_string().contains("nothing says what the decoder's latents are scaled by"), "{error}");
}

#[test]
fn the_prediction_is_one_of_several_outputs_or_the_first_half_of_one() {
    agree("output_", 3);
    agree("names_", 1);
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
