//! `bench train` trains: losses fall, and are those of a plain reading of the same batch.

use std::path::Path;

use recipes::bench::train::{BenchTrain, BenchTrainOptions, train};
use recipes::context::{Context, MemoryPolicy, Silent};
use recipes::score::score;
use serde_json::json;

use crate::home::{Home, fresh_adapter};

fn options<'a>(model: &'a str, ids: &'a Path, adapter: &'a Path) -> BenchTrainOptions<'a> {
    BenchTrainOptions {
        model,
        storage: "",
        mapped: false,
        batch: 3,
        length: 20,
        method: "lora",
        rank: 2,
        lora_plus_ratio: 1.0,
        optimizer: "adamw",
        steps: 4,
        ids: Some(ids),
        adapter_start: Some(adapter),
    }
}

fn run(home: &Home, options: BenchTrainOptions<'_>) -> BenchTrain {
    train(&home.context(), &mut Silent, options).unwrap()
}

#[test]
fn the_loss_is_that_of_the_whole_batch_whatever_is_kept() {
    let home = Home::new();
    let model = home.tiny_model();
    let adapter = fresh_adapter(&home, Path::new(&model), 2);
    let ids: Vec<Vec<u32>> = (0..3u32).map(|sequence| (0..20u32).map(|at| 5 + (97 * sequence + 31 * at) % 1390).collect()).collect();
    let file = home.write("ids.json", json!(ids).to_string());
    let result = run(&home, options(&model, &file, &adapter));
    assert_eq!((result.losses.len(), result.step_seconds.len(), result.batch, result.length), (4, 4, 3, 20));
    assert!(result.losses.is_sorted_by(|a, b| a > b), "{:?}", result.losses);
    assert_eq!(result.tokens_per_second, 60.0, "the test's clock ticks once a call");
    assert!(result.gflops > 0.0 && result.planned_bytes > 0);

    // B is zero at the start: the first loss is the base's mean over batch · (length − 1).
    let records: String = ids.iter().map(|ids| json!({ "ids": ids }).to_string() + "\n").collect();
    let records = home.write("records.jsonl", records);
    let total = score(&home.context(), &mut Silent, &records, &model, None, "", "", true, &mut |_| {}).unwrap();
    assert_eq!(total.loss_tokens, 3 * 19);
    assert!((result.losses[0] + total.log_prob / 57.0).abs() < 1e-5, "{} and {}", result.losses[0], -total.log_prob / 57.0);

    let recomputing = Context { memory: MemoryPolicy::Recompute, threads: 1, ..home.context() };
    let recomputed = train(&recomputing, &mut Silent, options(&model, &file, &adapter)).unwrap();
    assert_eq!(recomputed.losses, result.losses);
    let alone = Context { threads: 1, ..home.context() };
    let kept = train(&alone, &mut Silent, options(&model, &file, &adapter)).unwrap();
    let between = (recomputed.planned_bytes + kept.planned_bytes) / 2;
    let fitted = train(&Context { memory: MemoryPolicy::Within(between), ..alone }, &mut Silent, options(&model, &file, &adapter)).unwrap();
    assert!(
        recomputed.planned_bytes < fitted.planned_bytes && fitted.planned_bytes <= between && between < kept.planned_bytes,
        "{fitted:?}"
    );
    assert_eq!(fitted.losses, result.losses);
    let none = Context { memory: MemoryPolicy::Within(1 << 20), ..home.context() };
    let error = train(&none, &mut Silent, options(&model, &file, &adapter)).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("fewer or shorter sequences")), "{error}");
}

#[test]
fn without_files_ids_and_adapter_are_drawn_alike_each_time() {
    let home = Home::new();
    let model = home.tiny_model();
    let drawn = BenchTrainOptions {
        model: &model,
        storage: "",
        mapped: false,
        batch: 2,
        length: 16,
        method: "lora",
        rank: 4,
        lora_plus_ratio: 1.0,
        optimizer: "adamw",
        steps: 2,
        ids: None,
        adapter_start: None,
    };
    assert_eq!(run(&home, drawn).losses, run(&home, drawn).losses);
}

/// Mapped weights take no planned memory and change no bit; moments in 8 bits change little, and take a quarter.
#[test]
fn mapped_weights_and_moments_in_8_bits() {
    let home = Home::new();
    let model = home.tiny_model();
    let of = |mapped, method, optimizer| BenchTrainOptions {
        model: &model,
        storage: "",
        mapped,
        batch: 2,
        length: 16,
        method,
        rank: 4,
        lora_plus_ratio: 1.0,
        optimizer,
        steps: 3,
        ids: None,
        adapter_start: None,
    };
    let (copied, mapped) = (run(&home, of(false, "lora", "adamw")), run(&home, of(true, "lora", "adamw")));
    assert_eq!(mapped.losses, copied.losses);
    assert!(mapped.planned_bytes < copied.planned_bytes, "{} of {}", mapped.planned_bytes, copied.planned_bytes);
    let (exact, rounded) = (run(&home, of(false, "full", "adamw")), run(&home, of(false, "full", "adamw_8bit")));
    assert_eq!(rounded.losses[..2], exact.losses[..2]);
    assert!((rounded.losses[2] - exact.losses[2]).abs() < 0.01 * exact.losses[2] && rounded.losses[2] != exact.losses[2]);
    assert!(rounded.planned_bytes < exact.planned_bytes, "{} of {}", rounded.planned_bytes, exact.planned_bytes);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let home = Home::new();
    let model = home.tiny_model();
    let adapter = fresh_adapter(&home, Path::new(&model), 2);
    let refused = |ids: &str, change: fn(&mut BenchTrainOptions<'_>)| {
        let file = home.write("ids.json", ids);
        let mut options = options(&model, &file, &adapter);
        change(&mut options);
        train(&home.context(), &mut Silent, options).unwrap_err().to_string()
    };
    let good = json!([5, 6, 7].map(|id| vec![id; 20])).to_string();
    assert!(refused(&good, |options| options.batch = 4).contains("3 lists, expected --batch 4"));
    assert!(refused(&good, |options| options.length = 21).contains("20 ids in list 0"));
    assert!(refused(&good, |options| options.rank = 3).contains("rank of the adapter"));
    assert!(refused(&good, |options| options.steps = 1).contains("--steps: 1, expected at least 2"));
    assert!(refused("{}", |_| {}).contains("list of lists"));
    assert!(
        refused(&json!([5, 6, 1402].map(|id| vec![id; 20])).to_string(), |_| {}).contains("1402, expected below the vocabulary of 1402")
    );
}
