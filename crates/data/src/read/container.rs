//! ZIP, TAR, gzip and Zstandard around other formats, and folders of files.
//!
//! Nothing is ever written, so a member's path is only a name; one that would leave its folder is refused all the same,
//! as are links, devices and members that come twice. What is unpacked is bounded in all, over all levels.

use super::place::Place;
use super::walk::{Found, Walk};
use super::{Format, Input, Item, Opened, ReadOptions};
use crate::DataError;
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes unpacked for each byte of the file. Text is rarely packed better than 20 : 1, deflate ends at 1032 : 1.
const UNPACKED_RATIO_MAX: u64 = 200;
/// Bytes that may be unpacked whatever the file's size.
const UNPACKED_FREE: u64 = 64 << 20;
/// Members of an archive or files of a folder.
const MEMBERS_MAX: usize = 1_000_000;
/// Archives within archives.
pub(super) const DEPTH_MAX: usize = 4;
/// Bytes of a member's name, and of the extended headers that carry it.
const NAME_BYTES_MAX: usize = 4096;
/// Bytes of a Zstandard window: what a decoder has to remember.
const WINDOW_BYTES_MAX: u64 = 128 << 20;
/// Bytes of a member that has to be kept in memory, because its format needs random access.
pub(super) const KEPT_BYTES_MAX: usize = 1 << 30;

/// Bytes of a file or member.
pub(super) enum Bytes {
    /// With random access.
    File(Box<dyn Input>),
    /// One after the other.
    Stream(Box<dyn Read + Send>),
}

impl Bytes {
    /// The first bytes, which stay where they are.
    pub(super) fn head(&mut self, length: u64, place: &Place) -> Result<Vec<u8>, DataError> {
        let mut head = Vec::new();
        let failed = |error: io::Error| place.io(&error);
        match self {
            Self::File(input) => {
                input.by_ref().take(length).read_to_end(&mut head).map_err(failed)?;
                input.rewind().map_err(failed)?;
            }
            Self::Stream(stream) => {
                stream.by_ref().take(length).read_to_end(&mut head).map_err(failed)?;
                let rest = std::mem::replace(stream, Box::new(io::empty()));
                *stream = Box::new(Cursor::new(head.clone()).chain(rest));
            }
        }
        Ok(head)
    }

    /// How many there are of a file; none of a stream.
    fn length(&mut self) -> io::Result<u64> {
        match self {
            Self::File(input) => {
                let length = input.seek(SeekFrom::End(0))?;
                input.rewind()?;
                Ok(length)
            }
            Self::Stream(_) => Ok(0),
        }
    }

    pub(super) fn into_stream(self) -> Box<dyn Read + Send> {
        match self {
            Self::File(input) => Box::new(input),
            Self::Stream(stream) => stream,
        }
    }

    /// With random access, in memory where it must.
    pub(super) fn into_input(self, place: &Place) -> Result<Box<dyn Input>, DataError> {
        match self {
            Self::File(input) => Ok(input),
            stream => Ok(Box::new(Cursor::new(stream.into_memory(KEPT_BYTES_MAX, place)?))),
        }
    }

    /// All of it.
    pub(super) fn into_memory(self, limit: usize, place: &Place) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let limit = limit.min(place.limits.source_bytes);
        self.into_stream().take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| place.io(&error))?;
        place.limit(None, "bytes in a document", bytes.len(), limit)?;
        Ok(bytes)
    }
}

/// A limit that is hit while a library reads.
#[derive(Debug, thiserror::Error)]
#[error("{given} {what}, at most {limit}")]
pub(super) struct LimitHit {
    pub(super) what: &'static str,
    pub(super) given: u64,
    pub(super) limit: u64,
}

/// What may still be unpacked, over all levels.
#[derive(Debug)]
pub(super) struct Budget {
    unpacked: AtomicU64,
    limit: u64,
}

