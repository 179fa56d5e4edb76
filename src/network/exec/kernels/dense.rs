//! Everything that is not a convolution, in plain loops that compilers turn into vectors: each is inlined into an
//! entry point that enables the CPU's features.

use super::super::arena::View;
use super::conv8::Levels;
use super::simd::Simd;

/// e^x for x from -87 to 88, within two units in the last place: 2^n times a polynomial of the rest.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer, kept in the low bits
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, so that the rest is exact
    let r = x - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    p * power
}

/// x / (1 + e^-x).
#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// SiLU of numbers in place.
#[inline(always)]
pub fn silu_all(x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v = silu(*v));
}

/// `out = a x + b` with `a` stored by columns, `[x.len(), out.len()]`.
#[inline(always)]
pub fn matrix_vector(columns: &[f32], x: &[f32], b: &[f32], out: &mut [f32]) {
    out.copy_from_slice(b);
    for (x, column) in x.iter().zip(columns.chunks_exact(out.len())) {
        out.iter_mut().zip(column).for_each(|(o, a)| *o += x * a);
    }
}

/// Group normalisation, then scale and shift a channel, then SiLU if asked for.
pub struct Norm<'a> {
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

/// Where pictures lie: in f32, and in 8 bits.
pub struct Memory<'a> {
    /// The arena of pictures in f32.
    pub arena: &'a mut [f32],
    /// That of pictures in 8 bits.
    pub bytes: &'a mut [u8],
}

/// Where a result goes: as it is, or rounded to levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// A picture in f32.
    Float(View),
    /// A picture in 8 bits.
    Levels(View, Levels),
}

/// Numbers that are worked on at a time: a length known when compiled is what makes loops whole vectors.
const CHUNK: usize = 16;

/// Rounds a picture to levels.
#[inline(always)]
pub fn quantize(input: View, output: View, levels: Levels, memory: Memory) {
    for (from, to) in input.pixels().zip(output.pixels()) {
        to_levels(&memory.arena[from..from + input.c], levels, &mut memory.bytes[to..to + input.c]);
    }
}

/// Rounds a picture to levels, in place.
#[inline(always)]
pub fn round(picture: View, levels: Levels, arena: &mut [f32]) {
    let inverse = 1.0 / levels.scale;
    for at in picture.pixels() {
        let (chunks, rest) = arena[at..at + picture.c].as_chunks_mut::<CHUNK>();
        let one = |v: &mut f32| *v = levels.round(inverse, *v);
        chunks.iter_mut().for_each(|chunk| chunk.iter_mut().for_each(one));
        rest.iter_mut().for_each(one);
    }
}

#[inline(always)]
fn to_levels(values: &[f32], levels: Levels, out: &mut [u8]) {
    let inverse = 1.0 / levels.scale;
    out.iter_mut().zip(values).for_each(|(o, v)| *o = levels.level_bits(inverse, *v));
}

/// For every channel the sum over the pixels of x, or with `means` of its square distance from its mean. V vectors of
/// channels stay in registers while the pixels pass by; those that are left are added up one by one.
#[inline(always)]
fn sum_channels<S: Simd>(input: View, arena: &[f32], means: Option<&[f32]>, sums: &mut [f32]) {
    let whole = input.c / S::LANES * S::LANES;
    assert!(input.fits(arena.len()) && sums.len() >= input.c && means.is_none_or(|m| m.len() >= input.c));
    let mut first = 0;
    while first < whole {
        // SAFETY: the CPU has the features of S, the caller's promise; the assertion, and `first` leaves V vectors.
        first += unsafe {
            match (whole - first) / S::LANES {
                1 => sum_vectors::<S, 1>(input, first, arena, means, sums),
                2 => sum_vectors::<S, 2>(input, first, arena, means, sums),
                _ => sum_vectors::<S, 3>(input, first, arena, means, sums),
            }
        };
    }
    for c in whole..input.c {
        let mean = means.map_or(0.0, |m| m[c]);
        let term = |at: usize| if means.is_some() { (arena[at + c] - mean).powi(2) } else { arena[at + c] };
        sums[c] = input.pixels().map(term).sum();
    }
}

