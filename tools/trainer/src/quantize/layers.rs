//! The layers of a network that can be quantized: convolutions and products by stored matrices.

use super::source::{called, floats};
use onnx::pb::{GraphProto, NodeProto, TensorProto};
use std::collections::HashMap;

/// What a layer does to its input.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A convolution of images or of rows, over all channels at once.
    Conv(Window),
    /// A product of rows by a matrix, which is stored with a column for each output if `by_column`.
    Linear { by_column: bool },
    /// Anything else with weights that are stored: a transposed convolution, or one of groups. Only its weights are rounded.
    Other,
}

/// The window of a convolution, along two dimensions; that of a row has a height of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its size.
    pub kernel: [usize; 2],
    /// The distance between results.
    pub stride: [usize; 2],
    /// The distance between what is read.
    pub dilation: [usize; 2],
    /// The zeros before the input.
    pub before: [usize; 2],
}

/// A layer with stored weights.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its node's number.
    pub node: usize,
    /// What its node is called.
    pub name: String,
    /// The value that it reads.
    pub input: String,
    /// The shape of that value.
    pub input_shape: Vec<usize>,
    /// The stored tensor that its weights are.
    pub weights: String,
    /// The dimension of the weights that outputs lie along.
    pub axis: usize,
    /// What it does.
    pub kind: Kind,
    /// The numbers that each output is a sum over.
    pub inputs: usize,
    /// Its outputs: channels of a convolution, columns of a matrix.
    pub outputs: usize,
    /// How many weights after `axis` follow each other.
    pub taps: usize,
    /// How many results each output has in a call: pixels, or rows.
    pub rows: usize,
    /// Of a convolution, how many of them are in a row.
    pub width: usize,
}

impl Layer {
    /// The multiplications of a call.
    pub fn multiply_adds(&self) -> usize {
        self.inputs.saturating_mul(self.outputs).saturating_mul(self.rows)
    }

    /// Whether a runtime can compute it in 8 bits at a gain: one row by a matrix takes the time that reading the matrix takes.
    pub fn is_integer(&self) -> bool {
        self.kind != Kind::Other && (self.rows > 1 || matches!(self.kind, Kind::Conv(_)))
    }

    /// The channels of its input.
    pub fn channels(&self) -> usize {
        match &self.kind {
            Kind::Conv(window) => self.inputs / (window.kernel[0] * window.kernel[1]),
            _ => self.inputs,
        }
    }

    /// The weights of each output, one after the other.
    pub fn matrix(&self, values: &[f32]) -> Vec<f32> {
        if self.axis == 0 {
            return values.to_vec();
        }
        // [in, out, taps…]
        let of_output = |o: usize| values.chunks(self.taps).skip(o).step_by(self.outputs).flatten().copied();
        (0..self.outputs).flat_map(of_output).collect()
    }

    /// The reverse: weights of each output in the order in which they are stored.
    pub fn stored<T: Copy>(&self, matrix: &[T]) -> Vec<T> {
        if self.axis == 0 {
            return matrix.to_vec();
        }
        let each = self.inputs / self.taps;
        let of_input = |i: usize| matrix.chunks(self.taps).skip(i).step_by(each).flatten().copied();
        (0..each).flat_map(of_input).collect()
    }
}

/// A layer that stays as it is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// What its node is called.
    pub name: String,
    /// Why it stays.
    pub reason: String,
}

/// The layers of a graph whose values are of these shapes, and those that stay as they are.
pub fn layers(graph: &GraphProto, shapes: &HashMap<String, Vec<usize>>) -> (Vec<Layer>, Vec<Skipped>) {
    let stored: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut readers: HashMap<&str, usize> = HashMap::new();
    graph.node.iter().flat_map(onnx::order::reads).for_each(|name| *readers.entry(name).or_default() += 1);
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    for (i, node) in graph.node.iter().enumerate() {
        if !matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul") || !node.domain.is_empty() {
            continue;
        }
        let Some(weights) = node.input.get(1).and_then(|name| stored.get(name.as_str())) else { continue };
        match layer(node, weights, shapes) {
            Ok(layer) if readers.get(layer.weights.as_str()) == Some(&1) => found.push(Layer { node: i, ..layer }),
            Ok(layer) => skipped.push(Skipped { name: layer.name, reason: "several nodes read its weights".into() }),
            Err(reason) => skipped.push(Skipped { name: called(node).into(), reason }),
        }
    }
    (found, skipped)
}

