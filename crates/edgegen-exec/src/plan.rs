//! A compiled network: steps over one arena.

use super::pool::Pool;
use kernels::arena::View;
use kernels::attention::Attention;
use kernels::dense::{self, Map};
use kernels::general::{Binary, Loops, Product, Reduction, Rows, Unary};
use kernels::{Isa, Memory, Part, conv, conv8};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A run of numbers in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub start: usize,
    pub len: usize,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub enum Step {
    /// The sample into its place: the loops' second value is the sample.
    Input {
        loops: Loops<2>,
    },
    /// The time, rounded if the network takes a whole number.
    Time {
        to: Slot,
        whole: bool,
    },
    /// The class.
    Class {
        to: Slot,
    },
    /// A condition: which of those that the network takes.
    Condition {
        index: usize,
        to: Slot,
    },
    /// Zeros.
    Clear {
        to: Slot,
    },
    /// Zeros around a picture; `levels` is what stands for them around one in 8 bits.
    Border {
        view: View,
        levels: Option<u8>,
    },
    /// Rows of a table, by indices.
    Rows {
        table: Vec<f32>,
        len: usize,
        index: Slot,
        to: Slot,
    },
    Unary {
        f: Unary,
        loops: Loops<2>,
    },
    Binary {
        f: Binary,
        loops: Loops<3>,
    },
    Reduce {
        f: Reduction,
        loops: Loops<2>,
        out: Loops<1>,
    },
    EachRow {
        f: Rows,
        loops: Loops<2>,
        length: usize,
    },
    Product(Product),
    /// A matrix times a vector, plus a vector.
    Matrix {
        matrix: dense::Matrix,
        from: Slot,
        to: Slot,
    },
    /// A convolution; `extra` is added to the bias.
    Convolution {
        packed: conv::Packed,
        extra: Option<Slot>,
        input: View,
        output: View,
        residual: Option<View>,
    },
    /// An 8-bit convolution.
    Convolution8 {
        packed: conv8::Packed8,
        round: Option<conv8::Levels>,
        extra: Option<Slot>,
        input: View,
        output: Option<View>,
        output8: Option<(View, conv8::Levels)>,
        residual: Option<View>,
    },
    /// A picture to another.
    Map {
        op: Map,
        input: View,
        output: dense::Output,
    },
    /// Group normalisation.
    Norm {
        groups: usize,
        epsilon: f32,
        scale: Vec<f32>,
        shift: Vec<f32>,
        silu: bool,
        input: View,
        output: dense::Output,
    },
    /// Attention; the mask has a number for each query and key, a query's together, which is added to the score.
    Attention {
        attention: Attention,
        mask: Option<Vec<f32>>,
    },
    /// Every pixel as a square of four.
    Upsample {
        input: View,
        output: View,
    },
    /// Means of windows of pixels.
    Pool {
        kernel: [usize; 2],
        stride: [usize; 2],
        input: View,
        output: View,
    },
    /// The result: the loops' first value is where it goes.
    Output {
        loops: Loops<2>,
    },
}

/// How a step is run where there are several threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// By at most so many threads, one after all of the step before is done.
    Among(usize),
    /// By one thread, which then goes on with the others at the next step: that reads nothing of what this one makes.
    BesideNext,
}

/// A compiled network. It is immutable: what a run changes is in a [`Workspace`].
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) isa: Isa,
    /// Those that depend on conditions alone come first, then those that depend on time and class too.
    pub(super) steps: Vec<Step>,
    /// How each step is shared.
    pub(super) shares: Vec<Share>,
    /// Where the steps that depend on time begin, and where those that depend on the sample do.
    pub(super) stages: [usize; 2],
    pub(super) memory_len: usize,
    pub(super) bytes_len: usize,
    /// The numbers that do not change, and where they lie.
    pub(super) constants: Vec<(usize, Vec<f32>)>,
    /// What the steps that depend on the sample read of those that depend on time.
    pub(super) of_time: Slot,
    /// What the steps after them read of those that depend on conditions alone.
    pub(super) of_conditions: Slot,
    pub(super) work_len: usize,
    pub(super) extra_len: usize,
    pub(super) classes: Option<usize>,
    /// The length of each condition.
    pub(super) conditions: Vec<usize>,
}

