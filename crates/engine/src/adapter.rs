//! LoRA (Hu et al. 2021): y = W x + s · B A drop(x) beside a frozen W, as plain host data.
//!
//! `A` is `[rank, in]`, `B` is `[out, rank]`, s = alpha / rank, or alpha / √rank with rsLoRA (Kalajdzievski
//! 2023). `B` starts at zero, so that training starts exactly at the base.
//!
//! Where a family stores several layers as one matrix (Phi's `qkv_proj`), the adapter is that of the one matrix, as `peft`
//! trains it: the layers share A, and each has its rows of B.

use std::collections::BTreeMap;

use crate::{
    config::{Linear, ModelConfig},
    error::EngineError,
    random::{self, Purpose},
};

/// Ranks above this are full fine-tuning in disguise.
pub const MAX_RANK: usize = 4096;

/// What an adapter adapts and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Inner size of each pair.
    pub rank: usize,
    /// Numerator of the factor.
    pub alpha: f32,
    /// Divide by √rank instead of rank.
    pub rslora: bool,
    /// Probability that an input element is dropped in training.
    pub dropout: f32,
    /// Which linear layers.
    pub targets: Vec<Linear>,
    /// Which layers; `None`: all.
    pub layers: Option<Vec<usize>>,
}

impl LoraConfig {
    /// The factor on B A x.
    pub fn scale(&self) -> f32 {
        if self.rslora { self.alpha / (self.rank as f32).sqrt() } else { self.alpha / self.rank as f32 }
    }

    /// The pairs it names, in the order of the forward pass: fused layers have one pair, under the first of them.
    pub fn places(&self, config: &ModelConfig) -> Vec<(usize, Linear)> {
        let mut targets: Vec<Linear> = self.targets.iter().map(|&linear| config.fused_with(linear)[0]).collect();
        targets.sort_unstable();
        targets.dedup();
        let mut layers = self.layers.clone().unwrap_or_else(|| (0..config.layers).collect());
        layers.sort_unstable();
        layers.dedup();
        layers.iter().flat_map(|&layer| targets.iter().map(move |&linear| (layer, linear))).collect()
    }

    /// Refuses ranks, factors and layers that make no adapter of this model.
    pub fn validate(&self, config: &ModelConfig) -> Result<(), EngineError> {
        let refuse = |what, given, expected| Err(EngineError::AdapterConfig { what, given, expected });
        if self.rank == 0 || self.rank > MAX_RANK {
            return refuse("rank", self.rank as f64, "from 1 to 4096");
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse("alpha", f64::from(self.alpha), "a number above 0");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", f64::from(self.dropout), "at least 0 and below 1");
        }
        if let Some(&layer) = self.layers.iter().flatten().find(|&&layer| layer >= config.layers) {
            return Err(EngineError::AdapterLayer { layer, layers: config.layers });
        }
        for &given in &self.targets {
            if let Some(&missing) = config.fused_with(given).iter().find(|member| !self.targets.contains(member)) {
                return Err(EngineError::AdapterFused { given, missing });
            }
        }
        if self.places(config).is_empty() {
            return refuse("number of adapted layers", 0.0, "at least 1");
        }
        Ok(())
    }

    /// Trained numbers: Σ rank · (in + out).
    pub fn parameters(&self, config: &ModelConfig) -> usize {
        self.places(config)
            .iter()
            .map(|&(_, linear)| {
                let (out, inner) = config.adapter_shape(linear);
                self.rank * (out + inner)
            })
            .sum()
    }
}

/// The two matrices beside one linear layer, or beside several that are one matrix in the model's files: the rows of B
/// then follow each other in the order of [`ModelConfig::fused_with`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoraPair {
    /// `[rank, in]`.
    pub a: Vec<f32>,
    /// `[out, rank]`.
    pub b: Vec<f32>,
}

/// Pairs by layer and linear layer, see [`LoraConfig::places`]. Gradients and moments of an adapter have the same form.
pub type LoraTensors = BTreeMap<(usize, Linear), LoraPair>;

/// A LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// What it adapts.
    pub config: LoraConfig,
    /// Its numbers.
    pub tensors: LoraTensors,
}

impl Adapter {
    /// A fresh one: `A` as `torch.nn.init.kaiming_uniform_(a=√5)`, which is uniform in ±1/√in; `B` zero.
    /// Each element is drawn by (seed, layer, linear layer, element) alone.
    pub fn init(lora: &LoraConfig, config: &ModelConfig, seed: u64) -> Result<Adapter, EngineError> {
        lora.validate(config)?;
        let pair = |(layer, linear): (usize, Linear)| {
            let (out, inner) = config.adapter_shape(linear);
            let key = random::key(seed, Purpose::AdapterInit, &[layer as u64, linear as u64]);
            let bound = 1.0 / (inner as f32).sqrt();
            let a = (0..lora.rank * inner).map(|i| (2.0 * random::uniform(key, i as u64) - 1.0) * bound).collect();
            ((layer, linear), LoraPair { a, b: vec![0.0; out * lora.rank] })
        };
        Ok(Adapter { config: lora.clone(), tensors: lora.places(config).into_iter().map(pair).collect() })
    }

    /// Whether every pair is there, has the right size, and fits the model.
    pub fn validate(&self, config: &ModelConfig) -> Result<(), EngineError> {
        self.config.validate(config)?;
        let places = self.config.places(config);
        if let Some(&(layer, _)) = self.tensors.keys().find(|(layer, _)| *layer >= config.layers) {
            return Err(EngineError::AdapterLayer { layer, layers: config.layers });
        }
        if places.len() != self.tensors.len() || !places.iter().all(|place| self.tensors.contains_key(place)) {
            return Err(EngineError::AdapterTargets { given: self.tensors.len(), expected: places.len() });
        }
        for (&(layer, linear), pair) in &self.tensors {
            let ((out, inner), rank) = (config.adapter_shape(linear), self.config.rank);
            for (part, given, rows, cols) in [("A", pair.a.len(), rank, inner), ("B", pair.b.len(), out, rank)] {
                if given != rows * cols {
                    return Err(EngineError::AdapterShape { layer, linear, part, given, rows, cols });
                }
            }
        }
        Ok(())
    }
}
