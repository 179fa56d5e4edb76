//! What a control step came to, and what all did.

use std::time::Duration;

/// What a control step came to: the first of these, from the bottom, that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// There is an action of a plan, and the plans come in time.
    Planned,
    /// No new observation came: the last one stands for it.
    Dropped,
    /// A new plan takes longer than was expected, or was not there by its deadline: the last one goes on.
    Late,
    /// The latest observation is too old, or there is none: no plan is made of it, and the last one goes on.
    Stale,
    /// The robot waits for the plan that [`Timing::Waiting`](super::Timing::Waiting) simulates.
    Waiting,
    /// There is no action of a plan for this step: it is as [`WhenDry`](super::WhenDry) says.
    Dry,
}

impl State {
    /// Its name: `planned`, `dropped`, `late`, `stale`, `waiting` or `dry`.
    pub fn name(self) -> &'static str {
        match self {
            State::Planned => "planned",
            State::Dropped => "dropped",
            State::Late => "late",
            State::Stale => "stale",
            State::Waiting => "waiting",
            State::Dry => "dry",
        }
    }
}

/// The action of a control step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Action<'a> {
    /// Its numbers, in the units of the model's data.
    pub values: &'a [f32],
    /// What the step came to.
    pub state: State,
    /// The number of the plan that it is of, from 0; none where it is of none.
    pub plan: Option<u64>,
    /// Which of the plan's actions it is: the control steps from the plan's observation to now.
    pub place: usize,
}

/// What the control steps since the policy was made, or since [`Policy::reset`](super::Policy::reset), came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Control steps.
    pub steps: u64,
    /// Plans that were made.
    pub plans: u64,
    /// Those of them that were of no use, since all of their actions were of the past.
    pub discarded: u64,
    /// Those that a deadline cut short, and that are as of fewer network calls.
    pub cut_short: u64,
    /// Plans that a deadline ended before the first network call: there is none.
    pub missed: u64,
    /// Plans that failed: each was an error of [`Policy::act`](super::Policy::act).
    pub failed: u64,
    /// Steps without a new observation.
    pub dropped: u64,
    /// Steps whose latest observation was too old, or that had none.
    pub stale: u64,
    /// Steps at which a plan was not there that was expected.
    pub late: u64,
    /// Steps at which a simulated robot waited.
    pub waiting: u64,
    /// Steps without an action of a plan.
    pub dry: u64,
    /// The control steps that the latest plan took to be there.
    pub delay: usize,
    /// The most that one took.
    pub longest_delay: usize,
    /// The time that the latest plan took to make.
    pub plan_time: Duration,
    /// The longest that one took.
    pub longest_plan_time: Duration,
}
