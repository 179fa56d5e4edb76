//! Group normalisation followed, if asked for, by SiLU, in one pass, with its gradient.

use super::shared::{Parts, as_f32, sum, vectorised, with_f32};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Group normalisation (arXiv 1803.08494) of x `[B, C, …]` with scale and shift `[C]`, then SiLU if `silu`.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupNorm {
    pub groups: usize,
    pub epsilon: f32,
    pub silu: bool,
}

/// `exp` to a relative error of about 1e-7, in a form that vectorises (Cephes' polynomial).
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding and taking it away rounds to the nearest integer
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4f32
        .mul_add(r, 1.398_199_9e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    let y = (p * r).mul_add(r, r) + 1.0;
    f32::from_bits(((n as i32 + 127) << 23) as u32) * y
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The mean, and one over the standard deviation.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x) / n;
    let mut lanes = [0f32; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += (v - mean) * (v - mean);
        }
    }
    let rest: f32 = chunks.remainder().iter().map(|v| (v - mean) * (v - mean)).sum();
    let variance = (rest + lanes.iter().sum::<f32>()) / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// `(Σ d, Σ d (x - mean))`, in lanes.
#[inline(always)]
fn sums(d: &[f32], x: &[f32], mean: f32) -> (f32, f32) {
    let (mut a, mut b) = ([0f32; 16], [0f32; 16]);
    let (mut ds, mut xs) = (d.chunks_exact(16), x.chunks_exact(16));
    for (d, x) in (&mut ds).zip(&mut xs) {
        for l in 0..16 {
            a[l] += d[l];
            b[l] += d[l] * (x[l] - mean);
        }
    }
    let (mut total, mut weighted) = (a.iter().sum::<f32>(), b.iter().sum::<f32>());
    for (d, x) in ds.remainder().iter().zip(xs.remainder()) {
        total += d;
        weighted += d * (x - mean);
    }
    (total, weighted)
}

/// One group of one sample: `out = silu(scale (x - mean)/std + shift)`.
struct Forward<'a> {
    epsilon: f32,
    silu: bool,
    x: &'a [f32],
    /// Of each channel of the group, as is `shift`.
    scale: &'a [f32],
    shift: &'a [f32],
    out: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let pixels = self.x.len() / self.scale.len();
        let (mean, rstd) = moments(self.x, self.epsilon);
        for (c, (out, x)) in self.out.chunks_exact_mut(pixels).zip(self.x.chunks_exact(pixels)).enumerate() {
            let a = self.scale[c] * rstd;
            let b = self.shift[c] - mean * a;
            if self.silu {
                for (o, v) in out.iter_mut().zip(x) {
                    let z = v.mul_add(a, b);
                    *o = z * sigmoid(z);
                }
            } else {
                for (o, v) in out.iter_mut().zip(x) {
                    *o = v.mul_add(a, b);
                }
            }
        }
    }
}

