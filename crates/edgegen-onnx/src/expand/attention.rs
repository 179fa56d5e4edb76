//! Attention as one node: ONNX's own of opset 23 on, and onnxruntime's, where nothing is kept from one call to the next.

use super::writer::{int, signed};
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;
use crate::pb::tensor_proto::DataType;

/// Attention and MultiHeadAttention.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    match (node.domain.as_str(), node.op_type.as_str()) {
        ("com.microsoft", "Attention") => of_projected(node, known).map(Some),
        ("com.microsoft", _) => multi_head(node, known).map(Some),
        _ => standard(node, known).map(Some),
    }
}

/// A value `[batch, heads, rows, size]`, and these sizes.
struct Heads {
    name: String,
    dims: [usize; 4],
}

impl Heads {
    fn of(name: String, dims: &[usize]) -> Result<Self> {
        let dims = <[usize; 4]>::try_from(dims).map_err(|_| unknown("an operand of that rank"))?;
        Ok(Heads { name, dims })
    }

    /// Of rows in which the heads' numbers follow each other, `[batch, rows, heads · size]`.
    fn of_rows(w: &mut Writer, name: &str, dims: &[usize], heads: usize) -> Result<Self> {
        let &[batch, rows, all] = dims else { return Err(unknown("an operand of that rank")) };
        let size = all.checked_div(heads).filter(|size| size * heads == all && *size > 0);
        let size = size.ok_or_else(|| format!("rows of {all} numbers are no {heads} heads"))?;
        let apart = w.reshape(name, &[batch, rows, heads, size]);
        let name = w.transpose(&apart, &[0, 2, 1, 3]);
        Ok(Heads { name, dims: [batch, heads, rows, size] })
    }

    /// As rows again.
    fn rows(self, w: &mut Writer) -> String {
        let [batch, heads, rows, size] = self.dims;
        let together = w.transpose(&self.name, &[0, 2, 1, 3]);
        w.reshape(&together, &[batch, rows, heads * size])
    }

    /// Each head as often as it takes to be so many.
    fn repeated(self, w: &mut Writer, heads: usize) -> Result<Self> {
        let [batch, groups, rows, size] = self.dims;
        if groups == heads {
            return Ok(self);
        }
        let each = heads.checked_div(groups).filter(|each| each * groups == heads);
        let each = each.ok_or_else(|| format!("{heads} heads of queries do not share {groups} of keys"))?;
        let apart = w.unsqueeze(&self.name, 2);
        let to = w.list(&signed(&[batch, groups, each, rows, size]));
        let many = w.op("Expand", &[&apart, &to]);
        let dims = [batch, heads, rows, size];
        Ok(Heads { name: w.reshape(&many, &dims), dims })
    }
}

/// What is done to the scores before the softmax.
struct Scores {
    scale: Option<f32>,
    softcap: f32,
    /// What is added to them.
    masks: Vec<String>,
}

/// softmax(scale · q kᵀ + masks) v.
fn attend(w: &mut Writer, [q, k, v]: [Heads; 3], scores: Scores) -> Result<Heads> {
    let [batch, heads, rows, size] = q.dims;
    let (k, v) = (k.repeated(w, heads)?, v.repeated(w, heads)?);
    if k.dims != [batch, heads, k.dims[2], size] || v.dims != [batch, heads, k.dims[2], v.dims[3]] {
        return Err("its queries, keys and values do not fit each other".into());
    }
    let turned = w.transpose(&k.name, &[0, 1, 3, 2]);
    let product = w.op("MatMul", &[&q.name, &turned]);
    let scale = scores.scale.unwrap_or(1.0 / (size as f32).sqrt());
    let scale = w.number(scale);
    let mut x = w.op("Mul", &[&product, &scale]);
    if scores.softcap != 0.0 {
        let cap = w.number(scores.softcap);
        let small = w.op("Div", &[&x, &cap]);
        let bent = w.op("Tanh", &[&small]);
        x = w.op("Mul", &[&bent, &cap]);
    }
    // one mask, so that what is stored becomes one
    if let Some(mask) = scores.masks.into_iter().reduce(|a, b| w.op("Add", &[&a, &b])) {
        x = w.op("Add", &[&x, &mask]);
    }
    let weights = w.with("Softmax", &[&x], vec![int("axis", 3)]);
    let name = w.op("MatMul", &[&weights, &v.name]);
    Ok(Heads { name, dims: [batch, heads, rows, v.dims[3]] })
}

