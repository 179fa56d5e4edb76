//! ONNX networks: read by the model contract, run by a plan of our own where it covers the graph, else by tract.

use super::locate;
use super::metadata::Metadata;
use super::roles::{self, InputInfo, Role};
use super::tract::{Tract, TractState};
use crate::condition::Condition;
use crate::config::{SchedulerConfig, Sigmas};
use crate::file;
use crate::guard::guarded;
use crate::network::Network;
use crate::normalization::{Normalization, Scalings};
use crate::{Error, ErrorKind, Result};
use ::onnx::budget::Budget;
use ::onnx::external::load_external_data;
use ::onnx::fold::{drop_activation_quantization, drop_quantization_but_of_weighted, round_activations_in_float};
use ::onnx::mend::{mend, widen};
use ::onnx::pb::{self, tensor_proto::DataType};
use ::onnx::qoperator::expand;
use ::onnx::{for_tract, functions, order, signature};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What runs a network.
enum Engine {
    /// A plan of our own, which covers the whole graph.
    Plan(exec::Plan),
    /// tract, where the build has it.
    Tract(Tract),
}

impl Engine {
    fn plan(&self) -> Option<&exec::Plan> {
        match self {
            Engine::Plan(plan) => Some(plan),
            Engine::Tract(_) => None,
        }
    }
}

/// How a model file is read.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// The roles of inputs that the caller names; they come before what the file says.
    pub roles: Vec<(Role, String)>,
    /// The noise schedule, instead of the one that the file or its folder gives.
    pub scheduler: Option<SchedulerConfig>,
    /// The range of noise levels of a network that takes σ, instead of its schedule's.
    pub sigmas: Sigmas,
    /// One sample's shape, for a graph that leaves it open.
    pub sample_shape: Option<Vec<usize>>,
    /// The statistics that samples and conditions are scaled by, instead of those that the file gives.
    pub normalization: Option<Normalization>,
    /// Whether an int8 (QDQ) graph rounds every activation exactly as the file says, through a slow path, to
    /// compare with other runtimes. Off, the plan runs the convolutions of such a graph in 8 bits and the rest in
    /// float, and a graph that the plan does not cover runs in float with its rounded weights.
    pub exact_quantization: bool,
    /// The most bytes of memory that loading the model, its weights and a run of it may take together; sixteen times the
    /// sizes of its files, and at least 1 GiB, where nothing is said. What takes more is refused before it is allocated.
    pub max_memory: Option<usize>,
}

/// One input of a loaded model.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name in the file.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its shape at a batch of one.
    pub shape: Vec<usize>,
    pub(super) element: DataType,
}

impl Input {
    /// The name of its element type, such as `F32` or `I64`.
    pub fn element_type(&self) -> String {
        let name = match self.element {
            DataType::Float => "F32",
            DataType::Double => "F64",
            DataType::Int64 => "I64",
            DataType::Int32 => "I32",
            other => return format!("{other:?}").to_uppercase(),
        };
        name.into()
    }

    /// Whether its elements are whole numbers.
    fn is_whole(&self) -> bool {
        matches!(self.element, DataType::Int64 | DataType::Int32)
    }
}

/// A loaded network, ready to run: immutable, shared between threads. Each thread runs it through a
/// [`network`](Model::network) of its own.
#[derive(Clone)]
pub struct Model {
    engine: Arc<Engine>,
    inputs: Arc<[Input]>,
    sample_shape: Arc<[usize]>,
    metadata: Arc<Metadata>,
    scheduler: SchedulerConfig,
    scalings: Arc<Scalings>,
    operators: Arc<[(String, usize)]>,
    parameters: usize,
}

