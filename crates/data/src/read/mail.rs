//! E-mail: one message (EML, RFC 5322) or a mailbox of them (MBOX, RFC 4155).
//!
//! A message's `text` is what its sender wrote; quoted text and the signature are told apart by the signs that mail
//! programs leave, and kept as attributes, so that nothing is lost. Its `thread` is the first message of the conversation,
//! found over References and In-Reply-To.

use super::container::Bytes;
use super::html;
use super::place::Place;
use super::walk::{Found, Walk};
use super::{Item, ReadOptions, text};
use crate::{DataError, Value};
use mail_parser::{Address, HeaderValue, Message, MessageParser, MimeHeaders, PartType};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};

/// Name of the attribute with the text that a message quotes.
pub const QUOTED: &str = "quoted";
/// Name of the attribute with a message's signature.
pub const SIGNATURE: &str = "signature";
/// Name of the attribute with the names of a message's attachments.
pub const ATTACHMENTS: &str = "attachments";

/// Bytes of a message, attachments included.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Messages whose thread is remembered.
const THREADS_MAX: usize = 10_000_000;
/// Lines that a signature has at most.
const SIGNATURE_LINES_MAX: usize = 12;

/// Thread of each message seen, by message id.
#[derive(Default)]
struct Threads(HashMap<String, String>);

impl Threads {
    /// The root of a message's conversation, as far as it is known.
    fn root(&mut self, id: &str, references: &[String], in_reply_to: &[String]) -> String {
        let parents = references.iter().chain(in_reply_to);
        let root = parents
            .clone()
            .find_map(|parent| self.0.get(parent).cloned())
            .or_else(|| parents.clone().next().cloned())
            .unwrap_or_else(|| id.to_owned());
        if !id.is_empty() && self.0.len() < THREADS_MAX {
            self.0.insert(id.to_owned(), root.clone());
        }
        root
    }
}

fn ids(value: &HeaderValue<'_>) -> Vec<String> {
    match value {
        HeaderValue::Text(text) => vec![text.to_string()],
        HeaderValue::TextList(list) => list.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

fn addresses(address: Option<&Address<'_>>) -> String {
    let Some(address) = address else { return String::new() };
    let written: Vec<String> = address
        .iter()
        .map(|one| match (one.name(), one.address()) {
            (Some(name), Some(address)) => format!("{name} <{address}>"),
            (name, address) => name.or(address).unwrap_or_default().to_owned(),
        })
        .collect();
    written.join(", ")
}

/// The text of a message: its plain part, else its HTML part as Markdown.
fn body(message: &Message<'_>) -> String {
    let mut bodies = Vec::new();
    for part in message.text_body.iter().filter_map(|id| message.parts.get(*id as usize)) {
        match &part.body {
            PartType::Text(text) => bodies.push(text.to_string()),
            PartType::Html(page) => bodies.push(html::main_text(page).1),
            _ => {}
        }
    }
    bodies.join("\n\n").replace("\r\n", "\n")
}

/// A message's own words, what it quotes, and its signature.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    own: String,
    quoted: String,
    signature: String,
}

fn is_quote(line: &str) -> bool {
    line.starts_with('>') || line.starts_with("|>")
}

/// `On …, … wrote:` and its like: the line above a quote ends with a colon and names a date or an address.
fn announces_quote(line: &str) -> bool {
    let line = line.trim();
    let names = line.contains('@') || line.chars().filter(char::is_ascii_digit).count() >= 4 || line.contains("wrote");
    line.ends_with(':') && names && line.chars().count() <= 200
}

/// The line from which everything below is a forwarded or answered message.
fn begins_original(line: &str, next: Option<&&str>) -> bool {
    let bare = line.trim().trim_matches(['-', '_', '*', ' ']).to_lowercase();
    let dashed = line.trim().starts_with("--") && line.trim().ends_with("--");
    let original = [
        "original message",
        "forwarded message",
        "ursprüngliche nachricht",
        "weitergeleitete nachricht",
        "message d'origine",
        "message original",
        "mensaje original",
        "messaggio originale",
        "oorspronkelijk bericht",
    ];
    if dashed && original.iter().any(|words| bare.contains(words)) {
        return true;
    }
    // Outlook: a rule, then the headers of the original.
    let rule = line.trim().len() >= 20 && line.trim().bytes().all(|byte| byte == b'_');
    rule && next.is_some_and(|next| ["From:", "Von:", "De :", "De:", "Da:", "Van:"].iter().any(|from| next.trim_start().starts_with(from)))
}

fn split(body: &str) -> Parts {
    let lines: Vec<&str> = body.lines().collect();
    let (mut own, mut quoted): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i];
        if begins_original(line, lines.get(i + 1)) {
            quoted.extend(&lines[i..]);
            break;
        }
        // The announcement may be wrapped over two lines.
        let announced = [1, 2].into_iter().find(|rows| {
            let joined = lines[i..lines.len().min(i + rows)].join(" ");
            let mut below = lines[lines.len().min(i + rows)..].iter().skip_while(|line| line.trim().is_empty());
            announces_quote(&joined) && !line.trim().is_empty() && below.next().is_some_and(|line| is_quote(line))
        });
        if let Some(rows) = announced {
            quoted.extend(&lines[i..i + rows]);
            i += rows;
        } else {
            if is_quote(line) {
                quoted.push(line)
            } else {
                own.push(line)
            }
            i += 1;
        }
    }
    // "-- " alone on a line begins a signature (RFC 3676); without the blank only near the end.
    let start = own
        .iter()
        .rposition(|line| *line == "-- " || (*line == "--"))
        .filter(|at| own[*at] == "-- " || own.len() - at <= SIGNATURE_LINES_MAX);
    let signature = start.map_or_else(Vec::new, |at| own.split_off(at));
    let text = |lines: &[&str]| lines.join("\n").trim().to_owned();
    Parts { own: text(&own), quoted: text(&quoted), signature: text(signature.get(1..).unwrap_or_default()) }
}

