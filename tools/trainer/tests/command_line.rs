//! The program from outside: training, interruption, resuming, and what it says of bad input.

#[path = "command_line/distill.rs"]
mod distill;

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// 40 pictures of 8×8 in two classes, as IDX files.
fn write_data(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    let idx = |shape: &[u32], content: Vec<u8>| {
        let header = [0, 0, 8, shape.len() as u8].into_iter();
        header.chain(shape.iter().flat_map(|d| d.to_be_bytes())).chain(content).collect::<Vec<u8>>()
    };
    let pixels = (0..40 * 64).map(|i: usize| if i / 8 % 2 == i / 64 % 2 { 220 } else { (i / 64) as u8 }).collect();
    std::fs::write(data.join("train-images-idx3-ubyte"), idx(&[40, 8, 8], pixels)).unwrap();
    std::fs::write(data.join("train-labels-idx1-ubyte"), idx(&[40], (0..40).map(|i| i % 2).collect())).unwrap();
    for file in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
        std::fs::copy(data.join(format!("train-{file}")), data.join(format!("t10k-{file}"))).unwrap();
    }
    data
}

fn trainer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgegen-trainer"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The options of a network that trains in no time.
const TINY: [&str; 12] =
    ["--base", "8", "--mult", "1,2", "--patch", "2", "--groups", "4", "--batch", "4", "--sample-every", "0"];

