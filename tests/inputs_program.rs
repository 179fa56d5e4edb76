//! The program on networks whose inputs and outputs are as people have them; the samples are those that `tests/inputs.rs`
//! compares with too.
#![cfg(feature = "cli")]

mod common;
#[path = "common/program.rs"]
mod program;

use common::{Folder, fixtures};
use program::{edgegen, fails, succeeds};
use serde_json::Value;
use std::path::Path;

fn network(name: &str) -> String {
    fixtures().join("inputs").join(format!("{name}.onnx")).to_str().unwrap().to_string()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

fn write_npy(path: &str, shape: &[usize], values: &[f32]) {
    std::fs::write(path, edgegen::output::encode_npy(&[values], shape).unwrap()).unwrap();
}

/// An npy file of whole numbers, or of truth values.
fn write_whole(path: &str, descr: &str, shape: &str, data: &[u8]) {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    std::fs::write(path, file).unwrap();
}

/// The arguments of a run, whose arrays lie in `folder`.
fn arguments(run: &Value, folder: &Folder) -> Vec<String> {
    let model = run["model"].as_str().unwrap();
    let noise = folder.path("noise.npy");
    let mut all: Vec<String> =
        ["-m", &network(model), "-s", "ddim", "-n", "4", "--noise", &noise].map(String::from).into();
    let text = |v: &Value| v.as_str().unwrap().to_string();
    let conditions = run["conditions"].as_object().cloned().unwrap_or_default();
    let joins: Vec<String> = run["joins"].as_array().cloned().unwrap_or_default().iter().map(text).collect();
    for (name, array) in &conditions {
        write_npy(&folder.path(&format!("{name}.npy")), &sizes(&array["shape"]), &floats(&array["values"]));
        if !joins.contains(name) {
            all.extend(["--cond".into(), format!("{name}={}", folder.path(&format!("{name}.npy")))]);
        }
    }
    for name in joins {
        let file = folder.path(&format!("{name}.npy"));
        all.extend(["--join".into(), if conditions.contains_key(&name) { format!("{name}={file}") } else { name }]);
    }
    let mut option = |key: &str, name: &str| {
        if let Some(value) = run.get(key) {
            all.extend([name.into(), value.as_str().map_or_else(|| value.to_string(), String::from)]);
        }
    };
    option("time_as", "--time-as");
    option("class", "--class");
    option("named_output", "--output");
    if let Some(shape) = run.get("shape") {
        all.extend(["--shape".into(), sizes(shape).iter().map(usize::to_string).collect::<Vec<_>>().join(",")]);
    }
    if let Some(name) = run.get("next") {
        all.extend(["--input".into(), format!("next={}", text(name))]);
    }
    if run["no_time"] == true {
        all.extend(["--input".into(), "time=none".into()]);
    }
    all
}

#[test]
fn every_option_makes_the_samples_of_its_runs() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    let runs: Vec<Value> = serde_json::from_str(include_str!("fixtures/inputs/expected.json")).unwrap();
    assert!(runs.len() > 30);
    for run in &runs {
        let expected = floats(&run["expected"]);
        let noise = floats(&run["noise"]);
        let shape = match noise.len() {
            18 => vec![6, 3],
            40 => vec![2, 5, 4],
            _ => vec![2, 5, 5],
        };
        write_npy(&folder.path("noise.npy"), &shape, &noise);
        let mut all = arguments(run, &folder);
        all.push(out.clone());
        succeeds(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let (_, sample) = edgegen::output::read_npy(Path::new(&out)).unwrap();
        let scale = expected.iter().fold(1.0, |most: f32, v| most.max(v.abs()));
        let worst = sample.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(sample.len() == expected.len() && worst / scale < 1e-5, "{}: off by {worst}", run["model"]);
    }
}

#[test]
fn latents_become_pictures() {
    let folder = Folder::new();
    let vae = fixtures().join("inputs/vae_decoder").to_str().unwrap().to_string();
    let model = network("join_open");
    let [mask, known] = ["mask.npy", "known.npy"].map(|name| folder.path(name));
    write_npy(&mask, &[1, 3, 3], &[0.5; 9]);
    write_npy(&known, &[2, 3, 3], &[0.5; 18]);
    let joins = [format!("mask={mask}"), format!("known={known}")];
    let latents = ["-m", &model, "--join", &joins[0], "--join", &joins[1], "-n", "2", "--count", "2"];
    let [npy, png, gif] = ["a.npy", "a.png", "a.gif"].map(|name| folder.path(name));
    succeeds(&[&latents[..], &[&npy]].concat());
    assert_eq!(edgegen::output::read_npy(Path::new(&npy)).unwrap().0, [2, 2, 3, 3]);
    fails(&[&latents[..], &[&png]].concat(), "[2, 3, 3]");
    for out in [&npy, &png, &gif] {
        succeeds(&[&latents[..], &["--decoder", &vae, out]].concat());
    }
    assert_eq!(edgegen::output::read_npy(Path::new(&npy)).unwrap().0, [2, 3, 6, 6]);
    let told = |given: &[&str], words: &str| fails(&[&latents[..], given, &[&png]].concat(), words);
    told(&["--decoder", &vae, "--latent-scale", "0"], "a finite number that is not 0");
    told(&["--decoder", &network("shape_none")], "give it with --latent-scale");
    told(&["--decoder", &folder.path("none.onnx"), "--latent-scale", "1"], "the decoder cannot be read");
    told(&["--decoder", &network("time_t"), "--latent-scale", "1"], "takes the latents alone");
    assert_eq!(edgegen(&[&latents[..], &["--latent-scale", "1", &png]].concat()).status.code(), Some(2));
}

#[test]
fn conditions_come_from_arrays_of_every_type() {
    let folder = Folder::new();
    let (file, one, other) = (folder.path("key.npy"), folder.path("one.npy"), folder.path("other.npy"));
    let make = |name: &str, key: &str, out: &str| {
        succeeds(&["-m", &network(name), "-n", "2", "--cond", &format!("key={key}"), out]);
        std::fs::read(out).unwrap()
    };
    for (name, descr, data, text) in [
        ("condition_bool", "|b1", vec![1, 0, 1], "1,0,1"),
        ("condition_uint8", "|u1", vec![255, 0, 7], "255,0,7"),
        ("condition_int8", "|i1", vec![0x80, 5, 127], "-128,5,127"),
        ("condition_int32", "<i4", [-3i32, 100_000, 2].map(i32::to_le_bytes).concat(), "-3,100000,2"),
        ("condition_int64", "<u2", [3u16, 60_000, 2].map(u16::to_le_bytes).concat(), "3,60000,2"),
        ("condition_double", "<f2", [0x3800u16, 0xc000, 0].map(u16::to_le_bytes).concat(), "0.5,-2,0"),
    ] {
        write_whole(&file, descr, "(1, 3)", &data);
        assert_eq!(make(name, &file, &one), make(name, text, &other), "{name}");
    }
    let told = |name: &str, key: &str, words: &str| {
        fails(&["-m", &network(name), "--cond", &format!("key={key}"), &folder.path("none.npy")], words);
    };
    told("condition_bool", "1,2,0", "takes numbers from 0 to 1, but has 2");
    told("condition_uint8", "1,256,0", "takes numbers from 0 to 255, but has 256");
    told("condition_int8", "1.5,0,0", "takes whole numbers, but has 1.5");
    write_whole(&file, "<i8", "(3,)", &[16_777_217i64, 0, 1].map(i64::to_le_bytes).concat());
    told("condition_int64", &file, "its number 16777217 cannot be told apart");
    write_whole(&file, "<c8", "(3,)", &[0; 24]);
    told("condition_int64", &file, "its numbers are '<c8', but must be bool, integers");
}

#[test]
fn what_is_not_said_or_does_not_fit_is_told_in_one_line() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    let told = |name: &str, given: &[&str], words: &str| {
        fails(&[&["-m", &network(name), "-n", "2"], given, &[&out]].concat(), words);
    };
    let [mask, wide] = ["mask.npy", "wide.npy"].map(|name| folder.path(name));
    write_npy(&mask, &[1, 5, 4], &[0.5; 20]);
    write_npy(&wide, &[2, 5, 6], &[0.5; 60]);
    let [mask, wide] = [mask, wide].map(|file| format!("mask={file}"));
    told("join_inpainting", &[], "has 3 channels more than the 2 that it predicts");
    told("join_inpainting", &[], "--join NAME=FILE.npy");
    told("join_inpainting", &["--join", &wide], "cannot be joined with samples of shape [3, 5, 4]");
    told("join_inpainting", &["--join", "mask=0.5"], "--join mask=0.5: give an npy file");
    told("join_inpainting", &["--join", &mask, "--join", &mask], "mask is given twice");
    told("join_inpainting", &["--join", &mask.replace("mask=", "sample=")], "sample is the sample itself");
    told("time_gammas", &[], "--time-as step|alpha-bar|gamma|sigma|log-snr|unit|quarter-log-sigma");
    told("time_gammas_in_integers", &["--time-as", "log-snr"], "takes whole numbers, and so the training step");
    told(
        "output_of_two",
        &["--output", "variances"],
        "no output 'variances': its outputs are where (integer, [4, ?]), variance",
    );
    told("shape_none", &[], "--input time=none");
    told("shape_one", &["--input", "time=none"], "needs the condition timestep");
    told("shape_one_hot", &["--class", "4"], "from 0 to 3");
    let open = ["--shape", "2,5,4", "--cond", &wide.replace("mask=", "low=")];
    told("condition_open", &open[..2], "give it with --cond tokens=FILE.npy");
    told("condition_open", &open, "does not fit the model's input low (float, [?, 2, ?, ?])");
    assert!(edgegen(&["-m", &network("time_t"), "--time-as", "beta", &out]).status.code() == Some(2));
    assert!(!std::fs::exists(&out).unwrap());
}

