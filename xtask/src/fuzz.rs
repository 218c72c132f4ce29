//! `cargo xtask fuzz`: mutated files for every parser of customer data, in a process each.

use anyhow::{Context, Result, bail};
use std::process::Command;

/// The parsers, as `crates/data/examples/fuzz.rs` knows them.
const TARGETS: &[&str] = &[
    "csv", "jsonl", "json", "parquet", "tfrecord", "xml", "xlsx", "docx", "pdf", "html", "eml", "mbox", "text", "zip", "gzip", "tar",
    "zstd", "unnamed",
];

/// `[--seconds N] [--seed N] [--only TARGET,…]`
pub(crate) fn fuzz(arguments: &[String]) -> Result<()> {
    let (mut seconds, mut seed, mut only) = (10u64, 1u64, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--seconds" => seconds = value.parse().context("--seconds")?,
            "--seed" => seed = value.parse().context("--seed")?,
            "--only" => only = value.split(',').map(str::to_owned).collect(),
            other => bail!("unknown option {other}"),
        }
    }
    if let Some(unknown) = only.iter().find(|target| !TARGETS.contains(&target.as_str())) {
        bail!("no target {unknown}; there are {}", TARGETS.join(", "));
    }
    let mut failed = Vec::new();
    for target in TARGETS.iter().filter(|target| only.is_empty() || only.iter().any(|wanted| wanted == *target)) {
        let status = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "-p", "data", "--example", "fuzz", "--", target, &seconds.to_string(), &seed.to_string()])
            .status()
            .context("cargo did not start")?;
        if !status.success() {
            println!("{target}: FAILED ({status})");
            failed.push(*target);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("fuzz: {}", failed.join(", ")) }
}
