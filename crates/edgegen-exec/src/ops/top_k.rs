//! TopK: the greatest or the least numbers along a dimension, in their order, and where they are.

use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::constant::{Constant, LARGEST_WHOLE};
use crate::graph::Inference;
use crate::lower::{Lowered, Lowering, Named};
use crate::node::{axis, int};
use crate::place::{Access, Handle, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen, product};
use kernels::general::RANK;
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[Operator::new("TopK")
    // where the order is left open, it is the same
    .attributes(&["axis", "k", "largest", "sorted"])
    .truths()
    .infer(infer)
    .fold(fold)
    .lower(lower)];

/// Which numbers are wanted.
#[derive(Clone, Copy, Debug)]
struct Top {
    axis: usize,
    /// How many of them.
    k: usize,
    greatest: bool,
}

impl Top {
    fn of(node: &NodeProto, dims: &[usize], k: Option<&Constant>) -> Result<Self, Reason> {
        let axis = axis(int(node, "axis").unwrap_or(-1), dims.len())?;
        let k = match k.map(Constant::integers) {
            Some(k) => k.first().copied(),
            None => int(node, "k"),
        };
        let k = k.ok_or("how many are wanted is not known before it runs")?;
        let k = usize::try_from(k).ok().filter(|k| (1..=dims[axis]).contains(k));
        let k = k.ok_or_else(|| Reason::Malformed(format!("more are wanted than the {} that there are", dims[axis])))?;
        if dims[axis] as f64 > LARGEST_WHOLE {
            return Err("there are more numbers than f32 counts".into());
        }
        Ok(Top { axis, k, greatest: int(node, "largest").unwrap_or(1) != 0 })
    }

    fn dims(&self, dims: &[usize]) -> Vec<usize> {
        let mut dims = dims.to_vec();
        dims[self.axis] = self.k;
        dims
    }

    /// The places of the wanted numbers among `values`, at the beginning of `places`: of equal ones the earlier comes first.
    fn find(&self, values: &[f32], places: &mut [f32]) {
        places.iter_mut().enumerate().for_each(|(i, place)| *place = i as f32);
        let order = |a: &f32, b: &f32| {
            // zeros of either sign are equal
            let [x, y] = [a, b].map(|place| values[*place as usize] + 0.0);
            let first = if self.greatest { y.total_cmp(&x) } else { x.total_cmp(&y) };
            first.then(a.total_cmp(b))
        };
        if self.k < places.len() {
            places.select_nth_unstable_by(self.k, order);
        }
        places[..self.k].sort_unstable_by(order);
    }
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    let dims = Top::of(n.node, x, n.stored(1))?.dims(x);
    Ok(vec![dims.clone(), dims])
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let Some(x) = input.first().copied().flatten() else { return Ok(None) };
    let top = Top::of(node, &x.dims, input.get(1).copied().flatten())?;
    let (n, inner) = (x.dims[top.axis], x.dims[top.axis + 1..].iter().product::<usize>());
    let dims = top.dims(&x.dims);
    let mut results = [vec![0.0; dims.iter().product()], vec![0.0; dims.iter().product()]];
    let (mut line, mut places) = (vec![0.0; n], vec![0.0; n]);
    for (outer, i) in (0..x.len() / n.max(1) / inner.max(1)).flat_map(|outer| (0..inner).map(move |i| (outer, i))) {
        (0..n).for_each(|j| line[j] = x.values[(outer * n + j) * inner + i]);
        top.find(&line, &mut places);
        for (j, place) in places[..top.k].iter().enumerate() {
            let at = (outer * top.k + j) * inner + i;
            (results[0][at], results[1][at]) = (line[*place as usize], *place);
        }
    }
    let [values, places] = results;
    let values = Constant::of(dims.clone(), values, x.kind);
    Ok(Some(vec![values, Constant::of(dims, places, DataType::Int64)]))
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let top = Top::of(node, l.dims(x)?, l.optional(node, 1)?).ok()?;
    let mut ops: Vec<Named> = Vec::new();
    for (out, places) in node.output.iter().zip([false, true]) {
        let read = !l.graph.consumers(out).is_empty() || l.graph.is_result(out);
        if !out.is_empty() && read {
            ops.push(Named { op: Box::new(TopK { x, top, places }), out });
        }
    }
    Some(Lowered { ops, covered: vec![i] })
}

/// The wanted numbers, or their places.
struct TopK<'a> {
    x: &'a str,
    top: Top,
    places: bool,
}

