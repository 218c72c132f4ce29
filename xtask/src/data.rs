//! `cargo xtask data`: what preparation is held to, measured on public data sets and made-up corpora, minutes long.
//!
//! The folder has `banking77/{train,test}.csv` (PolyAI, CC BY 4.0: text, category) and `clinc150/data_full.json` (CC BY 3.0: lists of
//! [text, intent] under train and test). They are known to share 11 and 26 texts between training and test, up to case, punctuation
//! and white space; of the 26 two are contradictory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::corpus::{self, Random};

const USAGE: &str = "\
usage: cargo xtask data --data-folder DIR --out DIR [--model smollm2-135m-instruct] [--megabytes 100,1000] [--program FILE]

  --data-folder DIR  with banking77/ and clinc150/
  --out DIR          where corpora and runs are written; needs five times the largest corpus
  --megabytes N,…    sizes of the corpora; 0: none
  --program FILE     a program that is built already; its speed is measured too
";

/// Share of labels that are swapped.
const SWAPPED: f64 = 0.03;
/// Rows whose story is told again.
const STORIES: usize = 100;

/// Text and label of each row.
type Rows = [(String, String)];
/// File, role and rows of a source.
type Source<'a> = (&'a str, &'a str, &'a Rows);

struct Proof {
    program: PathBuf,
    out: PathBuf,
    model: String,
    missed: usize,
}

impl Proof {
    fn say(&mut self, holds: bool, what: &str) {
        println!("{} {what}", if holds { "ok  " } else { "MISS" });
        self.missed += usize::from(!holds);
    }

