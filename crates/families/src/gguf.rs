//! GGUF metadata ⇄ ModelConfig, and the order of rows in GGUF's query and key weights.
//!
//! Source: llama.cpp's gguf-py constants and convert_hf_to_gguf.py (row order of Llama, rotary factors, what is added to
//! Gemma's gains), and src/llama-model.cpp for what a file does not say: Gemma's and SmolLM 3's patterns of layers, the scale
//! of Gemma's attention.
use std::collections::{BTreeMap, BTreeSet};

use engine::config::{Gate, LayerAttention, Linear, LinearSet, ModelConfig, TensorName};

use crate::error::shown;
use crate::hugging_face::embedding_scale;
use crate::rotary::{self, Rope, RopeScaling};
use crate::tensors::{Naming, source_name};
use crate::{Described, Family, FamilyError, Result, limits, nearest};

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
/// Phi's factors up to the original context.
pub const ROPE_FACTORS_SHORT: &str = "rope_factors_short.weight";
/// Phi's factors beyond it.
pub const ROPE_FACTORS_LONG: &str = "rope_factors_long.weight";
/// The small F32 tensors that [`describe`] wants the values of.
pub const FLOATS: [&str; 3] = [ROPE_FACTORS, ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG];

const ARCHITECTURE: &str = "general.architecture";
const TOKENS: &str = "tokenizer.ggml.tokens";

// What follows the architecture's name in a key.
const CONTEXT: &str = "context_length";
const HIDDEN: &str = "embedding_length";
const LAYERS: &str = "block_count";
const INTERMEDIATE: &str = "feed_forward_length";
const HEADS: &str = "attention.head_count";
const KV_HEADS: &str = "attention.head_count_kv";
const KEY_LENGTH: &str = "attention.key_length";
const VALUE_LENGTH: &str = "attention.value_length";
const NORM_EPS: &str = "attention.layer_norm_rms_epsilon";
const WINDOW: &str = "attention.sliding_window";
const WINDOW_PATTERN: &str = "attention.sliding_window_pattern";
const CAUSAL: &str = "attention.causal";
const VOCABULARY: &str = "vocab_size";
const ATTENTION_SOFTCAP: &str = "attn_logit_softcapping";
const LOGIT_SOFTCAP: &str = "final_logit_softcapping";
const ROPE_DIMENSIONS: &str = "rope.dimension_count";
const ROPE_BASE: &str = "rope.freq_base";
const ROPE_BASE_LOCAL: &str = "rope.freq_base_swa";
const ROPE_SCALING: &str = "rope.scaling.type";
const ROPE_FACTOR: &str = "rope.scaling.factor";
const OLD_ROPE_FACTOR: &str = "rope.scale_linear";
const ROPE_ATTENTION_FACTOR: &str = "rope.scaling.attn_factor";
const ROPE_ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";

/// Keys by which other models of these architectures change the arithmetic, and the value that changes nothing.
const MUST_BE: [(&str, f64, &str); 5] = [
    ("expert_count", 0.0, "0 (no experts)"),
    ("attention.scale", 0.0, "0 (the architecture's own scale)"),
    ("logit_scale", 1.0, "1"),
    ("residual_scale", 1.0, "1"),
    ("embedding_scale", 1.0, "1 (the architecture's own scale)"),
];

/// Keys of every architecture that is read.
macro_rules! keys {
    ($($more:expr),*) => {
        &[
            CONTEXT, HIDDEN, LAYERS, INTERMEDIATE, HEADS, KV_HEADS, KEY_LENGTH, VALUE_LENGTH, NORM_EPS, CAUSAL, VOCABULARY, ROPE_DIMENSIONS,
            ROPE_BASE, ROPE_SCALING, ROPE_FACTOR, OLD_ROPE_FACTOR, ROPE_ATTENTION_FACTOR, ATTENTION_SOFTCAP, LOGIT_SOFTCAP, WINDOW,
            "expert_count", "attention.scale", "logit_scale", "residual_scale", "embedding_scale", $($more),*
        ]
    };
}

