//! `edgegen inspect`: what a model is.

use super::args::{ModelArgs, Report};
use super::conditions::ConditionArgs;
use super::stdout::print;
use anyhow::Result;
use clap::Args;
use edgegen::Model;
use edgegen::model::{Input, MadeUp, Role, Stage, StepInfo};
use std::path::PathBuf;

#[derive(Args)]
pub struct InspectArgs {
    /// The ONNX network [default: the one built in]
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    conditions: ConditionArgs,
    /// Time every step of the network's plan
    #[arg(long)]
    profile: bool,
    /// How to print it
    #[arg(long, value_enum, default_value = "text", value_name = "text|json")]
    report: Report,
}

pub fn run(args: &InspectArgs) -> Result<()> {
    let model = args.model_args.open_made_up(args.model.as_deref(), &args.conditions.read()?)?;
    let steps = model.steps(if args.profile { PROFILE_RUNS } else { 0 });
    let text = match args.report {
        Report::Text => text(&model, &steps),
        Report::Json => json(&model, &steps).to_string() + "\n",
    };
    print(&text)
}

/// How often a step is run to time it.
const PROFILE_RUNS: usize = 100;

fn text(model: &Model, steps: &[StepInfo]) -> String {
    let mut lines = vec!["inputs".to_string()];
    for input in model.inputs() {
        lines.push(format!(
            "  {:<24} {:<10} {} {:?}",
            input.name,
            input.role.name(),
            input.element_type(),
            input.shape
        ));
    }
    let s = model.scheduler_config();
    lines.push(format!("sample      {:?}, {} weights", model.sample_shape(), model.parameters()));
    lines.push(format!(
        "schedule    {} steps, beta {}, predicts {}, spacing {}",
        s.num_train_timesteps,
        if s.trained_betas.is_some() { "as trained".into() } else { name(&s.beta_schedule) },
        name(&s.prediction_type),
        name(&s.timestep_spacing),
    ));
    let m = model.metadata();
    if !m.classes.is_empty() {
        lines.push(format!("classes     {}", m.classes.join(", ")));
    }
    if let Some(sampler) = &m.sampler {
        let (steps, guidance) = (m.steps.unwrap_or(10), m.guidance.unwrap_or(1.0));
        lines.push(format!("recommends  {sampler}, {steps} steps, guidance {guidance}"));
    }
    if let Some(rows) = m.prefix {
        lines.push(format!("prefix      the first rows of a sample, at most {rows}, may be given clean"));
    }
    let scaled = scaled(model);
    if !scaled.is_empty() {
        lines.push(format!("units       of the data, scaled for the network: {}", scaled.join(", ")));
    }
    if !model.made_up().is_empty() {
        lines.push(format!("made up     {}", made_up(model).join(", ")));
    }
    lines.push(format!("runs by     {}", model.engine()));
    if steps.is_empty() {
        lines.extend(model.operators().iter().map(|(name, count)| format!("  {count:>5} {name}")));
    }
    let total: f64 = steps.iter().filter_map(|s| s.ms).sum();
    let million = |count: u64| if count == 0 { String::new() } else { format!("{:.2}", count as f64 / 1e6) };
    if !steps.is_empty() {
        let timed = if total > 0.0 { "        ms      %" } else { "" };
        lines.push(format!("  {:<28} {:<38} {:>10}{timed}", "step", "", "10⁶ mul-add"));
    }
    let mut stage = None;
    for s in steps {
        if stage.replace(s.stage) != Some(s.stage) {
            lines.push(format!("  {}", how_often(s.stage)));
        }
        let ms = s.ms.map_or(String::new(), |ms| format!("{ms:>11.4}{:>7.1}", 100.0 * ms / total));
        lines.push(format!("    {:<26} {:<38} {:>10} {ms}", s.kernel, s.sizes, million(s.multiply_adds)));
    }
    if !steps.is_empty() {
        let ms = if total > 0.0 { format!("{total:>11.4}{:>7.1}", 100.0) } else { String::new() };
        let sum = million(steps.iter().map(|s| s.multiply_adds).sum());
        lines.push(format!("  {:<28} {:<38} {sum:>10} {ms}", "all", ""));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// How often the steps of a stage run.
fn how_often(stage: Stage) -> &'static str {
    match stage {
        Stage::Conditions => "once for each set of conditions",
        Stage::Time => "once for each time",
        Stage::Sample => "in every call",
    }
}

/// The inputs that are scaled between the data's units and the network's.
fn scaled(model: &Model) -> Vec<&str> {
    let normalizer = model.normalizer();
    let is_scaled = |input: &&Input| match input.role {
        Role::Sample => normalizer.sample.is_some(),
        _ => normalizer.conditions.contains_key(&input.name),
    };
    model.inputs().iter().filter(is_scaled).map(|i| i.name.as_str()).collect()
}

/// What was made up about it.
fn made_up(model: &Model) -> Vec<String> {
    model.made_up().iter().map(MadeUp::to_string).collect()
}

/// A configuration value as its file has it.
fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default()
}

fn json(model: &Model, steps: &[StepInfo]) -> serde_json::Value {
    let inputs = model.inputs().iter().map(
        |i| serde_json::json!({ "name": i.name, "role": i.role.name(), "type": i.element_type(), "shape": i.shape }),
    );
    serde_json::json!({
        "inputs": inputs.collect::<Vec<_>>(),
        "sample_shape": model.sample_shape(),
        "parameters": model.parameters(),
        "scheduler": model.scheduler_config(),
        "classes": model.metadata().classes,
        "prefix": model.metadata().prefix,
        "scaled": scaled(model),
        "made_up": made_up(model),
        "engine": model.engine(),
        "steps": steps.iter().map(|s| serde_json::json!({
            "kernel": s.kernel, "runs": how_often(s.stage), "sizes": s.sizes, "multiply_adds": s.multiply_adds, "ms": s.ms,
        })).collect::<Vec<_>>(),
        "operators": model.operators().iter().map(|(n, c)| (n.clone(), *c)).collect::<std::collections::BTreeMap<_, _>>(),
    })
}
