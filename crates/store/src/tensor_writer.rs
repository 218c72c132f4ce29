//! Model files written tensor by tensor, so that no model ever stands in memory as a whole.
use std::io::Write;
use std::path::Path;

use crate::atomic::Pending;
use crate::{Result, StoreError};

/// A file whose head is written and whose tensors follow, in pieces of any length. Dropped before its end it leaves nothing.
#[derive(Debug)]
pub struct TensorWriter {
    out: Pending,
    /// Bytes of the tensors, in order.
    sizes: Vec<usize>,
    /// The tensor being written, and how much of it is.
    tensor: usize,
    written: usize,
    alignment: u64,
    /// Bytes of the file so far.
    at: u64,
}

impl TensorWriter {
    /// Writes `head`, after which each tensor begins at a multiple of `alignment`.
    pub(crate) fn begin(out: Pending, head: &[u8], sizes: Vec<usize>, alignment: u64) -> Result<TensorWriter> {
        let mut writer = TensorWriter { out, sizes, tensor: 0, written: 0, alignment, at: 0 };
        writer.put(head)?;
        writer.align()?;
        writer.skip_empty();
        Ok(writer)
    }

    /// The next bytes of the tensor that is not whole yet.
    ///
    /// # Panics
    /// If they are more than it has left: tensors are written one by one.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let left = self.sizes.get(self.tensor).map_or(0, |size| size - self.written);
        assert!(bytes.len() <= left, "{} bytes for a tensor that has {left} left", bytes.len());
        self.put(bytes)?;
        self.written += bytes.len();
        if bytes.len() == left {
            (self.tensor, self.written) = (self.tensor + 1, 0);
            self.align()?;
            self.skip_empty();
        }
        Ok(())
    }

    /// The whole file, readable under [`Pending::temporary`], not yet at its place.
    ///
    /// # Panics
    /// If a tensor is not whole.
    pub fn finish(mut self) -> Result<Pending> {
        assert_eq!((self.tensor, self.written), (self.sizes.len(), 0), "tensors are missing");
        self.out.flush().map_err(|e| StoreError::io("write", self.out.place(), e))?;
        Ok(self.out)
    }

    /// Where it will stand.
    pub fn place(&self) -> &Path {
        self.out.place()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| StoreError::io("write", self.out.place(), e))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> Result<()> {
        let padding = self.at.next_multiple_of(self.alignment) - self.at;
        self.put(&vec![0; padding as usize])
    }

    fn skip_empty(&mut self) {
        while self.sizes.get(self.tensor) == Some(&0) {
            self.tensor += 1;
        }
    }
}
