//! How a plan is joined to the last one.

use crate::constraint::{Constraint, Guidance, Jacobian, Prefix, Replacement};
use crate::model::Normalizer;
use crate::schedule::Level;
use crate::{Error, Result};

/// How a new plan is joined to the last one, whose actions are carried out while it is made.
///
/// With the delay d, the control steps that a plan takes to be there, its first d actions come too late in any case and are
/// dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Joint {
    /// Not at all: it is made of the observations alone.
    #[default]
    Switch,
    /// By inpainting: those of its actions that the last plan decides, the first d, are put into the noisy plan at every
    /// step ([`Replacement`]).
    Inpaint,
    /// By real-time chunking: see [`Chunking`].
    Chunk(Chunking),
    /// By real-time chunking as a network was trained for it (arXiv 2512.05964): the first d actions are given to it clean,
    /// with the time that says so ([`Prefix`]). For networks that take a time for each action; costs nothing. Of more actions
    /// than the network was [trained with](crate::model::Metadata::prefix), the first so many are given.
    Prefix,
}

/// Real-time chunking (arXiv 2506.07339): each step of sampling is guided towards the last plan's actions, with weight 1 for
/// those d that are carried out meanwhile, and a weight that falls to 0 where the last plan's new actions begin. So a plan
/// may change what comes, but begins as the last one goes on.
///
/// The paper takes the derivative of the network by automatic differentiation, which there is none of here:
/// [`Jacobian`] has what is done instead, and docs/policy.md what that changes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Chunking {
    /// β, the greatest weight of the guidance: 5 in the paper and unless it is changed. Above 0.
    pub most: f64,
    /// How the derivative of the network is had.
    pub jacobian: Jacobian,
}

impl Default for Chunking {
    fn default() -> Self {
        Chunking { most: 5.0, jacobian: Jacobian::default() }
    }
}

impl Joint {
    /// Real-time chunking with the paper's β.
    pub fn chunk(jacobian: Jacobian) -> Self {
        Joint::Chunk(Chunking { jacobian, ..Chunking::default() })
    }
}

/// The paper's weight of action `i` of a plan (eq. 5): 1 for the first `frozen`, 0 from `known` on, and exponentially less and
/// less between them.
fn weight(i: usize, frozen: usize, known: usize) -> f32 {
    if i < frozen {
        1.0
    } else if i >= known {
        0.0
    } else {
        let c = (known - i) as f64 / (known - frozen + 1) as f64;
        (c * libm::expm1(c) / libm::expm1(1.0)) as f32
    }
}

/// What holds a new plan to the last one, in memory made once.
pub(super) struct Join {
    /// The numbers of an action.
    width: usize,
    values: Vec<f32>,
    weights: Vec<f32>,
    /// The most actions that the network was trained to be given clean.
    longest: usize,
    kind: Kind,
}

enum Kind {
    Switch,
    Inpaint(Replacement),
    Chunk(Guidance),
    Prefix(Prefix),
}

impl Join {
    /// For plans of so many actions of so many numbers, whose network knows `clean` for the level without noise, and was trained
    /// with at most `longest` actions of it.
    ///
    /// # Errors
    /// When β is out of its range.
    pub fn new(joint: Joint, (horizon, width): (usize, usize), longest: usize, clean: Level) -> Result<Self> {
        let zeros = vec![0.0; horizon * width];
        let kind = match joint {
            Joint::Switch => Kind::Switch,
            Joint::Inpaint => Kind::Inpaint(Replacement::new(&zeros, &vec![false; zeros.len()])?),
            Joint::Prefix => Kind::Prefix(Prefix::new(&zeros, width, 0, clean)?),
            Joint::Chunk(Chunking { most, jacobian }) => {
                let guidance = Guidance::new(&zeros, &zeros, most, jacobian);
                Kind::Chunk(guidance.map_err(|e: Error| e.context("real-time chunking"))?)
            }
        };
        Ok(Join { width, values: zeros.clone(), weights: zeros, longest, kind })
    }

