//! PEFT's names of adapter tensors and target modules ⇄ (layer, linear).
use std::collections::{BTreeMap, BTreeSet};

use engine::config::{Linear, ModelConfig};

use crate::error::shown;
use crate::{FamilyError, Result, tensors};

/// Which half of a low-rank pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Half {
    /// `lora_A`, `[r, in]`.
    A,
    /// `lora_B`, `[out, r]`.
    B,
}

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

const PREFIX: &str = "base_model.model.model.layers.";

/// Linear layers, PEFT's module names, and where in a block they stand.
const MODULES: [(Linear, &str, &str); 7] = [
    (Linear::Query, "q_proj", "self_attn"),
    (Linear::Key, "k_proj", "self_attn"),
    (Linear::Value, "v_proj", "self_attn"),
    (Linear::Output, "o_proj", "self_attn"),
    (Linear::Gate, "gate_proj", "mlp"),
    (Linear::Up, "up_proj", "mlp"),
    (Linear::Down, "down_proj", "mlp"),
];

fn entry(linear: Linear) -> &'static (Linear, &'static str, &'static str) {
    MODULES.iter().find(|(known, _, _)| *known == linear).expect("the table has every linear layer")
}

/// `q_proj` and its like.
pub fn module_name(linear: Linear) -> &'static str {
    entry(linear).1
}

/// The other way round.
pub fn linear_of(module: &str) -> Option<Linear> {
    MODULES.iter().find(|(_, name, _)| *name == module).map(|(linear, _, _)| *linear)
}

/// `base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight`.
pub fn tensor_name(layer: usize, linear: Linear, half: Half) -> String {
    let (_, module, part) = entry(linear);
    let half = match half {
        Half::A => "lora_A",
        Half::B => "lora_B",
    };
    format!("{PREFIX}{layer}.{part}.{module}.{half}.weight")
}

/// The other way round.
pub fn parse_tensor_name(name: &str) -> Result<(usize, Linear, Half)> {
    let parse = || {
        let mut parts = name.strip_prefix(PREFIX)?.split('.');
        let layer = tensors::layer_number(parts.next()?)?;
        let (part, module) = (parts.next()?, parts.next()?);
        let half = match parts.next()? {
            "lora_A" => Half::A,
            "lora_B" => Half::B,
            _ => return None,
        };
        let linear = MODULES.iter().find(|(_, m, p)| *m == module && *p == part)?.0;
        (parts.next() == Some("weight") && parts.next().is_none()).then_some((layer, linear, half))
    };
    parse().ok_or_else(|| FamilyError::AdapterTensor { name: shown(name) })
}

/// `target_modules` for these linears, sorted, each once.
pub fn target_modules(linears: &[Linear]) -> Vec<String> {
    let names: BTreeSet<String> = linears.iter().map(|&linear| module_name(linear).to_owned()).collect();
    names.into_iter().collect()
}

/// The linears that a list names: PEFT module names, with or without the path before them, or `all-linear`,
/// `attention`, `mlp`. In the order of the forward pass, each once.
pub fn linears_of(targets: &[String]) -> Result<Vec<Linear>> {
    let mut named = BTreeSet::new();
    for target in targets {
        let part = match target.as_str() {
            "attention" => Some("self_attn"),
            other => Some(other).filter(|&o| o == "mlp"),
        };
        match target.rsplit('.').next().and_then(linear_of) {
            Some(linear) => named.extend([linear]),
            None if target == "all-linear" => named.extend(Linear::ALL),
            None if part.is_some() => named.extend(MODULES.iter().filter(|(_, _, p)| Some(*p) == part).map(|(linear, _, _)| *linear)),
            None => return Err(FamilyError::Target { given: shown(target) }),
        }
    }
    if named.is_empty() {
        return Err(FamilyError::NoTarget);
    }
    Ok(named.into_iter().collect())
}

/// Sorts an adapter's tensors (name → shape) into pairs and checks them against the model and the rank;
/// what is missing or too much is named. The pairs are in order of layer and linear, with the names of A and B.
pub fn pair(config: &ModelConfig, rank: usize, tensors: &BTreeMap<String, Vec<usize>>) -> Result<Vec<Pair>> {
    let mut places = BTreeSet::new();
    for (name, given) in tensors {
        let (layer, linear, half) = parse_tensor_name(name)?;
        if layer >= config.layers {
            return Err(FamilyError::AdapterLayer { name: shown(name), layer, layers: config.layers });
        }
        let (out, inner) = config.linear_shape(linear);
        let expected = match half {
            Half::A => vec![rank, inner],
            Half::B => vec![out, rank],
        };
        if *given != expected {
            return Err(FamilyError::Shape { name: shown(name), given: given.clone(), expected });
        }
        let other = tensor_name(layer, linear, if half == Half::A { Half::B } else { Half::A });
        if !tensors.contains_key(&other) {
            return Err(FamilyError::AdapterHalf { name: shown(name), missing: other });
        }
        places.insert((layer, linear));
    }
    if places.is_empty() {
        return Err(FamilyError::AdapterEmpty);
    }
    Ok(places
        .into_iter()
        .map(|(layer, linear)| Pair { layer, linear, a: tensor_name(layer, linear, Half::A), b: tensor_name(layer, linear, Half::B) })
        .collect())
}
