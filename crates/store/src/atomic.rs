//! Whole files, all or nothing: temp in the same folder, fsync, rename, fsync of the folder.
//!
//! A reader sees the old file or the new one, never a part; a crash leaves the old one; an error leaves
//! nothing behind. Folders are written the same way by [`PendingFolder`].
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::{Result, StoreError};

/// Names of files and folders that are being written contain this; a killed process leaves them behind.
const PENDING: &str = ".pending-";

/// A file being written: it appears at its place with [`Pending::commit`], or not at all.
#[derive(Debug)]
pub struct Pending {
    temporary: PathBuf,
    place: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Pending {
    /// Starts a file that will stand at `place`; its folder must exist.
    pub fn create(place: &Path) -> Result<Self> {
        let temporary = beside(place);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(|e| StoreError::io("write", place, e))?;
        Ok(Self { temporary, place: place.to_path_buf(), file: Some(BufWriter::with_capacity(1 << 20, file)) })
    }

    /// Where it will stand.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Where it is meanwhile; what was written last may still be on its way there until [`Write::flush`].
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Makes it durable and visible.
    pub fn commit(mut self) -> Result<()> {
        let failed = |e| StoreError::io("write", &self.place, e);
        let buffered = self.file.take().expect("a pending file is open until it is committed");
        let file = buffered.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        drop(file);
        std::fs::rename(&self.temporary, &self.place).map_err(failed)?;
        sync_folder(parent(&self.place))
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.as_mut().expect("a pending file is open until it is committed").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().expect("a pending file is open until it is committed").flush()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            drop(file.into_parts()); // closed without writing what is buffered
        }
        let _ = std::fs::remove_file(&self.temporary); // not there any more after a commit
    }
}

/// A folder being written: it appears at its place with [`PendingFolder::commit`], or not at all.
#[derive(Debug)]
pub struct PendingFolder {
    temporary: PathBuf,
    place: PathBuf,
    done: bool,
}

impl PendingFolder {
    /// Starts a folder that will stand at `place`; its parent is made where missing.
    pub fn create(place: &Path) -> Result<Self> {
        create_folder(parent(place))?;
        let temporary = beside(place);
        std::fs::create_dir(&temporary).map_err(|e| StoreError::io("write", place, e))?;
        Ok(Self { temporary, place: place.to_path_buf(), done: false })
    }

    /// Where to put the files meanwhile.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Writes and fsyncs a file in it; errors name its final place.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let failed = |e| StoreError::io("write", &self.place.join(name), e);
        let mut file = File::create_new(self.temporary.join(name)).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Makes it visible; a folder that stood there is replaced.
    pub fn commit(mut self) -> Result<()> {
        let failed = |e| StoreError::io("write", &self.place, e);
        sync_folder(&self.temporary)?;
        let replaced = beside(&self.place);
        let old = match std::fs::rename(&self.place, &replaced) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => return Err(failed(e)),
        };
        if let Err(e) = std::fs::rename(&self.temporary, &self.place) {
            if old {
                let _ = std::fs::rename(&replaced, &self.place); // the old one back; the error is what counts
            }
            return Err(failed(e));
        }
        self.done = true;
        sync_folder(parent(&self.place))?;
        if old {
            std::fs::remove_dir_all(&replaced).map_err(|e| StoreError::io("remove", &replaced, e))?;
        }
        Ok(())
    }
}

impl Drop for PendingFolder {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Replaces `path` by `bytes`, all or nothing.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Replaces `path` by what `fill` writes, all or nothing; on an error nothing is left behind.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut pending = Pending::create(path)?;
    fill(&mut pending).map_err(|e| StoreError::io("write", path, e))?;
    pending.commit()
}

/// Removes what killed processes left of writing `place`; the caller holds a lock without which nobody writes it.
pub fn remove_leftovers(place: &Path) -> Result<()> {
    for left in leftovers(parent(place), &name_of(place))? {
        std::fs::remove_file(&left).map_err(|e| StoreError::io("remove", &left, e))?;
    }
    Ok(())
}

