//! Bytes to documents, records and packed batches: knows no model, no disk.
//!
//! In the order data flows: [`read`] (bytes to [`Document`]s), [`RecordRecipe`] (documents to [`Record`]s),
//! [`steps`] (duplicates, conflicts, empty, too long: kept or [`Rejected`] with a reason), [`split`]
//! ([`TrainSet`] and [`HeldOut`] are different types), [`pack`] ([`TokenRow`]s to [`PackedBatch`]es).
#![forbid(unsafe_code)]

mod document;
pub mod error;
pub mod pack;
pub mod profile;
pub mod read;
mod record;
pub mod split;
pub mod steps;

pub use document::{Document, Origin, Value};
pub use error::DataError;
pub use pack::{PackPlan, PackedBatch, PackedEntry, PackedSegment, Step, TokenRow, TrainRows};
pub use profile::{Guess, Profile};
pub use read::{BrokenRows, Dataset, Format, Input, Item, Limits, ReadOptions, Reader, Shape};
pub use record::{Answer, ColumnKind, FieldValue, Lineage, Record, RecordRecipe, Recorded};
pub use split::{HeldOut, Portion, SourceRole, Split, SplitPlan, SplitReport, TrainSet};
pub use steps::{Reason, Rejected};
