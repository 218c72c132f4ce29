//! A base model on disk: a Hugging Face folder or a GGUF file, validated, read tensor by tensor.
//!
//! Pickle files (.bin, .pt, .ckpt, .pkl) are refused: reading one can run code.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::atomic::PendingFolder;
use crate::bitsandbytes::{self, Parts, Quantized};
use crate::error::shown;
use crate::gguf::{GgufFile, GgufValue};
use crate::mapped::MappedBytes;
use crate::safetensors::{self, SafetensorsFile, Sharded, TensorData};
use crate::{Dtype, GgufFault, Result, StoreError, TensorInfo, atomic};

/// config.json and its like beyond this are refused.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// A tokenizer.json beyond this is refused.
pub const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// A chat template beyond this is refused.
pub const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// What describes the model.
#[derive(Clone, Debug)]
pub enum Description {
    /// config.json of a Hugging Face folder.
    HuggingFace(Value),
    /// Metadata of a GGUF file.
    Gguf(BTreeMap<String, GgufValue>),
}

/// What the tokenizer is made from.
#[derive(Clone, Debug)]
pub enum TokenizerFiles {
    /// tokenizer.json's bytes.
    HuggingFace {
        /// tokenizer.json.
        json: Vec<u8>,
    },
    /// The vocabulary inside a GGUF file.
    Gguf(GgufVocabulary),
}

/// The arrays of `tokenizer.ggml.*`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: "gpt2" for byte-level BPE, "llama" for SentencePiece.
    pub model: String,
    /// `tokenizer.ggml.pre`: llama.cpp's name of the pre-tokenizer.
    pub pre: Option<String>,
    /// Tokens by id.
    pub tokens: Vec<String>,
    /// llama.cpp's token types by id (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte); empty if absent.
    pub token_types: Vec<i32>,
    /// Scores by id; empty if absent.
    pub scores: Vec<f32>,
    /// BPE merges, "left right", best first; empty if absent.
    pub merges: Vec<String>,
    /// `add_bos_token`, if given.
    pub add_bos: Option<bool>,
    /// `add_eos_token`, if given.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`, if given.
    pub add_space_prefix: Option<bool>,
}

/// Special tokens as the files name them; ids and texts as far as known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecialTokens {
    /// Text of the beginning-of-sequence token.
    pub bos: Option<String>,
    /// Text of the end-of-sequence token.
    pub eos: Option<String>,
    /// Text of the padding token.
    pub pad: Option<String>,
    /// Text of the unknown token.
    pub unk: Option<String>,
    /// Ids that end generation (generation_config.json, config.json, GGUF's eos and eot), ascending, without repeats.
    pub end_ids: Vec<u32>,
    /// Whether the tokenizer is to put `bos` before a text (tokenizer_config.json, GGUF), if said.
    pub add_bos: Option<bool>,
}

/// A file and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// File name inside the model folder, or the GGUF file's name.
    pub name: String,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Length.
    pub bytes: u64,
}

/// A base model, open and validated.
#[derive(Debug)]
pub struct BaseModel {
    path: PathBuf,
    description: Description,
    weights: Weights,
    /// Where bitsandbytes quantised it: which tensors, and all tensors with those as one.
    quantized: Option<bitsandbytes::Found>,
    tokenizer_config: Option<Value>,
    generation_config: Option<Value>,
    chat_template: Option<String>,
    special_tokens: SpecialTokens,
    licence: Option<String>,
}

#[derive(Debug)]
enum Weights {
    Single(SafetensorsFile),
    Sharded(Sharded),
    Gguf(GgufFile),
}

impl Weights {
    fn tensors(&self) -> &[TensorInfo] {
        match self {
            Weights::Single(file) => file.tensors(),
            Weights::Sharded(shards) => shards.tensors(),
            Weights::Gguf(file) => file.tensors(),
        }
    }

    /// The bytes of a tensor; `path` is the model's, for the message.
    fn read(&self, name: &str, path: &Path) -> Result<Vec<u8>> {
        match self {
            Weights::Single(file) => file.read(name),
            Weights::Sharded(shards) => match shards.shard_of(name) {
                Some(shard) => shard.read(name),
                None => Err(StoreError::NoSuchTensor { name: shown(name), count: shards.tensors().len(), path: path.join(INDEX) }),
            },
            Weights::Gguf(file) => file.read(name),
        }
    }
}

