//! The project's chores. `cargo xtask check` is exactly what CI runs; the others are slow proofs.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a chore runner talks to a person and reads files"
)]

mod corpus;
mod crash;
mod data;
mod exports;
mod fuzz;
mod layers;
mod memory;
mod parity;
mod shapes;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask <task>

  check     formatting, clippy, layers, tests, docs: what CI runs
  layers    the crate edges, forbidden dependencies and licences
  corpus    writes a made-up corpus to measure preparation with: --megabytes N --out FOLDER [--seed 1]
  crash     kill -9 at random instants, resume, same bytes; [--runs 25] [--project DIR] (minutes)
  data      what preparation is held to, on public data sets and corpora; --data-folder DIR --out DIR (minutes)
  memory    planned against measured memory of training in 20 shapes a model; --model MODEL (minutes)
  shapes    Qwen 2.5's 1.5B and 7B with random weights: planned and measured memory, tokens/s; --output DIR (GB, minutes)
  fuzz      mutated files for every parser of data; [--seconds 10] [--seed 1] [--only TARGET,…]
  parity    figures beside PyTorch's and llama.cpp's on a real model; --peers DIR [--only PART,…] [--rounds 3] (minutes)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("check") => check(),
        Some("layers") => layers::check(),
        Some("corpus") => corpus::corpus(&arguments[1..]),
        Some("crash") => crash::crash(&arguments[1..]),
        Some("memory") => memory::memory(&arguments[1..]),
        Some("data") => data::data(&arguments[1..]),
        Some("fuzz") => fuzz::fuzz(&arguments[1..]),
        Some("parity") => parity::parity(&arguments[1..]),
        Some("shapes") => shapes::shapes(&arguments[1..]),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One step of `check`: the words before `--` are cargo's, `envs` are set for it alone.
struct Step {
    name: &'static str,
    cargo: &'static [&'static str],
    envs: &'static [(&'static str, &'static str)],
}

/// Everything CI runs. One profile (dev) serves clippy, tests and docs, so that nothing is built twice.
fn check() -> Result<()> {
    const STEPS: &[Step] = &[
        Step { name: "format", cargo: &["fmt", "--all", "--check"], envs: &[] },
        Step { name: "clippy", cargo: &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], envs: &[] },
        Step { name: "docs", cargo: &["doc", "--workspace", "--no-deps", "--quiet"], envs: &[("RUSTDOCFLAGS", "-D warnings")] },
        Step { name: "tests", cargo: &["test", "--workspace"], envs: &[] },
    ];
    layers::check()?;
    for step in STEPS {
        let start = Instant::now();
        println!("== {}: cargo {}", step.name, step.cargo.join(" "));
        let status =
            Command::new(env!("CARGO")).args(step.cargo).envs(step.envs.iter().copied()).status().context("cargo did not start")?;
        if !status.success() {
            bail!("{} failed: cargo {}", step.name, step.cargo.join(" "));
        }
        println!("== {}: ok, {:.0} s", step.name, start.elapsed().as_secs_f64());
    }
    println!("check: all green");
    Ok(())
}
