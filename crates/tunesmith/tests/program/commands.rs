//! The other commands, one by one, on the tiny project.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::project::{Project, adapter_bytes, bytes, finish, golden, json_file, text};

fn run_id(project: &Project) -> String {
    project.only_run().file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn plan_prints_what_would_be_done_and_writes_nothing() {
    let project = Project::new();
    let before = project.tree();
    let ended = project.tunesmith(&["plan", "tickets"]).expect(0);
    for part in ["goal", "rank 4", "records kept", "memory at most", "test items a difference of", "points"] {
        assert!(ended.stdout.contains(part), "no {part:?}: {ended}");
    }
    let json = project.tunesmith(&["plan", "tickets/tunesmith.toml", "--json"]).expect(0).json();
    let detectable = json["power"]["detectable_difference"].as_f64().unwrap();
    assert!(detectable > 0.1 && detectable <= 1.0, "{json}");
    assert_eq!(json["plan"]["tune"]["rank"], 4);
    assert_eq!(json["power"]["items"], json["data"]["test"]);
    assert!(json["memory"]["planned_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(before, project.tree(), "plan wrote something");
}

/// Copies, near copies, empty and secret rows: each is told apart, counted, and its story is told.
#[test]
fn prepare_drops_with_reasons_and_tells_why() {
    let project = Project::new();
    let csv = project.text("tickets/tickets.csv");
    let (header, first) = (csv.lines().next().unwrap().to_owned(), csv.lines().nth(1).unwrap().to_owned());
    let columns: Vec<&str> = header.split(',').collect();
    let at = |name: &str| columns.iter().position(|column| *column == name).unwrap();
    let changed = |id: &str, change: &dyn Fn(&str) -> String| {
        let mut cells: Vec<String> = first.split(',').map(|cell| cell.trim_matches('"').to_owned()).collect();
        cells[at("message")] = change(&cells[at("message")]);
        cells[at("customer")] = "someone else".into();
        cells[at("id")] = id.into();
        cells.join(",")
    };
    let shout = changed("x1", &|message| format!("{} !", message.to_uppercase()));
    let secret = changed("x2", &|_| "my password: geheim1234 does not work".into());
    let empty = changed("x3", &|_| "  ".into());
    project.write("tickets/tickets.csv", format!("{}\n{shout}\n{secret}\n{empty}\n", csv.trim_end()));
    project.edit("[prepare]\n", "[prepare]\nnear_duplicates = \"drop\"\nsecrets = \"mask\"\nminimise = true\nlanguages = \"any\"\n");
    let json = project.tunesmith(&["prepare", "tickets", "--json"]).expect(0).json();
    let rejected = |what: &str| {
        let found = json["data"]["rejected"].as_array().unwrap().iter().find(|pair| pair[0] == what);
        found.map_or(0, |pair| pair[1].as_u64().unwrap())
    };
    assert!(rejected("near_duplicates: near-duplicate") >= 1, "{json}");
    assert_eq!(rejected("empty: empty input"), 1);
    let run = project.path(json["path"].as_str().unwrap());
    let id = json["run"].as_str().unwrap();
    let records: String =
        ["train", "validation", "test"].iter().map(|part| text(&run.join(format!("data/records/{part}.jsonl")))).collect();
    assert!(records.contains("my [password] does not work") && !records.contains("geheim1234"));
    let (sheet, croissant) = (text(&run.join("data/datasheet.md")), json_file(&run.join("data/croissant.json")));
    assert!(sheet.contains("| tickets.csv | 67 |") && sheet.contains("BLANK") && sheet.contains("near-duplicate"), "{sheet}");
    assert_eq!(croissant["conformsTo"][0], "http://mlcommons.org/croissant/1.1");
    assert_eq!((&croissant["recordSet"][0]["@id"], &croissant["rai:dataCollection"]), (&json!("train"), &json!("BLANK")));
    // Every record is made again to the same bytes, and a dropped row says why.
    for line in records.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let why = project.tunesmith(&["prepare", id, "--why", record["id"].as_str().unwrap(), "--json"]).expect(0).json();
        assert_eq!((&why["replayed"], &why["record"][1]), (&Value::from(true), &record));
    }
    let rejects = text(&run.join("data/rejects.jsonl"));
    let dropped: Value =
        rejects.lines().map(|line| serde_json::from_str(line).unwrap()).find(|reject: &Value| reject["step"] == "near_duplicates").unwrap();
    let story = project.tunesmith(&["prepare", id, "--why", dropped["id"].as_str().unwrap()]).expect(0);
    assert!(story.stdout.contains("near-duplicate, Jaccard") && story.stdout.contains("it was dropped"), "{story}");
    project.tunesmith(&["prepare", id, "--why", "nobody"]).expect(1);
}

#[test]
fn prepare_shows_which_tokens_carry_loss() {
    let project = Project::new();
    let ended = project.tunesmith(&["prepare", "tickets", "--show", "2", "--json"]).expect(0);
    let json = ended.json();
    let shown = json["shown"].as_array().unwrap();
    assert_eq!(shown.len(), 2);
    for record in shown {
        let marked = record["marked"].as_str().unwrap();
        let (before, after) = marked.split_once('⟦').unwrap();
        let (answer, _) = after.split_once('⟧').unwrap();
        assert!(before.contains("<|im_start|>user") && before.ends_with("assistant\n"), "{marked}");
        assert!(answer.starts_with("{\"intent\"") && answer.contains("<|im_end|>"), "the answer and its end: {marked}");
        assert_eq!(marked.matches('⟦').count(), 1, "{marked}");
        assert!(record["loss_tokens"].as_u64() < record["tokens"].as_u64());
    }
    let ended = project.tunesmith(&["prepare", "tickets", "--show", "1"]).expect(0);
    assert_eq!((ended.stdout.matches('⟦').count(), ended.stdout.matches('⟧').count()), (2, 2), "{ended}");
    let run = project.path(json["path"].as_str().unwrap());
    let records = |part: &str| text(&run.join(format!("data/records/{part}.jsonl"))).lines().count();
    assert_eq!(records("train") + records("validation") + records("test"), 64);
    // The group never straddles the split.
    let customers = |part: &str| -> std::collections::BTreeSet<String> {
        let lines = text(&run.join(format!("data/records/{part}.jsonl")));
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["group"].as_str().unwrap().to_owned()).collect()
    };
    assert!(customers("train").is_disjoint(&customers("test")) && customers("train").is_disjoint(&customers("validation")));
    let id = json["run"].as_str().unwrap();
    assert!(project.tunesmith(&["runs"]).expect(0).stdout.contains("prepared"));
    let resumed = project.tunesmith(&["runs", "resume", id, "--json"]);
    assert!(matches!(resumed.code, Some(0 | 3 | 4)), "{resumed}");
}

#[test]
fn score_prints_one_line_a_record() {
    let project = Project::finished();
    let records = "{\"id\": \"a\", \"messages\": [{\"role\": \"user\", \"content\": \"Where is my lamp?\"}, {\"role\": \"assistant\", \"content\": \"delivery\"}]}\n{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"no\"}]}\n";
    project.write("score/records.jsonl", records);
    let lines = project.tunesmith(&["score", "score/records.jsonl", "--model", "base", "--json"]).expect(0).json_lines();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["id"], &lines[1]["id"]), (&json!("a"), &json!(2)));
    for line in &lines {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["id", "log_prob", "loss_tokens", "tokens"]);
        assert!(line["log_prob"].as_f64().unwrap() < 0.0 && line["loss_tokens"].as_u64() < line["tokens"].as_u64(), "{line}");
    }
    let adapter = project.only_run().join("adapter");
    let tuned = ["score", "score/records.jsonl", "--model", "base", "--adapter", adapter.to_str().unwrap(), "--json"];
    let tuned = project.tunesmith(&tuned).expect(0).json_lines();
    assert_ne!(tuned[0]["log_prob"], lines[0]["log_prob"], "the adapter does nothing");

    // Without --json: a table with the same numbers.
    let table = project.tunesmith(&["score", "score/records.jsonl", "--model", "base"]).expect(0).stdout;
    assert_eq!(table.lines().next(), Some("id\ttokens\tloss_tokens\tlog_prob"));
    assert!(table.lines().nth(1).unwrap().starts_with("a\t"), "{table}");
}

