//! Noise schedules: which levels of noise there are, and which a run visits.
//!
//! The marginal of the forward process is `q_t(x_t | x_0) = N(γ_t x_0, σ_t² I)`. How γ and σ go together is the
//! [`Path`]: variance-preserving with `γ_t² + σ_t² = 1`, where in discrete time `alpha_bar_t = Π_{s≤t} (1 - β_s) = γ_t²`;
//! rectified flow with `γ_t = 1 - σ_t`; or variance-exploding with `γ_t = 1`. All arithmetic is f64.

mod clock;
mod discrete;
mod grid;
mod level;
mod marginal;
mod path;

pub use discrete::Schedule;
pub use grid::{Grid, Start};
pub use level::{Level, Transition};
pub use marginal::{Marginal, RectifiedFlow, VeSde, VpSde};
pub(crate) use path::Coordinates;
pub use path::Path;
