//! Continued pre-training: plain texts in, a model that foretells such texts better out.
#![cfg(unix)]

use crate::project::{Project, adapter_bytes, bytes, json_file, start, text, until, wait};

const NOUNS: [&str; 6] = ["pump", "valve", "seal", "motor", "filter", "sensor"];
const PLACES: [&str; 4] = ["cellar", "roof", "hall", "yard"];

/// A document a row: a heading and a few sentences that always go the same way.
fn documents(count: usize) -> String {
    let document = |index: usize| {
        let (noun, place) = (NOUNS[index % 6], PLACES[index / 6 % 4]);
        let body = format!(
            "# The {noun}\n\nThe {noun} stands in the {place}. Check the {noun} every {index} days.\n\nIf the {noun} leaks, call the desk in the {place}."
        );
        format!("{}\n", serde_json::json!({ "body": body, "number": format!("d{index:02}") }))
    };
    (0..count).map(document).collect()
}

fn project(tune: &str) -> Project {
    let project = Project::bare();
    project.write("texts/manual.jsonl", documents(48));
    // Another kind of text altogether, for what is forgotten.
    project.write(
        "texts/general.jsonl",
        "{\"body\": \"Where is my parcel? It was sent on Monday.\"}\n{\"body\": \"I want my money back.\"}\n",
    );
    project.write(
        "texts/tunesmith.toml",
        format!(
            "[project]\nname = \"manual\"\n[model]\nbase = \"base\"\n\
             [[data.source]]\npath = \"manual.jsonl\"\ntarget = \"body\"\nid = \"number\"\nchunk_tokens = 32\n\
             [[data.source]]\npath = \"general.jsonl\"\ntarget = \"body\"\nrole = \"far_ood\"\n\
             [prepare]\nsplit = {{ test = 0.3, validation = 0.1 }}\nnear_duplicates = \"ignore\"\n\
             [tune]\nobjective = \"text\"\nepochs = 2\nbatch = 4\nlearning_rate = 0.005\ncheckpoint_seconds = 1e-9\n{tune}\n\
             [gate]\nperplexity_at_most = 5000\n"
        ),
    );
    project
}