/// The document of a message, or why there is none.
fn document(
    raw: &[u8],
    place: &Place,
    (row, line): (u64, u64),
    threads: &mut Threads,
    options: &ReadOptions,
    found: &mut Found,
) -> Result<Item, String> {
    let message = MessageParser::default().parse(raw).ok_or("it has no headers")?;
    if message.headers().is_empty() {
        return Err("it has no headers".into());
    }
    let parts = split(&body(&message));
    if parts.own.is_empty() && parts.quoted.is_empty() {
        return Err("it has no text".into());
    }
    let id = message.message_id().unwrap_or_default().to_owned();
    let (references, in_reply_to) = (ids(message.references()), ids(message.in_reply_to()));
    let thread = threads.root(&id, &references, &in_reply_to);
    let text = |value: &str| Value::Text(value.to_owned());
    let fields = vec![
        ("message_id".into(), text(&id)),
        ("thread".into(), text(&thread)),
        ("in_reply_to".into(), text(in_reply_to.first().or(references.last()).map_or("", String::as_str))),
        ("date".into(), Value::Text(message.date().filter(|date| date.is_valid()).map(|date| date.to_rfc3339()).unwrap_or_default())),
        ("from".into(), Value::Text(addresses(message.from()))),
        ("to".into(), Value::Text(addresses(message.to()))),
        ("subject".into(), text(message.subject().unwrap_or_default())),
        ("text".into(), Value::Text(parts.own)),
    ];
    let mut item = text::document(place, fields, None, false, options, found);
    if let Item::Document(document) = &mut item {
        let attributes = std::mem::take(&mut document.attributes);
        *document = place.document(std::mem::take(&mut document.fields), row, line);
        document.attributes = attributes;
        for (name, value) in [(QUOTED, parts.quoted), (SIGNATURE, parts.signature)] {
            if !value.is_empty() {
                document.attributes.push((name, Value::Text(value)));
            }
        }
        let names: Vec<Value> =
            message.attachments().filter_map(|part| part.attachment_name().map(|name| Value::Text(name.to_owned()))).collect();
        if !names.is_empty() {
            found.count("messages with attachments, which are not read", 1);
            document.attributes.push((ATTACHMENTS, Value::List(names)));
        }
    }
    Ok(item)
}

