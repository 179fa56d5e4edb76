//! Policies: an observation in, an action out, at every control step.

use super::generator::{builder, edgegen_condition, edgegen_options};
use super::handle::{Exclusive, Handle, Handled};
use super::model::{edgegen_model, get};
use super::pointer::{array, free, given, place, text, told};
use super::status::{Failure, edgegen_error, edgegen_status, guarded};
use crate::generator::GeneratorBuilder;
use crate::policy::{Action, Chunking, Jacobian, Joint, Observation, Policy, PolicyBuilder, State, Timing, WhenDry};
use std::ffi::c_char;
use std::ptr;
use std::time::Duration;

/// Gives actions, one at each control step. For one thread at a time: another that finds it in use is told
/// EDGEGEN_STATUS_BUSY.
pub struct edgegen_policy(());

impl Handled for Exclusive<Policy> {
    const MARK: u64 = 0x6564_6765_706f_6c69;
    const NAME: &str = "policy";
}

/// When plans are made, and when they are there.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum edgegen_timing {
    /// In `edgegen_policy_act`, when the actions of the last one have been carried out.
    SYNCHRONOUS = 0,
    /// On a thread of its own, while the last one is carried out: `edgegen_policy_act` takes microseconds.
    ASYNCHRONOUS = 1,
    /// As if on a thread on which each takes `delay` control steps.
    SIMULATED = 2,
    /// As if each took `delay` control steps, for which the robot stands still.
    WAITING = 3,
}

/// How a plan is joined to the last one.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum edgegen_joint {
    /// Not at all.
    SWITCH = 0,
    /// The actions that are carried out meanwhile are put into the noisy plan at every step.
    INPAINT = 1,
    /// Real-time chunking (arXiv 2506.07339).
    CHUNK = 2,
    /// Real-time chunking as a network of a time for each action was trained for it (arXiv 2512.05964).
    PREFIX = 3,
}

/// How real-time chunking has the network's derivative.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum edgegen_jacobian {
    /// As of independent elements of variance 1: costs nothing.
    DIAGONAL = 0,
    /// By a second network call at each step.
    DIFFERENCE = 1,
}

/// What the action is when there is none of a plan.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum edgegen_when_dry {
    /// The last action again.
    HOLD = 0,
    /// `safe_action`.
    SAFE = 1,
    /// EDGEGEN_STATUS_NO_ACTION.
    ERROR = 2,
}

/// What a control step came to: the first of these, from the bottom, that is so.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum edgegen_state {
    /// There is an action of a plan, and the plans come in time.
    PLANNED = 0,
    /// No new observation came: the last one stands for it.
    DROPPED = 1,
    /// A new plan is not there though it was expected: the last one goes on.
    LATE = 2,
    /// The latest observation is too old, or there is none: no plan is made of it, and the last one goes on.
    STALE = 3,
    /// The robot waits for a simulated plan.
    WAITING = 4,
    /// There is no action of a plan: it is as `when_dry` says.
    DRY = 5,
}

/// A part of a condition, observed by a name of its own.
#[repr(C)]
pub struct edgegen_part {
    /// The condition.
    pub condition: *const c_char,
    /// What the part is called in observations.
    pub name: *const c_char,
    /// The numbers that it has at each control step.
    pub len: usize,
}

