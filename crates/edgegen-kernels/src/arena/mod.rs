//! Where values lie in the one buffer that a run works in.

mod layout;

pub use layout::{Layout, Storage, room, share};
use std::ops::Deref;

/// The numbers that values are kept in: each kind has an arena of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// In 32 bits.
    #[default]
    F32,
    /// In 16 bits: 11 of precision, up to 65,504.
    F16,
}

/// The sizes of a [`ImageView`] and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Channels.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Where channel 0 of the top left pixel is.
    pub start: usize,
    /// Numbers from a pixel to the next of its row.
    pub pixel: usize,
    /// Numbers from a row to the next.
    pub row: usize,
    /// Zeros around the picture: rows above and below, and pixels left and right.
    pub border: [usize; 2],
    /// What its numbers are. Pictures in 8 bits lie in an arena of their own, where this has no say.
    pub precision: Precision,
}

/// A picture of `c` channels in the arena, or some of the channels of one. The channels of a pixel lie together.
///
/// Its numbers can be read as fields of [`Extent`], but only be set by what proves with checked arithmetic that the
/// picture is not empty and that every number of it and of its border has a place that a `usize` can count. Whether
/// that place lies in a certain buffer is for [`fits`](Self::fits) and [`reaches`](Self::reaches) to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageView(Extent);

impl Deref for ImageView {
    type Target = Extent;

    #[inline(always)]
    fn deref(&self) -> &Extent {
        &self.0
    }
}

impl ImageView {
    /// The picture of these sizes; none if it is empty, if its border begins before the first number of the arena, or if
    /// any of it lies further than can be counted.
    pub fn new(extent: Extent) -> Option<Self> {
        let Extent { c, h, w, start, pixel, row, border: [rows, pixels], .. } = extent;
        let before = rows.checked_mul(row)?.checked_add(pixels.checked_mul(pixel)?)?;
        // kernels count pixels, and the numbers of a row with its border
        let counted = h.checked_add(rows.checked_mul(2)?)?.checked_mul(w.checked_add(pixels.checked_mul(2)?)?)?;
        let view = ImageView(extent);
        let end = view.end(extent.border)?;
        (c > 0 && counted > 0 && before <= start && end.checked_add(pixel)? <= isize::MAX as usize).then_some(view)
    }

    /// The same picture elsewhere; none as for [`new`](Self::new).
    pub fn with_start(self, start: usize) -> Option<Self> {
        ImageView::new(Extent { start, ..self.0 })
    }

    /// Channels `first..first + c` of this picture; none if it does not have them.
    pub fn channels(self, first: usize, c: usize) -> Option<Self> {
        let inside = first.checked_add(c).is_some_and(|end| end <= self.c);
        inside.then(|| ImageView::new(Extent { c, start: self.start + first, ..self.0 })).flatten()
    }

    /// Where pixel `i` is, row by row.
    #[inline(always)]
    pub fn at(self, i: usize) -> usize {
        self.start + i / self.w * self.row + i % self.w * self.pixel
    }

    /// Where each pixel is, row by row.
    #[inline(always)]
    pub fn pixels(self) -> impl Iterator<Item = usize> {
        (0..self.h).flat_map(move |y| (0..self.w).map(move |x| self.start + y * self.row + x * self.pixel))
    }

    /// Whether the picture lies within an arena of `len` numbers.
    pub fn fits(self, len: usize) -> bool {
        self.end([0, 0]).is_some_and(|end| end <= len)
    }

    /// The same picture in the arena of such numbers.
    pub fn of(self, precision: Precision) -> Self {
        ImageView(Extent { precision, ..self.0 })
    }

    /// Whether no number of it lies where another one does, so that threads may each write some of its pixels.
    pub fn is_apart(self) -> bool {
        apart([(1, self.c), (self.pixel, self.w), (self.row, self.h)])
    }

    /// One past the last number of the picture with so many rows and pixels after it; none if it has no pixel, or if that
    /// is more than can be counted.
    fn end(self, [rows, pixels]: [usize; 2]) -> Option<usize> {
        let down = self.h.checked_sub(1)?.checked_add(rows)?.checked_mul(self.row)?;
        let across = self.w.checked_sub(1)?.checked_add(pixels)?.checked_mul(self.pixel)?;
        self.start.checked_add(down)?.checked_add(across)?.checked_add(self.c)
    }

