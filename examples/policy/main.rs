//! A diffusion policy in closed loop: a round end effector pushes a disc to the middle of a table.
//!
//! ```text
//! cargo run --release --example policy                          the table of docs/policy.md
//! cargo run --release --example policy -- draw rollouts.svg     its picture
//! cargo run --release --example policy -- pace 100 10000 2      how long a control step takes: 10,000 at 100 Hz beside
//!                                                               two busy threads
//! cargo run --release --example policy -- demonstrate data/     the demonstrations that the model was trained on
//! ```
//! `docs/policy.md` says how the model was made.

mod drawing;
mod expert;
mod pace;
mod rollout;
mod task;

use edgegen::Model;
use edgegen::output::{encode_npy, write_file};
use edgegen::policy::Jacobian;
use expert::{Demonstration, demonstrate};
use npyz::WriterBuilder;
use rollout::{Figures, Last, Settings};
use std::error::Error;
use std::path::Path;

/// The model, unless another is given with `--model`.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/policy/push.onnx");
/// Where demonstrations come from: not where episodes do.
const DEMONSTRATIONS: u64 = 1_000;
/// How many demonstrations there are.
const COUNT: u64 = 600;
/// How much the demonstrating hand trembles.
const TREMBLE: f32 = 0.015;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut option = |name: &str| -> Option<String> {
        let at = words.iter().position(|w| w == name)?;
        let value = words.get(at + 1).cloned();
        words.drain(at..(at + 2).min(words.len()));
        value
    };
    let model = option("--model").unwrap_or(MODEL.into());
    let episodes = option("--episodes").map_or(Ok(200), |n| n.parse())?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["demonstrate", folder] => write_demonstrations(Path::new(folder)),
        [] => evaluate(&open(&model)?, episodes),
        ["pace", rate, cycles, busy] => {
            println!(
                "{}\n{}",
                pace::HEADER,
                pace::measure(&open(&model)?, rate.parse()?, cycles.parse()?, busy.parse()?)?
            );
            Ok(())
        }
        ["draw", file] => Ok(write_file(Path::new(file), drawing::draw(&open(&model)?)?.as_bytes())?),
        _ => Err(
            "give nothing, demonstrate FOLDER, draw FILE.svg or pace HZ CYCLES BUSY, and --model FILE or --episodes N"
                .into(),
        ),
    }
}

fn open(path: &str) -> Result<Model, edgegen::Error> {
    Model::open(path)
}

/// Observations and actions of every moment, and where each demonstration ends.
fn write_demonstrations(folder: &Path) -> Result<(), Box<dyn Error>> {
    let all: Vec<Demonstration> = (0..COUNT).map(|i| demonstrate(DEMONSTRATIONS, i, TREMBLE)).collect();
    let actions: Vec<[f32; 2]> = all.iter().flatten().map(|(_, a)| [a.x, a.y]).collect();
    let actions: Vec<&[f32]> = actions.iter().map(|a| &a[..]).collect();
    let seen: Vec<&[f32]> = all.iter().flatten().map(|(o, _)| &o[..]).collect();
    std::fs::create_dir_all(folder)?;
    write_file(&folder.join("actions.npy"), &encode_npy(&actions, &[2])?)?;
    write_file(&folder.join("obs.npy"), &encode_npy(&seen, &[4])?)?;
    let mut bytes = Vec::new();
    let mut ends = npyz::WriteOptions::new().default_dtype().shape(&[COUNT]).writer(&mut bytes).begin_nd()?;
    let mut end = 0;
    for demonstration in &all {
        end += demonstration.len() as i64;
        ends.push(&end)?;
    }
    ends.finish()?;
    write_file(&folder.join("episode_ends.npy"), &bytes)?;
    println!("{COUNT} demonstrations of {end} moments in {}", folder.display());
    Ok(())
}

fn evaluate(model: &Model, episodes: u64) -> Result<(), Box<dyn Error>> {
    println!("{} weights, run by {}\n", model.parameters(), model.engine());
    println!("{}", Figures::HEADER);
    println!("{}", rollout::expert(episodes));
    if model.metadata().sampler.as_deref() == Some("consistency") {
        // a model that was distilled for few calls goes from estimate to estimate by fresh noise, and in no other way
        for calls in [10, 4, 2, 1] {
            println!("{}", rollout::policy(model, &Settings::cold(calls, "consistency", 2), episodes)?);
        }
        return Ok(());
    }
    let of_two = [10, 5, 3, 2, 1].map(|calls| Settings::cold(calls, "ddim", 2));
    let others = [("dpm++2m", 5, 2), ("ddim", 5, 1), ("ddim", 5, 4), ("ddim", 5, 8)];
    let others = others.map(|(sampler, calls, executed)| Settings::cold(calls, sampler, executed));
    let mut rows = [&of_two[..], &others].concat();
    let with = |last, calls, executed| Settings { last, ..Settings::cold(calls, "ddim", executed) };
    rows.extend([5, 2, 1].into_iter().flat_map(|calls| [0.5, 0.2].map(|share| with(Last::Start(share), calls, 2))));
    // a plan as soon as the last one is there
    let late = |last| (0..=4).map(move |delay| Settings { delay, ..with(last, 5, 1) });
    let joints = [Last::Wait, Last::Unused, Last::Inpaint, Last::Chunk(Jacobian::Diagonal)];
    rows.extend(joints.into_iter().chain([Last::Chunk(Jacobian::Difference), Last::Ensemble]).flat_map(late));
    if model.metadata().prefix.is_some() {
        rows.extend(late(Last::Prefix));
    }
    for settings in &rows {
        println!("{}", rollout::policy(model, settings, episodes)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_pushes_the_disc_home_in_two_network_calls() {
        let settings = Settings::cold(2, "ddim", 2);
        let mut policy = rollout::Policy::new(&open(MODEL).unwrap(), &settings).unwrap();
        let is_done = |episode| policy.run(episode, &mut Vec::new()).unwrap().pop().unwrap().is_done();
        // 96.5 % of 200 episodes are
        let done = (0..30).map(is_done).filter(|done| *done).count();
        assert!(done >= 25, "{done} of 30");
    }

    /// From the last plan one call is enough, of which 68.5 % of episodes end well from noise.
    #[test]
    fn a_warm_start_makes_one_network_call_enough() {
        let settings = Settings { last: Last::Start(0.2), ..Settings::cold(1, "ddim", 2) };
        let mut policy = rollout::Policy::new(&open(MODEL).unwrap(), &settings).unwrap();
        let is_done = |episode| policy.run(episode, &mut Vec::new()).unwrap().pop().unwrap().is_done();
        let done = (0..30).map(is_done).filter(|done| *done).count();
        assert!(done >= 28, "{done} of 30");
    }

    /// The demonstrations are the same bits on every machine: a model can be trained again on what it was trained on.
    #[test]
    fn demonstrations_are_reproducible_and_reach_the_goal() {
        let all: Vec<Demonstration> = (0..100).map(|i| demonstrate(DEMONSTRATIONS, i, TREMBLE)).collect();
        let numbers = all.iter().flatten().flat_map(|(o, a)| o.iter().copied().chain([a.x, a.y]));
        // FNV-1a
        let hash = |h: u64, byte: u8| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let digest = numbers.flat_map(|v| v.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, hash);
        assert_eq!(digest, DIGEST, "{digest:#x}");
        let reached = all.iter().filter(|d| d.len() < task::STEPS).count();
        assert!(reached >= 99, "{reached} of 100");
    }

    const DIGEST: u64 = 0x4977_3cef_909e_2666;
}
