//! The streaming pipeline: the same bytes at any number of threads, near-duplicates found and nothing else, what leaks
//! is said, and small inputs give what the steps in memory give.

#![allow(clippy::type_complexity, reason = "rows of a case are types enough")]

use data::clean::Clean;
use data::near::{Nearness, Shingles, fold, jaccard};
use data::pipeline::{Finished, NearPolicy, Pipeline, SourcePlan, Steps};
use data::steps::{self, Policy};
use data::{DataError, Document, InMemory, Item, Origin, Part, Portion, Record, RecordRecipe, SourceRole, Split, SplitPlan, Value, wire};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const NEAR: Nearness = Nearness { shingles: Shingles::Characters(5), jaccard: 0.7 };

fn steps(near: Option<NearPolicy>, test: f64) -> Steps {
    let split = SplitPlan { seed: 3, test: Portion::Fraction(test), validation: Portion::Fraction(test / 3.0), train_per_stratum: None };
    let near = near.map(|policy| (NEAR, policy));
    Steps { clean: Clean::default(), outdated: None, minimise: false, duplicates: Policy::Drop, conflicts: Policy::Keep, near, split }
}

fn documents(source: &str, rows: &[(String, String)]) -> Vec<Document> {
    let document = |(row, (text, label)): (usize, &(String, String))| {
        let fields = vec![("text".to_owned(), Value::Text(text.clone())), ("label".to_owned(), Value::Text(label.clone()))];
        Document::new(fields, Origin { source: source.into(), inner: String::new(), row: row as u64 + 1, line: row as u64 + 2 })
    };
    rows.iter().enumerate().map(document).collect()
}

fn recipe() -> RecordRecipe {
    RecordRecipe { input: Some("text".into()), target: vec!["label".into()], ..RecordRecipe::default() }
}

fn run(sources: &[(&str, SourceRole, &[(String, String)])], steps: Steps, threads: usize) -> Result<Finished, DataError> {
    let recipe = recipe();
    let mut pipeline = Pipeline::new(steps, &|_| Ok(None), &InMemory, threads)?;
    for (source, role, rows) in sources {
        let plan = SourcePlan { source, recipe: &recipe, kinds: &[], typed: false, role: *role, limit: 0, limit_per_class: 0 };
        pipeline.source(&plan, documents(source, rows).into_iter().map(|document| Ok(Item::Document(document))))?;
    }
    pipeline.finish()
}

fn records(finished: &mut Finished) -> BTreeMap<Part, Vec<Record>> {
    let mut records = BTreeMap::<Part, Vec<Record>>::new();
    finished
        .records(|part, line| {
            records.entry(part).or_default().push(wire::read_record(line).unwrap());
            Ok::<(), DataError>(())
        })
        .unwrap();
    records
}

fn rejects(finished: &mut Finished) -> Vec<serde_json::Value> {
    let mut bytes = Vec::new();
    finished
        .rejects(|piece| {
            bytes.extend_from_slice(piece);
            Ok::<(), DataError>(())
        })
        .unwrap();
    String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Numbers without a pattern.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) % n as u64) as usize
    }
}

fn word(random: &mut Random) -> String {
    let letter = |letters: &str, at: usize| letters.as_bytes()[at] as char;
    (0..4 + random.below(6))
        .map(|i| if i % 2 == 0 { letter("bcdfghjklmnpqrstvwxz", random.below(20)) } else { letter("aeiouy", random.below(6)) })
        .collect()
}

/// Texts of 8 to 60 words, each with an edited copy: up to a quarter of the words are other ones.
fn edited(pairs: usize) -> Vec<(String, String)> {
    let random = &mut Random(42);
    let mut rows = Vec::new();
    for _ in 0..pairs {
        let words: Vec<String> = (0..8 + random.below(53)).map(|_| word(random)).collect();
        let edits = random.below(words.len() / 4 + 1);
        let mut copy = words.clone();
        for _ in 0..edits {
            let at = random.below(copy.len());
            copy[at] = word(random);
        }
        let label = ["a", "b", "c"][random.below(3)].to_owned();
        rows.push((words.join(" "), label.clone()));
        rows.push((copy.join(" "), label));
    }
    rows
}

