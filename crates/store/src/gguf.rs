//! GGUF: a validating reader (versions 2 and 3); the writer stands in `gguf_writer` and is named from here.
//!
//! Counts, lengths and offsets are checked against limits and against what is left of the file before
//! anything is allocated for them. Layout: magic, version, number of tensors, number of keys; keys with
//! typed values; the table of tensors; padding to the alignment; the tensors' bytes in the table's order.
//! Source: ggml's docs/gguf.md and gguf.cpp.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use crate::gguf_writer::{GgufTensor, to_bytes, writer};

use crate::error::shown;
use crate::mapped::{self, MappedBytes, MappedFile};
use crate::{Dtype, GgufFault as Fault, Result, StoreError, TensorInfo, atomic};

/// More tensors are refused.
pub const MAX_TENSORS: u64 = 100_000;
/// More keys are refused.
pub const MAX_KEYS: u64 = 65_536;
/// Longer keys and tensor names are refused.
pub const MAX_NAME_BYTES: u64 = 65_535;
/// Longer texts (templates, tokens) are refused.
pub const MAX_TEXT_BYTES: u64 = 16 << 20;
/// More array elements in all are refused: 15 times the largest vocabularies with scores, types and merges.
pub const MAX_ELEMENTS: u64 = 16 << 20;
/// Deeper arrays of arrays are refused.
pub const MAX_NESTING: usize = 4;
/// Larger alignments are refused.
pub const MAX_ALIGNMENT: u64 = 1 << 16;
/// What tensors are aligned to where the file does not say.
pub const DEFAULT_ALIGNMENT: u64 = 32;

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
    /// Elements of one kind for which there is no form below.
    Array(Vec<GgufValue>),
    /// i32: the kinds of a vocabulary's tokens, for one.
    Integers(Vec<i32>),
    /// f32: the scores of a vocabulary's tokens, for one.
    Floats(Vec<f32>),
    /// Texts: a vocabulary, for one.
    Texts(Texts),
}

/// Texts in one piece, because vocabularies have hundreds of thousands and stay in memory as long as the file is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    together: String,
    /// Where each one ends.
    ends: Vec<usize>,
}

impl Texts {
    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The one at `index`.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.together.get(start..end)
    }

    /// All in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    fn push(&mut self, text: &str) {
        self.together.push_str(text);
        self.ends.push(self.together.len());
    }
}

impl<S: AsRef<str>> FromIterator<S> for Texts {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Texts {
        let mut all = Texts::default();
        texts.into_iter().for_each(|text| all.push(text.as_ref()));
        all
    }
}

impl GgufValue {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) | Self::Signed(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Text(_) => "a text",
            Self::Array(_) => "an array",
            Self::Integers(_) => "an array of integers",
            Self::Floats(_) => "an array of floats",
            Self::Texts(_) => "an array of texts",
        }
    }

    /// How many elements an array has; `None` of what is none.
    pub fn elements(&self) -> Option<usize> {
        match self {
            Self::Array(values) => Some(values.len()),
            Self::Integers(numbers) => Some(numbers.len()),
            Self::Floats(numbers) => Some(numbers.len()),
            Self::Texts(texts) => Some(texts.len()),
            _ => None,
        }
    }

    /// A non-negative integer of any width.
    pub fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }
}

/// An open, validated file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: File,
    metadata: BTreeMap<String, GgufValue>,
    tensors: Vec<TensorInfo>,
    starts: Vec<u64>,
    by_name: HashMap<String, usize>,
    mapped: OnceLock<MappedFile>,
}

