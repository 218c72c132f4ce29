//! A tiny Llama with random weights, drawn from a seed.

use std::borrow::Cow;

use engine::{
    config::{ModelConfig, TensorName},
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
            rotary_inv_freq: (0..head_dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / head_dim as f32)).collect(),
            window: None,
            context: 256,
            tied_embeddings: true,
        };
        TinyModel { config, storage: Storage::F32, seed }
    }

    /// The same with a sliding window, a head of its own and one key/value head.
    pub fn windowed(seed: u64) -> TinyModel {
        let mut model = TinyModel::llama(seed);
        model.config.window = Some(5);
        model.config.tied_embeddings = false;
        model.config.kv_heads = 1;
        model
    }
}

impl WeightSource for TinyModel {
    fn tensor(&self, name: TensorName) -> Result<TensorView<'_>, SourceError> {
        let (rows, cols) = self.config.tensor_shape(name);
        let gain = matches!(name, TensorName::AttentionNorm(_) | TensorName::MlpNorm(_) | TensorName::FinalNorm);
        let place = self.config.tensor_names().iter().position(|&n| n == name).ok_or(SourceError::Missing)?;
        let key = random::key(self.seed, Purpose::Test, &[place as u64]);
        // Wider than a trained model's, so that attention is far from uniform and logits from flat.
        let spread = if matches!(name, TensorName::Embedding | TensorName::Head) { 1.0 } else { 3.0 / (cols as f32).sqrt() };
        let draw = |i: usize| 2.0 * random::uniform(key, i as u64) - 1.0;
        let values: Vec<f32> = (0..rows * cols).map(|i| if gain { 1.0 + 0.3 * draw(i) } else { spread * draw(i) }).collect();
        let storage = if gain { Storage::F32 } else { self.storage };
        let mut bytes = vec![0; storage.bytes(rows, cols).expect("sizes fit the storage")];
        let row_bytes = bytes.len() / rows;
        for (i, (row, bytes)) in values.chunks_exact(cols).zip(bytes.chunks_exact_mut(row_bytes)).enumerate() {
            if storage.has_writer() {
                kernels::quant::quantize_row(storage, row, bytes);
            } else {
                any_blocks(storage, bytes, |j| random::uniform(key, (i * row_bytes + j) as u64));
            }
        }
        Ok(TensorView { storage, rows, cols, bytes: Cow::Owned(bytes) })
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
