//! config.json ⇄ ModelConfig.
//!
//! Every key that changes the arithmetic is honoured or refused by name; keys that do not (initialisation,
//! dropout of the attention, cache) are not read. Absent keys have the defaults of `transformers`.
use engine::config::{Gate, LayerAttention, Linear, LinearSet, ModelConfig};
use serde_json::{Map, Value, json};

use crate::error::shown;
use crate::rotary::{self, Rope, RopeScaling};
use crate::{Described, Family, FamilyError, Result, limits, nearest};

/// Keys that every family's description must have.
const NEEDED: [&str; 5] = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"];

/// Keys that no family's arithmetic depends on: they stand in config.json for other purposes.
const IDLE: [&str; 34] = [
    "_name_or_path",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_model_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "rope_interleaved",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "use_flash_attn",
];

/// Keys of every family.
macro_rules! keys {
    ($($more:literal),*) => {
        &[
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters",
            "partial_rotary_factor", "tie_word_embeddings", "quantization_config", $($more),*
        ]
    };
}

/// The keys of a family's config.json that change its [`ModelConfig`] or are refused with another value than the one that
/// changes nothing.
pub fn keys(family: Family) -> &'static [&'static str] {
    match family {
        Family::Llama => keys!("hidden_act", "attention_bias", "mlp_bias"),
        Family::Mistral => keys!("hidden_act", "attention_bias", "mlp_bias", "sliding_window"),
        Family::Qwen2 => keys!("hidden_act", "mlp_bias", "use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
        Family::Qwen3 => {
            keys!("hidden_act", "attention_bias", "mlp_bias", "use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
        }
        Family::Gemma2 => keys!(
            "hidden_activation",
            "attention_bias",
            "sliding_window",
            "layer_types",
            "query_pre_attn_scalar",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "use_bidirectional_attention"
        ),
        Family::Gemma3 => keys!(
            "hidden_activation",
            "attention_bias",
            "sliding_window",
            "sliding_window_pattern",
            "layer_types",
            "query_pre_attn_scalar",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "use_bidirectional_attention",
            "rope_local_base_freq"
        ),
        Family::Phi3 => keys!("hidden_act", "attention_bias", "mlp_bias", "sliding_window", "original_max_position_embeddings"),
        Family::SmolLm3 => keys!(
            "hidden_act",
            "attention_bias",
            "mlp_bias",
            "use_sliding_window",
            "sliding_window",
            "layer_types",
            "no_rope_layers",
            "no_rope_layer_interval"
        ),
    }
}

/// What a family takes for a key that is not there.
struct Defaults {
    /// Key/value heads; `None`: as many as heads.
    kv_heads: Option<usize>,
    /// Elements of a head; `None`: hidden size over heads.
    head_dim: Option<usize>,
    context: usize,
    norm_eps: f64,
    theta: f64,
    tied_embeddings: bool,
    gate: Gate,
}

impl Defaults {
    fn of(family: Family) -> Defaults {
        let llama = Defaults {
            kv_heads: None,
            head_dim: None,
            context: 2048,
            norm_eps: 1e-6,
            theta: 10_000.0,
            tied_embeddings: false,
            gate: Gate::Silu,
        };
        let gemma = |context, theta| Defaults {
            kv_heads: Some(4),
            head_dim: Some(256),
            context,
            norm_eps: 1e-6,
            theta,
            tied_embeddings: true,
            gate: Gate::GeluTanh,
        };
        match family {
            Family::Llama => llama,
            Family::Mistral => Defaults { kv_heads: Some(8), context: 131_072, ..llama },
            Family::Qwen2 => Defaults { kv_heads: Some(32), context: 32_768, ..llama },
            Family::Qwen3 => Defaults { kv_heads: Some(32), head_dim: Some(128), context: 32_768, ..llama },
            Family::Gemma2 => gemma(8192, 10_000.0),
            Family::Gemma3 => gemma(131_072, 1_000_000.0),
            Family::Phi3 => Defaults { context: 4096, norm_eps: 1e-5, ..llama },
            Family::SmolLm3 => Defaults { kv_heads: Some(4), context: 32_768, theta: 2_000_000.0, tied_embeddings: true, ..llama },
        }
    }
}

/// Reads a config.json; every key that would change arithmetic is either honoured or refused by name.
pub fn describe(config: &Value) -> Result<Described> {
    let keys = Keys(config.as_object().ok_or_else(|| FamilyError::Kind {
        key: "config.json".into(),
        given: kind(config).into(),
        expected: "an object",
    })?);
    let family = family(&keys)?;
    let defaults = Defaults::of(family);
    refuse_what_is_not_done(&keys, family)?;
    let hidden = keys.size("hidden_size", limits::WIDTH)?;
    let layers = keys.size("num_hidden_layers", limits::LAYERS)?;
    let heads = keys.size("num_attention_heads", limits::HEADS)?;
    // Absent, it is the family's; null, it is as many as there are heads.
    let kv_heads = match keys.optional_size("num_key_value_heads", limits::HEADS)? {
        Some(given) => given,
        None if keys.0.contains_key("num_key_value_heads") => heads,
        None => defaults.kv_heads.unwrap_or(heads),
    };
    limits::divisible("num_attention_heads", heads, "num_key_value_heads", kv_heads)?;
    let head_dim = match keys.optional_size("head_dim", limits::HEAD_DIM)?.or(defaults.head_dim) {
        Some(given) => given,
        None => limits::divisible("hidden_size", hidden, "num_attention_heads", heads)?,
    };
    limits::divisible("head_dim", head_dim, "rotary pairs", 2)?;
    let given_context = keys.optional_size("max_position_embeddings", limits::CONTEXT)?.unwrap_or(defaults.context);
    let ropes = match family {
        Family::Gemma3 => gemma3_ropes(&keys, head_dim, given_context)?,
        _ => vec![rope(&keys, &defaults, family, head_dim, given_context)?],
    };
    let context = match &ropes[0].scaling {
        RopeScaling::Long { original_context, .. } => given_context.min(*original_context),
        _ => given_context,
    };
    let gemma = family.gains_from_zero();
    let config = ModelConfig {
        vocab: keys.size("vocab_size", limits::VOCABULARY)?,
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        intermediate: keys.size("intermediate_size", limits::WIDTH)?,
        norm_eps: keys.number("rms_norm_eps", f64::from(f32::MIN_POSITIVE), 1.0)?.unwrap_or(defaults.norm_eps) as f32,
        gate: gate(&keys, family, &defaults)?,
        biases: biases(&keys, family)?,
        qk_norms: matches!(family, Family::Qwen3 | Family::Gemma3),
        post_norms: gemma,
        embedding_scale: gemma.then(|| embedding_scale(hidden)),
        attention_scale: attention_scale(&keys, family, head_dim)?,
        attention_softcap: softcap(&keys, family, "attn_logit_softcapping", 50.0)?,
        logit_softcap: softcap(&keys, family, "final_logit_softcapping", 30.0)?,
        rotary: ropes.iter().map(rotary::rotary).collect(),
        attention: attention(&keys, family, layers)?,
        fused_qkv: family == Family::Phi3,
        fused_gate_up: family == Family::Phi3,
        context,
        tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(defaults.tied_embeddings),
    };
    limits::sizes(&config)?;
    Ok(Described { family, config, ropes })
}

/// √hidden as f32: what `transformers` multiplies f32 embeddings by. (It rounds the root to bf16 where it computes in that.)
pub(crate) fn embedding_scale(hidden: usize) -> f32 {
    (hidden as f64).sqrt() as f32
}

fn supported() -> String {
    let names: Vec<&str> = Family::ALL.iter().map(|family| family.model_type()).collect();
    format!("{}, as causal language models", names.join(", "))
}

fn family(keys: &Keys<'_>) -> Result<Family> {
    let (key, given) = match (keys.0.get("model_type"), keys.0.get("architectures")) {
        (Some(given), _) => ("model_type", given),
        (None, Some(given)) => ("architectures", given),
        (None, None) => return Err(FamilyError::Missing { key: "model_type".into() }),
    };
    let refused = |key: &str, given: &Value, differences| {
        let (key, given) = (key.to_owned(), shown(&given.to_string()));
        Err(FamilyError::Architecture { key, given, supported: supported(), differences })
    };
    let found = given.as_str().or_else(|| given[0].as_str()).unwrap_or_default();
    let Some(&family) = Family::ALL.iter().find(|family| family.model_type() == found || family.class() == found) else {
        if found == "gemma3" || found == "Gemma3ForConditionalGeneration" {
            let why = ". Gemma 3 from 4B on comes with a picture encoder, which is not read: give its text model alone \
                       (Gemma3ForCausalLM, model_type gemma3_text) or a GGUF file";
            return refused(key, given, why.to_owned());
        }
        let names: Vec<&str> = keys.0.keys().map(String::as_str).collect();
        let families: Vec<_> = Family::ALL.map(|family| nearest::Keys { family, read: self::keys(family) }).into_iter().collect();
        return refused(key, given, nearest::differences(&names, &families, &NEEDED, |key| IDLE.contains(&key)));
    };
    // The same blocks under another head (a classifier, a reward model) are another model.
    match keys.0.get("architectures") {
        Some(Value::Array(names)) if !names.is_empty() && !names.iter().any(|name| Family::ALL.iter().any(|f| name == f.class())) => {
            refused("architectures", &keys.0["architectures"], String::new())
        }
        _ => Ok(family),
    }
}

fn unsupported(key: &str, given: impl Into<String>, supported: &'static str) -> FamilyError {
    FamilyError::Unsupported { key: key.into(), given: given.into(), supported }
}

fn refuse_what_is_not_done(keys: &Keys<'_>, family: Family) -> Result<()> {
    // Flags that these families' files may carry, though their blocks have no such part.
    let flags: &[(&str, &str)] = match family {
        Family::Mistral | Family::Phi3 => &[("attention_bias", "false (no biases)"), ("mlp_bias", "false (no biases)")],
        Family::Qwen2 | Family::Qwen3 => &[("mlp_bias", "false (no biases in the MLP)")],
        Family::Gemma2 | Family::Gemma3 => &[("use_bidirectional_attention", "false (each token sees those before it)")],
        Family::Llama | Family::SmolLm3 => &[],
    };
    for &(key, supported) in flags {
        if keys.flag(key)?.unwrap_or(false) {
            return Err(unsupported(key, "true", supported));
        }
    }
    // How bitsandbytes stored the weights stands beside them, tensor by tensor.
    if let Some(given) = keys.present("quantization_config").filter(|given| given["quant_method"] != "bitsandbytes") {
        let method = given["quant_method"].as_str().map_or_else(|| "given".to_owned(), shown);
        return Err(unsupported("quantization_config", method, "bitsandbytes, or none (F32, F16 or BF16 weights; or a GGUF file)"));
    }
    if family == Family::Gemma3
        && let Some(given) = keys.present("attn_logit_softcapping")
    {
        return Err(unsupported("attn_logit_softcapping", given.to_string(), "null (transformers' Gemma 3 does not apply it)"));
    }
    Ok(())
}

fn gate(keys: &Keys<'_>, family: Family, defaults: &Defaults) -> Result<Gate> {
    let key = if family.gains_from_zero() { "hidden_activation" } else { "hidden_act" };
    match keys.present(key) {
        None => Ok(defaults.gate),
        Some(given) if given == "silu" || given == "swish" => Ok(Gate::Silu),
        Some(given) if given == "gelu_pytorch_tanh" => Ok(Gate::GeluTanh),
        Some(given) => Err(unsupported(key, shown(&given.to_string()), "silu, gelu_pytorch_tanh")),
    }
}

fn biases(keys: &Keys<'_>, family: Family) -> Result<LinearSet> {
    let attention = match family {
        Family::Qwen2 => LinearSet::of(&Linear::ALL[..3]),
        Family::Mistral | Family::Phi3 => LinearSet::EMPTY,
        _ if keys.flag("attention_bias")?.unwrap_or(false) => LinearSet::of(&Linear::ALL[..4]),
        _ => LinearSet::EMPTY,
    };
    let mlp = matches!(family, Family::Llama | Family::SmolLm3) && keys.flag("mlp_bias")?.unwrap_or(false);
    Ok(if mlp { Linear::ALL[4..].iter().fold(attention, |set, &linear| set.with(linear)) } else { attention })
}

fn attention_scale(keys: &Keys<'_>, family: Family, head_dim: usize) -> Result<f32> {
    let of = if family.gains_from_zero() {
        keys.number("query_pre_attn_scalar", limits::CAP.0, limits::CAP.1)?.unwrap_or(256.0)
    } else {
        head_dim as f64
    };
    Ok((1.0 / of.sqrt()) as f32)
}

/// Gemma 2 has both soft caps unless its file says null; Gemma 3 has none unless its file has one.
fn softcap(keys: &Keys<'_>, family: Family, key: &str, gemma2: f32) -> Result<Option<f32>> {
    match family {
        Family::Gemma2 if !keys.0.contains_key(key) => Ok(Some(gemma2)),
        Family::Gemma2 | Family::Gemma3 => Ok(keys.number(key, limits::CAP.0, limits::CAP.1)?.map(|cap| cap as f32)),
        _ => Ok(None),
    }
}

/// Windows and ways of turning, layer by layer.
fn attention(keys: &Keys<'_>, family: Family, layers: usize) -> Result<Vec<LayerAttention>> {
    let window = |absent: Option<usize>| {
        let given = keys.optional_size("sliding_window", limits::CONTEXT)?;
        Ok(if keys.0.contains_key("sliding_window") { given } else { absent })
    };
    let all = |window| vec![LayerAttention { window, rotary: Some(0) }; layers];
    match family {
        Family::Llama => Ok(all(None)), // transformers' Llama has none, whatever the file says
        Family::Mistral => Ok(all(window(Some(4096))?)),
        Family::Phi3 => Ok(all(window(None)?)),
        Family::Qwen2 | Family::Qwen3 => {
            let window = if keys.flag("use_sliding_window")?.unwrap_or(false) { window(Some(4096))? } else { None };
            let first = keys.count("max_window_layers", limits::LAYERS)?.unwrap_or(28);
            let slides = layer_types(keys, layers, |layer| window.is_some() && layer >= first)?;
            Ok(slides.iter().map(|&slides| LayerAttention { window: window.filter(|_| slides), rotary: Some(0) }).collect())
        }
        Family::Gemma2 => {
            let window = window(Some(4096))?;
            let slides = layer_types(keys, layers, |layer| layer % 2 == 0)?;
            Ok(slides.iter().map(|&slides| LayerAttention { window: window.filter(|_| slides), rotary: Some(0) }).collect())
        }
        Family::Gemma3 => {
            let (window, pattern) = (window(Some(4096))?, keys.optional_size("sliding_window_pattern", limits::LAYERS)?.unwrap_or(6));
            let slides = layer_types(keys, layers, |layer| !(layer + 1).is_multiple_of(pattern))?;
            // The first way of turning is that of layers with windows.
            let layer = |&slides: &bool| LayerAttention { window: window.filter(|_| slides), rotary: Some(usize::from(!slides)) };
            Ok(slides.iter().map(layer).collect())
        }
        Family::SmolLm3 => {
            let window = if keys.flag("use_sliding_window")?.unwrap_or(false) { window(None)? } else { None };
            let turns = no_rope_layers(keys, layers)?;
            let slides = layer_types(keys, layers, |layer| window.is_some() && !turns[layer])?;
            let layer =
                |(&turns, &slides): (&bool, &bool)| LayerAttention { window: window.filter(|_| slides), rotary: turns.then_some(0) };
            Ok(turns.iter().zip(&slides).map(layer).collect())
        }
    }
}

/// Which layers have a window: as the file says, or else as `absent` does.
fn layer_types(keys: &Keys<'_>, layers: usize, absent: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    const EXPECTED: &str = "\"sliding_attention\" or \"full_attention\" for each layer";
    let Some(given) = keys.present("layer_types") else { return Ok((0..layers).map(absent).collect()) };
    let list =
        given.as_array().ok_or_else(|| FamilyError::Kind { key: "layer_types".into(), given: kind(given).into(), expected: EXPECTED })?;
    if list.len() != layers {
        return Err(FamilyError::Disagree {
            key: "the length of layer_types".into(),
            given: list.len().to_string(),
            other_key: "num_hidden_layers".into(),
            other: layers.to_string(),
        });
    }
    let slides = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(unsupported("layer_types", shown(&kind.to_string()), EXPECTED)),
    };
    list.iter().map(slides).collect()
}

/// SmolLM 3: which layers turn. At least as many entries as layers, 1 where the layer turns.
fn no_rope_layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<bool>> {
    const EXPECTED: &str = "0 or 1 for each layer";
    let Some(given) = keys.present("no_rope_layers") else {
        let interval = keys.optional_size("no_rope_layer_interval", limits::LAYERS)?.unwrap_or(4);
        return Ok((0..layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect());
    };
    let list = given.as_array().filter(|list| list.len() >= layers).ok_or_else(|| FamilyError::Kind {
        key: "no_rope_layers".into(),
        given: kind(given).into(),
        expected: EXPECTED,
    })?;
    let turns = |value: &Value| match value.as_u64().or(value.as_bool().map(u64::from)) {
        Some(turns @ (0 | 1)) => Ok(turns == 1),
        _ => Err(unsupported("no_rope_layers", shown(&value.to_string()), EXPECTED)),
    };
    list[..layers].iter().map(turns).collect()
}

/// `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).
fn rope(keys: &Keys<'_>, defaults: &Defaults, family: Family, head_dim: usize, context: usize) -> Result<Rope> {
    let (parameters, scaling) = (keys.nested("rope_parameters")?, keys.nested("rope_scaling")?);
    // Phi's class prefers rope_scaling; the others take it where there is nothing newer.
    let inner = if family == Family::Phi3 { scaling.or(parameters) } else { parameters.or(scaling) };
    let theta = match inner.as_ref().map(|p| p.number("rope_theta", limits::THETA.0, limits::THETA.1)).transpose()?.flatten() {
        Some(theta) => theta,
        None => keys.number("rope_theta", limits::THETA.0, limits::THETA.1)?.unwrap_or(defaults.theta),
    };
    let inner_share = inner.as_ref().map(|p| p.number("partial_rotary_factor", 0.0, 1.0)).transpose()?.flatten();
    let share = match inner_share {
        Some(share) => share,
        None => keys.number("partial_rotary_factor", 0.0, 1.0)?.unwrap_or(1.0),
    };
    if share != 1.0 && family != Family::Phi3 {
        return Err(unsupported("partial_rotary_factor", share.to_string(), "1 (all of a head turns) for this family"));
    }
    // As transformers rounds; an odd number of elements would leave one without a partner.
    let turned = (head_dim as f64 * share) as usize;
    if turned == 0 || !turned.is_multiple_of(2) {
        return Err(unsupported("partial_rotary_factor", share.to_string(), "a share of head_dim that is an even number of elements"));
    }
    let scaling = inner.map_or(Ok(RopeScaling::None), |inner| rope_scaling(keys, &inner, family, turned, context))?;
    Ok(Rope { theta, turned, scaling })
}

fn rope_scaling(keys: &Keys<'_>, inner: &Keys<'_>, family: Family, turned: usize, context: usize) -> Result<RopeScaling> {
    let factor = |key: &str| inner.number(key, limits::FACTOR.0, limits::FACTOR.1)?.ok_or(FamilyError::Missing { key: key.into() });
    match inner.present("rope_type").or(inner.present("type")).and_then(Value::as_str) {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: factor("factor")? }),
        Some("llama3") => {
            let (low_freq_factor, high_freq_factor) = (factor("low_freq_factor")?, factor("high_freq_factor")?);
            if low_freq_factor >= high_freq_factor {
                return Err(FamilyError::Range {
                    key: "low_freq_factor".into(),
                    given: low_freq_factor.to_string(),
                    low: limits::FACTOR.0,
                    high: high_freq_factor,
                });
            }
            let original_context = inner.optional_size("original_max_position_embeddings", limits::CONTEXT)?.unwrap_or(context);
            Ok(RopeScaling::Llama3 { factor: factor("factor")?, low_freq_factor, high_freq_factor, original_context })
        }
        // Phi's older files call LongRoPE "su", and some "yarn", which transformers reads as the same.
        Some("longrope" | "su" | "yarn") if family == Family::Phi3 => {
            const ORIGINAL: &str = "original_max_position_embeddings";
            let original_context = keys.optional_size(ORIGINAL, limits::CONTEXT)?.unwrap_or(4096);
            if let Some(given) = inner.optional_size(ORIGINAL, limits::CONTEXT)?.filter(|&given| given != original_context) {
                let other = original_context.to_string(); // which is what transformers takes
                let other_key = format!("{ORIGINAL} outside it");
                return Err(FamilyError::Disagree { key: ORIGINAL.into(), given: given.to_string(), other_key, other });
            }
            let stretch = match inner.number("factor", limits::FACTOR.0, limits::FACTOR.1)? {
                Some(factor) => factor,
                None => context as f64 / original_context as f64,
            };
            let attention_factor = match inner.number("attention_factor", limits::FACTOR.0, limits::FACTOR.1)? {
                Some(given) => given,
                None => rotary::long_attention_factor(stretch, original_context),
            };
            let (short, long) = (factors(inner, "short_factor", turned / 2)?, factors(inner, "long_factor", turned / 2)?);
            Ok(RopeScaling::Long { short, long, attention_factor, original_context, long_context: context })
        }
        Some(other) => {
            let supported = if family == Family::Phi3 { "default, linear, llama3, longrope" } else { "default, linear, llama3" };
            Err(unsupported("rope_type", shown(other), supported))
        }
    }
}