#[test]
fn score_of_tokens_adds_up() {
    let project = Project::finished();
    let ids = [5, 99, 3, 700, 42, 8];
    let record = |id: &str, weights: [f64; 6]| format!("{}\n", json!({ "id": id, "ids": ids, "loss_weights": weights }));
    let each: String =
        (0..6).map(|one| record(&format!("only {one}"), std::array::from_fn(|i| if i == one { 1.0 } else { 0.0 }))).collect();
    project.write("tokens.jsonl", record("all", [1.0; 6]) + &record("weighted", [0.0, 2.0, 0.0, 0.5, 0.0, 1.0]) + &each);
    let lines = project.tunesmith(&["score", "tokens.jsonl", "--tokens", "--model", "base", "--json"]).expect(0).json_lines();
    let log_prob: Vec<f64> = lines.iter().map(|line| line["log_prob"].as_f64().unwrap()).collect();
    let (all, weighted, each) = (log_prob[0], log_prob[1], &log_prob[2..]);
    assert_eq!(each[0], 0.0, "the first token has nothing before it");
    assert!((all - each.iter().sum::<f64>()).abs() < 1e-9 * all.abs(), "{log_prob:?}");
    assert!((weighted - (2.0 * each[1] + 0.5 * each[3] + each[5])).abs() < 1e-9 * all.abs(), "{log_prob:?}");
    assert_eq!(lines[0]["loss_tokens"], 5);
}

