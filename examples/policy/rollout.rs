//! Episodes in closed loop: observe, sample a plan, carry its first actions out, observe again.

use crate::expert::Expert;
use crate::task::{STEPS, State, V};
use edgegen::constraint::Replacement;
use edgegen::model::Normalizer;
use edgegen::noise::Noise;
use edgegen::{Generator, Model, Request, Result};
use std::fmt;
use std::time::{Duration, Instant};

/// Where episodes start from: not where demonstrations do.
const EPISODES: u64 = 1;

/// How the policy is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Network calls a plan.
    pub calls: usize,
    pub sampler: &'static str,
    /// Actions of a plan that are carried out.
    pub executed: usize,
    /// What is made of the last plan.
    pub last: Last,
}

/// What is made of the last plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Last {
    /// Nothing: each plan starts from noise.
    Unused,
    /// The next starts from it, shifted by the actions that were carried out and noised this share of the way. There are
    /// as many calls as from noise, on a part of the way.
    Start(f64),
    /// A plan takes as long to sample as the actions that are carried out take: until it is there, the robot goes on
    /// with the last one.
    GoOn,
    /// The same, and the new plan begins with the actions that are carried out meanwhile (arXiv 2506.07339).
    Begin,
}

impl Settings {
    /// Plans from noise.
    pub fn cold(calls: usize, sampler: &'static str, executed: usize) -> Self {
        Settings { calls, sampler, executed, last: Last::Unused }
    }

    fn name(&self) -> String {
        let Settings { calls, sampler, last, .. } = self;
        let calls = if *calls == 1 { "1 call".into() } else { format!("{calls} calls") };
        let last = match last {
            Last::Unused => String::new(),
            Last::Start(share) => format!(", warm start {share}"),
            Last::GoOn => ", late".into(),
            Last::Begin => ", late, inpainted".into(),
        };
        format!("policy, {calls}, {sampler}{last}")
    }
}

/// What episodes came to.
pub struct Figures {
    name: String,
    executed: usize,
    successes: u64,
    episodes: u64,
    steps: usize,
    plans: Vec<Duration>,
}

impl Figures {
    pub const HEADER: &'static str = "\
| | actions of a plan | success | mean steps | ms a plan, p50 | p99 | ms an action |
|---|---|---|---|---|---|---|";
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { name, executed, successes, episodes, steps, .. } = self;
        let (rate, steps) = (100.0 * *successes as f64 / *episodes as f64, *steps as f64 / *episodes as f64);
        write!(f, "| {name} | {executed} | {rate:.1} % | {steps:.1} |")?;
        if self.plans.is_empty() {
            return write!(f, " | | |");
        }
        let mut plans = self.plans.clone();
        plans.sort();
        let ms = |share: f64| plans[((plans.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        write!(f, " {:.2} | {:.2} | {:.3} |", ms(0.5), ms(0.99), ms(0.5) / *executed as f64)
    }
}

/// The start of an episode, and its random numbers from there on.
pub fn start(episode: u64) -> (State, Noise) {
    let mut random = Noise::new(EPISODES, episode);
    (State::start(|| random.uniform()), random)
}

/// The expert's own figures.
pub fn expert(episodes: u64) -> Figures {
    let mut figures = Figures { name: "expert".into(), executed: 1, successes: 0, episodes, steps: 0, plans: vec![] };
    for episode in 0..episodes {
        let (mut state, mut random) = start(episode);
        let mut expert = Expert::new(&state, random.uniform());
        let mut steps = 0;
        while !state.is_done() && steps < STEPS {
            let action = expert.act(&state);
            state.step(action);
            steps += 1;
        }
        figures.successes += u64::from(state.is_done());
        figures.steps += steps;
    }
    figures
}

/// The policy's figures.
pub fn policy(model: &Model, settings: &Settings, episodes: u64) -> Result<Figures> {
    let (name, executed) = (settings.name(), settings.executed);
    let mut figures = Figures { name, executed, successes: 0, episodes, steps: 0, plans: Vec::new() };
    let mut policy = Policy::new(model, settings)?;
    for episode in 0..episodes {
        let states = policy.run(episode, &mut figures.plans)?;
        figures.successes += u64::from(states[states.len() - 1].is_done());
        figures.steps += states.len() - 1;
    }
    Ok(figures)
}

/// A diffusion policy.
pub struct Policy {
    generator: Generator,
    /// From the last plan, with the share of the steps that is run.
    warm: Option<(Generator, f64)>,
    normalizer: Normalizer,
    settings: Settings,
}

impl Policy {
    pub fn new(model: &Model, settings: &Settings) -> Result<Self> {
        let of = |steps: usize| model.generator().sampler(settings.sampler).steps(steps).build();
        let warm = match settings.last {
            Last::Start(share) => {
                // so many steps that the calls that are asked for are that share of them
                let steps = (settings.calls as f64 / share).round() as usize;
                Some((of(steps)?, settings.calls as f64 / steps as f64))
            }
            _ => None,
        };
        Ok(Policy { generator: of(settings.calls)?, warm, normalizer: model.normalizer().clone(), settings: *settings })
    }

    /// A plan for what was seen last and before; `last` is what is left of the last one.
    pub fn plan(&mut self, before: &State, now: &State, seed: u64, index: u64, last: &[V]) -> Result<Vec<V>> {
        let seen = [before.observation(), now.observation()].concat();
        let request = Request::new(seed, index).condition("global_cond", &seen);
        let length = self.generator.sample_shape()[0];
        // beyond its end it stays where it ended
        let shifted = || {
            (0..length)
                .flat_map(|i| {
                    let a = last[i.min(last.len() - 1)];
                    [a.x, a.y]
                })
                .collect::<Vec<f32>>()
        };
        let run = match (&mut self.warm, self.settings.last) {
            (Some((warm, strength)), _) if !last.is_empty() => warm.run(&request.near(&shifted(), *strength))?,
            (_, Last::Begin) if !last.is_empty() => {
                let mut values = shifted();
                self.normalizer.normalize(&mut values);
                let known: Vec<bool> = (0..values.len()).map(|i| i < 2 * self.settings.executed).collect();
                let mut first = Replacement::new(&values, &known)?;
                self.generator.run(&request.constraint(&mut first))?
            }
            _ => self.generator.run(&request)?,
        };
        Ok(run.sample.chunks_exact(2).map(|a| V { x: a[0], y: a[1] }).collect())
    }

    /// The states of an episode, from its start to its end.
    pub fn run(&mut self, episode: u64, times: &mut Vec<Duration>) -> Result<Vec<State>> {
        let (mut state, _) = start(episode);
        let mut states = vec![state];
        let Settings { executed, last, .. } = self.settings;
        // what is left of the last plan
        let mut left: Vec<V> = Vec::new();
        for index in 0.. {
            let before = states[states.len().saturating_sub(2)];
            let start = Instant::now();
            let plan = self.plan(&before, &state, episode, index, &left)?;
            times.push(start.elapsed());
            let late = matches!(last, Last::GoOn | Last::Begin) && index > 0;
            let carried_out = if late { &left } else { &plan };
            for action in carried_out.iter().take(executed) {
                state.step(*action);
                states.push(state);
                if state.is_done() || states.len() > STEPS {
                    return Ok(states);
                }
            }
            left = plan[executed..].to_vec();
        }
        unreachable!("an episode ends")
    }
}
