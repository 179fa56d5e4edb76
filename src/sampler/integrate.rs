//! Dormand and Prince's Runge–Kutta method with error control (J. Comp. Appl. Math. 6, 1980), in f64.

use crate::{Error, Result};

/// How far an integration came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The end.
    End,
    /// Less: the slope was not to be had any more.
    Stopped,
}

/// The integrator and its buffers.
pub(crate) struct DormandPrince {
    rtol: f64,
    atol: f64,
    slopes: [Vec<f64>; 7],
    stage: Vec<f64>,
}

/// The nodes c.
const C: [f64; 7] = [0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];

/// The coefficients a; the last row is the fifth-order solution.
const A: [&[f64]; 7] = [
    &[],
    &[0.2],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
    &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];

/// The fifth-order solution less the fourth-order one.
const E: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];

impl DormandPrince {
    /// For states of `len` numbers; the error of a step stays below `atol + rtol |y|` in the root mean square.
    pub fn new(len: usize, rtol: f64, atol: f64) -> Self {
        DormandPrince { rtol, atol, slopes: std::array::from_fn(|_| vec![0.0; len]), stage: vec![0.0; len] }
    }

    /// Takes `y` from `from` to `to`. `slope(t, y, dy)` fills in dy/dt, or says false to stop; `accepted(t, y)`
    /// sees the state after each step.
    ///
    /// # Errors
    /// When the slope fails, or no step is small enough for the tolerance.
    pub fn integrate(
        &mut self,
        mut slope: impl FnMut(f64, &[f64], &mut [f64]) -> Result<bool>,
        mut accepted: impl FnMut(f64, &[f64]),
        (from, to): (f64, f64),
        y: &mut [f64],
    ) -> Result<Reached> {
        let (range, direction) = ((to - from).abs(), (to - from).signum());
        let mut t = from;
        if !slope(t, y, &mut self.slopes[0])? {
            return Ok(Reached::Stopped);
        }
        let mut h = self.first_step(y).min(range);
        while direction * (to - t) > 0.0 {
            h = h.min(direction * (to - t));
            if h < 1e-10 * range {
                return Err(Error::invalid(format!(
                    "the tolerance cannot be met: near {t} steps would have to be shorter than {h:e}; give greater rtol and atol"
                )));
            }
            let last = direction * (to - t) <= h;
            for (s, node) in C.into_iter().enumerate().skip(1) {
                self.fill_stage(y, direction * h, s);
                let (_, rest) = self.slopes.split_at_mut(s);
                if !slope(t + direction * h * node, &self.stage, &mut rest[0])? {
                    return Ok(Reached::Stopped);
                }
            }
            let error = self.error(y, h);
            if error <= 1.0 {
                t = if last { to } else { t + direction * h };
                y.copy_from_slice(&self.stage);
                // the last slope is that of the next step's beginning
                self.slopes.swap(0, 6);
                accepted(t, y);
            }
            h *= (0.9 * libm::pow(error, -0.2)).clamp(0.2, 5.0);
        }
        Ok(Reached::End)
    }

    /// The state that stage `s` is evaluated at; for the last that is the step's result.
    fn fill_stage(&mut self, y: &[f64], h: f64, s: usize) {
        for i in 0..y.len() {
            let sum: f64 = A[s].iter().zip(&self.slopes).map(|(a, k)| a * k[i]).sum();
            self.stage[i] = y[i] + h * sum;
        }
    }

    fn norm(&self, len: usize, of: impl Fn(usize) -> f64) -> f64 {
        ((0..len).map(|i| of(i).powi(2)).sum::<f64>() / len.max(1) as f64).sqrt()
    }

    fn error(&self, y: &[f64], h: f64) -> f64 {
        let ratio = |i: usize| {
            let difference: f64 = E.iter().zip(&self.slopes).map(|(e, k)| e * k[i]).sum();
            h * difference / (self.atol + self.rtol * y[i].abs().max(self.stage[i].abs()))
        };
        self.norm(y.len(), ratio).max(1e-10)
    }

    /// A step over which an Euler step would change the state by a hundredth of itself.
    fn first_step(&self, y: &[f64]) -> f64 {
        let scale = |i: usize| self.atol + self.rtol * y[i].abs();
        let [size, slope] = [y, &self.slopes[0]].map(|v| self.norm(y.len(), |i| v[i] / scale(i)));
        if slope > 1e-10 && size > 1e-10 { 0.01 * size / slope } else { 1e-3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_comes_back_within_the_tolerance() {
        for tolerance in [1e-4, 1e-6, 1e-8] {
            let mut calls = 0;
            let slope = |_: f64, y: &[f64], dy: &mut [f64]| {
                calls += 1;
                (dy[0], dy[1]) = (-y[1], y[0]);
                Ok(true)
            };
            let mut y = [1.0, 0.0];
            let whole = (0.0, -2.0 * std::f64::consts::PI);
            let reached =
                DormandPrince::new(2, tolerance, tolerance).integrate(slope, |_, _| (), whole, &mut y).unwrap();
            assert_eq!(reached, Reached::End);
            let error = (y[0] - 1.0).hypot(y[1]);
            assert!(error < 20.0 * tolerance && error > 1e-13, "{tolerance}: {error} after {calls} calls");
        }
    }

    #[test]
    fn a_discontinuity_that_no_step_can_cross_is_an_error() {
        let slope = |t: f64, _: &[f64], dy: &mut [f64]| {
            dy[0] = 1.0 / (t - 0.5).abs();
            Ok(true)
        };
        let result = DormandPrince::new(1, 1e-6, 1e-6).integrate(slope, |_, _| (), (0.0, 1.0), &mut [0.0]);
        assert!(result.unwrap_err().to_string().contains("the tolerance cannot be met"));
    }
}
