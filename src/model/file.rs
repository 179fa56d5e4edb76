//! A model file read, before anything can run it.

use super::input::Input;
use super::join::Given;
use super::made_up::MadeUp;
use super::metadata::Metadata;
use super::options::ModelOptions;
use super::role::Role;
use super::roles::{self, InputInfo, Known};
use super::{adapt, digest, outputs, shapes};
use crate::error::{Hint, model_error};
use crate::{Error, Result};
use ::onnx::budget::Budget;
use ::onnx::external::load_external_data;
use ::onnx::mend::mend;
use ::onnx::pb::{self, tensor_proto::DataType};
use ::onnx::qoperator::expand;
use ::onnx::{functions, order, signature};
use bytes::Bytes;
use exec::{GraphInput, ResultShape};
use prost::Message;
use std::collections::BTreeSet;
use std::path::Path;

/// A file that was read, before anything can run it.
pub(super) struct File {
    pub proto: pb::ModelProto,
    pub metadata: Metadata,
    pub inputs: Vec<Input>,
    /// The number of stored weights.
    pub parameters: usize,
    /// How many samples it takes at a time, as it says.
    pub batch: usize,
    /// Its graph before anything was written out for a batch of one, if it is for a larger one.
    original: Option<pb::ModelProto>,
    /// Which inputs have a place for each of these.
    pub repeated: Vec<bool>,
    /// The shape of what it gives.
    pub result: ResultShape,
    /// What was made up about it.
    pub made_up: Vec<MadeUp>,
}

impl File {
    /// A network that makes samples. `file` is where the bytes come from, if they are a file's.
    pub fn read(bytes: Bytes, file: Option<&Path>, options: &ModelOptions, budget: &Budget) -> Result<Self> {
        if let Some(expected) = &options.sha256 {
            digest::check(&bytes, expected)?;
        }
        let (mut proto, metadata) = checked(bytes, file, budget, |graph, metadata| {
            if options.sha256.is_some() {
                digest::check_whole(graph)?;
            }
            keep_prediction(graph, options, metadata)?;
            adapt::give_too(graph, &options.observed).map_err(Error::invalid)
        })?;
        let graph = proto.graph.as_mut().expect("it was there");
        let infos = infos(graph)?;
        let parameters = graph.initializer.iter().map(numbers).fold(0, usize::saturating_add);
        let outputs: Vec<InputInfo> =
            graph.output.iter().take(1).map(|o| info(o).unwrap_or_else(|| unknown(o))).collect();
        let roles = roles(&infos, &outputs, options, &metadata)?;
        let sample = roles.iter().position(|role| *role == Role::Sample).expect("roles::resolve found one");
        let prediction = outputs.first().ok_or_else(|| model_error("the graph has no output"))?;
        let bound = shapes::bind(&infos, &roles, given(options, &metadata, prediction))?;
        let mut inputs = concrete_inputs(graph, &infos, &roles, bound.shapes)?;
        if let Some(joined) = &bound.joined {
            adapt::split_input(graph, &infos[sample].name, joined).map_err(Error::invalid)?;
            let element = inputs[sample].element;
            let part = |(name, size): &(Option<String>, usize)| {
                Some(Input { name: name.clone()?, role: Role::Condition, shape: joined.part(*size), element })
            };
            inputs.extend(joined.parts.iter().filter_map(part));
        }
        let batch = infos[sample].shape.first().copied().flatten().unwrap_or(1);
        // by this number, what is joined with the sample is of its batch
        let of_batch = |(i, input): (usize, &Input)| {
            let exported = infos.get(i).unwrap_or(&infos[sample]).shape.first().copied().flatten();
            exported == Some(batch) && input.shape.first() == Some(&1)
        };
        let repeated = inputs.iter().enumerate().map(of_batch).collect();
        let original = (batch > 1).then(|| proto.clone());
        match write_out(&mut proto, &inputs, budget) {
            // shapes that are written for a batch contradict one of 1
            Err(e) if original.is_none() => return Err(e),
            _ => {}
        }
        let result = ResultShape::OfSample;
        Ok(File { proto, metadata, inputs, parameters, batch, original, repeated, result, made_up: bound.made_up })
    }