#[test]
fn plain_texts_are_learned_measured_and_continued() {
    let project = project("rank = 4");
    let plan = project.tunesmith(&["plan", "texts"]).expect(0).stdout;
    for part in ["plain texts are learned whole", "perplexity, of each held-out text", "beats base; perplexity at most 5000"] {
        assert!(plan.contains(part), "{part} in\n{plan}");
    }
    let json = project.tunesmith(&["run", "texts", "--json"]).expect(0).json();
    assert_eq!((&json["verdict"], &json["metric"]), (&"ship".into(), &"perplexity".into()), "{json}");
    let score = |arm: &str| json["arms"][arm]["score"].as_f64().unwrap();
    assert!(score("tuned") < score("base"), "{json}");
    let lower = json["difference"]["estimate"].as_f64().unwrap();
    assert!((lower - (1.0 - score("tuned") / score("base"))).abs() < 1e-9, "{json}");
    assert!(json["difference"]["interval"][0].as_f64().unwrap() > 0.0, "{json}");

    let run = project.only_run();
    let id = run.file_name().unwrap().to_str().unwrap().to_owned();
    let report = json_file(&run.join("report.json"));
    assert!(report["not_measured"].to_string().contains("have no probability of a text"), "{report}");
    let parts: Vec<&str> = report["texts"].as_array().unwrap().iter().map(|part| part["part"].as_str().unwrap()).collect();
    assert_eq!(parts, ["test", "far_ood"]);
    let page = text(&run.join("report.html"));
    assert!(page.contains("How likely the texts are") && page.contains("what was forgotten"), "{page}");
    // The summary gives perplexities as they are, and not as per cent.
    let shown = project.tunesmith(&["runs", "show", &id]).expect(0).stdout;
    assert!(shown.contains(&format!("{:.3}", score("tuned"))) && shown.contains("% lower"), "{shown}");

    // Every token of a block but its first counts; only the end of a document has the end-of-text token.
    let records = text(&run.join("data/records/train.jsonl"));
    let lines: Vec<serde_json::Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let continued = lines.iter().filter(|line| line["continued"] == true).count();
    assert!(continued > 0 && continued < lines.len(), "{continued} of {}", lines.len());
    assert!(lines.iter().all(|line| line["messages"].as_array().unwrap().is_empty()), "{records}");
    let shown = project.tunesmith(&["prepare", "texts", "--show", "3", "--json"]).expect(0).json()["shown"].clone();
    for record in shown.as_array().unwrap() {
        assert_eq!(record["loss_tokens"].as_u64().unwrap() + 1, record["tokens"].as_u64().unwrap(), "{record}");
        let ended = record["marked"].as_str().unwrap().contains("<|im_end|>");
        let line = lines.iter().find(|line| line["id"] == record["id"]).unwrap();
        assert_eq!(ended, line["continued"] != true, "{record}");
    }

    // What was trained continues texts; a file of texts is scored without a template.
    let reply = project.pipe(&["chat", &id, "--json", "--max-tokens", "8"], "The pump stands").expect(0).json();
    assert!(reply["tokens"].as_u64().unwrap() > 0, "{reply}");
    project.pipe(&["chat", &id, "--system", "Be brief."], "The pump stands").refused(&["--system", "no turns"]);
    project.write("held.jsonl", "{\"id\": \"a\", \"text\": \"The pump stands in the hall.\"}\n");
    let adapter = run.join("adapter");
    let scored = |more: &[&str]| {
        let arguments = [&["score", "held.jsonl", "--model", "base", "--json"], more].concat();
        project.tunesmith(&arguments).expect(0).json_lines()[0]["log_prob"].as_f64().unwrap()
    };
    assert!(scored(&["--adapter", adapter.to_str().unwrap()]) > scored(&[]));
    project.tunesmith(&["audit", &id]).expect(0);
    project.tunesmith(&["export", &id, "--to", "hf", "--dtype", "f32", "--output", "out"]).expect(0);
}

#[test]
fn plain_texts_train_a_whole_model_and_a_killed_run_ends_with_the_same_bytes() {
    for (tune, weights) in [("rank = 4", "adapter"), ("method = \"full\"", "model/model.safetensors")] {
        let result = |project: &Project| {
            let path = project.only_run().join(weights);
            if path.is_dir() { adapter_bytes(&path) } else { bytes(&path) }
        };
        let whole = project(tune);
        let losses = whole.tunesmith(&["tune", "texts", "--json"]).json()["losses"].clone();
        let killed = project(tune);
        let mut child = start(killed.command(&["tune", "texts"]));
        let lines = |project: &Project| {
            let run = project.runs().first().cloned();
            run.and_then(|run| std::fs::read_to_string(run.join("metrics.jsonl")).ok()).map_or(0, |text| text.lines().count())
        };
        until("some steps", &mut child, || lines(&killed) >= 5);
        child.kill().unwrap();
        assert_eq!(wait(child, "tune".into()).code, None);
        let id = killed.only_run().file_name().unwrap().to_str().unwrap().to_owned();
        let resumed = killed.tunesmith(&["runs", "resume", &id, "--json"]).expect(0).json();
        assert_eq!(resumed["losses"], losses, "{tune}");
        assert!(result(&killed) == result(&whole), "{tune}: other bytes after a kill");
    }
}

#[test]
fn a_base_without_a_template_reads_plain_texts() {
    let project = project("rank = 4\nmax_steps = 2");
    project.edit_file("base/tokenizer_config.json", "\"chat_template\":", "\"other\":");
    let report = project.tunesmith(&["run", "texts", "--json"]).json();
    assert_eq!(report["metric"], "perplexity", "{report}");
    project.edit_file("texts/tunesmith.toml", "objective = \"text\"", "objective = \"text\"\nloss_on = \"last\"");
    project.tunesmith(&["plan", "texts"]).refused(&["tune.loss_on", "every token"]);
}
