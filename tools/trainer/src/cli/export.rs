//! `edgegen-trainer export`.

use super::data::{Data, SequenceArgs};
use super::run::open_checkpoint;
use crate::checkpoint::{Checkpoint, write_atomically};
use crate::export::{Recommendation, calibrate, float_layers, quantize, to_onnx};
use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use onnx::pb::ModelProto;
use prost::Message;
use std::path::PathBuf;

/// Export a trained network as ONNX.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The checkpoint, or the folder that `train` wrote it in
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// The ONNX file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The weights' format
    #[arg(long, value_enum, default_value = "float")]
    format: Format,
    /// The data to calibrate int8 on: the folder trained on
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Samples to calibrate int8 on
    #[arg(long, default_value_t = 512, value_name = "N")]
    calibration: usize,
    /// The sampler that the file recommends [default: dpm++2m; consistency for a student of distill]
    #[arg(long, value_name = "NAME")]
    sampler: Option<String>,
    /// The number of steps that the file recommends [default: 10; a student's --calls]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// The guidance weight that the file recommends
    #[arg(long, default_value_t = 1.0, value_name = "W")]
    guidance: f32,
    /// The step spacing that the file recommends [default: trailing; tuned for a student]
    #[arg(long, value_name = "NAME")]
    spacing: Option<String>,
    #[command(flatten)]
    sequences: SequenceArgs,
}

/// The weights' format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// 32-bit floats.
    Float,
    /// 8-bit integers (QDQ): a quarter of the size.
    Int8,
}

/// Runs the command.
///
/// # Errors
/// When the checkpoint or the data does not fit, or the file cannot be written.
pub fn run(args: &ExportArgs) -> Result<()> {
    if let Some(sampler) = &args.sampler {
        edgegen::solver::Solver::from_name(sampler)?;
    }
    let checkpoint = open_checkpoint(&args.checkpoint, &Device::Cpu)?;
    let (sampler, steps, spacing) = match checkpoint.header.distill {
        Some(config) => ("consistency", config.calls, "tuned"),
        None => ("dpm++2m", 10, "trailing"),
    };
    let recommendation = Recommendation {
        sampler: args.sampler.clone().unwrap_or(sampler.into()),
        steps: args.steps.unwrap_or(steps),
        guidance: args.guidance,
        spacing: args.spacing.clone().unwrap_or(spacing.into()),
    };
    let model = to_onnx(&checkpoint.header, &checkpoint.ema, &recommendation)?;
    let model = match args.format {
        Format::Float => model,
        Format::Int8 => to_int8(args, &checkpoint, &model)?,
    };
    let bytes = model.encode_to_vec();
    write_atomically(&args.out, &bytes)?;
    let nodes = model.graph.as_ref().map_or(0, |g| g.node.len());
    eprintln!("{}: {nodes} nodes, {} bytes, from step {}", args.out.display(), bytes.len(), checkpoint.header.step);
    Ok(())
}

fn to_int8(args: &ExportArgs, checkpoint: &Checkpoint, model: &ModelProto) -> Result<ModelProto> {
    let Some(folder) = &args.data else { bail!("int8 is calibrated on real data: give the folder with --data") };
    let header = &checkpoint.header;
    let (shape, size) = (header.network.shape(), header.network.unet().ok().map(|u| u.shape[1]));
    let data = Data::open(folder, size, None, &args.sequences)?;
    let found = data.samples().sample_shape();
    anyhow::ensure!(found == shape, "the data's samples have shape {found:?}, but the network was made for {shape:?}");
    let ranges = calibrate(model, header, data.samples(), args.calibration).context("calibration")?;
    quantize(model, &ranges, &float_layers(&header.network))
}
