//! What a configuration comes to, for what reads it.

/// A range of noise levels in σ/γ, to be put in place of a configuration's: what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sigmas {
    /// The least σ.
    pub min: Option<f64>,
    /// The greatest σ.
    pub max: Option<f64>,
    /// Karras's ρ (arXiv 2206.00364, eq. 5).
    pub rho: Option<f64>,
}

/// What is done to the estimate of the clean sample after each evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Threshold {
    /// Nothing.
    #[default]
    None,
    /// It is clipped to ± this bound, which is positive.
    Static(f64),
    /// Dynamic thresholding (arXiv 2205.11487, section 2.3): with s the given quantile of |x_0|, but from
    /// 1 to `max`, x_0 is clipped to ±s and divided by s.
    Dynamic {
        /// Which quantile, in (0, 1].
        ratio: f64,
        /// The most that s may be, at least 1.
        max: f64,
    },
}

/// What the network of a rectified flow calls its times.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FlowTime {
    /// σ, times this: time runs from data to noise.
    Noise(f64),
    /// 1 - σ, times this: time runs from noise to data.
    Signal(f64),
}

/// How a network takes the noise level, and what its prediction is of: for [`Preconditioned`], the one place where
/// samples are scaled for networks that take σ. The samplers know such a network as its denoiser `D(y; σ)`, where
/// `y = x/γ` and σ stands for σ/γ (arXiv 2206.00364, eq. 7: `D(y; σ) = c_skip y + c_out F(c_in y, c_noise)` with
/// `c_in = 1/√(σ² + σ_data²)` and F the network).
///
/// [`Preconditioned`]: crate::network::Preconditioned
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Preconditioning {
    /// It takes x and the time of a schedule of β, as they are.
    #[default]
    None,
    /// It is D itself: it takes y and σ.
    Denoiser,
    /// EDM's: `c_skip = σ_data²/(σ² + σ_data²)`, `c_out = ±σ σ_data/√(σ² + σ_data²)`, `c_noise = ln(σ)/4`.
    Edm {
        /// The data's standard deviation.
        sigma_data: f64,
        /// Whether c_out is negative: diffusers' `v_prediction`.
        negative: bool,
    },
    /// It takes y and σ, and gives the score of y's density ([`PredictionType::Score`](crate::config::PredictionType::Score)).
    Score,
    /// A consistency model's (arXiv 2303.01469, appendix C), which leave y as it is at σ_min:
    /// `c_skip = σ_data²/((σ - σ_min)² + σ_data²)`, `c_out = (σ - σ_min) σ_data/√(σ² + σ_data²)`, `c_noise = 250 ln σ`.
    Consistency {
        /// The data's standard deviation.
        sigma_data: f64,
        /// The least σ.
        sigma_min: f64,
    },
}
