//! What is made of documents, and what is done with prepared data: compared, reviewed, labelled, demanded by the gate.

use serde_json::{Value, json};

use crate::project::{Project, json_file, text};

/// Prepares and gives the run's id.
fn prepared(project: &Project) -> (String, Value) {
    let json = project.tunesmith(&["prepare", "tickets", "--json"]).expect(0).json();
    (json["run"].as_str().unwrap().to_owned(), json)
}

fn rejected(json: &Value, what: &str) -> u64 {
    let found = json["data"]["rejected"].as_array().unwrap().iter().find(|pair| pair[0] == what);
    found.map_or(0, |pair| pair[1].as_u64().unwrap())
}

/// Each line after the first with its last cells filled in.
fn filled(sheet: &str, ending: &str, cells: impl Fn(usize) -> String) -> String {
    let (head, rows) = sheet.split_once('\n').unwrap();
    let rows = rows.lines().enumerate().map(|(row, line)| line.strip_suffix(ending).unwrap().to_owned() + &cells(row) + "\n");
    format!("{head}\n{}", rows.collect::<String>())
}

#[test]
fn two_prepared_sets_are_compared() {
    let project = Project::new();
    let (first, _) = prepared(&project);
    let csv = project.text("tickets/tickets.csv");
    let mut lines: Vec<String> = csv.lines().map(str::to_owned).collect();
    let gone = lines.remove(5);
    lines[8] = lines[8].replacen("the", "the very same", 1).replacen("my", "my own", 1).replacen("a ", "a certain ", 1);
    let extra = lines[1].replacen(lines[1].split(',').next().unwrap(), "new-1", 1) + " again";
    lines.push(extra);
    project.write("tickets/tickets.csv", lines.join("\n") + "\n");
    project.edit("[prepare]\n", "[prepare]\nduplicates = \"keep\"\n");
    let (second, _) = prepared(&project);
    let diff = project.tunesmith(&["prepare", &first, "--diff", &second, "--json"]).expect(0).json();
    assert_eq!((&diff["added"]["count"], &diff["removed"]["count"]), (&json!(1), &json!(1)), "{diff}");
    let id = gone.split(',').next().unwrap();
    assert_eq!(diff["removed"]["ids"][0], json!([id, "not in the sources any more"]));
    let total = |part: &Value| part.as_object().unwrap().values().map(|counts| counts[0].as_u64().unwrap()).sum::<u64>();
    let moved: u64 = diff["moved"].as_array().unwrap().iter().map(|moved| moved[2].as_u64().unwrap()).sum();
    assert!(total(&diff["records"]) > diff["same"].as_u64().unwrap() + moved);
    let same = project.tunesmith(&["prepare", &first, "--diff", &first]).expect(0);
    for line in ["added      0", "removed    0", "changed    0"] {
        assert!(same.stdout.contains(line), "{same}");
    }
}

#[test]
fn a_second_person_accepts_and_the_ledger_knows() {
    let project = Project::new();
    let (id, _) = prepared(&project);
    let sheet = project.path("sample.csv");
    let sheet = sheet.to_str().unwrap();
    project.tunesmith(&["prepare", &id, "--sample", "10", "--out", sheet]).expect(0);
    project.tunesmith(&["prepare", &id, "--sample", "10", "--out", sheet]).refused(&["exists", "--out"]);
    let again = project.path("again.csv");
    project.tunesmith(&["prepare", &id, "--sample", "10", "--out", again.to_str().unwrap()]).expect(0);
    let sample = project.text("sample.csv");
    assert_eq!(sample, project.text("again.csv"));
    assert_eq!(sample.lines().count(), 11);
    project.tunesmith(&["prepare", &id, "--reviewed", sheet, "--by", "Ada"]).refused(&["nothing was accepted", "verdict"]);
    project.write("sample.csv", filled(&sample, ",,", |row| (if row == 3 { ",maybe," } else { ",accept," }).to_owned()));
    project.tunesmith(&["prepare", &id, "--reviewed", sheet, "--by", "Ada"]).refused(&["maybe", "accept"]);
    let verdicts = |row| ["reject,wrong order", "accept,", ","][usize::from(row > 0) + usize::from(row > 7)].to_owned();
    project.write("sample.csv", filled(&sample, ",,", |row| ",".to_owned() + &verdicts(row)));
    let review = project.tunesmith(&["prepare", &id, "--reviewed", sheet, "--by", " Ada ", "--json"]).expect(0).json();
    assert_eq!((&review["by"], &review["accepted"], &review["rejected"]), (&json!("Ada"), &json!(7), &json!(1)));
    assert_eq!((&review["undecided"], &review["rejections"][0][1]), (&json!(2), &json!("wrong order")));
    let ledger = text(&project.only_run().join("ledger.jsonl"));
    assert!(ledger.contains("\"kind\":\"reviewed\"") && ledger.contains("\"by\":\"Ada\"") && ledger.contains("\"time\":\"2"), "{ledger}");
    project.write("other.csv", "id,verdict\nnobody,accept\n");
    project.tunesmith(&["prepare", &id, "--reviewed", project.path("other.csv").to_str().unwrap(), "--by", "Ada"]).refused(&["nobody"]);
}

