//! A file that only grows: one JSON object a line, each hashed together with the one before it.
//!
//! A line is the canonical form of `{seq, time, kind, body, previous, hash}`; `hash` is BLAKE3 of the canonical form without `hash`. The first
//! line's `previous` is the hash of the ledger's name, so that one run's ledger cannot stand in for another's. There is one ledger per run and one above all
//! runs of the project, which counts runs and looks at test sets and holds the heads of the runs' ledgers ([`Event::RunAnchored`]).
//!
//! A line is complete when its newline is there. What follows the last newline is a write that a crash cut off (*torn*); it never was an entry, and
//! the next append replaces it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical::{self, Hash, check_time};
use crate::error::Error;

/// What happened. The names are the `kind` of the line, the fields its `body`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Event {
    /// A run began, from this plan.
    RunStarted {
        /// The run's id.
        run: String,
        /// Hash of the resolved plan.
        plan: Hash,
    },
    /// Records were prepared.
    Prepared {
        /// The run's id.
        run: String,
        /// Records per part of the split.
        records: BTreeMap<String, u64>,
        /// Documents and records that were rejected.
        rejects: u64,
    },
    /// Training went on from a checkpoint.
    Resumed {
        /// The run's id.
        run: String,
        /// The checkpoint's step.
        step: u64,
        /// Hash of the checkpoint.
        checkpoint: Hash,
    },
    /// An adapter was trained.
    Trained {
        /// The run's id.
        run: String,
        /// Steps taken.
        steps: u64,
        /// Hash of the adapter's weights.
        adapter: Hash,
    },
    /// A second person looked at a random sample of the records.
    Reviewed {
        /// The run's id.
        run: String,
        /// Hash of the sheet that they filled in.
        sheet: Hash,
        /// Who looked.
        by: String,
        /// Records accepted.
        accepted: u64,
        /// Records rejected.
        rejected: u64,
        /// Records without a decision.
        undecided: u64,
    },
    /// Labels that a person gave came back.
    Labelled {
        /// The run's id.
        run: String,
        /// Hash of the file.
        sheet: Hash,
        /// Who labelled.
        annotator: String,
        /// How many records.
        labels: u64,
    },
    /// Held-out answers were compared with their gold: a look at a test set.
    TestSetLookedAt {
        /// The run's id.
        run: String,
        /// Hash of the held-out records.
        set: Hash,
        /// The arms that were measured.
        arms: Vec<String>,
    },
    /// The gate was decided.
    VerdictGiven {
        /// The run's id.
        run: String,
        /// `ship`, `do not ship` or `not enough evidence`.
        verdict: String,
        /// The headline metric.
        metric: String,
        /// The compute path that the verdict covers.
        compute_path: String,
    },
    /// A manifest was written.
    ManifestWritten {
        /// The run's id.
        run: String,
        /// The manifest's own hash.
        manifest: Hash,
    },
    /// Something left the project.
    Exported {
        /// The run's id.
        run: String,
        /// Its format: `peft`, `gguf`, …
        format: String,
        /// Its hash.
        artefact: Hash,
    },
    /// Project ledger only: how long a run's ledger is and what its last line is.
    RunAnchored {
        /// The run's id.
        run: String,
        /// Entries in its ledger.
        entries: u64,
        /// Hash of the last of them.
        head: Hash,
    },
}

/// One line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Position, from 0.
    pub seq: u64,
    /// When, as the writer's clock had it (RFC 3339).
    pub time: String,
    /// What kind of event.
    pub kind: String,
    /// The event's fields.
    pub body: Value,
    /// Hash of the entry before, or of the ledger's name.
    pub previous: Hash,
    /// Hash of this entry.
    pub hash: Hash,
}

/// What of an entry is hashed.
#[derive(Serialize)]
struct Hashed<'a> {
    seq: u64,
    time: &'a str,
    kind: &'a str,
    body: &'a Value,
    previous: Hash,
}

