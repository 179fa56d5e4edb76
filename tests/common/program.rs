//! The program, run from outside.
#![allow(dead_code, reason = "each test uses some of it")]

use std::process::{Command, Output, Stdio};

/// The program with these arguments and no standard input.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgegen"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the program.
pub fn edgegen(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Runs the program, which must succeed and say nothing, and gives what it wrote to the standard output.
#[track_caller]
pub fn succeeds(arguments: &[&str]) -> Vec<u8> {
    let output = edgegen(arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{arguments:?}: {words}");
    output.stdout
}

/// Runs the program, which must fail with one line that contains `words`.
#[track_caller]
pub fn fails(arguments: &[&str], words: &str) {
    assert_failure(&edgegen(arguments), words);
}

/// Whether a run failed with one line that contains `words`, and wrote nothing to the standard output.
#[track_caller]
pub fn assert_failure(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("edgegen: ") && text.trim_end().lines().count() == 1, "not one line: {text}");
    assert!(text.contains(words), "{text:?} does not say {words:?}");
    assert!(output.stdout.is_empty());
}
