//! ArgMax and ArgMin: where along a dimension the greatest or the least number is.

use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::graph::Inference;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, int};
use crate::place::{Access, Handle, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::general::RANK;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    Operator::new("ArgMax").attributes(ATTRIBUTES).infer(infer).lower(|l, i| lower(l, i, true)),
    Operator::new("ArgMin").attributes(ATTRIBUTES).infer(infer).lower(|l, i| lower(l, i, false)),
];

const ATTRIBUTES: &[&str] = &["axis", "keepdims", "select_last_index"];

fn axis_of(node: &NodeProto, rank: usize) -> Result<usize, Reason> {
    axis(int(node, "axis").unwrap_or(0), rank)
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let mut dims = n.shape(0)?.to_vec();
    let at = axis_of(n.node, dims.len())?;
    if int(n.node, "keepdims").unwrap_or(1) != 0 {
        dims[at] = 1;
    } else {
        dims.remove(at);
    }
    Ok(vec![dims])
}

fn lower<'a>(l: &Lowering<'a>, i: usize, greatest: bool) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let axis = axis_of(node, l.dims(x)?.len()).ok()?;
    let last = int(node, "select_last_index").unwrap_or(0) != 0;
    l.one(i, Arg { x, axis, greatest, last })
}

/// The index of the greatest or the least number along a dimension.
struct Arg<'a> {
    x: &'a str,
    axis: usize,
    greatest: bool,
    /// Whether it is the last of equal ones.
    last: bool,
}

impl<'a> Operation<'a> for Arg<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        let (first, along) = input.without(self.axis);
        let output = c.row_major(&first.dims)?;
        let [to, from] = c.strided_with([&output, &first], [[(1, 0); 2], [(1, 0), along]])?;
        let mut places = Places::default();
        let (to, from) = (places.strided(Access::Write, to), places.strided(Access::Read, from));
        c.push(ArgStep { greatest: self.greatest, last: self.last, to, from }, places);
        c.put(out, output.reshaped(c.dims(out)?).ok_or("an index's shape")?);
        Ok(())
    }
}

#[derive(Debug)]
struct ArgStep {
    greatest: bool,
    last: bool,
    to: Handle<Strided>,
    /// For each result the numbers that it is found among, as the columns of a matrix of one row.
    from: Handle<Strided>,
}

impl Kernel for ArgStep {
    fn name(&self, _: &Places) -> &'static str {
        "index of the greatest or least"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (format!("{} → {}", places.get(self.from).len(), places.get(self.to).len()), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[20, places.get(self.from).len()]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let [(rows, _), (n, _)] = from.matrix();
        let alike = to.dims[..RANK] == from.dims[..RANK] && to.matrix() == [(1, 0); 2];
        if alike && rows == 1 && n > 0 { Ok(()) } else { Err("indices that do not fit".into()) }
    }

    fn run(&self, Call { part, places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let [_, (n, apart)] = from.matrix();
        for line in part.range(to.outer_len()) {
            let [at, first] = Strided::starts([&to, &from], line);
            let (mut found, mut value) = (0, memory.get(first));
            for i in 1..n {
                let next = memory.get(first + i * apart);
                let better = if self.greatest { next > value } else { next < value };
                if better || (self.last && next == value) {
                    (found, value) = (i, next);
                }
            }
            memory.set(at, found as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Attribute, Builder, steps_and_result};

    #[test]
    fn the_first_or_the_last_of_equal_numbers_is_found() {
        // 0 1 2, 3 4 5 less 2, cut off at 2: 0 0 0, 1 2 2
        for (last, expected) in [(0, [0.0, 1.0]), (1, [2.0, 2.0])] {
            let mut b = Builder::new(0);
            let (two, zero) = (b.stored(&[], &[2.0]), b.stored(&[], &[0.0]));
            let less = b.op("Sub", &["x", &two], &[]);
            let cut = b.op("Clip", &[&less, &zero, &two], &[]);
            let attributes = [Attribute::Int("axis", 2), Attribute::Int("select_last_index", last)];
            let index = b.op("ArgMax", &[&cut], &attributes);
            let float = b.op("Cast", &[&index], &[Attribute::Int("to", 1)]);
            let pads = b.list(&[0, 0, 0, 0, 0, 2]);
            let filled = b.op("Pad", &[&float, &pads], &[]);
            let (_, result) = steps_and_result(&mut b, &[1, 2, 3], &filled);
            assert_eq!([result[0], result[3]], expected);
        }
    }
}