impl Entry {
    fn own_hash(&self) -> Result<Hash, Error> {
        Hash::of_value(&Hashed { seq: self.seq, time: &self.time, kind: &self.kind, body: &self.body, previous: self.previous })
    }

    /// The entry as an event; `None` for a kind that this program doesn't know.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        let value = serde_json::json!({"kind": self.kind, "body": self.body});
        serde_json::from_value(value).ok()
    }
}

/// A ledger's name: that of a run, or the project's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ledger<'a> {
    /// The one above all runs.
    Project,
    /// The ledger of the run with this id.
    Run(&'a str),
}

impl fmt::Display for Ledger<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project => formatter.write_str("project"),
            Self::Run(run) => write!(formatter, "run {run}"),
        }
    }
}

/// What to do to append: keep so many bytes of the file, then write the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Bytes of the file that stay; less than its length only if its last line is torn.
    pub keep: usize,
    /// The line to write, with its newline.
    pub line: String,
    /// The new entry; its hash is the ledger's new head.
    pub entry: Entry,
}

impl Ledger<'_> {
    /// What the first entry's `previous` is.
    #[must_use]
    pub fn genesis(&self) -> Hash {
        Hash::of(format!("tunesmith ledger 1 {self}").as_bytes())
    }

    /// The next line of a ledger whose file contains `text`. The caller holds the ledger's lock. Only the last complete line is checked here (its hash, and that its number is that of the line); the whole chain is
    /// [`Ledger::verify`]'s.
    pub fn append(&self, text: &str, time: &str, event: &Event) -> Result<Append, Error> {
        check_time(time)?;
        let keep = text.rfind('\n').map_or(0, |newline| newline + 1);
        let lines = text[..keep].lines().count();
        let last = match text[..keep].lines().next_back() {
            Some(line) => {
                let intact =
                    read_line(line).filter(|entry| entry.seq == lines as u64 - 1 && entry.own_hash().is_ok_and(|hash| hash == entry.hash));
                Some(intact.ok_or_else(|| Error::CannotAppend { ledger: self.to_string(), line: lines })?)
            }
            None => None,
        };
        let value = serde_json::to_value(event).map_err(|error| Error::NotJson { what: "event", why: error.to_string() })?;
        let mut entry = Entry {
            seq: last.as_ref().map_or(0, |last| last.seq + 1),
            time: time.to_owned(),
            kind: value["kind"].as_str().unwrap_or_default().to_owned(),
            body: value["body"].clone(),
            previous: last.map_or_else(|| self.genesis(), |last| last.hash),
            hash: self.genesis(),
        };
        entry.hash = entry.own_hash()?;
        let mut line = canonical::text(&entry)?;
        line.push('\n');
        Ok(Append { keep, line, entry })
    }

    /// Walks the whole chain. Findings are in the order of the lines; the summary counts the entries that are readable.
    #[must_use]
    pub fn verify(&self, text: &str) -> Verification {
        let keep = text.rfind('\n').map_or(0, |newline| newline + 1);
        let lines: Vec<&str> = text[..keep].split_terminator('\n').collect();
        let mut findings = Vec::new();
        let mut entries = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            match read_line(line) {
                None => findings.push(LineFinding::new(index, What::Unreadable)),
                Some(entry) => {
                    // The bytes as well: a changed space or a repeated key leaves the value as it was.
                    let intact = entry.own_hash().is_ok_and(|hash| hash == entry.hash)
                        && canonical::text(&entry).is_ok_and(|canonical| canonical == *line);
                    if !intact {
                        findings.push(LineFinding::new(index, What::Changed));
                    }
                    entries.push((index, entry, intact));
                }
            }
        }
        self.walk(&entries, lines.len(), &mut findings);
        if keep < text.len() {
            findings.push(LineFinding::new(lines.len(), What::Torn));
        }
        findings.sort_by_key(|finding| finding.line);
        Verification {
            summary: Summary::of(entries.iter().map(|(_, entry, _)| entry)),
            entries: entries.into_iter().map(|(_, entry, _)| entry).collect(),
            findings,
        }
    }

    /// Order and links. `entries` are (line index, entry, intact).
    fn walk(&self, entries: &[(usize, Entry, bool)], lines: usize, findings: &mut Vec<LineFinding>) {
        let present: BTreeSet<u64> = entries.iter().map(|(_, entry, _)| entry.seq).collect();
        // Unreadable lines hold the places of missing entries: those are changed, not removed.
        let mut unreadable = lines - entries.len();
        let mut seen: BTreeSet<u64> = BTreeSet::new();
        let mut expected = 0;
        let mut before: Option<&(usize, Entry, bool)> = None;
        for here in entries {
            let (index, entry, intact) = here;
            if !seen.insert(entry.seq) {
                findings.push(LineFinding::new(*index, What::Repeated { seq: entry.seq }));
                continue;
            }
            if entry.seq < expected {
                findings.push(LineFinding::new(*index, What::Reordered { seq: entry.seq, expected }));
                before = Some(here);
                continue;
            }
            // Whoever skips ahead: over lines that come later (reordered) or that are nowhere (removed).
            let mut missing = Vec::new();
            let mut later = false;
            // A forged number may be huge: no more can be missing than a walk over the known ones shows.
            if entry.seq - expected > present.len() as u64 + lines as u64 {
                missing.push((expected, entry.seq - 1));
            } else {
                for seq in expected..entry.seq {
                    if present.contains(&seq) {
                        later = true;
                    } else if unreadable > 0 {
                        unreadable -= 1;
                    } else if let Some((_, last)) = missing.last_mut().filter(|(_, last)| *last + 1 == seq) {
                        *last = seq;
                    } else {
                        missing.push((seq, seq));
                    }
                }
            }
            if later {
                findings.push(LineFinding::new(*index, What::Reordered { seq: entry.seq, expected }));
            }
            for &(from, to) in &missing {
                findings.push(LineFinding::new(*index, What::Removed { from, to }));
            }
            let link = match before {
                Some((_, last, _)) if last.seq.checked_add(1) == Some(entry.seq) => Some(last.hash),
                None if entry.seq == 0 => Some(self.genesis()),
                _ => None,
            };
            let before_intact = before.is_none_or(|(_, _, intact)| *intact);
            if *intact && before_intact && link.is_some_and(|link| link != entry.previous) {
                findings.push(LineFinding::new(*index, What::Relinked));
            }
            expected = entry.seq.saturating_add(1);
            before = Some(here);
        }
    }
}