/// A list of divisors, one for each pair.
fn factors(keys: &Keys<'_>, key: &str, pairs: usize) -> Result<Vec<f32>> {
    let given = keys.present(key).ok_or_else(|| FamilyError::Missing { key: key.into() })?;
    let list =
        given.as_array().ok_or_else(|| FamilyError::Kind { key: key.into(), given: kind(given).into(), expected: "a list of numbers" })?;
    if list.len() != pairs {
        return Err(FamilyError::Disagree {
            key: format!("the length of {key}"),
            given: list.len().to_string(),
            other_key: "the number of rotary pairs".into(),
            other: pairs.to_string(),
        });
    }
    let number = |value: &Value| match value.as_f64() {
        Some(number) => Ok(limits::number(key, number, limits::FACTOR.0, limits::FACTOR.1)? as f32),
        None => Err(FamilyError::Kind { key: key.into(), given: kind(value).into(), expected: "a list of numbers" }),
    };
    list.iter().map(number).collect()
}

/// Gemma 3: layers with windows turn by a base of their own and are never stretched. Nested by the layers' kind
/// (transformers 5), or `rope_theta`, `rope_local_base_freq` and `rope_scaling` (before).
fn gemma3_ropes(keys: &Keys<'_>, head_dim: usize, context: usize) -> Result<Vec<Rope>> {
    if let Some(share) = keys.number("partial_rotary_factor", 0.0, 1.0)?.filter(|&share| share != 1.0) {
        return Err(unsupported("partial_rotary_factor", share.to_string(), "1 (all of a head turns) for this family"));
    }
    let nested = keys.nested("rope_parameters")?;
    let scaling = keys.nested("rope_scaling")?;
    let one = |part: &str, outer_key: &str, default: f64, old_scaling: Option<Keys<'_>>| -> Result<Rope> {
        let inner = nested.as_ref().map(|nested| nested.nested(part)).transpose()?.flatten();
        if let Some(share) =
            inner.as_ref().map(|p| p.number("partial_rotary_factor", 0.0, 1.0)).transpose()?.flatten().filter(|&s| s != 1.0)
        {
            return Err(unsupported("partial_rotary_factor", share.to_string(), "1 (all of a head turns) for this family"));
        }
        let theta = match inner.as_ref().map(|p| p.number("rope_theta", limits::THETA.0, limits::THETA.1)).transpose()?.flatten() {
            Some(theta) => theta,
            None => keys.number(outer_key, limits::THETA.0, limits::THETA.1)?.unwrap_or(default),
        };
        // What stands beside the new form stretches the whole text's layers too.
        let scaling = old_scaling.or(inner);
        let scaling = scaling.map_or(Ok(RopeScaling::None), |inner| rope_scaling(keys, &inner, Family::Gemma3, head_dim, context))?;
        Ok(Rope { theta, turned: head_dim, scaling })
    };
    let local = one("sliding_attention", "rope_local_base_freq", 10_000.0, None)?;
    Ok(vec![local, one("full_attention", "rope_theta", 1_000_000.0, scaling)?])
}

