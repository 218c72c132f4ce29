//! Bytes to documents, records and packed batches: knows no model, no disk.
//!
//! In the order data flows: [`read`] (bytes to [`Document`]s), [`mod@derive`] (their parts: chunks, questions, replies), [`RecordRecipe`] (documents to [`Record`]s),
//! [`clean`] (one record alone: form, [`mod@language`], quality, secrets), [`steps`] (duplicates, conflicts, empty, too long: kept or [`Rejected`] with a reason), [`near`] (near-duplicates), [`windows`] (passages in common),
//! [`split`] ([`TrainSet`] and [`HeldOut`] are different types), [`augment`] (copies of training records),
//! [`pack`] ([`TokenRow`]s to [`PackedBatch`]es).
#![forbid(unsafe_code)]

pub mod augment;
pub mod clean;
mod csv_row;
pub mod derive;
mod document;
pub mod error;
pub mod forms;
pub mod label_errors;
pub mod language;
pub mod near;
pub mod pack;
pub mod pipeline;
pub mod profile;
mod quoted;
pub mod read;
mod record;
pub mod spill;
pub mod split;
pub mod steps;
pub mod windows;
pub mod wire;

pub use csv_row::{csv_row, without_apostrophe};
pub use document::{Document, Origin, Value};
pub use error::DataError;
pub use pack::{PackPlan, PackedBatch, PackedEntry, PackedSegment, Step, TokenRow, TrainRows};
pub use profile::{Guess, Profile};
pub use read::{BrokenRows, Dataset, Format, Input, Item, Limits, ReadOptions, Reader, Shape};
pub use record::{Answer, Change, ColumnKind, FieldValue, Head, Lineage, Maker, Record, RecordRecipe, Recorded, Survey, WEIGHT_MAX};
pub use spill::{InMemory, Spill, SpillFile};
pub use split::{HeldOut, Overlap, Part, Portion, SourceRole, Split, SplitPlan, SplitReport, TrainSet};
pub use steps::{Reason, Rejected};
