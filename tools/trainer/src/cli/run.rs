//! A training run: the loop, its checkpoints, its loss curve and its sample grids.

use super::data::Data;
use crate::checkpoint::{Checkpoint, write_atomically};
use crate::data::Samples;
use crate::sample;
use crate::train::Trainer;
use anyhow::{Context, Result};
use candle_core::Device;
use clap::Args;
use edgegen::output::{Format, Picture, encode_picture, write_file};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The file name of the checkpoint in the output folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
const LOSS_CURVE: &str = "loss.csv";

/// What a run of any kind is given.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// What all random numbers come from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 500, value_name = "N")]
    save_every: u64,
    /// Steps between sample grids; 0 for none
    #[arg(long, default_value_t = 2000, value_name = "N")]
    sample_every: u64,
    /// Threads [default: every core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Train on the first NVIDIA GPU (needs a build with the cuda feature)
    #[arg(long)]
    pub gpu: bool,
}

impl RunArgs {
    /// A run that writes to the folder `out`.
    pub fn run<'a>(&self, out: &'a Path) -> Run<'a> {
        Run { out, save_every: self.save_every, sample_every: self.sample_every }
    }
}

/// The checkpoint at `path`, which may be the folder that holds it.
pub fn open_checkpoint(path: &Path, device: &Device) -> Result<Checkpoint> {
    Checkpoint::load(&checkpoint_file(path), device)
}

/// The file of the checkpoint at `path`, which may be the folder that holds it.
pub fn checkpoint_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(CHECKPOINT) } else { path.to_path_buf() }
}

/// Says what is trained on what.
pub fn describe(trainer: &Trainer, data: &Data) {
    let header = trainer.header();
    let of = match data {
        Data::Pictures(data) => format!("in {} classes", data.class_names.len()),
        Data::Sequences(data) => format!("under {} numbers", data.conditions()),
    };
    eprintln!(
        "{} samples of {:?} {of}; {} parameters, {:.2} M multiply-adds a call; {} threads",
        data.samples().count(),
        data.samples().sample_shape(),
        header.network.parameter_count(),
        header.network.multiply_adds() as f64 / 1e6,
        rayon::current_num_threads()
    );
}

/// Where a training leaves what it comes to, and how often.
pub struct Run<'a> {
    pub out: &'a Path,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Steps between sample grids; 0 for none.
    pub sample_every: u64,
}

impl Run<'_> {
    /// Trains to the last step, or until Ctrl-C.
    ///
    /// # Errors
    /// When a step fails, or a file cannot be written.
    pub fn train(&self, trainer: &mut Trainer, data: &dyn Samples) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        ctrlc::set_handler({
            let stop = stop.clone();
            move || stop.store(true, Ordering::Relaxed)
        })?;
        let checkpoint_path = self.out.join(CHECKPOINT);
        let steps = trainer.header().train.steps;
        let before = trainer.header().seconds;
        let start = Instant::now();
        let mut curve = LossCurve::open(&self.out.join(LOSS_CURVE), trainer.header().step)?;
        let progress = Progress::new(steps, trainer.header().step);
        while trainer.header().step < steps && !stop.load(Ordering::Relaxed) {
            let report = trainer.step(data)?;
            let step = trainer.header().step;
            let seconds = before + start.elapsed().as_secs_f64();
            progress.advance(step, report.loss);
            curve.add(step, seconds, report.loss, report.rate)?;
            if step.is_multiple_of(self.save_every.max(1)) {
                curve.flush()?;
                trainer.checkpoint(seconds)?.save(&checkpoint_path)?;
            }
            if self.sample_every > 0 && step.is_multiple_of(self.sample_every) {
                save_grid(trainer, &self.out.join(format!("samples-{step:06}.png")))?;
            }
        }
        curve.flush()?;
        let seconds = before + start.elapsed().as_secs_f64();
        trainer.checkpoint(seconds)?.save(&checkpoint_path)?;
        progress.finish();
        let step = trainer.header().step;
        if step == steps && self.sample_every > 0 {
            save_grid(trainer, &self.out.join("samples-final.png"))?;
        }
        let state = if step == steps { "done" } else { "stopped; --resume goes on" };
        eprintln!("{state}: {step} of {steps} steps, {seconds:.0} s in all, checkpoint {}", checkpoint_path.display());
        Ok(())
    }
}

