//! What was seen, and how the network takes it.

use crate::request::Conditions;
use crate::{Error, ErrorKind, Result};

/// What was seen at one control step: arrays by their names, in the units of the model's data, borrowed for the call.
///
/// ```
/// use edgegen::policy::Observation;
///
/// let (joints, image) = ([0.1, 0.2], [0.5; 12]);
/// let seen = Observation::new().with("state", &joints).with("image", &image);
/// ```
#[derive(Default)]
pub struct Observation<'a> {
    arrays: Conditions<'a>,
    age: usize,
    is_missing: bool,
}

impl<'a> Observation<'a> {
    /// An observation, of no array yet.
    pub fn new() -> Self {
        Observation::default()
    }

    /// That nothing new was seen since the last control step: a dropped frame. The last observation stands for it.
    pub fn missing() -> Self {
        Observation { is_missing: true, ..Observation::default() }
    }

    /// Adds the array `name`. Up to eight need no allocation.
    pub fn with(mut self, name: &'a str, values: &'a [f32]) -> Self {
        self.arrays.push(name, values);
        self
    }

    /// Says that it was taken this many control steps ago, 0 unless this is called. A plan made of it begins at the step at
    /// which it was taken, so that what is past by now is left out.
    pub fn age(mut self, steps: usize) -> Self {
        self.age = steps;
        self
    }

    pub(super) fn is_missing(&self) -> bool {
        self.is_missing
    }
}

/// A condition of the network, made of one array of each of the last control steps, or of several one after the other.
struct Stacked {
    /// The condition.
    name: String,
    /// The arrays of one step, with their lengths.
    parts: Vec<(String, usize)>,
    /// The numbers of one step.
    len: usize,
    /// Those of all steps, the oldest first.
    values: Vec<f32>,
}

/// The observations of the last control steps.
pub(super) struct History {
    conditions: Vec<Stacked>,
    /// How old the latest observation is, in control steps; none before the first.
    age: Option<usize>,
}

impl History {
    /// The observations of `steps` control steps for conditions of these names and numbers of elements. What `parts` has no
    /// entry for is observed by its own name.
    ///
    /// # Errors
    /// When a condition's length is not that many times an observation's.
    pub fn new(conditions: &[(&str, usize)], steps: usize, parts: &[(String, Vec<(String, usize)>)]) -> Result<Self> {
        let stacked = |&(name, len): &(&str, usize)| {
            if !len.is_multiple_of(steps) {
                return Err(Error::invalid(format!(
                    "the condition {name} has {len} numbers, which are not {steps} observations: give the right n_obs_steps, or give it as a condition that is no observation"
                )));
            }
            let len = len / steps;
            let given = parts.iter().find(|(condition, _)| condition == name);
            let parts = given.map_or_else(|| vec![(name.to_string(), len)], |(_, parts)| parts.clone());
            let sum = parts.iter().fold(0usize, |sum, (_, len)| sum.saturating_add(*len));
            if sum != len {
                let message = format!("the parts of {name} have {sum} numbers in all, but an observation has {len}");
                return Err(Error::new(ErrorKind::WrongSize, message));
            }
            Ok(Stacked { name: name.to_string(), parts, len, values: vec![0.0; len * steps] })
        };
        if let Some((unknown, _)) = parts.iter().find(|(name, _)| !conditions.iter().any(|(known, _)| known == name)) {
            let known: Vec<&str> = conditions.iter().map(|c| c.0).collect();
            let message = format!("the model has no condition '{unknown}' to observe: it has {}", listed(&known));
            return Err(Error::invalid(message));
        }
        Ok(History { conditions: conditions.iter().map(stacked).collect::<Result<_>>()?, age: None })
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.age = None;
    }

    /// How old the latest observation is, in control steps; none before the first.
    pub fn age(&self) -> Option<usize> {
        self.age
    }

    /// The conditions by their names, stacked.
    pub fn conditions(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.conditions.iter().map(|c| (c.name.as_str(), c.values.as_slice()))
    }

