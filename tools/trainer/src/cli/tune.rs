//! `edgegen-trainer tune`.

use crate::checkpoint::write_atomically;
use crate::process;
use crate::tune::{Tuner, with_tuned_steps};
use anyhow::{Context, Result};
use clap::Args;
use edgegen::Settings;
use edgegen::config::Spacing;
use edgegen::network::{Model, ModelOptions};
use edgegen::solver::Solver;
use std::path::PathBuf;

/// Find the noise levels that few-step runs should visit, and write them into the model.
///
/// The steps are moved until samples come as near as they can to those of many steps. The files are rewritten,
/// recommending the sampler and the tuned steps.
#[derive(Args, Debug)]
pub struct TuneArgs {
    /// The exported models: the first is tuned, and all are given its steps
    #[arg(required = true, value_name = "MODEL.onnx")]
    models: Vec<PathBuf>,
    /// The numbers of steps to tune for
    #[arg(long, value_delimiter = ',', default_value = "2,3,4,5,6,8,10", value_name = "N,…")]
    steps: Vec<usize>,
    /// The sampler [default: the model's choice]
    #[arg(long, value_name = "NAME")]
    sampler: Option<String>,
    /// The samples to compare on
    #[arg(long, default_value_t = 40, value_name = "N")]
    samples: usize,
    /// The steps of the runs that they are compared with
    #[arg(long, default_value_t = 60, value_name = "N")]
    reference_steps: usize,
    /// Where the noise comes from: another seed than the one that the model is judged by
    #[arg(long, default_value_t = 1_000_000)]
    seed: u64,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or written, or the sampler cannot be tuned.
pub fn run(args: &TuneArgs) -> Result<()> {
    process::configure(None);
    let model = Model::open(&args.models[0], &ModelOptions::default())?;
    let own = model.metadata().sampler.clone().unwrap_or("dpm++2m".into());
    let sampler = args.sampler.clone().unwrap_or(own);
    let mut settings = Settings::with_solver(&model, Solver::from_name(&sampler)?);
    if settings.spacing == Some(Spacing::Tuned) {
        settings.spacing = Some(Spacing::Trailing);
    }
    let tuner = Tuner::new(&model, &settings, args.samples, args.reference_steps, args.seed)?;
    let mut tuned = Vec::new();
    for &steps in &args.steps {
        let found = tuner.tune(steps)?;
        eprintln!("{steps} steps: rms error {:.4}, before {:.4}, at {:.1?}", found.error, found.before, found.times);
        tuned.push(found);
    }
    for path in &args.models {
        let read = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        write_atomically(path, &with_tuned_steps(&read, &sampler, &tuned)?)?;
    }
    Ok(())
}
