//! `run`, `tune`, `evaluate`: the contract of their output, the files they leave, and their exit codes.

use std::path::Path;

use serde_json::Value;

use crate::project::{Ended, Project, adapter_bytes, json_file, text};

/// Checks the `--json` of an evaluated run against the contract, and its exit code against its verdict.
fn contract(ended: &Ended) -> Value {
    let json = ended.json();
    let keys = ["verdict", "metric", "arms", "difference", "adapter", "report", "seconds"];
    let lacking: Vec<&str> = keys.into_iter().filter(|key| json.get(key).is_none()).collect();
    assert!(lacking.is_empty(), "no {lacking:?}: {ended}");
    let code = match json["verdict"].as_str().unwrap() {
        "ship" => 0,
        "do not ship" => 3,
        "not enough evidence" => 4,
        other => panic!("{other:?} is no verdict: {ended}"),
    };
    assert_eq!(ended.code, Some(code), "{ended}");
    let fraction = |value: &Value| value.as_f64().is_some_and(|value| (0.0..=1.0).contains(&value));
    for (name, arm) in json["arms"].as_object().unwrap() {
        let interval = arm["interval"].as_array().unwrap();
        let (score, low, high) = (&arm["score"], &interval[0], &interval[1]);
        assert!(interval.len() == 2 && fraction(score) && fraction(low) && fraction(high), "{name}: {arm}");
        assert!(low.as_f64() <= score.as_f64() && score.as_f64() <= high.as_f64(), "{name}: {arm}");
        assert!(arm["n"].as_u64().is_some_and(|n| n > 0), "{name}: {arm}");
    }
    let difference = &json["difference"];
    assert!(json["arms"].get(difference["against"].as_str().unwrap()).is_some(), "{difference}");
    let estimate = difference["estimate"].as_f64().unwrap();
    let tuned = json["arms"]["tuned"]["score"].as_f64().unwrap();
    let rival = json["arms"][difference["against"].as_str().unwrap()]["score"].as_f64().unwrap();
    assert!((estimate - (tuned - rival)).abs() < 1e-9, "{json}");
    assert!(difference["interval"][0].as_f64().unwrap() <= estimate && estimate <= difference["interval"][1].as_f64().unwrap(), "{json}");
    assert!(fraction(&difference["p"]), "{json}");
    assert!(json["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    json
}

#[test]
fn the_json_of_a_run_and_the_files_it_leaves() {
    let project = Project::new();
    let ended = project.tunesmith(&["run", "tickets", "--json"]);
    let json = contract(&ended);
    let arms: Vec<&String> = json["arms"].as_object().unwrap().keys().collect();
    assert_eq!(arms, ["base", "classical", "few-shot", "tuned"]);
    assert_eq!((json["metric"].as_str(), json["difference"]["against"].as_str()), (Some("field_accuracy"), Some("few-shot")));
    for talk in ["Plan", "Prepare", "Measure before", "Tune", "Measure after"] {
        assert!(ended.stderr.contains(talk), "no {talk:?} on stderr: {ended}");
    }
    let run = project.only_run();
    for file in [
        "plan.toml",
        "tunesmith.toml",
        "run.json",
        "manifest.json",
        "ledger.jsonl",
        "metrics.jsonl",
        "training.json",
        "report.json",
        "report.html",
        "data/documents.jsonl",
        "data/rejects.jsonl",
        "data/records/train.jsonl",
        "data/records/validation.jsonl",
        "data/records/test.jsonl",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    ] {
        assert!(run.join(file).is_file(), "no {file}");
    }
    assert!(project.path("runs/ledger.jsonl").is_file());
    let inside = |value: &Value| project.path(value.as_str().unwrap());
    assert_eq!(inside(&json["adapter"]), project.path("").join(run.join("adapter")));
    assert_eq!(inside(&json["report"]), project.path("").join(run.join("report.html")));
    let page = text(&run.join("report.html"));
    assert!(page.contains("<html") && !page.contains("src=\"http") && !page.contains("href=\"http"), "the report needs a network");
    project.nothing_half_written();
}

#[cfg(unix)]
#[test]
fn a_run_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::finished();
    let run = project.only_run();
    for folder in [project.path("runs"), run.parent().unwrap().to_owned(), run] {
        let mode = folder.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}: {mode:o}", folder.display());
    }
}

