//! Attention of pixels to pixels, a few queries at a time, with the tile of convolutions: keys and values are packed as
//! a convolution's weights, so that scores and means are sums of a pixel's numbers times weights.

use super::conv::accumulate;
use super::dense::exp;
use super::memory::{Memory, Part};
use super::pointer::{Source, Target};
use super::simd::{Simd, WIDEST};
use super::weights::Real;
use crate::arena::ImageView;
use std::marker::PhantomData;

/// Attention: `softmax(scale · q kᵀ) v` for each head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    query: ImageView,
    key: ImageView,
    value: ImageView,
    output: ImageView,
    heads: usize,
    scale: f32,
    work_len: usize,
}

/// Queries that share loaded keys.
const QUERIES: usize = 8;

impl Attention {
    /// Of queries, keys, one value a key and one result a query, in that order. Each of the `heads` has its share of the
    /// channels; scores are multiplied with `scale`. None if these do not fit one another, if numbers of the result
    /// would lie in the same place, or if the numbers that it works with cannot be counted.
    pub fn new([query, key, value, output]: [ImageView; 4], heads: usize, scale: f32) -> Option<Self> {
        let (queries, keys) = (query.h * query.w, key.h * key.w);
        let fits = query.c == key.c && value.c == output.c && value.h * value.w == keys;
        if !fits || output.h * output.w != queries || !output.is_apart() || heads == 0 {
            return None;
        }
        if !query.c.is_multiple_of(heads) || !value.c.is_multiple_of(heads) {
            return None;
        }
        let (c, columns) = (query.c / heads, keys.checked_next_multiple_of(WIDEST)?);
        let of_values = (value.c / heads).checked_next_multiple_of(WIDEST)?;
        let scores = c.checked_add(QUERIES)?.checked_mul(columns)?;
        let work_len = keys.checked_mul(of_values)?.checked_add(scores)?.checked_add(QUERIES.checked_mul(c)?)?;
        queries.checked_mul(keys)?.checked_mul(heads)?;
        Some(Attention { query, key, value, output, heads, scale, work_len })
    }

    /// Where queries, keys, values and results lie.
    pub fn views(&self) -> [ImageView; 4] {
        [self.query, self.key, self.value, self.output]
    }

    /// The same attention to views elsewhere; none as for [`new`](Self::new).
    pub fn with_views(self, views: [ImageView; 4]) -> Option<Self> {
        Attention::new(views, self.heads, self.scale)
    }

    /// The queries.
    pub fn query(&self) -> ImageView {
        self.query
    }

    /// The keys.
    pub fn key(&self) -> ImageView {
        self.key
    }

    /// The values.
    pub fn value(&self) -> ImageView {
        self.value
    }

    /// The heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// The numbers that it works with.
    pub fn work_len(&self) -> usize {
        self.work_len
    }
}

/// Runs an attention. The mask is added to the scores of all heads: a number for each query and key, those of a query
/// together. Parts are of heads and queries.
///
/// # Panics
/// When a picture does not lie within the memory, or the mask or the work space is of another length.
#[inline(always)]
pub(super) fn run<S: Simd, T: Real>(
    s: S,
    a: &Attention,
    mask: Option<&[f32]>,
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    let (queries, keys) = (a.query.h * a.query.w, a.key.h * a.key.w);
    assert!(a.views().iter().all(|v| memory.holds::<T>(*v)) && work.len() >= a.work_len);
    assert!(mask.is_none_or(|m| m.len() == queries * keys));
    let (c, c_value) = (a.query.c / a.heads, a.value.c / a.heads);
    let (columns, channels) = (keys.next_multiple_of(WIDEST), c_value.next_multiple_of(WIDEST));
    let (packed_keys, rest) = work[..a.work_len].split_at_mut(c * columns);
    let (packed_values, rest) = rest.split_at_mut(keys * channels);
    let (scores, scaled) = rest.split_at_mut(QUERIES * columns);
    let blocks = queries.div_ceil(QUERIES);
    let mut packed = None;
    for unit in part.range(a.heads * blocks) {
        let (head, first) = (unit / blocks, unit % blocks * QUERIES);
        let part_of =
            |v: ImageView| v.channels(head * (v.c / a.heads), v.c / a.heads).expect("a head of those that there are");
        let (query, output) = (part_of(a.query), part_of(a.output));
        if packed != Some(head) {
            // keys lie by channel, values by pixel
            pack::<S, T>(s, part_of(a.key), memory, packed_keys, columns, true);
            pack::<S, T>(s, part_of(a.value), memory, packed_values, channels, false);
            packed = Some(head);
        }
        let count = QUERIES.min(queries - first);
        for (q, to) in scaled.chunks_exact_mut(c).enumerate().take(count) {
            let from = T::arena(memory).source().skip(query.at(first + q));
            for (k, v) in to.iter_mut().enumerate() {
                // SAFETY: the query's channels lie within the arena.
                *v = unsafe { from.load::<T>(k) }.to_f32() * a.scale;
            }
        }
        products(s, scaled, c, packed_keys, columns, count, Scores { to: scores, columns });
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
            *inverse = 1.0 / softmax(s, line, keys);
        }
        let results = Results::<T> { memory, output, first, inverse: &inverse, of: PhantomData };
        products(s, scores, keys, packed_values, channels, count, results);
    }
}

