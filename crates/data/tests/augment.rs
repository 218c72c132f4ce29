//! Augmented copies, weights and strata of whole pipelines: on one side with their parent, the same at any number of threads,
//! and never a text that is held out.

use data::augment::{self, Augment};
use data::clean::Clean;
use data::near::{Nearness, Shingles, fold};
use data::pipeline::{Augmented, Finished, NearPolicy, Pipeline, SourcePlan, Steps};
use data::steps::Policy;
use data::{DataError, Document, InMemory, Item, Origin, Part, Portion, Record, RecordRecipe, SourceRole, SplitPlan, Value, wire};
use std::collections::{BTreeMap, BTreeSet};

type Row = (String, String, String);

fn steps(near: NearPolicy, test: f64) -> Steps {
    Steps {
        clean: Clean::default(),
        outdated: None,
        minimise: false,
        duplicates: Policy::Drop,
        conflicts: Policy::Keep,
        near: Some((Nearness { shingles: Shingles::Characters(5), jaccard: 0.7 }, near)),
        passages: None,
        near_ood: None,
        split: SplitPlan { seed: 3, test: Portion::Fraction(test), validation: Portion::Fraction(test / 2.0), train_per_stratum: None },
    }
}

/// Rows of (text, label, weight), prepared with `stratify` as the column of the strata.
fn prepared(sources: &[(&str, SourceRole, &[Row])], stratify: Option<&str>, weigh: bool, steps: Steps, threads: usize) -> Finished {
    let recipe = RecordRecipe {
        input: Some("text".into()),
        target: vec!["label".into()],
        stratify: stratify.map(str::to_owned),
        weight: weigh.then(|| "weight".to_owned()),
        ..RecordRecipe::default()
    };
    let mut pipeline = Pipeline::<DataError>::new(steps, &|_| Ok(None), &InMemory, threads).unwrap();
    for (source, role, rows) in sources {
        let plan =
            SourcePlan { source, recipe: &recipe, kinds: &[], typed: false, role: *role, limit: 0, limit_per_class: 0, versions: None };
        let document = |(row, (text, label, weight)): (usize, &Row)| {
            let cell = |name: &str, value: &String| (name.to_owned(), Value::Text(value.clone()));
            let fields = vec![cell("text", text), cell("label", label), cell("weight", weight)];
            Document::new(fields, Origin { source: (*source).into(), inner: String::new(), row: row as u64 + 1, line: row as u64 + 2 })
        };
        pipeline.source(&plan, rows.iter().enumerate().map(document).map(|document| Ok(Item::Document(document)))).unwrap();
    }
    pipeline.finish().unwrap()
}

fn records(finished: &mut Finished) -> BTreeMap<Part, Vec<Record>> {
    let mut records = BTreeMap::<Part, Vec<Record>>::new();
    let each = |part, line: &[u8]| {
        records.entry(part).or_default().push(wire::read_record(line).unwrap());
        Ok::<(), DataError>(())
    };
    finished.records(each).unwrap();
    records
}

fn bytes(finished: &mut Finished) -> Vec<u8> {
    let mut all = Vec::new();
    let each = |part: Part, line: &[u8]| {
        all.extend_from_slice(part.name().as_bytes());
        all.extend_from_slice(line);
        Ok::<(), DataError>(())
    };
    finished.records(each).unwrap();
    all
}

/// Messages about parcels, nine of ten of them late.
fn rows(count: usize) -> Vec<Row> {
    let things = ["kettle", "toaster", "lamp", "chair", "mixer", "grill", "blanket", "scale", "mirror", "shelf"];
    let ways = ["Where is", "Nobody brought", "I still miss", "Please look for", "When comes", "Who has taken"];
    (0..count)
        .map(|row| {
            let text =
                format!("{} the {} number {row} that I ordered from page {}", ways[row % 6], things[row / 6 % 10], row * 7919 % 1009);
            (text, if row % 10 == 0 { "broken" } else { "late" }.to_owned(), String::new())
        })
        .collect()
}

fn all_kinds(copies: usize) -> Augment {
    let vocabulary = augment::vocabulary("v", "team: Support, Sales\n").unwrap();
    Augment {
        copies,
        typos: 0.2,
        case: true,
        synonyms: augment::synonyms("s", "ordered, bought\nlamp, light\n").unwrap(),
        templates: augment::templates("t", "Dear {team},\\n{text}\nHello, {text}\n", &vocabulary).unwrap(),
        vocabulary,
        seed: 3,
    }
}

