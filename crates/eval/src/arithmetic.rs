//! exp, ln and fixed-order sums from IEEE operations alone, so that every computer gives the same bits.
//!
//! The standard library's `exp` and `ln` are the platform's libm, which differs between systems in the last bits; a
//! label chosen by such a bit would differ too. Only +, −, ×, ÷, √ and bit operations are used here. Relative error
//! of [`exp`] and [`ln`] is below 1e-15 (tested against the standard library).

/// ln 2 in two parts; the first has 21 trailing zero bits, so that `k * LN2_HIGH` is exact for every exponent k.
const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);

/// 1/k! for k = 0..=14.
const INVERSE_FACTORIALS: [f64; 15] = {
    let mut table = [1.0; 15];
    let mut factorial = 1.0;
    let mut k = 1;
    while k < table.len() {
        factorial *= k as f64;
        table[k] = 1.0 / factorial;
        k += 1;
    }
    table
};

/// eˣ, by x = k·ln 2 + r with |r| ≤ ½ ln 2 and the Taylor series of eʳ.
#[must_use]
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 709.782_712_893_384 {
        return f64::INFINITY;
    }
    if x < -745.133_219_101_941_2 {
        return 0.0;
    }
    let k = (x * std::f64::consts::LOG2_E).round();
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    let mut sum = 0.0;
    for coefficient in INVERSE_FACTORIALS.iter().rev() {
        sum = sum * r + coefficient;
    }
    // Two steps, so that neither factor overflows and subnormal results are reached.
    let k = k as i32;
    sum * power_of_two(k / 2) * power_of_two(k - k / 2)
}

/// ln x, by x = m·2ᵏ with m in [√½, √2) and ln m = 2 artanh((m−1)/(m+1)).
#[must_use]
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x.is_infinite() {
        return x;
    }
    let (x, shift) = if x < f64::MIN_POSITIVE { (x * power_of_two(54), -54) } else { (x, 0) };
    let bits = x.to_bits();
    let mut k = ((bits >> 52) & 0x7ff) as i32 - 1023 + shift;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        k += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    // 2s (1 + s²/3 + s⁴/5 + …): s² ≤ 0.0295, so eleven terms reach 1e-17.
    let mut tail = 0.0;
    for term in (1..=11).rev() {
        tail = (tail + 1.0 / f64::from(2 * term + 1)) * square;
    }
    let k = f64::from(k);
    k * LN2_HIGH + (k * LN2_LOW + (2.0 * s + 2.0 * s * tail))
}

/// 2ᵏ for −1022 ≤ k ≤ 1023.
fn power_of_two(k: i32) -> f64 {
    f64::from_bits(((k + 1023) as u64) << 52)
}

/// The sum in the given order, with Neumaier's compensation: exact to the last bit for the counts and rates here.
#[must_use]
pub fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    sum + lost
}

/// The arithmetic mean; 0 of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { sum(values.iter().copied()) / values.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_agree_with_the_standard_library() {
        let mut x = -740.0;
        while x < 709.0 {
            let (ours, theirs) = (exp(x), x.exp());
            assert!((ours - theirs).abs() <= 1e-15 * theirs + 5e-324, "exp({x}): {ours} {theirs}");
            x += 0.377;
        }
        for step in 1..4000 {
            let x = f64::from(step) * 0.0037;
            assert!((ln(x) - x.ln()).abs() <= 1e-15 * x.ln().abs() + 1e-16, "ln({x})");
            let x = exp(f64::from(step) * 0.17 - 340.0);
            assert!((ln(x) - x.ln()).abs() <= 1e-15 * x.ln().abs() + 1e-16, "ln({x})");
        }
    }

    #[test]
    fn edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(f64::INFINITY), f64::INFINITY);
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert!(ln(-1.0).is_nan());
        assert!((ln(5e-324) - -744.440_071_921_381_2).abs() < 1e-9);
    }

    #[test]
    fn sums_are_compensated() {
        assert_eq!(sum([1e100, 1.0, -1e100]), 1.0);
        assert_eq!(mean(&[]), 0.0);
    }
}
