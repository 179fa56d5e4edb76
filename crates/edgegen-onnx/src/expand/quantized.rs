//! Weights that are stored in a few bits, and products of what is rounded to 8 bits by the range that it turns out to have.

use super::normalization::from_the_start;
use super::writer::{int, stored};
use super::{Known, Writer, unknown};
use crate::Result;
use crate::pb::tensor_proto::DataType;
use crate::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use half::{bf16, f16};
use std::collections::{HashMap, HashSet};

/// The most numbers that stored weights may become.
const MOST: usize = 1 << 28;

/// MatMulNBits, GatherBlockQuantized, DynamicQuantizeMatMul, MatMulIntegerToFloat, MatMulInteger, ConvInteger, and
/// QuantizeLinear and DequantizeLinear of what 8 bits do not hold.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    match node.op_type.as_str() {
        "MatMulNBits" => matrix_of_few_bits(node, known).map(Some),
        "GatherBlockQuantized" => rows_of_few_bits(node, known).map(Some),
        "DynamicQuantizeMatMul" => {
            let mut w = Writer::new(node, known);
            let x = rounded(&mut w, node.given(0).unwrap_or_default());
            let weights = [1, 2, 3].map(|i| node.given(i));
            let result = product(&mut w, "MatMul", &x, weights, vec![], 1);
            let result = with_bias(&mut w, result, node.given(4));
            Ok(Some(w.finish_one(node, result)))
        }
        "MatMulIntegerToFloat" => {
            let mut w = Writer::new(node, known);
            let x = dequantized(&mut w, [0, 2, 4].map(|i| node.given(i)), None);
            let result = product(&mut w, "MatMul", &x, [1, 3, 5].map(|i| node.given(i)), vec![], 1);
            let result = with_bias(&mut w, result, node.given(6));
            Ok(Some(w.finish_one(node, result)))
        }
        "DequantizeLinear" => dequantize(node, known),
        "QuantizeLinear" if node.domain == "com.microsoft" => Ok(Some(vec![as_standard(node)])),
        "Mul" => Ok(scaled_product(node, known)),
        _ => Ok(None),
    }
}

/// A product of integers, of which one is a value rounded to 8 bits by its range and the other stored, once it is scaled: as
/// quantize_dynamic of onnxruntime writes a linear layer or a convolution.
fn scaled_product(node: &NodeProto, known: &dyn Known) -> Option<Vec<NodeProto>> {
    let maker = |name: &str, op: &str| known.maker(name).filter(|maker| maker.op_type == op);
    let [first, second] = [node.given(0)?, node.given(1)?];
    let pair = |a: &str, b: &str| maker(a, "Cast").zip(maker(b, "Mul"));
    let (cast, scales) = pair(first, second).or_else(|| pair(second, first))?;
    if cast.int("to") != Some(DataType::Float as i64) {
        return None;
    }
    let made = known.maker(cast.given(0)?)?;
    let op = match made.op_type.as_str() {
        "MatMulInteger" => "MatMul",
        "ConvInteger" => "Conv",
        _ => return None,
    };
    let levels = made.given(0)?;
    let rounding = maker(levels, "DynamicQuantizeLinear").filter(|r| r.result(2) == made.given(2))?;
    let scale = rounding.result(1)?;
    let of_weights = match (scales.given(0)?, scales.given(1)?) {
        (a, b) if a == scale => b,
        (a, b) if b == scale => a,
        _ => return None,
    };
    // a scale for each column of a matrix, or one
    let dims = known.dims(of_weights)?;
    let columns = known.dims(made.given(1)?)?.last().copied();
    let one = dims.iter().product::<usize>() == 1 && dims.len() <= 1;
    let of_columns = op == "MatMul" && dims.len() == 1 && dims.first().copied() == columns;
    known.stored(made.given(1)?)?;
    if !one && !of_columns {
        return None;
    }
    let mut w = Writer::new(node, known);
    // made once for all that read the levels
    let x = format!("{levels}/written out");
    if known.maker(&x).is_none() {
        w.named("DequantizeLinear", &[levels, scale, rounding.result(2)?], &x);
    }
    let weights = [made.given(1), Some(of_weights), made.given(3)];
    let result = product(&mut w, op, &x, weights, made.attribute.clone(), 1);
    Some(w.finish_one(node, result))
}