/// How a policy is run. All zeros stand for what suits the model and for a synchronous policy.
#[repr(C)]
pub struct edgegen_policy_options {
    /// The control steps whose observations a plan is made of; 0 for what the policy's config.json says, else 1.
    pub n_obs_steps: usize,
    /// The control steps from one plan to the next, which is how many actions of each are carried out; 0 for what the
    /// config.json says, else half of those that are not of the past.
    pub n_action_steps: usize,
    /// Which action of a plan is for the step of its latest observation; null for `n_obs_steps` - 1.
    pub first_action: *const usize,
    /// When plans are made: an `edgegen_timing`.
    pub timing: i32,
    /// The control steps that a plan takes with EDGEGEN_TIMING_SIMULATED and EDGEGEN_TIMING_WAITING; else 0.
    pub delay: usize,
    /// How a plan is joined to the last one: an `edgegen_joint`.
    pub joint: i32,
    /// How EDGEGEN_JOINT_CHUNK has the network's derivative: an `edgegen_jacobian`.
    pub jacobian: i32,
    /// The greatest weight of its guidance; 0 for 5, the paper's.
    pub most_guidance: f64,
    /// Starts each plan from the last one, by this share of the steps, at most 1; 0 for noise.
    pub warm_start: f64,
    /// Averages plans that overlap with the weights exp(-m i), i = 0 for the oldest: m, 0.01 in ACT; null for none of it.
    pub ensemble: *const f64,
    /// What the action is when there is none of a plan: an `edgegen_when_dry`.
    pub when_dry: i32,
    /// The action of EDGEGEN_WHEN_DRY_SAFE; else null.
    pub safe_action: *const f32,
    pub safe_action_len: usize,
    /// The age in control steps from above which no plan is made of an observation; null for none.
    pub stale_after: *const usize,
    /// Microseconds after which a plan is cut short; 0 for none.
    pub budget_us: u64,
    /// The control steps that a plan is expected to take before one was measured, with EDGEGEN_TIMING_ASYNCHRONOUS; 0 for 1.
    pub expected_delay: usize,
    /// Plan k is that of (seed, k).
    pub seed: u64,
    /// The class of all plans; less than 0 for the model's "no class". For a model that takes no class, 0 or less.
    pub class_index: i32,
    /// The conditions that are no observations but the same for all plans.
    pub conditions: *const edgegen_condition,
    pub num_conditions: usize,
    /// Conditions that are made of several arrays of each step, by their parts in order.
    pub parts: *const edgegen_part,
    pub num_parts: usize,
    /// The text of a LeRobot policy's config.json; null for the one beside the model's file, if there is one.
    pub lerobot_config: *const c_char,
}

/// What was seen at one control step.
#[repr(C)]
pub struct edgegen_observation {
    /// Its arrays by their names.
    pub arrays: *const edgegen_condition,
    pub num_arrays: usize,
    /// How many control steps ago it was taken.
    pub age: usize,
}

/// What a control step came to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct edgegen_step {
    pub state: edgegen_state,
    /// The number of the plan that the action is of; -1 if it is of none.
    pub plan: i64,
    /// Which of the plan's actions it is: the control steps from the plan's observation to now.
    pub place: usize,
}

/// What the control steps since the policy was prepared or reset came to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct edgegen_policy_stats {
    /// Control steps.
    pub steps: u64,
    /// Plans that were made; of them those of no use, since all of their actions were of the past, and those that the budget
    /// cut short.
    pub plans: u64,
    pub discarded: u64,
    pub cut_short: u64,
    /// Plans that the budget ended before the first network call, and plans that failed.
    pub missed: u64,
    pub failed: u64,
    /// Steps without a new observation; with one too old, or none; at which a plan was late; at which a simulated robot
    /// waited; without an action of a plan.
    pub dropped: u64,
    pub stale: u64,
    pub late: u64,
    pub waiting: u64,
    pub dry: u64,
    /// The control steps that the latest plan took to be there, and the most that one took.
    pub delay: usize,
    pub longest_delay: usize,
    /// The microseconds that the latest plan took to make, and the most that one took.
    pub plan_us: u64,
    pub longest_plan_us: u64,
}

/// Makes a policy of a model whose samples are plans, actions of shape [T, D], and does all that a first plan would.
/// `options` say how plans are sampled; both options may be null. Free the policy with `edgegen_policy_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_policy_prepare(
    model: *const edgegen_model,
    options: *const edgegen_options,
    policy_options: *const edgegen_policy_options,
    policy: *mut *mut edgegen_policy,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let to = unsafe { place(policy, "policy")? }.write(ptr::null_mut());
        // SAFETY: C's promise.
        let loaded = unsafe { get(model)? };
        // SAFETY: C's promise.
        let generator = unsafe { builder(loaded, options)? };
        // SAFETY: C's promise.
        let settings = unsafe { settings(&generator, policy_options)? };
        *to = Handle::new(Exclusive::new(settings.build()?)).cast();
        Ok(())
    })
}

/// Ends a policy's thread, after the network call under way, frees it and sets the caller's pointer to null. One that is in
/// use stays, and the answer is EDGEGEN_STATUS_BUSY. Null, or a pointer to null, is OK and does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_policy_free(
    policy: *mut *mut edgegen_policy,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    // SAFETY: C's promise. Who has acquired it is the last to use it.
    guarded(error, || unsafe { free(policy, Exclusive::<Policy>::retire) })
}

