//! `quantize` from outside: networks of several kinds, what they then run by, and what is said of bad input.

use edgegen::Model;
use onnx::pb::ModelProto;
use prost::Message;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An export of the tests' fixtures with its scheduler's configuration beside it.
fn export(folder: &Path, name: &str) -> PathBuf {
    let exports = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/exports");
    let packed = std::fs::read(exports.join(format!("{name}.ts17.onnx.gz"))).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(exports.join(format!("{name}.json"))).unwrap()).unwrap();
    let config = said["runs"][0]["scheduler"].as_str().unwrap();
    std::fs::write(folder.join("scheduler_config.json"), config).unwrap();
    let path = folder.join(format!("{name}.onnx"));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn quantize(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgegen-trainer"));
    command.arg("quantize").args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap()
}

/// The report of a run that succeeds.
fn report(arguments: &[&str]) -> String {
    let output = quantize(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that is said of a run that fails.
fn complaint(arguments: &[&str]) -> String {
    let output = quantize(arguments);
    let text = String::from_utf8_lossy(&output.stderr).trim().to_string();
    assert!(!output.status.success() && text.lines().count() == 1, "{arguments:?}: {text}");
    text
}

/// The distance of whole samples that a report tells, over how far they deviate.
fn distance(report: &str) -> f64 {
    let line = report.lines().find(|l| l.starts_with("samples are")).unwrap();
    let number = |word: usize| line.split_whitespace().nth(word).unwrap().parse::<f64>().unwrap();
    number(2) / line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
}

fn read(path: &Path) -> ModelProto {
    ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap()
}

#[test]
fn networks_run_in_8_bits_near_to_the_float_ones() {
    for (name, in_8_bits, most) in [("unet2d_class", 8, 0.2), ("dit", 4, 0.2), ("conditional_unet1d", 12, 0.2)] {
        let folder = tempfile::tempdir().unwrap();
        let path = export(folder.path(), name);
        let said = report(&[path.to_str().unwrap(), "--noise", "--runs", "4", "--samples", "4"]);
        let out = path.with_extension("int8.onnx");
        let steps = Model::open(&out).unwrap().steps(0);
        let found = steps.iter().filter(|s| s.kernel.contains("8-bit")).count();
        assert!(found >= in_8_bits, "{name}: {found} of {:?}", steps.iter().map(|s| s.kernel).collect::<Vec<_>>());
        let moved = distance(&said);
        assert!(moved > 0.0 && moved < most, "{name}: {moved}\n{said}");
        // what is not of its layers is as it was
        let (before, after) = (read(&path), read(&out));
        let graphs = [before.graph.unwrap(), after.graph.unwrap()];
        assert_eq!(graphs[0].input, graphs[1].input);
        assert_eq!(graphs[0].output, graphs[1].output);
        assert_eq!(before.opset_import, after.opset_import);
        let named = |op: &str| graphs[1].node.iter().filter(|n| n.op_type == op).count();
        assert_eq!(named("Softmax"), graphs[0].node.iter().filter(|n| n.op_type == "Softmax").count());
    }
}

#[test]
fn weights_alone_are_made_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let path = export(folder.path(), "conditional_unet1d");
    let path = path.to_str().unwrap();
    let said = report(&[path, "--weights", "f16", "--samples", "2"]);
    // the fixture's weights are whole numbers over 64, which 16 bits hold
    assert!(distance(&said) < 1e-6, "{said}");
    let out = folder.path().join("four.onnx");
    let said = report(&[
        path,
        "--weights",
        "int4",
        "--noise",
        "--runs",
        "2",
        "--samples",
        "2",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert!(distance(&said) > 0.0 && distance(&said) < 0.3, "{said}");
    // a linear layer and two convolutions have whole blocks of inputs
    let nodes = read(&out).graph.unwrap().node;
    let in_blocks =
        nodes.iter().filter(|n| n.op_type == "DequantizeLinear" && n.attribute.iter().any(|a| a.name == "block_size"));
    assert_eq!((nodes.iter().filter(|n| n.op_type == "MatMulNBits").count(), in_blocks.count()), (1, 2), "{said}");
    let path = export(folder.path(), "unet2d");
    let said = complaint(&[path.to_str().unwrap(), "--weights", "int4", "--noise", "--runs", "2", "--samples", "2"]);
    assert!(said.contains("whole blocks of 32"), "{said}");
}

#[test]
fn conditions_come_from_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let path = export(folder.path(), "conditional_unet1d");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let array = |name: &str, shape: &[usize]| {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32).sin()).collect();
        let each = numbers.len() / shape[0];
        let rows: Vec<&[f32]> = numbers.chunks(each).collect();
        std::fs::write(data.join(name), edgegen::output::encode_npy(&rows, &shape[1..]).unwrap()).unwrap();
    };
    let arguments =
        [path.to_str().unwrap(), "--data", data.to_str().unwrap(), "--runs", "2", "--samples", "2", "--nearest"];
    array("samples.npy", &[5, 8, 2]);
    assert!(complaint(&arguments).contains("global_cond.npy is missing"));
    array("global_cond.npy", &[5, 7]);
    assert!(complaint(&arguments).contains("the network's input global_cond takes 6 numbers"));
    array("global_cond.npy", &[4, 6]);
    assert!(complaint(&arguments).contains("has 4 rows, but there are 5 samples"));
    array("global_cond.npy", &[5, 6]);
    report(&arguments);
    array("samples.npy", &[5, 2, 9]);
    assert!(complaint(&arguments).contains("samples have shape [8, 2]"));
}

#[test]
fn what_cannot_be_quantized_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = export(folder.path(), "unet2d_class");
    let name = path.to_str().unwrap();
    assert!(complaint(&[name]).contains("give --data FOLDER, or --noise"));
    assert!(complaint(&[name, "--data", "/nowhere"]).contains("cannot open the data folder /nowhere"));
    assert!(complaint(&[name, "--noise", "--out", "/nowhere/x.onnx"]).contains("there is no such folder"));
    assert!(complaint(&["/nowhere.onnx", "--noise"]).contains("cannot read /nowhere.onnx"));
    let spoilt = folder.path().join("spoilt.onnx");
    let with = |change: &dyn Fn(&mut ModelProto)| {
        let mut model = read(&path);
        change(&mut model);
        std::fs::write(&spoilt, model.encode_to_vec()).unwrap();
        complaint(&[spoilt.to_str().unwrap(), "--noise", "--runs", "2"])
    };
    let said = with(&|model| {
        let graph = model.graph.as_mut().unwrap();
        let conv = graph.node.iter().find(|n| n.op_type == "Conv").unwrap().input[1].clone();
        let weights = graph.initializer.iter_mut().find(|t| t.name == conv).unwrap();
        let mut raw = weights.raw_data.to_vec();
        raw[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
        weights.raw_data = raw.into();
    });
    assert!(said.contains("number 2 of the weights") && said.contains("is NaN"), "{said}");
    assert!(with(&|model| model.opset_import[0].version = 12).contains("export the network with opset 13 or later"));
    // quantized already
    report(&[name, "--noise", "--runs", "2", "--samples", "2", "--nearest", "--out", spoilt.to_str().unwrap()]);
    assert!(complaint(&[spoilt.to_str().unwrap(), "--noise"]).contains("the network is quantized already: its node"));
}
