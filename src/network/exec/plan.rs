//! A compiled network: steps over one arena.

use super::arena::View;
use super::kernels::attention::Attention;
use super::kernels::dense::{self, Map};
use super::kernels::general::{Binary, Loops, Product, Reduction, Rows, Unary};
use super::kernels::{self, Isa, Memory, Part, conv, conv8};
use std::hash::{DefaultHasher, Hash, Hasher};

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
    /// A matrix, stored by columns, times a vector, plus a vector.
    Matrix {
        columns: Vec<f32>,
        bias: Vec<f32>,
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
    Attention(Attention),
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

/// A compiled network. It is immutable: what a run changes is in a [`Workspace`].
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) isa: Isa,
    /// Those that depend on conditions alone come first, then those that depend on time and class too.
    pub(super) steps: Vec<Step>,
    /// Where the steps that depend on time begin, and where those that depend on the sample do.
    pub(super) stages: [usize; 2],
    pub(super) memory_len: usize,
    pub(super) bytes_len: usize,
    /// The numbers that do not change, and where they lie.
    pub(super) constants: Vec<(usize, Vec<f32>)>,
    /// What the steps that depend on the sample read of those that depend on time.
    pub(super) of_time: Slot,
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
}

/// The buffers of one thread's runs, made once.
pub struct Workspace {
    memory: Vec<f32>,
    bytes: Vec<u8>,
    work: Vec<f32>,
    extra: Vec<f32>,
    /// The conditions, in the order of [`Inputs`](super::Inputs).
    conditions: Vec<Vec<f32>>,
    /// What tells these conditions from others, once what depends on them alone has been worked out.
    worked_out: Option<u64>,
    cache: Cache,
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
    /// The buffers for a thread.
    pub fn workspace(&self) -> Workspace {
        let mut memory = vec![0.0; self.memory_len];
        for (start, values) in &self.constants {
            memory[*start..][..values.len()].copy_from_slice(values);
        }
        Workspace {
            memory,
            bytes: vec![0; self.bytes_len],
            work: vec![0.0; self.work_len],
            extra: vec![0.0; self.extra_len],
            conditions: self.conditions.iter().map(|len| vec![0.0; *len]).collect(),
            worked_out: None,
            cache: Cache { keys: Vec::with_capacity(TIMES), values: vec![0.0; TIMES * self.of_time.len], next: 0 },
        }
    }

    /// Bytes of a workspace.
    pub fn workspace_bytes(&self) -> usize {
        let conditions: usize = self.conditions.iter().sum();
        let numbers = self.memory_len + self.work_len + self.extra_len + conditions + TIMES * self.of_time.len;
        4 * numbers + self.bytes_len + TIMES * size_of::<(u64, usize, u64)>()
    }

    /// The number of classes, with the one for none, that the network has a row for.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Sets condition number `index` for the runs that follow.
    ///
    /// # Panics
    /// When it is not of its length.
    pub fn condition(&self, w: &mut Workspace, index: usize, values: &[f32]) {
        if w.conditions[index] != values {
            w.conditions[index].copy_from_slice(values);
            w.worked_out = None;
        }
    }

