//! Engine's tensor names ⇄ Hugging Face's and GGUF's.
//!
//! Files hold some of the engine's tensors in another form, and [`Placed`] says which: several as the rows of one matrix
//! (Phi), rows in another order (GGUF's q and k), gains as what is added to 1 (Gemma).
use std::collections::BTreeMap;

use engine::config::{Linear, ModelConfig, TensorName};

use crate::error::shown;
use crate::{Described, FamilyError, Result, gguf};

/// Whose names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace,
    /// `blk.0.attn_q.weight`.
    Gguf,
}

/// A tensor of the model, where it is found and in what form.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The engine's name.
    pub name: TensorName,
    /// The file's name.
    pub source: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// Shape of the file's tensor, which holds this one's rows and perhaps others'.
    pub source_shape: Vec<usize>,
    /// The file's row that is this one's first.
    pub first_row: usize,
    /// Row `i` is row `order[i]` of those; `None`: they are in order.
    pub order: Option<Vec<usize>>,
    /// Added to every number of a gain.
    pub offset: f32,
}

impl Placed {
    /// This tensor's bytes out of those of the file's tensor: whole rows, so it holds for blocks along a row as well.
    ///
    /// # Panics
    /// If the bytes are not as many equal rows as the file's tensor has.
    pub fn rows_of(&self, bytes: Vec<u8>) -> Vec<u8> {
        if self.source_shape == self.shape && self.order.is_none() {
            return bytes;
        }
        let (rows, all) = (self.shape[0], self.source_shape[0]);
        assert!(bytes.len().is_multiple_of(all), "{} bytes are not {all} equal rows", bytes.len());
        let row = bytes.len() / all;
        let part = &bytes[self.first_row * row..][..rows * row];
        match &self.order {
            Some(order) => gguf::reorder_rows(part, order),
            None => part.to_vec(),
        }
    }
}

/// What stands once in a model: engine's name, Hugging Face's, GGUF's.
const OUTSIDE: [(TensorName, &str, &str); 3] = [
    (TensorName::Embedding, "model.embed_tokens", "token_embd"),
    (TensorName::FinalNorm, "model.norm", "output_norm"),
    (TensorName::Head, "lm_head", "output"),
];

/// What stands once in a block: engine's name in block 0, and what follows the number.
const INSIDE: [(TensorName, &str, &str); 13] = [
    (TensorName::AttentionNorm(0), "input_layernorm", "attn_norm"),
    (TensorName::Linear(0, Linear::Query), "self_attn.q_proj", "attn_q"),
    (TensorName::QueryNorm(0), "self_attn.q_norm", "attn_q_norm"),
    (TensorName::Linear(0, Linear::Key), "self_attn.k_proj", "attn_k"),
    (TensorName::KeyNorm(0), "self_attn.k_norm", "attn_k_norm"),
    (TensorName::Linear(0, Linear::Value), "self_attn.v_proj", "attn_v"),
    (TensorName::Linear(0, Linear::Output), "self_attn.o_proj", "attn_output"),
    (TensorName::PostAttentionNorm(0), "post_attention_layernorm", "post_attention_norm"),
    (TensorName::MlpNorm(0), "pre_feedforward_layernorm", "ffn_norm"),
    (TensorName::Linear(0, Linear::Gate), "mlp.gate_proj", "ffn_gate"),
    (TensorName::Linear(0, Linear::Up), "mlp.up_proj", "ffn_up"),
    (TensorName::Linear(0, Linear::Down), "mlp.down_proj", "ffn_down"),
    (TensorName::PostMlpNorm(0), "post_feedforward_layernorm", "post_ffw_norm"),
];

/// Where there is no norm after attention, the one before the MLP has its name in Hugging Face's files.
const MLP_NORM_ALONE: &str = "post_attention_layernorm";
/// Fused projections: the first of their layers, Hugging Face's name, GGUF's.
const FUSED: [(Linear, &str, &str); 2] = [(Linear::Query, "self_attn.qkv_proj", "attn_qkv"), (Linear::Gate, "mlp.gate_up_proj", "ffn_up")];

/// The same tensor in block 0, where it stands in a block, and which block that is.
fn in_first(name: TensorName) -> (TensorName, Option<usize>) {
    match name {
        TensorName::AttentionNorm(layer) => (TensorName::AttentionNorm(0), Some(layer)),
        TensorName::MlpNorm(layer) => (TensorName::MlpNorm(0), Some(layer)),
        TensorName::Linear(layer, linear) => (TensorName::Linear(0, linear), Some(layer)),
        TensorName::Bias(layer, linear) => (TensorName::Linear(0, linear), Some(layer)),
        TensorName::QueryNorm(layer) => (TensorName::QueryNorm(0), Some(layer)),
        TensorName::KeyNorm(layer) => (TensorName::KeyNorm(0), Some(layer)),
        TensorName::PostAttentionNorm(layer) => (TensorName::PostAttentionNorm(0), Some(layer)),
        TensorName::PostMlpNorm(layer) => (TensorName::PostMlpNorm(0), Some(layer)),
        TensorName::Embedding | TensorName::Head | TensorName::FinalNorm => (name, None),
    }
}

