//! `edgegen-trainer tune`.

use crate::checkpoint::write_atomically;
use crate::fit::Fitter;
use crate::process;
use crate::tune::{Tuner, with_steps};
use anyhow::{Context, Result};
use clap::Args;
use edgegen::config::Spacing;
use edgegen::solver::Solver;
use edgegen::{Model, Settings};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Find the noise levels that few-step runs should visit, and the best weights of each step, and write them into the
/// model.
///
/// The steps are moved until samples come as near as they can to those of many steps; then, for the sampler `fitted`,
/// the weights of their linear combinations with them. The files are rewritten, recommending the sampler and the tuned
/// steps. What they know of other numbers of steps stays.
#[derive(Args, Debug)]
pub struct TuneArgs {
    /// The exported models: the first is tuned, and all are given its steps
    #[arg(required = true, value_name = "MODEL.onnx")]
    models: Vec<PathBuf>,
    /// The numbers of steps to tune for
    #[arg(long, value_delimiter = ',', default_value = "2,3,4,5,6,8,10", value_name = "N,…")]
    steps: Vec<usize>,
    /// The sampler: `fitted`, or one whose times alone are tuned
    #[arg(long, default_value = "fitted", value_name = "NAME")]
    sampler: String,
    /// Keep the times that the model has been tuned to, and fit from there
    #[arg(long)]
    keep_times: bool,
    /// The samples to compare on
    #[arg(long, default_value_t = 100, value_name = "N")]
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
    let model = Model::open(&args.models[0])?;
    let solver = Solver::from_name(&args.sampler)?;
    // the times are searched for the sampler that numbers of steps without a fit fall back to
    let searched = if solver == Solver::Fitted { Solver::from_name("unipc-2")? } else { solver };
    let mut settings = Settings::with_solver(&model, searched);
    if settings.spacing == Some(Spacing::Tuned) {
        settings.spacing = Some(Spacing::Trailing);
    }
    let tuner = Tuner::new(&model, &settings, args.samples, args.reference_steps, args.seed)?;
    let mut tuned = BTreeMap::new();
    for &steps in &args.steps {
        if let Some(times) = model.scheduler_config().tuned_timesteps.get(&steps).filter(|_| args.keep_times) {
            tuned.insert(steps, times.clone());
            continue;
        }
        let found = tuner.tune(steps)?;
        eprintln!("{steps} steps: rms error {:.4}, before {:.4}, at {:.1?}", found.error, found.before, found.times);
        tuned.insert(steps, found.times);
    }
    let mut fitted = BTreeMap::new();
    if solver == Solver::Fitted {
        let held_out = Tuner::new(&model, &settings, args.samples, args.reference_steps, args.seed + 1)?;
        let (fitter, held_out) = (Fitter::new(&tuner)?, Fitter::new(&held_out)?);
        for (&steps, times) in &tuned {
            let run = fitter.fit(&[times.clone(), tuner.start(steps)?])?;
            let (error, before) = (fitter.error(&run)?, fitter.error(&fitter.start(times))?);
            let other = held_out.error(&run)?;
            eprintln!("{steps} steps fitted: rms error {error:.4}, on other noise {other:.4}, before {before:.4}");
            fitted.insert(steps, run);
        }
    }
    for path in &args.models {
        let read = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        write_atomically(path, &with_steps(&read, &args.sampler, &tuned, &fitted)?)?;
    }
    Ok(())
}
