//! tokenizer_config.json.

use crate::TextError;

/// What tokenizer_config.json says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig { /// Text of the begin token.
    pub bos_token: Option<String>, /// Text of the end token.
    pub eos_token: Option<String>, /// Text of the padding token.
    pub pad_token: Option<String>, /// Text of the unknown token.
    pub unk_token: Option<String>, /// The chat template (the one named "default" where there are several); chat_template.jinja beside it goes before.
    pub chat_template: Option<String> }

impl TokenizerConfig {
    /// Reads it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TextError> { let _ = bytes; todo!() }
}