fn read_line(line: &str) -> Option<Entry> {
    serde_json::from_str(line).ok()
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// Not an entry at all.
    Unreadable,
    /// Its content does not have its hash any more.
    Changed,
    /// Entries before it are gone.
    Removed {
        /// First missing position.
        from: u64,
        /// Last missing position.
        to: u64,
    },
    /// It stands at another place than it was written.
    Reordered {
        /// Its position as written.
        seq: u64,
        /// The position at which it stands.
        expected: u64,
    },
    /// An entry with this position stands here a second time.
    Repeated {
        /// The position.
        seq: u64,
    },
    /// It is sound in itself but does not continue the line before it: one of the two was replaced and hashed anew, or it
    /// comes from another ledger.
    Relinked,
    /// The last line has no end: a write was cut off.
    Torn,
}

/// A line and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFinding {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: What,
}

impl LineFinding {
    fn new(index: usize, what: What) -> Self {
        Self { line: index + 1, what }
    }
}

impl fmt::Display for LineFinding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: ", self.line)?;
        match &self.what {
            What::Unreadable => formatter.write_str("changed: it is no ledger entry any more"),
            What::Changed => formatter.write_str("changed since it was written"),
            What::Removed { from, to } if from == to => write!(formatter, "entry {from} before it was removed"),
            What::Removed { from, to } => write!(formatter, "entries {from} to {to} before it were removed"),
            What::Reordered { seq, expected } => {
                write!(formatter, "reordered: entry {seq} stands where entry {expected} should")
            }
            What::Repeated { seq } => write!(formatter, "entry {seq} stands here a second time"),
            What::Relinked => formatter.write_str("replaced: it does not continue the line before it"),
            What::Torn => formatter.write_str("torn: a write was cut off before its end"),
        }
    }
}

