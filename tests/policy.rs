//! A policy in a control loop gives the actions that its plans have for each step, whatever becomes of them.

#![cfg(feature = "onnx")]

use edgegen::policy::{Jacobian, Joint, Observation, Policy, PolicyBuilder, State, Stats, Timing, WhenDry};
use edgegen::{ErrorKind, Generator, Model, Request};
use std::path::Path;
use std::time::{Duration, Instant};

/// The name of what `push.onnx` sees: four numbers, of a step before and now.
const SEEN: &str = "global_cond";
/// The actions of its plans.
const HORIZON: usize = 16;

fn model() -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy/push.onnx")).unwrap()
}

fn settings(model: &Model) -> PolicyBuilder {
    model.generator().sampler("ddim").steps(2).policy().n_obs_steps(2).n_action_steps(3).seed(7)
}

/// What is seen at a step.
fn seen(step: usize) -> [f32; 4] {
    let t = step as f32 * 0.02;
    [0.15 + t, -t, 0.6 - t, 0.1]
}

/// Plan `index` of two observations, by hand.
fn plan(generator: &mut Generator, index: u64, [before, now]: [usize; 2]) -> Vec<f32> {
    let stacked = [seen(before), seen(now)].concat();
    generator.run(&Request::new(7, index).condition(SEEN, &stacked)).unwrap().sample.to_vec()
}

/// A plan's action for the step of its observation, and so on.
fn action(plan: &[f32], place: usize) -> &[f32] {
    &plan[2 * (place + 1)..][..2]
}

fn act(policy: &mut Policy, step: usize) -> (Vec<f32>, State) {
    let seen = seen(step);
    let action = policy.act(&Observation::new().with(SEEN, &seen)).unwrap();
    (action.values.to_vec(), action.state)
}

#[test]
fn a_synchronous_policy_carries_out_n_actions_of_each_plan() {
    let model = model();
    let mut generator = model.generator().sampler("ddim").steps(2).build().unwrap();
    let mut policy = settings(&model).build().unwrap();
    assert_eq!(policy.plan_shape(), [HORIZON, 2]);
    assert_eq!(policy.observed().collect::<Vec<_>>(), [(SEEN, 4)]);
    for episode in 0..2 {
        for step in 0..12usize {
            let asked = step / 3 * 3;
            // the first observation stands for the one before it
            let plan = plan(&mut generator, asked as u64 / 3, [asked.saturating_sub(1), asked]);
            let (values, state) = act(&mut policy, step);
            assert_eq!((values.as_slice(), state), (action(&plan, step - asked), State::Planned), "{episode} {step}");
        }
        let stats = policy.stats();
        assert_eq!((stats.steps, stats.plans, stats.longest_delay, stats.dry), (12, 4, 0, 0));
        policy.reset(7);
        assert_eq!(policy.stats(), Stats::default());
    }
}

#[test]
fn a_simulated_delay_drops_the_first_actions_of_a_plan() {
    let model = model();
    let mut generator = model.generator().sampler("ddim").steps(2).build().unwrap();
    for delay in 0..5usize {
        let mut policy = settings(&model).timing(Timing::Simulated { delay }).build().unwrap();
        // a plan is asked for three steps after the last one, or as soon as that is there; the first is there at once
        let (mut asks, mut index) = (vec![0, 3], 0);
        for step in 0..24usize {
            if step == asks[index + 1] + delay {
                index += 1;
                asks.push(asks[index] + delay.max(3));
            }
            let asked = asks[index];
            let plan = plan(&mut generator, index as u64, [asked.saturating_sub(1), asked]);
            let (values, state) = act(&mut policy, step);
            assert_eq!((values.as_slice(), state), (action(&plan, step - asked), State::Planned), "{delay} {step}");
        }
        let stats = policy.stats();
        assert_eq!((stats.longest_delay, stats.delay, stats.late, stats.discarded), (delay, delay, 0, 0));
    }
}

#[test]
fn a_robot_that_waits_holds_its_action_and_begins_each_plan_at_its_beginning() {
    let model = model();
    let mut generator = model.generator().sampler("ddim").steps(2).build().unwrap();
    let mut policy = settings(&model).timing(Timing::Waiting { delay: 2 }).build().unwrap();
    // the first plan is there at once: 3 steps, 2 of waiting, 3 steps…
    let (mut held, mut asked, mut index, mut place) = (Vec::new(), 0, 0, 0);
    let mut waiting = 0;
    for step in 0..20usize {
        if place == 3 {
            (asked, index, place, waiting) = (step, index + 1, 0, 2);
        }
        let (values, state) = act(&mut policy, step);
        if waiting > 0 {
            waiting -= 1;
            assert_eq!((&values, state), (&held, State::Waiting), "{step}");
            continue;
        }
        let plan = plan(&mut generator, index, [asked.saturating_sub(1), asked]);
        assert_eq!((values.as_slice(), state), (action(&plan, place), State::Planned), "{step}");
        (held, place) = (values, place + 1);
    }
    assert_eq!(policy.stats().waiting, 8);
}

