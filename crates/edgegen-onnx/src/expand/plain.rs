//! Forms of ordinary operators that are several plainer ones: a Gemm with factors, a Sum of many, a product with a vector.

use super::normalization::from_the_start;
use super::writer::int;
use super::{Known, Writer, shape};
use crate::Result;
use crate::pb::NodeProto;

/// Whether a node may be of such a form, as far as it and the dimensions of the stored tensors that it reads say.
pub fn is_candidate<'g>(node: &NodeProto, stored: impl Fn(&str) -> Option<&'g [i64]>) -> bool {
    let vector = |name: &str| stored(name).filter(|dims| dims.len() == 1);
    match node.op_type.as_str() {
        // the one of most exporters is plain: it adds a vector of a number for each column
        "Gemm" => !is_plain_product(node) || node.given(2).is_some_and(|c| vector(c).is_none_or(|dims| dims == [1])),
        "Sum" | "Mean" | "Max" | "Min" => node.input.len() != 2 || node.op_type == "Sum" || node.op_type == "Mean",
        "MatMul" => node.input.iter().any(|name| vector(name).is_some()),
        "SpaceToDepth" => true,
        _ => false,
    }
}

/// The nodes that stand for such a node; `None` for one that is plain.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    match node.op_type.as_str() {
        "Gemm" => gemm(node, known),
        "MatMul" => with_vectors(node, known),
        "SpaceToDepth" => space_to_depth(node, known),
        "GatherElements" => from_vector(node, known),
        "GatherND" => by_first(node, known),
        "CastLike" => cast_like(node, known),
        "CenterCropPad" => center_crop_pad(node, known),
        _ => of_many(node, known),
    }
}

fn flag(node: &NodeProto, name: &str) -> bool {
    node.int(name).unwrap_or(0) != 0
}

fn factor(node: &NodeProto, name: &str) -> f32 {
    node.float(name).unwrap_or(1.0)
}

/// Whether a Gemm has no factor, and a first matrix that is not turned.
fn is_plain_product(node: &NodeProto) -> bool {
    factor(node, "alpha") == 1.0 && factor(node, "beta") == 1.0 && !flag(node, "transA")
}

/// `α A' B' + β C` with a factor that is not one, a first matrix that is turned, or a C that is no row of the result.
fn gemm(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let b = shape(node, known, 1)?;
    let columns = b.get(usize::from(!flag(node, "transB"))).copied();
    let of_columns = match node.given(2) {
        Some(_) => shape(node, known, 2)?,
        None => &[],
    };
    let is_row = node.given(2).is_none()
        || (of_columns.last().copied() == columns && of_columns.iter().rev().skip(1).all(|d| *d == 1));
    if is_plain_product(node) && is_row {
        return Ok(None);
    }
    let mut w = Writer::new(node, known);
    let turned = |w: &mut Writer, i: usize, name: &str| match node.given(i).unwrap_or_default() {
        x if flag(node, name) => w.transpose(x, &[1, 0]),
        x => x.to_string(),
    };
    let (a, b) = (turned(&mut w, 0, "transA"), turned(&mut w, 1, "transB"));
    let mut result = w.op("MatMul", &[&a, &b]);
    for (name, at) in [("alpha", 0), ("beta", 2)] {
        let value = factor(node, name);
        let scaled = |w: &mut Writer, x: &str| match value {
            1.0 => x.to_string(),
            _ => {
                let by = w.number(value);
                w.op("Mul", &[x, &by])
            }
        };
        if at == 0 {
            result = scaled(&mut w, &result);
        } else if let Some(c) = node.given(at).filter(|_| value != 0.0) {
            let c = scaled(&mut w, c);
            result = w.op("Add", &[&result, &c]);
        }
    }
    Ok(Some(w.finish_one(node, result)))
}

/// Sum, Mean, Max and Min of one, or of three and more; a Sum or a Mean of two is a sum.
fn of_many(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let of_two = match node.op_type.as_str() {
        "Sum" | "Mean" => "Add",
        op => op,
    };
    let (first, rest) = node.input.split_first().ok_or("it has no input")?;
    if rest.len() == 1 && of_two == node.op_type {
        return Ok(None);
    }
    let mut w = Writer::new(node, known);
    let mut result = first.clone();
    for next in rest {
        result = w.op(of_two, &[&result, next]);
    }
    if node.op_type == "Mean" && !rest.is_empty() {
        let count = w.number(node.input.len() as f32);
        result = w.op("Div", &[&result, &count]);
    } else if rest.is_empty() {
        result = w.op("Identity", &[&result]);
    }
    Ok(Some(w.finish_one(node, result)))
}

/// A product with a vector: a row before, or a column after, which the result then has not.
fn with_vectors(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let ranks = [shape(node, known, 0)?.len(), shape(node, known, 1)?.len()];
    if ranks.iter().all(|rank| *rank != 1) {
        return Ok(None);
    }
    let mut w = Writer::new(node, known);
    let name = |i: usize| node.given(i).unwrap_or_default().to_string();
    let (mut a, mut b) = (name(0), name(1));
    if ranks[0] == 1 {
        let dims = shape(node, known, 0)?;
        a = w.reshape(&a, &[1, dims[0]]);
    }
    if ranks[1] == 1 {
        let dims = shape(node, known, 1)?;
        b = w.reshape(&b, &[dims[0], 1]);
    }
    let product = w.op("MatMul", &[&a, &b]);
    // the dimensions that are left, by what the other factor has
    let dims = match ranks {
        [1, 1] => vec![],
        [1, n] => {
            let b = shape(node, known, 1)?;
            [&b[..n - 2], &b[n - 1..]].concat()
        }
        [n, _] => shape(node, known, 0)?[..n - 1].to_vec(),
    };
    let result = w.reshape(&product, &dims);
    Ok(Some(w.finish_one(node, result)))
}