/// The keys of a family's metadata, without the architecture before them, that change its [`ModelConfig`] or are refused with
/// another value than the one that changes nothing.
pub fn keys(family: Family) -> &'static [&'static str] {
    match family {
        Family::Gemma2 => keys!(WINDOW_PATTERN),
        Family::Gemma3 => keys!(WINDOW_PATTERN, ROPE_BASE_LOCAL),
        Family::Phi3 => keys!(ROPE_ORIGINAL_CONTEXT),
        Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 => keys!(),
    }
}

/// Keys that every architecture's file must have.
const NEEDED: [&str; 6] = [CONTEXT, HIDDEN, LAYERS, INTERMEDIATE, HEADS, NORM_EPS];

/// Metadata by key.
pub type Metadata = BTreeMap<String, MetaValue>;
/// Values of small F32 tensors by name.
pub type Floats = BTreeMap<String, Vec<f32>>;

/// Reads GGUF metadata. `tensors` are the names of the file's tensors, of which a head and biases are optional; `floats` are the
/// values of those of [`FLOATS`] that it has.
pub fn describe(metadata: &Metadata, tensors: &BTreeSet<&str>, floats: &Floats) -> Result<Described> {
    let family = family(metadata)?;
    let keys = Keys { metadata, architecture: family.architecture() };
    refuse_what_is_not_done(&keys, family)?;
    let hidden = keys.size(HIDDEN, limits::WIDTH)?;
    let layers = keys.size(LAYERS, limits::LAYERS)?;
    let heads = keys.size(HEADS, limits::HEADS)?;
    let kv_heads = keys.optional_size(KV_HEADS, limits::HEADS)?.unwrap_or(heads);
    limits::divisible(&keys.name(HEADS), heads, &keys.name(KV_HEADS), kv_heads)?;
    let head_dim = match keys.optional_size(KEY_LENGTH, limits::HEAD_DIM)? {
        Some(given) => given,
        None => limits::divisible(&keys.name(HIDDEN), hidden, &keys.name(HEADS), heads)?,
    };
    limits::divisible("head size", head_dim, "rotary pairs", 2)?;
    if let Some(given) = keys.optional_size(VALUE_LENGTH, limits::HEAD_DIM)?.filter(|&given| given != head_dim) {
        return Err(keys.disagrees(VALUE_LENGTH, given, "the head's size", head_dim));
    }
    let given_context = keys.size(CONTEXT, limits::CONTEXT)?;
    let ropes = ropes(&keys, family, floats, head_dim, given_context)?;
    let context = match &ropes[0].scaling {
        RopeScaling::Long { original_context, .. } => given_context.min(*original_context),
        _ => given_context,
    };
    let gemma = family.gains_from_zero();
    let cap = |key, absent: Option<f32>| {
        let given = keys.number(key, 0.0, limits::CAP.1)?;
        Ok(given.map_or(absent, |cap| Some(cap as f32)).filter(|&cap| cap > 0.0))
    };
    let default_cap = |cap| if family == Family::Gemma2 { Some(cap) } else { None };
    let attention = attention(&keys, family, layers)?;
    // What other architectures call llama with a window is Mistral.
    let family = if family == Family::Llama && attention.iter().any(|layer| layer.window.is_some()) { Family::Mistral } else { family };
    let mut config = ModelConfig {
        vocab: vocabulary(&keys)?,
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        intermediate: keys.size(INTERMEDIATE, limits::WIDTH)?,
        norm_eps: keys.number(NORM_EPS, f64::from(f32::MIN_POSITIVE), 1.0)?.ok_or_else(|| keys.missing(NORM_EPS))? as f32,
        gate: if gemma { Gate::GeluTanh } else { Gate::Silu },
        biases: LinearSet::EMPTY,
        qk_norms: matches!(family, Family::Qwen3 | Family::Gemma3),
        post_norms: gemma,
        embedding_scale: gemma.then(|| embedding_scale(hidden)),
        attention_scale: attention_scale(family, layers, hidden, heads, head_dim),
        attention_softcap: cap(ATTENTION_SOFTCAP, default_cap(50.0))?,
        logit_softcap: cap(LOGIT_SOFTCAP, default_cap(30.0))?,
        rotary: ropes.iter().map(rotary::rotary).collect(),
        attention,
        fused_qkv: family == Family::Phi3,
        fused_gate_up: family == Family::Phi3,
        context,
        tied_embeddings: !tensors.contains("output.weight"),
    };
    let bias = |linear| source_name(TensorName::Bias(0, linear), &config, Naming::Gguf);
    let found: Vec<Linear> = Linear::ALL.into_iter().filter(|&linear| tensors.contains(bias(linear).as_str())).collect();
    config.biases = LinearSet::of(if family == Family::Qwen2 { &Linear::ALL[..3] } else { &found });
    limits::sizes(&config)?;
    Ok(Described { family, config, ropes })
}

