//! Bytes of unknown encoding as a stream of UTF-8, line by line.
//!
//! UTF-8 is checked row by row, so that one broken row can be named. UTF-16 is known by its byte-order mark, or by where
//! its zero bytes are. A legacy encoding is guessed (chardetng) where the text turns out not to be UTF-8, and said.

use super::place::Place;
use super::walk::Found;
use crate::DataError;
use crate::error::LineProblem;
use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use std::io::Read;
use std::ops::Range;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// Bytes at the start in which UTF-16 without a byte-order mark shows itself.
const UTF16_SAMPLE: usize = 1024;

enum Mode {
    /// Nothing but ASCII so far.
    Ascii,
    /// UTF-8, checked row by row.
    Utf8,
    /// Another encoding.
    Legacy(Box<Decoder>, &'static Encoding),
}

/// Text of a file as it comes in.
pub(super) struct TextStream {
    raw: Box<dyn Read + Send>,
    place: Place,
    mode: Mode,
    /// UTF-8 was demanded: nothing is guessed.
    strict: bool,
    first: bool,
    ended: bool,
    raw_bytes: u64,
    scratch: Vec<u8>,
    text: Vec<u8>,
    start: usize,
    /// Line of the first byte not consumed, from 1.
    line: u64,
}

/// The encoding of a WHATWG label such as `windows-1252` or `latin1`.
pub(super) fn encoding_of(label: &str) -> Result<&'static Encoding, DataError> {
    Encoding::for_label(label.as_bytes()).ok_or_else(|| DataError::UnknownEncoding { label: label.into() })
}

impl TextStream {
    /// `encoding` is a label, or nothing where it is to be recognised.
    pub(super) fn new(raw: Box<dyn Read + Send>, place: Place, encoding: Option<&str>) -> Result<Self, DataError> {
        let (mut mode, mut strict) = (Mode::Ascii, false);
        if let Some(label) = encoding {
            let encoding = encoding_of(label)?;
            strict = encoding == UTF_8;
            if !strict {
                mode = Mode::Legacy(Box::new(encoding.new_decoder_with_bom_removal()), encoding);
            }
        }
        let (scratch, text) = (Vec::new(), Vec::new());
        Ok(Self { raw, place, mode, strict, first: true, ended: false, raw_bytes: 0, scratch, text, start: 0, line: 1 })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// What is in memory and not consumed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.text[self.start..]
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Whether [`TextStream::rest`] is all there is.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The encoding, where it is not UTF-8.
    pub(super) fn legacy(&self) -> Option<&'static str> {
        match &self.mode {
            Mode::Legacy(_, encoding) => Some(encoding.name()),
            _ => None,
        }
    }

