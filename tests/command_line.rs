//! The program from outside: what it writes, and what it says of bad input.

mod common;
#[path = "common/program.rs"]
mod program;

use common::Folder;
use program::{command, edgegen, fails, succeeds};
use std::path::Path;
use std::process::{Command, Stdio};

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/models/{name}.onnx", env!("CARGO_MANIFEST_DIR"))
}

/// An npy file: its shape and its numbers.
fn npy(path: impl AsRef<Path>) -> (Vec<usize>, Vec<f32>) {
    edgegen::output::read_npy(path.as_ref()).unwrap()
}

fn write_npy(path: &str, shape: &[usize], values: &[f32]) {
    let len = shape[1..].iter().product();
    let rows: Vec<&[f32]> = values.chunks(len).collect();
    std::fs::write(path, edgegen::output::encode_npy(&rows, &shape[1..]).unwrap()).unwrap();
}

#[test]
fn one_picture_is_a_28_by_28_grey_png_with_something_in_it() {
    let folder = Folder::new();
    let out = folder.path("out.png");
    succeeds(&["--steps", "10", &out]);
    let picture = image::open(&out).unwrap();
    assert_eq!((picture.width(), picture.height(), picture.color()), (28, 28, image::ColorType::L8));
    let (dark, bright) =
        picture.as_bytes().iter().fold((0, 0), |(d, b), p| (d + (*p < 30) as u32, b + (*p > 90) as u32));
    assert!(dark > 100 && bright > 60, "{dark} dark and {bright} bright pixels are no garment");
    assert_eq!(folder.files().len(), 1, "nothing else is left behind");
}

#[test]
fn a_sample_depends_on_seed_and_index_alone() {
    let folder = Folder::new();
    let make = |name: &str, more: &[&str]| {
        let out = folder.path(name);
        succeeds(&[&["--steps", "4"], more, &[out.as_str()]].concat());
        std::fs::read(&out).unwrap()
    };
    let png = make("a.png", &["--seed", "5"]);
    assert_eq!(png, make("b.png", &["--seed", "5"]), "another run");
    assert_eq!(png, make("c.png", &["--seed", "5", "--threads", "2"]), "threads");
    assert_ne!(png, make("d.png", &["--seed", "6"]), "another seed");

    make("all.npy", &["--seed", "5", "--count", "5", "--threads", "3"]);
    let (shape, all) = npy(folder.path("all.npy"));
    assert_eq!(shape, [5, 1, 28, 28]);
    make("one.npy", &["--seed", "5", "--count", "5", "--threads", "1"]);
    assert_eq!(npy(folder.path("one.npy")).1, all, "one thread");
    make("tail.npy", &["--seed", "5", "--count", "2", "--first-index", "3"]);
    assert_eq!(npy(folder.path("tail.npy")).1, all[3 * 784..], "a shard");
    succeeds(&["--steps", "4", "--seed", "5", "--count", "2", &folder.path("picture-{index}.png")]);
    assert_eq!(std::fs::read(folder.path("picture-0.png")).unwrap(), png, "a file each");
    assert!(std::fs::exists(folder.path("picture-1.png")).unwrap());
}

#[test]
fn every_format_holds_the_same_samples() {
    let folder = Folder::new();
    let make = |name: &str| {
        let out = folder.path(name);
        succeeds(&["--steps", "3", "--count", "3", "--grid", "3x1", "--class", "bag", &out]);
        out
    };
    let (shape, values) = npy(make("s.npy"));
    assert_eq!(shape, [3, 1, 28, 28]);
    let csv = std::fs::read_to_string(make("s.csv")).unwrap();
    let parsed: Vec<f32> = csv.lines().flat_map(|l| l.split(',').map(|v| v.parse::<f32>().unwrap())).collect();
    assert_eq!((csv.lines().count(), parsed), (3, values.clone()));
    let png = image::open(make("s.png")).unwrap();
    assert_eq!((png.width(), png.height()), (84, 28));
    let level = |v: f32| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    for (i, sample) in values.chunks(784).enumerate() {
        for y in 0..28 {
            let row = &png.as_bytes()[y * 84 + i * 28..][..28];
            assert!(row.iter().zip(&sample[y * 28..]).all(|(p, v)| p.abs_diff(level(*v)) <= 1));
        }
    }
    let jpeg = image::open(make("s.jpg")).unwrap().to_luma8();
    let off = jpeg.iter().zip(png.as_bytes()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / jpeg.len() as f64;
    assert!(off < 6.0, "the JPEG is off by {off} levels on average");
    let gif = std::fs::File::open(make("s.gif")).unwrap();
    let frames = image::AnimationDecoder::into_frames(
        image::codecs::gif::GifDecoder::new(std::io::BufReader::new(gif)).unwrap(),
    );
    assert_eq!(frames.count(), 3, "a frame a step");
    let stdout = succeeds(&["--steps", "3", "--count", "3", "--grid", "3x1", "--class", "bag", "-"]);
    assert_eq!(stdout, std::fs::read(folder.path("s.png")).unwrap());
    let stdout = succeeds(&["--steps", "3", "--count", "3", "--class", "8", "--format", "npy", "-"]);
    assert_eq!(stdout, std::fs::read(folder.path("s.npy")).unwrap(), "bag is class 8");
}

#[test]
fn noise_from_a_file_replaces_the_seeds() {
    let folder = Folder::new();
    let (from_seed, from_file, file) = (folder.path("a.npy"), folder.path("b.npy"), folder.path("x.npy"));
    let mut x = vec![0.0; 784];
    edgegen::noise::Noise::new(3, 0).fill(&mut x);
    write_npy(&file, &[1, 1, 28, 28], &x);
    succeeds(&["--steps", "3", "--seed", "3", "--class", "0", &from_seed]);
    succeeds(&["--steps", "3", "--noise", &file, "--class", "0", &from_file]);
    assert_eq!(npy(from_seed), npy(from_file));
}

#[test]
fn sequences_and_conditions_go_through() {
    let folder = Folder::new();
    let (out, cond) = (folder.path("plan.csv"), folder.path("cond.npy"));
    let model = fixture("sequence");
    succeeds(&["-m", &model, "--cond", "global_cond=0.5,-1,2", "--class", "lift", &out]);
    let listed = std::fs::read_to_string(&out).unwrap();
    assert_eq!(listed.trim().split(',').count(), 10);
    write_npy(&cond, &[1, 3], &[0.5, -1.0, 2.0]);
    succeeds(&["-m", &model, "--cond", &format!("global_cond={cond}"), "--class", "2", &out]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), listed);
    let png = folder.path("plan.png");
    fails(&["-m", &model, "--cond", "global_cond=0.5,-1,2", &png], "[5, 2]");
    fails(&["-m", &model, "--cond", "global_cond=1,2", &out], "3 (shape [1, 3])");
    fails(&["-m", &model, "--cond", "global=1,2,3", &out], "it takes global_cond");
    fails(&["-m", &model, "--cond", "global_cond=a,b", &out], "neither numbers");
    fails(&["-m", &model, &out], "global_cond");
}

