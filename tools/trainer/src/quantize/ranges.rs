//! The range that a value's 8 bits cover.

use crate::export::affine;
use clap::ValueEnum;

pub use crate::export::Range;

/// How ranges are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RangeBy {
    /// The one with the least squared error of what reads the value.
    Mse,
    /// All but a ten-thousandth of the numbers at each end.
    Percentile,
    /// All numbers.
    MinMax,
}

/// The scale and zero point of u8 levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The distance of two levels.
    pub scale: f32,
    /// The level of 0.
    pub zero: u8,
}

impl Levels {
    /// Those over a range, which is widened to hold 0 exactly.
    pub fn of(range: Range) -> Self {
        let (scale, zero) = affine(range);
        Levels { scale, zero }
    }

    /// A number as QuantizeLinear and DequantizeLinear round it.
    pub fn round(&self, value: f32) -> f32 {
        let zero = f32::from(self.zero);
        (((value / self.scale).round_ties_even() + zero).clamp(0.0, 255.0) - zero) * self.scale
    }
}

/// Rows of numbers, and how much the square of an error of each column counts.
pub struct Weighted {
    /// The rows, one after the other.
    pub rows: Vec<f32>,
    /// What each column counts.
    pub columns: Vec<f32>,
}

/// What a percentile leaves out at each end.
const LEFT_OUT: f64 = 1e-4;

/// The range of what was seen: `extremes` of all of it, and some rows.
pub fn choose(by: RangeBy, extremes: (f32, f32), seen: &[Weighted]) -> Range {
    let all = Range { low: extremes.0, high: extremes.1 };
    match by {
        RangeBy::MinMax => all,
        RangeBy::Percentile => percentile(all, seen),
        RangeBy::Mse => least_error(all, seen),
    }
}

fn percentile(all: Range, seen: &[Weighted]) -> Range {
    let mut values: Vec<f32> = seen.iter().flat_map(|w| w.rows.iter().copied()).collect();
    let at = ((values.len() as f64 * LEFT_OUT) as usize).min(values.len().saturating_sub(1));
    if values.is_empty() {
        return all;
    }
    let low = *values.select_nth_unstable_by(at, f32::total_cmp).1;
    let last = values.len() - 1 - at;
    let high = *values.select_nth_unstable_by(last, f32::total_cmp).1;
    Range { low: low.min(0.0), high: high.max(0.0) }
}

/// The range with the least error: both ends are drawn in together, then each by itself.
fn least_error(all: Range, seen: &[Weighted]) -> Range {
    let error = |range: Range| -> f64 {
        let levels = Levels::of(range);
        let of_row = |row: &[f32], columns: &[f32]| -> f32 {
            row.iter().zip(columns).map(|(v, c)| (levels.round(*v) - v).powi(2) * c).sum()
        };
        seen.iter().flat_map(|w| w.rows.chunks(w.columns.len()).map(|row| f64::from(of_row(row, &w.columns)))).sum()
    };
    let mut best = (error(all), all);
    let mut attempt = |range: Range| {
        let found = error(range);
        if found < best.0 {
            best = (found, range);
        }
        best
    };
    (1..24).map(|i| 0.92f32.powi(i)).for_each(|s| _ = attempt(Range { low: all.low * s, high: all.high * s }));
    let mut last = attempt(all);
    for _ in 0..ROUNDS {
        let before = last.0;
        let at = last.1;
        FACTORS.iter().for_each(|s| last = attempt(Range { high: (at.high * s).min(all.high), ..at }));
        let at = last.1;
        FACTORS.iter().for_each(|s| last = attempt(Range { low: (at.low * s).max(all.low), ..at }));
        if last.0 >= ENOUGH * before {
            break;
        }
    }
    last.1
}

/// What an end of a range is multiplied with to find a better one, and how often at most.
const FACTORS: [f32; 8] = [0.7, 0.8, 0.87, 0.94, 1.06, 1.13, 1.2, 1.35];
const ROUNDS: usize = 16;
/// What is left of the error where another round is not worth it.
const ENOUGH: f64 = 0.99;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_level_of_every_range() {
        for (low, high) in [(-0.28f32, 5.0f32), (0.0, 1.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)] {
            let levels = Levels::of(Range { low, high });
            assert_eq!(levels.round(0.0), 0.0);
            assert!((levels.round(high.max(0.0)) - high.max(0.0)).abs() <= levels.scale, "{low}..{high}");
        }
    }

    /// For n values even in ±1 and one of 6, a range up to h errs by n/12 ((1 + h)/255)² + (6 - h)² in all.
    #[test]
    fn an_outlier_is_clipped_where_that_errs_least() {
        let n = 200_000;
        let mut rows: Vec<f32> = (0..n).map(|i| (i % 2001) as f32 / 1000.0 - 1.0).collect();
        rows[77] = 6.0;
        let seen = [Weighted { rows: rows.clone(), columns: vec![1.0; 100] }];
        let range = choose(RangeBy::Mse, (-1.0, 6.0), &seen);
        let a = n as f32 / (12.0 * 255.0 * 255.0);
        let best = (6.0 - a) / (1.0 + a);
        assert!((-1.1..=-0.9).contains(&range.low), "{range:?}");
        assert!((range.high / best - 1.0).abs() <= 0.1, "{range:?} rather than {best}");
    }

    #[test]
    fn what_counts_nothing_does_not_widen_a_range() {
        let rows: Vec<f32> = (0..4000).flat_map(|i| [(i % 201) as f32 / 100.0 - 1.0, (i % 101) as f32]).collect();
        let of = |columns| choose(RangeBy::Mse, (-1.0, 100.0), &[Weighted { rows: rows.clone(), columns }]);
        assert!(of(vec![1.0, 0.0]).high < 30.0);
        assert!(of(vec![1.0, 1.0]).high > 90.0);
    }
}