/// What a network is to be evaluated at.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The sample.
    pub x: &'a [f32],
    /// The time.
    pub t: f64,
    /// The class, if the network takes one.
    pub class: usize,
    /// Which of the conditions that [`Plan::bind`] took.
    pub slot: usize,
}

/// The buffers of runs, one after the other, and the threads that share them; made once.
pub struct Workspace {
    memory: Vec<f32>,
    bytes: Vec<u8>,
    /// What each thread works in.
    scratch: Vec<Mutex<Scratch>>,
    /// The threads beside the caller's, if there are any.
    pool: Option<Pool>,
    /// The conditions that are bound.
    bound: Vec<Bound>,
    /// Which of them the memory holds the results of.
    current: usize,
    /// How often the steps that depend on conditions alone have run.
    bindings: u64,
    cache: Cache,
}

/// Conditions that are bound, and what was worked out from them alone.
struct Bound {
    /// In the order of [`Inputs`](super::Inputs).
    conditions: Vec<Vec<f32>>,
    /// The number of the run that worked this out, which tells these conditions from all others; 0 before the first.
    version: u64,
    /// What that run left in [`Plan::of_conditions`].
    values: Vec<f32>,
}

/// What one thread works in while it is at a step.
#[repr(align(128))]
struct Scratch {
    work: Vec<f32>,
    extra: Vec<f32>,
}

/// What depends on time, class and conditions, for those that it was worked out for. A run of a solver visits the same
/// times for every sample.
struct Cache {
    keys: Vec<(u64, usize, u64)>,
    values: Vec<f32>,
    /// The entry that is to be replaced next.
    next: usize,
}

/// The times that a workspace remembers.
const TIMES: usize = 64;

impl Plan {
    /// The buffers for runs on one thread.
    pub fn workspace(&self) -> Workspace {
        let mut memory = vec![0.0; self.memory_len];
        for (start, values) in &self.constants {
            memory[*start..][..values.len()].copy_from_slice(values);
        }
        Workspace {
            memory,
            bytes: vec![0; self.bytes_len],
            scratch: vec![Mutex::new(self.scratch())],
            pool: None,
            bound: vec![self.unbound()],
            current: 0,
            bindings: 0,
            cache: Cache { keys: Vec::with_capacity(TIMES), values: vec![0.0; TIMES * self.of_time.len], next: 0 },
        }
    }

