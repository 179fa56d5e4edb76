//! A model file read, before anything can run it.

use super::input::Input;
use super::metadata::Metadata;
use super::options::ModelOptions;
use super::roles::{self, InputInfo, Role};
use crate::error::{Hint, model_error};
use crate::{Error, Result};
use ::onnx::budget::Budget;
use ::onnx::external::load_external_data;
use ::onnx::mend::mend;
use ::onnx::pb::{self, tensor_proto::DataType};
use ::onnx::qoperator::expand;
use ::onnx::{functions, order, signature};
use bytes::Bytes;
use exec::GraphInput;
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
}

impl File {
    /// `file` is where the bytes come from, if they are a file's.
    pub fn read(bytes: Bytes, file: Option<&Path>, options: &ModelOptions, budget: &Budget) -> Result<Self> {
        budget.take_file(bytes.len()).map_err(|e| model_error(e).with_hint(Hint::MaxMemory))?;
        let mut proto = pb::ModelProto::decode(bytes)
            .map_err(|_| model_error("not an ONNX model, or one cut short: its protobuf encoding cannot be read"))?;
        let metadata = Metadata::from_props(proto.metadata_props.iter().map(|p| (p.key.as_str(), p.value.as_str())))?;
        functions::inline(&mut proto).map_err(model_error)?;
        let graph = proto.graph.as_mut().ok_or_else(|| model_error("not an ONNX model: it holds no graph"))?;
        order::sort(graph).map_err(model_error)?;
        order::drop_dead(graph);
        signature::check(&mut proto).map_err(model_error)?;
        let graph = proto.graph.as_mut().expect("it was there");

        let folder = file.map(|f| f.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        load_external_data(graph, folder, budget).map_err(model_error)?;
        mend(graph);
        expand(graph);

        let stored: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let infos: Vec<InputInfo> =
            graph.input.iter().filter(|i| !stored.contains(i.name.as_str())).map(input_info).collect::<Result<_>>()?;
        let parameters = graph.initializer.iter().map(numbers).fold(0, usize::saturating_add);
        let named: Vec<(Role, String)> = options.roles.iter().chain(&metadata.roles).cloned().collect();
        let roles = roles::resolve(&infos, &named)?;
        let inputs = concrete_inputs(graph, &infos, &roles, options, &metadata)?;
        write_out(&mut proto, &inputs, budget)?;
        Ok(File { proto, metadata, inputs, parameters })
    }

    /// The graph, to be changed.
    pub fn graph(&mut self) -> &mut pb::GraphProto {
        self.proto.graph.as_mut().expect("reading found one")
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

fn input_info(input: &pb::ValueInfoProto) -> Result<InputInfo> {
    use pb::tensor_shape_proto::dimension::Value;
    let no_type = || model_error(format!("input {} is not a tensor", input.name));
    let Some(pb::type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(no_type());
    };
    let element = DataType::try_from(tensor.elem_type).map_err(|_| no_type())?;
    use DataType as T;
    let integer = !matches!(element, T::Float | T::Float16 | T::Double | T::Bfloat16);
    let dims = tensor.shape.as_ref().map(|s| s.dim.as_slice()).unwrap_or_default();
    let shape = dims
        .iter()
        .map(|d| match d.value {
            Some(Value::DimValue(n)) if n > 0 => Some(n as usize),
            _ => None,
        })
        .collect();
    Ok(InputInfo { name: input.name.clone(), integer, shape })
}

/// The most numbers that an input may have: what asks for more is damaged, or not for small machines.
const MOST_NUMBERS: usize = 1 << 28;

/// Every input at a batch of one.
fn concrete_inputs(
    graph: &pb::GraphProto,
    infos: &[InputInfo],
    roles: &[Role],
    options: &ModelOptions,
    metadata: &Metadata,
) -> Result<Vec<Input>> {
    let mut inputs = Vec::with_capacity(infos.len());
    for (info, &role) in infos.iter().zip(roles) {
        let given = match role {
            Role::Sample => options.sample_shape.as_ref().or(metadata.sample_shape.as_ref()),
            _ => None,
        };
        let shape = concrete_shape(info, role, given.map(Vec::as_slice))?;
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

/// An input's shape at a batch of one; `sample_shape` stands in for dimensions that the file leaves open.
fn concrete_shape(info: &InputInfo, role: Role, sample_shape: Option<&[usize]>) -> Result<Vec<usize>> {
    if let Some(given) = sample_shape {
        let fits = info.shape.len() == given.len() + 1
            && info.shape[1..].iter().zip(given).all(|(known, g)| known.is_none_or(|k| k == *g) && *g > 0);
        if !fits {
            return Err(Error::invalid(format!(
                "a sample of shape {given:?} does not fit the model's input {}",
                info.describe()
            )));
        }
        return Ok(std::iter::once(1).chain(given.iter().copied()).collect());
    }
    info.shape
        .iter()
        .enumerate()
        .map(|(axis, dim)| match (axis, dim) {
            // the batch, whatever the file was exported with
            (0, _) if info.shape.len() > 1 || role != Role::Condition => Ok(1),
            (0, None) => Ok(1),
            (_, Some(n)) => Ok(*n),
            (_, None) => {
                Err(model_error(format!("the model leaves dimension {axis} of its input {} open", info.describe()))
                    .with_hint(Hint::SampleShape))
            }
        })
        .collect()
}
