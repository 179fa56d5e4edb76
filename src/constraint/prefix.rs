//! Samples whose beginning is known and given to the network clean.

use super::{Constraint, check_finite};
use crate::noise::Noise;
use crate::schedule::Level;
use crate::{Error, ErrorKind, Result};

/// Known rows at the beginning of a sample, given to the network without noise and with the time that says so: for networks
/// that take a time for each token and were trained with such beginnings (arXiv 2512.05964, for real-time chunking). Any other
/// network is an error when the run begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefix {
    values: Vec<f32>,
    width: usize,
    rows: usize,
    level: Level,
}

impl Prefix {
    /// The first `rows` of `values`, a sample of rows of `width` numbers. `level` is that of a clean sample, with the time
    /// that the network knows it by: of a rectified flow 0, or where time runs to the data its end.
    ///
    /// # Errors
    /// When there are not as many rows, a known value is not finite, or the level has noise.
    pub fn new(values: &[f32], width: usize, rows: usize, level: Level) -> Result<Self> {
        if level.sigma != 0.0 {
            return Err(Error::invalid(format!("a clean beginning has no noise, but its level has {}", level.sigma)));
        }
        let mut prefix = Prefix { values: vec![0.0; values.len()], width, rows: 0, level };
        prefix.set(values, rows)?;
        Ok(prefix)
    }

    /// The first `rows` of other values, in the same memory.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn set(&mut self, values: &[f32], rows: usize) -> Result<()> {
        let known = rows.checked_mul(self.width).filter(|known| *known <= values.len());
        let (Some(known), true) = (known, values.len() == self.values.len()) else {
            let message = format!(
                "a sample of {} numbers cannot begin with {rows} rows of {} out of {}",
                self.values.len(),
                self.width,
                values.len()
            );
            return Err(Error::new(ErrorKind::WrongSize, message));
        };
        check_finite(values[..known].iter().copied().enumerate())?;
        self.values.copy_from_slice(values);
        self.rows = rows;
        Ok(())
    }

    fn put(&self, x: &mut [f32]) {
        let known = self.rows * self.width;
        x[..known].copy_from_slice(&self.values[..known]);
    }
}

impl Constraint for Prefix {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn clean(&self) -> (usize, Level) {
        (self.rows, self.level)
    }

    fn enter(&mut self, _: Level, x: &mut [f32], _: &mut Noise) {
        self.put(x);
    }

    fn correct(&mut self, _: Level, x0: &mut [f32]) {
        self.put(x0);
    }

    fn finish(&mut self, x0: &mut [f32]) {
        self.put(x0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_what_it_is_given_and_the_rest_is_free() {
        let mut prefix = Prefix::new(&[1.0, 2.0, 3.0, f32::NAN], 2, 1, Level::CLEAN).unwrap();
        let mut x = [9.0; 4];
        prefix.enter(Level::CLEAN, &mut x, &mut Noise::new(0, 0));
        assert_eq!((x, prefix.clean().0), ([1.0, 2.0, 9.0, 9.0], 1));
        prefix.set(&[5.0; 4], 0).unwrap();
        prefix.finish(&mut x);
        assert_eq!((x, prefix.clean().0), ([1.0, 2.0, 9.0, 9.0], 0));
        let refused = |values: &[f32], rows, level| Prefix::new(values, 2, rows, level).unwrap_err().to_string();
        assert!(refused(&[0.0; 4], 3, Level::CLEAN).contains("cannot begin with 3 rows of 2"));
        assert!(refused(&[f32::NAN; 4], 1, Level::CLEAN).contains("element 0 is NaN"));
        assert!(refused(&[0.0; 4], 1, Level { sigma: 0.5, ..Level::CLEAN }).contains("but its level has 0.5"));
    }
}
