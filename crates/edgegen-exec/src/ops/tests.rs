//! Fragments of graphs, and the steps that they become. (What the steps compute is tested beside each operator, and against
//! onnxruntime in `tests/random_graphs.rs` and `tests/exports.rs`.)

use crate::testing::{Attribute, Builder, kernel, noise, random_plan, steps_and_result};
use crate::{At, Numbers};
use kernels::Isa;
use kernels::arena::Precision;
use onnx::pb::tensor_proto::DataType;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

/// A fragment by its name, the sample's shape, what makes it, and the steps that it should become.
type Row = (&'static str, &'static [usize], fn(&mut Builder) -> String, &'static [&'static str]);

const IMAGE: &[usize] = &[1, 4, 6, 6];
const ROWS: &[usize] = &[1, 5, 8];

fn silu(b: &mut Builder, x: &str) -> String {
    let sigmoid = b.op("Sigmoid", &[x], &[]);
    b.op("Mul", &[x, &sigmoid], &[])
}

fn conv(b: &mut Builder, x: &str, stride: i64) -> String {
    let (weights, bias) = (b.weights(&[4, 4, 1, 1]), b.weights(&[4]));
    b.op("Conv", &[x, &weights, &bias], &[Attribute::Ints("strides", &[stride; 2])])
}

fn gelu(b: &mut Builder, x: &str) -> String {
    let (root, one, half) = (b.stored(&[], &[2f32.sqrt()]), b.stored(&[], &[1.0]), b.stored(&[], &[0.5]));
    let scaled = b.op("Div", &[x, &root], &[]);
    let erf = b.op("Erf", &[&scaled], &[]);
    let sum = b.op("Add", &[&erf, &one], &[]);
    let product = b.op("Mul", &[x, &sum], &[]);
    b.op("Mul", &[&product, &half], &[])
}

/// Group norm as exporters write it before opset 18.
fn group_norm(b: &mut Builder, x: &str) -> String {
    let (cut, back) = (b.list(&[1, 2, -1]), b.list(&[1, 4, 6, 6]));
    let (one, zero) = (b.stored(&[2], &[1.0; 2]), b.stored(&[2], &[0.0; 2]));
    let (scale, shift) = (b.weights(&[4, 1, 1]), b.weights(&[4, 1, 1]));
    let groups = b.op("Reshape", &[x, &cut], &[]);
    let unit = b.op("InstanceNormalization", &[&groups, &one, &zero], &[]);
    let whole = b.op("Reshape", &[&unit, &back], &[]);
    let scaled = b.op("Mul", &[&whole, &scale], &[]);
    b.op("Add", &[&scaled, &shift], &[])
}

fn attention(b: &mut Builder, x: &str, mask: Option<&[f32]>) -> String {
    let keys = b.op("Transpose", &[x], &[Attribute::Ints("perm", &[0, 2, 1])]);
    let mut scores = b.op("MatMul", &[x, &keys], &[]);
    if let Some(mask) = mask {
        let mask = b.stored(&[5, 5], mask);
        scores = b.op("Add", &[&scores, &mask], &[]);
    }
    let weights = b.op("Softmax", &[&scores], &[Attribute::Int("axis", -1)]);
    b.op("MatMul", &[&weights, x], &[])
}

