//! Kernels over drawn shapes, by threads that run at the same time.

use super::*;
use crate::arena::Layout;
use half::f16;
use rand::SeedableRng;
use weights::Stored;

/// Numbers that look drawn but are the same every time.
struct Draw(Pcg64);

impl Draw {
    fn new(seed: u64) -> Self {
        Draw(Pcg64::seed_from_u64(seed))
    }

    /// One of `from` to `to`.
    fn from(&mut self, from: usize, to: usize) -> usize {
        self.0.random_range(from..=to)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.from(0, of.len() - 1)]
    }

    fn number(&mut self) -> f32 {
        self.from(0, 2000) as f32 / 1000.0 - 1.0
    }

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    /// Runs all parts of some number of them at the same time, each with so many numbers to work with.
    fn in_parts(&mut self, memory: Memory, work: usize, run: impl Fn(Part, &mut [f32], Memory) + Sync) {
        let of = self.from(1, 5);
        // SAFETY: the threads run different parts, and nothing else is done to the buffers.
        let shared = unsafe { memory.share() };
        std::thread::scope(|scope| {
            for index in 0..of {
                let run = &run;
                // what an earlier step left in the work space is not read
                scope.spawn(move || run(Part::new(index, of).unwrap(), &mut vec![f32::NAN; work], shared.memory()));
            }
        });
    }

    /// A power of two within ±most, exactly.
    fn power(&mut self, most: usize) -> f32 {
        f32::from_bits(((127 + self.from(0, 2 * most) - most) as u32) << 23)
    }

    /// Some of the channels of a picture, with a border at least as wide.
    fn picture(&mut self, layout: &mut Layout, [c, h, w]: [usize; 3], border: [usize; 2]) -> ImageView {
        let (before, after) = (self.from(0, 3), self.from(0, 3));
        let border = border.map(|b| b + self.from(0, 1));
        layout.place([before + c + after, h, w], border).unwrap().channels(before, c).unwrap()
    }

    /// A convolution, and the sides of its input and output.
    fn convolution(&mut self, channels: usize) -> (conv::Shape, [usize; 2], [usize; 2]) {
        loop {
            let kernel = if self.from(0, 1) == 0 { [3, 3] } else { [self.from(1, 4), self.from(1, 5)] };
            let padding = if kernel == [3, 3] { [1, 1] } else { kernel.map(|k| self.from(0, k - 1)) };
            let stride = if self.from(0, 1) == 0 { [1, 1] } else { [0; 2].map(|_| self.one(&[1, 1, 2, 3])) };
            let dilation = if self.from(0, 1) == 0 { [1, 1] } else { [0; 2].map(|_| self.one(&[1, 1, 2, 3])) };
            let c = [0; 2]
                .map(|_| if self.from(0, 1) == 0 { 16 * self.from(1, channels / 16) } else { self.from(1, channels) });
            let shape = conv::Shape { stride, dilation, ..conv::Shape::plain(c[1], c[0], kernel, padding) };
            let input =
                if cfg!(miri) { [self.from(1, 3), self.from(1, 9)] } else { [self.from(1, 9), self.from(1, 19)] };
            // as many zeros after a side as before it, or fewer
            let after = if kernel == [3, 3] { padding } else { padding.map(|p| self.from(0, p)) };
            let reach: [usize; 2] = std::array::from_fn(|i| input[i] + padding[i] + after[i]);
            let taps: [usize; 2] = std::array::from_fn(|i| (kernel[i] - 1) * dilation[i] + 1);
            if (0..2).all(|i| reach[i] >= taps[i]) {
                return (shape, input, std::array::from_fn(|i| (reach[i] - taps[i]) / stride[i] + 1));
            }
        }
    }
}

/// How many seeds a test goes through: an interpreter is some thousand times slower.
fn seeds(count: u64) -> std::ops::Range<u64> {
    0..if cfg!(miri) { count.div_ceil(40) } else { count }
}

