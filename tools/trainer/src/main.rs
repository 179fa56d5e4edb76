//! `edgegen-trainer`: train a small diffusion model on your own data and export it as ONNX.

mod checkpoint;
mod classifier;
mod cli;
mod data;
mod distill;
mod eval;
mod export;
mod fit;
mod frechet;
mod network;
mod noise_path;
mod ops;
mod optimizer;
mod process;
mod quantize;
mod sample;
mod sequences;
mod teacher;
mod train;
mod tune;

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
    Distill(Box<cli::distill::DistillArgs>),
    Export(cli::export::ExportArgs),
    Sample(cli::sample::SampleArgs),
    TrainClassifier(cli::train_classifier::TrainClassifierArgs),
    Eval(cli::eval::EvalArgs),
    Tune(cli::tune::TuneArgs),
    Quantize(cli::quantize::QuantizeArgs),
    #[command(hide = true)]
    BenchStep(cli::bench_step::BenchStepArgs),
    #[command(hide = true)]
    DumpForward(cli::dump_forward::DumpForwardArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Train(args) => cli::train::run(&args),
        Command::Distill(args) => cli::distill::run(&args),
        Command::Export(args) => cli::export::run(&args),
        Command::Sample(args) => cli::sample::run(&args),
        Command::TrainClassifier(args) => cli::train_classifier::run(&args),
        Command::Eval(args) => cli::eval::run(&args),
        Command::Tune(args) => cli::tune::run(&args),
        Command::Quantize(args) => cli::quantize::run(&args),
        Command::BenchStep(args) => cli::bench_step::run(&args),
        Command::DumpForward(args) => cli::dump_forward::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edgegen-trainer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