/// What is done with a vector of products. No closure: one that is not compiled into its caller lacks the CPU's features.
trait Put<S: Simd> {
    /// With those of line `q`, from number `i` on.
    fn put(&mut self, s: S, q: usize, i: usize, products: S::F);
}

/// They are stored, in lines of `columns`.
struct Scores<'a> {
    to: &'a mut [f32],
    columns: usize,
}

impl<S: Simd> Put<S> for Scores<'_> {
    #[inline(always)]
    fn put(&mut self, s: S, q: usize, i: usize, products: S::F) {
        s.write(self.to, q * self.columns + i, products);
    }
}

/// They are stored as the channels of pixels from number `first` on, times each pixel's factor. The output lies within the
/// memory.
struct Results<'a, T> {
    memory: Memory<'a>,
    output: ImageView,
    first: usize,
    inverse: &'a [f32; QUERIES],
    of: PhantomData<T>,
}

impl<S: Simd, T: Real> Put<S> for Results<'_, T> {
    #[inline(always)]
    fn put(&mut self, s: S, q: usize, i: usize, products: S::F) {
        let (pixel, output) = (self.first + q, self.output);
        if i < output.c && pixel < output.h * output.w {
            let (at, values) = (output.at(pixel) + i, s.mul(products, s.splat(self.inverse[q])));
            // SAFETY: the pixel is one of the output, which has so many channels left; other parts have other pixels.
            unsafe { T::put_some(s, T::arena(self.memory), at, output.c - i, values) }
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
/// # Panics
/// When there is no room, or the picture does not lie within the arena.
#[inline(always)]
fn pack<S: Simd, T: Real>(s: S, from: ImageView, memory: Memory, to: &mut [f32], width: usize, by_channel: bool) {
    let (pixels, panel) = (from.h * from.w, vectors::<S>() * S::LANES);
    let lines = if by_channel { from.c } else { pixels };
    let used = if by_channel { pixels } else { from.c };
    assert!(to.len() >= lines * width && width >= used && width.is_multiple_of(WIDEST) && memory.holds::<T>(from));
    // where number i of line k lies
    let place = |k: usize, i: usize| {
        let first = i / panel * panel;
        first * lines + k * panel.min(width - first) + (i - first)
    };
    for k in 0..lines {
        for i in used..width {
            to[place(k, i)] = 0.0;
        }
    }
    let to = Target::of(to);
    for pixel in 0..pixels {
        let from_pixel = T::arena(memory).source().skip(from.at(pixel));
        if by_channel {
            for c in 0..from.c {
                // SAFETY: the picture lies within the arena.
                let v = unsafe { from_pixel.load::<T>(c) }.to_f32();
                // SAFETY: `to` has room for all lines.
                unsafe { to.store(place(c, pixel), v) }
            }
        } else {
            // panels are of whole vectors
            for c in (0..from.c).step_by(S::LANES) {
                // SAFETY: the picture lies within the arena.
                let v = unsafe { T::get_some(s, from_pixel, c, from.c - c) };
                // SAFETY: `to` has room for all lines.
                unsafe { f32::put_some(s, to, place(pixel, c), from.c - c, v) }
            }
        }
    }
}

/// For each of `count` lines of `x`, of which `depth` numbers are read and which follow each other as densely as
/// they may, and each vector of the packed lines of `width`: puts `Σ_k x[line, k] · packed[k]`.
#[inline(always)]
fn products<S: Simd>(s: S, x: &[f32], depth: usize, packed: &[f32], width: usize, count: usize, put: impl Put<S>) {
    let mut put = put;
    let step = x.len() / QUERIES;
    assert!(step >= depth && count <= QUERIES && packed.len() >= depth * width && width.is_multiple_of(WIDEST));
    let panel = vectors::<S>() * S::LANES;
    for first in (0..width).step_by(panel) {
        let weights = &packed[first * depth..];
        let vectors = (width - first).min(panel) / S::LANES;
        let mut q = 0;
        while q < count {
            let tile = S::PIXELS[vectors - 1].min(count - q);
            let lines = Lines { x: &x[q * step..], step, depth, weights };
            match vectors {
                1 => lines_of::<S, 1>(s, lines, tile, (&mut put, q, first)),
                2 => lines_of::<S, 2>(s, lines, tile, (&mut put, q, first)),
                3 => lines_of::<S, 3>(s, lines, tile, (&mut put, q, first)),
                _ => lines_of::<S, 4>(s, lines, tile, (&mut put, q, first)),
            }
            q += tile;
        }
    }
}

/// Lines of `depth` numbers, `step` from one another, and a panel of weights for each of these.
#[derive(Clone, Copy)]
struct Lines<'a> {
    x: &'a [f32],
    step: usize,
    depth: usize,
    weights: &'a [f32],
}

#[inline(always)]
fn lines_of<S: Simd, const V: usize>(s: S, lines: Lines, tile: usize, to: (&mut impl Put<S>, usize, usize)) {
    if V > S::PIXELS.len() {
        return;
    }
    match tile {
        1 => lines.multiply::<S, V, 1>(s, to),
        2 => lines.multiply::<S, V, 2>(s, to),
        3 => lines.multiply::<S, V, 3>(s, to),
        4 => lines.multiply::<S, V, 4>(s, to),
        5 => lines.multiply::<S, V, 5>(s, to),
        6 => lines.multiply::<S, V, 6>(s, to),
        7 => lines.multiply::<S, V, 7>(s, to),
        _ => lines.multiply::<S, V, 8>(s, to),
    }
}

impl Lines<'_> {
    /// The products of the first P lines and V vectors.
    #[inline(always)]
    fn multiply<S: Simd, const V: usize, const P: usize>(
        self,
        s: S,
        (put, q, first): (&mut impl Put<S>, usize, usize),
    ) {
        if V > S::PIXELS.len() || P > S::PIXELS[V - 1] {
            return;
        }
        let Lines { x, step, depth, weights } = self;
        assert!(x.len() >= (P - 1) * step + depth && weights.len() >= depth * V * S::LANES);
        let mut sums = [[s.splat(0.0); V]; P];
        // SAFETY: the assertion.
        unsafe { accumulate::<S, f32, f32, V, P>(s, &mut sums, Source::of(weights), Source::of(x), step, depth) };
        for (p, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                put.put(s, q + p, first + v * S::LANES, sum);
            }
        }
    }
}

