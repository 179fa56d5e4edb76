//! What makes one number of several.

use super::{CHUNK, StridedLoops};
use crate::memory::{Memory, Part};
use crate::pointer::Source;

/// What is made of each two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Least,
    Greatest,
    Power,
    /// The remainder of a division, with the sign of the first number.
    Remainder,
    /// The quotient of whole numbers, without its fraction.
    WholeQuotient,
    /// The remainder of whole numbers, with the sign of the second.
    WholeRemainder,
    /// The product where the first number is below 0, else the first.
    PRelu,
    /// 1 where it holds, 0 where not.
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

/// Something of every two numbers. Parts are of the runs of numbers that lie together, or of the one that there is.
#[inline(always)]
pub(crate) fn binary(f: Binary, loops: &StridedLoops<3>, part: Part, memory: Memory) {
    assert!((0..3).all(|v| loops.fits(v, memory.len())) && loops.is_apart(1));
    let truth = |v: bool| if v { 1.0 } else { 0.0 };
    match f {
        Binary::Add => both(loops, part, memory, |a, b| a + b),
        Binary::Subtract => both(loops, part, memory, |a, b| a - b),
        Binary::Multiply => both(loops, part, memory, |a, b| a * b),
        Binary::Divide => both(loops, part, memory, |a, b| a / b),
        Binary::Least => both(loops, part, memory, |a, b| if a < b || a.is_nan() { a } else { b }),
        Binary::Greatest => both(loops, part, memory, |a, b| if a > b || a.is_nan() { a } else { b }),
        Binary::Power => both(loops, part, memory, libm::powf),
        Binary::Remainder => both(loops, part, memory, libm::fmodf),
        Binary::WholeQuotient => both(loops, part, memory, |a, b| (a / b).trunc()),
        Binary::WholeRemainder => both(loops, part, memory, |a, b| {
            let rest = libm::fmodf(a, b);
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }),
        Binary::PRelu => both(loops, part, memory, |a, b| if a < 0.0 { a * b } else { a }),
        Binary::Equal => both(loops, part, memory, |a, b| truth(a == b)),
        Binary::Less => both(loops, part, memory, |a, b| truth(a < b)),
        Binary::LessOrEqual => both(loops, part, memory, |a, b| truth(a <= b)),
        Binary::Greater => both(loops, part, memory, |a, b| truth(a > b)),
        Binary::GreaterOrEqual => both(loops, part, memory, |a, b| truth(a >= b)),
        Binary::And => both(loops, part, memory, |a, b| truth(a != 0.0 && b != 0.0)),
        Binary::Or => both(loops, part, memory, |a, b| truth(a != 0.0 || b != 0.0)),
        Binary::Xor => both(loops, part, memory, |a, b| truth((a != 0.0) != (b != 0.0))),
    }
}

/// The number of the third value where that of the second is not 0, else that of the fourth. Parts are of the runs of numbers
/// that lie together, or of the one that there is.
#[inline(always)]
pub(crate) fn choose(loops: &StridedLoops<4>, part: Part, memory: Memory) {
    assert!((0..4).all(|v| loops.fits(v, memory.len())) && loops.is_apart(1));
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, test, a, b]) = loops.last();
    let (base, from) = (memory.arena(), memory.arena().source());
    for [o, t, x, y] in loops.runs(part) {
        for i in 0..n {
            // SAFETY: the assertion.
            let chosen: f32 = unsafe { from.load(t + i * test) };
            // SAFETY: the assertion.
            let v: f32 = unsafe { from.load(if chosen != 0.0 { x + i * a } else { y + i * b }) };
            // SAFETY: the assertion; other parts write elsewhere.
            unsafe { base.store(o + i * to, v) }
        }
    }
}

#[inline(always)]
fn both(loops: &StridedLoops<3>, part: Part, memory: Memory, f: impl Fn(f32, f32) -> f32) {
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, sa, sb]) = loops.last();
    let base = memory.arena();
    for [o, a, b] in loops.runs(part) {
        let mut i = 0;
        if to == 1 && sa <= 1 && sb <= 1 {
            while i + CHUNK <= n {
                // SAFETY: `binary` made sure that the values lie within the memory.
                let mut x = unsafe { chunk(base.source(), a + i * sa, sa) };
                // SAFETY: as above.
                let y = unsafe { chunk(base.source(), b + i * sb, sb) };
                for (x, y) in x.iter_mut().zip(y) {
                    *x = f(*x, y);
                }
                // SAFETY: as above; other parts write elsewhere.
                unsafe { base.store(o + i, x) }
                i += CHUNK;
            }
        }
        while i < n {
            // SAFETY: as above.
            let x = unsafe { base.source().load(a + i * sa) };
            // SAFETY: as above.
            let y = unsafe { base.source().load(b + i * sb) };
            // SAFETY: as above.
            unsafe { base.store(o + i * to, f(x, y)) }
            i += 1;
        }
    }
}

/// A chunk of numbers from `at` on, or of the one there if the stride is 0.
///
/// # Safety
/// They must be there.
#[inline(always)]
unsafe fn chunk(from: Source<f32>, at: usize, stride: usize) -> [f32; CHUNK] {
    if stride == 1 {
        // SAFETY: the caller's promise.
        unsafe { from.load(at) }
    } else {
        // SAFETY: the caller's promise.
        [unsafe { from.load(at) }; CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{loops, noisy, read};
    use super::*;
    use crate::Isa;
    use crate::arena::StridedView;

    #[test]
    fn strides_broadcasts_and_parts_are_right() {
        // a picture with channels last and a row of 3 more, a vector over channels, and a transposed one
        let a = StridedView::strided(5, vec![1, 20, 3, 4], vec![0, 1, 92, 22]);
        let b = StridedView::strided(700, vec![1, 20, 3, 4], vec![0, 1, 0, 0]);
        let o = StridedView::row_major(800, &[1, 20, 3, 4]);
        let before = noisy(1100);
        let (x, y) = (read(&a, &before), read(&b, &before));
        for isa in Isa::available() {
            for of in [1, 2, 5] {
                let mut memory = before.clone();
                for index in 0..of {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::binary(isa, Binary::Subtract, &loops([&o, &a, &b]), Part::new(index, of).unwrap(), m);
                }
                let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
                assert_eq!(read(&o, &memory), expected, "{isa:?}");
                // in place
                for index in 0..of {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::binary(isa, Binary::Multiply, &loops([&a, &a, &b]), Part::new(index, of).unwrap(), m);
                }
                let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x * y).collect();
                assert_eq!(read(&a, &memory), expected, "{isa:?}");
            }
        }
    }
}