/// A config.json that `transformers` (4 and 5) loads.
///
/// # Errors
/// [`FamilyError::Unsupported`] where the rotary factors came one by one from a GGUF file: config.json has no such key.
pub fn to_config_json(described: &Described) -> Result<Value> {
    let (c, family) = (&described.config, described.family);
    // The last one: of Gemma 3's two, that of the layers that see the whole text.
    let rope = described.ropes.last().expect("a description has at least one way of turning");
    let mut context = c.context;
    let scaling = match &rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor, "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_context,
        }),
        RopeScaling::Long { short, long, attention_factor, long_context, .. } => {
            context = *long_context;
            let numbers = |list: &[f32]| list.iter().map(|&x| shortest(x)).collect::<Vec<f64>>();
            json!({
                "rope_type": "longrope", "type": "longrope", "short_factor": numbers(short), "long_factor": numbers(long),
                "attention_factor": attention_factor,
            })
        }
        RopeScaling::Factors(_) => {
            return Err(unsupported(crate::gguf::ROPE_FACTORS, "a list of factors", "in GGUF files only"));
        }
    };
    let mut config = json!({
        "architectures": [family.class()],
        "model_type": family.model_type(),
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "intermediate_size": c.intermediate,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "max_position_embeddings": context,
        "rms_norm_eps": shortest(c.norm_eps), // 1e-5, not 9.99999974e-6
        "rope_theta": rope.theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": c.tied_embeddings,
        "torch_dtype": "float32",
    });
    let gate = match c.gate {
        Gate::Silu => "silu",
        Gate::GeluTanh => "gelu_pytorch_tanh",
    };
    config[if family.gains_from_zero() { "hidden_activation" } else { "hidden_act" }] = json!(gate);
    let window = c.attention.iter().find_map(|layer| layer.window);
    let types = |c: &ModelConfig| -> Vec<&str> {
        let kind = |layer: &LayerAttention| if layer.window.is_some() { "sliding_attention" } else { "full_attention" };
        c.attention.iter().map(kind).collect()
    };
    match family {
        Family::Llama => {}
        Family::Mistral => config["sliding_window"] = json!(window),
        Family::Qwen2 | Family::Qwen3 => {
            config["use_sliding_window"] = json!(window.is_some());
            config["sliding_window"] = json!(window);
            config["layer_types"] = json!(types(c));
        }
        Family::Gemma2 | Family::Gemma3 => {
            config["sliding_window"] = json!(window);
            config["query_pre_attn_scalar"] = json!(pre_attention_scalar(c.attention_scale));
            config["attn_logit_softcapping"] = json!(c.attention_softcap);
            config["final_logit_softcapping"] = json!(c.logit_softcap);
            // Without any window, the kinds still say which layers turn by which base.
            let local = |layer: &LayerAttention| if family == Family::Gemma3 { layer.rotary == Some(0) } else { layer.window.is_some() };
            let kind = |layer| if local(layer) { "sliding_attention" } else { "full_attention" };
            config["layer_types"] = json!(c.attention.iter().map(kind).collect::<Vec<_>>());
            if family == Family::Gemma3 {
                config["rope_local_base_freq"] = json!(described.ropes[0].theta);
            }
        }
        Family::Phi3 => {
            config["sliding_window"] = json!(window);
            config["partial_rotary_factor"] = json!(rope.turned as f64 / c.head_dim as f64);
            config["pad_token_id"] = Value::Null; // the class's own default may be beyond the vocabulary
            if let RopeScaling::Long { original_context, .. } = &rope.scaling {
                config["original_max_position_embeddings"] = json!(original_context);
            }
        }
        Family::SmolLm3 => {
            config["no_rope_layers"] = json!(c.attention.iter().map(|layer| u8::from(layer.rotary.is_some())).collect::<Vec<_>>());
            config["use_sliding_window"] = json!(window.is_some());
            config["sliding_window"] = json!(window);
            config["layer_types"] = json!(types(c));
            config["pad_token_id"] = Value::Null;
        }
    }
    if matches!(family, Family::Llama | Family::Qwen3 | Family::Gemma2 | Family::Gemma3 | Family::SmolLm3) {
        config["attention_bias"] = json!(c.biases.has(Linear::Query));
    }
    if matches!(family, Family::Llama | Family::SmolLm3) {
        config["mlp_bias"] = json!(c.biases.has(Linear::Down));
    }
    Ok(config)
}

