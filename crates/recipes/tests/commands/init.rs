//! `init`: what it writes can be run, whatever the file's names and texts are.

use std::path::Path;

use recipes::error::Error;
use recipes::init::{InitOutcome, init};
use recipes::spec::{Mode, RunFile, RunPlan};
use serde_json::json;

use crate::home::{Home, Listener};

fn run(home: &Home, file: &Path, output: Option<&Path>) -> Result<(InitOutcome, RunPlan, String), Error> {
    let outcome = init(&home.context(), &mut Listener::default(), file, output, false)?;
    let text = store::atomic::read_text(&outcome.run_file, 1 << 20)?;
    let plan = RunFile::parse(&text, &outcome.run_file)?.resolve(&outcome.run_file)?;
    Ok((outcome, plan, text))
}

const PRODUCTS: [&str; 5] = ["kettle", "toaster", "blender", "air fryer", "mixer"];
const KINDS: [&str; 4] = ["where_is_order", "return_item", "complaint", "product_question"];

/// Messages of customers, with several fields of an answer.
fn tickets() -> String {
    let mut rows = String::from("id,customer,message,intent,order\n");
    for index in 0..120 {
        let (product, kind) = (PRODUCTS[index % 5], KINDS[index % 4]);
        rows += &format!(
            "T{index:04},C-{:04},\"My {product} number {index} has not come yet, where is it, and when will it be here?\",{kind},{}\n",
            index / 2,
            300_000 + index
        );
    }
    rows
}

#[test]
fn a_table_of_tickets() {
    let home = Home::new();
    let file = home.write("shop/Tickets 2025.csv", tickets());
    let (outcome, plan, text) = run(&home, &file, None).unwrap();
    assert_eq!(outcome.run_file, home.path("shop/tunesmith.toml"));
    assert_eq!((outcome.rows, outcome.records, plan.project.name.as_str()), (120, 120, "tickets-2025"));
    let source = &plan.sources[0];
    assert_eq!((source.path.to_str(), source.input.as_str()), (Some("Tickets 2025.csv"), "message"));
    assert!(source.target.contains(&"intent".to_owned()), "{:?}", source.target);
    assert_eq!((source.group.as_str(), source.id.as_str()), ("customer", "id"));
    assert_eq!(plan.evaluate.metric, if source.target.len() > 1 { "field_accuracy" } else { "accuracy" });
    assert_eq!(plan.prepare.stratify, "intent");
    for asked in ["owner", "licence", "lawful_basis", "keep_until", "goal", "intended_use"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("# {asked} = "))), "{asked} is asked for");
    }
    assert!(!text.contains("kettle") && !text.contains("has not come"), "customer text stays in the data");
    assert!(!outcome.reasons.is_empty());

    let again = init(&home.context(), &mut Listener::default(), &file, None, false).unwrap_err();
    assert!(matches!(&again, Error::Exists { path, .. } if *path == outcome.run_file), "{again}");
    assert!(again.hint().unwrap().contains("--force"));
    init(&home.context(), &mut Listener::default(), &file, None, true).unwrap();
}

#[test]
fn the_examples_own_tickets() {
    let home = Home::new();
    let tickets =
        store::atomic::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/support-tickets/tickets.csv"), 1 << 24).unwrap();
    let file = home.write("tickets.csv", tickets);
    let (outcome, plan, text) = run(&home, &file, None).unwrap();
    let source = &plan.sources[0];
    assert_eq!((source.input.as_str(), source.group.as_str(), source.id.as_str()), ("message", "customer", "id"));
    for field in ["intent", "product", "order", "urgency", "language"] {
        assert!(source.target.iter().any(|target| target == field), "{field} is a field of the answer: {:?}", outcome.targets);
    }
    assert!(!text.contains("Maureen"), "customer text stays in the data");
}