    /// A network that makes something else of samples of this shape, which are all that it takes.
    pub fn read_decoder(bytes: Bytes, file: Option<&Path>, latents: &[usize], budget: &Budget) -> Result<Self> {
        let (mut proto, metadata) = checked(bytes, file, budget, |graph, _| {
            let outputs: Vec<InputInfo> = graph.output.iter().map(|o| info(o).unwrap_or_else(|| unknown(o))).collect();
            adapt::keep_output(graph, outputs::prediction(&outputs, None, None)?);
            Ok(())
        })?;
        let graph = proto.graph.as_mut().expect("it was there");
        let (infos, parameters) = (infos(graph)?, graph.initializer.iter().map(numbers).fold(0, usize::saturating_add));
        let [input] = infos.as_slice() else {
            let all: Vec<String> = infos.iter().map(InputInfo::describe).collect();
            return Err(model_error(format!("a decoder takes the latents alone, but this takes {}", all.join(", "))));
        };
        let shape: Vec<usize> = std::iter::once(1).chain(latents.iter().copied()).collect();
        let fits = |(dim, size): (&Option<usize>, &usize)| dim.is_none_or(|dim| dim == *size);
        if input.integer || input.shape.len() != shape.len() || !input.shape[1..].iter().zip(latents).all(fits) {
            return Err(model_error(format!(
                "samples of shape {latents:?} do not fit the decoder's input {}",
                input.describe()
            )));
        }
        let inputs = concrete_inputs(graph, &infos, &[Role::Sample], vec![shape])?;
        write_out(&mut proto, &inputs, budget)?;
        let (batch, original, repeated, made_up) = (1, None, vec![false], Vec::new());
        let result = ResultShape::Any;
        Ok(File { proto, metadata, inputs, parameters, batch, original, repeated, result, made_up })
    }

    /// The same for a file that was exported at a fixed batch, with a graph that runs the sample in every place of it and gives
    /// what the first came to.
    pub fn repeated(&self, budget: &Budget) -> Option<File> {
        let (mut proto, inputs) = (self.original.clone()?, self.inputs.clone());
        let repeated = inputs
            .iter()
            .zip(&self.repeated)
            .filter(|(_, is)| **is)
            .map(|(input, _)| (&*input.name, input.shape.len()));
        adapt::repeat(proto.graph.as_mut()?, repeated, self.batch);
        write_out(&mut proto, &inputs, budget).ok()?;
        let (metadata, made_up, repeated) = (self.metadata.clone(), self.made_up.clone(), vec![false; inputs.len()]);
        let (batch, original, parameters) = (1, None, self.parameters);
        Some(File { proto, metadata, inputs, parameters, batch, original, repeated, result: self.result, made_up })
    }

    /// The graph, to be changed.
    pub fn graph(&mut self) -> &mut pb::GraphProto {
        self.proto.graph.as_mut().expect("reading found one")
    }

    /// Whether activations are rounded to 8 bits (or other few).
    pub fn rounds_activations(&self) -> bool {
        let rounds = |op: &str| matches!(op, "QuantizeLinear" | "DynamicQuantizeLinear");
        self.proto.graph.iter().flat_map(|graph| &graph.node).any(|node| rounds(&node.op_type))
    }
}

/// Writes out the nodes that stand for others, now that the shapes of the inputs are known.
fn write_out(proto: &mut pb::ModelProto, inputs: &[Input], budget: &Budget) -> Result<()> {
    let opset = signature::opset(proto).map_err(model_error)?;
    let graph = proto.graph.as_mut().expect("it was there");
    fn shaped(i: &Input) -> GraphInput<'_> {
        GraphInput { name: &i.name, dims: i.shape.clone(), integer: i.is_whole() }
    }
    let shaped: Vec<GraphInput> = inputs.iter().map(shaped).collect();
    exec::write_out(graph, opset, &shaped, budget).map_err(|reason| match reason {
        exec::Reason::TooLarge(_) => model_error(reason.to_string()).with_hint(Hint::MaxMemory),
        exec::Reason::Malformed(_) => model_error(format!("the graph is malformed: {reason}")),
        _ => model_error(reason.to_string()),
    })
}

/// How many numbers a stored tensor has.
fn numbers(tensor: &pb::TensorProto) -> usize {
    tensor.dims.iter().fold(1, |n: usize, d| n.saturating_mul(usize::try_from(*d).unwrap_or(0)))
}

/// A file's graph with what is said of it: checked, with all weights in it, and in the form that is taken from here on.
/// `choose` leaves but one of its outputs.
fn checked(
    bytes: Bytes,
    file: Option<&Path>,
    budget: &Budget,
    choose: impl FnOnce(&mut pb::GraphProto, &Metadata) -> Result<()>,
) -> Result<(pb::ModelProto, Metadata)> {
    budget.take_file(bytes.len()).map_err(|e| model_error(e).with_hint(Hint::MaxMemory))?;
    let mut proto = pb::ModelProto::decode(bytes)
        .map_err(|_| model_error("not an ONNX model, or one cut short: its protobuf encoding cannot be read"))?;
    let metadata = Metadata::from_props(proto.metadata_props.iter().map(|p| (p.key.as_str(), p.value.as_str())))?;
    functions::inline(&mut proto).map_err(model_error)?;
    let graph = proto.graph.as_mut().ok_or_else(|| model_error("not an ONNX model: it holds no graph"))?;
    order::sort(graph).map_err(model_error)?;
    choose(graph, &metadata)?;
    order::drop_dead(graph);
    signature::check(&mut proto).map_err(model_error)?;
    let graph = proto.graph.as_mut().expect("it was there");

    let folder = file.map(|f| f.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    load_external_data(graph, folder, budget).map_err(model_error)?;
    mend(graph);
    expand(graph);
    Ok((proto, metadata))
}

/// Leaves out all outputs of a graph but the prediction, with what they alone depend on.
fn keep_prediction(graph: &mut pb::GraphProto, options: &ModelOptions, metadata: &Metadata) -> Result<()> {
    let named = options.output.as_deref().or(metadata.output.as_deref());
    if graph.output.len() == 1 && named.is_none_or(|name| graph.output[0].name == name) {
        return Ok(());
    }
    let infos = infos(graph)?;
    let outputs: Vec<InputInfo> = graph.output.iter().map(|o| info(o).unwrap_or_else(|| unknown(o))).collect();
    let roles = roles(&infos, &outputs, options, metadata)?;
    let sample = roles.iter().position(|role| *role == Role::Sample).expect("roles::resolve found one");
    adapt::keep_output(graph, outputs::prediction(&outputs, named, Some(&infos[sample]))?);
    Ok(())
}

/// What is known of a graph's inputs, which are not stored.
fn infos(graph: &pb::GraphProto) -> Result<Vec<InputInfo>> {
    let stored: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|i| !stored.contains(i.name.as_str()));
    inputs.map(|i| info(i).ok_or_else(|| model_error(format!("input {} is not a tensor", i.name)))).collect()
}

