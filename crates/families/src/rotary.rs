//! Rotary frequencies, by arithmetic that gives the same bits on every machine.

/// How positions turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series.
    pub theta: f64,
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
}

/// The `head_dim / 2` angles per position.
pub fn inv_freq(rope: &Rope, head_dim: usize) -> Vec<f32> { todo!() }