/// onnxruntime's QuantizeLinear and DequantizeLinear are ONNX's of a later opset.
fn as_standard(node: &NodeProto) -> NodeProto {
    NodeProto { domain: String::new(), ..node.clone() }
}

/// A value in 8 bits by its range, as numbers again.
fn rounded(w: &mut Writer, x: &str) -> String {
    let [levels, scale, zero] = w.several("DynamicQuantizeLinear", &[x]);
    dequantized(w, [Some(levels.as_str()), Some(scale.as_str()), Some(zero.as_str())], None)
}

fn dequantized(w: &mut Writer, parts: [Option<&str>; 3], axis: Option<i64>) -> String {
    let inputs: Vec<&str> = parts.into_iter().flatten().collect();
    w.with("DequantizeLinear", &inputs, axis.map(|axis| int("axis", axis)).into_iter().collect())
}

/// A product by stored weights in 8 bits, which have scales along a dimension.
fn product(
    w: &mut Writer,
    op: &str,
    x: &str,
    weights: [Option<&str>; 3],
    attributes: Vec<AttributeProto>,
    axis: i64,
) -> String {
    let weights = dequantized(w, weights, Some(axis));
    w.with(op, &[x, &weights], attributes)
}

fn with_bias(w: &mut Writer, x: String, bias: Option<&str>) -> String {
    match bias {
        Some(bias) => w.op("Add", &[&x, bias]),
        None => x,
    }
}

/// Whole numbers of so many bits that follow each other in bytes, the first in the lowest bits.
fn unpacked(bytes: &[u8], bits: usize, signed: bool) -> impl Iterator<Item = i32> + '_ {
    let mask = ((1u32 << bits) - 1) as u8;
    bytes.iter().flat_map(move |byte| {
        (0..8 / bits).map(move |i| {
            let value = i32::from((byte >> (i * bits)) & mask);
            if signed && value >> (bits - 1) != 0 { value - (1 << bits) } else { value }
        })
    })
}

/// The bytes of a stored tensor whose elements are bytes.
fn bytes_of(tensor: &TensorProto) -> Vec<u8> {
    match tensor.raw_data.as_ref() {
        [] => tensor.int32_data.iter().map(|v| *v as u8).collect(),
        raw => raw.to_vec(),
    }
}

/// The bytes that small elements are packed in; in int32_data they are spread as bytes, too.
fn whole_numbers(tensor: &TensorProto) -> Option<Vec<i32>> {
    let kind = DataType::try_from(tensor.data_type).ok()?;
    let count = tensor.dims.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))?;
    let raw = tensor.raw_data.as_ref();
    let ints = || tensor.int32_data.clone();
    let mut all: Vec<i32> = match kind {
        DataType::Uint2 => unpacked(&bytes_of(tensor), 2, false).collect(),
        DataType::Int2 => unpacked(&bytes_of(tensor), 2, true).collect(),
        DataType::Uint4 => unpacked(&bytes_of(tensor), 4, false).collect(),
        DataType::Int4 => unpacked(&bytes_of(tensor), 4, true).collect(),
        _ if raw.is_empty() => ints(),
        DataType::Uint8 => raw.iter().map(|b| i32::from(*b)).collect(),
        DataType::Int8 => raw.iter().map(|b| i32::from(*b as i8)).collect(),
        DataType::Uint16 => raw.as_chunks().0.iter().map(|b| i32::from(u16::from_le_bytes(*b))).collect(),
        DataType::Int16 => raw.as_chunks().0.iter().map(|b| i32::from(i16::from_le_bytes(*b))).collect(),
        DataType::Int32 => raw.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
        _ => return None,
    };
    // the last byte may have room left
    let room = all.len().checked_sub(count)?;
    if room >= 4 {
        return None;
    }
    all.truncate(count);
    Some(all)
}