/// An f32 as briefly as one is written; reading it back as f32 gives the same.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().expect("a finite f32 is written as a number")
}

/// Of which number the scale is one over the root: the whole number, where there is one.
fn pre_attention_scalar(scale: f32) -> Value {
    let scalar = 1.0 / (f64::from(scale) * f64::from(scale));
    let whole = scalar.round();
    if (1.0 / whole.sqrt()) as f32 == scale { json!(whole as u64) } else { json!(scalar) }
}

/// The keys of an object, read with their limits; null counts as absent.
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn present(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn size(&self, key: &str, high: usize) -> Result<usize> {
        self.optional_size(key, high)?.ok_or_else(|| FamilyError::Missing { key: key.into() })
    }

    fn optional_size(&self, key: &str, high: usize) -> Result<Option<usize>> {
        self.whole(key, high)?.map(|size| limits::size(key, size, high)).transpose()
    }

    /// A size that may be 0.
    fn count(&self, key: &str, high: usize) -> Result<Option<usize>> {
        self.whole(key, high)?.map(|count| if count == 0 { Ok(0) } else { limits::size(key, count, high) }).transpose()
    }

    fn whole(&self, key: &str, high: usize) -> Result<Option<u64>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size) => Ok(Some(size)),
            None if value.is_number() => Err(FamilyError::Range { key: key.into(), given: value.to_string(), low: 1.0, high: high as f64 }),
            None => Err(FamilyError::Kind { key: key.into(), given: kind(value).into(), expected: "a whole number" }),
        }
    }

    fn number(&self, key: &str, low: f64, high: f64) -> Result<Option<f64>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) => limits::number(key, number, low, high).map(Some),
            None => Err(FamilyError::Kind { key: key.into(), given: kind(value).into(), expected: "a number" }),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| FamilyError::Kind { key: key.into(), given: kind(value).into(), expected: "true or false" })
    }

    fn nested(&self, key: &str) -> Result<Option<Keys<'a>>> {
        match self.present(key) {
            None => Ok(None),
            Some(Value::Object(inner)) => Ok(Some(Keys(inner))),
            Some(other) => Err(FamilyError::Kind { key: key.into(), given: kind(other).into(), expected: "an object or null" }),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
