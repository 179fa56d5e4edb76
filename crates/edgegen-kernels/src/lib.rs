//! The kernels, and the one place that decides which of them a CPU gets.
//!
//! Each kernel makes a [`Part`] of a step's output in [`Memory`] that threads may share. Values lie there as [`arena`] says.
//!
//! This is a crate of its own since to compile it takes longer than the rest of edgegen.
#![allow(clippy::len_without_is_empty, reason = "part of edgegen, which never asks")]

pub mod arena;
pub mod attention;
pub mod conv;
pub mod conv8;
pub mod dense;
pub mod depthwise;
pub mod general;
pub mod grid;
mod memory;
mod pointer;
pub mod pool;
pub mod reduce;
pub mod resample;
mod simd;
pub mod weights;
pub mod winograd;

use arena::{ImageView, Precision};
use conv::Method;
use conv8::Tile8;
use half::f16;
pub use memory::{Memory, Part};
use simd::{Dot, Simd, Vector, Words};

/// A kind of vectors that there are kernels for, and the proof that this CPU has it: a value is only to be had from
/// detection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa {
    kind: Kind,
    halves: Halves,
}

/// What 16-bit sums and products are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halves {
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
enum Kind {
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

/// Defines a safe function that runs `$body` compiled for the CPU's features, with a token of the CPU's vectors as `$s`, or
/// of those for 8 bits as `$d`. Kinds that differ by what they do with bytes alone share a function of the first form.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident[$s:ident] $args:tt $body:expr) => {
        dispatched!(@ $(#[$doc])* $name, $s, $args, $args, $body;
            #[cfg(target_arch = "x86_64")] Vnni | Avx512: "avx512f,avx2,fma,f16c" avx512 Avx512;
            #[cfg(target_arch = "x86_64")] AvxVnni | Avx2: "avx2,fma,f16c" avx2 Avx2;
            #[cfg(target_arch = "aarch64")] I8mm | Sdot | Neon: "neon" neon Neon;
        );
    };
    ($(#[$doc:meta])* $name:ident[8: $d:ident] $args:tt $body:expr) => {
        dispatched!(@ $(#[$doc])* $name, $d, $args, $args, $body;
            #[cfg(target_arch = "x86_64")] Vnni: "avx512f,avx512vnni,avx2,fma,f16c" vnni Vnni;
            // without VNNI, 512-bit vectors multiply bytes no better than 256-bit ones
            #[cfg(target_arch = "x86_64")] Avx512: "avx512f,avx2,fma,f16c" avx512 Avx2;
            #[cfg(target_arch = "x86_64")] AvxVnni: "avx2,fma,f16c,avxvnni" avx_vnni AvxVnni;
            #[cfg(target_arch = "x86_64")] Avx2: "avx2,fma,f16c" avx2 Avx2;
            #[cfg(target_arch = "aarch64")] I8mm: "neon,i8mm" i8mm I8mm;
            #[cfg(target_arch = "aarch64")] Sdot: "neon,dotprod" sdot Sdot;
            #[cfg(target_arch = "aarch64")] Neon: "neon" neon Neon;
        );
    };
    // the arguments come twice: to be named one by one, and to be handed on whole
    (@ $(#[$doc:meta])* $name:ident, $token:ident, ($($arg:ident: $t:ty),*), $args:tt, $body:expr;
        $(#[$cfg:meta] $($isa:ident)|+: $features:literal $function:ident $vectors:ident;)*) => {
        $(#[$doc])*
        pub fn $name(isa: Isa, $($arg: $t),*) {
            $(
                #[$cfg]
                #[target_feature(enable = $features)]
                fn $function $args {
                    let $token = simd::$vectors::new();
                    $body
                }
            )*
            fn portable $args {
                let $token = simd::Portable;
                $body
            }
            match isa.kind {
                $(
                    // SAFETY: `Isa::available` found the features, or there would be no such value.
                    #[$cfg]
                    $(Kind::$isa)|+ => unsafe { dispatched!(@call $function $args) },
                )*
                Kind::Portable => portable($($arg),*),
            }
        }
    };
    (@call $function:ident ($($arg:ident: $t:ty),*)) => { $function($($arg),*) };
}

/// Defines a function that runs `$body` in 16 bits where the CPU computes in these, with tokens of its vectors of f32 as `$s` and
/// of f16 as `$h`; elsewhere it runs `$otherwise`.
macro_rules! dispatched_in_halves {
    ($name:ident[$s:ident: $h:ident] $args:tt $body:expr; else $otherwise:expr) => {
        dispatched_in_halves!(@ $name, $s, $h, $args, $args, $body, $otherwise);
    };
    (@ $name:ident, $s:ident, $h:ident, ($isa:ident: $kind:ty, $($arg:ident: $t:ty),*), $args:tt, $body:expr, $otherwise:expr) => {
        fn $name $args {
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,fp16")]
            fn native($($arg: $t),*) {
                let ($s, $h) = (simd::Neon::new(), simd::NeonHalf::new());
                $body
            }
            #[cfg(any(test, feature = "emulate-halves"))]
            fn emulated($($arg: $t),*) {
                let ($s, $h) = (simd::Fused, simd::PortableHalf);
                $body
            }
            match $isa.halves {
                #[cfg(any(test, feature = "emulate-halves"))]
                Halves::Emulated => emulated($($arg),*),
                // SAFETY: `Isa::available` found the features, or there would be no such value.
                #[cfg(target_arch = "aarch64")]
                Halves::Native => unsafe { native($($arg),*) },
                Halves::None => $otherwise,
            }
        }
    };
}

/// Runs a convolution, with as much `work` as its [`method`](conv::Packed::method) wants.
///
/// # Panics
/// When a picture does not lie within the memory, when sizes do not fit one another, or when `work` is too small.
pub fn convolve(isa: Isa, run: &conv::Run, part: Part, work: &mut [f32], memory: Memory) {
    match run.packed.precision() {
        Precision::F32 => convolve_floats(isa, run, part, work, memory),
        Precision::F16 => convolve_halves(isa, run, part, work, memory),
    }
}

dispatched! {
    convolve_floats[s](run: &conv::Run, part: Part, work: &mut [f32], memory: Memory)
        conv::run(s, run, part, work, memory)
}

dispatched_in_halves! {
    convolve_halves[_s: h](isa: Isa, run: &conv::Run, part: Part, work: &mut [f32], memory: Memory)
        conv::run_halves(h, run, part, work, memory);
    else convolve_widened(isa, run, part, work, memory)
}

dispatched! {
    convolve_widened[s](run: &conv::Run, part: Part, work: &mut [f32], memory: Memory)
        conv::run_halves(s, run, part, work, memory)
}

/// Runs an 8-bit convolution, with as much `work` as its [`method`](conv8::Packed8::method) wants.
pub fn convolve8(isa: Isa, run: &conv8::Run8, part: Part, work: &mut [f32], memory: Memory) {
    match run.packed.method() {
        Method::Direct => convolve_bytes(isa, run, None, part, memory),
        Method::Winograd(_) => convolve_words(isa, run, part, work, memory),
    }
}

/// Runs an 8-bit convolution of an input of these levels, with weights that are packed for [any](conv8::Packed8::by_range).
///
/// # Panics
/// As [`convolve8`], and when the weights are packed for others.
pub fn convolve8_by_range(isa: Isa, run: &conv8::Run8, levels: conv8::ByRange, part: Part, memory: Memory) {
    convolve_bytes(isa, run, Some(levels), part, memory);
}

dispatched! {
    /// Runs an 8-bit convolution as it is defined.
    convolve_bytes[8: d](run: &conv8::Run8, levels: Option<conv8::ByRange>, part: Part, memory: Memory)
        conv8::run(d, run, levels, part, memory)
}

dispatched! {
    /// Runs an 8-bit convolution by Winograd's filtering.
    convolve_words[s](run: &conv8::Run8, part: Part, work: &mut [f32], memory: Memory)
        conv8::run_words(s.words(), run, part, work, memory)
}

/// Runs a depthwise convolution.
///
/// # Panics
/// As [`convolve`].
pub fn convolve_depthwise(isa: Isa, run: &depthwise::Run, part: Part, memory: Memory) {
    match run.input.precision {
        Precision::F32 => depthwise_floats(isa, run, part, memory),
        Precision::F16 => depthwise_halves(isa, run, part, memory),
    }
}

dispatched! {
    depthwise_floats[s](run: &depthwise::Run, part: Part, memory: Memory) depthwise::run::<_, f32>(s, run, part, memory)
}

dispatched_in_halves! {
    depthwise_halves[_s: h](isa: Isa, run: &depthwise::Run, part: Part, memory: Memory)
        depthwise::run::<_, f16>(h, run, part, memory);
    else depthwise_widened(isa, run, part, memory)
}

dispatched! {
    depthwise_widened[s](run: &depthwise::Run, part: Part, memory: Memory)
        depthwise::run::<_, f16>(s, run, part, memory)
}

dispatched! {
    /// Makes a number of every window of each channel.
    ///
    /// # Panics
    /// As [`convolve`], and when a window has nothing of its picture.
    pool[_s](sides: [pool::Side; 2], f: pool::Pooling, input: ImageView, output: ImageView, part: Part, memory: Memory)
        pool::run(sides, f, input, output, part, memory)
}

dispatched! {
    /// Makes a picture of another size.
    ///
    /// # Panics
    /// As [`convolve`].
    resample[_s](rows: &resample::Taps, columns: &resample::Taps, input: ImageView, output: ImageView, part: Part, memory: Memory)
        resample::run(rows, columns, input, output, part, memory)
}

dispatched! {
    /// Makes a picture of another one, read where a grid of coordinates says.
    ///
    /// # Panics
    /// As [`convolve`].
    sample_grid[_s](sampling: grid::Sampling, input: ImageView, at: usize, output: ImageView, part: Part, memory: Memory)
        grid::run(sampling, input, at, output, part, memory)
}

/// Runs a group normalization, with `work` of four times the channels.
///
/// # Panics
/// As [`convolve`].
pub fn normalize(
    isa: Isa,
    n: &dense::GroupNorm,
    input: ImageView,
    output: dense::Output,
    part: Part,
    work: &mut [f32],
    memory: Memory,
) {
    match (input.precision, output) {
        (Precision::F16, dense::Output::Float(output)) => normalize_halves(isa, n, input, output, part, work, memory),
        _ => normalize_any(isa, n, input, output, part, work, memory),
    }
}

dispatched! {
    normalize_any[8: d](n: &dense::GroupNorm, input: ImageView, output: dense::Output, part: Part, work: &mut [f32], memory: Memory)
        match input.precision {
            Precision::F32 => dense::norm::<_, f32>(d, n, input, output, part, work, memory),
            Precision::F16 => dense::norm::<_, f16>(d, n, input, output, part, work, memory),
        }
}

dispatched_in_halves! {
    normalize_halves[s: h](isa: Isa, n: &dense::GroupNorm, input: ImageView, output: ImageView, part: Part, work: &mut [f32], memory: Memory)
        dense::norm_half((s, h), n, (input, output), part, work, memory);
    else normalize_any(isa, n, input, dense::Output::Float(output), part, work, memory)
}

dispatched! {
    /// Scales and shifts every channel of a picture.
    ///
    /// # Panics
    /// As [`convolve`].
    scale_channels[8: d](a: &dense::Affine, input: ImageView, output: ImageView, part: Part, memory: Memory)
        match input.precision {
            Precision::F32 => dense::scale::<_, f32>(d, a, input, output, part, memory),
            Precision::F16 => dense::scale::<_, f16>(d, a, input, output, part, memory),
        }
}

dispatched! {
    /// Does something to every number of a picture.
    ///
    /// # Panics
    /// As [`convolve`].
    map[8: d](op: dense::Map, input: ImageView, output: dense::Output, part: Part, memory: Memory)
        match input.precision {
            Precision::F32 => dense::map::<_, f32>(d, op, input, output, part, memory),
            Precision::F16 => dense::map::<_, f16>(d, op, input, output, part, memory),
        }
}

dispatched! {
    /// Makes every pixel a square of four.
    ///
    /// # Panics
    /// As [`convolve`].
    upsample[s](input: ImageView, output: ImageView, part: Part, memory: Memory) match input.precision {
        Precision::F32 => dense::upsample::<_, f32>(s, input, output, part, memory),
        Precision::F16 => dense::upsample::<_, f16>(s, input, output, part, memory),
    }
}

dispatched! {
    /// Runs an attention, with `work` of its [`work_len`](attention::Attention::work_len).
    ///
    /// # Panics
    /// As [`convolve`].
    attend[s](a: &attention::Attention, mask: Option<&[f32]>, part: Part, work: &mut [f32], memory: Memory)
        match a.query().precision {
            Precision::F32 => attention::run::<_, f32>(s, a, mask, part, work, memory),
            Precision::F16 => attention::run::<_, f16>(s, a, mask, part, work, memory),
        }
}

dispatched! {
    /// Multiplies a matrix with a vector.
    ///
    /// # Panics
    /// When the vectors are not of the matrix's sizes.
    multiply[s](matrix: &dense::Matrix, x: &[f32], out: &mut [f32]) dense::matrix_vector(s, matrix, x, out)
}

dispatched! {
    /// Does something to every number of a value.
    ///
    /// # Panics
    /// When a value does not lie within the memory, or numbers of the result lie in the same place.
    unary[_s](f: general::Unary, loops: &general::StridedLoops<2>, part: Part, memory: Memory)
        general::unary(f, loops, part, memory)
}

dispatched! {
    /// Copies a value into another of the same or of other numbers. What is too large for 16 bits becomes infinite.
    ///
    /// # Panics
    /// As [`unary`].
    convert[s](from: Precision, to: Precision, loops: &general::StridedLoops<2>, part: Part, memory: Memory)
        match (from, to) {
            (Precision::F32, Precision::F32) => general::convert::<_, f32, f32>(s, loops, part, memory),
            (Precision::F32, Precision::F16) => general::convert::<_, f32, f16>(s, loops, part, memory),
            (Precision::F16, Precision::F32) => general::convert::<_, f16, f32>(s, loops, part, memory),
            (Precision::F16, Precision::F16) => general::convert::<_, f16, f16>(s, loops, part, memory),
        }
}

dispatched! {
    /// Makes one number of every two of two values.
    ///
    /// # Panics
    /// As [`unary`].
    binary[_s](f: general::Binary, loops: &general::StridedLoops<3>, part: Part, memory: Memory)
        general::binary(f, loops, part, memory)
}

dispatched! {
    /// The number of the second of three values where that of the first is not 0, else that of the third.
    ///
    /// # Panics
    /// As [`unary`].
    choose[_s](loops: &general::StridedLoops<4>, part: Part, memory: Memory) general::choose(loops, part, memory)
}

dispatched! {
    /// Makes one of many numbers.
    ///
    /// # Panics
    /// As [`unary`].
    reduce[_s](f: reduce::Reduction, loops: &general::StridedLoops<2>, inner: &general::StridedLoops<1>, part: Part, memory: Memory)
        reduce::run(f, loops, inner, part, memory)
}

dispatched! {
    /// Does something to each run of `length` numbers.
    ///
    /// # Panics
    /// As [`unary`].
    rows[_s](f: &general::RowOp, loops: &general::StridedLoops<2>, length: usize, part: Part, memory: Memory)
        general::rows(f, loops, length, part, memory)
}

dispatched! {
    /// Multiplies matrices, with `work` of their [`work_len`](general::MatMul::work_len).
    ///
    /// # Panics
    /// When a matrix does not lie within the memory, or `work` is too small.
    matmul[s](product: &general::MatMul, part: Part, work: &mut [f32], memory: Memory)
        general::matmul(s, product, part, work, memory)
}

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;
