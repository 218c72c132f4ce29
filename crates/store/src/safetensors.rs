//! safetensors: a validating reader into owned memory and a deterministic writer.
use std::collections::BTreeMap;
use std::path::Path;

use crate::{Dtype, Result, TensorInfo};

/// An open, validated file. Tensors are read by position into owned memory; nothing is mapped.
#[derive(Debug)]
pub struct SafetensorsFile {}

impl SafetensorsFile {
    /// Opens and validates the header against the file's length.
    pub fn open(path: &Path) -> Result<Self> { todo!() }
    /// Its tensors, in the order of their bytes.
    pub fn tensors(&self) -> &[TensorInfo] { todo!() }
    /// The `__metadata__` strings.
    pub fn metadata(&self) -> &BTreeMap<String, String> { todo!() }
    /// The bytes of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> { todo!() }
    /// A float tensor as f32 (F32, F16, BF16, F64); refuses NaN and infinity.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> { todo!() }
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorData<'a> {
    /// Its name.
    pub name: &'a str,
    /// Coding.
    pub dtype: Dtype,
    /// Shape, outermost first.
    pub shape: &'a [usize],
    /// Bytes, little endian.
    pub bytes: &'a [u8],
}

/// The bytes of a file with these tensors: the same tensors in any order give the same bytes.
pub fn to_bytes(tensors: &[TensorData<'_>], metadata: &BTreeMap<String, String>) -> Vec<u8> { todo!() }
/// Writes atomically.
pub fn write(path: &Path, tensors: &[TensorData<'_>], metadata: &BTreeMap<String, String>) -> Result<()> { todo!() }
