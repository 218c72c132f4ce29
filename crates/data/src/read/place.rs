//! Where reading is, for ids, errors and limits.

use super::Limits;
use super::container::LimitHit;
use crate::error::LineProblem;
use crate::{DataError, Document, Origin, Reason, Rejected, Value};

/// Parts of an inner path.
pub(super) const INNER: char = '!';

/// A file within a source, and what may be read of it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: String,
    pub(super) inner: String,
    pub(super) limits: Limits,
}

impl Place {
    /// A part of it: a member of an archive, a sheet.
    pub(super) fn within(&self, part: &str) -> Self {
        let inner = if self.inner.is_empty() { part.to_owned() } else { format!("{}{INNER}{part}", self.inner) };
        Self { source: self.source.clone(), inner, limits: self.limits }
    }

    /// As errors name it.
    pub(super) fn name(&self) -> String {
        if self.inner.is_empty() { self.source.clone() } else { format!("{}{INNER}{}", self.source, self.inner) }
    }

    pub(super) fn document(&self, fields: Vec<(String, Value)>, row: u64, line: u64) -> Document {
        Document::new(fields, Origin { source: self.source.clone(), inner: self.inner.clone(), row, line })
    }

    /// A row or part that is none, as far as anything is known about it.
    pub(super) fn rejected(&self, row: u64, problem: String) -> Rejected {
        let id = match self.inner.as_str() {
            "" => format!("{}:{row}", self.source),
            inner => format!("{}:{inner}:{row}", self.source),
        };
        Rejected { id, step: "read", reason: Reason::Unreadable { problem }, related: Vec::new() }
    }

    pub(super) fn problem(&self, line: u64, problem: LineProblem) -> DataError {
        DataError::Line { origin: self.name(), line, problem }
    }

    /// A part that cannot be read: `kind` is what it should be.
    pub(super) fn broken(&self, kind: &'static str, problem: impl Into<String>) -> DataError {
        DataError::Broken { origin: self.name(), kind, problem: problem.into() }
    }

    pub(super) fn io(&self, error: &std::io::Error) -> DataError {
        if let Some(LimitHit { what, given, limit }) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return DataError::TooLarge { origin: self.name(), line: None, what, given: *given, limit: *limit };
        }
        DataError::Io { origin: self.name(), problem: error.to_string() }
    }

    pub(super) fn too_large(&self, line: Option<u64>, what: &'static str, given: u64, limit: usize) -> DataError {
        DataError::TooLarge { origin: self.name(), line, what, given, limit: limit as u64 }
    }

    pub(super) fn limit(&self, line: Option<u64>, what: &'static str, given: usize, limit: usize) -> Result<(), DataError> {
        if given <= limit { Ok(()) } else { Err(self.too_large(line, what, given as u64, limit)) }
    }
}
