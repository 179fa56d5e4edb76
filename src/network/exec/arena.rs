//! Where pictures lie in the one buffer that a run works in.

/// A picture of `c` channels in the arena, or some of the channels of one. The channels of a pixel lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
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

impl View {
    /// Channels `first..first + c` of this picture.
    pub fn channels(self, first: usize, c: usize) -> Self {
        debug_assert!(first + c <= self.c);
        View { c, start: self.start + first, ..self }
    }

    /// Where each pixel is, row by row.
    #[inline(always)]
    pub fn pixels(self) -> impl Iterator<Item = usize> {
        (0..self.h).flat_map(move |y| (0..self.w).map(move |x| self.start + y * self.row + x * self.pixel))
    }

    /// Whether the picture lies within an arena of `len` numbers.
    pub fn fits(self, len: usize) -> bool {
        self.start + (self.h - 1) * self.row + (self.w - 1) * self.pixel + self.c <= len
    }

    /// Whether a window of `height` by `width` pixels that begins `padding` rows above and pixels left of the picture
    /// lies within the picture and its border, and that within an arena of `len` numbers.
    pub fn reaches(self, padding: [usize; 2], height: usize, width: usize, len: usize) -> bool {
        let [rows, pixels] = self.border;
        padding[0] <= rows
            && padding[1] <= pixels
            && height <= self.h + padding[0] + rows
            && width <= self.w + padding[1] + pixels
            && self.start >= padding[0] * self.row + padding[1] * self.pixel
            && self.start + (self.h - 1 + rows) * self.row + (self.w - 1 + pixels) * self.pixel + self.c <= len
    }
}

/// Lays pictures out one after the other. What is between them stays zero, and is their borders.
#[derive(Default)]
pub struct Layout {
    len: usize,
}

impl Layout {
    /// A place for a picture with a border of zeros around it.
    pub fn place(&mut self, [c, h, w]: [usize; 3], border: [usize; 2]) -> View {
        let (pixel, row) = (c, (w + 2 * border[1]) * c);
        let start = self.len + border[0] * row + border[1] * pixel;
        self.len += (h + 2 * border[0]) * row;
        View { c, h, w, start, pixel, row, border }
    }

    /// The numbers that all pictures take.
    pub fn len(&self) -> usize {
        self.len
    }
}
