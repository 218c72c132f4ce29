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
    ),
    licence("bsd-3-clause", "BSD 3-Clause", Commercial::Yes, KEEP_NOTICES),
    licence("bigscience-openrail-m", "BigScience OpenRAIL-M", Commercial::Conditions, "pass its list of forbidden uses on to your users"),
    licence("cc-by-4.0", "Creative Commons Attribution 4.0", Commercial::Yes, "name the makers and say that you changed it"),
    licence("cc-by-nc-4.0", "Creative Commons Attribution-NonCommercial 4.0", Commercial::No, "no commercial use"),
    licence("cc-by-nc-sa-4.0", "Creative Commons Attribution-NonCommercial-ShareAlike 4.0", Commercial::No, "no commercial use"),
    licence(
        "cc-by-sa-4.0",
        "Creative Commons Attribution-ShareAlike 4.0",
        Commercial::Conditions,
        "name the makers; what you publish carries the same licence",
    ),
    licence(
        "gemma",
        "Gemma Terms of Use",
        Commercial::Conditions,
        "pass the terms and the prohibited use policy on with every copy and derivative",
    ),
    licence(
        "llama2",
        "Llama 2 Community License",
        Commercial::Conditions,
        "do not use its output to improve other language models; more than 700 million monthly users need a licence of their own",
    ),
    licence(
        "llama3",
        "Meta Llama 3 Community License",
        Commercial::Conditions,
        "show \"Built with Meta Llama 3\"; names of derived models that you share begin with \"Llama 3\"; more than 700 million monthly users need a licence of their own",
    ),
    licence(
        "llama3.1",
        "Llama 3.1 Community License",
        Commercial::Conditions,
        "show \"Built with Llama\"; names of derived models that you share begin with \"Llama\"; more than 700 million monthly users need a licence of their own",
    ),
    licence(
        "llama3.2",
        "Llama 3.2 Community License",
        Commercial::Conditions,
        "show \"Built with Llama\"; names of derived models that you share begin with \"Llama\"; more than 700 million monthly users need a licence of their own",
    ),
    licence(
        "llama3.3",
        "Llama 3.3 Community License",
        Commercial::Conditions,
        "show \"Built with Llama\"; names of derived models that you share begin with \"Llama\"; more than 700 million monthly users need a licence of their own",
    ),
    licence("llama4", "Llama 4 Community License", Commercial::Conditions, SEVEN_HUNDRED_MILLION),
    licence("mit", "MIT License", Commercial::Yes, KEEP_NOTICES),
    licence("openrail", "OpenRAIL", Commercial::Conditions, "pass its list of forbidden uses on to your users"),
    licence("unlicense", "The Unlicense", Commercial::Yes, "nothing"),
];

const fn licence(id: &'static str, name: &'static str, commercial: Commercial, asks: &'static str) -> Licence {
    Licence { id, name, commercial, asks }
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
    }
}