impl Model {
    /// Reads an ONNX file, or a folder that holds one in `unet/`, in `transformer/` or by itself, as diffusers and
    /// optimum lay it out. The noise schedule is, in this order, the one in `options`, in the file's own metadata,
    /// in a `scheduler_config.json` beside the file or in `scheduler/` beside it or its folder, or in a LeRobot
    /// policy's `config.json` beside it.
    ///
    /// # Errors
    /// When the file cannot be read, is not ONNX, has an operator that is not supported, or does not map
    /// (sample, time, conditions…) to one tensor of the sample's shape; when no schedule is given; when weights
    /// that it keeps in other files are missing, or are not in its folder.
    pub fn open(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Self> {
        let path = path.as_ref();
        let read = || {
            let file = locate::network_file(path)?;
            let bytes = file::read(&file, u64::MAX)
                .map_err(|e| Error::new(ErrorKind::Io, format!("the model cannot be read: {e}")))?;
            Self::load(bytes.into(), Some(&file), options)
        };
        read().map_err(|e: Error| e.context(path.display()))
    }

    /// Reads an ONNX model from memory: see [`open`](Model::open).
    ///
    /// # Errors
    /// As [`open`](Model::open).
    pub fn from_bytes(bytes: &[u8], options: &ModelOptions) -> Result<Self> {
        Self::load(Bytes::copy_from_slice(bytes), None, options)
    }

    /// The model that comes with the library: 28×28 pictures of garments in ten classes
    /// (`models/README.md` describes it).
    ///
    /// # Errors
    /// None that a caller could cause.
    #[cfg(feature = "embedded-model")]
    pub fn embedded() -> Result<Self> {
        Self::embedded_with(&ModelOptions::default())
    }

    /// The model that comes with the library, read with `options`.
    ///
    /// # Errors
    /// When the options do not fit it.
    #[cfg(feature = "embedded-model")]
    pub fn embedded_with(options: &ModelOptions) -> Result<Self> {
        let bytes = include_bytes!("../../models/fashion-mnist.int8.onnx");
        Self::load(Bytes::from_static(bytes), None, options)
    }

    /// `file` is where the bytes come from, if they are a file's.
    fn load(bytes: Bytes, file: Option<&Path>, options: &ModelOptions) -> Result<Self> {
        // what is not checked of a file must not take the caller down
        guarded(|| load(bytes, file, options))
            .unwrap_or_else(|| Err(model_error("the graph is malformed: loading it failed an internal check")))
    }

    /// The shape of one sample: `[C, H, W]`, `[T, D]` or `[D]`.
    pub fn sample_shape(&self) -> &[usize] {
        &self.sample_shape
    }

    /// The noise schedule that the model was trained with.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// How samples and conditions are scaled between the units of the data and the network's. The
    /// [`network`](Model::network) sees the network's; a [`Generator`](crate::Generator) takes and gives the data's.
    pub fn scalings(&self) -> &Scalings {
        &self.scalings
    }

    /// The least and the greatest value of a sample, black and white of a picture: what the file says, else -1 and 1.
    pub fn value_range(&self) -> (f32, f32) {
        self.metadata.value_range.unwrap_or((-1.0, 1.0))
    }

    /// What the file says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The model's inputs, in the file's order.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// What runs the network: `plan` for a plan of our own, else `tract` and why.
    pub fn engine(&self) -> String {
        match &*self.engine {
            Engine::Plan(plan) => format!(
                "plan of {} steps, {:.2} MB of weights, {:.2} MB of work space a thread",
                plan.kernels().count(),
                plan.weight_bytes() as f64 / 1e6,
                plan.workspace_bytes() as f64 / 1e6
            ),
            Engine::Tract(tract) => format!("tract ({})", tract.reason()),
        }
    }

    /// Whether a plan of our own runs the network: calls then allocate nothing.
    pub fn has_plan(&self) -> bool {
        self.engine.plan().is_some()
    }

    /// The bytes of the packed weights, which all networks over this model share; `None` where tract runs it.
    pub fn weight_bytes(&self) -> Option<usize> {
        self.engine.plan().map(exec::Plan::weight_bytes)
    }

    /// The bytes that each network over this model works in; `None` where tract runs it.
    pub fn workspace_bytes(&self) -> Option<usize> {
        self.engine.plan().map(exec::Plan::workspace_bytes)
    }

    /// A condition of the form that the model takes: class 0 if it takes one, and zeros for every other input.
    pub fn blank_condition(&self) -> Condition {
        let others = self.inputs.iter().filter(|i| i.role == Role::Condition);
        Condition {
            class: self.takes_class().then_some(0),
            named: others.map(|i| (i.name.clone(), vec![0.0; i.shape.iter().product()])).collect(),
        }
    }

    /// The steps or operators that a call runs, with how often each is, the most frequent first.
    pub fn operators(&self) -> &[(String, usize)] {
        &self.operators
    }

    /// The steps of the plan that runs the network, in their order, with their times on this machine if `runs` is
    /// not 0: the medians of as many runs on one thread. Empty for a network that tract runs.
    pub fn steps(&self, runs: usize) -> Vec<exec::StepInfo> {
        let Some(plan) = self.engine.plan() else { return Vec::new() };
        if runs == 0 {
            return plan.describe();
        }
        let x: Vec<f32> = (0..self.sample_shape.iter().product::<usize>()).map(|i| (i as f32).sin()).collect();
        let mut workspace = plan.workspace();
        let zeros: Vec<Vec<f32>> = plan.conditions().iter().map(|len| vec![0.0; *len]).collect();
        plan.bind(&mut workspace, 0, zeros.iter().map(Vec::as_slice));
        plan.profile(&mut workspace, exec::At { x: &x, t: 500.0, class: 0, slot: 0 }, runs)
    }

    /// The number of stored weights.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Whether the model takes a class label.
    pub fn takes_class(&self) -> bool {
        self.inputs.iter().any(|i| i.role == Role::Class)
    }

    /// The number of classes that one may ask for; `None` if the file does not say.
    pub fn num_classes(&self) -> Option<usize> {
        match (self.metadata.classes.len(), self.metadata.null_class) {
            (0, null) => null,
            (n, _) => Some(n),
        }
    }

    /// The index of the class that `name` names, or that it is the number of.
    ///
    /// # Errors
    /// When the model has no such class.
    pub fn class(&self, name: &str) -> Result<usize> {
        if !self.takes_class() {
            return Err(Error::invalid("this model takes no class"));
        }
        let names = &self.metadata.classes;
        if let Some(i) = names.iter().position(|n| n.eq_ignore_ascii_case(name)) {
            return Ok(i);
        }
        let count = self.num_classes();
        match name.parse::<usize>() {
            Ok(i) if count.is_none_or(|n| i < n) => Ok(i),
            _ => {
                let known = match count {
                    None => "a class index".to_string(),
                    Some(n) if names.is_empty() => format!("an index from 0 to {}", n.saturating_sub(1)),
                    Some(n) => format!("an index from 0 to {}, or one of: {}", n.saturating_sub(1), names.join(", ")),
                };
                Err(Error::invalid(format!("unknown class '{name}': give {known}")))
            }
        }
    }

    /// Whether `condition` is what the model takes: every condition that it needs and no other, each of its length,
    /// whole numbers where it takes integers.
    ///
    /// # Errors
    /// When it is not: what is wrong with it.
    pub fn check_condition(&self, condition: &Condition) -> Result<()> {
        check_condition(&self.inputs, self.metadata.null_class, condition)
    }

    /// A network of its own state over this model, for one thread.
    ///
    /// # Errors
    /// When the engine cannot set up its state.
    pub fn network(&self) -> Result<OnnxNetwork> {
        self.network_with_threads(1)
    }

    /// As [`network`](Model::network), with threads of its own that share each call, so that `threads` work on it in
    /// all; fewer where a call has no work for as many. What it computes is the same bits for any number. A network
    /// that tract runs has one.
    ///
    /// # Errors
    /// As there, when `threads` is 0, and when the system gives no thread.
    pub fn network_with_threads(&self, threads: usize) -> Result<OnnxNetwork> {
        OnnxNetwork::new(self, threads)
    }

    #[cfg(test)]
    pub(super) fn plan(&self) -> Option<&exec::Plan> {
        self.engine.plan()
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("inputs", &self.inputs)
            .field("scheduler", &self.scheduler)
            .finish_non_exhaustive()
    }
}

pub(super) fn model_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Model, message)
}

