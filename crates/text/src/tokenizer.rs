//! Text to ids and back.

use crate::{GgufVocabulary, TextError, TokenizerConfig};
use std::ops::Range;

/// What the text of a special token becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials { /// Ordinary text: for everything a user or a document says.
    AsText, /// The special token: for what a template says.
    Parse }

/// A tokenizer; clones share it.
#[derive(Clone, Debug)]
pub struct Tokenizer {}

impl Tokenizer {
    /// From tokenizer.json, and tokenizer_config.json where there is one.
    pub fn from_json(bytes: &[u8], config: Option<&TokenizerConfig>) -> Result<Self, TextError> { let _ = (bytes, config); todo!() }
    /// From a GGUF file's keys.
    pub fn from_gguf(vocabulary: &GgufVocabulary) -> Result<Self, TextError> { let _ = vocabulary; todo!() }
    /// Ids of a text, nothing added before or after.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TextError> { let _ = (text, specials); todo!() }
    /// Ids with the bytes each stands for.
    pub fn encode_with_offsets(&self, text: &str, specials: Specials) -> Result<Vec<(u32, Range<usize>)>, TextError> { let _ = (text, specials); todo!() }
    /// Ids of a whole document: with what the model expects around it (a begin token, say).
    pub fn encode_document(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TextError> { let _ = (text, specials); todo!() }
    /// The text of ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> { let _ = (ids, skip_special); todo!() }
    /// Decoding one id at a time.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> { let _ = skip_special; todo!() }
    /// Highest id + 1.
    pub fn vocab_size(&self) -> usize { todo!() }
    /// A token as the vocabulary writes it.
    pub fn token_text(&self, id: u32) -> Option<String> { let _ = id; todo!() }
    /// Id of a token as the vocabulary writes it.
    pub fn token_id(&self, text: &str) -> Option<u32> { let _ = text; todo!() }
    /// Ids of special tokens, ascending.
    pub fn special_ids(&self) -> &[u32] { todo!() }
    /// Begin-of-text.
    pub fn bos(&self) -> Option<u32> { todo!() }
    /// End-of-text.
    pub fn eos(&self) -> Option<u32> { todo!() }
    /// Padding.
    pub fn pad(&self) -> Option<u32> { todo!() }
    /// Bytes that are equal exactly when two tokenizers are: what a manifest hashes.
    pub fn canonical_bytes(&self) -> Vec<u8> { todo!() }
}

/// Decodes ids as they come; incomplete UTF-8 is held back.
#[derive(Debug)]
pub struct DecodeStream<'a> { tokenizer: &'a Tokenizer }

impl DecodeStream<'_> {
    /// The text that one more id completes, often empty.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> { let _ = (id, self.tokenizer); todo!() }
    /// What is still held back, incomplete bytes as U+FFFD.
    pub fn finish(self) -> Result<String, TextError> { todo!() }
}