/// The numbers of a stored tensor of floats of any size.
fn floats_of(tensor: &TensorProto) -> Option<Vec<f32>> {
    let raw = tensor.raw_data.as_ref();
    let halves = || -> Vec<u16> {
        match raw {
            [] => tensor.int32_data.iter().map(|v| *v as u16).collect(),
            raw => raw.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect(),
        }
    };
    Some(match DataType::try_from(tensor.data_type).ok()? {
        DataType::Float if raw.is_empty() => tensor.float_data.clone(),
        DataType::Float => raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        DataType::Float16 => halves().into_iter().map(|v| f16::from_bits(v).to_f32()).collect(),
        DataType::Bfloat16 => halves().into_iter().map(|v| bf16::from_bits(v).to_f32()).collect(),
        _ => return None,
    })
}

/// A stored input of a node.
fn stored_input<'k>(node: &NodeProto, known: &'k dyn Known, i: usize) -> Result<&'k TensorProto> {
    let name = node.given(i).ok_or_else(|| format!("its input {i} is missing"))?;
    known.stored(name).ok_or_else(|| format!("its input {i} is not stored"))
}

fn stored_floats(w: &mut Writer, dims: &[usize], values: &[f32]) -> String {
    let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    w.tensor(stored(dims, DataType::Float, raw))
}

/// A size that an attribute says.
fn size(node: &NodeProto, name: &str) -> Result<usize> {
    let size = node.int(name).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    size.ok_or_else(|| format!("its {name} is no size"))
}

/// A product by a matrix whose rows are stored in blocks of a few bits, each block with a scale and a zero point.
fn matrix_of_few_bits(node: &NodeProto, known: &dyn Known) -> Result<Vec<NodeProto>> {
    let (inputs, outputs, block) = (size(node, "K")?, size(node, "N")?, size(node, "block_size")?);
    let bits = node.int("bits").unwrap_or(4);
    if node.given(4).is_some() || node.int("weight_prepacked").unwrap_or(0) != 0 {
        return Err(unknown("an order of groups, or weights packed for one kind of CPU,"));
    }
    if ![2, 4, 8].contains(&bits) || block < 16 || !block.is_power_of_two() {
        return Err(unknown(&format!("{bits} bits in blocks of {block}")));
    }
    let bits = bits as usize;
    let count = inputs.checked_mul(outputs).filter(|n| *n <= MOST).ok_or("its matrix is too large")?;
    let blocks = inputs.div_ceil(block);
    let levels: Vec<i32> = unpacked(&bytes_of(stored_input(node, known, 1)?), bits, false).collect();
    let unfit = "its weights, scales and zero points do not fit each other";
    let scales = floats_of(stored_input(node, known, 2)?).ok_or(unfit)?;
    if levels.len() != outputs * blocks * block || scales.len() != outputs * blocks {
        return Err(unfit.into());
    }
    let zeros = match node.given(3) {
        None => vec![(1 << (bits - 1)) as f32; outputs * blocks],
        Some(_) => {
            let tensor = stored_input(node, known, 3)?;
            let zeros = match floats_of(tensor) {
                Some(floats) => floats,
                // each row's in whole bytes
                None => {
                    let row = (blocks * bits).div_ceil(8);
                    let rows = bytes_of(tensor);
                    rows.chunks(row).flat_map(|row| unpacked(row, bits, false).take(blocks)).map(|z| z as f32).collect()
                }
            };
            Some(zeros).filter(|zeros| zeros.len() == scales.len()).ok_or(unfit)?
        }
    };
    if zeros.iter().all(|zero| *zero == 8.0)
        && bits == 4
        && inputs % block == 0
        && let Some(Multiples { units, multiples }) = multiples_of_blocks(&[outputs, inputs], 1, block, &scales)
    {
        let mut weights = vec![0u8; count];
        for (at, level) in levels.iter().enumerate() {
            let (o, i) = (at / inputs, at % inputs);
            weights[i * outputs + o] = ((level - 8) as i8).wrapping_mul(multiples[at / block]) as u8;
        }
        let mut w = Writer::new(node, known);
        let matrix = w.tensor(stored(&[inputs, outputs], DataType::Int8, weights));
        let units = stored_floats(&mut w, &[outputs], &units);
        let matrix = dequantized(&mut w, [Some(&matrix), Some(&units), None], Some(1));
        let result = w.op("MatMul", &[node.given(0).unwrap_or_default(), &matrix]);
        let result = with_bias(&mut w, result, node.given(5));
        return Ok(w.finish_one(node, result));
    }
    // as MatMul takes it: a column for each output
    let mut weights = vec![0.0; count];
    for (o, (i, at)) in (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, (i, o * blocks * block + i)))) {
        let group = o * blocks + i / block;
        weights[i * outputs + o] = (levels[at] as f32 - zeros[group]) * scales[group];
    }
    let mut w = Writer::new(node, known);
    let matrix = stored_floats(&mut w, &[inputs, outputs], &weights);
    let result = w.op("MatMul", &[node.given(0).unwrap_or_default(), &matrix]);
    let result = with_bias(&mut w, result, node.given(5));
    Ok(w.finish_one(node, result))
}

