//! Functions of a number that compilers turn into arithmetic on vectors.

/// e^x for x from -87 to 88, within two units in the last place: 2^n times a polynomial of the rest.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = crate::simd::ROUND;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, so that the rest is exact
    let r = x - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    p * power
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    // for small x the quotient would lose digits
    let (square, e) = (x * x, exp(-2.0 * x.abs()));
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    let near = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    if x.abs() < 0.1 { near } else { far }
}

/// 1 - erf(x), within 3e-6 of itself: e^(-x²) times a polynomial of t = 1 / (1 + |x| / 2), whose greatest relative error up to
/// 23 is least among those of this degree without a constant: 9.8e-8.
#[inline(always)]
pub(super) fn erfc(x: f32) -> f32 {
    const POLYNOMIAL: [f32; 9] = [
        -0.055_672_098,
        0.270_122_9,
        -0.461_623_5,
        0.253_671_7,
        -0.013_046_183,
        0.198_228_31,
        0.243_932_08,
        0.282_297_8,
        0.282_089_08,
    ];
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let mut p = 0.0;
    for c in POLYNOMIAL {
        p = p * t + c;
    }
    let of_positive = p * t * exp(-x * x);
    if x < 0.0 { 2.0 - of_positive } else { of_positive }
}

/// tanh(ln(1 + e^x)), without the logarithm: with n = e^x (e^x + 2) it is n / (n + 2).
#[inline(always)]
pub(super) fn mish(x: f32) -> f32 {
    let e = exp(x.min(20.0));
    let n = e * (e + 2.0);
    x * (n / (n + 2.0))
}

#[inline(always)]
pub(super) fn softplus(x: f32) -> f32 {
    x.max(0.0) + libm::log1pf(exp(-x.abs()))
}
