//! Networks that tract runs: those that a plan of our own does not cover.

use super::gate;
use super::input::{Input, check_condition, label, unbound};
use super::role::Role;
use crate::condition::Condition;
use crate::error::{Hint, model_error};
use crate::guard::guarded;
use crate::{Error, ErrorKind, Result};
use ::onnx::budget::Budget;
use ::onnx::pb;
use prost::Message;
use std::collections::BTreeSet;
use std::sync::Arc;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::InferenceModelExt;

/// A network that tract runs.
pub struct Tract {
    plan: Arc<TypedRunnableModel>,
    reason: String,
    /// The shape of the prediction.
    output: Vec<usize>,
    /// How many numbers it gives after the prediction: a learned variance.
    rest: usize,
}

impl Tract {
    /// Loads the graph of `proto`, whose inputs are `inputs`; `reason` is why there is no plan of our own. Beside it come
    /// the names of the operators that a call runs.
    ///
    /// # Errors
    /// When it is not sent to tract ([`gate`]), tract cannot load it, or it does not give one tensor of the sample's shape.
    pub fn load(
        proto: &pb::ModelProto,
        (inputs, result): (&[Input], exec::ResultShape),
        reason: String,
        budget: &Budget,
    ) -> Result<(Self, Vec<String>)> {
        // what was taken for a plan has been dropped
        budget.restore();
        if let Some(graph) = &proto.graph {
            gate::check(graph, ::onnx::signature::opset(proto).map_err(model_error)?, inputs, budget)?;
        }
        let onnx = tract_onnx::onnx().with_ignore_value_info(true);
        let unsupported = proto.graph.as_ref().map(|graph| unsupported_operators(graph, &onnx)).unwrap_or_default();
        if !unsupported.is_empty() {
            return Err(model_error(format!(
                "the model uses operators that are not supported: {}",
                unsupported.join(", ")
            )));
        }
        let tract = |e: TractError| model_error(format!("the graph cannot be loaded: {}", one_line(&e)));
        let parsed = onnx.parse(&encode(proto)?, None).map_err(tract)?;
        if !parsed.unresolved_inputs.is_empty() {
            return Err(model_error(format!("nothing in the graph makes: {}", parsed.unresolved_inputs.join(", "))));
        }
        let mut graph = parsed.model;
        // Symbolic dimensions make tract more than twice as slow, and a batch makes it slower a sample, so samples are
        // run one by one.
        for (index, input) in inputs.iter().enumerate() {
            let fact = InferenceFact::dt_shape(datum_type(input)?, &input.shape);
            graph
                .set_input_fact(index, fact)
                .map_err(|e| model_error(format!("input {}: {}", input.name, one_line(&e))))?;
        }
        if graph.outputs.len() != 1 {
            return Err(model_error(format!(
                "the model has {} outputs; a diffusion network has one, of the sample's shape",
                graph.outputs.len()
            )));
        }
        graph.set_output_fact(0, Default::default()).map_err(tract)?;
        check_sizes(&mut graph, budget)?;
        let graph = graph.into_optimized().map_err(tract)?;
        let sample = inputs.iter().find(|i| i.role == Role::Sample).expect("roles::resolve found one");
        let (output, rest) = match result {
            exec::ResultShape::OfSample => (sample.shape.clone(), check_output(&graph, &sample.shape)?),
            exec::ResultShape::Any => {
                let fact = graph.output_fact(0).map_err(tract)?;
                let shape = fact.shape.as_concrete().filter(|_| FLOATS.contains(&fact.datum_type));
                (shape.ok_or_else(|| model_error("the decoder's output is of no known shape of floats"))?.to_vec(), 0)
            }
        };
        let operators = graph.nodes().iter().map(|node| node.op().name().to_string()).collect();
        Ok((Tract { plan: graph.into_runnable().map_err(tract)?, reason, output, rest }, operators))
    }

    /// The shape of what it gives.
    pub fn result_shape(&self) -> &[usize] {
        &self.output
    }

    /// Why there is no plan of our own.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The state of one thread's runs.
    ///
    /// # Errors
    /// When tract cannot set it up.
    pub fn state(&self, inputs: &[Input]) -> Result<TractState> {
        let network = |e: TractError| Error::new(ErrorKind::Network, one_line(&e));
        let zeros = |i: &Input| Ok(Arc::new(Tensor::zero_dt(datum_type(i)?, &i.shape).map_err(network)?));
        let tensors = inputs.iter().map(zeros).collect::<Result<_>>()?;
        Ok(TractState {
            state: self.plan.spawn().map_err(network)?,
            tensors,
            slots: Vec::new(),
            rest: vec![0.0; self.rest],
        })
    }
}

