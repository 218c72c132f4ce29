//! GGUF metadata ⇄ ModelConfig, and the order of rows in GGUF's query and key weights.
//!
//! Source: llama.cpp's gguf-py constants and convert_hf_to_gguf.py (Llama: `permute`, rotary factors).
use std::collections::BTreeMap;

use engine::config::{Linear, ModelConfig, TensorName};

use crate::error::shown;
use crate::rotary::{self, Rope, RopeScaling};
use crate::{Described, Family, FamilyError, Result, limits};

/// A metadata value, as far as a description needs it.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaValue {
    /// Any unsigned or non-negative integer.
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A text.
    Text(String),
    /// An array, of which only the length matters here.
    Length(usize),
}

impl MetaValue {
    fn shown(&self) -> String {
        match self {
            Self::Unsigned(n) => n.to_string(),
            Self::Signed(n) => n.to_string(),
            Self::Float(x) => x.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::Text(text) => format!("{:?}", shown(text)),
            Self::Length(n) => format!("an array of {n}"),
        }
    }
}

/// The tensor that carries Llama 3's rotary factors, `[head_dim / 2]`, where there is one.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

const TOKENS: &str = "tokenizer.ggml.tokens";
const CONTEXT: &str = "llama.context_length";
const HIDDEN: &str = "llama.embedding_length";
const LAYERS: &str = "llama.block_count";
const INTERMEDIATE: &str = "llama.feed_forward_length";
const HEADS: &str = "llama.attention.head_count";
const KV_HEADS: &str = "llama.attention.head_count_kv";
const KEY_LENGTH: &str = "llama.attention.key_length";
const VALUE_LENGTH: &str = "llama.attention.value_length";
const NORM_EPS: &str = "llama.attention.layer_norm_rms_epsilon";
const WINDOW: &str = "llama.attention.sliding_window";
const VOCABULARY: &str = "llama.vocab_size";
const ROPE_DIMENSIONS: &str = "llama.rope.dimension_count";
const ROPE_BASE: &str = "llama.rope.freq_base";
const ROPE_SCALING: &str = "llama.rope.scaling.type";
const ROPE_FACTOR: &str = "llama.rope.scaling.factor";
const OLD_ROPE_FACTOR: &str = "llama.rope.scale_linear";

/// Keys by which other families under the name "llama" change the arithmetic, and the value that changes nothing.
const MUST_BE: [(&str, f64, &str); 7] = [
    ("llama.expert_count", 0.0, "0 (no experts)"),
    ("llama.attention.scale", 0.0, "0 (one over the root of the head's size)"),
    ("llama.logit_scale", 1.0, "1"),
    ("llama.residual_scale", 1.0, "1"),
    ("llama.embedding_scale", 1.0, "1"),
    ("llama.rope.scaling.attn_factor", 1.0, "1"),
    ("llama.attn_logit_softcapping", 0.0, "0"),
];

