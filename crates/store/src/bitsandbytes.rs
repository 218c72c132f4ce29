//! bitsandbytes' tensors in safetensors: 4-bit codes and signed bytes, whose scales are tensors beside them.
//!
//! | file | what |
//! |---|---|
//! | `W` (U8) | two codes a byte, the high one first, row after row |
//! | `W.quant_map` (F32, 16) | the codes' values |
//! | `W.absmax` (F32, or U8 under double quantisation) | a scale for every `blocksize` codes |
//! | `W.nested_absmax` (F32), `W.nested_quant_map` (F32, 256) | scales of the scales, and their codes' values |
//! | `W.quant_state.bitsandbytes__nf4` or `…__fp4` (U8) | JSON: quant_type, blocksize, shape, nested_blocksize, nested_offset |
//! | `M.weight` (I8), `M.SCB` (F32) | signed bytes and a scale a row; `M.weight_format` (U8) must say 0, row after row |
//!
//! A quantised tensor is shown as one, of its real shape; the parts beside it are not shown.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::shown;
use crate::{Dtype, QuantizedFault as Fault, Result, StoreError, TensorInfo};

/// A longer description of a quantised tensor is refused.
pub const MAX_STATE_BYTES: usize = 1 << 16;
/// Larger blocks are refused, as bitsandbytes does.
pub const MAX_BLOCK: u64 = 4096;

/// How a tensor was quantised.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantized {
    /// Codes of 4 bits.
    FourBit {
        /// Codes under one scale.
        block: usize,
        /// The codes' values.
        map: Box<[f32; 16]>,
        /// Where the scales are quantised too.
        nested: Option<Nested>,
    },
    /// Signed bytes with a scale a row.
    Int8,
}

/// How scales were quantised.
#[derive(Clone, Debug, PartialEq)]
pub struct Nested {
    /// Scales under one nested scale.
    pub block: usize,
    /// Added to each.
    pub offset: f32,
    /// Values of the scales' codes.
    pub map: Box<[f32; 256]>,
}

/// The bytes of a quantised tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// Codes: two a byte, or signed bytes.
    pub codes: Vec<u8>,
    /// Scales of the blocks or rows.
    pub scales: Scales,
}

/// Scales of blocks or rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    /// As they are.
    Plain(Vec<f32>),
    /// As codes, with their own scales.
    Nested {
        /// A code a block.
        codes: Vec<u8>,
        /// Their scales.
        nested: Vec<f32>,
    },
}

/// The quantised tensors of a model by name, and what is shown of all tensors.
pub(crate) type Found = (BTreeMap<String, Quantized>, Vec<TensorInfo>);

/// A tensor's description as the file has it.
#[derive(serde::Deserialize)]
struct State {
    quant_type: String,
    blocksize: u64,
    shape: Vec<u64>,
    nested_blocksize: Option<u64>,
    nested_offset: Option<f64>,
}

/// The tensors of a file, by name and in bytes.
struct Files<'a> {
    by_name: BTreeMap<&'a str, &'a TensorInfo>,
    read: &'a dyn Fn(&str) -> Result<Vec<u8>>,
    path: &'a Path,
}

/// Looks for quantised tensors among those of the model at `path`, and checks every part of them.
pub(crate) fn find(tensors: &[TensorInfo], read: &dyn Fn(&str) -> Result<Vec<u8>>, path: &Path) -> Result<Found> {
    let files = Files { by_name: tensors.iter().map(|t| (t.name.as_str(), t)).collect(), read, path };
    let (mut found, mut shapes, mut hidden) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for TensorInfo { name, .. } in tensors {
        let (weight, quantized, shape, parts) = if let Some((weight, kind)) = name.rsplit_once(".quant_state.bitsandbytes__") {
            let (quantized, shape) = files.four_bit(weight, kind, name)?;
            let dtype = if kind == "nf4" { Dtype::Nf4 } else { Dtype::Fp4 };
            let parts = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"].map(|part| format!("{weight}.{part}"));
            hidden.insert(name.clone());
            (weight.to_owned(), quantized, (dtype, shape), parts.to_vec())
        } else if let Some(module) = name.strip_suffix(".SCB") {
            let weight = format!("{module}.weight");
            let shape = files.int8(&weight, name, &format!("{module}.weight_format"))?;
            (weight, Quantized::Int8, (Dtype::Int8, shape), vec![name.clone(), format!("{module}.weight_format")])
        } else {
            continue;
        };
        hidden.extend(parts);
        shapes.insert(weight.clone(), shape);
        if found.insert(weight.clone(), quantized).is_some() {
            return Err(files.bad(&weight, Fault::Twice));
        }
    }
    let visible = tensors.iter().filter(|t| !hidden.contains(&t.name)).map(|t| match shapes.remove(&t.name) {
        Some((dtype, shape)) => TensorInfo { name: t.name.clone(), dtype, shape },
        None => t.clone(),
    });
    let visible = visible.collect();
    Ok((found, visible))
}

