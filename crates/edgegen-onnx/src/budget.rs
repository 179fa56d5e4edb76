//! One budget of memory for a model.
//!
//! A file of a few hundred bytes can ask for terabytes: by the sizes of its values, by their number, or by constants that
//! are made of other constants. Whoever allocates memory because a model's file says so takes it from the model's budget
//! first, so that what is asked for is summed over the whole of the model, and refused before it is allocated.

use crate::Result;
use std::cell::Cell;

/// What a model may still allocate. Memory is taken, and never given back: so the budget bounds the time that making a
/// model's constants takes, too.
#[derive(Debug)]
pub struct Budget {
    limit: Cell<usize>,
    left: Cell<usize>,
    /// The bytes of the model's files, where the limit is a multiple of them.
    files: Option<Cell<usize>>,
}

impl Budget {
    /// What a model may take at least, however small its file is: 1 GiB.
    pub const LEAST: usize = 1 << 30;
    /// How many times its file's size a model may take: one byte of a file can be a weight of 8 bits, which is there as a
    /// float of four bytes while it is read, and a second and a third time when it is transposed and packed.
    const TIMES_THE_FILE: usize = 16;
    /// Whether the system can give as much is asked from this size on; beneath, asking costs more than it tells.
    const LARGE: usize = 1 << 20;

    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Budget { limit: limit.into(), left: limit.into(), files: None }
    }

    /// The budget of a model where nothing else is said: a multiple of its files' sizes.
    pub fn of_files() -> Self {
        Budget { files: Some(0.into()), ..Budget::new(Self::LEAST) }
    }

    /// Takes the bytes of a file of the model's, which is about to be read.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_file(&self, bytes: usize) -> Result<()> {
        if let Some(files) = &self.files {
            files.set(files.get().saturating_add(bytes));
            let limit = files.get().saturating_mul(Self::TIMES_THE_FILE).max(Self::LEAST);
            self.left.set(self.left.get() + (limit - self.limit.replace(limit)));
        }
        self.take(bytes)
    }

    /// Takes so many bytes, which the caller is about to allocate.
    ///
    /// # Errors
    /// When there are not as many left, or when the system cannot give them.
    pub fn take(&self, bytes: usize) -> Result<()> {
        self.fits(bytes)?;
        self.left.set(self.left.get() - bytes);
        Ok(())
    }

    /// The same, for so many numbers of four bytes.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_numbers(&self, count: usize) -> Result<()> {
        self.take(count.saturating_mul(4))
    }

    /// Whether so many bytes could be taken, for what is dropped again soon.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn fits(&self, bytes: usize) -> Result<()> {
        if bytes > self.left.get() {
            return Err(self.exceeded());
        }
        if bytes >= Self::LARGE && Vec::<u8>::new().try_reserve_exact(bytes).is_err() {
            return Err(format!("the system does not give the {} that the model takes", megabytes(bytes)));
        }
        Ok(())
    }

    /// The bytes that may still be taken.
    pub fn left(&self) -> usize {
        self.left.get()
    }

    /// What is said of a model that asks for more than there is.
    pub fn exceeded(&self) -> String {
        format!("the model takes more than the {} of memory that it may take", megabytes(self.limit.get()))
    }

    /// A budget of what is left, for what is dropped before anything else is taken.
    pub fn rest(&self) -> Budget {
        Budget::new(self.left.get())
    }

    /// The whole budget again, once everything that was taken has been dropped.
    pub fn restore(&self) {
        self.left.set(self.limit.get());
    }
}

/// A size for people.
fn megabytes(bytes: usize) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_summed() {
        let budget = Budget::new(100);
        budget.take(60).unwrap();
        budget.fits(40).unwrap();
        let error = budget.take_numbers(11).unwrap_err();
        assert!(error.contains("takes more than"), "{error}");
        budget.take_numbers(10).unwrap();
        budget.take(1).unwrap_err();
        budget.restore();
        budget.take(100).unwrap();
    }

    #[test]
    fn what_no_system_can_give_is_refused_whatever_the_budget_is() {
        let budget = Budget::new(usize::MAX);
        assert!(budget.take(usize::MAX).is_err());
        assert!(budget.take_numbers(usize::MAX).is_err());
    }

    #[test]
    fn a_budget_grows_with_the_files_unless_it_is_given() {
        let budget = Budget::of_files();
        budget.take_file(1000).unwrap();
        assert_eq!(budget.left.get(), Budget::LEAST - 1000);
        // the next three make it grow by more than they take
        (0..3).for_each(|_| budget.take_file(100 << 20).unwrap());
        assert_eq!(budget.left.get(), 16 * (1000 + (300 << 20)) - (1000 + (300 << 20)));
        budget.take_file(usize::MAX).unwrap_err();
        let fixed = Budget::new(10);
        fixed.take_file(11).unwrap_err();
    }
}
