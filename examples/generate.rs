//! One ankle boot from the embedded model, as a PNG.
//!
//! ```text
//! cargo run --release --example generate -- boot.png
//! ```

use edgegen::output::{Format, Picture, encode_picture, write_file};
use edgegen::{Model, Request};
use std::path::PathBuf;

fn main() -> Result<(), edgegen::Error> {
    let out = PathBuf::from(std::env::args().nth(1).unwrap_or("boot.png".into()));
    let model = Model::embedded()?;
    let mut generator = model.generator().steps(10).build()?;
    let run = generator.run(&Request::new(7, 0).class(model.class("Ankle boot")?))?;

    let picture = Picture::new(model.sample_shape(), model.value_range())?.grid(&[run.sample], 1);
    write_file(&out, &encode_picture(&picture, Format::from_path(&out)?)?)?;
    println!("{}: {} network calls", out.display(), run.outcome.nfe);
    Ok(())
}
