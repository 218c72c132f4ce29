//! JSON: an object per line, one array of objects, or one object whose entries are the rows.

use super::place::Place;
use super::text_stream::{TextStream, checked, newlines};
use super::walk::{Found, Walk, rejects};
use super::{Item, Limits, ReadOptions, Shape, mojibake};
use crate::error::LineProblem;
use crate::{DataError, Value};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

/// Bytes of a file that is one object, which is read whole.
const OBJECT_BYTES_MAX: usize = 256 << 20;
/// Fields up to which a key that comes twice is searched for one by one.
const FEW_FIELDS: usize = 16;

/// One object per line.
pub(super) struct Lines {
    text: TextStream,
    row: u64,
    rejects: bool,
    repair: bool,
}

impl Lines {
    pub(super) fn open(text: TextStream, options: &ReadOptions) -> Self {
        Self { text, row: 0, rejects: rejects(options), repair: options.repair_mojibake }
    }
}

impl Walk for Lines {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        loop {
            let limit = self.text.place().limits.row_bytes;
            let result = match self.text.next_line(limit, found) {
                Ok(None) => return Ok(None),
                Ok(Some((range, line))) => {
                    let bytes = self.text.slice(range);
                    if bytes.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    self.row += 1;
                    row(self.text.place(), bytes, line, self.row, self.text.legacy(), self.repair, found)
                }
                Err(error) => {
                    self.row += 1;
                    // The error names a line that was passed already, unless it does not end in what is in memory.
                    if self.rejects && matches!(&error, DataError::TooLarge { line: Some(line), .. } if *line == self.text.line()) {
                        self.text.skip_line(found)?;
                    }
                    Err(error)
                }
            };
            return or_reject(result, self.text.place(), self.row, self.rejects);
        }
    }
}

/// With `rejects`, an error about one row as a reject.
fn or_reject(result: Result<Item, DataError>, place: &Place, row: u64, rejects: bool) -> Result<Option<Item>, DataError> {
    match result {
        Err(error @ (DataError::Line { .. } | DataError::TooLarge { line: Some(_), .. })) if rejects => {
            Ok(Some(Item::Rejected(place.rejected(row, error.to_string()))))
        }
        result => result.map(Some),
    }
}

/// The document of an object's bytes.
fn row(
    place: &Place,
    bytes: &[u8],
    line: u64,
    row: u64,
    legacy: Option<&'static str>,
    repair: bool,
    found: &mut Found,
) -> Result<Item, DataError> {
    let text = checked(bytes).map_err(|(at, problem)| place.problem(line + newlines(&bytes[..at]), problem))?;
    let value = value(place, text, line)?;
    let found_instead = match value {
        Value::Object(fields) => return Ok(document(place, fields, (row, line), (legacy.filter(|_| !text.is_ascii()), repair), found)),
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
    };
    Err(place.problem(line, LineProblem::NotObject { found: found_instead }))
}

fn document(
    place: &Place,
    mut fields: Vec<(String, Value)>,
    (row, line): (u64, u64),
    (legacy, repair): (Option<&'static str>, bool),
    found: &mut Found,
) -> Item {
    let repaired = if repair { mojibake::repair_fields(&mut fields) } else { 0 };
    let mut document = place.document(fields, row, line);
    mojibake::note(&mut document, repaired, legacy, found);
    Item::Document(document)
}

/// One JSON value, nothing behind it. `line` is where it starts.
pub(super) fn value(place: &Place, text: &str, line: u64) -> Result<Value, DataError> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let limits = place.limits;
    let value = AnyValue { depth: limits.depth, limits }.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    value.map_err(|error| json_error(place, line, &error))
}

fn json_error(place: &Place, line: u64, error: &serde_json::Error) -> DataError {
    let line = line + (error.line() as u64).saturating_sub(1);
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let limits = place.limits;
    if let Some(key) = message.strip_prefix(DUPLICATE_KEY) {
        return place.problem(line, LineProblem::DuplicateKey { key: key.chars().take(60).collect() });
    }
    if message.starts_with(TOO_DEEP) || message.starts_with("recursion limit") {
        return place.problem(line, LineProblem::Depth { limit: limits.depth });
    }
    if let Some(given) = message.strip_prefix(FIELD_TOO_LONG).and_then(|given| given.parse().ok()) {
        return place.too_large(Some(line), "bytes in a field", given, limits.field_bytes);
    }
    place.problem(line, LineProblem::Json { column: error.column(), expected: message.into() })
}

