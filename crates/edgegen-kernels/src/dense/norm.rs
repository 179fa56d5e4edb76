//! Group normalization.

use super::map::{Output, Scaled, every};
use crate::arena::ImageView;
use crate::memory::{Memory, Part};
use crate::pointer::{Source, Target};
use crate::simd::{Dot, Simd};
use crate::weights::Number;

/// Group normalization, then scale and shift a channel, then SiLU if asked for.
pub struct GroupNorm<'a> {
    /// The groups.
    pub groups: usize,
    /// What is added to the variance.
    pub epsilon: f32,
    /// The scale of each channel.
    pub scale: &'a [f32],
    /// The shift of each channel.
    pub shift: &'a [f32],
    /// Whether SiLU follows.
    pub silu: bool,
}

/// For every channel from `first` on, as many as there is room for sums, as far from the first pixel's: the sums over all pixels, of
/// the distances and of their squares. Rows are added up by themselves, so that the sums of many pixels keep their digits.
///
/// # Panics
/// When the picture does not lie within the memory or has not as many channels.
#[inline(always)]
fn distances<S: Simd>(
    s: S,
    input: ImageView,
    first: usize,
    memory: Memory,
    mut sums: &mut [f32],
    mut squares: &mut [f32],
) {
    let mut c = first;
    while !sums.is_empty() {
        let left = sums.len();
        let count = match left / S::LANES {
            0 => distances_of::<S, 1>(s, input, c, memory, [sums, squares], Some(left)),
            1 => distances_of::<S, 1>(s, input, c, memory, [sums, squares], None),
            2 => distances_of::<S, 2>(s, input, c, memory, [sums, squares], None),
            3 => distances_of::<S, 3>(s, input, c, memory, [sums, squares], None),
            _ => distances_of::<S, 4>(s, input, c, memory, [sums, squares], None),
        };
        (sums, squares) = (&mut sums[count..], &mut squares[count..]);
        c += count;
    }
}

/// Those of V vectors of channels from `c` on, or of as many of the first as are `part`. Returns how many channels these are.
///
/// # Panics
/// As [`distances`].
#[inline(always)]
fn distances_of<S: Simd, const V: usize>(
    s: S,
    input: ImageView,
    c: usize,
    memory: Memory,
    to: [&mut [f32]; 2],
    part: Option<usize>,
) -> usize {
    assert!(part.is_none_or(|part| V == 1 && part < S::LANES));
    let count = part.unwrap_or(V * S::LANES);
    assert!(input.fits(memory.len()) && input.c.checked_sub(c).is_some_and(|left| count <= left));
    let from = memory.arena().source().skip(input.start + c);
    let zero = [s.splat(0.0); V];
    // SAFETY: the assertion.
    let origin = unsafe { load_all::<S, V>(s, from, part) };
    let (mut sums, mut squares) = (zero, zero);
    for y in 0..input.h {
        let (mut row_sums, mut row_squares) = (zero, zero);
        for x in 0..input.w {
            // SAFETY: the assertion.
            let pixel = unsafe { load_all::<S, V>(s, from.skip(y * input.row + x * input.pixel), part) };
            for v in 0..V {
                let d = s.sub(pixel[v], origin[v]);
                row_sums[v] = s.add(row_sums[v], d);
                row_squares[v] = s.fma(d, d, row_squares[v]);
            }
        }
        for v in 0..V {
            sums[v] = s.add(sums[v], row_sums[v]);
            squares[v] = s.add(squares[v], row_squares[v]);
        }
    }
    for (to, values) in to.into_iter().zip([sums, squares]) {
        let to = Target::of(&mut to[..count]);
        for (v, &value) in values.iter().enumerate() {
            // SAFETY: the slice has as many.
            unsafe { s.store_some(to, v * S::LANES, part.unwrap_or(S::LANES), value) }
        }
    }
    count
}

/// V vectors that lie together, or the first `part` numbers of one.
///
/// # Safety
/// The numbers must be there.
#[inline(always)]
unsafe fn load_all<S: Simd, const V: usize>(s: S, from: Source<f32>, part: Option<usize>) -> [S::F; V] {
    match part {
        // SAFETY: the caller's promise.
        None => unsafe { f32::load(s, from, 0) },
        // SAFETY: the caller's promise.
        Some(count) => [unsafe { s.load_part(from, 0, count) }; V],
    }
}

/// Normalizes `input` into `output`, with `work` of twice the channels. Parts are of groups.
///
/// # Panics
/// When a picture does not lie within the memory or is of other sizes, or when scale, shift or work space are of another
/// length.
#[inline(always)]
pub(crate) fn norm<D: Dot>(
    d: D,
    n: &GroupNorm,
    input: ImageView,
    output: Output,
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    let (c, view) = (input.c, output.view());
    assert!((view.c, view.h, view.w) == (c, input.h, input.w) && input.fits(memory.len()) && output.fits(memory));
    assert!(view.is_apart() && n.groups > 0 && work.len() / 2 >= c);
    assert!(n.scale.len() == c && n.shift.len() == c && c.is_multiple_of(n.groups));
    let each = c / n.groups;
    let groups = part.range(n.groups);
    let (start, end) = (groups.start * each, groups.end * each);
    let (factor, offset) = work[..2 * c].split_at_mut(c);
    let (factor, offset) = (&mut factor[..end - start], &mut offset[..end - start]);
    distances(d.simd(), input, start, memory, offset, factor);
    let pixels = (input.h * input.w) as f32;
    for (g, (means, squares)) in offset.chunks_exact_mut(each).zip(factor.chunks_exact_mut(each)).enumerate() {
        let first = start + g * each;
        // each channel's mean, and the squares of the distances from it
        let mut around = 0.0;
        for (i, (mean, square)) in means.iter_mut().zip(squares.iter()).enumerate() {
            let sum = *mean;
            *mean = memory.get(input.start + first + i) + sum / pixels;
            around += (square - sum * (sum / pixels)).max(0.0);
        }
        let mean = means.iter().sum::<f32>() / each as f32;
        let between: f32 = means.iter().map(|m| (m - mean) * (m - mean)).sum();
        let variance = (around + between * pixels) / (pixels * each as f32);
        let root = 1.0 / (variance + n.epsilon).sqrt();
        // y = x · factor + offset
        for (i, (factor, offset)) in squares.iter_mut().zip(means).enumerate() {
            *factor = n.scale[first + i] * root;
            *offset = n.shift[first + i] - mean * *factor;
        }
    }
    // the channels of these groups alone
    let channels = |view: ImageView| view.channels(start, end - start);
    let Some((input, view)) = channels(input).zip(channels(view)) else { return };
    let output = match output {
        Output::Float(_) => Output::Float(view),
        Output::Quantized(_, levels) => Output::Quantized(view, levels),
    };
    let (factor, offset) = (Source::of(factor), Source::of(offset));
    if n.silu {
        // SAFETY: the assertions; there are a factor and an offset for each channel.
        unsafe { every(d, Scaled::<true> { factor, offset }, input, output, Part::WHOLE, memory) }
    } else {
        // SAFETY: as above.
        unsafe { every(d, Scaled::<false> { factor, offset }, input, output, Part::WHOLE, memory) }
    }
}
