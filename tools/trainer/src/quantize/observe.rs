//! What the inner values of a network are in the calls of its trajectories, a batch of values at a time.

use super::layers::{Kind, Layer, Window};
use super::runs::Calls;
use anyhow::{Context, Result};
use edgegen::noise::choice;
use edgegen::{Model, ModelOptions, Network};
use onnx::pb::ModelProto;
use prost::Message;

/// What was seen of a value.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// For each of [`TIMES`] stretches of time, from the least noise to the most: the least and the greatest number.
    pub by_time: Vec<(f32, f32)>,
    /// What the layers that read it add up: for each layer, rows of as many numbers as one of its results is a sum over.
    pub rows: Vec<Vec<f32>>,
}

impl Seen {
    /// The least and the greatest number of all.
    pub fn extremes(&self) -> (f32, f32) {
        self.by_time.iter().fold((0.0, 0.0), |all, part| (all.0.min(part.0), all.1.max(part.1)))
    }
}

/// The stretches of time that ranges are reported for.
pub const TIMES: usize = 5;

/// How many numbers are observed at a time, beside the rows that are kept.
const MOST_OBSERVED: usize = 1 << 24;
/// How many numbers the rows of one batch of values may have together.
const MOST_KEPT: usize = 1 << 26;

/// Values that are read by layers, each with those layers.
pub type Group = (String, Vec<Layer>);

/// How many rows are kept for a layer: enough to tell apart what it adds up, and no more than `limit`.
pub fn rows_kept(layer: &Layer, limit: usize) -> usize {
    (2 * layer.inputs).clamp(1024, limit.max(1024))
}

/// Cuts values into batches that fit into memory together.
pub fn batches(groups: Vec<Group>, limit: usize) -> Vec<Vec<Group>> {
    let mut all: Vec<Vec<Group>> = Vec::new();
    let (mut observed, mut kept) = (0, 0);
    for group in groups {
        let numbers = group.1.first().map_or(0, |l| l.input_shape.iter().product::<usize>());
        let rows: usize = group.1.iter().map(|l| rows_kept(l, limit) * l.inputs).sum();
        if all.is_empty() || observed + numbers > MOST_OBSERVED || kept + rows > MOST_KEPT {
            all.push(Vec::new());
            (observed, kept) = (0, 0);
        }
        (observed, kept) = (observed + numbers, kept + rows);
        all.last_mut().expect("one was pushed").push(group);
    }
    all
}

/// Runs the calls and looks at the values that these layers read.
///
/// # Errors
/// When the values cannot be observed.
pub fn observe(
    proto: &ModelProto,
    options: &ModelOptions,
    calls: &Calls,
    groups: &[Group],
    limit: usize,
) -> Result<Vec<Seen>> {
    // the network's own input is known from the calls
    let model = options.clone().observe(groups.iter().map(|(name, _)| name.as_str())).read(&proto.encode_to_vec());
    let model: Model = model.context("the network cannot be looked into")?;
    let mut network = model.network()?;
    let mut out = vec![0.0; network.sample_len()];
    let mut all: Vec<Seen> = groups
        .iter()
        .map(|(_, layers)| Seen { by_time: vec![(0.0, 0.0); TIMES], rows: vec![Vec::new(); layers.len()] })
        .collect();
    let times = calls.calls.iter().map(|c| c.time);
    let (least, most) = times.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), t| (a.min(t), b.max(t)));
    let mut bound = None;
    for (i, call) in calls.calls.iter().enumerate() {
        if bound.replace(call.condition) != Some(call.condition) {
            network.bind(0, &calls.conditions[call.condition])?;
        }
        if let Some(next) = call.next {
            network.lead_to(next);
        }
        network.predict(&call.x, call.time, 0, &mut out)?;
        let stretch = ((call.time - least) / (most - least).max(1e-9) * TIMES as f64) as usize;
        for ((seen, values), (name, layers)) in all.iter_mut().zip(network.observed()).zip(groups) {
            anyhow::ensure!(
                values.iter().all(|v| v.is_finite()),
                "the value {name} is not finite in a call at time {}",
                call.time
            );
            let range = &mut seen.by_time[stretch.min(TIMES - 1)];
            let extremes = |(a, b): (f32, f32), v: &f32| (a.min(*v), b.max(*v));
            *range = values.iter().fold(*range, extremes);
            // of others only the weights are rounded
            let fitted = |(_, layer): &(_, &Layer)| layer.kind != Kind::Other;
            for (rows, layer) in seen.rows.iter_mut().zip(layers).filter(fitted) {
                let wanted = rows_kept(layer, limit);
                // as many of each call as bring it to the number in the end
                let count = wanted * (i + 1) / calls.calls.len() - wanted * i / calls.calls.len();
                for k in 0..count {
                    let row = choice(0x0b5e ^ (i as u64) << 20, k as u64, layer.rows);
                    append_row(layer, values, row, rows);
                }
            }
        }
    }
    Ok(all)
}

/// Adds the numbers that result `row` of a layer is a sum over.
fn append_row(layer: &Layer, values: &[f32], row: usize, rows: &mut Vec<f32>) {
    let Kind::Conv(window) = &layer.kind else {
        rows.extend_from_slice(&values[row * layer.inputs..][..layer.inputs]);
        return;
    };
    let Window { kernel, stride, dilation, before } = *window;
    let shape = &layer.input_shape;
    let (h, w) = if shape.len() == 3 { (1, shape[2]) } else { (shape[2], shape[3]) };
    let (y, x) = (row / layer.width, row % layer.width);
    for channel in values.chunks(h * w).take(layer.channels()) {
        for ky in 0..kernel[0] {
            let from_y = (y * stride[0] + ky * dilation[0]).checked_sub(before[0]).filter(|y| *y < h);
            for kx in 0..kernel[1] {
                let from_x = (x * stride[1] + kx * dilation[1]).checked_sub(before[1]).filter(|x| *x < w);
                rows.push(from_y.zip(from_x).map_or(0.0, |(y, x)| channel[y * w + x]));
            }
        }
    }
}
