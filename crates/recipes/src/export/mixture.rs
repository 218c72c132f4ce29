//! Which tensor of a GGUF file is stored how: llama.cpp's own mixtures.
//!
//! Source: llama.cpp's src/llama-quant.cpp (`llama_tensor_get_type_impl`, `llama_tensor_get_type_fallback`). A Q4_K_M file has
//! six bits where an error costs most: the head, and the values and down projections of the first and last eighth of the
//! blocks and of every third between.

use engine::config::{Linear, ModelConfig, TensorName};
use engine::storage::Storage;
use families::Family;

/// A kind of GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mixture {
    /// Every matrix as this.
    Plain(Storage),
    /// Q4_K with Q5_K and Q6_K for some.
    Q4KM,
}

impl Mixture {
    /// Of a format's name.
    pub(super) fn of(format: &str) -> Option<Mixture> {
        Some(match format {
            "gguf-f32" => Mixture::Plain(Storage::F32),
            "gguf-bf16" => Mixture::Plain(Storage::Bf16),
            "gguf-f16" => Mixture::Plain(Storage::F16),
            "gguf-q8_0" => Mixture::Plain(Storage::Q8_0),
            "gguf-q4_k_m" => Mixture::Q4KM,
            _ => return None,
        })
    }

    /// `general.file_type` (llama.cpp's `LLAMA_FTYPE_MOSTLY_…`).
    pub(super) fn file_type(self) -> u64 {
        match self {
            Mixture::Plain(Storage::F32) => 0,
            Mixture::Plain(Storage::F16) => 1,
            Mixture::Plain(Storage::Q8_0) => 7,
            Mixture::Plain(Storage::Bf16) => 32,
            Mixture::Plain(other) => unreachable!("no format is all {}", other.name()),
            Mixture::Q4KM => 15,
        }
    }

    /// Whether it has blocks at all: if so, tensors that are blocks already and that nothing is added to stay as they are.
    pub(super) fn is_quantized(self) -> bool {
        !matches!(self, Mixture::Plain(storage) if storage.is_float())
    }

    /// How matrix `name`, whose rows have `cols` numbers, is stored. Fused layers are named by their first.
    pub(super) fn storage(self, name: TensorName, cols: usize, family: Family, config: &ModelConfig) -> Storage {
        let wanted = match self {
            Mixture::Plain(storage) => storage,
            Mixture::Q4KM => q4_k_m(name, family, config),
        };
        let fits = |storage: Storage| cols.is_multiple_of(storage.block_len());
        let instead = match wanted {
            Storage::Q4K => Storage::Q5_0,
            Storage::Q5K => Storage::Q5_1,
            Storage::Q6K => Storage::Q8_0,
            other => other,
        };
        [wanted, instead].into_iter().find(|&storage| fits(storage)).unwrap_or(Storage::F16)
    }
}

fn q4_k_m(name: TensorName, family: Family, config: &ModelConfig) -> Storage {
    // llama.cpp's size class of 70B, whose values are shared by eight heads each.
    let largest = config.layers == 80 && config.heads != config.kv_heads && matches!(family, Family::Llama | Family::Qwen2);
    match name {
        TensorName::Head => Storage::Q6K,
        TensorName::Embedding if config.tied_embeddings => Storage::Q6K,
        TensorName::Linear(_, Linear::Query) if config.fused_qkv => Storage::Q5K,
        TensorName::Linear(layer, Linear::Value | Linear::Down) if more_bits(layer, config.layers) => Storage::Q6K,
        TensorName::Linear(_, Linear::Value) if largest => Storage::Q5K,
        _ => Storage::Q4K,
    }
}

/// llama.cpp's `use_more_bits`.
fn more_bits(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What llama.cpp's `llama-quantize` made of Gemma 3 270M (18 blocks, published as gemma-3-270m-q4_k_m.gguf).
    #[test]
    fn the_blocks_with_more_bits_are_llama_cpps() {
        let with: Vec<usize> = (0..18).filter(|&layer| more_bits(layer, 18)).collect();
        assert_eq!(with, [0, 1, 4, 7, 10, 13, 15, 16, 17]);
    }
}
