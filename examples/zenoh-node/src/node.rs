//! Puts the parts together, and takes them apart at a signal.

use crate::config::Config;
use crate::control::{Control, Settings, Watchdog, handover};
use crate::reporter::{Outlet, Reporter, Timed, csv};
use crate::topic::{Inbox, Latest, say, topic};
use edgegen::Model;
use edgegen::policy::Policy;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle, Thread};
use zenoh::pubsub::Subscriber;
use zenoh::{Session, Wait};

/// Runs the node until SIGINT or SIGTERM; a second one ends it at once.
///
/// # Errors
/// When the configuration does not fit the model, when Zenoh cannot be had, when a part of the node has ended by itself.
pub fn run(config: &Config) -> Result<(), String> {
    // from here on a signal is answered in order
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|e| format!("signals cannot be caught: {e}"))?;
    let failed = |e: edgegen::Error| e.to_string();
    let model = Model::open(&config.model).map_err(|e| format!("{}: {e}", config.model.display()))?;
    let policy = config.build_policy(&model).map_err(failed)?;
    let (inboxes, topics) = topics(config, &policy)?;
    let [_, width] = policy.plan_shape();
    let encoder = config.action.encoder(width)?;
    let csv = config.latency_csv.as_deref().map(csv).transpose()?;

    let session = zenoh::open(config.zenoh.to_config()?).wait().map_err(|e| format!("zenoh cannot be opened: {e}"))?;
    let operator = config.operator.as_ref().map(|operator| Arc::new(Watchdog::new(operator.timeout())));
    // messages may come in before there is a loop to wake
    let to_wake: Arc<OnceLock<Thread>> = Arc::default();
    let subscribers = subscribe(&session, config, &inboxes, operator.clone(), &to_wake)?;
    let timed = |report: &Option<_>| report.as_ref().map(|report| Timed::new(&session, report)).transpose();
    let (handover, reports) = handover(width);
    let action = Outlet::new(&session, &config.action.key)?;
    let (heartbeat, status) = (timed(&config.heartbeat)?, timed(&config.status)?);
    let reporter = Reporter::new(reports, action, encoder, heartbeat, status, inboxes.clone(), operator.clone(), csv);
    let (is_over, end) = (Arc::new(AtomicBool::new(false)), signals.handle());
    let reporter = spawn("edgegen-reporter", &end, || reporter.run())?;
    let settings = Settings {
        period: config.period(),
        step_on: config.step_on.as_ref().and_then(|name| topics.iter().position(|topic| topic.name == *name)),
        stop: config.stop_action(width),
        resume: config.safe_stop.resume,
        seed: config.policy.seed,
    };
    let to_report = reporter.thread().clone();
    let control = Control::new(policy, topics, operator, settings, is_over.clone(), handover, to_report);
    let control = spawn("edgegen-control", &end, || control.run())?;
    _ = to_wake.set(control.thread().clone());

    for _ in signals.forever() {
        if is_over.swap(true, Ordering::AcqRel) {
            say(&"ended at once, by a second signal");
            std::process::exit(1);
        }
        control.thread().unpark();
    }
    is_over.store(true, Ordering::Release);
    control.thread().unpark();
    let controlled = control.join();
    let reported = reporter.join().map_err(|_| "the reporter has failed an internal check".to_string())?;
    drop(subscribers);
    session.close().wait().map_err(|e| format!("zenoh cannot be closed: {e}"))?;
    controlled.map_err(|_| "the control loop has failed an internal check".to_string())?;
    let latencies = reported?;
    _ = writeln!(std::io::stdout(), "{latencies}");
    Ok(())
}

type Topics = (Vec<Arc<Inbox>>, Vec<Latest>);

/// Where the observations of the policy come in, in an order of its own.
fn topics(config: &Config, policy: &Policy) -> Result<Topics, String> {
    let (mut inboxes, mut topics) = (Vec::new(), Vec::new());
    for (name, len) in policy.observed() {
        let Some(observation) = config.observations.get(name) else {
            return Err(format!("observations: the policy observes '{name}', of {len} numbers, which is missing"));
        };
        let decoder = observation.decoder(len).map_err(|e| format!("observations.{name}: {e}"))?;
        let (inbox, latest) = topic(name, decoder, observation.max_age());
        inboxes.push(Arc::new(inbox));
        topics.push(latest);
    }
    if let Some(unknown) = config.observations.keys().find(|name| !policy.observed().any(|(known, _)| known == *name)) {
        let known: Vec<&str> = policy.observed().map(|(name, _)| name).collect();
        return Err(format!("observations: the policy does not observe '{unknown}', but {}", known.join(", ")));
    }
    Ok((inboxes, topics))
}

/// Lets Zenoh's threads put messages where they belong.
fn subscribe(
    session: &Session,
    config: &Config,
    inboxes: &[Arc<Inbox>],
    operator: Option<Arc<Watchdog>>,
    control: &Arc<OnceLock<Thread>>,
) -> Result<Vec<Subscriber<()>>, String> {
    let failed = |key: &str, e: zenoh::Error| format!("{key} cannot be subscribed to: {e}");
    let mut subscribers = Vec::new();
    for inbox in inboxes {
        let key = &config.observations[inbox.name()].key;
        let is_waited_for = config.step_on.as_deref() == Some(inbox.name());
        let (inbox, control) = (inbox.clone(), control.clone());
        let subscriber = session.declare_subscriber(key.as_str()).callback(move |sample| {
            let attachment = sample.attachment().map(|attachment| attachment.to_bytes());
            let is_taken = inbox.put(&sample.payload().to_bytes(), attachment.as_deref());
            if is_taken
                && is_waited_for
                && let Some(control) = control.get()
            {
                control.unpark();
            }
        });
        subscribers.push(subscriber.wait().map_err(|e| failed(key, e))?);
    }
    if let (Some(settings), Some(watchdog)) = (&config.operator, operator) {
        let subscriber = session.declare_subscriber(settings.key.as_str()).callback(move |_| watchdog.beat());
        subscribers.push(subscriber.wait().map_err(|e| failed(&settings.key, e))?);
    }
    Ok(subscribers)
}

/// A thread whose end, whichever it is, is the node's.
fn spawn<T: Send + 'static>(
    name: &str,
    end: &Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    struct End(Handle);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let end = End(end.clone());
    let work = move || {
        let _end = end;
        work()
    };
    Builder::new().name(name.into()).spawn(work).map_err(|e| format!("{name} cannot be started: {e}"))
}