/// Reads GGUF metadata. `rope_factors` are the values of [`ROPE_FACTORS`] if the file has that tensor;
/// `has_head` is whether it has `output.weight`.
pub fn describe(metadata: &BTreeMap<String, MetaValue>, rope_factors: Option<&[f32]>, has_head: bool) -> Result<Described> {
    let keys = Keys(metadata);
    let architecture = keys.text("general.architecture")?.ok_or(FamilyError::Missing { key: "general.architecture" })?;
    if architecture != "llama" {
        let supported = "llama (Llama 1 to 3, Mistral, SmolLM, SmolLM2 …)";
        return Err(FamilyError::Architecture { key: "general.architecture", given: shown(architecture), supported });
    }
    for (key, value, supported) in MUST_BE {
        if let Some(given) = keys.number(key, f64::MIN, f64::MAX)?.filter(|&given| given != value) {
            return Err(FamilyError::Unsupported { key, given: given.to_string(), supported });
        }
    }
    if metadata.get("llama.attention.causal") == Some(&MetaValue::Bool(false)) {
        return Err(FamilyError::Unsupported { key: "llama.attention.causal", given: "false".into(), supported: "true" });
    }
    let hidden = keys.size(HIDDEN, limits::WIDTH)?;
    let heads = keys.size(HEADS, limits::HEADS)?;
    let kv_heads = keys.optional_size(KV_HEADS, limits::HEADS)?.unwrap_or(heads);
    limits::divisible(HEADS, heads, KV_HEADS, kv_heads)?;
    let head_dim = match keys.optional_size(KEY_LENGTH, limits::HEAD_DIM)? {
        Some(given) => given,
        None => limits::divisible(HIDDEN, hidden, HEADS, heads)?,
    };
    limits::divisible("head size", head_dim, "rotary pairs", 2)?;
    for key in [VALUE_LENGTH, ROPE_DIMENSIONS] {
        if let Some(given) = keys.optional_size(key, limits::HEAD_DIM)?.filter(|&given| given != head_dim) {
            return Err(FamilyError::Disagree { key, given: given.to_string(), other_key: "the head's size", other: head_dim.to_string() });
        }
    }
    let rope = rope(&keys, rope_factors, head_dim)?;
    let window = keys.optional_size(WINDOW, limits::CONTEXT)?;
    let config = ModelConfig {
        vocab: vocabulary(&keys)?,
        hidden,
        layers: keys.size(LAYERS, limits::LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        intermediate: keys.size(INTERMEDIATE, limits::WIDTH)?,
        norm_eps: keys.number(NORM_EPS, f64::from(f32::MIN_POSITIVE), 1.0)?.ok_or(FamilyError::Missing { key: NORM_EPS })? as f32,
        rotary_inv_freq: rotary::inv_freq(&rope, head_dim),
        window,
        context: keys.size(CONTEXT, limits::CONTEXT)?,
        tied_embeddings: !has_head,
    };
    limits::sizes(&config)?;
    let family = if window.is_some() { Family::Mistral } else { Family::Llama };
    Ok(Described { family, config, rope })
}

fn vocabulary(keys: &Keys<'_>) -> Result<usize> {
    match keys.0.get(TOKENS) {
        Some(MetaValue::Length(tokens)) => limits::size(TOKENS, *tokens as u64, limits::VOCABULARY),
        Some(other) => Err(FamilyError::Kind { key: TOKENS, given: other.shown(), expected: "an array" }),
        None => keys.size(VOCABULARY, limits::VOCABULARY),
    }
}

fn rope(keys: &Keys<'_>, factors: Option<&[f32]>, head_dim: usize) -> Result<Rope> {
    let theta = keys.number(ROPE_BASE, limits::THETA.0, limits::THETA.1)?.unwrap_or(10_000.0);
    let factor = match keys.number(ROPE_FACTOR, limits::FACTOR.0, limits::FACTOR.1)? {
        Some(factor) => Some(factor),
        None => keys.number(OLD_ROPE_FACTOR, limits::FACTOR.0, limits::FACTOR.1)?,
    };
    let linear = match keys.text(ROPE_SCALING)? {
        Some("none") => None,
        Some("linear") => Some(factor.ok_or(FamilyError::Missing { key: ROPE_FACTOR })?),
        None => factor,
        Some(other) => {
            return Err(FamilyError::Unsupported {
                key: ROPE_SCALING,
                given: shown(other),
                supported: "none, linear, and Llama 3's factors",
            });
        }
    }
    .filter(|&factor| factor != 1.0);
    let Some(factors) = factors else {
        return Ok(Rope { theta, scaling: linear.map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor }) });
    };
    if let Some(factor) = linear {
        return Err(FamilyError::Disagree {
            key: ROPE_FACTOR,
            given: factor.to_string(),
            other_key: ROPE_FACTORS,
            other: "there too".into(),
        });
    }
    if factors.len() != head_dim / 2 {
        return Err(FamilyError::Shape { name: ROPE_FACTORS.into(), given: vec![factors.len()], expected: vec![head_dim / 2] });
    }
    for &factor in factors {
        limits::number(ROPE_FACTORS, f64::from(factor), limits::FACTOR.0, limits::FACTOR.1)?;
    }
    Ok(Rope { theta, scaling: RopeScaling::Factors(factors.to_vec()) })
}

