//! Vectors of each kind of CPU, behind four traits, so that a kernel is written once.
//!
//! A value of a type that has one of these traits is a *token*: it takes no room, and there is none but on a CPU that has
//! the features of its kind. What is computed with vectors are methods of a token, so these are safe to call anywhere;
//! what is left to the caller's care is where vectors are read and written (see [`Source`] and [`Target`]).
//!
//! All of them are inlined into entry points that enable the CPU's features, or vectors would pass through memory.

use super::pointer::{Plain, Source, Target};
use half::f16;

/// 1.5 · 2²³: adding it to a number of less than 2²² rounds it to an integer, ties to even, kept in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// The most numbers that a vector holds, so that what is a multiple of this is one of whole vectors of every kind.
pub(super) const WIDEST: usize = 16;

/// Methods of a token whose bodies are compiled for the CPU's features, so that what std offers for these is safe to call
/// there.
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(unused_macros))]
macro_rules! with_features {
    ($features:literal, $(fn $name:ident $(<const $n:ident: $of:ty>)? ($($arg:ident: $t:ty),* $(,)?) -> $result:ty $body:block)*) => {
        $(
            #[inline(always)]
            fn $name $(<const $n: $of>)? (self, $($arg: $t),*) -> $result {
                #[inline]
                #[target_feature(enable = $features)]
                fn with_features $(<const $n: $of>)? ($($arg: $t),*) -> $result $body
                // SAFETY: there is a token, so the CPU has the features.
                unsafe { with_features $(::<$n>)? ($($arg),*) }
            }
        )*
    };
}

/// A part of a kernel that may be [a function of its own](Vector::outline). It must be `#[inline(always)]`.
pub(super) trait Outline {
    fn run(self);
}

/// A vector of `LANES` numbers that are computed with, of 32 or of 16 bits.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// The pixels that a convolution's tile of 1, 2, … vectors of output channels may have without spilling registers.
    const PIXELS: &'static [usize];
    /// Numbers of a pixel that are loaded together and then multiplied one by one: 1, or 4 or 8 where an instruction
    /// multiplies with one lane of a vector.
    const GROUP: usize;
    /// `LANES` numbers.
    type F: Plain;
    /// `LANES` numbers of 32 bits, as they are loaded.
    type Floats: Plain;
    /// `LANES` numbers of 16 bits, as they are loaded.
    type Halves: Plain;
    /// `LANES` numbers of 8 bits, of either sign.
    type Bytes: Plain;
    /// `GROUP` numbers of a pixel of 32 bits, and of 16, as they are loaded.
    type Group: Plain;
    type HalfGroup: Plain;
    /// `GROUP` numbers of a pixel, ready to be multiplied with vectors.
    type X: Copy;

    /// The numbers that others of 32 bits are, and the reverse.
    fn of_floats(self, floats: Self::Floats) -> Self::F;
    fn to_floats(self, v: Self::F) -> Self::Floats;
    /// The numbers that others of 16 bits are, and the nearest ones of 16 bits, ties to even.
    fn widen_halves(self, halves: Self::Halves) -> Self::F;
    fn narrow_to_halves(self, v: Self::F) -> Self::Halves;
    /// The numbers that bytes of two's complement are.
    fn widen_bytes(self, bytes: Self::Bytes) -> Self::F;
    /// The same number in every lane.
    fn splat(self, v: f32) -> Self::F;
    /// `GROUP` numbers of a pixel.
    fn group(self, group: Self::Group) -> Self::X;
    fn group_of_halves(self, group: Self::HalfGroup) -> Self::X;
    /// One number of a pixel, for `fma_lane` of lane 0 alone.
    fn one(self, v: f32) -> Self::X;
    fn one_half(self, v: f16) -> Self::X;
    /// `x[L] · w + sum`.
    fn fma_lane<const L: usize>(self, x: Self::X, w: Self::F, sum: Self::F) -> Self::F;
    /// `a · b + c`.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;

    /// Runs a part of a kernel in a function of its own, where what is around it would take the registers that it needs.
    #[inline(always)]
    fn outline(self, part: impl Outline) {
        part.run();
    }

    /// Asks for the cache line of an address, which need not be valid, if that is worth it on this kind of CPU.
    #[inline(always)]
    fn prefetch<T>(self, _: *const T) {}

    /// The numbers of a slice from `at` on.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline(always)]
    fn read(self, from: &[f32], at: usize) -> Self::F {
        assert!(at <= from.len() && from.len() - at >= Self::LANES);
        // SAFETY: the assertion.
        self.of_floats(unsafe { Source::of(from).load(at) })
    }

    /// To the numbers of a slice from `at` on.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline(always)]
    fn write(self, to: &mut [f32], at: usize, v: Self::F) {
        assert!(at <= to.len() && to.len() - at >= Self::LANES);
        // SAFETY: the assertion; the slice is borrowed.
        unsafe { Target::of(to).store(at, self.to_floats(v)) }
    }

    /// The first `n` < `LANES` numbers from `at` on, with zeros after them.
    ///
    /// # Safety
    /// There must be as many.
    #[inline(always)]
    unsafe fn load_part(self, from: Source<f32>, at: usize, n: usize) -> Self::F {
        let mut whole = [0f32; WIDEST];
        for (i, v) in whole.iter_mut().enumerate().take(n.min(Self::LANES)) {
            // SAFETY: the caller's promise.
            *v = unsafe { from.load(at + i) };
        }
        self.read(&whole, 0)
    }

    /// To the first `n` < `LANES` numbers from `at` on.
    ///
    /// # Safety
    /// There must be as many, which no other thread reads or writes.
    #[inline(always)]
    unsafe fn store_part(self, to: Target<f32>, at: usize, v: Self::F, n: usize) {
        let mut whole = [0f32; WIDEST];
        self.write(&mut whole, 0, v);
        for (i, v) in whole.iter().enumerate().take(n.min(Self::LANES)) {
            // SAFETY: the caller's promise.
            unsafe { to.store(at + i, *v) }
        }
    }
}

