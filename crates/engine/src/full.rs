//! Full fine-tuning: the model's own tensors are trained, all of them or those that a configuration leaves unfrozen.
//!
//! Trained matrices are held as f32 rows on the device and are what passes read; gains and biases are f32 anyway. Gradient sums and
//! AdamW's moments are arenas in which the trained tensors lie one after the other, in the order of
//! [`ModelConfig::tensor_names`]. A head that is the embedding is one tensor with one gradient: the head adds to it first, the
//! rows of the embedding at the end of the backward.

use std::{collections::BTreeMap, ops::Range};

use crate::{
    block::{BlockGradients, Learned},
    config::{Linear, LinearSet, ModelConfig, TensorName},
    device::Slot,
    error::EngineError,
};

/// Which tensors of a model are trained.
#[derive(Clone, Debug, PartialEq)]
pub struct FullConfig {
    /// Blocks; `None`: all.
    pub layers: Option<Vec<usize>>,
    /// Linear layers of these blocks.
    pub targets: Vec<Linear>,
    /// The biases of these linear layers.
    pub biases: bool,
    /// The gains of these blocks' norms, and of the final norm.
    pub norms: bool,
    /// Embedding and head.
    pub embeddings: bool,
}

impl FullConfig {
    /// Everything.
    pub fn all() -> FullConfig {
        FullConfig { layers: None, targets: Linear::ALL.to_vec(), biases: true, norms: true, embeddings: true }
    }

    /// Whether a tensor is trained.
    pub fn trains(&self, name: TensorName) -> bool {
        let block = |layer: usize| self.layers.as_ref().is_none_or(|layers| layers.contains(&layer));
        match name {
            TensorName::Embedding | TensorName::Head => self.embeddings,
            TensorName::FinalNorm => self.norms,
            TensorName::Linear(layer, linear) => block(layer) && self.targets.contains(&linear),
            TensorName::Bias(layer, linear) => block(layer) && self.biases && self.targets.contains(&linear),
            TensorName::AttentionNorm(layer)
            | TensorName::MlpNorm(layer)
            | TensorName::QueryNorm(layer)
            | TensorName::KeyNorm(layer)
            | TensorName::PostAttentionNorm(layer)
            | TensorName::PostMlpNorm(layer) => block(layer) && self.norms,
        }
    }

    /// The trained tensors, in the model's order.
    pub fn names(&self, config: &ModelConfig) -> Vec<TensorName> {
        config.tensor_names().into_iter().filter(|&name| self.trains(name)).collect()
    }

    /// Trained numbers.
    pub fn parameters(&self, config: &ModelConfig) -> usize {
        let size = |name| {
            let (rows, cols) = config.tensor_shape(name);
            rows * cols
        };
        self.names(config).into_iter().map(size).sum()
    }

    /// Refuses what names no tensor of the model.
    pub fn validate(&self, config: &ModelConfig) -> Result<(), EngineError> {
        if let Some(&layer) = self.layers.iter().flatten().find(|&&layer| layer >= config.layers) {
            return Err(EngineError::TrainedLayer { layer, layers: config.layers });
        }
        // The final norm alone would need no block.
        if self.names(config).is_empty() || self.layers.as_ref().is_some_and(Vec::is_empty) {
            return Err(EngineError::NothingTrained);
        }
        Ok(())
    }

    /// What of block `layer` is trained.
    pub(crate) fn learned(&self, config: &ModelConfig, layer: usize) -> Learned {
        let of = |name: fn(usize, Linear) -> TensorName| {
            let trained = Linear::ALL.into_iter().filter(|&linear| self.trains(name(layer, linear)));
            trained.fold(LinearSet::EMPTY, LinearSet::with)
        };
        let biases = of(TensorName::Bias);
        let biased = Linear::ALL.into_iter().filter(|&linear| biases.has(linear) && config.biases.has(linear));
        Learned {
            weights: of(TensorName::Linear),
            biases: biased.fold(LinearSet::EMPTY, LinearSet::with),
            gains: self.trains(TensorName::AttentionNorm(layer)),
        }
    }
}

/// Where trained tensors lie in an arena of gradients or moments.
pub(crate) struct FullPlaces {
    places: BTreeMap<TensorName, Range<usize>>,
    pub(crate) len: usize,
}

impl FullPlaces {
    pub(crate) fn of(full: &FullConfig, config: &ModelConfig) -> FullPlaces {
        let (mut places, mut len) = (BTreeMap::new(), 0);
        for name in full.names(config) {
            let (rows, cols) = config.tensor_shape(name);
            places.insert(name, len..len + rows * cols);
            len += rows * cols;
        }
        FullPlaces { places, len }
    }

    /// A tensor's place, if it is trained.
    pub(crate) fn part(&self, slot: Slot, name: TensorName) -> Option<Slot> {
        self.places.get(&name).map(|range| slot.part(range.start, range.len()))
    }

    /// The same as a range.
    pub(crate) fn range(&self, name: TensorName) -> Option<Range<usize>> {
        self.places.get(&name).cloned()
    }

    /// The trained tensors, with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TensorName, Range<usize>)> {
        self.places.iter().map(|(&name, range)| (name, range.clone()))
    }

    /// Where the gradients of a block go.
    pub(crate) fn block(&self, slot: Slot, layer: usize) -> BlockGradients {
        let at = |name| self.part(slot, name);
        BlockGradients {
            linears: Linear::ALL.map(|linear| at(TensorName::Linear(layer, linear))),
            biases: Linear::ALL.map(|linear| at(TensorName::Bias(layer, linear))),
            attention: at(TensorName::AttentionNorm(layer)),
            mlp: at(TensorName::MlpNorm(layer)),
            query: at(TensorName::QueryNorm(layer)),
            key: at(TensorName::KeyNorm(layer)),
            post_attention: at(TensorName::PostAttentionNorm(layer)),
            post_mlp: at(TensorName::PostMlpNorm(layer)),
        }
    }
}
