//! Kernels of pictures in 16 bits.
//!
//! What is computed in 32 bits and rounded at the end must be exactly that. Sums in 16 bits are held to bounds that follow from
//! how they are made: of n rounded terms, an error of more than λ √n u Σ|term| has a probability below 2 exp(-λ²/2) (Higham and
//! Mary, A new approach to probabilistic rounding error analysis, 2019), where u = 2⁻¹¹.

use super::*;
use crate::arena::Layout;
use half::f16;
use half::slice::HalfFloatSliceExt;
use weights::Stored;

const U: f64 = 1.0 / 2048.0;
/// Once in 10⁷ sums.
const LAMBDA: f64 = 6.0;

/// Every kind of CPU, with what it has for 16-bit sums, without that, and the best with software for it.
fn kinds() -> Vec<Isa> {
    let all = Isa::available();
    let widening = all.iter().filter(|isa| isa.computes_in_halves()).map(|isa| isa.without_halves());
    all.iter().copied().chain(widening).chain([Isa::detect().emulating_halves()]).collect()
}

fn halves(of: &[f32]) -> Vec<f16> {
    of.iter().map(|v| f16::from_f32(*v)).collect()
}

fn floats(of: &[f16]) -> Vec<f32> {
    of.iter().map(|v| v.to_f32()).collect()
}

/// What the absolute values of all that is added up come to, for each output of [`reference`].
fn magnitudes(
    shape: conv::Shape,
    weights: &[f32],
    bias: &[f32],
    input: ImageView,
    output: ImageView,
    arena: &[f32],
) -> Vec<f64> {
    let positive = |all: &[f32]| all.iter().map(|v| v.abs()).collect::<Vec<_>>();
    reference(shape, &positive(weights), &positive(bias), input, output, &positive(arena))
}

/// What is larger in an output by Winograd's method than by its definition: the product of the sums of the absolute values of
/// its matrices' rows, for the worst row of each.
fn growth(square: Square) -> f64 {
    // Bᵀ, G and Aᵀ of winograd/float.rs
    let (a, b) = (0.625f64, 1.5f64);
    let rows: [Vec<Vec<f64>>; 3] = match square {
        Square::Two => [
            vec![vec![1.0, 0.0, -1.0, 0.0], vec![0.0, 1.0, 1.0, 0.0]],
            vec![vec![1.0], vec![0.5, 0.5, 0.5]],
            vec![vec![1.0, 1.0, 1.0]],
        ],
        Square::Four => {
            let g = |p: f64, q: f64| {
                let by = 2.0 * p * p * (p * p - q * q);
                vec![1.0 / by, p / by, p * p / by]
            };
            [
                vec![
                    vec![a * a * b * b, -(a * a + b * b), 1.0],
                    vec![a * b * b, b * b, a, 1.0],
                    vec![b * a * a, a * a, b, 1.0],
                ],
                vec![vec![1.0 / (a * a * b * b)], g(a, b), g(b, a), vec![1.0]],
                vec![
                    vec![1.0; 5],
                    vec![a, a, b, b],
                    vec![a * a, a * a, b * b, b * b],
                    vec![a.powi(3), a.powi(3), b.powi(3), b.powi(3), 1.0],
                ],
            ]
        }
    };
    let worst =
        |rows: &Vec<Vec<f64>>| rows.iter().map(|row| row.iter().map(|v| v.abs()).sum::<f64>()).fold(0.0, f64::max);
    rows.iter().map(|rows| worst(rows).powi(2)).product()
}

/// Roundings of a number on its way by Winograd's method, beside those of the sum over channels: four or fewer for each line of
/// each transform, the weight's, and those of the start and of the residual.
const ROUNDINGS: f64 = 4.0 * 4.0 + 3.0;

