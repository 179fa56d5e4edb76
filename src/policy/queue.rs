//! The plans that are there, and the action of each control step.

/// A plan: actions for the control steps from `anchor` on.
struct Plan {
    /// All of its actions, those of the past included.
    actions: Vec<f32>,
    /// The control step of its action [`first`](Shape::first).
    anchor: i64,
    /// Its number.
    index: u64,
}

/// What plans are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The actions of a plan.
    pub horizon: usize,
    /// The numbers of an action.
    pub width: usize,
    /// Which of its actions is for the control step at which its observation was taken.
    pub first: usize,
}

impl Shape {
    /// The actions of a plan that are not of the past.
    pub fn usable(&self) -> usize {
        self.horizon - self.first
    }
}

/// Where an action comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The number of the latest plan that has a say.
    pub plan: u64,
    /// Which of its actions it is, counted from the one for when its observation was taken.
    pub place: usize,
}

/// The latest plans, and the actions that were carried out.
pub(super) struct Queue {
    shape: Shape,
    /// The coefficient of temporal ensembling, if plans that overlap are averaged.
    ensemble: Option<f64>,
    /// A ring; the memory of plans that are gone is used again.
    plans: Vec<Plan>,
    newest: usize,
    count: usize,
    /// The actions of the latest control steps, by the step modulo the horizon.
    executed: Vec<f32>,
}

impl Queue {
    /// Keeps as many plans as can overlap, where they are averaged and come every `spacing` steps at least; else the latest.
    pub fn new(shape: Shape, ensemble: Option<f64>, spacing: usize) -> Self {
        let most = ensemble.map_or(1, |_| shape.usable().div_ceil(spacing.max(1)) + 1);
        let len = shape.horizon * shape.width;
        let plan = || Plan { actions: vec![0.0; len], anchor: 0, index: 0 };
        let plans = (0..most).map(|_| plan()).collect();
        Queue { shape, ensemble, plans, newest: 0, count: 0, executed: vec![0.0; len] }
    }

    /// Forgets all plans.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Takes a plan, which is later than all before.
    pub fn put(&mut self, actions: &[f32], anchor: i64, index: u64) {
        self.newest = (self.newest + 1) % self.plans.len();
        self.count = (self.count + 1).min(self.plans.len());
        let plan = &mut self.plans[self.newest];
        plan.actions.copy_from_slice(actions);
        (plan.anchor, plan.index) = (anchor, index);
    }

    /// The control steps since the observation of the latest plan; none where there is no plan.
    pub fn since_newest(&self, now: i64) -> Option<i64> {
        self.latest().map(|plan| now - plan.anchor)
    }

    fn latest(&self) -> Option<&Plan> {
        (self.count > 0).then(|| &self.plans[self.newest])
    }

    /// The plans, the latest first.
    fn plans(&self) -> impl DoubleEndedIterator<Item = &Plan> {
        let len = self.plans.len();
        (0..self.count).map(move |back| &self.plans[(self.newest + len - back) % len])
    }

