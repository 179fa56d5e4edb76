//! Seeded Gaussian noise: the same bits on every machine.
//!
//! Sample `index` of a run draws from a stream of its own that depends on (seed, index) alone, so it is
//! the same whatever the batch, the number of samples, the threads or the machine. The stream first
//! gives x_T, element by element, and then, in the same order, every noise that a stochastic solver
//! adds. Uniform bits come from PCG XSL RR 128/64 (O'Neill 2014), and pairs of normal numbers from the
//! Box–Muller transform in f64 with portable (`libm`) functions, rounded to f32 at the end.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// The stream of standard normal numbers of one sample.
///
/// ```
/// use edgegen::noise::Noise;
///
/// let mut x = [0.0; 4];
/// Noise::new(7, 3).fill(&mut x);
/// let mut again = [0.0; 4];
/// Noise::new(7, 3).fill(&mut again);
/// assert_eq!(x, again);
/// ```
#[derive(Clone, Debug)]
pub struct Noise {
    rng: Pcg64,
    /// The second of a Box–Muller pair, until it is asked for.
    spare: Option<f32>,
}

impl Noise {
    /// The stream of sample `index` of the run with this `seed`.
    pub fn new(seed: u64, index: u64) -> Self {
        // Generators whose states differ by little are correlated at first, so both numbers are
        // scattered over the whole state.
        let mut mix = SplitMix(seed);
        let a = mix.next();
        let mut mix = SplitMix(a ^ index.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let mut wide = || u128::from(mix.next()) << 64 | u128::from(mix.next());
        Noise { rng: Pcg64::new(wide(), wide()), spare: None }
    }

    /// The next normal number.
    #[inline]
    pub fn sample(&mut self) -> f32 {
        if let Some(z) = self.spare.take() {
            return z;
        }
        const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
        // in (0, 1], so that the logarithm is finite
        let u = ((self.rng.next_u64() >> 11) + 1) as f64 * SCALE;
        let v = (self.rng.next_u64() >> 11) as f64 * SCALE;
        let radius = libm::sqrt(-2.0 * libm::log(u));
        let (sin, cos) = libm::sincos(2.0 * std::f64::consts::PI * v);
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
    }

    /// A number from 0 (included) to 1 (not), from the stream's next bits.
    pub fn uniform(&mut self) -> f32 {
        const SCALE: f32 = 1.0 / (1u32 << 24) as f32;
        (self.rng.next_u64() >> 40) as f32 * SCALE
    }

    /// Fills `out` with the stream's next numbers.
    pub fn fill(&mut self, out: &mut [f32]) {
        for x in out {
            *x = self.sample();
        }
    }
}

/// A number below `n`, or 0 if `n` is 0, that depends on (seed, index) alone: the class of a sample for
/// which none was asked. It does not touch the sample's noise.
pub fn choice(seed: u64, index: u64, n: usize) -> usize {
    let mut mix = SplitMix(seed ^ 0x6a09_e667_f3bc_c909);
    let a = mix.next();
    let mut mix = SplitMix(a ^ index.wrapping_mul(0xd1b5_4a32_d192_ed03));
    // the high half of a 64×64-bit product: uniform to within n / 2^64
    ((u128::from(mix.next()) * n as u128) >> 64) as usize
}

/// SplitMix64 (Steele, Lea, Flood 2014): scatters a counter over 64 bits.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, index: u64, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        Noise::new(seed, index).fill(&mut out);
        out
    }

    #[test]
    fn the_moments_are_those_of_a_normal_distribution() {
        let n = 400_000;
        let x = draw(11, 5, n);
        let moment = |p: i32| x.iter().map(|v| f64::from(*v).powi(p)).sum::<f64>() / n as f64;
        // within five standard errors: the variances of x, x², x³, x⁴ are 1, 2, 15, 96
        for (p, expected, variance) in [(1, 0.0, 1.0f64), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let bound = 5.0 * (variance / n as f64).sqrt();
            assert!((moment(p) - expected).abs() < bound, "moment {p}: {} ± {bound}", moment(p));
        }
        let tail = x.iter().filter(|v| v.abs() > 3.0).count() as f64 / n as f64;
        assert!((tail - 0.0027).abs() < 5.0 * (0.0027f64 / n as f64).sqrt(), "beyond 3: {tail}");
    }

    #[test]
    fn neighbouring_streams_are_uncorrelated() {
        let n = 100_000;
        let a = draw(1, 1, n);
        for (seed, index) in [(1, 2), (2, 1), (1, 1 << 32), (3, 0)] {
            let b = draw(seed, index, n);
            let c = a.iter().zip(&b).map(|(a, b)| f64::from(a * b)).sum::<f64>() / n as f64;
            assert!(c.abs() < 5.0 / (n as f64).sqrt(), "({seed}, {index}): {c}");
        }
    }

    #[test]
    fn filling_in_parts_is_filling_at_once() {
        let whole = draw(9, 9, 7);
        let mut noise = Noise::new(9, 9);
        let mut parts = [0.0; 7];
        let (first, rest) = parts.split_at_mut(3);
        noise.fill(first);
        noise.fill(rest);
        assert_eq!(whole, parts);
    }

    #[test]
    fn choices_are_even() {
        let mut counts = [0usize; 10];
        (0..10_000).for_each(|i| counts[choice(42, i, 10)] += 1);
        assert!(counts.iter().all(|c| (850..1150).contains(c)), "{counts:?}");
        assert_eq!(choice(1, 1, 0), 0);
    }
}