/// Writes the number of actions of a plan to `horizon`, and that of the numbers of an action to `action_len`. Either may be
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_policy_describe(
    policy: *const edgegen_policy,
    horizon: *mut usize,
    action_len: *mut usize,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let handle: &Exclusive<Policy> = unsafe { Handle::get(policy.cast())? };
        let shape = handle.acquire()?.plan_shape();
        for (to, value) in [horizon, action_len].into_iter().zip(shape) {
            if !to.is_null() {
                // SAFETY: C's promise.
                unsafe { place(to, "horizon or action_len")? }.write(value);
            }
        }
        Ok(())
    })
}

/// Makes a first plan of an observation and waits for it: before the loop begins, so that its first step has an action.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_policy_prime(
    policy: *mut edgegen_policy,
    observation: *const edgegen_observation,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let handle: &Exclusive<Policy> = unsafe { Handle::get(policy.cast())? };
        // SAFETY: C's promise.
        let observation = unsafe { observed(observation)? };
        Ok(handle.acquire()?.prime(&observation)?)
    })
}

/// The action of the next control step into `action`, which holds `action_len` floats. To be called once a step. A null
/// `observation` is a dropped frame, for which the last one stands. `step` may be null.
///
/// With EDGEGEN_TIMING_ASYNCHRONOUS it never waits, neither allocates nor takes a lock, and calls the system at most to wake
/// the thread that plans. After an error of the observation's nothing has changed. After one of a plan that failed, told once,
/// or EDGEGEN_STATUS_NO_ACTION the step has passed, and `action` is what is to be done all the same: what the last plan has
/// for it, else what `when_dry` says, else the last action.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_policy_act(
    policy: *mut edgegen_policy,
    observation: *const edgegen_observation,
    action: *mut f32,
    action_len: usize,
    step: *mut edgegen_step,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let handle: &Exclusive<Policy> = unsafe { Handle::get(policy.cast())? };
        let mut policy = handle.acquire()?;
        if action.is_null() {
            return Err(Failure::null("action"));
        }
        let [_, width] = policy.plan_shape();
        if action_len != width || !action.is_aligned() {
            let message = format!("an action has {width} floats, but there is room for {action_len}");
            return Err(Failure::new(edgegen_status::WRONG_SIZE, message));
        }
        // SAFETY: C's promise.
        let observation = unsafe { observed(observation)? };
        let before = policy.stats().steps;
        let acted = policy.act(&observation).map(|acted| edgegen_step::from(&acted));
        if policy.stats().steps != before {
            // SAFETY: `action` is not null and aligned, and has as many numbers as an action, by C's promise. The action is
            // the policy's own.
            unsafe { action.copy_from_nonoverlapping(policy.action().as_ptr(), width) };
        }
        let acted = acted?;
        if !step.is_null() {
            // SAFETY: C's promise.
            unsafe { place(step, "step")? }.write(acted);
        }
        Ok(())
    })
}

/// Begins anew, as at the start of an episode: without observations, plans, actions and counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_policy_reset(
    policy: *mut edgegen_policy,
    seed: u64,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let handle: &Exclusive<Policy> = unsafe { Handle::get(policy.cast())? };
        handle.acquire()?.reset(seed);
        Ok(())
    })
}

/// Says what the control steps so far came to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_policy_count(
    policy: *const edgegen_policy,
    stats: *mut edgegen_policy_stats,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let handle: &Exclusive<Policy> = unsafe { Handle::get(policy.cast())? };
        // SAFETY: C's promise.
        let to = unsafe { place(stats, "stats")? };
        let stats = handle.acquire()?.stats();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        to.write(edgegen_policy_stats {
            steps: stats.steps,
            plans: stats.plans,
            discarded: stats.discarded,
            cut_short: stats.cut_short,
            missed: stats.missed,
            failed: stats.failed,
            dropped: stats.dropped,
            stale: stats.stale,
            late: stats.late,
            waiting: stats.waiting,
            dry: stats.dry,
            delay: stats.delay,
            longest_delay: stats.longest_delay,
            plan_us: micros(stats.plan_time),
            longest_plan_us: micros(stats.longest_plan_time),
        });
        Ok(())
    })
}

