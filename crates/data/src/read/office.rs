//! Office Open XML: DOCX as Markdown, XLSX as tables.
//!
//! Both are ZIP archives; before anything is parsed, all of an archive is unpacked once to nothing, so that lengths that
//! lie and bombs are found.

use super::container::{Budget, Bytes, LimitHit};
use super::place::Place;
use super::text::{self, Markdown, one_line};
use super::walk::{Found, Walk};
use super::{Input, Item, ReadOptions, guarded, mojibake};
use crate::{DataError, Value};
use calamine::{DataRef, Reader as _, SheetType, SheetVisible, Xlsx};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufReader, Read, Seek};
use std::sync::Arc;

/// Bytes of a DOCX or XLSX, unpacked: its parser needs a part of it in memory.
const UNPACKED_MAX: u64 = 1 << 30;
/// Bytes of one XML part of a DOCX.
const PART_BYTES_MAX: u64 = 256 << 20;
/// Members of the archive.
const PARTS_MAX: usize = 100_000;
/// Elements within each other.
const DEPTH_MAX: usize = 256;
/// Tables within tables; deeper ones are flattened into their cell.
const TABLES_MAX: usize = 16;
/// Cells of a sheet.
const CELLS_MAX: usize = 50_000_000;

/// Opens the archive after unpacking all of it to nothing.
fn checked(
    mut input: Box<dyn Input>,
    kind: &'static str,
    place: &Place,
    budget: &Arc<Budget>,
) -> Result<zip::ZipArchive<Box<dyn Input>>, DataError> {
    input.rewind().map_err(|error| place.io(&error))?;
    let mut archive = guarded(place, kind, || zip::ZipArchive::new(input).map_err(|error| error.to_string()))?;
    place.limit(None, "members", archive.len(), PARTS_MAX)?;
    let mut total = 0u64;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(|error| place.broken(kind, error.to_string()))?;
        let mut buffer = [0; 64 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(|error| place.broken(kind, error.to_string()))? as u64;
            if read == 0 {
                break;
            }
            total += read;
            if total > UNPACKED_MAX {
                return Err(place.too_large(None, "bytes unpacked", total, UNPACKED_MAX as usize));
            }
            budget.spend(read).map_err(|error| place.io(&error))?;
        }
    }
    Ok(archive)
}

fn part<R: Read + Seek>(archive: &mut zip::ZipArchive<R>, name: &str, place: &Place) -> Result<Option<String>, DataError> {
    let Ok(file) = archive.by_name(name) else { return Ok(None) };
    let mut text = String::new();
    let read =
        file.take(PART_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| place.broken("a DOCX document", error.to_string()))?;
    place.limit(None, "bytes in a part", read, PART_BYTES_MAX as usize)?;
    Ok(Some(text))
}

/// What a paragraph style or a list says.
#[derive(Clone, Debug, Default)]
struct Style {
    heading: Option<usize>,
    list: bool,
    based_on: Option<String>,
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    start
        .attributes()
        .flatten()
        .find(|attribute| attribute.key.local_name().as_ref() == name)
        .and_then(|attribute| attribute.normalized_value(XmlVersion::Implicit1_0).ok())
        .map(|value| value.into_owned())
}

fn heading_of_name(name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    if name == "title" {
        return Some(1);
    }
    name.strip_prefix("heading ").and_then(|level| level.parse().ok()).filter(|level| (1..=9).contains(level))
}

/// Headings and lists by style id.
fn styles(xml: &str) -> HashMap<String, Style> {
    let mut styles: HashMap<String, Style> = HashMap::new();
    let mut reader = Reader::from_str(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut current: Option<(String, Style)> = None;
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(start) => match (start.local_name().as_ref(), &mut current) {
                ("style", _) => current = attribute(&start, "styleId").map(|id| (id, Style::default())),
                ("name", Some((_, style))) => {
                    style.heading = style.heading.or(attribute(&start, "val").and_then(|name| heading_of_name(&name)));
                }
                ("outlineLvl", Some((_, style))) => {
                    let level = attribute(&start, "val").and_then(|level| level.parse::<usize>().ok()).filter(|level| *level < 9);
                    style.heading = style.heading.or(level.map(|level| level + 1));
                }
                ("basedOn", Some((_, style))) => style.based_on = attribute(&start, "val"),
                ("numPr", Some((_, style))) => style.list = true,
                _ => {}
            },
            Event::End(end) if end.local_name().as_ref() == "style" => styles.extend(current.take()),
            Event::Eof => break,
            _ => {}
        }
    }
    styles
}