#[test]
fn chat_answers_from_a_pipe() {
    let project = Project::finished();
    let id = run_id(&project);
    let plain = project.pipe(&["chat", &id], "Where is my lamp? Order 4000.\n").expect(0);
    assert!(plain.stdout.ends_with('\n'), "{plain}");
    let json = project.pipe(&["chat", &id, "--json"], "Where is my lamp? Order 4000.").expect(0).json();
    assert!(json.as_object().unwrap().values().any(|value| value.as_str() == Some(plain.stdout.trim_end_matches('\n'))), "{json} {plain}");
    let again = project.pipe(&["chat", &id], "Where is my lamp? Order 4000.\n").expect(0);
    assert_eq!(plain.stdout, again.stdout, "greedy answers are the same every time");
    let seeded = |seed: &str| {
        project.pipe(&["chat", "base", "--temperature", "1.5", "--seed", seed, "--max-tokens", "12"], "Hello").expect(0).stdout
    };
    assert_eq!(seeded("3"), seeded("3"));
    assert_ne!(seeded("3"), seeded("4"));
    // The base with the run's adapter is the run.
    let adapter = project.only_run().join("adapter");
    let plan = json_file(&project.only_run().join("data/prepared.json"));
    let system = plan["instruction"].as_str().unwrap();
    let by_hand = ["chat", "base", "--adapter", adapter.to_str().unwrap(), "--system", system];
    assert_eq!(project.pipe(&by_hand, "Where is my lamp? Order 4000.").expect(0).stdout, plain.stdout);
}

#[test]
fn export_is_a_peft_folder() {
    let (_original, project) = Project::finished_copy();
    let id = run_id(&project);
    let json = project.tunesmith(&["export", &id, "--output", "out/adapter", "--json"]).expect(0).json();
    assert_eq!((json["format"].as_str(), json["rank"].as_u64()), (Some("peft"), Some(4)));
    assert!(adapter_bytes(&project.path("out/adapter")) == adapter_bytes(&project.only_run().join("adapter")));
    let config = json_file(&project.path("out/adapter/adapter_config.json"));
    assert_eq!((config["peft_type"].as_str(), config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some("LORA"), Some(4), Some(8.0)));
    project.tunesmith(&["export", &id, "--output", "out/adapter"]).refused(&["exists already"]);
    let plain = project.tunesmith(&["export", &id, "--output", "out/other"]).expect(0);
    assert_eq!(plain.stdout, "out/other\n");
    project.tunesmith(&["audit", &id]).expect(0);
    let ledger = std::fs::read_to_string(project.only_run().join("ledger.jsonl")).unwrap();
    assert_eq!(ledger.lines().filter(|line| line.contains("\"exported\"")).count(), 2, "what left the project has a line each");
}

