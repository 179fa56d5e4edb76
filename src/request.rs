//! What is to be made, in one run.

use crate::condition::Condition;
use crate::constraint::Constraint;
use crate::sampler::{OnStep, Progress};
use crate::{Error, Result};
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What a [`Generator`](crate::Generator) is to make in one run: a sample's seed and index, and what else is asked of it.
///
/// ```
/// # #[cfg(feature = "embedded-model")] {
/// use edgegen::{Model, Request};
/// use std::time::{Duration, Instant};
///
/// let model = Model::embedded()?;
/// let mut generator = model.generator().steps(4).build()?;
/// let soon = Instant::now() + Duration::from_secs(1);
/// let run = generator.run(&Request::new(7, 0).class(model.class("Bag")?).deadline(soon))?;
/// assert_eq!(run.sample.len(), 28 * 28);
/// # }
/// # Ok::<(), edgegen::Error>(())
/// ```
///
/// Samples and conditions are in the units of the model's data. To build one allocates nothing, unless it has more than
/// eight conditions. What cannot be had together, or does not fit the model or the generator's settings, is an error when
/// the request is run; nothing is ignored.
pub struct Request<'a> {
    pub(crate) seed: u64,
    pub(crate) index: u64,
    pub(crate) class: Class,
    pub(crate) conditions: Conditions<'a>,
    pub(crate) start: From<'a>,
    /// Whether more than one start was given.
    pub(crate) several_starts: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Option<&'a AtomicBool>,
    // taken out while a run calls them
    pub(crate) on_step: RefCell<Option<&'a mut OnStep<'a>>>,
    pub(crate) constraint: RefCell<Option<&'a mut (dyn Constraint + 'a)>>,
}

/// Which class is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// That which is drawn from the seed and the index.
    Drawn,
    /// The model's "no class".
    No,
    /// This one.
    Index(usize),
}

/// What a run starts from.
#[derive(Clone, Copy)]
pub(crate) enum From<'a> {
    /// The noise of the seed.
    Seed,
    /// This noise.
    Noise(&'a [f32]),
    /// This sample, noised so that the last share of the steps is to be run.
    Sample(&'a [f32], f64),
    /// This sample, which has noise of this σ.
    Noisy(&'a [f32], f64),
}

impl<'a> Request<'a> {
    /// Sample `index` of the run with this `seed`. The sample depends on (seed, index), the model, the generator's
    /// settings and the rest of the request alone.
    pub fn new(seed: u64, index: u64) -> Self {
        Request {
            seed,
            index,
            class: Class::Drawn,
            conditions: Conditions::default(),
            start: From::Seed,
            several_starts: false,
            deadline: None,
            cancel: None,
            on_step: RefCell::new(None),
            constraint: RefCell::new(None),
        }
    }

    /// Asks for a class, by its index ([`Model::class`](crate::Model::class) finds it by its name). One that is not asked for
    /// is drawn from (seed, index): [`Model::drawn_class`](crate::Model::drawn_class).
    pub fn class(mut self, index: usize) -> Self {
        self.class = Class::Index(index);
        self
    }

    /// Asks for the model's "no class", which a model that was trained without guidance in mind may not have.
    pub fn without_class(mut self) -> Self {
        self.class = Class::No;
        self
    }

    /// Gives the condition of the network's input `name`. Each that the network takes must be given.
    pub fn condition(mut self, name: &'a str, values: &'a [f32]) -> Self {
        self.conditions.push(name, values);
        self
    }

    /// Gives what `condition` holds: its class, if it has one, and its named conditions.
    pub fn conditions(mut self, condition: &'a Condition) -> Self {
        self.class = condition.class.map_or(self.class, Class::Index);
        condition.named.iter().for_each(|(name, values)| self.conditions.push(name, values));
        self
    }

    /// Starts from this standard normal noise instead of the seed's. What a stochastic solver adds still comes from the
    /// seed.
    pub fn from_noise(self, noise: &'a [f32]) -> Self {
        self.starting(From::Noise(noise))
    }

    /// Makes another sample near `sample` (SDEdit, arXiv 2108.01073), or renews a plan: it is noised, with the seed's
    /// noise, to where the last share `strength` of the steps is to be run, above 0 and at most 1. Near 0 the sample stays
    /// what it is; at 1 nothing is left of it, and the run is that from noise.
    pub fn near(self, sample: &'a [f32], strength: f64) -> Self {
        self.starting(From::Sample(sample, strength))
    }

    /// Takes the noise from `sample`, which has noise of this standard deviation, in the network's units, above 0.
    pub fn from_noisy(self, sample: &'a [f32], sigma: f64) -> Self {
        self.starting(From::Noisy(sample, sigma))
    }

    fn starting(mut self, start: From<'a>) -> Self {
        self.several_starts |= !matches!(self.start, From::Seed);
        self.start = start;
        self
    }

    /// What the sample must agree with; for solvers with fixed steps. It works in the network's units.
    pub fn constraint(self, constraint: &'a mut (dyn Constraint + 'a)) -> Self {
        self.constraint.replace(Some(constraint));
        self
    }

    /// Ends the run once it is past, with the best sample there is by then. A network call under way is ended.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Ends the run once it is true.
    pub fn cancel(mut self, cancel: &'a AtomicBool) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Calls this after every step, with samples in the network's units; `Break` ends the run.
    pub fn on_step(self, on_step: &'a mut (dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a)) -> Self {
        self.on_step.replace(Some(on_step));
        self
    }
}

/// Named conditions, borrowed; the first few need no allocation.
#[derive(Default)]
pub(crate) struct Conditions<'a> {
    first: [(&'a str, &'a [f32]); 8],
    count: usize,
    rest: Vec<(&'a str, &'a [f32])>,
}

impl<'a> Conditions<'a> {
    pub fn push(&mut self, name: &'a str, values: &'a [f32]) {
        match self.first.get_mut(self.count) {
            Some(place) => *place = (name, values),
            None => self.rest.push((name, values)),
        }
        self.count += 1;
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [f32])> + '_ {
        self.first[..self.count.min(self.first.len())].iter().chain(&self.rest).copied()
    }

    /// The values of this name.
    ///
    /// # Errors
    /// When they are given twice.
    pub fn get(&self, name: &str) -> Result<Option<&'a [f32]>> {
        let mut found = self.iter().filter(|(known, _)| *known == name).map(|(_, values)| values);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Error::invalid(format!("condition {name} is given twice"))),
            (values, None) => Ok(values),
        }
    }
}
