//! Append-only logs, one JSON object a line, each append fsynced; a torn last line is dropped on reopening and said.
use std::path::Path;

use crate::Result;

/// An open log.
#[derive(Debug)]
pub struct JsonlLog {}

impl JsonlLog {
    /// Opens or makes the log; a last line without its newline is cut off and its length is in [`JsonlLog::torn_bytes`].
    pub fn open(path: &Path) -> Result<Self> { todo!() }
    /// Bytes of a torn last line that opening cut off.
    pub fn torn_bytes(&self) -> u64 { todo!() }
    /// Appends a line and fsyncs.
    pub fn append(&mut self, value: &impl serde::Serialize) -> Result<()> { todo!() }
    /// Appends a line as it is (without newline) and fsyncs.
    pub fn append_line(&mut self, line: &str) -> Result<()> { todo!() }
}

/// All whole lines of a log; none if the file does not exist.
pub fn read_lines(path: &Path) -> Result<Vec<String>> { todo!() }

/// Appends what `make` returns after seeing all lines, while no other process can do the same: for hash
/// chains that several runs share.
pub fn append_after<E: From<crate::StoreError>>(path: &Path, make: impl FnOnce(&[String]) -> std::result::Result<Vec<String>, E>) -> std::result::Result<(), E> { todo!() }
