//! GGUF: a validating reader (versions 2 and 3) and a small writer.
use std::collections::BTreeMap;
use std::path::Path;

use crate::{Dtype, Result, TensorInfo};

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// u8, u16, u32, u64.
    Unsigned(u64),
    /// i8, i16, i32, i64.
    Signed(i64),
    /// f32, f64.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// Elements of one kind.
    Array(Vec<GgufValue>),
}

/// An open, validated file.
#[derive(Debug)]
pub struct GgufFile {}

impl GgufFile {
    /// Opens and validates metadata and tensor table against the file's length.
    pub fn open(path: &Path) -> Result<Self> { todo!() }
    /// The metadata.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> { todo!() }
    /// Its tensors, in the file's order; shapes outermost first.
    pub fn tensors(&self) -> &[TensorInfo] { todo!() }
    /// The bytes of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> { todo!() }
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct GgufTensor<'a> {
    /// Name.
    pub name: &'a str,
    /// Coding.
    pub dtype: Dtype,
    /// Shape, outermost first.
    pub shape: &'a [usize],
    /// Bytes.
    pub bytes: &'a [u8],
}

/// The bytes of a version 3 file with alignment 32.
pub fn to_bytes(metadata: &BTreeMap<String, GgufValue>, tensors: &[GgufTensor<'_>]) -> Vec<u8> { todo!() }
