//! How a model file is read.

use super::digest;
use super::join::Join;
use super::names::NONE;
use super::role::Role;
use super::time::TimeAs;
use crate::config::{SchedulerConfig, Sigmas};
use crate::error::model_error;
use crate::normalization::Normalization;
use std::collections::BTreeMap;

/// What a model computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// 32 bits: the same sample on every CPU.
    #[default]
    F32,
    /// 16 bits, but where sums need more: values that depend on the sample take half the memory. A CPU that computes in 16
    /// bits (64-bit ARM with FEAT_FP16: Raspberry Pi 5, Jetson) is faster by it; another one widens what it computes with.
    F16,
    /// 16 bits where the CPU is fastest in them, else as [`F32`](Self::F32): a network of float numbers on a CPU that computes in
    /// 16 bits, and one whose activations are rounded to 8 bits where that CPU does not multiply matrices of bytes (FEAT_I8MM).
    Auto,
}

impl Precision {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 3] = [("f32", Self::F32), ("f16", Self::F16), ("auto", Self::Auto)];

    /// The one of this name: f32, f16 or auto.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn from_name(name: &str) -> crate::Result<Self> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, precision)| *precision);
        known.ok_or_else(|| model_error(format!("there is no precision {name:?}: there are f32, f16 and auto")))
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, precision)| *precision == self).map_or("", |(name, _)| name)
    }

    /// What values of a network that rounds activations to 8 bits or not are kept in on this kind of CPU.
    pub(super) fn on(self, isa: exec::Isa, in_8_bits: bool) -> exec::Precision {
        let faster = isa.computes_in_halves() && !(in_8_bits && isa.multiplies_matrices_of_bytes());
        match self {
            Precision::F16 => exec::Precision::F16,
            Precision::Auto if faster => exec::Precision::F16,
            Precision::F32 | Precision::Auto => exec::Precision::F32,
        }
    }
}

/// How a model file is read, where that is not as the file says of itself:
///
/// ```no_run
/// use edgegen::ModelOptions;
///
/// let model = ModelOptions::new().sample_shape([3, 64, 64]).open("unet.onnx")?;
/// # Ok::<(), edgegen::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    pub(super) roles: Vec<(Role, String)>,
    pub(super) scheduler_config: Option<SchedulerConfig>,
    pub(super) sigmas: Sigmas,
    pub(super) sample_shape: Option<Vec<usize>>,
    pub(super) normalization: Option<Normalization>,
    pub(super) exact_quantization: bool,
    pub(super) max_memory: Option<usize>,
    pub(super) precision: Precision,
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) time_as: Option<TimeAs>,
    pub(super) conditions: BTreeMap<String, Vec<usize>>,
    pub(super) joins: Vec<Join>,
    pub(super) output: Option<String>,
    pub(super) make_up: bool,
    pub(super) observed: Vec<String>,
}

impl ModelOptions {
    /// As the file says.
    pub fn new() -> Self {
        Self::default()
    }

    /// The input called `name` has this role; this comes before what the file says. To be called for each.
    pub fn input(mut self, role: Role, name: impl Into<String>) -> Self {
        self.roles.push((role, name.into()));
        self
    }

    /// The network has no input of this role, which is the time, the time that a step leads to, or the class.
    pub fn without(self, role: Role) -> Self {
        self.input(role, NONE)
    }

    /// The input called `name` is a condition, and is given arrays of this shape: what the file leaves open of the input's
    /// is bound by it. To be called for each whose shape the file leaves open.
    pub fn condition_shape(mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        self.conditions.insert(name.into(), shape.into());
        self
    }

    /// The network takes arrays of this shape in one with its sample, along the channels: a mask, or a picture to go by. They
    /// are given as a condition of this name. To be called for each, in their order; the sample comes before them, unless
    /// [`join_sample`](Self::join_sample) puts it elsewhere.
    pub fn join(mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        self.joins.push(Join { name: name.into(), shape: Some(shape.into()), channels: None });
        self
    }

    /// The same, of all channels that the other parts leave.
    pub fn join_rest(mut self, name: impl Into<String>) -> Self {
        self.joins.push(Join::rest(&name.into()));
        self
    }

    /// The sample comes after what is joined with it so far.
    pub fn join_sample(self) -> Self {
        self.join_rest(Role::Sample.name())
    }

    /// The output called `name` is the prediction, of a network that has several.
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.output = Some(name.into());
        self
    }

    /// The values of the graph called so are given beside every prediction, by [`ModelNetwork::observed`], to calibrate or to
    /// look into a network. Only a plan of edgegen's own gives them; what is fused with others otherwise is then not, so calls
    /// take longer.
    ///
    /// [`ModelNetwork::observed`]: crate::model::ModelNetwork::observed
    pub fn observe(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.observed.extend(names.into_iter().map(Into::into));
        self
    }

    /// Whether what a model can be looked at or timed without is made up where it is not given: a noise schedule, open
    /// dimensions of conditions, what is joined with the sample, what the network is told of the noise.
    /// [`Model::made_up`](crate::Model::made_up) says what was.
    pub fn make_up(mut self, make_up: bool) -> Self {
        self.make_up = make_up;
        self
    }

    /// What the network is told of the noise, by its input of the time: the training step, where neither this, nor the
    /// file, nor the name of the input says otherwise.
    pub fn time_as(mut self, time: TimeAs) -> Self {
        self.time_as = Some(time);
        self
    }

    /// The noise schedule, instead of the one that the file or its folder gives.
    pub fn scheduler_config(mut self, config: SchedulerConfig) -> Self {
        self.scheduler_config = Some(config);
        self
    }

    /// The range of noise levels of a network that takes σ, instead of its schedule's.
    pub fn sigmas(mut self, sigmas: Sigmas) -> Self {
        self.sigmas = sigmas;
        self
    }

    /// One sample's shape, for a graph that leaves it open.
    pub fn sample_shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.sample_shape = Some(shape.into());
        self
    }

    /// The statistics that samples and conditions are scaled by, instead of those that the file gives.
    pub fn normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = Some(normalization);
        self
    }

    /// Whether an int8 (QDQ) graph rounds every activation exactly as the file says, through a slow path, to
    /// compare with other runtimes. Off, the plan runs the convolutions of such a graph in 8 bits and the rest in
    /// float, and a graph that the plan does not cover runs in float with its rounded weights.
    pub fn exact_quantization(mut self, exact: bool) -> Self {
        self.exact_quantization = exact;
        self
    }

    /// The SHA-256 that the model's file must have, as 64 hexadecimal digits: any other file is refused before it is read, and so is
    /// one with weights in further files. It says nothing of a configuration that lies beside it.
    ///
    /// # Errors
    /// When it is no such digits.
    pub fn sha256(mut self, digits: &str) -> crate::Result<Self> {
        self.sha256 = Some(digest::parse(digits)?);
        Ok(self)
    }

    /// What the model computes in: 32 bits, where this is not called. In 16 bits, a model that is quantized to 8 keeps its weights'
    /// levels and rounds no activations.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The most bytes of memory that loading the model, its weights and a run of it may take together; sixteen times the
    /// sizes of its files, and at least 1 GiB, where this is not called. What takes more is refused before it is allocated.
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = Some(bytes);
        self
    }
}