/// What a ledger says when it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Entries.
    pub entries: u64,
    /// Hash of the last entry; `None` for an empty ledger.
    pub head: Option<Hash>,
    /// Ids of the runs that were started, in order.
    pub runs: Vec<String>,
    /// Each test set that was looked at, with the runs that did, in order, one entry per look.
    pub looks: BTreeMap<Hash, Vec<String>>,
    /// Each run's last anchor: entries and head.
    pub anchors: BTreeMap<String, (u64, Hash)>,
    /// Each run's last verdict.
    pub verdicts: BTreeMap<String, String>,
}

impl Summary {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut summary = Self::default();
        for entry in entries {
            summary.entries += 1;
            summary.head = Some(entry.hash);
            match entry.event() {
                Some(Event::RunStarted { run, .. }) => summary.runs.push(run),
                Some(Event::TestSetLookedAt { run, set, .. }) => summary.looks.entry(set).or_default().push(run),
                Some(Event::RunAnchored { run, entries, head }) => {
                    summary.anchors.insert(run, (entries, head));
                }
                Some(Event::VerdictGiven { run, verdict, .. }) => {
                    summary.verdicts.insert(run, verdict);
                }
                _ => {}
            }
        }
        summary
    }
}

/// The result of walking a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// What is wrong, in the order of the lines.
    pub findings: Vec<LineFinding>,
    /// What the readable entries say.
    pub summary: Summary,
    /// The readable entries.
    pub entries: Vec<Entry>,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-07-01T12:00:00Z";
    const LEDGER: Ledger<'_> = Ledger::Run("r1");

    fn event(step: u64) -> Event {
        Event::Resumed { run: "r1".to_owned(), step, checkpoint: Hash::of(&step.to_le_bytes()) }
    }

    fn chain(entries: u64) -> String {
        let mut text = String::new();
        for step in 0..entries {
            let append = LEDGER.append(&text, TIME, &event(step)).unwrap();
            assert_eq!((append.keep, append.entry.seq), (text.len(), step));
            text.push_str(&append.line);
        }
        text
    }

    fn rejoin(lines: &[&str]) -> String {
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(usize, What)]) {
        let findings: Vec<(usize, What)> = LEDGER.verify(text).findings.into_iter().map(|finding| (finding.line, finding.what)).collect();
        assert_eq!(findings, expected);
    }

    #[test]
    fn a_whole_chain() {
        let text = chain(5);
        let verification = LEDGER.verify(&text);
        assert!(verification.is_intact());
        assert_eq!(verification.summary.entries, 5);
        assert_eq!(verification.summary.head, Some(verification.entries[4].hash));
        assert_eq!(verification.entries[3].event(), Some(event(3)));
        assert!(LEDGER.verify("").is_intact());
    }

    #[test]
    fn each_byte_is_covered() {
        let text = chain(3);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
            let edited = String::from_utf8(bytes).unwrap();
            assert!(!LEDGER.verify(&edited).is_intact(), "byte {at} changed unnoticed");
        }
    }

    #[test]
    fn a_changed_line_is_named() {
        let text = chain(4);
        check(&text.replacen("\"step\":1", "\"step\":9", 1), &[(2, What::Changed)]);
        check(&text.replacen("\"seq\":2", "\"seq\": 2", 1), &[(3, What::Changed)]);
        let mut lines: Vec<&str> = text.lines().collect();
        lines[1] = "{}";
        check(&rejoin(&lines), &[(2, What::Unreadable)]);
    }

    #[test]
    fn dropped_swapped_repeated() {
        let text = chain(5);
        let lines: Vec<&str> = text.lines().collect();
        let drop = [&lines[..1], &lines[3..]].concat();
        check(&rejoin(&drop), &[(2, What::Removed { from: 1, to: 2 })]);
        check(&rejoin(&lines[2..]), &[(1, What::Removed { from: 0, to: 1 })]);
        let mut swap = lines.clone();
        swap.swap(1, 2);
        check(&rejoin(&swap), &[(2, What::Reordered { seq: 2, expected: 1 }), (3, What::Reordered { seq: 1, expected: 3 })]);
        let repeat = [&lines[..3], &lines[2..]].concat();
        check(&rejoin(&repeat), &[(4, What::Repeated { seq: 2 })]);
    }

    #[test]
    fn a_torn_tail_is_no_entry_and_is_replaced() {
        let text = chain(3);
        let torn = &text[..text.len() - 20];
        check(torn, &[(3, What::Torn)]);
        let append = LEDGER.append(torn, TIME, &event(7)).unwrap();
        let mended = format!("{}{}", &torn[..append.keep], append.line);
        check(&mended, &[]);
        assert_eq!(append.entry.seq, 2);
    }

    /// A line replaced and hashed anew no longer fits the next one.
    #[test]
    fn a_forged_line_breaks_the_chain() {
        let text = chain(4);
        let lines: Vec<&str> = text.lines().collect();
        let forged = LEDGER.append(&rejoin(&lines[..1]), TIME, &event(99)).unwrap();
        let forgery = [lines[0], forged.line.trim_end(), lines[2], lines[3]];
        check(&rejoin(&forgery), &[(3, What::Relinked)]);
    }

    #[test]
    fn another_runs_ledger_does_not_fit() {
        let text = chain(2);
        let findings = Ledger::Run("r2").verify(&text).findings;
        assert_eq!(findings, [LineFinding::new(0, What::Relinked)]);
        assert_eq!(findings[0].to_string(), "line 1: replaced: it does not continue the line before it");
    }

    #[test]
    fn nothing_is_appended_to_a_broken_line() {
        let text = chain(2).replace("\"step\":1", "\"step\":2");
        let error = LEDGER.append(&text, TIME, &event(2)).unwrap_err();
        assert_eq!(error, Error::CannotAppend { ledger: "run r1".to_owned(), line: 2 });
        assert!(matches!(LEDGER.append("", "yesterday", &event(0)), Err(Error::NotATime { .. })));
    }

    #[test]
    fn a_huge_forged_number_takes_no_time() {
        let mut entry: Entry = serde_json::from_str(chain(1).trim_end()).unwrap();
        entry.seq = u64::MAX;
        entry.hash = entry.own_hash().unwrap();
        let text = format!("{}\n", canonical::text(&entry).unwrap());
        check(&text, &[(1, What::Removed { from: 0, to: u64::MAX - 1 })]);
        assert!(matches!(LEDGER.append(&text, TIME, &event(0)), Err(Error::CannotAppend { line: 1, .. })));
    }

    #[test]
    fn the_project_ledger_counts() {
        let mut text = String::new();
        let set = Hash::of(b"test.jsonl");
        let look = |run: &str| Event::TestSetLookedAt { run: run.to_owned(), set, arms: vec!["base".to_owned(), "tuned".to_owned()] };
        let started = |run: &str| Event::RunStarted { run: run.to_owned(), plan: Hash::of(b"plan") };
        for event in [started("r1"), look("r1"), look("r1"), started("r2"), look("r2")] {
            let line = Ledger::Project.append(&text, TIME, &event).unwrap().line;
            text.push_str(&line);
        }
        let summary = Ledger::Project.verify(&text).summary;
        assert_eq!(summary.runs, ["r1", "r2"]);
        assert_eq!(summary.looks[&set], ["r1", "r1", "r2"]);
    }
}
