//! `edgegen bench`: what a model costs on this machine.

use super::args::{ModelArgs, Report, SamplingArgs};
use super::conditions::{ConditionArgs, Given};
use super::stdout::print;
use super::{limits, measure};
use anyhow::{Context, Result, ensure};
use clap::Args;
use edgegen::model::{MadeUp, Role};
use edgegen::noise::Noise;
use edgegen::{Condition, Generator, Model, Network, Request, output};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

#[derive(Args)]
pub struct BenchArgs {
    /// The ONNX network [default: the one built in]
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Pictures to time
    #[arg(long, default_value_t = 20, value_name = "N")]
    runs: usize,
    /// Threads that share a network call
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
    /// How to print it
    #[arg(long, value_enum, default_value = "text", value_name = "text|json")]
    report: Report,
    /// Make one sample and write it to this file, and print the most memory that it took
    #[arg(long, hide = true, value_name = "FILE")]
    once: Option<PathBuf>,
}

/// What a model costs. Times are medians.
#[derive(Serialize)]
struct Figures {
    /// One network call.
    network_ms: f64,
    /// One sample.
    image_ms: f64,
    /// One sample by a fresh process, from its start to its end, the file written.
    first_image_ms: f64,
    /// Reading and preparing the model.
    load_ms: f64,
    /// Network calls a sample.
    nfe: usize,
    /// The most memory that the fresh process had in RAM.
    peak_rss_bytes: Option<u64>,
    /// Allocations a sample, once warm.
    allocations_per_image: u64,
    /// What was made up because it is not given.
    made_up: Vec<String>,
}

pub fn run(args: &BenchArgs) -> Result<()> {
    ensure!((1..=MOST_RUNS).contains(&args.runs), "--runs must be from 1 to {MOST_RUNS}, not {}", args.runs);
    limits::threads(args.threads)?;
    if let Some(file) = &args.once {
        return once(args, file);
    }
    let figures = measure(args)?;
    print(&match args.report {
        Report::Json => serde_json::to_string(&figures)? + "\n",
        Report::Text => text(&figures),
    })
}

/// Each run's time is remembered.
const MOST_RUNS: usize = 1_000_000;

fn text(f: &Figures) -> String {
    let peak = match f.peak_rss_bytes {
        Some(bytes) => format!("{:>9.1} MB", bytes as f64 / 1e6),
        None => "  unknown".into(),
    };
    let lines = [
        format!("network call       {:>9.3} ms", f.network_ms),
        format!("sample             {:>9.3} ms   ({} network calls)", f.image_ms, f.nfe),
        format!("first sample       {:>9.3} ms   (a fresh process, from start to end)", f.first_image_ms),
        format!("loading            {:>9.3} ms", f.load_ms),
        format!("peak memory        {peak}"),
        format!("allocations        {:>9}      a sample, once warm", f.allocations_per_image),
    ];
    let made_up = (!f.made_up.is_empty()).then(|| format!("made up            {}", f.made_up.join(", ")));
    lines.into_iter().chain(made_up).map(|line| line + "\n").collect()
}