#[test]
fn a_run_merged_is_a_model_to_talk_with() {
    let (_original, project) = Project::finished_copy();
    let id = run_id(&project);
    let exported = project.tunesmith(&["export", &id, "--to", "gguf-f32", "--output", "out/support.gguf", "--json"]).expect(0).json();
    let proof = &exported["proof"];
    assert_eq!((proof["method"].as_str(), proof["prompts_from"].as_str()), (Some("logits"), Some("test records")));
    assert_eq!(json_file(&project.path("out/support.gguf.proof.json")), *proof);
    let prepared = json_file(&project.only_run().join("data/prepared.json"));
    let system = prepared["instruction"].as_str().unwrap();
    let message = "Where is my lamp? Order 4000.";
    let tuned = project.pipe(&["chat", &id], message).expect(0).stdout;
    assert_eq!(project.pipe(&["chat", "out/support.gguf", "--system", system], message).expect(0).stdout, tuned);
    let adapter = project.tunesmith(&["export", &id, "--to", "gguf-lora", "--output", "out/lora.gguf"]).expect(0);
    assert!(adapter.stderr.contains("are the same numbers") && adapter.stderr.contains("--lora out/lora.gguf"), "{}", adapter.stderr);
    let beside = ["chat", "base", "--adapter", "out/lora.gguf", "--system", system];
    assert_eq!(project.pipe(&beside, message).expect(0).stdout, tuned);
    project
        .tunesmith(&["export", &id, "--to", "hf", "--model", "base", "--output", "out/hf"])
        .refused(&["--model", "a run, which has its own"]);
    project.tunesmith(&["audit", &id]).expect(0);
}

#[test]
fn a_redacted_report_holds_no_customer_text() {
    let (_original, project) = Project::finished_copy();
    let run = project.only_run();
    let json = project.tunesmith(&["report", &run_id(&project), "--redacted", "--json"]).expect(0).json();
    let page = text(&project.path(json["report"].as_str().unwrap()));
    let whole = text(&run.join("report.html"));
    let escaped = |text: &str| text.replace('&', "&amp;").replace('\'', "&#39;").replace('"', "&quot;");
    let (mut shown, mut inputs) = (0, 0);
    for part in ["train", "validation", "test"] {
        for line in text(&run.join(format!("data/records/{part}.jsonl"))).lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            for message in record["messages"].as_array().unwrap().iter().filter(|message| message["role"] == "user") {
                let input = message["content"].as_str().unwrap();
                inputs += 1;
                shown += usize::from(whole.contains(input) || whole.contains(&escaped(input)));
                assert!(!page.contains(input) && !page.contains(&escaped(input)), "{input:?} is in the redacted report");
            }
        }
    }
    assert!(inputs >= 64 && shown > 0, "{inputs} inputs, {shown} of them in the whole report");
}

#[test]
fn init_writes_a_run_file_that_plan_accepts() {
    let project = Project::bare();
    std::fs::create_dir_all(project.path("mine")).unwrap();
    project.write("mine/tickets.csv", crate::tiny::tickets());
    let ended = project.tunesmith(&["init", "mine/tickets.csv"]).expect(0);
    assert_eq!(ended.stdout, "mine/tunesmith.toml\n");
    let written = project.text("mine/tunesmith.toml");
    assert!(written.contains('#') && written.contains("message"), "{written}");
    project.tunesmith(&["init", "mine/tickets.csv"]).refused(&["exists already", "--force"]);
    project.tunesmith(&["init", "mine/tickets.csv", "--force", "--json"]).expect(0).json();
    let base = written.lines().find(|line| line.starts_with("base = ")).unwrap();
    project.edit_file("mine/tunesmith.toml", base, "base = \"base\"");
    let plan = project.tunesmith(&["plan", "mine"]).expect(0);
    assert!(plan.stdout.contains("points"), "{plan}");
}

