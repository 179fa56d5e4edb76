//! 2-D convolution as matrix products over unfolded pictures (im2col), parallel over the batch, with its gradient.
//!
//! Small pictures are taken several at a time, so that the matrices are large enough to multiply fast.

use super::shared::{Parts, as_f32, sum, vectorised, with_f32};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;

/// Columns that a matrix product should have: pictures with fewer pixels are taken several at a time.
const COLUMNS: usize = 192;

/// Parts in which the weights' gradient is summed. A fixed number, so that the sum does not depend on the
/// number of threads.
const PARTS: usize = 8;

/// Buffers of one thread, kept from call to call.
#[derive(Default)]
struct Scratch {
    /// The unfolded pictures, `[taps, columns]`.
    unfolded: Vec<f32>,
    /// Its gradient.
    d_unfolded: Vec<f32>,
    /// The output or its gradient with the pictures side by side, `[C_out, columns]`.
    beside: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { unfolded: Vec::new(), d_unfolded: Vec::new(), beside: Vec::new() })
    };
}

/// The first `len` numbers of a buffer that grows as needed; their values are left over from before.
fn at_least(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
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
    batch: usize,
    c_in: usize,
    c_out: usize,
    h: usize,
    w: usize,
    /// Height and width.
    kernel: [usize; 2],
    stride: usize,
    /// Above and below, left and right.
    padding: [usize; 2],
    h_out: usize,
    w_out: usize,
}

/// What one tap of the kernel reads: channel `c` of the input, shifted by `(ky, kx)` less the padding.
#[derive(Clone, Copy)]
struct Tap {
    index: usize,
    c: usize,
    ky: usize,
    kx: usize,
}

impl Geometry {
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == [0, 0]
    }

    /// Whether the output has the input's size, so that a tap reads the input plane as it lies, shifted.
    fn keeps_size(&self) -> bool {
        self.stride == 1 && self.h_out == self.h && self.w_out == self.w
    }

    /// Weights of an output channel: rows of the unfolded input.
    fn taps(&self) -> usize {
        self.c_in * self.kernel[0] * self.kernel[1]
    }

    fn pixels_out(&self) -> usize {
        self.h_out * self.w_out
    }

    fn input_len(&self) -> usize {
        self.c_in * self.h * self.w
    }

    fn output_len(&self) -> usize {
        self.c_out * self.pixels_out()
    }

    /// Pictures that are taken together.
    fn together(&self) -> usize {
        (COLUMNS / self.pixels_out()).clamp(1, self.batch.div_ceil(PARTS).max(1))
    }

    /// The convolution that takes the output's gradient to the input's, where that is one of the same kind:
    /// with each kernel turned about (see [`mirrored_weights`]).
    fn mirrored(&self) -> Option<Geometry> {
        (self.keeps_size() && !self.is_pointwise()).then_some(Geometry { c_in: self.c_out, c_out: self.c_in, ..*self })
    }

    fn each_tap(&self) -> impl Iterator<Item = Tap> {
        let [kh, kw] = self.kernel;
        (0..self.taps()).map(move |index| Tap { index, c: index / (kh * kw), ky: index / kw % kh, kx: index % kw })
    }

    /// For a convolution that keeps the size: the range of output pixels that read inside the input plane
    /// (up to wrapped columns), and the first pixel that they read.
    fn shifted(&self, tap: Tap) -> (std::ops::Range<usize>, usize) {
        let (forward, back) = (tap.ky * self.w + tap.kx, self.padding[0] * self.w + self.padding[1]);
        let (from, first) = (back.saturating_sub(forward), forward.saturating_sub(back));
        let plane = self.h * self.w;
        let count = plane.saturating_sub(from.max(first));
        (from.min(plane)..from.min(plane) + count, first.min(plane))
    }

    /// Sets to zero the columns in which a shifted tap reads across the edge of the plane.
    #[inline(always)]
    fn clear_wrapped(&self, tap: Tap, row: &mut [f32]) {
        let left = self.padding[1].saturating_sub(tap.kx).min(self.w);
        let right = tap.kx.saturating_sub(self.padding[1]).min(self.w);
        for line in row.chunks_exact_mut(self.w) {
            line[..left].iter_mut().for_each(|v| *v = 0.0);
            line[self.w - right..].iter_mut().for_each(|v| *v = 0.0);
        }
    }

    /// Writes one picture into the unfolded matrix, whose rows are `columns` wide, from column `at` on.
    #[inline(always)]
    fn unfold(&self, x: &[f32], unfolded: &mut [f32], columns: usize, at: usize) {
        for tap in self.each_tap() {
            let row = &mut unfolded[tap.index * columns + at..][..self.pixels_out()];
            let plane = &x[tap.c * self.h * self.w..][..self.h * self.w];
            if self.keeps_size() {
                let (inside, first) = self.shifted(tap);
                row[..inside.start].fill(0.0);
                row[inside.end..].fill(0.0);
                let count = inside.len();
                row[inside].copy_from_slice(&plane[first..first + count]);
                self.clear_wrapped(tap, row);
            } else {
                self.each_pixel(tap, |o, i| row[o] = i.map_or(0.0, |i| plane[i]));
            }
        }
    }

    /// The transpose of [`unfold`](Self::unfold): adds each unfolded number to where it came from.
    /// Numbers that came from the padding are overwritten.
    #[inline(always)]
    fn fold(&self, unfolded: &mut [f32], columns: usize, at: usize, x: &mut [f32]) {
        for tap in self.each_tap() {
            let row = &mut unfolded[tap.index * columns + at..][..self.pixels_out()];
            let plane = &mut x[tap.c * self.h * self.w..][..self.h * self.w];
            if self.keeps_size() {
                self.clear_wrapped(tap, row);
                let (inside, first) = self.shifted(tap);
                for (p, v) in plane[first..].iter_mut().zip(&row[inside]) {
                    *p += v;
                }
            } else {
                self.each_pixel(tap, |o, i| {
                    if let Some(i) = i {
                        plane[i] += row[o];
                    }
                });
            }
        }
    }

    /// Calls `f` with every output pixel and the input pixel that a tap reads for it, none in the padding.
    #[inline(always)]
    fn each_pixel(&self, tap: Tap, mut f: impl FnMut(usize, Option<usize>)) {
        for oy in 0..self.h_out {
            let iy = (oy * self.stride + tap.ky).checked_sub(self.padding[0]).filter(|iy| *iy < self.h);
            for ox in 0..self.w_out {
                let ix = (ox * self.stride + tap.kx).checked_sub(self.padding[1]).filter(|ix| *ix < self.w);
                f(oy * self.w_out + ox, iy.zip(ix).map(|(iy, ix)| iy * self.w + ix));
            }
        }
    }
}

