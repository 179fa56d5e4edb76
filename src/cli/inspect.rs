//! `edgegen inspect`: what a model is.

use super::{ModelArgs, Report};
use anyhow::Result;
use clap::Args;
use edgegen::network::Model;
use std::path::PathBuf;

#[derive(Args)]
pub struct InspectArgs {
    /// The ONNX network [default: the one built in]
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    model_args: ModelArgs,
    /// How to print it
    #[arg(long, value_enum, default_value = "text", value_name = "text|json")]
    report: Report,
}

pub fn run(args: &InspectArgs) -> Result<()> {
    let model = args.model_args.open(args.model.as_deref())?;
    match args.report {
        Report::Text => print_text(&model),
        Report::Json => println!("{}", json(&model)),
    }
    Ok(())
}

fn print_text(model: &Model) {
    println!("inputs");
    for input in model.inputs() {
        println!("  {:<24} {:<10} {} {:?}", input.name, input.role.name(), input.element_type(), input.shape);
    }
    let s = model.scheduler();
    println!("sample      {:?}, {} weights", model.sample_shape(), model.parameters());
    println!(
        "schedule    {} steps, beta {}, predicts {}, spacing {}",
        s.num_train_timesteps,
        if s.trained_betas.is_some() { "as trained".into() } else { text(&s.beta_schedule) },
        text(&s.prediction_type),
        text(&s.timestep_spacing),
    );
    let m = model.metadata();
    if !m.classes.is_empty() {
        println!("classes     {}", m.classes.join(", "));
    }
    if let Some(sampler) = &m.sampler {
        println!("recommends  {sampler}, {} steps, guidance {}", m.steps.unwrap_or(10), m.guidance.unwrap_or(1.0));
    }
    println!("runs by     {}", model.engine());
    for (name, count) in model.operators() {
        println!("  {count:>5} {name}");
    }
}

/// A configuration value as its file has it.
fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default()
}

fn json(model: &Model) -> serde_json::Value {
    let inputs = model.inputs().iter().map(
        |i| serde_json::json!({ "name": i.name, "role": i.role.name(), "type": i.element_type(), "shape": i.shape }),
    );
    serde_json::json!({
        "inputs": inputs.collect::<Vec<_>>(),
        "sample_shape": model.sample_shape(),
        "parameters": model.parameters(),
        "scheduler": model.scheduler(),
        "classes": model.metadata().classes,
        "engine": model.engine(),
        "operators": model.operators().iter().map(|(n, c)| (n.clone(), *c)).collect::<std::collections::BTreeMap<_, _>>(),
    })
}
