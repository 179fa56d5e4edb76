//! Policies: an observation in, an action out, at every control step.

use super::generator::{builder, edgegen_condition, edgegen_options, named};
use super::handle::{Exclusive, Handle, Handled};
use super::model::{edgegen_model, get};
use super::pointer::{free, given, place, told};
use super::policy_options::{edgegen_policy_options, settings};
use super::status::{Failure, edgegen_error, edgegen_status, guarded};
use crate::policy::{Action, Observation, Policy, State};
use std::ptr;
use std::time::Duration;

/// Gives actions, one at each control step. For one thread at a time: another that finds it in use is told
/// EDGEGEN_STATUS_BUSY.
pub struct edgegen_policy(());

impl Handled for Exclusive<Policy> {
    const MARK: u64 = 0x6564_6765_706f_6c69;
    const NAME: &str = "policy";
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
    for (name, values) in unsafe { named(observation.arrays, observation.num_arrays, "observation")? } {
        seen = seen.with(name, values);
    }
    Ok(seen)
}
