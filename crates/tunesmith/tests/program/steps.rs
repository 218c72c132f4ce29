//! Steps that change records, copy them and weigh them: what comes out, and the whole story of each row.

use serde_json::{Value, json};

use crate::project::{Project, json_file, text};

/// Prepares and gives the run's id.
fn prepared(project: &Project) -> (String, Value) {
    let json = project.tunesmith(&["prepare", "tickets", "--json"]).expect(0).json();
    (json["run"].as_str().unwrap().to_owned(), json)
}

fn records(project: &Project, id: &str, part: &str) -> Vec<Value> {
    let run = project.runs().into_iter().find(|run| run.ends_with(id)).unwrap();
    text(&run.join(format!("data/records/{part}.jsonl"))).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn copies_tell_whose_they_are_and_are_made_again() {
    let project = Project::labels();
    let (plain, _) = prepared(&project);
    project.write("tickets/synonyms.txt", "# ours\nkettle, boiler\nbroken, damaged, in pieces\n");
    project.write("tickets/templates.txt", "Dear {team},\\n{text}\n");
    project.write("tickets/vocabulary.txt", "team: Support, Customer Care\n");
    project.edit("[prepare]\n", "[prepare]\naugment = { copies = 3, typos = 0.2, case = true, synonyms = \"synonyms.txt\", templates = \"templates.txt\", vocabulary = \"vocabulary.txt\" }\n");
    let (id, json) = prepared(&project);
    for part in ["validation", "test"] {
        assert_eq!(records(&project, &plain, part), records(&project, &id, part));
    }
    let train = records(&project, &id, "train");
    let copies: Vec<&Value> = train.iter().filter(|record| !record["lineage"]["parent"].is_null()).collect();
    let counted: u64 = json["data"]["augmented"]["kinds"].as_array().unwrap().iter().map(|kind| kind[1].as_u64().unwrap()).sum();
    assert!(copies.len() as u64 == counted && counted > 60, "{json}");
    let mut kinds = std::collections::BTreeSet::new();
    for copy in copies.iter().step_by(5) {
        let kind = copy["lineage"]["change"].as_str().unwrap();
        kinds.insert(kind.to_owned());
        let why = project.tunesmith(&["prepare", &id, "--why", copy["id"].as_str().unwrap(), "--json"]).expect(0).json();
        assert_eq!((&why["replayed"], &why["record"][1]), (&json!(true), *copy), "{why}");
        let told = why["found"].as_array().unwrap().last().unwrap().as_str().unwrap();
        assert!(told.contains(&format!("{kind}, a copy of {}", copy["lineage"]["parent"].as_str().unwrap())), "{told}");
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["case", "synonyms", "template", "typos"]);
    // The parent's own story is the parent's.
    let why = project.tunesmith(&["prepare", &id, "--why", train[0]["id"].as_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!((&why["replayed"], &why["record"][1]), (&json!(true), &train[0]));

    project.write("tickets/templates.txt", "The {product}\n");
    project.tunesmith(&["prepare", "tickets"]).refused(&["templates.txt line 1", "{text}"]);
    project.write("tickets/templates.txt", "{text} ({product})\n");
    project.tunesmith(&["prepare", "tickets"]).refused(&["templates.txt line 1", "{product}", "team"]);
}

/// A run with copies goes the whole way: labels are told from the originals, and few-shot shows no copy.
#[test]
fn copies_train_and_nothing_else() {
    let project = Project::labels();
    project.edit("[prepare]\n", "[prepare]\naugment = { typos = 0.2 }\nbalance = 1.0\nbalance_by = \"weights\"\n");
    project.edit("epochs = 4", "epochs = 1");
    let ended = project.tunesmith(&["run", "tickets"]);
    assert!(matches!(ended.code, Some(0 | 3 | 4)), "{ended}");
    let run = project.only_run();
    let shots = json_file(&run.join("evaluation/few-shot.json"));
    assert!(shots["chosen"].as_array().unwrap().iter().all(|id| !id.as_str().unwrap().contains('~')), "{shots}");
    let report = text(&run.join("report.html"));
    assert!(report.contains("of the training records are augmented copies") && report.contains("None is in validation or test."));
    assert!(text(&run.join("data/datasheet.md")).contains("augmented copies"));
    project.tunesmith(&["audit"]).expect(0);
}

/// A row of weight 2 counts as much as the same row standing there twice: the same losses, step by step, and others than without.
#[test]
fn a_weight_is_so_many_rows() {
    let losses = |weighted: bool, twice: bool| -> Vec<f64> {
        let project = Project::labels();
        let (mut train, mut test) = (String::new(), String::new());
        for (row, line) in project.text("tickets/tickets.csv").lines().enumerate() {
            let late = line.contains("where_is_order") || line.contains(",refund,");
            let line = if row == 0 { format!("{line},worth") } else { format!("{line},{}", if late && weighted { "2" } else { "" }) };
            if row == 0 || row > 40 {
                test += &format!("{line}\n");
            }
            if row <= 40 {
                train += &format!("{line}\n");
                if row > 0 && late && twice {
                    train += &format!("again-{line}\n");
                }
            }
        }
        project.write("tickets/tickets.csv", train);
        project.write("tickets/test.csv", test);
        project.edit("id = \"id\"\n", "id = \"id\"\nrole = \"train\"\nweight = \"worth\"\n[[data.source]]\npath = \"test.csv\"\ninput = \"message\"\ntarget = \"intent\"\nrole = \"test\"\nid = \"id\"\n");
        project.edit("test = 0.3, validation = 0.1", "test = 0.3, validation = 0.0");
        project.edit("[prepare]\n", "[prepare]\nduplicates = \"keep\"\nnear_duplicates = \"ignore\"\n");
        project.edit("batch = 6", "batch = 100\nmax_steps = 4");
        let ended = project.tunesmith(&["tune", "tickets"]);
        assert_eq!(ended.code, Some(0), "{ended}");
        let lines = text(&project.only_run().join("metrics.jsonl"));
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap()).collect()
    };
    let (plain, weighted, twice) = (losses(false, false), losses(true, false), losses(false, true));
    assert_eq!(weighted.len(), 4);
    for (weighted, twice) in weighted.iter().zip(&twice) {
        assert!((weighted - twice).abs() < 1e-4 * twice, "{weighted} and {twice}");
    }
    // Before the first step the losses are the base's: they differ by the weights alone.
    assert!((plain[0] - weighted[0]).abs() > 1e-3 * plain[0], "{plain:?} and {weighted:?}");
}

#[test]
fn forms_are_told_of_each_row() {
    let project = Project::new();
    let csv = project.text("tickets/tickets.csv").replacen(
        "\n",
        "\nx1,c99,\"The kettle of 24.12.2025 weighs 2 kilograms, not 1.234,50, see 03/04/2026.\",refund,kettle,\n",
        1,
    );
    project.write("tickets/tickets.csv", csv);
    project.edit("[prepare]\n", "[prepare]\ndates = \"iso\"\nnumbers = \"plain\"\nunits = \"symbols\"\n");
    let (id, json) = prepared(&project);
    let why = project.tunesmith(&["prepare", &id, "--why", "x1", "--json"]).expect(0).json();
    assert_eq!(why["replayed"], true);
    let asked = why["record"][1]["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    assert_eq!(asked, "The kettle of 2025-12-24 weighs 2 kg, not 1234.50, see 03/04/2026.");
    assert!(why["document"].to_string().contains("24.12.2025"), "documents stay");
    let counted =
        |what: &str| json["data"]["findings"].as_array().unwrap().iter().find(|found| found[0] == what).map(|found| found[1].clone());
    assert_eq!(counted("dates: changed"), Some(json!(1)));
    assert_eq!((counted("dates: left, could mean several"), counted("units: changed")), (Some(json!(1)), Some(json!(1))));
    assert!(why["found"].as_array().unwrap().contains(&json!("numbers: changed")), "{why}");
}

/// A run that was only prepared can be audited: nothing was changed, and what was changed is named.
#[test]
fn what_was_only_prepared_is_vouched_for() {
    let project = Project::labels();
    let (id, _) = prepared(&project);
    let json = project.tunesmith(&["audit", &id, "--json"]).expect(0).json();
    assert!(json["files"].as_u64().unwrap() > 8 && json["remarks"].as_array().unwrap().is_empty(), "{json}");
    // What the program takes in later is listed.
    let sheet = project.path("sample.csv");
    let sheet = sheet.to_str().unwrap();
    project.tunesmith(&["prepare", &id, "--sample", "3", "--out", sheet]).expect(0);
    let filled = project
        .text("sample.csv")
        .lines()
        .enumerate()
        .map(|(row, line)| if row == 0 { format!("{line}\n") } else { line.strip_suffix(",,").unwrap().to_owned() + ",accept,\n" })
        .collect::<String>();
    project.write("sample.csv", filled);
    project.tunesmith(&["prepare", &id, "--reviewed", sheet, "--by", "Ada"]).expect(0);
    project.tunesmith(&["label", "export", &id, "--sample", "3", "--out", project.path("labels.csv").to_str().unwrap()]).expect(0);
    let filled = project
        .text("labels.csv")
        .lines()
        .enumerate()
        .map(|(row, line)| if row == 0 { format!("{line}\n") } else { format!("{line}refund\n") })
        .collect::<String>();
    project.write("labels.csv", filled);
    project.tunesmith(&["label", "import", &id, project.path("labels.csv").to_str().unwrap(), "--annotator", "Ada"]).expect(0);
    project.tunesmith(&["audit", &id]).expect(0);
    let train = project.only_run().join("data/records/train.jsonl");
    std::fs::write(&train, text(&train).replacen("lamp", "lamb", 1)).unwrap();
    let ended = project.tunesmith(&["audit", &id]).expect(1);
    assert!(ended.to_string().contains("data/records/train.jsonl: changed"), "{ended}");
    // And nothing is built on it.
    let ended = project.tunesmith(&["runs", "resume", &id]).expect(1);
    assert!(ended.stderr.contains("train.jsonl"), "{ended}");
}
