//! Attention of pixels to pixels, a few queries at a time, with the tile of convolutions: keys and values are packed as
//! a convolution's weights, so that scores and means are sums of a pixel's numbers times weights.

use super::conv::accumulate;
use super::dense::{exp, load, store};
use super::memory::{Memory, Part};
use super::simd::{Simd, WIDEST};
use crate::arena::View;

/// Attention: `softmax(scale · q kᵀ) v` for each head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// The queries.
    pub query: View,
    /// The keys.
    pub key: View,
    /// The values, one a key.
    pub value: View,
    /// The result, one a query.
    pub output: View,
    /// Heads: each has its share of the channels.
    pub heads: usize,
    /// What scores are multiplied with.
    pub scale: f32,
}

/// Queries that share loaded keys.
const QUERIES: usize = 8;

impl Attention {
    /// The numbers that it works with.
    pub fn work_len(&self) -> usize {
        let (c, keys) = (self.query.c / self.heads, self.key.h * self.key.w);
        let of_values = (self.value.c / self.heads).next_multiple_of(WIDEST);
        (c + QUERIES) * keys.next_multiple_of(WIDEST) + keys * of_values + QUERIES * c
    }
}

/// Runs an attention. The mask is added to the scores of all heads: a number for each query and key, those of a query
/// together. Parts are of heads and queries.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(a: &Attention, mask: Option<&[f32]>, part: Part, work: &mut [f32], memory: Memory) {
    let (queries, keys) = (a.query.h * a.query.w, a.key.h * a.key.w);
    assert!(a.query.c == a.key.c && a.value.c == a.output.c);
    assert!(a.query.c.is_multiple_of(a.heads) && a.value.c.is_multiple_of(a.heads));
    assert!(a.value.h * a.value.w == keys && a.output.h * a.output.w == queries);
    assert!([a.query, a.key, a.value, a.output].iter().all(|v| v.fits(memory.len())));
    assert!(mask.is_none_or(|m| m.len() == queries * keys));
    let (c, c_value) = (a.query.c / a.heads, a.value.c / a.heads);
    let (columns, channels) = (keys.next_multiple_of(WIDEST), c_value.next_multiple_of(WIDEST));
    let (packed_keys, rest) = work[..a.work_len()].split_at_mut(c * columns);
    let (packed_values, rest) = rest.split_at_mut(keys * channels);
    let (scores, scaled) = rest.split_at_mut(QUERIES * columns);
    let blocks = queries.div_ceil(QUERIES);
    let mut packed = None;
    for unit in part.range(a.heads * blocks) {
        let (head, first) = (unit / blocks, unit % blocks * QUERIES);
        let part_of = |v: View| v.channels(head * (v.c / a.heads), v.c / a.heads);
        let (query, output) = (part_of(a.query), part_of(a.output));
        // SAFETY: the caller's promise; the assertions: the views lie within the arena, and the work space has room.
        unsafe {
            if packed != Some(head) {
                // keys lie by channel, values by pixel
                pack::<S>(part_of(a.key), memory, packed_keys, columns, true);
                pack::<S>(part_of(a.value), memory, packed_values, channels, false);
                packed = Some(head);
            }
            let count = QUERIES.min(queries - first);
            for (q, to) in scaled.chunks_exact_mut(c).enumerate().take(count) {
                let from = memory.arena().add(query.at(first + q));
                for (k, v) in to.iter_mut().enumerate() {
                    *v = *from.add(k) * a.scale;
                }
            }
            products::<S>(scaled, c, packed_keys, columns, count, Scores { to: scores.as_mut_ptr(), columns });
            if let Some(mask) = mask {
                let lines = mask[first * keys..(first + count) * keys].chunks_exact(keys);
                for (scores, mask) in scores.chunks_exact_mut(columns).zip(lines) {
                    for (score, m) in scores.iter_mut().zip(mask) {
                        *score += m;
                    }
                }
            }
            let mut inverse = [0f32; QUERIES];
            for (line, inverse) in scores.chunks_exact_mut(columns).zip(&mut inverse).take(count) {
                *inverse = 1.0 / softmax::<S>(line, keys);
            }
            let results = Results { arena: memory.arena(), output, first, inverse: &inverse };
            products::<S>(scores, keys, packed_values, channels, count, results);
        }
    }
}