/// Unfolds pictures side by side, on the widest vectors.
struct Unfold<'a> {
    geometry: &'a Geometry,
    x: &'a [f32],
    unfolded: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Unfold<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let g = self.geometry;
        let columns = self.x.len() / g.input_len() * g.pixels_out();
        for (i, x) in self.x.chunks_exact(g.input_len()).enumerate() {
            g.unfold(x, self.unfolded, columns, i * g.pixels_out());
        }
    }
}

/// The transpose of [`Unfold`]: adds to `x`.
struct Fold<'a> {
    geometry: &'a Geometry,
    unfolded: &'a mut [f32],
    x: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let g = self.geometry;
        let columns = self.x.len() / g.input_len() * g.pixels_out();
        for (i, x) in self.x.chunks_exact_mut(g.input_len()).enumerate() {
            g.fold(self.unfolded, columns, i * g.pixels_out(), x);
        }
    }
}

/// Convolution of x `[B, C_in, H, W]` with w `[C_out, C_in, kh, kw]`, plus a bias `[C_out]` or, one a
/// sample, `[B, C_out]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv2d {
    pub stride: usize,
    pub padding: [usize; 2],
    /// Whether the input's gradient is wanted: the first layer's is not.
    pub input_gradient: bool,
}

impl Conv2d {
    fn geometry(&self, x: &[usize], w: &[usize]) -> Geometry {
        let out = |size: usize, axis: usize| (size + 2 * self.padding[axis] - w[2 + axis]) / self.stride + 1;
        Geometry {
            batch: x[0],
            c_in: x[1],
            c_out: w[0],
            h: x[2],
            w: x[3],
            kernel: [w[2], w[3]],
            stride: self.stride,
            padding: self.padding,
            h_out: out(x[2], 0),
            w_out: out(x[3], 1),
        }
    }
}

