//! Attention, by MatMul or Einsum as exporters write it: a product, its scaling, a stored mask, softmax over one of its
//! dimensions, and a product that sums over that dimension.

use super::matmul::{MatMul, product_of};
use super::softmax::softmax_axis;
use super::transpose::permutation;
use super::{InHalves, Operation, Operator};
use crate::compile::{Compiler, inverse};
use crate::constant::{Constant, broadcast_strides};
use crate::lower::{Lowered, Lowering, Matrices};
use crate::place::{Access, Handle, PROVEN, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen, product};
use kernels::arena::{Extent, StridedView, ImageView, row_major};
use kernels::attention::Attention;
use onnx::pb::NodeProto;

/// It begins with a MatMul or an Einsum, whose files ask for it.
pub static OPERATORS: &[Operator] = &[];

/// What stands between the scores' product and the softmax.
struct Scores<'a> {
    last: &'a NodeProto,
    covered: Vec<usize>,
    scale: f32,
    mask: Option<&'a NodeProto>,
}

/// The scaling and the mask that follow a product.
fn follow<'a>(l: &Lowering<'a>, i: usize) -> Option<Scores<'a>> {
    let mut scores = Scores { last: l.node(i), covered: vec![i], scale: 1.0, mask: None };
    while let Some((j, node)) = l.graph.sole_consumer(&scores.last.output[0]) {
        let by = |k: usize| l.constant(node, k).and_then(Constant::uniform);
        let same = l.dims(&node.output[0]) == l.dims(&scores.last.output[0]);
        match node.op_type.as_str() {
            "Mul" if scores.mask.is_none() => scores.scale *= by(1).or_else(|| by(0))?,
            "Div" if scores.mask.is_none() => scores.scale /= by(1)?,
            "Add" | "Where" if scores.mask.is_none() && same => scores.mask = Some(node),
            _ => break,
        }
        scores.covered.push(j);
        scores.last = node;
    }
    Some(scores)
}

/// Attention that begins with node `i`.
pub fn attention<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let MatMul { a, b, order: scores_order } = product_of(l, l.node(i))?;
    let Scores { last, mut covered, scale, mask } = follow(l, i)?;
    let (j, softmax) = l.then(last, "Softmax")?;
    covered.push(j);
    let rank = scores_order.len();
    let mut over = softmax_axis(l, softmax)?;
    // keys are what the weights are over
    let (queries, keys) = match scores_order.iter().position(|o| *o == over)? {
        p if p == rank - 1 => (a, swapped(b)),
        p if p == rank - 2 => (swapped(b), a),
        _ => return None,
    };
    let mask = match mask {
        Some(node) => {
            let query = *scores_order[rank - 2..].iter().find(|d| **d != over)?;
            Some(mask_of(l, node, query, over)?)
        }
        None => None,
    };
    let mut last = softmax;
    let mut turn: Vec<usize> = (0..rank).collect();
    if let Some((j, node)) = l.then(last, "Transpose") {
        turn = permutation(node, rank).ok()?;
        over = turn.iter().position(|p| *p == over)?;
        covered.push(j);
        last = node;
    }
    let (j, node) = l.graph.sole_consumer(&last.output[0])?;
    let MatMul { a, b, order } = product_of(l, node)?;
    covered.push(j);
    let weights_first = node.input[0] == last.output[0];
    // the transpose of the product: (v wᵀ)ᵀ = w vᵀ
    let (weights, values, order) = if weights_first { (a, b, order) } else { (swapped(b), swapped(a), swap(order)) };
    // its columns must be the keys, and its batch that of the scores
    let batch_is = |m: &[usize]| m.len() == rank && (0..rank - 2).all(|d| turn[m[d]] == scores_order[d]);
    if weights.order.last() != Some(&over) || !batch_is(&weights.order) || values.order.len() != rank {
        return None;
    }
    if queries.order.len() != rank || keys.order.len() != rank {
        return None;
    }
    l.fused(AttentionOperation { operands: [queries, keys, values], scale, mask, order }, &node.output, covered)
}