/// The gradients of one group of one sample.
struct Backward<'a> {
    epsilon: f32,
    silu: bool,
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    d_out: &'a [f32],
    dx: &'a mut [f32],
    /// Of each channel of the group: the gradients of its scale and shift.
    d_affine: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let pixels = self.x.len() / self.scale.len();
        let (mean, rstd) = moments(self.x, self.epsilon);
        let (mut sum_d, mut sum_dx) = (0f32, 0f32);
        for (c, (gamma, beta)) in self.scale.iter().zip(self.shift).enumerate() {
            let at = c * pixels..(c + 1) * pixels;
            let (x, d_out, dz) = (&self.x[at.clone()], &self.d_out[at.clone()], &mut self.dx[at]);
            // dz: the gradient where the affine map ends and SiLU begins
            if self.silu {
                let a = gamma * rstd;
                let b = beta - mean * a;
                for ((dz, v), d) in dz.iter_mut().zip(x).zip(d_out) {
                    let z = v.mul_add(a, b);
                    let s = sigmoid(z);
                    *dz = d * s * (1.0 + z * (1.0 - s));
                }
            } else {
                dz.copy_from_slice(d_out);
            }
            let (total, weighted) = sums(dz, x, mean);
            let normalised = weighted * rstd;
            self.d_affine[2 * c..2 * c + 2].copy_from_slice(&[normalised, total]);
            sum_d += gamma * total;
            sum_dx += gamma * normalised;
        }
        // dx = rstd (γ dz - mean(γ dz) - x̂ mean(γ dz x̂))
        let n = self.x.len() as f32;
        let slope = -rstd * rstd * sum_dx / n;
        let offset = -rstd * sum_d / n - slope * mean;
        for (c, gamma) in self.scale.iter().enumerate() {
            let a = rstd * gamma;
            let at = c * pixels..(c + 1) * pixels;
            for (d, v) in self.dx[at.clone()].iter_mut().zip(&self.x[at]) {
                *d = a.mul_add(*d, slope.mul_add(*v, offset));
            }
        }
    }
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "edgegen-group-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, scale, shift) = (as_f32(x, x_layout)?, as_f32(scale, scale_layout)?, as_f32(shift, shift_layout)?);
        let pixels: usize = x_layout.dims()[2..].iter().product();
        let channels = x_layout.dims()[1] / self.groups;
        let mut out = vec![0f32; x.len()];
        out.par_chunks_mut(channels * pixels)
            .zip(x.par_chunks(channels * pixels))
            .with_min_len(8)
            .enumerate()
            .for_each(|(i, (out, x))| {
                let first = i % self.groups * channels;
                let (scale, shift) = (&scale[first..][..channels], &shift[first..][..channels]);
                vectorised(Forward { epsilon: self.epsilon, silu: self.silu, x, scale, shift, out });
            });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _out: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, channels) = (x.dims()[0], x.dims()[1]);
        let d_out = d_out.contiguous()?;
        let (dx, d_scale, d_shift) = with_f32([x, scale, shift, &d_out], |[x, scale, shift, d_out]| {
            self.gradients(batch, channels, x, scale, shift, d_out)
        })?;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), device)?),
            Some(Tensor::from_vec(d_scale, channels, device)?),
            Some(Tensor::from_vec(d_shift, channels, device)?),
        ))
    }
}

impl GroupNorm {
    /// The gradients of x, scale and shift.
    fn gradients(
        &self,
        batch: usize,
        channels: usize,
        x: &[f32],
        scale: &[f32],
        shift: &[f32],
        d_out: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let pixels = x.len() / (batch * channels);
        let in_group = channels / self.groups;
        let len = in_group * pixels;
        let mut dx = vec![0f32; x.len()];
        // of every sample and channel: the gradient of the scale, then of the shift
        let mut d_affine = vec![0f32; batch * channels * 2];
        let affine_parts = Parts::of(&mut d_affine);
        dx.par_chunks_mut(len).enumerate().with_min_len(8).for_each(|(i, dx)| {
            let (x, d_out) = (&x[i * len..][..len], &d_out[i * len..][..len]);
            let first = i % self.groups * in_group;
            let (scale, shift) = (&scale[first..][..in_group], &shift[first..][..in_group]);
            // SAFETY: this sample's channels belong to this group alone; the range lies inside the buffer.
            let d_affine = unsafe { affine_parts.part(i * in_group * 2, in_group * 2) };
            let (epsilon, silu) = (self.epsilon, self.silu);
            vectorised(Backward { epsilon, silu, x, scale, shift, d_out, dx, d_affine });
        });
        let (mut d_scale, mut d_shift) = (vec![0f32; channels], vec![0f32; channels]);
        for sample in d_affine.chunks_exact(channels * 2) {
            for (c, pair) in sample.chunks_exact(2).enumerate() {
                d_scale[c] += pair[0];
                d_shift[c] += pair[1];
            }
        }
        (dx, d_scale, d_shift)
    }
}