/// Where a value of a bracketed text ends, found piece by piece.
#[derive(Default)]
struct Extent {
    depth: usize,
    in_text: bool,
    escaped: bool,
    begun: bool,
}

impl Extent {
    /// Goes on over `bytes`: the offset behind the value, once its end is among them. A bare word (a number, `null`) ends
    /// before the comma or bracket that follows.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_text {
                if std::mem::take(&mut self.escaped) {
                    at += 1;
                    continue;
                }
                match memchr::memchr2(b'"', b'\\', &bytes[at..]) {
                    None => return None,
                    Some(next) => at += next,
                }
                if bytes[at] == b'\\' {
                    self.escaped = true;
                } else {
                    self.in_text = false;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
            } else {
                match bytes[at] {
                    b'"' => (self.in_text, self.begun) = (true, true),
                    b'{' | b'[' => {
                        self.depth += 1;
                        self.begun = true;
                    }
                    b'}' | b']' | b',' if self.depth == 0 => return Some(at),
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
            }
            at += 1;
        }
        None
    }
}

/// One array of objects.
pub(super) struct Array {
    text: TextStream,
    row: u64,
    ended: bool,
    rejects: bool,
    repair: bool,
}

impl Array {
    /// The text begins with white space and a bracket.
    pub(super) fn open(mut text: TextStream, options: &ReadOptions) -> Self {
        let bracket = text.rest().iter().position(|byte| *byte == b'[').map_or(0, |at| at + 1);
        text.consume(bracket);
        Self { text, row: 0, ended: false, rejects: rejects(options), repair: options.repair_mojibake }
    }

    fn expected(&self, what: &str) -> DataError {
        self.text.place().problem(self.text.line(), LineProblem::Json { column: 1, expected: what.into() })
    }

    /// The next byte that is no white space.
    fn peek(&mut self, found: &mut Found) -> Result<Option<u8>, DataError> {
        peek(&mut self.text, found)
    }

    fn close(&mut self, found: &mut Found) -> Result<(), DataError> {
        self.text.consume(1);
        self.ended = true;
        match self.peek(found)? {
            None => Ok(()),
            Some(_) => Err(self.expected("nothing after the list")),
        }
    }
}

/// Passes over white space; the byte behind it.
fn peek(text: &mut TextStream, found: &mut Found) -> Result<Option<u8>, DataError> {
    loop {
        let space = text.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        text.consume(space);
        if let Some(byte) = text.rest().first() {
            return Ok(Some(*byte));
        }
        if !text.more(found)? {
            return Ok(None);
        }
    }
}

impl Walk for Array {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        if self.ended {
            return Ok(None);
        }
        match self.peek(found)? {
            Some(b']') if self.row == 0 => return self.close(found).map(|()| None),
            None => return Err(self.expected("a value or the end of the list")),
            Some(_) => {}
        }
        self.row += 1;
        let (line, limit) = (self.text.line(), self.text.place().limits.row_bytes);
        let (mut extent, mut scanned) = (Extent::default(), 0);
        let length = loop {
            if let Some(end) = extent.end(&self.text.rest()[scanned..]) {
                break scanned + end;
            }
            scanned = self.text.rest().len();
            self.text.place().limit(Some(line), "bytes in a row", scanned, limit)?;
            if !self.text.more(found)? {
                break scanned;
            }
        };
        self.text.place().limit(Some(line), "bytes in a row", length, limit)?;
        let bytes = &self.text.rest()[..length];
        let item = row(self.text.place(), bytes, line, self.row, self.text.legacy(), self.repair, found);
        let item = or_reject(item, self.text.place(), self.row, self.rejects)?;
        self.text.consume(length);
        match self.peek(found)? {
            Some(b',') => self.text.consume(1),
            Some(b']') => self.close(found)?,
            _ => return Err(self.expected("a comma or the end of the list")),
        }
        Ok(item)
    }
}

/// A key, where there is one, and where its value stands.
type Entry = (Option<String>, Range<usize>);

