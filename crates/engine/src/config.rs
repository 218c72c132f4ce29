//! What a model is: sizes, the choices between block variants, and the names of its tensors.

use std::fmt;

use crate::error::EngineError;

/// No size of a model may exceed this: products of three of them still fit 64 bits.
pub const MAX_SIZE: usize = 1 << 21;

/// The sizes and choices of a decoder. `families` makes one from a config.json or GGUF keys.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Token ids are below this.
    pub vocab: usize,
    /// Channels of the residual stream.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head, even.
    pub head_dim: usize,
    /// Inner size of the gated MLP.
    pub intermediate: usize,
    /// Added to the mean square in the norms.
    pub norm_eps: f32,
    /// Rotary angle per position of each pair (i, i + head_dim / 2); `head_dim / 2` long.
    pub rotary_inv_freq: Vec<f32>,
    /// Sliding window of attention in tokens, where the family has one.
    pub window: Option<usize>,
    /// Longest text it was made for.
    pub context: usize,
    /// The head is the embedding.
    pub tied_embeddings: bool,
}

/// The linear layers of a block that can carry an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Linear {
    /// Queries: hidden → heads · head_dim.
    Query,
    /// Keys: hidden → kv_heads · head_dim.
    Key,
    /// Values: hidden → kv_heads · head_dim.
    Value,
    /// Attention output: heads · head_dim → hidden.
    Output,
    /// MLP gate: hidden → intermediate.
    Gate,
    /// MLP up: hidden → intermediate.
    Up,
    /// MLP down: intermediate → hidden.
    Down,
}

impl Linear {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Linear; 7] = [Linear::Query, Linear::Key, Linear::Value, Linear::Output, Linear::Gate, Linear::Up, Linear::Down];
}

/// Names a base tensor of the model in the engine's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TensorName {
    /// `[vocab, hidden]`.
    Embedding,
    /// `[vocab, hidden]`, absent where tied.
    Head,
    /// `[hidden]`.
    FinalNorm,
    /// `[hidden]`, before attention.
    AttentionNorm(usize),
    /// `[hidden]`, before the MLP.
    MlpNorm(usize),
    /// A linear layer of block `.0`, `[out, in]`.
    Linear(usize, Linear),
}

impl ModelConfig {
    /// (out, in) of a block's linear layer.
    pub fn linear_shape(&self, linear: Linear) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match linear {
            Linear::Query => (q, self.hidden),
            Linear::Key | Linear::Value => (kv, self.hidden),
            Linear::Output => (self.hidden, q),
            Linear::Gate | Linear::Up => (self.intermediate, self.hidden),
            Linear::Down => (self.hidden, self.intermediate),
        }
    }
}

impl ModelConfig {
    /// Shape of a tensor, `[1, hidden]` for gains.
    pub fn tensor_shape(&self, name: TensorName) -> (usize, usize) {
        match name {
            TensorName::Embedding | TensorName::Head => (self.vocab, self.hidden),
            TensorName::FinalNorm | TensorName::AttentionNorm(_) | TensorName::MlpNorm(_) => (1, self.hidden),
            TensorName::Linear(_, linear) => self.linear_shape(linear),
        }
    }

    /// The tensors of the model, embedding first, then block by block.
    pub fn tensor_names(&self) -> Vec<TensorName> {
        let mut names = vec![TensorName::Embedding];
        for layer in 0..self.layers {
            names.push(TensorName::AttentionNorm(layer));
            names.extend(Linear::ALL[..4].iter().map(|&linear| TensorName::Linear(layer, linear)));
            names.push(TensorName::MlpNorm(layer));
            names.extend(Linear::ALL[4..].iter().map(|&linear| TensorName::Linear(layer, linear)));
        }
        names.push(TensorName::FinalNorm);
        if !self.tied_embeddings {
            names.push(TensorName::Head);
        }
        names
    }

    /// Refuses sizes that do not go together.
    pub fn validate(&self) -> Result<(), EngineError> {
        let refuse = |what, given, expected: String| Err(EngineError::Config { what, given, expected });
        let sizes = [
            ("vocabulary", self.vocab),
            ("hidden size", self.hidden),
            ("number of layers", self.layers),
            ("number of heads", self.heads),
            ("number of key/value heads", self.kv_heads),
            ("head size", self.head_dim),
            ("intermediate size", self.intermediate),
            ("context", self.context),
        ];
        if let Some(&(what, given)) = sizes.iter().find(|(_, given)| *given == 0 || *given > MAX_SIZE) {
            return refuse(what, given, format!("from 1 to {MAX_SIZE}"));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return refuse("number of key/value heads", self.kv_heads, format!("a divisor of the {} heads", self.heads));
        }
        if !self.head_dim.is_multiple_of(2) {
            return refuse("head size", self.head_dim, "even".into());
        }
        if self.rotary_inv_freq.len() != self.head_dim / 2 {
            return refuse(
                "number of rotary frequencies",
                self.rotary_inv_freq.len(),
                format!("{}, half the head size", self.head_dim / 2),
            );
        }
        if self.window == Some(0) {
            return refuse("attention window", 0, "at least 1".into());
        }
        Ok(())
    }
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Linear::Query => "query",
            Linear::Key => "key",
            Linear::Value => "value",
            Linear::Output => "output",
            Linear::Gate => "gate",
            Linear::Up => "up",
            Linear::Down => "down",
        })
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorName::Embedding => f.write_str("embedding"),
            TensorName::Head => f.write_str("head"),
            TensorName::FinalNorm => f.write_str("final norm"),
            TensorName::AttentionNorm(layer) => write!(f, "block {layer} attention norm"),
            TensorName::MlpNorm(layer) => write!(f, "block {layer} mlp norm"),
            TensorName::Linear(layer, linear) => write!(f, "block {layer} {linear}"),
        }
    }
}