#[test]
fn convolutions_are_as_near_as_their_roundings_allow() {
    let cases = [
        (3, 5, [3, 3], 1, [1, 1], 4, 5),
        (48, 48, [3, 3], 1, [1, 1], 14, 14),
        (16, 96, [3, 3], 1, [1, 1], 7, 7),
        (5, 50, [3, 3], 2, [1, 1], 14, 14),
        (20, 17, [1, 1], 1, [0, 0], 9, 23),
        (16, 112, [3, 3], 1, [1, 1], 8, 3),
        (24, 40, [1, 5], 1, [0, 2], 1, 16),
        (24, 9, [1, 3], 2, [0, 1], 1, 17),
    ];
    for (c_in, c_out, kernel, stride, padding, h, w) in cases {
        let products = c_in * kernel[0] * kernel[1];
        if !is_run(10 * c_out * products * h * w) {
            continue;
        }
        let mut noise = Noise::new(41, c_out as u64);
        let shape = conv::Shape { stride: [stride; 2], ..conv::Shape::plain(c_out, c_in, kernel, padding) };
        let mut layout = Layout::of(Precision::F16);
        let input = layout.place([c_in + 3, h, w], padding).unwrap().channels(2, c_in).unwrap();
        let side = |n: usize, i: usize| (n + 2 * padding[i] - kernel[i]) / stride + 1;
        let (oh, ow) = (side(h, 0), side(w, 1));
        let output = layout.place([c_out + 2, oh, ow], [1, 1]).unwrap().channels(1, c_out).unwrap();
        let residual = layout.place([c_out, oh, ow], [0, 0]).unwrap();
        let mut numbers = vec![0.0; layout.len()];
        input.pixels().for_each(|at| noise.fill(&mut numbers[at..at + c_in]));
        residual.pixels().for_each(|at| noise.fill(&mut numbers[at..at + c_out]));
        let before = halves(&numbers);
        let numbers = floats(&before);
        let (mut weights, mut bias) = (vec![0.0; c_out * products], vec![0.0; c_out]);
        noise.fill(&mut weights);
        noise.fill(&mut bias);
        let exact = reference(shape, &weights, &bias, input, output, &numbers);
        let sums = magnitudes(shape, &weights, &bias, input, output, &numbers);
        let most = sums.iter().copied().fold(0.0, f64::max);
        let winograd = winograd::suits(&shape, oh, ow, 0).next().is_some();
        let squares = if winograd { &[Square::Two, Square::Four][..] } else { &[] };
        let methods = squares.iter().map(|s| conv::Method::Winograd(*s)).chain([conv::Method::Direct]);
        for method in methods {
            let mut first: Option<Vec<f16>> = None;
            for isa in kinds() {
                let stored = Stored::Float(&weights);
                let packed = conv::Packed::of(Precision::F16, shape, method, stored, Some(&bias), isa).unwrap();
                let mut memory = before.clone();
                let mut work = vec![f32::NAN; packed.work_len(oh, ow).unwrap()];
                let run = conv::Run { packed: &packed, extra: None, input, output, residual: Some(residual) };
                in_parts(|part| {
                    convolve(isa, &run, part, &mut work, Memory::with_halves(&mut [], &mut memory, &mut []));
                });
                let mut written = vec![false; memory.len()];
                for (i, at) in output.pixels().enumerate() {
                    for c in 0..c_out {
                        let add = f64::from(numbers[residual.at(i) + c]);
                        let error = (memory[at + c].to_f64() - exact[i * c_out + c] - add).abs();
                        // the windows of Winograd's method reach over other outputs, too
                        let (terms, size) = match method {
                            conv::Method::Direct => (products as f64, sums[i * c_out + c]),
                            conv::Method::Winograd(square) => (c_in as f64, growth(square) * most),
                        };
                        let bound = U * (LAMBDA * (terms + 2.0).sqrt() + ROUNDINGS) * (size + add.abs());
                        assert!(error <= bound, "{isa:?} {shape:?} {method:?}: {error} of {bound}");
                        written[at + c] = true;
                    }
                }
                for (i, (now, before)) in memory.iter().zip(&before).enumerate() {
                    assert!(written[i] || now.to_bits() == before.to_bits(), "{isa:?} {shape:?}: {i} was overwritten");
                }
                // the same bits on every CPU that computes in 16 bits
                if isa.computes_in_halves() {
                    assert_eq!(first.get_or_insert_with(|| memory.clone()), &memory, "{isa:?} {shape:?} {method:?}");
                }
            }
        }
    }
}

