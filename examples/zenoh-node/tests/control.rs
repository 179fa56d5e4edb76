//! The control loop by itself: when it acts and when it stops, and that it allocates nothing.

#[path = "../../../tests/common/allocations.rs"]
mod counting;

use counting::Counting;
use edgegen::Model;
use edgegen::policy::Timing;
use edgegen_zenoh_node::control::{Cause, Control, Phase, Reports, Settings, Step, Watchdog, handover};
use edgegen_zenoh_node::message::Decoder;
use edgegen_zenoh_node::topic::{Inbox, topic};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Rig {
    control: Control,
    inbox: Inbox,
    operator: Arc<Watchdog>,
    is_over: Arc<AtomicBool>,
    reports: Reports,
}

/// Plans are made in the call, so that nothing depends on time but what is said to.
fn rig(stop: Option<[f32; 2]>, resume: bool, ages: [Duration; 2], timing: Timing) -> Rig {
    rig_of(2, stop, resume, ages, timing)
}

/// The same with so many network calls a plan.
fn rig_of(
    calls: usize,
    stop: Option<[f32; 2]>,
    resume: bool,
    [max_age, timeout]: [Duration; 2],
    timing: Timing,
) -> Rig {
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../policy/push.onnx")).unwrap();
    let policy = model.generator().sampler("ddim").steps(calls).policy().n_obs_steps(2).n_action_steps(2);
    let policy = policy.timing(timing).build().unwrap();
    let (inbox, latest) = topic("global_cond", Decoder::F32 { len: 4 }, max_age);
    let (handover, reports) = handover(2);
    let (operator, is_over) = (Arc::new(Watchdog::new(timeout)), Arc::new(AtomicBool::new(false)));
    let period = Duration::from_millis(1);
    let settings = Settings { period, step_on: None, stop: stop.map(|stop| stop.to_vec()), resume, seed: 3 };
    let reporter = std::thread::current();
    let (watch, over) = (operator.clone(), is_over.clone());
    let control = Control::new(policy, vec![latest], Some(watch), settings, over, handover, reporter);
    Rig { control, inbox, operator, is_over, reports }
}

const LONG: Duration = Duration::from_secs(3600);

impl Rig {
    fn see(&self, x: f32) {
        assert!(self.inbox.put(&[x, 0.0, 0.6, 0.1].map(f32::to_le_bytes).concat(), None));
    }

    fn step(&mut self) -> Step {
        self.control.step();
        self.taken()
    }

    fn taken(&mut self) -> Step {
        let step = self.reports.done.pop().expect("every step is handed over");
        let copy = (*step).clone();
        self.reports.free.push(step).unwrap();
        copy
    }
}

#[test]
fn it_waits_until_all_is_there_and_says_for_what() {
    let mut rig = rig(Some([0.0; 2]), true, [LONG; 2], Timing::Synchronous);
    let waits = |step: Step, cause| assert_eq!((step.phase, step.is_published), (Phase::Waiting(cause), false));
    waits(rig.step(), Cause::Operator);
    rig.operator.beat();
    waits(rig.step(), Cause::Observation(0));
    assert!(!rig.inbox.put(b"nothing of use", None));
    waits(rig.step(), Cause::Observation(0));
    rig.see(0.1);
    let step = rig.step();
    assert_eq!((step.phase, step.is_published, step.counts.steps), (Phase::Running, true, 4));
    assert_eq!(step.plan, Some(0));
    assert!(step.received.is_some());
}

#[test]
fn what_is_new_is_acted_upon_and_what_is_not_is_a_dropped_frame() {
    let mut rig = rig(None, true, [LONG; 2], Timing::Synchronous);
    rig.operator.beat();
    rig.see(0.1);
    rig.step();
    for dropped in 1..=3 {
        let step = rig.step();
        assert_eq!((step.phase, step.is_published, step.received), (Phase::Running, true, None));
        assert_eq!((step.stats.dropped, step.stats.steps), (dropped, dropped + 1));
    }
    rig.see(0.2);
    assert_eq!(rig.step().stats.dropped, 3);
}

