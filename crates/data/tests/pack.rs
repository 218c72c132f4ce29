//! Packing: whatever is shared, every record's tokens, targets and weights come back.

use data::DataError;
use data::pack::{self, DEPTH_MAX, PackPlan, PackedBatch, TokenRow, TrainRows};
use proptest::prelude::*;
use std::collections::HashMap;

fn row(id: usize, ids: Vec<u32>, prompt: usize) -> TokenRow {
    let loss_weights = (0..ids.len()).map(|i| if i >= prompt { 1.0 } else { 0.0 }).collect();
    TokenRow { record_id: format!("r{id}"), ids, loss_weights }
}

fn plan(batch_rows: usize, shared_min: Option<usize>) -> PackPlan {
    PackPlan { seed: 3, records_per_step: 4, batch_rows, shared_min }
}

/// A sequence's rows as the engine would read them: from its last row up through the parents.
fn path(batch: &PackedBatch, mut row: usize) -> Vec<usize> {
    let mut rows = Vec::new();
    let mut depth = 0;
    loop {
        let at = batch.segments.iter().position(|segment| segment.rows.contains(&row)).unwrap();
        let segment = &batch.segments[at];
        depth += 1;
        assert!(depth <= DEPTH_MAX);
        rows.extend((segment.rows.start..=row).rev());
        match segment.parent {
            Some(parent) => {
                assert!(parent < at, "a parent after its child");
                row = batch.segments[parent].rows.end - 1;
            }
            None => break,
        }
    }
    rows.reverse();
    rows
}

/// Every target of every record with its weight and everything before it, from the tree.
fn expand(batches: &[PackedBatch]) -> HashMap<(usize, usize), (Vec<u32>, u32, f32)> {
    let mut entries = HashMap::new();
    for batch in batches {
        let mut at = 0;
        for segment in &batch.segments {
            assert_eq!(segment.rows.start, at, "segments tile the rows");
            assert!(!segment.rows.is_empty());
            at = segment.rows.end;
        }
        assert_eq!(at, batch.tokens.len());
        assert_eq!((batch.positions.len(), batch.draw_keys.len()), (at, at));
        assert!(batch.entries.windows(2).all(|pair| pair[0].row <= pair[1].row));
        for entry in &batch.entries {
            let rows = path(batch, entry.row as usize);
            let positions: Vec<u32> = rows.iter().map(|row| batch.positions[*row]).collect();
            assert_eq!(positions, (0..rows.len() as u32).collect::<Vec<_>>());
            let context = rows.iter().map(|row| batch.tokens[*row]).collect();
            let record = batch.records[entry.sequence as usize];
            let twice = entries.insert((record, rows.len()), (context, entry.target, entry.weight));
            assert!(twice.is_none(), "an entry twice");
        }
    }
    entries
}

fn expected(rows: &[TokenRow]) -> HashMap<(usize, usize), (Vec<u32>, u32, f32)> {
    let mut entries = HashMap::new();
    for (record, row) in rows.iter().enumerate() {
        for i in 1..row.ids.len() {
            if row.loss_weights[i] > 0.0 {
                entries.insert((record, i), (row.ids[..i].to_vec(), row.ids[i], row.loss_weights[i]));
            }
        }
    }
    entries
}

#[test]
fn a_shared_instruction_is_computed_once() {
    let rows: Vec<TokenRow> = (0..4).map(|i| row(i, [(0..100).collect(), vec![200 + i as u32, 300, 400]].concat(), 101)).collect();
    let batches = pack::pack_for_scoring(&rows, 1000, Some(8)).unwrap();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].tokens.len(), 100 + 4 * 2, "the last token of each is only a target");
    assert_eq!(batches[0].rendered_tokens, 4 * 103);
    assert_eq!(batches[0].segments.len(), 5);
    assert_eq!(expand(&batches), expected(&rows));
    let apart = pack::pack_for_scoring(&rows, 1000, None).unwrap();
    assert_eq!(apart[0].tokens.len(), 4 * 102);
    assert_eq!(expand(&apart), expected(&rows));
}

