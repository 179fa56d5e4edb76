//! A compiled network: steps over one arena.

use super::arena::View;
use super::kernels::{self, Isa, Memory, Part, attention::Attention, conv, conv8, dense};

/// A vector among a run's vectors: where it starts, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub start: usize,
    pub len: usize,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub enum Step {
    /// The sample into its picture.
    Input { to: View },
    /// The time as a vector of one number.
    Time { to: Slot },
    /// A row of a table, by the class.
    Row { table: Vec<f32>, to: Slot },
    /// Element by element on vectors: one number stands for all.
    Vector { op: VectorOp, a: Slot, b: Option<Operand>, to: Slot },
    /// A matrix, stored by columns, times a vector, plus a vector.
    Matrix { columns: Vec<f32>, bias: Vec<f32>, from: Slot, to: Slot },
    /// A convolution; `extra` is added to the bias.
    Convolution { packed: conv::Packed, extra: Option<Slot>, input: View, output: View, residual: Option<View> },
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
    /// What is done to a picture number by number.
    Map { op: dense::Map, input: View, output: dense::Output },
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
    /// Every pixel four times.
    Upsample { input: View, output: View },
    /// Attention.
    Attention(Attention),
    /// The result: channels of a pixel become a square of `block` pixels.
    Output { from: View, block: usize },
}

/// What is done to vectors element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorOp {
    Copy,
    Add,
    Multiply,
    Sin,
    Cos,
    Silu,
}

/// The second operand of a vector operation.
#[derive(Clone, Debug)]
pub enum Operand {
    Slot(Slot),
    Constant(Vec<f32>),
}

/// A compiled network. It is immutable: what a run changes is in a [`Workspace`].
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) isa: Isa,
    pub(super) steps: Vec<Step>,
    pub(super) arena_len: usize,
    /// The 8-bit pictures with their borders: how long each is, and the byte that stands for 0 in it.
    pub(super) pictures8: Vec<(usize, u8)>,
    pub(super) vectors_len: usize,
    pub(super) work_len: usize,
    pub(super) classes: Option<usize>,
}

/// The buffers of one thread's runs, made once.
pub struct Workspace {
    arena: Vec<f32>,
    bytes: Vec<u8>,
    vectors: Vec<f32>,
    work: Vec<f32>,
}

impl Plan {
    /// The buffers for a thread.
    pub fn workspace(&self) -> Workspace {
        Workspace {
            arena: vec![0.0; self.arena_len],
            bytes: self.pictures8.iter().flat_map(|(len, byte)| std::iter::repeat_n(*byte, *len)).collect(),
            vectors: vec![0.0; self.vectors_len],
            work: vec![0.0; self.work_len],
        }
    }

    /// Bytes of a workspace.
    pub fn workspace_bytes(&self) -> usize {
        let bytes: usize = self.pictures8.iter().map(|p| p.0).sum();
        4 * (self.arena_len + self.vectors_len + self.work_len) + bytes
    }

    /// The number of classes, with the one for none, that the network has a row for.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Runs the network on the sample `x` at time `t` under `class`, into `out`. Nothing is allocated.
    ///
    /// # Panics
    /// When `x` or `out` is not of the sample's length, or the class is out of range.
    pub fn run(&self, w: &mut Workspace, x: &[f32], t: f32, class: usize, out: &mut [f32]) {
        for step in &self.steps {
            self.step(step, w, x, t, class, out);
        }
    }

