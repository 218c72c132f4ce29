//! tokenizer.json, read and checked here so that the library never sees what it would panic on.
//!
//! The file is taken apart into [`Parts`]: the vocabulary and merges are checked against each other, the small parts
//! (normaliser, pre-tokeniser, decoder) must be of known kinds, and the post-processor is reduced to the ids that stand
//! around a document. Truncation and padding are left out: they belong to a caller, never to a tokenizer.

use crate::TextError;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Largest tokenizer.json (Gemma's has 33 MB).
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Ids are below this (the largest known vocabulary has 262,208).
pub(crate) const MAX_VOCAB: u64 = 1 << 20;
/// Most merges.
pub(crate) const MAX_MERGES: u64 = 1 << 21;
/// Most added tokens.
const MAX_ADDED: u64 = 1 << 16;
/// Longest token.
pub(crate) const MAX_TOKEN_BYTES: u64 = 4096;
/// Longest regular expression or replacement.
const MAX_PATTERN_BYTES: u64 = 16 << 10;
/// Most parts in a sequence of normalisers, pre-tokenisers or decoders.
const MAX_SEQUENCE: u64 = 64;
/// Deepest sequence in a sequence.
const MAX_SEQUENCE_DEPTH: usize = 4;

/// A token that is matched before the pre-tokeniser runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct AddedPart {
    pub(crate) id: u32,
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) single_word: bool,
    #[serde(default)]
    pub(crate) lstrip: bool,
    #[serde(default)]
    pub(crate) rstrip: bool,
    #[serde(default)]
    pub(crate) normalized: bool,
    #[serde(default)]
    pub(crate) special: bool,
}

/// A byte-pair tokenizer in parts that fit together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) vocab: HashMap<String, u32>,
    pub(crate) merges: Vec<(String, String)>,
    pub(crate) unk_token: Option<String>,
    pub(crate) fuse_unk: bool,
    pub(crate) byte_fallback: bool,
    pub(crate) ignore_merges: bool,
    pub(crate) added: Vec<AddedPart>,
    pub(crate) normalizer: Option<Value>,
    pub(crate) pre_tokenizer: Option<Value>,
    pub(crate) decoder: Option<Value>,
    pub(crate) around: Option<Around>,
}

/// Ids before and after a document.
pub(crate) type Around = (Vec<u32>, Vec<u32>);

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedPart>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
    #[serde(default)]
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    vocab: Vocab,
    #[serde(default)]
    merges: Merges,
}

