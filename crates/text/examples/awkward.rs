//! Checks a real vocabulary against the ids that llama.cpp gives: `awkward VOCABULARY.json AWKWARD.json`.
//!
//! Both are written by `golden/tokenizer/make.py`; the first holds a model's vocabulary and is never committed.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit, clippy::disallowed_methods, reason = "an example is a program")]

use serde_json::Value;
use text::{GgufVocabulary, Specials, Tokenizer};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vocabulary, awkward] = arguments.as_slice() else {
        eprintln!("usage: awkward VOCABULARY.json AWKWARD.json");
        std::process::exit(2);
    };
    let read = |path: &String| -> Value { serde_json::from_slice(&std::fs::read(path).expect(path)).expect("JSON") };
    let vocabulary = vocabulary_of(&read(vocabulary));
    let spm = vocabulary.model == "llama";
    let tokenizer = Tokenizer::from_gguf(&vocabulary).expect("a vocabulary");
    let mut wrong = 0;
    let awkward = read(awkward);
    let strings = awkward["strings"].as_array().expect("strings");
    for string in strings {
        let text = string["text"].as_str().expect("text");
        for (key, specials) in [("as_text", Specials::AsText), ("parse", Specials::Parse)] {
            let expected: Vec<u32> = serde_json::from_value(string[key].clone()).expect("ids");
            let given = tokenizer.encode(text, specials).expect("ids");
            if given != expected {
                wrong += 1;
                println!("{text:?} {key}: given {given:?}, expected {expected:?}");
            }
            let decoded = tokenizer.decode(&given, false).expect("text");
            let mut stream = tokenizer.decode_stream(false);
            let mut streamed = String::new();
            for id in given {
                streamed += &stream.push(id).expect("text");
            }
            streamed += &stream.finish().expect("text");
            // SentencePiece's sign for a space cannot be told from a space.
            let back = if spm { text.replace('\u{2581}', " ") } else { text.to_owned() };
            if decoded != back || streamed != back {
                wrong += 1;
                println!("{text:?} {key}: comes back as {decoded:?}, streamed as {streamed:?}");
            }
        }
    }
    println!("{} strings, {wrong} differences", strings.len());
    std::process::exit(if wrong == 0 { 0 } else { 1 });
}

fn vocabulary_of(value: &Value) -> GgufVocabulary {
    let list = |key: &str| serde_json::from_value(value[key].clone()).unwrap_or_default();
    let id = |key: &str| value[key].as_u64().map(|id| id as u32);
    GgufVocabulary {
        model: value["model"].as_str().unwrap_or_default().into(),
        pre: value["pre"].as_str().unwrap_or_default().into(),
        tokens: list("tokens"),
        token_types: serde_json::from_value(value["token_types"].clone()).unwrap_or_default(),
        scores: serde_json::from_value(value["scores"].clone()).unwrap_or_default(),
        merges: list("merges"),
        bos: id("bos"),
        eos: id("eos"),
        pad: id("pad"),
        unk: id("unk"),
        add_bos: value["add_bos"].as_bool(),
        add_eos: None,
        add_space_prefix: value["add_space_prefix"].as_bool(),
    }
}
