//! QuantizeLinear and DequantizeLinear: stored weights, and values that are rounded to 8 bits.

use super::image_map::{ImageFunction, ImageMap, Output};
use super::{Fusion, Operation, Operator, same_shape};
use crate::compile::{Compiler, Layout8, Readers};
use crate::constant::{Blocks, Constant, Levels, Stored8};
use crate::lower::{Lowered, Lowering};
use crate::node::int;
use crate::place::{Access, Places};
use crate::reason::Reason;
use kernels::arena::ImageView;
use kernels::conv8::QuantParams;
use onnx::expand::multiples_of_blocks;
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[
    Operator::new("QuantizeLinear").attributes(&["axis", "saturate"]).any_type().infer(same_shape).fold(quantize).lower(rounding),
    Operator::new("DequantizeLinear").attributes(&["axis", "block_size"]).any_type().infer(same_shape).fold(dequantize),
];

fn quantize(_: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let of = |i: usize| input.get(i).copied().flatten();
    let (Some(x), Some(scale), zero) = (of(0), of(1), of(2)) else { return Ok(None) };
    let (kind, bounds) = match zero.map(|z| z.kind) {
        Some(DataType::Int8) => (DataType::Int8, (-128.0, 127.0)),
        None | Some(DataType::Uint8) => (DataType::Uint8, (0.0, 255.0)),
        _ => return Ok(None),
    };
    let zero = zero.map_or(&[0.0][..], |z| &z.values);
    let ([scale], [zero]) = (scale.values.as_slice(), zero) else { return Ok(None) };
    let level = |v: f32| ((v / scale).round_ties_even() + zero).clamp(bounds.0, bounds.1);
    Ok(Some(vec![Constant { kind, ..x.map(level) }]))
}

fn dequantize(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let unknown = || Reason::from("DequantizeLinear of an unknown form");
    let of = |i: usize| input.get(i).copied().flatten();
    let (stored, scale) = (of(0).ok_or_else(unknown)?, of(1).ok_or_else(unknown)?);
    let axis = int(node, "axis").unwrap_or(1);
    let axis = if axis < 0 { axis.saturating_add(stored.dims.len() as i64) } else { axis };
    if let Some(bytes) = stored.values.of_4_bits() {
        let size = |n: i64| usize::try_from(n).map_err(|_| unknown());
        let (axis, block) = (size(axis)?, size(int(node, "block_size").unwrap_or(0))?);
        let found = multiples_of_blocks(&stored.dims, axis, block, &scale.values).ok_or_else(unknown)?;
        let length = stored.dims[1];
        let taps = stored.dims[2..].iter().product();
        let blocks = Blocks { bytes: bytes.clone(), multiples: found.multiples, length, block, taps };
        let levels = Stored8 { levels: Levels::Blocks(blocks), zeros: Vec::new(), scales: found.units, axis: 0 };
        return Ok(Some(vec![Constant::of_levels(stored.dims.clone(), levels, length * taps)]));
    }
    if int(node, "block_size").is_some_and(|block| block != 0) {
        return Err(unknown());
    }
    let groups = scale.values.len();
    let axis = usize::try_from(axis).ok().filter(|a| groups == 1 || *a < stored.dims.len()).ok_or_else(unknown)?;
    if groups == 0 || (groups != 1 && stored.dims[axis] != groups) {
        return Err(unknown());
    }
    let each: usize = stored.dims.iter().skip(axis.saturating_add(1)).product();
    let zeros: Vec<f32> = of(2).map_or_else(|| vec![0.0], |z| z.values.to_vec());
    if zeros.len() != 1 && zeros.len() != groups {
        return Err(unknown());
    }
    if matches!(stored.kind, DataType::Int8 | DataType::Uint8) {
        // levels from 0 to 255 as those from -128 to 127 that lie 128 lower
        let lower = if stored.kind == DataType::Uint8 { 128.0 } else { 0.0 };
        let found = match stored.kind {
            DataType::Int8 => stored.values.levels(),
            _ => Levels::Here(stored.values.iter().map(|v| (*v - lower) as i8).collect()),
        };
        let zeros: Vec<f32> = zeros.iter().map(|zero| zero - lower).collect();
        let zeros = if zeros.iter().all(|zero| *zero == 0.0) { Vec::new() } else { zeros };
        let levels = Stored8 { levels: found, zeros, scales: scale.values.to_vec(), axis };
        let each = if groups == 1 { stored.len() } else { each };
        return Ok(Some(vec![Constant::of_levels(stored.dims.clone(), levels, each)]));
    }
    let mut values = stored.values.to_vec();
    let run = if groups == 1 { values.len() } else { each };
    for (i, run) in values.chunks_mut(run.max(1)).enumerate() {
        let (scale, zero) = (scale.values[i % groups], zeros[i % zeros.len()]);
        run.iter_mut().for_each(|v| *v = (*v - zero) * scale);
    }
    Ok(Some(vec![Constant::of(stored.dims.clone(), values, DataType::Float)]))
}