    pub(super) fn step(&self, step: &Step, w: &mut Workspace, x: &[f32], t: f32, class: usize, out: &mut [f32]) {
        let Workspace { arena, bytes, vectors, work } = w;
        let part = Part::WHOLE;
        match step {
            Step::Input { to } => read_sample(x, *to, arena),
            Step::Time { to } => vectors[to.start] = t,
            Step::Row { table, to } => vectors[to.range()].copy_from_slice(&table[class * to.len..][..to.len]),
            Step::Vector { op, a, b, to } => self.vector(*op, *a, b.as_ref(), *to, vectors),
            Step::Matrix { columns, bias, from, to } => {
                // a vector is made after those that it is made of
                let (before, after) = vectors.split_at_mut(to.start);
                kernels::multiply(self.isa, columns, &before[from.range()], bias, &mut after[..to.len]);
            }
            Step::Convolution { packed, extra, input, output, residual } => {
                let extra = extra.map(|e| &vectors[e.range()]);
                let run = conv::Run { packed, extra, input: *input, output: *output, residual: *residual };
                kernels::convolve(self.isa, &run, part, work, Memory::new(arena, bytes));
            }
            Step::Norm { groups, epsilon, scale, shift, silu, input, output } => {
                let norm = dense::Norm { groups: *groups, epsilon: *epsilon, scale, shift, silu: *silu };
                kernels::normalise(self.isa, &norm, *input, *output, part, work, Memory::new(arena, bytes));
            }
            Step::Convolution8 { packed, round, extra, input, output, output8, residual } => {
                let run = conv8::Run8 {
                    packed,
                    round: *round,
                    extra: extra.map(|e| &vectors[e.range()]),
                    input: *input,
                    output: *output,
                    output8: *output8,
                    residual: *residual,
                };
                kernels::convolve8(self.isa, &run, part, Memory::new(arena, bytes));
            }
            Step::Map { op, input, output } => {
                kernels::map(self.isa, *op, *input, *output, part, Memory::new(arena, bytes));
            }
            Step::Upsample { input, output } => {
                kernels::upsample(self.isa, *input, *output, part, Memory::new(arena, bytes));
            }
            Step::Attention(attention) => {
                kernels::attend(self.isa, attention, part, work, Memory::new(arena, bytes));
            }
            Step::Output { from, block } => write_result(*from, *block, arena, out),
        }
    }

    fn vector(&self, op: VectorOp, a: Slot, b: Option<&Operand>, to: Slot, vectors: &mut [f32]) {
        let (before, after) = vectors.split_at_mut(to.start);
        let (a, to) = (&before[a.range()], &mut after[..to.len]);
        let b = match b {
            Some(Operand::Slot(b)) => &before[b.range()],
            Some(Operand::Constant(b)) => b.as_slice(),
            None => &[],
        };
        let at = |v: &[f32], i: usize| if v.len() == 1 { v[0] } else { v[i] };
        match op {
            VectorOp::Copy => to.copy_from_slice(a),
            VectorOp::Add => (0..to.len()).for_each(|i| to[i] = at(a, i) + at(b, i)),
            VectorOp::Multiply => (0..to.len()).for_each(|i| to[i] = at(a, i) * at(b, i)),
            VectorOp::Sin => to.iter_mut().zip(a).for_each(|(o, v)| *o = libm::sinf(*v)),
            VectorOp::Cos => to.iter_mut().zip(a).for_each(|(o, v)| *o = libm::cosf(*v)),
            VectorOp::Silu => {
                to.copy_from_slice(a);
                kernels::silu(self.isa, to);
            }
        }
    }
}

impl Slot {
    fn range(self) -> std::ops::Range<usize> {
        self.start..self.start + self.len
    }
}

/// A sample `[C, H, W]` into a picture whose channels lie together.
fn read_sample(x: &[f32], to: View, arena: &mut [f32]) {
    let plane = to.h * to.w;
    for (i, at) in to.pixels().enumerate() {
        (0..to.c).for_each(|c| arena[at + c] = x[c * plane + i]);
    }
}

/// A picture into a sample `[C, H·block, W·block]`; channel `(c · block + dy) · block + dx` of a pixel is pixel
/// (dy, dx) of its square.
fn write_result(from: View, block: usize, arena: &[f32], out: &mut [f32]) {
    let (width, plane) = (from.w * block, from.h * from.w * block * block);
    for (i, at) in from.pixels().enumerate() {
        let (y, x) = (i / from.w * block, i % from.w * block);
        for channel in 0..from.c {
            let (c, dy, dx) = (channel / (block * block), channel / block % block, channel % block);
            out[c * plane + (y + dy) * width + x + dx] = arena[at + channel];
        }
    }
}
