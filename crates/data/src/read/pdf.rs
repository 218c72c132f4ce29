//! The text of PDF files, as Markdown: lines, paragraphs, list items, and headings by the size of their letters.
//!
//! `pdf-extract` says where which character stands; the layout is ours. Lines that come back on most pages (running heads,
//! page numbers) are left out and counted. A file without text is a scan, which has to go through OCR first.

use super::container::{Budget, Bytes};
use super::place::Place;
use super::text::{self, Markdown, one_line};
use super::walk::Found;
use super::{DOCUMENT_BYTES_MAX, Item, ReadOptions, guarded};
use crate::{DataError, Value};
use flate2::bufread::ZlibDecoder;
use pdf_extract::{Document, MediaBox, Object, OutputDev, OutputError, Transform};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

/// Name of the attribute with a document's number of pages.
pub const PAGES: &str = "pages";
const KIND: &str = "a PDF";
/// Bytes of a file.
const FILE_BYTES_MAX: usize = 512 << 20;
/// Pages of a document.
const PAGES_MAX: usize = 20_000;
/// Stack of the thread that parses: forms can stand in forms.
const STACK_BYTES: usize = 256 << 20;
/// Pages from which lines that come back are looked for.
const REPEATED_PAGES_MIN: usize = 3;
/// Share of the pages on which a line comes back that is no text of theirs.
const REPEATED_SHARE: f64 = 0.6;
/// Lines at the top and the bottom of a page that may be such.
const EDGE_LINES: usize = 2;
/// Words of a line that may differ from page to page by its number.
const NUMBERED_WORDS_MAX: usize = 6;
/// Size of letters, as a multiple of the body's, from which a line is a heading.
const HEADING_SIZE: f64 = 1.15;
/// Characters of a heading.
const HEADING_CHARS_MAX: usize = 200;
/// Space between lines, as a multiple of the letters' size, from which a paragraph ends.
const PARAGRAPH_LEADING: f64 = 1.75;
/// Signs that begin an item of a list. The last ones are those of symbol fonts.
const BULLETS: &[char] = &['•', '▪', '◦', '‣', '●', '○', '■', '–', '\u{F0B7}', '\u{F0A7}', '\u{2043}'];

#[derive(Clone, Debug, Default)]
struct Line {
    text: String,
    y: f64,
    end: f64,
    size: f64,
}

/// Lines of each page, from where characters stand.
#[derive(Default)]
struct Layout {
    pages: Vec<Vec<Line>>,
    height: f64,
    bytes: usize,
}

impl OutputDev for Layout {
    fn begin_page(&mut self, _: u32, page: &MediaBox, _: Option<(f64, f64, f64, f64)>) -> Result<(), OutputError> {
        self.height = page.ury;
        self.pages.push(Vec::new());
        Ok(())
    }

