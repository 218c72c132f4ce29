//! Bytes to documents, one row at a time.
//!
//! [`open`] recognises what a file is and gives its documents in file order, as a stream: memory is bounded by one row
//! or part and by what the format itself needs, whatever the file's size. What a row *means* is decided later.
//!
//! A row that cannot be read is an error that names its line, because a file with one broken row is usually a file that
//! was cut or exported wrongly; with [`BrokenRows::Reject`] it is rejected with that reason, and reading goes on.

mod container;
mod csv;
mod html;
mod json;
mod mail;
mod mojibake;
mod office;
mod parquet;
mod pdf;
mod place;
mod shape;
mod text;
mod text_stream;
pub mod tfrecord;
mod walk;
mod xml;

pub use html::HIDDEN;
pub use mail::{ATTACHMENTS, QUOTED, SIGNATURE};
pub use mojibake::{ENCODING, MOJIBAKE};
pub use pdf::PAGES;
pub use shape::Shape;
pub use text::{MARKDOWN, MARKUP};

use crate::{DataError, Document, Rejected};
use container::{Budget, Bytes, Container, Files, Members};
use place::Place;
use std::collections::HashSet;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use text_stream::TextStream;
use walk::{Found, Once, Walk};

/// Bytes of a file that is one document.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 64 << 20;
/// Bytes at the start of a file by which it is recognised.
const HEAD_BYTES: u64 = 4096;

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
    /// One JSON array of objects, or one object whose entries are the rows.
    Json,
    /// Rows of typed columns.
    Parquet,
    /// Records of `tf.train.Example`.
    TfRecord,
    /// Records by the path of their element ([`ReadOptions::xml_record`]).
    Xml,
    /// Sheets of a workbook; the first row of each names its columns.
    Xlsx,
    /// E-mail messages one after the other.
    Mbox,
    /// One e-mail message.
    Eml,
    /// Plain text: one document.
    Text,
    /// Markdown: one document.
    Markdown,
    /// An HTML page: one document, its main text.
    Html,
    /// A PDF: one document.
    Pdf,
    /// A DOCX: one document.
    Docx,
    /// Source code: one document.
    Code {
        /// Its language.
        language: &'static str,
    },
}

/// Words for formats in run files, with what they stand for.
const NAMES: &[(&str, Format)] = &[
    ("csv", Format::Csv { delimiter: b',' }),
    ("tsv", Format::Csv { delimiter: b'\t' }),
    ("jsonl", Format::JsonLines),
    ("json", Format::Json),
    ("parquet", Format::Parquet),
    ("tfrecord", Format::TfRecord),
    ("xml", Format::Xml),
    ("xlsx", Format::Xlsx),
    ("mbox", Format::Mbox),
    ("eml", Format::Eml),
    ("text", Format::Text),
    ("markdown", Format::Markdown),
    ("html", Format::Html),
    ("pdf", Format::Pdf),
    ("docx", Format::Docx),
    ("code", Format::Code { language: "" }),
];

impl Format {
    /// By a file name's extension, or by a run file's word alone.
    pub fn from_name(name: &str) -> Option<Self> {
        let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let extension = last.rsplit('.').next().unwrap_or(last).to_ascii_lowercase();
        let format = match extension.as_str() {
            "tab" => Self::Csv { delimiter: b'\t' },
            "ssv" => Self::Csv { delimiter: b';' },
            "ndjson" => Self::JsonLines,
            "pq" => Self::Parquet,
            "tfrecords" => Self::TfRecord,
            "xlsm" => Self::Xlsx,
            "mbx" => Self::Mbox,
            "txt" | "log" => Self::Text,
            "md" | "mdown" => Self::Markdown,
            "htm" | "xhtml" => Self::Html,
            word => match NAMES.iter().find(|(name, _)| *name == word) {
                Some((_, format)) => *format,
                None => Self::Code { language: text::language_of_name(last)? },
            },
        };
        Some(format)
    }

