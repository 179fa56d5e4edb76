//! Consistency sampling (arXiv 2303.01469, algorithm 1).

use super::table::{SAMPLE, Table};
use crate::schedule::Grid;

/// From each level to the estimate of x_0 there, and to the next level by fresh noise: `y = x_0 + √(s² - s_min²) z`.
/// The estimate of a consistency model is a sample at s_min, so that this is a sample at s; with s_min = 0 it is a
/// clean one. One step is one network call. It is for networks that are trained to give x_0 from any level at
/// once; of others it gives blurred samples.
pub(super) fn consistency(table: &mut Table, grid: &Grid, sigma_min: f64) {
    const X0: usize = 1;
    for step in &grid.steps {
        table.evaluate(SAMPLE, step.from, X0, None);
        let s = step.to.edm_sigma();
        let added = (s * s - sigma_min * sigma_min).max(0.0).sqrt();
        table.update(SAMPLE, &[(X0, step.to.gamma)], step.to.gamma * added);
        table.end_step();
    }
}

#[cfg(test)]
mod tests {
    use crate::config::PredictionType;
    use crate::config::Threshold;
    use crate::schedule::{Grid, Level, Schedule};
    use crate::solver::{Added, Prediction, Solver};

    #[test]
    fn every_step_goes_to_x0_and_back_to_less_noise() {
        let schedule = Schedule::from_edm_sigmas(0.1, 10.0).unwrap();
        let level = |s: f64| Level::from_edm_sigma(0.0, s);
        let grid = Grid::new(&[level(10.0), level(2.0), Level::CLEAN]).unwrap();
        let prediction = Prediction { kind: PredictionType::Denoised, threshold: Threshold::None };
        let program = Solver::Consistency { sigma_min: 0.1 }.compile(&grid, &schedule, prediction).unwrap();
        assert_eq!((program.nfe(), program.steps()), (2, 2));
        let [first, last] = [0, 1].map(|i| &program.stages[i].updates[0]);
        // to s = 2 in x = γ y
        let gamma = 1.0 / 5f64.sqrt();
        assert_eq!((first.terms.len(), first.terms[0].coefficient), (1, gamma as f32));
        let Added::Scaled(noise) = first.noise else { panic!("{first:?}") };
        assert!((f64::from(noise) - gamma * (4.0 - 0.01f64).sqrt()).abs() < 1e-6);
        assert_eq!((last.terms[0].coefficient, last.noise), (1.0, Added::Scaled(0.0)));
    }
}
