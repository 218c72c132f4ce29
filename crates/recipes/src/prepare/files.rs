//! The data files of a run folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use data::{HeldOut, Part, Record, Split};
use eval::Task;
use serde_json::{Value, json};
use store::RunFolder;

use super::datasheet::{croissant, datasheet};
use super::{Prepared, Story, task_of};
use crate::error::{Error, Result};
use crate::report::facts::DataFacts;

/// Largest `data/prepared.json`.
const PREPARED_BYTES_MAX: u64 = 1 << 30;

pub(super) fn records_file(part: Part) -> String {
    format!("data/records/{}.jsonl", part.name())
}

fn part(split: &Split, part: Part) -> &[Record] {
    match part {
        Part::Train => split.train.records(),
        Part::Validation => &split.held_out.validation,
        Part::Test => &split.held_out.in_domain,
        Part::NearOod => &split.held_out.near_ood,
        Part::FarOod => &split.held_out.far_ood,
    }
}

/// Files of the run folder, open one beside the other, each whole or not at all.
struct Files<'a> {
    run: &'a RunFolder,
    open: BTreeMap<String, store::atomic::Pending>,
}

impl Files<'_> {
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let file = match self.open.entry(name.to_owned()) {
            std::collections::btree_map::Entry::Occupied(file) => file.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(self.run.pending(name)?),
        };
        file.write_all(bytes).map_err(|error| store::StoreError::io("write", &self.run.file(name), error))?;
        Ok(())
    }

    fn commit(self) -> Result<()> {
        self.open.into_values().try_for_each(|file| Ok(file.commit()?))
    }
}

impl Story {
    /// Writes records, documents and rejects into a run folder, `data/prepared.json` last. The records are those of
    /// `prepared` where it is given, otherwise they never come into memory together.
    pub fn write(&self, run: &RunFolder, prepared: Option<&Prepared>) -> Result<()> {
        let mut finished = self.finished();
        let mut files = Files { run, open: BTreeMap::new() };
        files.write("data/documents.jsonl", b"")?;
        finished.documents(|bytes| files.write("data/documents.jsonl", bytes))?;
        for part in Part::ALL.into_iter().filter(|part| *part != Part::NearOod || finished.count(*part) > 0) {
            files.write(&records_file(part), b"")?;
        }
        let task = match prepared {
            Some(prepared) => {
                let mut line = Vec::new();
                for of in Part::ALL {
                    for record in part(&prepared.split, of) {
                        line.clear();
                        data::wire::write_record(&mut line, record);
                        line.push(b'\n');
                        files.write(&records_file(of), &line)?;
                    }
                }
                prepared.task.clone()
            }
            None => {
                let mut train = TaskSeen::default();
                finished.records(|part, line| {
                    if part == Part::Train {
                        train.see(line)?;
                    }
                    files.write(&records_file(part), line)
                })?;
                if self.plan.is_text() { Task::Text } else { train.task() }
            }
        };
        files.write("data/rejects.jsonl", b"")?;
        finished.rejects(|bytes| files.write("data/rejects.jsonl", bytes))?;
        for suspect in &self.facts.label_errors {
            files.write("data/label_errors.jsonl", format!("{}\n", json!(suspect)).as_bytes())?;
        }
        files.commit()?;
        let mut written = Vec::new();
        for name in Part::ALL.map(records_file) {
            if run.file(&name).exists() {
                let (sha256, bytes) = store::atomic::sha256(&run.file(&name), &mut |_| {})?;
                written.push((name, sha256, bytes));
            }
        }
        let labels = match &task {
            Task::Classification { labels } => json!({ "kind": "classification", "labels": labels }),
            Task::Structured { fields } => json!({ "kind": "structured", "fields": fields }),
            Task::FreeText => json!({ "kind": "free_text" }),
            Task::Text => json!({ "kind": "text" }),
        };
        let facts = prepared.map_or(&self.facts, |prepared| &prepared.facts);
        run.write("data/datasheet.md", datasheet(&self.plan, facts, &self.instruction).as_bytes())?;
        let croissant = croissant(&self.plan, facts, &written);
        run.write("data/croissant.json", format!("{croissant:#}\n").as_bytes())?;
        let facts = json!({ "instruction": self.instruction, "task": labels, "facts": facts, "making": self.making });
        run.write("data/prepared.json", format!("{facts:#}\n").as_bytes())?;
        Ok(())
    }
}

/// Training records as far as they are needed to tell the kind of task: the first of each distinct answer.
#[derive(Default)]
struct TaskSeen {
    records: Vec<Record>,
    counts: BTreeMap<String, usize>,
    total: usize,
    free: bool,
}