#[test]
fn completions_that_begin_alike_branch_on_one_row() {
    let rows = [row(0, vec![1, 2, 3, 4], 2), row(1, vec![1, 2, 3, 5], 2), row(2, vec![1, 2, 3], 2), row(3, vec![1, 2, 3, 4], 2)];
    let batches = pack::pack_for_scoring(&rows, 100, Some(1)).unwrap();
    assert_eq!(batches[0].tokens, [1, 2, 3]);
    assert_eq!(batches[0].entries.iter().filter(|entry| entry.row == 2).count(), 3);
    assert_eq!(expand(&batches), expected(&rows));
}

#[test]
fn deep_nesting_stops_at_the_engines_limit() {
    // Each record goes one step further than the one before.
    let rows: Vec<TokenRow> = (1..40).map(|i| row(i, (0..3 * i as u32).chain([999, 1000]).collect(), 3 * i)).collect();
    let batches = pack::pack_for_scoring(&rows, 10_000, Some(2)).unwrap();
    assert_eq!(expand(&batches), expected(&rows));
}

#[test]
fn budgets_are_kept_and_nothing_fits_by_cutting() {
    let rows: Vec<TokenRow> = (0..20).map(|i| row(i, (0..30).map(|t| t + 100 * (i as u32 % 7)).collect(), 10)).collect();
    let batches = pack::pack_for_scoring(&rows, 64, Some(8)).unwrap();
    assert!(batches.len() > 1 && batches.iter().all(|batch| batch.tokens.len() <= 64));
    assert_eq!(expand(&batches), expected(&rows));
    let error = pack::pack_for_scoring(&rows, 28, Some(8)).unwrap_err();
    assert_eq!(error, DataError::RowTooLong { record: "r0".into(), given: 29, limit: 28 });
}

#[test]
fn wrong_rows_are_refused() {
    let pack = |row: TokenRow| pack::pack_for_scoring(&[row], 100, Some(8)).unwrap_err();
    let short = TokenRow { loss_weights: vec![1.0], ..row(0, vec![1, 2], 1) };
    assert!(matches!(pack(short), DataError::RowLengths { ids: 2, weights: 1, .. }));
    for weight in [f32::NAN, f32::INFINITY, -1.0] {
        let wrong = TokenRow { loss_weights: vec![0.0, weight], ..row(0, vec![1, 2], 1) };
        assert!(matches!(pack(wrong), DataError::RowWeight { position: 1, .. }));
    }
    let empty = row(0, Vec::new(), 0);
    let batches = pack::pack_for_scoring(&[empty], 100, Some(8)).unwrap();
    assert_eq!((batches.len(), batches[0].tokens.len()), (1, 0));
    let rows = TrainRows::synthetic(vec![row(0, vec![1, 2], 1)]);
    let order = pack::order(&rows, 0, 0);
    assert!(matches!(pack::step(&rows, &order, &plan(10, None), 0, 1), Err(DataError::NoSuchStep { given: 1, steps: 1 })));
    let none = PackPlan { records_per_step: 0, ..plan(10, None) };
    assert!(matches!(pack::step(&rows, &order, &none, 0, 0), Err(DataError::Plan { .. })));
}

