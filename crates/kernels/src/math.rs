//! Transcendental functions that are ours, so that every machine computes the same bits: on vectors of f32 over
//! [`Simd`], and on single f64 numbers. None calls the platform's libm.
//!
//! The vector functions are good to 2.5 ulp, the f64 ones to 1e-13 relative (sin and cos: 1e-15 absolute).
//! Polynomials are truncated Taylor series on ranges so small that the next term is below the rounding error.
//! Each function is `#[inline(always)]`, to be compiled for the caller's level.

use crate::simd::Simd;

/// ln 2 with nine trailing zero bits, so that its products with small integers are exact.
const LN2_HIGH_F32: f32 = 0.693_145_75;
/// ln 2 minus the above.
const LN2_LOW_F32: f32 = 1.428_606_8e-6;
/// ln 2 with twenty trailing zero bits.
const LN2_HIGH: f64 = 0.693_147_180_485_539_1;
/// ln 2 minus the above.
const LN2_LOW: f64 = 7.440_617_110_012_397e-11;
/// π/2 as an f64, and what it lacks.
const HALF_PI: [f64; 2] = [std::f64::consts::FRAC_PI_2, 6.123_233_995_736_766e-17];

/// 2^n for -252 <= n <= 254, multiplied onto `x` in two steps, so that the result may be subnormal or infinite.
#[inline(always)]
fn scale_by_power<S: Simd>(s: S, x: S::F, n: S::I) -> S::F {
    let half = s.sar_i(n, 1);
    let bias = s.splat_i(127);
    let power = |n: S::I| s.from_bits(s.shl_i(s.add_i(n, bias), 23));
    s.mul(s.mul(x, power(half)), power(s.sub_i(n, half)))
}

/// e^x. exp(-inf) = 0, exp(+inf) = +inf, NaN stays NaN; overflows to +inf above 88.7228, to 0 below -103.97.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // x = n ln 2 + r with |r| <= ln 2 / 2; the clamp keeps n in range and lets NaN through as `x`.
    let clamped = s.max(s.splat(-150.0), s.min(s.splat(150.0), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.neg_mul_add(n, s.splat(LN2_HIGH_F32), clamped);
    let r = s.neg_mul_add(n, s.splat(LN2_LOW_F32), r);
    // 1 + r + r²/2 + … + r⁷/5040
    let mut p = s.splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        p = s.mul_add(p, r, s.splat(c));
    }
    let p = s.add(s.splat(1.0), s.mul_add(s.mul(r, r), p, r));
    let number = s.eq(x, x);
    let n = s.to_i(s.select(number, n, s.splat(0.0)));
    s.select(number, scale_by_power(s, p, n), x)
}

/// Natural logarithm. ln(±0) = -inf, ln(+inf) = +inf, NaN for x < 0 and NaN; subnormals are exact inputs.
#[inline(always)]
pub fn ln<S: Simd>(s: S, x: S::F) -> S::F {
    // Subnormals are lifted by 2^23 first. x = 2^e m with √½ <= m < √2.
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let lifted = s.select(tiny, s.mul(x, s.splat(8_388_608.0)), x);
    let offset = s.splat_i(0x3f35_04f3); // bits of √½
    let bits = s.sub_i(s.to_bits(lifted), offset);
    let e = s.to_f(s.sar_i(bits, 23));
    let e = s.select(tiny, s.sub(e, s.splat(23.0)), e);
    let m = s.from_bits(s.add_i(s.and_i(bits, s.splat_i(0x007f_ffff)), offset));
    // With f = m - 1 and t = f / (2 + f): ln m = f - (f²/2 - t (f²/2 + R)), R = 2/3 t² + 2/5 t⁴ + …
    let f = s.sub(m, s.splat(1.0));
    let t = s.div(f, s.add(s.splat(2.0), f));
    let t2 = s.mul(t, t);
    let mut r = s.splat(2.0 / 9.0);
    for c in [2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0] {
        r = s.mul_add(r, t2, s.splat(c));
    }
    let r = s.mul(r, t2);
    let half_square = s.mul(s.mul(f, f), s.splat(0.5));
    let low = s.mul_add(e, s.splat(LN2_LOW_F32), s.mul(t, s.add(half_square, r)));
    let y = s.add(s.mul(e, s.splat(LN2_HIGH_F32)), s.sub(f, s.sub(half_square, low)));
    // Specials: what is not an ordinary positive number.
    let y = s.select(s.lt(x, s.splat(f32::INFINITY)), y, x);
    let y = s.select(s.lt(x, s.splat(0.0)), s.splat(f32::NAN), y);
    s.select(s.eq(x, s.splat(0.0)), s.splat(f32::NEG_INFINITY), y)
}

