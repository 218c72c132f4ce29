//! Base and adapter as the tensors of one file, written a few rows at a time.

use engine::merge::Merge;
use engine::model::{SourceError, TensorView, WeightSource};
use engine::storage::{self as engine_storage, Storage};
use families::tensors::{Naming, Placed, expected};
use store::tensor_writer::TensorWriter;

use super::Export;
use crate::base::Base;
use crate::error::{Error, Result};

/// Weights that are merged at a time: 16 MB of f32, many rows of any model.
const WEIGHTS_AT_ONCE: usize = 4 << 20;

/// A tensor of the file to be written.
pub(super) struct FileTensor {
    /// Its name there.
    pub(super) name: String,
    /// Its shape, outermost first.
    pub(super) shape: Vec<usize>,
    /// The engine's tensors in it, in the order of their rows.
    pub(super) parts: Vec<Placed>,
}

impl FileTensor {
    /// Gains and biases.
    pub(super) fn is_vector(&self) -> bool {
        self.shape.len() == 1
    }
}

/// A merged model.
pub(super) struct Merged<'a> {
    base: &'a Base,
    merge: Merge<'a>,
    /// Its tensors by the file's names, in the order of the forward pass.
    pub(super) tensors: Vec<FileTensor>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(export: &Export<'a, '_>, naming: Naming) -> Result<Merged<'a>> {
        let mut tensors: Vec<FileTensor> = Vec::new();
        for placed in expected(&export.base.described, naming) {
            match tensors.last_mut().filter(|last| last.name == placed.source) {
                Some(last) => last.parts.push(placed),
                None => {
                    tensors.push(FileTensor { name: placed.source.clone(), shape: placed.source_shape.clone(), parts: vec![placed] });
                }
            }
        }
        let merge = Merge::new(export.base.config(), export.adapter, export.context.threads)?;
        Ok(Merged { base: export.base, merge, tensors })
    }

    /// Whether the adapter changes any of a tensor's rows.
    pub(super) fn changes(&self, tensor: &FileTensor) -> bool {
        tensor.parts.iter().any(|part| self.merge.changes(part.name))
    }

    /// Numbers of all tensors.
    pub(super) fn parameters(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum()
    }

    /// Writes a tensor in storage `to`.
    pub(super) fn write(&self, tensor: &FileTensor, to: Storage, out: &mut TensorWriter) -> Result<()> {
        for part in &tensor.parts {
            let view = self.base.tensor(part.name).map_err(unreadable)?;
            if tensor.is_vector() {
                let bytes = self.vector(part, &view, to)?;
                out.write(&bytes)?;
                continue;
            }
            let rows = rows_in_file_order(part);
            for rows in rows.chunks((WEIGHTS_AT_ONCE / view.cols).max(1)) {
                let bytes = self.merge.rows(part.name, &view, rows, to)?;
                finite(&tensor.name, to, view.cols, &bytes)?;
                out.write(&bytes)?;
            }
        }
        Ok(())
    }

    /// A gain or bias as the file has it.
    fn vector(&self, part: &Placed, view: &TensorView<'_>, to: Storage) -> Result<Vec<u8>> {
        let mut values = vec![0.0; view.cols];
        engine_storage::dequantize_row(view.storage, &view.bytes, &mut values);
        // What the base's file adds to a gain, less what is added to it in this one.
        values.iter_mut().for_each(|value| *value = (*value + view.offset) - part.offset);
        if part.order.is_some() {
            values = rows_in_file_order(part).into_iter().map(|index| values[index]).collect();
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = part.name.to_string();
        let bytes = engine_storage::convert(&name, Storage::F32, to, 1, view.cols, &bytes, 1).map_err(engine::EngineError::from)?;
        finite(&part.source, to, view.cols, &bytes)?;
        Ok(bytes)
    }
}

/// The engine's rows in the order in which the file has them.
fn rows_in_file_order(part: &Placed) -> Vec<usize> {
    let Some(order) = &part.order else { return (0..part.shape[0]).collect() };
    let mut rows = vec![0; order.len()];
    order.iter().enumerate().for_each(|(row, &in_file)| rows[in_file] = row);
    rows
}

/// A finite f32 may be beyond what f16, as a weight or as a scale, can say.
fn finite(tensor: &str, storage: Storage, cols: usize, bytes: &[u8]) -> Result<()> {
    if engine_storage::finite(storage, cols, bytes) {
        return Ok(());
    }
    Err(Error::TooLarge { tensor: tensor.to_owned(), storage: storage.name().to_uppercase() })
}

/// Tensors of an open base are missing only if it changed meanwhile.
fn unreadable(error: SourceError) -> Error {
    let source = match error {
        SourceError::Missing => std::io::ErrorKind::NotFound.into(),
        SourceError::Unreadable(source) => source,
    };
    match source.downcast::<Error>() {
        Ok(error) => error,
        Err(source) => Error::Corrupt { what: "the base", reason: source.to_string(), path: std::path::PathBuf::new() },
    }
}