/// A vector of `LANES` f32, and what is done with them beside sums and products.
pub(super) trait Simd: Vector<Floats = <Self as Vector>::F> {
    /// What this kind of CPU multiplies words with.
    type Words: Words;

    fn words(self) -> Self::Words;
    /// `1 / a`, correctly rounded, for a from 1 to 2¹²⁶.
    fn reciprocal(self, a: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// v · 2ⁿ of n + [`ROUND`], where v and the result are normal numbers.
    fn times_power_of_two(self, v: Self::F, shifted: Self::F) -> Self::F;
    /// `value · inverse`, rounded to the nearest integer, ties to even, plus `zero`, within 0 to 255, plus `flip` modulo
    /// 256, as a byte each.
    fn levels(self, value: Self::F, inverse: f32, zero: u8, flip: u8) -> Self::Bytes;

    /// The [`levels`](Self::levels) of vectors to where they lie one after the other.
    ///
    /// # Safety
    /// There must be as many bytes from `at` on, which no other thread reads or writes.
    #[inline(always)]
    unsafe fn store_levels<const V: usize>(
        self,
        to: Target<u8>,
        at: usize,
        values: [Self::F; V],
        (inverse, zero, flip): (f32, u8, u8),
    ) {
        let to = to.skip(at);
        for (v, value) in values.into_iter().enumerate() {
            let bytes = self.levels(value, inverse, zero, flip);
            // SAFETY: the caller's promise.
            unsafe { to.store(v * Self::LANES, bytes) }
        }
    }

    /// The nearest integer, ties to even, for numbers of less than 2²².
    #[inline(always)]
    fn round(self, v: Self::F) -> Self::F {
        self.sub(self.add(v, self.splat(ROUND)), self.splat(ROUND))
    }
}

/// The bits of an f16 and of its inverse, as far as they are known without dividing, add up to about this.
#[cfg(any(target_arch = "aarch64", test, feature = "emulate-halves"))]
pub(super) const INVERSE: u16 = 0x7770;

/// A vector of `LANES` f16, and what is done with them beside sums and products. Each result is rounded once.
#[cfg(any(target_arch = "aarch64", test, feature = "emulate-halves"))]
pub(super) trait Half: Vector {
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, ties to even.
    fn round(self, v: Self::F) -> Self::F;
    /// `c - a · b`.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `1 / v` to an eighth, of normal numbers v whose inverse is normal: the exponent's sign is changed in its bits.
    fn about_inverse(self, v: Self::F) -> Self::F;
    /// v / 2ⁿ of whole numbers n, where v and the result are normal numbers.
    fn over_power_of_two(self, v: Self::F, n: Self::F) -> Self::F;
}

/// `value · inverse` within -`zero` and 255 - `zero`, plus [`ROUND`]: the low byte of its bits plus `zero` is its level.
/// Between whole bounds, rounding is the same before and after clamping.
#[inline(always)]
fn level<S: Simd>(s: S, value: S::F, inverse: f32, zero: u8) -> S::F {
    let low = -f32::from(zero);
    let bounded = s.min(s.max(s.mul(value, s.splat(inverse)), s.splat(low)), s.splat(255.0 + low));
    s.add(bounded, s.splat(ROUND))
}

/// How the weights of a vector of output channels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order8 {
    /// Four input channels of each lane.
    Fours,
    /// Pairs of four input channels: the first ones of all lanes before the second ones.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    Pairs,
    /// Eight input channels of each lane, with zeros for those that are not there. Vectors are of four lanes; what a vector's
    /// room holds is of two. Of sixteen channels, the first eight come first; what is left comes four at a time.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    Eights,
}

