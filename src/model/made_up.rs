//! What a model is looked at or timed with where nobody says it.

/// Something that was made up about a model: see [`ModelOptions::make_up`](crate::ModelOptions::make_up).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MadeUp {
    /// Its noise schedule.
    Schedule,
    /// What the network is told of the noise: the training step.
    TimeAs,
    /// The shape of the condition of this name.
    Shape(String, Vec<usize>),
    /// What the network takes in one with its sample, as one condition of this name.
    Join(String),
}

impl std::fmt::Display for MadeUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MadeUp::Schedule => f.write_str("the noise schedule"),
            MadeUp::TimeAs => f.write_str("that the network is told the training step"),
            MadeUp::Shape(name, shape) => write!(f, "the shape {shape:?} of {name}"),
            MadeUp::Join(name) => write!(f, "that what is joined with the sample is called {name}"),
        }
    }
}
