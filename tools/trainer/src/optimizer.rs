//! AdamW (arXiv 1711.05101) with clipping of the whole gradient's norm.

use crate::unet::Tensors;
use candle_core::{Result, Tensor, Var, backprop::GradStore};
use std::collections::BTreeMap;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The optimiser's state: the running means of the gradients and of their squares.
pub struct AdamW {
    /// Running means of the gradients.
    pub mean: Tensors,
    /// Running means of the squared gradients.
    pub square: Tensors,
    /// The decay of the weights themselves.
    pub weight_decay: f64,
    /// The greatest norm that the whole gradient may have.
    pub clip: f64,
}

impl AdamW {
    /// A fresh state for these variables.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(variables: &BTreeMap<String, Var>, weight_decay: f64, clip: f64) -> Result<Self> {
        let zeros = || variables.iter().map(|(n, v)| Ok((n.clone(), v.zeros_like()?))).collect::<Result<Tensors>>();
        Ok(AdamW { mean: zeros()?, square: zeros()?, weight_decay, clip })
    }

    /// One step, the `step`-th counting from 1, at learning rate `rate`; returns the gradient's norm.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(
        &mut self,
        variables: &BTreeMap<String, Var>,
        gradients: &GradStore,
        step: u64,
        rate: f64,
    ) -> Result<f64> {
        let mut square = 0f64;
        for gradient in variables.values().filter_map(|v| gradients.get(v)) {
            square += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let norm = square.sqrt();
        let scale = if norm > self.clip { self.clip / norm } else { 1.0 };
        let bias = |beta: f64| 1.0 - beta.powf(step as f64);
        for (name, variable) in variables {
            let Some(gradient) = gradients.get(variable) else { continue };
            let gradient = (gradient * scale)?;
            let mean = ((&self.mean[name] * BETA1)? + (&gradient * (1.0 - BETA1))?)?.detach();
            let square = ((&self.square[name] * BETA2)? + (gradient.sqr()? * (1.0 - BETA2))?)?.detach();
            let update = ((&mean / bias(BETA1))? / ((&square / bias(BETA2))?.sqrt()? + EPSILON)?)?;
            let decayed = (variable.as_tensor() * (1.0 - rate * self.weight_decay))?;
            variable.set(&(decayed - (update * rate)?)?)?;
            self.mean.insert(name.clone(), mean);
            self.square.insert(name.clone(), square);
        }
        Ok(norm)
    }
}

/// The parameters as plain tensors, sharing their storage.
pub fn tensors(variables: &BTreeMap<String, Var>) -> Tensors {
    variables.iter().map(|(n, v)| (n.clone(), Tensor::clone(v.as_tensor()))).collect()
}
