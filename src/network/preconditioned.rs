//! Networks that take σ, in the form that the samplers know.

use super::{Network, one_time};
use crate::Result;
use crate::condition::Condition;
use crate::config::Preconditioning;
use crate::schedule::Level;

/// c_skip, c_out, c_in and c_noise of a network F at σ (see [`Preconditioning`]); `None` where it is what samplers take. A score
/// stays one: the denoised sample, y + σ² F, would lose what is below the rounding of y where σ is small.
fn scalings(preconditioning: Preconditioning, sigma: f64) -> Option<[f64; 4]> {
    match preconditioning {
        Preconditioning::None | Preconditioning::Denoiser | Preconditioning::Score => None,
        Preconditioning::Edm { sigma_data: d, negative } => {
            let total = sigma * sigma + d * d;
            let out = sigma * d / total.sqrt();
            Some([d * d / total, if negative { -out } else { out }, 1.0 / total.sqrt(), 0.25 * libm::log(sigma)])
        }
        Preconditioning::Consistency { sigma_data: d, sigma_min } => {
            let (total, above) = (sigma * sigma + d * d, sigma - sigma_min);
            Some([
                d * d / (above * above + d * d),
                above * d / total.sqrt(),
                1.0 / total.sqrt(),
                250.0 * libm::log(sigma),
            ])
        }
    }
}

/// A network around one that takes σ: it takes the samplers' variance-preserving x and `σ/γ`, hands on `y = x/γ` scaled
/// as the network was trained, and gives the denoised sample, or the score if the network does. All scalings of such networks are here.
/// With [`Preconditioning::None`] it is the other network itself.
pub struct Preconditioned<N> {
    network: N,
    preconditioning: Preconditioning,
    scaled: Vec<f32>,
}

impl<N: Network> Preconditioned<N> {
    /// `network` wrapped in its scalings.
    pub fn new(network: N, preconditioning: Preconditioning) -> Self {
        let needed = preconditioning != Preconditioning::None;
        let scaled = vec![0.0; if needed { network.sample_len() } else { 0 }];
        Preconditioned { network, preconditioning, scaled }
    }

    /// The network that is wrapped.
    #[cfg(feature = "onnx")]
    pub(crate) fn inner(&self) -> &N {
        &self.network
    }

    /// The bytes of the buffer for the scaled sample.
    #[cfg(feature = "onnx")]
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.scaled)
    }
}

impl<N: Network> Network for Preconditioned<N> {
    fn sample_shape(&self) -> &[usize] {
        self.network.sample_shape()
    }

    fn bind(&mut self, slot: usize, condition: &Condition) -> Result<()> {
        self.network.bind(slot, condition)
    }

    fn lead_to(&mut self, level: Level) {
        self.network.lead_to(level);
    }

    fn hold_clean(&mut self, rows: usize, level: Level) -> Result<()> {
        match self.preconditioning {
            Preconditioning::None => self.network.hold_clean(rows, level),
            // its sample is scaled by the one level
            _ if rows > 0 => Err(one_time()),
            _ => Ok(()),
        }
    }

    fn variance(&self) -> Option<&[f32]> {
        self.network.variance()
    }

    fn time_of(&self, level: Level) -> f64 {
        self.network.time_of(level)
    }

    fn predict(&mut self, x: &[f32], t: f64, slot: usize, out: &mut [f32]) -> Result<()> {
        if self.preconditioning == Preconditioning::None {
            return self.network.predict(x, t, slot, out);
        }
        // y = x/γ, where γ² + σ² = 1 and t = σ/γ
        let to_y = (1.0 / Level::from_edm_sigma(f64::NAN, t).gamma) as f32;
        let Some([skip, scale, c_in, c_noise]) = scalings(self.preconditioning, t) else {
            self.scaled.iter_mut().zip(x).for_each(|(s, x)| *s = to_y * x);
            return self.network.predict(&self.scaled, t, slot, out);
        };
        let c_in = c_in as f32;
        self.scaled.iter_mut().zip(x).for_each(|(s, x)| *s = c_in * (to_y * x));
        self.network.predict(&self.scaled, c_noise, slot, out)?;
        let (skip, scale) = (skip as f32, scale as f32);
        out.iter_mut().zip(x).for_each(|(f, x)| *f = skip * (to_y * x) + scale * *f);
        Ok(())
    }

    fn calls(&self, slot: usize) -> usize {
        self.network.calls(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `Preconditioned` makes, at `y = x/γ`, of a network that gives the sum of its inputs.
    fn denoised(preconditioning: Preconditioning, y: f64, sigma: f64) -> f64 {
        struct Sum;
        impl Network for Sum {
            fn sample_shape(&self) -> &[usize] {
                &[1]
            }
            fn predict(&mut self, x: &[f32], t: f64, _: usize, out: &mut [f32]) -> Result<()> {
                out[0] = x[0] + t as f32;
                Ok(())
            }
        }
        let mut out = [0.0];
        let x = (y * Level::from_edm_sigma(0.0, sigma).gamma) as f32;
        Preconditioned::new(Sum, preconditioning).predict(&[x], sigma, 0, &mut out).unwrap();
        f64::from(out[0])
    }

    #[test]
    fn scalings_are_the_papers() {
        let (y, s, d) = (0.7f64, 1.3f64, 0.5f64);
        let root = (s * s + d * d).sqrt();
        let f = y / root + 0.25 * s.ln();
        let edm = |negative| denoised(Preconditioning::Edm { sigma_data: d, negative }, y, s);
        assert!((edm(false) - (d * d / root.powi(2) * y + s * d / root * f)).abs() < 1e-6);
        assert!((edm(true) - (d * d / root.powi(2) * y - s * d / root * f)).abs() < 1e-6);
        let consistency = |sigma| denoised(Preconditioning::Consistency { sigma_data: d, sigma_min: 0.002 }, y, sigma);
        // at the least sigma the function leaves its input as it is
        assert!((consistency(0.002) - y).abs() < 1e-6);
        let f = y / root + 250.0 * s.ln();
        let expected = d * d / ((s - 0.002).powi(2) + d * d) * y + (s - 0.002) * d / root * f;
        assert!((consistency(s) - expected).abs() < 1e-5);
        // the denoiser itself and the score take y; without σ, x stays as it is
        assert!((denoised(Preconditioning::Score, 0.5, 2.0) - 2.5).abs() < 1e-6);
        assert!((denoised(Preconditioning::Denoiser, 0.5, 2.0) - 2.5).abs() < 1e-6);
        let x = 0.5 * Level::from_edm_sigma(0.0, 2.0).gamma;
        assert!((denoised(Preconditioning::None, 0.5, 2.0) - (x + 2.0)).abs() < 1e-6);
    }
}
