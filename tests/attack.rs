//! Inputs that hurt, of every kind that was found: each ends in bounded time and memory, with one line if it is refused,
//! and with onnxruntime's numbers if it is not.
#![cfg(target_os = "linux")]

mod common;

use common::{Folder, fixture, fixtures};
use edgegen::{ModelOptions, Network};
use onnx::pb::tensor_shape_proto::{Dimension, dimension};
use onnx::pb::{self, AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The address space that each has: 1 GiB.
const KIB: usize = 1 << 20;

/// The processor's seconds that each has. Only what is optimized is quick: of a build for tests, much is not.
const SECONDS: usize = if cfg!(debug_assertions) { 10 } else { 2 };

/// Runs the program within these bounds. What waits for something takes no processor's time: it is ended after a minute.
fn limited(arguments: &[&str]) -> Output {
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {KIB}; ulimit -t {SECONDS}; exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_edgegen"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{arguments:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// What the program says when it refuses these arguments, which it must.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = limited(arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {} {words}", output.status);
    assert!(words.starts_with("edgegen: ") && words.trim_end().lines().count() == 1, "not one line: {words}");
    assert!(words.len() < 2500, "a line of {} bytes", words.len());
    assert!(output.stdout.is_empty());
    words
}

/// A model of the fixtures as a file, unpacked.
fn model(folder: &Folder, name: &str) -> String {
    let path = folder.path(name.trim_end_matches(".gz"));
    std::fs::write(&path, fixture(&format!("attack/{name}"))).unwrap();
    path
}

#[test]
fn models_that_hurt_are_refused_in_one_line() {
    let cases = [
        ("conv_transpose_writes_outside.onnx", "kernel_shape"),
        ("conv_reads_outside.onnx", "kernel_shape"),
        ("kernel_shape_unlike_weights.onnx", ""),
        ("gather_from_empty_table.onnx", ""),
        ("squeeze_of_nine.onnx", ""),
        ("billion_training_steps.onnx", "num_train_timesteps must be at least 1 and at most 1000000"),
        ("constants_summed.onnx.gz", "--max-memory"),
        ("value_of_gigabytes.onnx", "--max-memory"),
        ("transpose_by_no_permutation.onnx.gz", ""),
        ("resize_to_a_billion.onnx", ""),
        ("tract_panics.onnx", ""),
        ("einsum_of_unlike_sizes.onnx", ""),
    ];
    let folder = Folder::new();
    for (name, words) in cases {
        let (path, out) = (model(&folder, name), folder.path("out.npy"));
        let said = refused(&["-m", &path, "-n", "2", "-q", &out]);
        assert!(said.contains(words), "{name}: {said:?} does not say {words:?}");
        assert!(!Path::new(&out).exists());
    }
}