#[test]
fn without_json_there_is_a_table_a_verdict_and_the_paths() {
    let project = Project::labels();
    let ended = project.tunesmith(&["run", "tickets"]);
    assert!(matches!(ended.code, Some(0 | 3 | 4)), "{ended}");
    for part in ["base", "few-shot", "classical", "tuned", "report.html", "adapter"] {
        assert!(ended.stdout.contains(part), "no {part}: {ended}");
    }
    assert!(["SHIP", "DO NOT SHIP", "NOT ENOUGH EVIDENCE"].iter().any(|word| ended.stdout.to_uppercase().contains(word)), "{ended}");
    assert!(ended.stdout.to_lowercase().contains("not measured"), "{ended}");
}

/// The tiny base learns four labels, so a gate that it can pass is passed.
#[test]
fn a_model_that_learned_ships() {
    let project = Project::labels();
    project.edit("group = \"customer\"\n", "");
    project.edit("rank = 4\nepochs = 4", "rank = 16\nepochs = 15\npatience = 0\nkeep = \"last\"");
    project.edit("beats = [\"few-shot\"]", "beats = [\"few-shot\", \"base\"]\naccuracy_at_least = 0.3");
    let json = contract(&project.tunesmith(&["run", "tickets", "--json"]).expect(0));
    assert_eq!(json["verdict"], "ship");
    assert!(json["arms"]["tuned"]["score"].as_f64().unwrap() > 0.7, "{json}");
}

#[test]
fn a_gate_that_is_not_reached_refuses() {
    let project = Project::labels();
    project.edit("epochs = 4", "max_steps = 1");
    project.edit("beats = [\"few-shot\"]", "beats = [\"base\"]\naccuracy_at_least = 1.0");
    let json = contract(&project.tunesmith(&["run", "tickets", "--json"]));
    assert_eq!(json["verdict"], "do not ship");
}

#[test]
fn training_that_leaves_the_numbers_is_refused() {
    let project = Project::labels();
    project.edit("learning_rate = 0.005", "learning_rate = 1e30");
    let ended = project.tunesmith(&["tune", "tickets"]);
    ended.refused(&["step ", "is not finite", "hint: set [tune] learning_rate to a tenth"]);
}

/// Base against base: an adapter that learned nothing must not beat the model it sits on.
#[test]
fn base_against_base_does_not_ship() {
    for mode in ["choose", "free"] {
        let project = Project::labels();
        project.edit("learning_rate = 0.005", "learning_rate = 1e-12");
        project.edit("beats = [\"few-shot\"]", "beats = [\"base\"]");
        project.edit("[evaluate]\n", &format!("[evaluate]\nmode = \"{mode}\"\narms = [\"base\", \"tuned\"]\n"));
        let json = contract(&project.tunesmith(&["run", "tickets", "--json"]));
        assert_ne!(json["verdict"], "ship", "{mode}");
        assert_eq!(json["difference"]["estimate"], 0.0, "{mode}");
    }
}

#[test]
fn shuffled_targets_do_not_ship() {
    let project = Project::labels();
    project.edit("rank = 4\nepochs = 4", "rank = 16\nepochs = 15\npatience = 0\nkeep = \"last\"");
    project.edit("group = \"customer\"\n", "");
    project.edit("[prepare]\n", "[prepare]\nshuffle_targets = true\n");
    project.edit("beats = [\"few-shot\"]", "beats = [\"base\", \"few-shot\", \"classical\"]");
    // The classical arm learns from the same shuffled targets.
    let json = contract(&project.tunesmith(&["run", "tickets", "--json"]));
    assert_ne!(json["verdict"], "ship");
}