/// What is done with a vector of products. No closure: one that is not compiled into its caller lacks the CPU's features.
trait Put<S: Simd>: Copy {
    /// With those of line `q`, from number `i` on.
    ///
    /// # Safety
    /// The CPU must have the features of `S`, and there must be room for them.
    unsafe fn put(self, q: usize, i: usize, products: S::F);
}

/// They are stored, in lines of `columns`.
#[derive(Clone, Copy)]
struct Scores {
    to: *mut f32,
    columns: usize,
}

impl<S: Simd> Put<S> for Scores {
    #[inline(always)]
    unsafe fn put(self, q: usize, i: usize, products: S::F) {
        // SAFETY: the caller's promise.
        unsafe { S::store(self.to.add(q * self.columns + i), products) }
    }
}

/// They are stored as the channels of pixels from number `first` on, times each pixel's factor.
#[derive(Clone, Copy)]
struct Results<'a> {
    arena: *mut f32,
    output: View,
    first: usize,
    inverse: &'a [f32; QUERIES],
}

impl<S: Simd> Put<S> for Results<'_> {
    #[inline(always)]
    unsafe fn put(self, q: usize, i: usize, products: S::F) {
        if i < self.output.c {
            // SAFETY: the caller's promise.
            unsafe {
                let to = self.arena.add(self.output.at(self.first + q) + i);
                store::<S>(to, self.output.c - i, S::mul(products, S::splat(self.inverse[q])));
            }
        }
    }
}

/// Vectors of keys or of values' channels of a tile.
const fn vectors<S: Simd>() -> usize {
    S::PIXELS.len()
}

/// Packs a picture's pixels as lines of `width`, in panels of as many vectors as a tile has: by channel, a line of all
/// pixels for each channel, or by pixel; with zeros to the end of each line.
///
/// # Safety
/// The CPU must have the features of `S`; the picture must lie within the arena.
#[inline(always)]
unsafe fn pack<S: Simd>(from: View, memory: Memory, to: &mut [f32], width: usize, by_channel: bool) {
    let (pixels, panel) = (from.h * from.w, vectors::<S>() * S::LANES);
    let lines = if by_channel { from.c } else { pixels };
    let used = if by_channel { pixels } else { from.c };
    assert!(to.len() >= lines * width && width >= used);
    let to = to.as_mut_ptr();
    // where number i of line k lies
    let place = |k: usize, i: usize| {
        let first = i / panel * panel;
        first * lines + k * panel.min(width - first) + (i - first)
    };
    for k in 0..lines {
        for i in used..width {
            // SAFETY: k and i are within the lines that `to` has room for.
            unsafe { *to.add(place(k, i)) = 0.0 };
        }
    }
    for pixel in 0..pixels {
        // SAFETY: the caller's promise; places as above.
        unsafe {
            let from_pixel = memory.arena().add(from.at(pixel));
            if by_channel {
                for c in 0..from.c {
                    *to.add(place(c, pixel)) = *from_pixel.add(c);
                }
            } else {
                // panels are of whole vectors
                for c in (0..from.c).step_by(S::LANES) {
                    let left = from.c - c;
                    store::<S>(to.add(place(pixel, c)), left, load::<S>(from_pixel.add(c), left));
                }
            }
        }
    }
}

