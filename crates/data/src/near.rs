//! Near-duplicates: MinHash sketches, locality-sensitive hashing to find candidates, exact Jaccard to decide.
//!
//! Texts are compared *folded* ([`fold`]): lower case, letters and digits only, single spaces. A text is the set of its
//! [`Shingles`]; two texts are near-duplicates if |A ∩ B| / |A ∪ B| reaches a threshold. Sketches are those of
//! Dahlgaard, Knudsen and Thorup, "Fast Similarity Sketching" (FOCS 2017): as good as one hash function per position,
//! at the cost of about one for long texts. Positions are cut into bands; texts that agree on all of a band are
//! candidates (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", §3.4). Long texts of one language share
//! many shingles, so that among very many of them unrelated ones agree on a band too: of each candidate pair one bit of
//! each position is compared first (Li and König, "b-Bit Minwise Hashing", WWW 2010; [`SketchBits`]). The pairs that
//! are left are compared shingle by shingle, so that whatever is called a near-duplicate is one.

use crate::windows::rolled;

/// Positions of a sketch: so many that a band is long enough to part texts with a quarter of their shingles in common.
pub const POSITIONS: usize = 256;
/// Least probability that a pair at the threshold becomes a candidate.
const RECALL: f64 = 0.985;
/// Standard deviations by which a pair's bits may agree less often than a pair at the threshold does on average: one
/// such pair in four thousand is missed by that.
const DEVIATIONS: f64 = 3.5;

/// What the shingles of a text are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shingles {
    /// So many words in a row.
    Words(usize),
    /// So many characters in a row.
    Characters(usize),
}

/// What counts as nearly the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearness {
    /// What is compared.
    pub shingles: Shingles,
    /// Least Jaccard similarity, above 0, at most 1.
    pub jaccard: f64,
}

impl Nearness {
    /// Bands of a sketch, and positions of a band: as long as pairs at the threshold are still found.
    pub fn bands(&self) -> (usize, usize) {
        let recall = |positions: usize| {
            let agree = self.jaccard.powi(positions as i32);
            1.0 - (1.0 - agree).powi((POSITIONS / positions) as i32)
        };
        let positions = (1..=POSITIONS / 4).rev().find(|positions| recall(*positions) >= RECALL).unwrap_or(1);
        (POSITIONS / positions, positions)
    }
}

/// Lower case, letters and digits only, runs of white space as one space: texts that a person would call the same.
/// Other characters vanish without a trace, so that `didn't` is `didnt` and `top-up` is `topup`.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut space = false;
    for character in text.chars() {
        // What is in ASCII is looked up: this is done for every character of every record.
        match FOLDED.get(character as usize) {
            Some(0) => {}
            Some(b' ') => space = !folded.is_empty(),
            Some(byte) => {
                if std::mem::take(&mut space) {
                    folded.push(' ');
                }
                folded.push(char::from(*byte));
            }
            None if character.is_whitespace() => space = !folded.is_empty(),
            None if character.is_alphanumeric() => {
                if std::mem::take(&mut space) {
                    folded.push(' ');
                }
                folded.extend(character.to_lowercase());
            }
            None => {}
        }
    }
    folded
}

/// What a character of ASCII becomes when a text is folded; 0: nothing.
const FOLDED: [u8; 128] = {
    let mut folded = [0; 128];
    let mut byte = 0u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            folded[byte as usize] = byte.to_ascii_lowercase();
        } else if matches!(byte, b' ' | 0x09..=0x0D) {
            folded[byte as usize] = b' ';
        }
        byte += 1;
    }
    folded
};

/// Mixes all bits (the finaliser of SplitMix64).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A hash of a few bytes, the same on every machine.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]]);
        state = (state.rotate_left(23) ^ word).wrapping_mul(0x2545_F491_4F6C_DD1D);
    }
    let rest = chunks.remainder();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix((state.rotate_left(23) ^ u64::from_le_bytes(last)).wrapping_mul(0x2545_F491_4F6C_DD1D))
}

