//! A GGUF file's vocabulary.

/// The tokenizer keys of a GGUF file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary { /// `tokenizer.ggml.model`.
    pub model: String, /// `tokenizer.ggml.pre`, or empty.
    pub pre: String, /// `tokenizer.ggml.tokens`.
    pub tokens: Vec<String>, /// `tokenizer.ggml.token_type`, or empty (all ordinary).
    pub token_types: Vec<i32>, /// `tokenizer.ggml.merges`.
    pub merges: Vec<String>, /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>, /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>, /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>, /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>, /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>, /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>, /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool> }

/// The `tokenizer.ggml.pre` names that are read.
pub fn pre_tokenizer_names() -> Vec<&'static str> { todo!() }
