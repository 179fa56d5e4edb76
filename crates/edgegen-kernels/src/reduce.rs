//! One number of many: sums, means, extremes and norms over some of a value's dimensions.

use super::general::StridedLoops;
use super::memory::{Memory, Part};

/// What is made of many numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Mean,
    Product,
    /// The greatest; one that is not a number stays.
    Max,
    /// The least; one that is not a number stays.
    Min,
    /// The sum of absolute values.
    L1,
    /// The root of the sum of squares.
    L2,
    SumSquare,
    /// The logarithm of the sum.
    LogSum,
    /// The logarithm of the sum of the exponentials.
    LogSumExp,
}

/// Numbers that are worked on at a time.
const CHUNK: usize = 16;

/// Makes a number of those that `inner` goes over from each of the second value of `loops` on. Parts are of the results.
#[inline(always)]
pub(super) fn run(f: Reduction, loops: &StridedLoops<2>, inner: &StridedLoops<1>, part: Part, memory: Memory) {
    // the loops are over the first number of each result; the others lie at most so far behind it
    let reach = inner.end(0).and_then(|end| end.checked_sub(1));
    let left = reach.and_then(|reach| memory.len().checked_sub(reach));
    assert!(inner.starts() == [0] && left.is_some_and(|left| loops.fits(1, left)));
    assert!(loops.fits(0, memory.len()) && loops.is_apart(1));
    let share = 1.0 / inner.len() as f32;
    let sum = |a: f32, b: f32| a + b;
    let of = (loops, inner, part, memory);
    match f {
        Reduction::Sum => each(of, 0.0, sum, sum, |v| v),
        Reduction::Mean => each(of, 0.0, sum, sum, |v| v * share),
        Reduction::Product => each(of, 1.0, |a, b| a * b, |a, b| a * b, |v| v),
        Reduction::Max => {
            let max = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
            each(of, f32::NEG_INFINITY, max, max, |v| v);
        }
        Reduction::Min => {
            let min = |a: f32, b: f32| if b < a || b.is_nan() { b } else { a };
            each(of, f32::INFINITY, min, min, |v| v);
        }
        Reduction::L1 => each(of, 0.0, |a, v| a + v.abs(), sum, |v| v),
        Reduction::L2 => each(of, 0.0, |a, v| a + v * v, sum, f32::sqrt),
        Reduction::SumSquare => each(of, 0.0, |a, v| a + v * v, sum, |v| v),
        Reduction::LogSum => each(of, 0.0, sum, sum, libm::logf),
        Reduction::LogSumExp => log_sum_exp(of),
    }
}

/// Over what a reduction goes, which part of it, and where it lies: [`run`] has checked that.
type Of<'a> = (&'a StridedLoops<2>, &'a StridedLoops<1>, Part, Memory<'a>);

/// Starts each result from `first`, takes numbers in by `add`, brings partial results together by `join`, and ends by `finish`.
#[inline(always)]
fn each(
    (loops, inner, part, memory): Of,
    first: f32,
    add: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
    finish: impl Fn(f32) -> f32,
) {
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, from]) = loops.last();
    let (length, [step]) = inner.last();
    let base = memory.arena();
    for [o, x] in loops.runs(part) {
        let mut i = 0;
        // neighbouring results of neighbouring numbers
        while from == 1 && i + CHUNK <= n {
            let mut all = [first; CHUNK];
            for [r] in inner.runs(Part::WHOLE) {
                for k in 0..length {
                    // SAFETY: `run` made sure that all of them lie within the memory.
                    let v: [f32; CHUNK] = unsafe { base.source().load(x + i + r + k * step) };
                    for (all, v) in all.iter_mut().zip(v) {
                        *all = add(*all, v);
                    }
                }
            }
            for (j, all) in all.into_iter().enumerate() {
                // SAFETY: as above; other parts write elsewhere.
                unsafe { base.store(o + (i + j) * to, finish(all)) }
            }
            i += CHUNK;
        }
        while i < n {
            let mut all = first;
            for [r] in inner.runs(Part::WHOLE) {
                let from = base.source().skip(x + i * from + r);
                let (mut lanes, mut k) = ([first; CHUNK], 0);
                while step == 1 && k + CHUNK <= length {
                    // SAFETY: as above.
                    let v: [f32; CHUNK] = unsafe { from.load(k) };
                    for (lane, v) in lanes.iter_mut().zip(v) {
                        *lane = add(*lane, v);
                    }
                    k += CHUNK;
                }
                while k < length {
                    // SAFETY: as above.
                    lanes[k % CHUNK] = add(lanes[k % CHUNK], unsafe { from.load(k * step) });
                    k += 1;
                }
                all = join(all, lanes.into_iter().fold(first, &join));
            }
            // SAFETY: as above; other parts write elsewhere.
            unsafe { base.store(o + i * to, finish(all)) }
            i += 1;
        }
    }
}

