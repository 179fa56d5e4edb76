//! Operators on values of any shape.

use crate::arena::Precision;
use crate::isa::Kind;
use crate::{Isa, Memory, Part, general, simd};
use half::f16;

dispatched! {
    /// Does something to every number of a value.
    ///
    /// # Panics
    /// When a value does not lie within the memory, or numbers of the result lie in the same place.
    unary[_s](f: general::Unary, loops: &general::StridedLoops<2>, part: Part, memory: Memory)
        general::unary(f, loops, part, memory)
}

dispatched! {
    /// Copies a value into another of the same or of other numbers. What is too large for 16 bits becomes infinite.
    ///
    /// # Panics
    /// As [`unary`].
    convert[s](from: Precision, to: Precision, loops: &general::StridedLoops<2>, part: Part, memory: Memory)
        match (from, to) {
            (Precision::F32, Precision::F32) => general::convert::<_, f32, f32>(s, loops, part, memory),
            (Precision::F32, Precision::F16) => general::convert::<_, f32, f16>(s, loops, part, memory),
            (Precision::F16, Precision::F32) => general::convert::<_, f16, f32>(s, loops, part, memory),
            (Precision::F16, Precision::F16) => general::convert::<_, f16, f16>(s, loops, part, memory),
        }
}

dispatched! {
    /// Makes one number of every two of two values.
    ///
    /// # Panics
    /// As [`unary`].
    binary[_s](f: general::Binary, loops: &general::StridedLoops<3>, part: Part, memory: Memory)
        general::binary(f, loops, part, memory)
}

dispatched! {
    /// The number of the second of three values where that of the first is not 0, else that of the third.
    ///
    /// # Panics
    /// As [`unary`].
    choose[_s](loops: &general::StridedLoops<4>, part: Part, memory: Memory) general::choose(loops, part, memory)
}

dispatched! {
    /// Makes one of many numbers.
    ///
    /// # Panics
    /// As [`unary`].
    reduce[_s](f: crate::reduce::Reduction, loops: &general::StridedLoops<2>, inner: &general::StridedLoops<1>, part: Part, memory: Memory)
        crate::reduce::run(f, loops, inner, part, memory)
}

dispatched! {
    /// Does something to each run of `length` numbers.
    ///
    /// # Panics
    /// As [`unary`].
    rows[_s](f: &general::RowOp, loops: &general::StridedLoops<2>, length: usize, part: Part, memory: Memory)
        general::rows(f, loops, length, part, memory)
}

dispatched! {
    /// Multiplies matrices, with `work` of their [`work_len`](general::MatMul::work_len).
    ///
    /// # Panics
    /// When a matrix does not lie within the memory, or `work` is too small.
    matmul[s](product: &general::MatMul, part: Part, work: &mut [f32], memory: Memory)
        general::matmul(s, product, part, work, memory)
}