/// How far off a number may be whose terms' sizes add up to `bound`, where inputs times weights are of this size.
fn tolerance(shape: &conv::Shape, method: conv::Method, bound: f64, size: f32) -> f64 {
    let terms = (shape.c_in * shape.kernel[0] * shape.kernel[1] + 4) as f64;
    match method {
        conv::Method::Direct => 6e-8 * terms * bound,
        // it adds numbers of other pixels, which it takes away again
        conv::Method::Winograd(_) => 2e-5 * (bound + f64::from(size) * shape.c_in as f64),
    }
}

#[test]
fn convolutions_of_any_shape_are_right() {
    for seed in seeds(150) {
        let mut draw = Draw::new(seed);
        let (shape, [h, w], [oh, ow]) = draw.convolution(if cfg!(miri) { 20 } else { 70 });
        let mut layout = Layout::default();
        let input = draw.picture(&mut layout, [shape.c_in, h, w], shape.padding);
        let output = draw.picture(&mut layout, [shape.c_out, oh, ow], [0, 0]);
        let other = draw.picture(&mut layout, [shape.c_out, oh, ow], [0, 0]);
        // numbers of all sizes that leave room for their products and sums
        let (size, weight) = (draw.one(&[1e-12, 1.0, 1e12]), draw.one(&[1e-6, 1.0, 1e6]));
        let residual = draw.one(&[None, Some(other), Some(output)]);
        let mut before = vec![0.0; layout.len()];
        for view in [Some(input), residual].into_iter().flatten() {
            view.pixels().for_each(|at| before[at..at + view.c].iter_mut().for_each(|v| *v = size * draw.number()));
        }
        let mut weights: Vec<f32> = draw
            .numbers(shape.c_out * shape.c_in * shape.kernel[0] * shape.kernel[1])
            .iter()
            .map(|v| v * weight)
            .collect();
        // as a file may have them: in 32, 16 or 8 bits
        let bits = draw.one(&[32, 16, 8]);
        let scales: Vec<f32> = draw.numbers(shape.c_out).iter().map(|v| weight * (0.5 + v.abs()) / 128.0).collect();
        let bytes: Vec<i8> = weights.iter().map(|v| (v / weight * 100.0) as i8).collect();
        let each = weights.len() / shape.c_out;
        for (i, v) in weights.iter_mut().enumerate() {
            match bits {
                // within the range of 16 bits
                16 => *v = f16::from_f32(*v / weight).to_f32() * weight.clamp(1.0 / 64.0, 64.0),
                8 => *v = f32::from(bytes[i]) * scales[i / each],
                _ => (),
            }
        }
        let (bias, extra) = (draw.numbers(shape.c_out), draw.numbers(shape.c_out));
        let (bias, extra) = (draw.one(&[None, Some(&*bias)]), draw.one(&[None, Some(&*extra)]));
        let zeros = vec![0.0; shape.c_out];
        let sums = reference(shape, &weights, bias.unwrap_or(&zeros), input, output, &before);
        // what rounding is in proportion to
        let magnitude = |v: &[f32]| v.iter().map(|v| v.abs()).collect::<Vec<_>>();
        let bounds = reference(
            shape,
            &magnitude(&weights),
            &magnitude(bias.unwrap_or(&zeros)),
            input,
            output,
            &magnitude(&before),
        );
        for isa in Isa::available() {
            for square in [None, Some(Square::Two), Some(Square::Four)] {
                if square.is_some() && winograd::suits(&shape, oh, ow, 0).next().is_none() {
                    continue;
                }
                let method = square.map_or(conv::Method::Direct, conv::Method::Winograd);
                let eight = bits == 8 && square.is_none();
                let stored = if eight { Stored::Eight(&bytes, &scales) } else { Stored::Float(&weights) };
                let packed = &conv::Packed::new(shape, method, stored, bias, isa).unwrap();
                assert!(square.is_some() || (packed.bytes() < 3 * weights.len()) || bits > 8 || weights.len() < 10_000);
                let mut arena = before.clone();
                let run = conv::Run { packed, extra, input, output, residual };
                let memory = Memory::new(&mut arena, &mut []);
                draw.in_parts(memory, method.work_len(&shape, oh, ow).unwrap(), |part, work, m| {
                    convolve(isa, &run, part, work, m)
                });
                let mut written = vec![false; arena.len()];
                for (i, at) in output.pixels().enumerate() {
                    for c in 0..shape.c_out {
                        let add = residual.map_or(0.0, |r| before[r.start + i / ow * r.row + i % ow * r.pixel + c]);
                        let extra = extra.map_or(0.0, |e| e[c]);
                        let exact = sums[i * shape.c_out + c] + f64::from(add) + f64::from(extra);
                        let bound = bounds[i * shape.c_out + c] + f64::from(add.abs() + extra.abs());
                        let most = tolerance(&shape, method, bound, size * weight);
                        let off = (f64::from(arena[at + c]) - exact).abs();
                        assert!(off <= most, "{seed} {isa:?} {method:?} {shape:?} {off} of {bound}");
                        written[at + c] = true;
                    }
                }
                let same = |(i, w): (usize, &bool)| *w || arena[i] == before[i];
                assert!(written.iter().enumerate().all(same), "{seed} {isa:?} {shape:?} writes elsewhere");
            }
        }
    }
}

