//! What makes a number of each number.

use super::functions::{erfc, mish, sigmoid, softplus, tanh};
use super::{CHUNK, StridedLoops};
use crate::memory::{Memory, Part};

/// What is done to each number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Copy,
    Silu,
    Sigmoid,
    Tanh,
    Relu,
    Gelu,
    GeluTanh,
    Mish,
    Softplus,
    Erf,
    Exp,
    Log,
    Sqrt,
    Square,
    Cube,
    Reciprocal,
    Sin,
    Cos,
    Negate,
    Absolute,
    Floor,
    Ceil,
    Truncate,
    /// To the nearest whole number, ties to even.
    Round,
    Clamp(f32, f32),
    /// -1, 0 or 1.
    Sign,
    /// α (eˣ - 1) below 0.
    Elu(f32),
    /// α (e^(x/α) - 1) below 0.
    Celu(f32),
    /// γ α (eˣ - 1) below 0, and γ x from there.
    Selu(f32, f32),
    /// α x below 0.
    LeakyRelu(f32),
    /// 0 up to α.
    ThresholdedRelu(f32),
    /// α x + β within 0 to 1.
    HardSigmoid(f32, f32),
    /// x times x / 6 + 1/2 within 0 to 1.
    HardSwish,
    Softsign,
    /// The bias taken from what is greater than λ, added to what is less than -λ, and 0 between them.
    Shrink {
        bias: f32,
        lambda: f32,
    },
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    /// 1 for what is no number.
    IsNan,
    /// 1 for what is infinite: above, and below, if that is asked for.
    IsInf {
        above: bool,
        below: bool,
    },
    /// 1 for 0, and 0 for all else.
    Not,
    /// 0 for 0, and 1 for all else.
    Truth,
}

