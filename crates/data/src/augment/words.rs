//! Changes of single words: typing errors, case, terms of the same meaning.

use crate::near::mix;
use crate::quoted::Quoted;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Terms of each slot.
pub type Lexicon = BTreeMap<String, Vec<String>>;

/// A word of fewer letters gets no typing error: what is left of it could be any other.
const TYPO_LETTERS: usize = 4;
/// Longest synonym, in words.
const SYNONYM_WORDS: usize = 6;
/// Draws until a typing error changes a word.
const TYPO_TRIES: usize = 8;

/// Neighbours of each letter on a QWERTY keyboard.
#[rustfmt::skip] // a table
const NEIGHBOURS: &[(char, &str)] = &[
    ('q', "wa"), ('w', "qes"), ('e', "wrd"), ('r', "etf"), ('t', "ryg"), ('y', "tuh"), ('u', "yij"), ('i', "uok"), ('o', "ipl"), ('p', "o"),
    ('a', "qsz"), ('s', "adwx"), ('d', "sfec"), ('f', "dgrv"), ('g', "fhtb"), ('h', "gjyn"), ('j', "hkum"), ('k', "jli"), ('l', "ko"),
    ('z', "ax"), ('x', "zcs"), ('c', "xvd"), ('v', "cbf"), ('b', "vng"), ('n', "bmh"), ('m', "nj"),
];

/// A row of draws that a key determines (SplitMix64).
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]]))
    }

    /// Below `n`, which is above 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        ((u128::from(mix(self.0)) * n as u128) >> 64) as usize
    }
}

/// Words between white space, without the signs around them.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, character.is_whitespace()) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                let word = &text[from..at];
                let inner = word.trim_start_matches(|character: char| !character.is_alphanumeric());
                let from = from + word.len() - inner.len();
                let inner = inner.trim_end_matches(|character: char| !character.is_alphanumeric());
                if !inner.is_empty() {
                    words.push(from..from + inner.len());
                }
                start = None;
            }
            _ => {}
        }
    }
    words
}

/// Words of letters alone, an apostrophe or hyphen within, that the answer does not quote.
fn free_words(text: &str, quoted: &Quoted) -> Vec<Range<usize>> {
    let plain = |word: &Range<usize>| text[word.clone()].chars().all(|character| character.is_alphabetic() || "'’-".contains(character));
    words(text).into_iter().filter(|word| plain(word) && !quoted.holds(text, word)).collect()
}

/// A text with some parts replaced; the parts are in order and apart.
fn replaced(text: &str, parts: &[(Range<usize>, String)]) -> String {
    let (mut changed, mut at) = (String::with_capacity(text.len() + 16), 0);
    for (part, new) in parts {
        changed.push_str(&text[at..part.start]);
        changed.push_str(new);
        at = part.end;
    }
    changed.push_str(&text[at..]);
    changed
}

/// Typing errors in a share of the words, at least in one.
pub(super) fn typos(text: &str, quoted: &Quoted, share: f64, draws: &mut Draws) -> Option<String> {
    let mut free = free_words(text, quoted);
    free.retain(|word| text[word.clone()].chars().filter(|character| character.is_alphabetic()).count() >= TYPO_LETTERS);
    let wanted = ((share * free.len() as f64).round() as usize).clamp(1, free.len().max(1));
    let mut parts = Vec::new();
    while parts.len() < wanted && !free.is_empty() {
        let word = free.swap_remove(draws.below(free.len()));
        if let Some(wrong) = typo(&text[word.clone()], draws) {
            parts.push((word, wrong));
        }
    }
    parts.sort_by_key(|(word, _)| word.start);
    (!parts.is_empty()).then(|| replaced(text, &parts))
}

/// A neighbouring key, two letters in the wrong order, one left out, or one twice. The first letter stays, as it mostly does.
fn typo(word: &str, draws: &mut Draws) -> Option<String> {
    let letters: Vec<char> = word.chars().collect();
    for _ in 0..TYPO_TRIES {
        let mut wrong = letters.clone();
        let at = 1 + draws.below(letters.len() - 1);
        match draws.below(4) {
            0 => {
                let lower = letters[at].to_ascii_lowercase();
                let Some((_, near)) = NEIGHBOURS.iter().find(|(letter, _)| *letter == lower) else { continue };
                let near = char::from(near.as_bytes()[draws.below(near.len())]);
                wrong[at] = if letters[at].is_ascii_uppercase() { near.to_ascii_uppercase() } else { near };
            }
            1 if at + 1 < letters.len() => wrong.swap(at, at + 1),
            2 => {
                wrong.remove(at);
            }
            3 => wrong.insert(at, letters[at]),
            _ => continue,
        }
        if wrong != letters {
            return Some(wrong.into_iter().collect());
        }
    }
    None
}