#[test]
fn eight_bit_convolutions_of_any_shape_are_exact() {
    for seed in seeds(150) {
        let mut draw = Draw::new(1000 + seed);
        let (shape, [h, w], [oh, ow]) = draw.convolution(if cfg!(miri) { 20 } else { 70 });
        let [c_in, c_out] = [shape.c_in, shape.c_out];
        let border = shape.padding.map(|p| p + draw.from(0, 1));
        let levels = conv8::QuantParams::new(draw.power(20), draw.one(&[0, 1, 77, 128, 254, 255])).unwrap();
        let mut layout8 = Layout::default();
        let input = layout8
            .place([c_in.next_multiple_of(4) + 4 * draw.from(0, 1), h, w], border)
            .unwrap()
            .channels(0, c_in)
            .unwrap();
        let output8 = draw.picture(&mut layout8, [c_out, oh, ow], [0, 0]);
        let mut layout = Layout::default();
        let output = draw.picture(&mut layout, [c_out, oh, ow], [0, 0]);
        let mut bytes = vec![levels.zero_point(); layout8.len()];
        // all at one end, where sums are greatest, at either, or anywhere
        let of_bytes: &[u8] = draw.one(&[&[0], &[255], &[0, 255], &[0, 1, 17, 128, 200, 254, 255]]);
        let of_weights: &[i8] =
            draw.one(&[&[127], &[-127], &[-128], &[-127, 127], &[-128, 127], &[-100, -3, 0, 1, 50, 127]]);
        input.pixels().for_each(|at| bytes[at..at + c_in].iter_mut().for_each(|b| *b = draw.one(of_bytes)));
        let taps = shape.kernel[0] * shape.kernel[1];
        let weights: Vec<i8> = (0..c_out * c_in * taps).map(|_| draw.one(of_weights)).collect();
        let scales: Vec<f32> = (0..draw.one(&[1, c_out])).map(|_| draw.power(20)).collect();
        let bias: Vec<f32> = (0..c_out).map(|_| draw.number() * levels.scale()).collect();
        let round = conv8::QuantParams::new(draw.power(30), draw.one(&[0, 3, 128, 255])).unwrap();
        let after = conv8::QuantParams::new(draw.power(30), draw.one(&[0, 3, 128, 255])).unwrap();
        // a sum in integers, its product with a power of two, and one rounding: every kind of CPU must agree
        let sums = exact_sums(&shape, &weights, input, (&bytes, levels.zero_point()), [oh, ow]);
        let of_channel = |(i, sum): (usize, &i32)| {
            let scale = scales[if scales.len() == 1 { 0 } else { i % c_out }];
            (*sum as f32).mul_add(levels.scale() * scale, bias[i % c_out])
        };
        let expected: Vec<f32> = sums.iter().enumerate().map(of_channel).collect();
        let level = |l: conv8::QuantParams, v: f32| {
            ((v / l.scale()).round_ties_even() + f32::from(l.zero_point())).clamp(0.0, 255.0)
        };
        for (isa, method) in methods(&shape, &weights, [oh, ow]) {
            let eight = (&*weights, &*scales);
            let packed = &conv8::Packed8::new(shape, method, eight, Some(&bias), levels, isa).unwrap();
            let before: Vec<u8> = bytes.iter().map(|b| isa.byte(*b)).collect();
            for rounded in [None, Some(round)] {
                let (mut bytes, mut arena) = (before.clone(), vec![f32::NAN; layout.len()]);
                let run = conv8::Run8 {
                    packed,
                    round: rounded,
                    extra: None,
                    input,
                    output: Some(output),
                    output8: Some((output8, after)),
                    residual: None,
                };
                let memory = Memory::new(&mut arena, &mut bytes);
                draw.in_parts(memory, method.work_len(&shape, oh, ow).unwrap(), |part, work, m| {
                    convolve8(isa, &run, part, work, m)
                });
                let mut written = vec![false; bytes.len()];
                for (i, (at, at8)) in output.pixels().zip(output8.pixels()).enumerate() {
                    for c in 0..c_out {
                        let mut value = expected[i * c_out + c];
                        if rounded.is_some() {
                            value = (level(round, value) - f32::from(round.zero_point())) * round.scale();
                        }
                        let about = |what: &str| {
                            format!("{seed} {isa:?} {method:?} {shape:?} {what}: {value} {}", arena[at + c])
                        };
                        assert!(arena[at + c] == value, "{}", about("value"));
                        assert_eq!(bytes[at8 + c], isa.byte(level(after, value) as u8), "{}", about("level"));
                        written[at8 + c] = true;
                    }
                }
                let same = |(i, w): (usize, &bool)| *w || bytes[i] == before[i];
                assert!(written.iter().enumerate().all(same), "{seed} {isa:?} {shape:?} writes elsewhere");
            }
        }
    }
}

