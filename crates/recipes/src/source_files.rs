//! The files of a source: one, an archive, or a folder of them, opened as one stream of documents.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use data::read::{self, BrokenRows, LIMITS};
use data::{Format, Input, ReadOptions, Reader};

use crate::error::Result;
use crate::spec::Source;

/// Bytes read ahead of a file.
const BUFFER_BYTES: usize = 1 << 18;

/// A source that is open.
pub(crate) struct Opened {
    /// Its documents.
    pub(crate) reader: Reader,
    /// BLAKE3 of its bytes; of a folder, of all its files' paths and hashes.
    pub(crate) hash: blake3::Hash,
    /// How many bytes there are.
    pub(crate) bytes: u64,
}

/// How a source is to be read.
pub(crate) fn options(source: &Source) -> ReadOptions {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let reading = &source.reading;
    ReadOptions {
        format: Format::from_name(&source.format).filter(|_| !source.format.is_empty()),
        broken_rows: if reading.reject_broken_rows { BrokenRows::Reject } else { BrokenRows::Refuse },
        delimiter: reading.delimiter.bytes().next(),
        quote: reading.quote.bytes().next(),
        header: reading.header,
        encoding: given(&reading.encoding),
        repair_mojibake: reading.repair_mojibake,
        sheet: given(&reading.sheet),
        xml_record: given(&reading.xml_record),
        ..ReadOptions::recognise(LIMITS)
    }
}

/// Opens a source; `folder` is the run file's. All of it is hashed first.
pub(crate) fn open(source: &Source, folder: &Path) -> Result<Opened> {
    let (path, name) = (folder.join(&source.path), source.path.display().to_string());
    if !path.is_dir() {
        let (hash, bytes) = hashed(&path)?;
        let (file, _) = store::atomic::open(&path)?;
        return Ok(Opened { reader: read::open(&name, buffered(file), &options(source))?, hash, bytes });
    }
    let files = store::source::files(&path)?;
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    for file in files.iter().filter(|file| file.refused.is_none()) {
        let (hash, length) = hashed(&path.join(&file.path))?;
        hasher.update(&(file.path.len() as u64).to_le_bytes()).update(file.path.as_bytes()).update(hash.as_bytes());
        bytes += length;
    }
    let opened = files.into_iter().map(move |file| {
        let input = match file.refused {
            Some(why) => Err(why.to_owned()),
            None => store::atomic::open(&path.join(&file.path)).map(|(file, _)| buffered(file)).map_err(|error| error.to_string()),
        };
        (file.path, input)
    });
    Ok(Opened { reader: read::open_folder(&name, Box::new(opened), &options(source)), hash: hasher.finalize(), bytes })
}

/// The shape of its rows, and whatever else was recognised and is not what every file is.
pub(crate) fn described(reader: &Reader) -> String {
    let usual = |what: &str, value: &str| what == "delimiter" && value == ",";
    let found = reader.found().iter().filter(|(what, value)| !usual(what, value)).map(|(what, value)| format!("{what}: {value}"));
    [reader.shape().name().to_owned()].into_iter().chain(found).collect::<Vec<_>>().join("; ")
}

/// One file, to be read as it is.
pub(crate) fn input(path: &Path) -> Result<Box<dyn Input>> {
    Ok(buffered(store::atomic::open(path)?.0))
}

fn buffered(file: File) -> Box<dyn Input> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, file))
}

/// Hash and length of a file.
fn hashed(path: &Path) -> Result<(blake3::Hash, u64)> {
    let (mut file, _) = store::atomic::open(path)?;
    let (mut hasher, mut buffer, mut bytes) = (blake3::Hasher::new(), vec![0; BUFFER_BYTES], 0);
    loop {
        match file.read(&mut buffer).map_err(|error| store::StoreError::io("read", path, error))? {
            0 => return Ok((hasher.finalize(), bytes)),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}
