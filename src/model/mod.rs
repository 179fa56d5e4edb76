//! A model: what its file says of itself, how it is opened, and what runs it.

mod adapt;
mod decoder;
mod digest;
mod engine;
mod file;
#[cfg(feature = "tract")]
mod gate;
mod input;
mod join;
mod locate;
mod made_up;
mod metadata;
mod names;
mod network;
mod options;
mod outputs;
mod role;
mod roles;
mod shapes;
mod time;
mod told;
#[cfg_attr(not(feature = "tract"), path = "without_tract.rs")]
mod tract;

pub use crate::normalization::{Affine, Normalization, Normalizer, Statistics};
pub use decoder::{Decoder, Scaling};
pub use exec::{Stage, StepInfo};
pub use input::Input;
pub(crate) use input::no_condition;
pub use made_up::MadeUp;
pub use metadata::Metadata;
pub use network::ModelNetwork;
pub use options::{ModelOptions, Precision};
pub use role::Role;
pub use time::TimeAs;

use crate::condition::Condition;
use crate::config::{SchedulerConfig, Sigmas};
use crate::error::{Hint, model_error};
use crate::guard::guarded;
use crate::lerobot::Control;
use crate::{Error, ErrorKind, Result, noise, suggest};
use ::onnx::budget::Budget;
use bytes::Bytes;
use engine::Engine;
use file::File;
use std::path::Path;
use std::sync::Arc;

/// A loaded network, ready to run: immutable, shared between threads. Each thread runs it through a
/// [`network`](Model::network) of its own, or a [`Generator`](crate::Generator).
#[derive(Clone)]
pub struct Model {
    engine: Arc<Engine>,
    inputs: Arc<[Input]>,
    sample_shape: Arc<[usize]>,
    metadata: Arc<Metadata>,
    scheduler_config: Arc<SchedulerConfig>,
    told: Result<TimeAs>,
    made_up: Arc<[MadeUp]>,
    control: Control,
    normalizer: Arc<Normalizer>,
    operators: Arc<[(String, usize)]>,
    parameters: usize,
    /// How many values are observed beside a prediction.
    observed: usize,
}

impl ModelOptions {
    /// Reads an ONNX file, or a folder that holds one in `unet/`, in `transformer/` or by itself, as diffusers and
    /// optimum lay it out. The noise schedule is, in this order, the one given here, in the file's own metadata,
    /// in a `scheduler_config.json` beside the file or in `scheduler/` beside it or its folder, or in a LeRobot
    /// policy's `config.json` beside it.
    ///
    /// # Errors
    /// When the file cannot be read, is not ONNX, has an operator that is not supported, or does not map
    /// (sample, time, conditions…) to one tensor of the sample's shape; when no schedule is given; when weights
    /// that it keeps in other files are missing, or are not in its folder.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        let read = || {
            let file = locate::network_file(path)?;
            let bytes = crate::file::read(&file, u64::MAX)
                .map_err(|e| Error::new(ErrorKind::Io, format!("the model cannot be read: {e}")))?;
            Model::load(bytes.into(), Some(&file), self)
        };
        read().map_err(|e: Error| e.context(path.display()))
    }

    /// Reads an ONNX model from memory: see [`open`](Self::open).
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, bytes: &[u8]) -> Result<Model> {
        Model::load(Bytes::copy_from_slice(bytes), None, self)
    }

    /// The model that comes with the library: see [`Model::embedded`].
    ///
    /// # Errors
    /// When the options do not fit it.
    #[cfg(feature = "embedded-model")]
    pub fn embedded(&self) -> Result<Model> {
        let bytes = include_bytes!("../../models/fashion-mnist.int8.onnx");
        Model::load(Bytes::from_static(bytes), None, self)
    }
}

/// The kernels that networks get on this CPU, such as "AVX-512 VNNI", or "NEON DotProd, 16 bits".
pub fn kernels() -> String {
    let isa = exec::Isa::detect();
    format!("{}{}", isa.name(), if isa.computes_in_halves() { ", 16 bits" } else { "" })
}

