//! `label`: rows go out to people who label them, and come back with who and when; how well they agree, and what is left to
//! decide. Labels never change a run: [`write()`] makes a source of them for the next one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use data::{Part, csv_row};
use eval::agreement::{cohen_kappa, krippendorff_alpha};
use govern::{Event, Hash};
use serde::{Deserialize, Serialize};
use store::RunFolder;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::governance::Governance;
use crate::prepare::each_record;
use crate::review::{SHEET_BYTES_MAX, person, sheet_rows};
use crate::runs;

/// Where a run keeps the labels that came back.
const LABELS_FILE: &str = "data/labels.jsonl";
/// Name under which decisions about disagreements are kept.
const ADJUDICATED: &str = "adjudication";
/// Longest label, in bytes.
const LABEL_BYTES_MAX: usize = 64 << 10;

/// What is to be labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// So many records, drawn at random; 0: all.
    pub count: usize,
    /// Only those whose label is probably wrong.
    pub suspects: bool,
    /// With the label that they have; without it nobody is led.
    pub show_labels: bool,
}

/// One label that came back.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Label {
    annotator: String,
    id: String,
    label: String,
    time: String,
}

/// How two people agree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairFacts {
    /// One of them.
    pub first: String,
    /// The other.
    pub second: String,
    /// Items that both labelled.
    pub items: u64,
    /// Share that they labelled alike.
    pub observed: f64,
    /// Cohen's κ.
    pub kappa: f64,
    /// Its 95 % interval.
    pub interval: (f64, f64),
}

/// How people agree, and what is to be decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Who labelled, and how many items.
    pub annotators: Vec<(String, u64)>,
    /// Each pair who labelled the same items.
    pub pairs: Vec<PairFacts>,
    /// Krippendorff's α over all; nothing where no item was labelled twice.
    pub alpha: Option<f64>,
    /// Items that at least two people labelled.
    pub shared: u64,
    /// Items on which they disagree and nothing was decided yet.
    pub open: u64,
}

/// Writes records to be labelled: `id, text, label` with an empty label, as CSV, or as JSON lines where the name ends so. Gives
/// how many.
pub fn export(run: &Path, wanted: Wanted, output: &Path) -> Result<u64> {
    fresh(output)?;
    let seed = runs::plan(run)?.project.seed;
    let suspects: Option<BTreeSet<String>> = match wanted.suspects {
        true => Some(crate::prepare::suspects(run)?),
        false => None,
    };
    let mut chosen: BTreeMap<[u8; 32], data::Record> = BTreeMap::new();
    each_record(run, |part, record| {
        let asked = part != Part::FarOod && suspects.as_ref().is_none_or(|suspects| suspects.contains(&record.id));
        if asked {
            chosen.insert(*blake3::hash(format!("label {seed} {}", record.id).as_bytes()).as_bytes(), record);
            if wanted.count > 0 && chosen.len() > wanted.count {
                chosen.pop_last();
            }
        }
        Ok(())
    })?;
    let json = output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
    store::atomic::write_with(output, |file| {
        if !json {
            file.write_all(csv_row(["id", "text", "label"]).as_bytes())?;
        }
        for record in chosen.values() {
            let (text, label) = (record.asked(), if wanted.show_labels { record.answer.to_text() } else { String::new() });
            let line = match json {
                true => format!("{}\n", serde_json::json!({ "id": record.id, "text": text, "label": label })),
                false => csv_row([record.id.as_str(), &text, &label]),
            };
            file.write_all(line.as_bytes())?;
        }
        Ok(())
    })?;
    Ok(chosen.len() as u64)
}

/// Takes labels that came back. Rows with an empty label are left out; a label that this person gave before is replaced. The
/// name, the time and the hash of the file go into the run's ledger. Gives how many labels there were.
pub fn import(context: &Context<'_>, run: &Path, sheet: &Path, annotator: &str) -> Result<u64> {
    let annotator = person(annotator)?;
    let now = context.clock.now();
    let mut labels = read(run)?;
    let known = texts(run)?;
    let mut count = 0;
    for row in sheet_rows(sheet)? {
        let label = row.text("label").trim().to_owned();
        if !known.contains_key(&row.id) {
            return Err(Error::NoRow { given: row.id, id: runs::id(run) });
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(Error::LabelTooLong { id: row.id, given: label.len(), limit: LABEL_BYTES_MAX });
        }
        if !label.is_empty() {
            count += 1;
            labels
                .insert((row.id.clone(), annotator.clone()), Label { annotator: annotator.clone(), id: row.id, label, time: now.clone() });
        }
    }
    let lines: String = labels
        .values()
        .map(|label| serde_json::to_string(label).map(|line| line + "\n"))
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::Corrupt { what: "the labels", reason: error.to_string(), path: run.join(LABELS_FILE) })?;
    let folder = RunFolder::open(run)?;
    folder.write(LABELS_FILE, lines.as_bytes())?;
    let sheet = Hash::of(&store::atomic::read(sheet, SHEET_BYTES_MAX)?);
    let governance = Governance::of(context, &runs::id(run));
    governance.both(&folder, &Event::Labelled { run: runs::id(run), sheet, annotator, labels: count })?;
    governance.added(&folder, LABELS_FILE, govern::Role::Records)?;
    Ok(count)
}