/// Sums of products of 8-bit numbers of pixels and of weights, four at a time in each 32-bit lane.
pub(super) trait Dot: Copy {
    /// The vectors of f32 with as many lanes.
    type S: Simd;
    /// What multiplies with weights of -128, where this cannot.
    type Wide: Dot<S = Self::S>;
    const LANES: usize = Self::S::LANES;
    /// As [`Vector::PIXELS`].
    const PIXELS: &'static [usize];
    /// Fours of a pixel's numbers that are loaded together and then multiplied one by one.
    const GROUP: usize;
    /// What is added to a level, modulo 256, where it is stored: 128 makes signed numbers of levels, for instructions
    /// that multiply those.
    const FLIP: u8;
    /// How weights lie.
    const ORDER: Order8 = Order8::Fours;
    /// `LANES` sums.
    type I: Plain;
    /// Four weights a lane, as they are loaded, and as they are multiplied.
    type Stored: Plain;
    type W: Copy;
    /// `GROUP` fours of a pixel's numbers, as they are loaded, and as they are multiplied.
    type Group: Plain;
    type X: Copy;

    fn simd(self) -> Self::S;
    fn wide(self) -> Self::Wide;
    /// The sums as f32.
    fn to_float(self, sums: Self::I) -> <Self::S as Vector>::F;
    fn weights(self, stored: Self::Stored) -> Self::W;
    fn group(self, group: Self::Group) -> Self::X;
    /// Four bytes of a pixel, for `dot` of four 0 alone.
    fn four(self, bytes: [u8; 4]) -> Self::X;
    /// What `dot` multiplies with for four L.
    #[inline(always)]
    fn spread<const L: usize>(self, x: Self::X) -> Self::X {
        x
    }
    /// `sums` plus the products of four L of `x`, which has been [spread](Self::spread), and `w`.
    fn dot<const L: usize>(self, sums: Self::I, x: Self::X, w: Self::W) -> Self::I;
    /// Brings numbers of P pixels into the form that [`add`](Self::add) takes.
    #[inline(always)]
    fn pair<const P: usize>(self, _: &mut [Self::X; P]) {}
    /// Brings sums of P pixels into the form that [`add`](Self::add) adds to, and back.
    #[inline(always)]
    fn pair_sums<const V: usize, const P: usize>(self, _: &mut [[Self::I; V]; P]) {}
    /// The products of four L of P pixels and weights, to their sums.
    #[inline(always)]
    fn add<const V: usize, const P: usize, const L: usize>(
        self,
        sums: &mut [[Self::I; V]; P],
        x: &[Self::X; P],
        w: &[Self::W; V],
    ) {
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = self.spread::<L>(*x);
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = self.dot::<L>(*sum, x, *w);
            }
        }
    }
}

