//! The node as a process of its own, in a network of its own. Nothing here asserts how long something takes.

mod common;

use common::{Network, locked, seen};
use edgegen_zenoh_node::attachment::Attachment;
use edgegen_zenoh_node::message::{Decoder, Encoder};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

fn is(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["phase"] == phase
}

fn count(status: &Value, path: &str) -> u64 {
    status.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {status}"))
}

fn refusals(status: &Value) -> u64 {
    let refused = status["observations"]["global_cond"]["refused"].as_object().unwrap();
    refused.values().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn a_policy_pushes_the_disc_home_over_the_network() {
    let network = Network::new();
    let mut node = network.node(&[("step_on", "step_on: global_cond"), ("latency_csv", "latency_csv: log.csv")]);
    let csv = node.folder.join("log.csv");
    network.wait_for("waiting", |status| status["cause"] == "no fresh observation 'global_cond'");
    assert!(locked(&network.actions).is_empty());
    let mut robot = network.simulator(&["--hz", "50", "--until-reached", "3"]);
    assert!(robot.end().success(), "{}", robot.read("stderr"));
    let said = robot.read("stdout");
    assert!(said.contains(" 3 reached the goal; "), "{said}");

    node.signal("TERM");
    assert!(node.end().success());
    let status = network.wait_for("ended", is("ended"));
    let actions = count(&status, "/actions");
    assert!(actions > 20 && count(&status, "/policy/plans") > 10, "{status}");
    assert_eq!([refusals(&status), count(&status, "/unpublished"), count(&status, "/policy/failed")], [0; 3]);
    assert!(count(&status, "/latency_us/count") > 20 && count(&status, "/plan_us/count") > 10, "{status}");
    assert!(count(&status, "/latency_us/p50") <= count(&status, "/latency_us/max"));
    assert!(locked(&network.heartbeats).iter().all(|beat| beat.len() == 8));
    assert!(node.read("stdout").contains("from observation to action: p50 "), "{}", node.read("stdout"));
    // a line for each that was published, and the names
    let rows = std::fs::read_to_string(csv).unwrap();
    let published = actions + count(&status, "/stop_actions");
    assert_eq!(rows.lines().count() as u64, published + 1, "{status}");
    assert!(rows.lines().all(|row| row.split(',').count() == 6), "{rows}");
}

#[test]
fn frames_that_are_lost_are_counted_and_the_last_one_stands_for_them() {
    let network = Network::new();
    let _node = network.node(&[]);
    let mut robot = network.simulator(&["--hz", "100", "--drop", "0.5"]);
    let status = network.wait_for("lost frames", |status| {
        is("running")(status)
            && count(status, "/observations/global_cond/lost") > 20
            && count(status, "/policy/dropped") > 0
            && count(status, "/policy/plans") > 5
    });
    // what was lost did not come
    let received = count(&status, "/observations/global_cond/received");
    assert!(received > 0 && count(&status, "/latency_us/count") <= received, "{status}");
    network.wait_for_actions(20);
    robot.signal("TERM");
    robot.end();
    // with no frame at all it goes on by its last plan, and then holds, until the observation is too old
    let before = network.status();
    let status = network.wait_for("dry", |status| count(status, "/policy/dry") > count(&before, "/policy/dry") + 5);
    assert_eq!((&status["phase"], count(&status, "/stops")), (&Value::from("running"), 0));
}

#[test]
fn a_publisher_that_dies_stops_the_robot_until_it_is_back() {
    let network = Network::new();
    let short = "  global_cond: {key: robot/state, max_age_ms: 300}";
    let _node = network.node(&[("global_cond", short)]);
    let mut robot = network.simulator(&[]);
    network.wait_for("running", is("running"));
    network.wait_for_actions(5);
    robot.signal("KILL");
    robot.end();
    let status = network.wait_for("stopped", |status| is("stopped")(status) && count(status, "/stop_actions") > 0);
    assert_eq!(status["cause"], "no fresh observation 'global_cond'");
    // the robot holds its last action
    let held = network.wait_for_actions(10);
    assert!(held[0].iter().all(|v| v.is_finite()) && held.iter().all(|action| *action == held[0]), "{held:?}");
    let stopped = network.wait_for("still stopped", is("stopped"));

    let _robot = network.simulator(&[]);
    let status = network.wait_for("running again", |status| {
        is("running")(status) && count(status, "/actions") > count(&stopped, "/actions") + 5
    });
    assert!(count(&status, "/stops") >= 1 && count(&status, "/stop_actions") >= 10, "{status}");
}

#[test]
fn garbage_is_counted_and_does_no_harm() {
    let network = Network::new();
    let array = "  global_cond: {key: robot/state, message: float32_multi_array, max_age_ms: 60000}";
    let mut node = network.node(&[("global_cond", array)]);
    network.wait_for("waiting", is("waiting"));
    let right = |values: &[f32]| Encoder::Float32MultiArray.encode(values, SystemTime::now());
    let good = right(&[0.1, 0.0, 0.6, 0.1]);
    let unknown = [&[0, 9], &good[2..]].concat();
    let endless = [&good[..4], &[0xff; 4], &good[8..]].concat();
    let wrong = [
        ("garbage", vec![]),
        ("garbage", good[..good.len() - 1].to_vec()),
        ("garbage", endless),
        ("wrong_encoding", unknown),
        ("wrong_size", right(&[1.0; 3])),
        ("not_finite", right(&[0.1, f32::NAN, 0.6, 0.1])),
        ("not_finite", right(&[0.1, 0.0, f32::INFINITY, 0.1])),
    ];
    const TIMES: u64 = 50;
    // whoever publishes knows of the node by then
    network.put("robot/state", &good);
    network.wait_for("running", is("running"));
    for _ in 0..TIMES {
        wrong.iter().for_each(|(_, message)| network.put("robot/state", message));
    }
    let all = 1 + TIMES * wrong.len() as u64;
    let status = network.wait_for("all", |status| count(status, "/observations/global_cond/received") >= all);
    assert_eq!(count(&status, "/observations/global_cond/received"), all);
    for kind in ["garbage", "wrong_size", "wrong_encoding", "wrong_names", "not_finite"] {
        let expected = TIMES * wrong.iter().filter(|(of, _)| *of == kind).count() as u64;
        assert_eq!(count(&status, &format!("/observations/global_cond/refused/{kind}")), expected, "{kind}");
    }
    assert_eq!((&status["phase"], count(&status, "/stops")), (&Value::from("running"), 0));
    // each kind is told, and not each message
    let told = node.read("stderr");
    for kind in ["garbage", "wrong_size", "wrong_encoding", "not_finite"] {
        let lines = told.lines().filter(|line| line.contains(&format!("is refused, {kind}: "))).count() as u64;
        assert!((1..TIMES).contains(&lines), "{kind}: {lines} lines");
    }
    network.put("robot/state", &good);
    network.wait_for_actions(5);
    node.signal("INT");
    assert!(node.end().success());
}

#[test]
fn without_the_operators_heartbeat_the_robot_is_stopped() {
    for resume in [true, false] {
        let network = Network::new();
        let stop = format!("safe_stop: {{action: zero, resume: {resume}}}");
        let operator = "operator: {key: robot/operator, timeout_ms: 300}";
        let _node = network.node(&[("safe_stop", &stop), ("operator", operator)]);
        let _state = network.feed("robot/state", seen);
        let status = network.wait_for("waiting", |status| status["cause"] == "no heartbeat of the operator");
        assert_eq!((count(&status, "/operator/received"), &status["operator"]["is_alive"]), (0, &Value::from(false)));
        assert!(locked(&network.actions).is_empty());
        let beat = |_| Vec::new();
        let operator = network.feed("robot/operator", beat);
        network.wait_for("acting", |status| count(status, "/actions") > 0);
        drop(operator);
        let status = network.wait_for("stopped", |status| {
            is("stopped")(status) && status["operator"]["is_alive"] == false && count(status, "/stop_actions") > 5
        });
        assert_eq!(status["cause"], "no heartbeat of the operator");
        assert!(network.wait_for_actions(10).iter().all(|action| *action == [0.0, 0.0]));
        let _operator = network.feed("robot/operator", beat);
        let acted = count(&network.status(), "/actions");
        if resume {
            network.wait_for("acting again", |status| count(status, "/actions") > acted + 5);
        } else {
            network.wait_for("alive", |status| status["operator"]["is_alive"] == true);
            assert!(network.wait_for_actions(10).iter().all(|action| *action == [0.0, 0.0]));
            let status = network.wait_for("still stopped", is("stopped"));
            assert_eq!(count(&status, "/actions"), acted);
        }
    }
}

#[test]
fn a_signal_ends_it_in_order() {
    for signal in ["TERM", "INT"] {
        let network = Network::new();
        let mut node = network.node(&[("safe_stop", "safe_stop: {action: values, values: [0.25, -0.5]}")]);
        let state = network.feed("robot/state", seen);
        network.wait_for("running", is("running"));
        network.wait_for_actions(5);
        node.signal(signal);
        assert_eq!(node.end().code(), Some(0), "{}", node.read("stderr"));
        let status = network.wait_for("ended", is("ended"));
        assert_eq!(count(&status, "/stop_actions"), 1);
        drop(state);
        // it stops the robot, once and last; of the others a network that does not keep up may have lost some
        let stop = [0.25, -0.5];
        let last = || locked(&network.actions).last().is_some_and(|last| *last == stop).then_some(());
        network.wait_until("stopped", last);
        let actions = locked(&network.actions);
        assert_eq!(actions.iter().filter(|action| **action == stop).count(), 1);
        assert!(actions.len() as u64 <= count(&status, "/actions") + 1, "{status}");
    }
}

#[test]
fn a_plan_that_is_late_leaves_the_last_one_and_then_what_stops_the_robot() {
    let network = Network::new();
    // hundred network calls a plan, of which each millisecond uses up an action
    let policy = "policy: {sampler: ddim, steps: 100, n_obs_steps: 2, n_action_steps: 1, first_action: 0}";
    let stop = "safe_stop: {action: values, values: [0.25, -0.5]}";
    let changes = [("policy", policy), ("period_ms", "period_ms: 1"), ("safe_stop", stop)];
    let _node = network.node(&changes);
    let _state = network.feed("robot/state", seen);
    let status = network.wait_for("dry", |status| {
        is("running")(status) && count(status, "/policy/dry") > 20 && count(status, "/policy/plans") > 1
    });
    assert!(count(&status, "/policy/longest_delay") > 15, "{status}");
    assert_eq!((count(&status, "/stops"), count(&status, "/policy/failed")), (0, 0));
    // actions of plans and those that stop the robot
    network.wait_until("both", || {
        let actions = locked(&network.actions);
        let stopped = actions.iter().filter(|action| **action == [0.25, -0.5]).count();
        (stopped > 20 && stopped + 5 < actions.len()).then_some(())
    });
}

/// Joints and an array that make one condition, a heartbeat and a status, all as ROS 2 has them, and what `rmw_zenoh` attaches.
#[test]
fn it_speaks_ros() {
    let network = Network::new();
    let policy = "policy: {sampler: ddim, steps: 2, n_obs_steps: 2, n_action_steps: 1, first_action: 0, \
                  observed_as: {global_cond: [{name: hand, size: 2}, {name: disc, size: 2}]}}";
    let observations = "  hand: {key: '0/joint_states/*/*', message: joint_state, joints: [b, a], max_age_ms: 60000}\n  \
                        disc: {key: '0/disc/*/*', message: image, width: 1, height: 2, max_age_ms: 60000}";
    let action = "action: {key: 0/commands/t/h, message: joint_state, joints: [x, y]}";
    let heartbeat = "heartbeat: {key: 0/heartbeat/t/h, period_ms: 50, message: ros}";
    let changes = [("policy", policy), ("global_cond", observations), ("action", action), ("heartbeat", heartbeat)];
    let mut node = network.node(&changes);
    type Taken = Arc<Mutex<Vec<(Vec<f32>, Attachment)>>>;
    let actions: Taken = Arc::default();
    let taken = actions.clone();
    network.subscribe("0/commands/*/*", move |bytes, attachment| {
        let mut action = vec![0.0; 2];
        let joints = ["x", "y"].map(String::from).to_vec();
        let fields = vec![edgegen_zenoh_node::message::Field::Position];
        Decoder::JointState { joints, fields }.decode(bytes, &mut action).unwrap();
        locked(&taken).push((action, Attachment::read(attachment.unwrap()).unwrap()));
    });
    let beats = network.heartbeats.clone();
    network.subscribe("0/heartbeat/*/*", move |bytes, _| locked(&beats).push(bytes.to_vec()));
    let joints = |names: [&str; 2]| Encoder::JointState { joints: names.map(String::from).to_vec() };
    let joints = (joints(["a", "b"]), joints(["a", "c"]));
    let _hand = network.feed("0/joint_states/t/h", move |count| {
        let encoder = if count % 2 == 0 { &joints.0 } else { &joints.1 };
        encoder.encode(&[0.0, 0.1], SystemTime::now())
    });
    network.wait_for("waiting", |status| status["cause"] == "no fresh observation 'disc'");
    let mono = include_bytes!("fixtures/mono8.cdr");
    // of one column and two rows
    let mut disc = mono.to_vec();
    let size = disc.windows(8).position(|w| w == [3, 0, 0, 0, 2, 0, 0, 0]).unwrap();
    disc[size..size + 8].copy_from_slice(&[2, 0, 0, 0, 1, 0, 0, 0]);
    disc.truncate(disc.len() - 14);
    disc.extend([1, 0, 0, 0, 2, 0, 0, 0, 150, 30]);
    let _disc = network.feed("0/disc/t/h", move |_| disc.clone());

    let status = network.wait_for("running", |status| {
        is("running")(status)
            && count(status, "/actions") > 10
            && count(status, "/observations/hand/refused/wrong_names") > 2
    });
    assert_eq!(count(&status, "/observations/disc/refused/wrong_size"), 0, "{}", node.read("stderr"));
    node.signal("TERM");
    assert!(node.end().success());
    let actions = locked(&actions);
    assert!(actions.len() > 10);
    for pair in actions.windows(2) {
        assert!(pair[1].1.sequence > pair[0].1.sequence && pair[1].1.publisher == pair[0].1.publisher);
        assert!(pair[0].0.iter().all(|v| v.is_finite() && v.abs() < 10.0), "{:?}", pair[0]);
    }
    let heartbeats = locked(&network.heartbeats);
    let beat = |bytes: &[u8]| {
        assert_eq!(bytes[..4], [0, 1, 0, 0]);
        u64::from_le_bytes(bytes[4..].try_into().unwrap())
    };
    assert!(heartbeats.len() > 1 && heartbeats.windows(2).all(|pair| beat(&pair[0]) < beat(&pair[1])));
}

#[test]
fn a_wrong_configuration_is_told_in_one_line() {
    let network = Network::new();
    let many = "observations:\n  other: {key: a, max_age_ms: 1}\n  global_cond: {key: b, max_age_ms: 1}";
    let rows: &[(&str, &str, &str)] = &[
        (
            "safe_stop",
            "safe_stop: {aktion: zero}",
            "unknown field `aktion`, expected one of action, values, resume at line 10, column 13",
        ),
        ("speed", "speed: 3", "unknown field `speed`"),
        ("period_ms", "period_ms: 0", "period_ms must be from 0.01 to 60000 milliseconds, not 0"),
        ("period_ms", "period_ms: fast", "invalid"),
        ("model", "model: nowhere.onnx", "nowhere.onnx"),
        (
            "action",
            "action: {key: 'robot/*'}",
            "action.key: 'robot/*' is what is published under, which has no wildcards",
        ),
        ("action", "action: {key: /robot}", "action.key: '/robot' is no key expression"),
        ("action", "action: {key: a, message: joint_state}", "action.joints: it is needed with message: joint_state"),
        (
            "action",
            "action: {key: a, message: joint_state, joints: [x]}",
            "action.joints: there are 1, but an action has 2 numbers",
        ),
        ("step_on", "step_on: camera", "step_on: there is no observation 'camera': global_cond"),
        ("safe_stop", "safe_stop: {action: values}", "safe_stop.values: 'action: values' needs them"),
        ("safe_stop", "safe_stop: {action: values, values: [1]}", "the safe action has 1 numbers, but actions have 2"),
        (
            "global_cond",
            "  global_cond: {key: a, message: image, width: 3, height: 3, max_age_ms: 9}",
            "observations.global_cond: width, height: 3 by 3 pixels do not make the 4 numbers that the policy takes",
        ),
        (
            "global_cond",
            "  global_cond: {key: a, width: 3, max_age_ms: 9}",
            "observations.global_cond.width: it belongs to message: image and message: rgb8 alone",
        ),
        (
            "global_cond",
            "  state: {key: a, max_age_ms: 9}",
            "the policy observes 'global_cond', of 4 numbers, which is missing",
        ),
        ("observations", many, "duplicate"),
        ("policy", "policy: {n_obs_steps: 3}", "the condition global_cond has 8 numbers, which are not 3 observations"),
        ("policy", "policy: {n_obs_steps: 2, joint: chunk}", "unknown field `joint`"),
        ("policy", "policy: {n_obs_steps: 2, join: glue}", "unknown variant `glue`"),
        ("zenoh", "zenoh: {mode: client, connect: [tcp/127.0.0.1:1]}", "zenoh cannot be opened"),
        ("zenoh", "zenoh: {connect: [nowhere]}", "zenoh.connect"),
        ("latency_csv", "latency_csv: /nowhere/at/all.csv", "latency_csv: /nowhere/at/all.csv"),
    ];
    for (key, line, expected) in rows {
        let mut node = network.start(&network.configuration(&[(key, line)]));
        assert_eq!(node.end().code(), Some(1), "{line}");
        let told = node.read("stderr");
        assert!(told.lines().count() == 1 && told.contains(expected), "{line}: {told}");
        assert!(told.starts_with("edgegen-zenoh-node: "), "{told}");
    }
    assert!(locked(&network.actions).is_empty());
}