/// A stored mask by which row i sees no more than the first `before + i + 1` columns.
fn causal(w: &mut Writer, rows: usize, columns: usize, before: usize) -> Result<String> {
    const MOST: usize = 1 << 24;
    rows.checked_mul(columns).filter(|all| *all <= MOST).ok_or("its causal mask is too large")?;
    let at = |i: usize| if i % columns <= before + i / columns { 0.0 } else { f32::NEG_INFINITY };
    let mask: Vec<f32> = (0..rows * columns).map(at).collect();
    Ok(w.floats(&[rows, columns], &mask))
}

/// ONNX's Attention, as its specification writes it out.
fn standard(node: &NodeProto, known: &dyn Known) -> Result<Vec<NodeProto>> {
    if node.result(3).is_some() || node.given(6).is_some() {
        return Err(unknown("its products as a result, or the length of what is kept"));
    }
    let mut w = Writer::new(node, known);
    let (mut operands, mut rank) = (Vec::new(), 0);
    for (i, attribute) in ["q_num_heads", "kv_num_heads", "kv_num_heads"].into_iter().enumerate() {
        let (name, dims) = (node.given(i).unwrap_or_default(), shape(node, known, i)?);
        if i > 0 && rank != dims.len() {
            return Err("its queries, keys and values are of unlike ranks".into());
        }
        rank = dims.len();
        operands.push(match rank {
            3 => {
                let heads = node.int(attribute).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
                Heads::of_rows(&mut w, name, dims, heads.ok_or_else(|| format!("its {attribute} is missing"))?)?
            }
            _ => Heads::of(name.into(), dims)?,
        });
    }
    let [q, mut k, mut v] = <[Heads; 3]>::try_from(operands).map_err(|_| "it has not three operands")?;
    let mut before = 0;
    if let (Some(past_key), Some(past_value)) = (node.given(4), node.given(5)) {
        before = *shape(node, known, 4)?.get(2).ok_or("what is kept is no heads")?;
        for (i, past, heads) in [(4, past_key, &mut k), (5, past_value, &mut v)] {
            let of_past = shape(node, known, i)?.get(2).copied().unwrap_or(0);
            heads.name = w.with("Concat", &[past, &heads.name], vec![int("axis", 2)]);
            heads.dims[2] = heads.dims[2].checked_add(of_past).ok_or("what is kept is too long")?;
        }
    } else if node.given(4).is_some() || node.given(5).is_some() {
        return Err("of past keys and values it has only one".into());
    }
    let (rows, columns) = (q.dims[2], k.dims[2]);
    let mut masks = Vec::new();
    if node.int("is_causal").unwrap_or(0) == 1 {
        masks.push(causal(&mut w, rows, columns, before)?);
    }
    if let Some(mask) = node.given(3) {
        masks.push(mask_of(&mut w, known, mask, shape(node, known, 3)?, columns)?);
    }
    let present = [k.name.clone(), v.name.clone()];
    let scores = Scores { scale: node.float("scale"), softcap: node.float("softcap").unwrap_or(0.0), masks };
    let attended = attend(&mut w, [q, k, v], scores)?;
    let result = if rank == 3 { attended.rows(&mut w) } else { attended.name };
    let [key, value] = present;
    Ok(w.finish(node, &[(1, key), (2, value), (0, result)]))
}

