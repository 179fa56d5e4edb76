//! `edgegen restore`: a picture from what is left of it.

use super::args::SamplingArgs;
use super::flow::Common;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use edgegen::constraint::Degradation;
use edgegen::network::Tiling;
use edgegen::output::{self, Format, Image, Picture};
use edgegen::restore::{Damage, Restorer};
use edgegen::solver::Resample;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(after_help = "\
Pictures larger than the model's are restored as overlapping tiles. docs/restoration.md measures each task.
  edgegen restore --task inpaint --mask hole.png photo.png whole.png
  edgegen restore --task super-resolution --factor 2 small.png large.png
  edgegen restore --task denoise --sigma 25 noisy.png clean.png
  edgegen restore --task colorize -m colour.onnx grey.png coloured.png")]
pub struct RestoreArgs {
    /// The picture
    #[arg(value_name = "IN")]
    file: PathBuf,
    /// The file to write: .png, .jpg, .gif, .npy or .csv
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// What is wrong with it
    #[arg(long, value_enum, value_name = "NAME")]
    task: Task,
    /// inpaint: what is white in this picture is filled, the rest kept
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// super-resolution: how many times as wide and high the result is [default: 2]
    #[arg(long, value_name = "N")]
    factor: Option<usize>,
    /// The standard deviation of the picture's noise, in levels of 0 to 255; for denoise needed, else 0
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    sigma: Option<f32>,
    /// Run each step so often, for what is measured to reach the rest: not for denoise [default: 4]
    #[arg(long, value_name = "N")]
    resample: Option<usize>,
    /// Give the mean of so many samples: nearer to the truth on average, and smoother
    #[arg(long, default_value_t = 1, value_name = "N")]
    average: usize,
    /// The pixels that neighbouring tiles share at least [default: half a tile]
    #[arg(long, value_name = "N")]
    overlap: Option<usize>,
    #[command(flatten)]
    common: Common,
    /// Where the noise of the samples comes from
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// What is wrong with a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Parts of it are missing
    Inpaint,
    /// It is small: each pixel is the mean of a square of the result's
    SuperResolution,
    /// It has noise
    Denoise,
    /// It has no colours
    #[value(alias = "grey")]
    Colorize,
}

impl RestoreArgs {
    /// Options of other tasks are mistakes.
    fn check(&self) -> Result<()> {
        let only = |given: bool, option: &str, task: Task, name: &str| {
            ensure!(!given || self.task == task, "{option} is for --task {name}");
            Ok(())
        };
        only(self.mask.is_some(), "--mask", Task::Inpaint, "inpaint")?;
        only(self.factor.is_some(), "--factor", Task::SuperResolution, "super-resolution")?;
        let repeats = self.resample.is_some_and(|n| n > 1);
        ensure!(!(repeats && self.task == Task::Denoise), "--resample is not for --task denoise");
        ensure!(self.average > 0, "--average must be at least 1");
        if let Some(sigma) = self.sigma {
            ensure!(
                (1.0..=255.0).contains(&sigma),
                "--sigma must be from 1 to 255, in levels of 0 to 255 (a tenth of the range is 25.5), not {sigma}"
            );
        }
        Ok(())
    }

    /// What happened to the picture `[C, H, W]` that is sought, and what was measured of it.
    fn damage(&self, shape: &[usize], image: &Image, range: (f32, f32)) -> Result<(Damage, Vec<f32>)> {
        let noise = self.sigma.unwrap_or(0.0) / 255.0 * (range.1 - range.0);
        let degradation = match self.task {
            Task::Denoise => {
                ensure!(noise > 0.0, "--task denoise needs the noise's --sigma, in levels of 0 to 255");
                return Ok((Damage::Noise(noise), Picture::new(shape, range)?.sample(image)?));
            }
            Task::Inpaint => {
                let mask = self.mask.as_deref().context("--task inpaint needs a --mask, white where to fill")?;
                Degradation::mask(shape, &known(mask, shape)?)?
            }
            Task::SuperResolution => Degradation::box_average(shape, self.factor())?,
            Task::Colorize => Degradation::grey(shape)?,
        };
        let measured = Picture::new(degradation.measured_shape(), range)?.sample(image)?;
        Ok((Damage::Linear { degradation, noise }, measured))
    }

    fn factor(&self) -> usize {
        if self.task == Task::SuperResolution { self.factor.unwrap_or(2) } else { 1 }
    }
}

/// Which elements a mask keeps: those that are black.
fn known(path: &Path, shape: &[usize]) -> Result<Vec<bool>> {
    let mask = output::read_picture(path)?;
    let (width, height) = (mask.width(), mask.height());
    ensure!(
        shape[1..] == [height, width],
        "the mask {} has {width}x{height} pixels, but the picture has {}x{}",
        path.display(),
        shape[2],
        shape[1]
    );
    let known: Vec<bool> = mask.to_grey().into_iter().map(|level| level < 128).collect();
    Ok(known.repeat(shape[0]))
}

pub fn run(args: &RestoreArgs) -> Result<()> {
    args.check()?;
    let format = Format::from_path(&args.out)?;
    let (model, condition) = args.common.open()?;
    let &[channels, height, width] = model.sample_shape() else {
        bail!("the model's samples have shape {:?}: only models of pictures can restore them", model.sample_shape());
    };
    let image = output::read_picture(&args.file)?;
    ensure!(
        args.task != Task::Colorize || channels == 3,
        "--task colorize needs a model of pictures with 3 channels, and this one's have {channels}"
    );
    ensure!(
        channels != 1 || !image.has_colours(),
        "{} has colours, but the model's pictures have 1 channel: make it grey",
        args.file.display()
    );
    let factor = args.factor();
    ensure!(
        (args.task != Task::SuperResolution) || (2..=8).contains(&factor),
        "--factor must be from 2 to 8, not {factor}"
    );
    let [h, w] = [image.height(), image.width()].map(|side| side * factor);
    ensure!(
        h >= height && w >= width,
        "the restored picture would have {w}x{h} pixels, but the model's have {width}x{height}: it cannot be smaller"
    );
    let range = model.value_range();
    let shape = [channels, h, w];
    let (damage, measured) = args.damage(&shape, &image, range)?;
    let mut settings = args.sampling.over(Restorer::settings(&model, &damage), &model)?;
    let overlap = args.overlap.unwrap_or(height.min(width) / 2);
    if let Some(times) = args.resample {
        settings.resample = Resample { times, jump: 1 };
    }
    settings.tiling = ([h, w] != [height, width]).then_some(Tiling { height: h, width: w, overlap });
    let mut restorer = Restorer::new(&model, &settings, damage, args.average)?;
    let (restored, _) = restorer.restore(&measured, args.seed, &condition)?;
    let bytes = match format {
        Format::Npy => output::encode_npy(&[&restored], &shape)?,
        Format::Csv => output::encode_csv(&[&restored]),
        _ => output::encode_picture(&Picture::new(&shape, range)?.grid(&[&restored], 1), format)?,
    };
    Ok(output::write_file(&args.out, &bytes)?)
}
