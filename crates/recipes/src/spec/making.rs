//! What a run file says about documents of which records are made, about versions, and about what is held out.

use std::path::PathBuf;

use data::derive::{Blocks, ChunkBy, Chunks, Derive};
use serde::{Deserialize, Serialize};

use super::{OneOrMany, at_least, choice, known, range};
use crate::error::SpecError;

/// Longest chunk, in tokens: a page of text.
pub(super) const CHUNK_TOKENS: usize = 512;
/// Longest block of a plain text, in tokens: a sequence of continued pre-training, as long as TRL's and transformers' usual ones.
const BLOCK_TOKENS: usize = 1024;
/// Windows of so many words tell what is contaminated: between GPT-2's 8 and GPT-3's 13 (Brown et al. 2020, appendix C).
pub(super) const CONTAMINATION_WORDS: usize = 12;
/// Words that two records share in a row only where one was copied from the other.
pub(super) const PASSAGE_WORDS: usize = 50;

/// What is made of a source's documents before records are.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Make {
    /// `chunks`, `questions`, `replies` or `blocks`; empty: a document is a row.
    #[serde(rename = "make")]
    pub kind: String,
    /// Longest chunk or block in tokens.
    pub chunk_tokens: usize,
    /// Tokens of a chunk's end with which the next one begins, at most.
    pub chunk_overlap: usize,
    /// A chunk ends at each heading.
    pub chunk_at_headings: bool,
    /// Column that names what a row is a version of; empty: rows have no versions.
    pub version_of: String,
    /// Column with the version.
    pub version: String,
}

/// What can be made of documents.
pub(super) const MAKES: &[&str] = &["chunks", "questions", "replies", "blocks"];

impl Make {
    /// From a source's keys; `key` names one in messages.
    pub(super) fn resolve(given: MakeKeys, key: impl Fn(&str) -> String) -> Result<Self, SpecError> {
        let chunked = given.chunk_tokens.is_some() || given.chunk_overlap.is_some() || given.chunk_by.is_some();
        let kind = given.make.unwrap_or_default();
        if !kind.is_empty() {
            known(&key("make"), &kind, MAKES)?;
        }
        let blocks_only = kind == "blocks" && given.chunk_overlap.is_none() && given.chunk_by.is_none();
        if chunked && kind != "chunks" && !blocks_only {
            let expected = "\"chunks\" where there are keys that begin with chunk_ (\"blocks\" has chunk_tokens alone)";
            return Err(range(&key("make"), format!("{kind:?}"), expected));
        }
        let usual = if kind == "blocks" { BLOCK_TOKENS } else { CHUNK_TOKENS };
        let chunk_tokens = at_least(&key("chunk_tokens"), given.chunk_tokens.unwrap_or(usual), 16)?;
        let chunk_overlap = given.chunk_overlap.unwrap_or(0);
        if 2 * chunk_overlap > chunk_tokens {
            return Err(range(&key("chunk_overlap"), chunk_overlap, "at most half of chunk_tokens"));
        }
        let (version_of, version) = (given.version_of.unwrap_or_default(), given.version.unwrap_or_default());
        if version_of.is_empty() != version.is_empty() {
            return Err(range(&key("version"), format!("version_of {version_of:?}, version {version:?}"), "both or neither"));
        }
        let chunk_at_headings = choice(&key("chunk_by"), given.chunk_by, &[("headings", true), ("paragraphs", false)])?;
        Ok(Self { kind, chunk_tokens, chunk_overlap, chunk_at_headings, version_of, version })
    }

    /// What is made of documents, if anything; `column` has the text of `blocks`.
    pub fn derive(&self, column: &str) -> Option<Derive> {
        let by = if self.chunk_at_headings { ChunkBy::Headings } else { ChunkBy::Paragraphs };
        match self.kind.as_str() {
            "chunks" => Some(Derive::Chunks(Chunks { budget: self.chunk_tokens, overlap: self.chunk_overlap, by })),
            "blocks" => Some(Derive::Blocks(Blocks { column: column.to_owned(), budget: self.chunk_tokens })),
            "questions" => Some(Derive::Questions),
            "replies" => Some(Derive::Replies),
            _ => None,
        }
    }
}

