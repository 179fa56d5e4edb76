//! Values in the form in which a step reads them: as loops, as images or as rows, copied where they do not lie so.

use super::places::sides;
use super::{Compiler, NO_PLACE, Stage};
use crate::constant::broadcast_strides;
use crate::ops::convert::Convert;
use crate::ops::unary;
use crate::place::Strided;
use crate::reason::Reason;
use kernels::arena::{ImageView, Precision, StridedView};
use kernels::general::StridedLoops;

impl<'a> Compiler<'_, 'a> {
    fn loops<const N: usize>(&self, places: [&StridedView; N]) -> Result<StridedLoops<N>, Reason> {
        if places.iter().any(|place| place.precision != Precision::F32) {
            return Err("a value in 16 bits where its kernel takes 32".into());
        }
        self.loops_of_any(places)
    }

    /// Loops over values in any numbers.
    fn loops_of_any<const N: usize>(&self, places: [&StridedView; N]) -> Result<StridedLoops<N>, Reason> {
        let dims = &places[0].dims;
        let strides = places.map(|p| broadcast_strides(&p.dims, &p.strides, dims));
        let values = std::array::from_fn(|i| (places[i].start, strides[i].as_slice()));
        StridedLoops::new(dims, values).ok_or_else(|| "more dimensions than there are loops".into())
    }

    /// Values as regions that are gone over together: the others are broadcast to the first.
    pub fn strided<const N: usize>(&self, places: [&StridedView; N]) -> Result<[Strided; N], Reason> {
        Ok(Strided::of_loops(&self.loops(places)?))
    }

    /// As [`strided`](Self::strided), with a matrix of its own for each index of each value: the lengths and strides of its rows
    /// and columns.
    pub fn strided_with<const N: usize>(
        &self,
        places: [&StridedView; N],
        sides: [[(usize, usize); 2]; N],
    ) -> Result<[Strided; N], Reason> {
        Ok(Strided::of_matrices(&self.loops(places)?, sides))
    }

    /// Stacked matrices as regions: the last two dimensions of each value are the matrices', the others are broadcast to those
    /// of the first.
    pub fn matrices<const N: usize>(&self, places: [&StridedView; N]) -> Result<[Strided; N], Reason> {
        let outer = places.map(|p| p.leading(p.dims.len() - 2));
        let loops = self.loops(std::array::from_fn(|v| &outer[v]))?;
        let sides = places.map(|p| {
            let n = p.dims.len() - 2;
            [(p.dims[n], p.strides[n]), (p.dims[n + 1], p.strides[n + 1])]
        });
        Ok(Strided::of_matrices(&loops, sides))
    }

    /// Pushes a step that copies a value, into the same or into other numbers.
    pub fn copy(&mut self, from: &StridedView, to: &StridedView) -> Result<(), Reason> {
        let regions = Strided::of_loops(&self.loops_of_any([to, from])?);
        match [to.precision, from.precision] {
            [Precision::F32, Precision::F32] => self.push_copy(regions),
            precisions => {
                let (kernel, places) = Convert::new(regions, precisions);
                self.push(kernel, places);
            }
        }
        Ok(())
    }

    /// Makes sure that a value is there in the numbers of the operation that is being compiled: what depends on the sample
    /// may have been made in others.
    pub(super) fn bring(&mut self, name: &'a str) -> Result<(), Reason> {
        if self.made(name).is_some() || self.stages.get(name) != Some(&Stage::Sample) {
            return Ok(());
        }
        let other = match self.precision {
            Precision::F32 => Precision::F16,
            Precision::F16 => Precision::F32,
        };
        let Some(from) = self.places[other as usize].get(name).cloned() else { return Ok(()) };
        let dims = self.dims(name)?;
        let to = if from.views().is_some() && (3..=4).contains(&dims.len()) {
            self.new_images(dims, self.borders.get(name).copied().unwrap_or_default())?
        } else {
            self.row_major(dims)?
        };
        self.copy(&from, &to)?;
        self.put(name, to);
        Ok(())
    }

    fn push_copy(&mut self, regions: [Strided; 2]) {
        let (kernel, places) = unary::Function::new(kernels::general::Unary::Copy, regions);
        self.push(kernel, places);
    }

    /// The value as it is, or else a copy of it whose numbers lie together.
    pub fn contiguous(
        &mut self,
        place: &StridedView,
        fits: impl Fn(&StridedView) -> bool,
    ) -> Result<StridedView, Reason> {
        if fits(place) {
            return Ok(place.clone());
        }
        let copy = self.row_major(&place.dims)?;
        self.copy(place, &copy)?;
        Ok(copy)
    }

    /// The value of this name as an image with at least this border.
    pub fn view(&mut self, name: &'a str, [rows, pixels]: [usize; 2]) -> Result<ImageView, Reason> {
        let place = self.value(name)?;
        let fits = |v: &ImageView| v.border[0] >= rows && v.border[1] >= pixels;
        if let Some(view) = place.view().filter(fits) {
            return Ok(view);
        }
        if let Some(view) = self.images[self.precision as usize].get(name).copied().filter(fits) {
            return Ok(view);
        }
        let dims = self.dims(name)?;
        let view = self.new_image(sides(dims)?, [rows, pixels])?;
        self.copy(&place, &StridedView::of_view(view, dims))?;
        self.images[self.precision as usize].insert(name, view);
        Ok(view)
    }

    /// The value of this name as images `[N, C, H, W]` or `[N, C, W]`, each with at least this border.
    pub fn images(&mut self, name: &'a str, [rows, pixels]: [usize; 2]) -> Result<Vec<ImageView>, Reason> {
        let place = self.value(name)?;
        if place.dims.first() == Some(&1) {
            return Ok(vec![self.view(name, [rows, pixels])?]);
        }
        let fits = place.border[0] >= rows && place.border[1] >= pixels;
        if let Some(views) = place.views().filter(|_| fits) {
            return Ok(views);
        }
        let copy = self.new_images(self.dims(name)?, [rows, pixels])?;
        self.copy(&place, &copy)?;
        Ok(copy.views().ok_or(NO_PLACE)?)
    }

    /// A value as an image, copied if it does not lie as one.
    pub fn as_view(&mut self, place: &StridedView) -> Result<ImageView, Reason> {
        if let Some(view) = place.view() {
            return Ok(view);
        }
        let view = self.plain_image(sides(&place.dims)?)?;
        self.copy(place, &StridedView::of_view(view, &place.dims))?;
        Ok(view)
    }

    /// A value as rows of its last dimension, copied if it does not lie so.
    pub fn as_rows(&mut self, place: &StridedView) -> Result<ImageView, Reason> {
        Ok(self.contiguous(place, |p| p.rows().is_some())?.rows().ok_or("no rows")?)
    }
}
