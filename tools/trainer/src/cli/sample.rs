//! `edgegen-trainer sample`.

use crate::checkpoint::{Checkpoint, Header};
use crate::train::device;
use crate::{process, sample};
use anyhow::{Result, ensure};
use clap::Args;
use edgegen::output::{Format, Picture, encode_csv, encode_npy, encode_picture, write_file};
use std::path::PathBuf;

/// Sample from a checkpoint with deterministic DDIM, or a student in its few calls, to see how training does.
#[derive(Args, Debug)]
pub struct SampleArgs {
    /// The checkpoint
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Where to write: .png or .jpg for a grid, .npy or .csv for the numbers in [-1, 1]
    out: PathBuf,
    /// The class, by name or number [default: every class, one after the other]
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Samples of each class
    #[arg(long, default_value_t = 8, value_name = "N")]
    count: usize,
    /// DDIM steps, or a student's network calls [default: 20; a student's --calls]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// The weight of classifier-free guidance; 1 is none [default: 1.5; 1 for a student]
    #[arg(long, value_name = "WEIGHT")]
    guidance: Option<f64>,
    /// What the noise comes from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Sample from the weights as they are, not from their moving average
    #[arg(long)]
    no_ema: bool,
    /// Threads [default: every core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Sample on the first NVIDIA GPU (needs a build with the cuda feature)
    #[arg(long)]
    gpu: bool,
}

/// Runs the command.
///
/// # Errors
/// When the checkpoint or an option does not fit, or the output cannot be written.
pub fn run(args: &SampleArgs) -> Result<()> {
    process::configure(args.threads);
    let format = Format::from_path(&args.out)?;
    ensure!(args.count > 0, "--count must be at least 1");
    let device = device(args.gpu)?;
    let Checkpoint { header, model, ema, .. } = Checkpoint::load(&args.checkpoint, &device)?;
    let most = header.scheduler.num_train_timesteps;
    let (steps, guidance) = header.distill.map_or((20, 1.5), |config| (config.calls, 1.0));
    let (steps, guidance) = (args.steps.unwrap_or(steps), args.guidance.unwrap_or(guidance));
    ensure!((1..=most).contains(&steps), "--steps must lie in 1 to {most}, not {steps}");
    ensure!(guidance.is_finite(), "--guidance must be a finite number, not {guidance}");
    let classes = match &args.class {
        Some(class) => vec![class_index(class, &header)?],
        None => (0..header.network.unet()?.classes).collect(),
    };
    let labels: Vec<usize> = classes.iter().flat_map(|c| std::iter::repeat_n(*c, args.count)).collect();
    let request = sample::Request { labels: &labels, steps, guidance, seed: args.seed };
    let parameters = if args.no_ema { &model } else { &ema };
    let samples = sample::samples(&header, parameters, &device, &request)?;
    let samples: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
    let bytes = match format {
        Format::Npy => encode_npy(&samples, header.network.shape())?,
        Format::Csv => encode_csv(&samples),
        _ => encode_picture(&Picture::new(header.network.shape(), (-1.0, 1.0))?.grid(&samples, args.count), format)?,
    };
    Ok(write_file(&args.out, &bytes)?)
}

/// The class of this name or number.
fn class_index(class: &str, header: &Header) -> Result<usize> {
    let names = &header.class_names;
    let by_name = names.iter().position(|name| name.eq_ignore_ascii_case(class));
    let index = by_name.or_else(|| class.parse().ok().filter(|i| *i < names.len()));
    index.ok_or_else(|| {
        anyhow::anyhow!("there is no class {class:?}; the classes are 0 to {}: {}", names.len() - 1, names.join(", "))
    })
}