#[test]
fn an_epoch_has_every_record_once_in_an_order_of_its_own() {
    let rows = TrainRows::synthetic((0..50).map(|i| row(i, vec![i as u32, 1, 2], 1)).collect());
    let orders: Vec<Vec<usize>> = (0..3).map(|epoch| pack::order(&rows, 1, epoch)).collect();
    for order in &orders {
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    assert_eq!(orders[0], pack::order(&rows, 1, 0));
    assert_eq!(pack::steps_per_epoch(&rows, &plan(10, None)), 13);
    // The order is of records, not of rows: another place for a record does not move the others.
    let mut turned = rows.rows().to_vec();
    turned.reverse();
    let turned = TrainRows::synthetic(turned);
    let names = |rows: &TrainRows, order: &[usize]| order.iter().map(|i| rows.rows()[*i].record_id.clone()).collect::<Vec<_>>();
    assert_eq!(names(&rows, &orders[0]), names(&turned, &pack::order(&turned, 1, 0)));
}

#[test]
fn draws_are_named_by_record_or_by_what_is_shared() {
    let shared: Vec<u32> = (0..20).collect();
    let with = |tail: u32, id| row(id, [shared.clone(), vec![tail, 7, 8]].concat(), 21);
    let rows = TrainRows::synthetic(vec![with(50, 0), with(51, 1), with(52, 2), row(3, vec![9, 9, 9], 1)]);
    let keys = |order: &[usize], epoch| {
        let step = pack::step(&rows, order, &plan(100, Some(8)), epoch, 0).unwrap();
        let batch = step.batches[0].clone();
        batch.tokens.iter().copied().zip(batch.draw_keys.clone()).collect::<Vec<_>>()
    };
    let three = keys(&[0, 1, 2], 0);
    let two = keys(&[2, 0], 0);
    assert_eq!(three[..20], two[..20], "a shared run draws the same whoever shares it");
    assert!(two[20..].iter().all(|key| three.contains(key)), "and so does each record's own part");
    let mut distinct: Vec<u64> = three.iter().map(|(_, key)| *key).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), three.len());
    assert!(keys(&[0, 1, 2], 1).iter().zip(&three).all(|(a, b)| a.1 != b.1), "each epoch draws anew");
}

/// Rows from a small alphabet, so that they share a lot.
fn rows_strategy() -> impl Strategy<Value = Vec<TokenRow>> {
    let row = (prop::collection::vec(0..3_u32, 1..24), prop::collection::vec(0..3_u8, 24));
    prop::collection::vec(row, 1..30).prop_map(|rows| {
        let make = |(i, (ids, weights)): (usize, (Vec<u32>, Vec<u8>))| {
            let loss_weights = weights[..ids.len()].iter().map(|weight| f32::from(*weight) / 2.0).collect();
            TokenRow { record_id: format!("r{i}"), ids, loss_weights }
        };
        rows.into_iter().enumerate().map(make).collect()
    })
}

/// Every pass continues the first or itself, and what is in memory at a time stays within the budget.
fn check_passes(batch: &PackedBatch, budget: usize) {
    assert!(batch.resident_rows() <= budget, "{} rows of {budget}", batch.resident_rows());
    let passes = batch.pass_rows();
    let pass_of = |rows: &std::ops::Range<usize>| passes.iter().position(|pass| pass.start <= rows.start && rows.end <= pass.end);
    for segment in &batch.segments {
        let pass = pass_of(&segment.rows).expect("no segment lies in two passes");
        let parent = segment.parent.map(|parent| pass_of(&batch.segments[parent].rows).unwrap());
        assert!(parent.is_none_or(|parent| parent == 0 || parent == pass));
    }
    let covered: usize = passes.iter().map(|pass| pass.len()).sum();
    assert_eq!(covered, batch.tokens.len());
}

