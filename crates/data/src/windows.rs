//! Passages that texts share: hashes of all windows of so many words, rolled along (Karp and Rabin 1987).
//!
//! Texts are compared folded ([`crate::near::fold`]). Where every window of every text would be too many, a few are chosen
//! by winnowing (Schleimer, Wilkerson and Aiken, "Winnowing", SIGMOD 2003): of each run of windows the one with the least
//! hash, so that two texts with a long enough passage in common always choose a window in common.

use crate::near::{hash_bytes, mix};
use std::collections::HashSet;

/// Base of the polynomial that is rolled: odd, so that no bit is lost.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;
/// Windows that a [`WindowSet`] keeps before it samples, 32 MB of them.
pub const SET_MAX: usize = 1 << 21;
/// A text of fewer words says too little to be called the same as another's part.
pub const WHOLE_WORDS_MIN: usize = 5;

/// Hashes of the words of a folded text.
pub fn words(folded: &str) -> Vec<u64> {
    folded.split(' ').filter(|word| !word.is_empty()).map(|word| hash_bytes(word.as_bytes())).collect()
}

/// Hashes of all windows of `n` words, in order; none of a shorter text.
pub fn windows(words: &[u64], n: usize) -> Vec<u64> {
    rolled(words.iter().copied(), n)
}

/// Hashes of all windows of `n` units, in order; none of fewer units.
pub(crate) fn rolled(units: impl Iterator<Item = u64> + Clone, n: usize) -> Vec<u64> {
    let n = n.max(1);
    let mut enters = units.clone();
    let (mut hash, mut count) = (0u64, 0);
    for unit in enters.by_ref().take(n) {
        hash = hash.wrapping_mul(BASE).wrapping_add(unit);
        count += 1;
    }
    if count < n {
        return Vec::new();
    }
    let highest = (1..n).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut hashes = Vec::with_capacity(1 + enters.size_hint().0);
    hashes.push(mix(hash));
    for (leaves, enters) in units.zip(enters) {
        hash = hash.wrapping_sub(leaves.wrapping_mul(highest)).wrapping_mul(BASE).wrapping_add(enters);
        hashes.push(mix(hash));
    }
    hashes
}

