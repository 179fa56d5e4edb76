//! `edgegen-trainer train`.

use super::data::{Data, SequenceArgs};
use super::run::{self, CHECKPOINT, RunArgs, open_checkpoint};
use crate::checkpoint::Checkpoint;
use crate::network::{NetworkConfig, SequenceConfig, UnetConfig};
use crate::noise_path::{NoisePath, TimeSampling, flow_config};
use crate::process;
use crate::train::{TrainConfig, Trainer, Weighting, device};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use edgegen::config::{BetaSchedule, PredictionType, SchedulerConfig};
use std::path::PathBuf;

/// Train a network on your own pictures or sequences.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// The folder of the data: IDX files (train-images-idx3-ubyte[.gz] …), CIFAR-10's data_batch_*.bin, one folder of pictures a class, or for sequences actions.npy and obs.npy
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// The folder for the checkpoint, the loss curve and the sample grids
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Go on from the checkpoint in --out; the network's options are then the checkpoint's
    #[arg(long)]
    resume: bool,
    /// Learn to say in one call what this trained network (a checkpoint, or its folder) says under --guidance in
    /// two. Its sizes and schedule are taken over, and its weights to begin with
    #[arg(long, value_name = "FILE", requires = "guidance")]
    teacher: Option<PathBuf>,
    /// The guidance weight to learn from the --teacher
    #[arg(long, value_name = "W", requires = "teacher")]
    guidance: Option<f64>,
    /// Training steps in all; on resuming, a new end for the learning rate's course [default: 20000]
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Samples a step [default: 64; 256 of sequences]
    #[arg(long)]
    batch: Option<usize>,
    /// The greatest learning rate
    #[arg(long, default_value_t = 1.5e-3)]
    rate: f64,
    /// Steps over which the learning rate rises
    #[arg(long, default_value_t = 300, value_name = "N")]
    warm_up: u64,
    /// AdamW's weight decay
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f64,
    /// The greatest norm of the gradient
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// The decay of the weights' moving average, which is what is sampled and exported
    #[arg(long, default_value_t = 0.999)]
    ema: f64,
    /// The share of samples whose label is dropped, so that the network can be guided
    #[arg(long, default_value_t = 0.1)]
    label_dropout: f64,
    /// Mirror samples at random
    #[arg(long)]
    flip: bool,
    /// How the loss of each noise level is weighted
    #[arg(long, value_enum, default_value = "simple")]
    weighting: Weighting,
    /// How the noise is mixed with the data: by a schedule of beta (vp), or as a rectified flow [default: vp]
    #[arg(long, value_enum)]
    path: Option<NoisePath>,
    /// What the network predicts: the noise (epsilon) or v, or of a flow its velocity, noise less data [default: v, or
    /// flow with --path flow]
    #[arg(long, value_parser = ["epsilon", "v", "flow"])]
    prediction: Option<String>,
    /// Of a flow, how often each time is seen: uniform, or logit-normal, which sees the middle more often than the ends
    #[arg(long, value_enum, default_value = "uniform")]
    time_sampling: TimeSampling,
    /// Without a flow, how the noise grows: linear, scaled_linear, squaredcos_cap_v2 or sigmoid, as in diffusers
    /// [default: squaredcos_cap_v2]
    #[arg(long, value_parser = parse_schedule)]
    beta_schedule: Option<BetaSchedule>,
    /// The number of noise levels; a flow's network is told its time, from 0 to 1, times this [default: 1000; 100 for
    /// sequences]
    #[arg(long, value_name = "T")]
    train_timesteps: Option<usize>,
    /// Channels of the first level [default: 48; 32 for sequences]
    #[arg(long)]
    base: Option<usize>,
    /// Channels of each level in multiples of --base; each level halves the resolution
    #[arg(long, default_value = "1,2", value_delimiter = ',')]
    mult: Vec<usize>,
    /// Residual blocks a level, down and up
    #[arg(long, default_value_t = 1)]
    blocks: usize,
    /// Residual blocks in the middle, 1 or 2
    #[arg(long, default_value_t = 1)]
    middle: usize,
    /// Leave the attention at the lowest resolution out
    #[arg(long)]
    no_attention: bool,
    /// The side of the square patches that become channels: 2 makes the network four times as fast for its channels
    #[arg(long, default_value_t = 2)]
    patch: usize,
    /// Groups of the group norms
    #[arg(long, default_value_t = 8)]
    groups: usize,
    /// Sequences: the length of the convolutions
    #[arg(long, default_value_t = 5)]
    kernel: usize,
    /// Sequences: train for real-time chunking, by giving the first steps of each sequence, 0 to D of them, clean
    #[arg(long, value_name = "D")]
    prefix: Option<usize>,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// The side that pictures of a folder are scaled to [default: 32]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// The classes' names, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    class_names: Option<Vec<String>>,
    #[command(flatten)]
    run: RunArgs,
}

