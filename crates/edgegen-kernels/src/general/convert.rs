//! Copies of values in other numbers.

use super::StridedLoops;
use crate::memory::{Memory, Part};
use crate::simd::Vector;
use crate::weights::Real;

/// Copies each number of the loops' second value to their first: those that lie together, a vector at a time.
///
/// # Panics
/// When a value does not lie within the memory, or numbers of the result lie in the same place.
#[inline(always)]
pub(crate) fn convert<S: Vector, A: Real, B: Real>(s: S, loops: &StridedLoops<2>, part: Part, memory: Memory) {
    assert!(loops.fits(0, B::len(memory)) && loops.fits(1, A::len(memory)) && loops.is_apart(1));
    let (loops, part) = loops.part(part, S::LANES);
    let (to, from) = (B::arena(memory), A::arena(memory).source());
    let (n, [to_step, from_step]) = loops.last();
    for [to_start, from_start] in loops.runs(part) {
        if [to_step, from_step] == [1, 1] {
            for i in (0..n).step_by(S::LANES) {
                // SAFETY: the assertion: so many numbers of the run are left.
                let v = unsafe { A::get_some(s, from, from_start + i, n - i) };
                // SAFETY: as above; other parts have other numbers.
                unsafe { B::put_some(s, to, to_start + i, n - i, v) }
            }
        } else {
            for i in 0..n {
                // SAFETY: the assertion.
                let v = unsafe { from.load::<A>(from_start + i * from_step) };
                // SAFETY: as above; other parts have other numbers.
                unsafe { to.store(to_start + i * to_step, B::from_f32(v.to_f32())) }
            }
        }
    }
}
