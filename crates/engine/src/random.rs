//! Counter-based randomness: every draw is a hash of what it is for, so that no draw depends on how many
//! were made before it, on threads, or on how records are batched.
//!
//! A key comes from [`key`] or [`draw_key`]; draw `i` under it is `bits(key, i)`. The mixing function is
//! the finaliser of SplitMix64 (Steele, Lea & Flood 2014).

/// What a draw is for: draws for different purposes are independent under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Start values of an adapter.
    AdapterInit = 1,
    /// Dropout masks.
    Dropout = 2,
    /// Order of records.
    Shuffle = 3,
    /// Tokens drawn in generation.
    Sampling = 4,
    /// Whatever tests need.
    Test = 5,
}

/// The finaliser of SplitMix64: a bijection of 64 bits that looks random.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A key from seed, purpose and whatever names the draw; the order of `names` counts.
pub fn key(seed: u64, purpose: Purpose, names: &[u64]) -> u64 {
    let mut state = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(purpose as u64));
    for &name in names {
        state = mix(state.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mix(name.wrapping_add(0x632b_e59b_d9b4_e019)));
    }
    state
}

/// The key of a row's draws: record (or, for a run that records share, its content) and position in it.
pub fn draw_key(seed: u64, purpose: Purpose, epoch: u64, content: u64, position: u32) -> u64 {
    key(seed, purpose, &[epoch, content, u64::from(position)])
}

/// Draw `index` under a key.
pub fn bits(key: u64, index: u64) -> u64 {
    mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Uniform in [0, 1) with 24 bits: exactly representable in f32.
pub fn uniform(key: u64, index: u64) -> f32 {
    (bits(key, index) >> 40) as f32 / (1u32 << 24) as f32
}

/// Uniform in [0, 1) with 53 bits.
pub fn uniform_f64(key: u64, index: u64) -> f64 {
    (bits(key, index) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_look_uniform_and_independent_of_order() {
        let key = key(7, Purpose::Test, &[1, 2]);
        let n = 100_000;
        let mean: f64 = (0..n).map(|i| uniform_f64(key, i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 3e-3, "mean {mean}");
        let mut bins = [0usize; 16];
        (0..n).for_each(|i| bins[(uniform(key, i) * 16.0) as usize] += 1);
        let chi: f64 = bins.iter().map(|&b| (b as f64 - n as f64 / 16.0).powi(2) / (n as f64 / 16.0)).sum();
        assert!(chi < 40.0, "chi² {chi} with 15 degrees of freedom");
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let base = draw_key(1, Purpose::Dropout, 2, 3, 4);
        assert_ne!(base, draw_key(2, Purpose::Dropout, 2, 3, 4));
        assert_ne!(base, draw_key(1, Purpose::Sampling, 2, 3, 4));
        assert_ne!(base, draw_key(1, Purpose::Dropout, 3, 3, 4));
        assert_ne!(base, draw_key(1, Purpose::Dropout, 2, 4, 4));
        assert_ne!(base, draw_key(1, Purpose::Dropout, 2, 3, 5));
        assert_ne!(key(1, Purpose::Test, &[1, 2]), key(1, Purpose::Test, &[2, 1]));
    }
}
