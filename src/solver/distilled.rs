//! Few-step sampling of models that were distilled for it, as diffusers has it: latent consistency models (arXiv
//! 2310.04378) and trajectory consistency distillation (arXiv 2402.19159).

use super::table::{Register, SAMPLE, Table};
use crate::schedule::{Grid, Marginal, Transition};
use crate::{Error, Result};

const X0: Register = 1;
const EPS: Register = 2;

/// Consistency sampling with a boundary condition: `c_out x_0 + c_skip x` stands for the clean sample, with
/// `c_skip = d²/(t² + d²)` and `c_out = t/√(t² + d²)` of the time t times `scaling`, and d = ½.
pub(super) fn latent_consistency(table: &mut Table, grid: &Grid, scaling: f64) {
    const DATA: f64 = 0.5;
    for &Transition { from, to } in &grid.steps {
        let t = from.time * scaling;
        let square = t * t + DATA * DATA;
        let (skip, out) = (DATA * DATA / square, t / square.sqrt());
        table.evaluate(SAMPLE, from, X0, None);
        table.update(SAMPLE, &[(X0, to.gamma * out), (SAMPLE, to.gamma * skip)], to.sigma);
        table.end_step();
    }
}

/// Along the ODE to the time `(1 - η) t'`, and back by fresh noise to t', where the next step begins. The last step stays
/// where it leads.
pub(super) fn trajectory_consistency(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, eta: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::invalid(format!("eta must be from 0 to 1, not {eta}")));
    }
    let (path, n) = (marginal.path(), grid.steps.len());
    for (i, &Transition { from, to }) in grid.steps.iter().enumerate() {
        table.evaluate(SAMPLE, from, X0, Some(EPS));
        if i + 1 == n || eta == 0.0 {
            table.update(SAMPLE, &[(X0, to.gamma), (EPS, to.sigma)], 0.0);
        } else {
            let inner = marginal.level(((1.0 - eta) * to.time).floor());
            let back = to.gamma / inner.gamma;
            let noise = path.added_variance(to, inner).max(0.0).sqrt();
            table.update(SAMPLE, &[(X0, back * inner.gamma), (EPS, back * inner.sigma)], noise);
        }
        table.end_step();
    }
    Ok(())
}
