//! `prepare --why`: the story of one row, from the files of a run folder, and done again.

use std::io::BufRead;
use std::path::Path;

use data::clean::Findings;
use data::{ColumnKind, Document, Head, Part, Shape};
use serde::Serialize;
use serde_json::Value;

use super::files::records_file;
use super::{Making, augment, recipe, steps};
use crate::error::{Error, Result};
use crate::runs;
use crate::spec::Role;

/// Longest line of a data file, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What is known of one row.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    /// The row as it was read.
    pub document: Value,
    /// The part that its record is in, and the record; nothing where it was dropped.
    pub record: Option<(String, Value)>,
    /// Steps that dropped it, or dropped others for its sake.
    pub steps: Vec<Value>,
    /// What steps found in it or changed, done again now; for an augmented copy, how it was changed.
    pub found: Vec<String>,
    /// Whether making the record again gave the same bytes; nothing where there is no record.
    pub replayed: Option<bool>,
}

/// Each line of a file with its text; none if the file does not exist.
pub(super) fn lines(path: &Path, mut each: impl FnMut(&str) -> Result<bool>) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let (file, _) = store::atomic::open(path)?;
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let mut line = String::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, LINE_BYTES_MAX).read_line(&mut line);
        match read.map_err(|error| store::StoreError::io("read", path, error))? {
            0 => return Ok(()),
            _ if each(line.trim_end_matches('\n'))? => {}
            _ => return Ok(()),
        }
    }
}

/// Tells the story of a row, given the id of its record or of its document.
pub fn why(run: &Path, id: &str) -> Result<Why> {
    let quoted = Value::from(id).to_string();
    let corrupt = |path: &Path| {
        let path = path.to_owned();
        move |reason: String| Error::Corrupt { what: "the prepared data", reason, path: path.clone() }
    };
    let mut kept: Option<(Part, String)> = None;
    let mut document_id = id.to_owned();
    let mut copy = None;
    for part in Part::ALL {
        let path = run.join(records_file(part));
        lines(&path, |line| {
            if line.contains(&quoted) {
                let record = data::wire::read_record(line.as_bytes()).map_err(corrupt(&path))?;
                let change = record.lineage.change;
                if record.id == id || (record.lineage.document == id && change.is_none()) {
                    copy = change.and_then(|change| Some((data::augment::copy_number(&record.id, &change.parent)?, change.parent)));
                    document_id = record.lineage.document;
                    kept = Some((part, line.to_owned()));
                }
            }
            Ok(kept.is_none())
        })?;
        if kept.is_some() {
            break;
        }
    }
    let json = |line: &str, path: &Path| serde_json::from_str::<Value>(line).map_err(|error| corrupt(path)(error.to_string()));
    let plan = runs::plan(run)?;
    // A dropped record's id may be in a column of its document.
    let columns: Vec<&str> = plan.sources.iter().map(|source| source.id.as_str()).filter(|column| !column.is_empty()).collect();
    let path = run.join("data/documents.jsonl");
    let (wanted, mut found) = (Value::from(document_id.as_str()).to_string(), None);
    lines(&path, |line| {
        if line.contains(&wanted) || line.contains(&quoted) {
            let document = data::wire::read_document(line.as_bytes()).map_err(corrupt(&path))?;
            let named = |column: &&str| document.field(column).is_some_and(|value| value.to_text() == id);
            if document.id == document_id || (kept.is_none() && columns.iter().any(named)) {
                found = Some((document, line.to_owned()));
            }
        }
        Ok(found.is_none())
    })?;
    let Some((document, line)) = found else {
        return Err(Error::NoRow { given: id.to_owned(), id: runs::id(run) });
    };
    let ids: Vec<String> = [id, &document.id].iter().map(|id| Value::from(*id).to_string()).collect();
    let mut told = Vec::new();
    let rejects = run.join("data/rejects.jsonl");
    lines(&rejects, |line| {
        if ids.iter().any(|id| line.contains(id.as_str())) {
            told.push(json(line, &rejects)?);
        }
        Ok(true)
    })?;
    let copy = copy.as_ref().map(|(number, parent)| (parent.as_str(), *number));
    let (made, found) = again(run, &document, copy)?;
    let replayed = kept.as_ref().map(|(_, line)| {
        // Stratum and weight stand last and may depend on all records; everything before them is the row's alone.
        made.as_ref().is_some_and(|made| line.as_bytes().starts_with(made))
    });
    let record = kept.map(|(part, line)| Ok::<_, Error>((part.name().to_owned(), json(&line, &path)?))).transpose()?;
    Ok(Why { document: json(&line, &path)?, record, steps: told, found, replayed })
}

/// Makes the record of a document again, or its augmented copy of a number: its bytes up to the stratum, and what the steps found.
fn again(run: &Path, document: &Document, copy: Option<(&str, usize)>) -> Result<(Option<Vec<u8>>, Vec<String>)> {
    let plan = runs::plan(run)?;
    let prepared = store::atomic::read_json(&run.join("data/prepared.json"), 1 << 30)?;
    let making: Vec<Making> = serde_json::from_value(prepared["making"].clone()).map_err(|error| Error::Corrupt {
        what: "the prepared data",
        reason: error.to_string(),
        path: run.join("data/prepared.json"),
    })?;
    let mut findings = Findings::new();
    let place = plan.sources.iter().position(|source| source.path.display().to_string() == document.origin.source);
    let Some((source, making)) = place.and_then(|place| Some((&plan.sources[place], making.get(place)?))) else {
        return Ok((None, Vec::new()));
    };
    let kinds: Vec<(String, ColumnKind)> =
        making.kinds.iter().filter_map(|(name, kind)| Some((name.clone(), ColumnKind::from_name(kind)?))).collect();
    let recipe = recipe(source, &plan, prepared["instruction"].as_str().unwrap_or_default().to_owned());
    let head = Head { source: &document.origin.source, shape: Shape::of(&making.columns), typed: making.typed, columns: &making.columns };
    let maker = recipe.maker(&head, &kinds)?;
    let split_whole = !plan.sources.iter().any(|source| source.role == Role::Split);
    let folder = runs::sources_folder(run)?;
    let steps = steps(&plan, &folder, split_whole)?;
    let Ok(mut record) = maker.record(document) else { return Ok((None, Vec::new())) };
    let rejected = steps.clean.apply(&mut record, &mut findings);
    let mut found: Vec<String> = findings.into_iter().map(|(step, what)| format!("{step}: {what}")).collect();
    if let Some((parent, number)) = copy {
        let Some(made) = augment::planned(&plan, &folder)?.and_then(|augment| augment.copy(&record, number)) else {
            return Ok((None, found));
        };
        let kind = made.lineage.change.as_ref().map(|change| change.kind.clone()).unwrap_or_default();
        found.push(format!("augment: {kind}, a copy of {parent}, which asks: {}", record.input()));
        record = made;
    }
    let mut line = Vec::new();
    data::wire::write_open_record(&mut line, &record);
    Ok((rejected.is_ok().then_some(line), found))
}
