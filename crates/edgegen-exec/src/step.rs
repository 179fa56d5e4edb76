//! A step of a plan: a kernel, its weights, and the places that it is handed.

use crate::place::{Handle, Places, Slice, Strided};
use crate::reason::Reason;
use kernels::{Isa, Memory, Part};
use std::fmt;
use std::sync::Arc;

/// What an operator's file in `ops/` says of a step. Where values lie is in the step's [`Places`], of which it keeps handles
/// alone; so all that it can reach in memory is what the plan's verifier has seen.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// What `inspect` calls it.
    fn name(&self, places: &Places) -> &'static str;

    /// The sizes that it works on, as text, and the multiplications with an addition that it stands for.
    fn sizes(&self, places: &Places) -> (String, u64);

    /// Whether the places fit each other and the weights, in every way that [`run`](Self::run) relies on.
    ///
    /// # Errors
    /// What does not fit.
    fn check(&self, places: &Places) -> Result<(), Reason>;

    /// Makes its part of what the step writes. The parts together make the same bits for any number of parts.
    fn run(&self, call: Call<'_>, scratch: &mut Scratch);

    /// About how long it takes, in multiply-adds of a convolution, if threads can share it. `None` where one thread runs it.
    fn cost(&self, _: &Places) -> Option<usize> {
        None
    }

    /// Bytes of its weights.
    fn bytes(&self) -> usize {
        0
    }

    /// What tells its weights from others, if steps may share them.
    fn shared_weights(&self) -> Option<usize> {
        None
    }

    /// The room that each thread needs beside the places.
    fn scratch(&self, _: &Places) -> ScratchLen {
        ScratchLen::default()
    }

    /// Whether it may write the very place that it reads: what it does to a number depends on no other number of that place.
    fn works_in_place(&self) -> bool {
        false
    }
}

/// What a kernel is handed to make a part of its step.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The kind of CPU.
    pub isa: Isa,
    /// Which part to make.
    pub part: Part,
    /// The step's places.
    pub places: &'a Places,
    /// The memory that the places are in.
    pub memory: Memory<'a>,
}

/// How much of a [`Scratch`] a step needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchLen {
    /// Numbers to work with.
    pub work: usize,
    /// Numbers that are copied out of the arena.
    pub copied: usize,
}

/// What one thread works in while it is at a step.
#[repr(align(128))]
pub struct Scratch {
    /// Numbers to work with.
    pub work: Vec<f32>,
    /// Room for numbers out of the arena.
    pub copied: Vec<f32>,
}

impl Scratch {
    /// Of so many numbers.
    pub fn new(len: ScratchLen) -> Self {
        Scratch { work: vec![0.0; len.work], copied: vec![0.0; len.copied] }
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.work) + size_of_val(&*self.copied)
    }
}

/// How a step is run where there are several threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// By at most so many threads, one after all of the step before is done.
    Among(usize),
    /// By one thread, which then goes on with the others at the next step: that reads nothing of what this one makes.
    BesideNext,
}

/// A step at the border of a plan, between the caller's numbers and the arena.
#[derive(Clone, Debug)]
pub enum Boundary {
    /// The sample, whose numbers lie as `from` says, into its place.
    Sample { to: Handle<Strided>, from: Strided },
    /// The time, or the one that the step leads to, rounded if the network takes a whole number; the same in every place.
    Time { to: Handle<Slice>, whole: bool, next: bool },
    /// The class.
    Class { to: Handle<Slice> },
    /// A condition: which of those that the network takes.
    Condition { to: Handle<Slice>, index: usize },
    /// A result, to where its numbers lie as `to` says: which of the graph's outputs.
    Result { from: Handle<Strided>, to: Strided, index: usize },
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Work {
    /// It takes what the caller gives, or gives the result.
    Boundary(Boundary),
    /// It works on the arena alone.
    Kernel(Arc<dyn Kernel>),
}

/// A step of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it does.
    pub work: Work,
    /// Where.
    pub places: Places,
    /// How threads share it.
    pub share: Share,
    /// The value for the sake of which it is, of a step in 16 bits: what is to be made in 32 if that overflows.
    pub made_for: Option<Arc<str>>,
}

/// The time that a part of a step must take for another thread to be worth it: that in which a core makes as many
/// multiply-adds of a convolution in f32, about a microsecond. To offer parts costs the caller about half of one, as
/// measured where no other thread came.
const WORTH: usize = 80_000;

impl Step {
    /// A step that threads share if it takes long enough.
    pub fn new(kernel: impl Kernel + 'static, places: Places) -> Self {
        let work = kernel.cost(&places);
        let share = Share::Among(work.map_or(1, |work| (work / WORTH).max(1)));
        Step { work: Work::Kernel(Arc::new(kernel)), places, share, made_for: None }
    }

    /// A step at the border of the plan.
    pub fn boundary(boundary: Boundary, places: Places) -> Self {
        Step { work: Work::Boundary(boundary), places, share: Share::Among(1), made_for: None }
    }

    /// The kernel, if it is one.
    pub fn kernel(&self) -> Option<&dyn Kernel> {
        if let Work::Kernel(kernel) = &self.work { Some(&**kernel) } else { None }
    }

    /// What `inspect` calls it.
    pub fn name(&self) -> &'static str {
        match &self.work {
            Work::Kernel(kernel) => kernel.name(&self.places),
            Work::Boundary(Boundary::Sample { .. }) => "input",
            Work::Boundary(Boundary::Result { .. }) => "output",
            Work::Boundary(_) => "embedding",
        }
    }

    /// The sizes that it works on, as text, and its multiply-adds.
    pub fn sizes(&self) -> (String, u64) {
        let len = match &self.work {
            Work::Kernel(kernel) => return kernel.sizes(&self.places),
            Work::Boundary(Boundary::Sample { from, .. }) => from.len(),
            Work::Boundary(Boundary::Result { to, .. }) => to.len(),
            Work::Boundary(Boundary::Time { to, .. } | Boundary::Class { to } | Boundary::Condition { to, .. }) => {
                self.places.get(*to).len
            }
        };
        (len.to_string(), 0)
    }

    /// Whether the places fit what is done with them, in a network whose conditions have these lengths.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, conditions: &[usize]) -> Result<(), Reason> {
        let right = match &self.work {
            Work::Kernel(kernel) => return kernel.check(&self.places),
            Work::Boundary(Boundary::Sample { to, from }) => self.places.get(*to).dims == from.dims,
            Work::Boundary(Boundary::Result { from, to, .. }) => self.places.get(*from).dims == to.dims,
            Work::Boundary(Boundary::Time { to, .. }) => self.places.get(*to).len >= 1,
            Work::Boundary(Boundary::Class { to }) => self.places.get(*to).len == 1,
            Work::Boundary(Boundary::Condition { to, index }) => {
                conditions.get(*index) == Some(&self.places.get(*to).len)
            }
        };
        if right { Ok(()) } else { Err(Reason::Malformed("an input or the result does not fit its place".into())) }
    }
}

/// The product of some sizes, for costs and for room: as large as can be where it would be larger, which no arena has.
pub fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1, |n: usize, s| n.saturating_mul(*s))
}