/// Rows of a table that is stored in blocks of a few bits.
fn rows_of_few_bits(node: &NodeProto, known: &dyn Known) -> Result<Vec<NodeProto>> {
    let data = stored_input(node, known, 0)?;
    let mut dims: Vec<usize> = data.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    let bits = node.int("bits").unwrap_or(4);
    let axis = from_the_start(node.int("quantize_axis").unwrap_or(1), dims.len())?;
    let along = from_the_start(node.int("gather_axis").unwrap_or(0), dims.len())?;
    let (levels, default) = if data.data_type == DataType::Uint8 as i32 {
        if ![2, 4, 8].contains(&bits) || axis + 1 != dims.len() {
            return Err(unknown("bytes of that many numbers"));
        }
        dims[axis] = dims[axis].checked_mul(8 / bits as usize).ok_or("its table is too large")?;
        (unpacked(&bytes_of(data), bits as usize, false).collect(), (1 << (bits - 1)) as f32)
    } else {
        (whole_numbers(data).ok_or("its table is of an unknown type")?, 0.0)
    };
    let scales = stored_input(node, known, 2)?;
    let zeros = match node.given(3) {
        None => None,
        Some(_) => {
            let tensor = stored_input(node, known, 3)?;
            let blocks = scales.dims.last().and_then(|d| usize::try_from(*d).ok()).unwrap_or(0);
            Some(if tensor.data_type == DataType::Uint8 as i32 && bits < 8 {
                let row = (blocks * bits as usize).div_ceil(8).max(1);
                let rows = bytes_of(tensor);
                rows.chunks(row).flat_map(|row| unpacked(row, bits as usize, false).take(blocks)).collect()
            } else {
                whole_numbers(tensor).ok_or("its zero points are of an unknown type")?
            })
        }
    };
    let floats = floats_of(scales).ok_or("its scales are of an unknown type")?;
    let of_scales: Vec<usize> = scales.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    let block = size(node, "block_size").or_else(|e| node.attribute("block_size").map_or(Ok(128), |_| Err(e)))?;
    let zeros = zeros.map_or_else(|| vec![default; floats.len()], |z| z.into_iter().map(|z| z as f32).collect());
    let table = in_blocks(&levels, &dims, axis, block, (&floats, &of_scales), &zeros)?;
    let mut w = Writer::new(node, known);
    let table = stored_floats(&mut w, &dims, &table);
    let index = node.given(1).unwrap_or_default();
    let result = w.with("Gather", &[&table, index], vec![int("axis", along as i64)]);
    Ok(w.finish_one(node, result))
}