    /// The buffers for runs on so many threads, as far as there is work for them, and the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn shared_workspace(&self, threads: usize) -> std::io::Result<Workspace> {
        let most = self.shares.iter().map(|s| if let Share::Among(n) = s { *n } else { 1 }).max();
        let threads = threads.min(most.unwrap_or(1));
        let mut workspace = self.workspace();
        if threads > 1 {
            workspace.scratch.resize_with(threads, || Mutex::new(self.scratch()));
            workspace.pool = Some(Pool::new(threads)?);
        }
        Ok(workspace)
    }

    /// The length of each condition.
    pub fn conditions(&self) -> &[usize] {
        &self.conditions
    }

    /// The same plan, with steps shared by up to `threads` that are too small for it to pay: for tests.
    pub fn sharing_small_steps(mut self, threads: usize) -> Self {
        for (share, step) in self.shares.iter_mut().zip(&self.steps) {
            if *share == Share::Among(1) && step.shares().is_some() {
                *share = Share::Among(threads);
            }
        }
        self
    }

    /// How many borders are cleared beside the step after them, of how many: for tests.
    pub fn borders_beside(&self) -> (usize, usize) {
        let beside = self.shares.iter().filter(|s| **s == Share::BesideNext).count();
        (beside, self.steps.iter().filter(|s| matches!(s, Step::Border { .. })).count())
    }

    fn unbound(&self) -> Bound {
        let conditions = self.conditions.iter().map(|len| vec![0.0; *len]).collect();
        Bound { conditions, version: 0, values: vec![0.0; self.of_conditions.len] }
    }

    /// The numbers that each slot of conditions takes.
    fn bound_len(&self) -> usize {
        self.conditions.iter().sum::<usize>() + self.of_conditions.len
    }

    fn scratch(&self) -> Scratch {
        Scratch { work: vec![0.0; self.work_len], extra: vec![0.0; self.extra_len] }
    }

    /// Bytes of a workspace for one thread and one slot of conditions.
    pub fn workspace_bytes(&self) -> usize {
        let numbers = self.memory_len + self.work_len + self.extra_len + self.bound_len() + TIMES * self.of_time.len;
        4 * numbers + self.bytes_len + TIMES * size_of::<(u64, usize, u64)>()
    }

    /// The numbers of a sample.
    pub fn sample_len(&self) -> usize {
        let input =
            self.steps.iter().find_map(|s| if let Step::Input { loops } = s { Some(loops.len()) } else { None });
        input.expect("every plan reads a sample")
    }

    /// The number of classes, with the one for none, that the network has a row for.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Takes conditions, in the order of [`Inputs`](super::Inputs), into a slot for the runs that follow, and works out
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
        assert_eq!(count, self.conditions.len());
        if known {
            return;
        }
        w.current = slot;
        self.steps(0..self.stages[0], w, At { x: &[], t: 0.0, class: 0, slot }, &mut []);
        w.bindings += 1;
        let bound = &mut w.bound[slot];
        bound.version = w.bindings;
        bound.values.copy_from_slice(&w.memory[self.of_conditions.range()]);
    }

    /// Runs the network into `out`. Nothing is allocated.
    ///
    /// # Panics
    /// When the sample or `out` is not of its length, or no conditions are bound to the slot.
    pub fn run(&self, w: &mut Workspace, at: At, out: &mut [f32]) {
        let [of_time, of_sample] = self.stages;
        let bound = &w.bound[at.slot];
        assert!(bound.version > 0, "conditions are bound to the slot");
        if w.current != at.slot {
            w.memory[self.of_conditions.range()].copy_from_slice(&bound.values);
            w.current = at.slot;
        }
        let key = (at.t.to_bits(), at.class, bound.version);
        let Slot { start, len } = self.of_time;
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
        self.steps(of_sample..self.steps.len(), w, at, out);
    }

    /// Runs these steps on the threads that there are. What they make is the same for any number.
    fn steps(&self, range: Range<usize>, w: &mut Workspace, at: At, out: &mut [f32]) {
        if w.pool.is_none() {
            return self.steps[range].iter().for_each(|step| self.step(step, w, at, out));
        }
        let mut first = range.start;
        while first < range.end {
            let beside = self.shares[first..range.end].iter().take_while(|s| **s == Share::BesideNext).count();
            let last = (first + beside).min(range.end - 1);
            let steps = &self.steps[first..=last];
            let Workspace { memory, bytes, scratch, pool, .. } = &mut *w;
            match (self.shares[last], pool) {
                (Share::Among(most), Some(pool)) if most > 1 => {
                    let (scratch, of) = (&*scratch, most.min(scratch.len()));
                    // SAFETY: all threads are at different parts of one step, but for one that may still be at those
                    // before it, which write elsewhere and what it does not read.
                    let shared = unsafe { Memory::new(memory, bytes).share() };
                    pool.run(of, &|index| {
                        // none but this thread has it
                        let mut scratch = scratch[index].lock().unwrap_or_else(PoisonError::into_inner);
                        for step in steps {
                            self.part(step, Part { index, of }, &mut scratch, shared.memory());
                        }
                    });
                }
                _ => steps.iter().for_each(|step| self.step(step, w, at, out)),
            }
            first = last + 1;
        }
    }

    /// Runs a step on this thread.
    pub(super) fn step(&self, step: &Step, w: &mut Workspace, at: At, out: &mut [f32]) {
        let Workspace { memory, bytes, scratch, bound, .. } = w;
        match step {
            Step::Input { loops } => loops.gather(at.x, memory),
            Step::Time { to, whole } => memory[to.start] = if *whole { at.t.round() } else { at.t } as f32,
            Step::Class { to } => memory[to.start] = at.class as f32,
            Step::Condition { index, to } => memory[to.range()].copy_from_slice(&bound[at.slot].conditions[*index]),
            Step::Clear { to } => memory[to.range()].fill(0.0),
            Step::Rows { table, len, index, to } => {
                for i in 0..index.len {
                    let row = (memory[index.start + i].max(0.0) as usize).min(table.len() / len - 1);
                    memory[to.start + i * len..][..*len].copy_from_slice(&table[row * len..][..*len]);
                }
            }
            Step::Reduce { f, loops, out } => kernels::reduce(self.isa, *f, loops, out, Memory::new(memory, bytes)),
            Step::Matrix { matrix, from, to } => {
                let [from, to] = memory.get_disjoint_mut([from.range(), to.range()]).expect("slots are apart");
                kernels::multiply(self.isa, matrix, from, to);
            }
            Step::Pool { kernel, stride, input, output } => pool(*kernel, *stride, *input, *output, memory),
            Step::Output { loops } => loops.gather(memory, out),
            _ => {
                let scratch = scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner);
                self.part(step, Part::WHOLE, scratch, Memory::new(memory, bytes));
            }
        }
    }

    /// Runs a part of a step that can be shared: those that [`shares`](Step::shares) says, and borders.
    fn part(&self, step: &Step, part: Part, Scratch { work, extra }: &mut Scratch, memory: Memory) {
        let isa = self.isa;
        let mut copied = |slot: Slot| {
            memory.read(slot.start, &mut extra[..slot.len]);
            slot.len
        };
        match step {
            // little work: the first part is all
            Step::Border { .. } if part.index > 0 => {}
            Step::Border { view, levels: None } => view.edges().for_each(|(at, len)| memory.fill(at, len, 0.0)),
            Step::Border { view, levels: Some(level) } => {
                view.edges().for_each(|(at, len)| memory.fill_bytes(at, len, *level));
                // channels that are there for the sake of whole groups
                if view.c < view.pixel {
                    view.pixels().for_each(|at| memory.fill_bytes(at + view.c, view.pixel - view.c, *level));
                }
            }
            Step::Unary { f, loops } => kernels::unary(isa, *f, loops, part, memory),
            Step::Binary { f, loops } => kernels::binary(isa, *f, loops, part, memory),
            Step::EachRow { f, loops, length } => kernels::rows(isa, f, loops, *length, part, memory),
            Step::Product(product) => kernels::product(isa, product, part, work, memory),
            Step::Convolution { packed, extra: slot, input, output, residual } => {
                let len = slot.map(&mut copied);
                let extra = len.map(|len| &extra[..len]);
                let run = conv::Run { packed, extra, input: *input, output: *output, residual: *residual };
                kernels::convolve(isa, &run, part, work, memory);
            }
            Step::Convolution8 { packed, round, extra: slot, input, output, output8, residual } => {
                let len = slot.map(&mut copied);
                let extra = len.map(|len| &extra[..len]);
                let (round, input, output, output8, residual) = (*round, *input, *output, *output8, *residual);
                let run = conv8::Run8 { packed, round, extra, input, output, output8, residual };
                kernels::convolve8(isa, &run, part, work, memory);
            }
            Step::Map { op, input, output } => kernels::map(isa, *op, *input, *output, part, memory),
            Step::Norm { groups, epsilon, scale, shift, silu, input, output } => {
                let norm = dense::Norm { groups: *groups, epsilon: *epsilon, scale, shift, silu: *silu };
                kernels::normalise(isa, &norm, *input, *output, part, work, memory);
            }
            Step::Attention { attention, mask } => {
                kernels::attend(isa, attention, mask.as_deref(), part, work, memory);
            }
            Step::Upsample { input, output } => kernels::upsample(isa, *input, *output, part, memory),
            Step::Input { .. }
            | Step::Time { .. }
            | Step::Class { .. }
            | Step::Condition { .. }
            | Step::Clear { .. }
            | Step::Rows { .. }
            | Step::Reduce { .. }
            | Step::Matrix { .. }
            | Step::Pool { .. }
            | Step::Output { .. } => unreachable!("a step that one thread runs"),
        }
    }
}

