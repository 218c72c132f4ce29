//! Whole files, all or nothing: temp in the same folder, fsync, rename, fsync of the folder.
use std::io::Write;
use std::path::Path;

use crate::Result;

/// Replaces `path` by `bytes`, all or nothing.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> { todo!() }
/// Replaces `path` by what `fill` writes, all or nothing; on an error nothing is left behind.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> { todo!() }
/// Replaces `path` by pretty JSON and a newline.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> { todo!() }
/// Reads a whole file of at most `limit` bytes; refuses folders, devices and pipes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> { todo!() }
/// Reads a UTF-8 file of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> Result<String> { todo!() }
/// Reads a JSON file of at most `limit` bytes.
pub fn read_json(path: &Path, limit: u64) -> Result<serde_json::Value> { todo!() }
/// SHA-256 in lower-case hexadecimal of a file and its length; `progress` gets the bytes read so far.
pub fn sha256(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<(String, u64)> { todo!() }
/// SHA-256 in lower-case hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String { todo!() }
/// Makes a folder and its parents.
pub fn create_folder(path: &Path) -> Result<()> { todo!() }
