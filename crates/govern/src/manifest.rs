//! The hashes of everything that made a run.
//!
//! A manifest grows with the run: after preparation it lists the sources and records, after training the adapter, after
//! evaluation the report. Each version's own hash goes into the run's ledger ([`crate::Event::ManifestWritten`]); the last one counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, Hash};
use crate::error::Error;

/// The format this program writes.
pub const FORMAT: u32 = 1;

/// What part a file plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A file of the base model.
    Base,
    /// The tokenizer.
    Tokenizer,
    /// The chat template.
    Template,
    /// A file of the user's data, as it came.
    Source,
    /// Prepared documents, records or rejects.
    Records,
    /// The plan.
    Plan,
    /// A checkpoint.
    Checkpoint,
    /// The adapter.
    Adapter,
    /// What training measured.
    Metrics,
    /// Answers of the arms and the report.
    Report,
}

impl Role {
    /// After which stage the file never changes; completes "changed since …".
    #[must_use]
    pub fn fixed_since(self) -> &'static str {
        match self {
            Self::Base | Self::Tokenizer | Self::Template => "it was verified for this run",
            Self::Source | Self::Records => "preparation",
            Self::Plan => "the run was planned",
            Self::Checkpoint | Self::Adapter | Self::Metrics => "training",
            Self::Report => "evaluation",
        }
    }
}

/// A file and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// What part it plays.
    pub role: Role,
    /// Its hash.
    pub hash: Hash,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// What a run was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this manifest.
    pub format: u32,
    /// The run's id.
    pub run: String,
    /// Hash of the resolved plan (its canonical form, not its file).
    pub plan: Hash,
    /// The seed of everything random.
    pub seed: u64,
    /// The compute path: `exact` or `fast`.
    pub compute_path: String,
    /// Leaves of the reduction tree: part of what makes the bits.
    pub reduction_leaves: u32,
    /// Version of the program and of each format used.
    pub versions: BTreeMap<String, String>,
    /// Files by name: paths inside the run folder as they are; others with a prefix (`base/`, `source/`).
    pub artefacts: BTreeMap<String, Artefact>,
}

impl Manifest {
    /// A manifest without files yet.
    #[must_use]
    pub fn new(run: impl Into<String>, plan: Hash, seed: u64, compute_path: impl Into<String>, reduction_leaves: u32) -> Self {
        Self {
            format: FORMAT,
            run: run.into(),
            plan,
            seed,
            compute_path: compute_path.into(),
            reduction_leaves,
            versions: BTreeMap::new(),
            artefacts: BTreeMap::new(),
        }
    }

    /// Adds a file; refuses another hash under a name that is there already. A file that may change between stages (a report made anew) is put with
    /// [`Manifest::replace`].
    pub fn add(&mut self, name: impl Into<String>, artefact: Artefact) -> Result<(), Error> {
        let name = name.into();
        match self.artefacts.get(&name) {
            Some(known) if *known != artefact => {
                Err(Error::ArtefactDiffers { known: known.hash.to_string(), got: artefact.hash.to_string(), name })
            }
            _ => {
                self.artefacts.insert(name, artefact);
                Ok(())
            }
        }
    }

    /// Adds a file or replaces it.
    pub fn replace(&mut self, name: impl Into<String>, artefact: Artefact) {
        self.artefacts.insert(name.into(), artefact);
    }

    /// Its own hash, over the canonical form.
    pub fn hash(&self) -> Result<Hash, Error> {
        Hash::of_value(self)
    }

    /// The bytes of `manifest.json`: indented, keys sorted, with a newline at the end.
    pub fn to_json(&self) -> Result<String, Error> {
        canonical::pretty(self)
    }

    /// Reads `manifest.json`. Unknown fields are refused: they wouldn't be in the hash.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let refused = |error: &serde_json::Error| Error::NotAManifest { line: error.line(), why: error.to_string() };
        let Format { format } = serde_json::from_str(text).map_err(|error| refused(&error))?;
        if format > FORMAT {
            return Err(Error::ManifestFormat { known: FORMAT, got: format });
        }
        serde_json::from_str(text).map_err(|error| refused(&error))
    }
}