/// Two people label ten records and disagree on two: κ = (0.8 − 0.5) / 0.5, α = 1 − 19 · 4 / (20² − 10² − 10²).
#[test]
fn labels_come_back_with_who_gave_them_and_how_they_agree() {
    let project = Project::labels();
    let (id, _) = prepared(&project);
    let file = |name: &str| project.path(name).to_str().unwrap().to_owned();
    project.tunesmith(&["label", "export", &id, "--sample", "10", "--out", &file("ada.csv")]).expect(0);
    let sheet = project.text("ada.csv");
    assert!(sheet.starts_with("id,text,label\n") && sheet.lines().skip(1).all(|line| line.ends_with(',')), "{sheet}");
    project.write("ada.csv", filled(&sheet, ",", |row| format!(",{}", if row < 5 { "late" } else { "broken" })));
    project.write("bob.csv", filled(&sheet, ",", |row| format!(",{}", if (1..5).contains(&row) || row == 9 { "late" } else { "broken" })));
    for (name, who) in [("ada.csv", "Ada"), ("bob.csv", "Bob")] {
        project.tunesmith(&["label", "import", &id, &file(name), "--annotator", who]).expect(0);
    }
    let found = project.tunesmith(&["label", "agreement", &id, "--out", &file("decide.csv"), "--json"]).expect(0).json();
    let near = |value: &Value, expected: f64| assert!((value.as_f64().unwrap() - expected).abs() < 1e-12, "{value}, not {expected}");
    near(&found["pairs"][0]["observed"], 0.8);
    near(&found["pairs"][0]["kappa"], 0.6);
    near(&found["alpha"], 0.62);
    assert_eq!((&found["shared"], &found["open"]), (&json!(10), &json!(2)));
    let decide = project.text("decide.csv");
    assert!(decide.starts_with("id,text,Ada,Bob,label\n") && decide.lines().count() == 3, "{decide}");
    let half = project.tunesmith(&["label", "write", &id, "--out", &file("half.csv"), "--json"]).expect(0).json();
    assert_eq!((&half["rows"], &half["open"]), (&json!(8), &json!(2)));
    project.write("decide.csv", filled(&decide, ",", |_| ",late".into()));
    project.tunesmith(&["label", "import", &id, &file("decide.csv"), "--annotator", "adjudication"]).expect(0);
    let all = project.tunesmith(&["label", "write", &id, "--out", &file("all.csv"), "--json"]).expect(0).json();
    assert_eq!((&all["rows"], &all["open"]), (&json!(10), &json!(0)));
    assert_eq!(project.text("all.csv").matches(",late,").count(), 6);
    let ledger = text(&project.only_run().join("ledger.jsonl"));
    assert_eq!(ledger.matches("\"kind\":\"labelled\"").count(), 3);
    project.write("twice.csv", "id,label\na,b\na,c\n");
    project.tunesmith(&["label", "import", &id, &file("twice.csv"), "--annotator", "Bob"]).refused(&["twice", "id"]);
    project.tunesmith(&["label", "export", &id, "--suspects", "--out", &file("none.csv")]).refused(&["label_errors"]);
}

#[test]
fn the_gate_demands_declarations_and_a_second_look_and_elsewhere_is_measured() {
    let project = Project::new();
    project.edit("[gate]\n", "[gate]\ndeclared = true\naccepted_at_least = 0.9\n");
    let day = |line: &str| if line.starts_with("id,") { "opened".to_owned() } else { "2026-01-01".to_owned() };
    let csv = project.text("tickets/tickets.csv");
    let dated: Vec<String> =
        csv.lines().enumerate().map(|(row, line)| format!("{line},{}", if row > 56 { "2026-07-01".into() } else { day(line) })).collect();
    project.write("tickets/tickets.csv", dated.join("\n") + "\n");
    project.edit("stratify = \"intent\" }", "stratify = \"intent\", near_ood = { column = \"opened\", from = 2026-06-01 } }");
    project.tunesmith(&["run", "tickets"]).expect(3);
    let report = json_file(&project.only_run().join("report.json"));
    let criteria = report["verdict"]["criteria"].as_array().unwrap();
    let verdict = |name: &str| criteria.iter().find(|criterion| criterion[0].as_str().unwrap().starts_with(name)).unwrap().clone();
    assert_eq!(verdict("declared")[1], "do not ship");
    assert!(verdict("declared")[2].as_str().unwrap().contains("BLANK for tickets.csv"));
    assert_eq!(verdict("accepted_at_least")[1], "not enough evidence");
    let held = report["data"]["near_ood"].as_u64().unwrap();
    assert!(held >= 5 && report["near_ood"]["n"].as_u64() == Some(held), "{}", report["near_ood"]);
    assert!(text(&project.only_run().join("report.html")).contains("The same task elsewhere"));
    assert!(text(&project.only_run().join("data/records/near_ood.jsonl")).lines().count() as u64 == held);
}