/// Numbers of which blocks along a dimension have a scale and a zero point.
fn in_blocks(
    levels: &[i32],
    dims: &[usize],
    axis: usize,
    block: usize,
    (scales, of_scales): (&[f32], &[usize]),
    zeros: &[f32],
) -> Result<Vec<f32>> {
    let all = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST && *n == levels.len());
    let mut expected = dims.to_vec();
    expected[axis] = dims[axis].div_ceil(block);
    let blocks = expected[axis];
    if all.is_none()
        || of_scales != expected
        || scales.len() != expected.iter().product()
        || zeros.len() != scales.len()
    {
        return Err("its numbers, scales and zero points do not fit each other".into());
    }
    let (length, inner): (usize, usize) = (dims[axis], dims[axis + 1..].iter().product());
    let number = |(at, level): (usize, &i32)| {
        let (outer, along, within) = (at / inner / length, at / inner % length, at % inner);
        let group = (outer * blocks + along / block) * inner + within;
        (*level as f32 - zeros[group]) * scales[group]
    };
    Ok(levels.iter().enumerate().map(number).collect())
}

/// Works out stored numbers of 4 bits that were left for a plan, which has them in 8.
pub fn work_out_blocks(graph: &mut GraphProto) -> Result<()> {
    let of_4_bits = |t: &&TensorProto| t.data_type == DataType::Int4 as i32;
    let stored: HashMap<String, TensorProto> =
        graph.initializer.iter().filter(of_4_bits).map(|t| (t.name.clone(), t.clone())).collect();
    let (mut made, mut nodes) = (Vec::new(), Vec::new());
    for node in std::mem::take(&mut graph.node) {
        let tensor = node.given(0).filter(|_| node.op_type == "DequantizeLinear").and_then(|name| stored.get(name));
        let scales = node.given(1).and_then(|name| graph.initializer.iter().find(|t| t.name == name));
        let (Some(tensor), Some(scales), Some(name)) = (tensor, scales, node.result(0)) else {
            nodes.push(node);
            continue;
        };
        let sizes = |t: &TensorProto| t.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect::<Vec<_>>();
        let (levels, floats) =
            whole_numbers(tensor).zip(floats_of(scales)).ok_or("its numbers are of an unknown type")?;
        let axis = from_the_start(node.int("axis").unwrap_or(1), tensor.dims.len())?;
        let (block, zeros) = (size(&node, "block_size")?, vec![0.0; floats.len()]);
        let values = in_blocks(&levels, &sizes(tensor), axis, block, (&floats, &sizes(scales)), &zeros)?;
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        made.push(TensorProto { name: name.into(), ..super::writer::stored(&sizes(tensor), DataType::Float, raw) });
    }
    graph.node = nodes;
    let read: HashSet<&String> = graph.node.iter().flat_map(|n| &n.input).collect();
    graph.initializer.retain(|t| !stored.contains_key(&t.name) || read.contains(&t.name));
    graph.initializer.extend(made);
    Ok(())
}

/// Scales of blocks as whole multiples of one number for each output.
pub struct Multiples {
    /// That number of each output.
    pub units: Vec<f32>,
    /// The multiples, in the order of the scales.
    pub multiples: Vec<i8>,
}

/// The largest multiple: eight times it, the largest number of 4 bits, is within 8 bits.
const LARGEST_MULTIPLE: i8 = 15;