/// What a node adds to scores whose queries and keys are these dimensions, for each query and key, if it is the same
/// for all of the batch: a stored tensor, or numbers that scores are replaced by and so small that no weight is left.
fn mask_of<'a>(l: &Lowering<'a>, node: &'a NodeProto, query: usize, key: usize) -> Option<Vec<f32>> {
    let dims = l.dims(&node.output[0])?;
    let (queries, keys) = (dims[query], dims[key]);
    let spread = |k: usize| -> Option<Vec<f32>> {
        let c = l.constant(node, k)?;
        // twice: as it is recognised, and in the plan
        l.graph.take_numbers(queries.checked_mul(keys)?.checked_mul(2)?).ok()?;
        let strides = broadcast_strides(&c.dims, &row_major(&c.dims), dims);
        let shared = (0..dims.len()).all(|d| d == query || d == key || strides[d] == 0 || dims[d] == 1);
        let at = |i: usize| c.values[i / keys * strides[query] + i % keys * strides[key]];
        shared.then(|| (0..queries * keys).map(at).collect())
    };
    if node.op_type == "Add" {
        return spread(0).or_else(|| spread(1));
    }
    let (which, least) = (spread(0)?, -1e4);
    let kept = |replaced: bool| -> Vec<bool> { which.iter().map(|w| (*w != 0.0) != replaced).collect() };
    let (kept, by) = spread(1).map(|by| (kept(true), by)).or_else(|| spread(2).map(|by| (kept(false), by)))?;
    let small = kept.iter().zip(&by).all(|(kept, v)| *kept || *v <= least);
    // where nothing is kept, the numbers themselves would have a say
    let some = kept.chunks(keys).all(|line| line.contains(&true));
    let mask = kept.iter().map(|kept| if *kept { 0.0 } else { f32::NEG_INFINITY });
    (small && some).then(|| mask.collect())
}

fn swap(mut order: Vec<usize>) -> Vec<usize> {
    let n = order.len();
    order.swap(n - 1, n - 2);
    order
}

fn swapped(m: Matrices) -> Matrices {
    Matrices { x: m.x, order: swap(m.order) }
}

/// softmax(scale · q kᵀ + mask) v; the mask has a number for each query and key, those of a query together. The
/// result's dimensions in the order batch…, query, channel are `order`.
struct AttentionOperation<'a> {
    /// Queries, keys and values.
    operands: [Matrices<'a>; 3],
    scale: f32,
    mask: Option<Vec<f32>>,
    order: Vec<usize>,
}

/// Heads as an image of one row: the queries (or keys) are its pixels, and heads lie together.
fn heads_as_view(place: &StridedView, heads: usize) -> Option<ImageView> {
    let n = place.dims.len() - 2;
    let [rows, c] = [place.dims[n], place.dims[n + 1]];
    let stride = place.leading(n).reshaped(&[heads])?.strides[0];
    let together = (heads == 1 || stride == c) && (c == 1 || place.strides[n + 1] == 1);
    let pixel = place.strides[n];
    let channels = heads.checked_mul(c)?;
    let row = rows.checked_mul(pixel)?;
    // pixels that overlap are no image
    let apart = rows == 1 || pixel >= channels;
    let (border, precision) = ([0, 0], place.precision);
    let extent = Extent { c: channels, h: 1, w: rows, start: place.start, pixel, row, border, precision };
    if together && apart { ImageView::new(extent) } else { None }
}