#[test]
fn near_duplicates_are_found_and_nothing_else() {
    let rows = edited(1500);
    let set = |text: &str| NEAR.shingles.set(&fold(text));
    let near: BTreeSet<usize> = (0..1500).filter(|i| jaccard(&set(&rows[2 * i].0), &set(&rows[2 * i + 1].0)) >= 0.7).collect();
    assert!(near.len() > 400 && near.len() < 1100, "{}", near.len());
    let mut finished = run(&[("s", SourceRole::Split, &rows)], steps(Some(NearPolicy::Drop), 0.2), 2).unwrap();
    let mut found = BTreeSet::new();
    for reject in rejects(&mut finished).iter().filter(|reject| reject["step"] == "near_duplicates" || reject["step"] == "duplicates") {
        let row = |id: &serde_json::Value| id.as_str().unwrap().split(':').nth(1).unwrap().parse::<usize>().unwrap() - 1;
        let (dropped, kept) = (row(&reject["id"]), row(&reject["related"][0]));
        assert_eq!((dropped / 2, dropped % 2), (kept / 2, 1), "{reject}");
        found.insert(dropped / 2);
    }
    let right = found.intersection(&near).count() as f64;
    let (precision, recall) = (right / found.len() as f64, right / near.len() as f64);
    assert!(precision >= 0.999 && recall >= 0.98, "precision {precision}, recall {recall}");
    // Hardly more is compared than there is to find: no pair of unrelated texts in a thousand.
    assert!(finished.near.compared < 4000, "{}", finished.near.compared);
}

#[test]
fn the_same_bytes_at_any_number_of_threads() {
    let rows = edited(3000);
    let bytes = |threads| {
        let mut finished = run(&[("s", SourceRole::Split, &rows)], steps(Some(NearPolicy::Together), 0.2), threads).unwrap();
        let mut all = Vec::new();
        finished
            .records(|part, line| {
                all.extend_from_slice(part.name().as_bytes());
                all.extend_from_slice(line);
                Ok::<(), DataError>(())
            })
            .unwrap();
        all.extend(format!("{:?} {:?} {:?}", rejects(&mut finished), finished.near, finished.report).into_bytes());
        *blake3::hash(&all).as_bytes()
    };
    let one = bytes(1);
    assert_eq!((one, one), (bytes(2), bytes(7)));
}

#[test]
fn clusters_stand_on_one_side() {
    let rows = edited(1000);
    let mut finished = run(&[("s", SourceRole::Split, &rows)], steps(Some(NearPolicy::Together), 0.3), 2).unwrap();
    assert!(finished.report.naive_leaked_near > 60, "{:?}", finished.report.naive_leaked_near);
    let (clusters, in_them) = (finished.near.clusters, finished.near.records);
    assert!(clusters > 200 && in_them == 2 * clusters, "{clusters} {in_them}");
    let mut sides: HashMap<usize, BTreeSet<Part>> = HashMap::new();
    let set = |text: &str| NEAR.shingles.set(&fold(text));
    for (part, records) in records(&mut finished) {
        for record in records {
            sides.entry((record.lineage.row as usize - 1) / 2).or_default().insert(part);
        }
    }
    let divided =
        sides.iter().filter(|(_, sides)| sides.len() > 1).map(|(pair, _)| jaccard(&set(&rows[2 * pair].0), &set(&rows[2 * pair + 1].0)));
    let near = divided.filter(|jaccard| *jaccard >= 0.7).count();
    assert!(near <= clusters as usize / 50, "{near} near pairs are divided");
}