/// What is taken from a vector element by element is gathered.
fn from_vector(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    if shape(node, known, 0)?.len() != 1 || shape(node, known, 1)?.len() != 1 {
        return Ok(None);
    }
    let mut w = Writer::new(node, known);
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    let result = w.op("Gather", &inputs);
    Ok(Some(w.finish_one(node, result)))
}

/// What is taken by indices of the first dimension alone is gathered along that.
fn by_first(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let Some((1, dims)) = shape(node, known, 1)?.split_last() else { return Ok(None) };
    let stored = known.stored(node.given(1).unwrap_or_default()).is_some();
    if stored || node.int("batch_dims").unwrap_or(0) != 0 {
        return Ok(None);
    }
    let mut w = Writer::new(node, known);
    let indices = w.reshape(node.given(1).unwrap_or_default(), dims);
    let result = w.op("Gather", &[node.given(0).unwrap_or_default(), &indices]);
    Ok(Some(w.finish_one(node, result)))
}

/// A cast to the type of another value.
fn cast_like(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let like = node.given(1).and_then(|like| known.element(like)).ok_or("the type that it casts to is not known")?;
    let mut w = Writer::new(node, known);
    let kept = node.attribute.iter().filter(|a| a.name == "saturate").cloned();
    let attributes = kept.chain([int("to", i64::from(like as i32))]).collect();
    let result = w.with("Cast", &[node.given(0).unwrap_or_default()], attributes);
    Ok(Some(w.finish_one(node, result)))
}

/// The middle of a value, or a value in the middle of zeros.
fn center_crop_pad(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let dims = shape(node, known, 0)?;
    let sizes =
        node.given(1).and_then(|sizes| known.integers(sizes)).ok_or("its sizes are not known before it runs")?;
    let axes = match node.ints("axes") {
        Some(axes) => axes.iter().map(|a| from_the_start(*a, dims.len())).collect::<Result<Vec<_>>>()?,
        None => (0..dims.len()).collect(),
    };
    if sizes.len() != axes.len() {
        return Err("its sizes are not as many as its axes".into());
    }
    let mut w = Writer::new(node, known);
    let (mut x, mut pads) = (node.given(0).unwrap_or_default().to_string(), vec![0; 2 * dims.len()]);
    for (axis, size) in axes.into_iter().zip(sizes) {
        let size = usize::try_from(size).map_err(|_| "its sizes are no lengths")?;
        let first = dims[axis].abs_diff(size) / 2;
        if size < dims[axis] {
            x = w.slice(&x, axis, first, first + size);
        } else {
            let missing = i64::try_from(size - dims[axis]).map_err(|_| "its sizes are too large")?;
            (pads[axis], pads[dims.len() + axis]) = (first as i64, missing - first as i64);
        }
    }
    let pads = w.list(&pads);
    let result = w.op("Pad", &[&x, &pads]);
    Ok(Some(w.finish_one(node, result)))
}

/// Squares of pixels as channels, those of the same place in their squares together.
fn space_to_depth(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let block = node.int("blocksize").and_then(|b| usize::try_from(b).ok()).filter(|b| *b > 0);
    let block = block.ok_or("its blocksize is not a length")?;
    let &[n, c, h, w] = shape(node, known, 0)? else { return Err("it is not of an image".into()) };
    if !h.is_multiple_of(block) || !w.is_multiple_of(block) {
        return Err(format!("an image of {h} by {w} has no whole squares of {block}"));
    }
    let channels = block.checked_mul(block).and_then(|b| b.checked_mul(c)).ok_or("it has too many channels")?;
    let mut writer = Writer::new(node, known);
    let x = node.given(0).unwrap_or_default();
    let split = writer.reshape(x, &[n, c, h / block, block, w / block, block]);
    let turned = writer.transpose(&split, &[0, 3, 5, 1, 2, 4]);
    let result = writer.reshape(&turned, &[n, channels, h / block, w / block]);
    Ok(Some(writer.finish_one(node, result)))
}

#[cfg(test)]
mod tests {
    use super::super::has_candidates;
    use crate::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType};

    #[test]
    fn a_graph_of_plain_linear_layers_is_not_read_for_its_forms() {
        let linear = |c: &[i64], attribute: &[AttributeProto]| GraphProto {
            node: vec![NodeProto {
                op_type: "Gemm".into(),
                input: ["x", "w", "c"].map(String::from).to_vec(),
                attribute: attribute.to_vec(),
                ..Default::default()
            }],
            initializer: vec![TensorProto { name: "c".into(), dims: c.to_vec(), ..Default::default() }],
            ..Default::default()
        };
        let alpha = |f: f32| AttributeProto {
            name: "alpha".into(),
            r#type: AttributeType::Float as i32,
            f,
            ..Default::default()
        };
        assert!(!has_candidates(&linear(&[4], &[alpha(1.0)])));
        assert!(has_candidates(&linear(&[4], &[alpha(0.5)])));
        for not_of_columns in [&[][..], &[1], &[3, 1], &[1, 4]] {
            assert!(has_candidates(&linear(not_of_columns, &[])));
        }
    }
}
