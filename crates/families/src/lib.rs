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
mod nearest;
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
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: norms of queries and keys.
    Qwen3,
    /// Gemma 2: soft caps, windows in every other layer, norms after attention and MLP.
    Gemma2,
    /// Gemma 3, text alone: norms of queries and keys, windows in five of six layers, which turn by another base.
    Gemma3,
    /// Phi 3, 3.5 and 4: fused projections, LongRoPE.
    Phi3,
    /// SmolLM 3: layers that do not know positions.
    SmolLm3,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 8] =
        [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3, Family::Gemma2, Family::Gemma3, Family::Phi3, Family::SmolLm3];

    /// `model_type` in config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma2 => "gemma2",
            Family::Gemma3 => "gemma3_text",
            Family::Phi3 => "phi3",
            Family::SmolLm3 => "smollm3",
        }
    }

    /// The class in config.json's `architectures`.
    pub fn class(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Mistral => "MistralForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
            Family::Gemma2 => "Gemma2ForCausalLM",
            Family::Gemma3 => "Gemma3ForCausalLM",
            Family::Phi3 => "Phi3ForCausalLM",
            Family::SmolLm3 => "SmolLM3ForCausalLM",
        }
    }

    /// `general.architecture` in a GGUF file.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Llama | Family::Mistral => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma2 => "gemma2",
            Family::Gemma3 => "gemma3",
            Family::Phi3 => "phi3",
            Family::SmolLm3 => "smollm3",
        }
    }

    /// Gemma's norms multiply by 1 + w, and its Hugging Face files hold the w.
    pub(crate) fn gains_from_zero(self) -> bool {
        matches!(self, Family::Gemma2 | Family::Gemma3)
    }

    /// llama.cpp turns the pairs (2i, 2i + 1) of these, and their GGUF files hold the rows of q and k in that order.
    pub(crate) fn interleaves_rows(self) -> bool {
        matches!(self, Family::Llama | Family::Mistral | Family::SmolLm3)
    }
}

/// What a description file says about a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Its family.
    pub family: Family,
    /// The engine's configuration.
    pub config: ModelConfig,
    /// How positions turn, in the files' terms: what `config.rotary` was made of, in its order.
    pub ropes: Vec<rotary::Rope>,
}