    /// Runs the network into `out`. Nothing is allocated.
    ///
    /// # Panics
    /// When the sample or `out` is not of its length.
    pub fn run(&self, w: &mut Workspace, at: At, out: &mut [f32]) {
        let [of_time, of_sample] = self.stages;
        let conditions = w.worked_out.unwrap_or_else(|| {
            self.steps[..of_time].iter().for_each(|step| self.step(step, w, at, out));
            let mut hash = DefaultHasher::new();
            w.conditions.iter().flatten().for_each(|v| v.to_bits().hash(&mut hash));
            *w.worked_out.insert(hash.finish())
        });
        let key = (at.t.to_bits(), at.class, conditions);
        let Slot { start, len } = self.of_time;
        match w.cache.keys.iter().position(|k| *k == key) {
            Some(i) => w.memory[start..start + len].copy_from_slice(&w.cache.values[i * len..][..len]),
            None => {
                self.steps[of_time..of_sample].iter().for_each(|step| self.step(step, w, at, out));
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
        self.steps[of_sample..].iter().for_each(|step| self.step(step, w, at, out));
    }

    pub(super) fn step(&self, step: &Step, w: &mut Workspace, at: At, out: &mut [f32]) {
        let Workspace { memory, bytes, work, extra, conditions, .. } = w;
        let (isa, part) = (self.isa, Part::WHOLE);
        match step {
            Step::Input { loops } => loops.gather(at.x, memory),
            Step::Time { to, whole } => memory[to.start] = if *whole { at.t.round() } else { at.t } as f32,
            Step::Class { to } => memory[to.start] = at.class as f32,
            Step::Condition { index, to } => memory[to.range()].copy_from_slice(&conditions[*index]),
            Step::Clear { to } => memory[to.range()].fill(0.0),
            Step::Border { view, levels: None } => view.edges().for_each(|(at, len)| memory[at..at + len].fill(0.0)),
            Step::Border { view, levels: Some(level) } => {
                view.edges().for_each(|(at, len)| bytes[at..at + len].fill(*level));
                // channels that are there for the sake of whole groups
                if view.c < view.pixel {
                    view.pixels().for_each(|at| bytes[at + view.c..at + view.pixel].fill(*level));
                }
            }
            Step::Rows { table, len, index, to } => {
                for i in 0..index.len {
                    let row = (memory[index.start + i].max(0.0) as usize).min(table.len() / len - 1);
                    memory[to.start + i * len..][..*len].copy_from_slice(&table[row * len..][..*len]);
                }
            }
            Step::Unary { f, loops } => kernels::unary(isa, *f, loops, part, Memory::new(memory, bytes)),
            Step::Binary { f, loops } => kernels::binary(isa, *f, loops, part, Memory::new(memory, bytes)),
            Step::Reduce { f, loops, out } => kernels::reduce(isa, *f, loops, out, Memory::new(memory, bytes)),
            Step::EachRow { f, loops, length } => {
                kernels::rows(isa, f, loops, *length, part, Memory::new(memory, bytes));
            }
            Step::Product(product) => kernels::product(isa, product, work, Memory::new(memory, bytes)),
            Step::Matrix { columns, bias, from, to } => {
                let [from, to] = memory.get_disjoint_mut([from.range(), to.range()]).expect("slots are apart");
                kernels::multiply(isa, columns, from, bias, to);
            }
            Step::Convolution { packed, extra: slot, input, output, residual } => {
                let extra = slot.map(|s| copied(memory, s, extra));
                let run = conv::Run { packed, extra, input: *input, output: *output, residual: *residual };
                kernels::convolve(isa, &run, part, work, Memory::new(memory, bytes));
            }
            Step::Convolution8 { packed, round, extra: slot, input, output, output8, residual } => {
                let extra = slot.map(|s| copied(memory, s, extra));
                let (round, input, output, output8, residual) = (*round, *input, *output, *output8, *residual);
                let run = conv8::Run8 { packed, round, extra, input, output, output8, residual };
                kernels::convolve8(isa, &run, part, Memory::new(memory, bytes));
            }
            Step::Map { op, input, output } => {
                kernels::map(isa, *op, *input, *output, part, Memory::new(memory, bytes));
            }
            Step::Norm { groups, epsilon, scale, shift, silu, input, output } => {
                let norm = dense::Norm { groups: *groups, epsilon: *epsilon, scale, shift, silu: *silu };
                kernels::normalise(isa, &norm, *input, *output, part, work, Memory::new(memory, bytes));
            }
            Step::Attention(attention) => {
                kernels::attend(isa, attention, part, work, Memory::new(memory, bytes));
            }
            Step::Upsample { input, output } => {
                kernels::upsample(isa, *input, *output, part, Memory::new(memory, bytes));
            }
            Step::Pool { kernel, stride, input, output } => pool(*kernel, *stride, *input, *output, memory),
            Step::Output { loops } => loops.gather(memory, out),
        }
    }
}

/// The numbers of a slot, in a buffer that kernels may read while they work in the arena.
fn copied<'a>(memory: &[f32], slot: Slot, buffer: &'a mut [f32]) -> &'a [f32] {
    buffer[..slot.len].copy_from_slice(&memory[slot.range()]);
    &buffer[..slot.len]
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
