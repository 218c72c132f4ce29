//! What training must not contain: texts of held-out parts, and of files that the user names.

use std::path::Path;

use data::near::fold;
use data::pipeline::Finished;
use data::read::LIMITS;
use data::steps::Policy;
use data::windows::WindowSet;
use data::{Item, ReadOptions, Value};

use crate::error::Result;
use crate::report::facts::{ContaminationFacts, DataFacts};
use crate::source_files;
use crate::spec::{Found, RunPlan};

/// Looks for them in training, where that was asked for, after the split.
pub(super) fn look(plan: &RunPlan, folder: &Path, finished: &mut Finished, facts: &mut DataFacts) -> Result<()> {
    let apart = &plan.prepare.apart;
    let policy = match apart.contamination {
        Found::Ignore => return Ok(()),
        Found::Drop => Policy::Drop,
        Found::Report | Found::Mask => Policy::Keep,
    };
    let mut benchmarks = Vec::new();
    for path in &apart.benchmarks {
        benchmarks.push((path.display().to_string(), benchmark(path, folder, apart.contamination_words)?));
    }
    let found = finished.contamination(benchmarks, apart.contamination_words, policy)?;
    facts.contamination =
        found.into_iter().map(|found| ContaminationFacts { with: found.with, records: found.records, examples: found.examples }).collect();
    for found in &facts.contamination {
        let advice = match policy {
            Policy::Drop => "dropped",
            Policy::Keep => "[prepare] contamination = \"drop\" takes them out",
        };
        facts.warnings.push(format!("{} training records have a text in common with {}; {advice}", found.records, found.with));
    }
    Ok(())
}

/// All texts of a file, whatever its columns are.
fn benchmark(path: &Path, folder: &Path, words: usize) -> Result<WindowSet> {
    let file = source_files::input(&folder.join(path))?;
    let mut set = WindowSet::new(words);
    for item in data::read::open(&path.display().to_string(), file, &ReadOptions::recognise(LIMITS))? {
        if let Item::Document(document) = item? {
            document.fields.iter().for_each(|(_, value)| add(&mut set, value));
        }
    }
    if set.is_empty() {
        return Err(crate::error::Error::EmptyBenchmark { path: path.to_owned(), words: data::windows::WHOLE_WORDS_MIN });
    }
    Ok(set)
}

fn add(set: &mut WindowSet, value: &Value) {
    match value {
        Value::Text(text) => set.add(&fold(text)),
        Value::List(items) => items.iter().for_each(|item| add(set, item)),
        Value::Object(fields) => fields.iter().for_each(|(_, value)| add(set, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
