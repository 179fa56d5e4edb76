//! The command line: parse, call the library, print.

mod args;
mod bench;
mod conditions;
mod decoder;
mod flow;
mod generate;
mod inspect;
mod limits;
mod made;
pub mod measure;
mod restore;
mod schedule;
mod stdout;

use anyhow::Result;
use args::Report;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use edgegen::Hint;
use edgegen::model::TimeAs;
use edgegen::solver::{ADAPTIVE_SOLVERS, SOLVERS};
use std::process::ExitCode;
use stdout::{print, warn};

/// Generate samples from a diffusion model, on this machine's CPU.
///
/// Without --model the program uses the model built into it, which draws 28×28 pictures of garments.
/// Sample i of a run depends only on the seed and on i, never on the number of samples or threads, so a
/// large run can be split with --first-index.
#[derive(Parser)]
#[command(name = "edgegen", args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    generate: generate::GenerateArgs,
}

const EXAMPLES: &str = "\
Examples:
  edgegen --steps 10 out.png                        one picture
  edgegen --class \"Ankle boot\" --grid 8x4 out.png   32 ankle boots
  edgegen --seed 7 --count 100 out.npy              raw samples, float32 [N, C, H, W]
  edgegen --count 3 'out-{index}.png'               a file for each sample
  edgegen out.gif                                   from noise to picture
  edgegen restore --task denoise --sigma 25 in.png out.png
  edgegen -m my.onnx --scheduler-config scheduler_config.json -s heun out.png

Exit status: 0 on success, 1 when something was wrong with the input or the files, 2 for wrong usage.";

#[derive(Subcommand)]
enum Command {
    /// Show what a model is: inputs, roles, schedule, size, operators
    Inspect(inspect::InspectArgs),
    /// Measure a model on this machine
    Bench(bench::BenchArgs),
    /// Find the noise that a picture comes from
    Encode(flow::EncodeArgs),
    /// Measure how likely pictures are under the model
    Likelihood(flow::LikelihoodArgs),
    /// Go from one picture to another through the model's noise
    Interpolate(flow::InterpolateArgs),
    /// Restore a picture: fill parts of it, enlarge it, take its noise away, colour it
    Restore(restore::RestoreArgs),
    /// Show the noise schedule and the steps that a run takes
    Schedule(schedule::ScheduleArgs),
    /// List the samplers
    Samplers {
        /// How to print them
        #[arg(long, value_enum, default_value = "text", value_name = "text|json")]
        report: Report,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let mut command = Cli::command().version(env!("CARGO_PKG_VERSION")).long_version(&*build().leak());
    let cli = Cli::from_arg_matches(&command.get_matches_mut()).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        None => {
            if let Some(name) = cli.generate.misspelt(&command) {
                let words = format!("there is no command '{}': did you mean '{name}'?", cli.generate.out_name());
                warn(words + " (an output's name ends in .png, .jpg, .gif, .npy or .csv)");
                return ExitCode::from(2);
            }
            generate::run(&cli.generate)
        }
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Encode(args)) => flow::encode(&args),
        Some(Command::Likelihood(args)) => flow::likelihood(&args),
        Some(Command::Interpolate(args)) => flow::interpolate(&args),
        Some(Command::Restore(args)) => restore::run(&args),
        Some(Command::Schedule(args)) => schedule::run(&args),
        Some(Command::Samplers { report }) => list_samplers(report),
        Some(Command::Completions { shell }) => {
            // (it panics where it cannot write)
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "edgegen", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// What was wrong, from the outermost context to the cause, with what would put it right as this program calls it.
fn in_words(error: &anyhow::Error) -> String {
    let words = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<edgegen::Error>() {
        Some(error) => in_options(error),
        None => cause.to_string(),
    };
    error.chain().map(words).collect::<Vec<_>>().join(": ")
}

/// An error of the library, whose hint is told by the program's options.
fn in_options(error: &edgegen::Error) -> String {
    let message = error.message();
    match error.hint() {
        None => message.to_string(),
        Some(Hint::SampleShape) => format!("{message}: give the sample's shape with --shape, such as 3,32,32"),
        Some(Hint::Schedule) => format!(
            "{message}: put its scheduler_config.json beside it, or name one with --scheduler-config; or, for a network that takes sigma, give --sigma-min and --sigma-max"
        ),
        Some(Hint::MaxMemory) => format!("{message}: allow more with --max-memory"),
        Some(Hint::Input("time")) => {
            format!("{message}: name it with --input time=NAME, or say that there is none with --input time=none")
        }
        Some(Hint::Input(role)) => format!("{message}: name it with --input {role}=NAME"),
        Some(Hint::TimeAs) => {
            format!("{message}: say what it is told with --time-as {}", TimeAs::ALL.map(TimeAs::name).join("|"))
        }
        Some(Hint::Class) => format!("{message}: give one with --class"),
        Some(Hint::ConditionShape(name)) => format!("{message}: give it with --cond {name}=FILE.npy"),
        Some(Hint::Join) => format!("{message}: give it with --join NAME=FILE.npy"),
        Some(Hint::LatentScale) => format!("{message}: give it with --latent-scale"),
        Some(Hint::Output) => format!("{message}: name it with --output NAME"),
        Some(Hint::Condition(name)) => format!("{message}: give it with --cond {name}=VALUE"),
        // one that this program has no option for
        Some(_) => error.to_string(),
    }
}

/// What this program was built from and for, and what it finds here.
fn build() -> String {
    let features = [
        ("cli", true),
        ("embedded-model", cfg!(feature = "embedded-model")),
        ("tract", cfg!(feature = "tract")),
        ("capi", cfg!(feature = "capi")),
    ];
    let features: Vec<&str> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    format!(
        "{}\ncommit: {}\nfeatures: {}\nkernels: {}",
        env!("CARGO_PKG_VERSION"),
        option_env!("EDGEGEN_COMMIT").unwrap_or("not told when it was built"),
        features.join(", "),
        edgegen::model::kernels()
    )
}

fn list_samplers(report: Report) -> Result<()> {
    if report == Report::Json {
        let json = |name: &str, order: Option<usize>, calls: usize, chosen: bool, source: &str| {
            serde_json::json!({
                "name": name,
                "order": order,
                "calls_per_step": calls,
                "chooses_its_steps": chosen,
                "deterministic": order.is_some(),
                "source": source,
            })
        };
        let fixed = SOLVERS.iter().map(|s| json(s.name, s.order, s.nfe_per_step, false, s.paper));
        let chosen = ADAPTIVE_SOLVERS.iter().map(|s| json(s.name, s.order, s.nfe_per_step, true, s.paper));
        return print(&format!("{}\n", serde_json::Value::Array(fixed.chain(chosen).collect())));
    }
    let mut out = format!("{:<16} {:>5} {:>10}  {:<7} {:<13} source\n", "name", "order", "calls/step", "steps", "kind");
    let mut row = |name: &str, order: Option<usize>, calls: usize, steps: &str, source: &str| {
        let kind = if order.is_some() { "deterministic" } else { "stochastic" };
        let order = order.map_or("-".into(), |o| o.to_string());
        out += &format!("{name:<16} {order:>5} {calls:>10}  {steps:<7} {kind:<13} {source}\n");
    };
    SOLVERS.iter().for_each(|s| row(s.name, s.order, s.nfe_per_step, "fixed", s.paper));
    ADAPTIVE_SOLVERS.iter().for_each(|s| row(s.name, s.order, s.nfe_per_step, "chosen", s.paper));
    print(&out)
}
