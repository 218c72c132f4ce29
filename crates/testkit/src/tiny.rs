//! Tiny models with random weights, drawn from a seed: each family's turns of the block.

use std::borrow::Cow;

use engine::{
    config::{Gate, LayerAttention, Linear, LinearSet, ModelConfig, Rotary, TensorName},
    device::Storage,
    model::{SourceError, TensorView, WeightSource},
    random::{self, Purpose},
};

/// Random weights for a configuration: the same seed gives the same bytes.
#[derive(Clone, Debug)]
pub struct TinyModel {
    /// Sizes.
    pub config: ModelConfig,
    /// How matrices are stored.
    pub storage: Storage,
    /// Seed.
    pub seed: u64,
}

impl TinyModel {
    /// Two grouped-head layers of 32 channels over 61 tokens, in f32: odd enough to meet every edge.
    pub fn llama(seed: u64) -> TinyModel {
        let head_dim = 8;
        let config = ModelConfig {
            vocab: 61,
            hidden: 32,
            layers: 3,
            heads: 4,
            kv_heads: 2,
            head_dim,
            intermediate: 40,
            norm_eps: 1e-5,
            gate: Gate::Silu,
            biases: LinearSet::EMPTY,
            qk_norms: false,
            post_norms: false,
            embedding_scale: None,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            attention_softcap: None,
            logit_softcap: None,
            rotary: vec![rotary(10_000.0, head_dim / 2)],
            attention: vec![LayerAttention { window: None, rotary: Some(0) }; 3],
            fused_qkv: false,
            fused_gate_up: false,
            context: 256,
            tied_embeddings: true,
        };
        TinyModel { config, storage: Storage::F32, seed }
    }

    /// The same with a sliding window, a head of its own and one key/value head.
    pub fn windowed(seed: u64) -> TinyModel {
        let mut model = TinyModel::llama(seed);
        model.config.attention.iter_mut().for_each(|layer| layer.window = Some(5));
        model.config.tied_embeddings = false;
        model.config.kv_heads = 1;
        model
    }

    /// Everything that Gemma 2 and 3 and Qwen 3 do: soft caps, windows and bases by layer, norms of queries and keys and
    /// after attention and MLP, scaled embeddings, GELU, heads wider than the residual stream has room for.
    pub fn gemma(seed: u64) -> TinyModel {
        let mut model = TinyModel::llama(seed);
        let c = &mut model.config;
        (c.gate, c.qk_norms, c.post_norms, c.embedding_scale) = (Gate::GeluTanh, true, true, Some(5.5));
        (c.head_dim, c.attention_scale) = (16, 0.4);
        (c.attention_softcap, c.logit_softcap) = (Some(3.0), Some(6.0));
        c.rotary = vec![rotary(10_000.0, 8), rotary(1_000_000.0, 8)];
        let [local, global] = [(Some(4), 0), (None, 1)].map(|(window, rotary)| LayerAttention { window, rotary: Some(rotary) });
        c.attention = vec![local, global, local];
        model
    }

    /// Biases, layers that do not know positions, and no tied embeddings: Qwen 2 and SmolLM 3, and Llama's `mlp_bias`.
    pub fn biased(seed: u64) -> TinyModel {
        let mut model = TinyModel::llama(seed);
        model.config.biases = LinearSet::of(&Linear::ALL);
        model.config.attention[1].rotary = None;
        model.config.tied_embeddings = false;
        model
    }

    /// Fused projections, and a part of each head that turns and grows: Phi 3 and 4.
    pub fn fused(seed: u64) -> TinyModel {
        let mut model = TinyModel::llama(seed);
        (model.config.fused_qkv, model.config.fused_gate_up) = (true, true);
        model.config.rotary = vec![Rotary { scale: 1.19, ..rotary(10_000.0, 3) }];
        model
    }
}

/// θ^(-i / pairs), for `pairs` pairs.
fn rotary(theta: f32, pairs: usize) -> Rotary {
    Rotary { inv_freq: (0..pairs).map(|i| theta.powf(-(i as f32) / pairs as f32)).collect(), scale: 1.0 }
}

impl WeightSource for TinyModel {
    fn tensor(&self, name: TensorName) -> Result<TensorView<'_>, SourceError> {
        let (rows, cols) = self.config.tensor_shape(name);
        let bias = matches!(name, TensorName::Bias(..));
        let gain = name.is_vector() && !bias;
        let place = self.config.tensor_names().iter().position(|&n| n == name).ok_or(SourceError::Missing)?;
        let key = random::key(self.seed, Purpose::Test, &[place as u64]);
        // Wider than a trained model's, so that attention is far from uniform and logits from flat.
        let spread = if matches!(name, TensorName::Embedding | TensorName::Head) { 1.0 } else { 3.0 / (cols as f32).sqrt() };
        let draw = |i: usize| 2.0 * random::uniform(key, i as u64) - 1.0;
        let value = |i| match (gain, bias) {
            (true, _) => 1.0 + 0.3 * draw(i),
            (_, true) => 0.5 * draw(i),
            _ => spread * draw(i),
        };
        let values: Vec<f32> = (0..rows * cols).map(value).collect();
        let storage = if name.is_vector() { Storage::F32 } else { self.storage };
        let mut bytes = vec![0; storage.bytes(rows, cols).expect("sizes fit the storage")];
        let row_bytes = bytes.len() / rows;
        for (i, (row, bytes)) in values.chunks_exact(cols).zip(bytes.chunks_exact_mut(row_bytes)).enumerate() {
            if storage.has_writer() {
                kernels::quant::quantize_row(storage, row, bytes);
            } else {
                any_blocks(storage, bytes, |j| random::uniform(key, (i * row_bytes + j) as u64));
            }
        }
        Ok(TensorView { storage, rows, cols, bytes: Cow::Owned(bytes), offset: 0.0 })
    }
}

/// Any bytes are a block: codes and small scales as drawn, the f16 scales such that weights are about 0.1.
fn any_blocks(storage: Storage, bytes: &mut [u8], draw: impl Fn(usize) -> f32) {
    // (place of an f16 scale, its size)
    let scales: &[(usize, f32)] = match storage {
        Storage::Q2K => &[(80, 0.01), (82, 0.01)],
        Storage::Q3K => &[(108, 0.002)],
        Storage::Iq4Nl => &[(0, 0.002)],
        Storage::Iq4Xs => &[(0, 0.0001)],
        written => panic!("{} has a writer", written.name()),
    };
    for (index, block) in bytes.chunks_exact_mut(storage.block_bytes()).enumerate() {
        let first = index * block.len();
        block.iter_mut().enumerate().for_each(|(j, byte)| *byte = (256.0 * draw(first + j)) as u8);
        for &(at, size) in scales {
            let scale = half::f16::from_f32(size * (0.5 + draw(first + at)));
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
}
