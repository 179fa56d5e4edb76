//! Values and weights in 8 bits.

use super::places::{check_image, sides_of_each};
use super::{Compiler, NO_PLACE};
use crate::constant::{Constant, Stored8};
use crate::place::Slice;
use crate::reason::Reason;
use kernels::arena::ImageView;
use kernels::conv8::{self, QuantParams};

/// How a value lies that is read in 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout8 {
    /// As images, their channels the second dimension.
    Image,
    /// As one row of pixels, its channels the last dimension.
    Rows,
}

impl<'a> Compiler<'_, 'a> {
    /// Places for the value of this name in 8 bits, one for each image: the channels of a pixel are padded to whole groups of
    /// those that are multiplied at a time.
    pub fn place_8bit(
        &mut self,
        name: &'a str,
        params: QuantParams,
        layout: Layout8,
    ) -> Result<Vec<ImageView>, Reason> {
        let dims = self.dims(name)?;
        let ((count, [c, h, w]), border) = match layout {
            Layout8::Image => (sides_of_each(dims)?, self.borders.get(name).copied().unwrap_or_default()),
            Layout8::Rows => {
                let c = dims.last().copied().filter(|c| *c > 0).ok_or("a number has no rows")?;
                ((1, [c, 1, dims.iter().product::<usize>() / c]), [0, 0])
            }
        };
        let padded = c.checked_next_multiple_of(conv8::CHANNELS).ok_or("too many channels")?;
        check_image([padded, h, w], border)?;
        let mut views = Vec::new();
        for _ in 0..count {
            let whole = self.bytes.place([padded, h, w], border);
            let view = whole.and_then(|whole| whole.channels(0, c)).ok_or(NO_PLACE)?;
            self.clear_border(view, Some(self.isa.byte(params.zero_point())));
            views.push(view);
        }
        self.quantized.insert((name, layout), views.clone());
        Ok(views)
    }

    /// What a value is rounded to, and where it is in 8 bits, if it is there.
    pub fn value_8bit(&self, name: &'a str, layout: Layout8) -> Option<(QuantParams, Vec<ImageView>)> {
        self.rounded.get(name).copied().zip(self.quantized.get(&(name, layout)).cloned())
    }

    /// Whether a value is rounded to 8 bits by its range.
    pub fn is_rounded_by_range(&self, name: &str) -> bool {
        self.ranged.contains(name)
    }

    /// Says where a value is in 8 bits, as rows, and where its levels are.
    pub fn put_by_range(&mut self, name: &'a str, view: ImageView, levels: Slice) {
        self.by_range.insert(name, (self.stage, view, levels));
    }

    /// Where a value is in 8 bits, as rows, and where its levels are, if it is there in this stage.
    pub fn value_by_range(&self, name: &str) -> Option<(ImageView, Slice)> {
        let (_, view, levels) = self.by_range.get(name).copied().filter(|(stage, ..)| *stage == self.stage)?;
        Some((view, levels))
    }

    /// Whether a value is rounded to 8 bits.
    pub fn is_rounded(&self, name: &str) -> bool {
        self.rounded.contains_key(name)
    }
}

/// The weights in 8 bits, around zero, with a scale for each of what lies along dimension `axis` or one for all, if they are
/// stored so.
pub fn stored_8bit(weights: &Constant, axis: usize) -> Option<&Stored8> {
    stored_around(weights, axis).filter(|stored| stored.zeros.is_empty())
}

/// The same, around whatever numbers.
pub fn stored_around(weights: &Constant, axis: usize) -> Option<&Stored8> {
    weights.levels.as_deref().filter(|stored| stored.scales.len() == 1 || stored.axis == axis)
}
