//! tokenizer.json in a GGUF file's terms, for a model that is written as one.
//!
//! A GGUF file does not say how text is cut into words, but names one of llama.cpp's ways; it has no normaliser, and for
//! SentencePiece's vocabularies scores instead of merges. So what is made here is proved: the way of cutting is the one of
//! the known ways that cuts [`PROBES`] alike, and the vocabulary made must give the probes' ids. A tokenizer that cannot be
//! said is refused.

use crate::gguf::{CONTROL, GgufVocabulary, PRE_TOKENIZERS, USER_DEFINED, pre_tokenizer};
use crate::spm::{BYTE, UNUSED};
use crate::tokenizer_json::Parts;
use crate::{Specials, TextError, Tokenizer, TokenizerConfig};
use serde_json::Value;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper};

/// Texts on which llama.cpp's ways of cutting differ from each other. All are composed: Unicode's normal form C, which some
/// tokenizer.json ask for and llama.cpp leaves out, changes none.
const PROBES: [&str; 15] = [
    "Hello, World! How's it going? I'LL say it's fine; they've WE'RE n't I'd 'S",
    "In 2026 there were 1234567 of 3.14 and 12 at 99%, 0x1F, ½ and ²; ٣٤٥",
    "line\n\nline\r\n\r\n  indented\tline   \n \n\t\tx  ",
    "  two spaces   three    four",
    "x   1    22\n\n  333 4444\t\t5  .  ,6   ab7  8c   9",
    "camelCase XMLHttpRequest ABCdef iPhone OpenAI's GPT4o ÄÖÜäöü Ĳssel",
    "x\u{301}y\u{308} नमस्ते สวัสดี اَلسَّلَامُ",
    "汉字かなカナ한국어 混合text和123数字",
    "naïve façade — “quotes” … «guillemets» don’t",
    "a_b-c/d\\e@f.com https://example.org/a?b=c&d=e#f $10 +1 <=> ^~`| {[(x)]}",
    "def f(x):\n    return x**2  # comment\n\n\nclass A: pass",
    "👩‍👩‍👧 🙂🙂 ✔️ ",
    "\u{a0}no-break\u{a0}space\u{3000}ideographic \u{2028}line",
    "!!!???...;;; --- === *** /// ~~~ \"\" ''",
    " a b c d e f g 1 2 3 , . ! ?\n",
];

impl GgufVocabulary {
    /// The tokenizer of tokenizer.json (and tokenizer_config.json) as a GGUF file has it, for a model with `vocab` rows in its
    /// embedding: those that no token names are filled with tokens that never occur.
    ///
    /// # Errors
    /// [`TextError::Unsupported`] where llama.cpp would give other ids.
    pub fn from_json(bytes: &[u8], config: Option<&TokenizerConfig>, vocab: usize) -> Result<Self, TextError> {
        let original = Tokenizer::from_json(bytes, config)?;
        let parts = Parts::from_json(bytes)?;
        let config = config.cloned().unwrap_or_default();
        let mut common = GgufVocabulary {
            tokens: (0..vocab).map(|id| format!("[PAD{id}]")).collect(),
            token_types: vec![UNUSED; vocab],
            bos: original.bos(),
            eos: original.eos(),
            pad: original.pad(),
            unk: parts.unk_token.as_ref().or(config.unk_token.as_ref()).and_then(|token| parts.vocab.get(token)).copied(),
            ..GgufVocabulary::default()
        };
        for (token, &id) in &parts.vocab {
            let id = id as usize;
            let beyond = || TextError::Field { field: "highest id", given: id.to_string(), expected: "below the rows of the embedding" };
            *common.tokens.get_mut(id).ok_or_else(beyond)? = token.clone();
            common.token_types[id] = NORMAL;
        }
        for token in &parts.added {
            common.token_types[token.id as usize] = if token.special { CONTROL } else { USER_DEFINED };
        }
        (common.add_bos, common.add_eos) = around(&original)?;
        let made = if mentions(parts.pre_tokenizer.as_ref(), "ByteLevel") { byte_level(&parts, common)? } else { pieces(&parts, common)? };
        made.into_iter().find(|made| Tokenizer::from_gguf(made).is_ok_and(|made| agree(&original, &made))).ok_or_else(|| {
            TextError::Unsupported {
                part: "way from text to ids",
                found: "not what llama.cpp would make of it".into(),
                supported: "byte-level BPE and SentencePiece's BPE as llama.cpp reads them".into(),
            }
        })
    }
}

/// `token_type` of an ordinary token.
const NORMAL: i32 = 1;
/// `token_type` of the token for what nobody knows.
const UNKNOWN: i32 = crate::gguf::UNKNOWN;

