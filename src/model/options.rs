//! How a model file is read.

use super::roles::Role;
use super::time::TimeAs;
use crate::config::{SchedulerConfig, Sigmas};
use crate::normalization::Normalization;

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
    pub(super) time_as: Option<TimeAs>,
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

    /// The most bytes of memory that loading the model, its weights and a run of it may take together; sixteen times the
    /// sizes of its files, and at least 1 GiB, where this is not called. What takes more is refused before it is allocated.
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = Some(bytes);
        self
    }
}