/// Two such hashes at once: equal for different texts by a chance of 2⁻¹²⁸, as long as nobody makes them so.
pub(crate) fn hash_twice(bytes: &[u8]) -> [u8; 16] {
    let (mut a, mut b) = (0x9E37_79B9_7F4A_7C15 ^ bytes.len() as u64, 0xC2B2_AE3D_27D4_EB4F_u64);
    let mut take = |word: u64| {
        a = (a.rotate_left(23) ^ word).wrapping_mul(0x2545_F491_4F6C_DD1D);
        b = (b.rotate_left(29) ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25);
    };
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        take(u64::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]]));
    }
    let rest = chunks.remainder();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    take(u64::from_le_bytes(last));
    let mut both = [0; 16];
    both[..8].copy_from_slice(&mix(a).to_be_bytes());
    both[8..].copy_from_slice(&mix(b).to_be_bytes());
    both
}

impl Shingles {
    /// Hashes of the shingles of a folded text, in order of appearance, repetitions included. A text shorter than one
    /// shingle is one.
    pub fn of(self, folded: &str) -> Vec<u64> {
        fn or_whole(units: impl Iterator<Item = u64> + Clone, n: usize) -> Vec<u64> {
            let hashes = rolled(units.clone(), n);
            if hashes.is_empty() { rolled(units.clone(), units.count()) } else { hashes }
        }
        match self {
            _ if folded.is_empty() => Vec::new(),
            Self::Words(n) => {
                let words: Vec<u64> = folded.split(' ').map(|word| hash_bytes(word.as_bytes())).collect();
                or_whole(words.into_iter(), n)
            }
            // Characters hash to themselves, so that a text of ASCII and one beyond it share their shingles.
            Self::Characters(n) if folded.is_ascii() => or_whole(folded.bytes().map(u64::from), n),
            Self::Characters(n) => or_whole(folded.chars().map(u64::from), n),
        }
    }

    /// The same as a set: sorted, each once.
    pub fn set(self, folded: &str) -> Vec<u64> {
        let mut hashes = self.of(folded);
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }
}

/// |A ∩ B| / |A ∪ B| of two sets made by [`Shingles::set`]; 0 for two empty ones.
pub fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut shared) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                shared += 1;
                i += 1;
                j += 1;
            }
        }
    }
    let union = a.len() + b.len() - shared;
    if union == 0 { 0.0 } else { shared as f64 / union as f64 }
}

/// A sketch of a set of shingles; `None` of the empty set. Two sketches agree on a share of their positions that is
/// near the sets' Jaccard similarity.
pub fn sketch(shingles: &[u64]) -> Option<[u64; POSITIONS]> {
    if shingles.is_empty() {
        return None;
    }
    let mut positions = [u64::MAX; POSITIONS];
    let mut empty = POSITIONS;
    // The first rounds throw every shingle into some position; the later ones fill one position each, so that it ends.
    for round in 0..2 * POSITIONS {
        let seed = mix(round as u64 + 1);
        for shingle in shingles {
            let hash = mix(shingle ^ seed);
            let position = if round < POSITIONS { (hash >> 56) as usize } else { round - POSITIONS };
            let value = ((round as u64) << 48) | (hash & 0xFFFF_FFFF_FFFF);
            let place = &mut positions[position];
            empty -= usize::from(*place == u64::MAX);
            *place = value.min(*place);
        }
        if empty == 0 {
            break;
        }
    }
    Some(positions)
}

/// One bit of each position of a sketch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SketchBits([u64; POSITIONS / 64]);

impl SketchBits {
    /// Those of a sketch.
    pub fn of(sketch: &[u64; POSITIONS]) -> Self {
        let mut bits = [0; POSITIONS / 64];
        for (word, positions) in bits.iter_mut().zip(sketch.chunks_exact(64)) {
            *word = positions.iter().fold(0, |word, position| (word << 1) | (position & 1));
        }
        Self(bits)
    }
}

