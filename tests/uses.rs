//! The program's other uses of a model, from outside: encode, interpolate, likelihood, schedule, and runs by a
//! scheduler's class.
#![cfg(all(feature = "cli", feature = "embedded-model"))]

mod common;
#[path = "common/program.rs"]
mod program;

use common::Folder;
use program::{edgegen, fails};
use std::path::Path;

/// What the program writes to the standard output; it may warn.
#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = edgegen(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn npy(path: &str) -> Vec<f32> {
    edgegen::output::read_npy(Path::new(path)).unwrap().1
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / a.len() as f32).sqrt()
}

/// The float network: a quantized one jumps, and a jump cannot be gone back over exactly.
const FLOAT: [&str; 2] = ["--model", concat!(env!("CARGO_MANIFEST_DIR"), "/models/fashion-mnist.onnx")];

/// The settings that undo an encoding.
const BACK: [&str; 14] = [
    FLOAT[0],
    FLOAT[1],
    "--class",
    "5",
    "-s",
    "heun",
    "-n",
    "50",
    "--spacing",
    "log-snr",
    "--guidance",
    "1",
    "--clip",
    "none",
];

#[test]
fn an_encoded_picture_comes_back() {
    let folder = Folder::new();
    let [sample, z, back] = ["sample.npy", "z.npy", "back.npy"].map(|n| folder.path(n));
    succeeds(&[&BACK[..], &["--seed", "5", &sample]].concat());
    succeeds(&[&["encode", &sample, &z, "--class", "5"], &FLOAT[..]].concat());
    succeeds(&[&BACK[..], &["--noise", &z, &back]].concat());
    let (sample, z, back) = (npy(&sample), npy(&z), npy(&back));
    assert!(difference(&sample, &back) < 0.02, "{}", difference(&sample, &back));
    assert!(difference(&sample, &z) > 0.5, "the noise is not the sample");

    let picture = folder.path("picture.png");
    succeeds(&["-n", "5", &picture]);
    fails(&["encode", &picture, &folder.path("z.npy"), "-s", "ddpm"], "adds noise");
    fails(&["encode", &picture, &folder.path("z.npy"), "-s", "sde"], "adds noise");
    fails(&["encode", &folder.path("none.png"), &folder.path("z.npy")], "cannot read");
}

#[test]
fn the_way_between_two_pictures_begins_and_ends_at_them() {
    let folder = Folder::new();
    let [a, b, way] = ["a.npy", "b.npy", "way.npy"].map(|n| folder.path(n));
    succeeds(&[&BACK[..], &["--seed", "1", &a]].concat());
    succeeds(&[&BACK[..], &["--seed", "2", &b]].concat());
    succeeds(&[&["interpolate", &a, &b, &way, "--class", "5", "--frames", "3"], &FLOAT[..]].concat());
    let (a, b, way) = (npy(&a), npy(&b), npy(&way));
    let [first, middle, last] = [0, 1, 2].map(|i| &way[i * a.len()..][..a.len()]);
    assert!(difference(first, &a) < 0.02 && difference(last, &b) < 0.02);
    assert!(difference(middle, &a) > 0.02 && difference(middle, &b) > 0.02);

    let [from, to, gif] = ["from.png", "to.png", "way.gif"].map(|n| folder.path(n));
    succeeds(&["-n", "5", &from]);
    succeeds(&["-n", "5", "--seed", "1", &to]);
    succeeds(&["interpolate", &from, &to, &gif, "-n", "5", "--frames", "4"]);
    assert!(std::fs::read(&gif).unwrap().starts_with(b"GIF"));
    fails(&["interpolate", &from, &to, &gif, "--frames", "1"], "--frames must be at least 2");
}

