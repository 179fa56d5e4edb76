//! The C API's policies: they give what the library's give, and what C may get wrong comes back as a status.
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "these are C programs: every call is an unsafe one, of the same promise"
)]

use edgegen::Model;
use edgegen::capi::*;
use edgegen::policy::{Jacobian, Joint, Observation, Timing};
use std::ffi::{CStr, CString};
use std::mem::zeroed;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy/push.onnx")
}

struct Opened {
    model: *mut edgegen_model,
    policy: *mut edgegen_policy,
}

impl Opened {
    fn new(options: &edgegen_policy_options) -> Self {
        let (mut model, mut policy) = (null_mut(), null_mut());
        let path = CString::new(path().to_str().unwrap()).unwrap();
        // SAFETY: all pointers are to what they should be.
        unsafe {
            assert_eq!(edgegen_model_open(path.as_ptr(), null(), &mut model, null_mut()), edgegen_status::OK);
            let mut error = error();
            let status = edgegen_policy_prepare(model, null(), options, &mut policy, &mut error);
            assert_eq!(status, edgegen_status::OK, "{}", message(&error));
        }
        Opened { model, policy }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: both are handles that nothing else uses.
        unsafe {
            assert_eq!(edgegen_policy_free(&mut self.policy, null_mut()), edgegen_status::OK);
            assert_eq!(edgegen_policy_free(&mut self.policy, null_mut()), edgegen_status::OK);
            assert_eq!(edgegen_model_free(&mut self.model, null_mut()), edgegen_status::OK);
        }
        assert!(self.policy.is_null());
    }
}

fn error() -> edgegen_error {
    edgegen_error { status: edgegen_status::OK, message: [0; EDGEGEN_MESSAGE_SIZE] }
}

fn message(error: &edgegen_error) -> String {
    // SAFETY: every call writes a message that ends in a zero.
    unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap().to_string()
}

fn options() -> edgegen_policy_options {
    // SAFETY: all zeros are options, as their documentation promises.
    let zeros: edgegen_policy_options = unsafe { zeroed() };
    edgegen_policy_options { n_obs_steps: 2, n_action_steps: 3, seed: 5, ..zeros }
}

fn array(name: &'static CStr, values: &[f32]) -> edgegen_condition {
    edgegen_condition { name: name.as_ptr(), values: values.as_ptr(), len: values.len() }
}

fn seen(step: usize) -> [f32; 4] {
    [0.15 + 0.02 * step as f32, 0.0, 0.6, 0.1]
}

/// A step with these arrays.
fn act(opened: &Opened, arrays: &[edgegen_condition]) -> (Result<edgegen_step, (edgegen_status, String)>, [f32; 2]) {
    let (mut action, mut error) = ([f32::NAN; 2], error());
    let mut step = edgegen_step { state: edgegen_state::PLANNED, plan: -2, place: 0 };
    let observation = edgegen_observation { arrays: arrays.as_ptr(), num_arrays: arrays.len(), age: 0 };
    // SAFETY: all pointers are to what they should be.
    let status =
        unsafe { edgegen_policy_act(opened.policy, &observation, action.as_mut_ptr(), 2, &mut step, &mut error) };
    let result = if status == edgegen_status::OK { Ok(step) } else { Err((status, message(&error))) };
    (result, action)
}

#[test]
fn actions_are_those_of_the_library() {
    let settings = edgegen_policy_options {
        timing: edgegen_timing::SIMULATED as i32,
        delay: 2,
        joint: edgegen_joint::CHUNK as i32,
        jacobian: edgegen_jacobian::DIFFERENCE as i32,
        ensemble: &0.01,
        warm_start: 0.5,
        ..options()
    };
    let opened = Opened::new(&settings);
    let model = Model::open(path()).unwrap();
    let library = model.generator().policy().n_obs_steps(2).n_action_steps(3).seed(5).ensemble(0.01).warm_start(0.5);
    let library = library.timing(Timing::Simulated { delay: 2 }).joint(Joint::chunk(Jacobian::Difference));
    let mut library = library.build().unwrap();
    for step in 0..20 {
        let now = seen(step);
        let expected = library.act(&Observation::new().with("global_cond", &now)).unwrap();
        let (result, action) = act(&opened, &[array(c"global_cond", &now)]);
        let result = result.unwrap();
        assert_eq!(
            (&action[..], result.plan, result.place),
            (expected.values, expected.plan.unwrap() as i64, expected.place)
        );
    }
    let (mut horizon, mut width) = (0, 0);
    // SAFETY: all zeros are one, and all pointers are to what they should be.
    let stats = unsafe {
        let mut stats: edgegen_policy_stats = zeroed();
        assert_eq!(edgegen_policy_describe(opened.policy, &mut horizon, &mut width, null_mut()), edgegen_status::OK);
        assert_eq!(edgegen_policy_count(opened.policy, &mut stats, null_mut()), edgegen_status::OK);
        stats
    };
    assert_eq!((horizon, width, stats.steps, stats.plans, stats.longest_delay), (16, 2, 20, 6, 2));
    // SAFETY: a handle.
    assert_eq!(unsafe { edgegen_policy_reset(opened.policy, 5, null_mut()) }, edgegen_status::OK);
    library.reset(5);
    let now = seen(0);
    let expected = library.act(&Observation::new().with("global_cond", &now)).unwrap();
    assert_eq!(act(&opened, &[array(c"global_cond", &now)]).1, expected.values);
}

