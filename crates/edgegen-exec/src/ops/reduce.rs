//! Sums and means over dimensions.

use super::reshape::axes;
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::constant::Constant;
use crate::graph::Inference;
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, int};
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch};
use kernels::general::Reduction;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    reduction("ReduceMean").lower(|l, i| lower(l, i, Reduction::Mean)),
    reduction("ReduceSum").lower(|l, i| lower(l, i, Reduction::Sum)),
    // the shapes alone: there are no kernels for these yet
    reduction("ReduceL1"),
    reduction("ReduceL2"),
    reduction("ReduceLogSum"),
    reduction("ReduceLogSumExp"),
    reduction("ReduceMax"),
    reduction("ReduceMin"),
    reduction("ReduceSumSquare"),
];

const fn reduction(name: &'static str) -> Operator {
    Operator::new(name).attributes(&["axes", "keepdims", "noop_with_empty_axes"]).infer(infer)
}

/// The dimensions that are reduced: none at all where the node says that no axes mean none.
fn reduced(node: &NodeProto, given: Option<&Constant>, rank: usize) -> Result<Vec<usize>, Reason> {
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
    let keep = int(n.node, "keepdims") != Some(0);
    let side = |(i, d): (usize, &usize)| if axes.contains(&i) { keep.then_some(1) } else { Some(*d) };
    Ok(vec![x.iter().enumerate().filter_map(side).collect()])
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
        let input = c.value(self.x)?;
        let mut dims = input.dims.clone();
        self.axes.iter().for_each(|a| dims[*a] = 1);
        let output = c.row_major(&dims)?;
        let mut sums = output.clone();
        sums.dims.clone_from(&input.dims);
        self.axes.iter().for_each(|a| sums.strides[*a] = 0);
        let mut places = Places::default();
        let ([sums, from], [to]) = (c.strided([&sums, &input])?, c.strided([&output])?);
        let to = places.strided(Access::Write, to);
        let sums = places.strided(Access::Accumulate, sums);
        let from = places.strided(Access::Read, from);
        c.push(ReduceStep { f: self.f, to, sums, from }, places);
        c.put(out, output.reshaped(c.dims(out)?).ok_or("a reduction's result")?);
        Ok(())
    }
}

#[derive(Debug)]
struct ReduceStep {
    f: Reduction,
    to: Handle<Strided>,
    /// The result, spread over the input's dimensions.
    sums: Handle<Strided>,
    from: Handle<Strided>,
}

impl Kernel for ReduceStep {
    fn name(&self, _: &Places) -> &'static str {
        "reduction"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.from).len().to_string(), 0)
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let [to, sums, from] = [self.to, self.sums, self.from].map(|p| places.get(p));
        let plain = [to, sums, from].iter().all(|p| p.matrix() == [(1, 0); 2]);
        if plain && sums.dims == from.dims && to.start == sums.start { Ok(()) } else { Err("sums that do not fit".into()) }
    }

    fn run(&self, Call { isa, places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let loops = Strided::loops([places.get(self.sums), places.get(self.from)]).expect(PROVEN);
        kernels::reduce(isa, self.f, &loops, &Strided::loops([places.get(self.to)]).expect(PROVEN), memory);
    }
}
