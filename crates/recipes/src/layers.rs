//! Which blocks are trained: the run file's `layers`, such as `"8-15, 20"` or `"last 4"`.
//!
//! Blocks count from 0, as in tensor names and in PEFT's `layers_to_transform`. How many there are is known once the
//! base is: [`LayerPattern::parse`] checks the words, [`LayerPattern::resolve`] the numbers.

use std::ops::RangeInclusive;

use crate::error::SpecError;

/// What `layers` may say, for messages.
const EXPECTED: &str = "\"all\", \"first N\", \"last N\", or blocks such as \"0-7, 12\"";

/// The parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LayerPattern {
    /// All of them.
    All,
    /// The lowest so many.
    First(usize),
    /// The highest so many.
    Last(usize),
    /// These, both ends included.
    Ranges(Vec<RangeInclusive<usize>>),
}

impl LayerPattern {
    /// Parses the value of `tune.layers`.
    pub(crate) fn parse(text: &str) -> Result<LayerPattern, SpecError> {
        let parsed = || {
            let words: Vec<&str> = text.split_whitespace().collect();
            match words.as_slice() {
                ["all"] => return Some(LayerPattern::All),
                ["first", number] => return number.parse().ok().filter(|&n| n > 0).map(LayerPattern::First),
                ["last", number] => return number.parse().ok().filter(|&n| n > 0).map(LayerPattern::Last),
                _ => {}
            }
            let range = |part: &str| {
                let (low, high) = part.split_once('-').unwrap_or((part, part));
                let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
                (low <= high).then_some(low..=high)
            };
            text.split(',').map(range).collect::<Option<Vec<_>>>().map(LayerPattern::Ranges)
        };
        parsed().ok_or_else(|| SpecError::Value { key: "tune.layers".into(), given: format!("{text:?}"), expected: EXPECTED.into() })
    }

    /// The blocks, ascending, of a model that has `layers`; `None`: all.
    pub(crate) fn resolve(&self, layers: usize) -> Result<Option<Vec<usize>>, SpecError> {
        let too_many = |given: String| {
            let expected = if layers == 0 { "no block".to_owned() } else { format!("blocks of the base's {layers}: 0 to {}", layers - 1) };
            SpecError::Value { key: "tune.layers".into(), given, expected }
        };
        let mut chosen: Vec<usize> = match self {
            LayerPattern::All => return Ok(None),
            LayerPattern::First(count) | LayerPattern::Last(count) if *count > layers => return Err(too_many(format!("{count} blocks"))),
            LayerPattern::First(count) => (0..*count).collect(),
            LayerPattern::Last(count) => (layers - count..layers).collect(),
            LayerPattern::Ranges(ranges) => match ranges.iter().find(|range| *range.end() >= layers) {
                Some(range) => return Err(too_many(format!("block {}", range.end()))),
                None => ranges.iter().cloned().flatten().collect(),
            },
        };
        chosen.sort_unstable();
        chosen.dedup();
        Ok((chosen.len() < layers).then_some(chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str, layers: usize) -> Option<Vec<usize>> {
        LayerPattern::parse(text).and_then(|pattern| pattern.resolve(layers)).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn patterns_name_blocks() {
        assert_eq!(blocks("all", 6), None);
        assert_eq!(blocks("last 2", 6), Some(vec![4, 5]));
        assert_eq!(blocks("first 1", 6), Some(vec![0]));
        assert_eq!(blocks("4, 0 - 2,1", 6), Some(vec![0, 1, 2, 4]));
        assert_eq!(blocks("0-5", 6), None); // that is all
        assert_eq!(blocks("last 6", 6), None);
    }

    #[test]
    fn what_names_none_is_refused() {
        for text in ["", "last", "last 0", "first -1", "3-1", "0,,2", "0-x", "every 2", "99999999999999999999"] {
            assert!(LayerPattern::parse(text).is_err(), "{text}");
        }
        for text in ["last 7", "0-6", "6"] {
            let error = LayerPattern::parse(text).unwrap().resolve(6).unwrap_err().to_string();
            assert!(error.contains("tune.layers") && error.contains("0 to 5"), "{error}");
        }
    }
}