/// The document of an EML file.
pub(super) fn message(bytes: Bytes, place: &Place, options: &ReadOptions, found: &mut Found) -> Result<Option<Item>, DataError> {
    let raw = bytes.into_memory(MESSAGE_BYTES_MAX, place)?;
    let item = document(&raw, place, (1, 1), &mut Threads::default(), options, found);
    item.map(Some).map_err(|problem| place.broken("an e-mail message", problem))
}

/// The messages of a mailbox.
pub(super) struct Mbox {
    input: BufReader<Box<dyn Read + Send>>,
    place: Place,
    options: ReadOptions,
    threads: Threads,
    row: u64,
    line: u64,
    /// The next message's `From ` line was read.
    begun: bool,
}

impl Mbox {
    pub(super) fn open(bytes: Bytes, place: Place, options: &ReadOptions) -> Self {
        let input = BufReader::with_capacity(256 << 10, bytes.into_stream());
        Self { input, place, options: options.clone(), threads: Threads::default(), row: 0, line: 0, begun: false }
    }

    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<bool, DataError> {
        line.clear();
        let limit = MESSAGE_BYTES_MAX as u64 + 1;
        let read = self.input.by_ref().take(limit).read_until(b'\n', line).map_err(|error| self.place.io(&error))?;
        self.line += 1;
        self.place.limit(Some(self.line), "bytes in a line", read, MESSAGE_BYTES_MAX)?;
        Ok(read > 0)
    }
}

/// The `From ` line between messages, with a sender and a date.
fn is_separator(line: &[u8]) -> bool {
    line.starts_with(b"From ") && line.iter().filter(|byte| **byte == b' ').count() >= 2 && line.iter().any(u8::is_ascii_digit)
}

impl Walk for Mbox {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        let mut line = Vec::new();
        while !self.begun {
            if !self.read_line(&mut line)? {
                return Ok(None);
            }
            if is_separator(&line) {
                self.begun = true;
            } else if !line.iter().all(u8::is_ascii_whitespace) {
                return Err(self.place.broken("a mailbox", format!("line {}: text before the first \"From \" line", self.line)));
            }
        }
        self.begun = false;
        self.row += 1;
        let start = self.line;
        let (mut raw, mut after_empty, mut given) = (Vec::new(), false, 0);
        while self.read_line(&mut line)? {
            if after_empty && is_separator(&line) {
                self.begun = true;
                break;
            }
            after_empty = line.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
            given += line.len();
            // mboxrd: a line that begins with "From " was quoted by one more ">".
            let quoted = line.iter().take_while(|byte| **byte == b'>').count();
            let line = if quoted > 0 && line[quoted..].starts_with(b"From ") { &line[1..] } else { &line[..] };
            if given <= MESSAGE_BYTES_MAX {
                raw.extend_from_slice(line);
            }
        }
        if given > MESSAGE_BYTES_MAX {
            let error = self.place.too_large(Some(start), "bytes in a message", given as u64, MESSAGE_BYTES_MAX);
            return Ok(Some(Item::Rejected(self.place.rejected(self.row, error.to_string()))));
        }
        let item = document(&raw, &self.place, (self.row, start), &mut self.threads, &self.options, found);
        Ok(Some(
            item.unwrap_or_else(|problem| Item::Rejected(self.place.rejected(self.row, format!("message at line {start}: {problem}")))),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{Parts, split};

    #[test]
    fn quotes_and_signatures_are_told_apart() {
        let body =
            "Yes, on Monday.\n\nOn Mon, 3 Feb 2025 at 10:00, Ann <ann@example.org> wrote:\n> When?\n>> Soon.\n\nBest\n-- \nBob\nSales";
        let expected = Parts {
            own: "Yes, on Monday.\n\n\nBest".into(),
            quoted: "On Mon, 3 Feb 2025 at 10:00, Ann <ann@example.org> wrote:\n> When?\n>> Soon.".into(),
            signature: "Bob\nSales".into(),
        };
        assert_eq!(split(body), expected);
        let outlook = "Done.\n\n-----Original Message-----\nFrom: Ann\nPlease do it.";
        assert_eq!(split(outlook).own, "Done.");
        assert!(split(outlook).quoted.ends_with("Please do it."));
        let plain = "Prices:\n- a -- b\n5 > 3 at 10:30:\nfine";
        assert_eq!(split(plain), Parts { own: plain.into(), ..Parts::default() });
    }
}
