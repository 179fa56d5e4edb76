//! `edgegen encode`, `likelihood` and `interpolate`: the model as a map between pictures and noise.

use super::args::{ModelArgs, Report, SamplingArgs};
use super::conditions::{ConditionArgs, class};
use super::limits;
use super::stdout::print;
use anyhow::{Context, Result, ensure};
use clap::Args;
use edgegen::config::{Spacing, Threshold};
use edgegen::likelihood::{Flow, Trace, slerp};
use edgegen::network::{Guided, Preconditioned};
use edgegen::noise::Noise;
use edgegen::output::{self, Format, Picture};
use edgegen::schedule::Schedule;
use edgegen::solver::Solver;
use edgegen::{Condition, Encoder, Generator, Model, Request, Settings};
use std::path::{Path, PathBuf};

/// Which model, and under what condition.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// The ONNX network [default: the one built in]
    #[arg(short, long, value_name = "FILE", help_heading = "Model")]
    model: Option<PathBuf>,
    #[command(flatten)]
    model_args: ModelArgs,
    /// The class, by name or index, or none [default: none]
    #[arg(long, value_name = "NAME|N")]
    class: Option<String>,
    #[command(flatten)]
    conditions: ConditionArgs,
}

impl Common {
    pub(super) fn open(&self) -> Result<(Model, Condition)> {
        let given = self.conditions.read()?;
        let model = self.model_args.open(self.model.as_deref(), &given)?;
        let class = self.class.as_deref().map(|name| class(&model, name)).transpose()?.flatten();
        let condition = given.condition(&model, class)?;
        Ok((model, condition))
    }
}

/// The settings that a way back and forth needs, where they are not given: many steps, evenly in log-SNR, of a
/// solver that undoes them well, without guidance and without clipping.
fn settings(args: &SamplingArgs, model: &Model) -> Result<Settings> {
    let mut settings = args.settings(model)?;
    if args.sampler.is_none() {
        settings.solver = Solver::from_name("heun")?;
    }
    let given = args.timesteps.as_ref().map(Vec::len);
    settings.steps = args.steps.or(given).unwrap_or(50);
    // mu shifts the steps of the model's own class
    if args.mu.is_none() {
        settings.spacing = Some(args.spacing.unwrap_or(Spacing::LogSnr));
    }
    settings.guidance = args.guidance.unwrap_or(1.0);
    settings.threshold = Threshold::None;
    Ok(settings)
}

/// A sample from a picture or an npy file.
pub(super) fn read_sample(path: &Path, model: &Model) -> Result<Vec<f32>> {
    let shape = model.sample_shape();
    if path.extension().is_some_and(|e| e == "npy") {
        let (found, sample) = output::read_npy(path)?;
        let fits = found == shape || (found.len() == shape.len() + 1 && found[0] == 1 && found[1..] == *shape);
        ensure!(fits, "{} has shape {found:?}, but the model's samples have {shape:?}", path.display());
        return Ok(sample);
    }
    picture(model)?.sample(&output::read_picture(path)?).with_context(|| path.display().to_string())
}

fn picture(model: &Model) -> Result<Picture> {
    Ok(Picture::new(model.sample_shape(), model.value_range())?)
}

#[derive(Args, Debug)]
#[command(after_help = "\
The noise gives the picture back with the same settings:
  edgegen encode boot.png z.npy --class \"Ankle boot\"
  edgegen --noise z.npy --class \"Ankle boot\" -s heun -n 50 --spacing log-snr --guidance 1 --clip none back.png")]
pub struct EncodeArgs {
    /// The picture, or a sample in npy
    #[arg(value_name = "IN")]
    file: PathBuf,
    /// The npy file to write
    #[arg(value_name = "OUT.npy")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    sampling: SamplingArgs,
}

pub fn encode(args: &EncodeArgs) -> Result<()> {
    let (model, condition) = args.common.open()?;
    let sample = read_sample(&args.file, &model)?;
    let z = Encoder::new(&model, &settings(&args.sampling, &model)?)?.encode(&sample, &condition)?;
    Ok(output::write_file(&args.out, &output::encode_npy(&[&z], model.sample_shape())?)?)
}

#[derive(Args, Debug)]
pub struct LikelihoodArgs {
    /// The pictures, or samples in npy
    #[arg(value_name = "IN", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// How many random directions the divergence is estimated along, at two network calls each
    #[arg(long, default_value_t = 4, value_name = "N")]
    probes: usize,
    /// The relative tolerance of the integration
    #[arg(long, default_value_t = 1e-3, value_name = "X", allow_negative_numbers = true)]
    rtol: f64,
    /// The absolute tolerance
    #[arg(long, default_value_t = 1e-3, value_name = "X", allow_negative_numbers = true)]
    atol: f64,
    /// Where the directions come from, and the noise that spreads a picture's levels over their bins
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// How to print it
    #[arg(long, value_enum, default_value = "text", value_name = "text|json")]
    report: Report,
}

