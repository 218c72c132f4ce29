//! config.json, GGUF keys, tensor and PEFT names to and from the engine's ModelConfig: pure functions.
//!
//! A family is a row of configuration and a map of names, never block code. Everything here is a pure
//! function of its arguments; the bytes come from `store` through `recipes`.
//!
//! | module | for |
//! |---|---|
//! | [`hugging_face`] | config.json ⇄ [`Described`] |
//! | [`gguf`] | GGUF metadata ⇄ [`Described`], and the order of rows in GGUF's q and k |
//! | [`tensors`] | engine's tensor names ⇄ Hugging Face's and GGUF's |
//! | [`licence`] | what well-known licences ask |
//! | [`adapters`] | PEFT's names ⇄ (layer, linear) |
//! | [`rotary`] | rotary frequencies, bit for bit the same everywhere |
#![forbid(unsafe_code)]

pub mod adapters;
mod error;
pub mod gguf;
pub mod hugging_face;
pub mod licence;
mod limits;
pub mod rotary;
pub mod tensors;

pub use error::FamilyError;

use engine::config::ModelConfig;

/// What this crate returns.
pub type Result<T> = std::result::Result<T, FamilyError>;

/// A family of models that share names and block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 1–3, SmolLM, SmolLM2 and all that call themselves `llama`.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
}

impl Family {
    /// `model_type` in config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
        }
    }
}

/// What a description file says about a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Its family.
    pub family: Family,
    /// The engine's configuration.
    pub config: ModelConfig,
    /// How positions turn.
    pub rope: rotary::Rope,
}
