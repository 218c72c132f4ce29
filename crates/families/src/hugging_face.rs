//! config.json ⇄ ModelConfig.
//!
//! Every key that changes the arithmetic is honoured or refused by name; keys that do not (initialisation,
//! dropout of the attention, cache) are not read. Absent keys have the defaults of `transformers`.
use engine::config::ModelConfig;
use serde_json::{Map, Value, json};

use crate::error::shown;
use crate::rotary::{self, Rope, RopeScaling};
use crate::{Described, Family, FamilyError, Result, limits};

const SUPPORTED: &str = "llama (Llama 1 to 3, SmolLM, SmolLM2 …) and mistral, as causal language models";

/// Reads a config.json; every key that would change arithmetic is either honoured or refused by name.
pub fn describe(config: &Value) -> Result<Described> {
    let keys = Keys(config.as_object().ok_or_else(|| FamilyError::Kind {
        key: "config.json",
        given: kind(config).into(),
        expected: "an object",
    })?);
    let family = family(&keys)?;
    refuse_what_is_not_done(&keys)?;
    let hidden = keys.size("hidden_size", limits::WIDTH)?;
    let heads = keys.size("num_attention_heads", limits::HEADS)?;
    let kv_heads = keys.optional_size("num_key_value_heads", limits::HEADS)?.unwrap_or(heads);
    limits::divisible("num_attention_heads", heads, "num_key_value_heads", kv_heads)?;
    let head_dim = match keys.optional_size("head_dim", limits::HEAD_DIM)? {
        Some(given) => given,
        None => limits::divisible("hidden_size", hidden, "num_attention_heads", heads)?,
    };
    limits::divisible("head_dim", head_dim, "rotary pairs", 2)?;
    let context = keys.optional_size("max_position_embeddings", limits::CONTEXT)?.unwrap_or(match family {
        Family::Llama => 2048,
        Family::Mistral => 131_072,
    });
    let rope = rope(&keys, context)?;
    let window = match family {
        Family::Llama => None, // transformers' Llama has none, whatever the file says
        Family::Mistral if keys.0.contains_key("sliding_window") => keys.optional_size("sliding_window", limits::CONTEXT)?,
        Family::Mistral => Some(4096),
    };
    let config = ModelConfig {
        vocab: keys.size("vocab_size", limits::VOCABULARY)?,
        hidden,
        layers: keys.size("num_hidden_layers", limits::LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        intermediate: keys.size("intermediate_size", limits::WIDTH)?,
        norm_eps: keys.number("rms_norm_eps", f64::from(f32::MIN_POSITIVE), 1.0)?.unwrap_or(1e-6) as f32,
        rotary_inv_freq: rotary::inv_freq(&rope, head_dim),
        window,
        context,
        tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
    };
    limits::sizes(&config)?;
    Ok(Described { family, config, rope })
}

fn family(keys: &Keys<'_>) -> Result<Family> {
    let (key, given) = match (keys.0.get("model_type"), keys.0.get("architectures")) {
        (Some(given), _) => ("model_type", given),
        (None, Some(given)) => ("architectures", given),
        (None, None) => return Err(FamilyError::Missing { key: "model_type" }),
    };
    let refused = |key, given: &Value| Err(FamilyError::Architecture { key, given: shown(&given.to_string()), supported: SUPPORTED });
    let family = match given.as_str().or_else(|| given[0].as_str()) {
        Some("llama" | "LlamaForCausalLM") => Family::Llama,
        Some("mistral" | "MistralForCausalLM") => Family::Mistral,
        _ => return refused(key, given),
    };
    // The same blocks under another head (a classifier, a reward model) are another model.
    match keys.0.get("architectures") {
        Some(Value::Array(names)) if !names.is_empty() && !names.iter().any(|n| n == "LlamaForCausalLM" || n == "MistralForCausalLM") => {
            refused("architectures", &keys.0["architectures"])
        }
        _ => Ok(family),
    }
}

fn refuse_what_is_not_done(keys: &Keys<'_>) -> Result<()> {
    for key in ["attention_bias", "mlp_bias"] {
        if keys.flag(key)?.unwrap_or(false) {
            return Err(FamilyError::Unsupported { key, given: "true".into(), supported: "false (no biases in Llama's linear layers)" });
        }
    }
    match keys.present("hidden_act") {
        None => {}
        Some(given) if given == "silu" || given == "swish" => {}
        Some(given) => return Err(FamilyError::Unsupported { key: "hidden_act", given: shown(&given.to_string()), supported: "silu" }),
    }
    if let Some(share) = keys.number("partial_rotary_factor", 0.0, 1.0)?.filter(|&share| share != 1.0) {
        return Err(FamilyError::Unsupported {
            key: "partial_rotary_factor",
            given: share.to_string(),
            supported: "1 (all of a head turns)",
        });
    }
    // How bitsandbytes stored the weights stands beside them, tensor by tensor.
    if let Some(given) = keys.present("quantization_config").filter(|given| given["quant_method"] != "bitsandbytes") {
        let method = given["quant_method"].as_str().map_or_else(|| "given".to_owned(), shown);
        return Err(FamilyError::Unsupported {
            key: "quantization_config",
            given: method,
            supported: "bitsandbytes, or none (F32, F16 or BF16 weights; or a GGUF file)",
        });
    }
    Ok(())
}

/// `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).
fn rope(keys: &Keys<'_>, context: usize) -> Result<Rope> {
    let nested = |key: &'static str| match keys.present(key) {
        None => Ok(None),
        Some(Value::Object(inner)) => Ok(Some(Keys(inner))),
        Some(other) => Err(FamilyError::Kind { key, given: kind(other).into(), expected: "an object or null" }),
    };
    let (parameters, scaling) = (nested("rope_parameters")?, nested("rope_scaling")?);
    let inner_theta = parameters.as_ref().map(|p| p.number("rope_theta", limits::THETA.0, limits::THETA.1)).transpose()?.flatten();
    let theta = match inner_theta {
        Some(theta) => theta,
        None => keys.number("rope_theta", limits::THETA.0, limits::THETA.1)?.unwrap_or(10_000.0),
    };
    let Some(inner) = parameters.or(scaling) else { return Ok(Rope { theta, scaling: RopeScaling::None }) };
    if let Some(share) = inner.number("partial_rotary_factor", 0.0, 1.0)?.filter(|&share| share != 1.0) {
        return Err(FamilyError::Unsupported {
            key: "partial_rotary_factor",
            given: share.to_string(),
            supported: "1 (all of a head turns)",
        });
    }
    let factor = |key| inner.number(key, limits::FACTOR.0, limits::FACTOR.1)?.ok_or(FamilyError::Missing { key });
    let scaling = match inner.present("rope_type").or(inner.present("type")).and_then(Value::as_str) {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: factor("factor")? },
        Some("llama3") => {
            let (low_freq_factor, high_freq_factor) = (factor("low_freq_factor")?, factor("high_freq_factor")?);
            if low_freq_factor >= high_freq_factor {
                return Err(FamilyError::Range {
                    key: "low_freq_factor",
                    given: low_freq_factor.to_string(),
                    low: limits::FACTOR.0,
                    high: high_freq_factor,
                });
            }
            let original_context = inner.optional_size("original_max_position_embeddings", limits::CONTEXT)?.unwrap_or(context);
            RopeScaling::Llama3 { factor: factor("factor")?, low_freq_factor, high_freq_factor, original_context }
        }
        Some(other) => {
            return Err(FamilyError::Unsupported { key: "rope_type", given: shown(other), supported: "default, linear, llama3" });
        }
    };
    Ok(Rope { theta, scaling })
}

