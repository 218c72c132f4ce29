//! Bytes to documents, one row at a time.
//!
//! [`open`] recognises what a file is and gives its documents in file order, as a stream: memory is bounded by one row
//! or part and by what the format itself needs, whatever the file's size. What a row *means* is decided later.
//!
//! A row that cannot be read is an error that names its line, because a file with one broken row is usually a file that
//! was cut or exported wrongly; with [`BrokenRows::Reject`] it is rejected with that reason, and reading goes on.

mod shape;
mod tables;

pub use shape::Shape;

use crate::{DataError, Document, Rejected};
use std::collections::HashSet;
use std::io::{Read, Seek};

/// What a source is read from: a file, or bytes in tests. Random access, because Parquet, ZIP and XLSX need it.
pub trait Input: Read + Seek + Send {}

impl<T: Read + Seek + Send> Input for T {}

/// How a source is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Values parted by a delimiter, the first row names the columns. Where that has no comma, semicolons or tabs are
    /// taken for it.
    Csv {
        /// The delimiter.
        delimiter: u8,
    },
    /// A JSON object per line.
    JsonLines,
    /// One JSON array of objects.
    Json,
}

impl Format {
    /// By a file name's extension (csv, tsv, jsonl, ndjson, json), or by such a word alone.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv { delimiter: b',' }),
            "tsv" | "tab" => Some(Self::Csv { delimiter: b'\t' }),
            "ssv" => Some(Self::Csv { delimiter: b';' }),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The word for it in run files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv { delimiter: b'\t' } => "tsv",
            Self::Csv { .. } => "csv",
            Self::JsonLines => "jsonl",
            Self::Json => "json",
        }
    }

    /// Whether its values have types (numbers, truth values); in CSV everything is text.
    pub fn is_typed(self) -> bool {
        !matches!(self, Self::Csv { .. })
    }
}

/// What may be read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a source.
    pub source_bytes: usize,
    /// Rows of a source.
    pub rows: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Bytes of a field.
    pub field_bytes: usize,
    /// Columns of a source.
    pub columns: usize,
    /// JSON nesting.
    pub depth: usize,
}

/// The limits used unless a caller has its own: far above any instruction data, far below what exhausts memory.
pub const LIMITS: Limits =
    Limits { source_bytes: 4 << 30, rows: 20_000_000, row_bytes: 16 << 20, field_bytes: 8 << 20, columns: 4096, depth: 32 };

/// What happens to a row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenRows {
    /// The whole source is refused with an error that names the row.
    Refuse,
    /// The row is rejected with the reason, and reading goes on.
    Reject,
}

/// How a file is to be read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// How it is written; by the name where not given.
    pub format: Option<Format>,
    /// Where the file lies within its source: its path below the source's folder, or nothing where it is the source.
    pub inner: String,
    /// What to do with a row that cannot be read.
    pub broken_rows: BrokenRows,
    /// What may be read at most.
    pub limits: Limits,
}

impl ReadOptions {
    /// Everything recognised from the file itself, nothing broken accepted.
    pub fn recognise(limits: Limits) -> Self {
        Self { format: None, inner: String::new(), broken_rows: BrokenRows::Refuse, limits }
    }
}

/// What a reader gives: a document, or what it could not make one of, and why.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A document.
    Document(Document),
    /// A row or part that is none.
    Rejected(Rejected),
}

/// The documents of one file, in file order.
pub struct Reader {
    format: Format,
    columns: Vec<String>,
    seen: HashSet<String>,
    columns_max: usize,
    source: String,
    found: Vec<(&'static str, String)>,
    items: Box<dyn Iterator<Item = Result<Item, DataError>> + Send>,
    ended: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("source", &self.source).field("format", &self.format).finish_non_exhaustive()
    }
}

impl Reader {
    /// How the file is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The shape of the rows given so far; the first one usually settles it.
    pub fn shape(&self) -> Shape {
        Shape::of(&self.columns)
    }

