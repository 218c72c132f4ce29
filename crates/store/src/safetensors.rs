//! safetensors: a validating reader and a deterministic writer.
//!
//! The header is checked against the file's length before any tensor is read: every byte of the data
//! belongs to exactly one tensor, and every tensor has the bytes that its shape and coding ask for.
//! Sharded models are read through their `model.safetensors.index.json` by [`Sharded`].
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::shown;
use crate::mapped::{self, MappedBytes, MappedFile};
use crate::tensor_writer::TensorWriter;
use crate::{Dtype, Result, SafetensorsFault as Fault, StoreError, TensorInfo, atomic};

/// A longer header is refused, as in the reference implementation.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// More tensors are refused.
pub const MAX_TENSORS: usize = 100_000;
/// A longer index is refused.
pub const MAX_INDEX_BYTES: u64 = 100_000_000;

/// An open, validated file. Tensors are read by position into owned memory, or mapped.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    header: Header,
    data_start: u64,
    by_name: HashMap<String, usize>,
    mapped: OnceLock<MappedFile>,
}

/// What the first bytes of a file say.
#[derive(Debug)]
struct Header {
    tensors: Vec<TensorInfo>,
    starts: Vec<u64>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Opens and validates the header against the file's length.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, length) = atomic::open(path)?;
        let bad = |fault| StoreError::safetensors(path, fault);
        let failed = |e| StoreError::io("read", path, e);
        let mut prefix = [0u8; 8];
        if length < 8 {
            return Err(bad(Fault::TooShort { given: length }));
        }
        atomic::read_exact_at(&file, &mut prefix, 0).map_err(failed)?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > MAX_HEADER_BYTES {
            return Err(bad(Fault::HeaderTooLong { given: header_length, limit: MAX_HEADER_BYTES }));
        }
        if header_length > length - 8 {
            return Err(bad(Fault::HeaderBeyondFile { header: header_length, file: length }));
        }
        let mut bytes = vec![0u8; header_length as usize];
        atomic::read_exact_at(&file, &mut bytes, 8).map_err(failed)?;
        let data_start = 8 + header_length;
        let header = parse_header(&bytes, length - data_start).map_err(bad)?;
        let by_name = header.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self { path: path.to_path_buf(), file, header, data_start, by_name, mapped: OnceLock::new() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors, in the order of their bytes.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.header.tensors[i])
    }

    /// The `__metadata__` strings.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The bytes of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let index = self.index(name)?;
        let mut bytes = vec![0u8; byte_count(&self.header.tensors[index])];
        atomic::read_exact_at(&self.file, &mut bytes, self.data_start + self.header.starts[index])
            .map_err(|e| StoreError::io("read", &self.path, e))?;
        Ok(bytes)
    }

    /// The bytes of a tensor where the file has them: the first call maps the file.
    pub fn map(&self, name: &str) -> Result<MappedBytes> {
        let index = self.index(name)?;
        let file = mapped::of(&self.mapped, &self.file, &self.path)?;
        let (start, len) = (self.data_start + self.header.starts[index], byte_count(&self.header.tensors[index]));
        file.bytes(start, len).ok_or_else(|| mapped::cut_off(&self.path))
    }

    /// A float tensor as f32 (F32, F16, BF16, F64); refuses NaN and infinity.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let info = &self.header.tensors[self.index(name)?];
        let bad = |fault| StoreError::safetensors(&self.path, fault);
        let values =
            floats(info.dtype, &self.read(name)?).ok_or_else(|| bad(Fault::NotFloat { name: shown(name), dtype: info.dtype.name() }))?;
        match values.iter().position(|x| !x.is_finite()) {
            Some(index) => Err(bad(Fault::NotFinite { name: shown(name), index, value: values[index] })),
            None => Ok(values),
        }
    }

    fn index(&self, name: &str) -> Result<usize> {
        let missing = || StoreError::NoSuchTensor { name: shown(name), count: self.header.tensors.len(), path: self.path.clone() };
        self.by_name.get(name).copied().ok_or_else(missing)
    }
}