fn family(metadata: &Metadata) -> Result<Family> {
    let keys = Keys { metadata, architecture: "" };
    let given = keys.outer_text(ARCHITECTURE)?.ok_or_else(|| FamilyError::Missing { key: ARCHITECTURE.into() })?;
    if let Some(&family) = Family::ALL.iter().find(|family| family.architecture() == given) {
        return Ok(family);
    }
    let prefix = format!("{given}.");
    let own: Vec<&str> = metadata.keys().filter_map(|key| key.strip_prefix(&prefix)).collect();
    let families: Vec<_> = Family::ALL.map(|family| nearest::Keys { family, read: self::keys(family) }).into_iter().collect();
    let mut supported: Vec<&str> = Family::ALL.iter().map(|family| family.architecture()).collect();
    supported.dedup();
    Err(FamilyError::Architecture {
        key: ARCHITECTURE.into(),
        given: shown(given),
        supported: supported.join(", "),
        differences: nearest::differences(&own, &families, &NEEDED, |key| key.starts_with("tokenizer.")),
    })
}

fn refuse_what_is_not_done(keys: &Keys<'_>, family: Family) -> Result<()> {
    for (key, value, supported) in MUST_BE {
        if let Some(given) = keys.number(key, f64::MIN, f64::MAX)?.filter(|&given| given != value) {
            return Err(FamilyError::Unsupported { key: keys.name(key), given: given.to_string(), supported });
        }
    }
    if keys.get(CAUSAL) == Some(&MetaValue::Bool(false)) {
        return Err(FamilyError::Unsupported { key: keys.name(CAUSAL), given: "false".into(), supported: "true" });
    }
    let capped: &[&str] = match family {
        Family::Gemma2 => &[],
        Family::Gemma3 => &[ATTENTION_SOFTCAP],
        _ => &[ATTENTION_SOFTCAP, LOGIT_SOFTCAP],
    };
    for key in capped {
        if let Some(given) = keys.number(key, f64::MIN, f64::MAX)?.filter(|&given| given != 0.0) {
            return Err(FamilyError::Unsupported { key: keys.name(key), given: given.to_string(), supported: "0 for this architecture" });
        }
    }
    if family != Family::Phi3
        && let Some(given) = keys.number(ROPE_ATTENTION_FACTOR, f64::MIN, f64::MAX)?.filter(|&given| given != 1.0)
    {
        return Err(FamilyError::Unsupported { key: keys.name(ROPE_ATTENTION_FACTOR), given: given.to_string(), supported: "1" });
    }
    Ok(())
}

/// One over the root of the head's size; in the largest Gemmas, of hidden size over heads.
fn attention_scale(family: Family, layers: usize, hidden: usize, heads: usize, head_dim: usize) -> f32 {
    // llama.cpp knows the 27B models by their depth.
    let largest = matches!((family, layers), (Family::Gemma2, 46) | (Family::Gemma3, 62));
    let of = if largest { hidden / heads } else { head_dim };
    (1.0 / (of as f64).sqrt()) as f32
}