const TABLE: &[Row] = &[
    ("what changes nothing is no step", IMAGE, |b| b.op("Identity", &["x"], &[]), &[]),
    (
        "a reshape is no step",
        IMAGE,
        |b| {
            let (flat, back) = (b.list(&[1, -1]), b.list(&[1, 4, 6, 6]));
            let flat = b.op("Reshape", &["x", &flat], &[]);
            b.op("Reshape", &[&flat, &back], &[])
        },
        &["copy"],
    ),
    (
        "two transposes are no step",
        ROWS,
        |b| {
            let turned = b.op("Transpose", &["x"], &[Attribute::Ints("perm", &[0, 2, 1])]);
            b.op("Transpose", &[&turned], &[Attribute::Ints("perm", &[0, 2, 1])])
        },
        &[],
    ),
    ("x · sigmoid(x) is SiLU", IMAGE, |b| silu(b, "x"), &["SiLU"]),
    ("the form of GELU with erf", ROWS, |b| gelu(b, "x"), &["function"]),
    ("a convolution with its bias", IMAGE, |b| conv(b, "x", 1), &["convolution"]),
    (
        "a convolution of 3 by 3 pixels",
        IMAGE,
        |b| {
            let weights = b.weights(&[4, 4, 3, 3]);
            b.op("Conv", &["x", &weights], &[Attribute::Ints("pads", &[1; 4])])
        },
        &["convolution"],
    ),
    (
        "a residual is added by the convolution",
        IMAGE,
        |b| {
            let made = conv(b, "x", 1);
            b.op("Add", &[&made, "x"], &[])
        },
        &["convolution + residual"],
    ),
    (
        "group norm as exporters write it, with the SiLU after it",
        IMAGE,
        |b| {
            let norm = group_norm(b, "x");
            silu(b, &norm)
        },
        &["group norm + SiLU"],
    ),
    (
        "a linear layer of several rows, with its bias",
        ROWS,
        |b| {
            let (weights, bias) = (b.weights(&[8, 8]), b.weights(&[8]));
            let product = b.op("MatMul", &["x", &weights], &[]);
            b.op("Add", &[&product, &bias], &[])
        },
        &["convolution"],
    ),
    (
        "a linear layer of one row",
        &[1, 8],
        |b| {
            let (weights, bias) = (b.weights(&[8, 8]), b.weights(&[8]));
            b.op("Gemm", &["x", &weights, &bias], &[Attribute::Int("transB", 1)])
        },
        &["matrix × vector"],
    ),
    ("attention", ROWS, |b| attention(b, "x", None), &["attention"]),
    ("attention with a stored mask", ROWS, |b| attention(b, "x", Some(&[0.5; 25])), &["masked attention"]),
    (
        "parts are made in the place of their concatenation",
        IMAGE,
        |b| {
            let (a, c) = (conv(b, "x", 1), conv(b, "x", 1));
            let both = b.op("Concat", &[&a, &c], &[Attribute::Int("axis", 1)]);
            let weights = b.weights(&[4, 8, 1, 1]);
            b.op("Conv", &[&both, &weights], &[])
        },
        &["convolution", "convolution", "convolution"],
    ),
    (
        "a mean over pixels",
        IMAGE,
        |b| {
            let axes = b.list(&[2, 3]);
            let mean = b.op("ReduceMean", &["x", &axes], &[]);
            b.op("Sub", &["x", &mean], &[])
        },
        &["reduction", "sum or product"],
    ),
    (
        "pooled and enlarged again",
        IMAGE,
        |b| {
            let pooled = b.op("AveragePool", &["x"], &[kernel(&[2, 2]), Attribute::Ints("strides", &[2, 2])]);
            let (empty, scales) = (String::new(), b.stored(&[4], &[1.0, 1.0, 2.0, 2.0]));
            let floor = [
                Attribute::Text("coordinate_transformation_mode", "asymmetric"),
                Attribute::Text("nearest_mode", "floor"),
            ];
            b.op("Resize", &[&pooled, &empty, &scales], &floor)
        },
        &["average pooling", "upsample"],
    ),
    (
        "batch norm becomes part of the convolution before it",
        IMAGE,
        |b| {
            let made = conv(b, "x", 1);
            let [scale, shift, mean] = [0; 3].map(|_| b.weights(&[4]));
            let variance = b.stored(&[4], &[1.0, 2.0, 3.0, 4.0]);
            b.op("BatchNormalization", &[&made, &scale, &shift, &mean, &variance], &[])
        },
        &["convolution"],
    ),
    (
        "each channel by itself, and the channels in two groups",
        IMAGE,
        |b| {
            let weights = b.weights(&[4, 1, 3, 3]);
            let pads = Attribute::Ints("pads", &[1; 4]);
            let x = b.op("Conv", &["x", &weights], &[Attribute::Int("group", 4), pads]);
            let weights = b.weights(&[4, 2, 1, 1]);
            b.op("Conv", &[&x, &weights], &[Attribute::Int("group", 2)])
        },
        &["depthwise convolution", "convolution"],
    ),
    (
        "a transposed convolution is one convolution for each rest by the stride",
        IMAGE,
        |b| {
            let weights = b.weights(&[4, 4, 2, 2]);
            let twice = b.op("ConvTranspose", &["x", &weights], &[Attribute::Ints("strides", &[2, 2])]);
            b.op("MaxPool", &[&twice], &[kernel(&[2, 2]), Attribute::Ints("strides", &[2, 2])])
        },
        &["convolution", "convolution", "convolution", "convolution", "max pooling"],
    ),
    (
        "softmax over channels of an image",
        IMAGE,
        |b| b.op("Softmax", &["x"], &[Attribute::Int("axis", 1)]),
        &["softmax"],
    ),
    (
        "a choice by what is computed",
        IMAGE,
        |b| {
            let half = b.stored(&[], &[0.5]);
            let large = b.op("Greater", &["x", &half], &[]);
            b.op("Where", &[&large, "x", &half], &[])
        },
        &["function of two", "choice"],
    ),
];

