//! The places in memory that a step reads and writes.
//!
//! A step owns one list of [`Places`]. What the verifier proves, where values are laid out, and what a kernel is handed all
//! come from this list, so that what was checked and what is touched cannot come apart.

use kernels::arena::{Extent, ImageView, Precision};
use kernels::general::{RANK, StridedLoops};
use std::marker::PhantomData;

/// Why a place is there when a step runs: no plan runs that the verifier has not proven.
pub const PROVEN: &str = "places that the verifier has proven";

/// Which of a workspace's buffers something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Buffer {
    /// The arena of numbers in f32.
    Floats,
    /// The arena of numbers in f16.
    Halves,
    /// The arena of quantized images, one byte a number.
    Bytes,
}

impl Buffer {
    /// All of them, in their order.
    pub const ALL: [Buffer; 3] = [Buffer::Floats, Buffer::Halves, Buffer::Bytes];

    /// That of such numbers.
    pub fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Buffer::Floats,
            Precision::F16 => Buffer::Halves,
        }
    }

    /// The bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Buffer::Floats => 4,
            Buffer::Halves => 2,
            Buffer::Bytes => 1,
        }
    }
}

/// What a step does with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads all of it.
    Read,
    /// It writes all of it, each number once, so that threads may share the work.
    Write,
    /// It writes numbers several times over, as sums do. Such a step is never shared by threads.
    Accumulate,
}

/// Numbers that lie one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where the first is.
    pub start: usize,
    /// How many there are.
    pub len: usize,
}

impl Slice {
    /// One past the last.
    pub fn end(self) -> usize {
        self.start + self.len
    }
}

/// The dimensions of a [`Strided`]: those of loops, and two more for the rows and columns of matrices.
pub const MOST_DIMS: usize = RANK + 2;

/// Numbers `start + Σ index · stride`, for every index within the dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strided {
    /// Where the first is.
    pub start: usize,
    /// The dimensions; those that are not needed are 1.
    pub dims: [usize; MOST_DIMS],
    /// How far apart neighbours are in each dimension.
    pub strides: [usize; MOST_DIMS],
}

impl Strided {
    /// The values of loops, as places.
    pub fn of_loops<const N: usize>(loops: &StridedLoops<N>) -> [Self; N] {
        Self::of_matrices(loops, [[(1, 0); 2]; N])
    }

    /// For each index of loops a matrix, whose rows and columns have these lengths and strides.
    pub fn of_matrices<const N: usize>(loops: &StridedLoops<N>, sides: [[(usize, usize); 2]; N]) -> [Self; N] {
        let (outer, all) = loops.parts();
        std::array::from_fn(|v| {
            let (start, outer_strides) = all[v];
            let (mut dims, mut strides) = ([1; MOST_DIMS], [0; MOST_DIMS]);
            dims[..RANK].copy_from_slice(&outer);
            strides[..RANK].copy_from_slice(&outer_strides);
            for (d, (len, stride)) in sides[v].into_iter().enumerate() {
                (dims[RANK + d], strides[RANK + d]) = (len, stride);
            }
            Strided { start, dims, strides }
        })
    }

    /// StridedLoops over several places of the same dimensions, but for their rows and columns; none if they cannot be counted.
    pub fn loops<const N: usize>(places: [Self; N]) -> Option<StridedLoops<N>> {
        let outer = |all: &[usize; MOST_DIMS]| std::array::from_fn::<usize, RANK, _>(|d| all[d]);
        StridedLoops::from_parts(outer(&places[0].dims), places.map(|p| (p.start, outer(&p.strides))))
    }

    /// Where index number `i` of the loops of several places of the same dimensions begins in each.
    pub fn starts<const N: usize>(places: [&Self; N], i: usize) -> [usize; N] {
        let (mut rest, mut at) = (i, places.map(|place| place.start));
        for d in (0..RANK).rev() {
            let index = rest % places[0].dims[d];
            rest /= places[0].dims[d];
            at.iter_mut().zip(places).for_each(|(at, place)| *at += index * place.strides[d]);
        }
        at
    }

    /// How many indices its loops have.
    pub fn outer_len(&self) -> usize {
        self.dims[..RANK].iter().fold(1, |n: usize, d| n.saturating_mul(*d))
    }

    /// The length and the stride of each matrix's rows and columns.
    pub fn matrix(&self) -> [(usize, usize); 2] {
        std::array::from_fn(|d| (self.dims[RANK + d], self.strides[RANK + d]))
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.dims.iter().fold(1, |n: usize, d| n.saturating_mul(*d))
    }
}

/// The numbers of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Numbers that lie together.
    Slice(Slice),
    /// Numbers at regular distances.
    Strided(Strided),
    /// The pixels of an image.
    Image(Extent),
    /// The pixels of an image and what lies around it.
    Bordered(Extent),
    /// What lies around an image alone and, for bytes, what fills its pixels up to whole groups of channels.
    Edges(Extent),
}