impl From<&Action<'_>> for edgegen_step {
    fn from(acted: &Action<'_>) -> Self {
        edgegen_step {
            state: match acted.state {
                State::Planned => edgegen_state::PLANNED,
                State::Dropped => edgegen_state::DROPPED,
                State::Late => edgegen_state::LATE,
                State::Stale => edgegen_state::STALE,
                State::Waiting => edgegen_state::WAITING,
                State::Dry => edgegen_state::DRY,
            },
            plan: acted.plan.map_or(-1, |plan| i64::try_from(plan).unwrap_or(i64::MAX)),
            place: acted.place,
        }
    }
}

/// The library's form of an observation; a missing one for null.
///
/// # Safety
/// C's promise, for `'a`.
unsafe fn observed<'a>(observation: *const edgegen_observation) -> Result<Observation<'a>, Failure> {
    // SAFETY: the caller's promise.
    let Some(observation) = (unsafe { given(observation, "observation")? }) else { return Ok(Observation::missing()) };
    let mut seen = Observation::new().age(observation.age);
    // SAFETY: the caller's promise.
    for (name, values) in unsafe { named(observation.arrays, observation.num_arrays, "an observation")? } {
        seen = seen.with(name, values);
    }
    Ok(seen)
}

/// Arrays by their names, without allocating.
///
/// # Safety
/// C's promise, for `'a`.
unsafe fn named<'a>(
    first: *const edgegen_condition,
    count: usize,
    what: &str,
) -> Result<impl Iterator<Item = (&'a str, &'a [f32])>, Failure> {
    // SAFETY: the caller's promise.
    let all: &[edgegen_condition] = if count == 0 { &[] } else { unsafe { array(first, count, what)? } };
    let read = |one: &'a edgegen_condition| -> Result<(&'a str, &'a [f32]), Failure> {
        // SAFETY: the caller's promise.
        let name = unsafe { text(one.name, "an array's name")? };
        let name = name.ok_or_else(|| Failure::null("an array's name"))?;
        // SAFETY: the caller's promise.
        Ok((name, unsafe { array(one.values, one.len, "an array's values")? }))
    };
    // all are looked at before the first is used
    all.iter().try_for_each(|one| read(one).map(drop))?;
    Ok(all.iter().filter_map(move |one| read(one).ok()))
}

/// # Safety
/// C's promise.
unsafe fn settings(
    generator: &GeneratorBuilder,
    options: *const edgegen_policy_options,
) -> Result<PolicyBuilder, Failure> {
    let mut settings = generator.policy();
    // SAFETY: C's promise.
    let Some(options) = (unsafe { given(options, "policy_options")? }) else { return Ok(settings) };
    // SAFETY: C's promise.
    if let Some(json) = unsafe { text(options.lerobot_config, "lerobot_config")? } {
        settings = settings.lerobot_config(json)?;
    }
    let counts: [(usize, fn(PolicyBuilder, usize) -> PolicyBuilder); 3] = [
        (options.n_obs_steps, PolicyBuilder::n_obs_steps),
        (options.n_action_steps, PolicyBuilder::n_action_steps),
        (options.expected_delay, PolicyBuilder::expected_delay),
    ];
    for (count, set) in counts.into_iter().filter(|(count, _)| *count > 0) {
        settings = set(settings, count);
    }
    // SAFETY: C's promise.
    if let Some(place) = unsafe { given(options.first_action, "first_action")? } {
        settings = settings.first_action(*place);
    }
    // SAFETY: C's promise.
    if let Some(steps) = unsafe { given(options.stale_after, "stale_after")? } {
        settings = settings.stale_after(*steps);
    }
    // SAFETY: C's promise.
    if let Some(coefficient) = unsafe { given(options.ensemble, "ensemble")? } {
        settings = settings.ensemble(*coefficient);
    }
    if options.warm_start != 0.0 {
        settings = settings.warm_start(options.warm_start);
    }
    if options.budget_us > 0 {
        settings = settings.budget(Duration::from_micros(options.budget_us));
    }
    let model = generator.model();
    match usize::try_from(options.class_index).ok() {
        // 0 is what options of zeros say
        Some(class) if model.takes_class() || class > 0 => settings = settings.class(class),
        _ => {}
    }
    // SAFETY: C's promise.
    for (name, values) in unsafe { named(options.conditions, options.num_conditions, "conditions")? } {
        settings = settings.condition(name, values);
    }
    // SAFETY: C's promise.
    settings = unsafe { parted(settings, options)? };
    // SAFETY: C's promise.
    let when_dry = unsafe { when_dry(options)? };
    Ok(settings.timing(timing(options)?).joint(joint(options)?).when_dry(when_dry).seed(options.seed))
}