#[test]
fn a_thread_plans_meanwhile_and_ends_with_the_policy() {
    let opened = Opened::new(&edgegen_policy_options { timing: edgegen_timing::ASYNCHRONOUS as i32, ..options() });
    let now = seen(0);
    let arrays = [array(c"global_cond", &now)];
    let observation = edgegen_observation { arrays: arrays.as_ptr(), num_arrays: 1, age: 0 };
    // SAFETY: all pointers are to what they should be.
    assert_eq!(unsafe { edgegen_policy_prime(opened.policy, &observation, null_mut()) }, edgegen_status::OK);
    for _ in 0..50 {
        assert!(act(&opened, &arrays).0.unwrap().plan >= 0);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // a null observation is a dropped frame
    let mut action = [f32::NAN; 2];
    // SAFETY: all pointers are to what they should be.
    let status = unsafe { edgegen_policy_act(opened.policy, null(), action.as_mut_ptr(), 2, null_mut(), null_mut()) };
    assert_eq!((status, action[0].is_finite()), (edgegen_status::OK, true));
}

#[test]
fn what_the_caller_gets_wrong_is_a_status() {
    let opened = Opened::new(&options());
    let now = seen(0);
    let told = |arrays: &[edgegen_condition], expected: edgegen_status, words: &str| {
        let (result, action) = act(&opened, arrays);
        let (status, message) = result.unwrap_err();
        assert_eq!(status, expected, "{message}");
        assert!(message.contains(words), "{message}");
        assert!(action[0].is_nan(), "nothing has changed");
    };
    told(&[], edgegen_status::INVALID_ARGUMENT, "lacks global_cond");
    told(&[array(c"global_cond", &now[1..])], edgegen_status::WRONG_SIZE, "has 3 numbers");
    told(&[array(c"other", &now)], edgegen_status::INVALID_ARGUMENT, "nothing called 'other'");
    told(&[array(c"global_cond", &[f32::NAN; 4])], edgegen_status::NOT_FINITE, "element 0");
    let nameless = edgegen_condition { name: null(), ..array(c"global_cond", &now) };
    told(&[nameless], edgegen_status::NULL_POINTER, "name");
    // a plan that fails lets the step pass
    act(&opened, &[array(c"global_cond", &now)]).0.unwrap();
    let huge = [3e38; 4];
    (0..2).for_each(|_| _ = act(&opened, &[array(c"global_cond", &now)]).0.unwrap());
    let (result, action) = act(&opened, &[array(c"global_cond", &huge)]);
    assert_eq!((result.unwrap_err().0, action[0].is_finite()), (edgegen_status::NOT_FINITE, true));

    let refused = |options: edgegen_policy_options, words: &str| {
        let (mut policy, mut error) = (null_mut(), error());
        // SAFETY: all pointers are to what they should be.
        let status = unsafe { edgegen_policy_prepare(opened.model, null(), &options, &mut policy, &mut error) };
        assert!(status != edgegen_status::OK && policy.is_null());
        assert!(message(&error).contains(words), "{}", message(&error));
    };
    refused(edgegen_policy_options { timing: 9, ..options() }, "no timing 9");
    refused(edgegen_policy_options { delay: 1, ..options() }, "delay is for");
    refused(edgegen_policy_options { joint: -1, ..options() }, "no joint -1");
    refused(edgegen_policy_options { joint: 2, jacobian: 7, ..options() }, "no jacobian 7");
    refused(edgegen_policy_options { when_dry: 5, ..options() }, "no when_dry 5");
    refused(
        edgegen_policy_options { when_dry: edgegen_when_dry::SAFE as i32, ..options() },
        "safe_action must not be null",
    );
    refused(edgegen_policy_options { n_obs_steps: 3, ..options() }, "not 3 observations");
    refused(edgegen_policy_options { lerobot_config: c"[".as_ptr(), ..options() }, "config.json");
    refused(edgegen_policy_options { first_action: &16, ..options() }, "action 16");
    let mut action = [0.0; 3];
    // SAFETY: all pointers are null or to what they should be.
    unsafe {
        let mut act = |len| edgegen_policy_act(opened.policy, null(), action.as_mut_ptr(), len, null_mut(), null_mut());
        assert_eq!(act(3), edgegen_status::WRONG_SIZE);
        let none = edgegen_policy_act(null_mut(), null(), action.as_mut_ptr(), 2, null_mut(), null_mut());
        assert_eq!(none, edgegen_status::NULL_POINTER);
        assert_eq!(edgegen_policy_reset(opened.model.cast(), 0, null_mut()), edgegen_status::BAD_HANDLE);
    }
}

#[test]
fn conditions_are_observed_in_parts_and_actions_have_a_safe_one() {
    let parts = [(c"hand", 2), (c"disc", 2)].map(|(name, len)| edgegen_part {
        condition: c"global_cond".as_ptr(),
        name: name.as_ptr(),
        len,
    });
    let safe = [0.5f32, -0.25];
    let opened = Opened::new(&edgegen_policy_options {
        parts: parts.as_ptr(),
        num_parts: 2,
        timing: edgegen_timing::SIMULATED as i32,
        delay: 99,
        when_dry: edgegen_when_dry::SAFE as i32,
        safe_action: safe.as_ptr(),
        safe_action_len: 2,
        ..options()
    });
    let now = seen(0);
    let arrays = || [array(c"disc", &now[2..]), array(c"hand", &now[..2])];
    for _ in 0..15 {
        assert_eq!(act(&opened, &arrays()).0.unwrap().state, edgegen_state::PLANNED);
    }
    let (result, action) = act(&opened, &arrays());
    let step = result.unwrap();
    assert_eq!((step.state, step.plan, action), (edgegen_state::DRY, -1, safe));
}
