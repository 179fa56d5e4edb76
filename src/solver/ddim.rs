//! Denoising diffusion implicit models (arXiv 2010.02502).

use super::{Register, SAMPLE, Table};
use crate::schedule::Level;
use crate::{Error, Result};

const X0: Register = 1;
const EPS: Register = 2;

/// Equation 12: `x' = γ' x_0 + √(σ'² - s²) ε + s z`, where `s = η √(σ'²/σ² (1 - γ²/γ'²))`.
pub(super) fn ddim(table: &mut Table, levels: &[Level], eta: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::invalid(format!("eta must be from 0 to 1, not {eta}")));
    }
    for pair in levels.windows(2) {
        let [now, next] = [pair[0], pair[1]];
        let s = eta * next.sigma / now.sigma * (1.0 - (now.gamma / next.gamma).powi(2)).sqrt();
        let direction = (next.sigma.powi(2) - s * s).max(0.0).sqrt();
        table.evaluate(SAMPLE, now, X0, Some(EPS));
        table.update(SAMPLE, &[(X0, next.gamma), (EPS, direction)], s);
        table.end_step();
    }
    Ok(())
}
