//! Classifier-free guidance, as a network around a network.

use super::Network;
use crate::condition::Condition;
use crate::schedule::Level;
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
    /// The variance that came with the latest prediction under the condition, if the network gives one.
    variance: Vec<f32>,
    /// Which slots are guided: those whose condition has something to leave out.
    guided: Vec<bool>,
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
        let (given, without) = (BTreeMap::new(), Condition::default());
        let variance = Vec::new();
        Ok(Guided { network, weight, given, unconditional, without, variance, guided: Vec::new() })
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

    /// The bytes of the buffers that guidance needs.
    #[cfg(feature = "onnx")]
    pub(crate) fn memory_bytes(&self) -> usize {
        let conditions: usize = self.without.named.values().map(|v| size_of_val(&**v)).sum();
        size_of_val(&*self.unconditional) + size_of_val(&*self.variance) + conditions
    }

    fn is_guided(&self, slot: usize) -> bool {
        self.guided.get(slot).copied().unwrap_or(false)
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

/// The slots of the inner network for the two halves of a slot.
fn halves(slot: usize) -> [usize; 2] {
    [2 * slot, 2 * slot + 1]
}

impl<N: Network> Network for Guided<N> {
    fn sample_shape(&self) -> &[usize] {
        self.network.sample_shape()
    }

    fn bind(&mut self, slot: usize, condition: &Condition) -> Result<()> {
        let [conditional, unconditional] = halves(slot);
        self.network.bind(conditional, condition)?;
        let guided = self.weight != 1.0 && !condition.is_empty();
        if guided {
            self.leave_out(condition);
            self.network.bind(unconditional, &self.without)?;
            // room for the variance, so that predictions allocate nothing
            self.variance.resize(self.network.variance().map_or(0, <[f32]>::len), 0.0);
        }
        if self.guided.len() <= slot {
            self.guided.resize(slot + 1, false);
        }
        self.guided[slot] = guided;
        Ok(())
    }

    fn lead_to(&mut self, level: Level) {
        self.network.lead_to(level);
    }

    fn hold_clean(&mut self, rows: usize, level: Level) -> Result<()> {
        self.network.hold_clean(rows, level)
    }

    fn variance(&self) -> Option<&[f32]> {
        if self.variance.is_empty() { self.network.variance() } else { Some(&self.variance) }
    }

    fn time_of(&self, level: Level) -> f64 {
        self.network.time_of(level)
    }

    fn predict(&mut self, x: &[f32], t: f64, slot: usize, out: &mut [f32]) -> Result<()> {
        let [conditional, unconditional] = halves(slot);
        self.network.predict(x, t, conditional, out)?;
        if !self.is_guided(slot) {
            return Ok(());
        }
        if let Some(variance) = self.network.variance() {
            self.variance.copy_from_slice(variance);
        }
        self.network.predict(x, t, unconditional, &mut self.unconditional)?;
        for (c, u) in out.iter_mut().zip(&self.unconditional) {
            *c = u + self.weight * (*c - u);
        }
        Ok(())
    }

    fn calls(&self, slot: usize) -> usize {
        let [conditional, unconditional] = halves(slot);
        let more = if self.is_guided(slot) { self.network.calls(unconditional) } else { 0 };
        self.network.calls(conditional) + more
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

    /// Predicts 10 with a class and 4 without; counts what it is asked.
    #[derive(Default)]
    struct TwoFaced {
        slots: BTreeMap<usize, Condition>,
        bound: usize,
        calls: usize,
    }

    impl Network for TwoFaced {
        fn sample_shape(&self) -> &[usize] {
            &[2]
        }

        fn bind(&mut self, slot: usize, condition: &Condition) -> Result<()> {
            self.bound += 1;
            self.slots.insert(slot, condition.clone());
            Ok(())
        }

        fn predict(&mut self, _: &[f32], _: f64, slot: usize, out: &mut [f32]) -> Result<()> {
            self.calls += 1;
            out.fill(if self.slots[&slot].class.is_some() { 10.0 } else { 4.0 });
            Ok(())
        }
    }

    /// Predicts what its condition `c` is, and 100 more with a class.
    #[derive(Default)]
    struct Echo(BTreeMap<usize, f32>);

    impl Network for Echo {
        fn sample_shape(&self) -> &[usize] {
            &[1]
        }

        fn bind(&mut self, slot: usize, condition: &Condition) -> Result<()> {
            let class = if condition.class.is_some() { 100.0 } else { 0.0 };
            self.0.insert(slot, condition.named["c"][0] + class);
            Ok(())
        }

        fn predict(&mut self, _: &[f32], _: f64, slot: usize, out: &mut [f32]) -> Result<()> {
            out[0] = self.0[&slot];
            Ok(())
        }
    }

    #[test]
    fn a_named_condition_is_left_out_as_zeros_or_as_is_said() {
        let named = |c: f32| BTreeMap::from([("c".to_string(), vec![c])]);
        let guided = |class, given| {
            let mut out = [0.0];
            let mut network = Guided::new(Echo::default(), 3.0).unwrap().with_unconditional(given);
            network.bind(0, &Condition { class, named: named(2.0) }).unwrap();
            network.predict(&[0.0], 0.0, 0, &mut out).unwrap();
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
            let mut guided = Guided::new(TwoFaced::default(), weight).unwrap();
            let mut out = [0.0; 2];
            guided.bind(0, &Condition::class(3)).unwrap();
            guided.predict(&[0.0; 2], 0.0, 0, &mut out).unwrap();
            assert_eq!(out, [expected; 2]);
            assert_eq!((guided.network.calls, guided.calls(0)), (calls, calls));
        }
        assert!(Guided::new(TwoFaced::default(), f32::NAN).is_err());
    }

    #[test]
    fn conditions_are_bound_once_a_run_for_each_half() {
        let mut guided = Guided::new(TwoFaced::default(), 2.0).unwrap();
        guided.bind(0, &Condition::class(3)).unwrap();
        for _ in 0..10 {
            guided.predict(&[0.0; 2], 0.0, 0, &mut [0.0; 2]).unwrap();
        }
        assert_eq!((guided.network.bound, guided.network.calls), (2, 20));
        // with nothing to leave out there is nothing to guide
        guided.bind(0, &Condition::default()).unwrap();
        assert_eq!((guided.network.bound, guided.calls(0)), (3, 1));
    }
}