/// Sums of products of 16-bit numbers. They wrap, as do sums and differences.
pub(super) trait Words: Dot {
    /// Words in a vector of them.
    const COUNT: usize;
    /// As [`Vector::PIXELS`].
    const PIXELS_OF_WORDS: &'static [usize];
    /// Input channels whose weights lie together for each lane.
    const PAIR: usize;
    /// Input channels that are multiplied at a time.
    const STEP: usize;
    /// `COUNT` words, and as many bytes.
    type Words: Plain;
    type Bytes: Plain;

    /// Bytes of a picture, of the sign that they have there.
    fn widen(self, bytes: Self::Bytes) -> Self::Words;
    fn add_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn sub_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `v · 2ᴺ`.
    fn shift_words<const N: i32>(self, v: Self::Words) -> Self::Words;
    fn no_sums(self) -> Self::I;
    fn add_sums(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_sums(self, a: Self::I, b: Self::I) -> Self::I;
    /// `v · 2ᴺ`.
    fn shift_sums<const N: i32>(self, v: Self::I) -> Self::I;
    /// `v / 2ᴺ`, rounded down.
    fn shift_sums_down<const N: i32>(self, v: Self::I) -> Self::I;
    fn multiply_sums(self, v: Self::I, by: i32) -> Self::I;
    /// The products of `STEP` numbers of P pixels, `step` from one another, and weights of V vectors of output channels,
    /// to their sums.
    ///
    /// # Safety
    /// All of these weights and numbers must be there.
    unsafe fn add_products<const V: usize, const P: usize>(
        self,
        sums: &mut [[Self::I; V]; P],
        weights: Source<i16>,
        from: Source<i16>,
        step: usize,
    );
}

/// Any CPU: four numbers at a time, which compilers turn into the vectors that every CPU of the target has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Methods of one expression.
macro_rules! inlined {
    ($(fn $name:ident $(<const $n:ident: $of:ty>)? ($($arg:ident: $t:ty),*) -> $result:ty { $body:expr })*) => {
        $(
            #[inline(always)]
            fn $name $(<const $n: $of>)? (self, $($arg: $t),*) -> $result {
                $body
            }
        )*
    };
}

/// Four numbers at a time, which compilers turn into the vectors that every CPU of the target has; `$fma` is `a · b + c`.
macro_rules! portable {
    ($token:ident, $fma:expr) => {
        impl Vector for $token {
            const LANES: usize = 4;
            const PIXELS: &'static [usize] = &[4, 4];
            const GROUP: usize = 1;
            type F = [f32; 4];
            type Floats = [f32; 4];
            type Halves = [f16; 4];
            type Bytes = [u8; 4];
            type Group = f32;
            type HalfGroup = f16;
            type X = f32;

            inlined! {
                fn of_floats(floats: [f32; 4]) -> [f32; 4] { floats }
                fn to_floats(v: [f32; 4]) -> [f32; 4] { v }
                fn widen_halves(halves: [f16; 4]) -> [f32; 4] { halves.map(f16::to_f32) }
                fn narrow_to_halves(v: [f32; 4]) -> [f16; 4] { v.map(f16::from_f32) }
                fn widen_bytes(bytes: [u8; 4]) -> [f32; 4] { bytes.map(|v| f32::from(v as i8)) }
                fn splat(v: f32) -> [f32; 4] { [v; 4] }
                fn group(group: f32) -> f32 { group }
                fn group_of_halves(group: f16) -> f32 { group.to_f32() }
                fn one(v: f32) -> f32 { v }
                fn one_half(v: f16) -> f32 { v.to_f32() }
                fn fma_lane<const L: usize>(x: f32, w: [f32; 4], sum: [f32; 4]) -> [f32; 4] {
                    std::array::from_fn(|i| $fma(x, w[i], sum[i]))
                }
                fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| $fma(a[i], b[i], c[i])) }
                fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| a[i] + b[i]) }
                fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| a[i] - b[i]) }
                fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| a[i] * b[i]) }
            }
        }
    };
}