/// ln Σ e^x, with the greatest number taken away first, so that nothing overflows.
#[inline(always)]
fn log_sum_exp((loops, inner, part, memory): Of) {
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, from]) = loops.last();
    let (length, [step]) = inner.last();
    let base = memory.arena();
    for [o, x] in loops.runs(part) {
        for i in 0..n {
            let at = |r: usize, k: usize| x + i * from + r + k * step;
            let mut greatest = f32::NEG_INFINITY;
            for [r] in inner.runs(Part::WHOLE) {
                for k in 0..length {
                    // SAFETY: `run` made sure that all of them lie within the memory.
                    let v: f32 = unsafe { base.source().load(at(r, k)) };
                    greatest = if v > greatest || v.is_nan() { v } else { greatest };
                }
            }
            // what is infinite cannot be taken away from itself
            let away = if greatest.is_finite() { greatest } else { 0.0 };
            let mut sum = 0.0;
            for [r] in inner.runs(Part::WHOLE) {
                for k in 0..length {
                    // SAFETY: as above.
                    let v: f32 = unsafe { base.source().load(at(r, k)) };
                    sum += libm::expf(v - away);
                }
            }
            // SAFETY: as above; other parts write elsewhere.
            unsafe { base.store(o + i * to, away + libm::logf(sum)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::tests::Noise;

    #[test]
    fn reductions_are_right() {
        type Exact = fn(&[f64]) -> f64;
        let kinds: [(Reduction, Exact); 10] = [
            (Reduction::Sum, |v| v.iter().sum()),
            (Reduction::Mean, |v| v.iter().sum::<f64>() / v.len() as f64),
            (Reduction::Product, |v| v.iter().product()),
            (Reduction::Max, |v| v.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b))),
            (Reduction::Min, |v| v.iter().fold(f64::INFINITY, |a, b| a.min(*b))),
            (Reduction::L1, |v| v.iter().map(|v| v.abs()).sum()),
            (Reduction::L2, |v| v.iter().map(|v| v * v).sum::<f64>().sqrt()),
            (Reduction::SumSquare, |v| v.iter().map(|v| v * v).sum()),
            (Reduction::LogSum, |v| v.iter().sum::<f64>().ln()),
            (Reduction::LogSumExp, |v| v.iter().map(|v| v.exp()).sum::<f64>().ln()),
        ];
        // a value of 3 × 5 × 37, reduced over each set of dimensions, its numbers lying in two orders
        let dims = [3usize, 5, 37];
        for (strides, axes) in [[200, 37, 1], [1, 3, 15]].into_iter().flat_map(|s| (1..8usize).map(move |a| (s, a))) {
            let (inner, outer): (Vec<usize>, Vec<usize>) = (0..3).partition(|d| axes >> d & 1 == 1);
            let of = |all: &[usize], which: &[usize]| which.iter().map(|d| all[*d]).collect::<Vec<_>>();
            let count: usize = of(&dims, &outer).iter().product();
            let to = crate::arena::row_major(&of(&dims, &outer));
            let loops = StridedLoops::new(&of(&dims, &outer), [(700, &to), (2, &of(&strides, &outer))]).unwrap();
            let over = StridedLoops::new(&of(&dims, &inner), [(0, &of(&strides, &inner))]).unwrap();
            let mut before = vec![0.0; 900];
            Noise::new(3, axes as u64).fill(&mut before);
            before.iter_mut().for_each(|v| *v = v.abs() * 0.5 + 0.5);
            for (f, exact) in kinds {
                for isa in Isa::available() {
                    let mut memory = before.clone();
                    for index in 0..2 {
                        let m = Memory::new(&mut memory, &mut []);
                        crate::reduce(isa, f, &loops, &over, Part::new(index, 2).unwrap(), m);
                    }
                    for i in 0..count {
                        let mut values = Vec::new();
                        for a in 0..dims.iter().product::<usize>() {
                            let index = [a / 185, a / 37 % 5, a % 37];
                            let place: usize = outer.iter().zip(&to).map(|(d, s)| index[*d] * s).sum();
                            if place == i {
                                let at: usize = index.iter().zip(strides).map(|(i, s)| i * s).sum();
                                values.push(f64::from(before[2 + at]));
                            }
                        }
                        let (got, right) = (f64::from(memory[700 + i]), exact(&values));
                        assert!(
                            (got - right).abs() <= 2e-5 * right.abs().max(1e-6),
                            "{isa:?} {f:?} {axes}: {got} {right}"
                        );
                    }
                }
            }
        }
    }
}
