//! `edgegen-trainer`: train a small diffusion model on your own data and export it as ONNX.

mod checkpoint;
mod cli;
mod data;
mod ops;
mod optimizer;
mod process;
mod sample;
mod train;
mod unet;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Train a small diffusion model on your own data and export it as ONNX for edgegen.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(Box<cli::train::TrainArgs>),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Train(args) => cli::train::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edgegen-trainer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