pub fn likelihood(args: &LikelihoodArgs) -> Result<()> {
    ensure!(args.probes > 0, "--probes must be at least 1");
    let (model, condition) = args.common.open()?;
    let config = model.scheduler_config();
    let schedule = Schedule::from_config(config)?;
    let (noisy, data) = schedule.ends();
    let flow = Flow::new(&schedule, config.prediction(), data, noisy)?;
    let flow = flow.with_tolerance(args.rtol, args.atol)?;
    let mut network = Guided::new(Preconditioned::new(model.network()?, config.preconditioning()), 1.0)?;
    let (lo, hi) = model.value_range();
    let bin = (hi - lo) / 256.0;
    for (i, path) in args.files.iter().enumerate() {
        let mut sample = read_sample(path, &model)?;
        let mut noise = Noise::new(args.seed, i as u64);
        if path.extension().is_none_or(|e| e != "npy") {
            sample.iter_mut().for_each(|v| *v = dequantize(*v, lo, hi, &mut noise));
        }
        model.normalizer().normalize(&mut sample);
        let found =
            flow.log_likelihood(&mut network, &condition, &sample, Trace::Hutchinson(args.probes), &mut noise)?;
        let (bits, d) = (found.bits_per_dim(f64::from(bin)), sample.len() as f64);
        let error = found.standard_error.map(|e| e / d / std::f64::consts::LN_2);
        print(&match args.report {
            Report::Text => {
                let error = error.map_or(String::new(), |e| format!(" ± {e:.4}"));
                let (name, nats, nfe) = (path.display(), found.nats, found.nfe);
                format!("{name}: {bits:.4}{error} bits/dim, ln p = {nats:.1}, {nfe} network calls\n")
            }
            Report::Json => {
                let report = serde_json::json!({
                    "file": path.display().to_string(), "bits_per_dim": bits, "standard_error": error,
                    "log_likelihood": found.nats, "nfe": found.nfe,
                });
                format!("{report}\n")
            }
        })?;
    }
    Ok(())
}

/// Spreads a level of 256 evenly over its bin, of which 256 fill the range.
fn dequantize(value: f32, lo: f32, hi: f32, noise: &mut Noise) -> f32 {
    let level = (value - lo) / (hi - lo) * 255.0;
    lo + (level + noise.uniform()) / 256.0 * (hi - lo)
}

#[derive(Args, Debug)]
pub struct InterpolateArgs {
    /// The picture to start from, or a sample in npy
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The picture to end at
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// The file to write: .gif, or .png, .jpg with the pictures side by side, or .npy
    #[arg(value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// How many pictures, both ends included
    #[arg(long, default_value_t = 9, value_name = "N")]
    frames: usize,
}

pub fn interpolate(args: &InterpolateArgs) -> Result<()> {
    ensure!(args.frames >= 2, "--frames must be at least 2");
    let format = Format::from_path(&args.out)?;
    let (model, condition) = args.common.open()?;
    // the frames' numbers, and their colours in the result
    limits::memory("--frames", args.frames, model.sample_shape().iter().product::<usize>().saturating_mul(8))?;
    let settings = settings(&args.sampling, &model)?;
    let mut encoder = Encoder::new(&model, &settings)?;
    let mut latent = |path: &Path| -> Result<Vec<f32>> { Ok(encoder.encode(&read_sample(path, &model)?, &condition)?) };
    let [a, b] = [latent(&args.from)?, latent(&args.to)?];
    let mut generator = Generator::new(&model, &settings)?;
    let mut frame = |i: usize| -> Result<Vec<f32>> {
        let z = slerp(&a, &b, i as f32 / (args.frames - 1) as f32);
        Ok(generator.run(&Request::new(0, 0).without_class().conditions(&condition).from_noise(&z))?.sample.to_vec())
    };
    let samples = (0..args.frames).map(&mut frame).collect::<Result<Vec<_>>>()?;
    let rows: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
    let bytes = match format {
        Format::Npy => output::encode_npy(&rows, model.sample_shape())?,
        Format::Csv => output::encode_csv(&rows),
        Format::Gif => {
            let picture = picture(&model)?;
            let frames: Vec<_> = rows.iter().map(|row| picture.grid(&[row], 1)).collect();
            output::encode_animation(&frames, 150)?
        }
        _ => output::encode_picture(&picture(&model)?.grid(&rows, rows.len()), format)?,
    };
    Ok(output::write_file(&args.out, &bytes)?)
}
