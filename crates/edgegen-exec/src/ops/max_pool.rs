//! MaxPool.

use super::average_pool;
use super::conv::Window;
use super::zeros::image_size;
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::lower::{Lowered, Lowering};
use crate::node::pair;
use crate::place::{Access, Handle, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::ImageView;
use std::ops::Range;

pub static OPERATORS: &[Operator] = &[Operator::new("MaxPool")
    .attributes(&["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"])
    .infer(average_pool::infer)
    .lower(lower)];

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let window = Window::of_pool(node, l.dims(x)?.len())?;
    let (kernel, stride) = (pair(&window.kernel, 1)?, pair(&window.strides, 1)?);
    let before = pair(&window.before, 0)?;
    // a window of what is around the image alone has no greatest number
    let within = window.before.iter().chain(&window.after).zip(window.kernel.iter().cycle()).all(|(p, k)| p < k);
    if within { l.one(i, MaxPool { x, window: MaxWindow { kernel, stride, before } }) } else { None }
}

/// Rows and columns of a window, how far it moves, and how far it begins before the image.
#[derive(Clone, Copy, Debug)]
struct MaxWindow {
    kernel: [usize; 2],
    stride: [usize; 2],
    before: [usize; 2],
}

impl MaxWindow {
    /// The rows (`side` 0) or columns (1) of an image of `len` of them that window number `i` has.
    fn range(&self, side: usize, i: usize, len: usize) -> Range<usize> {
        let first = i * self.stride[side];
        let end = (first + self.kernel[side]).saturating_sub(self.before[side]).min(len);
        first.saturating_sub(self.before[side])..end
    }

    /// Whether each of `count` windows has a row or column of an image of `len`.
    fn fits(&self, side: usize, count: usize, len: usize) -> bool {
        let MaxWindow { kernel, stride, before } = self;
        let last = count.checked_sub(1).and_then(|last| last.checked_mul(stride[side]));
        // the first one reaches into the image, and the last one begins in it
        let begins = last.is_some_and(|last| last.saturating_sub(before[side]) < len);
        let counted = last.is_some_and(|last| last.checked_add(kernel[side]).is_some());
        begins && counted && kernel[side] > before[side]
    }
}

/// The greatest numbers of windows of pixels.
struct MaxPool<'a> {
    x: &'a str,
    window: MaxWindow,
}

impl<'a> Operation<'a> for MaxPool<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (input, output) = (c.view(self.x, [0, 0])?, c.image(out)?);
        let mut places = Places::default();
        let input = places.image(Access::Read, input);
        let to = places.image(Access::Write, output.view().ok_or("no image")?);
        c.push(MaxPoolStep { window: self.window, input, output: to }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct MaxPoolStep {
    window: MaxWindow,
    input: Handle<ImageView>,
    output: Handle<ImageView>,
}

impl Kernel for MaxPoolStep {
    fn name(&self, _: &Places) -> &'static str {
        "max pooling"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.input)), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let to = places.get(self.output);
        let [rows, columns] = self.window.kernel;
        Some(product(&[20, to.c, to.h, to.w, rows, columns]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output) = (places.get(self.input), places.get(self.output));
        let inside = self.window.fits(0, output.h, input.h) && self.window.fits(1, output.w, input.w);
        if input.c == output.c && inside { Ok(()) } else { Err("windows beyond their image".into()) }
    }

    fn run(&self, Call { part, places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let (input, output) = (places.get(self.input), places.get(self.output));
        for (y, columns) in part.lines(output.h, output.w) {
            let rows = self.window.range(0, y, input.h);
            for x in columns {
                let columns = self.window.range(1, x, input.w);
                for c in 0..output.c {
                    let mut greatest = f32::NEG_INFINITY;
                    for row in rows.clone() {
                        for column in columns.clone() {
                            let value = memory.get(input.start + row * input.row + column * input.pixel + c);
                            // one that is not a number stays
                            if value > greatest || value.is_nan() {
                                greatest = value;
                            }
                        }
                    }
                    memory.set(output.start + y * output.row + x * output.pixel + c, greatest);
                }
            }
        }
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
    fn what_is_not_covered_is_refused() {
        let forms = [
            Attribute::Int("ceil_mode", 1),
            Attribute::Ints("dilations", &[2, 2]),
            Attribute::Text("auto_pad", "SAME_UPPER"),
            Attribute::Ints("pads", &[3, 0, 3, 0]),
        ];
        for form in forms {
            let mut b = Builder::new(0);
            let pooled = b.op("MaxPool", &["x"], &[kernel(&[3, 3]), form]);
            assert!(b.plan(kernels::Isa::detect(), &[1, 2, 4, 5], 1, &pooled).is_err());
        }
    }
}
