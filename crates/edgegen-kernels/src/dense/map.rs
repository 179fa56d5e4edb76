//! What is done to pictures number by number.

use super::functions::silu;
use crate::arena::ImageView;
use crate::conv8::QuantParams;
use crate::memory::{Memory, Part};
use crate::pointer::Source;
use crate::simd::{Dot, Simd, Vector};
use crate::weights::Real;

/// Where a result goes: as it is, or rounded to levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// A picture in 32 or in 16 bits.
    Float(ImageView),
    /// A picture in 8 bits.
    Quantized(ImageView, QuantParams),
}

impl Output {
    /// The picture.
    pub fn view(self) -> ImageView {
        let (Output::Float(view) | Output::Quantized(view, _)) = self;
        view
    }

    /// Whether it lies within the memory, in such numbers if it is not in 8 bits.
    pub(super) fn fits<T: Real>(self, memory: Memory) -> bool {
        match self {
            Output::Float(view) => memory.holds::<T>(view),
            Output::Quantized(view, _) => view.fits(memory.bytes_len()),
        }
    }

    /// Whole vectors of channels to number `at`.
    ///
    /// # Safety
    /// They must lie within the memory, and no other thread read or write them.
    #[inline(always)]
    unsafe fn put<D: Dot, T: Real, const V: usize>(
        self,
        d: D,
        memory: Memory,
        at: usize,
        values: [<D::S as Vector>::F; V],
    ) {
        match self {
            Output::Float(_) => {
                let to = T::arena(memory).skip(at);
                for (v, &value) in values.iter().enumerate() {
                    // SAFETY: the caller's promise.
                    unsafe { T::put(d.simd(), to, v * D::LANES, value) }
                }
            }
            // SAFETY: the caller's promise.
            Output::Quantized(_, levels) => unsafe { levels.store(d, memory.bytes(), at, values) },
        }
    }

    /// The first `n` < `LANES` channels of a vector to number `at`.
    ///
    /// # Safety
    /// As [`put`](Self::put)'s.
    #[inline(always)]
    unsafe fn put_part<D: Dot, T: Real>(self, d: D, memory: Memory, at: usize, value: <D::S as Vector>::F, n: usize) {
        match self {
            // SAFETY: the caller's promise.
            Output::Float(_) => unsafe { T::put_part(d.simd(), T::arena(memory), at, value, n) },
            // SAFETY: the caller's promise.
            Output::Quantized(_, levels) => unsafe { levels.store_part(d, memory.bytes(), at, value, n) },
        }
    }
}

/// Something that is done to numbers one by one.
pub(super) trait Each<S: Simd>: Copy {
    /// What is done to the pixel at (y, x).
    #[inline(always)]
    fn at(self, _y: usize, _x: usize) -> Self {
        self
    }

    /// To a vector of channels from `c` on, of which `part` are there, or all.
    ///
    /// # Safety
    /// What else is read of those channels must be there.
    unsafe fn each(self, s: S, v: S::F, c: usize, part: Option<usize>) -> S::F;
}

/// Does `f` to the `count` channels of a pixel, the first of which is number `from`, into those from number
/// `to` on.
///
/// # Safety
/// Both must lie within the memory, what `f` reads be there, and no other thread read or write the result.
#[inline(always)]
unsafe fn channels<D: Dot, T: Real>(
    d: D,
    f: impl Each<D::S>,
    from: usize,
    (output, to): (Output, usize),
    count: usize,
    memory: Memory,
) {
    let (s, from, mut c) = (d.simd(), T::arena(memory).source().skip(from), 0);
    while c + 4 * D::LANES <= count {
        // SAFETY: the caller's promise: so many channels are left.
        let mut values: [<D::S as Vector>::F; 4] = unsafe { T::load(s, from, c) };
        for (v, value) in values.iter_mut().enumerate() {
            // SAFETY: as above.
            *value = unsafe { f.each(s, *value, c + v * D::LANES, None) };
        }
        // SAFETY: as above.
        unsafe { output.put::<D, T, 4>(d, memory, to + c, values) }
        c += 4 * D::LANES;
    }
    while c + D::LANES <= count {
        // SAFETY: as above.
        let value = unsafe { T::get(s, from, c) };
        // SAFETY: as above.
        let value = unsafe { f.each(s, value, c, None) };
        // SAFETY: as above.
        unsafe { output.put::<D, T, 1>(d, memory, to + c, [value]) }
        c += D::LANES;
    }
    if c < count {
        let left = count - c;
        // SAFETY: as above.
        let value = unsafe { T::get_part(s, from, c, left) };
        // SAFETY: as above.
        let value = unsafe { f.each(s, value, c, Some(left)) };
        // SAFETY: as above.
        unsafe { output.put_part::<D, T>(d, memory, to + c, value, left) }
    }
}

