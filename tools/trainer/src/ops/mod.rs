//! The network's heavy operators, with gradients written by hand.
//!
//! candle's own convolution gradient on a CPU is 6 to 20 times slower than it need be, so on a CPU
//! these run as custom operators. On other devices they are composed of candle's own operators, in
//! forms whose gradients are fast there.

mod conv;
mod norm;
mod shared;
#[cfg(test)]
mod tests;
mod update;
mod upsample;

pub use update::{AdamUpdate, adam, mix, mix_square, sum_of_squares};

use candle_core::{Result, Tensor};
use candle_nn::Module;

const EPSILON: f64 = 1e-5;

/// Convolution of x `[B, C_in, H, W]` with w `[C_out, C_in, kh, kw]`, plus a bias `[C_out]` or `[B, C_out]`.
/// `padding` is above and below, left and right; `input_gradient` says whether x's gradient is wanted.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    stride: usize,
    padding: [usize; 2],
    input_gradient: bool,
) -> Result<Tensor> {
    if x.device().is_cpu() {
        let op = conv::Conv2d { stride, padding, input_gradient };
        return x.contiguous()?.apply_op3(&w.contiguous()?, &bias.contiguous()?, op);
    }
    let bias = match bias.dims() {
        [c] => bias.reshape((1, *c, 1, 1))?,
        _ => bias.reshape((bias.dim(0)?, bias.dim(1)?, 1, 1))?,
    };
    if x.dim(2)? == 1 && w.dim(2)? == 1 {
        let y = x.squeeze(2)?.conv1d(&w.squeeze(2)?, padding[1], stride, 1, 1)?;
        return y.unsqueeze(2)?.broadcast_add(&bias);
    }
    x.conv2d(w, padding[0], stride, 1, 1)?.broadcast_add(&bias)
}

/// Group normalisation of x `[B, C, …]` with scale and shift `[C]`, then SiLU if `silu`.
pub fn group_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, groups: usize, silu: bool) -> Result<Tensor> {
    if x.device().is_cpu() {
        let op = norm::GroupNorm { groups, epsilon: EPSILON as f32, silu };
        return x.contiguous()?.apply_op3(scale, shift, op);
    }
    let y = candle_nn::GroupNorm::new(scale.clone(), shift.clone(), x.dim(1)?, groups, EPSILON)?.forward(x)?;
    if silu { y.silu() } else { Ok(y) }
}

/// x `[B, C, H, W]` up-sampled to `[B, C, 2H, 2W]`, every pixel four times.
pub fn upsample2(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op1(upsample::Upsample2);
    }
    // by broadcasting: its gradient is a plain sum rather than a grouped convolution
    let (b, c, h, w) = x.dims4()?;
    x.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?.contiguous()?.reshape((b, c, 2 * h, 2 * w))
}

/// x `[B, C, H, W]` up-sampled to `[B, C, H, 2W]`, every pixel twice.
pub fn upsample2_wide(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    x.reshape((b, c, h, w, 1))?.broadcast_as((b, c, h, w, 2))?.contiguous()?.reshape((b, c, h, 2 * w))
}
