//! `bench`: the work of a peer's script, done here and timed in the same way, so that ratios can be taken.
//!
//! Each module says what exactly is timed. Rates are those of one process on a machine that does nothing else.

pub mod choose;
pub mod fidelity;
pub mod gemm;
pub mod generate;
pub mod prepare;
pub mod sft;
pub mod train;

use std::path::{Path, PathBuf};

use data::{Format, Record, RecordRecipe};

use crate::error::{Error, Result};

/// Part of a data file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Rows of a table as a benchmark's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// CSV, TSV, JSON or JSONL.
    pub file: PathBuf,
    /// Column with the text.
    pub input: String,
    /// Column with the label.
    pub target: String,
    /// System message of every record.
    pub instruction: String,
}

impl Table {
    /// The records in file order.
    fn records(&self) -> Result<Vec<Record>> {
        let extension = self.file.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
        let format = Format::from_name(&extension).ok_or_else(|| Error::Mismatch {
            what: "the data file's extension",
            given: format!("{extension:?}"),
            expected: "csv, tsv, json or jsonl".into(),
        })?;
        let bytes = store::atomic::read(&self.file, FILE_BYTES_MAX)?;
        let dataset = data::read::read(&file_name(&self.file), &bytes, format, &data::read::LIMITS)?;
        let recipe = RecordRecipe {
            input: Some(self.input.clone()),
            plain: false,
            target: vec![self.target.clone()],
            instruction: (!self.instruction.is_empty()).then(|| self.instruction.clone()),
            group: None,
            stratify: None,
            weight: None,
            id: None,
        };
        Ok(recipe.apply(&dataset)?.records)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The first of `records`, exactly `count` of them.
fn first(mut records: Vec<Record>, count: usize) -> Result<Vec<Record>> {
    if count == 0 || records.len() < count {
        let expected = format!("from 1 to the file's {}", records.len());
        return Err(Error::Mismatch { what: "--records", given: count.to_string(), expected });
    }
    records.truncate(count);
    Ok(records)
}

/// The value in the middle of the sorted values, the upper one of two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_peers() {
        assert_eq!(median(&[3.0, 1.0, 2.0, 9.0]), 3.0); // seconds[len // 2] of the sorted
        assert_eq!(median(&[5.0]), 5.0);
    }
}
