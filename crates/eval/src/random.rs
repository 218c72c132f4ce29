//! Counter-based randomness: a number is a function of (seed, purpose, counter), never of what was drawn before.
//!
//! The mixer is SplitMix64's finaliser (Steele, Lea, Flood 2014: "Fast splittable pseudorandom number generators"), applied twice
//! to a keyed counter. It serves resampling and shuffling; it is no cipher.

/// One independent stream of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of a seed and a purpose (a short constant such as `"bootstrap"`).
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut key = mix(seed ^ GOLDEN);
        for byte in purpose.bytes() {
            key = mix(key.wrapping_add(GOLDEN) ^ u64::from(byte));
        }
        Self { key }
    }

    /// A stream of its own within this one, for example one per replicate.
    #[must_use]
    pub fn fork(self, index: u64) -> Self {
        Self { key: mix(mix(self.key ^ index.wrapping_mul(GOLDEN)).wrapping_add(GOLDEN)) }
    }

    /// The random bits at a position.
    #[must_use]
    pub fn at(self, counter: u64) -> u64 {
        mix(mix(self.key.wrapping_add(counter.wrapping_mul(GOLDEN))) ^ self.key)
    }

    /// A number in 0..bound at a position; the bias of the multiply-high method is below bound/2⁶⁴.
    #[must_use]
    pub fn below(self, counter: u64, bound: usize) -> usize {
        ((u128::from(self.at(counter)) * bound as u128) >> 64) as usize
    }

    /// The numbers 0..n in random order (Fisher–Yates).
    #[must_use]
    pub fn permutation(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last as u64, last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_depends_on_seed_purpose_and_position_only() {
        let stream = Stream::new(7, "bootstrap");
        assert_eq!(stream.at(3), Stream::new(7, "bootstrap").at(3));
        assert_ne!(stream.at(3), stream.at(4));
        assert_ne!(stream.at(3), Stream::new(8, "bootstrap").at(3));
        assert_ne!(stream.at(3), Stream::new(7, "folds").at(3));
        assert_ne!(stream.fork(0).at(3), stream.fork(1).at(3));
    }

    /// Pinned: another value here would change every interval ever reported.
    #[test]
    fn the_stream_never_changes() {
        assert_eq!(Stream::new(42, "pin").at(7), 0x4d30aa816cd4f959);
    }

    #[test]
    fn draws_are_uniform() {
        let stream = Stream::new(1, "uniform");
        let mut counts = [0_u32; 10];
        for counter in 0..100_000 {
            counts[stream.below(counter, 10)] += 1;
        }
        // χ² with 9 degrees of freedom: 27.9 is the 0.999 quantile.
        let chi: f64 = counts.iter().map(|&count| (f64::from(count) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 27.9, "{chi}");
        let mut order = stream.permutation(100);
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
