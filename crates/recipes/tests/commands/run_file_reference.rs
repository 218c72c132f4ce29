//! docs/reference/run-file.md names every key that there is, and no other, with the defaults that hold.

use std::collections::BTreeMap;
use std::path::Path;

use recipes::spec::{KEYS, RunFile};
use serde_json::Value;

const PAGE: &str = include_str!("../../../../docs/reference/run-file.md");

/// (section, key) → the default's cell, of all tables of keys.
fn documented() -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    let (mut section, mut keys) = (String::new(), false);
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## `") {
            section = title.trim_end_matches('`').trim_matches(['[', ']']).to_owned();
        }
        match line.strip_prefix("| ") {
            Some(row) => {
                let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
                keys |= cells[0] == "key";
                if keys && cells[0].starts_with('`') {
                    let before = found.insert((section.clone(), cells[0].trim_matches('`').to_owned()), cells[2].to_owned());
                    assert_eq!(before, None, "{section}.{} stands twice", cells[0]);
                }
            }
            None => keys &= line.starts_with('|'),
        }
    }
    found
}

#[test]
fn every_key_and_no_other() {
    let documented = documented();
    let known: Vec<(String, String)> = KEYS
        .iter()
        .filter(|(section, _)| !section.is_empty())
        .flat_map(|(section, keys)| keys.iter().map(|key| ((*section).to_owned(), (*key).to_owned())))
        .collect();
    for key in &known {
        assert!(documented.contains_key(key), "{key:?} is not in docs/reference/run-file.md");
    }
    for key in documented.keys() {
        assert!(known.contains(key), "{key:?} is in docs/reference/run-file.md, but there is no such key");
    }
}

#[test]
fn defaults_are_those_that_hold() {
    let text = "[model]\nbase = \"b\"\n[[data.source]]\npath = \"tickets.csv\"\ninput = \"message\"\ntarget = \"category\"";
    let plan = RunFile::parse(text, Path::new("tunesmith.toml")).unwrap().resolve(Path::new("/somewhere/tunesmith.toml")).unwrap();
    let plan = serde_json::to_value(plan).unwrap();
    // Where the plan keeps a value under another name or in another form than the run file.
    let told_otherwise = [
        "project.name",
        "model.template",
        "model.storage",
        "model.mapped",
        "engine.compute",
        "engine.kv_cache",
        "data.source.format",
        "data.source.group",
        "data.source.id",
        "data.source.sheet",
        "data.source.xml_record",
        "data.source.delimiter",
        "data.source.quote",
        "data.source.header",
        "data.source.encoding",
        "data.source.broken_rows",
        "data.source.mojibake",
        "data.source.chunk_by",
        "prepare.duplicates",
        "prepare.conflicts",
        "prepare.shingle",
        "data.source.weight",
        "prepare.balance_by",
        "prepare.dates",
        "prepare.date_order",
        "prepare.numbers",
        "prepare.decimal_mark",
        "prepare.units",
        "prepare.augment",
        "prepare.augment.copies",
        "prepare.augment.typos",
        "prepare.augment.case",
        "prepare.augment.synonyms",
        "prepare.augment.templates",
        "prepare.augment.vocabulary",
        "prepare.split.stratify",
        "prepare.split.near_ood",
        "tune.alpha",
        "tune.targets",
        "tune.optimizer",
        "evaluate.metric",
        "evaluate.mode",
        "evaluate.answers",
    ];
    let mut compared = 0;
    for ((section, key), shown) in documented() {
        if told_otherwise.contains(&format!("{section}.{key}").as_str()) || section == "gate" && key != "beats" {
            continue;
        }
        let place = match section.as_str() {
            "prepare.split" => &plan["prepare"],
            "prepare.split.near_ood" => &plan["prepare"]["near_ood"],
            "data.source" => &plan["sources"][0],
            "data" => &plan,
            section => &plan[section],
        };
        match &place[&key] {
            Value::Null => assert!(shown == "*required*" || shown == "see below", "{section}.{key}: {shown}"),
            Value::String(text) if text.is_empty() => {
                assert!(["BLANK", "none"].contains(&shown.as_str()) || key == "instruction", "{section}.{key}: {shown}")
            }
            Value::String(_) if shown == "*required*" || shown.starts_with("the rows' shape") => {}
            Value::Array(_) if shown.starts_with("the rows' shape") => {}
            value => {
                let shown: Value =
                    serde_json::from_str(shown.trim_matches('`')).unwrap_or_else(|error| panic!("{section}.{key}: {shown}: {error}"));
                let equal = shown == *value || shown.as_f64().zip(value.as_f64()).is_some_and(|(a, b)| a == b);
                assert!(equal, "{section}.{key} is documented as {shown}, but it is {value}");
                compared += 1;
            }
        }
    }
    assert!(compared > 25, "only {compared} defaults were compared");
}

#[test]
fn what_is_told_otherwise() {
    let documented = documented();
    let shown = |section: &str, key: &str| documented[&(section.to_owned(), key.to_owned())].clone();
    let text =
        "[model]\nbase = \"b\"\n[[data.source]]\npath = \"tickets.csv\"\ninput = \"message\"\ntarget = [\"a\", \"b\"]\n[tune]\nrank = 5";
    let plan = RunFile::parse(text, Path::new("tunesmith.toml")).unwrap().resolve(Path::new("/somewhere/tunesmith.toml")).unwrap();
    assert_eq!((plan.project.name.as_str(), shown("project", "name").as_str()), ("somewhere", "the folder's name"));
    assert_eq!((plan.tune.alpha, shown("tune", "alpha").as_str()), (10.0, "`2 · rank`"));
    assert_eq!((plan.tune.targets.len(), shown("tune", "targets").as_str()), (7, "all seven"));
    assert_eq!((plan.prepare.stratify.as_str(), shown("prepare.split", "stratify").as_str()), ("a", "the first target"));
    assert_eq!((plan.prepare.drop_duplicates, shown("prepare", "duplicates").as_str()), (true, "`\"drop\"`"));
    assert_eq!((plan.prepare.drop_conflicts, shown("prepare", "conflicts").as_str()), (false, "`\"report\"`"));
    assert_eq!((plan.evaluate.metric.as_str(), shown("evaluate", "metric").as_str()), ("field_accuracy", "by the answers"));
    assert!(plan.gate.at_least.is_empty());
    assert_eq!((plan.sources[0].make.chunk_at_headings, shown("data.source", "chunk_by").as_str()), (true, "`\"headings\"`"));
    let reading = &plan.sources[0].reading;
    for (key, given) in [("delimiter", &reading.delimiter), ("quote", &reading.quote), ("encoding", &reading.encoding)] {
        assert_eq!((given.as_str(), shown("data.source", key).as_str()), ("", "recognised"));
    }
    assert_eq!((reading.sheet.as_str(), shown("data.source", "sheet").as_str()), ("", "all visible ones"));
    assert_eq!((reading.xml_record.as_str(), shown("data.source", "xml_record").as_str()), ("", "*required* for XML"));
    assert_eq!((reading.header, shown("data.source", "header").as_str()), (true, "`true`"));
    assert_eq!((reading.reject_broken_rows, shown("data.source", "broken_rows").as_str()), (false, "`\"refuse\"`"));
    assert_eq!((reading.repair_mojibake, shown("data.source", "mojibake").as_str()), (true, "`\"repair\"`"));
}
