//! The adapter as a PEFT folder, which reads back as the same numbers.

use std::path::{Path, PathBuf};

use store::peft::PeftAdapter;

use super::proof::Proof;
use super::{Exported, NOT_WHAT_WAS_WRITTEN, PROOF_FILE};
use crate::error::{Error, Result};
use crate::tune::adapter_hash;

/// Longest README that is taken along.
const README_BYTES_MAX: u64 = 1 << 20;
/// Highest rank that mistral.rs serves.
const MISTRAL_RS_RANK_MAX: usize = 256;

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
    let pending = store::atomic::PendingFolder::create(output)?;
    adapter.write_into(&pending)?;
    pending.write("README.md", readme.as_bytes())?;
    if PeftAdapter::read(pending.path())? != adapter {
        return Err(Error::Corrupt { what: "the exported adapter", reason: NOT_WHAT_WAS_WRITTEN.into(), path: output.to_owned() });
    }
    let proof = Proof::identical(adapter.tensors.len());
    pending.write(PROOF_FILE, &proof.to_json()?)?;
    let bytes = store::tree::bytes_below(pending.path())?;
    pending.commit()?;
    let servers = match adapter.config.rank {
        _ if adapter.config.dora => "", // neither of the two reads DoRA
        rank if rank > MISTRAL_RS_RANK_MAX => ", vLLM",
        _ => ", vLLM, mistral.rs",
    };
    Ok(Exported {
        path: output.to_owned(),
        format: "peft".into(),
        base_model: adapter.config.base_model.clone().unwrap_or_default(),
        rank: adapter.config.rank,
        alpha: adapter.config.alpha,
        tensors: adapter.tensors.len(),
        parameters: adapter.tensors.values().map(|tensor| tensor.values.len() as u64).sum(),
        bytes,
        adapter_hash: adapter_hash(output)?,
        proof,
        proof_path: output.join(PROOF_FILE),
        loads_with: format!("loads with peft{servers}, and `tunesmith chat BASE --adapter {}`", output.display()),
    })
}

fn adapter_folder(source: &Path) -> Result<PathBuf> {
    if source.join(store::peft::CONFIG_FILE).exists() {
        return Ok(source.to_owned());
    }
    let adapter = source.join("adapter");
    if adapter.exists() {
        return Ok(adapter);
    }
    Err(Error::NotYet { id: crate::runs::id(source), what: "adapter" })
}

/// Refuses an adapter that cannot have been trained.
pub(super) fn check_folder(folder: &Path) -> Result<()> {
    check(&PeftAdapter::read(folder)?, folder)
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
