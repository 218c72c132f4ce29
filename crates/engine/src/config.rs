//! What a model is: sizes, the choices between block variants, and the names of its tensors.

use std::fmt;

use crate::error::EngineError;

pub use kernels::elementwise::Gate;

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
    /// Activation of the gated MLP.
    pub gate: Gate,
    /// Linear layers with a bias, which is never trained.
    pub biases: LinearSet,
    /// Every head's query and key is normed before it turns.
    pub qk_norms: bool,
    /// The outputs of attention and of the MLP are normed before they are added to the residual stream.
    pub post_norms: bool,
    /// Factor on the embeddings, in f32 whatever the embeddings are stored in.
    pub embedding_scale: Option<f32>,
    /// Factor on q·k.
    pub attention_scale: f32,
    /// Attention scores s become cap · tanh(s / cap).
    pub attention_softcap: Option<f32>,
    /// Logits z become cap · tanh(z / cap).
    pub logit_softcap: Option<f32>,
    /// The ways in which queries and keys turn.
    pub rotary: Vec<Rotary>,
    /// What differs from layer to layer, one for each.
    pub attention: Vec<LayerAttention>,
    /// Queries, keys and values are one matrix in the model's files: an adapter has one A for all three.
    pub fused_qkv: bool,
    /// So are gate and up.
    pub fused_gate_up: bool,
    /// Longest text it was made for.
    pub context: usize,
    /// The head is the embedding.
    pub tied_embeddings: bool,
}

/// How queries and keys turn with their position: the pairs (i, i + n) of a head's first 2n elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Angle per position of each pair: n of them, at most `head_dim / 2`.
    pub inv_freq: Vec<f32>,
    /// Factor on sine and cosine.
    pub scale: f32,
}

/// Attention of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerAttention {
    /// A query sees the last `window` tokens, itself included; `None`: all.
    pub window: Option<usize>,
    /// Which of [`ModelConfig::rotary`]; `None`: its queries and keys do not know their positions.
    pub rotary: Option<usize>,
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

/// A set of linear layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinearSet(u8);

impl LinearSet {
    /// None.
    pub const EMPTY: LinearSet = LinearSet(0);

    /// The given ones.
    pub fn of(linears: &[Linear]) -> LinearSet {
        linears.iter().fold(LinearSet::EMPTY, |set, &linear| set.with(linear))
    }
    /// With `linear` in it.
    pub fn with(self, linear: Linear) -> LinearSet {
        LinearSet(self.0 | 1 << linear as u8)
    }
    /// In one of both.
    pub fn union(self, other: LinearSet) -> LinearSet {
        LinearSet(self.0 | other.0)
    }
    /// Whether `linear` is in it.
    pub fn has(self, linear: Linear) -> bool {
        self.0 & (1 << linear as u8) != 0
    }
    /// Whether any of `linears` is in it.
    pub fn has_any(self, linears: &[Linear]) -> bool {
        linears.iter().any(|&linear| self.has(linear))
    }
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
    /// Its bias, `[out]`.
    Bias(usize, Linear),
    /// `[head_dim]`, of every query.
    QueryNorm(usize),
    /// `[head_dim]`, of every key.
    KeyNorm(usize),
    /// `[hidden]`, of the attention's output.
    PostAttentionNorm(usize),
    /// `[hidden]`, of the MLP's output.
    PostMlpNorm(usize),
}

impl TensorName {
    /// Gains and biases, which are held as f32 whatever they are stored in.
    pub fn is_vector(self) -> bool {
        !matches!(self, TensorName::Embedding | TensorName::Head | TensorName::Linear(..))
    }
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
    /// Shape of a tensor, `[1, n]` for gains and biases.
    pub fn tensor_shape(&self, name: TensorName) -> (usize, usize) {
        match name {
            TensorName::Embedding | TensorName::Head => (self.vocab, self.hidden),
            TensorName::FinalNorm
            | TensorName::AttentionNorm(_)
            | TensorName::MlpNorm(_)
            | TensorName::PostAttentionNorm(_)
            | TensorName::PostMlpNorm(_) => (1, self.hidden),
            TensorName::QueryNorm(_) | TensorName::KeyNorm(_) => (1, self.head_dim),
            TensorName::Bias(_, linear) => (1, self.linear_shape(linear).0),
            TensorName::Linear(_, linear) => self.linear_shape(linear),
        }
    }