/// Something to every number. Parts are of the runs of numbers that lie together, or of the one that there is.
#[inline(always)]
pub(crate) fn unary(f: Unary, loops: &StridedLoops<2>, part: Part, memory: Memory) {
    assert!(loops.fits(0, memory.len()) && loops.fits(1, memory.len()) && loops.is_apart(1));
    let root_half = std::f32::consts::FRAC_1_SQRT_2;
    match f {
        Unary::Copy => each(loops, part, memory, |x| x),
        Unary::Silu => each(loops, part, memory, |x| x * sigmoid(x)),
        Unary::Sigmoid => each(loops, part, memory, sigmoid),
        Unary::Tanh => each(loops, part, memory, tanh),
        // what is no number stays so
        Unary::Relu => each(loops, part, memory, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::Gelu => each(loops, part, memory, |x| 0.5 * x * erfc(-x * root_half)),
        Unary::GeluTanh => {
            let scale = (2.0 / std::f32::consts::PI).sqrt();
            // ½ (1 + tanh z) is the logistic function of 2 z
            each(loops, part, memory, |x| x * sigmoid(2.0 * scale * (x + 0.044_715 * x * x * x)))
        }
        Unary::Mish => each(loops, part, memory, mish),
        Unary::Softplus => each(loops, part, memory, softplus),
        Unary::Erf => each(loops, part, memory, libm::erff),
        // beyond the vectors' range it would be cut short
        Unary::Exp => each(loops, part, memory, libm::expf),
        Unary::Log => each(loops, part, memory, libm::logf),
        Unary::Sqrt => each(loops, part, memory, f32::sqrt),
        Unary::Square => each(loops, part, memory, |x| x * x),
        Unary::Cube => each(loops, part, memory, |x| x * x * x),
        Unary::Reciprocal => each(loops, part, memory, |x| 1.0 / x),
        Unary::Sin => each(loops, part, memory, libm::sinf),
        Unary::Cos => each(loops, part, memory, libm::cosf),
        Unary::Negate => each(loops, part, memory, |x| -x),
        Unary::Absolute => each(loops, part, memory, f32::abs),
        Unary::Floor => each(loops, part, memory, f32::floor),
        Unary::Ceil => each(loops, part, memory, f32::ceil),
        Unary::Round => each(loops, part, memory, f32::round_ties_even),
        _ => more(f, loops, part, memory),
    }
}

/// As [`unary`], the less common functions, of loops that it has checked.
#[inline(always)]
fn more(f: Unary, loops: &StridedLoops<2>, part: Part, memory: Memory) {
    let truth = |v: bool| if v { 1.0 } else { 0.0 };
    match f {
        Unary::Truncate => each(loops, part, memory, f32::trunc),
        Unary::Clamp(least, most) => each(loops, part, memory, |x| {
            let x = if x < least { least } else { x };
            if x > most { most } else { x }
        }),
        // what is no number stays so
        Unary::Sign => each(loops, part, memory, |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x * 0.0
            }
        }),
        Unary::Elu(a) => each(loops, part, memory, |x| if x < 0.0 { a * libm::expm1f(x) } else { x }),
        Unary::Celu(a) => each(loops, part, memory, |x| if x < 0.0 { a * libm::expm1f(x / a) } else { x }),
        Unary::Selu(a, g) => each(loops, part, memory, |x| g * if x < 0.0 { a * libm::expm1f(x) } else { x }),
        Unary::LeakyRelu(a) => each(loops, part, memory, |x| if x < 0.0 { a * x } else { x }),
        Unary::ThresholdedRelu(a) => each(loops, part, memory, |x| if x > a { x } else { 0.0 }),
        Unary::HardSigmoid(a, b) => each(loops, part, memory, |x| (a * x + b).clamp(0.0, 1.0)),
        Unary::HardSwish => each(loops, part, memory, |x| x * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0)),
        Unary::Softsign => each(loops, part, memory, |x| x / (1.0 + x.abs())),
        Unary::Shrink { bias, lambda } => each(loops, part, memory, |x| {
            if x < -lambda {
                x + bias
            } else if x > lambda {
                x - bias
            } else {
                x * 0.0
            }
        }),
        Unary::Tan => each(loops, part, memory, libm::tanf),
        Unary::Asin => each(loops, part, memory, libm::asinf),
        Unary::Acos => each(loops, part, memory, libm::acosf),
        Unary::Atan => each(loops, part, memory, libm::atanf),
        Unary::Sinh => each(loops, part, memory, libm::sinhf),
        Unary::Cosh => each(loops, part, memory, libm::coshf),
        Unary::Asinh => each(loops, part, memory, libm::asinhf),
        // below 1 there is none, whatever libm makes of it
        Unary::Acosh => each(loops, part, memory, |x| if x < 1.0 { f32::NAN } else { libm::acoshf(x) }),
        Unary::Atanh => each(loops, part, memory, libm::atanhf),
        Unary::IsNan => each(loops, part, memory, |x| truth(x.is_nan())),
        Unary::IsInf { above, below } => {
            each(loops, part, memory, |x| truth((above && x == f32::INFINITY) || (below && x == f32::NEG_INFINITY)))
        }
        Unary::Not => each(loops, part, memory, |x| truth(x == 0.0)),
        Unary::Truth => each(loops, part, memory, |x| truth(x != 0.0)),
        // `unary` has all others
        _ => unreachable!("{f:?}"),
    }
}

