//! Writing GGUF, version 3, alignment 32: a whole file in memory, or tensor by tensor.
//!
//! Integers are written as u32/i32 where they fit (as llama.cpp expects of its own keys), floats as f32.
use std::collections::BTreeMap;
use std::path::Path;

use crate::atomic::Pending;
use crate::gguf::{DEFAULT_ALIGNMENT, GgufValue, number_of};
use crate::tensor_writer::TensorWriter;
use crate::{Dtype, Result, StoreError, TensorInfo};

/// A tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct GgufTensor<'a> {
    /// Name.
    pub name: &'a str,
    /// Coding; one that GGUF has.
    pub dtype: Dtype,
    /// Shape, outermost first.
    pub shape: &'a [usize],
    /// Bytes.
    pub bytes: &'a [u8],
}

/// The bytes of a file.
///
/// # Errors
/// [`StoreError::TensorBytes`] where bytes and shape disagree.
///
/// # Panics
/// If a coding is not one of GGUF's: a bug of the caller.
pub fn to_bytes(metadata: &BTreeMap<String, GgufValue>, tensors: &[GgufTensor<'_>]) -> Result<Vec<u8>> {
    for t in tensors {
        let expected = t.dtype.bytes(t.shape);
        if expected != Some(t.bytes.len()) {
            return Err(wrong_bytes(t.name, t.dtype, t.shape, t.bytes.len(), expected));
        }
    }
    let mut out = head(metadata, tensors.iter().map(|t| (t.name, t.dtype, t.shape, t.bytes.len())));
    for t in tensors {
        out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
        out.extend(t.bytes);
    }
    out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
    Ok(out)
}

/// Begins the file that will stand at `path`: its head is written, its tensors' bytes are to follow in this order.
///
/// # Errors
/// [`StoreError::TensorBytes`] where a shape has no whole number of blocks.
///
/// # Panics
/// If a coding is not one of GGUF's: a bug of the caller.
pub fn writer(path: &Path, metadata: &BTreeMap<String, GgufValue>, tensors: &[TensorInfo]) -> Result<TensorWriter> {
    let size = |t: &TensorInfo| t.dtype.bytes(&t.shape).ok_or_else(|| wrong_bytes(&t.name, t.dtype, &t.shape, 0, None));
    let sizes = tensors.iter().map(size).collect::<Result<Vec<_>>>()?;
    let described = tensors.iter().zip(&sizes).map(|(t, &size)| (t.name.as_str(), t.dtype, t.shape.as_slice(), size));
    TensorWriter::begin(Pending::create(path)?, &head(metadata, described), sizes, DEFAULT_ALIGNMENT)
}

fn wrong_bytes(name: &str, dtype: Dtype, shape: &[usize], given: usize, expected: Option<usize>) -> StoreError {
    let expected = expected.map_or_else(|| "whole blocks".into(), |n| n.to_string());
    StoreError::TensorBytes { name: name.into(), given, expected, dtype, shape: shape.to_vec() }
}

/// Everything before the tensors' bytes, from (name, coding, shape, bytes) of each.
fn head<'a>(
    metadata: &BTreeMap<String, GgufValue>,
    tensors: impl ExactSizeIterator<Item = (&'a str, Dtype, &'a [usize], usize)>,
) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_text(&mut out, key);
        let kind = kind_of(value);
        out.extend(kind.to_le_bytes());
        put_value(&mut out, value, kind);
    }
    let mut offset = 0u64;
    for (name, dtype, shape, size) in tensors {
        put_text(&mut out, name);
        out.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|&d| out.extend((d as u64).to_le_bytes()));
        out.extend(number_of(dtype).expect("a coding that GGUF has").to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = (offset + size as u64).next_multiple_of(DEFAULT_ALIGNMENT);
    }
    out
}

fn kind_of(value: &GgufValue) -> u32 {
    match value {
        GgufValue::Unsigned(n) if u32::try_from(*n).is_ok() => 4,
        GgufValue::Unsigned(_) => 10,
        GgufValue::Signed(n) if i32::try_from(*n).is_ok() => 5,
        GgufValue::Signed(_) => 11,
        GgufValue::Float(_) => 6,
        GgufValue::Bool(_) => 7,
        GgufValue::Text(_) => 8,
        GgufValue::Array(_) | GgufValue::Integers(_) | GgufValue::Floats(_) | GgufValue::Texts(_) => 9,
    }
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue, kind: u32) {
    match (value, kind) {
        (GgufValue::Unsigned(n), 4) => out.extend((*n as u32).to_le_bytes()),
        (GgufValue::Unsigned(n), _) => out.extend(n.to_le_bytes()),
        (GgufValue::Signed(n), 5) => out.extend((*n as i32).to_le_bytes()),
        (GgufValue::Signed(n), _) => out.extend(n.to_le_bytes()),
        (GgufValue::Float(x), _) => out.extend((*x as f32).to_le_bytes()),
        (GgufValue::Bool(b), _) => out.push(u8::from(*b)),
        (GgufValue::Text(text), _) => put_text(out, text),
        (GgufValue::Array(values), _) => {
            let kind = values.iter().map(kind_of).max().unwrap_or(8); // the widest of its integers
            put_length(out, kind, values.len());
            values.iter().for_each(|v| put_value(out, v, kind));
        }
        (GgufValue::Integers(numbers), _) => {
            put_length(out, 5, numbers.len());
            numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        (GgufValue::Floats(numbers), _) => {
            put_length(out, 6, numbers.len());
            numbers.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
        (GgufValue::Texts(texts), _) => {
            put_length(out, 8, texts.len());
            texts.iter().for_each(|text| put_text(out, text));
        }
    }
}

/// What stands before an array's elements.
fn put_length(out: &mut Vec<u8>, kind: u32, elements: usize) {
    out.extend(kind.to_le_bytes());
    out.extend((elements as u64).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
