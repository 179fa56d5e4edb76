//! The data that a command is given: pictures or sequences, told by what the folder holds.

use crate::data::{Dataset, Samples, Split};
use crate::sequences::{Scale, Sequences, Windows};
use anyhow::{Result, ensure};
use clap::Args;
use std::path::Path;

/// How data of sequences is read.
#[derive(Args, Clone, Debug)]
pub struct SequenceArgs {
    /// Sequences: the actions of a window that demonstrations are cut into
    #[arg(long, default_value_t = 16, value_name = "T")]
    horizon: usize,
    /// Sequences: the moments whose observations a window of a demonstration is conditioned on
    #[arg(long, default_value_t = 2, value_name = "N")]
    obs_steps: usize,
    /// Sequences: what is scaled to the network's range, each column by itself
    #[arg(long, value_enum, default_value = "min-max")]
    normalization: Scale,
}

impl SequenceArgs {
    /// Whether what was scaled lies within [-1, 1].
    pub fn is_bounded(&self) -> bool {
        self.normalization == Scale::MinMax
    }
}

/// Pictures or sequences.
pub enum Data {
    Pictures(Dataset),
    Sequences(Sequences),
}

impl Data {
    /// Reads the training data in `folder`.
    ///
    /// # Errors
    /// When it holds neither, or an option does not fit it.
    pub fn open(folder: &Path, size: Option<usize>, names: Option<&[String]>, args: &SequenceArgs) -> Result<Self> {
        if !Sequences::is_one(folder) {
            return Ok(Data::Pictures(Dataset::open(folder, Split::Train, size, names)?));
        }
        ensure!(names.is_none(), "sequences have no classes: leave --class-names out");
        let windows = Windows { horizon: args.horizon, moments: args.obs_steps };
        Ok(Data::Sequences(Sequences::open(folder, windows, args.normalization)?))
    }

    /// The samples.
    pub fn samples(&self) -> &dyn Samples {
        match self {
            Data::Pictures(data) => data,
            Data::Sequences(data) => data,
        }
    }

    /// The classes' names, none for sequences.
    pub fn class_names(&self) -> &[String] {
        match self {
            Data::Pictures(data) => &data.class_names,
            Data::Sequences(_) => &[],
        }
    }
}
