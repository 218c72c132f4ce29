//! Splits: nothing on both sides, every stratum its share, the same whatever the order of rows.

use data::{Answer, DataError, HeldOut, Lineage, Portion, Reason, Record, SourceRole, Split, SplitPlan, TokenRow};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use text::{Message, Role};

fn record(id: usize, input: &str, answer: &str, group: Option<&str>) -> Record {
    Record {
        id: format!("r{id}"),
        messages: vec![Message::new(Role::User, input)],
        answer: Answer::Text(answer.into()),
        answer_weight: None,
        weight: None,
        continued: false,
        group: group.map(str::to_owned),
        stratum: Some(answer.to_owned()),
        lineage: Lineage { document: format!("d{id}"), source: "s".into(), row: id as u64, change: None },
    }
}

fn plan(test: f64, validation: f64) -> SplitPlan {
    let (test, validation) = (Portion::Fraction(test), Portion::Fraction(validation));
    SplitPlan { seed: 7, test, validation, train_per_stratum: None }
}

fn all(records: Vec<Record>, role: SourceRole) -> Vec<(Record, SourceRole)> {
    records.into_iter().map(|record| (record, role)).collect()
}

fn ids(records: &[Record]) -> BTreeSet<String> {
    records.iter().map(|record| record.id.clone()).collect()
}

#[test]
fn every_stratum_gets_its_share() {
    let labels = ["a", "a", "a", "a", "a", "a", "b", "b", "b", "c"];
    let records = (0..400).map(|i| record(i, &format!("text {i}"), labels[i % 10], None)).collect();
    let split = Split::new(all(records, SourceRole::Split), &plan(0.3, 0.1)).unwrap();
    let expected = [("a", 144, 24, 72), ("b", 72, 12, 36), ("c", 24, 4, 12)];
    let strata: Vec<(&str, usize, usize, usize)> =
        split.report.strata.iter().map(|(name, train, validation, test)| (name.as_str(), *train, *validation, *test)).collect();
    assert_eq!(strata, expected);
    assert_eq!((split.report.naive_leaked_groups, split.report.naive_leaked_inputs), (0, 0));
}

#[test]
fn groups_stay_together_and_the_naive_split_would_have_leaked() {
    let records: Vec<Record> = (0..300).map(|i| record(i, &format!("text {i}"), ["a", "b"][i % 2], Some(&format!("g{}", i / 3)))).collect();
    let split = Split::new(all(records, SourceRole::Split), &plan(0.3, 0.1)).unwrap();
    let groups = |records: &[Record]| records.iter().map(|record| record.group.clone().unwrap()).collect::<HashSet<_>>();
    let (train, test) = (groups(split.train.records()), groups(&split.held_out.in_domain));
    assert!(train.is_disjoint(&test));
    assert_eq!(split.report.groups, 100);
    assert!(split.held_out.in_domain.len().abs_diff(90) <= 3 && split.held_out.validation.len().abs_diff(30) <= 3);
    assert!(split.report.naive_leaked_groups > 60, "{}", split.report.naive_leaked_groups);
}

#[test]
fn declared_sources_keep_their_role_and_training_gives_way() {
    let mut records = all((0..20).map(|i| record(i, &format!("t {i}"), ["a", "b"][i % 2], None)).collect(), SourceRole::Train);
    records.push((record(100, "t 3", "b", None), SourceRole::Test));
    records.push((record(101, "new", "a", None), SourceRole::Test));
    records.push((record(102, "t  3 ", "b", None), SourceRole::Validation));
    records.push((record(103, "v", "b", None), SourceRole::Validation));
    records.push((record(104, "t 4", "", None), SourceRole::FarOod));
    records.push((record(105, "far", "", None), SourceRole::FarOod));
    records.push((record(106, "nothing", "", None), SourceRole::Train));
    let split = Split::new(records, &plan(0.0, 0.0)).unwrap();
    assert_eq!(ids(&split.held_out.in_domain), ["r100", "r101"].map(str::to_owned).into());
    assert_eq!(ids(&split.held_out.validation), ["r103".to_owned()].into());
    assert_eq!(ids(&split.held_out.far_ood), ["r105".to_owned()].into());
    assert_eq!(split.train.records().len(), 19);
    let reasons: BTreeMap<&str, &Reason> = split.report.left_out.iter().map(|rejected| (rejected.id.as_str(), &rejected.reason)).collect();
    assert_eq!(reasons["r3"], &Reason::HeldOut { part: "test" });
    assert_eq!(reasons["r102"], &Reason::HeldOut { part: "test" });
    assert_eq!(reasons["r104"], &Reason::HeldOut { part: "training" });
    assert_eq!(reasons["r106"], &Reason::EmptyTarget);
}