    /// What a new plan is to agree with: `last`, of which `known` actions are known and `frozen` will be carried out before it
    /// is there, in the units of the data. None where it is held to nothing.
    ///
    /// # Errors
    /// When the last plan is not finite.
    pub fn to(
        &mut self,
        last: &[f32],
        (frozen, known): (usize, usize),
        normalizer: &Normalizer,
    ) -> Result<Option<&mut dyn Constraint>> {
        let frozen = frozen.min(known);
        if known == 0 {
            return Ok(None);
        }
        self.values.copy_from_slice(last);
        normalizer.normalize(&mut self.values);
        match &mut self.kind {
            Kind::Switch => Ok(None),
            Kind::Inpaint(_) | Kind::Prefix(_) if frozen == 0 => Ok(None),
            Kind::Prefix(prefix) => {
                prefix.set(&self.values, frozen.min(self.longest))?;
                Ok(Some(prefix))
            }
            Kind::Inpaint(replacement) => {
                replacement.set_first(&self.values, frozen * self.width);
                Ok(Some(replacement))
            }
            Kind::Chunk(guidance) => {
                for (i, weights) in self.weights.chunks_exact_mut(self.width).enumerate() {
                    weights.fill(weight(i, frozen, known));
                }
                guidance.set(&self.values, &self.weights)?;
                Ok(Some(guidance))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 3 of the paper: H = 16, d = 4, s = 5.
    #[test]
    fn the_mask_is_the_papers() {
        let (horizon, d, s) = (16, 4, 5);
        let all: Vec<f32> = (0..horizon).map(|i| weight(i, d, horizon - s)).collect();
        assert_eq!(all[..4], [1.0; 4]);
        assert_eq!(all[11..], [0.0; 5]);
        for (i, weight) in all.iter().enumerate().take(11).skip(4) {
            let c = (horizon - s - i) as f64 / (horizon - s - d + 1) as f64;
            let expected = c * (c.exp() - 1.0) / (1f64.exp() - 1.0);
            assert!((f64::from(*weight) - expected).abs() < 1e-7, "{i}: {weight}");
        }
        assert!(all.windows(2).all(|w| w[1] <= w[0]));
        // all are frozen, or none is known
        assert_eq!([weight(3, 4, 4), weight(4, 4, 4), weight(0, 0, 0)], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_plan_is_held_to_what_is_known_of_it_alone() {
        let (last, plain) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], Normalizer::default());
        for joint in [Joint::Switch, Joint::Inpaint, Joint::chunk(Jacobian::Difference), Joint::Prefix] {
            let mut join = Join::new(joint, (3, 2), 3, Level::CLEAN).unwrap();
            assert!(join.to(&last, (1, 0), &plain).unwrap().is_none(), "{joint:?}");
            assert_eq!(join.to(&last, (1, 2), &plain).unwrap().is_none(), joint == Joint::Switch);
        }
        let mut join = Join::new(Joint::Inpaint, (3, 2), 3, Level::CLEAN).unwrap();
        let mut plan = [0.0; 6];
        join.to(&last, (2, 3), &plain).unwrap().unwrap().finish(&mut plan);
        assert_eq!(plan, [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]);
        // there cannot be more frozen than is known
        let mut plan = [0.0; 6];
        join.to(&last, (3, 1), &plain).unwrap().unwrap().finish(&mut plan);
        assert_eq!(plan, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        // nor more than the network was trained with
        let mut join = Join::new(Joint::Prefix, (3, 2), 1, Level::CLEAN).unwrap();
        assert_eq!(join.to(&last, (2, 3), &plain).unwrap().unwrap().clean().0, 1);
        let wrong = Joint::Chunk(Chunking { most: -1.0, ..Chunking::default() });
        let error = Join::new(wrong, (3, 2), 3, Level::CLEAN).err().unwrap().to_string();
        assert_eq!(error, "real-time chunking: the greatest guidance weight must be a number above 0, not -1");
    }
}
