//! Gemm, and MatMul by a stored matrix: a matrix times a vector, or a convolution of pixels that stand in a row.

use super::product_by_range::product_by_range;
use super::conv::{Floats, Weights, convolve, convolve_8bit, fits_halves};
use super::{InHalves, Operation, Operator};
use crate::compile::{Compiler, Layout8, stored_8bit, stored_around};
use crate::constant::{Constant, Levels, Stored8, broadcast};
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::{float, int};
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen};
use kernels::conv::Shape;
use kernels::dense;
use kernels::weights::Stored;
use std::borrow::Cow;

pub static OPERATORS: &[Operator] = &[Operator::new("Gemm").attributes(&["alpha", "beta", "transA", "transB"]).infer(infer).lower(lower_gemm)];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let (x, y) = (n.shape(0)?, n.shape(1)?);
    let side = |d: &[usize], name: &str, i: usize| if int(n.node, name).unwrap_or(0) != 0 { d[1 - i] } else { d[i] };
    if x.len() != 2 || y.len() != 2 || side(x, "transA", 1) != side(y, "transB", 0) {
        return Err(unknown_form());
    }
    let dims = vec![side(x, "transA", 0), side(y, "transB", 1)];
    if let Some(c) = n.node.given(2).and_then(|_| n.shape(2).ok())
        && broadcast(c, &dims).is_err()
    {
        return Err(Reason::Malformed(format!("its C of shape {c:?} does not go with its product of {dims:?}")));
    }
    Ok(vec![dims])
}

fn lower_gemm<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let plain = float(node, "alpha").unwrap_or(1.0) == 1.0
        && float(node, "beta").unwrap_or(1.0) == 1.0
        && int(node, "transA").unwrap_or(0) == 0;
    let (weights, by_column) = (l.constant(node, 1)?, int(node, "transB").unwrap_or(0) == 0);
    let n = weights.dims[usize::from(by_column)];
    // a number for each column of the result: one for each row would be another sum
    let of_columns = |b: &&Constant| b.values.len() == n && b.dims.last() == Some(&n);
    let bias = match l.optional(node, 2)? {
        Some(bias) => Some(Some(bias).filter(of_columns)?),
        None => None,
    };
    if plain { l.one(i, Linear { x: l.value(node, 0)?, weights, by_column, bias }) } else { None }
}

/// MatMul by a stored matrix, with the Add of a stored vector that may follow.
pub fn lower_matmul<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let (x, weights) = (l.value(node, 0)?, l.constant(node, 1).filter(|c| c.dims.len() == 2)?);
    let length = weights.dims[1];
    let bias = l.then(node, "Add").and_then(|(j, add)| {
        let bias = l.constant(add, 1).or_else(|| l.constant(add, 0))?;
        let last = bias.values.len() == length && bias.dims.last() == Some(&length);
        // a bias of more dimensions than the product would add some to the result
        let same = l.dims(&add.output[0]) == l.dims(&node.output[0]);
        (last && same).then_some((j, add, bias))
    });
    let linear = |bias| Linear { x, weights, by_column: true, bias };
    match bias {
        Some((j, add, bias)) => l.fused(linear(Some(bias)), &add.output, vec![i, j]),
        None => l.one(i, linear(None)),
    }
}

/// A matrix `[N, K]`, or `[K, N]` if `by_column`, times the last dimension.
struct Linear<'a> {
    x: &'a str,
    weights: &'a Constant,
    by_column: bool,
    bias: Option<&'a Constant>,
}

impl<'a> Linear<'a> {
    /// The lengths of the input's and of the output's last dimension.
    fn lengths(&self) -> [usize; 2] {
        let [first, second] = [self.weights.dims[0], self.weights.dims[1]];
        if self.by_column { [first, second] } else { [second, first] }
    }

    /// The weights in 8 bits, if they are stored so with a scale for each output.
    fn stored(&self) -> Option<&'a Stored8> {
        stored_8bit(self.weights, usize::from(self.by_column))
    }

    /// The same, with what they are around.
    fn stored_around(&self) -> Option<&'a Stored8> {
        stored_around(self.weights, usize::from(self.by_column))
    }
}

