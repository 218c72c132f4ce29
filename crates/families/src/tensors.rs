//! Engine's tensor names ⇄ Hugging Face's and GGUF's.
use engine::config::{ModelConfig, TensorName};

use crate::Result;

/// Whose names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace,
    /// `blk.0.attn_q.weight`.
    Gguf,
}

/// A tensor of the model and where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The engine's name.
    pub name: TensorName,
    /// The file's name.
    pub source: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
}

/// The file's name of an engine tensor.
pub fn source_name(name: TensorName, naming: Naming) -> String { todo!() }
/// The engine's name of a file's tensor, if it is one of the model's.
pub fn engine_name(source: &str, naming: Naming) -> Option<TensorName> { todo!() }
/// All tensors of a model, in the order of the forward pass, with shapes.
pub fn expected(config: &ModelConfig, naming: Naming) -> Vec<Placed> { todo!() }
/// Checks that a file's tensors (name, shape) are exactly the model's: missing, unexpected and misshapen
/// ones are named. Tensors that carry nothing (rotary tables, a head equal to a tied embedding) are let pass.
pub fn place<'a>(config: &ModelConfig, naming: Naming, present: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Result<Vec<Placed>> { todo!() }