fn parse_schedule(name: &str) -> Result<BetaSchedule, String> {
    serde_json::from_value(serde_json::Value::String(name.into()))
        .map_err(|_| "give linear, scaled_linear, squaredcos_cap_v2 or sigmoid".into())
}

impl TrainArgs {
    fn network(&self, data: &Data) -> NetworkConfig {
        match data {
            Data::Pictures(data) => NetworkConfig::Unet(UnetConfig {
                shape: data.shape,
                classes: data.class_names.len(),
                patch: self.patch,
                base: self.base.unwrap_or(48),
                multipliers: self.mult.clone(),
                blocks: self.blocks,
                middle_blocks: self.middle,
                attention: !self.no_attention,
                groups: self.groups,
            }),
            Data::Sequences(data) => NetworkConfig::Sequence(SequenceConfig {
                shape: data.shape(),
                conditions: data.conditions(),
                base: self.base.unwrap_or(32),
                multipliers: self.mult.clone(),
                blocks: self.blocks,
                kernel: self.kernel,
                groups: self.groups,
                prefix: self.prefix.unwrap_or(0),
            }),
        }
    }

    fn scheduler(&self, data: &Data) -> Result<SchedulerConfig> {
        let (timesteps, within_one) = match data {
            Data::Pictures(_) => (1000, true),
            Data::Sequences(_) => (100, self.sequences.is_bounded()),
        };
        let timesteps = self.train_timesteps.unwrap_or(timesteps);
        let flow = self.path == Some(NoisePath::Flow);
        let velocity = self.prediction.as_ref().is_none_or(|asked| asked == "flow");
        ensure!(
            flow == velocity || (!flow && self.prediction.is_none()),
            "a network of a rectified flow predicts its velocity, and no other does: give --path flow and --prediction flow, or neither"
        );
        if flow {
            ensure!(self.beta_schedule.is_none(), "--beta-schedule is of --path vp: a rectified flow has none");
            return Ok(flow_config(timesteps));
        }
        let epsilon = self.prediction.as_deref() == Some("epsilon");
        Ok(SchedulerConfig {
            num_train_timesteps: timesteps,
            beta_schedule: self.beta_schedule.unwrap_or(BetaSchedule::SquaredCosine),
            prediction_type: if epsilon { PredictionType::Epsilon } else { PredictionType::V },
            clip_sample: within_one,
            ..SchedulerConfig::default()
        })
    }

    /// Checks that a path that was asked for is that of what is gone on from.
    fn check_path(&self, before: &SchedulerConfig) -> Result<()> {
        let path = NoisePath::of(before);
        ensure!(
            self.path.is_none_or(|asked| asked == path),
            "the checkpoint is of --path {}: give that, or leave --path out",
            if path == NoisePath::Flow { "flow" } else { "vp" }
        );
        Ok(())
    }

