//! Ids against HF tokenizers and llama.cpp on awkward strings, with a vocabulary trained for this project.

use serde_json::Value;
use text::{GgufVocabulary, Specials, TextError, Tokenizer, TokenizerConfig};

const TINY: &[u8] = include_bytes!("../../../golden/tokenizer/tiny.json");
const SPM: &str = include_str!("../../../golden/tokenizer/spm.json");
const IDS: &str = include_str!("../../../golden/tokenizer/tiny_ids.json");

fn golden() -> Value {
    serde_json::from_str(IDS).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// tiny.json in the form of a GGUF file.
fn vocabulary(pre: &str) -> GgufVocabulary {
    let file: Value = serde_json::from_slice(TINY).unwrap();
    let mut tokens: Vec<(u64, String, i32)> = Vec::new();
    for (token, id) in file["model"]["vocab"].as_object().unwrap() {
        tokens.push((id.as_u64().unwrap(), token.clone(), 1));
    }
    for token in file["added_tokens"].as_array().unwrap() {
        let (id, content) = (token["id"].as_u64().unwrap(), token["content"].as_str().unwrap().to_owned());
        tokens.retain(|other| other.0 != id);
        tokens.push((id, content, if token["special"].as_bool().unwrap() { 3 } else { 4 }));
    }
    tokens.sort();
    let merge = |pair: &Value| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    GgufVocabulary {
        model: "gpt2".into(),
        pre: pre.into(),
        tokens: tokens.iter().map(|token| token.1.clone()).collect(),
        token_types: tokens.iter().map(|token| token.2).collect(),
        merges: file["model"]["merges"].as_array().unwrap().iter().map(merge).collect(),
        bos: Some(1),
        eos: Some(2),
        add_bos: Some(false),
        ..GgufVocabulary::default()
    }
}

#[test]
fn ids_are_those_of_hf_tokenizers() {
    let tokenizer = Tokenizer::from_json(TINY, None).unwrap();
    for string in golden()["strings"].as_array().unwrap() {
        let text = string["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, Specials::AsText).unwrap(), ids(&string["as_text"]), "{text:?} as text");
        assert_eq!(tokenizer.encode(text, Specials::Parse).unwrap(), ids(&string["parse"]), "{text:?} parsed");
    }
}

#[test]
fn ids_are_those_of_llama_cpp_for_every_pre_tokenizer() {
    let golden = golden();
    let mut checked = 0;
    for group in golden["llama_cpp"].as_array().unwrap() {
        for pre in group["names"].as_array().unwrap() {
            let tokenizer = Tokenizer::from_gguf(&vocabulary(pre.as_str().unwrap())).unwrap();
            for (string, expected) in golden["strings"].as_array().unwrap().iter().zip(group["ids"].as_array().unwrap()) {
                let text = string["text"].as_str().unwrap();
                assert_eq!(tokenizer.encode(text, Specials::AsText).unwrap(), ids(expected), "{pre}: {text:?}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}

#[test]
fn text_comes_back_whole_and_streamed() {
    let tokenizer = Tokenizer::from_gguf(&vocabulary("smollm")).unwrap();
    for string in golden()["strings"].as_array().unwrap() {
        let text = string["text"].as_str().unwrap();
        let ids = tokenizer.encode(text, Specials::Parse).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        let mut stream = tokenizer.decode_stream(false);
        let mut streamed = String::new();
        for id in ids {
            let piece = stream.push(id).unwrap();
            assert!(!piece.contains('\u{FFFD}') || text.contains('\u{FFFD}'), "{text:?}: {piece:?}");
            streamed += &piece;
        }
        streamed += &stream.finish().unwrap();
        assert_eq!(streamed, text);
    }
}

#[test]
fn a_stream_that_ends_inside_a_character_says_so() {
    let tokenizer = Tokenizer::from_gguf(&vocabulary("smollm")).unwrap();
    let ids = tokenizer.encode("a🦔", Specials::AsText).unwrap();
    let mut stream = tokenizer.decode_stream(false);
    let text: String = ids[..ids.len() - 1].iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(text, "a");
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
}

#[test]
fn special_tokens_are_skipped_on_demand_and_unknown_ids_have_no_text() {
    let tokenizer = Tokenizer::from_json(TINY, None).unwrap();
    let mut ids = tokenizer.encode("<|im_start|>Hello<|im_end|>", Specials::Parse).unwrap();
    ids.push(1_000_000);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "Hello");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<|im_start|>Hello<|im_end|>");
    assert_eq!(tokenizer.special_ids(), [0, 1, 2]);
    assert_eq!(tokenizer.token_text(2).as_deref(), Some("<|im_end|>"));
    assert_eq!(tokenizer.token_text(1_000_000), None);
}

#[test]
fn offsets_tile_the_text() {
    let tokenizer = Tokenizer::from_json(TINY, None).unwrap();
    let text = "Hello,  Größe 12<|im_end|>";
    let encoded = tokenizer.encode_with_offsets(text, Specials::Parse).unwrap();
    assert_eq!(encoded.first().unwrap().1.start, 0);
    assert_eq!(encoded.last().unwrap().1, text.len() - 10..text.len());
    assert!(encoded.windows(2).all(|pair| pair[1].1.start <= pair[0].1.end && pair[0].1.start <= pair[1].1.start));
}

#[test]
fn begin_and_end_come_from_the_files() {
    let config = TokenizerConfig { bos_token: Some("<|im_start|>".into()), add_bos_token: Some(true), ..Default::default() };
    let tokenizer = Tokenizer::from_json(TINY, Some(&config)).unwrap();
    assert_eq!(tokenizer.bos(), Some(1));
    assert_eq!(tokenizer.encode_document("", Specials::AsText).unwrap(), [1]);
    let gguf = Tokenizer::from_gguf(&GgufVocabulary { add_bos: None, ..vocabulary("llama-bpe") }).unwrap();
    assert_eq!(gguf.encode_document("", Specials::AsText).unwrap(), [1]);
    let processed = edited(|file| {
        file["post_processor"] = serde_json::json!({"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"B": {"id": "B", "ids": [0], "tokens": ["<|endoftext|>"]}}});
    });
    assert_eq!(processed.unwrap().encode_document("", Specials::AsText).unwrap(), [0]);
    let unknown = TokenizerConfig { bos_token: Some("<nope>".into()), ..Default::default() };
    assert!(matches!(Tokenizer::from_json(TINY, Some(&unknown)), Err(TextError::Field { field: "bos_token", .. })));
}

#[test]
fn canonical_bytes_tell_tokenizers_apart_and_the_same_ones_not() {
    let one = Tokenizer::from_json(TINY, None).unwrap().canonical_bytes();
    assert_eq!(one, Tokenizer::from_json(TINY, None).unwrap().canonical_bytes());
    let reordered = edited(|file| file["truncation"] = serde_json::json!({"max_length": 3})).unwrap();
    assert_eq!(one, reordered.canonical_bytes(), "truncation is no part of a tokenizer");
    assert_ne!(one, edited(|file| file["pre_tokenizer"] = Value::Null).unwrap().canonical_bytes());
    let smollm = Tokenizer::from_gguf(&vocabulary("smollm")).unwrap().canonical_bytes();
    assert_ne!(smollm, Tokenizer::from_gguf(&vocabulary("qwen2")).unwrap().canonical_bytes());
}

fn edited(edit: impl FnOnce(&mut Value)) -> Result<Tokenizer, TextError> {
    let mut file: Value = serde_json::from_slice(TINY).unwrap();
    edit(&mut file);
    Tokenizer::from_json(&serde_json::to_vec(&file).unwrap(), None)
}

/// Every way we know to make the library panic, hang or disagree with itself is an error here.
#[test]
fn hostile_tokenizer_json_is_refused() {
    use serde_json::json;
    type Edit = Box<dyn FnOnce(&mut Value)>;
    let set = |path: &'static str, value: Value| -> Edit { Box::new(move |file| *file.pointer_mut(path).unwrap() = value) };
    let push = |path: &'static str, value: Value| -> Edit {
        Box::new(move |file| file.pointer_mut(path).unwrap().as_array_mut().unwrap().push(value))
    };
    let added = |id: u64, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let edits: Vec<(&str, Edit)> = vec![
        ("model type", set("/model/type", json!("Unigram"))),
        ("unigram list", set("/model/vocab", json!([["a", 0.0]]))),
        ("empty vocabulary", set("/model/vocab", json!({}))),
        ("huge id", Box::new(|file| file["model"]["vocab"]["zz"] = json!(u32::MAX))),
        ("beyond u32", Box::new(|file| file["model"]["vocab"]["zz"] = json!(u64::MAX))),
        ("negative id", Box::new(|file| file["model"]["vocab"]["zz"] = json!(-1))),
        ("same id twice", Box::new(|file| file["model"]["vocab"]["zz"] = json!(5))),
        ("long token", Box::new(|file| file["model"]["vocab"]["z".repeat(5000)] = json!(5000))),
        ("merge of unknown", push("/model/merges", json!(["qq", "ww"]))),
        ("merge with unknown result", push("/model/merges", json!(["Ġ", "Ġ<|im_end|>"]))),
        ("merge of three", push("/model/merges", json!("a b c"))),
        ("merge of one", push("/model/merges", json!("a"))),
        ("merge of empty", push("/model/merges", json!(["", ""]))),
        ("dropout", set("/model/dropout", json!(0.1))),
        ("prefix", set("/model/continuing_subword_prefix", json!("##"))),
        ("suffix", set("/model/end_of_word_suffix", json!("</w>"))),
        ("unknown token", set("/model/unk_token", json!("<nope>"))),
        ("added token with another's id", push("/added_tokens", added(5, "<x>"))),
        ("added token with a huge id", push("/added_tokens", added(u64::from(u32::MAX), "<x>"))),
        ("added token twice", push("/added_tokens", added(0, "<|endoftext|>"))),
        ("added token with another id", push("/added_tokens", added(7, "<|im_start|>"))),
        ("empty added token", push("/added_tokens", added(2000, ""))),
        ("space that strips", push("/added_tokens", json!({"id": 2000, "content": " ", "lstrip": true}))),
        ("unknown normaliser", set("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}))),
        ("untyped pre-tokeniser", set("/pre_tokenizer", json!({"length": 0}))),
        ("fixed length 0", set("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}))),
        (
            "broken expression",
            set("/pre_tokenizer", json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false})),
        ),
        (
            "huge expression",
            set(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "a".repeat(1 << 20)}, "behavior": "Isolated", "invert": false}),
            ),
        ),
        (
            "exploding expression",
            set(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "((a{1000}){1000}){1000}"}, "behavior": "Isolated", "invert": false}),
            ),
        ),
        (
            "deep sequence",
            Box::new(|file| {
                let mut part = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false});
                for _ in 0..30 {
                    part = json!({"type": "Sequence", "pretokenizers": [part]});
                }
                file["pre_tokenizer"] = part;
            }),
        ),
        ("stripping decoder", set("/decoder", json!({"type": "Strip", "content": " ", "start": 0, "stop": 9}))),
        ("unknown decoder", set("/decoder", json!({"type": "CTC"}))),
        (
            "post-processor without its token",
            set(
                "/post_processor",
                json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}}),
            ),
        ),
        (
            "post-processor with an unknown id",
            set(
                "/post_processor",
                json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"B": {"id": "B", "ids": [99999], "tokens": ["x"]}}}),
            ),
        ),
        (
            "post-processor with two texts",
            set(
                "/post_processor",
                json!({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "pair": [], "special_tokens": {}}),
            ),
        ),
        ("post-processor of an encoder", set("/post_processor", json!({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}))),
    ];
    for (name, edit) in edits {
        let error = edited(edit).err().unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(!error.to_string().is_empty() && error.to_string().len() < 2000, "{name}: {error}");
    }
    for bytes in [&b""[..], b"{}", b"[]", b"null", b"\xff\xfe", &TINY[..TINY.len() / 2], b"{\"model\":", &[b'['; 10_000]] {
        assert!(matches!(Tokenizer::from_json(bytes, None), Err(TextError::Json { .. })));
    }
}

