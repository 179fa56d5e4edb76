//! What a sample is conditioned on: a class label and named arrays.

/// What one sample is conditioned on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// The class index that the network is asked for; `None` for a network without classes,
    /// or for the unconditional half of classifier-free guidance.
    pub class: Option<usize>,
}
