//! Makes one plan.

use super::chunking::Join;
use crate::generator::Generator;
use crate::guard::guarded;
use crate::model::Normalizer;
use crate::request::Request;
use crate::sampler::Outcome;
use crate::{Error, ErrorKind, Result};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// A plan that is asked for, and then what it came to. There is one, which goes to and fro.
pub(super) struct Job {
    /// The seed and the number of the plan.
    pub seed: u64,
    pub index: u64,
    /// Which run of the policy it is of: one of an earlier run is of no use.
    pub run: u64,
    /// The control step at which it is asked for, and that of its first observation's.
    pub asked: i64,
    pub anchor: i64,
    /// The conditions of the observations, in the order of the history's.
    pub conditions: Vec<(String, Vec<f32>)>,
    /// What it is expected to be, of which so many actions are frozen, and so many known.
    pub last: Vec<f32>,
    pub frozen: usize,
    pub known: usize,
    /// When it must be there.
    pub deadline: Option<Instant>,
    /// What the run came to; none yet.
    pub result: Option<Result<Outcome>>,
    /// Its actions, if it came to any.
    pub plan: Vec<f32>,
    /// How long it took.
    pub took: Duration,
}

/// Makes plans.
pub(super) struct Planner {
    generator: Generator,
    normalizer: Normalizer,
    class: Option<usize>,
    /// Conditions that are no observations.
    constant: Vec<(String, Vec<f32>)>,
    /// From the last plan, this share of the way.
    warm_start: Option<f64>,
    join: Join,
    /// The longest that a network call has taken.
    call: Duration,
}

impl Planner {
    pub fn new(
        generator: Generator,
        normalizer: Normalizer,
        (class, constant): (Option<usize>, Vec<(String, Vec<f32>)>),
        warm_start: Option<f64>,
        join: Join,
    ) -> Self {
        Planner { generator, normalizer, class, constant, warm_start, join, call: Duration::ZERO }
    }

    /// Carries a job out. `cancel` ends it.
    pub fn carry_out(&mut self, job: &mut Job, cancel: Option<&AtomicBool>) {
        let start = Instant::now();
        let result = guarded(|| self.plan(job, cancel));
        let failed = || Err(Error::new(ErrorKind::Network, "planning failed an internal check"));
        let result = result.unwrap_or_else(failed);
        job.took = start.elapsed();
        if let Ok(outcome) = &result
            && outcome.nfe > 0
        {
            self.call = self.call.max(job.took / outcome.nfe.min(u32::MAX as usize) as u32);
        }
        job.result = Some(result);
    }

    fn plan(&mut self, job: &mut Job, cancel: Option<&AtomicBool>) -> Result<Outcome> {
        let Job { seed, index, conditions, last, plan, .. } = job;
        let mut request = Request::new(*seed, *index).without_class();
        if let Some(class) = self.class {
            request = request.class(class);
        }
        for (name, values) in self.constant.iter().chain(&*conditions) {
            request = request.condition(name, values);
        }
        if let Some(cancel) = cancel {
            request = request.cancel(cancel);
        }
        // a call that is under way is ended, so none may begin that would end too late
        if let Some(deadline) = job.deadline {
            request = request.deadline(deadline.checked_sub(self.call).unwrap_or(deadline));
        }
        if let Some(strength) = self.warm_start.filter(|_| job.known > 0) {
            request = request.near(last, strength);
        }
        if let Some(constraint) = self.join.to(last, (job.frozen, job.known), &self.normalizer)? {
            request = request.constraint(constraint);
        }
        let generated = self.generator.run(&request)?;
        plan.copy_from_slice(generated.sample);
        Ok(generated.outcome)
    }

    /// Does what the first runs would: see [`Generator::prepare`].
    ///
    /// # Errors
    /// When the network fails.
    pub fn prepare(&mut self) -> Result<()> {
        self.generator.prepare()
    }
}