/// # Safety
/// The CPU must have the features of `S`; V vectors of channels from `first` on must be within every pixel and slice.
#[inline(always)]
unsafe fn sum_vectors<S: Simd, const V: usize>(
    input: View,
    first: usize,
    arena: &[f32],
    means: Option<&[f32]>,
    sums: &mut [f32],
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = [S::splat(0.0); V];
        let minus = S::splat(-1.0);
        let means =
            means.map(|m| -> [S::F; V] { std::array::from_fn(|v| S::load(m.as_ptr().add(first + v * S::LANES))) });
        let mut all = zero;
        for y in 0..input.h {
            let mut pixel = arena.as_ptr().add(input.start + y * input.row + first);
            for _ in 0..input.w {
                for (v, sum) in all.iter_mut().enumerate() {
                    let x = S::load(pixel.add(v * S::LANES));
                    *sum = match &means {
                        None => S::add(*sum, x),
                        Some(means) => {
                            let d = S::fma(means[v], minus, x);
                            S::fma(d, d, *sum)
                        }
                    };
                }
                pixel = pixel.wrapping_add(input.pixel);
            }
        }
        (0..V).for_each(|v| S::store(sums.as_mut_ptr().add(first + v * S::LANES), all[v]));
    }
    V * S::LANES
}

/// Normalises `input` into `output`, with `work` of twice the channels.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(super) unsafe fn norm<S: Simd>(n: &Norm, input: View, output: Output, work: &mut [f32], memory: Memory) {
    let (c, Memory { arena, bytes }) = (input.c, memory);
    let (Output::Float(view) | Output::Levels(view, _)) = output;
    assert!(view.c == c && n.scale.len() == c && n.shift.len() == c && c.is_multiple_of(n.groups));
    let (first, second) = work[..2 * c].split_at_mut(c);
    let each = c / n.groups;
    let count = (each * input.h * input.w) as f32;
    // the mean of each group, for each of its channels
    sum_channels::<S>(input, arena, None, first);
    for group in first.chunks_exact_mut(each) {
        let mean = group.iter().sum::<f32>() / count;
        group.fill(mean);
    }
    sum_channels::<S>(input, arena, Some(first), second);
    for group in second.chunks_exact_mut(each) {
        let variance = group.iter().sum::<f32>() / count;
        group.fill(1.0 / (variance + n.epsilon).sqrt());
    }
    // y = x · factor + offset
    for (i, (mean, root)) in first.iter_mut().zip(second.iter_mut()).enumerate() {
        *root *= n.scale[i];
        *mean = n.shift[i] - *mean * *root;
    }
    let (factor, offset) = (&*second, &*first);
    for (from, to) in input.pixels().zip(view.pixels()) {
        // through a small buffer, since input and output lie in one arena
        let mut line = [0f32; 96];
        for start in (0..c).step_by(96) {
            let len = (c - start).min(96);
            let line = &mut line[..len];
            let x = &arena[from + start..][..len];
            let (factor, offset) = (&factor[start..][..len], &offset[start..][..len]);
            for (((o, x), f), b) in line.iter_mut().zip(x).zip(factor).zip(offset) {
                *o = x * f + b;
            }
            if n.silu {
                silu_all(line);
            }
            match output {
                Output::Float(_) => arena[to + start..][..len].copy_from_slice(line),
                Output::Levels(_, levels) => to_levels(line, levels, &mut bytes[to + start..][..len]),
            }
        }
    }
}

/// Pixels whose attention is worked out together.
const QUERIES: usize = 4;

/// The numbers that attention over `pixels` pixels of `c` channels works with.
pub fn attention_work(c: usize, pixels: usize) -> usize {
    (c + QUERIES) * pixels.next_multiple_of(CHUNK) + pixels * c.next_multiple_of(CHUNK)
}

