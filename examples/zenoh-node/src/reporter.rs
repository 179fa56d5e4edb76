//! The thread that publishes what the control loop did: actions, heartbeats, the status; and that keeps the log of latencies.

use crate::attachment::Attachment;
use crate::config::{Report, ReportMessage};
use crate::control::{Cause, Phase, Reports, Step, Watchdog};
use crate::message::{Encoder, write_string, write_u64};
use crate::status::{Latencies, Status, Totals};
use crate::topic::{Complaint, Inbox, say};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use zenoh::pubsub::Publisher;
use zenoh::qos::{CongestionControl, Priority};
use zenoh::{Session, Wait};

/// A key that is published under.
pub struct Outlet {
    /// Late is as bad as never: nothing waits for a network that does not keep up.
    publisher: Publisher<'static>,
    /// For what must not be lost.
    patient: Publisher<'static>,
    id: [u8; 16],
    sequence: i64,
}

impl Outlet {
    /// # Errors
    /// When Zenoh does not take the key.
    pub fn new(session: &Session, key: &str) -> Result<Self, String> {
        let declare = |congestion_control| {
            let publisher = session.declare_publisher(key.to_string()).congestion_control(congestion_control);
            let publisher = publisher.priority(Priority::RealTime).express(true).wait();
            publisher.map_err(|e| format!("{key} cannot be published under: {e}"))
        };
        let (publisher, patient) = (declare(CongestionControl::Drop)?, declare(CongestionControl::Block)?);
        Ok(Outlet { publisher, patient, id: session.zid().to_le_bytes(), sequence: 0 })
    }

    /// Publishes a message, or drops it where the network does not keep up.
    pub fn put(&mut self, payload: Vec<u8>) -> zenoh::Result<()> {
        self.sequence += 1;
        self.publisher.put(payload).attachment(self.attachment()).wait()
    }

    /// Publishes a message and waits for room for it, for five seconds at most unless Zenoh is told otherwise.
    pub fn put_patiently(&mut self, payload: Vec<u8>) -> zenoh::Result<()> {
        self.sequence += 1;
        self.patient.put(payload).attachment(self.attachment()).wait()
    }

    fn attachment(&self) -> [u8; 33] {
        Attachment { sequence: self.sequence, publisher: self.id }.write(SystemTime::now())
    }

    /// Counts a message without publishing it, so that it is lost.
    pub fn skip(&mut self) {
        self.sequence += 1;
    }
}

/// What is published every so often.
pub struct Timed {
    outlet: Outlet,
    period: Duration,
    message: ReportMessage,
    due: Instant,
}

impl Timed {
    /// # Errors
    /// When Zenoh does not take the key.
    pub fn new(session: &Session, report: &Report) -> Result<Self, String> {
        let outlet = Outlet::new(session, &report.key)?;
        Ok(Timed { outlet, period: report.period(), message: report.message, due: Instant::now() })
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = (self.due + self.period).max(now);
        true
    }
}

/// Publishes what the control loop did.
pub struct Reporter {
    reports: Reports,
    action: Outlet,
    encoder: Encoder,
    heartbeat: Option<Timed>,
    status: Option<Timed>,
    inboxes: Vec<Arc<Inbox>>,
    operator: Option<Arc<Watchdog>>,
    csv: Option<BufWriter<File>>,
    began: Instant,
    latencies: Latencies,
    totals: Totals,
    phase: Option<Phase>,
    /// The control steps at the last heartbeat.
    beaten: u64,
    failures: [Complaint; 3],
}

impl Reporter {
    #[expect(clippy::too_many_arguments, reason = "each is another thing that it reports on, or to")]
    pub fn new(
        reports: Reports,
        action: Outlet,
        encoder: Encoder,
        heartbeat: Option<Timed>,
        status: Option<Timed>,
        inboxes: Vec<Arc<Inbox>>,
        operator: Option<Arc<Watchdog>>,
        csv: Option<BufWriter<File>>,
    ) -> Self {
        Reporter {
            reports,
            action,
            encoder,
            heartbeat,
            status,
            inboxes,
            operator,
            csv,
            began: Instant::now(),
            latencies: Latencies::default(),
            totals: Totals::default(),
            phase: None,
            beaten: 0,
            failures: Default::default(),
        }
    }

    /// Goes on until the control loop has ended; the latencies then.
    ///
    /// # Errors
    /// When it ended without a last step, which is by a panic. The stop action is not published then.
    pub fn run(mut self) -> Result<Latencies, String> {
        loop {
            let is_abandoned = self.reports.done.is_abandoned();
            while let Ok(mut step) = self.reports.done.pop() {
                self.report(&mut step);
                let is_last = step.phase == Phase::Ended;
                // there is room: there are no more of them than places
                _ = self.reports.free.push(step);
                if is_last {
                    self.publish_status();
                    self.csv.take().map_or(Ok(()), |mut csv| csv.flush()).map_err(|e| format!("latency_csv: {e}"))?;
                    return Ok(self.latencies);
                }
            }
            if is_abandoned {
                return Err("the control loop has ended by itself".into());
            }
            let now = Instant::now();
            // a heartbeat is the control loop's: one that stands still has none
            if self.totals.counts.steps > self.beaten && self.heartbeat.as_mut().is_some_and(|timed| timed.is_due(now))
            {
                self.publish_heartbeat();
            }
            if self.status.as_mut().is_some_and(|timed| timed.is_due(now)) {
                self.publish_status();
            }
            let due = self.status.as_ref().map(|timed| timed.due).into_iter();
            let due = due.chain(self.heartbeat.as_ref().map(|timed| timed.due).filter(|due| *due > now)).min();
            let wait = due.map_or(Duration::from_secs(1), |due| due.saturating_duration_since(now));
            // the control loop wakes it for each step
            std::thread::park_timeout(wait.max(Duration::from_micros(100)));
        }
    }