#[test]
#[cfg_attr(miri, ignore = "takes long there, and the verifier's test runs the same steps")]
fn fragments_become_the_steps_that_are_meant() {
    for (name, dims, make, expected) in TABLE {
        let mut b = Builder::new(1);
        let result = make(&mut b);
        let (steps, numbers) = steps_and_result(&mut b, dims, &result);
        assert_eq!(steps, *expected, "{name}");
        assert!(numbers.iter().all(|v| v.is_finite()), "{name}");
    }
}

/// A fragment that must be refused, and a word of the reason.
type Refused = (&'static str, fn(&mut Builder) -> String, &'static str);

const REFUSED: &[Refused] = &[
    ("an operator that there is not", |b| b.op("Bernoulli", &["x"], &[]), "no kernel"),
    (
        "a kernel of other sides than its weights",
        |b| {
            let weights = b.weights(&[4, 4, 3, 3]);
            b.op("Conv", &["x", &weights], &[kernel(&[1, 1])])
        },
        "unknown form",
    ),
    (
        "pads that no image has",
        |b| {
            let weights = b.weights(&[4, 4, 1, 1]);
            b.op("Conv", &["x", &weights], &[Attribute::Ints("pads", &[1 << 62; 4])])
        },
        "too large",
    ),
    (
        "a linear layer whose C is not of its columns",
        |b| {
            let flat = b.op("Flatten", &["x"], &[]);
            let (weights, c) = (b.weights(&[144, 4]), b.weights(&[5]));
            b.op("Gemm", &[&flat, &weights, &c], &[])
        },
        "its C of shape [5]",
    ),
    ("an order that is none", |b| b.op("Transpose", &["x"], &[Attribute::Ints("perm", &[0, 2, 2, 1])]), "permutation"),
    (
        "a dimension that is not 1 taken out",
        |b| {
            let axes = b.list(&[1]);
            b.op("Squeeze", &["x", &axes], &[])
        },
        "not 1",
    ),
    (
        "sums over dimensions of several sizes",
        |b| {
            let weights = b.weights(&[1, 4, 6, 5]);
            b.op("Einsum", &["x", &weights], &[Attribute::Text("equation", "bchw,bchw->bchw")])
        },
        "several sizes",
    ),
    (
        "more numbers than a value may have",
        |b| {
            let shape = b.list(&[1 << 20, 1 << 20]);
            b.op("Expand", &["x", &shape], &[])
        },
        "",
    ),
];

#[test]
fn what_contradicts_itself_is_refused() {
    for (name, make, words) in REFUSED {
        let mut b = Builder::new(1);
        let result = make(&mut b);
        let reason = b.plan(Isa::detect(), IMAGE, 1, &result).err().unwrap_or_else(|| panic!("{name} passed"));
        assert!(reason.to_string().contains(words), "{name}: {reason}");
    }
}