const HANDBOOK: &str = "# Leave\n\n## How much leave is there?\n\nThirty days in each year.\n\n## Who is asked?\n\nThe head of the team.\n\nTwo weeks ahead.\n";

/// A run file of 14 lines on a folder of documents, and on a mailbox.
#[test]
fn documents_become_questions_chunks_and_replies() {
    let project = Project::new();
    let run_file = |source: &str| {
        format!(
            "[project]\nname = \"tickets\"\n[model]\nbase = \"base\"\n[data]\ninstruction = \"Answer.\"\n[[data.source]]\n{source}\n[prepare]\n\
             split = {{ test = 0.2, validation = 0.2 }}\n"
        )
    };
    for (at, topic) in ["Leave", "Travel", "Pay", "Tools", "Safety", "Meals"].iter().enumerate() {
        let page =
            HANDBOOK.replace("Leave", topic).replace("leave", &topic.to_lowercase()).replace("Thirty", ["Ten", "Six", "Two"][at % 3]);
        project.write(&format!("tickets/handbook/{topic}.md"), page);
    }
    project.write("tickets/handbook/note.txt", "Nothing is asked here.");
    project.write("tickets/tunesmith.toml", run_file("path = \"handbook\"\nmake = \"questions\""));
    // Six pages that are nearly alike are told what to do.
    let ended = project.tunesmith(&["prepare", "tickets"]);
    assert!(ended.code == Some(0) || ended.stderr.contains("near_duplicates"), "{ended}");
    project.edit("[prepare]\n", "[prepare]\nnear_duplicates = \"report\"\n");
    project.edit("make = \"questions\"", "make = \"questions\"\ngroup = \"document\"");
    let (id, json) = prepared(&project);
    // The second question is the same on all six pages, and so are its answers.
    assert_eq!((rejected(&json, "make: nothing to make a record of"), rejected(&json, "duplicates: duplicate")), (1, 5), "{json}");
    let run = project.runs().into_iter().find(|run| run.ends_with(&id)).unwrap();
    let records: String =
        ["train", "validation", "test"].iter().map(|part| text(&run.join(format!("data/records/{part}.jsonl")))).collect();
    assert!(records.contains("The head of the team.\\n\\nTwo weeks ahead."), "{records}");
    let record: Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    let why = project.tunesmith(&["prepare", &id, "--why", record["id"].as_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(why["replayed"], true);
    assert!(why["document"]["attributes"].to_string().contains("parent"), "{why}");

    project.edit("make = \"questions\"\ngroup = \"document\"", "make = \"chunks\"\nchunk_tokens = 24\nchunk_overlap = 8");
    let (_, json) = prepared(&project);
    assert!(json["data"]["rows"].as_u64().unwrap() >= 13, "{json}");

    let mail = |id: u32, to: Option<u32>, subject: &str, body: &str| {
        let reply = to.map(|to| format!("In-Reply-To: <{to}@x>\nReferences: <{to}@x>\n")).unwrap_or_default();
        format!(
            "From a@example.org Mon Feb  3 10:00:00 2025\nFrom: A <a@example.org>\nTo: b@example.org\nSubject: {subject}\nMessage-ID: <{id}@x>\n{reply}\n{body}\n\n"
        )
    };
    let things = ["kettle", "toaster", "lamp", "chair", "mixer", "grill", "blanket", "scale"];
    let mut mailbox = String::new();
    for (at, thing) in things.iter().enumerate() {
        let at = at as u32 * 2;
        mailbox += &mail(at + 1, None, thing, &format!("Where is the {thing} that I ordered?\n\n-- \nAnn"));
        mailbox += &mail(
            at + 2,
            Some(at + 1),
            &format!("Re: {thing}"),
            &format!("It left on day {at}.\n\nOn Mon, 3 Feb 2025 at 10:00, A <a@example.org> wrote:\n> Where is the {thing}?"),
        );
    }
    mailbox += &mail(99, None, "Hello", "Is anybody there?");
    project.write("tickets/desk.mbox", mailbox);
    project.write("tickets/tunesmith.toml", run_file("path = \"desk.mbox\"\nmake = \"replies\""));
    let (id, json) = prepared(&project);
    assert_eq!((json["data"]["records"].as_u64(), rejected(&json, "make: nothing to make a record of")), (Some(8), 1), "{json}");
    let run = project.runs().into_iter().find(|run| run.ends_with(&id)).unwrap();
    let records: String =
        ["train", "validation", "test"].iter().map(|part| text(&run.join(format!("data/records/{part}.jsonl")))).collect();
    assert!(records.contains("It left on day 0.\"}") && !records.contains("-- ") && !records.contains("wrote:"), "{records}");
}
