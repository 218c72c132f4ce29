//! PEFT's names of adapter tensors and target modules ⇄ (layer, linear).
//!
//! Where a model has several linear layers as one matrix, PEFT sees one module (Phi's `qkv_proj`), and so does everything
//! here: the pair stands under the first of the layers, see [`ModelConfig::fused_with`].
use std::collections::{BTreeMap, BTreeSet};

use engine::config::{Linear, ModelConfig};

use crate::error::shown;
use crate::{FamilyError, Result, tensors};

/// Which part of a low-rank pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Half {
    /// `lora_A`, `[r, in]`.
    A,
    /// `lora_B`, `[out, r]`.
    B,
    /// `lora_magnitude_vector`, `[out]`, of DoRA.
    Magnitude,
}

/// A low-rank pair found in an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Block.
    pub layer: usize,
    /// Linear layer; of fused ones the first.
    pub linear: Linear,
    /// Name of A.
    pub a: String,
    /// Name of B.
    pub b: String,
    /// Name of the magnitudes, with DoRA.
    pub magnitude: Option<String>,
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

/// The first of fused linear layers, and the name of what they are together.
const FUSED: [(Linear, &str); 2] = [(Linear::Query, "qkv_proj"), (Linear::Gate, "gate_up_proj")];

fn entry(linear: Linear) -> &'static (Linear, &'static str, &'static str) {
    MODULES.iter().find(|(known, _, _)| *known == linear).expect("the table has every linear layer")
}

/// `q_proj` and its like; `qkv_proj` for the queries of a model that has them fused.
pub fn module_name(config: &ModelConfig, linear: Linear) -> &'static str {
    let members = config.fused_with(linear);
    let fused = FUSED.iter().find(|(leader, _)| members.len() > 1 && *leader == members[0]);
    fused.map_or(entry(linear).1, |(_, name)| name)
}

/// The other way round, for the modules that the model has.
pub fn linear_of(config: &ModelConfig, module: &str) -> Option<Linear> {
    config.adapter_linears().into_iter().find(|&linear| module_name(config, linear) == module)
}

/// `base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight`.
pub fn tensor_name(config: &ModelConfig, layer: usize, linear: Linear, half: Half) -> String {
    let (_, _, part) = entry(linear);
    // peft takes the `.weight` off magnitudes when it saves them.
    let half = match half {
        Half::A => "lora_A.weight",
        Half::B => "lora_B.weight",
        Half::Magnitude => "lora_magnitude_vector",
    };
    format!("{PREFIX}{layer}.{part}.{}.{half}", module_name(config, linear))
}

/// The other way round.
pub fn parse_tensor_name(config: &ModelConfig, name: &str) -> Result<(usize, Linear, Half)> {
    let parse = || {
        let mut parts = name.strip_prefix(PREFIX)?.split('.');
        let layer = tensors::layer_number(parts.next()?)?;
        let (part, module) = (parts.next()?, parts.next()?);
        let half = match parts.next()? {
            "lora_A" => Half::A,
            "lora_B" => Half::B,
            "lora_magnitude_vector" => Half::Magnitude,
            _ => return None,
        };
        let linear = linear_of(config, module).filter(|&linear| entry(linear).2 == part)?;
        let whole = half == Half::Magnitude || parts.next() == Some("weight");
        (whole && parts.next().is_none()).then_some((layer, linear, half))
    };
    parse().ok_or_else(|| FamilyError::AdapterTensor { name: shown(name) })
}

/// `target_modules` for these linears, sorted, each once.
pub fn target_modules(config: &ModelConfig, linears: &[Linear]) -> Vec<String> {
    let names: BTreeSet<String> = linears.iter().map(|&linear| module_name(config, linear).to_owned()).collect();
    names.into_iter().collect()
}

/// The linears that a list names: PEFT module names, with or without the path before them, or `all-linear`,
/// `attention`, `mlp`. In the order of the forward pass, each once; of fused ones all. Names of the layers of a fused matrix
/// stand for it where all of them are there.
pub fn linears_of(config: &ModelConfig, targets: &[String]) -> Result<Vec<Linear>> {
    let known = || target_modules(config, &Linear::ALL).join(", ");
    let in_part = |part: &str| MODULES.iter().filter(move |(_, _, p)| *p == part).map(|(linear, _, _)| *linear).collect::<Vec<_>>();
    let (mut named, mut parts) = (BTreeSet::new(), Vec::new());
    for target in targets {
        let last = target.rsplit('.').next().unwrap_or_default();
        let found = match target.as_str() {
            "all-linear" => Some(Linear::ALL.to_vec()),
            "attention" => Some(in_part("self_attn")),
            "mlp" => Some(in_part("mlp")),
            _ => linear_of(config, last).map(|linear| config.fused_with(linear).to_vec()),
        };
        if let Some(found) = found {
            named.extend(found);
            continue;
        }
        let given = shown(target);
        match MODULES.iter().find(|(_, name, _)| *name == last) {
            Some((linear, _, _)) => parts.push((*linear, given)),
            None if last == "bias" => return Err(FamilyError::TargetBias { given, known: known() }),
            None => return Err(FamilyError::Target { given, known: known() }),
        }
    }
    for (linear, given) in &parts {
        let members = config.fused_with(*linear);
        let whole = members.iter().all(|member| named.contains(member) || parts.iter().any(|(part, _)| part == member));
        if !whole {
            return Err(FamilyError::TargetFused { given: given.clone(), module: module_name(config, *linear).to_owned() });
        }
    }
    named.extend(parts.iter().map(|(linear, _)| *linear));
    if named.is_empty() {
        return Err(FamilyError::NoTarget { known: known() });
    }
    Ok(named.into_iter().collect())
}

/// Sorts an adapter's tensors (name → shape) into pairs and checks them against the model and the rank;
/// what is missing or too much is named. The pairs are in order of layer and linear, with the names of A and B.
pub fn pair(config: &ModelConfig, rank: usize, tensors: &BTreeMap<String, Vec<usize>>) -> Result<Vec<Pair>> {
    let mut places = BTreeSet::new();
    let dora = tensors.keys().any(|name| name.ends_with("lora_magnitude_vector"));
    for (name, given) in tensors {
        let (layer, linear, half) = parse_tensor_name(config, name)?;
        if layer >= config.layers {
            return Err(FamilyError::AdapterLayer { name: shown(name), layer, layers: config.layers });
        }
        let (out, inner) = config.adapter_shape(linear);
        let expected = match half {
            Half::A => vec![rank, inner],
            Half::B => vec![out, rank],
            Half::Magnitude => vec![out],
        };
        if *given != expected {
            return Err(FamilyError::Shape { name: shown(name), given: given.clone(), expected });
        }
        // With DoRA every pair has its magnitudes.
        let parts = [Half::A, Half::B, Half::Magnitude];
        let names = parts[..if dora { 3 } else { 2 }].iter().map(|&part| tensor_name(config, layer, linear, part));
        if let Some(missing) = names.into_iter().find(|name| !tensors.contains_key(name)) {
            return Err(FamilyError::AdapterHalf { name: shown(name), missing });
        }
        places.insert((layer, linear));
    }
    if places.is_empty() {
        return Err(FamilyError::AdapterEmpty);
    }
    let names = |layer, linear| [Half::A, Half::B, Half::Magnitude].map(|half| tensor_name(config, layer, linear, half));
    let pair = |(layer, linear)| {
        let [a, b, magnitude] = names(layer, linear);
        Pair { layer, linear, a, b, magnitude: dora.then_some(magnitude) }
    };
    Ok(places.into_iter().map(pair).collect())
}