portable!(Portable, |a: f32, b: f32, c: f32| a * b + c);

impl Simd for Portable {
    type Words = Self;
    #[inline(always)]
    fn words(self) -> Self {
        self
    }

    inlined! {
        fn reciprocal(a: [f32; 4]) -> [f32; 4] { a.map(|a| 1.0 / a) }
        fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] }) }
        fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] { std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] }) }
        fn times_power_of_two(v: [f32; 4], shifted: [f32; 4]) -> [f32; 4] {
            std::array::from_fn(|i| f32::from_bits(v[i].to_bits().wrapping_add(shifted[i].to_bits() << 23)))
        }
    }

    #[inline(always)]
    fn levels(self, value: [f32; 4], inverse: f32, zero: u8, flip: u8) -> [u8; 4] {
        level(self, value, inverse, zero).map(|v| (v.to_bits() as u8).wrapping_add(zero).wrapping_add(flip))
    }
}

/// As [`Portable`], with products and sums rounded once, as the vectors of other kinds of CPU do: beside [`PortableHalf`].
#[cfg(any(test, feature = "emulate-halves"))]
#[derive(Clone, Copy)]
pub(super) struct Fused;

#[cfg(any(test, feature = "emulate-halves"))]
portable!(Fused, f32::mul_add);

/// Sums and products of 16 bits, rounded as FEAT_FP16's are, on any CPU: for tests, since it is slow.
#[cfg(any(test, feature = "emulate-halves"))]
#[derive(Clone, Copy)]
pub(super) struct PortableHalf;

/// The number of 16 bits that is nearest to `v`.
#[cfg(any(test, feature = "emulate-halves"))]
#[inline(never)]
fn rounded(v: f64) -> f16 {
    // to 24 bits without losing that there was more, so that the next rounding is the only one
    let bits = v.to_bits();
    let more = bits & ((1 << 29) - 1);
    let kept = (bits - more) | u64::from(more != 0) << 29;
    f16::from_f32(f64::from_bits(kept) as f32)
}

/// The number of 16 bits that is nearest to `a + b`, also where their sum takes more than 53 bits.
#[cfg(any(test, feature = "emulate-halves"))]
fn sum(a: f64, b: f64) -> f16 {
    let near = a + b;
    // what it lost, exactly (Knuth's TwoSum)
    let of_b = near - a;
    let lost = (a - (near - of_b)) + (b - of_b);
    let step = match (lost > 0.0) == (near > 0.0) {
        _ if lost == 0.0 || !near.is_finite() || near.to_bits() & 1 == 1 => 0,
        true => 1,
        false => -1,
    };
    rounded(f64::from_bits(near.to_bits().wrapping_add_signed(step)))
}

/// `a * b + c`. Not inlined: in every kernel, many times, it would take minutes to compile.
#[cfg(any(test, feature = "emulate-halves"))]
#[inline(never)]
fn fused(a: [f16; 8], b: [f16; 8], c: [f16; 8]) -> [f16; 8] {
    std::array::from_fn(|i| sum(a[i].to_f64() * b[i].to_f64(), c[i].to_f64()))
}

#[cfg(any(test, feature = "emulate-halves"))]
#[inline(never)]
fn narrowed(floats: [f32; 8]) -> [f16; 8] {
    floats.map(f16::from_f32)
}

