//! A linear layer in 8 bits of what was rounded by its range: its levels are known when it is there.

use super::conv::{copy_bias, take_packed};
use super::image_map::same_size;
use crate::compile::Compiler;
use crate::constant::Constant;
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, ScratchLen, product};
use kernels::arena::ImageView;
use kernels::conv::{Method, Shape};
use kernels::conv8::{self, Packed8, QuantParams};

/// Pushes the product of rows of levels by a matrix, with the sums that alone read its result.
///
/// # Errors
/// When the weights do not fit.
pub fn product_by_range<'a>(
    c: &mut Compiler<'_, 'a>,
    out: &'a str,
    shape: Shape,
    weights: (&[i8], &[f32], &[f32]),
    bias: Option<&Constant>,
    (input, levels): (ImageView, Slice),
) -> Result<(), Reason> {
    let sums = c.fuse_sums(out, c.dims(out)?.len() - 1)?;
    let residual = sums.residual.map(|r| c.as_rows(&r)).transpose()?;
    let output = c.row_major(c.dims(sums.out)?)?;
    take_packed(c, &shape, Method::Direct, (c.isa.lanes_of_bytes(), conv8::CHANNELS), 1)?;
    let packed = Packed8::by_range(shape, weights, bias.map(|b| b.values.as_slice()), c.isa)?;
    let mut places = Places::default();
    let step = ProductByRange {
        packed,
        levels: places.slice(Access::Read, levels),
        bias: sums.bias.map(|slice| places.slice(Access::Read, slice)),
        input: places.quantized_bordered(input),
        output: places.image(Access::Write, output.rows().ok_or("no rows")?),
        residual: residual.map(|view| places.image(Access::Read, view)),
    };
    c.push(step, places);
    c.put(sums.out, output);
    Ok(())
}

#[derive(Debug)]
struct ProductByRange {
    packed: Packed8,
    /// The distance and the zero point of the input's levels, and the sum of each row's, less the zero point.
    levels: Handle<Slice>,
    /// What is added to each channel.
    bias: Option<Handle<Slice>>,
    input: Handle<ImageView>,
    output: Handle<ImageView>,
    residual: Option<Handle<ImageView>>,
}

impl Kernel for ProductByRange {
    fn name(&self, _: &Places) -> &'static str {
        match self.residual {
            None => "8-bit product by range",
            Some(_) => "8-bit product by range + residual",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let (rows, shape) = (places.get(self.input).w, self.packed.shape());
        (format!("{rows} × {} → {}", shape.c_in, shape.c_out), product(&[rows, shape.c_in, shape.c_out]) as u64)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let shape = self.packed.shape();
        Some(product(&[places.get(self.input).w, shape.c_in, shape.c_out]) / 4)
    }

    fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    fn scratch(&self, places: &Places) -> ScratchLen {
        ScratchLen { work: 0, copied: self.bias.map_or(0, |bias| places.get(bias).len) }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (shape, input, output) = (self.packed.shape(), places.get(self.input), places.get(self.output));
        let right = (shape.kernel, shape.padding) == ([1, 1], [0, 0])
            && (input.c, output.c) == (shape.c_in, shape.c_out)
            && (input.h, input.w) == (output.h, output.w)
            && input.pixel.is_multiple_of(conv8::CHANNELS)
            && input.start.is_multiple_of(conv8::CHANNELS)
            && shape.c_in.checked_next_multiple_of(conv8::CHANNELS).is_some_and(|c| c <= input.pixel)
            && self.bias.is_none_or(|bias| places.get(bias).len == shape.c_out)
            && self.residual.is_none_or(|residual| same_size(&places.get(residual), &output))
            && input.h == 1
            && output.w.checked_add(2) == Some(places.get(self.levels).len);
        if right { Ok(()) } else { Err("an 8-bit product that does not fit its input or its output".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, scratch: &mut Scratch) {
        let (levels, output) = (places.get(self.levels), places.get(self.output));
        let [scale, zero] = [0, 1].map(|i| memory.get(levels.start + i));
        let sums = Some(levels.start + 2).filter(|_| self.packed.needs_sums());
        let Some(levels) = QuantParams::new(scale, zero as u8) else {
            // what has no range is no number, and neither is its product
            for at in output.pixels().skip(part.range(output.w).start).take(part.range(output.w).len()) {
                (at..at + output.c).for_each(|at| memory.set(at, f32::NAN));
            }
            return;
        };
        let extra = copy_bias(self.bias, places, memory, &mut scratch.copied);
        let run = conv8::Run8 {
            packed: &self.packed,
            round: None,
            extra,
            input: places.get(self.input),
            output: Some(output),
            output8: None,
            residual: self.residual.map(|view| places.get(view)),
        };
        kernels::convolve8_by_range(isa, &run, conv8::ByRange { levels, sums }, part, memory);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Attribute, Builder, steps_and_result};
    use onnx::pb::tensor_proto::DataType;

    const ROWS: usize = 5;
    const FROM: usize = 11;
    const TO: usize = 11;

    /// The level of each number of 0, 1, 2, …, with their distance and their zero point, as DynamicQuantizeLinear says.
    fn levels(x: &[f32]) -> (Vec<i32>, f32, i32) {
        let (least, greatest) = x.iter().fold((0f32, 0f32), |(a, b), v| (a.min(*v), b.max(*v)));
        let scale = (greatest - least) / 255.0;
        let zero = (-least / scale).round_ties_even().clamp(0.0, 255.0);
        (
            x.iter().map(|v| ((v / scale).round_ties_even() + zero).clamp(0.0, 255.0) as i32).collect(),
            scale,
            zero as i32,
        )
    }

    /// A product by weights of this type around these numbers, against the sums that it stands for.
    fn compare(kind: DataType, zeros: &[i32]) {
        let mut b = Builder::new(7);
        let bytes: Vec<u8> = (0..FROM * TO).map(|i| (i * 37 % 251) as u8).collect();
        let weight = |i: usize| if kind == DataType::Int8 { i32::from(bytes[i] as i8) } else { i32::from(bytes[i]) };
        let scales: Vec<f32> = (0..zeros.len()).map(|i| 0.01 + i as f32 / 1000.0).collect();
        let dims = if zeros.len() == 1 { vec![] } else { vec![TO] };
        let stored = b.tensor(&[FROM, TO], kind, bytes.clone());
        let (scale, zero) = (b.stored(&dims, &scales), b.tensor(&dims, kind, zeros.iter().map(|z| *z as u8).collect()));
        // (a shift by which no number lies in the middle of two levels)
        let shift = b.stored(&[], &[20.3]);
        let shifted = b.op("Sub", &["x", &shift], &[]);
        let quantized = b.op("DynamicQuantizeLinear", &[&shifted], &[]);
        let parts = [quantized.clone(), "scale".into(), "zero".into()];
        b.graph.node.last_mut().unwrap().output = parts.to_vec();
        let x = b.op("DequantizeLinear", &parts.each_ref().map(String::as_str), &[]);
        let weights = b.op("DequantizeLinear", &[&stored, &scale, &zero], &[Attribute::Int("axis", 1)]);
        let product = b.op("MatMul", &[&x, &weights], &[]);
        let (steps, result) = steps_and_result(&mut b, &[1, ROWS, FROM], &product);
        assert!(steps.contains(&"8-bit product by range"), "{steps:?}");
        // the sample is 0, 1, 2, …
        let x: Vec<f32> = (0..ROWS * FROM).map(|i| i as f32 - 20.3).collect();
        let (levels, distance, middle) = levels(&x);
        let expected = |i: usize| {
            let (row, column) = (i / TO, i % TO);
            let around = zeros[column % zeros.len()];
            let term = |k: usize| (levels[row * FROM + k] - middle) * (weight(k * TO + column) - around);
            (0..FROM).map(term).sum::<i32>() as f32 * distance * scales[column % scales.len()]
        };
        let expected: Vec<f32> = (0..ROWS * TO).map(expected).collect();
        let greatest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
        for (value, expected) in result.iter().zip(&expected) {
            assert!((value - expected).abs() < 2e-6 * greatest, "{kind:?} {zeros:?}: {value} is not {expected}");
        }
    }

    #[test]
    fn products_are_those_of_the_integers() {
        compare(DataType::Int8, &[0]);
        compare(DataType::Int8, &[-5]);
        compare(DataType::Uint8, &[128]);
        compare(DataType::Uint8, &[117]);
        compare(DataType::Uint8, &(0..TO as i32).map(|i| 100 + i * 9).collect::<Vec<_>>());
    }
}
