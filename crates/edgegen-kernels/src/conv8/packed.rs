//! Weights in the order in which kernels read them.

use super::CHANNELS;
use super::levels::QuantParams;
use crate::Isa;
use crate::conv::{Block, Method, Shape};
use crate::pointer::Source;
use crate::simd::{Dot, Order8};
use crate::weights::Stored;
use crate::winograd::{self, Square};

/// 8-bit weights in the order in which the kernel reads them.
#[derive(Clone, Debug)]
pub struct Packed8 {
    pub(super) shape: Shape,
    /// What it is packed for.
    pub(super) tile: Tile8,
    pub(super) blocks: Vec<Block>,
    /// Whether any weight is -128.
    pub(super) least: bool,
    pub(super) weights: Weights8,
    /// What the sums start from: it takes the input's zero point away.
    pub(super) start: Vec<i32>,
    /// What a sum is multiplied with.
    pub(super) scale: Vec<f32>,
    pub(super) bias: Vec<f32>,
    /// The sums of each output channel's weights, where the input's levels are not known before it is there.
    pub(super) columns: Vec<f32>,
    /// What each output channel's weights are around, unless all are around zero.
    pub(super) zeros: Vec<f32>,
}

/// Products that a sum may have. It starts from at most 255 · 128 for each, and each adds at most as much.
const MOST: usize = i32::MAX as usize / (2 * 255 * 128);

/// What a CPU's 8-bit convolutions want of weights and pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile8 {
    /// Lanes of a vector.
    pub lanes: usize,
    /// Vectors of output channels a tile.
    pub vectors: usize,
    /// What is added to levels where they are stored, modulo 256.
    pub flip: u8,
    /// How weights lie.
    pub order: Order8,
}

/// What fills a vector's room: input channels from `c` on, of the lanes from `lane` on.
#[derive(Clone, Copy)]
struct Room {
    c: usize,
    channels: usize,
    lane: usize,
}

impl Order8 {
    /// What fills the rooms of a tap, in order.
    fn rooms(self, c_in: usize) -> Vec<Room> {
        let fours = (0..c_in).step_by(CHANNELS);
        if self != Order8::Eights {
            return fours.map(|c| Room { c, channels: CHANNELS, lane: 0 }).collect();
        }
        let sixteens = c_in / 16 * 16;
        let eights = (0..sixteens).step_by(8).map(|c| (c, 8));
        let last = fours.skip(sixteens / CHANNELS).map(|c| (c, CHANNELS));
        eights.chain(last).flat_map(|(c, channels)| [0, 2].map(|lane| Room { c, channels, lane })).collect()
    }

    /// The lane and the input channel of byte `i` of a vector's room; none for a zero.
    fn place(self, room: Room, i: usize, lanes: usize) -> Option<(usize, usize)> {
        let half = lanes * CHANNELS / 2;
        let (lane, k) = match self {
            Order8::Fours => (i / CHANNELS, i % CHANNELS),
            Order8::Pairs => (i % half / 2, 2 * (i / half) + i % 2),
            Order8::Eights => (i / 8, i % 8),
        };
        (k < room.channels).then_some((room.lane + lane, room.c + k))
    }
}

/// 8-bit weights in the order in which a kernel reads them.
#[derive(Clone, Debug)]
pub(super) enum Weights8 {
    /// As they are.
    Bytes(Vec<i8>),
    /// Transformed for [`winograd`].
    Words(Square, Vec<i16>),
}

/// How an 8-bit convolution with an output of `h` by `w` is best worked out. The sums are the same in either way.
pub fn method(isa: Isa, shape: &Shape, weights: &[i8], [h, w]: [usize; 2]) -> Method {
    let holds = |square: &Square| winograd::exact::holds(*square, weights, shape.c_out);
    if isa.tile_of_words().is_none() {
        return Method::Direct;
    }
    winograd::suits(shape, h, w, winograd::exact::MANY).find(holds).map_or(Method::Direct, Method::Winograd)
}

