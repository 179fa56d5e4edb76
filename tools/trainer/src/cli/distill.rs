//! `edgegen-trainer distill`.

use super::data::{Data, SequenceArgs};
use super::run::{self, CHECKPOINT, RunArgs, checkpoint_file};
use crate::checkpoint::Checkpoint;
use crate::distill::DistillConfig;
use crate::noise_path::TimeSampling;
use crate::process;
use crate::teacher::Teacher;
use crate::train::{TrainConfig, Trainer, Weighting, device};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::path::PathBuf;

/// Distil a trained network into one of its own size that is good in one, two or four network calls.
#[derive(Args, Debug)]
pub struct DistillArgs {
    /// The trained network: a run's folder, its checkpoint, or a float ONNX file that `export` wrote
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// The most network calls that the student is made for: 1, 2 or 4 [default: 2]
    #[arg(long, value_name = "N")]
    calls: Option<usize>,
    /// The folder of the data that the teacher was trained on
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// The folder for the student's checkpoint, the loss curve and the sample grids
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Go on from the checkpoint in --out, with the options that it was begun with
    #[arg(long)]
    resume: bool,
    /// The weight of the loss by which samples pass for data; 0 leaves it out [default: 0.05; 0.1 of sequences]
    #[arg(long, value_name = "W")]
    adversarial: Option<f64>,
    /// Steps in all; on resuming, a new end for the learning rate's course [default: 8000]
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Samples a step [default: 64; 256 of sequences]
    #[arg(long)]
    batch: Option<usize>,
    /// The greatest learning rate
    #[arg(long, default_value_t = 4e-4)]
    rate: f64,
    /// Steps over which the learning rate rises
    #[arg(long, default_value_t = 100, value_name = "N")]
    warm_up: u64,
    /// The greatest norm of the gradient
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// The decay of the weights' moving average, which is what is learnt from, sampled and exported
    #[arg(long, default_value_t = 0.998)]
    ema: f64,
    /// The share of samples whose label is dropped
    #[arg(long, default_value_t = 0.0)]
    label_dropout: f64,
    /// Mirror samples at random
    #[arg(long)]
    flip: bool,
    #[command(flatten)]
    sequences: SequenceArgs,
    #[command(flatten)]
    run: RunArgs,
}

impl DistillArgs {
    fn config(&self, pictures: bool) -> DistillConfig {
        let adversarial = self.adversarial.unwrap_or(if pictures { 0.05 } else { 0.1 });
        DistillConfig { calls: self.calls.unwrap_or(2), adversarial }
    }

    fn train(&self, pictures: bool) -> TrainConfig {
        TrainConfig {
            steps: self.steps.unwrap_or(8000),
            batch: self.batch.unwrap_or(if pictures { 64 } else { 256 }),
            rate: self.rate,
            warm_up: self.warm_up,
            weight_decay: 0.0,
            clip: self.clip,
            ema: self.ema,
            label_dropout: if pictures { self.label_dropout } else { 0.0 },
            flip: self.flip,
            weighting: Weighting::Simple,
            time_sampling: TimeSampling::Uniform,
            seed: self.run.seed,
            guidance: 1.0,
        }
    }

    /// A student, fresh or gone on with, and the data.
    fn student(&self) -> Result<(Trainer, Data)> {
        let device = device(self.run.gpu)?;
        let path = self.out.join(CHECKPOINT);
        if self.resume {
            let trainer = Trainer::from_checkpoint(Checkpoint::load(&path, &device)?, device)?;
            let mut trainer = self.resumable(trainer)?;
            if let Some(steps) = self.steps {
                trainer.set_steps(steps)?;
            }
            let data = self.data(&trainer)?;
            return Ok((trainer, data));
        }
        let Some(teacher) = &self.teacher else { bail!("there is nothing to learn from: give --teacher") };
        ensure!(
            !path.exists(),
            "{} is there already: give --resume to go on from it, or another --out",
            path.display()
        );
        let teacher = Teacher::open(&checkpoint_file(teacher), &device)?;
        let pictures = teacher.header.network.unet().is_ok();
        let (train, config) = (self.train(pictures), self.config(pictures));
        train.check()?;
        let trainer = Trainer::distilled(teacher, train, config, device)?;
        let data = self.data(&trainer)?;
        Ok((trainer, data))
    }

    /// Checks that what was asked for is what the checkpoint was begun with.
    fn resumable(&self, trainer: Trainer) -> Result<Trainer> {
        let Some(DistillConfig { calls, adversarial }) = trainer.header().distill else {
            bail!(
                "the checkpoint in --out is not one of distill: go on with it by train --resume, or give another --out"
            )
        };
        ensure!(
            self.calls.is_none_or(|asked| asked == calls),
            "the checkpoint is of --calls {calls}: give that, or leave --calls out"
        );
        ensure!(
            self.adversarial.is_none_or(|asked| asked == adversarial),
            "the checkpoint is of --adversarial {adversarial}: give that, or leave --adversarial out"
        );
        ensure!(self.teacher.is_none(), "the checkpoint holds its teacher: leave --teacher out with --resume");
        Ok(trainer)
    }

    /// The data, which must be of the student's kind.
    fn data(&self, trainer: &Trainer) -> Result<Data> {
        let header = trainer.header();
        let size = header.network.unet().ok().map(|unet| unet.shape[1]);
        let data = Data::open(&self.data, size, None, &self.sequences)?;
        let (found, shape) = (data.samples().sample_shape(), header.network.shape());
        ensure!(found == shape, "the data's samples have shape {found:?}, but the teacher makes {shape:?}");
        match &data {
            Data::Pictures(data) => {
                let (found, classes) = (&data.class_names, &header.class_names);
                ensure!(
                    found.len() == classes.len(),
                    "the data has {} classes, but the teacher knows {}",
                    found.len(),
                    classes.len()
                );
                // files of numbered classes say nothing of their names
                let named = found.iter().any(|name| name.parse::<usize>().is_err());
                let other = found.iter().zip(classes).find(|(a, b)| named && a != b);
                if let Some((found, known)) = other {
                    bail!("the data has a class {found:?} where the teacher knows {known:?}");
                }
            }
            Data::Sequences(data) => {
                let (found, known) = (data.conditions(), header.network.conditions());
                ensure!(found == known, "the data's observations are {found} numbers, but the teacher takes {known}");
                let scaled = header.normalization.as_ref().map_or(Ok(false), |n| data.is_scaled_by(n))?;
                ensure!(scaled, "the data's ranges are not those that the teacher was trained with");
                ensure!(!self.flip, "--flip mirrors pictures; sequences are not mirrored");
            }
        }
        Ok(data)
    }
}

/// Runs the command.
///
/// # Errors
/// When the teacher, the data, an option or the checkpoint does not fit, or a file cannot be written.
pub fn run(args: &DistillArgs) -> Result<()> {
    process::configure(args.run.threads);
    if let Some(calls) = args.calls {
        DistillConfig { calls, adversarial: 0.0 }.check()?;
    }
    let (mut trainer, data) = args.student()?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    run::describe(&trainer, &data);
    let run = args.run.run(&args.out);
    run.train(&mut trainer, data.samples())
}