#[test]
fn ids_with_gaps_are_kept() {
    let tokenizer = edited(|file| {
        let token = serde_json::json!({"id": 2000, "content": "<|far|>", "special": true});
        file["added_tokens"].as_array_mut().unwrap().push(token);
    })
    .unwrap();
    assert_eq!(tokenizer.encode("<|far|>", Specials::Parse).unwrap(), [2000]);
    assert_eq!(tokenizer.vocab_size(), 2001);
    assert_eq!(tokenizer.token_text(1999), None);
}

#[test]
fn slow_expressions_and_long_runs_end() {
    let split = serde_json::json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(a+)+$|(?=b)c"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]});
    let slow = edited(|file| file["pre_tokenizer"] = split).unwrap();
    let text = "a".repeat(5_000) + "!";
    assert_eq!(slow.decode(&slow.encode(&text, Specials::AsText).unwrap(), false).unwrap(), text);
    let tokenizer = Tokenizer::from_json(TINY, None).unwrap();
    for unit in ["a", " ", "\n", "<|im_end|", "👍", "'"] {
        let text = unit.repeat(100_000 / unit.len());
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text, Specials::AsText).unwrap(), false).unwrap(), text);
    }
}

#[test]
fn wrong_gguf_vocabularies_are_refused() {
    let with = |edit: fn(&mut GgufVocabulary)| {
        let mut vocabulary = vocabulary("smollm");
        edit(&mut vocabulary);
        Tokenizer::from_gguf(&vocabulary).unwrap_err()
    };
    assert!(with(|v| v.model = "bert".into()).to_string().contains("supported: gpt2"));
    assert!(with(|v| v.model = "llama".into()).to_string().contains("scores"));
    assert!(with(|v| v.pre = "nobody".into()).to_string().contains("smollm"));
    assert!(matches!(with(|v| v.token_types.truncate(3)), TextError::Field { .. }));
    assert!(matches!(with(|v| v.tokens[9] = v.tokens[10].clone()), TextError::DuplicateToken { .. }));
    assert!(matches!(with(|v| v.merges.push("qq ww".into())), TextError::Merge { .. }));
    assert!(matches!(with(|v| v.merges.push("qqww".into())), TextError::Merge { .. }));
    assert!(matches!(with(|v| v.merges.push(String::new())), TextError::Merge { .. }));
    assert!(matches!(with(|v| v.eos = Some(1 << 30)), TextError::Field { .. }));
    assert!(matches!(with(|v| v.tokens.clear()), TextError::Field { .. }));
    assert!(matches!(with(|v| v.add_space_prefix = Some(true)), TextError::Field { .. }));
}