impl Packed8 {
    /// Packs weights `[C_out, C_in, k, k]` with a scale an output channel, for inputs of these levels.
    ///
    /// # Errors
    /// When a sum might not fit 32 bits; when there are not as many weights, scales or biases as the shape says; when a
    /// size is 0 or more than can be counted; or when the weights cannot be transformed as the method wants.
    pub fn new(
        shape: Shape,
        method: Method,
        (weights, scales): (&[i8], &[f32]),
        bias: Option<&[f32]>,
        input: QuantParams,
        isa: Isa,
    ) -> Result<Self, String> {
        shape.check()?;
        let Shape { c_out, c_in, kernel, .. } = shape;
        let taps = kernel[0] * kernel[1];
        Stored::Eight(weights, scales).check(c_out * c_in * taps, c_out)?;
        if bias.is_some_and(|b| b.len() != c_out) {
            return Err(format!("a convolution with {c_out} output channels and another number of biases"));
        }
        if c_in.next_multiple_of(CHANNELS) * taps > MOST {
            return Err(format!("8-bit sums of {} products do not fit 32 bits", c_in * taps));
        }
        let tile = isa.tile8();
        let Tile8 { lanes, vectors, flip, order } = tile;
        let (blocks, packed) = match method {
            Method::Direct => {
                let rooms = order.rooms(c_in);
                let blocks = Block::split(c_out, (lanes, vectors), taps * rooms.len() * CHANNELS);
                let packed = by_rooms(&shape, weights, (&blocks, lanes), order, &rooms);
                (blocks, Weights8::Bytes(packed))
            }
            Method::Winograd(square) => {
                let tile = isa
                    .tile_of_words()
                    .filter(|_| winograd::can(&shape) && winograd::exact::holds(square, weights, c_out));
                let Some((vectors, pair)) = tile else {
                    return Err(format!("weights that are not transformed by Winograd's method: {shape:?}"));
                };
                let blocks = Block::split(c_out, (lanes, vectors), square.positions() * c_in);
                let packed = winograd::exact::pack(square, weights, (&blocks, lanes, pair), c_in);
                (blocks, Weights8::Words(square, packed))
            }
        };
        let sum = |o: usize| weights[o * c_in * taps..][..c_in * taps].iter().map(|w| i32::from(*w)).sum::<i32>();
        // so that whole vectors may be read at the last channel
        let padded = c_out + lanes * vectors;
        let zero = i32::from(input.zero_point) - i32::from(flip);
        let mut start: Vec<i32> = (0..c_out).map(|o| -zero * sum(o)).collect();
        let mut scale: Vec<f32> =
            (0..c_out).map(|o| input.scale * scales[if scales.len() == 1 { 0 } else { o }]).collect();
        let mut bias = bias.map_or_else(|| vec![0.0; c_out], <[f32]>::to_vec);
        start.resize(padded, 0);
        scale.resize(padded, 0.0);
        bias.resize(padded, 0.0);
        let (least, columns, zeros) = (weights.contains(&i8::MIN), Vec::new(), Vec::new());
        Ok(Packed8 { shape, tile, blocks, least, weights: packed, start, scale, bias, columns, zeros })
    }

    /// Packs weights for inputs whose levels come with each [run](crate::convolve8_by_range). The weights are around `zeros`,
    /// one an output channel or one for all; around zero if there are none.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when there are zeros of another number.
    pub fn by_range(
        shape: Shape,
        (weights, scales, zeros): (&[i8], &[f32], &[f32]),
        bias: Option<&[f32]>,
        isa: Isa,
    ) -> Result<Self, String> {
        // sums of the levels themselves, of which the zero point's part is taken away in the end
        let levels = QuantParams { scale: 1.0, zero_point: 0 };
        let mut packed = Packed8::new(shape, Method::Direct, (weights, scales), bias, levels, isa)?;
        let sum = |all: &[i8]| all.iter().map(|w| i32::from(*w)).sum::<i32>() as f32;
        packed.columns = weights.chunks(weights.len() / packed.shape.c_out).map(sum).collect();
        packed.columns.resize(packed.scale.len(), 0.0);
        packed.zeros = match *zeros {
            [] => Vec::new(),
            [zero] => vec![zero; packed.scale.len()],
            _ if zeros.len() == packed.shape.c_out => zeros.to_vec(),
            _ => return Err(format!("weights around {} numbers", zeros.len())),
        };
        if !packed.zeros.is_empty() {
            packed.zeros.resize(packed.scale.len(), 0.0);
        }
        Ok(packed)
    }

    /// Whether the weights are around other numbers than zero, so that a run needs the sums of its input's levels.
    pub fn needs_sums(&self) -> bool {
        !self.zeros.is_empty()
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How it is worked out.
    pub fn method(&self) -> Method {
        match self.weights {
            Weights8::Bytes(_) => Method::Direct,
            Weights8::Words(square, _) => Method::Winograd(square),
        }
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        let weights = match &self.weights {
            Weights8::Bytes(all) => size_of_val(all.as_slice()),
            Weights8::Words(_, all) => size_of_val(all.as_slice()),
        };
        weights + 12 * self.start.len() + 4 * (self.columns.len() + self.zeros.len())
    }

    /// What the sums of vector `v` of a block start from.
    #[inline(always)]
    pub(crate) fn start<D: Dot>(&self, block: Block, v: usize) -> D::I {
        let start = &self.start[block.first + v * D::LANES..][..D::LANES];
        // SAFETY: the slice has as many.
        unsafe { Source::of(start).load(0) }
    }
}

/// Weights by blocks of output channels, taps and rooms.
fn by_rooms(
    shape: &Shape,
    weights: &[i8],
    (blocks, lanes): (&[Block], usize),
    order: Order8,
    rooms: &[Room],
) -> Vec<i8> {
    let Shape { c_in, kernel, .. } = *shape;
    let taps = kernel[0] * kernel[1];
    let mut packed = Vec::new();
    for block in blocks {
        let weight = |i: usize, c: usize, tap: usize| {
            let inside = i < block.channels && c < c_in;
            if inside { weights[((block.first + i) * c_in + c) * taps + tap] } else { 0 }
        };
        for (tap, room) in (0..taps).flat_map(|tap| rooms.iter().map(move |room| (tap, *room))) {
            for v in 0..block.vectors {
                let byte = |i| order.place(room, i, lanes).map_or(0, |(lane, c)| weight(v * lanes + lane, c, tap));
                packed.extend((0..lanes * CHANNELS).map(byte));
            }
        }
    }
    packed
}
