//! GGUF metadata ⇄ ModelConfig, and the order of rows in GGUF's query and key weights.
use std::collections::BTreeMap;

use engine::config::{ModelConfig, TensorName};

use crate::{Described, Result};

/// A metadata value, as far as a description needs it.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaValue {
    /// Any unsigned or non-negative integer.
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A text.
    Text(String),
    /// An array, of which only the length matters here.
    Length(usize),
}

/// The tensor that carries Llama 3's rotary factors, `[head_dim / 2]`, where there is one.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Reads GGUF metadata. `rope_factors` are the values of [`ROPE_FACTORS`] if the file has that tensor;
/// `has_head` is whether it has `output.weight`.
pub fn describe(metadata: &BTreeMap<String, MetaValue>, rope_factors: Option<&[f32]>, has_head: bool) -> Result<Described> { todo!() }
/// The metadata that describes the model (not its tokenizer), and the rotary factors to write as [`ROPE_FACTORS`].
pub fn to_metadata(described: &Described) -> (BTreeMap<String, MetaValue>, Option<Vec<f32>>) { todo!() }
/// GGUF keeps Llama's q and k rows interleaved: row `i` of the engine's matrix is row `order[i]` of the
/// file's. Whole rows, so it holds for quantised bytes as well; `None` where the orders agree.
pub fn row_order(name: TensorName, config: &ModelConfig) -> Option<Vec<usize>> { todo!() }
/// `bytes` with its rows (of equal length) put into `order`: row i of the result is row `order[i]`.
pub fn reorder_rows(bytes: &[u8], order: &[usize]) -> Vec<u8> { todo!() }
