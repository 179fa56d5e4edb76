//! Each kernel for every kind of CPU, over lists of sizes.

use super::*;
use crate::arena::Layout;
use half::f16;
use weights::Stored;

#[test]
fn convolutions_are_right_for_every_kind_of_cpu() {
    let mut noise = Noise::new(1, 1);
    let cases = [
        // c_in, c_out, kernel, stride, padding, h, w
        (1, 1, [1, 1], 1, [0, 0], 1, 1),
        (3, 5, [3, 3], 1, [1, 1], 4, 5),
        (48, 48, [3, 3], 1, [1, 1], 14, 14),
        (16, 96, [3, 3], 1, [1, 1], 7, 7),
        (5, 50, [3, 3], 2, [1, 1], 14, 14),
        (1, 33, [6, 6], 2, [2, 2], 28, 28),
        (20, 17, [1, 1], 1, [0, 0], 9, 23),
        (7, 4, [5, 5], 3, [2, 2], 16, 11),
        (16, 112, [3, 3], 1, [1, 1], 8, 3),
        (32, 16, [3, 3], 1, [1, 1], 25, 33),
        (24, 40, [1, 5], 1, [0, 2], 1, 16),
        (24, 9, [1, 3], 2, [0, 1], 1, 17),
        (5, 3, [3, 1], 1, [1, 0], 6, 5),
    ];
    for isa in Isa::available() {
        let mut winograds = 0;
        for (c_in, c_out, kernel, stride, padding, h, w) in cases {
            if !is_run(c_in * c_out * kernel[0] * kernel[1] * h * w / (stride * stride)) {
                continue;
            }
            let shape = conv::Shape { stride: [stride; 2], ..conv::Shape::plain(c_out, c_in, kernel, padding) };
            let mut layout = Layout::default();
            // input and output are parts of wider pictures, as in a concatenation
            let input = layout.place([c_in + 3, h, w], padding).unwrap().channels(2, c_in).unwrap();
            let side = |n: usize, i: usize| (n + 2 * padding[i] - kernel[i]) / stride + 1;
            let output = layout.place([c_out + 2, side(h, 0), side(w, 1)], [1, 1]).unwrap().channels(1, c_out).unwrap();
            let residual = layout.place([c_out, side(h, 0), side(w, 1)], [0, 0]).unwrap();
            let mut arena = vec![0.0; layout.len()];
            for at in input.pixels() {
                noise.fill(&mut arena[at..at + c_in]);
            }
            for at in residual.pixels() {
                noise.fill(&mut arena[at..at + c_out]);
            }
            let mut weights = vec![0.0; c_out * c_in * kernel[0] * kernel[1]];
            let mut bias = vec![0.0; c_out];
            noise.fill(&mut weights);
            noise.fill(&mut bias);
            let stored = Stored::Float(&weights);
            let mut packed = vec![conv::Packed::new(shape, conv::Method::Direct, stored, Some(&bias), isa).unwrap()];
            let (h, w) = (side(h, 0), side(w, 1));
            if winograd::suits(&shape, h, w, 0).next().is_some() {
                for square in [Square::Two, Square::Four] {
                    let method = conv::Method::Winograd(square);
                    packed.push(conv::Packed::new(shape, method, stored, Some(&bias), isa).unwrap());
                }
            }
            winograds += packed.len() - 1;
            // what an earlier step left in the work space is not read
            let len = [Square::Two, Square::Four].map(|s| s.work_len(&shape, h, w).unwrap()).into_iter().max().unwrap();
            let mut work = vec![f32::NAN; len];
            for (packed, residual) in packed.iter().flat_map(|p| [(p, None), (p, Some(residual))]) {
                let expected = reference(shape, &weights, &bias, input, output, &arena);
                let before = arena.clone();
                let run = conv::Run { packed, extra: None, input, output, residual };
                in_parts(|part| convolve(isa, &run, part, &mut work, Memory::new(&mut arena, &mut [])));
                let mut written = vec![false; arena.len()];
                for (i, at) in output.pixels().enumerate() {
                    for c in 0..c_out {
                        let add = residual.map_or(0.0, |r| f64::from(before[r.pixels().nth(i).unwrap() + c]));
                        let error = (f64::from(arena[at + c]) - expected[i * c_out + c] - add).abs();
                        let bound = 1e-6 * (c_in * kernel[0] * kernel[1]) as f64 + 1e-5;
                        assert!(error < bound, "{isa:?} {shape:?}: off by {error}");
                        written[at + c] = true;
                    }
                }
                // nothing else was touched: borders and neighbouring channels are others'
                for (i, (now, before)) in arena.iter().zip(&before).enumerate() {
                    assert!(written[i] || now == before, "{isa:?} {shape:?}: {i} was overwritten");
                }
            }
        }
        assert!(winograds >= 8 || cfg!(miri), "{isa:?}: Winograd was hardly tried");
    }
}