impl<'a> Operation<'a> for TopK<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        let output = c.row_major(c.dims(out)?)?;
        let ((lines, along), (results, of_results)) = (input.without(self.top.axis), output.without(self.top.axis));
        let [to, from] = c.strided_with([&results, &lines], [[(1, 0), of_results], [(1, 0), along]])?;
        let mut places = Places::default();
        let (to, from) = (places.strided(Access::Write, to), places.strided(Access::Read, from));
        c.push(TopKStep { top: self.top, places: self.places, to, from }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct TopKStep {
    top: Top,
    /// Whether the result is where the numbers are.
    places: bool,
    /// For each line of the input its results, and its numbers, as the columns of a matrix of one row.
    to: Handle<Strided>,
    from: Handle<Strided>,
}

impl Kernel for TopKStep {
    fn name(&self, _: &Places) -> &'static str {
        if self.top.greatest { "greatest numbers" } else { "least numbers" }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let [_, (n, _)] = places.get(self.from).matrix();
        (format!("{} of {n}", self.top.k), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[200, places.get(self.from).len()]))
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        let [_, (n, _)] = places.get(self.from).matrix();
        ScratchLen { work: n, copied: n }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let ([(to_rows, _), (k, _)], [(rows, _), (n, _)]) = (to.matrix(), from.matrix());
        let alike = to.dims[..RANK] == from.dims[..RANK] && rows == 1 && to_rows == 1;
        let fits = alike && k == self.top.k && k <= n && n as f64 <= LARGEST_WHOLE;
        if fits { Ok(()) } else { Err("numbers that do not fit their result".into()) }
    }

    fn run(&self, Call { part, places, memory, .. }: Call<'_>, Scratch { work, copied }: &mut Scratch) {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let ([_, (_, to_apart)], [_, (n, apart)]) = (to.matrix(), from.matrix());
        let (found, values) = (&mut work[..n], &mut copied[..n]);
        for line in part.range(to.outer_len()) {
            let [result, first] = Strided::starts([&to, &from], line);
            values.iter_mut().enumerate().for_each(|(i, value)| *value = memory.get(first + i * apart));
            self.top.find(values, found);
            for (i, place) in found[..self.top.k].iter().enumerate() {
                let number = if self.places { *place } else { values[*place as usize] };
                memory.set(result + i * to_apart, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::constant::Constant;
    use crate::ops::testing::attributes;
    use crate::testing::{Attribute, Builder, steps_and_result};
    use onnx::pb::tensor_proto::DataType;

    #[test]
    fn numbers_come_in_their_order_and_equal_ones_in_that_of_their_places() {
        // |x - 2| of 0 1 2 3 4: 2 1 0 1 2
        for (largest, places, expected) in
            [(1, false, [2.0, 2.0, 1.0]), (0, false, [0.0, 1.0, 1.0]), (1, true, [0.0, 4.0, 1.0]), (0, true, [2.0, 1.0, 3.0])]
        {
            let mut b = Builder::new(0);
            let two = b.stored(&[], &[2.0]);
            let less = b.op("Sub", &["x", &two], &[]);
            let far = b.op("Abs", &[&less], &[]);
            let k = b.list(&[3]);
            let values = b.op("TopK", &[&far, &k], &[Attribute::Int("axis", 2), Attribute::Int("largest", largest)]);
            let wanted = b.further_result();
            let wanted = b.op("Cast", &[if places { &wanted } else { &values }], &[Attribute::Int("to", 1)]);
            let pads = b.list(&[0, 0, 0, 0, 0, 2]);
            let filled = b.op("Pad", &[&wanted, &pads], &[]);
            let (steps, result) = steps_and_result(&mut b, &[1, 1, 5], &filled);
            assert_eq!(result[..3], expected);
            assert_eq!(steps.iter().filter(|name| name.ends_with("numbers")).count(), 1, "{steps:?}");
        }
    }

    #[test]
    fn stored_tensors_are_sorted_along_any_dimension() {
        let x = Constant::of(vec![3, 2], vec![1.0, -4.0, 3.0, -0.0, 1.0, 0.0], DataType::Float);
        let node = attributes(&[("axis", 0), ("largest", 0)]);
        let found = super::fold(&node, &[Some(&x), Some(&Constant::list([2]))]).unwrap().unwrap();
        assert_eq!(found[0].values.as_slice(), [1.0, -4.0, 1.0, -0.0]);
        assert_eq!(found[1].values.as_slice(), [0.0, 0.0, 2.0, 1.0]);
        assert!(super::fold(&node, &[Some(&x), Some(&Constant::list([4]))]).is_err());
    }
}