/// What is wrong with a file of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// Its hash differs.
    Changed,
    /// It isn't there.
    Missing,
    /// It is there, but the manifest doesn't list it.
    Unlisted,
}

/// Compares the manifest with the recomputed hashes of the files that were found: (name, what is wrong), in order of the names.
///
/// Hashes by different methods can't be compared: the caller recomputes each file by the method that the manifest has, otherwise it counts as changed.
#[must_use]
pub fn verify(manifest: &Manifest, found: &BTreeMap<String, Hash>) -> Vec<(String, FileState)> {
    let mut states = BTreeMap::new();
    for (name, artefact) in &manifest.artefacts {
        match found.get(name) {
            Some(hash) if *hash == artefact.hash => {}
            Some(_) => {
                states.insert(name.clone(), FileState::Changed);
            }
            None => {
                states.insert(name.clone(), FileState::Missing);
            }
        }
    }
    for name in found.keys() {
        if !manifest.artefacts.contains_key(name) {
            states.insert(name.clone(), FileState::Unlisted);
        }
    }
    states.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new("r1", Hash::of(b"plan"), 7, "exact", 4);
        manifest.versions.insert("tunesmith".to_owned(), "0.1.0".to_owned());
        for (name, role) in [("adapter/adapter_model.safetensors", Role::Adapter), ("source/tickets.csv", Role::Source)] {
            let hash = Hash::of(name.as_bytes());
            manifest.add(name, Artefact { role, hash, bytes: 9 }).unwrap();
        }
        manifest
    }

    #[test]
    fn reads_back_with_the_same_hash() {
        let manifest = manifest();
        let text = manifest.to_json().unwrap();
        let again = Manifest::from_json(&text).unwrap();
        assert_eq!(again, manifest);
        assert_eq!(again.hash(), manifest.hash());
        assert_eq!(again.to_json().unwrap(), text);
        // Each part is in the hash.
        let mut other = manifest.clone();
        other.seed = 8;
        assert_ne!(other.hash(), manifest.hash());
    }

    #[test]
    fn what_is_not_a_manifest() {
        let text = manifest().to_json().unwrap();
        assert!(matches!(Manifest::from_json("{}"), Err(Error::NotAManifest { .. })));
        assert!(matches!(Manifest::from_json(&text[..50]), Err(Error::NotAManifest { .. })));
        let extra = text.replacen('{', "{\"note\": 1,", 1);
        assert!(matches!(Manifest::from_json(&extra), Err(Error::NotAManifest { .. })));
        let newer = text.replace("\"format\": 1", "\"format\": 2");
        assert_eq!(Manifest::from_json(&newer), Err(Error::ManifestFormat { known: 1, got: 2 }));
    }

    #[test]
    fn files_are_compared_by_name() {
        let manifest = manifest();
        let mut found: BTreeMap<String, Hash> = manifest.artefacts.iter().map(|(name, artefact)| (name.clone(), artefact.hash)).collect();
        assert!(verify(&manifest, &found).is_empty());
        found.insert("source/tickets.csv".to_owned(), Hash::of(b"edited"));
        found.insert("adapter/extra".to_owned(), Hash::of(b"x"));
        found.remove("adapter/adapter_model.safetensors");
        assert_eq!(
            verify(&manifest, &found),
            [
                ("adapter/adapter_model.safetensors".to_owned(), FileState::Missing),
                ("adapter/extra".to_owned(), FileState::Unlisted),
                ("source/tickets.csv".to_owned(), FileState::Changed),
            ]
        );
    }

    #[test]
    fn one_name_one_file() {
        let mut manifest = manifest();
        let other = Artefact { role: Role::Source, hash: Hash::of(b"other"), bytes: 5 };
        assert!(matches!(manifest.add("source/tickets.csv", other), Err(Error::ArtefactDiffers { .. })));
        manifest.replace("source/tickets.csv", other);
        assert!(manifest.add("source/tickets.csv", other).is_ok());
    }
}