fn train(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = trainer(&["train", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    command.args(TINY).args(more);
    command
}

fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// The header of a checkpoint.
fn header(path: &Path) -> serde_json::Value {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    serde_json::from_str(&metadata.metadata().as_ref().unwrap()["edgegen"]).unwrap()
}

/// Name and bytes of every tensor of a checkpoint.
fn tensors(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.tensors().into_iter().map(|(n, t)| (n, t.data().to_vec())).collect();
    tensors.sort();
    tensors
}

/// Waits for `condition`, which must come true within a minute.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn training_writes_checkpoint_curve_and_samples() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (write_data(folder.path()), folder.path().join("out"));
    let mut command = trainer(&["train", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    command.args(&TINY[..10]).args(["--steps", "100", "--sample-every", "50", "--class-names", "odd,even"]);
    assert_success(&run(command));

    let checkpoint = out.join("checkpoint.safetensors");
    assert_eq!(header(&checkpoint)["step"], 100);
    let curve = std::fs::read_to_string(out.join("loss.csv")).unwrap();
    let lines: Vec<Vec<f64>> =
        curve.lines().skip(1).map(|l| l.split(',').map(|v| v.parse().unwrap()).collect()).collect();
    assert!(curve.starts_with("step,seconds,loss,"), "{curve}");
    assert_eq!(lines.iter().map(|l| l[0]).collect::<Vec<_>>(), [50.0, 100.0]);
    for grid in ["samples-000050.png", "samples-000100.png", "samples-final.png"] {
        let grid = image::open(out.join(grid)).unwrap();
        assert_eq!((grid.width(), grid.height()), (8 * 8, 2 * 8));
    }

    let sample = |more: &[&str]| {
        let mut command = trainer(&["sample", "--checkpoint", checkpoint.to_str().unwrap(), "--steps", "3"]);
        command.args(more);
        run(command)
    };
    let npy = folder.path().join("samples.npy");
    assert_success(&sample(&["--class", "EVEN", "--count", "3", npy.to_str().unwrap()]));
    assert_eq!(std::fs::read(&npy).unwrap().len() % 64, 3 * 64 * 4 % 64);
    let output = sample(&["--class", "dog", npy.to_str().unwrap()]);
    assert_one_line(&output, "odd, even");
    assert_one_line(&sample(&["--class", "2", npy.to_str().unwrap()]), "no class");
    assert_one_line(&sample(&["samples.xyz"]), "xyz");
}

#[cfg(unix)]
#[test]
fn control_c_saves_and_resuming_gives_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_data(folder.path());
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    let options = ["--steps", "300", "--save-every", "50"];
    assert_success(&run(train(&data, &straight, &options)));

    let child = train(&data, &stopped, &options).spawn().unwrap();
    let checkpoint = stopped.join("checkpoint.safetensors");
    wait_for("the first checkpoint", || checkpoint.exists());
    interrupt(&child);
    assert_success(&child.wait_with_output().unwrap());
    let step = header(&checkpoint)["step"].as_u64().unwrap();
    assert!((50..300).contains(&step), "stopped at step {step}");

    let mut resume = train(&data, &stopped, &["--resume"]);
    resume.args(["--save-every", "50"]);
    assert_success(&run(resume));
    let finished = straight.join("checkpoint.safetensors");
    assert_eq!((header(&checkpoint)["step"].as_u64(), header(&finished)["step"].as_u64()), (Some(300), Some(300)));
    assert!(tensors(&checkpoint) == tensors(&finished), "stopping at step {step} and resuming changed the model");
    // the loss curve has each line once
    let steps = |out: &Path| -> Vec<String> {
        let curve = std::fs::read_to_string(out.join("loss.csv")).unwrap();
        curve.lines().skip(1).map(|l| l.split(',').next().unwrap().to_string()).collect()
    };
    assert_eq!(steps(&stopped), steps(&straight));
}

/// A large network on small pictures spends its time writing checkpoints. It is killed again and again, at
/// the latest until a kill has fallen into a write; every time the checkpoint is whole.
#[cfg(unix)]
#[test]
fn a_kill_while_a_checkpoint_is_written_leaves_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (write_data(folder.path()), folder.path().join("out"));
    let checkpoint = out.join("checkpoint.safetensors");
    let partial = out.join("checkpoint.safetensors.tmp");
    let large = ["--base", "64", "--mult", "1,2", "--batch", "1", "--sample-every", "0", "--save-every", "1"];
    let (mut step, mut cut) = (0, 0);
    for round in 0..40 {
        let mut command = trainer(&["train", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        command.args(large).args(["--steps", "1000000"]);
        if round > 0 {
            command.arg("--resume");
        }
        let mut child = command.spawn().unwrap();
        // wait for it to save once more, then for the next write to begin
        wait_for("a checkpoint", || {
            assert!(child.try_wait().unwrap().is_none(), "training ended by itself");
            checkpoint.exists() && (step == 0 || header(&checkpoint)["step"].as_u64().unwrap() > step)
        });
        let _ = std::fs::metadata(&partial).is_err().then(|| wait_for("a write", || partial.exists()));
        std::thread::sleep(Duration::from_millis(round % 5 * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = header(&checkpoint)["step"].as_u64().unwrap();
        assert!(now > step);
        assert_eq!(tensors(&checkpoint).len() % 4, 0);
        step = now;
        // a killed writer leaves its file behind, and it is not whole, or not yet in place
        cut += usize::from(partial.exists());
        if cut >= 3 {
            break;
        }
    }
    assert!(cut >= 3, "no kill fell into a write");
    // and it goes on from there, leaving nothing behind
    let steps = (step + 1).to_string();
    let mut command = trainer(&["train", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    command.args(large).args(["--resume", "--steps", &steps]);
    assert_success(&run(command));
    assert_eq!(header(&checkpoint)["step"], step + 1);
    assert!(!partial.exists());
}

/// The program failed, and its last words are one line that contains `words`.
fn assert_one_line(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = text.lines().filter(|l| l.starts_with("edgegen-trainer: ")).collect();
    assert!(!output.status.success(), "should have failed with {words:?}");
    assert!(errors.len() == 1 && text.trim_end().ends_with(errors[0]), "not one line: {text}");
    assert!(errors[0].contains(words), "{:?} does not contain {words:?}", errors[0]);
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn bad_input_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (write_data(folder.path()), folder.path().join("out"));
    let fails = |more: &[&str], words: &str| assert_one_line(&run(train(&data, &out, more)), words);
    fails(&["--resume"], "checkpoint.safetensors");
    fails(&["--steps", "0"], "--steps");
    fails(&["--rate=-1"], "--rate");
    fails(&["--rate", "nan"], "--rate");
    fails(&["--ema", "1"], "--ema");
    fails(&["--label-dropout", "1.5"], "--label-dropout");
    fails(&["--clip", "0"], "--clip");
    fails(&["--class-names", "a,b,c"], "3 class names");
    fails(&["--middle", "3"], "--middle");
    fails(&["--train-timesteps", "0"], "training step");
    if !cfg!(feature = "cuda") {
        fails(&["--gpu"], "--features cuda");
    }
    let tiny = |arguments: &[&str], words: &str| {
        let mut command = trainer(&["train", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        command.args(arguments);
        assert_one_line(&run(command), words);
    };
    tiny(&["--batch", "0"], "--batch");
    tiny(&["--base", "7"], "--base");
    tiny(&["--base", "12", "--groups", "8"], "groups");
    tiny(&["--patch", "3"], "8×8");
    tiny(&["--mult", "1,0"], "--mult");

    let missing = folder.path().join("missing");
    assert_one_line(&run(train(&missing, &out, &[])), "missing");
    assert_one_line(&run(train(folder.path(), &out, &[])), "holds no data");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert_one_line(&run(train(&file, &out, &[])), "not a folder");
    assert_one_line(&run(train(&data, &file, &["--steps", "1"])), "file");

    assert_success(&run(train(&data, &out, &["--steps", "2"])));
    fails(&["--steps", "2"], "--resume");
    fails(&["--resume", "--steps", "1"], "2 steps are done");
    let checkpoint = out.join("checkpoint.safetensors");
    let whole = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &whole[..whole.len() / 2]).unwrap();
    fails(&["--resume"], "not a checkpoint");
    std::fs::write(&checkpoint, "hello").unwrap();
    fails(&["--resume"], "not a checkpoint");

    // another data set than the checkpoint's
    std::fs::write(&checkpoint, &whole).unwrap();
    let mut labels = std::fs::read(data.join("train-labels-idx1-ubyte")).unwrap();
    *labels.last_mut().unwrap() = 2;
    std::fs::write(data.join("train-labels-idx1-ubyte"), labels).unwrap();
    fails(&["--resume"], "3 classes");
}

/// From data to figures, the way that a user goes.
#[test]
#[allow(clippy::too_many_lines, reason = "one way, each stage of which takes the files of the one before")]
fn a_model_is_trained_exported_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (write_data(folder.path()), folder.path().join("out"));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (data_path, float, int8, judge) =
        (data.to_str().unwrap().to_string(), path("m.onnx"), path("m.int8.onnx"), path("judge.safetensors"));
    assert_success(&run(train(&data, &out, &["--steps", "30", "--class-names", "odd,even"])));
    let checkpoint = out.to_str().unwrap().to_string();
    let go = |arguments: &[&str]| run(trainer(arguments));
    let export = |more: &[&str]| go(&[&["export", "--checkpoint", &checkpoint], more].concat());
    assert_success(&export(&["--out", &float]));
    assert_success(&export(&["--out", &int8, "--format", "int8", "--data", &data_path, "--calibration", "16"]));
    assert!(std::fs::metadata(&int8).unwrap().len() < std::fs::metadata(&float).unwrap().len());

    let classifier = ["train-classifier", "--data", &data_path, "--out", &judge, "--epochs", "8", "--batch", "10"];
    let output = go(&classifier);
    assert_success(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("recognises 100.00 % of 40"));
    let eval = |more: &[&str]| go(&[&["eval", "--classifier", &judge, "--data", &data_path], more].concat());
    let output = eval(&["--count", "20", "--steps", "2,4", "--report", "json", &float, &int8]);
    assert_success(&output);
    let rows: Vec<serde_json::Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let whats: Vec<_> = rows.iter().map(|r| (r["what"].as_str().unwrap(), r["steps"].as_u64().unwrap())).collect();
    let expected = [("real pictures", 0), ("m.onnx", 2), ("m.onnx", 4), ("m.int8.onnx", 2), ("m.int8.onnx", 4)];
    assert_eq!(whats, expected);
    assert_eq!(rows[0]["accuracy"], 1.0);
    for row in &rows {
        let frechet = row["frechet"].as_f64().unwrap();
        assert!(
            frechet.is_finite() && (row["what"] == "real pictures" || frechet > rows[0]["frechet"].as_f64().unwrap())
        );
        assert_eq!(row["accuracy_by_class"].as_array().unwrap().len(), 2);
    }

    // moving the steps brings short runs nearer to long ones, and is remembered by the files
    let tune = |more: &[&str]| go(&[&["tune", "--samples", "4", "--reference-steps", "20"], more].concat());
    let output = tune(&["--steps", "2,3", "--sampler", "ddim", &float, &int8]);
    assert_success(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for steps in ["2 steps", "3 steps"] {
        let line = said.lines().find(|l| l.starts_with(steps)).unwrap();
        let errors: Vec<f64> = line.split([' ', ',']).filter_map(|w| w.parse().ok()).skip(1).take(2).collect();
        assert!(errors[0] < 0.9 * errors[1], "{line}");
    }
    for file in [&float, &int8] {
        let model = edgegen::Model::open(file).unwrap();
        assert_eq!(model.scheduler_config().tuned_timesteps.keys().collect::<Vec<_>>(), [&2, &3]);
        let metadata = model.metadata();
        assert_eq!(metadata.spacing, Some(edgegen::config::Spacing::Tuned));
        assert_eq!(metadata.sampler.as_deref(), Some("ddim"));
    }
    // fitted weights bring them nearer still; one that is tuned can be tuned again, and keeps what is not touched
    let output = tune(&["--steps", "2", "--keep-times", &float]);
    assert_success(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<f64> = said.split([' ', ',', '\n']).filter_map(|w| w.parse().ok()).skip(1).collect();
    assert!(errors.len() == 3 && errors[0] < 0.9 * errors[2] && errors[1] < errors[2], "{said}");
    let model = edgegen::Model::open(&float).unwrap();
    let config = model.scheduler_config();
    assert_eq!((config.tuned_timesteps.len(), config.fitted_steps[&2].len()), (2, 2));
    assert_eq!(model.metadata().sampler.as_deref(), Some("fitted"));
    assert_success(&eval(&["--count", "20", "--steps", "2,3", &float]));
    // four calls are two steps of Heun, of which the last needs but one
    let output = eval(&["--count", "20", "--calls", "4", "--sampler", "heun", "--report", "json", &float]);
    assert_success(&output);
    let row: serde_json::Value =
        serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().nth(1).unwrap()).unwrap();
    assert_eq!((row["calls"].as_u64(), row["spacing"].as_str()), (Some(3), Some("tuned")));
    assert_one_line(&tune(&["--sampler", "ddpm", &float]), "only a deterministic sampler with fixed steps");
    assert_one_line(&tune(&["--sampler", "rk45", &float]), "only a deterministic sampler with fixed steps");
    assert_one_line(&tune(&[&judge]), "not an ONNX model");

    assert_one_line(&export(&["--out", &int8, "--format", "int8"]), "--data");
    assert_one_line(&export(&["--out", &int8, "--sampler", "magic"]), "unknown sampler");
    assert_one_line(&export(&["--out", &int8, "--spacing", "magic"]), "unknown step spacing");
    assert_one_line(&export(&["--out", &path("no/folder.onnx")]), "folder.onnx");
    assert_one_line(&go(&["export", "--checkpoint", &path("none"), "--out", &float]), "none");
    assert_one_line(&eval(&["--count", "1", &float]), "--count");
    assert_one_line(&eval(&["--steps", "0", &float]), "number of steps");
    assert_one_line(&eval(&["--sampler", "magic", &float]), "unknown sampler");
    assert_one_line(&eval(&[&judge]), "not an ONNX model");
    assert_one_line(&go(&["eval", "--classifier", &float, "--data", &data_path, &float]), "not a classifier");
    assert_one_line(&go(&[&classifier[..5], &["--epochs", "0"]].concat()), "--epochs");
    // a classifier for other pictures
    let small = path("small");
    std::fs::create_dir(&small).unwrap();
    for split in ["train", "t10k"] {
        let idx = |shape: &[u8], len: usize| {
            let dims = shape.iter().flat_map(|d| [0, 0, 0, *d]);
            [0, 0, 8, shape.len() as u8]
                .into_iter()
                .chain(dims)
                .chain((0..len).map(|i| (i % 2) as u8))
                .collect::<Vec<_>>()
        };
        std::fs::write(format!("{small}/{split}-images-idx3-ubyte"), idx(&[20, 4, 4], 320)).unwrap();
        std::fs::write(format!("{small}/{split}-labels-idx1-ubyte"), idx(&[20], 20)).unwrap();
    }
    let other = path("other.safetensors");
    assert_success(&go(&["train-classifier", "--data", &small, "--out", &other, "--epochs", "1"]));
    assert_one_line(&go(&["eval", "--classifier", &other, "--data", &data_path, &float]), "classifier is for");
    assert_one_line(&go(&["eval", "--classifier", &other, "--data", &small, &float]), "m.onnx: the model's samples");
}

/// A policy of sequences, from demonstrations to a plan in their units.
#[test]
fn sequences_are_trained_and_exported() {
    use edgegen::output::{encode_npy, write_file};
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    std::fs::create_dir(&data).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    // windows whose actions rise from 100 by what was observed
    let windows: Vec<(f32, Vec<f32>)> = (0..40)
        .map(|i| {
            let slope = (i % 8) as f32;
            (slope, (0..16).map(|k| if k % 2 == 0 { 100.0 + slope * (k / 2) as f32 } else { -3.0 }).collect())
        })
        .collect();
    let actions: Vec<&[f32]> = windows.iter().map(|w| &w.1[..]).collect();
    let seen: Vec<&[f32]> = windows.iter().map(|w| std::slice::from_ref(&w.0)).collect();
    let write = |name: &str, rows: &[&[f32]], shape: &[usize]| {
        write_file(&data.join(name), &encode_npy(rows, shape).unwrap()).unwrap();
    };
    write("actions.npy", &actions, &[8, 2]);
    write("obs.npy", &seen, &[1]);
    let train = |more: &[&str]| {
        let mut command = trainer(&["train", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        command.args(["--base", "8", "--groups", "4", "--batch", "8"]).args(more);
        run(command)
    };
    assert_one_line(&train(&["--flip"]), "sequences are not mirrored");
    assert_one_line(&train(&["--kernel", "4"]), "--kernel");
    assert_one_line(&train(&["--mult", "1,1,1,1,1"]), "sequences of 8 steps");
    assert_one_line(&train(&["--class-names", "a"]), "no classes");
    assert_success(&train(&["--steps", "4"]));
    assert_success(&train(&["--steps", "6", "--resume"]));
    assert_eq!(header(&out.join("checkpoint.safetensors"))["step"], 6);

    let (float, int8) = (path("p.onnx"), path("p.int8.onnx"));
    let export = |more: &[&str]| {
        let checkpoint = out.to_str().unwrap();
        run(trainer(&[&["export", "--checkpoint", checkpoint, "--sampler", "ddim", "--steps", "3"], more].concat()))
    };
    assert_success(&export(&["--out", &float]));
    let data_path = data.to_str().unwrap();
    assert_success(&export(&["--out", &int8, "--format", "int8", "--data", data_path, "--calibration", "8"]));
    assert!(std::fs::metadata(&int8).unwrap().len() < std::fs::metadata(&float).unwrap().len());
    for file in [&float, &int8] {
        let model = edgegen::Model::open(file).unwrap();
        assert_eq!((model.sample_shape(), model.scheduler_config().num_train_timesteps), (&[8, 2][..], 100));
        let mut generator = model.generator().build().unwrap();
        let run = generator.run(&edgegen::Request::new(0, 0).condition("global_cond", &[2.0])).unwrap();
        assert_eq!(run.outcome.nfe, 3);
        // within the ranges of the data, and the column that never varied is what it was
        for pair in run.sample.chunks(2) {
            assert!((100.0..=149.0).contains(&pair[0]) && pair[1] == -3.0, "{:?}", run.sample);
        }
    }
    // other data than the checkpoint's
    write("obs.npy", &seen[..39], &[1]);
    assert_one_line(&train(&["--steps", "8", "--resume"]), "there are 40 actions");
    let doubled: Vec<f32> = windows.iter().map(|w| 2.0 * w.0).collect();
    write("obs.npy", &doubled.chunks(1).collect::<Vec<_>>(), &[1]);
    assert_one_line(&train(&["--steps", "8", "--resume"]), "ranges");
    let sample =
        run(trainer(&["sample", "--checkpoint", out.join("checkpoint.safetensors").to_str().unwrap(), &path("x.npy")]));
    assert_one_line(&sample, "sample it with edgegen");
}

/// A rectified flow of pictures, from data to judged samples; and what is of one path is refused with the other.
#[test]
fn a_flow_of_pictures_is_trained_exported_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (write_data(folder.path()), folder.path().join("out"));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (data_path, checkpoint) = (data.to_str().unwrap().to_string(), out.to_str().unwrap().to_string());
    let fails = |more: &[&str], words: &str| assert_one_line(&run(train(&data, &out, more)), words);
    fails(&["--prediction", "flow"], "give --path flow and --prediction flow");
    fails(&["--path", "flow", "--prediction", "epsilon"], "give --path flow and --prediction flow");
    fails(&["--path", "flow", "--prediction", "v"], "give --path flow and --prediction flow");
    fails(&["--path", "flow", "--beta-schedule", "linear"], "--beta-schedule is of --path vp");
    fails(&["--path", "flow", "--weighting", "likelihood"], "--weighting simple");
    fails(&["--time-sampling", "logit-normal"], "give --path flow too");

    let flow = ["--path", "flow", "--time-sampling", "logit-normal", "--class-names", "odd,even"];
    // enough for a velocity that is not that of a fresh network, zero, along which steps of all lengths are exact
    let quickly = ["--rate", "5e-3", "--warm-up", "5", "--steps", "60"];
    assert_success(&run(train(&data, &out, &[&flow[..], &quickly].concat())));
    fails(&["--resume", "--steps", "70", "--path", "vp"], "the checkpoint is of --path flow");
    // what is gone on with is what was begun, asked for or not
    assert_success(&run(train(&data, &out, &["--resume", "--steps", "70"])));
    let kept = header(&out.join("checkpoint.safetensors"));
    assert_eq!((&kept["step"], &kept["train"]["time_sampling"]), (&70.into(), &"logit-normal".into()));
    assert_eq!(kept["scheduler"]["_class_name"], "FlowMatchEulerDiscreteScheduler");
    let grid = path("grid.png");
    let saved = out.join("checkpoint.safetensors");
    let preview = ["sample", "--checkpoint", saved.to_str().unwrap(), "--steps", "3", "--count", "3", &grid];
    assert_success(&run(trainer(&preview)));
    assert_eq!(image::open(&grid).unwrap().width(), 3 * 8);
    // a student of its guided self stays on its path
    let student = folder.path().join("student");
    let distilled = ["--teacher", &checkpoint, "--guidance", "1.5", "--steps", "2"];
    assert_one_line(&run(train(&data, &student, &[&distilled[..], &["--path", "vp"]].concat())), "of --path flow");
    assert_success(&run(train(&data, &student, &distilled)));
    assert_eq!(header(&student.join("checkpoint.safetensors"))["scheduler"], kept["scheduler"]);

    let (float, int8, judge) = (path("m.onnx"), path("m.int8.onnx"), path("judge.safetensors"));
    let go = |arguments: &[&str]| run(trainer(arguments));
    let export = |more: &[&str]| go(&[&["export", "--checkpoint", &checkpoint], more].concat());
    assert_success(&export(&["--out", &float]));
    assert_success(&export(&["--out", &int8, "--format", "int8", "--data", &data_path, "--calibration", "16"]));
    let classifier = ["train-classifier", "--data", &data_path, "--out", &judge, "--epochs", "2", "--batch", "10"];
    assert_success(&go(&classifier));
    let tune = ["tune", "--samples", "4", "--reference-steps", "20", "--steps", "2,3", &float, &int8];
    let output = go(&tune);
    assert_success(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for line in said.lines() {
        // the error and what it was before: the fit's third number
        let errors: Vec<f64> = line.split([' ', ',']).filter_map(|w| w.parse().ok()).skip(1).collect();
        let before = errors[if line.contains("fitted") { 2 } else { 1 }];
        assert!(errors[0] < before, "{line}");
    }
    for file in [&float, &int8] {
        let model = edgegen::Model::open(file).unwrap();
        let config = model.scheduler_config();
        assert!(config.is_flow() && config.tuned_timesteps[&2][0] > 0.0 && config.fitted_steps[&3].len() == 3);
        assert_eq!(model.metadata().sampler.as_deref(), Some("fitted"));
    }
    let judged = ["eval", "--classifier", &judge, "--data", &data_path, "--count", "20", "--report", "json"];
    let output = go(&[&judged[..], &["--steps", "2,4", "--sampler", "euler,unipc-2,fitted", &float, &int8]].concat());
    assert_success(&output);
    let rows: Vec<serde_json::Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 13);
    assert!(rows.iter().all(|row| row["frechet"].as_f64().unwrap().is_finite()));
}

/// A policy of a rectified flow learns the data, and edgegen's own library follows it to a plan.
#[test]
fn a_policy_of_a_flow_makes_the_plans_that_it_was_shown() {
    use edgegen::output::{encode_npy, write_file};
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    std::fs::create_dir(&data).unwrap();
    // windows that rise from 100 by what was observed
    let windows: Vec<(f32, Vec<f32>)> =
        (0..40).map(|i| ((i % 8) as f32, (0..8).map(|k| 100.0 + (i % 8) as f32 * k as f32).collect())).collect();
    let actions: Vec<&[f32]> = windows.iter().map(|w| &w.1[..]).collect();
    let seen: Vec<&[f32]> = windows.iter().map(|w| std::slice::from_ref(&w.0)).collect();
    write_file(&data.join("actions.npy"), &encode_npy(&actions, &[8, 1]).unwrap()).unwrap();
    write_file(&data.join("obs.npy"), &encode_npy(&seen, &[1]).unwrap()).unwrap();
    let options =
        ["--path", "flow", "--base", "8", "--groups", "4", "--batch", "32", "--rate", "5e-3", "--ema", "0.98"];
    let mut command = trainer(&["train", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    command.args(options).args(["--warm-up", "20", "--steps", "400"]);
    assert_success(&run(command));
    let file = folder.path().join("p.onnx");
    let export = ["export", "--checkpoint", out.to_str().unwrap(), "--out", file.to_str().unwrap()];
    assert_success(&run(trainer(&export)));

    let model = edgegen::Model::open(&file).unwrap();
    assert!(model.scheduler_config().is_flow());
    let mut generator = model.generator().build().unwrap();
    let (mut sum, mut count) = (0.0, 0);
    for seed in 0..8 {
        let slope = seed as f32;
        let given = [slope];
        let request = edgegen::Request::new(seed, 0).condition("global_cond", &given);
        for (k, got) in generator.run(&request).unwrap().sample.iter().enumerate() {
            sum += (got - (100.0 + slope * k as f32)).powi(2);
            count += 1;
        }
    }
    // the mean of all that was shown is off by 9.6, and so is, at the least, a model that ignores what is observed
    let error = (sum / count as f32).sqrt();
    assert!(error < 3.0, "the plans are off by {error}");
}
