//! Networks whose inputs and outputs are as people have them. `tools/fixtures/inputs.py` wrote them, and the samples that
//! its own DDIM loop makes of them with onnxruntime's predictions.

mod common;

use common::fixtures;
use edgegen::config::SchedulerConfig;
use edgegen::model::{Decoder, Role, Scaling, TimeAs};
use edgegen::noise::Noise;
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

/// DDPM with `learned_range` in f64, around the network's own calls (arXiv 2102.09672, eq. 15).
fn ddpm_by_hand(model: &Model, steps: usize, seed: u64) -> Vec<f64> {
    let beta = |t: usize| 1e-4 + (0.02 - 1e-4) * t as f64 / 999.0;
    let alpha_bar = |t: usize| (0..=t).map(|s| 1.0 - beta(s)).product::<f64>();
    let mut network = model.network().unwrap();
    network.bind(0, &Condition::default()).unwrap();
    let mut noise = Noise::new(seed, 0);
    let mut x: Vec<f64> = (0..40).map(|_| f64::from(noise.sample())).collect();
    for i in (0..steps).rev() {
        let t = i * (1000 / steps);
        let (now, next) = (alpha_bar(t), if i == 0 { 1.0 } else { alpha_bar(t - 1000 / steps) });
        let mut eps = vec![0.0; 40];
        network.predict(&x.iter().map(|v| *v as f32).collect::<Vec<_>>(), t as f64, 0, &mut eps).unwrap();
        let v = network.variance().unwrap().to_vec();
        let step = 1.0 - now / next;
        let (small, large) = (((1.0 - next) / (1.0 - now) * step).max(1e-20).ln(), step.ln());
        for k in 0..40 {
            let x0 = (x[k] - (1.0 - now).sqrt() * f64::from(eps[k])) / now.sqrt();
            let mean = next.sqrt() * step / (1.0 - now) * x0 + (1.0 - step).sqrt() * (1.0 - next) / (1.0 - now) * x[k];
            let share = (f64::from(v[k]) + 1.0) / 2.0;
            let z = if i == 0 { 0.0 } else { f64::from(noise.sample()) };
            x[k] = mean + (0.5 * (share * large + (1.0 - share) * small)).exp() * z;
        }
    }
    x
}

#[test]
fn a_learned_variance_is_that_of_the_steps_where_the_schedule_says_so() {
    let with = |class: &str, more: &str, model: &str| {
        let config = format!(r#"{{"_class_name": "{class}", {more}}}"#);
        ModelOptions::new().scheduler_config(SchedulerConfig::from_json(&config).unwrap()).open(path(model)).unwrap()
    };
    let range = r#""clip_sample": false, "variance_type": "learned_range""#;
    let model = with("DDPMScheduler", range, "output_with_variance");
    let mut generator = model.generator().steps(5).build().unwrap();
    let found = generator.run(&Request::new(3, 0)).unwrap().sample.to_vec();
    let expected = ddpm_by_hand(&model, 5, 3);
    let size = expected.iter().map(|v| v * v).sum::<f64>().sqrt();
    let off = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt() / size;
    println!("learned_range: {off:.1e}");
    assert!(off < 1e-5 && size.is_finite(), "{off:e} of {size}");
    let plain = with("DDPMScheduler", r#""clip_sample": false"#, "output_with_variance");
    let plain = plain.generator().steps(5).build().unwrap().run(&Request::new(3, 0)).unwrap().sample.to_vec();
    assert_ne!(plain, found);
    // classes that leave the second half out
    for class in ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "SASolverScheduler", "DDIMScheduler"] {
        let run = |more: &str| {
            let model = with(class, more, "output_with_variance");
            model.generator().steps(5).build().unwrap().run(&Request::new(3, 0)).unwrap().sample.to_vec()
        };
        assert_eq!(run(r#""variance_type": "learned_range""#), run(r#""num_train_timesteps": 1000"#), "{class}");
    }
    for more in [range, r#""variance_type": "learned""#] {
        let without = with("DDPMScheduler", more, "output_of_two");
        told(without.generator().build(), ErrorKind::InvalidArgument, "a learned variance is the second half");
    }
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
