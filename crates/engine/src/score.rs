//! Log-probabilities of what is already written: forward only, in a pass's own memory.

use crate::{
    batch::Batch,
    block::{Keys, Pass},
    device::Device,
    error::EngineError,
    model::{Kind, Model, Prepared},
    trainer::{LossSum, Objective},
};

impl<D: Device> Model<D> {
    /// ln p(target | everything before) of each entry of `batch`, with the attached adapter if there is one.
    ///
    /// # Errors
    /// A batch that is not sound or larger than planned; scoring that was not planned.
    pub fn log_probs(&mut self, batch: &Batch<'_>) -> Result<Vec<f32>, EngineError> {
        Ok(self.log_probs_exact(batch, 0)?.into_iter().map(|log_prob| log_prob as f32).collect())
    }

    /// Mean loss of `batches` under `objective`, without dropout.
    pub fn evaluate_loss(&mut self, objective: Objective, batches: &[Batch<'_>]) -> Result<f64, EngineError> {
        let (mut total, mut coefficients) = (LossSum::default(), Vec::new());
        for (index, batch) in batches.iter().enumerate() {
            let log_prob = self.log_probs_exact(batch, index)?;
            let sum = objective.evaluate(batch.entries, &log_prob, &mut coefficients);
            total = LossSum { loss: total.loss + sum.loss, weight: total.weight + sum.weight };
        }
        if total.weight > 0.0 { Ok(total.mean()) } else { Err(EngineError::Empty { what: "the loss of batch", index: 0 }) }
    }

    /// [`Model::log_probs`] in the device's own precision; `index` stands in the error.
    pub fn log_probs_exact(&mut self, batch: &Batch<'_>, index: usize) -> Result<Vec<f64>, EngineError> {
        let prepared = self.prepare(Kind::Scoring, batch, index)?;
        Ok(self.score(batch, &prepared, 0))
    }

    /// ln p of the entries of a prepared batch that stands after `prefix` cached rows.
    pub(crate) fn score(&mut self, batch: &Batch<'_>, prepared: &Prepared, prefix: usize) -> Vec<f64> {
        let pass = Pass {
            m: batch.tokens.len(),
            first: 0,
            positions: batch.positions,
            runs: &prepared.runs,
            dropout: None,
            keys: Keys::Own,
            needed: prepared.fewer(),
        };
        let cache = if prefix > 0 { self.workspace(Kind::Scoring).expect("prepared before").cache.clone() } else { Vec::new() };
        let keys = |layer: usize| match cache.get(layer) {
            Some(&(key, value)) => Keys::Prefix { rows: prefix, key, value },
            None => Keys::Own,
        };
        let stream = self.forward_blocks(Kind::Scoring, batch.tokens, pass, keys);
        self.forward_head(Kind::Scoring, stream, prepared);
        self.read_log_probs(Kind::Scoring, prepared.entries.len())
    }
}