/// How many bits of two sketches may differ so that the pair is still worth comparing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BitLimits {
    /// Of the first half of the positions, which settles it for most pairs.
    half: u32,
    whole: u32,
}

impl BitLimits {
    /// Bits differ with probability (1 − J) / 2: positions that differ have the same bit half of the time.
    pub(crate) fn new(jaccard: f64) -> Self {
        let differ = (1.0 - jaccard) / 2.0;
        let limit = |positions: usize| {
            let mean = positions as f64 * differ;
            (mean + DEVIATIONS * (mean * (1.0 - differ)).sqrt()).floor() as u32
        };
        Self { half: limit(POSITIONS / 2), whole: limit(POSITIONS) }
    }

    /// Whether so few differ that the texts may be near.
    pub(crate) fn may_be_near(self, a: &SketchBits, b: &SketchBits) -> bool {
        let differ =
            |range: std::ops::Range<usize>| a.0[range.clone()].iter().zip(&b.0[range]).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        const HALF: usize = POSITIONS / 128;
        let first = differ(0..HALF);
        first <= self.half && first + differ(HALF..2 * HALF) <= self.whole
    }
}

/// A hash for each band of a sketch.
pub fn band_keys(sketch: &[u64; POSITIONS], nearness: &Nearness) -> Vec<u64> {
    let (bands, positions) = nearness.bands();
    let key = |band: &[u64]| band.iter().fold(0, |key: u64, value| mix(key.rotate_left(17) ^ value));
    sketch.chunks_exact(positions).take(bands).map(key).collect()
}

/// Sets of rows that are joined one pair at a time; a set is known by its first row.
#[derive(Clone, Debug)]
pub(crate) struct UnionFind {
    parent: Vec<u32>,
}

impl UnionFind {
    pub(crate) fn new(rows: usize) -> Self {
        Self { parent: (0..rows as u32).collect() }
    }

    /// The first row of its set, as things stand.
    pub(crate) fn find(&self, row: u32) -> u32 {
        let mut at = row;
        while self.parent[at as usize] != at {
            at = self.parent[at as usize];
        }
        at
    }

    pub(crate) fn root(&mut self, row: u32) -> u32 {
        let mut at = row as usize;
        while self.parent[at] as usize != at {
            self.parent[at] = self.parent[self.parent[at] as usize];
            at = self.parent[at] as usize;
        }
        at as u32
    }

    /// Joins two sets; false if they were one already.
    pub(crate) fn join(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b) as usize] = a.min(b);
        a != b
    }
}

/// Rows of a bucket with which each later one is compared, at most, of those that may be near it: the first and the last.
/// More of them are texts that are all alike, and a few comparisons join them.
const COMPARED_ALL: usize = 24;
const COMPARED_FIRST: usize = 6;
const COMPARED_LAST: usize = 3;
/// Rows of a bucket at whose bits each later one looks: the first half and the last half of so many.
const LOOKED_AT: usize = 1024;

