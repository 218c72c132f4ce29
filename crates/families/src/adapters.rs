//! PEFT's names of adapter tensors and target modules ⇄ (layer, linear).
use std::collections::BTreeMap;

use engine::config::{Linear, ModelConfig};

use crate::Result;

/// Which half of a low-rank pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Half {
    /// `lora_A`, `[r, in]`.
    A,
    /// `lora_B`, `[out, r]`.
    B,
}

/// `q_proj` and its like.
pub fn module_name(linear: Linear) -> &'static str { todo!() }
/// The other way round.
pub fn linear_of(module: &str) -> Option<Linear> { todo!() }
/// `base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight`.
pub fn tensor_name(layer: usize, linear: Linear, half: Half) -> String { todo!() }
/// The other way round.
pub fn parse_tensor_name(name: &str) -> Result<(usize, Linear, Half)> { todo!() }
/// `target_modules` for these linears, in PEFT's sorted spelling.
pub fn target_modules(linears: &[Linear]) -> Vec<String> { todo!() }
/// The linears that a user's list names: PEFT module names, or `all-linear`, `attention`, `mlp`.
pub fn linears_of(targets: &[String]) -> Result<Vec<Linear>> { todo!() }
/// Sorts an adapter's tensors (name → shape) into pairs and checks them against the model and the rank;
/// what is missing or too much is named. The pairs are in order of layer and linear, with the names of A and B.
pub fn pair(config: &ModelConfig, rank: usize, tensors: &BTreeMap<String, Vec<usize>>) -> Result<Vec<Pair>> { todo!() }

/// A low-rank pair found in an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Block.
    pub layer: usize,
    /// Linear layer.
    pub linear: Linear,
    /// Name of A.
    pub a: String,
    /// Name of B.
    pub b: String,
}