/// All lower case, all upper case, or each word with a capital: one that changes something.
pub(super) fn case(text: &str, quoted: &Quoted, draws: &mut Draws) -> Option<String> {
    let free = free_words(text, quoted);
    let first = draws.below(3);
    (0..3).find_map(|turn| {
        let form = |word: &str| match (first + turn) % 3 {
            0 => word.to_lowercase(),
            1 => word.to_uppercase(),
            _ => capital(&word.to_lowercase()),
        };
        let parts: Vec<(Range<usize>, String)> = free.iter().map(|word| (word.clone(), form(&text[word.clone()]))).collect();
        let changed = replaced(text, &parts);
        (changed != text).then_some(changed)
    })
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Groups of terms that stand for each other, found by their first word.
#[derive(Clone, Debug, Default)]
pub struct Synonyms {
    groups: Vec<Vec<String>>,
    /// First word in lower case to (group, all words in lower case), the longest first.
    first: HashMap<String, Vec<(usize, Vec<String>)>>,
}

impl Synonyms {
    pub(super) fn new(groups: Vec<Vec<String>>) -> Self {
        let mut first: HashMap<String, Vec<(usize, Vec<String>)>> = HashMap::new();
        for (group, terms) in groups.iter().enumerate() {
            for term in terms {
                let words: Vec<String> = term.split_whitespace().map(str::to_lowercase).collect();
                if (1..=SYNONYM_WORDS).contains(&words.len()) {
                    first.entry(words[0].clone()).or_default().push((group, words));
                }
            }
        }
        first.values_mut().for_each(|terms| terms.sort_by_key(|(group, words)| (std::cmp::Reverse(words.len()), *group)));
        Self { groups, first }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Exchanges about half of the terms that a text has, at least one.
    pub(super) fn exchange(&self, text: &str, quoted: &Quoted, draws: &mut Draws) -> Option<String> {
        let found = self.found(text, quoted);
        if found.is_empty() {
            return None;
        }
        let sure = draws.below(found.len());
        let mut parts = Vec::new();
        for (index, (span, group)) in found.into_iter().enumerate() {
            if draws.below(2) == 0 && index != sure {
                continue;
            }
            let there = &text[span.clone()];
            let others: Vec<&String> = self.groups[group].iter().filter(|term| term.to_lowercase() != there.to_lowercase()).collect();
            if !others.is_empty() {
                let other = others[draws.below(others.len())];
                parts.push((span, like(there, other)));
            }
        }
        (!parts.is_empty()).then(|| replaced(text, &parts))
    }

    /// Terms in a text with their groups, apart from each other, the longest at each place.
    fn found(&self, text: &str, quoted: &Quoted) -> Vec<(Range<usize>, usize)> {
        let words = words(text);
        let lower: Vec<String> = words.iter().map(|word| text[word.clone()].to_lowercase()).collect();
        let (mut found, mut at) = (Vec::new(), 0);
        while at < words.len() {
            let terms = self.first.get(&lower[at]).map(Vec::as_slice).unwrap_or_default();
            let hit = terms.iter().find_map(|(group, term)| {
                let end = at + term.len();
                let same = lower.get(at..end).is_some_and(|there| there == term.as_slice());
                // A term does not go on beyond a comma.
                let joined = || words[at..end].windows(2).all(|pair| text[pair[0].end..pair[1].start].trim().is_empty());
                let span = || words[at].start..words[end - 1].end;
                (same && joined() && !quoted.holds(text, &span())).then(|| (span(), *group, end))
            });
            match hit {
                Some((span, group, end)) => {
                    found.push((span, group));
                    at = end;
                }
                None => at += 1,
            }
        }
        found
    }
}

/// A term in the case of the one whose place it takes.
fn like(there: &str, term: &str) -> String {
    let letters = || there.chars().filter(|character| character.is_alphabetic());
    match letters().next() {
        Some(first) if first.is_uppercase() && letters().count() > 1 && letters().all(char::is_uppercase) => term.to_uppercase(),
        Some(first) if first.is_uppercase() => capital(term),
        _ => term.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;

    fn draws(seed: u8) -> Draws {
        Draws::new(&[seed; 32])
    }

    fn free() -> Quoted {
        Quoted::of(&Answer::Text("label".into()), "")
    }

    #[test]
    fn a_typing_error_is_one_edit_and_never_at_the_first_letter() {
        for seed in 0..200 {
            let wrong = typo("delivery", &mut draws(seed)).unwrap();
            assert!(wrong != "delivery" && wrong.starts_with('d'), "{wrong}");
            assert!((7..=9).contains(&wrong.len()) && strsim::damerau_levenshtein("delivery", &wrong) == 1, "{wrong}");
        }
        // Nothing can be wrong with a word of one letter repeated but its length.
        assert!(typo("üüüü", &mut draws(3)).is_none_or(|wrong| wrong.chars().count() != 4));
    }

    #[test]
    fn as_many_words_as_asked_for() {
        let text = "several words stand here, numbered 12a and some@mail.example too";
        let count = |share| {
            let wrong = typos(text, &free(), share, &mut draws(5)).unwrap();
            assert!(wrong.contains("12a and some@mail.example too"), "{wrong}");
            text.split(' ').zip(wrong.split(' ')).filter(|(a, b)| a != b).count()
        };
        assert_eq!((count(0.01), count(0.4), count(1.0)), (1, 2, 5));
        assert_eq!(typos("a b 12", &free(), 1.0, &mut draws(1)), None);
    }

    #[test]
    fn case_always_changes_something() {
        for seed in 0..20 {
            for text in ["all lower", "ALL UPPER", "Each Word", "It is Mixed, ok"] {
                let changed = case(text, &free(), &mut draws(seed)).unwrap();
                assert!(changed != text && changed.to_lowercase() == text.to_lowercase(), "{changed}");
            }
        }
        assert_eq!(case("12 / 13", &free(), &mut draws(0)), None);
    }

    #[test]
    fn synonyms_keep_their_case_and_the_longest_counts() {
        let groups = [vec!["credit card", "payment card"], vec!["card", "plastic"], vec!["bill", "invoice"]];
        let synonyms = Synonyms::new(groups.iter().map(|group| group.iter().map(|term| (*term).to_owned()).collect()).collect());
        let all: std::collections::BTreeSet<String> =
            (0..40).filter_map(|seed| synonyms.exchange("Credit card bill: BILL", &free(), &mut draws(seed))).collect();
        assert!(all.contains("Payment card bill: BILL") && all.contains("Payment card invoice: INVOICE"), "{all:?}");
        assert!(all.iter().all(|text| !text.contains("lastic")), "{all:?}");
        assert_eq!(synonyms.exchange("credit, no cardboard", &free(), &mut draws(1)), None);
    }
}