#[test]
fn an_asynchronous_policy_never_waits_and_gives_what_its_plans_have() {
    let model = model();
    let mut generator = model.generator().sampler("ddim").steps(2).build().unwrap();
    // the same is seen all the time, so that a plan depends on its number alone
    let plans: Vec<Vec<f32>> = (0..200).map(|index| plan(&mut generator, index, [0, 0])).collect();
    let mut policy = settings(&model).timing(Timing::Asynchronous).build().unwrap();
    let first = seen(0);
    let seen = || Observation::new().with(SEEN, &first);
    policy.prime(&seen()).unwrap();
    let mut latest = 0;
    for step in 0..100 {
        let acted = policy.act(&seen()).unwrap();
        if let Some(plan) = acted.plan {
            assert_eq!(acted.values, action(&plans[plan as usize], acted.place), "{step}: {acted:?}");
            assert!(plan >= latest);
            latest = plan;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    let stats = policy.stats();
    assert!(stats.plans > 10 && latest > 10, "{stats:?}");
    assert!(stats.delay >= 1 && stats.longest_delay >= stats.delay && stats.failed == 0, "{stats:?}");
    // an episode's own plans, though one of the last may be under way
    policy.reset(7);
    policy.prime(&seen()).unwrap();
    let acted = policy.act(&seen()).unwrap();
    assert_eq!((acted.plan, acted.values), (Some(0), action(&plans[0], 0)));
}

#[test]
fn what_is_not_primed_has_no_action_yet_and_asks_for_one() {
    let model = model();
    let first = seen(0);
    let observed = || Observation::new().with(SEEN, &first);
    let asynchronous = || settings(&model).timing(Timing::Asynchronous);
    for when_dry in [WhenDry::Hold, WhenDry::Error] {
        let mut policy = asynchronous().when_dry(when_dry).build().unwrap();
        let error = policy.act(&observed()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoAction, "{error}");
        let until = Instant::now() + Duration::from_secs(20);
        while policy.act(&observed()).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(policy.act(&observed()).unwrap().plan, Some(0));
    }
    let mut policy = asynchronous().when_dry(WhenDry::Safe(vec![0.5, -0.5])).build().unwrap();
    let acted = policy.act(&observed()).unwrap();
    assert_eq!((acted.values, acted.state, acted.plan), (&[0.5, -0.5][..], State::Dry, None));
}

#[test]
fn a_queue_that_runs_dry_holds_stops_or_tells() {
    let model = model();
    // 15 actions of the first plan, but the second takes 20 steps
    let dry = |when_dry| {
        let mut policy = settings(&model).timing(Timing::Simulated { delay: 20 }).when_dry(when_dry).build().unwrap();
        let before: Vec<Vec<f32>> = (0..15).map(|step| act(&mut policy, step).0).collect();
        (policy, before[14].clone())
    };
    let (mut policy, last) = dry(WhenDry::Hold);
    assert_eq!(act(&mut policy, 15), (last, State::Dry));
    let (mut policy, _) = dry(WhenDry::Safe(vec![0.0, 1.0]));
    assert_eq!(act(&mut policy, 15), (vec![0.0, 1.0], State::Dry));
    let (mut policy, last) = dry(WhenDry::Error);
    let now = seen(15);
    let error = policy.act(&Observation::new().with(SEEN, &now)).unwrap_err();
    assert_eq!((error.kind(), error.message().contains("run dry")), (ErrorKind::NoAction, true), "{error}");
    assert_eq!(policy.action(), last);
    // of the plan that was asked for at step 3 the actions are all past at step 23, and the next comes later
    (16..23).for_each(|step| _ = policy.act(&Observation::new().with(SEEN, &seen(step))));
    assert_eq!((policy.stats().dry, policy.stats().discarded), (8, 0));
    policy.act(&Observation::new().with(SEEN, &seen(23))).unwrap_err();
    assert_eq!((policy.stats().dry, policy.stats().discarded), (9, 1));
}

#[test]
fn a_frame_that_is_dropped_is_the_last_one_again_and_one_too_old_makes_no_plan() {
    let model = model();
    let mut generator = model.generator().sampler("ddim").steps(2).build().unwrap();
    let mut policy = settings(&model).stale_after(2).build().unwrap();
    let missing = |policy: &mut Policy| {
        let acted = policy.act(&Observation::missing()).unwrap();
        (acted.values.to_vec(), acted.state, acted.plan, acted.place)
    };
    let first = plan(&mut generator, 0, [0, 0]);
    act(&mut policy, 0);
    for step in 1..3 {
        assert_eq!(missing(&mut policy), (action(&first, step).to_vec(), State::Dropped, Some(0), step));
    }
    // now it is too old: the plan goes on, as far as it goes
    for step in 3..15 {
        assert_eq!(missing(&mut policy), (action(&first, step).to_vec(), State::Stale, Some(0), step));
    }
    assert_eq!(missing(&mut policy).1, State::Dry);
    let stats = policy.stats();
    assert_eq!((stats.dropped, stats.stale, stats.dry, stats.plans), (15, 13, 1, 1));
    // and the next frame makes a plan: what was seen a step before is what was seen last
    let next = plan(&mut generator, 1, [0, 16]);
    assert_eq!(act(&mut policy, 16), (action(&next, 0).to_vec(), State::Planned));
    // a plan of an old observation begins where that was taken
    let old = plan(&mut generator, 2, [18, 19]);
    act(&mut policy, 17);
    act(&mut policy, 18);
    act(&mut policy, 19);
    policy.reset(7);
    let mut policy = settings(&model).build().unwrap();
    act(&mut policy, 18);
    let observed = seen(19);
    let acted = policy.act(&Observation::new().with(SEEN, &observed).age(1)).unwrap();
    assert_eq!((acted.plan, acted.place), (Some(0), 1));
    assert_ne!(acted.values, action(&old, 1));
}

#[test]
fn what_is_not_an_observation_changes_nothing() {
    let model = model();
    let mut policy = settings(&model).build().unwrap();
    act(&mut policy, 0);
    let (good, stats) = (seen(1), policy.stats());
    let (short, nan) = ([0.0; 3], [0.0, f32::NAN, 0.0, 0.0]);
    for (observation, kind, words) in [
        (Observation::new(), ErrorKind::InvalidArgument, "the observation lacks global_cond, of 4 numbers"),
        (Observation::new().with("state", &good), ErrorKind::InvalidArgument, "nothing called 'state' is observed"),
        (Observation::new().with(SEEN, &short), ErrorKind::WrongSize, "global_cond has 3 numbers, but must have 4"),
        (Observation::new().with(SEEN, &nan), ErrorKind::NotFinite, "must be finite, but element 1 is NaN"),
    ] {
        let error = policy.act(&observation).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(policy.stats(), stats);
    }
    let mut generator = model.generator().sampler("ddim").steps(2).build().unwrap();
    assert_eq!(act(&mut policy, 1).0, action(&plan(&mut generator, 0, [0, 0]), 1));
}

/// Numbers that the network cannot hold make a plan fail: here, and on its own thread.
#[test]
fn a_plan_that_fails_is_told_once_and_the_last_one_goes_on() {
    let model = model();
    let huge = [3e38f32; 4];
    for timing in [Timing::Synchronous, Timing::Asynchronous] {
        let mut policy = settings(&model).timing(timing).build().unwrap();
        let first = seen(0);
        policy.prime(&Observation::new().with(SEEN, &first)).unwrap();
        let (mut failures, mut steps) = (0, 0);
        let until = Instant::now() + Duration::from_secs(20);
        while failures == 0 && Instant::now() < until {
            // the first plan goes on meanwhile
            match policy.act(&Observation::new().with(SEEN, &huge)) {
                Ok(acted) => assert_eq!((acted.plan, acted.place), (Some(0), steps)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFinite, "{error}");
                    assert!(policy.action().iter().all(|v| v.is_finite()));
                    failures += 1;
                }
            }
            steps += 1;
            std::thread::sleep(Duration::from_millis(1));
            if steps == 10 && timing == Timing::Asynchronous {
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        assert_eq!((failures, policy.stats().failed), (1, 1), "{timing:?}");
        // and what is seen next makes a plan again
        let until = Instant::now() + Duration::from_secs(20);
        while policy.stats().plans < 2 && Instant::now() < until {
            _ = policy.act(&Observation::new().with(SEEN, &first));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(policy.stats().plans, 2, "{timing:?}");
    }
}

#[test]
fn a_first_plan_that_fails_can_be_tried_again() {
    let model = model();
    for timing in [Timing::Synchronous, Timing::Asynchronous] {
        let mut policy = settings(&model).timing(timing).build().unwrap();
        let error = policy.prime(&Observation::new().with(SEEN, &[3e38; 4])).unwrap_err();
        assert_eq!((error.kind(), policy.stats().failed), (ErrorKind::NotFinite, 1), "{timing:?}: {error}");
        policy.reset(7);
        policy.prime(&Observation::new().with(SEEN, &seen(0))).unwrap();
        assert_eq!(act(&mut policy, 0).1, State::Planned, "{timing:?}");
    }
}

#[test]
fn a_plan_that_misses_its_deadline_leaves_the_last_one_going() {
    let model = model();
    let mut policy = settings(&model).budget(Duration::ZERO).build().unwrap();
    let first = seen(0);
    policy.prime(&Observation::new().with(SEEN, &first)).unwrap();
    for step in 0..15 {
        let state = if step < 3 { State::Planned } else { State::Late };
        assert_eq!(act(&mut policy, step).1, state, "{step}");
    }
    assert_eq!(act(&mut policy, 15).1, State::Dry);
    assert_eq!((policy.stats().missed, policy.stats().plans, policy.stats().late), (13, 1, 12));
}

#[test]
fn joints_and_warm_starts_keep_to_the_last_plan() {
    let model = model();
    // by how much a new plan differs, at its beginning, from what the last one had for the same steps
    let jump = |change: &dyn Fn(PolicyBuilder) -> PolicyBuilder| {
        let builder = model.generator().sampler("ddim").steps(5).policy().n_obs_steps(2).n_action_steps(3).seed(7);
        let mut policy = change(builder.timing(Timing::Simulated { delay: 3 })).build().unwrap();
        let mut all: Vec<Vec<f32>> = Vec::new();
        let mut jumps = Vec::new();
        let mut last = None;
        for step in 0..60 {
            let observed = seen(step);
            let acted = policy.act(&Observation::new().with(SEEN, &observed)).unwrap();
            if acted.plan != last && step > 0 {
                let before: &Vec<f32> = all.last().unwrap();
                jumps.push((acted.values[0] - before[0]).hypot(acted.values[1] - before[1]));
            }
            last = acted.plan;
            all.push(acted.values.to_vec());
        }
        jumps.iter().sum::<f32>() / jumps.len() as f32
    };
    let plain = jump(&|b| b);
    let inpainted = jump(&|b| b.joint(Joint::Inpaint));
    let chunked = jump(&|b| b.joint(Joint::chunk(Jacobian::Diagonal)));
    let differences = jump(&|b| b.joint(Joint::chunk(Jacobian::Difference)));
    let warm = jump(&|b| b.warm_start(0.2));
    let ensembled = jump(&|b| b.ensemble(0.01));
    println!(
        "switch {plain}, inpaint {inpainted}, chunk {chunked} and {differences}, warm {warm}, ensemble {ensembled}"
    );
    for (name, other) in [("chunk", chunked), ("difference", differences), ("warm", warm), ("ensemble", ensembled)] {
        assert!(other < 0.8 * plain, "{name}: {other}, without it {plain}");
    }
}

#[test]
fn settings_that_do_not_fit_are_told() {
    let model = model();
    let told = |builder: PolicyBuilder, words: &str| {
        let error = builder.build().err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    };
    told(settings(&model).n_obs_steps(3), "global_cond has 8 numbers, which are not 3 observations");
    told(settings(&model).n_obs_steps(0), "n_obs_steps must be from 1 on");
    told(settings(&model).n_action_steps(16), "n_action_steps is 16, but a plan has 15 actions to carry out");
    told(settings(&model).first_action(16), "action 16 cannot be a plan's first");
    told(settings(&model).when_dry(WhenDry::Safe(vec![0.0])), "the safe action has 1 numbers, but actions have 2");
    told(settings(&model).warm_start(0.0), "a warm start must be above 0 and at most 1");
    told(settings(&model).ensemble(f64::NAN), "temporal ensembling must be finite");
    told(settings(&model).condition("goal", [0.0]), "no condition 'goal'");
    let config = settings(&model).lerobot_config(r#"{"type": "diffusion", "horizon": 8}"#).unwrap();
    told(config, "a horizon of 8, but the network's plans have 16 actions");
    #[cfg(feature = "embedded-model")]
    told(Model::embedded().unwrap().generator().policy(), "plans of shape [T, D], not [1, 28, 28]");
}

#[test]
fn a_lerobot_policys_config_says_how_it_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy/push.onnx");
    std::fs::copy(source, folder.path().join("model.onnx")).unwrap();
    let config = r#"{"type": "diffusion", "n_obs_steps": 2, "horizon": 16, "n_action_steps": 5}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let model = Model::open(folder.path()).unwrap();
    let mut policy = model.generator().sampler("ddim").steps(2).policy().seed(7).build().unwrap();
    let places: Vec<usize> = (0..10)
        .map(|step| {
            let observed = seen(step);
            policy.act(&Observation::new().with(SEEN, &observed)).unwrap().place
        })
        .collect();
    assert_eq!(places, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    std::fs::write(folder.path().join("config.json"), r#"{"type": "diffusion", "n_obs_steps": -2}"#).unwrap();
    let error = Model::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("n_obs_steps of a policy must be a whole number from 1 on, not -2"), "{error}");
}
