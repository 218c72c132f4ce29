//! The compute path by its name, as `[engine] compute` and `--compute` give it.

use engine::compute::ComputePath;

use crate::error::Result;

/// What `[engine] compute` and `--compute` may say.
pub const PATHS: &[&str] = &["exact", "fast"];

/// The path of that name, which is one of [`PATHS`]; the exact one for an empty text.
pub(crate) fn path(given: &str) -> Result<ComputePath> {
    if given.is_empty() {
        return Ok(ComputePath::Exact);
    }
    crate::spec::known("compute", given, PATHS)?;
    Ok(ComputePath::from_name(given).unwrap_or_default())
}