    /// The tensors of the model, embedding first, then block by block in the order of the forward pass.
    pub fn tensor_names(&self) -> Vec<TensorName> {
        let mut names = vec![TensorName::Embedding];
        for layer in 0..self.layers {
            names.push(TensorName::AttentionNorm(layer));
            for linear in Linear::ALL {
                if linear == Linear::Gate {
                    names.push(TensorName::MlpNorm(layer));
                }
                names.push(TensorName::Linear(layer, linear));
                if self.biases.has(linear) {
                    names.push(TensorName::Bias(layer, linear));
                }
                match linear {
                    Linear::Query if self.qk_norms => names.push(TensorName::QueryNorm(layer)),
                    Linear::Key if self.qk_norms => names.push(TensorName::KeyNorm(layer)),
                    Linear::Output if self.post_norms => names.push(TensorName::PostAttentionNorm(layer)),
                    Linear::Down if self.post_norms => names.push(TensorName::PostMlpNorm(layer)),
                    _ => {}
                }
            }
        }
        names.push(TensorName::FinalNorm);
        if !self.tied_embeddings {
            names.push(TensorName::Head);
        }
        names
    }

    /// The layers that are one matrix with `linear` in the model's files, in order; it alone where nothing is fused.
    pub fn fused_with(&self, linear: Linear) -> &'static [Linear] {
        match linear {
            Linear::Query | Linear::Key | Linear::Value if self.fused_qkv => &Linear::ALL[..3],
            Linear::Gate | Linear::Up if self.fused_gate_up => &Linear::ALL[4..6],
            _ => std::slice::from_ref(&Linear::ALL[linear as usize]),
        }
    }

    /// The linear layers that can carry an adapter each: of fused ones the first, which stands for all.
    pub fn adapter_linears(&self) -> Vec<Linear> {
        Linear::ALL.into_iter().filter(|&linear| self.fused_with(linear)[0] == linear).collect()
    }

    /// (out, in) of an adapter on `linear`: of fused layers, the rows of all.
    pub fn adapter_shape(&self, linear: Linear) -> (usize, usize) {
        let members = self.fused_with(linear);
        (members.iter().map(|&member| self.linear_shape(member).0).sum(), self.linear_shape(linear).1)
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
        if let Some(rotary) = self.rotary.iter().find(|r| r.inv_freq.is_empty() || r.inv_freq.len() > self.head_dim / 2) {
            let most = self.head_dim / 2;
            return refuse("number of rotary frequencies", rotary.inv_freq.len(), format!("from 1 to {most}, half the head size"));
        }
        if self.attention.len() != self.layers {
            return refuse("number of layers' attention settings", self.attention.len(), format!("{}, one for each layer", self.layers));
        }
        if self.attention.iter().any(|layer| layer.window == Some(0)) {
            return refuse("attention window", 0, "at least 1".into());
        }
        if let Some(rotary) = self.attention.iter().filter_map(|layer| layer.rotary).find(|&rotary| rotary >= self.rotary.len()) {
            return refuse("rotary setting of a layer", rotary, format!("below {}", self.rotary.len()));
        }
        let factors = [
            ("attention scale", Some(self.attention_scale)),
            ("attention soft cap", self.attention_softcap),
            ("logit soft cap", self.logit_softcap),
            ("embedding scale", self.embedding_scale),
        ];
        let scales = self.rotary.iter().map(|rotary| ("rotary scale", Some(rotary.scale)));
        for (what, factor) in factors.into_iter().chain(scales) {
            if let Some(given) = factor.filter(|factor| !(factor.is_finite() && *factor > 0.0)) {
                return Err(EngineError::ConfigFactor { what, given });
            }
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
            TensorName::Bias(layer, linear) => write!(f, "block {layer} {linear} bias"),
            TensorName::QueryNorm(layer) => write!(f, "block {layer} query norm"),
            TensorName::KeyNorm(layer) => write!(f, "block {layer} key norm"),
            TensorName::PostAttentionNorm(layer) => write!(f, "block {layer} post-attention norm"),
            TensorName::PostMlpNorm(layer) => write!(f, "block {layer} post-mlp norm"),
        }
    }
}
