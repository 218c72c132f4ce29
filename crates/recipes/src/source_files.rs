//! The files of a source: one, an archive, or a folder of them, opened as one stream of documents.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use data::read::{self, BrokenRows, LIMITS};
use data::{Format, Input, ReadOptions, Reader};

use crate::error::{Error, Result};
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
    /// Of what the hash is, as it was before.
    stamp: blake3::Hash,
}

impl Opened {
    /// What was hashed is what was read: an error if the source is another now than before it was hashed.
    pub(crate) fn unchanged(&self, source: &Source, folder: &Path) -> Result<()> {
        let path = folder.join(&source.path);
        if stamp(&path)? == self.stamp { Ok(()) } else { Err(Error::SourceChanged { path }) }
    }
}

/// Length, time and place of a file, or of all files of a folder.
fn stamp(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut one = |path: &Path| {
        let stamp = format!("{:?} {:?}\n", path, store::source::stamp(path)?);
        hasher.update(stamp.as_bytes());
        Ok::<(), Error>(())
    };
    if path.is_dir() {
        store::source::files(path)?.iter().filter(|file| file.refused.is_none()).try_for_each(|file| one(&path.join(&file.path)))?;
    } else {
        one(path)?;
    }
    Ok(hasher.finalize())
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
    // Before anything is read, so that a file that is exchanged in between is another one in the end.
    let stamp = stamp(&path)?;
    if !path.is_dir() {
        let (hash, bytes) = hashed(&path)?;
        let (file, _) = store::atomic::open(&path)?;
        return Ok(Opened { reader: read::open(&name, buffered(file), &options(source))?, hash, bytes, stamp });
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
    Ok(Opened { reader: read::open_folder(&name, Box::new(opened), &options(source)), hash: hasher.finalize(), bytes, stamp })
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

/// Hash and length of a file, which must have the length that the system gives: one that grows while it is read has no hash, and
/// neither have the system's own tables, whose length is said to be 0.
fn hashed(path: &Path) -> Result<(blake3::Hash, u64)> {
    let (mut file, length) = store::atomic::open(path)?;
    let (mut hasher, mut buffer, mut bytes) = (blake3::Hasher::new(), vec![0; BUFFER_BYTES], 0);
    loop {
        match file.read(&mut buffer).map_err(|error| store::StoreError::io("read", path, error))? {
            0 if bytes == length => return Ok((hasher.finalize(), bytes)),
            0 => return Err(Error::SourceChanged { path: path.to_owned() }),
            _ if bytes > length => return Err(Error::SourceChanged { path: path.to_owned() }),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test makes files and changes them")]
mod tests {
    use super::*;
    use crate::spec::RunFile;

    fn source(path: &str) -> Source {
        let text = format!("[model]\nbase = \"b\"\n[[data.source]]\npath = \"{path}\"\nformat = \"csv\"\ninput = \"a\"\ntarget = \"b\"\n");
        RunFile::parse(&text, Path::new("t.toml")).unwrap().resolve(Path::new("/x/t.toml")).unwrap().sources.remove(0)
    }

    #[test]
    fn what_is_exchanged_or_grows_is_found_out() {
        let folder = std::env::temp_dir().join(format!("tunesmith-sources-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("rows")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("rows.csv", "a,b\n1,2\n");
        write("rows/1.csv", "a,b\n1,2\n");
        for path in ["rows.csv", "rows"] {
            let source = source(path);
            let opened = open(&source, &folder).unwrap();
            assert!(opened.unchanged(&source, &folder).is_ok(), "{path}");
            // Another file of the same length in its place.
            let name = if path == "rows" { "rows/1.csv" } else { path };
            write("other.csv", "a,b\n1,3\n");
            std::fs::rename(folder.join("other.csv"), folder.join(name)).unwrap();
            assert!(matches!(opened.unchanged(&source, &folder), Err(Error::SourceChanged { .. })), "{path}");
            let opened = open(&source, &folder).unwrap();
            write(name, "a,b\n1,3\n4,5\n");
            assert!(matches!(opened.unchanged(&source, &folder), Err(Error::SourceChanged { .. })), "{path}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        #[cfg(target_os = "linux")]
        assert!(matches!(hashed(Path::new("/proc/self/environ")), Err(Error::SourceChanged { .. })));
    }
}
