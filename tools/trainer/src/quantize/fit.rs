//! The 8 bits of layers: the range of what they read, how it is scaled before it is rounded, and their weights.

use super::layers::{Kind, Layer};
use super::matrix::product;
use super::observe::Seen;
use super::ranges::{Levels, RangeBy, Weighted, choose};
use super::rounding::{Format, Moments, Rounded, nearest, scales};
use super::smooth::{self, Fold};
use anyhow::Result;

/// A layer with its weights rounded.
#[derive(Clone, Debug)]
pub struct FittedLayer {
    /// The layer.
    pub layer: Layer,
    /// Its weights.
    pub rounded: Rounded,
    /// What is added to its results for their mean to stay.
    pub shift: Vec<f32>,
    /// The squares of its results over those of their errors, on rows that were not fitted to, in decibels.
    pub sqnr: f64,
    /// How its weights were rounded.
    pub method: &'static str,
}

/// Layers that read the same value.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The value.
    pub input: String,
    /// What it is rounded to; `None` where only weights are rounded.
    pub levels: Option<Levels>,
    /// What its channels are divided by before, and how.
    pub smoothing: Option<(Vec<f32>, Fold)>,
    /// The layers.
    pub layers: Vec<FittedLayer>,
    /// The least and the greatest number by stretches of time.
    pub by_time: Vec<(f32, f32)>,
}

impl Fitted {
    /// The multiplications of its layers in a call.
    pub fn multiply_adds(&self) -> usize {
        self.layers.iter().map(|l| l.layer.multiply_adds()).sum()
    }
}

/// What is done to find 8 bits.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// How ranges are chosen.
    pub ranges: RangeBy,
    /// Whether channels may be scaled before they are rounded.
    pub smoothing: bool,
    /// Whether weights are rounded so that errors make up for each other.
    pub compensation: bool,
}

/// Rows that choices are compared on.
const COMPARED: usize = 512;
/// The exponents of the channels' greatest numbers that scales are tried with (SmoothQuant's α, arXiv 2211.10438).
const EXPONENTS: [f32; 4] = [0.35, 0.5, 0.65, 0.8];
/// What is left of the squared error at most where channels are scaled by a step of their own, and where that costs nothing.
const WORTH: [f64; 2] = [0.6, 0.9];
/// Every how many rows one is kept from fitting, to judge by.
const JUDGED: usize = 4;

/// Weights of a layer, row by row.
pub type Weights = Vec<f32>;

/// Fits layers that read a value, with these weights.
///
/// # Errors
/// When numbers are not finite.
pub fn fit(
    input: &str,
    layers: &[Layer],
    weights: Vec<Weights>,
    seen: Seen,
    fold: Fold,
    method: Method,
) -> Result<Fitted> {
    let integer = layers.first().is_some_and(Layer::is_integer);
    let extremes = seen.extremes();
    let Seen { by_time, mut rows } = seen;
    let mut weights = weights;
    let mut smoothing = None;
    let mut levels = None;
    if integer {
        let plain = range(layers, &rows, &weights, extremes, method.ranges);
        levels = Some(plain);
        let linear = layers.iter().all(|l| matches!(l.kind, Kind::Linear { .. }));
        if method.smoothing
            && linear
            && let Some((by, smooth_levels)) = smoothed(layers, &rows, &weights, plain, method.ranges, &fold)?
        {
            divide_rows(&mut rows, &by);
            multiply_weights(&mut weights, &by);
            (smoothing, levels) = (Some((by, fold)), Some(smooth_levels));
        }
    }
    let mut fitted = Vec::new();
    for ((layer, weights), rows) in layers.iter().zip(weights).zip(rows) {
        fitted.push(fit_layer(layer, &weights, &rows, levels, method.compensation)?);
    }
    Ok(Fitted { input: input.into(), levels, smoothing, layers: fitted, by_time })
}

/// The levels of a value that layers read.
fn range(layers: &[Layer], rows: &[Vec<f32>], weights: &[Weights], extremes: (f32, f32), by: RangeBy) -> Levels {
    let weighted: Vec<Weighted> = layers
        .iter()
        .zip(rows)
        .zip(weights)
        .map(|((layer, rows), weights)| Weighted {
            rows: some(rows, layer.inputs),
            columns: squares(weights, layer.inputs),
        })
        .collect();
    Levels::of(choose(by, extremes, &weighted))
}

/// Some of the rows, which are in the order of the calls, of all times.
fn some(rows: &[f32], k: usize) -> Vec<f32> {
    let every = (rows.len() / k).div_ceil(COMPARED).max(1);
    rows.chunks(k).step_by(every).flatten().copied().collect()
}

/// The sum of squares of each column.
fn squares(weights: &[f32], k: usize) -> Vec<f32> {
    let mut sums = vec![0.0; k];
    weights.chunks(k).for_each(|row| sums.iter_mut().zip(row).for_each(|(s, w)| *s += w * w));
    sums
}

fn divide_rows(rows: &mut [Vec<f32>], by: &[f32]) {
    rows.iter_mut()
        .flat_map(|rows| rows.chunks_mut(by.len()))
        .for_each(|row| row.iter_mut().zip(by).for_each(|(v, b)| *v /= b));
}

fn multiply_weights(weights: &mut [Weights], by: &[f32]) {
    weights
        .iter_mut()
        .flat_map(|w| w.chunks_mut(by.len()))
        .for_each(|row| row.iter_mut().zip(by).for_each(|(v, b)| *v *= b));
}