/// What a style or one that it is based on says.
fn resolved(styles: &HashMap<String, Style>, id: &str) -> Style {
    let mut id = Some(id.to_owned());
    let mut whole = Style::default();
    for _ in 0..16 {
        let Some(style) = id.as_ref().and_then(|id| styles.get(id)) else { break };
        whole.heading = whole.heading.or(style.heading);
        whole.list |= style.list;
        id = style.based_on.clone();
    }
    whole
}

/// Whether a level of a list is numbered.
type Numbering = HashMap<(String, usize), bool>;

/// Whether each level of each list is numbered.
fn numbering(xml: &str) -> Numbering {
    let mut abstracts = Numbering::new();
    let mut lists: Vec<(String, String)> = Vec::new();
    let mut reader = Reader::from_str(xml);
    reader.config_mut().expand_empty_elements = true;
    let (mut abstract_id, mut number_id, mut level) = (String::new(), None, 0);
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(start) => match start.local_name().as_ref() {
                "abstractNum" => abstract_id = attribute(&start, "abstractNumId").unwrap_or_default(),
                "lvl" => level = attribute(&start, "ilvl").and_then(|level| level.parse().ok()).unwrap_or(0),
                "numFmt" => {
                    let format = attribute(&start, "val").unwrap_or_default();
                    abstracts.insert((abstract_id.clone(), level), !matches!(format.as_str(), "bullet" | "none"));
                }
                "num" => number_id = attribute(&start, "numId"),
                "abstractNumId" => {
                    if let (Some(number), Some(id)) = (&number_id, attribute(&start, "val")) {
                        lists.push((number.clone(), id));
                    }
                }
                _ => {}
            },
            Event::Eof => break,
            _ => {}
        }
    }
    let mut numbered = Numbering::new();
    for (number, id) in lists {
        for ((abstract_id, level), is_numbered) in &abstracts {
            if *abstract_id == id {
                numbered.insert((number.clone(), *level), *is_numbered);
            }
        }
    }
    numbered
}

#[derive(Default)]
struct Paragraph {
    text: String,
    style: String,
    heading: Option<usize>,
    list: Option<(String, usize)>,
}

/// The walk over a DOCX's main part.
struct Body<'a> {
    styles: &'a HashMap<String, Style>,
    numbered: &'a Numbering,
    markdown: Markdown,
    title: String,
    paragraphs: Vec<Paragraph>,
    /// Rows of each open table.
    tables: Vec<Vec<Vec<String>>>,
    counters: BTreeMap<(String, usize), u64>,
    /// Depth of an element whose text is not the document's.
    skipped: usize,
    in_text: bool,
}

