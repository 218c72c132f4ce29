//! A base model on disk: a Hugging Face folder or a GGUF file, validated, read tensor by tensor.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::gguf::GgufValue;
use crate::{Result, TensorInfo};

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
pub struct BaseModel {}

impl BaseModel {
    /// Opens a folder with config.json or a GGUF file; refuses pickle files with the way to convert them.
    pub fn open(path: &Path) -> Result<Self> { todo!() }
    /// Where it is.
    pub fn path(&self) -> &Path { todo!() }
    /// config.json or GGUF metadata.
    pub fn description(&self) -> &Description { todo!() }
    /// All tensors; names as in the files, shapes outermost first.
    pub fn tensors(&self) -> &[TensorInfo] { todo!() }
    /// The bytes of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> { todo!() }
    /// The tokenizer's raw material.
    pub fn tokenizer(&self) -> Result<TokenizerFiles> { todo!() }
    /// tokenizer_config.json, if there is one (Hugging Face folders).
    pub fn tokenizer_config(&self) -> Option<&Value> { todo!() }
    /// The chat template, wherever it stands.
    pub fn chat_template(&self) -> Option<&str> { todo!() }
    /// generation_config.json, if there is one.
    pub fn generation_config(&self) -> Option<&Value> { todo!() }
    /// Special tokens.
    pub fn special_tokens(&self) -> &SpecialTokens { todo!() }
    /// The licence that the files name (README.md's front matter, GGUF's general.license), if any.
    pub fn licence(&self) -> Option<&str> { todo!() }
    /// The files that make the model up, in name order.
    pub fn files(&self) -> Vec<PathBuf> { todo!() }
    /// SHA-256 of each of them; `progress` gets the bytes read so far in all.
    pub fn hashes(&self, progress: &mut dyn FnMut(u64)) -> Result<Vec<FileHash>> { todo!() }
}
