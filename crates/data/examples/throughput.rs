//! How fast a table is read: `cargo run --release -p data --example throughput -- FILE` gives bytes per second of one core.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a driver reads a file, the clock and its arguments")]

use data::read::{self, Item, LIMITS, ReadOptions};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let (file, bytes) = (std::fs::File::open(&path)?, std::fs::metadata(&path)?.len());
        let start = Instant::now();
        let (mut documents, mut rejected, mut fields) = (0u64, 0u64, 0usize);
        for item in read::open(&path, Box::new(file), &ReadOptions::recognise(LIMITS))? {
            match item? {
                Item::Document(document) => {
                    documents += 1;
                    fields += document.fields.len();
                }
                Item::Rejected(_) => rejected += 1,
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let rate = bytes as f64 / 1e6 / seconds;
        println!("{path}: {documents} documents, {fields} fields, {rejected} rejected, {seconds:.2} s, {rate:.0} MB/s");
    }
    Ok(())
}