impl GgufFile {
    /// Opens and validates metadata and tensor table against the file's length.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, length) = atomic::open(path)?;
        let reader = BufReader::with_capacity(1 << 18, &file);
        let mut cursor = Cursor { reader, at: 0, length, elements: 0 };
        let head = cursor.head().map_err(|stop| match stop {
            Stop::Io(e) => StoreError::io("read", path, e),
            Stop::Fault(fault) => StoreError::gguf(path, fault),
        })?;
        let by_name = head.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self {
            path: path.to_path_buf(),
            file,
            metadata: head.metadata,
            tensors: head.tensors,
            starts: head.starts,
            by_name,
            mapped: OnceLock::new(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// Its tensors, in the file's order; shapes outermost first.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The bytes of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (start, len) = self.place(name)?;
        let mut bytes = vec![0u8; len];
        atomic::read_exact_at(&self.file, &mut bytes, start).map_err(|e| StoreError::io("read", &self.path, e))?;
        Ok(bytes)
    }

    /// The bytes of a tensor where the file has them: the first call maps the file.
    pub fn map(&self, name: &str) -> Result<MappedBytes> {
        let (start, len) = self.place(name)?;
        let file = mapped::of(&self.mapped, &self.file, &self.path)?;
        file.bytes(start, len).ok_or_else(|| mapped::cut_off(&self.path))
    }

    /// Where a tensor begins in the file, and its bytes.
    fn place(&self, name: &str) -> Result<(u64, usize)> {
        let missing = || StoreError::NoSuchTensor { name: shown(name), count: self.tensors.len(), path: self.path.clone() };
        let index = *self.by_name.get(name).ok_or_else(missing)?;
        let info = &self.tensors[index];
        Ok((self.starts[index], info.dtype.bytes(&info.shape).expect("shapes were checked when the table was read")))
    }
}

/// ggml's type numbers: those read here, and the names of the others.
fn dtype_of(number: i32) -> std::result::Result<Dtype, Option<&'static str>> {
    Ok(match number {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::Q4_0,
        3 => Dtype::Q4_1,
        6 => Dtype::Q5_0,
        7 => Dtype::Q5_1,
        8 => Dtype::Q8_0,
        10 => Dtype::Q2K,
        11 => Dtype::Q3K,
        12 => Dtype::Q4K,
        13 => Dtype::Q5K,
        14 => Dtype::Q6K,
        20 => Dtype::Iq4Nl,
        23 => Dtype::Iq4Xs,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::BF16,
        9 => return Err(Some("Q8_1")),
        15 => return Err(Some("Q8_K")),
        16 => return Err(Some("IQ2_XXS")),
        17 => return Err(Some("IQ2_XS")),
        18 => return Err(Some("IQ3_XXS")),
        19 => return Err(Some("IQ1_S")),
        21 => return Err(Some("IQ3_S")),
        22 => return Err(Some("IQ2_S")),
        29 => return Err(Some("IQ1_M")),
        34 => return Err(Some("TQ1_0")),
        35 => return Err(Some("TQ2_0")),
        39 => return Err(Some("MXFP4")),
        _ => return Err(None),
    })
}

/// ggml's type number of a coding that GGUF has.
pub(crate) fn number_of(dtype: Dtype) -> Option<u32> {
    (0..64).find(|&n| dtype_of(n) == Ok(dtype)).map(|n| n as u32)
}

/// Everything before the tensors' bytes; `starts` count from the beginning of the file.
struct Head {
    metadata: BTreeMap<String, GgufValue>,
    tensors: Vec<TensorInfo>,
    starts: Vec<u64>,
}

enum Stop {
    Io(std::io::Error),
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

type Read_<T> = std::result::Result<T, Stop>;

/// Reads forwards, never past the end, and counts what it allocates.
struct Cursor<R> {
    reader: R,
    at: u64,
    length: u64,
    elements: u64,
}

impl<R: Read> Cursor<R> {
    fn head(&mut self) -> Read_<Head> {
        let magic: [u8; 4] = self.bytes("the magic")?;
        if &magic != b"GGUF" {
            return Err(Fault::Magic { given: magic.escape_ascii().to_string() }.into());
        }
        let version = self.u32("the version")?;
        if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
            return Err(Fault::BigEndian.into());
        }
        if version != 2 && version != 3 {
            return Err(Fault::Version { given: version }.into());
        }
        let tensor_count = self.u64("the number of tensors")?;
        at_most("tensors", tensor_count, MAX_TENSORS)?;
        let key_count = self.u64("the number of keys")?;
        at_most("keys", key_count, MAX_KEYS)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..key_count {
            let key = self.text("a key", MAX_NAME_BYTES)?;
            let kind = self.u32("a value's type")?;
            let value = self.value(&key, kind, 0)?;
            if metadata.contains_key(&key) {
                return Err(Fault::Duplicate { name: shown(&key) }.into());
            }
            metadata.insert(key, value);
        }
        let alignment = alignment(&metadata)?;
        let (mut tensors, mut offsets, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        for _ in 0..tensor_count {
            let (info, offset) = self.tensor()?;
            if !names.insert(info.name.clone()) {
                return Err(Fault::Duplicate { name: shown(&info.name) }.into());
            }
            tensors.push(info);
            offsets.push(offset);
        }
        let data_start = self.at.next_multiple_of(alignment);
        let data = self.length.saturating_sub(data_start);
        let mut end = 0u64;
        for (info, &offset) in tensors.iter().zip(&offsets) {
            let expected = end.checked_next_multiple_of(alignment);
            if expected != Some(offset) {
                return Err(Fault::Offset { name: shown(&info.name), given: offset, expected: expected.unwrap_or(u64::MAX) }.into());
            }
            let size = info.dtype.bytes(&info.shape).expect("checked when the line was read") as u64;
            end = match offset.checked_add(size) {
                Some(end) if end <= data => end,
                _ => return Err(Fault::DataLength { given: data, expected: offset.saturating_add(size) }.into()),
            };
        }
        // The last tensor may be padded too; anything beyond that does not belong to the model.
        if data > end.next_multiple_of(alignment) {
            return Err(Fault::DataLength { given: data, expected: end }.into());
        }
        let starts = offsets.iter().map(|o| data_start + o).collect();
        Ok(Head { metadata, tensors, starts })
    }

