//! The ranges of a network's activations, measured on real data at every noise level.

use super::model::float_layers;
use super::quantize::activations;
use crate::checkpoint::Header;
use crate::data::{Condition, Samples};
use crate::distill::times;
use crate::network::NetworkConfig;
use crate::noise_path::level_at;
use anyhow::{Context, Result};
use edgegen::noise::Noise;
use edgegen::schedule::Schedule;
use exec::{At, GraphInput, Inputs, Isa, Plan, ResultShape, Workspace};
use onnx::budget::Budget;
use onnx::pb::{ModelProto, ValueInfoProto};
use std::collections::BTreeMap;

/// The least and the greatest value that is to be represented.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least.
    pub low: f32,
    /// The greatest.
    pub high: f32,
}

/// The range of each activation, by its name.
pub type Ranges = BTreeMap<String, Range>;

/// Measures the ranges of everything that [`quantize`](super::quantize()) rounds, by running the float
/// model on `count` samples of the data, noised to times spread evenly over the schedule, under their
/// labels and, every fourth, without one, and after a clean beginning if the network takes one. A student for few calls
/// sees its own runs instead, from noise on. Each range is the one with the least squared rounding error.
///
/// # Errors
/// When the model does not run.
pub fn calibrate(model: &ModelProto, header: &Header, data: &dyn Samples, count: usize) -> Result<Ranges> {
    let graph = model.graph.as_ref().context("a model without a graph")?;
    let names: Vec<String> = activations(graph, &float_layers(&header.network)).into_iter().collect();
    let plan = observer(model, &header.network, &names)?;
    let workspace = plan.workspace();
    let prediction = vec![0.0; plan.sample_len()];
    let seen = names.iter().map(|_| Observed::default()).collect();
    let mut observer = Observer { header, data, plan, workspace, prediction, seen };
    match header.distill {
        Some(_) => observer.see_runs(count)?,
        None => observer.see_data(count)?,
    }
    Ok(names.into_iter().zip(observer.seen.iter().map(Observed::range)).collect())
}

/// A model that is run for what it makes on the way.
struct Observer<'a> {
    header: &'a Header,
    data: &'a dyn Samples,
    plan: Plan,
    workspace: Workspace,
    prediction: Vec<f32>,
    seen: Vec<Observed>,
}

impl Observer<'_> {
    /// Runs the model on noised samples of the data.
    fn see_data(&mut self, count: usize) -> Result<()> {
        let (header, data) = (self.header, self.data);
        let schedule = Schedule::from_config(&header.scheduler)?;
        let clean_time = schedule.told_clean().time;
        for i in 0..count {
            let sample = self.bind(i);
            let level = level_at(&schedule, (i as f64 + 0.5) / count as f64);
            let (gamma, sigma) = (level.gamma as f32, level.sigma as f32);
            let mut noise = Noise::new(0xca11b, i as u64);
            let mut x = Vec::new();
            data.append(sample, &mut x);
            // the lengths of clean beginnings in turn
            let clean = i % (header.network.prefix() + 1);
            let known = clean * data.sample_shape()[data.sample_shape().len() - 1];
            x.iter_mut().enumerate().for_each(|(k, x)| {
                let noised = gamma * *x + sigma * noise.sample();
                *x = if k < known { *x } else { noised };
            });
            let class = match data.given(sample) {
                Condition::Label(_) if i % 4 == 3 => header.network.classes(),
                Condition::Label(label) => label,
                Condition::Numbers(_) => 0,
            };
            self.see(At { x: &x, t: level.time, class, first: (clean, clean_time), ..At::default() });
        }
        Ok(())
    }

    /// Makes `count` calls in runs of one call, two, four and ten, as the sampler `consistency` makes them, each under what a
    /// sample of the data is conditioned on.
    fn see_runs(&mut self, count: usize) -> Result<()> {
        let config = &self.header.scheduler;
        let schedule = Schedule::from_config(config)?;
        let range = if config.clip_sample { config.clip_sample_range as f32 } else { f32::INFINITY };
        let (mut calls, mut run) = (0, 0);
        while calls < count {
            let sample = self.bind(run);
            let class = match self.data.given(sample) {
                Condition::Label(label) => label,
                Condition::Numbers(_) => 0,
            };
            let mut noise = Noise::new(0xca11b, run as u64);
            // of no noise to begin with: the first level is all noise
            let mut x0 = vec![0.0; self.prediction.len()];
            for time in times(&schedule, [1, 2, 4, 10][run % 4]) {
                let level = schedule.level(time);
                let (gamma, sigma) = (level.gamma as f32, level.sigma as f32);
                let x: Vec<f32> = x0.iter().map(|x0| gamma * x0 + sigma * noise.sample()).collect();
                self.see(At { x: &x, t: time, class, ..At::default() });
                let kept = if config.is_flow() { 1.0 } else { gamma };
                for ((x0, x), said) in x0.iter_mut().zip(&x).zip(&self.prediction) {
                    *x0 = (kept * x - sigma * said).clamp(-range, range);
                }
                calls += 1;
            }
            run += 1;
        }
        Ok(())
    }

    /// Binds what a sample of the data, the `i`-th that is taken, is conditioned on, and says which it is.
    fn bind(&mut self, i: usize) -> usize {
        // a stride that is coprime to any data set's order by class
        let sample = (i * 7919) % self.data.count();
        let numbers: &[f32] = match self.data.given(sample) {
            Condition::Label(_) => &[],
            Condition::Numbers(numbers) => numbers,
        };
        self.plan.bind(&mut self.workspace, 0, Some(numbers).filter(|n| !n.is_empty()).into_iter());
        sample
    }

    /// Makes one call, and takes what it makes on the way into account.
    fn see(&mut self, at: At) {
        self.plan.run(&mut self.workspace, at, &mut self.prediction);
        for (seen, output) in self.seen.iter_mut().zip(self.workspace.observed()) {
            seen.add(output);
        }
    }
}

