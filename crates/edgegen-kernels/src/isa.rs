//! The kinds of CPU that there are kernels for.

use crate::arena::Precision;
use crate::conv8::Tile8;
use crate::simd::{self, Dot, Vector, Words};

/// A kind of vectors that there are kernels for, and the proof that this CPU has it: a value is only to be had from
/// detection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa {
    pub(crate) kind: Kind,
    pub(crate) halves: Halves,
}

/// What 16-bit sums and products are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halves {
    /// None are made: numbers of 16 bits are widened first.
    None,
    /// FEAT_FP16 (64-bit ARM).
    #[cfg(target_arch = "aarch64")]
    Native,
    /// Software.
    #[cfg(any(test, feature = "emulate-halves"))]
    Emulated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// AVX-512 with VNNI (x86-64).
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// AVX-512 (x86-64).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA and VNNI (x86-64).
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2 with FMA (x86-64).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON with the matrix products of FEAT_I8MM (64-bit ARM).
    #[cfg(target_arch = "aarch64")]
    I8mm,
    /// NEON with the dot products of FEAT_DotProd (64-bit ARM).
    #[cfg(target_arch = "aarch64")]
    Sdot,
    /// NEON (64-bit ARM).
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// What every CPU of the target has.
    Portable,
}

impl std::fmt::Debug for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Isa {
    /// What every CPU of the target has.
    pub const PORTABLE: Self = Isa { kind: Kind::Portable, halves: Halves::None };

    /// The best that this CPU has.
    pub fn detect() -> Self {
        Isa::available()[0]
    }

    /// Every kind that this CPU can run, the best first and the portable one last.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            if is_x86_feature_detected!("avx512f") {
                all.extend(is_x86_feature_detected!("avx512vnni").then_some(Kind::Vnni));
                all.push(Kind::Avx512);
            }
            all.extend(is_x86_feature_detected!("avxvnni").then_some(Kind::AvxVnni));
            all.push(Kind::Avx2);
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            all.extend(std::arch::is_aarch64_feature_detected!("i8mm").then_some(Kind::I8mm));
            all.extend(std::arch::is_aarch64_feature_detected!("dotprod").then_some(Kind::Sdot));
            all.push(Kind::Neon);
        }
        #[cfg(target_arch = "aarch64")]
        let halves = if std::arch::is_aarch64_feature_detected!("fp16") { Halves::Native } else { Halves::None };
        #[cfg(not(target_arch = "aarch64"))]
        let halves = Halves::None;
        all.into_iter().map(|kind| Isa { kind, halves }).chain([Isa::PORTABLE]).collect()
    }

    /// Whether this CPU computes in 16 bits: else what is kept in 16 bits is widened to be computed with.
    pub fn computes_in_halves(self) -> bool {
        self.halves != Halves::None
    }

    /// The same without sums and products of 16 bits.
    pub fn without_halves(self) -> Self {
        Isa { halves: Halves::None, ..self }
    }

    /// The same with sums and products of 16 bits by software: the bits of a CPU that has them, for tests, since it is slow.
    #[cfg(any(test, feature = "emulate-halves"))]
    pub fn emulating_halves(self) -> Self {
        Isa { halves: Halves::Emulated, ..self }
    }

    /// Whether one instruction of this CPU multiplies matrices of bytes (FEAT_I8MM).
    pub fn multiplies_matrices_of_bytes(self) -> bool {
        #[cfg(target_arch = "aarch64")]
        return self.kind == Kind::I8mm;
        #[cfg(not(target_arch = "aarch64"))]
        false
    }

    /// Whether it is what every CPU of the target has.
    pub fn is_portable(self) -> bool {
        self.kind == Kind::Portable
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self.kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => "AVX-VNNI",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm => "NEON I8MM",
            #[cfg(target_arch = "aarch64")]
            Kind::Sdot => "NEON DotProd",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "NEON",
            Kind::Portable => "portable",
        }
    }

    /// Numbers in a vector, and vectors of output channels a convolution's tile.
    pub fn tile(self) -> (usize, usize) {
        match self.kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni | Kind::Avx512 => tile_of::<simd::Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni | Kind::Avx2 => tile_of::<simd::Avx2>(),
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm | Kind::Sdot | Kind::Neon => tile_of::<simd::Neon>(),
            Kind::Portable => tile_of::<simd::Portable>(),
        }
    }

    /// The same for pictures in such numbers.
    pub fn tile_of(self, precision: Precision) -> (usize, usize) {
        match (precision, self.halves) {
            #[cfg(any(test, feature = "emulate-halves"))]
            (Precision::F16, Halves::Emulated) => tile_of::<simd::PortableHalf>(),
            #[cfg(target_arch = "aarch64")]
            (Precision::F16, Halves::Native) => tile_of::<simd::NeonHalf>(),
            _ => self.tile(),
        }
    }

    /// What 8-bit convolutions want.
    pub(crate) fn tile8(self) -> Tile8 {
        match self.kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => tile8_of::<simd::Vnni>(),
            // without VNNI, 512-bit vectors multiply bytes no better than 256-bit ones
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 | Kind::Avx2 => tile8_of::<simd::Avx2>(),
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => tile8_of::<simd::AvxVnni>(),
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm => tile8_of::<simd::I8mm>(),
            #[cfg(target_arch = "aarch64")]
            Kind::Sdot => tile8_of::<simd::Sdot>(),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => tile8_of::<simd::Neon>(),
            Kind::Portable => tile8_of::<simd::Portable>(),
        }
    }

    /// For kinds of CPU that multiply bytes no faster than words: vectors of output channels a tile, and input channels whose
    /// weights lie together. Vectors are as long as those of [`tile8`](Self::tile8).
    pub(crate) fn tile_of_words(self) -> Option<(usize, usize)> {
        match self.kind {
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni | Kind::AvxVnni => None,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 | Kind::Avx2 => Some(tile_of_words::<simd::Avx2>()),
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm | Kind::Sdot => None,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => Some(tile_of_words::<simd::Neon>()),
            Kind::Portable => Some(tile_of_words::<simd::Portable>()),
        }
    }

    /// Numbers in a vector of what 8-bit convolutions add up.
    pub fn lanes_of_bytes(self) -> usize {
        self.tile8().lanes
    }

    /// The byte that stands for a level in 8-bit pictures.
    pub fn byte(self, level: u8) -> u8 {
        level.wrapping_add(self.tile8().flip)
    }
}

fn tile_of<S: Vector>() -> (usize, usize) {
    (S::LANES, S::PIXELS.len())
}

pub(crate) fn tile8_of<D: Dot>() -> Tile8 {
    Tile8 { lanes: D::LANES, vectors: D::PIXELS.len(), flip: D::FLIP, order: D::ORDER }
}

fn tile_of_words<W: Words>() -> (usize, usize) {
    (W::PIXELS_OF_WORDS.len(), W::PAIR)
}
