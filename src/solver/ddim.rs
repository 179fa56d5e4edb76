//! Denoising diffusion implicit models (arXiv 2010.02502).

use super::table::{Register, SAMPLE, Table};
use crate::schedule::{Grid, Path, Transition};
use crate::{Error, Result};

const X0: Register = 1;
const EPS: Register = 2;

/// Equation 12: `x' = γ' x_0 + √(σ'² - s²) ε + s z`, where `s = η √(σ'²/σ² β)` with β the variance that the step takes
/// away, in the paper 1 - γ²/γ'². Of x_0 and ε thresholding changes x_0 alone.
pub(super) fn ddim(table: &mut Table, grid: &Grid, path: Path, eta: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::invalid(format!("eta must be from 0 to 1, not {eta}")));
    }
    table.eps_follows_x0(false);
    for &Transition { from, to } in &grid.steps {
        let posterior = to.sigma / from.sigma * path.added_variance(from, to).sqrt();
        // on the way back, where there is no posterior, η must be 0
        let s = if eta == 0.0 { 0.0 } else { eta * posterior };
        let direction = (to.sigma.powi(2) - s * s).max(0.0).sqrt();
        table.evaluate(SAMPLE, from, X0, Some(EPS));
        table.update(SAMPLE, &[(X0, to.gamma), (EPS, direction)], s);
        table.end_step();
    }
    Ok(())
}