#[test]
fn copies_are_where_their_parents_are() {
    let rows = rows(400);
    let mut finished = prepared(&[("s", SourceRole::Split, &rows)], None, false, steps(NearPolicy::Report, 0.3), 2);
    let before = records(&mut finished);
    let done = finished.augment(&all_kinds(3), &InMemory).unwrap();
    let after = records(&mut finished);
    for part in [Part::Validation, Part::Test] {
        assert_eq!(before[&part], after[&part]);
    }
    let (originals, copies) = after[&Part::Train].split_at(before[&Part::Train].len());
    assert_eq!(originals, before[&Part::Train]);
    let made: u64 = done.kinds.values().sum();
    assert_eq!(copies.len() as u64, made);
    assert_eq!((done.kinds.len(), made + done.unchanged + done.known + done.held_out), (4, 3 * originals.len() as u64));
    assert!(made > 2 * originals.len() as u64, "{done:?}");
    let parents: BTreeMap<&str, &Record> = originals.iter().map(|record| (record.id.as_str(), record)).collect();
    let mut ids: BTreeSet<&str> = parents.keys().copied().collect();
    for copy in copies {
        let change = copy.lineage.change.as_ref().unwrap();
        let parent = parents[change.parent.as_str()];
        assert_eq!((&copy.answer, &copy.stratum, &copy.lineage.document), (&parent.answer, &parent.stratum, &parent.lineage.document));
        assert!(ids.insert(&copy.id) && copy.messages != parent.messages);
    }
}

#[test]
fn the_same_bytes_at_any_number_of_threads() {
    let rows = rows(3000);
    let all = |threads| {
        let mut finished = prepared(&[("s", SourceRole::Split, &rows)], None, false, steps(NearPolicy::Report, 0.2), threads);
        finished.augment(&all_kinds(2), &InMemory).unwrap();
        finished.balance_by_weights(1.0);
        *blake3::hash(&bytes(&mut finished)).as_bytes()
    };
    let one = all(1);
    assert_eq!((one, one), (all(2), all(7)));
}

/// A copy in lower case would be the held-out text.
#[test]
fn no_copy_asks_what_is_held_out_or_known() {
    let row = |text: &str, label: &str| (text.to_owned(), label.to_owned(), String::new());
    let train = [row("The lamp is late", "late"), row("A Chair Is Broken", "broken"), row("A chair is broken", "broken")];
    let test = [row("the light is late", "late"), row("The mixer is broken", "broken")];
    let sources: &[(&str, SourceRole, &[Row])] = &[("train", SourceRole::Train, &train), ("test", SourceRole::Test, &test)];
    let mut finished = prepared(sources, None, false, steps(NearPolicy::Report, 0.2), 1);
    let augment = Augment { copies: 1, synonyms: augment::synonyms("s", "lamp, light").unwrap(), seed: 1, ..Augment::default() };
    let done = finished.augment(&augment, &InMemory).unwrap();
    assert_eq!(done, Augmented { unchanged: 2, held_out: 1, ..Augmented::default() });
    let cases = Augment { copies: 20, case: true, seed: 1, ..Augment::default() };
    let done = finished.augment(&cases, &InMemory).unwrap();
    assert!(done.known > 40, "{done:?}");
    let after = records(&mut finished);
    let held: BTreeSet<String> = after[&Part::Test].iter().map(|record| fold(&record.asked())).collect();
    let asked: BTreeSet<&str> = after[&Part::Train].iter().map(Record::input).collect();
    assert_eq!(asked.len(), after[&Part::Train].len());
    assert!(asked.iter().all(|asked| !held.contains(&fold(asked))));
}

#[test]
fn weights_even_out_what_sampling_would_drop() {
    let rows = rows(1000);
    for ratio in [1.0, 2.0] {
        let mut finished = prepared(&[("s", SourceRole::Split, &rows)], None, false, steps(NearPolicy::Report, 0.2), 2);
        assert_eq!(finished.weights(), None);
        let before = finished.count(Part::Train);
        finished.balance_by_weights(ratio);
        let after = records(&mut finished);
        let train = &after[&Part::Train];
        assert_eq!(train.len() as u64, before);
        let sum = |label: &str| -> f64 {
            train
                .iter()
                .filter(|record| record.stratum.as_deref() == Some(label))
                .map(|record| f64::from(record.weight.unwrap_or(1.0)))
                .sum()
        };
        assert!((sum("late") / sum("broken") - ratio).abs() < 1e-3, "{} to {}", sum("late"), sum("broken"));
        assert!((sum("late") + sum("broken") - before as f64).abs() < 1e-2);
        assert!(after[&Part::Test].iter().all(|record| record.weight.is_none()));
        let (least, most) = finished.weights().unwrap();
        assert!(least < 1.0 && most > 1.0);
    }
}