/// Windows and ways of turning, layer by layer.
fn attention(keys: &Keys<'_>, family: Family, layers: usize) -> Result<Vec<LayerAttention>> {
    // Phi 4's files say 0 for none.
    let window = keys.number(WINDOW, 0.0, limits::CONTEXT as f64)?.map_or(Ok(None), |given| {
        if given == 0.0 && family == Family::Phi3 { Ok(None) } else { keys.optional_size(WINDOW, limits::CONTEXT) }
    })?;
    let pattern = |absent| Ok(keys.optional_size(WINDOW_PATTERN, limits::LAYERS)?.unwrap_or(absent));
    let layer = |window, rotary| LayerAttention { window, rotary };
    Ok(match family {
        Family::Gemma2 => {
            let (window, pattern) = (window.or(Some(4096)), pattern(2)?);
            (0..layers).map(|i| layer(window.filter(|_| !(i + 1).is_multiple_of(pattern)), Some(0))).collect()
        }
        Family::Gemma3 => {
            let pattern = pattern(6)?;
            let global = |i: usize| (i + 1).is_multiple_of(pattern);
            (0..layers).map(|i| layer(window.filter(|_| !global(i)), Some(usize::from(global(i))))).collect()
        }
        Family::SmolLm3 => (0..layers).map(|i| layer(window, (!(i + 1).is_multiple_of(NO_ROPE_INTERVAL)).then_some(0))).collect(),
        _ => vec![layer(window, Some(0)); layers],
    })
}

/// Every so many layers SmolLM 3 does not turn: llama.cpp has no key for it.
const NO_ROPE_INTERVAL: usize = 4;

fn vocabulary(keys: &Keys<'_>) -> Result<usize> {
    match keys.metadata.get(TOKENS) {
        Some(MetaValue::Length(tokens)) => limits::size(TOKENS, *tokens as u64, limits::VOCABULARY),
        Some(other) => Err(FamilyError::Kind { key: TOKENS.into(), given: other.shown(), expected: "an array" }),
        None => keys.size(VOCABULARY, limits::VOCABULARY),
    }
}

fn ropes(keys: &Keys<'_>, family: Family, floats: &Floats, head_dim: usize, context: usize) -> Result<Vec<Rope>> {
    let turned = match keys.optional_size(ROPE_DIMENSIONS, limits::HEAD_DIM)? {
        Some(given) if family == Family::Phi3 && given <= head_dim => {
            limits::divisible(&keys.name(ROPE_DIMENSIONS), given, "rotary pairs", 2)?;
            given
        }
        Some(given) if given != head_dim => return Err(keys.disagrees(ROPE_DIMENSIONS, given, "the head's size", head_dim)),
        _ => head_dim,
    };
    let theta = |key, absent| Ok(keys.number(key, limits::THETA.0, limits::THETA.1)?.unwrap_or(absent));
    let scaling = scaling(keys, family, floats, turned, context)?;
    if family != Family::Gemma3 {
        return Ok(vec![Rope { theta: theta(ROPE_BASE, 10_000.0)?, turned, scaling }]);
    }
    let local = Rope { theta: theta(ROPE_BASE_LOCAL, 10_000.0)?, turned, scaling: RopeScaling::None };
    Ok(vec![local, Rope { theta: theta(ROPE_BASE, 10_000.0)?, turned, scaling }])
}