/// Pairs (earlier, later) of a bucket that are to be compared: `maybe(i, j)` tells whether its `i`th and `j`th row, with
/// `i` above `j`, may be near. The time for a row of a bucket is bounded, whatever the bucket's size.
pub(crate) fn bucket_pairs(rows: &[u32], maybe: impl Fn(usize, usize) -> bool, mut pair: impl FnMut(u32, u32)) {
    let mut found = Vec::new();
    for (i, row) in rows.iter().enumerate().skip(1) {
        found.clear();
        let (first, last) = if i <= LOOKED_AT { (0..i, i..i) } else { (0..LOOKED_AT / 2, i - LOOKED_AT / 2..i) };
        found.extend(first.chain(last).filter(|j| maybe(i, *j)));
        for (place, j) in found.iter().enumerate() {
            if found.len() <= COMPARED_ALL || place < COMPARED_FIRST || place + COMPARED_LAST >= found.len() {
                pair(rows[*j], *row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_forgets_case_punctuation_and_white_space() {
        assert_eq!(fold("\n\nWhat's  the top-up LIMIT ?"), "whats the topup limit");
        assert_eq!(fold("Größe: 10 €"), "größe 10");
        assert_eq!(fold(" - "), "");
    }

    #[test]
    fn shingles_of_short_and_long_texts() {
        assert_eq!(Shingles::Words(3).of("a b c d").len(), 2);
        assert_eq!(Shingles::Words(5).of("a b"), Shingles::Words(9).of("a b"));
        assert_eq!(Shingles::Characters(5).of("größer").len(), 2);
        assert!(Shingles::Characters(5).of("").is_empty());
        assert_eq!(Shingles::Characters(3).of("aaaaa").len(), 3);
        assert_eq!(Shingles::Characters(3).set("aaaaa").len(), 1);
    }

    /// The share of equal positions is the similarity, for sets of a few and of many.
    #[test]
    fn sketches_estimate_jaccard() {
        for (size, shared) in [(4u64, 3u64), (20, 15), (300, 250), (5000, 3000)] {
            let (mut agree, trials) = (0, 200u64);
            for trial in 0..trials {
                let base = trial * 1_000_003;
                let a: Vec<u64> = (0..size).map(|i| mix(base + i)).collect();
                let b: Vec<u64> = (size - shared..2 * size - shared).map(|i| mix(base + i)).collect();
                let (a, b) = (sketch(&a).unwrap(), sketch(&b).unwrap());
                agree += a.iter().zip(&b).filter(|(a, b)| a == b).count();
            }
            let estimate = agree as f64 / (trials * POSITIONS as u64) as f64;
            let truth = shared as f64 / (2 * size - shared) as f64;
            assert!((estimate - truth).abs() < 0.025, "{size}: {estimate} instead of {truth}");
        }
    }

    #[test]
    fn bands_find_pairs_at_the_threshold() {
        let bands = |jaccard| Nearness { shingles: Shingles::Characters(5), jaccard }.bands();
        assert_eq!(bands(0.7), (42, 6));
        assert_eq!(bands(0.5), (85, 3));
        assert_eq!(bands(0.8), (32, 8));
        assert_eq!(bands(1.0), (4, 64));
    }

    /// Bits let pairs at the threshold pass and hold back nearly all that have but a third of their shingles in common.
    #[test]
    fn bits_part_near_texts_from_others() {
        let passed = |size: u64, shared: u64| {
            let limits = BitLimits::new(0.7);
            let bits = |from: u64| SketchBits::of(&sketch(&(from..from + size).map(mix).collect::<Vec<_>>()).unwrap());
            (0..1000).filter(|trial| limits.may_be_near(&bits(trial * 1_000_003), &bits(trial * 1_000_003 + size - shared))).count()
        };
        // 700 of 1 000 shingles in common, and 20 of 60.
        assert!(passed(850, 700) >= 995, "{}", passed(850, 700));
        assert!(passed(40, 20) <= 5, "{}", passed(40, 20));
        assert_eq!(passed(1, 1), 1000);
    }

    #[test]
    fn large_buckets_stay_linear() {
        let rows: Vec<u32> = (0..5000).collect();
        let (mut pairs, mut sets) = (0, UnionFind::new(5000));
        bucket_pairs(
            &rows,
            |_, _| true,
            |a, b| {
                pairs += 1;
                sets.join(a, b);
            },
        );
        assert!(pairs < 50_000, "{pairs}");
        assert!(rows.iter().all(|row| sets.root(*row) == 0 && sets.find(*row) == 0));
        // Of those that may be near none is left out, even where thousands of others stand between them.
        let mut met = Vec::new();
        bucket_pairs(&rows, |i, j| i == 900 && j == 7 || i == 4000 && j == 3800, |a, b| met.push((a, b)));
        assert_eq!(met, [(7, 900), (3800, 4000)]);
    }
}
