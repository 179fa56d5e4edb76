//! What the node tells of itself.

use crate::control::{Counts, Phase, Step, Watchdog};
use crate::reporter::because;
use crate::topic::Inbox;
use edgegen::policy::Stats;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Counts of all that was reported.
#[derive(Default)]
pub struct Totals {
    pub counts: Counts,
    /// Actions of the policy, and those that stop the robot.
    pub actions: u64,
    pub stop_actions: u64,
    pub unpublished: u64,
    /// Of the runs of the policy before this one.
    earlier: Planning,
    /// Of this one.
    stats: Stats,
}

impl Totals {
    pub fn note_published(&mut self, is_of_policy: bool) {
        *if is_of_policy { &mut self.actions } else { &mut self.stop_actions } += 1;
    }

    /// Takes what a step says; how long a plan took, if there is a new one.
    pub fn update(&mut self, step: &Step) -> Option<Duration> {
        if step.counts.runs != self.counts.runs {
            self.earlier = self.planning();
            self.stats = Stats::default();
        }
        let is_new = step.stats.plans > self.stats.plans;
        (self.counts, self.stats) = (step.counts, step.stats);
        is_new.then_some(step.stats.plan_time)
    }

    fn planning(&self) -> Planning {
        let (earlier, stats) = (&self.earlier, &self.stats);
        Planning {
            steps: earlier.steps + stats.steps,
            plans: earlier.plans + stats.plans,
            discarded: earlier.discarded + stats.discarded,
            cut_short: earlier.cut_short + stats.cut_short,
            missed: earlier.missed + stats.missed,
            failed: earlier.failed + stats.failed,
            dropped: earlier.dropped + stats.dropped,
            late: earlier.late + stats.late,
            dry: earlier.dry + stats.dry,
            longest_delay: earlier.longest_delay.max(stats.longest_delay),
        }
    }
}

/// `edgegen::policy`'s counts, over all runs.
#[derive(Clone, Debug, Default, Serialize)]
struct Planning {
    steps: u64,
    plans: u64,
    discarded: u64,
    cut_short: u64,
    missed: u64,
    failed: u64,
    dropped: u64,
    late: u64,
    dry: u64,
    longest_delay: usize,
}

/// How long it took from an observation to the action that was made of it, and how long plans took, in microseconds.
pub struct Latencies {
    actions: Histogram<u64>,
    plans: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        // to three figures, up to a minute
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).expect("these are bounds");
        Latencies { actions: histogram(), plans: histogram() }
    }
}

impl Latencies {
    pub fn note_action(&mut self, latency: Duration) {
        self.actions.saturating_record(micros(latency));
    }

    pub fn note_plan(&mut self, took: Duration) {
        self.plans.saturating_record(micros(took));
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (actions, plans) = (Times::of(&self.actions), Times::of(&self.plans));
        writeln!(f, "from observation to action: {actions}")?;
        write!(f, "a plan: {plans}")
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    count: u64,
    p50: u64,
    p99: u64,
    max: u64,
}

impl Times {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |share| histogram.value_at_quantile(share);
        Times { count: histogram.len(), p50: at(0.5), p99: at(0.99), max: histogram.max() }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1e3;
        let Times { count, p50, p99, max } = *self;
        write!(f, "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms of {count}", ms(p50), ms(p99), ms(max))
    }
}

/// The status, as it is published.
#[derive(Serialize)]
pub struct Status<'a> {
    phase: &'static str,
    cause: Option<String>,
    steps: u64,
    actions: u64,
    stop_actions: u64,
    stops: u64,
    overruns: u64,
    unreported: u64,
    unpublished: u64,
    policy: Planning,
    observations: BTreeMap<&'a str, Topic>,
    operator: Option<Heard>,
    latency_us: Times,
    plan_us: Times,
}

#[derive(Serialize)]
struct Topic {
    received: u64,
    lost: u64,
    refused: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Heard {
    received: u64,
    is_alive: bool,
}

impl<'a> Status<'a> {
    pub fn new(
        phase: Phase,
        totals: &Totals,
        latencies: &Latencies,
        inboxes: &'a [Arc<Inbox>],
        operator: Option<&Watchdog>,
    ) -> Self {
        let names = || inboxes.iter().map(|inbox| inbox.name());
        let (phase, cause) = match phase {
            Phase::Waiting(cause) => ("waiting", Some(because(cause, names()))),
            Phase::Running => ("running", None),
            Phase::Stopped(cause) => ("stopped", Some(because(cause, names()))),
            Phase::Ended => ("ended", None),
        };
        let topic = |inbox: &'a Arc<Inbox>| {
            let (received, lost) = inbox.received();
            let refused = inbox.refused().map(|(kind, count)| (kind.name(), count)).collect();
            (inbox.name(), Topic { received, lost, refused })
        };
        let heard =
            |watchdog: &Watchdog| Heard { received: watchdog.beats(), is_alive: watchdog.is_alive(Instant::now()) };
        Status {
            phase,
            cause,
            steps: totals.counts.steps,
            actions: totals.actions,
            stop_actions: totals.stop_actions,
            stops: totals.counts.stops,
            overruns: totals.counts.overruns,
            unreported: totals.counts.unreported,
            unpublished: totals.unpublished,
            policy: totals.planning(),
            observations: inboxes.iter().map(topic).collect(),
            operator: operator.map(heard),
            latency_us: Times::of(&latencies.actions),
            plan_us: Times::of(&latencies.plans),
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("these fields are JSON")
    }
}
