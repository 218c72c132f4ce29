//! Methods other than plain LoRA: what they leave in the run folder, that it answers, and that a killed run ends with the same bytes.
#![cfg(unix)]

use std::path::Path;

use serde_json::Value;

use crate::project::{Project, bytes, json_file, start, until, wait};

/// A run file that trains this way, briefly.
fn project(method: &str) -> Project {
    let project = Project::new();
    project.edit("[tune]\n", &format!("[tune]\n{method}\ncheckpoint_seconds = 1e-9\n"));
    project
}

/// The bytes of a tensor of a safetensors file.
fn tensor(path: &Path, name: &str) -> Option<Vec<u8>> {
    let file = bytes(path);
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    let at = |i: usize| json[name]["data_offsets"][i].as_u64().map(|offset| 8 + header + offset as usize);
    Some(file[at(0)?..at(1)?].to_vec())
}

fn full() -> Project {
    let project = project("method = \"full\"\nfreeze = \"norms\"");
    project.edit("rank = 4\n", "");
    project
}

#[test]
fn full_fine_tuning_leaves_a_model_that_is_measured_and_answers() {
    let project = full();
    let ended = project.tunesmith(&["run", "tickets", "--json"]);
    let json = ended.json();
    let run = project.only_run();
    assert!(json["adapter"].as_str().unwrap().ends_with("/model"), "{json}");
    assert!(!run.join("adapter").exists());
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"] {
        assert!(run.join("model").join(file).is_file(), "no {file}");
    }
    assert_eq!(json_file(&run.join("model/config.json"))["torch_dtype"], "float32");
    let id = run.file_name().unwrap().to_str().unwrap().to_owned();
    project.tunesmith(&["audit", &id]).expect(0);
    project.tunesmith(&["export", &id, "--output", "out"]).refused(&["full fine-tuning", "/model"]);
    let training: Value = json_file(&run.join("training.json"));
    let losses: Vec<f64> = training["steps"].as_array().unwrap().iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    // The norms are the base's, the rest is not.
    let tensor = |folder: &str, name: &str| tensor(&project.path(folder).join("model.safetensors"), name).unwrap();
    let model = run.join("model");
    let model = model.to_str().unwrap();
    for (name, frozen) in
        [("model.norm.weight", true), ("model.embed_tokens.weight", false), ("model.layers.1.mlp.down_proj.weight", false)]
    {
        assert_eq!(tensor("base", name) == tensor(model, name), frozen, "{name}");
    }
    // The run and the folder are one model.
    let greeting = "Where is my parcel?\n";
    let answer = project.pipe(&["chat", model], greeting).expect(0).stdout;
    let of_run = project.pipe(&["chat", &id, "--system", ""], greeting).expect(0).stdout;
    assert!(!answer.is_empty() && !of_run.is_empty());
}

#[test]
fn full_fine_tuning_that_was_killed_ends_with_the_same_bytes() {
    killed_and_resumed_in_full("");
}

/// The tiny model's embedding and layers of more than 4096 numbers have their moments in 8 bits.
#[test]
fn moments_in_8_bits_are_resumed_with_the_same_bytes() {
    killed_and_resumed_in_full("optimizer = \"adamw_8bit\"\n");
}

fn killed_and_resumed_in_full(keys: &str) {
    let full = || {
        let project = full();
        project.edit("freeze = \"norms\"\n", &format!("freeze = \"norms\"\n{keys}"));
        project
    };
    let whole = full();
    let losses = whole.tunesmith(&["tune", "tickets", "--json"]).json()["losses"].clone();
    let weights = |project: &Project| bytes(&project.only_run().join("model/model.safetensors"));
    let killed = full();
    let mut child = start(killed.command(&["tune", "tickets"]));
    let lines = |project: &Project| {
        project
            .runs()
            .first()
            .and_then(|run| std::fs::read_to_string(run.join("metrics.jsonl")).ok())
            .map_or(0, |text| text.lines().count())
    };
    until("some steps", &mut child, || lines(&killed) >= 5);
    child.kill().unwrap();
    assert_eq!(wait(child, "tune".into()).code, None);
    let id = killed.only_run().file_name().unwrap().to_str().unwrap().to_owned();
    let resumed = killed.tunesmith(&["runs", "resume", &id, "--json"]).expect(0).json();
    assert_eq!(resumed["losses"], losses);
    assert!(weights(&killed) == weights(&whole), "other bytes after a kill");
    killed.nothing_half_written();
}

#[test]
fn dora_and_pissa_leave_adapters_that_peft_knows() {
    for (method, rank, dora) in [("dora = true", 1, true), ("init = \"pissa\"", 2, false)] {
        let project = project(&format!("{method}\nlayers = \"last 1\"\nlora_plus_ratio = 4.0"));
        project.tunesmith(&["tune", "tickets", "--json"]).expect(0);
        let run = project.only_run();
        let config = json_file(&run.join("adapter/adapter_config.json"));
        assert_eq!(config["use_dora"], dora, "{method}");
        assert_eq!(config["r"], 4 * rank, "{method}");
        assert_eq!(config["layers_to_transform"], serde_json::json!([1]), "{method}");
        assert_eq!(config["init_lora_weights"], true, "{method}");
        let name = "base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector";
        assert_eq!(tensor(&run.join("adapter/adapter_model.safetensors"), name).is_some(), dora, "{method}");
        let id = run.file_name().unwrap().to_str().unwrap().to_owned();
        project.tunesmith(&["evaluate", &id, "--json"]).json();
    }
}

#[test]
fn what_full_fine_tuning_cannot_do_is_refused_by_name() {
    let project = project("method = \"full\"");
    project.tunesmith(&["plan", "tickets"]).refused(&["tune.rank", "setting of LoRA"]);
    project.edit("rank = 4\n", "");
    project.edit("learning_rate = 0.005", "learning_rate = 0.0");
    project.tunesmith(&["plan", "tickets"]).refused(&["tune.learning_rate"]);
    let lora = self::project("freeze = \"norms\"");
    lora.tunesmith(&["plan", "tickets"]).refused(&["tune.freeze", "an adapter leaves the whole base frozen"]);
    let embeddings = self::project("targets = [\"q_proj\", \"embed_tokens\"]");
    embeddings.tunesmith(&["plan", "tickets"]).refused(&["tune.targets", "new tokens are not trained beside LoRA"]);
}