/// The bias of one sample: `bias` holds one number a channel, or one a sample and channel.
#[inline(always)]
fn bias_of(bias: &[f32], per_sample: bool, sample: usize, channels: usize) -> &[f32] {
    if per_sample { &bias[sample * channels..][..channels] } else { bias }
}

/// The output of a few pictures: `out[b, c, :] = w x + bias`.
fn forward(g: &Geometry, first: usize, x: &[f32], w: &[f32], bias: &[f32], per_sample: bool, out: &mut [f32]) {
    let (pixels, taps) = (g.pixels_out(), g.taps());
    let count = out.len() / g.output_len();
    SCRATCH.with_borrow_mut(|scratch| {
        if count == 1 {
            for (row, b) in out.chunks_exact_mut(pixels).zip(bias_of(bias, per_sample, first, g.c_out)) {
                row.fill(*b);
            }
            let input = if g.is_pointwise() { x } else { unfold(g, x, &mut scratch.unfolded) };
            matmul(g.c_out, pixels, taps, out, true, Matrix::rows(w, taps), Matrix::rows(input, pixels));
            return;
        }
        let columns = count * pixels;
        let beside = at_least(&mut scratch.beside, g.c_out * columns);
        let input = unfold(g, x, &mut scratch.unfolded);
        matmul(g.c_out, columns, taps, beside, false, Matrix::rows(w, taps), Matrix::rows(input, columns));
        for (i, out) in out.chunks_exact_mut(g.output_len()).enumerate() {
            let bias = bias_of(bias, per_sample, first + i, g.c_out);
            for (c, (out, bias)) in out.chunks_exact_mut(pixels).zip(bias).enumerate() {
                for (o, v) in out.iter_mut().zip(&beside[c * columns + i * pixels..][..pixels]) {
                    *o = v + bias;
                }
            }
        }
    });
}

/// The pictures x unfolded side by side, in `buffer`.
fn unfold<'a>(g: &Geometry, x: &[f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
    let unfolded = at_least(buffer, g.taps() * g.pixels_out() * (x.len() / g.input_len()));
    vectorised(Unfold { geometry: g, x, unfolded });
    unfolded
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
        let per_sample = bias_layout.dims().len() == 2;
        let together = g.together();
        let mut out = vec![0f32; g.batch * g.output_len()];
        out.par_chunks_mut(together * g.output_len())
            .zip(x.par_chunks(together * g.input_len()))
            .enumerate()
            .for_each(|(i, (out, x))| forward(&g, i * together, x, w, bias, per_sample, out));
        Ok((CpuStorage::F32(out), Shape::from((g.batch, g.c_out, g.h_out, g.w_out))))
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
        let d_out = d_out.contiguous()?;
        // those of a network that stays as it is are plain numbers
        let weight_gradient = w.track_op();
        let (dx, dw, db) =
            with_f32([x, w, &d_out], |[x, w, d_out]| gradients(&g, self.input_gradient, weight_gradient, x, w, d_out))?;
        let device = x.device();
        let dx = self.input_gradient.then(|| Tensor::from_vec(dx, x.shape(), device)).transpose()?;
        let dw = weight_gradient.then(|| Tensor::from_vec(dw, w.shape(), device)).transpose()?;
        let db = Tensor::from_vec(db, (g.batch, g.c_out), device)?;
        let db = if bias.dims().len() == 2 { db } else { db.sum(0)? };
        Ok((dx, dw, Some(db)))
    }
}

