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
pub mod general;
mod memory;
mod simd;
pub mod weights;
pub mod winograd;

use arena::View;
use conv::Method;
use conv8::Tile8;
pub use memory::{Memory, Part};
use simd::{Dot, Simd, Words};

/// The kinds of vectors that there are kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
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

impl Isa {
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
                all.extend(is_x86_feature_detected!("avx512vnni").then_some(Isa::Vnni));
                all.push(Isa::Avx512);
            }
            all.extend(is_x86_feature_detected!("avxvnni").then_some(Isa::AvxVnni));
            all.push(Isa::Avx2);
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.extend(std::arch::is_aarch64_feature_detected!("i8mm").then_some(Isa::I8mm));
            all.extend(std::arch::is_aarch64_feature_detected!("dotprod").then_some(Isa::Sdot));
            all.push(Isa::Neon);
        }
        all.push(Isa::Portable);
        all
    }

    /// Numbers in a vector, and vectors of output channels a convolution's tile.
    pub fn tile(self) -> (usize, usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni | Isa::Avx512 => tile_of::<simd::Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni | Isa::Avx2 => tile_of::<simd::Avx2>(),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm | Isa::Sdot | Isa::Neon => tile_of::<simd::Neon>(),
            Isa::Portable => tile_of::<simd::Portable>(),
        }
    }

    /// What 8-bit convolutions want.
    pub fn tile8(self) -> Tile8 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni => tile8_of::<simd::Vnni>(),
            // without VNNI, 512-bit vectors multiply bytes no better than 256-bit ones
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => tile8_of::<simd::Avx2>(),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => tile8_of::<simd::AvxVnni>(),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm => tile8_of::<simd::I8mm>(),
            #[cfg(target_arch = "aarch64")]
            Isa::Sdot => tile8_of::<simd::Sdot>(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => tile8_of::<simd::Neon>(),
            Isa::Portable => tile8_of::<simd::Portable>(),
        }
    }

    /// For kinds of CPU that multiply bytes no faster than words: vectors of output channels a tile, and input channels whose
    /// weights lie together. Vectors are as long as those of [`tile8`](Self::tile8).
    pub fn tile_of_words(self) -> Option<(usize, usize)> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni | Isa::AvxVnni => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => Some(tile_of_words::<simd::Avx2>()),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm | Isa::Sdot => None,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(tile_of_words::<simd::Neon>()),
            Isa::Portable => Some(tile_of_words::<simd::Portable>()),
        }
    }

    /// The byte that stands for a level in 8-bit pictures.
    pub fn byte(self, level: u8) -> u8 {
        level.wrapping_add(self.tile8().flip)
    }
}

fn tile_of<S: Simd>() -> (usize, usize) {
    (S::LANES, S::PIXELS.len())
}

fn tile8_of<D: Dot>() -> Tile8 {
    Tile8 { lanes: D::LANES, vectors: D::PIXELS.len(), flip: D::FLIP, order: D::ORDER }
}

fn tile_of_words<W: Words>() -> (usize, usize) {
    (W::PIXELS_OF_WORDS.len(), W::PAIR)
}

