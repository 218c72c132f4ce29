//! CSV, TSV, JSONL and JSON arrays.

use super::{Format, Limits};
use crate::error::LineProblem;
use crate::{DataError, Document, Origin, Value};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// The documents of a table or of JSON, from all of its bytes.
pub(super) fn documents(source: &str, inner: &str, bytes: &[u8], format: Format, limits: &Limits) -> Result<Vec<Document>, DataError> {
    let reader = Reader { source, inner, limits };
    reader.limit(None, "bytes", bytes.len(), limits.source_bytes)?;
    let text = reader.text(bytes)?;
    match format {
        Format::Csv { delimiter } => reader.csv(text, delimiter),
        // A .json file with an object per line is common; an array begins with a bracket.
        Format::Json if text.trim_start().starts_with('[') => reader.json_array(text),
        Format::Json | Format::JsonLines => reader.json_lines(text),
    }
}

struct Reader<'a> {
    source: &'a str,
    inner: &'a str,
    limits: &'a Limits,
}

impl Reader<'_> {
    fn limit(&self, line: Option<u64>, what: &'static str, given: usize, limit: usize) -> Result<(), DataError> {
        if given <= limit {
            return Ok(());
        }
        Err(DataError::TooLarge { origin: self.source.into(), line, what, given: given as u64, limit: limit as u64 })
    }

    fn problem(&self, line: u64, problem: LineProblem) -> DataError {
        DataError::Line { origin: self.source.into(), line, problem }
    }

    /// The bytes as text without a byte-order mark; UTF-8 only, no zero bytes.
    fn text<'t>(&self, bytes: &'t [u8]) -> Result<&'t str, DataError> {
        let encoding = match bytes {
            [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => Some("UTF-32"),
            [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("UTF-16"),
            _ => None,
        };
        if let Some(encoding) = encoding {
            return Err(self.problem(1, LineProblem::Encoding { encoding }));
        }
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let place = |at: usize| {
            let before = &bytes[..at];
            let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            (line, at - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1) + 1)
        };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let (line, byte) = place(error.valid_up_to());
            self.problem(line, LineProblem::NotUtf8 { byte })
        })?;
        match bytes.iter().position(|byte| *byte == 0) {
            Some(at) => Err(self.problem(place(at).0, LineProblem::Nul)),
            None => Ok(text),
        }
    }

    fn csv(&self, text: &str, delimiter: u8) -> Result<Vec<Document>, DataError> {
        let delimiter = written_delimiter(text, delimiter);
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(text.as_bytes());
        let mut row = csv::StringRecord::new();
        let mut header: Option<Vec<String>> = None;
        let mut documents = Vec::new();
        let mut start = 0;
        // The library counts the lines it passed; the row itself may begin after empty ones.
        while {
            start = skip_empty_lines(text, reader.position().byte() as usize).max(start);
            reader.read_record(&mut row).map_err(|_| self.problem(reader.position().line(), LineProblem::NotUtf8 { byte: 1 }))?
        } {
            let line = line_of(text, start, documents.last());
            let end = reader.position().byte() as usize;
            quotes(&text.as_bytes()[start..end.min(text.len())], delimiter).map_err(|problem| self.problem(line, problem))?;
            self.limit(Some(line), "bytes in a row", row.as_slice().len(), self.limits.row_bytes)?;
            self.limit(Some(line), "columns", row.len(), self.limits.columns)?;
            let Some(names) = &header else {
                header = Some(self.header(&row)?);
                continue;
            };
            if row.len() != names.len() {
                return Err(self.problem(line, LineProblem::Ragged { given: row.len(), expected: names.len() }));
            }
            for cell in &row {
                self.limit(Some(line), "bytes in a field", cell.len(), self.limits.field_bytes)?;
            }
            self.limit(Some(line), "rows", documents.len() + 1, self.limits.rows)?;
            let fields = names.iter().cloned().zip(row.iter().map(|cell| Value::Text(cell.into()))).collect();
            let origin = Origin { source: self.source.into(), inner: self.inner.into(), row: documents.len() as u64 + 1, line };
            documents.push((start, Document::new(fields, origin)));
        }
        Ok(documents.into_iter().map(|(_, document)| document).collect())
    }

    fn header(&self, row: &csv::StringRecord) -> Result<Vec<String>, DataError> {
        let names: Vec<String> = row.iter().map(|name| name.trim().to_owned()).collect();
        let wrong = |problem: String| self.problem(1, LineProblem::Header { problem });
        if let Some(at) = names.iter().position(String::is_empty) {
            return Err(wrong(format!("no name for column {}", at + 1)));
        }
        let mut seen = HashSet::new();
        match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(name) => Err(wrong(format!("the column {name:?} twice"))),
            None => Ok(names),
        }
    }

    fn json_lines(&self, text: &str) -> Result<Vec<Document>, DataError> {
        let mut documents = Vec::new();
        for (i, line_text) in text.split('\n').enumerate() {
            if line_text.trim().is_empty() {
                continue;
            }
            let line = i as u64 + 1;
            self.limit(Some(line), "bytes in a row", line_text.len(), self.limits.row_bytes)?;
            self.limit(Some(line), "rows", documents.len() + 1, self.limits.rows)?;
            let mut parser = serde_json::Deserializer::from_str(line_text);
            let value = self.any().deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
            let value = value.map_err(|error| self.json_error(line, 1, &error))?;
            documents.push(self.document(value, documents.len(), line)?);
        }
        Ok(documents)
    }

    fn json_array(&self, text: &str) -> Result<Vec<Document>, DataError> {
        let mut documents = Vec::new();
        let mut at = text.len() - text.trim_start().len() + 1;
        let (mut line, mut counted) = (1, 0);
        let expected = |line: u64, what: &str| self.problem(line, LineProblem::Json { column: 1, expected: what.into() });
        loop {
            at += text[at..].len() - text[at..].trim_start().len();
            line += newlines(&text[counted..at]);
            counted = at;
            if text[at..].starts_with(']') && documents.is_empty() {
                at += 1;
                break;
            }
            self.limit(Some(line), "rows", documents.len() + 1, self.limits.rows)?;
            let mut parser = serde_json::Deserializer::from_str(&text[at..]);
            let value = self.any().deserialize(&mut parser).map_err(|error| self.json_error(line, error.line(), &error))?;
            let length = parser.into_iter::<IgnoredAny>().byte_offset();
            self.limit(Some(line), "bytes in a row", length, self.limits.row_bytes)?;
            documents.push(self.document(value, documents.len(), line)?);
            at += length;
            at += text[at..].len() - text[at..].trim_start().len();
            line += newlines(&text[counted..at]);
            counted = at;
            match text[at..].chars().next() {
                Some(',') => at += 1,
                Some(']') => {
                    at += 1;
                    break;
                }
                _ => return Err(expected(line, "a comma or the end of the list")),
            }
        }
        if text[at..].trim().is_empty() { Ok(documents) } else { Err(expected(line, "nothing after the list")) }
    }

    fn document(&self, value: Value, index: usize, line: u64) -> Result<Document, DataError> {
        let found = match value {
            Value::Object(fields) => {
                let origin = Origin { source: self.source.into(), inner: self.inner.into(), row: index as u64 + 1, line };
                return Ok(Document::new(fields, origin));
            }
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
        };
        Err(self.problem(line, LineProblem::NotObject { found }))
    }

    fn any(&self) -> AnyValue {
        AnyValue { depth: self.limits.depth, limits: *self.limits }
    }

    /// `line` is where the value starts, of whose lines `inner` is the one with the error.
    fn json_error(&self, line: u64, inner: usize, error: &serde_json::Error) -> DataError {
        let line = line + (inner as u64).saturating_sub(1);
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        if let Some(key) = message.strip_prefix(DUPLICATE_KEY) {
            return self.problem(line, LineProblem::DuplicateKey { key: key.chars().take(60).collect() });
        }
        if message.starts_with(TOO_DEEP) || message.starts_with("recursion limit") {
            return self.problem(line, LineProblem::Depth { limit: self.limits.depth });
        }
        if message.starts_with(FIELD_TOO_LONG) {
            let limit = self.limits.field_bytes;
            return self
                .limit(Some(line), "bytes in a field", limit + 1, limit)
                .err()
                .unwrap_or_else(|| self.problem(line, LineProblem::Depth { limit: self.limits.depth }));
        }
        self.problem(line, LineProblem::Json { column: error.column(), expected: message.into() })
    }
}