    fn tensor(&mut self) -> Read_<(TensorInfo, u64)> {
        let name = self.text("a tensor's name", MAX_NAME_BYTES)?;
        let count = self.u32("the number of dimensions")?;
        if !(1..=4).contains(&count) {
            return Err(Fault::Dimensions { name: shown(&name), given: count }.into());
        }
        let mut dimensions = Vec::with_capacity(4);
        for _ in 0..count {
            dimensions.push(self.u64("a dimension")?);
        }
        let number = self.u32("a tensor's type")? as i32;
        let offset = self.u64("a tensor's offset")?;
        let dtype = dtype_of(number).map_err(|known| match known {
            Some(dtype) => Fault::LaterType { name: shown(&name), dtype },
            None => Fault::UnknownType { name: shown(&name), given: number },
        })?;
        let (block, _) = dtype.block();
        let shape: Option<Vec<usize>> = dimensions.iter().rev().map(|&d| usize::try_from(d).ok().filter(|&d| d > 0)).collect();
        let addressable = shape.filter(|s| s.iter().try_fold(8usize, |n, &d| n.checked_mul(d)).is_some_and(|n| n <= isize::MAX as usize));
        let Some(shape) = addressable else {
            return Err(Fault::Shape { name: shown(&name), dimensions }.into());
        };
        if dimensions[0] % block as u64 != 0 {
            return Err(Fault::TornBlock { name: shown(&name), row: dimensions[0], block, dtype: dtype.name() }.into());
        }
        Ok((TensorInfo { name, dtype, shape }, offset))
    }

    fn value(&mut self, key: &str, kind: u32, depth: usize) -> Read_<GgufValue> {
        Ok(match kind {
            0 => GgufValue::Unsigned(u8::from_le_bytes(self.bytes("a value")?).into()),
            1 => GgufValue::Signed(i8::from_le_bytes(self.bytes("a value")?).into()),
            2 => GgufValue::Unsigned(u16::from_le_bytes(self.bytes("a value")?).into()),
            3 => GgufValue::Signed(i16::from_le_bytes(self.bytes("a value")?).into()),
            4 => GgufValue::Unsigned(self.u32("a value")?.into()),
            5 => GgufValue::Signed(i32::from_le_bytes(self.bytes("a value")?).into()),
            6 => GgufValue::Float(f32::from_le_bytes(self.bytes("a value")?).into()),
            7 => match self.bytes::<1>("a value")?[0] {
                0 => GgufValue::Bool(false),
                1 => GgufValue::Bool(true),
                given => return Err(Fault::Bool { key: shown(key), given }.into()),
            },
            8 => {
                let text = self.text_of(MAX_TEXT_BYTES, "a text", || format!("the text of key {:?}", shown(key)))?;
                GgufValue::Text(text)
            }
            9 => self.array(key, depth)?,
            10 => GgufValue::Unsigned(self.u64("a value")?),
            11 => GgufValue::Signed(i64::from_le_bytes(self.bytes("a value")?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.bytes("a value")?)),
            given => return Err(Fault::ValueType { key: shown(key), given }.into()),
        })
    }