/// Replaces the first `count` numbers of a line by their exponentials, over the greatest one's, and returns their sum,
/// in an order that does not depend on the vectors' width. The others become zeros.
///
/// # Panics
/// When the line is not of whole vectors of the widest kind, or has fewer numbers.
#[inline(always)]
fn softmax<S: Simd>(s: S, line: &mut [f32], count: usize) -> f32 {
    assert!(line.len().is_multiple_of(WIDEST) && count <= line.len() && count > 0);
    let first = line[0];
    line[count..].fill(first);
    let mut lanes = [0f32; WIDEST];
    let mut greatest = s.read(line, 0);
    for vector in line.chunks_exact(S::LANES) {
        greatest = s.max(greatest, s.read(vector, 0));
    }
    s.write(&mut lanes, 0, greatest);
    let greatest = s.splat(lanes[..S::LANES].iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v)));
    for vector in line.chunks_exact_mut(S::LANES) {
        s.write(vector, 0, exp(s, s.sub(s.read(vector, 0), greatest)));
    }
    line[count..].fill(0.0);
    // WIDEST sums, whatever the vectors' width
    for first in (0..WIDEST).step_by(S::LANES) {
        let mut total = s.splat(0.0);
        for vectors in line.chunks_exact(WIDEST) {
            total = s.add(total, s.read(vectors, first));
        }
        s.write(&mut lanes, first, total);
    }
    lanes.iter().sum()
}