#[test]
fn doctor_and_pull_answer_without_a_network() {
    let project = Project::bare();
    let doctor = project.tunesmith(&["doctor"]);
    assert!(matches!(doctor.code, Some(0 | 1)) && !doctor.stdout.is_empty(), "{doctor}");
    project.tunesmith(&["doctor", "--json"]).json();
    let list = project.tunesmith(&["pull"]).expect(0);
    assert!(list.stdout.contains("smollm2-135m-instruct"), "{list}");
    project.tunesmith(&["pull", "--json"]).expect(0).json();
    project.tunesmith(&["pull", "smollm2-135m-instruct"]).refused_over_lines(&["no-such-python", "folder"]);
    project.nothing_half_written();
}

#[test]
fn bench_train_measures_a_tiny_model() {
    let project = Project::bare();
    let json = project
        .tunesmith(&["bench", "train", "--model", "base", "--batch", "2", "--length", "32", "--rank", "4", "--steps", "3", "--json"])
        .expect(0)
        .json();
    for key in ["tokens_per_second", "losses", "gflops", "flops_formula", "planned_bytes", "peak_rss_bytes"] {
        assert!(json.get(key).is_some(), "no {key}: {json}");
    }
}

#[test]
fn bench_sft_shares_the_instruction_and_takes_the_adapter() {
    let project = Project::new();
    let file = project.path("tickets/tickets.csv").display().to_string();
    let table = ["--input", "message", "--target", "intent", "--instruction", "Say what it is about.", "--model", "base", "--json"];
    let command = [&["bench", "sft", &file, "--records", "10", "--batch", "4", "--rank", "4"][..], &table].concat();
    let json = project.tunesmith(&command).expect(0).json();
    assert_eq!((&json["steps"], json["losses"].as_array().map(Vec::len)), (&json!(3), Some(3)));
    assert!(json["tokens_computed"].as_u64() < json["tokens_rendered"].as_u64(), "nothing was shared: {json}");
    for key in ["examples_per_second", "peak_rss_bytes"] {
        assert!(json[key].is_number(), "no {key}: {json}");
    }
    let too_many = [&["bench", "sft", &file, "--records", "100000"][..], &table].concat();
    project.tunesmith(&too_many).refused(&["--records: 100000", "from 1 to the file's"]);

    let command = [&["bench", "choose", &file, "--records", "6"][..], &table].concat();
    let json = project.tunesmith(&command).expect(0).json();
    assert!(json["items_per_second"].as_f64() > Some(0.0), "{json}");
    let choices = json["choices"].as_array().expect("choices");
    assert!(choices.len() == 6 && choices.iter().all(|choice| project.text("tickets/tickets.csv").contains(choice.as_str().unwrap())));
}

#[test]
fn bench_generate_reads_and_writes() {
    let json = Project::bare().tunesmith(&["bench", "generate", "--model", "base", "--json"]).expect(0).json();
    for key in ["prefill_tokens_per_second", "generate_tokens_per_second", "batch32_tokens_per_second"] {
        assert!(json[key].as_f64() > Some(0.0), "no {key}: {json}");
    }
}

#[test]
fn runs_of_an_empty_workspace() {
    let project = Project::bare();
    let ended = project.tunesmith(&["runs"]).expect(0);
    assert!(ended.stdout.is_empty() && ended.stderr.contains("no runs"), "{ended}");
    assert_eq!(project.tunesmith(&["runs", "--json"]).expect(0).json(), json!([]));
    for command in [
        &["runs", "show", "x"][..],
        &["runs", "resume", "x"],
        &["evaluate", "x"],
        &["report", "x"],
        &["audit", "x"],
        &["compare", "x", "y"],
    ] {
        project.tunesmith(command).refused(&["no run \"x\"", "hint: `tunesmith runs`"]);
    }
    project.tunesmith(&["export", "x", "--output", "out"]).refused(&["no run \"x\""]);
    assert!(!project.path("runs").exists(), "looking made a folder");
}

#[test]
fn plan_says_when_the_test_set_can_prove_nothing() {
    let project = Project::labels();
    let ended = project.tunesmith(&["plan", "tickets"]).expect(0);
    assert!(ended.stdout.contains("18 test items are too few to prove") && ended.stdout.contains("items\n"), "{ended}");
}

