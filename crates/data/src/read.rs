//! Bytes to documents: CSV, TSV, JSONL and JSON arrays.

use crate::{DataError, Document};

/// How a source is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format { /// Comma, or another delimiter.
    Csv { /// The delimiter.
        delimiter: u8 }, /// A JSON value per line.
    JsonLines, /// One JSON array.
    Json }

impl Format { /// By a file name's extension (csv, tsv, jsonl, ndjson, json) or a name in `format = "…"`.
    pub fn from_name(name: &str) -> Option<Self> { let _ = name; todo!() } }

/// The shape of a source's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape { /// Named columns: `input` and `target` say which.
    Columns, /// OpenAI's `messages`.
    Messages, /// `prompt`, `completion` (texts or message lists).
    PromptCompletion, /// `inputs`, `targets`.
    InputsTargets, /// `instruction`, `input`, `output`.
    Alpaca, /// `conversations` of `from`, `value`.
    ShareGpt, /// `chosen`, `rejected`: recognised, not trained yet.
    Preference }

/// What may be read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits { /// Bytes of a source.
    pub source_bytes: usize, /// Rows of a source.
    pub rows: usize, /// Bytes of a row.
    pub row_bytes: usize, /// Bytes of a field.
    pub field_bytes: usize, /// Columns.
    pub columns: usize, /// JSON nesting.
    pub depth: usize }

/// The limits used unless a caller has its own.
pub const LIMITS: Limits = Limits { source_bytes: 4 << 30, rows: 20_000_000, row_bytes: 16 << 20, field_bytes: 8 << 20, columns: 4096, depth: 32 };

/// A source as documents.
#[derive(Clone, Debug)]
pub struct Dataset { /// Name of the source.
    pub source: String, /// The recognised shape.
    pub shape: Shape, /// Names of columns in the order first seen.
    pub columns: Vec<String>, /// The documents in order.
    pub documents: Vec<Document> }

/// Reads a source. `source` names it in ids and errors.
pub fn read(source: &str, bytes: &[u8], format: Format, limits: &Limits) -> Result<Dataset, DataError> { let _ = (source, bytes, format, limits); todo!() }
