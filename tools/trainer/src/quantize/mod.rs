//! Other people's float networks to 8 bits, calibrated along their own sampling trajectories.
//!
//! ```text
//!  file ─→ source ─→ layers ─→ runs (trajectories) ─→ observe ─→ fit (ranges, smooth, rounding) ─→ choose ─→ write ─→ file
//! ```

mod cases;
mod choose;
mod few_bits;
mod fit;
mod layers;
mod matrix;
mod observe;
mod opset;
mod ranges;
mod report;
mod rounding;
mod runs;
mod smooth;
mod source;
mod weights;
mod write;

pub use cases::Cases;
pub use fit::Method;
pub use ranges::RangeBy;
pub use source::open;

use anyhow::{Context, Result, ensure};
use choose::Choices;
use edgegen::model::Role;
use edgegen::{Model, ModelOptions};
use fit::Fitted;
use indicatif::ProgressBar;
use layers::{Layer, Skipped};
use observe::Seen;
use onnx::pb::{GraphProto, ModelProto};
use prost::Message;
use runs::Purpose;
use std::collections::HashMap;

/// How a network is quantized.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How 8 bits are found.
    pub method: Method,
    /// Trajectories to calibrate on.
    pub runs: usize,
    /// The share of multiplications that may stay float.
    pub budget: f64,
    /// Samples to report the distance of.
    pub reported: usize,
}

/// A quantized network, and what is said of it.
pub struct Quantized {
    /// The network.
    pub model: ModelProto,
    /// A line a layer, and the distance of whole samples.
    pub report: String,
}

/// The most numbers that a result may be a sum over for its weights to be rounded to make up for errors.
const MOST_COMPENSATED: usize = 6144;

/// The model of a file whose weights are read, for a graph that is changed.
///
/// # Errors
/// When edgegen cannot run it.
pub fn model(proto: &ModelProto, options: &ModelOptions) -> Result<Model> {
    let model = options.read(&proto.encode_to_vec())?;
    ensure!(
        model.has_plan(),
        "the network cannot be looked into, since edgegen has no plan for it: {}",
        model.engine()
    );
    Ok(model)
}

/// A float network, ready to be looked into.
struct Subject<'a> {
    proto: &'a ModelProto,
    options: &'a ModelOptions,
    float: Model,
    layers: Vec<Layer>,
    skipped: Vec<Skipped>,
    shapes: HashMap<String, Vec<usize>>,
    stored: HashMap<&'a str, usize>,
}

impl<'a> Subject<'a> {
    fn new(proto: &'a ModelProto, options: &'a ModelOptions) -> Result<Self> {
        let float = model(proto, options)?;
        let shapes = source::shapes(proto, float.inputs())?;
        let graph = proto.graph.as_ref().context("the file holds no graph")?;
        let (layers, skipped) = layers::layers(graph, &shapes);
        let stored = graph.initializer.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        Ok(Subject { proto, options, float, layers, skipped, shapes, stored })
    }

