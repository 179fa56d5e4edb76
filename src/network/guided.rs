//! Classifier-free guidance, as a network around a network.

use super::Network;
use crate::condition::Condition;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Classifier-free guidance (arXiv 2207.12598): a network that predicts
/// `u + w (c - u)`, with `c` the inner network's prediction under the condition and `u` its prediction without one.
/// `w = 1` is the plain conditional prediction at the cost of one call; any other weight costs two calls a prediction.
///
/// Without a condition means without the class (the model's null class), and with the named conditions as they are;
/// if there is no class, with zeros in their place. What [`with_unconditional`](Guided::with_unconditional) gives
/// comes before both.
pub struct Guided<N> {
    network: N,
    weight: f32,
    /// The named conditions of the unconditional half that are given.
    given: BTreeMap<String, Vec<f32>>,
    unconditional: Vec<f32>,
    /// The latest condition without a condition.
    without: Condition,
}

impl<N: Network> Guided<N> {
    /// `network` guided with `weight`; one must be finite, and 1 turns guidance off.
    ///
    /// # Errors
    /// When the weight is not finite.
    pub fn new(network: N, weight: f32) -> Result<Self> {
        if !weight.is_finite() {
            return Err(Error::invalid(format!("the guidance weight must be a finite number, not {weight}")));
        }
        let unconditional = vec![0.0; network.sample_len()];
        Ok(Guided { network, weight, given: BTreeMap::new(), unconditional, without: Condition::default() })
    }

    /// The same, with these named conditions in the unconditional half.
    pub fn with_unconditional(mut self, given: BTreeMap<String, Vec<f32>>) -> Self {
        self.given = given;
        self
    }

    /// The network that is guided.
    #[cfg(feature = "onnx")]
    pub(crate) fn inner(&self) -> &N {
        &self.network
    }

    /// The bytes of the buffer that guidance needs.
    #[cfg(feature = "onnx")]
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.unconditional)
    }

    fn is_plain(&self) -> bool {
        self.weight == 1.0
    }

    /// Makes of `condition` what it is without one; allocates nothing where the latest had the same names and lengths.
    fn leave_out(&mut self, condition: &Condition) {
        let keeps = condition.class.is_some() || !self.given.is_empty();
        copy(&condition.named, &mut self.without.named);
        for (name, values) in &mut self.without.named {
            match self.given.get(name) {
                Some(given) => values.clone_from(given),
                None if keeps => {}
                None => values.fill(0.0),
            }
        }
    }
}

impl<N: Network> Network for Guided<N> {
    fn sample_shape(&self) -> &[usize] {
        self.network.sample_shape()
    }

    fn predict(&mut self, x: &[f32], t: f64, condition: &Condition, out: &mut [f32]) -> Result<()> {
        self.network.predict(x, t, condition, out)?;
        if self.is_plain() || (condition.class.is_none() && condition.named.is_empty()) {
            return Ok(());
        }
        self.leave_out(condition);
        self.network.predict(x, t, &self.without, &mut self.unconditional)?;
        for (c, u) in out.iter_mut().zip(&self.unconditional) {
            *c = u + self.weight * (*c - u);
        }
        Ok(())
    }

    fn calls(&self) -> usize {
        self.network.calls() * if self.is_plain() { 1 } else { 2 }
    }
}

/// Copies conditions over those of the last call, in their memory if they are of the same names and lengths.
fn copy(from: &BTreeMap<String, Vec<f32>>, to: &mut BTreeMap<String, Vec<f32>>) {
    if from.keys().ne(to.keys()) {
        to.clone_from(from);
        return;
    }
    to.values_mut().zip(from.values()).for_each(|(to, from)| to.clone_from(from));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Predicts 10 with a class and 4 without.
    struct TwoFaced(usize);

    impl Network for TwoFaced {
        fn sample_shape(&self) -> &[usize] {
            &[2]
        }

        fn predict(&mut self, _: &[f32], _: f64, condition: &Condition, out: &mut [f32]) -> Result<()> {
            self.0 += 1;
            out.fill(if condition.class.is_some() { 10.0 } else { 4.0 });
            Ok(())
        }
    }

    /// Predicts what its condition `c` is, and 100 more with a class.
    struct Echo;

    impl Network for Echo {
        fn sample_shape(&self) -> &[usize] {
            &[1]
        }

        fn predict(&mut self, _: &[f32], _: f64, condition: &Condition, out: &mut [f32]) -> Result<()> {
            out[0] = condition.named["c"][0] + if condition.class.is_some() { 100.0 } else { 0.0 };
            Ok(())
        }
    }

    #[test]
    fn a_named_condition_is_left_out_as_zeros_or_as_is_said() {
        let named = |c: f32| BTreeMap::from([("c".to_string(), vec![c])]);
        let guided = |class, given| {
            let mut out = [0.0];
            let mut network = Guided::new(Echo, 3.0).unwrap().with_unconditional(given);
            network.predict(&[0.0], 0.0, &Condition { class, named: named(2.0) }, &mut out).unwrap();
            out[0]
        };
        // u + 3 (c - u)
        assert_eq!(guided(None, BTreeMap::new()), 6.0);
        assert_eq!(guided(None, named(1.0)), 4.0);
        // the class alone is left out
        assert_eq!(guided(Some(0), BTreeMap::new()), 302.0);
        assert_eq!(guided(Some(0), named(1.0)), 304.0);
    }

    #[test]
    fn guidance_goes_past_the_conditional_prediction() {
        for (weight, expected, calls) in [(1.0, 10.0, 1), (1.5, 13.0, 2), (0.0, 4.0, 2)] {
            let mut guided = Guided::new(TwoFaced(0), weight).unwrap();
            let mut out = [0.0; 2];
            guided.predict(&[0.0; 2], 0.0, &Condition::class(3), &mut out).unwrap();
            assert_eq!(out, [expected; 2]);
            assert_eq!((guided.network.0, guided.calls()), (calls, calls));
        }
        assert!(Guided::new(TwoFaced(0), f32::NAN).is_err());
    }
}