/// The time that a part of a step must take for another thread to be worth it: that in which a core makes as many
/// multiply-adds of a convolution in f32, about a microsecond. To offer parts costs the caller about half of one, as
/// measured where no other thread came.
const WORTH: usize = 80_000;

impl Step {
    /// About how long the step takes, in multiply-adds of a convolution, if threads can share it.
    fn shares(&self) -> Option<usize> {
        let picture = |v: &View| v.c * v.h * v.w;
        let taps = |s: &conv::Shape| s.c_in * s.kernel[0] * s.kernel[1];
        match self {
            Step::Convolution { packed, output, .. } => Some(taps(&packed.shape) * picture(output)),
            Step::Convolution8 { packed, output, output8, .. } => {
                output.or(output8.map(|o| o.0)).map(|to| taps(&packed.shape) * picture(&to) / 4)
            }
            // with an exponential a score
            Step::Attention { attention: a, .. } => {
                Some(a.query.w * a.query.h * a.key.w * a.key.h * (2 * a.query.c + 50 * a.heads))
            }
            Step::Product(p) => Some(p.batch.len() * p.sizes.iter().product::<usize>() * 4),
            Step::Norm { input, .. } => Some(40 * picture(input)),
            Step::Map { input, .. } => Some(15 * picture(input)),
            Step::Upsample { output, .. } => Some(8 * picture(output)),
            Step::EachRow { loops, length, .. } => Some(50 * loops.len() * length),
            Step::Unary { f: Unary::Copy, loops } => Some(15 * loops.len()),
            Step::Unary { loops, .. } => Some(100 * loops.len()),
            Step::Binary { loops, .. } => Some(15 * loops.len()),
            _ => None,
        }
    }

