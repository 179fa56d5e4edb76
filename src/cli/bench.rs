//! `edgegen bench`: what a model costs on this machine.

use super::args::{ModelArgs, Report, SamplingArgs};
use super::stdout::print;
use super::{limits, measure};
use anyhow::{Context, Result, ensure};
use clap::Args;
use edgegen::noise::{self, Noise};
use edgegen::{Condition, Generator, Model, Network, Request};
use serde::Serialize;
use std::path::PathBuf;
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
}

pub fn run(args: &BenchArgs) -> Result<()> {
    ensure!((1..=MOST_RUNS).contains(&args.runs), "--runs must be from 1 to {MOST_RUNS}, not {}", args.runs);
    limits::threads(args.threads)?;
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
    lines.join("\n") + "\n"
}

fn measure(args: &BenchArgs) -> Result<Figures> {
    let start = Instant::now();
    let model = args.model_args.open(args.model.as_deref())?;
    let load_ms = milliseconds(start);
    let condition = condition(&model);
    let (image_ms, nfe, allocations_per_image) = time_samples(args, &model, &condition)?;
    let (first_image_ms, peak_rss_bytes) = time_fresh_process(args)?;
    Ok(Figures {
        network_ms: time_network(args, &model, &condition)?,
        image_ms,
        first_image_ms,
        load_ms,
        nfe,
        peak_rss_bytes,
        allocations_per_image,
    })
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Any class, and zeros for every other condition: what a call costs does not depend on them.
fn condition(model: &Model) -> Condition {
    let class = model.takes_class().then(|| noise::choice(0, 0, model.num_classes().unwrap_or(1)));
    let others = model.inputs().iter().filter(|i| i.role == edgegen::model::Role::Condition);
    let blank = class.map_or_else(Condition::default, Condition::class);
    others.fold(blank, |condition, input| condition.with(&input.name, vec![0.0; input.len()]))
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
    let mut settings = args.sampling.settings(model)?;
    settings.threads = args.threads;
    let mut generator = Generator::new(model, &settings)?;
    let mut generate =
        |index: u64| -> Result<usize> { Ok(generator.run(&Request::new(0, index).conditions(condition))?.outcome.nfe) };
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

/// The median wall time of three fresh processes that generate one sample each, and the greatest peak memory.
fn time_fresh_process(args: &BenchArgs) -> Result<(f64, Option<u64>)> {
    let program = std::env::current_exe().context("cannot find this program to start it afresh")?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let out = folder.path().join("sample.npy");
    let (mut times, mut peak) = (Vec::new(), None);
    for _ in 0..3 {
        let mut command = Command::new(&program);
        command.args(forwarded(args)?).args(["--threads", &args.threads.to_string()]);
        command.args(["--quiet", "--report", "json"]).arg(&out);
        let start = Instant::now();
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start this program afresh")?;
        times.push(milliseconds(start));
        ensure!(output.status.success(), "the program failed when started afresh");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        peak = peak.max(report["peak_rss_bytes"].as_u64());
    }
    Ok((measure::median(&mut times), peak))
}

/// This command's options, for a fresh process that generates.
fn forwarded(args: &BenchArgs) -> Result<Vec<std::ffi::OsString>> {
    let mut own: Vec<std::ffi::OsString> = Vec::new();
    if let Some(model) = &args.model {
        own.extend(["--model".into(), model.into()]);
    }
    let mut add = |name: &str, value: Option<String>| own.extend(value.map(|v| format!("--{name}={v}").into()));
    let (m, s) = (&args.model_args, &args.sampling);
    add("scheduler-config", m.scheduler_config.as_ref().map(|p| p.display().to_string()));
    add("shape", m.shape.as_ref().map(|s| s.iter().map(usize::to_string).collect::<Vec<_>>().join(",")));
    m.inputs.iter().for_each(|(role, name)| add("input", Some(format!("{}={name}", role.name()))));
    add("time-as", m.time_as.map(|time| time.name().to_string()));
    add("steps", s.steps.map(|n| n.to_string()));
    add("sampler", s.sampler.clone());
    add(
        "spacing",
        s.spacing.map(|s| serde_json::to_value(s).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default()),
    );
    add("eta", s.eta.map(|e| e.to_string()));
    add("churn", s.churn.map(|c| c.to_string()));
    add("order", s.order.map(|o| o.to_string()));
    add("rtol", s.rtol.map(|t| t.to_string()));
    add("atol", s.atol.map(|t| t.to_string()));
    add("guidance", s.guidance.map(|g| g.to_string()));
    add("clip", s.clip.map(|c| c.to_string()));
    add("max-memory", m.max_memory.map(|bytes| bytes.to_string()));
    if m.exact_quantization {
        own.push("--exact-quantization".into());
    }
    let model = m.open(args.model.as_deref())?;
    for (name, values) in condition(&model).named {
        let values: Vec<String> = values.iter().map(f32::to_string).collect();
        own.push(format!("--cond={name}={}", values.join(",")).into());
    }
    Ok(own)
}