#[test]
fn group_norms_are_right_for_every_kind_of_cpu() {
    for isa in Isa::available() {
        for (c, groups, h, w) in [(48, 8, 14, 14), (6, 3, 1, 2), (100, 4, 7, 5), (4, 1, 3, 3), (19, 1, 2, 3)] {
            let mut layout = Layout::default();
            let (input, output) = (
                layout.place([c, h, w], [0, 0]).unwrap(),
                layout.place([c + 1, h, w], [1, 1]).unwrap().channels(1, c).unwrap(),
            );
            let mut arena = vec![0.0; layout.len()];
            let mut noise = Noise::new(2, c as u64);
            for at in input.pixels() {
                arena[at..at + c].iter_mut().for_each(|v| *v = 3.0 + 2.0 * noise.sample());
            }
            let (mut scale, mut shift) = (vec![0.0; c], vec![0.0; c]);
            noise.fill(&mut scale);
            noise.fill(&mut shift);
            for with_silu in [false, true] {
                let norm = dense::GroupNorm { groups, epsilon: 1e-5, scale: &scale, shift: &shift, silu: with_silu };
                let (to, mut work) = (dense::Output::Float(output), vec![f32::NAN; 4 * c]);
                in_parts(|part| normalize(isa, &norm, input, to, part, &mut work, Memory::new(&mut arena, &mut [])));
                let each = c / groups;
                for g in 0..groups {
                    let values: Vec<f64> = input
                        .pixels()
                        .flat_map(|at| arena[at + g * each..][..each].iter().map(|v| f64::from(*v)).collect::<Vec<_>>())
                        .collect();
                    let mean = values.iter().sum::<f64>() / values.len() as f64;
                    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
                    for (from, to) in input.pixels().zip(output.pixels()) {
                        for k in g * each..(g + 1) * each {
                            let unit = (f64::from(arena[from + k]) - mean) / (variance + 1e-5).sqrt();
                            let y = unit * f64::from(scale[k]) + f64::from(shift[k]);
                            let y = if with_silu { y / (1.0 + (-y).exp()) } else { y };
                            assert!((f64::from(arena[to + k]) - y).abs() < 1e-5, "{isa:?} {c} {groups}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn attention_is_right_for_every_kind_of_cpu() {
    for isa in Isa::available() {
        for (c, h, w) in [(96, 7, 7), (1, 1, 1), (5, 3, 2), (70, 4, 4), (64, 5, 1)] {
            if !is_run(2 * c * h * w * h * w) {
                continue;
            }
            let mut layout = Layout::default();
            let (input, output) = (
                layout.place([3 * c, h, w], [1, 1]).unwrap(),
                layout.place([c + 3, h, w], [1, 1]).unwrap().channels(2, c).unwrap(),
            );
            let mut arena = vec![0.0; layout.len()];
            let mut noise = Noise::new(3, c as u64);
            input.pixels().for_each(|at| noise.fill(&mut arena[at..at + 3 * c]));
            let before = arena.clone();
            // what an earlier step left in the work space is not read
            let [query, key, value] = [0, 1, 2].map(|i| input.channels(i * c, c).unwrap());
            let a = attention::Attention::new([query, key, value, output], 1, 1.0).unwrap();
            let mut work = vec![f32::NAN; a.work_len()];
            // the keys after a query are masked, but for the first time around
            let mask: Vec<f32> =
                (0..h * w * h * w).map(|i| if i % (h * w) > i / (h * w) { f32::NEG_INFINITY } else { 0.5 }).collect();
            for mask in [None, Some(&*mask)] {
                in_parts(|part| attend(isa, &a, mask, part, &mut work, Memory::new(&mut arena, &mut [])));
                let mut written = vec![false; arena.len()];
                for (i, (from, to)) in input.pixels().zip(output.pixels()).enumerate() {
                    let dot =
                        |key: usize| (0..c).map(|k| f64::from(before[from + k]) * f64::from(before[key + c + k])).sum();
                    let mut scores: Vec<f64> = input.pixels().map(dot).collect();
                    if mask.is_some() {
                        scores.truncate(i + 1);
                    }
                    let greatest = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
                    let weights: Vec<f64> = scores.iter().map(|s| (s - greatest).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for k in 0..c {
                        let values = input.pixels().map(|at| f64::from(before[at + 2 * c + k]));
                        let mean: f64 = values.zip(&weights).map(|(v, w)| v * w).sum::<f64>() / total;
                        assert!((f64::from(arena[to + k]) - mean).abs() < 2e-5, "{isa:?} {c} {h}×{w}");
                        written[to + k] = true;
                    }
                }
                assert!(arena.iter().zip(&before).zip(&written).all(|((now, before), w)| *w || now == before));
            }
        }
    }
}

#[test]
fn eight_bit_convolutions_are_exact_for_every_kind_of_cpu() {
    let mut noise = Noise::new(4, 4);
    let cases = [
        // c_in, c_out, kernel, stride, padding, h, w
        (1, 1, [1, 1], 1, [0, 0], 1, 1),
        (3, 5, [3, 3], 1, [1, 1], 4, 5),
        (48, 48, [3, 3], 1, [1, 1], 14, 14),
        (16, 96, [3, 3], 2, [1, 1], 7, 7),
        (5, 50, [3, 3], 2, [1, 1], 14, 14),
        (20, 17, [1, 1], 1, [0, 0], 9, 23),
        (24, 40, [1, 5], 1, [0, 2], 1, 16),
        (32, 16, [3, 3], 1, [1, 1], 25, 33),
        (64, 16, [3, 3], 1, [1, 1], 9, 4),
    ];
    let mut winograds = 0;
    // extremes, where instructions that saturate go wrong, then anything
    for extreme in [true, false] {
        for (c_in, c_out, kernel, stride, padding, h, w) in cases {
            if !is_run(c_in * c_out * kernel[0] * kernel[1] * h * w / (stride * stride)) {
                continue;
            }
            let shape = conv::Shape { stride: [stride; 2], ..conv::Shape::plain(c_out, c_in, kernel, padding) };
            let levels = conv8::QuantParams::new(0.125, if extreme { 255 } else { 77 }).unwrap();
            let output_side = |n: usize, i: usize| (n + 2 * padding[i] - kernel[i]) / stride + 1;
            let mut layout8 = Layout::default();
            let input = layout8.place([c_in.next_multiple_of(4), h, w], padding).unwrap().channels(0, c_in).unwrap();
            let output8 = layout8
                .place([c_out + 3, output_side(h, 0), output_side(w, 1)], [1, 1])
                .unwrap()
                .channels(1, c_out)
                .unwrap();
            let mut bytes = vec![levels.zero_point(); layout8.len()];
            let mut byte = || (noise.sample() * 80.0 + 128.0).clamp(0.0, 255.0) as u8;
            for at in input.pixels() {
                bytes[at..at + c_in].iter_mut().for_each(|b| *b = if extreme { 0 } else { byte() });
            }
            let taps = kernel[0] * kernel[1];
            let weights: Vec<i8> =
                (0..c_out * c_in * taps).map(|_| if extreme { -128 } else { byte().wrapping_add(128) as i8 }).collect();
            let scales: Vec<f32> = (0..c_out).map(|o| 0.25 * (o % 3 + 1) as f32).collect();
            let bias: Vec<f32> = (0..c_out).map(|o| o as f32).collect();
            let mut layout = Layout::default();
            let output = layout
                .place([c_out + 2, output_side(h, 0), output_side(w, 1)], [1, 1])
                .unwrap()
                .channels(1, c_out)
                .unwrap();
            // what it should be, in integers and powers of two, which f32 holds exactly
            let sums = exact_sums(&shape, &weights, input, (&bytes, levels.zero_point()), [output.h, output.w]);
            let of_channel = |(i, sum): (usize, &i32)| {
                let o = i % c_out;
                *sum as f32 * (levels.scale() * scales[o]) + bias[o]
            };
            let expected: Vec<f32> = sums.iter().enumerate().map(of_channel).collect();
            for (isa, method) in methods(&shape, &weights, [output.h, output.w]) {
                winograds += usize::from(method != conv::Method::Direct);
                let eight = (&*weights, &*scales);
                let packed = conv8::Packed8::new(shape, method, eight, Some(&bias), levels, isa).unwrap();
                let mut work = vec![f32::NAN; method.work_len(&shape, output.h, output.w).unwrap()];
                let mut bytes: Vec<u8> = bytes.iter().map(|b| isa.byte(*b)).collect();
                let mut arena = vec![f32::NAN; layout.len()];
                check_exact(isa, &packed, [input, output, output8], &expected, &mut work, (&mut arena, &mut bytes));
            }
        }
    }
    assert!(winograds >= 10 || cfg!(miri), "Winograd was hardly tried");
}

/// Runs an 8-bit convolution plainly, and with all that it can add and round, into `output` and `output8`, and compares it with the
/// exact results.
fn check_exact(
    isa: Isa,
    packed: &conv8::Packed8,
    [input, output, output8]: [ImageView; 3],
    expected: &[f32],
    work: &mut [f32],
    (arena, bytes): (&mut [f32], &mut [u8]),
) {
    let c_out = output.c;
    let run =
        conv8::Run8 { packed, round: None, extra: None, input, output: Some(output), output8: None, residual: None };
    in_parts(|part| convolve8(isa, &run, part, work, Memory::new(arena, bytes)));
    for (i, at) in output.pixels().enumerate() {
        assert_eq!(arena[at..at + c_out], expected[i * c_out..][..c_out], "{isa:?} {:?}", packed.shape());
    }
    // rounded, with both sums, and rounded again to 8 bits; the residual is what was written before
    let round = conv8::QuantParams::new(2.0, 9).unwrap();
    let after = conv8::QuantParams::new(4.0, 250).unwrap();
    let extra: Vec<f32> = (0..c_out).map(|o| 0.5 * o as f32).collect();
    let residual = Some(output);
    let run = conv8::Run8 { round: Some(round), extra: Some(&extra), output8: Some((output8, after)), residual, ..run };
    let before = bytes.to_vec();
    in_parts(|part| convolve8(isa, &run, part, work, Memory::new(arena, bytes)));
    let mut written = vec![false; bytes.len()];
    for (i, (at, at8)) in output.pixels().zip(output8.pixels()).enumerate() {
        for c in 0..c_out {
            let before = expected[i * c_out + c];
            let level = ((before / 2.0).round_ties_even() + 9.0).clamp(0.0, 255.0);
            let value = (level - 9.0) * 2.0 + extra[c] + before;
            assert_eq!(arena[at + c], value, "{isa:?} {:?}", packed.shape());
            let level = ((value / 4.0).round_ties_even() + 250.0).clamp(0.0, 255.0);
            assert_eq!(bytes[at8 + c], isa.byte(level as u8), "{isa:?} {:?}", packed.shape());
            written[at8 + c] = true;
        }
    }
    assert!(bytes.iter().zip(&before).zip(&written).all(|((now, before), w)| *w || now == before));
}

#[test]
fn pictures_are_mapped_alike_by_every_kind_of_cpu() {
    let levels = conv8::QuantParams::new(0.25, 77).unwrap();
    for isa in Isa::available() {
        for (c, h, w) in [(1, 1, 1), (5, 3, 2), (16, 2, 2), (21, 1, 7), (40, 4, 1)] {
            let mut layout = Layout::default();
            let input = layout.place([c + 3, h, w], [1, 1]).unwrap().channels(1, c).unwrap();
            let other = layout.place([c, h, w], [0, 0]).unwrap();
            let output = layout.place([c + 5, h, w], [0, 1]).unwrap().channels(2, c).unwrap();
            let twice = layout.place([c, 2 * h, 2 * w], [0, 0]).unwrap();
            let mut arena = vec![0.0; layout.len()];
            Noise::new(5, c as u64).fill(&mut arena);
            arena.iter_mut().for_each(|v| *v *= 30.0);
            let before = arena.clone();
            let mut layout8 = Layout::default();
            let output8 = layout8.place([c + 3, h, w], [1, 1]).unwrap().channels(0, c).unwrap();
            let mut bytes = vec![1; layout8.len()];
            let rounded = |x: f32| (((x * 4.0).round_ties_even() + 77.0).clamp(0.0, 255.0) - 77.0) / 4.0;
            type Exact = Box<dyn Fn(f32, f32) -> f32>;
            let cases: [(dense::Map, Exact); 4] = [
                (dense::Map::Copy, Box::new(|x, _| x)),
                (dense::Map::Round(levels), Box::new(move |x, _| rounded(x))),
                (dense::Map::Add(other), Box::new(|x, y| x + y)),
                (dense::Map::Silu, Box::new(|x, _| (f64::from(x) / (1.0 + (-f64::from(x)).exp())) as f32)),
            ];
            for (op, exact) in cases {
                let memory = |arena: &mut Vec<f32>, bytes: &mut Vec<u8>, to| {
                    in_parts(|part| map(isa, op, input, to, part, Memory::new(arena, bytes)));
                };
                memory(&mut arena, &mut bytes, dense::Output::Float(output));
                memory(&mut arena, &mut bytes, dense::Output::Quantized(output8, levels));
                let mut written = vec![false; arena.len()];
                for (((from, to), to8), other) in
                    input.pixels().zip(output.pixels()).zip(output8.pixels()).zip(other.pixels())
                {
                    for k in 0..c {
                        let value = exact(before[from + k], before[other + k]);
                        assert!((arena[to + k] - value).abs() <= 1e-6 * value.abs(), "{isa:?} {op:?} {value}");
                        let level = ((arena[to + k] * 4.0).round_ties_even() + 77.0).clamp(0.0, 255.0);
                        assert_eq!(bytes[to8 + k], isa.byte(level as u8), "{isa:?} {op:?}");
                        written[to + k] = true;
                    }
                }
                assert!(arena.iter().zip(&before).zip(&written).all(|((now, before), w)| *w || now == before));
            }
            in_parts(|part| upsample(isa, input, twice, part, Memory::new(&mut arena, &mut bytes)));
            for (i, to) in twice.pixels().enumerate() {
                let from = input.start + i / (2 * w) / 2 * input.row + i % (2 * w) / 2 * input.pixel;
                assert_eq!(arena[to..to + c], before[from..from + c]);
            }
        }
    }
}

#[test]
fn matrices_are_right_for_every_kind_of_cpu() {
    for isa in Isa::available() {
        for (rows, columns) in [(1, 1), (3, 5), (64, 16), (75, 9), (130, 33), (130, 65)] {
            if !is_run(8 * rows * columns) {
                continue;
            }
            let (mut a, mut x, mut b) = (vec![0.0; rows * columns], vec![0.0; columns], vec![0.0; rows]);
            let mut noise = Noise::new(6, rows as u64);
            [&mut a, &mut x, &mut b].into_iter().for_each(|v| noise.fill(v));
            let halves: Vec<f32> = a.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
            let bytes: Vec<i8> = a.iter().map(|v| (40.0 * v) as i8).collect();
            let scales: Vec<f32> = b.iter().map(|v| v.abs() / 40.0).collect();
            let each = |scale: &dyn Fn(usize) -> f32, by_column: bool| -> Vec<f32> {
                let row = |i: usize| if by_column { i % rows } else { i / columns };
                bytes.iter().enumerate().map(|(i, v)| f32::from(*v) * scale(row(i))).collect()
            };
            for by_column in [true, false] {
                for (stored, values, bits) in [
                    (Stored::Float(&a), a.clone(), 32),
                    (Stored::Float(&halves), halves.clone(), 16),
                    (Stored::Eight(&bytes, &scales), each(&|r| scales[r], by_column), 8),
                    (Stored::Eight(&bytes, &[0.02]), each(&|_| 0.02, by_column), 8),
                ] {
                    let matrix = dense::Matrix::new(stored, rows, columns, by_column, Some(&b)).unwrap();
                    let kept = if bits == 8 && rows * columns <= weights::FEW { 32 } else { bits };
                    assert!(matrix.bytes() >= rows * columns * kept / 8);
                    assert!(matrix.bytes() <= rows.next_multiple_of(16) * (columns * kept / 8 + 8));
                    let mut out = vec![f32::NAN; rows];
                    multiply(isa, &matrix, &x, &mut out);
                    for (r, out) in out.iter().enumerate() {
                        let at = |c: usize| values[if by_column { c * rows + r } else { r * columns + c }];
                        let terms = (0..columns).map(|c| f64::from(at(c)) * f64::from(x[c]));
                        let exact = terms.sum::<f64>() + f64::from(b[r]);
                        assert!((exact - f64::from(*out)).abs() < 2e-5, "{isa:?} {rows} {bits} bits");
                    }
                }
            }
        }
    }
}