/// The keys of a source that [`Make`] is of.
pub(super) struct MakeKeys {
    pub(super) make: Option<String>,
    pub(super) chunk_tokens: Option<usize>,
    pub(super) chunk_overlap: Option<usize>,
    pub(super) chunk_by: Option<String>,
    pub(super) version_of: Option<String>,
    pub(super) version: Option<String>,
}

/// Rows that are held out as near out of distribution.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct NearOod {
    /// The column that says so; empty: none.
    pub column: String,
    /// Rows from this day on; empty: none for their day.
    pub from: String,
    /// Rows with one of these values.
    pub values: Vec<String>,
}

/// `near_ood = { column = "opened", from = 2026-01-01 }`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NearOodSection {
    column: Option<String>,
    from: Option<toml::Value>,
    values: Option<OneOrMany>,
}

impl NearOodSection {
    pub(super) fn resolve(self) -> Result<NearOod, SpecError> {
        let key = "prepare.split.near_ood";
        let from = match self.from {
            None => String::new(),
            Some(toml::Value::Datetime(date)) => date.to_string(),
            Some(toml::Value::String(text)) => text,
            Some(other) => return Err(range(&format!("{key}.from"), other, "a date such as 2026-01-01")),
        };
        if !from.is_empty() && data::clean::day(&from) != Some(from.as_str()) {
            return Err(range(&format!("{key}.from"), from, "a date such as 2026-01-01"));
        }
        let values = self.values.map(OneOrMany::into_vec).unwrap_or_default();
        let column = self.column.unwrap_or_default();
        if column.is_empty() && from.is_empty() && values.is_empty() {
            return Ok(NearOod::default());
        }
        if column.is_empty() || (from.is_empty() && values.is_empty()) {
            return Err(range(key, format!("column {column:?}, from {from:?}, values {values:?}"), "a column, with from, values or both"));
        }
        Ok(NearOod { column, from, values })
    }
}

/// What training must not contain, and passages that it may contain once.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Apart {
    /// What happens to records with a long passage that an earlier record has too.
    pub passages: super::Found,
    /// Words of such a passage.
    pub passage_words: usize,
    /// What happens to training records with a text in common with held-out parts and benchmarks.
    pub contamination: super::Found,
    /// Words in a row that make a text the same.
    pub contamination_words: usize,
    /// Files with texts that training must not contain.
    pub benchmarks: Vec<PathBuf>,
}

impl Apart {
    pub(super) fn resolve(
        passages: Option<String>,
        passage_words: Option<usize>,
        contamination: Option<String>,
        contamination_words: Option<usize>,
        benchmarks: Option<OneOrMany>,
    ) -> Result<Self, SpecError> {
        use super::Found;
        let benchmarks: Vec<PathBuf> = benchmarks.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(PathBuf::from).collect();
        let contamination = match contamination {
            // Whoever names benchmarks wants to know.
            None if !benchmarks.is_empty() => Found::Report,
            given => choice("prepare.contamination", given, super::FOUND)?,
        };
        if contamination == Found::Ignore && !benchmarks.is_empty() {
            return Err(range("prepare.contamination", "\"ignore\"", "\"report\" or \"drop\" where there are benchmarks"));
        }
        let words = |key: &str, given: Option<usize>, usual| super::between(key, given.unwrap_or(usual), 5, 1000);
        Ok(Self {
            passages: choice("prepare.passages", passages, super::FOUND)?,
            passage_words: words("prepare.passage_words", passage_words, PASSAGE_WORDS)?,
            contamination,
            contamination_words: words("prepare.contamination_words", contamination_words, CONTAMINATION_WORDS)?,
            benchmarks,
        })
    }
}
