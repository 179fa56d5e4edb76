//! The scripted expert: around the disc on one side or the other, until behind it, then push.

use crate::task::{CONTACT, STEPS, State, V};
use edgegen::noise::Noise;

/// What the expert goes by within an episode.
pub struct Expert {
    /// The side on which it goes around: 1 counter-clockwise, -1 clockwise.
    side: f32,
    pushing: bool,
}

/// The circle around the disc on which it is passed.
const ORBIT: f32 = CONTACT + 0.06;
/// Cosine and sine of the angle that is gone along it in a step.
const ARC: (f32, f32) = (0.96, 0.28);

impl Expert {
    /// The expert of an episode. Where it starts before the disc both sides are as good, and `coin` decides.
    pub fn new(state: &State, coin: f32) -> Self {
        let (from_disc, behind) = directions(state);
        let shorter = if from_disc.cross(behind) >= 0.0 { 1.0 } else { -1.0 };
        let is_open = from_disc.dot(behind) < -0.3;
        let side = if is_open { if coin < 0.5 { 1.0 } else { -1.0 } } else { shorter };
        Expert { side, pushing: false }
    }

    /// Where the end effector should go next.
    pub fn act(&mut self, state: &State) -> V {
        let (from_disc, behind) = directions(state);
        let (cos, sin) = (from_disc.dot(behind), self.side * from_disc.cross(behind));
        let distance = (state.effector - state.disc).length();
        if cos > 0.97 || (self.pushing && cos > 0.9) {
            self.pushing = true;
            // to where the disc, pushed out along the line of the centres, comes nearer to the goal
            let push = state.disc.length().min(0.06);
            return state.disc + behind * (CONTACT - push);
        }
        if self.pushing {
            self.pushing = false;
            self.side = if from_disc.cross(behind) >= 0.0 { 1.0 } else { -1.0 };
            return self.act(state);
        }
        // along the tangent while far away, along the circle once there, and not past the point behind
        let tangent = if distance > ORBIT {
            let cos = ORBIT / distance;
            (cos, (1.0 - cos * cos).sqrt())
        } else {
            (1.0, 0.0)
        };
        let (turn_cos, turn_sin) = if tangent.0 < ARC.0 { tangent } else { ARC };
        let towards =
            if sin > 0.0 && cos > turn_cos { behind } else { from_disc.turned(turn_cos, self.side * turn_sin) };
        state.disc + towards * ORBIT
    }
}

/// From the disc to the end effector, and from it to the point behind it as seen from the goal.
fn directions(state: &State) -> (V, V) {
    ((state.effector - state.disc).unit(), state.disc.unit())
}

/// A demonstration: observation and action of every moment, until the disc is there.
pub type Demonstration = Vec<([f32; 4], V)>;

/// Demonstration `index`. The hand trembles by `tremble`, and what is recorded is what it should have done, so that
/// demonstrations show how one gets back (arXiv 1703.09327).
pub fn demonstrate(seed: u64, index: u64, tremble: f32) -> Demonstration {
    let mut random = Noise::new(seed, index);
    let mut state = State::start(|| random.uniform());
    let mut expert = Expert::new(&state, random.uniform());
    let mut seen = Vec::new();
    while !state.is_done() && seen.len() < STEPS {
        let action = expert.act(&state);
        seen.push((state.observation(), action));
        state.step(action + V { x: random.sample(), y: random.sample() } * tremble);
    }
    seen
}