#[cfg(any(test, feature = "emulate-halves"))]
#[inline(never)]
fn widened(halves: [f16; 8]) -> [f32; 8] {
    halves.map(f16::to_f32)
}

#[cfg(any(test, feature = "emulate-halves"))]
impl Vector for PortableHalf {
    const LANES: usize = 8;
    const PIXELS: &'static [usize] = &[4, 4];
    const GROUP: usize = 1;
    type F = [f16; 8];
    type Floats = [f32; 8];
    type Halves = [f16; 8];
    type Bytes = [u8; 8];
    type Group = f32;
    type HalfGroup = f16;
    type X = f16;

    inlined! {
        fn of_floats(floats: [f32; 8]) -> [f16; 8] { narrowed(floats) }
        fn to_floats(v: [f16; 8]) -> [f32; 8] { widened(v) }
        fn widen_halves(halves: [f16; 8]) -> [f16; 8] { halves }
        fn narrow_to_halves(v: [f16; 8]) -> [f16; 8] { v }
        fn widen_bytes(bytes: [u8; 8]) -> [f16; 8] { bytes.map(|v| f16::from(v as i8)) }
        fn splat(v: f32) -> [f16; 8] { [rounded(v.into()); 8] }
        fn group(group: f32) -> f16 { rounded(group.into()) }
        fn group_of_halves(group: f16) -> f16 { group }
        fn one(v: f32) -> f16 { rounded(v.into()) }
        fn one_half(v: f16) -> f16 { v }
        fn fma_lane<const L: usize>(x: f16, w: [f16; 8], sum: [f16; 8]) -> [f16; 8] { fused([x; 8], w, sum) }
        fn fma(a: [f16; 8], b: [f16; 8], c: [f16; 8]) -> [f16; 8] { fused(a, b, c) }
        fn add(a: [f16; 8], b: [f16; 8]) -> [f16; 8] { fused(a, [f16::ONE; 8], b) }
        fn sub(a: [f16; 8], b: [f16; 8]) -> [f16; 8] { fused(b, [f16::NEG_ONE; 8], a) }
        fn mul(a: [f16; 8], b: [f16; 8]) -> [f16; 8] { fused(a, b, [f16::NEG_ZERO; 8]) }
    }
}

#[cfg(any(test, feature = "emulate-halves"))]
impl Half for PortableHalf {
    inlined! {
        fn max(a: [f16; 8], b: [f16; 8]) -> [f16; 8] { std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] }) }
        fn min(a: [f16; 8], b: [f16; 8]) -> [f16; 8] { std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] }) }
        fn round(v: [f16; 8]) -> [f16; 8] { v.map(|v| rounded(v.to_f64().round_ties_even())) }
        fn fnma(a: [f16; 8], b: [f16; 8], c: [f16; 8]) -> [f16; 8] { fused(a.map(|v| -v), b, c) }
        fn about_inverse(v: [f16; 8]) -> [f16; 8] { v.map(|v| f16::from_bits(INVERSE.wrapping_sub(v.to_bits()))) }
        fn over_power_of_two(v: [f16; 8], n: [f16; 8]) -> [f16; 8] {
            std::array::from_fn(|i| f16::from_bits(v[i].to_bits().wrapping_sub(((n[i].to_f32() as i16) << 10) as u16)))
        }
    }
}

impl Dot for Portable {
    type S = Self;
    type Wide = Self;
    const PIXELS: &'static [usize] = &[4, 4];
    const GROUP: usize = 1;
    const FLIP: u8 = 0;
    type I = [i32; 4];
    type Stored = [[i8; 4]; 4];
    type W = [[i8; 4]; 4];
    type Group = [u8; 4];
    type X = [u8; 4];
    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }

    inlined! {
        fn to_float(sums: [i32; 4]) -> [f32; 4] { sums.map(|v| v as f32) }
        fn weights(stored: [[i8; 4]; 4]) -> [[i8; 4]; 4] { stored }
        fn group(group: [u8; 4]) -> [u8; 4] { group }
        fn four(bytes: [u8; 4]) -> [u8; 4] { bytes }
        fn dot<const L: usize>(sums: [i32; 4], x: [u8; 4], w: [[i8; 4]; 4]) -> [i32; 4] {
            std::array::from_fn(|i| sums[i] + (0..4).map(|k| i32::from(x[k]) * i32::from(w[i][k])).sum::<i32>())
        }
    }
}

