//! Norms as exporters write them out: by means, squares and roots over one or several dimensions.

use super::reduce::reduced;
use super::row_op::RowOperation;
use crate::constant::{Constant, broadcast};
use crate::lower::{Lowered, Lowering};
use crate::node::int;
use kernels::general::RowOp;
use onnx::pb::NodeProto;

/// A form of several nodes that is being followed.
struct Form<'l, 'a> {
    l: &'l Lowering<'a>,
    x: &'a str,
    axes: Vec<usize>,
    covered: Vec<usize>,
}

impl<'l, 'a> Form<'l, 'a> {
    /// Of a value over the dimensions that a node reduces and keeps.
    fn new(l: &'l Lowering<'a>, x: &'a str, node: &NodeProto) -> Option<Self> {
        let axes = reduced(node, l.optional(node, 1)?, l.dims(x)?.len()).ok()?;
        let keeps = int(node, "keepdims").unwrap_or(1) != 0 && !axes.is_empty();
        keeps.then_some(Form { l, x, axes, covered: Vec::new() })
    }

    /// The node that alone reads the result of `node`, if it is of this kind, as covered.
    fn then(&mut self, node: &'a NodeProto, op: &str) -> Option<&'a NodeProto> {
        let (j, next) = self.l.then(node, op)?;
        self.covered.push(j);
        Some(next)
    }

    /// The numbers of a row.
    fn length(&self) -> Option<usize> {
        let dims = self.l.dims(self.x)?;
        self.axes.iter().try_fold(1, |n: usize, d| n.checked_mul(dims[*d]))
    }

    /// The stored tensor that a node reads, as a number for each one of a row.
    fn of_row(&self, node: &NodeProto) -> Option<Vec<f32>> {
        let c = self.l.constant(node, 1).or_else(|| self.l.constant(node, 0))?;
        let dims = self.l.dims(self.x)?;
        let missing = dims.len().checked_sub(c.dims.len())?;
        // dimensions that are not of the row must be one, and those that are must come in the row's order
        let own = |d: &usize| if *d < missing { 1 } else { c.dims[*d - missing] };
        let alone = (0..dims.len()).all(|d| self.axes.contains(&d) || own(&d) == 1);
        let row: Vec<usize> = self.axes.iter().map(|d| dims[*d]).collect();
        let given: Vec<usize> = self.axes.iter().map(own).collect();
        let fits = alone && self.axes.is_sorted() && broadcast(&given, &row).ok()? == row;
        let same_shape = self.l.dims(&node.output[0]) == Some(dims);
        (fits && same_shape).then(|| c.reshaped(given).expanded(&row).values.to_vec())
    }

    /// With the products and sums with stored tensors that follow: the last node, the scale, and the shift if one may follow.
    fn weights(&mut self, mut last: &'a NodeProto, shifts: bool) -> Option<(&'a NodeProto, Vec<f32>, Vec<f32>)> {
        let length = self.length()?;
        let (mut scale, mut shift) = (vec![1.0; length], vec![0.0; length]);
        while let Some((j, node)) = self.l.then(last, "Mul")
            && let Some(by) = self.of_row(node)
        {
            scale.iter_mut().zip(by).for_each(|(s, by)| *s *= by);
            self.covered.push(j);
            last = node;
        }
        if shifts
            && let Some((j, node)) = self.l.then(last, "Add")
            && let Some(by) = self.of_row(node)
        {
            shift = by;
            self.covered.push(j);
            last = node;
        }
        Some((last, scale, shift))
    }

    fn end(self, function: RowOp, last: &'a NodeProto) -> Option<Lowered<'a>> {
        let operation = RowOperation { x: self.x, function, axes: self.axes };
        self.l.fused(operation, &last.output, self.covered)
    }

    /// From a mean of squares on: a small number is added, and by the root of that `x` is divided. Gives that number, and the
    /// quotient.
    fn over_root(&mut self, mean: &'a NodeProto, x: &[&str]) -> Option<(f32, &'a NodeProto)> {
        let add = self.then(mean, "Add")?;
        let epsilon = self.l.number(add)?;
        let root = self.then(add, "Sqrt")?;
        if let Some(quotient) = self.then(root, "Div") {
            let fits = x.contains(&quotient.input[0].as_str()) && quotient.input[1] == root.output[0];
            return fits.then_some((epsilon, quotient));
        }
        let reciprocal = self.then(root, "Reciprocal")?;
        let product = self.then(reciprocal, "Mul")?;
        let other = product.input.iter().find(|name| **name != reciprocal.output[0])?;
        x.contains(&other.as_str()).then_some((epsilon, product))
    }
}

/// Whether a node is the square of a value.
fn squares(l: &Lowering, node: &NodeProto, x: &str) -> bool {
    match node.op_type.as_str() {
        "Pow" => node.input[0] == x && l.constant(node, 1).and_then(Constant::uniform) == Some(2.0),
        "Mul" => node.input.iter().all(|name| name == x),
        _ => false,
    }
}

/// Layer norm that begins with the mean that is node `i`: the mean is taken away, and what is left divided by the root of the
/// mean of its squares.
pub fn layer_norm<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let mean = l.node(i);
    let mut form = Form::new(l, l.value(mean, 0)?, mean)?;
    form.covered.push(i);
    // some take it away once for the squares and once more for the quotient
    let taken: Vec<(usize, &NodeProto)> = l.readers(&mean.output[0])?;
    let away = |node: &NodeProto| {
        node.op_type == "Sub"
            && l.same(&mean.input[0]) == form.x
            && node.input[0] == mean.input[0]
            && node.input[1] == mean.output[0]
    };
    if taken.is_empty() || taken.len() > 2 || !taken.iter().all(|(_, node)| away(node)) {
        return None;
    }
    let centred: Vec<&str> = taken.iter().map(|(_, node)| node.output[0].as_str()).collect();
    let mut readers = Vec::new();
    for (j, node) in &taken {
        form.covered.push(*j);
        readers.extend(l.readers(&node.output[0])?);
    }
    readers.sort_by_key(|(j, _)| *j);
    readers.dedup_by_key(|(j, _)| *j);
    let [(j, square), (_, last)] = *readers.as_slice() else { return None };
    if !centred.iter().any(|x| squares(l, square, x)) {
        return None;
    }
    form.covered.push(j);
    let variance = form.then(square, "ReduceMean")?;
    let same = Form::new(l, form.x, variance)?;
    if same.axes != form.axes {
        return None;
    }
    let (epsilon, quotient) = form.over_root(variance, &centred)?;
    if !std::ptr::eq(quotient, last) {
        return None;
    }
    let (last, scale, shift) = form.weights(quotient, true)?;
    form.end(RowOp::LayerNorm { epsilon, scale, shift }, last)
}

/// RMS norm that begins with the square that is node `i`.
pub fn rms_norm<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let square = l.node(i);
    let x = l.value(square, 0)?;
    if !squares(l, square, &square.input[0]) {
        return None;
    }
    let (j, mean) = l.then(square, "ReduceMean")?;
    let mut form = Form::new(l, x, mean)?;
    form.covered.extend([i, j]);
    let (epsilon, quotient) = form.over_root(mean, &[square.input[0].as_str()])?;
    let (last, scale, _) = form.weights(quotient, false)?;
    form.end(RowOp::RmsNorm { epsilon, scale }, last)
}

