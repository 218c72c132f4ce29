//! Train and held-out records: different types, disjoint by group and by input.

use crate::{DataError, Record, TokenRow, TrainRows};

/// What a source is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRole { /// To be split.
    Split, /// All of it for training.
    Train, /// All of it for validation.
    Validation, /// All of it for the in-domain test.
    Test, /// Far out of distribution.
    FarOod }

/// How much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Portion { /// Of the records that are split.
    Fraction(f64), /// So many.
    Count(usize) }

/// How to split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitPlan { /// Seed.
    pub seed: u64, /// For the in-domain test.
    pub test: Portion, /// For validation.
    pub validation: Portion, /// Most records per stratum that train (None: all): few-shot experiments.
    pub train_per_stratum: Option<usize> }

/// What may be trained on.
#[derive(Clone, Debug)]
pub struct TrainSet { records: Vec<Record> }

impl TrainSet {
    /// The records.
    pub fn records(&self) -> &[Record] { &self.records }
    /// The records as ids, for [`crate::pack`].
    pub fn rows<E>(&self, render: impl FnMut(&Record) -> Result<TokenRow, E>) -> Result<TrainRows, E> { let _ = render; todo!() }
    /// Negative control: the same inputs, the answers dealt out anew by `seed`.
    pub fn with_shuffled_answers(&self, seed: u64) -> TrainSet { let _ = seed; todo!() }
}

/// What may only be measured on.
#[derive(Clone, Debug, Default)]
pub struct HeldOut { /// For choices during training.
    pub validation: Vec<Record>, /// For the verdict.
    pub in_domain: Vec<Record>, /// Things the model is not for.
    pub far_ood: Vec<Record> }

/// What the split did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SplitReport { /// Per stratum: name, train, validation, test.
    pub strata: Vec<(String, usize, usize, usize)>, /// Groups (0 without a group column).
    pub groups: usize, /// Test records whose group a split by single rows would have put into training too.
    pub naive_leaked_groups: usize, /// Test records whose exact input a split by single rows would have put into training too.
    pub naive_leaked_inputs: usize, /// Strata with too few records to be measured: name, records.
    pub small_strata: Vec<(String, usize)>, /// Records of the training set left out by `train_per_stratum`, or because the test source has their group or input.
    pub left_out: Vec<crate::Rejected> }

/// Train and held-out records.
#[derive(Clone, Debug)]
pub struct Split { /// To train on.
    pub train: TrainSet, /// To measure on.
    pub held_out: HeldOut, /// What was done.
    pub report: SplitReport }

impl Split {
    /// Splits. Deterministic by seed and content, not by row order.
    pub fn new(records: Vec<(Record, SourceRole)>, plan: &SplitPlan) -> Result<Self, DataError> { let _ = (records, plan); todo!() }
    /// Puts a saved split together again and proves anew that nothing is on both sides.
    pub fn assemble(train: Vec<Record>, held_out: HeldOut) -> Result<Self, DataError> { let _ = (train, held_out); todo!() }
}
