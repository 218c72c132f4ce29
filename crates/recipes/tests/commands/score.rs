//! `score` against PyTorch's logits, and what it refuses.

use std::path::Path;

use recipes::context::Silent;
use recipes::error::Error;
use recipes::score::{RecordId, ScoreLine, score};
use serde_json::json;
use store::safetensors::SafetensorsFile;

use crate::home::{Home, golden};

fn lines(home: &Home, file: &Path, model: &str, adapter: Option<&Path>, tokens: bool) -> Result<Vec<ScoreLine>, Error> {
    let mut lines = Vec::new();
    score(&home.context(), &mut Silent, file, model, adapter, "", "", tokens, &mut |line| lines.push(line))?;
    Ok(lines)
}

/// Σ weight · ln softmax(logits), in f64, from PyTorch's logits of each row of ids.
fn expected(file: &SafetensorsFile, logits: &str, ids: &[Vec<u32>], weights: &[Vec<f32>]) -> Vec<f64> {
    let vocab = *file.tensor(logits).unwrap().shape.last().unwrap();
    let logits = file.read_f32(logits).unwrap();
    let length = ids[0].len();
    let log_prob = |record: usize, at: usize| {
        let row = &logits[(record * length + at - 1) * vocab..][..vocab];
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&logit| f64::from(logit - top).exp()).sum();
        f64::from(row[ids[record][at] as usize] - top) - sum.ln()
    };
    (0..ids.len()).map(|record| (1..length).map(|at| f64::from(weights[record][at]) * log_prob(record, at)).sum()).collect()
}

fn check(model: &str) {
    let home = Home::new();
    let folder = home.golden_model(model);
    let file = SafetensorsFile::open(&golden(&format!("models/{model}/golden.safetensors"))).unwrap();
    let length = file.tensor("ids").unwrap().shape[1];
    let flat: Vec<u32> = file.read("ids").unwrap().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
    let ids: Vec<Vec<u32>> = flat.chunks(length).map(<[u32]>::to_vec).collect();
    let mut weights: Vec<Vec<f32>> = file.read_f32("loss_weights").unwrap().chunks(length).map(<[f32]>::to_vec).collect();
    weights[1][length - 1] = 0.5;
    let records = ids.iter().zip(&weights).enumerate().map(|(index, (ids, loss_weights))| {
        json!({ "id": format!("record {index}"), "ids": ids, "loss_weights": loss_weights }).to_string() + "\n"
    });
    let records = home.write("records.jsonl", records.collect::<String>());
    let adapter = home.golden_adapter(model);
    for (adapter, logits) in [(None, "base.logits"), (Some(adapter.as_path()), "adapter.logits")] {
        let scored = lines(&home, &records, &folder, adapter, true).unwrap();
        for ((index, line), expected) in scored.iter().enumerate().zip(expected(&file, logits, &ids, &weights)) {
            assert_eq!(line.id, RecordId::Text(format!("record {index}")));
            assert_eq!(
                (line.tokens, line.loss_tokens),
                (length as u64, weights[index].iter().filter(|weight| **weight > 0.0).count() as u64)
            );
            let error = ((line.log_prob - expected) / expected).abs();
            assert!(error < 1e-5, "{model} {logits} record {index}: {} instead of {expected}, relative error {error:e}", line.log_prob);
        }
    }
}

#[test]
fn log_probabilities_are_pytorchs() {
    check("llama");
    check("mistral");
}

#[test]
fn sharing_beginnings_and_neighbours_changes_nothing() {
    let home = Home::new();
    let model = home.tiny_model();
    let beginning: Vec<u32> = (5..45).collect();
    let record = |tail: &[u32]| json!({ "ids": beginning.iter().chain(tail).collect::<Vec<_>>() }).to_string();
    let all = [record(&[100, 101]), record(&[]), record(&[100, 102, 7]), record(&[100, 101])];
    let together = lines(&home, &home.write("all.jsonl", all.join("\n")), &model, None, true).unwrap();
    let numbers: Vec<RecordId> = (1..=4u64).map(|line| RecordId::Number(line.into())).collect();
    assert_eq!(together.iter().map(|line| line.id.clone()).collect::<Vec<_>>(), numbers, "without ids, lines are named by their number");
    for (text, line) in all.iter().zip(&together) {
        let alone = lines(&home, &home.write("one.jsonl", text), &model, None, true).unwrap();
        assert!(
            (alone[0].log_prob - line.log_prob).abs() <= 1e-6 * line.log_prob.abs(),
            "{} alone, {} together",
            alone[0].log_prob,
            line.log_prob
        );
    }
    assert_eq!(together[0].log_prob, together[3].log_prob);
}