/// Float bytes as f32, or `None` for other codings.
fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}

fn byte_count(info: &TensorInfo) -> usize {
    info.dtype.bytes(&info.shape).expect("shapes were checked when the header was read")
}

/// Parses and validates a header for `data` bytes after it.
fn parse_header(bytes: &[u8], data: u64) -> std::result::Result<Header, Fault> {
    if bytes.first() != Some(&b'{') {
        return Err(Fault::Header(serde_json::Error::custom("'{' expected first")));
    }
    let raw: RawHeader = serde_json::from_slice(bytes).map_err(Fault::Header)?;
    if raw.too_many {
        return Err(Fault::TooManyTensors { given: raw.tensors.len(), limit: MAX_TENSORS });
    }
    let mut entries = Vec::with_capacity(raw.tensors.len());
    let mut seen = BTreeSet::new();
    for (name, raw) in raw.tensors {
        if !seen.insert(name.clone()) {
            return Err(Fault::Duplicate { name: shown(&name) });
        }
        entries.push(entry(name, raw)?);
    }
    entries.sort_by(|(start_a, a), (start_b, b)| (start_a, byte_count(a), &a.name).cmp(&(start_b, byte_count(b), &b.name)));
    let mut expected = 0;
    for (start, info) in &entries {
        if *start != expected {
            return Err(Fault::NotContiguous { name: shown(&info.name), given: *start, expected });
        }
        expected += byte_count(info) as u64; // each size was checked against its offsets: no overflow
    }
    if expected != data {
        return Err(Fault::DataLength { given: data, expected });
    }
    let (starts, tensors) = entries.into_iter().unzip();
    Ok(Header { tensors, starts, metadata: raw.metadata })
}

/// One tensor's line of the header, checked by itself.
fn entry(name: String, raw: RawTensor) -> std::result::Result<(u64, TensorInfo), Fault> {
    let Some(dtype) = dtype_of(&raw.dtype) else {
        return Err(Fault::UnknownDtype { name: shown(&name), dtype: shown(&raw.dtype) });
    };
    let shape: Option<Vec<usize>> = raw.shape.iter().map(|&d| usize::try_from(d).ok()).collect();
    // Also without its zeros the product must be addressable, so that no part of the shape overflows later.
    let sized =
        shape.filter(|s| dtype.bytes(&s.iter().copied().filter(|&d| d > 0).collect::<Vec<_>>()).is_some_and(|n| n <= isize::MAX as usize));
    let Some(shape) = sized else {
        return Err(Fault::ShapeOverflow { name: shown(&name), shape: raw.shape });
    };
    let expected = dtype.bytes(&shape).expect("its non-zero part was just checked") as u64;
    let [start, end] = raw.data_offsets;
    if end.checked_sub(start) != Some(expected) {
        return Err(Fault::WrongSize { name: shown(&name), start, end, expected, dtype: dtype.name(), shape });
    }
    Ok((start, TensorInfo { name, dtype, shape }))
}

const DTYPES: [Dtype; 13] = [
    Dtype::Bool,
    Dtype::U8,
    Dtype::I8,
    Dtype::U16,
    Dtype::I16,
    Dtype::U32,
    Dtype::I32,
    Dtype::U64,
    Dtype::I64,
    Dtype::F16,
    Dtype::BF16,
    Dtype::F32,
    Dtype::F64,
];

fn dtype_of(name: &str) -> Option<Dtype> {
    DTYPES.into_iter().find(|d| d.name() == name)
}

/// The header as it stands in the file; a list, so that a name standing twice is seen.
#[derive(Default)]
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
    too_many: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Lines;
        impl<'de> Visitor<'de> for Lines {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                let mut metadata_seen = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if std::mem::replace(&mut metadata_seen, true) {
                            return Err(A::Error::custom("__metadata__ stands twice"));
                        }
                        header.metadata = map.next_value()?;
                    } else if header.tensors.len() < MAX_TENSORS {
                        header.tensors.push((name, map.next_value()?));
                    } else {
                        header.too_many = true;
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Lines)
    }
}

