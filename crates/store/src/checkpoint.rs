//! Checkpoints: `checkpoints/step-000200/`, each a PEFT folder with the optimiser's state beside it, written as a whole.
//!
//! A checkpoint is there completely or not at all: its folder is renamed into place when every file in it
//! is on disk, and `checkpoint.json` holds the hash of each, checked on reading.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::atomic::{self, PendingFolder};
use crate::peft::{self, PeftAdapter};
use crate::safetensors::{self, SafetensorsFile};
use crate::{Dtype, Result, RunFolder, StoreError, run_folder};

const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
const HASHES_FILE: &str = "checkpoint.json";
const BEST_FILE: &str = "best.json";
const MAX_JSON_BYTES: u64 = 256 << 20;

/// Everything that is needed to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Optimiser steps done.
    pub step: u64,
    /// The adapter at that step.
    pub adapter: PeftAdapter,
    /// Optimiser moments, by any names.
    pub optimizer: StateTensors,
    /// Schedule, data position, counters: the caller's own JSON.
    pub state: Value,
}

/// Writes it as a whole folder; one of the same step is replaced.
pub fn write(run: &RunFolder, checkpoint: &Checkpoint) -> Result<PathBuf> {
    let place = folder(run.path(), checkpoint.step);
    let pending = PendingFolder::create(&place)?;
    checkpoint.adapter.write_into(&pending)?;
    write_tensors(&pending.path().join(OPTIMIZER_FILE), &checkpoint.optimizer)?;
    pending.write(STATE_FILE, format!("{:#}\n", checkpoint.state).as_bytes())?;
    let mut hashes = BTreeMap::new();
    for name in [peft::CONFIG_FILE, peft::WEIGHTS_FILE, peft::LINEAGE_FILE, OPTIMIZER_FILE, STATE_FILE] {
        let path = pending.path().join(name);
        if path.exists() {
            hashes.insert(name, atomic::sha256(&path, &mut |_| ())?.0);
        }
    }
    pending.write(HASHES_FILE, format!("{:#}\n", json!({"step": checkpoint.step, "sha256": hashes})).as_bytes())?;
    pending.commit()?;
    Ok(place)
}

/// A tensor as it lies in a checkpoint's file.
#[derive(Clone, Debug, PartialEq)]
pub struct StateTensor {
    /// F32, or U8 for codes.
    pub dtype: Dtype,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Little endian.
    pub bytes: Vec<u8>,
}

impl StateTensor {
    /// One of f32.
    pub fn floats(shape: Vec<usize>, values: &[f32]) -> StateTensor {
        StateTensor { dtype: Dtype::F32, shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    /// Its numbers, if they are f32.
    pub fn to_floats(&self) -> Option<Vec<f32>> {
        let numbers = || self.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (self.dtype == Dtype::F32).then(numbers)
    }
}

/// Tensors by name.
pub type StateTensors = BTreeMap<String, StateTensor>;

/// Writes a checkpoint of full fine-tuning as a whole folder: the caller's JSON, and a safetensors file for each part (the
/// model, its moments), which `tensors` gives one after the other, so that one of them is in memory at a time.
pub fn write_full(
    run: &RunFolder,
    step: u64,
    state: &Value,
    parts: &[&str],
    tensors: &mut dyn FnMut(&str) -> StateTensors,
) -> Result<PathBuf> {
    let place = folder(run.path(), step);
    let pending = PendingFolder::create(&place)?;
    let mut hashes = BTreeMap::new();
    for part in parts {
        let path = pending.path().join(part_file(part));
        write_tensors(&path, &tensors(part))?;
        hashes.insert(part_file(part), atomic::sha256(&path, &mut |_| ())?.0);
    }
    pending.write(STATE_FILE, format!("{state:#}\n").as_bytes())?;
    hashes.insert(STATE_FILE.to_owned(), atomic::sha256(&pending.path().join(STATE_FILE), &mut |_| ())?.0);
    pending.write(HASHES_FILE, format!("{:#}\n", json!({"step": step, "sha256": hashes})).as_bytes())?;
    pending.commit()?;
    Ok(place)
}

fn part_file(part: &str) -> String {
    format!("{part}.safetensors")
}

/// A safetensors file of these tensors.
fn write_tensors(path: &Path, tensors: &StateTensors) -> Result<()> {
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, StateTensor { dtype, shape, bytes })| safetensors::TensorData { name, dtype: *dtype, shape, bytes })
        .collect();
    safetensors::write(path, &views, &safetensors::pytorch_metadata())
}

fn read_tensors(path: &Path) -> Result<StateTensors> {
    let file = SafetensorsFile::open(path)?;
    let tensor = |info: &crate::TensorInfo| {
        Ok((info.name.clone(), StateTensor { dtype: info.dtype, shape: info.shape.clone(), bytes: file.read(&info.name)? }))
    };
    file.tensors().iter().map(tensor).collect()
}

/// A checkpoint of full fine-tuning, whose files were checked.
pub struct FullCheckpoint {
    /// Optimiser steps done.
    pub step: u64,
    /// The caller's JSON.
    pub state: Value,
    parts: BTreeMap<String, SafetensorsFile>,
}