/// Whether begin and end tokens stand around a document: nothing else can be said.
fn around(tokenizer: &Tokenizer) -> Result<(Option<bool>, Option<bool>), TextError> {
    let (begin, end) = tokenizer.around_document();
    let said = |given: &[u32], token: Option<u32>| match given {
        [] => Some(false),
        [id] if Some(*id) == token => Some(true),
        _ => None,
    };
    match (said(begin, tokenizer.bos()), said(end, tokenizer.eos())) {
        (Some(begin), Some(end)) => Ok((Some(begin), Some(end))),
        _ => Err(TextError::Unsupported {
            part: "post_processor",
            found: format!("ids {begin:?} before and {end:?} after a text"),
            supported: "the begin token before it and the end token after it".into(),
        }),
    }
}

/// Whether a component is of a kind, or has one in its sequence.
fn mentions(component: Option<&Value>, kind: &str) -> bool {
    let Some(component) = component else { return false };
    let inner = ["normalizers", "pretokenizers"].iter().find_map(|key| component.get(key)?.as_array());
    component["type"] == kind || inner.is_some_and(|list| list.iter().any(|item| mentions(Some(item), kind)))
}

fn byte_level(parts: &Parts, common: GgufVocabulary) -> Result<Vec<GgufVocabulary>, TextError> {
    if let Some(normalizer) = parts.normalizer.as_ref().filter(|normalizer| !normalizer.is_null() && normalizer["type"] != "NFC") {
        return Err(TextError::Unsupported {
            part: "normalizer",
            found: normalizer["type"].as_str().unwrap_or_default().chars().take(40).collect(),
            supported: "none, and NFC, which llama.cpp leaves out".into(),
        });
    }
    let words = parts.pre_tokenizer.as_ref().and_then(cut);
    let known = PRE_TOKENIZERS.iter().find(|pre| pre.ignore_merges == parts.ignore_merges && cut(&pre_tokenizer(pre.patterns)) == words);
    let Some(known) = known.filter(|_| words.is_some()) else {
        return Err(TextError::Unsupported {
            part: "pre_tokenizer",
            found: "a way of cutting text into words that has no name in GGUF files".into(),
            supported: crate::pre_tokenizer_names().join(", "),
        });
    };
    let name = known.names.iter().find(|name| !name.is_empty()).expect("every way has a name");
    let merges = parts.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    Ok(vec![GgufVocabulary { model: "gpt2".into(), pre: (*name).to_owned(), merges, ..common }])
}

/// The probes' words.
fn cut(pre_tokenizer: &Value) -> Option<Vec<Vec<String>>> {
    let pre: PreTokenizerWrapper = serde_json::from_value(pre_tokenizer.clone()).ok()?;
    let words = |probe: &&str| {
        let mut text = PreTokenizedString::from(*probe);
        pre.pre_tokenize(&mut text).ok()?;
        Some(text.get_splits(OffsetReferential::Original, OffsetType::Byte).into_iter().map(|(word, _, _)| word.to_owned()).collect())
    };
    PROBES.iter().map(words).collect()
}

/// SentencePiece's: a piece's score is the rank of the first merge that makes it, negative, as its own trainer numbers them.
fn pieces(parts: &Parts, mut common: GgufVocabulary) -> Result<Vec<GgufVocabulary>, TextError> {
    if !parts.byte_fallback {
        return Err(TextError::Unsupported {
            part: "model",
            found: "BPE without byte_fallback or ByteLevel".into(),
            supported: "byte-level BPE, and SentencePiece's BPE with byte_fallback".into(),
        });
    }
    for byte in 0..=u8::MAX {
        if let Some(&id) = parts.vocab.get(&format!("<0x{byte:02X}>")) {
            common.token_types[id as usize] = BYTE;
        }
    }
    if let Some(id) = common.unk {
        common.token_types[id as usize] = UNKNOWN;
    }
    let lowest = -(parts.merges.len() as f32);
    common.scores = common.token_types.iter().map(|&kind| if kind == NORMAL { lowest } else { 0.0 }).collect();
    let mut ranked = vec![false; common.tokens.len()];
    for (rank, (left, right)) in parts.merges.iter().enumerate() {
        let id = parts.vocab[&format!("{left}{right}")] as usize;
        if !std::mem::replace(&mut ranked[id], true) && common.token_types[id] == NORMAL {
            common.scores[id] = -(rank as f32);
        }
    }
    common.model = "llama".into();
    let with = |prefix| GgufVocabulary { add_space_prefix: Some(prefix), ..common.clone() };
    Ok(vec![with(false), with(true)])
}

/// Whether two tokenizers give the probes' ids, as what a user says and as what a template says.
fn agree(original: &Tokenizer, made: &Tokenizer) -> bool {
    PROBES.iter().all(|probe| {
        [Specials::AsText, Specials::Parse].into_iter().all(|specials| {
            matches!((original.encode_document(probe, specials), made.encode_document(probe, specials)), (Ok(a), Ok(b)) if a == b)
        })
    })
}