const PICKLES: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

impl BaseModel {
    /// Opens a folder with config.json or a GGUF file; refuses pickle files with the way to convert them.
    /// A folder without config.json that holds exactly one GGUF file stands for that file.
    pub fn open(path: &Path) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(|e| StoreError::io("read", path, e))?;
        if found.is_dir() {
            if !path.join("config.json").exists()
                && let [only] = &files_ending(path, &["gguf"])?[..]
            {
                return Self::open_gguf(&path.join(only));
            }
            return Self::open_folder(path);
        }
        if has_extension(path, &PICKLES) {
            let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            return Err(StoreError::Pickle { file, path: path.parent().unwrap_or(path).to_path_buf() });
        }
        if has_extension(path, &["safetensors", "json"]) {
            return Err(StoreError::NotAModel { missing: "the folder with config.json, or a GGUF file,", path: path.to_path_buf() });
        }
        Self::open_gguf(path)
    }

    fn open_folder(path: &Path) -> Result<Self> {
        let config = match atomic::read_object(&path.join("config.json"), MAX_CONFIG_BYTES) {
            Err(StoreError::Missing { .. }) => {
                return Err(StoreError::NotAModel { missing: "config.json, or one GGUF file,", path: path.to_path_buf() });
            }
            other => other?,
        };
        let weights = if path.join(SINGLE).exists() {
            Weights::Single(SafetensorsFile::open(&path.join(SINGLE))?)
        } else if path.join(INDEX).exists() {
            Weights::Sharded(Sharded::open(&path.join(INDEX))?)
        } else {
            let pickle = files_ending(path, &PICKLES)?.into_iter().next();
            return Err(match pickle {
                Some(file) => StoreError::Pickle { file, path: path.to_path_buf() },
                None => StoreError::NotAModel { missing: "model.safetensors or model.safetensors.index.json", path: path.to_path_buf() },
            });
        };
        let quantized = match config["quantization_config"]["quant_method"].as_str() {
            Some("bitsandbytes") => Some(bitsandbytes::find(weights.tensors(), &|name| weights.read(name, path), path)?),
            _ => None,
        };
        let tokenizer_config = optional_object(&path.join("tokenizer_config.json"))?;
        let generation_config = optional_object(&path.join("generation_config.json"))?;
        let special_map = optional_object(&path.join("special_tokens_map.json"))?;
        let chat_template = folder_template(path, tokenizer_config.as_ref())?;
        let special_tokens = folder_special_tokens(&config, tokenizer_config.as_ref(), special_map.as_ref(), generation_config.as_ref());
        let licence = front_matter_licence(&path.join("README.md"));
        let description = Description::HuggingFace(config);
        Ok(Self {
            path: path.to_path_buf(),
            description,
            weights,
            quantized,
            tokenizer_config,
            generation_config,
            chat_template,
            special_tokens,
            licence,
        })
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        let keys = file.metadata();
        let text = |key: &str| match keys.get(key) {
            Some(GgufValue::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let chat_template = text("tokenizer.chat_template");
        if let Some(given) = chat_template.as_ref().map(|t| t.len() as u64).filter(|&n| n > MAX_TEMPLATE_BYTES) {
            return Err(StoreError::TooLarge { given, limit: MAX_TEMPLATE_BYTES, path: path.to_path_buf() });
        }
        let special_tokens = gguf_special_tokens(keys);
        let licence = text("general.license");
        let description = Description::Gguf(keys.clone());
        let weights = Weights::Gguf(file);
        Ok(Self {
            path: path.to_path_buf(),
            description,
            weights,
            quantized: None,
            tokenizer_config: None,
            generation_config: None,
            chat_template,
            special_tokens,
            licence,
        })
    }

    /// Where it is: the folder, or the GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// config.json or GGUF metadata.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// All tensors; names as in the files, shapes outermost first. One that bitsandbytes quantised is one, of its real shape.
    pub fn tensors(&self) -> &[TensorInfo] {
        match &self.quantized {
            Some((_, tensors)) => tensors,
            None => self.weights.tensors(),
        }
    }

    /// The bytes of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.weights.read(name, &self.path)
    }

    /// The same where the file has them.
    pub fn map(&self, name: &str) -> Result<MappedBytes> {
        match &self.weights {
            Weights::Single(file) => file.map(name),
            Weights::Sharded(shards) => match shards.shard_of(name) {
                Some(shard) => shard.map(name),
                None => Err(StoreError::NoSuchTensor { name: shown(name), count: shards.tensors().len(), path: self.path.join(INDEX) }),
            },
            Weights::Gguf(file) => file.map(name),
        }
    }

    /// How bitsandbytes quantised a tensor, where it did.
    pub fn quantized(&self, name: &str) -> Option<&Quantized> {
        self.quantized.as_ref()?.0.get(name)
    }

    /// The codes and scales of a tensor that bitsandbytes quantised.
    pub fn read_quantized(&self, name: &str) -> Result<Parts> {
        let missing = || StoreError::NoSuchTensor { name: shown(name), count: self.tensors().len(), path: self.path.clone() };
        bitsandbytes::read_parts(name, self.quantized(name).ok_or_else(missing)?, &|part| self.read(part))
    }

    /// The tokenizer's raw material.
    pub fn tokenizer(&self) -> Result<TokenizerFiles> {
        let Weights::Gguf(file) = &self.weights else {
            return match atomic::read(&self.path.join("tokenizer.json"), MAX_TOKENIZER_BYTES) {
                Ok(json) => Ok(TokenizerFiles::HuggingFace { json }),
                Err(StoreError::Missing { .. }) => {
                    let old = ["tokenizer.model", "vocab.json", "vocab.txt"].into_iter().find(|f| self.path.join(f).exists());
                    Err(StoreError::NoTokenizer { found: old.unwrap_or("nor any other tokenizer"), path: self.path.clone() })
                }
                Err(e) => Err(e),
            };
        };
        vocabulary(file.metadata()).map(TokenizerFiles::Gguf).map_err(|fault| StoreError::gguf(&self.path, fault))
    }

    /// tokenizer_config.json, if there is one (Hugging Face folders).
    pub fn tokenizer_config(&self) -> Option<&Value> {
        self.tokenizer_config.as_ref()
    }

    /// The chat template, wherever it stands.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// generation_config.json, if there is one.
    pub fn generation_config(&self) -> Option<&Value> {
        self.generation_config.as_ref()
    }

    /// Special tokens.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special_tokens
    }

    /// The licence that the files name (README.md's front matter, GGUF's general.license), if any.
    pub fn licence(&self) -> Option<&str> {
        self.licence.as_deref()
    }

    /// The files that make the model up, in name order.
    pub fn files(&self) -> Vec<PathBuf> {
        const SIDE: [&str; 8] = [
            "chat_template.jinja",
            "chat_template.json",
            "config.json",
            "generation_config.json",
            INDEX,
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        let side = || SIDE.iter().map(|f| self.path.join(f)).filter(|p| p.exists());
        let mut files: BTreeSet<PathBuf> = match &self.weights {
            Weights::Gguf(_) => BTreeSet::from([self.path.clone()]),
            Weights::Single(file) => side().filter(|p| !p.ends_with(INDEX)).chain([file.path().to_path_buf()]).collect(),
            Weights::Sharded(shards) => side().chain(shards.shards().iter().map(|s| s.path().to_path_buf())).collect(),
        };
        std::mem::take(&mut files).into_iter().collect()
    }

    /// SHA-256 of each of them; `progress` gets the bytes read so far in all.
    pub fn hashes(&self, progress: &mut dyn FnMut(u64)) -> Result<Vec<FileHash>> {
        let mut before = 0;
        let mut hashes = Vec::new();
        for path in self.files() {
            let (sha256, bytes) = atomic::sha256(&path, &mut |n| progress(before + n))?;
            before += bytes;
            hashes.push(FileHash { name: path.file_name().expect("a file has a name").to_string_lossy().into_owned(), sha256, bytes });
        }
        Ok(hashes)
    }
}

