//! Checkpoints: `checkpoints/step-000200/`, each a PEFT folder with the optimiser's state beside it, written as a whole.
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::peft::{AdapterTensor, PeftAdapter};
use crate::{Result, RunFolder};
use std::collections::BTreeMap;

/// Everything that is needed to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Optimiser steps done.
    pub step: u64,
    /// The adapter at that step.
    pub adapter: PeftAdapter,
    /// Optimiser moments, by any names.
    pub optimizer: BTreeMap<String, AdapterTensor>,
    /// Schedule, data position, counters: the caller's own JSON.
    pub state: Value,
}

/// Writes it as a whole folder and makes it the last one.
pub fn write(run: &RunFolder, checkpoint: &Checkpoint) -> Result<PathBuf> { todo!() }
/// Reads one back; every file is checked against the hashes written with it.
pub fn read(folder: &Path) -> Result<Checkpoint> { todo!() }
/// Steps that have a checkpoint, ascending.
pub fn steps(run: &Path) -> Result<Vec<u64>> { todo!() }
/// Folder of a step.
pub fn folder(run: &Path, step: u64) -> PathBuf { todo!() }
/// The newest whole checkpoint.
pub fn last(run: &Path) -> Result<Option<u64>> { todo!() }
/// The step marked as best.
pub fn best(run: &Path) -> Result<Option<u64>> { todo!() }
/// Marks a step as best.
pub fn mark_best(run: &RunFolder, step: u64) -> Result<()> { todo!() }
/// Removes all but the newest `keep` and the best.
pub fn prune(run: &RunFolder, keep: usize) -> Result<()> { todo!() }