/// An input's element type, as tract names it.
fn datum_type(input: &Input) -> Result<DatumType> {
    tract_onnx::pb::tensor_proto::DataType::try_from(input.element as i32)
        .ok()
        .and_then(|element| DatumType::try_from(element).ok())
        .ok_or_else(|| model_error(format!("input {} is of an element type that is not supported", input.name)))
}

/// tract's own form of a model.
fn encode(proto: &pb::ModelProto) -> Result<tract_onnx::pb::ModelProto> {
    tract_onnx::pb::ModelProto::decode(proto.encode_to_vec().as_slice())
        .map_err(|e| model_error(format!("the graph cannot be loaded: {e}")))
}

/// Operators that tract does not know, in the graph and the graphs inside its nodes.
fn unsupported_operators(graph: &pb::GraphProto, onnx: &tract_onnx::Onnx) -> Vec<String> {
    fn walk(graph: &pb::GraphProto, onnx: &tract_onnx::Onnx, found: &mut BTreeSet<String>) {
        for node in &graph.node {
            if !onnx.op_register.0.contains_key(&node.op_type) {
                found.insert(node.op_type.clone());
            }
            for inner in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
                walk(inner, onnx, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(graph, onnx, &mut found);
    found.into_iter().collect()
}

/// Whether the budget has room for every value of a size that tract itself finds out.
fn check_sizes(graph: &mut InferenceModel, budget: &Budget) -> Result<()> {
    graph.analyse(true).map_err(|e| model_error(format!("the graph cannot be loaded: {}", one_line(&e))))?;
    for outlet in graph.nodes().iter().flat_map(|node| &node.outputs) {
        let Some(dims) = outlet.fact.shape.as_concrete_finite().ok().flatten() else { continue };
        let bytes = dims.iter().fold(4usize, |n, d| n.saturating_mul(*d));
        budget.fits(bytes).map_err(|e| model_error(e).with_hint(Hint::MaxMemory))?;
    }
    Ok(())
}

/// What an output may be of.
const FLOATS: [DatumType; 3] = [DatumType::F32, DatumType::F16, DatumType::F64];

/// Whether the output is a prediction, and how many numbers come after it.
fn check_output(graph: &TypedModel, sample: &[usize]) -> Result<usize> {
    let fact = graph.output_fact(0).map_err(|e| model_error(one_line(&e)))?;
    let shape = fact.shape.as_concrete();
    // twice the channels: the second half is a learned variance (arXiv 2102.09672)
    let with_variance = matches!((shape, sample), (Some([1, c, rest @ ..]), [1, n, others @ ..])
        if sample.len() >= 2 && n.checked_mul(2) == Some(*c) && rest == others);
    if shape != Some(sample) && !with_variance {
        let got = shape.map_or_else(|| format!("{:?}", fact.shape), |s| format!("{s:?}"));
        return Err(model_error(format!(
            "this is not a diffusion network: its output has shape {got}, but it must have the sample's shape {sample:?}"
        )));
    }
    if !FLOATS.contains(&fact.datum_type) {
        return Err(model_error(format!("the model's output must be of a float type, but is {:?}", fact.datum_type)));
    }
    Ok(if with_variance { sample.iter().product() } else { 0 })
}

/// The whole chain of causes on one line.
fn one_line(e: &TractError) -> String {
    format!("{e:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What changes while tract runs a network: one thread's.
pub struct TractState {
    state: TypedSimpleState,
    /// One an input.
    tensors: Vec<Arc<Tensor>>,
    /// What is bound to each slot: the tensors of the inputs of the class and of conditions, in their order.
    slots: Vec<Option<Vec<Arc<Tensor>>>>,
    /// What the latest call gave after the prediction.
    rest: Vec<f32>,
}

impl TractState {
    /// Takes a condition into a slot.
    ///
    /// # Errors
    /// When the condition is not what the network takes.
    pub fn bind(
        &mut self,
        inputs: &[Input],
        null_class: Option<usize>,
        slot: usize,
        condition: &Condition,
    ) -> Result<()> {
        check_condition(inputs, null_class, condition)?;
        let mut tensors = Vec::new();
        for input in inputs.iter().filter(|i| i.is_bound()) {
            let mut tensor = Tensor::zero_dt(datum_type(input)?, &input.shape)
                .map_err(|e| Error::new(ErrorKind::Network, one_line(&e)))?;
            match condition.named.get(&input.name) {
                Some(values) => fill(&mut tensor, values.iter().map(|v| f64::from(*v)))?,
                None => {
                    let (class, len) = (label(condition, null_class, input)?, tensor.len());
                    let number = |i: usize| match input.is_one_hot() {
                        true => f64::from(u8::from(i == class)),
                        false => class as f64,
                    };
                    fill(&mut tensor, (0..len).map(number))?;
                }
            }
            tensors.push(Arc::new(tensor));
        }
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(tensors);
        Ok(())
    }

    /// What the latest call gave after the prediction, if it gives more.
    pub fn variance(&self) -> Option<&[f32]> {
        Some(self.rest.as_slice()).filter(|rest| !rest.is_empty())
    }

    /// Evaluates the network at the sample, the times of both ends of the step and the condition of a slot, into `out`.
    ///
    /// # Errors
    /// When nothing is bound to the slot, or the network fails.
    pub fn predict(
        &mut self,
        inputs: &[Input],
        (x, times, slot): (&[f32], [f64; 2], usize),
        out: &mut [f32],
    ) -> Result<()> {
        self.fill_inputs(inputs, x, times)?;
        let bound = self.slots.get(slot).and_then(Option::as_ref).ok_or_else(|| unbound(slot))?;
        let places = inputs.iter().zip(&mut self.tensors).filter(|(i, _)| i.is_bound());
        places.zip(bound).for_each(|((_, place), tensor)| place.clone_from(tensor));
        let inputs: TVec<TValue> = self.tensors.iter().map(|t| TValue::from_const(t.clone())).collect();
        let state = &mut self.state;
        let network = |e: TractError| Error::new(ErrorKind::Network, format!("the network failed: {}", one_line(&e)));
        let outputs = guarded(|| state.run(inputs))
            .ok_or_else(|| Error::new(ErrorKind::Network, "the network failed an internal check"))?
            .map_err(network)?;
        let output = outputs[0].cast_to::<f32>().map_err(network)?;
        let values = output.try_as_plain_ram().and_then(|v| v.as_slice::<f32>()).map_err(network)?;
        out.copy_from_slice(&values[..out.len()]);
        self.rest.copy_from_slice(&values[out.len()..]);
        Ok(())
    }

    fn fill_inputs(&mut self, inputs: &[Input], x: &[f32], [t, next]: [f64; 2]) -> Result<()> {
        for (input, tensor) in inputs.iter().zip(&mut self.tensors) {
            if input.is_bound() {
                continue;
            }
            if Arc::get_mut(tensor).is_none() {
                // the engine kept a hold of it
                *tensor = Arc::new(tensor.deep_clone());
            }
            let tensor = Arc::get_mut(tensor).expect("just made unique");
            match input.role {
                Role::Sample => fill(tensor, x.iter().map(|v| f64::from(*v)))?,
                Role::Next => fill(tensor, std::iter::repeat_n(next, tensor.len()))?,
                _ => fill(tensor, std::iter::repeat_n(t, tensor.len()))?,
            }
        }
        Ok(())
    }
}

/// Writes numbers into a tensor of any element type; integers are rounded to the nearest.
fn fill(tensor: &mut Tensor, values: impl Iterator<Item = f64>) -> Result<()> {
    macro_rules! write {
        ($t:ty, $convert:expr) => {{
            let mut view = tensor.try_as_plain_ram_mut().map_err(|e| Error::new(ErrorKind::Network, one_line(&e)))?;
            let slice = view.as_slice_mut::<$t>().map_err(|e| Error::new(ErrorKind::Network, one_line(&e)))?;
            slice.iter_mut().zip(values).for_each(|(d, v)| *d = $convert(v));
        }};
    }
    match tensor.datum_type() {
        DatumType::F32 => write!(f32, |v| v as f32),
        DatumType::F64 => write!(f64, |v| v),
        DatumType::F16 => write!(f16, f16::from_f64),
        DatumType::I64 => write!(i64, |v: f64| v.round() as i64),
        DatumType::I32 => write!(i32, |v: f64| v.round() as i32),
        DatumType::I16 => write!(i16, |v: f64| v.round() as i16),
        DatumType::I8 => write!(i8, |v: f64| v.round() as i8),
        DatumType::U8 => write!(u8, |v: f64| v.round() as u8),
        DatumType::U16 => write!(u16, |v: f64| v.round() as u16),
        DatumType::U32 => write!(u32, |v: f64| v.round() as u32),
        DatumType::U64 => write!(u64, |v: f64| v.round() as u64),
        DatumType::Bool => write!(bool, |v: f64| v != 0.0),
        other => return Err(model_error(format!("inputs of type {other:?} are not supported"))),
    }
    Ok(())
}