#[test]
fn samples_and_conditions_are_in_the_units_of_the_data() {
    let folder = Folder::new();
    let (out, csv, stats) = (folder.path("plan.npy"), folder.path("plan.csv"), folder.path("stats.json"));
    let model = fixture("sequence");
    let options = |cond: &str, more: &[&str], out: &str| {
        let cond = format!("global_cond={cond}");
        let all = ["-m", &model, "--cond", &cond, "--class", "lift", "--count", "2"];
        [&all[..], more, &[out]].concat().into_iter().map(String::from).collect::<Vec<_>>()
    };
    let make = |cond: &str, more: &[&str], out: &str| {
        let all = options(cond, more, out);
        succeeds(&all.iter().map(String::as_str).collect::<Vec<_>>());
    };
    make("0.5,-1,0.25", &[], &out);
    let (shape, plain) = npy(&out);
    assert_eq!(shape, [2, 5, 2]);
    // the same condition in metres: what the network sees is (value - 2) / 4
    let text = r#"{"sample": {"min": [-10, 0], "max": [30, 0.5]}, "global_cond": {"mean": [2], "std": [4]}}"#;
    std::fs::write(&stats, text).unwrap();
    let units = ["--normalization", stats.as_str()];
    make("4,-2,3", &units, &out);
    let (shape, scaled) = npy(&out);
    assert_eq!(shape, [2, 5, 2]);
    for (i, (got, plain)) in scaled.iter().zip(&plain).enumerate() {
        let want = if i % 2 == 0 { 10.0 + 20.0 * plain } else { 0.25 + 0.25 * plain };
        assert!((got - want).abs() < 1e-5 * (1.0 + want.abs()), "number {i} is {got}, not {want}");
    }
    make("4,-2,3", &units, &csv);
    let listed = std::fs::read_to_string(&csv).unwrap();
    let numbers: Vec<f32> = listed.lines().flat_map(|l| l.split(',').map(|v| v.parse::<f32>().unwrap())).collect();
    assert_eq!((listed.lines().count(), numbers), (2, scaled));
    let inspect = succeeds(&["inspect", &model, "--normalization", &stats]);
    assert!(String::from_utf8_lossy(&inspect).contains("scaled for the network: global_cond, sample"));

    let wrong = |text: &str, words: &str| {
        std::fs::write(&stats, text).unwrap();
        let all = options("4,-2,3", &units, &out);
        fails(&all.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    wrong(r#"{"sample": {"min": [0, 0, 0], "max": [1, 1, 1]}}"#, "has 3 dimensions, but the model's samples have 2");
    wrong(r#"{"global_cond": {"mean": [0, 0], "std": [1, 1]}}"#, "condition global_cond has 3 numbers");
    wrong(r#"{"sample": {"min": [0, 0], "max": [1]}}"#, "min of sample has 2 numbers, but max has 1");
    wrong(r#"{"velocity": {"min": [0, 0], "max": [1, 1]}}"#, "it has velocity, the model sample, global_cond");
    wrong("{", "stats.json: a normalization is JSON like");
}

#[test]
fn bad_models_are_told_in_one_line() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    let model = |path: &str, words: &str| fails(&["-m", path, &out], words);
    model(&folder.path("nowhere.onnx"), "nowhere.onnx");
    let text = folder.path("text.onnx");
    std::fs::write(&text, "This is a letter, not a network.\n").unwrap();
    model(&text, "not an ONNX model");
    let cut = folder.path("cut.onnx");
    let whole = std::fs::read(fixture("picture")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    model(&cut, "cut short");
    std::fs::write(&cut, "").unwrap();
    model(&cut, "not an ONNX model");
    model(&fixture("classifier"), "not a diffusion network");
    model(&fixture("unsupported"), "WarpField");
    model(&fixture("no_schedule"), "--scheduler-config");
    model(&fixture("two_samples"), "--input sample=NAME");
    model(&fixture("open_shape"), "--shape");
    model(&fixture("not_finite"), "not finite");
    let config = folder.path("scheduler.json");
    std::fs::write(&config, "{").unwrap();
    fails(&["-m", &fixture("no_schedule"), "--scheduler-config", &config, &out], "scheduler.json");
    fails(&["-m", &fixture("no_schedule"), "--scheduler-config", &folder.path("none.json"), &out], "none.json");
    assert!(!std::fs::exists(&out).unwrap());
}

#[test]
fn bad_options_are_told_in_one_line() {
    let folder = Folder::new();
    let out = folder.path("out.png");
    fails(&["--steps", "0", &out], "from 1 to 1000, not 0");
    fails(&["--steps", "1000000000", &out], "from 1 to 1000, not 1000000000");
    fails(&["--class", "spaceship", &out], "one of: T-shirt");
    fails(&["--class", "10", &out], "from 0 to 9");
    fails(&["-s", "magic", &out], "unknown sampler 'magic'");
    fails(&["--count", "0", &out], "--count");
    fails(&["--grid", "2x2", "--count", "5", &out], "4 places for 5");
    fails(&["-s", "ddim", "--eta", "7", &out], "eta");
    fails(&["--guidance", "nan", &out], "guidance");
    fails(&["--cond", "size=3", &out], "it takes none");
    fails(&[&folder.path("out.bmp")], ".png, .jpg, .gif, .npy or .csv");
    fails(&["-m", &fixture("picture"), "--class", "1", &folder.path("out.npy")], "takes no class");
    assert!(folder.files().is_empty());
    // wrong usage, which the argument parser tells
    for usage in [&["--steps", "ten", &out][..], &["--grid", "0x3", &out], &[], &["--seed", "x", &out]] {
        assert_eq!(edgegen(usage).status.code(), Some(2), "{usage:?}");
    }
}

#[test]
fn bad_noise_is_told_in_one_line() {
    let folder = Folder::new();
    let (noise, out) = (folder.path("noise.npy"), folder.path("out.npy"));
    let told = |words: &str| fails(&["--noise", &noise, &out], words);
    told("noise.npy");
    let mut x = vec![0.25; 784];
    x[100] = f32::NAN;
    write_npy(&noise, &[1, 1, 28, 28], &x);
    told("element 100 is NaN");
    x[100] = f32::INFINITY;
    write_npy(&noise, &[1, 1, 28, 28], &x);
    told("element 100 is inf");
    write_npy(&noise, &[1, 28, 28, 1], &vec![0.0; 784]);
    told("[1, 28, 28]");
    std::fs::write(&noise, "x,y\n1,2\n").unwrap();
    told("not an npy file");
    write_npy(&noise, &[1, 1, 28, 28], &vec![0.0; 784]);
    let whole = std::fs::read(&noise).unwrap();
    std::fs::write(&noise, &whole[..whole.len() - 40]).unwrap();
    told("noise.npy");
    assert!(!std::fs::exists(&out).unwrap());
}

#[test]
fn a_file_that_cannot_be_written_loses_nothing() {
    let folder = Folder::new();
    fails(&["--steps", "1", &folder.path("no/such/folder/out.png")], "out.png");
    let plain = folder.path("plain");
    std::fs::write(&plain, "mine").unwrap();
    fails(&["--steps", "1", &format!("{plain}/out.png")], "out.png");
    assert_eq!(std::fs::read(&plain).unwrap(), b"mine");
    // a failing run leaves what was there
    let out = folder.path("out.png");
    std::fs::write(&out, "older").unwrap();
    fails(&["--steps", "0", &out], "steps");
    assert_eq!(std::fs::read(&out).unwrap(), b"older");
}

/// A device that is always full, and a file system of 16 KiB.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    fails(&["--steps", "1", "--format", "npy", "/dev/full"], "No space left");
    let folder = Folder::new();
    let script = "mount -t tmpfs -o size=16k none \"$0\" && echo older > \"$0/out.npy\" && { \"$1\" --steps 1 --count 20 \"$0/out.npy\"; code=$?; cat \"$0/out.npy\"; ls -A \"$0\"; exit $code; }";
    let mut unshare = Command::new("unshare");
    unshare.args(["-rm", "sh", "-c", script]).arg(folder.root()).arg(env!("CARGO_BIN_EXE_edgegen"));
    let output = unshare.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("unshare") || words.contains("mount") {
        // no permission to mount here: /dev/full above is then all there is
        eprintln!("skipped the small file system: {words}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("out.npy") && words.contains("No space left") && words.trim().lines().count() == 1,
        "{words}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "older\nout.npy\n");
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    std::fs::set_permissions(folder.root(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(folder.path("probe"), "").is_ok() {
        // root may write anywhere: the kernel's own read-only folder will do
        fails(&["--steps", "1", "/proc/out.png"], "/proc/out.png");
    } else {
        fails(&["--steps", "1", &folder.path("out.png")], "out.png");
    }
    std::fs::set_permissions(folder.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_deadline_gives_the_best_there_is() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    let output = edgegen(&["--steps", "1000", "--deadline", "20", "--report", "json", &out]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("deadline ended 1 of 1"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["complete"], false);
    assert!(report["nfe"].as_u64().unwrap() < 1000);
    assert!(npy(out).1.iter().all(|v| v.is_finite()));
}

#[test]
fn a_deadline_that_leaves_only_noise_is_an_error() {
    let folder = Folder::new();
    let out = folder.path("out.png");
    fails(&["--deadline", "0", "--count", "2", &out], "2 of 2 samples had no time for a step");
    assert!(folder.files().is_empty(), "noise was written");
}

#[test]
fn words_that_are_typed_wrong_are_guessed() {
    let folder = Folder::new();
    let out = folder.path("out.png");
    fails(&["--sampler", "huen", &out], "did you mean 'heun'?");
    fails(&["--class", "Ankel boot", &out], "did you mean 'Ankle boot'?");
    fails(&["--class", "Zebra", &out], "give an index from 0 to 9, or one of: T-shirt");
    for (args, word) in [
        (&["--spacing", "trailng", &out] as &[&str], "did you mean 'trailing'?"),
        (&["smaplers"], "did you mean 'samplers'?"),
    ] {
        let output = edgegen(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word), "{args:?}: {said}");
    }
    fails(&["--threads", "0", &out], "from 1 to 4096");
    fails(&["bench", "--threads", "0"], "from 1 to 4096");
    fails(&[&folder.path("{idx}.png")], "{index} stands for the sample's index");
    // in any case of letters
    let [a, b] = ["HEUN", "heun"].map(|name| {
        succeeds(&["--steps", "2", "-s", name, &out]);
        std::fs::read(&out).unwrap()
    });
    assert_eq!(a, b);
}

#[test]
fn a_class_is_drawn_asked_for_or_none() {
    let folder = Folder::new();
    let make = |more: &[&str]| {
        let out = folder.path("out.npy");
        let report = succeeds(&[&["--steps", "1", "--seed", "3", "--report", "json"], more, &[out.as_str()]].concat());
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        (report["classes"][0].clone(), npy(&out).1)
    };
    let (drawn, sample) = make(&[]);
    assert_eq!(make(&["--class", &drawn.to_string()]).1, sample);
    let (none, sample_of_none) = make(&["--class", "none"]);
    assert!(none.is_null() && sample_of_none != sample);
    // as the library draws it
    let model = edgegen::Model::embedded().unwrap();
    let mut generator = model.generator().steps(1).build().unwrap();
    assert_eq!(generator.run(&edgegen::Request::new(3, 0)).unwrap().sample, sample);
    assert_eq!(generator.run(&edgegen::Request::new(3, 0).without_class()).unwrap().sample, sample_of_none);
    assert_eq!(model.drawn_class(3, 0).map(|class| class as u64), drawn.as_u64());
}

#[test]
fn what_cannot_be_written_is_an_error_of_one_line() {
    for args in [&["completions", "bash"] as &[&str], &["samplers"], &["samplers", "--report", "json"]] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let Ok(full) = full else { return eprintln!("there is no /dev/full here") };
        let output = command(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{args:?}: {said}");
    }
}

#[test]
fn pictures_are_enlarged() {
    let folder = Folder::new();
    let [small, large] = ["1", "5"].map(|scale| {
        let out = folder.path("out.png");
        succeeds(&["--steps", "2", "--count", "2", "--scale", scale, &out]);
        image::open(&out).unwrap().to_luma8()
    });
    assert_eq!((large.width(), large.height()), (5 * small.width(), 5 * small.height()));
    assert!(large.enumerate_pixels().all(|(x, y, pixel)| pixel == small.get_pixel(x / 5, y / 5)));
    fails(&["--scale", "2", &folder.path("out.npy")], "--scale is for pictures");
}

#[test]
fn a_model_of_another_digest_is_refused() {
    let folder = Folder::new();
    let (model, out) = (fixture("sequence"), folder.path("out.npy"));
    let right = "593359eb0cf98ed8a288e4066491ff07a890ddcbfc2bf4ba878124450be9274f";
    let run =
        |sha256: &str| edgegen(&["-m", &model, "--sha256", sha256, "-n", "1", "--cond", "global_cond=1,2,3", &out]);
    assert!(run(right).status.success());
    program::assert_failure(&run(&"0".repeat(64)), &format!("the file's SHA-256 is {right}, not 0000"));
    program::assert_failure(&run("no digest"), "64 hexadecimal digits");
    // its weights lie in another file
    let external = format!("{}/tests/fixtures/exports/external/transformer.dy21.onnx", env!("CARGO_MANIFEST_DIR"));
    let digest = "69b6b340d93b5d146d115fd038a1e86e6a24282752ae960031839b2739f00508";
    fails(&["inspect", &external, "--sha256", digest], "lies in another file");
}

#[test]
fn reports_are_whole() {
    let folder = Folder::new();
    let report = succeeds(&["--steps", "2", "--count", "2", "--report", "json", &folder.path("out.png")]);
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((report["samples"].as_u64(), report["nfe"].as_u64()), (Some(2), Some(2)));
    assert_eq!(report["allocations_per_image"], 0);
    let bench = succeeds(&["bench", "--steps", "2", "--runs", "2", "--report", "json"]);
    let bench: serde_json::Value = serde_json::from_slice(&bench).unwrap();
    for key in ["network_ms", "image_ms", "first_image_ms", "peak_rss_bytes"] {
        assert!(bench[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(bench["nfe"], 2);
    assert!(bench["allocations_per_image"].is_u64());

    let inspect = succeeds(&["inspect", "--report", "json"]);
    let inspect: serde_json::Value = serde_json::from_slice(&inspect).unwrap();
    assert_eq!(inspect["sample_shape"], serde_json::json!([1, 28, 28]));
    assert_eq!(inspect["classes"].as_array().unwrap().len(), 10);
    let inspect = String::from_utf8(succeeds(&["inspect", &fixture("sequence")])).unwrap();
    assert!(inspect.contains("global_cond") && inspect.contains("push, pull, lift"), "{inspect}");
    let samplers = String::from_utf8(succeeds(&["samplers"])).unwrap();
    for info in edgegen::solver::SOLVERS {
        assert!(samplers.contains(info.name) && samplers.contains(info.paper), "{}", info.name);
    }
    let json: serde_json::Value = serde_json::from_slice(&succeeds(&["samplers", "--report", "json"])).unwrap();
    let count = edgegen::solver::SOLVERS.len() + edgegen::solver::ADAPTIVE_SOLVERS.len();
    assert_eq!(json.as_array().map(Vec::len), Some(count));
    let version = String::from_utf8(succeeds(&["--version", "--verbose"])).unwrap();
    for word in [env!("CARGO_PKG_VERSION"), "commit: ", "features: cli", "kernels: "] {
        assert!(version.contains(word), "{version}");
    }
    assert_eq!(String::from_utf8(succeeds(&["-V"])).unwrap().lines().count(), 1);
    let completions = String::from_utf8(succeeds(&["completions", "bash"])).unwrap();
    assert!(completions.contains("--guidance"));
    let help = String::from_utf8(succeeds(&["--help"])).unwrap();
    for option in ["--model", "--steps", "--sampler", "--seed", "--class", "--deadline", "Examples:", "Exit status:"] {
        assert!(help.contains(option), "{option}");
    }
}

/// Whoever reads the picture may go away.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_an_error_and_no_panic() {
    let mut child = command(&["--steps", "1", "--format", "npy", "--count", "40", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
    assert!(!output.status.success());
}

#[test]
fn a_mask_is_filled_and_the_rest_is_kept() {
    let folder = Folder::new();
    let [boot, mask, filled, again] = ["boot.png", "mask.png", "filled.png", "again.png"].map(|n| folder.path(n));
    succeeds(&["--class", "Ankle boot", "--steps", "4", "--quiet", &boot]);
    let hole = |x: u32, y: u32| (8..20).contains(&x) && (10..18).contains(&y);
    image::GrayImage::from_fn(28, 28, |x, y| image::Luma([if hole(x, y) { 255 } else { 0 }])).save(&mask).unwrap();
    for out in [&filled, &again] {
        let from = ["--init", &boot, "--mask", &mask, "--class", "Ankle boot"];
        succeeds(&[&from[..], &["--seed", "5", "--steps", "4", "--resample", "2", "--quiet", out]].concat());
    }
    let [before, after] = [&boot, &filled].map(|p| image::open(p).unwrap().to_luma8());
    let differs = |inside: bool| {
        let pixels = before.enumerate_pixels().filter(|(x, y, _)| hole(*x, *y) == inside);
        pixels.filter(|(x, y, p)| after.get_pixel(*x, *y) != *p).count()
    };
    assert_eq!(differs(false), 0);
    assert!(differs(true) > 0, "nothing was filled");
    assert_eq!(std::fs::read(&filled).unwrap(), std::fs::read(&again).unwrap());
}

#[test]
fn the_strength_goes_from_the_picture_to_a_sample_of_its_own() {
    let folder = Folder::new();
    let [boot, near, far, plain] = ["boot.npy", "near.npy", "far.npy", "plain.npy"].map(|n| folder.path(n));
    let class = ["--class", "Ankle boot", "--steps", "4", "--spacing", "trailing", "--quiet"];
    succeeds(&[&class[..], &["--seed", "3", &boot]].concat());
    succeeds(&[&class[..], &["--init", &boot, "--strength", "0.25", &near]].concat());
    succeeds(&[&class[..], &["--init", &boot, "--strength", "1", &far]].concat());
    succeeds(&[&class[..], &[&plain]].concat());
    let read = |path: &str| edgegen::output::read_npy(Path::new(path)).unwrap().1;
    let apart = |a: &str, b: &str| read(a).iter().zip(read(b)).map(|(a, b)| (a - b).abs()).sum::<f32>() / 784.0;
    assert!(apart(&near, &boot) < 0.5 * apart(&far, &boot), "{} {}", apart(&near, &boot), apart(&far, &boot));
    assert!(apart(&far, &plain) < 1e-6);
}

#[test]
fn pictures_to_start_from_that_do_not_fit_are_told() {
    let folder = Folder::new();
    let [boot, small, out] = ["boot.png", "small.png", "out.png"].map(|n| folder.path(n));
    succeeds(&["--steps", "2", "--quiet", &boot]);
    image::GrayImage::new(20, 28).save(&small).unwrap();
    fails(&["--init", &small, &out], "20x28");
    fails(&["--init", &boot, "--mask", &small, &out], "has 20x28 pixels, but the picture has 28x28");
    fails(&["--init", &boot, "--strength", "2", &out], "strength");
    fails(&["--init", &folder.path("none.png"), &out], "none.png");
    fails(&["--init", &boot, "--mask", &boot, "--sampler", "rk45", &out], "one with fixed steps");
    assert_eq!(folder.files().len(), 2);
}

/// A boot of the model's, its path, and its pixels.
fn boot(folder: &Folder) -> (String, image::GrayImage) {
    let path = folder.path("boot.png");
    succeeds(&["--class", "Ankle boot", "--seed", "3", "--quiet", &path]);
    let pixels = image::open(&path).unwrap().to_luma8();
    (path, pixels)
}

fn apart(a: &image::GrayImage, b: &image::GrayImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.pixels().zip(b.pixels()).map(|(a, b)| f64::from(a.0[0].abs_diff(b.0[0]))).sum::<f64>() / a.len() as f64
}

fn grey(path: &str) -> image::GrayImage {
    let picture = image::open(path).unwrap();
    assert_eq!(picture.color(), image::ColorType::L8);
    picture.to_luma8()
}

#[test]
fn pictures_are_restored() {
    let folder = Folder::new();
    let (_, truth) = boot(&folder);
    let [spoilt, mask, out, again] = ["spoilt.png", "mask.png", "out.png", "again.png"].map(|n| folder.path(n));
    // a hole is filled, and the rest kept
    let hole = |x: u32, y: u32| (8..20).contains(&x) && (10..18).contains(&y);
    image::GrayImage::from_fn(28, 28, |x, y| image::Luma([if hole(x, y) { 255 } else { 0 }])).save(&mask).unwrap();
    let mut holed = truth.clone();
    holed.enumerate_pixels_mut().filter(|(x, y, _)| hole(*x, *y)).for_each(|(_, _, p)| p.0[0] = 0);
    holed.save(&spoilt).unwrap();
    for out in [&out, &again] {
        succeeds(&["restore", "--task", "inpaint", "--mask", &mask, "--class", "Ankle boot", &spoilt, out]);
    }
    let filled = grey(&out);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&again).unwrap());
    assert!(filled.enumerate_pixels().all(|(x, y, p)| hole(x, y) || p == truth.get_pixel(x, y)));
    assert!(apart(&filled, &truth) < 0.5 * apart(&holed, &truth), "{}", apart(&filled, &truth));

    // a small picture becomes a large one that it is the small form of
    let small = image::GrayImage::from_fn(14, 14, |x, y| {
        let of = |dx, dy| u32::from(truth.get_pixel(2 * x + dx, 2 * y + dy).0[0]);
        image::Luma([((of(0, 0) + of(1, 0) + of(0, 1) + of(1, 1) + 2) / 4) as u8])
    });
    small.save(&spoilt).unwrap();
    succeeds(&["restore", "--task", "super-resolution", "--factor", "2", &spoilt, &out]);
    let blocks = image::imageops::resize(&small, 28, 28, image::imageops::FilterType::Nearest);
    assert!(apart(&grey(&out), &truth) < apart(&blocks, &truth), "{}", apart(&grey(&out), &truth));

    // noise goes
    let mut noise = edgegen::noise::Noise::new(1, 0);
    let mut noisy = truth.clone();
    noisy.pixels_mut().for_each(|p| p.0[0] = (f32::from(p.0[0]) + 25.0 * noise.sample()) as u8);
    noisy.save(&spoilt).unwrap();
    succeeds(&["restore", "--task", "denoise", "--sigma", "25", &spoilt, &out]);
    assert!(apart(&grey(&out), &truth) < 0.6 * apart(&noisy, &truth), "{}", apart(&grey(&out), &truth));
    succeeds(&["restore", "--task", "denoise", "--sigma", "25", "--average", "2", &spoilt, &folder.path("out.npy")]);
    assert_eq!(npy(folder.path("out.npy")).0, [1, 1, 28, 28]);
}

#[test]
fn pictures_larger_than_the_models_are_restored_by_tiles() {
    let folder = Folder::new();
    let [large, mask, out] = ["large.png", "mask.png", "out.png"].map(|n| folder.path(n));
    succeeds(&["--count", "4", "--grid", "2x2", "--quiet", &large]);
    let truth = grey(&large);
    let hole = |x: u32, y: u32| (24..32).contains(&x) && (20..26).contains(&y);
    image::GrayImage::from_fn(56, 56, |x, y| image::Luma([if hole(x, y) { 255 } else { 0 }])).save(&mask).unwrap();
    let few = ["restore", "--steps", "2", "--resample", "1"];
    succeeds(&[&few[..], &["--task", "inpaint", "--mask", &mask, "--overlap", "4", &large, &out]].concat());
    assert!(grey(&out).enumerate_pixels().all(|(x, y, p)| hole(x, y) || p == truth.get_pixel(x, y)));
    succeeds(&[&few[..], &["--task", "denoise", "--sigma", "10", &large, &out]].concat());
    assert_eq!(grey(&out).dimensions(), (56, 56));
    image::imageops::resize(&truth, 20, 16, image::imageops::FilterType::Triangle).save(&mask).unwrap();
    succeeds(&[&few[..], &["--task", "super-resolution", "--factor", "4", &mask, &out]].concat());
    assert_eq!(grey(&out).dimensions(), (80, 64));
    fails(
        &["restore", "--task", "denoise", "--sigma", "9", "--overlap", "28", &large, &out],
        "overlap by 27 at most, not 28",
    );
}

#[test]
fn what_cannot_be_restored_is_told_in_one_line() {
    let folder = Folder::new();
    let (boot, _) = boot(&folder);
    let [small, colours, out] = ["small.png", "colours.png", "out.png"].map(|n| folder.path(n));
    image::GrayImage::new(20, 28).save(&small).unwrap();
    image::RgbImage::from_pixel(28, 28, image::Rgb([200, 100, 0])).save(&colours).unwrap();
    let told = |more: &[&str], file: &str, words: &str| {
        fails(&[&["restore"], more, &[file, &out]].concat(), words);
    };
    let inpaint = ["--task", "inpaint"];
    told(&inpaint, &boot, "needs a --mask");
    told(&[&inpaint[..], &["--mask", &small]].concat(), &boot, "has 20x28 pixels, but the picture has 28x28");
    told(&[&inpaint[..], &["--mask", &folder.path("none.png")]].concat(), &boot, "none.png");
    let white = folder.path("white.png");
    image::GrayImage::from_pixel(28, 28, image::Luma([255])).save(&white).unwrap();
    told(&[&inpaint[..], &["--mask", &white]].concat(), &boot, "nothing is known");
    let larger = ["--task", "super-resolution", "--factor"];
    told(&[&larger[..], &["1"]].concat(), &boot, "--factor must be from 2 to 8, not 1");
    told(&["--task", "denoise", "--factor", "2"], &boot, "--factor is for --task super-resolution");
    told(&[&larger[..], &["2", "--mask", &white]].concat(), &boot, "--mask is for --task inpaint");
    let denoise = ["--task", "denoise", "--sigma", "25"];
    told(&["--task", "denoise"], &boot, "needs the noise's --sigma");
    for sigma in ["0.1", "-3", "300", "nan"] {
        told(&["--task", "denoise", "--sigma", sigma], &boot, "--sigma must be from 1 to 255");
    }
    told(&denoise, &small, "would have 20x28 pixels, but the model's have 28x28");
    told(&denoise, &colours, "has colours, but the model's pictures have 1 channel");
    told(&["--task", "colorize"], &boot, "needs a model of pictures with 3 channels, and this one's have 1");
    told(&["--task", "grey"], &boot, "needs a model of pictures with 3 channels");
    told(&[&denoise[..], &["--average", "0"]].concat(), &boot, "--average must be at least 1");
    told(&[&denoise[..], &["--resample", "2"]].concat(), &boot, "--resample is not for --task denoise");
    told(&[&denoise[..], &["--class", "spaceship"]].concat(), &boot, "one of: T-shirt");
    told(&[&denoise[..], &["--sampler", "rk45", "--steps", "0"]].concat(), &folder.path("none.png"), "none.png");
    told(&[&larger[..], &["2", "--sampler", "rk45"]].concat(), &boot, "fixed steps");
    told(&[&denoise[..], &["-m", &fixture("sequence")]].concat(), &boot, "only models of pictures");
    fails(&["restore", "--task", "denoise", "--sigma", "25", &boot, &folder.path("out.bmp")], ".png, .jpg, .gif");
    assert!(!std::fs::exists(&out).unwrap());
}

/// A network that `tools/fixtures/exports.py` wrote, unpacked to `to`.
fn unpack(name: &str, to: &str) {
    std::fs::write(to, common::fixture(&format!("exports/{name}.onnx.gz"))).unwrap();
}

#[test]
fn a_range_of_sigmas_stands_for_a_schedule() {
    let folder = Folder::new();
    let [model, out, other] = ["edm.onnx", "out.npy", "other.npy"].map(|n| folder.path(n));
    unpack("edm.dy21", &model);
    let heun = ["-m", &model, "-s", "heun", "-n", "3"];
    let range = ["--sigma-min", "0.002", "--sigma-max", "80", "--rho", "7"];
    fails(&[&heun[..], &[&out]].concat(), "give --sigma-min and --sigma-max");
    succeeds(&[&heun[..], &range, &[&out]].concat());
    let (shape, x) = npy(&out);
    assert_eq!(shape, [1, 2, 8, 8]);
    // those are the defaults of what is not given
    succeeds(&[&heun[..], &["--rho", "7", &other]].concat());
    assert_eq!(npy(&other).1, x);
    for changed in [["--sigma-min", "0.2"], ["--sigma-max", "8"], ["--rho", "2"]] {
        succeeds(&[&heun[..], &changed, &[&other]].concat());
        assert_ne!(npy(&other).1, x, "{changed:?}");
    }
    let steps = String::from_utf8(succeeds(&[&["schedule", "-m", &model, "-n", "3"], &range[..]].concat())).unwrap();
    assert!(steps.contains("80.0000") && steps.contains("0.0020"), "{steps}");
    let wrong = |given: &[&str], words: &str| fails(&[&heun[..], given, &[&out]].concat(), words);
    wrong(&["--sigma-min", "5", "--sigma-max", "2"], "sigma");
    wrong(&["--sigma-max", "0"], "sigma");
    wrong(&["--sigma-max", "nan"], "sigma");
    wrong(&["--rho", "0"], "rho");
    // where a network has a schedule over time, Karras's steps keep to the range
    let steps =
        String::from_utf8(succeeds(&["schedule", "-n", "4", "--spacing", "karras", "--sigma-max", "5"])).unwrap();
    assert!(steps.lines().nth(1).unwrap().contains(" 5.0000 "), "{steps}");
}

#[test]
fn guidance_by_named_conditions_takes_what_is_unconditional() {
    let folder = Folder::new();
    let [model, config, out, other] =
        ["model.onnx", "scheduler_config.json", "out.npy", "other.npy"].map(|n| folder.path(n));
    unpack("unet2d_condition.dy21", &model);
    std::fs::write(&config, r#"{"num_train_timesteps": 1000}"#).unwrap();
    let numbers = |k: usize| (0..24).map(|i| (((i * k) % 7) as f32 * 0.2).to_string()).collect::<Vec<_>>().join(",");
    let (prompt, empty) = (numbers(3), numbers(5));
    let [cond, uncond, zeros] =
        [&prompt, &empty, &vec!["0"; 24].join(",")].map(|v| format!("encoder_hidden_states={v}"));
    let make = |more: &[&str], out: &str| {
        succeeds(&[&["-m", &model, "-s", "ddim", "-n", "2", "--cond", &cond], more, &[out]].concat());
        npy(out).1
    };
    let guided = make(&["--guidance", "3"], &out);
    assert_eq!(make(&["--guidance", "3", "--uncond", &zeros], &other), guided, "zeros are the default");
    assert_ne!(make(&["--guidance", "3", "--uncond", &uncond], &other), guided);
    // by itself it is itself
    let plain = make(&[], &out);
    let same = make(&["--guidance", "3", "--uncond", &cond], &other);
    assert!(plain.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-3));
    let wrong = |uncond: &str, words: &str| {
        fails(&["-m", &model, "--cond", &cond, "--guidance", "3", "--uncond", uncond, &other], words);
    };
    wrong("prompt=1", "it takes encoder_hidden_states");
    wrong("encoder_hidden_states=1,2", "has 2 numbers, but the model takes 24");
}

#[test]
fn a_pipelines_folder_is_a_model() {
    let folder = Folder::new();
    let [pipeline, file, out, other] = ["pipeline", "unet.onnx", "out.npy", "other.npy"].map(|n| folder.path(n));
    fails(&["-m", &pipeline, &out], "pipeline");
    std::fs::create_dir(&pipeline).unwrap();
    fails(&["-m", &pipeline, &out], "pipeline");
    for part in ["unet", "scheduler"] {
        std::fs::create_dir(format!("{pipeline}/{part}")).unwrap();
    }
    unpack("unet2d.dy21", &format!("{pipeline}/unet/model.onnx"));
    fails(&["-m", &pipeline, &out], "scheduler_config.json");
    let config = r#"{"_class_name": "DDIMScheduler", "num_train_timesteps": 500, "beta_schedule": "scaled_linear"}"#;
    std::fs::write(format!("{pipeline}/scheduler/scheduler_config.json"), config).unwrap();
    succeeds(&["-m", &pipeline, "-n", "3", &out]);
    // the same as the file with the configuration named
    unpack("unet2d.dy21", &file);
    let config = format!("{pipeline}/scheduler/scheduler_config.json");
    succeeds(&["-m", &file, "--scheduler-config", &config, "-n", "3", &other]);
    assert_eq!(npy(&out), npy(&other));
    let inspect = String::from_utf8(succeeds(&["inspect", &pipeline])).unwrap();
    assert!(inspect.contains("500 steps, beta scaled_linear"), "{inspect}");
}
