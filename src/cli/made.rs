//! What is written of samples.

use anyhow::Result;
use edgegen::Model;
use edgegen::model::Decoder;
use edgegen::output::{self, Format, Picture};

/// A sample, and what it took.
#[derive(Clone, Default)]
pub struct Sample {
    pub x: Vec<f32>,
    pub trajectory: Vec<Vec<f32>>,
    pub nfe: usize,
    pub steps: usize,
    pub allocations: u64,
    pub late: bool,
}

/// What is written of a sample: the sample itself, or the picture that a decoder makes of it.
pub struct Made {
    pub shape: Vec<usize>,
    /// How it becomes a picture's file, if that is the format.
    picture: Option<Picture>,
    /// The side of the square that a pixel becomes.
    scale: usize,
}

impl Made {
    pub fn of(model: &Model, decoder: Option<&Decoder>, format: Format, scale: usize) -> Result<Self> {
        let shape = decoder.map_or(model.sample_shape(), Decoder::picture_shape).to_vec();
        let range = if decoder.is_some() { Decoder::VALUE_RANGE } else { model.value_range() };
        let picture = format.is_picture().then(|| Picture::new(&shape, range)).transpose()?;
        Ok(Made { shape, picture, scale })
    }

    /// The file of these samples, pictures in so many columns.
    pub fn encode(&self, format: Format, samples: &[Sample], columns: usize) -> Result<Vec<u8>> {
        let rows: Vec<&[f32]> = samples.iter().map(|s| s.x.as_slice()).collect();
        Ok(match (format, self.picture) {
            (Format::Npy, _) => output::encode_npy(&rows, &self.shape)?,
            (Format::Csv, _) => output::encode_csv(&rows),
            (Format::Gif, Some(picture)) => {
                let frames = samples.iter().map(|s| s.trajectory.len()).max().unwrap_or(0);
                // A sample that ended early stays as it ended.
                let frame = |f: usize| -> Vec<&[f32]> {
                    samples.iter().map(|s| s.trajectory.get(f).map_or(s.x.as_slice(), Vec::as_slice)).collect()
                };
                let drawn = |samples: &[&[f32]]| picture.grid(samples, columns).enlarged(self.scale);
                let mut frames = (0..frames).map(|f| drawn(&frame(f))).collect::<edgegen::Result<Vec<_>>>()?;
                if frames.is_empty() {
                    frames.push(drawn(&rows)?);
                }
                output::encode_animation(&frames, 150)?
            }
            (_, Some(picture)) => output::encode_picture(&picture.grid(&rows, columns).enlarged(self.scale)?, format)?,
            (_, None) => unreachable!("picture formats have a picture"),
        })
    }
}

impl Sample {
    /// Makes of latents the pictures that they stand for.
    pub fn decode(&mut self, decoder: &mut Decoder) -> Result<()> {
        for x in self.trajectory.iter_mut().chain([&mut self.x]) {
            let mut picture = vec![0.0; decoder.picture_len()];
            decoder.decode(x, &mut picture)?;
            *x = picture;
        }
        Ok(())
    }
}
