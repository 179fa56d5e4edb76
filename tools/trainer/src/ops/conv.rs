//! 2-D convolution as im2col and matrix products, parallel over the batch, with its gradient.

use super::shared::{Parts, as_f32, sum, with_f32};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;

thread_local! {
    /// Unfolded input and its gradient, kept from call to call.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// A strided matrix.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    row: usize,
    col: usize,
}

impl<'a> Matrix<'a> {
    fn rows(data: &'a [f32], width: usize) -> Self {
        Matrix { data, row: width, col: 1 }
    }

    fn transposed(self) -> Self {
        Matrix { data: self.data, row: self.col, col: self.row }
    }
}

/// `out[m, n] = a[m, k] b[k, n]`, or `+=` if `accumulate`, on the calling thread.
fn matmul(m: usize, n: usize, k: usize, out: &mut [f32], accumulate: bool, a: Matrix, b: Matrix) {
    let last = |x: &Matrix, rows: usize, cols: usize| (rows - 1) * x.row + (cols - 1) * x.col;
    assert!(out.len() >= m * n && last(&a, m, k) < a.data.len() && last(&b, k, n) < b.data.len());
    // SAFETY: the assertion keeps every access inside the three slices, and `out` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        )
    }
}

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    c_in: usize,
    c_out: usize,
    h: usize,
    w: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    h_out: usize,
    w_out: usize,
}

impl Geometry {
    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Rows of the unfolded input: one for every weight of an output channel.
    fn taps(&self) -> usize {
        self.c_in * self.kernel * self.kernel
    }

    fn pixels_out(&self) -> usize {
        self.h_out * self.w_out
    }

    fn input_len(&self) -> usize {
        self.c_in * self.h * self.w
    }

    /// For each row of the unfolded matrix and each output row: the unfolded row's range, the input row
    /// it comes from (`None` in the padding), and the tap's column.
    fn rows(&self) -> impl Iterator<Item = (usize, Option<usize>, usize)> + use<> {
        let g = *self;
        (0..g.taps()).flat_map(move |tap| {
            let (c, ky, kx) = (tap / (g.kernel * g.kernel), tap / g.kernel % g.kernel, tap % g.kernel);
            (0..g.h_out).map(move |oy| {
                let at = tap * g.pixels_out() + oy * g.w_out;
                let row = (oy * g.stride + ky).checked_sub(g.padding).filter(|iy| *iy < g.h);
                (at, row.map(|iy| (c * g.h + iy) * g.w), kx)
            })
        })
    }

    /// The output columns of tap column `kx` that read inside the input, for stride 1.
    fn inside(&self, kx: usize) -> (usize, usize) {
        let from = self.padding.saturating_sub(kx).min(self.w_out);
        let to = (self.w + self.padding - kx).min(self.w_out).max(from);
        (from, to)
    }

    fn unfold(&self, x: &[f32], unfolded: &mut [f32]) {
        for (at, row, kx) in self.rows() {
            let out = &mut unfolded[at..][..self.w_out];
            let Some(row) = row else {
                out.fill(0.0);
                continue;
            };
            let input = &x[row..][..self.w];
            if self.stride == 1 {
                let (from, to) = self.inside(kx);
                out[..from].fill(0.0);
                out[to..].fill(0.0);
                if to > from {
                    out[from..to].copy_from_slice(&input[from + kx - self.padding..to + kx - self.padding]);
                }
            } else {
                for (ox, o) in out.iter_mut().enumerate() {
                    let ix = (ox * self.stride + kx).checked_sub(self.padding);
                    *o = ix.and_then(|ix| input.get(ix)).copied().unwrap_or(0.0);
                }
            }
        }
    }

    /// The transpose of [`unfold`](Self::unfold): adds each unfolded number to where it came from.
    fn fold(&self, unfolded: &[f32], x: &mut [f32]) {
        for (at, row, kx) in self.rows() {
            let Some(row) = row else { continue };
            let from_row = &unfolded[at..][..self.w_out];
            let out = &mut x[row..][..self.w];
            if self.stride == 1 {
                let (from, to) = self.inside(kx);
                if to > from {
                    let out = &mut out[from + kx - self.padding..to + kx - self.padding];
                    for (o, v) in out.iter_mut().zip(&from_row[from..to]) {
                        *o += v;
                    }
                }
            } else {
                for (ox, v) in from_row.iter().enumerate() {
                    let ix = (ox * self.stride + kx).checked_sub(self.padding);
                    if let Some(o) = ix.and_then(|ix| out.get_mut(ix)) {
                        *o += v;
                    }
                }
            }
        }
    }
}

/// Convolution of x `[B, C_in, H, W]` with w `[C_out, C_in, k, k]`, plus a bias `[C_out]` or, one a
/// sample, `[B, C_out]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv2d {
    pub stride: usize,
    pub padding: usize,
    /// Whether the input's gradient is wanted: the first layer's is not.
    pub input_gradient: bool,
}

