//! The network boundary: one sample in, one prediction out, through slices that the caller owns; and the networks
//! around a network.

mod guided;
mod preconditioned;
mod tiled;

pub use guided::Guided;
pub use preconditioned::Preconditioned;
pub use tiled::{Tiled, Tiling};

use crate::{Result, condition::Condition};

/// A network that predicts the noise in a sample (or `v`, or the clean sample: see
/// [`PredictionType`](crate::config::PredictionType)).
///
/// One call works on one sample: samples are independent, so a batch is a loop, and the result for a
/// sample never depends on its neighbours. Implement it for a closed-form network to test a sampler,
/// or for an engine of your own.
pub trait Network {
    /// The shape of one sample, without the batch dimension: `[C, H, W]`, `[T, D]` or `[D]`.
    fn sample_shape(&self) -> &[usize];

    /// Evaluates the network on the sample `x` at the network's time `t` (for a discrete schedule the
    /// training step, `0..num_train_timesteps`; it may be fractional) and writes the prediction to `out`.
    ///
    /// `x` and `out` hold [`sample_len`](Network::sample_len) numbers each.
    ///
    /// # Errors
    /// When the condition lacks what the network needs, or the network fails.
    fn predict(&mut self, x: &[f32], t: f64, condition: &Condition, out: &mut [f32]) -> Result<()>;

    /// The number of elements of one sample.
    fn sample_len(&self) -> usize {
        self.sample_shape().iter().product()
    }

    /// The network calls that one [`predict`](Network::predict) makes, for counting.
    fn calls(&self) -> usize {
        1
    }
}

impl<N: Network + ?Sized> Network for Box<N> {
    fn sample_shape(&self) -> &[usize] {
        (**self).sample_shape()
    }

    fn predict(&mut self, x: &[f32], t: f64, condition: &Condition, out: &mut [f32]) -> Result<()> {
        (**self).predict(x, t, condition, out)
    }

    fn calls(&self) -> usize {
        (**self).calls()
    }
}