/// spm.json's form `place`: 0 is Llama 2's, 1 is Gemma's.
fn spm(place: usize) -> (GgufVocabulary, Value) {
    let forms: Value = serde_json::from_str(SPM).unwrap();
    let form = forms[place].clone();
    let vocabulary = GgufVocabulary {
        model: "llama".into(),
        pre: "default".into(),
        tokens: serde_json::from_value(form["tokens"].clone()).unwrap(),
        token_types: serde_json::from_value(form["token_types"].clone()).unwrap(),
        scores: serde_json::from_value(form["scores"].clone()).unwrap(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        add_space_prefix: form["add_space_prefix"].as_bool(),
        ..GgufVocabulary::default()
    };
    (vocabulary, form["strings"].clone())
}

#[test]
fn ids_of_sentence_piece_are_llama_cpps() {
    for place in [0, 1] {
        let (vocabulary, strings) = spm(place);
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        for string in strings.as_array().unwrap() {
            let text = string["text"].as_str().unwrap();
            for (key, specials) in [("as_text", Specials::AsText), ("parse", Specials::Parse)] {
                let given = tokenizer.encode(text, specials).unwrap();
                assert_eq!(given, ids(&string[key]), "{text:?} {key}, form {place}");
                // Spaces around special tokens are theirs in Llama's form; all else comes back as it was.
                if key == "as_text" && !text.contains('\u{2581}') {
                    assert_eq!(tokenizer.decode(&given, false).unwrap(), text, "form {place}");
                    let mut stream = tokenizer.decode_stream(false);
                    let mut streamed: String = given.iter().map(|&id| stream.push(id).unwrap()).collect();
                    streamed += &stream.finish().unwrap();
                    assert_eq!(streamed, text, "form {place}");
                }
            }
        }
        assert_eq!(tokenizer.around_document(), (&[1][..], &[][..]), "SentencePiece's documents begin with the begin token");
    }
}

#[test]
fn bad_sentence_piece_vocabularies_are_refused() {
    let refused = |change: &dyn Fn(&mut GgufVocabulary)| {
        let mut vocabulary = spm(0).0;
        change(&mut vocabulary);
        Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string()
    };
    assert!(refused(&|v| v.scores.clear()).contains("scores"));
    assert!(refused(&|v| v.scores.truncate(5)).contains("scores' length"));
    assert!(refused(&|v| v.scores[7] = f32::NAN).contains("NaN"));
    assert!(refused(&|v| v.tokens[3 + 0x41] = "other".into()).contains("<0x41>"));
    assert!(refused(&|v| v.model = "t5".into()).contains("gpt2 (byte-level BPE), llama (SentencePiece)"));
}