#[test]
fn tune_prints_adapter_steps_and_losses() {
    let project = Project::new();
    let ended = project.tunesmith(&["tune", "tickets", "--max-steps", "5", "--threads", "2", "--json"]).expect(0);
    let json = ended.json();
    assert_eq!(json["steps"], 5);
    let losses: Vec<f64> = json["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 5);
    assert!(losses[4] < losses[0], "it learns: {losses:?}");
    let adapter = project.path(json["adapter"].as_str().unwrap());
    assert!(adapter.join("adapter_model.safetensors").is_file() && adapter.join("adapter_config.json").is_file());
    let config = json_file(&adapter.join("adapter_config.json"));
    assert_eq!((config["peft_type"].as_str(), config["r"].as_u64()), (Some("LORA"), Some(4)));
}

#[test]
fn an_adapter_is_the_same_bytes_at_any_thread_count_and_under_both_memory_policies() {
    let project = Project::new();
    let tune = |options: &[&str]| -> (Vec<u8>, Value) {
        let arguments = [&["tune", "tickets", "--max-steps", "8", "--json"], options].concat();
        let json = project.tunesmith(&arguments).expect(0).json();
        (adapter_bytes(&project.path(json["adapter"].as_str().unwrap())), json["losses"].clone())
    };
    let (adapter, losses) = tune(&["--threads", "1"]);
    for options in
        [["--threads", "2", "--memory", "keep"], ["--threads", "7", "--memory", "keep"], ["--threads", "2", "--memory", "recompute"]]
    {
        let (other, other_losses) = tune(&options);
        assert_eq!(losses, other_losses, "{options:?}");
        assert!(adapter == other, "{options:?}: other bytes");
    }
    project.tunesmith(&["tune", "tickets", "--memory", "1MiB"]).refused(&["MB", "hint: "]);
}

/// A base that does not fit is read from its mapped file by itself, to the same bytes; where that is not wanted, the run is refused.
#[test]
fn a_base_that_does_not_fit_is_mapped() {
    let with = |mapped: &str| {
        let project = Project::new();
        project.edit("[model]\n", &format!("[model]\nmapped = \"{mapped}\"\n"));
        project
    };
    let planned = |project: &Project| {
        let json = project.tunesmith(&["plan", "tickets", "--memory", "recompute", "--json"]).expect(0).json();
        json["memory"]["planned_bytes"].as_u64().unwrap()
    };
    let (always, auto, never) = (with("always"), with("auto"), with("never"));
    let (mapped, copied) = (planned(&always), planned(&never));
    assert!(mapped < copied && planned(&auto) == copied, "{mapped} of {copied} bytes");
    let limit = format!("{}kB", (mapped + copied) / 2000);
    never.tunesmith(&["plan", "tickets", "--memory", &limit]).refused(&["MB", "hint: "]);
    let plan = auto.tunesmith(&["plan", "tickets", "--memory", &limit]).expect(0).stdout;
    assert!(plan.contains("the system may drop them") && plan.contains("mapped from the files "), "{plan}");
    let tune = |project: &Project, memory: &str| {
        let json = project.tunesmith(&["tune", "tickets", "--max-steps", "8", "--json", "--memory", memory]).expect(0).json();
        (adapter_bytes(&project.path(json["adapter"].as_str().unwrap())), json["losses"].clone())
    };
    let whole = tune(&never, "keep");
    assert!(tune(&auto, &limit) == whole, "other bytes");
    assert!(tune(&always, "keep") == whole, "other bytes");
    always.edit("[model]\n", "[engine]\ncompute = \"fast\"\n\n[model]\n");
    always.tunesmith(&["plan", "tickets"]).refused(&["model.mapped", "a copy"]);
}

#[test]
fn a_second_run_of_the_same_file_is_the_first_again() {
    let project = Project::new();
    let [first, second] = [0, 1].map(|_| contract(&project.tunesmith(&["run", "tickets", "--json"])));
    for key in ["verdict", "metric", "arms", "difference"] {
        assert_eq!(first[key], second[key], "{key}");
    }
    let [one, two] = [&first, &second].map(|json| adapter_bytes(Path::new(&project.path(json["adapter"].as_str().unwrap()))));
    assert!(one == two, "the adapters differ");

    // Two runs to list, to tell apart, and to compare.
    let ids = [&first, &second].map(|json| json["run"].as_str().unwrap().to_owned());
    let listed = project.tunesmith(&["runs"]).expect(0);
    let shown = project.tunesmith(&["runs", "--json"]).expect(0).json();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    for id in &ids {
        assert!(listed.stdout.contains(id.as_str()), "{listed}");
        let show = project.tunesmith(&["runs", "show", id, "--json"]).expect(0).json();
        assert_eq!(show["stage"], "reported", "{show}");
        assert!(project.tunesmith(&["runs", "show", id]).expect(0).stdout.contains("reported"));
    }
    let compared = project.tunesmith(&["compare", &ids[0], &ids[1], "--json"]).expect(0).json();
    assert_eq!(compared["estimate"], 0.0);
    assert_eq!(compared["n"], first["arms"]["tuned"]["n"]);
    let sentence = project.tunesmith(&["compare", &ids[0], &ids[1]]).expect(0).stdout;
    assert!(sentence.contains(&ids[0]) && sentence.contains("95 %"), "{sentence}");
    let date = &ids[0][..8];
    project.tunesmith(&["runs", "show", date]).refused(&["2 runs"]);
}

#[test]
fn tune_then_evaluate_is_run() {
    let whole = Project::new();
    let run = contract(&whole.tunesmith(&["run", "tickets", "--json"]));
    let parts = Project::new();
    let tuned = parts.tunesmith(&["tune", "tickets", "--json"]).expect(0).json();
    let evaluated = contract(&parts.tunesmith(&["evaluate", tuned["run"].as_str().unwrap(), "--json"]));
    for key in ["verdict", "metric", "arms", "difference"] {
        assert_eq!(run[key], evaluated[key], "{key}");
    }
}

#[test]
fn answers_of_an_incumbent_stand_beside_the_others() {
    let (_original, project) = Project::finished_copy();
    let run = project.only_run();
    let id = run.file_name().unwrap().to_str().unwrap().to_owned();
    let mut csv = "id,answer\n".to_owned();
    let mut jsonl = String::new();
    for line in text(&run.join("data/records/test.jsonl")).lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let id = record["id"].as_str().unwrap();
        let row: usize = id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        let order = if row.is_multiple_of(3) { (4000 + row).to_string() } else { "null".into() };
        let answer = format!("{{\"intent\": \"refund\", \"product\": \"lamp\", \"order\": {order}}}");
        csv += &format!("{id},\"{}\"\n", answer.replace('"', "\"\""));
        jsonl += &format!("{}\n", serde_json::json!({ "id": id, "answer": answer }));
    }
    project.write("incumbent.csv", csv);
    project.write("incumbent.jsonl", jsonl);
    let json = contract(&project.tunesmith(&["evaluate", &id, "--answers", "incumbent.csv", "--json"]));
    let score = json["arms"]["imported"]["score"].as_f64().unwrap();
    assert!(score > 0.3 && score < 0.9, "{json}");
    let again = contract(&project.tunesmith(&["evaluate", &id, "--answers", "incumbent.jsonl", "--json"]));
    assert_eq!(json["arms"], again["arms"]);
    project.tunesmith(&["evaluate", &id, "--answers", "no-such.csv"]).refused(&["no-such.csv"]);
    project.write("incumbent.csv", "name,answer\nx,y\n");
    project.tunesmith(&["evaluate", &id, "--answers", "incumbent.csv"]).refused(&["\"id\""]);
}