    /// The words for formats in a run file.
    pub fn names() -> Vec<&'static str> {
        NAMES.iter().map(|(name, _)| *name).collect()
    }

    /// The word for it in run files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv { delimiter: b'\t' } => "tsv",
            Self::Csv { .. } => "csv",
            Self::Code { .. } => "code",
            format => NAMES.iter().find(|(_, known)| *known == format).map_or("", |(name, _)| name),
        }
    }

    /// Whether its values have types (numbers, truth values); in CSV everything is text.
    pub fn is_typed(self) -> bool {
        !matches!(self, Self::Csv { .. })
    }

    /// Whether a file of it is one document rather than rows.
    pub fn is_document(self) -> bool {
        matches!(self, Self::Text | Self::Markdown | Self::Html | Self::Pdf | Self::Docx | Self::Code { .. } | Self::Eml)
    }

    /// By the first bytes of a file whose name says nothing.
    fn from_head(head: &[u8]) -> Option<Self> {
        let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
        let start = text.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let lower = text[start..text.len().min(start + 64)].to_ascii_lowercase();
        if let Some(format) = Self::binary(head) {
            return Some(format);
        }
        if let Some(language) = text::language_of_shebang(head) {
            return Some(Self::Code { language });
        }
        if lower.starts_with(b"<!doctype html") || lower.starts_with(b"<html") {
            return Some(Self::Html);
        }
        match text[start] {
            _ if lower.starts_with(b"<?xml") => Some(Self::Xml),
            b'{' | b'[' => Some(Self::Json),
            _ if text.starts_with(b"From ") => Some(Self::Mbox),
            _ => None,
        }
    }

    /// By the first bytes of a format that is no text.
    fn binary(head: &[u8]) -> Option<Self> {
        match head {
            [b'P', b'A', b'R', b'1', ..] => Some(Self::Parquet),
            [b'%', b'P', b'D', b'F', b'-', ..] => Some(Self::Pdf),
            _ => None,
        }
    }

    fn is_text(self) -> bool {
        !matches!(self, Self::Parquet | Self::TfRecord | Self::Xlsx | Self::Pdf | Self::Docx)
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

/// The limits used unless a caller has its own: far above any instruction data, and a row far below what exhausts memory.
pub const LIMITS: Limits =
    Limits { source_bytes: 1 << 42, rows: 1 << 32, row_bytes: 16 << 20, field_bytes: 8 << 20, columns: 4096, depth: 32 };

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
    /// How it is written; by name or content where not given. Of an archive or folder: how its files are.
    pub format: Option<Format>,
    /// Where the file lies within its source: its path below the source's folder, or nothing where it is the source.
    pub inner: String,
    /// What to do with a row that cannot be read.
    pub broken_rows: BrokenRows,
    /// What may be read at most.
    pub limits: Limits,
    /// Delimiter of CSV; recognised where not given.
    pub delimiter: Option<u8>,
    /// Quote of CSV; recognised where not given.
    pub quote: Option<u8>,
    /// Whether the first row of CSV names the columns; otherwise they are `column_1` and so on.
    pub header: bool,
    /// WHATWG label of a text's encoding; recognised where not given. `utf-8` demands it: nothing is guessed.
    pub encoding: Option<String>,
    /// Whether text that was UTF-8 and was misread as Windows-1252 is repaired.
    pub repair_mojibake: bool,
    /// Name of a workbook's sheet; all visible ones where not given.
    pub sheet: Option<String>,
    /// Path of an XML file's records, such as `Document/QAPairs/QAPair`, or its end.
    pub xml_record: Option<String>,
}

impl ReadOptions {
    /// Everything recognised from the file itself, nothing broken accepted.
    pub fn recognise(limits: Limits) -> Self {
        Self {
            format: None,
            inner: String::new(),
            broken_rows: BrokenRows::Refuse,
            limits,
            delimiter: None,
            quote: None,
            header: true,
            encoding: None,
            repair_mojibake: true,
            sheet: None,
            xml_record: None,
        }
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

/// The documents of a file, archive or folder, in order.
pub struct Reader {
    format: Option<Format>,
    columns: Vec<String>,
    seen: HashSet<String>,
    place: Place,
    found: Found,
    walk: Box<dyn Walk>,
    given: u64,
    ended: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("place", &self.place).field("format", &self.format).finish_non_exhaustive()
    }
}

impl Reader {
    fn new(place: Place, format: Option<Format>, walk: Box<dyn Walk>, found: Found) -> Self {
        Self { format, columns: Vec::new(), seen: HashSet::new(), place, found, walk, given: 0, ended: false }
    }