#[test]
fn it_stops_by_what_is_too_old_and_goes_on_when_it_is_there_again() {
    let none = Duration::ZERO;
    // every beat and every observation is too old at once
    for (ages, cause) in [([none, LONG], Cause::Observation(0)), ([LONG, none], Cause::Operator)] {
        let mut rig = rig(Some([0.5, -0.5]), true, ages, Timing::Synchronous);
        rig.operator.beat();
        rig.see(0.1);
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(rig.step().phase, Phase::Waiting(cause));
    }
    for (stop, resume) in [(Some([0.5, -0.5]), true), (None, true), (None, false)] {
        let short = Duration::from_millis(500);
        let mut rig = rig(stop, resume, [LONG, short], Timing::Synchronous);
        rig.see(0.1);
        // on a busy machine the beat may be too old by then
        let acted = loop {
            rig.operator.beat();
            let step = rig.step();
            if step.phase == Phase::Running {
                break step;
            }
        };
        std::thread::sleep(short + Duration::from_millis(1));
        let expected = stop.map_or(acted.values, |stop| stop.to_vec());
        for _ in 0..3 {
            let step = rig.step();
            assert_eq!((step.phase, step.is_published), (Phase::Stopped(Cause::Operator), true));
            assert_eq!((&step.values, step.counts.stops), (&expected, 1));
        }
        if resume {
            while rig.step().phase != Phase::Running {
                rig.operator.beat();
            }
            // as the first time: the policy begins anew
            assert!(rig.step().counts.runs >= 2);
        } else {
            for _ in 0..10 {
                rig.operator.beat();
                assert_eq!(rig.step().phase, Phase::Stopped(Cause::Operator));
            }
        }
    }
}

/// A plan of hundred network calls takes longer than a millisecond.
#[test]
fn what_is_lost_while_the_first_plan_is_made_keeps_it_from_acting() {
    let mut rig = rig_of(100, Some([0.0; 2]), true, [LONG, Duration::from_millis(1)], Timing::Synchronous);
    rig.see(0.1);
    loop {
        rig.operator.beat();
        let step = rig.step();
        assert_eq!((step.phase, step.is_published), (Phase::Waiting(Cause::Operator), false));
        if step.counts.runs > 0 {
            assert_eq!(step.stats.plans, 1);
            break;
        }
    }
}

/// Numbers that the network makes infinite ones of.
#[test]
fn a_plan_that_fails_is_told_and_tried_again() {
    let mut rig = rig(Some([0.5, -0.5]), true, [LONG; 2], Timing::Synchronous);
    rig.operator.beat();
    rig.see(f32::MAX);
    let step = rig.step();
    assert_eq!((step.phase, step.is_published, step.stats.failed), (Phase::Waiting(Cause::Plan), false, 1));
    assert!(step.error.is_some());
    rig.see(0.1);
    let step = rig.step();
    assert_eq!((step.phase, step.error), (Phase::Running, None));
    // the plan that there is goes on
    let mut see = |x| {
        rig.see(x);
        rig.step()
    };
    let failed = (0..4).map(|_| see(f32::MAX)).find(|step| step.error.is_some()).unwrap();
    assert_eq!((failed.phase, failed.is_published, failed.stats.failed), (Phase::Running, true, 1));
    assert!(failed.values.iter().all(|v| v.is_finite()) && failed.values != [0.5, -0.5]);
    assert!((0..4).map(|_| see(0.1)).any(|step| step.error.is_none() && step.plan > Some(0)));
}

#[test]
fn the_last_step_is_the_stop_action() {
    // none before the first action, where it is the last action again
    for (stop, acts) in [(Some([0.5, -0.5]), true), (Some([0.5, -0.5]), false), (None, true), (None, false)] {
        let mut rig = rig(stop, true, [LONG; 2], Timing::Synchronous);
        rig.operator.beat();
        let acted = acts.then(|| {
            rig.see(0.1);
            rig.step().values
        });
        rig.is_over.store(true, Ordering::Release);
        let Rig { control, reports: Reports { mut done, .. }, .. } = rig;
        control.run();
        let last = done.pop().unwrap();
        let expected = stop.map(|stop| stop.to_vec()).or(acted);
        assert_eq!((last.phase, last.is_published), (Phase::Ended, expected.is_some()));
        assert!(expected.is_none_or(|expected| last.values == expected));
        assert!(done.pop().is_err());
    }
}

/// What the reporter does not take is lost, and counted; the loop goes on.
#[test]
fn a_slow_reporter_does_not_hold_it_up() {
    let mut rig = rig(None, true, [LONG; 2], Timing::Synchronous);
    rig.operator.beat();
    rig.see(0.1);
    (0..100).for_each(|_| _ = rig.control.step());
    assert_eq!(rig.taken().counts.steps, 1);
    rig.control.step();
    while rig.reports.done.slots() > 1 {
        rig.taken();
    }
    let counts = rig.taken().counts;
    assert_eq!((counts.steps, counts.unreported), (101, 100 - 64));
}

#[test]
fn no_step_allocates() {
    for stop in [None, Some([0.0; 2])] {
        let mut rig = rig(stop, true, [LONG, LONG], Timing::Asynchronous);
        rig.operator.beat();
        rig.see(0.1);
        rig.control.step();
        let mut allocated = 0;
        for step in 0..80 {
            if step % 4 > 0 {
                rig.see(0.1 + step as f32 * 0.001);
            }
            let before = Counting::of_this_thread();
            rig.control.step();
            allocated += Counting::of_this_thread() - before;
            let step = rig.taken();
            assert_eq!((step.phase, step.is_published), (Phase::Running, true));
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(allocated, 0);
    }
    assert!(Counting::of_this_thread() > 0, "the counter does not count");
}
