//! Runs that must agree with what is known of the sample.
//!
//! A [`Constraint`] sits in the evaluation, between the network's prediction and the solver's linear
//! combination: it may change the sample that the network is about to see, and the estimate of the clean
//! sample that comes back, which the estimate of ε then follows. It is handed to a run in
//! [`Control`](crate::sampler::Control) and works with every fixed-step solver and samples of any shape: pixels
//! of a picture or the first actions of a plan.
//!
//! - [`Replacement`] overwrites what is known of the noisy sample (arXiv 2011.13456, appendix I.2), which, with
//!   [`Resample`](crate::solver::Resample), is RePaint (arXiv 2201.09865).
//! - [`NullSpace`] makes the estimate of the clean sample agree with a measurement `y = A x + n` (DDNM, arXiv
//!   2212.00490): masks, box down-sampling, grey-scale, noise.
//! - [`Guidance`] draws the estimate towards known values with a weight for each (ΠGDM; real-time chunking of actions).
//! - [`Prefix`] gives a network that takes a time for each token the first of them clean (real-time chunking that a network
//!   was trained for).
//!
//! To start from a given sample rather than from noise (SDEdit, arXiv 2108.01073; the warm start of a plan), see
//! [`Start`](crate::schedule::Start).

mod guidance;
mod prefix;

pub use guidance::{Guidance, Jacobian};
pub use prefix::Prefix;

use crate::noise::Noise;
use crate::schedule::Level;
use crate::{Error, ErrorKind, Result};

/// What is known of a sample, put in at every evaluation. All methods but [`len`](Constraint::len) do nothing
/// unless they are written.
#[allow(clippy::len_without_is_empty, reason = "no sample is empty")]
pub trait Constraint {
    /// The number of elements of the samples that this is for.
    fn len(&self) -> usize;

    /// Changes the noisy sample `x` that the network is about to see at `level`. Randomness comes from `noise`,
    /// the sample's own stream, so that the run can be repeated.
    fn enter(&mut self, _level: Level, _x: &mut [f32], _noise: &mut Noise) {}

    /// How many of the sample's first rows are clean: the network is told so, if it takes a time for each (see
    /// [`Network::hold_clean`](crate::Network::hold_clean)), with the level of a clean sample.
    fn clean(&self) -> (usize, Level) {
        (0, Level::CLEAN)
    }

    /// Asks for the estimate at a second sample near `x`, before [`correct`](Self::correct) is called: to see how `x0`, the
    /// estimate at `x`, changes on the way there. Costs a network call more.
    fn probe(&mut self, _level: Level, _x: &[f32], _x0: &[f32]) -> Option<Probe<'_>> {
        None
    }

    /// Changes the estimate of the clean sample that was made at `level`, after thresholding.
    fn correct(&mut self, _level: Level, _x0: &mut [f32]) {}

    /// Changes what a run ends with, its last step taken or not.
    fn finish(&mut self, _x0: &mut [f32]) {}
}

/// A second sample that a [`Constraint`] wants to see the estimate at.
pub struct Probe<'a> {
    /// The noisy sample.
    pub x: &'a [f32],
    /// Where the estimate of its clean sample goes.
    pub x0: &'a mut [f32],
}

/// Inpainting by replacement: before each evaluation the known elements of the noisy sample are overwritten by
/// `γ y + σ z` with fresh z, and in the result by y itself.
///
/// The unknown elements only see the known ones through the network, so at their borders they may not fit;
/// [`Resample`](crate::solver::Resample) lets them settle.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement {
    values: Vec<f32>,
    known: Vec<bool>,
}

impl Replacement {
    /// Keeps those elements of `values` that are `known`.
    ///
    /// # Errors
    /// When the two are not of one length, or a known value is not finite.
    pub fn new(values: &[f32], known: &[bool]) -> Result<Self> {
        if values.len() != known.len() {
            return Err(Error::invalid(format!(
                "a mask of {} elements does not fit a sample of {}",
                known.len(),
                values.len()
            )));
        }
        let pairs = values.iter().zip(known).enumerate();
        check_finite(pairs.filter(|(_, (_, known))| **known).map(|(i, (v, _))| (i, *v)))?;
        Ok(Replacement { values: values.to_vec(), known: known.to_vec() })
    }

    /// Keeps the first `known` of `values`, in the same memory; the caller sees that there are as many and that they are finite.
    #[cfg(feature = "onnx")]
    pub(crate) fn set_first(&mut self, values: &[f32], known: usize) {
        self.values.copy_from_slice(values);
        self.known.iter_mut().enumerate().for_each(|(i, k)| *k = i < known);
    }

    fn known(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.values.iter().copied().enumerate().filter(|(i, _)| self.known[*i])
    }
}