const NO_SCHEDULE: &str = "the model does not say what noise schedule it was trained with: put its scheduler_config.json beside it, or name one with --scheduler-config; or, for a network that takes sigma, give --sigma-min and --sigma-max";

/// A file that was read, before anything can run it.
struct File {
    proto: pb::ModelProto,
    metadata: Metadata,
    inputs: Vec<Input>,
    parameters: usize,
}

impl File {
    /// `file` is where the bytes come from, if they are a file's.
    fn read(bytes: Bytes, file: Option<&Path>, options: &ModelOptions, budget: &Budget) -> Result<Self> {
        budget.take_file(bytes.len()).map_err(model_error)?;
        let mut proto = pb::ModelProto::decode(bytes)
            .map_err(|_| model_error("not an ONNX model, or one cut short: its protobuf encoding cannot be read"))?;
        let metadata = Metadata::from_props(proto.metadata_props.iter().map(|p| (p.key.as_str(), p.value.as_str())))?;
        functions::inline(&mut proto).map_err(model_error)?;
        let graph = proto.graph.as_mut().ok_or_else(|| model_error("not an ONNX model: it holds no graph"))?;
        order::sort(graph).map_err(model_error)?;
        signature::check(&proto).map_err(model_error)?;
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
        Ok(File { proto, metadata, inputs, parameters })
    }