/// Two convolutions in 8 bits, one after the other, of each of several values, whose weights they share.
fn convolutions_8bit(b: &mut Builder, values: &[String]) -> Vec<String> {
    use onnx::pb::tensor_proto::DataType;
    let mut values = values.to_vec();
    for _ in 0..2 {
        let raw: Vec<u8> = (0..4 * 4 * 9).map(|_| b.below(256) as u8).collect();
        let stored = b.tensor(&[4, 4, 3, 3], DataType::Int8, raw);
        let (scales, zeros) = (b.stored(&[4], &[0.01; 4]), b.tensor(&[4], DataType::Int8, vec![0; 4]));
        let weights = b.op("DequantizeLinear", &[&stored, &scales, &zeros], &[Attribute::Int("axis", 0)]);
        let (scale, zero) = (b.stored(&[], &[0.03]), b.tensor(&[], DataType::Uint8, vec![120]));
        for value in &mut values {
            let levels = b.op("QuantizeLinear", &[value, &scale, &zero], &[]);
            let rounded = b.op("DequantizeLinear", &[&levels, &scale, &zero], &[]);
            *value = b.op("Conv", &[&rounded, &weights], &[Attribute::Ints("pads", &[1; 4])]);
        }
    }
    values
}

#[test]
fn several_images_are_convolved_in_8_bits_as_each_by_itself() {
    let dims = [1, 8, 6, 6];
    let halves = |b: &mut Builder| {
        [[0, 4], [4, 8]].map(|[from, to]| {
            let (from, to, axis) = (b.list(&[from]), b.list(&[to]), b.list(&[1]));
            b.op("Slice", &["x", &from, &to, &axis], &[])
        })
    };
    let mut b = Builder::new(7);
    let [first, second] = halves(&mut b);
    let batch = b.op("Concat", &[&first, &second], &[Attribute::Int("axis", 0)]);
    let made = convolutions_8bit(&mut b, &[batch]);
    let flat = b.list(&[1, 8, 6, 6]);
    let result = b.op("Reshape", &[&made[0], &flat], &[]);
    let (steps, together) = steps_and_result(&mut b, &dims, &result);
    assert_eq!(steps.iter().filter(|step| **step == "8-bit convolution").count(), 4, "{steps:?}");
    assert!(!steps.contains(&"convolution"), "{steps:?}");

    let mut b = Builder::new(7);
    let values = halves(&mut b);
    let made = convolutions_8bit(&mut b, &values);
    let result = b.op("Concat", &[&made[0], &made[1]], &[Attribute::Int("axis", 1)]);
    let (_, apart) = steps_and_result(&mut b, &dims, &result);
    assert!(together.iter().any(|v| *v != 0.0));
    assert_eq!(together, apart);
}

#[test]
fn weights_of_4_bits_in_blocks_are_those_of_8_that_they_come_to() {
    let (dims, [outputs, inputs, taps]) = ([1, 64, 20], [70, 64, 3]);
    let run = |in_blocks: bool| {
        let mut b = Builder::new(11);
        let levels: Vec<i8> = (0..outputs * inputs * taps).map(|_| b.below(16) as i8 - 8).collect();
        let multiples: Vec<f32> = (0..outputs * inputs / 32 * taps).map(|_| (b.below(15) + 1) as f32).collect();
        // numbers of few digits, whose multiples are exact
        let scales: Vec<f32> =
            multiples.iter().enumerate().map(|(i, m)| m * (64 + i / (inputs / 32 * taps)) as f32 / 4096.0).collect();
        let weights = if in_blocks {
            let raw = levels.chunks(2).map(|pair| (pair[0] & 15) as u8 | (pair[1] as u8) << 4).collect();
            let stored = b.tensor(&[outputs, inputs, taps], DataType::Int4, raw);
            let scales = b.stored(&[outputs, inputs / 32, taps], &scales);
            b.op(
                "DequantizeLinear",
                &[&stored, &scales],
                &[Attribute::Int("axis", 1), Attribute::Int("block_size", 32)],
            )
        } else {
            let scale = |i: usize| scales[(i / taps / 32) * taps + i % taps];
            let numbers: Vec<f32> = levels.iter().enumerate().map(|(i, level)| f32::from(*level) * scale(i)).collect();
            b.stored(&[outputs, inputs, taps], &numbers)
        };
        let made = b.op("Conv", &["x", &weights], &[Attribute::Ints("pads", &[1; 2])]);
        // to as many channels as the sample has
        let back: Vec<f32> = (0..inputs * outputs).map(|i| (i % 7) as f32 - 3.0).collect();
        let back = b.stored(&[inputs, outputs, 1], &back);
        let made = b.op("Conv", &[&made, &back], &[]);
        steps_and_result(&mut b, &dims, &made).1
    };
    let (blocks, numbers) = (run(true), run(false));
    let most = numbers.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(most > 1.0);
    assert!(blocks.iter().zip(&numbers).all(|(a, b)| (a - b).abs() < 1e-5 * most));
}

