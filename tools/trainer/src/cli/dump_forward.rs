//! `edgegen-trainer dump-forward`: a batch and what candle predicts for it, for `check/onnx_check.py`.

use super::train::open_checkpoint;
use crate::process;
use crate::unet::Unet;
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use clap::Args;
use edgegen::noise::Noise;
use edgegen::output::{encode_npy, write_file};
use std::path::PathBuf;

/// Write x.npy, t.npy, labels.npy and the averaged network's prediction.npy.
#[derive(Args, Debug)]
pub struct DumpForwardArgs {
    /// The checkpoint, or the folder that `train` wrote it in
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// The folder to write to
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Samples
    #[arg(long, default_value_t = 8)]
    batch: usize,
}

/// Runs the command.
///
/// # Errors
/// When the checkpoint cannot be read or a file cannot be written.
pub fn run(args: &DumpForwardArgs) -> Result<()> {
    process::configure(None);
    let checkpoint = open_checkpoint(&args.checkpoint, &Device::Cpu)?;
    let unet = &checkpoint.header.unet;
    let [c, h, w] = unet.shape;
    let n = args.batch;
    let mut x = vec![0.0; n * c * h * w];
    Noise::new(0, 0).fill(&mut x);
    let last = checkpoint.header.scheduler.num_train_timesteps - 1;
    let t: Vec<f32> = (0..n).map(|i| (i * last / n.max(2).saturating_sub(1)) as f32).collect();
    let labels: Vec<u32> = (0..n).map(|i| (i % (unet.classes + 1)) as u32).collect();
    let device = &Device::Cpu;
    let prediction = Unet::new(unet, &checkpoint.ema).forward(
        &Tensor::from_slice(&x, (n, c, h, w), device)?,
        &Tensor::from_slice(&t, n, device)?,
        &Tensor::from_slice(&labels, n, device)?,
    )?;
    let prediction: Vec<f32> = prediction.flatten_all()?.to_vec1()?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let labels: Vec<f32> = labels.iter().map(|l| *l as f32).collect();
    let write = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
        let rows: Vec<&[f32]> = values.chunks(shape.iter().product::<usize>().max(1)).collect();
        Ok(write_file(&args.out.join(name), &encode_npy(&rows, shape)?)?)
    };
    write("x.npy", &x, &unet.shape)?;
    write("t.npy", &t, &[])?;
    write("labels.npy", &labels, &[])?;
    write("prediction.npy", &prediction, &unet.shape)
}
