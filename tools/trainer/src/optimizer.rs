//! AdamW (arXiv 1711.05101) with clipping of the whole gradient's norm.

use crate::network::Tensors;
use crate::ops::{AdamUpdate, adam, mix, mix_square, sum_of_squares};
use candle_core::{Result, Tensor, Var, backprop::GradStore, bail};
use std::collections::BTreeMap;

/// The usual decays of the means of gradients and of their squares.
pub const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// The optimiser's state: the running means of the gradients and of their squares.
pub struct AdamW {
    /// Running means of the gradients, updated in place.
    pub mean: Tensors,
    /// Running means of the squared gradients, updated in place.
    pub square: Tensors,
    /// The decay of the weights themselves.
    pub weight_decay: f64,
    /// The greatest norm that the whole gradient may have.
    pub clip: f64,
    /// The decays of the means of gradients and of their squares.
    pub betas: [f64; 2],
}

impl AdamW {
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
            square += sum_of_squares(gradient)?;
        }
        let norm = square.sqrt();
        let scale = if norm > self.clip { self.clip / norm } else { 1.0 };
        let [beta1, beta2] = self.betas;
        let unbiased = |beta: f64| 1.0 / (1.0 - beta.powf(step as f64));
        let update = AdamUpdate {
            keep: 1.0 - rate * self.weight_decay,
            rate,
            mean_scale: unbiased(beta1),
            square_scale: unbiased(beta2),
            epsilon: EPSILON,
        };
        for (name, variable) in variables {
            let Some(gradient) = gradients.get(variable) else { continue };
            let (Some(mean), Some(square)) = (self.mean.get_mut(name), self.square.get_mut(name)) else {
                bail!("the optimiser has no state for {name}");
            };
            mix(mean, gradient, beta1, (1.0 - beta1) * scale)?;
            mix_square(square, gradient, beta2, (1.0 - beta2) * scale * scale)?;
            adam(variable, mean, square, update)?;
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
        let zeros = || Tensors::from([("w".to_string(), w.zeros_like().unwrap())]);
        let mut adam = AdamW { mean: zeros(), square: zeros(), weight_decay: 0.1, clip: 2.0, betas: BETAS };
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
