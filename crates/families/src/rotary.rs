//! Rotary frequencies, by arithmetic that gives the same bits on every machine.
use engine::config::Rotary;

/// How positions turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series.
    pub theta: f64,
    /// Elements of a head that turn, even: the first ones.
    pub turned: usize,
    /// What stretches it.
    pub scaling: RopeScaling,
}

/// What stretches the series.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Nothing.
    None,
    /// Every angle divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided, high ones kept, a smooth passage between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above original / this are low.
        low_freq_factor: f64,
        /// Wavelengths below original / this are high.
        high_freq_factor: f64,
        /// Context of the original training.
        original_context: usize,
    },
    /// Divisors given one by one (GGUF's `rope_freqs.weight`).
    Factors(Vec<f32>),
    /// LongRoPE (Ding et al. 2024) as Phi has it: two lists of divisors. The long one is for texts beyond the original
    /// context, *all* of whose positions it changes. Here the context ends where it would begin, so that a text's
    /// beginning never depends on its length; only the short one turns.
    Long {
        /// Divisors up to the original context.
        short: Vec<f32>,
        /// Divisors beyond it.
        long: Vec<f32>,
        /// Factor on sine and cosine.
        attention_factor: f64,
        /// Context of the original training.
        original_context: usize,
        /// Context that the long divisors reach.
        long_context: usize,
    },
}

/// The engine's form.
pub(crate) fn rotary(rope: &Rope) -> Rotary {
    let scale = match &rope.scaling {
        RopeScaling::Long { attention_factor, .. } => *attention_factor as f32,
        _ => 1.0,
    };
    Rotary { inv_freq: inv_freq(rope), scale }
}

/// The angles per position of the `turned / 2` pairs: θ^(-2i/turned), each divided by its factor.
///
/// Powers are rounded to f32 before they are inverted, as PyTorch computes them.
pub fn inv_freq(rope: &Rope) -> Vec<f32> {
    let (half, n) = (rope.turned / 2, rope.turned as f64);
    let powers = (0..half).map(|i| power(rope.theta, (2 * i) as f64 / n) as f32);
    if let RopeScaling::Long { short, .. } = &rope.scaling {
        return powers.zip(short).map(|(power, factor)| 1.0 / (factor * power)).collect();
    }
    powers.zip(divisors(rope)).map(|(power, divisor)| (f64::from(1.0 / power) / divisor) as f32).collect()
}

/// What each of the `turned / 2` angles is divided by.
pub(crate) fn divisors(rope: &Rope) -> Vec<f64> {
    let (half, n) = (rope.turned / 2, rope.turned as f64);
    match &rope.scaling {
        RopeScaling::None => vec![1.0; half],
        RopeScaling::Linear { factor } => vec![*factor; half],
        RopeScaling::Factors(factors) | RopeScaling::Long { short: factors, .. } => {
            assert_eq!(factors.len(), half, "one rotary factor for each pair of a head");
            factors.iter().map(|&f| f64::from(f)).collect()
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let divisor = |i: usize| {
                // Turns that this pair makes within the original context: original / wavelength.
                let turns = *original_context as f64 / (2.0 * std::f64::consts::PI * power(rope.theta, (2 * i) as f64 / n));
                if turns < *low_freq_factor {
                    *factor
                } else if turns > *high_freq_factor {
                    1.0
                } else {
                    let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                }
            };
            (0..half).map(divisor).collect()
        }
    }
}

/// LongRoPE's factor on sine and cosine: √(1 + ln s / ln original), with s = context / original; 1 where that is no stretch.
pub(crate) fn long_attention_factor(stretch: f64, original_context: usize) -> f64 {
    if stretch <= 1.0 { 1.0 } else { (1.0 + logarithm(stretch) / logarithm(original_context as f64)).sqrt() }
}

/// base^exponent for base ≥ 1 and exponent in [0, 1], from additions, multiplications and divisions alone:
/// IEEE 754 rounds those alike everywhere, unlike the platform's `pow`. Good to a few units in the last place.
fn power(base: f64, exponent: f64) -> f64 {
    exponential(exponent * logarithm(base))
}

