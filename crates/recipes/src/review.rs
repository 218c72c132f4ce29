//! A second person's look at prepared data: a random sample to accept or reject, and its result in the ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data::{Part, csv_row, without_apostrophe};
use govern::{Event, Hash};
use serde::Serialize;
use store::RunFolder;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::governance::{self, Governance};
use crate::prepare::each_record;
use crate::runs;

/// Largest file of a review or of labels, in bytes.
pub(crate) const SHEET_BYTES_MAX: u64 = 1 << 30;
/// Longest name of a person, in characters.
const NAME_CHARS_MAX: usize = 100;

/// What was written to be looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sampled {
    /// The file.
    pub path: PathBuf,
    /// Records in it.
    pub records: u64,
    /// Records that they were drawn from.
    pub of: u64,
}

/// A review, as it is in the ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Review {
    /// Who looked.
    pub by: String,
    /// Records accepted.
    pub accepted: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Records without a decision.
    pub undecided: u64,
    /// The ids of those rejected, with what was said.
    pub rejections: Vec<(String, String)>,
}

/// Writes a random sample of a run's training, validation and test records as CSV with the columns `id, part, input, answer,
/// verdict, comment`; `verdict` is to be filled in with `accept` or `reject`. The same run and count give the same sample.
pub fn sample(run: &Path, count: usize, output: &Path) -> Result<Sampled> {
    if output.exists() {
        return Err(Error::Exists { what: "the sample", hint: "give a file that is not there: `--out FILE`", path: output.to_owned() });
    }
    let seed = runs::plan(run)?.project.seed;
    // The records with the least hashes: a random draw in one pass, in memory of the sample only.
    let mut drawn: BTreeMap<[u8; 32], (Part, data::Record)> = BTreeMap::new();
    let mut of = 0;
    each_record(run, |part, record| {
        if part != Part::FarOod {
            of += 1;
            drawn.insert(*blake3::hash(format!("review {seed} {}", record.id).as_bytes()).as_bytes(), (part, record));
            if drawn.len() > count {
                drawn.pop_last();
            }
        }
        Ok(())
    })?;
    store::atomic::write_with(output, |file| {
        file.write_all(csv_row(["id", "part", "input", "answer", "verdict", "comment"]).as_bytes())?;
        for (part, record) in drawn.values() {
            let row = csv_row([record.id.as_str(), part.name(), &record.asked(), &record.answer.to_text(), "", ""]);
            file.write_all(row.as_bytes())?;
        }
        Ok(())
    })?;
    Ok(Sampled { path: output.to_owned(), records: drawn.len() as u64, of })
}

/// Takes a filled-in sample: who looked, when, and what they said goes into the run's ledger and the project's; the sheet is kept
/// below `data/reviews`.
pub fn reviewed(context: &Context<'_>, run: &Path, sheet: &Path, by: &str) -> Result<Review> {
    let by = person(by)?;
    let rows = sheet_rows(sheet)?;
    let mut ids: BTreeMap<String, bool> = rows.iter().map(|row| (row.id.clone(), false)).collect();
    each_record(run, |_, record| {
        if let Some(known) = ids.get_mut(&record.id) {
            *known = true;
        }
        Ok(())
    })?;
    if let Some((id, _)) = ids.iter().find(|(_, known)| !**known) {
        return Err(Error::NoRow { given: id.clone(), id: runs::id(run) });
    }
    let mut review = Review { by, accepted: 0, rejected: 0, undecided: 0, rejections: Vec::new() };
    for row in &rows {
        match row.text("verdict").trim().to_lowercase().as_str() {
            "accept" => review.accepted += 1,
            "reject" => {
                review.rejected += 1;
                review.rejections.push((row.id.clone(), row.text("comment")));
            }
            "" => review.undecided += 1,
            other => return Err(Error::Verdict { id: row.id.clone(), given: other.to_owned() }),
        }
    }
    if review.accepted + review.rejected == 0 {
        return Err(Error::NothingReviewed { path: sheet.to_owned() });
    }
    let bytes = store::atomic::read(sheet, SHEET_BYTES_MAX)?;
    let folder = RunFolder::open(run)?;
    let hash = Hash::of(&bytes);
    let name = format!("data/reviews/{}.csv", hash.short());
    folder.write(&name, &bytes)?;
    let event = Event::Reviewed {
        run: runs::id(run),
        sheet: hash,
        by: review.by.clone(),
        accepted: review.accepted,
        rejected: review.rejected,
        undecided: review.undecided,
    };
    let governance = Governance::of(context, &runs::id(run));
    governance.both(&folder, &event)?;
    governance.added(&folder, &name, govern::Role::Records)?;
    Ok(review)
}

/// The last review in a run's ledger: who, accepted, rejected.
pub(crate) fn last(run: &RunFolder, id: &str) -> Result<Option<(String, u64, u64)>> {
    let mut reviews = governance::events(run, id)?.into_iter().filter_map(|event| match event {
        Event::Reviewed { by, accepted, rejected, .. } => Some((by, accepted, rejected)),
        _ => None,
    });
    Ok(reviews.next_back())
}

/// A name that a ledger can keep.
pub(crate) fn person(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Error::PersonName { given: name.chars().take(NAME_CHARS_MAX).collect(), limit: NAME_CHARS_MAX });
    }
    Ok(name.to_owned())
}

/// A row of a sheet that came back.
pub(crate) struct SheetRow {
    /// The record.
    pub(crate) id: String,
    document: data::Document,
}

impl SheetRow {
    /// A cell, as it was before it was made harmless; empty where there is none.
    pub(crate) fn text(&self, column: &str) -> String {
        self.document.field(column).map(|value| without_apostrophe(&value.to_text()).to_owned()).unwrap_or_default()
    }
}

/// The rows of a CSV, JSON or JSONL file with a column `id`; each id once.
pub(crate) fn sheet_rows(path: &Path) -> Result<Vec<SheetRow>> {
    let file = crate::source_files::input(path)?;
    let options = data::ReadOptions::recognise(data::read::LIMITS);
    let mut rows: Vec<SheetRow> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for item in data::read::open(&path.display().to_string(), file, &options)? {
        if let data::Item::Document(document) = item? {
            let id = document.field("id").map(|value| without_apostrophe(&value.to_text()).to_owned()).unwrap_or_default();
            if id.is_empty() {
                return Err(Error::NoId { row: document.origin.row, path: path.to_owned() });
            }
            if !seen.insert(id.clone()) {
                return Err(Error::IdTwice { id, path: path.to_owned() });
            }
            rows.push(SheetRow { id, document });
        }
    }
    Ok(rows)
}