    /// The graph, to be changed.
    fn graph(&mut self) -> &mut pb::GraphProto {
        self.proto.graph.as_mut().expect("reading found one")
    }
}

fn load(bytes: Bytes, path: Option<&Path>, options: &ModelOptions) -> Result<Model> {
    let budget = options.max_memory.map_or_else(Budget::of_files, Budget::new);
    let mut file = File::read(bytes, path, options, &budget)?;
    let own = options.scheduler.as_ref().or(file.metadata.scheduler.as_ref()).cloned();
    let near = || path.map_or(Ok(None), locate::scheduler_near);
    let scheduler = match own.map_or_else(near, |s| Ok(Some(s)))? {
        Some(scheduler) => scheduler.with_sigmas(options.sigmas)?,
        // a range of sigmas is all that a sigma-conditioned network needs
        None if options.sigmas != Sigmas::default() => SchedulerConfig::denoised().with_sigmas(options.sigmas)?,
        None => return Err(model_error(NO_SCHEDULE)),
    };
    let scalings = scalings(&file.inputs, options.normalization.as_ref().or(file.metadata.normalization.as_ref()))?;
    if !options.exact_quantization {
        // a fallback drops the rest
        drop_quantization_but_of_weighted(file.graph());
    }
    let planned = plan(exec::Isa::detect(), &file, &budget);
    let (engine, operators) = match planned {
        Ok(plan) => {
            let names = count_names(plan.kernels());
            (Engine::Plan(plan), names)
        }
        // another engine has no more memory
        Err(exec::Reason::TooLarge(reason)) => {
            return Err(model_error(format!("{reason}: allow more with ModelOptions::max_memory")));
        }
        Err(exec::Reason::Malformed(reason)) => {
            return Err(model_error(format!("the graph is malformed: {reason}")));
        }
        Err(reason) => {
            let reason = reason.to_string();
            check_windows(file.graph())?;
            widen(file.graph());
            if options.exact_quantization {
                round_activations_in_float(file.graph());
            } else {
                drop_activation_quantization(file.graph());
            }
            let opset = signature::opset(&file.proto).map_err(model_error)?;
            for_tract::prepare(file.graph(), opset).map_err(model_error)?;
            let (tract, names) = Tract::load(&file.proto, &file.inputs, reason)?;
            (Engine::Tract(tract), names)
        }
    };
    let sample = file.inputs.iter().find(|i| i.role == Role::Sample).expect("roles::resolve found one");
    Ok(Model {
        sample_shape: sample.shape[1..].into(),
        inputs: file.inputs.into(),
        engine: Arc::new(engine),
        metadata: Arc::new(file.metadata),
        scheduler,
        scalings: Arc::new(scalings),
        operators: operators.into(),
        parameters: file.parameters,
    })
}

