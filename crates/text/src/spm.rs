//! A GGUF file's SentencePiece vocabulary ("llama"): pieces with scores, bytes as a last resort.
//!
//! llama.cpp merges the two neighbours whose union has the highest score, the leftmost of equal ones, until no union is a
//! piece. That is byte-pair encoding with a merge for every way in which a piece falls into two, ranked by the piece's score;
//! what no piece covers becomes its bytes. Spaces are "▁", and in Llama's form every text begins with one.
//!
//! Special tokens and pieces of bytes are never merged from text: what a user writes stays text.

use crate::TextError;
use crate::gguf::{CONTROL, GgufVocabulary, UNKNOWN, USER_DEFINED};
use crate::tokenizer::Named;
use crate::tokenizer_json::{MAX_MERGES, Parts, limit};
use serde_json::{Value, json};
use std::collections::HashMap;

/// `token_type` of a piece that is one byte.
pub(crate) const BYTE: i32 = 6;
/// `token_type` of a piece that llama.cpp never gives.
pub(crate) const UNUSED: i32 = 5;
/// What a space is in a piece.
const SPACE: &str = "\u{2581}";

/// Checks the keys against each other and takes them apart; lengths and limits were checked before.
pub(crate) fn parts(vocabulary: &GgufVocabulary) -> Result<(Parts, Named), TextError> {
    if vocabulary.scores.is_empty() {
        let expected = "one for each token of a SentencePiece vocabulary";
        return Err(TextError::Field { field: "scores", given: "none".into(), expected });
    }
    if let Some(score) = vocabulary.scores.iter().find(|score| score.is_nan()) {
        return Err(TextError::Field { field: "scores", given: score.to_string(), expected: "numbers" });
    }
    let mut parts = Parts { byte_fallback: true, ..Parts::default() };
    let added = vocabulary.insert_tokens(&mut parts)?;
    for byte in 0..=u8::MAX {
        let piece = format!("<0x{byte:02X}>");
        if !parts.vocab.contains_key(&piece) {
            let expected = "all 256 pieces of one byte, <0x00> to <0xFF>";
            return Err(TextError::Field { field: "tokens", given: format!("no {piece}"), expected });
        }
    }
    parts.merges = merges(vocabulary)?;
    parts.check_ids()?;
    parts.check_merges()?;
    parts.add(added)?;
    let named = vocabulary.roles(&mut parts, true)?;
    let prefix = vocabulary.add_space_prefix.unwrap_or(true);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let mut normalizers: Vec<Value> = vec![spaces];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    parts.normalizer = Some(json!({"type": "Sequence", "normalizers": normalizers}));
    parts.decoder = Some(json!({"type": "Sequence", "decoders": decoders}));
    Ok((parts, named))
}

/// Every way in which a piece falls into two pieces, best piece first; of equal ones, that with the lowest id.
fn merges(vocabulary: &GgufVocabulary) -> Result<Vec<(String, String)>, TextError> {
    let merged = |id: &usize| !matches!(vocabulary.token_type(*id), UNKNOWN | CONTROL | USER_DEFINED | UNUSED | BYTE);
    let pieces: HashMap<&str, usize> =
        vocabulary.tokens.iter().enumerate().filter(|(id, _)| merged(id)).map(|(id, token)| (token.as_str(), id)).collect();
    let mut order: Vec<usize> = (0..vocabulary.tokens.len()).filter(merged).collect();
    order.sort_by(|&a, &b| vocabulary.scores[b].total_cmp(&vocabulary.scores[a]).then(a.cmp(&b)));
    let mut merges = Vec::new();
    for id in order {
        let token = &vocabulary.tokens[id];
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if pieces.contains_key(left) && pieces.contains_key(right) {
                merges.push((left.to_owned(), right.to_owned()));
            }
        }
        limit("merges", merges.len() as u64, MAX_MERGES)?;
    }
    Ok(merges)
}
