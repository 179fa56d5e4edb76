//! The network boundary: one sample in, one prediction out, through slices that the caller owns; and the networks
//! around a network.

mod guided;
mod preconditioned;
mod tiled;

pub use guided::Guided;
pub use preconditioned::Preconditioned;
pub use tiled::{Tiled, Tiling};

use crate::condition::Condition;
use crate::schedule::Level;
use crate::{Error, Result};

/// A network that predicts the noise in a sample (or `v`, or the clean sample: see
/// [`PredictionType`](crate::config::PredictionType)).
///
/// One call works on one sample: samples are independent, so a batch is a loop, and the result for a
/// sample never depends on its neighbours. Implement it for a closed-form network to test a sampler,
/// or for an engine of your own.
pub trait Network {
    /// The shape of one sample, without the batch dimension: `[C, H, W]`, `[T, D]` or `[D]`.
    fn sample_shape(&self) -> &[usize];

    /// Takes the condition of the predictions that follow in `slot`: it is checked and converted here, and what depends
    /// on it alone worked out, once a run. Slots are numbered from 0, and independent of one another: guidance holds two.
    ///
    /// A network that takes no condition need not write this: it then refuses any.
    ///
    /// # Errors
    /// When the condition is not what the network takes.
    fn bind(&mut self, slot: usize, condition: &Condition) -> Result<()> {
        let _ = slot;
        if condition.is_empty() { Ok(()) } else { Err(Error::invalid("this network takes no condition")) }
    }

    /// What the network is told of the noise at `level`: the `t` of its predictions there. Unless this is written, the
    /// level's time, which for a discrete schedule is the training step, `0..num_train_timesteps`, and may be fractional.
    /// A network that predicts what is [`Denoised`](crate::config::PredictionType::Denoised), or a
    /// [`Score`](crate::config::PredictionType::Score), is told σ/γ instead, whatever this says (see [`Preconditioned`]).
    fn time_of(&self, level: Level) -> f64 {
        level.time
    }

    /// Tells where the step leads that the predictions to come are for: to be called before them, by samplers whose steps are
    /// fixed. A network that takes the times of both ends of a step goes by it; for others this does nothing.
    fn lead_to(&mut self, level: Level) {
        let _ = level;
    }

    /// Tells that the first `rows` of the sample's first dimension are clean in the predictions to come, which is the `level`
    /// that they are told instead; 0 for none. For networks that take a time for each token: any other refuses.
    ///
    /// # Errors
    /// When the network does not take a time for each row.
    fn hold_clean(&mut self, rows: usize, level: Level) -> Result<()> {
        let _ = level;
        if rows == 0 { Ok(()) } else { Err(one_time()) }
    }

    /// What the network gave beside the latest prediction, under the condition and not without it: the second half of its
    /// channels, of the sample's shape, which is a learned variance (arXiv 2102.09672). `None` for a network without it.
    fn variance(&self) -> Option<&[f32]> {
        None
    }

    /// Evaluates the network on the sample `x` at `t`, which is what [`time_of`](Network::time_of) makes of the level that
    /// the sample has, under the condition that is bound to `slot`, and writes the prediction to `out`.
    ///
    /// `x` and `out` hold [`sample_len`](Network::sample_len) numbers each.
    ///
    /// # Errors
    /// When the network needs a condition and none is bound to the slot, or it fails.
    fn predict(&mut self, x: &[f32], t: f64, slot: usize, out: &mut [f32]) -> Result<()>;

    /// The number of elements of one sample.
    fn sample_len(&self) -> usize {
        self.sample_shape().iter().product()
    }

    /// The network calls that one [`predict`](Network::predict) in `slot` makes, for counting.
    fn calls(&self, slot: usize) -> usize {
        let _ = slot;
        1
    }
}

/// That a network takes one time.
pub(crate) fn one_time() -> Error {
    Error::invalid("the network does not take a time for each token, so no part of its sample can be given clean")
}

impl<N: Network + ?Sized> Network for Box<N> {
    fn sample_shape(&self) -> &[usize] {
        (**self).sample_shape()
    }

    fn bind(&mut self, slot: usize, condition: &Condition) -> Result<()> {
        (**self).bind(slot, condition)
    }

    fn lead_to(&mut self, level: Level) {
        (**self).lead_to(level);
    }

    fn hold_clean(&mut self, rows: usize, level: Level) -> Result<()> {
        (**self).hold_clean(rows, level)
    }

    fn variance(&self) -> Option<&[f32]> {
        (**self).variance()
    }

    fn time_of(&self, level: Level) -> f64 {
        (**self).time_of(level)
    }

    fn predict(&mut self, x: &[f32], t: f64, slot: usize, out: &mut [f32]) -> Result<()> {
        (**self).predict(x, t, slot, out)
    }

    fn sample_len(&self) -> usize {
        (**self).sample_len()
    }

    fn calls(&self, slot: usize) -> usize {
        (**self).calls(slot)
    }
}