#[test]
fn depthwise_convolutions_are_as_near_as_their_roundings_allow() {
    let channels = 37;
    let shape = conv::Shape { c_in: 1, ..conv::Shape::plain(channels, 1, [3, 3], [1, 1]) };
    let mut layout = Layout::of(Precision::F16);
    let [input, output] = [(); 2].map(|()| layout.place([channels, 6, 9], [1, 1]).unwrap());
    let (mut noise, mut numbers) = (Noise::new(42, 1), vec![0.0; layout.len()]);
    input.pixels().for_each(|at| noise.fill(&mut numbers[at..at + channels]));
    let before = halves(&numbers);
    let numbers = floats(&before);
    let (mut weights, mut bias) = (vec![0.0; channels * 9], vec![0.0; channels]);
    noise.fill(&mut weights);
    noise.fill(&mut bias);
    let packed = depthwise::Packed::new(shape, &weights, Some(&bias)).unwrap();
    for isa in kinds() {
        let mut memory = before.clone();
        let run = depthwise::Run { packed: &packed, extra: None, input, output, residual: None };
        in_parts(|part| convolve_depthwise(isa, &run, part, Memory::with_halves(&mut [], &mut memory, &mut [])));
        for (y, x) in (0..6).flat_map(|y| (0..9).map(move |x| (y, x))) {
            for c in 0..channels {
                let (mut exact, mut size) = (f64::from(bias[c]), f64::from(bias[c].abs()));
                for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                    let at = input.start + (y + ky) * input.row + (x + kx) * input.pixel - input.row - input.pixel + c;
                    let term = f64::from(numbers[at]) * f64::from(weights[c * 9 + ky * 3 + kx]);
                    (exact, size) = (exact + term, size + term.abs());
                }
                let error = (memory[output.at(y * 9 + x) + c].to_f64() - exact).abs();
                // nine sums, and the rounding of weight and bias
                assert!(error <= U * (LAMBDA * 10f64.sqrt() + 2.0) * size, "{isa:?} {c}: {error} of {size}");
            }
        }
    }
}

/// Pictures of the same sizes in both precisions, and noise in them that 16 bits hold.
fn pair(count: usize, [c, h, w]: [usize; 3]) -> (Vec<ImageView>, Vec<f32>) {
    let mut layout = Layout::default();
    let views: Vec<ImageView> = (0..count).map(|_| layout.place([c, h, w], [1, 1]).unwrap()).collect();
    let mut numbers = vec![0.0; layout.len()];
    Noise::new(43, c as u64).fill(&mut numbers);
    (views, floats(&halves(&numbers)))
}

/// What a kernel makes in 32 bits, rounded, and in 16.
fn both(numbers: &[f32], run: impl Fn(Precision, Memory)) -> [Vec<f16>; 2] {
    let (mut wide, mut narrow) = (numbers.to_vec(), halves(numbers));
    run(Precision::F32, Memory::new(&mut wide, &mut []));
    run(Precision::F16, Memory::with_halves(&mut [], &mut narrow, &mut []));
    [halves(&wide), narrow]
}

/// Runs a kernel in both precisions: what 16 bits give is exactly what 32 give, rounded at the end.
fn rounds_at_the_end(numbers: &[f32], run: impl Fn(Precision, Memory)) {
    let [wide, narrow] = both(numbers, run).map(|all| all.into_iter().map(f16::to_bits).collect::<Vec<_>>());
    assert_eq!(wide, narrow);
}