    fn train(&self, data: &Data) -> TrainConfig {
        let pictures = matches!(data, Data::Pictures(_));
        TrainConfig {
            steps: self.steps.unwrap_or(20_000),
            batch: self.batch.unwrap_or(if pictures { 64 } else { 256 }),
            rate: self.rate,
            warm_up: self.warm_up,
            weight_decay: self.weight_decay,
            clip: self.clip,
            ema: self.ema,
            label_dropout: if pictures { self.label_dropout } else { 0.0 },
            flip: self.flip,
            weighting: self.weighting,
            time_sampling: self.time_sampling,
            seed: self.run.seed,
            guidance: self.guidance.unwrap_or(1.0),
        }
    }

    fn trainer(&self, data: &Data) -> Result<Trainer> {
        let device = device(self.run.gpu)?;
        let path = self.out.join(CHECKPOINT);
        let teacher = self.teacher.as_deref().map(|path| open_checkpoint(path, &device)).transpose()?;
        if self.resume {
            let mut trainer = Trainer::from_checkpoint(Checkpoint::load(&path, &device)?, device)?;
            self.check_path(&trainer.header().scheduler)?;
            let denoises = trainer.header().distill.is_none();
            ensure!(denoises, "the checkpoint in --out is one of distill: go on with it by distill --resume");
            let prefix = trainer.header().network.prefix();
            ensure!(
                self.prefix.is_none_or(|asked| asked == prefix),
                "the checkpoint is of --prefix {prefix}: give that, or leave --prefix out"
            );
            let guidance = trainer.header().train.guidance;
            match &teacher {
                Some(teacher) if self.guidance == Some(guidance) => trainer.set_teacher(teacher)?,
                None if guidance == 1.0 => (),
                _ => bail!("the checkpoint learns guidance {guidance}: give its --teacher and --guidance {guidance}"),
            }
            let (classes, found) = (trainer.header().network.classes(), data.class_names().len());
            ensure!(classes == found, "the data has {found} classes, but the checkpoint was made for {classes}");
            if let Data::Sequences(data) = data {
                let before = trainer.header().normalization.as_ref();
                let same = before.map_or(Ok(false), |n| data.is_scaled_by(n))?;
                ensure!(same, "the data's ranges are not those that the checkpoint was trained with");
            }
            if let Some(steps) = self.steps {
                trainer.set_steps(steps)?;
            }
            return Ok(trainer);
        }
        ensure!(
            !path.exists(),
            "{} is there already: give --resume to go on from it, or another --out",
            path.display()
        );
        let train = self.train(data);
        train.check()?;
        if let Some(teacher) = &teacher {
            let denoises = teacher.header.distill.is_none();
            ensure!(denoises, "the teacher is distilled for few calls: give the network that it was distilled from");
            self.check_path(&teacher.header.scheduler)?;
            return Trainer::student(teacher, train, device);
        }
        let class_names = data.class_names().to_vec();
        let trainer = Trainer::new(self.network(data), self.scheduler(data)?, train, class_names, device)?;
        Ok(match data {
            Data::Pictures(_) => trainer,
            Data::Sequences(data) => trainer.with_normalization(data.normalization.clone()),
        })
    }
}

/// Runs the command.
///
/// # Errors
/// When the data, an option or the checkpoint does not fit, or a file cannot be written.
pub fn run(args: &TrainArgs) -> Result<()> {
    process::configure(args.run.threads);
    let data = Data::open(&args.data, args.size, args.class_names.as_deref(), &args.sequences)?;
    let pictures = matches!(data, Data::Pictures(_));
    ensure!(!args.flip || pictures, "--flip mirrors pictures; sequences are not mirrored");
    ensure!(
        args.prefix.is_none() || !pictures,
        "--prefix is of sequences, and pictures have no first steps: leave it out"
    );
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let mut trainer = args.trainer(&data)?;
    run::describe(&trainer, &data);
    let run = args.run.run(&args.out);
    run.train(&mut trainer, data.samples())
}
