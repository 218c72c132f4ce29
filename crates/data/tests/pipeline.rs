//! The streaming pipeline: the same bytes at any number of threads, near-duplicates found and nothing else, what leaks
//! is said, and small inputs give what the steps in memory give.

#![allow(clippy::type_complexity, reason = "rows of a case are types enough")]

use data::clean::Clean;
use data::near::{Nearness, Shingles, fold, jaccard};
use data::pipeline::{Finished, NearPolicy, Outside, Passages, Pipeline, SourcePlan, Steps, Versions};
use data::steps::{self, Policy};
use data::windows::WindowSet;
use data::{DataError, Document, InMemory, Item, Origin, Part, Portion, Record, RecordRecipe, SourceRole, Split, SplitPlan, Value, wire};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const NEAR: Nearness = Nearness { shingles: Shingles::Characters(5), jaccard: 0.7 };

fn steps(near: Option<NearPolicy>, test: f64) -> Steps {
    let split = SplitPlan { seed: 3, test: Portion::Fraction(test), validation: Portion::Fraction(test / 3.0), train_per_stratum: None };
    let near = near.map(|policy| (NEAR, policy));
    Steps {
        clean: Clean::default(),
        outdated: None,
        minimise: false,
        duplicates: Policy::Drop,
        conflicts: Policy::Keep,
        near,
        passages: None,
        near_ood: None,
        split,
    }
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
        let plan =
            SourcePlan { source, recipe: &recipe, kinds: &[], typed: false, role: *role, limit: 0, limit_per_class: 0, versions: None };
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
        let plan = SourcePlan {
            source: "s",
            recipe: &recipe,
            kinds: &[],
            typed: false,
            role: SourceRole::Split,
            limit: 0,
            limit_per_class: 0,
            versions: None,
        };
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

fn words(random: &mut Random, count: usize) -> Vec<String> {
    (0..count).map(|_| word(random)).collect()
}

#[test]
fn long_passages_are_found_in_the_later_record() {
    let random = &mut Random(7);
    let mut rows: Vec<(String, String)> = (0..300).map(|i| (words(random, 120).join(" "), ["a", "b"][i % 2].to_owned())).collect();
    // Ten later rows each have 60 words of an earlier one, ten have 39 words.
    let mut with = |from: usize, count: usize, rows: &mut Vec<(String, String)>| {
        let earlier: Vec<&str> = rows[from].0.split(' ').collect();
        let mut text = words(random, 50);
        text.extend(earlier[31..31 + count].iter().map(|word| (*word).to_owned()));
        text.extend(words(random, 40));
        rows.push((text.join(", "), "a".to_owned()));
    };
    for from in 0..10 {
        with(from, 60, &mut rows);
        with(from + 20, 39, &mut rows);
    }
    let passages = |policy| Steps { passages: Some(Passages { words: 40, policy }), ..steps(None, 0.2) };
    let finished = run(&[("s", SourceRole::Split, &rows)], passages(Policy::Keep), 2).unwrap();
    assert_eq!((finished.passages.records, finished.rejected().count()), (10, 0));
    assert_eq!(finished.passages.examples[0].2, 60);
    let mut finished = run(&[("s", SourceRole::Split, &rows)], passages(Policy::Drop), 2).unwrap();
    let rejects = rejects(&mut finished);
    let dropped: Vec<u64> =
        rejects.iter().map(|reject| reject["id"].as_str().unwrap().split(':').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(dropped, (0..10).map(|i| 301 + 2 * i).collect::<Vec<u64>>());
    assert!(rejects.iter().all(|reject| reject["step"] == "passages" && reject["related"].as_array().unwrap().len() == 1));
}

#[test]
fn what_training_has_in_common_with_held_out_texts_and_benchmarks_is_found() {
    let random = &mut Random(9);
    let mut train: Vec<(String, String)> = (0..100).map(|i| (words(random, 40).join(" "), ["a", "b"][i % 2].to_owned())).collect();
    let test: Vec<(String, String)> = (0..20).map(|_| (words(random, 40).join(" "), "b".to_owned())).collect();
    // Three training rows quote the test, two a benchmark of questions, one of them too short to have a window.
    for (row, from) in [(3, 1), (50, 2), (77, 3)] {
        let quoted: Vec<&str> = test[from].0.split(' ').skip(9).take(14).collect();
        train[row].0 = format!("{} {}", train[row].0, quoted.join(" ").to_uppercase());
    }
    let benchmark = [words(random, 30).join(" "), "who may drive a company car".to_owned()];
    train[10].0 = format!("so {}!", benchmark[0].split(' ').take(15).collect::<Vec<_>>().join(" "));
    train[11].0 = "Who may drive a company car?".to_owned();
    let found = |policy| {
        let mut set = WindowSet::new(12);
        benchmark.iter().for_each(|text| set.add(&fold(text)));
        let sources = [("train", SourceRole::Train, train.as_slice()), ("test", SourceRole::Test, test.as_slice())];
        let mut finished = run(&sources, steps(None, 0.0), 2).unwrap();
        let found = finished.contamination(vec![("bench.jsonl".into(), set)], 12, policy).unwrap();
        let counts: Vec<(String, u64)> = found.into_iter().map(|found| (found.with, found.records)).collect();
        (counts, finished.count(Part::Train), rejects(&mut finished).len())
    };
    let counts = vec![("the test part".to_owned(), 3), ("bench.jsonl".to_owned(), 2)];
    assert_eq!(found(Policy::Keep), (counts.clone(), 100, 0));
    assert_eq!(found(Policy::Drop), (counts, 95, 5));
}

#[test]
fn the_last_version_of_each_thing_stays() {
    let recipe = recipe();
    let rows = [("leave", "v1.9"), ("leave", "v1.10"), ("travel", "2025-01-01"), ("leave", "v1.2"), ("", "v1"), ("travel", "2024-12-31")];
    let documents = rows.iter().enumerate().map(|(row, (of, version))| {
        let fields = [
            ("text", format!("text {row}")),
            ("label", "a".to_owned() + &(row % 2).to_string()),
            ("of", (*of).to_owned()),
            ("version", (*version).to_owned()),
        ];
        let fields = fields.into_iter().map(|(name, text)| (name.to_owned(), Value::Text(text))).collect();
        Ok(Item::Document(Document::new(fields, Origin { source: "s".into(), inner: String::new(), row: row as u64 + 1, line: 1 })))
    });
    let mut pipeline = Pipeline::<DataError>::new(steps(None, 0.0), &|_| Ok(None), &InMemory, 1).unwrap();
    let versions = Some(Versions { of: "of", version: "version" });
    let plan = SourcePlan {
        source: "s",
        recipe: &recipe,
        kinds: &[],
        typed: false,
        role: SourceRole::Train,
        limit: 0,
        limit_per_class: 0,
        versions,
    };
    pipeline.source(&plan, documents).unwrap();
    let mut finished = pipeline.finish().unwrap();
    let kept: Vec<u64> = records(&mut finished)[&Part::Train].iter().map(|record| record.lineage.row).collect();
    assert_eq!(kept, [2, 3, 5]);
    let rejects = rejects(&mut finished);
    assert!(rejects.iter().all(|reject| reject["step"] == "superseded" && !reject["related"][0].as_str().unwrap().is_empty()));
    assert_eq!(rejects.len(), 3);
}

#[test]
fn rows_of_another_time_are_held_out_as_near_out_of_distribution() {
    let rows: Vec<(String, String)> =
        (0..200).map(|i| (format!("2026-0{}-11: message {}", 1 + i % 4, i * i), ["a", "b"][i % 2].to_owned())).collect();
    let near_ood = Some(Outside { column: "text".into(), from: Some("2026-04-01".into()), values: vec![rows[0].0.clone()] });
    let mut finished = run(&[("s", SourceRole::Split, &rows)], Steps { near_ood, ..steps(None, 0.2) }, 2).unwrap();
    assert_eq!(finished.count(Part::NearOod), 51);
    let held = &records(&mut finished)[&Part::NearOod];
    assert!(held.iter().all(|record| record.input().starts_with("2026-04") || record.input() == rows[0].0));
}
