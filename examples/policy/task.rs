//! The task: a round end effector pushes a disc to the middle of a table.
//!
//! Pushing is quasi-static and without friction between the two: where they would overlap, the disc is moved out along
//! the line between the centres. A disc pushed off its centre line turns away, so one has to keep correcting. All is
//! computed with `+ - * / √` alone, which are the same bits on every machine.

use std::ops::{Add, Mul, Sub};

/// A point or a direction on the table. The goal is at the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct V {
    pub x: f32,
    pub y: f32,
}

impl V {
    pub fn dot(self, o: V) -> f32 {
        self.x * o.x + self.y * o.y
    }

    /// Positive where `o` is counter-clockwise of this.
    pub fn cross(self, o: V) -> f32 {
        self.x * o.y - self.y * o.x
    }

    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// The direction, or that of x for the origin.
    pub fn unit(self) -> V {
        let length = self.length();
        if length > 0.0 { self * (1.0 / length) } else { V { x: 1.0, y: 0.0 } }
    }

    /// Turned counter-clockwise by an angle of this cosine and sine.
    pub fn turned(self, cos: f32, sin: f32) -> V {
        V { x: cos * self.x - sin * self.y, y: sin * self.x + cos * self.y }
    }
}

impl Add for V {
    type Output = V;
    fn add(self, o: V) -> V {
        V { x: self.x + o.x, y: self.y + o.y }
    }
}

impl Sub for V {
    type Output = V;
    fn sub(self, o: V) -> V {
        V { x: self.x - o.x, y: self.y - o.y }
    }
}

impl Mul<f32> for V {
    type Output = V;
    fn mul(self, k: f32) -> V {
        V { x: self.x * k, y: self.y * k }
    }
}

/// The disc's radius.
pub const DISC: f32 = 0.15;
/// The end effector's.
pub const EFFECTOR: f32 = 0.06;
/// The distance of their centres in contact.
pub const CONTACT: f32 = DISC + EFFECTOR;
/// How far the end effector moves in a step (of a tenth of a second) at most.
pub const REACH: f32 = 0.08;
/// How near to the goal the disc's centre must come.
pub const TOLERANCE: f32 = 0.05;
/// The steps after which an episode has failed.
pub const STEPS: usize = 100;

/// Where everything is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    pub effector: V,
    pub disc: V,
}

impl State {
    /// A start from numbers in [0, 1): the disc 0.35 to 0.8 from the goal, the end effector anywhere but on it.
    pub fn start(mut uniform: impl FnMut() -> f32) -> State {
        let mut within = |side: f32| V { x: (2.0 * uniform() - 1.0) * side, y: (2.0 * uniform() - 1.0) * side };
        let disc = loop {
            let disc = within(0.8);
            if (0.35..0.8).contains(&disc.length()) {
                break disc;
            }
        };
        let effector = loop {
            let effector = within(1.0);
            if (effector - disc).length() > CONTACT + 0.05 {
                break effector;
            }
        };
        State { effector, disc }
    }

    /// One step towards `target`, in parts small enough that nothing is passed through.
    pub fn step(&mut self, target: V) {
        let way = target - self.effector;
        let length = way.length();
        let way = if length > REACH { way * (REACH / length) } else { way };
        const PARTS: usize = 4;
        for _ in 0..PARTS {
            self.effector = self.effector + way * (1.0 / PARTS as f32);
            let apart = self.disc - self.effector;
            if apart.length() < CONTACT {
                self.disc = self.effector + apart.unit() * CONTACT;
            }
        }
    }

    pub fn is_done(&self) -> bool {
        self.disc.length() < TOLERANCE
    }

    /// What a policy sees of one moment.
    pub fn observation(&self) -> [f32; 4] {
        [self.effector.x, self.effector.y, self.disc.x, self.disc.y]
    }
}