/// Hyperbolic tangent. tanh(±inf) = ±1, tanh(±0) = ±0, NaN stays NaN.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let size = s.abs(x);
    // |x| >= 0.55: 1 - 2 / (e^2|x| + 1).
    let e = exp(s, s.add(size, size));
    let large = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    // Below: |x| + |x|³ P(x²), the Taylor series' quotients.
    let x2 = s.mul(x, x);
    let mut p = s.splat(TANH_SERIES[0]);
    for &c in &TANH_SERIES[1..] {
        p = s.mul_add(p, x2, s.splat(c));
    }
    let small = s.mul_add(s.mul(x2, p), size, size);
    // A NaN fails the comparison and takes the large branch, where exp has kept it.
    let y = s.select(s.lt(size, s.splat(0.55)), small, large);
    let sign = s.and_i(s.to_bits(x), s.splat_i(i32::MIN));
    s.from_bits(s.or_i(s.to_bits(y), sign))
}

/// Coefficients of x^19, x^17 … x^3 in tanh x.
const TANH_SERIES: [f32; 9] = [
    (-443_861_162.0 / 1_856_156_927_625.0_f64) as f32,
    (6_404_582.0 / 10_854_718_875.0_f64) as f32,
    (-929_569.0 / 638_512_875.0_f64) as f32,
    (21_844.0 / 6_081_075.0_f64) as f32,
    (-1_382.0 / 155_925.0_f64) as f32,
    (62.0 / 2_835.0_f64) as f32,
    (-17.0 / 315.0_f64) as f32,
    (2.0 / 15.0_f64) as f32,
    (-1.0 / 3.0_f64) as f32,
];

/// 1 / (1 + e^-x). sigmoid(-inf) = 0, sigmoid(+inf) = 1, NaN stays NaN; accurate in both tails.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.neg(s.abs(x))); // never overflows
    let top = s.select(s.lt(x, s.splat(0.0)), e, s.splat(1.0));
    s.div(top, s.add(s.splat(1.0), e))
}

/// Functions of one f64, for tables and scalars: bit-equal on every machine, unlike the platform's libm.
pub mod scalar {
    use super::{HALF_PI, LN2_HIGH, LN2_LOW};

    /// Square root, correctly rounded (IEEE 754 asks it of the hardware).
    pub fn sqrt(x: f64) -> f64 {
        x.sqrt()
    }

    /// 2^n x, also where 2^n alone would overflow or the result is subnormal.
    fn scale_by_power(x: f64, n: i32) -> f64 {
        let power = |n: i32| f64::from_bits(((1023 + n) as u64) << 52);
        let half = n >> 1;
        x * power(half) * power(n - half)
    }

    /// e^x. exp(-inf) = 0, exp(+inf) = +inf, NaN stays NaN.
    pub fn exp(x: f64) -> f64 {
        if x.is_nan() {
            return x;
        }
        let x = x.clamp(-800.0, 800.0);
        let n = (x * std::f64::consts::LOG2_E).round_ties_even();
        let r = (-n).mul_add(LN2_HIGH, x);
        let r = (-n).mul_add(LN2_LOW, r);
        // Σ rⁱ/i! up to i = 13, innermost first.
        let mut p = 1.0;
        for i in (2..=13).rev() {
            p = (p * r / f64::from(i)) + 1.0;
        }
        scale_by_power(p.mul_add(r, 1.0), n as i32)
    }