    fn end_page(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn output_character(&mut self, at: &Transform, width: f64, _: f64, font_size: f64, c: &str) -> Result<(), OutputError> {
        let (x, y) = (at.m31, self.height - at.m32);
        // The side of a square with the area of a letter's box: turned text has its size too.
        let size = (font_size * font_size * (at.m11 * at.m22 - at.m12 * at.m21).abs()).sqrt();
        if !(x.is_finite() && y.is_finite() && size.is_finite() && size > 0.0) {
            return Ok(());
        }
        self.bytes += c.len();
        if self.bytes > DOCUMENT_BYTES_MAX {
            return Err(OutputError::IoError(std::io::Error::other("too much text")));
        }
        let Some(page) = self.pages.last_mut() else { return Ok(()) };
        let end = x + width * size;
        let same = page.last().is_some_and(|line| (y - line.y).abs() < 0.4 * size.max(line.size) && x > line.end - 2.0 * size);
        if !same {
            page.push(Line { text: String::new(), y, end: x, size });
        }
        let Some(line) = page.last_mut() else { return Ok(()) };
        let gap = x - line.end;
        if gap > 0.15 * size && !line.text.is_empty() && !line.text.ends_with(' ') && c != " " {
            line.text.push(' ');
        }
        line.text.push_str(c);
        line.end = end;
        line.size = line.size.max(size);
        Ok(())
    }

    fn begin_word(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_word(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

/// A line by which it comes back: a short one with its digits all alike, so that page numbers match.
fn pattern(line: &Line) -> String {
    let text = one_line(&line.text);
    if text.split(' ').count() > NUMBERED_WORDS_MAX {
        return text;
    }
    text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

/// The size of letters, in steps, that most of the text has.
fn body_size<'a>(lines: impl Iterator<Item = &'a Line>) -> u64 {
    let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
    for line in lines {
        *sizes.entry(step(line.size)).or_insert(0) += line.text.len();
    }
    sizes.iter().max_by_key(|(size, chars)| (**chars, **size)).map_or(0, |(size, _)| *size)
}

fn is_heading(line: &Line, body: u64) -> bool {
    step(line.size) as f64 >= body as f64 * HEADING_SIZE && line.text.chars().count() <= HEADING_CHARS_MAX
}

/// Takes away the lines at the edges of pages that come back on most of them; how many.
fn drop_repeated(pages: &mut [Vec<Line>]) -> u64 {
    if pages.len() < REPEATED_PAGES_MIN {
        return 0;
    }
    let body = body_size(pages.iter().flatten());
    let edge = |page: &[Line], i: usize| (i < EDGE_LINES || i + EDGE_LINES >= page.len()) && !is_heading(&page[i], body);
    let mut times: HashMap<String, usize> = HashMap::new();
    for page in pages.iter() {
        let patterns: HashSet<String> = (0..page.len()).filter(|i| edge(page, *i)).map(|i| pattern(&page[i])).collect();
        for pattern in patterns {
            *times.entry(pattern).or_insert(0) += 1;
        }
    }
    let least = (pages.len() as f64 * REPEATED_SHARE).ceil() as usize;
    let mut dropped = 0;
    for page in pages.iter_mut() {
        let kept: Vec<bool> =
            (0..page.len()).map(|i| !edge(page, i) || times.get(&pattern(&page[i])).is_none_or(|times| *times < least)).collect();
        let mut keep = kept.iter();
        let before = page.len();
        page.retain(|_| keep.next().copied().unwrap_or(true));
        dropped += (before - page.len()) as u64;
    }
    dropped
}

/// Letters' sizes in steps of half a point.
fn step(size: f64) -> u64 {
    (size * 2.0).round().clamp(0.0, 1e6) as u64
}

enum Kind {
    Heading(u64),
    Item,
    Paragraph,
}

/// The lines as Markdown, and the first heading.
fn markdown(pages: &[Vec<Line>]) -> (String, String) {
    let lines: Vec<&Line> = pages.iter().flatten().filter(|line| !line.text.trim().is_empty()).collect();
    let body = body_size(lines.iter().copied());
    let is_heading = |line: &Line| is_heading(line, body);
    let levels: Vec<u64> = {
        let set: HashSet<u64> = lines.iter().filter(|line| is_heading(line)).map(|line| step(line.size)).collect();
        let mut levels: Vec<u64> = set.into_iter().collect();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels
    };
    let kind = |line: &Line| {
        let text = line.text.trim_start();
        if is_heading(line) {
            Kind::Heading(step(line.size))
        } else if text.starts_with(BULLETS) && text.chars().nth(1).is_none_or(char::is_whitespace) {
            Kind::Item
        } else {
            Kind::Paragraph
        }
    };
    let (mut markdown, mut title, mut i) = (Markdown::default(), String::new(), 0);
    while i < lines.len() {
        let (kind_here, mut text, mut last) = (kind(lines[i]), lines[i].text.trim().to_owned(), lines[i]);
        i += 1;
        // What follows closely belongs to it, also across pages where a sentence goes on.
        while let Some(next) = lines.get(i) {
            let down = next.y - last.y;
            let near = down >= 0.0 && down <= PARAGRAPH_LEADING * next.size.max(last.size);
            let goes_on = down < 0.0 && next.text.trim_start().starts_with(char::is_lowercase);
            let same = match (&kind_here, kind(next)) {
                (Kind::Heading(a), Kind::Heading(b)) => *a == b && near,
                (Kind::Item | Kind::Paragraph, Kind::Paragraph) => near || goes_on,
                _ => false,
            };
            if !same {
                break;
            }
            join(&mut text, next.text.trim());
            last = next;
            i += 1;
        }
        match kind_here {
            Kind::Heading(size) => {
                let text = one_line(&text);
                if title.is_empty() {
                    title.clone_from(&text);
                }
                markdown.heading(levels.iter().position(|level| *level == size).unwrap_or(0) + 1, &text);
            }
            Kind::Item => markdown.item(0, None, text.trim_start_matches(BULLETS).trim_start()),
            Kind::Paragraph => markdown.paragraph(&one_line(&text)),
        }
    }
    (markdown.into_text(), title)
}

/// Puts the next line behind; a word that was parted at the line's end becomes whole again.
fn join(text: &mut String, next: &str) {
    let parted = text.ends_with(['-', '\u{AD}', '\u{2010}'])
        && text.chars().rev().nth(1).is_some_and(char::is_lowercase)
        && next.starts_with(char::is_lowercase);
    if parted {
        text.pop();
    } else {
        text.push(' ');
    }
    text.push_str(next);
}

/// Unpacks every stream once to nothing, before a parser unpacks it into memory.
fn check_streams(bytes: &[u8], place: &Place, budget: &Arc<Budget>) -> Result<(), DataError> {
    for at in memchr::memmem::find_iter(bytes, b"stream") {
        let data = &bytes[at + b"stream".len()..];
        let data = data.strip_prefix(b"\r\n").or(data.strip_prefix(b"\n")).or(data.strip_prefix(b"\r"));
        // A zlib stream: deflate with a window of at most 32 KiB, its two bytes a multiple of 31.
        let Some(data @ [first, second, ..]) = data else { continue };
        if first & 0x0f != 8 || (u16::from(*first) << 8 | u16::from(*second)) % 31 != 0 {
            continue;
        }
        let (mut decoder, mut buffer) = (ZlibDecoder::new(data), [0; 64 << 10]);
        // Where it is broken its parser will say so.
        while let Ok(read @ 1..) = decoder.read(&mut buffer) {
            budget.spend(read as u64).map_err(|error| place.io(&error))?;
        }
    }
    let twice: [&[u8]; 2] = [b"/FlateDecode /FlateDecode", b"/FlateDecode/FlateDecode"];
    if twice.iter().any(|filters| memchr::memmem::find(bytes, filters).is_some()) {
        return Err(place.broken(KIND, "a stream is compressed twice"));
    }
    Ok(())
}

/// The title that the file names.
fn named_title(document: &Document) -> Option<String> {
    let info = document.trailer.get(b"Info").ok()?;
    let info = match info {
        Object::Reference(id) => document.get_object(*id).ok()?,
        info => info,
    };
    let title = info.as_dict().ok()?.get(b"Title").ok()?.as_str().ok()?;
    let text = match title {
        [0xFE, 0xFF, utf16 @ ..] => {
            let (pairs, _) = utf16.as_chunks::<2>();
            String::from_utf16(&pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect::<Vec<u16>>()).ok()?
        }
        title => std::str::from_utf8(title).ok()?.to_owned(),
    };
    Some(one_line(&text)).filter(|title| !title.is_empty())
}

/// Layout and named title.
fn parse(bytes: &[u8]) -> Result<(Layout, Option<String>), String> {
    let mut document = Document::load_mem(bytes).map_err(|error| error.to_string())?;
    if document.is_encrypted() && document.decrypt("").is_err() {
        return Err("it is encrypted".into());
    }
    let pages = document.get_pages().len();
    if pages > PAGES_MAX {
        return Err(format!("{pages} pages, at most {PAGES_MAX}"));
    }
    let mut layout = Layout::default();
    pdf_extract::output_doc(&document, &mut layout).map_err(|error| error.to_string())?;
    Ok((layout, named_title(&document)))
}

/// The document of a PDF.
pub(super) fn document(bytes: Bytes, place: &Place, options: &ReadOptions, found: &mut Found) -> Result<Option<Item>, DataError> {
    let bytes = bytes.into_memory(FILE_BYTES_MAX, place)?;
    check_streams(&bytes, place, &Budget::new(bytes.len() as u64))?;
    let parsed = std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = parser.spawn_scoped(scope, || guarded(place, KIND, || parse(&bytes))).map_err(|error| place.io(&error))?;
        thread.join().unwrap_or_else(|_| Err(place.broken(KIND, "its parser gave up")))
    });
    let (mut layout, named) = parsed?;
    let repeated = drop_repeated(&mut layout.pages);
    let (text, heading) = markdown(&layout.pages);
    if text.trim().is_empty() {
        return Err(place.broken(KIND, "it has no text; a scan has to go through OCR first"));
    }
    let title = named.unwrap_or(heading);
    let fields = vec![("title".into(), Value::Text(title)), ("text".into(), Value::Text(text))];
    let mut item = text::document(place, fields, None, true, options, found);
    if let Item::Document(document) = &mut item {
        document.attributes.push((PAGES, Value::Number(layout.pages.len().to_string())));
        found.count("repeated lines of pages left out", repeated);
    }
    Ok(Some(item))
}
