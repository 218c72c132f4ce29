//! Adapters between PEFT folders and the engine.

use std::collections::BTreeMap;
use std::path::Path;

use engine::adapter::{Adapter, LoraConfig, LoraPair, LoraTensors};
use engine::config::{Linear, ModelConfig};
use engine::model::AdapterHalf;
use families::Described;
use families::adapters::{Half, linears_of, pair, target_modules, tensor_name};
use serde_json::Value;
use store::peft::{AdapterTensor, PeftAdapter, PeftConfig, TargetModules};

use crate::error::{Error, Result};
use crate::layers::LayerPattern;
use crate::spec::{Init, Tune};

/// The engine's LoRA settings of a plan.
pub(crate) fn lora_config(tune: &Tune, config: &ModelConfig) -> Result<LoraConfig> {
    let targets = linears_of(config, &tune.targets)?;
    let layers = LayerPattern::parse(&tune.layers)?.resolve(config.layers)?;
    Ok(LoraConfig {
        rank: tune.rank,
        alpha: tune.alpha,
        rslora: tune.rslora,
        dropout: tune.dropout,
        dora: tune.dora,
        pissa: tune.init == Init::Pissa,
        targets,
        layers,
    })
}

/// Tensors of an adapter's form (the adapter itself, a moment) under their PEFT names.
pub(crate) fn to_named(tensors: &LoraTensors, config: &ModelConfig, rank: usize) -> BTreeMap<String, AdapterTensor> {
    let mut named = BTreeMap::new();
    for (&(layer, linear), LoraPair { a, b, magnitude }) in tensors {
        let (out, inner) = config.adapter_shape(linear);
        let parts = [(Half::A, vec![rank, inner], a), (Half::B, vec![out, rank], b), (Half::Magnitude, vec![out], magnitude)];
        for (part, shape, values) in parts.into_iter().filter(|(_, _, values)| !values.is_empty()) {
            named.insert(tensor_name(config, layer, linear, part), AdapterTensor { shape, values: values.clone() });
        }
    }
    named
}

/// PEFT's name of one tensor of an adapter, and its shape.
pub(crate) fn named_part(config: &ModelConfig, rank: usize, (layer, linear, half): (usize, Linear, AdapterHalf)) -> (String, Vec<usize>) {
    let (out, inner) = config.adapter_shape(linear);
    let (half, shape) = match half {
        AdapterHalf::A => (Half::A, vec![rank, inner]),
        AdapterHalf::B => (Half::B, vec![out, rank]),
        AdapterHalf::Magnitude => (Half::Magnitude, vec![out]),
    };
    (tensor_name(config, layer, linear, half), shape)
}

/// The other way round; shapes are checked against the model.
pub(crate) fn from_named(mut named: BTreeMap<String, AdapterTensor>, config: &ModelConfig, rank: usize) -> Result<LoraTensors> {
    let shapes = named.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
    let pairs = pair(config, rank, &shapes)?;
    let mut take = |name: &str| named.remove(name).map(|tensor| tensor.values).unwrap_or_default();
    let mut filled = |found: &families::adapters::Pair| LoraPair {
        a: take(&found.a),
        b: take(&found.b),
        magnitude: found.magnitude.as_deref().map(&mut take).unwrap_or_default(),
    };
    Ok(pairs.iter().map(|found| ((found.layer, found.linear), filled(found))).collect())
}

/// An engine adapter as a PEFT folder's content: one that started as PiSSA as a LoRA of twice the rank, which any reader puts on
/// the base as it is.
pub(crate) fn to_peft(adapter: &Adapter, config: &ModelConfig, base_model: &str, lineage: Option<Value>) -> PeftAdapter {
    let adapter = &adapter.folded();
    let lora = &adapter.config;
    PeftAdapter {
        config: PeftConfig {
            base_model: Some(base_model.to_owned()),
            rank: lora.rank,
            alpha: f64::from(lora.alpha),
            dropout: f64::from(lora.dropout),
            rslora: lora.rslora,
            dora: lora.dora,
            target_modules: TargetModules::List(target_modules(config, &lora.targets)),
            layers: lora.layers.clone(),
        },
        tensors: to_named(&adapter.tensors, config, lora.rank),
        lineage,
    }
}

/// Reads a PEFT folder, or an adapter as a GGUF file, by whomever it was trained, for this model.
pub fn load(path: &Path, described: &Described) -> Result<Adapter> {
    if path.is_file() { crate::gguf_adapter::read(path, described) } else { read(path, &described.config) }
}

/// Reads a PEFT folder, by whomever it was trained, for this model.
pub fn read(folder: &Path, config: &ModelConfig) -> Result<Adapter> {
    from_peft(PeftAdapter::read(folder)?, config).map_err(|error| match error {
        Error::Family(source) => Error::OtherBase { source: source.into(), path: folder.to_owned() },
        error => error,
    })
}

/// A PEFT folder's content as an engine adapter for this model.
pub(crate) fn from_peft(peft: PeftAdapter, config: &ModelConfig) -> Result<Adapter> {
    let rank = peft.config.rank;
    let tensors = from_named(peft.tensors, config, rank)?;
    let mut adapted: Vec<Linear> = tensors.keys().map(|&(_, linear)| linear).collect();
    adapted.sort_unstable();
    adapted.dedup();
    let targets: Vec<Linear> = adapted.iter().flat_map(|&linear| config.fused_with(linear)).copied().collect();
    let mut layers: Vec<usize> = tensors.keys().map(|&(layer, _)| layer).collect();
    layers.dedup();
    let every_pair = adapted.len() * layers.len() == tensors.len();
    if !every_pair {
        return Err(Error::Mismatch {
            what: "the adapter's layers",
            given: format!("{} pairs", tensors.len()),
            expected: format!("the same {} linear layers in each of {} blocks", adapted.len(), layers.len()),
        });
    }
    // peft makes modules only in the blocks that are listed, and leaves out tensors of others.
    if let Some(listed) = &peft.config.layers
        && let Some(layer) = layers.iter().find(|layer| !listed.contains(layer))
    {
        return Err(Error::Mismatch {
            what: "the adapter's layers",
            given: format!("tensors of block {layer}"),
            expected: format!("those of layers_to_transform, {listed:?}"),
        });
    }
    let lora = LoraConfig {
        rank,
        alpha: peft.config.alpha as f32,
        rslora: peft.config.rslora,
        dora: peft.config.dora,
        pissa: false,
        dropout: peft.config.dropout as f32,
        targets,
        layers: (layers.len() < config.layers).then_some(layers),
    };
    let magnitudes = tensors.values().filter(|pair| !pair.magnitude.is_empty()).count();
    if magnitudes != if lora.dora { tensors.len() } else { 0 } {
        return Err(Error::Mismatch {
            what: "the adapter's magnitudes",
            given: format!("{magnitudes} for {} pairs", tensors.len()),
            expected: format!("{} with use_dora {}", if lora.dora { "one for each" } else { "none" }, lora.dora),
        });
    }
    Ok(Adapter { config: lora, tensors, start: LoraTensors::new() })
}