/// What a mask adds to scores: itself, or minus infinity where it is false.
fn mask_of(w: &mut Writer, known: &dyn Known, mask: &str, dims: &[usize], columns: usize) -> Result<String> {
    if dims.len() > 4 || dims.last().is_none_or(|d| ![1, columns].contains(d)) {
        return Err(unknown("a mask of that shape"));
    }
    if known.element(mask) != Some(DataType::Bool) {
        return Ok(mask.into());
    }
    let each = *dims.last().expect("it was looked at");
    if known.integers(mask).is_some_and(|all| all.chunks(each.max(1)).any(|row| row.iter().all(|seen| *seen == 0))) {
        return Err(unknown("a mask by which a query sees nothing"));
    }
    let (zero, none) = (w.number(0.0), w.number(f32::NEG_INFINITY));
    Ok(w.op("Where", &[mask, &zero, &none]))
}

/// The masks of onnxruntime's attention: what is added, keys that are left out, and those that come later.
fn masks_of(
    w: &mut Writer,
    node: &NodeProto,
    known: &dyn Known,
    [mask, bias]: [usize; 2],
    [rows, columns]: [usize; 2],
) -> Result<Vec<String>> {
    let mut masks = Vec::new();
    if let Some(name) = node.given(mask) {
        let new_axes: &[usize] = match *shape(node, known, mask)? {
            [_, keys] if keys == columns => &[1, 1],
            [_, queries, keys] if queries == rows && keys == columns => &[1],
            _ => return Err(unknown("a mask of that shape")),
        };
        // 1 for a key that is seen, 0 for one that is not
        let seen = w.with("Cast", &[name], vec![int("to", DataType::Float as i64)]);
        let one = w.number(1.0);
        let unseen = w.op("Sub", &[&one, &seen]);
        let least = w.number(node.float("mask_filter_value").unwrap_or(-10000.0));
        let mut added = w.op("Mul", &[&unseen, &least]);
        for axis in new_axes {
            added = w.unsqueeze(&added, *axis);
        }
        masks.push(added);
    }
    if node.int("unidirectional").unwrap_or(0) == 1 {
        masks.push(causal(w, rows, columns, 0)?);
    }
    masks.extend(node.given(bias).map(str::to_string));
    Ok(masks)
}

fn heads_of(node: &NodeProto) -> Result<usize> {
    let heads = node.int("num_heads").and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    heads.ok_or_else(|| "it has no heads".into())
}

/// A part of the last dimension.
fn part(w: &mut Writer, name: &str, dims: &[usize], start: usize, len: usize) -> (String, Vec<usize>) {
    let axis = dims.len() - 1;
    let name = w.slice(name, axis, start, start + len);
    (name, [&dims[..axis], &[len]].concat())
}

/// onnxruntime's Attention, which multiplies by the weights of queries, keys and values first.
fn of_projected(node: &NodeProto, known: &dyn Known) -> Result<Vec<NodeProto>> {
    let kept = [4, 6].iter().any(|i| node.given(*i).is_some()) || node.result(1).is_some();
    let rotary = node.int("do_rotary").unwrap_or(0) != 0 || node.int("past_present_share_buffer").unwrap_or(0) != 0;
    if kept || rotary {
        return Err(unknown("keeping keys and values, or turning them,"));
    }
    let heads = heads_of(node)?;
    let (of_x, of_weights) = (shape(node, known, 0)?, shape(node, known, 1)?);
    let (&[batch, rows, _], &[_, all]) = (of_x, of_weights) else { return Err(unknown("an input of that rank")) };
    let sizes = match node.ints("qkv_hidden_sizes") {
        Some(sizes) => sizes.iter().map(|s| usize::try_from(*s).unwrap_or(usize::MAX)).collect(),
        None => vec![all / 3; 3],
    };
    if sizes.len() != 3 || sizes.iter().fold(0usize, |sum, s| sum.saturating_add(*s)) != all {
        return Err("its weights do not fit its heads".into());
    }
    let mut w = Writer::new(node, known);
    let mut x = w.op("MatMul", &[node.given(0).unwrap_or_default(), node.given(1).unwrap_or_default()]);
    if let Some(bias) = node.given(2) {
        x = w.op("Add", &[&x, bias]);
    }
    let mut start = 0;
    let mut operand = |w: &mut Writer, size: usize| {
        let (name, dims) = part(w, &x, &[batch, rows, all], start, size);
        start += size;
        Heads::of_rows(w, &name, &dims, heads)
    };
    let operands = [operand(&mut w, sizes[0])?, operand(&mut w, sizes[1])?, operand(&mut w, sizes[2])?];
    let masks = masks_of(&mut w, node, known, [3, 5], [rows, rows])?;
    let attended = attend(&mut w, operands, Scores { scale: scale_of(node), softcap: 0.0, masks })?;
    let result = attended.rows(&mut w);
    Ok(w.finish_one(node, result))
}