    /// How many threads may share the step.
    pub(super) fn share(&self) -> Share {
        Share::Among(self.shares().map_or(1, |work| (work / WORTH).max(1)))
    }
}

impl Workspace {
    /// How often the steps that depend on conditions alone have run.
    pub fn bindings(&self) -> u64 {
        self.bindings
    }

    /// The bytes of the slots of conditions beyond the first.
    pub fn bytes_of_other_slots(&self) -> usize {
        let of = |b: &Bound| size_of_val(&*b.values) + b.conditions.iter().map(|c| size_of_val(&**c)).sum::<usize>();
        self.bound[1..].iter().map(of).sum()
    }

    /// The bytes that threads beside the caller's work in.
    pub fn bytes_of_other_threads(&self) -> usize {
        let of = |s: &Mutex<Scratch>| {
            let s = s.lock().unwrap_or_else(PoisonError::into_inner);
            size_of_val(&*s.work) + size_of_val(&*s.extra)
        };
        self.scratch[1..].iter().map(of).sum()
    }
}

impl Slot {
    pub(super) fn range(self) -> std::ops::Range<usize> {
        self.start..self.start + self.len
    }
}

fn pool([kh, kw]: [usize; 2], [sy, sx]: [usize; 2], input: View, output: View, memory: &mut [f32]) {
    for (i, to) in output.pixels().enumerate() {
        let (y, x) = (i / output.w * sy, i % output.w * sx);
        for c in 0..output.c {
            let at = |ky: usize, kx: usize| input.start + (y + ky) * input.row + (x + kx) * input.pixel + c;
            let sum: f32 =
                (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))).map(|(ky, kx)| memory[at(ky, kx)]).sum();
            memory[to + c] = sum / (kh * kw) as f32;
        }
    }
}