    fn tunesmith(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.program);
        let output = command.args(arguments).arg("--json").arg("--workspace").arg(&self.out).output()?;
        ensure!(output.status.success(), "tunesmith {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Writes a project of JSONL sources and prepares it.
    fn prepared(&self, name: &str, sources: &[Source<'_>], prepare: &str) -> Result<Value> {
        let folder = self.out.join(name);
        std::fs::create_dir_all(&folder)?;
        let mut run_file =
            format!("[project]\nname = \"{name}\"\n[model]\nbase = \"{}\"\n[data]\ninstruction = \"Name the intent.\"\n", self.model);
        for (file, role, rows) in sources {
            let lines: String = rows
                .iter()
                .enumerate()
                .map(|(row, (text, label))| {
                    serde_json::json!({ "id": format!("{file}-{row}"), "text": text, "label": label }).to_string() + "\n"
                })
                .collect();
            std::fs::write(folder.join(file), lines)?;
            run_file +=
                &format!("[[data.source]]\npath = \"{file}\"\nrole = \"{role}\"\ninput = \"text\"\ntarget = \"label\"\nid = \"id\"\n");
        }
        std::fs::write(folder.join("tunesmith.toml"), run_file + prepare)?;
        self.tunesmith(&["prepare", folder.to_str().context("a path that is no text")?])
    }

    /// Shared texts of declared train and test sources.
    fn leaks(&mut self, name: &str, train: &[(String, String)], test: &[(String, String)], expected: (u64, u64)) -> Result<()> {
        let said = self.prepared(name, &[("train.jsonl", "train", train), ("test.jsonl", "test", test)], "")?;
        let of = |key: &str| said["data"]["overlaps"][0][key].as_u64().unwrap_or(0);
        let found = (of("texts"), of("contradictory"));
        self.say(
            found == expected,
            &format!("{name}: {} texts of the test stand in training, {} contradictory (known: {expected:?})", found.0, found.1),
        );
        Ok(())
    }

    /// Swaps a share of the labels at random and looks for them.
    fn swaps(&mut self, name: &str, rows: &[(String, String)]) -> Result<()> {
        let random = &mut Random(5);
        let mut labels: Vec<&String> = rows.iter().map(|(_, label)| label).collect();
        labels.sort_unstable();
        labels.dedup();
        let mut swapped = rows.to_vec();
        let mut wrong = std::collections::BTreeSet::new();
        while (wrong.len() as f64) < SWAPPED * rows.len() as f64 {
            let (row, label) = (random.below(rows.len()), labels[random.below(labels.len())]);
            if *label != rows[row].1 && wrong.insert(format!("all.jsonl-{row}")) {
                swapped[row].1.clone_from(label);
            }
        }
        let said =
            self.prepared(&format!("{name}-swapped"), &[("all.jsonl", "split", &swapped)], "[prepare]\nlabel_errors = \"report\"\n")?;
        let found: Vec<&str> =
            said["data"]["label_errors"].as_array().context("no label errors")?.iter().filter_map(|found| found["id"].as_str()).collect();
        let right = found.iter().filter(|id| wrong.contains(**id)).count() as f64;
        let (precision, recall) = (right / found.len().max(1) as f64, right / wrong.len() as f64);
        let line = format!(
            "{name}: of {} swapped labels {} are suspected: precision {precision:.3}, recall {recall:.3}",
            wrong.len(),
            found.len()
        );
        self.say(precision >= 0.5 && recall >= 0.7, &line);
        // A random hundred of its rows are made again.
        let run = said["run"].as_str().context("no run")?.to_owned();
        let mut same = 0;
        let mut told = 0;
        while told < STORIES {
            let why = self.tunesmith(&["prepare", &run, "--why", &format!("all.jsonl-{}", random.below(rows.len()))])?;
            match &why["replayed"] {
                Value::Bool(true) => same += 1,
                // A row that was dropped has a reason instead of a record.
                Value::Null if why["steps"].as_array().is_some_and(|steps| !steps.is_empty()) => same += 1,
                other => println!("     {other} for {}", why["document"]),
            }
            told += 1;
        }
        self.say(
            same == STORIES,
            &format!("{name}: {same} of {STORIES} random rows are made again to the same bytes, or have their reason"),
        );
        Ok(())
    }

    fn skew(&mut self) -> Result<()> {
        let rows: Vec<(String, String)> = (0..5000u64)
            .map(|row| {
                (
                    format!("message {} about {}", row * row * 7919 % 1_000_003, row % 613),
                    if row % 10 == 0 { "north" } else { "south" }.to_owned(),
                )
            })
            .collect();
        let sources: &[Source<'_>] = &[("rows.jsonl", "split", &rows)];
        let skewed = self.prepared("skew", sources, "[prepare]\nnear_duplicates = \"ignore\"\n")?;
        let warned = skewed["data"]["warnings"]
            .as_array()
            .is_some_and(|all| all.iter().any(|warning| warning.as_str().unwrap_or("").contains("skewed")));
        self.say(warned, "a skew of 9 to 1 is found");
        let even = self.prepared("even", sources, "[prepare]\nnear_duplicates = \"ignore\"\nbalance = 1\n")?;
        let train = |at: usize| even["data"]["strata"][at][1].as_f64().unwrap_or(0.0);
        let share = 100.0 * train(0) / (train(0) + train(1));
        self.say((share - 50.0).abs() <= 2.0, &format!("balanced, {share:.1} % of training is of the rare stratum"));
        let weighed =
            self.prepared("weighed", sources, "[prepare]\nnear_duplicates = \"ignore\"\nbalance = 1\nbalance_by = \"weights\"\n")?;
        let data = &weighed["data"];
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let (rare, frequent) = (number(&data["strata"][0][1]), number(&data["strata"][1][1]));
        let counts = (rare * number(&data["weights"][1]), frequent * number(&data["weights"][0]));
        let share = 100.0 * counts.0 / (counts.0 + counts.1);
        let line =
            format!("balanced by weights, {share:.1} % of training's weight is the rare stratum's, and {} records stay", rare + frequent);
        self.say((share - 50.0).abs() <= 2.0 && rare + frequent > 2000.0, &line);
        Ok(())
    }

    /// Speed, memory and bytes of corpora of several sizes.
    fn corpora(&mut self, sizes: &[u64]) -> Result<()> {
        let mut rates = Vec::new();
        for megabytes in sizes {
            let folder = self.out.join(format!("corpus-{megabytes}"));
            let folder = folder.to_str().context("a path that is no text")?.to_owned();
            corpus::corpus(&["--megabytes".into(), megabytes.to_string(), "--out".into(), folder.clone()])?;
            let said = self.tunesmith(&["bench", "prepare", &folder, "--threads", "1"])?;
            let number = |key: &str| said[key].as_f64().with_context(|| format!("no {key} in {said}"));
            let (rate, peak) = (number("megabytes_per_second_per_thread")?, number("peak_rss_bytes")? / 1e6);
            rates.push(rate);
            self.say(
                rate >= 20.0 && peak <= 1000.0,
                &format!("{megabytes} MB: {rate:.1} MB/s on one thread, {peak:.0} MB of memory at most"),
            );
            if *megabytes != sizes[0] {
                std::fs::remove_dir_all(&folder)?;
            }
        }
        if let [first, .., last] = rates.as_slice() {
            self.say(last / first >= 0.8, &format!("time is linear: {:.2} of the smallest corpus's speed at the largest", last / first));
        }
        let folder = self.out.join(format!("corpus-{}", sizes[0]));
        let mut hashes = Vec::new();
        for threads in ["1", "2", "7"] {
            let said = self.tunesmith(&["prepare", folder.to_str().context("a path that is no text")?, "--threads", threads])?;
            let data = PathBuf::from(said["path"].as_str().context("no path")?).join("data");
            let data = if data.exists() { data } else { self.out.join(data) };
            let mut all = Vec::new();
            for file in ["documents.jsonl", "rejects.jsonl", "records/train.jsonl", "records/validation.jsonl", "records/test.jsonl"] {
                all.push(String::from_utf8(
                    Command::new("sha256sum").arg("-b").stdin(std::fs::File::open(data.join(file))?).output()?.stdout,
                )?);
            }
            hashes.push(all);
            std::fs::remove_dir_all(&data)?;
        }
        self.say(hashes.iter().all(|other| *other == hashes[0]), &format!("{} MB: the same bytes at 1, 2 and 7 threads", sizes[0]));
        Ok(())
    }
}

/// Measures all of it, and fails where something is missed.
pub(crate) fn data(arguments: &[String]) -> Result<()> {
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let (Some(folder), Some(out)) = (value("--data-folder"), value("--out")) else { bail!("{USAGE}") };
    let (folder, out) = (Path::new(folder), std::path::absolute(out)?);
    let sizes: Vec<u64> =
        value("--megabytes").map_or("100,1000", String::as_str).split(',').map(str::parse).collect::<Result<_, _>>().context(USAGE)?;
    let sizes: Vec<u64> = sizes.into_iter().filter(|size| *size > 0).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = match value("--program") {
        Some(given) => std::path::absolute(given)?,
        None => {
            let build =
                Command::new(env!("CARGO")).args(["build", "--release", "--quiet", "-p", "tunesmith"]).current_dir(root).status()?;
            ensure!(build.success(), "cargo build failed");
            target.join("release/tunesmith")
        }
    };
    std::fs::create_dir_all(&out)?;
    let model = value("--model").map_or("smollm2-135m-instruct", String::as_str).to_owned();
    let mut proof = Proof { program, out, model, missed: 0 };

    let banking = |name: &str| table(&folder.join("banking77").join(name));
    let (train, test) = (banking("train.csv")?, banking("test.csv")?);
    proof.leaks("banking77", &train, &test, (11, 0))?;
    proof.swaps("banking77", &train)?;
    let path = folder.join("clinc150/data_full.json");
    let clinc: Value = serde_json::from_slice(&std::fs::read(&path).with_context(|| path.display().to_string())?)?;
    let part = |name: &str| -> Result<Vec<(String, String)>> {
        let rows = clinc[name].as_array().with_context(|| format!("no {name}"))?;
        Ok(rows
            .iter()
            .map(|row| (row[0].as_str().unwrap_or_default().to_owned(), row[1].as_str().unwrap_or_default().to_owned()))
            .collect())
    };
    let (train, test) = (part("train")?, part("test")?);
    proof.leaks("clinc150", &train, &test, (26, 2))?;
    proof.swaps("clinc150", &train)?;
    proof.skew()?;
    if !sizes.is_empty() {
        proof.corpora(&sizes)?;
    }
    ensure!(proof.missed == 0, "{} are missed", proof.missed);
    Ok(())
}

/// The rows of a CSV file with two columns, of which the first may be quoted.
fn table(path: &Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (mut rows, mut cells, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => cell.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                cells.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut cells));
            }
            '\r' if !quoted => {}
            other => cell.push(other),
        }
    }
    rows.into_iter()
        .skip(1)
        .map(|row| match <[String; 2]>::try_from(row) {
            Ok([text, label]) => Ok((text, label)),
            Err(row) => bail!("{}: a row of {} cells", path.display(), row.len()),
        })
        .collect()
}