    /// Names of the columns of the rows given so far, in the order first seen.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What was recognised and has to be said in the report, such as `("encoding", "windows-1252")` or `("delimiter", ";")`:
    /// complete once the last item was given.
    pub fn found(&self) -> &[(&'static str, String)] {
        &self.found
    }

    fn note(&mut self, document: &Document) -> Result<(), DataError> {
        for (name, _) in &document.fields {
            if !self.seen.contains(name) {
                self.seen.insert(name.clone());
                self.columns.push(name.clone());
            }
        }
        if self.columns.len() > self.columns_max {
            return Err(DataError::TooLarge {
                origin: self.source.clone(),
                line: None,
                what: "columns",
                given: self.columns.len() as u64,
                limit: self.columns_max as u64,
            });
        }
        Ok(())
    }
}

impl Iterator for Reader {
    type Item = Result<Item, DataError>;

    /// The next document or reject; nothing follows an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match self.items.next() {
            Some(Ok(Item::Document(document))) => self.note(&document).map(|()| Item::Document(document)),
            Some(other) => other,
            None => {
                self.ended = true;
                return None;
            }
        };
        self.ended = item.is_err();
        Some(item)
    }
}

/// Opens one file of a source as a stream of documents in file order. `source` names the source in ids and errors.
///
/// ```
/// use data::read::{self, Item, LIMITS, ReadOptions, Shape};
///
/// let csv = "message,intent\nWhere is my card?,card_arrival\n";
/// let mut reader = read::open("tickets.csv", Box::new(std::io::Cursor::new(csv)), &ReadOptions::recognise(LIMITS))?;
/// let Some(Item::Document(document)) = reader.next().transpose()? else { panic!("no document") };
/// assert_eq!(document.field("intent").and_then(|value| value.as_text()), Some("card_arrival"));
/// assert_eq!(reader.shape(), Shape::Columns);
/// # Ok::<(), data::DataError>(())
/// ```
pub fn open(source: &str, mut input: Box<dyn Input>, options: &ReadOptions) -> Result<Reader, DataError> {
    let name = if options.inner.is_empty() { source } else { &options.inner };
    let format = options.format.or_else(|| Format::from_name(name)).ok_or_else(|| DataError::UnknownFormat { origin: name.into() })?;
    let limit = options.limits.source_bytes as u64;
    let mut bytes = Vec::new();
    let failed = |error: std::io::Error| DataError::Io { origin: source.into(), problem: error.to_string() };
    input.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    let documents = tables::documents(source, &options.inner, &bytes, format, &options.limits)?;
    Ok(Reader {
        format,
        columns: Vec::new(),
        seen: HashSet::new(),
        columns_max: options.limits.columns,
        source: source.into(),
        found: Vec::new(),
        items: Box::new(documents.into_iter().map(|document| Ok(Item::Document(document)))),
        ended: false,
    })
}

/// A source as documents, all in memory.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Name of the source.
    pub source: String,
    /// The recognised shape.
    pub shape: Shape,
    /// Whether its format has numbers and booleans; in CSV everything is text.
    pub typed: bool,
    /// Names of columns in the order first seen.
    pub columns: Vec<String>,
    /// The documents in order.
    pub documents: Vec<Document>,
}

/// Reads a whole source into memory. `source` names it in ids and errors.
///
/// ```
/// use data::{Format, Shape, read};
///
/// let csv = "message,intent\nWhere is my card?,card_arrival\n";
/// let dataset = read::read("tickets.csv", csv.as_bytes(), Format::Csv { delimiter: b',' }, &read::LIMITS)?;
/// assert_eq!((dataset.shape, dataset.documents.len()), (Shape::Columns, 1));
/// # Ok::<(), data::DataError>(())
/// ```
pub fn read(source: &str, bytes: &[u8], format: Format, limits: &Limits) -> Result<Dataset, DataError> {
    let options = ReadOptions { format: Some(format), ..ReadOptions::recognise(*limits) };
    let mut reader = open(source, Box::new(std::io::Cursor::new(bytes.to_vec())), &options)?;
    let mut documents = Vec::new();
    for item in &mut reader {
        if let Item::Document(document) = item? {
            documents.push(document);
        }
    }
    if documents.is_empty() {
        return Err(DataError::Empty { origin: source.into() });
    }
    Ok(Dataset { source: source.into(), shape: reader.shape(), typed: format.is_typed(), columns: reader.columns, documents })
}