/// How people agree on a run's records; with `output`, the items on which they do not are written as CSV with the columns `id,
/// text`, one for each person, and `label` for the decision, which [`import`] takes under the name `adjudication`.
pub fn agreement(run: &Path, output: Option<&Path>) -> Result<Agreement> {
    let labels = read(run)?;
    let mut items: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    let mut annotators: BTreeMap<&str, u64> = BTreeMap::new();
    for label in labels.values().filter(|label| label.annotator != ADJUDICATED) {
        items.entry(&label.id).or_default().insert(&label.annotator, &label.label);
        *annotators.entry(&label.annotator).or_default() += 1;
    }
    let distinct: BTreeSet<&str> = labels.values().map(|label| label.label.as_str()).collect();
    let number: HashMap<&str, usize> = distinct.iter().enumerate().map(|(number, label)| (*label, number)).collect();
    let names: Vec<&str> = annotators.keys().copied().collect();
    let mut pairs = Vec::new();
    for (i, first) in names.iter().enumerate() {
        for second in &names[i + 1..] {
            let both = items.values().filter_map(|item| Some((number[item.get(first)?], number[item.get(second)?])));
            if let Some(kappa) = cohen_kappa(&both.collect::<Vec<_>>()) {
                pairs.push(PairFacts {
                    first: (*first).to_owned(),
                    second: (*second).to_owned(),
                    items: kappa.n as u64,
                    observed: kappa.observed,
                    kappa: kappa.kappa,
                    interval: (kappa.interval.low, kappa.interval.high),
                });
            }
        }
    }
    let units: Vec<Vec<usize>> = items.values().map(|item| item.values().map(|label| number[label]).collect()).collect();
    let decided = |id: &str| labels.contains_key(&(id.to_owned(), ADJUDICATED.to_owned()));
    let open: Vec<(&str, &BTreeMap<&str, &str>)> = items
        .iter()
        .filter(|(id, item)| item.values().collect::<BTreeSet<_>>().len() > 1 && !decided(id))
        .map(|(id, item)| (*id, item))
        .collect();
    if let Some(output) = output {
        fresh(output)?;
        let texts = texts(run)?;
        store::atomic::write_with(output, |file| {
            let head = ["id", "text"].into_iter().chain(names.iter().copied()).chain(["label"]);
            file.write_all(csv_row(head).as_bytes())?;
            for (id, item) in &open {
                let given = names.iter().map(|name| item.get(name).copied().unwrap_or_default());
                let row = [*id, texts.get(*id).map_or("", |(text, _)| text.as_str())].into_iter().chain(given).chain([""]);
                file.write_all(csv_row(row).as_bytes())?;
            }
            Ok(())
        })?;
    }
    Ok(Agreement {
        alpha: krippendorff_alpha(&units),
        shared: units.iter().filter(|unit| unit.len() > 1).count() as u64,
        open: open.len() as u64,
        annotators: annotators.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        pairs,
    })
}

/// Writes the labelled records as a source for the next run: `id, text, label, annotators, group`. A label is the decision where
/// there is one, or what all say; items that are still open are left out and counted: (written, open).
pub fn write(run: &Path, output: &Path) -> Result<(u64, u64)> {
    fresh(output)?;
    let (labels, texts) = (read(run)?, texts(run)?);
    let mut items: BTreeMap<&str, Vec<&Label>> = BTreeMap::new();
    for label in labels.values() {
        items.entry(&label.id).or_default().push(label);
    }
    let (mut rows, mut open) = (Vec::new(), 0);
    for (id, given) in items {
        let decision = given.iter().find(|label| label.annotator == ADJUDICATED);
        let alike = given.iter().all(|label| label.label == given[0].label);
        let Some(label) = decision.or(if alike { given.first() } else { None }) else {
            open += 1;
            continue;
        };
        let names: Vec<&str> = given.iter().map(|label| label.annotator.as_str()).collect();
        let (text, group) = texts.get(id).map_or(("", ""), |(text, group)| (text.as_str(), group.as_str()));
        rows.push(csv_row([id, text, &label.label, &names.join("; "), group]));
    }
    store::atomic::write_with(output, |file| {
        file.write_all(csv_row(["id", "text", "label", "annotators", "group"]).as_bytes())?;
        rows.iter().try_for_each(|row| file.write_all(row.as_bytes()))
    })?;
    Ok((rows.len() as u64, open))
}

fn fresh(output: &Path) -> Result<()> {
    match output.exists() {
        true => Err(Error::Exists { what: "the file to write", hint: "give one that is not there: `--out FILE`", path: output.to_owned() }),
        false => Ok(()),
    }
}

/// Text and group of each record.
fn texts(run: &Path) -> Result<HashMap<String, (String, String)>> {
    let mut texts = HashMap::new();
    each_record(run, |_, record| {
        texts.insert(record.id.clone(), (record.asked().into_owned(), record.group.clone().unwrap_or_default()));
        Ok(())
    })?;
    Ok(texts)
}

/// The labels of a run by record and annotator.
fn read(run: &Path) -> Result<BTreeMap<(String, String), Label>> {
    let path: PathBuf = run.join(LABELS_FILE);
    let mut labels = BTreeMap::new();
    for line in store::jsonl::read_lines(&path)? {
        let label: Label = serde_json::from_str(&line).map_err(|error| Error::Corrupt {
            what: "the labels",
            reason: error.to_string(),
            path: path.clone(),
        })?;
        labels.insert((label.id.clone(), label.annotator.clone()), label);
    }
    Ok(labels)
}
