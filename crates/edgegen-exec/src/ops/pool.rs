//! MaxPool, AveragePool and their global forms.

use super::window;
use super::zeros::image_size;
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::{int, pair};
use crate::place::{Handle, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::ImageView;
use kernels::pool::{Pooling, Side};
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    // the order of the places of greatest numbers matters where they are asked for alone
    Operator::new("MaxPool")
        .attributes(&["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"])
        .infer(infer)
        .lower(|l, i| lower(l, i, Pooling::Max)),
    Operator::new("AveragePool")
        .attributes(&["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"])
        .infer(infer)
        .lower(|l, i| {
            let padding = int(l.node(i), "count_include_pad").unwrap_or(0) != 0;
            lower(l, i, if padding { Pooling::AverageWithPadding } else { Pooling::Average })
        }),
    Operator::new("GlobalMaxPool").infer(infer_global).lower(|l, i| lower_global(l, i, Pooling::Max)),
    Operator::new("GlobalAveragePool").infer(infer_global).lower(|l, i| lower_global(l, i, Pooling::Average)),
];

fn sides(node: &NodeProto, image: &[usize]) -> Option<Vec<Side>> {
    window::sides(node, None, image)
}

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    let image = x.get(2..).filter(|_| n.node.output.len() == 1).ok_or_else(unknown_form)?;
    let sides = sides(n.node, image).ok_or_else(unknown_form)?;
    let ceil = int(n.node, "ceil_mode").unwrap_or(0) != 0;
    let results = sides.iter().zip(image).map(|(side, n)| side.results(*n, ceil));
    Ok(vec![x[..2].iter().copied().map(Some).chain(results).collect::<Option<_>>().ok_or_else(unknown_form)?])
}

fn infer_global(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    if x.len() < 3 {
        return Err(unknown_form());
    }
    Ok(vec![x.iter().enumerate().map(|(i, d)| if i < 2 { *d } else { 1 }).collect()])
}

fn lower<'a>(l: &Lowering<'a>, i: usize, f: Pooling) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let sides = window::rows_and_columns(&sides(node, l.dims(x)?.get(2..)?)?)?;
    // a window of what is around the image alone has no greatest number and no mean
    let within = sides.iter().all(|s| s.extent().is_some_and(|extent| s.before < extent && s.after < extent));
    if within { l.one(i, Pool { x, f, sides }) } else { None }
}

fn lower_global<'a>(l: &Lowering<'a>, i: usize, f: Pooling) -> Option<Lowered<'a>> {
    let x = l.value(l.node(i), 0)?;
    let sides = pair(l.dims(x)?.get(2..)?, 1)?;
    let side = |n: usize| Side { kernel: n, stride: 1, dilation: 1, before: 0, after: 0 };
    l.one(i, Pool { x, f, sides: sides.map(side) })
}

/// The greatest numbers, or the means, of windows of pixels.
struct Pool<'a> {
    x: &'a str,
    f: Pooling,
    sides: [Side; 2],
}

impl<'a> Operation<'a> for Pool<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        c.image_by_image(self.x, out, |input, output| PoolStep { f: self.f, sides: self.sides, input, output })
    }
}

#[derive(Debug)]
struct PoolStep {
    f: Pooling,
    sides: [Side; 2],
    input: Handle<ImageView>,
    output: Handle<ImageView>,
}

impl Kernel for PoolStep {
    fn name(&self, _: &Places) -> &'static str {
        if self.f == Pooling::Max { "max pooling" } else { "average pooling" }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let [rows, columns] = self.sides;
        (format!("{}, {}×{}", image_size(&places.get(self.input)), rows.kernel, columns.kernel), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let to = places.get(self.output);
        let [rows, columns] = self.sides;
        Some(product(&[4, to.c, to.h, to.w, rows.kernel, columns.kernel]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output) = (places.get(self.input), places.get(self.output));
        let [rows, columns] = self.sides;
        let inside = rows.fits(output.h, input.h) && columns.fits(output.w, input.w);
        if input.c == output.c && inside { Ok(()) } else { Err("windows beyond their image".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        kernels::pool(isa, self.sides, self.f, places.get(self.input), places.get(self.output), part, memory);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Attribute, Builder, kernel, steps_and_result};

    #[test]
    fn the_greatest_numbers_of_windows_are_found() {
        let mut b = Builder::new(0);
        let pooled = b.op("MaxPool", &["x"], &[kernel(&[3, 3]), Attribute::Ints("pads", &[1; 4])]);
        let (steps, result) = steps_and_result(&mut b, &[1, 2, 4, 5], &pooled);
        assert_eq!(steps, ["max pooling"]);
        // the numbers grow to the right and down: the greatest is the last that there is
        let greatest = |c: usize, y: usize, x: usize| (c * 20 + (y + 1).min(3) * 5 + (x + 1).min(4)) as f32;
        let expected: Vec<f32> = (0..40).map(|i| greatest(i / 20, i / 5 % 4, i % 5)).collect();
        assert_eq!(result, expected);
    }

    #[test]
    fn negative_numbers_are_greater_than_what_is_around_them() {
        let mut b = Builder::new(0);
        let less = b.stored(&[], &[100.0]);
        let less = b.op("Sub", &["x", &less], &[]);
        let pooled = b.op("MaxPool", &[&less], &[kernel(&[3]), Attribute::Ints("pads", &[1, 1])]);
        let (_, result) = steps_and_result(&mut b, &[1, 1, 4], &pooled);
        assert_eq!(result, [-99.0, -98.0, -97.0, -97.0]);
    }

    #[test]
    fn means_count_what_they_should() {
        // 0 1 2 3 4 with a zero before, windows of 3 by steps of 2: the last one ends beyond
        let of = |extra: &[Attribute], missing: i64| {
            let mut b = Builder::new(0);
            let mut attributes = vec![kernel(&[3]), Attribute::Ints("strides", &[2]), Attribute::Ints("pads", &[1, 0])];
            attributes.extend_from_slice(extra);
            let pooled = b.op("AveragePool", &["x"], &attributes);
            // filled up to the sample's length
            let fill = b.list(&[0, 0, 0, 0, 0, missing]);
            let filled = b.op("Pad", &[&pooled, &fill], &[]);
            steps_and_result(&mut b, &[1, 1, 5], &filled).1
        };
        assert_eq!(of(&[], 3), [0.5, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(of(&[Attribute::Int("count_include_pad", 1)], 3), [1.0 / 3.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(of(&[Attribute::Int("ceil_mode", 1)], 2), [0.5, 2.0, 3.5, 0.0, 0.0]);
    }

    #[test]
    fn an_image_is_pooled_whole() {
        let mut b = Builder::new(0);
        let pooled = b.op("GlobalAveragePool", &["x"], &[]);
        let wide = b.op("Add", &["x", &pooled], &[]);
        let (steps, result) = steps_and_result(&mut b, &[1, 1, 2, 2], &wide);
        assert_eq!((steps[0], result), ("average pooling", vec![1.5, 2.5, 3.5, 4.5]));
    }

    #[test]
    fn windows_of_nothing_are_refused() {
        for form in [Attribute::Ints("pads", &[3, 0, 3, 0]), Attribute::Ints("strides", &[0, 1])] {
            let mut b = Builder::new(0);
            let pooled = b.op("MaxPool", &["x"], &[kernel(&[3, 3]), form]);
            assert!(b.plan(kernels::Isa::detect(), &[1, 2, 4, 5], 1, &pooled).is_err());
        }
    }
}