/// Everything that a command computes is the same wherever it is started from.
#[test]
fn a_run_file_names_its_base_from_its_own_folder() {
    let project = Project::new();
    std::fs::rename(project.path("base"), project.path("tickets/own-base")).unwrap();
    project.edit("base = \"base\"", "base = \"own-base\"");
    let ended = project.tunesmith(&["tune", "tickets", "--max-steps", "1", "--json"]).expect(0);
    let id = ended.json()["run"].as_str().unwrap().to_owned();
    let elsewhere = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        command.current_dir(std::env::temp_dir());
        finish(command, b"hello")
    };
    elsewhere(&["audit", &id]).expect(0);
    elsewhere(&["chat", &id, "--max-tokens", "2"]).expect(0);
    elsewhere(&["plan", project.path("tickets").to_str().unwrap()]).expect(0);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let project = Project::finished();
    let line = json!({ "ids": [1, 2, 3] }).to_string() + "\n";
    project.write("many.jsonl", line.repeat(3000));
    for arguments in
        [&["score", "many.jsonl", "--tokens", "--model", "base", "--json"][..], &["plan", "tickets"], &["score", "--help"], &["audit"]]
    {
        let quoted: Vec<String> = project.command(arguments).get_args().map(|a| format!("'{}'", a.to_str().unwrap())).collect();
        let mut shell = Command::new("bash");
        let script = format!("{} {} | head -n 1; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_tunesmith"), quoted.join(" "));
        shell.args(["-c", &script]).current_dir(project.path("")).stdin(Stdio::null());
        let ended = finish(shell, b"");
        let code = ended.stdout.lines().last().unwrap_or_default();
        assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("error: "), "{arguments:?}: {ended}");
        assert_eq!(code, "0", "{arguments:?}: {ended}");
    }
}

/// A full disk under stdout is no success.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let project = Project::finished();
    for arguments in [&["runs", "--json"][..], &["plan", "tickets", "--json"], &["audit", "--json"]] {
        let mut command = project.command(arguments);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        command.stdout(full).stderr(Stdio::piped());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("error: ") && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_gguf_file_is_a_base_like_any_other() {
    // Only that a file that is no GGUF is refused by name here; real ones are store's and recipes' tests.
    let project = Project::bare();
    project.write("model.gguf", bytes(&golden("tokenizer/tiny.json")));
    project.pipe(&["chat", "model.gguf"], "hello").refused(&["GGUF", "model.gguf"]);
}

/// A folder of XML files: each pair of question and answer is a row, which names its file.
#[test]
fn a_folder_of_xml_is_a_source() {
    let project = Project::new();
    for (file, thing) in ["kettle", "toaster", "lamp", "chair", "mixer", "grill", "blanket", "scale"].iter().enumerate() {
        // Asked differently enough that none is a near-duplicate of another.
        let asked = [
            format!("Where is the {thing} I ordered?"),
            format!("How do I clean my {thing}?"),
            format!("Can a {thing} be returned?"),
            format!("What does a new {thing} cost?"),
        ];
        let pairs: String = asked
            .iter()
            .enumerate()
            .map(|(i, question)| format!("<QAPair><Question>{question}</Question><Answer>In town {i}.</Answer></QAPair>"))
            .collect();
        project.write(&format!("tickets/faq/{file}.xml"), format!("<Document id=\"{file}\"><QAPairs>{pairs}</QAPairs></Document>"));
    }
    project.write("tickets/faq/logo.png", b"\x89PNG");
    project.edit("path = \"tickets.csv\"", "path = \"faq\"\nxml_record = \"QAPairs/QAPair\"");
    project.edit("input = \"message\"", "input = \"Question\"");
    project.edit("target = [\"intent\", \"product\", \"order\"]", "target = \"Answer\"");
    project.edit("group = \"customer\"", "group = \"Document.@id\"");
    project.edit(", stratify = \"intent\"", "");
    project.edit("id = \"id\"\n", "");
    let json = project.tunesmith(&["prepare", "tickets", "--json"]).expect(0).json();
    assert_eq!((json["data"]["rows"].as_u64(), json["data"]["records"].as_u64()), (Some(32), Some(32)));
    let run = project.only_run();
    assert!(text(&run.join("data/documents.jsonl")).contains("\"inner\":\"7.xml\""));
    assert!(text(&run.join("data/rejects.jsonl")).contains("faq:logo.png:1"));
}
