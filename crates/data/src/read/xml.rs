//! Records of an XML file, by the path of their element.
//!
//! A record's fields are its attributes (`@name`), its text (`text`, if it has no elements) and what is in it, by the
//! names on the way (`Answer.Source`); what comes more than once is a list. Attributes of the elements around it stand
//! in front, so that rows of one document can be grouped. Declared entities are refused: an expansion can grow without
//! bound or name other files.

use super::place::Place;
use super::text::one_line;
use super::text_stream::TextStream;
use super::walk::{Found, Walk};
use super::{Item, ReadOptions, mojibake};
use crate::{DataError, Value};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

/// Elements within each other.
const DEPTH_MAX: usize = 128;
/// Different paths that are named where none is given.
const PATHS_SHOWN: usize = 12;
/// Events that are looked at for the paths of a file.
const PATH_EVENTS_MAX: usize = 10_000;
/// Bytes in which the XML declaration stands.
const DECLARATION_BYTES: u64 = 256;

/// Text of a stream as bytes that are UTF-8.
pub(super) struct Utf8 {
    text: TextStream,
    found: Found,
    problem: Option<DataError>,
}

impl Utf8 {
    pub(super) fn new(text: TextStream) -> Self {
        Self { text, found: Found::default(), problem: None }
    }
}

impl Read for Utf8 {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.fill_buf()?;
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Utf8 {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.text.rest().is_empty()
            && let Err(error) = self.text.more(&mut self.found)
        {
            let message = error.to_string();
            self.problem = Some(error);
            return Err(std::io::Error::other(message));
        }
        Ok(self.text.rest())
    }

    fn consume(&mut self, bytes: usize) {
        self.text.consume(bytes);
    }
}

/// The encoding that an XML declaration names.
pub(super) fn declared_encoding(head: &[u8]) -> Option<String> {
    let head = &head[..head.len().min(DECLARATION_BYTES as usize)];
    let declaration = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).strip_prefix(b"<?xml")?;
    let declaration = declaration.split(|byte| *byte == b'>').next()?;
    let text = String::from_utf8_lossy(declaration);
    let value = text.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let label = value[1..].split(quote).next()?.to_owned();
    (!label.eq_ignore_ascii_case("utf-8") && !label.to_ascii_lowercase().starts_with("utf-16")).then_some(label)
}

#[derive(Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
}

/// What has been collected of a record.
#[derive(Default)]
struct Record {
    fields: Vec<(String, Value)>,
    bytes: usize,
    /// Text directly in each open element, the record's own first; whether it has elements.
    texts: Vec<(String, bool)>,
}

impl Record {
    fn add(&mut self, name: String, text: String) {
        self.bytes += name.len() + text.len();
        match self.fields.iter_mut().find(|(field, _)| *field == name) {
            None => self.fields.push((name, Value::Text(text))),
            Some((_, Value::List(list))) => list.push(Value::Text(text)),
            Some((_, value)) => *value = Value::List(vec![std::mem::replace(value, Value::Null), Value::Text(text)]),
        }
    }
}

/// Records in the order of the file.
pub(super) struct Xml {
    reader: Reader<BufReader<Utf8>>,
    place: Place,
    path: Vec<String>,
    open: Vec<Element>,
    record: Option<Record>,
    buffer: Vec<u8>,
    row: u64,
    paths: BTreeSet<String>,
    events: usize,
    repair: bool,
}

impl Xml {
    pub(super) fn open(text: TextStream, options: &ReadOptions) -> Self {
        let place = text.place().clone();
        let path = options.xml_record.as_deref().unwrap_or_default();
        let mut reader = Reader::from_reader(BufReader::new(Utf8::new(text)));
        reader.config_mut().expand_empty_elements = true;
        Self {
            reader,
            place,
            path: path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            open: Vec::new(),
            record: None,
            buffer: Vec::new(),
            row: 0,
            paths: BTreeSet::new(),
            events: 0,
            repair: options.repair_mojibake,
        }
    }

    fn line(&self) -> u64 {
        self.reader.get_ref().get_ref().text.line()
    }

    fn broken(&mut self, problem: impl Into<String>) -> DataError {
        let inner = self.reader.get_mut().get_mut().problem.take();
        inner.unwrap_or_else(|| self.place.broken("XML", format!("near line {}: {}", self.line(), problem.into())))
    }