#[test]
fn bad_splits_are_errors() {
    let two = || vec![record(0, "x", "a", None), record(1, "y", "b", None)];
    let new = |records: Vec<Record>, plan: &SplitPlan| Split::new(all(records, SourceRole::Split), plan).unwrap_err();
    let one_class = (0..5).map(|i| record(i, &format!("{i}"), "a", None)).collect();
    assert_eq!(new(one_class, &plan(0.2, 0.2)), DataError::OneClass { records: 5 });
    assert!(matches!(new(two(), &plan(0.5, 0.5)), DataError::Portions { .. }));
    assert!(matches!(new(two(), &plan(1.0, 0.0)), DataError::Plan { .. }));
    assert!(matches!(new(two(), &plan(f64::NAN, 0.0)), DataError::Plan { .. }));
    assert!(matches!(new(Vec::new(), &plan(0.5, 0.1)), DataError::EmptyPart { part: "training", .. }));
    let one_group = (0..8).map(|i| record(i, &format!("{i}"), ["a", "b"][i % 2], Some("g"))).collect();
    assert!(matches!(new(one_group, &plan(0.3, 0.0)), DataError::EmptyPart { part: "training", .. }));
    let mut twice = two();
    twice[1].id = "r0".into();
    assert!(matches!(new(twice, &plan(0.3, 0.0)), DataError::DuplicateId { .. }));
}

#[test]
fn assembling_proves_that_nothing_is_on_both_sides() {
    let held = |record| HeldOut { in_domain: vec![record], ..HeldOut::default() };
    let train = || vec![record(0, "a b", "x", Some("g")), record(1, "c", "y", None)];
    assert!(Split::assemble(train(), held(record(2, "d", "x", Some("h")))).is_ok());
    let input = Split::assemble(train(), held(record(2, "a  b", "y", None))).unwrap_err();
    assert!(matches!(input, DataError::Leak { what: "input", .. }));
    let group = Split::assemble(train(), held(record(2, "d", "y", Some("g")))).unwrap_err();
    assert!(matches!(group, DataError::Leak { what: "group", .. }));
}

#[test]
fn small_strata_are_reported() {
    let mut records: Vec<Record> = (0..100).map(|i| record(i, &format!("{i}"), "a", None)).collect();
    records.extend((100..104).map(|i| record(i, &format!("{i}"), "rare", None)));
    let split = Split::new(all(records, SourceRole::Split), &plan(0.3, 0.1)).unwrap();
    assert_eq!(split.report.small_strata, [("rare".to_owned(), 1)]);
}

#[test]
fn few_shot_draws_are_per_stratum() {
    let records = (0..100).map(|i| record(i, &format!("{i}"), ["a", "b"][i % 2], None)).collect();
    let plan = SplitPlan { train_per_stratum: Some(3), ..plan(0.2, 0.1) };
    let split = Split::new(all(records, SourceRole::Split), &plan).unwrap();
    assert_eq!(split.train.records().len(), 6);
    assert_eq!(split.report.left_out.len(), 64);
}

#[test]
fn shuffled_answers_are_the_same_answers() {
    let records = (0..60).map(|i| record(i, &format!("{i}"), &format!("l{}", i % 6), None)).collect();
    let split = Split::new(all(records, SourceRole::Split), &plan(0.2, 0.1)).unwrap();
    let shuffled = split.train.with_shuffled_answers(1);
    let answers = |records: &[Record]| {
        let mut answers: Vec<String> = records.iter().map(|record| record.answer.to_text()).collect();
        answers.sort();
        answers
    };
    assert_eq!(answers(shuffled.records()), answers(split.train.records()));
    let same = shuffled.records().iter().zip(split.train.records()).filter(|(a, b)| a.answer == b.answer).count();
    assert!(same < 20, "{same} of {}", split.train.records().len());
    let rows = shuffled
        .rows(|record| Ok::<_, DataError>(TokenRow { record_id: record.id.clone(), ids: vec![1, 2], loss_weights: vec![0.0, 1.0] }));
    assert_eq!(rows.unwrap().rows().len(), split.train.records().len());
}

fn records_strategy() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec((0..40_usize, 0..5_usize, prop::option::of(0..15_usize)), 20..120).prop_map(|rows| {
        let make = |(i, (input, answer, group)): (usize, (usize, usize, Option<usize>))| {
            record(i, &format!("input {input}"), &format!("l{answer}"), group.map(|g| format!("g{g}")).as_deref())
        };
        rows.into_iter().enumerate().map(make).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn nothing_is_lost_nothing_leaks_and_order_has_no_say(records in records_strategy(), test in 0.0..0.5_f64) {
        let plan = plan(test, 0.1);
        match Split::new(all(records.clone(), SourceRole::Split), &plan) {
            Ok(split) => {
                let parts = [split.train.records(), &split.held_out.validation, &split.held_out.in_domain];
                let mut seen = BTreeSet::new();
                for part in parts {
                    for record in part {
                        prop_assert!(seen.insert(record.id.clone()));
                    }
                }
                prop_assert_eq!(seen.len() + split.report.left_out.len(), records.len());
                let mut reversed = records;
                reversed.reverse();
                let again = Split::new(all(reversed, SourceRole::Split), &plan).unwrap();
                prop_assert_eq!(ids(again.train.records()), ids(split.train.records()));
                prop_assert_eq!(ids(&again.held_out.in_domain), ids(&split.held_out.in_domain));
            }
            // One unit may hold everything.
            Err(error) => prop_assert!(matches!(error, DataError::EmptyPart { .. } | DataError::OneClass { .. }), "{}", error),
        }
    }
}
