//! What a sample is conditioned on.

use std::collections::BTreeMap;

/// What one sample is conditioned on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// The class index that the network is asked for; `None` for a network without classes, and for
    /// the unconditional half of classifier-free guidance (the model's null class).
    pub class: Option<usize>,
    /// Every other condition, by the name of the network's input.
    pub named: BTreeMap<String, Vec<f32>>,
}

impl Condition {
    /// The condition of asking for one class.
    pub fn class(index: usize) -> Self {
        Condition { class: Some(index), named: BTreeMap::new() }
    }
}
