//! Steps that make what lies around images zeros, and all of a value.

use crate::place::{Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch};
use kernels::Memory;
use kernels::arena::{ImageView, Precision};

/// Makes numbers that lie together zeros.
#[derive(Debug)]
pub struct Clear {
    pub to: Handle<Slice>,
}

impl Kernel for Clear {
    fn name(&self, _: &Places) -> &'static str {
        "zeros"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len.to_string(), 0)
    }

    fn check(&self, _: &Places) -> Result<(), Reason> {
        Ok(())
    }

    fn run(&self, call: Call<'_>, _: &mut Scratch) {
        let to = call.places.get(self.to);
        clear(call.memory, call.places.precision(self.to), (to.start, to.len));
    }
}

/// Makes what lies around an image zeros; around a quantized image, the byte of its zero point.
#[derive(Debug)]
pub struct Border {
    pub view: Handle<ImageView>,
    /// The byte, for a quantized image.
    pub zero_point: Option<u8>,
}

impl Kernel for Border {
    fn name(&self, _: &Places) -> &'static str {
        "zeros"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.view)), 0)
    }

    fn check(&self, _: &Places) -> Result<(), Reason> {
        Ok(())
    }

    fn run(&self, Call { places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let view = places.get(self.view);
        let Some(byte) = self.zero_point else {
            return view.edges().for_each(|run| clear(memory, view.precision, run));
        };
        view.edges().for_each(|(at, len)| memory.fill_bytes(at, len, byte));
        // channels that are there for the sake of whole groups
        if view.c < view.pixel {
            view.pixels().for_each(|at| memory.fill_bytes(at + view.c, view.pixel - view.c, byte));
        }
    }
}

/// Makes so many numbers from the first on zeros.
fn clear(memory: Memory, precision: Precision, (first, len): (usize, usize)) {
    match precision {
        Precision::F32 => memory.fill(first, len, 0.0),
        Precision::F16 => memory.clear_halves(first, len),
    }
}

/// An image's size as text: channels, rows and columns.
pub fn image_size(view: &ImageView) -> String {
    format!("{}×{}×{}", view.c, view.h, view.w)
}
