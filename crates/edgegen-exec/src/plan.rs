//! A compiled network, and the state that running it changes.

use crate::compile::Stage;
use crate::place::{Access, Buffer, PROVEN, Place, Slice, Strided};
use crate::pool::Pool;
use crate::step::{Boundary, Call, Scratch, Share, Step, Work};
use crate::verify::{SLACK, Verified};
use half::f16;
use kernels::{Isa, Memory, Part};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A compiled network. It is immutable: what a run changes is in a [`Workspace`].
#[derive(Clone, Debug)]
pub struct Plan {
    isa: Isa,
    verified: Verified,
    classes: Option<usize>,
    looks_up: bool,
    in_f32: Vec<String>,
}

/// A step of a plan, as it is shown.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepInfo {
    /// The kernel.
    pub kernel: &'static str,
    /// What it depends on, and so how often it runs.
    pub stage: Stage,
    /// The sizes that it works on.
    pub sizes: String,
    /// Multiplications with an addition that the step stands for, whatever the kernel makes of them.
    pub multiply_adds: u64,
    /// The median time of one run in milliseconds, where it was measured.
    pub ms: Option<f64>,
}

/// What a network is to be evaluated at.
#[derive(Clone, Copy, Default)]
pub struct At<'a> {
    /// The sample.
    pub x: &'a [f32],
    /// The time.
    pub t: f64,
    /// The time that the step leads to, for a network that takes it.
    pub next: f64,
    /// The class, if the network takes one.
    pub class: usize,
    /// Which of the conditions that [`Plan::bind`] took.
    pub slot: usize,
    /// The first so many tokens, of a network that takes a time for each, are told this time instead.
    pub first: (usize, f64),
}

/// The buffers of runs, one after the other, and the threads that share them; made once.
pub struct Workspace {
    memory: Vec<f32>,
    halves: Vec<f16>,
    bytes: Vec<u8>,
    /// What each thread works in.
    scratch: Vec<Mutex<Scratch>>,
    /// The threads beside the caller's, if there are any.
    pool: Option<Pool>,
    /// The conditions that are bound.
    bound: Vec<Bound>,
    /// Which of them the arena holds the results of.
    current: usize,
    /// How often the steps that depend on conditions alone have run.
    bindings: u64,
    cache: Cache,
    /// The graph's outputs but the first, as the last run made them.
    observed: Vec<Vec<f32>>,
}

/// Conditions that are bound to a slot, and what depends on them alone.
struct Bound {
    /// In the order of [`Inputs`](crate::Inputs).
    conditions: Vec<Vec<f32>>,
    /// The number of the run that worked this out, which tells these conditions from all others; 0 before the first.
    version: u64,
    /// What that run made for later stages.
    made: Vec<f32>,
}

/// What depends on time, class and conditions, for those that it was worked out for. A run of a solver visits the same
/// times for every sample.
struct Cache {
    keys: Vec<Key>,
    values: Vec<f32>,
    /// The entry that is to be replaced next.
    next: usize,
}

/// The bits of both times, the class, the version of the conditions, and the tokens of another time, with its bits.
type Key = ([u64; 2], usize, u64, (usize, u64));

/// A quarter of what 16 bits hold: a value that comes near it for one sample may exceed it for another.
const MOST_IN_HALVES: f32 = 16_376.0;

/// The times that a workspace remembers.
const TIMES: usize = 64;

/// What is known of the tables that a plan reads rows of.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tables {
    /// The number of classes, with the one for none, that those of classes have rows for.
    pub classes: Option<usize>,
    /// Whether there are others.
    pub looks_up: bool,
}

impl Plan {
    /// A plan of what has been verified.
    pub(crate) fn new(isa: Isa, verified: Verified, Tables { classes, looks_up }: Tables) -> Self {
        Plan { isa, verified, classes, looks_up, in_f32: Vec::new() }
    }

    /// What was verified, to be changed.
    #[cfg(test)]
    pub(crate) fn draft(&self) -> crate::verify::Draft {
        crate::verify::Draft::clone(&self.verified)
    }

    /// The same network by another plan.
    #[cfg(test)]
    pub(crate) fn with(&self, verified: Verified) -> Self {
        Plan { verified, ..self.clone() }
    }

