//! The operators against plain f64 code written from the formulas, their gradients against central
//! differences of that code and against candle's own gradients.

use super::{conv2d, group_norm, upsample2, upsample2_wide};
use candle_core::{Device, Tensor, Var};
use candle_nn::Module;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

const CPU: &Device = &Device::Cpu;

/// Normal numbers, f32 exactly.
fn normal(seed: u64, len: usize) -> Vec<f64> {
    let mut rng = Pcg64::seed_from_u64(seed);
    (0..len)
        .map(|_| {
            let v: f32 = StandardNormal.sample(&mut rng);
            f64::from(v)
        })
        .collect()
}

fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_vec(values.iter().map(|v| *v as f32).collect::<Vec<_>>(), shape, CPU).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// The largest difference relative to the largest number of `want`.
fn error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(0f64, |m, v| m.max(v.abs())).max(1e-3);
    got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max) / scale
}

/// Inputs of an operator: numbers and shape each.
type Inputs = Vec<(Vec<f64>, Vec<usize>)>;

/// Checks the operator `op` against the f64 code `reference`: its output, and the gradient of a random
/// linear function of it by every input, against central differences and, where `stock` is given, against
/// candle's gradient of the same function.
fn check(
    what: &str,
    inputs: Inputs,
    op: impl Fn(&[Tensor]) -> Tensor,
    stock: Option<impl Fn(&[Tensor]) -> Tensor>,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let plain: Vec<Vec<f64>> = inputs.iter().map(|(v, _)| v.clone()).collect();
    let variables: Vec<Var> = inputs.iter().map(|(v, s)| Var::from_tensor(&tensor(v, s)).unwrap()).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|v| Tensor::clone(v.as_tensor())).collect();
    let out = op(&tensors);
    let want = reference(&plain);
    let e = error(&values(&out), &want);
    assert!(e < 2e-6, "{what}: the output is off by {e:e}");

    let weight = normal(99, want.len());
    let gradients = |out: Tensor| {
        let weight = tensor(&weight, out.dims());
        (out * weight).unwrap().sum_all().unwrap().backward().unwrap()
    };
    let (got, of_stock) = (gradients(out), stock.map(|stock| gradients(stock(&tensors))));
    let value = |inputs: &[Vec<f64>]| -> f64 { reference(inputs).iter().zip(&weight).map(|(o, w)| o * w).sum() };
    for (i, variable) in variables.iter().enumerate() {
        let got = values(got.get(variable).unwrap());
        let h = 1e-5;
        let differences: Vec<f64> = (0..plain[i].len())
            .map(|j| {
                let mut moved = plain.clone();
                moved[i][j] += h;
                let above = value(&moved);
                moved[i][j] -= 2.0 * h;
                (above - value(&moved)) / (2.0 * h)
            })
            .collect();
        let e = error(&got, &differences);
        assert!(e < 1e-5, "{what}: the gradient of input {i} is off by {e:e} from differences");
        if let Some(stock) = &of_stock {
            let e = error(&got, &values(stock.get(variable).unwrap()));
            assert!(e < 1e-5, "{what}: the gradient of input {i} is off by {e:e} from candle's");
        }
    }
}

/// A convolution to be checked.
#[derive(Clone, Copy, Debug)]
struct Convolution {
    batch: usize,
    c_in: usize,
    c_out: usize,
    h: usize,
    w: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
    per_sample_bias: bool,
}

impl Convolution {
    fn out(&self, side: usize, axis: usize) -> usize {
        (side + 2 * self.padding[axis] - self.kernel[axis]) / self.stride + 1
    }

    fn inputs(&self) -> Inputs {
        let Convolution { batch, c_in, c_out, h, w, kernel, .. } = *self;
        let bias = if self.per_sample_bias { vec![batch, c_out] } else { vec![c_out] };
        let shapes = [vec![batch, c_in, h, w], vec![c_out, c_in, kernel[0], kernel[1]], bias];
        (1..).zip(shapes).map(|(seed, s)| (normal(seed, s.iter().product()), s)).collect()
    }

