//! Run folders: `runs/<name>/<id>/`, private, locked by one process, every write atomic.
use std::path::{Path, PathBuf};

use crate::Result;
use crate::jsonl::JsonlLog;

/// A run's folder, locked by this process until dropped.
#[derive(Debug)]
pub struct RunFolder {}

/// A run that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEntry {
    /// Project name.
    pub name: String,
    /// Run id.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// The process that holds its lock now.
    pub locked_by: Option<u32>,
}

impl RunFolder {
    /// Makes `project_root/runs/name/id/` (mode 0700) and locks it; an existing one is refused.
    pub fn create(project_root: &Path, name: &str, id: &str) -> Result<Self> { todo!() }
    /// Opens and locks an existing run folder; leftovers of a killed process are removed.
    pub fn open(path: &Path) -> Result<Self> { todo!() }
    /// All runs of a project, by name and id.
    pub fn list(project_root: &Path) -> Result<Vec<RunEntry>> { todo!() }
    /// The folder.
    pub fn path(&self) -> &Path { todo!() }
    /// A file inside, such as `plan.toml` or `data/records/train.jsonl`.
    pub fn file(&self, relative: &str) -> PathBuf { todo!() }
    /// Writes a file inside, atomically; folders on the way are made.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> Result<()> { todo!() }
    /// Opens an append-only log inside.
    pub fn log(&self, relative: &str) -> Result<JsonlLog> { todo!() }
}

/// `project_root/runs/ledger.jsonl`.
pub fn project_ledger(project_root: &Path) -> PathBuf { todo!() }