/// The windows of a text that stand for it: two texts that share at least `passage` words in a row share one of these.
/// The windows are of half that length.
pub fn chosen(words: &[u64], passage: usize) -> Vec<u64> {
    let length = passage.div_ceil(2).max(1);
    let run = passage.max(1) - length + 1;
    let hashes = windows(words, length);
    let mut chosen = Vec::new();
    if hashes.len() < run {
        return chosen;
    }
    let mut last = usize::MAX;
    for start in 0..=hashes.len() - run {
        if last == usize::MAX || last < start {
            // The rightmost of the least, as the paper has it: it stays the longest.
            last = (start..start + run).rev().min_by_key(|at| hashes[*at]).unwrap_or(start);
            chosen.push(hashes[last]);
        } else if hashes[start + run - 1] <= hashes[last] {
            last = start + run - 1;
            chosen.push(hashes[last]);
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// The most words in a row that two texts share, as far as that is at least `passage`.
pub fn longest_shared(a: &[u64], b: &[u64], passage: usize) -> usize {
    let length = passage.div_ceil(2).max(1);
    let mut first = std::collections::HashMap::new();
    for (at, hash) in windows(a, length).into_iter().enumerate() {
        first.entry(hash).or_insert(at);
    }
    let (mut longest, mut next) = (0, 0);
    for (at, hash) in windows(b, length).into_iter().enumerate() {
        if at < next {
            continue;
        }
        let Some(there) = first.get(&hash).copied() else { continue };
        let before = a[..there].iter().rev().zip(b[..at].iter().rev()).take_while(|(x, y)| x == y).count();
        let after = a[there..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count();
        longest = longest.max(before + after);
        next = at + after.max(1);
    }
    if longest >= passage { longest } else { 0 }
}

/// Windows of texts that training must not contain. Beyond [`SET_MAX`] of them it keeps every second, fourth, … one, chosen
/// by hash: a copied text of many windows is still found by some of them.
#[derive(Clone, Debug)]
pub struct WindowSet {
    hashes: HashSet<u64>,
    /// Only hashes of which these bits are zero are kept.
    mask: u64,
    words: usize,
}

impl WindowSet {
    /// An empty one of windows of `words` words.
    pub fn new(words: usize) -> Self {
        Self { hashes: HashSet::new(), mask: 0, words }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// What a text is known by: its windows; of a shorter one of at least [`WHOLE_WORDS_MIN`] words the whole.
    fn known_by(&self, words: &[u64]) -> Vec<u64> {
        let short = (WHOLE_WORDS_MIN..self.words).contains(&words.len());
        windows(words, if short { words.len() } else { self.words })
    }

    /// Adds a folded text.
    pub fn add(&mut self, folded: &str) {
        for hash in self.known_by(&words(folded)) {
            if hash & self.mask == 0 {
                self.hashes.insert(hash);
            }
        }
        while self.hashes.len() > SET_MAX {
            self.mask = self.mask << 1 | 1;
            let mask = self.mask;
            self.hashes.retain(|hash| hash & mask == 0);
        }
    }

    /// Whether a folded text has a window in common with those added.
    pub fn meets(&self, folded: &str) -> bool {
        !self.hashes.is_empty() && self.known_by(&words(folded)).iter().any(|hash| hash & self.mask == 0 && self.hashes.contains(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: impl IntoIterator<Item = usize>) -> String {
        words.into_iter().map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rolling_gives_what_hashing_each_window_gives() {
        let words = words(&text(0..40));
        let rolled = windows(&words, 7);
        assert_eq!(rolled.len(), 34);
        for (at, hash) in rolled.iter().enumerate() {
            assert_eq!(*hash, windows(&words[at..at + 7], 7)[0]);
        }
        assert!(windows(&words[..6], 7).is_empty());
    }

    /// Wherever a passage of 20 words stands in two texts that have nothing else in common, they choose a window in common.
    #[test]
    fn a_shared_passage_is_always_chosen() {
        for shift in 0..200 {
            let a: Vec<usize> = (0..shift).chain(100_000..100_020).chain(5_000..5_000 + 60).collect();
            let b: Vec<usize> = (20_000..20_000 + 300 - shift).chain(100_000..100_020).chain(30_000..30_040).collect();
            let (a, b) = (words(&text(a)), words(&text(b)));
            let common = chosen(&a, 20).iter().filter(|hash| chosen(&b, 20).contains(hash)).count();
            assert!(common > 0, "shift {shift}");
            assert_eq!(longest_shared(&a, &b, 20), 20);
            assert_eq!(longest_shared(&a, &b, 21), 0);
        }
        // Far fewer are chosen than there are.
        let long = words(&text(0..10_000));
        assert!(chosen(&long, 50).len() < 1000, "{}", chosen(&long, 50).len());
    }

    #[test]
    fn sets_meet_texts_with_a_window_in_common_only() {
        let mut set = WindowSet::new(8);
        set.add(&text(0..30));
        set.add(&text(50..56));
        assert!(set.meets(&text((900..910).chain(10..18).chain(800..805))));
        assert!(!set.meets(&text((900..910).chain(10..17).chain(800..805))));
        // A short text is known as a whole.
        assert!(set.meets(&text(50..56)) && !set.meets(&text(50..55)) && !set.meets(&text(49..56)));
    }

    #[test]
    fn a_full_set_samples_and_still_finds_copies() {
        let mut set = WindowSet::new(8);
        for document in 0..30 {
            set.add(&text(document * 100_000..document * 100_000 + 80_000));
        }
        assert!(set.hashes.len() <= SET_MAX && set.mask > 0);
        assert!(set.meets(&text(300_000..300_200)));
        assert!(!set.meets(&text(9_000_000..9_000_500)));
    }
}