    /// Whether a window of `height` by `width` pixels that begins `padding` rows above and pixels left of the picture
    /// lies within the picture and its border, and that within an arena of `len` numbers. Of each pixel, `c` numbers are
    /// read, which may be more than its channels.
    pub fn reaches(self, padding: [usize; 2], [height, width]: [usize; 2], c: usize, len: usize) -> bool {
        let [rows, pixels] = self.border;
        let side = |n: usize, before: usize, after: usize| n.checked_add(before)?.checked_add(after);
        let before = || padding[0].checked_mul(self.row)?.checked_add(padding[1].checked_mul(self.pixel)?);
        let more = c.saturating_sub(self.c);
        padding[0] <= rows
            && padding[1] <= pixels
            && side(self.h, padding[0], rows).is_some_and(|most| height <= most)
            && side(self.w, padding[1], pixels).is_some_and(|most| width <= most)
            && before().is_some_and(|before| self.start >= before)
            && self.end(self.border).and_then(|end| end.checked_add(more)).is_some_and(|end| end <= len)
    }

    /// The runs of numbers around the picture that are to be zeros: where each starts, and how long it is. All channels
    /// of the whole picture that this is of lie in a pixel of `pixel` numbers.
    pub fn edges(self) -> impl Iterator<Item = (usize, usize)> {
        let [rows, pixels] = self.border;
        let line = (self.w + 2 * pixels) * self.pixel;
        let corner = self.start - rows * self.row - pixels * self.pixel;
        (0..self.h + 2 * rows).flat_map(move |y| {
            let at = corner + y * self.row;
            if y < rows || y >= rows + self.h {
                [(at, line), (at, 0)]
            } else {
                [(at, pixels * self.pixel), (at + (pixels + self.w) * self.pixel, pixels * self.pixel)]
            }
        })
    }
}

/// Whether no two indices of dimensions of these strides and sizes lie at the same place: each stride is at least as long
/// as what the shorter ones reach over.
pub(crate) fn apart<const N: usize>(mut dims: [(usize, usize); N]) -> bool {
    dims.sort_unstable();
    let mut reach = Some(0usize);
    for (stride, n) in dims.into_iter().filter(|(_, n)| *n > 1) {
        reach = reach.filter(|reach| stride > *reach).and_then(|reach| reach.checked_add((n - 1).checked_mul(stride)?));
    }
    reach.is_some()
}

/// A value of any shape: each of its dimensions has a stride.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StridedView {
    /// Where its first number is.
    pub start: usize,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Numbers from an index to the next, for each dimension.
    pub strides: Vec<usize>,
    /// For a picture, the zeros around it.
    pub border: [usize; 2],
    /// What its numbers are.
    pub precision: Precision,
}

impl StridedView {
    /// A value in 32 bits whose numbers lie together, those of its last dimension side by side.
    pub fn row_major(start: usize, dims: &[usize]) -> Self {
        Self::strided(start, dims.to_vec(), row_major(dims))
    }

    /// A value in 32 bits with these strides.
    pub fn strided(start: usize, dims: Vec<usize>, strides: Vec<usize>) -> Self {
        StridedView { start, dims, strides, border: [0, 0], precision: Precision::F32 }
    }

    /// The same place in the arena of such numbers.
    pub fn of(self, precision: Precision) -> Self {
        StridedView { precision, ..self }
    }

    /// A picture as a value of dimensions `[1, C, H, W]` or `[1, C, W]`; or `[1, C, D, H, W]`, a volume whose rows lie one after
    /// the other.
    pub fn of_view(view: ImageView, dims: &[usize]) -> Self {
        let all = view.row.saturating_mul(view.h);
        let strides = match dims.len() {
            3 => vec![all, 1, view.pixel],
            5 => vec![all, 1, view.row.saturating_mul(dims[3]), view.row, view.pixel],
            _ => vec![all, 1, view.row, view.pixel],
        };
        StridedView { border: view.border, ..Self::strided(view.start, dims.to_vec(), strides) }.of(view.precision)
    }

