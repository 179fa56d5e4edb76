//! One ankle boot from the embedded model, as a PNG.
//!
//! ```text
//! cargo run --release --example generate -- boot.png
//! ```

use edgegen::Condition;
use edgegen::Model;
use edgegen::output::{Format, Picture, encode_picture, write_file};
use edgegen::sampler::Control;
use edgegen::{Generator, Settings};
use std::path::PathBuf;

fn main() -> Result<(), edgegen::Error> {
    let out = PathBuf::from(std::env::args().nth(1).unwrap_or("boot.png".into()));
    let model = Model::embedded()?;
    let settings = Settings { steps: 10, ..Settings::of(&model)? };
    let mut generator = Generator::new(&model, &settings)?;

    let boot = Condition::class(model.class("Ankle boot")?);
    let (sample, outcome) = generator.generate(7, 0, &boot, &mut Control::default())?;

    let picture = Picture::new(model.sample_shape(), (-1.0, 1.0))?.grid(&[sample], 1);
    write_file(&out, &encode_picture(&picture, Format::from_path(&out)?)?)?;
    println!("{}: {} network calls", out.display(), outcome.nfe);
    Ok(())
}