/// A vocabulary as pairs in the file's order; `None` where it is a list (Unigram's form).
struct Vocab(Option<Vec<(String, u32)>>);

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vocab;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary: an object from tokens to ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, u32>()? {
                    if pairs.len() as u64 >= MAX_VOCAB {
                        return Err(serde::de::Error::custom(format!("more than {MAX_VOCAB} tokens")));
                    }
                    pairs.push(pair);
                }
                Ok(Vocab(Some(pairs)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocab, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocab(None))
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

/// Merges, each written `"a b"` or `["a", "b"]`.
#[derive(Default)]
struct Merges(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Merge {
            Pair(String, String),
            Line(String),
        }
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Merges;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
                let mut merges = Vec::new();
                while let Some(merge) = list.next_element::<Merge>()? {
                    if merges.len() as u64 >= MAX_MERGES {
                        return Err(serde::de::Error::custom(format!("more than {MAX_MERGES} merges")));
                    }
                    match merge {
                        Merge::Pair(left, right) => merges.push((left, right)),
                        Merge::Line(line) if line.starts_with("#version") => {}
                        Merge::Line(line) => match line.split_once(' ') {
                            Some((left, right)) if !right.contains(' ') => merges.push((left.into(), right.into())),
                            _ => return Err(serde::de::Error::custom("a merge that is not two tokens")),
                        },
                    }
                }
                Ok(Merges(merges))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl Parts {
    /// Reads and checks tokenizer.json.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, TextError> {
        limit("bytes", bytes.len() as u64, MAX_FILE_BYTES)?;
        let file: File =
            serde_json::from_slice(bytes).map_err(|error| TextError::Json { file: "tokenizer.json", reason: error.to_string() })?;
        let kind = file.model.kind.as_deref().unwrap_or("BPE");
        let pairs = match file.model.vocab.0 {
            Some(pairs) if kind == "BPE" => pairs,
            _ => return Err(unsupported("model", kind, "BPE")),
        };
        if file.model.dropout.is_some_and(|p| p != 0.0) {
            return Err(TextError::Field {
                field: "dropout",
                given: format!("{:?}", file.model.dropout),
                expected: "none: encoding the same text twice must give the same ids",
            });
        }
        for (field, value) in
            [("continuing_subword_prefix", &file.model.continuing_subword_prefix), ("end_of_word_suffix", &file.model.end_of_word_suffix)]
        {
            if value.as_deref().is_some_and(|text| !text.is_empty()) {
                return Err(TextError::Field { field, given: format!("{value:?}"), expected: "none" });
            }
        }
        check_component("normalizer", file.normalizer.as_ref(), NORMALIZERS, 0)?;
        check_component("pre_tokenizer", file.pre_tokenizer.as_ref(), PRE_TOKENIZERS, 0)?;
        check_component("decoder", file.decoder.as_ref(), DECODERS, 0)?;
        let mut parts = Parts {
            vocab: HashMap::with_capacity(pairs.len() + file.added_tokens.len()),
            merges: file.model.merges.0,
            unk_token: file.model.unk_token,
            fuse_unk: file.model.fuse_unk.unwrap_or(false),
            byte_fallback: file.model.byte_fallback.unwrap_or(false),
            ignore_merges: file.model.ignore_merges.unwrap_or(false),
            added: Vec::new(),
            normalizer: file.normalizer,
            pre_tokenizer: file.pre_tokenizer,
            decoder: file.decoder,
            around: None,
        };
        for (token, id) in pairs {
            parts.insert(token, id)?;
        }
        parts.check_ids()?;
        parts.check_merges()?;
        parts.add(file.added_tokens)?;
        parts.around = around(file.post_processor.as_ref(), &parts)?;
        Ok(parts)
    }

    /// Puts a token into the vocabulary.
    pub(crate) fn insert(&mut self, token: String, id: u32) -> Result<(), TextError> {
        limit("as a token id", id as u64, MAX_VOCAB - 1)?;
        limit("bytes in a token", token.len() as u64, MAX_TOKEN_BYTES)?;
        match self.vocab.get(&token) {
            Some(&first) if first != id => Err(TextError::DuplicateToken { token, first, second: id }),
            _ => {
                self.vocab.insert(token, id);
                Ok(())
            }
        }
    }

    /// No two tokens have one id.
    pub(crate) fn check_ids(&self) -> Result<(), TextError> {
        if self.vocab.is_empty() {
            return Err(TextError::Field { field: "vocab", given: "empty".into(), expected: "at least one token" });
        }
        let mut owners: HashMap<u32, &str> = HashMap::with_capacity(self.vocab.len());
        for (token, &id) in &self.vocab {
            if let Some(other) = owners.insert(id, token) {
                let (first, second) = if other < token.as_str() { (other, token.as_str()) } else { (token.as_str(), other) };
                return Err(TextError::DuplicateId { id, first: first.into(), second: second.into() });
            }
        }
        if let Some(unknown) = self.unk_token.as_ref().filter(|token| !self.vocab.contains_key(*token)) {
            return Err(TextError::Field { field: "unk_token", given: format!("{unknown:?}"), expected: "a token of the vocabulary" });
        }
        Ok(())
    }

    /// Both sides of every merge and what they make are tokens.
    pub(crate) fn check_merges(&self) -> Result<(), TextError> {
        limit("merges", self.merges.len() as u64, MAX_MERGES)?;
        let mut whole = String::new();
        for (merge, (left, right)) in self.merges.iter().enumerate() {
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            for token in [left, right, &whole] {
                if !self.vocab.contains_key(token.as_str()) {
                    return Err(TextError::Merge { merge, token: token.clone() });
                }
            }
        }
        Ok(())
    }

    /// Adds tokens that are matched in the raw text. Their ids are those given, with or without a place in the vocabulary.
    pub(crate) fn add(&mut self, added: Vec<AddedPart>) -> Result<(), TextError> {
        limit("added tokens", added.len() as u64, MAX_ADDED)?;
        let eats_following_space = added.iter().any(|token| token.rstrip);
        let mut seen = HashSet::new();
        for token in &added {
            if token.content.is_empty() {
                return Err(TextError::Field { field: "added token", given: "empty".into(), expected: "text" });
            }
            // Matches of such tokens overlap, and the library's bookkeeping goes backwards.
            if token.content.starts_with(char::is_whitespace) && (token.lstrip || eats_following_space) {
                return Err(TextError::Field {
                    field: "added token",
                    given: format!("{:?} beside tokens that strip spaces", token.content),
                    expected: "text that does not begin with a space",
                });
            }
            if !seen.insert(token.content.clone()) {
                let first = self.vocab.get(&token.content).copied().unwrap_or(token.id);
                return Err(TextError::DuplicateToken { token: token.content.clone(), first, second: token.id });
            }
            match self.vocab.get(&token.content) {
                Some(&id) if id != token.id => {
                    return Err(TextError::DuplicateToken { token: token.content.clone(), first: id, second: token.id });
                }
                Some(_) => {}
                None => self.insert(token.content.clone(), token.id)?,
            }
        }
        self.added = added;
        self.added.sort_by_key(|token| token.id);
        self.check_ids()
    }
}

/// An error if there is too much of something.
pub(crate) fn limit(what: &'static str, given: u64, limit: u64) -> Result<(), TextError> {
    if given > limit { Err(TextError::TooLarge { what, given, limit }) } else { Ok(()) }
}

fn unsupported(part: &'static str, found: &str, supported: &str) -> TextError {
    TextError::Unsupported { part, found: found.chars().take(40).collect(), supported: supported.into() }
}

/// A kind of component and the fields whose text it compiles or copies.
const NORMALIZERS: &[&str] = &["Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Replace", "Prepend", "Strip"];
const PRE_TOKENIZERS: &[&str] = &["Sequence", "ByteLevel", "Split", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit"];
const DECODERS: &[&str] = &["Sequence", "ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"];

/// A component is of a known kind, small, and has nothing that the library trips over.
fn check_component(part: &'static str, value: Option<&Value>, kinds: &[&str], depth: usize) -> Result<(), TextError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(()) };
    let kind = value.get("type").and_then(Value::as_str).unwrap_or("without a type");
    if !kinds.contains(&kind) || depth > MAX_SEQUENCE_DEPTH {
        return Err(unsupported(part, kind, &kinds.join(", ")));
    }
    if kind == "Sequence" {
        let list = ["normalizers", "pretokenizers", "decoders"].iter().find_map(|key| value.get(key)?.as_array());
        let list = list.ok_or_else(|| unsupported(part, "a Sequence without a list", &kinds.join(", ")))?;
        limit("parts in a sequence", list.len() as u64, MAX_SEQUENCE)?;
        return list.iter().try_for_each(|item| check_component(part, Some(item), kinds, depth + 1));
    }
    let pattern = value.get("pattern").and_then(|pattern| pattern.get("String").or_else(|| pattern.get("Regex")));
    for text in [pattern, value.get("content"), value.get("prepend")].into_iter().flatten() {
        let text = text.as_str().unwrap_or_default();
        limit("bytes in a pattern", text.len() as u64, MAX_PATTERN_BYTES)?;
    }
    if pattern.is_some_and(|text| text.as_str() == Some("")) {
        return Err(TextError::Field { field: "pattern", given: "empty".into(), expected: "text" });
    }
    // The library subtracts `stop` from a token's length without looking.
    if part == "decoder" && kind == "Strip" && value.get("stop").and_then(Value::as_u64) != Some(0) {
        return Err(TextError::Field {
            field: "Strip decoder's stop",
            given: value.get("stop").map(Value::to_string).unwrap_or_default(),
            expected: "0",
        });
    }
    Ok(())
}

/// The ids that a post-processor puts before and after a document.
fn around(value: Option<&Value>, parts: &Parts) -> Result<Option<Around>, TextError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    match value.get("type").and_then(Value::as_str).unwrap_or("without a type") {
        "ByteLevel" => Ok(None), // only trims offsets
        "Sequence" => {
            let list = value.get("processors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            limit("parts in a sequence", list.len() as u64, MAX_SEQUENCE)?;
            let mut found = None;
            for item in list {
                if item.get("type").and_then(Value::as_str) == Some("Sequence") {
                    return Err(unsupported("post_processor", "a Sequence in a Sequence", "ByteLevel, TemplateProcessing"));
                }
                found = around(Some(item), parts)?.or(found);
            }
            Ok(found)
        }
        "TemplateProcessing" => template_ids(value, parts).map(Some),
        kind => Err(unsupported("post_processor", kind, "ByteLevel, TemplateProcessing, Sequence")),
    }
}

/// `single` of a TemplateProcessing: special tokens before the text, the text once, special tokens after it.
fn template_ids(value: &Value, parts: &Parts) -> Result<Around, TextError> {
    let wrong = |given: String| TextError::Field {
        field: "post_processor's single",
        given,
        expected: "special tokens of the vocabulary around one text",
    };
    let pieces = value.get("single").and_then(Value::as_array).ok_or_else(|| wrong("no list".into()))?;
    limit("parts in a sequence", pieces.len() as u64, MAX_SEQUENCE)?;
    let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        if let Some(sequence) = piece.get("Sequence") {
            if seen || sequence.get("id").and_then(Value::as_str) != Some("A") {
                return Err(wrong("the text twice".into()));
            }
            seen = true;
            continue;
        }
        let name = piece.get("SpecialToken").and_then(|token| token.get("id")).and_then(Value::as_str);
        let name = name.ok_or_else(|| wrong("an unknown piece".into()))?;
        let ids = value.get("special_tokens").and_then(|map| map.get(name)?.get("ids")?.as_array());
        let ids = ids.ok_or_else(|| wrong(format!("{name:?} without ids")))?;
        limit("ids of a special token", ids.len() as u64, MAX_SEQUENCE)?;
        for id in ids {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.filter(|id| parts.vocab.values().any(|other| other == id));
            let id = id.ok_or_else(|| wrong(format!("{name:?} with an unknown id")))?;
            if seen { after.push(id) } else { before.push(id) }
        }
    }
    if seen { Ok((before, after)) } else { Err(wrong("no text".into())) }
}
