//! How large the numbers of a description may be: above what any model has, below what overflows.
use engine::config::ModelConfig;

use crate::{FamilyError, Result};

pub(crate) const LAYERS: usize = 1024;
pub(crate) const WIDTH: usize = 1 << 20;
pub(crate) const HEADS: usize = 4096;
pub(crate) const HEAD_DIM: usize = 4096;
pub(crate) const VOCABULARY: usize = 1 << 24;
pub(crate) const CONTEXT: usize = 1 << 28;
pub(crate) const THETA: (f64, f64) = (1.0, 1e15);
pub(crate) const FACTOR: (f64, f64) = (1e-3, 1e6);
/// Soft caps, and what attention's scale is the root of one over.
pub(crate) const CAP: (f64, f64) = (1e-3, 1e6);
/// Elements of one weight matrix: beyond this no machine that runs this holds it.
const MATRIX: usize = 1 << 38;

/// `given` as a size from 1 to `high`.
pub(crate) fn size(key: &str, given: u64, high: usize) -> Result<usize> {
    usize::try_from(given).ok().filter(|n| (1..=high).contains(n)).ok_or_else(|| FamilyError::Range {
        key: key.to_owned(),
        given: given.to_string(),
        low: 1.0,
        high: high as f64,
    })
}

/// `given` if it lies in `low..=high`; NaN does not.
pub(crate) fn number(key: &str, given: f64, low: f64, high: f64) -> Result<f64> {
    if (low..=high).contains(&given) {
        Ok(given)
    } else {
        Err(FamilyError::Range { key: key.to_owned(), given: given.to_string(), low, high })
    }
}

/// `given / by`, which must leave nothing.
pub(crate) fn divisible(key: &str, given: usize, by_key: &str, by: usize) -> Result<usize> {
    if given.is_multiple_of(by) {
        Ok(given / by)
    } else {
        Err(FamilyError::NotDivisible { key: key.to_owned(), given, by_key: by_key.to_owned(), by })
    }
}

/// No matrix of the model may be beyond what can be held; each factor has its own limit already.
pub(crate) fn sizes(config: &ModelConfig) -> Result<()> {
    let widest = config.vocab.max(config.intermediate).max(config.heads * config.head_dim);
    match widest.checked_mul(config.hidden.max(config.heads * config.head_dim)) {
        Some(elements) if elements <= MATRIX => Ok(()),
        _ => Err(FamilyError::Range {
            key: "elements of the largest weight matrix".to_owned(),
            given: format!("{widest} x {}", config.hidden),
            low: 1.0,
            high: MATRIX as f64,
        }),
    }
}