impl<'a> Operation<'a> for AttentionOperation<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        self.operands.iter().filter_map(|m| m.x.value()).collect()
    }

    fn in_halves(&self, _: &Compiler<'_, 'a>, _: &str) -> InHalves {
        let stored = self.operands.iter().any(|m| m.x.value().is_none());
        if stored { InHalves::Never } else { InHalves::LikeItsInputs }
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (mut views, mut sizes) = (Vec::new(), Vec::new());
        for m in &self.operands {
            let place = c.operand(&m.x)?.permuted(&m.order);
            let n = place.dims.len() - 2;
            let heads: usize = place.dims[..n].iter().product();
            let view = match heads_as_view(&place, heads) {
                Some(view) => view,
                None => {
                    // rows first, then heads
                    let turned: Vec<usize> = [n].into_iter().chain(0..n).chain([n + 1]).collect();
                    let from = place.permuted(&turned);
                    let copy = c.row_major(&from.dims)?;
                    c.copy(&from, &copy)?;
                    heads_as_view(&copy.permuted(&inverse(&turned)), heads).ok_or("heads that are not together")?
                }
            };
            views.push(view);
            sizes.push((heads, place.dims[..n].to_vec()));
        }
        if sizes.iter().any(|s| *s != sizes[0]) {
            return Err("an attention of unlike heads".into());
        }
        let (heads, batch) = sizes.swap_remove(0);
        let [query, key, value] = views[..] else { return Err("an attention of three".into()) };
        let channels = value.c / heads;
        let dims: Vec<usize> = [query.w].into_iter().chain(batch.iter().copied()).chain([channels]).collect();
        let place = c.row_major(&dims)?;
        let rows = place.reshaped(&[query.w, value.c]).and_then(|flat| flat.rows());
        let output = rows.ok_or("an attention without a result")?;
        let mut places = Places::default();
        let step = AttentionStep {
            heads,
            scale: self.scale,
            mask: self.mask.clone(),
            operands: [query, key, value].map(|view| places.image(Access::Read, view)),
            output: places.image(Access::Write, output),
        };
        c.push(step, places);
        let n = batch.len();
        let ordered = place.permuted(&(1..=n).chain([0, n + 1]).collect::<Vec<_>>());
        let place = ordered.permuted(&inverse(&self.order));
        if place.dims != c.dims(out)? {
            return Err("an attention of an unknown form".into());
        }
        c.put(out, place);
        Ok(())
    }
}

#[derive(Debug)]
struct AttentionStep {
    heads: usize,
    scale: f32,
    mask: Option<Vec<f32>>,
    /// Queries, keys and values.
    operands: [Handle<ImageView>; 3],
    output: Handle<ImageView>,
}

impl AttentionStep {
    /// The attention to these places, if they fit one another.
    fn attention(&self, places: &Places) -> Option<Attention> {
        let [query, key, value] = self.operands.map(|view| places.get(view));
        Attention::new([query, key, value, places.get(self.output)], self.heads, self.scale)
    }
}

impl Kernel for AttentionStep {
    fn name(&self, _: &Places) -> &'static str {
        if self.mask.is_some() { "masked attention" } else { "attention" }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let [query, key, value] = self.operands.map(|view| places.get(view));
        let (queries, keys) = (product(&[query.h, query.w]), product(&[key.h, key.w]));
        let text = format!("{} heads, {queries} × {keys}, {} channels", self.heads, query.c);
        (text, product(&[queries, keys, query.c.saturating_add(value.c)]) as u64)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let [query, key, _] = self.operands.map(|view| places.get(view));
        // with an exponential a score
        let each = query.c.saturating_mul(2).saturating_add(self.heads.saturating_mul(50));
        Some(product(&[query.w, query.h, key.w, key.h, each]))
    }

    fn bytes(&self) -> usize {
        self.mask.as_ref().map_or(0, |mask| 4 * mask.len())
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        // none is wanted for what `check` refuses
        ScratchLen { work: self.attention(places).map_or(0, |a| a.work_len()), copied: 0 }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let fits = self.attention(places).is_some_and(|a| {
            let scores = product(&[a.query().h, a.query().w, a.key().h, a.key().w]);
            self.mask.as_ref().is_none_or(|mask| mask.len() == scores)
        });
        if fits { Ok(()) } else { Err("an attention that does not fit its operands".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, scratch: &mut Scratch) {
        let attention = self.attention(places).expect(PROVEN);
        kernels::attend(isa, &attention, self.mask.as_deref(), part, &mut scratch.work, memory);
    }
}