#[test]
fn what_is_missing_to_look_at_a_model_or_time_it_is_made_up() {
    let folder = Folder::new();
    let bare = folder.path("bare.onnx");
    // the same length: the file's own schedule is no key that is known
    let bytes = std::fs::read(network("condition_open")).unwrap();
    let key = b"edgegen.scheduler";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap();
    std::fs::write(&bare, [&bytes[..at], b"another.scheduler", &bytes[at + key.len()..]].concat()).unwrap();
    let inspected = String::from_utf8(succeeds(&["inspect", &bare, "--shape", "2,5,4"])).unwrap();
    assert!(inspected.contains("made up     the shape [1, 77, 3] of tokens, the noise schedule"), "{inspected}");
    let bench = ["bench", &bare, "--shape", "2,5,4", "-n", "2", "--runs", "2"];
    let timed = String::from_utf8(succeeds(&bench)).unwrap();
    let made_up = "made up            the shape [1, 77, 3] of tokens, the noise schedule, low: zeros, tokens: zeros";
    assert!(timed.contains(made_up), "{timed}");
    let joined = String::from_utf8(succeeds(&["bench", &network("join_inpainting"), "--runs", "1"])).unwrap();
    assert!(joined.contains("what is joined with the sample is called joined"), "{joined}");
    let noise = String::from_utf8(succeeds(&["bench", &network("time_gammas"), "--runs", "1"])).unwrap();
    assert!(noise.contains("that the network is told the training step"), "{noise}");
    // nothing is made up to make samples by
    fails(&["-m", &bare, "--shape", "2,5,4", &folder.path("out.npy")], "--cond tokens=FILE.npy");
    fails(&["schedule", "-m", &bare, "--shape", "2,5,4"], "--scheduler-config");
}