/// What a random network makes in such numbers on a kind of CPU, and whether some of it was in 16 bits.
fn result_in(precision: Precision, isa: Isa, seed: u64) -> (Vec<f32>, bool) {
    let (dims, plan) = random_plan(precision, isa, seed);
    let len = dims.iter().product();
    let (mut w, mut out, x) = (plan.workspace(), vec![0.0; len], noise(&mut Pcg64Mcg::seed_from_u64(seed), len));
    plan.bind(&mut w, 0, std::iter::once(&[0.5, -0.5, 1.0, 0.25, 0.0][..]));
    plan.run(&mut w, At { x: &x, t: 3.0, ..At::default() }, &mut out);
    (out, plan.kernels().any(|kernel| kernel == "rounding to 16 bits"))
}

#[test]
fn networks_in_16_bits_are_those_in_32_but_for_rounding() {
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let mut in_halves = 0;
    for seed in 0..if cfg!(miri) { 3 } else { 200 } {
        let (exact, rounded) = result_in(Precision::F32, Isa::detect(), seed);
        assert!(!rounded);
        for isa in [Isa::detect(), Isa::detect().emulating_halves()] {
            let (out, rounded) = result_in(Precision::F16, isa, seed);
            in_halves += usize::from(rounded);
            let error = norm(&mut out.iter().zip(&exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
            // some ten operations, each of which rounds by at most 2⁻¹¹ a few times over
            assert!(error < 1e-2 && (rounded || error < 1e-6), "{isa:?}, seed {seed}: {error}");
        }
    }
    assert!(in_halves > 100 || cfg!(miri), "{in_halves} of 400 were in 16 bits");
}

#[test]
fn what_16_bits_do_not_hold_is_found_and_kept_in_32() {
    let mut b = Builder::new(1);
    let (large, small) = (b.stored(&[4, 4, 1, 1], &[9000.0; 16]), b.stored(&[4, 4, 1, 1], &[1e-5; 16]));
    let up = b.op("Conv", &["x", &large], &[]);
    let up = silu(&mut b, &up);
    let down = b.op("Conv", &[&up, &small], &[]);
    let down = silu(&mut b, &down);
    let result = conv(&mut b, &down, 1);
    let x: Vec<f32> = (0..144).map(|i| (i % 7) as f32 - 2.0).collect();
    let at = At { x: &x, ..At::default() };
    let mut numbers = Numbers::default();
    let mut made = Vec::new();
    // the convolution with its SiLU, and what reads that
    for (precision, large) in [(Precision::F32, 0), (Precision::F16, 2), (Precision::F16, 0)] {
        numbers.precision = precision;
        let plan = b.plan_in(&numbers, Isa::detect(), IMAGE, 1, &result).unwrap();
        let (mut w, mut out) = (plan.workspace(), vec![0.0; 144]);
        plan.bind(&mut w, 0, std::iter::once(&[0.5][..]));
        let mut found = plan.overflows(&mut w, at);
        plan.run(&mut w, at, &mut out);
        assert_eq!(out.iter().all(|v| v.is_finite()), large == 0, "{numbers:?}");
        made.push(out);
        // once one is kept, what reads it in 16 bits is found
        while !found.is_empty() {
            assert!(numbers.in_f32.len() < large, "{found:?} beside {numbers:?}");
            numbers.in_f32.append(&mut found);
            let plan = b.plan_in(&numbers, Isa::detect(), IMAGE, 1, &result).unwrap();
            assert_eq!(plan.in_f32(), numbers.in_f32);
            let mut w = plan.workspace();
            plan.bind(&mut w, 0, std::iter::once(&[0.5][..]));
            found = plan.overflows(&mut w, at);
        }
        assert_eq!(numbers.in_f32.len(), if made.len() == 1 { 0 } else { 2 });
    }
    let scale = made[0].iter().fold(0f32, |most, v| most.max(v.abs()));
    assert!(made[0].iter().zip(&made[2]).all(|(a, b)| (a - b).abs() < 5e-3 * scale));
}
