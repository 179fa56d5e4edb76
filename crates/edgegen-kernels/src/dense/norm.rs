//! Group normalization.

use super::map::{Output, Scaled, every};
use crate::arena::ImageView;
use crate::memory::{Memory, Part};
use crate::pointer::{Source, Target};
use crate::simd::{Dot, Vector};
use crate::weights::Real;

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
fn distances<S: Vector, T: Real>(
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
            0 => distances_of::<S, T, 1>(s, input, c, memory, [sums, squares], Some(left)),
            1 => distances_of::<S, T, 1>(s, input, c, memory, [sums, squares], None),
            2 => distances_of::<S, T, 2>(s, input, c, memory, [sums, squares], None),
            3 => distances_of::<S, T, 3>(s, input, c, memory, [sums, squares], None),
            _ => distances_of::<S, T, 4>(s, input, c, memory, [sums, squares], None),
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
fn distances_of<S: Vector, T: Real, const V: usize>(
    s: S,
    input: ImageView,
    c: usize,
    memory: Memory,
    to: [&mut [f32]; 2],
    part: Option<usize>,
) -> usize {
    assert!(part.is_none_or(|part| V == 1 && part < S::LANES));
    let count = part.unwrap_or(V * S::LANES);
    assert!(memory.holds::<T>(input) && input.c.checked_sub(c).is_some_and(|left| count <= left));
    let from = T::arena(memory).source().skip(input.start + c);
    let zero = [s.splat(0.0); V];
    // SAFETY: the assertion.
    let origin = unsafe { load_all::<S, T, V>(s, from, part) };
    let (mut sums, mut squares) = (zero, zero);
    for y in 0..input.h {
        let (mut row_sums, mut row_squares) = (zero, zero);
        for x in 0..input.w {
            // SAFETY: the assertion.
            let pixel = unsafe { load_all::<S, T, V>(s, from.skip(y * input.row + x * input.pixel), part) };
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
            unsafe { f32::put_some(s, to, v * S::LANES, part.unwrap_or(S::LANES), value) }
        }
    }
    count
}

/// V vectors that lie together, or the first `part` numbers of one.
///
/// # Safety
/// The numbers must be there.
#[inline(always)]
unsafe fn load_all<S: Vector, T: Real, const V: usize>(s: S, from: Source<T>, part: Option<usize>) -> [S::F; V] {
    match part {
        // SAFETY: the caller's promise.
        None => unsafe { T::load(s, from, 0) },
        // SAFETY: the caller's promise.
        Some(count) => [unsafe { T::get_part(s, from, 0, count) }; V],
    }
}

/// What becomes of some of the channels of a picture: `(x - mean) · factor + shift` of each.
pub(super) struct Centered<'a> {
    pub(super) input: ImageView,
    pub(super) output: ImageView,
    pub(super) mean: &'a mut [f32],
    pub(super) factor: &'a mut [f32],
    pub(super) shift: &'a [f32],
}

/// What a group normalization makes of the channels of this part's groups; none if it has none. Sums are in 32 bits whatever
/// the pictures are in.
///
/// # Panics
/// When a picture does not lie within the memory or is of other sizes, or when scale, shift or work space are of another
/// length.
#[inline(always)]
pub(super) fn centered<'a, S: Vector, T: Real>(
    s: S,
    n: &GroupNorm<'a>,
    (input, output): (ImageView, Output),
    part: Part,
    work: &'a mut [f32],
    memory: Memory,
) -> Option<Centered<'a>> {
    let (c, view) = (input.c, output.view());
    assert!((view.c, view.h, view.w) == (c, input.h, input.w) && memory.holds::<T>(input) && output.fits::<T>(memory));
    assert!(view.is_apart() && n.groups > 0 && work.len() / 2 >= c);
    assert!(n.scale.len() == c && n.shift.len() == c && c.is_multiple_of(n.groups));
    let each = c / n.groups;
    let groups = part.range(n.groups);
    let (start, end) = (groups.start * each, groups.end * each);
    let (factor, mean) = work[..2 * c].split_at_mut(c);
    let (factor, mean) = (&mut factor[..end - start], &mut mean[..end - start]);
    distances::<S, T>(s, input, start, memory, mean, factor);
    let pixels = (input.h * input.w) as f32;
    for (g, (means, squares)) in mean.chunks_exact_mut(each).zip(factor.chunks_exact_mut(each)).enumerate() {
        let first = start + g * each;
        // each channel's mean, and the squares of the distances from it
        let mut around = 0.0;
        for (i, (mean, square)) in means.iter_mut().zip(squares.iter()).enumerate() {
            let sum = *mean;
            // SAFETY: the assertion.
            let origin = unsafe { T::arena(memory).source().load::<T>(input.start + first + i) };
            *mean = origin.to_f32() + sum / pixels;
            around += (square - sum * (sum / pixels)).max(0.0);
        }
        let mean = means.iter().sum::<f32>() / each as f32;
        let between: f32 = means.iter().map(|m| (m - mean) * (m - mean)).sum();
        let variance = (around + between * pixels) / (pixels * each as f32);
        let root = 1.0 / (variance + n.epsilon).sqrt();
        means.fill(mean);
        squares.iter_mut().zip(&n.scale[first..]).for_each(|(factor, scale)| *factor = scale * root);
    }
    let channels = |view: ImageView| view.channels(start, end - start);
    let (input, output, shift) = (channels(input)?, channels(view)?, &n.shift[start..end]);
    Some(Centered { input, output, mean, factor, shift })
}

/// Normalizes `input`, in such numbers, into `output`, with `work` of twice the channels. Parts are of groups.
///
/// # Panics
/// When a picture does not lie within the memory or is of other sizes, or when scale, shift or work space are of another
/// length.
#[inline(always)]
pub(crate) fn norm<D: Dot, T: Real>(
    d: D,
    n: &GroupNorm,
    input: ImageView,
    output: Output,
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    let Some(centered) = centered::<_, T>(d.simd(), n, (input, output), part, work, memory) else { return };
    let Centered { input, output: view, mean, factor, shift } = centered;
    // x · factor + offset
    let offset = mean;
    for (offset, (factor, shift)) in offset.iter_mut().zip(factor.iter().zip(shift)) {
        *offset = shift - *offset * factor;
    }
    let output = match output {
        Output::Float(_) => Output::Float(view),
        Output::Quantized(_, levels) => Output::Quantized(view, levels),
    };
    let (factor, offset) = (Source::of(factor), Source::of(offset));
    if n.silu {
        // SAFETY: `centered` checked the pictures, and gives a factor and an offset for each channel.
        unsafe { every::<_, T>(d, Scaled::<true> { factor, offset }, input, output, Part::WHOLE, memory) }
    } else {
        // SAFETY: as above.
        unsafe { every::<_, T>(d, Scaled::<false> { factor, offset }, input, output, Part::WHOLE, memory) }
    }
}
