//! Sums, means, extremes and norms over dimensions.

use super::reshape::axes;
use super::{Operation, Operator, norm_forms};
use crate::compile::{Compiler, inverse};
use crate::constant::Constant;
use crate::graph::Inference;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, int};
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::{StridedView, row_major};
use kernels::general::{RANK, StridedLoops};
use kernels::reduce::Reduction;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    reduction("ReduceMean").lower(|l, i| norm_forms::layer_norm(l, i).or_else(|| lower(l, i, Reduction::Mean))),
    reduction("ReduceSum").lower(|l, i| lower(l, i, Reduction::Sum)),
    reduction("ReduceMax").lower(|l, i| lower(l, i, Reduction::Max)),
    reduction("ReduceMin").lower(|l, i| lower(l, i, Reduction::Min)),
    reduction("ReduceProd").lower(|l, i| lower(l, i, Reduction::Product)),
    reduction("ReduceL1").lower(|l, i| lower(l, i, Reduction::L1)),
    reduction("ReduceL2").lower(|l, i| norm_forms::l2_norm(l, i).or_else(|| lower(l, i, Reduction::L2))),
    reduction("ReduceSumSquare").lower(|l, i| lower(l, i, Reduction::SumSquare)),
    reduction("ReduceLogSum").lower(|l, i| lower(l, i, Reduction::LogSum)),
    reduction("ReduceLogSumExp").lower(|l, i| lower(l, i, Reduction::LogSumExp)),
];

const fn reduction(name: &'static str) -> Operator {
    Operator::new(name).attributes(&["axes", "keepdims", "noop_with_empty_axes"]).infer(infer).fold(fold)
}

/// What is made of a stored tensor, as a run would make it.
fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let f = match node.op_type.as_str() {
        "ReduceMean" => Reduction::Mean,
        "ReduceSum" => Reduction::Sum,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Product,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "ReduceSumSquare" => Reduction::SumSquare,
        "ReduceLogSum" => Reduction::LogSum,
        "ReduceLogSumExp" => Reduction::LogSumExp,
        _ => return Ok(None),
    };
    let Some(x) = input.first().copied().flatten().filter(|x| x.len() > 0) else { return Ok(None) };
    if x.is_integer() && ![Reduction::Sum, Reduction::Product, Reduction::Max, Reduction::Min].contains(&f) {
        return Ok(None);
    }
    let axes = reduced(node, input.get(1).copied().flatten(), x.dims.len())?;
    let strides = row_major(&x.dims);
    let (inner, outer): (Vec<usize>, Vec<usize>) = (0..x.dims.len()).partition(|d| axes.contains(d));
    let of = |all: &[usize], which: &[usize]| which.iter().map(|d| all[*d]).collect::<Vec<_>>();
    let dims = of(&x.dims, &outer);
    let count = crate::constant::count(&dims)?;
    let over = StridedLoops::new(&of(&x.dims, &inner), [(0, of(&strides, &inner).as_slice())]);
    let results =
        StridedLoops::new(&dims, [(x.len(), row_major(&dims).as_slice()), (0, of(&strides, &outer).as_slice())]);
    let (results, over) = results.zip(over).ok_or("a reduction over too many dimensions")?;
    let mut memory = [x.values.as_slice(), &vec![0.0; count]].concat();
    let all = kernels::Memory::new(&mut memory, &mut []);
    kernels::reduce(kernels::Isa::PORTABLE, f, &results, &over, kernels::Part::WHOLE, all);
    let dims = kept(node, &axes, &x.dims);
    Ok(Some(vec![Constant::computed(dims, memory.split_off(x.len()), x.kind)?]))
}

/// The dimensions that are reduced: none at all where the node says that no axes mean none.
pub fn reduced(node: &NodeProto, given: Option<&Constant>, rank: usize) -> Result<Vec<usize>, Reason> {
    let named = axes(node, given).filter(|axes| !axes.is_empty());
    match named {
        Some(axes) => axes.into_iter().map(|a| axis(a, rank)).collect(),
        None if int(node, "noop_with_empty_axes") == Some(1) => Ok(Vec::new()),
        None => Ok((0..rank).collect()),
    }
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    if n.node.input.len() > 1 && !n.node.input[1].is_empty() {
        n.required(1)?;
    }
    let axes = reduced(n.node, n.stored(1), x.len())?;
    Ok(vec![kept(n.node, &axes, x)])
}

