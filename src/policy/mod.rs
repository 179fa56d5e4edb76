//! A policy in a control loop: an observation in, an action out, at every control step.
//!
//! ```text
//! observation ─→ history ─→ job ─→ planner (in the call, or on a thread of its own)
//!                            ↑        │
//!                 what the last plan  │ plan
//!                 has for the same    ↓
//!                 steps ←───────── queue ─→ action
//! ```
//! A plan is a sample of the model, actions `[T, D]`. A new one is asked for every `n_action_steps` control steps, from the
//! observations of the last `n_obs_steps`, and the last one is carried out until it is there.
//!
//! ```
//! # #[cfg(feature = "onnx")] {
//! use edgegen::Model;
//! use edgegen::policy::{Observation, Timing};
//!
//! let model = Model::open("examples/policy/push.onnx")?;
//! // of two observations, and plans that begin with the step of the latest
//! let settings = model.generator().steps(3).policy().n_obs_steps(2).first_action(0).n_action_steps(2);
//! let mut policy = settings.timing(Timing::Asynchronous).build()?;
//!
//! let seen = [0.15, 0.0, 0.6, 0.0];
//! policy.prime(&Observation::new().with("global_cond", &seen))?;
//! for _ in 0..10 {
//!     let action = policy.act(&Observation::new().with("global_cond", &seen))?;
//!     assert_eq!(action.values.len(), 2);
//! }
//! # }
//! # Ok::<(), edgegen::Error>(())
//! ```

mod chunking;
mod exchange;
mod history;
mod planner;
mod queue;
mod settings;
mod state;

pub use crate::constraint::Jacobian;
pub use chunking::{Chunking, Joint};
pub use history::Observation;
pub use settings::{PolicyBuilder, Timing, WhenDry};
pub use state::{Action, State, Stats};

use crate::sampler::Ending;
use crate::{Error, ErrorKind, Result};
use exchange::Exchange;
use history::History;
use planner::{Job, Planner};
use queue::{Queue, Shape};
use std::time::{Duration, Instant};

/// A policy in a control loop: see the [module](self).
///
/// For one thread at a time. Dropping it ends the thread that plans, after the network call under way.
pub struct Policy {
    settings: PolicyBuilder,
    shape: Shape,
    n_action_steps: i64,
    history: History,
    queue: Queue,
    planning: Planning,
    /// The job, while it is here.
    job: Option<Box<Job>>,
    /// When the job that is asked for is there, where that is simulated.
    due: Option<i64>,
    /// When the job that is not here was asked for.
    asked: i64,
    /// The control step.
    now: i64,
    /// The number of the next plan.
    next: u64,
    /// Counts resets.
    run: u64,
    delays: Delays,
    stats: Stats,
    action: Vec<f32>,
    has_acted: bool,
    /// Whether the latest plan missed its deadline.
    missed: bool,
}

/// Where plans are made.
enum Planning {
    Here(Box<Planner>),
    Elsewhere(Exchange),
}

impl Policy {
    fn new(
        settings: &PolicyBuilder,
        history: History,
        planner: Planner,
        shape: Shape,
        n_action_steps: usize,
    ) -> Result<Self> {
        let planning = match settings.timing {
            Timing::Asynchronous => Planning::Elsewhere(Exchange::start(planner)?),
            _ => Planning::Here(Box::new(planner)),
        };
        let conditions = history.conditions().map(|(name, values)| (name.to_string(), values.to_vec())).collect();
        let (last, plan) = (vec![0.0; shape.horizon * shape.width], vec![0.0; shape.horizon * shape.width]);
        let job = Job {
            seed: settings.seed,
            index: 0,
            run: 0,
            asked: 0,
            anchor: 0,
            conditions,
            last,
            frozen: 0,
            known: 0,
            deadline: None,
            result: None,
            plan,
            took: Duration::ZERO,
        };
        Ok(Policy {
            settings: settings.clone(),
            shape,
            n_action_steps: n_action_steps as i64,
            history,
            queue: Queue::new(shape, settings.ensemble, n_action_steps),
            planning,
            job: Some(Box::new(job)),
            due: None,
            asked: 0,
            now: 0,
            next: 0,
            run: 0,
            delays: Delays::new(settings.expected_delay),
            stats: Stats::default(),
            action: vec![0.0; shape.width],
            has_acted: false,
            missed: false,
        })
    }