    /// Passes over bytes of the rest, counting their lines.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.line += newlines(&self.text[self.start..self.start + bytes]);
        self.start += bytes;
    }

    /// Reads on; false if nothing came. Doubles what is in memory where there is so much, so that searching it anew stays
    /// linear.
    pub(super) fn more(&mut self, found: &mut Found) -> Result<bool, DataError> {
        let before = self.rest().len();
        while !self.ended && self.rest().len() < (2 * before).max(1) {
            self.chunk(found)?;
        }
        Ok(self.rest().len() > before)
    }

    /// The next line without its newline, as a range of [`TextStream::slice`], and its number. `limit` is for its bytes.
    pub(super) fn next_line(&mut self, limit: usize, found: &mut Found) -> Result<Option<(Range<usize>, u64)>, DataError> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.rest()[searched..]) {
                let range = self.start..self.start + searched + at;
                let line = self.line;
                self.start = range.end + 1;
                self.line += 1;
                self.place.limit(Some(line), "bytes in a row", range.len(), limit)?;
                return Ok(Some((range, line)));
            }
            searched = self.rest().len();
            self.place.limit(Some(self.line), "bytes in a row", searched, limit)?;
            if !self.ended {
                self.chunk(found)?;
            } else if searched == 0 {
                return Ok(None);
            } else {
                let range = self.start..self.text.len();
                self.start = self.text.len();
                return Ok(Some((range, self.line)));
            }
        }
    }

    /// Passes over what is left of a line that is too long to be kept.
    pub(super) fn skip_line(&mut self, found: &mut Found) -> Result<(), DataError> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', self.rest()) {
                self.start += at + 1;
                self.line += 1;
                return Ok(());
            }
            self.start = self.text.len();
            if self.ended {
                return Ok(());
            }
            self.chunk(found)?;
        }
    }

    /// The bytes of a range that [`TextStream::next_line`] gave, until the next call.
    pub(super) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.text[range]
    }

    /// All that is left, as text; at most `limit` bytes.
    pub(super) fn all(mut self, limit: usize, found: &mut Found) -> Result<(String, Option<&'static str>), DataError> {
        while !self.ended {
            self.place.limit(None, "bytes in a document", self.rest().len(), limit)?;
            self.chunk(found)?;
        }
        self.place.limit(None, "bytes in a document", self.rest().len(), limit)?;
        checked(self.rest()).map_err(|(at, problem)| self.place.problem(1 + newlines(&self.rest()[..at]), problem))?;
        let legacy = self.legacy();
        let mut text = self.text;
        text.drain(..self.start);
        // Checked above; the lossless conversion cannot fail.
        Ok((String::from_utf8(text).unwrap_or_default(), legacy))
    }

    fn chunk(&mut self, found: &mut Found) -> Result<(), DataError> {
        if self.start > 0 {
            self.text.drain(..self.start);
            self.start = 0;
        }
        let old = self.text.len();
        let limit = self.place.limits.source_bytes as u64;
        let room = (CHUNK as u64).min(limit.saturating_add(1).saturating_sub(self.raw_bytes));
        let decode = matches!(self.mode, Mode::Legacy(..));
        let target = if decode { &mut self.scratch } else { &mut self.text };
        if decode {
            target.clear();
        }
        let read = self.raw.by_ref().take(room).read_to_end(target).map_err(|error| self.place.io(&error))?;
        self.raw_bytes += read as u64;
        if self.raw_bytes > limit {
            return Err(self.place.too_large(None, "bytes", self.raw_bytes, self.place.limits.source_bytes));
        }
        self.ended = (read as u64) < room;
        if decode {
            return self.decode();
        }
        if std::mem::take(&mut self.first) {
            self.byte_order_mark(found)?;
            if matches!(self.mode, Mode::Legacy(..)) {
                return Ok(());
            }
        }
        if matches!(self.mode, Mode::Ascii) {
            self.recognise(old.min(self.text.len()), found)?;
        }
        Ok(())
    }

    fn byte_order_mark(&mut self, found: &mut Found) -> Result<(), DataError> {
        let sample = &self.text[..self.text.len().min(UTF16_SAMPLE)];
        let zeros = |odd: usize| sample.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
        let mostly = |odd: usize| sample.len() >= 8 && zeros(odd) * 3 > sample.len() && zeros(1 - odd) == 0;
        let (skip, encoding) = match sample {
            [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => {
                return Err(self.place.problem(1, LineProblem::Encoding { encoding: "UTF-32" }));
            }
            [0xEF, 0xBB, 0xBF, ..] => (3, None),
            [0xFF, 0xFE, ..] => (2, Some(UTF_16LE)),
            [0xFE, 0xFF, ..] => (2, Some(UTF_16BE)),
            _ if mostly(1) => (0, Some(UTF_16LE)),
            _ if mostly(0) => (0, Some(UTF_16BE)),
            _ => (0, None),
        };
        let Some(encoding) = encoding.filter(|_| !self.strict) else {
            self.text.drain(..skip);
            if skip > 0 {
                self.mode = Mode::Utf8;
            }
            return Ok(());
        };
        let bytes = self.text.split_off(skip);
        self.text.clear();
        self.legacy_from(encoding, bytes, found)
    }

    /// Reads on in another encoding, from `bytes`, which were taken off the text.
    fn legacy_from(&mut self, encoding: &'static Encoding, bytes: Vec<u8>, found: &mut Found) -> Result<(), DataError> {
        found.say("encoding", encoding.name().to_owned());
        self.scratch = bytes;
        self.mode = Mode::Legacy(Box::new(encoding.new_decoder_without_bom_handling()), encoding);
        self.decode()
    }

    /// The first bytes beyond ASCII settle it: UTF-8, or a guess.
    fn recognise(&mut self, new: usize, found: &mut Found) -> Result<(), DataError> {
        let Some(at) = self.text[new..].iter().position(|byte| !byte.is_ascii()).map(|at| new + at) else { return Ok(()) };
        self.mode = Mode::Utf8;
        if self.strict {
            return Ok(());
        }
        let (mut sound, mut broken, mut from) = (0, 0, at);
        while from < self.text.len() {
            match std::str::from_utf8(&self.text[from..]) {
                Ok(text) => {
                    sound += text.chars().filter(|c| !c.is_ascii()).count();
                    break;
                }
                Err(error) => {
                    let text = &self.text[from..from + error.valid_up_to()];
                    sound += text.iter().filter(|byte| **byte >= 0xC0).count();
                    // A character that the chunk's end cuts is no error.
                    let Some(length) = error.error_len().or(self.ended.then_some(1)) else { break };
                    broken += 1;
                    from += error.valid_up_to() + length;
                }
            }
        }
        if broken == 0 || sound >= broken {
            return Ok(());
        }
        let mut detector = chardetng::EncodingDetector::new(chardetng::Iso2022JpDetection::Deny);
        detector.feed(&self.text[at..], self.ended);
        let encoding = detector.guess(None, chardetng::Utf8Detection::Deny);
        let bytes = self.text.split_off(at);
        self.legacy_from(encoding, bytes, found)
    }

    fn decode(&mut self) -> Result<(), DataError> {
        let Mode::Legacy(decoder, encoding) = &mut self.mode else { return Ok(()) };
        let needed = decoder.max_utf8_buffer_length_without_replacement(self.scratch.len()).unwrap_or(usize::MAX / 2);
        let old = self.text.len();
        self.text.resize(old + needed, 0);
        let (result, read, written) = decoder.decode_to_utf8_without_replacement(&self.scratch, &mut self.text[old..], self.ended);
        self.text.truncate(old + written);
        self.scratch.drain(..read);
        match result {
            DecoderResult::InputEmpty | DecoderResult::OutputFull => Ok(()),
            DecoderResult::Malformed(..) => {
                let encoding = encoding.name();
                let line = self.line + newlines(self.rest());
                Err(self.place.problem(line, LineProblem::Undecodable { encoding }))
            }
        }
    }
}

pub(super) fn newlines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Bytes of a row as text, or where they are none and why.
pub(super) fn checked(row: &[u8]) -> Result<&str, (usize, LineProblem)> {
    let text = std::str::from_utf8(row).map_err(|error| {
        let at = error.valid_up_to();
        let line_start = memchr::memrchr(b'\n', &row[..at]).map_or(0, |newline| newline + 1);
        (at, LineProblem::NotUtf8 { byte: at - line_start + 1 })
    })?;
    match memchr::memchr(0, row) {
        Some(at) => Err((at, LineProblem::Nul)),
        None => Ok(text),
    }
}