    fn array(&mut self, key: &str, depth: usize) -> Read_<GgufValue> {
        if depth >= MAX_NESTING {
            return Err(Fault::Nesting { key: shown(key), limit: MAX_NESTING }.into());
        }
        let kind = self.u32("an array's type")?;
        let count = self.u64("an array's length")?;
        self.elements = self.elements.saturating_add(count);
        at_most("array elements in all", self.elements, MAX_ELEMENTS)?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            given => return Err(Fault::ValueType { key: shown(key), given }.into()),
        };
        self.enough("an array", count * smallest)?; // both are small: no overflow
        if kind == 8 {
            let mut texts = Texts { together: String::new(), ends: Vec::with_capacity(count as usize) };
            for _ in 0..count {
                texts.push(&self.text_of(MAX_TEXT_BYTES, "a text", || format!("the text of key {:?}", shown(key)))?);
            }
            texts.together.shrink_to_fit();
            return Ok(GgufValue::Texts(texts));
        }
        // A vocabulary has hundreds of thousands of these.
        let words = |this: &mut Self| (0..count).map(|_| this.bytes::<4>("an array")).collect::<Read_<Vec<_>>>();
        match kind {
            5 => Ok(GgufValue::Integers(words(self)?.into_iter().map(i32::from_le_bytes).collect())),
            6 => Ok(GgufValue::Floats(words(self)?.into_iter().map(f32::from_le_bytes).collect())),
            _ => (0..count).map(|_| self.value(key, kind, depth + 1)).collect::<Read_<_>>().map(GgufValue::Array),
        }
    }

    fn text(&mut self, what: &'static str, limit: u64) -> Read_<String> {
        self.text_of(limit, what, || what.to_owned())
    }

    fn text_of(&mut self, limit: u64, what: &'static str, which: impl FnOnce() -> String) -> Read_<String> {
        let length = self.u64("a text's length")?;
        at_most("bytes of a name or text", length, limit)?;
        self.enough(what, length)?;
        let mut bytes = vec![0u8; length as usize];
        self.reader.read_exact(&mut bytes).map_err(Stop::Io)?;
        self.at += length;
        String::from_utf8(bytes).map_err(|_| Fault::NotText { what: which() }.into())
    }

    fn bytes<const N: usize>(&mut self, what: &'static str) -> Read_<[u8; N]> {
        self.enough(what, N as u64)?;
        let mut bytes = [0u8; N];
        self.reader.read_exact(&mut bytes).map_err(Stop::Io)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self, what: &'static str) -> Read_<u32> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Read_<u64> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    fn enough(&self, what: &'static str, needed: u64) -> Read_<()> {
        if needed > self.length.saturating_sub(self.at) {
            return Err(Fault::CutShort { what, at: self.at, needed, file: self.length }.into());
        }
        Ok(())
    }
}

fn at_most(what: &'static str, given: u64, limit: u64) -> Read_<()> {
    if given > limit { Err(Fault::TooMany { what, given, limit }.into()) } else { Ok(()) }
}

fn alignment(metadata: &BTreeMap<String, GgufValue>) -> Read_<u64> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match value.unsigned() {
        Some(n) if n.is_power_of_two() && n <= MAX_ALIGNMENT => Ok(n),
        Some(n) => Err(Fault::Alignment { given: n.to_string(), limit: MAX_ALIGNMENT }.into()),
        None => Err(Fault::Alignment { given: value.kind().into(), limit: MAX_ALIGNMENT }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8]) -> Read_<Head> {
        Cursor { reader: bytes, at: 0, length: bytes.len() as u64, elements: 0 }.head()
    }

    /// A good file cut at every byte, and with every byte of its head turned over: a fault or a good head
    /// whose tensors lie inside the file, never a panic.
    #[test]
    fn no_cut_and_no_flipped_byte_panics() {
        let metadata = BTreeMap::from([
            ("general.alignment".to_owned(), GgufValue::Unsigned(32)),
            ("k".into(), GgufValue::Texts(["ab", "", "c"].into_iter().collect())),
            ("n".into(), GgufValue::Array(vec![GgufValue::Array(vec![GgufValue::Float(0.5)])])),
        ]);
        let tensors = ["t", "u"].map(|name| GgufTensor { name, dtype: Dtype::F32, shape: &[2, 2], bytes: &[0; 16] });
        let good = to_bytes(&metadata, &tensors).expect("shapes fit");
        assert!(head(&good).is_ok());
        for length in 0..good.len() - 16 {
            assert!(matches!(head(&good[..length]), Err(Stop::Fault(_))), "cut at {length}");
        }
        for i in 0..good.len() {
            for mask in 1..=255 {
                let mut bad = good.clone();
                bad[i] ^= mask;
                if let Ok(head) = head(&bad) {
                    for (tensor, start) in head.tensors.iter().zip(head.starts) {
                        let size = tensor.dtype.bytes(&tensor.shape).expect("a checked shape") as u64;
                        assert!(start + size <= bad.len() as u64, "byte {i} ^ {mask}");
                    }
                }
            }
        }
    }
}