    fn report(&mut self, step: &mut Step) {
        if step.is_published {
            let payload = self.encoder.encode(&step.values, SystemTime::now());
            // the first action that stops the robot, and the last of all; others are made good by the next
            let must_arrive = step.phase != Phase::Running && self.phase != Some(step.phase);
            let put = if must_arrive { self.action.put_patiently(payload) } else { self.action.put(payload) };
            match put {
                Ok(()) => self.totals.note_published(step.phase == Phase::Running),
                Err(e) => {
                    self.totals.unpublished += 1;
                    self.failures[0].say(&format_args!("an action cannot be published: {e}"));
                }
            }
        }
        let latency = step.received.map(|received| received.elapsed());
        if let Some(latency) = latency.filter(|_| step.is_published) {
            self.latencies.note_action(latency);
        }
        if let Some(error) = step.error.take() {
            self.failures[1].say(&format_args!("planning failed: {error}"));
        }
        if let Some(plan_time) = self.totals.update(step) {
            self.latencies.note_plan(plan_time);
        }
        if self.phase != Some(step.phase) {
            self.tell(step.phase);
            self.phase = Some(step.phase);
        }
        self.write_row(step, latency);
    }

    /// Says that the loop does something else now.
    fn tell(&self, phase: Phase) {
        let names = || self.inboxes.iter().map(|inbox| inbox.name());
        match phase {
            Phase::Waiting(cause) => say(&format_args!("waiting: {}", because(cause, names()))),
            Phase::Running => say(&"running"),
            Phase::Stopped(cause) => say(&format_args!("stopped: {}", because(cause, names()))),
            Phase::Ended => say(&"ended"),
        }
    }

    fn publish_heartbeat(&mut self) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        self.beaten = self.totals.counts.steps;
        let payload = match heartbeat.message {
            ReportMessage::Plain => self.beaten.to_le_bytes().to_vec(),
            ReportMessage::Ros => write_u64(self.beaten),
        };
        if let Err(e) = heartbeat.outlet.put(payload) {
            self.failures[2].say(&format_args!("the heartbeat cannot be published: {e}"));
        }
    }

    fn publish_status(&mut self) {
        let Some(status) = &mut self.status else { return };
        let phase = self.phase.unwrap_or(Phase::Waiting(Cause::Observation(0)));
        let text = Status::new(phase, &self.totals, &self.latencies, &self.inboxes, self.operator.as_deref()).to_json();
        let payload = match status.message {
            ReportMessage::Plain => text.into_bytes(),
            ReportMessage::Ros => write_string(&text),
        };
        let put = if phase == Phase::Ended { status.outlet.put_patiently(payload) } else { status.outlet.put(payload) };
        if let Err(e) = put {
            self.failures[2].say(&format_args!("the status cannot be published: {e}"));
        }
    }

    fn write_row(&mut self, step: &Step, latency: Option<Duration>) {
        let Some(csv) = self.csv.as_mut().filter(|_| step.is_published) else { return };
        let micros = |duration: Duration| duration.as_micros();
        let number = |value: Option<u128>| value.map_or(String::new(), |value| value.to_string());
        let at = micros(self.began.elapsed());
        let state = step.state.map_or("stop", edgegen::policy::State::name);
        let (plan, latency) = (number(step.plan.map(u128::from)), number(latency.map(micros)));
        let row = writeln!(csv, "{at},{},{state},{plan},{latency},{}", step.counts.steps, micros(step.stats.plan_time));
        if let Err(e) = row {
            say(&format_args!("latency_csv: {e}; it ends here"));
            self.csv = None;
        }
    }
}

/// The file of latencies, begun.
///
/// # Errors
/// When it cannot be written.
pub fn csv(path: &Path) -> Result<BufWriter<File>, String> {
    let failed = |e| format!("latency_csv: {}: {e}", path.display());
    let mut csv = BufWriter::new(File::create(path).map_err(failed)?);
    writeln!(csv, "microseconds,step,state,plan,latency_us,plan_us").map_err(failed)?;
    Ok(csv)
}

/// Why the policy does not act.
pub fn because<'a>(cause: Cause, mut names: impl Iterator<Item = &'a str>) -> String {
    match cause {
        Cause::Observation(place) => format!("no fresh observation '{}'", names.nth(place).unwrap_or_default()),
        Cause::Operator => "no heartbeat of the operator".into(),
        Cause::Plan => "the first plan failed".into(),
    }
}