#[test]
fn a_long_instruction_is_computed_once_in_a_step() {
    let rows: Vec<TokenRow> = (0..32).map(|i| row(i, [(0..100).collect(), vec![200 + i as u32; 10]].concat(), 105)).collect();
    let rows = TrainRows::synthetic(rows);
    let step = |batch_rows| {
        let plan = PackPlan { records_per_step: 32, ..plan(batch_rows, Some(8)) };
        let step = pack::step(&rows, &pack::order(&rows, 0, 0), &plan, 0, 0).unwrap();
        assert_eq!(expand(&step.batches), expected(rows.rows()));
        step.batches.iter().for_each(|batch| check_passes(batch, batch_rows));
        (step.batches.iter().map(|batch| batch.pass_rows().len()).collect::<Vec<_>>(), pack::several_passes(&rows, &plan))
    };
    let own = 32 * 9;
    assert_eq!(step(100 + own), (vec![1], true), "the plan says what may be, from the records' lengths");
    assert_eq!(step(100 + own - 1), (vec![3], true), "two passes of 16 records");
    assert_eq!(step(100 + 80), (vec![5], true), "8 records at a time");
    assert_eq!(step(109).0.len(), 1, "one record at a time");
    let apart = PackPlan { records_per_step: 32, ..plan(200, None) };
    assert!(!pack::several_passes(&rows, &apart));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_tree_says_what_the_records_say(rows in rows_strategy(), budget in 24..200_usize, min in prop::option::of(0..6_usize)) {
        let batches = pack::pack_for_scoring(&rows, budget, min).unwrap();
        prop_assert_eq!(expand(&batches), expected(&rows));
        prop_assert!(batches.iter().all(|batch| batch.tokens.len() <= budget));
        let rendered: usize = batches.iter().map(|batch| batch.rendered_tokens).sum();
        prop_assert_eq!(rendered, rows.iter().map(|row| row.ids.len()).sum::<usize>());
        let mut records: Vec<usize> = batches.iter().flat_map(|batch| batch.records.clone()).collect();
        records.sort();
        prop_assert_eq!(records, (0..rows.len()).collect::<Vec<_>>());
    }

    #[test]
    fn passes_say_what_the_records_say(rows in rows_strategy(), budget in 100..260_usize, lengths in prop::array::uniform3(30..70_usize)) {
        // Some begin with 1 instruction, some with 2 or 3 that follow each other.
        let begin = |i: usize| -> Vec<u32> { (0..=i % 3).flat_map(|part| (0..lengths[part]).map(move |t| (100 * (part + 1) + t) as u32)).collect() };
        let rows: Vec<TokenRow> = rows.into_iter().enumerate().map(|(i, row)| {
            let ids = [begin(i), row.ids].concat();
            let loss_weights = [vec![0.0; ids.len() - row.loss_weights.len()], row.loss_weights].concat();
            TokenRow { ids, loss_weights, ..row }
        }).collect();
        let budget = budget.max(rows.iter().map(|row| row.ids.len()).max().unwrap_or(0));
        let plan = PackPlan { records_per_step: rows.len(), ..plan(budget, Some(4)) };
        let rows = TrainRows::synthetic(rows);
        let step = pack::step(&rows, &pack::order(&rows, 0, 0), &plan, 0, 0).unwrap();
        prop_assert_eq!(expand(&step.batches), expected(rows.rows()));
        step.batches.iter().for_each(|batch| check_passes(batch, budget));
        prop_assert!(pack::several_passes(&rows, &plan) || step.batches.iter().all(|batch| batch.pass_rows().len() == 1));
    }

    #[test]
    fn an_epoch_loses_no_weight(rows in rows_strategy(), per_step in 1..9_usize) {
        let total: f64 = rows.iter().flat_map(|row| row.loss_weights.iter().skip(1)).map(|w| f64::from(*w)).sum();
        let expected = expected(&rows);
        let rows = TrainRows::synthetic(rows);
        let plan = PackPlan { records_per_step: per_step, ..plan(64, Some(2)) };
        let order = pack::order(&rows, 1, 2);
        let mut weight = 0.0;
        let mut batches = Vec::new();
        for step in 0..pack::steps_per_epoch(&rows, &plan) {
            let packed = pack::step(&rows, &order, &plan, 2, step).unwrap();
            let records: usize = packed.batches.iter().map(|batch| batch.records.len()).sum();
            prop_assert!(records == per_step || step + 1 == pack::steps_per_epoch(&rows, &plan));
            weight += packed.weight;
            batches.extend(packed.batches);
        }
        prop_assert_eq!(weight, total);
        prop_assert_eq!(expand(&batches), expected);
    }
}
