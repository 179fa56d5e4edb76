//! How a policy is run.

use super::Policy;
use super::chunking::{Join, Joint};
use super::history::History;
use super::planner::Planner;
use super::queue::Shape;
use crate::generator::GeneratorBuilder;
use crate::lerobot::Control;
use crate::model::Role;
use crate::network::Network;
use crate::schedule::Schedule;
use crate::{Error, ErrorKind, Result};
use std::time::Duration;

/// When plans are made, and when they are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timing {
    /// In [`Policy::act`], when the actions of the last one have been carried out: the call then takes as long as a plan. The
    /// same seed and observations give the same actions, unless a [budget](PolicyBuilder::budget) cuts plans short.
    #[default]
    Synchronous,
    /// On a thread of its own, while the last plan is carried out: [`Policy::act`] takes microseconds. When a plan is there
    /// depends on the machine, and so does which of its actions are carried out.
    Asynchronous,
    /// As if on a thread on which each plan takes `delay` control steps: it is made in [`Policy::act`], and used `delay`
    /// steps later. The same seed and observations give the same actions. The first plan is there at once.
    Simulated {
        /// The control steps from a plan's observation to its first action.
        delay: usize,
    },
    /// As if each plan took `delay` control steps, for which the robot stands still: meanwhile the action is as
    /// [`WhenDry`] says, and then the plan begins. The first plan is there at once.
    Waiting {
        /// The control steps that the robot waits for a plan.
        delay: usize,
    },
}

/// What the action is when there is none of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum WhenDry {
    /// The last action again: what a robot that is told positions stands still by. An error as long as there was none.
    #[default]
    Hold,
    /// This action: for a robot that is told velocities or forces, what stops it.
    Safe(Vec<f32>),
    /// None: [`Policy::act`] gives an error of [`ErrorKind::NoAction`], and [`Policy::action`] the last action.
    Error,
}

/// Makes a [`Policy`]. [`GeneratorBuilder::policy`] begins one; the generator's own settings are given before that.
#[derive(Clone, Debug)]
#[must_use = "`build` makes the policy"]
pub struct PolicyBuilder {
    generator: GeneratorBuilder,
    n_obs_steps: Option<usize>,
    n_action_steps: Option<usize>,
    first_action: Option<usize>,
    control: Control,
    pub(super) timing: Timing,
    joint: Joint,
    warm_start: Option<f64>,
    pub(super) ensemble: Option<f64>,
    pub(super) when_dry: WhenDry,
    pub(super) stale_after: Option<usize>,
    pub(super) budget: Option<Duration>,
    pub(super) expected_delay: usize,
    pub(super) seed: u64,
    class: Option<usize>,
    constant: Vec<(String, Vec<f32>)>,
    parts: Vec<(String, Vec<(String, usize)>)>,
}

impl GeneratorBuilder {
    /// Begins a policy whose plans are made by these settings.
    pub fn policy(&self) -> PolicyBuilder {
        PolicyBuilder {
            generator: self.clone(),
            n_obs_steps: None,
            n_action_steps: None,
            first_action: None,
            control: self.model().control(),
            timing: Timing::default(),
            joint: Joint::default(),
            warm_start: None,
            ensemble: None,
            when_dry: WhenDry::default(),
            stale_after: None,
            budget: None,
            expected_delay: 1,
            seed: 0,
            class: None,
            constant: Vec::new(),
            parts: Vec::new(),
        }
    }
}

impl PolicyBuilder {
    /// The text of a LeRobot policy's `config.json`, whose `n_obs_steps`, `horizon` (or `chunk_size`) and `n_action_steps`
    /// hold where they are not given. One that lies beside the model's file is read without this.
    ///
    /// # Errors
    /// When it is no such text, or has one of these that is no number from 1 on.
    pub fn lerobot_config(mut self, text: &str) -> Result<Self> {
        self.control = Control::from_json(text)?;
        Ok(self)
    }

    /// The control steps whose observations a plan is made of, from 1: 1 if nothing says otherwise.
    pub fn n_obs_steps(mut self, steps: usize) -> Self {
        self.n_obs_steps = Some(steps);
        self
    }

    /// The control steps from one plan's observation to the next one's, which is how many actions of each are carried out,
    /// from 1: half of those that are not of the past if nothing says otherwise. With a delay d, those from number d on are.
    pub fn n_action_steps(mut self, steps: usize) -> Self {
        self.n_action_steps = Some(steps);
        self
    }

    /// Which action of a plan, from 0, is for the control step of its latest observation: `n_obs_steps - 1`, as in LeRobot
    /// and diffusion_policy, unless this is called.
    pub fn first_action(mut self, place: usize) -> Self {
        self.first_action = Some(place);
        self
    }

    /// When plans are made.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// How a plan is joined to the last one.
    pub fn joint(mut self, joint: Joint) -> Self {
        self.joint = joint;
        self
    }

    /// Starts each plan but the first from the last one, by this share of the steps, above 0 and at most 1:
    /// [`Request::near`](crate::Request::near).
    pub fn warm_start(mut self, strength: f64) -> Self {
        self.warm_start = Some(strength);
        self
    }

    /// Temporal ensembling (ACT, arXiv 2304.13705): an action is the mean of what all plans have for its step, with the
    /// weights exp(-m i), i = 0 for the oldest plan. `coefficient` is m, 0.01 in the paper; at 0 all weigh the same, and below
    /// it new plans weigh more.
    pub fn ensemble(mut self, coefficient: f64) -> Self {
        self.ensemble = Some(coefficient);
        self
    }

    /// What the action is when there is none of a plan.
    pub fn when_dry(mut self, when_dry: WhenDry) -> Self {
        self.when_dry = when_dry;
        self
    }

