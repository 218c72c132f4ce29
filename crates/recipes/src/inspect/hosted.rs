//! Models that are served by their vendors and have no files here: dated facts with their sources (`hosted_models.toml`).

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// What is known of a hosted model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hosted {
    /// Names under which it is asked for.
    pub names: Vec<String>,
    /// Who serves it.
    pub vendor: String,
    /// Whether it can be fine-tuned.
    pub tuning: Tuning,
    /// What is known.
    pub facts: Vec<HostedFact>,
    /// What was looked for and not found.
    pub unknown: Vec<String>,
}

/// Whether a hosted model can be fine-tuned by those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tuning {
    /// At the vendor, but not for long.
    Ends,
    /// In a cloud, under its terms.
    Elsewhere,
    /// No.
    No,
    /// Nobody of us knows.
    Unknown,
}

impl Tuning {
    /// In a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Tuning::Ends => "at its vendor, but that ends",
            Tuning::Elsewhere => "only in a cloud",
            Tuning::No => "no",
            Tuning::Unknown => "unknown",
        }
    }
}

/// A fact, when it was looked up, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HostedFact {
    /// What it is about.
    pub kind: String,
    /// The fact.
    pub text: String,
    /// Day on which it was looked up (ISO 8601).
    pub date: String,
    /// Where it stands.
    pub source: String,
}

#[derive(Deserialize)]
struct Catalogue {
    model: Vec<Hosted>,
}

/// All entries.
pub fn entries() -> &'static [Hosted] {
    static ENTRIES: OnceLock<Vec<Hosted>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let catalogue: Catalogue =
            toml::from_str(include_str!("hosted_models.toml")).expect("the committed catalogue is valid: a test reads it");
        catalogue.model
    })
}

/// The entry for a name: of the entries' names, the longest that is the name or its beginning up to a dash.
pub fn find(name: &str) -> Option<&'static Hosted> {
    let name = name.trim().to_lowercase();
    if name.starts_with("hf:") || name.starts_with("pip:") {
        return None; // these have files
    }
    let name = name.rsplit('/').next().unwrap_or_default(); // openai/gpt-4o, as some gateways write it
    let names = |known: &str| name == known || name.strip_prefix(known).is_some_and(|rest| rest.starts_with(['-', '@', ':', '.']));
    let length = |entry: &&Hosted| entry.names.iter().filter(|known| names(known)).map(String::len).max().unwrap_or(0);
    entries().iter().filter(|entry| length(entry) > 0).max_by_key(length)
}

/// Every name.
pub fn names() -> impl Iterator<Item = &'static str> {
    entries().iter().flat_map(|entry| entry.names.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_dated_and_sourced() {
        let mut seen = std::collections::BTreeSet::new();
        for entry in entries() {
            assert!(!entry.names.is_empty() && !entry.facts.is_empty() && !entry.vendor.is_empty());
            for name in &entry.names {
                assert!(seen.insert(name) && *name == name.to_lowercase(), "{name}");
            }
            for fact in &entry.facts {
                let date: Vec<usize> = fact.date.split('-').map(|part| if part.parse::<u32>().is_ok() { part.len() } else { 0 }).collect();
                assert_eq!(date, [4, 2, 2], "{fact:?}");
                assert!(fact.source.starts_with("https://") && !fact.text.is_empty(), "{fact:?}");
            }
        }
    }

    #[test]
    fn names_are_found_with_dates_and_variants() {
        let vendor = |name| find(name).map(|entry| (entry.vendor.as_str(), entry.tuning));
        assert_eq!(vendor("gpt-4o"), Some(("OpenAI", Tuning::Ends)));
        assert_eq!(vendor("GPT-4o-mini-2024-07-18"), Some(("OpenAI", Tuning::Ends)));
        assert_eq!(vendor("openai/gpt-4-turbo"), Some(("OpenAI", Tuning::No)));
        assert_eq!(vendor("claude"), Some(("Anthropic", Tuning::No)));
        assert_eq!(vendor("claude-3-haiku-20240307"), Some(("Anthropic", Tuning::Elsewhere)));
        assert_eq!(vendor("gemini-1.5-pro"), Some(("Google", Tuning::Elsewhere)));
        assert_eq!(vendor("smollm2-135m-instruct"), None);
        assert_eq!(vendor("gpt-40"), None);
        assert_eq!(vendor("hf:mistralai/Mistral-Small-24B"), None);
    }
}
