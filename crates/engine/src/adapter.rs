//! LoRA (Hu et al. 2021): y = W x + s · B A drop(x) beside a frozen W, as plain host data.
//!
//! `A` is `[rank, in]`, `B` is `[out, rank]`, s = alpha / rank, or alpha / √rank with rsLoRA (Kalajdzievski
//! 2023). `B` starts at zero, so that training starts exactly at the base.
//!
//! With DoRA (Liu et al. 2024) the layer is y = m / ‖V‖ · V x with V = W + s · B A, row by row: the magnitude m of each row is
//! trained beside A and B, and starts at the norm of W's row.
//!
//! With PiSSA (Meng et al. 2024) A and B start as the principal singular vectors of W, and the layer computes
//! W x + s · (B A − B₀ A₀) x, with the start (A₀, B₀) frozen: what the paper calls the residual W − s · B₀ A₀ is never formed, so that the base,
//! quantised or not, stays what it is, and the result is a LoRA of twice the rank on it, see [`Adapter::folded`].
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
    /// DoRA: a trained magnitude for each output.
    pub dora: bool,
    /// PiSSA: A and B start as the weight's principal singular vectors.
    pub pissa: bool,
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
        if self.pissa && self.dropout > 0.0 {
            return refuse("dropout of PiSSA, whose pairs are a part of the weights,", f64::from(self.dropout), "0");
        }
        if self.pissa && self.dora {
            return Err(EngineError::AdapterTwoMethods);
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

    /// Trained numbers: Σ rank · (in + out), and an output's magnitude each with DoRA.
    pub fn parameters(&self, config: &ModelConfig) -> usize {
        let of = |linear| {
            let (out, inner) = config.adapter_shape(linear);
            self.rank * (out + inner) + self.magnitudes(config, linear)
        };
        self.places(config).iter().map(|&(_, linear)| of(linear)).sum()
    }

    /// Numbers that follow from the trained ones after each step or stay as they began: DoRA's scales and their inverses,
    /// PiSSA's start.
    pub fn derived(&self, config: &ModelConfig) -> usize {
        let scales: usize = self.places(config).iter().map(|&(_, linear)| 2 * self.magnitudes(config, linear)).sum();
        if self.pissa { self.parameters(config) } else { scales }
    }

    /// Magnitudes of one layer.
    pub(crate) fn magnitudes(&self, config: &ModelConfig, linear: Linear) -> usize {
        if self.dora { config.adapter_shape(linear).0 } else { 0 }
    }

    /// Width of what lies between A and B: PiSSA's start has one of its own.
    pub(crate) fn low_width(&self) -> usize {
        if self.pissa { 2 * self.rank } else { self.rank }
    }
}

/// The two matrices beside one linear layer, or beside several that are one matrix in the model's files: the rows of B
/// then follow each other in the order of [`ModelConfig::fused_with`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraPair {
    /// `[rank, in]`.
    pub a: Vec<f32>,
    /// `[out, rank]`.
    pub b: Vec<f32>,
    /// `[out]` with DoRA, else empty.
    pub magnitude: Vec<f32>,
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
    /// With PiSSA where A and B began; else empty.
    pub start: LoraTensors,
}

impl Adapter {
    /// A fresh one of plain LoRA: `A` as `torch.nn.init.kaiming_uniform_(a=√5)`, which is uniform in ±1/√in; `B` zero.
    /// Each element is drawn by (seed, layer, linear layer, element) alone. What DoRA and PiSSA take from the weights is
    /// filled in by [`crate::model::Model::fresh_adapter`].
    pub fn init(lora: &LoraConfig, config: &ModelConfig, seed: u64) -> Result<Adapter, EngineError> {
        lora.validate(config)?;
        let pair = |(layer, linear): (usize, Linear)| {
            let (out, inner) = config.adapter_shape(linear);
            let key = random::key(seed, Purpose::AdapterInit, &[layer as u64, linear as u64]);
            let bound = 1.0 / (inner as f32).sqrt();
            let a = (0..lora.rank * inner).map(|i| (2.0 * random::uniform(key, i as u64) - 1.0) * bound).collect();
            ((layer, linear), LoraPair { a, b: vec![0.0; out * lora.rank], magnitude: Vec::new() })
        };
        let tensors = lora.places(config).into_iter().map(pair).collect();
        Ok(Adapter { config: lora.clone(), tensors, start: LoraTensors::new() })
    }

    /// The same as plain LoRA or DoRA on the base as it is: with PiSSA of twice the rank, A over A₀ and B beside −B₀; the factor
    /// stays what it was.
    pub fn folded(&self) -> Adapter {
        if !self.config.pissa {
            return self.clone();
        }
        let rank = self.config.rank;
        let pair = |(place, pair): (&(usize, Linear), &LoraPair)| {
            let start = &self.start[place];
            let a = [&pair.a[..], &start.a[..]].concat();
            let rows = pair.b.chunks_exact(rank).zip(start.b.chunks_exact(rank));
            let b = rows.flat_map(|(b, start)| b.iter().copied().chain(start.iter().map(|b| -b))).collect();
            (*place, LoraPair { a, b, magnitude: Vec::new() })
        };
        let alpha = self.config.alpha * if self.config.rslora { std::f32::consts::SQRT_2 } else { 2.0 };
        let config = LoraConfig { rank: 2 * rank, alpha, pissa: false, ..self.config.clone() };
        Adapter { config, tensors: self.tensors.iter().map(pair).collect(), start: LoraTensors::new() }
    }

    /// The other way round, for an adapter in training with `config`: what was folded comes back bit for bit.
    pub fn unfolded(self, config: &LoraConfig) -> Adapter {
        if !config.pissa || self.config.rank != 2 * config.rank {
            return self;
        }
        let rank = config.rank;
        let half = |pair: &LoraPair, second: bool| {
            let (first_a, second_a) = pair.a.split_at(pair.a.len() / 2);
            let rows = pair.b.chunks_exact(2 * rank).map(|row| row.split_at(rank));
            let b = rows.flat_map(|(b, start)| if second { start.iter().map(|b| -b).collect() } else { b.to_vec() }).collect();
            LoraPair { a: if second { second_a } else { first_a }.to_vec(), b, magnitude: Vec::new() }
        };
        let halves = |second| self.tensors.iter().map(|(place, pair)| (*place, half(pair, second))).collect();
        Adapter { config: config.clone(), tensors: halves(false), start: halves(true) }
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
        let starts = if self.config.pissa { places.len() } else { 0 };
        if self.start.len() != starts || !self.start.keys().all(|place| self.tensors.contains_key(place)) {
            return Err(EngineError::AdapterTargets { given: self.start.len(), expected: starts });
        }
        for (&(layer, linear), pair) in self.tensors.iter().chain(&self.start) {
            let ((out, inner), rank) = (config.adapter_shape(linear), self.config.rank);
            let magnitudes = self.config.magnitudes(config, linear);
            let parts =
                [("A", pair.a.len(), rank, inner), ("B", pair.b.len(), out, rank), ("magnitude", pair.magnitude.len(), 1, magnitudes)];
            for (part, given, rows, cols) in parts {
                if given != rows * cols {
                    return Err(EngineError::AdapterShape { layer, linear, part, given, rows, cols });
                }
            }
        }
        Ok(())
    }
}
