//! tokenizer.json ⇄ a GGUF file's vocabulary: the same ids either way, or a refusal.

use serde_json::{Value, json};
use text::{GgufVocabulary, Specials, TextError, Tokenizer, TokenizerConfig, pre_tokenizer_names};

const TINY: &[u8] = include_bytes!("../../../golden/tokenizer/tiny.json");
const SPM: &str = include_str!("../../../golden/tokenizer/spm.json");
const IDS: &str = include_str!("../../../golden/tokenizer/tiny_ids.json");

fn config() -> TokenizerConfig {
    TokenizerConfig { bos_token: Some("<|im_start|>".into()), eos_token: Some("<|im_end|>".into()), ..TokenizerConfig::default() }
}

fn strings() -> Vec<String> {
    let golden: Value = serde_json::from_str(IDS).unwrap();
    golden["strings"].as_array().unwrap().iter().map(|string| string["text"].as_str().unwrap().to_owned()).collect()
}

fn assert_same(a: &Tokenizer, b: &Tokenizer, what: &str) {
    for text in strings() {
        for specials in [Specials::AsText, Specials::Parse] {
            assert_eq!(a.encode_document(&text, specials).unwrap(), b.encode_document(&text, specials).unwrap(), "{what}: {text:?}");
        }
    }
    assert_eq!((a.bos(), a.eos(), a.around_document()), (b.bos(), b.eos(), b.around_document()), "{what}");
}

#[test]
fn tokenizer_json_becomes_a_vocabulary_with_its_ids_and_comes_back() {
    let original = Tokenizer::from_json(TINY, Some(&config())).unwrap();
    let rows = original.vocab_size() + 3;
    let made = GgufVocabulary::from_json(TINY, Some(&config()), rows).unwrap();
    assert_eq!((made.model.as_str(), made.tokens.len(), made.bos, made.eos), ("gpt2", rows, Some(1), Some(2)));
    assert_eq!(made.tokens[rows - 1], format!("[PAD{}]", rows - 1));
    assert_eq!(made.token_types[rows - 3..], [5, 5, 5], "rows without a token never occur");
    let back = Tokenizer::from_gguf(&made).unwrap();
    assert_same(&original, &back, "tiny.json");
    assert_same(&original, &Tokenizer::from_json(&back.to_json(), Some(&config())).unwrap(), "tiny.json, there and back");
}

/// Each of llama.cpp's ways is found among all of them from what it does, not from its name.
#[test]
fn every_way_of_cutting_is_recognised() {
    let tiny = GgufVocabulary::from_json(TINY, Some(&config()), 1402).unwrap();
    let mut found = std::collections::BTreeSet::new();
    for name in pre_tokenizer_names() {
        let vocabulary = GgufVocabulary { pre: name.to_owned(), ..tiny.clone() };
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        let made = GgufVocabulary::from_json(&tokenizer.to_json(), Some(&config()), 1402).unwrap();
        let again = Tokenizer::from_gguf(&made).unwrap();
        // Two of them are written differently and cut alike.
        assert_same(&tokenizer, &again, &format!("{name}, which became {}", made.pre));
        found.insert(made.pre);
    }
    assert!(found.len() >= 15, "{found:?}");
}

#[test]
fn sentence_piece_comes_back_with_ranks_for_scores() {
    let forms: Value = serde_json::from_str(SPM).unwrap();
    for form in forms.as_array().unwrap() {
        let vocabulary = GgufVocabulary {
            model: "llama".into(),
            tokens: serde_json::from_value(form["tokens"].clone()).unwrap(),
            token_types: serde_json::from_value(form["token_types"].clone()).unwrap(),
            scores: serde_json::from_value(form["scores"].clone()).unwrap(),
            bos: Some(1),
            eos: Some(2),
            unk: Some(0),
            add_space_prefix: form["add_space_prefix"].as_bool(),
            ..GgufVocabulary::default()
        };
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        let text = |id: u32| tokenizer.token_text(id);
        let config = TokenizerConfig { bos_token: text(1), eos_token: text(2), unk_token: text(0), ..TokenizerConfig::default() };
        let made = GgufVocabulary::from_json(&tokenizer.to_json(), Some(&config), vocabulary.tokens.len()).unwrap();
        assert_eq!((made.model.as_str(), made.add_bos, made.add_space_prefix), ("llama", Some(true), vocabulary.add_space_prefix));
        assert_eq!((&made.tokens, made.unk), (&vocabulary.tokens, Some(0)));
        assert_same(&tokenizer, &Tokenizer::from_gguf(&made).unwrap(), "SentencePiece");
    }
}

#[test]
fn what_a_gguf_file_cannot_say_is_refused() {
    let refused = |change: &dyn Fn(&mut Value), rows: usize| {
        let mut file: Value = serde_json::from_slice(TINY).unwrap();
        change(&mut file);
        GgufVocabulary::from_json(file.to_string().as_bytes(), Some(&config()), rows).unwrap_err()
    };
    let lower = refused(&|file| file["normalizer"] = json!({"type": "Lowercase"}), 1402);
    assert!(matches!(&lower, TextError::Unsupported { part: "normalizer", found, .. } if found == "Lowercase"), "{lower}");
    let digits = |file: &mut Value| {
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let own = json!({"type": "Split", "pattern": {"Regex": "[aeiou]+"}, "behavior": "Isolated", "invert": false});
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [own, byte_level]});
    };
    assert!(matches!(refused(&digits, 1402), TextError::Unsupported { part: "pre_tokenizer", .. }));
    let around = json!({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}],
        "pair": [], "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}});
    assert!(matches!(
        refused(&|file| file["post_processor"] = around.clone(), 1402),
        TextError::Unsupported { part: "post_processor", .. }
    ));
    assert!(matches!(refused(&|_| (), 1401), TextError::Field { field: "highest id", .. }), "fewer rows than tokens");
}