/// A value over its L2 norm, or over a least number if that is greater, that begins with the norm that is node `i`.
pub fn l2_norm<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let norm = l.node(i);
    let mut form = Form::new(l, l.value(norm, 0)?, norm)?;
    form.covered.push(i);
    let (mut last, mut least) = (norm, 0.0);
    if let Some(node) = form.then(last, "Max") {
        (last, least) = (node, l.number(node)?);
    } else if let Some(node) = form.then(last, "Clip") {
        let no_upper = node.input.get(2).is_none_or(String::is_empty) && node.attribute.is_empty();
        (last, least) = (node, l.constant(node, 1).and_then(Constant::uniform).filter(|_| no_upper)?);
    }
    if let Some(node) = form.then(last, "Expand") {
        last = node;
    }
    let quotient = form.then(last, "Div")?;
    if quotient.input[0] != norm.input[0] || quotient.input[1] != last.output[0] {
        return None;
    }
    let (last, scale, _) = form.weights(quotient, false)?;
    form.end(RowOp::L2Norm { least, scale }, last)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Attribute, Builder, steps_and_result};

    /// What is taken from a mean over channels, once or twice, and the steps that it becomes.
    fn spelled_out(twice: bool, keepdims: i64) -> (Vec<&'static str>, Vec<f32>) {
        let mut b = Builder::new(3);
        let axes = b.list(&[1]);
        let keep = Attribute::Int("keepdims", keepdims);
        let mean = b.op("ReduceMean", &["x", &axes], &[keep]);
        let centred = b.op("Sub", &["x", &mean], &[]);
        let again = if twice { b.op("Sub", &["x", &mean], &[]) } else { centred.clone() };
        let two = b.stored(&[], &[2.0]);
        let square = b.op("Pow", &[&centred, &two], &[]);
        let variance = b.op("ReduceMean", &[&square, &axes], &[]);
        let epsilon = b.stored(&[], &[1e-6]);
        let sum = b.op("Add", &[&variance, &epsilon], &[]);
        let root = b.op("Sqrt", &[&sum], &[]);
        let quotient = b.op("Div", &[&again, &root], &[]);
        let scale = b.stored(&[1, 3, 1, 1], &[1.0, 2.0, 3.0]);
        let scaled = b.op("Mul", &[&scale, &quotient], &[]);
        let shift = b.stored(&[3, 1, 1], &[0.5, 0.25, 0.0]);
        let shifted = b.op("Add", &[&scaled, &shift], &[]);
        steps_and_result(&mut b, &[1, 3, 2, 2], &shifted)
    }

    #[test]
    fn a_layer_norm_that_is_spelled_out_is_one_step() {
        for twice in [false, true] {
            let (steps, result) = spelled_out(twice, 1);
            assert_eq!(steps, ["layer norm"]);
            // the channels of a pixel are 4 apart: their deviations are -4, 0 and 4, of the root of 32/3
            let unit = 4.0 / (32.0f32 / 3.0 + 1e-6).sqrt();
            for (i, v) in result.iter().enumerate() {
                let expected = [0.5 - unit, 0.25, 3.0 * unit][i / 4];
                assert!((v - expected).abs() < 1e-5, "{i}: {v} {expected}");
            }
        }
    }
}
