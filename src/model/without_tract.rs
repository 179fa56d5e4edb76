//! What stands in for `tract.rs` in a build without it: no network is ever run so.

use super::input::Input;
use crate::Result;
use crate::condition::Condition;
use crate::error::model_error;
use ::onnx::budget::Budget;
use ::onnx::pb;

/// There is none.
pub enum Tract {}

/// There is none.
pub enum TractState {}

impl Tract {
    /// # Errors
    /// Always: says why the network has no plan, and what would run it.
    pub fn load(
        _: &pb::ModelProto,
        _: (&[Input], exec::ResultShape),
        reason: String,
        _: &Budget,
    ) -> Result<(Self, Vec<String>)> {
        Err(model_error(format!(
            "the graph has no plan of edgegen's own ({reason}), and this build has no other engine: build it with the feature tract"
        )))
    }

    /// The shape of what it gives.
    pub fn result_shape(&self) -> &[usize] {
        match *self {}
    }

    /// Why there is no plan.
    pub fn reason(&self) -> &str {
        match *self {}
    }

    /// The state of one thread's runs.
    pub fn state(&self, _: &[Input]) -> Result<TractState> {
        match *self {}
    }
}

impl TractState {
    /// Takes a condition.
    pub fn bind(&mut self, _: &[Input], _: Option<usize>, _: usize, _: &Condition) -> Result<()> {
        match *self {}
    }

    /// What came after the prediction.
    pub fn variance(&self) -> Option<&[f32]> {
        match *self {}
    }

    /// Evaluates the network.
    pub fn predict(&mut self, _: &[Input], _: (&[f32], [f64; 2], usize), _: &mut [f32]) -> Result<()> {
        match *self {}
    }
}