impl TaskSeen {
    fn see(&mut self, line: &[u8]) -> Result<()> {
        self.total += 1;
        if self.free {
            return Ok(());
        }
        let record = data::wire::read_record(line).map_err(|problem| data::DataError::Spill { problem })?;
        if record.lineage.change.is_some() {
            self.total -= 1;
            return Ok(());
        }
        *self.counts.entry(record.answer.to_text()).or_default() += 1;
        if self.counts.len() > self.records.len() {
            self.records.push(record);
        }
        // One more than any label set has; what follows cannot change the answer.
        self.free = self.counts.len() > super::LABELS_MAX || matches!(self.records[0].answer, data::Answer::Fields(_));
        Ok(())
    }

    fn task(mut self) -> Task {
        // The kind of task depends on how often an answer comes back on average, at least twice.
        if !self.free && 2 * self.counts.len() <= self.total {
            self.records.extend(self.records.clone());
        }
        task_of(&self.records)
    }
}

/// What [`super::prepare`] wrote into a run folder.
pub fn read(run: &Path) -> Result<Prepared> {
    let path = run.join("data/prepared.json");
    let corrupt = |reason: String| Error::Corrupt { what: "the prepared data", reason, path: path.clone() };
    let value = store::atomic::read_json(&path, PREPARED_BYTES_MAX)?;
    let names = |value: &Value| {
        value.as_array().map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    let task = match value["task"]["kind"].as_str() {
        Some("classification") => Task::Classification { labels: names(&value["task"]["labels"]) },
        Some("structured") => Task::Structured { fields: names(&value["task"]["fields"]) },
        Some("free_text") => Task::FreeText,
        Some("text") => Task::Text,
        other => return Err(corrupt(format!("unknown task {other:?}"))),
    };
    let facts: DataFacts = serde_json::from_value(value["facts"].clone()).map_err(|error| corrupt(error.to_string()))?;
    let mut parts = BTreeMap::new();
    for part in Part::ALL {
        let path = run.join(records_file(part));
        let mut records = Vec::new();
        for (index, line) in store::jsonl::read_lines(&path)?.iter().enumerate() {
            let name = part.name();
            records
                .push(data::wire::read_record(line.as_bytes()).map_err(|reason| corrupt(format!("{name} line {}: {reason}", index + 1)))?);
        }
        parts.insert(part, records);
    }
    let mut take = |part| parts.remove(&part).unwrap_or_default();
    let train = take(Part::Train);
    let held_out = HeldOut {
        validation: take(Part::Validation),
        in_domain: take(Part::Test),
        near_ood: take(Part::NearOod),
        far_ood: take(Part::FarOod),
    };
    let split = Split::assemble(train, held_out)?;
    Ok(Prepared { instruction: value["instruction"].as_str().unwrap_or_default().to_owned(), task, split, facts })
}

/// Each record of a run with its line, in the order of parts and files; an error where nothing was prepared.
pub(super) fn each_record_line(run: &Path, mut each: impl FnMut(Part, Record, &str) -> Result<()>) -> Result<()> {
    if !run.join("data/prepared.json").exists() {
        return Err(Error::NotPrepared { id: crate::runs::id(run) });
    }
    for part in Part::ALL {
        let path = run.join(records_file(part));
        super::why::lines(&path, |line| {
            let record = data::wire::read_record(line.as_bytes()).map_err(|reason| Error::Corrupt {
                what: "the prepared data",
                reason,
                path: path.clone(),
            })?;
            each(part, record, line).map(|()| true)
        })?;
    }
    Ok(())
}

/// The same without the lines.
pub(crate) fn each_record(run: &Path, mut each: impl FnMut(Part, Record) -> Result<()>) -> Result<()> {
    each_record_line(run, |part, record, _| each(part, record))
}

/// Ids of the records of a run whose label is probably wrong.
pub(crate) fn suspects(run: &Path) -> Result<std::collections::BTreeSet<String>> {
    let path = run.join("data/label_errors.jsonl");
    let mut ids = std::collections::BTreeSet::new();
    super::why::lines(&path, |line| {
        let value: Value = serde_json::from_str(line).map_err(|error| Error::Corrupt {
            what: "the prepared data",
            reason: error.to_string(),
            path: path.clone(),
        })?;
        ids.extend(value["id"].as_str().map(str::to_owned));
        Ok(true)
    })?;
    if ids.is_empty() {
        return Err(Error::NoSuspects { id: crate::runs::id(run) });
    }
    Ok(ids)
}