/// The scale that is given, unless it is 0, which stands for none.
fn scale_of(node: &NodeProto) -> Option<f32> {
    node.float("scale").filter(|scale| *scale != 0.0)
}

/// onnxruntime's MultiHeadAttention.
fn multi_head(node: &NodeProto, known: &dyn Known) -> Result<Vec<NodeProto>> {
    if (6..10).any(|i| node.given(i).is_some()) || (1..4).any(|i| node.result(i).is_some()) {
        return Err(unknown("keeping keys and values"));
    }
    let heads = heads_of(node)?;
    let mut w = Writer::new(node, known);
    // index i of the dimension that tells queries, keys and values apart: [batch, rows, heads, parts, size]
    let packed = |w: &mut Writer, name: &str, dims: &[usize], i: usize| -> Result<Heads> {
        let &[batch, rows, heads, _, size] = dims else { return Err(unknown("an operand of that rank")) };
        let one = w.slice(name, 3, i, i + 1);
        let apart = w.reshape(&one, &[batch, rows, heads, size]);
        Ok(Heads { name: w.transpose(&apart, &[0, 2, 1, 3]), dims: [batch, heads, rows, size] })
    };
    let query = (node.given(0).unwrap_or_default(), shape(node, known, 0)?);
    let others = [1, 2].map(|i| node.given(i).map(|name| shape(node, known, i).map(|dims| (name, dims))));
    let [key, value] = others.map(Option::transpose);
    let (key, value) = (key?, value?);
    let three = |operand: &Option<(&str, &[usize])>| operand.is_some_and(|(_, dims)| dims.len() == 3);
    if node.given(3).is_some() && !(query.1.len() == 3 && three(&key) && three(&value)) {
        return Err(unknown("a bias of operands of that rank"));
    }
    let mut start = 0;
    let mut of_rows = |w: &mut Writer, (name, dims): (&str, &[usize])| {
        let mut name = name.to_string();
        let size = *dims.last().unwrap_or(&0);
        if let Some(bias) = node.given(3) {
            let bias = w.slice(bias, 0, start, start + size);
            start += size;
            name = w.op("Add", &[&name, &bias]);
        }
        Heads::of_rows(w, &name, dims, heads)
    };
    let operands = match (query, key, value) {
        ((q, dims), None, None) if dims.len() == 5 && dims[3] == 3 => {
            [packed(&mut w, q, dims, 0)?, packed(&mut w, q, dims, 1)?, packed(&mut w, q, dims, 2)?]
        }
        (q, Some((kv, dims)), None) if dims.len() == 5 && dims[3] == 2 => {
            [of_rows(&mut w, q)?, packed(&mut w, kv, dims, 0)?, packed(&mut w, kv, dims, 1)?]
        }
        (q, Some((k, of_k)), Some((v, of_v))) if of_k.len() == 4 && of_v.len() == 4 => {
            [of_rows(&mut w, q)?, Heads::of(k.into(), of_k)?, Heads::of(v.into(), of_v)?]
        }
        (q, Some(k), Some(v)) => [of_rows(&mut w, q)?, of_rows(&mut w, k)?, of_rows(&mut w, v)?],
        _ => return Err(unknown("operands of these shapes")),
    };
    let [rows, columns] = [operands[0].dims[2], operands[1].dims[2]];
    let masks = masks_of(&mut w, node, known, [4, 5], [rows, columns])?;
    let attended = attend(&mut w, operands, Scores { scale: scale_of(node), softcap: 0.0, masks })?;
    let result = attended.rows(&mut w);
    Ok(w.finish_one(node, result))
}
