//! `edgegen-trainer dump-forward`: a batch and what candle predicts for it, for `check/onnx_check.py`.

use super::run::open_checkpoint;
use crate::network::{Given, NetworkConfig};
use crate::process;
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use clap::Args;
use edgegen::noise::Noise;
use edgegen::output::{encode_npy, write_file};
use std::path::PathBuf;

/// Write x.npy, t.npy, labels.npy or cond.npy, and the averaged network's prediction.npy.
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
    let network = &checkpoint.header.network;
    let (n, shape) = (args.batch, network.shape());
    let len: usize = shape.iter().product();
    let mut x = vec![0.0; n * len];
    Noise::new(0, 0).fill(&mut x);
    let last = checkpoint.header.scheduler.num_train_timesteps - 1;
    let t = |i: usize| (i * last / n.max(2).saturating_sub(1)) as f32;
    // of a network of prefixes a time for each step, of which ever more are clean
    let rows = if network.prefix() > 0 { shape[0] } else { 1 };
    let clean = |i: usize, row: usize| row < i % (network.prefix() + 1);
    let t: Vec<f32> = (0..n).flat_map(|i| (0..rows).map(move |row| if clean(i, row) { 0.0 } else { t(i) })).collect();
    let (t_dims, t_shape) = if network.prefix() > 0 { (vec![n, rows], vec![rows]) } else { (vec![n], vec![]) };
    let device = &Device::Cpu;
    // what it is conditioned on: the file's name, and a row for each sample
    let (name, width, values, given) = match network {
        NetworkConfig::Unet(unet) => {
            let labels: Vec<u32> = (0..n).map(|i| (i % (unet.classes + 1)) as u32).collect();
            let values = labels.iter().map(|l| *l as f32).collect();
            ("labels.npy", 0, values, Given::Labels(Tensor::from_vec(labels, n, device)?))
        }
        NetworkConfig::Sequence(config) => {
            let mut values = vec![0.0; n * config.conditions];
            Noise::new(1, 0).fill(&mut values);
            let given = match config.conditions {
                0 => Given::Nothing,
                width => Given::Numbers(Tensor::from_slice(&values, (n, width), device)?),
            };
            ("cond.npy", config.conditions, values, given)
        }
    };
    let dims: Vec<usize> = std::iter::once(n).chain(shape.iter().copied()).collect();
    let prediction = network.forward(
        &checkpoint.ema,
        &Tensor::from_slice(&x, dims, device)?,
        &Tensor::from_slice(&t, t_dims, device)?,
        &given,
    )?;
    let prediction: Vec<f32> = prediction.flatten_all()?.to_vec1()?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let write = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
        let rows: Vec<&[f32]> = values.chunks(shape.iter().product::<usize>().max(1)).collect();
        Ok(write_file(&args.out.join(name), &encode_npy(&rows, shape)?)?)
    };
    write("x.npy", &x, shape)?;
    write("t.npy", &t, &t_shape)?;
    match width {
        0 if name == "cond.npy" => {}
        0 => write(name, &values, &[])?,
        width => write(name, &values, &[width])?,
    }
    write("prediction.npy", &prediction, shape)
}