impl Budget {
    /// For a file of so many bytes.
    pub(super) fn new(file_bytes: u64) -> Arc<Self> {
        Arc::new(Self { unpacked: AtomicU64::new(0), limit: file_bytes.saturating_mul(UNPACKED_RATIO_MAX).max(UNPACKED_FREE) })
    }

    pub(super) fn spend(&self, bytes: u64) -> io::Result<()> {
        let given = self.unpacked.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if given <= self.limit {
            return Ok(());
        }
        Err(io::Error::other(LimitHit { what: "bytes unpacked", given, limit: self.limit }))
    }
}

/// Counts what is unpacked.
struct Metered<R> {
    inner: R,
    budget: Arc<Budget>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.budget.spend(read as u64)?;
        Ok(read)
    }
}

/// What is around a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Gzip,
    Zstd,
    Tar,
    Zip,
}

impl Container {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Tar => "tar",
            Self::Zip => "zip",
        }
    }

    /// By the end of a file's name: what it is, and the name of what is in it.
    pub(super) fn of_name(name: &str) -> Option<(Self, String)> {
        let (stem, extension) = name.rsplit_once('.')?;
        Some(match extension.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => (Self::Gzip, stem.to_owned()),
            "tgz" => (Self::Gzip, format!("{stem}.tar")),
            "zst" | "zstd" => (Self::Zstd, stem.to_owned()),
            "tzst" => (Self::Zstd, format!("{stem}.tar")),
            "tar" => (Self::Tar, stem.to_owned()),
            "zip" => (Self::Zip, stem.to_owned()),
            _ => return None,
        })
    }

    /// By its first bytes.
    pub(super) fn of_head(head: &[u8]) -> Option<Self> {
        match head {
            [0x1F, 0x8B, ..] => Some(Self::Gzip),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(Self::Zstd),
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            _ if head.get(257..262) == Some(b"ustar") => Some(Self::Tar),
            _ => None,
        }
    }
}

/// The decompressed bytes of a gzip or Zstandard file.
pub(super) fn decompress(container: Container, bytes: Bytes, budget: &Arc<Budget>) -> Bytes {
    let packed = BufReader::with_capacity(64 << 10, bytes.into_stream());
    let inner: Box<dyn Read + Send> = match container {
        Container::Zstd => Box::new(Zstd::new(packed)),
        _ => Box::new(MultiGzDecoder::new(packed)),
    };
    Bytes::Stream(Box::new(Metered { inner, budget: budget.clone() }))
}

/// Zstandard frames one after the other, checksums compared.
struct Zstd {
    frame: FrameDecoder,
    in_frame: bool,
    packed: BufReader<Box<dyn Read + Send>>,
}

fn corrupt(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Zstd {
    fn new(packed: BufReader<Box<dyn Read + Send>>) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(WINDOW_BYTES_MAX);
        Self { frame, in_frame: false, packed }
    }

    /// Starts the next frame; false where none is left.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            match self.frame.init(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.packed.by_ref().take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(corrupt("a frame is cut off"));
                    }
                }
                Err(error) => return Err(corrupt(error.to_string())),
            }
        }
        Ok(false)
    }
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                self.in_frame = self.begin()?;
                if !self.in_frame {
                    return Ok(0);
                }
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame
                    .decode_blocks(&mut self.packed, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| corrupt(error.to_string()))?;
            }
            let read = self.frame.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let written = self.frame.get_checksum_from_data();
            if written.is_some() && written != self.frame.get_calculated_checksum() {
                return Err(corrupt("a frame's checksum is wrong"));
            }
            self.in_frame = false;
        }
    }
}

/// A file of a folder or archive.
pub(super) struct Member {
    /// Its path.
    pub(super) name: String,
    /// Its bytes, or why it is left out.
    pub(super) bytes: Result<Bytes, String>,
}

/// The files of a folder or archive, in order.
pub(super) trait MemberSource: Send {
    fn next(&mut self, place: &Place) -> Result<Option<Member>, DataError>;
}