/// A plan of the model that gives the named tensors beside its prediction.
fn observer(model: &ModelProto, network: &NetworkConfig, names: &[String]) -> Result<Plan> {
    let mut graph = model.graph.clone().context("a model without a graph")?;
    graph.output.extend(names.iter().map(|name| ValueInfoProto { name: name.clone(), ..Default::default() }));
    let inputs: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    let input = |i: usize, dims: &[usize], integer| -> Result<GraphInput> {
        let name = inputs.get(i).context("a model of fewer inputs than its network has")?;
        Ok(GraphInput { name, dims: std::iter::once(1).chain(dims.iter().copied()).collect(), integer })
    };
    let (class, conditions) = match network {
        NetworkConfig::Unet(_) => (Some(input(2, &[], true)?), Vec::new()),
        NetworkConfig::Sequence(config) if config.conditions > 0 => {
            (None, vec![input(2, &[config.conditions], false)?])
        }
        NetworkConfig::Sequence(_) => (None, Vec::new()),
    };
    let times: &[usize] = if network.prefix() > 0 { &network.shape()[..1] } else { &[] };
    let time = Some(input(1, times, false)?);
    let result = ResultShape::OfSample;
    let opset = onnx::signature::opset(model).map_err(anyhow::Error::msg)?;
    let inputs =
        Inputs { sample: input(0, network.shape(), false)?, time, next: None, class, conditions, opset, result };
    exec::compile(Isa::detect(), &graph, &inputs, &exec::Numbers::default(), &Budget::new(usize::MAX))
        .map_err(|reason| anyhow::anyhow!("the network cannot be observed: {reason}"))
}

/// What was seen of one activation: its extremes, and a share of its values.
#[derive(Default)]
struct Observed {
    low: f32,
    high: f32,
    values: Vec<f32>,
    calls: usize,
}

impl Observed {
    /// Values kept of each call.
    const KEPT: usize = 257;

    fn add(&mut self, values: &[f32]) {
        for v in values {
            self.low = self.low.min(*v);
            self.high = self.high.max(*v);
        }
        // an offset of its own each call, so that every pixel and channel has its turn
        let stride = (values.len() / Self::KEPT).max(1);
        self.values.extend(values.iter().skip(self.calls * 31 % stride).step_by(stride));
        self.calls += 1;
    }

    /// The range whose u8 levels have the least mean squared error over the values kept: rounding within
    /// it, clipping outside. Ranges from all of what was seen to a third of it are tried, each end by itself.
    fn range(&self) -> Range {
        let error = |range: Range| -> f64 {
            let (scale, zero) = super::quantize::affine(range);
            let zero = f32::from(zero);
            let square = |v: &f32| {
                let level = ((v / scale).round() + zero).clamp(0.0, 255.0);
                f64::from(((level - zero) * scale - v).powi(2))
            };
            self.values.iter().map(square).sum()
        };
        let shares = || (0..14).map(|i| 1.0 - 0.05 * i as f32);
        let best = |candidates: &mut dyn Iterator<Item = Range>| {
            candidates.map(|range| (error(range), range)).min_by(|a, b| a.0.total_cmp(&b.0)).expect("some range").1
        };
        let (low, high) = (self.low, self.high);
        let both = best(&mut shares().map(|s| Range { low: low * s, high: high * s }));
        let upper = best(&mut shares().map(|s| Range { high: high * s, ..both }));
        best(&mut shares().map(|s| Range { low: low * s, ..upper }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For n values even in ±1 and one of 6, a range up to h errs by n/12 ((1 + h)/255)² + (6 - h)² in all.
    #[test]
    fn an_outlier_is_clipped_where_that_errs_least() {
        let mut seen = Observed::default();
        let n = 200_000;
        let mut values: Vec<f32> = (0..n).map(|i| (i % 2001) as f32 / 1000.0 - 1.0).collect();
        values[77] = 6.0;
        values.chunks(100).for_each(|chunk| seen.add(chunk));
        let range = seen.range();
        let a = n as f32 / (12.0 * 255.0 * 255.0);
        let best = (6.0 - a) / (1.0 + a);
        assert!((-1.05..=-0.95).contains(&range.low), "{range:?}");
        // the candidates are 0.3 apart
        assert!((range.high - best).abs() <= 0.3, "{range:?} rather than {best}");
    }
}
