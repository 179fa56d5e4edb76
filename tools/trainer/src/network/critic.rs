//! What tells a network's samples from the data: small heads over what a trained network, which stays as it is, makes of
//! noised samples on its way down (arXiv 2403.12015, after the projected GANs of arXiv 2111.01007).
//!
//! A head is convolution + group norm + SiLU, convolution + SiLU, and a number for each place, to which the embedding of time
//! and condition adds a product with the features (the projection of arXiv 1802.05637).

use super::layers::{Init, Layers, Parameter, Parameters};
use super::{Encoded, NetworkConfig, Tensors, start};
use candle_core::{Device, Result, Tensor};
use rand::Rng;

/// Channels of the heads.
const WIDTH: usize = 64;
const GROUPS: usize = 8;

/// The heads' sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriticConfig {
    /// The channels that each head reads: those of every level, and of the middle.
    channels: Vec<usize>,
    /// The width of the embedding of time and condition.
    embedding: usize,
    kernel: [usize; 2],
}

impl CriticConfig {
    /// Heads over a network.
    pub fn of(network: &NetworkConfig) -> Self {
        let (mut channels, embedding, kernel) = match network {
            NetworkConfig::Unet(config) => (config.channels(), config.embedding(), [3, 3]),
            NetworkConfig::Sequence(config) => (config.channels(), config.embedding(), [1, 3]),
        };
        channels.extend(channels.last().copied());
        CriticConfig { channels, embedding, kernel }
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut p = Parameters::default();
        for (i, channels) in self.channels.iter().enumerate() {
            p.conv(&format!("h{i}.c1"), *channels, WIDTH, self.kernel, false);
            p.norm(&format!("h{i}.n"), WIDTH, Init::One);
            p.conv(&format!("h{i}.c2"), WIDTH, WIDTH, self.kernel, false);
            p.conv(&format!("h{i}.out"), WIDTH, 1, [1, 1], false);
            p.add(&format!("h{i}.given.w"), &[WIDTH, self.embedding], Init::Zero);
            p.add(&format!("h{i}.given.b"), &[WIDTH], Init::Zero);
        }
        p.0
    }

    /// The name and shape of every parameter.
    pub fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.parameters().into_iter().map(|p| (p.name, p.shape))
    }

    /// Fresh parameters from `rng`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn init(&self, rng: &mut impl Rng, device: &Device) -> Result<Tensors> {
        start(self.parameters(), rng, device)
    }

    /// What the heads with these parameters say of every place: more for what looks like the data. `[B, places]`.
    ///
    /// # Errors
    /// When the features are those of another network.
    pub fn forward(&self, parameters: &Tensors, features: &Encoded) -> Result<Tensor> {
        let net = Layers { parameters, groups: GROUPS };
        let said = features.skips.iter().chain([&features.middle]).enumerate().map(|(i, h)| {
            // the first level has four times the places of the next
            let stride = if i == 0 && features.skips.len() > 1 { 2 } else { 1 };
            let h = net.norm(&format!("h{i}.n"), &net.conv(&format!("h{i}.c1"), h, stride, true)?, true)?;
            let h = net.conv(&format!("h{i}.c2"), &h, 2, true)?.silu()?;
            let given = net.linear(&format!("h{i}.given"), &features.embedding)?.unsqueeze(2)?.unsqueeze(3)?;
            let projected = (h.broadcast_mul(&given)?.sum_keepdim(1)? * (1.0 / (WIDTH as f64).sqrt()))?;
            (net.conv(&format!("h{i}.out"), &h, 1, true)? + projected)?.flatten_from(1)
        });
        Tensor::cat(&said.collect::<Result<Vec<_>>>()?, 1)
    }
}