/// For each of `count` lines of `x`, of which `depth` numbers are read and which follow each other as densely as
/// they may, and each vector of the packed lines of `width`: puts `Σ_k x[line, k] · packed[k]`.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
unsafe fn products<S: Simd>(x: &[f32], depth: usize, packed: &[f32], width: usize, count: usize, put: impl Put<S>) {
    let step = x.len() / QUERIES;
    assert!(step >= depth && count <= QUERIES && packed.len() >= depth * width);
    let panel = vectors::<S>() * S::LANES;
    for first in (0..width).step_by(panel) {
        let weights = &packed[first * depth..];
        let vectors = (width - first).min(panel) / S::LANES;
        let mut q = 0;
        while q < count {
            let tile = S::PIXELS[vectors - 1].min(count - q);
            // SAFETY: the caller's promise; `tile` lines are left, and a panel of weights for each of `depth`.
            unsafe {
                let from = x.as_ptr().add(q * step);
                let to = (put, q, first);
                match vectors {
                    1 => lines_of::<S, 1>(weights, from, step, depth, tile, to),
                    2 => lines_of::<S, 2>(weights, from, step, depth, tile, to),
                    3 => lines_of::<S, 3>(weights, from, step, depth, tile, to),
                    _ => lines_of::<S, 4>(weights, from, step, depth, tile, to),
                }
            }
            q += tile;
        }
    }
}

#[inline(always)]
unsafe fn lines_of<S: Simd, const V: usize>(
    weights: &[f32],
    from: *const f32,
    step: usize,
    depth: usize,
    tile: usize,
    to: (impl Put<S>, usize, usize),
) {
    if V > S::PIXELS.len() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        match tile {
            1 => lines::<S, V, 1>(weights, from, step, depth, to),
            2 => lines::<S, V, 2>(weights, from, step, depth, to),
            3 => lines::<S, V, 3>(weights, from, step, depth, to),
            4 => lines::<S, V, 4>(weights, from, step, depth, to),
            5 => lines::<S, V, 5>(weights, from, step, depth, to),
            6 => lines::<S, V, 6>(weights, from, step, depth, to),
            7 => lines::<S, V, 7>(weights, from, step, depth, to),
            _ => lines::<S, V, 8>(weights, from, step, depth, to),
        }
    }
}

#[inline(always)]
unsafe fn lines<S: Simd, const V: usize, const P: usize>(
    weights: &[f32],
    from: *const f32,
    step: usize,
    depth: usize,
    (put, q, first): (impl Put<S>, usize, usize),
) {
    if V > S::PIXELS.len() || P > S::PIXELS[V - 1] {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; P];
        accumulate::<S, f32, V, P>(&mut sums, weights.as_ptr(), from, step, depth);
        for (p, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                put.put(q + p, first + v * S::LANES, sum);
            }
        }
    }
}

/// Replaces the first `count` numbers of a line by their exponentials, over the greatest one's, and returns their sum,
/// in an order that does not depend on the vectors' width. The others become zeros.
///
/// # Safety
/// The CPU must have the features of `S`; the line must be of whole vectors of the widest kind.
#[inline(always)]
unsafe fn softmax<S: Simd>(line: &mut [f32], count: usize) -> f32 {
    assert!(line.len().is_multiple_of(WIDEST) && count <= line.len() && count > 0);
    let first = line[0];
    line[count..].fill(first);
    let len = line.len();
    let base = line.as_mut_ptr();
    let mut lanes = [0f32; WIDEST];
    // SAFETY: the caller's promise; the assertion.
    unsafe {
        let mut greatest = S::load(base);
        for i in (0..len).step_by(S::LANES) {
            greatest = S::max(greatest, S::load(base.add(i)));
        }
        S::store(lanes.as_mut_ptr(), greatest);
        let greatest = S::splat(lanes[..S::LANES].iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v)));
        for i in (0..len).step_by(S::LANES) {
            S::store(base.add(i), exp::<S>(S::sub(S::load(base.add(i)), greatest)));
        }
        line[count..].fill(0.0);
        let base = line.as_ptr();
        // WIDEST sums, whatever the vectors' width
        for first in (0..WIDEST).step_by(S::LANES) {
            let mut total = S::splat(0.0);
            for i in (first..len).step_by(WIDEST) {
                total = S::add(total, S::load(base.add(i)));
            }
            S::store(lanes.as_mut_ptr().add(first), total);
        }
    }
    lanes.iter().sum()
}