/// What is done to every number of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Map {
    /// Nothing.
    Copy,
    /// SiLU.
    Silu,
    /// Rounding to levels.
    Round(QuantParams),
    /// The number of another picture is added.
    Add(ImageView),
}

#[derive(Clone, Copy)]
struct Copied;

#[derive(Clone, Copy)]
struct Silu;

#[derive(Clone, Copy)]
struct Rounded(QuantParams);

/// The numbers of this picture are added, from its pixel on.
#[derive(Clone, Copy)]
struct Added<'a, T>(Source<'a, T>, ImageView);

/// `x · factor + offset` of each channel, then SiLU if that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a, const SILU: bool> {
    pub(super) factor: Source<'a, f32>,
    pub(super) offset: Source<'a, f32>,
}

impl<S: Simd> Each<S> for Copied {
    #[inline(always)]
    unsafe fn each(self, _: S, v: S::F, _: usize, _: Option<usize>) -> S::F {
        v
    }
}

impl<S: Simd> Each<S> for Silu {
    #[inline(always)]
    unsafe fn each(self, s: S, v: S::F, _: usize, _: Option<usize>) -> S::F {
        silu(s, v)
    }
}

impl<S: Simd> Each<S> for Rounded {
    #[inline(always)]
    unsafe fn each(self, s: S, v: S::F, _: usize, _: Option<usize>) -> S::F {
        self.0.round_all(s, v)
    }
}

impl<S: Simd, T: Real> Each<S> for Added<'_, T> {
    #[inline(always)]
    fn at(self, y: usize, x: usize) -> Self {
        Added(self.0.skip(self.1.start + y * self.1.row + x * self.1.pixel), self.1)
    }

    #[inline(always)]
    unsafe fn each(self, s: S, v: S::F, c: usize, part: Option<usize>) -> S::F {
        // SAFETY: the caller's promise.
        s.add(v, unsafe { T::get_some(s, self.0, c, part.unwrap_or(S::LANES)) })
    }
}

impl<S: Simd, const SILU: bool> Each<S> for Scaled<'_, SILU> {
    #[inline(always)]
    unsafe fn each(self, s: S, v: S::F, c: usize, part: Option<usize>) -> S::F {
        let count = part.unwrap_or(S::LANES);
        // SAFETY: the caller's promise.
        let factor = unsafe { f32::get_some(s, self.factor, c, count) };
        // SAFETY: the caller's promise.
        let offset = unsafe { f32::get_some(s, self.offset, c, count) };
        let y = s.fma(v, factor, offset);
        if SILU { silu(s, y) } else { y }
    }
}

