//! Runs, and the check that they stay within the memory.

use super::CHANNELS;
use super::levels::QuantParams;
use super::packed::{Packed8, Tile8};
use crate::Isa;
use crate::arena::ImageView;
use crate::conv::{Method, Shape};
use crate::memory::Memory;
use crate::simd::Dot;

/// One run of an 8-bit convolution: `round(sums · scale + bias) + extra + residual`.
pub struct Run8<'a> {
    /// The weights.
    pub packed: &'a Packed8,
    /// The levels that the result is rounded to.
    pub round: Option<QuantParams>,
    /// What is added to each channel, one a channel.
    pub extra: Option<&'a [f32]>,
    /// The input, among the 8-bit pictures.
    pub input: ImageView,
    /// Where the result goes in f32.
    pub output: Option<ImageView>,
    /// Where it goes in 8 bits, rounded to these levels; unless they are those of `round`, after the sums.
    pub output8: Option<(ImageView, QuantParams)>,
    /// A picture that is added to the output.
    pub residual: Option<ImageView>,
}

/// A run that was found to read and write within the memory alone. Only [`Run8::check`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct Checked8<'a> {
    pub(crate) run: &'a Run8<'a>,
    pub(crate) memory: Memory<'a>,
    /// The output's rows and columns.
    pub(crate) sides: [usize; 2],
    /// The input's levels, where the weights are not packed for them.
    pub(super) range: Option<ByRange>,
}

/// Levels of an input that are known when it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByRange {
    /// The levels.
    pub levels: QuantParams,
    /// Where in the arena the sums of the levels less their zero point begin, one a pixel, if the weights need them.
    pub sums: Option<usize>,
}

impl<'a> Run8<'a> {
    /// Makes sure that all pictures lie within the memory: every row of the input, rounded up to whole groups of channels,
    /// within the bytes, and the other pictures within theirs; and that the weights are packed for this kind of CPU.
    ///
    /// # Panics
    /// When that is not so, or a picture is of other sizes.
    pub(super) fn check<D: Dot>(&'a self, range: Option<ByRange>, memory: Memory<'a>) -> Checked8<'a> {
        let shape = self.packed.shape;
        let Shape { c_out, c_in, padding, .. } = shape;
        let input = self.input;
        let output = self.output.or(self.output8.map(|(view, _)| view)).expect("an output");
        let sides = [output.h, output.w];
        // windows of Winograd's method may reach further than the outputs that are wanted
        assert!(self.packed.method() == Method::Direct || sides == [input.h, input.w]);
        let read = c_in.next_multiple_of(CHANNELS);
        let Tile8 { lanes, flip, order, .. } = self.packed.tile;
        assert!((lanes, flip, order) == (D::LANES, D::FLIP, D::ORDER), "weights packed for another kind of CPU");
        assert!(input.c == c_in && input.pixel.is_multiple_of(CHANNELS) && input.start.is_multiple_of(CHANNELS));
        assert!(input.pixel >= read && self.extra.is_none_or(|e| e.len() >= c_out));
        let window = shape.window(sides);
        assert!(window.is_some_and(|window| input.reaches(padding, window, read, memory.bytes_len())));
        let fits = |v: ImageView, len: usize| v.fits(len) && (v.c, v.h, v.w) == (c_out, sides[0], sides[1]);
        assert!(self.residual.is_none_or(|v| fits(v, memory.len())));
        assert!(self.output.is_none_or(|v| fits(v, memory.len()) && v.is_apart()));
        assert!(self.output8.is_none_or(|(v, _)| fits(v, memory.bytes_len()) && v.is_apart()));
        let columns = if range.is_some() { self.packed.scale.len() } else { 0 };
        assert!(self.packed.columns.len() == columns, "weights packed for other levels");
        let sums = range.and_then(|range| range.sums).filter(|_| self.packed.needs_sums());
        let pixels = sides[0].checked_mul(sides[1]);
        let within = |start: usize| pixels.and_then(|n| n.checked_add(start)).is_some_and(|end| end <= memory.len());
        assert!(sums.is_some() == self.packed.needs_sums() && sums.is_none_or(within));
        // a sum of a pixel is one of a window only if that is the pixel
        assert!(sums.is_none() || (shape.kernel, shape.stride, shape.padding) == ([1, 1], [1, 1], [0, 0]));
        Checked8 { run: self, memory, sides, range }
    }
}

/// The sum of each pixel's levels less their zero point, to the arena from `to` on.
///
/// # Panics
/// When the picture does not lie within the memory, or the sums do not.
pub fn sum_levels(isa: Isa, view: ImageView, zero_point: u8, to: usize, memory: Memory) {
    assert!(view.fits(memory.bytes_len()));
    let (bytes, flip) = (memory.bytes().source(), isa.tile8().flip);
    for (i, start) in view.pixels().enumerate() {
        let mut sum = 0;
        for at in start..start + view.c {
            // SAFETY: the picture fits.
            let byte: u8 = unsafe { bytes.load(at) };
            sum += i32::from(byte.wrapping_sub(flip));
        }
        memory.set(to + i, (sum - i32::from(zero_point) * view.c as i32) as f32);
    }
}
