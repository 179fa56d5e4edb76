//! New places for values.

use super::{Compiler, NO_PLACE, Stage};
use crate::constant;
use crate::lower::Operand;
use crate::ops::zeros;
use crate::place::{Access, Buffer, Places, Slice};
use crate::reason::Reason;
use kernels::arena::{ImageView, Layout, Precision, StridedView};

impl<'a> Compiler<'_, 'a> {
    /// What values are kept in by the operation that is being compiled.
    pub(super) fn layout(&mut self) -> &mut Layout {
        match self.precision {
            Precision::F32 => &mut self.memory,
            Precision::F16 => &mut self.halves,
        }
    }

    /// A new place whose numbers lie together.
    pub fn row_major(&mut self, dims: &[usize]) -> Result<StridedView, Reason> {
        let start = self.layout().storage(constant::count(dims)?).ok_or(NO_PLACE)?;
        Ok(StridedView::row_major(start, dims).of(self.precision))
    }

    /// A place for a value whose dimensions lie in the order that those of `like` do.
    pub fn like(&mut self, name: &'a str, like: &StridedView) -> Result<StridedView, Reason> {
        let dims = self.dims(name)?;
        let images = like.views().filter(|_| self.stage == Stage::Sample && dims.len() == like.dims.len());
        if images.is_some_and(|images| images.len() == dims[0]) {
            return self.image(name);
        }
        let mut order: Vec<usize> = (0..dims.len()).collect();
        if dims.len() == like.dims.len() {
            order.sort_by_key(|d| std::cmp::Reverse(like.strides[*d]));
        }
        let place = self.row_major(&order.iter().map(|d| dims[*d]).collect::<Vec<_>>())?;
        Ok(place.permuted(&inverse(&order)))
    }

    /// A place for the images of this name, `[N, C, H, W]` or `[N, C, W]`: its own, or one within the concatenation that it is
    /// a part of, or that within one that the other is a part of.
    pub fn image(&mut self, name: &'a str) -> Result<StridedView, Reason> {
        // from the value to the outermost whole that it lies in, or the first that has a place
        let (mut chain, mut outermost) = (Vec::new(), name);
        while let Some((whole, first)) =
            self.parts.get(outermost).copied().filter(|(whole, _)| self.is_made_within(outermost, whole, name))
        {
            chain.push((outermost, first));
            outermost = whole;
        }
        if outermost == name || self.made(outermost).is_none() {
            let dims = self.dims(outermost)?;
            let border = self.borders.get(outermost).copied().unwrap_or_default();
            let place = self.new_images(dims, border)?;
            if outermost == name {
                return Ok(place);
            }
            self.put(outermost, place);
        }
        let mut whole = self.value(outermost)?;
        for (part, first) in chain.into_iter().rev() {
            let dims = self.dims(part)?;
            let view = whole.view().ok_or("a concatenation that is no image")?;
            let part_of = view.channels(first, dims[1]).ok_or("a part that is not within its concatenation")?;
            whole = StridedView::of_view(part_of, dims);
            if part != name {
                self.put(part, whole.clone());
            }
        }
        Ok(whole)
    }

    /// Whether `part`, which has no place yet or is the value that a place is sought for, is made within `whole`: both are in
    /// the numbers of the operation that is being compiled.
    fn is_made_within(&self, part: &str, whole: &str, sought: &str) -> bool {
        (part == sought || self.made(part).is_none()) && self.precision_of(whole) == self.precision
    }

    /// A new image with a border of zeros, which a step clears.
    pub(super) fn new_image(&mut self, sides: [usize; 3], border: [usize; 2]) -> Result<ImageView, Reason> {
        check_image(sides, border)?;
        let view = self.layout().place(sides, border).ok_or(NO_PLACE)?;
        self.clear_border(view, None);
        Ok(view)
    }

    /// New images, `[N, C, H, W]` or `[N, C, W]`, with a border of zeros around each.
    pub(super) fn new_images(&mut self, dims: &[usize], border: [usize; 2]) -> Result<StridedView, Reason> {
        let (count, sides) = sides_of_each(dims)?;
        check_image(sides, border)?;
        let views = self.layout().places(count, sides, border).ok_or(NO_PLACE)?;
        views.iter().for_each(|view| self.clear_border(*view, None));
        Ok(StridedView::of_views(&views, dims).ok_or(NO_PLACE)?)
    }

    /// A place for images, and the images.
    pub fn results(&mut self, name: &'a str) -> Result<(StridedView, Vec<ImageView>), Reason> {
        let place = self.image(name)?;
        let views = place.views().ok_or("no image")?;
        Ok((place, views))
    }

    /// A new image without a border.
    pub fn plain_image(&mut self, sides: [usize; 3]) -> Result<ImageView, Reason> {
        self.new_image(sides, [0, 0])
    }

    /// A new image all of which is cleared, with a border around it.
    pub fn cleared_image(&mut self, sides: [usize; 3], border: [usize; 2]) -> Result<ImageView, Reason> {
        check_image(sides, border)?;
        let view = self.layout().place(sides, border).ok_or(NO_PLACE)?;
        self.clear(view.start);
        Ok(view)
    }

    /// Pushes a step that makes all of the storage that has this number in it zeros.
    pub fn clear(&mut self, start: usize) {
        let layout = self.layout();
        let storage = layout.storages()[layout.storage_at(start)];
        let mut places = Places::default();
        let to = places.slice_of(self.precision, Access::Write, Slice { start: storage.start, len: storage.len });
        self.push(zeros::Clear { to }, places);
    }

    pub(super) fn clear_border(&mut self, view: ImageView, zero_point: Option<u8>) {
        if view.border != [0, 0] || (zero_point.is_some() && view.c < view.pixel) {
            let mut places = Places::default();
            let buffer = if zero_point.is_some() { Buffer::Bytes } else { Buffer::of(view.precision) };
            let view = places.edges(buffer, view);
            self.push(zeros::Border { view, zero_point }, places);
        }
    }

    /// A stored tensor among the values.
    pub fn operand(&mut self, operand: &Operand<'a>) -> Result<StridedView, Reason> {
        match operand {
            Operand::Value(name) => self.value(name),
            Operand::Stored(constant) => {
                if self.precision != Precision::F32 {
                    return Err("a stored tensor among values in 16 bits".into());
                }
                let place = self.row_major(&constant.dims)?;
                self.graph.take_numbers(constant.len())?;
                self.constants.push((place.start, constant.values.to_vec()));
                Ok(place)
            }
        }
    }
}