fn pick(naming: Naming, hugging_face: &'static str, gguf: &'static str) -> &'static str {
    match naming {
        Naming::HuggingFace => hugging_face,
        Naming::Gguf => gguf,
    }
}

/// The file's name of an engine tensor: of fused layers, that of the one matrix.
pub fn source_name(name: TensorName, config: &ModelConfig, naming: Naming) -> String {
    let (first, layer) = in_first(name);
    let (_, hugging_face, gguf) = OUTSIDE.iter().chain(&INSIDE).find(|(known, _, _)| *known == first).expect("the tables have every name");
    let fused = |linear: Linear| {
        let members = config.fused_with(linear);
        FUSED.iter().find(|(leader, _, _)| members.len() > 1 && *leader == members[0])
    };
    let middle = match first {
        TensorName::MlpNorm(_) if !config.post_norms => pick(naming, MLP_NORM_ALONE, gguf),
        TensorName::Linear(_, linear) => fused(linear).map_or(pick(naming, hugging_face, gguf), |(_, h, g)| pick(naming, h, g)),
        _ => pick(naming, hugging_face, gguf),
    };
    let tail = if matches!(name, TensorName::Bias(..)) { "bias" } else { "weight" };
    match layer {
        Some(layer) => format!("{}{layer}.{middle}.{tail}", pick(naming, "model.layers.", "blk.")),
        None => format!("{middle}.{tail}"),
    }
}

/// A layer's number as files write it: digits, no leading zero.
pub(crate) fn layer_number(text: &str) -> Option<usize> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// All tensors of a model, in the order of the forward pass, with shapes and forms.
pub fn expected(described: &Described, naming: Naming) -> Vec<Placed> {
    let config = &described.config;
    let outermost = |name: TensorName, rows: usize, cols: usize| if name.is_vector() { vec![cols] } else { vec![rows, cols] };
    let placed = |name: TensorName| {
        let (rows, cols) = config.tensor_shape(name);
        let members = match name {
            TensorName::Linear(_, linear) => config.fused_with(linear),
            _ => &[],
        };
        let rows_of = |linear: &Linear| config.linear_shape(*linear).0;
        let all = if members.is_empty() { rows } else { members.iter().map(rows_of).sum() };
        let before = members.iter().take_while(|&&member| !matches!(name, TensorName::Linear(_, linear) if linear == member));
        let gain = name.is_vector() && !matches!(name, TensorName::Bias(..));
        Placed {
            name,
            source: source_name(name, config, naming),
            shape: outermost(name, rows, cols),
            source_shape: outermost(name, all, cols),
            first_row: before.map(rows_of).sum(),
            order: if naming == Naming::Gguf { gguf::row_order(name, described) } else { None },
            offset: if gain && naming == Naming::HuggingFace && described.family.gains_from_zero() { 1.0 } else { 0.0 },
        }
    };
    config.tensor_names().into_iter().map(placed).collect()
}

/// Checks that a file's tensors (name, shape) are exactly the model's: missing, unexpected and misshapen
/// ones are named. Tensors that carry nothing (rotary tables, a head beside a tied embedding) are let pass.
/// The result is in the order of [`expected`].
pub fn place<'a>(described: &Described, naming: Naming, present: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Result<Vec<Placed>> {
    let present: BTreeMap<&str, &[usize]> = present.into_iter().collect();
    let placed = expected(described, naming);
    let wanted: BTreeMap<&str, &[usize]> = placed.iter().map(|tensor| (tensor.source.as_str(), tensor.source_shape.as_slice())).collect();
    let mut missing = Vec::new();
    // In the order of the forward pass; the layers of a fused matrix follow each other.
    for tensor in &placed {
        match present.get(tensor.source.as_str()) {
            None if missing.last() == Some(&tensor.source) => {}
            None => missing.push(tensor.source.clone()),
            Some(given) if *given != tensor.source_shape => {
                let expected = tensor.source_shape.clone();
                return Err(FamilyError::Shape { name: tensor.source.clone(), given: given.to_vec(), expected });
            }
            Some(_) => {}
        }
    }
    let strange = present.keys().filter(|name| !wanted.contains_key(*name) && !carries_nothing(name, naming, &described.config));
    let unexpected: Vec<String> = strange.map(|name| shown(name)).collect();
    if missing.is_empty() && unexpected.is_empty() {
        return Ok(placed);
    }
    Err(FamilyError::Tensors { expected: wanted.len(), missing, unexpected })
}

fn carries_nothing(name: &str, naming: Naming, config: &ModelConfig) -> bool {
    match naming {
        Naming::HuggingFace => name.ends_with(".rotary_emb.inv_freq") || (config.tied_embeddings && name == "lm_head.weight"),
        Naming::Gguf => gguf::FLOATS.contains(&name), // read where the model is described
    }
}
