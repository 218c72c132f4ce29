//! What lies below a folder.

use std::path::Path;

use crate::{Result, StoreError};

/// Folders deeper than this are refused: run folders are shallow.
const DEPTH_MAX: usize = 16;

/// The plain files below `folder` as relative paths with forward slashes, in order; links are not followed.
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    walk(folder, String::new(), 0, &mut files)?;
    files.sort();
    Ok(files)
}

/// Bytes of the plain files below `folder`.
pub fn bytes_below(folder: &Path) -> Result<u64> {
    let size = |name: String| {
        let path = folder.join(name);
        std::fs::metadata(&path).map(|found| found.len()).map_err(|error| StoreError::io("read", &path, error))
    };
    files_below(folder)?.into_iter().map(size).sum()
}

fn walk(folder: &Path, prefix: String, depth: usize, files: &mut Vec<String>) -> Result<()> {
    let failed = |error| StoreError::io("list", folder, error);
    if depth > DEPTH_MAX {
        return Err(failed(std::io::Error::other(format!("more than {DEPTH_MAX} folders deep"))));
    }
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            walk(&entry.path(), format!("{name}/"), depth + 1, files)?;
        } else if kind.is_file() {
            files.push(name);
        }
    }
    Ok(())
}