#[test]
fn a_column_says_how_much_a_row_counts() {
    let mut given = rows(60);
    for (row, cell) in [(0, "2.5"), (1, "0"), (2, "-1"), (3, "many"), (4, "1001"), (5, ""), (6, "1")] {
        given[row].2 = cell.into();
    }
    let mut finished = prepared(&[("s", SourceRole::Train, &given)], None, true, steps(NearPolicy::Report, 0.2), 2);
    assert_eq!(finished.rejected().collect::<Vec<_>>(), [("record", "malformed", 4)]);
    let weight = |records: &[Record], row: u64| records.iter().find(|record| record.lineage.row == row).unwrap().weight;
    let train = records(&mut finished).remove(&Part::Train).unwrap();
    assert_eq!([1, 6, 7, 8].map(|row| weight(&train, row)), [Some(2.5), None, None, None]);
    // A copy counts as its parent does.
    finished.augment(&Augment { copies: 1, case: true, ..Augment::default() }, &InMemory).unwrap();
    let train = records(&mut finished).remove(&Part::Train).unwrap();
    let copies: Vec<&Record> = train.iter().filter(|record| record.lineage.change.is_some()).collect();
    assert!(copies.iter().all(|copy| (copy.weight == Some(2.5)) == (copy.lineage.row == 1)), "{copies:?}");
}

/// Free text makes no strata, whether its column was named or not: a stratum of one record would be balanced to one of each.
#[test]
fn only_labels_are_strata() {
    let texts: Vec<Row> =
        rows(200).into_iter().map(|(text, label, _)| (text.clone(), format!("About {text}: {label}"), String::new())).collect();
    for stratify in [None, Some("label")] {
        let mut finished = prepared(&[("s", SourceRole::Split, &texts)], stratify, false, steps(NearPolicy::Report, 0.2), 2);
        assert_eq!((finished.strata(), finished.report.strata.len(), finished.report.small_strata.len()), (Vec::new(), 0, 0));
        let before = finished.count(Part::Train);
        finished.balance(1.0).unwrap();
        assert_eq!(finished.count(Part::Train), before);
        let mut labelled = prepared(&[("s", SourceRole::Split, &rows(200))], stratify, false, steps(NearPolicy::Report, 0.2), 2);
        assert_eq!(labelled.strata().len(), 2);
        assert!(records(&mut labelled)[&Part::Train].iter().all(|record| record.stratum.is_some()));
    }
}

/// Whoever declares training and test has divided them: what is the same leaves training, and what is nearly the same is said.
#[test]
fn near_duplicates_of_a_declared_test_stay_unless_they_are_to_go() {
    let train: Vec<Row> = rows(120);
    let mut test: Vec<Row> = rows(10).into_iter().map(|(text, label, weight)| (text.replace(" page ", " pages "), label, weight)).collect();
    test.push((train[50].0.to_uppercase(), train[50].1.clone(), String::new()));
    let count = |policy| {
        let sources: &[(&str, SourceRole, &[Row])] = &[("train", SourceRole::Split, &train), ("test", SourceRole::Test, &test)];
        let split = SplitPlan { seed: 3, test: Portion::Count(0), validation: Portion::Count(0), train_per_stratum: None };
        let mut finished = prepared(sources, None, false, Steps { split, ..steps(policy, 0.0) }, 2);
        let overlap = finished.report.overlaps[0].clone();
        assert_eq!((overlap.texts, overlap.near), (1, 10));
        records(&mut finished)[&Part::Train].iter().map(|record| record.lineage.row).collect::<BTreeSet<u64>>()
    };
    let (together, reported, dropped) = (count(NearPolicy::Together), count(NearPolicy::Report), count(NearPolicy::Drop));
    assert!(together == reported && together.len() == 119 && !together.contains(&51));
    assert!((1..=10).all(|row| !dropped.contains(&row)) && dropped.len() < 110, "{}", dropped.len());
}
