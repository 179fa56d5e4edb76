//! Which layers stay float: those whose 8 bits move samples most for the multiplications that they save, up to a budget.

use super::cases::Cases;
use super::runs::{self, Purpose, distance};
use anyhow::Result;
use edgegen::ModelOptions;
use indicatif::ProgressBar;
use onnx::pb::ModelProto;
use prost::Message;
use std::time::{Duration, Instant};

/// What each value's 8 bits do to samples, and whether it is in 8 bits in the end.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The distance of samples from the float network's with these layers alone in 8 bits.
    pub moved: f64,
    /// Whether they stay float.
    pub float: bool,
}

/// The samples that layers are judged by at most, and their steps.
const SAMPLES: usize = 4;
const STEPS: usize = 10;
/// How long judging may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// A layer that makes less than this share of the squared distance is not worth leaving in float.
const LEAST_SHARE: f64 = 0.005;

/// What may be rounded or stay as it is: how many there are, what each costs to leave, and the share of all costs that may be left.
pub struct Choices<'c> {
    /// What each costs to leave; 0 for what is never left.
    pub costs: &'c [f64],
    /// The share of all costs that may be left.
    pub budget: f64,
}

/// Chooses what stays as it is, where `alone` is the network with one of them rounded.
///
/// # Errors
/// When a network with one of them rounded cannot be run.
pub fn choose(
    model: &ModelProto,
    options: &ModelOptions,
    cases: &Cases,
    Choices { costs, budget }: Choices,
    alone: impl Fn(usize) -> Result<ModelProto>,
) -> Result<Vec<Choice>> {
    let read = |proto: &ModelProto| options.read(&proto.encode_to_vec());
    let float = read(model)?;
    let began = Instant::now();
    let mut exact = runs::samples(&float, cases, Purpose::Choice, 1, STEPS)?;
    let each = began.elapsed();
    let affordable = PATIENCE.as_secs_f64() / (each.as_secs_f64() * costs.len().max(1) as f64);
    let count = (affordable as usize).clamp(1, SAMPLES);
    if count > 1 {
        exact = runs::samples(&float, cases, Purpose::Choice, count, STEPS)?;
    }
    let bar = ProgressBar::new(costs.len() as u64);
    let mut choices = Vec::new();
    for i in 0..costs.len() {
        let rounded = read(&alone(i)?)?;
        let moved = distance(&runs::samples(&rounded, cases, Purpose::Choice, count, STEPS)?, &exact);
        choices.push(Choice { moved, float: false });
        bar.inc(1);
    }
    bar.finish_and_clear();
    leave_float(&mut choices, costs, budget);
    Ok(choices)
}

/// Marks those that stay float: the ones that move samples most for what they cost, until the budget is spent. Squared
/// distances add up, as errors of different layers have nothing to do with one another.
fn leave_float(choices: &mut [Choice], costs: &[f64], budget: f64) {
    let all: f64 = choices.iter().map(|c| c.moved.powi(2)).sum();
    let mut left = budget * costs.iter().sum::<f64>();
    let mut order: Vec<usize> =
        (0..choices.len()).filter(|i| choices[*i].moved.powi(2) > LEAST_SHARE * all && costs[*i] > 0.0).collect();
    let gain = |i: usize| choices[i].moved.powi(2) / costs[i];
    order.sort_by(|a, b| gain(*b).total_cmp(&gain(*a)));
    let mut chosen = Vec::new();
    for i in order {
        if costs[i] <= left {
            left -= costs[i];
            chosen.push(i);
        }
    }
    chosen.into_iter().for_each(|i| choices[i].float = true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_goes_to_what_moves_samples_most_for_its_cost() {
        let mut choices: Vec<Choice> = [0.3, 0.1, 0.2, 0.001, 0.2].map(|moved| Choice { moved, float: false }).to_vec();
        // the first is dear, and the fourth is not worth it
        leave_float(&mut choices, &[60.0, 5.0, 4.0, 1.0, 30.0], 0.1);
        let float: Vec<bool> = choices.iter().map(|c| c.float).collect();
        assert_eq!(float, [false, true, true, false, false]);
    }
}
