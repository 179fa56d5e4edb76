//! What the inputs of a network are for.

/// What an input of the network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The noisy sample x_t.
    Sample,
    /// The time t.
    Time,
    /// The time that the step leads to, of a network that takes both ends of a step (MeanFlow).
    Next,
    /// A class label: an integer, or as many numbers as there are classes, of which that of the class is 1 and the others 0.
    Class,
    /// Any other condition, given by the input's name.
    Condition,
}

impl Role {
    /// Every role.
    pub(super) const ALL: [Role; 5] = [Role::Sample, Role::Time, Role::Next, Role::Class, Role::Condition];

    /// The role's name on the command line and in a model's metadata.
    pub fn name(self) -> &'static str {
        match self {
            Role::Sample => "sample",
            Role::Time => "time",
            Role::Next => "next",
            Role::Class => "class",
            Role::Condition => "condition",
        }
    }

    /// The role with this [`name`](Role::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}