/// ln x for x ≥ 1: x = 2^e · m, m in [√½, √2), ln m = 2 artanh((m - 1) / (m + 1)).
fn logarithm(x: f64) -> f64 {
    let mut exponent = ((x.to_bits() >> 52) & 0x7ff) as i64 - 1023;
    let mut m = f64::from_bits((x.to_bits() & ((1 << 52) - 1)) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let t = (m - 1.0) / (m + 1.0);
    let (mut sum, mut odd_power) = (0.0, t);
    for n in 0..16 {
        sum += odd_power / f64::from(2 * n + 1); // |t| ≤ 0.172: the 16th term is below 1e-24
        odd_power *= t * t;
    }
    2.0 * sum + exponent as f64 * std::f64::consts::LN_2
}

/// e^x for 0 ≤ x ≤ 700: x = n ln 2 + r, |r| ≤ ln 2 / 2.
fn exponential(x: f64) -> f64 {
    let n = (x / std::f64::consts::LN_2 + 0.5).floor();
    let r = x - n * std::f64::consts::LN_2;
    let (mut sum, mut term) = (1.0, 1.0);
    for i in 1..20 {
        term *= r / f64::from(i);
        sum += term;
    }
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_exact_enough_to_round_to_the_right_f32() {
        for base in [1.0, 2.0, 10_000.0, 100_000.0, 500_000.0, 1e6, 1e9] {
            for i in 0..=128 {
                let exponent = f64::from(i) / 128.0;
                let (given, expected) = (power(base, exponent), base.powf(exponent));
                assert!((given / expected - 1.0).abs() < 1e-14, "{base}^{exponent}: {given} {expected}");
            }
        }
        assert_eq!(power(10_000.0, 0.0), 1.0);
    }

    /// PyTorch 2.15: `1.0 / (theta ** (torch.arange(0, d, 2).float() / d))`, every third of the 32 for d = 64.
    #[test]
    fn plain_angles_are_pytorchs_to_the_bit() {
        let angles = |theta, d| inv_freq(&Rope { theta, turned: d, scaling: RopeScaling::None });
        assert_eq!(angles(10_000.0, 8), [1.0, 0.1, 0.01, 0.001]);
        assert_eq!(angles(500_000.0, 8), [1.0, 0.037_606_03, 0.001_414_213_4, 5.318_295_7e-5]);
        let smollm: Vec<f32> = angles(100_000.0, 64).into_iter().step_by(3).collect();
        let expected = [
            1.0,
            0.339_820_83,
            0.115_478_2,
            0.039_241_9,
            0.013_335_215,
            0.004_531_583_7,
            0.001_539_926_5,
            0.000_523_299_1,
            0.000_177_827_94,
            6.042_963_7e-5,
            2.053_525e-5,
        ];
        assert_eq!(smollm, expected);
    }

    /// transformers 5.23: `ROPE_INIT_FUNCTIONS["llama3"]` for Llama 3.1's numbers and d = 16.
    #[test]
    fn llama3_angles_are_transformers() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 };
        let given = inv_freq(&Rope { theta: 500_000.0, turned: 16, scaling: scaling.clone() });
        let expected = [1.0, 0.193_922_76, 0.037_606_03, 0.007_292_665, 0.000_524_846, 3.428_102_4e-5, 6.647_87e-6, 1.289_173_2e-6];
        for (given, expected) in given.iter().zip(expected) {
            assert!((given / expected - 1.0).abs() < 3e-7, "{given} {expected}");
        }
        // The same through GGUF's list of factors, which are rounded once more.
        let factors = divisors(&Rope { theta: 500_000.0, turned: 16, scaling }).iter().map(|&d| d as f32).collect();
        for (by_factor, given) in inv_freq(&Rope { theta: 500_000.0, turned: 16, scaling: RopeScaling::Factors(factors) }).iter().zip(given)
        {
            assert!((by_factor / given - 1.0).abs() < 2e-7, "{by_factor} {given}");
        }
    }
}
