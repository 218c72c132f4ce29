//! Weights that are read where the files have them: which can be, when they are, and what they take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::compute::ComputePath;
use engine::config::TensorName;
use engine::cpu::CpuDevice;
use engine::device::{Device, Stored};
use engine::model::{SharedTensor, SourceError};
use engine::storage::{self as engine_storage, Storage};
use families::tensors::Placed;

use super::Base;
use crate::error::{Error, Result};
use crate::spec::Mapped;
use crate::storage;

impl Base {
    /// The same base, whose weights that are held as the files have them are mapped as `[model] mapped` says.
    pub fn mapped_when(mut self, choice: Mapped) -> Base {
        self.mapping = choice;
        self.map_weights(choice == Mapped::Always);
        self
    }

    /// When they are mapped.
    pub(crate) fn mapping(&self) -> Mapped {
        self.mapping
    }

    /// From now on they are loaded by mapping the files, or copied.
    pub(crate) fn map_weights(&self, mapped: bool) {
        self.mapped.store(mapped, Ordering::Relaxed);
    }

    /// Maps them where a copy is more than the memory that is available, and it is left to the program.
    pub(super) fn map_where_large(&self, threads: usize) -> Result<()> {
        let device = CpuDevice::new(threads);
        let copied = self.storages()?.into_iter().map(|(name, storage)| {
            let (rows, cols) = self.config().tensor_shape(name);
            device.weight_bytes(storage, rows, cols) as u64
        });
        let available = store::disk::memory_available_bytes();
        if self.mapping == Mapped::Auto && available.is_some_and(|available| copied.sum::<u64>() > available) {
            self.map_weights(true);
        }
        Ok(())
    }

    /// Whether they are mapped: integer products read weights in a form of their own, which is a copy.
    pub fn maps_weights(&self) -> bool {
        self.mapped.load(Ordering::Relaxed) && self.compute.path == ComputePath::Exact
    }

    /// Bytes of the files' tensors that are read where they lie.
    pub(crate) fn mapped_bytes(&self) -> Result<u64> {
        let shared = self.stored()?.into_iter().filter(|(_, stored)| stored.shared);
        let bytes = shared.map(|(name, Stored { storage, .. })| {
            let (rows, cols) = self.config().tensor_shape(name);
            storage.bytes(rows, cols).unwrap_or(0) as u64
        });
        Ok(bytes.sum())
    }

    /// Whether a tensor can be read where it lies: a matrix as the model has it, in rows that stand together in their order.
    fn mappable(&self, placed: &Placed, file: Storage, held: Storage) -> bool {
        let as_is = file == held && placed.order.is_none() && placed.offset == 0.0;
        as_is && matrix(placed).is_some() && self.files.quantized(&placed.source).is_none()
    }

    /// How every tensor is held, and whether it is read where its file has it.
    pub(crate) fn stored(&self) -> Result<BTreeMap<TensorName, Stored>> {
        self.stored_so(self.storage, self.maps_weights())
    }

    /// The same with another `[model] storage`, mapped.
    pub(crate) fn mapped_as(&self, given: &str) -> Result<BTreeMap<TensorName, Stored>> {
        self.stored_so(storage::parse(given)?, true)
    }

    fn stored_so(&self, choice: Option<Storage>, maps: bool) -> Result<BTreeMap<TensorName, Stored>> {
        let stored = |placed: &Placed| {
            let (file, storage) = self.held_so(placed, choice)?;
            Ok((placed.name, Stored { storage, shared: maps && self.mappable(placed, file, storage) }))
        };
        self.placed.values().map(stored).collect()
    }

    /// A tensor where its file has it; `None` where it is copied.
    pub(super) fn mapped_tensor(&self, placed: &Placed) -> std::result::Result<Option<SharedTensor>, SourceError> {
        let unreadable = |error: Error| SourceError::Unreadable(std::io::Error::other(error));
        let (file, storage) = self.held(placed).map_err(unreadable)?;
        let (true, Some((rows, cols))) = (self.maps_weights() && self.mappable(placed, file, storage), matrix(placed)) else {
            return Ok(None);
        };
        let whole = self.files.map(&placed.source).map_err(|error| unreadable(error.into()))?;
        let row_bytes = storage.row_bytes(cols).unwrap_or(0);
        let part = whole.part(placed.first_row.saturating_mul(row_bytes), rows.saturating_mul(row_bytes));
        let Some(bytes) = part else { return Ok(None) };
        if !engine_storage::finite(storage, cols, bytes.as_ref()) {
            return Err(unreadable(Error::Weights { tensor: placed.source.clone() }));
        }
        Ok(Some(SharedTensor { storage, rows, cols, bytes: Arc::new(bytes) }))
    }
}

/// Rows and columns of what is a matrix.
fn matrix(placed: &Placed) -> Option<(usize, usize)> {
    if let [rows, cols] = placed.shape[..] { Some((rows, cols)) } else { None }
}
