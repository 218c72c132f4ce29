//! How good the classical rival is on BANKING77: `cargo run --release -p eval --example banking77 -- TRAIN.csv TEST.csv [N]`.
//!
//! Trains on the first N messages of each class (default 10) and on three seeded draws of N, and measures on the whole test set; others' figure for
//! TF-IDF and nearest centroid is 71–73 % with 10 messages per class.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example is a program of its own: it reads arguments, takes the time and prints"
)]

use std::collections::BTreeMap;
use std::time::Instant;

use eval::classical::TextClassifier;
use eval::random::Stream;
use eval::statistics::{Clusters, wilson};

type Rows = Vec<(String, String)>;

fn read(path: &str) -> Result<Rows, csv::Error> {
    csv::Reader::from_path(path)?.deserialize().collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [train, test, rest @ ..] = &arguments[..] else {
        return Err("usage: banking77 TRAIN.csv TEST.csv [MESSAGES_PER_CLASS | all]".into());
    };
    let per_class = match rest.first().map(String::as_str) {
        Some("all") => usize::MAX,
        Some(count) => count.parse()?,
        None => 10,
    };
    let (train, test) = (read(train)?, read(test)?);
    let mut by_class: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (text, label) in &train {
        by_class.entry(label).or_default().push(text);
    }
    let names: Vec<String> = by_class.keys().map(|name| (*name).to_owned()).collect();
    for draw in [None, Some(1), Some(2), Some(3)] {
        if per_class == usize::MAX && draw.is_some() {
            break;
        }
        let (mut texts, mut labels) = (Vec::new(), Vec::new());
        for (label, of_class) in by_class.values().enumerate() {
            let mut order: Vec<usize> = (0..of_class.len()).collect();
            if let Some(seed) = draw {
                order = Stream::new(seed, "draw").fork(label as u64).permutation(of_class.len());
            }
            for &index in order.iter().take(per_class) {
                texts.push(of_class[index]);
                labels.push(label);
            }
        }
        let started = Instant::now();
        let classifier = TextClassifier::train(&texts, &labels, &names, &Clusters::singletons(texts.len()), 1)?;
        let trained = started.elapsed();
        let started = Instant::now();
        let right = test.iter().filter(|(text, label)| names[classifier.predict(text).label] == *label).count();
        let rate = right as f64 / test.len() as f64;
        let interval = wilson(rate, test.len() as f64, 0.95);
        println!(
            "draw {}: {} records, {:?}, accuracy {:.4} [{:.4}, {:.4}] on {} in {:.2} s + {:.2} s",
            draw.map_or("first".to_owned(), |seed| seed.to_string()),
            texts.len(),
            classifier.training,
            rate,
            interval.low,
            interval.high,
            test.len(),
            trained.as_secs_f64(),
            started.elapsed().as_secs_f64(),
        );
    }
    Ok(())
}
