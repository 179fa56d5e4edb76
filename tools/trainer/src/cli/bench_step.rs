//! `edgegen-trainer bench-step`: how long a training step takes, for comparisons.

use crate::data::Dataset;
use crate::network::{Given, NetworkConfig, UnetConfig};
use crate::noise_path::TimeSampling;
use crate::process;
use crate::train::{TrainConfig, Trainer, Weighting};
use anyhow::Result;
use candle_core::Device;
use clap::Args;
use edgegen::config::{BetaSchedule, PredictionType, SchedulerConfig};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Time training steps of the default network on made-up 28×28 data, and print them as JSON.
#[derive(Args, Debug)]
pub struct BenchStepArgs {
    /// Samples a step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Steps that are timed, after one that is not
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Threads [default: every core]
    #[arg(long)]
    threads: Option<usize>,
    /// After the timed steps, write the model (model.safetensors) and one more batch (batch.safetensors) to this
    /// folder, and print that batch's loss and gradient norm
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When a step fails or the checkpoint cannot be written.
pub fn run(args: &BenchStepArgs) -> Result<()> {
    process::configure(args.threads);
    let data = made_up(4 * args.batch.max(1));
    let mut trainer = trainer(args.batch, &data)?;
    trainer.step(&data)?;
    let mut seconds = Vec::with_capacity(args.steps);
    for _ in 0..args.steps {
        let start = Instant::now();
        trainer.step(&data)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    if let Some(folder) = &args.save {
        save(&mut trainer, &data, folder)?;
    }
    let last = trainer.step(&data)?;
    let report = serde_json::json!({
        "batch": args.batch,
        "threads": rayon::current_num_threads(),
        "parameters": trainer.header().network.parameter_count(),
        "multiply_adds": trainer.header().network.multiply_adds(),
        "loss": last.loss,
        "gradient_norm": last.gradient_norm,
        "seconds": seconds,
    });
    println!("{report}");
    Ok(())
}

fn save(trainer: &mut Trainer, data: &Dataset, folder: &Path) -> Result<()> {
    trainer.checkpoint(0.0)?.save(&folder.join("model.safetensors"))?;
    let batch = trainer.batch(data, trainer.header().step)?;
    let Given::Labels(labels) = batch.given else { unreachable!("pictures have labels") };
    let tensors = [("x", batch.x), ("t", batch.t), ("labels", labels), ("target", batch.target)];
    Ok(candle_core::safetensors::save(&HashMap::from(tensors), folder.join("batch.safetensors"))?)
}

fn made_up(len: usize) -> Dataset {
    let shape = [1, 28, 28];
    let pixels = (0..len * 784).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    let class_names = (0..10).map(|c: usize| c.to_string()).collect();
    Dataset { pixels, shape, labels: (0..len).map(|i| i % 10).collect(), class_names }
}

fn trainer(batch: usize, data: &Dataset) -> Result<Trainer> {
    let unet = UnetConfig {
        shape: data.shape,
        classes: 10,
        patch: 2,
        base: 48,
        multipliers: vec![1, 2],
        blocks: 1,
        middle_blocks: 1,
        attention: true,
        groups: 8,
    };
    let scheduler = SchedulerConfig {
        beta_schedule: BetaSchedule::SquaredCosine,
        prediction_type: PredictionType::V,
        ..SchedulerConfig::default()
    };
    let train = TrainConfig {
        steps: 1000,
        batch,
        rate: 1e-3,
        warm_up: 1,
        weight_decay: 0.0,
        clip: 1.0,
        ema: 0.999,
        label_dropout: 0.1,
        flip: false,
        weighting: Weighting::Simple,
        time_sampling: TimeSampling::Uniform,
        seed: 1,
        guidance: 1.0,
    };
    train.check()?;
    Trainer::new(NetworkConfig::Unet(unet), scheduler, train, data.class_names.clone(), Device::Cpu)
}