    /// How many numbers it has, or the greatest number that can be counted.
    pub fn len(&self) -> usize {
        self.dims.iter().fold(1, |n: usize, d| n.saturating_mul(*d))
    }

    /// The first numbers of its last dimensions: those but the first `n` are left out.
    pub fn leading(&self, n: usize) -> Self {
        Self::strided(self.start, self.dims[..n].to_vec(), self.strides[..n].to_vec()).of(self.precision)
    }

    /// What is at the first index of dimension `axis`, without that; and the length and the stride of it.
    pub fn without(&self, axis: usize) -> (Self, (usize, usize)) {
        let (mut dims, mut strides) = (self.dims.clone(), self.strides.clone());
        let along = (dims.remove(axis), strides.remove(axis));
        (Self::strided(self.start, dims, strides).of(self.precision), along)
    }

    /// The value as a picture, if it is `[1, C, H, W]`, `[1, C, W]` or `[1, C, D, H, W]`, all rows of which lie one after the
    /// other, and its channels lie together.
    pub fn view(&self) -> Option<ImageView> {
        let (StridedView { start, border, precision, .. }, s) = (self, &self.strides);
        let [c, h, w, pixel, row] = match *self.dims {
            [1, c, w] => [c, 1, w, s[2], w.checked_mul(s[2])?],
            [1, c, h, w] => [c, h, w, s[3], s[2]],
            [1, c, d, h, w] if d == 1 || h.checked_mul(s[3]) == Some(s[2]) => [c, d.checked_mul(h)?, w, s[4], s[3]],
            _ => return None,
        };
        let (border, precision) = (*border, *precision);
        let view = ImageView::new(Extent { c, h, w, start: *start, pixel, row, border, precision })?;
        let apart = w == 1 || pixel >= c;
        (c == 1 || s[1] == 1).then_some(view).filter(|_| apart)
    }

    /// A value `[N, C, H, W]`, `[N, C, W]` or `[N, C, D, H, W]` as pictures, if the channels of each lie together.
    pub fn views(&self) -> Option<Vec<ImageView>> {
        let (count, apart) = (*self.dims.first()?, *self.strides.first()?);
        let mut one = self.clone();
        one.dims[0] = 1;
        (0..count)
            .map(|i| {
                one.start = self.start.checked_add(i.checked_mul(apart)?)?;
                one.view()
            })
            .collect()
    }

    /// Pictures that [`Layout::places`] gave as a value of dimensions `[N, C, H, W]`, `[N, C, W]` or
    /// `[N, C, D, H, W]`.
    pub fn of_views(views: &[ImageView], dims: &[usize]) -> Option<Self> {
        let mut all = Self::of_view(*views.first()?, dims);
        if let [first, second, ..] = views {
            all.strides[0] = second.start.checked_sub(first.start)?;
        }
        Some(all)
    }

    /// The value as one row of pixels whose channels are its last dimension.
    pub fn rows(&self) -> Option<ImageView> {
        let c = *self.dims.last()?;
        let w = self.len() / c.max(1);
        let flat = self.reshaped(&[w, c])?;
        let pixel = flat.strides[0];
        let together = c == 1 || flat.strides[1] == 1;
        let row = w.checked_mul(pixel)?;
        let (border, precision) = ([0, 0], self.precision);
        let extent = Extent { c, h: 1, w, start: self.start, pixel, row, border, precision };
        if together { ImageView::new(extent) } else { None }
    }

    /// The value as numbers that lie one after the other.
    pub fn run(&self) -> Option<usize> {
        let flat = self.reshaped(&[self.len()])?;
        (self.len() == 1 || flat.strides[0] == 1).then_some(self.start)
    }

    /// With its dimensions in the order `perm`.
    pub fn permuted(&self, perm: &[usize]) -> Self {
        let of = |v: &[usize]| perm.iter().map(|p| v[*p]).collect();
        Self::strided(self.start, of(&self.dims), of(&self.strides)).of(self.precision)
    }

