//! Planned against measured memory: training in many shapes, each in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const USAGE: &str = "\
usage: cargo xtask memory --model MODEL [--model MODEL …]

  --model MODEL  base model: catalogue name, folder or GGUF file; each is trained in the same shapes
";

/// The plan may be this much above what is measured.
const ABOVE: f64 = 0.05;
/// And this much below.
const BELOW: f64 = 0.02;

/// Sequences, their length, rank, memory policy, threads.
const SHAPES: [(&str, &str, &str, &str, &str); 20] = [
    ("1", "64", "4", "keep", "1"),
    ("1", "128", "16", "keep", "2"),
    ("1", "256", "64", "keep", "2"),
    ("1", "512", "16", "keep", "1"),
    ("1", "512", "16", "keep", "2"),
    ("1", "512", "16", "recompute", "2"),
    ("1", "1024", "8", "keep", "2"),
    ("1", "1024", "8", "recompute", "2"),
    ("1", "2048", "16", "recompute", "2"),
    ("2", "128", "4", "keep", "2"),
    ("2", "256", "32", "recompute", "1"),
    ("2", "512", "16", "keep", "2"),
    ("2", "512", "16", "recompute", "2"),
    ("2", "512", "128", "keep", "2"),
    ("4", "64", "16", "keep", "4"),
    ("4", "128", "8", "keep", "2"),
    ("4", "256", "16", "recompute", "2"),
    ("8", "64", "16", "keep", "2"),
    ("8", "128", "16", "recompute", "7"),
    ("16", "32", "1", "keep", "2"),
];

/// Measures all of them and fails where one is outside the bounds.
pub(crate) fn memory(arguments: &[String]) -> Result<()> {
    let models = parse(arguments)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let build = Command::new(env!("CARGO")).args(["build", "--release", "--quiet", "-p", "tunesmith"]).current_dir(root).status()?;
    ensure!(build.success(), "cargo build failed");
    let (mut all, mut missed) = (0, 0);
    for model in &models {
        println!("{model}");
        for (batch, length, rank, memory, threads) in SHAPES {
            let mut command = Command::new(target.join("release/tunesmith"));
            command.args(["bench", "train", "--json", "--steps", "2", "--model", model, "--batch", batch, "--length", length]);
            let output = command.args(["--rank", rank, "--memory", memory, "--threads", threads]).output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let said: Value = serde_json::from_slice(&output.stdout)?;
            let number = |key: &str| said[key].as_f64().with_context(|| format!("no {key} in {said}"));
            let (planned, measured) = (number("planned_bytes")?, number("peak_rss_bytes")?);
            let off = planned / measured - 1.0;
            let holds = (-BELOW..=ABOVE).contains(&off);
            all += 1;
            missed += usize::from(!holds);
            println!(
                "{} {batch:>2} x {length:>4}, rank {rank:>3}, {memory:<9} {threads} threads: planned {:7.1} MB, measured {:7.1} MB, {:+.1} %",
                if holds { "ok  " } else { "MISS" },
                planned / 1e6,
                measured / 1e6,
                100.0 * off
            );
        }
    }
    ensure!(missed == 0, "{missed} of {all} configurations are outside -{:.0} % to +{:.0} %", 100.0 * BELOW, 100.0 * ABOVE);
    println!("memory: {all} configurations within -{:.0} % to +{:.0} %", 100.0 * BELOW, 100.0 * ABOVE);
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Vec<String>> {
    let mut models = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--model" => models.push(words.next().with_context(|| format!("--model needs a value\n\n{USAGE}"))?.clone()),
            other => bail!("unknown option {other}\n\n{USAGE}"),
        }
    }
    ensure!(!models.is_empty(), "--model is missing\n\n{USAGE}");
    Ok(models)
}