#[test]
fn weights_and_ids_may_be_missing_and_weightless_records_have_a_line() {
    let home = Home::new();
    let model = home.tiny_model();
    let file = home.write(
        "records.jsonl",
        "{\"id\": 7, \"ids\": [5, 6, 9], \"loss_weights\": [1, 0, 0]}\n\n{\"id\": \"x\", \"ids\": [5]}\n{\"id\": null, \"ids\": [5, 6]}",
    );
    let lines = lines(&home, &file, &model, None, true).unwrap();
    let shown: Vec<String> = lines.iter().map(|line| format!("{} {} {}", line.id, line.tokens, line.loss_tokens)).collect();
    assert_eq!(shown, ["7 3 0", "x 1 0", "4 2 1"]);
    assert_eq!((lines[0].log_prob, lines[1].log_prob), (0.0, 0.0));
    assert!(lines[2].log_prob < 0.0);
    assert_eq!(serde_json::to_string(&lines[1]).unwrap(), r#"{"id":"x","tokens":1,"log_prob":0.0,"loss_tokens":0}"#);
}

#[test]
fn refusals_name_the_record_and_come_before_any_line() {
    let home = Home::new();
    let model = home.tiny_model();
    let good = r#"{"id": "good", "ids": [5, 6, 7]}"#;
    let long = json!({ "id": "long", "ids": vec![5; 129] }).to_string();
    let cases = [
        (r#"{"id": "b", "ids": [5, 1402]}"#, "record b: token id 1402 at position 1, but the vocabulary has 1402"),
        (r#"{"id": "b", "ids": [5, 6], "loss_weights": [1]}"#, "record b: 2 ids but 1 loss weights"),
        (&long, "record long: it has 129 tokens, at most 128 (the model's context)"),
        (r#"{"id": "b", "ids": []}"#, "record b: it has no tokens"),
        (r#"{"id": "b"}"#, "record b: it has no \"ids\""),
        (r#"{"ids": [5, -1]}"#, "record 2: \"ids\" at position 1: a whole number from 0 expected"),
        (r#"{"ids": [5, 6], "loss_weights": [0, -2]}"#, "record 2: \"loss_weights\" at position 1: a finite number of at least 0 expected"),
        (r#"{"ids": 5}"#, "record 2: \"ids\": a list expected"),
        (r#"{"ids": [5"#, "record in line 2: it is not JSON at character 10"),
        ("[1]", "record 2: it has no \"ids\""),
    ];
    for (bad, message) in cases {
        let file = home.write("records.jsonl", format!("{good}\n{bad}\n"));
        let mut seen = 0;
        let error = score(&home.context(), &mut Silent, &file, &model, None, "", "", true, &mut |_| seen += 1).unwrap_err();
        assert_eq!((error.to_string().as_str(), seen), (message, 0));
        assert!(error.hint().is_some(), "{message}");
    }
    let empty = home.write("empty.jsonl", "\n");
    assert_eq!(lines(&home, &empty, &model, None, true).unwrap_err().to_string(), "empty.jsonl has no rows");
}

#[test]
fn text_is_scored_as_training_renders_it() {
    let home = Home::new();
    let model = home.tiny_model();
    let texts = [
        json!({ "id": "a", "prompt": "Where is my order?", "completion": "delivery" }),
        json!({ "prompt": "Die Lampe flackert", "completion": "exchange" }),
    ];
    let file = home.write("texts.jsonl", texts.each_ref().map(|text| text.to_string() + "\n").concat());
    let scored = lines(&home, &file, &model, None, false).unwrap();
    assert_eq!(scored.iter().map(|line| line.id.to_string()).collect::<Vec<_>>(), ["a", "2"]);

    // The same by hand: the ids of the whole conversation, with loss on the answer, its end of turn and the template's line end.
    let tokenizer = store::atomic::read(&golden("tokenizer/tiny.json"), 1 << 20).unwrap();
    let tokenizer = text::Tokenizer::from_json(&tokenizer, None).unwrap();
    let encode = |text: &str| tokenizer.encode(text, text::Specials::Parse).unwrap();
    let before = encode("<|im_start|>user\nWhere is my order?<|im_end|>\n<|im_start|>assistant\n");
    let answer = encode("delivery<|im_end|>\n");
    let weights: Vec<u32> = [vec![0; before.len()], vec![1; answer.len()]].concat();
    let ids = [before, answer.clone()].concat();
    let by_hand = home.write("ids.jsonl", json!({ "ids": ids, "loss_weights": weights }).to_string());
    let by_hand = lines(&home, &by_hand, &model, None, true).unwrap();
    assert_eq!((scored[0].tokens, scored[0].loss_tokens), (ids.len() as u64, answer.len() as u64));
    assert!((scored[0].log_prob - by_hand[0].log_prob).abs() < 1e-6);

    let nothing = home.write("texts.jsonl", format!("{}\n{}\n", texts[0], json!({ "id": "b", "prompt": "Where?", "completion": "" })));
    let error = lines(&home, &nothing, &model, None, false).unwrap_err().to_string();
    assert!(error.starts_with("record b: "), "{error}");
    let unknown = home.write("texts.qqq", "x");
    assert!(lines(&home, &unknown, &model, None, false).unwrap_err().to_string().contains("extension"));
}