/// Refuses windows that no network has: tract takes memory by their sizes.
fn check_windows(graph: &pb::GraphProto) -> Result<()> {
    const MOST: i64 = 1 << 10;
    let names = ["pads", "kernel_shape", "strides", "dilations", "output_padding", "output_shape"];
    for node in &graph.node {
        let windows = node.attribute.iter().filter(|a| names.contains(&a.name.as_str()));
        for (name, size) in windows.flat_map(|a| a.ints.iter().map(|i| (&a.name, *i))) {
            if !(-MOST..=MOST).contains(&size) {
                let (op, node) = (&node.op_type, &node.name);
                return Err(model_error(format!("the graph is malformed: {op} {node} has {size} among its {name}")));
            }
        }
    }
    Ok(())
}

/// How many numbers a stored tensor has.
fn numbers(tensor: &pb::TensorProto) -> usize {
    tensor.dims.iter().fold(1, |n: usize, d| n.saturating_mul(usize::try_from(*d).unwrap_or(0)))
}

fn scalings(inputs: &[Input], normalization: Option<&Normalization>) -> Result<Scalings> {
    let Some(normalization) = normalization else { return Ok(Scalings::default()) };
    let sample = inputs.iter().find(|i| i.role == Role::Sample).expect("roles::resolve found one");
    let conditions = inputs.iter().filter(|i| i.role == Role::Condition);
    let conditions: Vec<_> = conditions.map(|i| (i.name.as_str(), i.shape.iter().product())).collect();
    normalization.scalings(&sample.name, &sample.shape[1..], &conditions)
}

/// A plan of our own for a kind of CPU, or why there is none. Quantization that is not of convolutions must be gone.
fn plan(isa: exec::Isa, file: &File, budget: &Budget) -> std::result::Result<exec::Plan, exec::Reason> {
    let inputs = &file.inputs;
    let of = |role: Role| inputs.iter().filter(move |i| i.role == role);
    let input = |i: &Input| {
        let whole = i.is_whole();
        let known = whole || matches!(i.element, DataType::Float | DataType::Double);
        let dims = i.shape.clone();
        Some((dims, whole)).filter(|_| known).ok_or_else(|| format!("{} is of an unknown type", i.name))
    };
    fn named<'a>(i: &'a Input, (dims, integer): (Vec<usize>, bool)) -> exec::GraphInput<'a> {
        exec::GraphInput { name: &i.name, dims, integer }
    }
    let one = |role: Role| of(role).next().map(|i| Ok::<_, exec::Reason>(named(i, input(i)?))).transpose();
    let (Some(sample), Some(time)) = (one(Role::Sample)?, one(Role::Time)?) else {
        return Err("the network takes no sample or no time".into());
    };
    let conditions =
        of(Role::Condition).map(|i| Ok(named(i, input(i)?))).collect::<std::result::Result<_, exec::Reason>>()?;
    let graph = file.proto.graph.as_ref().expect("reading found one");
    exec::compile(isa, graph, &exec::Inputs { sample, time, class: one(Role::Class)?, conditions }, budget)
}

fn input_info(input: &pb::ValueInfoProto) -> Result<InputInfo> {
    use pb::tensor_shape_proto::dimension::Value;
    let no_type = || model_error(format!("input {} is not a tensor", input.name));
    let Some(pb::type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(no_type());
    };
    let element = pb::tensor_proto::DataType::try_from(tensor.elem_type).map_err(|_| no_type())?;
    use pb::tensor_proto::DataType as T;
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

fn element_type(input: &pb::ValueInfoProto) -> Option<pb::tensor_proto::DataType> {
    let Some(pb::type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return None;
    };
    pb::tensor_proto::DataType::try_from(tensor.elem_type).ok()
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
            (_, None) => Err(model_error(format!(
                "the model leaves dimension {axis} of its input {} open: give the sample's shape with --shape, such as 3,32,32",
                info.describe()
            ))),
        })
        .collect()
}