/// A tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct TensorData<'a> {
    /// Its name.
    pub name: &'a str,
    /// Coding; not one of GGUF's blocks.
    pub dtype: Dtype,
    /// Shape, outermost first.
    pub shape: &'a [usize],
    /// Bytes, little endian.
    pub bytes: &'a [u8],
}

/// The bytes of a file with these tensors: the same tensors in any order give the same bytes, those of
/// the reference implementation (wider codings first, then by name; header padded to 8).
///
/// # Errors
/// [`StoreError::TensorBytes`] where bytes and shape disagree.
///
/// # Panics
/// If a name stands twice or a coding is one of GGUF's blocks: those are bugs of the caller.
pub fn to_bytes(tensors: &[TensorData<'_>], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let (sorted, header) = layout(tensors, metadata)?;
    let mut bytes = Vec::with_capacity(8 + header.len() + sorted.iter().map(|t| t.bytes.len()).sum::<usize>());
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    sorted.iter().for_each(|t| bytes.extend(t.bytes));
    Ok(bytes)
}

/// Writes the bytes of [`to_bytes`] atomically, without a second copy of them in memory.
pub fn write(path: &Path, tensors: &[TensorData<'_>], metadata: &BTreeMap<String, String>) -> Result<()> {
    let (sorted, header) = layout(tensors, metadata)?;
    atomic::write_with(path, |out: &mut dyn Write| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        sorted.iter().try_for_each(|t| out.write_all(t.bytes))
    })
}

/// `{"format": "pt"}`, which `transformers` and `peft` want to see.
pub fn pytorch_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".into(), "pt".into())])
}

/// Begins the file that will stand at `path`: its header is written, its tensors' bytes are to follow in this order, which
/// must be that of [`sort`]. Dropped before its end it leaves nothing.
///
/// # Errors
/// [`StoreError::TensorBytes`] where a shape is not addressable.
///
/// # Panics
/// If a name stands twice, a coding is one of GGUF's blocks, or the order is another: those are bugs of the caller.
pub fn writer(path: &Path, tensors: &[TensorInfo], metadata: &BTreeMap<String, String>) -> Result<TensorWriter> {
    assert!(tensors.is_sorted_by(|a, b| order(a.dtype, &a.name, b.dtype, &b.name).is_lt()), "tensors in another order than the file's");
    let size = |t: &TensorInfo| t.dtype.bytes(&t.shape).ok_or_else(|| wrong_bytes(&t.name, t.dtype, &t.shape, 0, None));
    let sizes = tensors.iter().map(size).collect::<Result<Vec<_>>>()?;
    let described = tensors.iter().zip(&sizes).map(|(t, &size)| (t.name.as_str(), t.dtype, t.shape.as_slice(), size));
    let header = header(described, metadata);
    let head = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    TensorWriter::begin(atomic::Pending::create(path)?, &head, sizes, 1)
}

/// Puts tensors into the order of their bytes: as in the reference implementation the widest coding first, so that every
/// tensor is aligned; then by name.
pub fn sort(tensors: &mut [TensorInfo]) {
    tensors.sort_by(|a, b| order(a.dtype, &a.name, b.dtype, &b.name));
}

fn order(a: Dtype, a_name: &str, b: Dtype, b_name: &str) -> std::cmp::Ordering {
    b.cmp(&a).then_with(|| a_name.cmp(b_name))
}

fn layout<'a, 'b>(tensors: &'a [TensorData<'b>], metadata: &BTreeMap<String, String>) -> Result<(Vec<&'a TensorData<'b>>, Vec<u8>)> {
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by(|a, b| order(a.dtype, a.name, b.dtype, b.name));
    for t in &sorted {
        let expected = t.dtype.bytes(t.shape);
        if expected != Some(t.bytes.len()) {
            return Err(wrong_bytes(t.name, t.dtype, t.shape, t.bytes.len(), expected));
        }
    }
    let header = header(sorted.iter().map(|t| (t.name, t.dtype, t.shape, t.bytes.len())), metadata);
    Ok((sorted, header))
}