/// The dimensions of a result.
fn kept(node: &NodeProto, axes: &[usize], dims: &[usize]) -> Vec<usize> {
    let keep = int(node, "keepdims") != Some(0);
    let side = |(i, d): (usize, &usize)| if axes.contains(&i) { keep.then_some(1) } else { Some(*d) };
    dims.iter().enumerate().filter_map(side).collect()
}

fn lower<'a>(l: &Lowering<'a>, i: usize, f: Reduction) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let axes = reduced(node, l.constant(node, 1), l.dims(x)?.len()).ok()?;
    l.one(i, Reduce { x, f, axes })
}

struct Reduce<'a> {
    x: &'a str,
    f: Reduction,
    axes: Vec<usize>,
}

impl<'a> Operation<'a> for Reduce<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let mut input = c.value(self.x)?;
        let (inner, outer): (Vec<usize>, Vec<usize>) = (0..input.dims.len()).partition(|d| self.axes.contains(d));
        let of = |place: &StridedView, which: &[usize]| {
            let some = |all: &[usize]| which.iter().map(|d| all[*d]).collect();
            StridedView::strided(place.start, some(&place.dims), some(&place.strides))
        };
        if sides(&of(&input, &inner)).is_none() {
            // more than rows and columns: they are brought together
            let order = [&outer[..], &inner[..]].concat();
            input = c.contiguous(&input.permuted(&order), |_| false)?.permuted(&inverse(&order));
        }
        let inner = sides(&of(&input, &inner)).ok_or("a reduction over too many dimensions")?;
        let outer = of(&input, &outer);
        // a result with as many dimensions may lie as the input does
        let dims = c.dims(out)?;
        let like = if dims.len() == input.dims.len() { Some(c.like(out, &input)?) } else { None };
        let results = like.and_then(|place| place.reshaped(&outer.dims).map(|results| (place, results)));
        let (output, results) = match results {
            Some(both) => both,
            None => {
                let place = c.row_major(dims)?;
                let results = place.reshaped(&outer.dims).ok_or("a reduction's result")?;
                (place, results)
            }
        };
        let [to, from] = c.strided_with([&results, &outer], [[(1, 0); 2], inner])?;
        let mut places = Places::default();
        let (to, from) = (places.strided(Access::Write, to), places.strided(Access::Read, from));
        c.push(ReduceStep { f: self.f, to, from }, places);
        c.put(out, output);
        Ok(())
    }
}

/// Dimensions as rows and columns, each with its length and stride; none if they are more than two once those that lie together
/// are one.
fn sides(inner: &StridedView) -> Option<[(usize, usize); 2]> {
    let (dims, [(_, strides)]) = StridedLoops::new(&inner.dims, [(0, inner.strides.as_slice())])?.parts();
    let side = |d: usize| (dims[d], strides[d]);
    (dims[..RANK - 2].iter().all(|n| *n == 1)).then(|| [side(RANK - 2), side(RANK - 1)])
}

#[derive(Debug)]
struct ReduceStep {
    f: Reduction,
    to: Handle<Strided>,
    /// For each result the numbers that it is made of, as the rows and columns of a matrix.
    from: Handle<Strided>,
}

impl ReduceStep {
    /// Over the results, and over the numbers of each.
    fn loops(&self, places: &Places) -> Option<(StridedLoops<2>, StridedLoops<1>)> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let (mut dims, mut strides) = ([1; RANK], [0; RANK]);
        for (d, (len, stride)) in from.matrix().into_iter().enumerate() {
            (dims[RANK - 2 + d], strides[RANK - 2 + d]) = (len, stride);
        }
        let inner = StridedLoops::from_parts(dims, [(0, strides)])?;
        Some((Strided::loops([to, from])?, inner))
    }
}

impl Kernel for ReduceStep {
    fn name(&self, _: &Places) -> &'static str {
        "reduction"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (format!("{} → {}", places.get(self.from).len(), places.get(self.to).len()), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[10, places.get(self.from).len()]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let alike = to.dims[..RANK] == from.dims[..RANK] && to.matrix() == [(1, 0); 2] && from.len() > 0;
        if alike && self.loops(places).is_some() { Ok(()) } else { Err("sums that do not fit".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let (loops, inner) = self.loops(places).expect(PROVEN);
        kernels::reduce(isa, self.f, &loops, &inner, part, memory);
    }
}
