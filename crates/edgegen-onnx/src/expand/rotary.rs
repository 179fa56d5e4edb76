//! Rotary position embedding: pairs of numbers of a head, turned by an angle that depends on the position.

use super::writer::int;
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;

/// RotaryEmbedding, ONNX's and onnxruntime's.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let added = node.domain == "com.microsoft";
    if node.int("is_packed_batching").unwrap_or(0) != 0 || node.float("scale").is_some_and(|s| s != 1.0) {
        return Err(unknown("packed batching or a scale"));
    }
    let [cos, sin, positions] = if added { [2, 3, 1] } else { [1, 2, 3] };
    let (dims, table) = (shape(node, known, 0)?, shape(node, known, cos)?);
    if table != shape(node, known, sin)? || table.is_empty() {
        return Err("its two tables are of unlike shapes".into());
    }
    let half = table[table.len() - 1];
    let heads = node.int("num_heads").and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    // [batch, heads, positions, numbers of a head]
    let [batch, heads, length, size] = match *dims {
        [batch, heads, length, size] => [batch, heads, length, size],
        [batch, length, all] => {
            // onnxruntime takes the size of a head from the table where the number of heads is not said
            let heads = match heads {
                Some(heads) => heads,
                None if added && half > 0 => all / (2 * half),
                None => return Err("its num_heads is missing".into()),
            };
            let size = all.checked_div(heads).filter(|size| size * heads == all);
            [batch, heads, length, size.ok_or("its heads are not of the same size")?]
        }
        _ => return Err(unknown("an input of that rank")),
    };
    let turned = node.int("rotary_embedding_dim").and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let turned = turned.unwrap_or(size);
    if 2 * half != turned || turned > size {
        return Err(format!("tables of {half} angles for heads of which {turned} of {size} numbers are turned"));
    }
    let mut w = Writer::new(node, known);
    let x = node.given(0).unwrap_or_default();
    let by_head = |w: &mut Writer, x: &str| {
        let apart = w.reshape(x, &[batch, length, heads, size]);
        w.transpose(&apart, &[0, 2, 1, 3])
    };
    let all = if dims.len() == 3 { by_head(&mut w, x) } else { x.to_string() };
    let mut angles = Vec::new();
    for table in [cos, sin] {
        let angle = angles_of(&mut w, node, known, table, positions, length)?;
        // the same for all heads
        angles.push(w.unsqueeze(&angle, 1));
    }
    let part = if turned < size { w.slice(&all, 3, 0, turned) } else { all.clone() };
    let interleaved = node.int("interleaved").unwrap_or(0) == 1;
    let mut result = turn(&mut w, &part, [&angles[0], &angles[1]], [batch, heads, length, turned], interleaved);
    if turned < size {
        let rest = w.slice(&all, 3, turned, size);
        result = w.with("Concat", &[&result, &rest], vec![int("axis", 3)]);
    }
    if dims.len() == 3 {
        let together = w.transpose(&result, &[0, 2, 1, 3]);
        result = w.reshape(&together, dims);
    }
    Ok(Some(w.finish_one(node, result)))
}

/// The cosines or sines of the positions, `[batch or 1, positions, angles]`.
fn angles_of(
    w: &mut Writer,
    node: &NodeProto,
    known: &dyn Known,
    table: usize,
    positions: usize,
    length: usize,
) -> Result<String> {
    let (name, dims) = (node.given(table).unwrap_or_default(), shape(node, known, table)?);
    let Some(ids) = node.given(positions) else {
        return match dims.len() {
            3 => Ok(name.into()),
            _ => Err(unknown("tables of that rank without positions")),
        };
    };
    if dims.len() != 2 {
        return Err(unknown("tables of that rank with positions"));
    }
    if shape(node, known, positions)?.len() == 2 {
        return Ok(w.op("Gather", &[name, ids]));
    }
    // one number: the first position
    let first = known.integers(ids).filter(|ids| ids.len() == 1).and_then(|ids| usize::try_from(ids[0]).ok());
    let first = first.ok_or("its first position is not known")?;
    let end = first.checked_add(length).filter(|end| *end <= dims[0]).ok_or("its tables are too short")?;
    let rows = w.slice(name, 0, first, end);
    Ok(w.unsqueeze(&rows, 0))
}

/// Each pair (a, b) as (a cos - b sin, a sin + b cos). A pair's numbers are half of a head apart, or side by side.
fn turn(w: &mut Writer, x: &str, [cos, sin]: [&str; 2], dims: [usize; 4], interleaved: bool) -> String {
    let [batch, heads, length, size] = dims;
    let half = size / 2;
    let [a, b] = if interleaved {
        let pairs = w.reshape(x, &[batch, heads, length, half, 2]);
        [0, 1].map(|i| {
            let one = w.slice(&pairs, 4, i, i + 1);
            w.reshape(&one, &[batch, heads, length, half])
        })
    } else {
        [0, half].map(|start| w.slice(x, 3, start, start + half))
    };
    let mut product = |a: &str, b: &str| w.op("Mul", &[a, b]);
    let [a_cos, b_sin, a_sin, b_cos] = [product(&a, cos), product(&b, sin), product(&a, sin), product(&b, cos)];
    let (first, second) = (w.op("Sub", &[&a_cos, &b_sin]), w.op("Add", &[&a_sin, &b_cos]));
    if !interleaved {
        return w.with("Concat", &[&first, &second], vec![int("axis", 3)]);
    }
    let [first, second] = [first, second].map(|v| w.unsqueeze(&v, 4));
    let pairs = w.with("Concat", &[&first, &second], vec![int("axis", 4)]);
    w.reshape(&pairs, &[batch, heads, length, size])
}