pub(super) fn count_names(names: impl Iterator<Item = impl Into<String>>) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    names.for_each(|name| *counts.entry(name.into()).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

/// A [`Model`] with the state to run it, for one caller. Inputs are written into tensors that live as
/// long as this does.
pub struct OnnxNetwork {
    state: State,
    inputs: Arc<[Input]>,
    sample_shape: Arc<[usize]>,
    null_class: Option<usize>,
}

/// What changes while a network runs.
enum State {
    Plan { engine: Arc<Engine>, workspace: Box<exec::Workspace> },
    Tract(Box<TractState>),
}

impl OnnxNetwork {
    fn new(model: &Model, threads: usize) -> Result<Self> {
        if threads == 0 {
            return Err(Error::invalid("a call needs at least 1 thread"));
        }
        let state = match &*model.engine {
            Engine::Plan(plan) => {
                let workspace = plan
                    .shared_workspace(threads)
                    .map_err(|e| Error::new(ErrorKind::Io, format!("{threads} threads cannot be started: {e}")))?;
                State::Plan { engine: model.engine.clone(), workspace: Box::new(workspace) }
            }
            Engine::Tract(tract) => State::Tract(Box::new(tract.state(&model.inputs)?)),
        };
        Ok(OnnxNetwork {
            state,
            inputs: model.inputs.clone(),
            sample_shape: model.sample_shape.clone(),
            null_class: model.metadata.null_class,
        })
    }
}

impl OnnxNetwork {
    /// The bytes that it works in, where they are known: not where tract runs it.
    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.state {
            State::Plan { engine, workspace } => {
                engine.plan().map_or(0, exec::Plan::workspace_bytes) + workspace.bytes_of_other_threads()
            }
            State::Tract(_) => 0,
        }
    }
}

/// The label to ask for, for the class input called `name`.
pub(super) fn label(condition: &Condition, null_class: Option<usize>, name: &str) -> Result<usize> {
    condition
        .class
        .or(null_class)
        .ok_or_else(|| Error::invalid(format!("the model needs a class (its input {name}): give one with --class")))
}

/// Whether a condition is what the inputs take.
pub(super) fn check_condition(inputs: &[Input], null_class: Option<usize>, condition: &Condition) -> Result<()> {
    let named = || inputs.iter().filter(|i| i.role == Role::Condition);
    if let Some(unknown) = condition.named.keys().find(|name| !named().any(|i| i.name == **name)) {
        let known = named().map(|i| i.name.as_str()).collect::<Vec<_>>();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(Error::invalid(format!("the model has no condition '{unknown}': it takes {known}")));
    }
    if let Some(input) = inputs.iter().find(|i| i.role == Role::Class) {
        label(condition, null_class, &input.name)?;
    }
    for input in named() {
        let Input { name, shape, .. } = input;
        let values = condition.named.get(name).ok_or_else(|| {
            Error::invalid(format!(
                "the model needs the condition {name} of shape {shape:?}: give it with --cond {name}=VALUE"
            ))
        })?;
        let len: usize = shape.iter().product();
        if values.len() != len {
            return Err(Error::invalid(format!(
                "condition {name} has {} numbers, but the model takes {len} (shape {shape:?})",
                values.len()
            )));
        }
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            return Err(Error::invalid(format!("condition {name} must be finite, but has {value}")));
        }
        if let Some(value) = values.iter().find(|v| input.is_whole() && v.fract() != 0.0) {
            return Err(Error::invalid(format!("condition {name} takes whole numbers, but has {value}")));
        }
    }
    Ok(())
}

impl Network for OnnxNetwork {
    fn sample_shape(&self) -> &[usize] {
        &self.sample_shape
    }

