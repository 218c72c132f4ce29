//! Text to token ids and back, and chat templates: knows no files, no tensors.
//!
//! In the order text flows: [`Tokenizer`] (from tokenizer.json or a GGUF vocabulary), [`ChatTemplate`]
//! (messages to text), [`ChatFormat`] (messages to ids and to the weights with which each id counts as a target), or [`PlainFormat`],
//! which does so for texts that are nobody's turn.
#![forbid(unsafe_code)]

mod chat;
mod error;
mod gguf;
mod plain;
mod spm;
mod template;
mod to_gguf;
mod tokenizer;
mod tokenizer_config;
mod tokenizer_json;

pub use chat::{ChatFormat, LossOn, Message, Rendered, Role, Turn};
pub use error::{RecordProblem, TextError};
pub use gguf::{GgufVocabulary, pre_tokenizer_names};
pub use plain::PlainFormat;
pub use template::{BUILT_IN_TEMPLATES, ChatTemplate, Date, TemplateContext};
pub use tokenizer::{DecodeStream, Specials, Tokenizer};
pub use tokenizer_config::TokenizerConfig;
