//! What a noise level is made of: how γ and σ follow from their ratio.

use super::level::Level;

/// A noise path: which (γ, σ) of `x = γ x_0 + σ ε` have the noise-to-signal ratio `s = σ/γ`.
///
/// A path is a stochastic differential equation `dx = f(t) x dt + g(t) dW`, whose f and g are those of γ and σ:
/// `f = d ln γ/dt` and `g² = dσ²/dt - 2 f σ²`. In the time `λ = ln(γ/σ)`, which falls as noise is added, g² is 2σ² for
/// every path, and f alone tells them apart. The three instances are the same distributions in different units:
/// at one s a sample of one path is that of another, times the ratio of their γ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Path {
    /// γ² + σ² = 1, as in DDPM: `f = -½ β`, `g² = β`.
    #[default]
    VariancePreserving,
    /// Rectified flow (arXiv 2209.03003, 2210.02747): γ = 1 - σ, straight lines from noise to data.
    RectifiedFlow,
    /// γ = 1, as in EDM and score matching with Langevin dynamics: `f = 0`, `g² = dσ²/dt`.
    VarianceExploding,
}

impl Path {
    /// The level whose noise is `s` times its signal, from 0 to ∞; for [`Path::VarianceExploding`] below that.
    pub fn level(self, time: f64, s: f64) -> Level {
        match self {
            Path::VariancePreserving => Level::from_edm_sigma(time, s),
            // 1/s is ∞ at the clean end, and s is at the other
            Path::RectifiedFlow => Level { time, gamma: 1.0 / (1.0 + s), sigma: 1.0 / (1.0 + 1.0 / s) },
            Path::VarianceExploding => Level { time, gamma: 1.0, sigma: s },
        }
    }

    /// f in the time λ, `d ln γ/dλ`, over σ. The probability-flow ODE is `dx/dλ = f x - σ ε`.
    pub(crate) fn drift_over_sigma(self, level: Level) -> f64 {
        match self {
            Path::VariancePreserving => level.sigma,
            Path::RectifiedFlow => 1.0,
            Path::VarianceExploding => 0.0,
        }
    }

    /// The standard deviation of x where that of the data is 1.
    pub(crate) fn spread(self, level: Level) -> f64 {
        match self {
            Path::VariancePreserving => 1.0,
            _ => libm::hypot(level.gamma, level.sigma),
        }
    }

    /// What x is divided by, and what is counted by, where the probability-flow ODE is followed by a Runge–Kutta or
    /// Adams method: `z = x/κ` as a function of p, for which `dz/dp = (z - x_0)/p`.
    ///
    /// That is y = x/γ over s, where the ODE is `dy/ds = ε`; but for a rectified flow x itself over σ, where it is
    /// `dx/dσ = ε - x_0`, which needs no signal to start from.
    pub(crate) fn coordinates(self, level: Level) -> Coordinates {
        match self {
            Path::RectifiedFlow => Coordinates { scale: level.gamma + level.sigma, place: level.sigma },
            _ => Coordinates { scale: level.gamma, place: level.edm_sigma() },
        }
    }

    /// The s of the level at the place p.
    pub(crate) fn ratio_at(self, place: f64) -> f64 {
        if self == Path::RectifiedFlow { place / (1.0 - place) } else { place }
    }

    /// The part of x_0 in `dz/dp`, beside ε.
    pub(crate) fn slope_of_x0(self) -> f64 {
        if self == Path::RectifiedFlow { -1.0 } else { 0.0 }
    }

    /// The variance of x at `from` given x at `to`, where there is less noise: a DDPM step's β.
    pub(crate) fn added_variance(self, from: Level, to: Level) -> f64 {
        let kept = (from.gamma / to.gamma).powi(2);
        match self {
            Path::VariancePreserving => 1.0 - kept,
            _ => from.sigma.powi(2) - kept * to.sigma.powi(2),
        }
    }
}

/// Where a level lies on the path that a Runge–Kutta method follows: see [`Path::coordinates`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coordinates {
    /// κ.
    pub scale: f64,
    /// p.
    pub place: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [Path; 3] = [Path::VariancePreserving, Path::RectifiedFlow, Path::VarianceExploding];

    #[test]
    fn levels_have_the_ratio_that_they_are_asked_for() {
        for path in PATHS {
            for s in [1e-9, 0.01, 1.0, 37.0, 1e9] {
                let level = path.level(0.0, s);
                assert!((level.edm_sigma() / s - 1.0).abs() < 1e-12, "{path:?} at {s}");
            }
        }
        let [clean, noise] = [0.0, f64::INFINITY].map(|s| Path::RectifiedFlow.level(0.0, s));
        assert_eq!([clean.gamma, clean.sigma, noise.gamma, noise.sigma], [1.0, 0.0, 0.0, 1.0]);
    }

    /// f and g of each path, from γ and σ by differences.
    #[test]
    fn each_path_is_its_stochastic_differential_equation() {
        for path in PATHS {
            for lambda in [-3.0f64, -0.5, 0.0, 2.0] {
                let h = 1e-5;
                let [before, now, after] = [lambda - h, lambda, lambda + h].map(|l| path.level(0.0, (-l).exp()));
                let f = (after.gamma.ln() - before.gamma.ln()) / (2.0 * h);
                assert!((path.drift_over_sigma(now) * now.sigma - f).abs() < 1e-8, "{path:?} at {lambda}");
                // noise is added as λ falls
                let of_sigma = (after.sigma.powi(2) - before.sigma.powi(2)) / (2.0 * h);
                let g2 = -(of_sigma - 2.0 * f * now.sigma.powi(2));
                assert!((g2 / (2.0 * now.sigma.powi(2)) - 1.0).abs() < 1e-6, "{path:?} at {lambda}");
                // and a step's variance is g² over its time
                let step = path.added_variance(before, now);
                assert!((step / h / (2.0 * now.sigma.powi(2)) - 1.0).abs() < 1e-3, "{path:?} at {lambda}: {step}");
            }
        }
    }
}
