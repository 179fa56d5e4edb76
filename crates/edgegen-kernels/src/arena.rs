//! Where values lie in the one buffer that a run works in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Deref;

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
        let Extent { c, h, w, start, pixel, row, border: [rows, pixels] } = extent;
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
}

impl StridedView {
    /// A value whose numbers lie together, those of its last dimension side by side.
    pub fn row_major(start: usize, dims: &[usize]) -> Self {
        StridedView { start, dims: dims.to_vec(), strides: row_major(dims), border: [0, 0] }
    }

    /// A picture as a value of dimensions `[1, C, H, W]` or `[1, C, W]`.
    pub fn of_view(view: ImageView, dims: &[usize]) -> Self {
        let all = view.row.saturating_mul(view.h);
        let strides = match dims.len() {
            3 => vec![all, 1, view.pixel],
            _ => vec![all, 1, view.row, view.pixel],
        };
        StridedView { start: view.start, dims: dims.to_vec(), strides, border: view.border }
    }

    /// How many numbers it has, or the greatest number that can be counted.
    pub fn len(&self) -> usize {
        self.dims.iter().fold(1, |n: usize, d| n.saturating_mul(*d))
    }

    /// The first numbers of its last dimensions: those but the first `n` are left out.
    pub fn leading(&self, n: usize) -> Self {
        StridedView {
            start: self.start,
            dims: self.dims[..n].to_vec(),
            strides: self.strides[..n].to_vec(),
            border: [0, 0],
        }
    }

    /// The value as a picture, if it is `[1, C, H, W]` or `[1, C, W]` and its channels lie together.
    pub fn view(&self) -> Option<ImageView> {
        let (StridedView { start, border, .. }, s) = (self, &self.strides);
        let [c, h, w, pixel, row] = match *self.dims {
            [1, c, w] => [c, 1, w, s[2], w.checked_mul(s[2])?],
            [1, c, h, w] => [c, h, w, s[3], s[2]],
            _ => return None,
        };
        let view = ImageView::new(Extent { c, h, w, start: *start, pixel, row, border: *border })?;
        let apart = w == 1 || pixel >= c;
        (c == 1 || s[1] == 1).then_some(view).filter(|_| apart)
    }

    /// A value `[N, C, H, W]` or `[N, C, W]` as pictures, if the channels of each lie together.
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

    /// Pictures that [`Layout::places`] gave as a value of dimensions `[N, C, H, W]` or `[N, C, W]`.
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
        let extent = Extent { c, h: 1, w, start: self.start, pixel, row, border: [0, 0] };
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
        StridedView { start: self.start, dims: of(&self.dims), strides: of(&self.strides), border: [0, 0] }
    }

    /// Those of its numbers from `first` on, `step` apart, for each dimension.
    pub fn sliced(&self, parts: &[(usize, usize)], dims: &[usize]) -> Self {
        let start = self.start + parts.iter().zip(&self.strides).map(|(p, s)| p.0 * s).sum::<usize>();
        let strides = parts.iter().zip(&self.strides).map(|(p, s)| p.1 * s).collect();
        // some of the channels of a picture have its border
        let channels = (0..dims.len()).all(|i| i == 1 || (dims[i] == self.dims[i] && parts[i] == (0, 1)));
        StridedView { start, dims: dims.to_vec(), strides, border: if channels { self.border } else { [0, 0] } }
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
        Some(StridedView {
            start: self.start,
            dims: dims.to_vec(),
            strides,
            border: if same { self.border } else { [0, 0] },
        })
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

/// Lays values out one after the other, each in a storage of its own.
#[derive(Default)]
pub struct Layout {
    len: usize,
    storages: Vec<Storage>,
}

/// A run of numbers that values lie in.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Where it starts.
    pub start: usize,
    /// How long it is.
    pub len: usize,
}

/// The numbers that a storage of `len` takes: storages start at multiples of whole vectors.
pub fn room(len: usize) -> usize {
    len.max(1).checked_next_multiple_of(16).unwrap_or(usize::MAX)
}