impl Conv2d {
    fn geometry(&self, x: &[usize], w: &[usize]) -> Geometry {
        let out = |size: usize| (size + 2 * self.padding - w[2]) / self.stride + 1;
        Geometry {
            c_in: x[1],
            c_out: w[0],
            h: x[2],
            w: x[3],
            kernel: w[2],
            stride: self.stride,
            padding: self.padding,
            h_out: out(x[2]),
            w_out: out(x[3]),
        }
    }
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "edgegen-conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, bias) = (as_f32(x, x_layout)?, as_f32(w, w_layout)?, as_f32(bias, bias_layout)?);
        let g = self.geometry(x_layout.dims(), w_layout.dims());
        let (batch, pixels, taps) = (x_layout.dims()[0], g.pixels_out(), g.taps());
        let per_sample_bias = bias_layout.dims().len() == 2;
        let mut out = vec![0f32; batch * g.c_out * pixels];
        out.par_chunks_mut(g.c_out * pixels).enumerate().for_each(|(i, out)| {
            let bias = if per_sample_bias { &bias[i * g.c_out..][..g.c_out] } else { bias };
            for (row, b) in out.chunks_exact_mut(pixels).zip(bias) {
                row.fill(*b);
            }
            let x = &x[i * g.input_len()..][..g.input_len()];
            if g.is_pointwise() {
                matmul(g.c_out, pixels, taps, out, true, Matrix::rows(w, taps), Matrix::rows(x, pixels));
                return;
            }
            SCRATCH.with_borrow_mut(|(unfolded, _)| {
                unfolded.resize(taps * pixels, 0.0);
                g.unfold(x, unfolded);
                matmul(g.c_out, pixels, taps, out, true, Matrix::rows(w, taps), Matrix::rows(unfolded, pixels));
            });
        });
        Ok((CpuStorage::F32(out), Shape::from((batch, g.c_out, g.h_out, g.w_out))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _out: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = self.geometry(x.dims(), w.dims());
        let batch = x.dims()[0];
        let d_out = d_out.contiguous()?;
        let (dx, dw, db) = with_f32([x, w, &d_out], |[x, w, d_out]| self.gradients(&g, batch, x, w, d_out))?;
        let device = x.device();
        let dx = self.input_gradient.then(|| Tensor::from_vec(dx, x.shape(), device)).transpose()?;
        let dw = Tensor::from_vec(dw, w.shape(), device)?;
        let db = Tensor::from_vec(db, (batch, g.c_out), device)?;
        let db = if bias.dims().len() == 2 { db } else { db.sum(0)? };
        Ok((dx, Some(dw), Some(db)))
    }
}

impl Conv2d {
    /// The gradients of x, of w, and of the bias of each sample.
    fn gradients(
        &self,
        g: &Geometry,
        batch: usize,
        x: &[f32],
        w: &[f32],
        d_out: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (pixels, taps) = (g.pixels_out(), g.taps());
        let mut dx = vec![0f32; if self.input_gradient { batch * g.input_len() } else { 0 }];
        let mut db = vec![0f32; batch * g.c_out];
        let (dx_parts, db_parts) = (Parts::of(&mut dx), Parts::of(&mut db));
        // Each thread sums the weights' gradient over its own samples. The split depends on the number of
        // threads alone, so a run is repeatable.
        let threads = rayon::current_num_threads().max(1);
        let share = batch.div_ceil(threads);
        let of_thread = |thread: usize| {
            let mut dw = vec![0f32; g.c_out * taps];
            SCRATCH.with_borrow_mut(|(unfolded, d_unfolded)| {
                unfolded.resize(taps * pixels, 0.0);
                d_unfolded.resize(taps * pixels, 0.0);
                for i in thread * share..((thread + 1) * share).min(batch) {
                    let dy = &d_out[i * g.c_out * pixels..][..g.c_out * pixels];
                    let x = &x[i * g.input_len()..][..g.input_len()];
                    // SAFETY: sample i belongs to this thread alone, and its range lies inside the buffer.
                    let db = unsafe { db_parts.part(i * g.c_out, g.c_out) };
                    for (d, row) in db.iter_mut().zip(dy.chunks_exact(pixels)) {
                        *d = sum(row);
                    }
                    let dy = Matrix::rows(dy, pixels);
                    let input = if g.is_pointwise() {
                        x
                    } else {
                        g.unfold(x, unfolded);
                        &*unfolded
                    };
                    matmul(g.c_out, taps, pixels, &mut dw, true, dy, Matrix::rows(input, pixels).transposed());
                    if self.input_gradient {
                        // SAFETY: as for db; without an input gradient the buffer is empty and not touched.
                        let dx = unsafe { dx_parts.part(i * g.input_len(), g.input_len()) };
                        let w = Matrix::rows(w, taps).transposed();
                        if g.is_pointwise() {
                            matmul(taps, pixels, g.c_out, dx, false, w, dy);
                        } else {
                            matmul(taps, pixels, g.c_out, d_unfolded, false, w, dy);
                            g.fold(d_unfolded, dx);
                        }
                    }
                }
            });
            dw
        };
        let partial: Vec<Vec<f32>> = (0..threads).into_par_iter().map(of_thread).collect();
        let dw = partial.into_iter().reduce(|mut total, part| {
            total.iter_mut().zip(&part).for_each(|(t, p)| *t += p);
            total
        });
        (dx, dw.expect("at least one thread"), db)
    }
}
