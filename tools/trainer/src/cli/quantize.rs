//! `edgegen-trainer quantize`.

use super::data::SequenceArgs;
use crate::checkpoint::write_atomically;
use crate::process;
use crate::quantize::{Cases, Method, Plan, RangeBy, four_bits, model, open, quantize, sixteen_bits};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use edgegen::ModelOptions;
use prost::Message;
use std::path::PathBuf;

/// Quantize any float ONNX diffusion network, calibrated along its own sampling trajectories.
///
/// Its layers get 8-bit activations and weights (QDQ), but for those that would move samples most, within a budget. The rest of
/// the file stays as it is.
#[derive(Args, Debug)]
pub struct QuantizeArgs {
    /// The float network
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Calibrate under the conditions of the data in this folder: samples.npy and a file for each condition by its input's
    /// name, with a row for each sample, or what `train` reads
    #[arg(long, value_name = "FOLDER", conflicts_with = "noise")]
    data: Option<PathBuf>,
    /// Calibrate from noise alone, under every class and random numbers for other conditions
    #[arg(long)]
    noise: bool,
    /// Make the weights alone smaller, and compute in float: in 16 bits, or in 4 in blocks of 32
    #[arg(long, value_enum, value_name = "f16|int4")]
    weights: Option<Weights>,
    /// The file to write; MODEL.int8.onnx, .f16.onnx or .int4.onnx if none is given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The noise schedule, if neither the file nor its folder says it
    #[arg(long, value_name = "FILE.json")]
    scheduler_config: Option<PathBuf>,
    /// The runs to calibrate on
    #[arg(long, default_value_t = 32, value_name = "N")]
    runs: usize,
    /// How the range of each value is chosen
    #[arg(long, value_enum, default_value = "mse")]
    ranges: RangeBy,
    /// The share of multiplications that may stay float; with --weights int4, of weights that may be in 8 bits
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    float_budget: f64,
    /// Round values as they are, without dividing the channels of what linear layers read
    #[arg(long)]
    no_smoothing: bool,
    /// Round weights each to the nearest level, which is quicker
    #[arg(long)]
    nearest: bool,
    /// Samples to report the distance of
    #[arg(long, default_value_t = 16, value_name = "N")]
    samples: usize,
    #[command(flatten)]
    sequences: SequenceArgs,
}

/// What weights alone are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// 16-bit floats.
    F16,
    /// 4 bits in blocks of 32, each with a scale.
    Int4,
}

/// Runs the command.
///
/// # Errors
/// When the model or the data cannot be read or do not fit each other, when there is nothing to quantize, or when the file cannot
/// be written.
pub fn run(args: &QuantizeArgs) -> Result<()> {
    ensure!(args.runs > 0 && args.samples > 0, "--runs and --samples must be at least 1");
    ensure!(
        (0.0..=1.0).contains(&args.float_budget),
        "--float-budget is a share, from 0 to 1, and not {}",
        args.float_budget
    );
    ensure!(
        args.data.is_some() || args.noise || args.weights == Some(Weights::F16),
        "it must be known what to calibrate on: give --data FOLDER, or --noise"
    );
    process::configure(None);
    let path = &args.model;
    let ending = match args.weights {
        None => "int8.onnx",
        Some(Weights::F16) => "f16.onnx",
        Some(Weights::Int4) => "int4.onnx",
    };
    let out = args.out.clone().unwrap_or_else(|| path.with_extension(ending));
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty());
    ensure!(folder.is_none_or(|f| f.is_dir()), "cannot write {}: there is no such folder", out.display());
    let said = || path.display().to_string();
    let proto = open(path).with_context(said)?;
    let options = options(args)?;
    let float = model(&proto, &options).with_context(said)?;
    let cases = match &args.data {
        Some(folder) => Cases::open(folder, &float, &args.sequences)?,
        None => Cases::of_noise(&float)?,
    };
    let method = Method { ranges: args.ranges, smoothing: !args.no_smoothing, compensation: !args.nearest };
    let plan = Plan { method, runs: args.runs, budget: args.float_budget, reported: args.samples };
    let quantized = match args.weights {
        None => quantize(&proto, &options, &cases, plan),
        Some(Weights::F16) => sixteen_bits(&proto, &options, &cases, args.samples),
        Some(Weights::Int4) => four_bits(&proto, &options, &cases, plan),
    };
    let quantized = quantized.with_context(said)?;
    let bytes = quantized.model.encode_to_vec();
    write_atomically(&out, &bytes)?;
    print!("{}", quantized.report);
    println!("{}: {:.1} MB", out.display(), bytes.len() as f64 / 1e6);
    Ok(())
}

/// How the model is read: what lies beside its file is found as for edgegen itself.
fn options(args: &QuantizeArgs) -> Result<ModelOptions> {
    let options = ModelOptions::new();
    if let Some(path) = &args.scheduler_config {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(options.scheduler_config(edgegen::config::SchedulerConfig::from_json(&text)?));
    }
    // graphs are read from memory, where nothing lies beside them
    let model = edgegen::Model::open(&args.model);
    Ok(match model {
        Ok(model) => options.scheduler_config(model.scheduler_config().clone()),
        // said of the graph once it is read
        Err(_) => options,
    })
}