/// How one file is opened; recursion goes through it.
pub(super) type OpenFile = fn(Bytes, &str, Place, &ReadOptions, usize, &Arc<Budget>, &mut Found) -> Result<Opened, DataError>;

/// The items of all members.
pub(super) struct Members {
    source: Box<dyn MemberSource>,
    open: OpenFile,
    place: Place,
    options: ReadOptions,
    depth: usize,
    /// Of the archive; files of a folder each have their own.
    budget: Option<Arc<Budget>>,
    seen: HashSet<String>,
    current: Option<Current>,
}

struct Current {
    place: Place,
    walk: Box<dyn Walk>,
    /// The whole file is one document: if it is broken, it alone is rejected.
    is_document: bool,
}

impl Members {
    pub(super) fn new(
        source: Box<dyn MemberSource>,
        open: OpenFile,
        place: Place,
        options: &ReadOptions,
        depth: usize,
        budget: Option<&Arc<Budget>>,
    ) -> Self {
        let (options, budget) = (options.clone(), budget.cloned());
        Self { source, open, place, options, depth, budget, seen: HashSet::new(), current: None }
    }

    /// Opens a member, or rejects it.
    fn member(&mut self, member: Member, found: &mut Found) -> Result<Option<Item>, DataError> {
        let name = member.name;
        let place = self.place.within(&name);
        let rejected = |problem: String| Ok(Some(Item::Rejected(place.rejected(1, problem))));
        self.place.limit(None, "members", self.seen.len() + 1, MEMBERS_MAX)?;
        if safe(&name).is_ok() && is_hidden(&name) {
            found.count("hidden files left out", 1);
            return Ok(None);
        }
        let bytes = match (safe(&name), member.bytes) {
            (Err(problem), _) => return rejected(problem.to_owned()),
            (Ok(()), Err(problem)) => return rejected(problem),
            (Ok(()), Ok(bytes)) => bytes,
        };
        if !self.seen.insert(name.clone()) {
            return rejected("a second file of this name".into());
        }
        let (mut bytes, mut depth) = (bytes, self.depth + 1);
        let budget = match &self.budget {
            Some(budget) => budget.clone(),
            None => {
                depth = self.depth;
                match bytes.length() {
                    Ok(length) => Budget::new(length),
                    Err(error) => return self.failed(place.io(&error), &place, true),
                }
            }
        };
        match (self.open)(bytes, &name, place.clone(), &self.options, depth, &budget, found) {
            Ok(Opened { walk, format }) => {
                let is_document = format.is_some_and(Format::is_document);
                self.current = Some(Current { place, walk, is_document });
            }
            Err(error) => {
                let is_document = Format::from_name(&name).is_some_and(Format::is_document);
                return self.failed(error, &place, is_document);
            }
        }
        Ok(None)
    }

    /// A member that cannot be read: rejected where it is a document of its own or its format is unknown, unless a limit of
    /// the whole archive was hit.
    fn failed(&self, error: DataError, place: &Place, is_document: bool) -> Result<Option<Item>, DataError> {
        let whole = matches!(&error, DataError::TooLarge { what: "bytes unpacked" | "members" | "rows", .. });
        let own = match &error {
            DataError::UnknownFormat { .. } | DataError::Content { .. } => true,
            _ => is_document || self.options.broken_rows == super::BrokenRows::Reject,
        };
        if whole || !own {
            return Err(error);
        }
        Ok(Some(Item::Rejected(place.rejected(1, error.to_string()))))
    }
}

impl Walk for Members {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        loop {
            if let Some(current) = &mut self.current {
                match current.walk.next(found) {
                    Ok(Some(item)) => return Ok(Some(item)),
                    Ok(None) => self.current = None,
                    Err(error) => {
                        let (place, is_document) = (current.place.clone(), current.is_document);
                        self.current = None;
                        return self.failed(error, &place, is_document);
                    }
                }
            }
            let Some(member) = self.source.next(&self.place)? else { return Ok(None) };
            if let Some(item) = self.member(member, found)? {
                return Ok(Some(item));
            }
        }
    }
}