    /// A plan's action for a control step, and its place.
    fn action<'a>(&self, plan: &'a Plan, step: i64) -> Option<(usize, &'a [f32])> {
        let place = usize::try_from(step - plan.anchor).ok().filter(|place| *place < self.shape.usable())?;
        Some((place, &plan.actions[(self.shape.first + place) * self.shape.width..][..self.shape.width]))
    }

    /// Writes the action for a control step, if there is one, and says where it comes from.
    ///
    /// With temporal ensembling (ACT, arXiv 2304.13705) it is the mean of what all plans have for this step, with the weights
    /// exp(-m i), where i counts from the oldest.
    pub fn take(&self, step: i64, out: &mut [f32]) -> Option<Taken> {
        let taken = self.plans().find_map(|plan| {
            let (place, action) = self.action(plan, step)?;
            out.copy_from_slice(action);
            Some(Taken { plan: plan.index, place })
        })?;
        if let Some(coefficient) = self.ensemble {
            let actions = || self.plans().rev().filter_map(|plan| self.action(plan, step)).zip(0..);
            let weight = |i: u32| libm::exp(-coefficient * f64::from(i));
            let sum: f64 = actions().map(|(_, i)| weight(i)).sum();
            for (n, out) in out.iter_mut().enumerate() {
                let mean: f64 = actions().map(|((_, action), i)| weight(i) * f64::from(action[n])).sum();
                *out = (mean / sum) as f32;
            }
        }
        Some(taken)
    }

    /// Notes what was carried out at a control step.
    pub fn note(&mut self, step: i64, action: &[f32]) {
        self.executed_at(step).copy_from_slice(action);
    }

    fn executed_at(&mut self, step: i64) -> &mut [f32] {
        let place = step.rem_euclid(self.shape.horizon as i64) as usize;
        &mut self.executed[place * self.shape.width..][..self.shape.width]
    }

    /// Writes what the actions of a plan from `anchor` on are expected to be at step `now`, before that has an action: those
    /// that were carried out, and what the latest plan has for the rest. Beyond its end its last one stands. Gives how many
    /// are known: none without a plan.
    pub fn expect(&mut self, anchor: i64, now: i64, out: &mut [f32]) -> usize {
        let Shape { horizon, width, first } = self.shape;
        let Some(latest) = self.latest() else { return 0 };
        let (shift, last) = (anchor - latest.anchor, horizon as i64 - 1);
        for (i, out) in (0..).zip(out.chunks_exact_mut(width)) {
            let from = (i + shift).clamp(0, last) as usize;
            out.copy_from_slice(&latest.actions[from * width..][..width]);
        }
        let begin = anchor - first as i64;
        for (step, out) in (begin..now).zip(out.chunks_exact_mut(width)) {
            if step >= 0 && now - step <= horizon as i64 {
                out.copy_from_slice(self.executed_at(step));
            }
        }
        (horizon as i64 - shift).clamp(0, horizon as i64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { horizon: 6, width: 2, first: 1 };

    /// Actions that say which plan and place they are of.
    fn plan(number: f32) -> Vec<f32> {
        (0..SHAPE.horizon).flat_map(|i| [number, i as f32]).collect()
    }

    fn take(queue: &Queue, step: i64) -> Option<([f32; 2], Taken)> {
        let mut out = [f32::NAN; 2];
        queue.take(step, &mut out).map(|taken| (out, taken))
    }

    #[test]
    fn a_step_has_the_latest_plans_action_from_when_its_observation_was_taken() {
        let mut queue = Queue::new(SHAPE, None, 2);
        assert_eq!((take(&queue, 0), queue.since_newest(0)), (None, None));
        queue.put(&plan(1.0), 0, 0);
        // LeRobot's convention: with two observations the first action is of the step before
        assert_eq!(take(&queue, 0), Some(([1.0, 1.0], Taken { plan: 0, place: 0 })));
        assert_eq!(take(&queue, 4), Some(([1.0, 5.0], Taken { plan: 0, place: 4 })));
        assert_eq!(take(&queue, 5), None);
        queue.put(&plan(2.0), 3, 1);
        // it came two steps late, so its first two actions are dropped
        assert_eq!(take(&queue, 5), Some(([2.0, 3.0], Taken { plan: 1, place: 2 })));
        assert_eq!((take(&queue, 2), queue.since_newest(5)), (None, Some(2)));
        queue.clear();
        assert_eq!(take(&queue, 5), None);
    }

    #[test]
    fn plans_that_overlap_are_averaged_the_oldest_weighing_most() {
        let mut queue = Queue::new(SHAPE, Some(0.5), 1);
        (0..3).for_each(|i| queue.put(&plan(f32::from(i as u8)), i, i as u64));
        let [a, b, c] = [1.0, (-0.5f64).exp(), (-1.0f64).exp()];
        let (action, taken) = take(&queue, 2).unwrap();
        let sum = a + b + c;
        // places 3, 2 and 1 of the plans 0, 1 and 2
        let expected = [(b + 2.0 * c) / sum, (3.0 * a + 2.0 * b + c) / sum];
        assert!(action.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{action:?} {expected:?}");
        assert_eq!(taken, Taken { plan: 2, place: 0 });
        // the first has ended
        let (action, _) = take(&queue, 5).unwrap();
        assert!((f64::from(action[0]) - (a + 2.0 * b) / (a + b)).abs() < 1e-6);
        // more than there is room for
        (3..20).for_each(|i| queue.put(&plan(i as f32), i, i as u64));
        assert_eq!(queue.plans().filter_map(|p| queue.action(p, 19)).count(), SHAPE.usable());
    }

    #[test]
    fn a_plan_is_expected_to_go_on_as_the_last_one_does() {
        let mut queue = Queue::new(SHAPE, None, 2);
        let mut out = [f32::NAN; 12];
        assert_eq!(queue.expect(0, 0, &mut out), 0);
        queue.put(&plan(1.0), 0, 0);
        for step in 0..2 {
            queue.note(step, &[9.0, step as f32]);
        }
        assert_eq!(queue.expect(2, 2, &mut out), 4);
        // the step before was carried out; the last one stands for those beyond the end
        assert_eq!(out, [9.0, 1.0, 1.0, 3.0, 1.0, 4.0, 1.0, 5.0, 1.0, 5.0, 1.0, 5.0]);
        // an observation that is a step old
        assert_eq!(queue.expect(1, 2, &mut out), 5);
        assert_eq!(out[..6], [9.0, 0.0, 9.0, 1.0, 1.0, 3.0]);
        assert_eq!(queue.expect(40, 40, &mut out), 0);
    }
}