fn scaling(keys: &Keys<'_>, family: Family, floats: &Floats, turned: usize, context: usize) -> Result<RopeScaling> {
    let factor = match keys.number(ROPE_FACTOR, limits::FACTOR.0, limits::FACTOR.1)? {
        Some(factor) => Some(factor),
        None => keys.number(OLD_ROPE_FACTOR, limits::FACTOR.0, limits::FACTOR.1)?,
    };
    let linear = match keys.text(ROPE_SCALING)? {
        Some("none") => None,
        Some("linear") => Some(factor.ok_or_else(|| keys.missing(ROPE_FACTOR))?),
        Some("longrope") if family == Family::Phi3 => None,
        None => factor,
        Some(other) => {
            return Err(FamilyError::Unsupported {
                key: keys.name(ROPE_SCALING),
                given: shown(other),
                supported: "none, linear, and factors in a tensor",
            });
        }
    }
    .filter(|&factor| factor != 1.0);
    let checked = |name: &str| -> Result<Option<Vec<f32>>> {
        let Some(factors) = floats.get(name) else { return Ok(None) };
        if factors.len() != turned / 2 {
            return Err(FamilyError::Shape { name: name.into(), given: vec![factors.len()], expected: vec![turned / 2] });
        }
        for &factor in factors {
            limits::number(name, f64::from(factor), limits::FACTOR.0, limits::FACTOR.1)?;
        }
        Ok(Some(factors.clone()))
    };
    let beside = |name: &str| match linear {
        Some(factor) => Err(FamilyError::Disagree {
            key: keys.name(ROPE_FACTOR),
            given: factor.to_string(),
            other_key: name.into(),
            other: "there too".into(),
        }),
        None => Ok(()),
    };
    if let Some(factors) = checked(ROPE_FACTORS)? {
        beside(ROPE_FACTORS)?;
        return Ok(RopeScaling::Factors(factors));
    }
    let found = if family == Family::Phi3 { (checked(ROPE_FACTORS_SHORT)?, checked(ROPE_FACTORS_LONG)?) } else { (None, None) };
    match found {
        (None, None) => Ok(linear.map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor })),
        (Some(short), Some(long)) => {
            beside(ROPE_FACTORS_SHORT)?;
            let original_context = keys.size(ROPE_ORIGINAL_CONTEXT, limits::CONTEXT)?;
            let attention_factor = match keys.number(ROPE_ATTENTION_FACTOR, limits::FACTOR.0, limits::FACTOR.1)? {
                Some(given) => given,
                None => rotary::long_attention_factor(context as f64 / original_context as f64, original_context),
            };
            Ok(RopeScaling::Long { short, long, attention_factor, original_context, long_context: context })
        }
        (short, _) => {
            let missing = if short.is_none() { ROPE_FACTORS_SHORT } else { ROPE_FACTORS_LONG };
            Err(FamilyError::Missing { key: missing.into() })
        }
    }
}

/// The metadata that describes the model (not its tokenizer), and the F32 tensors that go with it, by name.
///
/// # Errors
/// [`FamilyError::Unsupported`] where llama.cpp would compute something else, because its files have no key for it.
pub fn to_metadata(described: &Described) -> Result<(Metadata, Floats)> {
    let (c, family) = (&described.config, described.family);
    let size = |n: usize| MetaValue::Unsigned(n as u64);
    let rope = described.ropes.last().expect("a description has at least one way of turning");
    let mut context = c.context;
    let mut floats = BTreeMap::new();
    let mut own: Vec<(&str, MetaValue)> = vec![
        (HIDDEN, size(c.hidden)),
        (LAYERS, size(c.layers)),
        (INTERMEDIATE, size(c.intermediate)),
        (HEADS, size(c.heads)),
        (KV_HEADS, size(c.kv_heads)),
        (KEY_LENGTH, size(c.head_dim)),
        (VALUE_LENGTH, size(c.head_dim)),
        (NORM_EPS, MetaValue::Float(c.norm_eps.into())),
        (VOCABULARY, size(c.vocab)),
        (ROPE_DIMENSIONS, size(rope.turned)),
        (ROPE_BASE, MetaValue::Float(rope.theta)),
    ];
    own.extend(c.attention.iter().find_map(|layer| layer.window).map(|window| (WINDOW, size(window))));
    own.extend(c.attention_softcap.map(|cap| (ATTENTION_SOFTCAP, MetaValue::Float(cap.into()))));
    own.extend(c.logit_softcap.map(|cap| (LOGIT_SOFTCAP, MetaValue::Float(cap.into()))));
    match &rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            own.extend([(ROPE_SCALING, MetaValue::Text("linear".into())), (ROPE_FACTOR, MetaValue::Float(*factor))]);
        }
        RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {
            floats.insert(ROPE_FACTORS.to_owned(), rotary::divisors(rope).iter().map(|&d| d as f32).collect());
        }
        RopeScaling::Long { short, long, attention_factor, original_context, long_context } => {
            context = *long_context;
            own.extend([(ROPE_ATTENTION_FACTOR, MetaValue::Float(*attention_factor)), (ROPE_ORIGINAL_CONTEXT, size(*original_context))]);
            floats.insert(ROPE_FACTORS_SHORT.to_owned(), short.clone());
            floats.insert(ROPE_FACTORS_LONG.to_owned(), long.clone());
        }
    }
    own.push((CONTEXT, size(context)));
    if family == Family::Gemma3 {
        own.push((ROPE_BASE_LOCAL, MetaValue::Float(described.ropes[0].theta)));
    }
    if family == Family::Phi3 && !c.attention.iter().any(|layer| layer.window.is_some()) {
        own.push((WINDOW, size(0)));
    }
    let name = |key: &str| format!("{}.{key}", family.architecture());
    let mut keys: BTreeMap<String, MetaValue> = own.into_iter().map(|(key, value)| (name(key), value)).collect();
    keys.insert(ARCHITECTURE.to_owned(), MetaValue::Text(family.architecture().into()));

    // What no key says must be what llama.cpp takes for granted.
    let mut tensors: BTreeSet<String> = c.tensor_names().iter().map(|&tensor| source_name(tensor, c, Naming::Gguf)).collect();
    tensors.extend(floats.keys().cloned());
    let back = describe(&keys, &tensors.iter().map(String::as_str).collect(), &floats)?.config;
    let granted = [
        ("the pattern of layers", back.attention != c.attention),
        ("the attention's scale", back.attention_scale != c.attention_scale),
        ("the activation", back.gate != c.gate),
        ("biases", back.biases != c.biases),
    ];
    match granted.iter().find(|(_, differs)| *differs) {
        None => Ok((keys, floats)),
        Some((what, _)) => Err(FamilyError::Unsupported {
            key: format!("{what} of this {}", family.model_type()),
            given: "not what GGUF files of it have".into(),
            supported: "what llama.cpp takes for granted",
        }),
    }
}