/// QuantizeLinear, DequantizeLinear.
fn rounding<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let quantize = l.node(i);
    let back = l.then(quantize, "DequantizeLinear");
    let (j, back) = back.filter(|(_, n)| n.input.get(1..) == quantize.input.get(1..))?;
    let (scale, zero) = (l.constant(quantize, 1)?, l.constant(quantize, 2)?);
    let ([scale], [zero], kind) = (scale.values.as_slice(), zero.values.as_slice(), zero.kind) else { return None };
    let zero = match kind {
        DataType::Uint8 => *zero as u8,
        // the same values, with every level 128 higher
        DataType::Int8 => (*zero + 128.0) as u8,
        _ => return None,
    };
    if !(scale.is_finite() && *scale > 0.0) {
        return None;
    }
    let params = QuantParams::new(*scale, zero)?;
    l.fused(Rounding { x: l.value(quantize, 0)?, params }, &back.output, vec![i, j])
}

/// A value rounded to 8 bits: kept in 8 bits for those who read it so, and in f32 for others.
struct Rounding<'a> {
    x: &'a str,
    params: QuantParams,
}

impl<'a> Operation<'a> for Rounding<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn fusion(&self) -> Fusion<'_, 'a> {
        Fusion::Round(self.params)
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let Readers { image_8bit, rows_8bit, float } = c.readers(out);
        let is_image = c.value(self.x)?.view().is_some();
        if image_8bit || (float && is_image && !rows_8bit) {
            let inputs = c.images(self.x, [0, 0])?;
            if image_8bit {
                self.quantize(c, &inputs, out, Layout8::Image)?;
            }
            if float {
                let (place, outputs) = c.results(out)?;
                inputs.iter().zip(outputs).for_each(|(input, to)| self.round(c, *input, to));
                c.put(out, place);
            }
        }
        let float = float && c.made(out).is_none();
        if rows_8bit || float {
            let input = c.value(self.x)?;
            let input = c.as_rows(&input)?;
            if rows_8bit {
                self.quantize(c, &[input], out, Layout8::Rows)?;
            }
            if float {
                let place = c.row_major(c.dims(out)?)?;
                self.round(c, input, place.rows().ok_or("no rows")?);
                c.put(out, place);
            }
        }
        Ok(())
    }
}

impl<'a> Rounding<'a> {
    fn quantize(
        &self,
        c: &mut Compiler<'_, 'a>,
        inputs: &[ImageView],
        out: &'a str,
        layout: Layout8,
    ) -> Result<(), Reason> {
        for (input, to) in inputs.iter().zip(c.place_8bit(out, self.params, layout)?) {
            let mut places = Places::default();
            let output = Output::Quantized(places.quantized(to), self.params);
            let input = places.image(Access::Read, *input);
            c.push(ImageMap { function: ImageFunction::Copy, input, output }, places);
        }
        Ok(())
    }

    fn round(&self, c: &mut Compiler<'_, 'a>, input: ImageView, to: ImageView) {
        let mut places = Places::default();
        let output = Output::Float(places.image(Access::Write, to));
        let input = places.image(Access::Read, input);
        c.push(ImageMap { function: ImageFunction::Round(self.params), input, output }, places);
    }
}
