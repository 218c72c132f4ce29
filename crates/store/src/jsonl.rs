//! Append-only logs, one JSON object a line, each append fsynced; a torn last line is dropped on reopening and said.
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{Result, StoreError, atomic};

/// A log is not read beyond this many bytes.
pub const MAX_LOG_BYTES: u64 = 4 << 30;

/// An open log.
#[derive(Debug)]
pub struct JsonlLog {
    path: PathBuf,
    file: File,
    length: u64,
    torn_bytes: u64,
}

impl JsonlLog {
    /// Opens or makes the log; a last line without its newline is cut off and its length is in [`JsonlLog::torn_bytes`].
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e| StoreError::io("append to", path, e);
        let fresh = !path.exists();
        let file = open_or_create(path)?;
        if fresh {
            file.sync_all().map_err(failed)?;
            atomic::sync_folder(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        }
        Self::recover(file, path)
    }

    fn recover(mut file: File, path: &Path) -> Result<Self> {
        let failed = |e| StoreError::io("append to", path, e);
        let full = file.metadata().map_err(failed)?.len();
        let length = whole_length(&mut file, full).map_err(failed)?;
        if length < full {
            file.set_len(length).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        Ok(Self { path: path.to_path_buf(), file, length, torn_bytes: full - length })
    }

    /// Bytes of a torn last line that opening cut off.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Appends a line and fsyncs.
    pub fn append(&mut self, value: &impl serde::Serialize) -> Result<()> {
        let line = serde_json::to_string(value).map_err(|reason| StoreError::Json { reason, path: self.path.clone() })?;
        self.append_line(&line)
    }

    /// Appends a line as it is (without newline) and fsyncs. After an error the log is as it was.
    ///
    /// # Panics
    /// If `line` contains a newline.
    pub fn append_line(&mut self, line: &str) -> Result<()> {
        assert!(!line.contains('\n'), "a log's line has a newline in it");
        let bytes = [line.as_bytes(), b"\n"].concat();
        if let Err(e) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            let _ = self.file.set_len(self.length); // as it was; the error is what counts
            return Err(StoreError::io("append to", &self.path, e));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn lines(&mut self) -> Result<Vec<String>> {
        let failed = |e| StoreError::io("read", &self.path, e);
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Read::by_ref(&mut self.file).take(self.length).read_to_end(&mut bytes).map_err(failed)?;
        split(bytes, &self.path)
    }
}

fn open_or_create(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path).map_err(|e| StoreError::io("append to", path, e))
}

/// Length up to and with the last newline.
fn whole_length(file: &mut File, full: u64) -> std::io::Result<u64> {
    const STEP: u64 = 1 << 16;
    let mut end = full;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut part = vec![0u8; (end - start) as usize];
        atomic::read_exact_at(file, &mut part, start)?;
        if let Some(last) = part.iter().rposition(|&b| b == b'\n') {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn split(mut bytes: Vec<u8>, path: &Path) -> Result<Vec<String>> {
    bytes.truncate(bytes.iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1));
    let text = String::from_utf8(bytes).map_err(|e| StoreError::NotUtf8 { at: e.utf8_error().valid_up_to(), path: path.to_path_buf() })?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// All whole lines of a log, a torn last one left out; none if the file does not exist.
pub fn read_lines(path: &Path) -> Result<Vec<String>> {
    match atomic::read(path, MAX_LOG_BYTES) {
        Ok(bytes) => split(bytes, path),
        Err(StoreError::Missing { .. }) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Appends what `make` returns after seeing all lines, while no other process can do the same: for hash
/// chains that several runs share.
pub fn append_after<E: From<StoreError>>(
    path: &Path,
    make: impl FnOnce(&[String]) -> std::result::Result<Vec<String>, E>,
) -> std::result::Result<(), E> {
    let file = open_or_create(path)?;
    file.lock().map_err(|e| StoreError::io("lock", path, e))?; // until the log is dropped
    let mut log = JsonlLog::recover(file, path)?;
    let lines = log.lines()?;
    for line in make(&lines)? {
        log.append_line(&line)?;
    }
    Ok(())
}
