//! Files mapped into memory: their pages come from the file when they are read, and the system may drop them again.
//!
//! The one place of this crate with `unsafe`. A file that is mapped must stay as it is: what another program writes into it is
//! seen, and where it is cut off reading ends this process. Model files are replaced by renaming, which leaves a mapped one
//! alone; they are mapped after their hashes were taken, and only as long as tensors of them are held.
#![expect(unsafe_code, reason = "mapping a file has no safe form")]

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use memmap2::Mmap;

use crate::{Result, StoreError};

/// A file mapped for reading.
#[derive(Clone, Debug)]
pub(crate) struct MappedFile(Arc<Mmap>);

/// Some bytes of a mapped file, which stays mapped as long as they are held.
#[derive(Clone, Debug)]
pub struct MappedBytes {
    file: MappedFile,
    start: usize,
    len: usize,
}

impl MappedFile {
    /// Maps the whole file; `path` is for the message.
    pub(crate) fn open(file: &File, path: &Path) -> Result<MappedFile> {
        // SAFETY: the mapping is only for reading, and nothing of what is read decides about memory: every bit pattern is a number or
        // a code of a tensor whose size was checked before. That no other program changes the file is what the module asks for.
        let map = unsafe { Mmap::map(file) }.map_err(|e| StoreError::io("map", path, e))?;
        Ok(MappedFile(Arc::new(map)))
    }

    /// `len` bytes from `start` on; `None` where the file, which may have been cut off since it was opened, has not as many.
    pub(crate) fn bytes(&self, start: u64, len: usize) -> Option<MappedBytes> {
        let start = usize::try_from(start).ok()?;
        let whole = MappedBytes { file: self.clone(), start: 0, len: self.0.len() };
        whole.part(start, len)
    }
}

/// The mapping of a file that is mapped at most once.
pub(crate) fn of<'a>(mapped: &'a OnceLock<MappedFile>, file: &File, path: &Path) -> Result<&'a MappedFile> {
    match mapped.get() {
        Some(mapped) => Ok(mapped),
        None => {
            let opened = MappedFile::open(file, path)?;
            Ok(mapped.get_or_init(|| opened))
        }
    }
}

/// The error for a file that has become shorter than when it was opened.
pub(crate) fn cut_off(path: &Path) -> StoreError {
    StoreError::io("map", path, std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it has become shorter since it was opened"))
}

impl MappedBytes {
    /// `len` of these bytes from `start` on; `None` where they are not as many.
    pub fn part(&self, start: usize, len: usize) -> Option<MappedBytes> {
        let fits = start.checked_add(len).is_some_and(|end| end <= self.len);
        fits.then(|| MappedBytes { file: self.file.clone(), start: self.start + start, len })
    }
}

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.file.0[self.start..][..self.len]
    }
}