impl<'a> Operation<'a> for Linear<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn reads_8bit(&self, c: &Compiler<'_, 'a>, name: &str) -> Option<Layout8> {
        // one row is multiplied in f32
        let rows = c.dims(name).is_ok_and(|d| d[..d.len() - 1].iter().any(|n| *n > 1));
        let stored = match c.is_rounded_by_range(name) {
            true => self.stored_around().is_some(),
            false => c.is_rounded(name) && self.stored().is_some(),
        };
        let reads = self.x == name && rows && stored;
        reads.then_some(Layout8::Rows)
    }

    fn in_halves(&self, c: &Compiler<'_, 'a>, _: &str) -> InHalves {
        let rows = c.dims(self.x).is_ok_and(|d| d[..d.len().saturating_sub(1)].iter().any(|n| *n > 1));
        if rows && fits_halves(&self.weights.values.decoded()) { InHalves::Always } else { InHalves::Never }
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let [k, n] = self.lengths();
        let dims = c.dims(self.x)?;
        if dims.last() != Some(&k) || self.bias.is_some_and(|b| b.values.len() != n) {
            return Err("a linear layer that does not fit its input".into());
        }
        if dims.iter().product::<usize>() == k {
            return self.multiply_vector(c, out, [k, n]);
        }
        let shape = Shape::plain(n, k, [1, 1], [0, 0]);
        let bias = self.bias.map(|b| b.values.as_slice());
        let stored = self.stored().map(|stored| rows_of(stored, n, self.by_column));
        if let Some((stored, (params, inputs))) = stored.as_ref().zip(c.value_8bit(self.x, Layout8::Rows)) {
            let values = stored.values();
            return convolve_8bit(c, out, shape, (&values, &stored.scales), bias, (params, &inputs, Layout8::Rows));
        }
        if let Some((stored, levels)) = self.stored_around().zip(c.value_by_range(self.x)) {
            let values = stored.values();
            let rows = by_row(&values, n, self.by_column);
            return product_by_range(c, out, shape, (&rows, &stored.scales, &stored.zeros), self.bias, levels);
        }
        let input = c.value(self.x)?;
        let input = c.as_rows(&input)?;
        let sums = c.fuse_sums(out, c.dims(out)?.len() - 1)?;
        let residual = sums.residual.map(|r| c.as_rows(&r)).transpose()?;
        let output = c.row_major(c.dims(sums.out)?)?;
        let floats = if stored.is_none() { self.weights.values.decoded() } else { Cow::default() };
        let rows = if stored.is_none() { by_row(&floats, n, self.by_column) } else { Cow::default() };
        let views = (&[input][..], &[output.rows().ok_or("no rows")?][..]);
        let weights = Weights { float: Floats::Here(&rows), stored: stored.as_deref() };
        convolve(c, shape, weights, bias, views, (sums.bias, residual))?;
        c.put(sums.out, output);
        Ok(())
    }
}

impl<'a> Linear<'a> {
    fn multiply_vector(&self, c: &mut Compiler<'_, 'a>, out: &'a str, [k, n]: [usize; 2]) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        let input = c.contiguous(&input, |p| p.run().is_some())?;
        let output = c.row_major(c.dims(out)?)?;
        let stored = self.stored().filter(|stored| [1, n].contains(&stored.scales.len()));
        let levels = stored.map(Stored8::values).unwrap_or_default();
        let floats = if stored.is_none() { self.weights.values.decoded() } else { Cow::default() };
        let stored = stored.map_or(Stored::Float(&floats), |stored| Stored::Eight(&levels, &stored.scales));
        if k.checked_mul(n) != Some(stored.len()) {
            return Err("weights of another number".into());
        }
        let bias = self.bias.map(|b| b.values.as_slice());
        // rows are packed in whole vectors, of at most 16 numbers
        c.graph.take_numbers(n.saturating_add(16).saturating_mul(k))?;
        let matrix = dense::Matrix::new(stored, n, k, self.by_column, bias)?;
        let mut places = Places::default();
        let from = places.slice(Access::Read, Slice { start: input.start, len: k });
        let to = places.slice(Access::Write, Slice { start: output.start, len: n });
        c.push(MatrixVector { matrix, sizes: [k, n], from, to }, places);
        c.put(out, output);
        Ok(())
    }
}

/// Weights of a matrix of n rows, row by row.
fn rows_of(stored: &Stored8, n: usize, by_column: bool) -> Cow<'_, Stored8> {
    if !by_column {
        return Cow::Borrowed(stored);
    }
    let levels = Levels::Here(by_row(&stored.values(), n, true).into_owned());
    Cow::Owned(Stored8 { levels, zeros: stored.zeros.clone(), scales: stored.scales.clone(), axis: 0 })
}

/// A matrix of n rows, row by row.
fn by_row<T: Copy>(all: &[T], n: usize, by_column: bool) -> Cow<'_, [T]> {
    if !by_column {
        return all.into();
    }
    (0..n).flat_map(|r| all.iter().skip(r).step_by(n).copied()).collect()
}

/// A matrix times a vector, plus a vector.
#[derive(Debug)]
struct MatrixVector {
    matrix: dense::Matrix,
    /// The numbers that it reads, and those that it makes.
    sizes: [usize; 2],
    from: Handle<Slice>,
    to: Handle<Slice>,
}

impl Kernel for MatrixVector {
    fn name(&self, _: &Places) -> &'static str {
        "matrix × vector"
    }

    fn sizes(&self, _: &Places) -> (String, u64) {
        let [k, n] = self.sizes;
        (format!("{k} → {n}"), (k * n) as u64)
    }

    fn bytes(&self) -> usize {
        self.matrix.bytes()
    }

    fn scratch(&self, _: &Places) -> ScratchLen {
        let [k, n] = self.sizes;
        ScratchLen { work: n, copied: k }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let fits = [self.from, self.to].map(|p| places.get(p).len) == self.sizes;
        if fits { Ok(()) } else { Err("a matrix that does not fit its vector".into()) }
    }

    fn run(&self, Call { isa, places, memory, .. }: Call<'_>, scratch: &mut Scratch) {
        let (from, to) = (places.get(self.from), places.get(self.to));
        let (x, y) = (&mut scratch.copied[..from.len], &mut scratch.work[..to.len]);
        memory.read(from.start, x);
        kernels::multiply(isa, &self.matrix, x, y);
        memory.write(to.start, y);
    }
}
