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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// AdamW by the paper's algorithm 2 in f64, for one number.
    struct Reference {
        w: f64,
        mean: f64,
        square: f64,
    }

    impl Reference {
        fn step(&mut self, gradient: f64, t: i32, rate: f64, decay: f64) {
            self.mean = 0.9 * self.mean + 0.1 * gradient;
            self.square = 0.999 * self.square + 0.001 * gradient * gradient;
            let (m, v) = (self.mean / (1.0 - 0.9f64.powi(t)), self.square / (1.0 - 0.999f64.powi(t)));
            self.w -= rate * (m / (v.sqrt() + 1e-8) + decay * self.w);
        }
    }

    #[test]
    fn steps_are_those_of_the_paper() {
        let start = [0.5f32, -1.25, 3.0];
        let w = Var::from_tensor(&Tensor::new(&start, &Device::Cpu).unwrap()).unwrap();
        let variables = BTreeMap::from([("w".to_string(), w.clone())]);
        let mut adam = AdamW::new(&variables, 0.1, 2.0).unwrap();
        let mut reference = start.map(|w| Reference { w: w.into(), mean: 0.0, square: 0.0 });
        for t in 1..=20 {
            // the loss Σ w⁴/4 has the gradient w³: clipped while it is long, not clipped later
            let loss = (w.powf(4.0).unwrap().sum_all().unwrap() / 4.0).unwrap();
            let norm = adam.step(&variables, &loss.backward().unwrap(), t, 0.2).unwrap();
            let want = reference.iter().map(|r| r.w.powi(6)).sum::<f64>().sqrt();
            assert!((norm - want).abs() < 1e-4 * want, "step {t}: the norm is {want}, not {norm}");
            let scale = (2.0 / want).min(1.0);
            reference.iter_mut().for_each(|r| r.step(r.w.powi(3) * scale, t as i32, 0.2, 0.1));
            for (got, want) in w.to_vec1::<f32>().unwrap().iter().zip(&reference) {
                assert!((f64::from(*got) - want.w).abs() < 2e-5, "step {t}: {got} should be {}", want.w);
            }
        }
    }
}