/// Numbers of a picture into another, which may be the same one.
///
/// # Panics
/// When a picture does not lie within the memory, or is of other sizes.
#[inline(always)]
pub(crate) fn map<D: Dot, T: Real>(d: D, op: Map, input: ImageView, output: Output, part: Part, memory: Memory) {
    let view = output.view();
    let like = |v: ImageView| (v.c, v.h, v.w) == (view.c, view.h, view.w) && memory.holds::<T>(v);
    assert!(like(input) && output.fits::<T>(memory) && view.is_apart());
    match op {
        // SAFETY: the assertion.
        Map::Copy => unsafe { every::<_, T>(d, Copied, input, output, part, memory) },
        // SAFETY: the assertion.
        Map::Silu => unsafe { every::<_, T>(d, Silu, input, output, part, memory) },
        // SAFETY: the assertion.
        Map::Round(levels) => unsafe { every::<_, T>(d, Rounded(levels), input, output, part, memory) },
        Map::Add(other) => {
            assert!(like(other));
            let added = Added(T::arena(memory).source(), other);
            // SAFETY: the assertions.
            unsafe { every::<_, T>(d, added, input, output, part, memory) }
        }
    }
}

/// Does `f` to each pixel.
///
/// # Safety
/// Both pictures must lie within the memory and be of one size, and what `f` reads must be there. No other thread may read
/// or write this part of the output.
#[inline(always)]
pub(super) unsafe fn every<D: Dot, T: Real>(
    d: D,
    f: impl Each<D::S>,
    input: ImageView,
    output: Output,
    part: Part,
    memory: Memory,
) {
    let view = output.view();
    for (y, columns) in part.lines(view.h, view.w) {
        for x in columns {
            let at = |v: ImageView| v.start + y * v.row + x * v.pixel;
            // SAFETY: the caller's promise.
            unsafe { channels::<_, T>(d, f.at(y, x), at(input), (output, at(view)), view.c, memory) }
        }
    }
}

/// Every pixel as a square of four.
///
/// # Panics
/// When a picture does not lie within the memory, or is of other sizes.
#[inline(always)]
pub(crate) fn upsample<S: Vector, T: Real>(s: S, input: ImageView, output: ImageView, part: Part, memory: Memory) {
    let halves = |n: usize, half: usize| n.is_multiple_of(2) && n / 2 == half;
    assert!(output.c == input.c && halves(output.h, input.h) && halves(output.w, input.w));
    assert!(memory.holds::<T>(input) && memory.holds::<T>(output) && output.is_apart());
    for (y, x) in part.lines(output.h, output.w).flat_map(|(y, x)| x.map(move |x| (y, x))) {
        let from = input.start + y / 2 * input.row + x / 2 * input.pixel;
        let to = output.start + y * output.row + x * output.pixel;
        for c in (0..output.c).step_by(S::LANES) {
            // SAFETY: the assertions: the pixel has so many channels left.
            let v = unsafe { T::get_some(s, T::arena(memory).source(), from + c, output.c - c) };
            // SAFETY: as above; other parts have other pixels.
            unsafe { T::put_some(s, T::arena(memory), to + c, output.c - c, v) }
        }
    }
}

/// A scale and a shift for each channel, then SiLU if asked for.
pub struct Affine<'a> {
    /// The scale of each channel.
    pub scale: &'a [f32],
    /// The shift of each channel.
    pub shift: &'a [f32],
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Scales and shifts the channels of a picture into another, which may be the same one.
///
/// # Panics
/// When a picture does not lie within the memory, is of other sizes, or there are not as many scales and shifts as channels.
#[inline(always)]
pub(crate) fn scale<D: Dot, T: Real>(d: D, a: &Affine, input: ImageView, view: ImageView, part: Part, memory: Memory) {
    let like = |v: ImageView| (v.c, v.h, v.w) == (view.c, view.h, view.w) && memory.holds::<T>(v);
    assert!(like(input) && like(view) && view.is_apart() && [a.scale.len(), a.shift.len()] == [view.c; 2]);
    let (factor, offset, output) = (Source::of(a.scale), Source::of(a.shift), Output::Float(view));
    if a.silu {
        // SAFETY: the assertions; there are a factor and an offset for each channel.
        unsafe { every::<_, T>(d, Scaled::<true> { factor, offset }, input, output, part, memory) }
    } else {
        // SAFETY: as above.
        unsafe { every::<_, T>(d, Scaled::<false> { factor, offset }, input, output, part, memory) }
    }
}
