//! Nearest-neighbour up-sampling by two, with its gradient.

use super::shared::{as_f32, with_f32};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// x `[B, C, H, W]` to `[B, C, 2H, 2W]`, every pixel four times.
pub(super) struct Upsample2;

impl CustomOp1 for Upsample2 {
    fn name(&self) -> &'static str {
        "edgegen-upsample2"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = as_f32(x, layout)?;
        let (b, c, h, w) = layout.shape().dims4()?;
        let mut out = vec![0f32; x.len() * 4];
        out.par_chunks_mut(h * w * 4).zip(x.par_chunks(h * w)).with_min_len(64).for_each(|(out, x)| {
            for (rows, x) in out.chunks_exact_mut(4 * w).zip(x.chunks_exact(w)) {
                let (upper, lower) = rows.split_at_mut(2 * w);
                for (pair, v) in upper.chunks_exact_mut(2).zip(x) {
                    pair.fill(*v);
                }
                lower.copy_from_slice(upper);
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((b, c, 2 * h, 2 * w))))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, d_out: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        let d_out = d_out.contiguous()?;
        let dx = with_f32([&d_out], |[d_out]| {
            let mut dx = vec![0f32; d_out.len() / 4];
            dx.par_chunks_mut(h * w).zip(d_out.par_chunks(h * w * 4)).with_min_len(64).for_each(|(dx, d)| {
                for (dx, rows) in dx.chunks_exact_mut(w).zip(d.chunks_exact(4 * w)) {
                    let (upper, lower) = rows.split_at(2 * w);
                    for ((dx, a), b) in dx.iter_mut().zip(upper.chunks_exact(2)).zip(lower.chunks_exact(2)) {
                        *dx = a[0] + a[1] + b[0] + b[1];
                    }
                }
            });
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
