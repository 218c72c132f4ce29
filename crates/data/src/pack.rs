//! Token rows to packed batches: records that begin alike share the run of their beginning.

use crate::DataError;
use std::ops::Range;

/// A record as ids.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRow { /// Its record.
    pub record_id: String, /// Its ids.
    pub ids: Vec<u32>, /// For each id the weight with which it counts as a target.
    pub loss_weights: Vec<f32> }

/// Rows that may be trained on: made by [`crate::TrainSet::rows`].
#[derive(Clone, Debug)]
pub struct TrainRows { rows: Vec<TokenRow> }

impl TrainRows {
    /// The rows.
    pub fn rows(&self) -> &[TokenRow] { &self.rows }
    /// Rows that belong to no data set, for benchmarks.
    pub fn synthetic(rows: Vec<TokenRow>) -> Self { Self { rows } }
}

/// How rows are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackPlan { /// Seed of order and draws.
    pub seed: u64, /// Records per optimiser step.
    pub records_per_step: usize, /// Most computed rows of a micro-batch.
    pub batch_rows: usize, /// Shortest beginning worth sharing, in tokens; None: nothing is shared.
    pub shared_min: Option<usize> }

/// A run of rows that continues its parent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSegment { /// Its rows.
    pub rows: Range<usize>, /// The segment that it continues.
    pub parent: Option<usize> }

/// One token whose probability counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PackedEntry { /// Row whose output predicts it.
    pub row: u32, /// The token.
    pub target: u32, /// Its weight.
    pub weight: f32, /// Index in `records`.
    pub sequence: u32 }

/// A micro-batch.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PackedBatch { /// Token of each row.
    pub tokens: Vec<u32>, /// Position of each row in its text.
    pub positions: Vec<u32>, /// Key of each row's random draws.
    pub draw_keys: Vec<u64>, /// Segments, parents first, tiling the rows.
    pub segments: Vec<PackedSegment>, /// Entries, ordered by row.
    pub entries: Vec<PackedEntry>, /// For each sequence its index in the rows given.
    pub records: Vec<usize>, /// Tokens of the sequences written out one by one; `tokens.len()` are computed.
    pub rendered_tokens: usize }

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Step { /// Its micro-batches.
    pub batches: Vec<PackedBatch>, /// Σ of entry weights.
    pub weight: f64 }

/// The order of an epoch: indices into `rows`.
pub fn order(rows: &TrainRows, seed: u64, epoch: u64) -> Vec<usize> { let _ = (rows, seed, epoch); todo!() }
/// Steps in an epoch.
pub fn steps_per_epoch(rows: &TrainRows, plan: &PackPlan) -> usize { rows.rows.len().div_ceil(plan.records_per_step.max(1)) }
/// Packs step `step` (from 0) of `epoch` (from 0).
pub fn step(rows: &TrainRows, order: &[usize], plan: &PackPlan, epoch: u64, step: usize) -> Result<Step, DataError> { let _ = (rows, order, plan, epoch, step); todo!() }
/// Packs rows for scoring (validation loss, labels, few-shot): no order, draw keys 0.
pub fn pack_for_scoring(rows: &[TokenRow], batch_rows: usize, shared_min: Option<usize>) -> Result<Vec<PackedBatch>, DataError> { let _ = (rows, batch_rows, shared_min); todo!() }