/// Defines a safe function that runs `$body` compiled for the CPU's features, with the CPU's vectors as `S`, and as `D`
/// for 8 bits. Without `D`, kinds that differ by what they do with bytes share a function.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident<$s:ident> $args:tt $body:block) => {
        dispatched!(@ $(#[$doc])* $name, $s, Bytes, $args, $args, $body;
            #[cfg(target_arch = "x86_64")] Vnni | Avx512: "avx512f,avx2,fma,f16c" avx512 Avx512 Avx2;
            #[cfg(target_arch = "x86_64")] AvxVnni | Avx2: "avx2,fma,f16c" avx2 Avx2 Avx2;
            #[cfg(target_arch = "aarch64")] I8mm | Sdot | Neon: "neon" neon Neon Neon;
        );
    };
    ($(#[$doc:meta])* $name:ident<$s:ident, $d:ident> $args:tt $body:block) => {
        dispatched!(@ $(#[$doc])* $name, $s, $d, $args, $args, $body;
            #[cfg(target_arch = "x86_64")] Vnni: "avx512f,avx512vnni,avx2,fma,f16c" vnni Avx512 Vnni;
            #[cfg(target_arch = "x86_64")] Avx512: "avx512f,avx2,fma,f16c" avx512 Avx512 Avx2;
            #[cfg(target_arch = "x86_64")] AvxVnni: "avx2,fma,f16c,avxvnni" avx_vnni Avx2 AvxVnni;
            #[cfg(target_arch = "x86_64")] Avx2: "avx2,fma,f16c" avx2 Avx2 Avx2;
            #[cfg(target_arch = "aarch64")] I8mm: "neon,i8mm" i8mm Neon I8mm;
            #[cfg(target_arch = "aarch64")] Sdot: "neon,dotprod" sdot Neon Sdot;
            #[cfg(target_arch = "aarch64")] Neon: "neon" neon Neon Neon;
        );
    };
    // the arguments come twice: to be named one by one, and to be handed on whole
    (@ $(#[$doc:meta])* $name:ident, $s:ident, $d:ident, ($($arg:ident: $t:ty),*), $args:tt, $body:block;
        $(#[$cfg:meta] $($isa:ident)|+: $features:literal $function:ident $vectors:ident $bytes:ident;)*) => {
        $(#[$doc])*
        pub fn $name(isa: Isa, $($arg: $t),*) {
            $(
                #[$cfg]
                #[target_feature(enable = $features)]
                unsafe fn $function $args {
                    dispatched!(@types $s = $vectors, $d = $bytes);
                    $body
                }
            )*
            fn portable $args {
                dispatched!(@types $s = Portable, $d = Portable);
                $body
            }
            match isa {
                $(
                    // SAFETY: `Isa::available` found the features.
                    #[$cfg]
                    $(Isa::$isa)|+ => unsafe { dispatched!(@call $function $args) },
                )*
                Isa::Portable => portable($($arg),*),
            }
        }
    };
    (@types $s:ident = $vectors:ident, $d:ident = $bytes:ident) => {
        #[allow(dead_code)]
        type $s = simd::$vectors;
        #[allow(dead_code)]
        type $d = simd::$bytes;
    };
    (@call $function:ident ($($arg:ident: $t:ty),*)) => { $function($($arg),*) };
}

dispatched! {
    /// Runs a convolution.
    convolve<S>(run: &conv::Run, part: Part, work: &mut [f32], memory: Memory) {
        // SAFETY: the CPU has the features of S here; the kernel checks the views itself.
        unsafe { conv::run::<S>(run, part, work, memory) }
    }
}

/// Runs an 8-bit convolution, with as much `work` as its [`method`](conv8::Packed8::method) wants.
pub fn convolve8(isa: Isa, run: &conv8::Run8, part: Part, work: &mut [f32], memory: Memory) {
    match run.packed.method() {
        Method::Direct => convolve_bytes(isa, run, part, memory),
        Method::Winograd(_) => convolve_words(isa, run, part, work, memory),
    }
}

dispatched! {
    /// Runs an 8-bit convolution as it is defined.
    convolve_bytes<S, D>(run: &conv8::Run8, part: Part, memory: Memory) {
        // SAFETY: the CPU has the features of D here; the kernel checks the views itself.
        unsafe { conv8::run::<D>(run, part, memory) }
    }
}

dispatched! {
    /// Runs an 8-bit convolution by Winograd's filtering.
    convolve_words<S>(run: &conv8::Run8, part: Part, work: &mut [f32], memory: Memory) {
        // SAFETY: the CPU has the features of S here, and so those of its words; the kernel checks the views itself.
        unsafe { conv8::run_words::<<S as Simd>::Words>(run, part, work, memory) }
    }
}

dispatched! {
    /// Runs a group normalisation, with `work` of twice the channels.
    normalise<S, D>(n: &dense::Norm, input: View, output: dense::Output, part: Part, work: &mut [f32], memory: Memory) {
        // SAFETY: the CPU has the features of D here; the kernel checks the views itself.
        unsafe { dense::norm::<D>(n, input, output, part, work, memory) }
    }
}

dispatched! {
    /// Does something to every number of a picture.
    map<S, D>(op: dense::Map, input: View, output: dense::Output, part: Part, memory: Memory) {
        // SAFETY: the CPU has the features of D here; the kernel checks the views itself.
        unsafe { dense::map::<D>(op, input, output, part, memory) }
    }
}

dispatched! {
    /// Makes every pixel a square of four.
    upsample<S>(input: View, output: View, part: Part, memory: Memory) {
        // SAFETY: the CPU has the features of S here; the kernel checks the views itself.
        unsafe { dense::upsample::<S>(input, output, part, memory) }
    }
}

dispatched! {
    /// Runs an attention, with `work` of its [`work_len`](attention::Attention::work_len).
    attend<S>(a: &attention::Attention, mask: Option<&[f32]>, part: Part, work: &mut [f32], memory: Memory) {
        // SAFETY: the CPU has the features of S here; the kernel checks the views itself.
        unsafe { attention::run::<S>(a, mask, part, work, memory) }
    }
}

dispatched! {
    /// Multiplies a matrix with a vector.
    multiply<S>(matrix: &dense::Matrix, x: &[f32], out: &mut [f32]) {
        // SAFETY: the CPU has the features of S here.
        unsafe { dense::matrix_vector::<S>(matrix, x, out) }
    }
}

dispatched! {
    /// Something to every number of a value.
    unary<S>(f: general::Unary, loops: &general::Loops<2>, part: Part, memory: Memory) {
        general::unary(f, loops, part, memory)
    }
}

dispatched! {
    /// Something of every two numbers of two values.
    binary<S>(f: general::Binary, loops: &general::Loops<3>, part: Part, memory: Memory) {
        general::binary(f, loops, part, memory)
    }
}

dispatched! {
    /// Makes one of many numbers; the loops over the result alone are `out`.
    reduce<S>(f: general::Reduction, loops: &general::Loops<2>, out: &general::Loops<1>, memory: Memory) {
        general::reduce(f, loops, out, memory)
    }
}

dispatched! {
    /// Something to each run of `length` numbers.
    rows<S>(f: &general::Rows, loops: &general::Loops<2>, length: usize, part: Part, memory: Memory) {
        general::rows(f, loops, length, part, memory)
    }
}

dispatched! {
    /// Multiplies matrices, with `work` of their [`work_len`](general::Product::work_len).
    product<S>(product: &general::Product, part: Part, work: &mut [f32], memory: Memory) {
        general::product(product, part, work, memory)
    }
}

#[cfg(test)]
mod tests;