impl Constraint for Replacement {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn enter(&mut self, level: Level, x: &mut [f32], noise: &mut Noise) {
        let (gamma, sigma) = (level.gamma as f32, level.sigma as f32);
        self.known().for_each(|(i, v)| x[i] = gamma * v + sigma * noise.sample());
    }

    fn finish(&mut self, x0: &mut [f32]) {
        self.known().for_each(|(i, v)| x0[i] = v);
    }
}

fn check_finite(values: impl IntoIterator<Item = (usize, f32)>) -> Result<()> {
    match values.into_iter().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((i, v)) => Err(Error::new(
            ErrorKind::NotFinite,
            format!("what is known of a sample must be finite, but element {i} is {v}"),
        )),
    }
}

/// A linear degradation `y = A x` whose pseudo-inverse is known: each number measured is a weighted sum of a group
/// of elements, no element is in two groups, and all groups have the same Σ weight².
#[derive(Clone, Debug, PartialEq)]
pub struct Degradation {
    /// The group of each element, [`UNSEEN`] if it has none.
    group: Vec<u32>,
    /// Its weight in the group.
    weight: Vec<f32>,
    /// Σ weight² of each group: the square of every singular value of A.
    power: f32,
    /// The shape of y.
    shape: Vec<usize>,
}

/// Not measured.
const UNSEEN: u32 = u32::MAX;

/// The share of red, green and blue in the brightness of a colour (ITU-R BT.709), as in
/// [`DynamicImage::to_luma8`](https://docs.rs/image/latest/image/enum.DynamicImage.html#method.to_luma8).
pub const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];

impl Degradation {
    /// Nothing but noise: `y = x`, for samples of `shape`.
    pub fn identity(shape: &[usize]) -> Self {
        let len = shape.iter().product::<usize>();
        Degradation { group: (0..len as u32).collect(), weight: vec![1.0; len], power: 1.0, shape: shape.to_vec() }
    }

    /// Some elements are measured and others not: y is a sample of `shape` as well, of which the elements that
    /// are not `known` have no meaning.
    ///
    /// # Errors
    /// When the mask does not fit the shape.
    pub fn mask(shape: &[usize], known: &[bool]) -> Result<Self> {
        let mut all = Self::identity(shape);
        if known.len() != all.group.len() {
            return Err(Error::invalid(format!(
                "a mask of {} elements does not fit a sample of {}",
                known.len(),
                all.group.len()
            )));
        }
        all.group.iter_mut().zip(known).filter(|(_, known)| !**known).for_each(|(g, _)| *g = UNSEEN);
        Ok(all)
    }

    /// A picture of `shape` (`[C, H, W]`) made smaller: each number measured is the mean of `factor × factor`
    /// pixels.
    ///
    /// # Errors
    /// When the factor does not divide the height and the width.
    pub fn box_average(shape: &[usize], factor: usize) -> Result<Self> {
        let [channels, height, width] = picture(shape)?;
        if factor == 0 || height % factor != 0 || width % factor != 0 {
            return Err(Error::invalid(format!(
                "a picture of {width}x{height} cannot be made of boxes of {factor}x{factor}: both sides must be multiples of the factor"
            )));
        }
        let small = [channels, height / factor, width / factor];
        let group = |i: usize| {
            let (c, y, x) = (i / (height * width), i / width % height, i % width);
            ((c * small[1] + y / factor) * small[2] + x / factor) as u32
        };
        let (len, weight) = (channels * height * width, 1.0 / (factor * factor) as f32);
        let group = (0..len).map(group).collect();
        Ok(Degradation { group, weight: vec![weight; len], power: weight, shape: small.to_vec() })
    }

    /// A picture of `shape` `[3, H, W]` without its colours: y is `[1, H, W]`, weighted by [`LUMA`].
    ///
    /// # Errors
    /// When the picture does not have three channels.
    pub fn grey(shape: &[usize]) -> Result<Self> {
        let [3, height, width] = picture(shape)? else {
            return Err(Error::invalid(format!("only pictures of three channels can be coloured, not {shape:?}")));
        };
        let plane = height * width;
        let group = (0..3).flat_map(|_| 0..plane as u32).collect();
        let weight = LUMA.iter().flat_map(|w| std::iter::repeat_n(*w, plane)).collect();
        Ok(Degradation { group, weight, power: LUMA.map(|w| w * w).iter().sum(), shape: vec![1, height, width] })
    }

    /// The number of elements of x.
    #[allow(clippy::len_without_is_empty, reason = "no sample is empty")]
    pub fn len(&self) -> usize {
        self.group.len()
    }

    /// The shape of y.
    pub fn measured_shape(&self) -> &[usize] {
        &self.shape
    }