/// What to divide channels by, with the levels that are then right, if that is worth it.
fn smoothed(
    layers: &[Layer],
    rows: &[Vec<f32>],
    weights: &[Weights],
    plain: Levels,
    by: RangeBy,
    fold: &Fold,
) -> Result<Option<(Vec<f32>, Levels)>> {
    let k = layers[0].inputs;
    let greatest = |of: &mut dyn Iterator<Item = &f32>| -> Vec<f32> {
        let mut most = vec![1e-6f32; k];
        of.enumerate().for_each(|(i, v)| most[i % k] = most[i % k].max(v.abs()));
        most
    };
    let of_rows = greatest(&mut rows.iter().flatten());
    let of_weights = greatest(&mut weights.iter().flatten());
    let before = error(layers, rows, weights, plain)?;
    let mut best: Option<(f64, Vec<f32>, Levels)> = None;
    for exponent in EXPONENTS {
        let by_channel = smooth::scales(&of_rows, &of_weights, exponent);
        let (mut rows, mut weights): (Vec<_>, Vec<_>) =
            (rows.iter().zip(layers).map(|(r, l)| some(r, l.inputs)).collect(), weights.to_vec());
        divide_rows(&mut rows, &by_channel);
        multiply_weights(&mut weights, &by_channel);
        let extremes = rows.iter().flatten().fold((0f32, 0f32), |(a, b), v| (a.min(*v), b.max(*v)));
        let levels = range(layers, &rows, &weights, extremes, by);
        let left = error(layers, &rows, &weights, levels)?;
        if best.as_ref().is_none_or(|(least, ..)| left < *least) {
            best = Some((left, by_channel, levels));
        }
    }
    let worth = WORTH[usize::from(!matches!(fold, Fold::Step))];
    Ok(best.filter(|(left, ..)| *left < worth * before).map(|(_, by, levels)| (by, levels)))
}

/// The squared error of layers whose input and weights are rounded, on some rows.
fn error(layers: &[Layer], rows: &[Vec<f32>], weights: &[Weights], levels: Levels) -> Result<f64> {
    let mut sum = 0.0;
    for ((layer, rows), weights) in layers.iter().zip(rows).zip(weights) {
        let (k, format) = (layer.inputs, Format::eight(layer.inputs));
        let rows = some(rows, k);
        let seen: Vec<f32> = rows.iter().map(|v| levels.round(*v)).collect();
        let rounded = nearest(weights, k, format, &scales(weights, k, format, &vec![1.0; k])).values(k, k);
        sum += squared_difference(&product(&rows, weights, k)?, &product(&seen, &rounded, k)?);
    }
    Ok(sum)
}

fn squared_difference(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// Rounds a layer's weights by whichever way errs least on rows that are kept from it.
pub fn fit_layer(
    layer: &Layer,
    weights: &[f32],
    rows: &[f32],
    levels: Option<Levels>,
    compensation: bool,
) -> Result<FittedLayer> {
    let (k, format) = (layer.inputs, Format::eight(layer.inputs));
    let of = |judged: bool| -> Vec<f32> {
        let chosen = rows.chunks(k).enumerate().filter(|(i, _)| (i % JUDGED == JUDGED - 1) == judged);
        chosen.flat_map(|(_, row)| row.iter().copied()).collect()
    };
    let see = |exact: &[f32]| -> Vec<f32> { exact.iter().map(|v| levels.map_or(*v, |l| l.round(*v))).collect() };
    if rows.is_empty() {
        let scales = scales(weights, k, format, &vec![1.0; k]);
        let rounded = nearest(weights, k, format, &scales);
        return Ok(FittedLayer { layer: layer.clone(), rounded, shift: Vec::new(), sqnr: f64::NAN, method: "nearest" });
    }
    let (exact, judged) = (of(false), of(true));
    let (seen, judged_seen) = (see(&exact), see(&judged));
    let (wanted, judged_wanted) = (product(&exact, weights, k)?, product(&judged, weights, k)?);
    let mut candidates: Vec<(&'static str, Rounded)> = Vec::new();
    if compensation {
        let moments = Moments::of(&seen, k)?;
        let plain = scales(weights, k, format, moments.diagonal());
        candidates.push(("nearest", nearest(weights, k, format, &plain)));
        candidates.push(("compensated", moments.round(weights, format, &plain)));
        if levels.is_some() {
            let fitted = moments.refit(weights, &seen, &exact)?;
            let scales = scales(&fitted, k, format, moments.diagonal());
            candidates.push(("refitted", moments.round(&fitted, format, &scales)));
        }
    } else {
        candidates.push(("nearest", nearest(weights, k, format, &scales(weights, k, format, &vec![1.0; k]))));
    }
    let power: f64 = judged_wanted.iter().map(|v| f64::from(*v).powi(2)).sum();
    let mut best: Option<(f64, FittedLayer)> = None;
    for (method, rounded) in candidates {
        let values = rounded.values(k, k);
        let shift = mean_difference(&wanted, &product(&seen, &values, k)?, layer.outputs);
        let mut made = product(&judged_seen, &values, k)?;
        made.chunks_mut(layer.outputs).for_each(|row| row.iter_mut().zip(&shift).for_each(|(v, s)| *v += s));
        let left = squared_difference(&judged_wanted, &made);
        if best.as_ref().is_none_or(|(least, _)| left < *least) {
            let sqnr = 10.0 * (power / left.max(1e-30)).log10();
            best = Some((left, FittedLayer { layer: layer.clone(), rounded, shift, sqnr, method }));
        }
    }
    Ok(best.expect("one was tried").1)
}

/// The mean of `a - b` in each of `n` columns.
pub fn mean_difference(a: &[f32], b: &[f32], n: usize) -> Vec<f32> {
    let mut sums = vec![0f64; n];
    a.iter().zip(b).enumerate().for_each(|(i, (a, b))| sums[i % n] += f64::from(a - b));
    let rows = (a.len() / n).max(1) as f64;
    sums.into_iter().map(|s| (s / rows) as f32).collect()
}
