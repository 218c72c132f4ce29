//! What a model is: sizes, the choices between block variants, and the names of its tensors.

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
