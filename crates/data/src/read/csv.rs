//! Values parted by a delimiter (RFC 4180 and its relatives), record by record.
//!
//! Delimiter and quote are recognised from the first records. A field is quoted where its first character is the quote;
//! a quote inside is written twice. Where a closing quote is followed by text, or is missing, the record is broken:
//! otherwise two rows would silently become one.

use super::place::Place;
use super::text_stream::{TextStream, checked, newlines};
use super::walk::{Found, Walk, rejects};
use super::{Item, ReadOptions, mojibake};
use crate::error::LineProblem;
use crate::{DataError, Value};
use std::collections::HashSet;
use std::ops::Range;

/// Records by which the delimiter is recognised.
const SAMPLE_RECORDS: usize = 100;
/// Bytes by which the delimiter is recognised.
const SAMPLE_BYTES: usize = 64 << 10;
/// Delimiters that are recognised, the likeliest first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// How the records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    delimiter: u8,
    quote: u8,
}

/// A cell: its bytes in the record, and whether quotes in it are doubled.
type Cell = (Range<usize>, bool);

/// What stands at the beginning of some bytes.
enum Parsed {
    /// A record of so many bytes, line end included.
    Record(usize),
    /// The bytes end within it.
    Cut,
    /// No record.
    Broken(LineProblem),
}

/// Finds the cells of the record at the start of `data`; `whole` if nothing follows it.
fn parse(data: &[u8], whole: bool, dialect: Dialect, cells: &mut Vec<Cell>) -> Parsed {
    cells.clear();
    let mut at = 0;
    loop {
        let end = if data.get(at) == Some(&dialect.quote) {
            let (mut close, mut doubled) = (at + 1, false);
            loop {
                match memchr::memchr(dialect.quote, &data[close..]) {
                    None if whole => return Parsed::Broken(LineProblem::OpenQuote),
                    None => return Parsed::Cut,
                    Some(next) => close += next,
                }
                match data.get(close + 1) {
                    None if !whole => return Parsed::Cut,
                    Some(byte) if *byte == dialect.quote => {
                        doubled = true;
                        close += 2;
                    }
                    _ => break,
                }
            }
            cells.push((at + 1..close, doubled));
            close + 1
        } else {
            match memchr::memchr3(dialect.delimiter, b'\n', b'\r', &data[at..]) {
                None if !whole => return Parsed::Cut,
                next => {
                    let end = next.map_or(data.len(), |next| at + next);
                    cells.push((at..end, false));
                    end
                }
            }
        };
        match data.get(end) {
            None => return Parsed::Record(end),
            Some(byte) if *byte == dialect.delimiter => at = end + 1,
            Some(b'\n') => return Parsed::Record(end + 1),
            Some(b'\r') => {
                return match data.get(end + 1) {
                    None if !whole => Parsed::Cut,
                    Some(b'\n') => Parsed::Record(end + 2),
                    _ => Parsed::Record(end + 1),
                };
            }
            Some(_) => return Parsed::Broken(LineProblem::TextAfterQuote),
        }
    }
}

/// Records in the order of the file.
pub(super) struct Csv {
    text: TextStream,
    dialect: Dialect,
    names: Vec<String>,
    cells: Vec<Cell>,
    row: u64,
    rejects: bool,
    repair: bool,
}

impl Csv {
    /// Recognises the dialect and reads the header. `delimiter` is the format's own.
    pub(super) fn open(mut text: TextStream, delimiter: u8, options: &ReadOptions, found: &mut Found) -> Result<Self, DataError> {
        while text.rest().len() < SAMPLE_BYTES && text.more(found)? {}
        let dialect = recognise(text.rest(), text.is_ended(), delimiter, options);
        found.say("delimiter", delimiter_name(dialect.delimiter));
        if dialect.quote != b'"' {
            found.say("quote", char::from(dialect.quote).to_string());
        }
        let mut csv = Self {
            text,
            dialect,
            names: Vec::new(),
            cells: Vec::new(),
            row: 0,
            rejects: rejects(options),
            repair: options.repair_mojibake,
        };
        if let Some((length, line)) = csv.record(found)? {
            csv.names = csv.header(length, line, options.header)?;
            if options.header {
                csv.text.consume(length);
            }
        }
        Ok(csv)
    }

    fn place(&self) -> &Place {
        self.text.place()
    }

    /// The next record that is not empty: its bytes are the first of the rest, its cells in `cells`.
    fn record(&mut self, found: &mut Found) -> Result<Option<(usize, u64)>, DataError> {
        loop {
            let empty = self.text.rest().iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
            self.text.consume(empty);
            if !self.text.rest().is_empty() {
                break;
            }
            if !self.text.more(found)? {
                return Ok(None);
            }
        }
        let line = self.text.line();
        loop {
            match parse(self.text.rest(), self.text.is_ended(), self.dialect, &mut self.cells) {
                Parsed::Record(length) => return Ok(Some((length, line))),
                Parsed::Broken(problem) => return Err(self.place().problem(line, problem)),
                Parsed::Cut => {
                    // Quotes and delimiters come on top of the cells' bytes.
                    let limits = self.place().limits;
                    let most = limits.row_bytes.saturating_mul(2).saturating_add(limits.columns);
                    self.place().limit(Some(line), "bytes in a row", self.text.rest().len(), most)?;
                    self.text.more(found)?;
                }
            }
        }
    }

