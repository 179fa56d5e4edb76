//! `--decoder`: from latents to pictures.

use anyhow::Result;
use clap::Args;
use edgegen::model::{Decoder, Scaling};
use std::path::PathBuf;

/// The decoder of a latent diffusion model.
#[derive(Args, Debug)]
pub struct DecoderArgs {
    /// Make pictures of the samples, which are latents, by this ONNX file or the folder that holds it as model.onnx; a
    /// config.json beside it says how they are scaled
    #[arg(long, value_name = "FILE", help_heading = "Latents")]
    decoder: Option<PathBuf>,
    /// What latents are divided by before they are decoded [default: the config's scaling_factor]
    #[arg(long, value_name = "X", requires = "decoder", allow_negative_numbers = true, help_heading = "Latents")]
    latent_scale: Option<f64>,
    /// What is then added to them [default: the config's shift_factor, else 0]
    #[arg(long, value_name = "X", requires = "decoder", allow_negative_numbers = true, help_heading = "Latents")]
    latent_shift: Option<f64>,
}

impl DecoderArgs {
    /// The decoder for samples of this shape, if one is given.
    pub fn open(&self, shape: &[usize], limits: (usize, Option<usize>)) -> Result<Option<Decoder>> {
        let Some(path) = &self.decoder else { return Ok(None) };
        let mut scaling = Scaling::new();
        (scaling.factor, scaling.shift) = (self.latent_scale, self.latent_shift);
        Ok(Some(Decoder::open_with(path, shape, scaling, limits)?))
    }
}
