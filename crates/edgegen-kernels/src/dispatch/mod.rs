//! Which of the kernels a CPU gets: one function for each, compiled for every kind of vectors.
//!
//! What takes long to compile has a file of its own: for tests, the compiler works on files beside one another.

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
        pub(super) fn $name $args {
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

mod conv;
mod conv8;
mod conv_half;
mod dense;
mod depthwise;
mod general;
mod image;
mod words;

pub use conv::convolve;
pub use conv8::{convolve8, convolve8_by_range};
pub use dense::{map, multiply, normalize, scale_channels};
pub use depthwise::convolve_depthwise;
pub use general::{binary, choose, convert, matmul, reduce, rows, unary};
pub use image::{attend, pool, resample, sample_grid, upsample};
