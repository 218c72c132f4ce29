//! `export`: the adapter of a run as a PEFT folder that `peft` and vLLM load, checked before and after.

use std::path::{Path, PathBuf};

use serde::Serialize;
use store::peft::PeftAdapter;

use crate::error::{Error, Result};
use crate::tune::adapter_hash;

/// What was exported.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exported {
    /// The folder.
    pub path: PathBuf,
    /// Always `peft`.
    pub format: &'static str,
    /// The base it belongs to; empty where the adapter does not say.
    pub base_model: String,
    /// LoRA rank.
    pub rank: usize,
    /// LoRA alpha.
    pub alpha: f64,
    /// Tensors.
    pub tensors: usize,
    /// Trained numbers.
    pub parameters: u64,
    /// blake3 of its weights.
    pub adapter_hash: String,
}

/// Longest README that is taken along.
const README_BYTES_MAX: u64 = 1 << 20;

/// Writes the adapter of `source`, a run folder or a PEFT folder, to `output`, which must not exist.
///
/// # Errors
/// An adapter that cannot have been trained (all B zero, or numbers that are not finite), or that does not read back.
pub fn export_peft(source: &Path, output: &Path) -> Result<Exported> {
    let folder = adapter_folder(source)?;
    if output.exists() {
        return Err(Error::Exists {
            what: "the folder to write",
            hint: "give one that is not there: `--output DIR`",
            path: output.to_owned(),
        });
    }
    let adapter = PeftAdapter::read(&folder)?;
    check(&adapter, &folder)?;
    let readme = match store::atomic::read_text(&folder.join("README.md"), README_BYTES_MAX) {
        Ok(readme) => readme,
        Err(store::StoreError::Missing { .. }) => String::new(),
        Err(error) => return Err(error.into()),
    };
    adapter.write(output, &readme)?;
    if PeftAdapter::read(output)? != adapter {
        return Err(Error::Corrupt { what: "the exported adapter", reason: "it is not what was written".into(), path: output.to_owned() });
    }
    Ok(Exported {
        path: output.to_owned(),
        format: "peft",
        base_model: adapter.config.base_model.clone().unwrap_or_default(),
        rank: adapter.config.rank,
        alpha: adapter.config.alpha,
        tensors: adapter.tensors.len(),
        parameters: adapter.tensors.values().map(|tensor| tensor.values.len() as u64).sum(),
        adapter_hash: adapter_hash(output)?,
    })
}

fn adapter_folder(source: &Path) -> Result<PathBuf> {
    if source.join("adapter_config.json").exists() {
        return Ok(source.to_owned());
    }
    let adapter = source.join("adapter");
    if adapter.exists() {
        return Ok(adapter);
    }
    Err(Error::NotYet { id: crate::runs::id(source), what: "adapter" })
}

/// A trained adapter has finite numbers and some B that is not zero: with all B zero it is the base.
fn check(adapter: &PeftAdapter, folder: &Path) -> Result<()> {
    let refused = |fault| Err(Error::Adapter { fault, path: folder.to_owned() });
    if adapter.tensors.values().flat_map(|tensor| &tensor.values).any(|value| !value.is_finite()) {
        return refused("has numbers that are not finite");
    }
    let of_b = adapter.tensors.iter().filter(|(name, _)| name.contains("lora_B"));
    if of_b.flat_map(|(_, tensor)| &tensor.values).all(|value| *value == 0.0) {
        return refused("changes nothing: all of its B matrices are zero");
    }
    Ok(())
}
