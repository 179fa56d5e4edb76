//! Steps whose coefficients were fitted to a model.
//!
//! Whatever its derivation, a deterministic solver with one evaluation a step makes each sample a linear
//! combination of x_T and the estimates so far. Which combination brings few steps of one network nearest to where
//! many steps lead can be found by least squares (arXiv 2305.14677, 2310.19075), once, and kept with the model.

use super::table::{Register, SAMPLE, Table};
use super::unipc::{self, UniPc};
use crate::schedule::Grid;
use crate::{Error, Result};

/// The first of the estimates of x_0, which are all kept.
const X0: Register = 1;

/// The fitted combinations of the grid; UniPC of order 2 where it has none.
pub(super) fn fitted(table: &mut Table, grid: &Grid) -> Result<()> {
    if grid.fitted.is_empty() {
        return unipc::unipc(table, grid, UniPc::new(2));
    }
    for (i, (fitted, step)) in grid.fitted.iter().zip(&grid.steps).enumerate() {
        if fitted.x0.len() != i + 1 {
            return Err(Error::invalid(format!("fitted step {i} must have {} weights of x_0", i + 1)));
        }
        table.evaluate(SAMPLE, step.from, X0 + i, None);
        let estimates = fitted.x0.iter().enumerate().map(|(j, weight)| (X0 + j, *weight));
        let terms: Vec<_> = [(SAMPLE, fitted.x)].into_iter().chain(estimates).collect();
        table.update(SAMPLE, &terms, 0.0);
        table.end_step();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Condition;
    use crate::config::Threshold;
    use crate::config::{FittedStep, PredictionType, SchedulerConfig, Spacing};
    use crate::network::Network;
    use crate::noise::Noise;
    use crate::sampler::{Control, Sampler};
    use crate::schedule::Schedule;
    use crate::solver::{Prediction, Solver};

    /// Not linear, and different at every time.
    struct Bent;

    impl Network for Bent {
        fn sample_shape(&self) -> &[usize] {
            &[3]
        }

        fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> Result<()> {
            out.iter_mut().zip(x).for_each(|(o, x)| *o = (x + t as f32 / 500.0).sin());
            Ok(())
        }
    }

    fn sample(solver: Solver, grid: &Grid, schedule: &Schedule) -> [f32; 3] {
        let prediction = Prediction { kind: PredictionType::V, threshold: Threshold::Static(0.8) };
        let mut sampler = Sampler::new(solver.compile(grid, schedule, prediction).unwrap(), 3);
        let mut x = [0.7, -1.2, 0.1];
        sampler.run(&mut Bent, &Condition::default(), &mut Noise::new(0, 0), &mut x, &mut Control::default()).unwrap();
        x
    }

    /// DPM-Solver++(2M) written as fitted steps is DPM-Solver++(2M).
    #[test]
    fn steps_are_taken_with_the_weights_that_are_given() {
        let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
        let grid = schedule.grid(6, Spacing::Trailing, 0, true).unwrap();
        let levels: Vec<_> = grid.levels().collect();
        let step = |i: usize| {
            let (from, to) = (levels[i], levels[i + 1]);
            let mut x0 = vec![0.0; i + 1];
            // the last step is of first order
            let whole = to.gamma - from.gamma * to.sigma / from.sigma;
            let r = if i > 0 && i < 5 {
                (from.lambda() - levels[i - 1].lambda()) / (to.lambda() - from.lambda())
            } else {
                f64::INFINITY
            };
            x0[i] = whole * (1.0 + 0.5 / r);
            if i > 0 {
                x0[i - 1] = -whole * 0.5 / r;
            }
            FittedStep { time: from.time, x: to.sigma / from.sigma, x0 }
        };
        let steps: Vec<_> = (0..6).map(step).collect();
        let fitted = sample(Solver::Fitted, &Grid::of_fitted(&steps, &schedule).unwrap(), &schedule);
        let known = sample(Solver::from_name("dpm++2m").unwrap(), &grid, &schedule);
        for (a, b) in fitted.iter().zip(known) {
            assert!((a - b).abs() < 1e-5, "{fitted:?} is not {known:?}");
        }
        // other weights are other samples
        let mut other = steps.clone();
        other[2].x0[0] += 0.1;
        let other = sample(Solver::Fitted, &Grid::of_fitted(&other, &schedule).unwrap(), &schedule);
        assert!((other[0] - fitted[0]).abs() > 1e-3);
        // and without any it is UniPC
        let plain = sample(Solver::Fitted, &grid, &schedule);
        assert_eq!(plain, sample(Solver::from_name("unipc-2").unwrap(), &grid, &schedule));

        other_lengths_are_refused(steps, &schedule);
    }

    fn other_lengths_are_refused(mut steps: Vec<FittedStep>, schedule: &Schedule) {
        steps[1].x0.pop();
        let grid = Grid::of_fitted(&steps, schedule).unwrap();
        let prediction = Prediction { kind: PredictionType::V, threshold: Threshold::None };
        let error = Solver::Fitted.compile(&grid, schedule, prediction).unwrap_err().to_string();
        assert_eq!(error, "fitted step 1 must have 2 weights of x_0");
    }
}