    /// Natural logarithm. ln(±0) = -inf, ln(+inf) = +inf, NaN for x < 0 and NaN.
    pub fn ln(x: f64) -> f64 {
        if x.is_nan() || x < 0.0 {
            return f64::NAN;
        }
        if x == 0.0 {
            return f64::NEG_INFINITY;
        }
        if x == f64::INFINITY {
            return x;
        }
        let (x, lift) = if x < f64::MIN_POSITIVE { (x * 18_014_398_509_481_984.0, 54) } else { (x, 0) };
        // x = 2^e m with √½ <= m < √2; with t = (m - 1) / (m + 1), ln m = 2 (t + t³/3 + t⁵/5 + …).
        let offset = std::f64::consts::FRAC_1_SQRT_2.to_bits();
        let bits = x.to_bits().wrapping_sub(offset) as i64;
        let e = ((bits >> 52) - lift) as f64;
        let m = f64::from_bits((bits as u64 & ((1 << 52) - 1)) + offset);
        let f = m - 1.0;
        let t = f / (m + 1.0);
        let t2 = t * t;
        let mut p = 0.0;
        for i in (3..=21).rev().step_by(2) {
            p = (p + 1.0 / f64::from(i)) * t2;
        }
        // ln m = f - t f + 2 t p, because 2 t = f - t f.
        let low = e.mul_add(LN2_LOW, t * (2.0 * p - f));
        e.mul_add(LN2_HIGH, f + low)
    }

    /// x^y for x >= 0; integer |y| <= 64 by repeated squaring (any x), else e^(y ln x), to 1e-13 where |y ln x| < 300.
    pub fn pow(x: f64, y: f64) -> f64 {
        if y.abs() <= 64.0 && y == y.round_ties_even() {
            let (mut power, mut square, mut n) = (1.0, x, y.abs() as u32);
            while n > 0 {
                if n & 1 == 1 {
                    power *= square;
                }
                square *= square;
                n >>= 1;
            }
            return if y < 0.0 { 1.0 / power } else { power };
        }
        if x == 0.0 {
            return if y > 0.0 { 0.0 } else { f64::INFINITY };
        }
        if x == 1.0 {
            return 1.0;
        }
        exp(y * ln(x))
    }

    /// Hyperbolic tangent. tanh(±inf) = ±1, NaN stays NaN.
    pub fn tanh(x: f64) -> f64 {
        let size = x.abs();
        if size < 0.17 {
            // sinh / cosh by their series, where 1 - 2 / (e^2x + 1) would cancel.
            let x2 = x * x;
            let (mut sinh, mut cosh) = (1.0, 1.0);
            for i in (1..=7).rev().map(f64::from) {
                sinh = 1.0 + sinh * x2 / (2.0 * i * (2.0 * i + 1.0));
                cosh = 1.0 + cosh * x2 / (2.0 * i * (2.0 * i - 1.0));
            }
            return x * (sinh / cosh);
        }
        (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x)
    }

    /// (sin x, cos x), to 1e-15 for |x| <= 1e6; NaN for infinities and NaN.
    pub fn sin_cos(x: f64) -> (f64, f64) {
        if !x.is_finite() {
            return (f64::NAN, f64::NAN);
        }
        // x = n π/2 + r with |r| <= π/4.
        let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
        let r = if n == 0.0 { x } else { (-n).mul_add(HALF_PI[1], (-n).mul_add(HALF_PI[0], x)) };
        let r2 = r * r;
        let (mut sin, mut cos) = (1.0, 1.0);
        for i in (1..=9).rev().map(f64::from) {
            sin = 1.0 - sin * r2 / (2.0 * i * (2.0 * i + 1.0));
            cos = 1.0 - cos * r2 / (2.0 * i * (2.0 * i - 1.0));
        }
        let sin = r * sin;
        match (n as i64).rem_euclid(4) {
            0 => (sin, cos),
            1 => (cos, -sin),
            2 => (-sin, -cos),
            _ => (-cos, sin),
        }
    }

    /// Sine, as [`sin_cos`].
    pub fn sin(x: f64) -> f64 {
        sin_cos(x).0
    }

    /// Cosine, as [`sin_cos`].
    pub fn cos(x: f64) -> f64 {
        sin_cos(x).1
    }
}