/// Files that systems leave behind, and those that begin with a dot.
fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part == "__MACOSX" || (part.starts_with('.') && !matches!(part, "." | "..")))
}

/// Whether a path stays below its folder.
fn safe(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err("its name is empty, too long or has control characters");
    }
    let drive = name.as_bytes().get(1) == Some(&b':');
    if name.starts_with(['/', '\\']) || drive || name.split(['/', '\\']).any(|part| part == "..") {
        return Err("its path leads out of the archive");
    }
    Ok(())
}

/// The files that a caller opens one by one.
pub(super) struct Files<F>(pub(super) F);

impl<F: Iterator<Item = (String, Result<Box<dyn Input>, String>)> + Send> MemberSource for Files<F> {
    fn next(&mut self, _: &Place) -> Result<Option<Member>, DataError> {
        Ok(self.0.next().map(|(name, input)| Member { name, bytes: input.map(Bytes::File) }))
    }
}

/// A file that several read from, each at its own place.
#[derive(Clone)]
pub(super) struct Shared {
    input: Arc<Mutex<Box<dyn Input>>>,
    at: u64,
}

impl Shared {
    /// Reads from the start of the file.
    pub(super) fn new(input: Box<dyn Input>) -> Self {
        Self { input: Arc::new(Mutex::new(input)), at: 0 }
    }

    /// Another reader of the same file, at a place of its own.
    pub(super) fn from(&self, at: u64) -> Self {
        Self { at, ..self.clone() }
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.seek(SeekFrom::Start(self.at))?;
        let read = input.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Shared {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).ok_or_else(|| corrupt("a place before the start"))?,
            SeekFrom::End(by) => {
                let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
                input.seek(SeekFrom::End(by))?
            }
        };
        Ok(self.at)
    }
}

/// The members of a ZIP archive.
pub(super) struct Zip {
    archive: zip::ZipArchive<Shared>,
    shared: Shared,
    next: usize,
    budget: Arc<Budget>,
}

impl Zip {
    pub(super) fn open(input: Box<dyn Input>, place: &Place, budget: &Arc<Budget>) -> Result<Self, DataError> {
        let shared = Shared::new(input);
        let archive = zip::ZipArchive::new(shared.clone()).map_err(|error| place.broken("a ZIP archive", error.to_string()))?;
        place.limit(None, "members", archive.len(), MEMBERS_MAX)?;
        Ok(Self { archive, shared, next: 0, budget: budget.clone() })
    }
}

impl MemberSource for Zip {
    fn next(&mut self, _: &Place) -> Result<Option<Member>, DataError> {
        while self.next < self.archive.len() {
            self.next += 1;
            let index = self.next - 1;
            let file = match self.archive.by_index_raw(index) {
                Ok(file) => file,
                Err(error) => {
                    return Ok(Some(Member { name: format!("member {}", index + 1), bytes: Err(error.to_string()) }));
                }
            };
            if file.is_dir() {
                continue;
            }
            let name = match file.name() {
                Ok(name) => name.into_owned(),
                Err(error) => return Ok(Some(Member { name: format!("member {}", index + 1), bytes: Err(error.to_string()) })),
            };
            let left_out = |why: &str| Ok(Some(Member { name: name.clone(), bytes: Err(why.to_owned()) }));
            if file.is_symlink() {
                return left_out("it is a link");
            }
            if file.encrypted() {
                return left_out("it is encrypted");
            }
            let Some(start) = file.data_start() else { return left_out("its header cannot be read") };
            let packed = BufReader::new(self.shared.from(start).take(file.compressed_size()));
            let inner: Box<dyn Read + Send> = match file.compression() {
                zip::CompressionMethod::Stored => Box::new(packed),
                zip::CompressionMethod::Deflated => Box::new(DeflateDecoder::new(packed)),
                other => return left_out(&format!("it is compressed with {other}; supported: stored, deflated")),
            };
            let checked = Checked { inner, hasher: crc32fast::Hasher::new(), left: file.size(), crc: file.crc32() };
            let bytes = Bytes::Stream(Box::new(Metered { inner: checked, budget: self.budget.clone() }));
            return Ok(Some(Member { name, bytes: Ok(bytes) }));
        }
        Ok(None)
    }
}