fn wrong_bytes(name: &str, dtype: Dtype, shape: &[usize], given: usize, expected: Option<usize>) -> StoreError {
    let expected = expected.map_or_else(|| "an addressable number of bytes".into(), |n| n.to_string());
    StoreError::TensorBytes { name: name.into(), given, expected, dtype, shape: shape.to_vec() }
}

/// The header of these tensors (name, coding, shape, bytes), padded to 8.
fn header<'a>(tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], usize)>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut lines = Vec::new();
    if !metadata.is_empty() {
        lines.push(format!("\"__metadata__\":{}", json(metadata)));
    }
    let (mut start, mut names) = (0u64, BTreeSet::new());
    for (name, dtype, shape, size) in tensors {
        assert!(names.insert(name), "a tensor's name stands twice");
        assert!(DTYPES.contains(&dtype), "{dtype:?} cannot stand in a safetensors file");
        let end = start + size as u64;
        lines.push(format!(
            "{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{start},{end}]}}",
            json(&name),
            dtype.name(),
            json(&shape)
        ));
        start = end;
    }
    let mut header = format!("{{{}}}", lines.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers always serialise")
}

/// A model spread over several files by an index.
#[derive(Debug)]
pub struct Sharded {
    shards: Vec<SafetensorsFile>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Sharded {
    /// Opens `model.safetensors.index.json` and every shard that it names; index and shards must agree.
    pub fn open(index: &Path) -> Result<Self> {
        let bad = |fault| StoreError::safetensors(index, fault);
        let bytes = atomic::read(index, MAX_INDEX_BYTES)?;
        let raw: RawIndex = serde_json::from_slice(&bytes).map_err(|reason| StoreError::Json { reason, path: index.to_path_buf() })?;
        let mut placed = BTreeMap::new();
        for (name, shard) in raw.weight_map.0 {
            if !is_plain_file_name(&shard) {
                return Err(bad(Fault::ShardName { shard: shown(&shard) }));
            }
            if placed.insert(name.clone(), shard).is_some() {
                return Err(bad(Fault::Duplicate { name: shown(&name) }));
            }
        }
        let mut sharded = Self { shards: Vec::new(), tensors: Vec::new(), by_name: HashMap::new() };
        for shard in placed.values().collect::<BTreeSet<_>>() {
            let path = index.with_file_name(shard);
            let file = match SafetensorsFile::open(&path) {
                Err(StoreError::Missing { .. }) => return Err(bad(Fault::ShardMissing { shard: shown(shard) })),
                other => other?,
            };
            for info in file.tensors() {
                if placed.get(&info.name) != Some(shard) {
                    return Err(bad(Fault::NotInIndex { name: shown(&info.name), shard: shown(shard) }));
                }
                sharded.by_name.insert(info.name.clone(), sharded.shards.len());
                sharded.tensors.push(info.clone());
            }
            sharded.shards.push(file);
        }
        match placed.iter().find(|(name, _)| !sharded.by_name.contains_key(*name)) {
            Some((name, shard)) => Err(bad(Fault::NotInShard { name: shown(name), shard: shown(shard) })),
            None => Ok(sharded),
        }
    }

    /// All tensors, shard by shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The files, in name order.
    pub fn shards(&self) -> &[SafetensorsFile] {
        &self.shards
    }

    /// The shard that holds a tensor.
    pub fn shard_of(&self, name: &str) -> Option<&SafetensorsFile> {
        self.by_name.get(name).map(|&i| &self.shards[i])
    }
}

fn is_plain_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None));
    plain && name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '\0'])
}

#[derive(serde::Deserialize)]
struct RawIndex {
    weight_map: WeightMap,
}

/// A list, so that a name standing twice is seen.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Lines;
        impl<'de> Visitor<'de> for Lines {
            type Value = WeightMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names and file names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<WeightMap, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = map.next_entry()? {
                    if lines.len() >= MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    lines.push(line);
                }
                Ok(WeightMap(lines))
            }
        }
        deserializer.deserialize_map(Lines)
    }
}