/// What is being written in a folder, or was by a process that is gone: hidden names that begin like `name`'s.
pub(crate) fn leftovers(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let failed = |e| StoreError::io("read", folder, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let given = entry.file_name();
        if is_pending(&given.to_string_lossy(), name) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a file's name is that of something being written to the place `name`, or to any place where `name` is empty.
pub(crate) fn is_pending(given: &str, name: &str) -> bool {
    given.strip_prefix('.').is_some_and(|given| {
        given.contains(PENDING) && (name.is_empty() || given.strip_prefix(name).is_some_and(|rest| rest.starts_with(PENDING)))
    })
}

/// Replaces `path` by pretty JSON and a newline.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|reason| StoreError::Json { reason, path: path.to_path_buf() })?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// Opens a plain file for reading; folders, devices and pipes are refused before anything blocks.
pub fn open(path: &Path) -> Result<(File, u64)> {
    let failed = |e| StoreError::io("read", path, e);
    plain(path, &std::fs::metadata(path).map_err(failed)?)?;
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?; // what was opened counts, not what was looked at
    plain(path, &found)?;
    Ok((file, found.len()))
}

fn plain(path: &Path, found: &std::fs::Metadata) -> Result<()> {
    let found = match () {
        () if found.is_file() => return Ok(()),
        () if found.is_dir() => "a folder",
        () => "a device or pipe",
    };
    Err(StoreError::NotAFile { found, path: path.to_path_buf() })
}

/// Reads a whole file of at most `limit` bytes; refuses folders, devices and pipes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, given) = open(path)?;
    let too_large = |given| StoreError::TooLarge { given, limit, path: path.to_path_buf() };
    if given > limit {
        return Err(too_large(given));
    }
    let mut bytes = Vec::with_capacity(given as usize);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| StoreError::io("read", path, e))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64)); // it grew while being read, or its length was a lie
    }
    Ok(bytes)
}

/// Reads a UTF-8 file of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|e| StoreError::NotUtf8 { at: e.utf8_error().valid_up_to(), path: path.to_path_buf() })
}

/// Reads a JSON file of at most `limit` bytes.
pub fn read_json(path: &Path, limit: u64) -> Result<serde_json::Value> {
    serde_json::from_slice(&read(path, limit)?).map_err(|reason| StoreError::Json { reason, path: path.to_path_buf() })
}

/// Reads a JSON file that must hold an object.
pub(crate) fn read_object(path: &Path, limit: u64) -> Result<serde_json::Value> {
    use serde_json::Value;
    let value = read_json(path, limit)?;
    let given = match value {
        Value::Object(_) => return Ok(value),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
    };
    Err(StoreError::NotAnObject { given, path: path.to_path_buf() })
}

/// SHA-256 in lower-case hexadecimal of a file and its length; `progress` gets the bytes read so far.
pub fn sha256(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<(String, u64)> {
    let (mut file, _) = open(path)?;
    let (mut hash, mut buffer, mut total) = (Sha256::new(), vec![0u8; 1 << 20], 0u64);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok((hex(&hash.finalize()), total)),
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(StoreError::io("read", path, e)),
        };
        hash.update(&buffer[..count]);
        total += count as u64;
        progress(total);
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Makes a folder and its parents.
pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| StoreError::io("make the folder", path, e))
}

/// Removes a folder; killed half-way, what is left is hidden and cleaned up later.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    let failed = |e| StoreError::io("remove", path, e);
    let hidden = beside(path);
    std::fs::rename(path, &hidden).map_err(failed)?;
    std::fs::remove_dir_all(&hidden).map_err(failed)
}

/// Fills `buffer` from `offset` without moving a shared position.
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }
}

/// Makes what was renamed in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| StoreError::io("write", folder, e))?;
    #[cfg(not(unix))]
    let _ = folder; // Windows has no such call; NTFS journals renames
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A fresh hidden name in the same folder.
pub(crate) fn beside(place: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = name_of(place);
    parent(place).join(format!(".{name}{PENDING}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn name_of(place: &Path) -> String {
    place.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}