impl Model {
    /// Reads an ONNX file, or a folder that holds one: [`ModelOptions::open`] without options.
    ///
    /// # Errors
    /// As there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        ModelOptions::new().open(path)
    }

    /// Reads an ONNX model from memory: [`ModelOptions::read`] without options.
    ///
    /// # Errors
    /// As there.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        ModelOptions::new().read(bytes)
    }

    /// The model that comes with the library: 28×28 pictures of garments in ten classes
    /// (`models/README.md` describes it).
    ///
    /// # Errors
    /// None that a caller could cause.
    #[cfg(feature = "embedded-model")]
    pub fn embedded() -> Result<Self> {
        ModelOptions::new().embedded()
    }

    /// `file` is where the bytes come from, if they are a file's.
    fn load(bytes: Bytes, file: Option<&Path>, options: &ModelOptions) -> Result<Self> {
        // what is not checked of a file must not take the caller down
        guarded(|| Self::build(bytes, file, options))
            .unwrap_or_else(|| Err(model_error("the graph is malformed: loading it failed an internal check")))
    }

    fn build(bytes: Bytes, path: Option<&Path>, options: &ModelOptions) -> Result<Self> {
        let budget = options.max_memory.map_or_else(Budget::of_files, Budget::new);
        let mut file = File::read(bytes, path, options, &budget)?;
        let mut made_up = std::mem::take(&mut file.made_up);
        let scheduler_config = match schedule_of(&file, path, options) {
            Err(e) if options.make_up && e.hint() == Some(&Hint::Schedule) => {
                made_up.push(MadeUp::Schedule);
                SchedulerConfig::default()
            }
            config => config?,
        };
        let normalizer = normalizer(&file, path, options)?;
        let mut told = told::told(
            options.time_as.or(file.metadata.time),
            &scheduler_config,
            file.inputs.iter().find(|i| i.role == Role::Time),
        )?;
        if options.make_up && told.is_err() {
            made_up.push(MadeUp::TimeAs);
            told = Ok(TimeAs::Step);
        }
        let (engine, operators) = Engine::of(&mut file, options, &budget)?;
        let sample = file.inputs.iter().find(|i| i.role == Role::Sample).expect("roles::resolve found one");
        let scheduler_config = scheduler_config.for_samples(&sample.shape[1..]);
        Ok(Model {
            sample_shape: sample.shape[1..].into(),
            inputs: file.inputs.into(),
            engine: Arc::new(engine),
            metadata: Arc::new(file.metadata),
            scheduler_config: Arc::new(scheduler_config),
            told,
            made_up: made_up.into(),
            control: path.map_or_else(|| Ok(Control::default()), locate::control_near)?,
            normalizer: Arc::new(normalizer),
            operators: operators.into(),
            parameters: file.parameters,
            observed: options.observed.len(),
        })
    }

    /// The shape of one sample: `[C, H, W]`, `[T, D]` or `[D]`.
    pub fn sample_shape(&self) -> &[usize] {
        &self.sample_shape
    }

    /// The noise schedule that the model was trained with.
    pub fn scheduler_config(&self) -> &SchedulerConfig {
        &self.scheduler_config
    }

    /// What the network is told of the noise, by its input of the time.
    ///
    /// # Errors
    /// When the input's name says that it is not the training step, and nothing says what it is.
    pub fn time_as(&self) -> Result<TimeAs> {
        self.told.clone()
    }

    /// What was made up where nothing says it: see [`ModelOptions::make_up`].
    pub fn made_up(&self) -> &[MadeUp] {
        &self.made_up
    }

    /// How samples and conditions are scaled between the units of the data and the network's. The
    /// [`network`](Model::network) sees the network's; a [`Generator`](crate::Generator) takes and gives the data's.
    pub fn normalizer(&self) -> &Normalizer {
        &self.normalizer
    }

    /// What the `config.json` beside its file says of a policy's control loop.
    pub(crate) fn control(&self) -> Control {
        self.control
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
        self.engine.describe()
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
        plan.profile(&mut workspace, exec::At { x: &x, t: 500.0, ..exec::At::default() }, runs)
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
        let one_hot = self.inputs.iter().find(|i| i.is_one_hot()).map(Input::len);
        match (self.metadata.classes.len(), self.metadata.null_class) {
            (0, null) => null.or(one_hot),
            (n, _) => Some(n),
        }
    }

    /// The class of sample (seed, index) where none is asked for: each is as likely. `None` where the model takes no class, or does
    /// not say how many it has.
    pub fn drawn_class(&self, seed: u64, index: u64) -> Option<usize> {
        let classes = self.num_classes().filter(|classes| self.takes_class() && *classes > 0)?;
        Some(noise::choice(seed, index, classes))
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
                let usage = format!("give {known}");
                let advice = suggest::advice(name, names.iter().map(String::as_str), &usage);
                Err(Error::invalid(format!("unknown class '{name}': {advice}")))
            }
        }
    }

    /// Whether `condition` is what the model takes: every condition that it needs and no other, each of its length,
    /// whole numbers where it takes integers.
    ///
    /// # Errors
    /// When it is not: what is wrong with it.
    pub fn check_condition(&self, condition: &Condition) -> Result<()> {
        input::check_condition(&self.inputs, self.metadata.null_class, condition)
    }

    /// A network of its own state over this model, for one thread.
    ///
    /// # Errors
    /// When the engine cannot set up its state, or it is not known what the network is [told](Self::time_as) of the noise.
    pub fn network(&self) -> Result<ModelNetwork> {
        self.network_with_threads(1)
    }

    /// As [`network`](Model::network), with threads of its own that share each call, so that `threads` work on it in
    /// all; fewer where a call has no work for as many. What it computes is the same bits for any number. A network
    /// that tract runs has one.
    ///
    /// # Errors
    /// As there, when `threads` is 0, and when the system gives no thread.
    pub fn network_with_threads(&self, threads: usize) -> Result<ModelNetwork> {
        let (engine, inputs, shape) = (self.engine.clone(), self.inputs.clone(), self.sample_shape.clone());
        let time = (self.time_as()?, self.scheduler_config.num_train_timesteps);
        let network = ModelNetwork::new(engine, inputs, shape, self.metadata.null_class, time, threads)?;
        Ok(network.trained_with_prefix(self.metadata.prefix).observing(self.observed))
    }

    #[cfg(test)]
    fn plan(&self) -> Option<&exec::Plan> {
        self.engine.plan()
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("inputs", &self.inputs)
            .field("scheduler_config", &self.scheduler_config)
            .finish_non_exhaustive()
    }
}

