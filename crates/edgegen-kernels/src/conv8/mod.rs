//! Convolution of unsigned 8-bit pictures with signed 8-bit weights, summed exactly in 32 bits.
//!
//! As in `conv.rs`, a tile is a few output pixels times a few vectors of output channels; four input channels are
//! multiplied at a time. Around a picture, and in it where channels are padded to a multiple of four, lies its zero
//! point.

mod finish;
mod levels;
mod packed;
mod run;
mod tile;

pub(crate) use finish::finish;
pub use levels::QuantParams;
pub(crate) use packed::Tile8;
pub use packed::{Packed8, method};
pub(crate) use run::Checked8;
pub use run::{ByRange, Run8, sum_levels};
pub(crate) use tile::{run, run_words};

/// Input channels that are multiplied at a time.
pub const CHANNELS: usize = 4;