#[test]
fn names_that_would_break_out_of_the_file() {
    let home = Home::new();
    let header = "\"mess\"\"age\n[tune]\nrank = 1\",\"lab\\el # x\"\n";
    let rows: String = (0..60)
        .map(|index| {
            format!("\"What is the meaning of question {index}, please tell me about it?\",{}\n", ["yes", "no", "maybe"][index % 3])
        })
        .collect();
    let file = home.write("we\"ird\\na'me.csv", format!("{header}{rows}"));
    let (_, plan, _) = run(&home, &file, None).unwrap();
    assert_eq!(plan.sources[0].input, "mess\"age\n[tune]\nrank = 1");
    assert_eq!(plan.sources[0].target, ["lab\\el # x"]);
    assert_eq!(plan.sources[0].path.to_str(), Some("we\"ird\\na'me.csv"));
    assert_eq!((plan.tune.rank, plan.project.name.as_str()), (16, "we-ird-na-me"));
}

#[test]
fn the_path_leads_to_the_data_from_wherever_the_run_file_is() {
    let home = Home::new();
    let file = home.write("data/deep/tickets.csv", tickets());
    for (output, expected) in
        [("data/deep/other.toml", "tickets.csv"), ("tunesmith.toml", "data/deep/tickets.csv"), ("data/project.toml", "deep/tickets.csv")]
    {
        let (outcome, plan, _) = run(&home, &file, Some(&home.path(output))).unwrap();
        assert_eq!(plan.sources[0].path, Path::new(expected));
        assert!(outcome.run_file.parent().unwrap().join(&plan.sources[0].path).is_file());
    }
    store::atomic::create_folder(&home.path("project")).unwrap();
    let (outcome, plan, _) = run(&home, &file, Some(&home.path("project"))).unwrap();
    assert_eq!(
        (outcome.run_file, plan.sources[0].path.as_path()),
        (home.path("project/tunesmith.toml"), Path::new("../data/deep/tickets.csv"))
    );
}

#[test]
fn rows_that_bring_their_own_conversation() {
    let home = Home::new();
    let line = |index: usize| {
        json!({ "messages": [
            { "role": "user", "content": format!("Please write a sentence about the number {index}.") },
            { "role": "assistant", "content": format!("The number {index} follows {}, and comes before {}.", index as i64 - 1, index + 1) },
        ] })
    };
    let file = home.write("chats.jsonl", (0..40).map(|index| line(index).to_string() + "\n").collect::<String>());
    let (outcome, plan, text) = run(&home, &file, None).unwrap();
    assert_eq!((outcome.shape.as_str(), outcome.input, outcome.targets), ("messages", None, Vec::new()));
    assert_eq!((plan.sources[0].input.as_str(), plan.sources[0].target.len()), ("", 0));
    assert_eq!((plan.evaluate.metric.as_str(), plan.evaluate.mode), ("token_f1", Mode::Free));
    assert!(!text.contains("comes before"), "customer text stays in the data");

    let rows: String =
        (0..40).map(|index| format!("Which word is number {index} of all words?,{}\n", ["apple", "pear"][index % 2])).collect();
    let file = home.write("pairs.csv", format!("prompt,completion\n{rows}"));
    let (_, plan, _) = run(&home, &file, Some(&home.path("pairs.toml"))).unwrap();
    assert_eq!((plan.sources[0].input.as_str(), plan.sources[0].target.as_slice()), ("prompt", ["completion".to_owned()].as_slice()));
}

#[test]
fn what_cannot_be_a_run() {
    let home = Home::new();
    let refused = |name: &str, text: &str| {
        let error = run(&home, &home.write(name, text), None).unwrap_err();
        assert!(!home.path("tunesmith.toml").exists(), "nothing is written");
        error.to_string()
    };
    assert!(refused("a.csv", "").contains("no rows"));
    assert!(refused("a.csv", "message,label\n").contains("no rows"));
    let same: String = (0..30).map(|index| format!("This is message number {index} of the shop,yes\n")).collect();
    let error = refused("a.csv", &format!("message,label\n{same}"));
    assert!(error.contains("same answer") || error.contains("columns of the data file"), "{error}");
    let only: String = (0..30).map(|index| format!("This is message number {index} of the shop\n")).collect();
    assert!(refused("a.csv", &format!("message\n{only}")).contains("columns of the data file: message, expected"));
    assert!(refused("a.docx", "x").contains("extension"));
    let missing = run(&home, &home.path("none.csv"), None).unwrap_err().to_string();
    assert!(missing.contains("there is no"), "{missing}");
}