impl Words for Portable {
    const COUNT: usize = 8;
    const PIXELS_OF_WORDS: &'static [usize] = &[4, 4];
    const PAIR: usize = 2;
    const STEP: usize = 2;
    type Words = [i16; 8];
    type Bytes = [u8; 8];
    inlined! {
        fn widen(bytes: [u8; 8]) -> [i16; 8] { bytes.map(i16::from) }
        fn add_words(a: [i16; 8], b: [i16; 8]) -> [i16; 8] { std::array::from_fn(|i| a[i].wrapping_add(b[i])) }
        fn sub_words(a: [i16; 8], b: [i16; 8]) -> [i16; 8] { std::array::from_fn(|i| a[i].wrapping_sub(b[i])) }
        fn shift_words<const N: i32>(v: [i16; 8]) -> [i16; 8] { v.map(|v| v << N) }
        fn no_sums() -> [i32; 4] { [0; 4] }
        fn add_sums(a: [i32; 4], b: [i32; 4]) -> [i32; 4] { std::array::from_fn(|i| a[i].wrapping_add(b[i])) }
        fn sub_sums(a: [i32; 4], b: [i32; 4]) -> [i32; 4] { std::array::from_fn(|i| a[i].wrapping_sub(b[i])) }
        fn shift_sums<const N: i32>(v: [i32; 4]) -> [i32; 4] { v.map(|v| v << N) }
        fn shift_sums_down<const N: i32>(v: [i32; 4]) -> [i32; 4] { v.map(|v| v >> N) }
        fn multiply_sums(v: [i32; 4], by: i32) -> [i32; 4] { v.map(|v| v.wrapping_mul(by)) }
    }
    #[inline(always)]
    unsafe fn add_products<const V: usize, const P: usize>(
        self,
        sums: &mut [[[i32; 4]; V]; P],
        weights: Source<i16>,
        from: Source<i16>,
        step: usize,
    ) {
        for (p, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let x = unsafe { from.load::<[i16; 2]>(p * step) }.map(i32::from);
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let w = unsafe { weights.load::<[[i16; 2]; 4]>(8 * v) };
                *sum = std::array::from_fn(|i| {
                    sum[i].wrapping_add(x[0] * i32::from(w[i][0])).wrapping_add(x[1] * i32::from(w[i][1]))
                });
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, AvxVnni, Vnni};

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "aarch64")]
pub(super) use arm::{I8mm, Neon, NeonHalf, Sdot};

#[cfg(test)]
mod tests {
    use super::*;

    /// What the pinned bits of 16-bit arithmetic are made by must round as a CPU does: once, ties to even.
    #[test]
    fn numbers_of_16_bits_are_rounded_once() {
        for bits in 0..f16::MAX.to_bits() {
            let (low, high) = (f16::from_bits(bits), f16::from_bits(bits + 1));
            let even = if bits & 1 == 0 { low } else { high };
            let middle = (low.to_f64() + high.to_f64()) / 2.0;
            let near = [middle.next_down(), middle, middle.next_up()];
            assert_eq!(near.map(rounded), [low, even, high], "{middle}");
            assert_eq!(near.map(|v| rounded(-v)), [-low, -even, -high], "-{middle}");
            // less than 53 bits of the sum's first term can tell
            let little = f64::from(f32::MIN_POSITIVE);
            assert_eq!([sum(middle, -little), sum(little, middle)], [low, high], "{middle} and a little");
            assert_eq!([sum(-middle, little), sum(-little, -middle)], [-low, -high], "-{middle} and a little");
        }
    }
}