    /// The age in control steps from which on an observation is too old to make a plan of; without this none is. 0 is that of
    /// one that was taken for this very step.
    pub fn stale_after(mut self, steps: usize) -> Self {
        self.stale_after = Some(steps);
        self
    }

    /// The time that a plan may take from when it is asked for. Then it is what it is by then: no network call begins that
    /// would end later, by how long the longest has taken so far. Without this, plans are never cut short.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The control steps that a plan is expected to take before one has been measured, with [`Timing::Asynchronous`]: 1
    /// unless this is called. Later it is the most that the latest ten took.
    pub fn expected_delay(mut self, steps: usize) -> Self {
        self.expected_delay = steps;
        self
    }

    /// The seed: plan k is that of (seed, k). 0 unless this is called.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The class of all plans; the model's "no class" where this is not called.
    pub fn class(mut self, index: usize) -> Self {
        self.class = Some(index);
        self
    }

    /// A condition that is no observation but the same for all plans, such as a goal.
    pub fn condition(mut self, name: impl Into<String>, values: impl Into<Vec<f32>>) -> Self {
        self.constant.push((name.into(), values.into()));
        self
    }

    /// Says that the condition `name` is made of several arrays of each control step, one after the other, which are observed
    /// by names of their own: a `global_cond` of `state` and `environment_state`.
    pub fn observed_as(mut self, name: impl Into<String>, parts: &[(&str, usize)]) -> Self {
        self.parts.push((name.into(), parts.iter().map(|(part, len)| (part.to_string(), *len)).collect()));
        self
    }

    /// The policy, with all memory made and the network run once.
    ///
    /// # Errors
    /// When the generator's settings do not fit the model; when its samples are no plans, `[T, D]`; when a number is out of its
    /// range or does not fit the plans' length or the conditions'.
    pub fn build(&self) -> Result<Policy> {
        let model = self.generator.model();
        let &[horizon, width] = model.sample_shape() else {
            let shape = model.sample_shape();
            return Err(Error::invalid(format!("a policy's samples are plans of shape [T, D], not {shape:?}")));
        };
        if let Some(said) = self.control.horizon.filter(|said| *said != horizon) {
            let message = format!(
                "the policy's config.json has a horizon of {said}, but the network's plans have {horizon} actions"
            );
            return Err(Error::invalid(message));
        }
        let n_obs_steps = self.n_obs_steps.or(self.control.n_obs_steps).unwrap_or(1);
        within("n_obs_steps", n_obs_steps, usize::MAX)?;
        let first = self.first_action.unwrap_or(n_obs_steps - 1);
        if first >= horizon {
            let message =
                format!("action {first} cannot be a plan's first to be carried out: it has {horizon} actions");
            return Err(Error::invalid(message));
        }
        let shape = Shape { horizon, width, first };
        let n_action_steps = self.n_action_steps.or(self.control.n_action_steps);
        let n_action_steps = n_action_steps.unwrap_or((shape.usable() / 2).max(1));
        within("n_action_steps", n_action_steps, shape.usable())?;
        self.check(width)?;
        let is_constant = |name: &str| self.constant.iter().any(|(constant, _)| constant == name);
        if let Some((unknown, _)) = self
            .constant
            .iter()
            .find(|(name, _)| !model.inputs().iter().any(|i| i.role == Role::Condition && i.name == *name))
        {
            return Err(crate::model::no_condition(model.inputs(), unknown));
        }
        let observed = model.inputs().iter().filter(|i| i.role == Role::Condition && !is_constant(&i.name));
        let observed: Vec<(&str, usize)> = observed.map(|i| (i.name.as_str(), i.len())).collect();
        let history = History::new(&observed, n_obs_steps, &self.parts)?;
        let clean = Schedule::from_config(model.scheduler_config())?.told_clean();
        if self.joint == Joint::Prefix {
            // refused here rather than by the second plan
            let expected = match self.timing {
                Timing::Simulated { delay } => delay,
                Timing::Asynchronous => self.expected_delay,
                Timing::Synchronous | Timing::Waiting { .. } => 0,
            };
            model.network()?.hold_clean(first.saturating_add(expected).clamp(1, horizon), clean)?;
        }
        let generator = self.generator.build()?;
        let longest = model.metadata().prefix.unwrap_or(horizon);
        let join = Join::new(self.joint, (horizon, width), longest, clean)?;
        let given = (self.class, self.constant.clone());
        let mut planner = Planner::new(generator, model.normalizer().clone(), given, self.warm_start, join);
        planner.prepare()?;
        Policy::new(self, history, planner, shape, n_action_steps)
    }

    fn check(&self, width: usize) -> Result<()> {
        if let WhenDry::Safe(action) = &self.when_dry {
            if action.len() != width {
                let message = format!("the safe action has {} numbers, but actions have {width}", action.len());
                return Err(Error::new(ErrorKind::WrongSize, message));
            }
            if action.iter().any(|v| !v.is_finite()) {
                return Err(Error::new(ErrorKind::NotFinite, "the safe action must be finite"));
            }
        }
        if let Some(m) = self.ensemble.filter(|m| !m.is_finite()) {
            return Err(Error::invalid(format!("the coefficient of temporal ensembling must be finite, not {m}")));
        }
        match self.warm_start.filter(|s| !(*s > 0.0 && *s <= 1.0)) {
            Some(s) => {
                Err(Error::invalid(format!("the strength of a warm start must be above 0 and at most 1, not {s}")))
            }
            None => Ok(()),
        }
    }
}

fn within(name: &str, value: usize, most: usize) -> Result<()> {
    match value {
        0 => Err(Error::invalid(format!("{name} must be from 1 on, not 0"))),
        n if n > most => Err(Error::invalid(format!("{name} is {n}, but a plan has {most} actions to carry out"))),
        _ => Ok(()),
    }
}
