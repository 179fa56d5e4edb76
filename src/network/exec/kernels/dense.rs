//! Everything that is not a convolution, in plain loops that compilers turn into vectors: each is inlined into an
//! entry point that enables the CPU's features.

use super::super::arena::View;
use super::conv8::Levels;

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
        arena[at..at + picture.c].iter_mut().for_each(|v| *v = levels.round(inverse, *v));
    }
}

#[inline(always)]
fn to_levels(values: &[f32], levels: Levels, out: &mut [u8]) {
    let inverse = 1.0 / levels.scale;
    out.iter_mut().zip(values).for_each(|(o, v)| *o = levels.level(inverse, *v) as u8);
}

/// Normalises `input` into `output`, with `work` of twice the channels.
#[inline(always)]
pub fn norm(n: &Norm, input: View, output: Output, work: &mut [f32], memory: Memory) {
    let (c, Memory { arena, bytes }) = (input.c, memory);
    let (Output::Float(view) | Output::Levels(view, _)) = output;
    assert!(view.c == c && n.scale.len() == c && n.shift.len() == c && c.is_multiple_of(n.groups));
    let (first, second) = work[..2 * c].split_at_mut(c);
    let each = c / n.groups;
    let count = (each * input.h * input.w) as f32;
    // the mean of each group, for each of its channels
    first.fill(0.0);
    for at in input.pixels() {
        first.iter_mut().zip(&arena[at..at + c]).for_each(|(s, x)| *s += x);
    }
    for group in first.chunks_exact_mut(each) {
        let mean = group.iter().sum::<f32>() / count;
        group.fill(mean);
    }
    second.fill(0.0);
    for at in input.pixels() {
        let pixel = &arena[at..at + c];
        second.iter_mut().zip(first.iter()).zip(pixel).for_each(|((s, m), x)| *s += (x - m) * (x - m));
    }
    for group in second.chunks_exact_mut(each) {
        let variance = group.iter().sum::<f32>() / count;
        group.fill(1.0 / (variance + n.epsilon).sqrt());
    }
    // y = x · factor + offset
    for (i, (mean, root)) in first.iter_mut().zip(second.iter_mut()).enumerate() {
        *root *= n.scale[i];
        *mean = n.shift[i] - *mean * *root;
    }
    for (from, to) in input.pixels().zip(view.pixels()) {
        // through a small buffer, since input and output lie in one arena
        let mut line = [0f32; 64];
        for start in (0..c).step_by(64) {
            let len = (c - start).min(64);
            let line = &mut line[..len];
            line.copy_from_slice(&arena[from + start..][..len]);
            let (factor, offset) = (&second[start..][..len], &first[start..][..len]);
            line.iter_mut().zip(factor).zip(offset).for_each(|((x, f), o)| *x = *x * f + o);
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

/// Attention of every pixel to every pixel: `input` has queries, keys and values side by side, already scaled.
/// `work` has room for keys and values of all pixels, and a row of scores.
#[inline(always)]
pub fn attention(input: View, output: View, work: &mut [f32], arena: &mut [f32]) {
    let (c, pixels) = (output.c, input.h * input.w);
    assert_eq!(input.c, 3 * c);
    let (keys, rest) = work.split_at_mut(c * pixels);
    let (values, scores) = rest.split_at_mut(c * pixels);
    let scores = &mut scores[..pixels];
    for (i, at) in input.pixels().enumerate() {
        (0..c).for_each(|k| keys[k * pixels + i] = arena[at + c + k]);
        values[i * c..][..c].copy_from_slice(&arena[at + 2 * c..][..c]);
    }
    for (from, to) in input.pixels().zip(output.pixels()) {
        scores.fill(0.0);
        for (k, keys) in keys.chunks_exact(pixels).enumerate() {
            let q = arena[from + k];
            scores.iter_mut().zip(keys).for_each(|(s, key)| *s += q * key);
        }
        let greatest = scores.iter().fold(f32::NEG_INFINITY, |m, s| m.max(*s));
        scores.iter_mut().for_each(|s| *s = exp(*s - greatest));
        let total = 1.0 / scores.iter().sum::<f32>();
        let out = &mut arena[to..to + c];
        out.fill(0.0);
        for (s, values) in scores.iter().zip(values.chunks_exact(c)) {
            let weight = s * total;
            out.iter_mut().zip(values).for_each(|(o, v)| *o += weight * v);
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