/// Attention of every pixel to every pixel: `input` has queries, keys and values side by side, already scaled.
/// `work` has room for [`attention_work`].
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(super) unsafe fn attention<S: Simd>(input: View, output: View, work: &mut [f32], arena: &mut [f32]) {
    let (c, pixels) = (output.c, input.h * input.w);
    assert!(input.c == 3 * c && output.h * output.w == pixels && CHUNK.is_multiple_of(S::LANES));
    // keys by channel and values by pixel, each line padded with zeros to whole vectors
    let (columns, channels) = (pixels.next_multiple_of(CHUNK), c.next_multiple_of(CHUNK));
    let (keys, rest) = work[..attention_work(c, pixels)].split_at_mut(c * columns);
    let (values, scores) = rest.split_at_mut(pixels * channels);
    for (i, at) in input.pixels().enumerate() {
        (0..c).for_each(|k| keys[k * columns + i] = arena[at + c + k]);
        let (value, padding) = values[i * channels..][..channels].split_at_mut(c);
        value.copy_from_slice(&arena[at + 2 * c..][..c]);
        padding.fill(0.0);
    }
    keys.chunks_exact_mut(columns).for_each(|line| line[pixels..].fill(0.0));
    let at = |view: View, i: usize| view.start + i / view.w * view.row + i % view.w * view.pixel;
    for first in (0..pixels).step_by(QUERIES) {
        // the last pixel stands in for those beyond it
        let pixel: [usize; QUERIES] = std::array::from_fn(|q| (first + q).min(pixels - 1));
        let from = pixel.map(|i| at(input, i));
        // SAFETY: lines are of whole vectors, and queries within the arena, as the pixels above were.
        unsafe {
            let query = |q: usize, k: usize| *arena.get_unchecked(from[q] + k);
            products::<S>(c, keys, columns, query, scores);
        }
        for line in scores.chunks_exact_mut(columns) {
            let greatest = line[..pixels].iter().fold(f32::NEG_INFINITY, |m, s| m.max(*s));
            line.as_chunks_mut::<CHUNK>().0.iter_mut().for_each(|v| v.iter_mut().for_each(|s| *s = exp(*s - greatest)));
            line[pixels..].fill(0.0);
            let total = 1.0 / line.iter().sum::<f32>();
            line.iter_mut().for_each(|s| *s *= total);
        }
        let mut means = [0f32; QUERIES * MOST];
        for start in (0..channels).step_by(MOST) {
            let width = (channels - start).min(MOST);
            // SAFETY: as above; `start` leaves at least `width` numbers of each line.
            unsafe {
                let score = |q: usize, p: usize| *scores.get_unchecked(q * columns + p);
                products_of::<S>(pixels, values.as_ptr().add(start), channels, width, score, &mut means);
            }
            for (i, mean) in pixel.into_iter().zip(means.chunks_exact(width)) {
                let used = width.min(c - start);
                arena[at(output, i) + start..][..used].copy_from_slice(&mean[..used]);
            }
        }
    }
}

/// Channels of values that are averaged at a time.
const MOST: usize = 64;

#[inline(always)]
unsafe fn products<S: Simd>(
    count: usize,
    lines: &[f32],
    width: usize,
    factor: impl Fn(usize, usize) -> f32,
    out: &mut [f32],
) {
    assert!(lines.len() >= count * width);
    // SAFETY: just checked.
    unsafe { products_of::<S>(count, lines.as_ptr(), width, width, factor, out) }
}

/// `out[q, i] = Σ_k factor(q, k) · lines[k, i]` for all queries and i < `width`, with lines `stride` numbers apart.
///
/// # Safety
/// The CPU must have the features of `S`; `lines` must hold `count` lines; `width` is a multiple of the vectors'.
#[inline(always)]
unsafe fn products_of<S: Simd>(
    count: usize,
    lines: *const f32,
    stride: usize,
    width: usize,
    factor: impl Fn(usize, usize) -> f32,
    out: &mut [f32],
) {
    assert!(out.len() >= QUERIES * width && width.is_multiple_of(S::LANES));
    for i in (0..width).step_by(S::LANES) {
        // SAFETY: the caller's promise, and the assertion.
        unsafe {
            let mut sums = [S::splat(0.0); QUERIES];
            for k in 0..count {
                let line = S::load(lines.add(k * stride + i));
                for (q, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(S::splat(factor(q, k)), line, *sum);
                }
            }
            (0..QUERIES).for_each(|q| S::store(out.as_mut_ptr().add(q * width + i), sums[q]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_silu_are_close_to_the_exact_ones() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "{x}");
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(silu(x)) - exact).abs() <= 5e-7 * exact.abs() + 1e-35, "silu {x}");
        }
        assert_eq!(silu(-1000.0), -1000.0 / (1.0 + exp(87.0 + 1.0)));
    }
}
