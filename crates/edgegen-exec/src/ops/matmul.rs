//! Products of stacked matrices: MatMul of two values.

use super::attention::attention;
use super::{Operation, Operator, einsum, linear};
use crate::compile::{Compiler, inverse};
use crate::constant::broadcast;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowering, Matrices, Operand};
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen, product};
use kernels::arena::StridedView;
use kernels::general;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("MatMul").infer(infer).lower(|l, i| {
    linear::lower_matmul(l, i).or_else(|| attention(l, i)).or_else(|| l.one(i, product_of(l, l.node(i))?))
})];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let (x, y) = (n.shape(0)?, n.shape(1)?);
    if x.len() < 2 || y.len() < 2 || x[x.len() - 1] != y[y.len() - 2] {
        return Err(unknown_form());
    }
    let mut dims = broadcast(&x[..x.len() - 2], &y[..y.len() - 2])?;
    dims.extend([x[x.len() - 2], y[y.len() - 1]]);
    Ok(vec![dims])
}

/// A product of stacked matrices: its operands as such, and its result's dimensions in the order batch…, row, column.
pub struct MatMul<'a> {
    pub a: Matrices<'a>,
    pub b: Matrices<'a>,
    pub order: Vec<usize>,
}

/// A MatMul or Einsum of two operands as a product of stacked matrices.
pub fn product_of<'a>(l: &Lowering<'a>, node: &'a NodeProto) -> Option<MatMul<'a>> {
    if node.op_type == "Einsum" {
        return einsum::as_product(l, node);
    }
    // the batch of one of the two may be left out, or stand for all
    let operand = |k: usize| {
        let rank = l.dims(&node.input[k])?.len();
        Some(Matrices { x: l.operand(node, k)?, order: (0..rank).collect() })
    };
    let order = (0..l.dims(&node.output[0])?.len()).collect();
    (node.op_type == "MatMul").then_some(MatMul { a: operand(0)?, b: operand(1)?, order })
}

impl<'a> Operation<'a> for MatMul<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        [&self.a.x, &self.b.x].into_iter().filter_map(Operand::value).collect()
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let a = c.operand(&self.a.x)?.permuted(&self.a.order);
        let b = c.operand(&self.b.x)?.permuted(&self.b.order);
        let dims = c.dims(out)?;
        let ordered: Vec<usize> = self.order.iter().map(|o| dims[*o]).collect();
        let output = c.row_major(&ordered)?;
        multiply(c, &output, [&a, &b])?;
        c.put(out, output.permuted(&inverse(&self.order)));
        Ok(())
    }
}

/// Pushes a product of stacked matrices, which are the last two dimensions of each; the others are broadcast to the result's.
pub fn multiply(c: &mut Compiler, to: &StridedView, [a, b]: [&StridedView; 2]) -> Result<(), Reason> {
    let [to, a, b] = c.matrices([to, a, b])?;
    let mut places = Places::default();
    let to = places.strided(Access::Write, to);
    let from = [a, b].map(|x| places.strided(Access::Read, x));
    c.push(MatMulStep { to, from }, places);
    Ok(())
}

#[derive(Debug)]
struct MatMulStep {
    to: Handle<Strided>,
    from: [Handle<Strided>; 2],
}

impl MatMulStep {
    /// The products of these places, if they fit one another.
    fn product(&self, places: &Places) -> Option<general::MatMul> {
        let all = [places.get(self.to), places.get(self.from[0]), places.get(self.from[1])];
        let [[(rows, _), (columns, _)], [_, (inner, _)], _] = all.map(|m| m.matrix());
        let strides = all.map(|m| m.matrix().map(|(_, stride)| stride));
        general::MatMul::new(Strided::loops(all)?, [rows, columns, inner], strides)
    }
}

impl Kernel for MatMulStep {
    fn name(&self, _: &Places) -> &'static str {
        "matrix × matrix"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let Some(all) = self.product(places) else { return Default::default() };
        let (batch, [rows, columns, inner]) = (all.count(), all.sizes());
        (format!("{batch} × {rows}×{inner} · {inner}×{columns}"), product(&[batch, rows, columns, inner]) as u64)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let all = self.product(places)?;
        let [rows, columns, inner] = all.sizes();
        Some(product(&[all.count(), rows, columns, inner, 4]))
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        // none is wanted for what `check` refuses
        ScratchLen { work: self.product(places).map_or(0, |all| all.work_len()), copied: 0 }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let all = [places.get(self.to), places.get(self.from[0]), places.get(self.from[1])];
        let sizes = all.map(|m| m.matrix().map(|(len, _)| len));
        let [[rows, columns], [a_rows, inner], [b_rows, b_columns]] = sizes;
        let outer = |m: &Strided| m.dims[..kernels::general::RANK].to_vec();
        let batch = all.iter().all(|m| outer(m) == outer(&all[0]));
        let fits = batch && (a_rows, b_rows, b_columns) == (rows, inner, columns);
        let fits = fits && self.product(places).is_some();
        if fits { Ok(()) } else { Err("matrices that do not fit each other".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, scratch: &mut Scratch) {
        let product = self.product(places).expect(PROVEN);
        kernels::matmul(isa, &product, part, &mut scratch.work, memory);
    }
}
