//! The control loop: at every step it looks at what was observed, and acts or stops. It neither allocates nor takes a lock, and
//! knows nothing of Zenoh: what it did goes to the [reporter](crate::reporter) in memory that is used again.

use crate::topic::Latest;
use edgegen::policy::{Observation, Policy, State, Stats};
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// What a control step came to, on its way to the reporter.
#[derive(Clone, Debug)]
pub struct Step {
    /// The action; of use if it is published.
    pub values: Vec<f32>,
    pub is_published: bool,
    pub phase: Phase,
    /// What the policy says of it, if it acted.
    pub state: Option<State>,
    pub plan: Option<u64>,
    /// When the newest observation came that it is an answer to.
    pub received: Option<Instant>,
    /// What went wrong.
    pub error: Option<String>,
    pub counts: Counts,
    /// Of the policy since it was reset last.
    pub stats: Stats,
}

/// What the loop is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// It has never acted.
    Waiting(Cause),
    Running,
    /// It publishes the stop action.
    Stopped(Cause),
    /// This was the last step.
    Ended,
}

/// Why it does not act.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// This observation is too old, or there was none.
    Observation(usize),
    /// The operator's heartbeat is too old, or there was none.
    Operator,
    /// The first plan failed.
    Plan,
}

/// Counts of the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub steps: u64,
    /// How often the policy was reset.
    pub runs: u64,
    /// How often the robot was stopped.
    pub stops: u64,
    /// Steps that began a period late or more.
    pub overruns: u64,
    /// Steps that could not be handed over, since the reporter did not keep up.
    pub unreported: u64,
}

/// What publishes a heartbeat, as the control loop sees it.
pub struct Watchdog {
    origin: Instant,
    /// Microseconds from the origin, and one; 0 before the first beat.
    last: AtomicU64,
    beats: AtomicU64,
    timeout: Duration,
}

impl Watchdog {
    pub fn new(timeout: Duration) -> Self {
        Watchdog { origin: Instant::now(), last: AtomicU64::new(0), beats: AtomicU64::new(0), timeout }
    }

    pub fn beat(&self) {
        let since = Instant::now().saturating_duration_since(self.origin).as_micros();
        self.last.store(u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1), Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    pub fn is_alive(&self, now: Instant) -> bool {
        let Some(last) = self.last.load(Ordering::Relaxed).checked_sub(1) else { return false };
        let last = self.origin + Duration::from_micros(last);
        now.saturating_duration_since(last) <= self.timeout
    }
}

/// How the loop is run.
pub struct Settings {
    pub period: Duration,
    /// The observation that a step waits for.
    pub step_on: Option<usize>,
    /// The action that stops the robot; none for the last one again.
    pub stop: Option<Vec<f32>>,
    pub resume: bool,
    pub seed: u64,
}

/// The control loop.
pub struct Control {
    policy: Policy,
    topics: Vec<Latest>,
    operator: Option<Arc<Watchdog>>,
    settings: Settings,
    /// Ends it.
    is_over: Arc<AtomicBool>,
    free: Consumer<Box<Step>>,
    done: Producer<Box<Step>>,
    reporter: Thread,
    phase: Phase,
    counts: Counts,
    /// The last action of the policy.
    last: Vec<f32>,
    has_acted: bool,
}

/// What is published of a step.
enum Published {
    Nothing,
    /// The policy's last action.
    Last,
    /// What stops the robot, if there is such an action.
    Stop,
}

/// The reporter's end of what the loop hands over.
pub struct Reports {
    pub done: Consumer<Box<Step>>,
    pub free: Producer<Box<Step>>,
}

/// The loop's end.
pub struct Handover {
    free: Consumer<Box<Step>>,
    done: Producer<Box<Step>>,
}

/// Both ends, for actions of so many numbers.
pub fn handover(width: usize) -> (Handover, Reports) {
    // a reporter that is so many steps late loses some
    const ROOM: usize = 64;
    let (mut free, to_fill) = RingBuffer::new(ROOM);
    let (to_report, done) = RingBuffer::new(ROOM);
    for _ in 0..ROOM {
        let step = Step {
            values: vec![0.0; width],
            is_published: false,
            phase: Phase::Waiting(Cause::Observation(0)),
            state: None,
            plan: None,
            received: None,
            error: None,
            counts: Counts::default(),
            stats: Stats::default(),
        };
        free.push(Box::new(step)).expect("there is room for all");
    }
    (Handover { free: to_fill, done: to_report }, Reports { done, free })
}

impl Control {
    pub fn new(
        policy: Policy,
        topics: Vec<Latest>,
        operator: Option<Arc<Watchdog>>,
        settings: Settings,
        is_over: Arc<AtomicBool>,
        handover: Handover,
        reporter: Thread,
    ) -> Self {
        let [_, width] = policy.plan_shape();
        let Handover { free, done } = handover;
        let (phase, counts) = (Phase::Waiting(Cause::Observation(0)), Counts::default());
        let last = vec![0.0; width];
        let has_acted = false;
        Control { policy, topics, operator, settings, is_over, free, done, reporter, phase, counts, last, has_acted }
    }

    /// Goes on until it is over, and then publishes the stop action.
    pub fn run(mut self) {
        let mut last = Instant::now();
        while !self.is_over.load(Ordering::Acquire) {
            if self.step() {
                last = Instant::now();
            }
            last = self.wait(last);
        }
        self.end();
    }

