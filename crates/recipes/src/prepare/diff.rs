//! `prepare --diff`: what two prepared sets have in common, and what not.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use data::Part;
use serde::Serialize;

use super::files::each_record_line;
use super::why::lines;
use crate::error::{Error, Result};

/// Ids that are named of each kind.
const NAMED_MAX: usize = 20;

/// What has changed from one prepared set to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Records of the first and of the second set, by part.
    pub records: BTreeMap<&'static str, (u64, u64)>,
    /// Records that are the same to the byte, and in the same part.
    pub same: u64,
    /// Records that only the second set has.
    pub added: Named,
    /// Records that only the first set has, with the reason for which the second rejects them where it says one.
    pub removed: Named,
    /// Records with another content.
    pub changed: Named,
    /// Records in another part: from, to, and how many.
    pub moved: Vec<(&'static str, &'static str, u64)>,
    /// Rejects of the first and of the second set, by step.
    pub rejects: BTreeMap<String, (u64, u64)>,
}

/// How many, and the ids of a few.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// The first ids, in the order of the files, with what there is to say of each.
    pub ids: Vec<(String, String)>,
}

impl Named {
    fn push(&mut self, id: &str, what: String) {
        self.count += 1;
        if self.ids.len() < NAMED_MAX {
            self.ids.push((id.to_owned(), what));
        }
    }
}

/// A record as far as a comparison needs it.
struct Seen {
    part: Part,
    hash: blake3::Hash,
    place: u64,
}

/// Compares two run folders; ids are those of the records. In memory stay an id and 41 bytes of each record of the first set.
pub fn diff(first: &Path, second: &Path) -> Result<Diff> {
    let mut diff = Diff::default();
    let mut seen: HashMap<String, Seen> = HashMap::new();
    let mut place = 0;
    each_line(first, |part, id, line| {
        diff.records.entry(part.name()).or_default().0 += 1;
        place += 1;
        seen.insert(id, Seen { part, hash: blake3::hash(line), place });
    })?;
    let mut moved: BTreeMap<(Part, Part), u64> = BTreeMap::new();
    each_line(second, |part, id, line| {
        diff.records.entry(part.name()).or_default().1 += 1;
        let Some(before) = seen.remove(&id) else { return diff.added.push(&id, part.name().to_owned()) };
        if before.part != part {
            *moved.entry((before.part, part)).or_default() += 1;
        }
        match before.hash == blake3::hash(line) {
            false => diff.changed.push(&id, part.name().to_owned()),
            true if before.part == part => diff.same += 1,
            true => {}
        }
    })?;
    diff.moved = moved.into_iter().map(|((from, to), count)| (from.name(), to.name(), count)).collect();
    let mut reasons: HashMap<String, String> = HashMap::new();
    for (run, second) in [(first, false), (second, true)] {
        let path = run.join("data/rejects.jsonl");
        lines(&path, |line| {
            let value: serde_json::Value = serde_json::from_str(line).map_err(|error| corrupt(&path, error.to_string()))?;
            let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            // Conflicts that were only reported have no step.
            if !text("step").is_empty() {
                let counts = diff.rejects.entry(text("step")).or_default();
                *(if second { &mut counts.1 } else { &mut counts.0 }) += 1;
                if second && seen.contains_key(&text("id")) {
                    reasons.insert(text("id"), format!("{}: {}", text("step"), text("reason")));
                }
            }
            Ok(true)
        })?;
    }
    let mut gone: Vec<(String, Seen)> = seen.into_iter().collect();
    gone.sort_by_key(|(_, seen)| seen.place);
    for (id, _) in gone {
        diff.removed.push(&id, reasons.remove(&id).unwrap_or_else(|| "not in the sources any more".into()));
    }
    Ok(diff)
}

fn each_line(run: &Path, mut each: impl FnMut(Part, String, &[u8])) -> Result<()> {
    each_record_line(run, |part, record, line| {
        each(part, record.id, line.as_bytes());
        Ok(())
    })
}

fn corrupt(path: &Path, reason: String) -> Error {
    Error::Corrupt { what: "the prepared data", reason, path: path.to_owned() }
}