    /// The action of the next control step, for what was seen for it. To be called once a control step.
    ///
    /// With [`Timing::Asynchronous`] it never waits, and neither allocates nor takes a lock; all that it may ask of the system
    /// is to wake the thread that plans. With the others it makes a plan now and then, within the
    /// [budget](PolicyBuilder::budget) if there is one.
    ///
    /// # Errors
    /// When the observation is not what the network takes; nothing has changed then, and the step may be tried again.
    ///
    /// When a plan has failed, once for each; when there is no action and [`WhenDry`] gives none. The control step has then
    /// passed, and [`action`](Self::action) has what is to be done all the same: what the last plan has for it, else what
    /// [`WhenDry`] says, else the last action. The next step tries again.
    pub fn act(&mut self, observation: &Observation) -> Result<Action<'_>> {
        self.history.check(observation)?;
        let dropped = observation.is_missing();
        self.history.push(observation);
        let landed = self.land();
        let planned = if landed.is_ok() { self.plan() } else { Ok(()) };
        let taken = self.queue.take(self.now, &mut self.action);
        let waits = matches!(self.settings.timing, Timing::Waiting { .. }) && self.due.is_some();
        let is_late = self.job.is_none() && self.now - self.asked >= self.expected().max(1) as i64;
        let state = match taken {
            None if waits => State::Waiting,
            None => State::Dry,
            Some(_) if self.is_stale() => State::Stale,
            Some(_) if self.missed || is_late => State::Late,
            Some(_) if dropped => State::Dropped,
            Some(_) => State::Planned,
        };
        let acted = if taken.is_some() { Ok(()) } else { self.act_without_plan() };
        self.count(state, dropped);
        self.queue.note(self.now, &self.action);
        self.now += 1;
        landed.and(planned).and(acted)?;
        let (plan, place) = taken.map_or((None, 0), |taken| (Some(taken.plan), taken.place));
        Ok(Action { values: &self.action, state, plan, place })
    }

    /// Makes a plan of an observation, waits for it and puts it first: to be called before the loop begins, while the robot
    /// stands still, so that there is an action for the first control step. That step's own observation is given to
    /// [`act`](Self::act) again.
    ///
    /// # Errors
    /// When the observation is not what the network takes, or is missing; when the plan fails.
    pub fn prime(&mut self, observation: &Observation) -> Result<()> {
        self.history.check(observation)?;
        self.history.push(observation);
        if self.history.age().is_none() {
            return Err(Error::invalid("the first observation cannot be missing"));
        }
        let mut job = self.recall()?;
        self.queue.clear();
        (self.due, self.missed) = (None, false);
        self.fill(&mut job, self.now, None);
        match &mut self.planning {
            Planning::Here(planner) => planner.carry_out(&mut job, None),
            Planning::Elsewhere(exchange) => {
                exchange.send(job).map_err(|_| ended())?;
                job = self.recall()?;
            }
        }
        let result = self.take(&mut job, 0);
        self.job = Some(job);
        result
    }

    /// Begins anew, as at the start of an episode: without observations, plans, actions and counts. Plans are those of (seed,
    /// k), from k = 0. It does not wait: a plan under way is left to end, and is of no use.
    pub fn reset(&mut self, seed: u64) {
        self.settings.seed = seed;
        self.history.clear();
        self.queue.clear();
        self.run += 1;
        (self.due, self.now, self.next) = (None, 0, 0);
        (self.has_acted, self.missed) = (false, false);
        self.stats = Stats::default();
    }

    /// The latest action, zeros before the first. After an error of [`act`](Self::act), what it says there.
    pub fn action(&self) -> &[f32] {
        &self.action
    }

    /// What the control steps so far came to.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The actions of a plan and the numbers of an action: `[T, D]`.
    pub fn plan_shape(&self) -> [usize; 2] {
        [self.shape.horizon, self.shape.width]
    }

    /// What an observation consists of: the names of its arrays, with how many numbers each has at one control step.
    pub fn observed(&self) -> impl Iterator<Item = (&str, usize)> {
        self.history.parts()
    }

    fn is_stale(&self) -> bool {
        match (self.history.age(), self.settings.stale_after) {
            (None, _) => true,
            (Some(age), Some(limit)) => age > limit,
            (Some(_), None) => false,
        }
    }

    /// The control steps that a plan is expected to take.
    fn expected(&self) -> usize {
        match self.settings.timing {
            Timing::Synchronous | Timing::Waiting { .. } => 0,
            Timing::Simulated { delay } => delay,
            Timing::Asynchronous => self.delays.expected(),
        }
    }

    /// Takes the plan that is there by now, if there is one.
    fn land(&mut self) -> Result<()> {
        let mut job = match (&mut self.planning, self.due) {
            (Planning::Elsewhere(exchange), _) if self.job.is_none() => match exchange.receive() {
                Some(job) => job,
                None if exchange.has_ended() => return Err(ended()),
                None => return Ok(()),
            },
            (Planning::Here(_), Some(due)) if due <= self.now => {
                self.due = None;
                self.job.take().expect("a job that is made here is here")
            }
            _ => return Ok(()),
        };
        let delay = usize::try_from(self.now - job.asked).unwrap_or(0);
        let result = if job.run == self.run {
            self.delays.note(delay);
            self.take(&mut job, delay)
        } else {
            Ok(())
        };
        self.job = Some(job);
        result
    }

    /// Takes what a job came to, so many control steps after it was asked for.
    fn take(&mut self, job: &mut Job, delay: usize) -> Result<()> {
        let result = job.result.take().expect("a job that comes back was carried out");
        let outcome = result.inspect_err(|_| self.stats.failed += 1)?;
        self.missed = outcome.nfe == 0;
        if self.missed {
            self.stats.missed += 1;
            return Ok(());
        }
        let stats = &mut self.stats;
        stats.plans += 1;
        stats.cut_short += u64::from(outcome.ending != Ending::Complete);
        (stats.delay, stats.plan_time) = (delay, job.took);
        stats.longest_delay = stats.longest_delay.max(delay);
        stats.longest_plan_time = stats.longest_plan_time.max(job.took);
        if self.now - job.anchor >= self.shape.usable() as i64 {
            stats.discarded += 1;
            return Ok(());
        }
        self.queue.put(&job.plan, job.anchor, job.index);
        Ok(())
    }

    /// Asks for a plan if it is time for one; with the timings that make it here, makes it.
    fn plan(&mut self) -> Result<()> {
        let Some(age) = self.history.age() else { return Ok(()) };
        if self.is_stale() || self.job.is_none() || self.due.is_some() {
            return Ok(());
        }
        let observed = self.now - age as i64;
        let since = self.queue.since_newest(observed);
        // of the same observation there is a plan already
        let is_dry = self.queue.since_newest(self.now).is_none_or(|s| s >= self.shape.usable() as i64);
        if since.is_some_and(|since| since < self.n_action_steps && !(is_dry && since > 0)) {
            return Ok(());
        }
        let is_first = since.is_none();
        let mut job = self.job.take().expect("it was looked at");
        let deadline = self.settings.budget.and_then(|budget| Instant::now().checked_add(budget));
        self.fill(&mut job, observed, deadline);
        self.asked = self.now;
        let planner = match &mut self.planning {
            Planning::Here(planner) => planner,
            Planning::Elsewhere(exchange) => {
                return exchange.send(job).map_err(|job| {
                    self.job = Some(job);
                    ended()
                });
            }
        };
        planner.carry_out(&mut job, None);
        let delay = match self.settings.timing {
            Timing::Simulated { delay } | Timing::Waiting { delay } if !is_first => delay,
            _ => 0,
        };
        if delay > 0 && matches!(job.result, Some(Ok(_))) {
            if matches!(self.settings.timing, Timing::Waiting { .. }) {
                // the robot stands still until the plan begins
                job.anchor += delay as i64;
                self.queue.clear();
            }
            self.due = Some(self.now + delay as i64);
            self.job = Some(job);
            return Ok(());
        }
        let result = self.take(&mut job, 0);
        self.job = Some(job);
        result
    }

    /// Writes down what is asked for: a plan from the control step `anchor` on.
    fn fill(&mut self, job: &mut Job, anchor: i64, deadline: Option<Instant>) {
        (job.seed, job.index, job.run) = (self.settings.seed, self.next, self.run);
        (job.asked, job.anchor, job.deadline, job.result) = (self.now, anchor, deadline, None);
        self.next += 1;
        for ((_, to), (_, from)) in job.conditions.iter_mut().zip(self.history.conditions()) {
            to.copy_from_slice(from);
        }
        job.known = self.queue.expect(anchor, self.now, &mut job.last);
        let past = usize::try_from(self.now - anchor).unwrap_or(0);
        job.frozen = self.shape.first.saturating_add(past).saturating_add(self.expected());
    }

    /// The job, waited for where it is elsewhere.
    fn recall(&mut self) -> Result<Box<Job>> {
        loop {
            if let Some(job) = self.job.take() {
                return Ok(job);
            }
            let Planning::Elsewhere(exchange) = &mut self.planning else { return Err(ended()) };
            match exchange.receive() {
                Some(job) => self.job = Some(job),
                None if exchange.has_ended() => return Err(ended()),
                None => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }

    /// Sets the action of a step that no plan has one for.
    fn act_without_plan(&mut self) -> Result<()> {
        let no_action = |message: &str| Err(Error::new(ErrorKind::NoAction, message));
        match &self.settings.when_dry {
            WhenDry::Safe(action) => self.action.copy_from_slice(action),
            WhenDry::Hold if self.has_acted => {}
            WhenDry::Hold => {
                return no_action(
                    "there is no action yet, and none to hold: prime the policy before the loop, or give a safe action",
                );
            }
            WhenDry::Error => return no_action("the queue has run dry: no plan has an action for this control step"),
        }
        Ok(())
    }

    fn count(&mut self, state: State, dropped: bool) {
        let stats = &mut self.stats;
        stats.steps += 1;
        stats.dropped += u64::from(dropped);
        match state {
            State::Late => stats.late += 1,
            State::Waiting => stats.waiting += 1,
            State::Dry => stats.dry += 1,
            _ => {}
        }
        let is_stale = self.is_stale();
        self.stats.stale += u64::from(is_stale);
        self.has_acted |=
            !matches!(state, State::Dry | State::Waiting) || matches!(self.settings.when_dry, WhenDry::Safe(_));
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Network, "the thread that plans has ended: make the policy anew")
}

/// The control steps that the latest plans took.
struct Delays {
    latest: [usize; 10],
    count: usize,
    /// What is expected before there are any.
    first: usize,
}

impl Delays {
    fn new(first: usize) -> Self {
        Delays { latest: [0; 10], count: 0, first }
    }

    fn note(&mut self, delay: usize) {
        self.latest[self.count % self.latest.len()] = delay;
        self.count += 1;
    }

    /// The most that one took, as the paper has it.
    fn expected(&self) -> usize {
        let latest = &self.latest[..self.count.min(self.latest.len())];
        latest.iter().copied().max().unwrap_or(self.first)
    }
}
