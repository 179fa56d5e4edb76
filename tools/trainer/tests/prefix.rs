//! Training for real-time chunking, from outside: the program's options, and what it exports in the library's control loop.

use edgegen::output::{encode_npy, write_file};
use edgegen::policy::{Joint, Observation, Timing};
use std::path::Path;
use std::process::{Command, Output};

fn trainer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgegen-trainer")).args(arguments).output().unwrap()
}

fn assert_fails(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.trim_end().lines().last().unwrap_or_default();
    assert!(!output.status.success() && last.starts_with("edgegen-trainer: ") && last.contains(words), "{text}");
}

/// Windows of 8 actions that rise by what was observed.
fn write_data(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let windows: Vec<(f32, Vec<f32>)> =
        (0..40).map(|i| ((i % 8) as f32, (0..8).map(|k| 100.0 + (i % 8) as f32 * k as f32).collect())).collect();
    let actions: Vec<&[f32]> = windows.iter().map(|w| &w.1[..]).collect();
    let seen: Vec<&[f32]> = windows.iter().map(|w| std::slice::from_ref(&w.0)).collect();
    write_file(&folder.join("actions.npy"), &encode_npy(&actions, &[8, 1]).unwrap()).unwrap();
    write_file(&folder.join("obs.npy"), &encode_npy(&seen, &[1]).unwrap()).unwrap();
}

#[test]
fn a_network_of_prefixes_is_trained_and_joins_its_plans() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (data, out, float, int8) = (path("data"), path("out"), path("p.onnx"), path("p.int8.onnx"));
    write_data(Path::new(&data));
    let tiny = ["train", "--data", &data, "--out", &out, "--base", "8", "--groups", "4", "--batch", "8"];
    let train = |more: &[&str]| trainer(&[&tiny[..], more].concat());
    let nothing_left = "--prefix 8 leaves nothing of sequences of 8 steps to learn: give at most 7";
    assert_fails(&train(&["--prefix", "8"]), nothing_left);
    assert!(train(&["--prefix", "3", "--steps", "4"]).status.success());
    let other = "the checkpoint is of --prefix 3: give that, or leave --prefix out";
    assert_fails(&train(&["--resume", "--prefix", "2"]), other);
    assert_fails(&train(&["--resume", "--prefix", "0"]), other);
    assert!(train(&["--resume", "--steps", "6"]).status.success());
    assert!(train(&["--resume", "--prefix", "3", "--steps", "8"]).status.success());

    let export = ["export", "--checkpoint", &out, "--sampler", "ddim", "--steps", "3"];
    let export = |more: &[&str]| trainer(&[&export[..], more].concat()).status.success();
    assert!(export(&["--out", &float]));
    assert!(export(&["--out", &int8, "--format", "int8", "--data", &data, "--calibration", "8"]));
    for file in [&float, &int8] {
        let model = edgegen::Model::open(file).unwrap();
        assert_eq!(model.metadata().prefix, Some(3));
        let builder = model.generator().policy().n_action_steps(2).joint(Joint::Prefix);
        let mut policy = builder.clone().timing(Timing::Simulated { delay: 3 }).build().unwrap();
        for _ in 0..16 {
            policy.act(&Observation::new().with("global_cond", &[2.0])).unwrap();
        }
        assert!(policy.stats().plans >= 4);
        for timing in [Timing::Simulated { delay: 4 }, Timing::Asynchronous] {
            let error = builder.clone().timing(timing).expected_delay(4).build().err().unwrap().to_string();
            assert!(error.contains("at most 3 clean rows at its sample's beginning, not 4"), "{error}");
        }
    }
}

#[test]
fn pictures_have_no_prefix() {
    let folder = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        std::fs::create_dir(folder.path().join(class)).unwrap();
        for i in 0..12u8 {
            let picture = image::GrayImage::from_pixel(8, 8, image::Luma([20 * i]));
            picture.save(folder.path().join(format!("{class}/{i}.png"))).unwrap();
        }
    }
    let (data, out) = (folder.path().to_str().unwrap(), folder.path().join("out"));
    let train = ["train", "--data", data, "--out", out.to_str().unwrap(), "--size", "8", "--prefix", "2"];
    assert_fails(&trainer(&train), "--prefix is of sequences");
}
