//! What watches a run, steers it and ends it, and what it came to.

use crate::constraint::Constraint;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How far a run is, for its callback.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Steps done, from 1.
    pub step: usize,
    /// Steps in all; 0 where that is not known beforehand.
    pub steps: usize,
    /// The sample x_t now.
    pub x: &'a [f32],
    /// The estimate of the clean sample from the last evaluation.
    pub x0: &'a [f32],
}

/// Called after every step of a run; `Break` ends it.
pub type OnStep<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

/// What watches a run, steers it, and may end it before its last step.
#[derive(Default)]
pub struct Control<'a> {
    /// Called after every step; `Break` ends the run.
    pub on_step: Option<&'a mut OnStep<'a>>,
    /// Ends the run once it is true.
    pub cancel: Option<&'a AtomicBool>,
    /// Ends the run once it is past.
    pub deadline: Option<Instant>,
    /// What the sample must agree with; for solvers with fixed steps.
    pub constraint: Option<&'a mut dyn Constraint>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Every step was taken.
    Complete,
    /// The callback asked for it.
    Callback,
    /// The cancel flag was set.
    Cancelled,
    /// The deadline passed.
    Deadline,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Why it ended.
    pub ending: Ending,
    /// Steps taken.
    pub steps: usize,
    /// Network calls made.
    pub nfe: usize,
}

impl Control<'_> {
    /// Why the run is to end now, if it is.
    pub(crate) fn ending(&self) -> Option<Ending> {
        if self.cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
            Some(Ending::Cancelled)
        } else if self.deadline.is_some_and(|d| Instant::now() >= d) {
            Some(Ending::Deadline)
        } else {
            None
        }
    }
}