/// Writes a Hugging Face folder as a whole: all tensors, of one coding, in model.safetensors, and the other files by name.
pub fn write_folder(
    folder: &Path,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    dtype: Dtype,
    files: &[(String, Vec<u8>)],
) -> Result<()> {
    let pending = PendingFolder::create(folder)?;
    let views: Vec<_> = tensors.iter().map(|(name, (shape, bytes))| TensorData { name, dtype, shape, bytes }).collect();
    safetensors::write(&pending.path().join(SINGLE), &views, &safetensors::pytorch_metadata())?;
    for (name, bytes) in files {
        pending.write(name, bytes)?;
    }
    pending.commit()
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|e| extensions.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

/// Names of the files with one of these extensions, sorted; optimiser states and training arguments do
/// not count as weights, but are pickles all the same and never read.
fn files_ending(folder: &Path, extensions: &[&str]) -> Result<Vec<String>> {
    let failed = |e| StoreError::io("read", folder, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if has_extension(&path, extensions) && path.is_file() {
            names.push(path.file_name().expect("an entry has a name").to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn optional_object(path: &Path) -> Result<Option<Value>> {
    match atomic::read_object(path, MAX_CONFIG_BYTES) {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// In the order in which `transformers` looks: chat_template.jinja, chat_template.json, tokenizer_config.json
/// (a text, or a list of named ones, of which "default" is meant).
fn folder_template(folder: &Path, tokenizer_config: Option<&Value>) -> Result<Option<String>> {
    match atomic::read_text(&folder.join("chat_template.jinja"), MAX_TEMPLATE_BYTES) {
        Err(StoreError::Missing { .. }) => {}
        other => return other.map(Some),
    }
    let own_file = optional_object(&folder.join("chat_template.json"))?;
    let places = [own_file.as_ref(), tokenizer_config].into_iter().flatten();
    let template = places.filter_map(|file| named_template(file.get("chat_template")?)).next();
    match template.as_ref().map(|t| t.len() as u64).filter(|&n| n > MAX_TEMPLATE_BYTES) {
        Some(given) => Err(StoreError::TooLarge { given, limit: MAX_TEMPLATE_BYTES, path: folder.join("tokenizer_config.json") }),
        None => Ok(template),
    }
}

fn named_template(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|t| t["name"] == "default").or(named.first())?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

fn folder_special_tokens(config: &Value, tokenizer: Option<&Value>, map: Option<&Value>, generation: Option<&Value>) -> SpecialTokens {
    let text = |key: &str| {
        let values = [tokenizer, map].into_iter().flatten().filter_map(|file| file.get(key));
        // A token stands as its text, or as an object with `content`.
        values.filter_map(|v| v.as_str().or_else(|| v["content"].as_str())).next().map(str::to_owned)
    };
    let mut ends = BTreeSet::new();
    for value in [generation, Some(config)].into_iter().flatten().filter_map(|file| file.get("eos_token_id")) {
        let ids: &[Value] = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        ends.extend(ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
    }
    SpecialTokens {
        bos: text("bos_token"),
        eos: text("eos_token"),
        pad: text("pad_token"),
        unk: text("unk_token"),
        end_ids: ends.into_iter().collect(),
        add_bos: tokenizer.and_then(|t| t.get("add_bos_token")?.as_bool()),
    }
}

fn gguf_special_tokens(keys: &BTreeMap<String, GgufValue>) -> SpecialTokens {
    let id =
        |name: &str| keys.get(&format!("tokenizer.ggml.{name}_token_id")).and_then(GgufValue::unsigned).and_then(|n| u32::try_from(n).ok());
    let text = |name: &str| match (id(name), keys.get("tokenizer.ggml.tokens")) {
        (Some(id), Some(GgufValue::Texts(tokens))) => tokens.get(id as usize).map(str::to_owned),
        _ => None,
    };
    let ends: BTreeSet<u32> = ["eos", "eot", "eom"].into_iter().filter_map(id).collect();
    let add_bos = match keys.get("tokenizer.ggml.add_bos_token") {
        Some(GgufValue::Bool(add)) => Some(*add),
        _ => None,
    };
    SpecialTokens {
        bos: text("bos"),
        eos: text("eos"),
        pad: text("padding"),
        unk: text("unknown"),
        end_ids: ends.into_iter().collect(),
        add_bos,
    }
}

fn vocabulary(keys: &BTreeMap<String, GgufValue>) -> std::result::Result<GgufVocabulary, GgufFault> {
    let get = |name: &str| keys.get(&format!("tokenizer.ggml.{name}"));
    let wrong = |name: &str, given: &'static str, expected| GgufFault::Kind { key: format!("tokenizer.ggml.{name}"), given, expected };
    let text = |name: &str| match get(name) {
        Some(GgufValue::Text(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(name, other.kind(), "a text")),
        None => Ok(None),
    };
    let flag = |name: &str| match get(name) {
        Some(GgufValue::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(wrong(name, other.kind(), "a boolean")),
        None => Ok(None),
    };
    let texts = |name: &str| match get(name) {
        Some(GgufValue::Texts(texts)) => Ok(texts.iter().map(str::to_owned).collect()),
        Some(other) if other.elements() == Some(0) => Ok(Vec::new()),
        Some(GgufValue::Array(values)) => Err(wrong(name, values[0].kind(), "an array of texts")),
        Some(other) => Err(wrong(name, other.kind(), "an array of texts")),
        None => Ok(Vec::new()),
    };
    let integer = |v: &GgufValue| match v {
        GgufValue::Signed(n) => i32::try_from(*n).ok(),
        GgufValue::Unsigned(n) => i32::try_from(*n).ok(),
        _ => None,
    };
    let float = |v: &GgufValue| if let GgufValue::Float(x) = v { Some(*x as f32) } else { None };
    const INTEGERS: &str = "an array of small integers";
    const FLOATS: &str = "an array of floats";
    let token_types = match get("token_type") {
        Some(GgufValue::Integers(numbers)) => numbers.clone(),
        other => elements(other, integer).map_err(|given| wrong("token_type", given, INTEGERS))?,
    };
    let scores = match get("scores") {
        Some(GgufValue::Floats(numbers)) => numbers.clone(),
        other => elements(other, float).map_err(|given| wrong("scores", given, FLOATS))?,
    };
    let vocabulary = GgufVocabulary {
        model: text("model")?.ok_or_else(|| wrong("model", "nothing", "a text"))?,
        pre: text("pre")?,
        tokens: texts("tokens")?,
        token_types,
        scores,
        merges: texts("merges")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
    };
    if vocabulary.tokens.is_empty() {
        return Err(wrong("tokens", "nothing", "an array of texts"));
    }
    for (name, length) in [("token_type", vocabulary.token_types.len()), ("scores", vocabulary.scores.len())] {
        if length != 0 && length != vocabulary.tokens.len() {
            return Err(wrong(name, "an array of another length than the tokens", "one element a token"));
        }
    }
    Ok(vocabulary)
}

/// The elements of an array, none where there is no array or it is empty, which may be of any kind; or the kind of what is not
/// `wanted`.
fn elements<T>(value: Option<&GgufValue>, wanted: impl Fn(&GgufValue) -> Option<T>) -> std::result::Result<Vec<T>, &'static str> {
    match value {
        None => Ok(Vec::new()),
        Some(GgufValue::Array(values)) => values.iter().map(|v| wanted(v).ok_or_else(|| v.kind())).collect(),
        Some(other) if other.elements() == Some(0) => Ok(Vec::new()),
        Some(other) => Err(other.kind()),
    }
}

/// `license:` in the front matter of a model card; a card that cannot be read says nothing.
fn front_matter_licence(readme: &Path) -> Option<String> {
    let text = atomic::read_text(readme, MAX_CONFIG_BYTES).ok()?;
    let mut lines = text.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let line = lines.take_while(|l| l.trim_end() != "---").find_map(|l| l.strip_prefix("license:"))?;
    let licence = line.trim().trim_matches(['"', '\'']);
    (!licence.is_empty()).then(|| shown(licence))
}
