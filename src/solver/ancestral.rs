//! Ancestral sampling: DDPM (arXiv 2006.11239), on any subset of the training steps.

use super::{Register, SAMPLE, Table};
use crate::schedule::Level;

const X0: Register = 1;

/// The variance of the reverse step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variance {
    /// That of the posterior q(x' | x, x_0).
    Small,
    /// β of the step: an upper bound.
    Large,
}

/// Algorithm 2 with the posterior mean of equation 7, for a step from `now` to `next`:
/// `β = 1 - γ²/γ'²`, mean `(γ' β/σ²) x_0 + (γ/γ') (σ'²/σ²) x`.
pub(super) fn ddpm(table: &mut Table, levels: &[Level], variance: Variance) {
    for pair in levels.windows(2) {
        let [now, next] = [pair[0], pair[1]];
        let alpha = (now.gamma / next.gamma).powi(2);
        let beta = 1.0 - alpha;
        let shrink = (next.sigma / now.sigma).powi(2);
        // No noise is added on the way to the clean sample.
        let noise = match variance {
            _ if next.sigma == 0.0 => 0.0,
            Variance::Small => (shrink * beta).sqrt(),
            Variance::Large => beta.sqrt(),
        };
        table.evaluate(SAMPLE, now, X0, None);
        table.update(SAMPLE, &[(X0, next.gamma * beta / now.sigma.powi(2)), (SAMPLE, alpha.sqrt() * shrink)], noise);
        table.end_step();
    }
}