/// The bytes of a tensor that [`find`] found in the same files.
pub(crate) fn read_parts(name: &str, quantized: &Quantized, read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Parts> {
    let floats = |name: &str| Ok(floats(&read(name)?));
    let scales = match quantized {
        Quantized::Int8 => Scales::Plain(floats(&format!("{}.SCB", name.strip_suffix(".weight").unwrap_or(name)))?),
        Quantized::FourBit { nested: None, .. } => Scales::Plain(floats(&format!("{name}.absmax"))?),
        Quantized::FourBit { nested: Some(_), .. } => {
            Scales::Nested { codes: read(&format!("{name}.absmax"))?, nested: floats(&format!("{name}.nested_absmax"))? }
        }
    };
    Ok(Parts { codes: read(name)?, scales })
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

impl Files<'_> {
    fn bad(&self, name: &str, fault: Fault) -> StoreError {
        StoreError::Quantized { name: shown(name), fault: Box::new(fault), path: self.path.to_path_buf() }
    }

    /// The part `part` of tensor `weight`, of that coding and that many numbers.
    fn part(&self, weight: &str, part: &str, dtype: Dtype, count: u64) -> Result<()> {
        let info = self.by_name.get(part).ok_or_else(|| self.bad(weight, Fault::Missing { part: shown(part) }))?;
        let given: u64 = info.shape.iter().map(|&d| d as u64).product(); // the header's sizes were checked
        if info.dtype != dtype || given != count {
            let fault = Fault::Part { part: shown(part), given, dtype: info.dtype.name(), expected: count, expected_dtype: dtype.name() };
            return Err(self.bad(weight, fault));
        }
        Ok(())
    }

    /// The values of a map of `N` codes.
    fn map<const N: usize>(&self, weight: &str, part: &str) -> Result<Box<[f32; N]>> {
        self.part(weight, part, Dtype::F32, N as u64)?;
        let values = floats(&(self.read)(part)?);
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(self.bad(weight, Fault::NotFinite { part: shown(part), index }));
        }
        Ok(values.into_boxed_slice().try_into().expect("the number of values was checked"))
    }

    fn four_bit(&self, weight: &str, kind: &str, state: &str) -> Result<(Quantized, Vec<usize>)> {
        let bad = |fault| self.bad(weight, fault);
        let info = self.by_name[state];
        let length: usize = info.shape.iter().product();
        if info.dtype != Dtype::U8 || length > MAX_STATE_BYTES {
            return Err(bad(Fault::State { given: format!("{length} of {}", info.dtype.name()) }));
        }
        let parsed: State = serde_json::from_slice(&(self.read)(state)?).map_err(|error| bad(Fault::State { given: error.to_string() }))?;
        if !matches!(kind, "nf4" | "fp4") || parsed.quant_type != kind {
            return Err(bad(Fault::Kind { given: shown(&parsed.quant_type), name: shown(kind) }));
        }
        let block = |given: u64| {
            let fits = given.is_power_of_two() && given <= MAX_BLOCK;
            if fits { Ok(given as usize) } else { Err(bad(Fault::Block { given, limit: MAX_BLOCK })) }
        };
        let shape: Option<Vec<usize>> = parsed.shape.iter().map(|&d| usize::try_from(d).ok().filter(|&d| d > 0)).collect();
        let shape = shape.filter(|shape| (1..=4).contains(&shape.len()));
        let count = shape.as_ref().and_then(|s| s.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))).filter(|&n| n <= 1 << 60);
        let (Some(shape), Some(count)) = (shape, count) else {
            return Err(bad(Fault::Shape { given: parsed.shape.clone() }));
        };
        let blocksize = block(parsed.blocksize)?;
        let blocks = count.div_ceil(blocksize as u64);
        self.part(weight, weight, Dtype::U8, count.div_ceil(2))?;
        let map = self.map(weight, &format!("{weight}.quant_map"))?;
        let (absmax, nested_absmax) = (format!("{weight}.absmax"), format!("{weight}.nested_absmax"));
        let nested = if self.by_name.contains_key(nested_absmax.as_str()) {
            let (Some(size), Some(offset)) = (parsed.nested_blocksize, parsed.nested_offset) else {
                return Err(bad(Fault::State { given: "no nested_blocksize or nested_offset".into() }));
            };
            let size = block(size)?;
            self.part(weight, &absmax, Dtype::U8, blocks)?;
            self.part(weight, &nested_absmax, Dtype::F32, blocks.div_ceil(size as u64))?;
            let map = self.map(weight, &format!("{weight}.nested_quant_map"))?;
            Some(Nested { block: size, offset: offset as f32, map })
        } else {
            self.part(weight, &absmax, Dtype::F32, blocks)?;
            None
        };
        Ok((Quantized::FourBit { block: blocksize, map, nested }, shape))
    }

    fn int8(&self, weight: &str, scales: &str, format: &str) -> Result<Vec<usize>> {
        let missing = || self.bad(weight, Fault::Missing { part: shown(weight) });
        let shape = self.by_name.get(weight).ok_or_else(missing)?.shape.clone();
        if shape.len() != 2 || shape.contains(&0) {
            return Err(self.bad(weight, Fault::Shape { given: shape.iter().map(|&d| d as u64).collect() }));
        }
        self.part(weight, weight, Dtype::I8, shape.iter().map(|&d| d as u64).product())?;
        self.part(weight, scales, Dtype::F32, shape[0] as u64)?;
        if self.by_name.contains_key(format) {
            self.part(weight, format, Dtype::U8, 1)?;
            if let Some(&given) = (self.read)(format)?.iter().find(|&&given| given != 0) {
                return Err(self.bad(weight, Fault::Order { given }));
            }
        }
        Ok(shape)
    }
}