impl FullCheckpoint {
    /// A tensor of one of the parts.
    pub fn tensor(&self, part: &str, name: &str) -> Result<Vec<f32>> {
        let missing = || StoreError::CheckpointFile { file: part_file(part), path: PathBuf::from(part) };
        self.parts.get(part).ok_or_else(missing)?.read_f32(name)
    }

    /// A tensor of one of the parts as it lies in its file; `None` where it is not there.
    pub fn state_tensor(&self, part: &str, name: &str) -> Result<Option<StateTensor>> {
        let file = self.parts.get(part).and_then(|file| Some((file, file.tensors().iter().find(|tensor| tensor.name == name)?)));
        let Some((file, info)) = file else { return Ok(None) };
        Ok(Some(StateTensor { dtype: info.dtype, shape: info.shape.clone(), bytes: file.read(name)? }))
    }

    /// Names of the tensors of a part.
    pub fn names(&self, part: &str) -> Vec<&str> {
        self.parts.get(part).map_or(Vec::new(), |file| file.tensors().iter().map(|tensor| tensor.name.as_str()).collect())
    }
}

/// Opens one of full fine-tuning; every file is checked against the hashes written with it.
pub fn read_full(folder: &Path, parts: &[&str]) -> Result<FullCheckpoint> {
    let written = atomic::read_object(&folder.join(HASHES_FILE), MAX_JSON_BYTES)?;
    let lacks = |file: &str| StoreError::CheckpointFile { file: file.into(), path: folder.to_path_buf() };
    let step = written["step"].as_u64().ok_or_else(|| lacks("its step"))?;
    let files = parts.iter().map(|part| part_file(part)).chain([STATE_FILE.to_owned()]);
    for file in files {
        let expected = written["sha256"][&file].as_str().ok_or_else(|| lacks(&file))?;
        let path = folder.join(&file);
        let (given, bytes) = atomic::sha256(&path, &mut |_| ())?;
        if *expected != given {
            return Err(StoreError::Hash { given, expected: expected.to_owned(), bytes, path });
        }
    }
    let open = |part: &&str| Ok(((*part).to_owned(), SafetensorsFile::open(&folder.join(part_file(part)))?));
    Ok(FullCheckpoint {
        step,
        state: atomic::read_json(&folder.join(STATE_FILE), MAX_JSON_BYTES)?,
        parts: parts.iter().map(open).collect::<Result<_>>()?,
    })
}

/// Reads one back; every file is checked against the hashes written with it.
pub fn read(folder: &Path) -> Result<Checkpoint> {
    let written = atomic::read_object(&folder.join(HASHES_FILE), MAX_JSON_BYTES)?;
    let lacks = |file: &str| StoreError::CheckpointFile { file: file.into(), path: folder.to_path_buf() };
    let step = written["step"].as_u64().ok_or_else(|| lacks("its step"))?;
    let hashes = written["sha256"].as_object().ok_or_else(|| lacks("its hashes"))?;
    for name in [peft::CONFIG_FILE, peft::WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE] {
        hashes.get(name).ok_or_else(|| lacks(name))?;
    }
    for name in [peft::CONFIG_FILE, peft::WEIGHTS_FILE, peft::LINEAGE_FILE, OPTIMIZER_FILE, STATE_FILE] {
        let Some(expected) = hashes.get(name) else { continue };
        let path = folder.join(name);
        let (given, bytes) = atomic::sha256(&path, &mut |_| ())?;
        if *expected != given {
            return Err(StoreError::Hash { given, expected: expected.as_str().unwrap_or("no text").into(), bytes, path });
        }
    }
    Ok(Checkpoint {
        step,
        adapter: PeftAdapter::read(folder)?,
        optimizer: read_tensors(&folder.join(OPTIMIZER_FILE))?,
        state: atomic::read_json(&folder.join(STATE_FILE), MAX_JSON_BYTES)?,
    })
}

/// Steps that have a checkpoint, ascending.
pub fn steps(run: &Path) -> Result<Vec<u64>> {
    let mut steps: Vec<u64> =
        run_folder::folders(&run.join("checkpoints"))?.iter().filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Folder of a step.
pub fn folder(run: &Path, step: u64) -> PathBuf {
    run.join("checkpoints").join(format!("step-{step:06}"))
}

/// The newest checkpoint.
pub fn last(run: &Path) -> Result<Option<u64>> {
    Ok(steps(run)?.last().copied())
}

/// The step marked as best.
pub fn best(run: &Path) -> Result<Option<u64>> {
    match atomic::read_object(&run.join("checkpoints").join(BEST_FILE), MAX_JSON_BYTES) {
        Ok(value) => Ok(value["step"].as_u64()),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Marks a step as best.
pub fn mark_best(run: &RunFolder, step: u64) -> Result<()> {
    let steps = steps(run.path())?;
    if !steps.contains(&step) {
        return Err(StoreError::NoCheckpoint { step, steps, path: run.path().to_path_buf() });
    }
    atomic::write_json(&run.path().join("checkpoints").join(BEST_FILE), &json!({"step": step}))
}

/// Removes all but the newest `keep` and the best.
pub fn prune(run: &RunFolder, keep: usize) -> Result<()> {
    let (steps, best) = (steps(run.path())?, best(run.path())?);
    for &step in steps.iter().rev().skip(keep).filter(|&&step| Some(step) != best) {
        atomic::remove_folder(&folder(run.path(), step))?;
    }
    Ok(())
}