#[test]
fn what_is_computed_in_32_bits_is_rounded_once() {
    for isa in kinds() {
        for c in [5, 48] {
            let (views, numbers) = pair(3, [c, 4, 6]);
            let of = |i: usize, precision: Precision| views[i].of(precision);
            for silu in [false, true] {
                let run = |precision: Precision, memory: Memory| {
                    let (scale, shift) = (&numbers[..c], &numbers[c..2 * c]);
                    let groups = if c == 48 { 8 } else { 1 };
                    let norm = dense::GroupNorm { groups, epsilon: 1e-5, scale, shift, silu };
                    let (input, output) = (of(0, precision), dense::Output::Float(of(1, precision)));
                    normalize(isa, &norm, input, output, Part::WHOLE, &mut vec![f32::NAN; 4 * c], memory);
                };
                if !isa.computes_in_halves() {
                    rounds_at_the_end(&numbers, run);
                    continue;
                }
                // the difference, the factor, the offset and their sum are rounded there, each by U of what is below 12 (noise of
                // up to 4 times a scale of up to 3); then SiLU, whose slope is below 1.1
                let [wide, narrow] = both(&numbers, run).map(|all| floats(&all));
                for (a, b) in wide.iter().zip(&narrow) {
                    assert!((a - b).abs() <= 2.8e-3 * a.abs() + 1.1 * 4.0 * 12.0 * U as f32, "{isa:?}: {b}, not {a}");
                }
            }
            rounds_at_the_end(&numbers, |precision, memory| {
                let (input, output) = (of(0, precision), dense::Output::Float(of(1, precision)));
                map(isa, dense::Map::Silu, input, output, Part::WHOLE, memory);
            });
            rounds_at_the_end(&numbers, |precision, memory| {
                let op = dense::Map::Add(of(2, precision));
                map(isa, op, of(0, precision), dense::Output::Float(of(1, precision)), Part::WHOLE, memory);
            });
            if c == 48 {
                rounds_at_the_end(&numbers, |precision, memory| {
                    let [q, k] = [0, 1].map(|i| of(i, precision));
                    let attention = attention::Attention::new([q, k, k, of(2, precision)], 4, 0.3).unwrap();
                    attend(isa, &attention, None, Part::WHOLE, &mut vec![f32::NAN; attention.work_len()], memory);
                });
            }
        }
        let mut layout = Layout::default();
        let [small, large] = [[13, 3, 4], [13, 6, 8]].map(|sides| layout.place(sides, [0, 0]).unwrap());
        let mut numbers = vec![0.0; layout.len()];
        Noise::new(44, 1).fill(&mut numbers);
        rounds_at_the_end(&floats(&halves(&numbers)), |precision, memory| {
            upsample(isa, small.of(precision), large.of(precision), Part::WHOLE, memory);
        });
    }
}

#[test]
fn values_are_converted_as_they_lie() {
    let (mut wide, mut noise) = (vec![0.0; 500], Noise::new(45, 1));
    noise.fill(&mut wide);
    // what is too large for 16 bits is infinite there, and found
    wide[17] = 65_519.0;
    wide[18] = 65_520.0;
    let loops = |to: [usize; 2], from: [usize; 2]| {
        general::StridedLoops::new(&[7, 19], [(3, &to[..]), (5, &from[..])]).unwrap()
    };
    for isa in kinds() {
        for (to, from) in [([20, 1], [25, 1]), ([1, 7], [19, 1]), ([20, 1], [1, 7])] {
            let loops = loops(to, from);
            let (mut narrow, mut back) = (vec![f16::ZERO; 500], vec![0.0; 500]);
            in_parts(|part| {
                let memory = Memory::with_halves(&mut wide, &mut narrow, &mut []);
                convert(isa, Precision::F32, Precision::F16, &loops, part, memory);
            });
            let mut copy = narrow.clone();
            in_parts(|part| {
                let memory = Memory::with_halves(&mut back, &mut narrow, &mut []);
                convert(isa, Precision::F16, Precision::F32, &loops, part, memory);
            });
            convert(
                isa,
                Precision::F16,
                Precision::F16,
                &loops,
                Part::WHOLE,
                Memory::with_halves(&mut [], &mut copy, &mut []),
            );
            for (y, x) in (0..7).flat_map(|y| (0..19).map(move |x| (y, x))) {
                let (at, of) = (3 + y * to[0] + x * to[1], 5 + y * from[0] + x * from[1]);
                assert_eq!(narrow[at].to_bits(), f16::from_f32(wide[of]).to_bits(), "{isa:?} {to:?}");
                assert_eq!(back[at], narrow[of].to_f32(), "{isa:?} {to:?}");
            }
            assert!(copy[3 + 6 * to[0] + 18 * to[1]].is_finite());
        }
    }
    let mut some = vec![f16::ONE; 9];
    some.convert_from_f32_slice(&wide[10..19]);
    let memory = Memory::with_halves(&mut [], &mut some, &mut []);
    assert!(memory.greatest_half(0, 9) == f32::INFINITY && memory.greatest_half(0, 8) == 65_504.0);
}

#[test]
fn weights_that_are_too_large_are_refused() {
    let shape = conv::Shape::plain(16, 16, [1, 1], [0, 0]);
    let mut weights = vec![1.0; 256];
    weights[7] = 70_000.0;
    let packed = |precision| {
        let stored = Stored::Float(&weights);
        conv::Packed::of(precision, shape, conv::Method::Direct, stored, None, Isa::PORTABLE).map(|_| ())
    };
    assert!(packed(Precision::F32).is_ok() && packed(Precision::F16).is_err());
}