#[test]
fn small_inputs_give_what_the_steps_in_memory_give() {
    let mut rows = edited(200);
    rows.push(rows[0].clone());
    rows.push((rows[4].0.clone(), "other".into()));
    rows.push(("  ".into(), "a".into()));
    rows.push(("no answer".into(), String::new()));
    let mut finished = run(&[("s", SourceRole::Split, &rows)], steps(None, 0.3), 2).unwrap();
    let dataset = data::Dataset {
        source: "s".into(),
        shape: data::Shape::Columns,
        typed: false,
        columns: vec!["text".into(), "label".into()],
        documents: documents("s", &rows),
    };
    let recorded = recipe().apply(&dataset).unwrap();
    let stepped = steps::duplicates(steps::drop_empty(recorded.records).records, Policy::Drop);
    let (kept, copies) = (stepped.records, stepped.rejected.len() as u64);
    let conflicts = steps::conflicts(kept.clone(), Policy::Keep).conflicts;
    let split = Split::new(kept.into_iter().map(|record| (record, SourceRole::Split)).collect(), &steps(None, 0.3).split).unwrap();
    let streamed = records(&mut finished);
    assert_eq!(streamed[&Part::Train], split.train.records());
    assert_eq!(streamed[&Part::Validation], split.held_out.validation);
    assert_eq!(streamed[&Part::Test], split.held_out.in_domain);
    assert_eq!(finished.conflicts, conflicts.len() as u64);
    assert_eq!(finished.report, split.report);
    let counts: Vec<(&str, &str, u64)> = finished.rejected().collect();
    assert_eq!(counts, [("duplicates", "duplicate", copies), ("empty", "empty input", 1), ("record", "empty target", 1)]);
}

#[test]
fn what_declared_sources_leak_is_said_and_training_gives_way() {
    let text = |i: usize| format!("question number {i} about something");
    let train: Vec<(String, String)> = (0..50).map(|i| (text(i * i * 7919 + i), ["a", "b"][i % 2].to_owned())).collect();
    let mut test = vec![(format!("\n{} ?", train[3].0.to_uppercase()), "b".to_owned()), (train[4].0.clone(), "b".to_owned())];
    test.push(("nothing like it".to_owned(), "a".to_owned()));
    test.push(train[5].clone());
    let sources = [("train", SourceRole::Train, train.as_slice()), ("test", SourceRole::Test, test.as_slice())];
    let mut finished = run(&sources, steps(None, 0.0), 2).unwrap();
    let overlap = finished.report.overlaps[0].clone();
    assert_eq!((overlap.part, overlap.texts, overlap.contradictory, overlap.near), (Part::Test, 3, 1, 0));
    assert_eq!((finished.count(Part::Train), finished.count(Part::Test)), (47, 4));
    let rejects = rejects(&mut finished);
    assert_eq!(rejects.iter().filter(|reject| reject["step"] == "split").count(), 3);
}

#[test]
fn an_id_given_twice_is_an_error() {
    let rows = [("x".to_owned(), "a".to_owned()), ("y".to_owned(), "b".to_owned())];
    let recipe = RecordRecipe { id: Some("label".into()), ..recipe() };
    let same = [("x".to_owned(), "a".to_owned()), ("y".to_owned(), "a".to_owned())];
    let try_rows = |rows: &[(String, String)]| {
        let mut pipeline = Pipeline::<DataError>::new(steps(None, 0.0), &|_| Ok(None), &InMemory, 1).unwrap();
        let plan =
            SourcePlan { source: "s", recipe: &recipe, kinds: &[], typed: false, role: SourceRole::Split, limit: 0, limit_per_class: 0 };
        pipeline.source(&plan, documents("s", rows).into_iter().map(|document| Ok(Item::Document(document)))).unwrap();
        pipeline.finish().map(|_| ())
    };
    assert!(try_rows(&rows).is_ok());
    assert!(matches!(try_rows(&same), Err(DataError::DuplicateId { .. })));
}

#[test]
fn a_skew_is_evened_out_in_training_only() {
    let rows: Vec<(String, String)> =
        (0..2000).map(|i| (format!("message {} of many", i * i), if i % 10 == 0 { "rare" } else { "often" }.to_owned())).collect();
    let mut finished = run(&[("s", SourceRole::Split, &rows)], steps(None, 0.3), 2).unwrap();
    let (_, often, _, tested) = finished.strata()[0].clone();
    let (_, rare, _, _) = finished.strata()[1].clone();
    assert!(often > 8 * rare);
    finished.balance(1.0).unwrap();
    let strata = finished.strata();
    assert_eq!(strata[0], ("often".to_owned(), rare, strata[0].2, tested));
    assert_eq!(finished.rejected().find(|(step, ..)| *step == "balance").map(|(_, _, count)| count), Some(often - rare));
}
