//! Episodes in closed loop: observe, act, observe again.

use crate::expert::Expert;
use crate::task::{STEPS, State, V};
use edgegen::noise::Noise;
use edgegen::policy::{Jacobian, Joint, Observation, Timing};
use edgegen::{Model, Result};
use std::fmt;
use std::time::Duration;

/// Where episodes start from: not where demonstrations do.
const EPISODES: u64 = 1;

/// How the policy is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Network calls a plan.
    pub calls: usize,
    pub sampler: &'static str,
    /// Control steps from one plan to the next, at least.
    pub executed: usize,
    /// What is made of the last plan.
    pub last: Last,
    /// Control steps that a plan takes, as if sampling it took that long: until it is there, the last one goes on.
    pub delay: usize,
}

/// What is made of the last plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Last {
    /// Nothing: each plan starts from noise.
    Unused,
    /// The next starts from it, shifted by the actions that were carried out and noised this share of the way. There are
    /// as many calls as from noise, on a part of the way.
    Start(f64),
    /// The new plan begins with the actions that are carried out meanwhile.
    Inpaint,
    /// Real-time chunking (arXiv 2506.07339).
    Chunk(Jacobian),
    /// Real-time chunking as the network was trained for it (arXiv 2512.05964).
    Prefix,
    /// Plans that overlap are averaged (arXiv 2304.13705).
    Ensemble,
    /// The robot waits for a plan.
    Wait,
}

impl Settings {
    /// Plans from noise.
    pub fn cold(calls: usize, sampler: &'static str, executed: usize) -> Self {
        Settings { calls, sampler, executed, last: Last::Unused, delay: 0 }
    }

    fn name(&self) -> String {
        let Settings { calls, sampler, last, delay, .. } = self;
        let calls = if *calls == 1 { "1 call".into() } else { format!("{calls} calls") };
        let last = match last {
            Last::Unused => String::new(),
            Last::Start(share) => format!(", warm start {share}"),
            Last::Inpaint => ", inpainted".into(),
            Last::Chunk(Jacobian::Difference) => ", chunked (difference)".into(),
            Last::Chunk(_) => ", chunked".into(),
            Last::Prefix => ", prefix".into(),
            Last::Ensemble => ", ensembled".into(),
            Last::Wait => ", waiting".into(),
        };
        let delay = if *delay > 0 { format!(", delay {delay}") } else { String::new() };
        format!("policy, {calls}, {sampler}{last}{delay}")
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
pub struct Policy(edgegen::Policy);

impl Policy {
    pub fn new(model: &Model, settings: &Settings) -> Result<Self> {
        let Settings { calls, sampler, executed, last, delay } = *settings;
        // so many steps that the calls that are asked for are that share of them
        let steps = if let Last::Start(share) = last { (calls as f64 / share).round() as usize } else { calls };
        let policy = model.generator().sampler(sampler).steps(steps).policy();
        // its plans begin with the step of the latest observation
        let policy = policy.n_obs_steps(2).first_action(0).n_action_steps(executed);
        let policy = policy.timing(Timing::Simulated { delay });
        let policy = match last {
            Last::Unused => policy,
            Last::Start(_) => policy.warm_start(calls as f64 / steps as f64),
            Last::Inpaint => policy.joint(Joint::Inpaint),
            Last::Chunk(jacobian) => policy.joint(Joint::chunk(jacobian)),
            Last::Prefix => policy.joint(Joint::Prefix),
            Last::Ensemble => policy.ensemble(0.01),
            Last::Wait => policy.timing(Timing::Waiting { delay }),
        };
        policy.build().map(Policy)
    }

    /// The states of an episode, from its start to its end.
    pub fn run(&mut self, episode: u64, times: &mut Vec<Duration>) -> Result<Vec<State>> {
        let (mut state, _) = start(episode);
        let mut states = vec![state];
        self.0.reset(episode);
        let mut plans = 0;
        while !state.is_done() && states.len() <= STEPS {
            let seen = state.observation();
            let action = self.0.act(&Observation::new().with("global_cond", &seen))?.values;
            state.step(V { x: action[0], y: action[1] });
            states.push(state);
            let stats = self.0.stats();
            if stats.plans > plans {
                times.push(stats.plan_time);
                plans = stats.plans;
            }
        }
        Ok(states)
    }
}