impl Layout {
    /// A storage of `len` numbers; none if all of them are more than can be counted.
    pub fn storage(&mut self, len: usize) -> Option<usize> {
        let start = self.len;
        self.len = start.checked_add(len.max(1).checked_next_multiple_of(16)?)?;
        self.storages.push(Storage { start, len });
        Some(start)
    }

    /// A place for a picture with a border of zeros around it; none if it is empty, or more than can be counted.
    pub fn place(&mut self, sides: [usize; 3], border: [usize; 2]) -> Option<ImageView> {
        self.places(1, sides, border)?.pop()
    }

    /// Places for so many pictures in one storage, as far from each other as the first two are; none as for
    /// [`place`](Self::place).
    pub fn places(&mut self, count: usize, [c, h, w]: [usize; 3], border: [usize; 2]) -> Option<Vec<ImageView>> {
        let side = |n: usize, i: usize| border[i].checked_mul(2)?.checked_add(n);
        let row = side(w, 1)?.checked_mul(c)?;
        let corner = border[0].checked_mul(row)?.checked_add(border[1].checked_mul(c)?)?;
        let len = side(h, 0)?.checked_mul(row)?;
        let view = |start: usize| ImageView::new(Extent { c, h, w, start, pixel: c, row, border });
        // before anything is laid out
        let all = len.checked_mul(count)?;
        view(self.len.checked_add(all)?.checked_add(corner)?)?;
        let start = self.storage(all)?.checked_add(corner)?;
        (0..count).map(|i| view(start + i * len)).collect()
    }

    /// The numbers that all of it takes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The storages, in the order of their starts.
    pub fn storages(&self) -> &[Storage] {
        &self.storages
    }

    /// Which storage the number at `at` is in, or the last one before it.
    pub fn storage_at(&self, at: usize) -> usize {
        self.storages.partition_point(|s| s.start <= at).saturating_sub(1)
    }
}

/// Where storages are to lie so that those that are needed at the same time do not overlap: each has a first and a last
/// step at which it is needed. The greatest are laid first, each as low as it can be; that takes time by the square of their
/// number, so more than some thousands are laid in the order of their first steps. Gives the starts, and the end.
pub fn share(storages: &[(usize, Option<(usize, usize)>)]) -> (Vec<usize>, usize) {
    if storages.len() > MANY {
        return share_many(storages);
    }
    let mut order: Vec<usize> = (0..storages.len()).filter(|i| storages[*i].1.is_some()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(storages[*i].0));
    let mut starts = vec![0usize; storages.len()];
    let (mut end, mut laid): (usize, Vec<usize>) = (0, Vec::new());
    for i in order {
        let (len, Some((first, last))) = storages[i] else { continue };
        let len = room(len);
        let mut taken: Vec<(usize, usize)> = laid
            .iter()
            .filter(|j| storages[**j].1.is_some_and(|(f, l)| f <= last && first <= l))
            .map(|j| (starts[*j], starts[*j].saturating_add(room(storages[*j].0))))
            .collect();
        taken.sort_unstable();
        let mut at = 0usize;
        for (from, to) in taken {
            if len <= from.saturating_sub(at) {
                break;
            }
            at = at.max(to);
        }
        starts[i] = at;
        end = end.max(at.saturating_add(len));
        laid.push(i);
    }
    (starts, end)
}

/// More storages than the plans of large networks have, which are some thousands.
const MANY: usize = 1 << 13;