/// What the scales of blocks along the second dimension are multiples of, so that numbers of 4 bits are numbers of 8 with a
/// scale for each output, the first dimension: nothing if they are no such multiples.
pub fn multiples_of_blocks(dims: &[usize], axis: usize, block: usize, scales: &[f32]) -> Option<Multiples> {
    let &[outputs, length, ref taps @ ..] = dims else { return None };
    let of_output = length.div_ceil(Some(block).filter(|b| *b > 0)?).checked_mul(taps.iter().product())?;
    if axis != 1 || of_output == 0 || outputs.checked_mul(of_output) != Some(scales.len()) {
        return None;
    }
    let (mut units, mut multiples) = (Vec::with_capacity(outputs), Vec::with_capacity(scales.len()));
    for row in scales.chunks(of_output) {
        let least = row.iter().copied().fold(f32::INFINITY, f32::min);
        if !(least > 0.0 && least.is_finite()) {
            return None;
        }
        let multiple = |scale: &f32, unit: f32| {
            let n = (scale / unit).round();
            ((1.0..=f32::from(LARGEST_MULTIPLE)).contains(&n) && n * unit == *scale).then_some(n as i8)
        };
        let all = |unit: f32| row.iter().map(|scale| multiple(scale, unit)).collect::<Option<Vec<i8>>>();
        let (unit, found) =
            (1..=LARGEST_MULTIPLE).map(|n| least / f32::from(n)).find_map(|unit| Some((unit, all(unit)?)))?;
        units.push(unit);
        multiples.extend(found);
    }
    Some(Multiples { units, multiples })
}

/// DequantizeLinear of stored numbers of other than 8 bits, or in blocks, worked out; onnxruntime's as ONNX's.
fn dequantize(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let standard = || (node.domain == "com.microsoft").then(|| vec![as_standard(node)]);
    let block = node.int("block_size").unwrap_or(0);
    let Some(tensor) = node.given(0).and_then(|name| known.stored(name)) else { return Ok(standard()) };
    let kind = DataType::try_from(tensor.data_type).unwrap_or_default();
    if matches!(kind, DataType::Uint8 | DataType::Int8 | DataType::Int32) && block == 0 {
        return Ok(standard());
    }
    let dims: Vec<usize> = tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    let scales = stored_input(node, known, 1)?;
    let floats = floats_of(scales).ok_or("its scales are of an unknown type")?;
    // numbers of 8 bits with a scale for each output: who reads them works them out
    if kind == DataType::Int4
        && node.given(2).is_none()
        && block > 0
        && dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(2 * tensor.raw_data.len())
        && multiples_of_blocks(
            &dims,
            usize::try_from(node.int("axis").unwrap_or(1)).unwrap_or(0),
            block as usize,
            &floats,
        )
        .is_some()
    {
        return Ok(standard());
    }
    let levels = whole_numbers(tensor).ok_or("its numbers are of an unknown type")?;
    let zeros: Vec<f32> = match node.given(2) {
        None => vec![0.0; floats.len()],
        Some(_) => {
            let zeros = whole_numbers(stored_input(node, known, 2)?).ok_or("its zero points are of an unknown type")?;
            zeros.into_iter().map(|z| z as f32).collect()
        }
    };
    let of_scales: Vec<usize> = scales.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    let values = if floats.len() == 1 && block == 0 && zeros.len() == 1 {
        levels.iter().map(|level| (*level as f32 - zeros[0]) * floats[0]).collect()
    } else {
        let axis = from_the_start(node.int("axis").unwrap_or(1), dims.len())?;
        let block = usize::try_from(block).map_err(|_| "its blocks are no size")?;
        if block == 0 {
            // a scale for each index of the dimension: blocks of one, the same for all others
            let (length, inner): (usize, usize) = (dims[axis], dims[axis + 1..].iter().product());
            if floats.len() != length || zeros.len() != length {
                return Err("its numbers, scales and zero points do not fit each other".into());
            }
            let number = |(at, level): (usize, &i32)| {
                let along = at / inner % length;
                (*level as f32 - zeros[along]) * floats[along]
            };
            levels.iter().enumerate().map(number).collect()
        } else {
            in_blocks(&levels, &dims, axis, block, (&floats, &of_scales), &zeros)?
        }
    };
    let mut w = Writer::new(node, known);
    let result = stored_floats(&mut w, &dims, &values);
    Ok(Some(w.finish_one(node, result)))
}