#[test]
fn attention_of_any_shape_is_right() {
    for seed in seeds(80) {
        let mut draw = Draw::new(2000 + seed);
        let (heads, each, each_value) = (draw.from(1, 3), draw.from(1, 40), draw.from(1, 40));
        let (queries, keys) = (draw.from(1, 30), draw.from(1, 40));
        let mut layout = Layout::default();
        let query = draw.picture(&mut layout, [heads * each, 1, queries], [0, 0]);
        let key = draw.picture(&mut layout, [heads * each, 1, keys], [0, 0]);
        let value = draw.picture(&mut layout, [heads * each_value, 1, keys], [0, 0]);
        let output = draw.picture(&mut layout, [heads * each_value, 1, queries], [0, 0]);
        let mut arena = draw.numbers(layout.len());
        // from all keys alike to one alone
        let scale = draw.one(&[0.0, 0.3, 5.0, 1000.0]);
        let mask: Vec<f32> = (0..queries * keys)
            .map(|i| if i % keys == i / keys % keys { 0.0 } else { draw.one(&[0.0, 1.0, -30.0, f32::NEG_INFINITY]) })
            .collect();
        let mask = draw.one(&[None, Some(&*mask)]);
        let before = arena.clone();
        for isa in Isa::available() {
            let a = attention::Attention::new([query, key, value, output], heads, scale).unwrap();
            let memory = Memory::new(&mut arena, &mut []);
            draw.in_parts(memory, a.work_len(), |part, work, m| attend(isa, &a, mask, part, work, m));
            for (q, head) in (0..queries).flat_map(|q| (0..heads).map(move |head| (q, head))) {
                let number = |v: ImageView, pixel: usize, c: usize| f64::from(before[v.start + pixel * v.pixel + c]);
                let score = |k: usize| {
                    let terms = (head * each..(head + 1) * each).map(|c| number(query, q, c) * number(key, k, c));
                    terms.sum::<f64>() * f64::from(scale) + mask.map_or(0.0, |m| f64::from(m[q * keys + k]))
                };
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let greatest = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
                let weights: Vec<f64> = scores.iter().map(|s| (s - greatest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for c in head * each_value..(head + 1) * each_value {
                    let mean = weights.iter().enumerate().map(|(k, w)| w * number(value, k, c)).sum::<f64>() / total;
                    let off = (f64::from(arena[output.start + q * output.pixel + c]) - mean).abs();
                    // scores are rounded in proportion to their size
                    assert!(off <= 1e-5 + 1e-5 * f64::from(scale), "{seed} {isa:?} {a:?}: {off}");
                }
            }
        }
    }
}

#[test]
fn pictures_of_any_shape_and_size_of_numbers_are_normalised_and_mapped() {
    for seed in seeds(120) {
        let mut draw = Draw::new(3000 + seed);
        let (groups, each) = (draw.from(1, 8), draw.from(1, 12));
        let [c, h, w] = [groups * each, draw.from(1, 6), draw.from(1, 9)];
        let mut layout = Layout::default();
        let input = draw.picture(&mut layout, [c, h, w], [0, 0]);
        let output = draw.picture(&mut layout, [c, h, w], [0, 0]);
        let mut layout8 = Layout::default();
        let output8 = draw.picture(&mut layout8, [c, h, w], [0, 0]);
        let (size, middle) = (draw.one(&[1e-3, 1.0, 1e4]), draw.one(&[0.0, 5.0]));
        let before: Vec<f32> = draw.numbers(layout.len()).iter().map(|v| size * (v + middle)).collect();
        let (scale, shift) = (draw.numbers(c), draw.numbers(c));
        let norm = dense::GroupNorm { groups, epsilon: 1e-5, scale: &scale, shift: &shift, silu: draw.from(0, 1) == 1 };
        let power = draw.power(12);
        let levels = conv8::QuantParams::new(power, draw.one(&[0, 9, 128, 255])).unwrap();
        for isa in Isa::available() {
            let (mut arena, mut bytes) = (before.clone(), vec![3; layout8.len()]);
            let to = dense::Output::Float(output);
            let memory = Memory::new(&mut arena, &mut bytes);
            draw.in_parts(memory, 2 * c, |part, work, m| normalize(isa, &norm, input, to, part, work, m));
            for g in 0..groups {
                let of = |at: usize| before[at + g * each..at + (g + 1) * each].iter().map(|v| f64::from(*v));
                let count = (each * h * w) as f64;
                let mean = input.pixels().flat_map(of).sum::<f64>() / count;
                let variance = input.pixels().flat_map(of).map(|v| (v - mean).powi(2)).sum::<f64>() / count;
                for (from, to) in input.pixels().zip(output.pixels()) {
                    for k in g * each..(g + 1) * each {
                        let unit = (f64::from(before[from + k]) - mean) / (variance + 1e-5).sqrt();
                        let y = unit * f64::from(scale[k]) + f64::from(shift[k]);
                        let y = if norm.silu { y / (1.0 + (-y).exp()) } else { y };
                        // one pixel's channels may lie as close together as floats can tell
                        let bound = 1e-5 + 4e-7 * mean.abs() / (variance + 1e-5).sqrt();
                        let off = (f64::from(arena[to + k]) - y).abs();
                        assert!(off <= bound, "{seed} {isa:?} {c} {groups} {h}×{w}: {off} of {bound}");
                    }
                }
            }
            let to = dense::Output::Quantized(output8, levels);
            let arena = &mut before.clone();
            let memory = Memory::new(arena, &mut bytes);
            draw.in_parts(memory, 0, |part, _, m| map(isa, dense::Map::Copy, input, to, part, m));
            let mut written = vec![false; bytes.len()];
            for (from, to) in input.pixels().zip(output8.pixels()) {
                for k in 0..c {
                    let level = (before[from + k] / power).round_ties_even() + f32::from(levels.zero_point());
                    assert_eq!(bytes[to + k], isa.byte(level.clamp(0.0, 255.0) as u8), "{seed} {isa:?}");
                    written[to + k] = true;
                }
            }
            assert!(bytes.iter().zip(&written).all(|(b, w)| *w || *b == 3), "{seed} {isa:?} writes elsewhere");
        }
    }
}
