//! `edgegen-trainer train-classifier`.

use crate::classifier::{Classifier, Options};
use crate::data::{Dataset, Split};
use crate::process;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

/// Train the small classifier that `eval` judges samples with.
#[derive(Args, Debug)]
pub struct TrainClassifierArgs {
    /// The folder of the data, as for `train`
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Times that every picture is seen
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Pictures a step
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// The greatest learning rate
    #[arg(long, default_value_t = 2e-3)]
    rate: f64,
    /// Mirror pictures at random
    #[arg(long)]
    flip: bool,
    /// The side that pictures of a folder are scaled to [default: 32]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// What all random numbers come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads [default: every core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// When the data or an option does not fit, or the file cannot be written.
pub fn run(args: &TrainClassifierArgs) -> Result<()> {
    process::configure(args.threads);
    let open = |split| Dataset::open(&args.data, split, args.size, None);
    let (train, test) = (open(Split::Train)?, open(Split::Test)?);
    let options = Options { epochs: args.epochs, batch: args.batch, rate: args.rate, flip: args.flip, seed: args.seed };
    let start = Instant::now();
    let epochs = args.epochs;
    let report = |epoch, loss| {
        eprintln!("epoch {epoch}/{epochs}: loss {loss:.4}, {:.0} s", start.elapsed().as_secs_f64());
    };
    let classifier = rayon::scope(|_| Classifier::train(&train, &test, &options, report))?;
    classifier.save(&args.out)?;
    eprintln!(
        "{}: recognises {:.2} % of {} held-out pictures",
        args.out.display(),
        100.0 * classifier.header.test_accuracy,
        test.len()
    );
    Ok(())
}
