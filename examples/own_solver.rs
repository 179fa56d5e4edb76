//! A solver from outside, put together in a dozen lines, and run beside two of the library's on the model that comes with
//! it.
//!
//! ```text
//! cargo run --release --example own_solver -- bag.png
//! ```

use edgegen::output::{Format, Picture, encode_picture, write_file};
use edgegen::schedule::{Grid, Marginal, Transition};
use edgegen::solver::{OwnSolver, SAMPLE, Solver, Table};
use edgegen::{Model, Request, Result};
use std::path::PathBuf;

/// Two-step Adams–Bashforth on the probability-flow ODE `dy/ds = ε`, where `y = x/γ` and `s = σ/γ`:
/// `y' = y + h (ε + h/(2 h₀) (ε - ε₀))`, with h the step in s, and h₀ and ε₀ those of the step before.
fn adams_bashforth(table: &mut Table, grid: &Grid, _: &dyn Marginal) -> Result<()> {
    // registers: the estimate of the clean sample, and ε of even and of odd steps
    const X0: usize = 1;
    const EPS: [usize; 2] = [2, 3];
    let mut before = None;
    for (i, &Transition { from, to, .. }) in grid.steps().iter().enumerate() {
        let (now, last) = (EPS[i % 2], EPS[(i + 1) % 2]);
        let h = to.edm_sigma() - from.edm_sigma();
        // the first step, and the one to the clean sample, are of first order
        let change = before.filter(|_| to.sigma > 0.0).map_or(0.0, |h_0: f64| h / (2.0 * h_0));
        table.evaluate(SAMPLE, from, X0, Some(now));
        let scale = to.gamma * h;
        table.update(
            SAMPLE,
            &[(SAMPLE, to.gamma / from.gamma), (now, scale * (1.0 + change)), (last, -scale * change)],
            0.0,
        );
        table.end_step();
        before = Some(h);
    }
    Ok(())
}

fn main() -> Result<()> {
    let out = PathBuf::from(std::env::args().nth(1).unwrap_or("bag.png".into()));
    let model = Model::embedded()?;
    let request = Request::new(7, 0).class(model.class("Bag")?);
    let made = |solver: Solver, steps: usize| -> Result<Vec<f32>> {
        Ok(model.generator().solver(solver).steps(steps).build()?.run(&request)?.sample.to_vec())
    };
    let own = Solver::Own(OwnSolver { name: "adams-bashforth", fill: adams_bashforth });
    // what all solvers of the ODE come to
    let truth = made(Solver::from_name("heun")?, 200)?;
    for (name, solver) in [("adams-bashforth", own), ("euler", Solver::Euler), ("lms", Solver::from_name("lms")?)] {
        let sample = made(solver, 20)?;
        let square: f32 = sample.iter().zip(&truth).map(|(a, b)| (a - b).powi(2)).sum();
        println!("{name:<16} {:.4} from the ODE's end", (square / truth.len() as f32).sqrt());
    }
    let picture = Picture::new(model.sample_shape(), model.value_range())?.grid(&[&made(own, 20)?], 1);
    write_file(&out, &encode_picture(&picture, Format::from_path(&out)?)?)
}