/// The metadata that describes the model (not its tokenizer), and the rotary factors to write as [`ROPE_FACTORS`].
pub fn to_metadata(described: &Described) -> (BTreeMap<String, MetaValue>, Option<Vec<f32>>) {
    let c = &described.config;
    let size = |n: usize| MetaValue::Unsigned(n as u64);
    let mut keys = BTreeMap::from([
        ("general.architecture".to_owned(), MetaValue::Text("llama".into())),
        (CONTEXT.into(), size(c.context)),
        (HIDDEN.into(), size(c.hidden)),
        (LAYERS.into(), size(c.layers)),
        (INTERMEDIATE.into(), size(c.intermediate)),
        (HEADS.into(), size(c.heads)),
        (KV_HEADS.into(), size(c.kv_heads)),
        (KEY_LENGTH.into(), size(c.head_dim)),
        (VALUE_LENGTH.into(), size(c.head_dim)),
        (NORM_EPS.into(), MetaValue::Float(c.norm_eps.into())),
        (VOCABULARY.into(), size(c.vocab)),
        (ROPE_DIMENSIONS.into(), size(c.head_dim)),
        (ROPE_BASE.into(), MetaValue::Float(described.rope.theta)),
    ]);
    if let Some(window) = c.window {
        keys.insert(WINDOW.into(), size(window));
    }
    let factors = match &described.rope.scaling {
        RopeScaling::None => None,
        RopeScaling::Linear { factor } => {
            keys.insert(ROPE_SCALING.into(), MetaValue::Text("linear".into()));
            keys.insert(ROPE_FACTOR.into(), MetaValue::Float(*factor));
            None
        }
        RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {
            Some(rotary::divisors(&described.rope, c.head_dim).iter().map(|&d| d as f32).collect())
        }
    };
    (keys, factors)
}

/// GGUF keeps Llama's q and k rows interleaved: row `i` of the engine's matrix is row `order[i]` of the
/// file's. Whole rows, so it holds for quantised bytes as well; `None` where the orders agree.
pub fn row_order(name: TensorName, config: &ModelConfig) -> Option<Vec<usize>> {
    let heads = match name {
        TensorName::Linear(_, Linear::Query) => config.heads,
        TensorName::Linear(_, Linear::Key) => config.kv_heads,
        _ => return None,
    };
    let (d, half) = (config.head_dim, config.head_dim / 2);
    // Engine: pairs (i, i + d/2) of a head; file: pairs (2i, 2i + 1).
    Some((0..heads * d).map(|row| (row / d) * d + 2 * (row % d % half) + (row % d) / half).collect())
}

/// `bytes` with its rows (of equal length) put into `order`: row i of the result is row `order[i]`.
///
/// # Panics
/// If the bytes are not `order.len()` rows of equal length, or an index is beyond them.
pub fn reorder_rows(bytes: &[u8], order: &[usize]) -> Vec<u8> {
    assert!(!order.is_empty() && bytes.len().is_multiple_of(order.len()), "{} bytes are not {} equal rows", bytes.len(), order.len());
    let row = bytes.len() / order.len();
    let mut out = Vec::with_capacity(bytes.len());
    order.iter().for_each(|&i| out.extend_from_slice(&bytes[i * row..(i + 1) * row]));
    out
}

struct Keys<'a>(&'a BTreeMap<String, MetaValue>);

impl<'a> Keys<'a> {
    fn text(&self, key: &'static str) -> Result<Option<&'a str>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(MetaValue::Text(text)) => Ok(Some(text)),
            Some(other) => Err(FamilyError::Kind { key, given: other.shown(), expected: "a text" }),
        }
    }

    fn size(&self, key: &'static str, high: usize) -> Result<usize> {
        self.optional_size(key, high)?.ok_or(FamilyError::Missing { key })
    }

    fn optional_size(&self, key: &'static str, high: usize) -> Result<Option<usize>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(MetaValue::Unsigned(n)) => limits::size(key, *n, high).map(Some),
            Some(MetaValue::Signed(n)) => Err(FamilyError::Range { key, given: n.to_string(), low: 1.0, high: high as f64 }),
            Some(other) => Err(FamilyError::Kind { key, given: other.shown(), expected: "a whole number" }),
        }
    }

    fn number(&self, key: &'static str, low: f64, high: f64) -> Result<Option<f64>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(MetaValue::Float(x)) => limits::number(key, *x, low, high).map(Some),
            Some(MetaValue::Unsigned(n)) => limits::number(key, *n as f64, low, high).map(Some),
            Some(MetaValue::Signed(n)) => limits::number(key, *n as f64, low, high).map(Some),
            Some(other) => Err(FamilyError::Kind { key, given: other.shown(), expected: "a number" }),
        }
    }
}