    /// `y = A x`; what is not measured is 0.
    ///
    /// # Panics
    /// When `x` is not of [`len`](Self::len).
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; self.shape.iter().product()];
        assert_eq!(x.len(), self.group.len());
        self.seen().for_each(|(i, g)| y[g] += self.weight[i] * x[i]);
        y
    }

    /// `x = A⁺ y`, the least x with `A x = y`; what is not measured is 0.
    ///
    /// # Panics
    /// When `y` is not of the [shape measured](Self::measured_shape).
    pub fn pseudo_inverse(&self, y: &[f32]) -> Vec<f32> {
        let mut x = vec![0.0; self.group.len()];
        assert_eq!(y.len(), self.shape.iter().product::<usize>());
        self.seen().for_each(|(i, g)| x[i] = self.weight[i] / self.power * y[g]);
        x
    }

    /// The elements that are measured, with their groups.
    fn seen(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.group.iter().enumerate().filter(|(_, g)| **g != UNSEEN).map(|(i, g)| (i, *g as usize))
    }
}

fn picture(shape: &[usize]) -> Result<[usize; 3]> {
    shape.try_into().map_err(|_| Error::invalid(format!("samples of shape {shape:?} are not pictures, [C, H, W]")))
}

/// Null-space projection (DDNM, arXiv 2212.00490, eq. 13): with a measurement `y = A x + n`, the estimate of the
/// clean sample becomes `x_0 + w A⁺ (y - A x_0)`. Without noise w is 1, and the result agrees with y exactly.
///
/// With noise of standard deviation `σ_y` in each number measured, w is the weight that Bayes' rule gives, as in
/// ΠGDM (Song et al., ICLR 2023, eq. 7): `s² r² / (s² r² + σ_y²)`, with s the singular value of A and r² how
/// uncertain the estimate is at this level. `s² r² + σ_y²` is the mean square of `y - A x_0`, so r² is read off
/// there at every step instead of being assumed. (DDNM+ lowers w instead once the sample's own noise is below
/// σ_y, and takes as much noise out of the solver's, which ties it to one solver.)
#[derive(Clone, Debug, PartialEq)]
pub struct NullSpace {
    degradation: Degradation,
    measured: Vec<f32>,
    noise: f32,
    /// y - A x_0.
    residual: Vec<f32>,
    /// How many numbers are measured.
    count: usize,
}

impl NullSpace {
    /// The measurement `measured` of a sample, with noise of standard deviation `noise` in each number, in the
    /// units of the samples; 0 where there is none.
    ///
    /// # Errors
    /// When the measurement does not fit the degradation, measures nothing or is not finite, or the noise is
    /// negative or not finite.
    pub fn new(degradation: Degradation, measured: &[f32], noise: f32) -> Result<Self> {
        let len: usize = degradation.shape.iter().product();
        if measured.len() != len {
            return Err(Error::invalid(format!(
                "the measurement must have {len} numbers, of shape {:?}, but has {}",
                degradation.shape,
                measured.len()
            )));
        }
        if !(noise >= 0.0 && noise.is_finite()) {
            return Err(Error::invalid(format!("the noise of a measurement must be 0 or more, not {noise}")));
        }
        check_finite(degradation.seen().map(|(_, g)| (g, measured[g])))?;
        let mut seen = vec![false; len];
        degradation.seen().for_each(|(_, g)| seen[g] = true);
        let count = seen.iter().filter(|s| **s).count();
        if count == 0 {
            return Err(Error::invalid("nothing is known of the sample: the mask leaves nothing"));
        }
        // what is not measured must not count
        let measured = measured.iter().zip(&seen).map(|(y, seen)| if *seen { *y } else { 0.0 }).collect();
        Ok(NullSpace { degradation, measured, noise, residual: vec![0.0; len], count })
    }

    fn project(&mut self, x0: &mut [f32]) {
        self.residual.copy_from_slice(&self.measured);
        let Degradation { weight, power, .. } = &self.degradation;
        self.degradation.seen().for_each(|(i, g)| self.residual[g] -= weight[i] * x0[i]);
        let w = if self.noise == 0.0 {
            1.0
        } else {
            let square: f64 = self.residual.iter().map(|r| f64::from(*r).powi(2)).sum();
            let noise = f64::from(self.noise).powi(2) * self.count as f64;
            // of a measurement more exact than its noise should be, nothing is to be learnt
            if square > noise { (1.0 - noise / square) as f32 } else { 0.0 }
        };
        let scale = w / power;
        self.degradation.seen().for_each(|(i, g)| x0[i] += scale * weight[i] * self.residual[g]);
    }
}

impl Constraint for NullSpace {
    fn len(&self) -> usize {
        self.degradation.len()
    }

    fn correct(&mut self, _level: Level, x0: &mut [f32]) {
        self.project(x0);
    }

    fn finish(&mut self, x0: &mut [f32]) {
        if self.noise == 0.0 {
            self.project(x0);
        }
    }
}
