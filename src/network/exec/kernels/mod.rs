//! The kernels, and the one place that decides which of them a CPU gets.

pub mod conv;
pub mod conv8;
pub mod dense;
mod simd;
pub mod winograd;

use super::arena::View;
use simd::{Dot, Simd};

/// The kinds of vectors that there are kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with VNNI (x86-64).
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// AVX-512 (x86-64).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA (x86-64).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON (64-bit ARM).
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// What every CPU of the target has.
    Portable,
}

impl Isa {
    /// The best that this CPU has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if fma && is_x86_feature_detected!("avx512f") {
                return if is_x86_feature_detected!("avx512vnni") { Isa::Vnni } else { Isa::Avx512 };
            }
            if fma {
                return Isa::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        return Isa::Neon;
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Portable
    }

    /// Every kind that this CPU can run, the portable one last.
    #[cfg(test)]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Isa::detect()];
        #[cfg(target_arch = "x86_64")]
        match all[0] {
            Isa::Vnni => all.extend([Isa::Avx512, Isa::Avx2]),
            Isa::Avx512 => all.push(Isa::Avx2),
            _ => (),
        }
        all.retain(|isa| *isa != Isa::Portable);
        all.push(Isa::Portable);
        all
    }

    /// Numbers in a vector, and vectors of output channels a convolution's tile.
    pub fn tile(self) -> (usize, usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni | Isa::Avx512 => tile_of::<simd::Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => tile_of::<simd::Avx2>(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => tile_of::<simd::Neon>(),
            Isa::Portable => tile_of::<simd::Portable>(),
        }
    }

    /// The same of an 8-bit convolution.
    pub fn tile8(self) -> (usize, usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni => tile8_of::<simd::Vnni>(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => tile8_of::<simd::Avx2>(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => tile8_of::<simd::Portable>(),
            Isa::Portable => tile8_of::<simd::Portable>(),
        }
    }
}

fn tile_of<S: Simd>() -> (usize, usize) {
    (S::LANES, S::TILE.0)
}

fn tile8_of<S: Dot>() -> (usize, usize) {
    (S::LANES, S::TILE.0)
}

/// Defines a safe function that runs `$body` compiled for the CPU's features, `S` being its vectors.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident<$s:ident, $d:ident>($($arg:ident: $t:ty),*) $body:block) => {
        $(#[$doc])*
        pub fn $name(isa: Isa, $($arg: $t),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
            unsafe fn vnni($($arg: $t),*) {
                #[allow(dead_code)]
                type $s = simd::Avx512;
                #[allow(dead_code)]
                type $d = simd::Vnni;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            unsafe fn avx512($($arg: $t),*) {
                #[allow(dead_code)]
                type $s = simd::Avx512;
                #[allow(dead_code)]
                type $d = simd::Avx2;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $t),*) {
                #[allow(dead_code)]
                type $s = simd::Avx2;
                #[allow(dead_code)]
                type $d = simd::Avx2;
                $body
            }
            #[cfg(target_arch = "aarch64")]
            fn neon($($arg: $t),*) {
                #[allow(dead_code)]
                type $s = simd::Neon;
                #[allow(dead_code)]
                type $d = simd::Portable;
                $body
            }
            fn portable($($arg: $t),*) {
                #[allow(dead_code)]
                type $s = simd::Portable;
                #[allow(dead_code)]
                type $d = simd::Portable;
                $body
            }
            match isa {
                // SAFETY: `Isa::detect` found the features.
                #[cfg(target_arch = "x86_64")]
                Isa::Vnni => unsafe { vnni($($arg),*) },
                // SAFETY: `Isa::detect` found the features.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: `Isa::detect` found the features.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => neon($($arg),*),
                Isa::Portable => portable($($arg),*),
            }
        }
    };
}

dispatched! {
    /// Runs a convolution.
    convolve<S, D>(run: &conv::Run, work: &mut [f32], arena: &mut [f32]) {
        // SAFETY: the CPU has the features of S here; the kernel checks the views itself.
        unsafe { conv::run::<S>(run, work, arena) }
    }
}

dispatched! {
    /// Runs an 8-bit convolution.
    convolve8<S, D>(run: &conv8::Run8, bytes: &[u8], arena: &mut [f32]) {
        // SAFETY: the CPU has the features of D here; the kernel checks the views itself.
        unsafe { conv8::run::<D>(run, bytes, arena) }
    }
}

dispatched! {
    /// Runs a group normalisation.
    normalise<S, D>(n: &dense::Norm, input: View, output: dense::Output, work: &mut [f32], memory: dense::Memory) {
        // SAFETY: the CPU has the features of S here.
        unsafe { dense::norm::<S>(n, input, output, work, memory) }
    }
}

dispatched! {
    /// Rounds a picture to levels.
    quantize<S, D>(input: View, output: View, levels: conv8::Levels, memory: dense::Memory) {
        dense::quantize(input, output, levels, memory)
    }
}

dispatched! {
    /// Rounds a picture to levels, in place.
    round<S, D>(picture: View, levels: conv8::Levels, arena: &mut [f32]) {
        dense::round(picture, levels, arena)
    }
}

dispatched! {
    /// Runs an attention.
    attend<S, D>(input: View, output: View, work: &mut [f32], arena: &mut [f32]) {
        // SAFETY: the CPU has the features of S here.
        unsafe { dense::attention::<S>(input, output, work, arena) }
    }
}

dispatched! {
    /// Multiplies a matrix, stored by columns, with a vector.
    multiply<S, D>(columns: &[f32], x: &[f32], b: &[f32], out: &mut [f32]) {
        dense::matrix_vector(columns, x, b, out)
    }
}

dispatched! {
    /// SiLU in place.
    silu<S, D>(x: &mut [f32]) {
        dense::silu_all(x)
    }
}

#[cfg(test)]
mod tests;