    /// The arrays of one step by their names, with their lengths.
    pub fn parts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.conditions.iter().flat_map(|c| &c.parts).map(|(name, len)| (name.as_str(), *len))
    }

    /// Whether an observation is what the network takes.
    ///
    /// # Errors
    /// When an array is missing, unknown, given twice, not of its length or not finite.
    pub fn check(&self, observation: &Observation) -> Result<()> {
        if observation.is_missing {
            return match observation.arrays.iter().next() {
                None => Ok(()),
                Some((name, _)) => {
                    Err(Error::invalid(format!("a missing observation has no array, but '{name}' is given")))
                }
            };
        }
        let is_known = |name: &str| self.parts().any(|(known, _)| known == name);
        if let Some((unknown, _)) = observation.arrays.iter().find(|(name, _)| !is_known(name)) {
            let known: Vec<&str> = self.parts().map(|(name, _)| name).collect();
            return Err(Error::invalid(format!("nothing called '{unknown}' is observed: give {}", listed(&known))));
        }
        for (name, len) in self.parts() {
            let Some(values) = observation.arrays.get(name).map_err(|e| e.context("observation"))? else {
                return Err(Error::invalid(format!("the observation lacks {name}, of {len} numbers")));
            };
            if values.len() != len {
                let message = format!("the observation's {name} has {} numbers, but must have {len}", values.len());
                return Err(Error::new(ErrorKind::WrongSize, message));
            }
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                let message = format!("the observation's {name} must be finite, but element {i} is {}", values[i]);
                return Err(Error::new(ErrorKind::NotFinite, message));
            }
        }
        Ok(())
    }

    /// Takes what was seen at the next control step, which was [checked](Self::check). The first observation stands for the
    /// steps before it, and the latest for one that is missing. Allocates nothing.
    pub fn push(&mut self, observation: &Observation) {
        let before = self.age;
        self.age = match (observation.is_missing, before) {
            (true, age) => age.map(|age| age.saturating_add(1)),
            (false, _) => Some(observation.age),
        };
        for Stacked { parts, len, values, .. } in &mut self.conditions {
            let latest = values.len() - *len;
            // the latest stays where it is, and so is there twice
            values.copy_within(*len.., 0);
            if observation.is_missing {
                continue;
            }
            let mut place = latest;
            for (name, len) in parts {
                let given = observation.arrays.get(name).ok().flatten().expect("it was checked");
                values[place..place + *len].copy_from_slice(given);
                place += *len;
            }
            if before.is_none() {
                (0..latest).step_by(*len).for_each(|start| values.copy_within(latest.., start));
            }
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacked(history: &History) -> Vec<Vec<f32>> {
        history.conditions().map(|(_, values)| values.to_vec()).collect()
    }

    /// As LeRobot's `populate_queues` and diffusion_policy's `MultiStepWrapper` pad.
    #[test]
    fn the_first_observation_stands_for_those_before_it() {
        let mut history = History::new(&[("state", 6), ("image", 3)], 3, &[]).unwrap();
        assert_eq!(history.age(), None);
        history.push(&Observation::missing());
        assert_eq!(history.age(), None);
        for (step, expected) in [
            (1.0, ([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], [10.0, 10.0, 10.0])),
            (2.0, ([1.0, -1.0, 1.0, -1.0, 2.0, -2.0], [10.0, 10.0, 20.0])),
            (3.0, ([1.0, -1.0, 2.0, -2.0, 3.0, -3.0], [10.0, 20.0, 30.0])),
            (4.0, ([2.0, -2.0, 3.0, -3.0, 4.0, -4.0], [20.0, 30.0, 40.0])),
        ] {
            let (state, image) = ([step, -step], [10.0 * step]);
            history.push(&Observation::new().with("image", &image).with("state", &state));
            assert_eq!(stacked(&history), [expected.0.to_vec(), expected.1.to_vec()]);
        }
        history.push(&Observation::missing());
        assert_eq!(stacked(&history), [vec![3.0, -3.0, 4.0, -4.0, 4.0, -4.0], vec![30.0, 40.0, 40.0]]);
        assert_eq!(history.age(), Some(1));
        history.clear();
        let (state, image) = ([7.0, 8.0], [9.0]);
        history.push(&Observation::new().with("image", &image).with("state", &state).age(2));
        assert_eq!(stacked(&history), [vec![7.0, 8.0, 7.0, 8.0, 7.0, 8.0], vec![9.0; 3]]);
        assert_eq!(history.age(), Some(2));
    }

    /// LeRobot's `global_cond` is the state and the environment's state of one step, then those of the next.
    #[test]
    fn a_condition_may_be_made_of_several_arrays_of_each_step() {
        let parts = [("global_cond".to_string(), vec![("state".to_string(), 2), ("environment".to_string(), 1)])];
        let mut history = History::new(&[("global_cond", 6)], 2, &parts).unwrap();
        assert_eq!(history.parts().collect::<Vec<_>>(), [("state", 2), ("environment", 1)]);
        for step in [1.0, 2.0] {
            let (state, environment) = ([step, step + 0.5], [-step]);
            history.push(&Observation::new().with("environment", &environment).with("state", &state));
        }
        assert_eq!(stacked(&history), [[1.0, 1.5, -1.0, 2.0, 2.5, -2.0]]);
    }

    #[test]
    fn what_is_no_observation_is_told() {
        let history = History::new(&[("state", 4), ("image", 2)], 2, &[]).unwrap();
        let told = |observation: Observation, words: &str| {
            let error = history.check(&observation).unwrap_err().to_string();
            assert_eq!(error, words);
        };
        let (state, image) = ([1.0, 2.0], [3.0]);
        history.check(&Observation::new().with("state", &state).with("image", &image)).unwrap();
        history.check(&Observation::missing()).unwrap();
        told(Observation::new().with("state", &state), "the observation lacks image, of 1 numbers");
        let both = || Observation::new().with("state", &state).with("image", &image);
        told(both().with("force", &[0.0]), "nothing called 'force' is observed: give state, image");
        told(both().with("state", &state), "observation: condition state is given twice");
        let image = [f32::NAN];
        let unseen = Observation::new().with("state", &state).with("image", &image);
        told(unseen, "the observation's image must be finite, but element 0 is NaN");
        let image = [0.0; 2];
        let large = Observation::new().with("state", &state).with("image", &image);
        told(large, "the observation's image has 2 numbers, but must have 1");
        told(Observation::missing().with("state", &state), "a missing observation has no array, but 'state' is given");

        let odd = History::new(&[("state", 5)], 2, &[]).err().unwrap().to_string();
        assert!(odd.contains("has 5 numbers, which are not 2 observations"), "{odd}");
        let part = |name: &str, len| [(name.to_string(), vec![("a".to_string(), len)])];
        let odd = History::new(&[("state", 4)], 2, &part("state", 3)).err().unwrap().to_string();
        assert_eq!(odd, "the parts of state have 3 numbers in all, but an observation has 2");
        let odd = History::new(&[("state", 4)], 2, &part("goal", 2)).err().unwrap().to_string();
        assert_eq!(odd, "the model has no condition 'goal' to observe: it has state");
    }
}
