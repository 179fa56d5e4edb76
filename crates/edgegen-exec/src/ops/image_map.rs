//! A step that does the same to every number of an image, and may round the results to 8 bits.

use super::zeros::image_size;
use crate::place::{Handle, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::ImageView;
use kernels::conv8::QuantParams;
use kernels::dense;

/// What is done to every number.
#[derive(Clone, Copy, Debug)]
pub enum ImageFunction {
    /// Nothing.
    Copy,
    /// SiLU.
    Silu,
    /// Rounding, kept in f32.
    Round(QuantParams),
    /// The number of another image is added.
    Add(Handle<ImageView>),
}

/// Where an image goes: as it is, or rounded to 8 bits.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// In f32.
    Float(Handle<ImageView>),
    /// In 8 bits.
    Quantized(Handle<ImageView>, QuantParams),
}

impl Output {
    /// As the kernels take it.
    pub fn get(self, places: &Places) -> dense::Output {
        match self {
            Output::Float(view) => dense::Output::Float(places.get(view)),
            Output::Quantized(view, params) => dense::Output::Quantized(places.get(view), params),
        }
    }
}

/// Whether two images have as many channels, rows and columns, of such numbers.
pub fn same_size(a: &ImageView, b: &ImageView) -> bool {
    (a.c, a.h, a.w, a.precision) == (b.c, b.h, b.w, b.precision)
}

/// Does the same to every number of an image.
#[derive(Debug)]
pub struct ImageMap {
    pub function: ImageFunction,
    pub input: Handle<ImageView>,
    pub output: Output,
}

impl Kernel for ImageMap {
    fn name(&self, _: &Places) -> &'static str {
        match self.function {
            ImageFunction::Silu => "SiLU",
            ImageFunction::Add(_) => "add",
            ImageFunction::Copy | ImageFunction::Round(_) => "rounding",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.input)), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let v = places.get(self.input);
        Some(product(&[15, v.c, v.h, v.w]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let output = self.output.get(places).view();
        let other = if let ImageFunction::Add(other) = self.function { Some(places.get(other)) } else { None };
        let all = [Some(places.get(self.input)), other];
        if all.iter().flatten().all(|v| same_size(v, &output)) { Ok(()) } else { Err("images of unlike sizes".into()) }
    }

    fn works_in_place(&self) -> bool {
        true
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let op = match self.function {
            ImageFunction::Copy => dense::Map::Copy,
            ImageFunction::Silu => dense::Map::Silu,
            ImageFunction::Round(params) => dense::Map::Round(params),
            ImageFunction::Add(other) => dense::Map::Add(places.get(other)),
        };
        kernels::map(isa, op, places.get(self.input), self.output.get(places), part, memory);
    }
}