/// The gradients of x, of w, and of the bias of each sample.
fn gradients(
    g: &Geometry,
    dx_wanted: bool,
    dw_wanted: bool,
    x: &[f32],
    w: &[f32],
    d_out: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let mut dx = vec![0f32; if dx_wanted { g.batch * g.input_len() } else { 0 }];
    let mut db = vec![0f32; g.batch * g.c_out];
    let (dx_parts, db_parts) = (Parts::of(&mut dx), Parts::of(&mut db));
    // One large product for the gradient of x is faster than many small ones that are then folded.
    let mirrored = g.mirrored().filter(|_| dx_wanted).map(|mirrored| (mirrored, mirrored_weights(g, w)));
    let no_bias = vec![0.0; g.c_in];
    let share = g.batch.div_ceil(PARTS);
    let of_part = |part: usize| {
        let mut dw = vec![0f32; if dw_wanted { g.c_out * g.taps() } else { 0 }];
        let end = ((part + 1) * share).min(g.batch);
        for first in (part * share..end).step_by(g.together()) {
            let count = g.together().min(end - first);
            // SAFETY: these pictures belong to this part alone, and their ranges lie inside the buffers.
            let db = unsafe { db_parts.part(first * g.c_out, count * g.c_out) };
            // SAFETY: as above; where no gradient of x is wanted, the buffer is empty and so is the range.
            let dx = dx_wanted.then(|| unsafe { dx_parts.part(first * g.input_len(), count * g.input_len()) });
            let x = &x[first * g.input_len()..][..count * g.input_len()];
            let d_out = &d_out[first * g.output_len()..][..count * g.output_len()];
            match (&mirrored, dx) {
                (Some((mirrored, w)), Some(dx)) => {
                    backward(g, x, &[], d_out, &mut dw, db, None);
                    forward(mirrored, first, d_out, w, &no_bias, false, dx);
                }
                (_, dx) => backward(g, x, w, d_out, &mut dw, db, dx),
            }
        }
        dw
    };
    let partial: Vec<Vec<f32>> = (0..PARTS.min(g.batch)).into_par_iter().map(of_part).collect();
    let mut partial = partial.into_iter();
    let mut dw = partial.next().unwrap_or_default();
    let partial: Vec<_> = partial.collect();
    dw.par_chunks_mut(1 << 14).enumerate().for_each(|(i, dw)| {
        for part in &partial {
            for (total, v) in dw.iter_mut().zip(&part[i << 14..]) {
                *total += v;
            }
        }
    });
    (dx, dw, db)
}

/// The weights of [`Geometry::mirrored`]: `[C_in, C_out, kh, kw]`, each kernel turned by 180°.
fn mirrored_weights(g: &Geometry, w: &[f32]) -> Vec<f32> {
    let area = g.kernel[0] * g.kernel[1];
    let mut mirrored = Vec::with_capacity(w.len());
    for c_in in 0..g.c_in {
        for c_out in 0..g.c_out {
            mirrored.extend(w[(c_out * g.c_in + c_in) * area..][..area].iter().rev());
        }
    }
    mirrored
}

/// The gradients of a few pictures: adds to dw, which is empty where it is not wanted, writes db, and adds to dx, which begins
/// as zeros.
fn backward(g: &Geometry, x: &[f32], w: &[f32], d_out: &[f32], dw: &mut [f32], db: &mut [f32], dx: Option<&mut [f32]>) {
    let (pixels, taps) = (g.pixels_out(), g.taps());
    let count = x.len() / g.input_len();
    let columns = count * pixels;
    for (db, row) in db.iter_mut().zip(d_out.chunks_exact(pixels)) {
        *db = sum(row);
    }
    SCRATCH.with_borrow_mut(|Scratch { unfolded, d_unfolded, beside }| {
        let dy = if count == 1 {
            d_out
        } else {
            let beside = at_least(beside, g.c_out * columns);
            for (i, picture) in d_out.chunks_exact(g.output_len()).enumerate() {
                for (c, row) in picture.chunks_exact(pixels).enumerate() {
                    beside[c * columns + i * pixels..][..pixels].copy_from_slice(row);
                }
            }
            beside
        };
        let dy = Matrix::rows(dy, columns);
        let pointwise = g.is_pointwise() && count == 1;
        if !dw.is_empty() {
            let input = if pointwise { x } else { unfold(g, x, unfolded) };
            matmul(g.c_out, taps, columns, dw, true, dy, Matrix::rows(input, columns).transposed());
        }
        if let Some(dx) = dx {
            let w = Matrix::rows(w, taps).transposed();
            if pointwise {
                matmul(taps, columns, g.c_out, dx, false, w, dy);
            } else {
                let unfolded = at_least(d_unfolded, taps * columns);
                matmul(taps, columns, g.c_out, unfolded, false, w, dy);
                vectorised(Fold { geometry: g, unfolded, x: dx });
            }
        }
    });
}
