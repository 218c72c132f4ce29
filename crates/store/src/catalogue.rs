//! Base models by name: where each comes from, who published it, and what is known about its bytes.

/// A base model that can be named in a run file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// What the user writes.
    pub name: &'static str,
    /// `pip:package==version/member`.
    pub source: &'static str,
    /// SHA-256 of the model file.
    pub sha256: &'static str,
    /// Length of the model file.
    pub bytes: u64,
    /// SPDX licence of the weights.
    pub licence: &'static str,
    /// Who made the model, and who published this file.
    pub publisher: &'static str,
    /// Whether the hash was published by the model's makers (else it is what we saw).
    pub publisher_hash_known: bool,
    /// Family, as in config.json's `model_type`.
    pub family: &'static str,
    /// One sentence for the user.
    pub note: &'static str,
}

/// All entries, in name order.
pub fn entries() -> &'static [CatalogueEntry] { todo!() }
/// The entry of that name.
pub fn find(name: &str) -> Option<&'static CatalogueEntry> { todo!() }