fn layer(node: &NodeProto, weights: &TensorProto, shapes: &HashMap<String, Vec<usize>>) -> Result<Layer, String> {
    let unknown = |name: &str| format!("the shape of {name} is not known");
    let (input, output) = (&node.input[0], node.output.first().ok_or("it makes nothing")?);
    let dims: Vec<usize> = weights.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    if floats(weights).is_none() {
        return Err("its weights are not float32".into());
    }
    if dims.len() < 2 || dims.contains(&0) {
        return Err(format!("its weights are of shape {dims:?}"));
    }
    let from = shapes.get(input).ok_or_else(|| unknown(input))?;
    let to = shapes.get(output).ok_or_else(|| unknown(output))?;
    let int = |name: &str| node.attribute.iter().find(|a| a.name == name).map(|a| a.i);
    let of = |kind, axis: usize, rows| Layer {
        node: 0,
        name: called(node).into(),
        input: input.clone(),
        input_shape: from.clone(),
        weights: weights.name.clone(),
        axis,
        kind,
        inputs: dims.iter().product::<usize>() / dims[axis],
        outputs: dims[axis],
        taps: dims[axis + 1..].iter().product(),
        rows,
        width: to.last().copied().unwrap_or(1).max(1),
    };
    let pixels = to.iter().skip(2).product();
    match node.op_type.as_str() {
        "Conv" if int("group").unwrap_or(1) == 1 => {
            let window = window(node, &dims[2..], &from[2..], &to[2..]);
            Ok(of(window.map_or(Kind::Other, Kind::Conv), 0, pixels))
        }
        "Conv" => Ok(of(Kind::Other, 0, pixels)),
        "ConvTranspose" if int("group").unwrap_or(1) == 1 => Ok(of(Kind::Other, 1, pixels)),
        "ConvTranspose" => Err("it is a transposed convolution of groups".into()),
        _ if dims.len() != 2 => Err("it is a product by more than a matrix".into()),
        "Gemm" if int("transA").unwrap_or(0) != 0 => Err("it turns its input".into()),
        "Gemm" if node.attribute.iter().any(|a| matches!(a.name.as_str(), "alpha" | "beta") && a.f != 1.0) => {
            Err("it scales its product".into())
        }
        op => {
            let by_column = op == "MatMul" || int("transB").unwrap_or(0) == 0;
            let axis = usize::from(by_column);
            let rows = from.iter().product::<usize>() / dims[1 - axis].max(1);
            Ok(of(Kind::Linear { by_column }, axis, rows))
        }
    }
}

/// The window of a convolution of one or two dimensions at a batch of one.
fn window(node: &NodeProto, kernel: &[usize], from: &[usize], to: &[usize]) -> Option<Window> {
    let ints = |name: &str| -> Option<Vec<usize>> {
        let given = node.attribute.iter().find(|a| a.name == name)?;
        given.ints.iter().map(|v| usize::try_from(*v).ok()).collect()
    };
    let pair = |values: &[usize], missing: usize| match *values {
        [w] => Some([missing, w]),
        [h, w] => Some([h, w]),
        _ => None,
    };
    let n = kernel.len();
    let all = |name: &str| ints(name).unwrap_or_else(|| vec![1; n]);
    let (stride, dilation) = (all("strides"), all("dilations"));
    let auto = node.attribute.iter().find(|a| a.name == "auto_pad").map_or(&b""[..], |a| &a.s);
    let before: Vec<usize> = match auto {
        b"" | b"NOTSET" => ints("pads").map_or_else(|| vec![0; n], |pads| pads.into_iter().take(n).collect()),
        b"VALID" => vec![0; n],
        _ => (0..n)
            .map(|i| {
                let needed =
                    (to[i].saturating_sub(1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1).saturating_sub(from[i]);
                if auto == b"SAME_LOWER" { needed.div_ceil(2) } else { needed / 2 }
            })
            .collect(),
    };
    Some(Window {
        kernel: pair(kernel, 1)?,
        stride: pair(&stride, 1)?,
        dilation: pair(&dilation, 1)?,
        before: pair(&before, 0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::graph::{Attribute, node, tensor_f32};

    fn layer_of(
        op: &str,
        dims: &[usize],
        from: &[usize],
        to: &[usize],
        attributes: &[(&str, Attribute)],
    ) -> Result<Layer, String> {
        let values = vec![0.5; dims.iter().product()];
        let shapes = HashMap::from([("x".to_string(), from.to_vec()), ("y".to_string(), to.to_vec())]);
        layer(&node(op, &["x", "w"], "y", attributes), &tensor_f32("w", dims, &values), &shapes)
    }

    #[test]
    fn weights_of_each_output_are_found_and_put_back() {
        let by_column = layer_of("MatMul", &[4, 3], &[1, 5, 4], &[1, 5, 3], &[]).unwrap();
        assert_eq!((by_column.inputs, by_column.outputs, by_column.rows), (4, 3, 5));
        let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let matrix = by_column.matrix(&values);
        assert_eq!(matrix[..4], [0.0, 3.0, 6.0, 9.0]);
        assert_eq!(by_column.stored(&matrix), values);
        let transposed = layer_of("ConvTranspose", &[2, 3, 2], &[1, 2, 5], &[1, 3, 10], &[]).unwrap();
        let matrix = transposed.matrix(&values);
        assert_eq!(matrix[..4], [0.0, 1.0, 6.0, 7.0]);
        assert_eq!(transposed.stored(&matrix), values);
    }

    #[test]
    fn padding_that_is_named_is_worked_out() {
        let same = |name| [("auto_pad", Attribute::Text(name)), ("strides", Attribute::Ints(&[2]))];
        let before = |name| match layer_of("Conv", &[3, 2, 4], &[1, 2, 8], &[1, 3, 4], &same(name)).unwrap().kind {
            Kind::Conv(window) => window.before,
            other => panic!("{other:?}"),
        };
        // 4 results by steps of 2 with a kernel of 4 reach over 10 numbers: 2 more than there are
        assert_eq!([before("SAME_UPPER"), before("SAME_LOWER"), before("VALID")], [[0, 1], [0, 1], [0, 0]]);
    }

    #[test]
    fn what_is_not_plain_stays_and_says_why() {
        let scaled = layer_of("Gemm", &[4, 3], &[2, 4], &[2, 3], &[("alpha", Attribute::Float(2.0))]);
        assert_eq!(scaled.unwrap_err(), "it scales its product");
        let of_groups = layer_of("Conv", &[4, 2, 3], &[1, 4, 8], &[1, 4, 6], &[("group", Attribute::Int(2))]).unwrap();
        assert!(!of_groups.is_integer());
    }
}