#[inline(always)]
fn each(loops: &StridedLoops<2>, part: Part, memory: Memory, f: impl Fn(f32) -> f32) {
    let (loops, part) = loops.part(part, CHUNK);
    let (n, [to, from]) = loops.last();
    let base = memory.arena();
    for [o, x] in loops.runs(part) {
        let mut i = 0;
        if (to, from) == (1, 1) {
            while i + CHUNK <= n {
                // SAFETY: `unary` made sure that the values lie within the memory. A chunk is read before it is written,
                // since the values may be one.
                let mut values: [f32; CHUNK] = unsafe { base.source().load(x + i) };
                for v in &mut values {
                    *v = f(*v);
                }
                // SAFETY: as above; other parts write elsewhere.
                unsafe { base.store(o + i, values) }
                i += CHUNK;
            }
        }
        while i < n {
            // SAFETY: as above.
            let v = unsafe { base.source().load(x + i * from) };
            // SAFETY: as above.
            unsafe { base.store(o + i * to, f(v)) }
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::loops;
    use super::*;
    use crate::Isa;
    use crate::arena::StridedView;

    #[test]
    fn functions_are_close_to_the_exact_ones() {
        let erf = |x: f64| libm::erf(x);
        let cases: [(Unary, &dyn Fn(f64) -> f64); 33] = [
            (Unary::Silu, &|x| x / (1.0 + (-x).exp())),
            (Unary::Sigmoid, &|x| 1.0 / (1.0 + (-x).exp())),
            (Unary::Tanh, &f64::tanh),
            (Unary::Mish, &|x| x * x.exp().ln_1p().tanh()),
            (Unary::Softplus, &|x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            (Unary::Gelu, &|x| 0.5 * x * libm::erfc(-x / 2f64.sqrt())),
            (Unary::GeluTanh, &|x| {
                x / (1.0 + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).exp())
            }),
            (Unary::Erf, &erf),
            (Unary::Exp, &f64::exp),
            (Unary::Clamp(-0.5, 0.25), &|x| x.clamp(-0.5, 0.25)),
            (Unary::Ceil, &f64::ceil),
            (Unary::Round, &f64::round_ties_even),
            (Unary::Sign, &|x| if x == 0.0 { 0.0 } else { x.signum() }),
            (Unary::Elu(0.75), &|x| if x < 0.0 { 0.75 * x.exp_m1() } else { x }),
            (Unary::Celu(2.0), &|x| x.max(0.0) + (2.0 * (x / 2.0).exp_m1()).min(0.0)),
            (Unary::Selu(1.5, 1.25), &|x| 1.25 * if x < 0.0 { 1.5 * x.exp_m1() } else { x }),
            (Unary::LeakyRelu(0.25), &|x| if x < 0.0 { 0.25 * x } else { x }),
            (Unary::ThresholdedRelu(0.5), &|x| if x > 0.5 { x } else { 0.0 }),
            (Unary::HardSigmoid(0.25, 0.5), &|x| (0.25 * x + 0.5).clamp(0.0, 1.0)),
            (Unary::HardSwish, &|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            (Unary::Softsign, &|x| x / (1.0 + x.abs())),
            (Unary::Shrink { bias: 0.25, lambda: 0.5 }, &|x| {
                if x < -0.5 {
                    x + 0.25
                } else if x > 0.5 {
                    x - 0.25
                } else {
                    0.0
                }
            }),
            (Unary::Tan, &|x| f64::from(x as f32).tan()),
            (Unary::Atan, &f64::atan),
            (Unary::Sinh, &f64::sinh),
            (Unary::Cosh, &f64::cosh),
            (Unary::Asinh, &f64::asinh),
            (Unary::IsNan, &|_| 0.0),
            (Unary::IsInf { above: true, below: true }, &|_| 0.0),
            (Unary::Not, &|x| f64::from(u8::from(x == 0.0))),
            (Unary::Truth, &|x| f64::from(u8::from(x != 0.0))),
            (Unary::Absolute, &f64::abs),
            (Unary::Floor, &f64::floor),
        ];
        let step = if cfg!(miri) { 31 } else { 1 };
        let x: Vec<f32> = (-3000..3000).step_by(step).map(|i| i as f32 / 100.0).collect();
        for isa in Isa::available() {
            for (f, exact) in &cases {
                let mut memory = [x.clone(), vec![0.0; x.len()]].concat();
                let (from, to) = (StridedView::row_major(0, &[x.len()]), StridedView::row_major(x.len(), &[x.len()]));
                for index in 0..3 {
                    let m = Memory::new(&mut memory, &mut []);
                    crate::unary(isa, *f, &loops([&to, &from]), Part::new(index, 3).unwrap(), m);
                }
                for (x, y) in x.iter().zip(&memory[x.len()..]) {
                    let exact = exact(f64::from(*x));
                    let bound = 2e-6 * exact.abs() + 1e-7;
                    assert!((f64::from(*y) - exact).abs() <= bound, "{isa:?} {f:?} {x}: {y}, {exact}");
                }
            }
        }
    }
}