    /// Those of its numbers from `first` on, `step` apart, for each dimension.
    pub fn sliced(&self, parts: &[(usize, usize)], dims: &[usize]) -> Self {
        let start = self.start + parts.iter().zip(&self.strides).map(|(p, s)| p.0 * s).sum::<usize>();
        let strides = parts.iter().zip(&self.strides).map(|(p, s)| p.1 * s).collect();
        // some of the channels of a picture have its border
        let channels = (0..dims.len()).all(|i| i == 1 || (dims[i] == self.dims[i] && parts[i] == (0, 1)));
        let border = if channels { self.border } else { [0, 0] };
        StridedView { border, ..Self::strided(start, dims.to_vec(), strides) }.of(self.precision)
    }

    /// With other dimensions of as many numbers in the same order, where strides can do that.
    pub fn reshaped(&self, dims: &[usize]) -> Option<Self> {
        if self.len() != dims.iter().try_fold(1, |n: usize, d| n.checked_mul(*d))? {
            return None;
        }
        // dimensions of one have no say
        let old: Vec<(usize, usize)> =
            self.dims.iter().copied().zip(self.strides.iter().copied()).filter(|(d, _)| *d != 1).collect();
        let mut strides = vec![0; dims.len()];
        let (mut i, mut k) = (0, 0);
        while k < dims.len() {
            if dims[k] == 1 {
                k += 1;
                continue;
            }
            // the fewest dimensions of each that have as many numbers
            let (mut from, mut to, place) = (old.get(i)?.0, dims[k], k);
            i += 1;
            k += 1;
            while from != to {
                if from < to {
                    let (d, s) = *old.get(i)?;
                    if old[i - 1].1 != d.checked_mul(s)? {
                        return None;
                    }
                    from = from.checked_mul(d)?;
                    i += 1;
                } else {
                    to = to.checked_mul(*dims.get(k)?)?;
                    k += 1;
                }
            }
            let mut stride = old[i - 1].1;
            for d in (place..k).rev() {
                strides[d] = stride;
                stride = stride.checked_mul(dims[d])?;
            }
        }
        let same = self.dims == dims;
        let border = if same { self.border } else { [0, 0] };
        Some(StridedView { border, ..Self::strided(self.start, dims.to_vec(), strides) }.of(self.precision))
    }
}

/// The strides of a tensor whose last dimension lies together. Those that cannot be counted are the greatest number that
/// can, with which no view or loop can be made.
pub fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(dims[i].max(1));
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_reshape_where_they_can() {
        let mut layout = Layout::default();
        let view = layout.place([6, 4, 5], [0, 0]).unwrap();
        let picture = StridedView::of_view(view, &[1, 6, 4, 5]);
        // pixels in one row, channels in heads, and queries first
        let heads = picture.reshaped(&[1, 2, 3, 20]).unwrap().permuted(&[0, 1, 3, 2]);
        assert_eq!((heads.dims.as_slice(), heads.strides[1..].to_vec()), (&[1, 2, 20, 3][..], vec![3, 6, 1]));
        assert_eq!(picture.reshaped(&[1, 6, 20]).unwrap().permuted(&[0, 2, 1]).rows().unwrap().pixel, 6);
        // channels and pixels together are not in this order
        assert!(picture.reshaped(&[1, 2, 60]).is_none());
        // a border keeps rows apart
        let bordered = StridedView::of_view(layout.place([6, 4, 5], [1, 1]).unwrap(), &[1, 6, 4, 5]);
        assert!(bordered.reshaped(&[1, 6, 20]).is_none());
        assert_eq!(bordered.view().unwrap().border, [1, 1]);
        let ones = StridedView::row_major(3, &[1, 8]).reshaped(&[1, 8, 1, 1]).unwrap();
        assert_eq!(ones.run(), Some(3));
    }

    #[test]
    fn edges_are_all_but_the_picture() {
        let mut layout = Layout::default();
        let view = layout.place([2, 3, 4], [1, 2]).unwrap();
        let mut memory = vec![1; layout.len()];
        view.edges().for_each(|(at, len)| memory[at..at + len].fill(0));
        let inside: usize = view.pixels().map(|at| memory[at] + memory[at + 1]).sum();
        assert_eq!((inside, memory[..2 * 5 * 8].iter().sum::<usize>()), (24, 24));
    }
}