    fn graph(&self) -> &'a GraphProto {
        self.proto.graph.as_ref().expect("it was there")
    }

    /// The weights of a layer, those of each output together.
    fn weights(&self, layer: &Layer) -> Result<Vec<f32>> {
        let tensor = &self.graph().initializer[self.stored[layer.weights.as_str()]];
        Ok(layer.matrix(&source::floats(tensor).context("weights that are not floats")?))
    }

    /// Does something with each value that layers read, and with what is seen of it in the calls of `runs` trajectories.
    fn for_each(
        &self,
        cases: &Cases,
        (runs, limit): (usize, usize),
        mut work: impl FnMut(String, Vec<Layer>, Seen) -> Result<()>,
    ) -> Result<()> {
        let calls = runs::calls(&self.float, cases, runs)?;
        let groups = grouped(self.layers.clone());
        let bar = ProgressBar::new(groups.len() as u64);
        for batch in observe::batches(groups, limit) {
            let seen = observe::observe(self.proto, self.options, &calls, &batch, limit)?;
            for ((input, layers), seen) in batch.into_iter().zip(seen) {
                work(input, layers, seen)?;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// How far whole samples are from the float network's.
    fn compare(&self, quantized: &ModelProto, cases: &Cases, count: usize) -> Result<String> {
        let quantized = model(quantized, self.options)?;
        let steps = runs::own_steps(&self.float)?;
        let exact = runs::samples(&self.float, cases, Purpose::Report, count, steps)?;
        let made = runs::samples(&quantized, cases, Purpose::Report, count, steps)?;
        Ok(format!(
            "samples are {:.4} rms from the float network's ({count} of {steps} steps from the same noise), whose numbers deviate by {:.3}\n",
            runs::distance(&exact, &made),
            runs::deviation(&exact),
        ))
    }
}

/// Quantizes a float network to 8 bits.
///
/// # Errors
/// When it cannot be run, or has no layer that can be quantized.
pub fn quantize(proto: &ModelProto, options: &ModelOptions, cases: &Cases, plan: Plan) -> Result<Quantized> {
    let subject = Subject::new(proto, options)?;
    ensure!(
        subject.layers.iter().any(Layer::is_integer),
        "the network has no layer that can be in 8 bits{}",
        reasons(&subject.skipped)
    );
    let sample =
        subject.float.inputs().iter().find(|i| i.role == Role::Sample).context("a network without a sample")?;
    let folder = smooth::Folder::new(subject.graph(), &subject.shapes, &sample.name);
    let limit = if plan.method.compensation { MOST_COMPENSATED } else { 0 };
    let mut fitted: Vec<Fitted> = Vec::new();
    subject.for_each(cases, (plan.runs, limit), |input, layers, seen| {
        let weights = layers.iter().map(|layer| subject.weights(layer)).collect::<Result<_>>()?;
        let fold = folder.fold(&input, layers[0].inputs, layers.len());
        let small = layers.iter().all(|l| l.inputs <= MOST_COMPENSATED);
        let method = Method { compensation: plan.method.compensation && small, ..plan.method };
        fitted.push(fit::fit(&input, &layers, weights, seen, fold, method)?);
        Ok(())
    })?;
    // what 8 bits save of the time: nothing where only weights are rounded
    let cost = |f: &Fitted| if f.levels.is_some() { f.multiply_adds() as f64 } else { 0.0 };
    let costs: Vec<f64> = fitted.iter().map(cost).collect();
    let alone = |i: usize| write::write(proto, &[&fitted[i]]);
    let choices = choose::choose(proto, options, cases, Choices { costs: &costs, budget: plan.budget }, alone)?;
    let kept: Vec<&Fitted> = fitted.iter().zip(&choices).filter(|(_, c)| !c.float).map(|(f, _)| f).collect();
    let model = write::write(proto, &kept)?;
    let share = |float: bool| {
        let of_these: f64 = costs.iter().zip(&choices).filter(|(_, c)| c.float == float).map(|(cost, _)| cost).sum();
        100.0 * of_these / fitted.iter().map(|f| f.multiply_adds() as f64).sum::<f64>().max(1.0)
    };
    let mut report = report::layers(&fitted, &choices, &subject.skipped);
    report += &format!(
        "{:.1} % of the multiplications are in 8 bits, {:.1} % stay float by the budget\n",
        share(false),
        share(true)
    );
    report += &subject.compare(&model, cases, plan.reported)?;
    Ok(Quantized { model, report })
}

/// Stores the weights of a float network in 16 bits.
///
/// # Errors
/// When it has no layer with weights.
pub fn sixteen_bits(proto: &ModelProto, options: &ModelOptions, cases: &Cases, reported: usize) -> Result<Quantized> {
    let subject = Subject::new(proto, options)?;
    ensure!(
        !subject.layers.is_empty(),
        "the network has no layer whose weights can be in 16 bits{}",
        reasons(&subject.skipped)
    );
    let (model, kept) = weights::sixteen_bits(proto, &subject.layers)?;
    let mut report = format!("weights of {} layers are in 16 bits\n", subject.layers.len() - kept);
    if kept > 0 {
        report += &format!("those of {kept} stay float, since they are more than 16 bits hold\n");
    }
    report += &subject.compare(&model, cases, reported)?;
    Ok(Quantized { model, report })
}

/// Stores the weights of a float network in 4 bits, those that move samples most, and those that are no whole blocks, in 8.
///
/// # Errors
/// When it cannot be run, or has no layer whose weights can be in 4 bits.
pub fn four_bits(proto: &ModelProto, options: &ModelOptions, cases: &Cases, plan: Plan) -> Result<Quantized> {
    let subject = Subject::new(proto, options)?;
    ensure!(
        subject.layers.iter().any(few_bits::suits),
        "the network has no layer whose weights can be in 4 bits: none has channels in whole blocks of {}",
        few_bits::BLOCK
    );
    let limit = if plan.method.compensation { MOST_COMPENSATED } else { 0 };
    let (mut four, mut eight) = (Vec::new(), Vec::new());
    subject.for_each(cases, (plan.runs, limit), |_, layers, seen| {
        for (layer, rows) in layers.iter().zip(&seen.rows) {
            let weights = subject.weights(layer)?;
            let compensation = plan.method.compensation && layer.inputs <= MOST_COMPENSATED;
            eight.push(fit::fit_layer(layer, &weights, rows, None, compensation)?);
            four.push(if few_bits::suits(layer) {
                Some(few_bits::fit(layer, &weights, rows, compensation)?)
            } else {
                None
            });
        }
        Ok(())
    })?;
    let costs: Vec<f64> = four.iter().map(|f| f.as_ref().map_or(0.0, |f| f.rounded.levels.len() as f64)).collect();
    let alone = |i: usize| match &four[i] {
        Some(four) => weights::few_bits(proto, &[four], &[]),
        None => weights::few_bits(proto, &[], &[&eight[i]]),
    };
    let choices = choose::choose(proto, options, cases, Choices { costs: &costs, budget: plan.budget }, alone)?;
    let chosen = |i: &usize| !choices[*i].float && four[*i].is_some();
    let in_four: Vec<_> = (0..four.len()).filter(chosen).filter_map(|i| four[i].as_ref()).collect();
    let in_eight: Vec<_> = (0..four.len()).filter(|i| !chosen(i)).map(|i| &eight[i]).collect();
    let model = weights::few_bits(proto, &in_four, &in_eight)?;
    let mut report = report::weights(&four, &eight, &choices, &subject.skipped);
    report += &subject.compare(&model, cases, plan.reported)?;
    Ok(Quantized { model, report })
}

/// The layers that read the same value together, each once: those that only have their weights rounded are by themselves.
fn grouped(found: Vec<Layer>) -> Vec<observe::Group> {
    let mut groups: Vec<observe::Group> = Vec::new();
    for layer in found {
        let integer = layer.is_integer();
        let same = |(input, layers): &&mut observe::Group| *input == layer.input && integer && layers[0].is_integer();
        match groups.iter_mut().find(same) {
            Some((_, layers)) => layers.push(layer),
            None => groups.push((layer.input.clone(), vec![layer])),
        }
    }
    groups
}

fn reasons(skipped: &[Skipped]) -> String {
    skipped.first().map_or_else(
        || ": no convolution and no product by a stored matrix".into(),
        |s| format!(": {} cannot, since {}", s.name, s.reason),
    )
}