/// GGUF keeps the q and k rows of Llama and its like interleaved: row `i` of the engine's matrix (element `i` of its bias) is
/// row `order[i]` of the file's. Whole rows, so it holds for quantised bytes as well; `None` where the orders agree.
pub fn row_order(name: TensorName, described: &Described) -> Option<Vec<usize>> {
    let config = &described.config;
    let heads = match name {
        TensorName::Linear(_, Linear::Query) | TensorName::Bias(_, Linear::Query) => config.heads,
        TensorName::Linear(_, Linear::Key) | TensorName::Bias(_, Linear::Key) => config.kv_heads,
        _ => return None,
    };
    if !described.family.interleaves_rows() {
        return None;
    }
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

struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static str,
}

impl<'a> Keys<'a> {
    /// The whole key.
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn get(&self, key: &str) -> Option<&'a MetaValue> {
        self.metadata.get(&self.name(key))
    }

    fn missing(&self, key: &str) -> FamilyError {
        FamilyError::Missing { key: self.name(key) }
    }

    fn disagrees(&self, key: &str, given: usize, other_key: &str, other: usize) -> FamilyError {
        FamilyError::Disagree { key: self.name(key), given: given.to_string(), other_key: other_key.into(), other: other.to_string() }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.outer_text(&self.name(key))
    }

    /// A text under a key without the architecture before it.
    fn outer_text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(MetaValue::Text(text)) => Ok(Some(text)),
            Some(other) => Err(FamilyError::Kind { key: key.into(), given: other.shown(), expected: "a text" }),
        }
    }

    fn size(&self, key: &str, high: usize) -> Result<usize> {
        self.optional_size(key, high)?.ok_or_else(|| self.missing(key))
    }

    fn optional_size(&self, key: &str, high: usize) -> Result<Option<usize>> {
        let name = self.name(key);
        match self.get(key) {
            None => Ok(None),
            Some(MetaValue::Unsigned(n)) => limits::size(&name, *n, high).map(Some),
            Some(MetaValue::Signed(n)) => Err(FamilyError::Range { key: name, given: n.to_string(), low: 1.0, high: high as f64 }),
            Some(other) => Err(FamilyError::Kind { key: name, given: other.shown(), expected: "a whole number" }),
        }
    }

    fn number(&self, key: &str, low: f64, high: f64) -> Result<Option<f64>> {
        let name = self.name(key);
        match self.get(key) {
            None => Ok(None),
            Some(MetaValue::Float(x)) => limits::number(&name, *x, low, high).map(Some),
            Some(MetaValue::Unsigned(n)) => limits::number(&name, *n as f64, low, high).map(Some),
            Some(MetaValue::Signed(n)) => limits::number(&name, *n as f64, low, high).map(Some),
            Some(other) => Err(FamilyError::Kind { key: name, given: other.shown(), expected: "a number" }),
        }
    }
}