    /// How the file is written; nothing where it is an archive or folder of several.
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// Whether all values have types; in CSV everything is text.
    pub fn is_typed(&self) -> bool {
        !self.found.untyped
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
        &self.found.facts
    }

    fn note(&mut self, document: &Document) -> Result<(), DataError> {
        for (i, (name, _)) in document.fields.iter().enumerate() {
            // Rows mostly have the same columns in the same order.
            if self.columns.get(i) != Some(name) && !self.seen.contains(name) {
                self.seen.insert(name.clone());
                self.columns.push(name.clone());
            }
        }
        self.place.limit(None, "columns", self.columns.len(), self.place.limits.columns)
    }
}

impl Iterator for Reader {
    type Item = Result<Item, DataError>;

    /// The next document or reject; nothing follows an error. A file that is the whole source and has no rows is an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match self.walk.next(&mut self.found) {
            Ok(None) => {
                self.ended = true;
                let empty = self.given == 0 && self.place.inner.is_empty();
                return empty.then(|| Err(DataError::Empty { origin: self.place.name() }));
            }
            Ok(Some(item)) => self.count(&item).map(|()| item),
            Err(error) => Err(error),
        };
        self.ended = item.is_err();
        Some(item)
    }
}

impl Reader {
    fn count(&mut self, item: &Item) -> Result<(), DataError> {
        self.given += 1;
        let Item::Document(document) = item else { return Ok(()) };
        let (line, limit) = (document.origin.line, self.place.limits.rows);
        self.place.limit(Some(line), "rows", usize::try_from(self.given).unwrap_or(usize::MAX), limit)?;
        self.note(document)
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
    let place = Place { source: source.into(), inner: options.inner.clone(), limits: options.limits };
    let name = if options.inner.is_empty() { source } else { &options.inner };
    let length = input.seek(SeekFrom::End(0)).and_then(|length| input.rewind().map(|()| length)).map_err(|error| place.io(&error))?;
    place.limit(None, "bytes", usize::try_from(length).unwrap_or(usize::MAX), options.limits.source_bytes)?;
    // Files that have no length are no files of data: what the system shows of itself is written like that.
    if length == 0 {
        return Err(DataError::Empty { origin: place.name() });
    }
    let mut found = Found::default();
    let opened = open_file(Bytes::File(input), name, place.clone(), options, 0, &Budget::new(length), &mut found)?;
    Ok(Reader::new(place, opened.format, opened.walk, found))
}

/// The files of a folder: the path of each below it, and the file, or why it is not to be read.
pub type FolderFiles = Box<dyn Iterator<Item = (String, Result<Box<dyn Input>, String>)> + Send>;

/// Opens the files of a folder, in the order given, as one stream. Each comes with its path below the folder, which becomes
/// part of the documents' ids; one that cannot be opened is rejected with the reason. So is a file that is no known format,
/// or that is broken where it is one document (PDF, DOCX, …); a broken table is an error, or as `options` say.
pub fn open_folder(source: &str, files: FolderFiles, options: &ReadOptions) -> Reader {
    let place = Place { source: source.into(), inner: options.inner.clone(), limits: options.limits };
    // Each file brings its own budget: what it may be unpacked to depends on its size.
    let members = Members::new(Box::new(Files(files)), open_file, place.clone(), options, 0, None);
    Reader::new(place, None, Box::new(members), Found::default())
}

/// A file as a walk.
struct Opened {
    walk: Box<dyn Walk>,
    /// Nothing where it is an archive.
    format: Option<Format>,
}

/// Opens a file or member named `name`, `depth` archives deep.
fn open_file(
    mut bytes: Bytes,
    name: &str,
    place: Place,
    options: &ReadOptions,
    depth: usize,
    budget: &Arc<Budget>,
    found: &mut Found,
) -> Result<Opened, DataError> {
    let head = bytes.head(HEAD_BYTES, &place)?;
    let named = options.format.filter(|_| Container::of_name(name).is_none()).or_else(|| {
        let container = Container::of_name(name).is_some();
        if container { None } else { Format::from_name(name).filter(|_| name.contains('.') || text::language_of_name(name).is_some()) }
    });
    let container = match (Container::of_name(name), named) {
        (Some(container), _) => Some(container),
        (None, Some(_)) => None,
        (None, None) => Container::of_head(&head).map(|container| (container, name.to_owned())),
    };
    if let Some((container, inner)) = container {
        if depth >= container::DEPTH_MAX {
            return Err(place.too_large(None, "archives within each other", depth as u64 + 1, container::DEPTH_MAX));
        }
        found.say("packed", container.name().to_owned());
        let members = |source| {
            let walk = Members::new(source, open_file, place.clone(), options, depth, Some(budget));
            Ok(Opened { walk: Box::new(walk), format: None })
        };
        return match container {
            Container::Gzip | Container::Zstd => {
                let bytes = container::decompress(container, bytes, budget);
                open_file(bytes, &inner, place, options, depth + 1, budget, found)
            }
            Container::Tar => members(Box::new(container::Tar::new(bytes))),
            Container::Zip => members(Box::new(container::Zip::open(bytes.into_input(&place)?, &place, budget)?)),
        };
    }
    let format = named.or_else(|| Format::from_head(&head)).ok_or_else(|| DataError::UnknownFormat { origin: place.name() })?;
    // A name that lies would make text of something else.
    let content = Container::of_head(&head).map(Container::name).or(Format::binary(&head).map(Format::name));
    if let Some(content) = content.filter(|_| format.is_text()) {
        return Err(DataError::Content { origin: place.name(), content, format: format.name() });
    }
    let walk = open_format(format, bytes, &head, place, options, budget, found)?;
    Ok(Opened { walk, format: Some(format) })
}

fn open_format(
    format: Format,
    bytes: Bytes,
    head: &[u8],
    place: Place,
    options: &ReadOptions,
    budget: &Arc<Budget>,
    found: &mut Found,
) -> Result<Box<dyn Walk>, DataError> {
    let declared = if format == Format::Xml { xml::declared_encoding(head) } else { None };
    let label = options.encoding.clone().or(declared);
    found.untyped |= !format.is_typed();
    let text = |bytes: Bytes| TextStream::new(bytes.into_stream(), place.clone(), label.as_deref());
    let once = |item: Result<Option<Item>, DataError>| item.map(|item| Box::new(Once(item)) as Box<dyn Walk>);
    match format {
        Format::Csv { delimiter } => Ok(Box::new(csv::Csv::open(text(bytes)?, delimiter, options, found)?)),
        Format::JsonLines => Ok(Box::new(json::Lines::open(text(bytes)?, options))),
        Format::Json => json::open(text(bytes)?, options, found),
        Format::Xml => Ok(Box::new(xml::Xml::open(text(bytes)?, options))),
        Format::Parquet => Ok(Box::new(parquet::Rows::open(bytes, place, options, found)?)),
        Format::TfRecord => Ok(Box::new(tfrecord::TfRecords::open(bytes, place, options))),
        Format::Xlsx => Ok(Box::new(office::Sheets::open(bytes, place, options, budget)?)),
        Format::Mbox => Ok(Box::new(mail::Mbox::open(bytes, place, options))),
        Format::Eml => once(mail::message(bytes, &place, options, found)),
        Format::Text => once(text::plain(text(bytes)?, options, found)),
        Format::Markdown => once(text::markdown(text(bytes)?, options, found)),
        Format::Html => once(html::document(text(bytes)?, options, found)),
        Format::Pdf => once(pdf::document(bytes, &place, options, found)),
        Format::Docx => once(office::docx(bytes, &place, options, budget, found)),
        Format::Code { language } => {
            let language = if language.is_empty() { text::language_of_shebang(head).unwrap_or("unknown") } else { language };
            once(text::code(text(bytes)?, language, options, found))
        }
    }
}

/// Runs a library that may panic on crafted bytes; the panic becomes an error about the file.
fn guarded<T>(place: &Place, kind: &'static str, run: impl FnOnce() -> Result<T, String>) -> Result<T, DataError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|problem| place.broken(kind, problem)),
        Err(_) => Err(place.broken(kind, "it is malformed in a way that its parser gave up on")),
    }
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
    let mut reader = open(source, Box::new(Cursor::new(bytes.to_vec())), &options)?;
    let mut documents = Vec::new();
    for item in &mut reader {
        if let Item::Document(document) = item? {
            documents.push(document);
        }
    }
    Ok(Dataset { source: source.into(), shape: reader.shape(), typed: format.is_typed(), columns: reader.columns, documents })
}