    fn reference(&self, inputs: &[Vec<f64>]) -> Vec<f64> {
        let Convolution { batch, c_in, c_out, h, w, kernel: [kh, kw], stride, padding: [above, left], .. } = *self;
        let (x, weight, bias) = (&inputs[0], &inputs[1], &inputs[2]);
        let mut out = Vec::new();
        for b in 0..batch {
            for o in 0..c_out {
                for (oy, ox) in (0..self.out(h, 0)).flat_map(|y| (0..self.out(w, 1)).map(move |x| (y, x))) {
                    let mut sum = if self.per_sample_bias { bias[b * c_out + o] } else { bias[o] };
                    for (c, ky, kx) in (0..c_in * kh * kw).map(|t| (t / (kh * kw), t / kw % kh, t % kw)) {
                        let (y, x_at) = (oy * stride + ky, ox * stride + kx);
                        if (above..h + above).contains(&y) && (left..w + left).contains(&x_at) {
                            let input = x[((b * c_in + c) * h + y - above) * w + x_at - left];
                            sum += input * weight[((o * c_in + c) * kh + ky) * kw + kx];
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }

    fn check(self) {
        let stock = |t: &[Tensor]| {
            let bias = match t[2].dims() {
                [c] => t[2].reshape((1, *c, 1, 1)),
                [b, c] => t[2].reshape((*b, *c, 1, 1)),
                _ => unreachable!(),
            };
            t[0].conv2d(&t[1], self.padding[0], self.stride, 1, 1).unwrap().broadcast_add(&bias.unwrap()).unwrap()
        };
        check(
            &format!("{self:?}"),
            self.inputs(),
            |t| conv2d(&t[0], &t[1], &t[2], self.stride, self.padding, true).unwrap(),
            // candle's own has one padding, and its gradient of a strided one fails unless the picture is square
            (self.padding[0] == self.padding[1] && (self.stride == 1 || self.h == self.w)).then_some(stock),
            |inputs| self.reference(inputs),
        );
    }
}

#[test]
fn convolutions_and_their_gradients_are_right() {
    let usual = Convolution {
        batch: 2,
        c_in: 3,
        c_out: 4,
        h: 5,
        w: 6,
        kernel: [3; 2],
        stride: 1,
        padding: [1; 2],
        per_sample_bias: false,
    };
    let cases = [
        usual,
        Convolution { per_sample_bias: true, ..usual },
        // one more picture than there are parts, one channel, one row
        Convolution { batch: 9, c_in: 1, ..usual },
        Convolution { h: 1, ..usual },
        Convolution { batch: 17, c_out: 1, h: 2, w: 2, per_sample_bias: true, ..usual },
        Convolution { stride: 2, ..usual },
        Convolution { stride: 2, h: 6, w: 6, ..usual },
        Convolution { stride: 3, kernel: [5; 2], padding: [2; 2], ..usual },
        Convolution { stride: 3, kernel: [5; 2], padding: [2; 2], h: 7, w: 7, ..usual },
        Convolution { padding: [0; 2], ..usual },
        Convolution { padding: [2; 2], ..usual },
        Convolution { kernel: [5; 2], padding: [2; 2], ..usual },
        Convolution { kernel: [5; 2], padding: [2; 2], h: 2, w: 2, ..usual },
        Convolution { kernel: [2; 2], padding: [0; 2], stride: 2, ..usual },
        Convolution { kernel: [1; 2], padding: [0; 2], ..usual },
        Convolution { kernel: [1; 2], padding: [0; 2], stride: 2, ..usual },
        Convolution { kernel: [1; 2], padding: [0; 2], batch: 19, per_sample_bias: true, ..usual },
        // along the width alone, as for sequences
        Convolution { h: 1, kernel: [1, 5], padding: [0, 2], ..usual },
        Convolution { h: 1, kernel: [1, 3], padding: [0, 1], batch: 19, ..usual },
        Convolution { h: 1, kernel: [1, 3], padding: [0, 1], stride: 2, w: 8, ..usual },
        Convolution { kernel: [3, 1], padding: [1, 0], ..usual },
    ];
    cases.into_iter().for_each(Convolution::check);
    // so many pixels that every picture is taken by itself
    let large = Convolution { batch: 3, c_in: 1, c_out: 1, h: 15, w: 14, ..usual };
    large.check();
    Convolution { kernel: [1; 2], padding: [0; 2], ..large }.check();
}

#[test]
fn a_convolution_without_input_gradient_gives_the_others() {
    let x = Var::from_tensor(&tensor(&normal(1, 2 * 9), &[2, 1, 3, 3])).unwrap();
    let w = Var::from_tensor(&tensor(&normal(2, 9), &[1, 1, 3, 3])).unwrap();
    let b = Var::from_tensor(&tensor(&[0.5], &[1])).unwrap();
    let of = |input_gradient| {
        let out = conv2d(&x, &w, &b, 1, [1, 1], input_gradient).unwrap();
        out.sqr().unwrap().sum_all().unwrap().backward().unwrap()
    };
    let (with, without) = (of(true), of(false));
    assert!(with.get(&x).is_some() && without.get(&x).is_none());
    assert_eq!(values(with.get(&w).unwrap()), values(without.get(&w).unwrap()));
    assert_eq!(values(with.get(&b).unwrap()), values(without.get(&b).unwrap()));
}

#[test]
fn a_convolution_gives_the_same_bits_on_any_number_of_threads() {
    let x = Var::from_tensor(&tensor(&normal(1, 21 * 4 * 49), &[21, 4, 7, 7])).unwrap();
    let w = Var::from_tensor(&tensor(&normal(2, 8 * 4 * 9), &[8, 4, 3, 3])).unwrap();
    let b = Var::from_tensor(&tensor(&normal(3, 8), &[8])).unwrap();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let out = conv2d(&x, &w, &b, 1, [1, 1], true).unwrap();
            let gradients = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [&x, &w, &b].map(|v| values(gradients.get(v).unwrap()))
        })
    };
    let one = on(1);
    assert_eq!(one, on(2));
    assert_eq!(one, on(5));
}

fn group_norm_reference(inputs: &[Vec<f64>], batch: usize, channels: usize, groups: usize, silu: bool) -> Vec<f64> {
    let (x, scale, shift) = (&inputs[0], &inputs[1], &inputs[2]);
    let pixels = x.len() / (batch * channels);
    let len = channels / groups * pixels;
    let mut out = Vec::new();
    for (g, group) in x.chunks_exact(len).enumerate() {
        let mean = group.iter().sum::<f64>() / len as f64;
        let variance = group.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / len as f64;
        for (i, v) in group.iter().enumerate() {
            let c = g % groups * (channels / groups) + i / pixels;
            let z = (v - mean) / (variance + 1e-5).sqrt() * scale[c] + shift[c];
            out.push(if silu { z / (1.0 + (-z).exp()) } else { z });
        }
    }
    out
}

#[test]
fn group_norms_and_their_gradients_are_right() {
    for (batch, channels, groups, h, w, silu) in [
        (2, 4, 2, 3, 5, true),
        (2, 4, 2, 3, 5, false),
        (1, 6, 1, 2, 2, true),
        (3, 4, 4, 4, 5, true),
        (2, 2, 1, 6, 7, true),
        (9, 8, 4, 1, 2, true),
    ] {
        let shapes = [vec![batch, channels, h, w], vec![channels], vec![channels]];
        let mut inputs: Inputs = (1..).zip(shapes).map(|(i, s)| (normal(i, s.iter().product()), s)).collect();
        // away from mean 0 and deviation 1
        inputs[0].0.iter_mut().for_each(|v| *v = f64::from((*v * 3.0 + 2.0) as f32));
        check(
            &format!("group norm {:?}", (batch, channels, groups, h, w, silu)),
            inputs,
            |t| group_norm(&t[0], &t[1], &t[2], groups, silu).unwrap(),
            Some(|t: &[Tensor]| {
                let norm = candle_nn::GroupNorm::new(t[1].clone(), t[2].clone(), channels, groups, 1e-5).unwrap();
                let y = norm.forward(&t[0]).unwrap();
                if silu { y.silu().unwrap() } else { y }
            }),
            |inputs| group_norm_reference(inputs, batch, channels, groups, silu),
        );
    }
}

#[test]
fn silu_keeps_its_head_far_from_zero() {
    // scale 0: the shift alone goes through SiLU
    let shifts = [-200.0, -88.0, -40.0, -1e-3, 0.0, 1e-3, 40.0, 88.0, 200.0];
    let n = shifts.len();
    let x = tensor(&normal(1, n * 4), &[1, n, 2, 2]);
    let out = group_norm(&x, &tensor(&vec![0.0; n], &[n]), &tensor(&shifts, &[n]), 1, true).unwrap();
    for (out, z) in values(&out).chunks_exact(4).zip(shifts) {
        let want = z / (1.0 + (-z).exp());
        assert!((out[0] - want).abs() <= 1e-6 * want.abs() + 1e-30, "SiLU({z}) is {want:e}, not {:e}", out[0]);
    }
}

#[test]
fn up_sampling_and_its_gradient_are_right() {
    let (b, c, h, w) = (2, 3, 3, 4);
    check(
        "up-sampling",
        vec![(normal(1, b * c * h * w), vec![b, c, h, w])],
        |t| upsample2(&t[0]).unwrap(),
        Some(|t: &[Tensor]| t[0].upsample_nearest2d(2 * h, 2 * w).unwrap()),
        |inputs| {
            let at = |i: usize, y: usize, x: usize| inputs[0][(i * h + y / 2) * w + x / 2];
            (0..b * c * 4 * h * w).map(|i| at(i / (4 * h * w), i / (2 * w) % (2 * h), i % (2 * w))).collect()
        },
    );
}

#[test]
fn up_sampling_along_the_width_is_right() {
    let (b, c, h, w) = (2, 3, 1, 4);
    check(
        "up-sampling of the width",
        vec![(normal(1, b * c * h * w), vec![b, c, h, w])],
        |t| upsample2_wide(&t[0]).unwrap(),
        None::<fn(&[Tensor]) -> Tensor>,
        |inputs| (0..b * c * h * 2 * w).map(|i| inputs[0][i / 2]).collect(),
    );
}