/// A config.json that `transformers` (4 and 5) loads.
///
/// # Errors
/// [`FamilyError::Unsupported`] where the rotary factors came one by one from a GGUF file: config.json has no such key.
pub fn to_config_json(described: &Described) -> Result<Value> {
    let c = &described.config;
    let scaling = match &described.rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor, "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_context,
        }),
        RopeScaling::Factors(_) => {
            return Err(FamilyError::Unsupported {
                key: crate::gguf::ROPE_FACTORS,
                given: "a list of factors".into(),
                supported: "in GGUF files only",
            });
        }
    };
    let mut config = json!({
        "architectures": [match described.family { Family::Llama => "LlamaForCausalLM", Family::Mistral => "MistralForCausalLM" }],
        "model_type": described.family.model_type(),
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "intermediate_size": c.intermediate,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": c.context,
        "rms_norm_eps": c.norm_eps.to_string().parse::<f64>().expect("a finite f32 is written as a number"), // 1e-5, not 9.99999974e-6
        "rope_theta": described.rope.theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": c.tied_embeddings,
        "torch_dtype": "float32",
    });
    match described.family {
        Family::Llama => {
            config["attention_bias"] = json!(false);
            config["mlp_bias"] = json!(false);
        }
        Family::Mistral => config["sliding_window"] = json!(c.window),
    }
    Ok(config)
}

/// The keys of an object, read with their limits; null counts as absent.
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn present(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn size(&self, key: &'static str, high: usize) -> Result<usize> {
        self.optional_size(key, high)?.ok_or(FamilyError::Missing { key })
    }

    fn optional_size(&self, key: &'static str, high: usize) -> Result<Option<usize>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size) => limits::size(key, size, high).map(Some),
            None if value.is_number() => Err(FamilyError::Range { key, given: value.to_string(), low: 1.0, high: high as f64 }),
            None => Err(FamilyError::Kind { key, given: kind(value).into(), expected: "a whole number" }),
        }
    }

    fn number(&self, key: &'static str, low: f64, high: f64) -> Result<Option<f64>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) => limits::number(key, number, low, high).map(Some),
            None => Err(FamilyError::Kind { key, given: kind(value).into(), expected: "a number" }),
        }
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| FamilyError::Kind { key, given: kind(value).into(), expected: "true or false" })
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