    /// The buffers for runs on one thread.
    pub fn workspace(&self) -> Workspace {
        let [floats, halves, bytes] = self.verified.lens;
        let mut memory = vec![0.0; floats];
        for (start, values) in &self.verified.constants {
            memory[*start..][..values.len()].copy_from_slice(values);
        }
        let values = vec![0.0; TIMES * self.verified.handed[1].len];
        Workspace {
            memory,
            halves: vec![f16::ZERO; halves],
            bytes: vec![0; bytes],
            scratch: vec![Mutex::new(Scratch::new(self.verified.scratch))],
            pool: None,
            bound: vec![self.unbound()],
            current: 0,
            bindings: 0,
            observed: self.observed_lens().map(|len| vec![0.0; len]).collect(),
            cache: Cache { keys: Vec::with_capacity(TIMES), values, next: 0 },
        }
    }

    /// The buffers for runs on so many threads, as far as there is work for them, and the threads.
    ///
    /// # Errors
    /// When the system gives no memory, or no thread.
    pub fn shared_workspace(&self, threads: usize) -> std::io::Result<Workspace> {
        let most = self.verified.steps.iter().map(|s| if let Share::Among(n) = s.share { n } else { 1 }).max();
        let threads = threads.min(most.unwrap_or(1));
        let scratch = self.verified.scratch.work.saturating_add(self.verified.scratch.copied);
        let others = scratch.saturating_mul(4).saturating_mul(threads.saturating_sub(1));
        // asked for and given back: an allocation that fails would end the program
        Vec::<u8>::new().try_reserve_exact(self.workspace_bytes().saturating_add(others))?;
        let mut workspace = self.workspace();
        if threads > 1 {
            workspace.scratch.resize_with(threads, || Mutex::new(Scratch::new(self.verified.scratch)));
            workspace.pool = Some(Pool::new(threads)?);
        }
        Ok(workspace)
    }

    fn unbound(&self) -> Bound {
        Bound {
            conditions: self.verified.conditions.iter().map(|len| vec![0.0; *len]).collect(),
            version: 0,
            made: vec![0.0; self.verified.handed[0].len],
        }
    }

    /// Bytes of a workspace for one thread with one slot of conditions.
    pub fn workspace_bytes(&self) -> usize {
        let plan = &self.verified;
        let remembered = plan.handed[1].len.saturating_mul(TIMES);
        let numbers = [plan.scratch.work, plan.scratch.copied, remembered];
        let numbers = numbers.into_iter().fold(0, usize::saturating_add);
        let observed = self.observed_lens().fold(0, |n, len| len.saturating_mul(4).saturating_add(n));
        let of_buffers = Buffer::ALL.map(|b| plan.lens[b as usize].saturating_mul(b.size()));
        let others = [self.slot_bytes(), observed, TIMES * size_of::<Key>()];
        others.into_iter().chain(of_buffers).fold(numbers.saturating_mul(4), usize::saturating_add)
    }

    /// Bytes of each slot that conditions are bound to.
    pub fn slot_bytes(&self) -> usize {
        4 * (self.verified.conditions.iter().sum::<usize>() + self.verified.handed[0].len)
    }