#[test]
fn likelihoods_tell_a_garment_from_noise() {
    let folder = Folder::new();
    let [garment, noise] = ["garment.png", "noise.png"].map(|n| folder.path(n));
    succeeds(&["--class", "8", "-n", "10", &garment]);
    let grain = (0..784u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    image::GrayImage::from_raw(28, 28, grain).unwrap().save(&noise).unwrap();
    let loose = ["--rtol", "0.01", "--atol", "0.01", "--probes", "2", "--report", "json"];
    let bits = |file: &str| {
        let report = succeeds(&[&["likelihood", file, "--class", "8"], &loose[..]].concat());
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert!(report["standard_error"].as_f64().unwrap() > 0.0);
        report["bits_per_dim"].as_f64().unwrap()
    };
    let (garment_bits, noise_bits) = (bits(&garment), bits(&noise));
    assert!((1.0..7.0).contains(&garment_bits), "{garment_bits}");
    assert!(noise_bits > garment_bits + 1.0, "{noise_bits} against {garment_bits}");

    let small = folder.path("small.png");
    image::GrayImage::new(8, 8).save(&small).unwrap();
    fails(&["likelihood", &small], "a picture of the model's has 28x28 pixels, but this one has 8x8");
    fails(&["likelihood", &garment, "--rtol", "0"], "rtol must be positive, not 0");
    fails(&["likelihood", &garment, "--probes", "0"], "--probes must be at least 1");
}

#[test]
fn fitted_steps_are_the_models_own() {
    let times = |arguments: &[&str]| -> Vec<String> {
        let text = succeeds(&[&["schedule"], arguments].concat());
        text.lines().skip(1).map(|l| l.split_whitespace().nth(1).unwrap().to_string()).collect()
    };
    let fitted = times(&["-n", "5"]);
    assert_eq!((fitted.len(), fitted[5].as_str()), (6, "clean"));
    assert_ne!(fitted, times(&["-n", "5", "-s", "unipc-2"]));
    assert_eq!(times(&["-n", "7"]), times(&["-n", "7", "-s", "unipc-2"]), "nothing is fitted for 7");

    let folder = Folder::new();
    let sample = |name: &str, arguments: &[&str]| {
        let out = folder.path(name);
        succeeds(&[arguments, &[&out]].concat());
        npy(&out)
    };
    // five fitted steps are nearer to where many lead than five of the sampler that they stand in for
    let long = sample("a.npy", &["-n", "50", "-s", "dpm++2m", "--spacing", "trailing", "--count", "8"]);
    let own = difference(&sample("b.npy", &["-n", "5", "--count", "8"]), &long);
    let other = difference(&sample("c.npy", &["-n", "5", "-s", "unipc-2", "--count", "8"]), &long);
    assert!(own < 0.9 * other, "{own} {other}");
}

#[test]
fn a_schedule_is_listed_and_drawn() {
    let folder = Folder::new();
    let plot = folder.path("schedule.png");
    let listed = succeeds(&["schedule", "-n", "4", "--spacing", "trailing", "--plot", &plot]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 6, "{listed}");
    assert!(lines[1].contains("999.00") && lines[5].contains("clean"), "{listed}");
    assert_eq!(image::open(&plot).unwrap().width(), 840);
}

#[test]
fn a_schedulers_class_chooses_the_sampler() {
    let folder = Folder::new();
    let config = folder.path("scheduler_config.json");
    let mut text = r#"{"_class_name": "HeunDiscreteScheduler", "beta_schedule": "squaredcos_cap_v2", "colour": 3}"#;
    let calls = || {
        // a sampler's name in the model's metadata would go before the class: this one has none
        let model = format!("{}/tests/fixtures/models/open_shape.onnx", env!("CARGO_MANIFEST_DIR"));
        let out = folder.path("out.npy");
        let shape = ["--shape", "5"];
        let output = edgegen(
            &[&["-m", &model, "--scheduler-config", &config, "-n", "5", "--report", "json", &out], &shape[..]].concat(),
        );
        let errors = String::from_utf8(output.stderr).unwrap();
        let report: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
        (report.and_then(|r| r["nfe"].as_u64()), errors)
    };
    std::fs::write(&config, text).unwrap();
    let (nfe, errors) = calls();
    assert_eq!(nfe, Some(9), "{errors}");
    assert!(errors.contains("the field colour is not known and has no effect"), "{errors}");

    text = r#"{"_class_name": "PNDMScheduler"}"#;
    std::fs::write(&config, text).unwrap();
    assert_eq!(calls().0, Some(5 + 9));

    text = r#"{"_class_name": "SCMScheduler"}"#;
    std::fs::write(&config, text).unwrap();
    assert!(calls().1.contains("the scheduler class SCMScheduler is not supported"));

    text = r#"{"solver_order": 7}"#;
    std::fs::write(&config, text).unwrap();
    assert!(calls().1.contains("solver_order must be 1, 2 or 3, not 7"));
}

#[test]
fn options_that_a_sampler_has_not_are_told() {
    let folder = Folder::new();
    let out = folder.path("out.png");
    for (arguments, words) in [
        (&["-s", "ddim", "--churn", "1"][..], "churn is for the sampler heun alone"),
        (&["-s", "heun", "--eta", "1"], "eta is for the samplers ddim and sa-solver alone"),
        (&["-s", "heun", "--churn", "-1"], "churn must be a number from 0 on"),
        (&["-s", "ddim", "--order", "2"], "order is for lms"),
        (&["-s", "unipc-2", "--order", "9"], "the order of unipc must be from 1 to 3, not 9"),
        (&["-s", "dpm++2m", "--rtol", "0.1"], "tolerances are for samplers that choose their own steps"),
        (&["-s", "rk45", "--rtol", "0"], "rtol must be positive, not 0"),
        (&["-n", "1001"], "the number of steps must be from 1 to 1000, not 1001"),
    ] {
        fails(&[arguments, &[&out]].concat(), words);
    }
    // the model's own sampler goes anywhere
    succeeds(&["--spacing", "karras", "-n", "3", &out]);
    succeeds(&["-s", "heun", "--churn", "5", "-n", "3", &out]);
    succeeds(&["-s", "dpm-23", "--rtol", "0.2", "--clip", "dynamic", &out]);
}
