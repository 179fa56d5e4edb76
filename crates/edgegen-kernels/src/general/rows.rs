//! What makes a row of each row of numbers.

use super::functions::exp;
use super::{CHUNK, StridedLoops};
use crate::memory::{Memory, Part};

/// What is done to each row of numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum RowOp {
    /// e^x over its sum.
    Softmax,
    /// The logarithm of that.
    LogSoftmax,
    /// The mean taken away, over the standard deviation, times a scale plus a shift.
    LayerNorm { epsilon: f32, scale: Vec<f32>, shift: Vec<f32> },
    /// Over the root of the mean of squares, times a scale (arXiv 1910.07467).
    RmsNorm { epsilon: f32, scale: Vec<f32> },
    /// Over the root of the sum of squares, or over `least` if that is greater, times a scale.
    L2Norm { least: f32, scale: Vec<f32> },
}

impl RowOp {
    /// Whether there are as many weights as a row of `length` numbers needs.
    pub fn fits(&self, length: usize) -> bool {
        match self {
            RowOp::Softmax | RowOp::LogSoftmax => true,
            RowOp::LayerNorm { scale, shift, .. } => scale.len() == length && shift.len() == length,
            RowOp::RmsNorm { scale, .. } | RowOp::L2Norm { scale, .. } => scale.len() == length,
        }
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        match self {
            RowOp::Softmax | RowOp::LogSoftmax => 0,
            RowOp::LayerNorm { scale, shift, .. } => 4 * (scale.len() + shift.len()),
            RowOp::RmsNorm { scale, .. } | RowOp::L2Norm { scale, .. } => 4 * scale.len(),
        }
    }
}

/// Something to each run of `length` numbers that lie together. Parts are of the runs.
#[inline(always)]
pub(crate) fn rows(f: &RowOp, loops: &StridedLoops<2>, length: usize, part: Part, memory: Memory) {
    // the loops are over the rows' first numbers; the others follow them
    let left = length.checked_sub(1).and_then(|rest| memory.len().checked_sub(rest));
    assert!(left.is_some_and(|left| loops.fits(0, left) && loops.fits(1, left)) && loops.is_apart(length));
    assert!(f.fits(length));
    let (loops, part) = loops.part(part, 1);
    let (n, [to, from]) = loops.last();
    let base = memory.arena();
    for [o, x] in loops.runs(part) {
        for i in 0..n {
            let o = o + i * to;
            // SAFETY: the assertion; other parts write other rows.
            unsafe { base.copy_within(x + i * from, o, length) };
            // SAFETY: as above; nothing else uses the row until the next one.
            let out = unsafe { base.slice(o, length) };
            match f {
                RowOp::Softmax => {
                    let greatest = out.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
                    for v in &mut *out {
                        *v = exp(*v - greatest);
                    }
                    let total = 1.0 / sum(out, |v| v);
                    for v in out {
                        *v *= total;
                    }
                }
                RowOp::LogSoftmax => {
                    let greatest = out.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
                    let total = greatest + libm::logf(sum(out, |v| exp(v - greatest)));
                    for v in out {
                        *v -= total;
                    }
                }
                RowOp::RmsNorm { epsilon, scale } => {
                    let root = 1.0 / (sum(out, |v| v * v) / length as f32 + epsilon).sqrt();
                    for (v, a) in out.iter_mut().zip(scale) {
                        *v = *v * root * a;
                    }
                }
                RowOp::L2Norm { least, scale } => {
                    let norm = sum(out, |v| v * v).sqrt();
                    // what is no number stays so
                    let share = 1.0 / if norm < *least { *least } else { norm };
                    for (v, a) in out.iter_mut().zip(scale) {
                        *v = *v * share * a;
                    }
                }
                RowOp::LayerNorm { epsilon, scale, shift } => {
                    let mean = sum(out, |v| v) / length as f32;
                    let variance = sum(out, |v| (v - mean) * (v - mean)) / length as f32;
                    let root = 1.0 / (variance + epsilon).sqrt();
                    for ((v, a), b) in out.iter_mut().zip(scale).zip(shift) {
                        *v = (*v - mean) * root * a + b;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    let mut sums = [0f32; CHUNK];
    for chunk in chunks {
        for (sum, v) in sums.iter_mut().zip(chunk) {
            *sum += f(*v);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|v| f(*v)).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{loops, noisy, read};
    use super::*;
    use crate::Isa;
    use crate::arena::StridedView;

    #[test]
    fn rows_are_right() {
        let x = StridedView::strided(3, vec![2, 5, 37], vec![300, 40, 1]);
        let before = noisy(1200);
        let values = read(&x, &before);
        for isa in Isa::available() {
            let out = StridedView::row_major(700, &[2, 5, 37]);
            let first =
                |p: &StridedView| StridedView { dims: vec![2, 5], strides: p.strides[..2].to_vec(), ..p.clone() };
            let (scale, shift) = ((0..37).map(|i| i as f32).collect::<Vec<_>>(), vec![0.5; 37]);
            let kinds = [
                RowOp::Softmax,
                RowOp::LogSoftmax,
                RowOp::LayerNorm { epsilon: 1e-5, scale: scale.clone(), shift },
                RowOp::RmsNorm { epsilon: 1e-3, scale: scale.clone() },
                RowOp::L2Norm { least: 1e-12, scale: scale.clone() },
            ];
            for f in kinds {
                let mut memory = before.clone();
                let m = Memory::new(&mut memory, &mut []);
                for index in 0..2 {
                    crate::rows(isa, &f, &loops([&first(&out), &first(&x)]), 37, Part::new(index, 2).unwrap(), m);
                }
                for (x, y) in values.chunks(37).zip(read(&out, &memory).chunks(37)) {
                    let x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                    let mean = x.iter().sum::<f64>() / 37.0;
                    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 37.0;
                    let total: f64 = x.iter().map(|v| v.exp()).sum();
                    let squares: f64 = x.iter().map(|v| v * v).sum();
                    for (i, (x, y)) in x.iter().zip(y).enumerate() {
                        let exact = match f {
                            RowOp::Softmax => x.exp() / total,
                            RowOp::LogSoftmax => x - total.ln(),
                            RowOp::RmsNorm { .. } => x / (squares / 37.0 + 1e-3).sqrt() * i as f64,
                            RowOp::L2Norm { .. } => x / squares.sqrt() * i as f64,
                            _ => (x - mean) / (variance + 1e-5).sqrt() * i as f64 + 0.5,
                        };
                        assert!((f64::from(*y) - exact).abs() < 1e-5 * exact.abs().max(1.0), "{isa:?} {f:?}");
                    }
                }
            }
        }
    }
}