impl Body<'_> {
    fn start(&mut self, start: &BytesStart<'_>) {
        let name = start.local_name();
        let name = name.as_ref();
        if self.skipped > 0 || matches!(name, "Fallback" | "del" | "moveFrom" | "instrText" | "delText") {
            self.skipped += 1;
            return;
        }
        let value = || attribute(start, "val");
        let paragraph = self.paragraphs.last_mut();
        match (name, paragraph) {
            ("p", _) => self.paragraphs.push(Paragraph::default()),
            ("pStyle", Some(paragraph)) => paragraph.style = value().unwrap_or_default(),
            ("outlineLvl", Some(paragraph)) => {
                paragraph.heading = value().and_then(|level| level.parse::<usize>().ok()).filter(|level| *level < 9).map(|level| level + 1);
            }
            ("ilvl", Some(paragraph)) => {
                let level = value().and_then(|level| level.parse().ok()).unwrap_or(0);
                paragraph.list.get_or_insert_default().1 = level;
            }
            ("numId", Some(paragraph)) => paragraph.list.get_or_insert_default().0 = value().unwrap_or_default(),
            ("t", Some(_)) => self.in_text = true,
            ("tab", Some(paragraph)) => paragraph.text.push('\t'),
            ("br" | "cr", Some(paragraph)) => paragraph.text.push('\n'),
            ("noBreakHyphen", Some(paragraph)) => paragraph.text.push('-'),
            ("tbl", _) => self.tables.push(Vec::new()),
            ("tr", _) => {
                if let Some(table) = self.tables.last_mut() {
                    table.push(Vec::new());
                }
            }
            ("tc", _) => {
                if let Some(row) = self.tables.last_mut().and_then(|table| table.last_mut()) {
                    row.push(String::new());
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        match name {
            "t" => self.in_text = false,
            "p" => {
                if let Some(paragraph) = self.paragraphs.pop() {
                    self.paragraph(paragraph);
                }
            }
            "tbl" => {
                let Some(rows) = self.tables.pop() else { return };
                match self.cell() {
                    // A table in a cell: its rows as lines of that cell.
                    Some(cell) => {
                        let lines: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
                        cell.push_str(&lines.join(" "));
                    }
                    None => self.markdown.table(&rows),
                }
            }
            _ => {}
        }
    }

    fn cell(&mut self) -> Option<&mut String> {
        self.tables.last_mut()?.last_mut()?.last_mut()
    }

    fn paragraph(&mut self, paragraph: Paragraph) {
        let text = paragraph.text.trim().to_owned();
        if text.is_empty() {
            return;
        }
        if let Some(outer) = self.paragraphs.last_mut() {
            // A text box within a paragraph.
            outer.text.push_str(&format!(" {text} "));
            return;
        }
        if let Some(cell) = self.cell() {
            if !cell.is_empty() {
                cell.push(' ');
            }
            cell.push_str(&one_line(&text));
            return;
        }
        let style = resolved(self.styles, &paragraph.style);
        let heading = paragraph.heading.or(style.heading).or_else(|| heading_of_name(&paragraph.style.replace("Heading", "heading ")));
        if let Some(level) = heading {
            if self.title.is_empty() {
                self.title = one_line(&text);
            }
            self.markdown.heading(level, &text);
            return;
        }
        // Number 0 takes a paragraph out of its style's list.
        let listed = paragraph.list.as_ref().map_or(style.list, |(number, _)| number != "0");
        if !listed {
            self.markdown.paragraph(&text);
            return;
        }
        let (number, level) = paragraph.list.unwrap_or_default();
        let numbered = self.numbered.get(&(number.clone(), level)).copied().unwrap_or(false);
        self.counters.retain(|(list, depth), _| *list != number || *depth <= level);
        let count = self.counters.entry((number, level)).or_insert(0);
        *count += 1;
        let count = numbered.then_some(*count);
        self.markdown.item(level, count, &text);
    }
}

/// The document of a DOCX; nothing where it has no text.
pub(super) fn docx(
    bytes: Bytes,
    place: &Place,
    options: &ReadOptions,
    budget: &Arc<Budget>,
    found: &mut Found,
) -> Result<Option<Item>, DataError> {
    const KIND: &str = "a DOCX document";
    let mut archive = checked(bytes.into_input(place)?, KIND, place, budget)?;
    let main = part(&mut archive, "word/document.xml", place)?.ok_or_else(|| place.broken(KIND, "it has no word/document.xml"))?;
    let styles = styles(&part(&mut archive, "word/styles.xml", place)?.unwrap_or_default());
    let numbered = numbering(&part(&mut archive, "word/numbering.xml", place)?.unwrap_or_default());
    let notes = part(&mut archive, "word/footnotes.xml", place)?;
    let mut body = Body {
        styles: &styles,
        numbered: &numbered,
        markdown: Markdown::default(),
        title: String::new(),
        paragraphs: Vec::new(),
        tables: Vec::new(),
        counters: BTreeMap::new(),
        skipped: 0,
        in_text: false,
    };
    for xml in [Some(main), notes].into_iter().flatten() {
        walk(&xml, &mut body).map_err(|problem| place.broken(KIND, problem))?;
    }
    let (title, text) = (body.title, body.markdown.into_text());
    if text.trim().is_empty() {
        return Ok(None);
    }
    let fields = vec![("title".into(), Value::Text(title)), ("text".into(), Value::Text(text))];
    Ok(Some(text::document(place, fields, None, true, options, found)))
}

fn walk(xml: &str, body: &mut Body<'_>) -> Result<(), String> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut depth = 0usize;
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                depth += 1;
                if depth > DEPTH_MAX || body.tables.len() > TABLES_MAX {
                    return Err(format!("more than {DEPTH_MAX} elements or {TABLES_MAX} tables within each other"));
                }
                body.start(&start);
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                body.end(end.local_name().as_ref());
            }
            Event::Text(text) if body.in_text && body.skipped == 0 => {
                if let Some(paragraph) = body.paragraphs.last_mut() {
                    paragraph.text.push_str(&text.xml10_content());
                }
            }
            Event::GeneralRef(reference) if body.in_text && body.skipped == 0 => {
                let c = reference.resolve_char_ref().map_err(|error| error.to_string())?.map(String::from);
                let name = reference.into_inner();
                let text = c.or_else(|| quick_xml::escape::resolve_predefined_entity(&name).map(str::to_owned));
                if let Some(paragraph) = body.paragraphs.last_mut() {
                    paragraph.text.push_str(&text.ok_or("a reference to a declared entity, which is never expanded")?);
                }
            }
            Event::DocType(_) => return Err("it declares a document type, which such files never have".into()),
            Event::Eof if depth > 0 => return Err("it ends within an element".into()),
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

/// The rows of the sheets of an XLSX.
pub(super) struct Sheets {
    book: Xlsx<BufReader<Box<dyn Input>>>,
    place: Place,
    sheets: VecDeque<String>,
    current: Option<Sheet>,
    repair: bool,
}

struct Sheet {
    place: Place,
    names: Vec<(u32, String)>,
    rows: VecDeque<(u32, Vec<(u32, Value)>)>,
    row: u64,
}

impl Sheets {
    pub(super) fn open(bytes: Bytes, place: Place, options: &ReadOptions, budget: &Arc<Budget>) -> Result<Self, DataError> {
        const KIND: &str = "an XLSX workbook";
        let archive = checked(bytes.into_input(&place)?, KIND, &place, budget)?;
        let mut input = archive.into_inner();
        input.rewind().map_err(|error| place.io(&error))?;
        let book: Xlsx<_> = guarded(&place, KIND, || Xlsx::new(BufReader::new(input)).map_err(|error| error.to_string()))?;
        let sheets = book.sheets_metadata().iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
        let all: Vec<&calamine::Sheet> = sheets.collect();
        let wanted: VecDeque<String> = match &options.sheet {
            Some(name) => all.iter().filter(|sheet| sheet.name == *name).map(|sheet| sheet.name.clone()).collect(),
            None => all.iter().filter(|sheet| sheet.visible == SheetVisible::Visible).map(|sheet| sheet.name.clone()).collect(),
        };
        if wanted.is_empty() {
            let names = all.iter().map(|sheet| sheet.name.as_str()).collect::<Vec<_>>().join(", ");
            let sheet = options.sheet.clone().unwrap_or_default();
            return Err(DataError::NoSheet { origin: place.name(), sheet, sheets: names });
        }
        Ok(Self { book, place, sheets: wanted, current: None, repair: options.repair_mojibake })
    }

    fn sheet(&mut self, name: &str) -> Result<Sheet, DataError> {
        const KIND: &str = "an XLSX workbook";
        let place = self.place.within(name);
        let (book, limits) = (&mut self.book, place.limits);
        let rows = guarded(&place, KIND, || {
            let mut rows: BTreeMap<u32, BTreeMap<u32, Value>> = BTreeMap::new();
            let mut reader = book.worksheet_cells_reader(name).map_err(|error| error.to_string())?;
            let mut cells = 0;
            while let Some(cell) = reader.next_cell().map_err(|error| error.to_string())? {
                let value = match cell.get_value() {
                    DataRef::Empty => continue,
                    DataRef::Int(number) => Value::Number(number.to_string()),
                    DataRef::Float(number) => number_value(*number),
                    DataRef::String(text) => Value::Text(text.clone()),
                    DataRef::SharedString(text) => Value::Text((*text).to_owned()),
                    DataRef::Bool(value) => Value::Bool(*value),
                    DataRef::DateTime(date) if date.is_datetime() => Value::Text(date_text(date.to_ymd_hms_milli())),
                    DataRef::DateTime(duration) => number_value(duration.as_f64()),
                    DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => Value::Text(text.clone()),
                    DataRef::Error(error) => Value::Text(format!("{error}")),
                };
                cells += 1;
                if cells > CELLS_MAX {
                    return Err(LimitHit { what: "cells in a sheet", given: cells as u64, limit: CELLS_MAX as u64 }.to_string());
                }
                let (row, column) = cell.get_position();
                rows.entry(row).or_default().insert(column, value);
            }
            Ok(rows)
        })?;
        let mut rows = rows.into_iter();
        let mut names: Vec<(u32, String)> = Vec::new();
        if let Some((_, header)) = rows.next() {
            place.limit(Some(1), "columns", header.len(), limits.columns)?;
            for (column, value) in header {
                let name = one_line(&value.to_text());
                if names.iter().any(|(_, known)| *known == name) {
                    let problem = crate::error::LineProblem::Header { problem: format!("the column {name:?} twice") };
                    return Err(place.problem(1, problem));
                }
                if !name.is_empty() {
                    names.push((column, name));
                }
            }
        }
        let rows = rows.map(|(row, cells)| (row, cells.into_iter().collect())).collect();
        Ok(Sheet { place, names, rows, row: 0 })
    }
}

fn number_value(number: f64) -> Value {
    if !number.is_finite() {
        return Value::Null;
    }
    // Spreadsheets have no integers; whole numbers are meant as such.
    let text = if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number:.0}") } else { number.to_string() };
    Value::Number(text)
}

fn date_text((year, month, day, hour, minute, second, _): (u16, u8, u8, u8, u8, u8, u16)) -> String {
    let date = format!("{year:04}-{month:02}-{day:02}");
    if (hour, minute, second) == (0, 0, 0) { date } else { format!("{date}T{hour:02}:{minute:02}:{second:02}") }
}

impl Walk for Sheets {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        loop {
            let Some(sheet) = &mut self.current else {
                let Some(name) = self.sheets.pop_front() else { return Ok(None) };
                found.say("sheet", name.clone());
                self.current = Some(self.sheet(&name)?);
                continue;
            };
            let Some((line, cells)) = sheet.rows.pop_front() else {
                self.current = None;
                continue;
            };
            sheet.row += 1;
            let line = u64::from(line) + 1;
            let mut cells: BTreeMap<u32, Value> = cells.into_iter().collect();
            let mut fields: Vec<(String, Value)> =
                sheet.names.iter().map(|(column, name)| (name.clone(), cells.remove(column).unwrap_or(Value::Null))).collect();
            if !cells.is_empty() {
                let problem = crate::error::LineProblem::Ragged { given: sheet.names.len() + cells.len(), expected: sheet.names.len() };
                let problem = sheet.place.problem(line, problem).to_string();
                return Ok(Some(Item::Rejected(sheet.place.rejected(sheet.row, problem))));
            }
            let repaired = if self.repair { mojibake::repair_fields(&mut fields) } else { 0 };
            let mut document = sheet.place.document(fields, sheet.row, line);
            mojibake::note(&mut document, repaired, None, found);
            return Ok(Some(Item::Document(document)));
        }
    }
}
