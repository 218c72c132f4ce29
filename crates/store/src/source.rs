//! The files of a source that is a folder.
//!
//! What `.gitignore` and `.ignore` leave out is left out, as are hidden files; links, devices and pipes are named, so that
//! they can be said, but never opened.

use std::path::Path;

use ignore::WalkBuilder;

use crate::{Result, StoreError};

/// Folders within each other.
const DEPTH_MAX: usize = 64;
/// Files of a folder.
const FILES_MAX: usize = 1_000_000;

/// A file below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path below the folder, with forward slashes.
    pub path: String,
    /// Why it is not to be read: a link, a device, a name that is no text.
    pub refused: Option<&'static str>,
}

/// What tells whether a file is still the one that it was, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    bytes: u64,
    modified: Option<std::time::SystemTime>,
    /// Device and number of the file, where the system has such.
    place: (u64, u64),
}

/// The stamp of the file that a path leads to now.
pub fn stamp(path: &Path) -> Result<Stamp> {
    let found = std::fs::metadata(path).map_err(|error| StoreError::io("read", path, error))?;
    #[cfg(unix)]
    let place = {
        use std::os::unix::fs::MetadataExt;
        (found.dev(), found.ino())
    };
    #[cfg(not(unix))]
    let place = (0, 0);
    Ok(Stamp { bytes: found.len(), modified: found.modified().ok(), place })
}

/// The files below `folder` that its ignore files do not leave out, sorted by path.
pub fn files(folder: &Path) -> Result<Vec<SourceFile>> {
    let failed = |reason: String| StoreError::io("list", folder, std::io::Error::other(reason));
    let walk = WalkBuilder::new(folder)
        .follow_links(false)
        .require_git(false)
        // Only what lies within the folder decides, or the same folder would be another source on another machine.
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .max_depth(Some(DEPTH_MAX + 1))
        .build();
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|error| failed(error.to_string()))?;
        let Some(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if entry.depth() > DEPTH_MAX {
                return Err(failed(format!("more than {DEPTH_MAX} folders within each other")));
            }
            continue;
        }
        let below = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let path = below.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
        let refused = if kind.is_symlink() {
            Some("it is a link")
        } else if !kind.is_file() {
            Some("it is no plain file")
        } else if below.to_str().is_none() {
            Some("its name is not UTF-8")
        } else {
            None
        };
        if files.len() == FILES_MAX {
            return Err(failed(format!("more than {FILES_MAX} files")));
        }
        files.push(SourceFile { path, refused });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
