//! Run folders: `runs/<name>/<id>/`, private, locked by one process, every write atomic.
//!
//! The lock is the operating system's, on a file inside: it goes with the process that holds it, however
//! that ends. What is inside can be read without Tunesmith; DESIGN §4 shows the layout.
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::jsonl::JsonlLog;
use crate::{Result, StoreError, atomic};

/// Longer project names and run ids are refused.
pub const MAX_NAME_LENGTH: usize = 100;
const LOCK_FILE: &str = ".lock";

/// A run's folder, locked by this process until dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

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
    pub fn create(project_root: &Path, name: &str, id: &str) -> Result<Self> {
        Self::create_with(project_root, name, id, &[])
    }

    /// The same with these files in it: killed at any instant, there is a run that can go on, or none at all.
    pub fn create_with(project_root: &Path, name: &str, id: &str, files: &[(&str, &[u8])]) -> Result<Self> {
        check_name("project name", name)?;
        check_name("run id", id)?;
        let project = project_root.join("runs").join(name);
        private().recursive(true).create(&project).map_err(|e| StoreError::io("make the folder", &project, e))?;
        let path = project.join(id);
        if path.exists() {
            return Err(StoreError::RunExists { path });
        }
        remove_unborn(&project)?;
        let hidden = atomic::beside(&path);
        private().create(&hidden).map_err(|e| StoreError::io("make the folder", &path, e))?;
        let put = |(file, bytes): &(&str, &[u8])| {
            let written = File::create_new(hidden.join(file)).and_then(|mut place| place.write_all(bytes).and_then(|()| place.sync_all()));
            written.map_err(|e| StoreError::io("write", &path.join(file), e))
        };
        // Locked before it is seen, and known as being written by it.
        let placed = lock(&hidden).and_then(|lock| files.iter().try_for_each(put).map(|()| lock));
        let placed = placed.and_then(|lock| atomic::sync_folder(&hidden).map(|()| lock));
        let placed =
            placed.and_then(|lock| std::fs::rename(&hidden, &path).map(|()| lock).map_err(|e| StoreError::io("make the folder", &path, e)));
        match placed {
            Ok(lock) => {
                atomic::sync_folder(&project)?;
                Ok(Self { path, _lock: lock })
            }
            Err(error) => {
                let _ = std::fs::remove_dir_all(&hidden); // the error is what counts
                Err(error)
            }
        }
    }

    /// Opens and locks an existing run folder; leftovers of a killed process are removed.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(StoreError::Missing { path: path.to_path_buf() });
        }
        let run = Self { path: path.to_path_buf(), _lock: lock(path)? };
        remove_pending(path, 4)?;
        Ok(run)
    }

    /// All runs of a project, by name and id.
    pub fn list(project_root: &Path) -> Result<Vec<RunEntry>> {
        let runs = project_root.join("runs");
        let mut entries = Vec::new();
        for name in folders(&runs)? {
            for id in folders(&runs.join(&name))? {
                let path = runs.join(&name).join(&id);
                let locked_by = holder(&path);
                entries.push(RunEntry { name: name.clone(), id, path, locked_by });
            }
        }
        Ok(entries)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file inside, such as `plan.toml` or `data/records/train.jsonl`.
    ///
    /// # Panics
    /// If the path is empty or would leave the folder: names inside a run are the program's own.
    pub fn file(&self, relative: &str) -> PathBuf {
        let inside = !relative.is_empty() && Path::new(relative).components().all(|c| matches!(c, Component::Normal(_)));
        assert!(inside, "{relative:?} is not a path inside a run folder");
        self.path.join(relative)
    }

    /// Writes a file inside, atomically; folders on the way are made.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> Result<()> {
        atomic::write(&self.ready(relative)?, bytes)
    }

    /// Starts a file inside that is written piece by piece; folders on the way are made.
    pub fn pending(&self, relative: &str) -> Result<atomic::Pending> {
        atomic::Pending::create(&self.ready(relative)?)
    }

    /// Opens an append-only log inside; folders on the way are made.
    pub fn log(&self, relative: &str) -> Result<JsonlLog> {
        JsonlLog::open(&self.ready(relative)?)
    }

    fn ready(&self, relative: &str) -> Result<PathBuf> {
        let path = self.file(relative);
        atomic::create_folder(path.parent().expect("a file inside a folder has a parent"))?;
        Ok(path)
    }
}

/// `project_root/runs/ledger.jsonl`.
pub fn project_ledger(project_root: &Path) -> PathBuf {
    project_root.join("runs").join("ledger.jsonl")
}

pub(crate) fn check_name(what: &'static str, given: &str) -> Result<()> {
    let plain = given.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if plain && !given.is_empty() && given.len() <= MAX_NAME_LENGTH && !given.starts_with('.') {
        return Ok(());
    }
    Err(StoreError::Name { what, given: crate::error::shown(given), limit: MAX_NAME_LENGTH })
}

/// Folders that only their owner can look into.
fn private() -> DirBuilder {
    #[allow(unused_mut, reason = "only Unix has modes")]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Takes the run's lock and leaves this process' id in it.
fn lock(run: &Path) -> Result<File> {
    const ATTEMPTS: u32 = 5;
    let path = run.join(LOCK_FILE);
    let failed = |e| StoreError::io("lock", &path, e);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(e)) => return Err(failed(e)),
            // Someone listing runs looks at the lock for an instant: that is no holder.
            Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => {
                let name = |p: Option<&Path>| p.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                let label = format!("{}/{}", name(run.parent()), name(Some(run)));
                return Err(StoreError::RunLocked { run: label, pid: noted_pid(&mut file), path: run.to_path_buf() });
            }
        }
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// The process that holds a run's lock at this instant.
fn holder(run: &Path) -> Option<u32> {
    let mut file = File::open(run.join(LOCK_FILE)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(noted_pid(&mut file).unwrap_or(0)),
        _ => None,
    }
}

fn noted_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Names of the plain folders in a folder, sorted; none if it does not exist.
pub(crate) fn folders(path: &Path) -> Result<Vec<String>> {
    let failed = |e| StoreError::io("read", path, e);
    let entries = match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().map_err(failed)?.is_dir() && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes run folders that killed processes were making; one whose lock is held is being made now.
fn remove_unborn(project: &Path) -> Result<()> {
    for folder in atomic::leftovers(project, "")? {
        // Without a lock in it, it is an instant old or has nothing in it.
        let ended = File::open(folder.join(LOCK_FILE)).is_ok_and(|lock| lock.try_lock().is_ok());
        if ended {
            std::fs::remove_dir_all(&folder).map_err(|e| StoreError::io("remove", &folder, e))?;
        }
    }
    Ok(())
}

/// Removes what a killed process was writing.
fn remove_pending(folder: &Path, depth: u32) -> Result<()> {
    let failed = |e| StoreError::io("clean up", folder, e);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (kind, path) = (entry.file_type().map_err(failed)?, entry.path());
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match atomic::is_pending(&name, "") {
            true if kind.is_dir() => std::fs::remove_dir_all(&path).map_err(failed)?,
            true => std::fs::remove_file(&path).map_err(failed)?,
            false if kind.is_dir() && depth > 0 => remove_pending(&path, depth - 1)?,
            false => {}
        }
    }
    Ok(())
}