    /// Waits for the next step, the last of which was due at `last`; when it was due.
    fn wait(&mut self, last: Instant) -> Instant {
        let period = self.settings.period;
        let Some(place) = self.settings.step_on else {
            let due = last + period;
            self.sleep(due, |_| false);
            let now = Instant::now();
            if now.saturating_duration_since(due) < period {
                return due;
            }
            self.counts.overruns += 1;
            return now;
        };
        // what comes faster than that is not answered more often
        self.sleep(last + period / 2, |_| false);
        self.sleep(last + period + period / 2, |topics| topics[place].has_news());
        Instant::now()
    }

    /// Sleeps until then, or something is so after a wake, or it is over.
    fn sleep(&self, until: Instant, is_so: impl Fn(&[Latest]) -> bool) {
        while !self.is_over.load(Ordering::Acquire) && !is_so(&self.topics) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    /// One control step; whether it stood still for a first plan.
    pub fn step(&mut self) -> bool {
        self.counts.steps += 1;
        let received = self.look();
        let cause = self.cause(Instant::now());
        match (self.phase, cause) {
            (Phase::Running, None) => self.act(received, received.is_some()),
            (Phase::Running, Some(cause)) => {
                self.counts.stops += 1;
                self.stop(Phase::Stopped(cause), None);
            }
            (Phase::Stopped(because), None) if !self.settings.resume => self.stop(Phase::Stopped(because), None),
            (_, None) => {
                self.begin(received);
                return true;
            }
            (Phase::Waiting(_), Some(cause)) => self.stop(Phase::Waiting(cause), None),
            (_, Some(cause)) => self.stop(Phase::Stopped(cause), None),
        }
        false
    }

    /// Takes what came since the last look; when the newest of it came, if anything did.
    fn look(&mut self) -> Option<Instant> {
        let news = self.topics.iter_mut().filter_map(|topic| topic.look().then(|| topic.received()).flatten());
        news.max()
    }

    /// What keeps the policy from acting.
    fn cause(&self, now: Instant) -> Option<Cause> {
        if self.operator.as_ref().is_some_and(|operator| !operator.is_alive(now)) {
            return Some(Cause::Operator);
        }
        self.topics.iter().position(|topic| !topic.is_fresh(now)).map(Cause::Observation)
    }

    /// Makes a first plan, while the robot stands still, and acts by it.
    fn begin(&mut self, received: Option<Instant>) {
        self.counts.runs += 1;
        self.policy.reset(self.settings.seed);
        let primed = self.policy.prime(&observation(&self.topics));
        // that may have taken long
        let received = received.max(self.look());
        let (cause, error) = match primed {
            Ok(()) => (self.cause(Instant::now()), None),
            Err(error) => (Some(Cause::Plan), Some(error.to_string())),
        };
        match (cause, self.phase) {
            (None, _) => {
                self.phase = Phase::Running;
                self.act(received, true);
            }
            (Some(cause), Phase::Waiting(_)) => self.stop(Phase::Waiting(cause), error),
            (Some(cause), _) => self.stop(Phase::Stopped(cause), error),
        }
    }

    /// Lets the policy act: upon what there is, or upon nothing new.
    fn act(&mut self, received: Option<Instant>, has_news: bool) {
        let seen = if has_news { observation(&self.topics) } else { Observation::missing() };
        let (state, plan, error) = match self.policy.act(&seen) {
            Ok(action) => (Some(action.state), action.plan, None),
            // the step has passed, and there is an action for it all the same
            Err(error) => (None, None, Some(error.to_string())),
        };
        self.last.copy_from_slice(self.policy.action());
        self.has_acted = true;
        self.hand_over(Published::Last, |step| {
            (step.state, step.plan, step.received, step.error) = (state, plan, received, error);
        });
    }

    /// Publishes what stops the robot, once it has moved.
    fn stop(&mut self, phase: Phase, error: Option<String>) {
        self.phase = phase;
        let published = if matches!(phase, Phase::Waiting(_)) { Published::Nothing } else { Published::Stop };
        self.hand_over(published, |step| step.error = error);
    }

    /// Hands a step over; without waiting, and so not where the reporter does not keep up.
    fn hand_over(&mut self, published: Published, fill: impl FnOnce(&mut Step)) {
        let Ok(mut step) = self.free.pop() else {
            self.counts.unreported += 1;
            return;
        };
        let values = match published {
            Published::Nothing => None,
            Published::Stop if self.settings.stop.is_some() => self.settings.stop.as_deref(),
            Published::Stop | Published::Last => Some(self.last.as_slice()).filter(|_| self.has_acted),
        };
        if let Some(values) = values {
            step.values.copy_from_slice(values);
        }
        (step.state, step.plan, step.received) = (None, None, None);
        (step.is_published, step.phase, step.counts) = (values.is_some(), self.phase, self.counts);
        step.stats = self.policy.stats();
        fill(&mut step);
        // there is room: there are no more of them than places
        _ = self.done.push(step);
        self.reporter.unpark();
    }

    /// The last step, which may wait.
    fn end(&mut self) {
        let until = Instant::now() + Duration::from_secs(2);
        while self.free.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.phase = Phase::Ended;
        self.hand_over(Published::Stop, |_| ());
    }
}

/// All that was observed last.
fn observation(topics: &[Latest]) -> Observation<'_> {
    topics.iter().fold(Observation::new(), |all, topic| all.with(&topic.name, topic.values()))
}
