//! What `init` guesses from a source.

use data::{Format, Profile, profile, read};

fn guess(csv: &str) -> Profile {
    let dataset = read::read("t.csv", csv.as_bytes(), Format::Csv { delimiter: b',' }, &read::LIMITS).unwrap();
    profile::profile(&dataset)
}

/// Names by role: input, targets, id, group, unused.
fn names(profile: &Profile) -> [Vec<&str>; 5] {
    [
        profile.input.iter().map(|guess| guess.column.as_str()).collect(),
        profile.targets.iter().map(|guess| guess.column.as_str()).collect(),
        profile.id.iter().map(|guess| guess.column.as_str()).collect(),
        profile.group.iter().map(|guess| guess.column.as_str()).collect(),
        profile.unused.iter().map(|guess| guess.column.as_str()).collect(),
    ]
}

#[test]
fn a_helpdesk_export() {
    let mut csv = "id,customer,received,channel,message,intent,product,order,urgency\n".to_owned();
    for i in 0..40 {
        let (intent, product) = (["return", "delivery", "refund"][i % 3], ["kettle", "lamp"][i % 2]);
        let order = if i % 2 == 0 { format!("{}", 48_000 + i) } else { String::new() };
        csv += &format!(
            "T{i},C-{},2025-09-{:02}T08:12:00,email,Where is my {product} number {i}? It should be here.,{intent},{product},{order},high\n",
            i / 2,
            i % 28 + 1
        );
    }
    let csv = csv.replacen("high", "low", 9);
    let profile = guess(&csv);
    let targets = vec!["intent", "product", "order", "urgency"];
    let expected = [vec!["message"], targets, vec!["id"], vec!["customer"], vec!["received", "channel"]];
    assert_eq!(names(&profile), expected);
}

#[test]
fn question_and_answer() {
    let csv: String =
        (0..30).map(|i| format!("What is the fee for case {i}?,The fee for case {i} is {i} euros and is due at once.\n")).collect();
    let profile = guess(&format!("question,answer\n{csv}"));
    assert_eq!(names(&profile), [vec!["question"], vec!["answer"], vec![], vec![], vec![]]);
}

#[test]
fn columns_that_say_nothing() {
    let csv: String = (0..20).map(|i| format!("some words that are long enough {i},same,,{}\n", i * 7919 % 10_007)).collect();
    let profile = guess(&format!("text,fixed,empty,amount\n{csv}"));
    assert_eq!(names(&profile), [vec!["text"], vec![], vec![], vec![], vec!["fixed", "empty", "amount"]]);
    assert!(profile.unused.iter().all(|guess| !guess.reason.is_empty()));
    let nothing = guess("a,b\n,\n,\n");
    assert!(nothing.input.is_none() && nothing.targets.is_empty());
}
