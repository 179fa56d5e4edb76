//! Students: distilling, interruption, resuming, exporting, and what is said of bad input.

use super::*;

fn distill(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = trainer(&["distill", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    command.args(["--batch", "4", "--sample-every", "0"]).args(more);
    command
}

#[cfg(unix)]
#[test]
fn a_student_is_distilled_interrupted_resumed_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run_of_teacher) = (write_data(folder.path()), folder.path().join("teacher"));
    let teacher = run_of_teacher.to_str().unwrap();
    assert_success(&run(train(&data, &run_of_teacher, &["--steps", "30"])));
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    let options = ["--teacher", teacher, "--calls", "2", "--steps", "200", "--save-every", "20"];
    assert_success(&run(distill(&data, &straight, &options)));
    let child = distill(&data, &stopped, &options).spawn().unwrap();
    let checkpoint = stopped.join("checkpoint.safetensors");
    wait_for("the first checkpoint", || checkpoint.exists());
    interrupt(&child);
    assert_success(&child.wait_with_output().unwrap());
    let step = header(&checkpoint)["step"].as_u64().unwrap();
    assert!((20..200).contains(&step), "stopped at step {step}");
    assert_success(&run(distill(&data, &stopped, &["--resume"])));
    let finished = straight.join("checkpoint.safetensors");
    assert_eq!(header(&checkpoint)["step"], 200);
    assert!(tensors(&checkpoint) == tensors(&finished), "stopping at step {step} and resuming changed the student");

    let file = folder.path().join("student.int8.onnx");
    let mut export = trainer(&["export", "--checkpoint", stopped.to_str().unwrap(), "--format", "int8"]);
    export.args(["--out", file.to_str().unwrap(), "--data", data.to_str().unwrap(), "--calibration", "16"]);
    assert_success(&run(export));
    let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
    assert!(text.contains("consistency") && text.contains("tuned_timesteps") && text.contains("edgegen.distilled"));
    let grid = folder.path().join("grid.png");
    let sample = ["sample", "--checkpoint", checkpoint.to_str().unwrap(), grid.to_str().unwrap()];
    assert_success(&run(trainer(&sample)));
    assert_success(&run(trainer(&[&sample[..], &["--steps", "1"]].concat())));
    // a float export teaches as its checkpoint does
    let exported = folder.path().join("teacher.onnx");
    let export = ["export", "--checkpoint", teacher, "--out", exported.to_str().unwrap()];
    assert_success(&run(trainer(&export)));
    let flow = folder.path().join("flow");
    assert_success(&run(train(&data, &flow, &["--steps", "2", "--path", "flow"])));
    for (name, teacher) in [("again", &exported), ("of_flow", &flow)] {
        let options = ["--teacher", teacher.to_str().unwrap(), "--calls", "4", "--steps", "2"];
        assert_success(&run(distill(&data, &folder.path().join(name), &options)));
    }
}

#[test]
fn distill_tells_bad_input_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (write_data(folder.path()), folder.path().join("out"));
    let run_of_teacher = folder.path().join("teacher");
    let teacher = run_of_teacher.to_str().unwrap();
    assert_success(&run(train(&data, &run_of_teacher, &["--steps", "2"])));
    let fails = |more: &[&str], words: &str| assert_one_line(&run(distill(&data, &out, more)), words);
    fails(&[], "give --teacher");
    fails(&["--teacher", "missing"], "missing");
    fails(&["--teacher", "missing.onnx"], "missing.onnx");
    fails(&["--teacher", teacher, "--calls", "3"], "--calls must be 1, 2 or 4, not 3");
    fails(&["--teacher", teacher, "--adversarial", "nan"], "--adversarial");
    fails(&["--teacher", teacher, "--rate", "nan"], "--rate");
    fails(&["--teacher", teacher, "--ema", "1"], "--ema");
    fails(&["--resume"], "checkpoint.safetensors");
    let epsilon = folder.path().join("epsilon");
    assert_success(&run(train(&data, &epsilon, &["--steps", "1", "--prediction", "epsilon"])));
    fails(&["--teacher", epsilon.to_str().unwrap()], "predicts Epsilon");
    // a run of train is not gone on with by distill, nor the other way round
    assert_one_line(&run(distill(&data, &run_of_teacher, &["--resume"])), "not one of distill");
    assert_success(&run(distill(&data, &out, &["--teacher", teacher, "--steps", "1"])));
    fails(&["--teacher", teacher], "--resume");
    fails(&["--resume", "--teacher", teacher], "holds its teacher");
    fails(&["--resume", "--calls", "4"], "is of --calls 2");
    fails(&["--resume", "--adversarial", "0.5"], "is of --adversarial 0.05");
    assert_one_line(&run(train(&data, &out, &["--resume"])), "distill --resume");
    let again = folder.path().join("again");
    let student = out.to_str().unwrap();
    assert_one_line(&run(distill(&data, &again, &["--teacher", student])), "a student itself");
    // other classes than the teacher's
    let mut labels = std::fs::read(data.join("train-labels-idx1-ubyte")).unwrap();
    *labels.last_mut().unwrap() = 2;
    std::fs::write(data.join("train-labels-idx1-ubyte"), labels).unwrap();
    assert_one_line(&run(distill(&data, &again, &["--teacher", teacher])), "3 classes");
}