/// The delimiter of a file that is called comma-separated, but whose first line has no comma: spreadsheets of many
/// countries write semicolons.
fn written_delimiter(text: &str, delimiter: u8) -> u8 {
    let header = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
    if delimiter != b',' || header.contains(',') {
        return delimiter;
    }
    [b';', b'\t'].into_iter().find(|other| header.as_bytes().contains(other)).unwrap_or(delimiter)
}

const DUPLICATE_KEY: &str = "duplicate key: ";
const TOO_DEEP: &str = "nested too deep";
const FIELD_TOO_LONG: &str = "field too long";

fn newlines(text: &str) -> u64 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u64
}

/// The line at byte `at`, counted on from the document before.
fn line_of(text: &str, at: usize, before: Option<&(usize, Document)>) -> u64 {
    let (from, line) = before.map_or((0, 1), |(start, document)| (*start, document.origin.line));
    line + newlines(&text[from..at])
}

fn skip_empty_lines(text: &str, at: usize) -> usize {
    let rest = &text[at.min(text.len())..];
    text.len() - rest.trim_start_matches(['\r', '\n']).len()
}

/// Whether each quoted field of a row ends with its quote. Where one is forgotten, the next field's quote closes it and
/// two rows would silently become one.
fn quotes(row: &[u8], delimiter: u8) -> Result<(), LineProblem> {
    let (mut quoted, mut field_start, mut i) = (false, true, 0);
    while i < row.len() {
        let byte = row[i];
        if quoted {
            if byte == b'"' {
                match row.get(i + 1) {
                    Some(b'"') => i += 1,
                    None | Some(b'\n' | b'\r') => quoted = false,
                    Some(next) if *next == delimiter => quoted = false,
                    Some(_) => return Err(LineProblem::TextAfterQuote),
                }
            }
        } else {
            quoted = field_start && byte == b'"';
            field_start = byte == delimiter || byte == b'\n' || byte == b'\r';
        }
        i += 1;
    }
    if quoted { Err(LineProblem::OpenQuote) } else { Ok(()) }
}

/// Reads any JSON value; a key twice, deep nesting and long fields are errors.
#[derive(Clone, Copy)]
struct AnyValue {
    depth: usize,
    limits: Limits,
}

impl AnyValue {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(E::custom(TOO_DEEP)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(serde_json::Value::from(value).to_string()))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if value.len() > self.limits.field_bytes {
            return Err(E::custom(FIELD_TOO_LONG));
        }
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let (mut fields, mut seen) = (Vec::new(), HashSet::new());
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("{DUPLICATE_KEY}{key}")));
            }
            fields.push((key, map.next_value_seed(inner)?));
        }
        Ok(Value::Object(fields))
    }
}