/// A row of pictures for each class, from the moving average of the weights.
fn save_grid(trainer: &Trainer, path: &Path) -> Result<()> {
    const COLUMNS: usize = 8;
    let header = trainer.header();
    if header.network.unet().is_err() {
        return Ok(());
    }
    let labels: Vec<usize> = (0..header.network.classes() * COLUMNS).map(|i| i / COLUMNS).collect();
    let (steps, guidance) = header.distill.map_or((20, 1.5), |config| (config.calls, 1.0));
    let request = sample::Request { labels: &labels, steps, guidance, seed: 0 };
    let device = trainer.ema().values().next().context("a network without parameters")?.device().clone();
    let samples = sample::samples(header, trainer.ema(), &device, &request)?;
    let rows: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
    let Ok(picture) = Picture::new(header.network.shape(), (-1.0, 1.0)) else { return Ok(()) };
    Ok(write_file(path, &encode_picture(&picture.grid(&rows, COLUMNS), Format::Png)?)?)
}

/// `loss.csv`, a line for each [`EVERY`](LossCurve::EVERY) steps with their mean loss.
struct LossCurve {
    path: PathBuf,
    text: String,
    sum: f64,
    count: u64,
}

impl LossCurve {
    const EVERY: u64 = 50;

    /// The curve so far, cut back to what was known at `step`.
    fn open(path: &Path, step: u64) -> Result<Self> {
        let mut text = String::from("step,seconds,loss,rate\n");
        if step > 0
            && let Ok(old) = std::fs::read_to_string(path)
        {
            let known =
                |line: &&str| line.split(',').next().and_then(|s| s.parse::<u64>().ok()).is_some_and(|s| s <= step);
            old.lines().filter(known).for_each(|line| {
                text += line;
                text.push('\n');
            });
        }
        Ok(LossCurve { path: path.into(), text, sum: 0.0, count: 0 })
    }

    fn add(&mut self, step: u64, seconds: f64, loss: f64, rate: f64) -> Result<()> {
        self.sum += loss;
        self.count += 1;
        if step.is_multiple_of(Self::EVERY) {
            self.text += &format!("{step},{seconds:.1},{:.6},{rate:.3e}\n", self.sum / self.count as f64);
            (self.sum, self.count) = (0.0, 0);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        write_atomically(&self.path, self.text.as_bytes())
    }
}

/// A progress bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    start: Instant,
    first: u64,
    steps: u64,
    smoothed: std::cell::Cell<Option<f64>>,
}

impl Progress {
    fn new(steps: u64, first: u64) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(steps) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} steps, loss {msg}, {per_sec}, {eta} left");
        bar.set_style(style.expect("the template is well formed"));
        bar.set_position(first);
        bar.reset_eta();
        Progress { bar, start: Instant::now(), first, steps, smoothed: Default::default() }
    }

    fn advance(&self, step: u64, loss: f64) {
        let smoothed = self.smoothed.get().map_or(loss, |s| 0.98 * s + 0.02 * loss);
        self.smoothed.set(Some(smoothed));
        self.bar.set_message(format!("{smoothed:.4}"));
        self.bar.set_position(step);
        if self.bar.is_hidden() && step.is_multiple_of(100) {
            let pace = self.start.elapsed().as_secs_f64() / (step - self.first) as f64;
            let left = pace * (self.steps - step) as f64 / 60.0;
            // A closed pipe is no reason to lose the training.
            let _ = writeln!(
                std::io::stderr(),
                "step {step}/{}: loss {smoothed:.4}, {pace:.2} s a step, {left:.0} minutes left",
                self.steps
            );
        }
    }

    fn finish(&self) {
        self.bar.finish();
    }
}
