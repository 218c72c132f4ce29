//! What well-known licences of models ask of a company that fine-tunes and uses them, in one sentence each.
//!
//! A reminder for the plan and the report, not legal advice; the licence's own text decides. A licence that
//! is not in the table is shown by its name alone.

/// A licence that model cards name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Licence {
    /// As model cards and GGUF files spell it, in lower case.
    pub id: &'static str,
    /// Its usual name.
    pub name: &'static str,
    /// Whether a company may use it in its business.
    pub commercial: Commercial,
    /// What it asks.
    pub asks: &'static str,
    /// Where its text stands; empty where there is no one place.
    pub text: &'static str,
}

/// Whether a company may use it in its business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commercial {
    /// Yes.
    Yes,
    /// Yes, under conditions that somebody must read.
    Conditions,
    /// No.
    No,
}

const KEEP_NOTICES: &str = "keep the copyright and licence notices with copies of the weights";
const SEVEN_HUNDRED_MILLION: &str =
    "more than 700 million monthly users need a licence of their own; keep the notice, follow the acceptable use policy";

const LICENCES: [Licence; 17] = [
    licence(
        "apache-2.0",
        "Apache License 2.0",
        Commercial::Yes,
        "keep the copyright, licence and NOTICE files with copies of the weights; say that you changed them",
        "https://www.apache.org/licenses/LICENSE-2.0",
    ),
    licence("bsd-3-clause", "BSD 3-Clause", Commercial::Yes, KEEP_NOTICES, "https://opensource.org/license/bsd-3-clause"),
    licence(
        "bigscience-openrail-m",
        "BigScience OpenRAIL-M",
        Commercial::Conditions,
        "pass its list of forbidden uses on to your users",
        "https://huggingface.co/spaces/bigscience/license",
    ),
    licence(
        "cc-by-4.0",
        "Creative Commons Attribution 4.0",
        Commercial::Yes,
        "name the makers and say that you changed it",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
    ),
    licence(
        "cc-by-nc-4.0",
        "Creative Commons Attribution-NonCommercial 4.0",
        Commercial::No,
        "no commercial use",
        "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    ),
    licence(
        "cc-by-nc-sa-4.0",
        "Creative Commons Attribution-NonCommercial-ShareAlike 4.0",
        Commercial::No,
        "no commercial use",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
    ),
    licence(
        "cc-by-sa-4.0",
        "Creative Commons Attribution-ShareAlike 4.0",
        Commercial::Conditions,
        "name the makers; what you publish carries the same licence",
        "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
    ),
    licence(
        "gemma",
        "Gemma Terms of Use",
        Commercial::Conditions,
        "whoever gets a copy or a derivative gets the terms, the notice \"Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\", a note that you changed it, and a contract with the same limits of use; the Gemma Prohibited Use Policy holds for all use (https://ai.google.dev/gemma/prohibited_use_policy), and Google may restrict use that breaks it; models trained on its outputs to act like it are derivatives",
        "https://ai.google.dev/gemma/terms",
    ),
    licence(
        "llama2",
        "Llama 2 Community License",
        Commercial::Conditions,
        "do not use its output to improve other language models; more than 700 million monthly users need a licence of their own",
        "https://ai.meta.com/llama/license/",
    ),
    licence(
        "llama3",
        "Meta Llama 3 Community License",
        Commercial::Conditions,
        "show \"Built with Meta Llama 3\"; names of derived models that you share begin with \"Llama 3\"; more than 700 million monthly users need a licence of their own",
        "https://www.llama.com/llama3/license/",
    ),
    licence(
        "llama3.1",
        "Llama 3.1 Community License",
        Commercial::Conditions,
        "show \"Built with Llama\"; names of derived models that you share begin with \"Llama\"; more than 700 million monthly users need a licence of their own",
        "https://www.llama.com/llama3_1/license/",
    ),
    licence(
        "llama3.2",
        "Llama 3.2 Community License",
        Commercial::Conditions,
        "show \"Built with Llama\"; names of derived models that you share begin with \"Llama\"; more than 700 million monthly users need a licence of their own",
        "https://www.llama.com/llama3_2/license/",
    ),
    licence(
        "llama3.3",
        "Llama 3.3 Community License",
        Commercial::Conditions,
        "show \"Built with Llama\"; names of derived models that you share begin with \"Llama\"; more than 700 million monthly users need a licence of their own",
        "https://www.llama.com/llama3_3/license/",
    ),
    licence("llama4", "Llama 4 Community License", Commercial::Conditions, SEVEN_HUNDRED_MILLION, "https://www.llama.com/llama4/license/"),
    licence("mit", "MIT License", Commercial::Yes, KEEP_NOTICES, "https://opensource.org/license/mit"),
    licence("openrail", "OpenRAIL", Commercial::Conditions, "pass its list of forbidden uses on to your users", ""),
    licence("unlicense", "The Unlicense", Commercial::Yes, "nothing", "https://unlicense.org"),
];

const fn licence(id: &'static str, name: &'static str, commercial: Commercial, asks: &'static str, text: &'static str) -> Licence {
    Licence { id, name, commercial, asks, text }
}

impl Licence {
    /// Name, what it asks and where to read it, in one line.
    pub fn sentence(&self) -> String {
        let business = match self.commercial {
            Commercial::Yes => "commercial use allowed",
            Commercial::Conditions => "commercial use under conditions",
            Commercial::No => "not for commercial use",
        };
        let text = if self.text.is_empty() { String::new() } else { format!(" ({})", self.text) };
        format!("{}: {business}; {}{text}", self.name, self.asks)
    }
}

/// The licence of that name, however it is capitalised.
pub fn find(id: &str) -> Option<&'static Licence> {
    LICENCES.iter().find(|l| l.id.eq_ignore_ascii_case(id.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_found_however_they_are_spelt() {
        assert_eq!(find("Apache-2.0").map(|l| l.commercial), Some(Commercial::Yes));
        assert_eq!(find(" cc-by-nc-4.0 ").map(|l| l.commercial), Some(Commercial::No));
        assert_eq!(find("other"), None);
        let ids: std::collections::BTreeSet<_> = LICENCES.iter().map(|l| l.id).collect();
        assert_eq!(ids.len(), LICENCES.len());
        let gemma = find("gemma").unwrap().sentence();
        assert!(
            gemma.starts_with("Gemma Terms of Use: commercial use under conditions; ")
                && gemma.ends_with(" (https://ai.google.dev/gemma/terms)")
        );
        assert!(gemma.contains("Prohibited Use Policy"), "{gemma}");
    }
}