#[test]
fn models_of_other_numbers_are_computed_as_by_onnxruntime_or_refused() {
    let text = std::fs::read_to_string(fixtures().join("attack/onnxruntime.json")).unwrap();
    let all: BTreeMap<String, Vec<f32>> = serde_json::from_str(&text).unwrap();
    assert!(all.len() >= 8);
    let mut wrong = Vec::new();
    for (name, expected) in all {
        let path = fixtures().join(format!("attack/{name}.onnx"));
        let run = || -> edgegen::Result<Vec<f32>> {
            let model = ModelOptions::new().open(&path)?;
            let mut network = model.network()?;
            // as the stored results were made
            let x: Vec<f32> = (0..network.sample_len()).map(|i| ((i as f64 * 0.37).sin() * 1.5) as f32).collect();
            let mut out = vec![f32::NAN; x.len()];
            network.bind(0, &model.blank_condition())?;
            network.predict(&x, 999.0, 0, &mut out)?;
            Ok(out)
        };
        let Ok(out) = run() else { continue };
        let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
        let off = out.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max) / scale;
        if off.is_nan() || off > 1e-4 {
            wrong.push(format!("{name}: {off} off"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A model of a sample `x [1, 2, 4]` and a time, with these nodes.
fn graph(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
    let value = |name: &str, dims: &[i64]| {
        let dim = dims.iter().map(|d| Dimension { value: Some(dimension::Value::DimValue(*d)) }).collect();
        let shape = Some(pb::TensorShapeProto { dim });
        let tensor = pb::type_proto::Value::TensorType(pb::type_proto::Tensor { elem_type: 1, shape });
        pb::ValueInfoProto { name: name.into(), r#type: Some(pb::TypeProto { value: Some(tensor) }) }
    };
    let graph = GraphProto {
        node,
        initializer,
        input: vec![value("x", &[1, 2, 4]), value("t", &[1])],
        output: vec![value("out", &[1, 2, 4])],
        ..Default::default()
    };
    let scheduler = pb::StringStringEntryProto { key: "edgegen.scheduler".into(), value: "{}".into() };
    let opset = pb::OperatorSetIdProto { version: 17, ..Default::default() };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        metadata_props: vec![scheduler],
        opset_import: vec![opset],
        ..Default::default()
    }
    .encode_to_vec()
}

fn node(op_type: &str, input: &[&str], output: &str, attributes: &[(&str, i64)]) -> NodeProto {
    let attribute =
        |(name, i): &(&str, i64)| AttributeProto { name: (*name).into(), r#type: 2, i: *i, ..Default::default() };
    NodeProto {
        op_type: op_type.into(),
        input: input.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        attribute: attributes.iter().map(attribute).collect(),
        ..Default::default()
    }
}

fn name(i: usize) -> String {
    if i == 0 { "x".into() } else { format!("v{i}") }
}

/// Graphs of tens of thousands of nodes: they run, or are refused, in time that grows with their size alone.
#[test]
fn large_graphs_take_no_longer_than_by_their_size() {
    let chain = |op: &str, count: usize| -> Vec<NodeProto> {
        (0..count)
            .map(|i| node(op, &[&name(i)], &if i + 1 == count { "out".into() } else { name(i + 1) }, &[]))
            .collect()
    };
    let mut reverse = chain("Tanh", 20_000);
    reverse.reverse();
    // x in a concatenation in a concatenation …, and the first two channels of it
    let mut nested: Vec<NodeProto> =
        (0..30_000).map(|i| node("Concat", &[&name(i), "t1"], &name(i + 1), &[("axis", 1)])).collect();
    let list = |name: &str, value: i64| TensorProto {
        name: name.into(),
        dims: vec![1],
        data_type: 7,
        int64_data: vec![value],
        ..Default::default()
    };
    let ones = TensorProto {
        name: "t1".into(),
        dims: vec![1, 1, 4],
        data_type: 1,
        float_data: vec![1.0; 4],
        ..Default::default()
    };
    nested.push(node("Slice", &[&name(30_000), "0", "2", "1"], "out", &[]));
    let mut values = vec![node("Tanh", &["x"], "y", &[])];
    values.extend((1..30_000).map(|i| node("Sin", &["x"], &name(i), &[])));
    // all of them are needed until here
    let all: Vec<String> = (1..30_000).map(name).collect();
    values.push(node("Concat", &all.iter().map(String::as_str).collect::<Vec<_>>(), "all", &[("axis", 0)]));
    values.push(node("ReduceMean", &["all"], "mean", &[]));
    values.push(node("Add", &["y", "mean"], "out", &[]));
    let stored = |i: usize| TensorProto {
        name: format!("c{i}"),
        dims: vec![1],
        data_type: 1,
        float_data: vec![0.5],
        ..Default::default()
    };
    let sums = (0..30_000).map(|i| {
        let out = if i == 29_999 { "out".into() } else { name(i + 1) };
        node("Add", &[&name(i), &format!("c{i}")], &out, &[])
    });
    let pairs = (0..20_000).flat_map(|i| {
        let (q, out) = (format!("q{i}"), if i == 19_999 { "out".into() } else { name(i + 1) });
        [node("QuantizeLinear", &[&name(i), "c0"], &q, &[]), node("DequantizeLinear", &[&q, "c0"], &out, &[])]
    });
    let cases = [
        ("reverse", graph(reverse, vec![])),
        ("identities", graph(chain("Identity", 100_000), vec![])),
        ("nested", graph(nested, vec![list("0", 0), list("1", 1), list("2", 2), ones])),
        ("values", graph(values, vec![])),
        ("constants", graph(sums.collect(), (0..30_000).map(stored).collect())),
        ("pairs", graph(pairs.collect(), vec![stored(0)])),
        // tract would take very long
        ("unknown", graph(chain("Acosh", 20_000), vec![])),
    ];
    let folder = Folder::new();
    for (name, bytes) in cases {
        let (path, out) = (folder.path(name), folder.path("out.npy"));
        std::fs::write(&path, bytes).unwrap();
        let output = limited(&["-m", &path, "-n", "1", "-q", &out]);
        let words = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => assert!(words.is_empty(), "{name}: {words}"),
            Some(1) => {
                assert!(words.starts_with("edgegen: ") && words.trim_end().lines().count() == 1, "{name}: {words}")
            }
            _ => panic!("{name}: {} {words}", output.status),
        }
    }
}

#[test]
fn the_command_line_asks_for_nothing_that_cannot_be() {
    let folder = Folder::new();
    let (out, png) = (folder.path("out.npy"), folder.path("out.png"));
    let picture = folder.path("in.png");
    assert!(limited(&["-n", "1", &picture]).status.success());
    let most = u64::MAX.to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["-n", "2", "--count", "1000000000", "-q", &out], "--count"),
        (&["-n", "2", "--count", &most, "-q", &out], "--count"),
        (&["-n", "2", "--grid", "100000x100000", &png], "--grid"),
        (&["-n", "2", "--grid", "4294967296x4294967296", &png], "--grid"),
        (&["-n", "2", "--count", "2", "--first-index", &most, &out], "--first-index"),
        (&["-n", "2", "--threads", &most, &out], "--threads"),
        (&["-n", &most, &out], "steps"),
        (&["--init", &picture, "--mask", &picture, "--resample", &most, &out], "at most 1000 times"),
        (&["bench", "--runs", "10000000000000000"], "--runs"),
        (&["likelihood", &picture, "--probes", "1000000000"], "directions"),
        (&["interpolate", &picture, &picture, &folder.path("o.gif"), "--frames", &most, "-n", "2"], "--frames"),
        (&["restore", "--task", "inpaint", "--mask", &picture, &picture, &png, "--resample", &most], "at most 1000"),
    ];
    for (arguments, words) in cases {
        let said = refused(arguments);
        assert!(said.contains(words), "{arguments:?}: {said:?} does not say {words:?}");
    }
    assert_eq!(folder.files().len(), 1, "nothing else is written");
}

#[test]
fn arrays_and_pictures_that_promise_too_much_are_refused() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    let init = |name: &str, bytes: &[u8], words: &str| {
        let path = folder.path(name);
        std::fs::write(&path, bytes).unwrap();
        let said = refused(&["-n", "2", "--init", &path, "-q", &out]);
        assert!(said.contains(words), "{name}: {said:?} does not say {words:?}");
    };
    init("gigabytes.npy", &fixture("attack/header_of_gigabytes.npy"), "not an npy file");
    // a header of 60,000 digits, and one of as many brackets
    for filling in ["9", "(", "[", "'"] {
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", filling.repeat(60_000));
        let len = (text.len() as u16).to_le_bytes();
        init("long.npy", &[b"\x93NUMPY\x01\0", len.as_slice(), text.as_bytes()].concat(), "its header has 600");
    }
    // a picture cut off, at several places
    let picture = folder.path("whole.jpg");
    assert!(limited(&["-n", "1", &picture]).status.success());
    let jpeg = std::fs::read(&picture).unwrap();
    init("whole-again.png", b"no picture", "cannot read");
    for cut in [jpeg.len() - 2, jpeg.len() - 20, jpeg.len() * 3 / 4, jpeg.len() / 2, 20] {
        init("cut.jpg", &jpeg[..cut], "cut.jpg");
    }
    // a PNG of a few bytes that says it has 65,535 by 65,535 pixels
    let mut png = Vec::new();
    let chunk = |png: &mut Vec<u8>, kind: &[u8], data: &[u8]| {
        png.extend((data.len() as u32).to_be_bytes());
        png.extend([kind, data].concat());
        let mut crc = flate2::Crc::new();
        crc.update(&[kind, data].concat());
        png.extend(crc.sum().to_be_bytes());
    };
    png.extend(b"\x89PNG\r\n\x1a\n");
    chunk(&mut png, b"IHDR", &[0, 0, 255, 255, 0, 0, 255, 255, 8, 0, 0, 0, 0]);
    chunk(&mut png, b"IDAT", &[]);
    chunk(&mut png, b"IEND", &[]);
    init("huge.png", &png, "huge.png");
}

#[test]
fn pipes_folders_and_closed_outputs_do_not_keep_the_program() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe_npy = folder.path("pipe.npy");
    std::fs::rename(&pipe, &pipe_npy).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for arguments in [
        &["-m", &pipe, &out][..],
        &["--scheduler-config", &pipe, &out],
        &["--normalization", &pipe, &out],
        &["--init", &pipe_npy, &out],
        &["--init", &pipe, &out],
        &["--noise", &pipe_npy, &out],
        &["-m", "/dev/zero", &out],
    ] {
        assert!(refused(arguments).contains("no regular file"), "{arguments:?}");
    }
    // a configuration beside the model that cannot be read is not passed over
    let own = Folder::new();
    let path = own.path("model.onnx");
    let mut without = ModelProto::decode(graph(vec![node("Tanh", &["x"], "out", &[])], vec![]).as_slice()).unwrap();
    without.metadata_props.clear();
    std::fs::write(&path, without.encode_to_vec()).unwrap();
    std::fs::create_dir(own.path("scheduler_config.json")).unwrap();
    let said = refused(&["-m", &path, &out]);
    assert!(said.contains("scheduler_config.json") && said.contains("folder"), "{said}");
    // names of megabytes
    let fields: String = (0..1000).map(|i| format!("\"{}{i}\": 1,", "long".repeat(500))).collect();
    let config = folder.path("config.json");
    std::fs::write(&config, format!("{{{fields} \"num_train_timesteps\": 10}}")).unwrap();
    let output = limited(&["--scheduler-config", &config, "--spacing", "trailing", "-n", "2", &out]);
    assert!(output.status.success() && output.stderr.len() < 20_000, "{} bytes", output.stderr.len());
    // without a standard output
    let closed = |arguments: &str| {
        let program = env!("CARGO_BIN_EXE_edgegen");
        let output = Command::new("sh").args(["-c", &format!("{program} {arguments} >&-")]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in ["-n 1 -", "samplers", "inspect"] {
        let (code, said) = closed(arguments);
        assert!(code == Some(1) && said.contains("standard output"), "{arguments}: {code:?} {said}");
    }
}

#[test]
fn an_output_that_is_a_link_is_written_through() {
    let folder = Folder::new();
    let (link, target) = (folder.path("link.npy"), folder.path("target.npy"));
    std::os::unix::fs::symlink("target.npy", &link).unwrap();
    // at first it leads to nothing
    for _ in 0..2 {
        assert!(limited(&["-n", "1", &link]).status.success());
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(std::fs::metadata(&target).unwrap().len() > 1000);
    }
}