    fn predict(&mut self, x: &[f32], t: f64, condition: &Condition, out: &mut [f32]) -> Result<()> {
        let len = self.sample_len();
        if x.len() != len || out.len() != len {
            return Err(Error::invalid(format!(
                "a sample of this model has {len} numbers (shape {:?}), but the input has {} and the output {}",
                self.sample_shape,
                x.len(),
                out.len()
            )));
        }
        match &mut self.state {
            State::Tract(tract) => tract.predict(&self.inputs, self.null_class, (x, t, condition), out),
            State::Plan { engine, workspace } => {
                let plan = engine.plan().expect("made for a plan");
                check_condition(&self.inputs, self.null_class, condition)?;
                let class = match self.inputs.iter().find(|i| i.role == Role::Class) {
                    Some(input) => label(condition, self.null_class, &input.name)?,
                    None => 0,
                };
                if let Some(classes) = plan.classes().filter(|n| class >= *n) {
                    return Err(Error::invalid(format!("the model knows labels below {classes}, not {class}")));
                }
                let conditions = self.inputs.iter().filter(|i| i.role == Role::Condition);
                let run = || {
                    plan.bind(workspace, 0, conditions.map(|input| condition.named[&input.name].as_slice()));
                    plan.run(workspace, exec::At { x, t, class, slot: 0 }, out);
                };
                guarded(run).ok_or_else(|| Error::new(ErrorKind::Network, "the network failed an internal check"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    /// What a plan for `isa` makes of the shipped model and its schedule's middle.
    fn predictions(isa: exec::Isa, file: &File) -> Vec<u32> {
        let plan = plan(isa, file, &Budget::of_files()).unwrap();
        let sample = file.inputs.iter().find(|i| i.role == Role::Sample).unwrap();
        let mut x = vec![0.0; sample.shape.iter().product()];
        Noise::new(1, 0).fill(&mut x);
        let (mut workspace, mut out) = (plan.workspace(), vec![0.0; x.len()]);
        plan.bind(&mut workspace, 0, [].into_iter());
        let mut all = Vec::new();
        for t in [0.0, 321.5, 999.0] {
            plan.run(&mut workspace, exec::At { x: &x, t, class: 7, slot: 0 }, &mut out);
            all.extend(out.iter().map(|v| v.to_bits()));
        }
        all
    }

    #[test]
    fn cpus_that_fuse_multiplication_and_addition_give_the_same_bits() {
        for name in ["fashion-mnist.onnx", "fashion-mnist.int8.onnx"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
            let bytes = std::fs::read(path).unwrap().into();
            let mut file = File::read(bytes, None, &ModelOptions::default(), &Budget::of_files()).unwrap();
            drop_quantization_but_of_weighted(file.graph());
            let mut kinds = exec::Isa::available();
            // it rounds products before it adds them
            kinds.retain(|isa| *isa != exec::Isa::Portable);
            let of_each: Vec<Vec<u32>> = kinds.iter().map(|isa| predictions(*isa, &file)).collect();
            for (isa, bits) in kinds.iter().zip(&of_each) {
                let different = bits.iter().zip(&of_each[0]).filter(|(a, b)| a != b).count();
                assert_eq!(different, 0, "{name}: {isa:?} and {:?} differ", kinds[0]);
            }
        }
    }

    /// Every model that comes with the sources and has a plan, but those whose weights lie in other files.
    fn plans() -> Vec<(String, exec::Plan)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut all = Vec::new();
        for folder in ["models", "tests/fixtures/exports"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let mut bytes = std::fs::read(&path).unwrap_or_default();
                if name.ends_with(".gz") {
                    let mut unpacked = Vec::new();
                    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*bytes), &mut unpacked).unwrap();
                    bytes = unpacked;
                } else if !name.ends_with(".onnx") {
                    continue;
                }
                let options = ModelOptions { scheduler: Some(SchedulerConfig::default()), ..Default::default() };
                let model = Model::from_bytes(&bytes, &options);
                all.extend(model.ok().and_then(|m| m.plan().cloned()).map(|plan| (name, plan)));
            }
        }
        all
    }

    #[test]
    fn any_number_of_threads_makes_the_same_bits() {
        let plans = plans();
        assert!(plans.len() > 10, "{}", plans.len());
        for (name, plan) in plans {
            // small steps too
            let plan = plan.sharing_small_steps(4);
            let len = plan.sample_len();
            let run = |w: &mut exec::Workspace| {
                let conditions: Vec<Vec<f32>> = plan.conditions().iter().map(|len| vec![0.5; *len]).collect();
                plan.bind(w, 0, conditions.iter().map(Vec::as_slice));
                let mut all = Vec::new();
                // the second call finds what the first left
                for t in [3.0, 700.0] {
                    let (mut x, mut out) = (vec![0.0; len], vec![f32::NAN; len]);
                    Noise::new(t as u64, 0).fill(&mut x);
                    plan.run(w, exec::At { x: &x, t, class: 1, slot: 0 }, &mut out);
                    all.extend(out.into_iter().map(f32::to_bits));
                }
                all
            };
            let alone = run(&mut plan.workspace());
            for threads in [2, 3, 4] {
                let mut w = plan.shared_workspace(threads).unwrap();
                assert!(run(&mut w) == alone, "{name} with {threads} threads");
            }
        }
    }

    #[test]
    fn slots_keep_what_their_conditions_came_to() {
        let mut with_conditions = 0;
        for (name, plan) in plans().into_iter().filter(|(_, plan)| !plan.conditions().is_empty()) {
            with_conditions += 1;
            let mut x = vec![0.0; plan.sample_len()];
            Noise::new(5, 0).fill(&mut x);
            let conditions = |value: f32| -> Vec<Vec<f32>> {
                let of = |len: &usize| (0..*len).map(|i| value * (i as f32 + 1.0).sin()).collect();
                plan.conditions().iter().map(of).collect()
            };
            let bind = |w: &mut exec::Workspace, slot: usize, value: f32| {
                plan.bind(w, slot, conditions(value).iter().map(Vec::as_slice));
            };
            let run = |w: &mut exec::Workspace, slot: usize, t: f64| -> Vec<u32> {
                let mut out = vec![f32::NAN; x.len()];
                plan.run(w, exec::At { x: &x, t, class: 0, slot }, &mut out);
                out.into_iter().map(f32::to_bits).collect()
            };
            // each by itself, in a fresh work space
            let alone = |value: f32, t: f64| {
                let mut w = plan.workspace();
                bind(&mut w, 0, value);
                run(&mut w, 0, t)
            };
            let mut w = plan.workspace();
            bind(&mut w, 0, 0.5);
            bind(&mut w, 1, 0.0);
            // the second round finds the times remembered
            for t in [700.0, 3.0, 700.0, 3.0] {
                assert!(run(&mut w, 0, t) == alone(0.5, t), "{name}: slot 0 at {t}");
                assert!(run(&mut w, 1, t) == alone(0.0, t), "{name}: slot 1 at {t}");
            }
            assert_ne!(run(&mut w, 0, 3.0), run(&mut w, 1, 3.0), "{name}: the condition has no effect");
            // conditions that are there already are not worked out again
            bind(&mut w, 0, 0.5);
            assert_eq!(w.bindings(), 2, "{name}");
            bind(&mut w, 0, 0.25);
            assert_eq!(w.bindings(), 3, "{name}");
            assert!(run(&mut w, 0, 3.0) == alone(0.25, 3.0), "{name}: bound anew");
        }
        assert!(with_conditions > 3, "{with_conditions}");
    }

    #[test]
    fn borders_go_with_the_step_after_them() {
        let (_, plan) = plans().into_iter().find(|(name, _)| name == "fashion-mnist.int8.onnx").unwrap();
        let (beside, borders) = plan.borders_beside();
        assert!(beside > 10 && beside < borders, "{beside} of {borders}");
    }
}