    /// Whether the open elements are the path of a record: all of it, or its end where it does not begin at the root.
    fn at_record(&self) -> bool {
        let names = self.open.iter().map(|element| element.name.as_str());
        !self.path.is_empty() && self.open.len() >= self.path.len() && names.rev().zip(self.path.iter().rev()).all(|(a, b)| a == b)
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), DataError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(self.place.too_large(Some(self.line()), "elements within each other", self.open.len() as u64 + 1, DEPTH_MAX));
        }
        let mut element = Element { name: start.local_name().as_ref().to_owned(), attributes: Vec::new() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| self.broken(error.to_string()))?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| self.broken(error.to_string()))?;
            element.attributes.push((attribute.key.local_name().as_ref().to_owned(), value.into_owned()));
        }
        if self.path.is_empty() && self.paths.len() < PATHS_SHOWN {
            let path: Vec<&str> = self.open.iter().map(|element| element.name.as_str()).chain([element.name.as_str()]).collect();
            self.paths.insert(path.join("/"));
        }
        self.open.push(element);
        if self.record.is_some() {
            let prefix = self.inner_name();
            let depth = self.open.len();
            let element = &self.open[depth - 1];
            let attributes = element.attributes.clone();
            if let Some(record) = &mut self.record {
                if let Some((_, has_elements)) = record.texts.last_mut() {
                    *has_elements = true;
                }
                record.texts.push((String::new(), false));
                for (name, value) in attributes {
                    record.add(format!("{prefix}.@{name}"), value);
                }
            }
        } else if self.at_record() {
            let mut record = Record { texts: vec![(String::new(), false)], ..Record::default() };
            let last = self.open.len() - 1;
            for (i, element) in self.open.iter().enumerate() {
                for (name, value) in &element.attributes {
                    let name = if i == last { format!("@{name}") } else { format!("{}.@{name}", element.name) };
                    record.add(name, value.clone());
                }
            }
            self.record = Some(record);
        }
        Ok(())
    }

    /// The name of the innermost element within the record.
    fn inner_name(&self) -> String {
        let depth = self.record.as_ref().map_or(0, |record| record.texts.len());
        let from = self.open.len().saturating_sub(depth);
        self.open[from..].iter().map(|element| element.name.as_str()).collect::<Vec<_>>().join(".")
    }

    fn text(&mut self, text: &str) -> Result<(), DataError> {
        let (line, limit) = (self.line(), self.place.limits.row_bytes);
        if let Some(record) = &mut self.record
            && let Some((whole, _)) = record.texts.last_mut()
        {
            record.bytes += text.len();
            if record.bytes > limit {
                return Err(self.place.too_large(Some(line), "bytes in a row", record.bytes as u64, limit));
            }
            whole.push_str(text);
        }
        Ok(())
    }

    /// Ends the innermost element; the record, if that was it.
    fn end(&mut self, found: &mut Found) -> Option<Item> {
        let mut ended = None;
        if let Some(mut record) = self.record.take() {
            let own = record.texts.len() == 1;
            let (text, has_elements) = record.texts.pop().unwrap_or_default();
            let text = tidy(&text);
            if own {
                if !has_elements || !text.is_empty() {
                    record.add("text".into(), text);
                }
                ended = Some(record);
            } else {
                let depth = record.texts.len();
                let from = self.open.len() - depth;
                let name = self.open[from..].iter().map(|element| element.name.as_str()).collect::<Vec<_>>().join(".");
                if !has_elements || !text.is_empty() {
                    record.add(name, text);
                }
                self.record = Some(record);
            }
        }
        self.open.pop();
        let mut fields = ended?.fields;
        self.row += 1;
        let repaired = if self.repair { mojibake::repair_fields(&mut fields) } else { 0 };
        let mut document = self.place.document(fields, self.row, self.line());
        let legacy = self.reader.get_ref().get_ref().text.legacy();
        mojibake::note(&mut document, repaired, legacy, found);
        Some(Item::Document(document))
    }

    fn event(&mut self, found: &mut Found) -> Result<Option<Option<Item>>, DataError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let event = match self.reader.read_event_into(&mut buffer) {
            Ok(event) => event.into_owned(),
            Err(error) => return Err(self.broken(error.to_string())),
        };
        self.buffer = buffer;
        match event {
            Event::Start(start) => self.start(&start)?,
            Event::End(_) => return Ok(Some(self.end(found))),
            Event::Text(text) => self.text(&text.xml10_content())?,
            Event::CData(text) => self.text(&text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let name = reference.clone().into_inner().into_owned();
                let text = match reference.resolve_char_ref() {
                    Ok(Some(c)) => c.to_string(),
                    Ok(None) => match quick_xml::escape::resolve_predefined_entity(&name) {
                        Some(text) => text.to_owned(),
                        None => return Err(self.broken("a reference to a declared entity, which is never expanded")),
                    },
                    Err(error) => return Err(self.broken(error.to_string())),
                };
                self.text(&text)?;
            }
            Event::DocType(declaration) => {
                let text = declaration.into_inner();
                if text.contains('[') || text.contains("<!ENTITY") {
                    return Err(self.broken("it declares its own entities, which are never expanded"));
                }
            }
            Event::Eof => return self.eof().map(|()| None),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
        Ok(Some(None))
    }

    fn eof(&mut self) -> Result<(), DataError> {
        if !self.open.is_empty() {
            return Err(self.broken("it ends within an element"));
        }
        let inner = &mut self.reader.get_mut().get_mut();
        if let Some(problem) = inner.problem.take() {
            return Err(problem);
        }
        if self.path.is_empty() {
            let paths = std::mem::take(&mut self.paths).into_iter().collect::<Vec<_>>().join(", ");
            return Err(DataError::XmlRecordNeeded { origin: self.place.name(), paths });
        }
        Ok(())
    }
}

/// White space around lines taken away, paragraphs kept.
fn tidy(text: &str) -> String {
    let lines: Vec<String> = text.trim().lines().map(one_line).collect();
    lines.join("\n")
}

impl Walk for Xml {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        loop {
            self.events += 1;
            if self.path.is_empty() && self.events > PATH_EVENTS_MAX {
                let paths = std::mem::take(&mut self.paths).into_iter().collect::<Vec<_>>().join(", ");
                return Err(DataError::XmlRecordNeeded { origin: self.place.name(), paths });
            }
            match self.event(found)? {
                None => {
                    for (what, value) in std::mem::take(&mut self.reader.get_mut().get_mut().found.facts) {
                        found.say(what, value);
                    }
                    return Ok(None);
                }
                Some(Some(item)) => return Ok(Some(item)),
                Some(None) => {}
            }
        }
    }
}