/// One object: its entries are the rows where they are objects, or lists of rows; otherwise it is the only row.
pub(super) struct Object {
    place: Place,
    text: String,
    legacy: Option<&'static str>,
    repair: bool,
    rejects: bool,
    /// Key and place of what is still to come, in reverse.
    rows: Vec<Entry>,
    row: u64,
    line: u64,
    counted: usize,
}

/// Column with the key of a row's entry.
const KEY: &str = "key";

impl Object {
    pub(super) fn open(text: TextStream, options: &ReadOptions, found: &mut Found) -> Result<Self, DataError> {
        let place = text.place().clone();
        let (text, legacy) = text.all(OBJECT_BYTES_MAX.min(place.limits.source_bytes), found)?;
        let mut object = Self {
            rows: Vec::new(),
            legacy,
            repair: options.repair_mojibake,
            rejects: rejects(options),
            row: 0,
            line: 1,
            counted: 0,
            text,
            place,
        };
        let entries = object.parts(0..object.text.len(), b'{')?;
        let first = |range: &Range<usize>| object.text.as_bytes().get(range.start).copied();
        let kinds: Vec<Option<u8>> = entries.iter().map(|(_, range)| first(range)).collect();
        // One conversation or pair in a file of its own is one row.
        let keys: Vec<String> = entries.iter().filter_map(|(key, _)| key.clone()).collect();
        if Shape::of(&keys) != Shape::Columns {
            object.rows = vec![(None, 0..object.text.len())];
        } else if !kinds.is_empty() && kinds.iter().all(|kind| *kind == Some(b'{')) && entries.len() > 1 {
            found.say("rows", "the entries of one object, by key".into());
            object.rows = entries;
        } else if kinds.contains(&Some(b'[')) && object.lists(&entries, &kinds)? {
            found.say("rows", "the lists of one object, by key".into());
            for ((key, _), _) in entries.iter().zip(&kinds).filter(|(_, kind)| **kind != Some(b'[')) {
                found.say("entry that is no list of rows, left out", key.clone().unwrap_or_default());
            }
        } else {
            object.rows = vec![(None, 0..object.text.len())];
        }
        object.rows.reverse();
        Ok(object)
    }

    /// Takes the elements of all lists for rows, if those are objects or lists.
    fn lists(&mut self, entries: &[Entry], kinds: &[Option<u8>]) -> Result<bool, DataError> {
        let mut rows = Vec::new();
        for ((key, range), _) in entries.iter().zip(kinds).filter(|(_, kind)| **kind == Some(b'[')) {
            for (_, element) in self.parts(range.clone(), b'[')? {
                if !matches!(self.text.as_bytes().get(element.start), Some(b'{' | b'[')) {
                    return Ok(false);
                }
                rows.push((key.clone(), element));
            }
        }
        self.rows = rows;
        Ok(!self.rows.is_empty())
    }

