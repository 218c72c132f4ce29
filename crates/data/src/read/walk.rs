//! What a format's reader is: a walk over one file that gives its items.

use super::{Item, ReadOptions};
use crate::DataError;

/// A format's walk over one file.
pub(super) trait Walk: Send {
    /// The next document or reject; none at the end.
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError>;
}

/// What was recognised on the way, each thing said once, with counts for what happens often.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) facts: Vec<(&'static str, String)>,
    counts: Vec<(&'static str, u64)>,
    /// Whether a table without types was opened.
    pub(super) untyped: bool,
}

impl Found {
    /// Says something, if it was not yet said.
    pub(super) fn say(&mut self, what: &'static str, value: String) {
        if !self.facts.iter().any(|(name, known)| *name == what && *known == value) {
            self.facts.push((what, value));
        }
    }

    /// Counts something that is said as a number.
    pub(super) fn count(&mut self, what: &'static str, times: u64) {
        if times == 0 {
            return;
        }
        let total = match self.counts.iter_mut().find(|(name, _)| *name == what) {
            Some((_, count)) => {
                *count += times;
                *count
            }
            None => {
                self.counts.push((what, times));
                times
            }
        };
        match self.facts.iter_mut().find(|(name, _)| *name == what) {
            Some((_, value)) => *value = total.to_string(),
            None => self.facts.push((what, total.to_string())),
        }
    }
}

/// A walk that gives one item.
pub(super) struct Once(pub(super) Option<Item>);

impl Walk for Once {
    fn next(&mut self, _: &mut Found) -> Result<Option<Item>, DataError> {
        Ok(self.0.take())
    }
}

/// What all walks need of the options.
pub(super) fn rejects(options: &ReadOptions) -> bool {
    options.broken_rows == super::BrokenRows::Reject
}
