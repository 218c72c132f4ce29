//! config.json ⇄ ModelConfig.
use serde_json::Value;

use crate::{Described, Result};

/// Reads a config.json; every key that would change arithmetic is either honoured or refused by name.
pub fn describe(config: &Value) -> Result<Described> { todo!() }
/// A config.json that `transformers` loads; `token_ids` are bos, eos, pad where known.
pub fn to_config_json(described: &Described) -> Value { todo!() }