    /// Key and place of each entry of an object, or of each element of a list.
    fn parts(&self, range: Range<usize>, open: u8) -> Result<Vec<Entry>, DataError> {
        let bytes = &self.text.as_bytes()[..range.end];
        let space = |at: usize| at + bytes[at.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let wrong = |at: usize, what: &str| {
            let line = 1 + newlines(&bytes[..at.min(bytes.len())]);
            self.place.problem(line, LineProblem::Json { column: 1, expected: what.into() })
        };
        let close = if open == b'{' { b'}' } else { b']' };
        let (mut parts, mut seen) = (Vec::new(), HashSet::new());
        let mut at = space(range.start);
        if bytes.get(at) != Some(&open) {
            return Err(wrong(at, "an object"));
        }
        at = space(at + 1);
        while bytes.get(at) != Some(&close) || !parts.is_empty() {
            let mut key = None;
            if open == b'{' {
                let end = Extent::default().end(&bytes[at.min(bytes.len())..]).map_or(bytes.len(), |end| at + end);
                let name: String = serde_json::from_str(&self.text[at.min(end)..end]).map_err(|_| wrong(at, "a key"))?;
                self.place.limit(None, "bytes in a key", name.len(), self.place.limits.field_bytes)?;
                if !seen.insert(name.clone()) {
                    let line = 1 + newlines(&bytes[..at]);
                    return Err(self.place.problem(line, LineProblem::DuplicateKey { key: name.chars().take(60).collect() }));
                }
                at = space(end);
                if bytes.get(at) != Some(&b':') {
                    return Err(wrong(at, "a colon"));
                }
                at = space(at + 1);
                key = Some(name);
            }
            let end = Extent::default().end(&bytes[at.min(bytes.len())..]).map_or(bytes.len(), |end| at + end);
            if end <= at {
                return Err(wrong(at, "a value"));
            }
            self.place.limit(None, "rows", parts.len() + 1, self.place.limits.rows)?;
            parts.push((key, at..end));
            at = space(end);
            match bytes.get(at) {
                Some(b',') => at = space(at + 1),
                Some(byte) if *byte == close => break,
                _ => return Err(wrong(at, "a comma or the end")),
            }
        }
        at = space(at + 1);
        if range.end == self.text.len() && at < bytes.len() {
            return Err(wrong(at, "nothing after the object"));
        }
        Ok(parts)
    }

    fn item(&mut self, key: Option<String>, range: Range<usize>, found: &mut Found) -> Result<Item, DataError> {
        let text = &self.text[range.clone()];
        self.place.limit(Some(self.line), "bytes in a row", text.len(), self.place.limits.row_bytes)?;
        if text.as_bytes().contains(&0) {
            return Err(self.place.problem(self.line, LineProblem::Nul));
        }
        let mut fields = match value(&self.place, text, self.line)? {
            Value::Object(fields) => fields,
            Value::List(items) => items.into_iter().enumerate().map(|(i, item)| (format!("column_{}", i + 1), item)).collect(),
            other => vec![("value".to_owned(), other)],
        };
        if let Some(key) = key {
            // A row's own column of that name is left alone.
            let mut name = KEY.to_owned();
            while fields.iter().any(|(field, _)| *field == name) {
                name.insert(0, '_');
            }
            fields.insert(0, (name, Value::Text(key)));
        }
        let legacy = self.legacy.filter(|_| !text.is_ascii());
        Ok(document(&self.place, fields, (self.row, self.line), (legacy, self.repair), found))
    }
}

impl Walk for Object {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        let Some((key, range)) = self.rows.pop() else { return Ok(None) };
        self.row += 1;
        self.line += newlines(&self.text.as_bytes()[self.counted..range.start]);
        self.counted = range.start;
        let item = self.item(key, range, found);
        or_reject(item, &self.place, self.row, self.rejects)
    }
}

/// What a `.json` file is: an array, an object per line, or one object.
pub(super) fn open(mut text: TextStream, options: &ReadOptions, found: &mut Found) -> Result<Box<dyn Walk>, DataError> {
    match peek(&mut text, found)? {
        Some(b'[') => Ok(Box::new(Array::open(text, options))),
        Some(b'{') => {
            // A whole object in the first line: one per line, unless nothing follows but its own end.
            loop {
                if let Some(end) = memchr::memchr(b'\n', text.rest()) {
                    let line = &text.rest()[..end];
                    let alone = text.rest()[end..].iter().all(u8::is_ascii_whitespace) && text.is_ended();
                    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
                    let lines = whole && !alone;
                    return Ok(if lines { Box::new(Lines::open(text, options)) } else { Box::new(Object::open(text, options, found)?) });
                }
                if text.rest().len() > text.place().limits.row_bytes || !text.more(found)? {
                    break;
                }
            }
            Ok(Box::new(Object::open(text, options, found)?))
        }
        _ => Ok(Box::new(Lines::open(text, options))),
    }
}

const DUPLICATE_KEY: &str = "duplicate key: ";
const TOO_DEEP: &str = "nested too deep";
const FIELD_TOO_LONG: &str = "field too long: ";

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
            return Err(E::custom(format!("{FIELD_TOO_LONG}{}", value.len())));
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
        let (mut fields, mut seen) = (Vec::<(String, Value)>::new(), HashSet::new());
        while let Some(key) = map.next_key::<String>()? {
            let twice = if fields.len() < FEW_FIELDS {
                fields.iter().any(|(name, _)| *name == key)
            } else {
                if fields.len() == FEW_FIELDS {
                    seen.extend(fields.iter().map(|(name, _)| name.clone()));
                }
                !seen.insert(key.clone())
            };
            if twice {
                return Err(A::Error::custom(format!("{DUPLICATE_KEY}{key}")));
            }
            fields.push((key, map.next_value_seed(inner)?));
        }
        Ok(Value::Object(fields))
    }
}
