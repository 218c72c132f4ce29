//! Scratch files: in memory while small, in a file without a name once larger. Nothing stays behind, however the
//! process ends.
use std::fs::{File, OpenOptions};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::atomic;

/// Bytes up to which a scratch file stays in memory.
pub const MEMORY_BYTES: u64 = 1 << 20;

/// A scratch file.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Cursor<Vec<u8>>),
    File(File),
}

impl Scratch {
    /// An empty one; if it grows, it goes into this folder, which is made where missing.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), place: Place::Memory(Cursor::new(Vec::new())) }
    }

    /// Whether it is in a file by now.
    pub fn on_disk(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// Moves what is in memory into a file.
    fn grow(&mut self) -> std::io::Result<()> {
        let Place::Memory(memory) = &mut self.place else { return Ok(()) };
        let mut file = nameless(&self.folder)?;
        file.write_all(memory.get_ref())?;
        file.seek(SeekFrom::Start(memory.position()))?;
        self.place = Place::File(file);
        Ok(())
    }
}

/// A file that has lost its name: the system frees it when the last handle goes.
fn nameless(folder: &Path) -> std::io::Result<File> {
    atomic::create_folder(folder).map_err(std::io::Error::other)?;
    let path = atomic::beside(&folder.join("scratch"));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(windows)]
    {
        const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
        std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, FILE_FLAG_DELETE_ON_CLOSE);
    }
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path)?;
    #[cfg(not(windows))]
    std::fs::remove_file(&path)?;
    Ok(file)
}

impl Read for Scratch {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.place {
            Place::Memory(memory) => memory.read(bytes),
            Place::File(file) => file.read(bytes),
        }
    }
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Place::Memory(memory) = &mut self.place {
            if memory.position().saturating_add(bytes.len() as u64) <= MEMORY_BYTES {
                return memory.write(bytes);
            }
            self.grow()?;
        }
        match &mut self.place {
            Place::Memory(memory) => memory.write(bytes),
            Place::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.place {
            Place::Memory(_) => Ok(()),
            Place::File(file) => file.flush(),
        }
    }
}

impl Seek for Scratch {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        match &mut self.place {
            Place::Memory(memory) => memory.seek(to),
            Place::File(file) => file.seek(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_into_a_file_and_leaves_nothing() {
        let folder = std::env::temp_dir().join(format!("tunesmith-scratch-{}", std::process::id()));
        let mut scratch = Scratch::new(&folder);
        scratch.write_all(b"beginning").unwrap();
        scratch.seek(SeekFrom::Start(3)).unwrap();
        scratch.write_all(b"IN").unwrap();
        assert!(!scratch.on_disk());
        scratch.seek(SeekFrom::End(0)).unwrap();
        scratch.write_all(&vec![7; MEMORY_BYTES as usize]).unwrap();
        assert!(scratch.on_disk());
        #[cfg(not(windows))]
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        let mut text = [0; 10];
        scratch.seek(SeekFrom::Start(0)).unwrap();
        scratch.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"begINning\x07");
        drop(scratch);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
