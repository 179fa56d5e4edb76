//! How a policy is run.

use super::generator::{edgegen_condition, named};
use super::pointer::{array, given, text};
use super::status::{Failure, edgegen_status};
use crate::generator::GeneratorBuilder;
use crate::policy::{Chunking, Jacobian, Joint, PolicyBuilder, Timing, WhenDry};
use std::ffi::c_char;
use std::time::Duration;

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
    /// By a second network call at each step.
    DIFFERENCE = 0,
    /// As of independent elements of variance 1: costs nothing, and holds plans too tightly (docs/policy.md).
    DIAGONAL = 1,
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

/// The settings that options come to.
///
/// # Safety
/// C's promise.
pub(super) unsafe fn settings(
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
    if options.n_obs_steps > 0 {
        settings = settings.n_obs_steps(options.n_obs_steps);
    }
    if options.n_action_steps > 0 {
        settings = settings.n_action_steps(options.n_action_steps);
    }
    if options.expected_delay > 0 {
        settings = settings.expected_delay(options.expected_delay);
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
    let jacobian = match options.jacobian {
        jacobian if jacobian == edgegen_jacobian::DIAGONAL as i32 => Jacobian::Diagonal,
        jacobian if jacobian == edgegen_jacobian::DIFFERENCE as i32 => Jacobian::Difference,
        other => return Err(unknown("jacobian", other)),
    };
    let mut chunking = Chunking { jacobian, ..Chunking::default() };
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