    /// The lengths of the graph's outputs but the first.
    fn observed_lens(&self) -> impl Iterator<Item = usize> + '_ {
        self.verified.steps.iter().filter_map(|step| match &step.work {
            Work::Boundary(Boundary::Result { to, index, .. }) if *index > 0 => Some(to.len()),
            _ => None,
        })
    }

    /// The numbers of a sample.
    pub fn sample_len(&self) -> usize {
        let boundary = |step: &Step| match &step.work {
            Work::Boundary(Boundary::Sample { from, .. }) => Some(from.len()),
            _ => None,
        };
        self.verified.steps.iter().find_map(boundary).unwrap_or(0)
    }

    /// The numbers of the result: those of a sample, unless the plan was made for [any](crate::ResultShape::Any).
    pub fn result_len(&self) -> usize {
        let boundary = |step: &Step| match &step.work {
            Work::Boundary(Boundary::Result { to, index: 0, .. }) => Some(to.len()),
            _ => None,
        };
        self.verified.steps.iter().find_map(boundary).unwrap_or(0)
    }

    /// The length of each condition.
    pub fn conditions(&self) -> &[usize] {
        &self.verified.conditions
    }

    /// Whether it reads rows of a table by an index that it computes, such as one of the time: where the table has no such
    /// row, what depends on it is no number.
    pub fn looks_up(&self) -> bool {
        self.looks_up
    }

    /// The number of classes, with the one for none, that the network has a row for.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Takes conditions, in the order of [`Inputs`](crate::Inputs), into a slot for the runs that follow, and works out
    /// what depends on them alone: nothing, if they are those that are there. Only the first use of a slot allocates.
    ///
    /// # Panics
    /// When there are not as many as the network takes, or one is not of its length.
    pub fn bind<'a>(&self, w: &mut Workspace, slot: usize, conditions: impl Iterator<Item = &'a [f32]>) {
        while w.bound.len() <= slot {
            w.bound.push(self.unbound());
        }
        let bound = &mut w.bound[slot];
        let (mut count, mut known) = (0, bound.version > 0);
        for values in conditions {
            let held = &mut bound.conditions[count];
            if held.iter().zip(values).any(|(held, value)| held.to_bits() != value.to_bits()) {
                known = false;
            }
            held.copy_from_slice(values);
            count += 1;
        }
        assert_eq!(count, self.verified.conditions.len());
        if known {
            return;
        }
        w.current = slot;
        self.steps(0..self.verified.stages[0], w, At { slot, ..At::default() }, &mut []);
        w.bindings += 1;
        let bound = &mut w.bound[slot];
        bound.version = w.bindings;
        let Slice { start, len } = self.verified.handed[0];
        bound.made.copy_from_slice(&w.memory[start..start + len]);
    }

    /// Runs the network into `out`. Nothing is allocated.
    ///
    /// # Panics
    /// When the sample or `out` is not of its length, or no conditions are bound to the slot.
    pub fn run(&self, w: &mut Workspace, at: At, out: &mut [f32]) {
        let [of_time, of_sample] = self.verified.stages;
        let bound = &w.bound[at.slot];
        assert!(bound.version > 0, "conditions are bound to the slot");
        if w.current != at.slot {
            let Slice { start, len } = self.verified.handed[0];
            w.memory[start..start + len].copy_from_slice(&bound.made);
            w.current = at.slot;
        }
        let (first, other) = at.first;
        let key = ([at.t, at.next].map(f64::to_bits), at.class, bound.version, (first, other.to_bits()));
        let Slice { start, len } = self.verified.handed[1];
        match w.cache.keys.iter().position(|k| *k == key) {
            Some(i) => w.memory[start..start + len].copy_from_slice(&w.cache.values[i * len..][..len]),
            None => {
                self.steps(of_time..of_sample, w, at, out);
                let i = w.cache.next;
                if i < w.cache.keys.len() {
                    w.cache.keys[i] = key;
                } else {
                    w.cache.keys.push(key);
                }
                w.cache.values[i * len..][..len].copy_from_slice(&w.memory[start..start + len]);
                w.cache.next = (i + 1) % TIMES;
            }
        }
        self.steps(of_sample..self.verified.steps.len(), w, at, out);
    }

    /// Runs these steps on the threads that there are. What they make is the same for any number.
    fn steps(&self, range: Range<usize>, w: &mut Workspace, at: At, out: &mut [f32]) {
        let all = &self.verified.steps;
        if w.pool.is_none() {
            return all[range].iter().for_each(|step| self.step(step, w, at, out));
        }
        let mut first = range.start;
        while first < range.end {
            let beside = all[first..range.end].iter().take_while(|s| s.share == Share::BesideNext).count();
            let last = (first + beside).min(range.end - 1);
            let steps = &all[first..=last];
            let Workspace { memory, halves, bytes, scratch, pool, .. } = &mut *w;
            match (all[last].share, pool) {
                (Share::Among(most), Some(pool)) if most > 1 => {
                    let (scratch, of) = (&*scratch, most.min(scratch.len()));
                    // SAFETY: the plan is `Verified`: steps that run beside others touch nothing that these do, and what
                    // the parts of one step write has no number in common.
                    let shared = unsafe { Memory::with_halves(memory, halves, bytes).share() };
                    pool.run(of, &|index| {
                        // none but this thread has it
                        let mut scratch = scratch[index].lock().unwrap_or_else(PoisonError::into_inner);
                        for step in steps {
                            // what one thread runs is the first part alone
                            let alone = step.share == Share::BesideNext;
                            if let Some(kernel) = step.kernel().filter(|_| !alone || index == 0) {
                                let part = if alone {
                                    Part::WHOLE
                                } else {
                                    Part::new(index, of).expect("one of those that there are")
                                };
                                let memory = shared.memory();
                                kernel.run(Call { isa: self.isa, part, places: &step.places, memory }, &mut scratch);
                            }
                        }
                    });
                }
                _ => steps.iter().for_each(|step| self.step(step, w, at, out)),
            }
            first = last + 1;
        }
    }

    /// Runs a step on this thread.
    fn step(&self, step: &Step, w: &mut Workspace, at: At, out: &mut [f32]) {
        let Workspace { memory, halves, bytes, scratch, bound, observed, .. } = w;
        let places = &step.places;
        match &step.work {
            Work::Kernel(kernel) => {
                let scratch = scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner);
                let memory = Memory::with_halves(memory, halves, bytes);
                kernel.run(Call { isa: self.isa, part: Part::WHOLE, places, memory }, scratch);
            }
            Work::Boundary(Boundary::Sample { to, from }) => {
                Strided::loops([places.get(*to), *from]).expect(PROVEN).gather(at.x, memory);
            }
            Work::Boundary(Boundary::Result { from, to, index }) => {
                let out = index.checked_sub(1).map_or(out, |other| &mut observed[other]);
                Strided::loops([*to, places.get(*from)]).expect(PROVEN).gather(memory, out);
            }
            Work::Boundary(Boundary::Time { to, whole, next }) => {
                let (to, time) = (places.get(*to), if *next { at.next } else { at.t });
                let written = |time: f64| if *whole { time.round() } else { time } as f32;
                let times = &mut memory[to.start..to.end()];
                times.fill(written(time));
                let (first, other) = at.first;
                times.iter_mut().take(first).for_each(|time| *time = written(other));
            }
            Work::Boundary(Boundary::Class { to }) => memory[places.get(*to).start] = at.class as f32,
            Work::Boundary(Boundary::Condition { to, index }) => {
                let to = places.get(*to);
                memory[to.start..to.end()].copy_from_slice(&bound[at.slot].conditions[*index]);
            }
        }
    }

    /// Whether some values are in 16 bits.
    pub fn has_halves(&self) -> bool {
        self.verified.lens[Buffer::Halves as usize] > SLACK
    }

    /// The values that were to be kept in 32 bits.
    pub fn in_f32(&self) -> &[String] {
        &self.in_f32
    }

    /// With the values that were to be kept in 32 bits.
    pub(crate) fn keeping(self, in_f32: &[String]) -> Self {
        Plan { in_f32: in_f32.to_vec(), ..self }
    }

    /// Runs the network, and looks at every value in 16 bits as it is made: those of which a number is more than a quarter of
    /// the greatest that 16 bits hold, or none at all, though what they are made of was not. Conditions must be bound.
    pub fn overflows(&self, w: &mut Workspace, at: At) -> Vec<String> {
        let mut out = vec![0.0; self.result_len()];
        let (mut names, mut spoilt) = (Vec::new(), HashSet::new());
        for step in &self.verified.steps[self.verified.stages[0]..] {
            self.step(step, w, at, &mut out);
            let Workspace { memory, halves, bytes, .. } = &mut *w;
            let memory = Memory::with_halves(memory, halves, bytes);
            let from_spoilt = step.places.iter().any(|p| p.access == Access::Read && spoilt.contains(&p.storage));
            let of_halves = |place: &&Place| place.buffer == Buffer::Halves;
            let written = step.places.iter().filter(of_halves).filter(|place| place.access != Access::Read);
            let mut large = false;
            for place in written {
                place.for_each_run(&mut |run| large |= memory.greatest_half(run.start, run.len()) > MOST_IN_HALVES);
                // what another value left there is gone
                spoilt.remove(&place.storage);
            }
            if large {
                spoilt.extend(step.places.iter().filter(|p| p.access != Access::Read).map(|p| p.storage));
            }
            if let Some(name) = step.made_for.as_deref().filter(|_| large && !from_spoilt)
                && !names.iter().any(|known| known == name)
            {
                names.push(name.to_string());
            }
        }
        names
    }

    /// The kernels of the steps, in their order.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.verified.steps.iter().map(Step::name)
    }

    /// The steps in their order, untimed.
    pub fn describe(&self) -> Vec<StepInfo> {
        let stage = |i: usize| match self.verified.stages {
            [of_time, _] if i < of_time => Stage::Conditions,
            [_, of_sample] if i < of_sample => Stage::Time,
            _ => Stage::Sample,
        };
        let info = |(i, step): (usize, &Step)| {
            let (sizes, multiply_adds) = step.sizes();
            StepInfo { kernel: step.name(), stage: stage(i), sizes, multiply_adds, ms: None }
        };
        self.verified.steps.iter().enumerate().map(info).collect()
    }

    /// The steps in their order, with the median times of `runs` runs at this place.
    pub fn profile(&self, workspace: &mut Workspace, at: At, runs: usize) -> Vec<StepInfo> {
        let steps = &self.verified.steps;
        let mut out = vec![0.0; self.result_len()];
        let mut times = vec![Vec::with_capacity(runs); steps.len()];
        self.run(workspace, at, &mut out);
        for _ in 0..runs {
            for (step, times) in steps.iter().zip(&mut times) {
                let start = Instant::now();
                self.step(step, workspace, at, &mut out);
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied()
        };
        self.describe().into_iter().zip(times).map(|(info, t)| StepInfo { ms: median(t), ..info }).collect()
    }

    /// Bytes of weights. Those that several steps share count once.
    pub fn weight_bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let kernels = self.verified.steps.iter().filter_map(Step::kernel);
        let own = kernels.filter(|kernel| kernel.shared_weights().is_none_or(|weights| seen.insert(weights)));
        let of_steps = own.map(|kernel| kernel.bytes()).sum::<usize>();
        of_steps + self.verified.constants.iter().map(|(_, v)| 4 * v.len()).sum::<usize>()
    }

    /// The same plan, with steps shared by up to `threads` that are too small for it to pay: for tests.
    #[doc(hidden)]
    pub fn sharing_small_steps(self, threads: usize) -> Self {
        let mut draft = crate::verify::Draft::clone(&self.verified);
        for step in &mut draft.steps {
            let can = step.kernel().is_some_and(|kernel| kernel.cost(&step.places).is_some());
            if step.share == Share::Among(1) && can {
                step.share = Share::Among(threads);
            }
        }
        Plan { verified: crate::verify::verify(draft).expect("what one thread may do, several may"), ..self }
    }

    /// How many borders are cleared beside the step after them, and how many there are: for tests.
    #[doc(hidden)]
    pub fn borders_beside(&self) -> (usize, usize) {
        let steps = &self.verified.steps;
        let is_border = |s: &&Step| s.places.iter().any(|p| matches!(p.region, crate::place::Region::Edges(_)));
        (steps.iter().filter(|s| s.share == Share::BesideNext).count(), steps.iter().filter(is_border).count())
    }
}

impl Workspace {
    /// The graph's outputs but the first, in their order, as the last run made them.
    pub fn observed(&self) -> &[Vec<f32>] {
        &self.observed
    }

    /// How often the steps that depend on conditions alone have run.
    pub fn bindings(&self) -> u64 {
        self.bindings
    }

    /// The bytes of the slots of conditions beyond the first.
    pub fn bytes_of_other_slots(&self) -> usize {
        let of = |b: &Bound| size_of_val(&*b.made) + b.conditions.iter().map(|c| size_of_val(&**c)).sum::<usize>();
        self.bound[1..].iter().map(of).sum()
    }

    /// The bytes that threads beside the caller's work in.
    pub fn bytes_of_other_threads(&self) -> usize {
        let of = |s: &Mutex<Scratch>| s.lock().unwrap_or_else(PoisonError::into_inner).bytes();
        self.scratch[1..].iter().map(of).sum()
    }
}