/// Compares length and CRC-32 with what the archive says.
struct Checked {
    inner: Box<dyn Read + Send>,
    hasher: crc32fast::Hasher,
    left: u64,
    crc: u32,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let length_wrong = if read == 0 && !buffer.is_empty() { self.left > 0 } else { read as u64 > self.left };
        if length_wrong {
            return Err(corrupt("its length is not what the archive says"));
        }
        self.left -= read as u64;
        self.hasher.update(&buffer[..read]);
        if read == 0 && !buffer.is_empty() && self.hasher.clone().finalize() != self.crc {
            return Err(corrupt("its checksum is not what the archive says"));
        }
        Ok(read)
    }
}

/// Bytes of a tar block.
const BLOCK: usize = 512;

/// The members of a tar archive (ustar, GNU and pax names), read in one go from front to back.
pub(super) struct Tar {
    stream: Arc<Mutex<Box<dyn Read + Send>>>,
    /// Bytes of the current member that nobody has read yet.
    left: Arc<AtomicU64>,
    padding: u64,
}

impl Tar {
    pub(super) fn new(bytes: Bytes) -> Self {
        let stream: Box<dyn Read + Send> = Box::new(BufReader::new(bytes.into_stream()));
        Self { stream: Arc::new(Mutex::new(stream)), left: Arc::new(AtomicU64::new(0)), padding: 0 }
    }

    fn skip(&mut self, place: &Place) -> Result<(), DataError> {
        let bytes = self.left.swap(0, Ordering::Relaxed) + self.padding;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = io::copy(&mut stream.by_ref().take(bytes), &mut io::sink()).map_err(|error| place.io(&error))?;
        if skipped == bytes { Ok(()) } else { Err(place.broken("a tar archive", "it is cut off within a member")) }
    }

    fn block(&mut self, place: &Place) -> Result<Option<[u8; BLOCK]>, DataError> {
        let mut block = Vec::with_capacity(BLOCK);
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.by_ref().take(BLOCK as u64).read_to_end(&mut block).map_err(|error| place.io(&error))?;
        match <[u8; BLOCK]>::try_from(block) {
            Ok(block) => Ok(Some(block)),
            Err(block) if block.is_empty() => Ok(None),
            Err(_) => Err(place.broken("a tar archive", "it is cut off within a header")),
        }
    }

    /// The contents of a small extended header.
    fn extended(&mut self, size: u64, place: &Place) -> Result<Vec<u8>, DataError> {
        place.limit(None, "bytes in a tar header", size.try_into().unwrap_or(usize::MAX), 16 * NAME_BYTES_MAX)?;
        let mut bytes = Vec::new();
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.by_ref().take(size).read_to_end(&mut bytes).map_err(|error| place.io(&error))?;
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        io::copy(&mut stream.by_ref().take(padding), &mut io::sink()).map_err(|error| place.io(&error))?;
        Ok(bytes)
    }
}

