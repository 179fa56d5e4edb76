//! The networks that are trained: a U-Net of pictures, and one of sequences.

mod critic;
mod layers;
mod sequence;
mod unet;

pub use critic::CriticConfig;
pub use layers::{Tensors, frequencies};
pub use sequence::{Block, SequenceConfig};
pub use unet::UnetConfig;

use anyhow::Context;
use candle_core::{Device, Result, Tensor, bail};
use layers::{Init, Layers, Parameter};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Which network it is, and its sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkConfig {
    /// A class-conditional U-Net of pictures.
    Unet(UnetConfig),
    /// A U-Net along the time of sequences, under a vector of numbers.
    Sequence(SequenceConfig),
}

/// What a batch is conditioned on.
#[derive(Clone, Debug)]
pub enum Given {
    /// Nothing.
    Nothing,
    /// Labels `[B]`, u32; the number of classes is "no class".
    Labels(Tensor),
    /// Numbers `[B, C]`, f32.
    Numbers(Tensor),
}

/// What a network makes of a sample before the way up.
#[derive(Debug)]
pub struct Encoded {
    /// The embedding of time and condition, `[B, E]`.
    pub embedding: Tensor,
    /// What each level leaves for the way up, `[B, C, H, W]`; of sequences H is 1.
    pub skips: Vec<Tensor>,
    /// What the middle makes of the last level.
    pub middle: Tensor,
}

impl NetworkConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// One line naming the size that does not.
    pub fn check(&self) -> anyhow::Result<()> {
        match self {
            NetworkConfig::Unet(config) => config.check(),
            NetworkConfig::Sequence(config) => config.check(),
        }
    }

    /// One sample's shape: `[C, H, W]` or `[T, D]`.
    pub fn shape(&self) -> &[usize] {
        match self {
            NetworkConfig::Unet(config) => &config.shape,
            NetworkConfig::Sequence(config) => &config.shape,
        }
    }

    /// The configuration of a U-Net of pictures.
    ///
    /// # Errors
    /// When it is another network.
    pub fn unet(&self) -> anyhow::Result<&UnetConfig> {
        match self {
            NetworkConfig::Unet(config) => Some(config),
            NetworkConfig::Sequence(_) => None,
        }
        .context("this is for networks of pictures; export a network of sequences and sample it with edgegen")
    }

    /// The number of classes; 0 for sequences.
    pub fn classes(&self) -> usize {
        match self {
            NetworkConfig::Unet(config) => config.classes,
            NetworkConfig::Sequence(_) => 0,
        }
    }

    /// The numbers that a sequence is conditioned on; 0 for pictures.
    pub fn conditions(&self) -> usize {
        match self {
            NetworkConfig::Unet(_) => 0,
            NetworkConfig::Sequence(config) => config.conditions,
        }
    }

    /// The most steps at a sequence's beginning that the network may be given clean, by a time for each step; 0 for networks
    /// that take one time.
    pub fn prefix(&self) -> usize {
        match self {
            NetworkConfig::Unet(_) => 0,
            NetworkConfig::Sequence(config) => config.prefix,
        }
    }

    fn parameters(&self) -> Vec<Parameter> {
        match self {
            NetworkConfig::Unet(config) => config.parameters(),
            NetworkConfig::Sequence(config) => config.parameters(),
        }
    }

    /// Fresh parameters from `rng`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn init(&self, rng: &mut impl Rng, device: &Device) -> Result<Tensors> {
        start(self.parameters(), rng, device)
    }

    /// The name and shape of every parameter.
    pub fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.parameters().into_iter().map(|p| (p.name, p.shape))
    }

    /// The number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// Multiply-adds of one prediction: convolutions, attention and linear layers.
    pub fn multiply_adds(&self) -> usize {
        match self {
            NetworkConfig::Unet(config) => config.multiply_adds(),
            NetworkConfig::Sequence(config) => config.multiply_adds(),
        }
    }

    /// The prediction for x `[B, …shape]` at the training steps t `[B]` (f32), or `[B, T]` of a network of
    /// [prefixes](Self::prefix), by the network with these parameters, which must be those that [`init`](Self::init) names.
    ///
    /// # Errors
    /// When a shape does not fit, or `given` is not what the network is conditioned on.
    pub fn forward(&self, parameters: &Tensors, x: &Tensor, t: &Tensor, given: &Given) -> Result<Tensor> {
        let encoded = self.encode(parameters, x, t, given)?;
        match self {
            NetworkConfig::Unet(config) => config.decode(&Layers { parameters, groups: config.groups }, encoded),
            NetworkConfig::Sequence(config) => config.decode(&Layers { parameters, groups: config.groups }, encoded),
        }
    }

    /// What the network makes of x before the way up: see [`forward`](Self::forward).
    ///
    /// # Errors
    /// As there.
    pub fn encode(&self, parameters: &Tensors, x: &Tensor, t: &Tensor, given: &Given) -> Result<Encoded> {
        match (self, given) {
            (NetworkConfig::Unet(config), Given::Labels(labels)) => {
                config.encode(&Layers { parameters, groups: config.groups }, x, t, labels)
            }
            (NetworkConfig::Sequence(config), Given::Numbers(numbers)) if config.conditions > 0 => {
                config.encode(&Layers { parameters, groups: config.groups }, x, t, Some(numbers))
            }
            (NetworkConfig::Sequence(config), Given::Nothing) if config.conditions == 0 => {
                config.encode(&Layers { parameters, groups: config.groups }, x, t, None)
            }
            _ => bail!("the network is conditioned on something else than what is given"),
        }
    }
}

/// Fresh values of these parameters.
fn start(parameters: Vec<Parameter>, rng: &mut impl Rng, device: &Device) -> Result<Tensors> {
    let mut uniform = || rng.random_range(-1.0f32..1.0);
    parameters
        .into_iter()
        .map(|p| {
            let len = p.shape.iter().product();
            let values: Vec<f32> = match p.init {
                Init::Zero => vec![0.0; len],
                Init::One => vec![1.0; len],
                Init::FanIn(n) => (0..len).map(|_| uniform() / (n as f32).sqrt()).collect(),
                // the sum of twelve uniform numbers is normal enough to start from
                Init::Normal(std) => (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f32>() / 2.0 * std).collect(),
            };
            Ok((p.name, Tensor::from_vec(values, p.shape, device)?))
        })
        .collect()
}
