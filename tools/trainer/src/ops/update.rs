//! Updates of parameters and their running means, in place and in parallel on a CPU.

use super::shared::{as_f32, with_f32};
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

/// Numbers that one thread updates at a time.
const CHUNK: usize = 1 << 14;

/// The numbers of a contiguous f32 CPU storage, to be changed.
fn as_f32_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((from, to))) => Ok(&mut v[from..to]),
        _ => bail!("a contiguous f32 tensor is needed"),
    }
}

/// `mean = keep mean + add x`, or `+ add x²` if `squared`.
struct Mix {
    keep: f32,
    add: f32,
    squared: bool,
}

impl InplaceOp2 for Mix {
    fn name(&self) -> &'static str {
        "edgegen-mix"
    }

    fn cpu_fwd(&self, mean: &mut CpuStorage, layout: &Layout, x: &CpuStorage, x_layout: &Layout) -> Result<()> {
        let (mean, x) = (as_f32_mut(mean, layout)?, as_f32(x, x_layout)?);
        let Mix { keep, add, squared } = *self;
        mean.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(mean, x)| {
            if squared {
                mean.iter_mut().zip(x).for_each(|(m, x)| *m = keep * *m + add * (x * x));
            } else {
                mean.iter_mut().zip(x).for_each(|(m, x)| *m = keep * *m + add * x);
            }
        });
        Ok(())
    }
}

/// `mean = keep mean + add x`.
pub fn mix(mean: &mut Tensor, x: &Tensor, keep: f64, add: f64) -> Result<()> {
    if mean.device().is_cpu() {
        return mean.inplace_op2(&x.contiguous()?, &Mix { keep: keep as f32, add: add as f32, squared: false });
    }
    *mean = ((&*mean * keep)? + (x * add)?)?.detach();
    Ok(())
}

/// `mean = keep mean + add x²`.
pub fn mix_square(mean: &mut Tensor, x: &Tensor, keep: f64, add: f64) -> Result<()> {
    if mean.device().is_cpu() {
        return mean.inplace_op2(&x.contiguous()?, &Mix { keep: keep as f32, add: add as f32, squared: true });
    }
    *mean = ((&*mean * keep)? + (x.sqr()? * add)?)?.detach();
    Ok(())
}

/// The numbers of one step of Adam: `w = keep w - rate (mean · mean_scale) / (√(square · square_scale) + epsilon)`.
#[derive(Clone, Copy, Debug)]
pub struct AdamUpdate {
    /// What weight decay leaves of the weight.
    pub keep: f64,
    /// The learning rate.
    pub rate: f64,
    /// Undoes the bias of the running mean.
    pub mean_scale: f64,
    /// Undoes the bias of the running mean of squares.
    pub square_scale: f64,
    /// Keeps the quotient finite.
    pub epsilon: f64,
}

impl InplaceOp3 for AdamUpdate {
    fn name(&self) -> &'static str {
        "edgegen-adam"
    }

    fn cpu_fwd(
        &self,
        w: &mut CpuStorage,
        layout: &Layout,
        mean: &CpuStorage,
        mean_layout: &Layout,
        square: &CpuStorage,
        square_layout: &Layout,
    ) -> Result<()> {
        let w = as_f32_mut(w, layout)?;
        let (mean, square) = (as_f32(mean, mean_layout)?, as_f32(square, square_layout)?);
        let (keep, epsilon) = (self.keep as f32, self.epsilon as f32);
        let (rate, square_scale) = ((self.rate * self.mean_scale) as f32, self.square_scale as f32);
        let chunks = w.par_chunks_mut(CHUNK).zip(mean.par_chunks(CHUNK)).zip(square.par_chunks(CHUNK));
        chunks.for_each(|((w, mean), square)| {
            for ((w, m), s) in w.iter_mut().zip(mean).zip(square) {
                *w = keep * *w - rate * m / ((s * square_scale).sqrt() + epsilon);
            }
        });
        Ok(())
    }
}

/// Updates a weight from the running means of its gradient and of its square.
pub fn adam(w: &Var, mean: &Tensor, square: &Tensor, update: AdamUpdate) -> Result<()> {
    if w.device().is_cpu() {
        return w.as_tensor().inplace_op3(mean, square, &update);
    }
    let AdamUpdate { keep, rate, mean_scale, square_scale, epsilon } = update;
    let change = ((mean * mean_scale)? / ((square * square_scale)?.sqrt()? + epsilon)?)?;
    w.set(&((w.as_tensor() * keep)? - (change * rate)?)?)
}

/// `Σ x²`.
pub fn sum_of_squares(x: &Tensor) -> Result<f64> {
    if !x.device().is_cpu() {
        return Ok(f64::from(x.sqr()?.sum_all()?.to_scalar::<f32>()?));
    }
    with_f32([&x.contiguous()?], |[x]| {
        let of_chunk = |chunk: &[f32]| chunk.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        // added up in order, so that the sum does not depend on the threads
        x.par_chunks(CHUNK).map(of_chunk).collect::<Vec<f64>>().into_iter().sum()
    })
}