/// That a number is none of an enum.
fn unknown(what: &str, number: i32) -> Failure {
    Failure::new(edgegen_status::INVALID_ARGUMENT, format!("there is no {what} {number}"))
}

fn timing(options: &edgegen_policy_options) -> Result<Timing, Failure> {
    let is = |timing: edgegen_timing| options.timing == timing as i32;
    let delay = options.delay;
    if is(edgegen_timing::SIMULATED) {
        return Ok(Timing::Simulated { delay });
    } else if is(edgegen_timing::WAITING) {
        return Ok(Timing::Waiting { delay });
    }
    if delay > 0 {
        let message = "delay is for EDGEGEN_TIMING_SIMULATED and EDGEGEN_TIMING_WAITING";
        return Err(Failure::new(edgegen_status::INVALID_ARGUMENT, message));
    }
    if is(edgegen_timing::SYNCHRONOUS) {
        Ok(Timing::Synchronous)
    } else if is(edgegen_timing::ASYNCHRONOUS) {
        Ok(Timing::Asynchronous)
    } else {
        Err(unknown("timing", options.timing))
    }
}

fn joint(options: &edgegen_policy_options) -> Result<Joint, Failure> {
    let is = |joint: edgegen_joint| options.joint == joint as i32;
    if is(edgegen_joint::SWITCH) {
        return Ok(Joint::Switch);
    } else if is(edgegen_joint::INPAINT) {
        return Ok(Joint::Inpaint);
    } else if is(edgegen_joint::PREFIX) {
        return Ok(Joint::Prefix);
    } else if !is(edgegen_joint::CHUNK) {
        return Err(unknown("joint", options.joint));
    }
    let mut chunking = Chunking::default();
    chunking.jacobian = match options.jacobian {
        jacobian if jacobian == edgegen_jacobian::DIAGONAL as i32 => Jacobian::Diagonal,
        jacobian if jacobian == edgegen_jacobian::DIFFERENCE as i32 => Jacobian::Difference,
        other => return Err(unknown("jacobian", other)),
    };
    if options.most_guidance != 0.0 {
        chunking.most = options.most_guidance;
    }
    Ok(Joint::Chunk(chunking))
}

/// # Safety
/// C's promise.
unsafe fn when_dry(options: &edgegen_policy_options) -> Result<WhenDry, Failure> {
    let is = |when_dry: edgegen_when_dry| options.when_dry == when_dry as i32;
    if is(edgegen_when_dry::SAFE) {
        // SAFETY: C's promise.
        let action = unsafe { array(options.safe_action, options.safe_action_len, "safe_action")? };
        Ok(WhenDry::Safe(action.to_vec()))
    } else if is(edgegen_when_dry::HOLD) {
        Ok(WhenDry::Hold)
    } else if is(edgegen_when_dry::ERROR) {
        Ok(WhenDry::Error)
    } else {
        Err(unknown("when_dry", options.when_dry))
    }
}

/// The settings with the parts of conditions.
///
/// # Safety
/// C's promise.
unsafe fn parted(mut settings: PolicyBuilder, options: &edgegen_policy_options) -> Result<PolicyBuilder, Failure> {
    if options.num_parts == 0 {
        return Ok(settings);
    }
    let mut conditions: Vec<(&str, Vec<(&str, usize)>)> = Vec::new();
    // SAFETY: C's promise.
    for part in unsafe { array(options.parts, options.num_parts, "parts")? } {
        // SAFETY: C's promise.
        let condition = unsafe { text(part.condition, "a part's condition")? };
        let condition = condition.ok_or_else(|| Failure::null("a part's condition"))?;
        // SAFETY: C's promise.
        let name = unsafe { text(part.name, "a part's name")? }.ok_or_else(|| Failure::null("a part's name"))?;
        match conditions.iter_mut().find(|(known, _)| *known == condition) {
            Some((_, parts)) => parts.push((name, part.len)),
            None => conditions.push((condition, vec![(name, part.len)])),
        }
    }
    for (condition, parts) in conditions {
        settings = settings.observed_as(condition, &parts);
    }
    Ok(settings)
}