    fn header(&self, length: usize, line: u64, named: bool) -> Result<Vec<String>, DataError> {
        let record = &self.text.rest()[..length];
        self.place().limit(Some(line), "columns", self.cells.len(), self.place().limits.columns)?;
        let text = checked(record).map_err(|(at, problem)| self.place().problem(line + newlines(&record[..at]), problem))?;
        if !named {
            return Ok((1..=self.cells.len()).map(|i| format!("column_{i}")).collect());
        }
        let names: Vec<String> = self.cells.iter().map(|cell| self.cell(text, cell).trim().to_owned()).collect();
        let wrong = |problem: String| self.place().problem(line, LineProblem::Header { problem });
        if let Some(at) = names.iter().position(String::is_empty) {
            return Err(wrong(format!("no name for column {}", at + 1)));
        }
        let mut seen = HashSet::new();
        match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(name) => Err(wrong(format!("the column {name:?} twice"))),
            None => Ok(names),
        }
    }

    fn cell(&self, record: &str, (range, doubled): &Cell) -> String {
        let text = &record[range.clone()];
        if !doubled {
            return text.to_owned();
        }
        let quote = char::from(self.dialect.quote);
        text.replace(&format!("{quote}{quote}"), &quote.to_string())
    }

    fn document(&mut self, length: usize, line: u64, found: &mut Found) -> Result<Item, DataError> {
        let place = self.place();
        let limits = place.limits;
        let bytes = self.cells.iter().map(|(range, _)| range.len()).sum();
        place.limit(Some(line), "bytes in a row", bytes, limits.row_bytes)?;
        place.limit(Some(line), "columns", self.cells.len(), limits.columns)?;
        let record = &self.text.rest()[..length];
        let text = checked(record).map_err(|(at, problem)| place.problem(line + newlines(&record[..at]), problem))?;
        if self.cells.len() != self.names.len() {
            return Err(place.problem(line, LineProblem::Ragged { given: self.cells.len(), expected: self.names.len() }));
        }
        for (range, _) in &self.cells {
            place.limit(Some(line), "bytes in a field", range.len(), limits.field_bytes)?;
        }
        let mut fields: Vec<(String, Value)> =
            self.names.iter().zip(&self.cells).map(|(name, cell)| (name.clone(), Value::Text(self.cell(text, cell)))).collect();
        let repaired = if self.repair && !text.is_ascii() { mojibake::repair_fields(&mut fields) } else { 0 };
        let legacy = self.text.legacy().filter(|_| !text.is_ascii());
        let mut document = self.place().document(fields, self.row, line);
        mojibake::note(&mut document, repaired, legacy, found);
        Ok(Item::Document(document))
    }
}

impl Walk for Csv {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        let result = match self.record(found) {
            Ok(None) => return Ok(None),
            Ok(Some((length, line))) => {
                self.row += 1;
                let item = self.document(length, line, found);
                self.text.consume(length);
                item
            }
            Err(error) => {
                self.row += 1;
                if self.rejects {
                    // Where its record ends is unknown: its first line is given up.
                    self.text.skip_line(found)?;
                }
                Err(error)
            }
        };
        match result {
            Err(error @ (DataError::Line { .. } | DataError::TooLarge { line: Some(_), .. })) if self.rejects => {
                Ok(Some(Item::Rejected(self.place().rejected(self.row, error.to_string()))))
            }
            result => result.map(Some),
        }
    }
}

fn delimiter_name(delimiter: u8) -> String {
    if delimiter == b'\t' { "tab".into() } else { char::from(delimiter).to_string() }
}

/// The dialect in which the first records have the same number of cells, at least two; otherwise what the header says.
fn recognise(sample: &[u8], whole: bool, format: u8, options: &ReadOptions) -> Dialect {
    let sample = &sample[..sample.len().min(SAMPLE_BYTES)];
    let whole = whole && sample.len() < SAMPLE_BYTES;
    let start = sample.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    let header = sample[start..].split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let quote = options.quote.unwrap_or_else(|| {
        // Single quotes are one only where every name in the header has them.
        let single = |delimiter: u8| header.split(|byte| *byte == delimiter).all(|name| matches!(name, [b'\'', .., b'\'']));
        if DELIMITERS.iter().any(|delimiter| single(*delimiter)) { b'\'' } else { b'"' }
    });
    let given = options.delimiter.or((format != b',').then_some(format));
    if let Some(delimiter) = given {
        return Dialect { delimiter, quote };
    }
    let even = |delimiter: u8| {
        let (mut cells, mut counts, mut at) = (Vec::new(), Vec::new(), start);
        while counts.len() < SAMPLE_RECORDS && at < sample.len() {
            match parse(&sample[at..], whole, Dialect { delimiter, quote }, &mut cells) {
                Parsed::Record(length) => at += length,
                Parsed::Cut => break,
                Parsed::Broken(_) => return false,
            }
            if cells.len() > 1 || !cells[0].0.is_empty() {
                counts.push(cells.len());
            }
        }
        counts.first().is_some_and(|first| *first >= 2 && counts.iter().all(|count| count == first))
    };
    let written = |delimiter: &u8| header.contains(delimiter);
    let delimiter = DELIMITERS.into_iter().filter(written).find(|delimiter| even(*delimiter));
    Dialect { delimiter: delimiter.or_else(|| DELIMITERS.into_iter().find(written)).unwrap_or(b','), quote }
}