/// The noise schedule, from the first place that gives one.
fn schedule_of(file: &File, path: Option<&Path>, options: &ModelOptions) -> Result<SchedulerConfig> {
    let own = options.scheduler_config.as_ref().or(file.metadata.scheduler.as_ref()).cloned();
    let near = || path.map_or(Ok(None), locate::scheduler_near);
    match own.map_or_else(near, |s| Ok(Some(s)))? {
        Some(config) => config.with_sigmas(options.sigmas),
        // a range of sigmas is all that a sigma-conditioned network needs
        None if options.sigmas != Sigmas::default() => SchedulerConfig::denoised().with_sigmas(options.sigmas),
        None => {
            Err(model_error("the model does not say what noise schedule it was trained with").with_hint(Hint::Schedule))
        }
    }
}

/// How a model's samples and conditions are scaled, as is given, else as its file says, else as the processors beside it do.
fn normalizer(file: &File, path: Option<&Path>, options: &ModelOptions) -> Result<Normalizer> {
    let near;
    let normalization = match options.normalization.as_ref().or(file.metadata.normalization.as_ref()) {
        Some(given) => given,
        None => {
            near = path.map(locate::normalization_near).transpose()?.flatten();
            let Some(near) = &near else { return Ok(Normalizer::default()) };
            near
        }
    };
    let inputs = &file.inputs;
    let sample = inputs.iter().find(|i| i.role == Role::Sample).expect("roles::resolve found one");
    let conditions = inputs.iter().filter(|i| i.role == Role::Condition);
    let conditions: Vec<_> = conditions.map(|i| (i.name.as_str(), &i.shape[..])).collect();
    normalization.normalizer(&sample.name, &sample.shape[1..], &conditions)
}
