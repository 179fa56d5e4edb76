//! Networks that take σ, in the form `D(y; σ)` that the samplers know.

use super::Network;
use crate::Result;
use crate::condition::Condition;
use crate::config::Scalings;

impl Scalings {
    /// c_skip, c_out, c_in and c_noise at σ.
    fn at(self, sigma: f64) -> [f64; 4] {
        match self {
            Scalings::Edm { sigma_data: d, negative } => {
                let total = sigma * sigma + d * d;
                let out = sigma * d / total.sqrt();
                [d * d / total, if negative { -out } else { out }, 1.0 / total.sqrt(), 0.25 * libm::log(sigma)]
            }
            Scalings::Consistency { sigma_data: d, sigma_min } => {
                let (total, above) = (sigma * sigma + d * d, sigma - sigma_min);
                [
                    d * d / (above * above + d * d),
                    above * d / total.sqrt(),
                    1.0 / total.sqrt(),
                    250.0 * libm::log(sigma),
                ]
            }
        }
    }
}

/// A network around another: the denoised sample `D(y; σ) = c_skip y + c_out F(c_in y, c_noise)` of the network F
/// (see [`Scalings`]). Without scalings it is the other network itself.
pub struct Preconditioned<N> {
    network: N,
    scalings: Option<Scalings>,
    scaled: Vec<f32>,
}

impl<N: Network> Preconditioned<N> {
    /// `network` wrapped in `scalings`.
    pub fn new(network: N, scalings: Option<Scalings>) -> Self {
        let scaled = vec![0.0; if scalings.is_some() { network.sample_len() } else { 0 }];
        Preconditioned { network, scalings, scaled }
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

    fn predict(&mut self, x: &[f32], t: f64, condition: &Condition, out: &mut [f32]) -> Result<()> {
        let Some(scalings) = self.scalings else { return self.network.predict(x, t, condition, out) };
        let [skip, scale, c_in, c_noise] = scalings.at(t);
        let c_in = c_in as f32;
        self.scaled.iter_mut().zip(x).for_each(|(s, x)| *s = c_in * x);
        self.network.predict(&self.scaled, c_noise, condition, out)?;
        let (skip, scale) = (skip as f32, scale as f32);
        out.iter_mut().zip(x).for_each(|(f, x)| *f = skip * x + scale * *f);
        Ok(())
    }

    fn calls(&self) -> usize {
        self.network.calls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `Preconditioned` makes of a network that gives the sum of its inputs.
    fn denoised(scalings: Option<Scalings>, y: f32, sigma: f64) -> f64 {
        struct Sum;
        impl Network for Sum {
            fn sample_shape(&self) -> &[usize] {
                &[1]
            }
            fn predict(&mut self, x: &[f32], t: f64, _: &Condition, out: &mut [f32]) -> Result<()> {
                out[0] = x[0] + t as f32;
                Ok(())
            }
        }
        let mut out = [0.0];
        Preconditioned::new(Sum, scalings).predict(&[y], sigma, &Condition::default(), &mut out).unwrap();
        f64::from(out[0])
    }

    #[test]
    fn scalings_are_the_papers() {
        let (y, s, d) = (0.7f64, 1.3f64, 0.5f64);
        let root = (s * s + d * d).sqrt();
        let f = y / root + 0.25 * s.ln();
        let edm = |negative| denoised(Some(Scalings::Edm { sigma_data: d, negative }), y as f32, s);
        assert!((edm(false) - (d * d / root.powi(2) * y + s * d / root * f)).abs() < 1e-6);
        assert!((edm(true) - (d * d / root.powi(2) * y - s * d / root * f)).abs() < 1e-6);
        let consistency =
            |sigma| denoised(Some(Scalings::Consistency { sigma_data: d, sigma_min: 0.002 }), y as f32, sigma);
        // at the least sigma the function leaves its input as it is
        assert!((consistency(0.002) - y).abs() < 1e-6);
        let f = y / root + 250.0 * s.ln();
        let expected = d * d / ((s - 0.002).powi(2) + d * d) * y + (s - 0.002) * d / root * f;
        assert!((consistency(s) - expected).abs() < 1e-5);
        assert_eq!(denoised(None, 0.5, 2.0), 2.5);
    }
}
