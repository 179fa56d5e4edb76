//! What a sample is conditioned on.

use std::collections::BTreeMap;

/// What one sample is conditioned on.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
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

    /// The same, with the condition of the network's input `name`.
    pub fn with(mut self, name: impl Into<String>, values: impl Into<Vec<f32>>) -> Self {
        self.named.insert(name.into(), values.into());
        self
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.class.is_none() && self.named.is_empty()
    }
}