/// What is known of a value of a graph's, if it is a tensor.
fn info(value: &pb::ValueInfoProto) -> Option<InputInfo> {
    use pb::tensor_shape_proto::dimension::Value;
    let Some(pb::type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return None;
    };
    let element = DataType::try_from(tensor.elem_type).ok()?;
    use DataType as T;
    let integer = !matches!(element, T::Float | T::Float16 | T::Double | T::Bfloat16);
    let dims = tensor.shape.as_ref().map(|s| s.dim.as_slice()).unwrap_or_default();
    let shape = dims.iter().map(|d| match d.value {
        Some(Value::DimValue(n)) if n > 0 => Some(n as usize),
        _ => None,
    });
    let symbols = dims.iter().map(|d| match &d.value {
        Some(Value::DimParam(name)) if !name.is_empty() => Some(name.clone()),
        _ => None,
    });
    Some(InputInfo { name: value.name.clone(), integer, shape: shape.collect(), symbols: symbols.collect() })
}

/// A value of which the file says nothing.
fn unknown(value: &pb::ValueInfoProto) -> InputInfo {
    InputInfo { name: value.name.clone(), integer: false, shape: Vec::new(), symbols: Vec::new() }
}

/// The roles of the inputs.
fn roles(infos: &[InputInfo], outputs: &[InputInfo], options: &ModelOptions, metadata: &Metadata) -> Result<Vec<Role>> {
    let named: Vec<(Role, String)> = options.roles.iter().chain(&metadata.roles).cloned().collect();
    let conditions: Vec<&str> = options.conditions.keys().map(String::as_str).collect();
    let output = options.output.as_ref().or(metadata.output.as_ref());
    let may_be = |o: &&InputInfo| output.is_none_or(|name| o.name == *name) && o.shape.len() > 1;
    let outputs: Vec<_> = outputs.iter().filter(may_be).map(|o| o.shape.clone()).collect();
    roles::resolve(infos, Known { named: &named, conditions: &conditions, outputs: &outputs })
}

/// What is given of the inputs' shapes.
fn given<'a>(options: &'a ModelOptions, metadata: &'a Metadata, output: &'a InputInfo) -> Given<'a> {
    Given {
        sample: options.sample_shape.as_ref().or(metadata.sample_shape.as_ref()).map(Vec::as_slice),
        output: Some(output.shape.as_slice()).filter(|shape| !shape.is_empty()),
        conditions: &options.conditions,
        joins: if options.joins.is_empty() { &metadata.joins } else { &options.joins },
        make_up: options.make_up,
    }
}

/// The most numbers that an input may have: what asks for more is damaged, or not for small machines.
const MOST_NUMBERS: usize = 1 << 28;

/// Every input in its shape.
fn concrete_inputs(
    graph: &pb::GraphProto,
    infos: &[InputInfo],
    roles: &[Role],
    shapes: Vec<Vec<usize>>,
) -> Result<Vec<Input>> {
    let mut inputs = Vec::with_capacity(infos.len());
    for ((info, &role), shape) in infos.iter().zip(roles).zip(shapes) {
        let value = graph.input.iter().find(|i| i.name == info.name).expect("infos are of the graph's inputs");
        let element = element_type(value)
            .filter(|element| *element != DataType::Undefined)
            .ok_or_else(|| model_error(format!("input {} is of an element type that is not supported", info.name)))?;
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if count.is_none_or(|n| n > MOST_NUMBERS) || (role == Role::Sample && shape.len() < 2) {
            return Err(model_error(format!(
                "the input {} has shape {shape:?}, which is no {} that can be run",
                info.describe(),
                role.name()
            )));
        }
        inputs.push(Input { name: info.name.clone(), role, shape, element });
    }
    Ok(inputs)
}

fn element_type(input: &pb::ValueInfoProto) -> Option<DataType> {
    let Some(pb::type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return None;
    };
    DataType::try_from(tensor.elem_type).ok()
}
