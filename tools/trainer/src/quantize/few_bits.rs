//! Weights alone in 4 bits: blocks of 32 share a scale, which is a whole multiple of its output's finest.
//!
//! The multiples, 1 to 15, make every weight a whole number of 8 bits times one scale of its output. The file is in ONNX's plain
//! forms; edgegen finds the multiples in it, and multiplies in 8 bits what it then need not widen.

use super::layers::{Kind, Layer};
use super::matrix::product;
use super::rounding::{Format, Moments, Rounded, nearest, scales};
use anyhow::Result;

/// The weights that share a scale.
pub const BLOCK: usize = 32;
/// 4 bits around zero.
const FORMAT: Format = Format { low: -8, high: 7, block: BLOCK };
/// The largest multiple: eight times it is within 8 bits.
const MOST: f32 = 15.0;

/// A layer with its weights in 4 bits.
pub struct FourBits {
    /// The layer.
    pub layer: Layer,
    /// Its levels and scales: for each output, tap of the kernel and channel, the channels last.
    pub rounded: Rounded,
    /// What is added to its results for their mean to stay.
    pub shift: Vec<f32>,
    /// The squares of its results over those of their errors, in decibels.
    pub sqnr: f64,
}

/// Whether a layer's weights can be in 4 bits: its channels are whole blocks.
pub fn suits(layer: &Layer) -> bool {
    layer.kind != Kind::Other && layer.channels().is_multiple_of(BLOCK)
}

/// Rounds a layer's weights, so that its results on these rows err little if there are any.
///
/// # Errors
/// When numbers are not finite.
pub fn fit(layer: &Layer, weights: &[f32], rows: &[f32], compensation: bool) -> Result<FourBits> {
    let k = layer.inputs;
    let weights = channels_last(weights, layer);
    if rows.is_empty() || !compensation {
        let scales = multiples(&scales(&weights, k, FORMAT, &vec![1.0; k]), k);
        let rounded = nearest(&weights, k, FORMAT, &scales);
        return Ok(FourBits { layer: layer.clone(), rounded, shift: Vec::new(), sqnr: f64::NAN });
    }
    let rows = channels_last(rows, layer);
    let moments = Moments::of(&rows, k)?;
    let scales = multiples(&scales(&weights, k, FORMAT, moments.diagonal()), k);
    let rounded = moments.round(&weights, FORMAT, &scales);
    let wanted = product(&rows, &weights, k)?;
    let made = product(&rows, &rounded.values(k, BLOCK), k)?;
    let shift = super::fit::mean_difference(&wanted, &made, layer.outputs);
    let error = |(i, (a, b)): (usize, (&f32, &f32))| f64::from(a - b - shift[i % layer.outputs]).powi(2);
    let left: f64 = wanted.iter().zip(&made).enumerate().map(error).sum();
    let power: f64 = wanted.iter().map(|v| f64::from(*v).powi(2)).sum();
    Ok(FourBits { layer: layer.clone(), rounded, shift, sqnr: 10.0 * (power / left.max(1e-30)).log10() })
}

/// Rows of channels with their taps, as rows of taps with their channels.
fn channels_last(rows: &[f32], layer: &Layer) -> Vec<f32> {
    let (k, c) = (layer.inputs, layer.channels());
    let taps = k / c;
    if taps == 1 {
        return rows.to_vec();
    }
    let of_row =
        |row: &[f32]| -> Vec<f32> { (0..taps).flat_map(|t| row.iter().skip(t).step_by(taps).copied()).collect() };
    rows.chunks(k).flat_map(of_row).collect()
}

/// The reverse, for `each` numbers that channels have come to.
pub fn channels_first<T: Copy>(rows: &[T], taps: usize, each: usize) -> Vec<T> {
    let of_row = |row: &[T]| -> Vec<T> { (0..each).flat_map(|c| row.iter().skip(c).step_by(each).copied()).collect() };
    rows.chunks(taps * each).flat_map(of_row).collect()
}

/// Scales of the blocks of rows of `k` numbers, each made a whole multiple of one number of the row, which has 8 bits, so that
/// multiples are exact.
fn multiples(scales: &[f32], k: usize) -> Vec<f32> {
    let of_row = |row: &[f32]| -> Vec<f32> {
        let greatest = row.iter().copied().fold(0.0, f32::max);
        let with = |most: f32| -> (f32, Vec<f32>) {
            let unit =
                f32::from_bits((greatest / most).to_bits().saturating_add(0xffff) & 0xffff_0000).max(f32::MIN_POSITIVE);
            let made: Vec<f32> = row.iter().map(|s| (s / unit).round().clamp(1.0, MOST) * unit).collect();
            let off = made.iter().zip(row).map(|(m, s)| ((m - s) / s.max(unit)).powi(2)).sum();
            (off, made)
        };
        let tried = (8..=15).map(|most| with(most as f32));
        tried.min_by(|a, b| a.0.total_cmp(&b.0)).map(|best| best.1).unwrap_or_default()
    };
    scales.chunks(k / BLOCK).flat_map(of_row).collect()
}

/// Numbers of 4 bits, two in a byte, the first in the low bits; `zero` is the number that stands for 0.
pub fn packed(levels: &[i8], zero: i8) -> Vec<u8> {
    let nibble = |level: &i8| (level.wrapping_add(zero) & 15) as u8;
    levels.chunks(2).map(|pair| nibble(&pair[0]) | pair.get(1).map_or(0, nibble) << 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_whole_multiples_of_one_of_their_row() {
        let scales: Vec<f32> = (0..64).map(|i| 0.013 + 0.0007 * (i * 37 % 64) as f32).collect();
        let made = multiples(&scales, 16 * BLOCK);
        for (row, exact) in made.chunks(16).zip(scales.chunks(16)) {
            let least = row.iter().copied().fold(f32::INFINITY, f32::min);
            let unit = (1..=15).map(|m| least / m as f32).find(|unit| row.iter().all(|s| (s / unit).fract() == 0.0));
            assert!(unit.is_some_and(|unit| row.iter().all(|s| s / unit <= 15.0)), "{row:?}");
            assert!(row.iter().zip(exact).all(|(a, b)| (a / b - 1.0).abs() < 0.25), "{row:?} for {exact:?}");
        }
    }

    #[test]
    fn two_numbers_are_in_a_byte_the_first_in_the_low_bits() {
        assert_eq!(packed(&[1, -1, -8, 7, 3], 0), [0xf1, 0x78, 0x03]);
        assert_eq!(packed(&[1, -1, -8, 7], 8), [0x79, 0xf0]);
    }

    #[test]
    fn channels_come_last_and_first_again() {
        let rows: Vec<u32> = (0..12).collect();
        // two taps of three channels
        let last: Vec<u32> = rows
            .chunks(6)
            .flat_map(|r| (0..2).flat_map(|t| (0..3).map(move |c| r[c * 2 + t])).collect::<Vec<_>>())
            .collect();
        assert_eq!(last[..6], [0, 2, 4, 1, 3, 5]);
        assert_eq!(channels_first(&last, 2, 3), rows);
    }
}
