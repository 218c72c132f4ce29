//! PEFT adapter folders: written as `peft` writes them, read as it left them.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::Result;

/// The linear layers that carry the adapter.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetModules {
    /// Last parts of module names, such as `q_proj`.
    List(Vec<String>),
    /// A regular expression, or "all-linear".
    Pattern(String),
}

/// adapter_config.json of a LoRA adapter, as far as it changes arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftConfig {
    /// `base_model_name_or_path`.
    pub base_model: Option<String>,
    /// `r`.
    pub rank: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// `lora_dropout`.
    pub dropout: f64,
    /// `use_rslora`: scaling alpha / sqrt(r) instead of alpha / r.
    pub rslora: bool,
    /// `target_modules`.
    pub target_modules: TargetModules,
}

/// A tensor of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterTensor {
    /// `[r, in]` or `[out, r]`.
    pub shape: Vec<usize>,
    /// Row major.
    pub values: Vec<f32>,
}

/// An adapter: settings, tensors by PEFT name, and our own sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftAdapter {
    /// adapter_config.json.
    pub config: PeftConfig,
    /// adapter_model.safetensors, by name such as `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub tensors: BTreeMap<String, AdapterTensor>,
    /// tunesmith.json: lineage, where there is one.
    pub lineage: Option<Value>,
}

impl PeftAdapter {
    /// Writes the folder, all or nothing; `readme` is README.md's text.
    pub fn write(&self, folder: &Path, readme: &str) -> Result<()> { todo!() }
    /// Reads a folder written by `peft` or by us; whatever would change the arithmetic and is not done here is refused by name.
    pub fn read(folder: &Path) -> Result<Self> { todo!() }
}
/// The bytes of adapter_config.json, as `peft` writes them.
pub fn config_json(config: &PeftConfig) -> String { todo!() }