/// The same in the order of the storages' first steps, each in the smallest gap that earlier ones left.
fn share_many(storages: &[(usize, Option<(usize, usize)>)]) -> (Vec<usize>, usize) {
    let used = storages.iter().enumerate();
    let mut order: Vec<_> = used.filter_map(|(i, (len, steps))| steps.map(|s| (s, i, room(*len)))).collect();
    order.sort_unstable();
    let (mut starts, mut end, mut gaps) = (vec![0; storages.len()], 0usize, Gaps::default());
    // by the last step at which they are needed
    let mut live = BinaryHeap::new();
    for ((first, last), i, len) in order {
        while let Some(Reverse((gone, j, room))) = live.peek().copied() {
            if gone >= first {
                break;
            }
            live.pop();
            gaps.add(starts[j], room);
        }
        starts[i] = gaps.take(len).unwrap_or_else(|| {
            end = end.saturating_add(len);
            end - len
        });
        live.push(Reverse((last, i, len)));
    }
    (starts, end)
}

/// Runs of numbers that are free; those that touch are one.
#[derive(Default)]
struct Gaps {
    /// Where each starts, and its length.
    by_start: BTreeMap<usize, usize>,
    by_length: BTreeSet<(usize, usize)>,
}

impl Gaps {
    fn add(&mut self, mut start: usize, mut len: usize) {
        if let Some((before, l)) = self.by_start.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + l == start
        {
            self.remove(before, l);
            (start, len) = (before, l + len);
        }
        if let Some(l) = self.by_start.get(&(start + len)).copied() {
            self.remove(start + len, l);
            len += l;
        }
        self.by_start.insert(start, len);
        self.by_length.insert((len, start));
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.by_start.remove(&start);
        self.by_length.remove(&(len, start));
    }

    /// The first numbers of the smallest gap that has as many.
    fn take(&mut self, len: usize) -> Option<usize> {
        let (most, start) = *self.by_length.range((len, 0)..).next()?;
        self.remove(start, most);
        if most > len {
            self.by_start.insert(start + len, most - len);
            self.by_length.insert((most - len, start + len));
        }
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_storages_of_one_time_do_not_overlap_and_others_share() {
        // lengths and steps from a linear congruential generator
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % below) as usize
        };
        let count = if cfg!(miri) { 60 } else { 600 };
        let all: Vec<_> = (0..count)
            .map(|i| (1 + next(100), (i % 7 != 0).then(|| next(500)).map(|first| (first, first + next(40)))))
            .collect();
        let (starts, end) = share_many(&all);
        for (i, (len, steps)) in all.iter().enumerate() {
            let Some((first, last)) = steps else { continue };
            assert!(starts[i] + len <= end);
            for (j, (l, others)) in all.iter().enumerate().take(i) {
                let Some((f, t)) = others else { continue };
                let apart = starts[i] + len <= starts[j] || starts[j] + l <= starts[i];
                assert!(apart || last < f || t < first, "{i} {j}");
            }
        }
        let (_, least) = share(&all);
        assert!(end < 2 * least, "{end} against {least}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes hours there; what it runs is run by the test of many storages too")]
    fn very_many_storages_take_no_time_by_their_square() {
        const ALL: usize = 300_000;
        // all are needed at the end, and none at one time
        let (_, end) = share(&(0..ALL).map(|i| (16, Some((i, ALL)))).collect::<Vec<_>>());
        assert_eq!(end, 16 * ALL);
        let (_, end) = share(&(0..ALL).map(|i| (16, Some((i, i + 1)))).collect::<Vec<_>>());
        assert_eq!(end, 32);
    }

    #[test]
    fn storages_of_one_time_do_not_overlap_and_others_share() {
        let all = [(100, Some((0, 2))), (50, Some((1, 3))), (100, Some((3, 5))), (7, None), (20, Some((2, 4)))];
        let (starts, end) = share(&all);
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate().take(i) {
                let (Some(x), Some(y)) = (a.1, b.1) else { continue };
                if x.0 <= y.1 && y.0 <= x.1 {
                    assert!(starts[i] + a.0 <= starts[j] || starts[j] + b.0 <= starts[i], "{i} {j}");
                }
            }
        }
        assert_eq!(starts[0], starts[2]);
        assert!(end <= 112 + 64 + 32);
    }

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