/// Makes sure that an image is not larger than a value may be.
pub(super) fn check_image([c, h, w]: [usize; 3], [rows, pixels]: [usize; 2]) -> Result<(), Reason> {
    let side = |n: usize, border: usize| border.checked_mul(2).and_then(|b| b.checked_add(n)).unwrap_or(usize::MAX);
    constant::count(&[c, side(h, rows), side(w, pixels)]).map(|_| ())
}

/// Channels, rows and columns of `[1, C, H, W]` or `[1, C, W]`, or of all of `[1, C, D, H, W]`.
pub fn sides(dims: &[usize]) -> Result<[usize; 3], Reason> {
    match *dims {
        [1, c, w] => Ok([c, 1, w]),
        [1, c, h, w] => Ok([c, h, w]),
        [1, c, d, h, w] => Ok([c, d.checked_mul(h).ok_or(NO_PLACE)?, w]),
        _ => Err(format!("{dims:?} is no image").into()),
    }
}

/// How many images are in `[N, C, H, W]` or `[N, C, W]`, and the [sides] of each.
pub(super) fn sides_of_each(dims: &[usize]) -> Result<(usize, [usize; 3]), Reason> {
    let (count, each) = dims.split_first().ok_or("a number is no image")?;
    Ok((*count, sides(&[&[1], each].concat())?))
}

/// The order that undoes an order.
pub fn inverse(order: &[usize]) -> Vec<usize> {
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, o)| back[*o] = i);
    back
}