impl MemberSource for Tar {
    fn next(&mut self, place: &Place) -> Result<Option<Member>, DataError> {
        self.skip(place)?;
        self.padding = 0;
        let (mut long_name, mut long_size) = (None, None);
        loop {
            let Some(block) = self.block(place)? else {
                return Err(place.broken("a tar archive", "it ends without its end mark: it may be cut off"));
            };
            if block.iter().all(|byte| *byte == 0) {
                // What is around it compares its checksum at the very end only.
                let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
                io::copy(&mut *stream, &mut io::sink()).map_err(|error| place.io(&error))?;
                return Ok(None);
            }
            let header = TarHeader::parse(&block).map_err(|problem| place.broken("a tar archive", problem))?;
            match header.kind {
                b'x' => {
                    let records = self.extended(header.size, place)?;
                    for (key, value) in pax_records(&records).ok_or_else(|| place.broken("a tar archive", "a broken pax header"))? {
                        match key.as_str() {
                            "path" => long_name = Some(value),
                            "size" => {
                                let size = value.parse().map_err(|_| place.broken("a tar archive", "a size that is no number"))?;
                                long_size = Some(size);
                            }
                            _ => {}
                        }
                    }
                }
                b'g' => {
                    self.extended(header.size, place)?;
                }
                b'L' => {
                    let name = self.extended(header.size, place)?;
                    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                    long_name = Some(String::from_utf8_lossy(&name[..end]).into_owned());
                }
                b'K' => {
                    self.extended(header.size, place)?;
                }
                kind => {
                    let size = long_size.unwrap_or(header.size);
                    let name = long_name.take().unwrap_or(header.name);
                    long_size = None;
                    self.padding = size.checked_next_multiple_of(BLOCK as u64).map_or(0, |padded| padded - size);
                    self.left.store(size, Ordering::Relaxed);
                    let bytes = match kind {
                        b'0' | 0 | b'7' => {
                            let stream = TarMember { stream: self.stream.clone(), left: self.left.clone() };
                            Ok(Bytes::Stream(Box::new(BufReader::new(stream))))
                        }
                        b'5' => {
                            self.skip(place)?;
                            self.padding = 0;
                            continue;
                        }
                        b'1' | b'2' => Err("it is a link".to_owned()),
                        _ => Err("it is no plain file".to_owned()),
                    };
                    return Ok(Some(Member { name, bytes }));
                }
            }
        }
    }
}

struct TarHeader {
    name: String,
    size: u64,
    kind: u8,
}

impl TarHeader {
    fn parse(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        let sum: u64 = block.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { 32 } else { u64::from(*byte) }).sum();
        if octal(&block[148..156]) != Some(sum) {
            return Err("a header's checksum is wrong");
        }
        let text = |range: &[u8]| {
            let end = range.iter().position(|byte| *byte == 0).unwrap_or(range.len());
            String::from_utf8_lossy(&range[..end]).into_owned()
        };
        let (name, prefix) =
            (text(&block[..100]), if &block[257..262] == b"ustar" && block[262] == 0 { text(&block[345..500]) } else { String::new() });
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        // Sizes beyond 8 GiB are binary, marked by the first bit.
        let size = if block[124] & 0x80 != 0 {
            let bytes = &block[124..136];
            if bytes[0] != 0x80 || bytes[1..4].iter().any(|byte| *byte != 0) {
                return Err("a size beyond all bounds");
            }
            bytes[4..].iter().fold(0u64, |size, byte| size << 8 | u64::from(*byte))
        } else {
            octal(&block[124..136]).ok_or("a size that is no number")?
        };
        Ok(Self { name, size, kind: block[156] })
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits: Vec<u8> = field.iter().copied().skip_while(|byte| *byte == b' ').take_while(|byte| !matches!(byte, 0 | b' ')).collect();
    if digits.is_empty() || digits.len() > 20 {
        return Some(0).filter(|_| digits.is_empty());
    }
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// `length key=value\n` over and over.
fn pax_records(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let (key, value) = std::str::from_utf8(record).ok()?.split_once('=')?;
        records.push((key.to_owned(), value.to_owned()));
        bytes = &bytes[length..];
    }
    Some(records)
}

/// What is left of the current member.
struct TarMember {
    stream: Arc<Mutex<Box<dyn Read + Send>>>,
    left: Arc<AtomicU64>,
}

impl Read for TarMember {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let read = stream.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off within it"));
        }
        self.left.store(left - read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