fn measure(args: &BenchArgs) -> Result<Figures> {
    let start = Instant::now();
    let given = args.conditions.read()?;
    let model = args.model_args.open_made_up(args.model.as_deref(), &given)?;
    let load_ms = milliseconds(start);
    let condition = condition(&model, &given)?;
    let (image_ms, nfe, allocations_per_image) = time_samples(args, &model, &condition)?;
    let (first_image_ms, peak_rss_bytes) = time_fresh_process()?;
    let mut made_up: Vec<String> = model.made_up().iter().map(MadeUp::to_string).collect();
    let given = |name: &String| args.conditions.names().any(|given| given == name);
    made_up.extend(condition.named.keys().filter(|name| !given(name)).map(|name| format!("{name}: zeros")));
    Ok(Figures {
        network_ms: time_network(args, &model, &condition)?,
        image_ms,
        first_image_ms,
        load_ms,
        nfe,
        peak_rss_bytes,
        allocations_per_image,
        made_up,
    })
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// What is given, and otherwise any class, and zeros for every other condition: what a call costs does not depend on them.
fn condition(model: &Model, given: &Given) -> Result<Condition> {
    let class = model.drawn_class(0, 0).or(model.takes_class().then_some(0));
    let others = model.inputs().iter().filter(|i| i.role == Role::Condition);
    let mut condition = given.condition(model, class)?;
    others.for_each(|input| _ = condition.named.entry(input.name.clone()).or_insert_with(|| vec![0.0; input.len()]));
    Ok(condition)
}

fn generator(args: &BenchArgs, model: &Model) -> Result<Generator> {
    let mut settings = args.sampling.settings(model)?;
    settings.threads = args.threads;
    Ok(Generator::new(model, &settings)?)
}

fn time_network(args: &BenchArgs, model: &Model, condition: &Condition) -> Result<f64> {
    let mut network = model.network_with_threads(args.threads)?;
    let mut x = vec![0.0; network.sample_len()];
    Noise::new(0, 0).fill(&mut x);
    let mut out = x.clone();
    network.bind(0, condition)?;
    let mut times = Vec::with_capacity(args.runs * 5);
    for _ in 0..args.runs * 5 {
        let start = Instant::now();
        network.predict(&x, 500.0, 0, &mut out)?;
        times.push(milliseconds(start));
    }
    Ok(measure::median(&mut times))
}

fn time_samples(args: &BenchArgs, model: &Model, condition: &Condition) -> Result<(f64, usize, u64)> {
    let mut generator = generator(args, model)?;
    let seen = [condition.clone(), another(model, condition)];
    let mut generate = |index: u64| -> Result<usize> {
        Ok(generator.run(&Request::new(0, index).conditions(&seen[index as usize % 2]))?.outcome.nfe)
    };
    let nfe = generate(0)?;
    let mut times = Vec::with_capacity(args.runs);
    let before = measure::allocations();
    for index in 0..args.runs {
        let start = Instant::now();
        generate(index as u64)?;
        times.push(milliseconds(start));
    }
    let allocations = (measure::allocations() - before) / args.runs as u64;
    Ok((measure::median(&mut times), nfe, allocations))
}

/// This condition with every value that is no whole number a little higher. What depends on conditions alone is remembered
/// while they stay, so a run under the same ones would leave out what a robot's next observation costs.
fn another(model: &Model, condition: &Condition) -> Condition {
    let mut another = condition.clone();
    for input in model.inputs().iter().filter(|i| !i.is_whole()) {
        if let Some(values) = another.named.get_mut(&input.name) {
            values.iter_mut().for_each(|v| *v = v.next_up());
        }
    }
    another
}

/// The median wall time of three fresh processes that generate one sample each and write it, and the greatest peak memory.
fn time_fresh_process() -> Result<(f64, Option<u64>)> {
    let program = std::env::current_exe().context("cannot find this program to start it afresh")?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (mut times, mut peak) = (Vec::new(), None);
    for _ in 0..3 {
        let mut command = Command::new(&program);
        // as this one was started, so that no option is lost on the way
        command.args(["bench", "--once"]).arg(folder.path().join("sample.npy")).args(std::env::args_os().skip(2));
        let start = Instant::now();
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start this program afresh")?;
        times.push(milliseconds(start));
        ensure!(output.status.success(), "the program failed when started afresh");
        let bytes = String::from_utf8_lossy(&output.stdout);
        peak = peak.max(bytes.trim().parse().ok());
    }
    Ok((measure::median(&mut times), peak))
}

/// What a fresh process is started for: one sample, written to a file, and the most memory that it took.
fn once(args: &BenchArgs, file: &Path) -> Result<()> {
    let given = args.conditions.read()?;
    let model = args.model_args.open_made_up(args.model.as_deref(), &given)?;
    let condition = condition(&model, &given)?;
    let mut generator = generator(args, &model)?;
    let run = generator.run(&Request::new(0, 0).conditions(&condition))?;
    output::write_file(file, &output::encode_npy(&[run.sample], model.sample_shape())?)?;
    print(&measure::peak_rss_bytes().map_or(String::new(), |bytes| bytes.to_string()))
}