/// A region of one of the buffers, and what a step does with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// What is done with it.
    pub access: Access,
    /// Which buffer it is in.
    pub buffer: Buffer,
    /// Its numbers.
    pub region: Region,
    /// Which of the plan's storages it lies in.
    pub storage: usize,
}

/// A place of a step, by its number in the list, and what its region is.
pub struct Handle<T> {
    index: usize,
    region: PhantomData<fn() -> T>,
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> std::fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "place {}", self.index)
    }
}

/// A kind of region that a [`Handle`] can be of.
pub trait Kind: Sized {
    /// What the region is, if it is of this kind.
    fn of(region: &Region) -> Option<Self>;
}

impl Kind for Slice {
    fn of(region: &Region) -> Option<Self> {
        if let Region::Slice(slice) = region { Some(*slice) } else { None }
    }
}

impl Kind for Strided {
    fn of(region: &Region) -> Option<Self> {
        if let Region::Strided(strided) = region { Some(*strided) } else { None }
    }
}

impl Kind for ImageView {
    fn of(region: &Region) -> Option<Self> {
        match region {
            Region::Image(view) | Region::Bordered(view) | Region::Edges(view) => ImageView::new(*view),
            Region::Slice(_) | Region::Strided(_) => None,
        }
    }
}

/// Every place that a step reads or writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places(Vec<Place>);

impl Places {
    fn add<T>(&mut self, access: Access, buffer: Buffer, region: Region) -> Handle<T> {
        self.0.push(Place { access, buffer, region, storage: 0 });
        Handle { index: self.0.len() - 1, region: PhantomData }
    }

    /// Numbers in f32 that lie together.
    pub fn slice(&mut self, access: Access, slice: Slice) -> Handle<Slice> {
        self.add(access, Buffer::Floats, Region::Slice(slice))
    }

    /// Such numbers that lie together.
    pub fn slice_of(&mut self, precision: Precision, access: Access, slice: Slice) -> Handle<Slice> {
        self.add(access, Buffer::of(precision), Region::Slice(slice))
    }

    /// Numbers in f32 at regular distances.
    pub fn strided(&mut self, access: Access, strided: Strided) -> Handle<Strided> {
        self.add(access, Buffer::Floats, Region::Strided(strided))
    }

    /// Such numbers at regular distances.
    pub fn strided_of(&mut self, precision: Precision, access: Access, strided: Strided) -> Handle<Strided> {
        self.add(access, Buffer::of(precision), Region::Strided(strided))
    }

    /// An image in f32 or f16.
    pub fn image(&mut self, access: Access, view: ImageView) -> Handle<ImageView> {
        self.add(access, Buffer::of(view.precision), Region::Image(*view))
    }

    /// An image in f32 or f16 that is read with the zeros around it.
    pub fn bordered(&mut self, view: ImageView) -> Handle<ImageView> {
        self.add(Access::Read, Buffer::of(view.precision), Region::Bordered(*view))
    }

    /// A quantized image that is written.
    pub fn quantized(&mut self, view: ImageView) -> Handle<ImageView> {
        self.add(Access::Write, Buffer::Bytes, Region::Image(*view))
    }

    /// A quantized image that is read with the zero points around it.
    pub fn quantized_bordered(&mut self, view: ImageView) -> Handle<ImageView> {
        self.add(Access::Read, Buffer::Bytes, Region::Bordered(*view))
    }

    /// What lies around an image, which is written.
    pub fn edges(&mut self, buffer: Buffer, view: ImageView) -> Handle<ImageView> {
        self.add(Access::Write, buffer, Region::Edges(*view))
    }

    /// What and where the place of this handle is.
    ///
    /// # Panics
    /// With a handle of another list, or when the place is an image that cannot be: the verifier refuses those first.
    pub fn get<T: Kind>(&self, handle: Handle<T>) -> T {
        T::of(&self.0[handle.index].region).expect("a handle is of the list that gave it")
    }

    /// What the numbers of the place of this handle are, if it is not in 8 bits.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    pub fn precision<T>(&self, handle: Handle<T>) -> Precision {
        if self.0[handle.index].buffer == Buffer::Halves { Precision::F16 } else { Precision::F32 }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Place> {
        self.0.iter()
    }

    /// All of them, to be moved.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.0.iter_mut()
    }
}

impl Region {
    /// Where its first number is said to be, which lies in its storage.
    pub fn start(&self) -> usize {
        match self {
            Region::Slice(s) => s.start,
            Region::Strided(s) => s.start,
            Region::Image(v) | Region::Bordered(v) | Region::Edges(v) => v.start,
        }
    }

    /// The same region elsewhere.
    pub fn move_to(&mut self, start: usize) {
        match self {
            Region::Slice(s) => s.start = start,
            Region::Strided(s) => s.start = start,
            Region::Image(v) | Region::Bordered(v) | Region::Edges(v) => v.start = start,
        }
    }
}
