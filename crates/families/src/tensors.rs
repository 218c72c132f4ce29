//! Engine's tensor names ⇄ Hugging Face's and GGUF's.
use std::collections::BTreeMap;

use engine::config::{Linear, ModelConfig, TensorName};

use crate::error::shown;
use crate::{FamilyError, Result};

/// Whose names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace,
    /// `blk.0.attn_q.weight`.
    Gguf,
}

/// A tensor of the model and where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The engine's name.
    pub name: TensorName,
    /// The file's name.
    pub source: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
}

/// What stands once in a model: engine's name, Hugging Face's, GGUF's.
const OUTSIDE: [(TensorName, &str, &str); 3] = [
    (TensorName::Embedding, "model.embed_tokens.weight", "token_embd.weight"),
    (TensorName::FinalNorm, "model.norm.weight", "output_norm.weight"),
    (TensorName::Head, "lm_head.weight", "output.weight"),
];

/// What stands once in a block, in the order of the forward pass: engine's name in block 0, and what follows the number.
const INSIDE: [(TensorName, &str, &str); 9] = [
    (TensorName::AttentionNorm(0), "input_layernorm.weight", "attn_norm.weight"),
    (TensorName::Linear(0, Linear::Query), "self_attn.q_proj.weight", "attn_q.weight"),
    (TensorName::Linear(0, Linear::Key), "self_attn.k_proj.weight", "attn_k.weight"),
    (TensorName::Linear(0, Linear::Value), "self_attn.v_proj.weight", "attn_v.weight"),
    (TensorName::Linear(0, Linear::Output), "self_attn.o_proj.weight", "attn_output.weight"),
    (TensorName::MlpNorm(0), "post_attention_layernorm.weight", "ffn_norm.weight"),
    (TensorName::Linear(0, Linear::Gate), "mlp.gate_proj.weight", "ffn_gate.weight"),
    (TensorName::Linear(0, Linear::Up), "mlp.up_proj.weight", "ffn_up.weight"),
    (TensorName::Linear(0, Linear::Down), "mlp.down_proj.weight", "ffn_down.weight"),
];

/// The same tensor in block `layer`; what stands outside the blocks stays as it is.
fn in_layer(name: TensorName, layer: usize) -> TensorName {
    match name {
        TensorName::AttentionNorm(_) => TensorName::AttentionNorm(layer),
        TensorName::MlpNorm(_) => TensorName::MlpNorm(layer),
        TensorName::Linear(_, linear) => TensorName::Linear(layer, linear),
        outside => outside,
    }
}

fn layer_of(name: TensorName) -> Option<usize> {
    match name {
        TensorName::AttentionNorm(layer) | TensorName::MlpNorm(layer) | TensorName::Linear(layer, _) => Some(layer),
        TensorName::Embedding | TensorName::Head | TensorName::FinalNorm => None,
    }
}

fn prefix(naming: Naming) -> &'static str {
    match naming {
        Naming::HuggingFace => "model.layers.",
        Naming::Gguf => "blk.",
    }
}

fn pick(naming: Naming, hugging_face: &'static str, gguf: &'static str) -> &'static str {
    match naming {
        Naming::HuggingFace => hugging_face,
        Naming::Gguf => gguf,
    }
}

/// The file's name of an engine tensor.
pub fn source_name(name: TensorName, naming: Naming) -> String {
    let (_, hugging_face, gguf) =
        OUTSIDE.iter().chain(&INSIDE).find(|(known, _, _)| *known == in_layer(name, 0)).expect("the tables have every name");
    let tail = pick(naming, hugging_face, gguf);
    layer_of(name).map_or_else(|| tail.to_owned(), |layer| format!("{}{layer}.{tail}", prefix(naming)))
}

/// The engine's name of a file's tensor, if it is one of the model's.
pub fn engine_name(source: &str, naming: Naming) -> Option<TensorName> {
    let of = |table: &[(TensorName, &'static str, &'static str)], tail: &str| {
        table.iter().find(|(_, h, g)| pick(naming, h, g) == tail).map(|(name, _, _)| *name)
    };
    let Some(rest) = source.strip_prefix(prefix(naming)) else { return of(&OUTSIDE, source) };
    let (number, tail) = rest.split_once('.')?;
    Some(in_layer(of(&INSIDE, tail)?, layer_number(number)?))
}

/// A layer's number as files write it: digits, no leading zero.
pub(crate) fn layer_number(text: &str) -> Option<usize> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// All tensors of a model, in the order of the forward pass, with shapes.
pub fn expected(config: &ModelConfig, naming: Naming) -> Vec<Placed> {
    let blocks = (0..config.layers).flat_map(|layer| INSIDE.iter().map(move |(name, _, _)| in_layer(*name, layer)));
    let head = (!config.tied_embeddings).then_some(TensorName::Head);
    let names = [TensorName::Embedding].into_iter().chain(blocks).chain([TensorName::FinalNorm]).chain(head);
    names.map(|name| Placed { name, source: source_name(name, naming), shape: shape(name, config) }).collect()
}

fn shape(name: TensorName, config: &ModelConfig) -> Vec<usize> {
    match name {
        TensorName::Embedding | TensorName::Head => vec![config.vocab, config.hidden],
        TensorName::FinalNorm | TensorName::AttentionNorm(_) | TensorName::MlpNorm(_) => vec![config.hidden],
        TensorName::Linear(_, linear) => {
            let (out, inner) = config.linear_shape(linear);
            vec![out, inner]
        }
    }
}

/// Checks that a file's tensors (name, shape) are exactly the model's: missing, unexpected and misshapen
/// ones are named. Tensors that carry nothing (rotary tables, a head beside a tied embedding) are let pass.
/// The result is in the order of [`expected`].
pub fn place<'a>(config: &ModelConfig, naming: Naming, present: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Result<Vec<Placed>> {
    let mut present: BTreeMap<&str, &[usize]> = present.into_iter().collect();
    let placed = expected(config, naming);
    let mut missing = Vec::new();
    for tensor in &placed {
        match present.remove(tensor.source.as_str()) {
            None => missing.push(tensor.source.clone()),
            Some(given) if given != tensor.shape => {
                return Err(FamilyError::Shape { name: tensor.source.clone(), given: given.to_vec(), expected: tensor.shape.clone() });
            }
            Some(_) => {}
        }
    }
    let unexpected: Vec<String> = present.into_keys().filter(|name| !carries_nothing(name, naming, config)).map(shown).collect();
    if missing.is_empty() && unexpected.is_empty() {
        return Ok(placed);
    }
    Err(FamilyError::Tensors { expected: placed.len(), missing, unexpected })
}

fn carries_nothing(name: &str, naming: Naming, config: &ModelConfig) -> bool {
    match naming {
        Naming::HuggingFace => name.ends_with(".rotary_emb.inv_freq") || (config.tied_embeddings && name == "lm_head.weight"),
        Naming::Gguf => name == crate::gguf::ROPE_FACTORS, // read where the model is described
    }
}
