//! `edgegen-trainer eval`.

use crate::classifier::Classifier;
use crate::data::{Dataset, Split};
use crate::eval::{Judge, Scores, generate, labels};
use crate::process;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use edgegen::schedule::Schedule;
use edgegen::solver::{Prediction, Solver};
use edgegen::{Model, ModelOptions, Precision, Settings};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Judge exported models by their samples: how many are recognised as the class that was asked for, and the
/// Fréchet distance of their features to real pictures'.
///
/// Samples are what `edgegen` makes with the model's own settings, rounded to 8 bits as in a picture. The first
/// row is for real held-out pictures, as many: nothing can be expected to do better.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// The exported models
    #[arg(required = true, value_name = "MODEL.onnx")]
    models: Vec<PathBuf>,
    /// The classifier that `train-classifier` wrote
    #[arg(long, value_name = "FILE")]
    classifier: PathBuf,
    /// The folder of the data, as for `train`
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Samples for each row, as many of each class
    #[arg(long, default_value_t = 1000, value_name = "N")]
    count: usize,
    /// Solver steps, a row each [default: the model's choice]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    steps: Vec<usize>,
    /// Instead of steps: network calls, a row each, with as many steps as they allow
    #[arg(long, value_delimiter = ',', value_name = "N,…", conflicts_with = "steps")]
    calls: Vec<usize>,
    /// Samplers, a row each [default: the model's choice]
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    sampler: Vec<String>,
    /// The step spacing [default: the model's choice]
    #[arg(long, value_name = "NAME")]
    spacing: Option<String>,
    /// The guidance weight [default: the model's choice]
    #[arg(long, value_name = "W")]
    guidance: Option<f32>,
    /// Run int8 models with their activations rounded exactly as the file says
    #[arg(long)]
    exact_quantization: bool,
    /// What the network computes in
    #[arg(long, value_name = "f32|f16|auto", default_value = "f32", value_parser = Precision::from_name)]
    precision: Precision,
    /// Where the noise comes from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The side that pictures of a folder are scaled to [default: the classifier's]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    report: Report,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Report {
    /// A table for people.
    Text,
    /// One JSON object a row.
    Json,
}

/// What a row is about, and its scores.
#[derive(Serialize)]
struct Row {
    what: String,
    sampler: String,
    spacing: String,
    steps: usize,
    calls: usize,
    count: usize,
    #[serde(flatten)]
    scores: Scores,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or models, classifier and data do not fit together.
pub fn run(args: &EvalArgs) -> Result<()> {
    process::configure(None);
    let classifier = Classifier::load(&args.classifier)?;
    let classes = classifier.header.class_names.len();
    ensure!(args.count >= classes.max(2), "--count must be at least {}: one of each class", classes.max(2));
    let models = args
        .models
        .iter()
        .map(|path| {
            let model =
                ModelOptions::new().exact_quantization(args.exact_quantization).precision(args.precision).open(path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, settings(args, &model)?, model))
        })
        .collect::<Result<Vec<_>>>()?;
    let size = Some(args.size.unwrap_or(classifier.header.shape[1]));
    let test = Dataset::open(&args.data, Split::Test, size, None)?;
    let judge = Judge::new(classifier, &Dataset::open(&args.data, Split::Train, size, None)?)?;
    for (name, _, model) in &models {
        judge.check(model).with_context(|| name.clone())?;
    }
    if args.report == Report::Text {
        println!(
            "| | sampler | steps | calls | samples | recognised | Fréchet distance |\n|---|---|---|---|---|---|---|"
        );
    }
    let real = args.count.min(test.len());
    let scores = judge.scores(&test.pixels[..real * test.sample_len()], &test.labels[..real])?;
    let what = "real pictures".into();
    let (sampler, spacing) = (String::new(), String::new());
    print(args, &Row { what, sampler, spacing, steps: 0, calls: 0, count: real, scores })?;
    let labels = labels(args.count, classes);
    for (name, all, model) in &models {
        for (sampler, settings) in all {
            let bar = progress_bar(labels.len());
            let calls = calls(model, settings)?;
            let pixels = generate(model, settings, &labels, args.seed, || bar.inc(1))?;
            bar.finish_and_clear();
            let scores = judge.scores(&pixels, &labels)?;
            let (what, sampler, steps) = (name.clone(), sampler.clone(), settings.steps);
            let spacing = settings.spacing.and_then(|s| serde_json::to_value(s).ok());
            let spacing = spacing.and_then(|s| s.as_str().map(String::from)).unwrap_or_default();
            print(args, &Row { what, sampler, spacing, steps, calls, count: labels.len(), scores })?;
        }
    }
    Ok(())
}

/// The settings of each row, with the sampler's name.
fn settings(args: &EvalArgs, model: &Model) -> Result<Vec<(String, Settings)>> {
    let mut own = Settings::of(model)?;
    if let Some(spacing) = &args.spacing {
        own.spacing = serde_json::from_value(serde_json::Value::String(spacing.clone()))
            .with_context(|| format!("unknown step spacing '{spacing}'"))?;
    }
    own.guidance = args.guidance.unwrap_or(own.guidance);
    let mut samplers = vec![(model.metadata().sampler.clone().unwrap_or("dpm++2m".into()), own.solver)];
    if !args.sampler.is_empty() {
        samplers = args.sampler.iter().map(|n| Ok((n.clone(), Solver::from_name(n)?))).collect::<Result<_>>()?;
    }
    let mut rows = Vec::new();
    for (name, solver) in &samplers {
        let with = |steps: usize| {
            let mut settings = own.clone();
            (settings.solver, settings.steps) = (*solver, steps);
            settings
        };
        let mut steps = if args.steps.is_empty() { vec![own.steps] } else { args.steps.clone() };
        if !args.calls.is_empty() {
            steps.clear();
            for &most in &args.calls {
                let allowed = |n: &usize| calls(model, &with(*n)).is_ok_and(|calls| calls <= most);
                steps.extend((1..=most).rev().find(allowed));
            }
            steps.dedup();
        }
        rows.extend(steps.into_iter().map(|n| (name.clone(), with(n))));
    }
    Ok(rows)
}

/// The network calls of a sample with these settings; 0 if they depend on the sample.
fn calls(model: &Model, settings: &Settings) -> Result<usize> {
    if matches!(settings.solver, Solver::Adaptive(_)) {
        return Ok(0);
    }
    let config = model.scheduler_config();
    let schedule = Schedule::from_config(config)?;
    let prediction = Prediction { kind: config.prediction(), threshold: settings.threshold };
    let program = settings.solver.compile(&settings.grid(config, &schedule)?, &schedule, prediction)?;
    Ok(program.nfe() * if settings.guidance == 1.0 { 1 } else { 2 })
}

fn print(args: &EvalArgs, row: &Row) -> Result<()> {
    match args.report {
        Report::Json => println!("{}", serde_json::to_string(row)?),
        Report::Text => println!(
            "| {} | {} | {} | {} | {} | {:.1} % | {:.3} |",
            row.what,
            row.sampler,
            if row.steps == 0 { String::new() } else { row.steps.to_string() },
            if row.calls == 0 { String::new() } else { row.calls.to_string() },
            row.count,
            100.0 * row.scores.accuracy,
            row.scores.frechet
        ),
    }
    Ok(())
}

fn progress_bar(length: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} samples, {eta} left");
    ProgressBar::new(length as u64).with_style(style.expect("the template is well formed"))
}
